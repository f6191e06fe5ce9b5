/* Kernels out of archives, packages and base images, made here by tar, ar and mke2fs. */
#include "kernels/kernel.h"
#include "kernels/archive.h"
#include "kernels/kernel_archive.h"
#include "kernels/kernel_base.h"
#include "kernels/kernel_deb.h"
#include "kernels/modules.h"
#include "lib/io.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
/* after the others */
#include <cmocka.h>

#include "tests/unit/kernel_fixture.h"

static char workdir[256];

static int open_in(const char *name, int flags)
{
	char path[512];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", workdir, name);
	fd = open(path, flags | O_CLOEXEC, 0644);
	if (fd < 0)
		fail_msg("cannot open %s", path);
	return fd;
}

static int fresh_folder(void)
{
	run_script(workdir, NULL, "rm -rf out; mkdir out");
	return open_in("out", O_RDONLY | O_DIRECTORY);
}

/* ---- members of archives ---- */

static int extract(const char *archive, const char *member, uint64_t max_bytes, struct buf *content, struct buf *resolved,
	struct err *e)
{
	_cleanup_close_ int in = open_in(archive, O_RDONLY), out = open_in("member", O_RDWR | O_CREAT | O_TRUNC);
	int r;

	/* The descriptor's offset must not matter. */
	assert_int_equal(lseek(in, 7, SEEK_SET), 7);
	r = kernel_archive_extract(in, member, out, max_bytes, resolved, e);
	assert_int_equal(lseek(in, 0, SEEK_CUR), 7);
	if (r == 0) {
		buf_reset(content);
		assert_int_equal(lseek(out, 0, SEEK_SET), 0);
		assert_int_equal(read_fd_to_end(out, content), 0);
	}
	return r;
}

static void expect_member(const char *archive, const char *member, const char *content, const char *resolved_to)
{
	_cleanup_buf_ struct buf got = BUF_INIT(1 << 20), resolved = BUF_INIT(4096);
	struct err e = ERR_INIT;

	if (extract(archive, member, 1 << 20, &got, &resolved, &e) < 0)
		fail_msg("%s in %s: %s", member, archive, e.message);
	assert_string_equal(buf_str(&got), content);
	assert_string_equal(buf_str(&resolved), resolved_to);
}

static void expect_no_member(const char *archive, const char *member, int code, const char *words)
{
	_cleanup_buf_ struct buf got = BUF_INIT(1 << 20);
	struct err e = ERR_INIT;
	int r = extract(archive, member, 1 << 20, &got, NULL, &e);

	if (r != code || !strstr(e.message, words))
		fail_msg("%s in %s: got %d `%s`, expected %d `%s`", member, archive, r, e.message, code, words);
}

static void test_members(void **state)
{
	static const char *const archives[] = { "a.tar", "a.tar.gz", "a.tar.xz", "a.tar.zst", "dot.tar.zst" };

	(void)state;
	run_script(workdir, NULL,
		"mkdir -p t/opt/kata/share t/opt/other; cd t; printf kernel >opt/kata/share/vmlinux-6.12\n"
		"ln -s vmlinux-6.12 opt/kata/share/vmlinux; ln opt/kata/share/vmlinux-6.12 opt/kata/share/zhard\n"
		"ln -s /opt/kata/share/vmlinux opt/absolute; ln -s kata/share opt/dir; ln -s ../../../../etc/passwd opt/out\n"
		"ln -s l2 opt/l1; ln -s l1 opt/l2; ln -s nothing opt/dangling; ln -s ../share/../share/./vmlinux opt/kata/share/up\n"
		"mkfifo opt/fifo; : >opt/empty\n"
		"tar -cf ../a.tar --sort=name opt; tar -cf ../dot.tar --sort=name .; cd ..\n"
		"gzip -k a.tar; xz -k a.tar; zstd -q a.tar; zstd -q dot.tar");
	for (size_t i = 0; i < ARRAY_SIZE(archives); i++) {
		const char *a = archives[i], *real = "opt/kata/share/vmlinux-6.12";

		expect_member(a, real, "kernel", real);
		expect_member(a, "./opt//kata/./share/vmlinux-6.12", "kernel", real);
		expect_member(a, "/opt/kata/share/vmlinux-6.12", "kernel", real);
		expect_member(a, "opt/kata/share/vmlinux", "kernel", real);
		expect_member(a, "opt/kata/share/zhard", "kernel", real);
		expect_member(a, "opt/absolute", "kernel", real);
		expect_member(a, "opt/dir/vmlinux", "kernel", real);
		expect_member(a, "opt/kata/share/up", "kernel", real);
		expect_member(a, "opt/empty", "", "opt/empty");
		expect_no_member(a, "opt/out", -EXDEV, "out of the archive");
		expect_no_member(a, "opt/l1", -ELOOP, "links");
		expect_no_member(a, "opt/dangling", -ENOENT, "links lead to `opt/nothing`");
		expect_no_member(a, "opt/kata", -EISDIR, "folder");
		expect_no_member(a, "opt/fifo", -ENOEXEC, "neither");
		expect_no_member(a, "opt/kata/share/vmlinux-6.11", -ENOENT, "near it are `opt/kata/share/vmlinux-6.12`");
		expect_no_member(a, "nonsense", -ENOENT, "opt/kata/share/vmlinux");
		expect_no_member(a, "../opt/empty", -EINVAL, "cannot be the name");
		expect_no_member(a, "/", -EINVAL, "cannot be the name");
	}
}

