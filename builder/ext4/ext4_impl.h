/* What the files of builder/ext4 share and nobody else includes: libext2fs' handle behind struct ext4, and the walk
 * over a file's blocks. Concurrency and errors as in ext4.h. */
#ifndef IMGBUILD_BUILDER_EXT4_EXT4_IMPL_H
#define IMGBUILD_BUILDER_EXT4_EXT4_IMPL_H

#include "builder/ext4/ext4.h"

#include <ext2fs/ext2fs.h>

struct ext4 {
	struct blockdev *dev; /* borrowed */
	ext2_filsys lib;
	struct ext4_facts facts;
	struct err io_err; /* what the device said when libext2fs was told of a failed read */
};

/* A run of blocks of a file. physical 0: reads as zero. */
struct ext4_run {
	uint64_t logical;
	uint64_t physical;
	uint64_t n_blocks;
};

/* Turn a libext2fs error into ours. Returns the code. */
int ext4_lib_error(struct ext4 *fs, errcode_t code, struct err *e, const char *fmt, ...) _printf_(4, 5);

/* Read an inode; *ret is wholly initialised. */
int ext4_read_inode(struct ext4 *fs, uint32_t inode, struct ext2_inode_large *ret, struct err *e) _must_check_;

/* Describe an inode that was read. */
void ext4_stat_from_inode(uint32_t number, const struct ext2_inode_large *inode, struct ext4_stat *ret);

/* Whether a code speaks of what the filesystem holds, and not of the device or the host. */
bool ext4_is_contents_error(int code);

/* Open the data of an inode of any type that keeps data in blocks (or inline). */
int ext4_open_data(struct ext4 *fs, uint32_t inode, struct ext4_file **ret, struct err *e) _must_check_;

/* Find the run of blocks at `logical`; n_blocks is at least 1 and may reach past the end of the file. */
int ext4_map(struct ext4_file *file, uint64_t logical, struct ext4_run *ret, struct err *e) _must_check_;

#endif
