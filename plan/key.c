#include "plan/key.h"
#include "plan/canonical.h"
#include "plan/epoch.h"
#include "plan/question.h"

#include <string.h>

/* Everything a part of the document is made from. */
struct key_input {
	const struct plan *plan;
	const struct lock *lock;
	enum arch arch;
	const struct plan_local_inputs *locals;
};

static const struct lock_arch *locked(const struct key_input *k)
{
	return &k->lock->arch[k->arch];
}

static const struct digest *local_digest(const struct key_input *k, const char *slot)
{
	const struct plan_local_input *input = plan_local_input_find(k->locals, slot);

	return input ? &input->digest : NULL;
}

static json_t *describe_base(const struct key_input *k, const struct digest *base)
{
	return json_pack("{s:o, s:o}", "sha256", question_digest(base), "partition",
		question_partition(&k->plan->base[k->arch].partition));
}

static json_t *describe_kernel_packages(const struct lock_kernel *kernel)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < kernel->n_packages; i++)
		if (json_array_append_new(array, question_digest(&kernel->packages[i].sha256)) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

/* The kernel's file and its modules: those of packages and of the base are as their digests, local ones have their own. */
static json_t *describe_kernel(const struct key_input *k)
{
	const struct plan_kernel *kernel = &k->plan->kernel[k->arch];
	const struct digest *file = &locked(k)->kernel.sha256;

	if (kernel->kind == PLAN_KERNEL_FILE && kernel->location.path)
		file = local_digest(k, "kernel");
	else if (kernel->kind == PLAN_KERNEL_FILE && kernel->location.sha256.algorithm != DIGEST_NONE)
		file = &kernel->location.sha256;
	return json_pack("{s:o, s:o, s:o, s:b}", "sha256", question_digest(file), "modules",
		question_digest(local_digest(k, "modules")), "packages",
		kernel->kind == PLAN_KERNEL_PACKAGE ? describe_kernel_packages(&locked(k)->kernel) : json_array(),
		"from_base", kernel->kind == PLAN_KERNEL_FROM_BASE);
}

static json_t *describe_packages(const struct key_input *k)
{
	json_t *array = json_array();

	if (!lock_needs_packages(k->plan, k->arch))
		return array;
	for (size_t i = 0; array && i < locked(k)->packages.n; i++) {
		const struct lock_package *p = &locked(k)->packages.items[i];

		if (json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:o}", "name", p->name, "version", p->version,
							 "arch", p->arch, "sha256", question_digest(&p->sha256))) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

/* What goes, and whether its configuration goes too because the plan itself asks for it. */
static json_t *describe_removals(const struct key_input *k)
{
	json_t *array = json_array();

	if (!lock_needs_packages(k->plan, k->arch))
		return array;
	for (size_t i = 0; array && i < locked(k)->packages.removals.n; i++) {
		const char *name = locked(k)->packages.removals.items[i];

		if (json_array_append_new(array, json_pack("{s:s, s:b}", "name", name, "purge",
							 strv_contains(&k->plan->apt.remove, name))) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

/* The digest behind a [files] or [inputs] location: of the local file or tree, the plan's, or the lock's. */
static const struct digest *location_digest(const struct key_input *k, const char *slot,
	const struct plan_location *location)
{
	const struct lock_blob *answer;

	if (location->path)
		return local_digest(k, slot);
	if (location->sha256.algorithm != DIGEST_NONE)
		return &location->sha256;
	answer = lock_source_find(k->lock, k->plan, k->arch, slot);
	return answer ? &answer->sha256 : NULL;
}

/* One file of the plan: {path, sha256 or tree, mode, owner, group}. */
static int describe_file(const struct key_input *k, const struct plan_file *file, json_t **ret, struct err *e)
{
	const struct plan_local_input *input = NULL;
	_cleanup_free_ char *slot = NULL;
	const struct digest *digest;
	struct digest of_text;
	unsigned mode = file->has_mode ? file->mode : PLAN_DEFAULT_FILE_MODE;
	bool tree;

	if (asprintf(&slot, "files:%s", file->destination.text) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (file->kind == PLAN_CONTENT_TEXT) {
		int r = digest_bytes(DIGEST_SHA256, file->text, file->text_len, &of_text, e);

		if (r < 0)
			return r;
		digest = &of_text;
	} else {
		input = plan_local_input_find(k->locals, slot);
		digest = location_digest(k, slot, &file->location);
	}
	tree = input && input->is_tree;
	if (!file->has_mode && input && input->executable)
		mode = 0755;
	*ret = json_pack("{s:s, s:o, s:o, s:s, s:s}", "path", file->destination.text, tree ? "tree" : "sha256",
		question_digest(digest), "mode", tree && !file->has_mode ? json_null() : json_integer(mode), "owner",
		file->owner, "group", file->group);
	return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int describe_files(const struct key_input *k, json_t *into, struct err *e)
{
	for (size_t i = 0; i < k->plan->n_files; i++) {
		json_t *file = NULL;
		int r = describe_file(k, &k->plan->files[i], &file, e);

		if (r < 0)
			return r;
		if (json_array_append_new(into, file) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

static int describe_inputs(const struct key_input *k, json_t *into, struct err *e)
{
	for (size_t i = 0; i < k->plan->n_inputs; i++) {
		const struct plan_input *input = &k->plan->inputs[i];
		const struct plan_local_input *local;
		_cleanup_free_ char *slot = NULL;
		bool tree;

		if (asprintf(&slot, "inputs:%s", input->name) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		local = plan_local_input_find(k->locals, slot);
		tree = local && local->is_tree;
		if (json_array_append_new(into, json_pack("{s:s, s:o, s:b}", "name", input->name, tree ? "tree" : "sha256",
							question_digest(location_digest(k, slot, &input->location)),
							"executable", local && local->executable)) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

static json_t *describe_users(const struct plan *plan)
{
	static const char *const kinds[] = { [PLAN_PASSWORD_UNCHANGED] = "unchanged",
		[PLAN_PASSWORD_LOCKED] = "locked",
		[PLAN_PASSWORD_EMPTY] = "empty",
		[PLAN_PASSWORD_HASH] = "hash" };
	json_t *array = json_array();

	for (size_t i = 0; array && i < plan->n_users; i++) {
		const struct plan_user *u = &plan->users[i];

		if (json_array_append_new(array, json_pack("{s:s, s:o, s:s, s:o}", "name", u->name, "authorized_keys",
							 question_texts(&u->authorized_keys, false), "password",
							 kinds[u->password], "hash", question_text(u->password_hash))) < 0) {
			json_decref(array);
			return NULL;
		}
	}
	return array;
}

static json_t *describe_services(const struct plan_services *s)
{
	return json_pack("{s:o, s:o, s:o}", "enable", question_texts(&s->enable, true), "disable",
		question_texts(&s->disable, true), "mask", question_texts(&s->mask, true));
}

static int describe_setup(const struct key_input *k, json_t **ret, struct err *e)
{
	const struct plan_setup *setup = &k->plan->setup;
	struct digest digest;
	int r;

	if (setup->file) {
		*ret = question_digest(local_digest(k, "setup"));
		return 0;
	}
	if (!setup->script) {
		*ret = json_null();
		return 0;
	}
	r = digest_bytes(DIGEST_SHA256, setup->script, setup->script_len, &digest, e);
	*ret = r < 0 ? NULL : question_digest(&digest);
	return r;
}

static json_t *describe_image(const struct plan_image *image)
{
	return json_pack("{s:I, s:o, s:o}", "size_bytes", (json_int_t)image->size_bytes, "label", question_text(image->label),
		"hostname", question_text(image->hostname));
}

/* The whole document. */
static int key_document(const struct key_input *k, const struct digest *base, json_t **ret, struct err *e)
{
	json_t *files = json_array(), *inputs = json_array(), *setup = NULL;
	int r = files && inputs ? describe_files(k, files, e) : err_set(e, -ENOMEM, "out of memory");

	if (r == 0)
		r = describe_inputs(k, inputs, e);
	if (r == 0)
		r = describe_setup(k, &setup, e);
	if (r < 0) {
		json_decref(files);
		json_decref(inputs);
		return r;
	}
	*ret = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:b, s:o}, s:o, s:o, s:o}", "arch",
		arch_name(k->arch), "base", describe_base(k, base), "kernel", describe_kernel(k), "packages",
		describe_packages(k), "removals", describe_removals(k), "debs", question_debs(k->plan, k->arch, k->locals),
		"files", files, "inputs", inputs, "services", describe_services(&k->plan->services), "users",
		describe_users(k->plan), "fstab", "keep", k->plan->fstab.keep, "remove_patterns",
		question_texts(&k->plan->fstab.remove_patterns, true), "setup", setup, "cleanup",
		question_texts(&k->plan->cleanup, true), "image", describe_image(&k->plan->image));
	return *ret ? 0 : err_set(e, -ENOMEM, "out of memory for the key document");
}

int key_compute(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct digest *ret_key, json_t **ret_document, struct err *e)
{
	struct key_input k = { .plan = p, .lock = l, .arch = arch, .locals = locals };
	struct digest base = { 0 }, key;
	json_t *document = NULL;
	char prefix[64];
	unsigned missing;
	int r = plan_require_arch(p, arch, e);

	if (r == 0)
		r = lock_missing(p, l, arch, locals, &missing, e);
	if (r < 0)
		return r;
	if (missing)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOKEY, "the lock does not say for %s: %s%s%s%s", arch_name(arch),
			missing & LOCK_SECTION_BASE ? "base " : "", missing & LOCK_SECTION_KERNEL ? "kernel " : "",
			missing & LOCK_SECTION_PACKAGES ? "packages " : "", missing & LOCK_SECTION_SOURCES ? "sources " : "");
	r = lock_base_digest(p, l, arch, locals, &base, e);
	if (r == 0)
		r = key_document(&k, &base, &document, e);
	if (r < 0)
		return r;
	(void)snprintf(prefix, sizeof(prefix), "imgbuild-epoch %d\n", IMGBUILD_EPOCH);
	r = canonical_digest(prefix, document, &key, e);
	if (r == 0)
		*ret_key = key;
	if (r == 0 && ret_document)
		*ret_document = json_incref(document);
	json_decref(document);
	return r;
}
