#include "plan/key_diff.h"
#include "plan/json.h"

#include <string.h>

/* A name stands in every change below it, so that a long one with much below it would multiply: such a thing is compared as a whole.
 * The longest name that a plan can give is a path. */
enum { NAME_MAX_BYTES = 4096, LIST_NAME_MAX_BYTES = 256 };

void key_changes_release(struct key_changes *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->items[i].name);
		free(c->items[i].field);
		json_decref(c->items[i].old_value);
		json_decref(c->items[i].new_value);
	}
	free(c->items);
	*c = (struct key_changes){ 0 };
}

const char *key_input_name(enum key_input input)
{
	static const char *const names[KEY_INPUT_COUNT] = { "epoch", "arch", "base", "kernel", "package", "removal", "deb", "file",
		"input", "user", "service", "fstab", "cleanup", "setup", "image", "other" };

	return names[input];
}

struct differ {
	const struct key_gaps *gaps;
	struct key_changes *changes;
	size_t n_seen; /* also those that a gap explains */
	enum key_input input; /* of the member that is compared */
	const char *arch[2];  /* of the two documents, or NULL */
};

/* Two functions of jansson that change nothing want a pointer to something changeable. */
static json_t *unconst(const json_t *j)
{
	return (json_t *)(uintptr_t)j;
}

static bool same(const json_t *a, const json_t *b)
{
	return a == b || (a && b && json_equal(a, b));
}

/* Is what the new document lacks here something that is not known? */
static bool explained_by(const struct key_gap *gap, enum key_input input, const char *name, const char *field)
{
	const char *slot = gap->slot;

	switch (input) {
	case KEY_INPUT_BASE:
		return strcmp(slot, "base") == 0 && strcmp(field, "sha256") == 0;
	case KEY_INPUT_KERNEL:
		return strcmp(slot, "kernel") == 0 && (strcmp(field, "sha256") == 0 || strcmp(field, "modules") == 0);
	case KEY_INPUT_PACKAGE:
	case KEY_INPUT_REMOVAL:
		return strcmp(slot, "packages") == 0;
	case KEY_INPUT_FILE:
		return strncmp(slot, "files:", 6) == 0 && strcmp(slot + 6, name) == 0 && strcmp(field, "content") == 0;
	case KEY_INPUT_INPUT:
		return strncmp(slot, "inputs:", 7) == 0 && strcmp(slot + 7, name) == 0 && strcmp(field, "content") == 0;
	default:
		return false;
	}
}

/* Add a change, unless a gap explains it. */
static int emit(struct differ *d, const char *name, const char *field, const json_t *old_value, const json_t *new_value)
{
	struct key_changes *c = d->changes;
	struct key_change change = { .input = d->input };

	d->n_seen++;
	for (size_t i = 0; !new_value && d->gaps && i < d->gaps->n; i++)
		if (explained_by(&d->gaps->items[i], d->input, name, field))
			return 0;
	if (c->n == c->capacity) {
		size_t more = c->capacity ? 2 * c->capacity : 16;
		struct key_change *items = reallocarray(c->items, more, sizeof(*items));

		if (!items)
			return -ENOMEM;
		c->items = items;
		c->capacity = more;
	}
	change.name = strdup(name);
	change.field = strdup(field);
	if (!change.name || !change.field) {
		free(change.name);
		free(change.field);
		return -ENOMEM;
	}
	change.old_value = json_incref(unconst(old_value));
	change.new_value = json_incref(unconst(new_value));
	c->items[c->n++] = change;
	return 0;
}

typedef int (*pair_fn)(struct differ *d, const char *name, const json_t *old_value, const json_t *new_value);

/* Call `differs` for every member that is not the same in both objects. Either may be NULL. */
static int for_each_difference(struct differ *d, const json_t *old_object, const json_t *new_object, pair_fn differs)
{
	json_t *o = unconst(old_object), *n = unconst(new_object), *value;
	const char *name;
	int r = 0;

	json_object_foreach(o, name, value)
		if (r == 0 && !same(value, json_object_get(n, name)))
			r = differs(d, name, value, json_object_get(n, name));
	json_object_foreach(n, name, value)
		if (r == 0 && !json_object_get(o, name))
			r = differs(d, name, NULL, value);
	return r;
}

static bool is_null_or(const json_t *j, json_type type)
{
	return !j || json_typeof(j) == type;
}

/* Make a set of an array of strings: an object with a true for each. NULL when it is no such array or memory ran out. An array that
 * is not there is empty. */
static json_t *set_of(const json_t *array)
{
	json_t *set = json_object(), *item;
	size_t i;

	if (!is_null_or(array, JSON_ARRAY)) {
		json_decref(set);
		return NULL;
	}
	json_array_foreach(array, i, item)
		if (!json_is_string(item) || json_object_set_new(set, json_string_value(item), json_true()) < 0) {
			json_decref(set);
			return NULL;
		}
	return set;
}

