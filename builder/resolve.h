/* From the plan's questions to the lock's answers: what the lock does not pin yet is looked up once and written there.
 *
 * Resolving fetches the base, the kernel and the package lists, never boots anything, and never fetches a package but a
 * kernel's. Each answered section is written at once, so that a failure later does not throw away what is known. With
 * env->locked nothing is resolved: a lock that does not answer is an error (-ENOKEY, kind usage). One thread. */
#ifndef IMGBUILD_BUILDER_RESOLVE_H
#define IMGBUILD_BUILDER_RESOLVE_H

#include "builder/env.h"
#include "builder/prepare.h"

/* Resolve what the lock in *p does not answer, write it, and compute the key. On success p->key_error is 0. */
int resolve_lock(const struct build_env *env, struct prepared *p, struct err *e) _must_check_;

#endif
