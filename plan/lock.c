#include "lib/url.h"
#include "plan/lock_internal.h"
#include "plan/syntax.h"

#include <assert.h>
#include <string.h>

void lock_blob_release(struct lock_blob *b)
{
	free(b->url);
	free(b->checksums.url);
	free(b->checksums.signer);
	free(b->resolved_url);
	*b = (struct lock_blob){ 0 };
}

void lock_package_release(struct lock_package *p)
{
	free(p->name);
	free(p->version);
	free(p->arch);
	free(p->file);
	free(p->uri);
	free(p->suite);
	*p = (struct lock_package){ 0 };
}

static void release_packages(struct lock_package *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		lock_package_release(&items[i]);
	free(items);
}

void lock_kernel_release(struct lock_kernel *k)
{
	lock_blob_release(&k->archive);
	free(k->member);
	release_packages(k->packages, k->n_packages);
	*k = (struct lock_kernel){ 0 };
}

void lock_packages_release(struct lock_packages *p)
{
	release_packages(p->items, p->n);
	strv_release(&p->asked);
	strv_release(&p->removals);
	for (size_t i = 0; i < p->n_keyrings; i++)
		free(p->keyrings[i].path);
	free(p->keyrings);
	*p = (struct lock_packages){ 0 };
}

static void source_release(struct lock_source *s)
{
	free(s->slot);
	lock_blob_release(&s->blob);
}

void lock_arch_release(struct lock_arch *a)
{
	lock_blob_release(&a->base);
	lock_kernel_release(&a->kernel);
	lock_packages_release(&a->packages);
	for (size_t i = 0; i < a->n_sources; i++)
		source_release(&a->sources[i]);
	free(a->sources);
	*a = (struct lock_arch){ 0 };
}

bool lock_arch_is_empty(const struct lock_arch *a)
{
	return a->base.question.algorithm == DIGEST_NONE && a->kernel.question.algorithm == DIGEST_NONE &&
	       a->packages.question.algorithm == DIGEST_NONE && a->n_sources == 0;
}

void lock_release(struct lock *l)
{
	for (unsigned a = 0; a < ARCH_COUNT; a++)
		lock_arch_release(&l->arch[a]);
}

char *lock_path_for(const char *plan_path)
{
	size_t n = strlen(plan_path);
	char *path;

	if (n > 5 && strcmp(plan_path + n - 5, ".toml") == 0 && plan_path[n - 6] != '/')
		n -= 5;
	return asprintf(&path, "%.*s.lock", (int)n, plan_path) < 0 ? NULL : path;
}

static int compare_packages(const void *a, const void *b)
{
	const struct lock_package *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	if (c == 0)
		c = strcmp(x->arch, y->arch);
	return c ? c : strcmp(x->version, y->version);
}

void lock_packages_sort(struct lock_package *items, size_t n)
{
	if (n > 0)
		qsort(items, n, sizeof(*items), compare_packages);
}

static int compare_keyrings(const void *a, const void *b)
{
	const struct lock_keyring *x = a, *y = b;
	int c = strcmp(x->path, y->path);

	return c ? c : memcmp(x->sha256.bytes, y->sha256.bytes, DIGEST_MAX_BYTES);
}

void lock_keyrings_sort(struct lock_keyring *items, size_t n)
{
	if (n > 0)
		qsort(items, n, sizeof(*items), compare_keyrings);
}

/* --- copies, as the lock keeps them --- */

/* Copy a string; NULL stays NULL. Returns false when out of memory. */
static bool copy_string(const char *s, char **ret)
{
	*ret = s ? strdup(s) : NULL;
	return !s || *ret;
}

/* A URL without secrets, or nothing when it is no URL that could be fetched. */
static bool copy_url(const char *url, char **ret)
{
	*ret = NULL;
	if (!url || !syntax_is_http_url(url))
		return true;
	*ret = url_redact(url);
	return *ret != NULL;
}

