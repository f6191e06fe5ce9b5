#include "builder/cli/why.h"
#include "builder/cli/values.h"
#include "builder/comparison.h"
#include "builder/manifest.h"
#include "lib/io.h"
#include "lib/text_diff.h"
#include "plan/epoch.h"
#include "plan/json.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>

enum {
	TEXT_LINES_SHOWN = 60,	  /* of a text, for people */
	TEXT_LINES_LISTED = 2000, /* in JSON */
	CHANGES_SHOWN = 3000,	  /* for people */
	LOOK_UPS_MAX = 200	  /* of texts and of names of packages, each of which may read a whole file of the entry */
};

/* What the answer is made from. */
struct answer {
	const struct prepared *p;
	const struct store *store;
	struct key_gaps gaps;
	struct strv reasons; /* "slot: why the lock does not answer it" */
	json_t *document;    /* of the plan, as far as it is known */
	char *hit_path;	     /* the plan's own entry */
	char *failed_path;   /* the newest failed build of its key */
	struct comparison with;
	struct lock old_lock;
	json_t *old_manifest; /* read when something asks for it */
	unsigned n_look_ups;
};

static void answer_release(struct answer *a)
{
	key_gaps_release(&a->gaps);
	strv_release(&a->reasons);
	json_decref(a->document);
	free(a->hit_path);
	free(a->failed_path);
	comparison_release(&a->with);
	lock_release(&a->old_lock);
	json_decref(a->old_manifest);
}

/* --- what the locks and the manifest know beyond a digest --- */

/* Is this the digest in a change's value? */
static bool is_value(const json_t *value, const struct digest *d)
{
	char hex[DIGEST_HEX_SIZE];

	return json_is_string(value) && d->algorithm != DIGEST_NONE && strcmp(json_string_value(value), digest_hex(d, hex)) == 0;
}

/* Where the base of one side came from, as far as its lock speaks of it. Borrowed, or NULL. */
static const char *base_url(const struct lock *l, enum arch arch, const json_t *value)
{
	return is_value(value, &l->arch[arch].base.sha256) ? l->arch[arch].base.url : NULL;
}

/* Append what the kernel of one side is called. Nothing when its lock does not speak of it. */
static void append_kernel_name(struct buf *into, const struct lock *l, enum arch arch, const json_t *value)
{
	const struct lock_kernel *k = &l->arch[arch].kernel;

	if (!is_value(value, &k->sha256))
		return;
	if (k->n_packages > 0)
		(void)!buf_appendf(into, "%s %s", k->packages[0].name, k->packages[0].version);
	else if (k->member)
		value_append_string(into, k->member);
}

/* Append, after a blank, the file name of the local package with this digest, as the plan has it, or name and version as the entry has it. */
static void append_deb_name(struct buf *into, struct answer *a, const struct key_change *c)
{
	struct err ignored = ERR_INIT;
	char hex[DIGEST_HEX_SIZE];
	json_t *item;
	size_t i;

	for (i = 0; c->new_value && i < a->p->locals.n; i++)
		if (a->p->locals.items[i].kind == PLAN_INPUT_DEB &&
			strcmp(digest_hex(&a->p->locals.items[i].digest, hex), c->name) == 0) {
			(void)!buf_append_char(into, ' ');
			value_append_string(into, a->p->locals.items[i].path);
			return;
		}
	if (a->n_look_ups++ >= LOOK_UPS_MAX)
		return;
	if (!a->old_manifest)
		(void)!manifest_load(a->with.item.path, &a->old_manifest, &ignored);
	json_array_foreach(json_object_get(a->old_manifest, "installed"), i, item)
		if (strcmp(manifest_text(item, "sha256"), c->name) == 0) {
			(void)!buf_append_char(into, ' ');
			value_append_string(into, manifest_text(item, "name"));
			(void)!buf_append_char(into, ' ');
			value_append_string(into, manifest_text(item, "version"));
			return;
		}
}

