#include "plan/schema.h"
#include "lib/nearest.h"
#include "lib/url.h"
#include "plan/syntax.h"

#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define MAX_NAMES 32	 /* keys that one table knows, for the nearest name */
#define MAX_ITEMS 8192	 /* of any list of the plan */
#define WHERE_BYTES 320	 /* "[files.\"/etc/x\"]", for messages */
#define MAX_CPUS 256
#define IMAGE_MIN_BYTES MIB(4)
#define IMAGE_MAX_BYTES (UINT64_C(16) << 40) /* what ext4 with 4 KiB blocks and 32-bit numbers holds */
#define MEMORY_MIN_BYTES MIB(64)
#define MEMORY_MAX_BYTES GIB(1024)
#define STALL_MIN_MS 1000
#define STALL_MAX_MS (24 * 3600 * 1000)

/* What is known while one plan is read. */
struct reader {
	const struct toml_doc *doc;
	struct plan *plan;
	struct plan_faults *faults;
	bool out_of_memory;
};

struct field;

/* One value on its way into the plan. */
struct leaf {
	struct reader *r;
	const struct field *field;
	const struct toml_value *value;
	const char *where; /* "[image]" */
	const char *key;
	void *slot;
};

enum shape {
	SHAPE_LEAF,	 /* read() takes the value */
	SHAPE_TABLE,	 /* sub describes its keys */
	SHAPE_PER_ARCH,	 /* named after an architecture; sub describes it; element `arch` of the array at offset */
	SHAPE_PER_NAME,	 /* any name: add() makes an element, sub describes it */
	SHAPE_ARRAY,	 /* an array of tables: add() makes an element for each */
	SHAPE_GROUP,	 /* any name that is no architecture's: a leaf */
	SHAPE_IGNORED	 /* accepted for the ancestor's plans; said once */
};

struct field {
	const char *name; /* NULL for any name */
	enum shape shape;
	enum plan_key_role role;
	const char *accepts; /* leaves: what is expected, for people */
	void (*read)(const struct leaf *leaf);
	size_t offset; /* of the slot in the object that the table describes */
	size_t stride; /* PER_ARCH: size of an element */
	const struct field *sub;
	size_t n_sub;
	/* PER_NAME, ARRAY: make a new element of the plan; NULL when the name is no good (the fault is reported). */
	void *(*add)(struct reader *r, const struct toml_member *m, const struct toml_value *v);
	/* Tables: check what several keys together say. */
	void (*finish)(struct reader *r, const struct toml_value *table, const char *where, void *object);
};

/* --- faults --- */

static _printf_(4, 0) void report(struct reader *r, bool is_notice, uint32_t offset, const char *fmt, va_list ap)
{
	struct toml_position at = toml_locate(r->doc, offset);
	char message[1024];

	(void)vsnprintf(message, sizeof(message), fmt, ap);
	if (plan_faults_add(r->faults, is_notice, at.line, at.column, message) < 0)
		r->out_of_memory = true;
}

static void fault(struct reader *r, uint32_t offset, const char *fmt, ...) _printf_(3, 4);

static void fault(struct reader *r, uint32_t offset, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	report(r, false, offset, fmt, ap);
	va_end(ap);
}

static void notice(struct reader *r, uint32_t offset, const char *fmt, ...) _printf_(3, 4);

static void notice(struct reader *r, uint32_t offset, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	report(r, true, offset, fmt, ap);
	va_end(ap);
}

/* Say that a value is not what its key takes, showing it when it is short. */
static void fault_value(const struct leaf *l, const struct toml_value *v)
{
	char shown[80];

	if (v->type == TOML_STRING)
		fault(l->r, v->offset, "%s %s: found \"%s\", expected %s", l->where, l->key,
			err_sanitize(shown, sizeof(shown), v->string.data, v->string.len), l->field->accepts);
	else if (v->type == TOML_INTEGER)
		fault(l->r, v->offset, "%s %s: found the integer %lld, expected %s", l->where, l->key, (long long)v->integer,
			l->field->accepts);
	else
		fault(l->r, v->offset, "%s %s: found %s, expected %s", l->where, l->key, toml_type_name(v->type),
			l->field->accepts);
}

/* --- memory --- */

