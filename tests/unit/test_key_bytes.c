/* The key, byte by byte: a plan with everything in it and the lock that answers it are taken apart by the TOML reader, every byte of every
 * value and of every name of the author's is changed to another of its kind, and the key must follow, or must not. For the plan the schema
 * says which (plan_schema_field()), for the lock the table below; a field of either that nobody thought of fails. */
#include "key_mutations.h"
#include "plan/canonical.h"
#include "plan/epoch.h"
#include "plan/json.h"
#include "plan/toml.h"

#define TEXT_MAX_BYTES (1u << 17)

/* What a change does to the key. */
enum effect {
	SAME,	      /* nothing */
	OTHER,	      /* another key, with the same answers in the lock */
	ASKS	      /* another question, and with the same answers the same key */
};

/* A change of one byte, or of one word. */
struct change {
	const char *path; /* "files.*.mode" */
	size_t offset, len;
	const char *with; /* len bytes or more, or less */
};

/* --- reaching every value --- */

struct walk {
	const char *text;
	void (*visit)(struct walk *w, const char *path, size_t offset, size_t len, const struct toml_value *in);
	/* Append the name of a member to the path as it is declared; says whether the author chose that name. */
	bool (*name)(char *path, size_t size, const struct toml_member *m);
	void *data;
};

/* Where the author's bytes of a string, number or boolean stand in the text. */
static void visit_scalar(struct walk *w, const char *path, const struct toml_value *v, const struct toml_value *in)
{
	size_t offset = v->offset, len;

	if (v->type == TOML_STRING) {
		offset++;
		len = v->string.len;
		if (memcmp(w->text + offset, v->string.data, len) != 0)
			fail_msg("the value of %s does not stand in the text as it is", path);
	} else {
		len = strcspn(w->text + offset, ",\n ]}");
	}
	w->visit(w, path, offset, len, in);
}

static void walk_value(struct walk *w, const char *path, const struct toml_value *v, const struct toml_value *in);

static void walk_table(struct walk *w, const char *path, const struct toml_value *table)
{
	for (size_t i = 0; i < table->table.n; i++) {
		const struct toml_member *m = &table->table.members[i];
		char inner[256];
		size_t offset = m->key_offset;

		(void)snprintf(inner, sizeof(inner), "%s", path);
		if (w->name(inner, sizeof(inner), m)) {
			offset += w->text[offset] == '"';
			assert_memory_equal(w->text + offset, m->key.data, m->key.len);
			w->visit(w, inner, offset, m->key.len, NULL);
		}
		walk_value(w, inner, m->value, table);
	}
}

static void walk_value(struct walk *w, const char *path, const struct toml_value *v, const struct toml_value *in)
{
	if (v->type == TOML_TABLE)
		walk_table(w, path, v);
	else if (v->type == TOML_ARRAY)
		for (size_t i = 0; i < v->array.n; i++) {
			char inner[264];

			/* "apt.repository[].uri", but a list of texts is one field. */
			(void)snprintf(inner, sizeof(inner), "%s%s", path, v->array.items[i]->type == TOML_TABLE ? "[]" : "");
			walk_value(w, inner, v->array.items[i], in);
		}
	else
		visit_scalar(w, path, v, in);
}

static void walk_text(struct walk *w)
{
	_cleanup_toml_ struct toml_doc *doc = NULL;
	struct err e = ERR_INIT;

	if (toml_parse(w->text, strlen(w->text), &doc, NULL, &e) < 0)
		fail_msg("%s", e.message);
	walk_table(w, "", toml_root(doc));
}

static void append_name(char *path, size_t size, const char *name, size_t len)
{
	size_t n = strlen(path);

	(void)snprintf(path + n, size - n, "%s%.*s", n ? "." : "", (int)len, name);
}

/* The next byte of the same kind; 0 for punctuation, which is left alone. */
static char next_byte(char c)
{
	if (c >= '0' && c <= '9')
		return c == '9' ? '0' : (char)(c + 1);
	if (c >= 'a' && c <= 'z')
		return c == 'z' ? 'a' : (char)(c + 1);
	if (c >= 'A' && c <= 'Z')
		return c == 'Z' ? 'A' : (char)(c + 1);
	return 0;
}

/* --- the plan --- */

struct plan_run {
	const struct fixture *fixture;
	struct answered before;
	struct digest key;
	bool *reached; /* by the index of the field */
	unsigned n_changed;
};

