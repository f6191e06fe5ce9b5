/* Any two JSON values, one a line, as key documents: the list of what differs is empty exactly when they are equal. */
#include "lib/cleanup.h"
#include "plan/json.h"
#include "plan/key_diff.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data, *line = size ? memchr(text, '\n', size) : NULL;
	size_t first = line ? (size_t)(line - text) : size;
	size_t second = line ? size - first - 1 : 0;
	_cleanup_json_ json_t *a = json_loadb(text, first, JSON_DECODE_ANY, NULL);
	_cleanup_json_ json_t *b = line ? json_loadb(line + 1, second, JSON_DECODE_ANY, NULL) : NULL;
	_cleanup_key_changes_ struct key_changes there = { 0 }, back = { 0 };
	const struct key_side old_side = { a, 1 }, new_side = { b, 1 };
	struct err e = ERR_INIT;
	int r;

	if (!a || !b)
		return 0;
	r = key_diff(&old_side, &new_side, NULL, &there, &e);
	assert(r == 0);
	r = key_diff(&new_side, &old_side, NULL, &back, &e);
	assert(r == 0);
	assert((there.n == 0) == (bool)json_equal(a, b));
	assert((back.n == 0) == (there.n == 0));
	assert(key_changes_count_inputs(&there) <= there.n);
	return 0;
}
