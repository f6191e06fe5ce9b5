#include "builder/companions.h"
#include "builder/manifest.h"
#include "lib/io.h"
#include "plan/canonical.h"
#include "plan/epoch.h"
#include "plan/json.h"
#include "plan/toml.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static const char epoch_line[] = "imgbuild-epoch ";

/* --- writing --- */

static int write_at(int dirfd, const char *name, const void *bytes, size_t len, struct err *e)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot create `%s` of the entry", name);
	r = write_full(fd, bytes, len);
	if (r == 0 && close(take_fd(&fd)) < 0)
		r = -errno;
	return r < 0 ? err_set_errno(e, r, "cannot write `%s` of the entry", name) : 0;
}

/* Find the user info of the http or https URL that is this string value, in the text of the plan. Returns its length with the "@", 0 when
 * it has none; *ret_start is where it starts. */
static size_t find_user_info(const char *text, size_t len, const struct toml_value *v, size_t *ret_start)
{
	const char *start, *end, *at = NULL;

	if (v->offset >= len)
		return 0;
	start = memmem(text + v->offset, len - v->offset, "://", 3);
	if (!start)
		return 0;
	start += 3;
	for (end = start; end < text + len && !strchr("/?#\"'\\\n", *end); end++)
		if (*end == '@')
			at = end;
	*ret_start = (size_t)(start - text);
	return at ? (size_t)(at - start) + 1 : 0;
}

static bool is_url_with_user_info(const struct toml_string *s)
{
	const char *host = strncasecmp(s->data, "http://", 7) == 0  ? s->data + 7 :
			   strncasecmp(s->data, "https://", 8) == 0 ? s->data + 8 :
								      NULL;

	return host && memchr(host, '@', strcspn(host, "/?#"));
}

/* What is taken out of the plan's text, in its order. */
struct cuts {
	struct {
		size_t start, len;
	} *items;
	size_t n;
	bool unfindable;
};

static int collect_cuts(const char *text, size_t len, const struct toml_value *v, struct cuts *cuts)
{
	size_t start = 0, n;
	void *items;
	int r = 0;

	switch (v->type) {
	case TOML_TABLE:
		for (size_t i = 0; r == 0 && i < v->table.n; i++)
			r = collect_cuts(text, len, v->table.members[i].value, cuts);
		return r;
	case TOML_ARRAY:
		for (size_t i = 0; r == 0 && i < v->array.n; i++)
			r = collect_cuts(text, len, v->array.items[i], cuts);
		return r;
	case TOML_STRING:
		break;
	default:
		return 0;
	}
	if (!is_url_with_user_info(&v->string))
		return 0;
	n = find_user_info(text, len, v, &start);
	if (n == 0) {
		cuts->unfindable = true;
		return 0;
	}
	items = reallocarray(cuts->items, cuts->n + 1, sizeof(*cuts->items));
	if (!items)
		return -ENOMEM;
	cuts->items = items;
	cuts->items[cuts->n].start = start;
	cuts->items[cuts->n++].len = n;
	return 0;
}

