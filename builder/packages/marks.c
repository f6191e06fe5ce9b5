#include "builder/packages/marks.h"

#include <string.h>

enum { DEPTH_MAX = 1000, FIRM_ROUNDS_MAX = 8 };

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
		(int)m->marks[va->name].kept - (int)m->marks[vb->name].kept,
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

static int install(struct pkg_marks *m, uint32_t name, unsigned depth, struct err *e);

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

/* Make room for a version that goes in: what conflicts with it is brought to a version that does not, or goes out.
 * Returns 1; 0 when something that must stay is in the way; negative. */
static int clear_conflicts(struct pkg_marks *m, uint32_t version, unsigned depth, struct err *e)
{
	uint32_t own = m->u->versions[version].name;

	for (size_t i = 0; i < m->n_present; i++) {
		uint32_t other = m->present[i], target = pkg_marks_target(m, other), candidate;
		int r;

		if (target == UNIVERSE_NONE || other == own)
			continue;
		r = versions_conflict(m, version, target, e);
		if (r < 0)
			return r;
		if (r == 0)
			continue;
		candidate = m->u->names[other].candidate;
		if (candidate != UNIVERSE_NONE && candidate != target && can_go_in(m, candidate)) {
			r = versions_conflict(m, version, candidate, e);
			if (r < 0)
				return r;
			if (r == 0) {
				r = install(m, other, depth + 1, e);
				if (r != 0)
					return r;
			}
		}
		r = note_conflict(m, version, target, e);
		if (r < 0)
			return r;
		if (m->marks[other].firm || pkg_marks_is_vital(m, other))
			return 0;
		m->marks[other].target = UNIVERSE_NONE;
		m->marks[other].discarded = true;
	}
	return 1;
}

