/* A lock is stale when the plan asks something else, not when it is spelled another way: every field of the schema that is changed
 * makes exactly the sections stale that depend on it, and any mixture of spellings makes none. */
#include "key_mutations.h"

enum { BASE = LOCK_SECTION_BASE, KERNEL = LOCK_SECTION_KERNEL, PACKAGES = LOCK_SECTION_PACKAGES, SOURCES = LOCK_SECTION_SOURCES };

/* What depends on a field; a kernel that is chosen from the sources or comes from the base depends on more. */
static const struct {
	const char *field;
	unsigned sections;
	bool base_too;	  /* ... and a kernel from the base or from a package */
	bool sources_too; /* ... and a kernel from a package */
} dependencies[] = {
	{ "base.partition", PACKAGES, true, true },
	{ "base.ARCH.url", BASE | PACKAGES, true, true },
	{ "base.ARCH.sha256", PACKAGES, true, true }, /* the plan pins it: it needs no section */
	{ "base.ARCH.sha512", BASE | PACKAGES, true, true },
	{ "base.ARCH.checksums", BASE | PACKAGES, true, true },
	{ "base.ARCH.checksums_key", BASE | PACKAGES, true, true },
	{ "kernel.ARCH.url", KERNEL, false, false },
	{ "kernel.ARCH.path", KERNEL, false, false },
	{ "kernel.ARCH.sha256", KERNEL, false, false },
	{ "kernel.ARCH.sha512", KERNEL, false, false },
	{ "kernel.ARCH.package", KERNEL, false, false },
	{ "kernel.ARCH.from", KERNEL, false, false },
	{ "packages.*", PACKAGES, false, false },
	{ "packages.ARCH.*", PACKAGES, false, false },
	{ "apt.remove", PACKAGES, false, false },
	{ "apt.recommends", PACKAGES, false, false },
	{ "apt.debs", PACKAGES, false, false },
	{ "apt.snapshot", PACKAGES, false, true },
	{ "apt.repository[].uri", PACKAGES, false, true },
	{ "apt.repository[].suite", PACKAGES, false, true },
	{ "apt.repository[].components", PACKAGES, false, true },
	{ "apt.repository[].key", PACKAGES, false, true },
	{ "apt.trusted", PACKAGES, false, true },
	{ "apt.check_valid_until", PACKAGES, false, true },
	{ "files.*.url", SOURCES, false, false },
	{ "inputs.*.url", SOURCES, false, false },
};

static unsigned expected_sections(const char *field, const struct plan_kernel *kernel)
{
	for (size_t i = 0; i < ARRAY_SIZE(dependencies); i++) {
		if (strcmp(dependencies[i].field, field) != 0)
			continue;
		if ((dependencies[i].base_too && kernel->kind == PLAN_KERNEL_FROM_BASE) ||
			(dependencies[i].sources_too && kernel->kind == PLAN_KERNEL_PACKAGE))
			return dependencies[i].sections | KERNEL;
		return dependencies[i].sections;
	}
	return 0;
}

/* A dependency is declared exactly where the schema says that the field is part of a question, or, for two that are inputs
 * themselves and decide an answer besides, where it says that it is in. */
static void the_dependencies_are_the_schemas(void **state)
{
	static const char *const in_twice[] = { "base.partition", "base.ARCH.sha256", "apt.debs" };
	struct plan_schema_field field;

	(void)state;
	for (size_t i = 0; plan_schema_field(i, &field); i++) {
		bool declared = false, twice = false;

		for (size_t k = 0; k < ARRAY_SIZE(dependencies); k++)
			declared = declared || strcmp(dependencies[k].field, field.path) == 0;
		for (size_t k = 0; k < ARRAY_SIZE(in_twice); k++)
			twice = twice || strcmp(in_twice[k], field.path) == 0;
		if (declared != (field.role == PLAN_KEY_BY_ANSWER || twice))
			fail_msg("%s: the schema and this test do not agree on whether it is part of a question", field.path);
	}
}

