/* What changed between two answers for one architecture: the list that a person reads after an update.
 *
 * Compared are the pins, the keyrings and what vouches for them. Hints (where a file was found, which Release named it), the
 * questions and the names that were asked for are not: they change nothing in an image.
 * Pure. A struct lock_changes owns its strings; none is NULL. */
#ifndef IMGBUILD_PLAN_LOCK_DIFF_H
#define IMGBUILD_PLAN_LOCK_DIFF_H

#include "plan/lock.h"

enum lock_change_kind {
	LOCK_CHANGE_BASE = 0, /* name "base"; SHA-256 */
	LOCK_CHANGE_KERNEL,   /* name "kernel", or that of a further package of it; "package version" or SHA-256; versions */
	LOCK_CHANGE_PACKAGE,  /* name of the package; versions. The same version with other bytes, or for another architecture:
			       * "version (arch, sha256 …)" */
	LOCK_CHANGE_REMOVAL,  /* name of the package that goes from the base; "removed" */
	LOCK_CHANGE_SOURCE,   /* slot: "files:/etc/x", "inputs:name"; SHA-256 */
	LOCK_CHANGE_KEYRING,  /* path in the base; SHA-256 */
	LOCK_CHANGE_TRUST     /* "base", "kernel" or a slot; what stands behind it: "signature", "first-use" */
};

struct lock_change {
	enum lock_change_kind kind;
	char *name;
	char *old_text; /* "": new */
	char *new_text; /* "": gone */
};

struct lock_changes {
	struct lock_change *items; /* sorted by kind, then name */
	size_t n;
};

void lock_changes_release(struct lock_changes *c);
#define _cleanup_lock_changes_ _cleanup_(lock_changes_release)

/* The kind in words: "base", "package". */
const char *lock_change_kind_name(enum lock_change_kind kind);

/* Compare two answers. A section that is not there has nothing in it.
 * ret  a zeroed struct, empty when nothing changed; the caller releases it in every case
 * Returns 0, or -ENOMEM. */
int lock_diff(const struct lock_arch *was, const struct lock_arch *is, struct lock_changes *ret, struct err *e) _must_check_;

#endif
