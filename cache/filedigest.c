#include "cache/filedigest.h"
#include "cache/publish.h"
#include "lib/beneath.h"
#include "lib/io.h"
#include "lib/num.h"

#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define MEMO_STATE_NAME "file-digests"
#define MEMO_SHA512_STATE_NAME "file-digests-sha512"

/* What tells one state of a file from another without reading it. */
struct fingerprint {
	uint64_t device, inode, size_bytes;
	int64_t mtime_ns, ctime_ns;
};

struct memo_item {
	struct fingerprint file;
	uint8_t sha256[32];
	int64_t used_s; /* when it was last asked for, seconds since 1970; 0: an empty slot of the table */
};

struct filedigest_memo {
	char *store_path; /* NULL: never saved */
	const char *state_name;
	struct filedigest_memo *sha512; /* the same for SHA-512, made when first needed; its items hold the SHA-256 of that */
	struct memo_item *slots; /* open addressing by device and inode; a power of two of them, at most 3/4 full */
	size_t n_slots, n_items;
	bool learned;
	uint64_t n_read, n_known;
};

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static struct memo_item *find_slot(struct memo_item *slots, size_t n_slots, uint64_t device, uint64_t inode)
{
	uint64_t h = (inode ^ (device << 32 | device >> 32)) * UINT64_C(0x9E3779B97F4A7C15); /* Fibonacci hashing */
	size_t i = (size_t)(h >> 20) & (n_slots - 1);

	while (slots[i].used_s != 0 && (slots[i].file.device != device || slots[i].file.inode != inode))
		i = (i + 1) & (n_slots - 1);
	return &slots[i];
}

static int grow(struct filedigest_memo *m)
{
	size_t n = m->n_slots ? 2 * m->n_slots : 64;
	struct memo_item *slots = calloc(n, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < m->n_slots; i++)
		if (m->slots[i].used_s != 0)
			*find_slot(slots, n, m->slots[i].file.device, m->slots[i].file.inode) = m->slots[i];
	free(m->slots);
	m->slots = slots;
	m->n_slots = n;
	return 0;
}

/* Put an item in, in place of what was known of the same inode. Beyond twice what will be kept nothing more is learned. */
static int put_item(struct filedigest_memo *m, const struct memo_item *item)
{
	struct memo_item *slot;

	if (m->n_items >= 2 * (size_t)FILEDIGEST_MEMO_MAX_ITEMS)
		return 0;
	if (4 * (m->n_items + 1) > 3 * m->n_slots && grow(m) < 0)
		return -ENOMEM;
	slot = find_slot(m->slots, m->n_slots, item->file.device, item->file.inode);
	if (slot->used_s == 0)
		m->n_items++;
	*slot = *item;
	return 0;
}

static struct memo_item *get_item(const struct filedigest_memo *m, const struct fingerprint *file)
{
	struct memo_item *slot = m->n_slots ? find_slot(m->slots, m->n_slots, file->device, file->inode) : NULL;

	return slot && slot->used_s != 0 && memcmp(&slot->file, file, sizeof(*file)) == 0 ? slot : NULL;
}

/* ---- the file form: magic, count, items by device and inode, SHA-256 of all before ------------------------------------ */

enum {
	MEMO_MAGIC_BYTES = 16,
	MEMO_HEADER_BYTES = MEMO_MAGIC_BYTES + 8,
	MEMO_ITEM_BYTES = 6 * 8 + 32,
	MEMO_TRAILER_BYTES = 32
};

static const char memo_magic[MEMO_MAGIC_BYTES + 1] = "imgbuild-memo-1\n";

