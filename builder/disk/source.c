#include "builder/disk/source.h"
#include "builder/disk/qcow.h"
#include "lib/io.h"

#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum {
	HEAD_BYTES = 40 << 10, /* ISO 9660 says what it is at 32 KiB */
	INPUT_BYTES = 256 << 10,
	BLOCK_BYTES = 64 << 10, /* of unpacked data handled at once */
	HOLE_BYTES = 4096,
	TAR_MAGIC_OFFSET = 257,
	TAR_BLOCK_BYTES = 512
};

const char *disk_format_name(enum disk_format f)
{
	return f == DISK_FORMAT_QCOW2 ? "qcow2" : "raw";
}

const char *disk_packing_name(enum disk_packing p)
{
	switch (p) {
	case DISK_PACKING_NONE:
		break;
	case DISK_PACKING_GZIP:
		return "gzip";
	case DISK_PACKING_XZ:
		return "xz";
	case DISK_PACKING_ZSTD:
		return "zstd";
	}
	return "";
}

/* ---- what a file is, by its first and last bytes ---- */

#define ADVICE_CONVERT "convert it with `qemu-img convert -O qcow2`"
#define ADVICE_QCOW2 "take the distribution's qcow2 or raw image"
#define ADVICE_UNPACK "unpack it, or pack it as .xz, .gz or .zst"

static const struct refusal {
	uint32_t offset;
	uint8_t magic_len;
	const char *magic;
	const char *what;
	const char *advice;
} refusals[] = {
	{ 0, 4, "KDMV", "a VMDK image", ADVICE_CONVERT },
	{ 0, 4, "COWD", "a VMDK image", ADVICE_CONVERT },
	{ 0, 21, "# Disk DescriptorFile", "the descriptor of a VMDK image", ADVICE_CONVERT },
	{ 0, 8, "conectix", "a VHD image", ADVICE_CONVERT },
	{ 0, 8, "vhdxfile", "a VHDX image", ADVICE_CONVERT },
	{ 64, 4, "\x7f\x10\xda\xbe", "a VDI image", ADVICE_CONVERT },
	{ 0, 4, "QED", "a QED image", ADVICE_CONVERT },
	{ 0, 16, "WithoutFreeSpace", "a Parallels image", ADVICE_CONVERT },
	{ 0, 16, "WithouFreSpacExt", "a Parallels image", ADVICE_CONVERT },
	{ 0, 6, "LUKS\xba\xbe", "encrypted (LUKS)", "decrypt it first" },
	{ 32769, 5, "CD001", "a CD image (ISO 9660), an installer perhaps", ADVICE_QCOW2 },
	{ 0, 3, "BZh", "packed with bzip2", ADVICE_UNPACK },
	{ 0, 4, "\x04\x22\x4d\x18", "packed with lz4", ADVICE_UNPACK },
	{ 0, 6, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive", ADVICE_UNPACK },
	{ 0, 4, "PK\x03\x04", "a zip archive", ADVICE_UNPACK },
	{ 0, 4, "LZIP", "packed with lzip", ADVICE_UNPACK },
	{ 0, 4, "\x7f" "ELF", "an ELF program", "give a disk image" },
	{ 0, 8, "!<arch>\n", "an ar archive (a .deb perhaps)", "give a disk image" },
	{ 0, 6, "070701", "a cpio archive (an initrd perhaps)", "give a disk image" },
	{ 0, 4, "hsqs", "a bare squashfs filesystem", ADVICE_QCOW2 },
	{ 0, 10, "-----BEGIN", "a PEM or PGP text", "give a disk image" },
};

static bool starts_like_html(const uint8_t *head, size_t len)
{
	size_t at = 0;

	while (at < len && isspace(head[at]))
		at++;
	return (len - at >= 9 && strncasecmp((const char *)head + at, "<!doctype", 9) == 0) ||
	       (len - at >= 5 && strncasecmp((const char *)head + at, "<html", 5) == 0) ||
	       (len - at >= 5 && memcmp(head + at, "<?xml", 5) == 0);
}

static int err_refused(struct err *e, const char *what, const char *advice)
{
	return err_set_kind(e, ERR_KIND_INPUT, -EOPNOTSUPP, "the disk image is %s, which is not supported: %s", what, advice);
}

static int refuse_others(const uint8_t *head, size_t len, struct err *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		const struct refusal *f = &refusals[i];

		if (f->offset + f->magic_len <= len && memcmp(head + f->offset, f->magic, f->magic_len) == 0)
			return err_refused(e, f->what, f->advice);
	}
	if (starts_like_html(head, len))
		return err_refused(e, "a web page", "look whether the URL still leads to an image");
	return 0;
}

