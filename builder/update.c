#include "builder/update.h"
#include "builder/fetch_list.h"
#include "lib/nearest.h"

#include <string.h>

enum { UNKNOWN_LISTED_MAX = 8 };

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

/* --- names --- */

static bool has_package(const struct lock_package *packages, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(packages[i].name, name) == 0)
			return true;
	return false;
}

/* "podman", "podman:amd64" and "podman=4.3" ask for the package podman. */
static bool asks_for(const char *asked, const char *name)
{
	size_t len = strlen(name);

	return strncmp(asked, name, len) == 0 && (asked[len] == '\0' || asked[len] == ':' || asked[len] == '=');
}

static bool is_named(const struct strv *names, const char *asked)
{
	for (size_t i = 0; names && i < names->n; i++)
		if (asks_for(asked, names->items[i]))
			return true;
	return false;
}

/* Say whether a name means the kernel: the word, or a package that it is in. */
static bool names_kernel(const struct prepared *p, const char *name)
{
	const struct plan_kernel *kernel = &p->plan->kernel[p->arch];
	const struct lock_kernel *locked = &p->lock.arch[p->arch].kernel;

	if (strcmp(name, "kernel") == 0)
		return true;
	return kernel->kind == PLAN_KERNEL_PACKAGE &&
	       (asks_for(kernel->package, name) || has_package(locked->packages, locked->n_packages, name));
}

static bool any_names_kernel(const struct prepared *p, const struct strv *names)
{
	for (size_t i = 0; i < names->n; i++)
		if (names_kernel(p, names->items[i]))
			return true;
	return names->n == 0;
}

/* Append what can be named. */
static int collect_names(const struct prepared *p, struct strv *ret)
{
	const struct lock_arch *locked = &p->lock.arch[p->arch];
	const struct plan_kernel *kernel = &p->plan->kernel[p->arch];
	_cleanup_strv_ struct strv asked = { 0 };
	int r = strv_add(ret, "base");

	if (r == 0)
		r = strv_add(ret, "kernel");
	if (r == 0 && kernel->kind == PLAN_KERNEL_PACKAGE)
		r = strv_add_len(ret, kernel->package, strcspn(kernel->package, ":="));
	if (r == 0)
		r = plan_packages(p->plan, p->arch, &asked);
	for (size_t i = 0; r == 0 && i < asked.n; i++)
		r = strv_add_len(ret, asked.items[i], strcspn(asked.items[i], ":="));
	for (size_t i = 0; r == 0 && i < locked->packages.n; i++)
		r = strv_add(ret, locked->packages.items[i].name);
	for (size_t i = 0; r == 0 && i < locked->kernel.n_packages; i++)
		r = strv_add(ret, locked->kernel.packages[i].name);
	for (size_t i = 0; r == 0 && i < plan_count_sources(p->plan); i++) {
		const struct plan_location *location;
		char *slot;

		r = plan_source(p->plan, i, &location, &slot);
		if (r > 0)
			r = strv_add_take(ret, slot);
	}
	return r;
}

int update_check_names(const struct prepared *prepared, size_t n, const struct strv *names, struct err *e)
{
	_cleanup_strv_ struct strv known = { 0 };
	_cleanup_buf_ struct buf unknown = BUF_INIT(8192);
	size_t n_unknown = 0;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = collect_names(&prepared[i], &known);
	for (size_t i = 0; r == 0 && i < names->n; i++) {
		const char *near;

		if (strv_contains(&known, names->items[i]) || n_unknown++ >= UNKNOWN_LISTED_MAX)
			continue;
		near = nearest_name((const char *const *)known.items, known.n, names->items[i]);
		r = buf_appendf(&unknown, "%s`%.200s`%s%s%s", unknown.len ? ", " : "", names->items[i],
			near ? " (did you mean `" : "", near ? near : "", near ? "`?)" : "");
	}
	if (r < 0)
		return out_of_memory(e);
	if (n_unknown == 0)
		return 0;
	return err_set_kind(e, ERR_KIND_USAGE, -ENOENT,
		"`%s` has no input %s%s; what can be updated is `base`, `kernel`, packages of the plan or its lock, `files:/…` and "
		"`inputs:…`",
		prepared[0].plan->file, buf_str(&unknown), n_unknown > UNKNOWN_LISTED_MAX ? ", and more" : "");
}

