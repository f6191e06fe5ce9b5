/* Write an empty qcow2 overlay on a raw image: whoever reads it sees the image, and what is written stays in the overlay.
 * SOURCE: QEMU docs/interop/qcow2.txt, version 3. */
#ifndef IMGBUILD_BUILDER_DISK_OVERLAY_H
#define IMGBUILD_BUILDER_DISK_OVERLAY_H

#include "lib/err.h"

#include <stdint.h>

#define OVERLAY_MAX_SIZE_BYTES (UINT64_C(1) << 45) /* 32 TiB: the tables of an empty overlay stay below 1 MiB */

/* Write the overlay.
 * out_fd      lent, an empty file
 * backing     the image's absolute path, at most 1023 bytes (the format's limit): -ENAMETOOLONG
 * size_bytes  of the image; rounded up to a sector
 * Returns 0 or -errno. */
int overlay_write(int out_fd, const char *backing, uint64_t size_bytes, struct err *e) _must_check_;

#endif