static int append_le64(struct buf *b, uint64_t v)
{
	uint8_t bytes[8];

	for (int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(v >> (8 * i));
	return buf_append(b, bytes, sizeof(bytes));
}

static int append_item(struct buf *b, const struct memo_item *item)
{
	int r = append_le64(b, item->file.device);

	if (r == 0)
		r = append_le64(b, item->file.inode);
	if (r == 0)
		r = append_le64(b, item->file.size_bytes);
	if (r == 0)
		r = append_le64(b, (uint64_t)item->file.mtime_ns);
	if (r == 0)
		r = append_le64(b, (uint64_t)item->file.ctime_ns);
	if (r == 0)
		r = append_le64(b, (uint64_t)item->used_s);
	return r < 0 ? r : buf_append(b, item->sha256, sizeof(item->sha256));
}

static struct memo_item read_item(const uint8_t *b)
{
	struct memo_item item = {
		.file = { .device = read_le64(b),
			.inode = read_le64(b + 8),
			.size_bytes = read_le64(b + 16),
			.mtime_ns = (int64_t)read_le64(b + 24),
			.ctime_ns = (int64_t)read_le64(b + 32) },
		.used_s = (int64_t)read_le64(b + 40),
	};

	memcpy(item.sha256, b + 48, sizeof(item.sha256));
	return item;
}

static int compare_by_use(const void *a, const void *b)
{
	const struct memo_item *x = a, *y = b;

	return (x->used_s < y->used_s) - (x->used_s > y->used_s);
}

static int compare_by_inode(const void *a, const void *b)
{
	const struct memo_item *x = a, *y = b;

	if (x->file.device != y->file.device)
		return x->file.device < y->file.device ? -1 : 1;
	return (x->file.inode > y->file.inode) - (x->file.inode < y->file.inode);
}

int filedigest_memo_encode(const struct filedigest_memo *m, struct buf *into)
{
	_cleanup_free_ struct memo_item *items = calloc(m->n_items + 1, sizeof(*items));
	struct err ignored = ERR_INIT;
	struct digest sum;
	size_t n = 0, start = into->len;
	int r;

	if (!items)
		return -ENOMEM;
	for (size_t i = 0; i < m->n_slots; i++)
		if (m->slots[i].used_s != 0)
			items[n++] = m->slots[i];
	if (n > FILEDIGEST_MEMO_MAX_ITEMS) {
		qsort(items, n, sizeof(*items), compare_by_use);
		n = FILEDIGEST_MEMO_MAX_ITEMS;
	}
	qsort(items, n, sizeof(*items), compare_by_inode);
	r = buf_append(into, memo_magic, MEMO_MAGIC_BYTES);
	if (r == 0)
		r = append_le64(into, n);
	for (size_t i = 0; i < n && r == 0; i++)
		r = append_item(into, &items[i]);
	if (r == 0)
		r = digest_bytes(DIGEST_SHA256, into->data + start, into->len - start, &sum, &ignored);
	return r < 0 ? r : buf_append(into, sum.bytes, MEMO_TRAILER_BYTES);
}

/* Is this what filedigest_memo_encode() makes? Sets *ret_n to the number of items. */
static bool memo_is_sound(const uint8_t *bytes, size_t len, uint64_t *ret_n)
{
	struct err ignored = ERR_INIT;
	struct digest sum;
	uint64_t n;

	if (len < MEMO_HEADER_BYTES + MEMO_TRAILER_BYTES || memcmp(bytes, memo_magic, MEMO_MAGIC_BYTES) != 0)
		return false;
	n = read_le64(bytes + MEMO_MAGIC_BYTES);
	if (n > FILEDIGEST_MEMO_MAX_ITEMS || len != MEMO_HEADER_BYTES + n * MEMO_ITEM_BYTES + MEMO_TRAILER_BYTES)
		return false;
	if (digest_bytes(DIGEST_SHA256, bytes, len - MEMO_TRAILER_BYTES, &sum, &ignored) < 0 ||
		memcmp(sum.bytes, bytes + len - MEMO_TRAILER_BYTES, MEMO_TRAILER_BYTES) != 0)
		return false;
	*ret_n = n;
	return true;
}

static void forget_all(struct filedigest_memo *m)
{
	free(m->slots);
	m->slots = NULL;
	m->n_slots = m->n_items = 0;
}

int filedigest_memo_decode(struct filedigest_memo *m, const void *bytes, size_t len)
{
	const uint8_t *at = (const uint8_t *)bytes + MEMO_HEADER_BYTES;
	struct memo_item previous = { .used_s = 0 };
	uint64_t n = 0;
	int r = 0;

	forget_all(m);
	if (!memo_is_sound(bytes, len, &n))
		return -EBADMSG;
	for (uint64_t i = 0; i < n && r == 0; i++, at += MEMO_ITEM_BYTES) {
		struct memo_item item = read_item(at);

		if (item.used_s <= 0 || (i > 0 && compare_by_inode(&previous, &item) >= 0))
			r = -EBADMSG;
		else
			r = put_item(m, &item);
		previous = item;
	}
	if (r < 0)
		forget_all(m);
	return r;
}

static int memo_load(const struct store *s, const char *state_name, struct filedigest_memo **ret, struct err *e)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *m = calloc(1, sizeof(*m));
	struct buf file = BUF_INIT(STORE_STATE_MAX_BYTES);
	struct err ignored = ERR_INIT;
	int r = 0;

	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	m->state_name = state_name;
	if (s) {
		m->store_path = strdup(s->path);
		if (!m->store_path)
			return err_set(e, -ENOMEM, "out of memory");
		if (store_read_state(s, state_name, &file, &ignored) == 0)
			r = filedigest_memo_decode(m, buf_str(&file), file.len);
		buf_release(&file);
	}
	if (r == -ENOMEM)
		return err_set(e, r, "out of memory");
	*ret = take_ptr(m); /* a damaged memo is an empty one */
	return 0;
}