/* The index of the field with this path; -1 when there is none. With `beneath`, also of one that the path lies beneath. */
static int field_index(const char *path, bool beneath, struct plan_schema_field *ret)
{
	for (size_t i = 0; plan_schema_field(i, ret); i++) {
		size_t n = strlen(ret->path);

		if (strcmp(ret->path, path) == 0 || (beneath && strncmp(ret->path, path, n) == 0 && path[n] == '.'))
			return (int)i;
	}
	return -1;
}

/* Is anything declared with or beneath this path? */
static bool is_declared(const char *path)
{
	struct plan_schema_field field;
	size_t n = strlen(path);

	for (size_t i = 0; plan_schema_field(i, &field); i++)
		if (strncmp(field.path, path, n) == 0 && (field.path[n] == '\0' || field.path[n] == '.' || field.path[n] == '['))
			return true;
	return false;
}

/* A member is declared by its own name, as an architecture, or as any name. What is ignored has no declarations beneath. */
static bool plan_name(char *path, size_t size, const struct toml_member *m)
{
	char named[256], arch[256];
	struct plan_schema_field field;
	enum arch which;

	(void)snprintf(named, sizeof(named), "%s", path);
	(void)snprintf(arch, sizeof(arch), "%s", path);
	append_name(named, sizeof(named), m->key.data, m->key.len);
	append_name(arch, sizeof(arch), "ARCH", 4);
	if (is_declared(named) || (path[0] && field_index(path, true, &field) >= 0 && field.role == PLAN_KEY_OUT)) {
		(void)snprintf(path, size, "%s", named);
		return false;
	}
	if (arch_parse(m->key.data, &which) == 0 && is_declared(arch)) {
		(void)snprintf(path, size, "%s", arch);
		return false;
	}
	append_name(path, size, "*", 1);
	if (!is_declared(path))
		fail_msg("the schema declares nothing of the name %s", named);
	return true;
}

/* What must be there for a local path with a byte changed. */
static bool make_local(const struct fixture *f, const char *field, const char *path)
{
	_cleanup_close_ int fd = -1;

	if (strcmp(field, "kernel.ARCH.modules") == 0)
		return mkdirat(f->fd, path, 0755) == 0;
	fd = openat(f->fd, path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
	return fd >= 0;
}

/* Load the changed plan; false when it is none, which is no concern here. */
static bool load_changed(const struct fixture *f, const struct change *c, const char *text, struct answered *ret)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	struct err e = ERR_INIT;
	int r;

	if (plan_load_bytes(f->fd, "p.toml", text, strlen(text), false, &ret->plan, &faults, &e) < 0)
		return false;
	r = plan_local_inputs(ret->plan, ARCH_AMD64, &ret->locals, &e);
	if (r == -ENOENT) {
		/* The word that was changed names a local file. */
		char path[256];
		const char *start = text + c->offset, *end;

		while (start[-1] != '"')
			start--;
		end = strchr(start, '"');
		(void)snprintf(path, sizeof(path), "%.*s", (int)(end - start), start);
		assert_true(make_local(f, c->path, path));
		err_clear(&e);
		r = plan_local_inputs(ret->plan, ARCH_AMD64, &ret->locals, &e);
	}
	if (r < 0)
		fail_msg("%s", e.message);
	for (size_t i = 0; i < ret->locals.n; i++) {
		struct plan_local_input *input = &ret->locals.items[i];

		input->digest = digest_of_text(input->path, strcspn(input->path, "@"));
	}
	return true;
}

static bool key_with(const struct answered *a, const struct lock *lock, struct digest *ret)
{
	struct err e = ERR_INIT;
	int r = key_compute(a->plan, lock, ARCH_AMD64, &a->locals, ret, NULL, &e);

	if (r < 0 && r != -ENOKEY)
		fail_msg("%s", e.message);
	return r == 0;
}

static void changed_text(struct buf *out, const char *text, const struct change *c)
{
	buf_reset(out);
	assert_int_equal(buf_append(out, text, c->offset), 0);
	assert_int_equal(buf_append_str(out, c->with), 0);
	assert_int_equal(buf_append_str(out, text + c->offset + c->len), 0);
}

