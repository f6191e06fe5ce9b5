#include "lib/url.h"
#include "plan/canonical.h"
#include "plan/json.h"
#include "plan/lock_internal.h"

#include <string.h>

/* Copy a URL without its user info: a password that changes is no other question. */
static char *without_user(const char *url)
{
	const char *host = strstr(url, "://");
	const char *start;
	char *copy;
	size_t n;

	if (!host)
		return strdup(url);
	host += 3;
	start = host;
	n = strcspn(host, "/?#");
	for (const char *p = host; p < host + n; p++)
		if (*p == '@')
			start = p + 1;
	if (asprintf(&copy, "%.*s%s", (int)(host - url), url, start) < 0)
		return NULL;
	return copy;
}

/* What the plan says of a file from a URL: its digest where it gives one, since then the URL does not matter. */
static json_t *ask_location(const struct plan_location *l)
{
	_cleanup_free_ char *url = NULL;

	if (l->sha256.algorithm != DIGEST_NONE)
		return json_pack("{s:o}", "sha256", json_of_digest(&l->sha256));
	if (l->sha512.algorithm != DIGEST_NONE)
		return json_pack("{s:o}", "sha512", json_of_digest(&l->sha512));
	url = without_user(l->url);
	return url ? json_pack("{s:s}", "url", url) : NULL;
}

/* Digest a question, which is taken over (NULL: out of memory). */
static int digest_question(const char *section, json_t *question, struct digest *ret, struct err *e)
{
	_cleanup_json_ json_t *owned = question;
	char prefix[64];

	if (!owned)
		return err_set(e, -ENOMEM, "out of memory");
	(void)snprintf(prefix, sizeof(prefix), "imgbuild-question %s\n", section);
	return canonical_digest(prefix, owned, ret, e);
}

static int fail_no_question(struct err *e, const char *what)
{
	return err_set(e, -EINVAL, "%s is local: the lock has no question for it", what);
}

int lock_question_base(const struct plan *p, enum arch arch, const struct plan_local_inputs *locals, struct digest *ret,
	struct err *e)
{
	const struct plan_base *base = &p->base[arch];
	const struct plan_local_input *key = plan_local_input_find(locals, "checksums-key");
	_cleanup_json_ json_t *question = NULL;
	_cleanup_free_ char *checksums = NULL;

	if (!base->location.url)
		return fail_no_question(e, "the base image");
	if (base->checksums_key && (!key || key->digest.algorithm == DIGEST_NONE))
		return err_set(e, -ENOKEY, "the digest of the key `%s` is not known", base->checksums_key);
	question = ask_location(&base->location);
	/* Who must vouch for it. Where the signature lies is left out: it is one of that key, or it is refused. */
	if (question && base->checksums_url) {
		checksums = without_user(base->checksums_url);
		if (!checksums || json_object_set_new(question, "checksums", json_string(checksums)) < 0 ||
			(base->checksums_key && json_object_set_new(question, "key", json_of_digest(&key->digest)) < 0))
			return err_set(e, -ENOMEM, "out of memory");
	}
	return digest_question("base", take_ptr(question), ret, e);
}

static bool is_of_location(const struct plan_location *l, const struct lock_blob *answer)
{
	return !l->url || l->sha256.algorithm != DIGEST_NONE || l->sha512.algorithm == DIGEST_NONE ||
		digest_equal(&l->sha512, &answer->sha512);
}

bool lock_base_is_of_plan(const struct plan *p, const struct lock *l, enum arch arch)
{
	return is_of_location(&p->base[arch].location, &l->arch[arch].base);
}

bool lock_kernel_is_of_plan(const struct plan *p, const struct lock *l, enum arch arch)
{
	const struct plan_kernel *k = &p->kernel[arch];

	return (k->kind != PLAN_KERNEL_FILE && k->kind != PLAN_KERNEL_ARCHIVE) ||
		is_of_location(&k->location, &l->arch[arch].kernel.archive);
}

