/* Plans: what is read, which faults are reported and where, and that paths stay beneath the plan's folder. */
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "lib/beneath.h"
#include "plan/plan.h"
#include "plan/toml.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define MINIMAL "[base.amd64]\nurl = \"https://example.org/a.qcow2\"\n"

static struct plan *load_text(const char *text, struct plan_faults *faults)
{
	struct plan *p = NULL;
	struct err e = ERR_INIT;
	int r = plan_load_bytes(AT_FDCWD, "p.toml", text, strlen(text), false, &p, faults, &e);

	if (r < 0)
		assert_true(faults->n_faults > 0 && e.kind == ERR_KIND_USAGE);
	return p;
}

/* --- the ancestor's plans --- */

static struct plan *load_ancestor(const char *name, struct plan_faults *faults)
{
	const char *data = getenv("IMGBUILD_TEST_DATA");
	_cleanup_free_ char *path = NULL;
	struct plan *p = NULL;
	struct err e = ERR_INIT;

	assert_true(asprintf(&path, "%s/plans/%s", data ? data : "../shared/data", name) > 0);
	if (plan_load(AT_FDCWD, path, false, &p, faults, &e) < 0)
		fail_msg("%s", e.message);
	return p;
}

static void the_ancestors_config_loads_as_it_stands(void **state)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_plan_ struct plan *p = load_ancestor("fcvm-rootfs-config.toml", &faults);
	_cleanup_strv_ struct strv packages = { 0 };

	(void)state;
	assert_int_equal(faults.n_faults, 0);
	assert_int_equal(faults.n_notices, 4);
	assert_non_null(strstr(faults.notices[0].message, "[paths]"));
	assert_int_equal(faults.notices[0].line, 7);
	assert_non_null(strstr(faults.notices[1].message, "version"));
	assert_non_null(strstr(faults.notices[2].message, "codename"));
	assert_non_null(strstr(faults.notices[3].message, "[kernel_profiles]"));
	assert_int_equal(p->kernel[ARCH_ARM64].kind, PLAN_KERNEL_ARCHIVE);
	assert_string_equal(p->kernel[ARCH_ARM64].member, "opt/kata/share/kata-containers/vmlinux-6.12.47-173");
	assert_int_equal(plan_packages(p, ARCH_AMD64, &packages), 0);
	assert_int_equal(packages.n, 13);
	assert_string_equal(packages.items[0], "chrony");
	assert_int_equal(p->n_files, 4);
	assert_string_equal(p->files[0].destination.text, "/etc/chrony/chrony.conf");
	assert_string_equal(p->files[0].owner, "root");
	assert_int_equal(p->files[0].mode, 0644);
	assert_string_equal(p->services.disable.items[0], "cloud-config.service");
	assert_int_equal(p->fstab.remove_patterns.n, 2);
	assert_int_equal(p->cleanup.n, 3);
	assert_false(p->apt.recommends);
	assert_int_equal(p->image.size_bytes, PLAN_DEFAULT_IMAGE_SIZE_BYTES);
}

static void the_ancestors_first_plan_loads_without_a_kernel(void **state)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_plan_ struct plan *p = load_ancestor("fcvm-rootfs-plan.toml", &faults);

	(void)state;
	assert_int_equal(faults.n_notices, 1);
	assert_int_equal(p->kernel[ARCH_AMD64].kind, PLAN_KERNEL_FROM_BASE);
	assert_string_equal(p->base[ARCH_AMD64].location.url,
		"https://cloud-images.ubuntu.com/noble/current/noble-server-cloudimg-amd64.img");
}

