#include "plan/json.h"

json_t *json_of_digest(const struct digest *d)
{
	char hex[DIGEST_HEX_SIZE];

	return d->algorithm == DIGEST_NONE ? json_null() : json_string(digest_hex(d, hex));
}

json_t *json_of_string(const char *s)
{
	return s ? json_string(s) : json_null();
}

json_t *json_of_strv(const struct strv *v)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < v->n; i++)
		if (json_array_append_new(array, json_string(v->items[i])) < 0) {
			json_decref(array);
			return NULL;
		}
	return array;
}

json_t *json_of_set(const struct strv *v)
{
	_cleanup_strv_ struct strv sorted = { 0 };

	if (strv_extend(&sorted, v) < 0)
		return NULL;
	strv_sort(&sorted);
	strv_uniq(&sorted);
	return json_of_strv(&sorted);
}
