/* builder/packages/order: the list is carried out by dpkg itself, in a root of its own, with packages made for it. */
#include "builder/packages/order.h"

#include "tests/unit/apt_fixture.h"

/* A package that a test needs: "name version" and further control fields. */
struct spec {
	const char *name, *version, *fields;
};

static void control_text(const struct spec *s, char *text, size_t size)
{
	(void)snprintf(text, size, "Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: nobody <n@example.org>\n%sDescription: x\n",
		s->name, s->version, s->fields);
}

/* Build NAME_VERSION.deb with one file in it. */
static void build(const struct apt_fixture *f, const struct spec *s)
{
	char path[256], text[2048], deb[256], tree[128];

	(void)snprintf(tree, sizeof(tree), "%s_%s", s->name, s->version);
	control_text(s, text, sizeof(text));
	(void)snprintf(path, sizeof(path), "%s/DEBIAN/control", tree);
	fixture_write(f, path, text);
	(void)snprintf(path, sizeof(path), "%s/usr/share/%s", tree, s->name);
	fixture_write(f, path, s->version);
	(void)snprintf(deb, sizeof(deb), "%s.deb", tree);
	fixture_command(f, NULL, "dpkg-deb", "-Znone", "--build", tree, deb);
}

/* dpkg on the fixture's root, as an ordinary user. Returns its exit status. */
static int dpkg(const struct apt_fixture *f, const char *const *words)
{
	char root[256];
	const char *argv[64] = { "dpkg", root, "--force-not-root", "--force-bad-path", "--force-unsafe-io", "--log=/dev/null",
		"--auto-deconfigure", "--force-remove-protected" };
	size_t n = 8;

	(void)snprintf(root, sizeof(root), "--root=%s/root", f->dir);
	while (*words && n + 1 < ARRAY_SIZE(argv))
		argv[n++] = *words++;
	return fixture_run(f, NULL, argv);
}

/* Carry out one operation. */
static void carry_out(const struct apt_fixture *f, const struct pkg_op *op, const struct spec *in)
{
	char debs[32][512];
	const char *words[40] = { NULL };
	size_t n = 0;

	switch (op->kind) {
	case PKG_OP_REMOVE:
	case PKG_OP_PURGE:
		words[n++] = "--force-depends";
		words[n++] = op->kind == PKG_OP_PURGE ? "--purge" : "--remove";
		for (size_t i = 0; i < op->names.n; i++)
			words[n++] = op->names.items[i];
		break;
	case PKG_OP_UNPACK:
		words[n++] = "--unpack";
		for (size_t i = 0; i < op->n_items; i++) {
			(void)snprintf(debs[i], sizeof(debs[i]), "%s/%s_%s.deb", f->dir, in[op->items[i]].name,
				in[op->items[i]].version);
			words[n++] = debs[i];
		}
		break;
	case PKG_OP_CONFIGURE:
		words[n++] = "--configure";
		for (size_t i = 0; i < op->names.n; i++)
			words[n++] = op->names.items[i];
		break;
	case PKG_OP_CONFIGURE_PENDING:
		words[n++] = "--configure";
		words[n++] = "--pending";
		break;
	}
	if (dpkg(f, words) != 0)
		fail_msg("dpkg refuses: %s %s", pkg_op_kind_name(op->kind), op->names.n ? op->names.items[0] : "");
}

/* Compute the list for these packages on this base. */
static int compute(const struct apt_fixture *f, const struct spec *in, size_t n_in, const struct pkg_order_removal *out,
	size_t n_out, struct pkg_ops *ret, struct err *e)
{
	_cleanup_buf_ struct buf status = BUF_INIT(1 << 20);
	struct pkg_order_item items[32];
	char texts[32][2048];

	fixture_read(f, "root/var/lib/dpkg/status", &status);
	for (size_t i = 0; i < n_in; i++) {
		control_text(&in[i], texts[i], sizeof(texts[i]));
		items[i] = (struct pkg_order_item){ in[i].name, texts[i], strlen(texts[i]) };
	}
	return pkg_order("amd64", buf_str(&status), status.len, items, n_in, out, n_out, ret, e);
}

