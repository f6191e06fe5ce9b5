/* Pinning the base image: the answer to "which bytes are at this URL?", and what stands behind it.
 *
 * What vouches for the image is found out first (builder/vouch.h), so that an image which the store has already is not downloaded
 * again: a moving URL that has not moved costs one small request. What comes must be what was vouched for. A publisher that
 * is just replacing image and list is looked at twice before the two are said to contradict each other. One thread. */
#ifndef IMGBUILD_BUILDER_BASE_H
#define IMGBUILD_BUILDER_BASE_H

#include "builder/env.h"
#include "builder/prepare.h"

/* Fetch the plan's base image, which is at a URL, say what vouches for it, and store the answer in p->lock. */
int base_resolve(const struct build_env *env, struct prepared *p, struct err *e) _must_check_;

#endif