/* --- forgetting answers --- */

static bool is_pinned(const struct plan_location *location)
{
	return !location->url || location->sha256.algorithm != DIGEST_NONE || location->sha512.algorithm != DIGEST_NONE;
}

static bool wants(const struct strv *names, const char *name)
{
	return names->n == 0 || strv_contains(names, name);
}

/* Say so when what was named cannot move. */
static void say_pinned(const struct build_env *env, const struct prepared *p, const struct strv *names, const char *name)
{
	if (names->n > 0)
		progress_note(env->progress, "%s: `%s` is local or pinned by the plan itself: there is nothing to update",
			arch_name(p->arch), name);
}

/* Take a question from the lock, so that its section answers nothing, and keep it elsewhere. */
static void forget(struct digest *question, struct digest *kept)
{
	*kept = *question;
	*question = (struct digest){ 0 };
}

static void forget_base(const struct build_env *env, struct prepared *p, const struct strv *names)
{
	if (!wants(names, "base"))
		return;
	if (is_pinned(&p->plan->base[p->arch].location))
		say_pinned(env, p, names, "base");
	else
		p->lock.arch[p->arch].base.question = (struct digest){ 0 };
}

static void forget_kernel(const struct build_env *env, struct prepared *p, const struct strv *names)
{
	const struct plan_kernel *kernel = &p->plan->kernel[p->arch];

	if (!any_names_kernel(p, names))
		return;
	if (kernel->kind == PLAN_KERNEL_FROM_BASE) {
		if (names->n > 0 && !strv_contains(names, "base"))
			progress_note(env->progress, "%s: the kernel is that of the base image: it moves with `base`",
				arch_name(p->arch));
		return;
	}
	if (kernel->kind != PLAN_KERNEL_PACKAGE && is_pinned(&kernel->location))
		say_pinned(env, p, names, "kernel");
	else
		forget(&p->lock.arch[p->arch].kernel.question, &p->forgotten_kernel);
}

static void forget_packages(struct prepared *p, const struct strv *names)
{
	struct lock_packages *packages = &p->lock.arch[p->arch].packages;
	bool moves = names->n == 0;

	for (size_t i = 0; i < packages->n && !moves; i++)
		moves = strv_contains(names, packages->items[i].name);
	for (size_t i = 0; i < packages->asked.n && !moves; i++)
		moves = is_named(names, packages->asked.items[i]);
	if (moves)
		forget(&packages->question, &p->forgotten_packages);
}

static void forget_sources(const struct build_env *env, struct prepared *p, const struct strv *names)
{
	struct lock_arch *locked = &p->lock.arch[p->arch];

	for (size_t i = 0; i < locked->n_sources; i++) {
		const struct plan_location *location = plan_source_find(p->plan, locked->sources[i].slot);

		if (location && !is_pinned(location) && wants(names, locked->sources[i].slot))
			locked->sources[i].blob.question = (struct digest){ 0 };
	}
	for (size_t i = 0; i < names->n; i++) {
		const struct plan_location *location = plan_source_find(p->plan, names->items[i]);

		if (location && is_pinned(location))
			say_pinned(env, p, names, names->items[i]);
	}
}

void update_forget(const struct build_env *env, struct prepared *p, const struct strv *names)
{
	forget_base(env, p, names);
	forget_kernel(env, p, names);
	forget_packages(p, names);
	forget_sources(env, p, names);
}

/* --- the earlier answer --- */

void earlier_answer_release(struct earlier_answer *a)
{
	free(a->items);
	free(a->releases);
	strv_release(&a->asked);
	*a = (struct earlier_answer){ 0 };
}

