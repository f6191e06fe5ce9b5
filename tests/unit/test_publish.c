/* The writing side of the store: what it makes, what it refuses, and what is left when it is killed or when the k-th
 * system call fails, for every k. For that the test traces a child of its own (ptrace), so that no library has to be
 * put in between. */
#include "cache/publish.h"
#include "lib/io.h"
#include "lib/process.h"

#include <elf.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <linux/ptrace.h>
/* after the others */
#include <cmocka.h>

static char workdir[256], cache[512];

static int make_workdir_in(const char *folder)
{
	(void)snprintf(workdir, sizeof(workdir), "%s/imgbuild-publish.XXXXXX", folder);
	if (!mkdtemp(workdir))
		return -1;
	(void)snprintf(cache, sizeof(cache), "%s/deep/cache", workdir);
	return 0;
}

static int make_workdir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	return make_workdir_in(tmp ? tmp : "/tmp");
}

/* For the sweeps, which sync a thousand times: in memory where that can be had. */
static int make_fast_workdir(void **state)
{
	return access("/dev/shm", W_OK) == 0 ? make_workdir_in("/dev/shm") : make_workdir(state);
}

static int remove_workdir(void **state)
{
	(void)state;
	return remove_tree_at(AT_FDCWD, workdir);
}

static struct digest digest_of(const char *text)
{
	struct digest d;
	struct err e = ERR_INIT;

	assert_int_equal(digest_bytes(DIGEST_SHA256, text, strlen(text), &d, &e), 0);
	return d;
}

static struct publisher *opened(void)
{
	struct publisher *p = NULL;
	struct err e = ERR_INIT;

	if (publisher_open(cache, &p, &e) < 0)
		fail_msg("%s", e.message);
	return p;
}

static void put_at(int dirfd, const char *name, const char *text)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write_full(fd, text, strlen(text)), 0);
}

static void assert_file(const char *folder, const char *name, const char *text, mode_t mode)
{
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);
	struct err e = ERR_INIT;
	char path[1024];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	if (read_file_at(AT_FDCWD, path, false, &b, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(buf_str(&b), text);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, mode);
}

/* Number of things in a folder of the cache. */
static size_t count_in(const char *folder)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	char path[1024];
	size_t n = 0;

	(void)snprintf(path, sizeof(path), "%s/%s", cache, folder);
	dir = opendir(path);
	if (!dir)
		return 0;
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	return n;
}

/* ---- folders ------------------------------------------------------------------------------------------------------- */

static void test_publish_entry(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	_cleanup_temp_folder_ struct temp_folder t = TEMP_FOLDER_INIT;
	_cleanup_free_ char *path = NULL, *found = NULL;
	struct digest key = digest_of("key");
	struct err e = ERR_INIT;
	struct stat st;
	bool existed = true;

	(void)state;
	assert_int_equal(temp_folder_new(p, "build", &t, &e), 0);
	put_at(t.fd, "rootfs.ext4", "root");
	assert_int_equal(mkdirat(t.fd, "logs", 0700), 0);
	put_at(t.fd, "logs/console.log", "log");
	assert_int_equal(fchmodat(t.fd, "rootfs.ext4", 0200, 0), 0);
	assert_int_equal(publish_entry(&t, &key, "{}", 2, &path, &existed, &e), 0);
	assert_false(existed);
	assert_file(path, "rootfs.ext4", "root", 0444);
	assert_file(path, "logs/console.log", "log", 0444);
	assert_file(path, STORE_MANIFEST, "{}", 0444);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(store_find_entry(publisher_store(p), &key, &found, &e), 0);
	assert_string_equal(found, path);
	assert_int_equal(t.fd, -1);
	publisher_close(take_ptr(p));
	assert_int_equal(count_in("tmp"), 1); /* partial */
}

static void test_existing_entry_wins(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	struct digest key = digest_of("key");
	struct err e = ERR_INIT;

	(void)state;
	for (int i = 0; i < 2; i++) {
		_cleanup_temp_folder_ struct temp_folder t = TEMP_FOLDER_INIT;
		_cleanup_free_ char *path = NULL;
		bool existed;

		assert_int_equal(temp_folder_new(p, "build", &t, &e), 0);
		put_at(t.fd, "f", i ? "second" : "first");
		assert_int_equal(publish_entry(&t, &key, "{}", 2, &path, &existed, &e), 0);
		assert_int_equal(existed, i);
		assert_file(path, "f", "first", 0444);
	}
}

