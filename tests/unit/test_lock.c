/* Locks: what is written is read back, nothing secret or local gets in, hostile files are refused with their place. */
#include "plan_fixture.h"
#include "plan/toml.h"

#include <sys/wait.h>

#define HEX "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const char plan_text[] =
	"[base.amd64]\nurl = \"https://me:secret@example.org/b\"\n[base.arm64]\nurl = \"https://example.org/b-arm\"\n"
	"[kernel.amd64]\npackage = \"linux-image-a\"\n[kernel.arm64]\nurl = \"https://example.org/k\"\npath = \"opt/k\"\n"
	"[packages]\na = [\"podman\"]\n[apt]\ndebs = [\"x_1_amd64.deb\", \"x_1_arm64.deb\"]\n"
	"[[apt.repository]]\nuri = \"https://example.org/r\"\nsuite = \"./\"\nkey = \"key.asc\"\n"
	"[files.\"/b\"]\nurl = \"https://example.org/f\"\n[files.\"/a\"]\nurl = \"https://example.org/f\"\n"
	"[inputs.i]\nurl = \"https://example.org/i\"\n";

static unsigned missing_of(const struct answered *a, const struct lock *l, enum arch arch)
{
	struct err e = ERR_INIT;
	unsigned sections;

	if (lock_missing(a->plan, l, arch, &a->locals, &sections, &e) < 0)
		fail_msg("%s", e.message);
	return sections;
}

static void format(const struct lock *l, struct buf *into)
{
	struct err e = ERR_INIT;

	buf_reset(into);
	if (lock_format(l, into, &e) < 0)
		fail_msg("%s", e.message);
}

