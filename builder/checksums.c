#include "builder/checksums.h"

#include <stdbool.h>
#include <string.h>

/* A line that is well-formed. */
struct line {
	const char *hex, *name;
	size_t hex_len, name_len;
	enum digest_algorithm algorithm; /* DIGEST_NONE: one that is not used here */
	bool escaped;
};

static bool is_hex(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static size_t count_hex(const char *s, size_t len)
{
	size_t n = 0;

	while (n < len && is_hex(s[n]))
		n++;
	return n;
}

/* Digests come in many sizes, but in whole words of 32 bits; what is shorter than MD5 is a word that looks like one. */
static bool is_digest_len(size_t n)
{
	return n >= 32 && n <= 2 * DIGEST_MAX_BYTES && n % 8 == 0;
}

static bool parse_gnu(const char *s, size_t len, struct line *ret)
{
	size_t n = count_hex(s, len);

	if (!is_digest_len(n) || n == len || !is_blank(s[n]))
		return false;
	ret->hex = s;
	ret->hex_len = n;
	ret->algorithm = n == 64 ? DIGEST_SHA256 : n == 128 ? DIGEST_SHA512 : DIGEST_NONE;
	n++;
	if (n < len && (s[n] == ' ' || s[n] == '*'))
		n++;
	ret->name = s + n;
	ret->name_len = len - n;
	return ret->name_len > 0;
}

static enum digest_algorithm algorithm_of(const char *tag, size_t len)
{
	static const struct {
		const char *tag;
		enum digest_algorithm algorithm;
	} known[] = { { "SHA256", DIGEST_SHA256 }, { "SHA2-256", DIGEST_SHA256 }, { "SHA512", DIGEST_SHA512 },
		{ "SHA2-512", DIGEST_SHA512 } };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strlen(known[i].tag) == len && memcmp(known[i].tag, tag, len) == 0)
			return known[i].algorithm;
	return DIGEST_NONE;
}

/* "TAG (name) = hex". The name may have parentheses; the last one is followed by the digest. */
static bool parse_bsd(const char *s, size_t len, struct line *ret)
{
	const char *open = memchr(s, '(', len), *close = memrchr(s, ')', len), *end = s + len, *p;
	size_t tag_len;

	if (!open || !close || close <= open + 1)
		return false;
	tag_len = (size_t)(open - s);
	if (tag_len > 0 && s[tag_len - 1] == ' ')
		tag_len--;
	for (size_t i = 0; i < tag_len; i++)
		if (!((s[i] >= 'A' && s[i] <= 'Z') || (s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9') ||
			    s[i] == '-' || s[i] == '/'))
			return false;
	for (p = close + 1; p < end && is_blank(*p);)
		p++;
	if (tag_len == 0 || p == end || *p++ != '=')
		return false;
	while (p < end && is_blank(*p))
		p++;
	ret->hex = p;
	ret->hex_len = (size_t)(end - p);
	ret->name = open + 1;
	ret->name_len = (size_t)(close - open) - 1;
	ret->algorithm = algorithm_of(s, tag_len);
	if (count_hex(ret->hex, ret->hex_len) != ret->hex_len || !is_digest_len(ret->hex_len))
		return false;
	return ret->algorithm == DIGEST_NONE || ret->hex_len == 2 * digest_size_bytes(ret->algorithm);
}

static bool parse_line(const char *s, size_t len, struct line *ret)
{
	*ret = (struct line){ 0 };
	if (len > 0 && s[len - 1] == '\r')
		len--;
	while (len > 0 && is_blank(*s)) {
		s++;
		len--;
	}
	if (len > 0 && *s == '\\') {
		ret->escaped = true;
		s++;
		len--;
	}
	return parse_gnu(s, len, ret) || parse_bsd(s, len, ret);
}

/* One character of a name, unescaped. Returns how many it took; 0: it is badly escaped. */
static size_t next_char(const char *s, size_t len, bool escaped, char *ret)
{
	*ret = s[0];
	if (!escaped || s[0] != '\\')
		return 1;
	if (len < 2 || (s[1] != '\\' && s[1] != 'n' && s[1] != 'r'))
		return 0;
	*ret = s[1] == 'n' ? '\n' : s[1] == 'r' ? '\r' : '\\';
	return 2;
}

static bool name_equals(const struct line *line, size_t from, const char *name)
{
	size_t i = from, n;
	char c;

	for (; i < line->name_len; i += n, name++) {
		n = next_char(line->name + i, line->name_len - i, line->escaped, &c);
		if (n == 0 || c == '\0' || c != *name)
			return false;
	}
	return *name == '\0';
}

static bool is_of(const struct line *line, const char *name)
{
	return name_equals(line, 0, name) ||
		(line->name_len > 2 && line->name[0] == '.' && line->name[1] == '/' && name_equals(line, 2, name));
}

static int take_digest(const struct line *line, const char *name, const char *label, struct checksums_entry *found,
	struct err *e)
{
	struct digest *slot = line->algorithm == DIGEST_SHA256 ? &found->sha256 : &found->sha512, digest;
	char text[DIGEST_HEX_SIZE], a[DIGEST_HEX_SIZE], b[DIGEST_HEX_SIZE];

	(void)snprintf(text, sizeof(text), "%.*s", (int)line->hex_len, line->hex);
	if (digest_parse_hex(line->algorithm, text, &digest) < 0)
		return err_set_kind(e, ERR_KIND_DEFECT, -EINVAL, "`%s` is no %s", text, digest_algorithm_name(line->algorithm));
	if (slot->algorithm != DIGEST_NONE && !digest_equal(slot, &digest))
		return err_set_kind(e, ERR_KIND_INPUT, -ENOTUNIQ, "%s lists `%s` with two digests, the %s %s and %s", label, name,
			digest_algorithm_name(line->algorithm), digest_hex(slot, a), digest_hex(&digest, b));
	*slot = digest;
	return 0;
}

static int not_listed(const char *name, const char *label, size_t n_lines, bool weak, const struct line *first, struct err *e)
{
	char other[128];

	if (n_lines == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s is no list of checksums: it has no line such as "
			"`<SHA-256 or SHA-512>  <name>`", label);
	if (weak)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "%s lists `%s` without a SHA-256 or SHA-512", label, name);
	return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "%s does not list `%s`, but %zu other%s (such as `%s`)", label, name, n_lines,
		n_lines == 1 ? "" : "s", err_sanitize(other, sizeof(other), first->name, first->name_len));
}