static char *copy_string(struct reader *r, const char *s, size_t len)
{
	char *copy = malloc(len + 1);

	if (!copy) {
		r->out_of_memory = true;
		return NULL;
	}
	memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

static void set_string(struct reader *r, char **slot, const char *s, size_t len)
{
	free(*slot);
	*slot = copy_string(r, s, len);
}

/* Grow an array of the plan by one zeroed element. */
static void *add_element(struct reader *r, void *array_slot, size_t *n, size_t element_bytes)
{
	void **array = array_slot;
	char *grown = reallocarray(*array, *n + 1, element_bytes);

	if (!grown) {
		r->out_of_memory = true;
		return NULL;
	}
	*array = grown;
	memset(grown + *n * element_bytes, 0, element_bytes);
	return grown + (*n)++ * element_bytes;
}

/* --- leaves: one reader per kind of value --- */

/* The value as text without NULs, else NULL with a fault. */
static const char *text_of(const struct leaf *l, const struct toml_value *v)
{
	if (v->type == TOML_STRING && memchr(v->string.data, '\0', v->string.len) == NULL)
		return v->string.data;
	fault_value(l, v);
	return NULL;
}

static void read_checked(const struct leaf *l, bool (*check)(const char *))
{
	const char *s = text_of(l, l->value);

	if (!s)
		return;
	if (!check(s)) {
		fault_value(l, l->value);
		return;
	}
	set_string(l->r, l->slot, s, strlen(s));
}

static bool is_name_line(const char *s)
{
	return syntax_is_line(s, SYNTAX_NAME_MAX_BYTES);
}

static bool is_command_line(const char *s)
{
	return s[0] == '\0' || syntax_is_line(s, 2048);
}

static bool is_label(const char *s)
{
	return syntax_is_line(s, PLAN_LABEL_MAX_BYTES);
}

static bool is_snapshot(const char *s)
{
	return syntax_parse_snapshot(s, NULL);
}

static void read_line(const struct leaf *l)
{
	read_checked(l, is_name_line);
}

static void read_command_line(const struct leaf *l)
{
	read_checked(l, is_command_line);
}

static void read_label(const struct leaf *l)
{
	read_checked(l, is_label);
}

static void read_hostname(const struct leaf *l)
{
	read_checked(l, syntax_is_hostname);
}

static void read_snapshot(const struct leaf *l)
{
	read_checked(l, is_snapshot);
}

static void read_package(const struct leaf *l)
{
	read_checked(l, syntax_is_package_name);
}

static void read_suite(const struct leaf *l)
{
	read_checked(l, syntax_is_suite);
}

static void read_http_url(const struct leaf *l)
{
	read_checked(l, syntax_is_http_url);
}

static void read_boolean(const struct leaf *l)
{
	if (l->value->type == TOML_BOOLEAN)
		*(bool *)l->slot = l->value->boolean;
	else
		fault_value(l, l->value);
}

/* The opposite of a boolean, for a field whose default is true. */
static void read_negated(const struct leaf *l)
{
	read_boolean(l);
	if (l->value->type == TOML_BOOLEAN)
		*(bool *)l->slot = !l->value->boolean;
}

static void read_digest(const struct leaf *l, enum digest_algorithm algorithm)
{
	const char *s = text_of(l, l->value);

	if (s && digest_parse_hex(algorithm, s, l->slot) < 0)
		fault_value(l, l->value);
}

static void read_sha256(const struct leaf *l)
{
	read_digest(l, DIGEST_SHA256);
}

static void read_sha512(const struct leaf *l)
{
	read_digest(l, DIGEST_SHA512);
}

/* Check a local path's text: whether it may be opened is plan_open_beneath()'s to say. */
static bool check_local_path(const struct leaf *l, const struct toml_value *v, const char *path)
{
	char shown[80];

	if (path[0] == '\0' || strlen(path) >= PATH_MAX) {
		fault_value(l, v);
		return false;
	}
	if (!l->r->plan->allow_outside && syntax_path_leaves(path)) {
		fault(l->r, v->offset,
			"%s %s: found \"%s\", which leads outside the plan's folder, expected a path beneath it (--allow-outside "
			"permits it)",
			l->where, l->key, err_sanitize(shown, sizeof(shown), path, strlen(path)));
		return false;
	}
	return true;
}

static void read_local_path(const struct leaf *l)
{
	const char *s = text_of(l, l->value);

	if (s && check_local_path(l, l->value, s))
		set_string(l->r, l->slot, s, strlen(s));
}

/* A plan_location's url: http(s), file: or a path. "" is as if it was not written: the ancestor's plans have it. */
static void read_location(const struct leaf *l)
{
	struct plan_location *location = l->slot;
	const char *s = text_of(l, l->value);
	_cleanup_free_ char *path = NULL;
	struct err e = ERR_INIT;

	if (!s || s[0] == '\0')
		return;
	switch (url_kind(s)) {
	case URL_HTTP:
	case URL_HTTPS:
		if (syntax_is_http_url(s))
			set_string(l->r, &location->url, s, strlen(s));
		else
			fault(l->r, l->value->offset, "%s %s: found a URL without a host, with spaces or too long, expected %s",
				l->where, l->key, l->field->accepts);
		return;
	case URL_FILE:
	case URL_PATH:
		if (url_local_path(s, &path, &e) < 0)
			fault(l->r, l->value->offset, "%s %s: %s", l->where, l->key, e.message);
		else if (check_local_path(l, l->value, path))
			set_string(l->r, &location->path, path, strlen(path));
		return;
	case URL_OTHER:
		fault_value(l, l->value);
		return;
	}
}

static void read_mode(const struct leaf *l)
{
	struct plan_file *file = l->slot;
	unsigned mode;

	if (l->value->type == TOML_STRING && strlen(l->value->string.data) == l->value->string.len &&
		syntax_parse_mode(l->value->string.data, &mode) && mode <= 07777) {
		file->mode = mode;
		file->has_mode = true;
		return;
	}
	fault_value(l, l->value);
}

static bool is_owner_part(const char *s)
{
	return syntax_is_user_name(s) || syntax_is_user_number(s);
}

/* "user:group"; "user" alone stands for "user:user". */
static void read_owner(const struct leaf *l)
{
	struct plan_file *file = l->slot;
	const char *s = text_of(l, l->value), *colon;
	_cleanup_free_ char *user = NULL;

	if (!s)
		return;
	colon = strchr(s, ':');
	user = copy_string(l->r, s, colon ? (size_t)(colon - s) : strlen(s));
	if (!user)
		return;
	if (!is_owner_part(user) || (colon && !is_owner_part(colon + 1))) {
		fault_value(l, l->value);
		return;
	}
	set_string(l->r, &file->owner, user, strlen(user));
	set_string(l->r, &file->group, colon ? colon + 1 : user, strlen(colon ? colon + 1 : user));
}

static void read_content(const struct leaf *l)
{
	struct plan_file *file = l->slot;

	if (l->value->type != TOML_STRING) {
		fault_value(l, l->value);
		return;
	}
	set_string(l->r, &file->text, l->value->string.data, l->value->string.len);
	file->text_len = l->value->string.len;
}

static void read_script(const struct leaf *l)
{
	struct plan_setup *setup = l->slot;

	if (l->value->type != TOML_STRING) {
		fault_value(l, l->value);
		return;
	}
	set_string(l->r, &setup->script, l->value->string.data, l->value->string.len);
	setup->script_len = l->value->string.len;
}

/* The hash is a secret: faults do not show it. */
static void read_password(const struct leaf *l)
{
	struct plan_user *user = l->slot;
	const struct toml_value *v = l->value;

	if (v->type != TOML_STRING || strlen(v->string.data) != v->string.len || !syntax_is_password(v->string.data)) {
		fault(l->r, v->offset, "%s %s: found something else, expected %s", l->where, l->key, l->field->accepts);
		return;
	}
	if (v->string.data[0] == '$') {
		user->password = PLAN_PASSWORD_HASH;
		set_string(l->r, &user->password_hash, v->string.data, v->string.len);
		return;
	}
	user->password = v->string.data[0] == 'l' ? PLAN_PASSWORD_LOCKED : PLAN_PASSWORD_EMPTY;
}

static void read_size(const struct leaf *l, uint64_t min, uint64_t max, unsigned multiple)
{
	const char *s = text_of(l, l->value);
	uint64_t bytes;

	if (!s)
		return;
	if (!syntax_parse_size(s, &bytes) || bytes < min || bytes > max || bytes % multiple != 0)
		fault_value(l, l->value);
	else
		*(uint64_t *)l->slot = bytes;
}

static void read_image_size(const struct leaf *l)
{
	read_size(l, IMAGE_MIN_BYTES, IMAGE_MAX_BYTES, 4096);
}

static void read_memory(const struct leaf *l)
{
	read_size(l, MEMORY_MIN_BYTES, MEMORY_MAX_BYTES, 1);
}

static void read_cpus(const struct leaf *l)
{
	if (l->value->type != TOML_INTEGER || l->value->integer < 1 || l->value->integer > MAX_CPUS)
		fault_value(l, l->value);
	else
		*(unsigned *)l->slot = (unsigned)l->value->integer;
}

static void read_stall_timeout(const struct leaf *l)
{
	const char *s = text_of(l, l->value);
	uint64_t ms;

	if (!s)
		return;
	if (!syntax_parse_duration(s, &ms) || ms < STALL_MIN_MS || ms > STALL_MAX_MS)
		fault_value(l, l->value);
	else
		*(uint64_t *)l->slot = ms;
}

static bool is_partuuid(const char *s)
{
	size_t n = strlen(s);

	/* A GPT's UUID, or an MBR's "12345678-01". */
	if (n != 36 && n != 11)
		return false;
	for (size_t i = 0; i < n; i++)
		if (i == 8 || (n == 36 && (i == 13 || i == 18 || i == 23)) ? s[i] != '-'
									   : !strchr("0123456789abcdefABCDEF", s[i]))
			return false;
	return true;
}

/* The same partition of the base for every architecture. The slot is the first architecture's. */
static void read_partition(const struct leaf *l)
{
	struct plan_base *bases = l->slot;
	const struct toml_value *v = l->value;
	struct plan_partition found = { 0 };
	const char *value = NULL;

	if (v->type == TOML_INTEGER && v->integer >= 1 && v->integer <= 128) {
		found.by = PLAN_PARTITION_NUMBER;
		found.number = (unsigned)v->integer;
	} else if (v->type == TOML_STRING && strlen(v->string.data) == v->string.len) {
		const char *s = v->string.data;

		if (strncmp(s, "LABEL=", 6) == 0 && syntax_is_line(s + 6, PLAN_LABEL_MAX_BYTES))
			found.by = PLAN_PARTITION_LABEL, value = s + 6;
		else if (strncmp(s, "PARTUUID=", 9) == 0 && is_partuuid(s + 9))
			found.by = PLAN_PARTITION_PARTUUID, value = s + 9;
	}
	if (found.by == PLAN_PARTITION_DISCOVER) {
		fault_value(l, v);
		return;
	}
	for (unsigned a = 0; a < ARCH_COUNT; a++) {
		bases[a].partition.by = found.by;
		bases[a].partition.number = found.number;
		if (!value)
			continue;
		set_string(l->r, &bases[a].partition.value, value, strlen(value));
		for (char *c = bases[a].partition.value; found.by == PLAN_PARTITION_PARTUUID && c && *c; c++)
			if (*c >= 'A' && *c <= 'F')
				*c = (char)(*c - 'A' + 'a');
	}
}

static void read_from(const struct leaf *l)
{
	const char *s = text_of(l, l->value);

	if (s && strcmp(s, "base") != 0)
		fault_value(l, l->value);
}

static bool is_member(const char *s)
{
	while (s[0] == '.' && s[1] == '/')
		s += 2;
	return syntax_is_normal_relative(s);
}

static void read_member(const struct leaf *l)
{
	const char *s = text_of(l, l->value);

	if (!s || s[0] == '\0')
		return;
	if (!is_member(s)) {
		fault_value(l, l->value);
		return;
	}
	while (s[0] == '.' && s[1] == '/')
		s += 2;
	set_string(l->r, l->slot, s, strlen(s));
}

/* [kernel] file, or the ancestor's local_path: which of them was written is kernel_finish()'s to see. */
static void read_kernel_file(const struct leaf *l)
{
	struct plan_location *location = l->slot;
	const char *s = text_of(l, l->value);

	if (s && s[0] != '\0' && check_local_path(l, l->value, s))
		set_string(l->r, &location->path, s, strlen(s));
}

/* A list of strings, each of which `check` accepts. */
static void read_list(const struct leaf *l, bool (*check)(const char *))
{
	const struct toml_value *v = l->value;

	if (v->type != TOML_ARRAY || v->array.n > MAX_ITEMS) {
		fault_value(l, v);
		return;
	}
	for (size_t i = 0; i < v->array.n; i++) {
		const char *s = text_of(l, v->array.items[i]);

		if (!s)
			continue;
		if (!check(s))
			fault_value(l, v->array.items[i]);
		else if (strv_add(l->slot, s) < 0)
			l->r->out_of_memory = true;
	}
}

static bool is_pattern(const char *s)
{
	return syntax_is_line(s, 1024);
}

static bool is_key_line(const char *s)
{
	return syntax_is_line(s, 16384) && s[strspn(s, " ")] != '\0';
}

/* An absolute path whose parts may have wildcards, but which does not stand for everything. */
static bool is_cleanup_pattern(const char *s)
{
	struct err e = ERR_INIT;

	return guest_path_check(s, strlen(s), &e) == 0 && s[1 + strspn(s + 1, "*?/")] != '\0';
}

static void read_packages(const struct leaf *l)
{
	read_list(l, syntax_is_package_name);
}

static void read_archives(const struct leaf *l)
{
	read_list(l, syntax_is_http_url);
}

static void read_suites(const struct leaf *l)
{
	read_list(l, syntax_is_suite);
}

static void read_patterns(const struct leaf *l)
{
	read_list(l, is_pattern);
}

static void read_key_lines(const struct leaf *l)
{
	read_list(l, is_key_line);
}

static void read_cleanup(const struct leaf *l)
{
	read_list(l, is_cleanup_pattern);
}

static void read_local_paths(const struct leaf *l)
{
	const struct toml_value *v = l->value;

	if (v->type != TOML_ARRAY || v->array.n > MAX_ITEMS) {
		fault_value(l, v);
		return;
	}
	for (size_t i = 0; i < v->array.n; i++) {
		const char *s = text_of(l, v->array.items[i]);

		if (s && check_local_path(l, v->array.items[i], s) && strv_add(l->slot, s) < 0)
			l->r->out_of_memory = true;
	}
}

/* Units get the suffix that systemctl would add, so that one unit has one name. */
static void read_units(const struct leaf *l)
{
	struct strv *units = l->slot;
	size_t first = units->n;

	read_list(l, syntax_is_unit_name);
	for (size_t i = first; i < units->n; i++) {
		char *full;

		if (syntax_unit_has_suffix(units->items[i]))
			continue;
		if (asprintf(&full, "%s.service", units->items[i]) < 0) {
			l->r->out_of_memory = true;
			return;
		}
		free(units->items[i]);
		units->items[i] = full;
	}
}

/* --- what several keys together say --- */

static const struct toml_value *given(const struct toml_value *table, const char *key)
{
	const struct toml_value *v = toml_get(&table->table, key);

	/* The ancestor's url = "" and local_path = "" are as if they were not there. */
	if (v && v->type == TOML_STRING && v->string.len == 0)
		return NULL;
	return v;
}


static void base_finish(struct reader *r, const struct toml_value *table, const char *where, void *object)
{
	struct plan *plan = object;

	for (unsigned a = 0; a < ARCH_COUNT; a++)
		if (toml_get(&table->table, arch_name((enum arch)a)) || plan_location_given(&plan->base[a].location))
			return;
	fault(r, table->offset, "%s: found no image, expected [base.amd64] or [base.arm64] with a url", where);
}

/* Refuse keys that only mean something beside another. */
static void refuse_beside(struct reader *r, const struct toml_value *table, const char *where, const char *const *keys,
	size_t n, const char *why)
{
	for (size_t i = 0; i < n; i++) {
		const struct toml_value *v = given(table, keys[i]);

		if (v)
			fault(r, v->offset, "%s %s: found, but %s", where, keys[i], why);
	}
}

/* A checksum file vouches for what is fetched from a URL and has no digest in the plan, which would say more. */
static void base_arch_finish(struct reader *r, const struct toml_value *table, const char *where, void *object)
{
	static const char *const of_checksums[] = { "checksums_key", "checksums_signature" };
	static const char *const of_key[] = { "checksums_signature" };
	static const char *const of_url[] = { "checksums" };
	const struct plan_base *base = object;

	if (!given(table, "url"))
		fault(r, table->offset, "%s: found no url, expected url = the cloud image (http://, https://, file: or a path)",
			where);
	if (!given(table, "checksums"))
		refuse_beside(r, table, where, of_checksums, ARRAY_SIZE(of_checksums), "it belongs beside checksums, which is not there");
	else if (!given(table, "checksums_key"))
		refuse_beside(r, table, where, of_key, 1, "it belongs beside checksums_key, which is not there");
	if (base->location.path)
		refuse_beside(r, table, where, of_url, 1, "the image is local: give its sha256 or sha512 instead, if any");
	else if (given(table, "sha256") || given(table, "sha512"))
		refuse_beside(r, table, where, of_url, 1, "the plan gives the image's digest itself: take one of them out");
}

/* In the ancestor's plans local_path wins over url and path, which may stand beside it. */
static void prefer_local_path(struct reader *r, const struct toml_value *local, struct plan_kernel *kernel)
{
	freep(&kernel->location.url);
	kernel->location.url = NULL;
	kernel->location.sha256 = kernel->location.sha512 = (struct digest){ 0 };
	freep(&kernel->member);
	kernel->member = NULL;
	if (local->type == TOML_STRING)
		set_string(r, &kernel->location.path, local->string.data, local->string.len);
}

static void kernel_arch_finish(struct reader *r, const struct toml_value *table, const char *where, void *object)
{
	static const char *const ways[] = { "url", "package", "file", "local_path", "from" };
	static const char *const of_url[] = { "path", "sha256", "sha512" };
	static const char *const of_file[] = { "modules" };
	const struct toml_value *local = given(table, "local_path");
	struct plan_kernel *kernel = object;
	const char *found = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		const struct toml_value *v = given(table, ways[i]);

		if (!v || (local && strcmp(ways[i], "url") == 0))
			continue;
		if (found)
			fault(r, v->offset, "%s: found %s beside %s, expected exactly one of url, package, file and from", where,
				ways[i], found);
		else
			found = ways[i];
	}
	if (local)
		prefer_local_path(r, local, kernel);
	else if (!found || strcmp(found, "url") != 0)
		refuse_beside(r, table, where, of_url, ARRAY_SIZE(of_url), "it belongs beside url, which is not there");
	if (!found || strcmp(found, "package") == 0 || strcmp(found, "from") == 0)
		refuse_beside(r, table, where, of_file, ARRAY_SIZE(of_file),
			"a kernel from a package or the base brings its own modules");
	if (!found || strcmp(found, "from") == 0)
		kernel->kind = PLAN_KERNEL_FROM_BASE;
	else if (strcmp(found, "package") == 0)
		kernel->kind = PLAN_KERNEL_PACKAGE;
	else
		kernel->kind = strcmp(found, "url") == 0 && kernel->member ? PLAN_KERNEL_ARCHIVE : PLAN_KERNEL_FILE;
}