static void test_member_limits_and_damage(void **state)
{
	_cleanup_buf_ struct buf got = BUF_INIT(1 << 20);
	struct err e = ERR_INIT;

	(void)state;
	run_script(workdir, NULL, "mkdir s; cd s; seq 1 100000 >big; truncate -s 64M sparse; printf end >>sparse\n"
				  "tar -cf ../s.tar big; tar -cSf ../sparse.tar sparse; cd ..; zstd -q s.tar\n"
				  "head -c 5000 s.tar.zst >cut.tar.zst; head -c 300000 s.tar >cut.tar; echo hello >no.tar; : >empty.tar\n"
				  "printf hostile >h; tar -cPf hostile.tar --transform 's,h,../../h,' h; tar -rf hostile.tar h");
	assert_int_equal(extract("s.tar.zst", "big", 588895, &got, NULL, &e), 0);
	assert_int_equal(got.len, 588895);
	assert_int_equal(extract("s.tar.zst", "big", 588894, &got, NULL, &e), -E2BIG);
	expect_no_member("cut.tar.zst", "big", -EBADMSG, "");
	expect_no_member("cut.tar", "big", -EBADMSG, "");
	expect_no_member("no.tar", "big", -EBADMSG, "");
	expect_no_member("empty.tar", "big", -EBADMSG, "cannot open the archive");
	expect_member("hostile.tar", "h", "hostile", "h");
	/* Holes stay holes. */
	{
		_cleanup_close_ int in = open_in("sparse.tar", O_RDONLY), out = open_in("sparse.out", O_RDWR | O_CREAT | O_TRUNC);
		struct stat st;

		assert_int_equal(kernel_archive_extract(in, "sparse", out, 1 << 30, NULL, &e), 0);
		assert_int_equal(fstat(out, &st), 0);
		assert_int_equal(st.st_size, (64 << 20) + 3);
		assert_true(st.st_blocks * 512 < 1 << 20);
	}
}

static void test_chains_of_links(void **state)
{
	(void)state;
	run_script(workdir, NULL, "mkdir chain; cd chain; echo hi >l0; for i in $(seq 41); do ln -s l$((i-1)) l$i; done; tar -cf ../chain.tar *");
	expect_member("chain.tar", "l40", "hi\n", "l0");
	expect_no_member("chain.tar", "l41", -ELOOP, "more than 40");
}

static void test_clean_names(void **state)
{
	static const struct {
		const char *in, *out;
		int code;
	} cases[] = { { "a/b", "a/b", 0 }, { "./a//b/", "a/b", 0 }, { "/a/./b", "a/b", 0 }, { "a/../b", NULL, -EINVAL },
		{ "..", NULL, -EINVAL }, { "a/..", NULL, -EINVAL }, { "..a/b..", "..a/b..", 0 }, { "./", NULL, -ENOENT },
		{ "", NULL, -ENOENT } };
	char out[ARCHIVE_NAME_MAX_BYTES], longest[ARCHIVE_NAME_MAX_BYTES + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(member_clean_name(cases[i].in, out), cases[i].code);
		if (cases[i].out)
			assert_string_equal(out, cases[i].out);
	}
	memset(longest, 'x', sizeof(longest));
	longest[ARCHIVE_NAME_MAX_BYTES - 2] = '\0';
	assert_int_equal(member_clean_name(longest, out), 0);
	longest[ARCHIVE_NAME_MAX_BYTES - 2] = 'x';
	longest[ARCHIVE_NAME_MAX_BYTES - 1] = '\0';
	assert_int_equal(member_clean_name(longest, out), -ENAMETOOLONG);
}

