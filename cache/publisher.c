#include "cache/publisher.h"
#include "cache/publish.h"
#include "lib/io.h"

#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

/* ---- errors and cancelling --------------------------------------------------------------------------------------- */

int err_add_host_advice(struct err *e, int code)
{
	size_t used = strlen(e->message);
	const char *advice = "";

	if (code == -ENOSPC || code == -EDQUOT)
		advice = "; make room there (failed builds below failed/ can be deleted) or give --cache a folder on a larger "
			 "filesystem";
	else if (code == -EFBIG)
		advice = "; the limit on file sizes (ulimit -f) or the filesystem does not allow it";
	else if (code == -EROFS || code == -EACCES || code == -EPERM)
		advice = "; give --cache a folder you can write to";
	(void)snprintf(e->message + used, sizeof(e->message) - used, "%s", advice);
	(void)err_default_kind(e, ERR_KIND_HOST);
	return code;
}

int cancel_check(int cancel_fd, int timeout_ms, struct err *e)
{
	struct pollfd p = { .fd = cancel_fd, .events = POLLIN };

	if (cancel_fd < 0 && timeout_ms == 0)
		return 0;
	/* A negative descriptor is ignored by poll, so that this waits in either case. EINTR counts as waiting's end. */
	if (poll(&p, 1, timeout_ms) > 0 && p.revents != 0)
		return err_set(e, -ECANCELED, "interrupted");
	return 0;
}

/* ---- whose temporary things ---------------------------------------------------------------------------------------- */

static void tag_of(const char *text, size_t len, char tag[static 9])
{
	struct err ignored = ERR_INIT;
	struct digest d = { .algorithm = DIGEST_NONE };
	char hex[DIGEST_HEX_SIZE] = "00000000";

	if (digest_bytes(DIGEST_SHA256, text, len, &d, &ignored) == 0)
		(void)digest_hex(&d, hex);
	(void)snprintf(tag, 9, "%.8s", hex);
}

static void read_small(const char *path, struct buf *into)
{
	struct err ignored = ERR_INIT;

	if (read_file_at(AT_FDCWD, path, true, into, &ignored) < 0)
		buf_reset(into);
}

static void host_tag_init(struct host_tag *ret)
{
	struct buf machine = BUF_INIT(256), boot = BUF_INIT(256);
	char machine_tag[9], boot_tag[9];

	read_small("/etc/machine-id", &machine);
	if (machine.len < 32) { /* containers often have none */
		buf_reset(&machine);
		read_small("/proc/sys/kernel/hostname", &machine);
	}
	read_small("/proc/sys/kernel/random/boot_id", &boot);
	tag_of(buf_str(&machine), machine.len, machine_tag);
	tag_of(buf_str(&boot), boot.len, boot_tag);
	(void)snprintf(ret->text, sizeof(ret->text), "%s.%s", machine_tag, boot_tag);
	buf_release(&machine);
	buf_release(&boot);
}

/* Take the lock of a file that may be litter. Returns a descriptor that holds it, -EWOULDBLOCK when somebody alive
 * has it, another -errno when that cannot be told. */
static int lock_litter(int dirfd, const char *name)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -errno;
	return take_fd(&fd);
}

static bool older_than(int dirfd, const char *name, int64_t age_s)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && time(NULL) - st.st_mtim.tv_sec > age_s;
}

/* tmp/<id>.lock: remove it and tmp/<id>/ when no process holds it. */
static void sweep_place(const struct publisher *p, const char *lock_name)
{
	_cleanup_close_ int lock = -1;
	_cleanup_free_ char *id = strndup(lock_name, strlen(lock_name) - strlen(".lock"));
	bool ours = strncmp(lock_name, p->host.text, strlen(p->host.text)) == 0;

	if (!id)
		return;
	if (!ours && !older_than(p->tmp_fd, lock_name, PUBLISH_FOREIGN_LITTER_AGE_S))
		return;
	lock = lock_litter(p->tmp_fd, lock_name);
	if (lock == -EWOULDBLOCK || lock == -ENOENT)
		return;
	if (lock < 0 && !older_than(p->tmp_fd, lock_name, PUBLISH_FOREIGN_LITTER_AGE_S))
		return;
	/* The tree first: a folder without a lock file is litter to everybody, a lock without a folder is a beginning. */
	if (remove_tree_at(p->tmp_fd, id) == 0)
		(void)unlinkat(p->tmp_fd, lock_name, 0);
}

static void sweep_partials(const struct publisher *p)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	int fd = openat(p->partial_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		close_fdp(&fd);
		return;
	}
	while ((entry = readdir(dir))) {
		_cleanup_close_ int lock = -1;

		if (entry->d_name[0] == '.' || !older_than(p->partial_fd, entry->d_name, PUBLISH_PARTIAL_AGE_S))
			continue;
		lock = lock_litter(p->partial_fd, entry->d_name);
		if (lock != -EWOULDBLOCK)
			(void)remove_tree_at(p->partial_fd, entry->d_name);
	}
}