/* A fixed VHD is a raw disk with a footer, a DMG has its magic only at the end. */
static int refuse_by_footer(int fd, uint64_t size, struct err *e)
{
	uint8_t footer[512];
	ssize_t n;

	if (size < sizeof(footer))
		return 0;
	n = pread_full(fd, footer, sizeof(footer), size - sizeof(footer));
	if (n < 0)
		return err_set_errno(e, (int)n, "cannot read the end of the disk image");
	if (n == sizeof(footer) && memcmp(footer, "conectix", 8) == 0)
		return err_refused(e, "a VHD image", ADVICE_CONVERT);
	if (n == sizeof(footer) && memcmp(footer, "koly", 4) == 0)
		return err_refused(e, "an Apple disk image (DMG)", ADVICE_CONVERT);
	return 0;
}

static enum disk_packing detect_packing(const uint8_t *head, size_t len)
{
	if (len >= 3 && memcmp(head, "\x1f\x8b\x08", 3) == 0)
		return DISK_PACKING_GZIP;
	if (len >= 6 && memcmp(head, "\xfd" "7zXZ\0", 6) == 0)
		return DISK_PACKING_XZ;
	/* A zstd stream may begin with a skippable frame (pzstd does). */
	if (len >= 4 && (read_le32(head) == 0xFD2FB528 || (read_le32(head) & 0xFFFFFFF0) == 0x184D2A50))
		return DISK_PACKING_ZSTD;
	return DISK_PACKING_NONE;
}

/* A tar header with a right checksum. libarchive also takes a block of zeros for a tar archive, which is how many
 * filesystem images begin. */
static bool looks_like_tar(const uint8_t *head, size_t len)
{
	uint64_t sum = 0, stored = 0;

	if (len < TAR_BLOCK_BYTES || memcmp(head + TAR_MAGIC_OFFSET, "ustar", 5) != 0)
		return false;
	for (size_t i = 0; i < TAR_BLOCK_BYTES; i++)
		sum += i >= 148 && i < 156 ? ' ' : head[i];
	for (size_t i = 148; i < 156; i++) {
		if (head[i] >= '0' && head[i] <= '7')
			stored = stored * 8 + (uint64_t)(head[i] - '0');
		else if (stored)
			break;
	}
	return sum == stored;
}

/* ---- reading packed files through libarchive ---- */

/* The input of libarchive: the lent descriptor, read by offset. */
struct input {
	int fd;
	uint64_t offset, size_bytes;
	int read_errno; /* of the last read that failed */
	struct progress *progress;
	uint8_t buf[INPUT_BYTES];
};

static la_ssize_t input_read(struct archive *a, void *ctx, const void **ret)
{
	struct input *in = ctx;
	ssize_t n = pread_full(in->fd, in->buf, sizeof(in->buf), in->offset);

	if (n < 0) {
		in->read_errno = (int)-n;
		archive_set_error(a, (int)-n, "cannot read the file: %s", strerror((int)-n));
		return -1;
	}
	in->offset += (uint64_t)n;
	progress_update(in->progress, "unpack", PROGRESS_BYTES, in->offset, in->size_bytes, "");
	*ret = in->buf;
	return n;
}

static void archive_freep(struct archive **a)
{
	if (*a)
		(void)archive_read_free(*a);
}
#define _cleanup_archive_ _cleanup_(archive_freep)

