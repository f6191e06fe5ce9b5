/* What filesystem a partition holds, told by its magic numbers alone.
 *
 * Reads a few superblocks' worth of bytes and interprets nothing but magic, label and identifier. Whether an ext4
 * filesystem is sound, and whether it is a root, is asked through disk_probe_fn (root.h).
 * Concurrency: none of its own. Errors: those of reading the device; unknown contents are not an error.
 * SOURCE: the on-disk headers of Linux (ext4, xfs, btrfs, squashfs, swap, erofs, f2fs, LUKS), LVM2 and FAT. */
#ifndef IMGBUILD_BUILDER_DISK_FSTYPE_H
#define IMGBUILD_BUILDER_DISK_FSTYPE_H

#include "lib/blockdev.h"

#include <stdbool.h>

struct disk_fs {
	char type[16];	  /* "ext2" "ext3" "ext4" "xfs" "btrfs" "vfat" "squashfs" "erofs" "f2fs" "swap" "luks"
			   * "lvm" "ntfs" "iso9660"; "" unknown */
	char label[264];  /* sanitized; "" none */
	char uuid[40];	  /* lower case; "" none */
	bool is_root;	  /* os-release and /usr are there; set by a probe only */
	bool has_kernels; /* vmlinuz-* or the like at the top or in /boot; set by a probe only */
	char os_name[128]; /* PRETTY_NAME of os-release, sanitized; set by a probe only */
	char problem[256]; /* why the probe could not read it, sanitized; "" none */
};

/* Fill *ret with type, label and uuid, everything else empty. Returns 0 (also for unknown contents) or a read error. */
int fstype_detect(struct blockdev *part, struct disk_fs *ret, struct err *e) _must_check_;

/* True for "ext2", "ext3" and "ext4". */
bool fstype_is_ext(const struct disk_fs *fs);

#endif
