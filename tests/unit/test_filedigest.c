#include "cache/filedigest.h"
#include "cache/publish.h"
#include "lib/io.h"
#include "lib/process.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
/* after the others */
#include <cmocka.h>

static char workdir[256], cache[512];
static int work_fd = -1;

static int make_workdir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	(void)snprintf(workdir, sizeof(workdir), "%s/imgbuild-filedigest.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(workdir))
		return -1;
	(void)snprintf(cache, sizeof(cache), "%s/cache", workdir);
	work_fd = open(workdir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return work_fd < 0 ? -1 : 0;
}

static int remove_workdir(void **state)
{
	(void)state;
	close_fdp(&work_fd);
	return remove_tree_at(AT_FDCWD, workdir);
}

static void put(const char *name, const char *text, mode_t mode)
{
	_cleanup_close_ int fd = openat(work_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write_full(fd, text, strlen(text)), 0);
	assert_int_equal(fchmod(fd, mode), 0);
}

/* ctime cannot be set: wait until the file has been quiet for long enough. */
static void wait_until_not_racy(void)
{
	struct timespec pause = { .tv_sec = FILEDIGEST_RACY_NS / 1000000000, .tv_nsec = 50000000 };

	(void)nanosleep(&pause, NULL);
}

static struct filedigest_memo *load(void)
{
	_cleanup_store_ struct store s = STORE_INIT;
	struct filedigest_memo *m = NULL;
	struct err e = ERR_INIT;

	assert_int_equal(store_open(cache, &s, &e), 0);
	assert_int_equal(filedigest_memo_load(&s, &m, &e), 0);
	return m;
}

static void digest_file(struct filedigest_memo *m, const char *name, const char *expected_text)
{
	struct digest found, expected;
	struct err e = ERR_INIT;
	uint64_t size;

	if (filedigest_file_at(m, work_fd, name, &found, &size, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(digest_bytes(DIGEST_SHA256, expected_text, strlen(expected_text), &expected, &e), 0);
	assert_true(digest_equal(&found, &expected));
	assert_int_equal(size, strlen(expected_text));
}

static void assert_counts(const struct filedigest_memo *m, uint64_t n_read, uint64_t n_known)
{
	uint64_t r, k;

	filedigest_memo_counts(m, &r, &k);
	assert_int_equal(r, n_read);
	assert_int_equal(k, n_known);
}

static void test_quiet_file_is_remembered(void **state)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *m = NULL, *again = NULL, *changed = NULL;
	struct err e = ERR_INIT;
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1000000000 } };

	(void)state;
	put("a", "hello", 0644);
	put("b", "world", 0644);
	wait_until_not_racy();
	m = load();
	digest_file(m, "a", "hello");
	digest_file(m, "b", "world");
	digest_file(m, "a", "hello");
	assert_counts(m, 2, 1);
	assert_int_equal(filedigest_memo_save(m, &e), 0);
	again = load();
	digest_file(again, "a", "hello");
	digest_file(again, "b", "world");
	assert_counts(again, 0, 2);
	/* Same size, and the mtime set back to what it was: the ctime tells. */
	assert_int_equal(utimensat(work_fd, "a", times, 0), 0);
	put("a", "HELLO", 0644);
	assert_int_equal(utimensat(work_fd, "a", times, 0), 0);
	changed = load();
	digest_file(changed, "a", "HELLO");
	assert_counts(changed, 1, 0);
}

static void confirm_sha512(struct filedigest_memo *m, const char *name, const char *expected_text, int expected)
{
	_cleanup_close_ int fd = openat(work_fd, name, O_RDONLY | O_CLOEXEC);
	char hex[DIGEST_HEX_SIZE];
	struct err e = ERR_INIT;
	struct digest sha512;
	int r;

	assert_true(fd >= 0);
	assert_int_equal(digest_bytes(DIGEST_SHA512, expected_text, strlen(expected_text), &sha512, &e), 0);
	r = filedigest_confirm_sha512(m, fd, name, &sha512, &e);
	if (r != expected)
		fail_msg("%s: %d %s", name, r, e.message);
	assert_true(r == 0 || (strstr(e.message, digest_hex(&sha512, hex)) && e.kind == ERR_KIND_INPUT));
}