int checksums_find(const char *text, size_t len, const char *name, const char *label, struct checksums_entry *ret,
	struct err *e)
{
	struct checksums_entry found = { 0 };
	struct line line, first = { 0 };
	size_t n_lines = 0, n_bytes;
	bool weak = false;

	if (len > CHECKSUMS_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s has more than %d bytes", label, CHECKSUMS_MAX_BYTES);
	for (const char *p = text, *end = text + len; p < end; p += n_bytes + 1) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		int r;

		n_bytes = (size_t)((newline ? newline : end) - p);
		if (n_bytes > CHECKSUMS_MAX_LINE_BYTES)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s is no list of checksums: it has a line of more than %d "
				"bytes", label, CHECKSUMS_MAX_LINE_BYTES);
		if (!parse_line(p, n_bytes, &line))
			continue;
		if (n_lines++ == 0)
			first = line;
		if (!is_of(&line, name))
			continue;
		weak |= line.algorithm == DIGEST_NONE;
		r = line.algorithm == DIGEST_NONE ? 0 : take_digest(&line, name, label, &found, e);
		if (r < 0)
			return r;
	}
	if (found.sha256.algorithm == DIGEST_NONE && found.sha512.algorithm == DIGEST_NONE)
		return not_listed(name, label, n_lines, weak, &first, e);
	*ret = found;
	return 0;
}

static int hex_value(char c)
{
	return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

/* Decode (s, len) from percent-encoding. NULL when out of memory; *ret_ok: no escape made a '/' or a NUL of what was none. */
static char *decode(const char *s, size_t len, bool *ret_ok)
{
	char *text = malloc(len + 1);
	size_t n = 0;

	*ret_ok = true;
	for (size_t i = 0; text && i < len; i++) {
		char c = s[i];

		if (c == '%' && len - i > 2 && is_hex(s[i + 1]) && is_hex(s[i + 2])) {
			c = (char)(hex_value(s[i + 1]) << 4 | hex_value(s[i + 2]));
			i += 2;
			*ret_ok &= c != '/' && c != '\0';
		}
		text[n++] = c;
	}
	if (text)
		text[n] = '\0';
	return text;
}

int checksums_name_of_url(const char *url, char **ret, struct err *e)
{
	size_t len = strcspn(url, "?#"), start = len;
	const char *scheme = strstr(url, "://"), *path = scheme ? strchr(scheme + 3, '/') : url;
	_cleanup_free_ char *name = NULL;
	bool ok;

	if (!path || path >= url + len)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "the address names no file");
	while (start > (size_t)(path - url) && url[start - 1] != '/')
		start--;
	name = decode(url + start, len - start, &ok);
	if (!name)
		return err_set(e, -ENOMEM, "out of memory");
	if (!ok)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "the last part of the address is no file name");
	if (!name[0] || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "the address names no file: it ends in `/`");
	*ret = take_ptr(name);
	return 0;
}

int checksums_path_beneath(const char *url, const char *list_url, char **ret)
{
	size_t len = strcspn(url, "?#"), folder_len = strcspn(list_url, "?#");
	_cleanup_free_ char *path = NULL;
	bool ok;

	while (folder_len > 0 && list_url[folder_len - 1] != '/')
		folder_len--;
	if (len <= folder_len || strncmp(url, list_url, folder_len) != 0 || !memchr(url + folder_len, '/', len - folder_len))
		return -ENOENT;
	path = decode(url + folder_len, len - folder_len, &ok);
	if (!path)
		return -ENOMEM;
	if (!ok)
		return -ENOENT;
	*ret = take_ptr(path);
	return 0;
}
