/* A writable copy of an entry's image for one VM. The entry itself is never handed out writable.
 *
 * Three ways: a reflink shares the blocks until they are written (btrfs, xfs, bcachefs); a sparse copy; a qcow2 overlay, which
 * is made in a millisecond anywhere and needs the entry to stay where it is. Nothing is left behind on failure. One thread. */
#ifndef IMGBUILD_BUILDER_CLONE_H
#define IMGBUILD_BUILDER_CLONE_H

#include "lib/err.h"

enum clone_mode {
	CLONE_AUTO = 0, /* a reflink, else a copy; an overlay where the name ends in ".qcow2" */
	CLONE_REFLINK,	/* or fail */
	CLONE_COPY,
	CLONE_QCOW2
};

/* Make `out`, which must not exist, from the raw image at `image` (absolute). *ret_how: "reflink", "copy" or "qcow2".
 * Returns 0; -EEXIST; -EOPNOTSUPP no reflink can be had; another -errno. */
int clone_image(const char *image, const char *out, enum clone_mode mode, const char **ret_how, struct err *e) _must_check_;

#endif