/* Change the plan and hold the key against the effect. Returns false when the change makes it no plan. */
static bool try_plan(struct plan_run *run, const char *text, const struct change *c, enum effect effect)
{
	_cleanup_buf_ struct buf changed = BUF_INIT(TEXT_MAX_BYTES);
	_cleanup_answered_ struct answered after = { 0 };
	struct digest other;
	bool known;

	changed_text(&changed, text, c);
	if (!load_changed(run->fixture, c, buf_str(&changed), &after))
		return false;
	known = key_with(&after, &run->before.lock, &other);
	if ((known && digest_equal(&run->key, &other)) != (effect == SAME))
		fail_msg("%s: `%.*s` for `%.*s` %s the key", c->path, (int)strcspn(c->with, "\n"), c->with, (int)c->len,
			text + c->offset, effect == SAME ? "changes" : "does not change");
	if (effect == ASKS && known)
		fail_msg("%s: `%s` for `%.*s` asks nothing else", c->path, c->with, (int)c->len, text + c->offset);
	fixture_answer(&after, ARCH_AMD64, "one");
	assert_true(key_with(&after, &after.lock, &other));
	if (digest_equal(&run->key, &other) != (effect != OTHER))
		fail_msg("%s: `%s` for `%.*s`: the same answers give %s key", c->path, c->with, (int)c->len, text + c->offset,
			effect == OTHER ? "the same" : "another");
	run->n_changed++;
	return true;
}

/* A URL beside a digest is only where the bytes may be had. */
static bool is_pinned(const struct toml_value *in)
{
	return in && (toml_get(&in->table, "sha256") || toml_get(&in->table, "sha512"));
}

static enum effect plan_effect(const char *path, enum plan_key_role role, const struct toml_value *in)
{
	size_t n = strlen(path);

	if (n > 4 && strcmp(path + n - 4, ".url") == 0) {
		const struct toml_value *url = toml_get(&in->table, "url");

		if (is_pinned(in))
			return SAME;
		/* A local file in its place is an input by its bytes. */
		if (strncmp(url->string.data, "http", 4) != 0)
			return OTHER;
	}
	return role == PLAN_KEY_OUT ? SAME : role == PLAN_KEY_IN ? OTHER : ASKS;
}

static void visit_plan(struct walk *w, const char *path, size_t offset, size_t len, const struct toml_value *in)
{
	struct plan_run *run = w->data;
	struct plan_schema_field field = { 0 };
	/* A name that stands for itself: where a file goes, who a user is. The name of a group of packages is for people. */
	bool is_name = !in;
	int index = is_name && strcmp(path, "packages.*") != 0 && strcmp(path, "packages.ARCH.*") != 0 ? -1
												      : field_index(path, true, &field);
	enum effect effect = index < 0 ? OTHER : is_name ? SAME : plan_effect(path, field.role, in);
	bool any = false;

	if (index < 0 && !is_name)
		fail_msg("the schema does not declare %s", path);
	if (strncmp(w->text + offset, "true", 4) == 0 || strncmp(w->text + offset, "false", 5) == 0) {
		const struct change c = { path, offset, len, w->text[offset] == 't' ? "false" : "true" };

		/* `false` is not `true` in a string, either, but there it need not be a value. */
		any = try_plan(run, w->text, &c, effect);
	}
	for (size_t i = 0; i < len; i++) {
		const char with[2] = { next_byte(w->text[offset + i]), '\0' };
		const struct change c = { path, offset + i, 1, with };

		if (with[0])
			any = try_plan(run, w->text, &c, effect) || any;
	}
	if (index >= 0)
		run->reached[index] = run->reached[index] || any;
}

/* What one byte cannot change into another value that is accepted; test_key.c has words for them. */
static bool only_by_words(const char *path)
{
	return strcmp(path, "kernel.ARCH.from") == 0;
}

static const char *const heads[] = { "name = \"a name\"\n" URLS, CHECKSUMS, SHA512S, SHA256S, LOCALS, LOCAL_PATH, PACKAGE, FROM_BASE,
	IGNORED };
/* Beside what the mutations of test_key.c have: values that one byte can change. */
static const char more[] = "[users.daemon]\npassword = \"$6$salt$hash\"\n[files.\"/etc/mine\"]\ncontent = \"x\"\nowner = \"1000:1000\"\n";

