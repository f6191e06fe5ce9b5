/* The last lines of a stream, for errors: a ring of fixed size that never allocates. Lines are sanitized when they are
 * added and cut at TAIL_LINE_MAX_BYTES. A zeroed struct tail is empty and valid. */
#ifndef IMGBUILD_BUILDER_VM_TAIL_H
#define IMGBUILD_BUILDER_VM_TAIL_H

#include <stddef.h>

#define TAIL_LINES 24
#define TAIL_LINE_MAX_BYTES 240

struct tail {
	char lines[TAIL_LINES][TAIL_LINE_MAX_BYTES];
	size_t n; /* ever added; the last is lines[(n - 1) % TAIL_LINES] */
};

/* Add a line, without its newline. */
void tail_add(struct tail *t, const char *line, size_t len);

/* Write the last lines that fit into text[size], oldest first, each with a newline. Always terminated. */
void tail_copy(const struct tail *t, char *text, size_t size);

/* The last line that is not blank, or "". Borrowed until the next line is added. */
const char *tail_last(const struct tail *t);

#endif