/* What lies there without a manifest is no entry and gives way, be it a folder or a file. */
static void test_junk_gives_way(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	char hex[DIGEST_HEX_SIZE], junk[1024];
	struct err e = ERR_INIT;

	(void)state;
	for (int i = 0; i < 3; i++) {
		_cleanup_temp_folder_ struct temp_folder t = TEMP_FOLDER_INIT;
		_cleanup_free_ char *path = NULL;
		struct digest key = digest_of(i == 0 ? "full" : i == 1 ? "empty" : "file");
		bool existed;

		(void)snprintf(junk, sizeof(junk), "%s/images/%s", cache, digest_hex(&key, hex));
		if (i < 2) {
			assert_int_equal(mkdir(junk, 0755), 0);
		}
		(void)snprintf(junk, sizeof(junk), "%s/images/%s%s", cache, hex, i == 2 ? "" : "/rootfs.ext4");
		if (i != 1)
			put_at(AT_FDCWD, junk, "half");
		assert_int_equal(temp_folder_new(p, "build", &t, &e), 0);
		put_at(t.fd, "f", "whole");
		assert_int_equal(publish_entry(&t, &key, "{}", 2, &path, &existed, &e), 0);
		assert_false(existed);
		assert_file(path, "f", "whole", 0444);
		(void)snprintf(junk, sizeof(junk), "%s/rootfs.ext4", path);
		assert_int_equal(access(junk, F_OK), -1);
	}
}

static void test_refused_folders(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	_cleanup_temp_folder_ struct temp_folder t = TEMP_FOLDER_INIT;
	_cleanup_free_ char *path = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(temp_folder_new(p, "build", &t, &e), 0);
	assert_int_equal(publish_folder(&t, STORE_STAGE, "../x", "{}", 2, &path, NULL, &e), -EINVAL);
	assert_int_equal(publish_folder(&t, STORE_STAGE, ".x", "{}", 2, &path, NULL, &e), -EINVAL);
	assert_int_equal(publish_folder(&t, STORE_STAGE, "", "{}", 2, &path, NULL, &e), -EINVAL);
	assert_int_equal(symlinkat("/etc/passwd", t.fd, "link"), 0);
	assert_int_equal(publish_folder(&t, STORE_STAGE, "x", "{}", 2, &path, NULL, &e), -EINVAL);
	assert_int_equal(unlinkat(t.fd, "link", 0), 0);
	assert_int_equal(mkfifoat(t.fd, "fifo", 0600), 0);
	assert_int_equal(publish_folder(&t, STORE_STAGE, "x", "{}", 2, &path, NULL, &e), -EINVAL);
	assert_int_equal(unlinkat(t.fd, "fifo", 0), 0);
	put_at(t.fd, STORE_MANIFEST, "theirs");
	assert_int_equal(publish_folder(&t, STORE_STAGE, "x", "{}", 2, &path, NULL, &e), -EINVAL);
	assert_int_equal(unlinkat(t.fd, STORE_MANIFEST, 0), 0);
	assert_int_equal(count_in("stages"), 0);
	/* After all that the same folder can be published. */
	assert_int_equal(publish_folder(&t, STORE_STAGE, "x", "{}", 2, &path, NULL, &e), 0);
}

static void test_failed_builds_are_numbered(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	struct digest key = digest_of("key");
	struct err e = ERR_INIT;
	char hex[DIGEST_HEX_SIZE], name[STORE_NAME_MAX_BYTES];

	(void)state;
	for (unsigned i = 1; i <= 3; i++) {
		_cleanup_temp_folder_ struct temp_folder t = TEMP_FOLDER_INIT;
		_cleanup_free_ char *path = NULL;

		assert_int_equal(temp_folder_new(p, "build", &t, &e), 0);
		put_at(t.fd, "console.log", "x");
		assert_int_equal(publish_failed(&t, &key, "{}", 2, &path, &e), 0);
		/* The first goes away after the second: the third is still the third. */
		(void)snprintf(name, sizeof(name), "%s-%u", digest_hex(&key, hex), i);
		assert_non_null(strstr(path, name));
		if (i == 2) {
			(void)snprintf(name, sizeof(name), "%s-1", hex);
			assert_int_equal(publish_remove(p, STORE_FAILED, name, &e), 0);
			assert_int_equal(publish_remove(p, STORE_FAILED, name, &e), 0);
		}
	}
	assert_int_equal(count_in("failed"), 2);
}

static void test_state(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	_cleanup_buf_ struct buf b = BUF_INIT(100);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(publish_state(p, "accel", "kvm", 3, &e), 0);
	assert_int_equal(publish_state(p, "accel", "tcg!", 4, &e), 0);
	assert_int_equal(store_read_state(publisher_store(p), "accel", &b, &e), 0);
	assert_string_equal(buf_str(&b), "tcg!");
	assert_int_equal(publish_state(p, "../accel", "x", 1, &e), -EINVAL);
	assert_int_equal(publish_state(p, "big", "x", STORE_STATE_MAX_BYTES + 1, &e), -EINVAL);
}

/* ---- blobs --------------------------------------------------------------------------------------------------------- */

static void assert_blob(const char *text)
{
	_cleanup_store_ struct store s = STORE_INIT;
	_cleanup_close_ int fd = -1;
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);
	struct digest d = digest_of(text);
	struct err e = ERR_INIT;
	struct stat st;
	uint64_t size;

	assert_int_equal(store_open(cache, &s, &e), 0);
	assert_int_equal(store_open_blob(&s, &d, &fd, &size, &e), 0);
	assert_int_equal(size, strlen(text));
	assert_int_equal(read_fd_to_end(fd, &b), 0);
	assert_string_equal(buf_str(&b), text);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0444);
	assert_int_equal(st.st_nlink, 1);
}

