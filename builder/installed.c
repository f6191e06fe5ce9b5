#include "builder/installed.h"
#include "builder/packages/deb822.h"

#include <string.h>

enum { STATUS_MAX_BYTES = 64 << 20, INSTALLED_MAX_PACKAGES = 65536 };

void installed_release(struct installed *list)
{
	for (size_t i = 0; i < list->n; i++) {
		free(list->items[i].name);
		free(list->items[i].version);
		free(list->items[i].arch);
		free(list->items[i].state);
	}
	free(list->items);
	*list = (struct installed){ 0 };
}

static int compare_packages(const void *a, const void *b)
{
	const struct installed_package *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	return order ? order : strcmp(x->arch, y->arch);
}

/* Read one stanza. Returns 1 when the package is there in some state, 0 when it is gone, or -ENOMEM. */
static int read_package(const struct deb822_stanza *stanza, struct installed_package *ret)
{
	struct deb822_value status = deb822_get(stanza, "Status");
	_cleanup_strv_ struct strv words = { 0 };
	const char *state;

	if (!status.s || deb822_words(status, false, &words) < 0 || words.n < 3)
		return 0;
	state = words.items[2];
	if (strcmp(state, "not-installed") == 0 || strcmp(state, "config-files") == 0)
		return 0;
	*ret = (struct installed_package){ .name = deb822_dup(deb822_get(stanza, "Package")),
		.version = deb822_dup(deb822_get(stanza, "Version")),
		.arch = deb822_dup(deb822_get(stanza, "Architecture")),
		.state = strdup(state),
		.whole = strcmp(words.items[1], "ok") == 0 && strcmp(state, "installed") == 0 };
	return ret->name && ret->version && ret->arch && ret->state ? 1 : -ENOMEM;
}

int installed_read(struct ext4 *fs, struct installed *ret, struct err *e)
{
	_cleanup_installed_ struct installed list = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(STATUS_MAX_BYTES);
	_cleanup_free_ struct deb822_stanza *stanza = malloc(sizeof(*stanza));
	struct deb822_reader reader;
	int r = ext4_read_file(fs, "/var/lib/dpkg/status", &text, e);

	if (r == -ENOENT || r == -ENOTDIR) {
		err_clear(e);
		*ret = (struct installed){ 0 };
		return 0;
	}
	if (r < 0)
		return r;
	list.items = calloc(INSTALLED_MAX_PACKAGES, sizeof(*list.items));
	if (!list.items || !stanza)
		return err_set(e, -ENOMEM, "out of memory");
	list.has_dpkg = true;
	deb822_reader_init(&reader, buf_str(&text), text.len, "/var/lib/dpkg/status");
	while ((r = deb822_next(&reader, stanza, e)) > 0) {
		if (list.n == INSTALLED_MAX_PACKAGES)
			return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "/var/lib/dpkg/status lists more than %d packages",
				INSTALLED_MAX_PACKAGES);
		r = read_package(stanza, &list.items[list.n]);
		if (r < 0) {
			list.n++; /* what was allocated of it is released */
			return err_set(e, r, "out of memory");
		}
		list.n += (size_t)r;
	}
	if (r < 0)
		return r;
	qsort(list.items, list.n, sizeof(*list.items), compare_packages);
	*ret = list;
	list = (struct installed){ 0 };
	return 0;
}

const struct installed_package *installed_find(const struct installed *list, const char *name, const char *arch)
{
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->items[i].name, name) == 0 && (!arch || strcmp(list->items[i].arch, arch) == 0))
			return &list->items[i];
	return NULL;
}
