/* A reader for qcow2 images, as a struct blockdev.
 *
 * Order of calls: qcow_open(); then reads through the block device in any order; blockdev_free().
 * Ownership: the descriptor is lent and must outlive the device; its offset is not kept.
 * Units: bytes everywhere.
 * Concurrency: read and next_extent may be called from several threads at once. Tables are looked up under one lock;
 * reading and unpacking go on outside it.
 * Limits: the constants below. Memory is at most the L1 table, QCOW_TABLE_CACHE_BYTES of L2 tables, and two clusters
 * and QCOW_SPAN_BYTES for each thread that is reading, whatever the header says.
 *
 * Read: versions 2 and 3, clusters of 512 B to 2 MiB, zlib and zstd, zero and unallocated clusters, extended L2
 * entries (subclusters). Internal snapshots are ignored: the active state is what is read. The dirty bit is accepted, for it
 * speaks only of the reference counts, which a reader does not use. Refused by name with -EOPNOTSUPP: version 1,
 * backing files, external data files, encryption, unknown incompatible features. Refused with -EBADMSG: the corrupt bit,
 * tables that point outside the file or are not aligned, reserved bits, data that cannot be unpacked. Each message
 * gives the offset in the file. What is allocated must be stored: a file that was cut off is -ENODATA, where other
 * readers return zeros. Errors are ERR_KIND_INPUT, but for -ENOMEM and the host's own.
 *
 * SOURCE: qemu docs/interop/qcow2.rst (7.2); RFC 1951 (12-bit window, no header); RFC 8878. */
#ifndef IMGBUILD_BUILDER_DISK_QCOW_H
#define IMGBUILD_BUILDER_DISK_QCOW_H

#include "lib/blockdev.h"

#include <stdbool.h>

enum {
	QCOW_MIN_CLUSTER_BITS = 9,
	QCOW_MAX_CLUSTER_BITS = 21,
	QCOW_MAX_L1_BYTES = 32 << 20,	  /* qemu's own limit */
	QCOW_TABLE_CACHE_BYTES = 1 << 20, /* L2 slices kept */
	QCOW_SPAN_BYTES = 1 << 20,	  /* compressed clusters that lie together are read in one go, up to this */
	QCOW_MAX_EXTENSIONS = 64	  /* header extensions looked at for the names of features */
};

enum qcow_compression { QCOW_COMPRESSION_ZLIB = 0, QCOW_COMPRESSION_ZSTD = 1 };

/* What the header says, for people. */
struct qcow_info {
	uint32_t version; /* 2 or 3 */
	uint64_t cluster_size_bytes;
	enum qcow_compression compression; /* of those clusters that are compressed */
	bool extended_l2;
	bool dirty;
	uint32_t n_snapshots; /* ignored */
};

/* True when the first bytes of a file (at least 4) are those of qcow, any version. */
bool qcow_detect(const void *head, size_t len);

/* Open the qcow2 image in fd.
 * fd   lent, readable, seekable
 * ret  the virtual disk; size_bytes is the virtual size, which may be 0
 * Returns 0; -EOPNOTSUPP for what is refused by name; -EBADMSG for a damaged or impossible header; -ENODATA when
 * the file is cut off; -ENOMEM. */
int qcow_open(int fd, struct blockdev **ret, struct err *e) _must_check_;

/* The header's facts; `dev` must come from qcow_open(). Borrowed from the device. */
const struct qcow_info *qcow_get_info(const struct blockdev *dev);

#endif
