/* Mounting: the kernel's own filesystems, the image, and taking the image away for real. */
#ifndef IMGBUILD_INIT_MOUNT_H
#define IMGBUILD_INIT_MOUNT_H

#include "initrd/init/util.h"

#define TARGET_PATH "/target" /* the image, in init's own view */
#define BARE_PATH "/bare"     /* a step's second view of it, without /dev, /proc, /sys, /run, /tmp over it */

/* Where the superblock of ext2, 3 and 4 lies, and what of it is used. SOURCE: linux
 * Documentation/filesystems/ext4/super.rst. */
enum {
	EXT_SUPER_START = 1024,
	EXT_SUPER_SIZE = 1024,
	EXT_MAGIC_OFFSET = 0x38,
	EXT_RO_COMPAT_OFFSET = 0x64,
	EXT_METADATA_CSUM_IN_BYTE_1 = 0x04, /* RO_COMPAT_METADATA_CSUM, 0x400 */
	EXT_UUID_OFFSET = 0x68,
	EXT_LABEL_OFFSET = 0x78,
	EXT_LABEL_SIZE = 16,
	EXT_CHECKSUM_OFFSET = 0x3fc,
};

/* Mount /proc, /sys and /dev, and make the console stdin, stdout and stderr. */
int mount_kernel_filesystems(struct fail *f);

/* Wait until path is a block device. Returns 0, or -ETIMEDOUT after wait_ms. */
int wait_block_device(const char *path, unsigned wait_ms);

/* Mount device at TARGET_PATH: read-write, nodev. *ret_device is a copy of the name for mount_release_root.
 */
int mount_root(const char *device, const char *fstype, struct fail *f);

/* Grow the mounted ext4 to the size of its device. */
int mount_grow(const char *device, struct fail *f);

/* Give the mounted ext4 a label. *ret_late: the kernel cannot (before 5.17), so mount_write_label must, after
 * the unmount. */
int mount_label(const char *label, bool *ret_late, struct fail *f);

/* Write the label into the superblock of the unmounted ext4 on device. */
int mount_write_label(const char *device, const char *label, struct fail *f);

/* Write everything out, unmount the image, and prove that nobody holds it any more: the device can be claimed
 * exclusively. Never lazy. Failing names who is busy. */
int mount_release_root(const char *device, struct fail *f);

#endif