static void repository_finish(struct reader *r, const struct toml_value *table, const char *where, void *object)
{
	const struct plan_repository *repository = object;
	size_t n = repository->suite ? strlen(repository->suite) : 0;
	bool flat = n > 0 && repository->suite[n - 1] == '/';

	if (!toml_get(&table->table, "uri"))
		fault(r, table->offset, "%s: found no uri, expected uri = \"https://…\"", where);
	if (!toml_get(&table->table, "suite"))
		fault(r, table->offset, "%s: found no suite, expected suite = \"bookworm\", say", where);
	else if (flat && repository->components.n > 0)
		fault(r, table->offset, "%s: found components beside a suite that ends in a slash (a flat repository), expected "
				"none",
			where);
	else if (n > 0 && !flat && !toml_get(&table->table, "components"))
		fault(r, table->offset, "%s: found no components, expected components = [\"main\"], say", where);
}

/* Exactly one of content, source and url; sha256 beside url only. */
static void check_source(struct reader *r, const struct toml_value *table, const char *where, const char *const *ways,
	size_t n, const char *expected)
{
	static const char *const of_url[] = { "sha256" };
	const char *found = NULL;

	for (size_t i = 0; i < n; i++) {
		const struct toml_value *v = toml_get(&table->table, ways[i]);

		if (v && found)
			fault(r, v->offset, "%s: found %s beside %s, expected exactly one of %s", where, ways[i], found, expected);
		else if (v)
			found = ways[i];
	}
	if (!found)
		fault(r, table->offset, "%s: found nothing to take, expected exactly one of %s", where, expected);
	else if (strcmp(found, "url") == 0 && !given(table, "url"))
		fault(r, table->offset, "%s url: found \"\", expected an http:// or https:// URL", where);
	else if (strcmp(found, "url") != 0)
		refuse_beside(r, table, where, of_url, 1, "it belongs beside url, which is not there");
}

