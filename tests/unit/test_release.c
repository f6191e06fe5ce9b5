/* builder/packages/release, keyring: signatures judged by gpgv, keys made by gpg */
#include "builder/packages/release.h"

#include "tests/unit/apt_fixture.h"

static const char release_text[] = "Origin: Debian\nLabel: Debian\nSuite: oldstable\nVersion: 12.11\nCodename: bookworm\n"
				   "Date: Sat, 17 May 2025 09:49:02 UTC\nValid-Until: Sat, 24 May 2025 09:49:02 UTC\n"
				   "Acquire-By-Hash: yes\nNo-Support-for-Architecture-all: Packages\nArchitectures: all amd64 arm64\n"
				   "NotAutomatic: yes\nButAutomaticUpgrades: yes\nMD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 0 x\n"
				   "SHA256:\n"
				   " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855        0 main/binary-amd64/Packages\n"
				   " 4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865 44 main/binary-amd64/Packages.xz\n";

static void load(const struct apt_fixture *f, const char *path, struct buf *into)
{
	buf_reset(into);
	fixture_read(f, path, into);
}

/* Verify a file of the fixture with a key of it. */
static int verify(const struct apt_fixture *f, const char *file, const char *signature, const char *key,
	const char *fingerprint, struct apt_release *ret, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(RELEASE_MAX_BYTES), sig = BUF_INIT(RELEASE_SIGNATURE_MAX_BYTES),
				 bytes = BUF_INIT(KEYRING_MAX_BYTES);
	_cleanup_keyring_ struct apt_keyring keyring;
	_cleanup_strv_ struct strv fingerprints = { 0 };

	apt_keyring_init(&keyring);
	load(f, file, &text);
	if (signature)
		load(f, signature, &sig);
	if (fingerprint)
		assert_int_equal(strv_add(&fingerprints, fingerprint), 0);
	load(f, key, &bytes);
	if (apt_keyring_add(&keyring, buf_str(&bytes), bytes.len, key, NULL, e) < 0)
		fail_msg("%s", e->message);
	return apt_release_verify(&text, signature ? &sig : NULL, &keyring, &fingerprints, "the file", ret, e);
}

static void expect_rejected(const struct apt_fixture *f, const char *file, const char *signature, const char *key,
	const char *fingerprint, const char *words)
{
	_cleanup_release_ struct apt_release release;
	struct err e = ERR_INIT;
	int r;

	apt_release_init(&release);
	r = verify(f, file, signature, key, fingerprint, &release, &e);
	if (r != -EKEYREJECTED || !strstr(e.message, words))
		fail_msg("%s: %d %s", file, r, e.message);
	assert_int_equal(release.text.len, 0);
}

