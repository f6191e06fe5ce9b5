/* What differs between two key documents: each input is named, nothing is missed, nothing is made up. */
#include "key_mutations.h"
#include "plan/json.h"
#include "plan/key_diff.h"

static json_t *parse(const char *text)
{
	json_error_t error;
	json_t *j = json_loads(text, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);

	if (!j)
		fail_msg("`%s`: %s", text, error.text);
	return j;
}

static void append_value(struct buf *out, const json_t *value)
{
	_cleanup_free_ char *text = value ? json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : strdup("-");

	assert_non_null(text);
	assert_int_equal(buf_append_str(out, text), 0);
}

/* The changes as text: "package podman version "1" "2"; ". */
static void describe(const struct key_changes *changes, struct buf *out)
{
	for (size_t i = 0; i < changes->n; i++) {
		const struct key_change *c = &changes->items[i];

		assert_int_equal(buf_appendf(out, "%s%s %s %s ", i ? "; " : "", key_input_name(c->input), c->name, c->field), 0);
		append_value(out, c->old_value);
		assert_int_equal(buf_append_char(out, ' '), 0);
		append_value(out, c->new_value);
	}
}

static void diff_documents(const json_t *before, const json_t *after, struct key_changes *ret)
{
	const struct key_side old_side = { before, 1 }, new_side = { after, 1 };
	struct err e = ERR_INIT;

	assert_int_equal(key_diff(&old_side, &new_side, NULL, ret, &e), 0);
}

