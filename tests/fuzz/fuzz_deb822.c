/* Package lists, status, relations, versions, release files, preferences and armoured keys: all that is deb822 or lies beside it.
 * The first byte chooses; the rest is the text. */
#include "builder/packages/deb822.h"
#include "builder/packages/order.h"
#include "builder/packages/release.h"
#include "builder/packages/universe.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct apt_origin origin = { .archive = "stable", .codename = "bookworm", .origin = "Debian", .label = "Debian",
	.version = "12", .component = "main", .site = "deb.example.org", .arch = "amd64" };

static void read_universe(const char *text, size_t size, bool as_list)
{
	_cleanup_universe_ struct pkg_universe u = { 0 };
	_cleanup_pins_ struct apt_pins pins = { 0 };
	struct err e = ERR_INIT;
	int r;

	pkg_universe_init(&u, ARCH_AMD64, &pins);
	r = as_list ? pkg_universe_add_list(&u, text, size, 0, &origin, "list", NULL, &e) :
		      pkg_universe_add_status(&u, text, size, "status", &e);
	if (r < 0 || pkg_universe_finish(&u, &e) < 0)
		return;
	for (uint32_t v = 0; v < u.n_versions; v++)
		(void)pkg_universe_relations(&u, v, &e);
}

/* A status, then behind a line "--" the control texts of what goes in. */
static void order(const char *text, size_t size)
{
	struct pkg_order_item items[8];
	struct pkg_ops ops = { 0 };
	const char *at = memmem(text, size, "\n--\n", 4);
	size_t status_len = at ? (size_t)(at - text) : size, n = 0;
	struct err e = ERR_INIT;

	while (at && n < ARRAY_SIZE(items)) {
		const char *start = at + 4;

		at = memmem(start, size - (size_t)(start - text), "\n--\n", 4);
		items[n].name = "item";
		items[n].control = start;
		items[n++].control_len = at ? (size_t)(at - start) : size - (size_t)(start - text);
	}
	if (pkg_order("amd64", text, status_len, items, n, NULL, 0, &ops, &e) == 0)
		pkg_ops_release(&ops);
}

static void release(const char *text, size_t size)
{
	_cleanup_release_ struct apt_release r;
	struct err e = ERR_INIT;
	struct digest d;
	uint64_t n;

	apt_release_init(&r);
	if (buf_append(&r.text, text, size) == 0 && apt_release_parse(&r, "release", &e) == 0)
		(void)apt_release_find(&r, "main/binary-amd64/Packages.xz", &d, &n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data + 1;
	struct err e = ERR_INIT;

	if (size < 1)
		return 0;
	size--;
	switch (data[0] % 6) {
	case 0:
		read_universe(text, size, true);
		break;
	case 1:
		read_universe(text, size, false);
		break;
	case 2:
		order(text, size);
		break;
	case 3:
		release(text, size);
		break;
	case 4: {
		_cleanup_pins_ struct apt_pins pins = { 0 };

		if (apt_pins_parse(text, size, "preferences", &pins, &e) == 0)
			(void)apt_pins_version_priority(&pins, &origin, "name", "source", "1.0",
				apt_pins_origin_priority(&pins, &origin));
		break;
	}
	default: {
		_cleanup_buf_ struct buf decoded = BUF_INIT(1 << 20);
		_cleanup_strv_ struct strv signers = { 0 };
		const struct strv none = { 0 };

		(void)!apt_armor_decode(text, size, &decoded, &e);
		(void)!apt_release_judge_status(text, size, &none, "x", &signers, &e);
	}
	}
	return 0;
}
