/* builder/packages/sources, place, aptconf */
#include "builder/packages/sources.h"
#include "builder/packages/aptconf.h"
#include "builder/packages/place.h"

#include "tests/unit/apt_fixture.h"

static int parse(const char *text, bool deb822, struct apt_sources *ret, struct err *e)
{
	return (deb822 ? apt_sources_parse_deb822 : apt_sources_parse_list)(text, strlen(text), "file", ARCH_AMD64, ret, NULL, e);
}

static void expect(const char *text, bool deb822, const char *expected)
{
	_cleanup_apt_sources_ struct apt_sources s = { 0 };
	_cleanup_buf_ struct buf found = BUF_INIT(8192);
	struct err e = ERR_INIT;

	if (parse(text, deb822, &s, &e) < 0)
		fail_msg("%s: %s", text, e.message);
	for (size_t i = 0; i < s.n; i++) {
		assert_int_equal(buf_appendf(&found, "%s %s", s.items[i].uri, s.items[i].suite), 0);
		for (size_t c = 0; c < s.items[i].components.n; c++)
			assert_int_equal(buf_appendf(&found, " %s", s.items[i].components.items[c]), 0);
		for (size_t c = 0; c < s.items[i].signed_by.n; c++)
			assert_int_equal(buf_appendf(&found, " by %s", s.items[i].signed_by.items[c]), 0);
		if (s.items[i].inline_key)
			assert_int_equal(buf_append_str(&found, " key"), 0);
		if (!s.items[i].check_valid_until)
			assert_int_equal(buf_append_str(&found, " undated"), 0);
		if (s.items[i].trusted)
			assert_int_equal(buf_append_str(&found, " trusted"), 0);
		assert_int_equal(buf_append_char(&found, '\n'), 0);
	}
	assert_string_equal(buf_str(&found), expected);
}

static void expect_refused(const char *text, bool deb822, int code, const char *words)
{
	_cleanup_apt_sources_ struct apt_sources s = { 0 };
	struct err e = ERR_INIT;
	int r = parse(text, deb822, &s, &e);

	if (r != code || !strstr(e.message, words))
		fail_msg("%s: %d %s", text, r, e.message);
}

static void reads_one_line_sources(void **state)
{
	(void)state;
	expect("# nothing\n\n  # at all\n", false, "");
	expect("deb http://deb.example.org/debian/ bookworm main contrib # why\ndeb-src http://x.org/ y z\n", false,
		"http://deb.example.org/debian bookworm main contrib\n");
	expect("deb [ arch=amd64,arm64 signed-by=/a.gpg,/b.gpg ] https://x.org/d s c\n", false,
		"https://x.org/d s c by /a.gpg by /b.gpg\n");
	expect("deb [arch=arm64] https://x.org/d s c\ndeb [arch-=amd64] https://x.org/d s c\n", false, "");
	expect("deb [check-valid-until=no lang=none] http://x.org/d s c\n", false, "http://x.org/d s c undated\n");
	expect("deb http://x.org/d ./\ndeb http://x.org/d $(ARCH)/\n", false, "http://x.org/d ./\nhttp://x.org/d amd64/\n");
	expect("deb cdrom:[Debian_12]/ bookworm main\n", false, "");
	expect("deb mirror+file:/etc/apt/mirrors/x s c\n", false, "mirror+file:/etc/apt/mirrors/x s c\n");
	expect("deb [signed-by=0123456789abcdef0123456789abcdef01234567!] http://x.org/d s c", false,
		"http://x.org/d s c by 0123456789ABCDEF0123456789ABCDEF01234567!\n");
}

