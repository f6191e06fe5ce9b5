/* Where bytes may be had: which addresses, and in which order. */
#include "builder/candidates.h"
#include "lib/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
/* after the others */
#include <cmocka.h>

#define HEX "abababababababababababababababababababababababababababababababab"

static struct digest digest(void)
{
	struct digest d;

	assert_int_equal(digest_parse_hex(DIGEST_SHA256, HEX, &d), 0);
	return d;
}

/* The candidates, one a line. */
static void expect(const struct wanted_file *file, const struct candidate_rules *rules, const char *expected)
{
	_cleanup_strv_ struct strv found = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 16);
	struct err e = ERR_INIT;

	if (candidates_list(file, rules, &found, &e) < 0)
		fail_msg("%s", e.message);
	for (size_t i = 0; i < found.n; i++)
		assert_int_equal(buf_appendf(&text, "%s\n", found.items[i]), 0);
	assert_string_equal(buf_str(&text), expected);
}

static struct wanted_file package(void)
{
	return (struct wanted_file){ .label = "podman 4.3.1",
		.archive = "http://deb.example.org/debian",
		.file = "pool/main/p/podman/podman_4.3.1_amd64.deb",
		.release_date = 1793521800, /* 2026-11-01 08:30:00 UTC, by date(1) */
		.sha256 = digest() };
}
#define POOL "/pool/main/p/podman/podman_4.3.1_amd64.deb\n"

static void a_package_in_order(void **state)
{
	static const struct pkg_mirror mirrors[] = { { "http://deb.example.org/debian/", "http://near.example.org/d/" },
		{ "https://snapshot.debian.org/archive/debian", "http://127.0.0.1:8080/s" },
		{ "http://deb.example.org/debian-security", "http://no.example.org" },
		{ "https://deb.example.org", "http://far.example.org" } };
	struct strv stores = { 0 }, host = { 0 };
	struct candidate_rules rules = { .blob_stores = &stores, .mirrors = mirrors, .n_mirrors = 4, .host_mirrors = &host };
	struct wanted_file file = package();

	(void)state;
	assert_int_equal(strv_add(&stores, "blobs/"), 0);
	assert_int_equal(strv_add(&stores, "https://store.example.org/x//"), 0);
	assert_int_equal(strv_add(&host, "http://host.example.org/debian-security"), 0);
	assert_int_equal(strv_add(&host, "http://host.example.org/debian/"), 0);
	expect(&file, &rules,
		"blobs/sha256/" HEX "\n"
		"https://store.example.org/x/sha256/" HEX "\n"
		"http://near.example.org/d" POOL
		"http://far.example.org/debian" POOL
		"http://host.example.org/debian" POOL
		"http://deb.example.org/debian" POOL
		"http://127.0.0.1:8080/s/20261101T143000Z" POOL
		"https://snapshot.debian.org/archive/debian/20261101T143000Z" POOL
		"http://127.0.0.1:8080/s/20261102T083000Z" POOL
		"https://snapshot.debian.org/archive/debian/20261102T083000Z" POOL);
	strv_release(&stores);
	strv_release(&host);
}

static void snapshots_where_they_are_known(void **state)
{
	static const struct {
		const char *archive;
		int64_t date;
		const char *expected;
	} cases[] = {
		{ "http://security.example.org/debian-security/", 1793521800,
			"http://security.example.org/debian-security" POOL
			"https://snapshot.debian.org/archive/debian-security/20261101T143000Z" POOL
			"https://snapshot.debian.org/archive/debian-security/20261102T083000Z" POOL },
		{ "http://archive.example.org/ubuntu", 1793521800,
			"http://archive.example.org/ubuntu" POOL "https://snapshot.ubuntu.com/ubuntu/20261101T143000Z" POOL
			"https://snapshot.ubuntu.com/ubuntu/20261102T083000Z" POOL },
		/* of an archive that nobody keeps, at no known time, at a snapshot already */
		{ "http://packages.example.org/tools", 1793521800, "http://packages.example.org/tools" POOL },
		{ "http://deb.example.org/debian", 0, "http://deb.example.org/debian" POOL },
		{ "https://snapshot.debian.org/archive/debian/20260101T000000Z", 1793521800,
			"https://snapshot.debian.org/archive/debian/20260101T000000Z" POOL },
		{ "https://snapshot.debian.org/archive/debian/20260101T000000Z/", 1793521800,
			"https://snapshot.debian.org/archive/debian/20260101T000000Z" POOL },
		/* times that no lock of ours has */
		{ "http://deb.example.org/debian", -5, "http://deb.example.org/debian" POOL },
		{ "http://deb.example.org/debian", INT64_MAX, "http://deb.example.org/debian" POOL },
		{ "http://deb.example.org/debian", INT64_C(253402000001), "http://deb.example.org/debian" POOL },
	};
	struct candidate_rules rules = { .mirrors = NULL };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct wanted_file file = package();

		file.archive = cases[i].archive;
		file.release_date = cases[i].date;
		expect(&file, &rules, cases[i].expected);
	}
}

