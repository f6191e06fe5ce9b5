/* What the front and the engine share of a plan: above all that local inputs are those whose digests were taken. */
#include "builder/prepare.h"
#include "lib/io.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static void put(const char *folder, const char *name, const char *text, mode_t mode)
{
	_cleanup_free_ char *path = NULL;
	struct err e = ERR_INIT;

	assert_true(asprintf(&path, "%s/%s", folder, name) > 0);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, text, strlen(text), mode, &e), 0);
}

static int make_folder(void **state)
{
	const char *tmp = getenv("TMPDIR");
	char *path = NULL, *sub = NULL;

	if (asprintf(&path, "%s/prepare-XXXXXX", tmp ? tmp : "/tmp") < 0 || !mkdtemp(path) ||
		asprintf(&sub, "%s/tree", path) < 0 || mkdir(sub, 0755) < 0)
		return -1;
	free(sub);
	put(path, "plan.toml",
		"[base.amd64]\nurl = \"base\"\n[kernel.amd64]\nfile = \"kernel\"\n[files.\"/a\"]\nsource = \"file\"\n"
		"[files.\"/b\"]\nsource = \"tree\"\n[inputs.c]\nsource = \"input\"\n[setup]\nfile = \"setup\"\n",
		0644);
	put(path, "base", "base", 0644);
	put(path, "kernel", "kernel", 0644);
	put(path, "file", "file", 0644);
	put(path, "tree/x", "x", 0644);
	put(path, "input", "input", 0644);
	put(path, "setup", "setup", 0644);
	*state = path;
	return 0;
}

static int remove_folder(void **state)
{
	(void)remove_tree_at(AT_FDCWD, *state);
	free(*state);
	return 0;
}

static void load(const char *folder, struct prepared *p)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_free_ char *path = NULL;
	struct err e = ERR_INIT;

	assert_true(asprintf(&path, "%s/plan.toml", folder) > 0);
	if (prepared_load(path, ARCH_AMD64, false, NULL, NULL, p, &faults, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(p->key_error, 0);
	assert_int_equal(prepared_confirm_locals(p, NULL, &e), 0);
}

static void a_local_input_that_changed_is_noticed(void **state)
{
	static const struct {
		const char *name, *text, *said;
		mode_t mode;
	} changes[] = {
		{ "kernel", "kernel2", "`kernel` was changed", 0644 },
		{ "file", "file2", "`file` was changed", 0644 },
		{ "file", "file", "`file` was changed", 0755 },
		{ "tree/x", "y", "`tree` was changed", 0644 },
		{ "tree/new", "", "`tree` was changed", 0644 },
		{ "input", "Input", "`input` was changed", 0644 },
		{ "setup", "setup2", "`setup` was changed", 0644 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		_cleanup_prepared_ struct prepared p = { 0 };
		struct err e = ERR_INIT;

		load(*state, &p);
		put(*state, changes[i].name, changes[i].text, changes[i].mode);
		assert_int_equal(prepared_confirm_locals(&p, NULL, &e), -EBUSY);
		assert_non_null(strstr(e.message, changes[i].said));
		assert_int_equal(err_exit_status(&e), ERR_KIND_INPUT);
	}
}

/* Already for a hit: a base that was replaced by another has another key, and must not be taken for what the plan means. */
static void a_sha512_of_the_plan_is_held_to(void **state)
{
	static const char *const names[] = { "base", "kernel" };

	for (size_t i = 0; i < 2 * ARRAY_SIZE(names); i++) {
		const char *name = names[i / 2];
		_cleanup_prepared_ struct prepared p = { 0 };
		_cleanup_plan_faults_ struct plan_faults faults = { 0 };
		_cleanup_free_ char *path = NULL;
		char hex[DIGEST_HEX_SIZE], text[1024];
		struct err e = ERR_INIT;
		struct digest d;

		assert_int_equal(digest_bytes(DIGEST_SHA512, name, strlen(name), &d, &e), 0);
		d.bytes[0] ^= i % 2 ? 1 : 0;
		(void)digest_hex(&d, hex);
		(void)snprintf(text, sizeof(text), "[base.amd64]\nurl = \"base\"\n%s%s%s[kernel.amd64]\nurl = \"kernel\"\n%s%s%s",
			i / 2 ? "" : "sha512 = \"", i / 2 ? "" : hex, i / 2 ? "" : "\"\n", i / 2 ? "sha512 = \"" : "",
			i / 2 ? hex : "", i / 2 ? "\"\n" : "");
		put(*state, "plan.toml", text, 0644);
		assert_true(asprintf(&path, "%s/plan.toml", (const char *)*state) > 0);
		assert_int_equal(prepared_load(path, ARCH_AMD64, false, NULL, NULL, &p, &faults, &e), i % 2 ? -EBADMSG : 0);
		assert_true(i % 2 == 0 || (strstr(e.message, name) && strstr(e.message, hex) && err_exit_status(&e) == ERR_KIND_INPUT));
	}
}

/* Its root lies in the cache by its digest; what has become of the file since is no matter. */
static void the_base_may_change(void **state)
{
	_cleanup_prepared_ struct prepared p = { 0 };
	struct err e = ERR_INIT;

	load(*state, &p);
	put(*state, "base", "another", 0644);
	assert_int_equal(prepared_confirm_locals(&p, NULL, &e), 0);
}

static void a_local_input_that_is_gone_is_noticed(void **state)
{
	_cleanup_prepared_ struct prepared p = { 0 };
	_cleanup_free_ char *path = NULL;
	struct err e = ERR_INIT;

	load(*state, &p);
	assert_true(asprintf(&path, "%s/input", (const char *)*state) > 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(prepared_confirm_locals(&p, NULL, &e), -ENOENT);
	assert_int_equal(err_exit_status(&e), ERR_KIND_INPUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_local_input_that_changed_is_noticed, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(a_sha512_of_the_plan_is_held_to, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(the_base_may_change, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(a_local_input_that_is_gone_is_noticed, make_folder, remove_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
