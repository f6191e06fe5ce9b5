/* builder/checksums: judged by sha256sum -c and sha512sum -c */
#include "builder/checksums.h"

#include "tests/unit/apt_fixture.h"

#define CONTENT "the image\n"
#define Z64 "0000000000000000000000000000000000000000000000000000000000000007"

/* Replace @256 and @512 by the digests of CONTENT. */
static void expand(const char *template, struct buf *into)
{
	struct digest d256, d512;
	struct err e = ERR_INIT;
	char hex[DIGEST_HEX_SIZE];

	assert_int_equal(digest_bytes(DIGEST_SHA256, CONTENT, strlen(CONTENT), &d256, &e), 0);
	assert_int_equal(digest_bytes(DIGEST_SHA512, CONTENT, strlen(CONTENT), &d512, &e), 0);
	for (const char *p = template; *p; p++) {
		if (strncmp(p, "@256", 4) == 0 || strncmp(p, "@512", 4) == 0) {
			assert_int_equal(buf_append_str(into, digest_hex(p[1] == '2' ? &d256 : &d512, hex)), 0);
			p += 3;
		} else {
			assert_int_equal(buf_append_char(into, *p), 0);
		}
	}
}

struct list_case {
	const char *name, *list;
	int algorithm; /* 256 or 512: found, and the program of that algorithm agrees; -256, -512: it does not know the form */
};

static const struct list_case found_cases[] = {
	{ "x.qcow2", "@256  x.qcow2\n", 256 },
	{ "x.qcow2", "@512  x.qcow2\n", 512 },
	{ "x.qcow2", "@512 *x.qcow2\n", 512 },
	{ "x.qcow2", "@512 *x.qcow2", 512 }, /* no newline */
	{ "x.qcow2", "@512  x.qcow2\r\n", -512 }, /* newer ones than coreutils 9.1 know it */
	{ "x.qcow2", "@256 x.qcow2\n", 256 },
	{ "x.qcow2", "  @256  x.qcow2\n", 256 },
	{ "x.qcow2", "# x.qcow2: 10 bytes\nSHA256 (x.qcow2) = @256\n", 256 },
	{ "x.qcow2", "SHA512 (x.qcow2) = @512\n", 512 },
	{ "x.qcow2", "SHA512(x.qcow2)= @512\n", 512 },
	{ "x.qcow2", "SHA2-512(x.qcow2)= @512\n", -512 },
	{ "x.qcow2", "@256  ./x.qcow2\n", 256 },
	{ "x.qcow2", "SHA256 (./x.qcow2) = @256\n", 256 },
	{ "a (1).img", "SHA256 (a (1).img) = @256\n", 256 },
	{ "a b.img", "@256  a b.img\n", 256 },
	{ "a\\b", "\\@256  a\\\\b\n", 256 },
	{ "a\nb", "\\@256  a\\nb\n", 256 },
	{ "a\nb", "\\SHA256 (a\\nb) = @256\n", 256 },
	{ " x", "@256   x\n", 256 },
	/* the same twice is no contradiction, and other names do not matter */
	{ "x", "@256  x\n@256 *x\n" Z64 "  y\n" Z64 "  xx\n" Z64 "  d/x\n", 256 },
	{ "x", "junk\n\n@512  x\n", 512 },
	/* MD5 and SHA-1 beside it are passed over */
	{ "x", "MD5 (x) = d41d8cd98f00b204e9800998ecf8427e\nda39a3ee5e6b4b0d3255bfef95601890afd80709  x\n@256  x\n", 256 },
};

static void finds_what_coreutils_verify(void **state)
{
	struct apt_fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(found_cases); i++) {
		const struct list_case *c = &found_cases[i];
		_cleanup_buf_ struct buf list = BUF_INIT(1 << 16);
		struct checksums_entry entry = { 0 };
		const struct digest *found;
		struct digest actual;
		struct err e = ERR_INIT;

		expand(c->list, &list);
		if (checksums_find(buf_str(&list), list.len, c->name, "list", &entry, &e) < 0)
			fail_msg("%s: %s", c->list, e.message);
		found = abs(c->algorithm) == 256 ? &entry.sha256 : &entry.sha512;
		assert_int_equal(digest_bytes(abs(c->algorithm) == 256 ? DIGEST_SHA256 : DIGEST_SHA512, CONTENT, strlen(CONTENT),
			&actual, &e), 0);
		if (!digest_equal(found, &actual))
			fail_msg("%s: not its digest", c->list);
		if (c->algorithm < 0)
			continue;
		fixture_write(f, "list", buf_str(&list));
		fixture_write(f, c->name, CONTENT);
		fixture_command(f, NULL, c->algorithm == 256 ? "sha256sum" : "sha512sum", "-c", "--ignore-missing", "list");
		(void)unlinkat(f->dir_fd, c->name, 0);
	}
}