/* There local_path wins over url and path. */
static void the_ancestors_local_kernel_is_a_file(void **state)
{
	static const char *const kernels[] = {
		"url = \"\"\npath = \"\"\nlocal_path = \"build/vmlinux\"\n",
		"url = \"\"\npath = \"opt/vmlinux\"\nlocal_path = \"build/vmlinux\"\n",
		"url = \"https://example.org/k\"\npath = \"opt/vmlinux\"\nlocal_path = \"build/vmlinux\"\n",
		"local_path = \"build/vmlinux\"\nurl = \"k.tar\"\npath = \"opt/vmlinux\"\n",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kernels); i++) {
		_cleanup_plan_faults_ struct plan_faults faults = { 0 };
		_cleanup_plan_ struct plan *p = NULL;
		char text[512];

		(void)snprintf(text, sizeof(text), MINIMAL "[kernel.amd64]\n%s", kernels[i]);
		p = load_text(text, &faults);
		if (!p)
			fail_msg("%s", faults.faults[0].message);
		assert_int_equal(p->kernel[ARCH_AMD64].kind, PLAN_KERNEL_FILE);
		assert_string_equal(p->kernel[ARCH_AMD64].location.path, "build/vmlinux");
		assert_null(p->kernel[ARCH_AMD64].location.url);
		assert_null(p->kernel[ARCH_AMD64].member);
	}
}

static void our_recipes_load(void **state)
{
	static const char *const recipes[] = { "rootfs-plan.toml", "recipes/alpine-quick.toml", "recipes/debian-demo.toml" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(recipes); i++) {
		_cleanup_plan_faults_ struct plan_faults faults = { 0 };
		_cleanup_plan_ struct plan *p = NULL;
		struct err e = ERR_INIT;

		if (plan_load(AT_FDCWD, recipes[i], false, &p, &faults, &e) < 0)
			fail_msg("%s", e.message);
		assert_int_equal(faults.n_notices, 0);
	}
}

/* --- the whole schema --- */

static const char everything[] =
	"name = \"all\"\n"
	"[base]\npartition = \"PARTUUID=ABCDEF01-0000-0000-0000-00000000000A\"\n"
	"[base.amd64]\nurl = \"https://example.org/a.qcow2\"\n"
	"sha512 = \"cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
	"47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e\"\n"
	"[base.arm64]\nurl = \"file:images/a.img\"\n"
	"sha256 = \"E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855\"\n"
	"[kernel.amd64]\nfile = \"kernels/bzImage\"\nmodules = \"kernels/modules\"\ncmdline = \"quiet\"\n"
	"[kernel.arm64]\npackage = \"linux-image-cloud-arm64\"\n"
	"[packages]\na = [\"podman\", \"crun\"]\nb = [\"crun\"]\namd64 = [\"list\"]\n"
	"[packages.arm64]\nboot = [\"grub-efi-arm64\"]\n"
	"[apt]\nremove = [\"snapd\"]\nrecommends = true\nsnapshot = \"20261101T000000Z\"\n"
	"debs = [\"debs/t_1_amd64.deb\", \"debs/t_1_arm64.deb\", \"debs/u.deb\"]\n"
	"trusted = [\"http://example.org/f\"]\ncheck_valid_until = false\n"
	"[[apt.repository]]\nuri = \"https://example.org/d\"\nsuite = \"stable\"\ncomponents = [\"main\"]\nkey = \"k.asc\"\n"
	"[[apt.repository]]\nuri = \"http://u:p@example.org/f/\"\nsuite = \"./\"\n"
	"[services]\nenable = [\"chrony\"]\ndisable = [\"snapd.socket\"]\nmask = [\"apt-daily.timer\"]\n"
	"[files.\"/etc/a/deep/b\"]\ncontent = \"x\\u0000y\"\nmode = \"4755\"\nowner = \"daemon\"\n"
	"[files.\"/etc/tree\"]\nsource = \"tree\"\n"
	"[files.\"/etc/u\"]\nurl = \"https://example.org/u\"\n"
	"sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\nowner = \"0:adm\"\n"
	"[inputs.selftests]\nsource = \"build/selftests\"\n"
	"[users.root]\nauthorized_keys = [\"ssh-ed25519 AAAA me\"]\npassword = \"$6$salt$hash\"\n"
	"[users.guest]\npassword = \"empty\"\n"
	"[fstab]\nremove_patterns = [\"LABEL=BOOT\"]\nkeep = true\n"
	"[setup]\nscript = \"true\\n\"\n"
	"[cleanup]\nremove_dirs = [\"/usr/share/doc/*\"]\n"
	"[image]\nsize = \"20G\"\nlabel = \"sixteen-bytes-ok\"\nhostname = \"vm-1.example\"\n"
	"[provision]\nmemory = \"2G\"\ncpus = 2\nstall_timeout = \"120s\"\n";

