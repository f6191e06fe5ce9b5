/* The lock as text: written in one way only, read as a stranger's. */
#include "lib/io.h"
#include "plan/lock.h"
#include "plan/toml.h"

#include <fcntl.h>
#include <string.h>

enum { LOCK_VERSION = 1, LOCK_TEXT_MAX_BYTES = TOML_MAX_BYTES };

static const char *const trust_names[] = {
	[LOCK_TRUST_PLAN] = "plan", [LOCK_TRUST_PUBLISHER] = "publisher", [LOCK_TRUST_FIRST_USE] = "first-use"
};
static const char *const kernel_kinds[] = { [PLAN_KERNEL_FROM_BASE] = "base",
	[PLAN_KERNEL_ARCHIVE] = "archive",
	[PLAN_KERNEL_FILE] = "file",
	[PLAN_KERNEL_PACKAGE] = "package" };

/* Writing. Errors of the buffer are sticky, so that the code below reads as the text it makes. */
struct writer {
	struct buf *into;
	int r;
};

static void put(struct writer *w, const char *s)
{
	if (w->r == 0)
		w->r = buf_append_str(w->into, s);
}

static void put_string(struct writer *w, const char *s)
{
	put(w, "\"");
	for (; w->r == 0 && *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			w->r = buf_appendf(w->into, "\\%c", c);
		else if (c < 0x20 || c == 0x7F)
			w->r = buf_appendf(w->into, "\\u%04X", c);
		else
			w->r = buf_append_char(w->into, (char)c);
	}
	put(w, "\"");
}

/* `separator` stands before each member: "\n" in a table, ", " in an inline table; `first` has none. */
static void put_text(struct writer *w, const char *separator, const char *name, const char *value)
{
	if (!value)
		return;
	put(w, separator);
	put(w, name);
	put(w, " = ");
	put_string(w, value);
}

static void put_digest(struct writer *w, const char *separator, const char *name, const struct digest *d)
{
	char hex[DIGEST_HEX_SIZE];

	if (d->algorithm != DIGEST_NONE)
		put_text(w, separator, name, digest_hex(d, hex));
}

static void put_size(struct writer *w, const char *separator, uint64_t size)
{
	put(w, separator);
	if (w->r == 0)
		w->r = buf_appendf(w->into, "size = %llu", (unsigned long long)size);
}

static void put_header(struct writer *w, enum arch arch, const char *section)
{
	put(w, "\n[");
	put(w, arch_name(arch));
	put(w, ".");
	put(w, section);
	put(w, "]");
}

static void put_blob(struct writer *w, const struct lock_blob *b)
{
	put_digest(w, "\n", "question", &b->question);
	put_text(w, "\n", "url", b->url);
	put_size(w, "\n", b->size_bytes);
	put_digest(w, "\n", "sha256", &b->sha256);
	put_digest(w, "\n", "sha512", &b->sha512);
	put_text(w, "\n", "trust", trust_names[b->trust]);
	put(w, "\n");
}

static void put_packages(struct writer *w, const char *name, const struct lock_package *items, size_t n)
{
	put(w, "\n");
	put(w, name);
	put(w, " = [\n");
	for (size_t i = 0; i < n; i++) {
		const struct lock_package *p = &items[i];

		put(w, "  { name = ");
		put_string(w, p->name);
		put_text(w, ", ", "version", p->version);
		put_text(w, ", ", "arch", p->arch);
		put_size(w, ", ", p->size_bytes);
		put_digest(w, ", ", "sha256", &p->sha256);
		put_text(w, ", ", "file", p->file);
		put_text(w, ", ", "uri", p->uri);
		put_text(w, ", ", "suite", p->suite);
		put_digest(w, ", ", "release", &p->release);
		put(w, " },\n");
	}
	put(w, "]\n");
}

static void put_kernel(struct writer *w, enum arch arch, const struct lock_kernel *k)
{
	put_header(w, arch, "kernel");
	put_digest(w, "\n", "question", &k->question);
	put_text(w, "\n", "kind", kernel_kinds[k->kind]);
	put_digest(w, "\n", "sha256", &k->sha256);
	put_text(w, "\n", "member", k->member);
	if (k->n_packages > 0)
		put_packages(w, "packages", k->packages, k->n_packages);
	else
		put(w, "\n");
	if (k->archive.url) {
		put_header(w, arch, "kernel.archive");
		put_blob(w, &k->archive);
	}
}