static void verifies_with_gpgv(void **state)
{
	struct apt_fixture *f = *state;
	_cleanup_release_ struct apt_release a, b;
	struct err e = ERR_INIT;

	apt_release_init(&a);
	apt_release_init(&b);
	if (verify(f, "InRelease", NULL, "good.gpg", NULL, &a, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(buf_str(&a.text), release_text);
	assert_int_equal(a.signers.n, 1);
	assert_int_equal(strlen(a.signers.items[0]), 40);
	if (verify(f, "Release", "Release.gpg", "good.asc", a.signers.items[0], &b, &e) < 0)
		fail_msg("%s", e.message);
	assert_true(digest_equal(&a.sha256, &b.sha256));
}

static void rejects_what_is_not_signed_well(void **state)
{
	struct apt_fixture *f = *state;
	_cleanup_buf_ struct buf text = BUF_INIT(RELEASE_MAX_BYTES);
	char *at;

	expect_rejected(f, "InRelease", NULL, "evil.gpg", NULL, "not among those trusted");
	expect_rejected(f, "Release", "Release.gpg", "evil.asc", NULL, "not among those trusted");
	expect_rejected(f, "InRelease", NULL, "good.gpg", "0123456789ABCDEF0123456789ABCDEF01234567", "Signed-By");
	expect_rejected(f, "Release", NULL, "good.gpg", NULL, "there is no signature");
	load(f, "InRelease", &text);
	at = strstr(text.data, "Suite: old");
	assert_non_null(at);
	at[7] = 'O';
	fixture_write(f, "InRelease.changed", text.data);
	expect_rejected(f, "InRelease.changed", NULL, "good.gpg", NULL, "is bad");
	/* what stands outside of the signed part is not there */
	load(f, "InRelease", &text);
	{
		_cleanup_release_ struct apt_release release;
		_cleanup_buf_ struct buf more = BUF_INIT(RELEASE_MAX_BYTES);
		struct err e = ERR_INIT;

		apt_release_init(&release);
		assert_int_equal(buf_appendf(&more, "Origin: Evil\n\n%s\nOrigin: Evil\n", buf_str(&text)), 0);
		fixture_write(f, "InRelease.more", buf_str(&more));
		if (verify(f, "InRelease.more", NULL, "good.gpg", NULL, &release, &e) == 0)
			assert_string_equal(buf_str(&release.text), release_text);
	}
}

/* Only sqv in the PATH: detached signatures are verified, clear-signed ones are not read by guesswork. */
static void makes_do_with_sqv(void **state)
{
	struct apt_fixture *f = *state;
	_cleanup_free_ char *path = strdup(getenv("PATH"));
	_cleanup_release_ struct apt_release a, b;
	struct err e = ERR_INIT;
	char only[256];

	fixture_command(f, NULL, "sh", "-ec", "mkdir only; ln -s \"$(command -v sqv)\" only/sqv");
	(void)snprintf(only, sizeof(only), "%s/only", f->dir);
	apt_release_init(&a);
	apt_release_init(&b);
	assert_int_equal(setenv("PATH", only, 1), 0);
	if (verify(f, "Release", "Release.gpg", "good.asc", NULL, &a, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(buf_str(&a.text), release_text);
	assert_int_equal(a.signers.n, 1);
	expect_rejected(f, "Release", "Release.gpg", "evil.asc", NULL, "no good signature");
	expect_rejected(f, "Release", "Release.gpg", "good.asc", "0123456789ABCDEF0123456789ABCDEF01234567", "Signed-By allows");
	expect_rejected(f, "InRelease", "Release.gpg", "good.asc", NULL, "no good signature");
	assert_int_equal(verify(f, "InRelease", NULL, "good.gpg", NULL, &b, &e), -ENOENT);
	assert_int_equal(e.kind, ERR_KIND_HOST);
	assert_int_equal(setenv("PATH", path, 1), 0);
}

static int judge(const char *status, struct err *e)
{
	_cleanup_strv_ struct strv signers = { 0 };
	const struct strv none = { 0 };

	return apt_release_judge_status(status, strlen(status), &none, "x", &signers, e);
}

#define VALID(hash) "[GNUPG:] VALIDSIG " FPR " 2025-05-17 1747474142 0 4 0 1 " hash " 01 " FPR "\n"
#define FPR "4CB50190207B4758A3F73A796ED0E7B82643E131"

static void judges_only_by_status_lines(void **state)
{
	static const struct {
		const char *status, *words; /* NULL: good */
	} cases[] = {
		{ "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG X Y\n" VALID("8"), NULL },
		{ "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG A 1 8 01 1 9 B\n[GNUPG:] NO_PUBKEY A\n[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG X Y\n" VALID(
			  "10"),
			NULL },
		{ "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG X Y\n" VALID("8") "[GNUPG:] NEWSIG\n[GNUPG:] BADSIG X Y\n", "is bad" },
		{ "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG X Y\n", "no signature" },
		{ "[GNUPG:] NEWSIG\n" VALID("8"), "no signature" },
		{ "[GNUPG:] NEWSIG\n[GNUPG:] EXPKEYSIG X Y\n" VALID("8"), "expired" },
		{ "[GNUPG:] NEWSIG\n[GNUPG:] REVKEYSIG X Y\n" VALID("8"), "revoked" },
		{ "[GNUPG:] NEWSIG\n[GNUPG:] EXPSIG X Y\n" VALID("8"), "expired" },
		{ "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG X Y\n" VALID("2"), "SHA-1" },
		{ "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG X Y\n[GNUPG:] NEWSIG\n" VALID("8"), "no signature" },
		{ "gpgv: Good signature\nVALIDSIG\n", "no signature" },
		{ "", "no signature" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err e = ERR_INIT;
		int r = judge(cases[i].status, &e);

		if (r != (cases[i].words ? -EKEYREJECTED : 0) || (cases[i].words && !strstr(e.message, cases[i].words)))
			fail_msg("case %zu: %d %s", i, r, e.message);
	}
}

static void reads_release_files(void **state)
{
	_cleanup_release_ struct apt_release r;
	struct digest d;
	uint64_t size;
	struct err e = ERR_INIT;

	(void)state;
	apt_release_init(&r);
	assert_int_equal(buf_append_str(&r.text, release_text), 0);
	assert_int_equal(apt_release_parse(&r, "x", &e), 0);
	assert_string_equal(r.codename, "bookworm");
	assert_true(r.not_automatic && r.but_automatic_upgrades && r.by_hash && r.packages_without_all);
	assert_int_equal(r.date, 1747475342);
	assert_int_equal(apt_release_find(&r, "main/binary-amd64/Packages.xz", &d, &size), 0);
	assert_int_equal(size, 44);
	assert_int_equal(d.bytes[0], 0x43);
	assert_int_equal(apt_release_find(&r, "binary-amd64/Packages.xz", &d, &size), -ENOENT);
	assert_int_equal(apt_release_find(&r, "x", &d, &size), -ENOENT); /* only in MD5Sum */
	buf_reset(&r.text);
	assert_int_equal(buf_append_str(&r.text, "<html>404</html>"), 0);
	assert_int_equal(apt_release_parse(&r, "x", &e), -EBADMSG);
}

/* The clock of a machine that lost its battery. */
static void says_that_the_clock_may_be_behind(void **state)
{
	struct apt_fixture *f = *state;
	struct err e = ERR_INIT;

	fixture_command(f, NULL, "sh", "-ec",
		"gpg --batch --quiet --faked-system-time 20600101T000000 --passphrase '' --quick-gen-key later ed25519 sign never;"
		"gpg --batch --export later >later.gpg;"
		"gpg --batch --quiet --faked-system-time 20600102T000000 -u later --clearsign -o InRelease.later Release");
	expect_rejected(f, "InRelease.later", NULL, "later.gpg", NULL, "younger than the clock of this machine");
	expect_rejected(f, "InRelease.later", NULL, "later.gpg", NULL, "(2060-01-02 00:00 UTC)");
	assert_int_equal(judge("[GNUPG:] ERRSIG A 1 8 01 99999999999999999999 6\n", &e), -EKEYREJECTED);
}

static void holds_dates_against_the_clock_and_against_the_past(void **state)
{
	struct apt_release r = { .date = 1747475342, .valid_until = 1748080142 };
	char text[RELEASE_EXPIRY_BYTES];
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(apt_release_check_date(&r, r.date - 3600, "x", &e), 0);
	assert_int_equal(apt_release_check_date(&r, r.date - 3601, "x", &e), -ESTALE);
	assert_string_equal(e.message, "x is dated 2025-05-17 09:49 UTC, which is 1 hour ahead of the clock of this machine "
				       "(2025-05-17 08:49 UTC): that clock is probably wrong, set it; if it is right, the archive's is not");
	assert_false(apt_release_has_expired(&r, r.valid_until, text));
	assert_true(apt_release_has_expired(&r, r.valid_until + 2 * 86400 + 5, text));
	assert_string_equal(text, "was valid until 2025-05-24 09:49 UTC, which is 2 days ago by the clock of this machine "
				  "(2025-05-26 09:49 UTC)");
	assert_int_equal(apt_release_check_not_older(&r, 0, "x", &e), 0);
	assert_int_equal(apt_release_check_not_older(&r, r.date, "x", &e), 0);
	assert_int_equal(apt_release_check_not_older(&r, r.date + 1, "x", &e), -ESTALE);
	r.date = r.valid_until = 0;
	assert_false(apt_release_has_expired(&r, 1, text));
	assert_int_equal(apt_release_check_not_older(&r, 1747475342, "x", &e), -ESTALE);
	assert_non_null(strstr(e.message, "is dated (not at all), but the lock has packages by one of 2025-05-17 09:49 UTC"));
}

static void takes_what_nobody_signed_when_told_to(void **state)
{
	struct apt_fixture *f = *state;
	static const char *const files[] = { "InRelease", "Release" };

	for (size_t i = 0; i < 2; i++) {
		_cleanup_buf_ struct buf file = BUF_INIT(RELEASE_MAX_BYTES);
		_cleanup_release_ struct apt_release r;
		struct err e = ERR_INIT;

		apt_release_init(&r);
		load(f, files[i], &file);
		assert_int_equal(apt_release_take_unsigned(&file, "x", &r, &e), 0);
		assert_string_equal(buf_str(&r.text), release_text);
		assert_int_equal(r.sha256.algorithm, DIGEST_NONE);
		assert_int_equal(r.signers.n, 0);
		if (i == 0) {
			*strstr(file.data, "-----BEGIN PGP SIGNATURE") = '\0';
			file.len = strlen(file.data);
			assert_int_equal(apt_release_take_unsigned(&file, "x", &r, &e), -EBADMSG);
		}
	}
}

static void reads_dates(void **state)
{
	static const char *const bad[] = { "", "yesterday", "Sat, 17 May 2025 09:49:02", "Sat, 17 May 2025 09:49:02 CEST",
		"Sat, 17 Foo 2025 09:49:02 UTC", "Sat, 32 May 2025 09:49:02 UTC", "Sat, 17 ayJ 2025 09:49:02 UTC",
		"Sat, 17 May 2025 25:49:02 UTC" };
	int64_t t;

	(void)state;
	assert_int_equal(apt_release_parse_date("Thu,  1 Jan 1970 00:00:10 GMT", 29, &t), 0);
	assert_int_equal(t, 10);
	assert_int_equal(apt_release_parse_date("Thu, 29 Feb 2024 12:00:00 +0000", 31, &t), 0);
	assert_int_equal(t, 1709208000);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (apt_release_parse_date(bad[i], strlen(bad[i]), &t) == 0)
			fail_msg("taken: %s", bad[i]);
}

static void decodes_armour_as_gpg_does(void **state)
{
	struct apt_fixture *f = *state;
	_cleanup_buf_ struct buf armour = BUF_INIT(1 << 20), binary = BUF_INIT(1 << 20), decoded = BUF_INIT(1 << 20),
				 twice = BUF_INIT(1 << 20);
	struct err e = ERR_INIT;
	char *at;

	load(f, "good.asc", &armour);
	load(f, "good.gpg", &binary);
	if (apt_armor_decode(buf_str(&armour), armour.len, &decoded, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(decoded.len, binary.len);
	assert_memory_equal(decoded.data, binary.data, binary.len);
	/* two blocks, text around them, a header, \r\n */
	at = strstr(armour.data, "\n\n");
	assert_non_null(at);
	assert_int_equal(buf_appendf(&twice, "hello\n%.*s\r\nComment: x: y\r\n\r%sbetween\n%s", (int)(at - armour.data), armour.data,
				 at + 1, armour.data),
		0);
	buf_reset(&decoded);
	if (apt_armor_decode(buf_str(&twice), twice.len, &decoded, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(decoded.len, 2 * binary.len);
	/* one letter changed */
	at = strstr(armour.data, "\n\n") + 10;
	*at = *at == 'A' ? 'B' : 'A';
	buf_reset(&decoded);
	assert_int_equal(apt_armor_decode(buf_str(&armour), armour.len, &decoded, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "checksum"));
}

static void refuses_bad_armour(void **state)
{
#define BEGIN "-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
#define END "-----END PGP PUBLIC KEY BLOCK-----\n"
	static const char *const bad[] = { "", "no key", BEGIN, BEGIN "\nAAAA\n", BEGIN END, BEGIN "\n=AAAA\n" END, BEGIN "\nAA*A\n" END,
		BEGIN "\nAAAA\n=AA\n" END, BEGIN "\nAAAA\n=AAAA\nBBBB\n" END, BEGIN "\nA===\n" END, BEGIN "\nAA==AA\n" END };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		_cleanup_buf_ struct buf decoded = BUF_INIT(1 << 20);
		struct err e = ERR_INIT;

		if (apt_armor_decode(bad[i], strlen(bad[i]), &decoded, &e) != -EBADMSG)
			fail_msg("taken: %s", bad[i]);
	}
}

static void gathers_trusted_keys(void **state)
{
	struct apt_fixture *f = *state;
	struct pkg_host_fs fs = pkg_host_fs_folder(&f->root_fd);
	_cleanup_buf_ struct buf armour = BUF_INIT(1 << 20), binary = BUF_INIT(1 << 20);
	_cleanup_keyring_ struct apt_keyring k;
	struct err e = ERR_INIT;

	apt_keyring_init(&k);
	load(f, "good.asc", &armour);
	load(f, "evil.gpg", &binary);
	fixture_write_bytes(f, "root/etc/apt/trusted.gpg", binary.data, binary.len);
	fixture_write_bytes(f, "root/etc/apt/trusted.gpg.d/a.asc", armour.data, armour.len);
	fixture_write(f, "root/etc/apt/trusted.gpg.d/b.txt", "no key");
	fixture_write(f, "root/etc/apt/trusted.gpg.d/c.gpg", "");
	if (apt_keyring_add_trusted(&k, &fs, NULL, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(k.labels.n, 2);
	assert_non_null(strstr(k.labels.items[1], "  /etc/apt/trusted.gpg.d/a.asc"));
	assert_true(k.packets.len > binary.len);
	fixture_write(f, "root/etc/apt/trusted.gpg.d/d.gpg", "garbage");
	assert_int_equal(apt_keyring_add_trusted(&k, &fs, NULL, &e), 0); /* left out with a warning, as apt does */
	assert_int_equal(k.labels.n, 4);
	assert_int_equal(apt_keyring_add_file(&k, &fs, "/etc/apt/trusted.gpg.d/d.gpg", NULL, &e), -EBADMSG);
	assert_non_null(strstr(e.message, "d.gpg"));
}

static int setup(void **state)
{
	static struct apt_fixture f;

	fixture_setup(&f);
	*state = &f;
	fixture_make_key(&f, "good");
	fixture_make_key(&f, "evil");
	fixture_write(&f, "Release", release_text);
	fixture_command(&f, NULL, "gpg", "--batch", "-u", "good", "--clearsign", "-o", "InRelease", "Release");
	fixture_command(&f, NULL, "gpg", "--batch", "-u", "good", "--detach-sign", "--armor", "-o", "Release.gpg", "Release");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verifies_with_gpgv),
		cmocka_unit_test(rejects_what_is_not_signed_well),
		cmocka_unit_test(makes_do_with_sqv),
		cmocka_unit_test(judges_only_by_status_lines),
		cmocka_unit_test(reads_release_files),
		cmocka_unit_test(says_that_the_clock_may_be_behind),
		cmocka_unit_test(holds_dates_against_the_clock_and_against_the_past),
		cmocka_unit_test(takes_what_nobody_signed_when_told_to),
		cmocka_unit_test(reads_dates),
		cmocka_unit_test(decodes_armour_as_gpg_does),
		cmocka_unit_test(refuses_bad_armour),
		cmocka_unit_test(gathers_trusted_keys),
	};

	return cmocka_run_group_tests(tests, setup, fixture_state_teardown);
}