/* A URL as it is, or nothing when it holds a secret or may (user info, a query): a redacted one leads nowhere. */
static bool copy_plain_url(const char *url, char **ret)
{
	bool same;

	if (!copy_url(url, ret) || !*ret)
		return !url || !syntax_is_http_url(url);
	same = strcmp(url, *ret) == 0;
	if (!same) {
		free(*ret);
		*ret = NULL;
	}
	return true;
}

static int copy_blob(const struct lock_blob *b, struct lock_blob *ret, struct err *e)
{
	const struct lock_checksums *c = &b->checksums;

	if (b->sha256.algorithm != DIGEST_SHA256)
		return err_set(e, -EINVAL, "an answer for the lock came without a SHA-256");
	if (c->url && (c->sha256.algorithm != DIGEST_SHA256 || (c->signer && !syntax_is_fingerprint(c->signer))))
		return err_set(e, -EINVAL, "a checksum file for the lock came without a SHA-256 or with a signer that is none");
	*ret = (struct lock_blob){ .question = b->question,
		.size_bytes = b->size_bytes,
		.sha256 = b->sha256,
		.sha512 = b->sha512,
		.trust = b->trust };
	if (copy_url(b->url, &ret->url) && copy_plain_url(b->resolved_url, &ret->resolved_url) &&
		copy_url(c->url, &ret->checksums.url) && copy_string(ret->checksums.url ? c->signer : NULL, &ret->checksums.signer)) {
		if (ret->checksums.url)
			ret->checksums.sha256 = c->sha256;
		return 0;
	}
	lock_blob_release(ret);
	return err_set(e, -ENOMEM, "out of memory");
}

static int copy_package(const struct lock_package *p, struct lock_package *ret, struct err *e)
{
	const char *file = p->file && strncmp(p->file, "./", 2) == 0 ? p->file + 2 : p->file;

	if (p->sha256.algorithm != DIGEST_SHA256 || !p->name || !syntax_is_package_name(p->name) || !p->version ||
		!syntax_is_package_version(p->version) || !p->arch || !syntax_is_package_arch(p->arch))
		return err_set(e, -EINVAL, "the package `%s` cannot be locked: its name, version, architecture or SHA-256 is no "
					   "valid one",
			p->name ? p->name : "?");
	*ret = (struct lock_package){ .size_bytes = p->size_bytes, .sha256 = p->sha256, .release = p->release,
		.release_date = p->release_date > 0 && p->release_date <= LOCK_DATE_MAX ? p->release_date : 0 };
	/* Hints that do not look like what they should be are left out: they only say where to look first. */
	if (copy_string(p->name, &ret->name) && copy_string(p->version, &ret->version) && copy_string(p->arch, &ret->arch) &&
		copy_string(file && syntax_is_normal_relative(file) ? file : NULL, &ret->file) &&
		copy_url(p->uri, &ret->uri) &&
		copy_string(p->suite && syntax_is_suite(p->suite) ? p->suite : NULL, &ret->suite))
		return 0;
	lock_package_release(ret);
	return err_set(e, -ENOMEM, "out of memory");
}

static int copy_packages(const struct lock_package *items, size_t n, struct lock_package **ret, struct err *e)
{
	struct lock_package *copy;

	if (n > LOCK_MAX_PACKAGES)
		return err_set(e, -E2BIG, "found %zu packages for the lock, expected at most %d", n, LOCK_MAX_PACKAGES);
	copy = calloc(n + 1, sizeof(*copy));
	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		int r = copy_package(&items[i], &copy[i], e);

		if (r < 0) {
			release_packages(copy, i);
			return r;
		}
	}
	*ret = copy;
	return 0;
}

/* --- lines that stay as they are --- */

static bool same_package(const struct lock_package *a, const struct lock_package *b)
{
	return strcmp(a->name, b->name) == 0 && strcmp(a->arch, b->arch) == 0 && strcmp(a->version, b->version) == 0 &&
	       a->size_bytes == b->size_bytes && digest_equal(&a->sha256, &b->sha256);
}