static void every_byte_of_a_plan_counts_as_declared(void **state)
{
	struct plan_schema_field field;
	bool reached[512] = { false };
	unsigned n_changed = 0;

	for (size_t h = 0; h < ARRAY_SIZE(heads); h++) {
		_cleanup_buf_ struct buf text = BUF_INIT(TEXT_MAX_BYTES);
		struct plan_run run = { .fixture = *state, .reached = reached };
		struct walk w = { .visit = visit_plan, .name = plan_name, .data = &run };

		/* The long part once with a script, once with a file; afterwards only what is new. */
		assert_int_equal(buf_appendf(&text, "%s%s%s%s", heads[h], h < 2 ? rest : "", h < 2 ? more : "",
					 h == 0	  ? SCRIPT
					 : h == 1 ? SCRIPT_FILE
						  : ""),
			0);
		w.text = buf_str(&text);
		fixture_load(*state, w.text, ARCH_AMD64, &run.before);
		fixture_answer(&run.before, ARCH_AMD64, "one");
		assert_true(key_with(&run.before, &run.before.lock, &run.key));
		walk_text(&w);
		answered_release(&run.before);
		n_changed += run.n_changed;
	}
	for (size_t i = 0; plan_schema_field(i, &field); i++) {
		assert_true(i < ARRAY_SIZE(reached));
		if (!reached[i] && !only_by_words(field.path))
			fail_msg("no plan in this test has %s, or no byte of it could be changed", field.path);
	}
	print_message("%u changes of a plan\n", n_changed);
}

/* What DESIGN's table has on its right side, and nothing else, is out. */
static void what_is_out_is_what_the_contract_says(void **state)
{
	static const char *const out[] = { "name", "base.version", "base.codename", "base.ARCH.checksums_signature", "kernel.ARCH.cmdline", "provision.memory",
		"provision.cpus", "provision.stall_timeout", "paths", "kernel_profiles" };
	struct plan_schema_field field;
	size_t n = 0;

	(void)state;
	for (size_t i = 0; plan_schema_field(i, &field); i++) {
		bool listed = false;

		for (size_t k = 0; k < ARRAY_SIZE(out); k++)
			listed = listed || strcmp(out[k], field.path) == 0;
		if (listed != (field.role == PLAN_KEY_OUT))
			fail_msg("%s is declared %s the key", field.path, listed ? "part of" : "out of");
		n += listed;
	}
	assert_int_equal(n, ARRAY_SIZE(out));
}

/* --- spelling --- */

static void spell_as_it_is(const char *line, struct buf *into)
{
	assert_int_equal(buf_append_str(into, line), 0);
}

static void spell_with_comments(const char *line, struct buf *into)
{
	assert_int_equal(buf_appendf(into, "# a comment = [1\n\n%.*s # and another\n", (int)strcspn(line, "\n"), line), 0);
}

static void spell_with_returns(const char *line, struct buf *into)
{
	assert_int_equal(buf_appendf(into, "%.*s\r\n", (int)strcspn(line, "\n"), line), 0);
}

static void spell_with_blanks(const char *line, struct buf *into)
{
	for (; *line; line++) {
		bool equals = *line == '=' && line[1] == ' ';

		assert_int_equal(buf_append_str(into, equals ? "\t" : ""), 0);
		assert_int_equal(buf_append_char(into, *line), 0);
		assert_int_equal(buf_append_str(into, equals ? "\t  " : ""), 0);
	}
}

/* The plan with its tables, and the keys in each, the other way round. */
static void turn_round(const char *text, void (*spell)(const char *line, struct buf *into), struct buf *into)
{
	_cleanup_strv_ struct strv lines = { 0 };
	size_t end;

	for (const char *at = text; *at;) {
		size_t n = strcspn(at, "\n") + 1;
		_cleanup_free_ char *line = strndup(at, n);

		assert_int_equal(strv_add(&lines, line), 0);
		at += n;
	}
	end = lines.n;
	for (size_t i = lines.n; i-- > 0;) {
		if (lines.items[i][0] != '[' && i > 0)
			continue;
		if (lines.items[i][0] == '[')
			spell(lines.items[i], into);
		for (size_t k = end; k-- > i + (lines.items[i][0] == '[');)
			spell(lines.items[k], into);
		end = i;
	}
}

