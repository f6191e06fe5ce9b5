#include "builder/packages/keep.h"
#include "builder/packages/deb.h"
#include "builder/packages/solve.h"

#include <string.h>

enum { RESTORE_ROUNDS_MAX = 3 };

/* Why a version of the earlier answer does not stay. */
enum keep_reason { KEEP_STAYS = 0, KEEP_NOWHERE, KEEP_NO_SOURCE, KEEP_UNSIGNED, KEEP_OTHER_KEY, KEEP_FORBIDDEN, KEEP_NEEDED,
	KEEP_CONFLICT, KEEP_TOGETHER };

struct keep_entry {
	const struct pkg_kept *item; /* NULL: it is about what the base has */
	uint32_t name;
	uint32_t version;   /* UNIVERSE_NONE: it cannot be kept */
	uint32_t otherwise; /* the candidate without keeping; UNIVERSE_NONE: there is none */
	bool removed;	    /* it went out of the base then: no newer version of it comes in its place */
	bool fixed;	    /* the request says the version */
	bool moved;
	enum keep_reason reason;
	struct pkg_obstacle obstacle;
};

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

void pkg_keeping_release(struct pkg_keeping *k)
{
	free(k->entries);
	free(k->removed_freely);
	*k = (struct pkg_keeping){ 0 };
}

/* Behind "http://" or "https://": an archive is the same one by either. */
static const char *without_scheme(const char *uri)
{
	return strncmp(uri, "http", 4) == 0 ? uri + strcspn(uri, ":") : uri;
}

const struct pkg_archive *pkg_kept_archive(const struct pkg_kept *item, const struct pkg_metadata *metadata)
{
	for (size_t i = 0; i < metadata->n_archives && item->archive && item->suite; i++)
		if (strcmp(without_scheme(metadata->archives[i].archive), without_scheme(item->archive)) == 0 &&
			strcmp(metadata->archives[i].source.suite, item->suite) == 0)
			return &metadata->archives[i];
	return NULL;
}

bool pkg_kept_is_vouched(const struct pkg_kept *item, const struct pkg_archive *archive)
{
	bool is_signed = item->release_sha256.algorithm != DIGEST_NONE;

	return archive && (archive->trusted || (is_signed && !(archive->of_request && item->keys_may_differ)));
}

/* Find where an entry's version is without opening any .deb. Returns 1 when only its .deb can tell. */
static int locate(const struct pkg_keeping *k, const struct pkg_metadata *metadata, struct keep_entry *entry)
{
	const struct pkg_universe *u = k->u;
	const struct pkg_kept *item = entry->item;
	uint32_t installed = u->names[entry->name].installed;
	const struct pkg_archive *a;

	entry->version = UNIVERSE_NONE;
	if (installed != UNIVERSE_NONE) {
		int c = deb_version_compare(u->versions[installed].version, item->version);

		if (c == 0)
			entry->version = installed;
		if (c >= 0 || u->versions[installed].hold)
			return 0;
	}
	entry->version = pkg_universe_find_file(u, entry->name, item->version, &item->sha256);
	if (entry->version != UNIVERSE_NONE && u->versions[entry->version].priority <= 0) {
		entry->version = UNIVERSE_NONE;
		entry->reason = KEEP_FORBIDDEN;
		return 0;
	}
	if (entry->version != UNIVERSE_NONE)
		return 0;
	a = pkg_kept_archive(item, metadata);
	if (pkg_kept_is_vouched(item, a))
		return 1;
	entry->reason = !a ? KEEP_NO_SOURCE : item->release_sha256.algorithm == DIGEST_NONE ? KEEP_UNSIGNED : KEEP_OTHER_KEY;
	return 0;
}

