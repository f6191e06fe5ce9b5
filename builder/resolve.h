/* From the plan's questions to the lock's answers: what the lock does not pin yet is looked up once and written there.
 *
 * Resolving fetches the base, the kernel and the package lists, never boots anything, and never fetches a package but a
 * kernel's, and those of the lock that stay though their archive has newer ones in their place. What the lock says of packages
 * stays as far as it can (builder/update.h). Each answered section is written at once, so that a failure later does not throw
 * away what is known. With env->locked nothing is resolved: a lock that does not answer is an error (-ENOKEY, kind usage). One thread. */
#ifndef IMGBUILD_BUILDER_RESOLVE_H
#define IMGBUILD_BUILDER_RESOLVE_H

#include "builder/env.h"
#include "builder/prepare.h"

/* Resolve what the lock in *p does not answer, write it, and compute the key. On success p->key_error is 0. */
int resolve_lock(const struct build_env *env, struct prepared *p, struct err *e) _must_check_;

/* Resolve anew what `names` says (builder/update.h; not NULL), and what the lock does not answer then. The lock is written when all
 * of it is known: a failure leaves it as it was. */
int resolve_update(const struct build_env *env, struct prepared *p, const struct strv *names, struct err *e) _must_check_;

#endif
