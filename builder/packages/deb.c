#include "builder/packages/deb.h"
#include "builder/packages/deb822.h"
#include "builder/packages/relation.h"
#include "lib/io.h"
#include "lib/num.h"

#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/* ar(5): the global header, then for each member a header of fixed-width text fields and the bytes, padded to even. */
static const char AR_MAGIC[] = "!<arch>\n";
static const char AR_END[] = "`\n";

enum {
	AR_MAGIC_BYTES = 8,
	AR_HEADER_BYTES = 60,
	AR_NAME_BYTES = 16,
	AR_SIZE_OFFSET = 48,
	AR_SIZE_BYTES = 10,
	AR_END_OFFSET = 58,
	AR_MEMBERS_MAX = 16, /* there are three, and room for what a later format may add */
	COPY_BYTES = 256 << 10,
};

struct member {
	char name[AR_NAME_BYTES + 1];
	struct {
		uint64_t start_bytes, size_bytes;
	} at;
};

/* Where the parts of a package lie. */
struct layout {
	struct member control, data;
};

static int bad(struct err *e, const char *what)
{
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "it is no proper .deb: %s", what);
}

/* Read one member's header. Returns 1, 0 at the end of the file, or negative. */
static int read_member(int fd, uint64_t file_bytes, uint64_t offset, struct member *ret, struct err *e)
{
	char header[AR_HEADER_BYTES];
	uint64_t size = 0;
	size_t len;
	ssize_t n;

	if (offset >= file_bytes)
		return 0;
	n = pread_full(fd, header, sizeof(header), offset);
	if (n < 0)
		return err_set_errno(e, (int)n, "cannot read");
	if (n != AR_HEADER_BYTES || memcmp(header + AR_END_OFFSET, AR_END, 2) != 0)
		return bad(e, "the header of a member is cut off or damaged");
	for (size_t i = 0; i < AR_SIZE_BYTES && header[AR_SIZE_OFFSET + i] != ' '; i++) {
		char c = header[AR_SIZE_OFFSET + i];

		if (c < '0' || c > '9')
			return bad(e, "the size of a member is no number");
		size = size * 10 + (uint64_t)(c - '0');
	}
	if (header[AR_SIZE_OFFSET] == ' ')
		return bad(e, "a member has no size");
	memcpy(ret->name, header, AR_NAME_BYTES);
	for (len = AR_NAME_BYTES; len > 0 && (ret->name[len - 1] == ' ' || ret->name[len - 1] == '/'); len--)
		;
	ret->name[len] = '\0';
	ret->at.start_bytes = offset + AR_HEADER_BYTES;
	ret->at.size_bytes = size;
	if (!range_within(ret->at.start_bytes, size, file_bytes))
		return bad(e, "a member reaches beyond the end of the file");
	return 1;
}

/* "control.tar" or "control.tar.SOMETHING" */
static bool name_is(const char *name, const char *stem)
{
	size_t len = strlen(stem);

	return strncmp(name, stem, len) == 0 && (name[len] == '\0' || name[len] == '.');
}

static int check_format(int fd, const struct member *m, struct err *e)
{
	char text[3];

	if (strcmp(m->name, "debian-binary") != 0 || m->at.size_bytes < sizeof(text))
		return bad(e, "the first member is not debian-binary");
	if (pread_full(fd, text, sizeof(text), m->at.start_bytes) != sizeof(text) || memcmp(text, "2.", 2) != 0)
		return bad(e, "its format is not 2.x");
	return 0;
}

