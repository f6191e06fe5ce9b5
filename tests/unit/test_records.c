/* builder/vm/records: lines in a stream, and lines turned into values. */
#include "builder/vm/records.h"

#include "initrd/protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct record good(const char *line)
{
	struct record r = { 0 };
	struct err e = ERR_INIT;

	if (record_parse(line, strlen(line), &r, &e) < 0)
		fail_msg("%s: %s", line, e.message);
	return r;
}

static void bad(const char *line, const char *words)
{
	struct record r = { .ms = 42 };
	struct err e = ERR_INIT;

	assert_int_equal(record_parse(line, strlen(line), &r, &e), -EBADMSG);
	assert_int_equal(r.ms, 42);
	if (!strstr(e.message, words))
		fail_msg("`%s` is not in `%s`", words, e.message);
}

static void test_reads_each_type(void **state)
{
	struct record r;

	(void)state;
	r = good("{\"v\":1,\"type\":\"hello\",\"release\":\"6.1.0-1\",\"machine\":\"x86_64\",\"mem_kib\":2048}");
	assert_int_equal(r.type, RECORD_HELLO);
	assert_string_equal(r.release, "6.1.0-1");
	assert_string_equal(r.machine, "x86_64");
	assert_int_equal(r.mem_kib, 2048);
	record_release(&r);

	r = good("{\"v\":1,\"type\":\"step\",\"name\":\"packages\",\"title\":\"install\",\"state\":\"begin\"}");
	assert_int_equal(r.type, RECORD_STEP_BEGIN);
	assert_string_equal(r.step, "packages");
	assert_string_equal(r.text, "install");
	record_release(&r);

	r = good("{\"v\":1,\"type\":\"step\",\"name\":\"packages\",\"state\":\"end\",\"exit\":255,\"signal\":0,\"ms\":7}");
	assert_int_equal(r.type, RECORD_STEP_END);
	assert_int_equal(r.exit_status, 255);
	assert_int_equal(r.ms, 7);
	record_release(&r);

	r = good("{\"v\":1,\"type\":\"output\",\"step\":\"packages\",\"data\":\"a\\nb\\u00e9\"}");
	assert_int_equal(r.type, RECORD_OUTPUT);
	assert_int_equal(r.text_len, 5);
	assert_memory_equal(r.text, "a\nb\xc3\xa9", 5);
	record_release(&r);

	/* Steps print what they like. */
	r = good("{\"v\":1,\"type\":\"output\",\"step\":\"setup\",\"data\":\"a\\u0000b\"}");
	assert_int_equal(r.text_len, 3);
	assert_memory_equal(r.text, "a\0b", 3);
	record_release(&r);

	r = good("{\"v\":1,\"type\":\"progress\",\"step\":\"packages\",\"done\":12,\"total\":44,\"what\":\"podman\"}");
	assert_int_equal(r.type, RECORD_PROGRESS);
	assert_int_equal(r.done, 12);
	assert_int_equal(r.total, 44);
	assert_string_equal(r.text, "podman");
	record_release(&r);

	r = good("{\"v\":1,\"type\":\"note\",\"text\":\"no depmod\"}");
	assert_int_equal(r.type, RECORD_NOTE);
	record_release(&r);

	r = good("{\"v\":1,\"type\":\"verdict\",\"nonce\":\"ab\",\"result\":\"passed\"}");
	assert_int_equal(r.type, RECORD_PASSED);
	assert_string_equal(r.nonce, "ab");
	record_release(&r);

	r = good("{\"v\":1,\"type\":\"verdict\",\"nonce\":\"ab\",\"result\":\"failed\",\"step\":\"setup\",\"reason\":\"oom\","
		 "\"exit\":0,\"signal\":9,\"text\":\"killed\"}");
	assert_int_equal(r.type, RECORD_FAILED);
	assert_int_equal(r.reason, REASON_OOM);
	assert_int_equal(r.signal, 9);
	assert_string_equal(r.step, "setup");
	record_release(&r);
}

static void test_ignores_what_it_does_not_know(void **state)
{
	struct record r = good("{\"v\":1,\"type\":\"weather\",\"sun\":[1,{\"a\":[]}]}");

	(void)state;
	assert_int_equal(r.type, RECORD_UNKNOWN);
	record_release(&r);
	r = good("{\"v\":1,\"type\":\"note\",\"text\":\"x\",\"more\":true}");
	assert_int_equal(r.type, RECORD_NOTE);
	record_release(&r);
}

