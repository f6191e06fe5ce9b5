#include "kernels/archive.h"

#include "lib/io.h"

#include <archive.h>
#include <archive_entry.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_CHUNK_BYTES 65536

struct archive_walk {
	int fd; /* lent */
	uint64_t offset;
	struct archive *outer; /* the ar archive of a .deb; NULL for tar */
	struct archive *tar;
	uint8_t chunk[INPUT_CHUNK_BYTES];
};

static void walk_free(struct archive_walk *w)
{
	if (!w)
		return;
	if (w->tar)
		(void)archive_read_free(w->tar); /* before the one it reads from */
	if (w->outer)
		(void)archive_read_free(w->outer);
	free(w);
}

static void walk_freep(struct archive_walk **w)
{
	walk_free(*w);
}

int member_clean_name(const char *name, char dst[static ARCHIVE_NAME_MAX_BYTES])
{
	size_t n = 0;

	for (;;) {
		size_t len;

		name += strspn(name, "/");
		len = strcspn(name, "/");
		if (len == 0)
			break;
		if (len == 2 && name[0] == '.' && name[1] == '.')
			return -EINVAL;
		if (!(len == 1 && name[0] == '.')) {
			if (n + len + 2 > ARCHIVE_NAME_MAX_BYTES)
				return -ENAMETOOLONG;
			if (n > 0)
				dst[n++] = '/';
			memcpy(dst + n, name, len);
			n += len;
		}
		name += len;
	}
	dst[n] = '\0';
	return n > 0 ? 0 : -ENOENT;
}

/* ---- where the bytes come from ---- */

static ssize_t read_input(struct archive *a, void *ctx, const void **ret)
{
	struct archive_walk *w = ctx;
	ssize_t n;
	size_t len;
	int64_t offset;

	/* libarchive asks for more whenever it has used up what it had, in the midst of a member too: a compressed chunk
	 * can unpack to a gigabyte, but not to more. */
	if (w->tar == a && archive_filter_bytes(a, 0) > (int64_t)ARCHIVE_UNPACKED_MAX_BYTES) {
		archive_set_error(a, EFBIG, "it unpacks to more than %" PRIu64 " bytes", ARCHIVE_UNPACKED_MAX_BYTES);
		return ARCHIVE_FATAL;
	}
	if (w->outer && a == w->tar) {
		/* The block stays valid until the next one is asked for. Members of an ar archive have no holes. */
		int r = archive_read_data_block(w->outer, ret, &len, &offset);

		if (r == ARCHIVE_EOF)
			return 0;
		if (r != ARCHIVE_OK) {
			archive_set_error(a, EIO, "%s", archive_error_string(w->outer));
			return ARCHIVE_FATAL;
		}
		return (ssize_t)len;
	}
	n = pread_full(w->fd, w->chunk, sizeof(w->chunk), w->offset);
	if (n > 0)
		w->offset += (uint64_t)n;
	if (n < 0)
		archive_set_error(a, (int)-n, "cannot read the file");
	*ret = w->chunk;
	return n < 0 ? ARCHIVE_FATAL : n;
}

static int archive_failed(struct err *e, struct archive *a, const char *what)
{
	const char *why = archive_error_string(a);

	if (archive_errno(a) == EFBIG)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "%s: %s", what, why);
	if (archive_errno(a) == ENOMEM)
		return err_set(e, -ENOMEM, "%s: out of memory", what);
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: %s", what, why ? why : "damaged");
}

static int open_tar(struct archive_walk *w, struct err *e)
{
	w->tar = archive_read_new();
	if (!w->tar)
		return err_set(e, -ENOMEM, "out of memory");
	/* Warnings mean that a filter would need a program of the host: such a filter is not offered at all. */
	if (archive_read_support_filter_gzip(w->tar) != ARCHIVE_OK || archive_read_support_filter_xz(w->tar) != ARCHIVE_OK ||
		archive_read_support_filter_zstd(w->tar) != ARCHIVE_OK ||
		archive_read_support_filter_bzip2(w->tar) != ARCHIVE_OK ||
		archive_read_support_format_tar(w->tar) != ARCHIVE_OK)
		return archive_failed(e, w->tar, "this libarchive lacks a filter");
	if (archive_read_open(w->tar, w, NULL, read_input, NULL) != ARCHIVE_OK)
		return archive_failed(e, w->tar, "cannot open the archive (tar, plain or in gzip, xz or zstd)");
	return 0;
}

