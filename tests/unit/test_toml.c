/* The toml-test suite (tests/toml-suite.sh) judges what is TOML; here are positions, messages, limits and look-up. */
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "plan/toml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void errors_say_where_and_what(void **state)
{
	static const struct {
		const char *text;
		unsigned line, column;
		const char *found, *expected;
	} cases[] = {
		{ "a = 1\nb = \n", 2, 5, "the end of the line", "a value" },
		{ "a = \"\xc3\xa4\xc3\xb6\" x", 1, 10, "`x`", "the end of the line" },
		{ "a = [1, 2\n", 2, 1, "the end of the file", "`,` or `]`" },
		{ "a = 1\na = 2\n", 2, 1, "`a` again (first on line 1)", "once" },
		{ "[t]\nx = 1\n[t]\n", 3, 2, "`t` again (first on line 1)", "each table once" },
		{ "a = 012\n", 1, 5, "`012`", "leading zeros" },
		{ "a = 9223372036854775808\n", 1, 5, "`9223372036854775808`", "64 bits" },
		{ "a = 2026-02-29\n", 1, 5, "2026-02-29", "a day that exists" },
		{ "a = \"\\q\"\n", 1, 7, "`q`", "after the backslash" },
		{ "a = \"x\n", 1, 7, "the end of the line", "closing" },
		{ "a = '''x\n\n", 1, 5, "without an end", "'''" },
		{ "a = \"\xff\"\n", 1, 6, "0xff", "UTF-8" },
		{ "a = \"\x01\"\n", 1, 6, "0x01", "control" },
		{ "= 1\n", 1, 1, "`=`", "a key" },
		{ "a.b = 1\na = { }\n", 2, 1, "`a` again", "once" },
		{ "\xef\xbb\xbf"
		  "a\n",
			1, 2, "the end of the line", "`=`" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_toml_ struct toml_doc *doc = NULL;
		struct toml_position at = { 0, 0 };
		struct err e = ERR_INIT;

		assert_int_equal(toml_parse(cases[i].text, strlen(cases[i].text), &doc, &at, &e), -EBADMSG);
		assert_null(doc);
		if (at.line != cases[i].line || at.column != cases[i].column || !strstr(e.message, cases[i].found) ||
			!strstr(e.message, cases[i].expected))
			fail_msg("case %zu: %u:%u: %s", i, at.line, at.column, e.message);
	}
}

static void values_know_where_they_stand(void **state)
{
	static const char text[] = "# x\n[a.\"b c\"]\n  k = [ 1,\n    \"\xc3\xa4\", true ]\n";
	_cleanup_toml_ struct toml_doc *doc = NULL;
	const struct toml_value *table, *array;
	struct toml_position at;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(toml_parse(text, strlen(text), &doc, NULL, &e), 0);
	table = toml_get(&toml_get(&toml_root(doc)->table, "a")->table, "b c");
	assert_non_null(table);
	at = toml_locate(doc, table->offset);
	assert_int_equal(at.line, 2);
	assert_int_equal(at.column, 4);
	array = toml_get(&table->table, "k");
	at = toml_locate(doc, table->table.members[0].key_offset);
	assert_int_equal(at.line, 3);
	assert_int_equal(at.column, 3);
	assert_int_equal(array->array.n, 3);
	at = toml_locate(doc, array->array.items[2]->offset);
	assert_int_equal(at.line, 4);
	assert_int_equal(at.column, 10);
	assert_null(toml_get(&table->table, "K"));
}

static int parse_repeated(const char *head, const char *unit, size_t n, const char *tail)
{
	_cleanup_buf_ struct buf b = BUF_INIT(64 << 20);
	_cleanup_toml_ struct toml_doc *doc = NULL;
	struct err e = ERR_INIT;

	assert_int_equal(buf_append_str(&b, head), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(buf_append_str(&b, unit), 0);
	assert_int_equal(buf_append_str(&b, tail), 0);
	return toml_parse(buf_str(&b), b.len, &doc, NULL, &e);
}

static void limits_hold_and_one_more_does_not(void **state)
{
	char nested[2 * TOML_MAX_DEPTH + 16];

	(void)state;
	/* Size: a comment that fills the file. */
	assert_int_equal(parse_repeated("#", "x", TOML_MAX_BYTES - 1, ""), 0);
	assert_int_equal(parse_repeated("#", "x", TOML_MAX_BYTES, ""), -E2BIG);

	/* Depth of arrays, of inline tables, of headers, of dotted keys. */
	for (unsigned more = 0; more < 2; more++) {
		int want = more ? -E2BIG : 0;
		size_t n = TOML_MAX_DEPTH - 1 + more;

		memset(nested, '[', n);
		memset(nested + n, ']', n);
		nested[2 * n] = '\0';
		assert_int_equal(parse_repeated("a = ", nested, 1, "\n"), 0);
		assert_int_equal(parse_repeated("a = [", nested, 1, "]\n"), want);
		assert_int_equal(parse_repeated("a = 1\n[", "b.", n, "c]\n"), want);
		assert_int_equal(parse_repeated("", "b.", n, "c = 1\n"), want);
	}
	assert_int_equal(parse_repeated("a = ", "{ a = ", TOML_MAX_DEPTH + 1, "1"), -E2BIG);

	/* Values: an array with all of them but itself. */
	assert_int_equal(parse_repeated("a = [", "1,", TOML_MAX_NODES - 1, "]\n"), 0);
	assert_int_equal(parse_repeated("a = [", "1,", TOML_MAX_NODES, "]\n"), -E2BIG);
}

static void many_members_are_found_and_counted(void **state)
{
	_cleanup_buf_ struct buf b = BUF_INIT(64 << 20);
	struct err e = ERR_INIT;

	(void)state;
	for (unsigned more = 0; more < 2; more++) {
		_cleanup_toml_ struct toml_doc *doc = NULL;

		buf_reset(&b);
		for (unsigned i = 0; i < TOML_MAX_MEMBERS + more; i++)
			assert_int_equal(buf_appendf(&b, "k%u = %u\n", i * 7919u % 100003u, i), 0);
		assert_int_equal(toml_parse(buf_str(&b), b.len, &doc, NULL, &e), more ? -E2BIG : 0);
		if (more)
			break;
		for (unsigned i = 0; i < TOML_MAX_MEMBERS; i++) {
			const struct toml_value *v;
			char key[16];

			(void)snprintf(key, sizeof(key), "k%u", i * 7919u % 100003u);
			v = toml_get(&toml_root(doc)->table, key);
			assert_non_null(v);
			assert_int_equal(v->integer, i);
		}
		assert_int_equal(buf_append_str(&b, "k0 = 1\n"), 0);
		toml_free(take_ptr(doc));
		assert_int_equal(toml_parse(buf_str(&b), b.len, &doc, NULL, &e), -EBADMSG);
	}
}

static void strings_keep_nuls_and_lengths(void **state)
{
	static const char text[] = "a = \"x\\u0000y\"\n\"k\\u0000\" = 1\nk = 2\n";
	_cleanup_toml_ struct toml_doc *doc = NULL;
	const struct toml_value *v;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(toml_parse(text, strlen(text), &doc, NULL, &e), 0);
	v = toml_get(&toml_root(doc)->table, "a");
	assert_int_equal(v->string.len, 3);
	assert_memory_equal(v->string.data, "x\0y", 4);
	assert_int_equal(toml_get(&toml_root(doc)->table, "k")->integer, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_say_where_and_what),
		cmocka_unit_test(values_know_where_they_stand),
		cmocka_unit_test(limits_hold_and_one_more_does_not),
		cmocka_unit_test(many_members_are_found_and_counted),
		cmocka_unit_test(strings_keep_nuls_and_lengths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