/* Whole changes, for every kind of member: before, after, what is said. */
static const struct {
	const char *before, *after, *said;
} cases[] = {
	{ "{'arch':'amd64'}", "{'arch':'arm64'}", "arch   'amd64' 'arm64'" },
	{ "{'base':{'sha256':'a','partition':null}}", "{'base':{'sha256':'b','partition':{'number':1}}}",
		"base  partition null {'number':1}; base  sha256 'a' 'b'" },
	{ "{'kernel':{'sha256':'a','modules':['x']}}", "{'kernel':{'sha256':'a','modules':['y']}}", "kernel  modules ['x'] ['y']" },
	{ "{'arch':'amd64','packages':[{'name':'a','version':'1','arch':'amd64','sha256':'x'},"
	  "{'name':'b','version':'1','arch':'all','sha256':'x'},{'name':'c','version':'1','arch':'amd64','sha256':'x'}]}",
		"{'arch':'amd64','packages':[{'name':'a','version':'2','arch':'amd64','sha256':'y'},"
		"{'name':'b','version':'1','arch':'amd64','sha256':'x'},{'name':'c','version':'1','arch':'amd64','sha256':'y'},"
		"{'name':'c','version':'1','arch':'i386','sha256':'y'}]}",
		"package a version '1' '2'; package b arch 'all' 'amd64'; package c sha256 'x' 'y'; "
		"package c:i386  - {'arch':'i386','name':'c','sha256':'y','version':'1'}" },
	/* What a newer version may say of a package is not lost. */
	{ "{'packages':[{'name':'a','version':'1'}]}", "{'packages':[{'name':'a','version':'2','hold':true}]}",
		"package a hold - true; package a version '1' '2'" },
	{ "{'removals':[{'name':'snapd','purge':false}]}", "{'removals':[{'name':'snapd','purge':true},{'name':'x','purge':true}]}",
		"removal snapd purge false true; removal x  - {'name':'x','purge':true}" },
	{ "{'removals':['snapd','x']}", "{'removals':[{'name':'snapd','purge':true}]}",
		"removal snapd purge - true; removal x  {'name':'x'} -" },
	{ "{'debs':['a','b']}", "{'debs':['b','c']}", "deb a  true -; deb c  - true" },
	{ "{'files':[{'path':'/a','mode':'0644','owner':'root','group':'root','sha256':'x'}]}",
		"{'files':[{'path':'/a','mode':'0600','owner':'a','group':'b','sha256':'y'}]}",
		"file /a content 'x' 'y'; file /a group 'root' 'b'; file /a mode '0644' '0600'; file /a owner 'root' 'a'" },
	{ "{'files':[{'path':'/a','sha256':'x'}]}", "{'files':[{'path':'/a','tree':'x'}]}", "file /a content 'x' {'tree':'x'}" },
	{ "{'files':[{'path':'/a','sha256':'x'}]}", "{'files':[{'path':'/b','sha256':'x'}]}",
		"file /a  {'path':'/a','sha256':'x'} -; file /b  - {'path':'/b','sha256':'x'}" },
	{ "{'inputs':{'a':{'tree':'x'},'b':{'sha256':'x'}}}", "{'inputs':{'a':{'tree':'y'},'b':{'sha256':'x','executable':true}}}",
		"input a content {'tree':'x'} {'tree':'y'}; input b executable - true" },
	{ "{'users':{'root':{'authorized_keys':['a','b'],'password':null}}}",
		"{'users':{'root':{'authorized_keys':['b','c'],'password':'locked'},'x':{}}}",
		"user root authorized_keys 'a' -; user root authorized_keys - 'c'; user root password null 'locked'; user x  - {}" },
	{ "{'users':{'root':{'authorized_keys':['a','b']}}}", "{'users':{'root':{'authorized_keys':['b','a']}}}",
		"user root authorized_keys ['a','b'] ['b','a']" },
	{ "{'services':{'enable':['a.service','b.service'],'disable':[],'mask':[]}}",
		"{'services':{'enable':['b.service'],'disable':['a.service'],'mask':['b.service','c.timer']}}",
		"service a.service  ['enable'] ['disable']; service b.service  ['enable'] ['enable','mask']; "
		"service c.timer  - ['mask']" },
	{ "{'fstab':{'keep':false,'remove_patterns':['a']}}", "{'fstab':{'keep':true,'remove_patterns':['b']}}",
		"fstab  keep false true; fstab  remove_patterns 'a' -; fstab  remove_patterns - 'b'" },
	{ "{'cleanup':['/a','/b']}", "{'cleanup':['/b']}", "cleanup /a  true -" },
	{ "{'setup':null}", "{'setup':'x'}", "setup   null 'x'" },
	{ "{'image':{'size':1,'label':null}}", "{'image':{'size':2,'label':'x','new':[1]}}",
		"image  label null 'x'; image  new - [1]; image  size 1 2" },
	{ "{'clock':5}", "{}", "other clock  5 -" },
	{ "{'x':{'y':{'z':[1],'same':0}}}", "{'x':{'y':{'z':[2],'same':0},'w':null}}", "other x.w  - null; other x.y.z  [1] [2]" },
	/* What is not of the expected form is compared as it is. */
	{ "{'cleanup':['/a','/b']}", "{'cleanup':['/b','/a']}", "cleanup   ['/a','/b'] ['/b','/a']" },
	{ "{'cleanup':['/a']}", "{'cleanup':['/a','/a']}", "cleanup   ['/a'] ['/a','/a']" },
	{ "{'packages':[{'name':'a'}]}", "{'packages':[{'name':'a'},{'name':'a'}]}", "package   [{'name':'a'}] [{'name':'a'},{'name':'a'}]" },
	{ "{'packages':[]}", "{}", "package   [] -" },
	{ "{'files':[1]}", "{'files':{}}", "file   [1] {}" },
	{ "{'services':{'enable':['a','a']}}", "{'services':{'enable':['a']}}", "service   {'enable':['a','a']} {'enable':['a']}" },
	{ "{'users':[]}", "{'users':{}}", "user   [] {}" },
	{ "[]", "{}", "other   [] {}" },
};

static void quote(char *text)
{
	for (; *text; text++)
		if (*text == '\'')
			*text = '"';
}

static void every_kind_of_member_is_named(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *before = strdup(cases[i].before), *after = strdup(cases[i].after), *said = strdup(cases[i].said);
		_cleanup_key_changes_ struct key_changes changes = { 0 }, none = { 0 };
		_cleanup_buf_ struct buf got = BUF_INIT(1 << 16);
		_cleanup_json_ json_t *a = NULL, *b = NULL;

		quote(before), quote(after), quote(said);
		a = parse(before);
		b = parse(after);
		diff_documents(a, b, &changes);
		describe(&changes, &got);
		assert_string_equal(buf_str(&got), said);
		diff_documents(a, a, &none);
		assert_int_equal(none.n, 0);
	}
}