static void paths_of_locks(void **state)
{
	static const struct {
		const char *plan, *lock;
	} cases[] = {
		{ "rootfs-plan.toml", "rootfs-plan.lock" },
		{ "a/b.toml", "a/b.lock" },
		{ "plan", "plan.lock" },
		{ "a.toml.bak", "a.toml.bak.lock" },
		{ "a/.toml", "a/.toml.lock" },
		{ ".toml", ".toml.lock" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *path = lock_path_for(cases[i].plan);

		assert_string_equal(path, cases[i].lock);
	}
}

static void a_missing_lock_is_empty(void **state)
{
	_cleanup_lock_ struct lock l = { 0 };
	_cleanup_answered_ struct answered a = { 0 };
	struct err e = ERR_INIT;

	assert_int_equal(lock_load(((struct fixture *)*state)->fd, "none.lock", &l, &e), 0);
	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	assert_int_equal(missing_of(&a, &l, ARCH_AMD64),
		LOCK_SECTION_BASE | LOCK_SECTION_KERNEL | LOCK_SECTION_PACKAGES | LOCK_SECTION_SOURCES);
}

static void what_is_written_is_read_back(void **state)
{
	_cleanup_buf_ struct buf first = BUF_INIT(1 << 20), second = BUF_INIT(1 << 20);
	_cleanup_answered_ struct answered a = { 0 };
	_cleanup_lock_ struct lock l = { 0 };
	const struct lock_arch *read = &l.arch[ARCH_AMD64];
	struct err e = ERR_INIT;

	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	format(&a.lock, &first);
	if (lock_load_bytes("p.lock", buf_str(&first), first.len, &l, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(missing_of(&a, &l, ARCH_AMD64), 0);
	format(&l, &second);
	assert_string_equal(buf_str(&first), buf_str(&second));

	assert_string_equal(read->base.url, "https://example.org/b?...");
	assert_int_equal(read->base.trust, LOCK_TRUST_FIRST_USE);
	assert_int_equal(read->kernel.kind, PLAN_KERNEL_PACKAGE);
	assert_int_equal(read->kernel.n_packages, 1);
	assert_int_equal(read->packages.n, 2);
	assert_string_equal(read->packages.items[0].name, "adduser");
	assert_string_equal(read->packages.items[1].version, "1:1.2-3+b1");
	assert_string_equal(read->packages.items[1].uri, "https://example.org/debian");
	assert_int_equal(read->packages.items[1].release.algorithm, DIGEST_SHA256);
	assert_int_equal(read->packages.items[1].release_date, 1795162605);
	assert_int_equal(read->packages.items[0].release_date, 0);
	assert_non_null(strstr(buf_str(&first), "date = \"20261120T081645Z\" },\n"));
	assert_int_equal(read->packages.asked.n, 1);
	/* The plan's own key is local. */
	assert_int_equal(read->packages.n_keyrings, 2);
	assert_string_equal(read->packages.keyrings[1].path, "/usr/share/keyrings/b.gpg");
	assert_int_equal(read->n_sources, 3);
	assert_string_equal(read->sources[0].slot, "files:/a");
	assert_non_null(lock_source_find(&l, a.plan, ARCH_AMD64, "inputs:i"));
	assert_null(lock_source_find(&l, a.plan, ARCH_AMD64, "inputs:j"));
	assert_null(strstr(buf_str(&first), "secret"));
	assert_null(strstr(buf_str(&first), "token=t"));
	assert_null(strstr(buf_str(&first), ".deb\", uri = \"https://u"));
}

/* One package a line, so that differences of locks can be read. */
static void packages_stand_one_a_line(void **state)
{
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);
	_cleanup_answered_ struct answered a = { 0 };
	const char *line;

	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	format(&a.lock, &text);
	line = strstr(buf_str(&text), "\n\t{ name = \"adduser\", version = \"3.1~x\", arch = \"all\", size = 0, sha256 = \"");
	assert_non_null(line);
	assert_non_null(strstr(line, "\" },\n\t{ name = \"zlib1g\""));
	assert_non_null(strstr(buf_str(&text), "\nasked = [\n\t\"podman\",\n]\nremove = [\n\t\"systemd-timesyncd\",\n]\nkeyrings = [\n"
					       "\t{ path = \"/etc/apt/trusted.gpg.d/a.gpg\", sha256 = \""));
}

static void what_is_local_stays_out(void **state)
{
	static const char text[] = "[base.amd64]\nurl = \"a.img\"\n[kernel.amd64]\nurl = \"kata.tar\"\npath = \"opt/k\"\n"
				   "[apt]\ndebs = [\"y.deb\"]\n";
	_cleanup_buf_ struct buf written = BUF_INIT(1 << 20);
	_cleanup_answered_ struct answered a = { 0 };

	fixture_load(*state, text, ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	format(&a.lock, &written);
	assert_int_equal(a.lock.arch[ARCH_AMD64].base.question.algorithm, DIGEST_NONE);
	assert_int_equal(a.lock.arch[ARCH_AMD64].kernel.archive.sha256.algorithm, DIGEST_NONE);
	assert_null(strstr(buf_str(&written), "y.deb"));
	for (size_t i = 0; i < a.locals.n; i++) {
		char hex[DIGEST_HEX_SIZE];

		assert_null(strstr(buf_str(&written), digest_hex(&a.locals.items[i].digest, hex)));
	}
}

static void writing_keeps_other_architectures(void **state)
{
	const struct fixture *f = *state;
	_cleanup_answered_ struct answered amd64 = { 0 }, arm64 = { 0 };
	_cleanup_lock_ struct lock l = { 0 };
	struct err e = ERR_INIT;
	struct stat before, after;

	fixture_load(f, plan_text, ARCH_AMD64, &amd64);
	fixture_load(f, plan_text, ARCH_ARM64, &arm64);
	fixture_answer(&amd64, ARCH_AMD64, "one");
	fixture_answer(&arm64, ARCH_ARM64, "two");
	assert_int_equal(lock_write(f->fd, "p.lock", &amd64.lock, ARCH_AMD64, &e), 0);
	assert_int_equal(lock_write(f->fd, "p.lock", &arm64.lock, ARCH_ARM64, &e), 0);
	assert_int_equal(lock_load(f->fd, "p.lock", &l, &e), 0);
	assert_int_equal(missing_of(&amd64, &l, ARCH_AMD64), 0);
	assert_int_equal(missing_of(&arm64, &l, ARCH_ARM64), 0);
	assert_int_equal(l.arch[ARCH_ARM64].kernel.kind, PLAN_KERNEL_ARCHIVE);

	/* What would not change is not touched. */
	assert_int_equal(fstatat(f->fd, "p.lock", &before, 0), 0);
	assert_int_equal(lock_write(f->fd, "p.lock", &l, ARCH_AMD64, &e), 0);
	assert_int_equal(fstatat(f->fd, "p.lock", &after, 0), 0);
	assert_true(before.st_ino == after.st_ino);
	assert_int_equal(unlinkat(f->fd, "p.lock", 0), 0);
}

/* Lock one architecture many times; each time it must be what was written. Returns the exit status. */
static int write_often(const struct fixture *f, enum arch arch)
{
	static const char *const flavours[] = { "one", "two" };
	_cleanup_answered_ struct answered a = { 0 };
	struct err e = ERR_INIT;

	fixture_load(f, plan_text, arch, &a);
	for (unsigned i = 0; i < 60; i++) {
		_cleanup_lock_ struct lock l = { 0 };

		fixture_answer(&a, arch, flavours[i % 2]);
		if (lock_write(f->fd, "both.lock", &a.lock, arch, &e) < 0 || lock_load(f->fd, "both.lock", &l, &e) < 0)
			return 1;
		if (!digest_equal(&l.arch[arch].base.sha256, &a.lock.arch[arch].base.sha256))
			return 2;
	}
	return 0;
}

static void two_architectures_are_locked_at_a_time(void **state)
{
	const struct fixture *f = *state;
	pid_t children[ARCH_COUNT];

	for (unsigned i = 0; i < ARCH_COUNT; i++) {
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0)
			_exit(write_often(f, (enum arch)i));
	}
	for (unsigned i = 0; i < ARCH_COUNT; i++) {
		int status;

		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(unlinkat(f->fd, "both.lock", 0), 0);
}

static void a_lock_that_cannot_be_read_is_not_overwritten(void **state)
{
	const struct fixture *f = *state;
	_cleanup_answered_ struct answered a = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);
	struct err e = ERR_INIT;

	fixture_load(f, plan_text, ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	assert_int_equal(write_file_atomic_at(f->fd, "bad.lock", "version = 1\n", 12, 0644, &e), 0);
	assert_int_equal(lock_write(f->fd, "bad.lock", &a.lock, ARCH_AMD64, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "bad.lock:1:11: found version 1"));
	err_clear(&e);
	assert_int_equal(read_file_at(f->fd, "bad.lock", false, &text, &e), 0);
	assert_string_equal(buf_str(&text), "version = 1\n");
}

static void an_older_answer_is_missing_again(void **state)
{
	static const struct {
		const char *from, *to;
		unsigned sections;
	} cases[] = {
		{ "example.org/b\"", "example.org/c\"", LOCK_SECTION_BASE | LOCK_SECTION_KERNEL | LOCK_SECTION_PACKAGES },
		{ "linux-image-a", "linux-image-b", LOCK_SECTION_KERNEL },
		{ "podman", "crun", LOCK_SECTION_PACKAGES },
		{ "\"podman\"", "\"podman\", \"crun\"", LOCK_SECTION_PACKAGES },
		{ "\"podman\"", "", LOCK_SECTION_PACKAGES },
		{ "x_1_amd64.deb", "y.deb", LOCK_SECTION_PACKAGES },
		{ "example.org/i", "example.org/j", LOCK_SECTION_SOURCES },
		{ "me:secret@", "", 0 },
		{ "x_1_arm64.deb", "", 0 },
		{ "example.org/b-arm", "example.org/c-arm", 0 },
	};
	_cleanup_answered_ struct answered a = { 0 };

	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf text = BUF_INIT(1 << 16);
		_cleanup_answered_ struct answered b = { 0 };
		const char *at = strstr(plan_text, cases[i].from);

		assert_non_null(at);
		assert_int_equal(buf_append(&text, plan_text, (size_t)(at - plan_text)), 0);
		assert_int_equal(buf_append_str(&text, cases[i].to), 0);
		assert_int_equal(buf_append_str(&text, at + strlen(cases[i].from)), 0);
		if (strcmp(cases[i].from, "x_1_arm64.deb") == 0) {
			buf_reset(&text);
			assert_int_equal(buf_append(&text, plan_text, (size_t)(at - 3 - plan_text)), 0);
			assert_int_equal(buf_append_str(&text, at + strlen(cases[i].from) + 1), 0);
		}
		fixture_load(*state, buf_str(&text), ARCH_AMD64, &b);
		if (missing_of(&b, &a.lock, ARCH_AMD64) != cases[i].sections)
			fail_msg("`%s`: %#x is missing", cases[i].to, missing_of(&b, &a.lock, ARCH_AMD64));
	}
}

static void what_the_plan_pins_needs_no_lock(void **state)
{
	static const char text[] = "[base.amd64]\nurl = \"https://example.org/b\"\nsha256 = \"" HEX "\"\n"
				   "[kernel.amd64]\nurl = \"https://example.org/vmlinux\"\nsha256 = \"" HEX "\"\n"
				   "[files.\"/a\"]\nurl = \"https://example.org/f\"\nsha256 = \"" HEX "\"\n";
	_cleanup_answered_ struct answered a = { 0 };
	const struct lock empty = { 0 };

	fixture_load(*state, text, ARCH_AMD64, &a);
	assert_int_equal(missing_of(&a, &empty, ARCH_AMD64), 0);
	assert_false(lock_needs_packages(a.plan, ARCH_AMD64));
}

/* Where the plan has a SHA-512 alone, an answer that was made for it and then edited is none. */
static void an_answer_of_another_sha512_is_missing(void **state)
{
	static const char text[] = "[base.amd64]\nurl = \"https://example.org/b\"\nsha512 = \"" HEX HEX "\"\n"
				   "[kernel.amd64]\nurl = \"https://example.org/vmlinux\"\nsha512 = \"" HEX HEX "\"\n";
	_cleanup_answered_ struct answered a = { 0 };
	struct lock_blob blob = { .size_bytes = 5, .sha256 = digest_of_text("b", 1), .trust = LOCK_TRUST_PLAN };
	struct lock_kernel kernel = { .kind = PLAN_KERNEL_FILE, .sha256 = blob.sha256 };
	struct lock_arch *locked = &a.lock.arch[ARCH_AMD64];
	struct digest *const digests[] = { &locked->base.sha512, &locked->kernel.archive.sha512 };
	const unsigned sections[] = { LOCK_SECTION_BASE, LOCK_SECTION_KERNEL };
	struct err e = ERR_INIT;

	assert_int_equal(digest_parse_hex(DIGEST_SHA512, HEX HEX, &blob.sha512), 0);
	kernel.archive = blob;
	fixture_load(*state, text, ARCH_AMD64, &a);
	assert_int_equal(lock_set_base(&a.lock, a.plan, ARCH_AMD64, &a.locals, &blob, &e), 0);
	assert_int_equal(lock_set_kernel(&a.lock, a.plan, ARCH_AMD64, &a.locals, &kernel, &e), 0);
	assert_int_equal(missing_of(&a, &a.lock, ARCH_AMD64), 0);
	for (size_t i = 0; i < ARRAY_SIZE(digests); i++) {
		digests[i]->bytes[0] ^= 1;
		assert_int_equal(missing_of(&a, &a.lock, ARCH_AMD64), sections[i]);
		*digests[i] = (struct digest){ 0 };
		assert_int_equal(missing_of(&a, &a.lock, ARCH_AMD64), sections[i]);
		*digests[i] = blob.sha512;
	}
}

static void sources_that_left_the_plan_leave_the_lock(void **state)
{
	static const char fewer[] = "[base.amd64]\nurl = \"https://example.org/b\"\n[inputs.i]\nurl = \"https://example.org/i2\"\n";
	_cleanup_answered_ struct answered a = { 0 }, b = { 0 };
	const struct lock_blob *blob;
	struct err e = ERR_INIT;

	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	fixture_load(*state, fewer, ARCH_AMD64, &b);
	blob = lock_source_find(&a.lock, a.plan, ARCH_AMD64, "inputs:i");
	assert_null(lock_source_find(&a.lock, b.plan, ARCH_AMD64, "inputs:i"));
	{
		struct lock_blob copy = { .size_bytes = 1, .sha256 = blob->sha256 };

		assert_int_equal(lock_set_source(&a.lock, b.plan, ARCH_AMD64, "inputs:i", &copy, &e), 0);
	}
	assert_int_equal(a.lock.arch[ARCH_AMD64].n_sources, 1);
	assert_non_null(lock_source_find(&a.lock, b.plan, ARCH_AMD64, "inputs:i"));
}

/* What a publisher's checksum file said, and where redirects led, is written and read back; nothing of it that may be secret. */
static void what_vouched_for_a_base_is_kept(void **state)
{
	static const char signer[] = "0123456789ABCDEF0123456789ABCDEF01234567";
	static const struct {
		const char *resolved, *kept;
	} cases[] = {
		{ "https://mirror.example.org/b", "https://mirror.example.org/b" },
		{ "https://u:p@mirror.example.org/b", NULL },
		{ "https://mirror.example.org/b?Signature=secret", NULL },
		{ "file:/b", NULL },
		{ NULL, NULL },
	};
	_cleanup_answered_ struct answered a = { 0 };
	struct lock_blob blob = { .size_bytes = 5, .sha256 = digest_of_text("b", 1), .trust = LOCK_TRUST_SIGNATURE };
	struct err e = ERR_INIT;

	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);
		_cleanup_lock_ struct lock l = { 0 };
		const struct lock_blob *read = &l.arch[ARCH_AMD64].base;

		blob.resolved_url = (char *)(uintptr_t)cases[i].resolved;
		blob.checksums = (struct lock_checksums){ .url = (char *)(uintptr_t) "https://u:p@example.org/SHA512SUMS",
			.sha256 = digest_of_text("s", 1),
			.signer = (char *)(uintptr_t)signer };
		assert_int_equal(lock_set_base(&a.lock, a.plan, ARCH_AMD64, &a.locals, &blob, &e), 0);
		format(&a.lock, &text);
		assert_int_equal(lock_load_bytes("p.lock", buf_str(&text), text.len, &l, &e), 0);
		assert_int_equal(read->trust, LOCK_TRUST_SIGNATURE);
		assert_string_equal(read->checksums.url, "https://example.org/SHA512SUMS");
		assert_string_equal(read->checksums.signer, signer);
		assert_true(digest_equal(&read->checksums.sha256, &blob.checksums.sha256));
		assert_true((cases[i].kept == NULL) == (read->resolved_url == NULL));
		if (cases[i].kept)
			assert_string_equal(read->resolved_url, cases[i].kept);
	}
	blob.checksums.signer = (char *)(uintptr_t) "nobody";
	assert_int_equal(lock_set_base(&a.lock, a.plan, ARCH_AMD64, &a.locals, &blob, &e), -EINVAL);
}