static void refuse_blob(struct publisher *p, const struct blob_expectation *expected, const char *text, int code)
{
	_cleanup_(blob_writer_freep) struct blob_writer *w = NULL;
	struct blob_info info;
	struct err e = ERR_INIT;
	int r;

	assert_int_equal(blob_writer_new(p, expected, &w, &e), 0);
	r = blob_writer_write(w, text, strlen(text), &e);
	if (r == 0)
		r = blob_writer_finish(w, &info, &e);
	assert_int_equal(r, code);
	assert_int_equal(e.kind, ERR_KIND_INPUT);
	assert_int_equal(count_in("blobs/sha256"), 0);
}

static void test_wrong_bytes_are_no_blob(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	struct blob_expectation expected = BLOB_EXPECTATION_INIT;
	struct err e = ERR_INIT;

	(void)state;
	expected.label = "the thing";
	expected.sha256 = digest_of("hello");
	refuse_blob(p, &expected, "Hello", -EBADMSG);
	expected.sha256 = (struct digest){ .algorithm = DIGEST_NONE };
	assert_int_equal(digest_bytes(DIGEST_SHA512, "hello", 5, &expected.sha512, &e), 0);
	refuse_blob(p, &expected, "Hello", -EBADMSG);
	expected.sha512 = (struct digest){ .algorithm = DIGEST_NONE };
	expected.size_bytes = 4;
	refuse_blob(p, &expected, "Hello", -E2BIG);
	refuse_blob(p, &expected, "Hel", -EBADMSG);
	expected.size_bytes = BLOB_SIZE_UNKNOWN;
	expected.max_bytes = 4;
	refuse_blob(p, &expected, "Hello", -E2BIG);
	publisher_close(take_ptr(p));
	assert_int_equal(count_in("tmp"), 1);
}

static void test_mismatch_names_both(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	_cleanup_(blob_writer_freep) struct blob_writer *w = NULL;
	struct blob_expectation expected = BLOB_EXPECTATION_INIT;
	struct digest wrong = digest_of("Hello");
	struct blob_info info;
	struct err e = ERR_INIT;
	char hex[DIGEST_HEX_SIZE];

	(void)state;
	expected.label = "the thing";
	expected.sha256 = digest_of("hello");
	assert_int_equal(blob_writer_new(p, &expected, &w, &e), 0);
	assert_int_equal(blob_writer_write(w, "Hello", 5, &e), 0);
	assert_int_equal(blob_writer_finish(w, &info, &e), -EBADMSG);
	assert_non_null(strstr(e.message, digest_hex(&expected.sha256, hex)));
	assert_non_null(strstr(e.message, digest_hex(&wrong, hex)));
	/* The writer is at its beginning and can be used again. */
	assert_int_equal(blob_writer_offset(w), 0);
	assert_int_equal(blob_writer_write(w, "hello", 5, &e), 0);
	assert_int_equal(blob_writer_finish(w, &info, &e), 0);
	assert_blob("hello");
}

static void test_blob_by_sha512(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	struct blob_expectation expected = BLOB_EXPECTATION_INIT;
	struct digest sha256 = digest_of("hello"), found, sha512;
	struct err e = ERR_INIT;
	char path[STORE_BLOB_PATH_SIZE];

	(void)state;
	assert_int_equal(digest_bytes(DIGEST_SHA512, "hello", 5, &sha512, &e), 0);
	expected.sha512 = sha512;
	for (int i = 0; i < 2; i++) {
		_cleanup_(blob_writer_freep) struct blob_writer *w = NULL;
		struct blob_info info;

		assert_int_equal(blob_writer_new(p, &expected, &w, &e), 0);
		assert_int_equal(blob_writer_write(w, "hello", 5, &e), 0);
		assert_int_equal(blob_writer_finish(w, &info, &e), 0);
		assert_true(digest_equal(&info.sha256, &sha256));
		assert_int_equal(store_find_blob(publisher_store(p), &sha512, &found, NULL, &e), 0);
		assert_true(digest_equal(&found, &sha256));
		/* The second time over a damaged link. */
		(void)store_blob_relative_path(&sha512, path);
		assert_int_equal(unlinkat(publisher_store(p)->root_fd, path, 0), 0);
		assert_int_equal(symlinkat("damaged", publisher_store(p)->root_fd, path), 0);
	}
}

static void test_damaged_blob_is_replaced(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	struct digest d = digest_of("hello");
	struct blob_info info;
	struct err e = ERR_INIT;
	char path[STORE_BLOB_PATH_SIZE], full[1024];

	(void)state;
	assert_int_equal(publish_blob_bytes(p, "hello", 5, "x", &info, &e), 0);
	(void)snprintf(full, sizeof(full), "%s/%s", cache, store_blob_relative_path(&d, path));
	assert_int_equal(chmod(full, 0644), 0);
	assert_int_equal(truncate(full, 2), 0);
	assert_int_equal(publish_blob_bytes(p, "hello", 5, "x", &info, &e), 0);
	assert_blob("hello");
}