/* --- what the members of a document are --- */

/* One value: the field as a whole. */
static int diff_value(struct differ *d, const json_t *old_value, const json_t *new_value)
{
	return emit(d, "", "", old_value, new_value);
}

/* The strings of a list that are on one side only. */
static int diff_list(struct differ *d, const char *name, const char *field, const json_t *old_list, const json_t *new_list)
{
	_cleanup_json_ json_t *olds = set_of(old_list), *news = set_of(new_list);
	size_t before = d->n_seen, i;
	json_t *item;
	int r = 0;

	if (olds && news && strlen(name) <= LIST_NAME_MAX_BYTES) {
		json_array_foreach(old_list, i, item)
			if (r == 0 && !json_object_get(news, json_string_value(item)))
				r = emit(d, name, field, item, NULL);
		json_array_foreach(new_list, i, item)
			if (r == 0 && !json_object_get(olds, json_string_value(item)))
				r = emit(d, name, field, NULL, item);
	}
	/* Another order, a repetition, or no lists: said as a whole. */
	return r == 0 && d->n_seen == before ? emit(d, name, field, old_list, new_list) : r;
}

static int emit_field(struct differ *d, const char *field, const json_t *old_value, const json_t *new_value)
{
	bool is_list = strcmp(field, "remove_patterns") == 0 && d->input == KEY_INPUT_FSTAB;

	return is_list ? diff_list(d, "", field, old_value, new_value) : emit(d, "", field, old_value, new_value);
}

/* An object of settings. */
static int diff_fields(struct differ *d, const json_t *old_object, const json_t *new_object)
{
	if (!is_null_or(old_object, JSON_OBJECT) || !is_null_or(new_object, JSON_OBJECT))
		return 0;
	return for_each_difference(d, old_object, new_object, emit_field);
}

static int emit_member(struct differ *d, const char *name, const json_t *old_value, const json_t *new_value)
{
	return emit(d, name, "", old_value, new_value);
}

/* A set of strings, each an input of its own. */
static int diff_set(struct differ *d, const json_t *old_array, const json_t *new_array)
{
	_cleanup_json_ json_t *olds = set_of(old_array), *news = set_of(new_array);

	return olds && news ? for_each_difference(d, olds, news, emit_member) : 0;
}

/* Turn {"enable": [unit, ...], ...} into {unit: ["enable", ...], ...}. NULL when it is not of that form. */
static json_t *states_of_units(const json_t *services)
{
	_cleanup_json_ json_t *states = json_object();
	const char *state;
	json_t *units, *unit;
	size_t i;

	if (!states || !is_null_or(services, JSON_OBJECT))
		return NULL;
	json_object_foreach(unconst(services), state, units)
	{
		_cleanup_json_ json_t *set = set_of(units);

		/* A repetition would be lost here, and must be seen. */
		if (!set || json_object_size(set) != json_array_size(units) || strlen(state) > LIST_NAME_MAX_BYTES)
			return NULL;
		json_array_foreach(units, i, unit)
		{
			const char *name = json_string_value(unit);

			if (!json_object_get(states, name) && json_object_set_new(states, name, json_array()) < 0)
				return NULL;
			if (json_array_append_new(json_object_get(states, name), json_string(state)) < 0)
				return NULL;
		}
	}
	return take_ptr(states);
}

static int diff_services(struct differ *d, const json_t *old_services, const json_t *new_services)
{
	_cleanup_json_ json_t *olds = states_of_units(old_services), *news = states_of_units(new_services);

	return olds && news ? for_each_difference(d, olds, news, emit_member) : 0;
}

/* The bytes of a file or an input: the digest of a file, or an object for anything else. *ret NULL: it has none. */
static int content_of(const json_t *object, json_t **ret)
{
	json_t *file = json_object_get(object, "sha256"), *tree = json_object_get(object, "tree");

	if (!tree || !file) {
		*ret = tree ? json_pack("{s:O}", "tree", tree) : json_incref(file);
		return tree && !*ret ? -ENOMEM : 0;
	}
	*ret = json_pack("{s:O, s:O}", "sha256", file, "tree", tree);
	return *ret ? 0 : -ENOMEM;
}

/* One member that differs of a package, a file, an input, a user, a removal. */
static int diff_member(struct differ *d, const char *name, const char *field, const json_t *old_value, const json_t *new_value)
{
	if (d->input == KEY_INPUT_USER && strcmp(field, "authorized_keys") == 0)
		return diff_list(d, name, field, old_value, new_value);
	return emit(d, name, field, old_value, new_value);
}

