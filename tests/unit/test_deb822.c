/* builder/packages/deb822, version, relation */
#include "builder/packages/deb822.h"
#include "builder/packages/relation.h"

#include "lib/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char sample[] = "# a comment\n"
			     "Package: foo\n"
			     "description: one line\n"
			     " and more\n"
			     "# in the middle\n"
			     "\tand a tab\n"
			     "Empty:\n"
			     "\n"
			     "\n"
			     "Package:bar  \r\n"
			     "Version : 1\r\n"
			     "\r\n"
			     "Package: last";

static void check_sample(size_t index, const struct deb822_stanza *st)
{
	_cleanup_strv_ struct strv words = { 0 };

	switch (index) {
	case 0:
		assert_int_equal(st->n, 3);
		assert_int_equal(st->line, 2);
		assert_true(deb822_is(deb822_get(st, "PACKAGE"), "foo"));
		assert_int_equal(deb822_words(deb822_get(st, "Description"), false, &words), 0);
		assert_int_equal(words.n, 7);
		assert_string_equal(words.items[6], "tab");
		assert_non_null(deb822_get(st, "Empty").s);
		assert_int_equal(deb822_get(st, "Empty").len, 0);
		assert_null(deb822_get(st, "Absent").s);
		break;
	case 1:
		assert_int_equal(st->n, 2);
		assert_true(deb822_is(deb822_get(st, "Package"), "bar"));
		assert_true(deb822_is(deb822_get(st, "Version"), "1"));
		break;
	case 2:
		assert_true(deb822_is(deb822_get(st, "Package"), "last"));
		break;
	default:
		fail();
	}
}

static void reads_stanzas(void **state)
{
	struct deb822_reader reader;
	struct deb822_stanza st;
	struct err e = ERR_INIT;
	size_t n = 0;

	(void)state;
	deb822_reader_init(&reader, sample, strlen(sample), "sample");
	while (deb822_next(&reader, &st, &e) > 0)
		check_sample(n++, &st);
	assert_int_equal(e.code, 0);
	assert_int_equal(n, 3);
}

static int count_stanza(void *ctx, const struct deb822_stanza *st, struct err *e)
{
	size_t *n = ctx;

	(void)e;
	check_sample((*n)++, st);
	return 0;
}

static void a_stream_gives_the_same_however_it_is_cut(void **state)
{
	(void)state;
	for (size_t cut = 0; cut <= strlen(sample); cut++) {
		struct deb822_stream s;
		struct err e = ERR_INIT;
		size_t n = 0;

		deb822_stream_init(&s, "sample", count_stanza, &n);
		if (cut > 0)
			assert_int_equal(deb822_stream_feed(&s, sample, cut, &e), 0);
		if (cut < strlen(sample))
			assert_int_equal(deb822_stream_feed(&s, sample + cut, strlen(sample) - cut, &e), 0);
		assert_int_equal(deb822_stream_feed(&s, "", 0, &e), 0);
		assert_int_equal(n, 3);
		deb822_stream_release(&s);
	}
}

static void expect_bad(const char *text, size_t len, const char *words)
{
	struct deb822_reader reader;
	struct deb822_stanza st;
	struct err e = ERR_INIT;
	int r;

	deb822_reader_init(&reader, text, len, "x");
	while ((r = deb822_next(&reader, &st, &e)) > 0)
		;
	assert_int_equal(r, -EBADMSG);
	assert_non_null(strstr(e.message, words));
	assert_int_equal(e.kind, ERR_KIND_INPUT);
}

static void refuses_what_is_no_stanza(void **state)
{
	_cleanup_buf_ struct buf many = BUF_INIT(1 << 20);

	(void)state;
	expect_bad("Package: a\nno colon\n", 20, "x:2: expected `Field: value`, found `no colon`");
	expect_bad(" begins: with a blank\n", 22, "continuation");
	expect_bad("A: b\0c\n", 7, "NUL");
	expect_bad("-A: b\n", 6, "expected");
	expect_bad(": b\n", 4, "expected");
	expect_bad("A B: b\n", 7, "expected");
	for (int i = 0; i < DEB822_FIELDS_MAX; i++)
		assert_int_equal(buf_appendf(&many, "F%d: x\n", i), 0);
	{
		struct deb822_reader reader;
		struct deb822_stanza st;
		struct err e = ERR_INIT;

		deb822_reader_init(&reader, many.data, many.len, "x");
		assert_int_equal(deb822_next(&reader, &st, &e), 1);
		assert_int_equal(st.n, DEB822_FIELDS_MAX);
	}
	assert_int_equal(buf_append_str(&many, "Last: x\n"), 0);
	expect_bad(many.data, many.len, "more than 128 fields");
}