static void everything_is_read(void **state)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_plan_ struct plan *p = load_text(everything, &faults);
	_cleanup_strv_ struct strv packages = { 0 }, debs = { 0 };

	(void)state;
	if (!p)
		fail_msg("%u: %s", faults.faults[0].line, faults.faults[0].message);
	assert_string_equal(p->name, "all");
	for (unsigned a = 0; a < ARCH_COUNT; a++) {
		assert_int_equal(p->base[a].partition.by, PLAN_PARTITION_PARTUUID);
		assert_string_equal(p->base[a].partition.value, "abcdef01-0000-0000-0000-00000000000a");
	}
	assert_int_equal(p->base[ARCH_AMD64].location.sha512.algorithm, DIGEST_SHA512);
	assert_string_equal(p->base[ARCH_ARM64].location.path, "images/a.img");
	assert_int_equal(p->base[ARCH_ARM64].location.sha256.bytes[0], 0xe3);
	assert_int_equal(p->kernel[ARCH_AMD64].kind, PLAN_KERNEL_FILE);
	assert_string_equal(p->kernel[ARCH_AMD64].modules, "kernels/modules");
	assert_int_equal(p->kernel[ARCH_ARM64].kind, PLAN_KERNEL_PACKAGE);
	assert_int_equal(plan_packages(p, ARCH_ARM64, &packages), 0);
	assert_int_equal(packages.n, 4);
	assert_int_equal(plan_debs(p, ARCH_AMD64, &debs), 0);
	assert_int_equal(debs.n, 2);
	assert_string_equal(debs.items[1], "debs/u.deb");
	assert_true(p->apt.recommends);
	assert_string_equal(p->apt.snapshot, "20261101T000000Z");
	assert_int_equal(p->apt.n_repositories, 2);
	assert_int_equal(p->apt.repositories[1].components.n, 0);
	assert_string_equal(p->services.enable.items[0], "chrony.service");
	assert_string_equal(p->services.disable.items[0], "snapd.socket");
	assert_int_equal(p->files[0].text_len, 3);
	assert_int_equal(p->files[0].mode, 04755);
	assert_string_equal(p->files[0].group, "daemon");
	assert_string_equal(p->files[1].location.path, "tree");
	assert_false(p->files[1].has_mode);
	assert_string_equal(p->files[2].owner, "0");
	assert_string_equal(p->files[2].group, "adm");
	assert_int_equal(p->users[0].password, PLAN_PASSWORD_EMPTY);
	assert_string_equal(p->users[1].password_hash, "$6$salt$hash");
	assert_true(p->fstab.keep);
	assert_int_equal(p->setup.script_len, 5);
	assert_true(p->image.size_bytes == GIB(20));
	assert_true(p->provision.memory_bytes == GIB(2));
	assert_int_equal(p->provision.cpus, 2);
	assert_int_equal(p->provision.stall_timeout_ms, 120000);
}

/* --- faults --- */

static void all_faults_are_reported_in_order(void **state)
{
	static const char text[] = "[base.amd64]\nurl = \"https://example.org/a\"\nsha25 = \"x\"\n\n"
				   "[services]\nenabel = [\"chrony\"]\n\n[image]\n  size = 10\nlabel = \"this is far too long\"\n"
				   "[kernel.amd64]\nfile = \"a\"\npackage = \"linux\"\n[pakages]\n";
	static const struct {
		unsigned line, column;
		const char *found, *expected;
	} want[] = {
		{ 3, 1, "unknown key `sha25`", "did you mean `sha256`" },
		{ 6, 1, "unknown key `enabel`", "did you mean `enable`" },
		{ 9, 10, "integer 10", "a size such as \"10G\"" },
		{ 10, 9, "this is far too long", "at most 16 bytes" },
		{ 12, 8, "file beside package", "exactly one of url, package, file and from" },
		{ 14, 2, "unknown key `pakages`", "did you mean `packages`" },
	};
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_plan_ struct plan *p = load_text(text, &faults);

	(void)state;
	assert_null(p);
	for (size_t i = 0; i < faults.n_faults; i++) {
		const struct plan_fault *f = &faults.faults[i];

		if (i >= ARRAY_SIZE(want) || f->line != want[i].line || f->column != want[i].column ||
			!strstr(f->message, want[i].found) || !strstr(f->message, want[i].expected))
			fail_msg("fault %zu: %u:%u: %s", i, f->line, f->column, f->message);
	}
	assert_int_equal(faults.n_faults, ARRAY_SIZE(want));
}

