/* Files to be had, gathered and then fetched in one go: several at once, and when something is missing, all of it is named.
 *
 * Add what a build needs, run the list once; what the store has already costs nothing. Strings are copied. Releasing a list that was
 * never filled is fine. One thread. Errors: those of cache/fetch.h. */
#ifndef IMGBUILD_BUILDER_FETCH_LIST_H
#define IMGBUILD_BUILDER_FETCH_LIST_H

#include "builder/env.h"
#include "builder/prepare.h"

struct fetch_item {
	char *label;
	struct strv urls;
	struct digest sha256, sha512;
	uint64_t size_bytes, about_bytes;
};

struct fetch_list {
	struct fetch_item *items;
	size_t n, capacity;
	struct strv host_mirrors; /* --mirror host, read when the first package of an architecture is added */
	bool has_host_mirrors;
	enum arch host_mirrors_arch;
};

/* Add a file that is no package. What is in the list already by its SHA-256 is fetched once, from all their addresses. Its candidates are those of builder/candidates.h. */
int fetch_list_add(struct fetch_list *list, const struct build_env *env, const struct wanted_file *file, struct err *e)
	_must_check_;

/* Add n packages of the lock of p. */
int fetch_list_add_packages(struct fetch_list *list, const struct build_env *env, const struct prepared *p,
	const struct lock_package *packages, size_t n, struct err *e) _must_check_;

/* Add everything that building the plan takes and that its lock pins: kernel, packages, files by URL; and the base unless
 * `has_root`, when its root lies in the cache. */
int fetch_list_add_plan(struct fetch_list *list, const struct build_env *env, const struct prepared *p, bool has_root,
	struct err *e) _must_check_;

/* Fetch all of it into the store. What cannot be had does not keep the rest from coming; one error names all of it, and env->missing
 * lists it. */
int fetch_list_run(struct fetch_list *list, const struct build_env *env, struct err *e) _must_check_;

void fetch_list_release(struct fetch_list *list);
#define _cleanup_fetch_list_ _cleanup_(fetch_list_release)

#endif
