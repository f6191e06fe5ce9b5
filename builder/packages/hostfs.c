/* struct pkg_host_fs over a folder of this machine. The contract is in packages.h. */
#include "builder/packages/packages.h"

#include "lib/io.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static int open_beneath(void *ctx, const char *path, uint64_t flags)
{
	const int *root_fd = ctx;
	struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT };
	long fd = syscall(SYS_openat2, *root_fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

static int fail(int r, const char *path, struct err *e)
{
	if (r == -ENOTDIR)
		r = -ENOENT;
	return err_set_errno(e, r, "cannot read `%s`", path);
}

static int folder_read_file(void *ctx, const char *path, struct buf *into, struct err *e)
{
	_cleanup_close_ int fd = open_beneath(ctx, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int r;

	if (fd < 0)
		return fail(fd, path, e);
	if (fstat(fd, &st) < 0)
		return fail(-errno, path, e);
	if (!S_ISREG(st.st_mode))
		return fail(-EINVAL, path, e);
	r = read_fd_to_end(fd, into);
	return r < 0 ? fail(r, path, e) : 0;
}

static int folder_list_dir(void *ctx, const char *path, struct strv *ret_names, struct err *e)
{
	_cleanup_close_ int fd = open_beneath(ctx, path, O_RDONLY | O_DIRECTORY);
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *d;

	if (fd < 0)
		return fail(fd, path, e);
	dir = fdopendir(fd);
	if (!dir)
		return fail(-errno, path, e);
	(void)take_fd(&fd);
	while ((errno = 0, d = readdir(dir)))
		if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0 && strv_add(ret_names, d->d_name) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	return errno ? fail(-errno, path, e) : 0;
}

struct pkg_host_fs pkg_host_fs_folder(const int *root_fd)
{
	return (struct pkg_host_fs){ .ctx = (void *)(uintptr_t)root_fd,
		.read_file = folder_read_file,
		.list_dir = folder_list_dir };
}
