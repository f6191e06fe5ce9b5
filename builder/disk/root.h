/* What is on a disk, and which of it is the Linux root.
 *
 * disk_layout_read() takes the partition table and looks at what each partition holds; disk_find_root() chooses.
 * In this order: the plan's selector; the one readable root whose type is the discoverable-partition GUID for the
 * architecture; the one partition whose contents are a root (an ext filesystem with os-release and /usr). Never the
 * first one, never a name. A partition typed as the root of another architecture is no candidate.
 *
 * The contents of ext filesystems are looked at through a callback, since builder/disk does not know builder/ext4.
 * Ownership: device borrowed for the call; disk_layout_release() frees. Errors: see disk_find_root(); they are
 * ERR_KIND_INPUT, wrong selectors ERR_KIND_USAGE. Limits: those of partition.h. Concurrency: one thread.
 * SOURCE: UAPI group, Discoverable Partitions Specification. */
#ifndef IMGBUILD_BUILDER_DISK_ROOT_H
#define IMGBUILD_BUILDER_DISK_ROOT_H

#include "builder/disk/fstype.h"
#include "builder/disk/partition.h"
#include "lib/arch.h"

/* Look into the ext filesystem on `part` and complete *fs, which comes with type, label and uuid by magic: set is_root,
 * has_kernels, os_name. Called for ext2, ext3 and ext4 only. Returns 0; or an error when the filesystem cannot be
 * read, which disqualifies the partition but does not end the search (-ENOMEM does). */
typedef int (*disk_probe_fn)(void *ctx, struct blockdev *part, struct disk_fs *fs, struct err *e);

enum disk_role {
	DISK_ROLE_OTHER,
	DISK_ROLE_ROOT, /* the type GUID of a root for the asked architecture, or contents of a root */
	DISK_ROLE_BOOT, /* extended boot loader partition: its type GUID, or an ext filesystem labelled BOOT or with kernels */
	DISK_ROLE_ESP,
	DISK_ROLE_BIOS_BOOT,
	DISK_ROLE_SWAP
};

struct disk_partition {
	struct partition part; /* number 0 with the whole disk's range when there is no table */
	struct disk_fs fs;
	enum disk_role role;
};

struct disk_layout {
	enum partition_table_kind kind;
	unsigned sector_bytes;
	bool from_backup;
	char disk_id[40];
	enum arch arch; /* the one that roles were judged for */
	bool probed;	/* contents were looked at: is_root means something */
	size_t n;
	struct disk_partition *parts; /* owned */
};

/* The role in one word: "root", "boot", "esp", "bios-boot", "swap", "". */
const char *disk_role_name(enum disk_role r);

/* Read the table of a disk and look at every partition.
 * dev    borrowed
 * arch   whose root type counts as root
 * probe  called for ext filesystems; NULL: contents stay unknown, and only a root's type can tell
 * Returns 0 or what partition_table_read(), reading the device, or -ENOMEM of the probe returned. */
int disk_layout_read(struct blockdev *dev, enum arch arch, disk_probe_fn probe, void *probe_ctx,
	struct disk_layout *ret, struct err *e) _must_check_;

void disk_layout_release(struct disk_layout *l);
#define _cleanup_disk_layout_ _cleanup_(disk_layout_release)

/* Choose the root partition.
 * selector   NULL or "" to discover it; else the plan's [base] partition: "3", "LABEL=cloudimg-rootfs" (label of the
 *            filesystem) or "PARTUUID=…" (letter case does not count)
 * ret_index  index into l->parts
 * Returns 0; -ENOENT nothing can be a root, or nothing matches the selector; -ENOTUNIQ several; -EOPNOTSUPP the root
 * is (or, where nothing else is left, seems to be) xfs, btrfs, encrypted or the like; -EINVAL the selector cannot be
 * read; -EBADMSG the one that must be it cannot be read. Each message lists what every partition is. */
int disk_find_root(const struct disk_layout *l, const char *selector, size_t *ret_index, struct err *e) _must_check_;

/* The partition with the kernels when /boot is not in the root: index into l->parts. -ENOENT (without *e): none. */
int disk_find_boot(const struct disk_layout *l, size_t root_index, size_t *ret_index) _must_check_;

#endif
