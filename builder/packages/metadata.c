#include "builder/packages/metadata.h"
#include "builder/packages/aptconf.h"
#include "builder/packages/deb822.h"
#include "builder/packages/place.h"
#include "lib/io.h"
#include "lib/url.h"

#include <string.h>
#include <strings.h>
#include <sys/stat.h>

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

static void archive_clear(struct pkg_archive *a)
{
	source_clear(&a->source);
	apt_keyring_release(&a->keyring);
	strv_release(&a->fingerprints);
	free(a->archive);
	free(a->site);
	strv_release(&a->places);
	apt_release_release(&a->release);
}

static void forget_lists(struct pkg_metadata *m)
{
	for (size_t i = 0; i < m->n_lists; i++)
		free(m->lists[i].component);
	free(m->lists);
	m->lists = NULL;
	m->n_lists = 0;
}

void pkg_metadata_release(struct pkg_metadata *m)
{
	for (size_t i = 0; i < m->n_archives; i++)
		archive_clear(&m->archives[i]);
	free(m->archives);
	forget_lists(m);
	*m = (struct pkg_metadata){ 0 };
}

int pkg_host_mirrors(const struct pkg_host_fs *fs, enum arch arch, struct strv *ret, struct err *e)
{
	_cleanup_apt_sources_ struct apt_sources sources = { .lenient = true };
	int r = apt_sources_read(fs, arch, &sources, NULL, e);

	for (size_t i = 0; i < sources.n && r == 0; i++) {
		_cleanup_strv_ struct strv places = { 0 };

		r = apt_source_places(fs, &sources.items[i], arch, &places, e);
		if (r < 0 && r != -ENOMEM) {
			err_clear(e);
			r = 0;
			continue;
		}
		for (size_t k = 0; k < places.n && r == 0; k++)
			if (!strv_contains(ret, places.items[k]) && strv_add(ret, places.items[k]) < 0)
				r = out_of_memory(e);
	}
	return r < 0 ? err_wrap(e, "reading this host's apt sources for --mirror host") : 0;
}

/* Whether a system's apt was told not to look at dates. */
static int dates_are_ignored(const struct pkg_host_fs *fs, bool *ret, struct err *e)
{
	_cleanup_free_ char *value = NULL;
	bool check = true;
	int r = apt_config_read(fs, "Acquire::Check-Valid-Until", &value, e);

	if (r < 0)
		return r;
	if (value && deb822_bool((struct deb822_value){ value, strlen(value) }, true, &check) == 0 && !check)
		*ret = true;
	return 0;
}

static int set_site(struct pkg_archive *a)
{
	const char *scheme = strstr(a->archive, "://"), *host = scheme ? scheme + 3 : "";

	a->site = strndup(host, strcspn(host, "/:"));
	return a->site ? 0 : -ENOMEM;
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
			if (!a->archive || set_site(a) < 0)
				return out_of_memory(e);
		}
		if (pkg_mirror_places(uri, request->mirrors, request->n_mirrors, then ? NULL : host_mirrors, &a->places, e) < 0)
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

static struct pkg_archive *append_archive(struct pkg_metadata *m)
{
	struct pkg_archive *archives = reallocarray(m->archives, m->n_archives + 1, sizeof(*archives)), *a;

	if (!archives)
		return NULL;
	m->archives = archives;
	a = &archives[m->n_archives++];
	*a = (struct pkg_archive){ 0 };
	apt_keyring_init(&a->keyring);
	apt_release_init(&a->release);
	return a;
}

/* Take over a repository that the plan adds. */
static int add_repository(struct pkg_metadata *m, const struct pkg_request *request,
	const struct pkg_repository *repository, const struct strv *host_mirrors, struct err *e)
{
	struct pkg_archive *a = append_archive(m);
	_cleanup_strv_ struct strv named = { 0 };
	size_t len = strlen(repository->uri);
	int r;

	if (!a)
		return out_of_memory(e);
	while (len > 1 && repository->uri[len - 1] == '/')
		len--;
	a->source.uri = strndup(repository->uri, len);
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
	r = apt_keyring_add(&a->keyring, repository->key, repository->key_len, repository->key_label, request->progress, e);
	return r < 0 ? r : set_places(a, request, &named, host_mirrors, e);
}