int filedigest_memo_load(const struct store *s, struct filedigest_memo **ret, struct err *e)
{
	return memo_load(s, MEMO_STATE_NAME, ret, e);
}

/* The memo of SHA-512 that goes with m. */
static int get_sha512_memo(struct filedigest_memo *m, struct filedigest_memo **ret, struct err *e)
{
	_cleanup_store_ struct store store = STORE_INIT;
	int r = 0;

	if (!m->sha512 && m->store_path)
		r = store_open(m->store_path, &store, e);
	if (!m->sha512 && r == 0)
		r = memo_load(m->store_path ? &store : NULL, MEMO_SHA512_STATE_NAME, &m->sha512, e);
	if (r == 0)
		*ret = m->sha512;
	return r;
}

int filedigest_memo_save(struct filedigest_memo *m, struct err *e)
{
	_cleanup_publisher_ struct publisher *p = NULL;
	_cleanup_buf_ struct buf file = BUF_INIT(STORE_STATE_MAX_BYTES);
	int r = m->sha512 ? filedigest_memo_save(m->sha512, e) : 0;

	if (r < 0 || !m->store_path || !m->learned)
		return r;
	r = filedigest_memo_encode(m, &file);
	if (r < 0)
		return err_set_errno(e, r, "cannot write down the digests of local files");
	r = publisher_open(m->store_path, &p, e);
	if (r == 0)
		r = publish_state(p, m->state_name, file.data, file.len, e);
	if (r == 0)
		m->learned = false;
	return r;
}

void filedigest_memo_free(struct filedigest_memo *m)
{
	if (!m)
		return;
	filedigest_memo_free(m->sha512);
	forget_all(m);
	free(m->store_path);
	free(m);
}

void filedigest_memo_counts(const struct filedigest_memo *m, uint64_t *ret_read, uint64_t *ret_known)
{
	*ret_read = m->n_read + (m->sha512 ? m->sha512->n_read : 0);
	*ret_known = m->n_known + (m->sha512 ? m->sha512->n_known : 0);
}

/* ---- paths --------------------------------------------------------------------------------------------------------- */

