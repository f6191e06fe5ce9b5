#include "builder/packages/universe.h"
#include "builder/packages/relation.h"

#include <archive.h>
#include <string.h>
#include <strings.h>

enum { FILENAME_MAX_BYTES = 1024, ARENA_BLOCK_BYTES = 1 << 20, READ_BYTES = 64 << 10, NEAREST_NAME_MAX = 64 };

struct arena_block {
	struct arena_block *next;
	size_t used, size;
	char bytes[];
};

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

void pkg_universe_init(struct pkg_universe *u, enum arch arch, const struct apt_pins *pins)
{
	*u = (struct pkg_universe){ .arch = arch, .pins = pins };
}

static void relations_free(struct pkg_relations *r)
{
	if (!r)
		return;
	free(r->deps);
	free(r->alternatives);
	free(r);
}

void pkg_universe_release(struct pkg_universe *u)
{
	for (uint32_t i = 0; i < u->n_versions; i++)
		relations_free(u->versions[i].relations);
	for (uint32_t i = 0; i < u->n_names; i++)
		free(u->names[i].providers);
	while (u->blocks) {
		struct arena_block *next = u->blocks->next;

		free(u->blocks);
		u->blocks = next;
	}
	free(u->names);
	free(u->versions);
	free(u->hash);
	*u = (struct pkg_universe){ 0 };
}

/* A copy in the arena. NULL when memory or the limit is reached. */
static const char *arena_dup(struct pkg_universe *u, const char *s, size_t len)
{
	struct arena_block *b = u->blocks;
	char *copy;

	if (!b || b->size - b->used < len + 1) {
		size_t size = len + 1 > ARENA_BLOCK_BYTES / 4 ? len + 1 : ARENA_BLOCK_BYTES;

		if (u->text_bytes + size > UNIVERSE_TEXT_MAX_BYTES)
			return NULL;
		b = malloc(sizeof(*b) + size);
		if (!b)
			return NULL;
		b->used = 0;
		b->size = size;
		b->next = u->blocks;
		u->blocks = b;
		u->text_bytes += size;
	}
	copy = b->bytes + b->used;
	memcpy(copy, s, len);
	copy[len] = '\0';
	b->used += len + 1;
	return copy;
}

static uint32_t hash_of(const char *s, size_t len)
{
	uint32_t h = 2166136261U; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ (uint8_t)s[i]) * 16777619U;
	return h;
}

/* The slot of a name in the hash table: where it is, or where it would go. */
static uint32_t *hash_slot(const struct pkg_universe *u, const char *name, size_t len)
{
	uint32_t i = hash_of(name, len) & (u->hash_size - 1);

	while (u->hash[i] != UNIVERSE_NONE) {
		const char *text = u->names[u->hash[i]].text;

		if (strncmp(text, name, len) == 0 && text[len] == '\0')
			break;
		i = (i + 1) & (u->hash_size - 1);
	}
	return &u->hash[i];
}

static int grow_hash(struct pkg_universe *u)
{
	uint32_t size = u->hash_size ? 2 * u->hash_size : 1 << 12;
	uint32_t *hash = reallocarray(NULL, size, sizeof(*hash));

	if (!hash)
		return -ENOMEM;
	memset(hash, 0xff, size * sizeof(*hash));
	free(u->hash);
	u->hash = hash;
	u->hash_size = size;
	for (uint32_t i = 0; i < u->n_names; i++)
		*hash_slot(u, u->names[i].text, strlen(u->names[i].text)) = i;
	return 0;
}

uint32_t pkg_universe_find(const struct pkg_universe *u, const char *name, size_t len)
{
	if (u->hash_size == 0 || memchr(name, '\0', len))
		return UNIVERSE_NONE;
	return *hash_slot(u, name, len);
}

uint32_t pkg_universe_name(struct pkg_universe *u, const char *name, size_t len)
{
	uint32_t found = pkg_universe_find(u, name, len);
	const char *text;

	if (found != UNIVERSE_NONE)
		return found;
	if (u->n_names >= 4 * UNIVERSE_VERSIONS_MAX)
		return UNIVERSE_NONE;
	if ((uint64_t)u->n_names * 2 >= u->hash_size && grow_hash(u) < 0)
		return UNIVERSE_NONE;
	if (u->n_names == u->names_capacity) {
		uint32_t capacity = u->names_capacity ? 2 * u->names_capacity : 1 << 12;
		struct pkg_name *names = reallocarray(u->names, capacity, sizeof(*names));

		if (!names)
			return UNIVERSE_NONE;
		u->names = names;
		u->names_capacity = capacity;
	}
	text = arena_dup(u, name, len);
	if (!text)
		return UNIVERSE_NONE;
	u->names[u->n_names] = (struct pkg_name){ .text = text,
		.first = UNIVERSE_NONE,
		.installed = UNIVERSE_NONE,
		.candidate = UNIVERSE_NONE };
	*hash_slot(u, name, len) = u->n_names;
	return u->n_names++;
}

