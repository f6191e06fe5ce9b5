#include "initrd/init/files.h"
#include "initrd/init/users.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY_SUFFIX ".imgbuild-new"
#define DEPTH_MAX 128

/* The reason for an errno of a change to the image. */
static const char *reason_of(int error)
{
	return error == ENOSPC || error == EDQUOT ? "enospc" : "exit";
}

static int fail_errno(struct fail *f, const char *doing, const char *path)
{
	int error = errno;

	f->exit = f->reason[0] ? f->exit : 1;
	return fail_set(f, reason_of(error), "cannot %s `%s` in the image: %s", doing, path, strerror(error));
}

int files_make_parents(const char *path, struct fail *f)
{
	char copy[4096];
	struct stat st;

	if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
		return fail_set(f, "exit", "the path `%.64s…` is too long", path);
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return fail_errno(f, "make the folder", copy);
		if (stat(copy, &st) < 0 || !S_ISDIR(st.st_mode))
			return fail_set(f, "exit", "cannot put `%s` into the image: `%s` is no folder there",
				path, copy);
		*slash = '/';
	}
	return 0;
}

/* Copy all of src_fd. Returns 0 or -1 with errno. */
static int copy_bytes(int src_fd, int dst_fd)
{
	for (;;) {
		ssize_t n = sendfile(dst_fd, src_fd, NULL, 1 << 20);

		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -1;
	}
}

int files_replace(const char *path, mode_t mode, uid_t uid, gid_t gid, int src_fd, const char *bytes,
	size_t len, struct fail *f)
{
	char temporary[4096];
	struct stat st;
	int fd, r = 0;

	if (snprintf(temporary, sizeof(temporary), "%s" TEMPORARY_SUFFIX, path) >= (int)sizeof(temporary))
		return fail_set(f, "exit", "the path `%.64s…` is too long", path);
	if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return fail_set(f, "exit", "cannot put a file at `%s`: it is a folder in the image", path);
	(void)unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail_errno(f, "make", path);
	if (src_fd >= 0) {
		r = copy_bytes(src_fd, fd);
	} else if (write_all(fd, bytes, len) < 0) {
		r = -1;
	}
	/* Owner before mode: changing the owner clears the set-id bits. */
	if (r < 0 || fchown(fd, uid, gid) < 0 || fchmod(fd, mode) < 0)
		r = fail_errno(f, "write", path);
	if (close(fd) < 0 && r == 0)
		r = fail_errno(f, "write", path);
	if (r == 0 && rename(temporary, path) < 0)
		r = fail_errno(f, "put in place", path);
	if (r < 0)
		(void)unlink(temporary);
	return r;
}

struct put {
	const char *dest, *mode, *owner, *src;
};

static int open_payload(struct step_context *s, const char *src, int flags, struct fail *f)
{
	int fd = src[0] == '/' ? openat(s->view.initrd_fd, src + 1, O_RDONLY | O_CLOEXEC | flags) : -1;

	if (fd < 0)
		(void)fail_set(f, "internal", "cannot open `%s` of the initrd: %s", src, strerror(errno));
	return fd;
}

static int put_in_bare(struct step_context *s, void *opaque, struct fail *f)
{
	const struct put *p = opaque;
	char *end;
	unsigned long mode = strtoul(p->mode, &end, 8);
	struct user_ids ids;
	int src_fd;

	if (*end || p->mode[0] == '\0' || mode > 07777)
		return fail_set(f, "internal", "`%s` is no mode for `%s`", p->mode, p->dest);
	if (users_find_owner(p->owner, &ids, f) < 0 || files_make_parents(p->dest, f) < 0)
		return -1;
	src_fd = open_payload(s, p->src, 0, f);
	return src_fd < 0 ? -1 : files_replace(p->dest, (mode_t)mode, ids.uid, ids.gid, src_fd, NULL, 0, f);
}

int files_put(struct step_context *s, const char *dest, const char *mode, const char *owner, const char *src,
	struct fail *f)
{
	struct put p = { dest, mode, owner, src };

	if (dest[0] != '/')
		return fail_set(f, "internal", "`%s` is no absolute path", dest);
	return command_in_bare(s, put_in_bare, &p, f);
}

static int copy_tree(int src_fd, const char *dest, unsigned depth, struct fail *f);

