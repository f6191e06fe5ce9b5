/* builder/packages: whole resolutions against small signed repositories that are served from a folder. */
#include "builder/packages/packages.h"

#include "tests/unit/apt_fixture.h"

enum { NOW = 1747500000 }; /* 2025-05-17 */

struct world {
	struct apt_fixture f;
	unsigned n_fetched, n_batches;
	unsigned spoil_lists; /* so many fetches of package lists give the wrong bytes */
	char last_url[1024];
	struct buf pauses; /* in milliseconds */
	bool cancelled;
	struct buf log; /* URLs in the order of fetching */
};

static int serve(struct world *w, struct pkg_get *get)
{
	for (size_t i = 0; i < get->urls->n; i++) {
		const char *url = get->urls->items[i], *scheme = strstr(url, "://"), *at;
		struct err ignored = ERR_INIT;
		char path[1024];

		assert_non_null(scheme);
		at = memchr(scheme + 3, '@', strcspn(scheme + 3, "/"));
		(void)snprintf(path, sizeof(path), "served/%s", at ? at + 1 : scheme + 3);
		w->n_fetched++;
		assert_int_equal(buf_appendf(&w->log, "%s\n", url), 0);
		if (read_file_at(w->f.dir_fd, path, false, &get->bytes, &ignored) < 0)
			continue;
		if (w->spoil_lists > 0 && get->expected) {
			w->spoil_lists--;
			get->bytes.data[get->bytes.len / 2] ^= 1;
		}
		return 0;
	}
	return -ENOENT;
}

static int fetch_many(void *ctx, struct pkg_get *gets, size_t n, struct err *e)
{
	bool down = false;

	/* As from a server that is not there. */
	for (size_t i = 0; i < n; i++)
		if (strstr(gets[i].urls->items[0], "://down.test/")) {
			gets[i].status = -ECONNREFUSED;
			down = true;
		}
	((struct world *)ctx)->n_batches++;
	if (down)
		return err_set_kind(e, ERR_KIND_INPUT, -ECONNREFUSED, "down.test does not answer");
	for (size_t i = 0; i < n; i++)
		gets[i].status = serve(ctx, &gets[i]);
	return 0;
}

static int pause_of_no_time(void *ctx, unsigned pause_ms, struct err *e)
{
	struct world *w = ctx;

	assert_int_equal(buf_appendf(&w->pauses, "%u ", pause_ms), 0);
	return w->cancelled ? err_set_kind(e, ERR_KIND_HOST, -ECANCELED, "interrupted") : 0;
}

#define DATES "Date: Sat, 17 May 2025 09:49:02 UTC\n"
#define DEBIAN "Origin: Debian\nLabel: Debian\nArchitectures: amd64\n" DATES

/* Publish a suite of http://repo.test/debian with these packages in its only component. */
static void publish(struct world *w, const char *suite, const char *packages, const char *release_fields)
{
	char folder[256], path[300];

	(void)snprintf(folder, sizeof(folder), "served/repo.test/debian/dists/%s", suite);
	(void)snprintf(path, sizeof(path), "%s/main/binary-amd64/Packages", folder);
	fixture_write(&w->f, path, packages);
	(void)snprintf(path, sizeof(path), "%s/Release", folder);
	fixture_write(&w->f, path, release_fields);
	fixture_command(&w->f, NULL, "sh", "-ec",
		"cd \"$0\"; rm -f InRelease Release.gpg; grep -q ^Suite: Release || printf 'Suite: %s\\nCodename: %s\\n' $1 $1 >>Release;"
		"echo SHA256: >>Release;"
		"xz -f -k -c main/binary-amd64/Packages >main/binary-amd64/Packages.xz;"
		"for x in main/binary-amd64/Packages main/binary-amd64/Packages.xz; do"
		"  printf ' %s %s %s\\n' $(sha256sum <$x | cut -c1-64) $(stat -c %s $x) $x >>Release; done;"
		"gpg --batch -u archive --clearsign -o InRelease Release",
		folder, suite);
}

/* A stanza of a package list. Versions and file names follow from the name. */
#define P(name, version, fields)                                                                             \
	"Package: " name "\nVersion: " version "\nArchitecture: amd64\nPriority: optional\n" fields            \
	"Filename: pool/" name "_" version ".deb\nSize: 10\nSHA256: "                                             \
	"0000000000000000000000000000000000000000000000000000000000000000\n\n"
#define INSTALLED(name, version, fields)                                                                     \
	"Package: " name "\nStatus: install ok installed\nVersion: " version                                      \
	"\nArchitecture: amd64\nPriority: optional\n" fields "\n"

/* The words of a list, for requests. */
static void words(const char *text, struct strv *ret)
{
	_cleanup_free_ char *copy = strdup(text);
	char *save = NULL;

	assert_non_null(copy);
	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		assert_int_equal(strv_add(ret, word), 0);
}