/* The fields of a stanza that are looked at. */
enum slot {
	SLOT_PACKAGE, SLOT_VERSION, SLOT_ARCHITECTURE, SLOT_SOURCE, SLOT_PRE_DEPENDS, SLOT_DEPENDS, SLOT_RECOMMENDS,
	SLOT_CONFLICTS, SLOT_BREAKS, SLOT_PROVIDES, SLOT_FILENAME, SLOT_SIZE, SLOT_SHA256, SLOT_ESSENTIAL, SLOT_IMPORTANT,
	SLOT_PROTECTED, SLOT_PRIORITY, SLOT_MULTI_ARCH, SLOT_STATUS, SLOT_SUGGESTS, SLOT_REPLACES, SLOT_ENHANCES, SLOT_COUNT
};

static void take_slots(const struct deb822_stanza *st, struct deb822_value slots[SLOT_COUNT])
{
	static const struct {
		const char *name;
		size_t len;
	} names[SLOT_COUNT] = {
#define NAMED(slot, text) [slot] = { text, sizeof(text) - 1 }
		NAMED(SLOT_PACKAGE, "Package"), NAMED(SLOT_VERSION, "Version"), NAMED(SLOT_ARCHITECTURE, "Architecture"),
		NAMED(SLOT_SOURCE, "Source"), NAMED(SLOT_PRE_DEPENDS, "Pre-Depends"), NAMED(SLOT_DEPENDS, "Depends"),
		NAMED(SLOT_RECOMMENDS, "Recommends"), NAMED(SLOT_CONFLICTS, "Conflicts"), NAMED(SLOT_BREAKS, "Breaks"),
		NAMED(SLOT_PROVIDES, "Provides"), NAMED(SLOT_FILENAME, "Filename"), NAMED(SLOT_SIZE, "Size"),
		NAMED(SLOT_SHA256, "SHA256"), NAMED(SLOT_ESSENTIAL, "Essential"), NAMED(SLOT_IMPORTANT, "Important"),
		NAMED(SLOT_PROTECTED, "Protected"), NAMED(SLOT_PRIORITY, "Priority"), NAMED(SLOT_MULTI_ARCH, "Multi-Arch"),
		NAMED(SLOT_STATUS, "Status"), NAMED(SLOT_SUGGESTS, "Suggests"), NAMED(SLOT_REPLACES, "Replaces"),
		NAMED(SLOT_ENHANCES, "Enhances"),
#undef NAMED
	};

	memset(slots, 0, SLOT_COUNT * sizeof(*slots));
	for (size_t i = 0; i < st->n; i++)
		for (size_t s = 0; s < SLOT_COUNT; s++)
			if (st->fields[i].name_len == names[s].len && !slots[s].s &&
				strncasecmp(st->fields[i].name, names[s].name, names[s].len) == 0)
				slots[s] = st->fields[i].value;
}

/* Copy a value that may be missing (NULL). */
static int take_text(struct pkg_universe *u, struct deb822_value v, const char **ret)
{
	*ret = NULL;
	if (!v.s || v.len == 0)
		return 0;
	*ret = arena_dup(u, v.s, v.len);
	return *ret ? 0 : -ENOMEM;
}

/* "Source: name (version)"; both default to the binary's. */
static int take_source(struct pkg_universe *u, struct deb822_value v, struct pkg_version *ret)
{
	const char *open;

	ret->source = u->names[ret->name].text;
	ret->source_version = ret->version;
	if (!v.s || v.len == 0)
		return 0;
	open = memchr(v.s, '(', v.len);
	if (open) {
		struct deb822_value version = { open + 1, v.len - (size_t)(open + 1 - v.s) };

		if (version.len > 0 && version.s[version.len - 1] == ')')
			version.len--;
		ret->source_version = arena_dup(u, version.s, version.len);
		v = deb822_trim((struct deb822_value){ v.s, (size_t)(open - v.s) });
	}
	if (v.len != strlen(ret->source) || memcmp(v.s, ret->source, v.len) != 0)
		ret->source = arena_dup(u, v.s, v.len);
	return ret->source && ret->source_version ? 0 : -ENOMEM;
}

static uint8_t standing_of(struct deb822_value v)
{
	static const char *const names[] = { "required", "important", "standard", "optional", "extra" };

	for (uint8_t i = 0; i < ARRAY_SIZE(names); i++)
		if (deb822_is(v, names[i]))
			return i;
	return 4;
}

static uint8_t multi_arch_of(struct deb822_value v)
{
	return deb822_is(v, "same")	? PKG_MULTI_ARCH_SAME :
	       deb822_is(v, "foreign") ? PKG_MULTI_ARCH_FOREIGN :
	       deb822_is(v, "allowed") ? PKG_MULTI_ARCH_ALLOWED :
					  PKG_MULTI_ARCH_NO;
}