static void the_epoch_is_a_difference(void **state)
{
	_cleanup_key_changes_ struct key_changes changes = { 0 };
	_cleanup_buf_ struct buf got = BUF_INIT(1 << 16);
	_cleanup_json_ json_t *a = parse("{}");
	const struct key_side old_side = { a, 1 }, new_side = { a, 2 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(key_diff(&old_side, &new_side, NULL, &changes, &e), 0);
	describe(&changes, &got);
	assert_string_equal(buf_str(&got), "epoch   1 2");
}

static void inputs_are_counted_once(void **state)
{
	_cleanup_key_changes_ struct key_changes changes = { 0 };
	_cleanup_json_ json_t *a = parse("{\"base\":{\"sha256\":\"a\",\"partition\":1},\"cleanup\":[\"a\",\"b\"]}"), *b = parse("{\"base\":{}}");

	(void)state;
	diff_documents(a, b, &changes);
	assert_int_equal(changes.n, 4);
	assert_int_equal(key_changes_count_inputs(&changes), 3);
}

/* --- the schema --- */

/* What names the fields that are in the key. A field of the schema that is in and has no line here fails the test. */
static const struct {
	const char *schema; /* a path of the schema, or its beginning with a `*` at the end */
	enum key_input input;
	const char *field; /* of the change, or NULL: any */
} names[] = {
	{ "base.partition", KEY_INPUT_BASE, "partition" },
	{ "base.ARCH.sha256", KEY_INPUT_BASE, "sha256" },
	{ "kernel.ARCH.sha256", KEY_INPUT_KERNEL, "sha256" },
	{ "kernel.ARCH.file", KEY_INPUT_KERNEL, "sha256" },
	{ "kernel.ARCH.local_path", KEY_INPUT_KERNEL, "sha256" },
	{ "kernel.ARCH.modules", KEY_INPUT_KERNEL, "modules" },
	{ "apt.remove", KEY_INPUT_REMOVAL, NULL },
	{ "apt.debs", KEY_INPUT_DEB, NULL },
	{ "services.*", KEY_INPUT_SERVICE, NULL },
	{ "files.*.content", KEY_INPUT_FILE, "content" },
	{ "files.*.source", KEY_INPUT_FILE, NULL },
	{ "files.*.sha256", KEY_INPUT_FILE, "content" },
	{ "files.*.mode", KEY_INPUT_FILE, "mode" },
	{ "files.*.owner", KEY_INPUT_FILE, NULL },
	{ "inputs.*", KEY_INPUT_INPUT, NULL },
	{ "users.*.authorized_keys", KEY_INPUT_USER, "authorized_keys" },
	{ "users.*.password", KEY_INPUT_USER, "password" },
	{ "fstab.remove_patterns", KEY_INPUT_FSTAB, "remove_patterns" },
	{ "fstab.keep", KEY_INPUT_FSTAB, "keep" },
	{ "setup.*", KEY_INPUT_SETUP, NULL },
	{ "cleanup.*", KEY_INPUT_CLEANUP, NULL },
	{ "image.size", KEY_INPUT_IMAGE, "size" },
	{ "image.label", KEY_INPUT_IMAGE, "label" },
	{ "image.hostname", KEY_INPUT_IMAGE, "hostname" },
};

static void document_of(const struct fixture *f, const char *text, const char *flavour, json_t **ret)
{
	_cleanup_answered_ struct answered a = { 0 };
	struct err e = ERR_INIT;
	struct digest key;

	fixture_load(f, text, ARCH_AMD64, &a);
	fixture_answer(&a, ARCH_AMD64, flavour);
	if (key_compute(a.plan, &a.lock, ARCH_AMD64, &a.locals, &key, ret, &e) < 0)
		fail_msg("%s", e.message);
}

static void check_named(const struct mutation *m, const struct key_changes *changes)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t len = strlen(names[i].schema);
		bool is_prefix = names[i].schema[len - 1] == '*';

		if (is_prefix ? strncmp(names[i].schema, m->field, len - 1) != 0 : strcmp(names[i].schema, m->field) != 0)
			continue;
		for (size_t k = 0; k < changes->n; k++)
			if (changes->items[k].input == names[i].input &&
				(!names[i].field || strcmp(names[i].field, changes->items[k].field) == 0))
				return;
		fail_msg("%s: `%s` gives no change that names it", m->field, m->to);
	}
	fail_msg("the field %s is in the key and has no line in this test", m->field);
}

