/* Modules of Debian's real cloud kernel package, and small ELF files made here for the forms it does not have. modinfo and
 * depmod of kmod are the judges. */
#include "kernels/kernel.h"
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
static char fixture[512];

static int open_in(const char *dir, const char *name, int flags)
{
	char path[1024];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0644);
	if (fd < 0)
		fail_msg("cannot open %s", path);
	return fd;
}

static void expect_order(const struct module_plan *p, const char *const *want, size_t n)
{
	_cleanup_buf_ struct buf got = BUF_INIT(4096);

	for (size_t i = 0; i < p->n; i++)
		assert_int_equal(buf_appendf(&got, "%s ", p->items[i].name), 0);
	assert_int_equal(p->n, n);
	for (size_t i = 0; i < n; i++)
		if (strcmp(p->items[i].name, want[i]) != 0)
			fail_msg("module %zu is %s, expected %s: %s", i, p->items[i].name, want[i], buf_str(&got));
}

/* ---- the real package ---- */

static void open_real(struct kernel *k)
{
	_cleanup_close_ int deb = open_in(fixture, "kernel.deb", O_RDONLY), work = -1;
	char path[512];
	struct err e = ERR_INIT;

	(void)snprintf(path, sizeof(path), "%s/real-XXXXXX", workdir);
	assert_non_null(mkdtemp(path));
	work = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (kernel_open_debs(&deb, 1, ARCH_AMD64, work, k, &e) < 0)
		fail_msg("%s", e.message);
}

static void test_debian_cloud_kernel(void **state)
{
	static const char *const order[] = { "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio",
		"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_console" };
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_module_plan_ struct module_plan plan = { 0 };
	_cleanup_buf_ struct buf release = BUF_INIT(100), count = BUF_INIT(100);
	char script[1024], got_release[KERNEL_RELEASE_SIZE];
	_cleanup_buf_ struct buf sum = BUF_INIT(100);
	char hex[DIGEST_HEX_SIZE];
	struct digest digest, again;
	struct err e = ERR_INIT;

	(void)state;
	open_real(&k);
	run_script(fixture, &release, "basename -z unpacked/lib/modules/*");
	assert_string_equal(k.release, buf_str(&release));
	assert_int_equal(k.image.format, KERNEL_BZIMAGE);
	assert_non_null(k.modules);
	assert_false(k.modules_in_image);
	assert_int_equal(module_tree_digest(k.modules, &digest, &e), 0);
	assert_int_equal(module_tree_digest(k.modules, &again, &e), 0);
	assert_true(digest_equal(&again, &digest));
	run_script(workdir, &sum,
		"cd real-*/modules; find . -type f -printf '%P\\n' | LC_ALL=C sort | while read -r f; do printf '%s\\0%s\\n' \"$f\" "
		"\"$(sha256sum <\"$f\" | cut -c1-64)\"; done | sha256sum | cut -c1-64 | tr -d '\\n'");
	assert_string_equal(digest_hex(&digest, hex), buf_str(&sum));
	assert_int_equal(modules_release(k.modules, got_release, sizeof(got_release), &e), 0);
	assert_string_equal(got_release, k.release);

	/* dpkg-deb counts the same files. */
	(void)snprintf(script, sizeof(script), "dpkg-deb -c '%s/kernel.deb' | grep -c '^-.* \\./\\(usr/\\)*lib/modules/'", fixture);
	run_script(workdir, &count, script);
	assert_int_equal(module_tree_paths(k.modules)->n, strtoul(buf_str(&count), NULL, 10));

	if (modules_plan(k.modules, k.release, modules_for_boot, &plan, &e) < 0)
		fail_msg("%s", e.message);
	expect_order(&plan, order, ARRAY_SIZE(order));
	assert_true(strv_contains(&plan.builtin, "ext4"));
	for (size_t i = 0; i < plan.n; i++) {
		char head[4];

		assert_int_equal(pread_full(plan.items[i].fd, head, 4, 0), 4);
		assert_memory_equal(head, "\177ELF", 4);
	}
}

