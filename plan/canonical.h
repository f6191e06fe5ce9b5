/* Canonical JSON: one text for one value, so that its digest names the value.
 *
 * Objects' members are sorted by the UTF-16 code units of their names, strings are escaped in the one way, nothing is
 * between tokens. Numbers are integers only, within ±(2^53 - 1); reals are refused, since nothing of ours has one.
 *
 * SOURCE: RFC 8785 sections 3.2.1 to 3.2.4; escapes: 3.2.2.2; sorting: 3.2.3. Limit: CANONICAL_MAX_DEPTH levels. */
#ifndef IMGBUILD_PLAN_CANONICAL_H
#define IMGBUILD_PLAN_CANONICAL_H

#include "lib/buf.h"
#include "lib/digest.h"
#include "lib/err.h"

#include <jansson.h>
#include <stdint.h>

#define CANONICAL_MAX_DEPTH 64
#define CANONICAL_MAX_BYTES (64 << 20)

/* Append the canonical form of `value` (borrowed). Returns 0; -EINVAL for a real, an integer out of range or too deep a
 * value; -E2BIG or -ENOMEM from the buffer. */
int canonical_append(const json_t *value, struct buf *into, struct err *e) _must_check_;

/* Compute the SHA-256 of `prefix` followed by the canonical form. */
int canonical_digest(const char *prefix, const json_t *value, struct digest *ret, struct err *e) _must_check_;

#endif
