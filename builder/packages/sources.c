#include "builder/packages/sources.h"
#include "builder/packages/deb822.h"

#include "lib/url.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* One entry as a file has it, before it is taken apart into URIs and suites. */
struct entry {
	struct strv uris, suites, components, architectures, without_architectures, signed_by;
	char *inline_key;
	bool trusted, check_valid_until;
	char *where;
};

static void entry_release(struct entry *x)
{
	strv_release(&x->uris);
	strv_release(&x->suites);
	strv_release(&x->components);
	strv_release(&x->architectures);
	strv_release(&x->without_architectures);
	strv_release(&x->signed_by);
	free(x->inline_key);
	free(x->where);
	*x = (struct entry){ 0 };
}
#define _cleanup_entry_ _cleanup_(entry_release)

static void source_release(struct apt_source *s)
{
	free(s->uri);
	free(s->suite);
	strv_release(&s->components);
	strv_release(&s->signed_by);
	free(s->inline_key);
	free(s->where);
	*s = (struct apt_source){ 0 };
}

void apt_sources_release(struct apt_sources *sources)
{
	for (size_t i = 0; i < sources->n; i++)
		source_release(&sources->items[i]);
	free(sources->items);
	*sources = (struct apt_sources){ .lenient = sources->lenient };
}

bool apt_part_name_valid(const char *name)
{
	if (name[0] == '\0' || name[0] == '.')
		return false;
	for (const char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("_-.", *p))
			return false;
	return true;
}

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

/* Replace $(ARCH) and take repeated trailing slashes off. A suite keeps one slash, which makes it flat. */
static char *expand(const char *text, enum arch arch, bool keep_slash)
{
	_cleanup_buf_ struct buf b = BUF_INIT(8192);
	const char *p = text, *var;
	size_t len;

	while ((var = strstr(p, "$(ARCH)"))) {
		if (buf_append(&b, p, (size_t)(var - p)) < 0 || buf_append_str(&b, arch_name(arch)) < 0)
			return NULL;
		p = var + strlen("$(ARCH)");
	}
	if (buf_append_str(&b, p) < 0)
		return NULL;
	len = b.len;
	while (len > 1 && b.data[len - 1] == '/' && (!keep_slash || b.data[len - 2] == '/'))
		len--;
	return strndup(buf_str(&b), len);
}

/* Refuse what a URI must not be, say whether it is to be left out. Returns 0, 1 for "leave out", negative. */
static int judge_uri(const char *uri, const char *where, struct progress *progress, struct err *e)
{
	_cleanup_free_ char *public = url_redact(uri);

	if (!public)
		return out_of_memory(e);
	if (strlen(uri) > 2048)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: a URI of more than 2048 bytes", where);
	for (const char *p = uri; *p; p++)
		if (*p <= ' ' || *p == 0x7f)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: a control character in a URI", where);
	if (strncasecmp(uri, "cdrom:", 6) == 0) {
		progress_note(progress, "%s: the source `%s` is left out, there is no disc", where, public);
		return 1;
	}
	if (strncasecmp(uri, "http://", 7) == 0 || strncasecmp(uri, "https://", 8) == 0 ||
		strncasecmp(uri, "mirror+file:", 12) == 0)
		return 0;
	if (strncasecmp(uri, "mirror", 6) == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EPERM, "%s: the source `%s` gets its list of mirrors from the network, "
			"which is not supported; map it with --mirror ORIGIN=URL or change it in the base image", where, public);
	return err_set_kind(e, ERR_KIND_INPUT, -EPERM,
		"%s: the source `%s` is of a kind that cannot be used; http:, https: and mirror+file: can", where, public);
}

static int add_source(const struct entry *x, const char *uri, const char *suite, enum arch arch,
	struct apt_sources *ret, struct err *e)
{
	struct apt_source s = { .check_valid_until = x->check_valid_until, .trusted = x->trusted }, *items;

