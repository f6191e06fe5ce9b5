#include "lib/newfile.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>

static void forget_temporary(struct new_file *f)
{
	free(f->temporary);
	f->temporary = NULL;
}

void new_file_release(struct new_file *f)
{
	close_fdp(&f->fd);
	if (f->temporary)
		(void)unlink(f->temporary);
	forget_temporary(f);
}

static int fail(const char *path, int code, struct err *e)
{
	if (code == -EEXIST)
		return err_set_kind(e, ERR_KIND_USAGE, code, "`%s` exists already; choose another name or remove it", path);
	(void)err_set_errno(e, code, "cannot create `%s`", path);
	return err_default_kind(e, ERR_KIND_HOST);
}

/* Open a file without a name in the folder of path. */
static int open_unnamed(const char *path)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int fd = folder ? open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666) : -1;

	return !folder ? -ENOMEM : fd < 0 ? -errno : fd;
}

int new_file_open(const char *path, struct new_file *ret, struct err *e)
{
	struct stat st;

	*ret = (struct new_file){ .fd = -1, .path = path };
	if (lstat(path, &st) == 0)
		return fail(path, -EEXIST, e);
	ret->fd = open_unnamed(path);
	if (ret->fd >= 0)
		return 0;
	/* No such files on this filesystem (EISDIR: a kernel that knows none); what else is wrong, the named one says as well. */
	if (asprintf(&ret->temporary, "%s.tmp-%d", path, (int)getpid()) < 0) {
		ret->temporary = NULL;
		return fail(path, -ENOMEM, e);
	}
	ret->fd = open(ret->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (ret->fd < 0) {
		int r = errno == EEXIST ? -EBUSY : -errno;

		forget_temporary(ret);
		return fail(path, r, e);
	}
	return 0;
}

int new_file_finish(struct new_file *f, struct err *e)
{
	char self[64];
	int r = 0;

	if (!f->temporary) {
		(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", f->fd);
		r = linkat(AT_FDCWD, self, AT_FDCWD, f->path, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
		if (close(take_fd(&f->fd)) < 0 && r == 0)
			r = -errno;
		return r < 0 ? fail(f->path, r, e) : 0;
	}
	if (close(take_fd(&f->fd)) < 0)
		r = -errno;
	if (r == 0 && renameat2(AT_FDCWD, f->temporary, AT_FDCWD, f->path, RENAME_NOREPLACE) < 0)
		r = -errno;
	/* EINVAL: a filesystem that cannot rename so; a link cannot replace anything either. */
	if (r == -EINVAL)
		r = link(f->temporary, f->path) < 0 ? -errno : 0;
	else if (r == 0)
		forget_temporary(f);
	return r < 0 ? fail(f->path, r, e) : 0;
}
