/* Walk the members of a tar archive (plain, gzip, xz, zstd, bzip2) or of a .deb's data.tar, in the order they have.
 *
 * Nothing is written and nothing is held but one member at a time. The visitor gets names that were cleaned: `./` and
 * doubled slashes are gone, there is no leading slash. Members whose name has a `..` part, is empty or too long are
 * never shown; they are counted. Links are shown with their target as it stands in the archive.
 *
 * The descriptor is lent, of a regular file, and read with pread; its offset is not used. Errors: -EBADMSG no archive or a
 * damaged one (also what libarchive only warns of in a header, but for text that is not UTF-8); -E2BIG a limit; what the
 * visitor returns below zero. Kind ERR_KIND_INPUT for the first two. One walk belongs to one thread.
 * SOURCE: libarchive 3.6; deb(5). */
#ifndef IMGBUILD_KERNELS_ARCHIVE_H
#define IMGBUILD_KERNELS_ARCHIVE_H

#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ARCHIVE_MEMBERS_MAX (1u << 20)
#define ARCHIVE_NAME_MAX_BYTES 4096
#define ARCHIVE_UNPACKED_MAX_BYTES (UINT64_C(32) << 30) /* all members together: ends the reading of a bomb */

enum member_type { MEMBER_FILE, MEMBER_DIR, MEMBER_SYMLINK, MEMBER_HARDLINK, MEMBER_OTHER };

struct archive_walk; /* opaque: reads the data of the member being visited */

struct member {
	enum member_type type;
	const char *name;     /* cleaned; borrowed for the visit */
	const char *target;   /* of links, as it stands there; else NULL */
	uint64_t size_bytes;  /* of files */
	struct archive_walk *walk;
};

/* Return 0 to go on, a positive number to stop the walk with that result, or an error that was set. */
typedef int (*member_fn)(void *ctx, const struct member *m, struct err *e);

/* Visit the members of the tar archive in fd; *ret_hostile (may be NULL) counts names that were passed over.
 * Returns 0 at the end, or what stopped it. */
int archive_walk_tar(int fd, member_fn visit, void *ctx, unsigned *ret_hostile, struct err *e) _must_check_;

/* The same for the data.tar of the .deb in fd. */
int archive_walk_deb(int fd, member_fn visit, void *ctx, unsigned *ret_hostile, struct err *e) _must_check_;

/* Copy the data of the regular file being visited to the empty regular file out_fd (lent), holes staying holes.
 * More than max_bytes is -E2BIG. */
int member_copy(const struct member *m, int out_fd, uint64_t max_bytes, struct err *e) _must_check_;

/* Clean a member's name into dst as above. Returns 0; -EINVAL a `..` part; -ENAMETOOLONG; -ENOENT nothing is left. */
int member_clean_name(const char *name, char dst[static ARCHIVE_NAME_MAX_BYTES]);

#endif
