/* The key: every field of the schema is mutated, and the key must change, or must not, as the schema declares. */
#include "key_mutations.h"
#include "plan/json.h"
#include "plan/toml.h"

static int key_with(const struct answered *a, const struct lock *lock, struct digest *ret)
{
	struct err e = ERR_INIT;
	int r = key_compute(a->plan, lock, ARCH_AMD64, &a->locals, ret, NULL, &e);

	if (r < 0 && r != -ENOKEY)
		fail_msg("%s", e.message);
	return r;
}

static void key_of(const struct fixture *f, const char *text, struct digest *ret)
{
	_cleanup_answered_ struct answered a = { 0 };

	fixture_load(f, text, ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	assert_int_equal(key_with(&a, &a.lock, ret), 0);
}

static void try_mutation(const struct fixture *f, const struct mutation *m, enum plan_key_role role)
{
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 16), changed = BUF_INIT(1 << 16);
	_cleanup_answered_ struct answered before = { 0 }, after = { 0 };
	struct digest key, other;
	int r;

	assert_int_equal(buf_appendf(&text, "%s%s", m->head, rest), 0);
	replace_once(&changed, buf_str(&text), m->from, m->to);
	fixture_load(f, buf_str(&text), ARCH_AMD64, &before);
	fixture_answer(&before, ARCH_AMD64, "one");
	assert_int_equal(key_with(&before, &before.lock, &key), 0);
	fixture_load(f, buf_str(&changed), ARCH_AMD64, &after);

	/* With the lock as it was. */
	r = key_with(&after, &before.lock, &other);
	if (role == PLAN_KEY_OUT && (r < 0 || !digest_equal(&key, &other)))
		fail_msg("%s is out of the key, and `%s` changed it", m->field, m->to);
	if (role == PLAN_KEY_IN && r == 0 && digest_equal(&key, &other))
		fail_msg("%s is in the key, and `%s` did not change it", m->field, m->to);
	if (role == PLAN_KEY_BY_ANSWER && r != -ENOKEY)
		fail_msg("%s is part of a question, and `%s` did not ask another", m->field, m->to);

	/* With the same answers to the questions there are now, and with others. */
	fixture_answer(&after, ARCH_AMD64, "one");
	assert_int_equal(key_with(&after, &after.lock, &other), 0);
	if (digest_equal(&key, &other) != (role != PLAN_KEY_IN))
		fail_msg("%s: the same answers %s the key", m->field, role == PLAN_KEY_IN ? "kept" : "changed");
	fixture_answer(&after, ARCH_AMD64, "two");
	assert_int_equal(key_with(&after, &after.lock, &other), 0);
	assert_false(digest_equal(&key, &other));
}

static void every_field_does_to_the_key_what_it_declares(void **state)
{
	struct plan_schema_field field;
	size_t tried = 0;

	for (size_t i = 0; plan_schema_field(i, &field); i++) {
		bool any = false;

		for (size_t k = 0; k < ARRAY_SIZE(mutations); k++)
			if (strcmp(mutations[k].field, field.path) == 0) {
				try_mutation(*state, &mutations[k], field.role);
				any = true;
				tried++;
			}
		if (!any)
			fail_msg("the field %s has no mutation in this test", field.path);
	}
	assert_int_equal(tried, ARRAY_SIZE(mutations));
}