/* A path beneath the archive: relative, without "..", printable. */
static bool filename_valid(struct deb822_value v)
{
	if (v.len == 0 || v.len > FILENAME_MAX_BYTES || v.s[0] == '/')
		return false;
	for (size_t i = 0; i < v.len; i++) {
		if (v.s[i] <= ' ' || v.s[i] > '~')
			return false;
		if (v.s[i] == '.' && i + 1 < v.len && v.s[i + 1] == '.' && (i == 0 || v.s[i - 1] == '/') &&
			(i + 2 == v.len || v.s[i + 2] == '/'))
			return false;
	}
	return true;
}

static bool version_text_valid(struct deb822_value v)
{
	/* A few third-party repositories have versions that begin with a letter; the rest of the rule holds for them. */
	return v.len > 0 && v.len <= 256 &&
	       (deb_version_valid(v.s, v.len) || (v.len > 1 && deb_version_valid(v.s + 1, v.len - 1)));
}

/* Append a version and link it to its name. */
static int append_version(struct pkg_universe *u, const struct pkg_version *v, uint32_t *ret, struct err *e)
{
	if (u->n_versions == UNIVERSE_VERSIONS_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "more than %d packages", UNIVERSE_VERSIONS_MAX);
	if (u->n_versions == u->versions_capacity) {
		uint32_t capacity = u->versions_capacity ? u->versions_capacity + u->versions_capacity / 2 : 1 << 12;
		struct pkg_version *versions = reallocarray(u->versions, capacity, sizeof(*versions));

		if (!versions)
			return out_of_memory(e);
		u->versions = versions;
		u->versions_capacity = capacity;
	}
	u->versions[u->n_versions] = *v;
	u->versions[u->n_versions].next = u->names[v->name].first;
	u->names[v->name].first = u->n_versions;
	*ret = u->n_versions++;
	return 0;
}

/* Fill in what lists, local files and the status have in common. Returns 1 when the stanza is of another architecture. */
static int take_common(struct pkg_universe *u, const struct deb822_value slots[SLOT_COUNT], const char *label,
	unsigned line, struct pkg_version *v, struct err *e)
{
	struct deb822_value name = slots[SLOT_PACKAGE], version = slots[SLOT_VERSION];

	*v = (struct pkg_version){ .list = PKG_LIST_INSTALLED };
	if (!name.s || !version.s || !slots[SLOT_ARCHITECTURE].s)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: a package needs Package, Version and Architecture",
			label, line);
	v->all = deb822_is(slots[SLOT_ARCHITECTURE], "all");
	if (!v->all && !deb822_is(slots[SLOT_ARCHITECTURE], arch_name(u->arch)))
		return 1;
	if (!deb_package_name_valid(name.s, name.len) || !version_text_valid(version)) {
		char shown[96];

		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: a package cannot be called `%s` with that version",
			label, line, err_sanitize(shown, sizeof(shown), name.s, name.len));
	}
	v->name = pkg_universe_name(u, name.s, name.len);
	if (v->name == UNIVERSE_NONE)
		return out_of_memory(e);
	v->version = arena_dup(u, version.s, version.len);
	if (!v->version || take_source(u, slots[SLOT_SOURCE], v) < 0 ||
		take_text(u, slots[SLOT_PRE_DEPENDS], &v->pre_depends) < 0 ||
		take_text(u, slots[SLOT_DEPENDS], &v->depends) < 0 ||
		take_text(u, slots[SLOT_RECOMMENDS], &v->recommends) < 0 ||
		take_text(u, slots[SLOT_CONFLICTS], &v->conflicts) < 0 || take_text(u, slots[SLOT_BREAKS], &v->breaks) < 0 ||
		take_text(u, slots[SLOT_PROVIDES], &v->provides) < 0)
		return out_of_memory(e);
	v->essential = deb822_is(slots[SLOT_ESSENTIAL], "yes");
	v->important = deb822_is(slots[SLOT_IMPORTANT], "yes");
	v->protected = deb822_is(slots[SLOT_PROTECTED], "yes");
	v->standing = standing_of(slots[SLOT_PRIORITY]);
	v->multi_arch = multi_arch_of(slots[SLOT_MULTI_ARCH]);
	return 0;
}

