#include "builder/packages/packages.h"
#include "builder/packages/aptconf.h"
#include "builder/packages/deb.h"
#include "builder/packages/keep.h"
#include "builder/packages/metadata.h"
#include "builder/packages/relation.h"

#include <string.h>

enum { KERNEL_STEPS_MAX = 8, STATUS_MAX_BYTES = 64 << 20, NEAREST_NAMES = 3, LISTED_MAX = 6 };

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

void pkg_item_release(struct pkg_item *item)
{
	free(item->name);
	free(item->version);
	free(item->arch);
	free(item->replaces_version);
	free(item->filename);
	free(item->archive);
	free(item->suite);
	strv_release(&item->uris);
	*item = (struct pkg_item){ 0 };
}

void pkg_set_release(struct pkg_set *set)
{
	for (size_t i = 0; i < set->n_items; i++)
		pkg_item_release(&set->items[i]);
	for (size_t i = 0; i < set->n_kernel_items; i++)
		pkg_item_release(&set->kernel_items[i]);
	for (size_t i = 0; i < set->n_removals; i++) {
		free(set->removals[i].name);
		free(set->removals[i].version);
		free(set->removals[i].arch);
		free(set->removals[i].because);
	}
	for (size_t i = 0; i < set->n_releases; i++) {
		free(set->releases[i].archive);
		free(set->releases[i].suite);
		strv_release(&set->releases[i].signers);
	}
	free(set->items);
	free(set->kernel_items);
	free(set->removals);
	free(set->releases);
	for (size_t i = 0; i < set->n_keyrings; i++)
		free(set->keyrings[i].path);
	free(set->keyrings);
	*set = (struct pkg_set){ 0 };
}

/* Everything one resolution works on. */
struct resolution {
	const struct pkg_request *request;
	struct apt_pins pins;
	struct pkg_metadata metadata;
	struct pkg_universe universe;
	struct pkg_marks marks;
	struct pkg_keeping keeping;
	uint32_t *local_versions; /* by local deb */
};

static void resolution_release(struct resolution *s)
{
	pkg_keeping_release(&s->keeping);
	pkg_marks_release(&s->marks);
	pkg_universe_release(&s->universe);
	pkg_metadata_release(&s->metadata);
	apt_pins_release(&s->pins);
	free(s->local_versions);
}

static int read_pins(struct resolution *s, struct err *e)
{
	int r = apt_pins_read(&s->request->fs, &s->pins, e);

	return r < 0 ? r : apt_config_read(&s->request->fs, "APT::Default-Release", &s->pins.target_release, e);
}

