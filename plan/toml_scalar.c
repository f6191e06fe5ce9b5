#include "lib/num.h"
#include "plan/toml_internal.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static int hex_value(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Control characters that no string and no comment may hold; line ends are judged by the caller. */
static bool is_forbidden_control(char c)
{
	return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

static size_t put_utf8(char *out, uint32_t c)
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

/* Read the n hexadecimal digits of \u or \U; the cursor stands on the first. */
static int parse_unicode_escape(struct toml_parser *p, unsigned n, uint32_t *ret)
{
	size_t start = p->pos;
	uint32_t c = 0;

	for (unsigned i = 0; i < n; i++) {
		int h = hex_value(toml_peek(p));

		if (h < 0)
			return toml_fail_expected(p, p->pos, n == 4 ? "four hexadecimal digits after \\u"
								    : "eight hexadecimal digits after \\U");
		c = c << 4 | (uint32_t)h;
		p->pos++;
	}
	if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return toml_fail(p, start, -EBADMSG, "found the escape of U+%04X, expected a Unicode scalar value", c);
	*ret = c;
	return 0;
}

/* Read one escape, the cursor after its backslash, and append what it stands for to out. A backslash at the end of a
 * line of a multi-line string swallows all white space up to the next character. */
static int parse_escape(struct toml_parser *p, bool multiline, char *out, size_t *out_len)
{
	static const char names[] = "btnfr\"\\", values[] = "\b\t\n\f\r\"\\";
	char c = toml_peek(p);
	const char *simple = c ? strchr(names, c) : NULL;
	uint32_t code;
	int r;

	if (simple) {
		out[(*out_len)++] = values[simple - names];
		p->pos++;
		return 0;
	}
	if (c == 'u' || c == 'U') {
		p->pos++;
		r = parse_unicode_escape(p, c == 'u' ? 4 : 8, &code);
		if (r == 0)
			*out_len += put_utf8(out + *out_len, code);
		return r;
	}
	if (multiline) {
		size_t q = p->pos, newline;

		while (p->text[q] == ' ' || p->text[q] == '\t')
			q++;
		if (toml_newline_at(p, q)) {
			while ((newline = toml_newline_at(p, q)) || p->text[q] == ' ' || p->text[q] == '\t')
				q += newline ? newline : 1;
			p->pos = q;
			return 0;
		}
	}
	return toml_fail_expected(p, p->pos, "one of b t n f r \" \\ u U after the backslash");
}

/* How many of `quote` stand at pos, counted up to 5. */
static size_t count_quotes(const struct toml_parser *p, size_t pos, char quote)
{
	size_t n = 0;

	while (n < 5 && p->text[pos + n] == quote)
		n++;
	return n;
}

/* Find a bound for the string's decoded size: the distance to its closing quote. Decoding never makes a string longer
 * than its spelling (the longest escape, \U, is ten bytes for four). */
static size_t decoded_bound(const struct toml_parser *p, char quote, bool basic, bool multiline)
{
	size_t q = p->pos;

	for (; q < p->len; q++) {
		if (basic && p->text[q] == '\\') {
			q++;
			continue;
		}
		if (p->text[q] == quote && (!multiline || count_quotes(p, q, quote) >= 3))
			break;
		if (!multiline && p->text[q] == '\n')
			break;
	}
	return (q < p->len ? q : p->len) - p->pos + 5;
}

/* Read a string on one line that is written as it is, which nearly all are: 1 when it was one, 0 when it has to be
 * looked at more closely. */
static int parse_plain_string(struct toml_parser *p, char quote, struct toml_string *ret)
{
	const unsigned char *first = (const unsigned char *)p->text + p->pos + 1, *c = first;
	char *out;

	while (*c >= 0x20 && *c != (unsigned char)quote && *c != '\\' && *c != 0x7f)
		c++;
	if (*c != (unsigned char)quote || (c == first && c[1] == (unsigned char)quote))
		return 0;
	out = toml_alloc(p, (size_t)(c - first) + 1);
	if (!out)
		return -ENOMEM;
	memcpy(out, first, (size_t)(c - first));
	out[c - first] = '\0';
	*ret = (struct toml_string){ .data = out, .len = (size_t)(c - first) };
	p->pos += (size_t)(c - first) + 2;
	return 1;
}

int toml_parse_string(struct toml_parser *p, bool multiline_allowed, struct toml_string *ret)
{
	size_t start = p->pos, n = 0, newline;
	char quote = toml_peek(p);
	bool basic = quote == '"';
	bool multiline = count_quotes(p, p->pos, quote) >= 3;
	int plain = parse_plain_string(p, quote, ret);
	char *out;

	if (plain != 0)
		return plain < 0 ? plain : 0;
	if (multiline && !multiline_allowed)
		return toml_fail(p, start, -EBADMSG, "found a multi-line string, expected a key: \"…\" or '…' on one line");
	p->pos += multiline ? 3 : 1;
	if (multiline)
		p->pos += toml_newline_at(p, p->pos);
	out = toml_alloc(p, decoded_bound(p, quote, basic, multiline) + 1);
	if (!out)
		return -ENOMEM;
	for (;;) {
		char c = toml_peek(p);

		if (p->pos >= p->len)
			return toml_fail(p, start, -EBADMSG, "found a string without an end, expected its closing %s",
				basic ? (multiline ? "\"\"\"" : "\"") : (multiline ? "'''" : "'"));
		if (c == quote) {
			size_t quotes = multiline ? count_quotes(p, p->pos, quote) : 1;

			if (!multiline || quotes >= 3) {
				/* Up to two quotes may stand before the closing three. */
				for (size_t i = 3; multiline && i < quotes; i++)
					out[n++] = quote;
				p->pos += quotes;
				break;
			}
			out[n++] = quote;
			p->pos++;
			continue;
		}
		if (basic && c == '\\') {
			int r;

			p->pos++;
			r = parse_escape(p, multiline, out, &n);
			if (r < 0)
				return r;
			continue;
		}
		newline = toml_newline_at(p, p->pos);
		if (newline && !multiline)
			return toml_fail_expected(p, p->pos, basic ? "the closing \" of the string on the same line"
								   : "the closing ' of the string on the same line");
		if (!newline && is_forbidden_control(c))
			return toml_fail_expected(p, p->pos, basic ? "no control characters in a string (use an escape)"
								   : "no control characters in a string");
		for (size_t i = 0; i < (newline ? newline : 1); i++)
			out[n++] = p->text[p->pos++];
	}
	out[n] = '\0';
	*ret = (struct toml_string){ .data = out, .len = n };
	return 0;
}

/* --- numbers --- */

static bool is_token_char(char c)
{
	return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '+' || c == '-' ||
	       c == '.' || c == ':';
}

/* Copy digits of the token [*at, end) to out, taking out underscores that stand between two digits. Returns how many
 * digits, or -1 for an underscore that does not. */
static int take_digits(const char *text, size_t *at, size_t end, int base, char *out)
{
	int n = 0;
	bool after_digit = false;

	for (; *at < end; (*at)++) {
		char c = text[*at];
		int h = hex_value(c);

		if (c == '_') {
			if (!after_digit || *at + 1 >= end || hex_value(text[*at + 1]) < 0 ||
				hex_value(text[*at + 1]) >= base)
				return -1;
			after_digit = false;
			continue;
		}
		if (h < 0 || h >= base)
			break;
		out[n++] = c;
		after_digit = true;
	}
	return n;
}

static int fail_number(struct toml_parser *p, size_t start, size_t end, const char *expected)
{
	size_t n = end - start;

	if (n == 0)
		return toml_fail_expected(p, start, expected);
	return toml_fail(p, start, -EBADMSG, "found `%.*s`, expected %s", (int)(n > 40 ? 40 : n), p->text + start, expected);
}

/* The token [start, end) is 0x…, 0o… or 0b…. */
static int parse_prefixed(struct toml_parser *p, size_t start, size_t end, char *digits, struct toml_value *v)
{
	char prefix = p->text[start + 1];
	int base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : 2;
	size_t at = start + 2;
	uint64_t value = 0;
	int n = take_digits(p->text, &at, end, base, digits);

	if (n <= 0 || at != end)
		return fail_number(p, start, end, base == 16 ? "a hexadecimal integer such as 0xdead_beef"
				: base == 8		     ? "an octal integer such as 0o755"
							     : "a binary integer such as 0b1101");
	for (int i = 0; i < n; i++) {
		if (!checked_mul_u64(value, (uint64_t)base, &value) ||
			!checked_add_u64(value, (uint64_t)hex_value(digits[i]), &value) || value > INT64_MAX)
			return fail_number(p, start, end, "an integer of at most 64 bits with its sign");
	}
	v->type = TOML_INTEGER;
	v->integer = (int64_t)value;
	return 0;
}

/* Take the decimal digits of (digits, n) as an integer. */
static int finish_decimal(struct toml_parser *p, size_t start, size_t end, const char *digits, size_t n, bool negative,
	struct toml_value *v)
{
	uint64_t value = 0;

	for (size_t i = 0; i < n; i++)
		if (!checked_mul_u64(value, 10, &value) || !checked_add_u64(value, (uint64_t)(digits[i] - '0'), &value) ||
			value > (uint64_t)INT64_MAX + (negative ? 1 : 0))
			return fail_number(p, start, end, "an integer of at most 64 bits with its sign");
	v->type = TOML_INTEGER;
	v->integer = negative ? (int64_t)(0 - value) : (int64_t)value;
	return 0;
}

/* The token [start, end) is a decimal integer or a real. */
static int parse_decimal(struct toml_parser *p, size_t start, size_t end, struct toml_value *v)
{
	static const char expected[] = "a value: a string, number, date, true, false, [array] or {table}";
	size_t at = start, n = 0;
	bool negative = p->text[start] == '-', real = false;
	char *out = toml_alloc(p, end - start + 1);
	locale_t c_locale;
	int digits;

	if (!out)
		return -ENOMEM;
	if (p->text[at] == '+' || p->text[at] == '-') {
		if (negative)
			out[n++] = '-';
		at++;
	}
	if (end - at == 3 && (memcmp(p->text + at, "inf", 3) == 0 || memcmp(p->text + at, "nan", 3) == 0)) {
		v->type = TOML_FLOAT;
		v->real = p->text[at] == 'i' ? __builtin_inf() : __builtin_nan("");
		if (negative)
			v->real = -v->real;
		return 0;
	}
	if (at == start && end - at > 2 && p->text[at] == '0' && strchr("xob", p->text[at + 1]))
		return parse_prefixed(p, start, end, out, v);
	digits = take_digits(p->text, &at, end, 10, out + n);
	if (digits < 0)
		return fail_number(p, start, end, "a number whose underscores each stand between two digits");
	if (digits == 0)
		return fail_number(p, start, end, expected);
	if (digits > 1 && out[n] == '0')
		return fail_number(p, start, end, "a number without leading zeros");
	if (at == end)
		return finish_decimal(p, start, end, out + n, (size_t)digits, negative, v);
	n += (size_t)digits;
	if (at < end && p->text[at] == '.') {
		real = true;
		out[n++] = '.';
		at++;
		digits = take_digits(p->text, &at, end, 10, out + n);
		if (digits <= 0)
			return fail_number(p, start, end, "a real number with digits on both sides of its point");
		n += (size_t)digits;
	}
	if (at < end && (p->text[at] == 'e' || p->text[at] == 'E')) {
		real = true;
		out[n++] = 'e';
		at++;
		if (at < end && (p->text[at] == '+' || p->text[at] == '-'))
			out[n++] = p->text[at++];
		digits = take_digits(p->text, &at, end, 10, out + n);
		if (digits <= 0)
			return fail_number(p, start, end, "a real number with digits in its exponent");
		n += (size_t)digits;
	}
	if (at != end || !real)
		return fail_number(p, start, end, expected);
	out[n] = '\0';
	/* The decimal point is the locale's in plain strtod(). */
	c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	if (!c_locale)
		return err_set(p->e, -ENOMEM, "out of memory");
	v->type = TOML_FLOAT;
	v->real = strtod_l(out, NULL, c_locale);
	freelocale(c_locale);
	return 0;
}

/* --- dates and times --- */

/* Read exactly n digits at *at. */
static bool take_fixed(const struct toml_parser *p, size_t *at, unsigned n, unsigned *ret)
{
	unsigned value = 0;

	for (unsigned i = 0; i < n; i++) {
		char c = p->text[*at + i];

		if (!is_digit(c))
			return false;
		value = value * 10 + (unsigned)(c - '0');
	}
	*at += n;
	*ret = value;
	return true;
}

static bool take_char(const struct toml_parser *p, size_t *at, char c)
{
	if (p->text[*at] != c)
		return false;
	(*at)++;
	return true;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
	static const unsigned char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

	if (month == 2 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0))
		return 29;
	return days[month - 1];
}