/* Where Debian's archives put a file: pool/main/p/podman/podman_4.3.1_amd64.deb. Returns 0, or -ENAMETOOLONG. */
static int usual_filename(const struct pkg_universe *u, const struct pkg_version *v, const char *component, char *text,
	size_t size)
{
	const char *colon = strchr(v->version, ':');
	int prefix = strncmp(v->source, "lib", 3) == 0 && v->source[3] ? 4 : 1;
	int n = snprintf(text, size, "pool/%s/%.*s/%s/%s_%s_%s.deb", component, prefix, v->source, v->source,
		u->names[v->name].text, colon ? colon + 1 : v->version, v->all ? "all" : arch_name(u->arch));

	return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

int pkg_universe_filename(const struct pkg_universe *u, uint32_t version, const char *component, char *text, size_t size)
{
	const struct pkg_version *v = &u->versions[version];
	int n;

	if (v->filename && v->filename[0] == '\0')
		return usual_filename(u, v, component, text, size);
	n = snprintf(text, size, "%s", v->filename ? v->filename : "");
	return n >= 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

/* Keep a file's name, unless it is the usual one: names would be a fifth of all text. */
static const char *keep_filename(struct pkg_universe *u, const struct pkg_version *v, const char *component,
	struct deb822_value given)
{
	char usual[FILENAME_MAX_BYTES + 1];

	if (usual_filename(u, v, component, usual, sizeof(usual)) == 0 && given.len == strlen(usual) &&
		memcmp(given.s, usual, given.len) == 0)
		return "";
	return arena_dup(u, given.s, given.len);
}

struct list_reading {
	struct pkg_universe *u;
	int32_t list;
	const struct apt_origin *origin;
	int list_priority;
	const char *label;
	size_t n;
};

/* Find the same version of the same file in an earlier list. */
static uint32_t find_same(const struct pkg_universe *u, const struct pkg_version *v)
{
	for (uint32_t i = u->names[v->name].first; i != UNIVERSE_NONE; i = u->versions[i].next)
		if (strcmp(u->versions[i].version, v->version) == 0 && memcmp(u->versions[i].sha256, v->sha256, 32) == 0)
			return i;
	return UNIVERSE_NONE;
}

/* Number the names a package mentions now. apt numbers names when it first meets them, and where two providers are
 * otherwise equal it takes the one with the higher number. */
static int number_mentioned(struct pkg_universe *u, const struct deb822_value slots[SLOT_COUNT])
{
	static const enum slot order[] = { SLOT_DEPENDS, SLOT_PRE_DEPENDS, SLOT_SUGGESTS, SLOT_RECOMMENDS, SLOT_CONFLICTS,
		SLOT_BREAKS, SLOT_REPLACES, SLOT_ENHANCES, SLOT_PROVIDES };

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		const char *p = slots[order[i]].s, *end = p ? p + slots[order[i]].len : NULL;

		while (p < end) {
			const char *name;

			while (p < end && !(*p > ' ' && *p != ',' && *p != '|'))
				p++;
			name = p;
			while (p < end && *p > ' ' && *p != ',' && *p != '|' && *p != ':' && *p != '(')
				p++;
			if (p > name && p - name <= RELATION_NAME_MAX_BYTES &&
				pkg_universe_name(u, name, (size_t)(p - name)) == UNIVERSE_NONE)
				return -ENOMEM;
			while (p < end && *p != ',' && *p != '|')
				p++;
		}
	}
	return 0;
}

static int on_list_stanza(void *ctx, const struct deb822_stanza *st, struct err *e)
{
	struct list_reading *l = ctx;
	struct deb822_value slots[SLOT_COUNT];
	char hex[DIGEST_SHA256_HEX_SIZE];
	struct pkg_version v;
	struct digest digest;
	uint32_t index;
	int r;

	take_slots(st, slots);
	r = take_common(l->u, slots, l->label, st->line, &v, e);
	if (r != 0)
		return r < 0 ? r : 0;
	if (slots[SLOT_SHA256].len != 64)
		return 0; /* a list without SHA-256 has nothing that could be checked: as if it were not there */
	if (number_mentioned(l->u, slots) < 0)
		return out_of_memory(e);
	memcpy(hex, slots[SLOT_SHA256].s, 64);
	hex[64] = '\0';
	if (digest_parse_hex(DIGEST_SHA256, hex, &digest) < 0 || !filename_valid(slots[SLOT_FILENAME]) ||
		slots[SLOT_SIZE].len == 0 || slots[SLOT_SIZE].len > 18)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: SHA256, Filename or Size of `%s` is not usable",
			l->label, st->line, l->u->names[v.name].text);
	memcpy(v.sha256, digest.bytes, sizeof(v.sha256));
	for (size_t i = 0; i < slots[SLOT_SIZE].len; i++) {
		char c = slots[SLOT_SIZE].s[i];

		if (c < '0' || c > '9')
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: the Size of `%s` is no number", l->label,
				st->line, l->u->names[v.name].text);
		v.size_bytes = v.size_bytes * 10 + (uint64_t)(c - '0');
	}
	v.list = l->list;
	v.priority = (int16_t)apt_pins_version_priority(l->u->pins, l->origin, l->u->names[v.name].text, v.source, v.version,
		l->list_priority);
	l->n++;
	index = find_same(l->u, &v);
	if (index != UNIVERSE_NONE) {
		if (l->u->versions[index].priority < v.priority)
			l->u->versions[index].priority = v.priority;
		return 0;
	}
	v.filename = keep_filename(l->u, &v, l->origin->component, slots[SLOT_FILENAME]);
	if (!v.filename)
		return out_of_memory(e);
	return append_version(l->u, &v, &index, e);
}

static void archive_freep(struct archive **a)
{
	if (*a)
		(void)archive_read_free(*a);
}

