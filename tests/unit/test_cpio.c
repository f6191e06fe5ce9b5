/* The newc writer, judged by cpio(1). */
#include "initrd/cpio.h"
#include "lib/digest.h"
#include "lib/io.h"
#include "lib/process.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

static int temporary_file(void)
{
	int fd = memfd_create("cpio", MFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* What a program says about the archive given as stdin. */
static void judge(const char *const *argv, int fd, struct buf *out)
{
	struct err e = ERR_INIT;
	struct process_fd fds[] = { { .fd = fd, .child_fd = 0 } };
	struct process_options options = { .argv = argv, .fds = fds, .n_fds = 1, .working_dirfd = -1 };
	struct buf err_out = BUF_INIT(1 << 20);
	int status = -1;

	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(process_run(&options, out, &err_out, 60000, &status, &e), 0);
	if (status != 0)
		fail_msg("%s: status %d: %s", argv[0], status, buf_str(&err_out));
	buf_release(&err_out);
}

static const char *const list_argv[] = { "cpio", "-itv", "--quiet", "--numeric-uid-gid", NULL };

/* A tree with what the walk must handle. Returns its descriptor; *path is freed by the caller. */
static int make_tree(char **path, bool reversed)
{
	const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	static const char *const names[] = { "a", "b", "sub/c", "sub/.hidden", "Z" };
	int fd;

	assert_true(asprintf(path, "%s/imgbuild-cpio-XXXXXX", tmp) > 0);
	assert_non_null(mkdtemp(*path));
	fd = open(*path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(mkdirat(fd, "sub", 0700), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *name = names[reversed ? ARRAY_SIZE(names) - 1 - i : i];
		int file = openat(fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);

		assert_int_equal(write_full(file, name, strlen(name)), 0);
		/* What portable_mode() leaves out is not in a tree's digest, so it must not be packed. */
		assert_int_equal(fchmod(file, name[0] == 'b' ? 04700 : 04640), 0);
		close(file);
	}
	assert_int_equal(symlinkat("../a", fd, "sub/link"), 0);
	assert_int_equal(linkat(fd, "a", fd, "hardlink", 0), 0);
	return fd;
}

static void remove_tree(int *fd, char *path)
{
	close_fdp(fd);
	(void)remove_tree_at(AT_FDCWD, path);
	free(path);
}

static void write_archive(int fd, int tree_fd, uint64_t *ret_archive_bytes)
{
	static char big[3 << 20];
	struct err e = ERR_INIT;
	struct cpio *c = NULL;
	int big_fd = temporary_file();
	uint64_t content_bytes = 0;

	memset(big, 'B', sizeof(big));
	assert_int_equal(write_full(big_fd, big, sizeof(big) - 1), 0);
	assert_int_equal(cpio_new(fd, &c, &e), 0);
	assert_int_equal(cpio_add_dir(c, "/dev", 0755, &e), 0);
	assert_int_equal(cpio_add_chardev(c, "/dev/console", 0600, 5, 1, &e), 0);
	assert_int_equal(cpio_add_bytes(c, "/init", 0755, "#!/bin/sh\n", 10, &e), 0);
	assert_int_equal(cpio_add_bytes(c, "/deep/er/file", 0600, "", 0, &e), 0);
	/* Sizes around the writer's own buffer, so that a large write after small ones keeps its place. */
	assert_int_equal(cpio_add_fd(c, "/big", 0644, big_fd, &e), 0);
	assert_int_equal(cpio_add_bytes(c, "/half", 0644, big, 700000, &e), 0);
	assert_int_equal(cpio_add_bytes(c, "/small", 0644, "s", 1, &e), 0);
	assert_int_equal(cpio_add_symlink(c, "/lib", "usr/lib", &e), 0);
	if (tree_fd >= 0)
		assert_int_equal(cpio_add_tree(c, "/tree", tree_fd, &e), 0);
	assert_int_equal(cpio_finish(c, ret_archive_bytes, &content_bytes, &e), 0);
	assert_true(content_bytes >= sizeof(big) + 700000 && content_bytes < sizeof(big) + 800000);
	cpio_free(c);
	close(big_fd);
}

static void test_listing(void **state)
{
	static const char *const expected[] = {
		"drwxr-xr-x   1 0        0               0 Jan  1  1970 dev",
		"crw-------   1 0        0          5,   1 Jan  1  1970 dev/console",
		"-rwxr-xr-x   1 0        0              10 Jan  1  1970 init",
		"drwxr-xr-x   1 0        0               0 Jan  1  1970 deep/er",
		"-rw-------   1 0        0               0 Jan  1  1970 deep/er/file",
		"-rw-r--r--   1 0        0         3145727 Jan  1  1970 big",
		"-rw-r--r--   1 0        0          700000 Jan  1  1970 half",
		"lrwxrwxrwx   1 0        0               7 Jan  1  1970 lib -> usr/lib",
		"drwxr-xr-x   1 0        0               0 Jan  1  1970 tree\n",
		"-rw-r--r--   1 0        0               1 Jan  1  1970 tree/a\n",
		"-rwxr-xr-x   1 0        0               1 Jan  1  1970 tree/b\n",
		"-rw-r--r--   1 0        0               1 Jan  1  1970 tree/hardlink",
		"drwxr-xr-x   1 0        0               0 Jan  1  1970 tree/sub",
		"-rw-r--r--   1 0        0              11 Jan  1  1970 tree/sub/.hidden",
		"lrwxrwxrwx   1 0        0               4 Jan  1  1970 tree/sub/link -> ../a",
	};
	char *path = NULL;
	int tree_fd = make_tree(&path, false), fd = temporary_file();
	struct buf out = BUF_INIT(1 << 20);
	uint64_t archive_bytes = 0;
	const char *at;

	(void)state;
	write_archive(fd, tree_fd, &archive_bytes);
	assert_int_equal(lseek(fd, 0, SEEK_END), archive_bytes);
	judge(list_argv, fd, &out);
	at = buf_str(&out);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		at = strstr(at, expected[i]);
		if (!at)
			fail_msg("not there, or not in this place: %s\n%s", expected[i], buf_str(&out));
	}
	buf_release(&out);
	close(fd);
	remove_tree(&tree_fd, path);
}

static void test_contents(void **state)
{
	static const char *const argv[] = { "cpio", "-i", "--quiet", "--to-stdout", "half", "small",
		"tree/sub/c", NULL };
	char *path = NULL;
	int tree_fd = make_tree(&path, false), fd = temporary_file();
	struct buf out = BUF_INIT(1 << 20);

	(void)state;
	write_archive(fd, tree_fd, NULL);
	judge(argv, fd, &out);
	assert_int_equal(out.len, 700000 + 1 + 5);
	assert_memory_equal(out.data + 699999, "Bssub/c", 7);
	buf_release(&out);
	close(fd);
	remove_tree(&tree_fd, path);
}

static void test_same_bytes(void **state)
{
	char *path_a = NULL, *path_b = NULL;
	int tree_a = make_tree(&path_a, false), tree_b = make_tree(&path_b, true), a = temporary_file(),
	    b = temporary_file();
	struct digest digest_a, digest_b;
	struct err e = ERR_INIT;

	(void)state;
	write_archive(a, tree_a, NULL);
	write_archive(b, tree_b, NULL);
	assert_int_equal(digest_fd(DIGEST_SHA256, a, UINT64_MAX, &digest_a, &e), 0);
	assert_int_equal(digest_fd(DIGEST_SHA256, b, UINT64_MAX, &digest_b, &e), 0);
	assert_true(digest_equal(&digest_a, &digest_b));
	close(a);
	close(b);
	remove_tree(&tree_a, path_a);
	remove_tree(&tree_b, path_b);
}

static void test_bad_names(void **state)
{
	static const char *const names[] = { "", "/", "relative", "/a//b", "/a/", "/a/./b", "/a/../b", "/..",
		"//a" };
	char long_name[CPIO_NAME_MAX_BYTES + 2];
	struct err e = ERR_INIT;
	struct cpio *c = NULL;
	int fd = temporary_file();

	(void)state;
	assert_int_equal(cpio_new(fd, &c, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_int_equal(cpio_add_dir(c, names[i], 0755, &e), -EINVAL);
	memset(long_name, 'x', sizeof(long_name));
	long_name[0] = '/';
	long_name[CPIO_NAME_MAX_BYTES + 1] = '\0';
	assert_int_equal(cpio_add_dir(c, long_name, 0755, &e), -ENAMETOOLONG);
	long_name[CPIO_NAME_MAX_BYTES] = '\0';
	assert_int_equal(cpio_add_dir(c, long_name, 0755, &e), 0);
	assert_int_equal(cpio_add_dir(c, "/d", 0700, &e), 0);
	assert_int_equal(cpio_add_dir(c, "/d", 0755, &e), 0);
	assert_int_equal(cpio_add_bytes(c, "/d", 0644, "x", 1, &e), -EEXIST);
	assert_int_equal(cpio_add_bytes(c, "/f", 0644, "x", 1, &e), 0);
	assert_int_equal(cpio_add_bytes(c, "/f", 0644, "x", 1, &e), -EEXIST);
	assert_int_equal(cpio_add_dir(c, "/f", 0755, &e), -EEXIST);
	assert_int_equal(cpio_add_bytes(c, "/f/below", 0644, "x", 1, &e), -EEXIST);
	assert_int_equal(cpio_add_symlink(c, "/l", "", &e), -EINVAL);
	cpio_free(c);
	close(fd);
}

static void test_four_gib(void **state)
{
	struct err e = ERR_INIT;
	struct cpio *c = NULL;
	int fd = temporary_file(), huge = temporary_file();

	(void)state;
	assert_int_equal(ftruncate(huge, (off_t)UINT32_MAX + 1), 0);
	assert_int_equal(cpio_new(fd, &c, &e), 0);
	assert_int_equal(cpio_add_fd(c, "/huge", 0644, huge, &e), -EFBIG);
	assert_non_null(strstr(e.message, "/huge"));
	assert_non_null(strstr(e.message, "4294967296"));
	cpio_free(c);
	close(fd);
	close(huge);
}

static void test_no_devices_or_pipes(void **state)
{
	char *path = NULL;
	int tree_fd = make_tree(&path, false), fd = temporary_file();
	struct err e = ERR_INIT;
	struct cpio *c = NULL;

	(void)state;
	assert_int_equal(mkfifoat(tree_fd, "sub/pipe", 0600), 0);
	assert_int_equal(cpio_new(fd, &c, &e), 0);
	assert_int_equal(cpio_add_tree(c, "/tree", tree_fd, &e), -EINVAL);
	assert_non_null(strstr(e.message, "/tree/sub/pipe"));
	cpio_free(c);
	close(fd);
	remove_tree(&tree_fd, path);
}

static void test_many_names(void **state)
{
	struct err e = ERR_INIT;
	struct cpio *c = NULL;
	struct buf out = BUF_INIT(8 << 20);
	int fd = temporary_file(), lines = 0;

	(void)state;
	assert_int_equal(cpio_new(fd, &c, &e), 0);
	for (int i = 0; i < 5000; i++) {
		char name[64];

		(void)snprintf(name, sizeof(name), "/d%d/f%d", i % 70, i);
		assert_int_equal(cpio_add_bytes(c, name, 0644, name, strlen(name), &e), 0);
	}
	assert_int_equal(cpio_finish(c, NULL, NULL, &e), 0);
	cpio_free(c);
	judge((const char *const[]){ "cpio", "-it", "--quiet", NULL }, fd, &out);
	for (size_t i = 0; i < out.len; i++)
		lines += out.data[i] == '\n';
	assert_int_equal(lines, 5070);
	buf_release(&out);
	close(fd);
}

static void test_output_error(void **state)
{
	static char big[4 << 20];
	struct err e = ERR_INIT;
	struct cpio *c = NULL;
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	(void)state;
	assert_int_equal(cpio_new(fd, &c, &e), 0);
	assert_int_equal(cpio_add_bytes(c, "/big", 0644, big, sizeof(big), &e), -ENOSPC);
	cpio_free(c);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_listing),
		cmocka_unit_test(test_contents),
		cmocka_unit_test(test_same_bytes),
		cmocka_unit_test(test_bad_names),
		cmocka_unit_test(test_four_gib),
		cmocka_unit_test(test_many_names),
		cmocka_unit_test(test_no_devices_or_pipes),
		cmocka_unit_test(test_output_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
