#include "lib/io.h"
#include "lib/num.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

ssize_t read_full(int fd, void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t pread_full(int fd, void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int write_full(int fd, const void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)buf + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int pwrite_full(int fd, const void *buf, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int read_fd_to_end(int fd, struct buf *into)
{
	for (;;) {
		char chunk[16384];
		ssize_t n = read_full(fd, chunk, sizeof(chunk));
		int r;

		if (n < 0)
			return (int)n;
		if (n == 0)
			return 0;
		r = buf_append(into, chunk, (size_t)n);
		if (r < 0)
			return r;
	}
}

int read_file_at(int dirfd, const char *path, bool follow, struct buf *into, struct err *e)
{
	/* O_NONBLOCK: opening a FIFO that somebody put there must not wait for its writer. */
	_cleanup_close_ int fd =
		openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW));
	struct stat st;
	int r;

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot open `%s`", path);
	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot stat `%s`", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "`%s` is not a regular file", path);
	r = read_fd_to_end(fd, into);
	if (r == -E2BIG)
		return err_set(e, r, "`%s` is larger than the limit of %zu bytes", path, into->max_bytes);
	if (r < 0)
		return err_set_errno(e, r, "cannot read `%s`", path);
	return 0;
}

/* Open a fresh file beside `path`, its name put into *ret_name. */
static int open_temporary_beside(int dirfd, const char *path, char **ret_name, struct err *e)
{
	for (unsigned attempt = 0; attempt < 100; attempt++) {
		_cleanup_free_ char *name = NULL;
		int fd;

		if (asprintf(&name, "%s.tmp-%d-%u", path, (int)getpid(), attempt) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (fd >= 0) {
			*ret_name = take_ptr(name);
			return fd;
		}
		if (errno != EEXIST)
			return err_set_errno(e, -errno, "cannot create `%s`", name);
	}
	return err_set(e, -EEXIST, "cannot find a free temporary name beside `%s`", path);
}

static int fsync_parent_of(int dirfd, const char *path)
{
	_cleanup_free_ char *parent = strdup(path);
	_cleanup_close_ int fd = -1;
	char *slash;

	if (!parent)
		return -ENOMEM;
	slash = strrchr(parent, '/');
	if (slash == parent)
		slash[1] = '\0';
	else if (slash)
		*slash = '\0';
	fd = openat(dirfd, slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int write_file_atomic_at(int dirfd, const char *path, const void *bytes, size_t len, mode_t mode, struct err *e)
{
	_cleanup_free_ char *name = NULL;
	_cleanup_close_ int fd = open_temporary_beside(dirfd, path, &name, e);
	int r;

	if (fd < 0)
		return fd;
	r = write_full(fd, bytes, len);
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		r = -errno;
	if (r == 0 && close(take_fd(&fd)) < 0)
		r = -errno;
	if (r == 0 && renameat(dirfd, name, dirfd, path) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(dirfd, name, 0);
		return err_set_errno(e, r, "cannot write `%s`", path);
	}
	r = fsync_parent_of(dirfd, path);
	if (r < 0)
		return err_set_errno(e, r, "cannot sync the folder of `%s`", path);
	return 0;
}

/* Copy one run of data. copy_file_range where it works between these two, else read and write. */
static int copy_run(int src_fd, int dst_fd, uint64_t offset, uint64_t size)
{
	enum { CHUNK_BYTES = 1 << 20 };
	_cleanup_free_ char *chunk = NULL;

	while (size > 0) {
		loff_t in = (loff_t)offset, out = (loff_t)offset;
		ssize_t n = chunk ? -1 : copy_file_range(src_fd, &in, dst_fd, &out, (size_t)size, 0);

		if (n <= 0) {
			int r;

			if (!chunk)
				chunk = malloc(CHUNK_BYTES);
			if (!chunk)
				return -ENOMEM;
			n = pread_full(src_fd, chunk, size < CHUNK_BYTES ? (size_t)size : CHUNK_BYTES, offset);
			if (n < 0)
				return (int)n;
			if (n == 0)
				return -ENODATA;
			r = pwrite_full(dst_fd, chunk, (size_t)n, offset);
			if (r < 0)
				return r;
		}
		offset += (uint64_t)n;
		size -= (uint64_t)n;
	}
	return 0;
}

int copy_file_sparse(int src_fd, int dst_fd, bool *ret_reflinked, struct err *e)
{
	struct stat st;
	off_t pos = 0;

	if (ioctl(dst_fd, FICLONE, src_fd) == 0) {
		if (ret_reflinked)
			*ret_reflinked = true;
		return 0;
	}
	if (fstat(src_fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot stat the file to copy");
	if (ftruncate(dst_fd, st.st_size) < 0)
		return err_set_errno(e, -errno, "cannot set the size of the copy to %lld bytes", (long long)st.st_size);
	while (pos < st.st_size) {
		off_t data = lseek(src_fd, pos, SEEK_DATA), end;
		int r;

		if (data < 0 && errno == ENXIO)
			break;
		if (data < 0) /* a filesystem without SEEK_DATA: all of it is data */
			data = pos, end = st.st_size;
		else
			end = lseek(src_fd, data, SEEK_HOLE);
		if (end < 0)
			return err_set_errno(e, -errno, "cannot find the holes of the file to copy");
		r = copy_run(src_fd, dst_fd, (uint64_t)data, (uint64_t)(end - data));
		if (r < 0)
			return err_set_errno(e, r, "cannot copy %lld bytes at offset %lld", (long long)(end - data),
				(long long)data);
		pos = end;
	}
	if (ret_reflinked)
		*ret_reflinked = false;
	return 0;
}

int mkdir_parents_at(int dirfd, const char *path, struct err *e)
{
	_cleanup_free_ char *copy = strdup(path);

	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	for (char *p = copy + (copy[0] == '/');; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (copy[0] && mkdirat(dirfd, copy, 0755) < 0 && errno != EEXIST)
			return err_set_errno(e, -errno, "cannot create the folder `%s`", copy);
		if (c == '\0')
			return 0;
		*p = c;
	}
}

int remove_tree_at(int dirfd, const char *path)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	int fd, first = 0;

	if (unlinkat(dirfd, path, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	if (fchmodat(dirfd, path, 0700, 0) < 0 && errno == ENOENT)
		return 0;
	fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		first = -errno;
		(void)close(fd);
		return first;
	}
	while ((entry = readdir(dir))) {
		int r;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		r = remove_tree_at(fd, entry->d_name);
		if (r < 0 && first == 0)
			first = r;
	}
	if (unlinkat(dirfd, path, AT_REMOVEDIR) < 0 && first == 0)
		first = -errno;
	return first;
}
