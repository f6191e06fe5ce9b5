/* builder/packages: what of an earlier answer stays when packages are chosen anew. */
#include "builder/packages/packages.h"

#include "tests/unit/apt_fixture.h"

enum { NOW = 1747500000 /* 2025-05-17 */, ITEMS_MAX = 32, TEXT_MAX = 16384 };

struct world {
	struct apt_fixture f;
	struct pkg_kept kept[ITEMS_MAX]; /* names and versions point into text */
	size_t n_kept;
	char text[TEXT_MAX];
	struct strv asked, removed;
	bool nowhere; /* no .deb can be had */
	unsigned n_opened;
	struct buf notes;
	struct progress progress;
	const char *kernel;
};

static int fetch_many(void *ctx, struct pkg_get *gets, size_t n, struct err *e)
{
	struct world *w = ctx;

	(void)e;
	for (size_t k = 0; k < n; k++) {
		gets[k].status = -ENOENT;
		for (size_t i = 0; i < gets[k].urls->n && gets[k].status < 0; i++) {
			struct err ignored = ERR_INIT;
			char path[1024];

			(void)snprintf(path, sizeof(path), "served/%s", strstr(gets[k].urls->items[i], "://") + 3);
			gets[k].status = read_file_at(w->f.dir_fd, path, false, &gets[k].bytes, &ignored) < 0 ? -ENOENT : 0;
		}
	}
	return 0;
}

static struct world *world_of_notes(struct progress *p)
{
	return (struct world *)(void *)((char *)p - offsetof(struct world, progress));
}

static void take_note(struct progress *p, const struct progress_event *event)
{
	if (event->kind == PROGRESS_NOTE || event->kind == PROGRESS_WARNING)
		assert_int_equal(buf_appendf(&world_of_notes(p)->notes, "%s\n", event->detail), 0);
}

static int open_debs(void *ctx, const struct pkg_kept *const *items, size_t n, int *fds, struct err *e)
{
	struct world *w = ctx;

	(void)e;
	for (size_t i = 0; i < n && !w->nowhere; i++) {
		char path[256];

		w->n_opened++;
		(void)snprintf(path, sizeof(path), "debs/%s_%s.deb", items[i]->name, items[i]->version);
		fds[i] = openat(w->f.dir_fd, path, O_RDONLY | O_CLOEXEC);
	}
	return 0;
}

/* The SHA-256 that a package of that name and version has in these tests. */
static struct digest digest_of(const char *name, const char *version)
{
	struct err e = ERR_INIT;
	struct digest d;
	char text[256];

	(void)snprintf(text, sizeof(text), "%s %s", name, version);
	assert_int_equal(digest_bytes(DIGEST_SHA256, text, strlen(text), &d, &e), 0);
	return d;
}

/* One package of a list: "name=version; Field: value; Field: value". `status`: as dpkg has it, else as a list. */
static void add_stanza(struct buf *into, const char *line, bool status)
{
	_cleanup_free_ char *copy = strdup(line);
	char *save = NULL, *name = strtok_r(copy, ";", &save), *version = strchr(name, '='), hex[DIGEST_HEX_SIZE];
	struct digest d;

	assert_non_null(version);
	*version++ = '\0';
	d = digest_of(name, version);
	assert_int_equal(buf_appendf(into, "Package: %s\n%sVersion: %s\nArchitecture: amd64\nPriority: optional\n", name,
				 status ? "Status: install ok installed\n" : "", version), 0);
	for (char *field = strtok_r(NULL, ";", &save); field; field = strtok_r(NULL, ";", &save))
		assert_int_equal(buf_appendf(into, "%s\n", field + strspn(field, " ")), 0);
	if (!status)
		assert_int_equal(buf_appendf(into, "Filename: pool/%s_%s.deb\nSize: 10\nSHA256: %s\n", name, version,
					 digest_hex(&d, hex)), 0);
	assert_int_equal(buf_append_str(into, "\n"), 0);
}

static void stanzas(struct buf *into, const char *lines, bool status)
{
	_cleanup_free_ char *copy = strdup(lines);
	char *save = NULL;

	for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		add_stanza(into, line + strspn(line, " \t"), status);
}

