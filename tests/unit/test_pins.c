/* builder/packages/pins, universe: priorities and candidates */
#include "builder/packages/pins.h"
#include "builder/packages/universe.h"

#include "tests/unit/apt_fixture.h"

static const struct apt_origin stable = { .archive = "oldstable", .codename = "bookworm", .origin = "Debian", .label = "Debian",
	.version = "12.11", .component = "main", .site = "deb.example.org", .arch = "amd64" };
static const struct apt_origin backports = { .archive = "oldstable-backports", .codename = "bookworm-backports",
	.origin = "Debian Backports", .label = "Debian Backports", .version = "", .component = "main", .site = "deb.example.org",
	.arch = "amd64", .not_automatic = true, .but_automatic_upgrades = true };
static const struct apt_origin experimental = { .archive = "experimental", .codename = "rc-buggy", .origin = "Debian",
	.label = "Debian", .version = "", .component = "main", .site = "deb.example.org", .arch = "amd64", .not_automatic = true };
static const struct apt_origin other = { .archive = "stable", .codename = "stable", .origin = "Tool", .label = "Tool",
	.version = "", .component = "extra", .site = "tool.example.org", .arch = "amd64" };

static int priority(const char *preferences, const struct apt_origin *o, const char *name, const char *version)
{
	_cleanup_pins_ struct apt_pins pins = { 0 };
	struct err e = ERR_INIT;

	if (apt_pins_parse(preferences, strlen(preferences), "preferences", &pins, &e) < 0)
		fail_msg("%s", e.message);
	return apt_pins_version_priority(&pins, o, name, "source-of-it", version, apt_pins_origin_priority(&pins, o));
}

static void has_apts_defaults(void **state)
{
	struct apt_pins target = { .target_release = (char *)(uintptr_t) "bookworm-backports" };

	(void)state;
	assert_int_equal(priority("", &stable, "x", "1"), 500);
	assert_int_equal(priority("", &backports, "x", "1"), 100);
	assert_int_equal(priority("", &experimental, "x", "1"), 1);
	assert_int_equal(apt_pins_origin_priority(&target, &backports), 990);
	assert_int_equal(apt_pins_origin_priority(&target, &stable), 500);
}

static void reads_preferences(void **state)
{
	static const char general[] = "Explanation: all of it\nPackage: *\nPin: release o=Debian, a=old*\nPin-Priority: 700\n\n"
				      "Package: *\nPin: origin \"tool.example.org\"\nPin-Priority: -1\n";
	static const char specific[] = "Package: foo /^lib.*-dev$/ bar*\nPin: release n=bookworm\nPin-Priority: 600\n\n"
				       "Package: foo\nPin: version 1.2*\nPin-Priority: 1001\n\n"
				       "Package: src:source-of-it\nPin: release l=Tool, c=extra\nPin-Priority: 42\n";

	(void)state;
	assert_int_equal(priority(general, &stable, "x", "1"), 700);
	assert_int_equal(priority(general, &backports, "x", "1"), 100);
	assert_int_equal(priority(general, &other, "x", "1"), -1);
	assert_int_equal(priority(specific, &stable, "foo", "1.2"), 600); /* the first that matches */
	assert_int_equal(priority(specific, &backports, "foo", "1.2.3"), 1001);
	assert_int_equal(priority(specific, &backports, "foo", "1.3"), 100);
	assert_int_equal(priority(specific, &stable, "libx-dev", "1"), 600);
	assert_int_equal(priority(specific, &stable, "libx", "1"), 500);
	assert_int_equal(priority(specific, &stable, "barn", "1"), 600);
	assert_int_equal(priority(specific, &other, "x", "1"), 42);
	assert_int_equal(priority("Package: x\nPin: release bookworm\nPin-Priority: 5\n", &stable, "x", "1"), 5);
	assert_int_equal(priority("Package: x\nPin: release v=12*\nPin-Priority: 5\n", &stable, "x", "1"), 5);
	assert_int_equal(priority("Package: x:amd64\nPin: release b=amd64\nPin-Priority: 5\n", &stable, "x", "1"), 5);
	assert_int_equal(priority("Package: x\nPin: origin \"\"\nPin-Priority: 5\n", &stable, "x", "1"), 500);
}

