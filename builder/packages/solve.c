#include "builder/packages/solve.h"
#include "builder/packages/relation.h"

#include <solv/pool.h>
#include <solv/poolarch.h>
#include <solv/repo.h>
#include <solv/solver.h>
#include <string.h>

enum { REASONS_MAX = 6 };

/* One search: libsolv's objects, and which version is which solvable. */
struct search {
	struct pkg_marks *m;
	Pool *pool;
	Solver *solver;
	Queue jobs;
	Id *solvable_of;     /* by version; 0: not in the pool */
	uint32_t *version_of; /* by solvable */
	size_t n_version_of;
	uint32_t *wanted; /* versions to put into the pool */
	size_t n_wanted;
};

static void search_release(struct search *s)
{
	if (s->solver)
		solver_free(s->solver);
	queue_free(&s->jobs);
	if (s->pool)
		pool_free(s->pool);
	free(s->solvable_of);
	free(s->version_of);
	free(s->wanted);
}

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

/* Note a version for the pool, once: it gets -1 until it has a solvable. */
static void want(struct search *s, uint32_t version)
{
	if (version == UNIVERSE_NONE || s->solvable_of[version] != 0)
		return;
	s->solvable_of[version] = -1;
	s->wanted[s->n_wanted++] = version;
}

/* Want what could serve the dependencies of what is wanted already. */
static int want_closure(struct search *s, struct err *e)
{
	struct pkg_universe *u = s->m->u;

	for (size_t i = 0; i < s->n_wanted; i++) {
		const struct pkg_relations *r = pkg_universe_relations(u, s->wanted[i], e);

		if (!r)
			return e->code;
		for (size_t d = 0; d < r->n_deps; d++) {
			if (r->deps[d].kind > PKG_DEP_RECOMMENDS ||
				(r->deps[d].kind == PKG_DEP_RECOMMENDS && !s->m->recommends))
				continue;
			for (uint32_t k = 0; k < r->deps[d].n; k++) {
				const struct pkg_alternative *a = &r->alternatives[r->deps[d].first + k];
				const struct pkg_name *name = &u->names[a->name];

				if (name->candidate != UNIVERSE_NONE && pkg_universe_satisfies(u, name->candidate, a))
					want(s, name->candidate);
				for (uint32_t p = 0; p < name->n_providers; p++) {
					uint32_t v = name->providers[p].version;

					if (u->names[u->versions[v].name].candidate == v &&
						pkg_universe_satisfies(u, v, a))
						want(s, v);
				}
			}
		}
	}
	return 0;
}

static int rel_flags(uint8_t op)
{
	static const int flags[] = { 0, REL_LT, REL_LT | REL_EQ, REL_EQ, REL_GT | REL_EQ, REL_GT };

	return flags[op];
}

/* libsolv's number for an alternative. "name:any" is a name of its own that the packages that allow it provide. */
static Id alternative_id(struct search *s, const struct pkg_alternative *a)
{
	const char *name = s->m->u->names[a->name].text;
	char text[RELATION_NAME_MAX_BYTES + 32];
	Id id;

	(void)snprintf(text, sizeof(text), "%s%s", name, a->impossible ? ":other-architecture" : a->any ? ":any" : "");
	id = pool_str2id(s->pool, text, 1);
	if (a->op == DEB_VERSION_ANY)
		return id;
	return pool_rel2id(s->pool, id, pool_str2id(s->pool, a->version, 1), rel_flags(a->op), 1);
}

static Id group_id(struct search *s, const struct pkg_relations *r, const struct pkg_dep *d)
{
	Id id = alternative_id(s, &r->alternatives[d->first + d->n - 1]);

	for (uint32_t i = d->n - 1; i-- > 0;)
		id = pool_rel2id(s->pool, alternative_id(s, &r->alternatives[d->first + i]), id, REL_OR, 1);
	return id;
}

