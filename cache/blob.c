#include "cache/blob.h"
#include "cache/publish.h"
#include "cache/publisher.h"
#include "lib/io.h"
#include "lib/num.h"
#include "lib/pool.h"
#include "lib/strv.h"

#include <assert.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

enum {
	CHUNK_BYTES = 256 * 1024,
	WRITEBACK_BYTES = 16 * 1024 * 1024,
	SYNC_THREADS = 8 /* they only wait, so more than processors */
};

struct blob_writer {
	struct publisher *publisher; /* borrowed */
	struct blob_expectation expected;
	char *label; /* expected.label, ours */
	int dirfd;   /* borrowed: where `name` is */
	char *name;  /* NULL once published */
	int fd;
	bool is_partial; /* the file lies in tmp/partial/ and outlives us */
	struct hasher *sha256, *sha512;
	uint64_t offset;	 /* bytes taken */
	uint64_t writeback_from; /* bytes before this were sent on their way to the disk */
	struct blob_info info;	 /* once judged */
};

/* ---- the file ------------------------------------------------------------------------------------------------------ */

/* Open tmp/partial/<algorithm>-<hex> and lock it. Returns a descriptor; -EWOULDBLOCK another process is at it;
 * -EAGAIN the file changed under us. */
static int open_partial(int dirfd, const char *name)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	struct stat here, there;

	if (fd < 0 && errno == EACCES) { /* 0444: a process died just before it gave the blob its name */
		(void)unlinkat(dirfd, name, 0);
		return -EAGAIN;
	}
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -EWOULDBLOCK; /* also where there are no locks: then a file of one's own is the safe way */
	if (fstat(fd, &here) < 0 || fstatat(dirfd, name, &there, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	if (here.st_ino != there.st_ino || here.st_dev != there.st_dev)
		return -EAGAIN;
	/* A second name is a blob's: to write here would change the blob. For root, 0444 is no hindrance above. */
	if (!S_ISREG(here.st_mode) || here.st_nlink != 1 || !(here.st_mode & S_IWUSR)) {
		(void)unlinkat(dirfd, name, 0);
		return -EAGAIN;
	}
	return take_fd(&fd);
}

/* Where an interrupted download of these bytes would lie. NULL when no digest is expected or memory is out. */
static char *partial_name(const struct blob_expectation *expected)
{
	const struct digest *d = expected->sha256.algorithm ? &expected->sha256 : &expected->sha512;
	char hex[DIGEST_HEX_SIZE], *name = NULL;

	if (d->algorithm == DIGEST_NONE || !expected->keep_partial)
		return NULL;
	return asprintf(&name, "%s-%s", digest_algorithm_name(d->algorithm), digest_hex(d, hex)) < 0 ? NULL : name;
}

static int open_file(struct blob_writer *w, struct err *e)
{
	_cleanup_free_ char *name = partial_name(&w->expected);

	w->dirfd = w->publisher->partial_fd;
	for (unsigned attempt = 0; name && attempt < 10; attempt++) {
		w->fd = open_partial(w->dirfd, name);
		if (w->fd >= 0) {
			w->is_partial = true;
			w->name = take_ptr(name);
			return 0;
		}
		if (w->fd != -EAGAIN)
			break;
	}
	free(take_ptr(name));
	w->dirfd = w->publisher->work_fd;
	w->name = publisher_fresh_name(w->publisher, "blob");
	if (!w->name)
		return err_set(e, -ENOMEM, "out of memory");
	w->fd = openat(w->dirfd, w->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (w->fd < 0)
		return err_set_host(e, -errno, "cannot create a temporary file in `%s/tmp`", w->publisher->store.path);
	return 0;
}

/* ---- hashing ------------------------------------------------------------------------------------------------------- */

static int start_hashers(struct blob_writer *w, struct err *e)
{
	int r;

	hasher_freep(&w->sha256);
	w->sha256 = NULL;
	hasher_freep(&w->sha512);
	w->sha512 = NULL;
	r = hasher_new(DIGEST_SHA256, &w->sha256, e);
	if (r == 0 && (w->expected.want_sha512 || w->expected.sha512.algorithm != DIGEST_NONE))
		r = hasher_new(DIGEST_SHA512, &w->sha512, e);
	return r;
}

static int hash(struct blob_writer *w, const void *bytes, size_t len, struct err *e)
{
	int r = hasher_update(w->sha256, bytes, len, e);

	if (r == 0 && w->sha512)
		r = hasher_update(w->sha512, bytes, len, e);
	return r;
}

/* Hash what the file holds from w->offset on. */
static int hash_file(struct blob_writer *w, uint64_t size_bytes, int cancel_fd, struct err *e)
{
	_cleanup_free_ char *chunk = malloc(CHUNK_BYTES);

	if (!chunk)
		return err_set(e, -ENOMEM, "out of memory");
	while (w->offset < size_bytes) {
		uint64_t left = size_bytes - w->offset;
		ssize_t n = pread_full(w->fd, chunk, left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES, w->offset);
		int r;

		if (n <= 0)
			return err_set_host(e, n < 0 ? (int)n : -EIO, "cannot read back %s", w->label);
		r = hash(w, chunk, (size_t)n, e);
		if (r == 0)
			r = cancel_check(cancel_fd, 0, e);
		if (r < 0)
			return r;
		w->offset += (uint64_t)n;
	}
	return 0;
}

/* ---- the writer ---------------------------------------------------------------------------------------------------- */

uint64_t blob_writer_offset(const struct blob_writer *w)
{
	return w->offset;
}

int blob_writer_restart(struct blob_writer *w, struct err *e)
{
	if (ftruncate(w->fd, 0) < 0)
		return err_set_host(e, -errno, "cannot empty a temporary file in `%s/tmp`", w->publisher->store.path);
	w->offset = w->writeback_from = 0;
	return start_hashers(w, e);
}

/* Go on from what an earlier process left. What is too long cannot be a beginning. */
static int adopt_partial(struct blob_writer *w, struct err *e)
{
	struct stat st;

	if (fstat(w->fd, &st) < 0)
		return err_set_host(e, -errno, "cannot stat a temporary file in `%s/tmp`", w->publisher->store.path);
	if ((uint64_t)st.st_size > w->expected.max_bytes || (uint64_t)st.st_size > w->expected.size_bytes)
		return blob_writer_restart(w, e);
	return hash_file(w, (uint64_t)st.st_size, -1, e);
}

int blob_writer_new(struct publisher *p, const struct blob_expectation *expected, struct blob_writer **ret,
	struct err *e)
{
	_cleanup_(blob_writer_freep) struct blob_writer *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	w->publisher = p;
	w->expected = *expected;
	w->fd = -1;
	w->label = strdup(expected->label ? expected->label : "a blob");
	if (!w->label)
		return err_set(e, -ENOMEM, "out of memory");
	w->expected.label = w->label;
	r = start_hashers(w, e);
	if (r == 0)
		r = open_file(w, e);
	if (r == 0 && w->is_partial)
		r = adopt_partial(w, e);
	if (r < 0)
		return r;
	/* Say now that there is no room, not after an hour. Other failures only mean that it cannot be told. */
	if (expected->size_bytes != BLOB_SIZE_UNKNOWN && expected->size_bytes > w->offset &&
		fallocate(w->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)expected->size_bytes) < 0 &&
		(errno == ENOSPC || errno == EDQUOT || errno == EFBIG))
		return err_set_host(e, -errno, "no room in `%s` for the %llu bytes of %s", p->store.path,
			(unsigned long long)expected->size_bytes, w->label);
	*ret = take_ptr(w);
	return 0;
}

/* Would `len` more bytes still be what was expected? */
static int check_room(const struct blob_writer *w, uint64_t len, struct err *e)
{
	uint64_t end;

	if (!checked_add_u64(w->offset, len, &end) || end > INT64_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "%s has no end", w->label);
	if (end > w->expected.size_bytes)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "%s is larger than the %llu bytes that it should have", w->label,
			(unsigned long long)w->expected.size_bytes);
	if (end > w->expected.max_bytes)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "%s is larger than the limit of %llu bytes", w->label,
			(unsigned long long)w->expected.max_bytes);
	return 0;
}