static struct pkg_request request_of(struct world *w)
{
	return (struct pkg_request){ .arch = ARCH_AMD64,
		.fs = pkg_host_fs_folder(&w->f.root_fd),
		.transport = { .ctx = w, .fetch_many = fetch_many, .pause = pause_of_no_time },
		.now = NOW };
}

/* "+a=1 +b=1<0 -c(why d)", in the set's order. */
static void describe(const struct pkg_set *set, struct buf *into)
{
	static const char *const reasons[] = { "asked", "conflict", "depends" };

	buf_reset(into);
	for (size_t i = 0; i < set->n_items; i++)
		assert_int_equal(buf_appendf(into, "%s+%s=%s%s%s", into->len ? " " : "", set->items[i].name, set->items[i].version,
					 set->items[i].replaces_version ? "<" : "",
					 set->items[i].replaces_version ? set->items[i].replaces_version : ""),
			0);
	for (size_t i = 0; i < set->n_removals; i++)
		assert_int_equal(buf_appendf(into, "%s-%s(%s %s)", into->len ? " " : "", set->removals[i].name,
					 reasons[set->removals[i].reason], set->removals[i].because),
			0);
}

static int resolve(struct world *w, const char *install, const char *remove, struct pkg_set *set, struct err *e)
{
	_cleanup_strv_ struct strv in = { 0 }, out = { 0 };
	struct pkg_request q = request_of(w);

	words(install, &in);
	words(remove, &out);
	q.install = &in;
	q.remove = &out;
	return pkg_resolve(&q, set, e);
}

static void expect(struct world *w, const char *install, const char *remove, const char *expected)
{
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(8192);
	struct err e = ERR_INIT;

	if (resolve(w, install, remove, &set, &e) < 0)
		fail_msg("%s: %s", install, e.message);
	describe(&set, &text);
	assert_string_equal(buf_str(&text), expected);
}

static void expect_refused(struct world *w, const char *install, const char *remove, int code, enum err_kind kind,
	const char *needle)
{
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	struct err e = ERR_INIT;
	int r = resolve(w, install, remove, &set, &e);

	if (r != code || !strstr(e.message, needle) || e.kind != kind)
		fail_msg("%s: %d, kind %d: %s", install, r, (int)e.kind, e.message);
}

static void the_first_alternative_goes_in(void **state)
{
	struct world *w = *state;

	publish(w, "stable",
		P("a", "1", "Depends: x | y, z\n") P("x", "1", "") P("y", "1", "") P("z", "1", "Recommends: r\n") P("r", "1", ""),
		DEBIAN);
	expect(w, "a", "", "+a=1 +x=1 +z=1");
	fixture_write(&w->f, "root/var/lib/dpkg/status", INSTALLED("y", "1", ""));
	expect(w, "a", "", "+a=1 +z=1"); /* an installed alternative wins */
	publish(w, "stable", P("a", "1", "Depends: x | y\n") P("y", "1", ""), DEBIAN);
	expect(w, "a", "", "+a=1"); /* x is not to be had */
	fixture_write(&w->f, "root/var/lib/dpkg/status", "");
	expect(w, "a a:amd64 a=1", "", "+a=1 +y=1");
}

static void recommends_only_when_asked(void **state)
{
	struct world *w = *state;
	_cleanup_strv_ struct strv in = { 0 };
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(8192);
	struct pkg_request q = request_of(w);
	struct err e = ERR_INIT;

	publish(w, "stable", P("a", "1", "Recommends: r, absent\n") P("r", "1", ""), DEBIAN);
	words("a", &in);
	q.install = &in;
	q.recommends = true;
	if (pkg_resolve(&q, &set, &e) < 0)
		fail_msg("%s", e.message);
	describe(&set, &text);
	assert_string_equal(buf_str(&text), "+a=1 +r=1");
}

static void backports_do_not_win(void **state)
{
	struct world *w = *state;

	publish(w, "stable", P("a", "1", "Depends: b\n") P("b", "1", ""), DEBIAN);
	publish(w, "backports", P("a", "2~bpo", "Depends: b (>= 2~)\n") P("b", "2~bpo", "") P("only", "1~bpo", ""),
		DEBIAN "NotAutomatic: yes\nButAutomaticUpgrades: yes\n");
	fixture_write(&w->f, "root/etc/apt/sources.list",
		"deb http://repo.test/debian stable main\ndeb http://repo.test/debian backports main\n");
	expect(w, "a", "", "+a=1 +b=1");
	expect(w, "only", "", "+only=1~bpo");
	fixture_write(&w->f, "root/etc/apt/preferences.d/a", "Package: a b\nPin: release n=backports\nPin-Priority: 900\n");
	expect(w, "a", "", "+a=2~bpo +b=2~bpo");
	expect_refused(w, "a=1 b=3", "", -ENOENT, ERR_KIND_USAGE, "`b` in version 3; there is 2~bpo, 1");
}