static int err_archive(struct err *e, struct archive *a, const struct input *in, const char *doing)
{
	const char *text = archive_error_string(a);

	if (in->read_errno)
		return err_set(e, -in->read_errno, "%s: %s", doing, text);
	if (archive_errno(a) == ENOMEM)
		return err_set(e, -ENOMEM, "%s: out of memory", doing);
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s at byte %llu of the file: %s: it is damaged or cut off", doing,
		(unsigned long long)in->offset, text ? text : "unknown error");
}

/* Start to read the file from its beginning, as an archive or as one stream. */
static int open_archive(struct input *in, enum disk_packing packing, bool tar, struct archive **ret, struct err *e)
{
	_cleanup_archive_ struct archive *a = archive_read_new();
	int r = ARCHIVE_OK;

	if (!a)
		return err_set(e, -ENOMEM, "out of memory");
	in->offset = 0;
	in->read_errno = 0;
	/* Appended, not offered: filters that libarchive may choose itself are used again on what they gave. */
	if (packing != DISK_PACKING_NONE)
		r = archive_read_append_filter(a, packing == DISK_PACKING_GZIP ? ARCHIVE_FILTER_GZIP
						  : packing == DISK_PACKING_XZ ? ARCHIVE_FILTER_XZ
									       : ARCHIVE_FILTER_ZSTD);
	/* ARCHIVE_WARN would mean that an external program is to unpack; none is ever called. */
	if (r != ARCHIVE_OK)
		return err_set_kind(e, ERR_KIND_HOST, -EOPNOTSUPP, "this libarchive cannot unpack %s",
			disk_packing_name(packing));
	r = tar ? archive_read_support_format_tar(a) : archive_read_support_format_raw(a);
	if (r != ARCHIVE_OK || archive_read_support_format_empty(a) != ARCHIVE_OK || archive_read_open(a, in, NULL, input_read, NULL) != ARCHIVE_OK)
		return err_archive(e, a, in, "starting to unpack the disk image");
	*ret = take_ptr(a);
	return 0;
}

/* The first bytes of the unpacked stream. */
static int peek_unpacked(struct input *in, enum disk_packing packing, uint8_t *head, size_t size, size_t *ret_len,
	struct err *e)
{
	_cleanup_archive_ struct archive *a = NULL;
	struct archive_entry *entry;
	size_t have = 0;
	int r = open_archive(in, packing, false, &a, e);

	if (r < 0)
		return r;
	r = archive_read_next_header(a, &entry);
	if (r == ARCHIVE_EOF) {
		*ret_len = 0;
		return 0;
	}
	if (r != ARCHIVE_OK)
		return err_archive(e, a, in, "unpacking the disk image");
	while (have < size) {
		la_ssize_t n = archive_read_data(a, head + have, size - have);

		if (n < 0)
			return err_archive(e, a, in, "unpacking the disk image");
		if (n == 0)
			break;
		have += (size_t)n;
	}
	*ret_len = have;
	return 0;
}

/* ---- the scratch file ---- */

struct output {
	int fd;
	uint64_t end_bytes;    /* apparent size so far */
	uint64_t stored_bytes; /* written so far */
	struct disk_source_limits limits;
};

static bool is_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

static int err_bomb(struct err *e, const char *what, uint64_t limit)
{
	return err_set_kind(e, ERR_KIND_INPUT, -EFBIG,
		"the packed disk image unpacks to more than %llu %s, which is the limit", (unsigned long long)limit, what);
}

/* Put data at an offset of the scratch file, leaving holes where there is nothing but zeros. The file is fresh, and
 * nothing is put twice at the same place. */