/* What sha256sum writes is what it is read as, whatever the name. */
static void reads_what_coreutils_write(void **state)
{
	static const char *const names[] = { "x", "a b", "*x", "(x)", "x) = y", "a\\b", "a\nb", "\\", "-x", "x\r", "ü", "SHA256 (q" };
	static const char *const programs[] = { "sha256sum", "sha512sum" };
	static const char *const options[] = { "--text", "--binary", "--tag" };
	struct apt_fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		fixture_write(f, names[i], CONTENT);
		for (size_t k = 0; k < 6; k++) {
			_cleanup_buf_ struct buf list = BUF_INIT(1 << 16);
			struct checksums_entry entry = { 0 };
			struct err e = ERR_INIT;

			fixture_command(f, &list, programs[k / 3], options[k % 3], "--", names[i]);
			if (checksums_find(buf_str(&list), list.len, names[i], "list", &entry, &e) < 0)
				fail_msg("%s: %s", buf_str(&list), e.message);
			assert_int_equal(k / 3 == 0 ? entry.sha256.algorithm : entry.sha512.algorithm,
				k / 3 == 0 ? DIGEST_SHA256 : DIGEST_SHA512);
		}
		(void)unlinkat(f->dir_fd, names[i], 0);
	}
}

/* A list as a publisher has it, and the file that it is about. */
static void reads_a_real_list(void **state)
{
	static const char name[] = "x86_64/alpine-minirootfs-3.20.3-x86_64.tar.gz";
	const char *data = getenv("IMGBUILD_TEST_DATA");
	_cleanup_close_ int dirfd = open(data ? data : "../shared/data", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
	_cleanup_buf_ struct buf list = BUF_INIT(CHECKSUMS_MAX_BYTES);
	struct checksums_entry entry;
	struct err e = ERR_INIT;
	struct digest found;

	(void)state;
	if (read_file_at(dirfd, "rootfs/alpine-3.20.3-checksums.sha512", true, &list, &e) < 0 ||
		checksums_find(buf_str(&list), list.len, name, "list", &entry, &e) < 0)
		fail_msg("%s", e.message);
	fd = openat(dirfd, "rootfs/alpine-minirootfs-3.20.3-x86_64.tar.gz", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(digest_fd(DIGEST_SHA512, fd, UINT64_MAX, &found, &e), 0);
	assert_true(digest_equal(&found, &entry.sha512));
	assert_int_equal(checksums_find(buf_str(&list), list.len, strchr(name, '/') + 1, "list", &entry, &e), -ENOENT);
}

static void refuses(const char *list, size_t len, const char *name, int code, const char *words)
{
	struct checksums_entry entry = { 0 };
	struct err e = ERR_INIT;
	int r = checksums_find(list, len, name, "the list", &entry, &e);

	if (r != code || e.kind != ERR_KIND_INPUT || !strstr(e.message, words))
		fail_msg("%.80s: %d %s", list, r, e.message);
	assert_int_equal(entry.sha256.algorithm, DIGEST_NONE);
}

static void refuses_what_is_no_answer(void **state)
{
	static const struct {
		const char *list;
		int code;
		const char *words;
	} cases[] = {
		{ "", -EBADMSG, "no list" },
		{ "<!DOCTYPE html><html>nothing here</html>\n", -EBADMSG, "no list" },
		{ Z64 "  y\n", -ENOENT, "does not list `x`, but 1 other (such as `y`)" },
		{ Z64 "  X\n", -ENOENT, "does not list" },
		{ Z64 "  d/x\n", -ENOENT, "does not list" },
		{ Z64 "  x \n", -ENOENT, "does not list" },
		{ Z64 "  ../x\n", -ENOENT, "does not list" },
		{ "\\" Z64 "  \\x\n", -ENOENT, "does not list" }, /* no such escape */
		{ Z64 "0  x\n", -EBADMSG, "no list" },
		{ Z64 "x\n", -EBADMSG, "no list" },
		{ "SHA256 (x) = " Z64 "00000000\n", -EBADMSG, "no list" },
		{ "SHA256 (x) = " Z64 " y\n", -EBADMSG, "no list" },
		{ "SHA512 (x) = " Z64 "\n", -EBADMSG, "no list" },
		{ "SHA256 (x " Z64 "\n", -EBADMSG, "no list" },
		{ "d41d8cd98f00b204e9800998ecf8427e  x\n", -ENOENT, "without a SHA-256 or SHA-512" },
		{ "SHA1 (x) = da39a3ee5e6b4b0d3255bfef95601890afd80709\n", -ENOENT, "without a SHA-256" },
		{ "@256  x\n" Z64 "  x\n", -ENOTUNIQ, Z64 },
		{ "@256  x\n" Z64 "  ./x\n", -ENOTUNIQ, "two digests" },
		{ "SHA256 (x) = " Z64 "\n@256 *x\n", -ENOTUNIQ, "two digests" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf list = BUF_INIT(1 << 16);

		expand(cases[i].list, &list);
		refuses(buf_str(&list), list.len, "x", cases[i].code, cases[i].words);
	}
	/* A NUL ends no name. */
	refuses(Z64 "  x\0y\n", 64 + 6, "x", -ENOENT, "does not list");
}

static void keeps_to_its_limits(void **state)
{
	static char text[CHECKSUMS_MAX_BYTES + 1];
	static const char line[] = Z64 "  x\n";
	struct checksums_entry entry;
	struct err e = ERR_INIT;

	(void)state;
	memset(text, '\n', sizeof(text));
	memcpy(text + CHECKSUMS_MAX_BYTES - strlen(line), line, strlen(line));
	assert_int_equal(checksums_find(text, CHECKSUMS_MAX_BYTES, "x", "list", &entry, &e), 0);
	refuses(text, sizeof(text), "x", -EBADMSG, "more than");
	memset(text, '#', CHECKSUMS_MAX_LINE_BYTES + 1);
	refuses(text, CHECKSUMS_MAX_BYTES, "x", -EBADMSG, "a line of more than");
	text[CHECKSUMS_MAX_LINE_BYTES] = '\n';
	assert_int_equal(checksums_find(text, CHECKSUMS_MAX_BYTES, "x", "list", &entry, &e), 0);
}

static void names_the_file_of_a_url(void **state)
{
	static const struct {
		const char *url, *name; /* NULL: refused */
	} cases[] = {
		{ "https://x.org/a/b.qcow2", "b.qcow2" },
		{ "https://x.org/a/b.qcow2?token=1/2#f", "b.qcow2" },
		{ "http://x.org/b%20c%2B.img", "b c+.img" },
		{ "http://x.org/100%.img", "100%.img" },
		{ "http://x.org/", NULL },
		{ "http://x.org", NULL },
		{ "http://x.org/a/?q", NULL },
		{ "http://x.org/..", NULL },
		{ "http://x.org/a%2Fb", NULL },
		{ "http://x.org/a%00b", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *name = NULL;
		struct err e = ERR_INIT;
		int r = checksums_name_of_url(cases[i].url, &name, &e);

		if (cases[i].name ? r != 0 || strcmp(name, cases[i].name) != 0 : r != -EINVAL)
			fail_msg("%s: %d %s %s", cases[i].url, r, name ? name : "", e.message);
	}
}

static void tells_the_path_from_a_list(void **state)
{
	static const struct {
		const char *url, *list, *path; /* NULL: not beneath */
	} cases[] = {
		{ "http://x.org/a/b/c.img", "http://x.org/a/SUMS", "b/c.img" },
		{ "http://x.org/a/b/c/d%20e.img?q/r", "http://x.org/a/SUMS?x/y", "b/c/d e.img" },
		{ "http://x.org/a/c.img", "http://x.org/a/SUMS", NULL },
		{ "http://x.org/a/c.img", "http://x.org/a/b/SUMS", NULL },
		{ "http://x.org/ab/c.img", "http://x.org/a/SUMS", NULL },
		{ "http://y.org/a/b/c.img", "http://x.org/a/SUMS", NULL },
		{ "http://x.org/a/b%2Fc.img", "http://x.org/a/SUMS", NULL },
		{ "http://x.org/a/b/c%00.img", "http://x.org/a/SUMS", NULL },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *path = NULL;
		int r = checksums_path_beneath(cases[i].url, cases[i].list, &path);

		if (cases[i].path ? r != 0 || strcmp(path, cases[i].path) != 0 : r != -ENOENT)
			fail_msg("%s: %d %s", cases[i].url, r, path ? path : "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_what_coreutils_verify),
		cmocka_unit_test(reads_what_coreutils_write),
		cmocka_unit_test(reads_a_real_list),
		cmocka_unit_test(refuses_what_is_no_answer),
		cmocka_unit_test(keeps_to_its_limits),
		cmocka_unit_test(names_the_file_of_a_url),
		cmocka_unit_test(tells_the_path_from_a_list),
	};

	return cmocka_run_group_tests(tests, fixture_state_setup, fixture_state_teardown);
}
