#include "builder/resolve.h"
#include "builder/base.h"
#include "builder/boot_kernel.h"
#include "builder/root.h"
#include "builder/update.h"
#include "builder/vouch.h"
#include "lib/io.h"
#include "lib/process.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { REPOSITORY_KEY_MAX_BYTES = 1 << 20 };

/* Write the lock, or warn: a plan in a folder that cannot be written to still builds, and says why it is slow the next time. */
static int write_lock(const struct build_env *env, struct prepared *p, struct err *e)
{
	int r = lock_write(AT_FDCWD, p->lock_path, &p->lock, p->arch, e);

	if (!env->must_write_lock && (r == -EACCES || r == -EROFS || r == -EPERM)) {
		progress_warning(env->progress, "%s; the inputs are not pinned beyond this run", e->message);
		err_clear(e);
		return 0;
	}
	return r < 0 ? err_default_kind(e, ERR_KIND_HOST) : 0;
}

/* What stands behind a [files] or [inputs] entry that was fetched: a SHA-512 of the plan's, or nothing but that it came. */
static struct lock_blob source_answer(const struct build_env *env, const struct prepared *p, const char *slot,
	const struct plan_location *location, const struct fetch_result *result)
{
	struct lock_blob answer = { .url = location->url,
		.resolved_url = result->url,
		.size_bytes = result->size_bytes,
		.sha256 = result->sha256,
		.sha512 = result->sha512,
		.trust = location->sha512.algorithm != DIGEST_NONE ? LOCK_TRUST_PLAN : LOCK_TRUST_FIRST_USE };
	const char *name = strchr(slot, ':') + 1;
	_cleanup_free_ char *table = NULL;

	if (asprintf(&table, strncmp(slot, "files:", 6) == 0 ? "files.\"%s\"" : "inputs.%s", name) < 0)
		table = NULL;
	vouch_say(env->progress, answer.trust, NULL, slot, location->url, table ? table : slot, p->lock_path, &answer.sha256);
	return answer;
}

static int fetch_location(const struct build_env *env, const char *label, const struct plan_location *location,
	struct fetch_result *ret, struct err *e)
{
	struct wanted_file wanted = wanted_location(label, location, NULL);

	return fetch_one(env, &wanted, ret, e);
}

/* One [files] or [inputs] entry that comes from a URL. */
static int resolve_source(const struct build_env *env, struct prepared *p, const char *slot,
	const struct plan_location *location, struct err *e)
{
	struct fetch_result result = { 0 };
	struct lock_blob answer;
	int r;

	if (!location->url || location->sha256.algorithm != DIGEST_NONE ||
		lock_source_find(&p->lock, p->plan, p->arch, slot))
		return 0;
	r = fetch_location(env, slot, location, &result, e);
	if (r < 0)
		return err_wrap(e, "[%s]", slot);
	answer = source_answer(env, p, slot, location, &result);
	r = lock_set_source(&p->lock, p->plan, p->arch, slot, &answer, e);
	fetch_results_release(&result, 1);
	return r;
}

static int resolve_sources(const struct build_env *env, struct prepared *p, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < plan_count_sources(p->plan); i++) {
		const struct plan_location *location;
		_cleanup_free_ char *slot = NULL;

		r = plan_source(p->plan, i, &location, &slot);
		if (r < 0)
			return err_set(e, r, "out of memory");
		if (r > 0)
			r = resolve_source(env, p, slot, location, e);
	}
	return r;
}

/* Of several files that could not be had, one with the addresses and why says more than the names of all. */
static int tell_first(const struct missing *missing, struct err *e)
{
	const struct missing first = { .items = missing->items, .n = 1 };

	if (missing->n < 2)
		return e->code;
	err_clear(e);
	(void)missing_error(&first, 1, e);
	return err_wrap(e, "%zu files of package archives cannot be had; the first", missing->n);
}