static void a_conflict_takes_out_what_is_in_the_way(void **state)
{
	struct world *w = *state;

	publish(w, "stable",
		P("chrony", "4", "Provides: time-daemon\nConflicts: time-daemon\nReplaces: time-daemon\n")
			P("systemd-timesyncd", "252", "Provides: time-daemon\nConflicts: time-daemon\nReplaces: time-daemon\n"),
		DEBIAN);
	fixture_write(&w->f, "root/var/lib/dpkg/status",
		INSTALLED("systemd-timesyncd", "252", "Provides: time-daemon\nConflicts: time-daemon\n")
			INSTALLED("systemd", "252", "Recommends: systemd-timesyncd | time-daemon\n"));
	expect(w, "chrony", "", "+chrony=4 -systemd-timesyncd(conflict chrony)");
	expect(w, "chrony", "systemd-timesyncd absent", "+chrony=4 -systemd-timesyncd(asked )");
	expect(w, "systemd-timesyncd", "", "");
}

static void a_broken_old_version_is_upgraded(void **state)
{
	struct world *w = *state;

	publish(w, "stable", P("a", "2", "Breaks: old (<< 2)\n") P("old", "2", "Source: s\n") P("sister", "2", "Source: s\n"), DEBIAN);
	fixture_write(&w->f, "root/var/lib/dpkg/status",
		INSTALLED("old", "1", "Source: s\n") INSTALLED("sister", "1", "Source: s\n") INSTALLED("other", "1", ""));
	expect(w, "a", "", "+a=2 +old=2<1 +sister=2<1"); /* what is built from the same source follows */
	expect(w, "old", "", "+old=2<1 +sister=2<1");
}

static void where_the_pass_fails_the_search_finds(void **state)
{
	struct world *w = *state;

	/* apt's order takes p for a; each way to serve b excludes p. */
	publish(w, "stable",
		P("a", "1", "Depends: p | q\n") P("b", "1", "Depends: z | zz\n") P("p", "1", "") P("q", "1", "")
			P("z", "1", "Conflicts: p\n") P("zz", "1", "Conflicts: p\n"),
		DEBIAN);
	expect(w, "a b", "", "+a=1 +b=1 +q=1 +z=1");
}

static void removing_takes_dependents_along(void **state)
{
	struct world *w = *state;

	publish(w, "stable", P("a", "1", "") P("heavy", "1", "Provides: mta\n"), DEBIAN);
	fixture_write(&w->f, "root/var/lib/dpkg/status",
		INSTALLED("light", "1", "Provides: mta\n") INSTALLED("mailx", "1", "Depends: default-mta | mta\n")
			INSTALLED("cron", "1", "Depends: mailx\n"));
	expect(w, "a", "light", "+a=1 -cron(depends mailx) -light(asked ) -mailx(depends light)");
	expect(w, "heavy", "light", "+heavy=1 -light(asked )");
	fixture_write(&w->f, "root/var/lib/dpkg/status",
		INSTALLED("snapd", "1", "") INSTALLED("server", "1", "Depends: snapd\n") INSTALLED("rest", "1", ""));
	expect(w, "a", "snapd", "+a=1 -server(depends snapd) -snapd(asked )");
}

static void what_cannot_be_is_explained(void **state)
{
	struct world *w = *state;

	publish(w, "stable",
		P("a", "1", "Depends: gone (>= 2)\n") P("b", "1", "Depends: c\n") P("c", "1", "Conflicts: d\n") P("d", "1", "")
			P("podman", "1", "") P("e1", "1", "Provides: e\n") P("e2", "1", "Provides: e\n")
				P("solo", "1", "Provides: only\n"),
		DEBIAN);
	expect_refused(w, "a", "", -EUNATCH, ERR_KIND_USAGE, "`a` 1 needs `gone >= 2`, which no source has");
	expect_refused(w, "b d", "", -EUNATCH, ERR_KIND_USAGE, "`c` 1 conflicts with `d` 1");
	expect_refused(w, "podmann x-y-z", "", -ENOENT, ERR_KIND_USAGE, "packages `podmann` (did you mean `podman`?), `x-y-z`");
	expect_refused(w, "e", "", -EINVAL, ERR_KIND_USAGE, "`e` is a virtual package; name one that provides it: `e1`, `e2`");
	expect(w, "only", "", "+solo=1");
	expect_refused(w, "podman:i386", "", -EINVAL, ERR_KIND_USAGE, "foreign architecture");
	expect_refused(w, "Pod man!", "", -EINVAL, ERR_KIND_USAGE, "`man!` is no package");
	expect_refused(w, "podman", "podman", -EINVAL, ERR_KIND_USAGE, "both in [packages] and in [apt] remove");
}

