#include "plan/lock.h"
#include "lib/url.h"
#include "plan/canonical.h"
#include "plan/question.h"

#include <string.h>

static void blob_release(struct lock_blob *b)
{
	free(b->url);
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

static void packages_release(struct lock_package *items, size_t n)
{
	for (size_t i = 0; i < n; i++)
		lock_package_release(&items[i]);
	free(items);
}

static void kernel_release(struct lock_kernel *k)
{
	blob_release(&k->archive);
	free(k->member);
	packages_release(k->packages, k->n_packages);
	*k = (struct lock_kernel){ 0 };
}

static void source_release(struct lock_source *s)
{
	free(s->slot);
	blob_release(&s->blob);
}

static void lock_packages_release(struct lock_packages *p)
{
	packages_release(p->items, p->n);
	strv_release(&p->removals);
	*p = (struct lock_packages){ 0 };
}

void lock_release(struct lock *l)
{
	for (unsigned a = 0; a < ARCH_COUNT; a++) {
		struct lock_arch *arch = &l->arch[a];

		blob_release(&arch->base);
		kernel_release(&arch->kernel);
		lock_packages_release(&arch->packages);
		for (size_t i = 0; i < arch->n_sources; i++)
			source_release(&arch->sources[i]);
		free(arch->sources);
	}
	*l = (struct lock){ 0 };
}

char *lock_path_for(const char *plan_path)
{
	size_t len = strlen(plan_path);
	char *path;

	if (len > 5 && strcmp(plan_path + len - 5, ".toml") == 0)
		len -= 5;
	return asprintf(&path, "%.*s.lock", (int)len, plan_path) < 0 ? NULL : path;
}

/* Questions: the part of the plan, and of the answers before it, that an answer depends on. */

static int question_finish(json_t *document, struct digest *ret, struct err *e)
{
	int r = document ? canonical_digest("imgbuild-question\n", document, ret, e) :
			   err_set(e, -ENOMEM, "out of memory for a question of the lock");

	json_decref(document);
	return r;
}

static json_t *describe_location(const struct plan_location *l)
{
	return json_pack("{s:o, s:o, s:o}", "url", question_text(l->url), "sha256", question_digest(&l->sha256), "sha512",
		question_digest(&l->sha512));
}

/* Repositories that the plan adds, keys by their digests. */
static json_t *describe_repositories(const struct plan *p, const struct plan_local_inputs *locals)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < p->apt.n_repositories; i++) {
		const struct plan_repository *r = &p->apt.repositories[i];
		const struct plan_local_input *key = NULL;

		for (size_t k = 0; r->key && k < locals->n; k++)
			if (locals->items[k].kind == PLAN_INPUT_REPOSITORY_KEY && strcmp(locals->items[k].path, r->key) == 0)
				key = &locals->items[k];
		(void)json_array_append_new(array,
			json_pack("{s:s, s:s, s:o, s:o}", "uri", r->uri, "suite", r->suite, "components",
				question_texts(&r->components, true), "key", question_digest(key ? &key->digest : NULL)));
	}
	return array;
}

int lock_question_base(const struct plan *p, enum arch arch, struct digest *ret, struct err *e)
{
	return question_finish(json_pack("{s:s, s:o}", "of", "base", "location", describe_location(&p->base[arch].location)), ret,
		e);
}

/* What both the kernel and the packages depend on: the root of the base. */
static int describe_root(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	json_t **ret, struct err *e)
{
	struct digest base;
	int r = lock_base_digest(p, l, arch, locals, &base, e);

	if (r < 0)
		return r;
	*ret = json_pack("{s:o, s:o}", "base", question_digest(&base), "partition",
		question_partition(&p->base[arch].partition));
	return 0;
}