static void test_partial_is_resumed(void **state)
{
	struct publisher *p = opened();
	struct blob_expectation expected = BLOB_EXPECTATION_INIT;
	struct blob_writer *w = NULL, *other = NULL;
	struct blob_info info;
	struct err e = ERR_INIT;

	(void)state;
	expected.sha256 = digest_of("hello world");
	expected.size_bytes = 11;
	expected.keep_partial = true;
	assert_int_equal(blob_writer_new(p, &expected, &w, &e), 0);
	assert_int_equal(blob_writer_write(w, "hello ", 6, &e), 0);
	/* Somebody else who wants the same meanwhile begins a file of its own. */
	assert_int_equal(blob_writer_new(p, &expected, &other, &e), 0);
	assert_int_equal(blob_writer_offset(other), 0);
	blob_writer_free(other);
	blob_writer_free(w);
	publisher_close(p);
	assert_int_equal(count_in("tmp/partial"), 1);

	p = opened();
	assert_int_equal(blob_writer_new(p, &expected, &w, &e), 0);
	assert_int_equal(blob_writer_offset(w), 6);
	assert_int_equal(blob_writer_write(w, "world", 5, &e), 0);
	assert_int_equal(blob_writer_finish(w, &info, &e), 0);
	blob_writer_free(w);
	assert_blob("hello world");
	assert_int_equal(count_in("tmp/partial"), 0);
	publisher_close(p);
}

static void test_damaged_partial_begins_again(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	_cleanup_(blob_writer_freep) struct blob_writer *w = NULL;
	struct blob_expectation expected = BLOB_EXPECTATION_INIT;
	struct blob_info info;
	struct err e = ERR_INIT;
	char partial[1024], hex[DIGEST_HEX_SIZE];

	(void)state;
	expected.sha256 = digest_of("hello world");
	expected.keep_partial = true;
	(void)snprintf(partial, sizeof(partial), "%s/tmp/partial/sha256-%s", cache, digest_hex(&expected.sha256, hex));
	put_at(AT_FDCWD, partial, "HELLO ");
	assert_int_equal(blob_writer_new(p, &expected, &w, &e), 0);
	assert_int_equal(blob_writer_offset(w), 6);
	assert_int_equal(blob_writer_write(w, "world", 5, &e), 0);
	assert_int_equal(blob_writer_finish(w, &info, &e), -EBADMSG);
	assert_int_equal(blob_writer_offset(w), 0);
	assert_int_equal(blob_writer_write(w, "hello world", 11, &e), 0);
	assert_int_equal(blob_writer_finish(w, &info, &e), 0);
	assert_blob("hello world");
}

/* A partial file that is a blob's second name, as a death between link and unlink leaves it, is not written to. */
static void test_partial_that_is_a_blob(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	_cleanup_(blob_writer_freep) struct blob_writer *w = NULL;
	struct blob_expectation expected = BLOB_EXPECTATION_INIT;
	struct digest other = digest_of("hello");
	struct blob_info info;
	struct err e = ERR_INIT;
	char partial[1024], blob[1024], hex[DIGEST_HEX_SIZE], path[STORE_BLOB_PATH_SIZE];

	(void)state;
	assert_int_equal(publish_blob_bytes(p, "hello", 5, "x", &info, &e), 0);
	expected.sha256 = digest_of("hello world");
	expected.keep_partial = true;
	(void)snprintf(partial, sizeof(partial), "%s/tmp/partial/sha256-%s", cache, digest_hex(&expected.sha256, hex));
	(void)snprintf(blob, sizeof(blob), "%s/%s", cache, store_blob_relative_path(&other, path));
	assert_int_equal(link(blob, partial), 0);
	assert_int_equal(blob_writer_new(p, &expected, &w, &e), 0);
	assert_int_equal(blob_writer_offset(w), 0);
	assert_int_equal(blob_writer_write(w, "hello world", 11, &e), 0);
	assert_int_equal(blob_writer_finish(w, &info, &e), 0);
	assert_blob("hello");
	assert_blob("hello world");
}

