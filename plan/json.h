/* Small makers of JSON for questions and key documents. Each returns a new reference, or NULL when out of memory, which
 * the json_*_set_new() and json_pack() of jansson take and pass on as failure: one check at the end is enough. */
#ifndef IMGBUILD_PLAN_JSON_H
#define IMGBUILD_PLAN_JSON_H

#include "lib/cleanup.h"
#include "lib/digest.h"
#include "lib/strv.h"

#include <jansson.h>

static inline void json_releasep(json_t **j)
{
	json_decref(*j);
}
#define _cleanup_json_ _cleanup_(json_releasep)

/* The hexadecimal form, or null for DIGEST_NONE. */
json_t *json_of_digest(const struct digest *d);

/* The string, or null for NULL. */
json_t *json_of_string(const char *s);

/* An array of the strings, in their order. */
json_t *json_of_strv(const struct strv *v);

/* An array of the strings, sorted and without repetitions. */
json_t *json_of_set(const struct strv *v);

#endif
