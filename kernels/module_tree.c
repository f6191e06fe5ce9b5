#include "kernels/module_tree.h"

#include "lib/io.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct module_tree {
	int dirfd;	 /* owned; -1 for a filesystem */
	struct ext4 *fs; /* borrowed */
	char *fs_path;
	struct strv paths;
};

void module_tree_free(struct module_tree *t)
{
	if (!t)
		return;
	close_fdp(&t->dirfd);
	free(t->fs_path);
	strv_release(&t->paths);
	free(t);
}

static struct module_tree *tree_new(void)
{
	struct module_tree *t = calloc(1, sizeof(*t));

	if (t)
		t->dirfd = -1;
	return t;
}

static int add_path(struct module_tree *t, const char *prefix, const char *name, struct err *e)
{
	if (t->paths.n >= MODULE_TREE_FILES_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the folder of modules holds more than %u files",
			MODULE_TREE_FILES_MAX);
	return strv_addf(&t->paths, "%s%s", prefix, name) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static int too_deep(struct err *e, const char *prefix)
{
	return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the folder of modules is more than %d levels deep at `%s`",
		MODULE_TREE_DEPTH_MAX, prefix);
}

/* ---- folders of the host ---- */

static int list_folder(struct module_tree *t, int dirfd, const char *prefix, unsigned depth, struct err *e);

