/* The key: the name of the image that a plan, its lock and its local files describe, for one architecture.
 *
 * key = SHA-256("imgbuild-epoch N\n" || canonical JSON of the key document). The document holds every input as a digest
 * and every setting that can show in the image, and nothing else: DESIGN's table of what is in and what is out. It
 * never depends on the order or the spelling in the plan, on URLs, local names, time, host, user or locale. Computing it
 * reads no file and no network. */
#ifndef IMGBUILD_PLAN_KEY_H
#define IMGBUILD_PLAN_KEY_H

#include "lib/arch.h"
#include "lib/digest.h"
#include "lib/err.h"
#include "plan/lock.h"
#include "plan/plan.h"

#include <jansson.h>

/* Compute the key.
 * locals        from plan_local_inputs() for the same architecture, digests filled in
 * ret_key       SHA-256
 * ret_document  the key document, a new reference for the caller; NULL when not wanted
 * Returns 0; -ENOKEY the lock does not answer one of the plan's questions: the message names which, lock_missing()
 * lists them, and the caller resolves and writes the lock, or reports under --locked; -EINVAL the plan has no image for
 * this architecture. */
int key_compute(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct digest *ret_key, json_t **ret_document, struct err *e) _must_check_;

#endif