/* Open those of the packages that are in the store, with the bytes that were pinned. Returns how many are not. */
static size_t open_stored(const struct build_env *env, const struct pkg_kept *const *items, size_t n, int *fds)
{
	size_t missing = 0;

	for (size_t i = 0; i < n; i++) {
		struct err why = ERR_INIT;
		int r;

		if (fds[i] >= 0)
			continue;
		r = blob_confirm(env->publisher, &items[i]->sha256, &why);
		if (r == -EBADMSG)
			progress_warning(env->progress, "%s %s: %s", items[i]->name, items[i]->version, why.message);
		if (r < 0 || store_open_blob(publisher_store(env->publisher), &items[i]->sha256, &fds[i], NULL, &why) < 0) {
			fds[i] = -1;
			missing++;
		}
	}
	return missing;
}

/* Find the lock's line of a package. */
static const struct lock_package *find_line(const struct earlier_answer *a, const struct pkg_kept *item)
{
	const struct lock_arch *locked = &a->p->lock.arch[a->p->arch];

	for (size_t i = 0; i < locked->packages.n; i++)
		if (digest_equal(&locked->packages.items[i].sha256, &item->sha256))
			return &locked->packages.items[i];
	for (size_t i = 0; i < locked->kernel.n_packages; i++)
		if (digest_equal(&locked->kernel.packages[i].sha256, &item->sha256))
			return &locked->kernel.packages[i];
	return NULL;
}

/* Fetch n packages into the store, as one. */
static int fetch_kept(const struct earlier_answer *a, const struct pkg_kept *const *items, const int *fds, size_t n, struct err *e)
{
	_cleanup_fetch_list_ struct fetch_list list = { 0 };
	struct build_env env = *a->env;
	int r = 0;

	/* What cannot be had is no error here, so that it does not count as missing. */
	env.missing = NULL;
	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct lock_package *line = fds[i] < 0 ? find_line(a, items[i]) : NULL;

		if (line)
			r = fetch_list_add_packages(&list, &env, a->p, line, 1, e);
	}
	return r < 0 ? r : fetch_list_run(&list, &env, e);
}

/* Say whether a failure means that this file is not to be had, and not that nothing can go on. */
static bool is_not_to_be_had(const struct err *e)
{
	return e->kind == ERR_KIND_INPUT || (e->kind == ERR_KIND_USAGE && e->code == -ENOENT);
}

static int open_kept_debs(void *ctx, const struct pkg_kept *const *items, size_t n, int *fds, struct err *e)
{
	const struct earlier_answer *a = ctx;
	int r;

	if (open_stored(a->env, items, n, fds) == 0)
		return 0;
	r = fetch_kept(a, items, fds, n, e);
	if (r < 0 && !is_not_to_be_had(e))
		return r;
	/* One that cannot be had does not keep the others from being had. */
	for (size_t i = 0; r < 0 && i < n; i++) {
		err_clear(e);
		if (open_stored(a->env, &items[i], 1, &fds[i]) > 0 && fetch_kept(a, &items[i], &fds[i], 1, e) < 0 &&
			!is_not_to_be_had(e))
			return e->code;
	}
	err_clear(e);
	(void)open_stored(a->env, items, n, fds);
	return 0;
}

static struct pkg_kept kept_package(const struct lock_package *package, bool keys_may_differ)
{
	return (struct pkg_kept){ .name = package->name,
		.version = package->version,
		.arch = package->arch,
		.size_bytes = package->size_bytes,
		.sha256 = package->sha256,
		.filename = package->file,
		.archive = package->uri,
		.suite = package->suite,
		.release_sha256 = package->release,
		.release_date = package->release_date,
		.keys_may_differ = keys_may_differ };
}

/* Take note of the newest release of each archive and suite. */
static void know_release(struct earlier_answer *a, const struct lock_package *package)
{
	struct pkg_known_release *known = a->releases;
	size_t i = 0;

	if (!package->uri || !package->suite || package->release_date <= 0)
		return;
	while (i < a->n_releases && (strcmp(known[i].uri, package->uri) != 0 || strcmp(known[i].suite, package->suite) != 0))
		i++;
	if (i == a->n_releases)
		known[a->n_releases++] = (struct pkg_known_release){ .uri = package->uri, .suite = package->suite };
	if (known[i].date < package->release_date)
		known[i].date = package->release_date;
}