static int add_base_source(struct pkg_metadata *m, const struct pkg_request *request, struct apt_source *source,
	const struct strv *host_mirrors, struct err *e)
{
	struct pkg_archive *a = append_archive(m);
	_cleanup_strv_ struct strv named = { 0 };
	int r;

	if (!a)
		return out_of_memory(e);
	a->source = *source;
	*source = (struct apt_source){ 0 };
	r = apt_source_places(&request->fs, &a->source, request->arch, &named, e);
	if (r == 0)
		r = set_places(a, request, &named, host_mirrors, e);
	return r < 0 ? r : set_keys(a, request, e);
}

int pkg_metadata_init(struct pkg_metadata *m, const struct pkg_request *request, struct err *e)
{
	_cleanup_apt_sources_ struct apt_sources sources = { 0 };
	_cleanup_strv_ struct strv host_mirrors = { 0 };
	bool ignore_dates = request->ignore_valid_until || request->snapshot;
	int r = 0;

	*m = (struct pkg_metadata){ 0 };
	if (request->snapshot)
		r = pkg_snapshot_check(request->snapshot, e);
	if (r == 0 && request->host_apt)
		r = pkg_host_mirrors(request->host_apt, request->arch, &host_mirrors, e);
	if (r == 0 && request->host_apt && !ignore_dates) {
		r = dates_are_ignored(request->host_apt, &ignore_dates, e);
		if (r == 0 && ignore_dates)
			progress_note(request->progress, "this host's apt ignores Valid-Until (Acquire::Check-Valid-Until), so "
				"with its mirrors that is done here, too");
	}
	if (r == 0 && !ignore_dates)
		r = dates_are_ignored(&request->fs, &ignore_dates, e);
	if (r == 0)
		r = apt_sources_read(&request->fs, request->arch, &sources, request->progress, e);
	for (size_t i = 0; i < sources.n && r == 0; i++)
		r = add_base_source(m, request, &sources.items[i], &host_mirrors, e);
	for (size_t i = 0; i < request->n_repositories && r == 0; i++)
		r = add_repository(m, request, &request->repositories[i], &host_mirrors, e);
	for (size_t i = 0; i < m->n_archives; i++)
		m->archives[i].check_dates = !ignore_dates && m->archives[i].source.check_valid_until;
	if (r < 0)
		pkg_metadata_release(m);
	return r;
}

static bool is_flat(const struct pkg_archive *a)
{
	return a->source.components.n == 0;
}

/* "archive suite", for messages. */
static void describe(const struct pkg_archive *a, char *text, size_t size)
{
	(void)snprintf(text, size, "`%s` %s", a->archive, a->source.suite);
}

/* The path of a file of the suite beneath the archive. */
static int suite_path(const struct pkg_archive *a, const char *file, char **ret, struct err *e)
{
	int n;

	if (!is_flat(a))
		n = asprintf(ret, "dists/%s/%s", a->source.suite, file);
	else if (strcmp(a->source.suite, "/") == 0)
		n = asprintf(ret, "%s", file);
	else
		n = asprintf(ret, "%s%s", a->source.suite, file);
	if (n >= 0)
		return 0;
	*ret = NULL;
	return out_of_memory(e);
}

/* Append the URLs of a file at all places of an archive. */
static int add_urls(const struct pkg_archive *a, const char *file, struct strv *ret, struct err *e)
{
	_cleanup_free_ char *path = NULL;

	if (suite_path(a, file, &path, e) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < a->places.n; i++)
		if (strv_addf(ret, "%s/%s", a->places.items[i], path) < 0)
			return out_of_memory(e);
	return 0;
}