static void add_provides(struct search *s, Repo *repo, Solvable *solvable, const struct pkg_version *v)
{
	const struct pkg_universe *u = s->m->u;
	_cleanup_relations_ struct deb_relations provided = { 0 };
	struct err ignored = ERR_INIT;

	solvable->provides = repo_addid_dep(repo, solvable->provides,
		pool_rel2id(s->pool, solvable->name, solvable->evr, REL_EQ, 1), 0);
	if (v->multi_arch == PKG_MULTI_ARCH_ALLOWED) {
		char text[RELATION_NAME_MAX_BYTES + 32];

		(void)snprintf(text, sizeof(text), "%s:any", u->names[v->name].text);
		solvable->provides = repo_addid_dep(repo, solvable->provides,
			pool_rel2id(s->pool, pool_str2id(s->pool, text, 1), solvable->evr, REL_EQ, 1), 0);
	}
	/* It was parsed before, when the universe was finished; a version that was not is nobody's candidate. */
	if (!v->provides ||
		deb_relations_parse(v->provides, strlen(v->provides), &provided, &ignored) < 0)
		return;
	for (size_t i = 0; i < provided.n; i++) {
		const struct deb_relation *p = &provided.items[i];
		Id id = pool_strn2id(s->pool, p->name, (unsigned)p->name_len, 1);

		if (p->op == DEB_VERSION_EQ)
			id = pool_rel2id(s->pool, id, pool_strn2id(s->pool, p->version, (unsigned)p->version_len, 1), REL_EQ, 1);
		solvable->provides = repo_addid_dep(repo, solvable->provides, id, 0);
	}
}

/* Put one version into a repository of the pool. */
static int add_solvable(struct search *s, Repo *repo, uint32_t version, struct err *e)
{
	const struct pkg_relations *r = pkg_universe_relations(s->m->u, version, e);
	const struct pkg_version *v = &s->m->u->versions[version];
	Solvable *solvable;
	Id id;

	if (!r)
		return e->code;
	id = repo_add_solvable(repo);
	solvable = pool_id2solvable(s->pool, id);
	solvable->name = pool_str2id(s->pool, s->m->u->names[v->name].text, 1);
	solvable->evr = pool_str2id(s->pool, v->version, 1);
	solvable->arch = ARCH_ALL;
	add_provides(s, repo, solvable, v);
	for (size_t i = 0; i < r->n_deps; i++) {
		Id dep = group_id(s, r, &r->deps[i]);

		switch (r->deps[i].kind) {
		case PKG_DEP_PRE_DEPENDS:
		case PKG_DEP_DEPENDS:
			solvable->requires = repo_addid_dep(repo, solvable->requires, dep, 0);
			break;
		case PKG_DEP_RECOMMENDS:
			if (s->m->recommends)
				solvable->recommends = repo_addid_dep(repo, solvable->recommends, dep, 0);
			break;
		case PKG_DEP_CONFLICTS:
		case PKG_DEP_BREAKS:
			solvable->conflicts = repo_addid_dep(repo, solvable->conflicts, dep, 0);
			break;
		}
	}
	s->solvable_of[version] = id;
	return 0;
}

static int fill_pool(struct search *s, struct err *e)
{
	Repo *installed = repo_create(s->pool, "installed"), *available = repo_create(s->pool, "available");
	struct pkg_universe *u = s->m->u;

	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < s->n_wanted; i++) {
			bool is_installed = u->versions[s->wanted[i]].installed;
			int r = 0;

			if (is_installed == (pass == 1))
				r = add_solvable(s, is_installed ? installed : available, s->wanted[i], e);
			if (r < 0)
				return r;
		}
	}
	s->n_version_of = (size_t)s->pool->nsolvables;
	s->version_of = calloc(s->n_version_of, sizeof(*s->version_of));
	if (!s->version_of)
		return out_of_memory(e);
	memset(s->version_of, 0xff, s->n_version_of * sizeof(*s->version_of));
	for (size_t i = 0; i < s->n_wanted; i++)
		s->version_of[s->solvable_of[s->wanted[i]]] = s->wanted[i];
	pool_set_installed(s->pool, installed);
	pool_createwhatprovides(s->pool);
	return 0;
}

