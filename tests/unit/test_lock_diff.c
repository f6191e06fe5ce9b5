/* Differences between two locks, and the lines that an update leaves alone. */
#include "plan_fixture.h"
#include "plan/lock_diff.h"
#include "plan/toml.h"

#define HEX_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HEX_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define Q "question = \"" HEX_A "\"\n"

static void load(const char *text, struct lock *ret)
{
	struct err e = ERR_INIT;

	if (lock_load_bytes("x.lock", text, strlen(text), ret, &e) < 0)
		fail_msg("%s\n%s", e.message, text);
}

#define PACKAGE(name, version, arch, hex)                                                                    \
	"{ name = \"" name "\", version = \"" version "\", arch = \"" arch "\", size = 1, sha256 = \"" hex "\" },\n"
#define BLOB(hex, trust) "size = 1\nsha256 = \"" hex "\"\ntrust = \"" trust "\"\n"

static const char before[] =
	"version = 2\n"
	"[amd64.base]\n" Q BLOB(HEX_A, "signature")
	"[amd64.kernel]\n" Q "kind = \"package\"\nsha256 = \"" HEX_A "\"\nlist = [\n"
	PACKAGE("linux-image-6.1-1", "6.1-1", "amd64", HEX_A) PACKAGE("linux-modules-6.1-1", "6.1-1", "amd64", HEX_A) "]\n"
	"[amd64.packages]\n" Q "asked = [\"aa\"]\nremove = [\"ra\", \"rb\"]\nkeyrings = [\n"
	"{ path = \"/k/a\", sha256 = \"" HEX_A "\" },\n{ path = \"/k/b\", sha256 = \"" HEX_A "\" },\n]\nlist = [\n"
	PACKAGE("aa", "1", "amd64", HEX_A) PACKAGE("bb", "1", "amd64", HEX_A) PACKAGE("cc", "1", "amd64", HEX_A)
	PACKAGE("dd", "1", "amd64", HEX_A) PACKAGE("ee", "1", "amd64", HEX_A) "]\n"
	"[[amd64.sources]]\nslot = \"files:/a\"\n" Q BLOB(HEX_A, "plan")
	"[[amd64.sources]]\nslot = \"inputs:a\"\n" Q BLOB(HEX_A, "plan");

static const char after[] =
	"version = 2\n"
	"[amd64.base]\n" Q BLOB(HEX_B, "first-use")
	"[amd64.kernel]\n" Q "kind = \"package\"\nsha256 = \"" HEX_B "\"\nlist = [\n"
	PACKAGE("linux-image-6.1-2", "6.1-2", "amd64", HEX_B) PACKAGE("linux-modules-6.1-2", "6.1-2", "amd64", HEX_B) "]\n"
	"[amd64.packages]\n" Q "asked = [\"zz\"]\nremove = [\"rb\", \"rc\"]\nkeyrings = [\n"
	"{ path = \"/k/b\", sha256 = \"" HEX_B "\" },\n{ path = \"/k/c\", sha256 = \"" HEX_A "\" },\n]\nlist = [\n"
	PACKAGE("bb", "1", "amd64", HEX_A) PACKAGE("cc", "2", "amd64", HEX_B) PACKAGE("dd", "1", "amd64", HEX_B)
	PACKAGE("ee", "1", "all", HEX_A) PACKAGE("ff", "1", "all", HEX_A) "]\n"
	"[[amd64.sources]]\nslot = \"files:/b\"\n" Q BLOB(HEX_A, "plan")
	"[[amd64.sources]]\nslot = \"inputs:a\"\n" Q BLOB(HEX_B, "plan");

static const struct {
	enum lock_change_kind kind;
	const char *name, *was, *is;
} changes[] = {
	{ LOCK_CHANGE_BASE, "base", HEX_A, HEX_B },
	{ LOCK_CHANGE_KERNEL, "kernel", "linux-image-6.1-1 6.1-1", "linux-image-6.1-2 6.1-2" },
	{ LOCK_CHANGE_KERNEL, "linux-modules-6.1-1", "6.1-1", "" },
	{ LOCK_CHANGE_KERNEL, "linux-modules-6.1-2", "", "6.1-2" },
	{ LOCK_CHANGE_PACKAGE, "aa", "1", "" },
	{ LOCK_CHANGE_PACKAGE, "cc", "1", "2" },
	{ LOCK_CHANGE_PACKAGE, "dd", "1 (amd64, sha256 " HEX_A ")", "1 (amd64, sha256 " HEX_B ")" },
	{ LOCK_CHANGE_PACKAGE, "ee", "1 (amd64, sha256 " HEX_A ")", "1 (all, sha256 " HEX_A ")" },
	{ LOCK_CHANGE_PACKAGE, "ff", "", "1" },
	{ LOCK_CHANGE_REMOVAL, "ra", "removed", "" },
	{ LOCK_CHANGE_REMOVAL, "rc", "", "removed" },
	{ LOCK_CHANGE_SOURCE, "files:/a", HEX_A, "" },
	{ LOCK_CHANGE_SOURCE, "files:/b", "", HEX_A },
	{ LOCK_CHANGE_SOURCE, "inputs:a", HEX_A, HEX_B },
	{ LOCK_CHANGE_KEYRING, "/k/a", HEX_A, "" },
	{ LOCK_CHANGE_KEYRING, "/k/b", HEX_A, HEX_B },
	{ LOCK_CHANGE_KEYRING, "/k/c", "", HEX_A },
	{ LOCK_CHANGE_TRUST, "base", "signature", "first-use" },
};