/* Gather the archives that an answer names. */
static int used_archives(const struct lock_package *items, size_t n, struct strv *ret)
{
	for (size_t i = 0; i < n; i++)
		/* Mostly that of the one before. */
		if (items[i].uri && (i == 0 || !items[i - 1].uri || strcmp(items[i - 1].uri, items[i].uri) != 0) &&
			!strv_contains(ret, items[i].uri) && strv_add(ret, items[i].uri) < 0)
			return -ENOMEM;
	return 0;
}

static void swap_hints(struct lock_package *a, struct lock_package *b)
{
	struct lock_package was = *a;

	a->file = b->file, b->file = was.file;
	a->uri = b->uri, b->uri = was.uri;
	a->suite = b->suite, b->suite = was.suite;
	a->release = b->release, b->release = was.release;
	a->release_date = b->release_date, b->release_date = was.release_date;
}

/* Keep the hints of packages that do not change, so that their lines do not: of where it was found and who vouched for it the first
 * answer is as good as the last. But an archive that no package comes from any more may be gone, and where nobody vouched for a
 * package somebody may now: then the new hints count.
 * The old packages are given up: their hints are exchanged. Both are sorted when `sorted`. */
static int keep_hints(struct lock_package *old, size_t n_old, struct lock_package *items, size_t n, bool sorted, struct err *e)
{
	_cleanup_strv_ struct strv archives = { 0 };
	size_t k = 0;

	if (used_archives(items, n, &archives) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		if (!sorted)
			k = 0;
		while (k < n_old && (sorted ? compare_packages(&old[k], &items[i]) < 0 : !same_package(&old[k], &items[i])))
			k++;
		if (k < n_old && same_package(&old[k], &items[i]) && old[k].uri && strv_contains(&archives, old[k].uri) &&
			(old[k].release.algorithm != DIGEST_NONE || items[i].release.algorithm == DIGEST_NONE))
			swap_hints(&items[i], &old[k]);
	}
	return 0;
}

/* --- storing answers --- */

int lock_set_base(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals,
	const struct lock_blob *base, struct err *e)
{
	struct lock_blob copy = { 0 };
	struct digest question;
	int r;

	/* What is local is never pinned here. */
	if (!p->base[arch].location.url)
		return 0;
	r = lock_question_base(p, arch, locals, &question, e);
	if (r == 0)
		r = copy_blob(base, &copy, e);
	if (r < 0)
		return r;
	copy.question = question;
	lock_blob_release(&l->arch[arch].base);
	l->arch[arch].base = copy;
	return 0;
}

int lock_set_kernel(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals,
	const struct lock_kernel *kernel, struct err *e)
{
	const struct plan_kernel *asked = &p->kernel[arch];
	_cleanup_(lock_kernel_release) struct lock_kernel copy = { .kind = asked->kind, .sha256 = kernel->sha256 };
	struct lock_kernel *old;
	int r;

	if (asked->kind == PLAN_KERNEL_FILE && !asked->location.url)
		return 0;
	if (kernel->kind != asked->kind || kernel->sha256.algorithm != DIGEST_SHA256 ||
		(asked->kind == PLAN_KERNEL_PACKAGE && kernel->n_packages == 0))
		return err_set(e, -EINVAL, "the answer for the kernel is not one to the plan's question");
	r = lock_question_kernel(p, l, arch, locals, &copy.question, e);
	/* The digest of a local archive stays out. */
	if (r == 0 && asked->location.url)
		r = copy_blob(&kernel->archive, &copy.archive, e);
	if (r == 0 && asked->kind == PLAN_KERNEL_PACKAGE)
		r = copy_packages(kernel->packages, kernel->n_packages, &copy.packages, e);
	if (r < 0)
		return r;
	copy.n_packages = copy.packages ? kernel->n_packages : 0;
	old = &l->arch[arch].kernel;
	r = keep_hints(old->packages, old->n_packages, copy.packages, copy.n_packages, false, e);
	if (r < 0)
		return r;
	if (!copy_string(kernel->member && syntax_is_line(kernel->member, 4096) ? kernel->member : NULL, &copy.member))
		return err_set(e, -ENOMEM, "out of memory");
	lock_kernel_release(&l->arch[arch].kernel);
	l->arch[arch].kernel = copy;
	copy = (struct lock_kernel){ 0 };
	return 0;
}