static void file_finish(struct reader *r, const struct toml_value *table, const char *where, void *object)
{
	static const char *const ways[] = { "content", "source", "url" };
	struct plan_file *file = object;

	check_source(r, table, where, ways, ARRAY_SIZE(ways), "content, source and url");
	file->kind = toml_get(&table->table, "content") ? PLAN_CONTENT_TEXT : PLAN_CONTENT_LOCATION;
	if (!file->owner)
		set_string(r, &file->owner, "root", 4);
	if (!file->group)
		set_string(r, &file->group, "root", 4);
}

static void input_finish(struct reader *r, const struct toml_value *table, const char *where, void *object)
{
	static const char *const ways[] = { "source", "url" };

	(void)object;
	check_source(r, table, where, ways, ARRAY_SIZE(ways), "source and url");
}

static void setup_finish(struct reader *r, const struct toml_value *table, const char *where, void *object)
{
	const struct toml_value *file = toml_get(&table->table, "file");

	(void)object;
	if (file && toml_get(&table->table, "script"))
		fault(r, file->offset, "%s: found file beside script, expected one of them", where);
}

/* A unit that is asked for two things at once. */
static void fault_both(struct reader *r, const struct toml_value *table, const char *where, const struct strv *a,
	const struct strv *b, const char *a_name, const char *b_name)
{
	for (size_t i = 0; i < a->n; i++)
		if (strv_contains(b, a->items[i]))
			fault(r, table->offset, "%s: found %s both in %s and in %s, expected it in one of them", where,
				a->items[i], a_name, b_name);
}

static void services_finish(struct reader *r, const struct toml_value *table, const char *where, void *object)
{
	struct plan_services *s = &((struct plan *)object)->services;

	strv_sort(&s->enable), strv_uniq(&s->enable);
	strv_sort(&s->disable), strv_uniq(&s->disable);
	strv_sort(&s->mask), strv_uniq(&s->mask);
	fault_both(r, table, where, &s->enable, &s->disable, "enable", "disable");
	fault_both(r, table, where, &s->enable, &s->mask, "enable", "mask");
}

/* Packages that nobody signed come in only where the plan says so by name. */
static void check_repository_keys(struct reader *r, const struct toml_value *apt, const char *where)
{
	const struct toml_value *list = toml_get(&apt->table, "repository");

	/* One that could not be made has its fault already, and the numbers no longer agree. */
	if (!list || list->type != TOML_ARRAY || list->array.n != r->plan->apt.n_repositories)
		return;
	for (size_t i = 0; i < list->array.n; i++) {
		const struct plan_repository *repository = &r->plan->apt.repositories[i];
		const struct toml_value *v = list->array.items[i];

		if (v->type == TOML_TABLE && repository->uri && !toml_get(&v->table, "key") && !plan_trusts(r->plan, repository->uri))
			fault(r, v->offset,
				"[[apt.repository]]: found no key, expected key = the certificate that signs it, a path beneath the plan's "
				"folder (or its uri in %s trusted: packages that nobody signed)", where);
	}
}