static void put_arch(struct writer *w, enum arch arch, const struct lock_arch *l)
{
	if (l->base.question.algorithm != DIGEST_NONE) {
		put_header(w, arch, "base");
		put_blob(w, &l->base);
	}
	if (l->kernel.question.algorithm != DIGEST_NONE)
		put_kernel(w, arch, &l->kernel);
	if (l->packages.question.algorithm != DIGEST_NONE) {
		put_header(w, arch, "packages");
		put_digest(w, "\n", "question", &l->packages.question);
		put_packages(w, "items", l->packages.items, l->packages.n);
		put(w, "removals = [");
		for (size_t i = 0; i < l->packages.removals.n; i++) {
			put(w, i ? ", " : "");
			put_string(w, l->packages.removals.items[i]);
		}
		put(w, "]\n");
	}
	for (size_t i = 0; i < l->n_sources; i++) {
		put(w, "\n[");
		put(w, arch_name(arch));
		put(w, ".sources.");
		put_string(w, l->sources[i].slot);
		put(w, "]");
		put_blob(w, &l->sources[i].blob);
	}
}

int lock_format(const struct lock *l, struct buf *into, struct err *e)
{
	struct writer w = { .into = into };

	put(&w, "# Written by imgbuild: every input from outside, pinned. Keep it under version control beside its plan.\n"
		"version = 1\n");
	for (unsigned a = 0; a < ARCH_COUNT; a++)
		put_arch(&w, (enum arch)a, &l->arch[a]);
	return w.r < 0 ? err_set_errno(e, w.r, "cannot write the lock") : 0;
}

/* Reading. The first fault is kept, with its place; what comes after it is not looked at. */
struct reader {
	const char *path;
	const struct toml_doc *doc;
	struct err *e;
	int r;
};

static void fault(struct reader *rd, uint32_t offset, const char *expected)
{
	struct toml_position at = toml_locate(rd->doc, offset);

	if (rd->r == 0)
		rd->r = err_set_kind(rd->e, ERR_KIND_USAGE, -EBADMSG,
			"%s:%u:%u: the lock is damaged: expected %s; restore it from version control, or remove it and run "
			"`imgbuild lock`",
			rd->path, at.line, at.column, expected);
}

/* A member of a table, which must be of a type; NULL when it is not there. `needed`: not being there is a fault. */
static const struct toml_value *member(struct reader *rd, const struct toml_value *table, const char *name,
	enum toml_type type, bool needed)
{
	const struct toml_value *v;

	if (rd->r < 0)
		return NULL;
	v = toml_get(&table->table, name);
	if ((!v && needed) || (v && v->type != type)) {
		char expected[96];

		(void)snprintf(expected, sizeof(expected), "%s `%s`", toml_type_name(type), name);
		fault(rd, v ? v->offset : table->offset, expected);
		return NULL;
	}
	return v;
}

static char *read_text(struct reader *rd, const struct toml_value *table, const char *name, bool needed)
{
	const struct toml_value *v = member(rd, table, name, TOML_STRING, needed);
	char *copy;

	if (!v)
		return NULL;
	if (v->string.len == 0 || strlen(v->string.data) != v->string.len) {
		fault(rd, v->offset, "a text without NUL that is not empty");
		return NULL;
	}
	copy = strdup(v->string.data);
	if (!copy)
		rd->r = err_set(rd->e, -ENOMEM, "out of memory");
	return copy;
}

static struct digest read_digest(struct reader *rd, const struct toml_value *table, const char *name,
	enum digest_algorithm algorithm, bool needed)
{
	const struct toml_value *v = member(rd, table, name, TOML_STRING, needed);
	struct digest d = { 0 };

	if (v && digest_parse_hex(algorithm, v->string.data, &d) < 0)
		fault(rd, v->offset, algorithm == DIGEST_SHA256 ? "64 hexadecimal digits" : "128 hexadecimal digits");
	return d;
}

static uint64_t read_size(struct reader *rd, const struct toml_value *table)
{
	const struct toml_value *v = member(rd, table, "size", TOML_INTEGER, true);

	if (v && v->integer < 0)
		fault(rd, v->offset, "a size in bytes");
	return v && v->integer >= 0 ? (uint64_t)v->integer : 0;
}

/* One of n words; the first one where it is not there. */
static unsigned read_word(struct reader *rd, const struct toml_value *table, const char *name, const char *const *words,
	size_t n)
{
	const struct toml_value *v = member(rd, table, name, TOML_STRING, true);

	for (size_t i = 0; v && i < n; i++)
		if (strcmp(words[i], v->string.data) == 0)
			return (unsigned)i;
	if (v)
		fault(rd, v->offset, "one of the words that a lock has here");
	return 0;
}

