/* What the tests of builder/packages share: a temporary folder, files in it, commands, and a key to sign with. */
#ifndef IMGBUILD_TESTS_APT_FIXTURE_H
#define IMGBUILD_TESTS_APT_FIXTURE_H

#include "lib/io.h"
#include "lib/process.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct apt_fixture {
	char dir[200]; /* "root" and "gnupg" lie in it */
	int dir_fd, root_fd;
};

/* Run a command in the fixture's folder and return its exit status; what it prints goes to *out when given. */
static inline int fixture_run(const struct apt_fixture *f, struct buf *out, const char *const *argv)
{
	_cleanup_buf_ struct buf err_out = BUF_INIT(1 << 20);
	char gnupg[256], home[256];
	const char *env[] = { "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", gnupg, home,
		NULL };
	struct process_options options = { .argv = argv, .env = env, .working_dirfd = f->dir_fd };
	struct err e = ERR_INIT;
	int status = -1;

	(void)snprintf(gnupg, sizeof(gnupg), "GNUPGHOME=%s/gnupg", f->dir);
	(void)snprintf(home, sizeof(home), "HOME=%s", f->dir);
	if (process_run(&options, out, &err_out, 60000, &status, &e) < 0)
		fail_msg("%s: %s", argv[0], e.message);
	if (status != 0)
		print_message("%s: status %d: %s\n", argv[0], status, buf_str(&err_out));
	return status;
}

#define fixture_command(f, out, ...)                                                                         \
	assert_int_equal(fixture_run((f), (out), (const char *const[]){ __VA_ARGS__, NULL }), 0)

static inline void fixture_write_bytes(const struct apt_fixture *f, const char *path, const void *bytes, size_t len)
{
	char folder[512];
	struct err e = ERR_INIT;
	char *slash;

	(void)snprintf(folder, sizeof(folder), "%s", path);
	slash = strrchr(folder, '/');
	if (slash) {
		*slash = '\0';
		if (mkdir_parents_at(f->dir_fd, folder, &e) < 0)
			fail_msg("%s", e.message);
	}
	if (write_file_atomic_at(f->dir_fd, path, bytes, len, 0644, &e) < 0)
		fail_msg("%s", e.message);
}

/* Write a file beneath the fixture's folder ("root/etc/apt/sources.list"). */
static inline void fixture_write(const struct apt_fixture *f, const char *path, const char *text)
{
	fixture_write_bytes(f, path, text, strlen(text));
}

static inline void fixture_read(const struct apt_fixture *f, const char *path, struct buf *into)
{
	struct err e = ERR_INIT;

	if (read_file_at(f->dir_fd, path, false, into, &e) < 0)
		fail_msg("%s", e.message);
}

static inline void fixture_setup(struct apt_fixture *f)
{
	(void)snprintf(f->dir, sizeof(f->dir), "%s/imgbuild-apt.XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	f->dir_fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->dir_fd >= 0);
	assert_int_equal(mkdirat(f->dir_fd, "root", 0755), 0);
	assert_int_equal(mkdirat(f->dir_fd, "gnupg", 0700), 0);
	f->root_fd = openat(f->dir_fd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->root_fd >= 0);
}

static inline void fixture_teardown(struct apt_fixture *f)
{
	struct stat st;

	if (fstatat(f->dir_fd, "gnupg/S.gpg-agent", &st, 0) == 0)
		(void)fixture_run(f, NULL, (const char *const[]){ "gpgconf", "--kill", "all", NULL });
	(void)remove_tree_at(AT_FDCWD, f->dir);
	(void)close(f->root_fd);
	(void)close(f->dir_fd);
}

/* The two for cmocka: a fixture in *state, and its end. */
static inline int fixture_state_setup(void **state)
{
	static struct apt_fixture f;

	fixture_setup(&f);
	*state = &f;
	return 0;
}

static inline int fixture_state_teardown(void **state)
{
	fixture_teardown(*state);
	return 0;
}

/* Make a key of that name and write its certificate to NAME.gpg (binary) and NAME.asc (armoured). */
static inline void fixture_make_key(const struct apt_fixture *f, const char *name)
{
	char binary[64], armoured[64];

	(void)snprintf(binary, sizeof(binary), "%s.gpg", name);
	(void)snprintf(armoured, sizeof(armoured), "%s.asc", name);
	fixture_command(f, NULL, "gpg", "--batch", "--quiet", "--passphrase", "", "--quick-gen-key", name, "ed25519", "sign",
		"never");
	fixture_command(f, NULL, "gpg", "--batch", "--output", binary, "--export", name);
	fixture_command(f, NULL, "gpg", "--batch", "--armor", "--output", armoured, "--export", name);
}

#endif