static int output_put(struct output *out, const uint8_t *data, size_t len, uint64_t offset, struct err *e)
{
	uint64_t end;
	size_t start = 0, at = 0;

	if (!checked_add_u64(offset, len, &end) || end > out->limits.max_unpacked_bytes)
		return err_bomb(e, "bytes", out->limits.max_unpacked_bytes);
	if (end > out->end_bytes)
		out->end_bytes = end;
	for (;;) {
		size_t block = HOLE_BYTES - (size_t)((offset + at) % HOLE_BYTES);
		bool last = at >= len;

		if (!last && block > len - at)
			block = len - at;
		if (!last && !is_zero(data + at, block)) {
			at += block;
			continue;
		}
		if (at > start) {
			int r;

			out->stored_bytes += at - start;
			if (out->stored_bytes > out->limits.max_stored_bytes)
				return err_bomb(e, "bytes that are not zero", out->limits.max_stored_bytes);
			r = pwrite_full(out->fd, data + start, at - start, offset + start);
			if (r < 0)
				return err_set_errno(e, r, "cannot write the unpacked disk image"),
				       err_default_kind(e, ERR_KIND_HOST);
		}
		if (last)
			return 0;
		at += block;
		start = at;
	}
}

static int output_finish(struct output *out, struct err *e)
{
	if (ftruncate(out->fd, (off_t)out->end_bytes) < 0)
		return err_set_errno(e, -errno, "cannot set the size of the unpacked disk image"),
		       err_default_kind(e, ERR_KIND_HOST);
	return 0;
}

/* A file without a name: O_TMPFILE, or one that is unlinked at once where the filesystem has no such thing. */
static int open_scratch(int dirfd, int *ret, struct err *e)
{
	int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	for (unsigned i = 0; fd < 0 && i < 100; i++) {
		char name[48];

		(void)snprintf(name, sizeof(name), ".unpack-%d-%u", (int)getpid(), i);
		fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd >= 0)
			(void)unlinkat(dirfd, name, 0);
		else if (errno != EEXIST)
			break;
	}
	if (fd < 0)
		return err_set_errno(e, -errno, "cannot create a scratch file for the unpacked disk image"),
		       err_default_kind(e, ERR_KIND_HOST);
	*ret = fd;
	return 0;
}

/* Unpack the entry that the archive is at. */
static int unpack_entry(struct archive *a, struct archive_entry *entry, struct input *in, struct output *out,
	struct err *e)
{
	for (;;) {
		const void *data;
		size_t len;
		la_int64_t offset;
		int r = archive_read_data_block(a, &data, &len, &offset);

		if (r == ARCHIVE_EOF) {
			/* A sparse member may end in a hole, of which no block tells. */
			if (archive_entry_size_is_set(entry) && archive_entry_size(entry) > 0)
				r = output_put(out, NULL, 0, (uint64_t)archive_entry_size(entry), e);
			else
				r = 0;
			return r < 0 ? r : output_finish(out, e);
		}
		if (r != ARCHIVE_OK)
			return err_archive(e, a, in, "unpacking the disk image");
		if (offset < 0)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the archive has data at a negative offset");
		for (size_t at = 0; at < len;) {
			size_t n = len - at < BLOCK_BYTES ? len - at : BLOCK_BYTES;

			r = output_put(out, (const uint8_t *)data + at, n, (uint64_t)offset + at, e);
			if (r < 0)
				return r;
			at += n;
		}
	}
}

static int unpack_stream(struct input *in, enum disk_packing packing, struct output *out, struct err *e)
{
	_cleanup_archive_ struct archive *a = NULL;
	struct archive_entry *entry;
	int r = open_archive(in, packing, false, &a, e);

	if (r < 0)
		return r;
	r = archive_read_next_header(a, &entry);
	if (r == ARCHIVE_EOF)
		return output_finish(out, e);
	if (r != ARCHIVE_OK)
		return err_archive(e, a, in, "unpacking the disk image");
	return unpack_entry(a, entry, in, out, e);
}

/* ---- members of a tar archive ---- */

static bool named_like_a_disk(const char *name)
{
	static const char *const suffixes[] = { ".raw", ".img", ".qcow2", ".disk" };
	size_t len = strlen(name);

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		size_t n = strlen(suffixes[i]);

		if (len > n && strcasecmp(name + len - n, suffixes[i]) == 0)
			return true;
	}
	return false;
}