static void apt_finish(struct reader *r, const struct toml_value *table, const char *where, void *object)
{
	struct plan *plan = object;

	strv_sort(&plan->apt.remove), strv_uniq(&plan->apt.remove);
	strv_sort(&plan->apt.debs), strv_uniq(&plan->apt.debs);
	strv_sort(&plan->apt.trusted), strv_uniq(&plan->apt.trusted);
	check_repository_keys(r, table, where);
	for (size_t i = 0; i < plan->apt.remove.n; i++) {
		const char *name = plan->apt.remove.items[i];
		bool asked = strv_contains(&plan->packages, name);

		for (unsigned a = 0; a < ARCH_COUNT; a++)
			asked = asked || strv_contains(&plan->packages_of_arch[a], name);
		if (asked)
			fault(r, table->offset, "%s remove: found %s, which [packages] asks for, expected it in one of them", where,
				name);
	}
}

/* --- elements with names of their own --- */

static void *add_repository(struct reader *r, const struct toml_member *m, const struct toml_value *v)
{
	(void)m;
	(void)v;
	return add_element(r, &r->plan->apt.repositories, &r->plan->apt.n_repositories, sizeof(struct plan_repository));
}

static bool is_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	return strncmp(path, folder, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

static void *add_file(struct reader *r, const struct toml_member *m, const struct toml_value *v)
{
	/* Mounted over while the image is provisioned, or ours alone: what is put there would not stay. */
	static const char *const not_ours[] = { "/proc", "/sys", "/dev", "/imgbuild" };
	struct guest_path path = { NULL };
	struct err e = ERR_INIT;
	struct plan_file *file;

	(void)v;
	if (guest_path_parse(m->key.data, m->key.len, &path, &e) < 0) {
		if (e.code == -ENOMEM)
			r->out_of_memory = true;
		else
			fault(r, m->key_offset, "[files]: %s", e.message);
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(not_ours); i++)
		if (is_below(path.text, not_ours[i]) || path.text[1] == '\0') {
			fault(r, m->key_offset, "[files]: found \"%s\", expected a path that stays in an image: not / itself, nor "
						"below /proc, /sys, /dev and /imgbuild",
				path.text);
			guest_path_release(&path);
			return NULL;
		}
	file = add_element(r, &r->plan->files, &r->plan->n_files, sizeof(*file));
	if (!file) {
		guest_path_release(&path);
		return NULL;
	}
	file->destination = path;
	file->mode = PLAN_DEFAULT_FILE_MODE;
	return file;
}

static void *add_named(struct reader *r, const struct toml_member *m, bool (*check)(const char *), const char *table,
	const char *expected, void *array_slot, size_t *n, size_t element_bytes)
{
	char shown[80];
	char **element;

	if (strlen(m->key.data) != m->key.len || !check(m->key.data)) {
		fault(r, m->key_offset, "[%s]: found the name \"%s\", expected %s", table,
			err_sanitize(shown, sizeof(shown), m->key.data, m->key.len), expected);
		return NULL;
	}
	/* Both kinds of element begin with their name. */
	element = add_element(r, array_slot, n, element_bytes);
	if (element)
		*element = copy_string(r, m->key.data, m->key.len);
	return element;
}

static void *add_input(struct reader *r, const struct toml_member *m, const struct toml_value *v)
{
	_Static_assert(offsetof(struct plan_input, name) == 0, "add_named() writes the name at the front");
	(void)v;
	return add_named(r, m, syntax_is_plain_name, "inputs", "letters, digits, . _ and -, a letter or digit first",
		&r->plan->inputs, &r->plan->n_inputs, sizeof(struct plan_input));
}

static void *add_user(struct reader *r, const struct toml_member *m, const struct toml_value *v)
{
	_Static_assert(offsetof(struct plan_user, name) == 0, "add_named() writes the name at the front");
	(void)v;
	return add_named(r, m, syntax_is_user_name, "users", "a user's name: a-z or _, then a-z, 0-9, _ and -, at most 32",
		&r->plan->users, &r->plan->n_users, sizeof(struct plan_user));
}

/* --- the tables --- */

#define ACCEPTS_LOCATION "an http:// or https:// URL, file: or a path beneath the plan's folder"
#define ACCEPTS_URL "an http:// or https:// URL"
#define ACCEPTS_PATH "a path beneath the plan's folder"
#define ACCEPTS_SHA256 "a SHA-256: 64 hexadecimal digits"
#define ACCEPTS_SHA512 "a SHA-512: 128 hexadecimal digits"
#define ACCEPTS_PACKAGES "a list of package names such as [\"podman\", \"crun\"] (versions are the lock's)"
#define ACCEPTS_UNITS "a list of units such as [\"chrony\", \"systemd-networkd.service\"]"

#define LEAF(key, in, how, at, what)                                                                         \
	{                                                                                                    \
		.name = (key), .shape = SHAPE_LEAF, .role = PLAN_KEY_##in, .read = (how), .offset = (at),            \
		.accepts = (what)                                                                            \
	}
#define IGNORED(key)                                                                                         \
	{                                                                                                    \
		.name = (key), .shape = SHAPE_IGNORED, .role = PLAN_KEY_OUT                                  \
	}
#define SUB(table) .sub = (table), .n_sub = ARRAY_SIZE(table)

static const struct field base_arch_fields[] = {
	LEAF("url", BY_ANSWER, read_location, offsetof(struct plan_base, location), ACCEPTS_LOCATION),
	LEAF("sha256", IN, read_sha256, offsetof(struct plan_base, location.sha256), ACCEPTS_SHA256),
	LEAF("sha512", BY_ANSWER, read_sha512, offsetof(struct plan_base, location.sha512), ACCEPTS_SHA512),
	LEAF("checksums", BY_ANSWER, read_http_url, offsetof(struct plan_base, checksums_url), ACCEPTS_URL),
	LEAF("checksums_key", BY_ANSWER, read_local_path, offsetof(struct plan_base, checksums_key), ACCEPTS_PATH),
	LEAF("checksums_signature", OUT, read_http_url, offsetof(struct plan_base, checksums_signature_url), ACCEPTS_URL),
};

static const struct field base_fields[] = {
	LEAF("partition", IN, read_partition, offsetof(struct plan, base),
		"a number from 1 to 128, \"LABEL=…\" or \"PARTUUID=…\""),
	IGNORED("version"),
	IGNORED("codename"),
	{ .shape = SHAPE_PER_ARCH,
		.offset = offsetof(struct plan, base),
		.stride = sizeof(struct plan_base),
		SUB(base_arch_fields),
		.finish = base_arch_finish },
};

static const struct field kernel_arch_fields[] = {
	LEAF("url", BY_ANSWER, read_location, offsetof(struct plan_kernel, location), ACCEPTS_LOCATION),
	LEAF("path", BY_ANSWER, read_member, offsetof(struct plan_kernel, member),
		"a relative path in the archive, without . and .. parts"),
	LEAF("sha256", BY_ANSWER, read_sha256, offsetof(struct plan_kernel, location.sha256), ACCEPTS_SHA256),
	LEAF("sha512", BY_ANSWER, read_sha512, offsetof(struct plan_kernel, location.sha512), ACCEPTS_SHA512),
	LEAF("package", BY_ANSWER, read_package, offsetof(struct plan_kernel, package),
		"a package's name such as \"linux-image-cloud-amd64\""),
	LEAF("file", IN, read_kernel_file, offsetof(struct plan_kernel, location), ACCEPTS_PATH),
	LEAF("local_path", IN, read_kernel_file, offsetof(struct plan_kernel, location), ACCEPTS_PATH),
	LEAF("modules", IN, read_local_path, offsetof(struct plan_kernel, modules), ACCEPTS_PATH),
	LEAF("from", BY_ANSWER, read_from, 0, "\"base\""),
	LEAF("cmdline", OUT, read_command_line, offsetof(struct plan_kernel, cmdline), "one line of at most 2048 bytes"),
};

static const struct field kernel_fields[] = {
	{ .shape = SHAPE_PER_ARCH,
		.offset = offsetof(struct plan, kernel),
		.stride = sizeof(struct plan_kernel),
		SUB(kernel_arch_fields),
		.finish = kernel_arch_finish },
};

static const struct field packages_arch_fields[] = {
	{ .shape = SHAPE_GROUP, .role = PLAN_KEY_BY_ANSWER, .read = read_packages, .accepts = ACCEPTS_PACKAGES },
};

static const struct field packages_fields[] = {
	{ .shape = SHAPE_PER_ARCH,
		.offset = offsetof(struct plan, packages_of_arch),
		.stride = sizeof(struct strv),
		SUB(packages_arch_fields) },
	{ .shape = SHAPE_GROUP,
		.role = PLAN_KEY_BY_ANSWER,
		.read = read_packages,
		.offset = offsetof(struct plan, packages),
		.accepts = ACCEPTS_PACKAGES },
};

static const struct field repository_fields[] = {
	LEAF("uri", BY_ANSWER, read_http_url, offsetof(struct plan_repository, uri), "an http:// or https:// URL"),
	LEAF("suite", BY_ANSWER, read_suite, offsetof(struct plan_repository, suite),
		"a suite such as \"bookworm-backports\", or \"./\" for a flat repository"),
	LEAF("components", BY_ANSWER, read_suites, offsetof(struct plan_repository, components),
		"a list such as [\"main\"]"),
	LEAF("key", BY_ANSWER, read_local_path, offsetof(struct plan_repository, key), ACCEPTS_PATH),
};

static const struct field apt_fields[] = {
	LEAF("remove", BY_ANSWER, read_packages, offsetof(struct plan, apt.remove), ACCEPTS_PACKAGES),
	LEAF("recommends", BY_ANSWER, read_boolean, offsetof(struct plan, apt.recommends), "true or false"),
	LEAF("snapshot", BY_ANSWER, read_snapshot, offsetof(struct plan, apt.snapshot),
		"a time such as \"20261101T000000Z\", in UTC"),
	LEAF("debs", IN, read_local_paths, offsetof(struct plan, apt.debs),
		"a list of paths beneath the plan's folder"),
	LEAF("trusted", BY_ANSWER, read_archives, offsetof(struct plan, apt.trusted),
		"a list of http:// or https:// archives, as their sources name them"),
	LEAF("check_valid_until", BY_ANSWER, read_negated, offsetof(struct plan, apt.ignore_valid_until), "true or false"),
	{ .name = "repository", .shape = SHAPE_ARRAY, .add = add_repository, SUB(repository_fields),
		.finish = repository_finish },
};

static const struct field services_fields[] = {
	LEAF("enable", IN, read_units, offsetof(struct plan, services.enable), ACCEPTS_UNITS),
	LEAF("disable", IN, read_units, offsetof(struct plan, services.disable), ACCEPTS_UNITS),
	LEAF("mask", IN, read_units, offsetof(struct plan, services.mask), ACCEPTS_UNITS),
};

static const struct field file_fields[] = {
	LEAF("content", IN, read_content, 0, "a string"),
	LEAF("source", IN, read_local_path, offsetof(struct plan_file, location.path), ACCEPTS_PATH),
	LEAF("url", BY_ANSWER, read_location, offsetof(struct plan_file, location), ACCEPTS_LOCATION),
	LEAF("sha256", IN, read_sha256, offsetof(struct plan_file, location.sha256), ACCEPTS_SHA256),
	LEAF("mode", IN, read_mode, 0, "octal digits in quotes such as \"0644\""),
	LEAF("owner", IN, read_owner, 0, "\"user:group\", names or numbers"),
};

static const struct field files_fields[] = {
	{ .shape = SHAPE_PER_NAME, .add = add_file, SUB(file_fields), .finish = file_finish },
};

static const struct field input_fields[] = {
	LEAF("source", IN, read_local_path, offsetof(struct plan_input, location.path), ACCEPTS_PATH),
	LEAF("url", BY_ANSWER, read_location, offsetof(struct plan_input, location), ACCEPTS_LOCATION),
	LEAF("sha256", IN, read_sha256, offsetof(struct plan_input, location.sha256), ACCEPTS_SHA256),
};

static const struct field inputs_fields[] = {
	{ .shape = SHAPE_PER_NAME, .add = add_input, SUB(input_fields), .finish = input_finish },
};

static const struct field user_fields[] = {
	LEAF("authorized_keys", IN, read_key_lines, offsetof(struct plan_user, authorized_keys),
		"a list of lines such as [\"ssh-ed25519 AAAA… name\"]"),
	LEAF("password", IN, read_password, 0, "\"locked\", \"empty\" or a hash such as \"$6$…\""),
};

static const struct field users_fields[] = {
	{ .shape = SHAPE_PER_NAME, .add = add_user, SUB(user_fields) },
};

static const struct field fstab_fields[] = {
	LEAF("remove_patterns", IN, read_patterns, offsetof(struct plan, fstab.remove_patterns),
		"a list of texts such as [\"LABEL=BOOT\"]"),
	LEAF("keep", IN, read_boolean, offsetof(struct plan, fstab.keep), "true or false"),
};

static const struct field setup_fields[] = {
	LEAF("script", IN, read_script, offsetof(struct plan, setup), "a string"),
	LEAF("file", IN, read_local_path, offsetof(struct plan, setup.file), ACCEPTS_PATH),
};

static const struct field cleanup_fields[] = {
	LEAF("remove_dirs", IN, read_cleanup, offsetof(struct plan, cleanup),
		"a list of absolute paths such as [\"/usr/share/doc/*\"]"),
};

static const struct field image_fields[] = {
	LEAF("size", IN, read_image_size, offsetof(struct plan, image.size_bytes),
		"a size such as \"10G\", a multiple of 4 KiB from 4M to 16T"),
	LEAF("label", IN, read_label, offsetof(struct plan, image.label), "at most 16 bytes"),
	LEAF("hostname", IN, read_hostname, offsetof(struct plan, image.hostname), "a host's name such as \"vm1\""),
};

static const struct field provision_fields[] = {
	LEAF("memory", OUT, read_memory, offsetof(struct plan, provision.memory_bytes),
		"a size such as \"2G\", from 64M to 1024G"),
	LEAF("cpus", OUT, read_cpus, offsetof(struct plan, provision.cpus), "an integer from 1 to 256"),
	LEAF("stall_timeout", OUT, read_stall_timeout, offsetof(struct plan, provision.stall_timeout_ms),
		"a time such as \"120s\", from 1s to 24h"),
};

static const struct field root_fields[] = {
	LEAF("name", OUT, read_line, offsetof(struct plan, name), "one line of at most 255 bytes"),
	{ .name = "base", .shape = SHAPE_TABLE, SUB(base_fields), .finish = base_finish },
	{ .name = "kernel", .shape = SHAPE_TABLE, SUB(kernel_fields) },
	{ .name = "packages", .shape = SHAPE_TABLE, SUB(packages_fields) },
	{ .name = "apt", .shape = SHAPE_TABLE, SUB(apt_fields) },
	{ .name = "services", .shape = SHAPE_TABLE, SUB(services_fields), .finish = services_finish },
	{ .name = "files", .shape = SHAPE_TABLE, SUB(files_fields) },
	{ .name = "inputs", .shape = SHAPE_TABLE, SUB(inputs_fields) },
	{ .name = "users", .shape = SHAPE_TABLE, SUB(users_fields) },
	{ .name = "fstab", .shape = SHAPE_TABLE, SUB(fstab_fields) },
	{ .name = "setup", .shape = SHAPE_TABLE, SUB(setup_fields), .finish = setup_finish },
	{ .name = "cleanup", .shape = SHAPE_TABLE, SUB(cleanup_fields) },
	{ .name = "image", .shape = SHAPE_TABLE, SUB(image_fields) },
	{ .name = "provision", .shape = SHAPE_TABLE, SUB(provision_fields) },
	IGNORED("paths"),
	IGNORED("kernel_profiles"),
};

/* --- the walker --- */

static void walk_table(struct reader *r, const struct field *fields, size_t n_fields, const struct toml_value *table,
	const char *where, void *object);

/* "[a.b]" and the name c give "[a.b.c]"; the root is "". */
static void extend_where(char out[static WHERE_BYTES], const char *where, const struct toml_string *key)
{
	char shown[160];
	size_t n = strlen(where);
	bool bare = key->len > 0;

	(void)err_sanitize(shown, sizeof(shown), key->data, key->len);
	for (const char *c = shown; *c; c++)
		bare = bare && (strchr("_-", *c) || (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') ||
				       (*c >= 'A' && *c <= 'Z'));
	(void)snprintf(out, WHERE_BYTES, bare ? "%.*s%s%s]" : "%.*s%s\"%s\"]", n > 0 ? (int)n - 1 : 0, where,
		n > 0 ? "." : "[", shown);
}

/* Find the field that takes a key: by its name, else what takes an architecture, else what takes any name. */
static const struct field *find_field(const struct field *fields, size_t n, const struct toml_member *m, enum arch *ret_arch)
{
	const struct field *any = NULL, *per_arch = NULL;
	bool is_arch = strlen(m->key.data) == m->key.len && arch_parse(m->key.data, ret_arch) == 0 &&
		       strcmp(m->key.data, arch_name(*ret_arch)) == 0;

	for (size_t i = 0; i < n; i++) {
		if (fields[i].name && strlen(fields[i].name) == m->key.len &&
			memcmp(fields[i].name, m->key.data, m->key.len) == 0)
			return &fields[i];
		if (fields[i].shape == SHAPE_PER_ARCH && is_arch)
			per_arch = &fields[i];
		if (fields[i].shape == SHAPE_PER_NAME || fields[i].shape == SHAPE_GROUP)
			any = &fields[i];
	}
	/* A list of packages may be named after an architecture: only a table is that architecture's. */
	return per_arch && (m->value->type == TOML_TABLE || !any) ? per_arch : any;
}

/* Report a key that no field takes, with what there is and the nearest of it. */
static void fault_unknown(struct reader *r, const struct field *fields, size_t n, const struct toml_member *m,
	const char *where)
{
	const char *names[MAX_NAMES];
	char shown[80], accepted[512] = "";
	const char *nearest;
	size_t n_names = 0, len = 0;

	for (size_t i = 0; i < n && n_names + ARCH_COUNT < MAX_NAMES; i++) {
		if (fields[i].name && fields[i].shape != SHAPE_IGNORED)
			names[n_names++] = fields[i].name;
		for (unsigned a = 0; fields[i].shape == SHAPE_PER_ARCH && a < ARCH_COUNT; a++)
			names[n_names++] = arch_name((enum arch)a);
	}
	for (size_t i = 0; i < n_names && len < sizeof(accepted); i++)
		len += (size_t)snprintf(accepted + len, sizeof(accepted) - len, "%s%s", i > 0 ? ", " : "", names[i]);
	(void)err_sanitize(shown, sizeof(shown), m->key.data, m->key.len);
	nearest = nearest_name(names, n_names, shown);
	if (nearest)
		fault(r, m->key_offset, "%s%sfound the unknown key `%s`, did you mean `%s`? (known: %s)", where,
			*where ? ": " : "", shown, nearest, accepted);
	else
		fault(r, m->key_offset, "%s%sfound the unknown key `%s`, expected one of %s", where, *where ? ": " : "", shown,
			accepted);
}

static void walk_sub(struct reader *r, const struct field *f, const struct toml_value *v, const char *where, void *object)
{
	if (v->type != TOML_TABLE) {
		fault(r, v->offset, "%s: found %s, expected a table", where, toml_type_name(v->type));
		return;
	}
	if (!object)
		return;
	walk_table(r, f->sub, f->n_sub, v, where, object);
	if (f->finish)
		f->finish(r, v, where, object);
}

static void walk_array(struct reader *r, const struct field *f, const struct toml_member *m, const char *where)
{
	char inner[WHERE_BYTES + 2];

	if (m->value->type != TOML_ARRAY) {
		fault(r, m->value->offset, "%s: found %s, expected tables written [%s]", where, toml_type_name(m->value->type),
			where);
		return;
	}
	(void)snprintf(inner, sizeof(inner), "[%.*s]", (int)WHERE_BYTES - 1, where);
	for (size_t i = 0; i < m->value->array.n; i++)
		walk_sub(r, f, m->value->array.items[i], inner, f->add(r, m, m->value->array.items[i]));
}

static void walk_member(struct reader *r, const struct field *f, const struct toml_member *m, enum arch arch,
	const char *where, const char *inner, void *object)
{
	char *slot = (char *)object + f->offset;
	struct leaf leaf = { .r = r, .field = f, .value = m->value, .where = where, .key = m->key.data, .slot = slot };
	char shown[80];

	switch (f->shape) {
	case SHAPE_LEAF:
	case SHAPE_GROUP:
		/* A group's name is the person's: it may hold anything. */
		leaf.key = err_sanitize(shown, sizeof(shown), m->key.data, m->key.len);
		leaf.where = *where ? where : "plan";
		f->read(&leaf);
		return;
	case SHAPE_TABLE:
		walk_sub(r, f, m->value, inner, object);
		return;
	case SHAPE_PER_ARCH:
		walk_sub(r, f, m->value, inner, slot + (size_t)arch * f->stride);
		return;
	case SHAPE_PER_NAME:
		if (m->value->type != TOML_TABLE)
			walk_sub(r, f, m->value, inner, NULL);
		else
			walk_sub(r, f, m->value, inner, f->add(r, m, m->value));
		return;
	case SHAPE_ARRAY:
		walk_array(r, f, m, inner);
		return;
	case SHAPE_IGNORED:
		if (m->value->type == TOML_TABLE)
			notice(r, m->key_offset, "%s is accepted and ignored: imgbuild has no use for it", inner);
		else
			notice(r, m->key_offset, "%s %s is accepted and ignored: imgbuild has no use for it", where, f->name);
		return;
	}
}

static void walk_table(struct reader *r, const struct field *fields, size_t n_fields, const struct toml_value *table,
	const char *where, void *object)
{
	for (size_t i = 0; i < table->table.n; i++) {
		const struct toml_member *m = &table->table.members[i];
		char inner[WHERE_BYTES];
		enum arch arch = ARCH_AMD64;
		const struct field *f = find_field(fields, n_fields, m, &arch);

		extend_where(inner, where, &m->key);
		if (f)
			walk_member(r, f, m, arch, where, inner, object);
		else
			fault_unknown(r, fields, n_fields, m, where);
	}
}

/* --- the whole --- */

static int compare_files(const void *a, const void *b)
{
	return strcmp(((const struct plan_file *)a)->destination.text, ((const struct plan_file *)b)->destination.text);
}

static int compare_inputs(const void *a, const void *b)
{
	return strcmp(((const struct plan_input *)a)->name, ((const struct plan_input *)b)->name);
}

static int compare_users(const void *a, const void *b)
{
	return strcmp(((const struct plan_user *)a)->name, ((const struct plan_user *)b)->name);
}

static int compare_faults(const void *a, const void *b)
{
	const struct plan_fault *x = a, *y = b;

	if (x->line != y->line)
		return x->line < y->line ? -1 : 1;
	return x->column < y->column ? -1 : x->column > y->column;
}

static void sort_lists(struct plan *p)
{
	strv_sort(&p->packages), strv_uniq(&p->packages);
	for (unsigned a = 0; a < ARCH_COUNT; a++)
		strv_sort(&p->packages_of_arch[a]), strv_uniq(&p->packages_of_arch[a]);
	strv_sort(&p->fstab.remove_patterns), strv_uniq(&p->fstab.remove_patterns);
	strv_sort(&p->cleanup), strv_uniq(&p->cleanup);
	if (p->n_files > 0)
		qsort(p->files, p->n_files, sizeof(*p->files), compare_files);
	if (p->n_inputs > 0)
		qsort(p->inputs, p->n_inputs, sizeof(*p->inputs), compare_inputs);
	if (p->n_users > 0)
		qsort(p->users, p->n_users, sizeof(*p->users), compare_users);
}

static void sort_faults(struct plan_faults *faults)
{
	if (faults->n_faults > 0)
		qsort(faults->faults, faults->n_faults, sizeof(*faults->faults), compare_faults);
	if (faults->n_notices > 0)
		qsort(faults->notices, faults->n_notices, sizeof(*faults->notices), compare_faults);
}

/* A text is a file, so that nothing can be put below it. Looks at pairs that the sorting brought together: all that is
 * below a path does not follow it directly ("/a", "/a-b", "/a/b"), so each file looks for its own place. */
static void check_files_below_files(struct reader *r, const struct toml_value *root)
{
	const struct plan *p = r->plan;
	const struct toml_value *files = toml_get(&root->table, "files");

	for (size_t i = 0; i < p->n_files; i++) {
		char folder[GUEST_PATH_MAX_BYTES + 1];

		(void)snprintf(folder, sizeof(folder), "%s", p->files[i].destination.text);
		for (char *slash = strrchr(folder, '/'); slash && slash > folder; slash = strrchr(folder, '/')) {
			struct plan_file key = { .destination = { .text = folder } };
			const struct plan_file *above;
			const struct toml_value *v;

			*slash = '\0';
			above = bsearch(&key, p->files, p->n_files, sizeof(*p->files), compare_files);
			if (!above || (above->kind == PLAN_CONTENT_LOCATION && !above->location.url))
				continue;
			v = toml_get(&files->table, p->files[i].destination.text);
			fault(r, v ? v->offset : files->offset,
				"[files]: found \"%s\" below \"%s\", which is a file, expected a path that can exist beside it",
				p->files[i].destination.text, folder);
		}
	}
}

int schema_read(const struct toml_doc *doc, struct plan *plan, struct plan_faults *faults, struct err *e)
{
	const struct toml_value *root = toml_root(doc);
	struct reader r = { .doc = doc, .plan = plan, .faults = faults };
	const struct toml_value *apt = toml_get(&root->table, "apt");

	plan->image.size_bytes = PLAN_DEFAULT_IMAGE_SIZE_BYTES;
	walk_table(&r, root_fields, ARRAY_SIZE(root_fields), root, "", plan);
	if (apt && apt->type == TOML_TABLE)
		apt_finish(&r, apt, "[apt]", plan);
	if (!toml_get(&root->table, "base") &&
		plan_faults_add(faults, false, 0, 0, "found no [base.amd64] or [base.arm64], expected at least one with a url") < 0)
		r.out_of_memory = true;
	if (r.out_of_memory)
		return err_set(e, -ENOMEM, "out of memory");
	sort_lists(plan);
	check_files_below_files(&r, root);
	sort_faults(faults);
	return r.out_of_memory ? err_set(e, -ENOMEM, "out of memory") : 0;
}

/* --- listing --- */

static const char *path_part(const struct field *f)
{
	return f->shape == SHAPE_PER_ARCH ? "ARCH" : f->name ? f->name : "*";
}

/* Find leaf number *i below these fields, counting it down. */
static bool list_fields(const struct field *fields, size_t n, const char *prefix, size_t *i, struct plan_schema_field *ret)
{
	for (size_t k = 0; k < n; k++) {
		const struct field *f = &fields[k];
		char path[sizeof(ret->path)];

		(void)snprintf(path, sizeof(path), "%s%s%s%s", prefix, *prefix ? "." : "", path_part(f),
			f->shape == SHAPE_ARRAY ? "[]" : "");
		if (f->sub) {
			if (list_fields(f->sub, f->n_sub, path, i, ret))
				return true;
			continue;
		}
		if ((*i)-- == 0) {
			memcpy(ret->path, path, sizeof(path));
			ret->role = f->role;
			return true;
		}
	}
	return false;
}

bool plan_schema_field(size_t i, struct plan_schema_field *ret)
{
	return list_fields(root_fields, ARRAY_SIZE(root_fields), "", &i, ret);
}