static unsigned missing_of(const struct answered *a, const struct lock *l)
{
	struct err e = ERR_INIT;
	unsigned sections;

	if (lock_missing(a->plan, l, ARCH_AMD64, &a->locals, &sections, &e) < 0)
		fail_msg("%s", e.message);
	return sections;
}

/* Hold what is missing after a change against what should be, and see that it is explained: one line for each section. */
static void expect_missing(const struct fixture *f, const struct lock *lock, const char *text, unsigned expected, const char *what)
{
	static const struct {
		unsigned section;
		const char *prefix;
	} names[] = { { BASE, "base: " }, { KERNEL, "kernel: " }, { PACKAGES, "packages: " } };
	_cleanup_answered_ struct answered after = { 0 };
	_cleanup_strv_ struct strv reasons = { 0 };
	struct err e = ERR_INIT;
	unsigned found, said = 0;

	fixture_load(f, text, ARCH_AMD64, &after);
	found = missing_of(&after, lock);
	if (found != expected)
		fail_msg("%s: the sections %#x are stale, expected %#x\n%s", what, found, expected, text);
	assert_int_equal(lock_explain(after.plan, lock, ARCH_AMD64, &after.locals, &reasons, &e), 0);
	for (size_t i = 0; i < reasons.n; i++) {
		unsigned section = SOURCES;

		for (size_t k = 0; k < ARRAY_SIZE(names); k++)
			if (strncmp(reasons.items[i], names[k].prefix, strlen(names[k].prefix)) == 0)
				section = names[k].section;
		said |= section;
	}
	if (said != expected)
		fail_msg("%s: the sections %#x are explained, expected %#x", what, said, expected);
}

/* Every mutation, in the plan that it is written for and in those with every other kind of base and kernel. */
static void a_change_makes_stale_what_depends_on_it(void **state)
{
	static const char *const heads[] = { URLS, CHECKSUMS, SHA512S, SHA256S, LOCALS, PACKAGE, FROM_BASE };
	unsigned tried = 0;

	for (size_t i = 0; i < ARRAY_SIZE(mutations); i++) {
		const struct mutation *m = &mutations[i];

		for (size_t k = 0; k <= ARRAY_SIZE(heads); k++) {
			const char *head = k < ARRAY_SIZE(heads) ? heads[k] : m->head;
			_cleanup_buf_ struct buf text = BUF_INIT(1 << 16), changed = BUF_INIT(1 << 16);
			_cleanup_answered_ struct answered before = { 0 };

			/* Elsewhere only what stands in the part that all have. */
			if (k < ARRAY_SIZE(heads) && (!strstr(rest, m->from) || strstr(head, m->from) || strncmp(m->field, "base.", 5) == 0 ||
							     strncmp(m->field, "kernel.", 7) == 0))
				continue;
			assert_int_equal(buf_appendf(&text, "%s%s", head, rest), 0);
			replace_once(&changed, buf_str(&text), m->from, m->to);
			fixture_load(*state, buf_str(&text), ARCH_AMD64, &before);
			fixture_answer(&before, ARCH_AMD64, "one");
			expect_missing(*state, &before.lock, buf_str(&changed), expected_sections(m->field, &before.plan->kernel[ARCH_AMD64]),
				m->field);
			tried++;
		}
	}
	assert_true(tried > 200);
}

/* --- spellings --- */

static const char told[] =
	"name = \"one\"\n"
	"[base]\npartition = 1\n"
	"[base.amd64]\nurl = \"https://example.org/b\"\nchecksums = \"https://example.org/S\"\nchecksums_key = \"key.asc\"\n"
	"[kernel.amd64]\npackage = \"linux-image-a\"\n"
	"[packages]\nrun = [\"podman\", \"crun\"]\nmore = [\"fuse3\"]\n"
	"[packages.amd64]\nboot = [\"grub-pc\"]\n"
	"[apt]\nremove = [\"snapd\", \"apparmor\"]\nrecommends = false\ndebs = [\"y.deb\", \"x_1_amd64.deb\"]\n"
	"trusted = [\"https://example.org/t\", \"https://example.org/u\"]\n"
	"[[apt.repository]]\nuri = \"https://example.org/d\"\nsuite = \"stable\"\ncomponents = [\"main\", \"contrib\"]\nkey = \"key.asc\"\n"
	"[[apt.repository]]\nuri = \"https://example.org/t\"\nsuite = \"./\"\n"
	"[files.\"/etc/url\"]\nurl = \"https://example.org/f\"\n"
	"[inputs.url]\nurl = \"https://example.org/i\"\n"
	"[image]\nsize = \"4G\"\n";