static int compare_cuts(const void *a, const void *b)
{
	const size_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Is there still a URL with user info in the text? Text that is no TOML (any more) is not to be kept either. */
static bool has_user_info(const char *text, size_t len)
{
	_cleanup_toml_ struct toml_doc *doc = NULL;
	struct cuts cuts = { 0 };
	struct err ignored = ERR_INIT;
	bool found = toml_parse(text, len, &doc, NULL, &ignored) < 0 || collect_cuts(text, len, toml_root(doc), &cuts) < 0 ||
		     cuts.n > 0 || cuts.unfindable;

	free(cuts.items);
	return found;
}

int companions_redact_plan(const char *text, size_t len, struct buf *into, struct err *e)
{
	static const char not_kept[] = "# The plan is not kept here: it has user info in a URL, in a spelling that could not be taken out.\n";
	_cleanup_toml_ struct toml_doc *doc = NULL;
	size_t start = into->len, at = 0;
	struct cuts cuts = { 0 };
	int r = toml_parse(text, len, &doc, NULL, e);

	if (r == 0 && collect_cuts(text, len, toml_root(doc), &cuts) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r < 0) {
		free(cuts.items);
		return r;
	}
	if (cuts.n > 1)
		qsort(cuts.items, cuts.n, sizeof(*cuts.items), compare_cuts);
	for (size_t i = 0; r == 0 && i < cuts.n; i++) {
		if (cuts.items[i].start < at)
			continue;
		r = buf_append(into, text + at, cuts.items[i].start - at);
		at = cuts.items[i].start + cuts.items[i].len;
	}
	if (r == 0)
		r = buf_append(into, text + at, len - at);
	free(cuts.items);
	if (r == 0 && (cuts.unfindable || cuts.n > 0) && has_user_info(buf_str(into) + start, into->len - start)) {
		memset(into->data + start, 0, into->len - start);
		into->len = start;
		r = buf_append_str(into, not_kept);
	}
	return r < 0 ? err_set(e, r, "out of memory for the plan") : 0;
}

int companions_write_plan(int dirfd, const struct prepared *p, struct err *e)
{
	_cleanup_buf_ struct buf lock = BUF_INIT(64 << 20), key = BUF_INIT(CANONICAL_MAX_BYTES), plan = BUF_INIT(2 * TOML_MAX_BYTES);
	int r = companions_redact_plan(p->plan->text, p->plan->text_len, &plan, e);

	if (r == 0)
		r = write_at(dirfd, COMPANION_PLAN, buf_str(&plan), plan.len, e);
	if (r == 0)
		r = lock_format(&p->lock, &lock, e);
	if (r == 0)
		r = write_at(dirfd, COMPANION_LOCK, buf_str(&lock), lock.len, e);
	if (r == 0 && buf_appendf(&key, "%s%d\n", epoch_line, IMGBUILD_EPOCH) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = canonical_append(p->document, &key, e);
	return r < 0 ? r : write_at(dirfd, COMPANION_KEY, buf_str(&key), key.len, e);
}

/* Is it something that can be shown line by line? */
static bool is_text(const struct buf *bytes)
{
	return bytes->len == 0 || !memchr(buf_str(bytes), '\0', bytes->len);
}

static bool has_digest(const struct buf *bytes, const struct digest *sha256)
{
	struct err ignored = ERR_INIT;
	struct digest found;

	return digest_bytes(DIGEST_SHA256, buf_str(bytes), bytes->len, &found, &ignored) == 0 && digest_equal(&found, sha256);
}

/* Read a local file of the plan. Returns 0; -E2BIG it is larger than the buffer may be. */
static int read_local(const struct prepared *p, const char *slot, struct buf *into, struct err *e)
{
	_cleanup_close_ int fd = -1;
	int r = prepared_open_local(p, slot, &fd, e);

	if (r == 0)
		r = read_fd_to_end(fd, into);
	return r < 0 && e->code == 0 ? err_set_errno(e, r, "cannot read what [%s] names", slot) : r;
}

static int write_setup(int dirfd, const struct prepared *p, struct err *e)
{
	const struct plan_setup *setup = &p->plan->setup;
	_cleanup_buf_ struct buf script = BUF_INIT(COMPANION_SETUP_MAX_BYTES);
	int r;

	if (setup->script)
		return write_at(dirfd, COMPANION_SETUP, setup->script, setup->script_len, e);
	if (!setup->file)
		return 0;
	r = read_local(p, "setup", &script, e);
	if (r == -E2BIG) {
		err_clear(e);
		return 0;
	}
	return r < 0 ? r : write_at(dirfd, COMPANION_SETUP, buf_str(&script), script.len, e);
}

int companions_list_tree(const struct prepared *p, const char *slot, const struct store *store, struct buf *into, struct err *e)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *memo = NULL;
	struct filedigest_tree_info info;
	_cleanup_close_ int fd = -1;
	int r = prepared_open_local(p, slot, &fd, e);

	buf_reset(into);
	if (r == 0)
		r = filedigest_memo_load(store, &memo, e);
	if (r == 0)
		r = filedigest_list_tree_at(memo, fd, ".", into, &info, e);
	/* Not even its first line: it was too long. */
	if (r == 0 && into->len == 0)
		r = err_set(e, -E2BIG, "the listing of [%s] is longer than the limit of %zu bytes", slot, into->max_bytes);
	return r;
}

/* Keep one local file, unless it is large or no text, or the listing of a tree. *n counts those that are kept. */
static int write_text(int dirfd, const struct prepared *p, const struct store *store, const struct plan_local_input *input, size_t *n,
	struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(input->is_tree ? COMPANION_LISTING_MAX_BYTES : COMPANION_TEXT_MAX_BYTES);
	char name[sizeof(COMPANION_TEXTS) + DIGEST_HEX_SIZE], hex[DIGEST_HEX_SIZE];
	int r = input->is_tree ? companions_list_tree(p, input->slot, store, &text, e) : read_local(p, input->slot, &text, e);

	if (r == -E2BIG)
		err_clear(e);
	/* One that is being changed is caught when the inputs are confirmed. */
	if (r == -E2BIG || (r == 0 && ((!input->is_tree && !is_text(&text)) || !has_digest(&text, &input->digest))))
		return 0;
	if (r == 0 && *n == 0 && mkdirat(dirfd, COMPANION_TEXTS, 0755) < 0)
		r = err_set_errno(e, -errno, "cannot create `" COMPANION_TEXTS "` of the entry");
	if (r < 0)
		return r;
	(void)snprintf(name, sizeof(name), COMPANION_TEXTS "/%s", digest_hex(&input->digest, hex));
	if (faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	r = write_at(dirfd, name, buf_str(&text), text.len, e);
	*n += r == 0;
	return r;
}

int companions_write_texts(int dirfd, const struct prepared *p, const struct store *store, struct err *e)
{
	size_t n = 0;
	int r = write_setup(dirfd, p, e);

	for (size_t i = 0; r == 0 && i < p->locals.n && n < COMPANION_TEXTS_MAX; i++) {
		const struct plan_local_input *input = &p->locals.items[i];

		if (input->kind == PLAN_INPUT_FILE || (input->kind == PLAN_INPUT_INPUT && input->is_tree))
			r = write_text(dirfd, p, store, input, &n, e);
	}
	return r;
}

/* --- reading --- */

void kept_key_release(struct kept_key *k)
{
	json_decref(k->document);
	*k = (struct kept_key){ 0 };
}

static int not_its_key(const struct store_item *item, const char *file, struct err *e)
{
	return err_set_kind(e, ERR_KIND_HOST, -EBADMSG, "`%s/%s` is not what the entry's key is the digest of; the entry is damaged, remove it",
		item->path, file);
}

static int parse_key_text(const struct store_item *item, const struct buf *text, struct kept_key *ret, struct err *e)
{
	const char *start = buf_str(text), *newline = memchr(start, '\n', text->len);
	json_t *document = NULL;
	unsigned long epoch = 0;
	struct digest found;
	char *end;
	int r = digest_bytes(DIGEST_SHA256, start, text->len, &found, e);

	if (r < 0)
		return r;
	if (!digest_equal(&found, &item->key) || !newline || strncmp(start, epoch_line, strlen(epoch_line)) != 0)
		return not_its_key(item, COMPANION_KEY, e);
	errno = 0;
	epoch = strtoul(start + strlen(epoch_line), &end, 10);
	if (errno == 0 && end == newline && epoch <= INT32_MAX)
		document = json_loadb(newline + 1, text->len - (size_t)(newline + 1 - start), JSON_REJECT_DUPLICATES, NULL);
	if (!document)
		return not_its_key(item, COMPANION_KEY, e);
	*ret = (struct kept_key){ .document = document, .epoch = (int64_t)epoch, .size_bytes = text->len };
	return 0;
}

/* An entry of a version that wrote no key.txt. */
static int read_key_of_manifest(int dirfd, const struct store_item *item, struct kept_key *ret, struct err *e)
{
	_cleanup_json_ json_t *manifest = NULL;
	const json_t *epoch, *inputs;
	struct digest found;
	struct stat st;
	char line[64];
	int r = manifest_load(item->path, &manifest, e);

	if (r < 0)
		return r;
	if (fstatat(dirfd, STORE_MANIFEST, &st, AT_SYMLINK_NOFOLLOW) == 0)
		ret->size_bytes = (size_t)st.st_size;
	inputs = json_object_get(manifest, "inputs");
	epoch = json_object_get(manifest, "epoch");
	(void)snprintf(line, sizeof(line), "%s%lld\n", epoch_line, (long long)json_integer_value(epoch));
	if (!json_is_object(inputs) || canonical_digest(line, inputs, &found, e) < 0 || !digest_equal(&found, &item->key))
		return not_its_key(item, STORE_MANIFEST, e);
	ret->epoch = json_integer_value(epoch);
	ret->document = json_incref((json_t *)(uintptr_t)inputs);
	return 0;
}

int companions_read_key(const struct store_item *item, struct kept_key *ret, struct err *e)
{
	_cleanup_close_ int dirfd = open(item->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_buf_ struct buf text = BUF_INIT(COMPANION_KEY_MAX_BYTES);
	int r;

	if (dirfd < 0)
		return err_set_errno(e, -errno, "cannot open the entry `%s`", item->path);
	r = read_file_at(dirfd, COMPANION_KEY, false, &text, e);
	if (r == -ENOENT) {
		err_clear(e);
		return read_key_of_manifest(dirfd, item, ret, e);
	}
	return r < 0 ? err_wrap(e, "entry `%s`", item->path) : parse_key_text(item, &text, ret, e);
}

/* The plan that an entry keeps, as TOML: its schema may be another version's. NULL when it is not there or no TOML. */
static struct toml_doc *read_plan(int dirfd)
{
	_cleanup_buf_ struct buf text = BUF_INIT(TOML_MAX_BYTES);
	struct err ignored = ERR_INIT;
	struct toml_doc *doc = NULL;

	if (read_file_at(dirfd, COMPANION_PLAN, false, &text, &ignored) == 0)
		(void)!toml_parse(buf_str(&text), text.len, &doc, NULL, &ignored);
	return doc;
}

static const struct toml_value *member_of(const struct toml_value *v, const char *name, enum toml_type type)
{
	const struct toml_value *member = v && v->type == TOML_TABLE ? toml_get(&v->table, name) : NULL;

	return member && member->type == type ? member : NULL;
}

void companions_read_name(const char *entry_path, struct buf *into)
{
	_cleanup_close_ int dirfd = open(entry_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_toml_ struct toml_doc *doc = dirfd < 0 ? NULL : read_plan(dirfd);
	const struct toml_value *name = doc ? member_of(toml_root(doc), "name", TOML_STRING) : NULL;

	if (name)
		(void)!buf_append(into, name->string.data, name->string.len);
}

/* The text as it stands in the plan that the entry keeps. */
static int read_inline(int dirfd, const char *path, const struct digest *sha256, struct buf *into)
{
	_cleanup_toml_ struct toml_doc *doc = read_plan(dirfd);
	const struct toml_value *text = NULL;

	if (doc && path)
		text = member_of(member_of(member_of(toml_root(doc), "files", TOML_TABLE), path, TOML_TABLE), "content", TOML_STRING);
	else if (doc)
		text = member_of(member_of(toml_root(doc), "setup", TOML_TABLE), "script", TOML_STRING);
	buf_reset(into);
	if (!text || buf_append(into, text->string.data, text->string.len) < 0 || !has_digest(into, sha256))
		return -ENOENT;
	return 0;
}

int companions_read_text(const char *entry_path, const char *path, const struct digest *sha256, struct buf *into,
	struct err *e)
{
	_cleanup_close_ int dirfd = open(entry_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char name[sizeof(COMPANION_TEXTS) + DIGEST_HEX_SIZE], hex[DIGEST_HEX_SIZE];
	struct err ignored = ERR_INIT;

	if (dirfd < 0)
		return err_set_errno(e, -errno, "cannot open the entry `%s`", entry_path);
	(void)snprintf(name, sizeof(name), COMPANION_TEXTS "/%s", digest_hex(sha256, hex));
	buf_reset(into);
	if (read_file_at(dirfd, path ? name : COMPANION_SETUP, false, into, &ignored) == 0 && has_digest(into, sha256))
		return 0;
	if (read_inline(dirfd, path, sha256, into) == 0)
		return 0;
	buf_reset(into);
	return err_set(e, -ENOENT, "the entry `%s` does not have the text with the SHA-256 %s", entry_path, hex);
}