static void a_stanza_without_end_is_refused(void **state)
{
	_cleanup_free_ char *line = malloc(1 << 20);
	struct deb822_stream s;
	struct err e = ERR_INIT;
	size_t n = 0;
	int r = 0;

	(void)state;
	assert_non_null(line);
	memset(line, 'x', 1 << 20);
	memcpy(line, "A: ", 3);
	deb822_stream_init(&s, "endless", count_stanza, &n);
	for (int i = 0; i < 8 && r == 0; i++)
		r = deb822_stream_feed(&s, line, 1 << 20, &e);
	assert_int_equal(r, -EBADMSG);
	assert_non_null(strstr(e.message, "4194304"));
	deb822_stream_release(&s);
}

static void compares_versions_as_dpkg(void **state)
{
	static const struct {
		const char *a;
		int order;
		const char *b;
	} cases[] = { { "1", 0, "1" }, { "1.0", 0, "1.00" }, { "1", 0, "0:1" }, { "1-0", 0, "1" }, { "1~rc1", -1, "1" },
		{ "1~~", -1, "1~" }, { "1~", -1, "1" }, { "1", -1, "1a" }, { "1a", -1, "1+" }, { "1.9", -1, "1.10" },
		{ "1:0", 1, "9" }, { "1-1", -1, "1-1+b1" }, { "1-1", -1, "1-1.1" }, { "2.0-1~bpo12+1", -1, "2.0-1" },
		{ "1.2-3-4", 1, "1.2-3" }, { "0.9a", -1, "0.9b" }, { "7.6p2-4", 1, "7.6-0" }, { "a", 1, "1" },
		{ "1.0.a", 1, "1.0.0a" }, { "", -1, "1" }, { "12345678901234567890", 1, "12345678901234567889" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int forward = deb_version_compare(cases[i].a, cases[i].b), back = deb_version_compare(cases[i].b, cases[i].a);

		if ((forward > 0) - (forward < 0) != cases[i].order || (back > 0) - (back < 0) != -cases[i].order)
			fail_msg("%s against %s: %d, %d", cases[i].a, cases[i].b, forward, back);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *const argv[] = { "dpkg", "--compare-versions", cases[i].a,
			cases[i].order < 0 ? "lt-nl" : cases[i].order > 0 ? "gt-nl" : "eq", cases[i].b, NULL };
		struct process_options options = { .argv = argv, .working_dirfd = -1 };
		struct err e = ERR_INIT;
		int status = -1;

		if (cases[i].a[0] < '0' || cases[i].a[0] > '9')
			continue; /* dpkg warns of those */
		assert_int_equal(process_run(&options, NULL, NULL, 10000, &status, &e), 0);
		if (status != 0)
			fail_msg("dpkg thinks otherwise of %s against %s", cases[i].a, cases[i].b);
	}
	assert_true(deb_version_satisfies("2", DEB_VERSION_GE, "2"));
	assert_false(deb_version_satisfies("2", DEB_VERSION_GT, "2"));
	assert_true(deb_version_satisfies("2", DEB_VERSION_ANY, NULL));
}

static void reads_relations(void **state)
{
	static const char text[] = "a, b (>= 1:2~3) | c:any (<<4),\n d [amd64] <!nocheck>, , e (= 1)|f,";
	_cleanup_relations_ struct deb_relations list = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(deb_relations_parse(text, strlen(text), &list, &e), 0);
	assert_int_equal(list.n, 6);
	assert_int_equal(list.items[1].op, DEB_VERSION_GE);
	assert_memory_equal(list.items[1].version, "1:2~3", 5);
	assert_true(list.items[1].or_next);
	assert_memory_equal(list.items[2].qualifier, "any", 3);
	assert_int_equal(list.items[2].op, DEB_VERSION_LT);
	assert_false(list.items[2].or_next);
	assert_memory_equal(list.items[3].name, "d", 1);
	assert_true(list.items[4].or_next);
}

static void refuses_bad_relations(void **state)
{
	static const char *const bad[] = { "a (", "a (1)", "a (>= )", "a (>= 1", "| a", "a |", "a b", "a (>= 1) (<< 2)", "(a)",
		"a [x", "!", "a | , b" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_relations_ struct deb_relations list = { 0 };
		struct err e = ERR_INIT;

		if (deb_relations_parse(bad[i], strlen(bad[i]), &list, &e) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
	}
}

static void relations_have_a_limit(void **state)
{
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);
	_cleanup_relations_ struct deb_relations list = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	for (int i = 0; i < RELATIONS_MAX; i++)
		assert_int_equal(buf_append_str(&text, "a,"), 0);
	assert_int_equal(deb_relations_parse(text.data, text.len, &list, &e), 0);
	list.n = 0;
	assert_int_equal(buf_append_str(&text, "a"), 0);
	assert_int_equal(deb_relations_parse(text.data, text.len, &list, &e), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_stanzas),
		cmocka_unit_test(a_stream_gives_the_same_however_it_is_cut),
		cmocka_unit_test(refuses_what_is_no_stanza),
		cmocka_unit_test(a_stanza_without_end_is_refused),
		cmocka_unit_test(compares_versions_as_dpkg),
		cmocka_unit_test(reads_relations),
		cmocka_unit_test(refuses_bad_relations),
		cmocka_unit_test(relations_have_a_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
