#include "builder/packages/deb822.h"

#include <string.h>
#include <strings.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

void deb822_reader_init(struct deb822_reader *r, const char *text, size_t len, const char *label)
{
	*r = (struct deb822_reader){ .text = text, .len = len, .label = label };
}

/* Cut the next line out of the text, its end-of-line (\n or \r\n) left off. False at the end. */
static bool next_line(struct deb822_reader *r, const char **ret, size_t *ret_len)
{
	const char *start, *nl;

	if (r->offset >= r->len)
		return false;
	start = r->text + r->offset;
	nl = memchr(start, '\n', r->len - r->offset);
	*ret = start;
	*ret_len = nl ? (size_t)(nl - start) : r->len - r->offset;
	r->offset += *ret_len + (nl ? 1 : 0);
	r->line++;
	if (*ret_len > 0 && start[*ret_len - 1] == '\r')
		(*ret_len)--;
	return true;
}

/* Split "Name: value". False when it is not of that form. */
static bool split_field(const char *line, size_t len, struct deb822_field *ret)
{
	const char *colon = memchr(line, ':', len);
	size_t name_len = colon ? (size_t)(colon - line) : 0;

	while (name_len > 0 && is_blank(line[name_len - 1]))
		name_len--;
	if (name_len == 0 || line[0] == '-')
		return false;
	for (size_t i = 0; i < name_len; i++)
		if (line[i] <= ' ' || line[i] > '~')
			return false;
	ret->name = line;
	ret->name_len = name_len;
	ret->value = deb822_trim((struct deb822_value){ colon + 1, len - (size_t)(colon - line) - 1 });
	return true;
}

int deb822_next(struct deb822_reader *r, struct deb822_stanza *ret, struct err *e)
{
	const char *line;
	size_t len;

	ret->n = 0;
	while (next_line(r, &line, &len)) {
		struct deb822_field *last = ret->n ? &ret->fields[ret->n - 1] : NULL;

		if (len == 0) {
			if (ret->n > 0)
				return 1;
			continue;
		}
		if (line[0] == '#')
			continue;
		if (memchr(line, '\0', len))
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: a NUL byte in the text", r->label, r->line);
		if (is_blank(line[0])) {
			if (!last && deb822_trim((struct deb822_value){ line, len }).len == 0)
				continue;
			if (!last)
				return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
					"%s:%u: a continuation line where a field should begin", r->label, r->line);
			last->value.len = (size_t)(line + len - last->value.s);
			while (last->value.len > 0 && is_blank(last->value.s[last->value.len - 1]))
				last->value.len--;
			continue;
		}
		if (ret->n == DEB822_FIELDS_MAX)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: more than %d fields in one stanza",
				r->label, r->line, DEB822_FIELDS_MAX);
		if (!split_field(line, len, &ret->fields[ret->n])) {
			char shown[64];

			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: expected `Field: value`, found `%s`",
				r->label, r->line, err_sanitize(shown, sizeof(shown), line, len));
		}
		if (ret->n++ == 0)
			ret->line = r->line;
	}
	return ret->n > 0;
}

struct deb822_value deb822_get(const struct deb822_stanza *stanza, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < stanza->n; i++)
		if (stanza->fields[i].name_len == len && strncasecmp(stanza->fields[i].name, name, len) == 0)
			return stanza->fields[i].value;
	return (struct deb822_value){ NULL, 0 };
}

bool deb822_is(struct deb822_value v, const char *word)
{
	return v.s && v.len == strlen(word) && strncasecmp(v.s, word, v.len) == 0;
}

int deb822_bool(struct deb822_value v, bool missing, bool *ret)
{
	static const char *const yes[] = { "yes", "true", "on", "with", "enable", "1" };
	static const char *const no[] = { "no", "false", "off", "without", "disable", "0" };

	if (!v.s) {
		*ret = missing;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		if (deb822_is(v, yes[i]) || deb822_is(v, no[i])) {
			*ret = deb822_is(v, yes[i]);
			return 0;
		}
	}
	return -EINVAL;
}

