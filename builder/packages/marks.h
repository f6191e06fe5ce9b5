/* What apt would do: the marking pass, and a check of its result.
 *
 * The pass follows each request as apt-get does (see pkg_marks_run) and gives a target for each name: the version that is to be
 * there in the end. It does not search: where packages conflict it may end in a state that does not hold together;
 * pkg_marks_check() finds that out, and pkg_solve() then searches with the pass's result as its preference.
 *
 * The universe is lent and must outlive the marks; asking it for relations changes it.
 * Errors: -ENOMEM; -EBADMSG relations that do not parse. */
#ifndef IMGBUILD_BUILDER_PACKAGES_MARKS_H
#define IMGBUILD_BUILDER_PACKAGES_MARKS_H

#include "builder/packages/universe.h"

struct pkg_mark {
	uint32_t target; /* version, or UNIVERSE_NONE */
	bool requested;	 /* the plan names it */
	bool unwanted;	 /* the plan wants it out */
	bool firm;	 /* as good as requested: the only answer to a firm dependency */
	bool discarded;	 /* its candidate cannot go in */
	bool along;	 /* goes out with something unwanted that it depends on */
	bool kept;	 /* an earlier answer had it: preferred where there is a choice */
	bool was_removed; /* an earlier answer took it out of the base */
	uint32_t excluded_by; /* version that conflicts with a kept candidate; UNIVERSE_NONE */
	uint32_t otherwise; /* the candidate there would be, were another not kept; UNIVERSE_NONE: the same, or none */
};

/* A name that is kept in a version of an earlier answer, and that version is in the way of something. */
struct pkg_obstacle {
	uint32_t name;
	uint32_t owner;			     /* the version whose relation cannot be met; UNIVERSE_NONE: not known */
	const struct pkg_alternative *wants; /* that relation, lent by the universe */
	bool conflict;
};

struct pkg_marks {
	struct pkg_universe *u;
	struct pkg_mark *marks; /* by name; n of them, names that came later have no versions */
	uint32_t n;
	uint32_t *requests; /* names, in the order of the plan */
	size_t n_requests;
	uint32_t *present; /* names that have, or had, a target */
	size_t n_present;
	struct pkg_obstacle *obstacles; /* found by the last run; a name may be there several times */
	size_t n_obstacles;
	bool recommends;
	bool mending; /* what was broken on the way is seen to: nothing else moves along */
};

/* Begin with what is installed. */
int pkg_marks_init(struct pkg_marks *m, struct pkg_universe *u, bool recommends, struct err *e) _must_check_;
void pkg_marks_release(struct pkg_marks *m);
#define _cleanup_marks_ _cleanup_(pkg_marks_release)

/* Ask for a name's candidate, or for a name to be gone. */
int pkg_marks_request(struct pkg_marks *m, uint32_t name, struct err *e) _must_check_;
void pkg_marks_unwant(struct pkg_marks *m, uint32_t name);

/* Say that this name's candidate is the version that an earlier answer had, and which it would be otherwise. */
void pkg_marks_keep(struct pkg_marks *m, uint32_t name, uint32_t otherwise);

/* Forget what runs decided, and what is kept; requests and what is unwanted stay. */
void pkg_marks_reset(struct pkg_marks *m);

/* Run the pass. Where a kept version makes something impossible that its name's other candidate would not, the name is noted in
 * m->obstacles; the targets then may or may not hold together without it. */
int pkg_marks_run(struct pkg_marks *m, struct err *e) _must_check_;

/* Say whether the targets hold together: dependencies served, nothing conflicting, all requests met. What was
 * broken in the base already does not count. Returns 1 or 0 (with the first fault in `why`), or negative. */
int pkg_marks_check(struct pkg_marks *m, char *why, size_t why_size, struct err *e) _must_check_;

/* The target of a name. */
uint32_t pkg_marks_target(const struct pkg_marks *m, uint32_t name);

/* Find a present version that satisfies the alternative. UNIVERSE_NONE: none. */
uint32_t pkg_marks_find_present(const struct pkg_marks *m, const struct pkg_alternative *a);

/* Find what served a dependency in the base. UNIVERSE_NONE: nothing did. */
uint32_t pkg_marks_find_installed(const struct pkg_marks *m, const struct pkg_relations *relations, const struct pkg_dep *d);

/* Note that a name may be present, for those that set targets themselves. */
int pkg_marks_add_present(struct pkg_marks *m, uint32_t name, struct err *e) _must_check_;

/* Say whether this name may not go out: Essential, Important, Protected, held, or the init of the base. */
bool pkg_marks_is_vital(const struct pkg_marks *m, uint32_t name);

#endif
