/* Package sources in both forms, lists of mirrors behind them, apt.conf, and .deb files. The first byte chooses. */
#include "builder/packages/aptconf.h"
#include "builder/packages/deb.h"
#include "builder/packages/place.h"
#include "builder/packages/sources.h"
#include "lib/io.h"

#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct text {
	const char *s;
	size_t len;
};

/* A filesystem in which every file has the same contents. */
static int read_file(void *ctx, const char *path, struct buf *into, struct err *e)
{
	const struct text *t = ctx;

	(void)path;
	return buf_append(into, t->s, t->len) < 0 ? err_set(e, -EFBIG, "too long") : 0;
}

static int list_dir(void *ctx, const char *path, struct strv *ret, struct err *e)
{
	(void)ctx;
	(void)path;
	return strv_add(ret, "x.sources") < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static void places(const struct pkg_host_fs *fs, const struct apt_sources *sources)
{
	for (size_t i = 0; i < sources->n; i++) {
		_cleanup_strv_ struct strv named = { 0 }, found = { 0 };
		struct err e = ERR_INIT;

		if (apt_source_places(fs, &sources->items[i], ARCH_AMD64, &named, &e) < 0)
			continue;
		for (size_t k = 0; k < named.n; k++) {
			_cleanup_free_ char *then = NULL;

			(void)!pkg_snapshot_place(named.items[k], "20261101T000000Z", &then, &e);
			(void)!pkg_mirror_places(named.items[k], NULL, 0, &named, &found, &e);
		}
	}
}

static void read_deb(const uint8_t *data, size_t size)
{
	_cleanup_close_ int in = memfd_create("in", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC);
	_cleanup_buf_ struct buf control = BUF_INIT(DEB_CONTROL_MAX_BYTES);
	struct err e = ERR_INIT;

	if (in < 0 || out < 0 || write_full(in, data, size) < 0)
		return;
	if (deb_read_control(in, &control, &e) == 0)
		(void)!deb_check_control(control.data, control.len, "a", "1", "all", &e);
	(void)!deb_repack_uncompressed(in, out, NULL, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct text text = { (const char *)data + 1, size - 1 };
	struct pkg_host_fs fs = { &text, read_file, list_dir };
	_cleanup_apt_sources_ struct apt_sources sources = { 0 };
	_cleanup_free_ char *value = NULL;
	struct err e = ERR_INIT;

	if (size < 1)
		return 0;
	switch (data[0] % 4) {
	case 0:
		if (apt_sources_parse_list(text.s, text.len, "list", ARCH_AMD64, &sources, NULL, &e) == 0)
			places(&fs, &sources);
		break;
	case 1:
		if (apt_sources_parse_deb822(text.s, text.len, "sources", ARCH_AMD64, &sources, NULL, &e) == 0)
			places(&fs, &sources);
		break;
	case 2:
		(void)!apt_config_find(text.s, text.len, "APT::Default-Release", &value, &e);
		break;
	default:
		read_deb(data + 1, size - 1);
	}
	return 0;
}
