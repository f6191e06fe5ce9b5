/* The lock's text: written in one way only, read as a stranger's. */
#include "lib/io.h"
#include "plan/lock_internal.h"
#include "plan/syntax.h"
#include "plan/toml.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#define LOCK_VERSION 2
#define LOCK_MAX_SOURCES 4096

static const char header[] = "# Written by imgbuild: what the plan beside it means, by digest. Keep it with the plan, and do not edit it.\n"
			     "# `imgbuild lock PLAN` renews what does not answer the plan; after a conflict take either side, then run it.\n"
			     "version = 2\n";

static const char *const kind_names[] = { [PLAN_KERNEL_FROM_BASE] = "base",
	[PLAN_KERNEL_ARCHIVE] = "archive",
	[PLAN_KERNEL_FILE] = "file",
	[PLAN_KERNEL_PACKAGE] = "package" };
static const char *const trust_names[] = { [LOCK_TRUST_PLAN] = "plan",
	[LOCK_TRUST_SIGNATURE] = "signature",
	[LOCK_TRUST_CHECKSUMS] = "checksums",
	[LOCK_TRUST_FIRST_USE] = "first-use" };

const char *lock_trust_name(enum lock_trust trust)
{
	return trust_names[trust];
}

/* --- writing --- */

static int put_string(struct buf *b, const char *s)
{
	int r = buf_append_char(b, '"');

	for (; r == 0 && *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c == '"' || c == '\\')
			r = buf_appendf(b, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			r = buf_appendf(b, "\\u%04X", c);
		else
			r = buf_append_char(b, (char)c);
	}
	return r < 0 ? r : buf_append_char(b, '"');
}

/* Where fields go: one a line in a section, or with commas in the line of one item. */
struct writer {
	struct buf *b;
	bool in_line, first;
	int r;
};

static void put_key(struct writer *w, const char *key)
{
	if (w->r == 0 && w->in_line)
		w->r = buf_append_str(w->b, w->first ? " " : ", ");
	w->first = false;
	if (w->r == 0)
		w->r = buf_appendf(w->b, "%s = ", key);
}

static void end_value(struct writer *w)
{
	if (w->r == 0 && !w->in_line)
		w->r = buf_append_char(w->b, '\n');
}

static void put_text(struct writer *w, const char *key, const char *value)
{
	if (!value)
		return;
	put_key(w, key);
	if (w->r == 0)
		w->r = put_string(w->b, value);
	end_value(w);
}

static void put_digest(struct writer *w, const char *key, const struct digest *d)
{
	char hex[DIGEST_HEX_SIZE];

	if (d->algorithm != DIGEST_NONE)
		put_text(w, key, digest_hex(d, hex));
}

static void put_number(struct writer *w, const char *key, uint64_t value)
{
	put_key(w, key);
	if (w->r == 0)
		w->r = buf_appendf(w->b, "%llu", (unsigned long long)value);
	end_value(w);
}

static void put_raw(struct writer *w, const char *text)
{
	if (w->r == 0)
		w->r = buf_append_str(w->b, text);
}

/* Begin and end a table that stands in one line. */
static struct writer begin_line(const struct writer *w)
{
	struct writer line = { .b = w->b, .in_line = true, .first = true, .r = w->r };

	put_raw(&line, "{");
	return line;
}

static void end_line(struct writer *w, struct writer *line)
{
	put_raw(line, " }");
	w->r = line->r;
}

static void put_checksums(struct writer *w, const struct lock_checksums *c)
{
	struct writer line;

	if (!c->url)
		return;
	put_key(w, "checksums");
	line = begin_line(w);
	put_text(&line, "url", c->url);
	put_digest(&line, "sha256", &c->sha256);
	put_text(&line, "signer", c->signer);
	end_line(w, &line);
	end_value(w);
}

static void put_blob(struct writer *w, const struct lock_blob *blob)
{
	put_digest(w, "question", &blob->question);
	put_text(w, "url", blob->url);
	put_text(w, "resolved", blob->resolved_url);
	put_number(w, "size", blob->size_bytes);
	put_digest(w, "sha256", &blob->sha256);
	put_digest(w, "sha512", &blob->sha512);
	put_text(w, "trust", trust_names[blob->trust]);
	put_checksums(w, &blob->checksums);
}

/* A time, as in "20261120T083005Z". */
static void put_date(struct writer *w, const char *key, int64_t seconds)
{
	time_t t = (time_t)seconds;
	char text[32];
	struct tm tm;

	if (seconds != 0 && gmtime_r(&t, &tm) && strftime(text, sizeof(text), "%Y%m%dT%H%M%SZ", &tm) > 0)
		put_text(w, key, text);
}