static void user_info_of_the_plan(void **state)
{
	static struct plan_repository repositories[] = { { .uri = (char *)"https://other.example.org/tools" },
		{ .uri = (char *)"https://user:hunter2@packages.example.org/tools/" } };
	static const struct pkg_mirror mirror = { "http://packages.example.org/tools", "http://me:secret@near.example.org/t" };
	struct candidate_rules rules = { .repositories = repositories, .n_repositories = 2 };
	struct wanted_file file = package();

	(void)state;
	file.archive = "https://packages.example.org/tools";
	expect(&file, &rules, "https://user:hunter2@packages.example.org/tools" POOL);
	/* It is that archive's alone: no mirror gets it. */
	rules.mirrors = &mirror;
	rules.n_mirrors = 1;
	expect(&file, &rules,
		"http://me:secret@near.example.org/t" POOL "https://user:hunter2@packages.example.org/tools" POOL);
	file.archive = "https://packages.example.org/tools-more";
	expect(&file, &rules, "https://packages.example.org/tools-more" POOL);
	file.archive = "http://packages.example.org/tools"; /* not https: not where the password goes */
	rules.n_mirrors = 0;
	expect(&file, &rules, "http://packages.example.org/tools" POOL);
}

static void a_file_by_url(void **state)
{
	static const struct pkg_mirror mirrors[] = { { "https://cloud.example.org/images", "http://near.example.org/i" },
		{ "https://cdn.example.org", "file:/srv/cdn" }, { "https://cloud.example.org/image", "http://no.example.org" } };
	struct candidate_rules rules = { .mirrors = mirrors, .n_mirrors = 3 };
	struct strv stores = { 0 };
	struct wanted_file file = { .label = "base image",
		.url = "https://me:pw@cloud.example.org/images/current/base.qcow2?token=1",
		.resolved = "https://cdn.example.org/7/base.qcow2" };

	(void)state;
	assert_int_equal(strv_add(&stores, "/srv/blobs"), 0);
	rules.blob_stores = &stores;
	/* Of unknown bytes: neither stores nor hints. */
	expect(&file, &rules, "http://near.example.org/i/current/base.qcow2?token=1\n"
			      "https://me:pw@cloud.example.org/images/current/base.qcow2?token=1\n");
	file.sha256 = digest();
	expect(&file, &rules, "/srv/blobs/sha256/" HEX "\n"
			      "http://near.example.org/i/current/base.qcow2?token=1\n"
			      "file:/srv/cdn/7/base.qcow2\n"
			      "https://me:pw@cloud.example.org/images/current/base.qcow2?token=1\n"
			      "https://cdn.example.org/7/base.qcow2\n");
	file.resolved = file.url;
	rules.n_mirrors = 0;
	expect(&file, &rules, "/srv/blobs/sha256/" HEX "\n"
			      "https://me:pw@cloud.example.org/images/current/base.qcow2?token=1\n");
	strv_release(&stores);
}

static void a_package_from_nowhere(void **state)
{
	struct candidate_rules rules = { .mirrors = NULL };
	_cleanup_strv_ struct strv found = { 0 };
	struct wanted_file file = package();
	struct strv stores = { 0 };
	struct err e = ERR_INIT;

	(void)state;
	file.archive = NULL;
	assert_int_equal(candidates_list(&file, &rules, &found, &e), -ENOENT);
	assert_int_equal(e.kind, ERR_KIND_USAGE);
	assert_non_null(strstr(e.message, "podman 4.3.1"));
	/* A store has it by its digest. */
	assert_int_equal(strv_add(&stores, "/b"), 0);
	rules.blob_stores = &stores;
	expect(&file, &rules, "/b/sha256/" HEX "\n");
	strv_release(&stores);
}

static void what_the_lock_answers(void **state)
{
	struct plan_location location = { .url = (char *)"https://example.org/k" };
	struct lock_blob answer = { .size_bytes = 77, .resolved_url = (char *)"https://cdn.example.org/k" }, other = { .size_bytes = 5 };
	struct wanted_file file = wanted_location("kernel", &location, &answer);

	(void)state;
	assert_int_equal(file.sha256.algorithm, DIGEST_NONE); /* an empty section is no answer */
	assert_int_equal(file.about_bytes, 0);
	answer.sha256 = digest();
	file = wanted_location("kernel", &location, &answer);
	assert_true(digest_equal(&file.sha256, &answer.sha256));
	assert_int_equal(file.about_bytes, 77);
	assert_string_equal(file.resolved, "https://cdn.example.org/k");
	assert_int_equal(file.size_bytes, 0);
	/* The plan has moved on since: what the lock remembers is of another file. */
	location.sha256 = digest();
	other.sha256 = digest();
	other.sha256.bytes[0] ^= 1;
	file = wanted_location("kernel", &location, &other);
	assert_true(digest_equal(&file.sha256, &location.sha256));
	assert_int_equal(file.about_bytes, 0);
	assert_null(file.resolved);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_package_in_order),
		cmocka_unit_test(snapshots_where_they_are_known),
		cmocka_unit_test(user_info_of_the_plan),
		cmocka_unit_test(a_file_by_url),
		cmocka_unit_test(a_package_from_nowhere),
		cmocka_unit_test(what_the_lock_answers),
	};

	return cmocka_run_group_tests_name("candidates", tests, NULL, NULL);
}
