#include "lib/buf.h"
#include "lib/num.h"
#include "lib/strv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_limit_is_exact(void **state)
{
	_cleanup_buf_ struct buf b = BUF_INIT(4);

	(void)state;
	assert_int_equal(buf_append(&b, "abcd", 4), 0);
	assert_int_equal(buf_append_char(&b, 'e'), -E2BIG);
	assert_int_equal(buf_reserve(&b, SIZE_MAX), -E2BIG);
	assert_string_equal(buf_str(&b), "abcd");
	assert_int_equal(b.len, 4);
}

static void test_format_consume_take(void **state)
{
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);
	_cleanup_free_ char *taken = NULL;
	size_t len;

	(void)state;
	assert_string_equal(buf_str(&b), "");
	for (int i = 0; i < 1000; i++)
		assert_int_equal(buf_appendf(&b, "%d,", i), 0);
	assert_int_equal(strncmp(buf_str(&b), "0,1,2,", 6), 0);
	buf_consume(&b, 4);
	assert_int_equal(strncmp(buf_str(&b), "2,3,", 4), 0);
	taken = buf_take(&b, &len);
	assert_int_equal(strlen(taken), len);
	assert_int_equal(b.len, 0);
	free(taken);
	taken = buf_take(&b, &len);
	assert_string_equal(taken, "");
}

static void test_strv(void **state)
{
	_cleanup_strv_ struct strv v = { 0 }, w = { 0 };

	(void)state;
	assert_int_equal(strv_add(&v, "b"), 0);
	assert_int_equal(strv_addf(&v, "%c", 'a'), 0);
	assert_int_equal(strv_add_len(&v, "bcd", 1), 0);
	assert_int_equal(strv_extend(&w, &v), 0);
	strv_sort(&v);
	strv_uniq(&v);
	assert_int_equal(v.n, 2);
	assert_string_equal(v.items[0], "a");
	assert_null(v.items[2]);
	assert_true(strv_contains(&v, "b"));
	assert_false(strv_contains(&v, "c"));
	assert_int_equal(w.n, 3);
}

static void test_checked_numbers(void **state)
{
	uint64_t r = 5;

	(void)state;
	assert_false(checked_add_u64(UINT64_MAX, 1, &r));
	assert_false(checked_mul_u64(UINT64_C(1) << 33, UINT64_C(1) << 31, &r));
	assert_int_equal(r, 5);
	assert_true(checked_add_u64(2, 3, &r) && r == 5);
	assert_true(range_within(3, 4, 7));
	assert_false(range_within(3, 5, 7));
	assert_false(range_within(8, 0, 7));
	assert_false(range_within(UINT64_MAX, UINT64_MAX, UINT64_MAX - 1));
	assert_int_equal(read_be32("\x01\x02\x03\x04"), 0x01020304);
	assert_int_equal(read_le64("\x01\x02\x03\x04\x05\x06\x07\x08"), UINT64_C(0x0807060504030201));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit_is_exact),
		cmocka_unit_test(test_format_consume_take),
		cmocka_unit_test(test_strv),
		cmocka_unit_test(test_checked_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
