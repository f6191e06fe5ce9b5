#include "builder/cli/options.h"
#include "builder/cli/terminal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int parse(struct options *o, struct err *e, const char *line)
{
	static char copy[512]; /* outlives the options, which borrow from it */
	char *argv[32] = { (char *)(uintptr_t)"imgbuild" }, *save = NULL;
	int argc = 1;

	(void)snprintf(copy, sizeof(copy), "%s", line);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[argc++] = word;
	return options_parse(argc, argv, o, e);
}

static void accept(const char *line, enum verb verb, size_t n_args)
{
	struct options o;
	struct err e = ERR_INIT;

	if (parse(&o, &e, line) != 0)
		fail_msg("%s: %s", line, e.message);
	assert_int_equal(o.verb, verb);
	assert_int_equal(o.args.n, n_args);
	options_release(&o);
}

static void refuse(const char *line, const char *expected)
{
	struct options o;
	struct err e = ERR_INIT;

	assert_int_equal(parse(&o, &e, line), -EINVAL);
	assert_int_equal(err_exit_status(&e), 2);
	if (!strstr(e.message, expected))
		fail_msg("`%s` says: %s", line, e.message);
	options_release(&o);
}

static void test_verbs(void **state)
{
	(void)state;
	accept("plan.toml", VERB_BUILD, 1);
	accept("build plan.toml", VERB_BUILD, 1);
	accept("--offline plan.toml --locked", VERB_BUILD, 1);
	accept("key --json plan.toml", VERB_KEY, 1);
	accept("extract disk.qcow2 -o out.raw", VERB_EXTRACT, 1);
	accept("clone abc out", VERB_CLONE, 2);
	accept("lock plan.toml --update", VERB_LOCK, 1);
	accept("lock --update plan.toml podman kernel", VERB_LOCK, 3);
	accept("vendor plan.toml -o dir --locked --offline --blobs a --blobs=b --mirror host --arch arm64", VERB_VENDOR, 1);
	accept("ls", VERB_LS, 0);
	accept("build -- --odd-name.toml", VERB_BUILD, 1);
	accept("--help", VERB_HELP, 0);
	accept("build --help", VERB_BUILD, 0);
}

static void test_refusals_help(void **state)
{
	(void)state;
	refuse("", "imgbuild PLAN");
	refuse("biuld", "did you mean `build`");
	refuse("ls --ofline", "did you mean --offline");
	refuse("build plan.toml --arch=mips", "amd64 or arm64");
	refuse("build plan.toml --accel=xen", "auto, kvm, tcg");
	refuse("build", "usage: imgbuild build PLAN");
	refuse("key plan.toml --blobs x", "no meaning for `imgbuild key`");
	refuse("vendor plan.toml --accel tcg", "no meaning for `imgbuild vendor`");
	refuse("ls --offline", "no meaning for `imgbuild ls`");
	refuse("build plan.toml --arch", "needs an argument");
	refuse("build plan.toml --offline=yes", "takes no argument");
	refuse("build plan.toml --mirror nonsense", "ORIGIN=URL");
	refuse("lock plan.toml podman", "imgbuild lock plan.toml --update podman");
	refuse("lock --update", "lock PLAN --update");
	refuse("lock --update podman plan.toml", "the plan comes first");
	refuse("lock plan.toml --update --check", "--check does not");
	refuse("lock plan.toml --update --locked", "no meaning for `imgbuild lock`");
	refuse("build plan.toml --update", "no meaning for `imgbuild build`");
}

static void test_values(void **state)
{
	struct options o;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(parse(&o, &e, "p.toml --arch aarch64 --mirror host --mirror http://a/b=http://c/d --cache=/x -q"), 0);
	assert_int_equal(o.arch, ARCH_ARM64);
	assert_int_equal(o.mirrors.n, 2);
	assert_string_equal(o.cache, "/x");
	assert_true(o.quiet && !o.verbose);
	options_release(&o);
}

static void test_amounts(void **state)
{
	char text[32];

	(void)state;
	assert_string_equal(format_bytes(text, 999), "999 B");
	assert_string_equal(format_bytes(text, 34600000), "34.6 MB");
	assert_string_equal(format_bytes(text, 999999), "1.0 MB");
	assert_string_equal(format_ms(text, 850), "850 ms");
	assert_string_equal(format_ms(text, 12300), "12.3 s");
	assert_string_equal(format_ms(text, 125000), "2 min 05 s");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verbs),
		cmocka_unit_test(test_refusals_help),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_amounts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
