#include "plan/key.h"
#include "plan/canonical.h"
#include "plan/epoch.h"
#include "plan/json.h"

#include <string.h>

/* What the parts of the document are made from. */
struct maker {
	const struct plan *plan;
	const struct lock_arch *lock;
	const struct lock *whole_lock;
	enum arch arch;
	const struct plan_local_inputs *locals;
	struct key_gaps *gaps;
	struct err *e;
};

void key_gaps_release(struct key_gaps *g)
{
	for (size_t i = 0; i < g->n; i++)
		free(g->items[i].slot);
	free(g->items);
	*g = (struct key_gaps){ 0 };
}

const char *key_gap_text(enum key_gap_reason reason)
{
	switch (reason) {
	case KEY_GAP_NOT_ASKED:
		return "the lock has no answer";
	case KEY_GAP_STALE:
		return "the lock answers another question than the plan asks now";
	case KEY_GAP_NEEDS_BASE:
		return "it depends on the base image, which the lock does not answer";
	}
	return "";
}

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

/* Note that a part is not known. Returns 0. */
static int note_gap(const struct maker *m, const char *slot, enum key_gap_reason reason)
{
	struct key_gap *items = reallocarray(m->gaps->items, m->gaps->n + 1, sizeof(*items));
	struct key_gap gap = { .reason = reason };

	if (items)
		m->gaps->items = items;
	gap.slot = items ? strdup(slot) : NULL;
	if (!gap.slot)
		return out_of_memory(m->e);
	items[m->gaps->n++] = gap;
	return 0;
}

/* See whether there is an answer. r: what asking the question returned; asked and answered: the digests of the plan's question and of that
 * in the lock; is_of_plan: nothing else speaks against that answer. Returns 1 when there is an answer, 0 when it was noted that there is none. */
static int check_answer(const struct maker *m, int r, const struct digest *asked, const struct digest *answered, bool is_of_plan,
	const char *slot)
{
	if (r < 0 && r != -ENOKEY)
		return r;
	if (r == 0 && is_of_plan && digest_equal(asked, answered))
		return 1;
	if (r == 0)
		return note_gap(m, slot, answered->algorithm == DIGEST_NONE ? KEY_GAP_NOT_ASKED : KEY_GAP_STALE);
	err_clear(m->e);
	return note_gap(m, slot, KEY_GAP_NEEDS_BASE);
}

/* Find a local input that has its digest. */
static const struct plan_local_input *local_of(const struct maker *m, const char *slot)
{
	const struct plan_local_input *input = plan_local_input_find(m->locals, slot);

	if (input && input->digest.algorithm == DIGEST_SHA256)
		return input;
	(void)err_set_kind(m->e, ERR_KIND_DEFECT, -EINVAL, "the digest of the local input `%s` was not computed", slot);
	return NULL;
}

/* Put a part into the document; it is taken over, and NULL means that memory ran out. */
static int put(const struct maker *m, json_t *document, const char *name, json_t *part)
{
	return json_object_set_new(document, name, part) < 0 ? out_of_memory(m->e) : 0;
}

static int put_base(const struct maker *m, json_t *document)
{
	const struct plan_partition *p = &m->plan->base[m->arch].partition;
	json_t *partition = p->by == PLAN_PARTITION_NUMBER ? json_pack("{s:i}", "number", (int)p->number)
			    : p->by == PLAN_PARTITION_LABEL ? json_pack("{s:s}", "label", p->value)
			    : p->by == PLAN_PARTITION_PARTUUID ? json_pack("{s:s}", "partuuid", p->value)
							       : json_null();
	json_t *object = json_pack("{s:o}", "partition", partition);
	struct digest base, question = { 0 };
	int r = lock_base_digest(m->plan, m->whole_lock, m->arch, m->locals, &base, m->e);

	if (r == -ENOKEY && m->plan->base[m->arch].location.url) {
		err_clear(m->e);
		r = lock_question_base(m->plan, m->arch, m->locals, &question, m->e);
		r = check_answer(m, r, &question, &m->lock->base.question,
			lock_base_is_of_plan(m->plan, m->whole_lock, m->arch), "base");
	} else if (r == 0 && json_object_set_new(object, "sha256", json_of_digest(&base)) < 0) {
		r = out_of_memory(m->e);
	}
	if (r < 0) {
		json_decref(object);
		return r;
	}
	return put(m, document, "base", object);
}

