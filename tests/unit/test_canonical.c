/* Canonical JSON against the examples of RFC 8785. */
#include "plan/canonical.h"
#include "plan/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int canonical_of(const char *text, struct buf *into)
{
	_cleanup_json_ json_t *j = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	struct err e = ERR_INIT;

	assert_non_null(j);
	return canonical_append(j, into, &e);
}

static void assert_canonical(const char *text, const char *want)
{
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 16);

	assert_int_equal(canonical_of(text, &b), 0);
	assert_string_equal(buf_str(&b), want);
}

static void members_are_sorted_by_utf16_units(void **state)
{
	(void)state;
	/* RFC 8785 section 3.2.3. */
	assert_canonical("{\"\\u20ac\": \"Euro Sign\", \"\\r\": \"Carriage Return\", \"\\ufb33\": \"Hebrew Letter Dalet With Dagesh\","
			 "\"1\": \"One\", \"\\ud83d\\ude00\": \"Emoji: Grinning Face\", \"\\u0080\": \"Control\","
			 "\"\\u00f6\": \"Latin Small Letter O With Diaeresis\"}",
		"{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\xc2\x80\":\"Control\","
		"\"\xc3\xb6\":\"Latin Small Letter O With Diaeresis\",\"\xe2\x82\xac\":\"Euro Sign\","
		"\"\xf0\x9f\x98\x80\":\"Emoji: Grinning Face\",\"\xef\xac\xb3\":\"Hebrew Letter Dalet With Dagesh\"}");
	assert_canonical("{\"b\": 1, \"a\": 2, \"aa\": 3, \"\": 4}", "{\"\":4,\"a\":2,\"aa\":3,\"b\":1}");
}

static void strings_are_escaped_in_one_way(void **state)
{
	(void)state;
	assert_canonical("\"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\"",
		"\"\xe2\x82\xac$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"");
	assert_canonical("\"\\u0000\\u0001\\u001f\\u007f\\b\\t\\f\\r\"", "\"\\u0000\\u0001\\u001f\x7f\\b\\t\\f\\r\"");
}

static void literals_and_nesting(void **state)
{
	(void)state;
	assert_canonical("[ null, true, false, [ ], { }, -0, 9007199254740991 ]",
		"[null,true,false,[],{},0,9007199254740991]");
}

static void what_has_no_canonical_form_here_is_refused(void **state)
{
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 16), deep = BUF_INIT(1 << 16);

	(void)state;
	assert_int_equal(canonical_of("1.5", &b), -EINVAL);
	assert_int_equal(canonical_of("9007199254740992", &b), -EINVAL);
	assert_int_equal(canonical_of("-9007199254740992", &b), -EINVAL);
	for (unsigned more = 0; more < 2; more++) {
		buf_reset(&deep);
		for (unsigned i = 0; i < CANONICAL_MAX_DEPTH + more; i++)
			assert_int_equal(buf_append_char(&deep, '['), 0);
		for (unsigned i = 0; i < CANONICAL_MAX_DEPTH + more; i++)
			assert_int_equal(buf_append_char(&deep, ']'), 0);
		assert_int_equal(canonical_of(buf_str(&deep), &b), more ? -EINVAL : 0);
	}
	b.max_bytes = b.len + 3;
	assert_int_equal(canonical_of("\"abc\"", &b), -E2BIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(members_are_sorted_by_utf16_units),
		cmocka_unit_test(strings_are_escaped_in_one_way),
		cmocka_unit_test(literals_and_nesting),
		cmocka_unit_test(what_has_no_canonical_form_here_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
