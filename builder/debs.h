/* The .debs of an image, at hand: fetched by the lock's digests, read, put in order, repacked for the guest.
 *
 * Ownership: debs_release(). One thread; repacking uses the worker pool. */
#ifndef IMGBUILD_BUILDER_DEBS_H
#define IMGBUILD_BUILDER_DEBS_H

#include "builder/env.h"
#include "builder/packages/order.h"
#include "builder/prepare.h"
#include "builder/root.h"

struct deb {
	char *name, *version, *arch; /* as its control file says */
	struct digest sha256;
	int fd;		  /* the .deb as it came, read-only */
	int repacked_fd;  /* the same without compression; -1 before debs_repack() */
	struct buf control;
};

struct debs {
	struct deb *items; /* those of the lock first, then local ones */
	size_t n;
	struct pkg_ops ops; /* what dpkg is told, in order */
};

/* Fetch and open all .debs that the plan's image needs, check them against the lock, and compute dpkg's operations for the
 * root. Nothing to install or remove gives n = 0 and no operations. */
int debs_get(const struct build_env *env, const struct prepared *p, struct root *root, struct debs *ret, struct err *e)
	_must_check_;

/* Unpack the compressed members of all of them into scratch files. */
int debs_repack(const struct build_env *env, struct debs *debs, struct err *e) _must_check_;

void debs_release(struct debs *debs);
#define _cleanup_debs_ _cleanup_(debs_release)

/* Fetch .debs of the lock into the store: `n` of them, from the mirrors that env knows. */
int debs_fetch(const struct build_env *env, const struct prepared *p, const struct lock_package *packages, size_t n,
	struct err *e) _must_check_;

#endif
