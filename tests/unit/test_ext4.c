#include "builder/ext4/check.h"
#include "builder/ext4/ext4.h"
#include "builder/ext4/probe.h"
#include "lib/io.h"
#include "lib/process.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
/* after the others */
#include <cmocka.h>

static char workdir[256];

static char *data_dir; /* absolute: the commands run in workdir */

static void path_in(char *buf, size_t size, const char *name)
{
	int n = snprintf(buf, size, "%s/%s", workdir, name);

	assert_true(n > 0 && (size_t)n < size);
}

/* Run a command in workdir; it must succeed. */
static void run(struct buf *out, const char *script)
{
	const char *argv[] = { "/bin/bash", "-euc", script, NULL };
	const char *env[] = { "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", NULL };
	_cleanup_close_ int dir = open(workdir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct process_options options = { .argv = argv, .env = env, .working_dirfd = dir };
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);
	struct err e = ERR_INIT;
	int status = -1, r = process_run(&options, out, &text, 60000, &status, &e);

	if (r < 0 || status != 0)
		fail_msg("`%s` failed: %s%s", script, e.message, buf_str(&text));
}

struct opened {
	int fd;
	struct blockdev *dev;
	struct ext4 *fs;
};

static int try_open(const char *name, struct opened *o, struct err *e)
{
	char path[512];

	path_in(path, sizeof(path), name);
	o->fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(o->fd >= 0);
	assert_int_equal(blockdev_new_file(o->fd, &o->dev, e), 0);
	o->fs = NULL;
	return ext4_open(o->dev, &o->fs, e);
}

static void close_all(struct opened *o)
{
	ext4_free(o->fs);
	blockdev_free(o->dev);
	(void)close(o->fd);
}

/* ---- made here, judged by what went in ---- */

static const char *const variants[] = {
	"-t ext4 -b 4096 a.img 24M",
	"-t ext4 -b 1024 -O inline_data,metadata_csum -I 256 a.img 24M",
	"-t ext4 -b 4096 -O ^metadata_csum,^64bit,^extents a.img 24M",
	"-t ext3 -b 2048 a.img 24M",
	"-t ext2 -b 1024 -O ^dir_index a.img 24M",
	"-t ext4 -b 65536 a.img 64M",
	"-t ext4 -b 1024 -O bigalloc,metadata_csum_seed,ea_inode,large_dir a.img 24M",
};

static void make_tree(void)
{
	run(NULL,
		"mkdir -p t/etc t/usr/lib t/many t/deep/a/b t/lib\n"
		"printf 'NAME=\"X\"\\nID=debian\\nVERSION_ID=\"12\"\\nVERSION_CODENAME=bookworm\\nPRETTY_NAME=\"Debian \\\\\"12\\\\\"\"\\n' "
		">t/usr/lib/os-release\n"
		"ln -s ../usr/lib/os-release t/etc/os-release\n"
		"ln -s /usr/lib/os-release t/etc/absolute\n"
		"ln -s ../../../../../../etc/os-release t/deep/a/up\n"
		"ln -s loop2 t/loop1; ln -s loop1 t/loop2\n"
		"ln -s /etc/passwd-of-the-host t/dangling\n"
		"x=$(printf 'x%.0s' $(seq 200)); mkdir t/deep/a/b/$x\n"
		"ln -s a/b t/deep/short; ln -s /deep/a/b/$x/../../../../etc/os-release t/longlink\n"
		"for i in $(seq 700); do echo $i >t/many/file-with-a-long-name-$i; done\n"
		"printf x >t/tiny; : >t/empty\n"
		"seq 1 400000 >t/big\n"
		"truncate -s 6000000 t/holes\n"
		"printf start | dd of=t/holes conv=notrunc status=none\n"
		"printf middle | dd of=t/holes conv=notrunc bs=1 seek=3000001 status=none\n"
		"printf end | dd of=t/holes conv=notrunc bs=1 seek=5999997 status=none\n"
		"perl -e 'open F, \">\", \"t/comb\"; for (0..999) { seek F, $_ * 8192 + 5000, 0; print F \"x$_\" }'\n"
		"chmod 4751 t/tiny\n"
		"mkfifo t/fifo\n");
}

