/* The verbs that only read entries: `ls` and `show`. They write their result to `out` and change nothing.
 * One thread; the store is borrowed. */
#ifndef IMGBUILD_BUILDER_CLI_ENTRIES_H
#define IMGBUILD_BUILDER_CLI_ENTRIES_H

#include "cache/store.h"

#include <stdbool.h>
#include <stdio.h>

/* List the finished images and the failed builds, one a line or as a JSON array. */
int entries_list(const struct store *store, bool json, FILE *out, struct err *e) _must_check_;

/* Show the entry that `prefix` means, a failed build's included: readably, or its manifest with the path as JSON. */
int entries_show(const struct store *store, const char *prefix, bool json, FILE *out, struct err *e) _must_check_;

#endif
