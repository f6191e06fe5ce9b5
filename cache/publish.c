#include "cache/publish.h"
#include "cache/publisher.h"
#include "lib/io.h"

#include <assert.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* ---- temporary folders and files ----------------------------------------------------------------------------------- */

int temp_folder_new(struct publisher *p, const char *purpose, struct temp_folder *ret, struct err *e)
{
	_cleanup_temp_folder_ struct temp_folder t = TEMP_FOLDER_INIT;

	t.publisher = p;
	t.name = publisher_fresh_name(p, purpose);
	if (!t.name || asprintf(&t.path, "%s/tmp/%s/%s", p->store.path, p->work_name, t.name) < 0) {
		t.path = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	if (mkdirat(p->work_fd, t.name, 0700) < 0)
		return err_set_host(e, -errno, "cannot create the temporary folder `%s`", t.path);
	t.fd = openat(p->work_fd, t.name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (t.fd < 0)
		return err_set_host(e, -errno, "cannot open the temporary folder `%s`", t.path);
	*ret = t;
	t = (struct temp_folder)TEMP_FOLDER_INIT;
	return 0;
}

void temp_folder_release(struct temp_folder *t)
{
	int saved = errno;

	close_fdp(&t->fd);
	if (t->publisher && t->name)
		(void)remove_tree_at(t->publisher->work_fd, t->name);
	free(t->name);
	free(t->path);
	*t = (struct temp_folder)TEMP_FOLDER_INIT;
	errno = saved;
}

int publish_scratch_file(struct publisher *p, int *ret_fd, struct err *e)
{
	_cleanup_free_ char *name = NULL;
	int fd = openat(p->work_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	name = publisher_fresh_name(p, "scratch");
	if (!name)
		return err_set(e, -ENOMEM, "out of memory");
	fd = openat(p->work_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set_host(e, -errno, "cannot create a temporary file in `%s/tmp`", p->store.path);
	(void)unlinkat(p->work_fd, name, 0);
	*ret_fd = fd;
	return 0;
}

/* ---- making a folder ready ----------------------------------------------------------------------------------------- */

static int seal_file(int dirfd, const char *name, struct err *e)
{
	_cleanup_close_ int fd = -1;

	/* The mode first: whoever made the file may not have left itself the right to read it. */
	if (fchmodat(dirfd, name, 0444, 0) < 0)
		return err_set_host(e, -errno, "cannot make `%s` read-only", name);
	fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fsync(fd) < 0)
		return err_set_host(e, -errno, "cannot sync `%s`", name);
	return 0;
}

static int seal_folder(int dirfd, unsigned depth, size_t *n_files, struct err *e);

static int seal_item(int dirfd, const char *name, unsigned depth, size_t *n_files, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	int r;

	if (++*n_files > PUBLISH_FOLDER_MAX_FILES)
		return err_set(e, -E2BIG, "more than %d files are to be published in one folder", PUBLISH_FOLDER_MAX_FILES);
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set_host(e, -errno, "cannot stat `%s`", name);
	if (S_ISREG(st.st_mode))
		return seal_file(dirfd, name, e);
	if (!S_ISDIR(st.st_mode))
		return err_set(e, -EINVAL, "`%s` is neither a file nor a folder, so it cannot be published", name);
	if (depth >= PUBLISH_FOLDER_MAX_DEPTH)
		return err_set(e, -E2BIG, "folders to be published are nested deeper than %d", PUBLISH_FOLDER_MAX_DEPTH);
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_set_host(e, -errno, "cannot open `%s`", name);
	r = seal_folder(fd, depth + 1, n_files, e);
	if (r < 0)
		return err_wrap(e, "in `%s`", name);
	if (fchmod(fd, 0755) < 0 || fsync(fd) < 0)
		return err_set_host(e, -errno, "cannot sync the folder `%s`", name);
	return 0;
}

/* Make every file below dirfd durable and read-only. */
static int seal_folder(int dirfd, unsigned depth, size_t *n_files, struct err *e)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	dir = fd < 0 ? NULL : fdopendir(fd);
	if (!dir) {
		(void)err_set_host(e, -errno, "cannot list a folder that is to be published");
		close_fdp(&fd);
		return e->code;
	}
	while (errno = 0, (entry = readdir(dir))) {
		int r;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		r = seal_item(dirfd, entry->d_name, depth, n_files, e);
		if (r < 0)
			return r;
	}
	if (errno != 0)
		return err_set_host(e, -errno, "cannot list a folder that is to be published");
	return 0;
}

static int write_manifest(int dirfd, const void *manifest, size_t len, struct err *e)
{
	_cleanup_close_ int fd = openat(dirfd, STORE_MANIFEST, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0 && errno == EEXIST)
		return err_set(e, -EINVAL, "the folder to be published has a " STORE_MANIFEST " already");
	if (fd < 0)
		return err_set_host(e, -errno, "cannot create " STORE_MANIFEST);
	r = write_full(fd, manifest, len);
	if (r == 0 && (fchmod(fd, 0444) < 0 || fsync(fd) < 0))
		r = -errno;
	if (r == 0 && close(take_fd(&fd)) < 0)
		r = -errno;
	if (r < 0)
		return err_set_host(e, r, "cannot write " STORE_MANIFEST " (%zu bytes)", len);
	return 0;
}

/* ---- giving it its name -------------------------------------------------------------------------------------------- */

static bool valid_name(const char *name)
{
	size_t len = strnlen(name, STORE_NAME_MAX_BYTES);

	return len > 0 && len < STORE_NAME_MAX_BYTES && name[0] != '.' &&
		strspn(name, "0123456789abcdefghijklmnopqrstuvwxyz.-") == len;
}

static bool is_complete(const struct publisher *p, const char *folder)
{
	_cleanup_free_ char *manifest = NULL;
	struct stat st;

	if (asprintf(&manifest, "%s/" STORE_MANIFEST, folder) < 0) {
		manifest = NULL;
		return true; /* do not touch what we cannot judge */
	}
	return fstatat(p->store.root_fd, manifest, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* Rename a folder without replacing. rename(2) itself refuses to replace a folder that is not empty, and an empty one is no
 * entry: so that is the fallback where the filesystem has no RENAME_NOREPLACE. */
static int rename_folder_noreplace(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
	if (renameat2(from_dirfd, from, to_dirfd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
		return -errno;
	if (renameat(from_dirfd, from, to_dirfd, to) == 0)
		return 0;
	return errno == ENOTEMPTY || errno == ENOTDIR ? -EEXIST : -errno;
}

/* Put the folder in the place of something that is no entry, which lands among our temporary things. */
static int displace(struct publisher *p, const char *from, const char *to)
{
	_cleanup_free_ char *aside = NULL;

	if (renameat2(p->work_fd, from, p->store.root_fd, to, RENAME_EXCHANGE) == 0) {
		/* What came out lies under our name. Should it be a finished entry after all, published between the look
		 * and the exchange, then ours is as good: the same key. */
		(void)remove_tree_at(p->work_fd, from);
		return 0;
	}
	if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
		return -errno;
	aside = publisher_fresh_name(p, "aside");
	if (!aside)
		return -ENOMEM;
	if (renameat(p->store.root_fd, to, p->work_fd, aside) < 0 && errno != ENOENT)
		return -errno;
	return rename_folder_noreplace(p->work_fd, from, p->store.root_fd, to);
}

/* Give the sealed folder its name. Returns 0, 1 when an entry of that name was there, or -errno. */
static int place_folder(struct publisher *p, const char *from, const char *to)
{
	int r = -EEXIST;

	for (unsigned attempt = 0; attempt < 10 && r == -EEXIST; attempt++) {
		r = rename_folder_noreplace(p->work_fd, from, p->store.root_fd, to);
		if (r != -EEXIST)
			break;
		if (is_complete(p, to))
			return 1;
		r = displace(p, from, to);
	}
	return r;
}

/* Seal and write the manifest; on failure the manifest goes again, so that the caller can try once more. */
static int prepare_folder(struct temp_folder *t, const void *manifest, size_t manifest_len, struct err *e)
{
	size_t n_files = 0;
	struct stat st;
	int r;

	if (fstatat(t->fd, STORE_MANIFEST, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return err_set(e, -EINVAL, "the folder to be published has a " STORE_MANIFEST " already");
	r = seal_folder(t->fd, 0, &n_files, e);
	if (r < 0)
		return r;
	r = write_manifest(t->fd, manifest, manifest_len, e);
	if (r == 0 && (fchmod(t->fd, 0755) < 0 || fsync(t->fd) < 0))
		r = err_set_host(e, -errno, "cannot sync the folder `%s`", t->path);
	if (r < 0)
		(void)unlinkat(t->fd, STORE_MANIFEST, 0);
	return r;
}

/* The folder has its new name: forget it without removing anything. */
static void temp_folder_disarm(struct temp_folder *t)
{
	free(t->name);
	t->name = NULL;
	temp_folder_release(t);
}

/* Place a prepared folder. *ret_existed as in publish_folder(); then t still has its folder. */
static int place_and_sync(struct temp_folder *t, enum store_kind kind, const char *name, char **ret_path,
	bool *ret_existed, struct err *e)
{
	struct publisher *p = t->publisher;
	_cleanup_free_ char *to = NULL, *path = NULL;
	int r;

	if (asprintf(&to, "%s/%s", store_kind_folder(kind), name) < 0) {
		to = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	if (asprintf(&path, "%s/%s", p->store.path, to) < 0) {
		path = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	r = place_folder(p, t->name, to);
	if (r < 0)
		return err_set_host(e, r, "cannot publish `%s`", path);
	*ret_existed = r > 0;
	if (r == 0)
		temp_folder_disarm(t);
	r = publisher_sync_folder(p, store_kind_folder(kind), e);
	if (r < 0)
		return r;
	*ret_path = take_ptr(path);
	return 0;
}

int publish_folder(struct temp_folder *t, enum store_kind kind, const char *name, const void *manifest,
	size_t manifest_len, char **ret_path, bool *ret_existed, struct err *e)
{
	bool existed = false;
	int r;

	if (!valid_name(name))
		return err_set(e, -EINVAL, "`%s` cannot be the name of an entry", name);
	r = prepare_folder(t, manifest, manifest_len, e);
	if (r < 0)
		return err_wrap(e, "publishing %s/%s", store_kind_folder(kind), name);
	r = place_and_sync(t, kind, name, ret_path, &existed, e);
	if (r < 0) {
		if (t->fd >= 0)
			(void)unlinkat(t->fd, STORE_MANIFEST, 0);
		return r;
	}
	temp_folder_release(t);
	if (ret_existed)
		*ret_existed = existed;
	return 0;
}

int publish_entry(struct temp_folder *t, const struct digest *key, const void *manifest, size_t manifest_len,
	char **ret_path, bool *ret_existed, struct err *e)
{
	char hex[DIGEST_HEX_SIZE];

	return publish_folder(t, STORE_IMAGE, digest_hex(key, hex), manifest, manifest_len, ret_path, ret_existed, e);
}

/* The highest number that a failed build of this key has; 0: none. */
static int last_attempt(const struct store *s, const struct digest *key, unsigned *ret, struct err *e)
{
	_cleanup_store_listing_ struct store_listing list = { .items = NULL };
	unsigned last = 0;
	int r = store_list(s, STORE_FAILED, &list, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < list.n; i++)
		if (digest_equal(&list.items[i].key, key) && list.items[i].number > last)
			last = list.items[i].number;
	*ret = last;
	return 0;
}

int publish_failed(struct temp_folder *t, const struct digest *key, const void *manifest, size_t manifest_len,
	char **ret_path, struct err *e)
{
	enum { TRIES = 1000 };
	char hex[DIGEST_HEX_SIZE], name[STORE_NAME_MAX_BYTES];
	unsigned last = 0;
	bool existed = true;
	int r = last_attempt(&t->publisher->store, key, &last, e);

	if (r == 0)
		r = prepare_folder(t, manifest, manifest_len, e);
	if (r < 0)
		return err_wrap(e, "keeping the failed build");
	/* Somebody else may fail at the same time: then the next number. */
	for (unsigned i = 1; existed && i <= TRIES; i++) {
		(void)snprintf(name, sizeof(name), "%s-%u", digest_hex(key, hex), last + i);
		r = place_and_sync(t, STORE_FAILED, name, ret_path, &existed, e);
		if (r < 0)
			break;
		if (existed)
			free(take_ptr(*ret_path));
	}
	if (r == 0 && existed)
		r = err_set_kind(e, ERR_KIND_HOST, -EEXIST, "cannot find a free number for a failed build of %s", hex);
	if (r < 0 && t->fd >= 0)
		(void)unlinkat(t->fd, STORE_MANIFEST, 0);
	return r;
}

/* ---- small things -------------------------------------------------------------------------------------------------- */

int publish_state(struct publisher *p, const char *name, const void *bytes, size_t len, struct err *e)
{
	_cleanup_free_ char *temp = NULL, *to = NULL;
	_cleanup_close_ int fd = -1;
	int r;

	if (!valid_name(name) || len > STORE_STATE_MAX_BYTES)
		return err_set(e, -EINVAL, "`%s` (%zu bytes) cannot be kept in state/", name, len);
	temp = publisher_fresh_name(p, "state");
	if (!temp || asprintf(&to, "state/%s", name) < 0) {
		to = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	fd = openat(p->work_fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_set_host(e, -errno, "cannot create a temporary file in `%s/tmp`", p->store.path);
	/* Not fsynced: what a power cut loses here only costs time, and its readers tell a damaged file from a good one. */
	r = write_full(fd, bytes, len);
	if (r == 0 && close(take_fd(&fd)) < 0)
		r = -errno;
	if (r == 0 && renameat(p->work_fd, temp, p->store.root_fd, to) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(p->work_fd, temp, 0);
		return err_set_host(e, r, "cannot write `%s/%s`", p->store.path, to);
	}
	return 0;
}

int publish_remove(struct publisher *p, enum store_kind kind, const char *name, struct err *e)
{
	_cleanup_free_ char *from = NULL, *aside = NULL;
	int r;

	if (!valid_name(name))
		return err_set(e, -EINVAL, "`%s` cannot be the name of an entry", name);
	aside = publisher_fresh_name(p, "removed");
	if (!aside || asprintf(&from, "%s/%s", store_kind_folder(kind), name) < 0) {
		from = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	if (renameat(p->store.root_fd, from, p->work_fd, aside) < 0) {
		if (errno == ENOENT)
			return 0;
		return err_set_host(e, -errno, "cannot remove `%s/%s`", p->store.path, from);
	}
	r = remove_tree_at(p->work_fd, aside);
	if (r < 0)
		return err_set_host(e, r, "cannot remove what was `%s/%s`", p->store.path, from);
	return 0;
}
