/* .deb files: the control data of one, and the same package without compression.
 *
 * A .deb is an ar archive of debian-binary, control.tar and data.tar, the tars compressed one by one. All functions take
 * a lent descriptor of a regular file and read it with pread; its offset is not used. Memory is bounded whatever the
 * package holds. Errors: -EBADMSG it is no proper .deb; -EFBIG a limit is exceeded; the kind is ERR_KIND_INPUT.
 * SOURCE: deb(5), ar(5). */
#ifndef IMGBUILD_BUILDER_PACKAGES_DEB_H
#define IMGBUILD_BUILDER_PACKAGES_DEB_H

#include "lib/buf.h"
#include "lib/err.h"

#include <stdint.h>

enum {
	DEB_CONTROL_MAX_BYTES = 1 << 20,	 /* the control file */
	DEB_CONTROL_TAR_MAX_BYTES = 64 << 20,	 /* control.tar, uncompressed */
};
#define DEB_DATA_TAR_MAX_BYTES (UINT64_C(8) << 30) /* data.tar, uncompressed; also the width of ar's size field */

/* Append the text of the package's control file to *into (whose maximum counts too). */
int deb_read_control(int fd, struct buf *into, struct err *e) _must_check_;

/* Check that Package, Version and Architecture of a control text are such, fit to be arguments and parts of a file's name, and those
 * that were promised. Any of the three may be NULL: not compared. Returns 0, or -EBADMSG saying what is wrong. */
int deb_check_control(const char *control, size_t len, const char *name, const char *version, const char *arch,
	struct err *e) _must_check_;

/* Write the same package with uncompressed members: debian-binary, control.tar, data.tar; time stamps, owners and
 * order of the ar members fixed, the tars' own bytes as they were. Equal input gives equal output.
 * out_fd          lent, empty regular file, seekable: sizes are patched in afterwards
 * ret_size_bytes  the size of what was written; may be NULL */
int deb_repack_uncompressed(int in_fd, int out_fd, uint64_t *ret_size_bytes, struct err *e) _must_check_;

#endif