static void every_field_in_the_key_is_named_when_it_changes(void **state)
{
	struct plan_schema_field field;
	size_t tried = 0;

	for (size_t i = 0; plan_schema_field(i, &field); i++)
		for (size_t k = 0; k < ARRAY_SIZE(mutations); k++) {
			const struct mutation *m = &mutations[k];
			_cleanup_buf_ struct buf text = BUF_INIT(1 << 16), changed = BUF_INIT(1 << 16);
			_cleanup_key_changes_ struct key_changes changes = { 0 }, answers = { 0 };
			_cleanup_json_ json_t *before = NULL, *after = NULL, *other = NULL;

			if (strcmp(m->field, field.path) != 0)
				continue;
			tried++;
			assert_int_equal(buf_appendf(&text, "%s%s", m->head, rest), 0);
			replace_once(&changed, buf_str(&text), m->from, m->to);
			document_of(*state, buf_str(&text), "one", &before);
			document_of(*state, buf_str(&changed), "one", &after);
			diff_documents(before, after, &changes);
			if (field.role == PLAN_KEY_IN)
				check_named(m, &changes);
			else if (changes.n > 0)
				fail_msg("%s: the same answers, and `%s` is a change", m->field, m->to);
			document_of(*state, buf_str(&changed), "two", &other);
			diff_documents(before, other, &answers);
			assert_true(answers.n > 0);
		}
	assert_int_equal(tried, ARRAY_SIZE(mutations));
}

static void what_is_not_known_is_no_difference(void **state)
{
	static const char text[] = "[base.amd64]\nurl = \"https://example.org/b\"\n[kernel.amd64]\npackage = \"linux-image-a\"\n"
				   "[packages]\na = [\"podman\"]\n[files.\"/a\"]\nurl = \"https://example.org/f\"\nmode = \"0600\"\n"
				   "[inputs.b]\nurl = \"https://example.org/g\"\n";
	_cleanup_buf_ struct buf changed = BUF_INIT(1 << 16), got = BUF_INIT(1 << 16);
	_cleanup_key_changes_ struct key_changes changes = { 0 }, more = { 0 };
	_cleanup_key_gaps_ struct key_gaps gaps = { 0 }, other_gaps = { 0 };
	_cleanup_json_ json_t *before = NULL, *draft = NULL, *other = NULL;
	_cleanup_answered_ struct answered a = { 0 }, b = { 0 };
	struct key_side old_side = { NULL, 1 }, new_side = { NULL, 1 };
	struct err e = ERR_INIT;

	document_of(*state, text, "one", &before);
	fixture_load(*state, text, ARCH_AMD64, &a);
	assert_int_equal(key_draft(a.plan, &a.lock, ARCH_AMD64, &a.locals, &draft, &gaps, &e), 0);
	old_side.document = before;
	new_side.document = draft;
	assert_int_equal(key_diff(&old_side, &new_side, &gaps, &changes, &e), 0);
	describe(&changes, &got);
	assert_string_equal(buf_str(&got), "");

	/* The rest is compared all the same. */
	replace_once(&changed, text, "0600", "0601");
	fixture_load(*state, buf_str(&changed), ARCH_AMD64, &b);
	assert_int_equal(key_draft(b.plan, &b.lock, ARCH_AMD64, &b.locals, &other, &other_gaps, &e), 0);
	new_side.document = other;
	assert_int_equal(key_diff(&old_side, &new_side, &other_gaps, &more, &e), 0);
	describe(&more, &got);
	assert_string_equal(buf_str(&got), "file /a mode \"0600\" \"0601\"");
}

/* --- nothing is missed --- */

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

/* A small value: of another type, or of another text. */
static json_t *random_value(uint32_t *seed)
{
	static const char *const texts[] = { "null", "true", "0", "1", "\"\"", "\"a\"", "\"/etc/motd\"", "[]", "[\"a\"]", "[\"a\",\"b\"]",
		"{}", "{\"name\":\"a\"}", "{\"path\":\"/a\",\"sha256\":\"x\"}", "[{\"name\":\"a\",\"version\":\"1\"}]",
		"{\"enable\":[\"a\"]}" };

	return parse(texts[next_random(seed) % ARRAY_SIZE(texts)]);
}

