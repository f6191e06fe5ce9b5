#include "builder/base.h"
#include "builder/vouch.h"

#include <string.h>

/* The image that the lock has held so far, when it is in the store and is the one that is listed by SHA-512 alone. The store knows
 * blobs by SHA-512 where it was asked for when they came; else this one is read, which takes less than fetching it again. */
static int recognise_locked(const struct build_env *env, const struct prepared *p, struct vouch *vouch, struct err *e)
{
	const struct store *store = publisher_store(env->publisher);
	const struct digest *locked = &p->lock.arch[p->arch].base.sha256;
	_cleanup_close_ int fd = -1;
	struct err absent = ERR_INIT;
	struct digest found;
	int r;

	if (vouch->sha256.algorithm != DIGEST_NONE || vouch->sha512.algorithm == DIGEST_NONE || locked->algorithm == DIGEST_NONE ||
		store_find_blob(store, &vouch->sha512, NULL, NULL, &absent) == 0 ||
		store_open_blob(store, locked, &fd, NULL, &absent) < 0)
		return 0;
	r = digest_fd(DIGEST_SHA512, fd, UINT64_MAX, &found, e);
	if (r == 0 && digest_equal(&found, &vouch->sha512))
		vouch->sha256 = *locked;
	return r;
}

/* Fetch what was vouched for. *ret_resolved: where redirects led, when that is elsewhere; NULL when a mirror was asked. */
static int fetch_image(const struct build_env *env, const struct prepared *p, const struct vouch *vouch, struct fetch_result *ret,
	char **ret_resolved, struct err *e)
{
	const char *url = p->plan->base[p->arch].location.url;
	struct wanted_file wanted = { .label = "base image", .url = url, .sha256 = vouch->sha256, .sha512 = vouch->sha512 };
	struct candidate_rules rules = build_env_candidate_rules(env);
	struct fetch_options options = build_env_fetch_options(env);
	_cleanup_strv_ struct strv places = { 0 };
	_cleanup_free_ char *shown = url_redact(url);
	struct fetch_request request = { .label = "base image",
		.sha256 = vouch->sha256,
		.sha512 = vouch->sha512,
		/* So that the store knows it by the name that most publishers give it. */
		.want_sha512 = vouch->trust != LOCK_TRUST_PLAN };
	int r = candidates_list(&wanted, &rules, &places, e);

	if (r == 0 && !shown)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r < 0)
		return r;
	request.urls = (const char *const *)places.items;
	request.n_urls = places.n;
	r = fetch_all(env->publisher, &request, 1, &options, ret, e);
	if (r == 0 && places.n > 1 && vouch->sha256.algorithm == DIGEST_NONE && vouch->sha512.algorithm == DIGEST_NONE)
		fetch_tell_stand_in(env, "base image", url, ret);
	if (r == 0 && places.n == 1 && ret->url && strcmp(ret->url, shown) != 0) {
		*ret_resolved = strdup(ret->url);
		r = *ret_resolved ? 0 : err_set(e, -ENOMEM, "out of memory");
	}
	return r;
}

/* The image is not what its list says. When the list says something else by now, the publisher was changing both: take that. */
static int look_again(const struct build_env *env, const struct prepared *p, struct vouch *vouch, struct err *e)
{
	_cleanup_vouch_ struct vouch again = { 0 };
	_cleanup_free_ char *shown = url_redact(p->plan->base[p->arch].location.url);
	struct err ignored = ERR_INIT;

	if (vouch_find(env, p, &again, &ignored) < 0 || vouch_equal(&again, vouch) || again.trust != vouch->trust)
		return err_wrap(e, "the image at %s is not the one that %s lists: one of them may be tampered with, or out of date (a digest "
			"in the plan would overrule the list)", shown ? shown : "its address", vouch->checksums.url);
	progress_note(env->progress, "%s has changed meanwhile; the image is fetched again", vouch->checksums.url);
	err_clear(e);
	vouch_release(vouch);
	*vouch = again;
	again = (struct vouch){ 0 };
	return 0;
}

/* An image that was not fetched again leads where it led when the lock was written, as far as anybody knows. */
static int keep_resolved(const struct prepared *p, const struct fetch_result *result, char **resolved, struct err *e)
{
	const struct lock_blob *locked = &p->lock.arch[p->arch].base;
	_cleanup_free_ char *shown = url_redact(p->plan->base[p->arch].location.url);

	if (!result->was_stored || !locked->resolved_url || !locked->url || !shown || strcmp(locked->url, shown) != 0 ||
		!digest_equal(&locked->sha256, &result->sha256))
		return 0;
	*resolved = strdup(locked->resolved_url);
	return *resolved ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int base_resolve(const struct build_env *env, struct prepared *p, struct err *e)
{
	_cleanup_vouch_ struct vouch vouch = { 0 };
	_cleanup_free_ char *resolved = NULL;
	const char *url = p->plan->base[p->arch].location.url;
	struct fetch_result result = { 0 };
	struct lock_blob answer;
	char table[32];
	int r = vouch_find(env, p, &vouch, e);

	if (r == 0)
		r = recognise_locked(env, p, &vouch, e);
	if (r == 0)
		r = fetch_image(env, p, &vouch, &result, &resolved, e);
	if (r == -EBADMSG && vouch.checksums.url) {
		r = look_again(env, p, &vouch, e);
		if (r == 0)
			r = fetch_image(env, p, &vouch, &result, &resolved, e);
	}
	if (r == 0)
		r = keep_resolved(p, &result, &resolved, e);
	if (r < 0) {
		fetch_results_release(&result, 1);
		return err_wrap(e, "the base image");
	}
	/* Not before: where the image cannot be had, either, that is all there is to say. */
	if (vouch.doubt)
		progress_warning(env->progress, "cannot tell whether the publisher lists checksums: %s", vouch.doubt);
	(void)snprintf(table, sizeof(table), "base.%s", arch_name(p->arch));
	vouch_say(env->progress, vouch.trust, &vouch.checksums, "base image", url, table, p->lock_path, &result.sha256);
	answer = (struct lock_blob){ .url = p->plan->base[p->arch].location.url,
		.resolved_url = resolved,
		.size_bytes = result.size_bytes,
		.sha256 = result.sha256,
		.sha512 = result.sha512,
		.trust = vouch.trust,
		.checksums = vouch.checksums };
	r = lock_set_base(&p->lock, p->plan, p->arch, &p->locals, &answer, e);
	fetch_results_release(&result, 1);
	return r;
}