int lock_question_kernel(const struct plan *p, const struct lock *l, enum arch arch,
	const struct plan_local_inputs *locals, struct digest *ret, struct err *e)
{
	const struct plan_kernel *k = &p->kernel[arch];
	const struct plan_local_input *archive = plan_local_input_find(locals, "kernel-archive");
	json_t *root = NULL;
	int r = 0;

	if (k->kind == PLAN_KERNEL_FROM_BASE || k->kind == PLAN_KERNEL_PACKAGE)
		r = describe_root(p, l, arch, locals, &root, e);
	if (r < 0)
		return r;
	switch (k->kind) {
	case PLAN_KERNEL_FROM_BASE:
		return question_finish(json_pack("{s:s, s:s, s:o}", "of", "kernel", "from", "base", "root", root), ret, e);
	case PLAN_KERNEL_PACKAGE:
		return question_finish(json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "of", "kernel", "from", "package", "package",
					       k->package, "root", root, "snapshot", question_text(p->apt.snapshot),
					       "repositories", describe_repositories(p, locals)),
			ret, e);
	case PLAN_KERNEL_ARCHIVE:
	case PLAN_KERNEL_FILE:
		break;
	}
	return question_finish(json_pack("{s:s, s:s, s:o, s:o, s:o}", "of", "kernel", "from",
				       k->kind == PLAN_KERNEL_ARCHIVE ? "archive" : "file", "location",
				       describe_location(&k->location), "archive",
				       question_digest(archive ? &archive->digest : NULL), "member", question_text(k->member)),
		ret, e);
}

int lock_question_packages(const struct plan *p, const struct lock *l, enum arch arch,
	const struct plan_local_inputs *locals, struct digest *ret, struct err *e)
{
	_cleanup_strv_ struct strv names = { 0 };
	json_t *root = NULL;
	int r = describe_root(p, l, arch, locals, &root, e);

	if (r < 0)
		return r;
	if (plan_packages(p, arch, &names) < 0) {
		json_decref(root);
		return err_set(e, -ENOMEM, "out of memory");
	}
	return question_finish(json_pack("{s:s, s:o, s:o, s:o, s:b, s:o, s:o, s:o}", "of", "packages", "root", root, "names",
				       question_texts(&names, true), "remove", question_texts(&p->apt.remove, true),
				       "recommends", p->apt.recommends, "snapshot", question_text(p->apt.snapshot),
				       "repositories", describe_repositories(p, locals), "debs",
				       question_debs(p, arch, locals)),
		ret, e);
}

/* The location of a [files] or [inputs] slot; NULL when the plan has none. */
static const struct plan_location *slot_location(const struct plan *p, const char *slot)
{
	if (strncmp(slot, "files:", 6) == 0)
		for (size_t i = 0; i < p->n_files; i++)
			if (p->files[i].kind == PLAN_CONTENT_LOCATION && strcmp(p->files[i].destination.text, slot + 6) == 0)
				return &p->files[i].location;
	if (strncmp(slot, "inputs:", 7) == 0)
		for (size_t i = 0; i < p->n_inputs; i++)
			if (strcmp(p->inputs[i].name, slot + 7) == 0)
				return &p->inputs[i].location;
	return NULL;
}

int lock_question_source(const struct plan *p, const char *slot, struct digest *ret, struct err *e)
{
	const struct plan_location *location = slot_location(p, slot);

	if (!location)
		return err_set(e, -ENOENT, "the plan has no `%s`", slot);
	return question_finish(json_pack("{s:s, s:o}", "of", "source", "location", describe_location(location)), ret, e);
}

int lock_base_digest(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct digest *ret, struct err *e)
{
	const struct plan_location *location = &p->base[arch].location;
	const struct plan_local_input *local = plan_local_input_find(locals, "base");
	struct digest question;
	int r;

	if (location->path && local) {
		*ret = local->digest;
		return 0;
	}
	if (location->sha256.algorithm != DIGEST_NONE) {
		*ret = location->sha256;
		return 0;
	}
	r = lock_question_base(p, arch, &question, e);
	if (r < 0)
		return r;
	if (!digest_equal(&question, &l->arch[arch].base.question) || question.algorithm == DIGEST_NONE)
		return err_set(e, -ENOKEY, "the digest of the base image is not known yet");
	*ret = l->arch[arch].base.sha256;
	return 0;
}

bool lock_needs_packages(const struct plan *p, enum arch arch)
{
	_cleanup_strv_ struct strv names = { 0 }, debs = { 0 };

	if (plan_packages(p, arch, &names) < 0 || plan_debs(p, arch, &debs) < 0)
		return true;
	return names.n > 0 || debs.n > 0 || p->apt.remove.n > 0;
}