static int leads_outside(const char *path, struct err *e)
{
	return err_set_kind(e, ERR_KIND_USAGE, -EXDEV, "`%s` leads out of the plan's folder; put it beneath that folder, or "
		"allow it with --allow-outside", path);
}

int filedigest_open_at(int dirfd, const char *path, int flags, int *ret_fd, struct err *e)
{
	int fd, all = flags | O_CLOEXEC | O_NOCTTY;

	if (dirfd == AT_FDCWD) {
		fd = open(path, all);
		fd = fd < 0 ? -errno : fd;
	} else {
		fd = beneath_open(dirfd, path, flags, false);
	}
	if (fd == -EXDEV)
		return leads_outside(path, e);
	if (fd < 0) {
		(void)err_set_errno(e, fd, "cannot open `%s`", path);
		return err_default_kind(e, fd == -EMFILE || fd == -ENFILE || fd == -EIO ? ERR_KIND_HOST : ERR_KIND_USAGE);
	}
	*ret_fd = fd;
	return 0;
}

/* ---- files --------------------------------------------------------------------------------------------------------- */

static int64_t nanoseconds(struct timespec t)
{
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static struct fingerprint fingerprint_of(const struct stat *st)
{
	return (struct fingerprint){
		.device = st->st_dev,
		.inode = st->st_ino,
		.size_bytes = (uint64_t)st->st_size,
		.mtime_ns = nanoseconds(st->st_mtim),
		.ctime_ns = nanoseconds(st->st_ctim),
	};
}

static int64_t now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return nanoseconds(now);
}

/* A file that changed so shortly before (or, by its clock, after) it was read could change again within the same tick. */
static bool is_racy(const struct fingerprint *file, int64_t read_ns)
{
	int64_t latest = file->mtime_ns > file->ctime_ns ? file->mtime_ns : file->ctime_ns;

	return latest > read_ns - (int64_t)FILEDIGEST_RACY_NS;
}