/* Enter a package from its .deb, which must be what the earlier answer says. Returns 0 also when it is not: it is not kept then. */
static int add_superseded(struct pkg_keeping *k, struct keep_entry *entry, int fd, struct err *e)
{
	_cleanup_buf_ struct buf control = BUF_INIT(DEB_CONTROL_MAX_BYTES);
	const struct pkg_kept *item = entry->item;
	struct deb822_reader reader;
	struct deb822_stanza stanza;
	int r = deb_read_control(fd, &control, e);

	if (r == 0)
		r = deb_check_control(buf_str(&control), control.len, item->name, item->version, item->arch, e);
	if (r == 0) {
		deb822_reader_init(&reader, buf_str(&control), control.len, item->name);
		r = deb822_next(&reader, &stanza, e);
		if (r == 0)
			r = err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "its control file is empty");
	}
	if (r > 0)
		r = pkg_universe_add_superseded(k->u, &stanza, k->first_list + (int32_t)(item - k->keep->items),
			item->filename ? item->filename : item->name, item->size_bytes, &item->sha256, item->name,
			&entry->version, e);
	if (r != -EBADMSG)
		return r;
	progress_note(k->progress, "the package `%s` %s of the lock is not what the lock says: %s", item->name, item->version,
		e->message);
	err_clear(e);
	entry->reason = KEEP_NOWHERE;
	return 0;
}

/* Get at the .debs of those entries. */
static int open_superseded(struct pkg_keeping *k, struct keep_entry **entries, size_t n, struct err *e)
{
	_cleanup_free_ const struct pkg_kept **items = calloc(n ? n : 1, sizeof(*items));
	_cleanup_free_ int *fds = calloc(n ? n : 1, sizeof(*fds));
	int r = 0;

	if (!items || !fds)
		return out_of_memory(e);
	for (size_t i = 0; i < n; i++) {
		items[i] = entries[i]->item;
		fds[i] = -1;
	}
	if (n > 0 && k->keep->open_debs)
		r = k->keep->open_debs(k->keep->ctx, items, n, fds, e);
	for (size_t i = 0; i < n; i++) {
		if (r == 0 && fds[i] >= 0)
			r = add_superseded(k, entries[i], fds[i], e);
		else
			entries[i]->reason = KEEP_NOWHERE;
		close_fdp(&fds[i]);
	}
	return r;
}

static bool is_item(const struct pkg_keep *keep, const char *name, size_t len)
{
	for (size_t i = 0; i < keep->n_items; i++)
		if (strncmp(keep->items[i].name, name, len) == 0 && keep->items[i].name[len] == '\0')
			return true;
	return false;
}

static bool has_entry(const struct pkg_keeping *k, uint32_t name)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->entries[i].name == name)
			return true;
	return false;
}

/* Keep a name as the base has it. */
static void add_base(struct pkg_keeping *k, const char *text, size_t len, bool removed)
{
	uint32_t name = pkg_universe_find(k->u, text, len), installed;

	if (name == UNIVERSE_NONE || has_entry(k, name))
		return;
	installed = k->u->names[name].installed;
	if (installed != UNIVERSE_NONE && !k->u->versions[installed].hold)
		k->entries[k->n++] = (struct keep_entry){ .name = name, .version = installed, .otherwise = UNIVERSE_NONE,
			.removed = removed };
}

/* What was asked for and gave no package was in the base: it stays at the base's version. What went out of the base does not
 * come back in a newer one. */
static void add_all_of_base(struct pkg_keeping *k)
{
	const struct strv *asked = k->keep->asked, *removals = k->keep->removals;

	for (size_t i = 0; removals && i < removals->n; i++)
		add_base(k, removals->items[i], strlen(removals->items[i]), true);
	for (size_t i = 0; asked && i < asked->n; i++) {
		size_t len = strcspn(asked->items[i], ":=");

		if (!strchr(asked->items[i], '=') && !is_item(k->keep, asked->items[i], len))
			add_base(k, asked->items[i], len, false);
	}
}

int pkg_keeping_load(struct pkg_keeping *k, const struct pkg_keep *keep, const struct pkg_metadata *metadata,
	struct pkg_universe *u, int32_t first_list, struct progress *progress, struct err *e)
{
	_cleanup_free_ struct keep_entry **superseded = NULL;
	size_t n_max = keep ? keep->n_items + (keep->asked ? keep->asked->n : 0) + (keep->removals ? keep->removals->n : 0) : 0;
	size_t n = 0;