struct members {
	unsigned seen;
	unsigned n_regular, n_disks;
	unsigned only_regular, first_disk;	    /* which member, from 1 */
	uint64_t only_regular_bytes;
	char first[256], second[256], regular[256]; /* names */
};

/* Go through a tar archive. Unpacks member `want` into *out; 0: the first that is named like a disk. */
static int walk_tar(struct input *in, enum disk_packing packing, unsigned want, struct output *out, struct members *m,
	struct err *e)
{
	_cleanup_archive_ struct archive *a = NULL;
	int r = open_archive(in, packing, true, &a, e);

	if (r < 0)
		return r;
	memset(m, 0, sizeof(*m));
	for (;;) {
		struct archive_entry *entry;
		const char *name;
		char clean[256];

		r = archive_read_next_header(a, &entry);
		if (r == ARCHIVE_EOF)
			return 0;
		/* ARCHIVE_WARN: a name that is no valid text here; it is only shown. */
		if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
			return err_archive(e, a, in, "reading the archive");
		if (++m->seen > DISK_SOURCE_MAX_TAR_MEMBERS)
			return err_set_kind(e, ERR_KIND_INPUT, -E2BIG,
				"the archive has more than %d members: this is no packed disk image",
				DISK_SOURCE_MAX_TAR_MEMBERS);
		if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry))
			continue;
		name = archive_entry_pathname(entry);
		(void)err_sanitize(clean, sizeof(clean), name ? name : "?", name ? strlen(name) : 1);
		m->n_regular++;
		m->only_regular = m->seen;
		memcpy(m->regular, clean, sizeof(clean));
		if (name && named_like_a_disk(name)) {
			m->n_disks++;
			memcpy(m->n_disks == 1 ? m->first : m->second, clean, sizeof(clean));
			if (m->n_disks == 2)
				return err_set_kind(e, ERR_KIND_INPUT, -ENOTUNIQ,
					"the archive holds more than one disk image, `%s` and `%s`: unpack the one that is meant",
					m->first, m->second);
			if (want == 0) {
				r = unpack_entry(a, entry, in, out, e);
				if (r < 0)
					return err_wrap(e, "member `%s`", clean);
			}
		} else if (want == m->seen) {
			r = unpack_entry(a, entry, in, out, e);
			return r < 0 ? err_wrap(e, "member `%s`", clean) : 0;
		}
	}
}

static int unpack_tar(struct input *in, enum disk_packing packing, struct output *out, char *ret_member, struct err *e)
{
	_cleanup_free_ struct members *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	r = walk_tar(in, packing, 0, out, m, e);
	if (r < 0)
		return r;
	if (m->n_disks == 0 && m->n_regular == 1) {
		r = walk_tar(in, packing, m->only_regular, out, m, e);
		if (r < 0)
			return r;
		(void)memcpy(ret_member, m->regular, sizeof(m->regular));
		return 0;
	}
	if (m->n_disks == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT,
			"the archive holds no disk image: of its %u files none is named *.raw, *.img, *.qcow2 or *.disk",
			m->n_regular);
	(void)memcpy(ret_member, m->first, sizeof(m->first));
	return 0;
}

/* ---- opening ---- */

/* Unpack the file into a scratch file. */
static int unpack_file(int fd, uint64_t size, int scratch_dirfd, const struct disk_source_limits *limits,
	struct progress *progress, struct disk_source *s, struct err *e)
{
	_cleanup_free_ struct input *in = malloc(sizeof(*in));
	_cleanup_close_ int scratch = -1;
	struct output out = { .limits = { DISK_SOURCE_MAX_UNPACKED_BYTES, DISK_SOURCE_MAX_STORED_BYTES } };
	uint8_t head[TAR_BLOCK_BYTES];
	size_t head_len = 0;
	int r;

