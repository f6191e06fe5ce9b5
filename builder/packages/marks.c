#include "builder/packages/marks.h"

#include <string.h>

enum { DEPTH_MAX = 1000 };

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

int pkg_marks_add_present(struct pkg_marks *m, uint32_t name, struct err *e)
{
	uint32_t *present;

	for (size_t i = 0; i < m->n_present; i++)
		if (m->present[i] == name)
			return 0;
	present = reallocarray(m->present, m->n_present + 1, sizeof(*present));
	if (!present)
		return out_of_memory(e);
	m->present = present;
	m->present[m->n_present++] = name;
	return 0;
}

int pkg_marks_init(struct pkg_marks *m, struct pkg_universe *u, bool recommends, struct err *e)
{
	size_t installed = 0;

	*m = (struct pkg_marks){ .u = u, .n = u->n_names, .recommends = recommends };
	m->marks = calloc(u->n_names ? u->n_names : 1, sizeof(*m->marks));
	for (uint32_t i = 0; i < m->n; i++)
		installed += u->names[i].installed != UNIVERSE_NONE;
	m->present = calloc(installed ? installed : 1, sizeof(*m->present));
	if (!m->marks || !m->present)
		return out_of_memory(e);
	pkg_marks_reset(m);
	return 0;
}

void pkg_marks_reset(struct pkg_marks *m)
{
	m->n_present = 0;
	m->n_obstacles = 0;
	m->mending = false;
	for (uint32_t i = 0; i < m->n; i++) {
		const struct pkg_mark before = m->marks[i];

		m->marks[i] = (struct pkg_mark){ .target = m->u->names[i].installed,
			.requested = before.requested,
			.unwanted = before.unwanted,
			.firm = before.requested,
			.excluded_by = UNIVERSE_NONE,
			.otherwise = UNIVERSE_NONE };
		if (m->u->names[i].installed != UNIVERSE_NONE)
			m->present[m->n_present++] = i;
	}
}

void pkg_marks_release(struct pkg_marks *m)
{
	free(m->marks);
	free(m->requests);
	free(m->present);
	free(m->obstacles);
	*m = (struct pkg_marks){ 0 };
}

int pkg_marks_request(struct pkg_marks *m, uint32_t name, struct err *e)
{
	uint32_t *requests;

	if (m->marks[name].requested)
		return 0;
	requests = reallocarray(m->requests, m->n_requests + 1, sizeof(*requests));
	if (!requests)
		return out_of_memory(e);
	m->requests = requests;
	m->requests[m->n_requests++] = name;
	m->marks[name].requested = m->marks[name].firm = true;
	return 0;
}

void pkg_marks_unwant(struct pkg_marks *m, uint32_t name)
{
	if (name < m->n)
		m->marks[name].unwanted = true;
}

void pkg_marks_keep(struct pkg_marks *m, uint32_t name, uint32_t otherwise)
{
	if (name >= m->n)
		return;
	m->marks[name].kept = true;
	m->marks[name].otherwise = otherwise == m->u->names[name].candidate ? UNIVERSE_NONE : otherwise;
}

/* Note a kept name that is in the way. */
static int note_obstacle(struct pkg_marks *m, const struct pkg_obstacle *obstacle, struct err *e)
{
	struct pkg_obstacle *more = reallocarray(m->obstacles, m->n_obstacles + 1, sizeof(*more));

	if (!more)
		return out_of_memory(e);
	m->obstacles = more;
	more[m->n_obstacles++] = *obstacle;
	return 0;
}

/* Drop the obstacles from..to: what they were in the way of was served otherwise. */
static void forget_obstacles(struct pkg_marks *m, size_t from, size_t to)
{
	if (to > from)
		memmove(m->obstacles + from, m->obstacles + to, (m->n_obstacles - to) * sizeof(*m->obstacles));
	m->n_obstacles -= to - from;
}

uint32_t pkg_marks_target(const struct pkg_marks *m, uint32_t name)
{
	return name < m->n ? m->marks[name].target : UNIVERSE_NONE;
}

bool pkg_marks_is_vital(const struct pkg_marks *m, uint32_t name)
{
	static const char *const inits[] = { "init", "systemd-sysv", "sysvinit-core", "runit-init", "dpkg", "systemd" };
	uint32_t installed = m->u->names[name].installed;
	const struct pkg_version *v;

	if (installed == UNIVERSE_NONE)
		return false;
	v = &m->u->versions[installed];
	if (v->essential || v->important || v->protected || v->hold)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(inits); i++)
		if (strcmp(m->u->names[name].text, inits[i]) == 0)
			return true;
	return false;
}

uint32_t pkg_marks_find_present(const struct pkg_marks *m, const struct pkg_alternative *a)
{
	const struct pkg_name *name = &m->u->names[a->name];
	uint32_t t = pkg_marks_target(m, a->name);

	if (t != UNIVERSE_NONE && pkg_universe_satisfies(m->u, t, a))
		return t;
	for (uint32_t i = 0; i < name->n_providers; i++) {
		uint32_t v = name->providers[i].version;

		if (pkg_marks_target(m, m->u->versions[v].name) == v && pkg_universe_satisfies(m->u, v, a))
			return v;
	}
	return UNIVERSE_NONE;
}

