/* Take one member out of an archive: the kernel in a tar.zst, tar.xz, tar.gz or tar.
 *
 * The member is named as in the plan. Symbolic links (of the member and of folders above it) and hard links are followed
 * within the archive only; an absolute target counts from the archive's root. Of several members with one name the first
 * counts. A member that is a link costs a second reading.
 *
 * Errors: -ENOENT the archive has no such member; the message lists the nearest names. -EINVAL (ERR_KIND_USAGE) the name
 * asked for has `..` parts. -EISDIR, -ENOEXEC a folder, a device. -ELOOP links in a circle. -EXDEV a link leads out of the
 * archive. -E2BIG over max_bytes. And those of kernels/archive.h. Memory: the names of the archive, at most
 * KERNEL_ARCHIVE_NAMES_MAX_BYTES. */
#ifndef IMGBUILD_KERNELS_KERNEL_ARCHIVE_H
#define IMGBUILD_KERNELS_KERNEL_ARCHIVE_H

#include "lib/buf.h"
#include "lib/err.h"

#include <stdint.h>

#define KERNEL_ARCHIVE_NAMES_MAX_BYTES (64u << 20)
#define KERNEL_ARCHIVE_LINKS_MAX 40

/* Copy `member` of the archive in archive_fd (lent, pread only) to out_fd (lent, an empty regular file).
 * max_bytes     of the member, unpacked
 * ret_resolved  gets the name of the member that links led to; may be NULL; its maximum should be
 *               ARCHIVE_NAME_MAX_BYTES
 * Returns 0 or the errors above. */
int kernel_archive_extract(int archive_fd, const char *member, int out_fd, uint64_t max_bytes, struct buf *ret_resolved,
	struct err *e) _must_check_;

#endif