static void test_local_file_keeps_holes(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	_cleanup_close_ int fd = -1, cancel = -1, blob = -1;
	struct blob_expectation expected = BLOB_EXPECTATION_INIT;
	struct digest d;
	struct blob_info info;
	struct err e = ERR_INIT;
	struct stat st;
	char path[512];

	(void)state;
	(void)snprintf(path, sizeof(path), "%s/sparse", workdir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(pwrite_full(fd, "data", 4, 1 << 20), 0);
	assert_int_equal(ftruncate(fd, 64 << 20), 0);
	assert_int_equal(digest_fd(DIGEST_SHA256, fd, UINT64_MAX, &d, &e), 0);
	expected.sha256 = d;
	assert_int_equal(publish_blob_from_fd(p, fd, &expected, -1, &info, &e), 0);
	assert_int_equal(info.size_bytes, 64 << 20);
	assert_int_equal(store_open_blob(publisher_store(p), &d, &blob, NULL, &e), 0);
	assert_int_equal(fstat(blob, &st), 0);
	assert_true(st.st_blocks * 512 < 4 << 20);
	/* Interrupted: nothing is left. */
	cancel = eventfd(1, EFD_CLOEXEC);
	assert_int_equal(pwrite_full(fd, "DATA", 4, 1 << 20), 0);
	expected.sha256 = (struct digest){ .algorithm = DIGEST_NONE };
	assert_int_equal(publish_blob_from_fd(p, fd, &expected, cancel, &info, &e), -ECANCELED);
	assert_int_equal(count_in("blobs/sha256"), 1);
}

/* A file system that is full, as a limit on file sizes shows it without privileges. */
static void test_no_room(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	struct rlimit limit, small;
	struct blob_info info;
	struct err e = ERR_INIT;
	static char bytes[64 * 1024];
	int r;

	(void)state;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = (struct rlimit){ .rlim_cur = 16 * 1024, .rlim_max = limit.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	memset(bytes, 'x', sizeof(bytes));
	r = publish_blob_bytes(p, bytes, sizeof(bytes), "the thing", &info, &e);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(r, -EFBIG);
	assert_int_equal(e.kind, ERR_KIND_HOST);
	assert_int_equal(count_in("blobs/sha256"), 0);
}

/* ---- litter -------------------------------------------------------------------------------------------------------- */

/* Start a child that opens a publisher, begins a temporary folder, says so, and waits to be killed. */
static pid_t start_idle_child(void)
{
	int ready[2];
	char byte = 0;
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct publisher *p = NULL;
		struct temp_folder t = TEMP_FOLDER_INIT;
		struct err e = ERR_INIT;

		if (publisher_open(cache, &p, &e) < 0 || temp_folder_new(p, "build", &t, &e) < 0)
			_exit(1);
		put_at(t.fd, "rootfs.ext4", "x");
		(void)!write(ready[1], "r", 1);
		for (;;)
			(void)pause();
	}
	(void)close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	(void)close(ready[0]);
	return pid;
}

static void kill_child(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void test_litter_of_the_dead_only(void **state)
{
	pid_t dead = start_idle_child(), alive = start_idle_child();
	struct publisher *p;

	(void)state;
	assert_int_equal(count_in("tmp"), 5); /* partial, and a folder and a lock of each */
	kill_child(dead);
	p = opened();
	assert_int_equal(count_in("tmp"), 5); /* partial, alive and ours */
	publisher_close(p);
	assert_int_equal(count_in("tmp"), 3);
	kill_child(alive);
	publisher_close(opened());
	assert_int_equal(count_in("tmp"), 1);
}

static void make_old(const char *name, long age_s)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = time(NULL) - age_s } };
	char path[1024];

	(void)snprintf(path, sizeof(path), "%s/tmp/%s", cache, name);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void test_litter_of_strangers(void **state)
{
	struct err e = ERR_INIT;
	char path[1024];

	(void)state;
	publisher_close(opened());
	/* Another machine's (or another boot's) place: flock may say nothing about it. */
	(void)snprintf(path, sizeof(path), "%s/tmp/00000000.00000000-7-00000000/build-0", cache);
	assert_int_equal(mkdir_parents_at(AT_FDCWD, path, &e), 0);
	(void)snprintf(path, sizeof(path), "%s/tmp/00000000.00000000-7-00000000.lock", cache);
	put_at(AT_FDCWD, path, "");
	(void)snprintf(path, sizeof(path), "%s/tmp/partial/sha256-00", cache);
	put_at(AT_FDCWD, path, "x");
	publisher_close(opened());
	assert_int_equal(count_in("tmp"), 3);
	make_old("00000000.00000000-7-00000000.lock", PUBLISH_FOREIGN_LITTER_AGE_S + 60);
	make_old("partial/sha256-00", PUBLISH_PARTIAL_AGE_S - 60);
	publisher_close(opened());
	assert_int_equal(count_in("tmp"), 1);
	assert_int_equal(count_in("tmp/partial"), 1);
	make_old("partial/sha256-00", PUBLISH_PARTIAL_AGE_S + 60);
	publisher_close(opened());
	assert_int_equal(count_in("tmp/partial"), 0);
}

/* ---- several at once ----------------------------------------------------------------------------------------------- */

/* Each child publishes the same key with its own number in it. Exit status: 0 ours was taken, 1 another's, 2 error. */
static void race_child(int go, int number)
{
	struct publisher *p = NULL;
	struct temp_folder t = TEMP_FOLDER_INIT;
	struct digest key = digest_of("key");
	struct err e = ERR_INIT;
	struct blob_info info;
	char text[16], byte, *path = NULL;
	bool existed;

	(void)snprintf(text, sizeof(text), "%d", number);
	if (publisher_open(cache, &p, &e) < 0 || temp_folder_new(p, "build", &t, &e) < 0)
		_exit(2);
	put_at(t.fd, "a", text);
	put_at(t.fd, "b", text);
	if (read(go, &byte, 1) != 0) /* all begin when the parent closes its end */
		_exit(2);
	if (publish_blob_bytes(p, "same bytes", 10, "blob", &info, &e) < 0 ||
		publish_entry(&t, &key, "{}", 2, &path, &existed, &e) < 0) {
		(void)fprintf(stderr, "%s\n", e.message);
		_exit(2);
	}
	publisher_close(p);
	_exit(existed);
}

