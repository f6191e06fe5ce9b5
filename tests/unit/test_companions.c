/* What an entry keeps of its plan: secrets are taken out of the text, and what is read back is what it claims to be. */
#include "builder/companions.h"
#include "builder/manifest.h"
#include "lib/io.h"
#include "plan/canonical.h"
#include "plan/epoch.h"
#include "plan/json.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct place {
	char folder[256]; /* of the plan */
	char entry[300];
	int entry_fd;
};

static void put(const char *folder, const char *name, const void *bytes, size_t len)
{
	_cleanup_free_ char *path = NULL;
	struct err e = ERR_INIT;

	assert_true(asprintf(&path, "%s/%s", folder, name) > 0);
	assert_int_equal(write_file_atomic_at(AT_FDCWD, path, bytes, len, 0644, &e), 0);
}

static int make_place(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	const char *tmp = getenv("TMPDIR");

	(void)snprintf(p->folder, sizeof(p->folder), "%s/companions-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(p->folder))
		return -1;
	(void)snprintf(p->entry, sizeof(p->entry), "%s/entry", p->folder);
	if (mkdir(p->entry, 0755) < 0)
		return -1;
	p->entry_fd = open(p->entry, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = p;
	return 0;
}

static int remove_place(void **state)
{
	struct place *p = *state;

	(void)remove_tree_at(AT_FDCWD, p->folder);
	close_fdp(&p->entry_fd);
	free(p);
	return 0;
}

#define PLAN                                                                                                 \
	"name = \"n\"\n[base.amd64]\nurl = \"base\"\n[kernel.amd64]\nfile = \"kernel\"\n"                            \
	"[files.\"/inline\"]\ncontent = \"one\\ntwo\\n\"\n[files.\"/local\"]\nsource = \"local\"\n"                   \
	"[files.\"/binary\"]\nsource = \"binary\"\n[files.\"/large\"]\nsource = \"large\"\n"                          \
	"[files.\"/twin\"]\nsource = \"local\"\n[inputs.secret]\nsource = \"secret\"\n"

static void load(const struct place *place, const char *text, struct prepared *p)
{
	static char large[COMPANION_TEXT_MAX_BYTES + 1];
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_free_ char *path = NULL;
	struct err e = ERR_INIT;

	memset(large, 'l', sizeof(large));
	put(place->folder, "plan.toml", text, strlen(text));
	put(place->folder, "base", "base", 4);
	put(place->folder, "kernel", "kernel", 6);
	put(place->folder, "local", "local\n", 6);
	put(place->folder, "binary", "b\0b", 3);
	put(place->folder, "large", large, sizeof(large));
	put(place->folder, "secret", "secret\n", 7);
	put(place->folder, "setup.sh", "#!/bin/sh\ntrue\n", 15);
	assert_true(asprintf(&path, "%s/plan.toml", place->folder) > 0);
	if (prepared_load(path, ARCH_AMD64, false, NULL, NULL, p, &faults, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(p->key_error, 0);
}

static struct digest digest_of(const char *text)
{
	struct err e = ERR_INIT;
	struct digest d;

	assert_int_equal(digest_bytes(DIGEST_SHA256, text, strlen(text), &d, &e), 0);
	return d;
}

static void check_text(const struct place *place, const char *path, const char *text)
{
	_cleanup_buf_ struct buf got = BUF_INIT(1 << 20);
	struct digest digest = digest_of(text);
	struct err e = ERR_INIT;

	if (companions_read_text(place->entry, path, &digest, &got, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(buf_str(&got), text);
}

static void refuse_text(const struct place *place, const char *path, const char *text)
{
	_cleanup_buf_ struct buf got = BUF_INIT(1 << 20);
	struct digest digest = digest_of(text);
	struct err e = ERR_INIT;

	assert_int_equal(companions_read_text(place->entry, path, &digest, &got, &e), -ENOENT);
	assert_int_equal(got.len, 0);
}

static void what_is_written_is_read_back(void **state)
{
	static const char *const setups[] = { "[setup]\nfile = \"setup.sh\"\n", "[setup]\nscript = \"#!/bin/sh\\ntrue\\n\"\n" };
	const struct place *place = *state;

	for (size_t i = 0; i < ARRAY_SIZE(setups); i++) {
		_cleanup_prepared_ struct prepared p = { 0 };
		_cleanup_kept_key_ struct kept_key kept = { 0 };
		_cleanup_free_ char *text = NULL;
		_cleanup_buf_ struct buf name = BUF_INIT(1 << 10);
		struct store_item item = { .path = (char *)(uintptr_t)place->entry };
		struct err e = ERR_INIT;
		size_t n = 0;

		assert_true(asprintf(&text, "%s%s", PLAN, setups[i]) > 0);
		load(place, text, &p);
		if (companions_write_texts(place->entry_fd, &p, NULL, &e) < 0 || companions_write_plan(place->entry_fd, &p, &e) < 0)
			fail_msg("%s", e.message);
		item.key = p.key;
		if (companions_read_key(&item, &kept, &e) < 0)
			fail_msg("%s", e.message);
		assert_true(json_equal(kept.document, p.document));
		assert_int_equal(kept.epoch, IMGBUILD_EPOCH);
		companions_read_name(place->entry, &name);
		assert_string_equal(buf_str(&name), "n");
		check_text(place, NULL, "#!/bin/sh\ntrue\n");
		check_text(place, "/local", "local\n");
		check_text(place, "/twin", "local\n");
		check_text(place, "/inline", "one\ntwo\n");
		/* What the setup script alone sees may be a secret. */
		refuse_text(place, "/secret", "secret\n");
		refuse_text(place, "/inline", "one\ntwO\n");
		refuse_text(place, NULL, "#!/bin/sh\nfalse\n");
		{
			int fd = openat(place->entry_fd, COMPANION_TEXTS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			_cleanup_closedir_ DIR *dir = fdopendir(fd);
			const struct dirent *entry;

			while ((entry = readdir(dir)))
				n += entry->d_name[0] != '.';
		}
		assert_int_equal(n, 1);
		for (size_t k = 0; k < 5; k++) {
			static const char *const names[] = { COMPANION_PLAN, COMPANION_LOCK, COMPANION_KEY, COMPANION_SETUP, COMPANION_TEXTS };

			assert_int_equal(remove_tree_at(place->entry_fd, names[k]), 0);
		}
		/* What is gone is said to be. */
		refuse_text(place, NULL, "#!/bin/sh\ntrue\n");
		assert_int_equal(companions_read_key(&item, &kept, &e), -ENOENT);
	}
}

/* Each is put in the place of key.txt, and must be refused although it may be a document. */
static void a_key_text_that_is_not_the_keys_is_refused(void **state)
{
	static const char *const texts[] = { "", "imgbuild-epoch 2\n", "imgbuild-epoch 2\n{}", "imgbuild-epoch 2", "{}", "imgbuild-epoch x\n{}",
		"imgbuild-epoch 2\n{\"a\":1}x", "imgbuild-epoch 99999999999999999999\n{}", "imgbuild-epoch 2\n{\"a\":1,\"a\":2}" };
	const struct place *place = *state;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		for (int lying = 0; lying < 2; lying++) {
			/* Named by its own digest only a document is one. */
			bool fine = !lying && strcmp(texts[i], "imgbuild-epoch 2\n{}") == 0;
			struct store_item item = { .path = (char *)(uintptr_t)place->entry,
				.key = digest_of(lying ? "another" : texts[i]) };
			_cleanup_kept_key_ struct kept_key kept = { 0 };
			struct err e = ERR_INIT;

			put(place->entry, COMPANION_KEY, texts[i], strlen(texts[i]));
			assert_int_equal(companions_read_key(&item, &kept, &e), fine ? 0 : -EBADMSG);
		}
	assert_int_equal(unlinkat(place->entry_fd, COMPANION_KEY, 0), 0);
}

static void a_manifest_that_is_not_the_keys_is_refused(void **state)
{
	static const struct {
		const char *text;
		int r;
	} cases[] = {
		{ "{\"version\":1,\"epoch\":1,\"inputs\":{\"arch\":\"amd64\"}}", 0 },
		{ "{\"version\":1,\"epoch\":2,\"inputs\":{\"arch\":\"amd64\"}}", -EBADMSG },
		{ "{\"version\":1,\"epoch\":1,\"inputs\":{\"arch\":\"arm64\"}}", -EBADMSG },
		{ "{\"version\":1,\"epoch\":1,\"inputs\":[]}", -EBADMSG },
		{ "{\"version\":1,\"epoch\":1,\"inputs\":{\"x\":1.5}}", -EBADMSG },
		{ "{\"version\":1}", -EBADMSG },
		{ "{\"version\":2,\"epoch\":1,\"inputs\":{\"arch\":\"amd64\"}}", -EBADMSG },
		{ "{\"version\":1,\"epoch\":1,\"inputs\":{\"arch\":", -EBADMSG },
		{ "", -EBADMSG },
	};
	const struct place *place = *state;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct store_item item = { .path = (char *)(uintptr_t)place->entry, .key = digest_of("imgbuild-epoch 1\n{\"arch\":\"amd64\"}") };
		_cleanup_kept_key_ struct kept_key kept = { 0 };
		struct err e = ERR_INIT;

		put(place->entry, STORE_MANIFEST, cases[i].text, strlen(cases[i].text));
		assert_int_equal(companions_read_key(&item, &kept, &e), cases[i].r);
		assert_true(cases[i].r == 0 || e.message[0]);
	}
	assert_int_equal(unlinkat(place->entry_fd, STORE_MANIFEST, 0), 0);
}

static void user_info_is_taken_out_of_urls(void **state)
{
	static const struct {
		const char *text, *kept;
	} cases[] = {
		{ "a = \"https://u:p@example.org/b?c=d@e\" # https://x:y@z/\n", "a = \"https://example.org/b?c=d@e\" # https://x:y@z/\n" },
		{ "a = 'http://token@example.org'\nb = '''\nhttp://u@h'''\n", "a = 'http://example.org'\nb = '''\nhttp://h'''\n" },
		{ "a = [ \"https://a@h/1\", {b = \"https://c:d@e@h/2\"} ]\n[[x]]\ny=\"https://h/@3\"\n",
			"a = [ \"https://h/1\", {b = \"https://h/2\"} ]\n[[x]]\ny=\"https://h/@3\"\n" },
		{ "z = \"https://b@h\"\na = \"https://a@h\"\n", "z = \"https://h\"\na = \"https://h\"\n" },
		/* Texts are not touched: a script is an input, and its digest is in the key. */
		{ "script = \"curl https://u:p@h/x\"\n", "script = \"curl https://u:p@h/x\"\n" },
		{ "a = \"\"\n", "a = \"\"\n" },
		{ "", "" },
		/* Spelled so that it does not stand in the text: nothing of it is kept. */
		{ "a = \"https://u:p\\u0040h/x\"\n", NULL },
		{ "a = \"https:\\u002f/u:p@h/x\"\n", NULL },
		{ "a = \"https://u\\u003ap@h/x\"\n", NULL },
		{ "a = \"https:\\u002f/u:p@h/x\"\nb = \"https://v:q@h/x\"\n", NULL },
		{ "a = \"\"\"https:\\\n  //u:p@h/x\"\"\"\n", NULL },
		{ "a = \"HTTPS://u:p@h/x\"\n", "a = \"HTTPS://h/x\"\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf kept = BUF_INIT(1 << 16);
		struct err e = ERR_INIT;

		if (companions_redact_plan(cases[i].text, strlen(cases[i].text), &kept, &e) < 0)
			fail_msg("%s", e.message);
		if (cases[i].kept)
			assert_string_equal(buf_str(&kept), cases[i].kept);
		else if (strstr(buf_str(&kept), "p") && kept.data[0] != '#')
			fail_msg("`%s` was kept as `%s`", cases[i].text, buf_str(&kept));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read_back),
		cmocka_unit_test(a_key_text_that_is_not_the_keys_is_refused),
		cmocka_unit_test(a_manifest_that_is_not_the_keys_is_refused),
		cmocka_unit_test(user_info_is_taken_out_of_urls),
	};

	return cmocka_run_group_tests(tests, make_place, remove_place);
}
