/* What the parts of the TOML reader share: the cursor over the text, memory, and failing. Only toml*.c include this.
 *
 * The text ends in a NUL that is not part of it, so that one byte of look-ahead needs no check; a NUL inside the text
 * is no valid TOML anywhere and is refused like the other control characters. */
#ifndef IMGBUILD_PLAN_TOML_INTERNAL_H
#define IMGBUILD_PLAN_TOML_INTERNAL_H

#include "plan/toml.h"

struct toml_parser {
	struct toml_doc *doc;
	const char *text;
	size_t len;
	size_t pos;
	size_t error_pos;
	struct err *e;
};

/* Allocate from the document's memory. NULL when out of memory (the error is set). */
void *toml_alloc(struct toml_parser *p, size_t size_bytes);

/* Fail at a position. Returns code. */
int toml_fail(struct toml_parser *p, size_t pos, int code, const char *fmt, ...) _printf_(4, 5);

/* Fail with "found <what stands at pos>, expected <expected>". Returns -EBADMSG. */
int toml_fail_expected(struct toml_parser *p, size_t pos, const char *expected);

static inline char toml_peek(const struct toml_parser *p)
{
	return p->text[p->pos];
}

/* Is there a line's end (LF, or CR LF) at pos? Returns its length, else 0. */
static inline size_t toml_newline_at(const struct toml_parser *p, size_t pos)
{
	if (p->text[pos] == '\n')
		return 1;
	return p->text[pos] == '\r' && p->text[pos + 1] == '\n' ? 2 : 0;
}

/* Read one string in any of the four forms; the cursor stands on its first quote. */
int toml_parse_string(struct toml_parser *p, bool multiline_allowed, struct toml_string *ret);

/* Read a boolean, number, date or time; the cursor stands on its first character. Sets type and content of *v. */
int toml_parse_scalar(struct toml_parser *p, struct toml_value *v);

#endif