/* A few files fetched together. */
struct batch {
	struct pkg_get *gets;
	struct strv *urls;
	size_t n;
};

static int batch_init(struct batch *b, size_t n, struct err *e)
{
	b->n = n;
	b->gets = calloc(n ? n : 1, sizeof(*b->gets));
	b->urls = calloc(n ? n : 1, sizeof(*b->urls));
	if (!b->gets || !b->urls)
		return out_of_memory(e);
	for (size_t i = 0; i < n; i++) {
		b->gets[i].urls = &b->urls[i];
		b->gets[i].fd = -1;
	}
	return 0;
}

static void batch_release(struct batch *b)
{
	for (size_t i = 0; i < b->n && b->gets && b->urls; i++) {
		buf_release(&b->gets[i].bytes);
		close_fdp(&b->gets[i].fd);
		strv_release(&b->urls[i]);
	}
	free(b->gets);
	free(b->urls);
	*b = (struct batch){ 0 };
}
#define _cleanup_batch_ _cleanup_(batch_release)

static int fetch(const struct pkg_request *request, struct batch *b, struct err *e)
{
	int r = b->n ? request->transport.fetch_many(request->transport.ctx, b->gets, b->n, e) : 0;

	return r < 0 ? err_default_kind(e, ERR_KIND_INPUT) : 0;
}

/* The same where the answers are to be in memory, whatever the transport gives. */
static int fetch_into_memory(const struct pkg_request *request, struct batch *b, struct err *e)
{
	int r = fetch(request, b, e);

	for (size_t i = 0; i < b->n && r == 0; i++) {
		if (b->gets[i].fd < 0)
			continue;
		r = read_fd_to_end(b->gets[i].fd, &b->gets[i].bytes);
		if (r < 0)
			r = err_set_errno(e, r, "cannot read `%s`", b->gets[i].urls->items[0]);
	}
	return r;
}

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
static int check_suite(const struct pkg_archive *a, struct progress *progress, struct err *e)
{
	const struct apt_release *r = &a->release;
	char text[512];

	if (is_flat(a) || suite_is(a->source.suite, r->suite) || suite_is(a->source.suite, r->codename))
		return 0;
	describe(a, text, sizeof(text));
	if (is_of_a_distribution(r->origin))
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: the release file there is of suite `%.64s`, codename `%.64s`",
			text, r->suite, r->codename);
	progress_note(progress, "%s calls itself suite `%.64s`, codename `%.64s`", text, r->suite, r->codename);
	return 0;
}

static int take_release(struct pkg_archive *a, const struct pkg_request *request, const struct buf *text,
	const struct buf *signature, struct err *e)
{
	char label[600] = "the release file of ";
	int r;

	describe(a, label + strlen(label), sizeof(label) - strlen(label));
	apt_release_release(&a->release);
	apt_release_init(&a->release);
	r = apt_release_verify(text, signature, &a->keyring, &a->fingerprints, label, &a->release, e);
	if (r == 0)
		r = apt_release_parse(&a->release, label, e);
	if (r == 0)
		r = check_suite(a, request->progress, e);
	if (r == 0 && a->check_dates)
		r = apt_release_check_time(&a->release, request->now, label, e);
	return r < 0 ? err_wrap(e, "%s", a->source.where) : 0;
}

/* Fetch what has no InRelease: Release and Release.gpg. */
static int load_detached(struct pkg_archive *a, const struct pkg_request *request, struct err *e)
{
	_cleanup_batch_ struct batch b = { 0 };
	char text[512];
	int r = batch_init(&b, 2, e);

	if (r < 0)
		return r;
	buf_init(&b.gets[0].bytes, RELEASE_MAX_BYTES);
	buf_init(&b.gets[1].bytes, RELEASE_SIGNATURE_MAX_BYTES);
	if (add_urls(a, "Release", &b.urls[0], e) < 0 || add_urls(a, "Release.gpg", &b.urls[1], e) < 0)
		return -ENOMEM;
	r = fetch_into_memory(request, &b, e);
	if (r < 0)
		return r;
	describe(a, text, sizeof(text));
	if (b.gets[0].status < 0)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "%s: %s has neither InRelease nor Release at %s", a->source.where,
			text, a->places.items[0]);
	if (b.gets[1].status < 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EKEYREJECTED, "%s: %s is not signed: it has no InRelease and no "
			"Release.gpg", a->source.where, text);
	return take_release(a, request, &b.gets[0].bytes, &b.gets[1].bytes, e);
}