uint32_t pkg_marks_find_installed(const struct pkg_marks *m, const struct pkg_relations *relations, const struct pkg_dep *d)
{
	for (uint32_t i = 0; i < d->n; i++) {
		const struct pkg_alternative *a = &relations->alternatives[d->first + i];
		const struct pkg_name *name = &m->u->names[a->name];

		for (uint32_t p = 0; p <= name->n_providers; p++) {
			uint32_t v = p < name->n_providers ? name->providers[p].version : name->installed;

			if (v != UNIVERSE_NONE && m->u->versions[v].installed && pkg_universe_satisfies(m->u, v, a))
				return v;
		}
	}
	return UNIVERSE_NONE;
}

static bool dep_is_positive(const struct pkg_dep *d)
{
	return d->kind <= PKG_DEP_RECOMMENDS;
}

static bool dep_is_hard(const struct pkg_dep *d)
{
	return d->kind <= PKG_DEP_DEPENDS;
}

static bool dep_is_served(const struct pkg_marks *m, const struct pkg_relations *r, const struct pkg_dep *d)
{
	for (uint32_t i = 0; i < d->n; i++)
		if (pkg_marks_find_present(m, &r->alternatives[d->first + i]) != UNIVERSE_NONE)
			return true;
	return false;
}

/* Whether the candidate of a name could go in, as far as is known. */
static bool can_go_in(const struct pkg_marks *m, uint32_t version)
{
	uint32_t name = m->u->versions[version].name;
	const struct pkg_mark *mark = &m->marks[name];

	return m->u->names[name].candidate == version && !mark->unwanted &&
	       (!mark->discarded || m->u->names[name].installed == version);
}

/* The candidates that would serve an alternative. */
struct answers {
	uint32_t *versions;
	size_t n, capacity;
};

static void answers_release(struct answers *a)
{
	free(a->versions);
	*a = (struct answers){ 0 };
}

static int answers_add(struct answers *a, uint32_t version, struct err *e)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->versions[i] == version)
			return 0;
	if (a->n == a->capacity) {
		size_t capacity = a->capacity ? 2 * a->capacity : 8;
		uint32_t *versions = reallocarray(a->versions, capacity, sizeof(*versions));

		if (!versions)
			return out_of_memory(e);
		a->versions = versions;
		a->capacity = capacity;
	}
	a->versions[a->n++] = version;
	return 0;
}

static int collect_answers(const struct pkg_marks *m, const struct pkg_alternative *alternative, struct answers *ret,
	struct err *e)
{
	const struct pkg_name *name = &m->u->names[alternative->name];