/* Two spellings of one image. */
static const struct {
	const char *head, *from, *to;
} spellings[] = {
	{ URLS, "[\"podman\", \"crun\"]", "[ \"crun\", \"podman\", \"crun\" ]" },
	{ URLS, "run = [\"podman\", \"crun\"]", "a = [\"podman\"]\nb = [\"crun\"]" },
	{ URLS, "\"chrony\"", "\"chrony.service\"" },
	{ URLS, "size = \"4G\"", "size = \"4096M\" # four" },
	{ URLS, "mode = \"0600\"", "mode = \"600\"" },
	{ URLS, "label = \"one\"\nhostname = \"one\"", "hostname = 'one'\n\"label\" = \"one\"" },
	{ URLS, "\"y.deb\"", "\"y.deb@moved\"" },
	{ URLS, "\"key.asc\"", "\"key.asc@moved\"" },
	{ URLS, "check_valid_until = true", "" },
	{ CHECKSUMS, "\"key.asc\"", "\"key.asc@moved\"" },
	{ URLS, "source = \"tool\"", "source = \"tool@moved\"" },
	{ URLS, "https://example.org/g", "http://mirror.example.org/other" },
	{ URLS, "https://example.org/b", "https://user:word@example.org/b" },
	{ URLS, "opt/vmlinux", "./opt/vmlinux" },
	{ URLS, "[files.\"/etc/tool\"]\nsource = \"tool\"", "[files.\"/etc/tool\"]\nmode = \"0644\"\nsource = \"tool\"" },
	{ LOCALS, "\"a.img\"", "\"file:a.img@moved\"" },
	{ LOCALS, "file = \"k\"", "url = \"k@moved\"" },
	{ LOCALS, "\"modules\"", "\"modules@moved\"" },
	{ SHA256S, "https://example.org/b", "https://elsewhere.example.org/c" },
	{ SHA256S, HEX_A, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" },
	{ FROM_BASE, "from = \"base\"", "" },
};

static void spelling_does_not_matter(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(spellings); i++) {
		_cleanup_buf_ struct buf text = BUF_INIT(1 << 16), changed = BUF_INIT(1 << 16);
		struct digest key, other;

		assert_int_equal(buf_appendf(&text, "%s%s", spellings[i].head, rest), 0);
		replace_once(&changed, buf_str(&text), spellings[i].from, spellings[i].to);
		key_of(*state, buf_str(&text), &key);
		key_of(*state, buf_str(&changed), &other);
		if (!digest_equal(&key, &other))
			fail_msg("`%s` is another key than `%s`", spellings[i].to, spellings[i].from);
	}
}

static void a_script_is_its_bytes(void **state)
{
	struct digest inline_key, file_key;

	/* The digest of a fixture's file is that of its path. */
	key_of(*state, LOCALS "[setup]\nscript = \"setup.sh\"\n", &inline_key);
	key_of(*state, LOCALS SCRIPT_FILE, &file_key);
	assert_true(digest_equal(&inline_key, &file_key));
	key_of(*state, LOCALS "[files.\"/a\"]\ncontent = \"tool\"\n", &inline_key);
	key_of(*state, LOCALS "[files.\"/a\"]\nsource = \"tool\"\n", &file_key);
	assert_true(digest_equal(&inline_key, &file_key));
}

static void an_executable_source_has_another_mode(void **state)
{
	const struct fixture *f = *state;
	struct digest plain, executable, explicit;

	key_of(f, LOCALS "[files.\"/a\"]\nsource = \"tool2\"\n", &plain);
	assert_int_equal(fchmodat(f->fd, "tool2", 0755, 0), 0);
	key_of(f, LOCALS "[files.\"/a\"]\nsource = \"tool2\"\n", &executable);
	key_of(f, LOCALS "[files.\"/a\"]\nsource = \"tool2\"\nmode = \"0755\"\n", &explicit);
	assert_false(digest_equal(&plain, &executable));
	assert_true(digest_equal(&executable, &explicit));
}

static void an_executable_input_is_another(void **state)
{
	const struct fixture *f = *state;
	struct digest plain, executable;

	assert_int_equal(fchmodat(f->fd, "tool", 0644, 0), 0);
	key_of(f, LOCALS "[inputs.a]\nsource = \"tool\"\n", &plain);
	assert_int_equal(fchmodat(f->fd, "tool", 0755, 0), 0);
	key_of(f, LOCALS "[inputs.a]\nsource = \"tool\"\n", &executable);
	assert_int_equal(fchmodat(f->fd, "tool", 0644, 0), 0);
	assert_false(digest_equal(&plain, &executable));
}