/* The digest of the kernel's file. Returns 1; 0 when it is not known. */
static int kernel_digest(const struct maker *m, struct digest *ret)
{
	const struct plan_kernel *k = &m->plan->kernel[m->arch];
	const struct plan_local_input *local;
	struct digest question = { 0 };
	int r;

	if (k->kind == PLAN_KERNEL_FILE && k->location.path) {
		local = local_of(m, "kernel");
		if (!local)
			return m->e->code;
		*ret = local->digest;
		return 1;
	}
	if (k->kind == PLAN_KERNEL_FILE && k->location.sha256.algorithm != DIGEST_NONE) {
		*ret = k->location.sha256;
		return 1;
	}
	r = lock_question_kernel(m->plan, m->whole_lock, m->arch, m->locals, &question, m->e);
	r = check_answer(m, r, &question, &m->lock->kernel.question,
		lock_kernel_is_of_plan(m->plan, m->whole_lock, m->arch), "kernel");
	if (r > 0)
		*ret = m->lock->kernel.sha256;
	return r;
}

/* What the kernel's modules are: a local tree, the packages they come in, or nothing more than the base has. */
static json_t *modules_of(const struct maker *m)
{
	const struct plan_kernel *k = &m->plan->kernel[m->arch];
	_cleanup_strv_ struct strv packages = { 0 };
	const struct plan_local_input *local;

	if (k->modules) {
		local = local_of(m, "modules");
		return local ? json_of_digest(&local->digest) : NULL;
	}
	if (k->kind != PLAN_KERNEL_PACKAGE)
		return json_null();
	for (size_t i = 0; i < m->lock->kernel.n_packages; i++) {
		char hex[DIGEST_HEX_SIZE];

		if (strv_add(&packages, digest_hex(&m->lock->kernel.packages[i].sha256, hex)) < 0)
			return NULL;
	}
	return json_of_set(&packages);
}

static int put_kernel(const struct maker *m, json_t *document)
{
	const struct plan_kernel *k = &m->plan->kernel[m->arch];
	json_t *kernel = json_object(), *modules;
	struct digest digest;
	int known = kernel_digest(m, &digest), r = known < 0 ? known : 0;

	if (known > 0 && json_object_set_new(kernel, "sha256", json_of_digest(&digest)) < 0)
		r = out_of_memory(m->e);
	/* Which modules come in packages is known when the packages are. */
	if (r == 0 && (known > 0 || k->modules || k->kind != PLAN_KERNEL_PACKAGE)) {
		modules = modules_of(m);
		if (json_object_set_new(kernel, "modules", modules) < 0)
			r = m->e->code < 0 ? m->e->code : out_of_memory(m->e);
	}
	if (r < 0) {
		json_decref(kernel);
		return r;
	}
	return put(m, document, "kernel", kernel);
}

static json_t *json_of_packages(const struct lock_packages *p)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < p->n; i++)
		if (json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:o}", "name", p->items[i].name, "version",
							 p->items[i].version, "arch", p->items[i].arch, "sha256",
							 json_of_digest(&p->items[i].sha256))) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