/* Each line of a plan that is wrong by itself, put behind a minimal one, and a word of what must be said. */
static const struct {
	const char *text, *said;
} wrong[] = {
	{ "[base]\npartition = 0\n", "a number from 1 to 128" },
	{ "[base]\npartition = \"LABEL=\"\n", "LABEL=…" },
	{ "[base]\npartition = \"PARTUUID=12\"\n", "PARTUUID=…" },
	{ "[base.arm64]\n", "found no url" },
	{ "[base.arm64]\nurl = \"ftp://x/y\"\n", "http://" },
	{ "[base.arm64]\nurl = \"../up.img\"\n", "outside the plan's folder" },
	{ "[base.arm64]\nurl = \"/abs.img\"\n", "outside the plan's folder" },
	{ "[base.arm64]\nurl = \"x\"\nsha256 = \"12\"\n", "64 hexadecimal digits" },
	{ "[base.riscv64]\nurl = \"x\"\n", "expected one of partition, amd64, arm64" },
	{ "base.arm64 = \"x\"\n", "" },
	{ "[kernel.amd64]\nfrom = \"disk\"\n", "\"base\"" },
	{ "[kernel.amd64]\nfrom = \"base\"\nmodules = \"m\"\n", "brings its own modules" },
	{ "[kernel.amd64]\nfile = \"k\"\npath = \"x\"\n", "belongs beside url" },
	{ "[kernel.amd64]\nurl = \"a.tar.zst\"\npath = \"a/../b\"\n", "without . and .. parts" },
	{ "[kernel.amd64]\npackage = \"Linux\"\n", "a package's name" },
	{ "[packages]\na = \"podman\"\n", "a list of package names" },
	{ "[packages]\na = [\"podman=1.0\"]\n", "versions are the lock's" },
	{ "[packages.riscv64]\na = [\"podman\"]\n", "a list of package names" },
	{ "[packages]\na = [\"podman\"]\n[apt]\nremove = [\"podman\"]\n", "which [packages] asks for" },
	{ "[apt]\nallow_unsigned = true\n", "unknown key" },
	{ "[apt]\nsnapshot = \"20260231T000000Z\"\n", "a time such as" },
	{ "[apt]\nrecommends = \"no\"\n", "true or false" },
	{ "[[apt.repository]]\nuri = \"file:/x\"\nsuite = \"s\"\ncomponents = [\"main\"]\nkey = \"k\"\n", "an http:// or https:// URL" },
	{ "[[apt.repository]]\nuri = \"https://x\"\nsuite = \"s\"\nkey = \"k\"\n", "found no components" },
	{ "[[apt.repository]]\nuri = \"https://x\"\nsuite = \"s/\"\ncomponents = [\"main\"]\nkey = \"k\"\n", "flat repository" },
	{ "[[apt.repository]]\nuri = \"https://x\"\nsuite = \"./\"\n", "found no key" },
	{ "[apt]\ntrusted = [\"https://x/y\"]\n[[apt.repository]]\nuri = \"https://x\"\nsuite = \"./\"\n", "found no key" },
	{ "[apt]\ntrusted = [\"file:/srv\"]\n", "http:// or https:// archives" },
	{ "[apt]\ncheck_valid_until = \"no\"\n", "true or false" },
	{ "[base.arm64]\nurl = \"x\"\nchecksums = \"https://x/SUMS\"\n", "the image is local" },
	{ "[base.arm64]\nurl = \"https://x/y\"\nchecksums = \"SUMS\"\n", "an http:// or https:// URL" },
	{ "[base.arm64]\nurl = \"https://x/y\"\nchecksums_key = \"k\"\n", "it belongs beside checksums" },
	{ "[base.arm64]\nurl = \"https://x/y\"\nchecksums = \"https://x/S\"\nchecksums_signature = \"https://x/S.gpg\"\n",
		"it belongs beside checksums_key" },
	{ "[base.arm64]\nurl = \"https://x/y\"\nchecksums = \"https://x/S\"\n"
	  "sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n", "take one of them out" },
	{ "[apt.repository]\nuri = \"https://x\"\n", "expected tables written [[apt.repository]]" },
	{ "[services]\nenable = [\"a b\"]\n", "a list of units" },
	{ "[services]\nenable = [\"a\"]\nmask = [\"a.service\"]\n", "both in enable and in mask" },
	{ "[files.\"etc/x\"]\ncontent = \"\"\n", "an absolute path" },
	{ "[files.\"/etc//x\"]\ncontent = \"\"\n", "without `//`" },
	{ "[files.\"/etc/../x\"]\ncontent = \"\"\n", "`..` parts" },
	{ "[files.\"/proc/x\"]\ncontent = \"\"\n", "stays in an image" },
	{ "[files.\"/\"]\ncontent = \"\"\n", "not / itself" },
	{ "[files.\"/a\"]\n", "exactly one of content, source and url" },
	{ "[files.\"/a\"]\ncontent = \"\"\nsource = \"x\"\n", "exactly one of content, source and url" },
	{ "[files.\"/a\"]\ncontent = \"\"\nsha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n",
		"belongs beside url" },
	{ "[files.\"/a\"]\ncontent = \"\"\nmode = 644\n", "octal digits in quotes" },
	{ "[files.\"/a\"]\ncontent = \"\"\nmode = \"10000\"\n", "octal digits in quotes" },
	{ "[files.\"/a\"]\ncontent = \"\"\nowner = \"root:\"\n", "user:group" },
	{ "[files.\"/a\"]\ncontent = \"\"\n[files.\"/a-b\"]\ncontent = \"\"\n[files.\"/a/b\"]\ncontent = \"\"\n",
		"\"/a/b\" below \"/a\"" },
	{ "[inputs.\"a/b\"]\nsource = \"x\"\n", "letters, digits" },
	{ "[inputs.a]\n", "exactly one of source and url" },
	{ "[users.Root]\npassword = \"empty\"\n", "a user's name" },
	{ "[users.root]\npassword = \"hunter2\"\n", "a hash such as" },
	{ "[users.root]\nauthorized_keys = [\"a\\nb\"]\n", "a list of lines" },
	{ "[setup]\nscript = \"x\"\nfile = \"y\"\n", "file beside script" },
	{ "[setup]\nfile = \"a/../../b\"\n", "outside the plan's folder" },
	{ "[cleanup]\nremove_dirs = [\"usr/*\"]\n", "absolute paths" },
	{ "[cleanup]\nremove_dirs = [\"/*\"]\n", "absolute paths" },
	{ "[image]\nsize = \"10X\"\n", "a size such as" },
	{ "[image]\nsize = \"5K\"\n", "a multiple of 4 KiB" },
	{ "[image]\nsize = \"99999999999999999999G\"\n", "a size such as" },
	{ "[image]\nhostname = \"a_b\"\n", "a host's name" },
	{ "[image]\nhostname = \"-a\"\n", "a host's name" },
	{ "[provision]\ncpus = 0\n", "from 1 to 256" },
	{ "[provision]\nstall_timeout = \"120\"\n", "a time such as" },
	{ "[provision]\nmemory = \"1M\"\n", "from 64M" },
	{ "image = 5\n", "" },
};