/* A list of names, one a line: a line that comes or goes touches no other. */
static void put_names(struct writer *w, const char *key, const struct strv *names)
{
	put_key(w, key);
	put_raw(w, "[\n");
	for (size_t i = 0; i < names->n; i++) {
		put_raw(w, "\t");
		if (w->r == 0)
			w->r = put_string(w->b, names->items[i]);
		put_raw(w, ",\n");
	}
	put_raw(w, "]\n");
}

static void put_keyrings(struct writer *w, const struct lock_keyring *items, size_t n)
{
	put_raw(w, "keyrings = [\n");
	for (size_t i = 0; i < n; i++) {
		struct writer line;

		put_raw(w, "\t");
		line = begin_line(w);
		put_text(&line, "path", items[i].path);
		put_digest(&line, "sha256", &items[i].sha256);
		end_line(w, &line);
		put_raw(w, ",\n");
	}
	put_raw(w, "]\n");
}

static void put_packages(struct writer *w, const struct lock_package *items, size_t n)
{
	put_raw(w, "list = [\n");
	for (size_t i = 0; i < n; i++) {
		const struct lock_package *p = &items[i];
		struct writer line;

		put_raw(w, "\t");
		line = begin_line(w);
		put_text(&line, "name", p->name);
		put_text(&line, "version", p->version);
		put_text(&line, "arch", p->arch);
		put_number(&line, "size", p->size_bytes);
		put_digest(&line, "sha256", &p->sha256);
		put_text(&line, "file", p->file);
		put_text(&line, "uri", p->uri);
		put_text(&line, "suite", p->suite);
		put_digest(&line, "release", &p->release);
		put_date(&line, "date", p->release_date);
		end_line(w, &line);
		put_raw(w, ",\n");
	}
	put_raw(w, "]\n");
}

static void put_section(struct writer *w, enum arch arch, const char *name)
{
	if (w->r == 0)
		w->r = buf_appendf(w->b, "\n[%s.%s]\n", arch_name(arch), name);
}

static void put_kernel(struct writer *w, enum arch arch, const struct lock_kernel *k)
{
	if (k->question.algorithm == DIGEST_NONE)
		return;
	put_section(w, arch, "kernel");
	put_digest(w, "question", &k->question);
	put_text(w, "kind", kind_names[k->kind]);
	put_digest(w, "sha256", &k->sha256);
	put_text(w, "member", k->member);
	if (k->kind == PLAN_KERNEL_PACKAGE)
		put_packages(w, k->packages, k->n_packages);
	if (k->archive.sha256.algorithm != DIGEST_NONE) {
		put_section(w, arch, "kernel.archive");
		put_blob(w, &k->archive);
	}
}

static void put_arch(struct writer *w, enum arch arch, const struct lock_arch *a)
{
	if (a->base.question.algorithm != DIGEST_NONE) {
		put_section(w, arch, "base");
		put_blob(w, &a->base);
	}
	put_kernel(w, arch, &a->kernel);
	if (a->packages.question.algorithm != DIGEST_NONE) {
		put_section(w, arch, "packages");
		put_digest(w, "question", &a->packages.question);
		put_names(w, "asked", &a->packages.asked);
		put_names(w, "remove", &a->packages.removals);
		put_keyrings(w, a->packages.keyrings, a->packages.n_keyrings);
		put_packages(w, a->packages.items, a->packages.n);
	}
	for (size_t i = 0; i < a->n_sources; i++) {
		if (w->r == 0)
			w->r = buf_appendf(w->b, "\n[[%s.sources]]\n", arch_name(arch));
		put_text(w, "slot", a->sources[i].slot);
		put_blob(w, &a->sources[i].blob);
	}
}

int lock_format_archs(const struct lock_arch *const archs[static ARCH_COUNT], struct buf *into, struct err *e)
{
	struct writer w = { .b = into };

	put_raw(&w, header);
	for (unsigned a = 0; a < ARCH_COUNT; a++)
		put_arch(&w, (enum arch)a, archs[a]);
	return w.r < 0 ? err_set(e, w.r, w.r == -E2BIG ? "the lock is larger than its limit" : "out of memory") : 0;
}

int lock_format(const struct lock *l, struct buf *into, struct err *e)
{
	const struct lock_arch *archs[ARCH_COUNT];

	for (unsigned a = 0; a < ARCH_COUNT; a++)
		archs[a] = &l->arch[a];
	return lock_format_archs(archs, into, e);
}

