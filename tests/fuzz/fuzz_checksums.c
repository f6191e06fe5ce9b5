/* A publisher's list of checksums. The first line is the name that is looked for, the rest the list. */
#include "builder/checksums.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
	size_t name_len = newline ? (size_t)(newline - data) : size;
	_cleanup_free_ char *line = strndup(size ? (const char *)data : "", name_len), *name = NULL, *path = NULL;
	struct checksums_entry entry = { 0 };
	struct err e = ERR_INIT;
	int r;

	if (!line)
		return 0;
	if (checksums_name_of_url(line, &name, &e) == 0 && (!name[0] || strchr(name, '/')))
		__builtin_trap();
	err_clear(&e);
	if (checksums_path_beneath(line, "https://x.org/SUMS", &path) == 0 && !strchr(path, '/'))
		__builtin_trap();
	/* At the end of an allocation of its own, so that a byte too far is seen. */
	r = newline ? checksums_find((const char *)newline + 1, size - name_len - 1, line, "list", &entry, &e) :
		      checksums_find("", 0, line, "list", &entry, &e);
	if (r == 0 && entry.sha256.algorithm != DIGEST_SHA256 && entry.sha512.algorithm != DIGEST_SHA512)
		__builtin_trap();
	if (r < 0 && (!e.message[0] || (e.kind != ERR_KIND_INPUT)))
		__builtin_trap();
	return 0;
}