static int parse_date(struct toml_parser *p, size_t *at, struct toml_datetime *d)
{
	size_t start = *at;

	if (!take_fixed(p, at, 4, &d->year) || !take_char(p, at, '-') || !take_fixed(p, at, 2, &d->month) ||
		!take_char(p, at, '-') || !take_fixed(p, at, 2, &d->day))
		return toml_fail_expected(p, *at, "a date such as 2026-11-21");
	if (d->month < 1 || d->month > 12 || d->day < 1 || d->day > days_in_month(d->year, d->month))
		return toml_fail(p, start, -EBADMSG, "found %04u-%02u-%02u, expected a day that exists", d->year, d->month,
			d->day);
	return 0;
}

static int parse_time(struct toml_parser *p, size_t *at, struct toml_datetime *d)
{
	size_t start = *at;

	if (!take_fixed(p, at, 2, &d->hour) || !take_char(p, at, ':') || !take_fixed(p, at, 2, &d->minute) ||
		!take_char(p, at, ':') || !take_fixed(p, at, 2, &d->second))
		return toml_fail_expected(p, *at, "a time such as 07:32:00");
	if (d->hour > 23 || d->minute > 59 || d->second > 60)
		return toml_fail(p, start, -EBADMSG, "found %02u:%02u:%02u, expected a time of the day", d->hour, d->minute,
			d->second);
	if (take_char(p, at, '.')) {
		unsigned scale = 100000000;

		if (!is_digit(p->text[*at]))
			return toml_fail_expected(p, *at, "digits after the point of the second");
		for (; is_digit(p->text[*at]); (*at)++) {
			d->nanosecond += (unsigned)(p->text[*at] - '0') * scale;
			scale /= 10;
		}
	}
	return 0;
}

