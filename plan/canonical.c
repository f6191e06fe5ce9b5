#include "plan/canonical.h"

#include <string.h>

#define SAFE_INTEGER_MAX ((json_int_t)9007199254740991) /* 2^53 - 1, RFC 8785 section 3.2.2.3 */

static int canonical_value(const json_t *value, struct buf *into, unsigned depth, struct err *e);

static int buf_failed(int r, struct err *e)
{
	return r < 0 ? err_set_errno(e, r, "cannot write canonical JSON") : 0;
}

static int canonical_string(const char *s, size_t len, struct buf *into)
{
	int r = buf_append_char(into, '"');

	for (size_t i = 0; r == 0 && i < len; i++) {
		static const char named[] = "btnvfr"; /* 8 to 13; \v has no short form */
		unsigned char c = (unsigned char)s[i];

		if (c == '"' || c == '\\')
			r = buf_appendf(into, "\\%c", c);
		else if (c >= 8 && c <= 13 && c != 11)
			r = buf_appendf(into, "\\%c", named[c - 8]);
		else if (c < 0x20)
			r = buf_appendf(into, "\\u%04x", c);
		else
			r = buf_append_char(into, s[i]);
	}
	return r < 0 ? r : buf_append_char(into, '"');
}

/* The order of UTF-16 code units is that of UTF-8 bytes but for one thing: what needs a surrogate pair (lead bytes F0 to
 * F4) comes before U+E000 to U+FFFF (lead bytes EE and EF). */
static int utf16_rank(unsigned char c)
{
	return c == 0xEE || c == 0xEF ? c + 0x10 : c;
}

static int compare_names(const void *a, const void *b)
{
	const unsigned char *x = *(const unsigned char *const *)a, *y = *(const unsigned char *const *)b;

	while (*x && *x == *y)
		x++, y++;
	return utf16_rank(*x) - utf16_rank(*y);
}

static int canonical_object(const json_t *object, struct buf *into, unsigned depth, struct err *e)
{
	size_t n = json_object_size(object), i = 0;
	_cleanup_free_ const char **names = calloc(n + 1, sizeof(*names));
	const char *name;
	json_t *value;
	int r;

	if (!names)
		return err_set(e, -ENOMEM, "out of memory");
	json_object_foreach((json_t *)(uintptr_t)object, name, value)
		names[i++] = name;
	qsort(names, n, sizeof(*names), compare_names);
	r = buf_failed(buf_append_char(into, '{'), e);
	for (i = 0; r == 0 && i < n; i++) {
		if (i > 0)
			r = buf_failed(buf_append_char(into, ','), e);
		if (r == 0)
			r = buf_failed(canonical_string(names[i], strlen(names[i]), into), e);
		if (r == 0)
			r = buf_failed(buf_append_char(into, ':'), e);
		if (r == 0)
			r = canonical_value(json_object_get(object, names[i]), into, depth, e);
	}
	return r < 0 ? r : buf_failed(buf_append_char(into, '}'), e);
}

static int canonical_array(const json_t *array, struct buf *into, unsigned depth, struct err *e)
{
	int r = buf_failed(buf_append_char(into, '['), e);

	for (size_t i = 0; r == 0 && i < json_array_size(array); i++) {
		if (i > 0)
			r = buf_failed(buf_append_char(into, ','), e);
		if (r == 0)
			r = canonical_value(json_array_get(array, i), into, depth, e);
	}
	return r < 0 ? r : buf_failed(buf_append_char(into, ']'), e);
}

static int canonical_value(const json_t *value, struct buf *into, unsigned depth, struct err *e)
{
	json_int_t integer;

	if (depth == CANONICAL_MAX_DEPTH)
		return err_set(e, -EINVAL, "a value is nested deeper than %d levels", CANONICAL_MAX_DEPTH);
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return canonical_object(value, into, depth + 1, e);
	case JSON_ARRAY:
		return canonical_array(value, into, depth + 1, e);
	case JSON_STRING:
		return buf_failed(canonical_string(json_string_value(value), json_string_length(value), into), e);
	case JSON_INTEGER:
		integer = json_integer_value(value);
		if (integer > SAFE_INTEGER_MAX || integer < -SAFE_INTEGER_MAX)
			return err_set(e, -EINVAL, "the integer %lld is beyond 2^53 - 1, which canonical JSON cannot hold",
				(long long)integer);
		return buf_failed(buf_appendf(into, "%lld", (long long)integer), e);
	case JSON_TRUE:
		return buf_failed(buf_append_str(into, "true"), e);
	case JSON_FALSE:
		return buf_failed(buf_append_str(into, "false"), e);
	case JSON_NULL:
		return buf_failed(buf_append_str(into, "null"), e);
	case JSON_REAL:
		break;
	}
	return err_set(e, -EINVAL, "a real number has no place in a key document");
}

int canonical_append(const json_t *value, struct buf *into, struct err *e)
{
	return canonical_value(value, into, 0, e);
}

int canonical_digest(const char *prefix, const json_t *value, struct digest *ret, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(CANONICAL_MAX_BYTES);
	int r = buf_failed(buf_append_str(&text, prefix), e);

	if (r == 0)
		r = canonical_append(value, &text, e);
	return r < 0 ? r : digest_bytes(DIGEST_SHA256, buf_str(&text), text.len, ret, e);
}
