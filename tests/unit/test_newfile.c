/* A file that appears whole or not at all. */
#include "lib/io.h"
#include "lib/newfile.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int make_folder(void **state)
{
	const char *tmp = getenv("TMPDIR");
	char *path = NULL;

	if (asprintf(&path, "%s/newfile-XXXXXX", tmp ? tmp : "/tmp") < 0 || !mkdtemp(path) || chdir(path) < 0)
		return -1;
	*state = path;
	return 0;
}

static int remove_folder(void **state)
{
	(void)!chdir("/");
	(void)remove_tree_at(AT_FDCWD, *state);
	free(*state);
	return 0;
}

static size_t count_names(void)
{
	_cleanup_closedir_ DIR *dir = opendir(".");
	size_t n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	return n - 2;
}

static void it_appears_when_finished(void **state)
{
	_cleanup_new_file_ struct new_file f = NEW_FILE_INIT;
	_cleanup_buf_ struct buf text = BUF_INIT(64);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(new_file_open("out", &f, &e), 0);
	assert_int_equal(write_full(f.fd, "whole", 5), 0);
	assert_int_not_equal(access("out", F_OK), 0);
	assert_int_equal(new_file_finish(&f, &e), 0);
	assert_int_equal(read_file_at(AT_FDCWD, "out", false, &text, &e), 0);
	assert_string_equal(buf_str(&text), "whole");
	assert_int_equal(new_file_open("out", &f, &e), -EEXIST);
	assert_int_equal(err_exit_status(&e), ERR_KIND_USAGE);
	assert_int_equal(count_names(), 1);
}

static void what_is_not_finished_leaves_nothing(void **state)
{
	struct new_file f = NEW_FILE_INIT;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(new_file_open("out", &f, &e), 0);
	new_file_release(&f);
	assert_int_equal(count_names(), 0);
	assert_int_equal(new_file_open("none/out", &f, &e), -ENOENT);
	assert_non_null(strstr(e.message, "No such file"));
	assert_int_equal(err_exit_status(&e), ERR_KIND_HOST);
	new_file_release(&f);
}

static void another_of_the_name_is_not_replaced(void **state)
{
	/* Without a name until then, and with one beside it. */
	for (int named = 0; named < 2; named++) {
		_cleanup_new_file_ struct new_file f = NEW_FILE_INIT;
		_cleanup_buf_ struct buf text = BUF_INIT(64);
		struct err e = ERR_INIT;

		(void)state;
		assert_int_equal(new_file_open("out", &f, &e), 0);
		if (named && !f.temporary) {
			f.temporary = strdup("out.tmp");
			close_fdp(&f.fd);
			f.fd = open("out.tmp", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		}
		assert_int_equal(write_file_atomic_at(AT_FDCWD, "out", "theirs", 6, 0644, &e), 0);
		assert_int_equal(new_file_finish(&f, &e), -EEXIST);
		new_file_release(&f);
		assert_int_equal(read_file_at(AT_FDCWD, "out", false, &text, &e), 0);
		assert_string_equal(buf_str(&text), "theirs");
		assert_int_equal(count_names(), 1);
		assert_int_equal(unlink("out"), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(it_appears_when_finished, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(what_is_not_finished_leaves_nothing, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(another_of_the_name_is_not_replaced, make_folder, remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