	s.uri = expand(uri, arch, false);
	s.suite = expand(suite, arch, true);
	s.where = strdup(x->where);
	s.inline_key = x->inline_key ? strdup(x->inline_key) : NULL;
	if (!s.uri || !s.suite || !s.where || (x->inline_key && !s.inline_key) ||
		strv_extend(&s.components, &x->components) < 0 || strv_extend(&s.signed_by, &x->signed_by) < 0) {
		source_release(&s);
		return out_of_memory(e);
	}
	items = reallocarray(ret->items, ret->n + 1, sizeof(*items));
	if (!items) {
		source_release(&s);
		return out_of_memory(e);
	}
	ret->items = items;
	ret->items[ret->n++] = s;
	return 0;
}

/* A name that becomes part of a URL: no "..", no control characters, not absolute. */
static bool path_word_valid(const char *s)
{
	if (s[0] == '\0' || strstr(s, "..") || (s[0] == '/' && s[1] != '\0') || strlen(s) > 256)
		return false;
	for (const char *p = s; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-_.+~/:$()", *p))
			return false;
	return true;
}

/* Take an entry apart into its sources. */
static int add_checked_entry(struct entry *x, enum arch arch, struct apt_sources *ret, struct progress *progress, struct err *e)
{
	if (x->architectures.n > 0 && !strv_contains(&x->architectures, arch_name(arch)))
		return 0;
	if (strv_contains(&x->without_architectures, arch_name(arch)))
		return 0;
	if (x->uris.n == 0 || x->suites.n == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: a source needs a URI and a suite", x->where);
	for (size_t c = 0; c < x->components.n; c++)
		if (!path_word_valid(x->components.items[c]))
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: `%.64s` is no component", x->where,
				x->components.items[c]);
	for (size_t u = 0; u < x->uris.n; u++) {
		int r = judge_uri(x->uris.items[u], x->where, progress, e);

		if (r < 0)
			return r;
		if (r > 0)
			continue;
		for (size_t s = 0; s < x->suites.n; s++) {
			const char *suite = x->suites.items[s];
			bool flat = suite[0] && suite[strlen(suite) - 1] == '/';

			if (!path_word_valid(suite))
				return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: `%.64s` is no suite", x->where, suite);
			if (flat != (x->components.n == 0))
				return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, flat ?
					"%s: the suite `%s` ends in a slash and has components" :
					"%s: the suite `%s` has no components", x->where, suite);
			if (ret->n == SOURCES_MAX)
				return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: more than %d sources", x->where,
					SOURCES_MAX);
			r = add_source(x, x->uris.items[u], suite, arch, ret, e);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

static int add_entry(struct entry *x, enum arch arch, struct apt_sources *ret, struct progress *progress, struct err *e)
{
	int r = add_checked_entry(x, arch, ret, progress, e);

	if (r < 0 && r != -ENOMEM && ret->lenient) {
		err_clear(e);
		return 0;
	}
	return r;
}

/* A Signed-By word: a path or a fingerprint of 40 (or more) hexadecimal digits, perhaps with '!'. */
static int add_signer(struct entry *x, const char *word, struct err *e)
{
	size_t digits = strspn(word, "0123456789abcdefABCDEF");
	char upper[68];

	if (word[0] == '/')
		return strv_add(&x->signed_by, word) < 0 ? out_of_memory(e) : 0;
	if (digits < 40 || digits > 64 || !(word[digits] == '\0' || (word[digits] == '!' && word[digits + 1] == '\0')))
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"%s: Signed-By takes absolute paths and full fingerprints, found `%.64s`", x->where, word);
	for (size_t i = 0; i <= strlen(word); i++)
		upper[i] = (char)toupper((unsigned char)word[i]);
	return strv_add(&x->signed_by, upper) < 0 ? out_of_memory(e) : 0;
}

static int add_signers(struct entry *x, struct deb822_value v, struct err *e)
{
	_cleanup_strv_ struct strv words = { 0 };
	int r = deb822_words(v, true, &words);

	if (r < 0)
		return out_of_memory(e);
	for (size_t i = 0; i < words.n && r == 0; i++)
		r = add_signer(x, words.items[i], e);
	return r;
}

/* One "key=value" of the brackets in a one-line source. */
static int apply_option(struct entry *x, struct deb822_value option, struct err *e)
{
	const char *eq = memchr(option.s, '=', option.len);
	struct deb822_value name, value;
	bool flag = false;
	int r = 0;

	if (!eq)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: an option without `=`", x->where);
	name = (struct deb822_value){ option.s, (size_t)(eq - option.s) };
	value = (struct deb822_value){ eq + 1, option.len - name.len - 1 };
	if (deb822_is(name, "arch") || deb822_is(name, "arch+"))
		r = deb822_words(value, true, &x->architectures);
	else if (deb822_is(name, "arch-"))
		r = deb822_words(value, true, &x->without_architectures);
	else if (deb822_is(name, "signed-by"))
		return add_signers(x, value, e);
	else if (deb822_is(name, "trusted") && deb822_bool(value, false, &flag) == 0)
		x->trusted = flag;
	else if (deb822_is(name, "check-valid-until") && deb822_bool(value, true, &flag) == 0)
		x->check_valid_until = flag;
	return r < 0 ? out_of_memory(e) : 0;
}

/* Cut the next blank-separated word off. Its s is NULL at the end. */
static struct deb822_value next_word(struct deb822_value *rest)
{
	struct deb822_value word;

	*rest = deb822_trim(*rest);
	word = *rest;
	if (word.len == 0)
		return (struct deb822_value){ NULL, 0 };
	word.len = 0;
	while (word.len < rest->len && rest->s[word.len] != ' ' && rest->s[word.len] != '\t')
		word.len++;
	rest->s += word.len;
	rest->len -= word.len;
	return word;
}

static int parse_line(struct entry *x, struct deb822_value rest, struct err *e)
{
	struct deb822_value word;

	rest = deb822_trim(rest);
	if (rest.len > 0 && rest.s[0] == '[') {
		const char *close = memchr(rest.s, ']', rest.len);
		struct deb822_value options = { rest.s + 1, 0 };

		if (!close)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: `[` without `]`", x->where);
		options.len = (size_t)(close - options.s);
		rest.len -= (size_t)(close + 1 - rest.s);
		rest.s = close + 1;
		while ((word = next_word(&options)).s) {
			int r = apply_option(x, word, e);

			if (r < 0)
				return r;
		}
	}
	for (unsigned i = 0; (word = next_word(&rest)).s; i++)
		if (strv_add_len(i == 0 ? &x->uris : i == 1 ? &x->suites : &x->components, word.s, word.len) < 0)
			return out_of_memory(e);
	return 0;
}

int apt_sources_parse_list(const char *text, size_t len, const char *label, enum arch arch, struct apt_sources *ret,
	struct progress *progress, struct err *e)
{
	struct deb822_value rest = { text, len };
	unsigned number = 0;

	while (rest.s) {
		_cleanup_entry_ struct entry x = { .check_valid_until = true };
		const char *nl = memchr(rest.s, '\n', rest.len), *hash;
		struct deb822_value line = { rest.s, nl ? (size_t)(nl - rest.s) : rest.len }, type;
		int r;

		rest = nl ? (struct deb822_value){ nl + 1, rest.len - line.len - 1 } : (struct deb822_value){ NULL, 0 };
		number++;
		if (memchr(line.s, '\0', line.len))
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: a NUL byte in the text", label, number);
		hash = memchr(line.s, '#', line.len);
		if (hash)
			line.len = (size_t)(hash - line.s);
		type = next_word(&line);
		if (!type.s || deb822_is(type, "deb-src"))
			continue;
		if (!deb822_is(type, "deb")) {
			char shown[48];

			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: expected `deb` or `deb-src`, found `%s`", label,
				number, err_sanitize(shown, sizeof(shown), type.s, type.len));
		}
		if (asprintf(&x.where, "%s:%u", label, number) < 0) {
			x.where = NULL;
			return out_of_memory(e);
		}
		r = parse_line(&x, line, e);
		if (r == 0)
			r = add_entry(&x, arch, ret, progress, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* An inline key: lines moved in by a blank, empty ones written as " .". */
static int take_inline_key(struct entry *x, struct deb822_value v, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT(SOURCES_FILE_MAX_BYTES);
	struct deb822_value line;

	while (deb822_line_next(&v, &line)) {
		line = deb822_trim(line);
		if (line.len == 1 && line.s[0] == '.')
			line.len = 0;
		if (buf_append(&b, line.s, line.len) < 0 || buf_append_char(&b, '\n') < 0)
			return out_of_memory(e);
	}
	free(x->inline_key);
	x->inline_key = buf_take(&b, NULL);
	return x->inline_key ? 0 : out_of_memory(e);
}

static int parse_stanza(struct entry *x, const struct deb822_stanza *st, bool *ret_skip, struct err *e)
{
	struct deb822_value signed_by = deb822_get(st, "Signed-By");
	_cleanup_strv_ struct strv types = { 0 };
	bool enabled;

	*ret_skip = true;
	if (deb822_bool(deb822_get(st, "Enabled"), true, &enabled) < 0 ||
		deb822_bool(deb822_get(st, "Trusted"), false, &x->trusted) < 0 ||
		deb822_bool(deb822_get(st, "Check-Valid-Until"), true, &x->check_valid_until) < 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: Enabled, Trusted and Check-Valid-Until are yes or no",
			x->where);
	if (deb822_words(deb822_get(st, "Types"), false, &types) < 0 ||
		deb822_words(deb822_get(st, "URIs"), false, &x->uris) < 0 ||
		deb822_words(deb822_get(st, "Suites"), false, &x->suites) < 0 ||
		deb822_words(deb822_get(st, "Components"), false, &x->components) < 0 ||
		deb822_words(deb822_get(st, "Architectures"), true, &x->architectures) < 0 ||
		deb822_words(deb822_get(st, "Architectures-Remove"), true, &x->without_architectures) < 0)
		return out_of_memory(e);
	if (!enabled || !strv_contains(&types, "deb"))
		return types.n > 0 || !enabled ? 0 :
			err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: a source without Types", x->where);
	*ret_skip = false;
	if (!signed_by.s)
		return 0;
	if (memmem(signed_by.s, signed_by.len, "-----BEGIN", 10))
		return take_inline_key(x, signed_by, e);
	return add_signers(x, signed_by, e);
}

int apt_sources_parse_deb822(const char *text, size_t len, const char *label, enum arch arch, struct apt_sources *ret,
	struct progress *progress, struct err *e)
{
	struct deb822_reader reader;
	struct deb822_stanza st;
	int r;

	deb822_reader_init(&reader, text, len, label);
	while ((r = deb822_next(&reader, &st, e)) > 0) {
		_cleanup_entry_ struct entry x = { 0 };
		bool skip;

		if (asprintf(&x.where, "%s:%u", label, st.line) < 0) {
			x.where = NULL;
			return out_of_memory(e);
		}
		r = parse_stanza(&x, &st, &skip, e);
		if (r == 0 && !skip)
			r = add_entry(&x, arch, ret, progress, e);
		if (r < 0)
			return r;
	}
	return r;
}

static bool has_suffix(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n > m && strcmp(s + n - m, suffix) == 0;
}

/* Read one file and append what it says. Missing is fine. */
static int read_sources_file(const struct pkg_host_fs *fs, const char *path, enum arch arch, struct apt_sources *ret,
	struct progress *progress, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(SOURCES_FILE_MAX_BYTES);
	int r = fs->read_file(fs->ctx, path, &text, e);

	if (r == -ENOENT) {
		err_clear(e);
		return 0;
	}
	if (r < 0)
		return err_wrap(e, "reading the package sources `%s`", path);
	return (has_suffix(path, ".sources") ? apt_sources_parse_deb822 : apt_sources_parse_list)(buf_str(&text),
		text.len, path, arch, ret, progress, e);
}

int apt_sources_read(const struct pkg_host_fs *fs, enum arch arch, struct apt_sources *ret, struct progress *progress,
	struct err *e)
{
	static const char dir[] = "/etc/apt/sources.list.d";
	_cleanup_apt_sources_ struct apt_sources sources = { .lenient = ret->lenient };
	_cleanup_strv_ struct strv names = { 0 };
	int r = read_sources_file(fs, "/etc/apt/sources.list", arch, &sources, progress, e);

	if (r < 0)
		return r;
	r = fs->list_dir(fs->ctx, dir, &names, e);
	if (r < 0 && r != -ENOENT)
		return err_wrap(e, "listing `%s`", dir);
	if (r < 0)
		err_clear(e);
	strv_sort(&names);
	for (size_t i = 0; i < names.n; i++) {
		_cleanup_free_ char *path = NULL;
		const char *name = names.items[i];

		if (!apt_part_name_valid(name) || !(has_suffix(name, ".list") || has_suffix(name, ".sources")))
			continue;
		if (asprintf(&path, "%s/%s", dir, name) < 0) {
			path = NULL;
			return out_of_memory(e);
		}
		r = read_sources_file(fs, path, arch, &sources, progress, e);
		if (r < 0)
			return r;
	}
	apt_sources_release(ret);
	*ret = sources;
	sources = (struct apt_sources){ 0 };
	return 0;
}

/* One line of a mirror list: a URI, then perhaps a tab and "arch:amd64 priority:1 ...". */
static int add_mirror_line(struct deb822_value line, enum arch arch, const char *where, struct strv *ret, struct err *e)
{
	struct deb822_value uri, option;
	_cleanup_free_ char *text = NULL;
	bool has_arch = false, our_arch = false;

	line = deb822_trim(line);
	uri = next_word(&line);
	if (!uri.s || uri.s[0] == '#')
		return 0;
	while ((option = next_word(&line)).s) {
		if (option.len > 5 && strncmp(option.s, "arch:", 5) == 0) {
			has_arch = true;
			our_arch |= deb822_is((struct deb822_value){ option.s + 5, option.len - 5 }, arch_name(arch));
		}
	}
	if (has_arch && !our_arch)
		return 0;
	text = deb822_dup(uri);
	if (!text)
		return out_of_memory(e);
	if (strncasecmp(text, "http://", 7) != 0 && strncasecmp(text, "https://", 8) != 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EPERM, "%s: its list of mirrors has `%.200s`; only http: and https: can "
			"be used", where, text);
	while (uri.len > 1 && text[uri.len - 1] == '/')
		text[--uri.len] = '\0';
	return strv_add(ret, text) < 0 ? out_of_memory(e) : 0;
}

int apt_source_places(const struct pkg_host_fs *fs, const struct apt_source *source, enum arch arch, struct strv *ret,
	struct err *e)
{
	static const char scheme[] = "mirror+file:";
	_cleanup_buf_ struct buf text = BUF_INIT(SOURCES_FILE_MAX_BYTES);
	const char *path = source->uri + strlen(scheme);
	struct deb822_value rest, line;
	size_t before = ret->n;
	int r;

	if (strncasecmp(source->uri, scheme, strlen(scheme)) != 0)
		return strv_add(ret, source->uri) < 0 ? out_of_memory(e) : 0;
	if (strncmp(path, "//", 2) == 0)
		path += 2;
	r = fs->read_file(fs->ctx, path, &text, e);
	if (r == -ENOENT)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "%s: the base image has no list of mirrors `%s`", source->where,
			path);
	if (r < 0)
		return err_wrap(e, "%s: reading the list of mirrors `%s`", source->where, path);
	if (memchr(buf_str(&text), '\0', text.len))
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: a NUL byte in the list of mirrors `%s`", source->where,
			path);
	rest = (struct deb822_value){ buf_str(&text), text.len };
	while (deb822_line_next(&rest, &line)) {
		r = add_mirror_line(line, arch, source->where, ret, e);
		if (r < 0)
			return r;
	}
	if (ret->n == before)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "%s: the list of mirrors `%s` is empty", source->where, path);
	return 0;
}