static void each_wrong_value_is_said(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		_cleanup_plan_faults_ struct plan_faults faults = { 0 };
		_cleanup_buf_ struct buf text = BUF_INIT(65536);
		_cleanup_plan_ struct plan *p = NULL;
		/* A line that belongs to the root stands first. */
		bool first = wrong[i].text[0] != '[';

		assert_int_equal(buf_appendf(&text, "%s%s%s", first ? wrong[i].text : "", MINIMAL, first ? "" : wrong[i].text),
			0);
		p = load_text(buf_str(&text), &faults);
		assert_null(p);
		if (first)
			continue;
		if (faults.n_faults != 1 || !strstr(faults.faults[0].message, wrong[i].said) || faults.faults[0].line == 0)
			fail_msg("%s: %zu faults, %u:%u: %s", wrong[i].text, faults.n_faults, faults.faults[0].line,
				faults.faults[0].column, faults.faults[0].message);
		assert_null(strstr(faults.faults[0].message, "hunter2"));
	}
}

static void a_plan_without_a_base_is_a_fault(void **state)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 }, more = { 0 };

	(void)state;
	assert_null(load_text("", &faults));
	assert_int_equal(faults.n_faults, 1);
	assert_null(load_text("[base]\nversion = \"1\"\n", &more));
	assert_int_equal(more.n_faults, 1);
	assert_int_equal(more.faults[0].line, 1);
}

