#include "lib/err.h"
#include "lib/nearest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_set_and_wrap(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(err_set(&e, -EBADMSG, "cluster %d is outside", 7), -EBADMSG);
	assert_string_equal(e.message, "cluster 7 is outside");
	assert_int_equal(err_wrap(&e, "reading `%s`", "x"), -EBADMSG);
	assert_string_equal(e.message, "reading `x`: cluster 7 is outside");
	assert_non_null(strstr(e.origin, "test_err.c:"));
	err_set_errno(&e, -ENOENT, "cannot open `%s`", "y");
	assert_string_equal(e.message, "cannot open `y`: No such file or directory");
}

static void test_message_may_quote_the_one_it_replaces(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	err_set(&e, -EIO, "inner");
	err_set(&e, -EINVAL, "outer (%s)", e.message);
	assert_string_equal(e.message, "outer (inner)");
}

static void test_long_messages_are_cut(void **state)
{
	struct err e = ERR_INIT;
	char text[3 * ERR_MESSAGE_MAX_BYTES];

	(void)state;
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	err_set(&e, -EIO, "%s", text);
	assert_true(strlen(e.message) < ERR_MESSAGE_MAX_BYTES);
	err_wrap(&e, "%s", text);
	assert_true(strlen(e.message) < ERR_MESSAGE_MAX_BYTES);
}

static void test_terminal_escapes_never_get_through(void **state)
{
	struct err e = ERR_INIT;
	char out[32];

	(void)state;
	err_set(&e, -EIO, "a\033[2Jb\x9b" "c\xff\nd");
	assert_string_equal(e.message, "a?[2Jb?c? d");
	/* C1 control U+009B in UTF-8, an overlong slash, a surrogate: refused. Real letters stay. */
	assert_string_equal(err_sanitize(out, sizeof(out), "\xc2\x9bm", 3), "??m");
	assert_string_equal(err_sanitize(out, sizeof(out), "\xc0\xaf", 2), "??");
	assert_string_equal(err_sanitize(out, sizeof(out), "\xed\xa0\x80", 3), "???");
	assert_string_equal(err_sanitize(out, sizeof(out), "gr\xc3\xbc\xc3\x9f", 6), "gr\xc3\xbc\xc3\x9f");
	/* Never half a character at the end. */
	assert_string_equal(err_sanitize(out, 3, "a\xc3\xbc", 3), "a");
}

/* A full disk is the host's, whatever was being done; only who says so at once can mean something else by such a code. */
static void test_host_in_trouble(void **state)
{
	static const int codes[] = { ENOSPC, EDQUOT, EFBIG, ENOMEM, EROFS, EMFILE, ENFILE };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
		struct err e = ERR_INIT;

		(void)err_set_errno(&e, -codes[i], "x");
		assert_int_equal(err_exit_status(&e), ERR_KIND_HOST);
		(void)err_default_kind(&e, ERR_KIND_INPUT);
		assert_int_equal(err_exit_status(&e), ERR_KIND_HOST);
		err_clear(&e);
		(void)err_set_kind(&e, ERR_KIND_INPUT, -codes[i], "x");
		(void)err_default_kind(&e, ERR_KIND_HOST);
		assert_int_equal(err_exit_status(&e), ERR_KIND_INPUT);
	}
}

static void test_exit_status(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	err_set(&e, -ENOSPC, "full");
	assert_int_equal(err_exit_status(&e), 4);
	err_set(&e, -EPROTO, "odd");
	assert_int_equal(err_exit_status(&e), 5);
	err_default_kind(&e, ERR_KIND_INPUT);
	err_default_kind(&e, ERR_KIND_HOST);
	assert_int_equal(err_exit_status(&e), 3);
	err_set_kind(&e, ERR_KIND_GUEST, -EIO, "no");
	assert_int_equal(err_exit_status(&e), 1);
	err_clear(&e);
	assert_int_equal(e.code, 0);
}

static void test_nearest(void **state)
{
	static const char *const names[] = { "packages", "kernel", "services", "base" };

	(void)state;
	assert_string_equal(nearest_name(names, 4, "pakcages"), "packages");
	assert_string_equal(nearest_name(names, 4, "kernal"), "kernel");
	assert_string_equal(nearest_name(names, 4, "service"), "services");
	assert_null(nearest_name(names, 4, "zebra"));
	assert_null(nearest_name(names, 4, "an exceedingly long word that is much more than sixty-four bytes of text"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set_and_wrap),
		cmocka_unit_test(test_message_may_quote_the_one_it_replaces),
		cmocka_unit_test(test_long_messages_are_cut),
		cmocka_unit_test(test_terminal_escapes_never_get_through),
		cmocka_unit_test(test_exit_status),
		cmocka_unit_test(test_host_in_trouble),
		cmocka_unit_test(test_nearest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
