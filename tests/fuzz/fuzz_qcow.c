/* The qcow2 reader: open the input as an image, walk its extents and read a bounded part of it. */
#include "builder/disk/qcow.h"
#include "lib/io.h"

#include <sys/mman.h>

enum { MAX_STEPS = 200, PIECE_BYTES = 96 << 10 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_close_ int fd = memfd_create("fuzz", MFD_CLOEXEC);
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	_cleanup_free_ char *piece = malloc(PIECE_BYTES);
	struct err e = ERR_INIT;
	uint64_t at = 0;

	if (fd < 0 || !piece || pwrite_full(fd, data, size, 0) < 0 || qcow_open(fd, &dev, &e) < 0)
		return 0;
	for (unsigned i = 0; i < MAX_STEPS && at < dev->size_bytes; i++) {
		enum extent_kind kind = EXTENT_DATA;
		uint64_t left;

		if (blockdev_next_extent(dev, at, &kind, &left, &e) < 0)
			left = PIECE_BYTES;
		if (left == 0)
			abort();
		/* A read that begins off the grid, and errors that do not stop the next one. */
		if (kind == EXTENT_DATA && dev->size_bytes - at > 7 &&
			blockdev_read(dev, piece, left - 7 < PIECE_BYTES && left > 7 ? (size_t)left - 7 : 1,
				at + (left > 7 ? 7 : 0), &e) < 0)
			err_clear(&e);
		if (left > PIECE_BYTES && kind == EXTENT_DATA)
			left = PIECE_BYTES;
		at += left;
	}
	return 0;
}