	if (name->candidate != UNIVERSE_NONE && can_go_in(m, name->candidate) &&
		pkg_universe_satisfies(m->u, name->candidate, alternative) && answers_add(ret, name->candidate, e) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < name->n_providers; i++) {
		uint32_t v = name->providers[i].version;

		if (can_go_in(m, v) && pkg_universe_satisfies(m->u, v, alternative) && answers_add(ret, v, e) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* Whether a is a better answer than b to an alternative of that name. */
static bool answer_is_better(const struct pkg_marks *m, uint32_t wanted_name, uint32_t a, uint32_t b)
{
	const struct pkg_version *va = &m->u->versions[a], *vb = &m->u->versions[b];
	const int comparisons[] = {
		(int)m->marks[va->name].firm - (int)m->marks[vb->name].firm,
		(int)(m->u->names[va->name].installed != UNIVERSE_NONE) - (int)(m->u->names[vb->name].installed != UNIVERSE_NONE),
		(int)(va->name == wanted_name) - (int)(vb->name == wanted_name),
		(int)va->essential - (int)vb->essential,
		(int)va->important - (int)vb->important,
		(int)vb->standing - (int)va->standing,
	};

	for (size_t i = 0; i < ARRAY_SIZE(comparisons); i++)
		if (comparisons[i] != 0)
			return comparisons[i] > 0;
	return va->name > vb->name;
}

static void answers_sort(const struct pkg_marks *m, uint32_t wanted_name, struct answers *a)
{
	for (size_t i = 1; i < a->n; i++) {
		uint32_t one = a->versions[i];
		size_t k = i;

		for (; k > 0 && answer_is_better(m, wanted_name, one, a->versions[k - 1]); k--)
			a->versions[k] = a->versions[k - 1];
		a->versions[k] = one;
	}
}

static int set_target(struct pkg_marks *m, uint32_t name, uint32_t version, struct err *e)
{
	m->marks[name].target = version;
	return pkg_marks_add_present(m, name, e);
}

static int install(struct pkg_marks *m, uint32_t name, bool follow, unsigned depth, struct err *e);

static bool goes_in(const struct pkg_marks *m, uint32_t name)
{
	return m->marks[name].target != UNIVERSE_NONE && m->marks[name].target != m->u->names[name].installed;
}

static bool goes_out(const struct pkg_marks *m, uint32_t name)
{
	return m->marks[name].target == UNIVERSE_NONE && m->u->names[name].installed != UNIVERSE_NONE;
}

/* Whether a package may be taken out again, or out of the base. */
static bool can_go_out(const struct pkg_marks *m, uint32_t name)
{
	return !m->marks[name].firm && !pkg_marks_is_vital(m, name);
}

/* Give up a candidate: the name stays as it was in the base. */
static void discard(struct pkg_marks *m, uint32_t name)
{
	m->marks[name].target = m->u->names[name].installed;
	m->marks[name].discarded = true;
}

/* One of the negative relations of `relations` that a version meets. */
static const struct pkg_alternative *find_conflict(const struct pkg_marks *m, const struct pkg_relations *relations,
	uint32_t owner_name, uint32_t version)
{
	if (m->u->versions[version].name == owner_name)
		return NULL;
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_alternative *a = &relations->alternatives[relations->deps[i].first];

		if (!dep_is_positive(&relations->deps[i]) && pkg_universe_satisfies(m->u, version, a))
			return a;
	}
	return NULL;
}

/* Whether two versions cannot be there together. Returns 1, 0 or negative. */
static int versions_conflict(struct pkg_marks *m, uint32_t a, uint32_t b, struct err *e)
{
	const struct pkg_relations *ra = pkg_universe_relations(m->u, a, e), *rb = pkg_universe_relations(m->u, b, e);

	if (!ra || !rb)
		return e->code;
	return find_conflict(m, ra, m->u->versions[a].name, b) || find_conflict(m, rb, m->u->versions[b].name, a);
}

/* Note which of two kept versions that conflict could be another that does not. `there` is the one that would have to go. */
static int note_conflict(struct pkg_marks *m, uint32_t version, uint32_t there, struct err *e)
{
	uint32_t sides[2] = { there, version };

	if (m->marks[m->u->versions[there].name].was_removed)
		return 0;
	for (int i = 0; i < 2; i++) {
		struct pkg_obstacle one = { .name = m->u->versions[sides[i]].name, .owner = sides[!i], .conflict = true };
		uint32_t otherwise = m->marks[one.name].otherwise;
		int r;

		if (otherwise == UNIVERSE_NONE || m->u->names[one.name].candidate != sides[i])
			continue;
		r = versions_conflict(m, otherwise, sides[!i], e);
		if (r == 0)
			r = note_obstacle(m, &one, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What has to happen before and after a version goes in. */
struct room {
	struct answers upgrade; /* installed packages that must move to their candidate, by their installed version */
	struct answers remove;	/* ...that must go out once all else has worked */
};

static void room_release(struct room *r)
{
	answers_release(&r->upgrade);
	answers_release(&r->remove);
}

/* An installed package has to go for a version: at once and for good when that is firm, else when all else has worked.
 * Returns 1, 0 or negative. */
static int take_out(struct pkg_marks *m, uint32_t name, bool firm, struct room *room, struct err *e)
{
	struct pkg_mark *mark = &m->marks[name];

	if (!goes_out(m, name)) {
		if (!can_go_out(m, name))
			return 0;
		if (!firm)
			return answers_add(&room->remove, m->u->names[name].installed, e) < 0 ? -ENOMEM : 1;
		mark->target = UNIVERSE_NONE;
	}
	if (firm)
		mark->discarded = mark->firm = true;
	return 1;
}

/* Make room for `by`: see that a candidate, which it excludes, does not go in. Returns 1, 0 or negative. */
static int exclude_candidate(struct pkg_marks *m, uint32_t by, uint32_t version, bool firm, struct room *room, struct err *e)
{
	uint32_t name = m->u->versions[version].name;
	struct pkg_mark *mark = &m->marks[name];

	if (!can_go_in(m, version))
		return 1;
	if (mark->target == version && note_conflict(m, by, version, e) < 0)
		return e->code;
	if (m->u->names[name].installed == version)
		return take_out(m, name, firm, room, e);
	if (goes_in(m, name)) {
		if (mark->firm)
			return 0;
		mark->target = m->u->names[name].installed;
	}
	if (firm) {
		mark->discarded = true;
		if (mark->kept)
			mark->excluded_by = by;
	}
	return 1;
}

/* The installed package `name` is in the way of a version: it moves to a candidate that is not, or goes out.
 * Returns 1, 0 or negative. */
static int exclude_installed(struct pkg_marks *m, uint32_t version, uint32_t name, bool firm, struct room *room, struct err *e)
{
	uint32_t installed = m->u->names[name].installed, candidate = m->u->names[name].candidate;
	int r = 1;

	if (candidate != UNIVERSE_NONE && candidate != installed && can_go_in(m, candidate))
		r = versions_conflict(m, version, candidate, e);
	if (r < 0)
		return r;
	if (r == 0)
		return answers_add(&room->upgrade, installed, e) < 0 ? -ENOMEM : 1;
	r = note_conflict(m, version, installed, e);
	return r < 0 ? r : take_out(m, name, firm, room, e);
}

/* Make room for a version as its own conflicts say, and then as those of what is there. A firm one goes through all of
 * them; another ends at the first that cannot be. Returns 1; 0 when something that must stay is in the way; negative. */
static int clear_conflicts(struct pkg_marks *m, uint32_t version, bool firm, struct room *room, struct err *e)
{
	const struct pkg_relations *relations = pkg_universe_relations(m->u, version, e);
	uint32_t own = m->u->versions[version].name;
	int result = 1;

	if (!relations)
		return e->code;
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_alternative *a = &relations->alternatives[relations->deps[i].first];
		uint32_t n = m->u->names[a->name].n_providers;

		if (dep_is_positive(&relations->deps[i]))
			continue;
		for (uint32_t k = 0; k <= n + 1; k++) {
			uint32_t v = k < n	 ? m->u->names[a->name].providers[k].version :
				     k == n ? m->u->names[a->name].candidate :
					      m->u->names[a->name].installed;
			uint32_t owner = v == UNIVERSE_NONE ? own : m->u->versions[v].name;
			int r = 1;

			if (owner == own || !pkg_universe_satisfies(m->u, v, a))
				continue;
			if (m->u->names[owner].candidate == v)
				r = exclude_candidate(m, version, v, firm, room, e);
			if (r > 0 && m->u->names[owner].installed == v && m->marks[owner].target == v)
				r = exclude_installed(m, version, owner, firm, room, e);
			if (r < 0 || (r == 0 && !firm))
				return r;
			result &= r;
		}
	}
	for (size_t i = 0; i < m->n_present; i++) {
		uint32_t other = m->present[i], target = pkg_marks_target(m, other);
		const struct pkg_relations *theirs;
		int r = 1;

		if (target == UNIVERSE_NONE || other == own)
			continue;
		theirs = pkg_universe_relations(m->u, target, e);
		if (!theirs)
			return e->code;
		if (!find_conflict(m, theirs, other, version))
			continue;
		if (target == m->u->names[other].installed)
			r = exclude_installed(m, version, other, firm, room, e);
		else
			r = exclude_candidate(m, version, target, firm, room, e);
		if (r < 0 || (r == 0 && !firm))
			return r;
		result &= r;
	}
	return result;
}

/* What is installed and needed the old version, by its own name, moves along when it has a newer one itself. */
static int note_dependents(struct pkg_marks *m, uint32_t version, struct room *room, struct err *e)
{
	const struct pkg_universe *u = m->u;
	uint32_t name = u->versions[version].name, before = u->names[name].installed;

	if (before == UNIVERSE_NONE || before == version)
		return 1;
	for (size_t i = 0; i < m->n_present; i++) {
		uint32_t other = m->present[i], installed = u->names[other].installed;
		const struct pkg_relations *relations;

		if (other == name || installed == UNIVERSE_NONE || m->marks[other].target != installed)
			continue;
		relations = pkg_universe_relations(m->u, installed, e);
		if (!relations)
			return e->code;
		for (size_t k = 0; k < relations->n_deps; k++) {
			const struct pkg_dep *d = &relations->deps[k];

			if (!dep_is_hard(d))
				continue;
			for (uint32_t n = 0; n < d->n; n++) {
				const struct pkg_alternative *a = &relations->alternatives[d->first + n];

				if (a->name == name && pkg_universe_satisfies(u, before, a) &&
					!pkg_universe_satisfies(u, version, a) &&
					answers_add(&room->upgrade, installed, e) < 0)
					return -ENOMEM;
			}
		}
	}
	return 1;
}

/* Installed packages built from the same source follow to the same source version: all are marked, then followed. */
static int bring_siblings(struct pkg_marks *m, uint32_t version, unsigned depth, struct err *e)
{
	const struct pkg_universe *u = m->u;
	_cleanup_(answers_release) struct answers siblings = { 0 };
	size_t n = m->n_present;

	for (size_t i = 0; i < n; i++) {
		uint32_t other = m->present[i], installed = u->names[other].installed, candidate = u->names[other].candidate;

		if (installed == UNIVERSE_NONE || candidate == UNIVERSE_NONE || candidate == installed ||
			m->marks[other].target != installed || other == u->versions[version].name || m->marks[other].discarded)
			continue;
		if (strcmp(u->versions[candidate].source, u->versions[version].source) != 0 ||
			strcmp(u->versions[candidate].source_version, u->versions[version].source_version) != 0)
			continue;
		if (answers_add(&siblings, candidate, e) < 0)
			return -ENOMEM;
	}
	for (int follow = 0; follow < 2; follow++) {
		for (size_t i = 0; i < siblings.n; i++) {
			size_t before = m->n_obstacles;
			int r = install(m, u->versions[siblings.versions[i]].name, follow, depth + 1, e);

			if (r < 0)
				return r;
			if (r == 0)
				forget_obstacles(m, before, m->n_obstacles);
		}
	}
	return 1;
}

/* Move or remove what was found to be in the way. Returns 1, 0 or negative. */
static int make_room(struct pkg_marks *m, const struct room *room, bool firm, unsigned depth, struct err *e)
{
	int result = 1;

	for (size_t i = 0; i < room->upgrade.n; i++) {
		uint32_t name = m->u->versions[room->upgrade.versions[i]].name;
		int r = goes_in(m, name) ? 1 : install(m, name, true, depth + 1, e);

		if (r < 0)
			return r;
		if (r > 0)
			continue;
		if (!can_go_out(m, name)) {
			if (!firm)
				return 0;
			result = 0;
			continue;
		}
		m->marks[name].target = UNIVERSE_NONE;
		m->marks[name].firm |= firm;
	}
	return result;
}

/* Note the kept names whose other candidate would serve a dependency that could not be served. */
static int note_unserved(struct pkg_marks *m, uint32_t owner, const struct pkg_relations *relations, const struct pkg_dep *d,
	struct err *e)
{
	for (uint32_t i = 0; i < d->n; i++) {
		const struct pkg_alternative *a = &relations->alternatives[d->first + i];
		const struct pkg_name *name = &m->u->names[a->name];

		for (uint32_t p = 0; p <= name->n_providers; p++) {
			uint32_t v = p < name->n_providers ? name->providers[p].version : name->first;
			struct pkg_obstacle one = { .owner = owner, .wants = a };
			uint32_t otherwise;

			if (v == UNIVERSE_NONE)
				continue;
			one.name = m->u->versions[v].name;
			otherwise = one.name < m->n ? m->marks[one.name].otherwise : UNIVERSE_NONE;
			if (otherwise == UNIVERSE_NONE || !pkg_universe_satisfies(m->u, otherwise, a))
				continue;
			if (m->marks[one.name].excluded_by != UNIVERSE_NONE)
				one = (struct pkg_obstacle){ .name = one.name, .owner = m->marks[one.name].excluded_by,
					.conflict = true };
			if (note_obstacle(m, &one, e) < 0)
				return -ENOMEM;
		}
	}
	return 0;
}

/* How near a name is to being there: 2 an earlier answer had it, 1 it is installed in whatever version, 0 it would be new. */
static int nearness(const struct pkg_marks *m, uint32_t name)
{
	if (name < m->n && m->marks[name].kept)
		return 2;
	return m->u->names[name].installed != UNIVERSE_NONE;
}

/* The candidates that could serve a dependency, best first: what is there in whatever version, then in the order written. */
static int find_answers(const struct pkg_marks *m, const struct pkg_relations *relations, const struct pkg_dep *d,
	struct answers *ret, struct err *e)
{
	for (int near = 2; near >= 0; near--) {
		for (uint32_t i = 0; i < d->n; i++) {
			const struct pkg_alternative *a = &relations->alternatives[d->first + i];
			_cleanup_(answers_release) struct answers answers = { 0 };

			if (collect_answers(m, a, &answers, e) < 0)
				return -ENOMEM;
			answers_sort(m, a->name, &answers);
			for (size_t k = 0; k < answers.n; k++)
				if (nearness(m, m->u->versions[answers.versions[k]].name) == near &&
					answers_add(ret, answers.versions[k], e) < 0)
					return -ENOMEM;
		}
	}
	return 0;
}

/* Make the only thing that can serve a firm package's dependency firm as well, when it is there already. */
static int propagate_firm(struct pkg_marks *m, const struct pkg_relations *relations, const struct pkg_dep *d, unsigned depth,
	struct err *e)
{
	_cleanup_(answers_release) struct answers answers = { 0 };
	uint32_t name;

	if (find_answers(m, relations, d, &answers, e) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->n; i++) {
		uint32_t there = pkg_marks_find_present(m, &relations->alternatives[d->first + i]);

		if (there != UNIVERSE_NONE && answers_add(&answers, there, e) < 0)
			return -ENOMEM;
	}
	if (answers.n != 1)
		return 1;
	name = m->u->versions[answers.versions[0]].name;
	if (m->marks[name].firm)
		return 1;
	m->marks[name].firm = true;
	/* What is there serves it and its candidate would not: it stays as it is. */
	if (m->u->names[name].candidate != answers.versions[0])
		return 1;
	return install(m, name, true, depth + 1, e);
}

/* Serve one dependency that nothing present serves. Returns 1, 0 when it cannot be served, negative. */
static int serve(struct pkg_marks *m, uint32_t owner, const struct pkg_relations *relations, const struct pkg_dep *d, bool firm,
	unsigned depth, struct err *e)
{
	_cleanup_(answers_release) struct answers answers = { 0 };
	size_t before = m->n_obstacles;

	if (find_answers(m, relations, d, &answers, e) < 0)
		return -ENOMEM;
	for (size_t k = 0; k < answers.n; k++) {
		uint32_t name = m->u->versions[answers.versions[k]].name;
		size_t failed = m->n_obstacles;
		int r = 1;

		if (!can_go_in(m, answers.versions[k]))
			continue;
		if (firm && dep_is_hard(d) && answers.n == 1) {
			r = install(m, name, false, depth + 1, e);
			if (r > 0)
				m->marks[name].firm = true;
		}
		if (r > 0)
			r = install(m, name, true, depth + 1, e);
		if (r > 0)
			forget_obstacles(m, before, failed);
		if (r != 0)
			return r;
	}
	if (!dep_is_hard(d)) {
		forget_obstacles(m, before, m->n_obstacles);
		return 0;
	}
	return note_unserved(m, owner, relations, d, e);
}

/* A name that is kept and cannot go in: another version of it might. */
static int note_kept(struct pkg_marks *m, uint32_t name, uint32_t owner, const struct pkg_alternative *wants, struct err *e)
{
	const struct pkg_obstacle one = { .name = name, .owner = owner, .wants = wants };

	return m->marks[name].otherwise == UNIVERSE_NONE ? 0 : note_obstacle(m, &one, e);
}

/* Whether something, there or not yet, could serve every dependency of a version. Returns 1, 0 or negative. */
static int could_be_served(struct pkg_marks *m, uint32_t version, const struct pkg_relations *relations, struct err *e)
{
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_dep *d = &relations->deps[i];
		_cleanup_(answers_release) struct answers answers = { 0 };

		if (!dep_is_hard(d) || dep_is_served(m, relations, d))
			continue;
		if (find_answers(m, relations, d, &answers, e) < 0)
			return -ENOMEM;
		if (answers.n > 0)
			continue;
		if (note_unserved(m, version, relations, d, e) < 0)
			return e->code;
		return note_kept(m, m->u->versions[version].name, version, &relations->alternatives[d->first], e);
	}
	return 1;
}

/* Whether something else that is there meets a negative relation. */
static bool is_in_conflict(const struct pkg_marks *m, uint32_t own, const struct pkg_alternative *a)
{
	const struct pkg_name *name = &m->u->names[a->name];

	for (uint32_t k = 0; k <= name->n_providers; k++) {
		uint32_t v = k < name->n_providers ? name->providers[k].version : pkg_marks_target(m, a->name);

		if (v != UNIVERSE_NONE && m->u->versions[v].name != own && pkg_marks_target(m, m->u->versions[v].name) == v &&
			pkg_universe_satisfies(m->u, v, a))
			return true;
	}
	return false;
}

/* Whether what a target needs is there, and nothing that it excludes. */
static bool is_served(const struct pkg_marks *m, uint32_t own, const struct pkg_relations *relations)
{
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_dep *d = &relations->deps[i];

		if (!dep_is_positive(d)) {
			if (is_in_conflict(m, own, &relations->alternatives[d->first]))
				return false;
		} else if ((dep_is_hard(d) || m->recommends) && !dep_is_served(m, relations, d)) {
			return false;
		}
	}
	return true;
}

/* Whether a recommendation of a package that is in the base is to be followed: when it is new, or was served there. */
static int recommendation_counts(struct pkg_marks *m, uint32_t name, uint32_t wanted, struct err *e)
{
	uint32_t installed = m->u->names[name].installed;
	const struct pkg_relations *old;
	bool is_new = true;

	if (installed == UNIVERSE_NONE)
		return 1;
	old = pkg_universe_relations(m->u, installed, e);
	if (!old)
		return e->code;
	for (size_t i = 0; i < old->n_deps; i++) {
		const struct pkg_dep *d = &old->deps[i];

		if (d->kind != PKG_DEP_RECOMMENDS)
			continue;
		for (uint32_t k = 0; k < d->n; k++) {
			if (old->alternatives[d->first + k].name != wanted)
				continue;
			is_new = false;
			if (pkg_marks_find_installed(m, old, d) != UNIVERSE_NONE)
				return 1;
		}
	}
	return is_new;
}

/* See to all that a version needs. A firm one goes on where something fails. Returns 1, 0 or negative. */
static int serve_all(struct pkg_marks *m, uint32_t version, bool firm, unsigned depth, struct err *e)
{
	const struct pkg_relations *relations = pkg_universe_relations(m->u, version, e);
	int result = 1;

	if (!relations)
		return e->code;
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_dep *d = &relations->deps[i];
		bool hard = dep_is_hard(d);
		int r = 1;

		if (!dep_is_positive(d) || (!hard && !m->recommends))
			continue;
		if (dep_is_served(m, relations, d)) {
			if (firm && hard)
				r = propagate_firm(m, relations, d, depth, e);
		} else {
			if (!hard)
				r = recommendation_counts(m, m->u->versions[version].name, relations->alternatives[d->first].name, e);
			if (r > 0)
				r = serve(m, version, relations, d, firm, depth, e);
		}
		if (r < 0)
			return r;
		if (r == 0 && hard) {
			r = note_kept(m, m->u->versions[version].name, version, &relations->alternatives[d->first], e);
			if (r < 0 || !firm)
				return r;
			result = 0;
		}
	}
	return result;
}

/* The part of install() that follows what the candidate needs and excludes. */
static int follow_candidate(struct pkg_marks *m, uint32_t name, unsigned depth, struct err *e)
{
	uint32_t candidate = m->u->names[name].candidate;
	bool firm = m->marks[name].firm, early = !firm;
	_cleanup_(room_release) struct room room = { 0 };
	int r = clear_conflicts(m, candidate, firm, &room, e), result = 1;

	if (r >= 0 && (r > 0 || !early)) {
		result &= r;
		r = note_dependents(m, candidate, &room, e);
	}
	if (r < 0 || (r == 0 && early))
		return r;
	if (m->marks[name].target != candidate) {
		r = set_target(m, name, candidate, e);
		if (r < 0)
			return r;
	}
	/* While it is being followed nothing may take it out. */
	m->marks[name].firm = true;
	r = m->u->names[name].installed != candidate && !m->mending ? bring_siblings(m, candidate, depth, e) : 1;
	if (r > 0) {
		r = make_room(m, &room, firm, depth, e);
		result &= r != 0;
	}
	if (r > 0 || (r == 0 && firm)) {
		r = serve_all(m, candidate, firm, depth, e);
		result &= r != 0;
	}
	for (size_t i = 0; i < room.remove.n && (r > 0 || (r == 0 && firm)); i++) {
		uint32_t out = m->u->versions[room.remove.versions[i]].name;

		r = goes_out(m, out) || can_go_out(m, out);
		if (r > 0)
			m->marks[out].target = UNIVERSE_NONE;
		result &= r;
	}
	m->marks[name].firm = firm;
	if (r == 0 && early)
		discard(m, name);
	return r < 0 ? r : result;
}

/* Mark the candidate of a name, and with `follow` all it needs. Returns 1, 0 when that cannot be, negative on errors. */
static int install(struct pkg_marks *m, uint32_t name, bool follow, unsigned depth, struct err *e)
{
	uint32_t candidate = m->u->names[name].candidate, installed = m->u->names[name].installed;
	struct pkg_mark *mark = &m->marks[name];
	const struct pkg_relations *relations;
	int r;

	if (candidate == UNIVERSE_NONE || depth > DEPTH_MAX || !can_go_in(m, candidate))
		return note_kept(m, name, UNIVERSE_NONE, NULL, e);
	/* What was decided for good stays; a firm package of the base may be here to have its dependencies made firm. */
	if (mark->firm && mark->target != candidate)
		return 0;
	relations = pkg_universe_relations(m->u, candidate, e);
	if (!relations)
		return e->code;
	if (!mark->firm && mark->target == candidate && is_served(m, name, relations))
		return 1;
	if (!mark->firm && candidate == installed && mark->target == UNIVERSE_NONE && is_served(m, name, relations)) {
		mark->target = installed;
		return 1;
	}
	if (follow && candidate != installed) {
		r = could_be_served(m, candidate, relations, e);
		if (r <= 0) {
			if (r == 0 && !mark->firm)
				discard(m, name);
			return r;
		}
	}
	if (!follow)
		return set_target(m, name, candidate, e) < 0 ? e->code : 1;
	return follow_candidate(m, name, depth, e);
}

/* Mark what can be reached from a version: every present package that serves a dependency or a recommendation. */
static int reach(struct pkg_marks *m, uint32_t version, bool *reached, struct answers *queue, struct err *e)
{
	const struct pkg_relations *relations = pkg_universe_relations(m->u, version, e);

	if (!relations)
		return e->code;
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_dep *d = &relations->deps[i];

		if (!dep_is_positive(d))
			continue;
		for (uint32_t k = 0; k < d->n; k++) {
			const struct pkg_alternative *a = &relations->alternatives[d->first + k];
			const struct pkg_name *name = &m->u->names[a->name];

			for (uint32_t p = 0; p <= name->n_providers; p++) {
				uint32_t v = p < name->n_providers ? name->providers[p].version : pkg_marks_target(m, a->name);
				uint32_t owner;

				if (v == UNIVERSE_NONE)
					continue;
				owner = m->u->versions[v].name;
				if (reached[owner] || pkg_marks_target(m, owner) != v || !pkg_universe_satisfies(m->u, v, a))
					continue;
				reached[owner] = true;
				if (answers_add(queue, v, e) < 0)
					return -ENOMEM;
			}
		}
	}
	return 0;
}