int lock_base_digest(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct digest *ret, struct err *e)
{
	const struct plan_location *location = &p->base[arch].location;
	const struct lock_blob *answer = &l->arch[arch].base;
	const struct plan_local_input *local;
	struct digest question;
	int r;

	if (location->path) {
		local = plan_local_input_find(locals, "base");
		if (!local || local->digest.algorithm != DIGEST_SHA256)
			return err_set(e, -ENOKEY, "the digest of the base image `%s` is not known", location->path);
		*ret = local->digest;
		return 0;
	}
	if (location->sha256.algorithm != DIGEST_NONE) {
		*ret = location->sha256;
		return 0;
	}
	if (!location->url)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "the plan `%s` describes no image for %s", p->file,
			arch_name(arch));
	r = lock_question_base(p, arch, locals, &question, e);
	if (r < 0)
		return r;
	if (!digest_equal(&question, &answer->question) || !lock_base_is_of_plan(p, l, arch))
		return err_set(e, -ENOKEY, "the lock does not pin the base image that the plan names for %s", arch_name(arch));
	*ret = answer->sha256;
	return 0;
}

/* One repository as canonical text, so that repositories can be sorted. */
static int ask_repository(const struct plan_repository *r, const struct plan_local_inputs *locals, struct strv *into,
	struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);
	_cleanup_free_ char *uri = without_user(r->uri), *slot = NULL;
	const struct plan_local_input *key = NULL;
	const struct digest none = { 0 };
	_cleanup_json_ json_t *j = NULL;
	int code;

	/* Not left to json_pack(): its "s*" takes running out of memory for a value that may be left out. */
	if (!uri)
		return err_set(e, -ENOMEM, "out of memory");
	if (r->key) {
		if (asprintf(&slot, "key:%s", r->key) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		key = plan_local_input_find(locals, slot);
		if (!key || key->digest.algorithm == DIGEST_NONE)
			return err_set(e, -ENOKEY, "the digest of the repository's key `%s` is not known", r->key);
	}
	j = json_pack("{s:s, s:s, s:o, s:o}", "uri", uri, "suite", r->suite, "components", json_of_set(&r->components), "key",
		json_of_digest(key ? &key->digest : &none));
	if (!j)
		return err_set(e, -ENOMEM, "out of memory");
	code = canonical_append(j, &text, e);
	if (code == 0 && strv_add(into, buf_str(&text)) < 0)
		code = err_set(e, -ENOMEM, "out of memory");
	return code;
}

/* What is believed beyond signatures and dates; nothing is said where it is nothing. */
static int ask_trust(const struct plan *p, json_t *question)
{
	_cleanup_strv_ struct strv trusted = { 0 };

	for (size_t i = 0; i < p->apt.trusted.n; i++) {
		_cleanup_free_ char *uri = without_user(p->apt.trusted.items[i]);

		if (!uri || strv_add(&trusted, uri) < 0)
			return -ENOMEM;
	}
	if (trusted.n > 0 && json_object_set_new(question, "trusted", json_of_set(&trusted)) < 0)
		return -ENOMEM;
	if (p->apt.ignore_valid_until && json_object_set_new(question, "check_valid_until", json_false()) < 0)
		return -ENOMEM;
	return 0;
}

