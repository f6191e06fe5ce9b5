#include "cache/publish.h"
#include "lib/io.h"
#include "lib/url.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
/* after the others */
#include <cmocka.h>

static char workdir[256];

static int make_workdir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	(void)snprintf(workdir, sizeof(workdir), "%s/imgbuild-store.XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(workdir) ? 0 : -1;
}

static int remove_workdir(void **state)
{
	(void)state;
	return remove_tree_at(AT_FDCWD, workdir);
}

/* Make the file workdir/<path> and the folders above it. */
static void put(const char *path, const char *text)
{
	struct err e = ERR_INIT;
	char full[512], *slash;

	(void)snprintf(full, sizeof(full), "%s/%s", workdir, path);
	slash = strrchr(full, '/');
	*slash = '\0';
	assert_int_equal(mkdir_parents_at(AT_FDCWD, full, &e), 0);
	*slash = '/';
	assert_int_equal(write_file_atomic_at(AT_FDCWD, full, text, strlen(text), 0444, &e), 0);
}

static struct digest digest_of(const char *text)
{
	struct digest d;
	struct err e = ERR_INIT;

	assert_int_equal(digest_bytes(DIGEST_SHA256, text, strlen(text), &d, &e), 0);
	return d;
}

/* A key that begins with these digits. */
static struct digest key_of(const char *digits)
{
	char hex[DIGEST_SHA256_HEX_SIZE];
	struct digest d;

	(void)snprintf(hex, sizeof(hex), "%-64s", digits);
	for (char *p = hex; *p; p++)
		if (*p == ' ')
			*p = '0';
	assert_int_equal(digest_parse_hex(DIGEST_SHA256, hex, &d), 0);
	return d;
}

static void put_entry(const char *kind, const struct digest *key, const char *suffix, const char *file)
{
	char hex[DIGEST_HEX_SIZE], path[256];

	(void)snprintf(path, sizeof(path), "cache/%s/%s%s/%s", kind, digest_hex(key, hex), suffix, file);
	put(path, "{}");
}

static void open_cache(struct store *s)
{
	struct err e = ERR_INIT;
	char path[512];

	(void)snprintf(path, sizeof(path), "%s/cache", workdir);
	assert_int_equal(store_open(path, s, &e), 0);
}

static void default_path_case(const char *option, const char *cache, const char *xdg, const char *home, const char *expected)
{
	_cleanup_free_ char *path = NULL;
	struct err e = ERR_INIT;

	cache ? setenv("IMGBUILD_CACHE", cache, 1) : unsetenv("IMGBUILD_CACHE");
	xdg ? setenv("XDG_CACHE_HOME", xdg, 1) : unsetenv("XDG_CACHE_HOME");
	home ? setenv("HOME", home, 1) : unsetenv("HOME");
	assert_int_equal(store_default_path(option, &path, &e), 0);
	assert_string_equal(path, expected);
}

static void test_default_path(void **state)
{
	struct err e = ERR_INIT;
	char *path = NULL;

	(void)state;
	default_path_case("/a/b/", "/c", "/d", "/e", "/a/b");
	default_path_case(NULL, "/c", "/d", "/e", "/c");
	default_path_case(NULL, "", "/d", "/e", "/d/imgbuild");
	default_path_case(NULL, NULL, "relative", "/e", "/e/.cache/imgbuild");
	default_path_case(NULL, NULL, NULL, "/e", "/e/.cache/imgbuild");
	assert_int_equal(store_default_path("", &path, &e), -EINVAL);
}

static void test_absent_cache_is_empty(void **state)
{
	_cleanup_store_ struct store s = STORE_INIT;
	_cleanup_store_listing_ struct store_listing list = { .items = NULL };
	_cleanup_buf_ struct buf b = BUF_INIT(100);
	struct digest key = key_of("ab");
	struct store_item item;
	struct err e = ERR_INIT;
	char *path = NULL;
	int fd = -1;

	(void)state;
	open_cache(&s);
	assert_int_equal(store_find_entry(&s, &key, &path, &e), -ENOENT);
	assert_int_equal(store_open_blob(&s, &key, &fd, NULL, &e), -ENOENT);
	assert_int_equal(store_list(&s, STORE_IMAGE, &list, &e), 0);
	assert_int_equal(list.n, 0);
	assert_int_equal(store_resolve_prefix(&s, "ab", true, &item, &e), -ENOENT);
	assert_int_equal(store_read_state(&s, "x", &b, &e), -ENOENT);
	/* Reading makes nothing. */
	assert_int_equal(access(s.path, F_OK), -1);
}