/* Drop new packages that nothing needs: they were tried and not used. */
static int drop_unreached(struct pkg_marks *m, struct err *e)
{
	_cleanup_free_ bool *reached = calloc(m->n ? m->n : 1, sizeof(*reached));
	_cleanup_(answers_release) struct answers queue = { 0 };

	if (!reached)
		return out_of_memory(e);
	for (size_t i = 0; i < m->n_present; i++) {
		uint32_t name = m->present[i], target = m->marks[name].target;

		if (target == UNIVERSE_NONE || !(m->marks[name].requested || m->u->names[name].installed != UNIVERSE_NONE))
			continue;
		reached[name] = true;
		if (answers_add(&queue, target, e) < 0)
			return -ENOMEM;
	}
	for (size_t i = 0; i < queue.n; i++) {
		int r = reach(m, queue.versions[i], reached, &queue, e);

		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < m->n_present; i++)
		if (!reached[m->present[i]] && m->u->names[m->present[i]].installed == UNIVERSE_NONE)
			m->marks[m->present[i]].target = UNIVERSE_NONE;
	return 0;
}

/* Whether a package of the base lost a dependency to what the plan wants out, and nothing else serves it. */
static int loses_to_unwanted(struct pkg_marks *m, uint32_t name, struct err *e)
{
	const struct pkg_relations *relations = pkg_universe_relations(m->u, m->marks[name].target, e);

	if (!relations)
		return e->code;
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_dep *d = &relations->deps[i];
		const struct pkg_mark *mark;
		uint32_t v;

		if (!dep_is_hard(d) || dep_is_served(m, relations, d))
			continue;
		v = pkg_marks_find_installed(m, relations, d);
		if (v == UNIVERSE_NONE)
			continue;
		mark = &m->marks[m->u->versions[v].name];
		if (mark->unwanted || mark->along)
			return 1;
	}
	return 0;
}