/* What a plan no longer needs goes, and nothing else. */
static void what_answers_nothing_is_pruned(void **state)
{
	static const struct {
		const char *plan;
		bool base, kernel, packages;
		size_t n_sources;
	} cases[] = {
		{ plan_text, true, true, true, 3 },
		/* Everything local or pinned. */
		{ "[base.amd64]\nurl = \"a.img\"\n[kernel.amd64]\nfile = \"k\"\n", false, false, false, 0 },
		{ "[base.amd64]\nurl = \"https://example.org/b\"\nsha256 = \"" HEX "\"\n[kernel.amd64]\nurl = \"https://example.org/k\"\n"
		  "sha256 = \"" HEX "\"\n[inputs.i]\nurl = \"https://example.org/i\"\nsha256 = \"" HEX "\"\n",
			false, false, false, 0 },
		/* Answers to other questions. */
		{ "[base.amd64]\nurl = \"https://example.org/b\"\n[kernel.amd64]\npackage = \"linux-image-b\"\n"
		  "[packages]\na = [\"crun\"]\n[files.\"/b\"]\nurl = \"https://example.org/f\"\n",
			true, false, false, 1 },
		{ "[base.amd64]\nurl = \"https://example.org/other\"\n", false, false, false, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answered_ struct answered a = { 0 }, b = { 0 }, other = { 0 };
		const struct lock_arch *l = &a.lock.arch[ARCH_AMD64];
		bool arm64 = i == 0;
		struct err e = ERR_INIT;

		fixture_load(*state, plan_text, ARCH_AMD64, &a);
		fixture_answer(&a, ARCH_AMD64, "one");
		fixture_load(*state, plan_text, ARCH_ARM64, &other);
		fixture_answer(&other, ARCH_ARM64, "one");
		a.lock.arch[ARCH_ARM64] = other.lock.arch[ARCH_ARM64];
		other.lock.arch[ARCH_ARM64] = (struct lock_arch){ 0 };
		fixture_load(*state, cases[i].plan, ARCH_AMD64, &b);
		assert_int_equal(lock_prune(&a.lock, b.plan, ARCH_AMD64, &b.locals, &e), i > 0);
		assert_int_equal(l->base.question.algorithm != DIGEST_NONE, cases[i].base);
		assert_int_equal(l->kernel.question.algorithm != DIGEST_NONE, cases[i].kernel);
		assert_int_equal(l->packages.question.algorithm != DIGEST_NONE, cases[i].packages);
		assert_int_equal(l->n_sources, cases[i].n_sources);
		assert_int_equal(a.lock.arch[ARCH_ARM64].base.question.algorithm != DIGEST_NONE, arm64);
		/* Once is enough. */
		assert_int_equal(lock_prune(&a.lock, b.plan, ARCH_AMD64, &b.locals, &e), 0);
	}
}

static void answers_that_cannot_be_locked_are_refused(void **state)
{
	_cleanup_answered_ struct answered a = { 0 };
	struct lock_package item = { .name = (char *)(uintptr_t) "../x", .version = (char *)(uintptr_t) "1",
		.arch = (char *)(uintptr_t) "all", .sha256 = digest_of_text("", 0) };
	const struct lock_packages bad = { .items = &item, .n = 1 };
	const struct lock_blob empty = { 0 };
	struct err e = ERR_INIT;

	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	assert_int_equal(lock_set_packages(&a.lock, a.plan, ARCH_AMD64, &a.locals, &bad, &e), -ENOKEY);
	assert_int_equal(lock_set_base(&a.lock, a.plan, ARCH_AMD64, &a.locals, &empty, &e), -EINVAL);
	fixture_answer(&a, ARCH_AMD64, "one");
	assert_int_equal(lock_set_packages(&a.lock, a.plan, ARCH_AMD64, &a.locals, &bad, &e), -EINVAL);
	assert_int_equal(a.lock.arch[ARCH_AMD64].packages.n, 2);
}

#define BLOB "size = 1\nsha256 = \"" HEX "\"\ntrust = \"plan\"\n"
#define BASE "[amd64.base]\nquestion = \"" HEX "\"\n"
#define PACKAGES "[amd64.packages]\nquestion = \"" HEX "\"\nasked = []\nremove = []\nkeyrings = []\nlist = [\n"
#define PACKAGE "name = \"ab\", version = \"1\", arch = \"all\", size = 1, sha256 = \"" HEX "\""

#define ANOTHER "name = \"ac\", version = \"1\", arch = \"all\", size = 1, sha256 = \"" HEX "\""
#define NEWER "name = \"ab\", version = \"2\", arch = \"all\", size = 1, sha256 = \"" HEX "\""
#define NATIVE "name = \"ab\", version = \"2\", arch = \"amd64\", size = 1, sha256 = \"" HEX "\""
#define FOREIGN "name = \"ab\", version = \"2\", arch = \"i386\", size = 1, sha256 = \"" HEX "\""
#define SECTION "[amd64.packages]\nquestion = \"" HEX "\"\nasked = [\n\t\"ab\",\n"

static const struct {
	const char *text;
	int want;
	const char *said;
} files[] = {
	{ "version = 2\n", 0, NULL },
	{ "version = 2\n" BASE BLOB, 0, NULL },
	{ "version = 2\n" PACKAGES "{ " PACKAGE " }, { " ANOTHER " }]\n", 0, NULL },
	{ "version = 2\n" PACKAGES "{ " ANOTHER " }, { " PACKAGE " }]\n", 0, NULL },
	{ "version = 2\n" PACKAGES "]\n", 0, NULL },
	{ "", -EBADMSG, "p.lock:1:1: found no version" },
	{ "version = \"1\"\n", -EBADMSG, "found no version" },
	{ "version = 1\n", -EBADMSG, "p.lock:1:11: found version 1, expected 2: an older imgbuild" },
	{ "version = 2\nx = 1\n", -EBADMSG, "p.lock:2:1: found the unknown key `x`" },
	{ "version = 2\n\"amd64\\u0000\" = { }\n", -EBADMSG, "unknown key" },
	{ "version = 2\nx86_64 = { }\n", -EBADMSG, "unknown key" },
	{ "version = 2\namd64 = 1\n", -EBADMSG, "expected a table" },
	{ "version = 2\n[amd64.bases]\n", -EBADMSG, "unknown section `bases`" },
	{ "version = 2\n[amd64]\nbase = 1\n", -EBADMSG, "expected a table" },
	{ "version = 2\n" BASE "size = 1\n", -EBADMSG, "found no sha256" },
	{ "version = 2\n[amd64.base]\n" BLOB, -EBADMSG, "p.lock:2:8: found no question" },
	{ "version = 2\n" BASE BLOB "url = \"https://u:p@example.org/\"\n", -EBADMSG, "without user info" },
	{ "version = 2\n" BASE BLOB "url = \"file:///etc/passwd\"\n", -EBADMSG, "http://" },
	{ "version = 2\n" BASE BLOB "extra = 1\n", -EBADMSG, "unknown key `extra`" },
	{ "version = 2\n" BASE "size = -1\nsha256 = \"" HEX "\"\ntrust = \"plan\"\n", -EBADMSG, "a size in bytes" },
	{ "version = 2\n" BASE "size = 1\nsha256 = \"" HEX "a\"\ntrust = \"plan\"\n", -EBADMSG, "64 hexadecimal digits" },
	{ "version = 2\n" BASE "size = 1\nsha256 = \"" HEX "\"\ntrust = \"me\"\n", -EBADMSG, "first-use" },
	{ "version = 2\n" PACKAGES "{ name = \"a/b\", " PACKAGE " }]\n", -EBADMSG, "again" },
	{ "version = 2\n" PACKAGES "{ name = \"../b\", version = \"1\", arch = \"all\", size = 1, sha256 = \"" HEX "\" }]\n", -EBADMSG,
		"a package's name" },
	{ "version = 2\n" PACKAGES "{ name = \"ab\", version = \"1/2\", arch = \"all\", size = 1, sha256 = \"" HEX "\" }]\n",
		-EBADMSG, "a package's version" },
	{ "version = 2\n" PACKAGES "{ name = \"ab\", version = \"1\", arch = \"all\", size = 1 }]\n", -EBADMSG, "found no sha256" },
	{ "version = 2\n" PACKAGES "{ " PACKAGE ", file = \"../../x\" }]\n", -EBADMSG, "without . and .." },
	{ "version = 2\n" PACKAGES "{ " PACKAGE ", uri = \"https://u@h/\" }]\n", -EBADMSG, "without user info" },
	{ "version = 2\n" PACKAGES "1]\n", -EBADMSG, "expected a table" },
	{ "version = 2\n[amd64.packages]\nquestion = \"" HEX "\"\nasked = []\nremove = [\"A B\"]\nkeyrings = []\nlist = []\n", -EBADMSG, "a package's name" },
	{ "version = 2\n[amd64.packages]\nquestion = \"" HEX "\"\nasked = []\nremove = 1\nkeyrings = []\nlist = []\n", -EBADMSG, "expected an array" },
	{ "version = 2\n[amd64.kernel]\nquestion = \"" HEX "\"\nkind = \"package\"\nsha256 = \"" HEX "\"\n", -EBADMSG, "found no list" },
	{ "version = 2\n[amd64.kernel]\nquestion = \"" HEX "\"\nkind = \"package\"\nsha256 = \"" HEX "\"\nlist = []\n", -EBADMSG,
		"at least one" },
	{ "version = 2\n[amd64.kernel]\nquestion = \"" HEX "\"\nkind = \"base\"\nsha256 = \"" HEX "\"\nlist = []\n", -EBADMSG,
		"found a list" },
	{ "version = 2\n[amd64.kernel]\nquestion = \"" HEX "\"\nkind = \"disk\"\nsha256 = \"" HEX "\"\n", -EBADMSG, "\"archive\"" },
	{ "version = 2\n[[amd64.sources]]\nslot = \"setup\"\nquestion = \"" HEX "\"\n" BLOB, -EBADMSG, "files:/" },
	{ "version = 2\n[[amd64.sources]]\nslot = \"inputs:b\"\nquestion = \"" HEX "\"\n" BLOB
	  "[[amd64.sources]]\nslot = \"inputs:a\"\nquestion = \"" HEX "\"\n" BLOB,
		-EBADMSG, "out of order" },
	{ "version = 2\n[amd64.sources]\n", -EBADMSG, "expected an array" },
	{ "version = \n", -EBADMSG, "p.lock:1:11: found the end of the line" },
	{ "version = \n", -EBADMSG, "; remove the file, and `imgbuild lock PLAN` writes it anew" },
	{ "version = 1\n", -EBADMSG, "; remove the file, and `imgbuild lock PLAN` writes it anew" },
	{ "version = 2\n" SECTION "<<<<<<< HEAD\n\t\"ac\",\n=======\n\t\"ad\",\n>>>>>>> b\n]\n", -EBADMSG,
		"p.lock:6:1: found a conflict that git marked: what is left of a merge; take either side "
		"(`git checkout --ours p.lock`, or `--theirs`), then run `imgbuild lock PLAN`" },
	{ "version = 2\n" SECTION "||||||| base\n]\n", -EBADMSG, "p.lock:6:1: found a conflict" },
	{ "version = 2\n" SECTION "=======\n]\n", -EBADMSG, "p.lock:6:1: found a conflict" },
	{ "version = 2\n" SECTION "]\n>>>>>>>", -EBADMSG, "p.lock:7:1: found a conflict" },
	{ "version = 2\n" SECTION "]\n>>>>>>", -EBADMSG, "p.lock:7:1: found" },
	{ "version = 2\n" PACKAGES "{ " PACKAGE " },\n{ " ANOTHER " },\n{ " NEWER " }]\n", -EBADMSG,
		"p.lock:10:1: found the package ab for all again, version 2 here and 1 in line 8: what is left of a merge; take" },
	{ "version = 2\n" PACKAGES "{ " PACKAGE " },\n{ " PACKAGE " }]\n", -EBADMSG, "p.lock:9:1: found the package ab for all again" },
	{ "version = 2\n" PACKAGES "{ " NATIVE " },\n{ " PACKAGE " }]\n", -EBADMSG, "found the package ab for amd64 again" },
	{ "version = 2\n" PACKAGES "{ " NATIVE " },\n{ " FOREIGN " }]\n", 0, NULL },
	{ "version = 2\n[amd64.kernel]\nquestion = \"" HEX "\"\nkind = \"package\"\nsha256 = \"" HEX "\"\nlist = [\n{ " ANOTHER
	  " },\n{ " PACKAGE " },\n{ " NEWER " }]\n", -EBADMSG, "p.lock:9:1: found the package ab for all again" },
	{ "version = 2\n" SECTION "]\nremove = [\n\t\"aa\",\n\t\"ab\",\n]\nkeyrings = []\nlist = [\n{ " PACKAGE " }]\n", -EBADMSG,
		"p.lock:7:10: found the package ab both to be removed and in the list: what is left of a merge" },
	{ "version = 2\n" SECTION "1]\nremove = []\nkeyrings = []\nlist = []\n", -EBADMSG, "asked: found something else" },
	{ "version = 2\n" SECTION "]\nremove = []\nkeyrings = [1]\nlist = []\n", -EBADMSG, "expected a table" },
	{ "version = 2\n" SECTION "]\nremove = []\nlist = []\n", -EBADMSG, "found no keyrings" },
	{ "version = 2\n" PACKAGES "{ " PACKAGE ", date = \"2026\" }]\n", -EBADMSG, "a time such as" },
	{ "version = 2\n" PACKAGES "{ " PACKAGE ", date = \"19700101T000000Z\" }]\n", -EBADMSG, "a time such as" },
	{ "version = 2\n" BASE BLOB "resolved = \"https://u@example.org/\"\n", -EBADMSG, "without user info" },
	{ "version = 2\n" BASE BLOB "checksums = 1\n", -EBADMSG, "expected a table" },
	{ "version = 2\n" BASE BLOB "checksums = { url = \"https://example.org/S\" }\n", -EBADMSG, "found no sha256" },
	{ "version = 2\n" BASE BLOB "checksums = { url = \"https://example.org/S\", sha256 = \"" HEX "\", signer = \"me\" }\n", -EBADMSG,
		"a key's fingerprint" },
	{ "version = 2\n" BASE "size = 1\nsha256 = \"" HEX "\"\ntrust = \"publisher\"\n", -EBADMSG, "\"signature\", \"checksums\"" },
};

static void hostile_locks_are_refused_with_their_place(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_lock_ struct lock l = { 0 };
		struct err e = ERR_INIT;
		int r = lock_load_bytes("p.lock", files[i].text, strlen(files[i].text), &l, &e);

		if (r != files[i].want || (r < 0 && (!strstr(e.message, files[i].said) || e.kind != ERR_KIND_USAGE)))
			fail_msg("case %zu: %d: %s", i, r, e.message);
	}
}

