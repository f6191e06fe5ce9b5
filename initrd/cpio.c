#include "initrd/cpio.h"
#include "lib/io.h"
#include "lib/num.h"
#include "lib/strv.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum {
	WRITE_BUFFER_BYTES = 1 << 20,
	GUEST_PAGE_BYTES = 4096,
	GUEST_INODE_BYTES = 1024, /* inode and directory entry of ramfs or tmpfs, rounded up */
};

/* The names that are in the archive: open addressing over pointers to owned strings, at most two thirds full.
 */
struct name_set {
	char **slots;
	bool *is_dir;
	size_t n_slots;
	size_t n;
};

struct cpio {
	struct archive *archive;
	int out_fd;
	uint8_t *buffer; /* small writes are gathered here */
	size_t buffered;
	int write_error; /* negative errno of the first failed write; libarchive would reword it */
	bool discard;    /* write nothing any more */
	uint64_t archive_bytes;
	uint64_t content_bytes;
	int64_t n_members;
	uint8_t *copy_buffer;
	struct name_set names;
};

static uint64_t name_hash(const char *name)
{
	uint64_t h = 14695981039346656037u; /* FNV-1a; names come from us and from trees, at most
					       CPIO_MEMBERS_MAX */

	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 1099511628211u;
	return h ^ h >> 29;
}

static size_t name_slot(const struct name_set *set, const char *name)
{
	size_t i = (size_t)name_hash(name) & (set->n_slots - 1);

	while (set->slots[i] && strcmp(set->slots[i], name) != 0)
		i = (i + 1) & (set->n_slots - 1);
	return i;
}

static int name_set_grow(struct name_set *set)
{
	struct name_set bigger = { .n_slots = set->n_slots ? 2 * set->n_slots : 256, .n = set->n };

	bigger.slots = calloc(bigger.n_slots, sizeof(*bigger.slots));
	bigger.is_dir = calloc(bigger.n_slots, sizeof(*bigger.is_dir));
	if (!bigger.slots || !bigger.is_dir) {
		free(bigger.slots);
		free(bigger.is_dir);
		return -ENOMEM;
	}
	for (size_t i = 0; i < set->n_slots; i++) {
		if (!set->slots[i])
			continue;
		size_t at = name_slot(&bigger, set->slots[i]);

		bigger.slots[at] = set->slots[i];
		bigger.is_dir[at] = set->is_dir[i];
	}
	free(set->slots);
	free(set->is_dir);
	*set = bigger;
	return 0;
}

/* Remember a name. Returns 1 when it is new, 0 when it was there (with *ret_was_dir), -ENOMEM. */
static int name_set_add(struct name_set *set, const char *name, bool is_dir, bool *ret_was_dir)
{
	if (3 * (set->n + 1) > 2 * set->n_slots) {
		int r = name_set_grow(set);

		if (r < 0)
			return r;
	}

	size_t at = name_slot(set, name);

	if (set->slots[at]) {
		*ret_was_dir = set->is_dir[at];
		return 0;
	}
	set->slots[at] = strdup(name);
	if (!set->slots[at])
		return -ENOMEM;
	set->is_dir[at] = is_dir;
	set->n++;
	return 1;
}

static int flush_buffer(struct cpio *c)
{
	int r = write_full(c->out_fd, c->buffer, c->buffered);

	c->buffered = 0;
	return r;
}

static la_ssize_t on_write(struct archive *a, void *opaque, const void *bytes, size_t len)
{
	struct cpio *c = opaque;
	int r = 0;

	bool large = len >= WRITE_BUFFER_BYTES / 2;

	if (c->discard)
		return (la_ssize_t)len;
	if (large || len > WRITE_BUFFER_BYTES - c->buffered)
		r = flush_buffer(c);
	if (r == 0 && large) {
		r = write_full(c->out_fd, bytes, len);
	} else if (r == 0) {
		memcpy(c->buffer + c->buffered, bytes, len);
		c->buffered += len;
	}
	if (r < 0) {
		c->write_error = r;
		archive_set_error(a, -r, "write");
		return -1;
	}
	c->archive_bytes += len;
	return (la_ssize_t)len;
}

static int archive_err(struct cpio *c, struct err *e, const char *name)
{
	if (c->write_error < 0)
		return err_set_errno(e, c->write_error, "cannot write the initrd at member `%s`", name);
	return err_set_kind(e, ERR_KIND_DEFECT, -EIO, "cannot add `%s` to the initrd: libarchive says: %s",
		name, archive_error_string(c->archive) ? archive_error_string(c->archive) : "nothing");
}

