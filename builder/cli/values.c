#include "builder/cli/values.h"
#include "builder/cli/terminal.h"

#include <string.h>

void value_append_text(struct buf *into, const char *text, size_t len)
{
	char clean[VALUE_LINE_MAX_BYTES + 1];

	(void)err_sanitize(clean, sizeof(clean), text, len);
	(void)!buf_append_str(into, clean);
	if (len > VALUE_LINE_MAX_BYTES)
		(void)!buf_append_str(into, "...");
}

static bool is_digest(const char *text)
{
	return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

void value_append_string(struct buf *into, const char *text)
{
	char clean[VALUE_MAX_BYTES + 1];

	if (is_digest(text)) {
		(void)!buf_append(into, text, VALUE_DIGEST_SHOWN);
		return;
	}
	(void)!buf_append_str(into, err_sanitize(clean, sizeof(clean), text, strlen(text)));
	if (strlen(text) > VALUE_MAX_BYTES)
		(void)!buf_append_str(into, "...");
}

static void append_list(struct buf *into, enum key_input input, const char *field, const json_t *list)
{
	size_t i;
	json_t *item;

	if (json_array_size(list) == 0)
		(void)!buf_append_str(into, "none");
	json_array_foreach(list, i, item)
	{
		(void)!buf_append_str(into, i ? ", " : "");
		if (into->len > VALUE_MAX_BYTES || json_is_array(item)) {
			(void)!buf_appendf(into, "... (%zu in all)", json_array_size(list));
			return;
		}
		value_append(into, input, field, item);
	}
}

/* A value that has members: those that this version knows in words, others as JSON. */
static void append_object(struct buf *into, const json_t *value)
{
	static const struct {
		const char *member, *word;
	} words[] = { { "tree", "the folder " }, { "sha256", "the hash " }, { "number", "number " }, { "label", "LABEL=" },
		{ "partuuid", "PARTUUID=" } };
	_cleanup_free_ char *text = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(words) && json_object_size(value) == 1; i++) {
		const json_t *member = json_object_get(value, words[i].member);

		if (!json_is_string(member) && !json_is_integer(member))
			continue;
		(void)!buf_append_str(into, words[i].word);
		if (json_is_integer(member))
			(void)!buf_appendf(into, "%lld", (long long)json_integer_value(member));
		else
			value_append_string(into, json_string_value(member));
		return;
	}
	text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
	value_append_string(into, text ? text : "?");
}

void value_append(struct buf *into, enum key_input input, const char *field, const json_t *value)
{
	bool is_partition = input == KEY_INPUT_BASE && strcmp(field, "partition") == 0;
	bool is_size = input == KEY_INPUT_IMAGE && strcmp(field, "size") == 0;
	char text[32];

	if (!value || json_is_null(value))
		(void)!buf_append_str(into, is_partition ? "the one that is found" : "none");
	else if (json_is_string(value))
		value_append_string(into, json_string_value(value));
	else if (json_is_boolean(value))
		(void)!buf_append_str(into, json_is_true(value) ? "true" : "false");
	else if (json_is_integer(value) && is_size && json_integer_value(value) > 0 && json_integer_value(value) % (1 << 20) == 0)
		(void)!buf_appendf(into, "%lld MiB", (long long)json_integer_value(value) >> 20);
	else if (json_is_integer(value) && is_size && json_integer_value(value) > 0)
		(void)!buf_append_str(into, format_bytes(text, (uint64_t)json_integer_value(value)));
	else if (json_is_integer(value))
		(void)!buf_appendf(into, "%lld", (long long)json_integer_value(value));
	else if (json_is_array(value))
		append_list(into, input, field, value);
	else
		append_object(into, value);
}

void value_append_thing(struct buf *into, enum key_input input, const json_t *thing)
{
	static const char *const unsaid[] = { "path", "name" };
	json_t *value, *object = (json_t *)(uintptr_t)thing;
	const char *member, *separator = "";

	if (!json_is_object(thing)) {
		value_append(into, input, "", thing);
		return;
	}
	json_object_foreach(object, member, value)
	{
		bool says_nothing = json_is_null(value) || json_is_false(value) || (json_is_array(value) && json_array_size(value) == 0);

		for (size_t i = 0; i < ARRAY_SIZE(unsaid); i++)
			says_nothing = says_nothing || strcmp(member, unsaid[i]) == 0;
		if (says_nothing)
			continue;
		(void)!buf_append_str(into, separator);
		value_append_string(into, member);
		(void)!buf_append_char(into, ' ');
		value_append(into, input, member, value);
		separator = ", ";
	}
}