/* Metadata with a known digest goes through the store, so that the next resolving finds it there; the rest straight into memory. */
static int transport_fetch(void *ctx, struct pkg_get *gets, size_t n, struct err *e)
{
	const struct build_env *env = ctx;
	struct fetch_options options = build_env_fetch_options(env);
	_cleanup_free_ struct fetch_request *requests = calloc(n ? n : 1, sizeof(*requests));
	_cleanup_free_ struct fetch_result *results = calloc(n ? n : 1, sizeof(*results));
	_cleanup_missing_ struct missing missing = { 0 };
	int r;

	if (!requests || !results)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		requests[i] = (struct fetch_request){ .label = gets[i].label,
			.urls = (const char *const *)gets[i].urls->items,
			.n_urls = gets[i].urls->n,
			.max_bytes = gets[i].bytes.max_bytes,
			.fresh = gets[i].fresh,
			.optional = true };
		if (gets[i].expected && gets[i].expected->algorithm == DIGEST_SHA256) {
			requests[i].sha256 = *gets[i].expected;
			requests[i].size_bytes = gets[i].expected_size_bytes;
		} else {
			requests[i].into = &gets[i].bytes;
		}
	}
	options.missing = &missing;
	r = fetch_all(env->publisher, requests, n, &options, results, e);
	if (r < 0) {
		for (size_t i = 0, k = 0; i < n && k < missing.n; i++)
			if (strcmp(missing.items[k].label, gets[i].label) == 0)
				gets[i].status = missing.items[k++].code;
		return tell_first(&missing, e);
	}
	for (size_t i = 0; r == 0 && i < n; i++) {
		_cleanup_close_ int fd = -1;

		gets[i].status = results[i].missing ? -ENOENT : 0;
		gets[i].from = take_ptr(results[i].url);
		if (results[i].missing || requests[i].into)
			continue;
		r = store_open_blob(publisher_store(env->publisher), &results[i].sha256, &fd, NULL, e);
		if (r == 0)
			gets[i].fd = take_fd(&fd);
	}
	fetch_results_release(results, n);
	return r;
}

/* A pause that ends at once when cancelling is asked for. */
static int transport_pause(void *ctx, unsigned pause_ms, struct err *e)
{
	const struct build_env *env = ctx;
	struct pollfd pfd = { .fd = env->cancel_fd, .events = POLLIN };
	uint64_t until = monotonic_ms() + pause_ms, now;

	while ((now = monotonic_ms()) < until)
		if (poll(&pfd, env->cancel_fd >= 0, (int)(until - now)) > 0)
			break;
	return build_env_check_cancel(env, e);
}

/* Everything that a request for packages borrows, and that has to be freed after it. */
struct package_question {
	struct strv install, debs;
	struct pkg_local_deb *local_debs;
	struct pkg_repository *repositories;
	struct buf *repository_keys;
	size_t n_repositories;
	int host_root_fd;
	struct pkg_host_fs host_apt;
};

static void package_question_release(struct package_question *q)
{
	for (size_t i = 0; q->local_debs && i < q->debs.n; i++)
		close_fdp(&q->local_debs[i].fd);
	for (size_t i = 0; q->repository_keys && i < q->n_repositories; i++)
		buf_release(&q->repository_keys[i]);
	free(q->local_debs);
	free(q->repositories);
	free(q->repository_keys);
	close_fdp(&q->host_root_fd);
	strv_release(&q->install);
	strv_release(&q->debs);
}

static int open_local_debs(const struct prepared *p, struct package_question *q, struct err *e)
{
	int r = plan_debs(p->plan, p->arch, &q->debs);

	if (r < 0)
		return err_set(e, r, "out of memory");
	q->local_debs = calloc(q->debs.n + 1, sizeof(*q->local_debs));
	if (!q->local_debs)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < q->debs.n; i++)
		q->local_debs[i].fd = -1;
	for (size_t i = 0; i < q->debs.n; i++) {
		_cleanup_free_ char *slot = NULL;
		const struct plan_local_input *input;
		struct stat st;

		if (asprintf(&slot, "deb:%s", q->debs.items[i]) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		r = prepared_open_local(p, slot, &q->local_debs[i].fd, e);
		if (r < 0)
			return r;
		if (fstat(q->local_debs[i].fd, &st) < 0)
			return err_set_errno(e, -errno, "cannot stat `%s`", q->debs.items[i]);
		input = plan_local_input_find(&p->locals, slot);
		q->local_debs[i].label = q->debs.items[i];
		q->local_debs[i].sha256 = input->digest;
		q->local_debs[i].size_bytes = (uint64_t)st.st_size;
	}
	return 0;
}