static void add_jobs(struct search *s)
{
	struct pkg_marks *m = s->m;
	const struct pkg_universe *u = m->u;

	for (size_t i = 0; i < m->n_requests; i++)
		queue_push2(&s->jobs, SOLVER_INSTALL | SOLVER_SOLVABLE, s->solvable_of[u->names[m->requests[i]].candidate]);
	for (uint32_t name = 0; name < m->n; name++) {
		uint32_t installed = u->names[name].installed, target = m->marks[name].target;
		Id name_id;

		if (installed != UNIVERSE_NONE) {
			name_id = pool_str2id(s->pool, u->names[name].text, 1);
			if (m->marks[name].unwanted)
				queue_push2(&s->jobs, SOLVER_ERASE | SOLVER_SOLVABLE_NAME, name_id);
			else if (u->versions[installed].hold)
				queue_push2(&s->jobs, SOLVER_LOCK | SOLVER_SOLVABLE, s->solvable_of[installed]);
			else if (pkg_marks_is_vital(m, name))
				queue_push2(&s->jobs, SOLVER_INSTALL | SOLVER_SOLVABLE_NAME, name_id);
		} else if (m->marks[name].unwanted) {
			name_id = pool_str2id(s->pool, u->names[name].text, 1);
			queue_push2(&s->jobs, SOLVER_ERASE | SOLVER_SOLVABLE_NAME, name_id);
		}
		if (target != UNIVERSE_NONE && target != installed && s->solvable_of[target] > 0) {
			queue_push2(&s->jobs, SOLVER_FAVOR | SOLVER_SOLVABLE, s->solvable_of[target]);
			if (!m->marks[name].requested)
				queue_push2(&s->jobs, SOLVER_INSTALL | SOLVER_SOLVABLE | SOLVER_WEAK, s->solvable_of[target]);
		}
	}
}

/* "`name` 1.2" */
static const char *solvable_text(const struct search *s, Id id, char *text, size_t size)
{
	uint32_t version = id > 0 && (size_t)id < s->n_version_of ? s->version_of[id] : UNIVERSE_NONE;

	if (version == UNIVERSE_NONE)
		(void)snprintf(text, size, "?");
	else
		(void)snprintf(text, size, "`%s` %s%s", s->m->u->names[s->m->u->versions[version].name].text,
			s->m->u->versions[version].version, s->m->u->versions[version].installed ? " (in the base)" : "");
	return text;
}

/* A sentence for one rule that takes part in a problem; false for those that say nothing to a person. */
static bool rule_text(struct search *s, Id rule, char *text, size_t size)
{
	char source[400], target[400];
	Id source_id, target_id, dep;
	SolverRuleinfo type = solver_ruleinfo(s->solver, rule, &source_id, &target_id, &dep);

	(void)solvable_text(s, source_id, source, sizeof(source));
	(void)solvable_text(s, target_id, target, sizeof(target));
	switch (type) {
	case SOLVER_RULE_PKG_NOTHING_PROVIDES_DEP:
		(void)snprintf(text, size, "%s needs `%s`, which no source has", source, pool_dep2str(s->pool, dep));
		return true;
	case SOLVER_RULE_PKG_REQUIRES:
		(void)snprintf(text, size, "%s needs `%s`, and nothing that provides it can go in", source,
			pool_dep2str(s->pool, dep));
		return true;
	case SOLVER_RULE_PKG_CONFLICTS:
		(void)snprintf(text, size, "%s conflicts with %s (by `%s`)", source, target, pool_dep2str(s->pool, dep));
		return true;
	case SOLVER_RULE_PKG_SAME_NAME:
		(void)snprintf(text, size, "%s and %s cannot be there together", source, target);
		return true;
	case SOLVER_RULE_PKG_NOT_INSTALLABLE:
		(void)snprintf(text, size, "%s cannot be installed", source);
		return true;
	case SOLVER_RULE_JOB_NOTHING_PROVIDES_DEP:
	case SOLVER_RULE_JOB_UNKNOWN_PACKAGE:
		(void)snprintf(text, size, "no source has `%s`", pool_dep2str(s->pool, dep));
		return true;
	default:
		return false;
	}
}