/* deb(5): debian-binary, control.tar, data.tar in this order; members whose names begin with '_' may stand between. */
static int read_layout(int fd, struct layout *ret, struct err *e)
{
	uint64_t offset = AR_MAGIC_BYTES;
	char magic[AR_MAGIC_BYTES];
	bool has_format = false, has_control = false;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot read");
	if (pread_full(fd, magic, sizeof(magic), 0) != AR_MAGIC_BYTES || memcmp(magic, AR_MAGIC, AR_MAGIC_BYTES) != 0)
		return bad(e, "it does not begin as an ar archive");
	for (unsigned i = 0; i < AR_MEMBERS_MAX; i++) {
		struct member m;
		int r = read_member(fd, (uint64_t)st.st_size, offset, &m, e);

		if (r < 0)
			return r;
		if (r == 0)
			return bad(e, has_control ? "it has no data.tar" : "it has no control.tar");
		offset = m.at.start_bytes + round_up_u64(m.at.size_bytes, 2);
		if (!has_format) {
			r = check_format(fd, &m, e);
			if (r < 0)
				return r;
			has_format = true;
		} else if (m.name[0] == '_') {
			continue;
		} else if (!has_control) {
			if (!name_is(m.name, "control.tar"))
				return bad(e, "the second member is not control.tar");
			ret->control = m;
			has_control = true;
		} else {
			if (!name_is(m.name, "data.tar"))
				return bad(e, "the third member is not data.tar");
			ret->data = m;
			return 0;
		}
	}
	return bad(e, "it has too many members");
}

/* A member as libarchive reads it. */
struct member_stream {
	int fd;
	uint64_t offset, end;
	bool limited; /* to what a control.tar may unpack to */
	char *chunk;
};

static la_ssize_t stream_read(struct archive *a, void *ctx, const void **ret)
{
	struct member_stream *s = ctx;
	size_t want = s->end - s->offset < COPY_BYTES ? (size_t)(s->end - s->offset) : COPY_BYTES;
	ssize_t n = pread_full(s->fd, s->chunk, want, s->offset);

	if (n < 0) {
		archive_set_error(a, (int)-n, "cannot read");
		return -1;
	}
	/* In the midst of a member, too: one that is skipped may unpack to anything. */
	if (s->limited && archive_filter_bytes(a, 0) > DEB_CONTROL_TAR_MAX_BYTES) {
		archive_set_error(a, EFBIG, "it unpacks to more than %d bytes", DEB_CONTROL_TAR_MAX_BYTES);
		return -1;
	}
	s->offset += (uint64_t)n;
	*ret = s->chunk;
	return n;
}

struct reader {
	struct archive *a;
	struct member_stream stream;
};

static void reader_release(struct reader *r)
{
	if (r->a)
		(void)archive_read_free(r->a);
	free(r->stream.chunk);
	*r = (struct reader){ 0 };
}
#define _cleanup_reader_ _cleanup_(reader_release)

static int archive_failed(struct archive *a, const struct member *m, struct err *e)
{
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "cannot decompress its %s: %s", m->name, archive_error_string(a));
}

/* Open a member, decompressing whatever deb(5) allows: as one stream, or as a tar. */
static int reader_open(struct reader *r, int fd, const struct member *m, bool as_tar, struct err *e)
{
	*r = (struct reader){ .stream = { .fd = fd, .offset = m->at.start_bytes,
		.end = m->at.start_bytes + m->at.size_bytes,
		.limited = as_tar } };
	r->a = archive_read_new();
	r->stream.chunk = malloc(COPY_BYTES);
	if (!r->a || !r->stream.chunk)
		return err_set(e, -ENOMEM, "out of memory");
	if (archive_read_support_filter_gzip(r->a) != ARCHIVE_OK || archive_read_support_filter_xz(r->a) != ARCHIVE_OK ||
		archive_read_support_filter_zstd(r->a) != ARCHIVE_OK || archive_read_support_filter_bzip2(r->a) != ARCHIVE_OK ||
		archive_read_support_filter_lzma(r->a) != ARCHIVE_OK ||
		(as_tar ? archive_read_support_format_tar(r->a) : archive_read_support_format_raw(r->a)) != ARCHIVE_OK)
		return err_set_kind(e, ERR_KIND_HOST, -ENOSYS, "libarchive here lacks a compression: %s",
			archive_error_string(r->a));
	if (archive_read_open(r->a, &r->stream, NULL, stream_read, NULL) != ARCHIVE_OK)
		return archive_failed(r->a, m, e);
	return 0;
}

