/* What can be said about a URL without any network library: its kind, its host, and a form that may be shown.
 *
 * URLs come from plans and servers and may carry secrets: user info before the host and tokens in the query. Whatever
 * goes to a message, a label, a lock, a manifest or a log goes through url_redact() first. Pure; no state.
 *
 * SOURCE: RFC 3986 section 3; RFC 8089 (file). */
#ifndef IMGBUILD_LIB_URL_H
#define IMGBUILD_LIB_URL_H

#include "lib/err.h"

#include <stddef.h>

#define URL_MAX_BYTES 8192

enum url_kind {
	URL_PATH,  /* no scheme: a path of this machine */
	URL_FILE,  /* file: */
	URL_HTTP,  /* http:// */
	URL_HTTPS, /* https:// */
	URL_OTHER  /* any other scheme: not ours to fetch */
};

/* Tell the kind of a URL. A scheme is at least two characters, so that "c:x" is a path. */
enum url_kind url_kind(const char *url);

/* Copy the URL without user info, fragment, and the contents of its query ("?..." stays to say that there was one).
 * A path is copied as it is; control characters become '?'. Returns malloc'ed text, NULL when out of memory. */
char *url_redact(const char *url);

/* The part "host:port" of an http or https URL, lower case, without user info and without the default port.
 * Returns 0 with malloc'ed *ret; -EINVAL it has none. */
int url_authority(const char *url, char **ret, struct err *e) _must_check_;

/* The path of a file: URL (file:/x, file:///x, file://localhost/x, file:x), percent-decoded, or of a plain path.
 * Returns 0 with malloc'ed *ret; -EINVAL another host, a bad escape, or an escaped NUL. */
int url_local_path(const char *url, char **ret, struct err *e) _must_check_;

#endif