/* What decides where packages come from: added to the question of kernels and packages. */
static int ask_sources(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	json_t *question, struct err *e)
{
	_cleanup_strv_ struct strv repositories = { 0 };
	struct digest base;
	int r = lock_base_digest(p, l, arch, locals, &base, e);

	for (size_t i = 0; r == 0 && i < p->apt.n_repositories; i++)
		r = ask_repository(&p->apt.repositories[i], locals, &repositories, e);
	if (r < 0)
		return r;
	if (json_object_set_new(question, "base", json_of_digest(&base)) < 0 ||
		json_object_set_new(question, "partition", json_pack("{s:i, s:i, s:o}", "by", (int)p->base[arch].partition.by,
							  "number", (int)p->base[arch].partition.number, "value",
							  json_of_string(p->base[arch].partition.value))) < 0 ||
		json_object_set_new(question, "arch", json_string(arch_name(arch))) < 0 ||
		json_object_set_new(question, "snapshot", json_of_string(p->apt.snapshot)) < 0 ||
		json_object_set_new(question, "repositories", json_of_set(&repositories)) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	r = ask_trust(p, question);
	return r < 0 ? err_set(e, r, "out of memory") : 0;
}

int lock_question_kernel(const struct plan *p, const struct lock *l, enum arch arch,
	const struct plan_local_inputs *locals, struct digest *ret, struct err *e)
{
	const struct plan_kernel *k = &p->kernel[arch];
	_cleanup_json_ json_t *question = NULL;
	const struct plan_local_input *archive;
	int r = 0;

	switch (k->kind) {
	case PLAN_KERNEL_FILE:
		if (!k->location.url)
			return fail_no_question(e, "the kernel");
		question = json_pack("{s:s, s:o}", "kind", "file", "file", ask_location(&k->location));
		break;
	case PLAN_KERNEL_ARCHIVE:
		archive = plan_local_input_find(locals, "kernel-archive");
		if (k->location.path && (!archive || archive->digest.algorithm == DIGEST_NONE))
			return err_set(e, -ENOKEY, "the digest of the kernel's archive `%s` is not known", k->location.path);
		question = json_pack("{s:s, s:o, s:s}", "kind", "archive", "archive",
			k->location.path ? json_pack("{s:o}", "sha256", json_of_digest(&archive->digest))
					 : ask_location(&k->location),
			"member", k->member);
		break;
	case PLAN_KERNEL_PACKAGE:
		question = json_pack("{s:s, s:s}", "kind", "package", "package", k->package);
		r = question ? ask_sources(p, l, arch, locals, question, e) : 0;
		break;
	case PLAN_KERNEL_FROM_BASE:
		question = json_pack("{s:s}", "kind", "base");
		r = question ? ask_sources(p, l, arch, locals, question, e) : 0;
		/* Nothing of the package sources decides it. */
		if (question && r == 0) {
			(void)json_object_del(question, "snapshot");
			(void)json_object_del(question, "repositories");
			(void)json_object_del(question, "trusted");
			(void)json_object_del(question, "check_valid_until");
		}
		break;
	}
	return r < 0 ? r : digest_question("kernel", take_ptr(question), ret, e);
}

/* The digests of the local packages, sorted: their names and order are no part of the question. */
static int ask_debs(const struct plan *p, enum arch arch, const struct plan_local_inputs *locals, struct strv *into,
	struct err *e)
{
	_cleanup_strv_ struct strv debs = { 0 };
	int r = plan_debs(p, arch, &debs);

	for (size_t i = 0; r == 0 && i < debs.n; i++) {
		_cleanup_free_ char *slot = NULL;
		const struct plan_local_input *deb;
		char hex[DIGEST_HEX_SIZE];

		if (asprintf(&slot, "deb:%s", debs.items[i]) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		deb = plan_local_input_find(locals, slot);
		if (!deb || deb->digest.algorithm == DIGEST_NONE)
			return err_set(e, -ENOKEY, "the digest of the package `%s` is not known", debs.items[i]);
		r = strv_add(into, digest_hex(&deb->digest, hex));
	}
	return r < 0 ? err_set(e, r, "out of memory") : 0;
}

int lock_question_packages(const struct plan *p, const struct lock *l, enum arch arch,
	const struct plan_local_inputs *locals, struct digest *ret, struct err *e)
{
	_cleanup_strv_ struct strv debs = { 0 };
	_cleanup_json_ json_t *question = NULL;
	int r = ask_debs(p, arch, locals, &debs, e);

	if (r < 0)
		return r;
	question = json_pack("{s:o, s:o, s:b}", "debs", json_of_set(&debs), "remove",
		json_of_set(&p->apt.remove), "recommends", p->apt.recommends);
	if (!question)
		return err_set(e, -ENOMEM, "out of memory");
	r = ask_sources(p, l, arch, locals, question, e);
	return r < 0 ? r : digest_question("packages", take_ptr(question), ret, e);
}

int lock_question_source(const struct plan *p, const char *slot, struct digest *ret, struct err *e)
{
	const struct plan_location *l = plan_source_find(p, slot);

	if (!l || !l->url)
		return fail_no_question(e, slot);
	return digest_question("source", ask_location(l), ret, e);
}

bool lock_needs_packages(const struct plan *p, enum arch arch)
{
	_cleanup_strv_ struct strv debs = { 0 };

	if (p->packages.n > 0 || p->packages_of_arch[arch].n > 0 || p->apt.remove.n > 0)
		return true;
	/* Out of memory: ask, rather than leave out what the plan wants. */
	return plan_debs(p, arch, &debs) < 0 || debs.n > 0;
}

bool lock_needs_location(const struct plan_location *l)
{
	return l->url && l->sha256.algorithm == DIGEST_NONE;
}

bool lock_needs_base(const struct plan *p, enum arch arch)
{
	return lock_needs_location(&p->base[arch].location);
}

bool lock_needs_kernel(const struct plan *p, enum arch arch)
{
	return p->kernel[arch].kind != PLAN_KERNEL_FILE || lock_needs_location(&p->kernel[arch].location);
}

const struct lock_kernel *lock_kernel_find(const struct lock *l, const struct plan *p, enum arch arch)
{
	static const struct lock_kernel none = { 0 };

	return lock_needs_kernel(p, arch) ? &l->arch[arch].kernel : &none;
}

/* Turn "not known" into a missing section, and compare the question with the one that was answered. */
static int check_answer(int r, const struct digest *asked, const struct digest *answered, unsigned section,
	unsigned *sections, struct err *e)
{
	if (r < 0 && r != -ENOKEY)
		return r;
	if (r == -ENOKEY)
		err_clear(e);
	if (r == -ENOKEY || !digest_equal(asked, answered))
		*sections |= section;
	return 0;
}

int lock_missing(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	unsigned *ret_sections, struct err *e)
{
	const struct lock_arch *a = &l->arch[arch];
	struct digest asked = { 0 }, base;
	unsigned sections = 0;
	const struct digest none = { 0 };
	int r = lock_base_digest(p, l, arch, locals, &base, e);

	if (r == -ENOKEY) {
		err_clear(e);
		sections |= p->base[arch].location.url ? LOCK_SECTION_BASE : 0;
		r = 0;
	}
	if (r == 0 && lock_needs_kernel(p, arch)) {
		r = lock_question_kernel(p, l, arch, locals, &asked, e);
		if (r == 0 && !lock_kernel_is_of_plan(p, l, arch))
			sections |= LOCK_SECTION_KERNEL;
		r = check_answer(r, &asked, &a->kernel.question, LOCK_SECTION_KERNEL, &sections, e);
	}
	if (r == 0 && lock_needs_packages(p, arch)) {
		r = lock_check_packages(p, l, arch, locals, e);
		r = check_answer(r, &none, &none, LOCK_SECTION_PACKAGES, &sections, e);
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < plan_count_sources(p); i++) {
		const struct plan_location *location;
		_cleanup_free_ char *slot = NULL;

		r = plan_source(p, i, &location, &slot);
		if (r < 0)
			return err_set(e, r, "out of memory");
		if (r > 0 && lock_needs_location(location) && !lock_source_find(l, p, arch, slot))
			sections |= LOCK_SECTION_SOURCES;
	}
	*ret_sections = sections;
	return 0;
}