/* Whether what happened so far broke a package of the base: a dependency that was served is no more, or something new is in
 * conflict with it. */
static int is_newly_broken(struct pkg_marks *m, uint32_t name, struct err *e)
{
	const struct pkg_relations *relations = pkg_universe_relations(m->u, m->marks[name].target, e);

	if (!relations)
		return e->code;
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_dep *d = &relations->deps[i];

		if (dep_is_hard(d) && !dep_is_served(m, relations, d) &&
			pkg_marks_find_installed(m, relations, d) != UNIVERSE_NONE)
			return 1;
	}
	return 0;
}

/* Packages of the base that were broken on the way move to their candidates: all of them first, with nothing else, then what
 * those need. One whose candidate is no help stays as it was. */
static int move_broken(struct pkg_marks *m, struct err *e)
{
	_cleanup_(answers_release) struct answers moved = { 0 };
	bool changed = true;

	while (changed) {
		changed = false;
		for (size_t i = 0; i < m->n_present; i++) {
			uint32_t name = m->present[i], candidate = m->u->names[name].candidate;
			int r;

			if (m->marks[name].target == UNIVERSE_NONE || m->marks[name].target != m->u->names[name].installed ||
				candidate == m->marks[name].target || candidate == UNIVERSE_NONE || !can_go_in(m, candidate) ||
				m->marks[name].firm)
				continue;
			r = is_newly_broken(m, name, e);
			if (r == 0)
				continue;
			if (r < 0 || answers_add(&moved, candidate, e) < 0)
				return e->code;
			m->marks[name].target = candidate;
			changed = true;
		}
	}
	m->mending = true;
	for (size_t i = 0; i < moved.n; i++) {
		uint32_t name = m->u->versions[moved.versions[i]].name;
		int r = m->marks[name].target == moved.versions[i] ? install(m, name, true, 0, e) : 1;

		if (r < 0)
			return r;
		if (r == 0)
			discard(m, name);
	}
	m->mending = false;
	return 0;
}