/* What the plan itself pins, or what is a local file, needs no answer. */
static bool kernel_needs_answer(const struct plan_kernel *k)
{
	return k->kind != PLAN_KERNEL_FILE || (k->location.url && k->location.sha256.algorithm == DIGEST_NONE);
}

static bool same_question(const struct digest *asked, const struct digest *answered)
{
	return answered->algorithm != DIGEST_NONE && digest_equal(asked, answered);
}

/* Whether any unpinned URL of [files] or [inputs] has no answer. */
static bool sources_missing(const struct plan *p, const struct lock *l, enum arch arch)
{
	for (size_t i = 0; i < p->n_files + p->n_inputs; i++) {
		bool is_file = i < p->n_files;
		const struct plan_location *location = is_file ? &p->files[i].location : &p->inputs[i - p->n_files].location;
		_cleanup_free_ char *slot = NULL;

		if (!location->url || location->sha256.algorithm != DIGEST_NONE)
			continue;
		if (asprintf(&slot, "%s:%s", is_file ? "files" : "inputs",
			    is_file ? p->files[i].destination.text : p->inputs[i - p->n_files].name) < 0 ||
			!lock_source_find(l, p, arch, slot))
			return true;
	}
	return false;
}

int lock_missing(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	unsigned *ret_sections, struct err *e)
{
	const struct lock_arch *locked = &l->arch[arch];
	struct digest base, question;
	struct err ignored = ERR_INIT;
	unsigned sections = 0;
	int r = lock_base_digest(p, l, arch, locals, &base, &ignored);

	if (r == -ENOKEY)
		sections |= LOCK_SECTION_BASE;
	if (kernel_needs_answer(&p->kernel[arch])) {
		r = lock_question_kernel(p, l, arch, locals, &question, e);
		if (r < 0 && r != -ENOKEY)
			return r;
		if (r == -ENOKEY || !same_question(&question, &locked->kernel.question))
			sections |= LOCK_SECTION_KERNEL;
	}
	if (lock_needs_packages(p, arch)) {
		r = lock_question_packages(p, l, arch, locals, &question, e);
		if (r < 0 && r != -ENOKEY)
			return r;
		if (r == -ENOKEY || !same_question(&question, &locked->packages.question))
			sections |= LOCK_SECTION_PACKAGES;
	}
	if (sources_missing(p, l, arch))
		sections |= LOCK_SECTION_SOURCES;
	err_clear(e);
	*ret_sections = sections;
	return 0;
}

/* Storing of answers: deep copies, since what is given belongs to somebody else. */

static int dup_text(char **slot, const char *s)
{
	if (s && !(*slot = strdup(s)))
		return -ENOMEM;
	return 0;
}

static int dup_url(char **slot, const char *s)
{
	if (s && !(*slot = url_redact(s)))
		return -ENOMEM;
	return 0;
}

static int dup_blob(struct lock_blob *to, const struct lock_blob *from)
{
	*to = *from;
	to->url = NULL;
	return dup_url(&to->url, from->url);
}

static int dup_package(struct lock_package *to, const struct lock_package *from)
{
	*to = (struct lock_package){ .size_bytes = from->size_bytes, .sha256 = from->sha256, .release = from->release };
	if (dup_text(&to->name, from->name) < 0 || dup_text(&to->version, from->version) < 0 ||
		dup_text(&to->arch, from->arch) < 0 || dup_text(&to->file, from->file) < 0 ||
		dup_url(&to->uri, from->uri) < 0 || dup_text(&to->suite, from->suite) < 0)
		return -ENOMEM;
	return 0;
}

static int dup_packages(const struct lock_package *from, size_t n, struct lock_package **ret, struct err *e)
{
	struct lock_package *items = calloc(n + 1, sizeof(*items));

	for (size_t i = 0; items && i < n; i++)
		if (dup_package(&items[i], &from[i]) < 0) {
			packages_release(items, n);
			items = NULL;
		}
	if (!items)
		return err_set(e, -ENOMEM, "out of memory for %zu packages", n);
	*ret = items;
	return 0;
}

