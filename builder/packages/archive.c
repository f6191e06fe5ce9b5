#include "builder/packages/archive.h"
#include "builder/packages/place.h"
#include "lib/url.h"

#include <string.h>
#include <strings.h>

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

static void source_clear(struct apt_source *s)
{
	struct apt_sources one = { .items = NULL };

	one.items = malloc(sizeof(*s));
	if (!one.items)
		return;
	one.items[0] = *s;
	one.n = 1;
	apt_sources_release(&one);
	*s = (struct apt_source){ 0 };
}

void pkg_archive_release(struct pkg_archive *a)
{
	source_clear(&a->source);
	apt_keyring_release(&a->keyring);
	strv_release(&a->fingerprints);
	free(a->archive);
	free(a->named);
	free(a->site);
	strv_release(&a->places);
	apt_release_release(&a->release);
	*a = (struct pkg_archive){ 0 };
}

bool pkg_archive_is_flat(const struct pkg_archive *a)
{
	return a->source.components.n == 0;
}

const char *pkg_archive_describe(const struct pkg_archive *a, char text[static ARCHIVE_LABEL_BYTES])
{
	(void)snprintf(text, ARCHIVE_LABEL_BYTES, "`%s` %s", a->archive, a->source.suite);
	return text;
}

int pkg_archive_add_url(const struct pkg_archive *a, const char *file, struct strv *ret, struct err *e)
{
	const char *place = a->places.items[a->place], *suite = a->source.suite;
	int r;

	if (!pkg_archive_is_flat(a))
		r = strv_addf(ret, "%s/dists/%s/%s", place, suite, file);
	else
		r = strv_addf(ret, "%s/%s%s", place, strcmp(suite, "/") == 0 ? "" : suite, file);
	return r < 0 ? out_of_memory(e) : 0;
}

/* ---- from a source to an archive ----------------------------------------------------------------------------------- */

static int set_site(struct pkg_archive *a)
{
	const char *scheme = strstr(a->archive, "://"), *host = scheme ? scheme + 3 : "";

	a->site = strndup(host, strcspn(host, "/:"));
	return a->site ? 0 : -ENOMEM;
}

/* Append the places of one URI: its mirrors, and itself behind them, since a mirror may lack something or be down. */
static int add_places(struct pkg_archive *a, const struct pkg_request *request, const char *uri,
	const struct strv *host_mirrors, struct err *e)
{
	if (pkg_mirror_places(uri, request->mirrors, request->n_mirrors, host_mirrors, &a->places, e) < 0)
		return -ENOMEM;
	return strv_contains(&a->places, uri) || strv_add(&a->places, uri) == 0 ? 0 : out_of_memory(e);
}

