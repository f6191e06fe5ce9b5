#include "plan/canonical.h"

#include <string.h>

/* The largest integer that every reader of JSON keeps exactly (RFC 8785 section 3.2.2.3, I-JSON). */
#define MAX_INTEGER ((INT64_C(1) << 53) - 1)

struct name {
	const char *text;
	size_t len;
	const json_t *value;
};

/* Order by UTF-16 code units (section 3.2.3), judged on UTF-8. The two orders differ only where a character beyond the
 * basic plane, which UTF-16 writes with a surrogate (D800 to DFFF), meets one from U+E000 up: their first bytes, F0 and
 * above against EE and EF, decide the other way round. */
static int compare_names(const void *a, const void *b)
{
	const struct name *x = a, *y = b;
	size_t n = x->len < y->len ? x->len : y->len;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)x->text[i], d = (unsigned char)y->text[i];

		if (c == d)
			continue;
		if (c >= 0xee && d >= 0xee && (c >= 0xf0) != (d >= 0xf0))
			return c >= 0xf0 ? -1 : 1;
		return c < d ? -1 : 1;
	}
	return x->len < y->len ? -1 : x->len > y->len;
}

/* Section 3.2.2.2. jansson holds only valid UTF-8, so nothing else needs a check. */
static int append_string(const char *s, size_t len, struct buf *into)
{
	static const char short_escapes[] = "\b\t\n\f\r\"\\", short_names[] = "btnfr\"\\";
	int r = buf_append_char(into, '"');

	for (size_t i = 0; r == 0 && i < len;) {
		size_t plain = 0;
		const char *known;

		while (i + plain < len && (unsigned char)s[i + plain] >= 0x20 && s[i + plain] != '"' && s[i + plain] != '\\')
			plain++;
		r = buf_append(into, s + i, plain);
		i += plain;
		if (r < 0 || i == len)
			break;
		known = s[i] ? strchr(short_escapes, s[i]) : NULL;
		if (known)
			r = buf_appendf(into, "\\%c", short_names[known - short_escapes]);
		else
			r = buf_appendf(into, "\\u%04x", (unsigned char)s[i]);
		i++;
	}
	return r < 0 ? r : buf_append_char(into, '"');
}

static int append_value(const json_t *value, unsigned depth, struct buf *into, struct err *e);

static int append_object(const json_t *object, unsigned depth, struct buf *into, struct err *e)
{
	size_t n = json_object_size(object), i = 0;
	_cleanup_free_ struct name *names = calloc(n + 1, sizeof(*names));
	/* jansson's iterators want a pointer to something changeable and change nothing. */
	json_t *o = (json_t *)(uintptr_t)object;
	int r = names ? buf_append_char(into, '{') : -ENOMEM;

	if (!names)
		return r;
	for (void *it = json_object_iter(o); it && i < n; it = json_object_iter_next(o, it))
		names[i++] = (struct name){ .text = json_object_iter_key(it),
			.len = json_object_iter_key_len(it),
			.value = json_object_iter_value(it) };
	qsort(names, n, sizeof(*names), compare_names);
	for (i = 0; r == 0 && i < n; i++) {
		if (i > 0)
			r = buf_append_char(into, ',');
		if (r == 0)
			r = append_string(names[i].text, names[i].len, into);
		if (r == 0)
			r = buf_append_char(into, ':');
		if (r == 0)
			r = append_value(names[i].value, depth + 1, into, e);
	}
	return r < 0 ? r : buf_append_char(into, '}');
}

static int append_array(const json_t *array, unsigned depth, struct buf *into, struct err *e)
{
	int r = buf_append_char(into, '[');

	for (size_t i = 0; r == 0 && i < json_array_size(array); i++) {
		if (i > 0)
			r = buf_append_char(into, ',');
		if (r == 0)
			r = append_value(json_array_get(array, i), depth + 1, into, e);
	}
	return r < 0 ? r : buf_append_char(into, ']');
}

static int append_value(const json_t *value, unsigned depth, struct buf *into, struct err *e)
{
	json_int_t integer;

	if (depth > CANONICAL_MAX_DEPTH)
		return err_set(e, -EINVAL, "found JSON of more than %d levels, expected at most so many", CANONICAL_MAX_DEPTH);
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return append_object(value, depth, into, e);
	case JSON_ARRAY:
		return append_array(value, depth, into, e);
	case JSON_STRING:
		return append_string(json_string_value(value), json_string_length(value), into);
	case JSON_INTEGER:
		integer = json_integer_value(value);
		if (integer > MAX_INTEGER || integer < -MAX_INTEGER)
			return err_set(e, -EINVAL, "found the integer %lld, expected one within 2^53 - 1", (long long)integer);
		return buf_appendf(into, "%lld", (long long)integer);
	case JSON_TRUE:
		return buf_append_str(into, "true");
	case JSON_FALSE:
		return buf_append_str(into, "false");
	case JSON_NULL:
		return buf_append_str(into, "null");
	case JSON_REAL:
		break;
	}
	return err_set(e, -EINVAL, "found a real number in JSON to be made canonical, expected integers only");
}

int canonical_append(const json_t *value, struct buf *into, struct err *e)
{
	int r = append_value(value, 1, into, e);

	if (r == -E2BIG)
		return err_set(e, r, "the canonical JSON is larger than the limit of %zu bytes", into->max_bytes);
	if (r == -ENOMEM)
		return err_set(e, r, "out of memory");
	return r;
}

int canonical_digest(const char *prefix, const json_t *value, struct digest *ret, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(CANONICAL_MAX_BYTES);
	int r = buf_append_str(&text, prefix);

	if (r < 0)
		return err_set(e, r, "out of memory");
	r = canonical_append(value, &text, e);
	return r < 0 ? r : digest_bytes(DIGEST_SHA256, buf_str(&text), text.len, ret, e);
}
