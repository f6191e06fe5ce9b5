/* Writes a newc cpio archive, as the kernel unpacks it, to a descriptor; the same input gives the same bytes.
 *
 * Order of calls: cpio_new, then any number of cpio_add_*, then cpio_finish; cpio_free at any time. After a
 * failed call only cpio_free is allowed. Members appear in the order of the calls; the folders of a name come
 * before it, either by cpio_add_dir or made by this module (mode 0755). Adding a folder twice is fine and
 * keeps the first mode; adding any other name twice is an error, since the kernel would silently take the
 * last.
 *
 * What could differ between two hosts is fixed: owner 0:0, modification time 0, device 0:0, inode numbers in
 * the order of the members, link count 1. Hard links become copies. Trees are walked in bytewise order of
 * names.
 *
 * Names are absolute in the initrd ("/imgbuild/job"): no empty, "." or ".." part, at most
 * CPIO_NAME_MAX_BYTES; a member has less than 4 GiB (the format's limit): -EFBIG, naming it.
 *
 * The output descriptor is lent and written from its offset on, uncompressed, in large writes. One struct
 * cpio belongs to one thread. Errors: -EINVAL a bad name, -EEXIST, -EFBIG, -ENAMETOOLONG, or what reading and
 * writing gave. SOURCE: linux Documentation/driver-api/early-userspace/buffer-format.rst; libarchive cpio(5).
 */
#ifndef IMGBUILD_INITRD_CPIO_H
#define IMGBUILD_INITRD_CPIO_H

#include "lib/err.h"

#include <stdint.h>
#include <sys/types.h>

#define CPIO_NAME_MAX_BYTES 1024
#define CPIO_MEMBERS_MAX 4000000 /* inode numbers are 32 bit, and memory per name is bounded by this */
#define CPIO_TREE_DEPTH_MAX 64

struct cpio;

/* Begin an archive on out_fd (lent). */
int cpio_new(int out_fd, struct cpio **ret, struct err *e) _must_check_;

/* Add a folder. */
int cpio_add_dir(struct cpio *c, const char *name, mode_t mode, struct err *e) _must_check_;

/* Add a regular file holding (bytes, len). */
int cpio_add_bytes(struct cpio *c, const char *name, mode_t mode, const void *bytes, size_t len,
	struct err *e) _must_check_;

/* Add a regular file with the contents of the regular file fd, from its start; fd is lent, its offset is not
 * used. A file that shrinks while it is read is an error. */
int cpio_add_fd(struct cpio *c, const char *name, mode_t mode, int fd, struct err *e) _must_check_;

/* Add a symbolic link to target. */
int cpio_add_symlink(struct cpio *c, const char *name, const char *target, struct err *e) _must_check_;

/* Add a character device node. */
int cpio_add_chardev(struct cpio *c, const char *name, mode_t mode, unsigned major, unsigned minor,
	struct err *e) _must_check_;

/* Add everything beneath the folder dirfd (lent) under name, which becomes a folder. Folders, regular files
 * and links, with portable_mode(), which is what a tree's digest covers; any other kind of file is -EINVAL, naming it. Links are not followed. */
int cpio_add_tree(struct cpio *c, const char *name, int dirfd, struct err *e) _must_check_;

/* End the archive. *ret_archive_bytes: what was written. *ret_content_bytes: an upper bound of what the
 * unpacked tree takes in the guest's memory, each member rounded up to pages, with its inode. Both may be
 * NULL. */
int cpio_finish(
	struct cpio *c, uint64_t *ret_archive_bytes, uint64_t *ret_content_bytes, struct err *e) _must_check_;

void cpio_free(struct cpio *c); /* NULL is fine */
static inline void cpio_freep(struct cpio **c)
{
	cpio_free(*c);
}

#endif
