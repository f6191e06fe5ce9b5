/* What the plan asks and the lock does not answer, in words. */
#include "lib/url.h"
#include "plan/lock_internal.h"

#include <stdarg.h>
#include <string.h>

enum { REASON_MAX_NAMES = 12, REASON_MAX_BYTES = 4096 };

/* Append those of `names` that `others` (sorted, too) does not have, in quotes. */
static void append_missing(struct buf *text, const struct strv *names, const struct strv *others)
{
	size_t k = 0, shown = 0, more = 0;

	for (size_t i = 0; i < names->n; i++) {
		while (k < others->n && strcmp(others->items[k], names->items[i]) < 0)
			k++;
		if (k < others->n && strcmp(others->items[k], names->items[i]) == 0)
			continue;
		if (shown == REASON_MAX_NAMES)
			more++;
		else if (buf_appendf(text, "%s\"%s\"", shown > 0 ? ", " : "", names->items[i]) == 0)
			shown++;
	}
	if (more > 0)
		(void)!buf_appendf(text, " and %zu more", more);
}

int lock_check_packages(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct err *e)
{
	const struct lock_packages *answer = &l->arch[arch].packages;
	_cleanup_buf_ struct buf added = BUF_INIT(REASON_MAX_BYTES), dropped = BUF_INIT(REASON_MAX_BYTES);
	_cleanup_strv_ struct strv asked = { 0 };
	struct digest question;
	bool same, named;
	int r = lock_question_packages(p, l, arch, locals, &question, e);

	if (r < 0)
		return r;
	if (plan_packages(p, arch, &asked) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	append_missing(&added, &asked, &answer->asked);
	append_missing(&dropped, &answer->asked, &asked);
	same = digest_equal(&question, &answer->question);
	named = added.len > 0 || dropped.len > 0;
	if (same && !named)
		return 0;
	if (answer->question.algorithm == DIGEST_NONE && !named)
		return err_set(e, -ENOKEY, "the lock has no answer");
	return err_set(e, -ENOKEY, "%s%s%s%s%s%s%s%s", added.len ? "the plan asks for " : "", buf_str(&added),
		added.len ? ", which the lock does not answer" : "", added.len && dropped.len ? "; " : "",
		dropped.len ? "the plan no longer asks for " : "", buf_str(&dropped),
		named && !same && answer->question.algorithm != DIGEST_NONE ? "; " : "",
		same || answer->question.algorithm == DIGEST_NONE ?
			"" :
			"what they are chosen from has changed: the base image, its partition, or in [apt] remove, recommends, snapshot, "
			"trusted, check_valid_until, debs or a repository");
}

/* How two URLs differ that should be one: NULL when they do not, as far as a lock may know. */
static bool urls_differ(const char *plan_url, const char *lock_url, char **ret_shown)
{
	*ret_shown = url_redact(plan_url);
	return *ret_shown && lock_url && strcmp(*ret_shown, lock_url) != 0;
}

/* Why a file from a URL is not the one that the plan asks for. */
static int explain_blob(const char *slot, const struct plan_location *asked, const struct lock_blob *answer,
	const struct digest *question, struct strv *ret)
{
	_cleanup_free_ char *url = NULL;

	if (question->algorithm == DIGEST_NONE)
		return strv_addf(ret, "%s: the lock has no answer", slot);
	if (urls_differ(asked->url, answer->url, &url))
		return strv_addf(ret, "%s: the plan names %s, the lock has %s", slot, url, answer->url);
	return strv_addf(ret, "%s: the plan asks something else of %s than the lock answers: another digest, query, or who vouches for it", slot,
		url ? url : "it");
}

static const char *kind_text(enum plan_kernel_kind kind)
{
	return kind == PLAN_KERNEL_ARCHIVE ? "an archive" :
	       kind == PLAN_KERNEL_FILE	   ? "a file" :
	       kind == PLAN_KERNEL_PACKAGE ? "a package" :
					     "the base image";
}

static int explain_kernel(const struct plan_kernel *asked, const struct lock_kernel *answer, struct strv *ret)
{
	_cleanup_free_ char *url = NULL;

	if (answer->question.algorithm == DIGEST_NONE)
		return strv_add(ret, "kernel: the lock has no answer");
	if (asked->kind != answer->kind)
		return strv_addf(ret, "kernel: the plan takes it from %s, the lock has one from %s", kind_text(asked->kind),
			kind_text(answer->kind));
	switch (asked->kind) {
	case PLAN_KERNEL_PACKAGE:
		return strv_addf(ret, "kernel: the plan asks for \"%s\": that, or what it is chosen from, has changed: the base image, its "
				      "partition, or in [apt] snapshot, trusted, check_valid_until or a repository", asked->package);
	case PLAN_KERNEL_FROM_BASE:
		return strv_add(ret, "kernel: it comes from the base image, which has changed, or its partition");
	case PLAN_KERNEL_ARCHIVE:
	case PLAN_KERNEL_FILE:
		break;
	}
	if (asked->location.url && urls_differ(asked->location.url, answer->archive.url, &url))
		return strv_addf(ret, "kernel: the plan names %s, the lock has %s", url, answer->archive.url);
	return strv_addf(ret, "kernel: the plan asks for another %s of %s, or gives another digest", asked->member ? "member" : "kernel",
		url ? url : asked->location.path ? asked->location.path : "it");
}

/* One [files] or [inputs] entry. */
static int explain_source(const struct plan *p, const struct lock *l, enum arch arch, const char *slot,
	const struct plan_location *location, struct strv *ret)
{
	const struct lock_arch *a = &l->arch[arch];
	static const struct lock_blob none = { 0 };
	const struct lock_blob *answer = &none;

	if (!lock_needs_location(location) || lock_source_find(l, p, arch, slot))
		return 0;
	for (size_t i = 0; i < a->n_sources; i++)
		if (strcmp(a->sources[i].slot, slot) == 0)
			answer = &a->sources[i].blob;
	return explain_blob(slot, location, answer, &answer->question, ret);
}

/* The packages; what lock_check_packages() says stands behind their name. */
static int explain_packages(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct strv *ret, struct err *e)
{
	struct err why = ERR_INIT;
	int r = lock_check_packages(p, l, arch, locals, &why);

	if (r == -ENOKEY)
		return strv_addf(ret, "packages: %s", why.message) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
	if (r < 0)
		*e = why;
	return r;
}

int lock_explain(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct strv *ret, struct err *e)
{
	static const char needs_base[] = "it depends on the base image, which the lock does not answer";
	const struct lock_arch *a = &l->arch[arch];
	struct err ignored = ERR_INIT;
	struct digest base;
	unsigned sections;
	bool base_known;
	int r = lock_missing(p, l, arch, locals, &sections, e);

	if (r < 0)
		return r;
	base_known = lock_base_digest(p, l, arch, locals, &base, &ignored) == 0;
	if (sections & LOCK_SECTION_BASE)
		r = explain_blob("base", &p->base[arch].location, &a->base, &a->base.question, ret);
	if (r == 0 && sections & LOCK_SECTION_KERNEL)
		r = base_known ? explain_kernel(&p->kernel[arch], &a->kernel, ret) : strv_addf(ret, "kernel: %s", needs_base);
	if (r == 0 && sections & LOCK_SECTION_PACKAGES) {
		r = base_known ? explain_packages(p, l, arch, locals, ret, e) : strv_addf(ret, "packages: %s", needs_base);
		if (r < 0 && base_known)
			return r;
	}
	for (size_t i = 0; r == 0 && i < plan_count_sources(p); i++) {
		const struct plan_location *location;
		_cleanup_free_ char *slot = NULL;

		r = plan_source(p, i, &location, &slot);
		if (r > 0)
			r = explain_source(p, l, arch, slot, location, ret);
	}
	return r < 0 ? err_set(e, r, "out of memory") : 0;
}