static void the_number_of_packages_is_limited(void **state)
{
	(void)state;
	for (unsigned more = 0; more < 2; more++) {
		_cleanup_buf_ struct buf text = BUF_INIT(TOML_MAX_BYTES);
		_cleanup_lock_ struct lock l = { 0 };
		struct err e = ERR_INIT;

		assert_int_equal(buf_append_str(&text, "version = 2\n" PACKAGES), 0);
		for (unsigned i = 0; i < LOCK_MAX_PACKAGES + more; i++)
			assert_int_equal(buf_appendf(&text, "{ name = \"p%u\", version = \"1\", arch = \"all\", size = 1, sha256 = \"" HEX
							    "\" },\n", i), 0);
		assert_int_equal(buf_append_str(&text, "]\n"), 0);
		assert_int_equal(lock_load_bytes("p.lock", buf_str(&text), text.len, &l, &e), more ? -EBADMSG : 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(paths_of_locks),
		cmocka_unit_test(a_missing_lock_is_empty),
		cmocka_unit_test(what_is_written_is_read_back),
		cmocka_unit_test(packages_stand_one_a_line),
		cmocka_unit_test(what_is_local_stays_out),
		cmocka_unit_test(writing_keeps_other_architectures),
		cmocka_unit_test(two_architectures_are_locked_at_a_time),
		cmocka_unit_test(a_lock_that_cannot_be_read_is_not_overwritten),
		cmocka_unit_test(an_older_answer_is_missing_again),
		cmocka_unit_test(what_the_plan_pins_needs_no_lock),
		cmocka_unit_test(an_answer_of_another_sha512_is_missing),
		cmocka_unit_test(sources_that_left_the_plan_leave_the_lock),
		cmocka_unit_test(what_vouched_for_a_base_is_kept),
		cmocka_unit_test(what_answers_nothing_is_pruned),
		cmocka_unit_test(answers_that_cannot_be_locked_are_refused),
		cmocka_unit_test(hostile_locks_are_refused_with_their_place),
		cmocka_unit_test(the_number_of_packages_is_limited),
	};

	return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