/* Enter the .debs of the plan. Their lists' numbers come behind those of the repositories. */
static int add_local_debs(struct resolution *s, struct err *e)
{
	const struct pkg_request *q = s->request;

	s->local_versions = calloc(q->n_debs ? q->n_debs : 1, sizeof(*s->local_versions));
	if (!s->local_versions)
		return out_of_memory(e);
	for (size_t i = 0; i < q->n_debs; i++) {
		_cleanup_buf_ struct buf control = BUF_INIT(DEB_CONTROL_MAX_BYTES);
		struct deb822_reader reader;
		struct deb822_stanza stanza;
		int r = deb_read_control(q->debs[i].fd, &control, e);

		if (r < 0)
			return err_wrap(e, "reading the package `%s`", q->debs[i].label);
		deb822_reader_init(&reader, buf_str(&control), control.len, q->debs[i].label);
		r = deb822_next(&reader, &stanza, e);
		if (r == 0)
			r = err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "`%s` has an empty control file", q->debs[i].label);
		if (r > 0)
			r = pkg_universe_add_local(&s->universe, &stanza, (int32_t)(s->metadata.n_lists + i), q->debs[i].label,
				q->debs[i].size_bytes, &q->debs[i].sha256, q->debs[i].label, &s->local_versions[i], e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_status(struct resolution *s, struct err *e)
{
	static const char path[] = "/var/lib/dpkg/status";
	_cleanup_buf_ struct buf status = BUF_INIT(STATUS_MAX_BYTES);
	int r = s->request->fs.read_file(s->request->fs.ctx, path, &status, e);

	if (r == -ENOENT)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOENT, "the base image has no `%s`: it is no Debian or Ubuntu system, so "
			"[packages] and [apt] cannot be used with it", path);
	if (r < 0)
		return err_wrap(e, "reading the base image's `%s`", path);
	return pkg_universe_add_status(&s->universe, buf_str(&status), status.len, path, e);
}

/* "name", "name:arch", "name=version" in any mixture. */
struct wish {
	const char *name;
	size_t name_len;
	const char *version; /* NULL: the candidate */
};

static int parse_wish(const char *text, enum arch arch, struct wish *ret, struct err *e)
{
	const char *equals = strchr(text, '='), *end = equals ? equals : text + strlen(text);
	const char *colon = memchr(text, ':', (size_t)(end - text));

	*ret = (struct wish){ .name = text, .name_len = (size_t)((colon ? colon : end) - text) };
	if (colon) {
		size_t len = (size_t)(end - colon - 1);
		const char *native = arch_name(arch);

		if (!(len == strlen(native) && memcmp(colon + 1, native, len) == 0) &&
			!(len == 6 && memcmp(colon + 1, "native", 6) == 0) && !(len == 3 && memcmp(colon + 1, "all", 3) == 0) &&
			!(len == 3 && memcmp(colon + 1, "any", 3) == 0))
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%.200s` asks for a foreign architecture; packages can "
				"only be had for %s here", text, native);
	}
	if (equals)
		ret->version = equals + 1;
	if (!deb_package_name_valid(ret->name, ret->name_len) ||
		(equals && !deb_version_valid(ret->version, strlen(ret->version))))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"`%.200s` is no package; write `name`, `name=version` or `name:%s`", text, arch_name(arch));
	return 0;
}

/* Find the version a wish asks for by number. */
static int find_version(struct resolution *s, uint32_t name, const char *version, struct err *e)
{
	struct pkg_universe *u = &s->universe;
	char listed[512] = "";
	unsigned n = 0;

	for (uint32_t v = u->names[name].first; v != UNIVERSE_NONE; v = u->versions[v].next) {
		size_t used = strlen(listed);

		if (strcmp(u->versions[v].version, version) == 0) {
			pkg_keeping_drop(&s->keeping, name);
			return pkg_universe_set_candidate(u, v, e);
		}
		if (n++ < LISTED_MAX)
			(void)snprintf(listed + used, sizeof(listed) - used, "%s%s", used ? ", " : "", u->versions[v].version);
	}
	return err_set_kind(e, ERR_KIND_USAGE, -ENOENT, "no source has `%s` in version %s; there is %s%s",
		u->names[name].text, version, n ? listed : "none", n > LISTED_MAX ? " and more" : "");
}

/* A name that only others provide: apt takes the one package that does, when it is one. */
static int find_only_provider(struct resolution *s, uint32_t name, uint32_t *ret, struct err *e)
{
	const struct pkg_universe *u = &s->universe;
	const struct pkg_name *n = &u->names[name];
	uint32_t only = UNIVERSE_NONE;
	char listed[512] = "";
	unsigned count = 0;

	for (uint32_t i = 0; i < n->n_providers; i++) {
		uint32_t owner = u->versions[n->providers[i].version].name;
		size_t used = strlen(listed);

		if (u->names[owner].candidate != n->providers[i].version || owner == only)
			continue;
		only = owner;
		if (count++ < LISTED_MAX)
			(void)snprintf(listed + used, sizeof(listed) - used, "%s`%s`", used ? ", " : "", u->names[owner].text);
	}
	if (count == 1) {
		*ret = only;
		return 0;
	}
	if (count == 0)
		return -ENOENT;
	return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s` is a virtual package; name one that provides it: %s%s", n->text,
		listed, count > LISTED_MAX ? " or another" : "");
}

/* Add "`x` (did you mean `y`?)" to a list of what is missing. */
static int note_missing(struct resolution *s, const struct wish *w, struct buf *missing, struct err *e)
{
	_cleanup_free_ char *name = strndup(w->name, w->name_len);
	_cleanup_strv_ struct strv near = { 0 };

	if (!name || pkg_universe_nearest(&s->universe, name, NEAREST_NAMES, &near) < 0 ||
		buf_appendf(missing, "%s`%s`", missing->len ? ", " : "", name) < 0)
		return out_of_memory(e);
	for (size_t i = 0; i < near.n; i++)
		if (buf_appendf(missing, "%s`%s`", i == 0 ? " (did you mean " : i + 1 < near.n ? ", " : " or ", near.items[i]) < 0)
			return out_of_memory(e);
	return near.n && buf_append_str(missing, "?)") < 0 ? out_of_memory(e) : 0;
}

/* Turn a wish into a name with a candidate. Returns 0 with *ret, 1 when there is no such package, negative. */
static int find_wished(struct resolution *s, const struct wish *w, uint32_t *ret, struct err *e)
{
	struct pkg_universe *u = &s->universe;
	uint32_t name = pkg_universe_find(u, w->name, w->name_len);
	int r;

	if (name == UNIVERSE_NONE)
		return 1;
	if (u->names[name].first == UNIVERSE_NONE) {
		r = w->version ? -ENOENT : find_only_provider(s, name, ret, e);
		return r == -ENOENT ? 1 : r;
	}
	if (w->version) {
		r = find_version(s, name, w->version, e);
		if (r < 0)
			return r;
	}
	if (u->names[name].candidate == UNIVERSE_NONE)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOENT,
			"`%s` is there, but the preferences of the base image (/etc/apt/preferences*) let no version of it in",
			u->names[name].text);
	*ret = name;
	return 0;
}

