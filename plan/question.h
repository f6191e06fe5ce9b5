/* Parts of JSON documents that the lock's questions and the key have in common. Not for use outside plan/. Every function
 * returns a new reference, or NULL when memory ran out. */
#ifndef IMGBUILD_PLAN_QUESTION_H
#define IMGBUILD_PLAN_QUESTION_H

#include "plan/plan.h"

#include <jansson.h>

/* The hexadecimal text of a digest; null for DIGEST_NONE. */
json_t *question_digest(const struct digest *d);

/* A text; null for NULL. */
json_t *question_text(const char *s);

/* A list of texts, sorted and without repetitions when `sorted`. */
json_t *question_texts(const struct strv *list, bool sorted);

/* Which partition is the root: {"by": …}. */
json_t *question_partition(const struct plan_partition *partition);

/* Digests of the local .debs for an architecture, sorted. */
json_t *question_debs(const struct plan *p, enum arch arch, const struct plan_local_inputs *locals);

#endif