static bool has_suffix(const char *s, const char *suffix)
{
	size_t len = strlen(s), n = strlen(suffix);

	return len > n && strcmp(s + len - n, suffix) == 0;
}

/* Remove what dead processes left in tmp/. What cannot be removed stays: it does no harm but to space. */
static void sweep(const struct publisher *p)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	int fd = openat(p->tmp_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		close_fdp(&fd);
		return;
	}
	while ((entry = readdir(dir))) {
		const char *name = entry->d_name;
		_cleanup_free_ char *lock_name = NULL;

		if (name[0] == '.' || strcmp(name, "partial") == 0)
			continue;
		if (has_suffix(name, ".lock")) {
			sweep_place(p, name);
			continue;
		}
		if (asprintf(&lock_name, "%s.lock", name) < 0) {
			lock_name = NULL;
			return;
		}
		/* A place's lock is made before its folder and goes after it. What has none is nobody's; it may not even
		 * be ours, so give it the time that strangers get. */
		if (faccessat(p->tmp_fd, lock_name, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT &&
			(strncmp(name, p->host.text, strlen(p->host.text)) == 0 ||
				older_than(p->tmp_fd, name, PUBLISH_FOREIGN_LITTER_AGE_S)))
			(void)remove_tree_at(p->tmp_fd, name);
	}
	sweep_partials(p);
}