static int load_releases(struct pkg_metadata *m, const struct pkg_request *request, struct err *e)
{
	_cleanup_batch_ struct batch b = { 0 };
	int r = batch_init(&b, m->n_archives, e);

	for (size_t i = 0; i < m->n_archives && r == 0; i++) {
		buf_init(&b.gets[i].bytes, RELEASE_MAX_BYTES);
		r = add_urls(&m->archives[i], "InRelease", &b.urls[i], e);
	}
	if (r == 0)
		r = fetch_into_memory(request, &b, e);
	for (size_t i = 0; i < m->n_archives && r == 0; i++) {
		if (b.gets[i].status == 0)
			r = take_release(&m->archives[i], request, &b.gets[i].bytes, NULL, e);
		/* Not there, or there is no gpgv that could read it: sqv takes detached signatures. */
		if (b.gets[i].status < 0 || (r == -ENOENT && e->kind == ERR_KIND_HOST)) {
			err_clear(e);
			r = load_detached(&m->archives[i], request, e);
		}
	}
	return r;
}

/* A list that is to be fetched. */
struct wanted_list {
	struct digest digest;
	uint64_t size_bytes;
	char label[512];
};

struct wanted_lists {
	struct wanted_list *items;
	size_t n;
	struct strv files; /* their paths in the suite */
};

static void wanted_release(struct wanted_lists *w)
{
	free(w->items);
	strv_release(&w->files);
	*w = (struct wanted_lists){ 0 };
}

/* Find the best compressed form of "…/Packages" that the release file vouches for. */
static int find_list(const struct pkg_archive *a, const char *stem, struct wanted_list *ret, char **ret_file,
	struct err *e)
{
	static const char *const suffixes[] = { ".xz", ".zst", ".gz", ".bz2", ".lz4", "" };

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		_cleanup_free_ char *file = NULL;

		if (asprintf(&file, "%s%s", stem, suffixes[i]) < 0) {
			file = NULL;
			return out_of_memory(e);
		}
		if (apt_release_find(&a->release, file, &ret->digest, &ret->size_bytes) == 0) {
			*ret_file = take_ptr(file);
			return 1;
		}
	}
	return 0;
}

static int want_list(struct pkg_metadata *m, size_t archive, const char *component, const char *stem,
	struct wanted_lists *w, struct err *e)
{
	struct wanted_list one, *items;
	_cleanup_free_ char *file = NULL;
	struct pkg_list *lists;
	int r = find_list(&m->archives[archive], stem, &one, &file, e);

	if (r <= 0)
		return r;
	describe(&m->archives[archive], one.label, sizeof(one.label));
	(void)snprintf(one.label + strlen(one.label), sizeof(one.label) - strlen(one.label), " %s", stem);
	if (one.size_bytes > LIST_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -EFBIG, "%s has %llu bytes, more than %d", one.label,
			(unsigned long long)one.size_bytes, LIST_MAX_BYTES);
	if (m->n_lists == UNIVERSE_LISTS_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "more than %d package lists", UNIVERSE_LISTS_MAX);
	items = reallocarray(w->items, w->n + 1, sizeof(*items));
	if (!items)
		return out_of_memory(e);
	w->items = items;
	lists = reallocarray(m->lists, m->n_lists + 1, sizeof(*lists));
	if (!lists)
		return out_of_memory(e);
	m->lists = lists;
	lists[m->n_lists].archive = archive;
	lists[m->n_lists].component = strdup(component);
	if (!lists[m->n_lists].component)
		return out_of_memory(e);
	m->n_lists++;
	if (strv_add(&w->files, file) < 0)
		return out_of_memory(e);
	w->items[w->n++] = one;
	return 1;
}

