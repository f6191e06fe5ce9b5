/* Stanzas of "Field: value" text: control files, Packages, Release, dpkg's status, .sources, preferences.
 *
 * deb822_next() walks a text in memory; struct deb822_stream takes it in pieces. Either gives one stanza at a time,
 * whose names and values point into the text and live as long as it does (for a stream: during the callback).
 *
 * A value begins after the colon and the blanks behind it and ends before the last newline; continuation lines are in it as
 * they stand, comment lines (which begin with '#' in the first column) too: read lists with deb822_words(), lines with
 * deb822_line_next(), which know. Field names compare without case. Of a field given twice the first counts.
 *
 * Errors: -EBADMSG for a line that is none (with its number), a NUL byte, or a limit exceeded.
 * SOURCE: deb822(5), Debian policy 5.1. */
#ifndef IMGBUILD_BUILDER_PACKAGES_DEB822_H
#define IMGBUILD_BUILDER_PACKAGES_DEB822_H

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/strv.h"

#include <stdbool.h>
#include <stddef.h>

enum {
	DEB822_FIELDS_MAX = 128,	/* of one stanza */
	DEB822_STANZA_MAX_BYTES = 4 << 20, /* of one stanza; a Release file is a single one of 0.2 MB */
};

struct deb822_value {
	const char *s; /* not terminated; NULL: the field is not there */
	size_t len;
};

struct deb822_field {
	const char *name;
	size_t name_len;
	struct deb822_value value;
};

struct deb822_stanza {
	struct deb822_field fields[DEB822_FIELDS_MAX];
	size_t n;
	unsigned line; /* where it begins, from 1 */
};

struct deb822_reader {
	const char *text;
	size_t len, offset;
	unsigned line;	   /* of offset, from 0 */
	const char *label; /* for messages, borrowed */
};

/* Begin to read a text; nothing is allocated. label names it in messages. */
void deb822_reader_init(struct deb822_reader *r, const char *text, size_t len, const char *label);

/* Read the next stanza that has a field. Returns 1 with *ret filled, 0 at the end, or -EBADMSG. */
int deb822_next(struct deb822_reader *r, struct deb822_stanza *ret, struct err *e) _must_check_;

/* Find a field by its name, whatever its case. The value's s is NULL when there is none. */
struct deb822_value deb822_get(const struct deb822_stanza *stanza, const char *name);

/* Say whether a value is exactly this word, whatever its case. */
bool deb822_is(struct deb822_value v, const char *word);

/* Read yes, true, on, 1 or no, false, off, 0. `missing` is for a field that is not there; anything else is -EINVAL. */
int deb822_bool(struct deb822_value v, bool missing, bool *ret);

/* Append the words of a value, parted by blanks and newlines (and commas, if so). Returns 0 or -ENOMEM. */
int deb822_words(struct deb822_value v, bool commas, struct strv *ret) _must_check_;

/* Step through the lines of a value, the first included, comments left out, leading blanks kept. *rest starts as the
 * value. Returns false at the end. */
bool deb822_line_next(struct deb822_value *rest, struct deb822_value *ret_line);

/* Take leading and trailing blanks off. */
struct deb822_value deb822_trim(struct deb822_value v);

/* A copy as a C string, or NULL when memory ran out. A missing value gives "". */
char *deb822_dup(struct deb822_value v);

/* Is called with each stanza of a stream; a negative result ends it. */
typedef int (*deb822_stanza_fn)(void *ctx, const struct deb822_stanza *stanza, struct err *e);

struct deb822_stream {
	struct buf pending;
	unsigned line;
	const char *label;
	deb822_stanza_fn fn;
	void *ctx;
	struct deb822_stanza stanza;
};

/* Begin a stream. It is released with deb822_stream_release(); label is borrowed. */
void deb822_stream_init(struct deb822_stream *s, const char *label, deb822_stanza_fn fn, void *ctx);
void deb822_stream_release(struct deb822_stream *s);

/* Take (bytes, len); with len 0 the text has ended and what is pending is the last stanza. */
int deb822_stream_feed(struct deb822_stream *s, const void *bytes, size_t len, struct err *e) _must_check_;

#endif