static void test_many_publish_one_key(void **state)
{
	enum { CHILDREN = 8 };
	_cleanup_buf_ struct buf a = BUF_INIT(100), b = BUF_INIT(100);
	struct digest key = digest_of("key");
	struct err e = ERR_INIT;
	char path[1024], hex[DIGEST_HEX_SIZE];
	int go[2], n_won = 0;
	pid_t pids[CHILDREN];

	(void)state;
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	for (int i = 0; i < CHILDREN; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			(void)close(go[1]);
			race_child(go[0], i);
		}
	}
	(void)close(go[0]);
	(void)close(go[1]);
	for (int i = 0; i < CHILDREN; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
		n_won += WEXITSTATUS(status) == 0;
	}
	assert_int_equal(n_won, 1);
	(void)snprintf(path, sizeof(path), "%s/images/%s/a", cache, digest_hex(&key, hex));
	assert_int_equal(read_file_at(AT_FDCWD, path, false, &a, &e), 0);
	path[strlen(path) - 1] = 'b';
	assert_int_equal(read_file_at(AT_FDCWD, path, false, &b, &e), 0);
	assert_string_equal(buf_str(&a), buf_str(&b));
	assert_blob("same bytes");
	assert_int_equal(count_in("tmp"), 1);
}

struct wait_log {
	unsigned n_calls;
	pid_t holder;
	pid_t to_kill;
};

static int note_wait(void *ctx, pid_t holder, uint64_t waited_ms)
{
	struct wait_log *log = ctx;

	(void)waited_ms;
	log->n_calls++;
	log->holder = holder;
	if (log->to_kill > 0)
		kill_child(log->to_kill);
	log->to_kill = 0;
	return 0;
}

static void test_key_lock(void **state)
{
	_cleanup_publisher_ struct publisher *p = opened();
	_cleanup_publish_lock_ struct publish_lock ours = PUBLISH_LOCK_INIT;
	_cleanup_close_ int cancel = eventfd(1, EFD_CLOEXEC);
	struct digest key = digest_of("key"), other = digest_of("other");
	struct wait_log log = { .n_calls = 0 };
	struct err e = ERR_INIT;
	char byte, number[32];
	int ready[2];
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct publish_lock lock = PUBLISH_LOCK_INIT;

		if (publish_lock_key(p, &key, 0, -1, NULL, NULL, &lock, &e) < 0)
			_exit(1);
		(void)!write(ready[1], "r", 1);
		for (;;)
			(void)pause();
	}
	(void)close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	(void)close(ready[0]);
	assert_int_equal(publish_lock_key(p, &key, 0, -1, NULL, NULL, &ours, &e), -EWOULDBLOCK);
	(void)snprintf(number, sizeof(number), "process %d", (int)pid);
	assert_non_null(strstr(e.message, number));
	assert_int_equal(publish_lock_key(p, &key, -1, cancel, NULL, NULL, &ours, &e), -ECANCELED);
	/* Another key is not held up. */
	assert_int_equal(publish_lock_key(p, &other, 0, -1, NULL, NULL, &ours, &e), 0);
	publish_lock_release(&ours);
	/* The holder dies while we wait: the lock is ours. */
	log.to_kill = pid;
	assert_int_equal(publish_lock_key(p, &key, 10000, -1, note_wait, &log, &ours, &e), 0);
	assert_int_equal(log.n_calls, 1);
	assert_int_equal(log.holder, pid);
	assert_true(ours.fd >= 0);
	publish_lock_release(&ours);
	assert_int_equal(count_in("locks"), 2); /* never deleted */
}

/* ---- killed or failing at every step --------------------------------------------------------------------------------- */

static void set_result(pid_t pid, long result);

/* Let the system call that `pid` is about to make fail: it becomes one that does not exist. */
static void skip_call(pid_t pid)
{
#if defined(__x86_64__)
	struct user_regs_struct regs;

	assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
	regs.orig_rax = (unsigned long long)-1;
	assert_int_equal(ptrace(PTRACE_SETREGS, pid, NULL, &regs), 0);
#elif defined(__aarch64__)
	int number = -1;
	struct iovec io = { .iov_base = &number, .iov_len = sizeof(number) };

	assert_int_equal(ptrace(PTRACE_SETREGSET, pid, (void *)(uintptr_t)NT_ARM_SYSTEM_CALL, &io), 0);
#else
#error "say how a system call is skipped on this architecture"
#endif
}