/* Append a remark that tells people more than a digest does. */
static void append_remark(struct buf *into, struct answer *a, const struct key_change *c)
{
	_cleanup_buf_ struct buf was = BUF_INIT(4096), is = BUF_INIT(4096);
	const char *plain = NULL;
	enum arch old_arch = a->p->arch;

	(void)!arch_parse(manifest_text(a->with.old_key.document, "arch"), &old_arch);
	if (c->input == KEY_INPUT_EPOCH)
		plain = "another version of imgbuild, which makes other bytes of the same plan";
	if (c->input == KEY_INPUT_BASE && strcmp(c->field, "sha256") == 0) {
		const char *old_url = base_url(&a->old_lock, old_arch, c->old_value);
		const char *new_url = base_url(&a->p->lock, a->p->arch, c->new_value);

		if (old_url)
			value_append_text(&was, old_url, strlen(old_url));
		if (new_url)
			value_append_text(&is, new_url, strlen(new_url));
	}
	if (c->input == KEY_INPUT_KERNEL && strcmp(c->field, "sha256") == 0) {
		append_kernel_name(&was, &a->old_lock, old_arch, c->old_value);
		append_kernel_name(&is, &a->p->lock, a->p->arch, c->new_value);
	}
	if (c->input == KEY_INPUT_PACKAGE && strcmp(c->field, "sha256") == 0)
		plain = "another package of the same version";
	if (plain || (was.len > 0 && strcmp(buf_str(&was), buf_str(&is)) == 0))
		(void)!buf_appendf(into, " (%s)", plain ? plain : buf_str(&is));
	else if (was.len == 0 && is.len > 0)
		(void)!buf_appendf(into, " (now %s)", buf_str(&is));
	else if (was.len > 0 && is.len == 0)
		(void)!buf_appendf(into, " (was %s)", buf_str(&was));
	else if (was.len > 0)
		(void)!buf_appendf(into, " (%s -> %s)", buf_str(&was), buf_str(&is));
}

/* --- texts --- */

/* The path of the file whose content a change is about; "" for the setup script; NULL: neither. */
static const char *text_path(const struct key_change *c)
{
	if (c->input == KEY_INPUT_SETUP && c->name[0] == '\0')
		return "";
	return c->input == KEY_INPUT_FILE && strcmp(c->field, "content") == 0 ? c->name : NULL;
}

/* Is it about two trees? */
static bool is_about_trees(const struct key_change *c)
{
	return (c->input == KEY_INPUT_FILE || c->input == KEY_INPUT_INPUT) && strcmp(c->field, "content") == 0 &&
	       json_is_string(json_object_get(c->old_value, "tree")) && json_is_string(json_object_get(c->new_value, "tree"));
}

/* Read a blob that came from a URL, where the store has it still. */
static int read_blob(const struct store *store, const struct digest *sha256, struct buf *into)
{
	_cleanup_close_ int fd = -1;
	struct err ignored = ERR_INIT;
	struct digest found;
	int r = store_open_blob(store, sha256, &fd, NULL, &ignored);

	buf_reset(into);
	if (r == 0)
		r = read_fd_to_end(fd, into);
	if (r == 0)
		r = digest_bytes(DIGEST_SHA256, buf_str(into), into->len, &found, &ignored);
	return r < 0 ? r : digest_equal(&found, sha256) ? 0 : -EBADMSG;
}

/* Read what the plan has now: in itself or in a local file. */
static int read_plan_text(const struct prepared *p, const char *path, const struct digest *sha256, struct buf *into)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *slot = NULL;
	struct err ignored = ERR_INIT;
	const char *text = NULL;
	size_t len = 0;
	struct digest found;
	int r = 0;

	buf_reset(into);
	if (!*path) {
		text = p->plan->setup.script;
		len = p->plan->setup.script_len;
	}
	for (size_t i = 0; *path && i < p->plan->n_files; i++)
		if (strcmp(p->plan->files[i].destination.text, path) == 0) {
			text = p->plan->files[i].text;
			len = p->plan->files[i].text_len;
		}
	if (text) {
		r = buf_append(into, text, len);
	} else {
		if (asprintf(&slot, "%s%s", *path ? "files:" : "setup", path) < 0)
			return -ENOMEM;
		r = prepared_open_local(p, slot, &fd, &ignored);
		if (r == 0)
			r = read_fd_to_end(fd, into);
	}
	if (r == 0)
		r = digest_bytes(DIGEST_SHA256, buf_str(into), into->len, &found, &ignored);
	return r < 0 ? r : digest_equal(&found, sha256) ? 0 : -EBUSY;
}