static void test_cache_is_a_file(void **state)
{
	struct store s = STORE_INIT;
	struct err e = ERR_INIT;
	char path[512];

	(void)state;
	put("plain", "x");
	(void)snprintf(path, sizeof(path), "%s/plain", workdir);
	assert_int_equal(store_open(path, &s, &e), -ENOTDIR);
	assert_int_equal(e.kind, ERR_KIND_USAGE);
}

static void test_entry_needs_manifest(void **state)
{
	_cleanup_store_ struct store s = STORE_INIT;
	_cleanup_free_ char *path = NULL;
	struct digest key = key_of("ab12");
	struct err e = ERR_INIT;
	char manifest[256], hex[DIGEST_HEX_SIZE];

	(void)state;
	put_entry("images", &key, "", "rootfs.ext4");
	open_cache(&s);
	assert_int_equal(store_find_entry(&s, &key, &path, &e), -ENOENT);
	/* A folder or a link of that name is no manifest either. */
	(void)snprintf(manifest, sizeof(manifest), "images/%s/" STORE_MANIFEST, digest_hex(&key, hex));
	assert_int_equal(mkdirat(s.root_fd, manifest, 0755), 0);
	assert_int_equal(store_find_entry(&s, &key, &path, &e), -ENOENT);
	assert_int_equal(unlinkat(s.root_fd, manifest, AT_REMOVEDIR), 0);
	assert_int_equal(symlinkat("rootfs.ext4", s.root_fd, manifest), 0);
	assert_int_equal(store_find_entry(&s, &key, &path, &e), -ENOENT);
	assert_int_equal(unlinkat(s.root_fd, manifest, 0), 0);
	put_entry("images", &key, "", STORE_MANIFEST);
	assert_int_equal(store_find_entry(&s, &key, &path, &e), 0);
	assert_true(path[0] == '/' && strstr(path, "/images/ab12"));
}

static void test_list_takes_only_entries(void **state)
{
	_cleanup_store_ struct store s = STORE_INIT;
	_cleanup_store_listing_ struct store_listing images = { .items = NULL }, failed = { .items = NULL },
						     roots = { .items = NULL };
	struct digest a = key_of("aa"), b = key_of("bb");
	struct err e = ERR_INIT;

	(void)state;
	put_entry("images", &b, "", STORE_MANIFEST);
	put_entry("images", &a, "", STORE_MANIFEST);
	put_entry("images", &a, "-1", STORE_MANIFEST);
	put("cache/images/short/manifest.json", "{}");
	put("cache/images/AA00000000000000000000000000000000000000000000000000000000000000/manifest.json", "{}");
	put_entry("failed", &a, "-10", STORE_MANIFEST);
	put_entry("failed", &a, "-2", STORE_MANIFEST);
	put_entry("failed", &a, "-3", "console.log");
	put_entry("failed", &a, "", STORE_MANIFEST);
	put_entry("failed", &a, "-x", STORE_MANIFEST);
	put_entry("roots", &b, "-1", STORE_MANIFEST);
	open_cache(&s);
	assert_int_equal(store_list(&s, STORE_IMAGE, &images, &e), 0);
	assert_int_equal(images.n, 2);
	assert_true(digest_equal(&images.items[0].key, &a) && digest_equal(&images.items[1].key, &b));
	assert_true(images.items[0].published_ns > 0);
	assert_int_equal(store_list(&s, STORE_FAILED, &failed, &e), 0);
	assert_int_equal(failed.n, 2);
	assert_int_equal(failed.items[0].number, 2);
	assert_int_equal(failed.items[1].number, 10);
	assert_int_equal(store_list(&s, STORE_ROOT, &roots, &e), 0);
	assert_int_equal(roots.n, 1);
	assert_int_equal(roots.items[0].number, 1);
}