static int read_repositories(const struct prepared *p, struct package_question *q, struct err *e)
{
	const struct plan_apt *apt = &p->plan->apt;

	q->repositories = calloc(apt->n_repositories + 1, sizeof(*q->repositories));
	q->repository_keys = calloc(apt->n_repositories + 1, sizeof(*q->repository_keys));
	if (!q->repositories || !q->repository_keys)
		return err_set(e, -ENOMEM, "out of memory");
	q->n_repositories = apt->n_repositories;
	for (size_t i = 0; i < apt->n_repositories; i++) {
		const struct plan_repository *repository = &apt->repositories[i];
		struct buf *key = &q->repository_keys[i];

		buf_init(key, REPOSITORY_KEY_MAX_BYTES);
		if (repository->key) {
			_cleanup_close_ int fd = plan_open_beneath(p->plan, repository->key, O_RDONLY, e);
			int r = fd < 0 ? fd : read_fd_to_end(fd, key);

			if (fd < 0)
				return r;
			if (r < 0)
				return err_set_errno(e, r, "cannot read the key `%s`", repository->key);
		}
		q->repositories[i] = (struct pkg_repository){ .uri = repository->uri,
			.suite = repository->suite,
			.components = &repository->components,
			.key_label = repository->key,
			.key = repository->key ? buf_str(key) : NULL,
			.key_len = key->len };
	}
	return 0;
}