static void the_base_is_not_broken(void **state)
{
	struct world *w = *state;

	publish(w, "stable", P("evil", "1", "Conflicts: systemd-sysv, dash\n") P("held", "2", "") P("wants", "1", "Depends: held (>= 2)\n"),
		DEBIAN);
	fixture_write(&w->f, "root/var/lib/dpkg/status",
		INSTALLED("systemd-sysv", "1", "") INSTALLED("dash", "1", "Essential: yes\n")
			INSTALLED("half", "1", "Depends: never-there\n")
		"Package: held\nStatus: hold ok installed\nVersion: 1\nArchitecture: amd64\n\n");
	expect_refused(w, "evil", "", -EUNATCH, ERR_KIND_USAGE, "`evil` 1 conflicts with");
	expect_refused(w, "", "dash", -EPERM, ERR_KIND_USAGE, "cannot do without");
	expect_refused(w, "", "systemd-sysv", -EPERM, ERR_KIND_USAGE, "`systemd-sysv`");
	expect_refused(w, "wants", "", -EUNATCH, ERR_KIND_USAGE, "`held");
}

static void an_update_of_the_mirror_is_waited_for(void **state)
{
	struct world *w = *state;

	publish(w, "stable", P("a", "1", ""), DEBIAN);
	w->spoil_lists = 3;
	expect(w, "a", "", "+a=1");
	assert_string_equal(buf_str(&w->pauses), "1000 3000 9000 ");
	w->spoil_lists = 4;
	expect_refused(w, "a", "", -EBADMSG, ERR_KIND_INPUT, "does not match the signed release file");
	w->spoil_lists = 4;
	expect_refused(w, "a", "", -EBADMSG, ERR_KIND_INPUT,
		"`http://repo.test/debian` is in the middle of an update, or what it has was changed (asked 4 times, ");
	w->spoil_lists = 1;
	w->cancelled = true;
	expect_refused(w, "a", "", -ECANCELED, ERR_KIND_HOST, "interrupted");
	w->cancelled = false;
	buf_reset(&w->pauses);
	w->spoil_lists = 0;
	assert_int_equal(unlinkat(w->f.dir_fd, "served/repo.test/debian/dists/stable/main/binary-amd64/Packages.xz", 0), 0);
	expect_refused(w, "a", "", -EBADMSG, ERR_KIND_INPUT, "is not there, though the release file names it");
}

static void lists_are_fetched_by_digest_where_that_is_offered(void **state)
{
	struct world *w = *state;

	publish(w, "stable", P("a", "1", ""), DEBIAN "Acquire-By-Hash: yes\n");
	fixture_command(&w->f, NULL, "sh", "-ec",
		"cd served/repo.test/debian/dists/stable/main/binary-amd64; mkdir -p by-hash/SHA256;"
		"mv Packages.xz by-hash/SHA256/$(sha256sum <Packages.xz | cut -c1-64)");
	expect(w, "a", "", "+a=1");
	assert_non_null(strstr(buf_str(&w->log), "/main/binary-amd64/by-hash/SHA256/"));
}

static void signatures_are_demanded(void **state)
{
	struct world *w = *state;
	static const char folder[] = "served/repo.test/debian/dists/stable";

	publish(w, "stable", P("a", "1", ""), DEBIAN);
	fixture_command(&w->f, NULL, "sh", "-ec",
		"cd $0; rm InRelease; gpg --batch -u archive --armor --detach-sign -o Release.gpg Release", folder);
	expect(w, "a", "", "+a=1");
	fixture_command(&w->f, NULL, "sh", "-ec", "cd $0; rm Release.gpg", folder);
	expect_refused(w, "a", "", -EKEYREJECTED, ERR_KIND_INPUT, "is not signed");
	fixture_command(&w->f, NULL, "sh", "-ec", "cd $0; gpg --batch -u other --clearsign -o InRelease Release", folder);
	expect_refused(w, "a", "", -EKEYREJECTED, ERR_KIND_INPUT, "not among those trusted");
	fixture_command(&w->f, NULL, "sh", "-ec", "cd $0; rm InRelease Release", folder);
	expect_refused(w, "a", "", -ENOENT, ERR_KIND_INPUT, "has neither InRelease nor Release");
	publish(w, "stable", P("a", "1", ""), DEBIAN "Suite: testing\nCodename: sid\n");
	expect_refused(w, "a", "", -EBADMSG, ERR_KIND_INPUT, "is of suite `testing`, codename `sid`");
	publish(w, "stable", P("a", "1", ""), "Origin: Debian Backports\nSuite: stable-backports\nCodename: bookworm-backports\n");
	expect_refused(w, "a", "", -EBADMSG, ERR_KIND_INPUT, "is of suite `stable-backports`");
	fixture_write(&w->f, "root/etc/apt/sources.list", "deb [signed-by=/none.gpg] http://repo.test/debian stable main\n");
	expect_refused(w, "a", "", -EKEYREJECTED, ERR_KIND_INPUT, "`/none.gpg` of Signed-By is not in the base image");
}