int blob_writer_write(struct blob_writer *w, const void *bytes, size_t len, struct err *e)
{
	int r = check_room(w, len, e);

	if (r < 0)
		return r;
	r = pwrite_full(w->fd, bytes, len, w->offset);
	if (r < 0)
		return err_set_host(e, r, "cannot write %s into the cache `%s` (%llu bytes came so far)", w->label,
			w->publisher->store.path, (unsigned long long)w->offset);
	r = hash(w, bytes, len, e);
	if (r < 0)
		return r;
	w->offset += len;
	if (w->offset - w->writeback_from >= WRITEBACK_BYTES) { /* or the fsync at the end would have to wait for all */
		(void)sync_file_range(w->fd, (off_t)w->writeback_from, (off_t)(w->offset - w->writeback_from),
			SYNC_FILE_RANGE_WRITE);
		w->writeback_from = w->offset;
	}
	return 0;
}

static int check_digest(struct blob_writer *w, const struct digest *expected, const struct digest *found, struct err *e)
{
	char want[DIGEST_HEX_SIZE], have[DIGEST_HEX_SIZE];

	if (expected->algorithm == DIGEST_NONE || digest_equal(expected, found))
		return 0;
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s has the wrong %s: expected %s, found %s (%llu bytes)", w->label,
		digest_algorithm_name(expected->algorithm), digest_hex(expected, want), digest_hex(found, have),
		(unsigned long long)w->offset);
}