static bool word_is_in(const char *words, const char *word)
{
	_cleanup_strv_ struct strv v = { 0 };

	return deb822_words((struct deb822_value){ words, strlen(words) }, false, &v) == 0 && strv_contains(&v, word);
}

/* Want the lists of one archive: for each component that of the architecture, and that of "all" where it is apart. */
static int want_lists_of(struct pkg_metadata *m, size_t archive, const struct pkg_request *request,
	struct wanted_lists *w, struct err *e)
{
	struct pkg_archive *a = &m->archives[archive];
	const char *arch = arch_name(request->arch);
	bool all_apart = word_is_in(a->release.architectures, "all") && !a->release.packages_without_all;
	size_t found = 0;
	char text[512];

	describe(a, text, sizeof(text));
	if (is_flat(a)) {
		int r = want_list(m, archive, "", "Packages", w, e);

		return r != 0 ? (r < 0 ? r : 0) :
				err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "%s: %s has no package list", a->source.where, text);
	}
	for (size_t c = 0; c < a->source.components.n; c++) {
		const char *component = a->source.components.items[c];
		char stem[600];
		int r;

		(void)snprintf(stem, sizeof(stem), "%s/binary-%s/Packages", component, arch);
		r = want_list(m, archive, component, stem, w, e);
		if (r < 0)
			return r;
		if (r == 0)
			progress_warning(request->progress, "%s: %s has no component `%s` for %s", a->source.where, text, component,
				arch);
		found += (size_t)r;
		(void)snprintf(stem, sizeof(stem), "%s/binary-all/Packages", component);
		r = all_apart ? want_list(m, archive, component, stem, w, e) : 0;
		if (r < 0)
			return r;
		found += (size_t)r;
	}
	if (found == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "%s: %s has no packages for %s", a->source.where, text, arch);
	return 0;
}

/* The file by its digest, where the archive keeps it under that name too: it does not change during an update. */
static int add_list_urls(const struct pkg_archive *a, const char *file, const struct digest *digest, struct strv *urls,
	struct err *e)
{
	_cleanup_free_ char *by_hash = NULL;
	const char *slash = strrchr(file, '/');
	char hex[DIGEST_HEX_SIZE];

	if (a->release.by_hash) {
		if (asprintf(&by_hash, "%.*sby-hash/SHA256/%s", slash ? (int)(slash + 1 - file) : 0, file,
			digest_hex(digest, hex)) < 0) {
			by_hash = NULL;
			return out_of_memory(e);
		}
		if (add_urls(a, by_hash, urls, e) < 0)
			return -ENOMEM;
	}
	return add_urls(a, file, urls, e);
}

/* The size and digest of an answer. Leaves its descriptor at the beginning. */
static int measure(const struct pkg_get *get, uint64_t *ret_size, struct digest *ret, struct err *e)
{
	struct stat st;

	if (get->fd < 0) {
		*ret_size = get->bytes.len;
		return digest_bytes(DIGEST_SHA256, buf_str(&get->bytes), get->bytes.len, ret, e);
	}
	if (fstat(get->fd, &st) < 0 || lseek(get->fd, 0, SEEK_SET) < 0)
		return err_set_errno(e, -errno, "cannot read a package list");
	*ret_size = (uint64_t)st.st_size;
	return digest_fd(DIGEST_SHA256, get->fd, UINT64_MAX, ret, e);
}