/* insmod in our order must find every symbol: depmod's modules.dep says of each module what comes before it. */
static void test_agrees_with_depmod(void **state)
{
	static const char *const wanted[] = { "virtio_net", "nfsv4", "btrfs", "xfs", "vsock_loopback", "fuse", "overlay",
		"nft_compat", "virtio_blk", NULL };
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_buf_ struct buf dep = BUF_INIT(8 << 20);
	char script[512], *save = NULL;
	struct err e = ERR_INIT;

	(void)state;
	open_real(&k);
	(void)snprintf(script, sizeof(script),
		"r=%s; mkdir -p dep/lib/modules; cp -r \"$(ls -d real-*/modules | head -1)\" dep/lib/modules/$r\n"
		"depmod -b dep $r; cat dep/lib/modules/$r/modules.dep", k.release);
	run_script(workdir, &dep, script);
	for (size_t i = 0; wanted[i]; i++) {
		const char *const one[] = { wanted[i], NULL };
		_cleanup_module_plan_ struct module_plan plan = { 0 };

		if (modules_plan(k.modules, k.release, one, &plan, &e) < 0)
			fail_msg("%s: %s", wanted[i], e.message);
		if (plan.n == 0) { /* then it is built in */
			assert_true(strv_contains(&plan.builtin, wanted[i]));
			continue;
		}
		assert_string_equal(plan.items[plan.n - 1].name, wanted[i]);
		assert_int_equal(plan.missing.n, 0);
	}
	/* Each line: a module, a colon, what it needs. */
	for (char *line = strtok_r(dep.data, "\n", &save), *next = NULL; line; line = next) {
		char *colon = strchr(line, ':'), *needs, *save2 = NULL, name[MODULE_NAME_SIZE];
		_cleanup_module_plan_ struct module_plan plan = { 0 };
		const char *one[2] = { name, NULL };
		size_t n_needs = 0;

		next = strtok_r(NULL, "\n", &save);
		if (!colon || !(strstr(line, "/fs/") || strstr(line, "/virtio/") || strstr(line, "/net/netfilter/")))
			continue;
		*colon = '\0';
		(void)snprintf(name, sizeof(name), "%s", strrchr(line, '/') + 1);
		*strstr(name, ".ko") = '\0';
		if (modules_plan(k.modules, k.release, one, &plan, &e) < 0)
			fail_msg("%s: %s", name, e.message);
		for (needs = strtok_r(colon + 1, " ", &save2); needs; needs = strtok_r(NULL, " ", &save2), n_needs++) {
			size_t at = plan.n;

			for (size_t j = 0; j < plan.n; j++)
				if (strcmp(plan.items[j].path, needs) == 0)
					at = j;
			if (at == plan.n)
				fail_msg("%s needs %s, which is not planned", name, needs);
		}
		assert_true(plan.n >= n_needs + 1);
	}
}