/* Let http://repo.test/debian have these packages, signed. */
static void publish(struct world *w, const char *lines)
{
	static const char folder[] = "served/repo.test/debian/dists/stable";
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);

	stanzas(&text, lines, false);
	fixture_write(&w->f, "served/repo.test/debian/dists/stable/main/binary-amd64/Packages", buf_str(&text));
	fixture_command(&w->f, NULL, "sh", "-ec",
		"cd \"$0\"; printf 'Origin: Debian\\nLabel: Debian\\nSuite: stable\\nCodename: stable\\nArchitectures: amd64\\n"
		"Date: Sat, 17 May 2025 09:49:02 UTC\\nSHA256:\\n' >Release; x=main/binary-amd64/Packages;"
		"printf ' %s %s %s\\n' $(sha256sum <$x | cut -c1-64) $(stat -c %s $x) $x >>Release;"
		"rm -f InRelease; gpg --batch -u archive --clearsign -o InRelease Release",
		folder);
}

static void base_has(struct world *w, const char *lines)
{
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);

	stanzas(&text, lines, true);
	fixture_write(&w->f, "root/var/lib/dpkg/status", buf_str(&text));
}

static void add_words(const char *text, struct strv *ret)
{
	_cleanup_free_ char *copy = strdup(text);
	char *save = NULL;

	for (char *word = strtok_r(copy, " ", &save); word; word = strtok_r(NULL, " ", &save))
		assert_int_equal(strv_add(ret, word), 0);
}