static void how_it_is_written_does_not_matter(void **state)
{
	static void (*const spellings[])(const char *, struct buf *) = { spell_as_it_is, spell_with_comments, spell_with_returns,
		spell_with_blanks };
	_cleanup_buf_ struct buf text = BUF_INIT(TEXT_MAX_BYTES);
	_cleanup_answered_ struct answered before = { 0 };
	struct digest key;

	/* Top-level keys must stay in front: this head has none. */
	assert_int_equal(buf_appendf(&text, "%s%s%s%s", URLS, rest, more, SCRIPT), 0);
	fixture_load(*state, buf_str(&text), ARCH_AMD64, &before);
	fixture_answer(&before, ARCH_AMD64, "one");
	assert_true(key_with(&before, &before.lock, &key));
	for (size_t i = 0; i < ARRAY_SIZE(spellings); i++) {
		_cleanup_buf_ struct buf other = BUF_INIT(TEXT_MAX_BYTES);
		_cleanup_answered_ struct answered after = { 0 };
		struct digest now;

		turn_round(buf_str(&text), spellings[i], &other);
		assert_true(other.len >= text.len);
		assert_string_not_equal(buf_str(&other), buf_str(&text));
		fixture_load(*state, buf_str(&other), ARCH_AMD64, &after);
		assert_true(key_with(&after, &before.lock, &now));
		assert_true(digest_equal(&key, &now));
	}
}

/* --- the lock --- */

/* What each of its fields does: a question that is another than the plan's has no answer. */
static const struct {
	const char *path;
	enum effect effect;
} lock_fields[] = {
	{ "base.question", ASKS }, { "base.sha256", OTHER }, { "base.sha512", SAME }, { "base.url", SAME }, { "base.resolved", SAME },
	{ "base.size", SAME }, { "base.trust", SAME }, { "base.checksums.url", SAME }, { "base.checksums.sha256", SAME },
	{ "base.checksums.signer", SAME },
	/* The kernel is its own bytes, not the archive's. */
	{ "kernel.question", ASKS }, { "kernel.sha256", OTHER }, { "kernel.kind", SAME }, { "kernel.member", SAME },
	{ "kernel.archive.sha256", SAME }, { "kernel.archive.sha512", SAME }, { "kernel.archive.url", SAME },
	{ "kernel.archive.resolved", SAME }, { "kernel.archive.size", SAME }, { "kernel.archive.trust", SAME },
	{ "kernel.archive.checksums.url", SAME }, { "kernel.archive.checksums.sha256", SAME }, { "kernel.archive.checksums.signer", SAME },
	/* Of the packages that a kernel comes in only the bytes count: they are unpacked, not installed. */
	{ "kernel.list[].sha256", OTHER }, { "kernel.list[].name", SAME }, { "kernel.list[].version", SAME },
	{ "kernel.list[].arch", SAME }, { "kernel.list[].size", SAME }, { "kernel.list[].file", SAME }, { "kernel.list[].uri", SAME },
	{ "kernel.list[].suite", SAME }, { "kernel.list[].release", SAME }, { "kernel.list[].date", SAME },
	{ "packages.question", ASKS }, { "packages.asked", ASKS }, { "packages.remove", OTHER }, { "packages.keyrings[].path", SAME },
	{ "packages.keyrings[].sha256", SAME }, { "packages.list[].name", OTHER }, { "packages.list[].version", OTHER },
	{ "packages.list[].arch", OTHER }, { "packages.list[].sha256", OTHER }, { "packages.list[].size", SAME },
	{ "packages.list[].file", SAME }, { "packages.list[].uri", SAME }, { "packages.list[].suite", SAME },
	{ "packages.list[].release", SAME }, { "packages.list[].date", SAME },
	{ "sources[].slot", ASKS }, { "sources[].question", ASKS }, { "sources[].sha256", OTHER }, { "sources[].sha512", SAME },
	{ "sources[].url", SAME }, { "sources[].resolved", SAME }, { "sources[].size", SAME }, { "sources[].trust", SAME },
	{ "sources[].checksums.url", SAME }, { "sources[].checksums.sha256", SAME }, { "sources[].checksums.signer", SAME },
};

struct lock_run {
	struct answered *answered;
	struct digest key;
	bool *reached;
	unsigned n_changed;
};

static bool lock_name(char *path, size_t size, const struct toml_member *m)
{
	enum arch arch;

	if (path[0] || arch_parse(m->key.data, &arch) < 0)
		append_name(path, size, m->key.data, m->key.len);
	return false;
}

