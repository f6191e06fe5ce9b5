/* Judge the filesystem that a boot left behind: was it unmounted, is it as large as it should be, and does it hold together.
 *
 * The checks: the superblock's state, journal, error flag, orphans, size and label; checksums of all descriptors, bitmaps,
 * inodes and folders met; the free counts of the groups against those of the superblock; and a walk over the tree: every name leads to
 * an inode that is in use, folders have one name, link counts agree, no block belongs to two files or is marked free.
 * That is what goes wrong when a guest, a VMM or a disk loses writes. It does not replace e2fsck, which also looks for what nothing
 * points to.
 *
 * Faults are texts for people, at most EXT4_FAULTS_MAX of them. The device is borrowed. Memory: a bit for each block and two
 * bytes for each inode, touched only where something is. Returns errors for the device and the host only.
 * SOURCE: Linux Documentation/filesystems/ext4. */
#ifndef IMGBUILD_BUILDER_EXT4_CHECK_H
#define IMGBUILD_BUILDER_EXT4_CHECK_H

#include "builder/ext4/ext4.h"
#include "lib/strv.h"

#define EXT4_FAULTS_MAX 20
#define EXT4_CHECK_BLOCKS_MAX (UINT64_C(1) << 32) /* 16 TiB at 4 KiB blocks */
#define EXT4_CHECK_INODES_MAX (1u << 28)

struct ext4_expect {
	uint64_t size_bytes; /* of the filesystem, less at most one block group's worth that resizing could not use; 0: any */
	const char *label;   /* NULL: any */
};

/* What the walk found, for the manifest. */
struct ext4_counts {
	uint64_t files, folders, links, others;
	uint64_t file_bytes; /* sizes of regular files, each inode once */
	uint64_t free_blocks, free_inodes;
};

/* Check the filesystem that fills dev and append what is wrong to *faults.
 * expect      what it should be
 * ret_counts  written when the walk took place; may be NULL
 * Returns 0 also with faults; another errno when the device cannot be read or memory ends. */
int ext4_check(struct blockdev *dev, const struct ext4_expect *expect, struct strv *faults, struct ext4_counts *ret_counts,
	struct err *e) _must_check_;

#endif