/* Keep other writers of a lock out of the folder of `path` until the descriptor is closed: two architectures may be locked at a time, and
 * each must see what the other wrote. Returns a descriptor, or -1 where that cannot be had: it is a courtesy. */
static int enter_folder(int dirfd, const char *path)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *folder = !slash ? strdup(".") : slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
	int fd = folder ? openat(dirfd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd >= 0)
		(void)flock(fd, LOCK_EX);
	return fd;
}

/* Where the file really is when `path` is a symbolic link: it is written there, and the link stays. *ret is NULL when it is none. */
static int follow_link(int dirfd, const char *path, char **ret, struct err *e)
{
	_cleanup_close_ int fd = -1;
	char link[64], target[PATH_MAX];
	struct stat st;
	ssize_t n;

	*ret = NULL;
	if (fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISLNK(st.st_mode))
		return 0;
	fd = openat(dirfd, path, O_PATH | O_CLOEXEC);
	if (fd < 0)
		return err_set_errno(e, -errno, "the lock `%s` is a symbolic link that leads nowhere", path);
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, target, sizeof(target) - 1);
	if (n < 0)
		return err_set_errno(e, -errno, "cannot tell where the symbolic link `%s` leads", path);
	*ret = strndup(target, (size_t)n);
	return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

static int write_lock(int dirfd, const char *path, const struct lock *l, enum arch arch, struct err *e)
{
	_cleanup_close_ int entered = enter_folder(dirfd, path);
	_cleanup_lock_ struct lock now = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(TOML_MAX_BYTES), old = BUF_INIT(TOML_MAX_BYTES);
	const struct lock_arch *archs[ARCH_COUNT];
	struct err ignored = ERR_INIT;
	int r = lock_load(dirfd, path, &now, e);

	(void)entered;
	if (r < 0)
		return err_wrap(e, "renewing the lock");
	for (unsigned a = 0; a < ARCH_COUNT; a++)
		archs[a] = a == (unsigned)arch ? &l->arch[a] : &now.arch[a];
	r = lock_format_archs(archs, &text, e);
	if (r < 0)
		return err_wrap(e, "writing the lock `%s`", path);
	if (read_file_at(dirfd, path, true, &old, &ignored) == 0 && buf_equal(&old, &text))
		return 0;
	r = write_file_atomic_at(dirfd, path, buf_str(&text), text.len, 0644, e);
	return r < 0 ? err_wrap(e, "writing the lock") : 0;
}

int lock_write(int dirfd, const char *path, const struct lock *l, enum arch arch, struct err *e)
{
	_cleanup_free_ char *target = NULL;
	int r = follow_link(dirfd, path, &target, e);

	return r < 0 ? r : write_lock(dirfd, target ? target : path, l, arch, e);
}

/* --- reading --- */

struct reader {
	const struct toml_doc *doc;
	const char *path;
	struct err *e;
};

/* What a lock can be that is none: something else than a lock of this version, or two of them. */
static int refuse(struct err *e, const char *path, unsigned line, unsigned column, const char *message)
{
	return err_set_kind(e, ERR_KIND_USAGE, -EBADMSG, "%s:%u:%u: %s; remove the file, and `imgbuild lock PLAN` writes it anew", path,
		line, column, message);
}

static int refuse_merge(struct err *e, const char *path, unsigned line, unsigned column, const char *message)
{
	return err_set_kind(e, ERR_KIND_USAGE, -EBADMSG,
		"%s:%u:%u: %s: what is left of a merge; take either side (`git checkout --ours %s`, or `--theirs`), then run "
		"`imgbuild lock PLAN`, which adds what the other side asked for",
		path, line, column, message, path);
}

/* Say where it stands, in the words of one of the two above. */
static int fail_as(int (*words)(struct err *, const char *, unsigned, unsigned, const char *), struct reader *r, uint32_t offset,
	const char *fmt, va_list ap) _printf_(4, 0);

static int fail_as(int (*words)(struct err *, const char *, unsigned, unsigned, const char *), struct reader *r, uint32_t offset,
	const char *fmt, va_list ap)
{
	struct toml_position at = toml_locate(r->doc, offset);
	char message[512];

	(void)vsnprintf(message, sizeof(message), fmt, ap);
	return words(r->e, r->path, at.line, at.column, message);
}

static int fail(struct reader *r, uint32_t offset, const char *fmt, ...) _printf_(3, 4);
static int fail_merge(struct reader *r, uint32_t offset, const char *fmt, ...) _printf_(3, 4);

static int fail(struct reader *r, uint32_t offset, const char *fmt, ...)
{
	va_list ap;
	int code;

	va_start(ap, fmt);
	code = fail_as(refuse, r, offset, fmt, ap);
	va_end(ap);
	return code;
}