/* A key file of the plan itself: local, and thus never locked. */
static bool is_key_of_plan(const struct plan *p, const char *path)
{
	for (size_t i = 0; i < p->apt.n_repositories; i++)
		if (p->apt.repositories[i].key && strcmp(p->apt.repositories[i].key, path) == 0)
			return true;
	return false;
}

static int copy_keyrings(const struct plan *p, const struct lock_packages *from, struct lock_packages *to, struct err *e)
{
	to->keyrings = calloc(from->n_keyrings + 1, sizeof(*to->keyrings));
	if (!to->keyrings)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < from->n_keyrings; i++) {
		const struct lock_keyring *k = &from->keyrings[i];

		if (is_key_of_plan(p, k->path))
			continue;
		if (k->sha256.algorithm != DIGEST_SHA256 || !syntax_is_line(k->path, LOCK_MAX_HINT_BYTES) ||
			to->n_keyrings == LOCK_MAX_KEYRINGS)
			return err_set(e, -EINVAL, "the key file `%s` cannot be locked: no SHA-256, a strange name or too many of them",
				k->path);
		to->keyrings[to->n_keyrings] = (struct lock_keyring){ .path = strdup(k->path), .sha256 = k->sha256 };
		if (!to->keyrings[to->n_keyrings].path)
			return err_set(e, -ENOMEM, "out of memory");
		to->n_keyrings++;
	}
	lock_keyrings_sort(to->keyrings, to->n_keyrings);
	return 0;
}