static void read_blob(struct reader *rd, const struct toml_value *table, bool has_question, struct lock_blob *ret)
{
	ret->question = read_digest(rd, table, "question", DIGEST_SHA256, has_question);
	ret->url = read_text(rd, table, "url", false);
	ret->size_bytes = read_size(rd, table);
	ret->sha256 = read_digest(rd, table, "sha256", DIGEST_SHA256, true);
	ret->sha512 = read_digest(rd, table, "sha512", DIGEST_SHA512, false);
	ret->trust = (enum lock_trust)read_word(rd, table, "trust", trust_names, ARRAY_SIZE(trust_names));
}

/* Debian policy 5.6.1, 5.6.12: what names, versions and architectures are made of. They end up on command lines and in
 * file names. */
static bool is_plain(const char *s, const char *more)
{
	if (!s || s[0] == '-' || s[0] == '.')
		return false;
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || strchr(more, *s)))
			return false;
	return true;
}

static void read_package(struct reader *rd, const struct toml_value *v, struct lock_package *ret)
{
	if (v->type != TOML_TABLE) {
		fault(rd, v->offset, "{ name = …, version = …, … }");
		return;
	}
	ret->name = read_text(rd, v, "name", true);
	ret->version = read_text(rd, v, "version", true);
	ret->arch = read_text(rd, v, "arch", true);
	ret->size_bytes = read_size(rd, v);
	ret->sha256 = read_digest(rd, v, "sha256", DIGEST_SHA256, true);
	ret->file = read_text(rd, v, "file", false);
	ret->uri = read_text(rd, v, "uri", false);
	ret->suite = read_text(rd, v, "suite", false);
	ret->release = read_digest(rd, v, "release", DIGEST_SHA256, false);
	if (rd->r == 0 && !(is_plain(ret->name, "+-.") && is_plain(ret->version, "+-.:~") && is_plain(ret->arch, "-")))
		fault(rd, v->offset, "a package with a proper name, version and architecture");
}

static void read_packages(struct reader *rd, const struct toml_value *table, const char *name, bool needed,
	struct lock_package **ret, size_t *ret_n)
{
	const struct toml_value *v = member(rd, table, name, TOML_ARRAY, needed);

	if (!v)
		return;
	if (v->array.n > LOCK_MAX_PACKAGES) {
		fault(rd, v->offset, "at most 8192 packages");
		return;
	}
	*ret = calloc(v->array.n + 1, sizeof(**ret));
	if (!*ret) {
		rd->r = err_set(rd->e, -ENOMEM, "out of memory");
		return;
	}
	for (; rd->r == 0 && *ret_n < v->array.n; ++*ret_n)
		read_package(rd, v->array.items[*ret_n], &(*ret)[*ret_n]);
}

static void read_kernel(struct reader *rd, const struct toml_value *table, struct lock_kernel *ret)
{
	const struct toml_value *archive = member(rd, table, "archive", TOML_TABLE, false);

	ret->question = read_digest(rd, table, "question", DIGEST_SHA256, true);
	ret->kind = (enum plan_kernel_kind)read_word(rd, table, "kind", kernel_kinds, ARRAY_SIZE(kernel_kinds));
	ret->sha256 = read_digest(rd, table, "sha256", DIGEST_SHA256, true);
	ret->member = read_text(rd, table, "member", false);
	read_packages(rd, table, "packages", false, &ret->packages, &ret->n_packages);
	if (archive)
		read_blob(rd, archive, false, &ret->archive);
	if (rd->r == 0 && ret->kind == PLAN_KERNEL_PACKAGE && ret->n_packages == 0)
		fault(rd, table->offset, "the packages of the kernel");
}

static void read_removals(struct reader *rd, const struct toml_value *table, struct strv *ret)
{
	const struct toml_value *v = member(rd, table, "removals", TOML_ARRAY, true);

	for (size_t i = 0; v && rd->r == 0 && i < v->array.n; i++) {
		const struct toml_value *name = v->array.items[i];

		if (name->type != TOML_STRING || !is_plain(name->string.data, "+-.") || i >= LOCK_MAX_PACKAGES)
			fault(rd, name->offset, "the name of a package");
		else if (strv_add(ret, name->string.data) < 0)
			rd->r = err_set(rd->e, -ENOMEM, "out of memory");
	}
}