/* Check a list against the release file. Returns 0, or -EAGAIN when the mirror may be in the middle of an update. */
static int check_list(const struct wanted_list *w, const struct pkg_get *get, struct err *e)
{
	struct digest found;
	uint64_t size;
	int r;

	if (get->status < 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EAGAIN, "%s is not there, though the release file names it", w->label);
	r = measure(get, &size, &found, e);
	if (r < 0)
		return r;
	if (size != w->size_bytes || !digest_equal(&found, &w->digest)) {
		char a[DIGEST_HEX_SIZE], b[DIGEST_HEX_SIZE];

		return err_set_kind(e, ERR_KIND_INPUT, -EAGAIN,
			"%s does not match the signed release file: %llu bytes with sha256 %s, expected %llu with %s", w->label,
			(unsigned long long)size, digest_hex(&found, a), (unsigned long long)w->size_bytes,
			digest_hex(&w->digest, b));
	}
	return 0;
}

static void origin_of(const struct pkg_metadata *m, const struct pkg_list *l, enum arch arch, struct apt_origin *ret)
{
	const struct pkg_archive *a = &m->archives[l->archive];

	*ret = (struct apt_origin){ .archive = a->release.suite,
		.codename = a->release.codename,
		.origin = a->release.origin,
		.label = a->release.label,
		.version = a->release.version,
		.component = l->component,
		.site = a->site,
		.arch = arch_name(arch),
		.not_automatic = a->release.not_automatic,
		.but_automatic_upgrades = a->release.but_automatic_upgrades };
}

static int load_lists(struct pkg_metadata *m, const struct pkg_request *request, struct pkg_universe *u, struct err *e)
{
	_cleanup_(wanted_release) struct wanted_lists w = { 0 };
	_cleanup_batch_ struct batch b = { 0 };
	int r = 0;

	forget_lists(m);
	for (size_t i = 0; i < m->n_archives && r == 0; i++)
		r = want_lists_of(m, i, request, &w, e);
	if (r == 0)
		r = batch_init(&b, w.n, e);
	for (size_t i = 0; i < w.n && r == 0; i++) {
		b.gets[i].expected = &w.items[i].digest;
		b.gets[i].expected_size_bytes = w.items[i].size_bytes;
		buf_init(&b.gets[i].bytes, (size_t)w.items[i].size_bytes + 1);
		r = add_list_urls(&m->archives[m->lists[i].archive], w.files.items[i], &w.items[i].digest, &b.urls[i], e);
	}
	if (r == 0) {
		r = fetch(request, &b, e);
		if (r == -EBADMSG || r == -E2BIG)
			r = e->code = -EAGAIN;
	}
	for (size_t i = 0; i < w.n && r == 0; i++)
		r = check_list(&w.items[i], &b.gets[i], e);
	for (size_t i = 0; i < w.n && r == 0; i++) {
		struct apt_origin origin;
		size_t n;

		origin_of(m, &m->lists[i], request->arch, &origin);
		if (b.gets[i].fd >= 0)
			r = pkg_universe_add_list_fd(u, b.gets[i].fd, (int32_t)i, &origin, w.items[i].label, &n, e);
		else
			r = pkg_universe_add_list(u, buf_str(&b.gets[i].bytes), b.gets[i].bytes.len, (int32_t)i, &origin,
				w.items[i].label, &n, e);
		buf_release(&b.gets[i].bytes);
		close_fdp(&b.gets[i].fd);
		if (r == 0)
			progress_update(request->progress, "solve", PROGRESS_ITEMS, i + 1, w.n, w.items[i].label);
	}
	return r;
}

int pkg_metadata_load(struct pkg_metadata *m, const struct pkg_request *request, const struct apt_pins *pins,
	struct pkg_universe *u, struct err *e)
{
	int r = 0;

	for (int attempt = 0; attempt < 2; attempt++) {
		struct err before = *e;

		pkg_universe_init(u, request->arch, pins);
		r = load_releases(m, request, e);
		if (r == 0)
			r = load_lists(m, request, u, e);
		if (r != -EAGAIN)
			return r;
		if (attempt > 0)
			break;
		progress_note(request->progress, "%s; the mirror may be in the middle of an update: once more", e->message);
		*e = before;
		pkg_universe_release(u);
	}
	(void)err_wrap(e, "twice");
	e->code = -EBADMSG;
	return e->code;
}