/* ---- packages ---- */

/* deb NAME: packs the folder p as a package. bz N: a minimal bzImage of release N (see test_kernel_image.c). */
#define MAKERS                                                                                                                     \
	"deb() { printf 2.0 >debian-binary; tar -cf c.tar -T /dev/null; gzip -f c.tar; mv c.tar.gz control.tar.gz; "               \
	"tar -C p --sort=name -cf data.tar .; ${2:-xz} -qf data.tar; rm -f $1 data.tar; ar rc $1 debian-binary control.tar.gz data.tar.*; " \
	"rm -f data.tar.*; }\n"                                                                                                \
	"bz() { perl -e '$b = \"\\0\" x 3584; substr($b,0x1f1,1)=\"\\4\"; substr($b,0x1f4,4)=pack(\"V\",64); "                         \
	"substr($b,0x1fe,2)=\"\\x55\\xaa\"; substr($b,0x202,4)=\"HdrS\"; substr($b,0x206,2)=pack(\"v\",0x20f); "                       \
	"substr($b,0x20e,2)=pack(\"v\",0x300); substr($b,0x211,1)=\"\\1\"; substr($b,0x236,1)=\"\\1\"; "                               \
	"$v=\"$ARGV[0] (x) #1\"; substr($b,0x500,length $v)=$v; print $b' \"$1\"; }\n"

static int open_debs(const char *const *names, size_t n, struct kernel *k, struct err *e)
{
	_cleanup_close_ int out = fresh_folder();
	int fds[4], r;

	for (size_t i = 0; i < n; i++)
		fds[i] = open_in(names[i], O_RDONLY);
	r = kernel_open_debs(fds, n, ARCH_AMD64, out, k, e);
	for (size_t i = 0; i < n; i++)
		(void)close(fds[i]);
	return r;
}