static void read_text(struct ext4 *fs, const char *path, struct buf *into)
{
	struct err e = ERR_INIT;

	buf_reset(into);
	if (ext4_read_file(fs, path, into, &e) < 0)
		fail_msg("%s: %s", path, e.message);
}

static void expect_same_bytes(const struct buf *a, const struct buf *b)
{
	assert_int_equal(a->len, b->len);
	if (a->len > 0)
		assert_memory_equal(a->data, b->data, a->len);
}

static void expect_same_file(struct ext4 *fs, const char *name)
{
	_cleanup_buf_ struct buf ours = BUF_INIT(16 << 20), theirs = BUF_INIT(16 << 20);
	char path[512], inside[256], out[512];
	struct err e = ERR_INIT;
	uint64_t size;
	_cleanup_close_ int fd = -1;
	struct stat st;

	(void)snprintf(inside, sizeof(inside), "/%s", name);
	(void)snprintf(path, sizeof(path), "%s/t/%s", workdir, name);
	read_text(fs, inside, &ours);
	assert_int_equal(read_file_at(AT_FDCWD, path, true, &theirs, &e), 0);
	expect_same_bytes(&ours, &theirs);

	path_in(out, sizeof(out), "copied");
	fd = open(out, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	if (ext4_copy_file(fs, inside, fd, 16 << 20, &size, &e) < 0)
		fail_msg("%s: %s", inside, e.message);
	assert_int_equal(size, theirs.len);
	buf_reset(&ours);
	assert_int_equal(read_file_at(AT_FDCWD, out, false, &ours, &e), 0);
	expect_same_bytes(&ours, &theirs);
	if (strcmp(name, "holes") == 0) {
		assert_int_equal(fstat(fd, &st), 0);
		assert_true(st.st_blocks * 512 < 1000000);
	}
}

static void expect_tree(struct ext4 *fs)
{
	static const char *const links[] = { "/etc/os-release", "etc/absolute", "/deep/a/up", "/longlink",
		"//usr//lib/./os-release", "/../../etc/os-release", "/deep/short/../../../usr/lib/os-release" };
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 20), want = BUF_INIT(1 << 20);
	_cleanup_ext4_dir_ struct ext4_dir dir = { 0 };
	struct ext4_stat st;
	struct err e = ERR_INIT;

	read_text(fs, "/usr/lib/os-release", &want);
	assert_true(want.len > 50);
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		read_text(fs, links[i], &b);
		assert_string_equal(buf_str(&b), buf_str(&want));
	}
	expect_same_file(fs, "big");
	expect_same_file(fs, "holes");
	expect_same_file(fs, "comb"); /* an extent tree of two levels, holes at the end of each leaf */
	expect_same_file(fs, "tiny");
	expect_same_file(fs, "empty");
	expect_same_file(fs, "many/file-with-a-long-name-699");

	assert_int_equal(ext4_list_dir(fs, "/many", &dir, &e), 0);
	assert_int_equal(dir.n, 700);
	assert_string_equal(dir.items[0].name, "file-with-a-long-name-1");
	assert_string_equal(dir.items[1].name, "file-with-a-long-name-10");
	assert_true(S_ISREG(dir.items[1].st.mode));
	assert_int_equal(dir.items[1].st.size_bytes, 3);

	assert_int_equal(ext4_lstat(fs, "/tiny", &st, &e), 0);
	assert_int_equal(st.mode, S_IFREG | 04751);
	assert_int_equal(st.uid, getuid());
	assert_int_equal(st.size_bytes, 1);
	assert_int_equal(st.links, 1);
	assert_int_equal(ext4_lstat(fs, "/etc/os-release", &st, &e), 0);
	assert_true(S_ISLNK(st.mode));
	assert_int_equal(ext4_stat(fs, "/etc/os-release", &st, &e), 0);
	assert_true(S_ISREG(st.mode));
	buf_reset(&b);
	assert_int_equal(ext4_read_link(fs, "/etc/os-release", &b, &e), 0);
	assert_string_equal(buf_str(&b), "../usr/lib/os-release");

	assert_int_equal(ext4_stat(fs, "/nothing/here", &st, &e), -ENOENT);
	assert_int_equal(ext4_stat(fs, "/dangling", &st, &e), -ENOENT);
	assert_int_equal(ext4_stat(fs, "/loop1", &st, &e), -ELOOP);
	assert_int_equal(ext4_stat(fs, "/tiny/x", &st, &e), -ENOTDIR);
	assert_int_equal(ext4_read_file(fs, "/etc", &b, &e), -EISDIR);
	assert_int_equal(ext4_read_file(fs, "/fifo", &b, &e), -EINVAL);
	assert_int_equal(ext4_read_link(fs, "/tiny", &b, &e), -EINVAL);
	assert_int_equal(ext4_get_xattr(fs, "/tiny", "user.none", &b, &e), -ENODATA);
}