static void test_sha512_is_remembered(void **state)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *m = NULL, *again = NULL, *changed = NULL;
	struct err e = ERR_INIT;

	(void)state;
	put("a", "hello", 0644);
	wait_until_not_racy();
	m = load();
	digest_file(m, "a", "hello");
	confirm_sha512(m, "a", "hello", 0);
	confirm_sha512(m, "a", "hello", 0);
	assert_counts(m, 2, 1);
	assert_int_equal(filedigest_memo_save(m, &e), 0);
	again = load();
	digest_file(again, "a", "hello");
	confirm_sha512(again, "a", "hello", 0);
	/* What is remembered is which one it has, not that it was the right one. */
	confirm_sha512(again, "a", "other", -EBADMSG);
	assert_counts(again, 0, 3);
	put("a", "HELLO", 0644);
	changed = load();
	confirm_sha512(changed, "a", "hello", -EBADMSG);
	confirm_sha512(changed, "a", "HELLO", 0);
	confirm_sha512(NULL, "a", "HELLO", 0);
}

static void test_fresh_file_is_not_remembered(void **state)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *m = load();

	(void)state;
	put("a", "hello", 0644);
	digest_file(m, "a", "hello");
	digest_file(m, "a", "hello");
	assert_counts(m, 2, 0);
	/* Written again within the same tick, as far as any timestamp shows. */
	put("a", "HELLO", 0644);
	digest_file(m, "a", "HELLO");
	assert_counts(m, 3, 0);
}

static void test_memo_of_strangers(void **state)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *m = NULL, *empty = NULL, *limit = NULL;
	_cleanup_buf_ struct buf b = BUF_INIT(STORE_STATE_MAX_BYTES), again = BUF_INIT(STORE_STATE_MAX_BYTES);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(filedigest_memo_load(NULL, &m, &e), 0);
	put("a", "hello", 0644);
	put("b", "hello", 0644);
	wait_until_not_racy();
	digest_file(m, "a", "hello");
	digest_file(m, "b", "hello");
	assert_int_equal(filedigest_memo_encode(m, &b), 0);
	assert_int_equal(filedigest_memo_load(NULL, &empty, &e), 0);
	assert_int_equal(filedigest_memo_decode(empty, b.data, b.len), 0);
	assert_int_equal(filedigest_memo_encode(empty, &again), 0);
	assert_int_equal(again.len, b.len);
	assert_memory_equal(again.data, b.data, b.len);
	/* Every cut and every changed byte is found. */
	for (size_t i = 0; i < b.len; i++) {
		assert_int_equal(filedigest_memo_decode(empty, b.data, i), -EBADMSG);
		b.data[i] ^= 1;
		assert_int_equal(filedigest_memo_decode(empty, b.data, b.len), -EBADMSG);
		b.data[i] ^= 1;
	}
	/* A damaged file in the cache is an empty memo. */
	assert_int_equal(mkdir_parents_at(work_fd, "cache/state", &e), 0);
	put("cache/state/file-digests", "garbage", 0644);
	limit = load();
	digest_file(limit, "a", "hello");
	assert_counts(limit, 1, 0);
}

/* One item more than a memo may have: correctly signed, but refused. */
static void test_memo_limit(void **state)
{
	(void)state;
	for (uint64_t n = FILEDIGEST_MEMO_MAX_ITEMS; n <= FILEDIGEST_MEMO_MAX_ITEMS + 1; n++) {
		_cleanup_filedigest_memo_ struct filedigest_memo *m = NULL;
		size_t len = 24 + (size_t)n * 80 + 32;
		_cleanup_free_ uint8_t *bytes = calloc(1, len);
		struct digest sum;
		struct err e = ERR_INIT;

		assert_non_null(bytes);
		memcpy(bytes, "imgbuild-memo-1\n", 16);
		for (int i = 0; i < 8; i++)
			bytes[16 + i] = (uint8_t)(n >> (8 * i));
		for (uint64_t i = 0; i < n; i++) {
			for (int b = 0; b < 8; b++)
				bytes[24 + i * 80 + 8 + (size_t)b] = (uint8_t)(i >> (8 * b)); /* inode */
			bytes[24 + i * 80 + 40] = 1; /* used */
		}
		assert_int_equal(digest_bytes(DIGEST_SHA256, bytes, len - 32, &sum, &e), 0);
		memcpy(bytes + len - 32, sum.bytes, 32);
		assert_int_equal(filedigest_memo_load(NULL, &m, &e), 0);
		assert_int_equal(filedigest_memo_decode(m, bytes, len), n > FILEDIGEST_MEMO_MAX_ITEMS ? -EBADMSG : 0);
	}
}

/* ---- paths --------------------------------------------------------------------------------------------------------- */

static void open_case(const char *path, int expected)
{
	struct digest d;
	struct err e = ERR_INIT;
	int r = filedigest_file_at(NULL, work_fd, path, &d, NULL, &e);

	if (r != expected)
		fail_msg("`%s`: %d (%s), expected %d", path, r, r < 0 ? e.message : "", expected);
}