int cpio_new(int out_fd, struct cpio **ret, struct err *e)
{
	_cleanup_(cpio_freep) struct cpio *c = calloc(1, sizeof(*c));

	if (!c)
		return err_set(e, -ENOMEM, "no memory for the initrd's writer");
	c->out_fd = out_fd;
	c->buffer = malloc(WRITE_BUFFER_BYTES);
	c->copy_buffer = malloc(WRITE_BUFFER_BYTES);
	c->archive = archive_write_new();
	if (!c->buffer || !c->copy_buffer || !c->archive)
		return err_set(e, -ENOMEM, "no memory for the initrd's writer");
	if (archive_write_set_format_cpio_newc(c->archive) != ARCHIVE_OK ||
		archive_write_add_filter_none(c->archive) != ARCHIVE_OK ||
		archive_write_set_bytes_per_block(c->archive, 0) != ARCHIVE_OK ||
		archive_write_open(c->archive, c, NULL, on_write, NULL) != ARCHIVE_OK)
		return archive_err(c, e, "(begin)");
	*ret = take_ptr(c);
	return 0;
}

/* Check an absolute name part by part. */
static int check_name(const char *name, struct err *e)
{
	if (name[0] != '/' || name[1] == '\0')
		return err_set(e, -EINVAL,
			"`%s` is no name in an initrd: it must begin with `/` and have a part", name);
	if (strlen(name) > CPIO_NAME_MAX_BYTES)
		return err_set(e, -ENAMETOOLONG,
			"the name `%.64s…` in the initrd has %zu bytes, at most %d are allowed", name,
			strlen(name), CPIO_NAME_MAX_BYTES);
	for (const char *part = name + 1; part;) {
		const char *slash = strchr(part, '/');
		size_t len = slash ? (size_t)(slash - part) : strlen(part);

		if (len == 0 || (len == 1 && part[0] == '.') ||
			(len == 2 && part[0] == '.' && part[1] == '.'))
			return err_set(e, -EINVAL,
				"`%s` is no name in an initrd: it has an empty, `.` or `..` part", name);
		part = slash ? slash + 1 : NULL;
	}
	return 0;
}

/* Write one header. `entry` has its type, mode and size set. */
static int write_header(
	struct cpio *c, struct archive_entry *entry, const char *name, uint64_t size_bytes, struct err *e)
{
	if (++c->n_members > CPIO_MEMBERS_MAX)
		return err_set_kind(e, ERR_KIND_USAGE, -E2BIG, "the initrd would have more than %d members",
			CPIO_MEMBERS_MAX);
	archive_entry_set_pathname(entry, name + 1);
	archive_entry_set_uid(entry, 0);
	archive_entry_set_gid(entry, 0);
	archive_entry_set_mtime(entry, 0, 0);
	archive_entry_set_dev(entry, 0);
	archive_entry_set_ino64(entry, c->n_members);
	archive_entry_set_nlink(entry, 1);
	if (archive_write_header(c->archive, entry) != ARCHIVE_OK)
		return archive_err(c, e, name);
	c->content_bytes += round_up_u64(size_bytes, GUEST_PAGE_BYTES) + GUEST_INODE_BYTES;
	return 0;
}

static void archive_entry_freep(struct archive_entry **entry)
{
	archive_entry_free(*entry);
}

/* Add a member that has no contents beyond its header. */
static int add_plain(struct cpio *c, const char *name, mode_t type, mode_t mode, const char *link,
	unsigned major, unsigned minor, struct err *e)
{
	_cleanup_(archive_entry_freep) struct archive_entry *entry = archive_entry_new();

	if (!entry)
		return err_set(e, -ENOMEM, "no memory for the initrd's member `%s`", name);
	archive_entry_set_filetype(entry, type);
	archive_entry_set_perm(entry, mode & 07777);
	archive_entry_set_size(entry, 0);
	if (link)
		archive_entry_set_symlink(entry, link);
	if (type == AE_IFCHR) {
		archive_entry_set_rdevmajor(entry, major);
		archive_entry_set_rdevminor(entry, minor);
	}
	return write_header(c, entry, name, link ? strlen(link) : 0, e);
}