/* What depends on something unwanted goes out with it, as apt does; no other way of serving it is looked for. */
static int take_dependents_along(struct pkg_marks *m, struct err *e)
{
	bool changed = true;

	while (changed) {
		changed = false;
		for (size_t i = 0; i < m->n_present; i++) {
			uint32_t name = m->present[i];
			struct pkg_mark *mark = &m->marks[name];
			int r;

			if (mark->target == UNIVERSE_NONE || mark->target != m->u->names[name].installed || mark->firm ||
				pkg_marks_is_vital(m, name))
				continue;
			r = loses_to_unwanted(m, name, e);
			if (r < 0)
				return r;
			if (r == 0)
				continue;
			mark->target = UNIVERSE_NONE;
			mark->along = mark->discarded = changed = true;
		}
	}
	return 0;
}

int pkg_marks_run(struct pkg_marks *m, struct err *e)
{
	int r = 0;

	for (uint32_t i = 0; i < m->n; i++)
		if (m->marks[i].unwanted)
			m->marks[i].target = UNIVERSE_NONE;
	/* All requested names first, then what each of them needs. */
	for (size_t i = 0; i < m->n_requests && r >= 0; i++) {
		uint32_t candidate = m->u->names[m->requests[i]].candidate;

		if (candidate != UNIVERSE_NONE)
			r = set_target(m, m->requests[i], candidate, e);
	}
	for (size_t i = 0; i < m->n_requests && r >= 0; i++)
		r = install(m, m->requests[i], true, 0, e);
	if (r >= 0)
		r = move_broken(m, e);
	if (r >= 0)
		r = take_dependents_along(m, e);
	return r < 0 ? r : drop_unreached(m, e);
}