static int judge(struct blob_writer *w, struct blob_info *ret, struct err *e)
{
	struct blob_info info = { .size_bytes = w->offset };
	int r = hasher_finish(w->sha256, &info.sha256, e);

	if (r == 0 && w->sha512)
		r = hasher_finish(w->sha512, &info.sha512, e);
	if (r < 0)
		return r;
	if (w->expected.size_bytes != BLOB_SIZE_UNKNOWN && w->expected.size_bytes != w->offset)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s has the wrong size: expected %llu bytes, found %llu",
			w->label, (unsigned long long)w->expected.size_bytes, (unsigned long long)w->offset);
	r = check_digest(w, &w->expected.sha256, &info.sha256, e);
	if (r == 0)
		r = check_digest(w, &w->expected.sha512, &info.sha512, e);
	if (r == 0)
		*ret = info;
	return r;
}

int blob_writer_judge(struct blob_writer *w, struct blob_info *ret, struct err *e)
{
	struct err ignored = ERR_INIT;
	int r = judge(w, &w->info, e);

	if (r < 0) {
		if (blob_writer_restart(w, &ignored) < 0)
			w->offset = 0;
		return r;
	}
	*ret = w->info;
	return 0;
}

/* Make one judged file durable and read-only. (pool) */
static int seal(void *ctx, size_t i, struct err *e)
{
	struct blob_writer *w = ((struct blob_writer *const *)ctx)[i];

	/* The size is set for files that end in a hole, and to drop what fallocate() took too much. */
	if (ftruncate(w->fd, (off_t)w->offset) < 0 || fchmod(w->fd, 0444) < 0 || fsync(w->fd) < 0)
		return err_set_host(e, -errno, "cannot write %s into the cache `%s` (%llu bytes)", w->label,
			w->publisher->store.path, (unsigned long long)w->offset);
	return 0;
}

/* The folders of the cache whose names changed, to be synced together. */
struct dirty_folders {
	struct publisher *publisher;
	struct strv paths;
};