static void reads_deb822_sources(void **state)
{
	(void)state;
	expect("Types: deb deb-src\nURIs: mirror+file:/m/a http://b.org/d/\nSuites: s s-updates\nComponents: main\n"
	       "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
		true,
		"mirror+file:/m/a s main by /usr/share/keyrings/debian-archive-keyring.gpg\n"
		"mirror+file:/m/a s-updates main by /usr/share/keyrings/debian-archive-keyring.gpg\n"
		"http://b.org/d s main by /usr/share/keyrings/debian-archive-keyring.gpg\n"
		"http://b.org/d s-updates main by /usr/share/keyrings/debian-archive-keyring.gpg\n");
	expect("Enabled: no\nTypes: deb\nURIs: http://x.org\nSuites: s\nComponents: c\nTrusted: yes\n", true, "");
	expect("Types: deb-src\nURIs: http://x.org\nSuites: s\nComponents: c\n", true, "");
	expect("Types: deb\nURIs: http://x.org\nSuites: s\nComponents: c\nArchitectures: arm64\n", true, "");
	expect("Types: deb\nURIs: http://x.org\nSuites: s\n#Suites: t\nComponents: c\nCheck-Valid-Until: no\n", true,
		"http://x.org s c undated\n");
	expect("Types: deb\nURIs: http://x.org\nSuites: s\nComponents: c\nTrusted: yes\n", true, "http://x.org s c trusted\n");
	expect("deb [trusted=yes] http://x.org/d s c\ndeb [trusted=no] http://y.org/d s c\n", false,
		"http://x.org/d s c trusted\nhttp://y.org/d s c\n");
	expect("Types: deb\nURIs: http://x.org\nSuites: s\nComponents: c\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n"
	       " .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----\n",
		true, "http://x.org s c key\n");
}

static void an_inline_key_is_unfolded(void **state)
{
	_cleanup_apt_sources_ struct apt_sources s = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(parse("Types: deb\nURIs: http://x.org\nSuites: s\nComponents: c\nSigned-By:\n"
			       " -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----\n",
				 true, &s, &e),
		0);
	assert_string_equal(s.items[0].inline_key,
		"\n-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcd\n-----END PGP PUBLIC KEY BLOCK-----\n");
}

static void refuses_by_name(void **state)
{
	(void)state;
	expect_refused("\ndeb mirror://mirrors.org/list s c\n", false, -EPERM, "file:2: the source `mirror://mirrors.org/list`");
	expect_refused("deb mirror+http://mirrors.org/list s c\n", false, -EPERM, "--mirror");
	expect_refused("deb file:/srv/repo s c\n", false, -EPERM, "file:/srv/repo");
	expect_refused("deb tor+http://x.onion/d s c\n", false, -EPERM, "tor+http");
	expect_refused("deb http://user:secret@x.org/d ../s c\n", false, -EBADMSG, "no suite");
	expect_refused("deb ftp://user:secret@x.org/d s c\n", false, -EPERM, "ftp://x.org/d");
	expect_refused("rpm http://x.org/d s c\n", false, -EBADMSG, "expected `deb`");
	expect_refused("deb [arch=amd64 http://x.org/d s c\n", false, -EBADMSG, "without `]`");
	expect_refused("deb http://x.org/d s\n", false, -EBADMSG, "no components");
	expect_refused("deb http://x.org/d s/ main\n", false, -EBADMSG, "ends in a slash");
	expect_refused("deb http://x.org/d\n", false, -EBADMSG, "a URI and a suite");
	expect_refused("deb [signed-by=keys/x.gpg] http://x.org/d s c\n", false, -EBADMSG, "absolute");
	expect_refused("deb [signed-by=DEADBEEF] http://x.org/d s c\n", false, -EBADMSG, "full fingerprints");
	expect_refused("URIs: http://x.org\nSuites: s\nComponents: c\n", true, -EBADMSG, "Types");
	expect_refused("Types: deb\nURIs: http://x.org\nSuites: s\nComponents: c\nEnabled: perhaps\n", true, -EBADMSG, "yes or no");
}

static void lenient_reading_leaves_out_what_it_would_refuse(void **state)
{
	static const char text[] = "deb [trusted=yes] http://x.org/d s c\ndeb file:/srv s c\ndeb http://y.org/d s c\n";
	_cleanup_apt_sources_ struct apt_sources s = { .lenient = true };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(parse(text, false, &s, &e), 0);
	assert_int_equal(s.n, 2);
	assert_string_equal(s.items[0].uri, "http://x.org/d");
	assert_string_equal(s.items[1].uri, "http://y.org/d");
}

