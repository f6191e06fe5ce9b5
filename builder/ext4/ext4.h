/* Read files, folders, links and attributes of an ext2, ext3 or ext4 filesystem in a block device, without mounting.
 *
 * Order of calls: ext4_open(), any number of reads, ext4_free(). The device is borrowed and must outlive the
 * filesystem; nothing is ever written to it. One struct ext4 belongs to one thread at a time; several of them may read
 * the same device.
 *
 * Paths are absolute within the filesystem; a leading '/' may be left out. `..` at the root stays at the root, and
 * symbolic links, absolute ones too, are followed within the filesystem and never lead out of it.
 *
 * Errors: -EMEDIUMTYPE  not an ext filesystem (what it is instead is named where its magic number is known)
 *         -EUCLEAN      the journal holds changes that were not written back: reading would give stale contents
 *         -ENOTSUP      a feature this reader lacks, by name; an encrypted file or folder
 *         -EBADMSG      damaged: a wrong checksum, a number that points outside, a structure that contradicts itself
 *         -ENOENT       the path is not there; -ENOTDIR a part of it is no folder; -ELOOP too many symbolic links
 *         -EISDIR, -EINVAL  the path is there but of another type than the call is for
 *         -E2BIG        more than a limit below, or than the caller's buffer may hold
 *         Errors of the device itself are handed through. Kinds: damage and unsupported features are ERR_KIND_INPUT.
 *
 * SOURCE: Linux Documentation/filesystems/ext4; libext2fs 1.47. */
#ifndef IMGBUILD_BUILDER_EXT4_EXT4_H
#define IMGBUILD_BUILDER_EXT4_EXT4_H

#include "lib/blockdev.h"
#include "lib/buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define EXT4_GROUPS_MAX (UINT32_C(1) << 18)  /* block groups: 32 TiB at 4 KiB blocks, 16 MiB of descriptors */
#define EXT4_SYMLINKS_MAX 40		     /* links followed for one path, as Linux */
#define EXT4_PATH_MAX_BYTES 4096	     /* a path, and a link's target */
#define EXT4_PATH_DEPTH_MAX 256		     /* folders below the root */
#define EXT4_DIR_MAX_BYTES (UINT64_C(64) << 20) /* size of one folder */
#define EXT4_DIR_ENTRIES_MAX (1u << 18)	     /* names in one folder */
#define EXT4_EXTENT_DEPTH_MAX 5		     /* levels of an extent tree, as Linux */
#define EXT4_XATTR_MAX_BYTES (64u << 10)     /* one extended attribute, as Linux */

/* What the superblock says. */
struct ext4_facts {
	char label[17];		  /* printable; "" without one */
	char uuid[37];		  /* lower case with dashes */
	uint32_t block_size_bytes;
	uint64_t blocks;	  /* of the filesystem */
	uint64_t size_bytes;	  /* blocks * block_size_bytes, within the device once opened */
	uint32_t inodes;
	bool clean;		  /* unmounted properly */
	bool has_errors;	  /* the kernel or e2fsck noted damage */
	bool has_journal;
	bool needs_recovery;	  /* ext4_open() refuses it */
	bool has_metadata_csum;
	bool has_orphans;	  /* files that were deleted while open and wait for the next mount */
};

/* One file of any type. */
struct ext4_stat {
	uint32_t inode;
	mode_t mode; /* with the type: S_ISREG() and so on */
	uint32_t uid, gid;
	uint32_t links;
	uint64_t size_bytes;
	int64_t mtime_seconds;
	uint32_t mtime_nanoseconds;
	uint32_t rdev_major, rdev_minor; /* of device nodes */
};

struct ext4_dirent {
	char *name; /* owned by the list; never "", ".", ".." and never with a '/' */
	struct ext4_stat st;
};

/* The names of a folder, sorted bytewise. A zeroed one is empty. */
struct ext4_dir {
	struct ext4_dirent *items;
	size_t n;
};

struct ext4;
struct ext4_file;

