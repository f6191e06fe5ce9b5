/* The job text that the guest reads. */
#include "initrd/job.h"
#include "initrd/protocol.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_verbs_and_fields(void **state)
{
	struct err e = ERR_INIT;
	struct strv units = { 0 };
	struct job job;

	(void)state;
	job_init(&job);
	assert_string_equal(job_text(&job), JOB_MAGIC "\n");
	assert_int_equal(job_add_clock(&job, 1700000000, &e), 0);
	assert_int_equal(job_add(&job, &e, "root", "/dev/vda", "ext4", NULL), 0);
	assert_int_equal(job_add(&job, &e, "grow", NULL), 0);
	assert_int_equal(job_add_file(&job, "/etc/a b", 04755, "root:root", "/imgbuild/payload/0", &e), 0);
	assert_int_equal(job_add_file(&job, "/etc/100%", 0, "", "\xc3\xbc\n\x7f", &e), 0);
	assert_int_equal(strv_add(&units, "chrony"), 0);
	assert_int_equal(strv_add(&units, "ssh"), 0);
	assert_int_equal(job_add_list(&job, "enable", &units, &e), 0);
	assert_string_equal(job_text(&job), JOB_MAGIC "\n"
						      "clock 1700000000\n"
						      "root /dev/vda ext4\n"
						      "grow\n"
						      "file /etc/a%20b 4755 root:root /imgbuild/payload/0\n"
						      "file /etc/100%25 0000 % %C3%BC%0A%7F\n"
						      "enable chrony ssh\n");
	strv_release(&units);
	job_release(&job);
	job_release(&job);
}

static void test_the_limit(void **state)
{
	static char field[1 << 20];
	struct err e = ERR_INIT;
	struct job job;
	int r = 0;

	(void)state;
	memset(field, 'x', sizeof(field) - 1);
	job_init(&job);
	for (int i = 0; i < 15; i++)
		assert_int_equal(job_add(&job, &e, "remove", field, NULL), 0);
	for (int i = 0; i < 2 && r == 0; i++)
		r = job_add(&job, &e, "remove", field, NULL);
	assert_int_equal(r, -E2BIG);
	assert_int_equal(e.kind, ERR_KIND_USAGE);
	job_release(&job);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verbs_and_fields),
		cmocka_unit_test(test_the_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
