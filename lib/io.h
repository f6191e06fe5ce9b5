/* Whole reads and writes, small files, sparse copies, folders. Everything is relative to a lent folder descriptor
 * (AT_FDCWD is allowed), opens with O_CLOEXEC, and returns negative errno. */
#ifndef IMGBUILD_LIB_IO_H
#define IMGBUILD_LIB_IO_H

#include "lib/buf.h"
#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Read until `len` bytes or the end of the file. Return the number of bytes (short only at the end) or -errno. */
ssize_t read_full(int fd, void *buf, size_t len) _must_check_;
ssize_t pread_full(int fd, void *buf, size_t len, uint64_t offset) _must_check_;

/* Write all `len` bytes. Return 0 or -errno. */
int write_full(int fd, const void *buf, size_t len) _must_check_;
int pwrite_full(int fd, const void *buf, size_t len, uint64_t offset) _must_check_;

/* Append the whole of a regular file to *into (its max_bytes is the limit: -E2BIG). A name whose last part is a
 * symbolic link is -ELOOP unless follow. Not a regular file: -EINVAL. The message names the path. */
int read_file_at(int dirfd, const char *path, bool follow, struct buf *into, struct err *e) _must_check_;

/* Append all that can still be read from fd to *into, up to its maximum. */
int read_fd_to_end(int fd, struct buf *into) _must_check_;

/* Create or replace path with (bytes, len) by a temporary name in the same folder, fsync and rename. `mode` as given
 * (the umask does not count). */
int write_file_atomic_at(int dirfd, const char *path, const void *bytes, size_t len, mode_t mode, struct err *e)
	_must_check_;

/* Copy src_fd to the empty dst_fd: a reflink where the filesystem can, else only the data, holes staying holes.
 * Both are lent. dst_fd gets the size of src_fd. *ret_reflinked may be NULL. */
int copy_file_sparse(int src_fd, int dst_fd, bool *ret_reflinked, struct err *e) _must_check_;

/* The mode with which a local file or folder counts, from its st_mode: what git keeps of one. The rest is the umask of
 * whoever checked it out, and must show neither in a key nor in an image. */
static inline mode_t portable_mode(mode_t st_mode)
{
	return S_ISDIR(st_mode) || (st_mode & S_IXUSR) ? 0755 : 0644;
}

/* mkdir -p with mode 0755 (less the umask). Existing folders are fine. */
int mkdir_parents_at(int dirfd, const char *path, struct err *e) _must_check_;

/* Remove a file or a whole tree without following links. Missing is fine. Folders that were made unwritable by their
 * owner are made writable first. Returns the first -errno but goes on. */
int remove_tree_at(int dirfd, const char *path);

#endif