static void test_paths_stay_beneath(void **state)
{
	char absolute[512];
	struct digest d;
	struct err e = ERR_INIT;

	(void)state;
	put("a", "hello", 0644);
	assert_int_equal(mkdirat(work_fd, "sub", 0755), 0);
	put("sub/b", "x", 0644);
	assert_int_equal(symlinkat("../a", work_fd, "sub/inside"), 0);
	assert_int_equal(symlinkat("../../x", work_fd, "sub/outside"), 0);
	assert_int_equal(symlinkat("/etc/passwd", work_fd, "absolute"), 0);
	assert_int_equal(symlinkat("loop", work_fd, "loop"), 0);
	assert_int_equal(symlinkat("sub", work_fd, "folder-link"), 0);
	assert_int_equal(mkfifoat(work_fd, "fifo", 0600), 0);
	open_case("a", 0);
	open_case("./sub/../a", 0);
	open_case("sub/inside", 0);
	open_case("folder-link/b", 0);
	open_case("sub/outside", -EXDEV);
	open_case("../x", -EXDEV);
	open_case("absolute", -EXDEV);
	open_case("/etc/passwd", -EXDEV);
	open_case("loop", -ELOOP);
	open_case("nothing", -ENOENT);
	open_case("a/b", -ENOTDIR);
	open_case("sub", -EINVAL);
	open_case("fifo", -EINVAL); /* and does not wait for a writer */
	/* --allow-outside */
	(void)snprintf(absolute, sizeof(absolute), "%s/sub/inside", workdir);
	assert_int_equal(filedigest_file_at(NULL, AT_FDCWD, absolute, &d, NULL, &e), 0);
}