static void test_variants(void **state)
{
	(void)state;
	make_tree();
	for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
		_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);
		struct opened o;
		struct err e = ERR_INIT;
		char script[512];

		(void)snprintf(script, sizeof(script),
			"rm -f a.img; mke2fs -q -F -L 'my root' -U 01234567-89ab-cdef-0123-456789abcdef -d t %s\n"
			"debugfs -w -R 'ea_set /tiny user.small hello' a.img 2>/dev/null\n"
			"head -c 500 /dev/zero | tr '\\0' y >attr; debugfs -w -R 'ea_set -f attr /big user.large' a.img 2>/dev/null\n"
			"e2fsck -fn a.img >/dev/null 2>&1", variants[i]);
		run(NULL, script);
		if (try_open("a.img", &o, &e) < 0)
			fail_msg("%s: %s", variants[i], e.message);
		assert_string_equal(ext4_facts(o.fs)->label, "my root");
		assert_string_equal(ext4_facts(o.fs)->uuid, "01234567-89ab-cdef-0123-456789abcdef");
		assert_int_equal(ext4_facts(o.fs)->size_bytes, strstr(variants[i], "64M") ? 64 << 20 : 24 << 20);
		assert_true(ext4_facts(o.fs)->clean);
		assert_false(ext4_facts(o.fs)->has_errors);
		expect_tree(o.fs);
		assert_int_equal(ext4_get_xattr(o.fs, "/tiny", "user.small", &b, &e), 0);
		assert_string_equal(buf_str(&b), "hello");
		buf_reset(&b);
		assert_int_equal(ext4_get_xattr(o.fs, "/big", "user.large", &b, &e), 0);
		assert_int_equal(b.len, 500);
		close_all(&o);
	}
}

static void test_times_past_2038(void **state)
{
	struct ext4_stat st;
	struct opened o;
	struct err e = ERR_INIT;

	(void)state;
	run(NULL, "rm -f a.img; mke2fs -q -F -t ext4 a.img 8M; echo hi >hi\n"
		  "debugfs -w -R 'write hi hi' a.img 2>/dev/null; debugfs -w -R 'sif hi mtime 20400203040506' a.img 2>/dev/null");
	assert_int_equal(try_open("a.img", &o, &e), 0);
	assert_int_equal(ext4_stat(o.fs, "/hi", &st, &e), 0);
	assert_int_equal(st.mtime_seconds, 2211854706);
	close_all(&o);
}

static void test_limits(void **state)
{
	_cleanup_buf_ struct buf exact = BUF_INIT(700), less = BUF_INIT(699);
	_cleanup_close_ int fd = -1;
	char path[512];
	struct opened o;
	struct err e = ERR_INIT;

	(void)state;
	run(NULL, "rm -rf a.img l; mkdir l; head -c 700 /dev/zero >l/f\n"
		  "mke2fs -q -F -t ext4 -d l a.img 8M");
	assert_int_equal(try_open("a.img", &o, &e), 0);
	assert_int_equal(ext4_read_file(o.fs, "/f", &exact, &e), 0);
	assert_int_equal(exact.len, 700);
	assert_int_equal(ext4_read_file(o.fs, "/f", &less, &e), -E2BIG);
	assert_int_equal(less.len, 0);
	path_in(path, sizeof(path), "limited");
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ext4_copy_file(o.fs, "/f", fd, 699, NULL, &e), -E2BIG);
	assert_int_equal(ext4_copy_file(o.fs, "/f", fd, 700, NULL, &e), 0);
	close_all(&o);
}