static int read_control_entry(struct reader *r, const struct member *m, struct buf *into, struct err *e)
{
	_cleanup_free_ char *chunk = malloc(COPY_BYTES);
	size_t total = 0;

	if (!chunk)
		return err_set(e, -ENOMEM, "out of memory");
	for (;;) {
		la_ssize_t n = archive_read_data(r->a, chunk, COPY_BYTES);
		int k;

		if (n < 0)
			return archive_failed(r->a, m, e);
		if (n == 0)
			return 0;
		total += (size_t)n;
		k = total > DEB_CONTROL_MAX_BYTES ? -E2BIG : buf_append(into, chunk, (size_t)n);
		if (k == -E2BIG)
			return err_set_kind(e, ERR_KIND_INPUT, -EFBIG, "its control file is longer than %d bytes",
				DEB_CONTROL_MAX_BYTES);
		if (k < 0)
			return err_set(e, k, "out of memory");
	}
}

int deb_read_control(int fd, struct buf *into, struct err *e)
{
	_cleanup_reader_ struct reader reader = { 0 };
	struct layout layout = { 0 };
	int r = read_layout(fd, &layout, e);

	if (r == 0)
		r = reader_open(&reader, fd, &layout.control, true, e);
	if (r < 0)
		return r;
	for (;;) {
		struct archive_entry *entry;
		const char *path;
		int n = archive_read_next_header(reader.a, &entry);

		if (n == ARCHIVE_EOF)
			return bad(e, "its control.tar has no control file");
		if (n != ARCHIVE_OK)
			return archive_failed(reader.a, &layout.control, e);
		if (archive_filter_bytes(reader.a, 0) > DEB_CONTROL_TAR_MAX_BYTES)
			return err_set_kind(e, ERR_KIND_INPUT, -EFBIG, "its control.tar is longer than %d bytes",
				DEB_CONTROL_TAR_MAX_BYTES);
		path = archive_entry_pathname(entry);
		if (path && strncmp(path, "./", 2) == 0)
			path += 2;
		if (path && strcmp(path, "control") == 0 && archive_entry_filetype(entry) == AE_IFREG)
			return read_control_entry(&reader, &layout.control, into, e);
	}
}

/* Whether the text has 1 to max_bytes bytes, all of them letters, digits or of `more`. */
static bool made_of(struct deb822_value v, const char *more, size_t max_bytes)
{
	for (size_t i = 0; i < v.len; i++)
		if (!isalnum((unsigned char)v.s[i]) && (v.s[i] == '\0' || !strchr(more, v.s[i])))
			return false;
	return v.len > 0 && v.len <= max_bytes;
}

int deb_check_control(const char *control, size_t len, const char *name, const char *version, const char *arch,
	struct err *e)
{
	const struct {
		const char *field, *expected;
	} checks[] = { { "Package", name }, { "Version", version }, { "Architecture", arch } };
	struct deb822_reader reader;
	struct deb822_stanza stanza;
	struct deb822_value value;
	int r;

	deb822_reader_init(&reader, control, len, "control");
	r = deb822_next(&reader, &stanza, e);
	if (r < 0)
		return r;
	if (r == 0)
		return bad(e, "its control file is empty");
	/* They become the name of a file and arguments of dpkg. */
	value = deb822_get(&stanza, "Package");
	if (!value.s || !deb_package_name_valid(value.s, value.len) || !made_of(deb822_get(&stanza, "Version"), ".+-:~", 256) ||
		!made_of(deb822_get(&stanza, "Architecture"), "-", 64))
		return bad(e, "its control file has no proper Package, Version and Architecture");
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		struct deb822_value v = deb822_get(&stanza, checks[i].field);
		char shown[200];

		if (!checks[i].expected || (v.s && v.len == strlen(checks[i].expected) &&
			memcmp(v.s, checks[i].expected, v.len) == 0))
			continue;
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "its control file says %s `%s`, expected `%s`", checks[i].field,
			err_sanitize(shown, sizeof(shown), v.s ? v.s : "", v.len), checks[i].expected);
	}
	return 0;
}

