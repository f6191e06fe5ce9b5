#include "plan/question.h"

#include <string.h>

json_t *question_digest(const struct digest *d)
{
	char hex[DIGEST_HEX_SIZE];

	return d && d->algorithm != DIGEST_NONE ? json_string(digest_hex(d, hex)) : json_null();
}

json_t *question_text(const char *s)
{
	return s ? json_string(s) : json_null();
}

json_t *question_texts(const struct strv *list, bool sorted)
{
	_cleanup_strv_ struct strv copy = { 0 };
	json_t *array = json_array();

	if (!array || strv_extend(&copy, list) < 0)
		goto fail;
	if (sorted) {
		strv_sort(&copy);
		strv_uniq(&copy);
	}
	for (size_t i = 0; i < copy.n; i++)
		if (json_array_append_new(array, json_string(copy.items[i])) < 0)
			goto fail;
	return array;
fail:
	json_decref(array);
	return NULL;
}

json_t *question_partition(const struct plan_partition *partition)
{
	switch (partition->by) {
	case PLAN_PARTITION_NUMBER:
		return json_pack("{s:s, s:I}", "by", "number", "number", (json_int_t)partition->number);
	case PLAN_PARTITION_LABEL:
		return json_pack("{s:s, s:s}", "by", "label", "value", partition->value);
	case PLAN_PARTITION_PARTUUID:
		return json_pack("{s:s, s:s}", "by", "partuuid", "value", partition->value);
	case PLAN_PARTITION_DISCOVER:
		break;
	}
	return json_pack("{s:s}", "by", "discovery");
}

json_t *question_debs(const struct plan *p, enum arch arch, const struct plan_local_inputs *locals)
{
	_cleanup_strv_ struct strv paths = { 0 }, digests = { 0 };

	if (plan_debs(p, arch, &paths) < 0)
		return NULL;
	for (size_t i = 0; i < paths.n; i++) {
		_cleanup_free_ char *slot = NULL;
		const struct plan_local_input *input;
		char hex[DIGEST_HEX_SIZE];

		if (asprintf(&slot, "deb:%s", paths.items[i]) < 0)
			return NULL;
		input = plan_local_input_find(locals, slot);
		if (!input || strv_add(&digests, digest_hex(&input->digest, hex)) < 0)
			return NULL;
	}
	return question_texts(&digests, true);
}