	*k = (struct pkg_keeping){ .keep = keep, .u = u, .progress = progress, .first_list = first_list };
	if (!keep)
		return 0;
	k->entries = calloc(n_max ? n_max : 1, sizeof(*k->entries));
	superseded = calloc(n_max ? n_max : 1, sizeof(struct keep_entry *));
	if (!k->entries || !superseded)
		return out_of_memory(e);
	for (size_t i = 0; i < keep->n_items; i++) {
		struct keep_entry *entry = &k->entries[k->n];
		const struct pkg_kept *item = &keep->items[i];

		if (strcmp(item->arch, "all") != 0 && strcmp(item->arch, arch_name(u->arch)) != 0)
			continue;
		*entry = (struct keep_entry){ .item = item, .otherwise = UNIVERSE_NONE };
		entry->name = pkg_universe_name(u, item->name, strlen(item->name));
		if (entry->name == UNIVERSE_NONE)
			return out_of_memory(e);
		/* A name can be there for "all" and for this architecture in a lock that was merged by hand: the first one counts. */
		if (has_entry(k, entry->name))
			continue;
		k->n++;
		if (locate(k, metadata, entry))
			superseded[n++] = entry;
	}
	add_all_of_base(k);
	return open_superseded(k, superseded, n, e);
}

int pkg_keeping_apply(struct pkg_keeping *k, struct err *e)
{
	for (size_t i = 0; i < k->n; i++) {
		struct keep_entry *entry = &k->entries[i];

		entry->otherwise = k->u->names[entry->name].candidate;
		if (entry->version != UNIVERSE_NONE && pkg_universe_set_candidate(k->u, entry->version, e) < 0)
			return e->code;
	}
	return 0;
}

void pkg_keeping_drop(struct pkg_keeping *k, uint32_t name)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->entries[i].name == name)
			k->entries[i].fixed = true;
}

const struct pkg_kept *pkg_keeping_find(const struct pkg_keeping *k, uint32_t version)
{
	const struct pkg_version *v = &k->u->versions[version];

	for (size_t i = 0; i < k->n; i++) {
		const struct pkg_kept *item = k->entries[i].item;

		if (item && k->entries[i].name == v->name && strcmp(item->version, v->version) == 0 &&
			memcmp(item->sha256.bytes, v->sha256, sizeof(v->sha256)) == 0)
			return item;
	}
	return NULL;
}

/* Say whether an entry could be at another version than it is kept at. */
static bool can_move(const struct keep_entry *entry)
{
	return !entry->fixed && entry->version != UNIVERSE_NONE && entry->otherwise != UNIVERSE_NONE &&
	       entry->otherwise != entry->version;
}

/* Set candidates and marks to what is kept now. */
static int begin(struct pkg_keeping *k, struct pkg_marks *m, struct err *e)
{
	pkg_marks_reset(m);
	for (size_t i = 0; i < k->n; i++) {
		const struct keep_entry *entry = &k->entries[i];

		if (entry->fixed)
			continue;
		if (can_move(entry) &&
			pkg_universe_set_candidate(k->u, entry->moved ? entry->otherwise : entry->version, e) < 0)
			return e->code;
		pkg_marks_keep(m, entry->name, entry->otherwise);
		if (entry->removed && !entry->moved)
			m->marks[entry->name].kept = false;
	}
	for (size_t i = 0; k->keep && k->keep->removals && i < k->keep->removals->n; i++) {
		uint32_t name = pkg_universe_find(k->u, k->keep->removals->items[i], strlen(k->keep->removals->items[i]));

		if (name < m->n)
			m->marks[name].was_removed = true;
	}
	return 0;
}

/* The pass. Returns 1 when its targets hold together and nothing that is kept was in the way, else 0. */
static int pass(struct pkg_keeping *k, struct pkg_marks *m, struct err *e)
{
	char why[640];
	int r = begin(k, m, e);

	if (r == 0)
		r = pkg_marks_run(m, e);
	if (r == 0)
		r = pkg_marks_check(m, why, sizeof(why), e);
	return r > 0 && m->n_obstacles > 0 ? 0 : r;
}

static int search(struct pkg_marks *m, struct err *e)
{
	char why[640];
	int r = pkg_solve(m, e);

	if (r < 0)
		return r;
	r = pkg_marks_check(m, why, sizeof(why), e);
	if (r != 0)
		return r < 0 ? r : 0;
	return err_set_kind(e, ERR_KIND_DEFECT, -EUNATCH, "the solution that was found does not hold together: %s", why);
}

/* The pass, and the search where it is needed. */
static int choose_as_it_is(struct pkg_keeping *k, struct pkg_marks *m, struct err *e)
{
	int r = pass(k, m, e);

	k->searched = r == 0;
	return r == 0 ? search(m, e) : r < 0 ? r : 0;
}