/* Read the text that one side of a change is about. */
static int read_side(const struct answer *a, const char *path, const json_t *value, bool is_new, struct buf *into)
{
	struct err ignored = ERR_INIT;
	struct digest sha256;
	int r;

	/* No script is an empty one; a file is there on both sides, or it would be another change. */
	if (!value || json_is_null(value))
		return 0;
	if (!json_is_string(value) || digest_parse_hex(DIGEST_SHA256, json_string_value(value), &sha256) < 0)
		return -ENOENT;
	r = is_new ? read_plan_text(a->p, path, &sha256, into) :
		     companions_read_text(a->with.item.path, *path ? path : NULL, &sha256, into, &ignored);
	if (r < 0)
		r = read_blob(a->store, &sha256, into);
	return r < 0 || memchr(buf_str(into), '\0', into->len) ? -ENOENT : 0;
}

/* Take one NUL-terminated piece off a listing. NULL at its end. */
static const char *next_piece(const char **at, const char *end)
{
	const char *piece = *at, *nul = piece < end ? memchr(piece, '\0', (size_t)(end - piece)) : NULL;

	if (!nul)
		return NULL;
	*at = nul + 1;
	return piece;
}

/* Make a line of each record of a tree's listing, with the path first. */
static int lines_of_listing(const struct buf *listing, struct buf *lines)
{
	const char *at = buf_str(listing), *end = at + listing->len, *record;
	size_t head = strlen(FILEDIGEST_TREE_HEAD);
	int r = 0;

	if (listing->len < head || memcmp(at, FILEDIGEST_TREE_HEAD, head) != 0)
		return -ENOENT;
	at += head;
	while (r == 0 && (record = next_piece(&at, end))) {
		char fields[4][80] = { "" }, path[VALUE_LINE_MAX_BYTES], target[VALUE_LINE_MAX_BYTES];
		unsigned n = record[0] == 'f' ? 4 : record[0] == 'd' ? 2 : 1;
		const char *to = record[0] == 'l' ? next_piece(&at, end) : "";

		for (unsigned i = 0; i < n; i++) {
			size_t len = strcspn(record, " ");

			(void)snprintf(fields[i], sizeof(fields[i]), "%.*s", (int)(len < 79 ? len : 79), record);
			record += len + (record[len] == ' ');
		}
		(void)err_sanitize(path, sizeof(path), record, strlen(record));
		if (n == 4)
			r = buf_appendf(lines, "%s: %s bytes, mode %s, %.*s\n", path, fields[2], fields[1], VALUE_DIGEST_SHOWN, fields[3]);
		else if (n == 2)
			r = buf_appendf(lines, "%s/: mode %s\n", path, fields[1]);
		else
			r = buf_appendf(lines, "%s -> %s\n", path, err_sanitize(target, sizeof(target), to ? to : "", to ? strlen(to) : 0));
	}
	return r;
}