static int fail_merge(struct reader *r, uint32_t offset, const char *fmt, ...)
{
	va_list ap;
	int code;

	va_start(ap, fmt);
	code = fail_as(refuse_merge, r, offset, fmt, ap);
	va_end(ap);
	return code;
}

/* A package and where in the file it stands. */
struct placed {
	const struct lock_package *package;
	uint32_t offset;
};

static int compare_names(const struct lock_package *a, const struct lock_package *b)
{
	int c = strcmp(a->name, b->name);

	return c ? c : strcmp(a->arch, b->arch);
}

static int compare_placed(const void *a, const void *b)
{
	const struct placed *x = a, *y = b;
	int c = compare_names(x->package, y->package);

	return c ? c : x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Refuse a package that is there twice: somebody kept a line from each side. What is for all architectures cannot stand beside the same
 * for one; it sorts before it. */
static int refuse_twice(struct reader *r, const struct toml_array *list, const struct lock_package *items)
{
	_cleanup_free_ struct placed *placed = NULL;
	size_t n = list->n, sorted = 1;

	while (sorted < n && strcmp(items[sorted - 1].name, items[sorted].name) < 0)
		sorted++;
	if (sorted >= n)
		return 0;
	placed = calloc(n, sizeof(*placed));
	if (!placed)
		return err_set(r->e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++)
		placed[i] = (struct placed){ .package = &items[i], .offset = list->items[i]->offset };
	qsort(placed, n, sizeof(*placed), compare_placed);
	for (size_t i = 1; i < n; i++) {
		const struct lock_package *a = placed[i - 1].package, *b = placed[i].package;

		if (strcmp(a->name, b->name) == 0 && (strcmp(a->arch, b->arch) == 0 || strcmp(a->arch, "all") == 0))
			return fail_merge(r, placed[i].offset, "found the package %s for %s again, version %s here and %s in line %u", b->name,
				b->arch, b->version, a->version, toml_locate(r->doc, placed[i - 1].offset).line);
	}
	return 0;
}

/* Find the line that git left between two sides: seven of a character at its beginning. Returns 0 when there is none. */
static unsigned find_conflict(const char *text, size_t len)
{
	static const char *const markers[] = { "<<<<<<<", "|||||||", "=======", ">>>>>>>" };
	const char *end = text + len;
	unsigned line = 1;

	for (const char *s = text; s < end; line++) {
		const char *newline = memchr(s, '\n', (size_t)(end - s));

		for (size_t i = 0; i < ARRAY_SIZE(markers) && end - s >= 7; i++)
			if (memcmp(s, markers[i], 7) == 0)
				return line;
		s = newline ? newline + 1 : end;
	}
	return 0;
}

enum value_kind {
	VALUE_TEXT,
	VALUE_SHA256,
	VALUE_SHA512,
	VALUE_SIZE,
	VALUE_DATE,
	VALUE_TRUST,
	VALUE_KERNEL_KIND,
	VALUE_CHECKSUMS,
	VALUE_ELSEWHERE
};

/* One key of a section. */
struct field {
	const char *name;
	enum value_kind kind;
	bool required;
	size_t offset;
	bool (*check)(const char *); /* TEXT */
	const char *accepts;
};

static bool is_hint(const char *s)
{
	return syntax_is_line(s, LOCK_MAX_HINT_BYTES);
}

static bool is_slot(const char *s)
{
	return (strncmp(s, "files:/", 7) == 0 || strncmp(s, "inputs:", 7) == 0) && syntax_is_line(s, 8192);
}

static bool has_no_user(const char *s)
{
	size_t n;

	if (!syntax_is_http_url(s))
		return false;
	s = strstr(s, "://") + 3;
	n = strcspn(s, "/?#");
	return memchr(s, '@', n) == NULL;
}

#define DIGEST_FIELD(key, need, at)                                                                          \
	{                                                                                                    \
		.name = (key), .kind = VALUE_SHA256, .required = (need), .offset = (at),                     \
		.accepts = "a SHA-256: 64 hexadecimal digits"                                                \
	}
#define TEXT_FIELD(key, need, at, how, what)                                                                 \
	{                                                                                                    \
		.name = (key), .kind = VALUE_TEXT, .required = (need), .offset = (at), .check = (how),       \
		.accepts = (what)                                                                            \
	}
#define BLOB_FIELDS(base)                                                                                    \
	TEXT_FIELD("url", false, (base) + offsetof(struct lock_blob, url), has_no_user,                      \
		"an http:// or https:// URL without user info"),                                             \
		{ .name = "size", .kind = VALUE_SIZE, .required = true,                                      \
			.offset = (base) + offsetof(struct lock_blob, size_bytes), .accepts = "a size in bytes" },   \
		DIGEST_FIELD("sha256", true, (base) + offsetof(struct lock_blob, sha256)),                   \
		{ .name = "sha512", .kind = VALUE_SHA512, .offset = (base) + offsetof(struct lock_blob, sha512),     \
			.accepts = "a SHA-512: 128 hexadecimal digits" },                                    \
		{ .name = "trust", .kind = VALUE_TRUST, .required = true,                                    \
			.offset = (base) + offsetof(struct lock_blob, trust),                                \
			.accepts = "\"plan\", \"signature\", \"checksums\" or \"first-use\"" },                \
		{ .name = "checksums", .kind = VALUE_CHECKSUMS,                                              \
			.offset = (base) + offsetof(struct lock_blob, checksums), .accepts = "a table" },            \
		TEXT_FIELD("resolved", false, (base) + offsetof(struct lock_blob, resolved_url), has_no_user, \
			"an http:// or https:// URL without user info")

static const struct field checksums_fields[] = {
	TEXT_FIELD("url", true, offsetof(struct lock_checksums, url), has_no_user,
		"an http:// or https:// URL without user info"),
	DIGEST_FIELD("sha256", true, offsetof(struct lock_checksums, sha256)),
	TEXT_FIELD("signer", false, offsetof(struct lock_checksums, signer), syntax_is_fingerprint,
		"a key's fingerprint: 40 or 64 hexadecimal digits in upper case"),
};

static const struct field keyring_fields[] = {
	TEXT_FIELD("path", true, offsetof(struct lock_keyring, path), is_hint, "a path"),
	DIGEST_FIELD("sha256", true, offsetof(struct lock_keyring, sha256)),
};

static const struct field base_fields[] = {
	DIGEST_FIELD("question", true, offsetof(struct lock_blob, question)),
	BLOB_FIELDS(0),
};

static const struct field archive_fields[] = {
	BLOB_FIELDS(0),
};

static const struct field source_fields[] = {
	TEXT_FIELD("slot", true, offsetof(struct lock_source, slot), is_slot, "\"files:/…\" or \"inputs:…\""),
	DIGEST_FIELD("question", true, offsetof(struct lock_source, blob.question)),
	BLOB_FIELDS(offsetof(struct lock_source, blob)),
};

static const struct field kernel_fields[] = {
	DIGEST_FIELD("question", true, offsetof(struct lock_kernel, question)),
	{ .name = "kind", .kind = VALUE_KERNEL_KIND, .required = true, .offset = offsetof(struct lock_kernel, kind),
		.accepts = "\"archive\", \"file\", \"package\" or \"base\"" },
	DIGEST_FIELD("sha256", true, offsetof(struct lock_kernel, sha256)),
	TEXT_FIELD("member", false, offsetof(struct lock_kernel, member), is_hint, "a path"),
	{ .name = "archive", .kind = VALUE_ELSEWHERE },
	{ .name = "list", .kind = VALUE_ELSEWHERE },
};

static const struct field packages_fields[] = {
	DIGEST_FIELD("question", true, offsetof(struct lock_packages, question)),
	{ .name = "asked", .kind = VALUE_ELSEWHERE, .required = true },
	{ .name = "remove", .kind = VALUE_ELSEWHERE, .required = true },
	{ .name = "keyrings", .kind = VALUE_ELSEWHERE, .required = true },
	{ .name = "list", .kind = VALUE_ELSEWHERE, .required = true },
};

static const struct field package_fields[] = {
	TEXT_FIELD("name", true, offsetof(struct lock_package, name), syntax_is_package_name, "a package's name"),
	TEXT_FIELD("version", true, offsetof(struct lock_package, version), syntax_is_package_version, "a package's version"),
	TEXT_FIELD("arch", true, offsetof(struct lock_package, arch), syntax_is_package_arch, "an architecture"),
	{ .name = "size", .kind = VALUE_SIZE, .required = true, .offset = offsetof(struct lock_package, size_bytes),
		.accepts = "a size in bytes" },
	DIGEST_FIELD("sha256", true, offsetof(struct lock_package, sha256)),
	TEXT_FIELD("file", false, offsetof(struct lock_package, file), syntax_is_normal_relative,
		"a relative path without . and .. parts"),
	TEXT_FIELD("uri", false, offsetof(struct lock_package, uri), has_no_user,
		"an http:// or https:// URL without user info"),
	TEXT_FIELD("suite", false, offsetof(struct lock_package, suite), syntax_is_suite, "a suite"),
	DIGEST_FIELD("release", false, offsetof(struct lock_package, release)),
	{ .name = "date", .kind = VALUE_DATE, .offset = offsetof(struct lock_package, release_date),
		.accepts = "a time such as \"20261101T000000Z\"" },
};

static bool name_index(const char *const *names, size_t n, const char *s, unsigned *ret)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(names[i], s) == 0) {
			*ret = (unsigned)i;
			return true;
		}
	return false;
}