/* Try to take the place tmp/<id>/. Returns 0; 1 somebody has that name or swept it meanwhile; -errno. */
static int try_place(struct publisher *p, const char *id, struct err *e)
{
	_cleanup_free_ char *lock_name = NULL;
	_cleanup_close_ int lock = -1;
	struct stat st;

	if (asprintf(&lock_name, "%s.lock", id) < 0) {
		lock_name = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	lock = openat(p->tmp_fd, lock_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (lock < 0 && errno == EEXIST)
		return 1;
	if (lock < 0)
		return err_set_host(e, -errno, "cannot create `%s/tmp/%s`", p->store.path, lock_name);
	/* Between creating and locking it a sweeper can take it for litter: then it is gone or locked. A filesystem
	 * without locks goes on without; there litter stays for PUBLISH_FOREIGN_LITTER_AGE_S. */
	if (flock(lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return 1;
	if (fstat(lock, &st) < 0)
		return err_set_host(e, -errno, "cannot stat `%s/tmp/%s`", p->store.path, lock_name);
	if (st.st_nlink == 0)
		return 1;
	if (mkdirat(p->tmp_fd, id, 0700) < 0) {
		(void)err_set_host(e, -errno, "cannot create the folder `%s/tmp/%s`", p->store.path, id);
		(void)unlinkat(p->tmp_fd, lock_name, 0);
		return e->code;
	}
	p->lock_fd = take_fd(&lock);
	return 0;
}

static int take_place(struct publisher *p, struct err *e)
{
	for (unsigned attempt = 0; attempt < 100; attempt++) {
		_cleanup_free_ char *id = NULL;
		uint32_t random = 0;
		int r;

		if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
			random = attempt; /* O_EXCL finds the collisions */
		if (asprintf(&id, "%s-%d-%08x", p->host.text, (int)getpid(), random) < 0) {
			id = NULL;
			return err_set(e, -ENOMEM, "out of memory");
		}
		r = try_place(p, id, e);
		if (r > 0)
			continue;
		if (r < 0)
			return r;
		p->work_name = take_ptr(id);
		p->work_fd = openat(p->tmp_fd, p->work_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (p->work_fd < 0)
			return err_set_host(e, -errno, "cannot open `%s/tmp/%s`", p->store.path, p->work_name);
		return 0;
	}
	return err_set_kind(e, ERR_KIND_HOST, -EEXIST, "cannot find a free name in `%s/tmp`", p->store.path);
}

/* ---- opening and closing ------------------------------------------------------------------------------------------- */

static int open_folder(struct publisher *p, const char *name, int *ret_fd, struct err *e)
{
	int fd = openat(p->store.root_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return err_set_host(e, -errno, "cannot open the folder `%s/%s`", p->store.path, name);
	*ret_fd = fd;
	return 0;
}

static int make_layout(struct publisher *p, struct err *e)
{
	static const char *const folders[] = { "blobs", "blobs/sha256", "blobs/sha512", "roots", "stages", "images",
		"failed", "state", "locks", "tmp", "tmp/partial" };
	bool made = false;

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		if (mkdirat(p->store.root_fd, folders[i], 0755) == 0)
			made = true;
		else if (errno != EEXIST)
			return err_set_host(e, -errno, "cannot create the folder `%s/%s`", p->store.path, folders[i]);
	}
	if (made) {
		int r = publisher_sync_folder(p, ".", e);

		if (r == 0)
			r = publisher_sync_folder(p, "blobs", e);
		if (r < 0)
			return r;
	}
	return 0;
}

int publisher_open(const char *path, struct publisher **ret, struct err *e)
{
	_cleanup_publisher_ struct publisher *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->store = (struct store)STORE_INIT;
	p->tmp_fd = p->partial_fd = p->work_fd = p->lock_fd = -1;
	host_tag_init(&p->host);
	r = store_open(path, &p->store, e);
	if (r == 0 && p->store.root_fd < 0) {
		_cleanup_store_ struct store absent = p->store;

		p->store = (struct store)STORE_INIT;
		r = mkdir_parents_at(AT_FDCWD, absent.path, e);
		if (r < 0) {
			(void)err_add_host_advice(e, r);
			return r;
		}
		r = store_open(absent.path, &p->store, e);
		if (r == 0 && p->store.root_fd < 0)
			return err_set_kind(e, ERR_KIND_HOST, -ENOENT, "the cache folder `%s` vanished while it was made",
				absent.path);
	}
	if (r == 0)
		r = make_layout(p, e);
	if (r == 0)
		r = open_folder(p, "tmp", &p->tmp_fd, e);
	if (r == 0)
		r = open_folder(p, "tmp/partial", &p->partial_fd, e);
	if (r < 0)
		return r;
	sweep(p);
	r = take_place(p, e);
	if (r < 0)
		return r;
	*ret = take_ptr(p);
	return 0;
}

void publisher_close(struct publisher *p)
{
	if (!p)
		return;
	if (p->work_name) {
		_cleanup_free_ char *lock_name = NULL;

		close_fdp(&p->work_fd);
		if (remove_tree_at(p->tmp_fd, p->work_name) == 0 && asprintf(&lock_name, "%s.lock", p->work_name) >= 0)
			(void)unlinkat(p->tmp_fd, lock_name, 0);
	}
	close_fdp(&p->lock_fd);
	close_fdp(&p->partial_fd);
	close_fdp(&p->tmp_fd);
	store_release(&p->store);
	free(p->work_name);
	free(p);
}

const struct store *publisher_store(const struct publisher *p)
{
	return &p->store;
}

/* ---- giving names -------------------------------------------------------------------------------------------------- */

char *publisher_fresh_name(struct publisher *p, const char *purpose)
{
	char *name = NULL;

	if (asprintf(&name, "%s-%u", purpose, atomic_fetch_add(&p->counter, 1)) < 0)
		return NULL;
	return name;
}

int publisher_sync_folder(struct publisher *p, const char *path, struct err *e)
{
	_cleanup_close_ int fd = openat(p->store.root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) < 0)
		return err_set_host(e, -errno, "cannot sync the folder `%s/%s`", p->store.path, path);
	return 0;
}

/* "a/b/c" -> "a/b", "a" -> ".". */
static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
}

int publisher_make_folder(struct publisher *p, const char *path, bool *ret_made, struct err *e)
{
	if (mkdirat(p->store.root_fd, path, 0755) == 0)
		*ret_made = true;
	else if (errno != EEXIST)
		return err_set_host(e, -errno, "cannot create the folder `%s/%s`", p->store.path, path);
	return 0;
}

/* Rename a file without replacing. -EEXIST when the name is taken. Filesystems without RENAME_NOREPLACE get a link;
 * those without hard links a look and a rename, where two writers at the same instant replace equal bytes by equal
 * bytes. */
static int rename_file_noreplace(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
	struct stat st;

	if (renameat2(from_dirfd, from, to_dirfd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
		return -errno;
	if (linkat(from_dirfd, from, to_dirfd, to, 0) == 0) {
		(void)unlinkat(from_dirfd, from, 0);
		return 0;
	}
	if (errno == EEXIST)
		return -EEXIST;
	if (errno != EPERM && errno != ENOSYS && errno != EOPNOTSUPP && errno != EMLINK)
		return -errno;
	if (fstatat(to_dirfd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -EEXIST;
	return renameat(from_dirfd, from, to_dirfd, to) < 0 ? -errno : 0;
}

int publisher_place_file(struct publisher *p, int from_dirfd, const char *from, const char *to, uint64_t size_bytes,
	bool *ret_made, struct err *e)
{
	_cleanup_free_ char *parent = parent_of(to);
	struct stat st;
	int r;

	if (!parent)
		return err_set(e, -ENOMEM, "out of memory");
	r = publisher_make_folder(p, parent, ret_made, e);
	if (r < 0)
		return r;
	r = rename_file_noreplace(from_dirfd, from, p->store.root_fd, to);
	if (r == -EEXIST) {
		bool sound = fstatat(p->store.root_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
			(uint64_t)st.st_size == size_bytes;

		r = sound ? unlinkat(from_dirfd, from, 0) : renameat(from_dirfd, from, p->store.root_fd, to);
		r = r < 0 ? -errno : 0;
	}
	if (r < 0)
		return err_set_host(e, r, "cannot publish `%s/%s`", p->store.path, to);
	return 0;
}