static void test_refuses_what_is_no_record(void **state)
{
	(void)state;
	bad("", "no JSON");
	bad("[]", "no JSON object");
	bad("7", "no JSON");
	bad("{\"v\":1}", "`type` is missing");
	bad("{\"type\":\"note\",\"text\":\"\"}", "`v` is missing");
	bad("{\"v\":2,\"type\":\"note\",\"text\":\"\"}", "protocol version 2");
	bad("{\"v\":1,\"v\":1,\"type\":\"note\",\"text\":\"\"}", "no JSON: duplicate");
	bad("{\"v\":1,\"type\":\"note\",\"text\":\"\"} x", "no JSON");
	bad("{\"v\":1,\"type\":\"note\\u0000\",\"text\":\"\"}", "`type` has a NUL");
	bad("{\"v\":1,\"type\":\"verdict\",\"nonce\":\"ab\\u0000c\",\"result\":\"passed\"}", "`nonce` has a NUL");
	bad("{\"v\":1,\"type\":\"note\",\"te\\u0000xt\":\"\"}", "no JSON");
	bad("{\"v\":1,\"type\":\"note\",\"text\":\"\xff\"}", "no JSON");
	bad("{\"v\":1,\"type\":\"note\",\"text\":1}", "`text` is no string");
	bad("{\"v\":1,\"type\":\"weather\",\"sun\":[[[[1]]]]}", "nests deeper");
	bad("{\"v\":1,\"type\":\"hello\"}", "`release` is missing");
	bad("{\"v\":1,\"type\":\"step\",\"name\":\"x\",\"state\":\"middle\"}", "begin or end");
	bad("{\"v\":1,\"type\":\"step\",\"name\":\"x\",\"state\":\"end\"}", "`exit` is missing");
	bad("{\"v\":1,\"type\":\"step\",\"name\":\"x\",\"state\":\"end\",\"exit\":256}", "0 to 255");
	bad("{\"v\":1,\"type\":\"step\",\"name\":\"x\",\"state\":\"end\",\"exit\":-1}", "0 to 255");
	bad("{\"v\":1,\"type\":\"step\",\"name\":\"x\",\"state\":\"end\",\"exit\":0,\"signal\":65}", "0 to 64");
	bad("{\"v\":1,\"type\":\"step\",\"name\":\"x\",\"state\":\"end\",\"exit\":0.5}", "whole number");
	bad("{\"v\":1,\"type\":\"progress\",\"step\":\"x\",\"done\":99999999999999999999}", "no JSON");
	bad("{\"v\":1,\"type\":\"verdict\",\"result\":\"passed\"}", "`nonce` is missing");
	bad("{\"v\":1,\"type\":\"verdict\",\"nonce\":\"\",\"result\":\"fine\"}", "passed or failed");
	bad("{\"v\":1,\"type\":\"verdict\",\"nonce\":\"\",\"result\":\"failed\",\"reason\":\"mood\",\"exit\":1}", "`mood`");
}

/* A note whose text has `n` bytes. */
static char *long_note(size_t n, size_t *ret_len)
{
	char *line = malloc(n + 64);
	int head = sprintf(line, "{\"v\":1,\"type\":\"note\",\"text\":\"");

	memset(line + head, 'x', n);
	(void)sprintf(line + (size_t)head + n, "\"}");
	*ret_len = strlen(line);
	return line;
}

static void test_limits(void **state)
{
	char name[RECORD_NAME_MAX_BYTES + 1], line[256];
	struct record r = { 0 };
	struct err e = ERR_INIT;
	size_t len;
	char *note;

	(void)state;
	note = long_note(RECORD_TEXT_MAX_BYTES, &len);
	assert_int_equal(record_parse(note, len, &r, &e), 0);
	assert_int_equal(r.text_len, RECORD_TEXT_MAX_BYTES);
	record_release(&r);
	free(note);
	note = long_note(RECORD_TEXT_MAX_BYTES + 1, &len);
	assert_int_equal(record_parse(note, len, &r, &e), -EBADMSG);
	free(note);

	/* A whole line of RECORD_MAX_BYTES with its newline, and one more. */
	note = long_note(RECORD_MAX_BYTES, &len);
	memcpy(note, "{\"v\":1,\"type\":\"xxxx\",\"text\":\"", 29);
	memcpy(note + RECORD_MAX_BYTES - 3, "\"}", 3);
	assert_int_equal(record_parse(note, RECORD_MAX_BYTES - 1, &r, &e), 0);
	record_release(&r);
	assert_int_equal(record_parse(note, RECORD_MAX_BYTES, &r, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "16385"));
	free(note);

	memset(name, 'n', sizeof(name));
	name[RECORD_NAME_MAX_BYTES] = '\0';
	(void)snprintf(line, sizeof(line), "{\"v\":1,\"type\":\"step\",\"name\":\"%s\",\"state\":\"begin\"}", name);
	bad(line, "at most 63");
	name[RECORD_NAME_MAX_BYTES - 1] = '\0';
	(void)snprintf(line, sizeof(line), "{\"v\":1,\"type\":\"step\",\"name\":\"%s\",\"state\":\"begin\"}", name);
	r = good(line);
	record_release(&r);
}