/* The value's text, or NULL when it is none without NULs. */
static const char *text_of(const struct toml_value *v)
{
	return v->type == TOML_STRING && strlen(v->string.data) == v->string.len ? v->string.data : NULL;
}

static int read_fields(struct reader *r, const struct field *fields, size_t n, const struct toml_value *table, void *object);

static int read_field(struct reader *r, const struct field *f, const struct toml_value *v, void *slot)
{
	const char *s = text_of(v);
	unsigned index;
	bool ok = false;

	switch (f->kind) {
	case VALUE_TEXT:
		if (s && f->check(s)) {
			*(char **)slot = strdup(s);
			return *(char **)slot ? 0 : err_set(r->e, -ENOMEM, "out of memory");
		}
		break;
	case VALUE_SHA256:
		ok = s && digest_parse_hex(DIGEST_SHA256, s, slot) == 0;
		break;
	case VALUE_SHA512:
		ok = s && digest_parse_hex(DIGEST_SHA512, s, slot) == 0;
		break;
	case VALUE_SIZE:
		ok = v->type == TOML_INTEGER && v->integer >= 0;
		if (ok)
			*(uint64_t *)slot = (uint64_t)v->integer;
		break;
	case VALUE_DATE:
		ok = s && syntax_parse_snapshot(s, slot) && *(int64_t *)slot > 0;
		break;
	case VALUE_CHECKSUMS:
		return read_fields(r, checksums_fields, ARRAY_SIZE(checksums_fields), v, slot);
	case VALUE_TRUST:
		ok = s && name_index(trust_names, ARRAY_SIZE(trust_names), s, &index);
		if (ok)
			*(enum lock_trust *)slot = (enum lock_trust)index;
		break;
	case VALUE_KERNEL_KIND:
		ok = s && name_index(kind_names, ARRAY_SIZE(kind_names), s, &index);
		if (ok)
			*(enum plan_kernel_kind *)slot = (enum plan_kernel_kind)index;
		break;
	case VALUE_ELSEWHERE:
		return 0;
	}
	return ok ? 0 : fail(r, v->offset, "%s: found something else, expected %s", f->name, f->accepts);
}