static bool is_removed(const struct pkg_marks *m, uint32_t name)
{
	return m->u->names[name].installed != UNIVERSE_NONE && m->marks[name].target == UNIVERSE_NONE;
}

static void move_all(struct pkg_keeping *k, bool *ret_before)
{
	for (size_t i = 0; i < k->n; i++) {
		if (ret_before)
			ret_before[i] = k->entries[i].moved;
		if (!k->entries[i].moved && can_move(&k->entries[i])) {
			k->entries[i].moved = true;
			if (!k->entries[i].reason)
				k->entries[i].reason = KEEP_TOGETHER;
		}
	}
}

/* Find out what would go out of the base if nothing were kept. */
static int learn_removals(struct pkg_keeping *k, struct pkg_marks *m, struct err *e)
{
	_cleanup_free_ bool *before = calloc(k->n ? k->n : 1, sizeof(*before));
	bool *removed = calloc(m->n ? m->n : 1, sizeof(*removed));
	int r;

	if (!before || !removed) {
		free(removed);
		return out_of_memory(e);
	}
	k->removed_freely = removed;
	k->n_removed_freely = m->n;
	move_all(k, before);
	r = choose_as_it_is(k, m, e);
	for (uint32_t name = 0; r == 0 && name < m->n; name++)
		removed[name] = is_removed(m, name);
	for (size_t i = 0; i < k->n; i++)
		k->entries[i].moved = before[i];
	if (r == -EUNATCH) {
		err_clear(e);
		k->cannot_freely = true;
		return 0;
	}
	return r;
}

/* Say whether the targets take something out of the base only so that old versions can stay. Returns 1, 0 or negative; the
 * targets are other ones afterwards when it had to be found out. */
static int removes_too_much(struct pkg_keeping *k, struct pkg_marks *m, struct err *e)
{
	_cleanup_free_ bool *removed = calloc(m->n ? m->n : 1, sizeof(*removed));
	int r;

	if (!removed)
		return out_of_memory(e);
	for (uint32_t name = 0; name < m->n; name++)
		removed[name] = is_removed(m, name) && !m->marks[name].was_removed && !m->marks[name].unwanted;
	if (!k->removed_freely) {
		r = learn_removals(k, m, e);
		if (r < 0)
			return r;
	}
	for (uint32_t name = 0; name < m->n && name < k->n_removed_freely; name++)
		if (removed[name] && !k->removed_freely[name] && !k->cannot_freely)
			return 1;
	return 0;
}

/* Try what is kept now. Returns 1 when it is possible; 0 when not, with m->obstacles saying what is in the way where that is known. */
static int try(struct pkg_keeping *k, struct pkg_marks *m, bool may_search, struct err *e)
{
	int r;

	k->tries++;
	k->searched = false;
	r = pass(k, m, e);
	if (r != 0 || m->n_obstacles > 0 || !may_search)
		return r;
	r = search(m, e);
	if (r == -EUNATCH && e->kind != ERR_KIND_DEFECT) {
		err_clear(e);
		return 0;
	}
	if (r < 0)
		return r;
	r = removes_too_much(k, m, e);
	m->n_obstacles = 0;
	k->searched = r == 0;
	return r < 0 ? r : !r;
}

/* Move what was found to be in the way. Returns how many. */
static size_t move_obstacles(struct pkg_keeping *k, const struct pkg_marks *m)
{
	size_t n = 0;

	for (size_t o = 0; o < m->n_obstacles; o++) {
		for (size_t i = 0; i < k->n; i++) {
			struct keep_entry *entry = &k->entries[i];

			if (entry->name != m->obstacles[o].name || entry->moved || !can_move(entry))
				continue;
			entry->moved = true;
			entry->obstacle = m->obstacles[o];
			entry->reason = !entry->obstacle.conflict && !entry->obstacle.wants ? KEEP_TOGETHER :
					entry->obstacle.conflict			    ? KEEP_CONFLICT :
											      KEEP_NEEDED;
			n++;
		}
	}
	return n;
}

/* Put those entries back to their old versions where that is possible: all at once, else each half. */
static int restore(struct pkg_keeping *k, struct pkg_marks *m, size_t *moved, size_t n, bool may_search, size_t *restored,
	struct err *e)
{
	int r;