static void reads_a_systems_sources_in_apts_order(void **state)
{
	struct apt_fixture *f = *state;
	struct pkg_host_fs fs = pkg_host_fs_folder(&f->root_fd);
	_cleanup_apt_sources_ struct apt_sources s = { 0 };
	_cleanup_strv_ struct strv places = { 0 };
	struct err e = ERR_INIT;

	fixture_write(f, "root/etc/apt/sources.list", "deb http://first.org/d s c\n");
	fixture_write(f, "root/etc/apt/sources.list.d/b.list", "deb http://third.org/d s c\n");
	fixture_write(f, "root/etc/apt/sources.list.d/a.sources",
		"Types: deb\nURIs: mirror+file:/etc/apt/mirrors/list\nSuites: s\nComponents: c\n");
	fixture_write(f, "root/etc/apt/sources.list.d/c.list.disabled", "deb http://not.org/d s c\n");
	fixture_write(f, "root/etc/apt/sources.list.d/d e.list", "deb http://not.org/d s c\n");
	fixture_write(f, "root/etc/apt/mirrors/list",
		"# mirrors\nhttps://m1.org/debian/\tpriority:1\nhttp://m2.org/debian arch:arm64\nhttp://m3.org/debian arch:amd64\n");
	assert_int_equal(apt_sources_read(&fs, ARCH_AMD64, &s, NULL, &e), 0);
	assert_int_equal(s.n, 3);
	assert_string_equal(s.items[0].uri, "http://first.org/d");
	assert_string_equal(s.items[1].where, "/etc/apt/sources.list.d/a.sources:1");
	assert_string_equal(s.items[2].uri, "http://third.org/d");
	assert_int_equal(apt_source_places(&fs, &s.items[1], ARCH_AMD64, &places, &e), 0);
	assert_int_equal(places.n, 2);
	assert_string_equal(places.items[0], "https://m1.org/debian");
	assert_string_equal(places.items[1], "http://m3.org/debian");
	fixture_write(f, "root/etc/apt/mirrors/list", "# none\n");
	assert_int_equal(apt_source_places(&fs, &s.items[1], ARCH_AMD64, &places, &e), -ENOENT);
	assert_non_null(strstr(e.message, "is empty"));
}

static void links_stay_within_the_image(void **state)
{
	struct apt_fixture *f = *state;
	struct pkg_host_fs fs = pkg_host_fs_folder(&f->root_fd);
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);
	struct err e = ERR_INIT;

	fixture_write(f, "root/etc/real", "inside");
	fixture_write(f, "secret", "outside");
	assert_int_equal(symlinkat("/etc/real", f->root_fd, "etc/absolute"), 0);
	assert_int_equal(symlinkat("../../secret", f->root_fd, "etc/out"), 0);
	assert_int_equal(fs.read_file(fs.ctx, "/etc/absolute", &text, &e), 0);
	assert_string_equal(buf_str(&text), "inside");
	assert_int_equal(fs.read_file(fs.ctx, "/etc/out", &text, &e), -ENOENT);
	assert_int_equal(fs.read_file(fs.ctx, "/etc/real/x", &text, &e), -ENOENT);
	assert_int_equal(fs.read_file(fs.ctx, "/etc", &text, &e), -EINVAL);
}