static int list_one(struct module_tree *t, int dirfd, const char *name, const char *prefix, unsigned depth, struct err *e)
{
	_cleanup_close_ int sub = -1;
	_cleanup_free_ char *sub_prefix = NULL;
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_set_errno(e, -errno, "cannot look at `%s%s`", prefix, name);
	if (S_ISREG(st.st_mode))
		return add_path(t, prefix, name, e);
	if (!S_ISDIR(st.st_mode))
		return 0;
	if (depth >= MODULE_TREE_DEPTH_MAX)
		return too_deep(e, prefix);
	sub = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (sub < 0)
		return err_set_errno(e, -errno, "cannot open the folder `%s%s`", prefix, name);
	if (asprintf(&sub_prefix, "%s%s/", prefix, name) < 0) {
		sub_prefix = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	return list_folder(t, sub, sub_prefix, depth + 1, e);
}

static int list_folder(struct module_tree *t, int dirfd, const char *prefix, unsigned depth, struct err *e)
{
	_cleanup_closedir_ DIR *dir = NULL;
	_cleanup_close_ int own = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;

	if (own < 0)
		return err_set_errno(e, -errno, "cannot open the folder `%s`", prefix);
	dir = fdopendir(own);
	if (!dir)
		return err_set_errno(e, -errno, "cannot list the folder `%s`", prefix);
	own = -1;
	while ((errno = 0, entry = readdir(dir))) {
		int r;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		r = list_one(t, dirfd, entry->d_name, prefix, depth, e);
		if (r < 0)
			return r;
	}
	return errno ? err_set_errno(e, -errno, "cannot list the folder `%s`", prefix) : 0;
}

static bool is_release_folder(int dirfd)
{
	static const char *const marks[] = { "kernel", "modules.order", "modules.builtin", "modules.dep" };
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(marks); i++)
		if (fstatat(dirfd, marks[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	return false;
}

/* Collect the names of folders in `path` beneath dirfd that are modules of a release. */
static int find_releases(int top_fd, const char *path, struct strv *ret)
{
	_cleanup_closedir_ DIR *dir = NULL;
	_cleanup_close_ int fd = openat(top_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	dir = fdopendir(fd);
	if (!dir)
		return -errno;
	fd = -1;
	while ((entry = readdir(dir))) {
		_cleanup_close_ int sub = -1;

		if (entry->d_name[0] == '.')
			continue;
		sub = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub >= 0 && is_release_folder(sub) && strv_addf(ret, "%s/%s", path, entry->d_name) < 0)
			return -ENOMEM;
	}
	return 0;
}

static bool is_of_release(const char *path, const char *release)
{
	const char *slash = strrchr(path, '/');

	return strcmp(slash ? slash + 1 : path, release) == 0;
}

/* Choose the folder of the release beneath dirfd: *ret_path gets its relative path (malloc'ed). */
static int choose_folder(int dirfd, const char *release, char **ret_path, struct err *e)
{
	static const char *const places[] = { "lib/modules", "usr/lib/modules", "." };
	_cleanup_strv_ struct strv found = { 0 };
	_cleanup_buf_ struct buf list = BUF_INIT(1024);
	const char *chosen = NULL;
	int r = 0;

	if (is_release_folder(dirfd)) {
		*ret_path = strdup(".");
		return *ret_path ? 0 : err_set(e, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(places) && found.n == 0; i++)
		r = find_releases(dirfd, places[i], &found);
	if (r < 0)
		return err_set_errno(e, r, "cannot look for modules");
	strv_sort(&found);
	for (size_t i = 0; i < found.n; i++) {
		if (release && release[0] ? is_of_release(found.items[i], release) : found.n == 1)
			chosen = found.items[i];
		if (buf_appendf(&list, "%s`%s`", i ? ", " : "", found.items[i]) < 0)
			break; /* the list is long enough */
	}
	if (chosen) {
		*ret_path = strdup(chosen);
		return *ret_path ? 0 : err_set(e, -ENOMEM, "out of memory");
	}
	if (found.n == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT,
			"there are no kernel modules in the folder: neither `kernel` nor modules.order nor lib/modules/RELEASE");
	if (release && release[0])
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "the folder has no modules of kernel %s, it has %s", release,
			buf_str(&list));
	return err_set_kind(e, ERR_KIND_INPUT, -ENOTUNIQ,
		"the folder has modules of several kernels, and the kernel does not tell its release: %s", buf_str(&list));
}

int module_tree_open_dir(int dirfd, const char *release, struct module_tree **ret, struct err *e)
{
	_cleanup_module_tree_ struct module_tree *t = tree_new();
	_cleanup_free_ char *path = NULL;
	int r;

	if (!t)
		return err_set(e, -ENOMEM, "out of memory");
	r = choose_folder(dirfd, release, &path, e);
	if (r < 0)
		return r;
	t->dirfd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dirfd < 0)
		return err_set_errno(e, -errno, "cannot open the folder of modules `%s`", path);
	r = list_folder(t, t->dirfd, "", 0, e);
	if (r < 0)
		return err_wrap(e, "listing the modules in `%s`", path);
	strv_sort(&t->paths);
	*ret = take_ptr(t);
	return 0;
}

/* ---- folders of a filesystem ---- */

static int list_inode(struct module_tree *t, uint32_t inode, const char *prefix, unsigned depth, struct err *e)
{
	_cleanup_ext4_dir_ struct ext4_dir dir = { 0 };
	int r = ext4_list_inode(t->fs, inode, &dir, e);

	for (size_t i = 0; r == 0 && i < dir.n; i++) {
		const struct ext4_dirent *d = &dir.items[i];
		_cleanup_free_ char *sub_prefix = NULL;

		if (S_ISREG(d->st.mode)) {
			r = add_path(t, prefix, d->name, e);
		} else if (S_ISDIR(d->st.mode)) {
			if (depth >= MODULE_TREE_DEPTH_MAX)
				return too_deep(e, prefix);
			if (asprintf(&sub_prefix, "%s%s/", prefix, d->name) < 0) {
				sub_prefix = NULL;
				return err_set(e, -ENOMEM, "out of memory");
			}
			r = list_inode(t, d->st.inode, sub_prefix, depth + 1, e);
		}
	}
	return r;
}

int module_tree_open_ext4(struct ext4 *fs, const char *path, struct module_tree **ret, struct err *e)
{
	_cleanup_module_tree_ struct module_tree *t = tree_new();
	struct ext4_stat st;
	int r;

	if (!t)
		return err_set(e, -ENOMEM, "out of memory");
	t->fs = fs;
	t->fs_path = strdup(path);
	if (!t->fs_path)
		return err_set(e, -ENOMEM, "out of memory");
	r = ext4_stat(fs, path, &st, e);
	if (r < 0)
		return r;
	if (!S_ISDIR(st.mode))
		return err_set_kind(e, ERR_KIND_INPUT, -ENOTDIR, "`%s` is not a folder", path);
	r = list_inode(t, st.inode, "", 0, e);
	if (r < 0)
		return err_wrap(e, "listing the modules in `%s`", path);
	strv_sort(&t->paths);
	*ret = take_ptr(t);
	return 0;
}

/* ---- both ---- */

const struct strv *module_tree_paths(const struct module_tree *t)
{
	return &t->paths;
}

static int compare_paths(const void *key, const void *item)
{
	return strcmp(key, *(char *const *)item);
}

bool module_tree_has(const struct module_tree *t, const char *path)
{
	return t->paths.n > 0 && bsearch(path, t->paths.items, t->paths.n, sizeof(char *), compare_paths);
}

int module_tree_dirfd(const struct module_tree *t)
{
	return t->dirfd;
}

int module_tree_read(struct module_tree *t, const char *path, struct buf *into, struct err *e)
{
	_cleanup_free_ char *full = NULL;

	if (!module_tree_has(t, path))
		return err_set(e, -ENOENT, "there is no `%s` among the modules", path);
	if (t->dirfd >= 0)
		return read_file_at(t->dirfd, path, false, into, e);
	if (asprintf(&full, "%s/%s", t->fs_path, path) < 0) {
		full = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	return ext4_read_file(t->fs, full, into, e);
}

int module_tree_digest(struct module_tree *t, struct digest *ret, struct err *e)
{
	_cleanup_(hasher_freep) struct hasher *h = NULL;
	int r = hasher_new(DIGEST_SHA256, &h, e);

	for (size_t i = 0; r == 0 && i < t->paths.n; i++) {
		_cleanup_buf_ struct buf bytes = BUF_INIT(MODULE_FILE_MAX_BYTES);
		const char *path = t->paths.items[i];
		char hex[DIGEST_HEX_SIZE];
		struct digest d;

		r = module_tree_read(t, path, &bytes, e);
		if (r == 0)
			r = digest_bytes(DIGEST_SHA256, buf_str(&bytes), bytes.len, &d, e);
		if (r == 0)
			r = hasher_update(h, path, strlen(path) + 1, e);
		if (r == 0)
			r = hasher_update(h, digest_hex(&d, hex), DIGEST_SHA256_HEX_SIZE - 1, e);
		if (r == 0)
			r = hasher_update(h, "\n", 1, e);
	}
	return r < 0 ? err_wrap(e, "digesting the modules") : hasher_finish(h, ret, e);
}