static int compare_packages(const void *a, const void *b)
{
	const struct lock_package *x = a, *y = b;
	int order = strcmp(x->name, y->name);

	if (order == 0)
		order = strcmp(x->arch, y->arch);
	return order ? order : strcmp(x->version, y->version);
}

int lock_set_base(struct lock *l, const struct plan *p, enum arch arch, const struct lock_blob *base, struct err *e)
{
	struct lock_blob copy;
	int r = dup_blob(&copy, base);

	if (r < 0)
		return err_set(e, r, "out of memory");
	r = lock_question_base(p, arch, &copy.question, e);
	if (r < 0) {
		blob_release(&copy);
		return r;
	}
	blob_release(&l->arch[arch].base);
	l->arch[arch].base = copy;
	return 0;
}

int lock_set_kernel(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals,
	const struct lock_kernel *kernel, struct err *e)
{
	struct lock_kernel copy = { .kind = kernel->kind, .sha256 = kernel->sha256, .n_packages = kernel->n_packages };
	int r = lock_question_kernel(p, l, arch, locals, &copy.question, e);

	if (r < 0)
		return r;
	r = dup_packages(kernel->packages, kernel->n_packages, &copy.packages, e);
	if (r == 0 && (dup_blob(&copy.archive, &kernel->archive) < 0 || dup_text(&copy.member, kernel->member) < 0))
		r = err_set(e, -ENOMEM, "out of memory");
	if (r < 0) {
		kernel_release(&copy);
		return r;
	}
	kernel_release(&l->arch[arch].kernel);
	l->arch[arch].kernel = copy;
	return 0;
}

int lock_set_packages(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals,
	const struct lock_package *items, size_t n, const struct strv *removals, struct err *e)
{
	struct lock_packages copy = { .n = n };
	int r = lock_question_packages(p, l, arch, locals, &copy.question, e);

	if (r == 0)
		r = dup_packages(items, n, &copy.items, e);
	if (r == 0 && strv_extend(&copy.removals, removals) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r < 0) {
		lock_packages_release(&copy);
		return r;
	}
	qsort(copy.items, copy.n, sizeof(*copy.items), compare_packages);
	strv_sort(&copy.removals);
	strv_uniq(&copy.removals);
	lock_packages_release(&l->arch[arch].packages);
	l->arch[arch].packages = copy;
	return 0;
}

int lock_set_source(struct lock *l, const struct plan *p, enum arch arch, const char *slot, const struct lock_blob *blob,
	struct err *e)
{
	struct lock_arch *locked = &l->arch[arch];
	struct lock_source copy = { 0 }, *sources;
	size_t at = 0;
	int r;

	if (dup_text(&copy.slot, slot) < 0 || dup_blob(&copy.blob, blob) < 0) {
		source_release(&copy);
		return err_set(e, -ENOMEM, "out of memory");
	}
	r = lock_question_source(p, slot, &copy.blob.question, e);
	sources = r < 0 ? NULL : reallocarray(locked->sources, locked->n_sources + 1, sizeof(*sources));
	if (!sources) {
		source_release(&copy);
		return r < 0 ? r : err_set(e, -ENOMEM, "out of memory");
	}
	locked->sources = sources;
	while (at < locked->n_sources && strcmp(sources[at].slot, slot) < 0)
		at++;
	if (at < locked->n_sources && strcmp(sources[at].slot, slot) == 0) {
		source_release(&sources[at]);
	} else {
		memmove(&sources[at + 1], &sources[at], (locked->n_sources - at) * sizeof(*sources));
		locked->n_sources++;
	}
	sources[at] = copy;
	return 0;
}

const struct lock_blob *lock_source_find(const struct lock *l, const struct plan *p, enum arch arch, const char *slot)
{
	const struct lock_arch *locked = &l->arch[arch];
	struct err ignored = ERR_INIT;
	struct digest question;

	if (lock_question_source(p, slot, &question, &ignored) < 0)
		return NULL;
	for (size_t i = 0; i < locked->n_sources; i++)
		if (strcmp(locked->sources[i].slot, slot) == 0 && same_question(&question, &locked->sources[i].blob.question))
			return &locked->sources[i].blob;
	return NULL;
}
