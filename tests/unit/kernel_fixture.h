/* What the kernel tests share: running a script, and the folder with Debian's real kernel package. Included after
 * cmocka.h. */
#ifndef IMGBUILD_TESTS_UNIT_KERNEL_FIXTURE_H
#define IMGBUILD_TESTS_UNIT_KERNEL_FIXTURE_H

#include "lib/process.h"

#include <fcntl.h>
#include <string.h>

/* Run a bash script in a folder with the environment of the test; it must succeed. out may be NULL. */
static inline void run_script(const char *dir, struct buf *out, const char *script)
{
	const char *argv[] = { "/bin/bash", "-euc", script, NULL };
	static const char *const kept[] = { "HOME", "TMPDIR", "IMGBUILD_TEST_CACHE", "IMGBUILD_TEST_MIRROR",
		"IMGBUILD_TEST_SECURITY_MIRROR", "XDG_CACHE_HOME", "http_proxy", "https_proxy" };
	_cleanup_close_ int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct process_options options = { .argv = argv, .working_dirfd = fd };
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);
	_cleanup_strv_ struct strv env = { 0 };
	struct err e = ERR_INIT;
	int status = -1, r;

	assert_int_equal(strv_add(&env, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"), 0);
	assert_int_equal(strv_add(&env, "LC_ALL=C.UTF-8"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (getenv(kept[i]))
			assert_int_equal(strv_addf(&env, "%s=%s", kept[i], getenv(kept[i])), 0);
	options.env = (const char *const *)env.items;
	r = process_run(&options, out, &text, 600000, &status, &e);
	if (r < 0 || status != 0)
		fail_msg("`%s` failed: %s%s", script, e.message, buf_str(&text));
}

/* The folder that tests/fixtures/kernel-deb.sh makes: kernel.deb, meta.deb and unpacked/. */
static inline void kernel_fixture(char *path, size_t size)
{
	_cleanup_buf_ struct buf out = BUF_INIT(4096);

	run_script(".", &out, "tests/fixtures/kernel-deb.sh");
	(void)snprintf(path, size, "%.*s", (int)strcspn(buf_str(&out), "\n"), buf_str(&out));
}

#endif