/* The same where the kernel or a sandbox has no openat2. There is no way back from the filter: this test comes last. */
static void test_paths_without_openat2(void **state)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = ARRAY_SIZE(filter), .filter = filter };

	assert_int_equal(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	assert_int_equal(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
	assert_int_equal(syscall(SYS_openat2, -1, "", NULL, 0), -1);
	assert_int_equal(errno, ENOSYS);
	test_paths_stay_beneath(state);
}

/* ---- trees --------------------------------------------------------------------------------------------------------- */

static void make_tree(const char *top)
{
	char path[300];

	assert_int_equal(mkdirat(work_fd, top, 0755), 0);
	(void)snprintf(path, sizeof(path), "%s/d", top);
	assert_int_equal(mkdirat(work_fd, path, 0755), 0);
	(void)snprintf(path, sizeof(path), "%s/d/file", top);
	put(path, "file", 0644);
	(void)snprintf(path, sizeof(path), "%s/d-run", top);
	put(path, "run", 0755);
	(void)snprintf(path, sizeof(path), "%s/link", top);
	assert_int_equal(symlinkat("/etc/passwd", work_fd, path), 0);
}

static struct digest tree(const char *top)
{
	struct filedigest_tree_info info;
	struct err e = ERR_INIT;

	if (filedigest_tree_at(NULL, work_fd, top, &info, &e) < 0)
		fail_msg("%s", e.message);
	return info.digest;
}

static bool same(struct digest a, struct digest b)
{
	return digest_equal(&a, &b);
}

/* The listing is what the digest is of; one that would be too long is not begun. */
static void test_listing(void **state)
{
	_cleanup_buf_ struct buf listing = BUF_INIT(1 << 16), small = BUF_INIT(64);
	struct filedigest_tree_info info;
	struct err e = ERR_INIT;
	struct digest found;

	(void)state;
	make_tree("listed");
	assert_int_equal(filedigest_list_tree_at(NULL, work_fd, "listed", &listing, &info, &e), 0);
	assert_int_equal(digest_bytes(DIGEST_SHA256, buf_str(&listing), listing.len, &found, &e), 0);
	assert_true(digest_equal(&found, &info.digest) && same(info.digest, tree("listed")));
	assert_int_equal(filedigest_list_tree_at(NULL, work_fd, "listed", &small, &info, &e), 0);
	assert_int_equal(small.len, 0);
	assert_true(same(info.digest, tree("listed")));
}

/* The digest as a shell would compute it, from the words of filedigest.h. */
static void test_tree_against_shell(void **state)
{
	static const char script[] =
		"cd \"$1\"; h() { sha256sum <\"$1\" | cut -c1-64; }\n"
		"{ printf 'imgbuild tree 1\\n'; printf 'd 0755 d\\0'; printf 'f 0755 3 %s d-run\\0' \"$(h d-run)\"\n"
		"printf 'f 0644 4 %s d/file\\0' \"$(h d/file)\"; printf 'l link\\0/etc/passwd\\0'; } | sha256sum | cut -c1-64";
	char top[512], hex[DIGEST_HEX_SIZE];
	const char *argv[] = { "/bin/bash", "-euc", script, "sh", top, NULL };
	struct process_options options = { .argv = argv, .working_dirfd = -1 };
	_cleanup_buf_ struct buf out = BUF_INIT(1000);
	struct filedigest_tree_info info;
	struct err e = ERR_INIT;
	int status = -1;

	(void)state;
	make_tree("t");
	(void)snprintf(top, sizeof(top), "%s/t", workdir);
	assert_int_equal(process_run(&options, &out, NULL, 10000, &status, &e), 0);
	assert_int_equal(status, 0);
	assert_int_equal(filedigest_tree_at(NULL, work_fd, "t", &info, &e), 0);
	assert_memory_equal(buf_str(&out), digest_hex(&info.digest, hex), 64);
	assert_int_equal(info.n_files, 2);
	assert_int_equal(info.n_folders, 1);
	assert_int_equal(info.n_links, 1);
	assert_int_equal(info.file_bytes, 7);
}

static void test_tree_notices_what_counts(void **state)
{
	struct timespec times[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	struct digest before;

	(void)state;
	make_tree("t");
	make_tree("u");
	before = tree("t");
	assert_true(same(before, tree("u"))); /* the name of the top does not count */
	assert_int_equal(utimensat(work_fd, "u/d/file", times, 0), 0);
	assert_int_equal(fchmodat(work_fd, "u", 0700, 0), 0);
	assert_true(same(before, tree("u")));
	put("u/d/file", "FILE", 0644);
	assert_false(same(before, tree("u")));
	put("u/d/file", "file", 0755);
	assert_false(same(before, tree("u")));
	/* Another umask at the checkout is no other tree. */
	put("u/d/file", "file", 0600);
	put("u/d-run", "run", 0775);
	assert_int_equal(fchmodat(work_fd, "u/d", 02770, 0), 0);
	assert_true(same(before, tree("u")));
	assert_int_equal(mkdirat(work_fd, "u/empty", 0755), 0);
	assert_false(same(before, tree("u")));
	assert_int_equal(renameat(work_fd, "u/empty", work_fd, "elsewhere"), 0);
	assert_true(same(before, tree("u")));
	assert_int_equal(unlinkat(work_fd, "u/link", 0), 0);
	assert_int_equal(symlinkat("/etc/passwe", work_fd, "u/link"), 0);
	assert_false(same(before, tree("u")));
}

static void refuse_tree(int expected)
{
	struct filedigest_tree_info info;
	struct err e = ERR_INIT;

	assert_int_equal(filedigest_tree_at(NULL, work_fd, "t", &info, &e), expected);
	assert_int_equal(e.kind, ERR_KIND_USAGE);
}

static void test_refused_trees(void **state)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), here = -1;

	(void)state;
	make_tree("t");
	assert_int_equal(mkfifoat(work_fd, "t/fifo", 0600), 0);
	refuse_tree(-EINVAL);
	assert_int_equal(unlinkat(work_fd, "t/fifo", 0), 0);
	here = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(fchdir(work_fd), 0);
	(void)snprintf(a.sun_path, sizeof(a.sun_path), "t/socket");
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(fchdir(here), 0);
	refuse_tree(-EINVAL);
}

/* At the limit, and one past it. */
static void test_tree_depth(void **state)
{
	_cleanup_close_ int fd = dup(work_fd);

	(void)state;
	for (unsigned depth = 0; depth <= FILEDIGEST_TREE_MAX_DEPTH; depth++) {
		int next;

		assert_int_equal(mkdirat(fd, "t", 0755), 0);
		next = openat(fd, "t", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		assert_true(next >= 0);
		close_fdp(&fd);
		fd = next;
		if (depth == FILEDIGEST_TREE_MAX_DEPTH)
			(void)tree("t");
	}
	assert_int_equal(mkdirat(fd, "t", 0755), 0);
	refuse_tree(-E2BIG);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_workdir, remove_workdir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_quiet_file_is_remembered),
		TEST(test_fresh_file_is_not_remembered),
		TEST(test_sha512_is_remembered),
		TEST(test_memo_of_strangers),
		TEST(test_memo_limit),
		TEST(test_paths_stay_beneath),
		TEST(test_listing),
		TEST(test_tree_against_shell),
		TEST(test_tree_notices_what_counts),
		TEST(test_refused_trees),
		TEST(test_tree_depth),
		TEST(test_paths_without_openat2),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