static void resolve(const struct store *s, const char *prefix, bool or_failed, int expected, const char *name_begins)
{
	struct store_item item = { .name = NULL };
	struct err e = ERR_INIT;
	int r = store_resolve_prefix(s, prefix, or_failed, &item, &e);

	if (r != expected)
		fail_msg("`%s`: %d (%s), expected %d", prefix, r, e.message, expected);
	if (r == 0) {
		assert_memory_equal(item.name, name_begins, strlen(name_begins));
		assert_int_equal(access(item.path, F_OK), 0);
		store_item_release(&item);
	}
}

static void test_prefix(void **state)
{
	_cleanup_store_ struct store s = STORE_INIT;
	struct digest k1 = key_of("c1"), k2 = key_of("c2"), k3 = key_of("d3");
	struct err e = ERR_INIT;
	struct store_item item;
	char whole[DIGEST_HEX_SIZE], longer[DIGEST_HEX_SIZE + 1];

	(void)state;
	put_entry("images", &k1, "", STORE_MANIFEST);
	put_entry("images", &k2, "", STORE_MANIFEST);
	put_entry("failed", &k3, "-1", STORE_MANIFEST);
	put_entry("failed", &k3, "-2", STORE_MANIFEST);
	open_cache(&s);
	resolve(&s, "c1", false, 0, "c1");
	resolve(&s, "C1", false, 0, "c1");
	resolve(&s, digest_hex(&k2, whole), false, 0, "c2");
	resolve(&s, "d3", false, -ENOENT, NULL);
	resolve(&s, "d3", true, 0, "d3");
	resolve(&s, "d3-1", true, 0, "d3");
	resolve(&s, "d3-9", true, -ENOENT, NULL);
	resolve(&s, "d3-1", false, -EINVAL, NULL);
	resolve(&s, "", false, -EINVAL, NULL);
	resolve(&s, "../x", true, -EINVAL, NULL);
	resolve(&s, "xyz", false, -EINVAL, NULL);
	(void)snprintf(longer, sizeof(longer), "%s0", whole);
	resolve(&s, longer, false, -EINVAL, NULL);
	assert_int_equal(store_resolve_prefix(&s, "c", false, &item, &e), -ENOTUNIQ);
	assert_non_null(strstr(e.message, "c1000"));
	assert_non_null(strstr(e.message, "c2000"));
	assert_int_equal(store_resolve_prefix(&s, "d3", true, &item, &e), 0);
	assert_int_equal(item.number, 2);
	store_item_release(&item);
}

static void test_blob(void **state)
{
	_cleanup_store_ struct store s = STORE_INIT;
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *path = NULL;
	struct digest d = digest_of("hello"), sha512 = { .algorithm = DIGEST_SHA512, .bytes = { 0xab, 0xcd } }, found;
	char relative[STORE_BLOB_PATH_SIZE], target[STORE_BLOB_PATH_SIZE + 16], in_cache[STORE_BLOB_PATH_SIZE + 16];
	struct err e = ERR_INIT;
	uint64_t size = 0;

	(void)state;
	(void)snprintf(in_cache, sizeof(in_cache), "cache/%s", store_blob_relative_path(&d, relative));
	put(in_cache, "hello");
	open_cache(&s);
	assert_int_equal(store_open_blob(&s, &d, &fd, &size, &e), 0);
	assert_int_equal(size, 5);
	assert_int_equal(store_blob_path(&s, &d, &path, &e), 0);
	assert_int_equal(access(path, R_OK), 0);
	/* The link of a SHA-512 is read, not followed: its folder part does not matter. */
	assert_int_equal(store_find_blob(&s, &sha512, &found, &size, &e), -ENOENT);
	(void)snprintf(target, sizeof(target), "/nowhere/%s", strrchr(relative, '/') + 1);
	assert_int_equal(mkdir_parents_at(s.root_fd, "blobs/sha512/ab", &e), 0);
	assert_int_equal(symlinkat(target, s.root_fd, store_blob_relative_path(&sha512, relative)), 0);
	assert_int_equal(store_find_blob(&s, &sha512, &found, &size, &e), 0);
	assert_true(digest_equal(&found, &d));
	/* What is no link to a digest leads nowhere. */
	assert_int_equal(unlinkat(s.root_fd, relative, 0), 0);
	assert_int_equal(symlinkat("../../../../etc/passwd", s.root_fd, relative), 0);
	assert_int_equal(store_find_blob(&s, &sha512, &found, &size, &e), -ENOENT);
}