/* Both sides have the thing, and it differs. */
static int diff_thing(struct differ *d, const char *name, const json_t *old_thing, const json_t *new_thing)
{
	/* Another version has another digest: the first of these says it all. */
	static const char *const of_package[] = { "version", "arch", "sha256" };
	static const char *const of_content[] = { "sha256", "tree" };
	bool is_package = d->input == KEY_INPUT_PACKAGE;
	bool has_content = d->input == KEY_INPUT_FILE || d->input == KEY_INPUT_INPUT, said = false;
	const char *const *merged = is_package ? of_package : of_content;
	size_t n_merged = is_package ? ARRAY_SIZE(of_package) : has_content ? ARRAY_SIZE(of_content) : 0;
	json_t *o = unconst(old_thing), *n = unconst(new_thing), *value;
	const char *field;
	int r = 0;

	for (size_t i = 0; r == 0 && i < n_merged; i++) {
		const json_t *old_value = json_object_get(o, merged[i]), *new_value = json_object_get(n, merged[i]);

		if (said || same(old_value, new_value))
			continue;
		said = true;
		if (has_content) {
			_cleanup_json_ json_t *old_content = NULL, *new_content = NULL;

			r = content_of(o, &old_content);
			if (r == 0)
				r = content_of(n, &new_content);
			if (r == 0)
				r = emit(d, name, "content", old_content, new_content);
		} else {
			r = emit(d, name, merged[i], old_value, new_value);
		}
	}
	for (int side = 0; side < 2; side++)
		json_object_foreach(side ? n : o, field, value)
		{
			const json_t *old_value = json_object_get(o, field), *new_value = json_object_get(n, field);
			bool done = side == 1 && old_value;

			for (size_t i = 0; i < n_merged; i++)
				done = done || strcmp(field, merged[i]) == 0;
			if (r == 0 && !done && !same(old_value, new_value))
				r = diff_member(d, name, field, old_value, new_value);
		}
	return r;
}

static int diff_things(struct differ *d, const char *name, const json_t *old_thing, const json_t *new_thing)
{
	if (!json_is_object(old_thing) || !json_is_object(new_thing) || strlen(name) > NAME_MAX_BYTES)
		return emit(d, name, "", old_thing, new_thing);
	return diff_thing(d, name, old_thing, new_thing);
}

/* An object of things by their name. */
static int diff_map(struct differ *d, const json_t *old_map, const json_t *new_map)
{
	if (!is_null_or(old_map, JSON_OBJECT) || !is_null_or(new_map, JSON_OBJECT))
		return 0;
	return for_each_difference(d, old_map, new_map, diff_things);
}

/* The name under which a thing of a list is found again on the other side; malloc'ed, NULL when it has none. */
static char *identity_of(const struct differ *d, unsigned side, const json_t *thing)
{
	const char *name = json_string_value(json_object_get(thing, d->input == KEY_INPUT_FILE ? "path" : "name"));
	const char *arch = json_string_value(json_object_get(thing, "arch"));
	char *both;

	if (!name)
		return NULL;
	if (d->input != KEY_INPUT_PACKAGE || !arch || strcmp(arch, "all") == 0 ||
		(d->arch[side] && strcmp(arch, d->arch[side]) == 0))
		return strdup(name);
	return asprintf(&both, "%s:%s", name, arch) < 0 ? NULL : both;
}

/* Make {identity: thing} of a list. NULL when it is not of that form, or a thing is there twice. */
static json_t *index_list(const struct differ *d, unsigned side, const json_t *list)
{
	_cleanup_json_ json_t *map = json_object();
	json_t *item;
	size_t i;

	if (!map || !is_null_or(list, JSON_ARRAY))
		return NULL;
	json_array_foreach(list, i, item)
	{
		/* Removals were bare names once. */
		_cleanup_json_ json_t *thing = json_is_string(item) && d->input == KEY_INPUT_REMOVAL ?
						       json_pack("{s:O}", "name", item) :
						       json_incref(item);
		_cleanup_free_ char *identity = json_is_object(thing) ? identity_of(d, side, thing) : NULL;

		if (!identity || json_object_get(map, identity) || json_object_set(map, identity, thing) < 0)
			return NULL;
	}
	return take_ptr(map);
}

/* A list of things. */
static int diff_things_list(struct differ *d, const json_t *old_list, const json_t *new_list)
{
	_cleanup_json_ json_t *olds = index_list(d, 0, old_list), *news = index_list(d, 1, new_list);

	return olds && news ? for_each_difference(d, olds, news, diff_things) : 0;
}

