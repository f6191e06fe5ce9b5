/* The marking pass and the search behind it, on small universes: a package list, a line "--", a status, a line "--", and what is
 * asked for, one name a line ("name-": out with it). The first byte says whether recommendations count.
 *
 * Beyond not crashing: a solution that is found holds together by the same check that the pass has to meet. */
#include "builder/packages/marks.h"
#include "builder/packages/solve.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct apt_origin origin = { .archive = "stable", .codename = "bookworm", .origin = "Debian", .label = "Debian",
	.version = "12", .component = "main", .site = "deb.example.org", .arch = "amd64" };

/* Cut what stands before the next line "--" off *text. */
static struct deb822_value next_part(const char **text, size_t *len)
{
	const char *end = memmem(*text, *len, "\n--\n", 4);
	struct deb822_value part = { *text, end ? (size_t)(end + 1 - *text) : *len };
	size_t used = end ? part.len + 3 : part.len;

	*text += used;
	*len -= used;
	return part;
}

static int ask(struct pkg_marks *m, struct deb822_value words, struct err *e)
{
	struct pkg_universe *u = m->u;
	int r = 0;

	while (words.len > 0 && r == 0) {
		const char *end = memchr(words.s, '\n', words.len);
		size_t len = end ? (size_t)(end - words.s) : words.len, used = end ? len + 1 : len;
		bool out = len > 1 && words.s[len - 1] == '-';
		uint32_t name = pkg_universe_find(u, words.s, out ? len - 1 : len);

		words.s += used;
		words.len -= used;
		if (name == UNIVERSE_NONE || name >= m->n)
			continue;
		if (out && !pkg_marks_is_vital(m, name) && !m->marks[name].requested)
			pkg_marks_unwant(m, name);
		else if (!out && u->names[name].candidate != UNIVERSE_NONE && !m->marks[name].unwanted)
			r = pkg_marks_request(m, name, e);
	}
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_universe_ struct pkg_universe u = { 0 };
	_cleanup_pins_ struct apt_pins pins = { 0 };
	_cleanup_marks_ struct pkg_marks m = { 0 };
	struct deb822_value list, status, words;
	struct err e = ERR_INIT;
	const char *text;
	char why[640];
	size_t len;

	if (size < 1)
		return 0;
	text = (const char *)data + 1;
	len = size - 1;
	list = next_part(&text, &len);
	status = next_part(&text, &len);
	words = next_part(&text, &len);
	pkg_universe_init(&u, ARCH_AMD64, &pins);
	if (pkg_universe_add_list(&u, list.s, list.len, 0, &origin, "list", NULL, &e) < 0 ||
		pkg_universe_add_status(&u, status.s, status.len, "status", &e) < 0 || pkg_universe_finish(&u, &e) < 0 ||
		pkg_marks_init(&m, &u, data[0] & 1, &e) < 0 || ask(&m, words, &e) < 0 || pkg_marks_run(&m, &e) < 0)
		return 0;
	if (pkg_marks_check(&m, why, sizeof(why), &e) == 0 && pkg_solve(&m, &e) == 0 &&
		pkg_marks_check(&m, why, sizeof(why), &e) == 0)
		__builtin_trap();
	return 0;
}
