#include "builder/packages/place.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

int pkg_snapshot_check(const char *snapshot, struct err *e)
{
	static const char form[] = "ddddddddTddddddZ";
	bool good = strlen(snapshot) == strlen(form);

	for (size_t i = 0; good && form[i]; i++)
		good = form[i] == 'd' ? isdigit((unsigned char)snapshot[i]) != 0 : snapshot[i] == form[i];
	return good ? 0 : err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "the snapshot `%.64s` is no time such as 20261101T000000Z",
		snapshot);
}

/* The host of a URI, user information left out. */
static const char *host_of(const char *uri, size_t *ret_len)
{
	const char *scheme = strstr(uri, "://"), *host = scheme ? scheme + 3 : uri, *at;
	size_t len = strcspn(host, "/");

	at = memrchr(host, '@', len);
	if (at) {
		len -= (size_t)(at + 1 - host);
		host = at + 1;
	}
	*ret_len = len;
	return host;
}

const char *pkg_archive_name(const char *uri, size_t *ret_len)
{
	size_t host_len;
	const char *host = host_of(uri, &host_len), *path = host + host_len;
	static const char security[] = "security.debian.org";
	size_t end = strlen(path), start;

	if (end <= 1 && host_len == strlen(security) && strncasecmp(host, security, host_len) == 0) {
		*ret_len = strlen("debian-security");
		return "debian-security";
	}
	while (end > 0 && path[end - 1] == '/')
		end--;
	start = end;
	while (start > 0 && path[start - 1] != '/')
		start--;
	*ret_len = end - start;
	return path + start;
}

static bool is(const char *s, size_t len, const char *text)
{
	return len == strlen(text) && strncasecmp(s, text, len) == 0;
}

int pkg_snapshot_place(const char *uri, const char *snapshot, char **ret, struct err *e)
{
	static const char debian[] = "https://snapshot.debian.org/archive/", ubuntu[] = "https://snapshot.ubuntu.com/";
	size_t host_len, name_len;
	const char *host = host_of(uri, &host_len), *name = pkg_archive_name(uri, &name_len);
	int n = 0;

	*ret = NULL;
	if (is(host, host_len, "snapshot.debian.org") || is(host, host_len, "snapshot.ubuntu.com")) {
		/* .../archive/debian/TIME, .../ubuntu/TIME: another time */
		if (name_len == 16 && isdigit((unsigned char)name[0]))
			n = asprintf(ret, "%.*s%s", (int)(name - uri), uri, snapshot);
		else
			n = asprintf(ret, "%s/%s", uri, snapshot);
	} else if (is(host, host_len, "security.debian.org")) {
		n = asprintf(ret, "%sdebian-security/%s", debian, snapshot);
	} else if (is(name, name_len, "debian") || is(name, name_len, "debian-security") || is(name, name_len, "debian-ports") ||
		is(name, name_len, "debian-debug")) {
		n = asprintf(ret, "%s%.*s/%s", debian, (int)name_len, name, snapshot);
	} else if (is(name, name_len, "ubuntu") || is(name, name_len, "ubuntu-ports")) {
		n = asprintf(ret, "%subuntu/%s", ubuntu, snapshot);
	}
	if (n >= 0)
		return 0;
	*ret = NULL;
	return out_of_memory(e);
}

/* A URI from its host on, for comparing. */
static const char *without_scheme(const char *uri)
{
	const char *scheme = strstr(uri, "://");
	size_t ignored;

	return scheme ? host_of(uri, &ignored) : uri;
}

/* Where `uri` goes on behind `origin`, or NULL when it is not beneath it. */
static const char *behind(const char *uri, const char *origin)
{
	const char *u = without_scheme(uri), *o = without_scheme(origin);
	size_t len = strlen(o);

	while (len > 0 && o[len - 1] == '/')
		len--;
	if (len == 0 || strncasecmp(u, o, len) != 0 || (u[len] != '\0' && u[len] != '/'))
		return NULL;
	return u + len;
}

static int add(struct strv *ret, const char *head, const char *tail, struct err *e)
{
	_cleanup_free_ char *joined = NULL;
	size_t len = strlen(head);

	while (len > 0 && head[len - 1] == '/')
		len--;
	if (asprintf(&joined, "%.*s%s", (int)len, head, tail) < 0) {
		joined = NULL;
		return out_of_memory(e);
	}
	if (strv_contains(ret, joined))
		return 0;
	return strv_add(ret, joined) < 0 ? out_of_memory(e) : 0;
}

int pkg_mirror_apply(const char *uri, const struct pkg_mirror *rule, struct strv *ret, struct err *e)
{
	const char *rest = behind(uri, rule->origin);

	return rest ? add(ret, rule->url, rest, e) : 0;
}

int pkg_host_mirrors_of(const char *uri, const struct strv *host_mirrors, struct strv *ret, struct err *e)
{
	size_t name_len;
	const char *name = pkg_archive_name(uri, &name_len);
	int r = 0;

	for (size_t i = 0; r == 0 && name_len > 0 && i < host_mirrors->n; i++) {
		size_t len;
		const char *other = pkg_archive_name(host_mirrors->items[i], &len);

		if (len == name_len && strncasecmp(other, name, len) == 0)
			r = add(ret, host_mirrors->items[i], "", e);
	}
	return r;
}

int pkg_mirror_places(const char *uri, const struct pkg_mirror *rules, size_t n_rules, const struct strv *host_mirrors,
	struct strv *ret, struct err *e)
{
	size_t n_before = ret->n;
	int r = 0;

	for (size_t i = 0; i < n_rules; i++)
		if (behind(uri, rules[i].origin))
			return pkg_mirror_apply(uri, &rules[i], ret, e);
	if (host_mirrors)
		r = pkg_host_mirrors_of(uri, host_mirrors, ret, e);
	if (r < 0)
		return r;
	return ret->n > n_before ? 0 : add(ret, uri, "", e);
}
