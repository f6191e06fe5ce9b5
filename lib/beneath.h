/* Opening a name beneath a folder, without anything in it leading out.
 *
 * ".." above the folder, absolute names, symbolic links that leave it and the links of /proc are refused with -EXDEV or
 * -ELOOP; symbolic links that stay inside are followed. By openat2(2) with RESOLVE_BENEATH, and where the kernel has
 * none, or a sandbox forbids it, by walking the parts by hand with descriptors.
 *
 * SOURCE: openat2(2). Limits: BENEATH_MAX_LINKS symbolic links on one way, PATH_MAX bytes of name. */
#ifndef IMGBUILD_LIB_BENEATH_H
#define IMGBUILD_LIB_BENEATH_H

#include <stdbool.h>

#define BENEATH_MAX_LINKS 40

/* Open `path` beneath dirfd (lent). flags as for open(2) without O_CREAT; O_CLOEXEC and O_NOCTTY are added.
 * by_hand forces the way without openat2(2), for the tests.
 * Returns a descriptor that the caller closes, or -errno: -EXDEV it leads outside, -ELOOP too many links. */
int beneath_open(int dirfd, const char *path, int flags, bool by_hand);

#endif
