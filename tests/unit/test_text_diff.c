/* Lines that differ, judged by diff(1) and by applying them with patch's own rules: the new text comes out. */
#include "lib/buf.h"
#include "lib/io.h"
#include "lib/process.h"
#include "lib/text_diff.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void diff(const char *a, const char *b, struct text_diff *ret)
{
	struct err e = ERR_INIT;

	assert_int_equal(text_diff(a, strlen(a), b, strlen(b), SIZE_MAX, ret, &e), 0);
}

/* As diff -U2 prints it, without the header of file names. */
static void format(const struct text_diff *d, struct buf *out)
{
	for (size_t i = 0; i < d->n; i++) {
		const struct text_line *line = &d->lines[i];
		size_t olds, news;

		if (line->starts_hunk) {
			text_diff_hunk_size(d, i, &olds, &news);
			/* A side without lines is numbered by the line before. */
			assert_int_equal(buf_appendf(out, "@@ -%zu", line->old_number - (olds == 0)), 0);
			if (olds != 1)
				assert_int_equal(buf_appendf(out, ",%zu", olds), 0);
			assert_int_equal(buf_appendf(out, " +%zu", line->new_number - (news == 0)), 0);
			if (news != 1)
				assert_int_equal(buf_appendf(out, ",%zu", news), 0);
			assert_int_equal(buf_append_str(out, " @@\n"), 0);
		}
		assert_int_equal(buf_appendf(out, "%c%.*s\n%s", line->mark, (int)line->len, line->text,
					 line->no_newline ? "\\ No newline at end of file\n" : ""),
			0);
	}
}

static void known_texts(void **state)
{
	static const struct {
		const char *a, *b, *said;
	} cases[] = {
		{ "", "", "" },
		{ "a\nb\n", "a\nb\n", "" },
		{ "", "a\n", "@@ -0,0 +1 @@\n+a\n" },
		{ "a\n", "", "@@ -1 +0,0 @@\n-a\n" },
		{ "a\n", "a", "@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n" },
		{ "1\n2\n3\n4\n5\n6\n7\n8\n", "1\n2\n3\n4\nV\n6\n7\n8\n", "@@ -3,5 +3,5 @@\n 3\n 4\n-5\n+V\n 6\n 7\n" },
		{ "1\n2\n3\n4\n5\n6\n7\n8\n", "I\n2\n3\n4\n5\n6\n7\nX\n",
			"@@ -1,3 +1,3 @@\n-1\n+I\n 2\n 3\n@@ -6,3 +6,3 @@\n 6\n 7\n-8\n+X\n" },
		{ "1\n2\n3\n4\n5\n6\n", "I\n2\n3\n4\n5\nX\n", "@@ -1,6 +1,6 @@\n-1\n+I\n 2\n 3\n 4\n 5\n-6\n+X\n" },
		{ "a\nb\nc\na\nb\nb\na\n", "c\nb\na\nb\na\nc\n", NULL }, /* Myers's own example: five edits */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_text_diff_ struct text_diff d = { 0 };
		_cleanup_buf_ struct buf got = BUF_INIT(1 << 16);
		size_t edits = 0;

		diff(cases[i].a, cases[i].b, &d);
		format(&d, &got);
		for (size_t k = 0; k < d.n; k++)
			edits += d.lines[k].mark != ' ';
		if (cases[i].said)
			assert_string_equal(buf_str(&got), cases[i].said);
		else
			assert_int_equal(edits, 5);
	}
}

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

/* Rebuild the new text from the old one and the lines: copy what is not shown, drop what is gone, take what is new. */
static void apply(const char *a, const struct text_diff *d, struct buf *out)
{
	const char *at = a;
	size_t number = 1;

	for (size_t i = 0; i <= d->n; i++) {
		size_t until = i < d->n ? d->lines[i].old_number : SIZE_MAX;

		for (; number < until && *at; number++) {
			size_t len = strcspn(at, "\n");

			len += at[len] == '\n';
			assert_int_equal(buf_append(out, at, len), 0);
			at += len;
		}
		if (i == d->n)
			break;
		assert_int_equal(number, until);
		if (d->lines[i].mark == '+') {
			assert_int_equal(buf_append(out, d->lines[i].text, d->lines[i].len), 0);
			assert_int_equal(buf_append_str(out, d->lines[i].no_newline ? "" : "\n"), 0);
			continue;
		}
		assert_memory_equal(at, d->lines[i].text, d->lines[i].len);
		if (d->lines[i].mark == ' ')
			assert_int_equal(buf_append(out, at, d->lines[i].len + !d->lines[i].no_newline), 0);
		at += d->lines[i].len + !d->lines[i].no_newline;
		number++;
	}
}

static void random_text(uint32_t *seed, uint32_t max_lines, uint32_t letters, struct buf *out)
{
	for (uint32_t n = next_random(seed) % (max_lines + 1); n > 0; n--)
		assert_int_equal(buf_appendf(out, "%c\n", 'a' + (int)(next_random(seed) % letters)), 0);
	if (next_random(seed) % 4 == 0)
		assert_int_equal(buf_append_str(out, "end"), 0);
}