/* An answer that the plan does not need, since it says itself what the bytes are. */
static bool is_idle(const struct toml_value *in)
{
	const struct toml_value *slot = toml_get(&in->table, "slot");

	return slot && strstr(slot->string.data, "pinned");
}

static void visit_lock(struct walk *w, const char *path, size_t offset, size_t len, const struct toml_value *in)
{
	struct lock_run *run = w->data;
	enum effect effect;
	size_t field = 0;

	/* Another version is no lock that we read. */
	if (strcmp(path, "version") == 0)
		return;
	while (field < ARRAY_SIZE(lock_fields) && strcmp(lock_fields[field].path, path) != 0)
		field++;
	if (field == ARRAY_SIZE(lock_fields))
		fail_msg("the lock's field %s is not in this test: does it change the key?", path);
	effect = is_idle(in) ? SAME : lock_fields[field].effect;
	for (size_t i = 0; i < len; i++) {
		const char with[2] = { next_byte(w->text[offset + i]), '\0' };
		const struct change c = { path, offset + i, 1, with };
		_cleanup_buf_ struct buf changed = BUF_INIT(TEXT_MAX_BYTES);
		_cleanup_lock_ struct lock lock = { 0 };
		struct err e = ERR_INIT;
		struct digest other;
		bool known, same;

		changed_text(&changed, w->text, &c);
		if (!with[0] || lock_load_bytes("p.lock", buf_str(&changed), changed.len, &lock, &e) < 0)
			continue;
		known = key_with(run->answered, &lock, &other);
		same = known && digest_equal(&run->key, &other);
		if (same != (effect == SAME) || known != (effect != ASKS))
			/* A base of another digest is another question for what was chosen for it. */
			if (known || strcmp(path, "base.sha256") != 0)
				fail_msg("the lock's %s: byte %zu of `%.*s` %s", path, i, (int)len, w->text + offset,
					!known ? "is no answer" : same ? "does not change the key" : "changes the key");
		run->reached[field] = run->reached[field] || !is_idle(in);
		run->n_changed++;
	}
}

/* Every hint that a lock can have. */
static void fill_hints(struct answered *a, struct buf *text)
{
	struct lock_arch *l = &a->lock.arch[ARCH_AMD64];
	struct lock_blob *blobs[8] = { &l->base, &l->kernel.archive };
	size_t n = 2;
	struct err e = ERR_INIT;

	for (size_t i = 0; i < l->n_sources && n < ARRAY_SIZE(blobs); i++)
		blobs[n++] = &l->sources[i].blob;
	for (size_t i = 0; i < n; i++) {
		blobs[i]->sha512 = (struct digest){ .algorithm = DIGEST_SHA512, .bytes = { 1, 2, 3 } };
		blobs[i]->trust = LOCK_TRUST_SIGNATURE;
		blobs[i]->resolved_url = strdup("https://example.org/led/here");
		blobs[i]->checksums = (struct lock_checksums){ .url = strdup("https://example.org/SUMS"),
			.sha256 = l->base.sha256,
			.signer = strdup("0123456789ABCDEF0123456789ABCDEF01234567") };
	}
	if (l->kernel.kind == PLAN_KERNEL_ARCHIVE)
		l->kernel.member = strdup("opt/vmlinux");
	if (lock_format(&a->lock, text, &e) < 0)
		fail_msg("%s", e.message);
}

static void every_byte_of_a_lock_counts_as_it_should(void **state)
{
	static const char *const of_lock[] = { URLS, PACKAGE };
	bool reached[ARRAY_SIZE(lock_fields)] = { false };
	unsigned n_changed = 0;

	for (size_t h = 0; h < ARRAY_SIZE(of_lock); h++) {
		_cleanup_buf_ struct buf plan = BUF_INIT(TEXT_MAX_BYTES), text = BUF_INIT(TEXT_MAX_BYTES);
		_cleanup_answered_ struct answered a = { 0 };
		struct lock_run run = { .answered = &a, .reached = reached };
		struct walk w = { .visit = visit_lock, .name = lock_name, .data = &run };

		assert_int_equal(buf_appendf(&plan, "%s%s", of_lock[h], rest), 0);
		fixture_load(*state, buf_str(&plan), ARCH_AMD64, &a);
		fixture_answer(&a, ARCH_AMD64, "one");
		fill_hints(&a, &text);
		assert_true(key_with(&a, &a.lock, &run.key));
		w.text = buf_str(&text);
		walk_text(&w);
		n_changed += run.n_changed;
	}
	for (size_t i = 0; i < ARRAY_SIZE(lock_fields); i++)
		/* One byte makes no other word of these. */
		if (!reached[i] && !strstr(lock_fields[i].path, ".trust") && strcmp(lock_fields[i].path, "kernel.kind") != 0)
			fail_msg("no lock in this test has %s", lock_fields[i].path);
	print_message("%u changes of a lock\n", n_changed);
}

