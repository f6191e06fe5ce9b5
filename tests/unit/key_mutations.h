/* For each field of the schema at least one mutation of a plan, for the tests of the key and of what differs between two
 * keys. Header only: each test program has its own. A field without one fails in test_key.c. */
#ifndef IMGBUILD_TESTS_KEY_MUTATIONS_H
#define IMGBUILD_TESTS_KEY_MUTATIONS_H

#include "plan_fixture.h"

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

/* Bases and kernels of each way. */
#define URLS                                                                                                 \
	"[base]\npartition = 1\n[base.amd64]\nurl = \"https://example.org/b\"\n"                                     \
	"[kernel.amd64]\nurl = \"https://example.org/k\"\npath = \"opt/vmlinux\"\ncmdline = \"quiet\"\n"
#define CHECKSUMS                                                                                            \
	"[base.amd64]\nurl = \"https://example.org/b\"\nchecksums = \"https://example.org/SUMS\"\nchecksums_key = \"key.asc\"\n" \
	"checksums_signature = \"https://example.org/SUMS.gpg\"\n"                                               \
	"[kernel.amd64]\nurl = \"https://example.org/k\"\npath = \"opt/vmlinux\"\n"
#define SHA512S                                                                                              \
	"[base.amd64]\nurl = \"https://example.org/b\"\nsha512 = \"" HEX_A HEX_A "\"\n"                             \
	"[kernel.amd64]\nurl = \"https://example.org/k\"\npath = \"opt/vmlinux\"\nsha512 = \"" HEX_B HEX_A "\"\n"
#define SHA256S                                                                                              \
	"[base.amd64]\nurl = \"https://example.org/b\"\nsha256 = \"" HEX_A "\"\n"                                   \
	"[kernel.amd64]\nurl = \"https://example.org/k\"\npath = \"opt/vmlinux\"\nsha256 = \"" HEX_B "\"\n"
#define LOCALS "[base.amd64]\nurl = \"a.img\"\n[kernel.amd64]\nfile = \"k\"\nmodules = \"modules\"\n"
#define LOCAL_PATH "[base.amd64]\nurl = \"a.img\"\n[kernel.amd64]\nurl = \"\"\nlocal_path = \"k\"\n"
#define PACKAGE "[base.amd64]\nurl = \"https://example.org/b\"\n[kernel.amd64]\npackage = \"linux-image-a\"\n"
#define FROM_BASE "[base.amd64]\nurl = \"https://example.org/b\"\n[kernel.amd64]\nfrom = \"base\"\n"
#define IGNORED                                                                                              \
	"[base]\nversion = \"1\"\ncodename = \"x\"\n[base.amd64]\nurl = \"https://example.org/b\"\n"                 \
	"[paths]\na = 1\n[kernel_profiles.n.amd64]\nb = 1\n"

/* What follows each of them. */
static const char rest[] =
	"[packages]\nrun = [\"podman\", \"crun\"]\n[packages.amd64]\nboot = [\"grub-pc\"]\n"
	"[apt]\nremove = [\"snapd\"]\nrecommends = false\nsnapshot = \"20261101T000000Z\"\ndebs = [\"x_1_amd64.deb\", \"y.deb\"]\n"
	"trusted = [\"https://example.org/t\"]\ncheck_valid_until = true\n"
	"[[apt.repository]]\nuri = \"https://example.org/d\"\nsuite = \"stable\"\ncomponents = [\"main\"]\nkey = \"key.asc\"\n"
	"[services]\nenable = [\"chrony\"]\ndisable = [\"snapd\"]\nmask = [\"apt-daily.timer\"]\n"
	"[files.\"/etc/text\"]\ncontent = \"text\"\nmode = \"0600\"\nowner = \"daemon:adm\"\n"
	"[files.\"/etc/tool\"]\nsource = \"tool\"\n"
	"[files.\"/etc/tree\"]\nsource = \"tree\"\n"
	"[files.\"/etc/url\"]\nurl = \"https://example.org/f\"\n"
	"[files.\"/etc/pinned\"]\nurl = \"https://example.org/g\"\nsha256 = \"" HEX_A "\"\n"
	"[inputs.local]\nsource = \"tree\"\n"
	"[inputs.url]\nurl = \"https://example.org/i\"\n"
	"[inputs.pinned]\nurl = \"https://example.org/j\"\nsha256 = \"" HEX_B "\"\n"
	"[users.root]\nauthorized_keys = [\"ssh-ed25519 AAAA\"]\npassword = \"locked\"\n"
	"[fstab]\nremove_patterns = [\"LABEL=BOOT\"]\nkeep = false\n"
	"[cleanup]\nremove_dirs = [\"/usr/share/doc/*\"]\n"
	"[image]\nsize = \"4G\"\nlabel = \"one\"\nhostname = \"one\"\n"
	"[provision]\nmemory = \"2G\"\ncpus = 2\nstall_timeout = \"120s\"\n";

