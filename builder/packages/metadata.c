#include "builder/packages/metadata.h"
#include "builder/packages/aptconf.h"
#include "builder/packages/deb822.h"
#include "builder/packages/place.h"
#include "lib/io.h"

#include <string.h>
#include <sys/stat.h>

enum {
	ATTEMPTS_MAX = 4, /* of one place whose files do not fit together */
	RETRY_DELAY_MS = 1000,
	RETRY_DELAY_FACTOR = 3
};

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

/* A place without user information. */
static const char *public(const char *place)
{
	const char *scheme = strstr(place, "://"), *at;

	if (!scheme)
		return place;
	at = memrchr(scheme + 3, '@', strcspn(scheme + 3, "/"));
	return at ? at + 1 : place;
}

/* The place in use, likewise. */
static const char *public_place(const struct pkg_archive *a)
{
	return public(a->places.items[a->place]);
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
		pkg_archive_release(&m->archives[i]);
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

static struct pkg_archive *append_archive(struct pkg_metadata *m)
{
	struct pkg_archive *archives = reallocarray(m->archives, m->n_archives + 1, sizeof(*archives)), *a;

	if (!archives)
		return NULL;
	m->archives = archives;
	a = &archives[m->n_archives++];
	*a = (struct pkg_archive){ 0 };
	return a;
}

static int add_archives(struct pkg_metadata *m, const struct pkg_request *request, struct apt_sources *sources,
	const struct strv *host_mirrors, struct err *e)
{
	for (size_t i = 0; i < sources->n + request->n_repositories; i++) {
		struct pkg_archive *a = append_archive(m);
		int r;

		if (!a)
			return out_of_memory(e);
		if (i < sources->n)
			r = pkg_archive_init_source(a, request, &sources->items[i], host_mirrors, e);
		else
			r = pkg_archive_init_repository(a, request, &request->repositories[i - sources->n], host_mirrors, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Note for each archive what says not to look at its Valid-Until. */
static int find_who_ignores_dates(struct pkg_metadata *m, const struct pkg_request *request, struct err *e)
{
	const char *by = request->snapshot ? "" : request->ignore_valid_until ? "[apt] check_valid_until = false" : NULL;
	bool ignored = false;
	int r = 0;

	if (!by && request->host_apt) {
		r = dates_are_ignored(request->host_apt, &ignored, e);
		if (r == 0 && ignored)
			by = "this host's apt, whose mirrors are used (Acquire::Check-Valid-Until)";
	}
	if (r == 0 && !by) {
		r = dates_are_ignored(&request->fs, &ignored, e);
		if (r == 0 && ignored)
			by = "the base's apt (Acquire::Check-Valid-Until)";
	}
	for (size_t i = 0; i < m->n_archives && r == 0; i++)
		m->archives[i].dates_ignored_by = by ? by :
			m->archives[i].source.check_valid_until ? NULL : "the base's sources (Check-Valid-Until)";
	return r;
}

/* A trusted URI that is nobody's is a slip of the pen. */
static void say_what_trust_is_for(const struct pkg_metadata *m, const struct pkg_request *request)
{
	for (size_t i = 0; request->trusted && i < request->trusted->n; i++) {
		const char *uri = request->trusted->items[i];
		bool named = false;

		for (size_t k = 0; k < m->n_archives && !named; k++)
			named = m->archives[k].trusted && pkg_archive_is_named(&m->archives[k], uri);
		if (!named)
			progress_warning(request->progress, "[apt] trusted has `%s`, but neither the base's sources nor the plan's name it",
				public(uri));
	}
}

int pkg_metadata_init(struct pkg_metadata *m, const struct pkg_request *request, struct err *e)
{
	_cleanup_apt_sources_ struct apt_sources sources = { 0 };
	_cleanup_strv_ struct strv host_mirrors = { 0 };
	int r = 0;

	*m = (struct pkg_metadata){ 0 };
	if (request->snapshot)
		r = pkg_snapshot_check(request->snapshot, e);
	if (r == 0 && request->host_apt)
		r = pkg_host_mirrors(request->host_apt, request->arch, &host_mirrors, e);
	if (r == 0)
		r = apt_sources_read(&request->fs, request->arch, &sources, request->progress, e);
	if (r == 0)
		r = add_archives(m, request, &sources, &host_mirrors, e);
	if (r == 0)
		r = find_who_ignores_dates(m, request, e);
	if (r == 0)
		say_what_trust_is_for(m, request);
	if (r < 0)
		pkg_metadata_release(m);
	return r;
}

/* A few files fetched together. */
struct batch {
	struct pkg_get *gets;
	struct strv *urls;
	size_t *owners; /* the archive that each is of */
	char (*labels)[2 * ARCHIVE_LABEL_BYTES];
	size_t n;
};

static int batch_init(struct batch *b, size_t n, struct err *e)
{
	b->n = n;
	b->gets = calloc(n ? n : 1, sizeof(*b->gets));
	b->urls = calloc(n ? n : 1, sizeof(*b->urls));
	b->owners = calloc(n ? n : 1, sizeof(*b->owners));
	b->labels = calloc(n ? n : 1, sizeof(*b->labels));
	if (!b->gets || !b->urls || !b->owners || !b->labels)
		return out_of_memory(e);
	for (size_t i = 0; i < n; i++) {
		b->gets[i].label = b->labels[i];
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
		free(b->gets[i].from);
		strv_release(&b->urls[i]);
	}
	free(b->gets);
	free(b->urls);
	free(b->owners);
	free(b->labels);
	*b = (struct batch){ 0 };
}
#define _cleanup_batch_ _cleanup_(batch_release)

/* Add the file to get i, at the place in use of the archive that owns it, and say what it is. */
static int want_file(struct batch *b, size_t i, const struct pkg_metadata *m, size_t archive, const char *file, size_t max_bytes,
	struct err *e)
{
	char text[ARCHIVE_LABEL_BYTES];

	b->owners[i] = archive;
	buf_init(&b->gets[i].bytes, max_bytes);
	(void)snprintf(b->labels[i], sizeof(b->labels[i]), "%s of %s", file, pkg_archive_describe(&m->archives[archive], text));
	return pkg_archive_add_url(&m->archives[archive], file, &b->urls[i], e);
}

/* One attempt at loading everything, and what went wrong with whose archive. */
struct attempt {
	struct pkg_metadata *m;
	const struct pkg_request *request;
	bool fresh; /* not the first: what caches on the way have is not wanted */
	size_t culprit; /* the archive behind the error; SIZE_MAX: none in particular */
	bool may_pass;	/* its files do not fit together: as a mirror looks while it is updated */
	bool *down;	/* by archive: nothing came from its place */
};

static int blame(struct attempt *t, size_t archive, bool may_pass, int r)
{
	t->culprit = archive;
	t->may_pass = may_pass;
	return r;
}

/* Whether another place may have what this one failed to give. */
static bool is_about_the_place(int r, const struct err *e)
{
	return e->kind == ERR_KIND_INPUT && r != -ENETUNREACH && r != -ECANCELED;
}

/* Whether the bytes came and are wrong. */
static bool are_wrong_bytes(int r)
{
	return r == -EBADMSG || r == -E2BIG;
}

/* Fetch a batch. When it fails, find out whose places are behind it. */
static int fetch(struct attempt *t, struct batch *b, struct err *e)
{
	const struct pkg_transport *transport = &t->request->transport;
	size_t first = b->n;
	int r;

	for (size_t i = 0; i < b->n; i++)
		b->gets[i].fresh = t->fresh;
	r = b->n ? transport->fetch_many(transport->ctx, b->gets, b->n, e) : 0;
	if (r == 0)
		return 0;
	(void)err_default_kind(e, ERR_KIND_INPUT);
	if (!is_about_the_place(r, e))
		return r;
	for (size_t i = b->n; i > 0; i--) {
		int status = b->gets[i - 1].status;

		if (status == 0)
			continue;
		if (status != -ENOENT && !are_wrong_bytes(status))
			t->down[b->owners[i - 1]] = true;
		if (first == b->n || !are_wrong_bytes(status) || are_wrong_bytes(b->gets[first].status))
			first = i - 1;
	}
	return first < b->n ? blame(t, b->owners[first], are_wrong_bytes(b->gets[first].status), r) : r;
}

/* The same where the answers are to be in memory, whatever the transport gives. */
static int fetch_into_memory(struct attempt *t, struct batch *b, struct err *e)
{
	int r = fetch(t, b, e);

	for (size_t i = 0; i < b->n && r == 0; i++) {
		if (b->gets[i].fd < 0)
			continue;
		r = read_fd_to_end(b->gets[i].fd, &b->gets[i].bytes);
		if (r < 0)
			r = err_set_errno(e, r, "cannot read %s", b->gets[i].label ? b->gets[i].label : "a package list");
	}
	return r;
}

/* ---- release files ------------------------------------------------------------------------------------------------- */

/* The release file of an archive without InRelease: Release and Release.gpg. */
static int load_detached(struct attempt *t, size_t archive, struct err *e)
{
	struct pkg_archive *a = &t->m->archives[archive];
	_cleanup_batch_ struct batch b = { 0 };
	char text[ARCHIVE_LABEL_BYTES];
	int r = batch_init(&b, 2, e);

	if (r == 0)
		r = want_file(&b, 0, t->m, archive, "Release", RELEASE_MAX_BYTES, e);
	if (r == 0)
		r = want_file(&b, 1, t->m, archive, "Release.gpg", RELEASE_SIGNATURE_MAX_BYTES, e);
	if (r == 0)
		r = fetch_into_memory(t, &b, e);
	if (r < 0)
		return r;
	(void)pkg_archive_describe(a, text);
	if (b.gets[0].status < 0)
		return blame(t, archive, false, err_set_kind(e, ERR_KIND_INPUT, -ENOENT,
			"%s: %s has neither InRelease nor Release at %s", a->source.where, text, public_place(a)));
	if (b.gets[1].status < 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EKEYREJECTED, "%s: %s is not signed: %s has no InRelease and no "
			"Release.gpg; if its packages are to be taken although nobody vouches for them, list it in [apt] trusted",
			a->source.where, text, public_place(a));
	r = pkg_archive_take_release(a, t->request, &b.gets[0].bytes, &b.gets[1].bytes, b.gets[0].from, e);
	/* Two files that a mirror replaces one after the other: the second look decides. */
	return r == -EKEYREJECTED && !t->fresh ? blame(t, archive, true, r) : r;
}

/* The release file of a trusted archive without Release: InRelease, or none at all. */
static int load_other_unsigned(struct attempt *t, size_t archive, struct err *e)
{
	struct pkg_archive *a = &t->m->archives[archive];
	_cleanup_batch_ struct batch b = { 0 };
	int r = batch_init(&b, 1, e);

	if (r == 0)
		r = want_file(&b, 0, t->m, archive, "InRelease", RELEASE_MAX_BYTES, e);
	if (r == 0)
		r = fetch_into_memory(t, &b, e);
	if (r < 0)
		return r;
	return b.gets[0].status < 0 ? pkg_archive_take_no_release(a, e) :
				      pkg_archive_take_release(a, t->request, &b.gets[0].bytes, NULL, b.gets[0].from, e);
}

static int load_releases(struct attempt *t, struct err *e)
{
	struct pkg_metadata *m = t->m;
	_cleanup_batch_ struct batch b = { 0 };
	int r = batch_init(&b, m->n_archives, e);

	for (size_t i = 0; i < m->n_archives && r == 0; i++)
		r = want_file(&b, i, m, i, m->archives[i].trusted ? "Release" : "InRelease", RELEASE_MAX_BYTES, e);
	if (r == 0)
		r = fetch_into_memory(t, &b, e);
	for (size_t i = 0; i < m->n_archives && r == 0; i++) {
		struct pkg_archive *a = &m->archives[i];

		if (b.gets[i].status == 0)
			r = pkg_archive_take_release(a, t->request, &b.gets[i].bytes, NULL, b.gets[i].from, e);
		else if (a->trusted)
			r = load_other_unsigned(t, i, e);
		/* Not there, or there is no gpgv that could read it: sqv takes detached signatures. */
		if (!a->trusted && (b.gets[i].status < 0 || (r == -ENOENT && e->kind == ERR_KIND_HOST))) {
			err_clear(e);
			r = load_detached(t, i, e);
		}
	}
	return r;
}

/* ---- package lists ------------------------------------------------------------------------------------------------- */

/* A list that is to be fetched. */
struct wanted_list {
	struct digest digest; /* DIGEST_NONE: of a trusted archive without a release file */
	uint64_t size_bytes;
	char label[2 * ARCHIVE_LABEL_BYTES];
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

	*ret = (struct wanted_list){ .size_bytes = 0 };
	if (a->release.text.len == 0) {
		*ret_file = strdup(stem);
		return *ret_file ? 1 : out_of_memory(e);
	}
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
	char text[ARCHIVE_LABEL_BYTES];
	_cleanup_free_ char *file = NULL;
	struct pkg_list *lists;
	int r = find_list(&m->archives[archive], stem, &one, &file, e);

	if (r <= 0)
		return r;
	(void)snprintf(one.label, sizeof(one.label), "%s of %s", stem, pkg_archive_describe(&m->archives[archive], text));
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
	char text[ARCHIVE_LABEL_BYTES];

	(void)pkg_archive_describe(a, text);
	if (pkg_archive_is_flat(a)) {
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

/* Append where a list may be had at the place in use. By its digest first, where the archive keeps it under that name, too: it
 * does not change during an update. Without a release file its form is not known. */
static int add_list_urls(const struct pkg_archive *a, const char *file, const struct wanted_list *w, struct strv *urls,
	struct err *e)
{
	static const char *const forms[] = { ".xz", ".gz", ".bz2", "" };
	_cleanup_free_ char *by_hash = NULL;
	const char *slash = strrchr(file, '/');
	char hex[DIGEST_HEX_SIZE];
	int r = 0;

	for (size_t i = 0; w->digest.algorithm == DIGEST_NONE && i < ARRAY_SIZE(forms) && r == 0; i++) {
		_cleanup_free_ char *form = NULL;

		if (asprintf(&form, "%s%s", file, forms[i]) < 0) {
			form = NULL;
			return out_of_memory(e);
		}
		r = pkg_archive_add_url(a, form, urls, e);
	}
	if (r < 0 || w->digest.algorithm == DIGEST_NONE)
		return r;
	if (a->release.by_hash) {
		if (asprintf(&by_hash, "%.*sby-hash/SHA256/%s", slash ? (int)(slash + 1 - file) : 0, file,
			digest_hex(&w->digest, hex)) < 0) {
			by_hash = NULL;
			return out_of_memory(e);
		}
		r = pkg_archive_add_url(a, by_hash, urls, e);
	}
	return r < 0 ? r : pkg_archive_add_url(a, file, urls, e);
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

/* Check a list against the release file. */
static int check_list(struct attempt *t, size_t archive, const struct wanted_list *w, const struct pkg_get *get,
	struct err *e)
{
	const char *place = get->from ? get->from : public_place(&t->m->archives[archive]);
	struct digest found;
	uint64_t size;
	int r;

	if (get->status < 0 && w->digest.algorithm == DIGEST_NONE)
		return blame(t, archive, false, err_set_kind(e, ERR_KIND_INPUT, -ENOENT,
			"%s is not there, and no Release either, at `%s`", w->label, place));
	if (get->status < 0)
		return blame(t, archive, true, err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"%s is not there, though the release file names it, at `%s`", w->label, place));
	if (w->digest.algorithm == DIGEST_NONE)
		return 0;
	r = measure(get, &size, &found, e);
	if (r < 0)
		return r;
	if (size != w->size_bytes || !digest_equal(&found, &w->digest)) {
		char a[DIGEST_HEX_SIZE], b[DIGEST_HEX_SIZE];

		return blame(t, archive, true, err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"%s does not match the signed release file: %llu bytes with sha256 %s, expected %llu with %s (from `%s`)",
			w->label, (unsigned long long)size, digest_hex(&found, a), (unsigned long long)w->size_bytes,
			digest_hex(&w->digest, b), place));
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

static int fetch_lists(struct attempt *t, const struct wanted_lists *w, struct batch *b, struct err *e)
{
	struct pkg_metadata *m = t->m;
	int r = batch_init(b, w->n, e);

	for (size_t i = 0; i < w->n && r == 0; i++) {
		bool known = w->items[i].digest.algorithm != DIGEST_NONE;

		b->owners[i] = m->lists[i].archive;
		b->gets[i].label = w->items[i].label;
		b->gets[i].expected = known ? &w->items[i].digest : NULL;
		b->gets[i].expected_size_bytes = w->items[i].size_bytes;
		buf_init(&b->gets[i].bytes, known ? (size_t)w->items[i].size_bytes + 1 : LIST_MAX_BYTES);
		r = add_list_urls(&m->archives[b->owners[i]], w->files.items[i], &w->items[i], &b->urls[i], e);
	}
	if (r == 0)
		r = fetch(t, b, e);
	for (size_t i = 0; i < w->n && r == 0; i++)
		r = check_list(t, b->owners[i], &w->items[i], &b->gets[i], e);
	return r;
}

static int load_lists(struct attempt *t, struct pkg_universe *u, struct err *e)
{
	_cleanup_(wanted_release) struct wanted_lists w = { 0 };
	_cleanup_batch_ struct batch b = { 0 };
	const struct pkg_request *request = t->request;
	struct pkg_metadata *m = t->m;
	int r = 0;

	forget_lists(m);
	for (size_t i = 0; i < m->n_archives && r == 0; i++)
		r = want_lists_of(m, i, request, &w, e);
	if (r == 0)
		r = fetch_lists(t, &w, &b, e);
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

/* ---- once more ----------------------------------------------------------------------------------------------------- */

/* How often the place in use of one archive was asked, and what became of the places before it. */
struct asked {
	unsigned attempts;
	char before[ERR_MESSAGE_MAX_BYTES / 2];
};

/* Say that the mirror is asked once more, the first time with what was wrong, and wait. */
static int wait_for_mirror(const struct attempt *t, struct asked *asked, struct err *e)
{
	const struct pkg_request *request = t->request;
	const struct pkg_archive *a = &t->m->archives[t->culprit];
	unsigned pause_ms = request->retry_delay_ms ? request->retry_delay_ms : RETRY_DELAY_MS;

	for (unsigned i = 0; i < asked->attempts; i++)
		pause_ms *= RETRY_DELAY_FACTOR;
	asked->attempts++;
	if (asked->attempts == 1)
		progress_note(request->progress, "%s; the mirror may be in the middle of an update: once more in %g s", e->message,
			pause_ms / 1000.0);
	else
		progress_note(request->progress, "`%s` is still in the middle of an update: once more in %g s", public_place(a),
			pause_ms / 1000.0);
	err_clear(e);
	return request->transport.pause ? request->transport.pause(request->transport.ctx, pause_ms, e) : 0;
}

/* Leave an archive's place for its next one, if there is one. */
static void go_on(struct pkg_archive *a, struct asked *asked, const struct err *why)
{
	if (a->place + 1 == a->places.n)
		return;
	a->place++;
	asked->attempts = 0;
	(void)snprintf(asked->before, sizeof(asked->before), "%.*s", (int)sizeof(asked->before) - 1, why->message);
}

/* An attempt failed. Say whether there is to be another one: 0, or the error. */
static int prepare_next(const struct attempt *t, struct asked *all, struct err *e)
{
	struct pkg_archive *a = &t->m->archives[t->culprit];
	struct asked *asked = &all[t->culprit];

	if (t->may_pass && asked->attempts + 1 < ATTEMPTS_MAX)
		return wait_for_mirror(t, asked, e);
	if (t->may_pass)
		(void)err_wrap(e, "`%s` is in the middle of an update, or what it has was changed (asked %d times, its files do not fit "
			"together; try again later, or use another mirror with --mirror)", public_place(a), ATTEMPTS_MAX);
	if (a->place + 1 < a->places.n) {
		progress_warning(t->request->progress, "%s; going on with `%s`", e->message,
			public(a->places.items[a->place + 1]));
		for (size_t i = 0; i < t->m->n_archives; i++)
			if (i == t->culprit || t->down[i])
				go_on(&t->m->archives[i], &all[i], e);
		err_clear(e);
		return 0;
	}
	if (asked->before[0])
		(void)err_wrap(e, "%s; and then", asked->before);
	return e->code;
}

static void say_what_nobody_vouches_for(const struct pkg_metadata *m, struct progress *progress)
{
	char text[ARCHIVE_LABEL_BYTES];

	for (size_t i = 0; i < m->n_archives; i++)
		if (m->archives[i].trusted)
			progress_warning(progress, "nobody vouches for the packages of %s (from `%s`): they are taken because [apt] trusted "
				"lists it, and the lock pins what came", pkg_archive_describe(&m->archives[i], text),
				public_place(&m->archives[i]));
}

int pkg_metadata_load(struct pkg_metadata *m, const struct pkg_request *request, const struct apt_pins *pins,
	struct pkg_universe *u, struct err *e)
{
	_cleanup_free_ struct asked *asked = calloc(m->n_archives + 1, sizeof(*asked));
	_cleanup_free_ bool *down = calloc(m->n_archives + 1, sizeof(*down));
	struct attempt t = { .m = m, .request = request, .down = down };
	int r;

	if (!asked || !down)
		return out_of_memory(e);
	for (;; t.fresh = true) {
		t.culprit = SIZE_MAX;
		memset(down, 0, m->n_archives * sizeof(*down));
		pkg_universe_init(u, request->arch, pins);
		r = load_releases(&t, e);
		if (r == 0)
			r = load_lists(&t, u, e);
		if (r == 0 || t.culprit == SIZE_MAX)
			break;
		r = prepare_next(&t, asked, e);
		if (r < 0)
			break;
		pkg_universe_release(u);
	}
	if (r == 0)
		say_what_nobody_vouches_for(m, request->progress);
	return r;
}
