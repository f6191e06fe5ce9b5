/* Any file that holds a disk image, opened as a struct blockdev.
 *
 * The format is told by content, never by name: qcow2, raw, either of them in .xz, .gz or .zst, or as a member of a
 * tar archive (.tar, .tar.xz, .tar.gz, .tar.zst) as distributions ship them. VMDK, VHD, VHDX, VDI, QED, Parallels, LUKS,
 * ISO 9660, zip, 7z, bzip2, lz4, ELF and web pages are recognised and refused by name with advice (-EOPNOTSUPP).
 *
 * A compressed stream cannot be addressed, so it is unpacked once into an unnamed sparse file in the folder the caller
 * lends (runs of zeros become holes). That file vanishes with the source. One layer of packing is unpacked, not two.
 * Of a tar archive the only member that looks like a disk is taken: a regular file named *.raw, *.img, *.qcow2, *.disk,
 * or, when there is none, the only regular file. Two are -ENOTUNIQ, none is -ENOENT.
 *
 * Ownership: fd and scratch_dirfd are lent; fd must outlive the source. disk_source_release() frees the rest.
 * Errors: ERR_KIND_INPUT for what the bytes are to blame for, ERR_KIND_HOST for the scratch file.
 * Concurrency: as struct blockdev; opening is done in one thread.
 * Limits: DISK_SOURCE_MAX_* below for what a stream may unpack to (-EFBIG). libarchive's xz reader is bounded at 1 GiB
 * of memory, its zstd reader at 128 MiB; ordinary images need 64 MiB and 8 MiB. */
#ifndef IMGBUILD_BUILDER_DISK_SOURCE_H
#define IMGBUILD_BUILDER_DISK_SOURCE_H

#include "lib/blockdev.h"
#include "lib/num.h"
#include "lib/progress.h"

#define DISK_SOURCE_MAX_UNPACKED_BYTES GIB(2048) /* apparent size of the unpacked image, zeros counted */
#define DISK_SOURCE_MAX_STORED_BYTES GIB(64)  /* bytes of it that are not zero, hence written */
#define DISK_SOURCE_MAX_TAR_MEMBERS 4096

enum disk_format { DISK_FORMAT_RAW, DISK_FORMAT_QCOW2 };
enum disk_packing { DISK_PACKING_NONE, DISK_PACKING_GZIP, DISK_PACKING_XZ, DISK_PACKING_ZSTD };

struct disk_source {
	struct blockdev *dev; /* owned: the virtual disk */
	enum disk_format format;
	enum disk_packing packing;
	bool in_tar;
	char member[256];   /* the archive member's name, sanitized; "" without an archive */
	int scratch_fd;	    /* owned; -1 when nothing had to be unpacked */
	uint64_t file_bytes; /* size of the file as given */
};

#define DISK_SOURCE_INIT                                                                                     \
	{                                                                                                    \
		.dev = NULL, .scratch_fd = -1                                                                \
	}

/* What a stream may unpack to. NULL stands for the maxima above. */
struct disk_source_limits {
	uint64_t max_unpacked_bytes, max_stored_bytes;
};

/* "raw", "qcow2"; "", "gzip", "xz", "zstd". */
const char *disk_format_name(enum disk_format f);
const char *disk_packing_name(enum disk_packing p);

/* Open the disk image in fd, unpacking it first where need be.
 * fd             lent, readable, seekable
 * scratch_dirfd  lent folder for the unpacked image; -1: a packed image is -EOPNOTSUPP
 * limits         NULL for the maxima
 * progress       NULL is fine; stage "unpack", in bytes of the packed file
 * ret            to be released; written only on success
 * Returns 0; -EOPNOTSUPP refused by name; -ENOENT, -ENOTUNIQ about archive members; -EFBIG past a limit;
 * -EBADMSG or -ENODATA a damaged or cut-off file; -ENOSPC no room for the unpacked image. */
int disk_source_open(int fd, int scratch_dirfd, const struct disk_source_limits *limits, struct progress *progress,
	struct disk_source *ret, struct err *e) _must_check_;

/* Close and free; may be called twice. */
void disk_source_release(struct disk_source *s);
#define _cleanup_disk_source_ _cleanup_(disk_source_release)

#endif