/* Say what the earlier answer was: "name=version name=version", and what was asked for then. */
static void earlier(struct world *w, const char *items, const char *asked)
{
	char *save = NULL;

	w->n_kept = 0;
	strv_release(&w->asked);
	add_words(asked, &w->asked);
	(void)snprintf(w->text, sizeof(w->text), "%s", items);
	for (char *word = strtok_r(w->text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
		char *version = strchr(word, '=');

		*version++ = '\0';
		assert_true(w->n_kept < ITEMS_MAX);
		w->kept[w->n_kept++] = (struct pkg_kept){ .name = word,
			.version = version,
			.arch = "amd64",
			.size_bytes = 10,
			.sha256 = digest_of(word, version),
			.filename = "pool/as-it-was.deb",
			.archive = "http://repo.test/debian",
			.suite = "stable",
			.release_sha256 = digest_of("the", "release of then"),
			.release_date = 1000 };
	}
}

/* Make the .deb of a kept package that no list has any more. */
static void make_deb(struct world *w, size_t i, const char *fields)
{
	struct err e = ERR_INIT;
	char control[2048], path[256];
	int fd;

	(void)snprintf(control, sizeof(control),
		"Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: n <n@example.org>\n%sDescription: x\n", w->kept[i].name,
		w->kept[i].version, fields);
	fixture_write(&w->f, "tree/DEBIAN/control", control);
	(void)snprintf(path, sizeof(path), "debs/%s_%s.deb", w->kept[i].name, w->kept[i].version);
	fixture_command(&w->f, NULL, "sh", "-ec", "mkdir -p debs; dpkg-deb --root-owner-group -b tree $0", path);
	fd = openat(w->f.dir_fd, path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(digest_fd(DIGEST_SHA256, fd, UINT64_MAX, &w->kept[i].sha256, &e), 0);
	(void)close(fd);
}

static void describe(const struct pkg_set *set, struct buf *into)
{
	for (size_t i = 0; i < set->n_items; i++)
		assert_int_equal(buf_appendf(into, "%s+%s=%s", into->len ? " " : "", set->items[i].name, set->items[i].version), 0);
	for (size_t i = 0; i < set->n_removals; i++)
		assert_int_equal(buf_appendf(into, "%s-%s", into->len ? " " : "", set->removals[i].name), 0);
	for (size_t i = 0; i < set->n_kernel_items; i++)
		assert_int_equal(buf_appendf(into, "%s!%s=%s", into->len ? " " : "", set->kernel_items[i].name,
					 set->kernel_items[i].version), 0);
}

/* Ask for packages; with `keep` the earlier answer is to stay. */
static int resolve(struct world *w, const char *install, bool keep, struct pkg_set *set, struct err *e)
{
	_cleanup_strv_ struct strv in = { 0 };
	struct pkg_keep earlier_answer = { .items = w->kernel ? NULL : w->kept,
		.n_items = w->kernel ? 0 : w->n_kept,
		.kernel_items = w->kept,
		.n_kernel_items = w->kernel ? w->n_kept : 0,
		.asked = &w->asked,
		.removals = &w->removed,
		.open_debs = open_debs,
		.ctx = w };
	struct pkg_request q = { .arch = ARCH_AMD64,
		.fs = pkg_host_fs_folder(&w->f.root_fd),
		.transport = { .ctx = w, .fetch_many = fetch_many },
		.install = &in,
		.kernel_package = w->kernel,
		.keep = keep ? &earlier_answer : NULL,
		.progress = &w->progress,
		.now = NOW };

	add_words(install, &in);
	buf_reset(&w->notes);
	return pkg_resolve(&q, set, e);
}

static void expect(struct world *w, const char *install, bool keep, const char *expected)
{
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	_cleanup_buf_ struct buf text = BUF_INIT(8192);
	struct err e = ERR_INIT;

	if (resolve(w, install, keep, &set, &e) < 0)
		fail_msg("%s: %s", install, e.message);
	describe(&set, &text);
	assert_string_equal(buf_str(&text), expected);
}

#define expect_kept(w, install, expected) expect(w, install, true, expected)
#define expect_new(w, install, expected) expect(w, install, false, expected)

static void expect_note(struct world *w, const char *needle)
{
	if (needle ? !strstr(buf_str(&w->notes), needle) : w->notes.len > 0)
		fail_msg("notes: %s", buf_str(&w->notes));
}

static void what_is_locked_stays_though_there_is_newer(void **state)
{
	struct world *w = *state;

	publish(w, "a=1; Depends: lib (>= 1)\na=2; Depends: lib (>= 2)\nlib=1\nlib=2\nb=1\nb=2\n");
	earlier(w, "a=1 lib=1", "a");
	expect_new(w, "a", "+a=2 +lib=2");
	expect_kept(w, "a", "+a=1 +lib=1");
	expect_note(w, NULL);
	/* What is added is the newest. */
	expect_kept(w, "a b", "+a=1 +b=2 +lib=1");
	expect_note(w, NULL);
}

static void what_a_new_request_needs_moves_and_nothing_else(void **state)
{
	struct world *w = *state;

	publish(w, "a=1; Depends: lib (>= 1)\na=2; Depends: lib (>= 2)\nlib=1\nlib=2\nother=1\nother=2\n"
		   "new=1; Depends: lib (>= 2)\nstrict=1; Depends: lib (= 1)\nstrict=2; Depends: lib (= 2)\n");
	earlier(w, "a=1 lib=1 other=1", "a other");
	expect_kept(w, "a other new", "+a=1 +lib=2 +new=1 +other=1");
	expect_note(w, "`lib` moves from 1 to 2: `new` 1 needs `lib (>= 2)`");
	/* And what the new version of that no longer goes with. */
	earlier(w, "a=1 lib=1 strict=1", "a strict");
	expect_kept(w, "a strict new", "+a=1 +lib=2 +new=1 +strict=2");
	expect_note(w, "`strict` moves from 1 to 2: `strict` 1 needs `lib (= 1)`");
	/* In whatever order they are asked for. */
	expect_kept(w, "new strict a", "+a=1 +lib=2 +new=1 +strict=2");
}

static void a_chain_moves_as_far_as_it_must(void **state)
{
	struct world *w = *state;

	publish(w, "l1=1\nl1=2; Breaks: l2 (<< 2)\nl2=1\nl2=2; Depends: l3 (>= 2)\nl3=1\nl3=2\nl4=1; Depends: l3\nl4=2\n"
		   "new=1; Depends: l1 (>= 2)\n");
	earlier(w, "l1=1 l2=1 l3=1 l4=1", "l1 l2 l3 l4");
	expect_kept(w, "l1 l2 l3 l4", "+l1=1 +l2=1 +l3=1 +l4=1");
	expect_kept(w, "l1 l2 l3 l4 new", "+l1=2 +l2=2 +l3=2 +l4=1 +new=1");
	expect_note(w, "`l2` moves from 1 to 2: the old version conflicts with `l1` 2");
}

static void what_moved_for_a_moment_comes_back(void **state)
{
	struct world *w = *state;

	/* v cannot go in while lib cannot, and then it can. */
	publish(w, "v=1; Depends: lib\nv=2; Depends: lib\nlib=1; Depends: deep (= 1)\nlib=2; Depends: deep (= 2)\ndeep=1\ndeep=2\n"
		   "new=1; Depends: deep (>= 2)\na=1; Depends: p | q\nb=1; Depends: z | zz\np=1\nq=1\n"
		   "z=1; Conflicts: p\nzz=1; Conflicts: p\n");
	earlier(w, "deep=1 lib=1 v=1", "v");
	expect_kept(w, "v new", "+deep=2 +lib=2 +new=1 +v=1");
	/* Likewise where only the search finds anything. */
	expect_kept(w, "v new a b", "+a=1 +b=1 +deep=2 +lib=2 +new=1 +q=1 +v=1 +z=1");
}

static void the_preferences_of_the_base_are_obeyed(void **state)
{
	struct world *w = *state;

	publish(w, "a=1\na=2\n");
	fixture_write(&w->f, "root/etc/apt/preferences.d/a", "Package: a\nPin: version 1\nPin-Priority: -1\n");
	earlier(w, "a=1", "a");
	expect_kept(w, "a", "+a=2");
	expect_note(w, "the preferences of the base image forbid the old version");
}

static void an_archive_that_went_back_is_followed_when_it_must(void **state)
{
	struct world *w = *state;

	publish(w, "a=1\nnew=1; Conflicts: a (>= 2)\n");
	earlier(w, "a=2", "a");
	make_deb(w, 0, "");
	expect_new(w, "a", "+a=1");
	expect_kept(w, "a", "+a=2");
	expect_kept(w, "a new", "+a=1 +new=1");
}

static void a_conflict_moves_what_is_kept(void **state)
{
	struct world *w = *state;

	publish(w, "tool=1\ntool=2\nnew=1; Conflicts: tool (<< 2)\nuser=1; Depends: tool\nuser=2; Depends: tool\n");
	earlier(w, "tool=1 user=1", "user");
	expect_kept(w, "user new", "+new=1 +tool=2 +user=1");
	expect_note(w, "`tool` moves from 1 to 2: the old version conflicts with `new` 1");
}

static void the_base_is_not_broken_to_keep_something(void **state)
{
	struct world *w = *state;

	/* lib is of the base and was upgraded; its old version breaks what is asked for now, and much needs it. */
	base_has(w, "lib=1\nuser=1; Depends: lib\n");
	publish(w, "lib=2\nlib=3\nnew=1; Breaks: lib (<< 3)\nuser=1; Depends: lib\n");
	earlier(w, "lib=2", "lib");
	expect_kept(w, "lib", "+lib=2");
	expect_kept(w, "lib new", "+lib=3 +new=1");
	expect_kept(w, "new", "+lib=3 +new=1");
}

static void what_the_base_served_stays_as_the_base_has_it(void **state)
{
	struct world *w = *state;

	base_has(w, "tool=1\n");
	publish(w, "tool=2\nnew=1\nnewer=1; Depends: tool (>= 2)\n");
	earlier(w, "", "tool");
	expect_new(w, "tool", "+tool=2");
	expect_kept(w, "tool", "");
	expect_kept(w, "tool new", "+new=1");
	expect_kept(w, "tool newer", "+newer=1 +tool=2");
	expect_note(w, "`tool` moves from 1 to 2: `newer` 1 needs `tool (>= 2)`");
	/* It was not asked for then: it is new. */
	earlier(w, "", "else");
	expect_kept(w, "tool", "+tool=2");
}

static void what_the_base_has_serves_what_is_kept(void **state)
{
	struct world *w = *state;

	base_has(w, "stdlib=1\n");
	publish(w, "stdlib=2\npy=1; Depends: stdlib (= 1)\npy=2; Depends: stdlib (= 2)\nx=1; Depends: py\n");
	expect_new(w, "x", "+py=2 +stdlib=2 +x=1");
	earlier(w, "py=1 x=1", "x");
	expect_kept(w, "x", "+py=1 +x=1");
	expect_note(w, NULL);
}

static void a_base_that_moved_on_is_not_set_back(void **state)
{
	struct world *w = *state;

	publish(w, "tool=2\ntool=3\ntool=4\n");
	earlier(w, "tool=2", "tool");
	base_has(w, "tool=3\n");
	expect_kept(w, "tool", "+tool=4");
	base_has(w, "tool=2\n");
	expect_kept(w, "tool", "");
	base_has(w, "tool=1\n");
	expect_kept(w, "tool", "+tool=2");
}

static void a_superseded_version_is_known_by_its_deb(void **state)
{
	struct world *w = *state;
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	struct err e = ERR_INIT;
	struct digest then = digest_of("the", "release of then");

	publish(w, "a=2; Depends: lib (= 2)\nlib=2\nb=1\n");
	earlier(w, "a=1 lib=1", "a");
	make_deb(w, 0, "Depends: lib (= 1)\n");
	make_deb(w, 1, "");
	if (resolve(w, "a b", true, &set, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(w->n_opened, 2);
	assert_int_equal(set.n_items, 3);
	assert_string_equal(set.items[0].version, "1");
	assert_true(digest_equal(&set.items[0].sha256, &w->kept[0].sha256));
	/* No local package: the line of then, and the mirror's place for it. */
	assert_int_equal(set.items[0].local_deb, -1);
	assert_string_equal(set.items[0].filename, "pool/as-it-was.deb");
	assert_string_equal(set.items[0].archive, "http://repo.test/debian");
	assert_string_equal(set.items[0].suite, "stable");
	assert_true(digest_equal(&set.items[0].release_sha256, &then));
	assert_int_equal(set.items[0].release_date, 1000);
	assert_int_equal(set.items[0].uris.n, 1);
	assert_string_equal(set.items[1].version, "1");
	assert_string_equal(set.items[2].version, "1");
	assert_false(digest_equal(&set.items[1].release_sha256, &then));
	expect_note(w, NULL);
}

static void a_superseded_version_moves_when_it_must(void **state)
{
	struct world *w = *state;

	publish(w, "a=2; Depends: lib (= 2)\nlib=2\nnew=1; Depends: lib (>= 2)\n");
	earlier(w, "a=1 lib=1", "a");
	make_deb(w, 0, "Depends: lib (= 1)\n");
	make_deb(w, 1, "");
	expect_kept(w, "a new", "+a=2 +lib=2 +new=1");
	w->nowhere = true;
	expect_kept(w, "a", "+a=2 +lib=2");
	expect_note(w, "`a` moves from 1 to 2: no source has the old version any more, and its file can be had nowhere");
}

static void what_came_from_a_source_that_is_none_any_more_moves(void **state)
{
	struct world *w = *state;

	publish(w, "a=2\nb=1\nb=2\n");
	earlier(w, "a=1 b=1", "a b");
	make_deb(w, 0, "");
	w->kept[0].archive = w->kept[1].archive = "http://other.test/debian";
	expect_kept(w, "a b", "+a=2 +b=1");
	assert_int_equal(w->n_opened, 0);
	expect_note(w, "where it came from is no source any more");
	/* The same archive by the other protocol. */
	w->kept[0].archive = "https://repo.test/debian";
	expect_kept(w, "a b", "+a=1 +b=1");
}

static void a_deb_that_is_another_is_not_believed(void **state)
{
	struct world *w = *state;

	publish(w, "a=2\n");
	earlier(w, "a=1", "a");
	w->kept[0].version = "0";
	make_deb(w, 0, "");
	w->kept[0].version = "1";
	fixture_command(&w->f, NULL, "mv", "debs/a_0.deb", "debs/a_1.deb");
	expect_kept(w, "a", "+a=2");
	expect_note(w, "is not what the lock says");
}

static void a_package_that_is_gone_from_the_archive_stays(void **state)
{
	struct world *w = *state;

	publish(w, "b=1\n");
	earlier(w, "gone=1", "gone");
	make_deb(w, 0, "");
	expect_kept(w, "gone b", "+b=1 +gone=1");
	w->nowhere = true;
	{
		_cleanup_pkg_set_ struct pkg_set set = { 0 };
		struct err e = ERR_INIT;

		assert_int_equal(resolve(w, "gone b", true, &set, &e), -ENOENT);
		assert_non_null(strstr(e.message, "`gone`"));
	}
}

static void what_is_no_longer_reached_is_dropped(void **state)
{
	struct world *w = *state;

	publish(w, "a=1; Depends: lib\na=2; Depends: lib\nlib=1\nlib=2\nb=1\nb=2\n");
	earlier(w, "a=1 b=1 lib=1", "a b");
	expect_kept(w, "b", "+b=1");
	expect_kept(w, "a", "+a=1 +lib=1");
	expect_note(w, NULL);
}

static void a_version_that_the_plan_says_wins(void **state)
{
	struct world *w = *state;

	publish(w, "a=1\na=2\na=3\nb=1; Depends: a (>= 2)\nb=2; Depends: a (>= 2)\n");
	earlier(w, "a=2 b=1", "a b");
	expect_kept(w, "a b", "+a=2 +b=1");
	expect_kept(w, "a=3 b", "+a=3 +b=1");
	expect_kept(w, "a=2 b", "+a=2 +b=1");
	/* A request for a version does not give way to what is kept or asked for otherwise. */
	{
		_cleanup_pkg_set_ struct pkg_set set = { 0 };
		struct err e = ERR_INIT;

		assert_int_equal(resolve(w, "a=1 b", true, &set, &e), -EUNATCH);
	}
}

static void a_choice_that_was_made_stays(void **state)
{
	struct world *w = *state;

	/* y was taken when there was no x; of the providers of virt it was p1. */
	publish(w, "a=1; Depends: x | y\na=2; Depends: x | y\nx=1\ny=1\ny=2\nv=1; Depends: virt\np1=1; Provides: virt\n"
		   "p1=2; Provides: virt\np2=1; Provides: virt\n");
	earlier(w, "a=1 p1=1 v=1 y=1", "a v");
	expect_new(w, "a v", "+a=2 +p2=1 +v=1 +x=1");
	expect_kept(w, "a v", "+a=1 +p1=1 +v=1 +y=1");
}

static void what_is_locked_goes_before_an_update_of_the_base(void **state)
{
	struct world *w = *state;

	base_has(w, "i=1\n");
	publish(w, "i=2; Provides: virt\nk=1; Provides: virt\na=1; Depends: virt\nb=1; Depends: i (>= 2) | k\n");
	earlier(w, "a=1 b=1 k=1", "a b");
	expect_new(w, "a b", "+a=1 +b=1 +i=2");
	expect_kept(w, "a b", "+a=1 +b=1 +k=1");
}

static void what_went_out_stays_out(void **state)
{
	struct world *w = *state;

	/* When this was locked there was no i that goes with v. */
	base_has(w, "i=1\n");
	publish(w, "v=1; Conflicts: i (<< 2)\ni=2\nnew=1; Depends: i (>= 2)\nor=1; Depends: i | j\nj=1\n");
	earlier(w, "v=1", "v");
	assert_int_equal(strv_add(&w->removed, "i"), 0);
	expect_new(w, "v", "+i=2 +v=1");
	expect_kept(w, "v", "+v=1 -i");
	expect_kept(w, "v or", "+j=1 +or=1 +v=1 -i");
	expect_kept(w, "v new", "+i=2 +new=1 +v=1");
}

static void the_search_keeps_too(void **state)
{
	struct world *w = *state;

	/* apt's order takes p for a; each way to serve b excludes p (test_solve has the same). */
	publish(w, "a=1; Depends: p | q\na=2; Depends: p | q\nb=1; Depends: z | zz\nb=2; Depends: z | zz\np=1\nq=1\nq=2\n"
		   "z=1; Conflicts: p\nz=2; Conflicts: p\nzz=1; Conflicts: p\nlib=1\nlib=2\nnew=1; Depends: lib (>= 2)\n");
	earlier(w, "a=1 lib=1", "a lib");
	expect_kept(w, "a b lib", "+a=1 +b=2 +lib=1 +q=2 +z=2");
	expect_kept(w, "a b lib new", "+a=1 +b=2 +lib=2 +new=1 +q=2 +z=2");
}

static void the_search_says_what_stays_though_the_pass_was_in_doubt(void **state)
{
	struct world *w = *state;

	/* The pass tries top for a first, which needs the new lib; then nothing but the search finds q. */
	publish(w, "a=1; Depends: top | p | q\ntop=1; Depends: lib (>= 2)\nlib=1\nlib=2\nuser=1; Depends: lib (<< 2)\n"
		   "b=1; Depends: z | zz\np=1\nq=1\nz=1; Conflicts: p\nzz=1; Conflicts: p\nuser=2; Depends: lib\n");
	earlier(w, "lib=1 user=1", "user lib");
	expect_kept(w, "a b user lib", "+a=1 +b=1 +lib=1 +q=1 +user=1 +z=1");
}

static void what_went_out_before_may_go_again(void **state)
{
	struct world *w = *state;

	base_has(w, "i=1\n");
	publish(w, "v=1; Conflicts: i\nv=2\nnew=1\n");
	earlier(w, "v=1", "v");
	/* The base has something that the old version does not go with. */
	expect_kept(w, "v new", "+new=1 +v=2");
	expect_note(w, "`v` moves from 1 to 2: the old version conflicts with `i` 1");
	/* That is not new. */
	assert_int_equal(strv_add(&w->removed, "i"), 0);
	expect_kept(w, "v new", "+new=1 +v=1 -i");
	expect_note(w, NULL);
}

static void the_same_question_gives_the_same_answer(void **state)
{
	struct world *w = *state;

	publish(w, "b=1; Depends: virt, x | y\na=1; Depends: y\np1=1; Provides: virt\np2=1; Provides: virt\nx=1\ny=1\n");
	expect_new(w, "b a", "+a=1 +b=1 +p2=1 +x=1 +y=1");
	earlier(w, "a=1 b=1 p2=1 x=1 y=1", "a b");
	expect_kept(w, "b a", "+a=1 +b=1 +p2=1 +x=1 +y=1");
	/* In this order y is there before b chooses, with and without an earlier answer. */
	expect_new(w, "a b", "+a=1 +b=1 +p2=1 +y=1");
	expect_kept(w, "a b", "+a=1 +b=1 +p2=1 +y=1");
}

static void a_name_twice_counts_once(void **state)
{
	struct world *w = *state;

	publish(w, "a=1\na=2\na=3\nnew=1; Depends: a (>= 3)\n");
	earlier(w, "a=1 a=2", "a");
	expect_kept(w, "a", "+a=1");
	expect_kept(w, "a new", "+a=3 +new=1");
}

static void what_cannot_be_is_explained_as_without(void **state)
{
	struct world *w = *state;
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	struct err e = ERR_INIT;

	publish(w, "a=1\na=2\nnew=1; Depends: gone (>= 2)\n");
	earlier(w, "a=1", "a");
	assert_int_equal(resolve(w, "a new", true, &set, &e), -EUNATCH);
	assert_non_null(strstr(e.message, "`new` 1 needs `gone >= 2`, which no source has"));
}

static void the_kernel_is_kept(void **state)
{
	struct world *w = *state;

	publish(w, "linux-image-cloud-amd64=2; Depends: linux-image-6.1.0-39-cloud-amd64 (= 2)\nlinux-image-6.1.0-39-cloud-amd64=2\n"
		   "linux-image-6.1.0-37-cloud-amd64=1\nlinux-image-amd64=2; Depends: linux-image-6.1.0-39-amd64\n"
		   "linux-image-6.1.0-39-amd64=2\n");
	earlier(w, "linux-image-6.1.0-37-cloud-amd64=1", "");
	w->kernel = "linux-image-cloud-amd64";
	expect_new(w, "", "!linux-image-6.1.0-39-cloud-amd64=2");
	expect_kept(w, "", "!linux-image-6.1.0-37-cloud-amd64=1");
	w->kernel = "linux-image-amd64"; /* another kind */
	expect_kept(w, "", "!linux-image-6.1.0-39-amd64=2");
	w->kernel = "linux-image-cloud-amd64=2"; /* a version of the meta package */
	expect_kept(w, "", "!linux-image-6.1.0-39-cloud-amd64=2");
	/* Superseded: it is enough that its file can be had. */
	w->kernel = "linux-image-cloud-amd64";
	publish(w, "linux-image-cloud-amd64=2; Depends: linux-image-6.1.0-39-cloud-amd64 (= 2)\nlinux-image-6.1.0-39-cloud-amd64=2\n");
	expect_kept(w, "", "!linux-image-6.1.0-39-cloud-amd64=2");
	expect_note(w, "the kernel moves from");
	make_deb(w, 0, "");
	expect_kept(w, "", "!linux-image-6.1.0-37-cloud-amd64=1");
	w->kept[0].release_sha256 = (struct digest){ 0 }; /* nobody signed for it, and the plan does not say that this is fine */
	expect_kept(w, "", "!linux-image-6.1.0-39-cloud-amd64=2");
}

static int setup_keys(void **state)
{
	static struct world w;

	fixture_setup(&w.f);
	*state = &w;
	fixture_make_key(&w.f, "archive");
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

	buf_init(&w->notes, 1 << 20);
	w->progress.emit = take_note;
	w->n_kept = w->n_opened = 0;
	w->nowhere = false;
	w->kernel = NULL;
	fixture_command(&w->f, NULL, "sh", "-ec",
		"rm -rf root/* served debs tree; mkdir -p root/etc/apt/trusted.gpg.d served; cp archive.asc root/etc/apt/trusted.gpg.d/");
	fixture_write(&w->f, "root/etc/apt/sources.list", "deb http://repo.test/debian stable main\n");
	fixture_write(&w->f, "root/var/lib/dpkg/status", "");
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	buf_release(&w->notes);
	strv_release(&w->asked);
	strv_release(&w->removed);
	return 0;
}

#define in_a_world(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_a_world(what_is_locked_stays_though_there_is_newer),
		in_a_world(what_a_new_request_needs_moves_and_nothing_else),
		in_a_world(a_chain_moves_as_far_as_it_must),
		in_a_world(what_moved_for_a_moment_comes_back),
		in_a_world(the_preferences_of_the_base_are_obeyed),
		in_a_world(an_archive_that_went_back_is_followed_when_it_must),
		in_a_world(a_conflict_moves_what_is_kept),
		in_a_world(the_base_is_not_broken_to_keep_something),
		in_a_world(what_the_base_served_stays_as_the_base_has_it),
		in_a_world(what_the_base_has_serves_what_is_kept),
		in_a_world(a_base_that_moved_on_is_not_set_back),
		in_a_world(a_superseded_version_is_known_by_its_deb),
		in_a_world(a_superseded_version_moves_when_it_must),
		in_a_world(what_came_from_a_source_that_is_none_any_more_moves),
		in_a_world(a_deb_that_is_another_is_not_believed),
		in_a_world(a_package_that_is_gone_from_the_archive_stays),
		in_a_world(what_is_no_longer_reached_is_dropped),
		in_a_world(a_version_that_the_plan_says_wins),
		in_a_world(a_choice_that_was_made_stays),
		in_a_world(what_is_locked_goes_before_an_update_of_the_base),
		in_a_world(what_went_out_stays_out),
		in_a_world(the_search_keeps_too),
		in_a_world(the_search_says_what_stays_though_the_pass_was_in_doubt),
		in_a_world(what_went_out_before_may_go_again),
		in_a_world(the_same_question_gives_the_same_answer),
		in_a_world(a_name_twice_counts_once),
		in_a_world(what_cannot_be_is_explained_as_without),
		in_a_world(the_kernel_is_kept),
	};

	return cmocka_run_group_tests(tests, setup_keys, teardown_keys);
}