static int remember(struct filedigest_memo *m, const struct fingerprint *file, const struct digest *digest,
	int64_t read_ns, struct err *e)
{
	struct memo_item item = { .file = *file, .used_s = read_ns / 1000000000 };

	m->n_read++;
	if (is_racy(file, read_ns) || item.used_s <= 0)
		return 0;
	memcpy(item.sha256, digest->bytes, sizeof(item.sha256));
	m->learned = true;
	return put_item(m, &item) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static bool recall(struct filedigest_memo *m, const struct fingerprint *file, struct digest *ret)
{
	struct memo_item *item = get_item(m, file);

	if (!item)
		return false;
	item->used_s = now_ns() / 1000000000 > 0 ? now_ns() / 1000000000 : 1;
	m->n_known++;
	*ret = (struct digest){ .algorithm = DIGEST_SHA256 };
	memcpy(ret->bytes, item->sha256, sizeof(item->sha256));
	return true;
}

/* What is remembered of a file: its SHA-256, or the SHA-256 of its SHA-512. */
static int read_digest(int fd, enum digest_algorithm algorithm, struct digest *ret, struct err *e)
{
	struct digest digest;
	int r = digest_fd(algorithm, fd, UINT64_MAX, &digest, e);

	if (r == 0 && algorithm == DIGEST_SHA512)
		r = digest_bytes(DIGEST_SHA256, digest.bytes, digest_size_bytes(DIGEST_SHA512), ret, e);
	else if (r == 0)
		*ret = digest;
	return r;
}

static int recall_or_read(struct filedigest_memo *m, int fd, enum digest_algorithm algorithm, const char *label,
	struct digest *ret, uint64_t *ret_size_bytes, struct err *e)
{
	struct fingerprint before, after;
	struct digest digest;
	struct stat st;
	int64_t read_ns;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot stat `%s`", label);
	if (!S_ISREG(st.st_mode))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s` is not a regular file", label);
	before = fingerprint_of(&st);
	if (!m || !recall(m, &before, &digest)) {
		read_ns = now_ns();
		r = read_digest(fd, algorithm, &digest, e);
		if (r < 0) {
			(void)err_wrap(e, "reading `%s`", label);
			return err_default_kind(e, ERR_KIND_HOST);
		}
		if (fstat(fd, &st) < 0)
			return err_set_errno(e, -errno, "cannot stat `%s`", label);
		after = fingerprint_of(&st);
		if (memcmp(&before, &after, sizeof(before)) != 0)
			return err_set_kind(e, ERR_KIND_USAGE, -EBUSY,
				"`%s` was changed while it was read; try again when nothing writes to it", label);
		r = m ? remember(m, &before, &digest, read_ns, e) : 0;
		if (r < 0)
			return r;
	}
	*ret = digest;
	if (ret_size_bytes)
		*ret_size_bytes = before.size_bytes;
	return 0;
}

int filedigest_fd(struct filedigest_memo *m, int fd, const char *label, struct digest *ret, uint64_t *ret_size_bytes,
	struct err *e)
{
	return recall_or_read(m, fd, DIGEST_SHA256, label, ret, ret_size_bytes, e);
}

int filedigest_confirm_sha512(struct filedigest_memo *m, int fd, const char *label, const struct digest *sha512, struct err *e)
{
	struct filedigest_memo *memo = NULL;
	struct digest expected, found, shown;
	char a[DIGEST_HEX_SIZE], b[DIGEST_HEX_SIZE];
	int r = m ? get_sha512_memo(m, &memo, e) : 0;

	if (r == 0)
		r = digest_bytes(DIGEST_SHA256, sha512->bytes, digest_size_bytes(DIGEST_SHA512), &expected, e);
	if (r == 0)
		r = recall_or_read(memo, fd, DIGEST_SHA512, label, &found, NULL, e);
	if (r < 0 || digest_equal(&found, &expected))
		return r;
	r = digest_fd(DIGEST_SHA512, fd, UINT64_MAX, &shown, e);
	if (r < 0)
		return err_wrap(e, "reading `%s`", label);
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
		"`%s` has the SHA-512 %s, but the plan says %s: change the plan if the new file is meant", label,
		digest_hex(&shown, a), digest_hex(sha512, b));
}

int filedigest_file_at(struct filedigest_memo *m, int dirfd, const char *path, struct digest *ret,
	uint64_t *ret_size_bytes, struct err *e)
{
	_cleanup_close_ int fd = -1;
	/* O_NONBLOCK: a FIFO must not wait for its writer. */
	int r = filedigest_open_at(dirfd, path, O_RDONLY | O_NONBLOCK, &fd, e);

	return r < 0 ? r : filedigest_fd(m, fd, path, ret, ret_size_bytes, e);
}

/* ---- trees --------------------------------------------------------------------------------------------------------- */

struct tree_item {
	char *path;   /* relative to the top */
	char *target; /* of a symbolic link */
	char type;    /* 'd', 'f' or 'l' */
	unsigned mode;
	uint64_t size_bytes;
	struct digest digest;
};

struct tree {
	struct filedigest_memo *memo;
	const char *label;
	struct tree_item *items;
	size_t n, capacity;
	size_t path_bytes;
	struct filedigest_tree_info info;
};

static void tree_release(struct tree *t)
{
	for (size_t i = 0; i < t->n; i++) {
		free(t->items[i].path);
		free(t->items[i].target);
	}
	free(t->items);
}

/* Append an item, which is taken in any case. */
static int add_tree_item(struct tree *t, struct tree_item *item, struct err *e)
{
	size_t bytes = strlen(item->path) + (item->target ? strlen(item->target) : 0);
	int r = 0;

	if (t->n >= FILEDIGEST_TREE_MAX_ITEMS || bytes > FILEDIGEST_TREE_MAX_PATH_BYTES - t->path_bytes) {
		r = err_set_kind(e, ERR_KIND_USAGE, -E2BIG, "the tree `%s` has more than %u files, or too long names; "
			"give a smaller one, or an archive", t->label, FILEDIGEST_TREE_MAX_ITEMS);
	} else if (t->n == t->capacity) {
		size_t more = t->capacity ? 2 * t->capacity : 64;
		struct tree_item *items = reallocarray(t->items, more, sizeof(*items));

		if (items) {
			t->items = items;
			t->capacity = more;
		} else {
			r = err_set(e, -ENOMEM, "out of memory");
		}
	}
	if (r < 0) {
		free(item->path);
		free(item->target);
		return r;
	}
	t->path_bytes += bytes;
	t->items[t->n++] = *item;
	return 0;
}

static int read_link_target(int dirfd, const char *name, const char *path, char **ret, struct err *e)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(dirfd, name, target, sizeof(target));

	if (n < 0)
		return err_set_errno(e, -errno, "cannot read the link `%s`", path);
	if ((size_t)n >= sizeof(target))
		return err_set_kind(e, ERR_KIND_USAGE, -E2BIG, "the link `%s` has a target longer than %d bytes", path, PATH_MAX);
	*ret = strndup(target, (size_t)n);
	return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int walk_folder(struct tree *t, int dirfd, const char *path, unsigned depth, struct err *e);

static int walk_file(struct tree *t, int dirfd, const char *name, struct tree_item *item, struct err *e)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

	if (fd < 0) {
		(void)err_set_errno(e, -errno, "cannot open `%s/%s`", t->label, item->path);
		return err_default_kind(e, ERR_KIND_USAGE);
	}
	t->info.n_files++;
	return filedigest_fd(t->memo, fd, item->path, &item->digest, &item->size_bytes, e);
}

static int walk_item(struct tree *t, int dirfd, const char *name, const char *parent, unsigned depth, struct err *e)
{
	struct tree_item item = { .path = NULL };
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *path = NULL;
	struct stat st;
	int r = 0;

	if (asprintf(&path, "%s%s%s", parent, parent[0] ? "/" : "", name) < 0) {
		path = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	item.path = strdup(path);
	if (!item.path)
		return err_set(e, -ENOMEM, "out of memory");
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		r = err_set_errno(e, -errno, "cannot stat `%s/%s`", t->label, path);
	} else if (S_ISREG(st.st_mode)) {
		item.type = 'f';
		r = walk_file(t, dirfd, name, &item, e);
		if (r == 0 && !checked_add_u64(t->info.file_bytes, item.size_bytes, &t->info.file_bytes))
			r = err_set_kind(e, ERR_KIND_USAGE, -E2BIG, "the files of `%s` are too large", t->label);
	} else if (S_ISLNK(st.st_mode)) {
		item.type = 'l';
		t->info.n_links++;
		r = read_link_target(dirfd, name, path, &item.target, e);
	} else if (S_ISDIR(st.st_mode)) {
		item.type = 'd';
		t->info.n_folders++;
		fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0) {
			(void)err_set_errno(e, -errno, "cannot open the folder `%s/%s`", t->label, path);
			r = err_default_kind(e, ERR_KIND_USAGE);
		}
	} else {
		r = err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s/%s` is a %s; a tree may have files, folders and symbolic links",
			t->label, path, S_ISFIFO(st.st_mode) ? "FIFO" : S_ISSOCK(st.st_mode) ? "socket" : "device");
	}
	if (r < 0) {
		free(item.path);
		free(item.target);
		return r;
	}
	item.mode = item.type == 'l' ? 0 : portable_mode(st.st_mode);
	r = add_tree_item(t, &item, e);
	return r < 0 || fd < 0 ? r : walk_folder(t, fd, path, depth + 1, e);
}