/* "remove a; unpack b c; configure b; ..." */
static void describe(const struct pkg_ops *ops, struct buf *into)
{
	for (size_t i = 0; i < ops->n; i++) {
		assert_int_equal(buf_appendf(into, "%s%s", i ? "; " : "", pkg_op_kind_name(ops->ops[i].kind)), 0);
		for (size_t k = 0; k < ops->ops[i].names.n; k++)
			assert_int_equal(buf_appendf(into, " %s", ops->ops[i].names.items[k]), 0);
	}
}

static void check(void **state, const struct spec *base, size_t n_base, const struct spec *in, size_t n_in,
	const struct pkg_order_removal *out, size_t n_out, const char *expected)
{
	const struct apt_fixture *f = *state;
	_cleanup_pkg_ops_ struct pkg_ops ops = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(8192), audit = BUF_INIT(8192);
	char root[256];
	struct err e = ERR_INIT;

	for (size_t i = 0; i < n_base; i++) {
		char deb[256];

		build(f, &base[i]);
		(void)snprintf(deb, sizeof(deb), "%s/%s_%s.deb", f->dir, base[i].name, base[i].version);
		assert_int_equal(dpkg(f, (const char *const[]){ "--force-depends", "--install", deb, NULL }), 0);
	}
	for (size_t i = 0; i < n_in; i++)
		build(f, &in[i]);
	if (compute(f, in, n_in, out, n_out, &ops, &e) < 0)
		fail_msg("%s", e.message);
	describe(&ops, &text);
	assert_string_equal(buf_str(&text), expected);
	for (size_t i = 0; i < ops.n; i++)
		carry_out(f, &ops.ops[i], in);
	(void)snprintf(root, sizeof(root), "--root=%s/root", f->dir);
	fixture_command(f, &audit, "dpkg", root, "--audit");
	assert_string_equal(buf_str(&audit), "");
}

static void plain_packages_take_two_runs(void **state)
{
	static const struct spec in[] = { { "a", "1", "Depends: b\n" }, { "b", "1", "Depends: c\n" }, { "c", "1", "" } };

	check(state, NULL, 0, in, 3, NULL, 0, "unpack a b c; configure-pending");
}

static void a_pre_depends_chain_is_configured_on_the_way(void **state)
{
	static const struct spec in[] = { { "a", "1", "Pre-Depends: b\n" }, { "b", "1", "Pre-Depends: c (>= 1)\nDepends: d\n" },
		{ "c", "1", "Depends: e\n" }, { "d", "1", "" }, { "e", "1", "" }, { "f", "1", "" } };

	check(state, NULL, 0, in, 6, NULL, 0,
		"unpack c d e f; configure c e; unpack b; configure b d; unpack a; configure-pending");
}

static void a_conflicting_package_goes_out_first(void **state)
{
	static const struct spec base[] = { { "timesyncd", "1", "Provides: time-daemon\nConflicts: time-daemon\n" },
		{ "system", "1", "Depends: time-daemon\n" } };
	static const struct spec in[] = { { "chrony", "4", "Provides: time-daemon\nConflicts: time-daemon\n" } };
	static const struct pkg_order_removal out[] = { { "timesyncd", false } };

	check(state, base, 2, in, 1, out, 1, "remove timesyncd; unpack chrony; configure-pending");
}

static void removals_and_purges_go_dependents_first(void **state)
{
	static const struct spec base[] = { { "lib", "1", "" }, { "meta", "1", "Depends: tool\n" },
		{ "tool", "1", "Depends: lib\n" }, { "other", "1", "" } };
	static const struct pkg_order_removal out[] = { { "lib", true }, { "meta", true }, { "other", false }, { "tool", true },
		{ "absent", true } };

	check(state, base, 4, NULL, 0, out, 5, "remove other; purge meta tool lib; configure-pending");
}