static void test_writes_without_the_nonce(void **state)
{
	struct record r = good("{\"v\":1, \"type\":\"verdict\", \"nonce\":\"secret\", \"result\":\"passed\", \"x\":\"\\u001b[31m\"}");
	_cleanup_buf_ struct buf b = BUF_INIT(1024);

	(void)state;
	assert_int_equal(record_to_line(&r, &b), 0);
	assert_string_equal(buf_str(&b), "{\"v\":1,\"type\":\"verdict\",\"result\":\"passed\",\"x\":\"\\u001B[31m\"}\n");
	record_release(&r);
}

struct lines {
	char text[256]; /* each line followed by '|', or '!' when it was too long */
};

static int collect(void *ctx, const char *line, size_t len, bool truncated, struct err *e)
{
	struct lines *l = ctx;
	size_t used = strlen(l->text);

	if (len == 4 && memcmp(line, "stop", 4) == 0)
		return err_set(e, -EINTR, "stopped");
	(void)snprintf(l->text + used, sizeof(l->text) - used, "%.*s%c", (int)len, line, truncated ? '!' : '|');
	return 0;
}

static void test_finds_lines_however_they_come(void **state)
{
	static const char stream[] = "one\ntwo\r\n\n\r\n12345678\n123456789\nabcdefghijklmnop\nlast\nopen";

	(void)state;
	for (size_t piece = 1; piece < sizeof(stream); piece++) {
		struct line_reader r;
		struct lines l = { "" };
		struct err e = ERR_INIT;

		line_reader_init(&r, 8);
		for (size_t at = 0; at < sizeof(stream) - 1; at += piece) {
			size_t n = sizeof(stream) - 1 - at < piece ? sizeof(stream) - 1 - at : piece;

			assert_int_equal(line_reader_feed(&r, stream + at, n, collect, &l, &e), 0);
		}
		assert_string_equal(l.text, "one|two|12345678|12345678!abcdefgh!last|");
		assert_int_equal(line_reader_feed(&r, "ed\n", 3, collect, &l, &e), 0);
		assert_string_equal(l.text, "one|two|12345678|12345678!abcdefgh!last|opened|");
		assert_int_equal(line_reader_feed(&r, "stop\nmore\n", 10, collect, &l, &e), -EINTR);
		line_reader_release(&r);
	}
}

static void test_finds_records_on_a_console(void **state)
{
	size_t len = 0;
	const char *frame = record_in_console_line("@imgbuild@ {}", 13, &len);

	(void)state;
	assert_string_equal(frame, "{}");
	assert_int_equal(len, 2);
	assert_null(record_in_console_line(" @imgbuild@ {}", 14, &len));
	assert_null(record_in_console_line("@imgbuild@", 10, &len));
}

static void test_depth(void **state)
{
	(void)state;
	assert_true(record_json_within_depth("[[[]]]", 6, 3));
	assert_false(record_json_within_depth("[[[]]]", 6, 2));
	assert_true(record_json_within_depth("[\"[[[\\\"[[\"]", 11, 1));
	assert_true(record_json_within_depth("[],[],{}", 8, 1));
	assert_true(record_json_within_depth("\"\\", 2, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_each_type),
		cmocka_unit_test(test_ignores_what_it_does_not_know),
		cmocka_unit_test(test_refuses_what_is_no_record),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_writes_without_the_nonce),
		cmocka_unit_test(test_finds_lines_however_they_come),
		cmocka_unit_test(test_finds_records_on_a_console),
		cmocka_unit_test(test_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
