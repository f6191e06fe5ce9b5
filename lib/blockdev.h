/* A read-only run of bytes that can be addressed: a raw file, a qcow2 image, one partition of either.
 *
 * Implementations embed struct blockdev as their first member and fill in the operations. Reading past size_bytes
 * is an error of the caller's (-EINVAL), short reads do not exist. Offsets and sizes are in bytes. read() may be called
 * from several threads at once. A slice borrows its parent, which must outlive it. */
#ifndef IMGBUILD_LIB_BLOCKDEV_H
#define IMGBUILD_LIB_BLOCKDEV_H

#include "lib/err.h"

#include <stdint.h>

/* What a run of bytes is made of. */
enum extent_kind {
	EXTENT_DATA, /* allocated: must be read */
	EXTENT_ZERO  /* reads as zero without being stored */
};

struct extent {
	uint64_t start_bytes;
	uint64_t size_bytes;
};

struct blockdev {
	uint64_t size_bytes;

	/* Read exactly len bytes at offset. */
	int (*read)(struct blockdev *dev, void *buf, size_t len, uint64_t offset, struct err *e);

	/* Say of what kind the byte at offset is and how far that goes (at least 1 byte, at most to the end). NULL: all
	 * of it is data. */
	int (*next_extent)(struct blockdev *dev, uint64_t offset, enum extent_kind *ret_kind, uint64_t *ret_size_bytes,
		struct err *e);

	/* Free the object and what it owns. NULL for objects on the stack. */
	void (*free)(struct blockdev *dev);
};

/* Call the operations of a device, after checking the range; free one (NULL is fine). */
int blockdev_read(struct blockdev *dev, void *buf, size_t len, uint64_t offset, struct err *e) _must_check_;
int blockdev_next_extent(struct blockdev *dev, uint64_t offset, enum extent_kind *ret_kind,
	uint64_t *ret_size_bytes, struct err *e) _must_check_;
void blockdev_free(struct blockdev *dev);
static inline void blockdev_freep(struct blockdev **dev)
{
	blockdev_free(*dev);
}
#define _cleanup_blockdev_ _cleanup_(blockdev_freep)

/* A raw file as a device, holes known by SEEK_DATA. fd is lent and must outlive the device; its offset is not kept. */
int blockdev_new_file(int fd, struct blockdev **ret, struct err *e) _must_check_;

/* A part of another device; `parent` is borrowed. The range must lie within it: -ERANGE otherwise. */
int blockdev_new_slice(struct blockdev *parent, struct extent range, struct blockdev **ret, struct err *e)
	_must_check_;

#endif