bool deb822_line_next(struct deb822_value *rest, struct deb822_value *ret_line)
{
	while (rest->s) {
		const char *nl = memchr(rest->s, '\n', rest->len);

		ret_line->s = rest->s;
		ret_line->len = nl ? (size_t)(nl - rest->s) : rest->len;
		if (nl) {
			rest->len -= ret_line->len + 1;
			rest->s = nl + 1;
		} else {
			*rest = (struct deb822_value){ NULL, 0 };
		}
		if (ret_line->len > 0 && ret_line->s[ret_line->len - 1] == '\r')
			ret_line->len--;
		if (ret_line->len == 0 || ret_line->s[0] != '#')
			return true;
	}
	return false;
}

int deb822_words(struct deb822_value v, bool commas, struct strv *ret)
{
	struct deb822_value line;

	while (deb822_line_next(&v, &line)) {
		size_t i = 0;

		while (i < line.len) {
			size_t start;

			while (i < line.len && (is_blank(line.s[i]) || (commas && line.s[i] == ',')))
				i++;
			start = i;
			while (i < line.len && !is_blank(line.s[i]) && !(commas && line.s[i] == ','))
				i++;
			if (i > start && strv_add_len(ret, line.s + start, i - start) < 0)
				return -ENOMEM;
		}
	}
	return 0;
}

struct deb822_value deb822_trim(struct deb822_value v)
{
	while (v.len > 0 && is_blank(v.s[0]))
		v.s++, v.len--;
	while (v.len > 0 && is_blank(v.s[v.len - 1]))
		v.len--;
	return v;
}

char *deb822_dup(struct deb822_value v)
{
	return strndup(v.s ? v.s : "", v.len);
}

void deb822_stream_init(struct deb822_stream *s, const char *label, deb822_stanza_fn fn, void *ctx)
{
	buf_init(&s->pending, DEB822_STANZA_MAX_BYTES);
	s->line = 0;
	s->label = label;
	s->fn = fn;
	s->ctx = ctx;
	s->stanza.n = 0;
}

void deb822_stream_release(struct deb822_stream *s)
{
	buf_release(&s->pending);
}

/* Parse a text that ends where a stanza ends, and hand over what is in it. */
static int stream_parse(struct deb822_stream *s, const char *text, size_t len, struct err *e)
{
	struct deb822_reader reader;
	int r;

	deb822_reader_init(&reader, text, len, s->label);
	reader.line = s->line;
	while ((r = deb822_next(&reader, &s->stanza, e)) > 0) {
		r = s->fn(s->ctx, &s->stanza, e);
		if (r < 0)
			return r;
	}
	s->line = reader.line;
	return r;
}

/* The offset behind the last empty line of the text, or 0 when it has none. */
static size_t last_stanza_end(const char *text, size_t len)
{
	while (len > 0) {
		const char *nl = memrchr(text, '\n', len);
		const char *before;

		if (!nl)
			return 0;
		before = nl;
		if (before > text && before[-1] == '\r')
			before--;
		if (before > text && before[-1] == '\n')
			return (size_t)(nl - text) + 1;
		len = (size_t)(nl - text);
	}
	return 0;
}

int deb822_stream_feed(struct deb822_stream *s, const void *bytes, size_t len, struct err *e)
{
	size_t end;
	int r;

	r = buf_append(&s->pending, bytes, len);
	if (r == -E2BIG)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s:%u: a stanza of more than %d bytes", s->label,
			s->line + 1, DEB822_STANZA_MAX_BYTES);
	if (r < 0)
		return err_set(e, r, "out of memory");
	end = len == 0 ? s->pending.len : last_stanza_end(s->pending.data, s->pending.len);
	if (end == 0)
		return 0;
	r = stream_parse(s, s->pending.data, end, e);
	buf_consume(&s->pending, end);
	return r;
}