/* Ask builder/packages what the plan's packages and its kernel's package are. `names` are those that may move (update.h). */
static int resolve_package_set(const struct build_env *env, const struct prepared *p, const struct strv *names, struct root *root,
	unsigned sections, struct pkg_set *ret, struct err *e)
{
	_cleanup_earlier_answer_ struct earlier_answer earlier = { 0 };
	_cleanup_(package_question_release) struct package_question q = { .host_root_fd = -1 };
	const struct plan_kernel *kernel = &p->plan->kernel[p->arch];
	struct pkg_request request = { .arch = p->arch,
		.fs = root_host_fs(root->fs),
		.transport = { .ctx = (void *)(uintptr_t)env, .fetch_many = transport_fetch, .pause = transport_pause },
		.recommends = p->plan->apt.recommends,
		.mirrors = env->mirrors,
		.n_mirrors = env->n_mirrors,
		.snapshot = p->plan->apt.snapshot,
		.ignore_valid_until = p->plan->apt.ignore_valid_until,
		.now = (int64_t)time(NULL),
		.trusted = &p->plan->apt.trusted,
		.retry_delay_ms = env->retry_delay_ms,
		.progress = env->progress };
	int r = plan_packages(p->plan, p->arch, &q.install);

	if (r < 0)
		return err_set(e, r, "out of memory");
	r = open_local_debs(p, &q, e);
	if (r == 0)
		r = read_repositories(p, &q, e);
	if (r == 0)
		r = earlier_answer_init(env, p, names, &earlier, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_USAGE);
	/* What is not asked for is not looked into: its .debs need not be had. */
	if (!(sections & LOCK_SECTION_PACKAGES))
		earlier.keep.n_items = 0, earlier.keep.asked = earlier.keep.removals = NULL;
	request.keep = earlier.is_there ? &earlier.keep : NULL;
	request.known_releases = earlier.releases;
	request.n_known_releases = earlier.n_releases;
	if (sections & LOCK_SECTION_PACKAGES) {
		request.install = &q.install;
		request.remove = &p->plan->apt.remove;
		request.debs = q.local_debs;
		request.n_debs = q.debs.n;
	}
	if (sections & LOCK_SECTION_KERNEL && kernel->kind == PLAN_KERNEL_PACKAGE)
		request.kernel_package = kernel->package;
	request.repositories = q.repositories;
	request.n_repositories = q.n_repositories;
	if (env->host_mirror) {
		q.host_root_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (q.host_root_fd < 0)
			return err_set_errno(e, -errno, "cannot open `/`");
		q.host_apt = pkg_host_fs_folder(&q.host_root_fd);
		request.host_apt = &q.host_apt;
	}
	progress_begin(env->progress, "solve", "choosing packages");
	r = pkg_resolve(&request, ret, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	progress_end(env->progress, "solve", "%zu packages to install, %zu to remove", ret->n_items, ret->n_removals);
	for (size_t i = 0; i < ret->n_removals; i++)
		if (ret->removals[i].reason != PKG_REMOVAL_ASKED)
			progress_note(env->progress, "%s %s is removed, because of %s", ret->removals[i].name,
				ret->removals[i].version, ret->removals[i].because);
	return 0;
}

static struct lock_package package_answer(const struct pkg_item *item)
{
	return (struct lock_package){ .name = item->name,
		.version = item->version,
		.arch = item->arch,
		.size_bytes = item->size_bytes,
		.sha256 = item->sha256,
		.file = item->filename,
		.uri = item->archive,
		.suite = item->suite,
		.release = item->release_sha256,
		.release_date = item->release_date };
}

static int lock_packages(struct prepared *p, const struct pkg_set *set, struct err *e)
{
	_cleanup_free_ struct lock_package *items = calloc(set->n_items + 1, sizeof(*items));
	_cleanup_free_ struct lock_keyring *keyrings = calloc(set->n_keyrings + 1, sizeof(*keyrings));
	_cleanup_strv_ struct strv removals = { 0 };
	struct lock_packages answer = { .items = items, .keyrings = keyrings, .n_keyrings = set->n_keyrings };

	if (!items || !keyrings)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < set->n_items; i++)
		if (set->items[i].local_deb < 0)
			items[answer.n++] = package_answer(&set->items[i]);
	for (size_t i = 0; i < set->n_keyrings; i++)
		keyrings[i] = (struct lock_keyring){ .path = set->keyrings[i].path, .sha256 = set->keyrings[i].sha256 };
	for (size_t i = 0; i < set->n_removals; i++)
		if (strv_add(&removals, set->removals[i].name) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	answer.removals = removals;
	return lock_set_packages(&p->lock, p->plan, p->arch, &p->locals, &answer, e);
}

/* Pin the kernel: whatever kind it is, its file is obtained once and digested. */
static int resolve_kernel(const struct build_env *env, struct prepared *p, struct root *root, const struct pkg_set *set,
	struct err *e)
{
	_cleanup_temp_folder_ struct temp_folder folder = TEMP_FOLDER_INIT;
	_cleanup_boot_kernel_ struct boot_kernel kernel = BOOT_KERNEL_INIT;
	_cleanup_free_ struct lock_package *packages = calloc(set->n_kernel_items + 1, sizeof(*packages));
	struct lock_kernel answer = { .kind = p->plan->kernel[p->arch].kind };
	int r;

	if (!packages)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < set->n_kernel_items; i++)
		packages[i] = package_answer(&set->kernel_items[i]);
	answer.packages = packages;
	answer.n_packages = set->n_kernel_items;
	r = temp_folder_new(env->publisher, "kernel", &folder, e);
	if (r == 0)
		r = boot_kernel_get(env, p, root, &answer, &folder, &kernel, e);
	if (r < 0)
		return err_wrap(e, "the kernel");
	answer.sha256 = kernel.kernel.sha256;
	answer.archive = kernel.archive;
	if (answer.archive.sha256.algorithm != DIGEST_NONE) {
		char table[32];

		(void)snprintf(table, sizeof(table), "kernel.%s", arch_name(p->arch));
		vouch_say(env->progress, answer.archive.trust, NULL, "kernel", p->plan->kernel[p->arch].location.url, table,
			p->lock_path, &answer.archive.sha256);
	}
	answer.member = kernel.kernel.origin && kernel.kernel.origin[0] ? kernel.kernel.origin : NULL;
	return lock_set_kernel(&p->lock, p->plan, p->arch, &p->locals, &answer, e);
}