/* Make sure that the folders above name are in the archive. `name` is writable and restored. */
static int add_parents(struct cpio *c, char *name, struct err *e)
{
	for (char *slash = strchr(name + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		bool was_dir = false;
		int r;

		*slash = '\0';
		r = name_set_add(&c->names, name, true, &was_dir);
		if (r < 0)
			return err_set(e, r, "no memory for the initrd's names");
		if (r == 0 && !was_dir)
			return err_set(
				e, -EEXIST, "`%s` is in the initrd already, and it is not a folder", name);
		if (r == 1) {
			r = add_plain(c, name, AE_IFDIR, 0755, NULL, 0, 0, e);
			if (r < 0)
				return r;
		}
		*slash = '/';
	}
	return 0;
}

/* Check and register a name, its parents first. Returns 1 when it is new, 0 when it is a folder that is there
 * already. */
static int claim_name(struct cpio *c, const char *name, bool is_dir, struct err *e)
{
	char copy[CPIO_NAME_MAX_BYTES + 1];
	bool was_dir = false;
	int r = check_name(name, e);

	if (r < 0)
		return r;
	memcpy(copy, name, strlen(name) + 1);
	r = add_parents(c, copy, e);
	if (r < 0)
		return r;
	r = name_set_add(&c->names, name, is_dir, &was_dir);
	if (r < 0)
		return err_set(e, r, "no memory for the initrd's names");
	if (r == 0 && !(is_dir && was_dir))
		return err_set(e, -EEXIST, "`%s` would be in the initrd twice", name);
	return r;
}

int cpio_add_dir(struct cpio *c, const char *name, mode_t mode, struct err *e)
{
	int r = claim_name(c, name, true, e);

	return r > 0 ? add_plain(c, name, AE_IFDIR, mode, NULL, 0, 0, e) : r;
}

int cpio_add_symlink(struct cpio *c, const char *name, const char *target, struct err *e)
{
	int r;

	if (target[0] == '\0' || strlen(target) >= 4096)
		return err_set(e, -EINVAL,
			"the link `%s` cannot go into the initrd: its target has %zu bytes, 1 to 4095 are allowed",
			name, strlen(target));
	r = claim_name(c, name, false, e);
	return r < 0 ? r : add_plain(c, name, AE_IFLNK, 0777, target, 0, 0, e);
}

int cpio_add_chardev(
	struct cpio *c, const char *name, mode_t mode, unsigned major, unsigned minor, struct err *e)
{
	int r = claim_name(c, name, false, e);

	return r < 0 ? r : add_plain(c, name, AE_IFCHR, mode, NULL, major, minor, e);
}

/* Write the header of a regular file, whose size_bytes must then be written by write_data. */
static int begin_file(struct cpio *c, const char *name, mode_t mode, uint64_t size_bytes, struct err *e)
{
	_cleanup_(archive_entry_freep) struct archive_entry *entry = archive_entry_new();
	int r = claim_name(c, name, false, e);

	if (r < 0)
		return r;
	if (!entry)
		return err_set(e, -ENOMEM, "no memory for the initrd's member `%s`", name);
	if (size_bytes > UINT32_MAX)
		return err_set_kind(e, ERR_KIND_USAGE, -EFBIG,
			"`%s` cannot go into the initrd: it has %llu bytes, and the newc format ends at 4294967295",
			name, (unsigned long long)size_bytes);
	archive_entry_set_filetype(entry, AE_IFREG);
	archive_entry_set_perm(entry, mode & 07777);
	archive_entry_set_size(entry, (la_int64_t)size_bytes);
	return write_header(c, entry, name, size_bytes, e);
}

static int write_data(struct cpio *c, const char *name, const void *bytes, size_t len, struct err *e)
{
	if (len > 0 && archive_write_data(c->archive, bytes, len) != (la_ssize_t)len)
		return archive_err(c, e, name);
	return 0;
}

int cpio_add_bytes(
	struct cpio *c, const char *name, mode_t mode, const void *bytes, size_t len, struct err *e)
{
	int r = begin_file(c, name, mode, len, e);

	return r < 0 ? r : write_data(c, name, bytes, len, e);
}

int cpio_add_fd(struct cpio *c, const char *name, mode_t mode, int fd, struct err *e)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot stat what is to be `%s` in the initrd", name);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "what is to be `%s` in the initrd is not a regular file", name);
	r = begin_file(c, name, mode, (uint64_t)st.st_size, e);
	if (r < 0)
		return r;
	for (uint64_t at = 0, size_bytes = (uint64_t)st.st_size; at < size_bytes;) {
		size_t want =
			size_bytes - at < WRITE_BUFFER_BYTES ? (size_t)(size_bytes - at) : WRITE_BUFFER_BYTES;
		ssize_t n = pread_full(fd, c->copy_buffer, want, at);

		if (n < 0)
			return err_set_errno(e, (int)n, "cannot read what is to be `%s` in the initrd", name);
		if ((size_t)n < want)
			return err_set(e, -EIO,
				"what is to be `%s` in the initrd shrank from %llu to %llu bytes while it was read",
				name, (unsigned long long)size_bytes,
				(unsigned long long)at + (unsigned long long)n);
		r = write_data(c, name, c->copy_buffer, want, e);
		if (r < 0)
			return r;
		at += want;
	}
	return 0;
}

