#include "plan/toml.h"
#include "plan/toml_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_MIN_BYTES 65536u

/* Tables with at most so many members are searched from end to end. */
#define LINEAR_SEARCH_MAX 16u

/* What made a table, which decides what may still be added to it. */
enum table_origin {
	TABLE_BY_LONGER_HEADER, /* [a.b] made a; [a] may come once */
	TABLE_BY_HEADER,	/* [a], [[a]], the root */
	TABLE_BY_DOTTED_KEY,	/* a.b = 1 made a; other dotted keys may add to it */
	TABLE_INLINE		/* complete */
};

struct chunk {
	struct chunk *next;
	size_t used_bytes, size_bytes;
	max_align_t bytes[];
};

struct toml_doc {
	struct toml_value root;
	char *text;
	size_t len;
	struct chunk *chunks;
	size_t n_nodes;
};

struct key_part {
	struct toml_string name;
	size_t pos;
};

struct key {
	struct key_part parts[TOML_MAX_DEPTH];
	size_t n;
};

static int parse_value(struct toml_parser *p, unsigned depth, struct toml_value *v);

/* --- memory and errors --- */

void *toml_alloc(struct toml_parser *p, size_t size_bytes)
{
	struct chunk *c = p->doc->chunks;
	size_t size = (size_bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
	void *r;

	if (!c || c->size_bytes - c->used_bytes < size) {
		size_t want = size > CHUNK_MIN_BYTES ? size : CHUNK_MIN_BYTES;

		c = malloc(sizeof(*c) + want);
		if (!c) {
			(void)err_set(p->e, -ENOMEM, "out of memory");
			return NULL;
		}
		*c = (struct chunk){ .next = p->doc->chunks, .size_bytes = want };
		p->doc->chunks = c;
	}
	r = (char *)c->bytes + c->used_bytes;
	c->used_bytes += size;
	return r;
}

/* Double the capacity of an array of n elements that is full. Returns the new memory, or NULL. */
static void *grow(struct toml_parser *p, const void *old, size_t n, size_t *capacity, size_t element_bytes)
{
	/* Twelve to begin with: a package's table in a lock has nine members, and there are thousands of them. */
	size_t want = *capacity ? 2 * *capacity : 12;
	void *r = toml_alloc(p, want * element_bytes);

	if (!r)
		return NULL;
	if (n > 0)
		memcpy(r, old, n * element_bytes);
	*capacity = want;
	return r;
}

int toml_fail(struct toml_parser *p, size_t pos, int code, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	p->error_pos = pos;
	return err_set_kind(p->e, ERR_KIND_USAGE, code, "%s", message);
}

int toml_fail_expected(struct toml_parser *p, size_t pos, const char *expected)
{
	unsigned char c = (unsigned char)p->text[pos];
	size_t n = 1;

	if (pos >= p->len)
		return toml_fail(p, pos, -EBADMSG, "found the end of the file, expected %s", expected);
	if (toml_newline_at(p, pos))
		return toml_fail(p, pos, -EBADMSG, "found the end of the line, expected %s", expected);
	if (c < 0x20 || c == 0x7f)
		return toml_fail(p, pos, -EBADMSG, "found the control character 0x%02x, expected %s", c, expected);
	while (((unsigned char)p->text[pos + n] & 0xc0) == 0x80)
		n++;
	return toml_fail(p, pos, -EBADMSG, "found `%.*s`, expected %s", (int)n, p->text + pos, expected);
}

static int count_node(struct toml_parser *p, size_t pos)
{
	if (++p->doc->n_nodes > TOML_MAX_NODES)
		return toml_fail(p, pos, -E2BIG, "found more than %u values, expected at most so many", TOML_MAX_NODES);
	return 0;
}

static struct toml_value *new_value(struct toml_parser *p, size_t pos)
{
	struct toml_value *v;

	if (count_node(p, pos) < 0)
		return NULL;
	v = toml_alloc(p, sizeof(*v));
	if (v) {
		memset(v, 0, sizeof(*v));
		v->offset = (uint32_t)pos;
	}
	return v;
}

/* --- tables --- */

static int compare_strings(const struct toml_string *a, const struct toml_string *b)
{
	size_t n = a->len < b->len ? a->len : b->len;
	int c = n > 0 ? memcmp(a->data, b->data, n) : 0;

	if (c != 0)
		return c;
	return a->len < b->len ? -1 : a->len > b->len;
}

/* Find where key is or belongs in the sorted index. */
static size_t search_sorted(const struct toml_table *t, const struct toml_string *key, bool *ret_found)
{
	size_t low = 0, high = t->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int c = compare_strings(&t->members[t->sorted[middle]].key, key);

		if (c == 0) {
			*ret_found = true;
			return middle;
		}
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*ret_found = false;
	return low;
}

static struct toml_member *find_member(const struct toml_table *t, const struct toml_string *key)
{
	bool found;
	size_t i;

	if (!t->sorted) {
		for (i = 0; i < t->n; i++)
			if (t->members[i].key.len == key->len && compare_strings(&t->members[i].key, key) == 0)
				return &t->members[i];
		return NULL;
	}
	i = search_sorted(t, key, &found);
	return found ? &t->members[t->sorted[i]] : NULL;
}

/* Make room for one more member, in the index too once there are enough of them. */
static int reserve_member(struct toml_parser *p, struct toml_table *t, size_t pos)
{
	size_t index_capacity = t->capacity;
	void *members;

	if (t->n >= TOML_MAX_MEMBERS)
		return toml_fail(p, pos, -E2BIG, "found more than %u keys in one table, expected at most so many",
			TOML_MAX_MEMBERS);
	if (t->n < t->capacity)
		return 0;
	members = grow(p, t->members, t->n, &t->capacity, sizeof(*t->members));
	if (!members)
		return -ENOMEM;
	t->members = members;
	if (t->capacity <= LINEAR_SEARCH_MAX)
		return 0;
	if (t->sorted) {
		void *sorted = grow(p, t->sorted, t->n, &index_capacity, sizeof(*t->sorted));

		if (!sorted)
			return -ENOMEM;
		t->sorted = sorted;
		return 0;
	}
	t->sorted = toml_alloc(p, t->capacity * sizeof(*t->sorted));
	if (!t->sorted)
		return -ENOMEM;
	for (size_t i = 0, n = t->n; i < n; i++) {
		bool found;
		size_t at;

		t->n = i;
		at = search_sorted(t, &t->members[i].key, &found);
		memmove(t->sorted + at + 1, t->sorted + at, (i - at) * sizeof(*t->sorted));
		t->sorted[at] = (uint32_t)i;
		t->n = n;
	}
	return 0;
}

/* Add a member that the caller knows is not there yet. */
static int add_member(struct toml_parser *p, struct toml_table *t, const struct key_part *key, struct toml_value *v)
{
	int r = reserve_member(p, t, key->pos);

	if (r < 0)
		return r;
	if (t->sorted) {
		bool found;
		size_t at = search_sorted(t, &key->name, &found);

		memmove(t->sorted + at + 1, t->sorted + at, (t->n - at) * sizeof(*t->sorted));
		t->sorted[at] = (uint32_t)t->n;
	}
	t->members[t->n++] = (struct toml_member){ .key = key->name, .key_offset = (uint32_t)key->pos, .value = v };
	return 0;
}

static int new_table(struct toml_parser *p, size_t pos, enum table_origin origin, unsigned depth,
	struct toml_value **ret)
{
	struct toml_value *v;

	if (depth > TOML_MAX_DEPTH)
		return toml_fail(p, pos, -E2BIG, "found more than %u levels, expected at most so many", TOML_MAX_DEPTH);
	v = new_value(p, pos);
	if (!v)
		return p->e->code;
	v->type = TOML_TABLE;
	v->table.origin = origin;
	v->table.depth = depth;
	*ret = v;
	return 0;
}

static int add_item(struct toml_parser *p, struct toml_array *a, struct toml_value *v)
{
	if (a->n == a->capacity) {
		void *items = grow(p, a->items, a->n, &a->capacity, sizeof(struct toml_value *));

		if (!items)
			return -ENOMEM;
		a->items = items;
	}
	a->items[a->n++] = v;
	return 0;
}

static int fail_duplicate(struct toml_parser *p, const struct key_part *key, const struct toml_member *first,
	const char *what)
{
	struct toml_position at = toml_locate(p->doc, first->key_offset);
	char name[128];

	return toml_fail(p, key->pos, -EBADMSG, "found `%s` again (first on line %u), expected %s",
		err_sanitize(name, sizeof(name), key->name.data, key->name.len), at.line, what);
}

/* --- white space, comments, keys --- */

static void skip_blanks(struct toml_parser *p)
{
	while (toml_peek(p) == ' ' || toml_peek(p) == '\t')
		p->pos++;
}

/* Skip a comment if one starts here; its line's end stays. */
static int skip_comment(struct toml_parser *p)
{
	if (toml_peek(p) != '#')
		return 0;
	for (; p->pos < p->len && !toml_newline_at(p, p->pos); p->pos++) {
		unsigned char c = (unsigned char)toml_peek(p);

		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return toml_fail_expected(p, p->pos, "no control characters in a comment");
	}
	return 0;
}

/* Skip blanks, comments and line ends, as between the items of an array. */
static int skip_blanks_and_lines(struct toml_parser *p)
{
	for (;;) {
		size_t newline;
		int r;

		skip_blanks(p);
		r = skip_comment(p);
		if (r < 0)
			return r;
		newline = toml_newline_at(p, p->pos);
		if (!newline)
			return 0;
		p->pos += newline;
	}
}

/* Demand that nothing but a comment follows on this line. */
static int end_line(struct toml_parser *p, const char *after)
{
	size_t newline;
	char expected[64];
	int r;

	skip_blanks(p);
	r = skip_comment(p);
	if (r < 0)
		return r;
	newline = toml_newline_at(p, p->pos);
	if (!newline && p->pos < p->len) {
		(void)snprintf(expected, sizeof(expected), "the end of the line after the %s", after);
		return toml_fail_expected(p, p->pos, expected);
	}
	p->pos += newline;
	return 0;
}

static bool is_bare_key_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static int parse_key_part(struct toml_parser *p, struct key_part *ret)
{
	size_t start = p->pos;
	char *copy;

	ret->pos = start;
	if (toml_peek(p) == '"' || toml_peek(p) == '\'')
		return toml_parse_string(p, false, &ret->name);
	while (is_bare_key_char(toml_peek(p)))
		p->pos++;
	if (p->pos == start)
		return toml_fail_expected(p, start, "a key: letters, digits, - and _, or \"quoted\"");
	copy = toml_alloc(p, p->pos - start + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, p->text + start, p->pos - start);
	copy[p->pos - start] = '\0';
	ret->name = (struct toml_string){ .data = copy, .len = p->pos - start };
	return 0;
}

/* Read a key of one or more parts with dots between them. */
static int parse_key(struct toml_parser *p, struct key *ret)
{
	ret->n = 0;
	for (;;) {
		int r;

		if (ret->n == TOML_MAX_DEPTH)
			return toml_fail(p, p->pos, -E2BIG, "found a key of more than %u parts, expected at most so many",
				TOML_MAX_DEPTH);
		skip_blanks(p);
		r = parse_key_part(p, &ret->parts[ret->n]);
		if (r < 0)
			return r;
		ret->n++;
		skip_blanks(p);
		if (toml_peek(p) != '.')
			return 0;
		p->pos++;
	}
}

/* --- values --- */

/* Walk down the parts of a dotted key but the last, making tables that are not there. */
static int descend_dotted(struct toml_parser *p, struct toml_table *t, const struct key *key, struct toml_table **ret)
{
	for (size_t i = 0; i + 1 < key->n; i++) {
		struct toml_member *m = find_member(t, &key->parts[i].name);
		struct toml_value *v;
		int r;

		if (m) {
			if (m->value->type != TOML_TABLE)
				return fail_duplicate(p, &key->parts[i], m, "a table that the dotted key can add to");
			if (m->value->table.origin != TABLE_BY_DOTTED_KEY)
				return fail_duplicate(p, &key->parts[i], m,
					"no dotted key into a table that was written elsewhere");
			t = &m->value->table;
			continue;
		}
		r = new_table(p, key->parts[i].pos, TABLE_BY_DOTTED_KEY, t->depth + 1, &v);
		if (r == 0)
			r = add_member(p, t, &key->parts[i], v);
		if (r < 0)
			return r;
		t = &v->table;
	}
	*ret = t;
	return 0;
}

/* Read `key = value` into the table. */
static int parse_key_value(struct toml_parser *p, struct toml_table *t)
{
	struct key key;
	const struct key_part *last;
	struct toml_member *m;
	struct toml_value *v;
	int r = parse_key(p, &key);

	if (r < 0)
		return r;
	if (toml_peek(p) != '=')
		return toml_fail_expected(p, p->pos, "`=` after the key");
	p->pos++;
	skip_blanks(p);
	r = descend_dotted(p, t, &key, &t);
	if (r < 0)
		return r;
	last = &key.parts[key.n - 1];
	m = find_member(t, &last->name);
	if (m)
		return fail_duplicate(p, last, m, "each key once");
	v = new_value(p, p->pos);
	if (!v)
		return p->e->code;
	r = parse_value(p, t->depth + 1, v);
	return r < 0 ? r : add_member(p, t, last, v);
}

static int parse_array(struct toml_parser *p, unsigned depth, struct toml_value *v)
{
	v->type = TOML_ARRAY;
	p->pos++;
	for (;;) {
		struct toml_value *item;
		int r = skip_blanks_and_lines(p);

		if (r < 0)
			return r;
		if (toml_peek(p) == ']')
			break;
		item = new_value(p, p->pos);
		if (!item)
			return p->e->code;
		r = parse_value(p, depth + 1, item);
		if (r == 0)
			r = add_item(p, &v->array, item);
		if (r == 0)
			r = skip_blanks_and_lines(p);
		if (r < 0)
			return r;
		if (toml_peek(p) == ']')
			break;
		if (toml_peek(p) != ',')
			return toml_fail_expected(p, p->pos, "`,` or `]` in the array");
		p->pos++;
	}
	p->pos++;
	return 0;
}

/* Once read, an inline table and all tables that its dotted keys made are complete. */
static void seal_table(struct toml_table *t)
{
	t->origin = TABLE_INLINE;
	for (size_t i = 0; i < t->n; i++)
		if (t->members[i].value->type == TOML_TABLE && t->members[i].value->table.origin != TABLE_INLINE)
			seal_table(&t->members[i].value->table);
}

static int parse_inline_table(struct toml_parser *p, unsigned depth, struct toml_value *v)
{
	v->type = TOML_TABLE;
	v->table.depth = depth;
	v->table.origin = TABLE_BY_HEADER;
	p->pos++;
	skip_blanks(p);
	while (toml_peek(p) != '}') {
		int r = parse_key_value(p, &v->table);

		if (r < 0)
			return r;
		skip_blanks(p);
		if (toml_peek(p) == '}')
			break;
		if (toml_peek(p) != ',')
			return toml_fail_expected(p, p->pos, "`,` or `}` in the inline table, on one line");
		p->pos++;
		skip_blanks(p);
		if (toml_peek(p) == '}')
			return toml_fail_expected(p, p->pos, "a key after the `,` of the inline table");
	}
	p->pos++;
	seal_table(&v->table);
	return 0;
}

/* Read any value into *v, which was zeroed. */
static int parse_value(struct toml_parser *p, unsigned depth, struct toml_value *v)
{
	if (depth > TOML_MAX_DEPTH)
		return toml_fail(p, p->pos, -E2BIG, "found more than %u levels, expected at most so many", TOML_MAX_DEPTH);
	switch (toml_peek(p)) {
	case '"':
	case '\'':
		v->type = TOML_STRING;
		return toml_parse_string(p, true, &v->string);
	case '[':
		return parse_array(p, depth, v);
	case '{':
		return parse_inline_table(p, depth, v);
	default:
		return toml_parse_scalar(p, v);
	}
}

/* --- headers --- */

/* Walk down one part of a header that is not its last. */
static int descend_header(struct toml_parser *p, const struct key_part *part, struct toml_table **t)
{
	struct toml_member *m = find_member(*t, &part->name);
	struct toml_value *v;
	int r;

	if (!m) {
		r = new_table(p, part->pos, TABLE_BY_LONGER_HEADER, (*t)->depth + 1, &v);
		if (r == 0)
			r = add_member(p, *t, part, v);
		if (r < 0)
			return r;
		*t = &v->table;
		return 0;
	}
	v = m->value;
	if (v->type == TOML_ARRAY && v->array.of_tables)
		v = v->array.items[v->array.n - 1];
	if (v->type != TOML_TABLE)
		return fail_duplicate(p, part, m, "a table that the header can go into");
	if (v->table.origin == TABLE_INLINE)
		return fail_duplicate(p, part, m, "nothing added to an inline table");
	*t = &v->table;
	return 0;
}

/* The last part of [header]. */
static int open_table(struct toml_parser *p, const struct key_part *last, struct toml_table **t)
{
	struct toml_member *m = find_member(*t, &last->name);
	struct toml_value *v;
	int r;

	if (m) {
		if (m->value->type != TOML_TABLE || m->value->table.origin != TABLE_BY_LONGER_HEADER)
			return fail_duplicate(p, last, m, "each table once");
		m->value->table.origin = TABLE_BY_HEADER;
		*t = &m->value->table;
		return 0;
	}
	r = new_table(p, last->pos, TABLE_BY_HEADER, (*t)->depth + 1, &v);
	if (r == 0)
		r = add_member(p, *t, last, v);
	if (r == 0)
		*t = &v->table;
	return r;
}

/* The last part of [[header]]. */
static int open_array_table(struct toml_parser *p, const struct key_part *last, struct toml_table **t)
{
	struct toml_member *m = find_member(*t, &last->name);
	struct toml_value *array = m ? m->value : NULL;
	struct toml_value *v;
	int r = 0;

	if (m && (array->type != TOML_ARRAY || !array->array.of_tables))
		return fail_duplicate(p, last, m, "an array of tables, written [[…]] each time");
	if (!array) {
		array = new_value(p, last->pos);
		if (!array)
			return p->e->code;
		array->type = TOML_ARRAY;
		array->array.of_tables = true;
		r = add_member(p, *t, last, array);
	}
	if (r == 0)
		r = new_table(p, last->pos, TABLE_BY_HEADER, (*t)->depth + 2, &v);
	if (r == 0)
		r = add_item(p, &array->array, v);
	if (r == 0)
		*t = &v->table;
	return r;
}

/* Read [header] or [[header]] and make *t the table it opens. */
static int parse_header(struct toml_parser *p, struct toml_table **t)
{
	bool of_array = p->text[p->pos + 1] == '[';
	struct key key;
	int r;

	p->pos += of_array ? 2 : 1;
	r = parse_key(p, &key);
	if (r < 0)
		return r;
	if (toml_peek(p) != ']' || (of_array && p->text[p->pos + 1] != ']'))
		return toml_fail_expected(p, p->pos, of_array ? "`]]` after the header" : "`]` after the header");
	p->pos += of_array ? 2 : 1;
	*t = &p->doc->root.table;
	for (size_t i = 0; i + 1 < key.n; i++) {
		r = descend_header(p, &key.parts[i], t);
		if (r < 0)
			return r;
	}
	if (of_array)
		return open_array_table(p, &key.parts[key.n - 1], t);
	return open_table(p, &key.parts[key.n - 1], t);
}

static int parse_document(struct toml_parser *p)
{
	struct toml_table *t = &p->doc->root.table;

	for (;;) {
		bool header;
		int r = skip_blanks_and_lines(p);

		if (r < 0)
			return r;
		if (p->pos >= p->len)
			return 0;
		header = toml_peek(p) == '[';
		r = header ? parse_header(p, &t) : parse_key_value(p, t);
		if (r == 0)
			r = end_line(p, header ? "header" : "value");
		if (r < 0)
			return r;
	}
}

/* --- the document --- */

/* Return the length of the valid UTF-8 character at s, of which n bytes are there, or 0. Overlong forms, surrogates and
 * what lies beyond U+10FFFF are not valid (RFC 3629 section 4). */
static size_t utf8_char_len(const unsigned char *s, size_t n)
{
	size_t len = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;

	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
		(s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return len;
}

static int check_utf8(struct toml_parser *p)
{
	for (size_t i = 0; i < p->len;) {
		uint64_t eight;
		size_t n;

		/* Eight characters at a time while they are ASCII: the text of a lock is. */
		if (p->len - i >= sizeof(eight)) {
			memcpy(&eight, p->text + i, sizeof(eight));
			if (!(eight & UINT64_C(0x8080808080808080))) {
				i += sizeof(eight);
				continue;
			}
		}
		n = utf8_char_len((const unsigned char *)p->text + i, p->len - i);

		if (n == 0)
			return toml_fail(p, i, -EBADMSG, "found the byte 0x%02x, expected UTF-8",
				(unsigned char)p->text[i]);
		i += n;
	}
	return 0;
}

int toml_parse(const char *text, size_t len, struct toml_doc **ret, struct toml_position *ret_where, struct err *e)
{
	_cleanup_toml_ struct toml_doc *d = NULL;
	struct toml_parser p = { .e = e };
	int r;

	if (len > TOML_MAX_BYTES) {
		if (ret_where)
			*ret_where = (struct toml_position){ 1, 1 };
		return err_set_kind(e, ERR_KIND_USAGE, -E2BIG, "found %zu bytes, expected at most %u", len, TOML_MAX_BYTES);
	}
	d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(e, -ENOMEM, "out of memory");
	d->text = malloc(len + 1);
	if (!d->text)
		return err_set(e, -ENOMEM, "out of memory");
	if (len > 0)
		memcpy(d->text, text, len);
	d->text[len] = '\0';
	d->len = len;
	d->root = (struct toml_value){ .type = TOML_TABLE, .table = { .origin = TABLE_BY_HEADER } };
	p.doc = d;
	p.text = d->text;
	p.len = len;
	r = check_utf8(&p);
	if (r == 0) {
		if (len >= 3 && memcmp(d->text, "\xef\xbb\xbf", 3) == 0)
			p.pos = 3;
		r = parse_document(&p);
	}
	if (r < 0) {
		if (ret_where)
			*ret_where = toml_locate(d, (uint32_t)p.error_pos);
		return r;
	}
	*ret = take_ptr(d);
	return 0;
}

void toml_free(struct toml_doc *d)
{
	if (!d)
		return;
	for (struct chunk *c = d->chunks, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	free(d->text);
	free(d);
}

const struct toml_value *toml_root(const struct toml_doc *d)
{
	return &d->root;
}

const struct toml_value *toml_get(const struct toml_table *t, const char *key)
{
	const struct toml_string name = { .data = key, .len = strlen(key) };
	const struct toml_member *m = find_member(t, &name);

	return m ? m->value : NULL;
}

struct toml_position toml_locate(const struct toml_doc *d, uint32_t offset)
{
	struct toml_position at = { .line = 1, .column = 1 };
	size_t end = offset < d->len ? offset : d->len;
	size_t start = d->len >= 3 && memcmp(d->text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;

	for (size_t i = start; i < end; i++) {
		if (d->text[i] == '\n') {
			at.line++;
			at.column = 1;
		} else if (((unsigned char)d->text[i] & 0xc0) != 0x80) {
			at.column++;
		}
	}
	return at;
}

const char *toml_type_name(enum toml_type type)
{
	static const char *const names[] = {
		[TOML_STRING] = "a string",
		[TOML_INTEGER] = "an integer",
		[TOML_FLOAT] = "a real number",
		[TOML_BOOLEAN] = "a boolean",
		[TOML_OFFSET_DATETIME] = "a date and time",
		[TOML_LOCAL_DATETIME] = "a date and time",
		[TOML_LOCAL_DATE] = "a date",
		[TOML_LOCAL_TIME] = "a time",
		[TOML_ARRAY] = "an array",
		[TOML_TABLE] = "a table",
	};

	return names[type];
}