	if (!in)
		return err_set(e, -ENOMEM, "out of memory");
	in->fd = fd;
	in->size_bytes = size;
	in->progress = NULL;
	if (limits)
		out.limits = *limits;
	if (scratch_dirfd < 0)
		return err_set(e, -EOPNOTSUPP, "the disk image is packed, and there is no folder to unpack it into");
	if (!s->in_tar) {
		r = peek_unpacked(in, s->packing, head, sizeof(head), &head_len, e);
		if (r < 0)
			return r;
		s->in_tar = looks_like_tar(head, head_len);
	}
	r = open_scratch(scratch_dirfd, &scratch, e);
	if (r < 0)
		return r;
	in->progress = progress;
	out.fd = scratch;
	progress_begin(progress, "unpack", "%s%s", disk_packing_name(s->packing), s->in_tar ? " tar" : "");
	r = s->in_tar ? unpack_tar(in, s->packing, &out, s->member, e) : unpack_stream(in, s->packing, &out, e);
	if (r < 0)
		return r;
	progress_end(progress, "unpack", "%llu bytes, %llu of them not zero", (unsigned long long)out.end_bytes,
		(unsigned long long)out.stored_bytes);
	s->scratch_fd = take_fd(&scratch);
	return 0;
}

/* Open what is not packed (any more). */
static int open_plain(int fd, const uint8_t *head, size_t len, uint64_t size, struct disk_source *s, struct err *e)
{
	int r;

	if (size == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the disk image is empty");
	if (qcow_detect(head, len)) {
		s->format = DISK_FORMAT_QCOW2;
		return qcow_open(fd, &s->dev, e);
	}
	r = refuse_others(head, len, e);
	if (r == 0)
		r = refuse_by_footer(fd, size, e);
	if (r < 0)
		return r;
	s->format = DISK_FORMAT_RAW;
	return blockdev_new_file(fd, &s->dev, e);
}

static int read_head(int fd, uint8_t *head, size_t *ret_len, uint64_t *ret_size, struct err *e)
{
	struct stat st;
	off_t end;
	ssize_t n;

	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot look at the disk image");
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "the disk image is neither a file nor a block device");
	end = lseek(fd, 0, SEEK_END); /* a block device has no st_size */
	if (end < 0)
		return err_set_errno(e, -errno, "cannot tell the size of the disk image");
	n = pread_full(fd, head, HEAD_BYTES, 0);
	if (n < 0)
		return err_set_errno(e, (int)n, "cannot read the disk image");
	*ret_len = (size_t)n;
	*ret_size = (uint64_t)end;
	return 0;
}

int disk_source_open(int fd, int scratch_dirfd, const struct disk_source_limits *limits, struct progress *progress,
	struct disk_source *ret, struct err *e)
{
	_cleanup_disk_source_ struct disk_source s = DISK_SOURCE_INIT;
	_cleanup_free_ uint8_t *head = malloc(HEAD_BYTES);
	uint64_t size;
	size_t len;
	int r;

	if (!head)
		return err_set(e, -ENOMEM, "out of memory");
	r = read_head(fd, head, &len, &size, e);
	if (r < 0)
		return r;
	s.file_bytes = size;
	s.packing = detect_packing(head, len);
	s.in_tar = s.packing == DISK_PACKING_NONE && looks_like_tar(head, len);
	if (s.packing != DISK_PACKING_NONE || s.in_tar) {
		r = unpack_file(fd, size, scratch_dirfd, limits, progress, &s, e);
		if (r < 0)
			return r;
		fd = s.scratch_fd;
		r = read_head(fd, head, &len, &size, e);
		if (r < 0)
			return r;
		if (detect_packing(head, len) != DISK_PACKING_NONE || looks_like_tar(head, len))
			return err_refused(e, "packed twice", "unpack the outer layer");
	}
	r = open_plain(fd, head, len, size, &s, e);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct disk_source)DISK_SOURCE_INIT;
	return 0;
}

void disk_source_release(struct disk_source *s)
{
	blockdev_free(s->dev);
	s->dev = NULL;
	close_fdp(&s->scratch_fd);
}