/* Length of the longest common subsequence, the plain way: the shortest script has n + m - 2 lcs edits. */
static size_t fewest_edits(const char *a, const char *b)
{
	const char *x[64], *y[64];
	size_t n = 0, m = 0, table[64][64] = { { 0 } };

	for (const char *p = a; *p; p += strcspn(p, "\n"), p += *p == '\n')
		x[n++] = p;
	for (const char *p = b; *p; p += strcspn(p, "\n"), p += *p == '\n')
		y[m++] = p;
	for (size_t i = n; i-- > 0;)
		for (size_t k = m; k-- > 0;) {
			size_t len = strcspn(x[i], "\n") + 1, other = strcspn(y[k], "\n") + 1;
			bool equal = len == other && strncmp(x[i], y[k], len) == 0;

			table[i][k] = equal ? table[i + 1][k + 1] + 1 :
				      table[i + 1][k] > table[i][k + 1] ? table[i + 1][k] : table[i][k + 1];
		}
	return n + m - 2 * table[0][0];
}

static void the_script_is_right_and_the_shortest(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 20000; i++) {
		_cleanup_buf_ struct buf a = BUF_INIT(1 << 16), b = BUF_INIT(1 << 16), got = BUF_INIT(1 << 16);
		_cleanup_text_diff_ struct text_diff d = { 0 };
		uint32_t seed = i;
		size_t edits = 0;

		random_text(&seed, 30, 3, &a);
		random_text(&seed, 30, 3, &b);
		diff(buf_str(&a), buf_str(&b), &d);
		apply(buf_str(&a), &d, &got);
		assert_string_equal(buf_str(&got), buf_str(&b));
		for (size_t k = 0; k < d.n; k++)
			edits += d.lines[k].mark != ' ';
		assert_int_equal(edits, fewest_edits(buf_str(&a), buf_str(&b)));
		assert_true((d.n == 0) == (strcmp(buf_str(&a), buf_str(&b)) == 0));
	}
}

static void the_form_is_that_of_patch(void **state)
{
	const char *tmp = getenv("TMPDIR");
	char folder[256], command[1024];

	(void)state;
	(void)snprintf(folder, sizeof(folder), "%s/text-diff-XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(folder));
	for (uint32_t i = 0; i < 20; i++) {
		_cleanup_buf_ struct buf a = BUF_INIT(1 << 16), b = BUF_INIT(1 << 16), got = BUF_INIT(1 << 16);
		_cleanup_text_diff_ struct text_diff d = { 0 };
		_cleanup_close_ int dirfd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		uint32_t seed = 77 * i;
		struct err e = ERR_INIT;
		FILE *judge;

		random_text(&seed, 60, 5, &a);
		random_text(&seed, 60, 5, &b);
		diff(buf_str(&a), buf_str(&b), &d);
		assert_int_equal(buf_append_str(&got, "--- a\n+++ b\n"), 0);
		format(&d, &got);
		assert_int_equal(write_file_atomic_at(dirfd, "a", buf_str(&a), a.len, 0644, &e), 0);
		assert_int_equal(write_file_atomic_at(dirfd, "b", buf_str(&b), b.len, 0644, &e), 0);
		assert_int_equal(write_file_atomic_at(dirfd, "p", buf_str(&got), got.len, 0644, &e), 0);
		(void)snprintf(command, sizeof(command), "cd %s && patch -s -o c a p && touch c && cmp b c", folder);
		judge = popen(command, "r");
		assert_non_null(judge);
		assert_int_equal(pclose(judge), 0);
	}
	(void)remove_tree_at(AT_FDCWD, folder);
}

static void what_is_too_different_is_all_different(void **state)
{
	_cleanup_buf_ struct buf a = BUF_INIT(1 << 20), b = BUF_INIT(1 << 20), got = BUF_INIT(1 << 20);
	_cleanup_text_diff_ struct text_diff d = { 0 }, few = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(buf_append_str(&a, "first\n"), 0);
	assert_int_equal(buf_append_str(&b, "first\n"), 0);
	for (int i = 0; i < TEXT_DIFF_MAX_EDITS; i++) {
		assert_int_equal(buf_appendf(&a, "old %d\n", i), 0);
		assert_int_equal(buf_appendf(&b, "new %d\n", i), 0);
	}
	diff(buf_str(&a), buf_str(&b), &d);
	assert_int_equal(d.n, 1 + 2 * TEXT_DIFF_MAX_EDITS);
	assert_false(d.cut);
	apply(buf_str(&a), &d, &got);
	assert_string_equal(buf_str(&got), buf_str(&b));
	assert_int_equal(text_diff(buf_str(&a), a.len, buf_str(&b), b.len, 10, &few, &e), 0);
	assert_int_equal(few.n, 10);
	assert_true(few.cut);
}

static void any_bytes(void **state)
{
	static const char a[] = "x\0y\n\n\xff\n", b[] = "x\0z\n\n\xff\n\n";
	_cleanup_text_diff_ struct text_diff d = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(text_diff(a, sizeof(a) - 1, b, sizeof(b) - 1, 100, &d, &e), 0);
	assert_int_equal(d.n, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_texts),
		cmocka_unit_test(the_script_is_right_and_the_shortest),
		cmocka_unit_test(the_form_is_that_of_patch),
		cmocka_unit_test(what_is_too_different_is_all_different),
		cmocka_unit_test(any_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