/* Append what differs in two trees: "-path: ...", "+path: ...". */
static int diff_trees(struct answer *a, const struct key_change *c, size_t max_lines, json_t *lines, bool *ret_cut, struct err *e)
{
	_cleanup_buf_ struct buf listing = BUF_INIT(COMPANION_LISTING_MAX_BYTES), was = BUF_INIT(4 * COMPANION_LISTING_MAX_BYTES),
				 is = BUF_INIT(4 * COMPANION_LISTING_MAX_BYTES);
	const char *old_hex = json_string_value(json_object_get(c->old_value, "tree"));
	_cleanup_text_diff_ struct text_diff diff = { 0 };
	_cleanup_free_ char *slot = NULL;
	struct err ignored = ERR_INIT;
	struct digest old_digest;
	int r;

	if (asprintf(&slot, "%s:%s", c->input == KEY_INPUT_FILE ? "files" : "inputs", c->name) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (digest_parse_hex(DIGEST_SHA256, old_hex, &old_digest) < 0 ||
		companions_read_text(a->with.item.path, c->name, &old_digest, &listing, &ignored) < 0 ||
		lines_of_listing(&listing, &was) < 0 || companions_list_tree(a->p, slot, a->store, &listing, &ignored) < 0 ||
		lines_of_listing(&listing, &is) < 0)
		return 0;
	r = text_diff(buf_str(&was), was.len, buf_str(&is), is.len, SIZE_MAX, &diff, e);
	for (size_t i = 0; r == 0 && i < diff.n && !*ret_cut; i++) {
		_cleanup_buf_ struct buf text = BUF_INIT(8 * VALUE_LINE_MAX_BYTES);

		if (diff.lines[i].mark == ' ')
			continue;
		*ret_cut = json_array_size(lines) >= max_lines;
		(void)!buf_append_char(&text, diff.lines[i].mark);
		value_append_text(&text, diff.lines[i].text, diff.lines[i].len);
		if (!*ret_cut && json_array_append_new(lines, json_string(buf_str(&text))) < 0)
			r = err_set(e, -ENOMEM, "out of memory");
	}
	return r;
}

/* Append the changed lines as an array of strings: "@@ -1,2 +1,2 @@", " same", "-gone", "+new". *ret_cut: there are more. */
static int diff_texts(struct answer *a, const struct key_change *c, size_t max_lines, json_t *lines, bool *ret_cut, struct err *e)
{
	_cleanup_buf_ struct buf was = BUF_INIT(COMPANION_SETUP_MAX_BYTES), is = BUF_INIT(COMPANION_SETUP_MAX_BYTES);
	_cleanup_text_diff_ struct text_diff diff = { 0 };
	const char *path = text_path(c);
	int r;

	if ((!path && !is_about_trees(c)) || a->n_look_ups++ >= LOOK_UPS_MAX)
		return 0;
	if (is_about_trees(c))
		return diff_trees(a, c, max_lines, lines, ret_cut, e);
	if (read_side(a, path, c->old_value, false, &was) < 0 || read_side(a, path, c->new_value, true, &is) < 0)
		return 0;
	r = text_diff(buf_str(&was), was.len, buf_str(&is), is.len, max_lines, &diff, e);
	for (size_t i = 0; r == 0 && i < diff.n; i++) {
		const struct text_line *line = &diff.lines[i];
		_cleanup_buf_ struct buf text = BUF_INIT(8 * VALUE_LINE_MAX_BYTES);
		size_t olds, news;

		if (line->starts_hunk) {
			text_diff_hunk_size(&diff, i, &olds, &news);
			if (json_array_append_new(lines, json_sprintf("@@ -%zu,%zu +%zu,%zu @@", line->old_number - (olds == 0), olds,
							       line->new_number - (news == 0), news)) < 0)
				return err_set(e, -ENOMEM, "out of memory");
		}
		(void)!buf_append_char(&text, line->mark);
		value_append_text(&text, line->text, line->len);
		if (json_array_append_new(lines, json_string(buf_str(&text))) < 0 ||
			(line->no_newline && json_array_append_new(lines, json_string("\\ no newline at the end")) < 0))
			return err_set(e, -ENOMEM, "out of memory");
	}
	*ret_cut = diff.cut;
	return r;
}

/* --- for people --- */

/* Is a thing there on one side only: an element of a set, a package, a file? */
static bool is_on_one_side(const struct key_change *c)
{
	static const char *const lists[] = { "authorized_keys", "remove_patterns" };
	bool one = !c->old_value != !c->new_value;

	for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
		if (one && strcmp(c->field, lists[i]) == 0)
			return true;
	return one && c->field[0] == '\0' && c->name[0] && c->input != KEY_INPUT_SERVICE && c->input != KEY_INPUT_OTHER;
}

static int print_change(FILE *out, struct answer *a, const struct key_change *c, struct err *e)
{
	_cleanup_buf_ struct buf line = BUF_INIT(1 << 16), was = BUF_INIT(1 << 14), is = BUF_INIT(1 << 14);
	_cleanup_json_ json_t *lines = json_array();
	const json_t *version = json_object_get(c->new_value ? c->new_value : c->old_value, "version");
	bool cut = false;
	json_t *text;
	size_t i;
	int r = lines ? diff_texts(a, c, TEXT_LINES_SHOWN, lines, &cut, e) : err_set(e, -ENOMEM, "out of memory");

	if (r < 0)
		return r;
	value_append_string(&line, c->name);
	if (c->input == KEY_INPUT_PACKAGE && c->field[0] == '\0' && json_is_string(version)) {
		(void)!buf_append_char(&line, ' ');
		value_append_string(&line, json_string_value(version));
	}
	if (c->input == KEY_INPUT_DEB)
		append_deb_name(&line, a, c);
	if (c->field[0]) {
		(void)!buf_append_str(&line, c->name[0] ? ": " : "");
		/* The version of a package goes without saying. */
		if (c->input == KEY_INPUT_PACKAGE && strcmp(c->field, "version") == 0) {
			line.len -= 2;
			line.data[line.len] = '\0';
		} else {
			value_append_string(&line, c->field);
		}
	} else if (c->name[0] && !is_on_one_side(c)) {
		(void)!buf_append_char(&line, ':');
	}
	if (is_on_one_side(c)) {
		if (c->field[0]) {
			(void)!buf_append_char(&line, ' ');
			value_append(&line, c->input, c->field, c->new_value ? c->new_value : c->old_value);
		}
		(void)!buf_append_str(&line, c->new_value ? " (new)" : " (gone)");
	} else {
		value_append(&was, c->input, c->field, c->old_value);
		value_append(&is, c->input, c->field, c->new_value);
		/* What is not there reads like null, unless the other side is null. */
		if (strcmp(buf_str(&was), buf_str(&is)) == 0 && !c->old_value != !c->new_value) {
			struct buf *absent = c->old_value ? &is : &was;

			buf_reset(absent);
			(void)!buf_append_str(absent, "not there");
		}
		(void)!buf_appendf(&line, "%s%s -> %s", line.len > 0 ? " " : "", buf_str(&was), buf_str(&is));
	}
	append_remark(&line, a, c);
	(void)fprintf(out, "%-8s %s\n", key_input_name(c->input), buf_str(&line));
	json_array_foreach(lines, i, text)
		(void)fprintf(out, "    %s\n", json_string_value(text));
	if (cut)
		(void)fprintf(out, "    ... and more\n");
	return 0;
}

static void print_gaps(FILE *out, const struct answer *a)
{
	for (size_t i = 0; i < a->gaps.n; i++) {
		_cleanup_buf_ struct buf line = BUF_INIT(1 << 16);
		const char *slot = a->gaps.items[i].slot, *reason = key_gap_text(a->gaps.items[i].reason);

		for (size_t k = 0; k < a->reasons.n; k++)
			if (strncmp(a->reasons.items[k], slot, strlen(slot)) == 0 &&
				strncmp(a->reasons.items[k] + strlen(slot), ": ", 2) == 0)
				reason = a->reasons.items[k] + strlen(slot) + 2;
		value_append_text(&line, slot, strlen(slot));
		(void)!buf_append_str(&line, ": ");
		value_append_text(&line, reason, strlen(reason));
		(void)fprintf(out, "not known: %s\n", buf_str(&line));
	}
}

static int print_text(FILE *out, struct answer *a, struct err *e)
{
	_cleanup_buf_ struct buf name = BUF_INIT(1 << 12), found = BUF_INIT(1 << 16), plan = BUF_INIT(1 << 12);
	char hex[DIGEST_HEX_SIZE], when[64] = "";
	time_t published = (time_t)(a->with.item.published_ns / 1000000000);
	struct tm tm;
	int r = 0;

	if (a->hit_path && (!a->with.item.name || strcmp(a->with.item.path, a->hit_path) == 0)) {
		(void)fprintf(out, "nothing: it is a hit\n%s\n", a->hit_path);
		return 0;
	}
	value_append_text(&plan, a->p->plan->file, strlen(a->p->plan->file));
	if (a->gaps.n > 0)
		(void)fprintf(out, "the key is not known: the lock does not answer everything; write it with `imgbuild lock %s`\n", buf_str(&plan));
	else
		(void)fprintf(out, "%s %.16s is %s\n", arch_name(a->p->arch), digest_hex(&a->p->key, hex),
			a->hit_path ? "in the cache" : "not in the cache");
	print_gaps(out, a);
	if (a->failed_path)
		(void)fprintf(out, "a build of it failed: %s\n", a->failed_path);
	if (!a->with.item.name) {
		(void)fprintf(out, "there is no %s image in the cache to compare with\n", arch_name(a->p->arch));
		return 0;
	}
	companions_read_name(a->with.item.path, &found);
	value_append_text(&name, buf_str(&found), found.len);
	if (localtime_r(&published, &tm))
		(void)strftime(when, sizeof(when), " of %Y-%m-%d %H:%M", &tm);
	(void)fprintf(out, "compared with %.16s%s%s%s%s, %s\n", a->with.item.name, a->with.item.kind == STORE_FAILED ? " (failed)" : "",
		name.len ? " " : "", buf_str(&name), when, a->with.item.path);
	if (a->with.changes.n == 0)
		(void)fprintf(out, "nothing differs%s\n", a->gaps.n > 0 ? " of what is known" : "");
	for (size_t i = 0; r == 0 && i < a->with.changes.n && i < CHANGES_SHOWN; i++)
		r = print_change(out, a, &a->with.changes.items[i], e);
	if (r == 0 && a->with.changes.n > CHANGES_SHOWN)
		(void)fprintf(out, "... and %zu more; --json lists all\n", a->with.changes.n - CHANGES_SHOWN);
	return r;
}

/* --- as JSON --- */

static json_t *or_null(const json_t *value)
{
	return value ? json_incref((json_t *)(uintptr_t)value) : json_null();
}

static json_t *change_to_json(struct answer *a, const struct key_change *c, struct err *e)
{
	_cleanup_buf_ struct buf remark = BUF_INIT(1 << 14);
	json_t *lines = json_array(), *object;
	bool cut = false;

	if (!lines || diff_texts(a, c, TEXT_LINES_LISTED, lines, &cut, e) < 0) {
		json_decref(lines);
		return NULL;
	}
	object = json_pack("{s:s, s:s, s:s, s:o, s:o}", "input", key_input_name(c->input), "name", c->name, "field", c->field, "old",
		or_null(c->old_value), "new", or_null(c->new_value));
	/* Without what sets it off for people: " (...)", or a blank. */
	append_remark(&remark, a, c);
	if (remark.len > 3)
		(void)json_object_set_new(object, "remark", json_stringn(buf_str(&remark) + 2, remark.len - 3));
	buf_reset(&remark);
	if (c->input == KEY_INPUT_DEB)
		append_deb_name(&remark, a, c);
	if (remark.len > 1)
		(void)json_object_set_new(object, "remark", json_string(buf_str(&remark) + 1));
	if (json_array_size(lines) > 0) {
		(void)json_object_set(object, "lines", lines);
		(void)json_object_set_new(object, "lines_cut", json_boolean(cut));
	}
	json_decref(lines);
	return object;
}

static json_t *entry_to_json(const struct answer *a)
{
	const struct store_item *item = &a->with.item;
	_cleanup_buf_ struct buf found = BUF_INIT(1 << 16), name = BUF_INIT(1 << 12);

	if (!item->name)
		return json_null();
	companions_read_name(item->path, &found);
	value_append_text(&name, buf_str(&found), found.len);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "key", item->name, "path", item->path, "state",
		item->kind == STORE_FAILED ? "failed" : "ready", "name", buf_str(&name), "arch",
		manifest_text(a->with.old_key.document, "arch"), "published", (json_int_t)(item->published_ns / 1000000000));
}