static int walk_folder(struct tree *t, int dirfd, const char *path, unsigned depth, struct err *e)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	int fd;

	if (depth > FILEDIGEST_TREE_MAX_DEPTH)
		return err_set_kind(e, ERR_KIND_USAGE, -E2BIG, "the tree `%s` is nested deeper than %u folders", t->label,
			FILEDIGEST_TREE_MAX_DEPTH);
	fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		(void)err_set_errno(e, -errno, "cannot list `%s/%s`", t->label, path);
		close_fdp(&fd);
		return e->code;
	}
	while (errno = 0, (entry = readdir(dir))) {
		int r;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		r = walk_item(t, dirfd, entry->d_name, path, depth, e);
		if (r < 0)
			return r;
	}
	if (errno != 0)
		return err_set_errno(e, -errno, "cannot list `%s/%s`", t->label, path);
	return 0;
}

static int compare_paths(const void *a, const void *b)
{
	return strcmp(((const struct tree_item *)a)->path, ((const struct tree_item *)b)->path);
}

/* What a tree's records go to: its digest, and a listing of at most its maximum. */
struct record_sink {
	struct hasher *hasher;
	struct buf *listing; /* NULL: not wanted, or too long */
};

static int add_bytes(struct record_sink *sink, const void *bytes, size_t len, struct err *e)
{
	int r = sink->listing ? buf_append(sink->listing, bytes, len) : 0;

	if (r == -E2BIG) {
		buf_reset(sink->listing);
		sink->listing = NULL;
	} else if (r < 0) {
		return err_set(e, r, "out of memory for the listing of a tree");
	}
	return hasher_update(sink->hasher, bytes, len, e);
}

