/* builder/vm/accel: the choice between KVM and TCG, and the memory of a KVM that does not work. */
#include "builder/vm/accel.h"

#include "lib/io.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct fixture {
	char dir[256];
	int dirfd;
};

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");
	struct fixture *f = calloc(1, sizeof(*f));

	(void)snprintf(f->dir, sizeof(f->dir), "%s/imgbuild-accel.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	f->dirfd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->dirfd >= 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	(void)remove_tree_at(AT_FDCWD, f->dir);
	close_fdp(&f->dirfd);
	free(f);
	return 0;
}

static int works(struct err *e)
{
	(void)e;
	return 0;
}

static int denied(struct err *e)
{
	return err_set(e, -EACCES, "cannot open /dev/kvm: Permission denied");
}

static struct accel_options options(const struct fixture *f)
{
	return (struct accel_options){ .arch = arch_native(),
		.memory_dirfd = f->dirfd,
		.memory_path = "/some/cache",
		.try_kvm = works,
		.boot_id = "boot-1",
		.now = 1000000 };
}

static struct accel_decision choose(const struct accel_options *o)
{
	struct accel_decision d = { 0 };
	struct err e = ERR_INIT;

	if (accel_choose(o, &d, &e) < 0)
		fail_msg("%s", e.message);
	return d;
}

static void test_words(void **state)
{
	enum accel_choice c = ACCEL_TCG;

	(void)state;
	assert_int_equal(accel_parse("auto", &c), 0);
	assert_int_equal(c, ACCEL_AUTO);
	assert_int_equal(accel_parse("kvm", &c), 0);
	assert_int_equal(c, ACCEL_KVM);
	assert_int_equal(accel_parse("KVM", &c), -EINVAL);
	assert_int_equal(c, ACCEL_KVM);
	assert_string_equal(accel_choice_name(ACCEL_TCG), "tcg");
}

static void test_auto(void **state)
{
	struct accel_options o = options(*state);
	struct accel_decision d = choose(&o);

	assert_true(d.kvm);
	assert_true(d.may_fall_back);
	assert_string_equal(d.note, "");

	o.try_kvm = denied;
	d = choose(&o);
	assert_false(d.kvm);
	assert_non_null(strstr(d.note, "Permission denied"));

	/* Another architecture is no surprise to anyone. */
	o.try_kvm = works;
	o.arch = arch_native() == ARCH_AMD64 ? ARCH_ARM64 : ARCH_AMD64;
	d = choose(&o);
	assert_false(d.kvm);
	assert_string_equal(d.note, "");
}

static void test_forced(void **state)
{
	struct accel_options o = options(*state);
	struct accel_decision d;
	struct err e = ERR_INIT;

	o.choice = ACCEL_TCG;
	d = choose(&o);
	assert_false(d.kvm);
	o.choice = ACCEL_KVM;
	d = choose(&o);
	assert_true(d.kvm);
	assert_false(d.may_fall_back);

	o.try_kvm = denied;
	assert_int_equal(accel_choose(&o, &d, &e), -EACCES);
	assert_int_equal(err_exit_status(&e), 4);
	assert_non_null(strstr(e.message, "group `kvm`"));
	o.try_kvm = works;
	o.arch = arch_native() == ARCH_AMD64 ? ARCH_ARM64 : ARCH_AMD64;
	err_clear(&e);
	assert_int_equal(accel_choose(&o, &d, &e), -ENODEV);
	assert_int_equal(err_exit_status(&e), 4);
}

static void test_remembers_for_a_day(void **state)
{
	struct accel_options o = options(*state);
	struct accel_decision d;
	struct err e = ERR_INIT;

	assert_int_equal(accel_remember(&o, "the guest did\nnot run", &e), 0);
	o.now += 120;
	d = choose(&o);
	assert_false(d.kvm);
	assert_non_null(strstr(d.note, "2 minutes ago (the guest did not run)"));
	assert_non_null(strstr(d.note, "delete /some/cache/" ACCEL_MEMORY_FILE));
	assert_non_null(strstr(d.note, "--accel kvm"));
	o.choice = ACCEL_KVM;
	assert_true(choose(&o).kvm);
	o.choice = ACCEL_AUTO;

	o.now = 1000000 + ACCEL_MEMORY_SECONDS - 1;
	assert_false(choose(&o).kvm);
	o.now++;
	assert_true(choose(&o).kvm);
	o.now = 999999; /* from the future */
	assert_true(choose(&o).kvm);
	o.now = 1000000;
	o.boot_id = "boot-2";
	assert_true(choose(&o).kvm);
	o.boot_id = "boot-1";
	assert_false(choose(&o).kvm);
	accel_forget(&o);
	assert_true(choose(&o).kvm);
	accel_forget(&o);
}

static void test_survives_a_damaged_memory(void **state)
{
	static const char *const texts[] = { "", "{", "[]", "{\"v\":1}", "{\"v\":1,\"at\":\"x\",\"boot_id\":\"boot-1\",\"reason\":\"\"}",
		"{\"v\":1,\"at\":-5,\"boot_id\":\"boot-1\",\"reason\":\"\"}",
		"{\"v\":1,\"at\":1000000,\"boot_id\":7,\"reason\":\"\"}", "{\"v\":2,\"at\":1000000,\"boot_id\":\"boot-1\",\"reason\":\"\"}" };
	const struct fixture *f = *state;
	struct accel_options o = options(f);
	struct err e = ERR_INIT;
	char big[8192];

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		assert_int_equal(write_file_atomic_at(f->dirfd, ACCEL_MEMORY_FILE, texts[i], strlen(texts[i]), 0644, &e), 0);
		assert_true(choose(&o).kvm);
	}
	memset(big, ' ', sizeof(big));
	assert_int_equal(write_file_atomic_at(f->dirfd, ACCEL_MEMORY_FILE, big, sizeof(big), 0644, &e), 0);
	assert_true(choose(&o).kvm);
	o.memory_dirfd = -1;
	assert_true(choose(&o).kvm);
	assert_int_equal(accel_remember(&o, "x", &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test_setup_teardown(test_auto, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forced, setup, teardown),
		cmocka_unit_test_setup_teardown(test_remembers_for_a_day, setup, teardown),
		cmocka_unit_test_setup_teardown(test_survives_a_damaged_memory, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
