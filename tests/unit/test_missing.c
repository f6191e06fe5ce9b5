/* What is said of files that cannot be had, and which servers are given up. */
#include "cache/hosts.h"
#include "cache/missing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* after the others */
#include <cmocka.h>

#define HEX "abababababababababababababababababababababababababababababababab"

static void add(struct missing *m, const char *label, int code, const char *tried)
{
	struct missing_file file = { .label = (char *)(uintptr_t)label, .size_bytes = 12, .code = code };
	struct strv places = { 0 };
	struct err e = ERR_INIT;

	assert_int_equal(digest_parse_hex(DIGEST_SHA256, HEX, &file.sha256), 0);
	assert_int_equal(strv_add(&places, tried), 0);
	assert_int_equal(missing_add(m, &file, &places, &e), 0);
	assert_int_equal(places.n, 0);
}

static void one_is_told_whole(void **state)
{
	_cleanup_missing_ struct missing m = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	add(&m, "jq 1.6", -ENOENT, "`http://a/jq`: gone");
	assert_int_equal(missing_error(&m, 7, &e), -ENOENT);
	assert_int_equal(e.kind, ERR_KIND_INPUT);
	assert_string_equal(e.message, "cannot get jq 1.6 (sha256 " HEX ", 12 bytes): `http://a/jq`: gone; check the address, or give another "
				       "with --mirror or --blobs");
	m.items[0].sha256.algorithm = DIGEST_NONE;
	m.items[0].code = -ENETUNREACH;
	assert_int_equal(missing_error(&m, 7, &e), -ENETUNREACH);
	assert_string_equal(e.message,
		"--offline, and this is not in the cache: jq 1.6: `http://a/jq`: gone; run once without --offline");
}

/* More places than a message holds are counted; the list that the command line prints has them. */
static void many_places_are_counted(void **state)
{
	_cleanup_missing_ struct missing m = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	add(&m, "x", -ENOENT, "`http://a/0`: gone");
	for (unsigned i = 1; i < 200; i++)
		assert_int_equal(strv_addf(&m.items[0].tried, "`http://a/%u`: gone", i), 0);
	assert_int_equal(missing_error(&m, 1, &e), -ENOENT);
	assert_non_null(strstr(e.message, "`http://a/50`: gone; "));
	assert_non_null(strstr(e.message, "; and 1"));
	assert_non_null(strstr(e.message, " more; check the address"));
}

static void several_are_named(void **state)
{
	_cleanup_missing_ struct missing m = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	add(&m, "one", -ENOENT, "x");
	add(&m, "two", -EACCES, "y");
	add(&m, "three", -EIO, "z");
	/* The first that is not simply absent says what kind of failure it is. */
	assert_int_equal(missing_error(&m, 9, &e), -EACCES);
	assert_string_equal(e.message, "cannot get 3 of 9 files: one, two, three");
	m.items[2].code = -ENETUNREACH;
	assert_int_equal(missing_error(&m, 9, &e), -ENETUNREACH);
	assert_string_equal(e.message, "--offline, and 3 of 9 files are not in the cache: one, two, three; run once without --offline");
}

static void thousands_are_counted(void **state)
{
	enum { N = 3000 };
	_cleanup_missing_ struct missing m = { 0 };
	struct err e = ERR_INIT;
	size_t commas = 0, more = 0;
	const char *tail;
	char label[32];

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		(void)snprintf(label, sizeof(label), "package-%u 1.0", i);
		add(&m, label, -ENOENT, "x");
	}
	assert_int_equal(missing_error(&m, N, &e), -ENOENT);
	tail = strstr(e.message, " more;");
	assert_non_null(tail);
	for (const char *s = e.message; s < tail; s++)
		commas += *s == ',';
	assert_int_equal(sscanf(strstr(e.message, ", and "), ", and %zu more", &more), 1);
	assert_int_equal(more, N - commas); /* one comma less than names, one before "and" */
	assert_in_range(strlen(e.message), 1400, ERR_MESSAGE_MAX_BYTES - 200); /* room for who wraps it */
}

static void strangers_do_not_write_to_the_terminal(void **state)
{
	_cleanup_missing_ struct missing m = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(1000);

	(void)state;
	add(&m, "evil\033[2J\nname", -ENOENT, "x");
	assert_int_equal(missing_describe(&m.items[0], &text), 0);
	assert_string_equal(buf_str(&text), "evil?[2J name (sha256 " HEX ", 12 bytes)");
}

static void silent_servers(void **state)
{
	struct hosts h = { .items = NULL };
	struct err why = ERR_INIT;

	(void)state;
	(void)err_set(&why, -ECONNREFUSED, "nobody listens");
	assert_null(hosts_given_up(&h, "a"));
	/* The first word of each round is told, whoever has it. */
	assert_true(hosts_tell_silence(&h, "a", 1));
	assert_false(hosts_tell_silence(&h, "a", 1));
	assert_true(hosts_tell_silence(&h, "a", 2));
	assert_false(hosts_tell_silence(&h, "a", 1));
	assert_true(hosts_tell_silence(&h, "b", 1));
	hosts_stayed_silent(&h, "a", &why);
	assert_string_equal(hosts_given_up(&h, "a")->message, "nobody listens");
	assert_null(hosts_given_up(&h, "b"));
	/* An answer makes up for it; after that it takes some files in a row. */
	hosts_answered(&h, "a");
	for (unsigned i = 1; i < HOSTS_SILENT_FILES_MAX; i++) {
		assert_null(hosts_given_up(&h, "a"));
		hosts_stayed_silent(&h, "a", &why);
	}
	assert_null(hosts_given_up(&h, "a"));
	hosts_answered(&h, "a");
	for (unsigned i = 0; i < HOSTS_SILENT_FILES_MAX; i++) {
		assert_null(hosts_given_up(&h, "a"));
		hosts_stayed_silent(&h, "a", &why);
	}
	assert_non_null(hosts_given_up(&h, "a"));
	assert_true(hosts_tell_silence(&h, "a", 1));
	hosts_release(&h);
	assert_null(hosts_given_up(&h, "a"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_is_told_whole),
		cmocka_unit_test(many_places_are_counted),
		cmocka_unit_test(several_are_named),
		cmocka_unit_test(thousands_are_counted),
		cmocka_unit_test(strangers_do_not_write_to_the_terminal),
		cmocka_unit_test(silent_servers),
	};

	return cmocka_run_group_tests_name("missing", tests, NULL, NULL);
}
