/* Any bytes as a plan whose copy goes into an entry: where it is TOML, the copy is TOML too, and no URL in it has user info. */
#include "builder/companions.h"
#include "lib/cleanup.h"
#include "plan/toml.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct toml_value *v)
{
	for (size_t i = 0; v->type == TOML_TABLE && i < v->table.n; i++)
		check(v->table.members[i].value);
	for (size_t i = 0; v->type == TOML_ARRAY && i < v->array.n; i++)
		check(v->array.items[i]);
	if (v->type == TOML_STRING && (strncasecmp(v->string.data, "http://", 7) == 0 || strncasecmp(v->string.data, "https://", 8) == 0)) {
		const char *host = strstr(v->string.data, "://") + 3;

		assert(!memchr(host, '@', strcspn(host, "/?#")));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	_cleanup_buf_ struct buf kept = BUF_INIT(2 * TOML_MAX_BYTES);
	_cleanup_toml_ struct toml_doc *doc = NULL, *copy = NULL;
	struct err e = ERR_INIT;
	int r;

	if (toml_parse(text, size, &doc, NULL, &e) < 0)
		return 0;
	r = companions_redact_plan(text, size, &kept, &e);
	assert(r == 0 && kept.len <= size + 200);
	r = toml_parse(buf_str(&kept), kept.len, &copy, NULL, &e);
	assert(r == 0);
	check(toml_root(copy));
	return 0;
}
