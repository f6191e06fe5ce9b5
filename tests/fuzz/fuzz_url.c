/* URLs from plans and servers: what is shown of one must be free of its user info, and no part may be read past its end. */
#include "lib/url.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_printable(const char *s)
{
	while (*s >= 0x20 && *s < 0x7F)
		s++;
	return *s == '\0';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *url = strndup((const char *)data, size), *shown = NULL, *host = NULL, *path = NULL;
	struct err e = ERR_INIT;
	enum url_kind kind;

	if (!url)
		return 0;
	kind = url_kind(url);
	shown = url_redact(url);
	if (!shown)
		return 0;
	if ((kind == URL_HTTP || kind == URL_HTTPS) && strlen(url) < URL_MAX_BYTES) {
		const char *authority = strstr(shown, "://"), *query = strchr(shown, '?');

		if (!authority || memchr(authority + 3, '@', strcspn(authority + 3, "/?#\\")))
			__builtin_trap();
		if (query && is_printable(url) && strcmp(query, "?...") != 0) /* what is not printable becomes '?' too */
			__builtin_trap();
	}
	(void)!url_authority(url, &host, &e);
	(void)!url_local_path(url, &path, &e);
	return 0;
}
