#include "builder/packages/relation.h"

#include <ctype.h>
#include <string.h>

struct cursor {
	const char *p, *end;
};

static void skip_blanks(struct cursor *c)
{
	while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\n' || *c->p == '\r'))
		c->p++;
}

static bool accept(struct cursor *c, char ch)
{
	skip_blanks(c);
	if (c->p >= c->end || *c->p != ch)
		return false;
	c->p++;
	return true;
}

/* Names of real packages are lower case; those that are only mentioned may have capitals and underscores. */
static bool name_char(char ch)
{
	return isalnum((unsigned char)ch) || ch == '+' || ch == '-' || ch == '.' || ch == '_';
}

bool deb_package_name_valid(const char *s, size_t len)
{
	if (len < 1 || len > RELATION_NAME_MAX_BYTES || !isalnum((unsigned char)s[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!name_char(s[i]))
			return false;
	return true;
}

static int fail(struct cursor *c, const char *what, struct err *e)
{
	char shown[48];

	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "a relation between packages does not parse: expected %s before `%s`",
		what, err_sanitize(shown, sizeof(shown), c->p, (size_t)(c->end - c->p)));
}

static int parse_version(struct cursor *c, struct deb_relation *ret, struct err *e)
{
	static const struct {
		const char *text;
		enum deb_version_op op;
	} ops[] = { { "<<", DEB_VERSION_LT }, { "<=", DEB_VERSION_LE }, { ">>", DEB_VERSION_GT }, { ">=", DEB_VERSION_GE },
		{ "=", DEB_VERSION_EQ }, { "<", DEB_VERSION_LE }, { ">", DEB_VERSION_GE } };

	skip_blanks(c);
	for (size_t i = 0; i < ARRAY_SIZE(ops) && ret->op == DEB_VERSION_ANY; i++) {
		size_t len = strlen(ops[i].text);

		if ((size_t)(c->end - c->p) >= len && memcmp(c->p, ops[i].text, len) == 0) {
			ret->op = ops[i].op;
			c->p += len;
		}
	}
	if (ret->op == DEB_VERSION_ANY)
		return fail(c, "<<, <=, =, >= or >>", e);
	skip_blanks(c);
	ret->version = c->p;
	while (c->p < c->end && *c->p != ')' && !isspace((unsigned char)*c->p))
		c->p++;
	ret->version_len = (size_t)(c->p - ret->version);
	if (ret->version_len == 0)
		return fail(c, "a version", e);
	if (!accept(c, ')'))
		return fail(c, "`)`", e);
	return 0;
}

/* [architectures] and <profiles> do not occur in binary packages' control data; skip them as dpkg does. */
static int skip_restriction(struct cursor *c, char close, struct err *e)
{
	while (c->p < c->end && *c->p != close)
		c->p++;
	return c->p < c->end ? (c->p++, 0) : fail(c, "the end of a restriction", e);
}

static int parse_one(struct cursor *c, struct deb_relation *ret, struct err *e)
{
	int r;

	*ret = (struct deb_relation){ 0 };
	skip_blanks(c);
	ret->name = c->p;
	while (c->p < c->end && name_char(*c->p))
		c->p++;
	ret->name_len = (size_t)(c->p - ret->name);
	if (ret->name_len == 0 || ret->name_len > RELATION_NAME_MAX_BYTES)
		return fail(c, "the name of a package", e);
	if (c->p < c->end && *c->p == ':') {
		ret->qualifier = ++c->p;
		while (c->p < c->end && name_char(*c->p))
			c->p++;
		ret->qualifier_len = (size_t)(c->p - ret->qualifier);
	}
	if (accept(c, '(')) {
		r = parse_version(c, ret, e);
		if (r < 0)
			return r;
	}
	for (;;) {
		r = accept(c, '[') ? skip_restriction(c, ']', e) : accept(c, '<') ? skip_restriction(c, '>', e) : 1;
		if (r != 0)
			return r < 0 ? r : 0;
	}
}

static int append(struct deb_relations *list, const struct deb_relation *one, struct err *e)
{
	if (list->n == RELATIONS_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "more than %d relations in one field", RELATIONS_MAX);
	if (list->n == list->capacity) {
		size_t capacity = list->capacity ? 2 * list->capacity : 32;
		struct deb_relation *items = reallocarray(list->items, capacity, sizeof(*items));

		if (!items)
			return err_set(e, -ENOMEM, "out of memory");
		list->items = items;
		list->capacity = capacity;
	}
	list->items[list->n++] = *one;
	return 0;
}

int deb_relations_parse(const char *text, size_t len, struct deb_relations *list, struct err *e)
{
	struct cursor c = { text, text + len };

	for (;;) {
		struct deb_relation one;
		int r;

		/* An empty item (", ,", or a comma at the end) is what dpkg lets pass. */
		while (accept(&c, ','))
			;
		skip_blanks(&c);
		if (c.p >= c.end)
			return 0;
		r = parse_one(&c, &one, e);
		if (r < 0)
			return r;
		one.or_next = accept(&c, '|');
		skip_blanks(&c);
		if (!one.or_next && c.p < c.end && *c.p != ',')
			return fail(&c, "`,` or `|`", e);
		if (one.or_next && (c.p >= c.end || *c.p == ','))
			return fail(&c, "an alternative", e);
		r = append(list, &one, e);
		if (r < 0)
			return r;
	}
}

void deb_relations_release(struct deb_relations *list)
{
	free(list->items);
	*list = (struct deb_relations){ 0 };
}
