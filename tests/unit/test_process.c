#include "lib/io.h"
#include "lib/pool.h"
#include "lib/process.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

static int run_shell(const char *script, struct buf *out, struct buf *err_out, int timeout_ms, int *status, struct err *e)
{
	const char *argv[] = { "/bin/sh", "-c", script, NULL };
	struct process_options o = { .argv = argv, .working_dirfd = -1 };

	return process_run(&o, out, err_out, timeout_ms, status, e);
}

static void test_output_and_status(void **state)
{
	_cleanup_buf_ struct buf out = BUF_INIT(1000), err_out = BUF_INIT(1000);
	struct err e = ERR_INIT;
	int status;

	(void)state;
	assert_int_equal(run_shell("echo out; echo err >&2; exit 7", &out, &err_out, 10000, &status, &e), 0);
	assert_string_equal(buf_str(&out), "out\n");
	assert_string_equal(buf_str(&err_out), "err\n");
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

/* Ctrl-C is for the program, which ends its children itself: one that dies of it first looks like one that failed. */
static void test_own_process_group(void **state)
{
	_cleanup_buf_ struct buf out = BUF_INIT(1000);
	struct err e = ERR_INIT;
	long pid, group;
	int status;

	(void)state;
	assert_int_equal(run_shell("set -- $(cat /proc/$$/stat); echo $1 $5", &out, NULL, 10000, &status, &e), 0);
	assert_int_equal(sscanf(buf_str(&out), "%ld %ld", &pid, &group), 2);
	assert_int_equal(pid, group);
}

static void test_missing_program(void **state)
{
	const char *argv[] = { "no-such-program-anywhere", NULL };
	struct process_options o = { .argv = argv, .working_dirfd = -1 };
	_cleanup_process_ struct process p = PROCESS_INIT;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(process_start(&o, &p, &e), -ENOENT);
	assert_non_null(strstr(e.message, "no-such-program-anywhere"));
}

static void test_too_much_output_and_time(void **state)
{
	_cleanup_buf_ struct buf out = BUF_INIT(100);
	struct err e = ERR_INIT;
	int status;

	(void)state;
	assert_int_equal(run_shell("yes", &out, NULL, 10000, &status, &e), -E2BIG);
	buf_reset(&out);
	assert_int_equal(run_shell("exec sleep 60", &out, NULL, 200, &status, &e), -ETIMEDOUT);
}

/* What a child inherits: default signals, no stdin, no descriptors but those handed over. */
static void test_clean_child(void **state)
{
	_cleanup_buf_ struct buf out = BUF_INIT(1000);
	_cleanup_close_ int leak = open("/dev/zero", O_RDONLY);
	struct err e = ERR_INIT;
	int status;

	(void)state;
	(void)signal(SIGPIPE, SIG_IGN);
	assert_true(leak >= 0);
	assert_int_equal(run_shell("cat; ls /proc/self/fd | tr '\\n' ' '; yes | head -1; "
				   "grep SigIgn /proc/self/status",
				 &out, NULL, 10000, &status, &e),
		0);
	(void)signal(SIGPIPE, SIG_DFL);
	assert_string_equal(buf_str(&out), "0 1 2 3 y\nSigIgn:\t0000000000000000\n");
}

static void test_descriptors_are_handed_over(void **state)
{
	_cleanup_buf_ struct buf out = BUF_INIT(1000);
	_cleanup_close_ int a = open("/dev/null", O_RDONLY | O_CLOEXEC), b = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	const char *argv[] = { "/bin/sh", "-c", "readlink /proc/self/fd/3 /proc/self/fd/4; echo $X", NULL };
	const char *env[] = { "PATH=/usr/bin:/bin", "X=only", NULL };
	struct process_fd fds[2];
	struct process_options o = { .argv = argv, .env = env, .fds = fds, .n_fds = 2, .working_dirfd = -1 };
	struct err e = ERR_INIT;
	int status;

	(void)state;
	/* Crossed on purpose: each one's new number may be the other's old one. */
	fds[0] = (struct process_fd){ a, 4 };
	fds[1] = (struct process_fd){ b, 3 };
	assert_int_equal(process_run(&o, &out, NULL, 10000, &status, &e), 0);
	assert_string_equal(buf_str(&out), "/dev/zero\n/dev/null\nonly\n");
}

/* A builder of many packages has hundreds of descriptors open; those it hands over may have any number. */
static void test_many_open_descriptors(void **state)
{
	const char *argv[] = { "/bin/sh", "-c", "cat <&4; cat <&5; cat <&6; ls /proc/self/fd | wc -l", NULL };
	struct process_fd fds[3];
	struct process_options o = { .argv = argv, .fds = fds, .n_fds = 3, .working_dirfd = -1 };
	_cleanup_buf_ struct buf out = BUF_INIT(1000);
	int opened[420], status;
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(opened); i++) {
		opened[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		assert_true(opened[i] >= 0);
	}
	/* Each lies where another is put on its way. */
	for (int i = 0; i < 3; i++) {
		char text[2] = { (char)('c' - i), '\0' };
		int pair[2];

		assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
		assert_int_equal(write(pair[1], text, 1), 1);
		assert_int_equal(close(pair[1]), 0);
		fds[i] = (struct process_fd){ 302 - i, 4 + i };
		assert_int_equal(dup3(pair[0], 302 - i, O_CLOEXEC), 302 - i);
		assert_int_equal(close(pair[0]), 0);
	}
	if (process_run(&o, &out, NULL, 10000, &status, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(buf_str(&out), "cba7\n");
	for (size_t i = 0; i < ARRAY_SIZE(opened); i++)
		(void)close(opened[i]);
}

static void test_release_kills(void **state)
{
	const char *argv[] = { "sleep", "60", NULL };
	struct process_options o = { .argv = argv, .working_dirfd = -1 };
	struct process p = PROCESS_INIT;
	struct err e = ERR_INIT;
	pid_t pid;

	(void)state;
	assert_int_equal(process_start(&o, &p, &e), 0);
	pid = p.pid;
	process_release(&p);
	assert_int_equal(kill(pid, 0), -1);
	process_release(&p);
}

struct sum {
	unsigned long values[1000];
	size_t fail_at;
};

static int square(void *ctx, size_t i, struct err *e)
{
	struct sum *s = ctx;

	if (i >= s->fail_at)
		return err_set(e, -EBADMSG, "item %zu", i);
	s->values[i] = i * i;
	return 0;
}

static void test_pool(void **state)
{
	static struct sum s;
	struct err e = ERR_INIT;

	(void)state;
	s.fail_at = 1000;
	for (unsigned threads = 0; threads < 4; threads++) {
		memset(s.values, 0, sizeof(s.values));
		assert_int_equal(pool_run(threads, 1000, square, &s, &e), 0);
		for (size_t i = 0; i < 1000; i++)
			assert_int_equal(s.values[i], i * i);
	}
	s.fail_at = 500;
	assert_int_equal(pool_run(4, 1000, square, &s, &e), -EBADMSG);
	assert_string_equal(e.message, "item 500");
	assert_int_equal(pool_run(4, 0, square, &s, &e), 0);
}

static void test_sparse_copy_and_trees(void **state)
{
	char path[] = "/tmp/imgbuild-test-XXXXXX";
	_cleanup_close_ int dirfd = -1, src = -1, dst = -1;
	_cleanup_buf_ struct buf text = BUF_INIT(10);
	struct err e = ERR_INIT;
	struct stat st;
	char byte;

	(void)state;
	assert_non_null(mkdtemp(path));
	dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	src = openat(dirfd, "src", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	dst = openat(dirfd, "dst", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(src, 64 << 20), 0);
	assert_int_equal(pwrite_full(src, "x", 1, 40 << 20), 0);
	assert_int_equal(copy_file_sparse(src, dst, NULL, &e), 0);
	assert_int_equal(fstat(dst, &st), 0);
	assert_int_equal(st.st_size, 64 << 20);
	assert_true(st.st_blocks * 512 < 1 << 20);
	assert_int_equal(pread_full(dst, &byte, 1, 40 << 20), 1);
	assert_int_equal(byte, 'x');

	assert_int_equal(mkdir_parents_at(dirfd, "a/b/c", &e), 0);
	assert_int_equal(write_file_atomic_at(dirfd, "a/b/c/f", "0123456789", 10, 0444, &e), 0);
	assert_int_equal(read_file_at(dirfd, "a/b/c/f", false, &text, &e), 0);
	assert_string_equal(buf_str(&text), "0123456789");
	assert_int_equal(read_file_at(dirfd, "a/b/c/f", false, &text, &e), -E2BIG);
	assert_int_equal(symlinkat("f", dirfd, "a/b/c/l"), 0);
	assert_int_equal(read_file_at(dirfd, "a/b/c/l", false, &text, &e), -ELOOP);
	assert_int_equal(fchmodat(dirfd, "a/b/c", 0500, 0), 0);
	assert_int_equal(remove_tree_at(AT_FDCWD, path), 0);
	assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output_and_status),
		cmocka_unit_test(test_own_process_group),
		cmocka_unit_test(test_missing_program),
		cmocka_unit_test(test_too_much_output_and_time),
		cmocka_unit_test(test_clean_child),
		cmocka_unit_test(test_descriptors_are_handed_over),
		cmocka_unit_test(test_many_open_descriptors),
		cmocka_unit_test(test_release_kills),
		cmocka_unit_test(test_pool),
		cmocka_unit_test(test_sparse_copy_and_trees),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