static void test_packages_apart(void **state)
{
	static const char *const both[] = { "image.deb", "modules.deb" };
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_buf_ struct buf modes = BUF_INIT(4096);
	struct err e = ERR_INIT;

	(void)state;
	run_script(workdir, NULL, MAKERS
		"mkdir -p p/boot; bz 6.8.0-31-generic >p/boot/vmlinuz-6.8.0-31-generic; deb image.deb zstd\n"
		"rm -rf p; mkdir -p p/usr/lib/modules/6.8.0-31-generic/kernel/x; cd p/usr/lib/modules/6.8.0-31-generic\n"
		"echo ko >kernel/x/x.ko; chmod 600 kernel/x/x.ko; ln -s /usr/src build; ln -s ../../../../../etc kernel/evil; "
		"echo kernel/y.ko >modules.builtin; cd \"$OLDPWD\"; mkdir -p p/usr/share/doc; echo doc >p/usr/share/doc/d; deb modules.deb");
	if (open_debs(both, 2, &k, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(k.release, "6.8.0-31-generic");
	assert_int_equal(module_tree_paths(k.modules)->n, 2);
	assert_string_equal(module_tree_paths(k.modules)->items[0], "kernel/x/x.ko");
	run_script(workdir, &modes, "cd out; find . -printf '%p %m %y\\n' | sort");
	assert_string_equal(buf_str(&modes), ". 755 d\n./modules 755 d\n./modules/kernel 755 d\n./modules/kernel/x 755 d\n"
					     "./modules/kernel/x/x.ko 644 f\n./modules/modules.builtin 644 f\n./vmlinuz 644 f\n");
}

static void expect_bad_deb(const char *script, const char *const *names, size_t n, int code, const char *words)
{
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	struct err e = ERR_INIT;
	char full[4096];
	int r;

	(void)snprintf(full, sizeof(full), "%s%s", MAKERS "rm -rf p; mkdir -p p/boot\n", script);
	run_script(workdir, NULL, full);
	r = open_debs(names, n, &k, &e);
	if (r != code || !strstr(e.message, words))
		fail_msg("`%s`: got %d `%s`, expected %d `%s`", script, r, e.message, code, words);
	assert_int_equal(e.kind, ERR_KIND_INPUT);
}

static void test_bad_packages(void **state)
{
	static const char *const one[] = { "a.deb" };

	(void)state;
	expect_bad_deb("deb a.deb", one, 1, -ENOENT, "meta package");
	expect_bad_deb("bz 6.1.0-1 >p/boot/vmlinuz-6.1.0-1; bz 6.1.0-2 >p/boot/vmlinuz-6.1.0-2; deb a.deb", one, 1, -ENOTUNIQ,
		"two releases");
	expect_bad_deb("bz 6.1.0-1 >p/boot/vmlinuz-6.1.0-1; mkdir -p p/lib/modules/6.1.0-2; echo >p/lib/modules/6.1.0-2/x; deb a.deb",
		one, 1, -ENOTUNIQ, "modules of 6.1.0-2");
	expect_bad_deb("bz 6.1.0-9 >p/boot/vmlinuz-6.1.0-1; mkdir -p p/lib/modules/6.1.0-1; echo >p/lib/modules/6.1.0-1/x; deb a.deb",
		one, 1, -EBADMSG, "calls itself 6.1.0-9");
	expect_bad_deb("echo no kernel >p/boot/vmlinuz-6.1.0-1; deb a.deb", one, 1, -ENOEXEC, "no Linux kernel");
	expect_bad_deb("echo hello >a.deb", one, 1, -EBADMSG, "Debian package");
	expect_bad_deb("rm a.deb; echo x >debian-binary; ar rc a.deb debian-binary", one, 1, -EBADMSG, "no data.tar");
	expect_bad_deb("bz 6.1.0-1 >p/boot/vmlinuz-6.1.0-1; deb a.deb; head -c 400 a.deb >b.deb; mv b.deb a.deb", one, 1, -EBADMSG, "");
	/* A second member of the same name, and one whose name climbs. */
	expect_bad_deb("bz 6.1.0-1 >p/boot/vmlinuz-6.1.0-1; mkdir -p p/lib/modules/6.1.0-1; cd p; echo 1 >lib/modules/6.1.0-1/x\n"
		       "tar -cf ../data.tar .; tar -rf ../data.tar lib/modules/6.1.0-1/x; cd ..; rm -f a.deb; echo >debian-binary\n"
		       "ar rc a.deb debian-binary data.tar", one, 1, -EBADMSG, "twice");
}

static void test_climbing_names(void **state)
{
	static const char *const one[] = { "a.deb" };
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_buf_ struct buf found = BUF_INIT(4096);
	struct err e = ERR_INIT;

	(void)state;
	run_script(workdir, NULL, MAKERS
		"rm -rf p; mkdir -p p/boot p/lib/modules/6.1.0-1/kernel; bz 6.1.0-1 >p/boot/vmlinuz-6.1.0-1; cd p; echo evil >e\n"
		"tar -cPf ../data.tar --transform 's,^e$,lib/modules/6.1.0-1/kernel/../../../../../climbed,' e boot/vmlinuz-6.1.0-1\n"
		"ln -s /tmp lib/modules/6.1.0-1/kernel/link; tar -rf ../data.tar lib/modules/6.1.0-1/kernel/link\n"
		"tar -rPf ../data.tar --transform 's,^e$,lib/modules/6.1.0-1/kernel/link/through,' e\n"
		"cd ..; rm -f a.deb; echo >debian-binary; ar rc a.deb debian-binary data.tar");
	if (open_debs(one, 1, &k, &e) < 0)
		fail_msg("%s", e.message);
	run_script(workdir, &found, "find . -name climbed; ls /tmp/through 2>/dev/null || :; cd out; find . -type l; find . -name through");
	assert_string_equal(buf_str(&found), "./modules/kernel/link/through\n"); /* a folder of ours, no link */
}

/* ---- the base image ---- */

struct opened {
	int fd;
	struct blockdev *dev;
	struct ext4 *fs;
};

static void open_fs(const char *name, struct opened *o)
{
	struct err e = ERR_INIT;

	o->fd = open_in(name, O_RDONLY);
	assert_int_equal(blockdev_new_file(o->fd, &o->dev, &e), 0);
	if (ext4_open(o->dev, &o->fs, &e) < 0)
		fail_msg("%s", e.message);
}

static void close_fs(struct opened *o)
{
	ext4_free(o->fs);
	blockdev_free(o->dev);
	(void)close(o->fd);
}

static void expect_base(const char *root_script, const char *boot_script, const char *path, bool in_boot, const char *release,
	bool has_modules)
{
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_close_ int out = fresh_folder();
	struct opened root, boot = { .fd = -1 };
	struct kernel_base base;
	struct err e = ERR_INIT;
	char script[8192];

	(void)snprintf(script, sizeof(script), MAKERS
		"rm -rf r b r.img b.img; mkdir -p r/boot r/usr/lib/modules b; ln -s usr/lib r/lib; cd r; %s\ncd ../b; %s\ncd ..\n"
		"mke2fs -q -F -t ext4 -d r r.img 8M; mke2fs -q -F -t ext4 -d b b.img 8M", root_script, boot_script ? boot_script : "true");
	run_script(workdir, NULL, script);
	open_fs("r.img", &root);
	if (boot_script)
		open_fs("b.img", &boot);
	if (kernel_base_find(root.fs, boot.fs, &base, &e) < 0 ||
		kernel_open_base(root.fs, boot.fs, ARCH_AMD64, out, &k, &e) < 0)
		fail_msg("%s: %s", root_script, e.message);
	assert_string_equal(base.path, path);
	assert_int_equal(base.in_boot, in_boot);
	assert_string_equal(k.release, release);
	assert_string_equal(k.origin, path);
	assert_int_equal(k.modules != NULL, has_modules);
	assert_int_equal(k.modules_in_image, has_modules);
	kernel_release(&k);
	if (boot_script)
		close_fs(&boot);
	close_fs(&root);
}

static void test_base(void **state)
{
	(void)state;
	expect_base("for v in 6.1.0-9 6.1.0-41 6.1.0-5; do bz $v >boot/vmlinuz-$v; done; mkdir -p lib/modules/6.1.0-41; "
		    "echo >lib/modules/6.1.0-41/x; ln -s boot/vmlinuz-6.1.0-9 vmlinuz", NULL, "/boot/vmlinuz-6.1.0-41", false, "6.1.0-41",
		true);
	expect_base("bz 6.1.0-1 >boot/vmlinuz-6.1.0-1; bz 6.1.0-2 >boot/vmlinuz-6.1.0-2.old; bz 6.1.0-3 >boot/vmlinuz-0-rescue-abc",
		NULL, "/boot/vmlinuz-6.1.0-1", false, "6.1.0-1", false);
	/* Ubuntu 24.04: /boot is a filesystem of its own; its links are relative within it */
	expect_base("mkdir -p lib/modules/6.8.0-31-generic; echo >lib/modules/6.8.0-31-generic/x",
		"bz 6.8.0-31-generic >vmlinuz-6.8.0-31-generic; ln -s vmlinuz-6.8.0-31-generic vmlinuz", "/vmlinuz-6.8.0-31-generic",
		true, "6.8.0-31-generic", true);
	/* an empty boot filesystem (an ESP's twin) leaves the root's */
	expect_base("bz 6.1.0-1 >boot/vmlinuz-6.1.0-1", "mkdir grub", "/boot/vmlinuz-6.1.0-1", false, "6.1.0-1", false);
	/* Alpine: the name tells a flavour, the image the release */
	expect_base("bz 6.6.49-0-virt >boot/vmlinuz-virt; mkdir -p lib/modules/6.6.49-0-virt; echo >lib/modules/6.6.49-0-virt/x", NULL,
		"/boot/vmlinuz-virt", false, "6.6.49-0-virt", true);
	expect_base("bz 6.1.0-7 >boot/kernel-6.1.0-7; ln -s boot/kernel-6.1.0-7 vmlinuz", NULL, "/vmlinuz", false, "6.1.0-7", false);
	expect_base("mkdir -p lib/modules/6.9.1 lib/modules/6.10.1; bz 6.9.1 >lib/modules/6.9.1/vmlinuz; bz 6.10.1 "
		    ">lib/modules/6.10.1/vmlinuz", NULL, "/usr/lib/modules/6.10.1/vmlinuz", false, "6.10.1", true);
}

static void test_base_without_kernel(void **state)
{
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_close_ int out = fresh_folder();
	struct opened root;
	struct err e = ERR_INIT;

	(void)state;
	run_script(workdir, NULL, "rm -rf r r.img; mkdir -p r/boot r/etc; ln -s boot/vmlinuz-gone r/vmlinuz; mke2fs -q -F -t ext4 -d r r.img 8M");
	open_fs("r.img", &root);
	assert_int_equal(kernel_open_base(root.fs, NULL, ARCH_AMD64, out, &k, &e), -ENOENT);
	assert_non_null(strstr(e.message, "[kernel]"));
	close_fs(&root);
}

/* ---- files, and modules in a base's filesystem ---- */

static void test_file_with_modules(void **state)
{
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_close_ int file = -1, modules = -1;
	struct err e = ERR_INIT;
	char hex[DIGEST_HEX_SIZE];
	_cleanup_buf_ struct buf sum = BUF_INIT(4096);

	(void)state;
	run_script(workdir, NULL, MAKERS "bz 6.1.0-1 >k; mkdir -p inst/lib/modules/6.1.0-1/kernel inst/lib/modules/6.1.0-2/kernel\n"
				  "echo 1 >inst/lib/modules/6.1.0-1/kernel/a; echo 2 >inst/lib/modules/6.1.0-2/kernel/b");
	file = open_in("k", O_RDONLY);
	modules = open_in("inst", O_RDONLY | O_DIRECTORY);
	if (kernel_open_file(file, modules, ARCH_AMD64, &k, &e) < 0)
		fail_msg("%s", e.message);
	assert_true(module_tree_has(k.modules, "kernel/a"));
	assert_false(k.modules_in_image);
	assert_true(module_tree_dirfd(k.modules) >= 0);
	run_script(workdir, &sum, "sha256sum k | cut -c1-64 | tr -d '\\n'");
	assert_string_equal(digest_hex(&k.sha256, hex), buf_str(&sum));
	kernel_release(&k);
	assert_int_equal(kernel_open_file(file, -1, ARCH_ARM64, &k, &e), -ENOEXEC);
	assert_int_equal(kernel_open_file(file, -1, ARCH_AMD64, &k, &e), 0);
	assert_null(k.modules);
}

static void test_plan_from_filesystem(void **state)
{
	static const char *const order[] = { "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio", "virtio_pci",
		"virtio_mmio", "virtio_blk", "virtio_console" };
	_cleanup_module_plan_ struct module_plan plan = { 0 };
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_close_ int out = fresh_folder();
	struct opened root;
	struct err e = ERR_INIT;
	char fixture[512], script[2048];

	(void)state;
	kernel_fixture(fixture, sizeof(fixture));
	(void)snprintf(script, sizeof(script), "rm -f base.img; mke2fs -q -F -t ext4 -d '%s/unpacked' base.img 300M", fixture);
	run_script(workdir, NULL, script);
	open_fs("base.img", &root);
	if (kernel_open_base(root.fs, NULL, ARCH_AMD64, out, &k, &e) < 0 ||
		modules_plan(k.modules, k.release, modules_for_boot, &plan, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(plan.n, ARRAY_SIZE(order));
	for (size_t i = 0; i < plan.n; i++)
		assert_string_equal(plan.items[i].name, order[i]);
	kernel_release(&k);
	close_fs(&root);
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	(void)snprintf(workdir, sizeof(workdir), "%s/imgbuild-test-kernels-XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(workdir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return remove_tree_at(AT_FDCWD, workdir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_member_limits_and_damage),
		cmocka_unit_test(test_chains_of_links),
		cmocka_unit_test(test_clean_names),
		cmocka_unit_test(test_packages_apart),
		cmocka_unit_test(test_bad_packages),
		cmocka_unit_test(test_climbing_names),
		cmocka_unit_test(test_base),
		cmocka_unit_test(test_base_without_kernel),
		cmocka_unit_test(test_file_with_modules),
		cmocka_unit_test(test_plan_from_filesystem),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
