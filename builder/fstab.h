/* The image's /etc/fstab: a bare filesystem on one disk has no ESP, no BOOT and no swap partition, and systemd would wait 90
 * seconds for each that is still listed.
 *
 * By default the root's line gets the neutral source /dev/root (util-linux and systemd read it as "the disk we came from") and no
 * check order, and every line whose source cannot be in the image is dropped: LABEL=, UUID=, PARTUUID=, PARTLABEL=, ID=, /dev/…
 * other than pseudo devices, and swap in any form but a file of the image. Network and pseudo filesystems stay, comments and
 * spacing too. Lines that contain one of the plan's patterns are dropped in any case. Pure text to text; no I/O, no state.
 * SOURCE: fstab(5); systemd-fstab-generator(8). */
#ifndef IMGBUILD_BUILDER_FSTAB_H
#define IMGBUILD_BUILDER_FSTAB_H

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/strv.h"

#include <stdbool.h>

#define FSTAB_MAX_BYTES (256u << 10)

/* Rewrite the text of an fstab.
 * patterns     substrings of lines to drop
 * keep         true: nothing but the patterns is applied
 * ret          the new text is appended
 * ret_dropped  the dropped lines are appended, as they were
 * Returns 0, -E2BIG or -ENOMEM. */
int fstab_rewrite(const char *text, size_t len, const struct strv *patterns, bool keep, struct buf *ret,
	struct strv *ret_dropped, struct err *e) _must_check_;

#endif