static void each_architecture_has_its_key(void **state)
{
	static const char both[] = "[base.amd64]\nurl = \"a.img\"\n[base.arm64]\nurl = \"a.img\"\n"
				   "[kernel.amd64]\nfile = \"k\"\n[kernel.arm64]\nfile = \"k\"\n";
	struct digest keys[ARCH_COUNT];
	struct err e = ERR_INIT;

	for (unsigned a = 0; a < ARCH_COUNT; a++) {
		_cleanup_answered_ struct answered answered = { 0 };

		fixture_load(*state, both, (enum arch)a, &answered);
		assert_int_equal(
			key_compute(answered.plan, &answered.lock, (enum arch)a, &answered.locals, &keys[a], NULL, &e), 0);
	}
	assert_false(digest_equal(&keys[0], &keys[1]));
}

static void what_is_missing_is_named(void **state)
{
	static const struct {
		const char *text, *said;
	} cases[] = {
		{ "[base.amd64]\nurl = \"https://example.org/b\"\n", "base: the lock has no answer" },
		{ "[base.amd64]\nurl = \"a.img\"\n", "kernel: the lock has no answer" },
		{ LOCALS "[packages]\na = [\"podman\"]\n", "packages: the plan asks for \"podman\", which the lock does not answer" },
		{ LOCALS "[files.\"/a\"]\nurl = \"https://example.org/f\"\n", "files:/a" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answered_ struct answered a = { 0 };
		struct err e = ERR_INIT;
		struct digest key;

		fixture_load(*state, cases[i].text, ARCH_AMD64, &a);
		assert_int_equal(key_compute(a.plan, &a.lock, ARCH_AMD64, &a.locals, &key, NULL, &e), -ENOKEY);
		if (!strstr(e.message, cases[i].said))
			fail_msg("%s", e.message);
	}
}

/* What the lock does not answer is left out and listed with its reason; the rest is as it will be. */
static void a_draft_has_what_is_known(void **state)
{
	static const struct {
		const char *text, *slots;
	} cases[] = {
		{ URLS "[packages]\na = [\"podman\"]\n[files.\"/a\"]\nurl = \"https://example.org/f\"\nmode = \"0600\"\n"
		  "[inputs.b]\nurl = \"https://example.org/g\"\n",
			"base:0 kernel:0 packages:2 files:/a:0 inputs:b:0 " },
		{ PACKAGE, "base:0 kernel:2 " },
		{ FROM_BASE, "base:0 kernel:2 " },
		{ LOCALS "[packages]\na = [\"podman\"]\n", "packages:0 " },
		{ LOCALS, "" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_buf_ struct buf slots = BUF_INIT(1 << 16);
		_cleanup_answered_ struct answered a = { 0 };
		_cleanup_key_gaps_ struct key_gaps gaps = { 0 }, none = { 0 };
		_cleanup_json_ json_t *draft = NULL, *whole = NULL, *full = NULL;
		struct err e = ERR_INIT;
		struct digest key;
		const char *name;
		json_t *part;

		fixture_load(*state, cases[i].text, ARCH_AMD64, &a);
		assert_int_equal(key_draft(a.plan, &a.lock, ARCH_AMD64, &a.locals, &draft, &gaps, &e), 0);
		for (size_t k = 0; k < gaps.n; k++)
			assert_int_equal(buf_appendf(&slots, "%s:%d ", gaps.items[k].slot, (int)gaps.items[k].reason), 0);
		assert_string_equal(buf_str(&slots), cases[i].slots);

		/* With the answers there are no gaps, it is what is hashed, and the draft was a part of it. */
		fixture_answer(&a, ARCH_AMD64, "one");
		assert_int_equal(key_draft(a.plan, &a.lock, ARCH_AMD64, &a.locals, &full, &none, &e), 0);
		assert_int_equal(none.n, 0);
		assert_int_equal(key_compute(a.plan, &a.lock, ARCH_AMD64, &a.locals, &key, &whole, &e), 0);
		assert_true(json_equal(full, whole));
		json_object_foreach(draft, name, part)
			assert_true(json_equal(part, json_object_get(whole, name)) || gaps.n > 0);
		assert_true(json_equal(draft, whole) == (gaps.n == 0));
	}
}

static void a_stale_answer_is_said_to_be_stale(void **state)
{
	static const char before[] = LOCALS "[packages]\na = [\"podman\"]\n", after[] = LOCALS "[packages]\na = [\"crun\"]\n";
	_cleanup_answered_ struct answered a = { 0 }, b = { 0 };
	_cleanup_key_gaps_ struct key_gaps gaps = { 0 };
	_cleanup_json_ json_t *draft = NULL;
	struct err e = ERR_INIT;

	fixture_load(*state, before, ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	fixture_load(*state, after, ARCH_AMD64, &b);
	assert_int_equal(key_draft(b.plan, &a.lock, ARCH_AMD64, &b.locals, &draft, &gaps, &e), 0);
	assert_int_equal(gaps.n, 1);
	assert_string_equal(gaps.items[0].slot, "packages");
	assert_int_equal(gaps.items[0].reason, KEY_GAP_STALE);
	assert_null(json_object_get(draft, "packages"));
	assert_non_null(json_object_get(draft, "debs"));
}

/* The document of a plan with everything in it, and its key, as they were when the epoch began. A change here makes every
 * image in every cache a miss: it must be meant. */
static void the_key_is_what_it_was(void **state)
{
	static const char golden[] = "tests/golden/key.txt";
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 16), want = BUF_INIT(256);
	_cleanup_answered_ struct answered a = { 0 };
	_cleanup_json_ json_t *document = NULL;
	char hex[DIGEST_HEX_SIZE + 1];
	struct err e = ERR_INIT;
	struct digest key;

	assert_int_equal(buf_appendf(&text, "%s%s%s", PACKAGE, rest, SCRIPT), 0);
	fixture_load(*state, buf_str(&text), ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, "one");
	assert_int_equal(key_compute(a.plan, &a.lock, ARCH_AMD64, &a.locals, &key, &document, &e), 0);
	(void)strcat(digest_hex(&key, hex), "\n");
	if (getenv("IMGBUILD_BLESS"))
		assert_int_equal(write_file_atomic_at(AT_FDCWD, golden, hex, strlen(hex), 0644, &e), 0);
	assert_int_equal(read_file_at(AT_FDCWD, golden, false, &want, &e), 0);
	if (strcmp(hex, buf_str(&want)) != 0) {
		(void)json_dumpf(document, stderr, JSON_INDENT(2) | JSON_SORT_KEYS);
		fail_msg("the key is %s", hex);
	}
}

static void a_removal_that_the_plan_names_is_another(void **state)
{
	struct digest driven_out, purged;

	key_of(*state, LOCALS "[packages]\na = [\"chrony\"]\n", &driven_out);
	key_of(*state, LOCALS "[packages]\na = [\"chrony\"]\n[apt]\nremove = [\"systemd-timesyncd\"]\n", &purged);
	assert_false(digest_equal(&driven_out, &purged));
}

static void the_document_holds_no_password(void **state)
{
	_cleanup_answered_ struct answered a = { 0 };
	_cleanup_json_ json_t *document = NULL;
	_cleanup_free_ char *shown = NULL;
	struct err e = ERR_INIT;
	struct digest key;

	fixture_load(*state, LOCALS "[users.root]\npassword = \"$6$salt$hash\"\n", ARCH_AMD64, &a);
	assert_int_equal(key_compute(a.plan, &a.lock, ARCH_AMD64, &a.locals, &key, &document, &e), 0);
	shown = json_dumps(document, 0);
	assert_null(strstr(shown, "$6$"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_does_to_the_key_what_it_declares),
		cmocka_unit_test(spelling_does_not_matter),
		cmocka_unit_test(a_script_is_its_bytes),
		cmocka_unit_test(an_executable_source_has_another_mode),
		cmocka_unit_test(an_executable_input_is_another),
		cmocka_unit_test(each_architecture_has_its_key),
		cmocka_unit_test(what_is_missing_is_named),
		cmocka_unit_test(a_draft_has_what_is_known),
		cmocka_unit_test(a_stale_answer_is_said_to_be_stale),
		cmocka_unit_test(the_key_is_what_it_was),
		cmocka_unit_test(a_removal_that_the_plan_names_is_another),
		cmocka_unit_test(the_document_holds_no_password),
	};

	return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