static int copy_removals(const struct strv *removals, struct strv *ret, struct err *e)
{
	for (size_t i = 0; i < removals->n; i++) {
		if (!syntax_is_package_name(removals->items[i]))
			return err_set(e, -EINVAL, "the package `%s`, to be removed, has no valid name", removals->items[i]);
		if (strv_add(ret, removals->items[i]) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	}
	strv_sort(ret);
	strv_uniq(ret);
	return 0;
}

int lock_set_packages(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals,
	const struct lock_packages *packages, struct err *e)
{
	_cleanup_(lock_packages_release) struct lock_packages copy = { 0 };
	struct lock_packages *old;
	int r = lock_question_packages(p, l, arch, locals, &copy.question, e);

	if (r == 0)
		r = copy_packages(packages->items, packages->n, &copy.items, e);
	if (r < 0)
		return r;
	copy.n = packages->n;
	lock_packages_sort(copy.items, copy.n);
	if (plan_packages(p, arch, &copy.asked) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (copy.asked.n > LOCK_MAX_PACKAGES || packages->removals.n > LOCK_MAX_PACKAGES)
		return err_set_kind(e, ERR_KIND_USAGE, -E2BIG, "found %zu packages asked for and %zu to be removed, expected at most %d of each",
			copy.asked.n, packages->removals.n, LOCK_MAX_PACKAGES);
	r = copy_removals(&packages->removals, &copy.removals, e);
	if (r == 0)
		r = copy_keyrings(p, packages, &copy, e);
	old = &l->arch[arch].packages;
	if (r == 0)
		r = keep_hints(old->items, old->n, copy.items, copy.n, true, e);
	if (r < 0)
		return r;
	lock_packages_release(&l->arch[arch].packages);
	l->arch[arch].packages = copy;
	copy = (struct lock_packages){ 0 };
	return 0;
}

/* Drop the sources that the plan no longer has, or pins itself. Returns whether there were any. */
static bool prune_sources(struct lock_arch *a, const struct plan *p)
{
	size_t kept = 0, n = a->n_sources;

	for (size_t i = 0; i < n; i++) {
		const struct plan_location *location = plan_source_find(p, a->sources[i].slot);

		if (location && lock_needs_location(location))
			a->sources[kept++] = a->sources[i];
		else
			source_release(&a->sources[i]);
	}
	a->n_sources = kept;
	return kept < n;
}

static struct lock_source *find_slot(const struct lock_arch *a, const char *slot)
{
	for (size_t i = 0; i < a->n_sources; i++)
		if (strcmp(a->sources[i].slot, slot) == 0)
			return &a->sources[i];
	return NULL;
}

static int compare_sources(const void *a, const void *b)
{
	return strcmp(((const struct lock_source *)a)->slot, ((const struct lock_source *)b)->slot);
}

/* Add an empty source, keeping the order. */
static int add_slot(struct lock_arch *a, const char *slot, struct err *e)
{
	struct lock_source *grown = reallocarray(a->sources, a->n_sources + 1, sizeof(*grown));
	char *name = strdup(slot);

	if (grown)
		a->sources = grown;
	if (!grown || !name) {
		free(name);
		return err_set(e, -ENOMEM, "out of memory");
	}
	grown[a->n_sources++] = (struct lock_source){ .slot = name };
	qsort(grown, a->n_sources, sizeof(*grown), compare_sources);
	return 0;
}

int lock_set_source(struct lock *l, const struct plan *p, enum arch arch, const char *slot, const struct lock_blob *blob,
	struct err *e)
{
	struct lock_arch *a = &l->arch[arch];
	_cleanup_(lock_blob_release) struct lock_blob copy = { 0 };
	struct digest question;
	struct lock_source *source;
	int r = lock_question_source(p, slot, &question, e);

	if (r == 0)
		r = copy_blob(blob, &copy, e);
	if (r < 0)
		return r;
	copy.question = question;
	(void)prune_sources(a, p);
	if (!find_slot(a, slot)) {
		r = add_slot(a, slot, e);
		if (r < 0)
			return r;
	}
	source = find_slot(a, slot);
	assert(source);
	lock_blob_release(&source->blob);
	source->blob = copy;
	copy = (struct lock_blob){ 0 };
	return 0;
}

int lock_prune(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals, struct err *e)
{
	struct lock_arch *a = &l->arch[arch];
	bool pruned = false;
	unsigned missing;
	int r;

	for (unsigned i = 0; i < ARCH_COUNT; i++) {
		struct lock_arch *other = &l->arch[i];

		if (plan_location_given(&p->base[i].location) || lock_arch_is_empty(other))
			continue;
		lock_arch_release(other);
		pruned = true;
	}
	if (!plan_location_given(&p->base[arch].location))
		return pruned;
	r = lock_missing(p, l, arch, locals, &missing, e);
	if (r < 0)
		return r;
	if (a->base.question.algorithm != DIGEST_NONE && (missing & LOCK_SECTION_BASE || !lock_needs_base(p, arch))) {
		lock_blob_release(&a->base);
		pruned = true;
	}
	if (a->kernel.question.algorithm != DIGEST_NONE && (missing & LOCK_SECTION_KERNEL || !lock_needs_kernel(p, arch))) {
		lock_kernel_release(&a->kernel);
		pruned = true;
	}
	if (a->packages.question.algorithm != DIGEST_NONE && (missing & LOCK_SECTION_PACKAGES || !lock_needs_packages(p, arch))) {
		lock_packages_release(&a->packages);
		pruned = true;
	}
	return prune_sources(a, p) || pruned;
}

const struct lock_blob *lock_source_find(const struct lock *l, const struct plan *p, enum arch arch, const char *slot)
{
	const struct lock_source *source = find_slot(&l->arch[arch], slot);
	struct err ignored = ERR_INIT;
	struct digest question;

	if (!source || lock_question_source(p, slot, &question, &ignored) < 0 ||
		!digest_equal(&question, &source->blob.question))
		return NULL;
	return &source->blob;
}