/* Stand on data.tar* of the ar archive. */
static int open_deb(struct archive_walk *w, struct err *e)
{
	struct archive_entry *entry;
	int r;

	w->outer = archive_read_new();
	if (!w->outer)
		return err_set(e, -ENOMEM, "out of memory");
	if (archive_read_support_format_ar(w->outer) != ARCHIVE_OK ||
		archive_read_open(w->outer, w, NULL, read_input, NULL) != ARCHIVE_OK)
		return archive_failed(e, w->outer, "cannot open the Debian package");
	for (unsigned i = 0; i < 64; i++) {
		const char *name;

		r = archive_read_next_header(w->outer, &entry);
		if (r == ARCHIVE_EOF)
			break;
		if (r != ARCHIVE_OK)
			return archive_failed(e, w->outer, "cannot read the Debian package");
		name = archive_entry_pathname(entry);
		if (name && strncmp(name, "data.tar", 8) == 0)
			return open_tar(w, e);
	}
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "this is no Debian package: it has no data.tar");
}

/* ---- the walk ---- */

static void describe(struct archive_entry *entry, struct member *m)
{
	m->target = archive_entry_hardlink(entry);
	m->size_bytes = 0;
	if (m->target) {
		m->type = MEMBER_HARDLINK;
		return;
	}
	switch (archive_entry_filetype(entry)) {
	case AE_IFREG:
		m->type = MEMBER_FILE;
		m->size_bytes = archive_entry_size(entry) > 0 ? (uint64_t)archive_entry_size(entry) : 0;
		break;
	case AE_IFDIR:
		m->type = MEMBER_DIR;
		break;
	case AE_IFLNK:
		m->type = MEMBER_SYMLINK;
		m->target = archive_entry_symlink(entry);
		if (!m->target)
			m->target = "";
		break;
	default:
		m->type = MEMBER_OTHER;
	}
}

static int walk_members(struct archive_walk *w, member_fn visit, void *ctx, unsigned *ret_hostile, struct err *e)
{
	char name[ARCHIVE_NAME_MAX_BYTES];
	unsigned hostile = 0;

	for (unsigned n = 0;; n++) {
		struct member m = { .name = name, .walk = w };
		struct archive_entry *entry;
		const char *raw;
		int r = archive_read_next_header(w->tar, &entry);

		if (r == ARCHIVE_EOF)
			break;
		/* A warning: a name that is not in the locale's character set, which is taken as the bytes it is. */
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
			return archive_failed(e, w->tar, "cannot read the archive");
		if (n >= ARCHIVE_MEMBERS_MAX)
			return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the archive has more than %u members", ARCHIVE_MEMBERS_MAX);
		raw = archive_entry_pathname(entry);
		r = raw ? member_clean_name(raw, name) : -EINVAL;
		if (r < 0) {
			hostile += r != -ENOENT; /* "./" is the folder itself */
			continue;
		}
		describe(entry, &m);
		r = visit(ctx, &m, e);
		if (r != 0)
			return r;
	}
	if (ret_hostile)
		*ret_hostile = hostile;
	return 0;
}

static int walk(int fd, bool deb, member_fn visit, void *ctx, unsigned *ret_hostile, struct err *e)
{
	_cleanup_(walk_freep) struct archive_walk *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	w->fd = fd;
	r = deb ? open_deb(w, e) : open_tar(w, e);
	return r < 0 ? r : walk_members(w, visit, ctx, ret_hostile, e);
}

int archive_walk_tar(int fd, member_fn visit, void *ctx, unsigned *ret_hostile, struct err *e)
{
	return walk(fd, false, visit, ctx, ret_hostile, e);
}

int archive_walk_deb(int fd, member_fn visit, void *ctx, unsigned *ret_hostile, struct err *e)
{
	return walk(fd, true, visit, ctx, ret_hostile, e);
}

int member_copy(const struct member *m, int out_fd, uint64_t max_bytes, struct err *e)
{
	if (m->size_bytes > max_bytes)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "`%s` has %" PRIu64 " bytes, at most %" PRIu64 " are taken",
			m->name, m->size_bytes, max_bytes);
	for (;;) {
		const void *data;
		size_t len;
		int64_t offset;
		int r = archive_read_data_block(m->walk->tar, &data, &len, &offset);

		if (r == ARCHIVE_EOF)
			break;
		if (r != ARCHIVE_OK) {
			(void)archive_failed(e, m->walk->tar, "cannot unpack it");
			return err_wrap(e, "`%s`", m->name);
		}
		if (offset < 0 || (uint64_t)offset + len > m->size_bytes)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "`%s` has more bytes than the %" PRIu64 " it claims",
				m->name, m->size_bytes);
		r = pwrite_full(out_fd, data, len, (uint64_t)offset);
		if (r < 0)
			return err_set_errno(e, r, "cannot write the copy of `%s`", m->name);
	}
	if (ftruncate(out_fd, (off_t)m->size_bytes) < 0)
		return err_set_errno(e, -errno, "cannot set the size of the copy of `%s`", m->name);
	return 0;
}
