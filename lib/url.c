#include "lib/url.h"
#include "lib/buf.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* Length of the scheme, without the colon; 0 when there is none. */
static size_t scheme_length(const char *url)
{
	size_t n = 0;

	if (!isalpha((unsigned char)url[0]))
		return 0;
	while (isalnum((unsigned char)url[n]) || url[n] == '+' || url[n] == '-' || url[n] == '.')
		n++;
	return n >= 2 && url[n] == ':' ? n : 0;
}

static bool scheme_is(const char *url, size_t len, const char *scheme)
{
	return strlen(scheme) == len && strncasecmp(url, scheme, len) == 0;
}

enum url_kind url_kind(const char *url)
{
	size_t len = scheme_length(url);

	if (len == 0)
		return URL_PATH;
	if (scheme_is(url, len, "file"))
		return URL_FILE;
	if (scheme_is(url, len, "http") && strncmp(url + len, "://", 3) == 0)
		return URL_HTTP;
	if (scheme_is(url, len, "https") && strncmp(url + len, "://", 3) == 0)
		return URL_HTTPS;
	return URL_OTHER;
}

/* Where the authority begins, and its length; NULL when the URL has none. */
static const char *find_authority(const char *url, size_t *ret_len)
{
	size_t len = scheme_length(url);
	const char *start = url + len + 3;

	if (len == 0 || strncmp(url + len, "://", 3) != 0)
		return NULL;
	*ret_len = strcspn(start, "/?#\\");
	return start;
}

/* The last '@' of the authority ends the user info: browsers and libcurl read it so, and a password may hold one. */
static size_t userinfo_length(const char *authority, size_t len)
{
	for (size_t i = len; i > 0; i--)
		if (authority[i - 1] == '@')
			return i;
	return 0;
}

char *url_redact(const char *url)
{
	struct buf out = BUF_INIT(2 * URL_MAX_BYTES);
	size_t authority_len = 0, len = strlen(url);
	const char *authority = find_authority(url, &authority_len), *rest;
	_cleanup_free_ char *clean = NULL;
	enum url_kind kind = url_kind(url);
	int r = 0;

	if (kind == URL_PATH || len >= URL_MAX_BYTES) {
		clean = malloc(len + 1);
		if (clean)
			(void)err_sanitize(clean, len + 1, url, kind == URL_PATH ? len : scheme_length(url));
		return take_ptr(clean);
	}
	rest = url;
	if (authority) {
		size_t user = userinfo_length(authority, authority_len);

		r = buf_append(&out, url, (size_t)(authority - url));
		if (r == 0)
			r = buf_append(&out, authority + user, authority_len - user);
		rest = authority + authority_len;
	}
	len = strcspn(rest, kind == URL_FILE ? "" : "?#");
	if (r == 0)
		r = buf_append(&out, rest, len);
	if (r == 0 && rest[len] == '?')
		r = buf_append_str(&out, "?...");
	if (r == 0) {
		clean = malloc(out.len + 1);
		if (clean)
			(void)err_sanitize(clean, out.len + 1, buf_str(&out), out.len);
	}
	buf_release(&out);
	return take_ptr(clean);
}

int url_authority(const char *url, char **ret, struct err *e)
{
	enum url_kind kind = url_kind(url);
	size_t len = 0, user, suffix;
	const char *authority = find_authority(url, &len), *default_port = kind == URL_HTTPS ? ":443" : ":80";
	char *host;

	if (!authority || (kind != URL_HTTP && kind != URL_HTTPS))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "not an http or https URL");
	user = userinfo_length(authority, len);
	authority += user;
	len -= user;
	suffix = strlen(default_port);
	if (len > suffix && strncmp(authority + len - suffix, default_port, suffix) == 0)
		len -= suffix;
	if (len == 0 || authority[0] == ':')
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "the URL names no host");
	host = strndup(authority, len);
	if (!host)
		return err_set(e, -ENOMEM, "out of memory");
	for (char *p = host; *p; p++)
		*p = (char)tolower((unsigned char)*p);
	*ret = host;
	return 0;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decode %XX in place. Returns false for a bad escape or an escaped NUL. */
static bool percent_decode(char *s)
{
	char *out = s;

	while (*s) {
		if (*s == '%') {
			int hi = hex_value(s[1]), lo = hi < 0 ? -1 : hex_value(s[2]);

			if (lo < 0 || (hi == 0 && lo == 0))
				return false;
			*out++ = (char)(hi << 4 | lo);
			s += 3;
		} else {
			*out++ = *s++;
		}
	}
	*out = '\0';
	return true;
}

int url_local_path(const char *url, char **ret, struct err *e)
{
	enum url_kind kind = url_kind(url);
	const char *path = url;
	_cleanup_free_ char *copy = NULL;

	if (kind == URL_FILE) {
		path = url + strlen("file:");
		if (strncmp(path, "//", 2) == 0) {
			path += 2;
			if (strncasecmp(path, "localhost/", 10) == 0)
				path += strlen("localhost");
			if (path[0] != '/')
				return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
					"`%s` names a file of another machine; write file:///path for a local one", url);
		}
	} else if (kind != URL_PATH) {
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "not the name of a local file");
	}
	if (path[0] == '\0')
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s` names no file", url);
	copy = strdup(path);
	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	if (kind == URL_FILE && !percent_decode(copy))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s` has a bad %%-escape; two hexadecimal digits belong "
								"after each %%", url);
	*ret = take_ptr(copy);
	return 0;
}
