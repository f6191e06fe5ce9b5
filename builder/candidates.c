#include "builder/candidates.h"
#include "builder/packages/place.h"
#include "lib/url.h"

#include <string.h>
#include <time.h>

/* A release names what is in the archive at that time. The first snapshot may have been begun before it, and what is superseded
 * stays in the pool for a day and more: the later one finds what the first was too early for. */
static const unsigned snapshot_hours[] = { 6, 24 };

#define RELEASE_DATE_MAX INT64_C(253402000000) /* in the year 9999: a lock from a stranger may say any number */

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

struct wanted_file wanted_location(const char *label, const struct plan_location *location, const struct lock_blob *answer)
{
	struct wanted_file file = {
		.label = label, .url = location->url, .sha256 = location->sha256, .sha512 = location->sha512
	};
	bool answered = answer && answer->sha256.algorithm != DIGEST_NONE;

	if (answered && file.sha256.algorithm == DIGEST_NONE)
		file.sha256 = answer->sha256;
	if (answered && digest_equal(&file.sha256, &answer->sha256)) {
		file.resolved = answer->resolved_url;
		file.about_bytes = answer->size_bytes;
	}
	return file;
}

struct wanted_file wanted_package(const char *label, const struct lock_package *package)
{
	return (struct wanted_file){ .label = label,
		.archive = package->uri,
		.file = package->file,
		.release_date = package->release_date,
		.sha256 = package->sha256,
		.size_bytes = package->size_bytes };
}

/* Take over `url` unless the list has it. */
static int add_take(struct strv *ret, char *url, struct err *e)
{
	if (url && strv_contains(ret, url)) {
		free(url);
		return 0;
	}
	return !url || strv_add_take(ret, url) < 0 ? out_of_memory(e) : 0;
}

static size_t length_without_slashes(const char *s)
{
	size_t len = strlen(s);

	while (len > 0 && s[len - 1] == '/')
		len--;
	return len;
}

/* PLACE and FILE with one slash between them; PLACE alone when FILE is NULL. */
static char *join(const char *place, const char *file)
{
	char *joined = NULL;

	if (!file)
		return strdup(place);
	return asprintf(&joined, "%.*s/%s", (int)length_without_slashes(place), place, file) < 0 ? NULL : joined;
}

static int add_blob_stores(const struct wanted_file *file, const struct candidate_rules *rules, struct strv *ret,
	struct err *e)
{
	char hex[DIGEST_HEX_SIZE];
	int r = 0;

	if (!rules->blob_stores || file->sha256.algorithm == DIGEST_NONE)
		return 0;
	(void)digest_hex(&file->sha256, hex);
	for (size_t i = 0; r == 0 && i < rules->blob_stores->n; i++) {
		const char *store = rules->blob_stores->items[i];
		char *url = NULL;

		if (asprintf(&url, "%.*s/sha256/%s", (int)length_without_slashes(store), store, hex) < 0)
			url = NULL;
		r = add_take(ret, url, e);
	}
	return r;
}

/* What the rules make of a place, each with `file` beneath it (NULL: the place is the file's whole address). */
static int add_mirrors(const char *place, const char *file, const struct candidate_rules *rules, struct strv *ret,
	struct err *e)
{
	_cleanup_strv_ struct strv places = { 0 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < rules->n_mirrors; i++)
		r = pkg_mirror_apply(place, &rules->mirrors[i], &places, e);
	if (r == 0 && file && rules->host_mirrors)
		r = pkg_host_mirrors_of(place, rules->host_mirrors, &places, e);
	for (size_t i = 0; r == 0 && i < places.n; i++)
		r = add_take(ret, join(places.items[i], file), e);
	return r;
}

/* The archive as the plan writes it, user info and all, when it is one of the plan's repositories; else as it is. */
static int archive_of_plan(const char *archive, const struct candidate_rules *rules, const char **ret, struct err *e)
{
	size_t len = length_without_slashes(archive);

	*ret = archive;
	for (size_t i = 0; i < rules->n_repositories; i++) {
		_cleanup_free_ char *public = url_redact(rules->repositories[i].uri);

		if (!public)
			return out_of_memory(e);
		if (length_without_slashes(public) == len && strncmp(public, archive, len) == 0) {
			*ret = rules->repositories[i].uri;
			return 0;
		}
	}
	return 0;
}

/* Is the archive one of a snapshot service, at some time already? It has what it had, then. */
static bool is_snapshot(const char *archive)
{
	char last[32];
	struct err ignored = ERR_INIT;
	size_t len;
	const char *name = pkg_archive_name(archive, &len);

	if (len >= sizeof(last))
		return false;
	(void)snprintf(last, sizeof(last), "%.*s", (int)len, name);
	return pkg_snapshot_check(last, &ignored) == 0;
}

static int add_snapshots(const struct wanted_file *file, const struct candidate_rules *rules, struct strv *ret,
	struct err *e)
{
	struct err ignored = ERR_INIT;

	if (file->release_date <= 0 || file->release_date > RELEASE_DATE_MAX || is_snapshot(file->archive))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(snapshot_hours); i++) {
		time_t at = (time_t)(file->release_date + (int64_t)snapshot_hours[i] * 3600);
		_cleanup_free_ char *place = NULL;
		char text[32];
		struct tm tm;
		int r;

		if (!gmtime_r(&at, &tm) || strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &tm) == 0 ||
			pkg_snapshot_check(text, &ignored) < 0)
			return 0;
		r = pkg_snapshot_place(file->archive, text, &place, e);
		if (r < 0 || !place)
			return r;
		r = add_mirrors(place, file->file, rules, ret, e);
		if (r == 0)
			r = add_take(ret, join(place, file->file), e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int list_package(const struct wanted_file *file, const struct candidate_rules *rules, struct strv *ret, struct err *e)
{
	const char *archive;
	int r;

	if ((!file->archive || !file->file) && ret->n > 0)
		return 0;
	if (!file->archive || !file->file)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOENT,
			"the lock does not say where %s comes from; run `imgbuild lock` again", file->label);
	r = add_mirrors(file->archive, file->file, rules, ret, e);
	if (r == 0)
		r = archive_of_plan(file->archive, rules, &archive, e);
	if (r == 0)
		r = add_take(ret, join(archive, file->file), e);
	if (r == 0 && file->sha256.algorithm != DIGEST_NONE)
		r = add_snapshots(file, rules, ret, e);
	return r;
}

int candidates_list(const struct wanted_file *file, const struct candidate_rules *rules, struct strv *ret, struct err *e)
{
	const char *resolved = file->sha256.algorithm != DIGEST_NONE ? file->resolved : NULL;
	int r = add_blob_stores(file, rules, ret, e);

	if (r < 0)
		return r;
	if (!file->url)
		return list_package(file, rules, ret, e);
	r = add_mirrors(file->url, NULL, rules, ret, e);
	if (r == 0 && resolved)
		r = add_mirrors(resolved, NULL, rules, ret, e);
	if (r == 0)
		r = add_take(ret, strdup(file->url), e);
	if (r == 0 && resolved)
		r = add_take(ret, strdup(resolved), e);
	return r;
}