/* The names in a folder, sorted. dirfd is lent. */
static int list_folder(int dirfd, const char *name, struct strv *ret, struct err *e)
{
	_cleanup_closedir_ DIR *d = NULL;
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_set_errno(
			e, -errno, "cannot open the folder that is to be `%s` in the initrd", name);
	d = fdopendir(fd);
	if (!d) {
		(void)close(fd);
		return err_set(
			e, -ENOMEM, "no memory to list the folder that is to be `%s` in the initrd", name);
	}
	for (;;) {
		struct dirent *de;

		errno = 0;
		de = readdir(d);
		if (!de)
			break;
		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		if (ret->n >= CPIO_MEMBERS_MAX)
			return err_set(e, -E2BIG,
				"the folder that is to be `%s` in the initrd has more than %d names", name,
				CPIO_MEMBERS_MAX);
		if (strv_add(ret, de->d_name) < 0)
			return err_set(e, -ENOMEM,
				"no memory to list the folder that is to be `%s` in the initrd", name);
	}
	if (errno != 0)
		return err_set_errno(
			e, -errno, "cannot list the folder that is to be `%s` in the initrd", name);
	strv_sort(ret);
	return 0;
}

static int add_tree(struct cpio *c, const char *name, int dirfd, unsigned depth, struct err *e);

/* Add what `base` in dirfd is as `name`. */
static int add_any(
	struct cpio *c, const char *name, int dirfd, const char *base, unsigned depth, struct err *e)
{
	_cleanup_close_ int fd = -1;
	char target[4096];
	struct stat st;

	if (fstatat(dirfd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set_errno(e, -errno, "cannot stat what is to be `%s` in the initrd", name);
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(dirfd, base, target, sizeof(target) - 1);

		if (n < 0)
			return err_set_errno(
				e, -errno, "cannot read the link that is to be `%s` in the initrd", name);
		target[n] = '\0';
		return cpio_add_symlink(c, name, target, e);
	}
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"what is to be `%s` in the initrd is a device, pipe or socket; only files, folders and links can go in",
			name);
	fd = openat(dirfd, base,
		O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (S_ISDIR(st.st_mode) ? O_DIRECTORY : O_NONBLOCK));
	if (fd < 0)
		return err_set_errno(e, -errno, "cannot open what is to be `%s` in the initrd", name);
	if (S_ISDIR(st.st_mode)) {
		int r = cpio_add_dir(c, name, portable_mode(st.st_mode), e);

		return r < 0 ? r : add_tree(c, name, fd, depth + 1, e);
	}
	return cpio_add_fd(c, name, portable_mode(st.st_mode), fd, e);
}

static int add_tree(struct cpio *c, const char *name, int dirfd, unsigned depth, struct err *e)
{
	_cleanup_strv_ struct strv bases = { 0 };
	int r;

	if (depth > CPIO_TREE_DEPTH_MAX)
		return err_set_kind(e, ERR_KIND_USAGE, -ELOOP, "`%s` lies deeper than %d folders in its tree",
			name, CPIO_TREE_DEPTH_MAX);
	r = list_folder(dirfd, name, &bases, e);
	for (size_t i = 0; i < bases.n && r == 0; i++) {
		_cleanup_free_ char *child = NULL;

		if (asprintf(&child, "%s/%s", name, bases.items[i]) < 0)
			return err_set(e, -ENOMEM, "no memory for the name `%s` in the initrd", name);
		r = add_any(c, child, dirfd, bases.items[i], depth, e);
	}
	return r;
}

int cpio_add_tree(struct cpio *c, const char *name, int dirfd, struct err *e)
{
	int r = cpio_add_dir(c, name, 0755, e);

	return r < 0 ? r : add_tree(c, name, dirfd, 0, e);
}

int cpio_finish(struct cpio *c, uint64_t *ret_archive_bytes, uint64_t *ret_content_bytes, struct err *e)
{
	int r;

	if (archive_write_close(c->archive) != ARCHIVE_OK)
		return archive_err(c, e, "(end)");
	r = flush_buffer(c);
	if (r < 0)
		return err_set_errno(e, r, "cannot write the end of the initrd");
	if (ret_archive_bytes)
		*ret_archive_bytes = c->archive_bytes;
	if (ret_content_bytes)
		*ret_content_bytes = c->content_bytes;
	return 0;
}

void cpio_free(struct cpio *c)
{
	if (!c)
		return;
	if (c->archive) {
		/* Freeing closes, and closing would write a trailer to an archive that is to stay without
		 * one. */
		c->discard = true;
		(void)archive_write_free(c->archive);
	}
	for (size_t i = 0; i < c->names.n_slots; i++)
		free(c->names.slots[i]);
	free(c->names.slots);
	free(c->names.is_dir);
	free(c->buffer);
	free(c->copy_buffer);
	free(c);
}