static int add_dirty(struct dirty_folders *d, const char *path, size_t len, struct err *e)
{
	return strv_add_len(&d->paths, path, len) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

/* (pool) */
static int sync_dirty(void *ctx, size_t i, struct err *e)
{
	struct dirty_folders *d = ctx;

	return publisher_sync_folder(d->publisher, d->paths.items[i], e);
}

enum { ALGORITHM_FOLDER_LEN = sizeof("blobs/sha256") - 1, BLOB_FOLDER_LEN = sizeof("blobs/sha256/ab") - 1 };

/* Remember which SHA-256 has this SHA-512, as a link that only readlink() reads. */
static int link_sha512(struct publisher *p, const struct blob_info *info, struct dirty_folders *dirty, struct err *e)
{
	char path[STORE_BLOB_PATH_SIZE], blob[STORE_BLOB_PATH_SIZE], target[STORE_BLOB_PATH_SIZE + sizeof("../../")];
	char found[sizeof(target)], folder[BLOB_FOLDER_LEN + 1];
	_cleanup_free_ char *temp = NULL;
	bool made = false;
	ssize_t n;
	int r;

	(void)store_blob_relative_path(&info->sha512, path);
	(void)store_blob_relative_path(&info->sha256, blob);
	(void)snprintf(target, sizeof(target), "../../%s", blob + strlen("blobs/"));
	(void)snprintf(folder, sizeof(folder), "%.*s", BLOB_FOLDER_LEN, path);
	r = publisher_make_folder(p, folder, &made, e);
	if (r == 0 && made)
		r = add_dirty(dirty, path, ALGORITHM_FOLDER_LEN, e);
	if (r == 0)
		r = add_dirty(dirty, path, BLOB_FOLDER_LEN, e);
	if (r < 0)
		return r;
	if (symlinkat(target, p->store.root_fd, path) == 0)
		return 0;
	if (errno != EEXIST)
		return err_set_host(e, -errno, "cannot create the link `%s/%s`", p->store.path, path);
	n = readlinkat(p->store.root_fd, path, found, sizeof(found));
	if (n >= 0 && (size_t)n == strlen(target) && memcmp(found, target, (size_t)n) == 0)
		return 0;
	temp = publisher_fresh_name(p, "link");
	if (!temp)
		return err_set(e, -ENOMEM, "out of memory");
	if (symlinkat(target, p->work_fd, temp) < 0 || renameat(p->work_fd, temp, p->store.root_fd, path) < 0)
		return err_set_host(e, -errno, "cannot replace the damaged link `%s/%s`", p->store.path, path);
	return 0;
}

/* Give one sealed file its name. */
static int place(struct blob_writer *w, struct dirty_folders *dirty, struct err *e)
{
	char path[STORE_BLOB_PATH_SIZE];
	bool made = false;
	int r = publisher_place_file(w->publisher, w->dirfd, w->name, store_blob_relative_path(&w->info.sha256, path),
		w->offset, &made, e);

	if (r == 0 && made)
		r = add_dirty(dirty, path, ALGORITHM_FOLDER_LEN, e);
	/* Also when the blob was there already: whoever published it may not have come to this yet. */
	if (r == 0)
		r = add_dirty(dirty, path, BLOB_FOLDER_LEN, e);
	if (r < 0)
		return r;
	free(take_ptr(w->name));
	if (close(take_fd(&w->fd)) < 0) /* after fsync; still the place where some filesystems report */
		return err_set_host(e, -errno, "cannot close the blob `%s/%s`", w->publisher->store.path, path);
	return w->info.sha512.algorithm == DIGEST_NONE ? 0 : link_sha512(w->publisher, &w->info, dirty, e);
}

int blob_writers_publish(struct blob_writer *const *writers, size_t n, struct err *e)
{
	struct dirty_folders dirty = { .publisher = n ? writers[0]->publisher : NULL };
	int r = pool_run(n < SYNC_THREADS ? (unsigned)n : SYNC_THREADS, n, seal, (void *)(uintptr_t)writers, e);

	for (size_t i = 0; i < n && r == 0; i++)
		r = place(writers[i], &dirty, e);
	/* From here on a file may be a blob, even when something failed afterwards: it is not to be written to. */
	for (size_t i = 0; i < n; i++)
		close_fdp(&writers[i]->fd);
	if (r == 0) {
		strv_sort(&dirty.paths);
		strv_uniq(&dirty.paths);
		n = dirty.paths.n;
		r = pool_run(n < SYNC_THREADS ? (unsigned)n : SYNC_THREADS, n, sync_dirty, &dirty, e);
	}
	strv_release(&dirty.paths);
	return r;
}

int blob_writer_finish(struct blob_writer *w, struct blob_info *ret, struct err *e)
{
	struct blob_info info;
	int r = blob_writer_judge(w, &info, e);

	if (r == 0)
		r = blob_writers_publish(&w, 1, e);
	if (r == 0)
		*ret = info;
	return r;
}

void blob_writer_free(struct blob_writer *w)
{
	int saved = errno;

	if (!w)
		return;
	if (w->name && !(w->is_partial && w->offset > 0))
		(void)unlinkat(w->dirfd, w->name, 0);
	else if (w->name && w->fd >= 0) /* what was taken beyond the bytes that came */
		(void)!ftruncate(w->fd, (off_t)w->offset);
	close_fdp(&w->fd);
	hasher_freep(&w->sha256);
	hasher_freep(&w->sha512);
	free(w->name);
	free(w->label);
	free(w);
	errno = saved;
}

/* ---- from files and memory ------------------------------------------------------------------------------------------ */

static bool all_zero(const char *bytes, size_t len)
{
	return len > 0 && bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

/* Copy by reading; blocks of zeros stay holes. */
static int copy_by_reading(struct blob_writer *w, int fd, int cancel_fd, struct err *e)
{
	_cleanup_free_ char *chunk = malloc(CHUNK_BYTES);

	if (!chunk)
		return err_set(e, -ENOMEM, "out of memory");
	for (;;) {
		ssize_t n = pread_full(fd, chunk, CHUNK_BYTES, w->offset);
		int r;

		if (n < 0)
			return err_set_errno(e, (int)n, "cannot read %s at byte %llu", w->label, (unsigned long long)w->offset);
		if (n == 0)
			return 0;
		if (all_zero(chunk, (size_t)n)) {
			r = check_room(w, (uint64_t)n, e);
			if (r == 0)
				r = hash(w, chunk, (size_t)n, e);
			if (r == 0)
				w->offset += (uint64_t)n;
		} else {
			r = blob_writer_write(w, chunk, (size_t)n, e);
		}
		if (r == 0)
			r = cancel_check(cancel_fd, 0, e);
		if (r < 0)
			return r;
	}
}

int publish_blob_from_fd(struct publisher *p, int fd, const struct blob_expectation *expected, int cancel_fd,
	struct blob_info *ret, struct err *e)
{
	_cleanup_(blob_writer_freep) struct blob_writer *w = NULL;
	struct blob_expectation fresh = *expected;
	struct stat st;
	int r;

	fresh.keep_partial = false;
	fresh.size_bytes = BLOB_SIZE_UNKNOWN; /* no fallocate: the file may have holes, or be reflinked */
	r = blob_writer_new(p, &fresh, &w, e);
	if (r < 0)
		return r;
	w->expected.size_bytes = expected->size_bytes;
	if (ioctl(w->fd, FICLONE, fd) == 0) {
		if (fstat(w->fd, &st) < 0)
			return err_set_host(e, -errno, "cannot stat a temporary file in `%s/tmp`", p->store.path);
		r = check_room(w, (uint64_t)st.st_size, e);
		if (r == 0)
			r = hash_file(w, (uint64_t)st.st_size, cancel_fd, e);
	} else {
		r = copy_by_reading(w, fd, cancel_fd, e);
	}
	return r < 0 ? r : blob_writer_finish(w, ret, e);
}

int publish_blob_bytes(struct publisher *p, const void *bytes, size_t len, const char *label, struct blob_info *ret,
	struct err *e)
{
	_cleanup_(blob_writer_freep) struct blob_writer *w = NULL;
	struct blob_expectation expected = BLOB_EXPECTATION_INIT;
	int r;

	expected.label = label;
	r = blob_writer_new(p, &expected, &w, e);
	if (r == 0)
		r = blob_writer_write(w, bytes, len, e);
	return r < 0 ? r : blob_writer_finish(w, ret, e);
}

/* ---- what is there already ------------------------------------------------------------------------------------------ */

/* Take the name away from the file that was read, and from no other: somebody may have put the right one there meanwhile. */
static int remove_blob(struct publisher *p, const char *path, int fd, struct err *e)
{
	_cleanup_free_ char *aside = NULL;
	struct stat here, there;

	if (fstat(fd, &here) < 0 || fstatat(p->store.root_fd, path, &there, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : err_set_host(e, -errno, "cannot look at the blob `%s/%s`", p->store.path, path);
	if (here.st_ino != there.st_ino || here.st_dev != there.st_dev)
		return 0;
	aside = publisher_fresh_name(p, "damaged");
	if (!aside)
		return err_set(e, -ENOMEM, "out of memory");
	if ((renameat(p->store.root_fd, path, p->work_fd, aside) < 0 || unlinkat(p->work_fd, aside, 0) < 0) && errno != ENOENT)
		return err_set_host(e, -errno, "cannot remove the damaged blob `%s/%s`", p->store.path, path);
	return 0;
}

int blob_confirm(struct publisher *p, const struct digest *sha256, struct err *e)
{
	char path[STORE_BLOB_PATH_SIZE], expected[DIGEST_HEX_SIZE], hex[DIGEST_HEX_SIZE];
	_cleanup_close_ int fd = -1;
	struct digest found;
	int r = store_open_blob(&p->store, sha256, &fd, NULL, e);

	assert(sha256->algorithm == DIGEST_SHA256);
	if (r == 0)
		r = digest_fd(DIGEST_SHA256, fd, UINT64_MAX, &found, e);
	if (r < 0 || digest_equal(&found, sha256))
		return r;
	r = remove_blob(p, store_blob_relative_path(sha256, path), fd, e);
	if (r < 0)
		return r;
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the cache is damaged: `%s/%s` had the SHA-256 %s, not %s; it was removed",
		p->store.path, path, digest_hex(&found, hex), digest_hex(sha256, expected));
}