/* Copy one name of a folder of the initrd to path of the image. */
static int copy_any(int dir_fd, const char *name, const char *path, unsigned depth, struct fail *f)
{
	struct stat st, there;
	int fd, r;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail_errno(f, "read what becomes", path);
	if (S_ISLNK(st.st_mode)) {
		char target[4096];
		ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);

		if (n < 0)
			return fail_errno(f, "read what becomes", path);
		target[n] = '\0';
		if (lstat(path, &there) == 0 && !S_ISDIR(there.st_mode))
			(void)unlink(path);
		return symlink(target, path) < 0 || lchown(path, 0, 0) < 0
			       ? fail_errno(f, "make the link", path)
			       : 0;
	}
	fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return fail_errno(f, "read what becomes", path);
	if (S_ISDIR(st.st_mode)) {
		/* A link to a folder (/lib of a merged /usr) is as good as the folder; an existing folder
		 * keeps its mode. */
		if (mkdir(path, 0700) == 0)
			r = chown(path, 0, 0) < 0 || chmod(path, st.st_mode & 07777) < 0
				    ? fail_errno(f, "make the folder", path)
				    : 0;
		else if (errno != EEXIST)
			r = fail_errno(f, "make the folder", path);
		else
			r = stat(path, &there) < 0 || !S_ISDIR(there.st_mode)
				    ? fail_set(f, "exit",
					      "cannot put the folder `%s` into the image: something else is there",
					      path)
				    : 0;
		if (r == 0)
			r = copy_tree(fd, path, depth + 1, f);
	} else {
		r = files_replace(path, st.st_mode & 07777, 0, 0, fd, NULL, 0, f);
	}
	(void)close(fd);
	return r;
}

/* Copy what is in the folder src_fd (lent) into dest, which is a folder. */
static int copy_tree(int src_fd, const char *dest, unsigned depth, struct fail *f)
{
	int fd = openat(src_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;
	int r = 0;

	if (!d || depth > DEPTH_MAX)
		return fail_set(f, "internal", "cannot list what becomes `%s`", dest);
	while (r == 0 && (de = readdir(d))) {
		char path[4096];

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
			continue;
		if (snprintf(path, sizeof(path), "%s/%s", strcmp(dest, "/") == 0 ? "" : dest, de->d_name) >=
			(int)sizeof(path))
			r = fail_set(f, "exit", "a path beneath `%s` is too long", dest);
		else
			r = copy_any(dirfd(d), de->d_name, path, depth, f);
	}
	(void)closedir(d);
	return r;
}

static int put_tree_in_bare(struct step_context *s, void *opaque, struct fail *f)
{
	const struct put *p = opaque;
	struct stat st;
	int src_fd = open_payload(s, p->src, O_DIRECTORY, f);

	if (src_fd < 0 || files_make_parents(p->dest, f) < 0)
		return -1;
	if (mkdir(p->dest, 0755) < 0 && errno != EEXIST)
		return fail_errno(f, "make the folder", p->dest);
	if (stat(p->dest, &st) < 0 || !S_ISDIR(st.st_mode))
		return fail_set(f, "exit",
			"cannot put a folder at `%s`: something else is there in the image", p->dest);
	return copy_tree(src_fd, p->dest, 0, f);
}

int files_put_tree(struct step_context *s, const char *dest, const char *src, struct fail *f)
{
	struct put p = { .dest = dest, .src = src };

	if (dest[0] != '/')
		return fail_set(f, "internal", "`%s` is no absolute path", dest);
	return command_in_bare(s, put_tree_in_bare, &p, f);
}

/* Remove name of dir_fd, recursively, following no link. */
static int remove_any(int dir_fd, const char *name, unsigned depth)
{
	int fd, r = 0;
	DIR *d;

	if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -1;
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || depth > DEPTH_MAX)
		return -1;
	d = fdopendir(fd);
	for (struct dirent *de; d && r == 0 && (de = readdir(d));) {
		if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
			r = remove_any(dirfd(d), de->d_name, depth + 1);
	}
	if (d)
		(void)closedir(d);
	return r < 0 ? -1 : unlinkat(dir_fd, name, AT_REMOVEDIR);
}

/* Remove what `pattern` (relative, at least one part) matches beneath dir_fd. Wildcards match as in a shell:
 * not a leading dot. */
