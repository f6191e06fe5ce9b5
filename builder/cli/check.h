/* `lock --check`: does the lock answer the plan? Part of the front, which is linked to nothing that could reach the network; it
 * writes nothing, not even in the cache. */
#ifndef IMGBUILD_BUILDER_CLI_CHECK_H
#define IMGBUILD_BUILDER_CLI_CHECK_H

#include "builder/cli/options.h"
#include "builder/cli/terminal.h"
#include "cache/store.h"

/* Say on stderr, and with --json as an array of {"arch", "reason"} on stdout, everything that the plan asks and its lock does not answer, for every architecture that the plan describes or
 * for that of --arch. Returns the exit status: 0 the lock answers; 2 it does not, or the plan or the lock is wrong. */
int check_lock(const struct options *o, const struct store *store, struct terminal *t);

#endif
