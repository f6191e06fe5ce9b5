/* The worker pool: the only place where threads are made.
 *
 * pool_run() calls work(ctx, i, e) once for each i in [0, n), several at a time, and returns when all have ended. After the
 * first failure no further item is started; its error is the one returned (of failures at the same time, the one with
 * the lowest i). work() must be safe to call from several threads. A pool of one thread runs in the caller, so that
 * sanitizers and fuzzers can do without threads. */
#ifndef IMGBUILD_LIB_POOL_H
#define IMGBUILD_LIB_POOL_H

#include "lib/err.h"

#include <stddef.h>

typedef int (*pool_work_fn)(void *ctx, size_t i, struct err *e);

/* n_threads: 0 for one per online processor (at most 16). */
int pool_run(unsigned n_threads, size_t n, pool_work_fn work, void *ctx, struct err *e) _must_check_;

/* The number of threads that 0 stands for. */
unsigned pool_default_threads(void);

#endif