/* Find all that is asked for; all that is missing is said at once. Candidates are fixed here, before marking. */
static int find_requests(struct resolution *s, uint32_t *names, size_t *ret_n, struct err *e)
{
	const struct pkg_request *q = s->request;
	_cleanup_buf_ struct buf missing = BUF_INIT(16384);
	size_t n = 0, n_missing = 0;

	for (size_t i = 0; i < q->n_debs; i++) {
		if (pkg_universe_set_candidate(&s->universe, s->local_versions[i], e) < 0)
			return e->code;
		names[n++] = s->universe.versions[s->local_versions[i]].name;
		pkg_keeping_drop(&s->keeping, names[n - 1]);
	}
	for (size_t i = 0; q->install && i < q->install->n; i++) {
		struct wish w;
		int r = parse_wish(q->install->items[i], q->arch, &w, e);

		if (r == 0)
			r = find_wished(s, &w, &names[n], e);
		if (r < 0)
			return r;
		if (r == 0)
			n++;
		else if (n_missing++ < LISTED_MAX && note_missing(s, &w, &missing, e) < 0)
			return e->code;
	}
	if (n_missing)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOENT, "no source has the package%s %s%s", n_missing > 1 ? "s" : "",
			buf_str(&missing), n_missing > LISTED_MAX ? ", and more" : "");
	*ret_n = n;
	return 0;
}

