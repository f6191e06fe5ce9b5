#include "builder/fetch_list.h"
#include "builder/packages/metadata.h"
#include "builder/packages/place.h"

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

int fetch_list_add(struct fetch_list *list, const struct wanted_file *file, struct err *e)
{
	struct fetch_item *item = append_item(list, file->label);

	if (!item || strv_add(&item->urls, file->url) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	item->sha256 = file->sha256;
	item->sha512 = file->sha512;
	item->size_bytes = file->size_bytes;
	return 0;
}

/* Where this host's apt fetches from: --mirror host. */
static int read_host_mirrors(struct fetch_list *list, enum arch arch, struct err *e)
{
	_cleanup_close_ int root_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct pkg_host_fs host = pkg_host_fs_folder(&root_fd);

	if (root_fd < 0)
		return err_set_errno(e, -errno, "cannot open `/`");
	list->has_host_mirrors = true;
	return pkg_host_mirrors(&host, arch, &list->host_mirrors, e);
}

static int add_package(struct fetch_list *list, const struct build_env *env, const struct lock_package *package,
	struct err *e)
{
	_cleanup_strv_ struct strv places = { 0 };
	struct fetch_item *item;
	int r;

	if (!package->uri || !package->file)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOENT,
			"the lock does not say where %s %s comes from; run `imgbuild lock` again", package->name,
			package->version);
	r = pkg_mirror_places(package->uri, env->mirrors, env->n_mirrors, &list->host_mirrors, &places, e);
	if (r < 0)
		return r;
	if (!strv_contains(&places, package->uri) && strv_add(&places, package->uri) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	item = append_item(list, package->name);
	for (size_t i = 0; item && i < places.n; i++)
		if (strv_addf(&item->urls, "%s/%s", places.items[i], package->file) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	if (!item)
		return err_set(e, -ENOMEM, "out of memory");
	item->sha256 = package->sha256;
	item->size_bytes = package->size_bytes;
	return 0;
}

int fetch_list_add_packages(struct fetch_list *list, const struct build_env *env, enum arch arch,
	const struct lock_package *packages, size_t n, struct err *e)
{
	int r = 0;

	if (n > 0 && env->host_mirror && !list->has_host_mirrors)
		r = read_host_mirrors(list, arch, e);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = add_package(list, env, &packages[i], e);
	return r;
}

/* Add a location of the plan that is a URL; the lock's answer gives the digest that the plan does not. */
static int add_location(struct fetch_list *list, const char *label, const struct plan_location *location,
	const struct digest *answer, struct err *e)
{
	struct wanted_file file = {
		.label = label, .url = location->url, .sha256 = location->sha256, .sha512 = location->sha512
	};

	if (!location->url)
		return 0;
	if (file.sha256.algorithm == DIGEST_NONE && answer)
		file.sha256 = *answer;
	return fetch_list_add(list, &file, e);
}

static int add_sources(struct fetch_list *list, const struct prepared *p, struct err *e)
{
	const struct plan *plan = p->plan;
	int r = 0;

	for (size_t i = 0; r == 0 && i < plan->n_files + plan->n_inputs; i++) {
		bool is_file = i < plan->n_files;
		const struct plan_location *location =
			is_file ? &plan->files[i].location : &plan->inputs[i - plan->n_files].location;
		const char *name = is_file ? plan->files[i].destination.text : plan->inputs[i - plan->n_files].name;
		_cleanup_free_ char *slot = NULL;
		const struct lock_blob *answer;

		if (asprintf(&slot, "%s:%s", is_file ? "files" : "inputs", name) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		answer = lock_source_find(&p->lock, plan, p->arch, slot);
		r = add_location(list, slot, location, answer ? &answer->sha256 : NULL, e);
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
		r = add_location(list, "base image", &p->plan->base[p->arch].location, &locked->base.sha256, e);
	if (r == 0 && (kernel->kind == PLAN_KERNEL_ARCHIVE || kernel->kind == PLAN_KERNEL_FILE))
		r = add_location(list, "kernel", &kernel->location, &locked->kernel.archive.sha256, e);
	if (r == 0 && kernel->kind == PLAN_KERNEL_PACKAGE)
		r = fetch_list_add_packages(list, env, p->arch, locked->kernel.packages, locked->kernel.n_packages, e);
	if (r == 0 && lock_needs_packages(p->plan, p->arch))
		r = fetch_list_add_packages(list, env, p->arch, locked->packages.items, locked->packages.n, e);
	return r < 0 ? r : add_sources(list, p, e);
}

int fetch_list_run(struct fetch_list *list, const struct build_env *env, struct err *e)
{
	struct fetch_options options = build_env_fetch_options(env);
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
			.size_bytes = list->items[i].size_bytes };
	r = fetch_all(env->publisher, requests, list->n, &options, results, e);
	if (r == 0)
		fetch_results_release(results, list->n);
	return r < 0 ? err_default_kind(e, ERR_KIND_INPUT) : 0;
}