/* Read the superblock alone: works for a filesystem that ext4_open() refuses with -EUCLEAN, -ENOTSUP or -EBADMSG.
 * Returns 0; -EMEDIUMTYPE no ext filesystem. */
int ext4_read_facts(struct blockdev *dev, struct ext4_facts *ret, struct err *e) _must_check_;

/* Open a filesystem that fills `dev` from its first byte on. dev is borrowed. Free *ret with ext4_free(). */
int ext4_open(struct blockdev *dev, struct ext4 **ret, struct err *e) _must_check_;

void ext4_free(struct ext4 *fs); /* NULL is fine */
static inline void ext4_freep(struct ext4 **fs)
{
	ext4_free(*fs);
}
#define _cleanup_ext4_ _cleanup_(ext4_freep)

/* The superblock's facts; borrowed from fs. */
const struct ext4_facts *ext4_facts(const struct ext4 *fs);

/* Describe what a path names; ext4_lstat() does not follow a symbolic link in the last part. */
int ext4_stat(struct ext4 *fs, const char *path, struct ext4_stat *ret, struct err *e) _must_check_;
int ext4_lstat(struct ext4 *fs, const char *path, struct ext4_stat *ret, struct err *e) _must_check_;

/* Append the whole of a regular file to *into, whose maximum is the limit (-E2BIG). Links are followed. */
int ext4_read_file(struct ext4 *fs, const char *path, struct buf *into, struct err *e) _must_check_;

/* Copy a regular file into the empty regular file dst_fd (lent), holes staying holes; links are followed. A file of
 * more than max_bytes is -E2BIG before anything is written. *ret_size_bytes (may be NULL) becomes its size. */
int ext4_copy_file(struct ext4 *fs, const char *path, int dst_fd, uint64_t max_bytes, uint64_t *ret_size_bytes,
	struct err *e) _must_check_;

/* List a folder; links are followed. Release *ret with ext4_dir_release(). */
int ext4_list_dir(struct ext4 *fs, const char *path, struct ext4_dir *ret, struct err *e) _must_check_;

/* List the folder that is inode number `inode`, as found in an ext4_stat: a walk need not look up each path. */
int ext4_list_inode(struct ext4 *fs, uint32_t inode, struct ext4_dir *ret, struct err *e) _must_check_;

void ext4_dir_release(struct ext4_dir *dir);
#define _cleanup_ext4_dir_ _cleanup_(ext4_dir_release)

/* Append the target of a symbolic link to *into. -EINVAL when the path names something else. */
int ext4_read_link(struct ext4 *fs, const char *path, struct buf *into, struct err *e) _must_check_;

/* Append the value of an extended attribute ("security.capability", "user.x") of what path names, links not followed,
 * to *into. -ENODATA when it has none of that name. */
int ext4_get_xattr(struct ext4 *fs, const char *path, const char *name, struct buf *into, struct err *e) _must_check_;

/* Open a regular file for reading at any offset; links are followed. The file borrows fs. */
int ext4_open_file(struct ext4 *fs, const char *path, struct ext4_file **ret, struct err *e) _must_check_;

/* The same for an inode number found in an ext4_stat. */
int ext4_open_inode(struct ext4 *fs, uint32_t inode, struct ext4_file **ret, struct err *e) _must_check_;

/* The size that the inode claims. */
uint64_t ext4_file_size_bytes(const struct ext4_file *file);

/* Read up to len bytes at offset; *ret_len is less than len only at the end of the file. */
int ext4_file_read(struct ext4_file *file, void *buf, size_t len, uint64_t offset, size_t *ret_len, struct err *e)
	_must_check_;

/* Say of what kind the bytes at offset (less than the size) are and how far that goes. */
int ext4_file_next_extent(struct ext4_file *file, uint64_t offset, enum extent_kind *ret_kind,
	uint64_t *ret_size_bytes, struct err *e) _must_check_;

void ext4_file_free(struct ext4_file *file); /* NULL is fine */
static inline void ext4_file_freep(struct ext4_file **file)
{
	ext4_file_free(*file);
}
#define _cleanup_ext4_file_ _cleanup_(ext4_file_freep)

#endif
