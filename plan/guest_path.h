/* A path inside the guest, validated once and carried as a type of its own.
 *
 * It is absolute and normalized: "/" or "/a/b", without empty, "." and ".." parts, without a slash at the end, valid
 * UTF-8 free of control characters, at most GUEST_PATH_MAX_BYTES long and each part at most GUEST_PATH_PART_MAX_BYTES.
 * Nothing is normalized silently: a path that is not is an error that shows the right spelling. It owns its text. */
#ifndef IMGBUILD_PLAN_GUEST_PATH_H
#define IMGBUILD_PLAN_GUEST_PATH_H

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>

#define GUEST_PATH_MAX_BYTES 4095
#define GUEST_PATH_PART_MAX_BYTES 255

struct guest_path {
	char *text; /* NULL: none */
};

/* Validate (s, len). Returns 0, or -EINVAL when it is no such path, with the reason in *e. */
int guest_path_check(const char *s, size_t len, struct err *e) _must_check_;

/* Validate (s, len) and copy it. Returns 0; -EINVAL when it is no such path, with the reason in *e; -ENOMEM. */
int guest_path_parse(const char *s, size_t len, struct guest_path *ret, struct err *e) _must_check_;

void guest_path_release(struct guest_path *p);
#define _cleanup_guest_path_ _cleanup_(guest_path_release)

#endif