/* A reader that decompresses whatever it recognises, not open yet. */
static int new_stream(struct archive **ret, struct err *e)
{
	_cleanup_(archive_freep) struct archive *a = archive_read_new();

	if (!a)
		return out_of_memory(e);
	if (archive_read_support_format_raw(a) != ARCHIVE_OK || archive_read_support_format_empty(a) != ARCHIVE_OK ||
		archive_read_support_filter_gzip(a) != ARCHIVE_OK || archive_read_support_filter_xz(a) != ARCHIVE_OK ||
		archive_read_support_filter_zstd(a) != ARCHIVE_OK || archive_read_support_filter_bzip2(a) != ARCHIVE_OK ||
		archive_read_support_filter_lz4(a) != ARCHIVE_OK)
		return err_set_kind(e, ERR_KIND_HOST, -ENOSYS, "libarchive here lacks a compression: %s",
			archive_error_string(a));
	*ret = take_ptr(a);
	return 0;
}

static int stream_failed(struct archive *a, const char *label, struct err *e)
{
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "cannot decompress %s: %s", label, archive_error_string(a));
}

/* Read a list from a stream that was opened. */
static int add_stream(struct pkg_universe *u, struct archive *a, int32_t list, const struct apt_origin *origin,
	const char *label, size_t *ret_n, struct err *e)
{
	struct list_reading reading = { .u = u, .list = list, .origin = origin, .label = label,
		.list_priority = apt_pins_origin_priority(u->pins, origin) };
	_cleanup_(deb822_stream_release) struct deb822_stream stream = { 0 };
	_cleanup_free_ char *chunk = malloc(READ_BYTES);
	struct archive_entry *entry;
	uint64_t total = 0;
	int r = archive_read_next_header(a, &entry);

	deb822_stream_init(&stream, label, on_list_stanza, &reading);
	if (!chunk)
		return out_of_memory(e);
	if (r != ARCHIVE_OK && r != ARCHIVE_EOF)
		return stream_failed(a, label, e);
	while (r == ARCHIVE_OK) {
		la_ssize_t n = archive_read_data(a, chunk, READ_BYTES);
		int k;

		if (n < 0)
			return stream_failed(a, label, e);
		total += (uint64_t)n;
		if (total > PACKAGES_TEXT_MAX_BYTES)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s is longer than %llu bytes", label,
				(unsigned long long)PACKAGES_TEXT_MAX_BYTES);
		k = deb822_stream_feed(&stream, chunk, (size_t)n, e);
		if (k < 0)
			return k;
		if (n == 0)
			break;
	}
	if (ret_n)
		*ret_n = reading.n;
	return 0;
}

int pkg_universe_add_list(struct pkg_universe *u, const void *text, size_t len, int32_t list,
	const struct apt_origin *origin, const char *label, size_t *ret_n, struct err *e)
{
	_cleanup_(archive_freep) struct archive *a = NULL;
	int r = new_stream(&a, e);

	if (r < 0)
		return r;
	if (archive_read_open_memory(a, text, len) != ARCHIVE_OK)
		return stream_failed(a, label, e);
	return add_stream(u, a, list, origin, label, ret_n, e);
}

int pkg_universe_add_list_fd(struct pkg_universe *u, int fd, int32_t list, const struct apt_origin *origin,
	const char *label, size_t *ret_n, struct err *e)
{
	_cleanup_(archive_freep) struct archive *a = NULL;
	int r = new_stream(&a, e);

	if (r < 0)
		return r;
	if (archive_read_open_fd(a, fd, READ_BYTES) != ARCHIVE_OK)
		return stream_failed(a, label, e);
	return add_stream(u, a, list, origin, label, ret_n, e);
}

/* Add a package from its own control text. */
static int add_file(struct pkg_universe *u, const struct deb822_stanza *control, int32_t list, const char *filename,
	uint64_t size_bytes, const struct digest *sha256, int16_t priority, const char *label, uint32_t *ret_version,
	struct err *e)
{
	struct deb822_value slots[SLOT_COUNT];
	struct pkg_version v;
	int r;

	take_slots(control, slots);
	r = take_common(u, slots, label, control->line, &v, e);
	if (r > 0)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "%s is for another architecture than %s", label,
			arch_name(u->arch));
	if (r < 0)
		return r;
	v.list = list;
	v.size_bytes = size_bytes;
	memcpy(v.sha256, sha256->bytes, sizeof(v.sha256));
	v.priority = priority;
	v.filename = arena_dup(u, filename, strlen(filename));
	if (!v.filename)
		return out_of_memory(e);
	return append_version(u, &v, ret_version, e);
}

int pkg_universe_add_local(struct pkg_universe *u, const struct deb822_stanza *control, int32_t list,
	const char *filename, uint64_t size_bytes, const struct digest *sha256, const char *label, uint32_t *ret_version,
	struct err *e)
{
	return add_file(u, control, list, filename, size_bytes, sha256, INT16_MAX, label, ret_version, e);
}

int pkg_universe_add_superseded(struct pkg_universe *u, const struct deb822_stanza *control, int32_t list,
	const char *filename, uint64_t size_bytes, const struct digest *sha256, const char *label, uint32_t *ret_version,
	struct err *e)
{
	return add_file(u, control, list, filename, size_bytes, sha256, -1, label, ret_version, e);
}

