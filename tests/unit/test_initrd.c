/* The composition of the initrd, judged by cpio(1), and the guest's memory. */
#include "initrd/initrd.h"
#include "initrd/protocol.h"
#include "lib/io.h"
#include "lib/num.h"
#include "lib/process.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static int temporary_file(const char *text)
{
	int fd = memfd_create("initrd", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write_full(fd, text, strlen(text)), 0);
	return fd;
}

static void judge(const char *const *argv, int fd, struct buf *out)
{
	struct err e = ERR_INIT;
	struct process_fd fds[] = { { .fd = fd, .child_fd = 0 } };
	struct process_options options = { .argv = argv, .fds = fds, .n_fds = 1, .working_dirfd = -1 };
	int status = -1;

	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(process_run(&options, out, NULL, 60000, &status, &e), 0);
	assert_int_equal(status, 0);
}

static void test_composition(void **state)
{
	char deb[INITRD_PATH_SIZE], one[INITRD_PATH_SIZE], two[INITRD_PATH_SIZE];
	struct err e = ERR_INIT;
	struct initrd *rd = NULL;
	struct initrd_size size;
	struct job job;
	struct buf out = BUF_INIT(1 << 20);
	int fd = temporary_file(""), file = temporary_file("contents");

	(void)state;
	job_init(&job);
	assert_int_equal(initrd_new(fd, ARCH_AMD64, &rd, &e), 0);
	assert_int_equal(initrd_add_module(rd, &job, "virtio", "module", 6, &e), 0);
	assert_int_equal(initrd_add_module(rd, &job, "virtio_blk", "module", 6, &e), 0);
	assert_int_equal(initrd_add_deb(rd, "a_1%3a2_all.deb", file, deb, &e), 0);
	assert_string_equal(deb, "/imgbuild/debs/a_1%3a2_all.deb");
	assert_int_equal(initrd_add_deb(rd, "../x.deb", file, deb, &e), -EINVAL);
	/* The same label twice gives two names, and nothing in a label can lead out of its folder. */
	assert_int_equal(initrd_add_bytes(rd, "../../etc/pass wd", 0755, "x", 1, one, &e), 0);
	assert_int_equal(initrd_add_fd(rd, "../../etc/pass wd", 0644, file, two, &e), 0);
	assert_string_not_equal(one, two);
	assert_null(strstr(one, "/../"));
	assert_int_equal(initrd_add_input(rd, "words", file, &e), 0);
	assert_int_equal(initrd_add_input(rd, "a/b", file, &e), -EINVAL);
	assert_int_equal(job_add(&job, &e, "dpkg-unpack", "/imgbuild/debs/a_1%3a2_all.deb", NULL), 0);
	assert_int_equal(initrd_finish(rd, &job, &size, &e), 0);
	assert_int_equal(lseek(fd, 0, SEEK_END), size.archive_bytes);
	initrd_free(rd);

	judge((const char *const[]){ "cpio", "-i", "--quiet", "--to-stdout", "imgbuild/job", NULL }, fd,
		&out);
	assert_string_equal(buf_str(&out), JOB_MAGIC "\nmodule virtio /imgbuild/modules/000-virtio.ko\n"
						     "module virtio_blk /imgbuild/modules/001-virtio_blk.ko\n"
						     "dpkg-unpack /imgbuild/debs/a_1%253a2_all.deb\n");
	buf_reset(&out);
	judge((const char *const[]){ "cpio", "-itv", "--quiet", "--numeric-uid-gid", NULL }, fd, &out);
	assert_non_null(strstr(buf_str(&out), "-rwxr-xr-x   1 0        0"));
	assert_non_null(strstr(buf_str(&out), " init\n"));
	assert_non_null(strstr(buf_str(&out), " dev/console\n"));
	assert_non_null(strstr(buf_str(&out), " imgbuild/inputs/words\n"));
	assert_non_null(strstr(buf_str(&out), one + 1));
	buf_release(&out);
	job_release(&job);
	close(file);
	close(fd);
}

static void test_entry(void **state)
{
	const struct initrd_module modules[] = { { "virtio", "m", 1 }, { "virtio_blk", "m", 1 } };
	struct err e = ERR_INIT;
	struct buf out = BUF_INIT(1 << 20);
	int fd = temporary_file("");

	(void)state;
	assert_int_equal(initrd_write_entry(fd, ARCH_AMD64, modules, 2, &e), 0);
	judge((const char *const[]){ "cpio", "-i", "--quiet", "--to-stdout", "imgbuild/job", NULL }, fd,
		&out);
	assert_string_equal(buf_str(&out),
		JOB_MAGIC "\nmodule virtio /imgbuild/modules/000-virtio.ko\n"
			  "module virtio_blk /imgbuild/modules/001-virtio_blk.ko\nboot\n");
	buf_release(&out);
	close(fd);
}

static void test_memory(void **state)
{
	struct initrd_size small = { .archive_bytes = MIB(2), .content_bytes = MIB(2) };
	struct initrd_size large = { .archive_bytes = MIB(2000), .content_bytes = MIB(2010) };
	struct err e = ERR_INIT;
	uint64_t mib = 0;

	(void)state;
	/* A small one is bound by what the steps need, a large one by file and tree side by side. */
	assert_in_range(initrd_guest_memory_mib(&small), 512, 640);
	assert_in_range(initrd_guest_memory_mib(&large), 4010 + 128, 4010 + 384);
	assert_int_equal(initrd_choose_memory(&small, 0, 2048, &mib, &e), 0);
	assert_int_equal(mib, 2048);
	assert_int_equal(initrd_choose_memory(&large, 0, 2048, &mib, &e), 0);
	assert_int_equal(mib, initrd_guest_memory_mib(&large));
	assert_int_equal(initrd_choose_memory(&large, 8192, 2048, &mib, &e), 0);
	assert_int_equal(mib, 8192);
	assert_int_equal(initrd_choose_memory(&small, 256, 2048, &mib, &e), 0);
	assert_int_equal(mib, 256);
	assert_int_equal(initrd_choose_memory(&large, 4010 + 128 + 32, 2048, &mib, &e), 0);
	assert_int_equal(initrd_choose_memory(&large, 4010 + 128 + 31, 2048, &mib, &e), -E2BIG);
	assert_int_equal(e.kind, ERR_KIND_USAGE);
	assert_non_null(strstr(e.message, "2010"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_composition),
		cmocka_unit_test(test_entry),
		cmocka_unit_test(test_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
