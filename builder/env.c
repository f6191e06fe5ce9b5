#include "builder/env.h"

#include "lib/url.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_DELAY_MAX_MS = 60000 };

void build_env_release(struct build_env *env)
{
	for (size_t i = 0; i < env->n_mirrors; i++) {
		free((char *)(uintptr_t)env->mirrors[i].origin);
		free((char *)(uintptr_t)env->mirrors[i].url);
	}
	free(env->mirrors);
	env->mirrors = NULL;
	env->n_mirrors = 0;
	strv_release(&env->blob_stores);
}

/* Where the URL begins in "ORIGIN=URL": both may hold a '=', so a scheme behind it is looked for first. */
static const char *mirror_separator(const char *argument)
{
	static const char *const schemes[] = { "=http://", "=https://", "=file:" };
	const char *found = NULL;

	for (size_t i = 0; !found && i < ARRAY_SIZE(schemes); i++)
		found = strstr(argument, schemes[i]);
	return found ? found : strchr(argument, '=');
}

/* An address may hold a password. */
static int refuse_mirror(const char *argument, struct err *e)
{
	_cleanup_free_ char *shown = url_redact(argument + strspn(argument, "="));

	return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "the mirror `%s`: expected ORIGIN=URL or host", shown ? shown : "");
}

static int add_mirror(struct build_env *env, const char *argument, struct err *e)
{
	const char *sep = mirror_separator(argument);
	_cleanup_free_ char *origin = NULL, *url = NULL;

	if (strcmp(argument, "host") == 0) {
		env->host_mirror = true;
		return 0;
	}
	if (!sep || sep == argument || sep[1] == '\0')
		return refuse_mirror(argument, e);
	origin = strndup(argument, (size_t)(sep - argument));
	url = strdup(sep + 1);
	if (!origin || !url)
		return err_set(e, -ENOMEM, "out of memory");
	env->mirrors[env->n_mirrors++] = (struct pkg_mirror){ take_ptr(origin), take_ptr(url) };
	return 0;
}

/* The arguments of an option, and after them the words of an environment variable (NULL: none). */
static int gather_arguments(const struct strv *arguments, const char *more, struct strv *ret, struct err *e)
{
	if (strv_extend(ret, arguments) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	while (more && *(more += strspn(more, " \t\n"))) {
		size_t len = strcspn(more, " \t\n");

		if (strv_add_len(ret, more, len) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		more += len;
	}
	return 0;
}

int build_env_set_mirrors(struct build_env *env, const struct strv *arguments, const char *more, struct err *e)
{
	_cleanup_strv_ struct strv all = { 0 };
	int r = gather_arguments(arguments, more, &all, e);

	if (r < 0)
		return r;
	env->mirrors = calloc(all.n + 1, sizeof(*env->mirrors));
	if (!env->mirrors)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; r == 0 && i < all.n; i++)
		r = add_mirror(env, all.items[i], e);
	return r;
}

int build_env_set_blob_stores(struct build_env *env, const struct strv *arguments, const char *more, struct err *e)
{
	int r = gather_arguments(arguments, more, &env->blob_stores, e);

	for (size_t i = 0; r == 0 && i < env->blob_stores.n; i++) {
		const char *store = env->blob_stores.items[i];
		_cleanup_free_ char *shown = url_redact(store);
		enum url_kind kind = url_kind(store);
		bool remote = kind == URL_HTTP || kind == URL_HTTPS;

		if (!store[0] || kind == URL_OTHER || (remote && strpbrk(store, "?#")))
			r = err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
				"the store of blobs `%s` is neither a folder nor an http or https address without a query; its files "
				"are sought at ADDRESS/sha256/DIGEST",
				shown ? shown : "");
	}
	return r;
}

struct candidate_rules build_env_candidate_rules(const struct build_env *env)
{
	return (struct candidate_rules){
		.blob_stores = &env->blob_stores, .mirrors = env->mirrors, .n_mirrors = env->n_mirrors
	};
}

int build_env_set_retry_delay(struct build_env *env, const char *text, struct err *e)
{
	unsigned long ms;

	if (!text || !text[0])
		return 0;
	ms = strspn(text, "0123456789") == strlen(text) && strlen(text) < 7 ? strtoul(text, NULL, 10) : 0;
	if (ms < 1 || ms > RETRY_DELAY_MAX_MS)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"IMGBUILD_RETRY_DELAY_MS is `%.32s`: expected milliseconds, 1 to %d", text, RETRY_DELAY_MAX_MS);
	env->retry_delay_ms = (unsigned)ms;
	return 0;
}

int build_env_check_cancel(const struct build_env *env, struct err *e)
{
	struct pollfd pfd = { .fd = env->cancel_fd, .events = POLLIN };

	if (env->cancel_fd >= 0 && poll(&pfd, 1, 0) > 0)
		return err_set_kind(e, ERR_KIND_HOST, -ECANCELED, "interrupted; nothing half-done was kept");
	return 0;
}

struct fetch_options build_env_fetch_options(const struct build_env *env)
{
	struct fetch_options options = FETCH_OPTIONS_INIT;

	options.progress = env->progress;
	options.cancel_fd = env->cancel_fd;
	options.offline = env->offline;
	options.retry_delay_ms = env->retry_delay_ms;
	return options;
}

int fetch_advise(int r, struct err *e)
{
	struct err why = *e;

	if (r != -EBADMSG)
		return r;
	return err_set_kind(e, ERR_KIND_INPUT, r,
		"%s; where the pinned bytes still are, --mirror or --blobs says; new ones are taken by pinning them in the plan, or with "
		"`imgbuild lock PLAN --update`",
		why.message);
}

void fetch_tell_stand_in(const struct build_env *env, const char *label, const char *url, const struct fetch_result *result)
{
	_cleanup_free_ char *shown = url_redact(url);

	if (shown && result->url && strcmp(result->url, shown) != 0)
		progress_warning(env->progress, "%s: no digest of it is known yet, and what came is %s, in place of %s", label, result->url,
			shown);
}

/* Leave in the result's url only where the file's own address led, when that is elsewhere. */
static void keep_redirect(const struct wanted_file *file, size_t n_places, struct fetch_result *result)
{
	_cleanup_free_ char *shown = url_redact(file->url);

	if (n_places == 1 && shown && result->url && strcmp(result->url, shown) != 0)
		return;
	free(result->url);
	result->url = NULL;
}

int fetch_one(const struct build_env *env, const struct wanted_file *file, struct fetch_result *ret, struct err *e)
{
	struct candidate_rules rules = build_env_candidate_rules(env);
	struct fetch_options options = build_env_fetch_options(env);
	_cleanup_strv_ struct strv urls = { 0 };
	struct fetch_request request = { .label = file->label,
		.sha256 = file->sha256,
		.sha512 = file->sha512,
		.size_bytes = file->size_bytes,
		.about_bytes = file->about_bytes };
	int r = candidates_list(file, &rules, &urls, e);

	if (r < 0)
		return r;
	request.urls = (const char *const *)urls.items;
	request.n_urls = urls.n;
	options.missing = env->missing;
	r = fetch_advise(fetch_all(env->publisher, &request, 1, &options, ret, e), e);
	if (r == 0 && urls.n > 1 && file->sha256.algorithm == DIGEST_NONE && file->sha512.algorithm == DIGEST_NONE)
		fetch_tell_stand_in(env, file->label, file->url, ret);
	if (r == 0)
		keep_redirect(file, urls.n, ret);
	return r;
}