uint32_t pkg_universe_find_file(const struct pkg_universe *u, uint32_t name, const char *version, const struct digest *sha256)
{
	for (uint32_t i = name < u->n_names ? u->names[name].first : UNIVERSE_NONE; i != UNIVERSE_NONE; i = u->versions[i].next)
		if (u->versions[i].filename && strcmp(u->versions[i].version, version) == 0 &&
			memcmp(u->versions[i].sha256, sha256->bytes, sizeof(u->versions[i].sha256)) == 0)
			return i;
	return UNIVERSE_NONE;
}

struct status_reading {
	struct pkg_universe *u;
	const char *label;
};

/* "Status: want error state": installed unless the last word says that its files are not there. */
static int on_status_stanza(struct status_reading *s, const struct deb822_stanza *st, struct err *e)
{
	_cleanup_strv_ struct strv words = { 0 };
	struct deb822_value slots[SLOT_COUNT];
	struct pkg_version v;
	const char *state;
	uint32_t index;
	int r;

	take_slots(st, slots);
	if (deb822_words(slots[SLOT_STATUS], false, &words) < 0)
		return out_of_memory(e);
	if (words.n != 3)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: a package without a Status of three words", s->label,
			st->line);
	state = words.items[2];
	if (strcmp(state, "not-installed") == 0 || strcmp(state, "config-files") == 0 || strcmp(state, "half-installed") == 0)
		return 0;
	r = take_common(s->u, slots, s->label, st->line, &v, e);
	if (r != 0)
		return r < 0 ? r : 0;
	if (s->u->names[v.name].installed != UNIVERSE_NONE)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: `%s` is installed twice", s->label, st->line,
			s->u->names[v.name].text);
	v.hold = strcmp(words.items[0], "hold") == 0;
	v.installed = true;
	v.priority = PIN_INSTALLED;
	r = append_version(s->u, &v, &index, e);
	if (r < 0)
		return r;
	s->u->names[v.name].installed = index;
	return 0;
}

int pkg_universe_add_status(struct pkg_universe *u, const char *text, size_t len, const char *label, struct err *e)
{
	struct status_reading s = { u, label };
	struct deb822_reader reader;
	struct deb822_stanza st;
	int r;

	deb822_reader_init(&reader, text, len, label);
	while ((r = deb822_next(&reader, &st, e)) > 0) {
		r = on_status_stanza(&s, &st, e);
		if (r < 0)
			return r;
	}
	return r;
}

/* Newest first; of equal ones the installed first, then those that were read first. */
static int version_order(const struct pkg_universe *u, uint32_t a, uint32_t b)
{
	const struct pkg_version *va = &u->versions[a], *vb = &u->versions[b];
	int c = deb_version_compare(vb->version, va->version);

	if (c == 0)
		c = (int)vb->installed - (int)va->installed;
	return c ? c : (a > b) - (a < b);
}

/* Insertion sort of a short linked list. Many versions of one name occur only in hostile lists: they cost time
 * quadratic in a number that MANY_VERSIONS bounds. */
enum { MANY_VERSIONS = 4096 };

static int sort_versions(struct pkg_universe *u, struct pkg_name *name, struct err *e)
{
	uint32_t sorted = UNIVERSE_NONE, n = 0;

	for (uint32_t i = name->first, next; i != UNIVERSE_NONE; i = next) {
		uint32_t *link = &sorted;

		if (++n > MANY_VERSIONS)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "more than %d versions of `%s`", MANY_VERSIONS,
				name->text);
		next = u->versions[i].next;
		while (*link != UNIVERSE_NONE && version_order(u, *link, i) < 0)
			link = &u->versions[*link].next;
		u->versions[i].next = *link;
		*link = i;
	}
	name->first = sorted;
	return 0;
}

/* apt_preferences(5): the highest priority wins, then the highest version; a downgrade needs 1000. */
static void choose_candidate(struct pkg_universe *u, struct pkg_name *name)
{
	int best = 0;

	name->candidate = UNIVERSE_NONE;
	if (name->installed != UNIVERSE_NONE && u->versions[name->installed].hold) {
		name->candidate = name->installed;
		return;
	}
	for (uint32_t i = name->first; i != UNIVERSE_NONE; i = u->versions[i].next) {
		const struct pkg_version *v = &u->versions[i];
		int priority = v->priority;

		/* An installed version that a list has, too, has the priority of that list when it is higher. */
		if (v->installed)
			for (uint32_t k = v->next; k != UNIVERSE_NONE && strcmp(u->versions[k].version, v->version) == 0;
				k = u->versions[k].next)
				if (u->versions[k].priority > priority)
					priority = u->versions[k].priority;
		if (priority > best) {
			best = priority;
			name->candidate = i;
		}
		if (v->installed) {
			while (u->versions[i].next != UNIVERSE_NONE &&
				strcmp(u->versions[u->versions[i].next].version, v->version) == 0 &&
				u->versions[u->versions[i].next].priority != INT16_MAX)
				i = u->versions[i].next;
			if (best < PIN_DOWNGRADE - 1)
				best = PIN_DOWNGRADE - 1;
			if (name->candidate == UNIVERSE_NONE)
				name->candidate = name->installed;
		}
	}
}

