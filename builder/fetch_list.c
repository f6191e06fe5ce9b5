#include "builder/fetch_list.h"
#include "builder/packages/metadata.h"

#include <fcntl.h>
#include <string.h>

void fetch_list_release(struct fetch_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		free(list->items[i].label);
		strv_release(&list->items[i].urls);
	}
	free(list->items);
	strv_release(&list->host_mirrors);
	*list = (struct fetch_list){ 0 };
}

/* A new item at the end of the list, without URLs yet; NULL when memory ran out. */
static struct fetch_item *append_item(struct fetch_list *list, const char *label)
{
	struct fetch_item *item;

	if (list->n == list->capacity) {
		size_t capacity = list->capacity ? 2 * list->capacity : 64;
		struct fetch_item *items = reallocarray(list->items, capacity, sizeof(*items));

		if (!items)
			return NULL;
		list->items = items;
		list->capacity = capacity;
	}
	item = &list->items[list->n];
	*item = (struct fetch_item){ .label = strdup(label) };
	if (!item->label)
		return NULL;
	list->n++;
	return item;
}

/* The item of the same bytes, or NULL: a package for all architectures is in the lists of each. */
static struct fetch_item *find_item(struct fetch_list *list, const struct digest *sha256)
{
	for (size_t i = 0; sha256->algorithm != DIGEST_NONE && i < list->n; i++)
		if (digest_equal(&list->items[i].sha256, sha256))
			return &list->items[i];
	return NULL;
}

static int add_file(struct fetch_list *list, const struct build_env *env, const struct prepared *p,
	const struct wanted_file *file, struct err *e)
{
	struct candidate_rules rules = build_env_candidate_rules(env);
	struct fetch_item *item = find_item(list, &file->sha256);

	if (p) {
		rules.host_mirrors = &list->host_mirrors;
		rules.repositories = p->plan->apt.repositories;
		rules.n_repositories = p->plan->apt.n_repositories;
	}
	if (item)
		return candidates_list(file, &rules, &item->urls, e);
	item = append_item(list, file->label);
	if (!item)
		return err_set(e, -ENOMEM, "out of memory");
	item->sha256 = file->sha256;
	item->sha512 = file->sha512;
	item->size_bytes = file->size_bytes;
	item->about_bytes = file->about_bytes;
	return candidates_list(file, &rules, &item->urls, e);
}

int fetch_list_add(struct fetch_list *list, const struct build_env *env, const struct wanted_file *file, struct err *e)
{
	return add_file(list, env, NULL, file, e);
}

/* Where this host's apt fetches from: --mirror host. */
static int read_host_mirrors(struct fetch_list *list, enum arch arch, struct err *e)
{
	_cleanup_close_ int root_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct pkg_host_fs host = pkg_host_fs_folder(&root_fd);

	if (root_fd < 0)
		return err_set_errno(e, -errno, "cannot open `/`");
	strv_release(&list->host_mirrors);
	list->has_host_mirrors = true;
	list->host_mirrors_arch = arch;
	return pkg_host_mirrors(&host, arch, &list->host_mirrors, e);
}

static int add_package(struct fetch_list *list, const struct build_env *env, const struct prepared *p,
	const struct lock_package *package, struct err *e)
{
	_cleanup_free_ char *label = NULL;
	struct wanted_file file;

	if (asprintf(&label, "%s %s", package->name, package->version) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	file = wanted_package(label, package);
	return add_file(list, env, p, &file, e);
}

int fetch_list_add_packages(struct fetch_list *list, const struct build_env *env, const struct prepared *p,
	const struct lock_package *packages, size_t n, struct err *e)
{
	int r = 0;

	if (n > 0 && env->host_mirror && (!list->has_host_mirrors || list->host_mirrors_arch != p->arch))
		r = read_host_mirrors(list, p->arch, e);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_package(list, env, p, &packages[i], e);
	return r;
}

/* Add a location of the plan when it is a URL. */
static int add_location(struct fetch_list *list, const struct build_env *env, const char *label,
	const struct plan_location *location, const struct lock_blob *answer, struct err *e)
{
	struct wanted_file file = wanted_location(label, location, answer);

	return location->url ? fetch_list_add(list, env, &file, e) : 0;
}

static int add_sources(struct fetch_list *list, const struct build_env *env, const struct prepared *p, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < plan_count_sources(p->plan); i++) {
		const struct plan_location *location;
		_cleanup_free_ char *slot = NULL;

		r = plan_source(p->plan, i, &location, &slot);
		if (r < 0)
			return err_set(e, r, "out of memory");
		if (r > 0)
			r = add_location(list, env, slot, location, lock_source_find(&p->lock, p->plan, p->arch, slot), e);
	}
	return r;
}

int fetch_list_add_plan(struct fetch_list *list, const struct build_env *env, const struct prepared *p, bool has_root,
	struct err *e)
{
	const struct lock_arch *locked = &p->lock.arch[p->arch];
	const struct plan_kernel *kernel = &p->plan->kernel[p->arch];
	int r = 0;

	if (!has_root)
		r = add_location(list, env, "base image", &p->plan->base[p->arch].location, &locked->base, e);
	if (r == 0 && (kernel->kind == PLAN_KERNEL_ARCHIVE || kernel->kind == PLAN_KERNEL_FILE))
		r = add_location(list, env, "kernel", &kernel->location, &locked->kernel.archive, e);
	if (r == 0 && kernel->kind == PLAN_KERNEL_PACKAGE)
		r = fetch_list_add_packages(list, env, p, locked->kernel.packages, locked->kernel.n_packages, e);
	if (r == 0 && lock_needs_packages(p->plan, p->arch))
		r = fetch_list_add_packages(list, env, p, locked->packages.items, locked->packages.n, e);
	return r < 0 ? r : add_sources(list, env, p, e);
}

int fetch_list_run(struct fetch_list *list, const struct build_env *env, struct err *e)
{
	struct fetch_options options = build_env_fetch_options(env);
	_cleanup_missing_ struct missing own = { 0 };
	_cleanup_free_ struct fetch_request *requests = calloc(list->n + 1, sizeof(*requests));
	_cleanup_free_ struct fetch_result *results = calloc(list->n + 1, sizeof(*results));
	int r;

	if (list->n == 0)
		return 0;
	if (!requests || !results)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < list->n; i++)
		requests[i] = (struct fetch_request){ .label = list->items[i].label,
			.urls = (const char *const *)list->items[i].urls.items,
			.n_urls = list->items[i].urls.n,
			.sha256 = list->items[i].sha256,
			.sha512 = list->items[i].sha512,
			.size_bytes = list->items[i].size_bytes,
			.about_bytes = list->items[i].about_bytes };
	options.missing = env->missing ? env->missing : &own;
	r = fetch_advise(fetch_all(env->publisher, requests, list->n, &options, results, e), e);
	if (r == 0)
		fetch_results_release(results, list->n);
	return r < 0 ? err_default_kind(e, ERR_KIND_INPUT) : 0;
}