static void test_path_limits(void **state)
{
	_cleanup_ext4_dir_ struct ext4_dir dir = { 0 };
	char deep[2 * EXT4_PATH_DEPTH_MAX + 8], longest[EXT4_PATH_MAX_BYTES + 2];
	struct ext4_stat st;
	struct opened o;
	struct err e = ERR_INIT;

	(void)state;
	run(NULL, "rm -rf a.img l; mkdir -p l/one; echo hi >l/link0; for i in $(seq 41); do ln -s link$((i-1)) l/link$i; done\n"
		  "mkdir -p l/$(printf 'd/%.0s' $(seq 257)); mke2fs -q -F -t ext2 -b 1024 -N 2000 -d l a.img 8M\n"
		  "debugfs -w -R 'sif one size 67108864' a.img 2>/dev/null");
	assert_int_equal(try_open("a.img", &o, &e), 0);
	assert_int_equal(ext4_stat(o.fs, "/link40", &st, &e), 0);
	assert_true(S_ISREG(st.mode));
	assert_int_equal(ext4_stat(o.fs, "/link41", &st, &e), -ELOOP);
	for (size_t i = 0; i < 2 * (EXT4_PATH_DEPTH_MAX + 1); i += 2)
		memcpy(deep + i, "/d", 3);
	assert_int_equal(ext4_stat(o.fs, deep, &st, &e), -ENAMETOOLONG);
	deep[2 * EXT4_PATH_DEPTH_MAX] = '\0';
	assert_int_equal(ext4_stat(o.fs, deep, &st, &e), 0);
	memset(longest, '/', sizeof(longest));
	memcpy(longest + EXT4_PATH_MAX_BYTES - 1, "d", 2);
	assert_int_equal(ext4_stat(o.fs, longest, &st, &e), 0);
	memcpy(longest + EXT4_PATH_MAX_BYTES - 1, "/d", 3);
	assert_int_equal(ext4_stat(o.fs, longest, &st, &e), -ENAMETOOLONG);
	assert_int_equal(ext4_list_dir(o.fs, "/one", &dir, &e), 0);
	close_all(&o);
	run(NULL, "debugfs -w -R 'sif one size 67109888' a.img 2>/dev/null");
	assert_int_equal(try_open("a.img", &o, &e), 0);
	assert_int_equal(ext4_list_dir(o.fs, "/one", &dir, &e), -E2BIG);
	close_all(&o);
}

/* ---- refusals ---- */

static void expect_refused(const char *script, int code, const char *words)
{
	struct opened o;
	struct err e = ERR_INIT;
	int r;

	run(NULL, script);
	r = try_open("a.img", &o, &e);
	if (r != code || !strstr(e.message, words))
		fail_msg("`%s`: got %d `%s`, expected %d `%s`", script, r, e.message, code, words);
	assert_true(e.kind == ERR_KIND_INPUT);
	close_all(&o);
}

#define NEW_EXT4 "rm -f a.img; mke2fs -q -F -t ext4 -b 4096 -L dirty a.img 8M; "
#define PUT(bytes, at) "printf '" bytes "' | dd of=a.img bs=1 seek=$((" at ")) conv=notrunc status=none"