static void test_meta_package(void **state)
{
	_cleanup_close_ int deb = open_in(fixture, "meta.deb", O_RDONLY), work = open(workdir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(kernel_open_debs(&deb, 1, ARCH_AMD64, work, &k, &e), -ENOENT);
	assert_non_null(strstr(e.message, "meta package"));
}

/* ---- made here ---- */

/* An object file with a .modinfo section, by the assembler: what libkmod reads of a module. */
#define MAKE_KO                                                                                                  \
	"ko() { out=$1; shift; { printf '.section .modinfo,\"a\"\\n'; for f in \"$@\"; do printf '.asciz \"%s\"\\n' \"$f\"; "  \
	"done; } | as -o \"$out\" -; }\n"

static void make_tree(const char *script)
{
	char full[8192];

	(void)snprintf(full, sizeof(full), "rm -rf tree; mkdir -p tree/kernel/a tree/kernel/crypto tree/updates; cd tree\n%s%s",
		MAKE_KO, script);
	run_script(workdir, NULL, full);
}

static struct module_tree *open_tree(const char *name)
{
	_cleanup_close_ int fd = open_in(workdir, name, O_RDONLY | O_DIRECTORY);
	struct module_tree *t = NULL;
	struct err e = ERR_INIT;

	if (module_tree_open_dir(fd, NULL, &t, &e) < 0)
		fail_msg("%s", e.message);
	return t;
}

static void test_forms(void **state)
{
	static const char *const wanted[] = { "top-module", "in-list", "nowhere", NULL };
	static const char *const order[] = { "crc32c_generic", "deep", "mid", "other", "top_module", "after" };
	_cleanup_module_tree_ struct module_tree *t = NULL;
	_cleanup_module_plan_ struct module_plan plan = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	make_tree("ko kernel/a/top-module.ko 'depends=mid,other' 'softdep=pre: crc32c gone post: after' 'vermagic=6.1.0-1-test SMP'\n"
		  "ko kernel/a/mid.ko 'depends=deep' 'vermagic=6.1.0-1-test SMP'; xz --check=crc32 kernel/a/mid.ko\n"
		  "ko kernel/a/other.ko 'depends=deep'; zstd -q --rm kernel/a/other.ko\n"
		  "ko kernel/a/deep.ko 'depends='; gzip kernel/a/deep.ko\n"
		  "ko kernel/a/after.ko 'softdep=pre: top-module'\n"
		  "ko kernel/crypto/crc32c-intel.ko 'alias=crc32c' 'alias=crypto-crc32c'\n"
		  "ko kernel/crypto/crc32c_generic.ko 'alias=crc32c' 'alias=crypto-crc32c'\n"
		  "printf 'kernel/fs/in-list.ko\\n' >modules.builtin; ln -s /etc source");
	t = open_tree("tree");
	if (modules_plan(t, "6.1.0-1-test", wanted, &plan, &e) < 0)
		fail_msg("%s", e.message);
	expect_order(&plan, order, ARRAY_SIZE(order));
	assert_int_equal(plan.builtin.n, 1);
	assert_string_equal(plan.builtin.items[0], "in_list");
	assert_int_equal(plan.missing.n, 2);
	assert_string_equal(plan.missing.items[0], "gone");
	assert_string_equal(plan.missing.items[1], "nowhere");
	assert_false(module_tree_has(t, "source"));
	module_plan_release(&plan);
	assert_int_equal(modules_plan(t, "6.1.0-2-test", wanted, &plan, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "6.1.0-1-test"));
	assert_non_null(strstr(e.message, "6.1.0-2-test"));
}

static void test_builtin_alias_and_updates(void **state)
{
	static const char *const wanted[] = { "a", NULL };
	_cleanup_module_tree_ struct module_tree *t = NULL;
	_cleanup_module_plan_ struct module_plan plan = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	make_tree("ko kernel/a/a.ko 'softdep=pre: crc32c'; ko updates/a.ko 'softdep=pre: crc32c'\n"
		  "printf 'libcrc.alias=crypto-crc32c\\0libcrc.license=GPL\\0' >modules.builtin.modinfo");
	t = open_tree("tree");
	assert_int_equal(modules_plan(t, "", wanted, &plan, &e), 0);
	assert_int_equal(plan.n, 1);
	assert_string_equal(plan.items[0].path, "updates/a.ko");
	assert_int_equal(plan.builtin.n, 1);
	assert_int_equal(plan.missing.n, 0);
}

static void expect_bad(const char *script, const char *wanted_name, int code, const char *words)
{
	const char *wanted[] = { wanted_name, NULL };
	_cleanup_module_tree_ struct module_tree *t = NULL;
	_cleanup_module_plan_ struct module_plan plan = { 0 };
	struct err e = ERR_INIT;
	int r;

	make_tree(script);
	t = open_tree("tree");
	r = modules_plan(t, NULL, wanted, &plan, &e);
	if (r != code || !strstr(e.message, words))
		fail_msg("`%s`: got %d `%s`, expected %d `%s`", script, r, e.message, code, words);
	assert_int_equal(e.kind, ERR_KIND_INPUT);
}

static void test_bad_modules(void **state)
{
	(void)state;
	expect_bad("echo no elf >kernel/a/x.ko", "x", -EBADMSG, "x.ko");
	expect_bad(": >kernel/a/x.ko", "x", -EBADMSG, "empty");
	expect_bad("echo no xz >kernel/a/x.ko.xz", "x", -EBADMSG, "x.ko.xz");
	expect_bad("ko x.ko 'a=b'; xz x.ko; head -c 40 x.ko.xz >kernel/a/x.ko.xz", "x", -EBADMSG, "x.ko.xz");
	expect_bad("ko kernel/a/x.ko 'a=b'; truncate -s 100 kernel/a/x.ko", "x", -EBADMSG, "x.ko");
	expect_bad("for i in $(seq 0 70); do ko kernel/a/m$i.ko \"depends=m$((i+1))\"; done", "m0", -E2BIG, "chain");
	expect_bad("truncate -s 300M big; zstd -q big -o kernel/a/x.ko.zst; rm big", "x", -E2BIG, "unpacks");
}

static void test_chain_at_the_limit(void **state)
{
	static const char *const wanted[] = { "m0", NULL };
	_cleanup_module_tree_ struct module_tree *t = NULL;
	_cleanup_module_plan_ struct module_plan plan = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	make_tree("for i in $(seq 0 62); do ko kernel/a/m$i.ko \"depends=m$((i+1))\"; done; ko kernel/a/m63.ko depends=m0");
	t = open_tree("tree");
	assert_int_equal(modules_plan(t, NULL, wanted, &plan, &e), 0);
	assert_int_equal(plan.n, 64);
	assert_string_equal(plan.items[0].name, "m63");
}

static void test_as_many_as_may_be(void **state)
{
	static const char *const wanted[] = { "top", NULL };
	_cleanup_module_tree_ struct module_tree *t = NULL;
	_cleanup_module_plan_ struct module_plan plan = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	make_tree("ko kernel/a/m0.ko depends=; for i in $(seq 256); do cp kernel/a/m0.ko kernel/a/m$i.ko; done\n"
		  "ko kernel/a/top.ko \"depends=$(seq -s, -f m%.0f 255)\"");
	t = open_tree("tree");
	assert_int_equal(modules_plan(t, NULL, wanted, &plan, &e), 0);
	assert_int_equal(plan.n, MODULES_PLAN_MAX);
	module_plan_release(&plan);
	expect_bad("ko kernel/a/m0.ko depends=; for i in $(seq 256); do cp kernel/a/m0.ko kernel/a/m$i.ko; done\n"
		   "ko kernel/a/top.ko \"depends=$(seq -s, -f m%.0f 256)\"", "top", -E2BIG, "more than 256");
}

static void test_installed_tree(void **state)
{
	_cleanup_close_ int fd = -1;
	struct module_tree *t = NULL;
	struct err e = ERR_INIT;

	(void)state;
	run_script(workdir, NULL, "rm -rf inst; mkdir -p inst/lib/modules/6.1.0/kernel inst/lib/modules/6.2.0/kernel; "
			      "echo 1 >inst/lib/modules/6.1.0/kernel/x; echo 2 >inst/lib/modules/6.2.0/kernel/y; mkdir empty");
	fd = open_in(workdir, "inst", O_RDONLY | O_DIRECTORY);
	assert_int_equal(module_tree_open_dir(fd, NULL, &t, &e), -ENOTUNIQ);
	assert_int_equal(module_tree_open_dir(fd, "6.3.0", &t, &e), -ENOENT);
	assert_non_null(strstr(e.message, "6.2.0"));
	assert_int_equal(module_tree_open_dir(fd, "6.2.0", &t, &e), 0);
	assert_true(module_tree_has(t, "kernel/y"));
	module_tree_free(t);
	close_fdp(&fd);
	fd = open_in(workdir, "inst/lib/modules", O_RDONLY | O_DIRECTORY);
	assert_int_equal(module_tree_open_dir(fd, "6.1.0", &t, &e), 0);
	assert_true(module_tree_has(t, "kernel/x"));
	module_tree_free(t);
	close_fdp(&fd);
	fd = open_in(workdir, "empty", O_RDONLY | O_DIRECTORY);
	assert_int_equal(module_tree_open_dir(fd, NULL, &t, &e), -ENOENT);
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	kernel_fixture(fixture, sizeof(fixture));
	(void)snprintf(workdir, sizeof(workdir), "%s/imgbuild-test-modules-XXXXXX", tmp ? tmp : "/tmp");
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
		cmocka_unit_test(test_debian_cloud_kernel),
		cmocka_unit_test(test_agrees_with_depmod),
		cmocka_unit_test(test_meta_package),
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_builtin_alias_and_updates),
		cmocka_unit_test(test_bad_modules),
		cmocka_unit_test(test_chain_at_the_limit),
		cmocka_unit_test(test_as_many_as_may_be),
		cmocka_unit_test(test_installed_tree),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