static void set_result(pid_t pid, long result)
{
#if defined(__x86_64__)
	struct user_regs_struct regs;

	assert_int_equal(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
	regs.rax = (unsigned long long)result;
	assert_int_equal(ptrace(PTRACE_SETREGS, pid, NULL, &regs), 0);
#elif defined(__aarch64__)
	struct user_regs_struct regs;
	struct iovec io = { .iov_base = &regs, .iov_len = sizeof(regs) };

	assert_int_equal(ptrace(PTRACE_GETREGSET, pid, (void *)(uintptr_t)NT_PRSTATUS, &io), 0);
	regs.regs[0] = (unsigned long long)result;
	assert_int_equal(ptrace(PTRACE_SETREGSET, pid, (void *)(uintptr_t)NT_PRSTATUS, &io), 0);
#endif
}

/* Calls whose failure the store must survive; those of the memory allocator and of sanitizers are not ours. */
static bool is_file_call(uint64_t number)
{
	static const long calls[] = { SYS_openat, SYS_read, SYS_write, SYS_pwrite64, SYS_pread64, SYS_fsync, SYS_fchmod,
		SYS_fchmodat, SYS_renameat2, SYS_renameat, SYS_linkat, SYS_unlinkat, SYS_mkdirat, SYS_symlinkat,
		SYS_ftruncate, SYS_fallocate, SYS_newfstatat, SYS_fstat, SYS_flock, SYS_getdents64, SYS_readlinkat,
		SYS_close, SYS_faccessat };

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if ((uint64_t)calls[i] == number)
			return true;
	return false;
}

enum trace_mode {
	TRACE_KILL,	    /* SIGKILL before the k-th call */
	TRACE_FAIL,	    /* the k-th file call fails */
	TRACE_NO_NOREPLACE, /* renameat2 with flags: EINVAL, as on NFS */
	TRACE_NO_LINK,	    /* that, and linkat: EPERM */
	TRACE_READ_ONLY	    /* mkdirat: EROFS */
};

static bool shall_fail(enum trace_mode mode, unsigned *count, unsigned k, int code,
	const struct ptrace_syscall_info *info, long *ret_result)
{
	uint64_t number = info->entry.nr;

	switch (mode) {
	case TRACE_KILL:
		return false;
	case TRACE_FAIL:
		*ret_result = -code;
		return is_file_call(number) && ++*count == k;
	case TRACE_NO_NOREPLACE:
	case TRACE_NO_LINK:
		*ret_result = -EINVAL;
		if (number == SYS_renameat2 && info->entry.args[4] != 0)
			return true;
		*ret_result = -EPERM;
		return mode == TRACE_NO_LINK && number == SYS_linkat;
	case TRACE_READ_ONLY:
		*ret_result = -EROFS;
		return number == SYS_mkdirat;
	}
	return false;
}

/* Run work() in a traced child. Returns its wait status; *ret_reached: the k-th call was made at all. */
static int trace(void (*work)(void), enum trace_mode mode, unsigned k, int code, bool *ret_reached)
{
	unsigned count = 0;
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(99);
		(void)raise(SIGSTOP);
		work();
		_exit(0);
	}
	*ret_reached = false;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSTOPPED(status));
	assert_int_equal(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(uintptr_t)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)), 0);
	for (;;) {
		struct ptrace_syscall_info info;
		long result = 0;

		assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		if (!WIFSTOPPED(status))
			return status;
		if (WSTOPSIG(status) != (SIGTRAP | 0x80)) /* a signal: not expected, and not delivered */
			continue;
		assert_true(ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) > 0);
		if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
			continue;
		if (mode == TRACE_KILL && ++count == k) {
			*ret_reached = true;
			assert_int_equal(kill(pid, SIGKILL), 0);
			assert_int_equal(waitpid(pid, &status, 0), pid);
			return status;
		}
		if (shall_fail(mode, &count, k, code, &info, &result)) {
			*ret_reached = true;
			skip_call(pid);
			assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
			assert_int_equal(waitpid(pid, &status, 0), pid);
			if (!WIFSTOPPED(status))
				return status;
			set_result(pid, result);
		}
	}
}

/* What is done under all these circumstances: a blob with both digests, an entry of two files. Exit status: 0 all of it,
 * 1 an error. */
static pid_t tell_parent;