	if (n == 0 || k->tries >= KEEP_TRIES_MAX)
		return 0;
	for (size_t i = 0; i < n; i++)
		k->entries[moved[i]].moved = false;
	r = try(k, m, may_search, e);
	if (r > 0)
		*restored += n;
	if (r != 0)
		return r < 0 ? r : 0;
	for (size_t i = 0; i < n; i++)
		k->entries[moved[i]].moved = true;
	if (n == 1)
		return 0;
	r = restore(k, m, moved, n / 2, may_search, restored, e);
	return r < 0 ? r : restore(k, m, moved + n / 2, n - n / 2, may_search, restored, e);
}

static int restore_all(struct pkg_keeping *k, struct pkg_marks *m, bool may_search, struct err *e)
{
	_cleanup_free_ size_t *moved = calloc(k->n ? k->n : 1, sizeof(*moved));
	size_t restored = 1;

	if (!moved)
		return out_of_memory(e);
	for (unsigned round = 0; round < RESTORE_ROUNDS_MAX && restored > 0; round++) {
		size_t n = 0;
		int r;

		for (size_t i = 0; i < k->n; i++)
			if (k->entries[i].moved)
				moved[n++] = i;
		restored = 0;
		/* All at once is what failed before. */
		r = restore(k, m, moved, n / 2, may_search, &restored, e);
		if (r == 0)
			r = restore(k, m, moved + n / 2, n - n / 2, may_search, &restored, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Say what does not stay, and why. */
static void say_moves(const struct pkg_keeping *k, const struct pkg_marks *m)
{
	const struct pkg_universe *u = k->u;

	for (size_t i = 0; i < k->n; i++) {
		const struct keep_entry *entry = &k->entries[i];
		const char *from = entry->item ? entry->item->version : u->versions[entry->version].version;
		uint32_t target = pkg_marks_target(m, entry->name), owner = entry->obstacle.owner;
		char text[256], why[1024] = "the old versions do not go together with what is asked for now";

		if (entry->fixed || !entry->reason || target == UNIVERSE_NONE || target == entry->version)
			continue;
		if (entry->version != UNIVERSE_NONE && !entry->moved)
			continue;
		switch (entry->reason) {
		case KEEP_NOWHERE:
			(void)snprintf(why, sizeof(why), "no source has the old version any more, and its file can be had nowhere");
			break;
		case KEEP_NO_SOURCE:
			(void)snprintf(why, sizeof(why), "no source has the old version, and where it came from is no source any more");
			break;
		case KEEP_UNSIGNED:
			(void)snprintf(why, sizeof(why), "no source has the old version, and nobody vouched for it");
			break;
		case KEEP_OTHER_KEY:
			(void)snprintf(why, sizeof(why), "no source has the old version, and the key of its repository may be another since");
			break;
		case KEEP_FORBIDDEN:
			(void)snprintf(why, sizeof(why), "the preferences of the base image forbid the old version");
			break;
		case KEEP_NEEDED:
			if (owner != UNIVERSE_NONE)
				(void)snprintf(why, sizeof(why), "`%s` %s needs `%s`", u->names[u->versions[owner].name].text,
					u->versions[owner].version,
					pkg_alternative_text(u, entry->obstacle.wants, text, sizeof(text)));
			break;
		case KEEP_CONFLICT:
			(void)snprintf(why, sizeof(why), "the old version conflicts with `%s` %s",
				u->names[u->versions[owner].name].text, u->versions[owner].version);
			break;
		case KEEP_STAYS:
		case KEEP_TOGETHER:
			break;
		}
		progress_note(k->progress, "`%s` moves from %s to %s: %s", u->names[entry->name].text, from,
			u->versions[target].version, why);
	}
}

int pkg_keeping_choose(struct pkg_keeping *k, struct pkg_marks *m, struct err *e)
{
	int r = 0;

	if (k->n == 0)
		return choose_as_it_is(k, m, e);
	do
		r = try(k, m, true, e);
	while (r == 0 && move_obstacles(k, m) > 0);
	if (r == 0) {
		/* No single version is in the way: begin with what would be chosen freely. */
		move_all(k, NULL);
		r = choose_as_it_is(k, m, e);
		if (r < 0)
			return r;
	}
	if (r >= 0)
		r = restore_all(k, m, k->searched, e);
	/* The last try may have been one that failed. */
	if (r == 0)
		r = choose_as_it_is(k, m, e);
	if (r == 0)
		say_moves(k, m);
	return r;
}