/* What needs the root partition to be answered: packages, and a kernel that comes from there or from the sources it names. */
static int resolve_from_root(const struct build_env *env, struct prepared *p, const struct strv *names, unsigned sections,
	struct err *e)
{
	const struct plan_kernel *kernel = &p->plan->kernel[p->arch];
	bool packages = sections & LOCK_SECTION_PACKAGES;
	bool kernel_package = sections & LOCK_SECTION_KERNEL && kernel->kind == PLAN_KERNEL_PACKAGE;
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	_cleanup_root_ struct root root = ROOT_INIT;
	struct digest base;
	int r = 0;

	if (packages || kernel_package || kernel->kind == PLAN_KERNEL_FROM_BASE) {
		r = lock_base_digest(p->plan, &p->lock, p->arch, &p->locals, &base, e);
		if (r == 0)
			r = root_get(env, p, &base, &root, e);
	}
	if (r == 0 && (packages || kernel_package))
		r = resolve_package_set(env, p, names, &root, sections, &set, e);
	if (r == 0 && sections & LOCK_SECTION_KERNEL)
		r = resolve_kernel(env, p, &root, &set, e);
	if (r == 0 && packages)
		r = lock_packages(p, &set, e);
	return r;
}

/* Resolve what is not answered. An update is written when all of it is known: one that fails leaves the lock as it was. */
static int resolve_unanswered(const struct build_env *env, struct prepared *p, const struct strv *names, struct err *e)
{
	bool is_unwritten = false;
	unsigned sections;
	int r = lock_missing(p->plan, &p->lock, p->arch, &p->locals, &sections, e);

	if (r < 0)
		return r;
	if (sections && env->locked)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOKEY,
			"`%s` must answer, since --locked forbids to change it, but %s; run `imgbuild lock %s`", p->lock_path, p->key_reason,
			p->plan->file);
	if (sections & LOCK_SECTION_BASE) {
		r = base_resolve(env, p, e);
		is_unwritten = names != NULL;
		if (r == 0 && !is_unwritten)
			r = write_lock(env, p, e);
		/* With the base known, an older answer may turn out to be one to this base. */
		if (r == 0)
			r = lock_missing(p->plan, &p->lock, p->arch, &p->locals, &sections, e);
		if (r < 0)
			return r;
	}
	if (sections & (LOCK_SECTION_KERNEL | LOCK_SECTION_PACKAGES))
		r = resolve_from_root(env, p, names, sections, e);
	if (r == 0)
		r = build_env_check_cancel(env, e);
	if (r == 0 && sections & LOCK_SECTION_SOURCES)
		r = resolve_sources(env, p, e);
	if (r == 0 && (sections || is_unwritten))
		r = write_lock(env, p, e);
	if (r == 0)
		r = prepared_compute_key(p, e);
	if (r == 0 && p->key_error)
		r = err_set_kind(e, ERR_KIND_DEFECT, -ENOKEY, "the lock was resolved and still does not answer: %s",
			p->key_reason);
	return r;
}

/* Offline, say that it is the lock that is to be made, not which file is wanting first: whoever works offline has one in mind. */
static int explain_offline(const struct build_env *env, const struct prepared *p, int r, struct err *e)
{
	struct err why = *e;

	if (r != -ENETUNREACH || !env->offline)
		return r;
	return err_set_kind(e, ERR_KIND_INPUT, r,
		"%s; that takes the network, so run `imgbuild lock %s` once without --offline (%s)", p->key_reason, p->plan->file,
		why.message);
}

int resolve_lock(const struct build_env *env, struct prepared *p, struct err *e)
{
	return explain_offline(env, p, resolve_unanswered(env, p, NULL, e), e);
}

int resolve_update(const struct build_env *env, struct prepared *p, const struct strv *names, struct err *e)
{
	update_forget(env, p, names);
	return resolve_unanswered(env, p, names, e);
}