static void publish_everything(void)
{
	struct publisher *p = NULL;
	struct temp_folder t = TEMP_FOLDER_INIT;
	struct blob_expectation expected = BLOB_EXPECTATION_INIT;
	struct blob_writer *w = NULL;
	struct digest key = { .algorithm = DIGEST_SHA256 };
	struct err e = ERR_INIT;
	struct blob_info info;
	char *path = NULL;
	int fd, r;

	if (digest_bytes(DIGEST_SHA256, "key", 3, &key, &e) < 0 ||
		digest_bytes(DIGEST_SHA256, "blob", 4, &expected.sha256, &e) < 0)
		_exit(98);
	expected.want_sha512 = expected.keep_partial = true;
	expected.size_bytes = 4;
	r = publisher_open(cache, &p, &e);
	if (r == 0)
		r = blob_writer_new(p, &expected, &w, &e);
	if (r == 0 && blob_writer_offset(w) < 4) /* more, when a run that was killed left a partial file */
		r = blob_writer_write(w, &"blob"[blob_writer_offset(w)], 4 - (size_t)blob_writer_offset(w), &e);
	if (r == 0)
		r = blob_writer_finish(w, &info, &e);
	blob_writer_free(w);
	if (r == 0)
		r = temp_folder_new(p, "build", &t, &e);
	for (int i = 0; i < 2 && r == 0; i++) {
		fd = openat(t.fd, i ? "b" : "a", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		r = fd < 0 ? -errno : write_full(fd, "file", 4);
		if (fd >= 0)
			(void)close(fd);
		if (r < 0)
			(void)err_set_errno(&e, r, "the test cannot write");
	}
	if (r == 0)
		r = publish_entry(&t, &key, "{}", 2, &path, NULL, &e);
	temp_folder_release(&t);
	publisher_close(p);
	if (r < 0 && e.message[0] == '\0')
		_exit(97); /* an error without a word */
	if (r < 0 && getppid() == tell_parent)
		(void)fprintf(stderr, "%s (%s)\n", e.message, e.origin);
	_exit(r < 0 ? 1 : 0);
}

static void assert_whole_entry(const struct digest *key)
{
	char path[1024], hex[DIGEST_HEX_SIZE];

	(void)snprintf(path, sizeof(path), "%s/images/%s", cache, digest_hex(key, hex));
	assert_file(path, "a", "file", 0444);
	assert_file(path, "b", "file", 0444);
	assert_file(path, STORE_MANIFEST, "{}", 0444);
}

/* Whatever happened: the old state or the new one, and the next run does it all and removes the litter. */
static void check_aftermath(const char *what, unsigned k)
{
	_cleanup_store_ struct store s = STORE_INIT;
	_cleanup_free_ char *found = NULL;
	struct digest key = digest_of("key"), blob = digest_of("blob");
	struct err e = ERR_INIT, ignored = ERR_INIT;
	int status;
	pid_t pid;

	assert_int_equal(store_open(cache, &s, &e), 0);
	if (store_find_entry(&s, &key, &found, &ignored) == 0)
		assert_whole_entry(&key);
	if (store_find_blob(&s, &blob, NULL, NULL, &ignored) == 0)
		assert_blob("blob");
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		tell_parent = getppid();
		publish_everything();
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail_msg("%s %u: the next run ended with %d", what, k, status);
	assert_whole_entry(&key);
	assert_blob("blob");
	if (count_in("tmp") != 1 || count_in("tmp/partial") != 0)
		fail_msg("%s %u: litter is left after the next run", what, k);
	assert_int_equal(remove_tree_at(AT_FDCWD, cache), 0);
}

static void test_kill_at_every_step(void **state)
{
	bool reached = true;
	unsigned k = 1;

	(void)state;
	for (; reached; k++) {
		int status = trace(publish_everything, TRACE_KILL, k, 0, &reached);

		assert_true(reached ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0);
		check_aftermath("killed before call", k);
	}
	assert_true(k > 50);
}

static void fail_every_call(int code)
{
	bool reached = true;
	unsigned k = 1, n_failed = 0;

	for (; reached; k++) {
		int status = trace(publish_everything, TRACE_FAIL, k, code, &reached);

		if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
			fail_msg("file call %u failed with %s: status %x", k, strerror(code), (unsigned)status);
		n_failed += WEXITSTATUS(status) == 1;
		check_aftermath("failing call", k);
	}
	assert_true(k > 50 && n_failed > 20);
}

static void test_every_call_fails_enospc(void **state)
{
	(void)state;
	fail_every_call(ENOSPC);
}

static void test_every_call_fails_eio(void **state)
{
	(void)state;
	fail_every_call(EIO);
}

/* Filesystems without RENAME_NOREPLACE, and without hard links. */
static void test_simple_filesystems(void **state)
{
	(void)state;
	for (enum trace_mode mode = TRACE_NO_NOREPLACE; mode <= TRACE_NO_LINK; mode++) {
		bool reached = false;

		for (int i = 0; i < 2; i++) { /* the second time everything exists */
			int status = trace(publish_everything, mode, 0, 0, &reached);

			assert_true(reached);
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		}
		check_aftermath("simple filesystem", mode);
	}
}

static void refused_by_read_only(void)
{
	struct publisher *p = NULL;
	struct err e = ERR_INIT;

	_exit(publisher_open(cache, &p, &e) == -EROFS && e.kind == ERR_KIND_HOST && strstr(e.message, "--cache") ? 0 : 1);
}

static void test_read_only(void **state)
{
	bool reached = false;
	int status = trace(refused_by_read_only, TRACE_READ_ONLY, 0, 0, &reached);

	(void)state;
	assert_true(reached);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_workdir, remove_workdir)
#define SWEEP(f) cmocka_unit_test_setup_teardown(f, make_fast_workdir, remove_workdir)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_publish_entry),
		TEST(test_existing_entry_wins),
		TEST(test_junk_gives_way),
		TEST(test_refused_folders),
		TEST(test_failed_builds_are_numbered),
		TEST(test_state),
		TEST(test_wrong_bytes_are_no_blob),
		TEST(test_mismatch_names_both),
		TEST(test_blob_by_sha512),
		TEST(test_damaged_blob_is_replaced),
		TEST(test_partial_is_resumed),
		TEST(test_damaged_partial_begins_again),
		TEST(test_partial_that_is_a_blob),
		TEST(test_local_file_keeps_holes),
		TEST(test_no_room),
		TEST(test_litter_of_the_dead_only),
		TEST(test_litter_of_strangers),
		TEST(test_many_publish_one_key),
		TEST(test_key_lock),
		SWEEP(test_kill_at_every_step),
		SWEEP(test_every_call_fails_enospc),
		SWEEP(test_every_call_fails_eio),
		TEST(test_simple_filesystems),
		TEST(test_read_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
