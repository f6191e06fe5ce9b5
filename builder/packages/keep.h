/* The choice: a version for each name, with as much of an earlier answer in it as can stay.
 *
 * Without an earlier answer this is the marking pass and, where that does not hold together, the search. With one, the
 * candidate of each of its packages is the version it had. Where such a version is in the way of something (a dependency
 * that needs another, a conflict), it moves to the candidate it would have without, and whatever then no longer fits moves
 * with it; in the end each that moved is tried once more at its old version, so that only what must move does. Each is said
 * with its reason.
 *
 * Order of calls: pkg_keeping_load() when the universe has its lists and the status and is not finished;
 * pkg_keeping_apply() when it is; pkg_keeping_drop() for each name whose version the request itself says;
 * pkg_keeping_choose(). What is given to load is lent until release.
 *
 * What is not kept: a version that the base has reached itself; one that the base's preferences forbid now; one that no list
 * has any more and whose .deb can be had nowhere, or whose archive and suite are no source of this request, or for which
 * nobody vouched while the plan does not trust its archive, or somebody did whose key the plan may have replaced.
 * Limits: KEEP_TRIES_MAX choices are tried in all. */
#ifndef IMGBUILD_BUILDER_PACKAGES_KEEP_H
#define IMGBUILD_BUILDER_PACKAGES_KEEP_H

#include "builder/packages/marks.h"
#include "builder/packages/metadata.h"

enum { KEEP_TRIES_MAX = 128 };

struct keep_entry;

struct pkg_keeping {
	const struct pkg_keep *keep; /* NULL: there is no earlier answer */
	struct pkg_universe *u;
	struct progress *progress;
	struct keep_entry *entries;
	size_t n;
	int32_t first_list; /* of what no list has any more: this and the index in keep->items */
	unsigned tries;
	bool searched; /* the last try that was possible took the search */
	bool *removed_freely; /* by name: what goes out of the base when nothing is kept; NULL: not known */
	uint32_t n_removed_freely;
	bool cannot_freely;
};

/* Find the packages of the earlier answer in the universe, and add those that only their .debs tell of.
 * first_list  their lists' numbers: this one and those behind it */
int pkg_keeping_load(struct pkg_keeping *k, const struct pkg_keep *keep, const struct pkg_metadata *metadata,
	struct pkg_universe *u, int32_t first_list, struct progress *progress, struct err *e) _must_check_;
void pkg_keeping_release(struct pkg_keeping *k);

/* Make them the candidates. */
int pkg_keeping_apply(struct pkg_keeping *k, struct err *e) _must_check_;

/* Leave a name to its candidate: the request says which version. */
void pkg_keeping_drop(struct pkg_keeping *k, uint32_t name);

/* Choose the targets of m, which has the requests and what is unwanted. Returns 0; -EUNATCH: there is no solution. */
int pkg_keeping_choose(struct pkg_keeping *k, struct pkg_marks *m, struct err *e) _must_check_;

/* Find the package of the earlier answer that this version is; NULL: none. */
const struct pkg_kept *pkg_keeping_find(const struct pkg_keeping *k, uint32_t version);

/* Find the archive that a package came from among those of this request; NULL: it is none of them. */
const struct pkg_archive *pkg_kept_archive(const struct pkg_kept *item, const struct pkg_metadata *metadata);

/* Say whether a package of that archive, which no list has any more, may stay: one that was taken unsigned, at the plan's word, does
 * not outlive that word, nor one of a repository of the plan a key that may have been replaced. `archive` may be NULL. */
bool pkg_kept_is_vouched(const struct pkg_kept *item, const struct pkg_archive *archive);

#endif
