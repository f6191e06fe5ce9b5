/* builder/packages/deb: judged by dpkg-deb */
#include "builder/packages/deb.h"

#include "lib/digest.h"
#include "tests/unit/apt_fixture.h"

static int open_file(const struct apt_fixture *f, const char *path)
{
	int fd = openat(f->dir_fd, path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int make_file(const struct apt_fixture *f, const char *path)
{
	int fd = openat(f->dir_fd, path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	return fd;
}

/* The same package in every compression that deb(5) knows. */
static const char *const packages[] = { "gzip.deb", "xz.deb", "zstd.deb", "none.deb", "mixed.deb" };

static int setup(void **state)
{
	static struct apt_fixture f;
	_cleanup_free_ char *big = malloc(700001);

	assert_non_null(big);
	for (size_t i = 0; i < 700001; i++)
		big[i] = (char)(i * i >> 8);
	fixture_setup(&f);
	*state = &f;
	fixture_write(&f, "tree/DEBIAN/control",
		"Package: tool\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: nobody <nobody@example.org>\nDepends: libc6\n"
		"Description: a tool\n");
	fixture_write(&f, "tree/DEBIAN/postinst", "#!/bin/sh\nexit 0\n");
	assert_int_equal(fchmodat(f.dir_fd, "tree/DEBIAN/postinst", 0755, 0), 0);
	fixture_write(&f, "tree/usr/bin/tool", "#!/bin/sh\n");
	fixture_write_bytes(&f, "tree/usr/share/big", big, 700001);
	assert_int_equal(symlinkat("tool", f.dir_fd, "tree/usr/bin/link"), 0);
	fixture_command(&f, NULL, "dpkg-deb", "-Zgzip", "--root-owner-group", "--build", "tree", "gzip.deb");
	fixture_command(&f, NULL, "dpkg-deb", "-Zxz", "--root-owner-group", "--build", "tree", "xz.deb");
	fixture_command(&f, NULL, "dpkg-deb", "-Zzstd", "--root-owner-group", "--build", "tree", "zstd.deb");
	fixture_command(&f, NULL, "dpkg-deb", "-Znone", "--root-owner-group", "--build", "tree", "none.deb");
	fixture_command(&f, NULL, "dpkg-deb", "-Zxz", "--no-uniform-compression", "--root-owner-group", "--build", "tree",
		"mixed.deb");
	return 0;
}

static void reads_control(void **state)
{
	const struct apt_fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(packages); i++) {
		_cleanup_close_ int fd = open_file(f, packages[i]);
		_cleanup_buf_ struct buf control = BUF_INIT(1 << 20), expected = BUF_INIT(1 << 20);
		struct err e = ERR_INIT;

		if (deb_read_control(fd, &control, &e) < 0)
			fail_msg("%s: %s", packages[i], e.message);
		fixture_read(f, "tree/DEBIAN/control", &expected);
		assert_string_equal(buf_str(&control), buf_str(&expected));
		assert_int_equal(deb_check_control(control.data, control.len, "tool", "1.0-1", "amd64", &e), 0);
		assert_int_equal(deb_check_control(control.data, control.len, "tool", "1.0-2", NULL, &e), -EBADMSG);
		assert_non_null(strstr(e.message, "Version `1.0-1`, expected `1.0-2`"));
		assert_int_equal(deb_check_control(control.data, control.len, "tools", NULL, NULL, &e), -EBADMSG);
		assert_int_equal(deb_check_control(control.data, control.len, NULL, NULL, "all", &e), -EBADMSG);
	}
}

static void repacks_to_the_same_package(void **state)
{
	const struct apt_fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(packages); i++) {
		_cleanup_close_ int in = open_file(f, packages[i]), out = make_file(f, "out.deb"), again = make_file(f, "again.deb");
		_cleanup_buf_ struct buf contents = BUF_INIT(1 << 20), expected = BUF_INIT(1 << 20), members = BUF_INIT(4096);
		struct digest a, b;
		uint64_t size;
		struct stat st;
		struct err e = ERR_INIT;

		if (deb_repack_uncompressed(in, out, &size, &e) < 0)
			fail_msg("%s: %s", packages[i], e.message);
		assert_int_equal(fstat(out, &st), 0);
		assert_int_equal((uint64_t)st.st_size, size);
		assert_int_equal(deb_repack_uncompressed(in, again, NULL, &e), 0);
		assert_int_equal(digest_fd(DIGEST_SHA256, out, UINT64_MAX, &a, &e), 0);
		assert_int_equal(digest_fd(DIGEST_SHA256, again, UINT64_MAX, &b, &e), 0);
		assert_true(digest_equal(&a, &b));
		/* an uncompressed package goes through unchanged in all but dates: its members say the same */
		fixture_command(f, &members, "ar", "t", "out.deb");
		assert_string_equal(buf_str(&members), "debian-binary\ncontrol.tar\ndata.tar\n");
		fixture_command(f, &contents, "dpkg-deb", "--contents", "out.deb");
		fixture_command(f, &expected, "dpkg-deb", "--contents", packages[i]);
		assert_string_equal(buf_str(&contents), buf_str(&expected));
		buf_reset(&contents);
		buf_reset(&expected);
		fixture_command(f, &contents, "sh", "-c", "dpkg-deb --fsys-tarfile out.deb | sha256sum; dpkg-deb --ctrl-tarfile out.deb | sha256sum");
		fixture_command(f, &expected, "sh", "-c",
			"dpkg-deb --fsys-tarfile $0 | sha256sum; dpkg-deb --ctrl-tarfile $0 | sha256sum", packages[i]);
		assert_string_equal(buf_str(&contents), buf_str(&expected));
	}
}

/* Every proper prefix of a package is refused, never crashes and never passes for a package. */
static void refuses_truncated_packages(void **state)
{
	const struct apt_fixture *f = *state;
	_cleanup_buf_ struct buf whole = BUF_INIT(1 << 22);

	fixture_read(f, "xz.deb", &whole);
	for (size_t len = 0; len < whole.len; len += len < 400 ? 1 : 997) {
		_cleanup_close_ int in = make_file(f, "cut.deb"), out = make_file(f, "out.deb");
		_cleanup_buf_ struct buf control = BUF_INIT(1 << 20);
		struct err e = ERR_INIT;

		assert_int_equal(pwrite_full(in, whole.data, len, 0), 0);
		if (deb_repack_uncompressed(in, out, NULL, &e) != -EBADMSG)
			fail_msg("%zu bytes: %s", len, e.message);
		assert_int_equal(e.kind, ERR_KIND_INPUT);
		err_clear(&e);
		assert_int_equal(deb_read_control(in, &control, &e), -EBADMSG);
	}
}

static void refuses_what_is_no_package(void **state)
{
	const struct apt_fixture *f = *state;
#define FORMAT "!<arch>\ndebian-binary   0           0     0     100644  4         `\n2.0\n"
	static const struct {
		const char *text, *words;
	} cases[] = {
		{ "<html><body>404</body></html>", "does not begin as an ar archive" },
		{ "!<arch>\n", "no control.tar" },
		{ "!<arch>\nnot-binary      0           0     0     100644  4         `\n2.0\n", "not debian-binary" },
		{ "!<arch>\ndebian-binary   0           0     0     100644  4         `\n3.0\n", "not 2.x" },
		{ "!<arch>\ndebian-binary   0           0     0     100644  x         `\n2.0\n", "no number" },
		{ "!<arch>\ndebian-binary   0           0     0     100644            `\n2.0\n", "no size" },
		{ "!<arch>\ndebian-binary   0           0     0     100644  9999999999`\n2.0\n", "beyond the end" },
		{ FORMAT "data.tar        0           0     0     100644  0         `\n", "second member is not control.tar" },
		{ FORMAT "control.tar     0           0     0     100644  0         `\n", "no data.tar" },
		{ FORMAT "control.tar     0           0     0     100644  0         `\ncontrol.tar     0           0     0     "
			 "100644  0         `\n",
			"third member is not data.tar" },
		{ FORMAT "control.tar     0           0     0     100644  0         `\ndata.tar        0           0     0     "
			 "100644  0         `\n",
			"" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_close_ int in = make_file(f, "bad.deb"), out = make_file(f, "out.deb");
		_cleanup_buf_ struct buf control = BUF_INIT(1 << 20);
		struct err e = ERR_INIT;

		assert_int_equal(pwrite_full(in, cases[i].text, strlen(cases[i].text), 0), 0);
		if (deb_read_control(in, &control, &e) != -EBADMSG || !strstr(e.message, cases[i].words))
			fail_msg("case %zu: %s", i, e.message);
		err_clear(&e);
		if (deb_repack_uncompressed(in, out, NULL, &e) != -EBADMSG || !strstr(e.message, cases[i].words))
			fail_msg("case %zu: %s", i, e.message);
	}
}

/* What a package calls itself becomes the name of a file and arguments of dpkg, the lock having promised it or not. */
static void names_are_names(void **state)
{
	static const char *const bad[] = { "Package: --force-all\nVersion: 1\nArchitecture: all\n",
		"Package: a\n b\nVersion: 1\nArchitecture: all\n", "Package: a/../b\nVersion: 1\nArchitecture: all\n",
		"Package: a\nVersion: 1 2\nArchitecture: all\n", "Package: a\nVersion: 1\nArchitecture: a/b\n",
		"Package: a\nVersion:\nArchitecture: all\n", "Package: a\nVersion: 1\n" };
	static const char good[] = "Package: a+b.c-1\nVersion: 1:2.3~rc+1-4\nArchitecture: amd64\n";
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(deb_check_control(good, strlen(good), NULL, NULL, NULL, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (deb_check_control(bad[i], strlen(bad[i]), NULL, NULL, NULL, &e) != -EBADMSG)
			fail_msg("%s", bad[i]);
}

static void a_control_file_has_a_limit(void **state)
{
	const struct apt_fixture *f = *state;
	_cleanup_buf_ struct buf control = BUF_INIT(16 << 20);
	struct err e = ERR_INIT;

	fixture_command(f, NULL, "sh", "-c",
		"rm -rf c && mkdir c && head -c 1048577 /dev/zero | tr '\\0' a >c/control && printf '2.0\\n' >debian-binary && "
		"tar -C c -cJf control.tar.xz ./control && tar -cf data.tar -T /dev/null && rm -f big.deb && "
		"ar rc big.deb debian-binary control.tar.xz data.tar");
	{
		_cleanup_close_ int in = open_file(f, "big.deb");

		assert_int_equal(deb_read_control(in, &control, &e), -EFBIG);
		assert_non_null(strstr(e.message, "1048576"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_control),
		cmocka_unit_test(repacks_to_the_same_package),
		cmocka_unit_test(refuses_truncated_packages),
		cmocka_unit_test(refuses_what_is_no_package),
		cmocka_unit_test(names_are_names),
		cmocka_unit_test(a_control_file_has_a_limit),
	};

	return cmocka_run_group_tests(tests, setup, fixture_state_teardown);
}
