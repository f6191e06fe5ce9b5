/* TOML 1.0.0: bytes to a tree of values that know where they stand.
 *
 * toml_parse() gives a document that owns the whole tree: everything reached through it is borrowed and lives until
 * toml_free(). The tree is not changed afterwards and may be read by several threads. A byte order mark at the start
 * is skipped. Members of a table stand in the order of the text.
 *
 * Errors: -EBADMSG for text that is no TOML, with the position and "found …, expected …"; -E2BIG for a limit; -ENOMEM.
 * Limits, all tested: TOML_MAX_BYTES of text, TOML_MAX_DEPTH levels of tables and arrays, TOML_MAX_NODES values,
 * TOML_MAX_MEMBERS of one table. Integers are 64 bit; reals are IEEE 754 doubles; fractions of a second are kept to the
 * nanosecond, further digits are cut off as the specification asks.
 *
 * SOURCE: TOML v1.0.0 (toml.io/en/v1.0.0) and its ABNF. */
#ifndef IMGBUILD_PLAN_TOML_H
#define IMGBUILD_PLAN_TOML_H

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TOML_MAX_BYTES (4u << 20)
#define TOML_MAX_DEPTH 64u
#define TOML_MAX_NODES 262144u
#define TOML_MAX_MEMBERS 16384u

enum toml_type {
	TOML_STRING = 0,
	TOML_INTEGER,
	TOML_FLOAT,
	TOML_BOOLEAN,
	TOML_OFFSET_DATETIME,
	TOML_LOCAL_DATETIME,
	TOML_LOCAL_DATE,
	TOML_LOCAL_TIME,
	TOML_ARRAY,
	TOML_TABLE
};

/* data is followed by a NUL that is not counted; the text itself may hold NULs (from \u0000). Valid UTF-8. */
struct toml_string {
	const char *data;
	size_t len;
};

/* A valid date and time of the Gregorian calendar; fields that the type does not have are 0. */
struct toml_datetime {
	unsigned year, month, day;
	unsigned hour, minute, second; /* second is at most 60: RFC 3339 allows leap seconds */
	unsigned nanosecond;
	int offset_minutes; /* east of UTC */
};

struct toml_value;

struct toml_member {
	struct toml_string key;
	uint32_t key_offset; /* where the key was first written, for toml_locate() */
	struct toml_value *value;
};

struct toml_table {
	struct toml_member *members;
	size_t n;
	/* for the reader only */
	size_t capacity;
	uint32_t *sorted;
	unsigned origin, depth;
};

struct toml_array {
	struct toml_value **items;
	size_t n;
	/* for the reader only */
	size_t capacity;
	bool of_tables;
};

struct toml_value {
	enum toml_type type;
	uint32_t offset; /* of its first byte, or of the key in the header that made it */
	union {
		struct toml_string string;
		int64_t integer;
		double real;
		bool boolean;
		struct toml_datetime datetime;
		struct toml_array array;
		struct toml_table table;
	};
};

struct toml_position {
	unsigned line, column; /* from 1; columns count characters */
};

struct toml_doc; /* opaque */

/* Parse (text, len), which is copied.
 * ret_where  written on -EBADMSG and -E2BIG; the message in *e does not repeat it. May be NULL.
 * Returns 0, -EBADMSG, -E2BIG or -ENOMEM. */
int toml_parse(const char *text, size_t len, struct toml_doc **ret, struct toml_position *ret_where, struct err *e)
	_must_check_;

void toml_free(struct toml_doc *d); /* NULL is fine */
static inline void toml_freep(struct toml_doc **d)
{
	toml_free(*d);
}
#define _cleanup_toml_ _cleanup_(toml_freep)

/* The root table. */
const struct toml_value *toml_root(const struct toml_doc *d);

/* Find a member by name; NULL when the table has none. */
const struct toml_value *toml_get(const struct toml_table *t, const char *key);

/* Find line and column of an offset kept in a value or member. Takes time in proportion to the text: for messages. */
struct toml_position toml_locate(const struct toml_doc *d, uint32_t offset);

/* The name of a type for people: "a string", "an integer", "a table". */
const char *toml_type_name(enum toml_type type);

#endif
