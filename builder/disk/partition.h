/* The partition table of a disk: GPT (512 or 4096 byte sectors, primary or backup header), MBR with logical
 * partitions, or none at all.
 *
 * libfdisk reads the table. It wants a descriptor, so it is given a sparse memory file of the disk's size into which
 * only the head, the tail and the extended boot records were copied; it is never asked anything and never writes.
 *
 * Ownership: the device is borrowed for the call. partition_table_release() frees the result.
 * Units: bytes. Errors: -EBADMSG for a table that is there and damaged beyond its backup, or whose partitions lie
 * outside the disk or, in a GPT, overlap (ERR_KIND_INPUT). No table is not an error: kind is PARTITION_TABLE_NONE.
 * Limits: PARTITION_MAX partitions, PARTITION_HEAD_BYTES copied from each end.
 * SOURCE: UEFI 2.10 section 5 (GPT, protective MBR); Discoverable Partitions Specification. */
#ifndef IMGBUILD_BUILDER_DISK_PARTITION_H
#define IMGBUILD_BUILDER_DISK_PARTITION_H

#include "lib/blockdev.h"

#include <stdbool.h>

enum {
	PARTITION_MAX = 128,
	PARTITION_HEAD_BYTES = 1 << 20 /* the standard table needs 24 KiB at each end */
};

enum partition_table_kind { PARTITION_TABLE_NONE, PARTITION_TABLE_MBR, PARTITION_TABLE_GPT };

struct partition {
	unsigned number;     /* from 1, as in /dev/vda1; logical partitions from 5 */
	struct extent range; /* within the disk; not empty */
	char type[40];	     /* GPT: the type GUID in lower case; MBR: "0x83" */
	char partuuid[40];   /* lower case; MBR: "<disk id>-<number>"; "" unknown */
	char name[112];	     /* GPT partition name in UTF-8, sanitized; else "" */
	uint64_t attrs;	     /* GPT attribute bits; MBR: 0x80 when active */
};

struct partition_table {
	enum partition_table_kind kind;
	unsigned sector_bytes; /* 512 or 4096; 0 without a table */
	bool from_backup;      /* the primary GPT header was unusable */
	char disk_id[40];      /* GUID or 8 hex digits, lower case; "" without a table */
	size_t n;
	struct partition *parts; /* owned; ordered by number */
};

/* "none", "mbr", "gpt". */
const char *partition_table_kind_name(enum partition_table_kind k);

/* Read the partition table of a disk.
 * dev  borrowed; only its ends and the extended boot records are read
 * ret  to be released; written only on success
 * Returns 0; -EBADMSG as above; -E2BIG too many partitions; -ENOMEM; what reading the device returns. */
int partition_table_read(struct blockdev *dev, struct partition_table *ret, struct err *e) _must_check_;

void partition_table_release(struct partition_table *t);
#define _cleanup_partition_table_ _cleanup_(partition_table_release)

#endif