/* A key may hold a NUL: strcmp() alone would take "base\0x" for "base". */
static bool key_is(const struct toml_member *m, const char *name)
{
	return strlen(name) == m->key.len && memcmp(m->key.data, name, m->key.len) == 0;
}

/* Read all of a table's keys into the object. */
static int read_fields(struct reader *r, const struct field *fields, size_t n, const struct toml_value *table, void *object)
{
	uint64_t seen = 0;
	size_t k = 0;

	if (table->type != TOML_TABLE)
		return fail(r, table->offset, "found %s, expected a table", toml_type_name(table->type));
	for (size_t i = 0; i < table->table.n; i++) {
		const struct toml_member *m = &table->table.members[i];
		char shown[64];
		size_t tried = 0;
		int code;

		/* Beginning behind the one before: they are written in this order, and there are thousands of them. */
		while (tried < n && !key_is(m, fields[k].name)) {
			k = k + 1 < n ? k + 1 : 0;
			tried++;
		}
		if (tried == n)
			return fail(r, m->key_offset, "found the unknown key `%s`, expected none of another version",
				err_sanitize(shown, sizeof(shown), m->key.data, m->key.len));
		code = read_field(r, &fields[k], m->value, (char *)object + fields[k].offset);
		if (code < 0)
			return code;
		seen |= UINT64_C(1) << k;
	}
	for (size_t i = 0; i < n; i++)
		if (fields[i].required && !(seen >> i & 1))
			return fail(r, table->offset, "found no %s, expected one", fields[i].name);
	return 0;
}

/* The array that a key holds, or NULL with the error set. */
static const struct toml_array *array_of(struct reader *r, const struct toml_value *v, const char *what, size_t max)
{
	if (v->type != TOML_ARRAY)
		(void)fail(r, v->offset, "%s: found %s, expected an array", what, toml_type_name(v->type));
	else if (v->array.n > max)
		(void)fail(r, v->offset, "%s: found %zu items, expected at most %zu", what, v->array.n, max);
	else
		return &v->array;
	return NULL;
}