/* Change something somewhere below `j`; it may turn out to be no change. */
static void mutate(json_t *j, uint32_t *seed)
{
	static const char *const members[] = { "arch", "packages", "files", "services", "users", "setup", "unknown", "name", "enable" };
	size_t size = json_is_object(j) ? json_object_size(j) : json_array_size(j), which = size ? next_random(seed) % size : 0;
	uint32_t what = next_random(seed) % 8;
	const char *name = "x";
	json_t *child = NULL;

	if (json_is_object(j)) {
		void *it = json_object_iter(j);

		for (size_t i = 0; i < which; i++)
			it = json_object_iter_next(j, it);
		name = it ? json_object_iter_key(it) : name;
		child = it ? json_object_iter_value(it) : NULL;
		if (what < 5 && (json_is_object(child) || json_is_array(child)))
			mutate(child, seed);
		else if (what == 5)
			(void)json_object_set_new(j, members[next_random(seed) % ARRAY_SIZE(members)], random_value(seed));
		else if (what == 6)
			(void)json_object_set_new(j, name, random_value(seed));
		else
			(void)json_object_del(j, name);
		return;
	}
	child = json_array_get(j, which);
	if (what < 3 && (json_is_object(child) || json_is_array(child)))
		mutate(child, seed);
	else if (what == 3 && child)
		(void)json_array_append(j, child);
	else if (what == 4 && size > 1) {
		json_incref(child);
		(void)json_array_remove(j, which);
		(void)json_array_insert_new(j, next_random(seed) % size, child);
	} else if (what == 5)
		(void)json_array_append_new(j, random_value(seed));
	else if (child && what == 6)
		(void)json_array_set_new(j, which, random_value(seed));
	else if (child)
		(void)json_array_remove(j, which);
}

static void documents_differ_exactly_when_there_are_changes(void **state)
{
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 16);
	_cleanup_json_ json_t *whole = NULL;
	size_t equal = 0;

	assert_int_equal(buf_appendf(&text, "%s%s", PACKAGE, rest), 0);
	document_of(*state, buf_str(&text), "one", &whole);
	for (uint32_t i = 0; i < 20000; i++) {
		_cleanup_json_ json_t *a = json_deep_copy(whole), *b = NULL;
		_cleanup_key_changes_ struct key_changes there = { 0 }, back = { 0 };
		uint32_t seed = i;

		for (uint32_t n = next_random(&seed) % 3; n > 0; n--)
			mutate(a, &seed);
		b = json_deep_copy(a);
		for (uint32_t n = next_random(&seed) % 3; n > 0; n--)
			mutate(b, &seed);
		diff_documents(a, b, &there);
		diff_documents(b, a, &back);
		if ((there.n == 0) != json_equal(a, b) || (back.n == 0) != (there.n == 0))
			fail_msg("seed %u: %zu changes, %zu back, the documents are %s", i, there.n, back.n,
				json_equal(a, b) ? "equal" : "not equal");
		equal += (size_t)json_equal(a, b);
	}
	assert_true(equal > 1000 && equal < 19000);
}

/* A name that stands in every change below it must not multiply. */
static void a_long_name_is_compared_as_a_whole(void **state)
{
	enum { LONG = 100000 };
	_cleanup_free_ char *name = malloc(LONG + 1);
	_cleanup_json_ json_t *a = parse("{\"users\":{}}"), *b = NULL;
	_cleanup_key_changes_ struct key_changes changes = { 0 };
	json_t *keys = json_array();

	(void)state;
	memset(name, 'n', LONG);
	name[LONG] = '\0';
	for (int i = 0; i < 1000; i++)
		assert_int_equal(json_array_append_new(keys, json_sprintf("key %d", i)), 0);
	assert_int_equal(json_object_set_new(json_object_get(a, "users"), name, json_pack("{s:o}", "authorized_keys", keys)), 0);
	b = json_deep_copy(a);
	assert_int_equal(json_array_clear(json_object_get(json_object_get(json_object_get(b, "users"), name), "authorized_keys")), 0);
	diff_documents(a, b, &changes);
	assert_int_equal(changes.n, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_member_is_named),
		cmocka_unit_test(the_epoch_is_a_difference),
		cmocka_unit_test(inputs_are_counted_once),
		cmocka_unit_test(every_field_in_the_key_is_named_when_it_changes),
		cmocka_unit_test(what_is_not_known_is_no_difference),
		cmocka_unit_test(documents_differ_exactly_when_there_are_changes),
		cmocka_unit_test(a_long_name_is_compared_as_a_whole),
	};

	return cmocka_run_group_tests(tests, fixture_make, fixture_remove);
}