static void faults_are_listed_up_to_a_limit(void **state)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(65536);

	(void)state;
	for (unsigned i = 0; i < PLAN_MAX_FAULTS + 20; i++)
		assert_int_equal(buf_appendf(&text, "x%u = 1\n", i), 0);
	assert_null(load_text(buf_str(&text), &faults));
	assert_int_equal(faults.n_faults, PLAN_MAX_FAULTS);
}

/* --- paths --- */

struct folder {
	char path[256];
	int fd;
};

static void make_file(int dirfd, const char *path, mode_t mode)
{
	_cleanup_close_ int fd = openat(dirfd, path, O_CREAT | O_WRONLY | O_CLOEXEC, mode);

	assert_true(fd >= 0);
}

static int make_folder(void **state)
{
	struct folder *f = calloc(1, sizeof(*f));
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(f->path, sizeof(f->path), "%s/plan-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(f->path))
		return -1;
	f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(f->fd, "in", 0755), 0);
	assert_int_equal(mkdirat(f->fd, "in/sub", 0755), 0);
	assert_int_equal(mkdirat(f->fd, "in/sub/deep", 0755), 0);
	make_file(f->fd, "secret", 0644);
	make_file(f->fd, "in/file", 0644);
	make_file(f->fd, "in/sub/tool", 0755);
	assert_int_equal(symlinkat("sub/tool", f->fd, "in/link"), 0);
	assert_int_equal(symlinkat("../file", f->fd, "in/sub/back"), 0);
	assert_int_equal(symlinkat("deep/..", f->fd, "in/sub/round"), 0);
	assert_int_equal(symlinkat("../secret", f->fd, "in/out"), 0);
	assert_int_equal(symlinkat("../..", f->fd, "in/sub/up"), 0);
	assert_int_equal(symlinkat("/etc/passwd", f->fd, "in/absolute"), 0);
	assert_int_equal(symlinkat("loop", f->fd, "in/loop"), 0);
	assert_int_equal(symlinkat("nowhere", f->fd, "in/dangling"), 0);
	assert_int_equal(mkfifoat(f->fd, "in/fifo", 0644), 0);
	*state = f;
	return 0;
}

static int remove_folder(void **state)
{
	struct folder *f = *state;

	(void)remove_tree_at(AT_FDCWD, f->path);
	close_fdp(&f->fd);
	free(f);
	return 0;
}