/* Take note of what is to go out, and refuse what may not. */
static int find_removals(struct resolution *s, struct err *e)
{
	const struct strv *remove = s->request->remove;

	for (size_t i = 0; remove && i < remove->n; i++) {
		struct wish w;
		uint32_t name;
		int r = parse_wish(remove->items[i], s->request->arch, &w, e);

		if (r < 0)
			return r;
		name = pkg_universe_find(&s->universe, w.name, w.name_len);
		if (name == UNIVERSE_NONE || s->universe.names[name].installed == UNIVERSE_NONE)
			progress_note(s->request->progress, "[apt] remove: `%s` is not in the base image", remove->items[i]);
		if (name == UNIVERSE_NONE)
			continue;
		if (pkg_marks_is_vital(&s->marks, name))
			return err_set_kind(e, ERR_KIND_USAGE, -EPERM, "[apt] remove names `%s`, which the image cannot do without "
				"(Essential, Protected, held, or its init)", s->universe.names[name].text);
		if (name < s->marks.n && s->marks.marks[name].requested)
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s` is both in [packages] and in [apt] remove",
				s->universe.names[name].text);
		pkg_marks_unwant(&s->marks, name);
	}
	return 0;
}

/* The same version as a file that can be fetched. */
static uint32_t find_file(const struct pkg_universe *u, uint32_t version)
{
	const struct pkg_version *v = &u->versions[version];

	if (v->filename)
		return version;
	for (uint32_t i = u->names[v->name].first; i != UNIVERSE_NONE; i = u->versions[i].next)
		if (u->versions[i].filename && strcmp(u->versions[i].version, v->version) == 0)
			return i;
	return UNIVERSE_NONE;
}

/* Replace a string by a copy. Returns false when out of memory. */
static bool replace(char **text, const char *by)
{
	free(*text);
	*text = strdup(by);
	return *text != NULL;
}

/* What no list has any more is described as the earlier answer did: who vouched for it, and where it was. */
static int take_hints(const struct pkg_kept *kept, struct pkg_item *item, struct err *e)
{
	if (!kept->filename || !kept->archive || !kept->suite)
		return 0;
	item->release_sha256 = kept->release_sha256;
	item->release_date = kept->release_date;
	if (!replace(&item->filename, kept->filename) || !replace(&item->archive, kept->archive) ||
		!replace(&item->suite, kept->suite))
		return out_of_memory(e);
	return 0;
}

/* Describe a version for the caller. */
static int make_item(const struct resolution *s, uint32_t version, struct pkg_item *ret, struct err *e)
{
	const struct pkg_universe *u = &s->universe;
	const struct pkg_version *v = &u->versions[version];
	const struct pkg_name *name = &u->names[v->name];
	const struct pkg_kept *kept = pkg_keeping_find(&s->keeping, version);
	size_t list = (size_t)v->list, n_lists = s->metadata.n_lists;
	bool local = list >= n_lists && list < n_lists + s->request->n_debs;
	bool superseded = list >= n_lists && !local;
	const struct pkg_archive *a = list < n_lists ? &s->metadata.archives[s->metadata.lists[list].archive] :
				      superseded      ? pkg_kept_archive(kept, &s->metadata) :
							NULL;
	const char *component = list < n_lists ? s->metadata.lists[list].component : "";
	bool upgrade = name->installed != UNIVERSE_NONE;
	char filename[2048];

	if (pkg_universe_filename(u, version, component, filename, sizeof(filename)) < 0)
		return err_set_kind(e, ERR_KIND_INPUT, -ENAMETOOLONG, "the file name of `%s` is too long", name->text);
	*ret = (struct pkg_item){ .size_bytes = v->size_bytes, .local_deb = local ? (long)(list - n_lists) : -1 };
	ret->sha256.algorithm = DIGEST_SHA256;
	memcpy(ret->sha256.bytes, v->sha256, sizeof(v->sha256));
	if (a) {
		ret->release_sha256 = a->release.sha256;
		ret->release_date = a->release.date;
	}
	ret->name = strdup(name->text);
	ret->version = strdup(v->version);
	ret->arch = strdup(v->all ? "all" : arch_name(u->arch));
	ret->replaces_version = upgrade ? strdup(u->versions[name->installed].version) : NULL;
	ret->filename = strdup(filename);
	ret->archive = strdup(a ? a->archive : "");
	ret->suite = strdup(a ? a->source.suite : "");
	ret->requested = v->name < s->marks.n && s->marks.marks[v->name].requested;
	if (!ret->name || !ret->version || !ret->arch || (upgrade && !ret->replaces_version) || !ret->filename ||
		!ret->archive || !ret->suite)
		goto fail;
	for (size_t i = 0; a && i < a->places.n; i++)
		if (strv_addf(&ret->uris, "%s/%s", a->places.items[i], filename) < 0)
			goto fail;
	if (superseded && take_hints(kept, ret, e) < 0)
		goto fail;
	return 0;
fail:
	pkg_item_release(ret);
	return out_of_memory(e);
}

static int append_item(const struct resolution *s, uint32_t version, struct pkg_item **items, size_t *n, struct err *e)
{
	struct pkg_item *more = reallocarray(*items, *n + 1, sizeof(*more));
	int r;

	if (!more)
		return out_of_memory(e);
	*items = more;
	r = make_item(s, version, &more[*n], e);
	if (r == 0)
		(*n)++;
	return r;
}

/* Why an installed package is not among the targets, and because of whom. */
static int find_reason(struct resolution *s, uint32_t name, enum pkg_removal_reason *ret, const char **ret_because,
	struct err *e)
{
	struct pkg_universe *u = &s->universe;
	const struct pkg_marks *m = &s->marks;
	uint32_t installed = u->names[name].installed;
	const struct pkg_relations *own = pkg_universe_relations(u, installed, e);

	if (!own)
		return e->code;
	*ret_because = "";
	if (m->marks[name].unwanted) {
		*ret = PKG_REMOVAL_ASKED;
		return 0;
	}
	*ret = PKG_REMOVAL_CONFLICT;
	for (size_t i = 0; i < m->n_present; i++) {
		uint32_t other = m->present[i], target = pkg_marks_target(m, other);
		const struct pkg_relations *theirs;

		if (target == UNIVERSE_NONE || other == name || u->names[other].installed == target)
			continue;
		theirs = pkg_universe_relations(u, target, e);
		if (!theirs)
			return e->code;
		for (int side = 0; side < 2; side++) {
			const struct pkg_relations *r = side ? own : theirs;

			for (size_t k = 0; k < r->n_deps; k++)
				if (r->deps[k].kind >= PKG_DEP_CONFLICTS &&
					pkg_universe_satisfies(u, side ? target : installed,
						&r->alternatives[r->deps[k].first])) {
					*ret_because = u->names[other].text;
					return 0;
				}
		}
	}
	*ret = PKG_REMOVAL_DEPENDS;
	for (size_t k = 0; k < own->n_deps; k++) {
		uint32_t was = UNIVERSE_NONE;
		bool served = false;

		if (own->deps[k].kind > PKG_DEP_DEPENDS)
			continue;
		for (uint32_t i = 0; i < own->deps[k].n; i++)
			served |= pkg_marks_find_present(m, &own->alternatives[own->deps[k].first + i]) != UNIVERSE_NONE;
		if (!served)
			was = pkg_marks_find_installed(m, own, &own->deps[k]);
		if (was != UNIVERSE_NONE) {
			*ret_because = u->names[u->versions[was].name].text;
			return 0;
		}
	}
	return 0;
}

static int append_removal(struct resolution *s, uint32_t name, struct pkg_set *set, struct err *e)
{
	struct pkg_removal *more = reallocarray(set->removals, set->n_removals + 1, sizeof(*more)), *one;
	const struct pkg_version *v = &s->universe.versions[s->universe.names[name].installed];
	const char *because;

	if (!more)
		return out_of_memory(e);
	set->removals = more;
	one = &more[set->n_removals];
	*one = (struct pkg_removal){ 0 };
	if (find_reason(s, name, &one->reason, &because, e) < 0)
		return e->code;
	set->n_removals++;
	one->name = strdup(s->universe.names[name].text);
	one->version = strdup(v->version);
	one->arch = strdup(v->all ? "all" : arch_name(s->universe.arch));
	one->because = strdup(because);
	return one->name && one->version && one->arch && one->because ? 0 : out_of_memory(e);
}

static int item_order(const void *a, const void *b)
{
	const struct pkg_item *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : strcmp(x->arch, y->arch);
}

static int removal_order(const void *a, const void *b)
{
	const struct pkg_removal *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	return c ? c : strcmp(x->arch, y->arch);
}

/* What changes against the base. */
static int collect_changes(struct resolution *s, struct pkg_set *set, struct err *e)
{
	const struct pkg_universe *u = &s->universe;

	for (uint32_t name = 0; name < s->marks.n; name++) {
		uint32_t installed = u->names[name].installed, target = s->marks.marks[name].target;
		int r = 0;

		if (target == installed)
			continue;
		if (target != UNIVERSE_NONE)
			r = append_item(s, target, &set->items, &set->n_items, e);
		else
			r = append_removal(s, name, set, e);
		if (r < 0)
			return r;
	}
	if (set->n_items)
		qsort(set->items, set->n_items, sizeof(*set->items), item_order);
	if (set->n_removals)
		qsort(set->removals, set->n_removals, sizeof(*set->removals), removal_order);
	return 0;
}

static int keyring_order(const void *a, const void *b)
{
	const struct pkg_keyring *x = a, *y = b;
	int c = strcmp(x->path, y->path);

	return c ? c : memcmp(x->sha256.bytes, y->sha256.bytes, DIGEST_MAX_BYTES);
}

/* The "sha256  label" of key files, several times where several archives use one. */
static int collect_keyrings(struct strv *labels, struct pkg_set *set, struct err *e)
{
	strv_sort(labels);
	strv_uniq(labels);
	set->keyrings = calloc(labels->n + 1, sizeof(*set->keyrings));
	if (!set->keyrings)
		return out_of_memory(e);
	for (size_t i = 0; i < labels->n; i++) {
		struct pkg_keyring *k = &set->keyrings[i];
		char hex[DIGEST_SHA256_HEX_SIZE];

		(void)snprintf(hex, sizeof(hex), "%s", labels->items[i]);
		if (strlen(labels->items[i]) < sizeof(hex) + 1 || digest_parse_hex(DIGEST_SHA256, hex, &k->sha256) < 0)
			return err_set_kind(e, ERR_KIND_DEFECT, -EINVAL, "the key file `%s` has no digest", labels->items[i]);
		k->path = strdup(labels->items[i] + sizeof(hex) + 1);
		if (!k->path)
			return out_of_memory(e);
		set->n_keyrings++;
	}
	qsort(set->keyrings, set->n_keyrings, sizeof(*set->keyrings), keyring_order);
	return 0;
}

static int collect_releases(const struct resolution *s, struct pkg_set *set, struct err *e)
{
	_cleanup_strv_ struct strv labels = { 0 };

	set->releases = calloc(s->metadata.n_archives ? s->metadata.n_archives : 1, sizeof(*set->releases));
	if (!set->releases)
		return out_of_memory(e);
	for (size_t i = 0; i < s->metadata.n_archives; i++) {
		const struct pkg_archive *a = &s->metadata.archives[i];
		struct pkg_release_used *one = &set->releases[set->n_releases++];

		one->archive = strdup(a->archive);
		one->suite = strdup(a->source.suite);
		one->sha256 = a->release.sha256;
		one->date = a->release.date;
		if (!one->archive || !one->suite || strv_extend(&one->signers, &a->release.signers) < 0 ||
			strv_extend(&labels, &a->keyring.labels) < 0)
			return out_of_memory(e);
	}
	return collect_keyrings(&labels, set, e);
}

static bool begins_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* A package that has the kernel itself: its name goes on with the release ("linux-image-6.1.0-39-cloud-amd64"). */
static bool is_real_kernel(const char *name)
{
	static const char *const stems[] = { "linux-image-", "linux-image-unsigned-" };

	for (size_t i = 0; i < ARRAY_SIZE(stems); i++)
		if (begins_with(name, stems[i]) && name[strlen(stems[i])] >= '0' && name[strlen(stems[i])] <= '9')
			return true;
	return false;
}

/* A dependency's candidate whose name begins like that; the first one. */
static int find_dependency(struct resolution *s, uint32_t version, const char *prefix, uint32_t *ret, struct err *e)
{
	struct pkg_universe *u = &s->universe;
	const struct pkg_relations *r = pkg_universe_relations(u, version, e);

	if (!r)
		return e->code;
	*ret = UNIVERSE_NONE;
	for (size_t i = 0; i < r->n_deps && *ret == UNIVERSE_NONE; i++) {
		for (uint32_t k = 0; k < r->deps[i].n && r->deps[i].kind <= PKG_DEP_DEPENDS; k++) {
			const struct pkg_alternative *a = &r->alternatives[r->deps[i].first + k];
			uint32_t candidate = u->names[a->name].candidate;

			if (!begins_with(u->names[a->name].text, prefix) || candidate == UNIVERSE_NONE ||
				!pkg_universe_satisfies(u, candidate, a))
				continue;
			*ret = candidate;
			break;
		}
	}
	return 0;
}

static int add_kernel_item(const struct resolution *s, uint32_t version, struct pkg_set *set, struct err *e)
{
	uint32_t file = find_file(&s->universe, version);
	const char *name = s->universe.names[s->universe.versions[version].name].text;

	if (file == UNIVERSE_NONE)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "`%s` %s is in the base image, but no source has its file", name,
			s->universe.versions[version].version);
	for (size_t i = 0; i < set->n_kernel_items; i++)
		if (strcmp(set->kernel_items[i].name, name) == 0)
			return 0;
	return append_item(s, file, &set->kernel_items, &set->n_kernel_items, e);
}

/* Say whether two kernels are of one kind: their names are equal but for the numbers. */
static bool same_flavour(const char *a, const char *b)
{
	static const char numbers[] = "0123456789.+~";

	for (;;) {
		a += strspn(a, numbers);
		b += strspn(b, numbers);
		if (*a != *b || !*a)
			return *a == *b;
		a++;
		b++;
	}
}

/* Describe a package of the earlier answer that need not be looked into. */
static int make_kept_item(const struct resolution *s, const struct pkg_kept *kept, struct pkg_item *ret, struct err *e)
{
	const struct pkg_archive *a = pkg_kept_archive(kept, &s->metadata);

	*ret = (struct pkg_item){ .size_bytes = kept->size_bytes,
		.sha256 = kept->sha256,
		.release_sha256 = kept->release_sha256,
		.release_date = kept->release_date,
		.local_deb = -1,
		.name = strdup(kept->name),
		.version = strdup(kept->version),
		.arch = strdup(kept->arch),
		.filename = strdup(kept->filename ? kept->filename : ""),
		.archive = strdup(kept->archive ? kept->archive : ""),
		.suite = strdup(kept->suite ? kept->suite : "") };
	if (!ret->name || !ret->version || !ret->arch || !ret->filename || !ret->archive || !ret->suite)
		goto fail;
	for (size_t i = 0; a && kept->filename && i < a->places.n; i++)
		if (strv_addf(&ret->uris, "%s/%s", a->places.items[i], kept->filename) < 0)
			goto fail;
	return 0;
fail:
	pkg_item_release(ret);
	return out_of_memory(e);
}

static uint32_t find_listed(const struct pkg_universe *u, const struct pkg_kept *kept)
{
	uint32_t name = pkg_universe_find(u, kept->name, strlen(kept->name));

	return name == UNIVERSE_NONE ? name : pkg_universe_find_file(u, name, kept->version, &kept->sha256);
}

/* Say whether each kernel package of the earlier answer is in a list, or its .deb can be had. Returns 1, 0 or negative. */
static int can_keep_kernel(const struct resolution *s, struct err *e)
{
	const struct pkg_keep *keep = s->request->keep;
	const struct pkg_universe *u = &s->universe;

	for (size_t i = 0; i < keep->n_kernel_items; i++) {
		const struct pkg_kept *kept = &keep->kernel_items[i];
		int fd = -1, r = 0;

		if (strcmp(kept->arch, "all") != 0 && strcmp(kept->arch, arch_name(u->arch)) != 0)
			return 0;
		if (find_listed(u, kept) != UNIVERSE_NONE)
			continue;
		if (pkg_kept_is_vouched(kept, pkg_kept_archive(kept, &s->metadata)) && keep->open_debs)
			r = keep->open_debs(keep->ctx, &kept, 1, &fd, e);
		if (r < 0)
			return r;
		if (fd < 0)
			return 0;
		(void)close(fd);
	}
	return 1;
}

/* Take the kernel of the earlier answer when it is of the same kind. Returns 1 when it is taken, 0 or negative. */
static int keep_kernel(struct resolution *s, uint32_t version, struct pkg_set *set, struct err *e)
{
	const struct pkg_keep *keep = s->request->keep;
	const char *name = s->universe.names[s->universe.versions[version].name].text;
	int r;

	if (!keep || keep->n_kernel_items == 0 || !same_flavour(keep->kernel_items[0].name, name))
		return 0;
	r = can_keep_kernel(s, e);
	if (r == 0)
		progress_note(s->request->progress,
			"the kernel moves from `%s` %s to `%s` %s: the old one can be had nowhere, or who vouched for it may be "
			"trusted no more", keep->kernel_items[0].name, keep->kernel_items[0].version, name,
			s->universe.versions[version].version);
	if (r <= 0)
		return r;
	set->kernel_items = calloc(keep->n_kernel_items, sizeof(*set->kernel_items));
	if (!set->kernel_items)
		return out_of_memory(e);
	for (size_t i = 0; i < keep->n_kernel_items; i++) {
		const struct pkg_kept *kept = &keep->kernel_items[i];
		uint32_t listed = find_listed(&s->universe, kept);

		r = listed == UNIVERSE_NONE ? make_kept_item(s, kept, &set->kernel_items[i], e) :
					      make_item(s, listed, &set->kernel_items[i], e);
		if (r < 0)
			return r;
		set->n_kernel_items++;
	}
	return 1;
}

/* Follow a meta package to the kernel, then add the packages its modules are in. */
static int find_kernel(struct resolution *s, struct pkg_set *set, struct err *e)
{
	struct pkg_universe *u = &s->universe;
	uint32_t chain[KERNEL_STEPS_MAX], name = UNIVERSE_NONE, version, next;
	size_t n = 0;
	struct wish w;
	int r = parse_wish(s->request->kernel_package, s->request->arch, &w, e);

	if (r == 0)
		r = find_wished(s, &w, &name, e);
	if (r < 0)
		return err_wrap(e, "finding the kernel package");
	if (r > 0) {
		_cleanup_buf_ struct buf missing = BUF_INIT(4096);

		return note_missing(s, &w, &missing, e) < 0 ? e->code :
							      err_set_kind(e, ERR_KIND_USAGE, -ENOENT,
								      "no source has the kernel package %s", buf_str(&missing));
	}
	version = u->names[name].candidate;
	for (;;) {
		if (n == KERNEL_STEPS_MAX)
			return err_set_kind(e, ERR_KIND_USAGE, -ELOOP, "`%s` leads from one package to the next without coming to a "
				"kernel", s->request->kernel_package);
		/* The file's own word counts, also where the base has that version. */
		next = find_file(u, version);
		if (next != UNIVERSE_NONE)
			version = next;
		chain[n++] = version;
		if (is_real_kernel(u->names[u->versions[version].name].text))
			break;
		r = find_dependency(s, version, "linux-image", &next, e);
		if (r < 0)
			return r;
		if (next == UNIVERSE_NONE)
			break; /* a kernel under a name of its own */
		version = next;
	}
	r = w.version ? 0 : keep_kernel(s, version, set, e);
	if (r != 0)
		return r < 0 ? r : 0;
	r = add_kernel_item(s, version, set, e);
	for (size_t i = n; i-- > 0 && r == 0;) {
		r = find_dependency(s, chain[i], "linux-modules-", &next, e);
		if (r == 0 && next != UNIVERSE_NONE)
			r = add_kernel_item(s, next, set, e);
	}
	return r;
}

static int load(struct resolution *s, struct err *e)
{
	int r = read_pins(s, e);

	if (r == 0)
		r = pkg_metadata_init(&s->metadata, s->request, e);
	if (r == 0)
		r = pkg_metadata_load(&s->metadata, s->request, &s->pins, &s->universe, e);
	if (r == 0)
		r = add_local_debs(s, e);
	if (r == 0)
		r = add_status(s, e);
	if (r == 0)
		r = pkg_keeping_load(&s->keeping, s->request->keep, &s->metadata, &s->universe,
			(int32_t)(s->metadata.n_lists + s->request->n_debs), s->request->progress, e);
	if (r == 0)
		r = pkg_universe_finish(&s->universe, e);
	return r < 0 ? r : pkg_keeping_apply(&s->keeping, e);
}

static int resolve(struct resolution *s, struct pkg_set *set, struct err *e)
{
	const struct pkg_request *q = s->request;
	size_t n_max = q->n_debs + (q->install ? q->install->n : 0), n = 0;
	_cleanup_free_ uint32_t *names = calloc(n_max ? n_max : 1, sizeof(*names));
	int r;

	if (!names)
		return out_of_memory(e);
	r = load(s, e);
	if (r == 0)
		r = find_requests(s, names, &n, e);
	if (r == 0)
		r = pkg_marks_init(&s->marks, &s->universe, q->recommends, e);
	for (size_t i = 0; i < n && r == 0; i++)
		r = pkg_marks_request(&s->marks, names[i], e);
	if (r == 0)
		r = find_removals(s, e);
	if (r == 0)
		r = pkg_keeping_choose(&s->keeping, &s->marks, e);
	if (r == 0)
		r = collect_changes(s, set, e);
	if (r == 0)
		r = collect_releases(s, set, e);
	if (r == 0 && q->kernel_package)
		r = find_kernel(s, set, e);
	return r;
}

int pkg_resolve(const struct pkg_request *request, struct pkg_set *ret, struct err *e)
{
	_cleanup_(resolution_release) struct resolution s = { .request = request };
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	int r;

	r = resolve(&s, &set, e);
	if (r < 0)
		return r;
	*ret = set;
	set = (struct pkg_set){ 0 };
	return 0;
}