/* One record: no field but the last can hold a space, names and targets end with a NUL, so that no two trees have the
 * same records. */
static int add_record(struct record_sink *sink, const struct tree_item *item, struct err *e)
{
	char head[DIGEST_HEX_SIZE + 64], hex[DIGEST_HEX_SIZE];
	int n, r;

	if (item->type == 'f')
		n = snprintf(head, sizeof(head), "f %04o %llu %s ", item->mode, (unsigned long long)item->size_bytes,
			digest_hex(&item->digest, hex));
	else if (item->type == 'd')
		n = snprintf(head, sizeof(head), "d %04o ", item->mode);
	else
		n = snprintf(head, sizeof(head), "l ");
	r = add_bytes(sink, head, (size_t)n, e);
	if (r == 0)
		r = add_bytes(sink, item->path, strlen(item->path) + 1, e);
	if (r == 0 && item->type == 'l')
		r = add_bytes(sink, item->target, strlen(item->target) + 1, e);
	return r;
}

int filedigest_list_tree_at(struct filedigest_memo *m, int dirfd, const char *path, struct buf *listing,
	struct filedigest_tree_info *ret, struct err *e)
{
	_cleanup_(tree_release) struct tree t = { .memo = m, .label = path };
	_cleanup_(hasher_freep) struct hasher *h = NULL;
	struct record_sink sink = { .listing = listing };
	_cleanup_close_ int fd = -1;
	int r = filedigest_open_at(dirfd, path, O_RDONLY | O_DIRECTORY, &fd, e);

	if (r == 0)
		r = walk_folder(&t, fd, "", 0, e);
	if (r == 0)
		r = hasher_new(DIGEST_SHA256, &h, e);
	sink.hasher = h;
	if (r == 0)
		r = add_bytes(&sink, FILEDIGEST_TREE_HEAD, strlen(FILEDIGEST_TREE_HEAD), e);
	if (r < 0)
		return r;
	if (t.n > 1)
		qsort(t.items, t.n, sizeof(*t.items), compare_paths);
	for (size_t i = 0; i < t.n; i++) {
		r = add_record(&sink, &t.items[i], e);
		if (r < 0)
			return r;
	}
	r = hasher_finish(h, &t.info.digest, e);
	if (r == 0)
		*ret = t.info;
	return r;
}

int filedigest_tree_at(struct filedigest_memo *m, int dirfd, const char *path, struct filedigest_tree_info *ret,
	struct err *e)
{
	return filedigest_list_tree_at(m, dirfd, path, NULL, ret, e);
}