static void read_sources(struct reader *rd, const struct toml_value *table, struct lock_arch *ret)
{
	ret->sources = calloc(table->table.n + 1, sizeof(*ret->sources));
	if (!ret->sources) {
		rd->r = err_set(rd->e, -ENOMEM, "out of memory");
		return;
	}
	for (size_t i = 0; rd->r == 0 && i < table->table.n; i++) {
		const struct toml_member *m = &table->table.members[i];
		struct lock_source *s = &ret->sources[ret->n_sources++];

		if (m->value->type != TOML_TABLE) {
			fault(rd, m->value->offset, "a table for a source");
			return;
		}
		s->slot = strdup(m->key.data);
		if (!s->slot)
			rd->r = err_set(rd->e, -ENOMEM, "out of memory");
		read_blob(rd, m->value, true, &s->blob);
	}
}

static void read_arch(struct reader *rd, const struct toml_value *table, struct lock_arch *ret)
{
	const struct toml_value *base = member(rd, table, "base", TOML_TABLE, false);
	const struct toml_value *kernel = member(rd, table, "kernel", TOML_TABLE, false);
	const struct toml_value *packages = member(rd, table, "packages", TOML_TABLE, false);
	const struct toml_value *sources = member(rd, table, "sources", TOML_TABLE, false);

	if (base)
		read_blob(rd, base, true, &ret->base);
	if (kernel)
		read_kernel(rd, kernel, &ret->kernel);
	if (packages) {
		ret->packages.question = read_digest(rd, packages, "question", DIGEST_SHA256, true);
		read_packages(rd, packages, "items", true, &ret->packages.items, &ret->packages.n);
		read_removals(rd, packages, &ret->packages.removals);
	}
	if (sources)
		read_sources(rd, sources, ret);
}

int lock_load_bytes(const char *path, const char *text, size_t len, struct lock *ret, struct err *e)
{
	_cleanup_toml_ struct toml_doc *doc = NULL;
	_cleanup_lock_ struct lock lock = { 0 };
	struct toml_position where = { 0 };
	struct reader rd = { .path = path, .e = e };
	const struct toml_value *root, *version;
	int r = toml_parse(text, len, &doc, &where, e);

	if (r == -EBADMSG || r == -E2BIG) {
		e->kind = ERR_KIND_USAGE;
		return err_wrap(e, "%s:%u:%u", path, where.line, where.column);
	}
	if (r < 0)
		return r;
	rd.doc = doc;
	root = toml_root(doc);
	version = member(&rd, root, "version", TOML_INTEGER, true);
	if (version && version->integer != LOCK_VERSION)
		fault(&rd, version->offset, "version 1 (another imgbuild wrote this one)");
	for (size_t i = 0; rd.r == 0 && i < root->table.n; i++) {
		const struct toml_member *m = &root->table.members[i];
		enum arch arch;

		if (strcmp(m->key.data, "version") == 0)
			continue;
		if (arch_parse(m->key.data, &arch) < 0 || m->value->type != TOML_TABLE)
			fault(&rd, m->key_offset, "a table for an architecture, amd64 or arm64");
		else
			read_arch(&rd, m->value, &lock.arch[arch]);
	}
	if (rd.r < 0)
		return rd.r;
	*ret = lock;
	lock = (struct lock){ 0 };
	return 0;
}

int lock_load(int dirfd, const char *path, struct lock *ret, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(LOCK_TEXT_MAX_BYTES);
	int r = read_file_at(dirfd, path, true, &text, e);

	if (r == -ENOENT) {
		err_clear(e);
		*ret = (struct lock){ 0 };
		return 0;
	}
	return r < 0 ? r : lock_load_bytes(path, buf_str(&text), text.len, ret, e);
}

int lock_write(int dirfd, const char *path, const struct lock *l, enum arch arch, struct err *e)
{
	_cleanup_buf_ struct buf old_text = BUF_INIT(LOCK_TEXT_MAX_BYTES), text = BUF_INIT(LOCK_TEXT_MAX_BYTES);
	_cleanup_lock_ struct lock on_disk = { 0 };
	struct lock merged;
	int r = read_file_at(dirfd, path, true, &old_text, e);

	if (r < 0 && r != -ENOENT)
		return r;
	if (r == 0) {
		r = lock_load_bytes(path, buf_str(&old_text), old_text.len, &on_disk, e);
		if (r < 0)
			return r;
	}
	err_clear(e);
	/* Borrowed from both, for writing only. */
	merged = on_disk;
	merged.arch[arch] = l->arch[arch];
	r = lock_format(&merged, &text, e);
	if (r < 0 || (text.len == old_text.len && memcmp(buf_str(&text), buf_str(&old_text), text.len) == 0))
		return r;
	return write_file_atomic_at(dirfd, path, buf_str(&text), text.len, 0644, e);
}