/* What one byte cannot say: a package more or less, another kind of trust, another architecture's section. */
static void parts_of_a_lock_count_as_they_should(void **state)
{
	static const struct {
		const char *from, *to;
		enum effect effect;
	} changes[] = {
		{ "trust = \"first-use\"", "trust = \"plan\"", SAME },
		{ "trust = \"first-use\"", "trust = \"checksums\"", SAME },
		{ "\"systemd-timesyncd\",\n", "", OTHER },
		{ "\"systemd-timesyncd\",\n", "\"systemd-timesyncd\",\n\"more\",\n", OTHER },
		{ "asked = [\n", "asked = [\n\"more\",\n", ASKS },
		{ "keyrings = [\n", "keyrings = [\n{ path = \"/x\", sha256 = \"" HEX_A "\" },\n", SAME },
		{ "\n[amd64.base]\n", "\n[arm64.base]\nquestion = \"" HEX_A "\"\nsize = 1\nsha256 = \"" HEX_A "\"\ntrust = \"plan\"\n[amd64.base]\n",
			SAME },
		{ "version = 2\n", "# a comment\nversion = 2 # another\n\n", SAME },
	};
	_cleanup_buf_ struct buf plan = BUF_INIT(TEXT_MAX_BYTES), text = BUF_INIT(TEXT_MAX_BYTES);
	_cleanup_answered_ struct answered a = { 0 };
	struct err e = ERR_INIT;
	struct digest key;

	assert_int_equal(buf_appendf(&plan, "%s%s", URLS, rest), 0);
	fixture_load(*state, buf_str(&plan), ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	assert_int_equal(lock_format(&a.lock, &text, &e), 0);
	assert_true(key_with(&a, &a.lock, &key));
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		_cleanup_buf_ struct buf changed = BUF_INIT(TEXT_MAX_BYTES);
		_cleanup_lock_ struct lock lock = { 0 };
		struct digest other;
		bool known;

		replace_once(&changed, buf_str(&text), changes[i].from, changes[i].to);
		if (lock_load_bytes("p.lock", buf_str(&changed), changed.len, &lock, &e) < 0)
			fail_msg("%s", e.message);
		known = key_with(&a, &lock, &other);
		assert_int_equal(known, changes[i].effect != ASKS);
		if (known && digest_equal(&key, &other) != (changes[i].effect == SAME))
			fail_msg("`%s` %s the key", changes[i].to, changes[i].effect == SAME ? "changes" : "does not change");
	}
}

/* --- the epoch --- */

static void the_epoch_is_in_the_key(void **state)
{
	_cleanup_answered_ struct answered a = { 0 };
	_cleanup_json_ json_t *document = NULL;
	struct err e = ERR_INIT;
	struct digest key, again, next;
	char line[64];

	fixture_load(*state, LOCALS, ARCH_AMD64, &a);
	assert_int_equal(key_compute(a.plan, &a.lock, ARCH_AMD64, &a.locals, &key, &document, &e), 0);
	(void)snprintf(line, sizeof(line), "imgbuild-epoch %d\n", IMGBUILD_EPOCH);
	assert_int_equal(canonical_digest(line, document, &again, &e), 0);
	assert_true(digest_equal(&key, &again));
	(void)snprintf(line, sizeof(line), "imgbuild-epoch %d\n", IMGBUILD_EPOCH + 1);
	assert_int_equal(canonical_digest(line, document, &next, &e), 0);
	assert_false(digest_equal(&key, &next));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_of_a_plan_counts_as_declared),
		cmocka_unit_test(what_is_out_is_what_the_contract_says),
		cmocka_unit_test(how_it_is_written_does_not_matter),
		cmocka_unit_test(every_byte_of_a_lock_counts_as_it_should),
		cmocka_unit_test(parts_of_a_lock_count_as_they_should),
		cmocka_unit_test(the_epoch_is_in_the_key),
	};

	return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