static const struct member {
	const char *name;
	enum key_input input;
	int (*diff)(struct differ *d, const json_t *old_value, const json_t *new_value);
} members[] = {
	{ "arch", KEY_INPUT_ARCH, diff_value },
	{ "base", KEY_INPUT_BASE, diff_fields },
	{ "kernel", KEY_INPUT_KERNEL, diff_fields },
	{ "packages", KEY_INPUT_PACKAGE, diff_things_list },
	{ "removals", KEY_INPUT_REMOVAL, diff_things_list },
	{ "debs", KEY_INPUT_DEB, diff_set },
	{ "files", KEY_INPUT_FILE, diff_things_list },
	{ "inputs", KEY_INPUT_INPUT, diff_map },
	{ "users", KEY_INPUT_USER, diff_map },
	{ "services", KEY_INPUT_SERVICE, diff_services },
	{ "fstab", KEY_INPUT_FSTAB, diff_fields },
	{ "cleanup", KEY_INPUT_CLEANUP, diff_set },
	{ "setup", KEY_INPUT_SETUP, diff_value },
	{ "image", KEY_INPUT_IMAGE, diff_fields },
};

/* Something unknown: followed into objects, for as long as both sides have one, and else said as it is. */
static int diff_unknown(struct differ *d, const char *path, const json_t *old_value, const json_t *new_value)
{
	json_t *o = unconst(old_value), *n = unconst(new_value), *value;
	const char *name;
	int r = 0;

	if (!json_is_object(o) || !json_is_object(n) || strlen(path) > LIST_NAME_MAX_BYTES)
		return emit(d, path, "", old_value, new_value);
	for (int side = 0; side < 2; side++)
		json_object_foreach(side ? n : o, name, value)
		{
			_cleanup_free_ char *below = NULL;

			if (r < 0 || (side == 1 && json_object_get(o, name)) ||
				same(json_object_get(o, name), json_object_get(n, name)))
				continue;
			if (asprintf(&below, "%s%s%s", path, *path ? "." : "", name) < 0)
				return -ENOMEM;
			r = diff_unknown(d, below, json_object_get(o, name), json_object_get(n, name));
		}
	return r;
}

/* A member of the document that differs. */
static int diff_top(struct differ *d, const char *name, const json_t *old_value, const json_t *new_value)
{
	size_t before = d->n_seen;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
		if (strcmp(members[i].name, name) != 0)
			continue;
		d->input = members[i].input;
		r = members[i].diff(d, old_value, new_value);
		/* It differs, so something is said, if only that. */
		return r == 0 && d->n_seen == before ? emit(d, "", "", old_value, new_value) : r;
	}
	d->input = KEY_INPUT_OTHER;
	return diff_unknown(d, name, old_value, new_value);
}

static int compare_values(const json_t *a, const json_t *b)
{
	const char *x = json_string_value(a), *y = json_string_value(b);

	if (!a != !b)
		return a ? -1 : 1;
	return x && y ? strcmp(x, y) : 0;
}

static int compare_changes(const void *a, const void *b)
{
	const struct key_change *x = a, *y = b;
	int r = x->input < y->input ? -1 : x->input > y->input;

	if (r == 0)
		r = strcmp(x->name, y->name);
	if (r == 0)
		r = strcmp(x->field, y->field);
	if (r == 0)
		r = compare_values(x->old_value, y->old_value);
	return r ? r : compare_values(x->new_value, y->new_value);
}

int key_diff(const struct key_side *old_side, const struct key_side *new_side, const struct key_gaps *gaps,
	struct key_changes *ret, struct err *e)
{
	const json_t *o = old_side->document, *n = new_side->document;
	struct differ d = { .gaps = gaps,
		.changes = ret,
		.arch = { json_string_value(json_object_get(o, "arch")), json_string_value(json_object_get(n, "arch")) } };
	int r = 0;

	if (old_side->epoch != new_side->epoch) {
		_cleanup_json_ json_t *was = json_integer(old_side->epoch), *is = json_integer(new_side->epoch);

		d.input = KEY_INPUT_EPOCH;
		r = was && is ? emit(&d, "", "", was, is) : -ENOMEM;
	}
	d.input = KEY_INPUT_OTHER;
	if (r == 0 && json_is_object(o) && json_is_object(n))
		r = for_each_difference(&d, o, n, diff_top);
	else if (r == 0 && !same(o, n))
		r = emit(&d, "", "", o, n);
	if (r < 0)
		return err_set(e, r, "out of memory for what differs");
	if (ret->n > 1)
		qsort(ret->items, ret->n, sizeof(*ret->items), compare_changes);
	return 0;
}

size_t key_changes_count_inputs(const struct key_changes *c)
{
	size_t count = 0;

	for (size_t i = 0; i < c->n; i++)
		if (i == 0 || c->items[i].input != c->items[i - 1].input || strcmp(c->items[i].name, c->items[i - 1].name) != 0)
			count++;
	return count;
}