static void an_upgrade_that_is_pre_depended_on_is_configured_first(void **state)
{
	static const struct spec base[] = { { "libc", "1", "" }, { "shell", "1", "" } };
	static const struct spec in[] = { { "app", "1", "Pre-Depends: libc (>= 2)\n" }, { "libc", "2", "" },
		{ "shell", "2", "Pre-Depends: libc (>= 1)\n" } };

	check(state, base, 2, in, 3, NULL, 0, "unpack libc shell; configure libc; unpack app; configure-pending");
}

static void an_old_version_that_conflicts_is_replaced_first(void **state)
{
	static const struct spec base[] = { { "z-part", "1", "" } };
	static const struct spec in[] = { { "new", "1", "Conflicts: z-part (<< 2)\n" }, { "z-part", "2", "" } };

	check(state, base, 1, in, 2, NULL, 0, "unpack z-part new; configure-pending");
}

static void files_move_between_packages(void **state)
{
	static const struct spec base[] = { { "z-data", "1", "" } };
	static const struct spec in[] = { { "a-data", "2", "Breaks: z-data (<< 2)\nReplaces: z-data (<< 2)\n" },
		{ "z-data", "2", "Depends: a-data (>= 2)\n" } };

	check(state, base, 1, in, 2, NULL, 0, "unpack z-data a-data; configure-pending");
}

static void a_virtual_pre_dependency_is_found(void **state)
{
	static const struct spec in[] = { { "a", "1", "Pre-Depends: awk\n" }, { "mawk", "1", "Provides: awk\n" } };

	check(state, NULL, 0, in, 2, NULL, 0, "unpack mawk; configure mawk; unpack a; configure-pending");
}

static void a_circle_of_pre_depends_is_refused(void **state)
{
	static const struct spec in[] = { { "a", "1", "Pre-Depends: b\n" }, { "b", "1", "Pre-Depends: a\n" }, { "c", "1", "" } };
	const struct apt_fixture *f = *state;
	struct pkg_ops ops = { 0 };
	struct err e = ERR_INIT;
	int r = compute(f, in, 3, NULL, 0, &ops, &e);

	/* Two packages that exclude each other's absence cannot be installed by dpkg without force either. */
	assert_int_equal(r, -ELOOP);
	assert_non_null(strstr(e.message, "`a`, `b`"));
	pkg_ops_release(&ops);
}

static void nothing_to_do_is_one_run(void **state)
{
	check(state, NULL, 0, NULL, 0, NULL, 0, "configure-pending");
}

static int setup(void **state)
{
	static struct apt_fixture f;

	fixture_setup(&f);
	*state = &f;
	fixture_write(&f, "root/var/lib/dpkg/status", "");
	fixture_write(&f, "root/var/lib/dpkg/info/format", "1\n");
	fixture_write(&f, "root/var/lib/dpkg/updates/.keep", "");
	(void)unlinkat(f.root_fd, "var/lib/dpkg/updates/.keep", 0);
	return 0;
}

#define on_a_root(test) cmocka_unit_test_setup_teardown(test, setup, fixture_state_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_a_root(plain_packages_take_two_runs),
		on_a_root(a_pre_depends_chain_is_configured_on_the_way),
		on_a_root(a_conflicting_package_goes_out_first),
		on_a_root(removals_and_purges_go_dependents_first),
		on_a_root(an_upgrade_that_is_pre_depended_on_is_configured_first),
		on_a_root(an_old_version_that_conflicts_is_replaced_first),
		on_a_root(files_move_between_packages),
		on_a_root(a_virtual_pre_dependency_is_found),
		on_a_root(a_circle_of_pre_depends_is_refused),
		on_a_root(nothing_to_do_is_one_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