/* Enter what a version provides, once. */
static int index_provides(struct pkg_universe *u, uint32_t version, struct deb_relations *scratch, struct err *e)
{
	const char *text = u->versions[version].provides;
	int r;

	if (!text || u->versions[version].provides_indexed)
		return 0;
	u->versions[version].provides_indexed = true;
	scratch->n = 0;
	r = deb_relations_parse(text, strlen(text), scratch, e);
	if (r < 0)
		return err_wrap(e, "Provides of `%s` %s", u->names[u->versions[version].name].text, u->versions[version].version);
	for (size_t i = 0; i < scratch->n; i++) {
		const struct deb_relation *p = &scratch->items[i];
		uint32_t id = pkg_universe_name(u, p->name, p->name_len);
		struct pkg_provider *providers, one = { .version = version };
		struct pkg_name *name;

		if (id == UNIVERSE_NONE)
			return out_of_memory(e);
		if (p->op == DEB_VERSION_EQ) {
			one.provided = arena_dup(u, p->version, p->version_len);
			if (!one.provided)
				return out_of_memory(e);
		}
		name = &u->names[id];
		if (name->n_providers == name->capacity) {
			uint32_t capacity = name->capacity ? 2 * name->capacity : 4;

			providers = reallocarray(name->providers, capacity, sizeof(*providers));
			if (!providers)
				return out_of_memory(e);
			name->providers = providers;
			name->capacity = capacity;
		}
		name->providers[name->n_providers++] = one;
	}
	return 0;
}

int pkg_universe_finish(struct pkg_universe *u, struct err *e)
{
	_cleanup_relations_ struct deb_relations scratch = { 0 };
	uint32_t n_names = u->n_names; /* indexing adds virtual ones, which have no versions */
	int r = 0;

	for (uint32_t i = 0; i < n_names && r == 0; i++) {
		r = sort_versions(u, &u->names[i], e);
		if (r == 0)
			choose_candidate(u, &u->names[i]);
	}
	/* In the order of reading, which breaks ties between providers. */
	for (uint32_t v = 0; v < u->n_versions && r == 0; v++) {
		const struct pkg_name *name = &u->names[u->versions[v].name];

		if (name->candidate == v || name->installed == v)
			r = index_provides(u, v, &scratch, e);
	}
	return r;
}

int pkg_universe_set_candidate(struct pkg_universe *u, uint32_t version, struct err *e)
{
	_cleanup_relations_ struct deb_relations scratch = { 0 };
	struct pkg_name *name = &u->names[u->versions[version].name];

	if (name->candidate == version)
		return 0;
	name->candidate = version;
	return name->installed == version ? 0 : index_provides(u, version, &scratch, e);
}

/* Add the groups of one field to the relations of a version. */
static int add_relations(struct pkg_universe *u, struct pkg_relations *to, const char *text, enum pkg_dep_kind kind,
	struct deb_relations *scratch, struct err *e)
{
	struct pkg_alternative *alternatives;
	struct pkg_dep *deps;
	bool group_open = false;
	int r;

	if (!text)
		return 0;
	scratch->n = 0;
	r = deb_relations_parse(text, strlen(text), scratch, e);
	if (r < 0 || scratch->n == 0)
		return r;
	alternatives = reallocarray(to->alternatives, to->n_alternatives + scratch->n, sizeof(*alternatives));
	if (!alternatives)
		return out_of_memory(e);
	to->alternatives = alternatives;
	deps = reallocarray(to->deps, to->n_deps + scratch->n, sizeof(*deps));
	if (!deps)
		return out_of_memory(e);
	to->deps = deps;
	for (size_t i = 0; i < scratch->n; i++) {
		const struct deb_relation *in = &scratch->items[i];
		struct pkg_alternative a = { .op = (uint8_t)in->op };
		struct deb822_value qualifier = { in->qualifier, in->qualifier_len };

		a.name = pkg_universe_name(u, in->name, in->name_len);
		if (in->op != DEB_VERSION_ANY)
			a.version = arena_dup(u, in->version, in->version_len);
		if (a.name == UNIVERSE_NONE || (in->op != DEB_VERSION_ANY && !a.version))
			return out_of_memory(e);
		if (in->qualifier) {
			a.any = deb822_is(qualifier, "any");
			a.impossible = !a.any && !deb822_is(qualifier, "native") && !deb822_is(qualifier, arch_name(u->arch));
		}
		if (!group_open)
			to->deps[to->n_deps++] =
				(struct pkg_dep){ .kind = kind, .first = (uint32_t)to->n_alternatives };
		to->deps[to->n_deps - 1].n++;
		to->alternatives[to->n_alternatives++] = a;
		group_open = in->or_next;
	}
	return 0;
}