static const struct {
	const char *path;
	int want; /* 0: opens */
	const char *same_as;
} opens[] = {
	{ "file", 0, "in/file" },
	{ "./file", 0, "in/file" },
	{ "sub//tool", 0, "in/sub/tool" },
	{ "link", 0, "in/sub/tool" },
	{ "sub/back", 0, "in/file" },
	{ "sub/../file", 0, "in/file" },
	{ "sub/round/round/tool", 0, "in/sub/tool" },
	{ "sub/deep/../../sub/", 0, "in/sub" },
	{ ".", 0, "in" },
	{ "sub/..", 0, "in" },
	{ "..", -EXDEV, NULL },
	{ "../in/file", -EXDEV, NULL },
	{ "sub/../../in/file", -EXDEV, NULL },
	{ "out", -EXDEV, NULL },
	{ "sub/up/secret", -EXDEV, NULL },
	{ "absolute", -EXDEV, NULL },
	{ "/etc/passwd", -EXDEV, NULL },
	{ "loop", -ELOOP, NULL },
	{ "dangling", -ENOENT, NULL },
	{ "none/x", -ENOENT, NULL },
	{ "file/x", -ENOTDIR, NULL },
	{ "file/", -ENOTDIR, NULL },
	{ "", -ENOENT, NULL },
};