static int read_package_list(struct reader *r, const struct toml_value *v, struct lock_package **ret, size_t *ret_n)
{
	const struct toml_array *a = array_of(r, v, "list", LOCK_MAX_PACKAGES);
	struct lock_package *items;

	if (!a)
		return r->e->code;
	items = calloc(a->n + 1, sizeof(*items));
	if (!items)
		return err_set(r->e, -ENOMEM, "out of memory");
	/* Handed over at once: the caller's release takes what was read before a failure. */
	*ret = items;
	*ret_n = a->n;
	for (size_t i = 0; i < a->n; i++) {
		int code = read_fields(r, package_fields, ARRAY_SIZE(package_fields), a->items[i], &items[i]);

		if (code < 0)
			return code;
	}
	return refuse_twice(r, a, items);
}

static int read_kernel(struct reader *r, const struct toml_value *v, struct lock_kernel *k)
{
	const struct toml_value *list, *archive;
	int code = read_fields(r, kernel_fields, ARRAY_SIZE(kernel_fields), v, k);

	if (code < 0)
		return code;
	list = toml_get(&v->table, "list");
	archive = toml_get(&v->table, "archive");
	if ((k->kind == PLAN_KERNEL_PACKAGE) != (list != NULL))
		return fail(r, v->offset, "found %s, expected a list exactly for a kernel from packages",
			list ? "a list" : "no list");
	if (list) {
		code = read_package_list(r, list, &k->packages, &k->n_packages);
		if (code == 0 && k->n_packages == 0)
			code = fail(r, list->offset, "found no package of the kernel, expected at least one");
	}
	if (code == 0 && archive)
		code = read_fields(r, archive_fields, ARRAY_SIZE(archive_fields), archive, &k->archive);
	return code;
}

/* Read the names that stand one a line at `key`. */
static int read_names(struct reader *r, const struct toml_value *table, const char *key, struct strv *ret)
{
	const struct toml_array *names = array_of(r, toml_get(&table->table, key), key, LOCK_MAX_PACKAGES);

	if (!names)
		return r->e->code;
	for (size_t i = 0; i < names->n; i++) {
		const char *name = text_of(names->items[i]);

		if (!name || !syntax_is_package_name(name))
			return fail(r, names->items[i]->offset, "%s: found something else, expected a package's name", key);
		if (strv_add(ret, name) < 0)
			return err_set(r->e, -ENOMEM, "out of memory");
	}
	strv_sort(ret);
	strv_uniq(ret);
	return 0;
}

static int read_keyrings(struct reader *r, const struct toml_value *table, struct lock_packages *p)
{
	const struct toml_array *list = array_of(r, toml_get(&table->table, "keyrings"), "keyrings", LOCK_MAX_KEYRINGS);
	int code = 0;

	if (!list)
		return r->e->code;
	p->keyrings = calloc(list->n + 1, sizeof(*p->keyrings));
	if (!p->keyrings)
		return err_set(r->e, -ENOMEM, "out of memory");
	p->n_keyrings = list->n;
	for (size_t i = 0; code == 0 && i < list->n; i++)
		code = read_fields(r, keyring_fields, ARRAY_SIZE(keyring_fields), list->items[i], &p->keyrings[i]);
	if (code == 0)
		lock_keyrings_sort(p->keyrings, p->n_keyrings);
	return code;
}

/* Refuse a package that comes and goes: one side of a merge removed what the other installs. */
static int refuse_both(struct reader *r, const struct toml_value *remove, const struct lock_packages *p)
{
	size_t k = 0;

	for (size_t i = 0; i < p->removals.n; i++) {
		while (k < p->n && strcmp(p->items[k].name, p->removals.items[i]) < 0)
			k++;
		if (k < p->n && strcmp(p->items[k].name, p->removals.items[i]) == 0)
			return fail_merge(r, remove->offset, "found the package %s both to be removed and in the list", p->items[k].name);
	}
	return 0;
}

static int read_packages(struct reader *r, const struct toml_value *v, struct lock_packages *p)
{
	int code = read_fields(r, packages_fields, ARRAY_SIZE(packages_fields), v, p);

	if (code == 0)
		code = read_names(r, v, "asked", &p->asked);
	if (code == 0)
		code = read_names(r, v, "remove", &p->removals);
	if (code == 0)
		code = read_keyrings(r, v, p);
	if (code < 0)
		return code;
	code = read_package_list(r, toml_get(&v->table, "list"), &p->items, &p->n);
	if (code < 0)
		return code;
	lock_packages_sort(p->items, p->n);
	return refuse_both(r, toml_get(&v->table, "remove"), p);
}