const struct pkg_relations *pkg_universe_relations(struct pkg_universe *u, uint32_t version, struct err *e)
{
	const struct pkg_version *v = &u->versions[version];
	_cleanup_relations_ struct deb_relations scratch = { 0 };
	struct pkg_relations *relations;
	int r;

	if (v->relations)
		return v->relations;
	relations = calloc(1, sizeof(*relations));
	if (!relations) {
		(void)out_of_memory(e);
		return NULL;
	}
	r = add_relations(u, relations, v->pre_depends, PKG_DEP_PRE_DEPENDS, &scratch, e);
	if (r == 0)
		r = add_relations(u, relations, v->depends, PKG_DEP_DEPENDS, &scratch, e);
	if (r == 0)
		r = add_relations(u, relations, v->recommends, PKG_DEP_RECOMMENDS, &scratch, e);
	if (r == 0)
		r = add_relations(u, relations, v->conflicts, PKG_DEP_CONFLICTS, &scratch, e);
	if (r == 0)
		r = add_relations(u, relations, v->breaks, PKG_DEP_BREAKS, &scratch, e);
	if (r < 0) {
		relations_free(relations);
		(void)err_wrap(e, "package `%s` %s", u->names[v->name].text, v->version);
		return NULL;
	}
	u->versions[version].relations = relations;
	return relations;
}

bool pkg_universe_satisfies(const struct pkg_universe *u, uint32_t version, const struct pkg_alternative *a)
{
	const struct pkg_version *v = &u->versions[version];
	const struct pkg_name *name = &u->names[a->name];

	if (a->impossible)
		return false;
	if (v->name == a->name && (!a->any || v->multi_arch == PKG_MULTI_ARCH_ALLOWED) &&
		deb_version_satisfies(v->version, (enum deb_version_op)a->op, a->version))
		return true;
	if (a->any)
		return false;
	for (uint32_t i = 0; i < name->n_providers; i++) {
		const struct pkg_provider *p = &name->providers[i];

		if (p->version != version)
			continue;
		if (a->op == DEB_VERSION_ANY ||
			(p->provided && deb_version_satisfies(p->provided, (enum deb_version_op)a->op, a->version)))
			return true;
	}
	return false;
}

char *pkg_alternative_text(const struct pkg_universe *u, const struct pkg_alternative *a, char *text, size_t size)
{
	if (a->op == DEB_VERSION_ANY)
		(void)snprintf(text, size, "%s", u->names[a->name].text);
	else
		(void)snprintf(text, size, "%s (%s %s)", u->names[a->name].text,
			deb_version_op_name((enum deb_version_op)a->op), a->version);
	return text;
}

/* Levenshtein's distance of two short words. */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[NEAREST_NAME_MAX + 1];
	size_t n = strlen(a), m = strlen(b);

	for (size_t k = 0; k <= m; k++)
		row[k] = (unsigned)k;
	for (size_t i = 1; i <= n; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t k = 1; k <= m; k++) {
			unsigned above = row[k], best = diagonal + (a[i - 1] != b[k - 1]);

			if (above + 1 < best)
				best = above + 1;
			if (row[k - 1] + 1 < best)
				best = row[k - 1] + 1;
			diagonal = above;
			row[k] = best;
		}
	}
	return row[m];
}

/* How unlike two names are, in tenths of a letter; a name that goes on where the other ends is close. */
static unsigned unlikeness(const char *wanted, const char *name)
{
	size_t n = strlen(wanted), m = strlen(name);

	if (m > NEAREST_NAME_MAX)
		return UINT32_MAX;
	if (m > n && strncmp(wanted, name, n) == 0 && n >= 3)
		return 15 + (unsigned)(m - n);
	if ((n > m ? n - m : m - n) > 2)
		return UINT32_MAX;
	return 10 * distance(wanted, name);
}

int pkg_universe_nearest(const struct pkg_universe *u, const char *name, size_t max, struct strv *ret)
{
	enum { KEPT_MAX = 8 };
	struct {
		unsigned score;
		uint32_t name;
	} kept[KEPT_MAX];
	size_t n = 0;

	if (max > KEPT_MAX)
		max = KEPT_MAX;
	if (strlen(name) > NEAREST_NAME_MAX)
		return 0;
	for (uint32_t i = 0; i < u->n_names; i++) {
		unsigned score;
		size_t at;

		if (u->names[i].candidate == UNIVERSE_NONE)
			continue;
		score = unlikeness(name, u->names[i].text);
		if (score > 30)
			continue;
		for (at = n; at > 0 && (kept[at - 1].score > score ||
			(kept[at - 1].score == score && strcmp(u->names[kept[at - 1].name].text, u->names[i].text) > 0)); at--)
			if (at < max)
				kept[at] = kept[at - 1];
		if (at < max) {
			kept[at].score = score;
			kept[at].name = i;
			if (n < max)
				n++;
		}
	}
	for (size_t i = 0; i < n; i++)
		if (strv_add(ret, u->names[kept[i].name].text) < 0)
			return -ENOMEM;
	return 0;
}