/* Hold a comparison against `changes`, the other way round when `back`. */
static void expect_changes(const struct lock_changes *found, bool back)
{
	assert_int_equal(found->n, ARRAY_SIZE(changes));
	for (size_t i = 0; i < found->n; i++) {
		const struct lock_change *c = &found->items[i];
		bool seen = false;

		for (size_t k = 0; k < ARRAY_SIZE(changes); k++)
			seen = seen || (c->kind == changes[k].kind && strcmp(c->name, changes[k].name) == 0 &&
					       strcmp(c->old_text, back ? changes[k].is : changes[k].was) == 0 &&
					       strcmp(c->new_text, back ? changes[k].was : changes[k].is) == 0);
		if (!seen)
			fail_msg("%s %s: %s -> %s", lock_change_kind_name(c->kind), c->name, c->old_text, c->new_text);
		if (!back && (c->kind != changes[i].kind || strcmp(c->name, changes[i].name) != 0))
			fail_msg("%s %s is out of order", lock_change_kind_name(c->kind), c->name);
	}
}

static void changes_are_listed_both_ways(void **state)
{
	_cleanup_lock_ struct lock a = { 0 }, b = { 0 };
	_cleanup_lock_changes_ struct lock_changes there = { 0 }, back = { 0 }, none = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	load(before, &a);
	load(after, &b);
	assert_int_equal(lock_diff(&a.arch[ARCH_AMD64], &b.arch[ARCH_AMD64], &there, &e), 0);
	expect_changes(&there, false);
	assert_int_equal(lock_diff(&b.arch[ARCH_AMD64], &a.arch[ARCH_AMD64], &back, &e), 0);
	expect_changes(&back, true);
	assert_int_equal(lock_diff(&a.arch[ARCH_AMD64], &a.arch[ARCH_AMD64], &none, &e), 0);
	assert_int_equal(none.n, 0);
}

static void everything_is_new_in_a_first_lock(void **state)
{
	_cleanup_lock_ struct lock a = { 0 };
	_cleanup_lock_changes_ struct lock_changes found = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	load(before, &a);
	assert_int_equal(lock_diff(&a.arch[ARCH_ARM64], &a.arch[ARCH_AMD64], &found, &e), 0);
	assert_int_equal(found.n, 1 + 2 + 5 + 2 + 2 + 2);
	for (size_t i = 0; i < found.n; i++)
		assert_string_equal(found.items[i].old_text, "");
}

/* --- lines that stay --- */

enum { N_PACKAGES = 40 };

#define LITERAL(s) ((char *)(uintptr_t)(s))

/* An answer: package i has version 1, or 2 where `newer` says so, and `flavour` decides who vouches and where it was found. */
static void answer(struct answered *a, const bool newer[static N_PACKAGES], const char *flavour, const char *uri)
{
	struct lock_package items[N_PACKAGES];
	char names[N_PACKAGES][16], files[N_PACKAGES][64];
	struct digest release = digest_of_text(flavour, strlen(flavour));
	const struct lock_packages packages = { .items = items, .n = N_PACKAGES };
	struct err e = ERR_INIT;

	for (size_t i = 0; i < N_PACKAGES; i++) {
		/* In another order than the lock's. */
		(void)snprintf(names[i], sizeof(names[i]), "p%02zu", (i * 7) % N_PACKAGES);
		(void)snprintf(files[i], sizeof(files[i]), "pool/%s/%s.deb", flavour, names[i]);
		items[i] = (struct lock_package){ .name = names[i], .version = LITERAL(newer[(i * 7) % N_PACKAGES] ? "2" : "1"),
			.arch = LITERAL("all"), .size_bytes = 1, .file = files[i], .uri = LITERAL(uri), .suite = LITERAL(flavour),
			.release = release, .release_date = 1795162605 + flavour[0] };
		items[i].sha256 = digest_of_text(items[i].version, 1);
	}
	if (lock_set_packages(&a->lock, a->plan, ARCH_AMD64, &a->locals, &packages, &e) < 0)
		fail_msg("%s", e.message);
}

static void format(const struct lock *l, struct buf *into)
{
	struct err e = ERR_INIT;

	buf_reset(into);
	if (lock_format(l, into, &e) < 0)
		fail_msg("%s", e.message);
}

/* How many lines two texts of equally many lines differ in. */
static unsigned lines_that_differ(const char *a, const char *b)
{
	unsigned n = 0;

	while (*a && *b) {
		size_t na = strcspn(a, "\n"), nb = strcspn(b, "\n");

		n += na != nb || memcmp(a, b, na) != 0;
		a += na + 1;
		b += nb + 1;
	}
	assert_true(!*a && !*b);
	return n;
}