/* Find the archive's name and where to fetch it. `named` is what the source stands for. */
static int set_places(struct pkg_archive *a, const struct pkg_request *request, const struct strv *named,
	const struct strv *host_mirrors, struct err *e)
{
	for (size_t i = 0; i < named->n; i++) {
		_cleanup_free_ char *then = NULL;
		const char *uri = named->items[i];

		if (request->snapshot) {
			int r = pkg_snapshot_place(uri, request->snapshot, &then, e);

			if (r < 0)
				return r;
			if (then)
				uri = then;
			else if (i == 0)
				progress_note(request->progress,
					"%s: no snapshots of this archive are known; it is used as it is now", a->source.where);
		}
		if (i == 0) {
			a->archive = url_redact(uri);
			a->named = strdup(named->items[0]);
			if (!a->archive || !a->named || set_site(a) < 0)
				return out_of_memory(e);
		}
		if (add_places(a, request, uri, then ? NULL : host_mirrors, e) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* Gather the keys of a source of the base. */
static int set_keys(struct pkg_archive *a, const struct pkg_request *request, struct err *e)
{
	const struct apt_source *s = &a->source;
	bool paths = false;

	if (s->inline_key)
		return apt_keyring_add(&a->keyring, s->inline_key, strlen(s->inline_key), s->where, request->progress, e);
	for (size_t i = 0; i < s->signed_by.n; i++) {
		const char *by = s->signed_by.items[i];
		int r;

		if (by[0] != '/') {
			if (strv_add(&a->fingerprints, by) < 0)
				return out_of_memory(e);
			continue;
		}
		paths = true;
		r = apt_keyring_add_file(&a->keyring, &request->fs, by, request->progress, e);
		if (r == -ENOENT)
			return err_set_kind(e, ERR_KIND_INPUT, -EKEYREJECTED,
				"%s: the keyring `%s` of Signed-By is not in the base image", s->where, by);
		if (r < 0)
			return r;
	}
	return paths ? 0 : apt_keyring_add_trusted(&a->keyring, &request->fs, request->progress, e);
}

static size_t without_slashes(const char *uri)
{
	size_t len = strlen(uri);

	while (len > 1 && uri[len - 1] == '/')
		len--;
	return len;
}

/* Compare URIs without user information and slashes at the end. Out of memory they differ. */
static bool same_uri(const char *a, const char *b)
{
	_cleanup_free_ char *x = url_redact(a), *y = url_redact(b);
	size_t len = x ? without_slashes(x) : 0;

	return x && y && len == without_slashes(y) && strncmp(x, y, len) == 0;
}

bool pkg_archive_is_named(const struct pkg_archive *a, const char *uri)
{
	return same_uri(uri, a->source.uri) || same_uri(uri, a->named);
}

static bool plan_trusts(const struct pkg_request *request, const struct pkg_archive *a)
{
	for (size_t i = 0; request->trusted && i < request->trusted->n; i++)
		if (pkg_archive_is_named(a, request->trusted->items[i]))
			return true;
	return false;
}

static void init(struct pkg_archive *a)
{
	*a = (struct pkg_archive){ 0 };
	apt_keyring_init(&a->keyring);
	apt_release_init(&a->release);
}

int pkg_archive_init_repository(struct pkg_archive *a, const struct pkg_request *request,
	const struct pkg_repository *repository, const struct strv *host_mirrors, struct err *e)
{
	_cleanup_strv_ struct strv named = { 0 };
	int r;

	init(a);
	a->of_request = true;
	a->source.uri = strndup(repository->uri, without_slashes(repository->uri));
	a->source.suite = strdup(repository->suite);
	a->source.check_valid_until = true;
	if (asprintf(&a->source.where, "[[apt.repository]] %s", repository->suite) < 0)
		a->source.where = NULL;
	if (!a->source.uri || !a->source.suite || !a->source.where ||
		(repository->components && strv_extend(&a->source.components, repository->components) < 0) ||
		strv_add(&named, a->source.uri) < 0)
		return out_of_memory(e);
	if ((a->source.components.n == 0) != (repository->suite[0] && repository->suite[strlen(repository->suite) - 1] == '/'))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"%s: a repository has components, or a suite that ends in a slash", a->source.where);
	r = set_places(a, request, &named, host_mirrors, e);
	if (r < 0)
		return r;
	a->trusted = plan_trusts(request, a);
	if (a->trusted)
		return 0;
	if (!repository->key)
		return err_set_kind(e, ERR_KIND_USAGE, -EKEYREJECTED,
			"%s: the repository `%s` has no key; give one, or, if its packages are to be taken although nobody vouches "
			"for them, list it in [apt] trusted", a->source.where, a->archive);
	return apt_keyring_add(&a->keyring, repository->key, repository->key_len, repository->key_label, request->progress, e);
}

int pkg_archive_init_source(struct pkg_archive *a, const struct pkg_request *request, struct apt_source *source,
	const struct strv *host_mirrors, struct err *e)
{
	_cleanup_strv_ struct strv named = { 0 };
	int r;

	init(a);
	a->source = *source;
	*source = (struct apt_source){ 0 };
	r = apt_source_places(&request->fs, &a->source, request->arch, &named, e);
	if (r == 0)
		r = set_places(a, request, &named, host_mirrors, e);
	if (r < 0)
		return r;
	a->trusted = plan_trusts(request, a);
	if (a->source.trusted && !a->trusted)
		return err_set_kind(e, ERR_KIND_INPUT, -EPERM,
			"%s: the base image takes packages from `%s` that nobody vouches for (trusted=yes), which needs the plan's "
			"word: [apt] trusted = [\"%s\"]; better, let the source name the archive's key with Signed-By", a->source.where,
			a->archive, a->archive);
	return a->trusted ? 0 : set_keys(a, request, e);
}

/* ---- judging a release file ---------------------------------------------------------------------------------------- */

/* The suite without what Debian's security archive used to add to it. */
static bool suite_is(const char *wanted, const char *found)
{
	size_t len = strlen(wanted);

	if (strcmp(wanted, found) == 0)
		return true;
	if (len > 8 && strcmp(wanted + len - 8, "/updates") == 0)
		len -= 8;
	return strlen(found) == len && strncmp(wanted, found, len) == 0;
}

/* Debian's own archives and Ubuntu's, backports ("Debian Backports") too: one key signs several of them. */
static bool is_of_a_distribution(const char *origin)
{
	static const char *const names[] = { "Debian", "Ubuntu" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t len = strlen(names[i]);

		if (strncasecmp(origin, names[i], len) == 0 && (origin[len] == '\0' || origin[len] == ' '))
			return true;
	}
	return false;
}

/* Check that the release file is the one that was asked for: a mirror could hand out another suite's. */
static int check_suite(const struct pkg_archive *a, const char *label, struct progress *progress, struct err *e)
{
	const struct apt_release *r = &a->release;

	if (pkg_archive_is_flat(a) || suite_is(a->source.suite, r->suite) || suite_is(a->source.suite, r->codename))
		return 0;
	if (is_of_a_distribution(r->origin))
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"%s is of suite `%.64s`, codename `%.64s`, and not of `%.64s`, which was asked for: the mirror mixes them up, "
			"or somebody does; use another mirror (--mirror)", label, r->suite, r->codename, a->source.suite);
	progress_note(progress, "%s calls itself suite `%.64s`, codename `%.64s`", label, r->suite, r->codename);
	return 0;
}

static int check_times(const struct pkg_archive *a, const struct pkg_request *request, const char *label, struct err *e)
{
	char expiry[RELEASE_EXPIRY_BYTES];
	int r = apt_release_check_date(&a->release, request->now, label, e);

	if (r < 0 || !apt_release_has_expired(&a->release, request->now, expiry))
		return r;
	if (!a->dates_ignored_by)
		return err_set_kind(e, ERR_KIND_INPUT, -ESTALE,
			"%s %s: this mirror gets no updates any more, or somebody replays old metadata; use another mirror (--mirror), "
			"pin the day with [apt] snapshot, or, where old metadata is meant, write [apt] check_valid_until = false", label,
			expiry);
	if (a->dates_ignored_by[0])
		progress_warning(request->progress, "%s %s; taken all the same because of %s", label, expiry, a->dates_ignored_by);
	return 0;
}

/* A URI from its host on: http or https makes no other archive. */
static const char *without_scheme(const char *uri)
{
	const char *scheme = strstr(uri, "://");

	return scheme ? scheme + 3 : uri;
}

/* Find the newest date at which this suite of this archive was seen: an older file with a good signature may be replayed. The
 * archive of a snapshot has a name of its own, and may so be of any age. */
static int64_t known_date(const struct pkg_archive *a, const struct pkg_request *request)
{
	int64_t newest = 0;

	for (size_t i = 0; i < request->n_known_releases; i++) {
		const struct pkg_known_release *k = &request->known_releases[i];

		if (strcmp(k->suite, a->source.suite) == 0 && same_uri(without_scheme(k->uri), without_scheme(a->archive)) &&
			k->date > newest)
			newest = k->date;
	}
	return newest;
}

int pkg_archive_take_release(struct pkg_archive *a, const struct pkg_request *request, const struct buf *text,
	const struct buf *signature, const char *from, struct err *e)
{
	char label[3 * ARCHIVE_LABEL_BYTES], name[ARCHIVE_LABEL_BYTES];
	int r;

	(void)snprintf(label, sizeof(label), "the release file of %s%s%.512s%s", pkg_archive_describe(a, name),
		from ? " (from `" : "", from ? from : "", from ? "`)" : "");
	apt_release_release(&a->release);
	apt_release_init(&a->release);
	if (a->trusted)
		r = apt_release_take_unsigned(text, label, &a->release, e);
	else
		r = apt_release_verify(text, signature, &a->keyring, &a->fingerprints, label, &a->release, e);
	if (r == 0)
		r = apt_release_parse(&a->release, label, e);
	if (r == 0)
		r = check_suite(a, label, request->progress, e);
	if (r == 0)
		r = check_times(a, request, label, e);
	if (r == 0 && !a->trusted)
		r = apt_release_check_not_older(&a->release, known_date(a, request), label, e);
	if (r == 0 && a->trusted)
		a->release.date = 0; /* nobody vouches for that, either */
	return r < 0 ? err_wrap(e, "%s", a->source.where) : 0;
}

int pkg_archive_take_no_release(struct pkg_archive *a, struct err *e)
{
	apt_release_release(&a->release);
	apt_release_init(&a->release);
	return apt_release_parse_nothing(&a->release, e);
}