static json_t *gaps_to_json(const struct answer *a)
{
	json_t *array = json_array();

	for (size_t i = 0; i < a->gaps.n; i++) {
		const char *slot = a->gaps.items[i].slot, *reason = key_gap_text(a->gaps.items[i].reason);

		for (size_t k = 0; k < a->reasons.n; k++)
			if (strncmp(a->reasons.items[k], slot, strlen(slot)) == 0 &&
				strncmp(a->reasons.items[k] + strlen(slot), ": ", 2) == 0)
				reason = a->reasons.items[k] + strlen(slot) + 2;
		(void)json_array_append_new(array, json_pack("{s:s, s:s}", "slot", slot, "reason", reason));
	}
	return array;
}

static int print_json(FILE *out, struct answer *a, struct err *e)
{
	_cleanup_json_ json_t *object = NULL, *changes = json_array();
	char hex[DIGEST_HEX_SIZE];

	for (size_t i = 0; i < a->with.changes.n; i++)
		if (json_array_append_new(changes, change_to_json(a, &a->with.changes.items[i], e)) < 0)
			return e->code < 0 ? e->code : err_set(e, -ENOMEM, "out of memory");
	object = json_pack("{s:b, s:s?, s:s?, s:s, s:s?, s:o, s:o, s:I, s:I, s:O}", "hit", a->hit_path != NULL, "key",
		a->gaps.n > 0 ? NULL : digest_hex(&a->p->key, hex), "path", a->hit_path, "arch", arch_name(a->p->arch), "failed",
		a->failed_path, "unanswered", gaps_to_json(a), "entry", entry_to_json(a), "entries", (json_int_t)a->with.n_entries,
		"inputs", (json_int_t)a->with.n_inputs, "changes", changes);
	if (!object)
		return err_set(e, -ENOMEM, "out of memory");
	(void)json_dumpf(object, out, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
	(void)fputc('\n', out);
	return 0;
}

/* --- the answer --- */

/* The plan's document as far as the lock answers, and whether the cache has its image. */
static int look_up_plan(struct answer *a, struct err *e)
{
	const struct prepared *p = a->p;
	_cleanup_store_listing_ struct store_listing failed = { 0 };
	int r;

	if (p->key_error) {
		r = key_draft(p->plan, &p->lock, p->arch, &p->locals, &a->document, &a->gaps, e);
		return r < 0 ? r : lock_explain(p->plan, &p->lock, p->arch, &p->locals, &a->reasons, e);
	}
	a->document = json_incref(p->document);
	r = store_find_entry(a->store, &p->key, &a->hit_path, e);
	if (r != -ENOENT)
		return r;
	err_clear(e);
	r = store_list(a->store, STORE_FAILED, &failed, e);
	for (size_t i = failed.n; r == 0 && !a->failed_path && i-- > 0;)
		if (digest_equal(&failed.items[i].key, &p->key) && !(a->failed_path = strdup(failed.items[i].path)))
			r = err_set(e, -ENOMEM, "out of memory");
	return r;
}

static int compare(struct answer *a, const char *prefix, struct err *e)
{
	const struct key_side now = { .document = a->document, .epoch = IMGBUILD_EPOCH };
	_cleanup_store_item_ struct store_item item = { 0 };
	int r;

	if (prefix) {
		r = store_resolve_prefix(a->store, prefix, true, &item, e);
		return r < 0 ? err_default_kind(e, ERR_KIND_USAGE) : comparison_with(&item, &now, &a->gaps, &a->with, e);
	}
	return a->hit_path ? 0 : comparison_nearest(a->store, &now, &a->gaps, a->p->plan->name, &a->with, e);
}

/* What is remarked about the search; the answer itself does not say it. */
static void note_search(const struct comparison *c, struct progress *progress)
{
	if (c->gave_up)
		progress_note(progress, "of %zu images in the cache %zu were looked into, the newest, those of this plan's name first",
			c->n_entries, c->n_read);
	if (c->n_damaged > 0)
		progress_warning(progress, "%zu of the entries cannot be read; %s", c->n_damaged, c->damage);
}

int why_print(const struct prepared *p, const struct store *store, const char *prefix, bool json, struct progress *progress,
	FILE *out, struct err *e)
{
	_cleanup_(answer_release) struct answer a = { .p = p, .store = store };
	_cleanup_close_ int entry_fd = -1;
	struct err ignored = ERR_INIT;
	int r = look_up_plan(&a, e);

	if (r == 0)
		r = compare(&a, prefix, e);
	if (r < 0)
		return r;
	note_search(&a.with, progress);
	/* Only for remarks: a lock of another version tells nothing. */
	entry_fd = a.with.item.name ? open(a.with.item.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (entry_fd >= 0)
		(void)!lock_load(entry_fd, COMPANION_LOCK, &a.old_lock, &ignored);
	return json ? print_json(out, &a, e) : print_text(out, &a, e);
}