static void test_refused(void **state)
{
	struct ext4_facts facts;
	struct opened o;
	struct err e = ERR_INIT;

	(void)state;
	expect_refused(NEW_EXT4 "debugfs -w -R 'feature needs_recovery' a.img 2>/dev/null >/dev/null", -EUCLEAN, "journal");
	assert_int_equal(try_open("a.img", &o, &e), -EUCLEAN);
	assert_int_equal(ext4_read_facts(o.dev, &facts, &e), 0);
	assert_string_equal(facts.label, "dirty");
	assert_true(facts.needs_recovery);
	close_all(&o);
	expect_refused(NEW_EXT4 PUT("Z", "1024+0x88"), -EBADMSG, "damaged");
	expect_refused(NEW_EXT4 PUT("\\x02\\x12", "1024+0x60"), -ENOTSUP, "dirdata");
	expect_refused(NEW_EXT4 "truncate -s 7M a.img", -EBADMSG, "truncated");
	expect_refused("rm -f a.img; mke2fs -q -F -O journal_dev a.img 8M", -ENOTSUP, "journal_dev");
	expect_refused("head -c 1M /dev/zero >a.img", -EMEDIUMTYPE, "no filesystem known");
	expect_refused(": >a.img", -EMEDIUMTYPE, "no filesystem known");
	expect_refused("head -c 70000 /dev/zero >a.img; " PUT("_BHRfS_M", "65600"), -EMEDIUMTYPE, "btrfs");
	/* The descriptor of group 0 names another inode table: its checksum tells. */
	expect_refused(NEW_EXT4 PUT("\\x07", "4096+8"), -EBADMSG, "group 0");
}

static void test_damaged_inside(void **state)
{
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);
	struct opened o;
	struct err e = ERR_INIT;

	(void)state;
	run(NULL, "rm -rf a.img t2; mkdir t2; seq 1 1000 >t2/f; mke2fs -q -F -t ext4 -b 4096 -d t2 a.img 8M\n"
		  "blk=$(debugfs -R 'blocks /' a.img 2>/dev/null | tr -d ' \\n')\n"
		  PUT("Z", "blk*4096+9"));
	assert_int_equal(try_open("a.img", &o, &e), 0);
	assert_int_equal(ext4_read_file(o.fs, "/f", &b, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "checksum"));
	close_all(&o);
}

/* ---- probe ---- */

static void test_probe(void **state)
{
	struct ext4_probe p;
	struct opened o;
	struct err e = ERR_INIT;

	(void)state;
	run(NULL, "rm -f a.img; mke2fs -q -F -t ext4 -L cloudimg -d t a.img 24M");
	assert_int_equal(try_open("a.img", &o, &e), 0);
	assert_int_equal(ext4_probe(o.dev, &p, &e), 0);
	assert_true(p.is_ext && p.readable && p.has_os_release && p.has_usr && !p.has_kernels);
	assert_string_equal(p.facts.label, "cloudimg");
	assert_string_equal(p.os.id, "debian");
	assert_string_equal(p.os.version_id, "12");
	assert_string_equal(p.os.codename, "bookworm");
	assert_string_equal(p.os.pretty_name, "Debian \"12\"");
	assert_int_equal(p.problem_code, 0);
	close_all(&o);
	run(NULL, "rm -rf a.img bt; mkdir bt; : >bt/vmlinuz-6.8.0-1; mke2fs -q -F -t ext4 -L BOOT -d bt a.img 8M");
	assert_int_equal(try_open("a.img", &o, &e), 0);
	assert_int_equal(ext4_probe(o.dev, &p, &e), 0);
	assert_true(p.is_ext && p.readable && !p.has_os_release && !p.has_usr && p.has_kernels);
	close_all(&o);
	run(NULL, "head -c 1M /dev/zero >a.img");
	assert_int_equal(try_open("a.img", &o, &e), -EMEDIUMTYPE);
	assert_int_equal(ext4_probe(o.dev, &p, &e), 0);
	assert_false(p.is_ext);
	close_all(&o);
}

static void test_os_release_forms(void **state)
{
	static const char text[] = "# ID=no\nID='alpine'\nVERSION_ID=3.20.3 # c\nXID=no\nPRETTY_NAME=\"A \\$5 \\\\ b\"\n"
				   "VERSION_CODENAME=\nID";
	struct os_release os;

	(void)state;
	os_release_parse(text, sizeof(text) - 1, &os);
	assert_string_equal(os.id, "alpine");
	assert_string_equal(os.version_id, "3.20.3");
	assert_string_equal(os.pretty_name, "A $5 \\ b");
	assert_string_equal(os.codename, "");
}

/* ---- check ---- */

