/* Any bytes as TOML: no crash, and what is read can be walked, located and found again. */
#include "lib/cleanup.h"
#include "plan/toml.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct toml_value *v, size_t size)
{
	assert(v->offset <= size);
	switch (v->type) {
	case TOML_STRING:
		assert(v->string.data[v->string.len] == '\0');
		assert(v->string.len <= size);
		break;
	case TOML_ARRAY:
		for (size_t i = 0; i < v->array.n; i++)
			walk(v->array.items[i], size);
		break;
	case TOML_TABLE:
		for (size_t i = 0; i < v->table.n; i++) {
			const struct toml_member *m = &v->table.members[i];

			assert(m->key_offset <= size);
			if (strlen(m->key.data) == m->key.len)
				assert(toml_get(&v->table, m->key.data) == m->value);
			walk(m->value, size);
		}
		break;
	case TOML_OFFSET_DATETIME:
	case TOML_LOCAL_DATETIME:
	case TOML_LOCAL_DATE:
	case TOML_LOCAL_TIME:
		assert(v->datetime.hour < 24 && v->datetime.minute < 60 && v->datetime.nanosecond < 1000000000);
		break;
	case TOML_INTEGER:
	case TOML_FLOAT:
	case TOML_BOOLEAN:
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_toml_ struct toml_doc *doc = NULL;
	struct toml_position at = { 0, 0 };
	struct err e = ERR_INIT;
	int r = toml_parse((const char *)data, size, &doc, &at, &e);

	if (r < 0) {
		assert(!doc && e.code == r && e.message[0]);
		assert(r != -EBADMSG || (at.line >= 1 && at.column >= 1));
		return 0;
	}
	walk(toml_root(doc), size);
	return 0;
}