static void redact_case(const char *url, const char *expected)
{
	_cleanup_free_ char *shown = url_redact(url);

	assert_non_null(shown);
	assert_string_equal(shown, expected);
}

static void test_url_redact(void **state)
{
	(void)state;
	redact_case("https://user:secret@example.org/a?token=x#frag", "https://example.org/a?...");
	redact_case("https://user:p@ss@example.org:8443/a", "https://example.org:8443/a");
	redact_case("http://example.org?sig=abc", "http://example.org?...");
	redact_case("http://example.org/a#frag", "http://example.org/a");
	redact_case("HTTP://u@example.org/", "HTTP://example.org/");
	redact_case("ftp://user:secret@example.org/a", "ftp://example.org/a");
	redact_case("file:///tmp/a?b", "file:///tmp/a?b");
	redact_case("/tmp/a@b?c", "/tmp/a@b?c");
	redact_case("http://exam\nple.org/", "http://exam ple.org/");
	redact_case("https://user:se/cret@example.org/", "https://user:se/cret@example.org/");
}

static void local_case(const char *url, const char *expected)
{
	struct err e = ERR_INIT;
	_cleanup_free_ char *path = NULL;
	int r = url_local_path(url, &path, &e);

	assert_int_equal(r, expected ? 0 : -EINVAL);
	if (expected)
		assert_string_equal(path, expected);
}

static void test_url_kinds(void **state)
{
	_cleanup_free_ char *host = NULL;
	struct err e = ERR_INIT;
	char *none = NULL;

	(void)state;
	assert_int_equal(url_kind("base.qcow2"), URL_PATH);
	assert_int_equal(url_kind("c:base"), URL_PATH);
	assert_int_equal(url_kind("./a:b"), URL_PATH);
	assert_int_equal(url_kind("file:a"), URL_FILE);
	assert_int_equal(url_kind("HTTPS://a"), URL_HTTPS);
	assert_int_equal(url_kind("https:a"), URL_OTHER);
	assert_int_equal(url_kind("scp://a"), URL_OTHER);
	assert_int_equal(url_authority("http://U:p@Example.ORG:80/x", &host, &e), 0);
	assert_string_equal(host, "example.org");
	assert_int_equal(url_authority("http:///x", &none, &e), -EINVAL);
	local_case("file:///a%20b", "/a b");
	local_case("file:/a", "/a");
	local_case("file:a/b", "a/b");
	local_case("file://localhost/a", "/a");
	local_case("file://other/a", NULL);
	local_case("file:///a%0", NULL);
	local_case("file:///a%00b", NULL);
	local_case("a%20b", "a%20b");
	local_case("", NULL);
	local_case("http://x/a", NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_default_path),
		cmocka_unit_test(test_url_redact),
		cmocka_unit_test(test_url_kinds),
		cmocka_unit_test_setup_teardown(test_absent_cache_is_empty, make_workdir, remove_workdir),
		cmocka_unit_test_setup_teardown(test_cache_is_a_file, make_workdir, remove_workdir),
		cmocka_unit_test_setup_teardown(test_entry_needs_manifest, make_workdir, remove_workdir),
		cmocka_unit_test_setup_teardown(test_list_takes_only_entries, make_workdir, remove_workdir),
		cmocka_unit_test_setup_teardown(test_prefix, make_workdir, remove_workdir),
		cmocka_unit_test_setup_teardown(test_blob, make_workdir, remove_workdir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