static int explain(struct search *s, struct err *e)
{
	_cleanup_strv_ struct strv reasons = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(ERR_MESSAGE_MAX_BYTES);
	Queue rules;
	int r = 0;

	queue_init(&rules);
	for (Id problem = 0; (problem = solver_next_problem(s->solver, problem)) != 0;) {
		queue_empty(&rules);
		solver_findallproblemrules(s->solver, problem, &rules);
		for (int i = 0; i < rules.count && r == 0; i++) {
			char sentence[1400];

			if (rule_text(s, rules.elements[i], sentence, sizeof(sentence)) && !strv_contains(&reasons, sentence))
				r = strv_add(&reasons, sentence);
		}
	}
	queue_free(&rules);
	if (r < 0)
		return out_of_memory(e);
	for (size_t i = 0; i < reasons.n && i < REASONS_MAX; i++)
		if (buf_appendf(&text, "%s%s", i ? "; " : "", reasons.items[i]) < 0)
			break;
	return err_set_kind(e, ERR_KIND_USAGE, -EUNATCH, "the packages of the plan cannot be installed together: %s%s",
		reasons.n ? buf_str(&text) : "they exclude one another", reasons.n > REASONS_MAX ? "; and more" : "");
}

static int take_solution(struct search *s, struct err *e)
{
	struct pkg_marks *m = s->m;

	for (uint32_t name = 0; name < m->n; name++)
		m->marks[name].target = UNIVERSE_NONE;
	for (size_t i = 0; i < s->n_wanted; i++) {
		uint32_t version = s->wanted[i], name = m->u->versions[version].name;

		if (solver_get_decisionlevel(s->solver, s->solvable_of[version]) <= 0)
			continue;
		m->marks[name].target = version;
		if (pkg_marks_add_present(m, name, e) < 0)
			return -ENOMEM;
	}
	return 0;
}

int pkg_solve(struct pkg_marks *m, struct err *e)
{
	_cleanup_(search_release) struct search s = { .m = m, .pool = pool_create() };
	const struct pkg_universe *u = m->u;
	int r;

	queue_init(&s.jobs);
	s.solvable_of = calloc(u->n_versions ? u->n_versions : 1, sizeof(*s.solvable_of));
	s.wanted = calloc(u->n_versions ? u->n_versions : 1, sizeof(*s.wanted));
	if (!s.pool || !s.solvable_of || !s.wanted)
		return out_of_memory(e);
	if (pool_setdisttype(s.pool, DISTTYPE_DEB) < 0)
		return err_set_kind(e, ERR_KIND_HOST, -ENOSYS, "libsolv here was built without support for Debian packages");
	pool_setarch(s.pool, arch_name(u->arch));
	for (size_t i = 0; i < m->n_requests; i++)
		want(&s, u->names[m->requests[i]].candidate);
	for (uint32_t name = 0; name < m->n; name++) {
		want(&s, m->marks[name].target);
		if (u->names[name].installed != UNIVERSE_NONE) {
			want(&s, u->names[name].installed);
			want(&s, u->names[name].candidate);
		}
	}
	r = want_closure(&s, e);
	if (r == 0)
		r = fill_pool(&s, e);
	if (r < 0)
		return r;
	add_jobs(&s);
	s.solver = solver_create(s.pool);
	if (!s.solver)
		return out_of_memory(e);
	(void)solver_set_flag(s.solver, SOLVER_FLAG_ALLOW_UNINSTALL, 1);
	(void)solver_set_flag(s.solver, SOLVER_FLAG_ALLOW_DOWNGRADE, 1);
	(void)solver_set_flag(s.solver, SOLVER_FLAG_IGNORE_RECOMMENDED, m->recommends ? 0 : 1);
	if (solver_solve(s.solver, &s.jobs) != 0)
		return explain(&s, e);
	return take_solution(&s, e);
}