/* Say whether a section answered another question than the plan asks now, of which the keys of its repositories are a part. */
static bool is_another(const struct digest *now, const struct digest *then, const struct digest *forgotten)
{
	return !digest_equal(now, then->algorithm == DIGEST_NONE ? forgotten : then);
}

static int keep_packages(struct earlier_answer *a, const struct strv *names, struct err *e)
{
	const struct prepared *p = a->p;
	const struct lock_packages *packages = &p->lock.arch[p->arch].packages;
	struct digest question;
	int r = lock_question_packages(p->plan, &p->lock, p->arch, &p->locals, &question, e);
	bool differs;

	if (r < 0)
		return r;
	differs = is_another(&question, &packages->question, &p->forgotten_packages);
	a->keep.items = a->items;
	for (size_t i = 0; i < packages->n; i++)
		if (!names || !strv_contains(names, packages->items[i].name))
			a->items[a->keep.n_items++] = kept_package(&packages->items[i], differs);
	for (size_t i = 0; i < packages->asked.n; i++)
		if (!is_named(names, packages->asked.items[i]) && strv_add(&a->asked, packages->asked.items[i]) < 0)
			return out_of_memory(e);
	a->keep.asked = &a->asked;
	a->keep.removals = &packages->removals;
	return 0;
}

static int keep_kernel(struct earlier_answer *a, struct err *e)
{
	const struct prepared *p = a->p;
	const struct lock_kernel *kernel = &p->lock.arch[p->arch].kernel;
	struct pkg_kept *items = a->items + p->lock.arch[p->arch].packages.n;
	struct digest question;
	int r = lock_question_kernel(p->plan, &p->lock, p->arch, &p->locals, &question, e);

	for (size_t i = 0; r == 0 && i < kernel->n_packages; i++)
		items[i] = kept_package(&kernel->packages[i], is_another(&question, &kernel->question, &p->forgotten_kernel));
	a->keep.kernel_items = items;
	a->keep.n_kernel_items = r == 0 ? kernel->n_packages : 0;
	return r;
}

int earlier_answer_init(const struct build_env *env, const struct prepared *p, const struct strv *names,
	struct earlier_answer *ret, struct err *e)
{
	const struct lock_packages *packages = &p->lock.arch[p->arch].packages;
	const struct lock_kernel *kernel = &p->lock.arch[p->arch].kernel;
	size_t n = packages->n + kernel->n_packages, n_releases = 0;
	int r = 0;

	*ret = (struct earlier_answer){ .env = env, .p = p };
	ret->items = calloc(n + 1, sizeof(*ret->items));
	for (unsigned a = 0; a < ARCH_COUNT; a++)
		n_releases += p->lock.arch[a].packages.n + p->lock.arch[a].kernel.n_packages;
	ret->releases = calloc(n_releases + 1, sizeof(*ret->releases));
	if (!ret->items || !ret->releases)
		return out_of_memory(e);
	/* One release file vouches for all architectures: each must not go back behind what any has seen. */
	for (unsigned a = 0; a < ARCH_COUNT; a++) {
		const struct lock_arch *locked = &p->lock.arch[a];

		for (size_t i = 0; i < locked->packages.n; i++)
			know_release(ret, &locked->packages.items[i]);
		for (size_t i = 0; i < locked->kernel.n_packages; i++)
			know_release(ret, &locked->kernel.packages[i]);
	}
	if ((names && names->n == 0) || p->plan->apt.snapshot)
		return 0;
	ret->keep.open_debs = open_kept_debs;
	ret->keep.ctx = ret;
	r = keep_packages(ret, names, e);
	if (r == 0 && kernel->kind == PLAN_KERNEL_PACKAGE && p->plan->kernel[p->arch].kind == PLAN_KERNEL_PACKAGE &&
		!(names && any_names_kernel(p, names)))
		r = keep_kernel(ret, e);
	ret->is_there = packages->n + packages->asked.n > 0 || ret->keep.n_kernel_items > 0;
	return r;
}