static const char plan_text[] = "[base.amd64]\nurl = \"a.img\"\n[kernel.amd64]\nfile = \"k\"\n[packages]\na = [\"p01\"]\n";

static void an_update_of_three_packages_changes_three_lines(void **state)
{
	_cleanup_buf_ struct buf first = BUF_INIT(TOML_MAX_BYTES), second = BUF_INIT(TOML_MAX_BYTES);
	_cleanup_answered_ struct answered a = { 0 };
	bool newer[N_PACKAGES] = { false };

	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	answer(&a, newer, "old", "https://example.org/d");
	format(&a.lock, &first);
	newer[0] = newer[20] = newer[N_PACKAGES - 1] = true;
	answer(&a, newer, "new", "https://example.org/d");
	format(&a.lock, &second);
	assert_int_equal(lines_that_differ(buf_str(&first), buf_str(&second)), 3);
	assert_non_null(strstr(buf_str(&second), "pool/new/p20.deb"));
	assert_non_null(strstr(buf_str(&second), "pool/old/p21.deb"));

	/* And nothing when nothing moved. */
	answer(&a, newer, "newest", "https://example.org/d");
	format(&a.lock, &first);
	assert_int_equal(lines_that_differ(buf_str(&first), buf_str(&second)), 0);
}

static void an_archive_that_is_left_is_forgotten(void **state)
{
	_cleanup_buf_ struct buf text = BUF_INIT(TOML_MAX_BYTES);
	_cleanup_answered_ struct answered a = { 0 };
	bool newer[N_PACKAGES] = { false };

	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	answer(&a, newer, "old", "https://gone.example.org/d");
	answer(&a, newer, "new", "https://example.org/d");
	format(&a.lock, &text);
	assert_null(strstr(buf_str(&text), "gone"));
	assert_null(strstr(buf_str(&text), "pool/old"));
}

/* The kernel's list has an order of its own, the kernel first, and keeps its lines all the same. */
static void a_kernels_packages_keep_their_lines(void **state)
{
	static const char text[] = "[base.amd64]\nurl = \"a.img\"\n[kernel.amd64]\npackage = \"linux-image-a\"\n";
	_cleanup_answered_ struct answered a = { 0 };
	struct lock_package items[] = {
		{ .name = LITERAL("linux-image-a"), .version = LITERAL("1"), .arch = LITERAL("amd64"), .uri = LITERAL("https://example.org/d") },
		{ .name = LITERAL("a-modules"), .version = LITERAL("1"), .arch = LITERAL("amd64"), .uri = LITERAL("https://example.org/d") },
	};
	struct lock_kernel kernel = { .kind = PLAN_KERNEL_PACKAGE, .sha256 = digest_of_text("k", 1), .packages = items, .n_packages = 2 };
	const struct lock_package *now;
	struct err e = ERR_INIT;

	fixture_load(*state, text, ARCH_AMD64, &a);
	for (size_t day = 0; day < 3; day++) {
		for (size_t i = 0; i < ARRAY_SIZE(items); i++) {
			items[i].sha256 = digest_of_text(i == 1 && day == 2 ? "other" : "same", 4);
			items[i].release = digest_of_text("012", day + 1);
		}
		assert_int_equal(lock_set_kernel(&a.lock, a.plan, ARCH_AMD64, &a.locals, &kernel, &e), 0);
	}
	now = a.lock.arch[ARCH_AMD64].kernel.packages;
	assert_string_equal(now[0].name, "linux-image-a");
	items[0].release = digest_of_text("012", 1);
	assert_true(digest_equal(&now[0].release, &items[0].release));
	assert_true(digest_equal(&now[1].release, &items[1].release));
}

/* The same version with other bytes is another package. */
static void other_bytes_bring_their_own_line(void **state)
{
	_cleanup_answered_ struct answered a = { 0 };
	const struct lock_package *items;
	bool newer[N_PACKAGES] = { false };

	fixture_load(*state, plan_text, ARCH_AMD64, &a);
	answer(&a, newer, "old", "https://example.org/d");
	a.lock.arch[ARCH_AMD64].packages.items[3].sha256 = digest_of_text("x", 1);
	answer(&a, newer, "new", "https://example.org/d");
	items = a.lock.arch[ARCH_AMD64].packages.items;
	assert_string_equal(items[2].suite, "old");
	assert_string_equal(items[3].suite, "new");
	assert_string_equal(items[4].suite, "old");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(changes_are_listed_both_ways),
		cmocka_unit_test(everything_is_new_in_a_first_lock),
		cmocka_unit_test(an_update_of_three_packages_changes_three_lines),
		cmocka_unit_test(an_archive_that_is_left_is_forgotten),
		cmocka_unit_test(other_bytes_bring_their_own_line),
		cmocka_unit_test(a_kernels_packages_keep_their_lines),
	};

	return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
