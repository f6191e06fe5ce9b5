#include "lib/beneath.h"
#include "lib/cleanup.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* How deep the walk by hand may be below its folder. */
#define MAX_LEVELS 256

/* The folders from the top down to where the walk stands, so that ".." goes back to one that was really walked
 * through, whatever somebody renames meanwhile. */
struct walk {
	int dirfd; /* lent */
	int levels[MAX_LEVELS];
	size_t n_levels;
	char *rest;	/* what is still to be resolved; the walk's own memory */
	unsigned links; /* symbolic links followed so far */
};

static void walk_release(struct walk *w)
{
	while (w->n_levels > 0)
		close_fdp(&w->levels[--w->n_levels]);
	freep(&w->rest);
}

static int here(const struct walk *w)
{
	return w->n_levels > 0 ? w->levels[w->n_levels - 1] : w->dirfd;
}

/* Put the target of the symbolic link opened at fd in front of what is still to be resolved. */
static int follow_link(struct walk *w, int fd, const char *tail, bool want_folder)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(fd, "", target, sizeof(target) - 1);
	char *rest;

	if (n < 0)
		return -errno;
	if (n == 0 || (size_t)n >= sizeof(target) - 1)
		return -ENAMETOOLONG;
	target[n] = '\0';
	if (target[0] == '/')
		return -EXDEV;
	if (++w->links > BENEATH_MAX_LINKS)
		return -ELOOP;
	if (strlen(tail) + (size_t)n > PATH_MAX)
		return -ENAMETOOLONG;
	/* No slash at the end that was not there: it would demand a folder. */
	if (asprintf(&rest, "%s%s%s", target, *tail || want_folder ? "/" : "", tail) < 0)
		return -ENOMEM;
	free(w->rest);
	w->rest = rest;
	return 0;
}

static int push_level(struct walk *w, int *fd)
{
	if (w->n_levels == MAX_LEVELS)
		return -ELOOP;
	w->levels[w->n_levels++] = take_fd(fd);
	return 0;
}

/* Open the thing the walk has come to: `name` in the folder it stands in. */
static int open_last(const struct walk *w, const char *name, int flags)
{
	int fd = openat(here(w), name, flags | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY);

	return fd < 0 ? -errno : fd;
}

/* Resolve one part. Returns 1 with the opened descriptor in *ret_fd at the end, 0 to go on. */
static int walk_step(struct walk *w, int flags, int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *name = NULL;
	char *part = w->rest + strspn(w->rest, "/");
	size_t len = strcspn(part, "/");
	char *tail = part + len + strspn(part + len, "/");
	bool is_last = *tail == '\0';
	bool want_folder = is_last && part[len] == '/';
	struct stat st;
	int r;

	if (len == 0 || (len == 1 && part[0] == '.')) {
		if (is_last) {
			*ret_fd = open_last(w, ".", flags);
			return *ret_fd < 0 ? *ret_fd : 1;
		}
		memmove(w->rest, tail, strlen(tail) + 1);
		return 0;
	}
	if (len == 2 && part[0] == '.' && part[1] == '.') {
		if (w->n_levels == 0)
			return -EXDEV;
		close_fdp(&w->levels[--w->n_levels]);
		memmove(w->rest, tail, strlen(tail) + 1);
		return 0;
	}
	name = strndup(part, len);
	if (!name)
		return -ENOMEM;
	fd = openat(here(w), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode) && (!is_last || want_folder || !(flags & O_NOFOLLOW)))
		return follow_link(w, fd, tail, want_folder);
	if (is_last && !want_folder) {
		*ret_fd = open_last(w, name, flags);
		return *ret_fd < 0 ? *ret_fd : 1;
	}
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	r = push_level(w, &fd);
	memmove(w->rest, tail, strlen(tail) + 1);
	return r;
}

static int open_by_hand(int dirfd, const char *path, int flags)
{
	_cleanup_(walk_release) struct walk w = { .dirfd = dirfd };
	int fd = -1, r;

	if (path[0] == '\0')
		return -ENOENT;
	if (path[0] == '/')
		return -EXDEV;
	if (strlen(path) >= PATH_MAX)
		return -ENAMETOOLONG;
	w.rest = strdup(path);
	if (!w.rest)
		return -ENOMEM;
	do
		r = walk_step(&w, flags, &fd);
	while (r == 0);
	return r < 0 ? r : fd;
}

int beneath_open(int dirfd, const char *path, int flags, bool by_hand)
{
	/* openat2 refuses flags that open(2) would ignore. */
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | (flags & O_PATH ? 0 : O_NOCTTY)),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	if (by_hand)
		return open_by_hand(dirfd, path, flags);
	/* EAGAIN: something was renamed while ".." was resolved; the kernel asks to try again. */
	for (unsigned attempt = 0; attempt < 16; attempt++) {
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
		if (fd >= 0)
			return (int)fd;
		if (errno != EAGAIN && errno != EINTR)
			break;
	}
	/* EPERM may be a sandbox that knows no openat2; the walk by hand tells a real one. */
	if (errno == ENOSYS || errno == EPERM || errno == EAGAIN)
		return open_by_hand(dirfd, path, flags);
	return -errno;
}