static void check(const char *name, const struct ext4_expect *expect, struct strv *faults, struct ext4_counts *counts)
{
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	_cleanup_close_ int fd = -1;
	char path[512];
	struct err e = ERR_INIT;

	path_in(path, sizeof(path), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(blockdev_new_file(fd, &dev, &e), 0);
	if (ext4_check(dev, expect, faults, counts, &e) < 0)
		fail_msg("%s: %s", name, e.message);
}

static void expect_faults(const char *script, const struct ext4_expect *expect, const char *words)
{
	_cleanup_strv_ struct strv faults = { 0 };
	_cleanup_buf_ struct buf all = BUF_INIT(1 << 16);

	run(NULL, script);
	check("a.img", expect, &faults, NULL);
	for (size_t i = 0; i < faults.n; i++)
		assert_int_equal(buf_appendf(&all, "%s\n", faults.items[i]), 0);
	if (words ? !strstr(buf_str(&all), words) : faults.n > 0)
		fail_msg("`%s`: got `%s`, expected `%s`", script, buf_str(&all), words ? words : "no faults");
}

#define WITH_TREE "rm -f a.img; mke2fs -q -F -t ext4 -O ^metadata_csum -b 1024 -L image -d t a.img 24M; "
#define DEBUGFS(cmd) "debugfs -w -R '" cmd "' a.img >/dev/null 2>&1; "

static void test_check(void **state)
{
	static const struct ext4_expect any = { 0 }, size = { .size_bytes = 24 << 20, .label = "image" },
					 larger = { .size_bytes = 64 << 20 }, smaller = { .size_bytes = 20 << 20 },
					 label = { .label = "other" };
	_cleanup_buf_ struct buf count = BUF_INIT(4096);
	_cleanup_strv_ struct strv faults = { 0 };
	struct ext4_counts counts;
	unsigned long files, folders, links;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
		char script[512];

		(void)snprintf(script, sizeof(script), "rm -f a.img; mke2fs -q -F -d t %s", variants[i]);
		expect_faults(script, &any, NULL);
	}
	expect_faults(WITH_TREE, &size, NULL);
	check("a.img", &size, &faults, &counts);
	run(&count, "LC_ALL=C e2fsck -fnv a.img 2>/dev/null | sed -nE 's/^ *([0-9]+) (regular file|director|symbolic link).*/\\1/p'");
	assert_int_equal(sscanf(buf_str(&count), "%lu %lu %lu", &files, &folders, &links), 3); /* in another order */
	assert_int_equal(counts.files + counts.folders + counts.links, files + folders + links);
	expect_faults("true", &larger, "expected 67108864");
	expect_faults("true", &smaller, "expected 20971520");
	expect_faults("true", &label, "expected `other`");
	expect_faults(WITH_TREE DEBUGFS("ssv state 0"), &any, "not marked clean");
	expect_faults(WITH_TREE DEBUGFS("ssv state 3"), &any, "noted errors");
	expect_faults(WITH_TREE DEBUGFS("feature needs_recovery"), &any, "journal");
	expect_faults(WITH_TREE DEBUGFS("ssv last_orphan 12"), &any, "deleted files");
	expect_faults(WITH_TREE DEBUGFS("sif tiny links_count 7"), &any, "counts 7 links, 1 lead");
	expect_faults(WITH_TREE DEBUGFS("sif etc links_count 9"), &any, "counts 9 links, 2 lead");
	expect_faults(WITH_TREE DEBUGFS("sif tiny mode 0"), &any, "of no known type");
	expect_faults(WITH_TREE DEBUGFS("freei tiny"), &any, "marked free");
	expect_faults(WITH_TREE "b=$(debugfs -R 'bmap big 5' a.img 2>/dev/null); debugfs -w -R \"freeb $b 1\" a.img 2>/dev/null", &any,
		"marked free");
	expect_faults("rm -f a.img; mke2fs -q -F -t ext2 -b 1024 -d t a.img 24M; b=$(debugfs -R 'bmap big 5' a.img 2>/dev/null)\n"
		      "debugfs -w -R \"sif tiny block[0] $b\" a.img 2>/dev/null", &any, "belongs to another file");
	expect_faults(WITH_TREE DEBUGFS("ln deep/a etc/again"), &any, "has another name too");
	expect_faults(WITH_TREE DEBUGFS("ssv free_blocks_count 5"), &any, "counts 5 free blocks");
	expect_faults(WITH_TREE DEBUGFS("ssv free_inodes_count 5"), &any, "counts 5 free inodes");
	expect_faults("rm -f a.img; mke2fs -q -F -t ext4 -b 4096 -d t a.img 24M; " PUT("Z", "20*4096"), &any, "bitmaps");
	expect_faults("head -c 1M /dev/zero >a.img", &any, "no ext2");
}