static int parse_offset(struct toml_parser *p, size_t *at, struct toml_datetime *d)
{
	bool west = p->text[*at] == '-';
	unsigned hours, minutes;
	size_t start = *at;

	if (take_char(p, at, 'Z') || take_char(p, at, 'z'))
		return 0;
	(*at)++;
	if (!take_fixed(p, at, 2, &hours) || !take_char(p, at, ':') || !take_fixed(p, at, 2, &minutes))
		return toml_fail_expected(p, *at, "an offset from UTC such as +01:00");
	if (hours > 23 || minutes > 59)
		return toml_fail(p, start, -EBADMSG, "found an offset of %02u:%02u, expected at most 23:59", hours, minutes);
	d->offset_minutes = (int)(hours * 60 + minutes) * (west ? -1 : 1);
	return 0;
}

static int parse_datetime(struct toml_parser *p, struct toml_value *v)
{
	struct toml_datetime *d = &v->datetime;
	size_t at = p->pos;
	char next;
	int r;

	if (p->text[at + 2] == ':') {
		v->type = TOML_LOCAL_TIME;
		r = parse_time(p, &at, d);
	} else {
		v->type = TOML_LOCAL_DATE;
		r = parse_date(p, &at, d);
		next = p->text[at];
		if (r == 0 && (next == 'T' || next == 't' || (next == ' ' && is_digit(p->text[at + 1])))) {
			at++;
			v->type = TOML_LOCAL_DATETIME;
			r = parse_time(p, &at, d);
			next = p->text[at];
			if (r == 0 && next && strchr("Zz+-", next)) {
				v->type = TOML_OFFSET_DATETIME;
				r = parse_offset(p, &at, d);
			}
		}
	}
	if (r < 0)
		return r;
	if (is_token_char(p->text[at]))
		return toml_fail_expected(p, at, "the end of the date or time");
	p->pos = at;
	return 0;
}

/* Do four digits and '-' (a date), or two digits and ':' (a time) stand at the cursor? */
static bool looks_like_datetime(const struct toml_parser *p)
{
	const char *s = p->text + p->pos;

	if (!is_digit(s[0]) || !is_digit(s[1]))
		return false;
	return s[2] == ':' || (is_digit(s[2]) && is_digit(s[3]) && s[4] == '-');
}

int toml_parse_scalar(struct toml_parser *p, struct toml_value *v)
{
	size_t start = p->pos, end = start;
	const char *s = p->text + start;
	int r;

	if (looks_like_datetime(p))
		return parse_datetime(p, v);
	while (is_token_char(p->text[end]))
		end++;
	if ((end - start == 4 && memcmp(s, "true", 4) == 0) || (end - start == 5 && memcmp(s, "false", 5) == 0)) {
		v->type = TOML_BOOLEAN;
		v->boolean = s[0] == 't';
		p->pos = end;
		return 0;
	}
	r = parse_decimal(p, start, end, v);
	if (r == 0)
		p->pos = end;
	return r;
}
