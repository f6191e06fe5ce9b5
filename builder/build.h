/* The way of a build, from a plan to a published entry: the only place that knows all the stages.
 *
 *     lock answered -> key -> entry there? -> blobs, root, kernel, packages at hand -> initrd -> boot once -> verdict
 *     -> the image checked -> manifest -> published
 *
 * Nothing flows back, and only cache/publish writes into the cache. A build that fails after its boot began is published
 * under failed/ with its disk, console and records. One thread; several processes may build at once, one of them each key. */
#ifndef IMGBUILD_BUILDER_BUILD_H
#define IMGBUILD_BUILDER_BUILD_H

#include "builder/env.h"
#include "builder/events.h"
#include "builder/prepare.h"

struct built {
	char *path;	    /* of the entry; or of the failed build's folder when there is one */
	bool hit;	    /* it was there already, or another process built it meanwhile */
	char tail[4096];    /* the last lines of a guest that failed, sanitized, each with its newline */
};

/* Find or build the image of a prepared plan.
 * events  the sink that env->progress points to: gets a file of its own while there is a build
 * ret     zeroed; written in every case; release with built_release()
 * Returns 0, or what went wrong, with its kind set. */
int build_image(const struct build_env *env, struct events *events, struct prepared *p, struct built *ret, struct err *e)
	_must_check_;

void built_release(struct built *b);
#define _cleanup_built_ _cleanup_(built_release)

#endif