/* Each can be taken with any of the others. */
static const struct {
	const char *from, *to;
} spellings[] = {
	{ "name = \"one\"\n", "name = 'two' # a comment\n\n" },
	{ "[\"podman\", \"crun\"]", "[\n\t'crun', # first\n\t\"podman\",\n\t\"crun\",\n]" },
	{ "more = [\"fuse3\"]\n", "" },
	{ "boot = [\"grub-pc\"]", "boot = [\"grub-pc\", \"fuse3\"]\nnone = []" },
	{ "[packages.amd64]\n", "[packages.arm64]\nx = [\"only-there\"]\n[packages.amd64]\n\"a group\" = [\"podman\"]\n" },
	{ "remove = [\"snapd\", \"apparmor\"]", "remove = [\"apparmor\", \"snapd\", \"apparmor\"]" },
	{ "recommends = false\n", "" },
	{ "[\"y.deb\", \"x_1_amd64.deb\"]", "[\"x_1_amd64.deb\", \"y.deb@moved\", \"x_1_arm64.deb\", \"y.deb@moved\"]" },
	{ "trusted = [\"https://example.org/t\", \"https://example.org/u\"]",
		"check_valid_until = true\ntrusted = [\"https://example.org/u\", \"https://example.org/t\", \"https://example.org/u\"]" },
	{ "components = [\"main\", \"contrib\"]", "components = [\"contrib\", \"main\", \"main\"]" },
	{ "\"https://example.org/d\"", "\"https://user:word@example.org/d\"" },
	{ "key = \"key.asc\"\n[[", "key = \"key.asc@moved\"\n[[" },
	{ "checksums_key = \"key.asc\"\n", "checksums_key = \"key.asc@moved\"\nchecksums_signature = \"https://example.org/S.sign\"\n" },
	{ "\"https://example.org/b\"", "\"https://user@example.org/b\"" },
	{ "\"https://example.org/S\"", "\"https://user@example.org/S\"" },
	{ "\"https://example.org/i\"", "'https://me:it@example.org/i'" },
	{ "package = \"linux-image-a\"", "\"package\" = \"linux-image-a\"\ncmdline = \"quiet\"" },
	{ "[image]\nsize = \"4G\"\n", "[ \"image\" ]\nhostname = \"x\"\nsize = \"4096M\"\n" },
	{ "[[apt.repository]]\nuri = \"https://example.org/t\"\nsuite = \"./\"\n", "" },
};

/* What a spelling must not hide: each makes exactly these sections stale. */
static const struct {
	const char *from, *to;
	unsigned sections;
} changes[] = {
	{ "fuse3", "fuse2", PACKAGES },
	{ "\"podman\"", "\"podman-remote\"", PACKAGES },
	{ "\"snapd\"", "\"snap\"", PACKAGES },
	{ "\"x_1_amd64.deb\"", "\"a.img\"", PACKAGES },
	{ "example.org/d", "example.org/d/", KERNEL | PACKAGES }, /* a URI is what is written */
	{ "\"stable\"", "\"testing\"", KERNEL | PACKAGES },
	{ "\"contrib\"", "\"non-free\"", KERNEL | PACKAGES },
	{ "example.org/u", "example.org/v", KERNEL | PACKAGES },
	{ "linux-image-a", "linux-image-b", KERNEL },
	{ "example.org/b", "example.org/c", BASE | KERNEL | PACKAGES },
	{ "example.org/S", "example.org/T", BASE | KERNEL | PACKAGES },
	{ "example.org/i", "example.org/j", SOURCES },
	{ "example.org/f", "example.org/g", SOURCES },
	{ "partition = 1", "partition = 2", KERNEL | PACKAGES },
	{ "suite = \"./\"", "suite = \"flat/\"", KERNEL | PACKAGES },
};