/* Installed packages built from the same source follow to the same source version. */
static int bring_siblings(struct pkg_marks *m, uint32_t version, unsigned depth, struct err *e)
{
	const struct pkg_universe *u = m->u;
	size_t n = m->n_present;

	for (size_t i = 0; i < n; i++) {
		uint32_t other = m->present[i], installed = u->names[other].installed, candidate = u->names[other].candidate;
		size_t before = m->n_obstacles;
		int r;

		if (installed == UNIVERSE_NONE || candidate == UNIVERSE_NONE || candidate == installed ||
			m->marks[other].target != installed || other == u->versions[version].name)
			continue;
		if (strcmp(u->versions[candidate].source, u->versions[version].source) != 0 ||
			strcmp(u->versions[candidate].source_version, u->versions[version].source_version) != 0)
			continue;
		r = install(m, other, depth + 1, e);
		if (r < 0)
			return r;
		if (r == 0)
			forget_obstacles(m, before, m->n_obstacles);
	}
	return 1;
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

/* Say whether an alternative is tried in the first round: what is there already, in whatever version. */
static bool is_there_already(const struct pkg_marks *m, uint32_t name)
{
	return m->u->names[name].installed != UNIVERSE_NONE || (name < m->n && m->marks[name].kept);
}

/* Serve one dependency that nothing present serves: an alternative that is installed (in another version) first, then in
 * the order written. Returns 1, 0 when it cannot be served, negative. */
static int serve(struct pkg_marks *m, uint32_t owner, const struct pkg_relations *relations, const struct pkg_dep *d,
	unsigned depth, struct err *e)
{
	size_t before = m->n_obstacles;

	for (int there_only = 1; there_only >= 0; there_only--) {
		for (uint32_t i = 0; i < d->n; i++) {
			const struct pkg_alternative *a = &relations->alternatives[d->first + i];
			_cleanup_(answers_release) struct answers answers = { 0 };

			if (there_only && !is_there_already(m, a->name))
				continue;
			if (collect_answers(m, a, &answers, e) < 0)
				return -ENOMEM;
			answers_sort(m, a->name, &answers);
			for (size_t k = 0; k < answers.n; k++) {
				size_t failed = m->n_obstacles;
				int r = install(m, m->u->versions[answers.versions[k]].name, depth + 1, e);

				if (r > 0)
					forget_obstacles(m, before, failed);
				if (r != 0)
					return r;
			}
		}
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

/* Mark the candidate of a name and all it needs. Returns 1, 0 when that cannot be, negative on errors. */
static int install(struct pkg_marks *m, uint32_t name, unsigned depth, struct err *e)
{
	uint32_t candidate = m->u->names[name].candidate;
	const struct pkg_alternative *wants = NULL;
	const struct pkg_relations *relations;
	int r;

	if (candidate == UNIVERSE_NONE || depth > DEPTH_MAX || !can_go_in(m, candidate))
		return note_kept(m, name, UNIVERSE_NONE, NULL, e);
	if (m->marks[name].followed)
		return m->marks[name].target == candidate;
	if (m->marks[name].target == candidate && m->u->names[name].installed == candidate && !m->marks[name].requested)
		return 1;
	relations = pkg_universe_relations(m->u, candidate, e);
	if (!relations)
		return e->code;
	m->marks[name].followed = true;
	r = set_target(m, name, candidate, e);
	if (r == 0)
		r = clear_conflicts(m, candidate, depth, e);
	if (r > 0 && m->u->names[name].installed != candidate)
		r = bring_siblings(m, candidate, depth, e);
	for (size_t i = 0; i < relations->n_deps && r > 0; i++) {
		const struct pkg_dep *d = &relations->deps[i];

		if (!dep_is_positive(d) || (!dep_is_hard(d) && !m->recommends) || dep_is_served(m, relations, d))
			continue;
		r = serve(m, candidate, relations, d, depth, e);
		if (r == 0)
			wants = &relations->alternatives[d->first];
		if (r == 0 && !dep_is_hard(d))
			r = 1;
	}
	if (r == 0) {
		m->marks[name].target = m->u->names[name].installed;
		m->marks[name].discarded = true;
		r = note_kept(m, name, candidate, wants, e);
	}
	return r;
}

/* A firm package's conflicts speak before any choice is made: what it excludes is no answer to anything. */
static int discard_excluded(struct pkg_marks *m, uint32_t version, struct err *e)
{
	const struct pkg_relations *relations = pkg_universe_relations(m->u, version, e);
	uint32_t own = m->u->versions[version].name;

	if (!relations)
		return e->code;
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_alternative *a = &relations->alternatives[relations->deps[i].first];
		const struct pkg_name *name = &m->u->names[a->name];

		if (dep_is_positive(&relations->deps[i]))
			continue;
		for (uint32_t k = 0; k <= name->n_providers; k++) {
			uint32_t v = k < name->n_providers ? name->providers[k].version : name->candidate;
			struct pkg_mark *mark;

			if (v == UNIVERSE_NONE || m->u->versions[v].name == own || !pkg_universe_satisfies(m->u, v, a))
				continue;
			mark = &m->marks[m->u->versions[v].name];
			if (mark->firm || m->u->names[m->u->versions[v].name].candidate != v)
				continue;
			mark->discarded = true;
			if (mark->kept)
				mark->excluded_by = version;
		}
	}
	return 0;
}

/* Make the only possible answers to firm packages' dependencies firm as well. Returns 1 when something changed. */
static int propagate_firm(struct pkg_marks *m, uint32_t version, struct answers *queue, struct err *e)
{
	const struct pkg_relations *relations = pkg_universe_relations(m->u, version, e);

	if (!relations)
		return e->code;
	for (size_t i = 0; i < relations->n_deps; i++) {
		const struct pkg_dep *d = &relations->deps[i];
		_cleanup_(answers_release) struct answers answers = { 0 };
		struct pkg_mark *mark;

		if (!dep_is_hard(d) || dep_is_served(m, relations, d))
			continue;
		for (uint32_t k = 0; k < d->n; k++)
			if (collect_answers(m, &relations->alternatives[d->first + k], &answers, e) < 0)
				return -ENOMEM;
		if (answers.n != 1)
			continue;
		mark = &m->marks[m->u->versions[answers.versions[0]].name];
		if (mark->firm)
			continue;
		mark->firm = true;
		if (answers_add(queue, answers.versions[0], e) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int find_firm(struct pkg_marks *m, struct err *e)
{
	_cleanup_(answers_release) struct answers queue = { 0 };
	size_t before;
	int r = 0;

	for (size_t i = 0; i < m->n_requests; i++) {
		uint32_t candidate = m->u->names[m->requests[i]].candidate;

		if (candidate != UNIVERSE_NONE && answers_add(&queue, candidate, e) < 0)
			return -ENOMEM;
	}
	/* Discarding can leave a dependency with one answer, so go round until nothing new turns up. */
	for (unsigned round = 0; round < FIRM_ROUNDS_MAX; round++) {
		before = queue.n;
		for (size_t i = 0; i < queue.n && r == 0; i++)
			r = discard_excluded(m, queue.versions[i], e);
		for (size_t i = 0; i < queue.n && r == 0; i++)
			r = propagate_firm(m, queue.versions[i], &queue, e);
		if (r < 0 || queue.n == before)
			break;
	}
	return r;
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

/* What depends on something unwanted goes out with it, as apt does; no other way of serving it is looked for. */
static int take_dependents_along(struct pkg_marks *m, struct err *e)
{
	bool changed = true;

	while (changed) {
		changed = false;
		for (size_t i = 0; i < m->n_present; i++) {
			struct pkg_mark *mark = &m->marks[m->present[i]];
			int r;

			if (mark->target == UNIVERSE_NONE || mark->target != m->u->names[m->present[i]].installed ||
				mark->firm || pkg_marks_is_vital(m, m->present[i]))
				continue;
			r = loses_to_unwanted(m, m->present[i], e);
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
	int r;

	for (uint32_t i = 0; i < m->n; i++)
		if (m->marks[i].unwanted)
			m->marks[i].target = UNIVERSE_NONE;
	r = find_firm(m, e);
	/* All requested names first, then what each of them needs. */
	for (size_t i = 0; i < m->n_requests && r >= 0; i++) {
		uint32_t candidate = m->u->names[m->requests[i]].candidate;

		if (candidate != UNIVERSE_NONE)
			r = set_target(m, m->requests[i], candidate, e);
	}
	for (size_t i = 0; i < m->n_requests && r >= 0; i++)
		r = install(m, m->requests[i], 0, e);
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