/* What e2fsck has repaired holds together. */
static void test_check_repaired(void **state)
{
	static const struct ext4_expect any = { 0 };
	_cleanup_buf_ struct buf names = BUF_INIT(1 << 20);
	char script[1024], *save = NULL;
	size_t n = 0;

	(void)state;
	(void)snprintf(script, sizeof(script),
		"mkdir -p fixed; cd fixed; tar -xf '%s/ext/e2fsprogs-images.tar.zst' --wildcards '*/image.gz'; chmod -R u+w .; "
		"gunzip -f */image.gz\n"
		"for i in f_[d-h]*/image; do for k in 1 2; do timeout 10 e2fsck -fy $i >/dev/null 2>&1 || :; done; "
		"! e2fsck -fn $i >/dev/null 2>&1 || echo $i; done", data_dir);
	run(&names, script);
	for (char *name = strtok_r(names.data, "\n", &save); name; name = strtok_r(NULL, "\n", &save), n++) {
		_cleanup_strv_ struct strv faults = { 0 };
		char path[512];

		(void)snprintf(path, sizeof(path), "fixed/%s", name);
		check(path, &any, &faults, NULL);
		for (size_t i = 0; i < faults.n; i++)
			print_error("%s: %s\n", name, faults.items[i]);
		assert_int_equal(faults.n, 0);
	}
	assert_true(n > 20);
}

/* ---- other people's images: an error or an answer ---- */

struct tally {
	size_t files, dirs, links, errors;
	uint64_t bytes;
	size_t left; /* bounds the walk: a hostile tree may have cycles */
};

static void read_some(struct ext4 *fs, uint32_t inode, struct tally *t)
{
	_cleanup_ext4_file_ struct ext4_file *f = NULL;
	struct err e = ERR_INIT;
	char chunk[65536];
	size_t n = 1;
	int r = ext4_open_inode(fs, inode, &f, &e);

	for (unsigned k = 0; r == 0 && k < 256 && n > 0; k++, t->bytes += n)
		r = ext4_file_read(f, chunk, sizeof(chunk), (uint64_t)k * sizeof(chunk), &n, &e);
	if (r < 0)
		t->errors++;
}

static void walk(struct ext4 *fs, uint32_t inode, unsigned depth, struct tally *t)
{
	_cleanup_ext4_dir_ struct ext4_dir dir = { 0 };
	struct err e = ERR_INIT;

	if (ext4_list_inode(fs, inode, &dir, &e) < 0) {
		assert_true(e.message[0] != '\0' && e.code < 0);
		t->errors++;
		return;
	}
	for (size_t i = 0; i < dir.n && t->left > 0; i++) {
		const struct ext4_stat *st = &dir.items[i].st;

		t->left--;
		if (S_ISDIR(st->mode)) {
			t->dirs++;
			if (depth < 40)
				walk(fs, st->inode, depth + 1, t);
		} else if (S_ISREG(st->mode)) {
			t->files++;
			read_some(fs, st->inode, t);
		} else if (S_ISLNK(st->mode)) {
			t->links++;
		}
	}
}

static int answer_or_error(const char *name, size_t max_names, struct tally *t)
{
	static const struct ext4_expect any = { 0 };
	_cleanup_strv_ struct strv faults = { 0 };
	struct ext4_probe p;
	struct opened o;
	struct err e = ERR_INIT;
	int r = try_open(name, &o, &e);

	*t = (struct tally){ .left = max_names };
	if (r == 0)
		walk(o.fs, 2, 0, t);
	else if (e.message[0] == '\0' || e.code != r)
		fail_msg("%s: refused without words", name);
	err_clear(&e);
	assert_int_equal(ext4_probe(o.dev, &p, &e), 0);
	assert_int_equal(p.readable, r == 0);
	assert_int_equal(ext4_check(o.dev, &any, &faults, NULL, &e), 0);
	assert_true(r == 0 || faults.n > 0);
	close_all(&o);
	return r;
}

