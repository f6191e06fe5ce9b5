/* What of a lock moves when it is resolved again, and what stays.
 *
 * `names` is what a person wants moved: NULL nothing, an empty list everything, else "base", "kernel", the name of a package of
 * the lock or the plan, "files:/dest" or "inputs:name". What is named is forgotten as an answer (update_forget), and left out of
 * the earlier answer that packages are chosen with (earlier_answer_init); all else stays while it can. With a snapshot in
 * the plan nothing is kept: then the plan itself says which packages there are.
 *
 * A struct earlier_answer borrows from the prepared plan and the environment, which must outlive it; it does not move in memory once it is
 * filled in. One thread. */
#ifndef IMGBUILD_BUILDER_UPDATE_H
#define IMGBUILD_BUILDER_UPDATE_H

#include "builder/env.h"
#include "builder/prepare.h"

/* Check that each name is known to one of the n architectures. Returns 0, or -ENOENT (kind usage) with all that are not, and
 * what is nearest to each. Nothing is fetched. */
int update_check_names(const struct prepared *prepared, size_t n, const struct strv *names, struct err *e) _must_check_;

/* Forget the answers that are to be given anew, keeping what they say. What the plan pins itself stays, and that is said. */
void update_forget(const struct build_env *env, struct prepared *p, const struct strv *names);

struct earlier_answer {
	const struct build_env *env;
	const struct prepared *p;
	struct pkg_keep keep;
	struct pkg_kept *items; /* of the packages first, then of the kernel */
	struct strv asked;
	bool is_there; /* there is something to be kept */
	struct pkg_known_release *releases; /* those that vouched for what the lock has, of any architecture */
	size_t n_releases;
};

/* Gather the earlier answer of the lock in *p. ret->keep gets at a .deb that no list has any more through the store or the network. */
int earlier_answer_init(const struct build_env *env, const struct prepared *p, const struct strv *names,
	struct earlier_answer *ret, struct err *e) _must_check_;
void earlier_answer_release(struct earlier_answer *a);
#define _cleanup_earlier_answer_ _cleanup_(earlier_answer_release)

#endif
