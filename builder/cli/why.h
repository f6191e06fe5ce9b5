/* `imgbuild why PLAN [KEY]`: what differs between a plan and the nearest entry of the cache, or the one that is named.
 *
 * Reads only, needs no network, and belongs to the front. The result goes to `out`, as text for people or as one JSON object
 * (described in the manual, and stable). Every string of a plan or an entry is sanitized for the terminal. */
#ifndef IMGBUILD_BUILDER_CLI_WHY_H
#define IMGBUILD_BUILDER_CLI_WHY_H

#include "builder/prepare.h"

#include <stdbool.h>
#include <stdio.h>

/* Compare and print.
 * p         loaded; it may lack a key, where the lock does not answer
 * prefix    of the key of an entry or a failed build; NULL: the nearest entry
 * progress  gets remarks that are no part of the answer: entries that were passed over
 * Returns 0, whether it is a hit or not; -ENOENT and the like (kind usage) for the prefix; -EBADMSG the named entry is damaged. */
int why_print(const struct prepared *p, const struct store *store, const char *prefix, bool json, struct progress *progress,
	FILE *out, struct err *e) _must_check_;

#endif