int pkg_marks_check(struct pkg_marks *m, char *why, size_t why_size, struct err *e)
{
	char text[256];

	for (size_t i = 0; i < m->n_requests; i++) {
		uint32_t name = m->requests[i];

		if (m->marks[name].target == UNIVERSE_NONE || m->marks[name].target != m->u->names[name].candidate) {
			(void)snprintf(why, why_size, "`%s` cannot go in", m->u->names[name].text);
			return 0;
		}
	}
	for (size_t i = 0; i < m->n_present; i++) {
		uint32_t name = m->present[i], target = m->marks[name].target;
		const struct pkg_relations *relations;
		bool unchanged;

		if (target == UNIVERSE_NONE) {
			if (pkg_marks_is_vital(m, name)) {
				(void)snprintf(why, why_size, "`%s` must stay", m->u->names[name].text);
				return 0;
			}
			continue;
		}
		relations = pkg_universe_relations(m->u, target, e);
		if (!relations)
			return e->code;
		unchanged = m->u->names[name].installed == target;
		for (size_t k = 0; k < relations->n_deps; k++) {
			const struct pkg_dep *d = &relations->deps[k];
			const struct pkg_alternative *a = &relations->alternatives[d->first];

			if (!dep_is_hard(d) || dep_is_served(m, relations, d) || (unchanged && pkg_marks_find_installed(m, relations, d) == UNIVERSE_NONE))
				continue;
			(void)snprintf(why, why_size, "`%s` needs `%s`", m->u->names[name].text,
				pkg_alternative_text(m->u, a, text, sizeof(text)));
			return 0;
		}
		for (size_t k = 0; k < m->n_present; k++) {
			uint32_t other = m->present[k], there = m->marks[other].target;

			if (there == UNIVERSE_NONE || other == name || (unchanged && m->u->names[other].installed == there))
				continue;
			if (!find_conflict(m, relations, name, there))
				continue;
			(void)snprintf(why, why_size, "`%s` conflicts with `%s`", m->u->names[name].text,
				m->u->names[other].text);
			return 0;
		}
	}
	return 1;
}