static void paths_stay_beneath_in_both_ways(void **state)
{
	const struct folder *f = *state;
	_cleanup_close_ int in = openat(f->fd, "in", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (size_t i = 0; i < ARRAY_SIZE(opens); i++)
		for (unsigned by_hand = 0; by_hand < 2; by_hand++) {
			_cleanup_close_ int fd = beneath_open(in, opens[i].path, O_RDONLY, by_hand);
			struct stat a, b;

			if (opens[i].want < 0 ? fd != opens[i].want : fd < 0)
				fail_msg("`%s` %s: %d", opens[i].path, by_hand ? "by hand" : "by openat2", fd);
			if (fd < 0)
				continue;
			assert_int_equal(fstat(fd, &a), 0);
			assert_int_equal(fstatat(f->fd, opens[i].same_as, &b, 0), 0);
			assert_true(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
			assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
		}
}

static void links_at_the_end_can_be_refused(void **state)
{
	const struct folder *f = *state;

	for (unsigned by_hand = 0; by_hand < 2; by_hand++) {
		_cleanup_close_ int fd = beneath_open(f->fd, "in/link", O_RDONLY | O_NOFOLLOW, by_hand);

		assert_int_equal(fd, -ELOOP);
	}
}

static struct plan *load_in(const struct folder *f, const char *text, bool allow_outside)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_free_ char *path = NULL;
	struct plan *p = NULL;
	struct err e = ERR_INIT;

	assert_int_equal(write_file_atomic_at(f->fd, "in/plan.toml", text, strlen(text), 0644, &e), 0);
	assert_true(asprintf(&path, "%s/in/plan.toml", f->path) > 0);
	if (plan_load(AT_FDCWD, path, allow_outside, &p, &faults, &e) < 0)
		fail_msg("%s", e.message);
	return p;
}

static void local_inputs_are_listed(void **state)
{
	_cleanup_plan_ struct plan *p = load_in(*state,
		"[base.amd64]\nurl = \"file\"\n"
		"sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\n"
		"[kernel.amd64]\nfile = \"link\"\nmodules = \"sub\"\n"
		"[apt]\ndebs = [\"file\"]\n"
		"[[apt.repository]]\nuri = \"https://x\"\nsuite = \"a\"\ncomponents = [\"main\"]\nkey = \"file\"\n"
		"[[apt.repository]]\nuri = \"https://y\"\nsuite = \"a\"\ncomponents = [\"main\"]\nkey = \"file\"\n"
		"[files.\"/a\"]\nsource = \"sub\"\n[files.\"/b\"]\nsource = \"sub/tool\"\n[files.\"/c\"]\ncontent = \"\"\n"
		"[inputs.i]\nsource = \"sub\"\n[setup]\nfile = \"file\"\n",
		false);
	_cleanup_plan_local_inputs_ struct plan_local_inputs inputs = { 0 };
	static const struct {
		const char *slot;
		enum plan_input_kind kind;
		bool is_tree, executable;
	} want[] = {
		{ "base", PLAN_INPUT_BASE, false, false },
		{ "kernel", PLAN_INPUT_KERNEL, false, true },
		{ "modules", PLAN_INPUT_MODULES, true, false },
		{ "deb:file", PLAN_INPUT_DEB, false, false },
		{ "key:file", PLAN_INPUT_REPOSITORY_KEY, false, false },
		{ "files:/a", PLAN_INPUT_FILE, true, false },
		{ "files:/b", PLAN_INPUT_FILE, false, true },
		{ "inputs:i", PLAN_INPUT_INPUT, true, false },
		{ "setup", PLAN_INPUT_SCRIPT, false, false },
	};
	struct err e = ERR_INIT;

	if (plan_local_inputs(p, ARCH_AMD64, &inputs, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(inputs.n, ARRAY_SIZE(want));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		assert_string_equal(inputs.items[i].slot, want[i].slot);
		assert_int_equal(inputs.items[i].kind, want[i].kind);
		assert_int_equal(inputs.items[i].is_tree, want[i].is_tree);
		assert_int_equal(inputs.items[i].executable, want[i].executable);
	}
	assert_int_equal(inputs.items[0].sha256.algorithm, DIGEST_SHA256);
	assert_null(plan_local_input_find(&inputs, "files:/c"));
}

static int inputs_of(void **state, const char *text, bool allow_outside, enum err_kind *ret_kind)
{
	_cleanup_plan_ struct plan *p = load_in(*state, text, allow_outside);
	_cleanup_plan_local_inputs_ struct plan_local_inputs inputs = { 0 };
	struct err e = ERR_INIT;
	int r = plan_local_inputs(p, ARCH_AMD64, &inputs, &e);

	*ret_kind = e.kind;
	return r;
}

static void local_inputs_that_are_not_there_are_said(void **state)
{
	enum err_kind kind;

	assert_int_equal(inputs_of(state, MINIMAL "[setup]\nfile = \"out\"\n", false, &kind), -EXDEV);
	assert_int_equal(kind, ERR_KIND_USAGE);
	assert_int_equal(inputs_of(state, MINIMAL "[setup]\nfile = \"out\"\n", true, &kind), 0);
	assert_int_equal(inputs_of(state, MINIMAL "[setup]\nfile = \"../secret\"\n", true, &kind), 0);
	assert_int_equal(inputs_of(state, MINIMAL "[setup]\nfile = \"none\"\n", false, &kind), -ENOENT);
	assert_int_equal(kind, ERR_KIND_INPUT);
	assert_int_equal(inputs_of(state, MINIMAL "[setup]\nfile = \"sub\"\n", false, &kind), -EISDIR);
	assert_int_equal(inputs_of(state, MINIMAL "[kernel.amd64]\nfile = \"file\"\nmodules = \"file\"\n", false, &kind),
		-ENOTDIR);
	assert_int_equal(inputs_of(state, MINIMAL "[setup]\nfile = \"fifo\"\n", false, &kind), -EINVAL);
}

static void the_architecture_must_be_described(void **state)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_plan_ struct plan *p = load_text(MINIMAL, &faults);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(plan_require_arch(p, ARCH_AMD64, &e), 0);
	assert_int_equal(plan_require_arch(p, ARCH_ARM64, &e), -EINVAL);
	assert_non_null(strstr(e.message, "only for amd64"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_ancestors_config_loads_as_it_stands),
		cmocka_unit_test(the_ancestors_first_plan_loads_without_a_kernel),
		cmocka_unit_test(the_ancestors_local_kernel_is_a_file),
		cmocka_unit_test(our_recipes_load),
		cmocka_unit_test(everything_is_read),
		cmocka_unit_test(all_faults_are_reported_in_order),
		cmocka_unit_test(each_wrong_value_is_said),
		cmocka_unit_test(a_plan_without_a_base_is_a_fault),
		cmocka_unit_test(faults_are_listed_up_to_a_limit),
		cmocka_unit_test_setup_teardown(paths_stay_beneath_in_both_ways, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(links_at_the_end_can_be_refused, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(local_inputs_are_listed, make_folder, remove_folder),
		cmocka_unit_test_setup_teardown(local_inputs_that_are_not_there_are_said, make_folder, remove_folder),
		cmocka_unit_test(the_architecture_must_be_described),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