static void maps_mirrors(void **state)
{
	static const struct pkg_mirror rules[] = { { "http://deb.example.org/debian", "http://mirror.example.org/d/" },
		{ "https://ports.example.org", "file:/srv/ports" } };
	char *host_items[] = { (char *)(uintptr_t) "http://lan/debian-security", (char *)(uintptr_t) "http://lan/ubuntu", NULL };
	const struct strv host = { .items = host_items, .n = 2 };
	static const struct {
		const char *uri, *expected;
	} cases[] = { { "http://deb.example.org/debian", "http://mirror.example.org/d" },
		{ "https://deb.example.org/debian/", "http://mirror.example.org/d/" },
		{ "https://user:pw@deb.example.org/debian/sub", "http://mirror.example.org/d/sub" },
		{ "http://deb.example.org/debian-security", "http://lan/debian-security" },
		{ "http://security.debian.org", "http://lan/debian-security" },
		{ "https://ports.example.org/x", "file:/srv/ports/x" }, { "http://other.org/thing", "http://other.org/thing" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_strv_ struct strv found = { 0 };
		struct err e = ERR_INIT;

		assert_int_equal(pkg_mirror_places(cases[i].uri, rules, 2, &host, &found, &e), 0);
		assert_int_equal(found.n, 1);
		if (strncmp(found.items[0], cases[i].expected, strlen(cases[i].expected) - (i == 1)) != 0)
			fail_msg("%s: %s", cases[i].uri, found.items[0]);
	}
}

static void knows_snapshots(void **state)
{
	static const char time[] = "20261101T000000Z";
	static const struct {
		const char *uri, *expected;
	} cases[] = { { "http://deb.example.org/debian", "https://snapshot.debian.org/archive/debian/20261101T000000Z" },
		{ "https://mirror.example.org/debian-security/",
			"https://snapshot.debian.org/archive/debian-security/20261101T000000Z" },
		{ "http://security.debian.org/", "https://snapshot.debian.org/archive/debian-security/20261101T000000Z" },
		{ "http://snapshot.debian.org/archive/debian/20200101T000000Z",
			"http://snapshot.debian.org/archive/debian/20261101T000000Z" },
		{ "http://archive.ubuntu.com/ubuntu", "https://snapshot.ubuntu.com/ubuntu/20261101T000000Z" },
		{ "http://ports.ubuntu.com/ubuntu-ports", "https://snapshot.ubuntu.com/ubuntu/20261101T000000Z" },
		{ "https://download.example.org/linux", NULL } };
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *found = NULL;

		assert_int_equal(pkg_snapshot_place(cases[i].uri, time, &found, &e), 0);
		if (!cases[i].expected)
			assert_null(found);
		else
			assert_string_equal(found, cases[i].expected);
	}
	assert_int_equal(pkg_snapshot_check(time, &e), 0);
	assert_int_equal(pkg_snapshot_check("2026-11-01", &e), -EINVAL);
	assert_int_equal(pkg_snapshot_check("20261101T000000Z/../x", &e), -EINVAL);
}

static void reads_apt_conf(void **state)
{
	static const char text[] = "// c\nAPT { Default-Release \"stable\"; /* x */ Lists { \"a\"; \"b\"; }; };\n"
				   "Acquire::Check-Valid-Until \"false\"; # end\n#clear X;\nacquire { check-valid-until \"true\"; }\n";
	static const char *const broken[] = { "A {", "}", "{", "\"", "A::B", "A { B { C", "};};", "a b c;", "/*" };
	_cleanup_free_ char *value = NULL, *none = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(apt_config_find(text, strlen(text), "APT::Default-Release", &value, &e), 0);
	assert_string_equal(value, "stable");
	assert_int_equal(apt_config_find(text, strlen(text), "Acquire::Check-Valid-Until", &value, &e), 0);
	assert_string_equal(value, "true");
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++)
		assert_int_equal(apt_config_find(broken[i], strlen(broken[i]), "X::Y", &none, &e), 0);
	assert_null(none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_one_line_sources),
		cmocka_unit_test(reads_deb822_sources),
		cmocka_unit_test(an_inline_key_is_unfolded),
		cmocka_unit_test(refuses_by_name),
		cmocka_unit_test(lenient_reading_leaves_out_what_it_would_refuse),
		cmocka_unit_test_setup_teardown(reads_a_systems_sources_in_apts_order, fixture_state_setup, fixture_state_teardown),
		cmocka_unit_test_setup_teardown(links_stay_within_the_image, fixture_state_setup, fixture_state_teardown),
		cmocka_unit_test(maps_mirrors),
		cmocka_unit_test(knows_snapshots),
		cmocka_unit_test(reads_apt_conf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