static void dates_are_checked_unless_a_snapshot_is_meant(void **state)
{
	struct world *w = *state;
	_cleanup_strv_ struct strv in = { 0 };
	_cleanup_pkg_set_ struct pkg_set set = { 0 }, then = { 0 };
	struct pkg_request q = request_of(w);
	struct err e = ERR_INIT;

	publish(w, "stable", P("a", "1", ""), DEBIAN "Valid-Until: Sat, 17 May 2025 10:00:00 UTC\n");
	expect_refused(w, "a", "", -ESTALE, ERR_KIND_INPUT, "was valid until 2025-05-17 10:00 UTC");
	words("a", &in);
	q.install = &in;
	q.ignore_valid_until = true;
	assert_int_equal(pkg_resolve(&q, &set, &e), 0);
	q.ignore_valid_until = false;
	q.snapshot = "20250517T120000Z";
	fixture_command(&w->f, NULL, "sh", "-ec",
		"mkdir -p served/snapshot.debian.org/archive/debian; cp -r served/repo.test/debian "
		"served/snapshot.debian.org/archive/debian/20250517T120000Z; rm -r served/repo.test");
	if (pkg_resolve(&q, &then, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(then.items[0].archive, "https://snapshot.debian.org/archive/debian/20250517T120000Z");
	q.snapshot = "yesterday";
	assert_int_equal(pkg_resolve(&q, &set, &e), -EINVAL);
}

static void mirrors_change_only_where_bytes_come_from(void **state)
{
	static const struct pkg_mirror mirror = { "https://user:secret@origin.test/debian", "http://repo.test/debian" };
	struct world *w = *state;
	_cleanup_strv_ struct strv in = { 0 };
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	struct pkg_request q = request_of(w);
	struct err e = ERR_INIT;

	publish(w, "stable", P("a", "1", ""), DEBIAN);
	fixture_write(&w->f, "root/etc/apt/sources.list", "deb http://me:token@origin.test/debian stable main\n");
	words("a", &in);
	q.install = &in;
	q.mirrors = &mirror;
	q.n_mirrors = 1;
	if (pkg_resolve(&q, &set, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(set.items[0].archive, "http://origin.test/debian");
	assert_string_equal(set.items[0].filename, "pool/a_1.deb");
	assert_int_equal(set.items[0].uris.n, 2); /* the mirror, then the archive itself */
	assert_string_equal(set.items[0].uris.items[0], "http://repo.test/debian/pool/a_1.deb");
	assert_string_equal(set.items[0].suite, "stable");
	assert_int_equal(set.n_releases, 1);
	assert_int_equal(set.releases[0].signers.n, 1);
	assert_int_equal(set.n_keyrings, 1);
	assert_string_equal(set.keyrings[0].path, "/etc/apt/trusted.gpg.d/archive.asc");
	assert_int_equal(set.keyrings[0].sha256.algorithm, DIGEST_SHA256);
	assert_int_equal(set.items[0].release_date, set.releases[0].date);
	assert_true(set.items[0].requested);
	assert_null(strstr(buf_str(&w->log), "token"));
}

/* All metadata of a suite comes from one place; what that one lacks or mixes up, the next one may have. */
static void where_a_mirror_fails_the_archive_itself_is_asked(void **state)
{
	static const struct pkg_mirror mirror = { "http://repo.test/debian", "http://mirror.test/debian" };
	struct world *w = *state;
	_cleanup_strv_ struct strv in = { 0 };
	_cleanup_pkg_set_ struct pkg_set set = { 0 }, again = { 0 }, signed_set = { 0 };
	struct pkg_request q = request_of(w);
	struct err e = ERR_INIT;

	publish(w, "stable", P("a", "1", ""), DEBIAN);
	words("a", &in);
	q.install = &in;
	q.mirrors = &mirror;
	q.n_mirrors = 1;
	if (pkg_resolve(&q, &set, &e) < 0) /* the mirror has nothing at all */
		fail_msg("%s", e.message);
	fixture_command(&w->f, NULL, "sh", "-ec",
		"mkdir served/mirror.test; cp -r served/repo.test/debian served/mirror.test; echo >>served/mirror.test/debian/dists/stable/"
		"main/binary-amd64/Packages.xz");
	buf_reset(&w->log);
	if (pkg_resolve(&q, &again, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(buf_str(&w->pauses), "1000 3000 9000 ");
	assert_non_null(strstr(buf_str(&w->log), "http://repo.test/debian/dists/stable/InRelease\nhttp://repo.test/debian/dists/stable/"
						 "main/binary-amd64/Packages.xz\n"));
	/* One that gives what cannot be believed is not excused by another that would not. */
	fixture_command(&w->f, NULL, "sh", "-ec", "cd served/mirror.test/debian/dists/stable; sed -i s/^Label/Lable/ InRelease");
	assert_int_equal(pkg_resolve(&q, &signed_set, &e), -EKEYREJECTED);
}

/* A mirror that is down is found out once for all suites that come from it. */
static void a_mirror_that_is_down_is_left_by_all_at_once(void **state)
{
	static const struct pkg_mirror mirror = { "http://repo.test/debian", "http://down.test/debian" };
	struct world *w = *state;
	_cleanup_strv_ struct strv in = { 0 };
	_cleanup_pkg_set_ struct pkg_set set = { 0 }, none = { 0 };
	struct pkg_request q = request_of(w);
	struct err e = ERR_INIT;

	publish(w, "stable", P("a", "1", ""), DEBIAN);
	publish(w, "other", P("b", "1", ""), DEBIAN);
	fixture_write(&w->f, "root/etc/apt/sources.list", "deb http://repo.test/debian stable main\ndeb http://repo.test/debian other main\n");
	words("a b", &in);
	q.install = &in;
	q.mirrors = &mirror;
	q.n_mirrors = 1;
	w->n_batches = 0;
	if (pkg_resolve(&q, &set, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(set.n_items, 2);
	assert_int_equal(w->n_batches, 3); /* release files from the mirror; release files; lists */
	assert_int_equal(w->pauses.len, 0);
	fixture_write(&w->f, "root/etc/apt/sources.list", "deb http://down.test/debian stable main\n");
	assert_int_equal(pkg_resolve(&q, &none, &e), -ECONNREFUSED);
	assert_string_equal(e.message, "down.test does not answer");
}

static void a_trusted_archive_needs_the_plans_word(void **state)
{
	struct world *w = *state;
	_cleanup_strv_ struct strv in = { 0 }, trusted = { 0 };
	struct pkg_request q = request_of(w);
	static const char folder[] = "served/repo.test/debian/dists/stable";
	static const char *const spoil[] = { "true", "rm InRelease", "rm Release; gpg --batch -u other --clearsign -o InRelease Release.old",
		"rm InRelease" };

	words("a", &in);
	q.install = &in;
	publish(w, "stable", P("a", "1", ""), DEBIAN);
	fixture_command(&w->f, NULL, "sh", "-ec", "cd $0; cp Release Release.old", folder);
	fixture_write(&w->f, "root/etc/apt/sources.list", "deb [trusted=yes] http://me:secret@repo.test/debian stable main\n");
	expect_refused(w, "a", "", -EPERM, ERR_KIND_INPUT,
		"/etc/apt/sources.list:1: the base image takes packages from `http://repo.test/debian` that nobody vouches for "
		"(trusted=yes), which needs the plan's word: [apt] trusted = [\"http://repo.test/debian\"]");
	assert_int_equal(strv_add(&trusted, "http://repo.test/other"), 0);
	q.trusted = &trusted;
	for (size_t i = 0; i < ARRAY_SIZE(spoil); i++) {
		_cleanup_pkg_set_ struct pkg_set set = { 0 };
		struct err e = ERR_INIT;

		if (i == 0) {
			assert_int_equal(pkg_resolve(&q, &set, &e), -EPERM); /* another archive's name is no word for this one */
			assert_int_equal(strv_add(&trusted, "http://repo.test/debian/"), 0);
			err_clear(&e);
		}
		fixture_command(&w->f, NULL, "sh", "-ec", "cd $0; sh -c \"$1\"", folder, spoil[i]);
		if (pkg_resolve(&q, &set, &e) < 0)
			fail_msg("%s: %s", spoil[i], e.message);
		assert_string_equal(set.items[0].name, "a");
		assert_int_equal(set.items[0].release_sha256.algorithm, DIGEST_NONE);
		assert_int_equal(set.releases[0].signers.n, 0);
		assert_int_equal(set.n_keyrings, 0);
	}
	/* The plan's word is not asked for twice, and counts for a source that says nothing. */
	fixture_write(&w->f, "root/etc/apt/sources.list", "deb http://repo.test/debian stable main\n");
	{
		_cleanup_pkg_set_ struct pkg_set set = { 0 };
		struct err e = ERR_INIT;

		assert_int_equal(pkg_resolve(&q, &set, &e), 0);
	}
}

static void an_older_release_is_not_believed_again(void **state)
{
	struct world *w = *state;
	_cleanup_strv_ struct strv in = { 0 };
	struct pkg_known_release known[] = { { "https://repo.test/debian", "stable", 1747475342 },
		{ "http://repo.test/debian", "other", NOW }, { "http://elsewhere.test/debian", "stable", NOW } };
	struct pkg_request q = request_of(w);
	_cleanup_pkg_set_ struct pkg_set set = { 0 }, older = { 0 };
	struct err e = ERR_INIT;

	words("a", &in);
	q.install = &in;
	q.known_releases = known;
	q.n_known_releases = ARRAY_SIZE(known);
	publish(w, "stable", P("a", "1", ""), DEBIAN);
	if (pkg_resolve(&q, &set, &e) < 0) /* the same one, others' do not matter */
		fail_msg("%s", e.message);
	known[0].date++;
	assert_int_equal(pkg_resolve(&q, &older, &e), -ESTALE);
	assert_int_equal(e.kind, ERR_KIND_INPUT);
	assert_non_null(strstr(e.message, "is dated 2025-05-17 09:49 UTC, but the lock has packages by one of 2025-05-17 09:49 UTC"));
}

static void the_hosts_mirror_is_used(void **state)
{
	struct world *w = *state;
	_cleanup_strv_ struct strv in = { 0 };
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	_cleanup_close_ int host_fd = -1;
	struct pkg_request q = request_of(w);
	struct pkg_host_fs host;
	struct err e = ERR_INIT;

	publish(w, "stable", P("a", "1", ""), DEBIAN "Valid-Until: Sat, 17 May 2025 10:00:00 UTC\n");
	fixture_write(&w->f, "root/etc/apt/sources.list", "deb https://deb.example.org/debian stable main\n");
	fixture_write(&w->f, "host/etc/apt/sources.list",
		"deb [trusted=yes] file:/srv/x ./\ndeb http://lan.test/other stable main\ndeb http://repo.test/debian/ sid main\n");
	fixture_write(&w->f, "host/etc/apt/apt.conf.d/99old", "Acquire::Check-Valid-Until \"false\";\n");
	host_fd = openat(w->f.dir_fd, "host", O_PATH | O_DIRECTORY | O_CLOEXEC);
	host = pkg_host_fs_folder(&host_fd);
	words("a", &in);
	q.install = &in;
	q.host_apt = &host;
	if (pkg_resolve(&q, &set, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(set.items[0].archive, "https://deb.example.org/debian");
	assert_string_equal(set.items[0].uris.items[0], "http://repo.test/debian/pool/a_1.deb");
}

static void a_repository_of_the_plan_brings_its_key(void **state)
{
	struct world *w = *state;
	_cleanup_strv_ struct strv in = { 0 };
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	_cleanup_buf_ struct buf key = BUF_INIT(1 << 20);
	struct pkg_repository repository = { .uri = "http://tool.test/apt/", .suite = "./", .key_label = "keys/tool.asc" };
	struct pkg_request q = request_of(w);
	struct err e = ERR_INIT;

	publish(w, "stable", P("a", "1", "Depends: libtool\n"), DEBIAN);
	fixture_write(&w->f, "served/tool.test/apt/Packages", P("libtool", "7", "Multi-Arch: same\n"));
	fixture_write(&w->f, "served/tool.test/apt/Release", "Origin: Tool\n" DATES "SHA256:\n");
	fixture_command(&w->f, NULL, "sh", "-ec",
		"mkdir -p served/tool.test/apt/.; cd served/tool.test/apt;"
		"printf ' %s %s Packages\\n' $(sha256sum <Packages | cut -c1-64) $(stat -c %s Packages) >>Release;"
		"gpg --batch -u other --clearsign -o InRelease Release");
	fixture_read(&w->f, "other.asc", &key);
	repository.key = key.data;
	repository.key_len = key.len;
	words("a", &in);
	q.install = &in;
	q.repositories = &repository;
	q.n_repositories = 1;
	if (pkg_resolve(&q, &set, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(set.n_items, 2);
	assert_string_equal(set.items[1].uris.items[0], "http://tool.test/apt/pool/libtool_7.deb");
	assert_int_equal(set.n_keyrings, 2);
}

static void local_debs_win(void **state)
{
	struct world *w = *state;
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(8192);
	struct pkg_local_deb deb = { .label = "debs/tool.deb", .size_bytes = 1234 };
	struct pkg_request q = request_of(w);
	struct err e = ERR_INIT;

	publish(w, "stable", P("tool", "9", "") P("lib", "1", ""), DEBIAN);
	fixture_write(&w->f, "root/var/lib/dpkg/status", INSTALLED("tool", "1", ""));
	fixture_write(&w->f, "tree/DEBIAN/control",
		"Package: tool\nVersion: 1\nArchitecture: amd64\nMaintainer: n <n@example.org>\nDepends: lib\nDescription: x\n");
	fixture_command(&w->f, NULL, "dpkg-deb", "--root-owner-group", "-b", "tree", "tool.deb");
	deb.fd = openat(w->f.dir_fd, "tool.deb", O_RDONLY | O_CLOEXEC);
	assert_int_equal(digest_fd(DIGEST_SHA256, deb.fd, UINT64_MAX, &deb.sha256, &e), 0);
	q.debs = &deb;
	q.n_debs = 1;
	if (pkg_resolve(&q, &set, &e) < 0)
		fail_msg("%s", e.message);
	describe(&set, &text);
	assert_string_equal(buf_str(&text), "+lib=1 +tool=1<1"); /* the same version, other bytes: it is what was asked for */
	assert_int_equal(set.items[1].local_deb, 0);
	assert_int_equal(set.items[1].uris.n, 0);
	assert_true(digest_equal(&set.items[1].sha256, &deb.sha256));
	assert_int_equal(set.items[0].local_deb, -1);
	(void)close(deb.fd);
}

static void a_meta_package_leads_to_the_kernel(void **state)
{
	struct world *w = *state;
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	struct pkg_request q = request_of(w);
	struct err e = ERR_INIT;

	publish(w, "stable",
		P("linux-image-cloud-amd64", "6.1.140-1", "Depends: linux-image-6.1.0-37-cloud-amd64 (= 6.1.140-1)\n")
			P("linux-image-6.1.0-37-cloud-amd64", "6.1.140-1", "Depends: kmod, linux-base\n") P(
				"linux-virtual", "6.8", "Depends: linux-image-virtual (= 6.8), linux-headers-virtual\n")
				P("linux-image-virtual", "6.8", "Depends: linux-image-6.8.0-60-generic, linux-modules-extra-6.8.0-60-generic\n")
					P("linux-image-6.8.0-60-generic", "6.8", "Depends: linux-modules-6.8.0-60-generic\n")
						P("linux-modules-6.8.0-60-generic", "6.8", "") P(
							"linux-modules-extra-6.8.0-60-generic", "6.8", ""),
		DEBIAN);
	q.kernel_package = "linux-image-cloud-amd64";
	if (pkg_resolve(&q, &set, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(set.n_items, 0);
	assert_int_equal(set.n_kernel_items, 1);
	assert_string_equal(set.kernel_items[0].name, "linux-image-6.1.0-37-cloud-amd64");
	pkg_set_release(&set);
	fixture_write(&w->f, "root/var/lib/dpkg/status", INSTALLED("linux-image-6.8.0-60-generic", "6.8", ""));
	q.kernel_package = "linux-virtual";
	if (pkg_resolve(&q, &set, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(set.n_kernel_items, 3);
	assert_string_equal(set.kernel_items[0].name, "linux-image-6.8.0-60-generic");
	assert_string_equal(set.kernel_items[0].filename, "pool/linux-image-6.8.0-60-generic_6.8.deb");
	assert_string_equal(set.kernel_items[1].name, "linux-modules-6.8.0-60-generic");
	assert_string_equal(set.kernel_items[2].name, "linux-modules-extra-6.8.0-60-generic");
	q.kernel_package = "linux-image-clod-amd64";
	pkg_set_release(&set);
	assert_int_equal(pkg_resolve(&q, &set, &e), -ENOENT);
	assert_non_null(strstr(e.message, "did you mean `linux-image-cloud-amd64`?"));
}

static void equal_inputs_give_equal_sets(void **state)
{
	struct world *w = *state;

	publish(w, "stable", P("b", "1", "Depends: virt\n") P("a", "1", "") P("p1", "1", "Provides: virt\n") P("p2", "1", "Provides: virt\n"),
		DEBIAN);
	expect(w, "b a", "", "+a=1 +b=1 +p2=1");
	expect(w, "a b", "", "+a=1 +b=1 +p2=1");
}

static int setup_keys(void **state)
{
	static struct world w;

	fixture_setup(&w.f);
	*state = &w;
	fixture_make_key(&w.f, "archive");
	fixture_make_key(&w.f, "other");
	return 0;
}

static int teardown_keys(void **state)
{
	struct world *w = *state;

	fixture_teardown(&w->f);
	return 0;
}

static int setup(void **state)
{
	struct world *w = *state;

	buf_init(&w->log, 1 << 20);
	buf_init(&w->pauses, 4096);
	w->n_fetched = w->spoil_lists = 0;
	fixture_command(&w->f, NULL, "sh", "-ec", "rm -rf root/* served host tree; mkdir -p root/etc/apt/trusted.gpg.d served;"
		"cp archive.asc root/etc/apt/trusted.gpg.d/");
	fixture_write(&w->f, "root/etc/apt/sources.list", "deb http://repo.test/debian stable main\n");
	fixture_write(&w->f, "root/var/lib/dpkg/status", "");
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	buf_release(&w->log);
	buf_release(&w->pauses);
	return 0;
}

#define in_a_world(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_a_world(the_first_alternative_goes_in),
		in_a_world(recommends_only_when_asked),
		in_a_world(backports_do_not_win),
		in_a_world(a_conflict_takes_out_what_is_in_the_way),
		in_a_world(a_broken_old_version_is_upgraded),
		in_a_world(where_the_pass_fails_the_search_finds),
		in_a_world(removing_takes_dependents_along),
		in_a_world(what_cannot_be_is_explained),
		in_a_world(the_base_is_not_broken),
		in_a_world(an_update_of_the_mirror_is_waited_for),
		in_a_world(lists_are_fetched_by_digest_where_that_is_offered),
		in_a_world(signatures_are_demanded),
		in_a_world(dates_are_checked_unless_a_snapshot_is_meant),
		in_a_world(mirrors_change_only_where_bytes_come_from),
		in_a_world(where_a_mirror_fails_the_archive_itself_is_asked),
		in_a_world(a_mirror_that_is_down_is_left_by_all_at_once),
		in_a_world(a_trusted_archive_needs_the_plans_word),
		in_a_world(an_older_release_is_not_believed_again),
		in_a_world(the_hosts_mirror_is_used),
		in_a_world(a_repository_of_the_plan_brings_its_key),
		in_a_world(local_debs_win),
		in_a_world(a_meta_package_leads_to_the_kernel),
		in_a_world(equal_inputs_give_equal_sets),
	};

	return cmocka_run_group_tests(tests, setup_keys, teardown_keys);
}