/* What goes, and how: what the plan names is purged, what another package drives out keeps its configuration. */
static json_t *json_of_removals(const struct maker *m, const struct lock_packages *p)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < p->removals.n; i++)
		if (json_array_append_new(array, json_pack("{s:s, s:b}", "name", p->removals.items[i], "purge",
							 strv_contains(&m->plan->apt.remove, p->removals.items[i]))) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

static int put_packages(const struct maker *m, json_t *document)
{
	static const struct lock_packages none = { 0 };
	const struct lock_packages *packages = &none;
	_cleanup_strv_ struct strv names = { 0 }, debs = { 0 };
	struct digest question = { 0 };
	int known = 1, r;

	if (lock_needs_packages(m->plan, m->arch)) {
		packages = &m->lock->packages;
		r = lock_question_packages(m->plan, m->whole_lock, m->arch, m->locals, &question, m->e);
		known = check_answer(m, r, &question, &packages->question, true, "packages");
		r = known > 0 ? lock_check_packages(m->plan, m->whole_lock, m->arch, m->locals, m->e) : 0;
		if (r == -ENOKEY) {
			err_clear(m->e);
			r = note_gap(m, "packages", KEY_GAP_STALE);
			known = r < 0 ? r : 0;
		} else if (r < 0) {
			return r;
		}
	}
	r = known < 0 ? known : 0;
	if (r == 0 && plan_debs(m->plan, m->arch, &names) < 0)
		r = out_of_memory(m->e);
	for (size_t i = 0; r == 0 && i < names.n; i++) {
		_cleanup_free_ char *slot = NULL;
		const struct plan_local_input *deb;
		char hex[DIGEST_HEX_SIZE];

		if (asprintf(&slot, "deb:%s", names.items[i]) < 0)
			return out_of_memory(m->e);
		deb = local_of(m, slot);
		if (!deb)
			return m->e->code;
		if (strv_add(&debs, digest_hex(&deb->digest, hex)) < 0)
			return out_of_memory(m->e);
	}
	if (r == 0 && known)
		r = put(m, document, "packages", json_of_packages(packages));
	if (r == 0 && known)
		r = put(m, document, "removals", json_of_removals(m, packages));
	return r < 0 ? r : put(m, document, "debs", json_of_set(&debs));
}

/* What a location of [files] or [inputs] is. *ret_local is NULL when it is not local; *ret is DIGEST_NONE when it is not known. */
static int content_digest(const struct maker *m, const char *prefix, const char *name, const struct plan_location *l,
	struct digest *ret, const struct plan_local_input **ret_local)
{
	const struct lock_arch *lock = m->lock;
	const struct digest none = { 0 }, *answered = &none;
	_cleanup_free_ char *slot = NULL;
	const struct lock_blob *answer;
	struct digest question = { 0 };
	int r;

	*ret_local = NULL;
	if (l->url && l->sha256.algorithm != DIGEST_NONE) {
		*ret = l->sha256;
		return 0;
	}
	if (asprintf(&slot, "%s:%s", prefix, name) < 0)
		return out_of_memory(m->e);
	if (!l->url) {
		*ret_local = local_of(m, slot);
		if (!*ret_local)
			return m->e->code;
		*ret = (*ret_local)->digest;
		return 0;
	}
	/* Asked for itself, so that running out of memory is not taken for an answer that is not there. */
	r = lock_question_source(m->plan, slot, &question, m->e);
	if (r < 0)
		return r;
	answer = lock_source_find(m->whole_lock, m->plan, m->arch, slot);
	*ret = answer ? answer->sha256 : none;
	if (answer)
		return 0;
	for (size_t i = 0; i < lock->n_sources; i++)
		if (strcmp(lock->sources[i].slot, slot) == 0)
			answered = &lock->sources[i].blob.question;
	return check_answer(m, 0, &question, answered, true, slot);
}

/* Put the digest of a file's or an input's bytes into its object, where it is known. */
static int set_content(json_t *object, const struct plan_local_input *local, const struct digest *digest)
{
	if (digest->algorithm == DIGEST_NONE)
		return object ? 0 : -1;
	return json_object_set_new(object, local && local->is_tree ? "tree" : "sha256", json_of_digest(digest));
}

static int append_file(const struct maker *m, const struct plan_file *f, json_t *files)
{
	const struct plan_local_input *local = NULL;
	unsigned mode = f->mode;
	struct digest digest;
	char octal[8];
	json_t *j;
	int r = f->kind == PLAN_CONTENT_TEXT
			? digest_bytes(DIGEST_SHA256, f->text, f->text_len, &digest, m->e)
			: content_digest(m, "files", f->destination.text, &f->location, &digest, &local);

	if (r < 0)
		return r;
	if (!f->has_mode && local && local->executable)
		mode = 0755;
	(void)snprintf(octal, sizeof(octal), "%04o", mode & 07777);
	j = json_pack("{s:s, s:s, s:s}", "path", f->destination.text, "owner", f->owner, "group", f->group);
	/* The files of a tree have modes of their own, which its digest covers, unless the plan gives one for all. */
	if (set_content(j, local, &digest) < 0 || ((!local || !local->is_tree || f->has_mode) &&
						     json_object_set_new(j, "mode", json_string(octal)) < 0)) {
		json_decref(j);
		j = NULL;
	}
	return json_array_append_new(files, j) < 0 ? out_of_memory(m->e) : 0;
}

static int put_files(const struct maker *m, json_t *document)
{
	_cleanup_json_ json_t *files = json_array(), *inputs = json_object();
	int r = files && inputs ? 0 : out_of_memory(m->e);

	for (size_t i = 0; r == 0 && i < m->plan->n_files; i++)
		r = append_file(m, &m->plan->files[i], files);
	for (size_t i = 0; r == 0 && i < m->plan->n_inputs; i++) {
		const struct plan_input *input = &m->plan->inputs[i];
		const struct plan_local_input *local;
		struct digest digest;
		json_t *j = NULL;

		r = content_digest(m, "inputs", input->name, &input->location, &digest, &local);
		if (r < 0)
			break;
		j = json_object();
		/* The setup script can see it, so it counts; written only where it is so. */
		if (set_content(j, local, &digest) < 0 ||
			(local && local->executable && json_object_set_new(j, "executable", json_true()) < 0)) {
			json_decref(j);
			j = NULL;
		}
		if (json_object_set_new(inputs, input->name, j) < 0)
			r = out_of_memory(m->e);
	}
	if (r == 0)
		r = put(m, document, "files", take_ptr(files));
	return r < 0 ? r : put(m, document, "inputs", take_ptr(inputs));
}

/* The document is shown to people and kept in manifests: of a password's hash it holds a digest only. */
static json_t *json_of_password(const struct maker *m, const struct plan_user *u)
{
	struct digest digest;

	switch (u->password) {
	case PLAN_PASSWORD_UNCHANGED:
		return json_null();
	case PLAN_PASSWORD_LOCKED:
		return json_string("locked");
	case PLAN_PASSWORD_EMPTY:
		return json_string("empty");
	case PLAN_PASSWORD_HASH:
		break;
	}
	if (digest_bytes(DIGEST_SHA256, u->password_hash, strlen(u->password_hash), &digest, m->e) < 0)
		return NULL;
	return json_pack("{s:o}", "sha256", json_of_digest(&digest));
}

static int put_users(const struct maker *m, json_t *document)
{
	_cleanup_json_ json_t *users = json_object();

	if (!users)
		return out_of_memory(m->e);
	for (size_t i = 0; i < m->plan->n_users; i++) {
		const struct plan_user *u = &m->plan->users[i];

		if (json_object_set_new(users, u->name,
			    json_pack("{s:o, s:o}", "authorized_keys", json_of_strv(&u->authorized_keys), "password",
				    json_of_password(m, u))) < 0)
			return out_of_memory(m->e);
	}
	return put(m, document, "users", take_ptr(users));
}

static int put_setup(const struct maker *m, json_t *document)
{
	const struct plan_setup *s = &m->plan->setup;
	const struct plan_local_input *local;
	struct digest digest = { 0 };
	int r = 0;

	if (s->file) {
		local = local_of(m, "setup");
		if (!local)
			return m->e->code;
		digest = local->digest;
	} else if (s->script) {
		r = digest_bytes(DIGEST_SHA256, s->script, s->script_len, &digest, m->e);
	}
	return r < 0 ? r : put(m, document, "setup", json_of_digest(&digest));
}

static int put_settings(const struct maker *m, json_t *document)
{
	const struct plan *p = m->plan;
	int r = put(m, document, "services", json_pack("{s:o, s:o, s:o}", "enable", json_of_set(&p->services.enable), "disable",
						     json_of_set(&p->services.disable), "mask", json_of_set(&p->services.mask)));

	if (r == 0)
		r = put(m, document, "fstab", json_pack("{s:o, s:b}", "remove_patterns",
						      json_of_set(&p->fstab.remove_patterns), "keep", p->fstab.keep));
	if (r == 0)
		r = put(m, document, "cleanup", json_of_set(&p->cleanup));
	if (r == 0)
		r = put(m, document, "image", json_pack("{s:I, s:o, s:o}", "size", (json_int_t)p->image.size_bytes, "label",
						      json_of_string(p->image.label), "hostname",
						      json_of_string(p->image.hostname)));
	return r < 0 ? r : put(m, document, "arch", json_string(arch_name(m->arch)));
}

int key_draft(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	json_t **ret_document, struct key_gaps *ret_gaps, struct err *e)
{
	const struct maker m = {
		.plan = p, .lock = &l->arch[arch], .whole_lock = l, .arch = arch, .locals = locals, .gaps = ret_gaps, .e = e
	};
	_cleanup_json_ json_t *document = NULL;
	int r = plan_require_arch(p, arch, e);

	if (r < 0)
		return r;
	document = json_object();
	if (!document)
		return out_of_memory(e);
	r = put_base(&m, document);
	if (r == 0)
		r = put_kernel(&m, document);
	if (r == 0)
		r = put_packages(&m, document);
	if (r == 0)
		r = put_files(&m, document);
	if (r == 0)
		r = put_users(&m, document);
	if (r == 0)
		r = put_setup(&m, document);
	if (r == 0)
		r = put_settings(&m, document);
	if (r == 0)
		*ret_document = take_ptr(document);
	return r;
}

/* Say what the lock does not answer. */
static int fail_not_answered(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(ERR_MESSAGE_MAX_BYTES);
	_cleanup_strv_ struct strv reasons = { 0 };
	int r = lock_explain(p, l, arch, locals, &reasons, e);

	if (r < 0)
		return r;
	/* As many as there is room for. */
	for (size_t i = 0; r == 0 && i < reasons.n; i++)
		r = buf_appendf(&text, "%s%s", i > 0 ? "; " : "", reasons.items[i]);
	return err_set(e, -ENOKEY, "the lock does not answer what the plan `%s` asks for %s: %s", p->file, arch_name(arch),
		buf_str(&text));
}

int key_compute(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct digest *ret_key, json_t **ret_document, struct err *e)
{
	_cleanup_key_gaps_ struct key_gaps gaps = { 0 };
	_cleanup_json_ json_t *document = NULL;
	char epoch[48];
	int r = key_draft(p, l, arch, locals, &document, &gaps, e);

	if (r < 0)
		return r;
	if (gaps.n > 0)
		return fail_not_answered(p, l, arch, locals, e);
	(void)snprintf(epoch, sizeof(epoch), "imgbuild-epoch %d\n", IMGBUILD_EPOCH);
	r = canonical_digest(epoch, document, ret_key, e);
	if (r == 0 && ret_document)
		*ret_document = take_ptr(document);
	return r;
}