/* Write the header of a member: no time, no owner, a plain file's mode. */
static int write_header(int fd, uint64_t offset, const char *name, uint64_t size_bytes, struct err *e)
{
	char header[AR_HEADER_BYTES + 1];
	int r;

	(void)snprintf(header, sizeof(header), "%-16s%-12d%-6d%-6d%-8s%-10" PRIu64 "%s", name, 0, 0, 0, "100644", size_bytes,
		AR_END);
	r = pwrite_full(fd, header, AR_HEADER_BYTES, offset);
	return r < 0 ? err_set_errno(e, r, "cannot write") : 0;
}

/* Copy a member's decompressed bytes to out_fd at `offset`. */
static int copy_member(int in_fd, const struct member *m, int out_fd, uint64_t offset, uint64_t max_bytes,
	uint64_t *ret_size, struct err *e)
{
	_cleanup_reader_ struct reader reader = { 0 };
	_cleanup_free_ char *chunk = malloc(COPY_BYTES);
	struct archive_entry *entry;
	uint64_t size = 0;
	int r;

	if (!chunk)
		return err_set(e, -ENOMEM, "out of memory");
	r = reader_open(&reader, in_fd, m, false, e);
	if (r < 0)
		return r;
	if (archive_read_next_header(reader.a, &entry) != ARCHIVE_OK)
		return archive_failed(reader.a, m, e);
	for (;;) {
		la_ssize_t n = archive_read_data(reader.a, chunk, COPY_BYTES);

		if (n < 0)
			return archive_failed(reader.a, m, e);
		if (n == 0)
			break;
		if ((uint64_t)n > max_bytes - size)
			return err_set_kind(e, ERR_KIND_INPUT, -EFBIG, "its %s holds more than %" PRIu64 " bytes", m->name,
				max_bytes);
		r = pwrite_full(out_fd, chunk, (size_t)n, offset + size);
		if (r < 0)
			return err_set_errno(e, r, "cannot write");
		size += (uint64_t)n;
	}
	*ret_size = size;
	return 0;
}

static int write_member(int in_fd, const struct member *m, int out_fd, const char *name, uint64_t max_bytes,
	uint64_t *offset, struct err *e)
{
	uint64_t start = *offset + AR_HEADER_BYTES, size;
	int r = copy_member(in_fd, m, out_fd, start, max_bytes, &size, e);

	if (r == 0)
		r = write_header(out_fd, *offset, name, size, e);
	if (r == 0 && size % 2) {
		r = pwrite_full(out_fd, "\n", 1, start + size);
		if (r < 0)
			return err_set_errno(e, r, "cannot write");
	}
	*offset = start + round_up_u64(size, 2);
	return r;
}

int deb_repack_uncompressed(int in_fd, int out_fd, uint64_t *ret_size_bytes, struct err *e)
{
	static const char format[] = "2.0\n";
	uint64_t offset = AR_MAGIC_BYTES;
	struct layout layout = { 0 };
	int r = read_layout(in_fd, &layout, e);

	if (r < 0)
		return r;
	r = pwrite_full(out_fd, AR_MAGIC, AR_MAGIC_BYTES, 0);
	if (r == 0)
		r = pwrite_full(out_fd, format, strlen(format), offset + AR_HEADER_BYTES);
	if (r < 0)
		return err_set_errno(e, r, "cannot write");
	r = write_header(out_fd, offset, "debian-binary", strlen(format), e);
	offset += AR_HEADER_BYTES + strlen(format);
	if (r == 0)
		r = write_member(in_fd, &layout.control, out_fd, "control.tar", DEB_CONTROL_TAR_MAX_BYTES, &offset, e);
	if (r == 0)
		r = write_member(in_fd, &layout.data, out_fd, "data.tar", DEB_DATA_TAR_MAX_BYTES, &offset, e);
	if (r == 0 && ret_size_bytes)
		*ret_size_bytes = offset;
	return r;
}