static void test_public_images(void **state)
{
	static const struct {
		const char *name;
		int code;
	} images[] = {
		{ "ext4view-test_disk1.bin", 0 }, { "ext4view-test_disk_ext2.bin", 0 }, { "ext4view-test_disk_ext3.bin", 0 },
		{ "ext4view-test_disk_4k_block_journal.bin", -EUCLEAN }, { "goext4-hierarchy_32.ext4", 0 },
		{ "goext4-hierarchy_64.ext4", 0 }, { "goext4-tiny.ext4", 0 }, { "mender_test.img", 0 },
		{ "mender_test.img.broken", -EMEDIUMTYPE }, { "sif-root.ext3", 0 }, { "sif-root.squashfs", -EMEDIUMTYPE },
	};
	char script[1024];
	struct tally t;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(images); i++) {
		_cleanup_buf_ struct buf count = BUF_INIT(4096);

		(void)snprintf(script, sizeof(script),
			"rm -f a.img; if [ -e '%1$s/ext/%2$s' ]; then cp '%1$s/ext/%2$s' a.img; chmod u+w a.img; "
			"else zstd -qdf '%1$s/ext/%2$s.zst' -o a.img; fi", data_dir, images[i].name);
		run(NULL, script);
		if (answer_or_error("a.img", 200000, &t) != images[i].code)
			fail_msg("%s: not the expected %d", images[i].name, images[i].code);
		if (images[i].code < 0)
			continue;
		/* e2fsck counts what a walk finds, and the root, and inodes in use that have no name. */
		run(&count, "LC_ALL=C e2fsck -fnv a.img 2>/dev/null | sed -n 's/^ *\\([0-9]*\\) director.*/\\1/p'");
		if (t.errors == 0 && strtoul(buf_str(&count), NULL, 10) != t.dirs + 1)
			fail_msg("%s: %zu folders, e2fsck: %s", images[i].name, t.dirs, buf_str(&count));
	}
}

static void test_damaged_images(void **state)
{
	_cleanup_buf_ struct buf names = BUF_INIT(1 << 20);
	char script[1024], *save = NULL;
	size_t opened = 0, refused = 0;

	(void)state;
	(void)snprintf(script, sizeof(script),
		"mkdir -p dmg; cd dmg; tar -xf '%s/ext/e2fsprogs-images.tar.zst'; chmod -R u+w .; gunzip -f */image.gz\n"
		"ls -d */image", data_dir);
	run(&names, script);
	for (char *name = strtok_r(names.data, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
		char path[512];
		struct tally t;

		(void)snprintf(path, sizeof(path), "dmg/%s", name);
		if (answer_or_error(path, 5000, &t) == 0)
			opened++;
		else
			refused++;
	}
	print_message("damaged images: %zu opened, %zu refused\n", opened, refused);
	assert_true(opened > 50 && refused > 10);
}

static int make_workdir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	(void)snprintf(workdir, sizeof(workdir), "%s/imgbuild-test-ext4-XXXXXX", tmp ? tmp : "/tmp");
	data_dir = realpath(getenv("IMGBUILD_TEST_DATA") ? getenv("IMGBUILD_TEST_DATA") : "../shared/data", NULL);
	return data_dir && mkdtemp(workdir) ? 0 : -1;
}

static int remove_workdir(void **state)
{
	(void)state;
	free(data_dir);
	return remove_tree_at(AT_FDCWD, workdir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_variants),
		cmocka_unit_test(test_times_past_2038),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_path_limits),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_damaged_inside),
		cmocka_unit_test(test_probe),
		cmocka_unit_test(test_os_release_forms),
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_check_repaired),
		cmocka_unit_test(test_public_images),
		cmocka_unit_test(test_damaged_images),
	};

	return cmocka_run_group_tests(tests, make_workdir, remove_workdir);
}