static int remove_matches(int dir_fd, const char *pattern, const char *whole, struct fail *f)
{
	const char *slash = strchrnul(pattern, '/'), *rest = slash + strspn(slash, "/");
	char part[256];
	int fd, r = 0;
	DIR *d;

	if ((size_t)(slash - pattern) >= sizeof(part))
		return fail_set(f, "exit", "a part of the pattern `%.100s` is too long", whole);
	memcpy(part, pattern, (size_t)(slash - pattern));
	part[slash - pattern] = '\0';
	if (strcmp(part, "..") == 0 || strcmp(part, ".") == 0)
		return fail_set(f, "exit", "the pattern `%s` must not contain `.` or `..` parts", whole);
	fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		return fail_errno(f, "list a folder for the pattern", whole);
	for (struct dirent *de; r == 0 && (de = readdir(d));) {
		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
			fnmatch(part, de->d_name, FNM_PERIOD) != 0)
			continue;
		if (*rest == '\0') {
			if (remove_any(dirfd(d), de->d_name, 0) < 0)
				r = fail_errno(f, "remove what matches", whole);
			continue;
		}
		/* A link to a folder is followed, within the image, as a shell would; anything else has
		 * nothing beneath it. */
		int next = openat(dirfd(d), de->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		if (next >= 0) {
			r = remove_matches(next, rest, whole, f);
			(void)close(next);
		}
	}
	(void)closedir(d);
	return r;
}

static int remove_in_bare(struct step_context *s, void *opaque, struct fail *f)
{
	const char *pattern = opaque;
	int root_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)s;
	if (root_fd < 0)
		return fail_errno(f, "open", "/");
	return remove_matches(root_fd, pattern + strspn(pattern, "/"), pattern, f);
}

int files_remove(struct step_context *s, const char *pattern, struct fail *f)
{
	char copy[4096];
	size_t len = strlen(pattern);

	if (pattern[0] != '/' || len >= sizeof(copy) || pattern[strspn(pattern, "/")] == '\0')
		return fail_set(f, "exit",
			"`%.100s` cannot be removed: it must be an absolute pattern beneath /", pattern);
	memcpy(copy, pattern, len + 1);
	while (copy[len - 1] == '/')
		copy[--len] = '\0';
	return command_in_bare(s, remove_in_bare, copy, f);
}

static int forget_in_bare(struct step_context *s, void *opaque, struct fail *f)
{
	static const char *const seeds[] = {
		"/var/lib/systemd/random-seed",
		"/var/lib/urandom/random-seed",
		"/var/lib/random-seed",
		"/var/lib/misc/random-seed",
		"/var/lib/systemd/credential.secret",
		"/var/lib/seedrng/seed.credit",
		"/var/lib/seedrng/seed.no-credit",
		/* Inode numbers and times; ldconfig makes it anew. */
		"/var/cache/ldconfig/aux-cache",
	};
	/* machine-id: empty, not missing, so that systemd makes one at the first boot, also where /etc is
	 * read-only at that moment. The logs say at which second of this boot each package came: two builds
	 * would never be equal. */
	static const char *const emptied[] = {
		"/etc/machine-id",
		"/var/log/dpkg.log",
		"/var/log/alternatives.log",
		"/var/log/apt/history.log",
		"/var/log/apt/term.log",
	};
	struct stat st;

	(void)s;
	(void)opaque;
	for (size_t i = 0; i < ARRAY_SIZE(emptied); i++) {
		int fd = open(emptied[i], O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);

		if (fd < 0 && errno != ENOENT && errno != ELOOP && errno != ENOTDIR)
			return fail_errno(f, "empty", emptied[i]);
		if (fd >= 0)
			(void)close(fd);
	}
	/* D-Bus's copy, where it is one and not a link to the other. */
	if (lstat("/var/lib/dbus/machine-id", &st) == 0 && S_ISREG(st.st_mode) &&
		unlink("/var/lib/dbus/machine-id") < 0)
		return fail_errno(f, "remove", "/var/lib/dbus/machine-id");
	for (size_t i = 0; i < ARRAY_SIZE(seeds); i++) {
		if (unlink(seeds[i]) < 0 && errno != ENOENT && errno != ENOTDIR)
			return fail_errno(f, "remove", seeds[i]);
	}
	return 0;
}

int files_forget_identity(struct step_context *s, struct fail *f)
{
	return command_in_bare(s, forget_in_bare, NULL, f);
}
