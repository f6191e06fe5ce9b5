#include "plan/syntax.h"
#include "lib/num.h"
#include "lib/url.h"

#include <limits.h>
#include <string.h>
#include <time.h>

#define USER_NAME_MAX_BYTES 32
#define HOST_NAME_MAX_BYTES 64
#define HOST_LABEL_MAX_BYTES 63
#define PASSWORD_MAX_BYTES 512
#define SUITE_MAX_BYTES 128

static const char lower[] = "abcdefghijklmnopqrstuvwxyz";
static const char upper[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
static const char digits[] = "0123456789";

static bool in_set(char c, const char *set)
{
	return c != '\0' && strchr(set, c);
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Is all of s made of letters, digits and the characters of `more`, with a length of min to max? */
static bool made_of(const char *s, const char *more, size_t min, size_t max)
{
	size_t n = strlen(s);

	if (n < min || n > max)
		return false;
	for (; *s; s++)
		if (!is_alnum(*s) && !in_set(*s, more))
			return false;
	return true;
}

bool syntax_is_package_name(const char *s)
{
	if (!made_of(s, "+-.", 2, SYNTAX_NAME_MAX_BYTES) || !is_alnum(s[0]))
		return false;
	for (; *s; s++)
		if (*s >= 'A' && *s <= 'Z')
			return false;
	return true;
}

bool syntax_is_package_version(const char *s)
{
	return made_of(s, ".+-:~", 1, SYNTAX_NAME_MAX_BYTES) && in_set(s[0], digits);
}

bool syntax_is_package_arch(const char *s)
{
	return made_of(s, "-", 1, 32) && is_alnum(s[0]);
}

bool syntax_is_unit_name(const char *s)
{
	return made_of(s, ":-_.\\@", 1, SYNTAX_NAME_MAX_BYTES) && s[0] != '.' && s[0] != '-' && s[0] != '@';
}

bool syntax_unit_has_suffix(const char *s)
{
	static const char *const suffixes[] = { ".service", ".socket", ".device", ".mount", ".automount", ".swap", ".target",
		".path", ".timer", ".slice", ".scope" };
	size_t n = strlen(s);

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
		size_t m = strlen(suffixes[i]);

		if (n > m && strcmp(s + n - m, suffixes[i]) == 0)
			return true;
	}
	return false;
}

bool syntax_is_user_name(const char *s)
{
	if (!made_of(s, "_-", 1, USER_NAME_MAX_BYTES) || s[strcspn(s, upper)] != '\0')
		return false;
	return in_set(s[0], lower) || s[0] == '_';
}

bool syntax_is_user_number(const char *s)
{
	uint64_t value = 0;
	size_t n = strlen(s);

	if (n == 0 || n > 10 || s[strspn(s, digits)] != '\0' || (n > 1 && s[0] == '0'))
		return false;
	for (; *s; s++)
		value = value * 10 + (uint64_t)(*s - '0');
	return value < UINT32_MAX;
}

bool syntax_is_password(const char *s)
{
	const char *second;

	if (strcmp(s, "locked") == 0 || strcmp(s, "empty") == 0)
		return true;
	if (s[0] != '$' || !made_of(s, "$./,=+*-_", 4, PASSWORD_MAX_BYTES))
		return false;
	second = strchr(s + 1, '$');
	return second && second > s + 1 && second[1] != '\0';
}

bool syntax_is_hostname(const char *s)
{
	size_t label = 0;

	if (!made_of(s, "-.", 1, HOST_NAME_MAX_BYTES))
		return false;
	for (size_t i = 0;; i++) {
		if (s[i] != '.' && s[i] != '\0') {
			label++;
			continue;
		}
		if (label == 0 || label > HOST_LABEL_MAX_BYTES || s[i - 1] == '-' || s[i - label] == '-')
			return false;
		if (s[i] == '\0')
			return true;
		label = 0;
	}
}

bool syntax_is_line(const char *s, size_t max_bytes)
{
	size_t n = strlen(s);

	if (n == 0 || n > max_bytes)
		return false;
	/* Controls: C0, DEL, and C1 as UTF-8 writes them, some of which terminals obey. */
	for (; *s; s++)
		if ((unsigned char)*s < ' ' || *s == 0x7f ||
			((unsigned char)s[0] == 0xc2 && (unsigned char)s[1] >= 0x80 && (unsigned char)s[1] < 0xa0))
			return false;
	return true;
}

bool syntax_is_plain_name(const char *s)
{
	return made_of(s, "._-", 1, SYNTAX_NAME_MAX_BYTES) && is_alnum(s[0]);
}

bool syntax_is_suite(const char *s)
{
	return made_of(s, "+-._~/", 1, SUITE_MAX_BYTES) && s[0] != '/' && !syntax_path_leaves(s);
}

bool syntax_is_http_url(const char *s)
{
	enum url_kind kind = url_kind(s);
	const char *host;
	size_t n;

	if ((kind != URL_HTTP && kind != URL_HTTPS) || strlen(s) >= URL_MAX_BYTES)
		return false;
	for (const char *p = s; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return false;
	host = strstr(s, "://") + 3;
	n = strcspn(host, "/?#");
	for (const char *p = host; p < host + n; p++)
		if (*p == '@') {
			n -= (size_t)(p + 1 - host);
			host = p + 1;
		}
	return n > 0 && host[0] != ':';
}

bool syntax_is_fingerprint(const char *s)
{
	size_t n = strspn(s, "0123456789ABCDEF");

	return s[n] == '\0' && (n == 40 || n == 64);
}

bool syntax_parse_snapshot(const char *s, int64_t *ret_seconds)
{
	static const char pattern[] = "dddddddd" "T" "dddddd" "Z";
	struct tm tm = { 0 };
	struct tm back;
	time_t t;

	if (strlen(s) != strlen(pattern))
		return false;
	for (size_t i = 0; s[i]; i++)
		if (pattern[i] == 'd' ? !in_set(s[i], digits) : s[i] != pattern[i])
			return false;
	if (!strptime(s, "%Y%m%dT%H%M%SZ", &tm))
		return false;
	/* A day that does not exist would be carried over into the next month. */
	back = tm;
	t = timegm(&back);
	if (back.tm_mday != tm.tm_mday || back.tm_mon != tm.tm_mon || tm.tm_sec > 59 || t < 0)
		return false;
	if (ret_seconds)
		*ret_seconds = (int64_t)t;
	return true;
}

/* Read decimal digits without a useless leading zero; *ret_rest points behind them. */
static bool parse_number(const char *s, uint64_t *ret, const char **ret_rest)
{
	uint64_t value = 0;
	size_t n = strspn(s, digits);

	if (n == 0 || (n > 1 && s[0] == '0'))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!checked_mul_u64(value, 10, &value) || !checked_add_u64(value, (uint64_t)(s[i] - '0'), &value))
			return false;
	*ret = value;
	*ret_rest = s + n;
	return true;
}

bool syntax_parse_size(const char *s, uint64_t *ret_bytes)
{
	static const char units[] = "KMGT";
	const char *rest, *unit;
	uint64_t value, scale = 1;

	if (!parse_number(s, &value, &rest))
		return false;
	if (*rest) {
		unit = strchr(units, *rest);
		if (!unit || (rest[1] != '\0' && strcmp(rest + 1, "iB") != 0))
			return false;
		scale = (uint64_t)1 << (10 * (unit - units + 1));
	}
	if (!checked_mul_u64(value, scale, &value))
		return false;
	*ret_bytes = value;
	return true;
}

bool syntax_parse_duration(const char *s, uint64_t *ret_ms)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60 * 1000 }, { "h", 60 * 60 * 1000 } };
	const char *rest;
	uint64_t value;

	if (!parse_number(s, &value, &rest))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (strcmp(rest, units[i].unit) == 0 && checked_mul_u64(value, units[i].ms, &value)) {
			*ret_ms = value;
			return true;
		}
	return false;
}

bool syntax_parse_mode(const char *s, unsigned *ret)
{
	size_t n = strlen(s);
	unsigned value = 0;

	if (n < 1 || n > 5 || (n == 5 && s[0] != '0') || s[strspn(s, "01234567")] != '\0')
		return false;
	for (; *s; s++)
		value = value * 8 + (unsigned)(*s - '0');
	*ret = value;
	return true;
}

bool syntax_path_leaves(const char *s)
{
	size_t depth = 0;

	if (s[0] == '/')
		return true;
	while (*s) {
		size_t n = strcspn(s, "/");

		if (n == 2 && s[0] == '.' && s[1] == '.') {
			if (depth == 0)
				return true;
			depth--;
		} else if (n > 0 && !(n == 1 && s[0] == '.')) {
			depth++;
		}
		s += n + (s[n] == '/');
	}
	return false;
}

bool syntax_is_normal_relative(const char *s)
{
	if (s[0] == '\0' || strlen(s) >= PATH_MAX)
		return false;
	for (;;) {
		size_t n = strcspn(s, "/");

		if (n == 0 || (n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
			return false;
		for (size_t i = 0; i < n; i++)
			if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
				return false;
		if (s[n] == '\0')
			return true;
		s += n + 1;
	}
}