/* A plan with the spellings of a set, each a bit. The last one takes a repository out of its table and has it as an inline one
 * elsewhere, so it is done by hand. */
static void spell(unsigned set, struct buf *text, struct buf *scratch)
{
	buf_reset(text);
	assert_int_equal(buf_append_str(text, told), 0);
	for (size_t i = 0; i + 1 < ARRAY_SIZE(spellings); i++) {
		/* The group that goes must be named elsewhere. */
		if (!(set >> i & 1) || (i == 2 && !(set >> 3 & 1)))
			continue;
		replace_once(scratch, buf_str(text), spellings[i].from, spellings[i].to);
		buf_reset(text);
		assert_int_equal(buf_append_str(text, buf_str(scratch)), 0);
	}
	if (set >> (ARRAY_SIZE(spellings) - 1) & 1) {
		const size_t last = ARRAY_SIZE(spellings) - 1;

		/* The order of repositories is none: the other one comes first. */
		replace_once(scratch, buf_str(text), spellings[last].from, "");
		replace_once(text, buf_str(scratch), "[[apt.repository]]\n",
			"[[apt.repository]]\nsuite = \"./\"\nuri = 'https://example.org/t'\n\n[[apt.repository]]\n");
	}
}

static void replace_all(struct buf *out, const char *text, const char *from, const char *to)
{
	buf_reset(out);
	for (const char *at; (at = strstr(text, from)) != NULL; text = at + strlen(from)) {
		assert_int_equal(buf_append(out, text, (size_t)(at - text)), 0);
		assert_int_equal(buf_append_str(out, to), 0);
	}
	assert_int_equal(buf_append_str(out, text), 0);
}

static void no_spelling_is_another_question(void **state)
{
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 16), scratch = BUF_INIT(1 << 16);
	_cleanup_answered_ struct answered before = { 0 };
	uint32_t random = 1;

	fixture_load(*state, told, ARCH_AMD64, &before);
	fixture_answer(&before, ARCH_AMD64, "one");
	for (unsigned i = 0; i < 200; i++) {
		/* Each alone, all of them, and mixtures. */
		unsigned set = i < ARRAY_SIZE(spellings) ? 1u << i : i == ARRAY_SIZE(spellings) ? ~0u : random >> 8;

		random = random * 1664525 + 1013904223;
		spell(set | (set & 4 ? 8 : 0), &text, &scratch);
		expect_missing(*state, &before.lock, buf_str(&text), 0, "a spelling");
	}
}

static void a_change_shows_in_every_spelling(void **state)
{
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 16), scratch = BUF_INIT(1 << 16);
	_cleanup_answered_ struct answered before = { 0 };
	uint32_t random = 7;

	fixture_load(*state, told, ARCH_AMD64, &before);
	fixture_answer(&before, ARCH_AMD64, "one");
	for (size_t c = 0; c < ARRAY_SIZE(changes); c++) {
		for (unsigned i = 0; i < 10; i++) {
			spell(i == 0 ? 0 : random >> 8, &text, &scratch);
			random = random * 1664525 + 1013904223;
			/* All of it: where something is said twice, once is enough. */
			replace_all(&scratch, buf_str(&text), changes[c].from, changes[c].to);
			expect_missing(*state, &before.lock, buf_str(&scratch), changes[c].sections, changes[c].to);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_dependencies_are_the_schemas),
		cmocka_unit_test(a_change_makes_stale_what_depends_on_it),
		cmocka_unit_test(no_spelling_is_another_question),
		cmocka_unit_test(a_change_shows_in_every_spelling),
	};

	return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