static int read_sources(struct reader *r, const struct toml_value *v, struct lock_arch *a)
{
	const struct toml_array *list = array_of(r, v, "sources", LOCK_MAX_SOURCES);

	if (!list)
		return r->e->code;
	a->sources = calloc(list->n + 1, sizeof(*a->sources));
	if (!a->sources)
		return err_set(r->e, -ENOMEM, "out of memory");
	a->n_sources = list->n;
	for (size_t i = 0; i < list->n; i++) {
		int code = read_fields(r, source_fields, ARRAY_SIZE(source_fields), list->items[i], &a->sources[i]);

		if (code < 0)
			return code;
		if (i > 0 && strcmp(a->sources[i - 1].slot, a->sources[i].slot) >= 0)
			return fail_merge(r, list->items[i]->offset, "found the slot `%s` out of order or twice", a->sources[i].slot);
	}
	return 0;
}

static int read_arch(struct reader *r, const struct toml_value *v, struct lock_arch *a)
{
	if (v->type != TOML_TABLE)
		return fail(r, v->offset, "found %s, expected a table", toml_type_name(v->type));
	for (size_t i = 0; i < v->table.n; i++) {
		const struct toml_member *m = &v->table.members[i];
		char shown[64];
		int code;

		if (key_is(m, "base"))
			code = read_fields(r, base_fields, ARRAY_SIZE(base_fields), m->value, &a->base);
		else if (key_is(m, "kernel"))
			code = read_kernel(r, m->value, &a->kernel);
		else if (key_is(m, "packages"))
			code = read_packages(r, m->value, &a->packages);
		else if (key_is(m, "sources"))
			code = read_sources(r, m->value, a);
		else
			code = fail(r, m->key_offset, "found the unknown section `%s`, expected base, kernel, packages or sources",
				err_sanitize(shown, sizeof(shown), m->key.data, m->key.len));
		if (code < 0)
			return code;
	}
	return 0;
}

static int read_root(struct reader *r, struct lock *l)
{
	const struct toml_value *root = toml_root(r->doc), *version = toml_get(&root->table, "version");

	if (!version || version->type != TOML_INTEGER)
		return fail(r, 0, "found no version, expected version = %d", LOCK_VERSION);
	if (version->integer != LOCK_VERSION)
		return fail(r, version->offset, "found version %lld, expected %d: %s imgbuild wrote it", (long long)version->integer,
			LOCK_VERSION, version->integer < LOCK_VERSION ? "an older" : "a newer");
	for (size_t i = 0; i < root->table.n; i++) {
		const struct toml_member *m = &root->table.members[i];
		char shown[64];
		enum arch arch;
		int code;

		if (m->value == version)
			continue;
		if (arch_parse(m->key.data, &arch) < 0 || !key_is(m, arch_name(arch)))
			return fail(r, m->key_offset, "found the unknown key `%s`, expected an architecture",
				err_sanitize(shown, sizeof(shown), m->key.data, m->key.len));
		code = read_arch(r, m->value, &l->arch[arch]);
		if (code < 0)
			return code;
	}
	return 0;
}

int lock_load_bytes(const char *path, const char *text, size_t len, struct lock *ret, struct err *e)
{
	_cleanup_toml_ struct toml_doc *doc = NULL;
	_cleanup_lock_ struct lock l = { 0 };
	struct toml_position at = { 0, 0 };
	struct err syntax = ERR_INIT;
	struct reader reader = { .path = path, .e = e };
	int r = toml_parse(text, len, &doc, &at, &syntax);

	if (r == -EBADMSG || r == -E2BIG) {
		unsigned conflict = find_conflict(text, len);

		return conflict ? refuse_merge(e, path, conflict, 1, "found a conflict that git marked") :
				  refuse(e, path, at.line, at.column, syntax.message);
	}
	if (r < 0)
		return err_set(e, r, "out of memory");
	reader.doc = doc;
	r = read_root(&reader, &l);
	if (r < 0)
		return r;
	*ret = l;
	l = (struct lock){ 0 };
	return 0;
}

int lock_load(int dirfd, const char *path, struct lock *ret, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(TOML_MAX_BYTES);
	int r = read_file_at(dirfd, path, true, &text, e);

	if (r == -ENOENT) {
		err_clear(e);
		*ret = (struct lock){ 0 };
		return 0;
	}
	if (r < 0) {
		(void)err_wrap(e, "reading the lock");
		return err_default_kind(e, ERR_KIND_USAGE);
	}
	return lock_load_bytes(path, buf_str(&text), text.len, ret, e);
}