static void refuses_bad_preferences(void **state)
{
	static const char *const bad[] = { "Package: x\n", "Package: x\nPin: release a=b\n",
		"Package: x\nPin: release a=b\nPin-Priority: 0\n", "Package: x\nPin: release a=b\nPin-Priority: 40000\n",
		"Package: x\nPin: release a=b\nPin-Priority: high\n", "Package: x\nPin: moon a=b\nPin-Priority: 1\n",
		"Package: x\nPin: release q=b\nPin-Priority: 1\n", "Package: x\nPin: release\nPin-Priority: 1\n",
		"Package: /[/\nPin: release a=b\nPin-Priority: 1\n",
		"Package: /((a{1,255}){1,255}){1,255}/\nPin: release a=b\nPin-Priority: 1\n" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_pins_ struct apt_pins pins = { 0 };
		struct err e = ERR_INIT;

		if (apt_pins_parse(bad[i], strlen(bad[i]), "preferences", &pins, &e) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
		assert_non_null(strstr(e.message, "preferences:1"));
	}
}

/* One package in up to three lists and the status, and the version that is to be the candidate. */
struct candidate_case {
	const char *preferences;
	const char *in_stable, *in_backports, *in_experimental, *installed, *candidate;
};

static void add_list(struct pkg_universe *u, const struct apt_origin *o, int32_t number, const char *version)
{
	char text[512];
	struct err e = ERR_INIT;

	if (!version)
		return;
	(void)snprintf(text, sizeof(text),
		"Package: p\nVersion: %s\nArchitecture: amd64\nFilename: pool/p.deb\nSize: 1\nSHA256: %064d\n", version, number);
	if (pkg_universe_add_list(u, text, strlen(text), number, o, "list", NULL, &e) < 0)
		fail_msg("%s", e.message);
}

static void chooses_candidates(void **state)
{
	static const struct candidate_case cases[] = {
		{ "", "1", "2", NULL, NULL, "1" },
		{ "", "1", "2", NULL, "2", "2" },
		{ "", "1", "3", NULL, "2", "3" }, /* ButAutomaticUpgrades */
		{ "", "1", NULL, "3", "1", "1" },
		{ "", NULL, NULL, "3", NULL, "3" },
		{ "", "1", NULL, NULL, "2", "2" }, /* no downgrade */
		{ "Package: p\nPin: release n=bookworm\nPin-Priority: 1001\n", "1", NULL, NULL, "2", "1" },
		{ "Package: p\nPin: release n=bookworm\nPin-Priority: 999\n", "1", NULL, NULL, "2", "2" },
		{ "Package: p\nPin: release n=bookworm-backports\nPin-Priority: 501\n", "1", "2", NULL, NULL, "2" },
		{ "Package: p\nPin: release n=bookworm\nPin-Priority: -1\n", "1", NULL, NULL, NULL, NULL },
		{ "Package: p\nPin: release n=bookworm\nPin-Priority: -1\n", "2", NULL, NULL, "1", "1" },
		{ "Package: *\nPin: release n=bookworm-backports\nPin-Priority: 600\n", "1", "2", NULL, NULL, "2" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_universe_ struct pkg_universe u = { 0 };
		_cleanup_pins_ struct apt_pins pins = { 0 };
		struct err e = ERR_INIT;
		const char *found = NULL;
		char status[256];
		uint32_t name;

		assert_int_equal(apt_pins_parse(cases[i].preferences, strlen(cases[i].preferences), "p", &pins, &e), 0);
		pkg_universe_init(&u, ARCH_AMD64, &pins);
		add_list(&u, &stable, 0, cases[i].in_stable);
		add_list(&u, &backports, 1, cases[i].in_backports);
		add_list(&u, &experimental, 2, cases[i].in_experimental);
		(void)snprintf(status, sizeof(status),
			"Package: p\nStatus: install ok installed\nVersion: %s\nArchitecture: amd64\n", cases[i].installed);
		if (cases[i].installed)
			assert_int_equal(pkg_universe_add_status(&u, status, strlen(status), "status", &e), 0);
		assert_int_equal(pkg_universe_finish(&u, &e), 0);
		name = pkg_universe_find(&u, "p", 1);
		if (u.names[name].candidate != UNIVERSE_NONE)
			found = u.versions[u.names[name].candidate].version;
		if (!found != !cases[i].candidate || (found && strcmp(found, cases[i].candidate) != 0))
			fail_msg("case %zu: %s", i, found ? found : "none");
	}
}

static void reads_status_as_dpkg_means_it(void **state)
{
	static const char status[] = "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: amd64\n\n"
				     "Package: held\nStatus: hold ok installed\nVersion: 1\nArchitecture: all\nEssential: yes\n\n"
				     "Package: foreign\nStatus: install ok installed\nVersion: 1\nArchitecture: i386\n\n"
				     "Package: waits\nStatus: install ok triggers-pending\nVersion: 1\nArchitecture: amd64\n";
	static const char twice[] = "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n"
				    "Package: a\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\n";
	_cleanup_universe_ struct pkg_universe u = { 0 };
	_cleanup_pins_ struct apt_pins pins = { 0 };
	struct err e = ERR_INIT;
	uint32_t held;

	(void)state;
	pkg_universe_init(&u, ARCH_AMD64, &pins);
	assert_int_equal(pkg_universe_add_status(&u, status, strlen(status), "status", &e), 0);
	assert_int_equal(pkg_universe_finish(&u, &e), 0);
	assert_int_equal(u.n_versions, 2);
	held = pkg_universe_find(&u, "held", 4);
	assert_true(u.versions[u.names[held].installed].hold);
	assert_true(u.versions[u.names[held].installed].essential);
	assert_int_equal(pkg_universe_find(&u, "gone", 4), UNIVERSE_NONE);
	assert_int_equal(pkg_universe_add_status(&u, twice, strlen(twice), "status", &e), -EBADMSG);
	assert_int_equal(pkg_universe_add_status(&u, "Package: b\n", 11, "status", &e), -EBADMSG);
}

static void refuses_bad_lists(void **state)
{
#define GOOD "Package: p\nVersion: 1\nArchitecture: amd64\n"
#define HASH "SHA256: 0000000000000000000000000000000000000000000000000000000000000000\n"
	static const char *const bad[] = { "Package: p\nVersion: 1\n", "Package: ../p\nVersion: 1\nArchitecture: amd64\n",
		"Package: p\nVersion: 1 2\nArchitecture: amd64\n", GOOD HASH "Size: 1\nFilename: /etc/passwd\n",
		GOOD HASH "Size: 1\nFilename: pool/../../x\n", GOOD HASH "Size: -1\nFilename: pool/x\n",
		GOOD HASH "Size: 1234567890123456789\nFilename: pool/x\n", GOOD HASH "Filename: pool/x\n",
		GOOD "SHA256: zz00000000000000000000000000000000000000000000000000000000000000\nSize: 1\nFilename: x\n",
		"<html>\n", "\x1f\x8b\x08 this is no gzip" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_universe_ struct pkg_universe u = { 0 };
		_cleanup_pins_ struct apt_pins pins = { 0 };
		struct err e = ERR_INIT;

		pkg_universe_init(&u, ARCH_AMD64, &pins);
		if (pkg_universe_add_list(&u, bad[i], strlen(bad[i]), 0, &stable, "list", NULL, &e) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(has_apts_defaults),
		cmocka_unit_test(reads_preferences),
		cmocka_unit_test(refuses_bad_preferences),
		cmocka_unit_test(chooses_candidates),
		cmocka_unit_test(reads_status_as_dpkg_means_it),
		cmocka_unit_test(refuses_bad_lists),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