#define SCRIPT "[setup]\nscript = \"true\"\n"
#define SCRIPT_FILE "[setup]\nfile = \"setup.sh\"\n"

/* For each field of the schema at least one text to replace in a plan. */
static const struct mutation {
	const char *field, *head, *from, *to;
} mutations[] = {
	{ "name", "name = \"a\"\n" URLS, "name = \"a\"", "name = \"b\"" },
	{ "base.partition", URLS, "partition = 1", "partition = 2" },
	{ "base.partition", URLS, "partition = 1", "partition = \"LABEL=1\"" },
	{ "base.version", IGNORED, "version = \"1\"", "version = \"2\"" },
	{ "base.codename", IGNORED, "codename = \"x\"", "codename = \"y\"" },
	{ "base.ARCH.url", URLS, "example.org/b", "example.org/b2" },
	{ "base.ARCH.sha256", SHA256S, HEX_A, HEX_B },
	{ "base.ARCH.sha512", SHA512S, HEX_A HEX_A, HEX_B HEX_B },
	{ "base.ARCH.checksums", CHECKSUMS, "example.org/SUMS\"", "example.org/SUMS2\"" },
	{ "base.ARCH.checksums", URLS, "example.org/b\"", "example.org/b\"\nchecksums = \"https://example.org/SUMS\"" },
	{ "base.ARCH.checksums_key", CHECKSUMS, "\"key.asc\"", "\"key2.asc\"" },
	{ "base.ARCH.checksums_signature", CHECKSUMS, "example.org/SUMS.gpg", "example.org/SUMS.sign" },
	{ "kernel.ARCH.url", URLS, "example.org/k", "example.org/k2" },
	{ "kernel.ARCH.path", URLS, "opt/vmlinux", "opt/vmlinux2" },
	{ "kernel.ARCH.sha256", SHA256S, "sha256 = \"" HEX_B, "sha256 = \"" HEX_A },
	{ "kernel.ARCH.sha512", SHA512S, HEX_B HEX_A, HEX_B HEX_B },
	{ "kernel.ARCH.package", PACKAGE, "linux-image-a", "linux-image-b" },
	{ "kernel.ARCH.file", LOCALS, "file = \"k\"", "file = \"k2\"" },
	{ "kernel.ARCH.local_path", LOCAL_PATH, "local_path = \"k\"", "local_path = \"k2\"" },
	{ "kernel.ARCH.modules", LOCALS, "\"modules\"", "\"modules2\"" },
	{ "kernel.ARCH.modules", LOCALS, "modules = \"modules\"", "" },
	{ "kernel.ARCH.from", FROM_BASE, "from = \"base\"", "url = \"https://example.org/k\"\npath = \"opt/vmlinux\"" },
	{ "kernel.ARCH.cmdline", URLS, "quiet", "verbose" },
	{ "packages.*", URLS, "\"crun\"", "\"runc\"" },
	{ "packages.ARCH.*", URLS, "grub-pc", "grub-efi" },
	{ "apt.remove", URLS, "remove = [\"snapd\"]", "remove = []" },
	{ "apt.recommends", URLS, "recommends = false", "recommends = true" },
	{ "apt.snapshot", URLS, "20261101T000000Z", "20261101T000001Z" },
	{ "apt.debs", URLS, "\"y.deb\"", "" },
	{ "apt.repository[].uri", URLS, "example.org/d", "example.org/d2" },
	{ "apt.repository[].suite", URLS, "\"stable\"", "\"testing\"" },
	{ "apt.repository[].components", URLS, "[\"main\"]", "[\"main\", \"contrib\"]" },
	{ "apt.repository[].key", URLS, "\"key.asc\"", "\"key2.asc\"" },
	{ "apt.trusted", URLS, "example.org/t", "example.org/t2" },
	{ "apt.trusted", URLS, "trusted = [\"https://example.org/t\"]", "" },
	{ "apt.check_valid_until", URLS, "check_valid_until = true", "check_valid_until = false" },
	{ "services.enable", URLS, "\"chrony\"", "\"ntpsec\"" },
	{ "services.disable", URLS, "disable = [\"snapd\"]", "disable = []" },
	{ "services.mask", URLS, "apt-daily.timer", "apt-daily.service" },
	{ "files.*.content", URLS, "content = \"text\"", "content = \"texT\"" },
	{ "files.*.source", URLS, "source = \"tool\"", "source = \"tool2\"" },
	{ "files.*.source", URLS, "[files.\"/etc/tree\"]\nsource = \"tree\"", "[files.\"/etc/tree\"]\nsource = \"tree2\"" },
	{ "files.*.source", URLS, "/etc/tool", "/etc/tool-elsewhere" },
	{ "files.*.url", URLS, "example.org/f", "example.org/f2" },
	{ "files.*.sha256", URLS, HEX_A, HEX_B },
	{ "files.*.mode", URLS, "0600", "0601" },
	{ "files.*.mode", URLS, "source = \"tree\"", "source = \"tree\"\nmode = \"0600\"" },
	{ "files.*.owner", URLS, "daemon:adm", "daemon:daemon" },
	{ "files.*.owner", URLS, "daemon:adm", "root:adm" },
	{ "inputs.*.source", URLS, "[inputs.local]\nsource = \"tree\"", "[inputs.local]\nsource = \"tree2\"" },
	{ "inputs.*.source", URLS, "[inputs.local]", "[inputs.renamed]" },
	{ "inputs.*.url", URLS, "example.org/i", "example.org/i2" },
	{ "inputs.*.sha256", URLS, HEX_B, HEX_A },
	{ "users.*.authorized_keys", URLS, "AAAA", "AAAB" },
	{ "users.*.password", URLS, "\"locked\"", "\"empty\"" },
	{ "users.*.password", URLS, "\"locked\"", "\"$6$a$b\"" },
	{ "fstab.remove_patterns", URLS, "LABEL=BOOT", "LABEL=UEFI" },
	{ "fstab.keep", URLS, "keep = false", "keep = true" },
	{ "setup.script", URLS SCRIPT, "\"true\"", "\"false\"" },
	{ "setup.file", URLS SCRIPT_FILE, "setup.sh", "setup2.sh" },
	{ "cleanup.remove_dirs", URLS, "share/doc", "share/man" },
	{ "image.size", URLS, "4G", "5G" },
	{ "image.label", URLS, "label = \"one\"", "label = \"two\"" },
	{ "image.hostname", URLS, "hostname = \"one\"", "hostname = \"two\"" },
	{ "provision.memory", URLS, "memory = \"2G\"", "memory = \"3G\"" },
	{ "provision.cpus", URLS, "cpus = 2", "cpus = 3" },
	{ "provision.stall_timeout", URLS, "\"120s\"", "\"121s\"" },
	{ "paths", IGNORED, "a = 1", "a = 2" },
	{ "kernel_profiles", IGNORED, "b = 1", "b = 2" },
};

static inline void replace_once(struct buf *out, const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);

	if (!at)
		fail_msg("the plan has no `%s`", from);
	buf_reset(out);
	assert_int_equal(buf_append(out, text, (size_t)(at - text)), 0);
	assert_int_equal(buf_append_str(out, to), 0);
	assert_int_equal(buf_append_str(out, at + strlen(from)), 0);
}

#endif
