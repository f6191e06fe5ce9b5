/* Copy a block device, or a slice of it, to a sparse raw file.
 *
 * Only what is allocated in the source is read; blocks of zeros within it become holes. Chunks are read, unpacked and
 * written by several threads at once, in no order. Nothing is synced: that is for whoever publishes the file.
 *
 * Ownership: the device is borrowed, out_fd lent. On failure the file has unspecified contents and size.
 * Errors: those of reading the device; writing: -errno with ERR_KIND_HOST (-ENOSPC, -EFBIG, -EIO).
 * Concurrency: the call makes its own threads and returns when they have ended; progress comes from one at a time.
 * Limits: at most EXTRACT_BUFFERS_BYTES of memory besides what the device uses. */
#ifndef IMGBUILD_BUILDER_DISK_EXTRACT_H
#define IMGBUILD_BUILDER_DISK_EXTRACT_H

#include "lib/blockdev.h"
#include "lib/progress.h"

enum {
	EXTRACT_BUFFERS_BYTES = 16 << 20,
	EXTRACT_HOLE_BYTES = 4096 /* zeros are looked for in blocks of this, the block size of ext4 */
};

struct extract_stats {
	uint64_t read_bytes;	/* allocated in the source */
	uint64_t written_bytes; /* of them not zero */
};

/* Copy all of `dev` into out_fd.
 * out_fd     an empty regular file open for writing; gets dev->size_bytes
 * n_threads  0 for one per processor
 * progress   NULL is fine; stage "extract", in bytes of the device
 * ret_stats  NULL is fine
 * Returns 0; -EINVAL when out_fd is not an empty regular file; else as above. */
int extract_to_file(struct blockdev *dev, int out_fd, unsigned n_threads, struct progress *progress,
	struct extract_stats *ret_stats, struct err *e) _must_check_;

#endif
