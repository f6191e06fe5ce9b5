/* Values of a key document as text for people, fit for a terminal: `why` and `show` say the same of the same.
 *
 * What is appended is sanitized and cut (VALUE_MAX_BYTES of a value, VALUE_LINE_MAX_BYTES of a line of a text), digests to VALUE_DIGEST_SHOWN
 * digits. Running out of memory, or out of the buffer, cuts, too: this is for the eye. Pure. */
#ifndef IMGBUILD_BUILDER_CLI_VALUES_H
#define IMGBUILD_BUILDER_CLI_VALUES_H

#include "lib/buf.h"
#include "plan/key_diff.h"

#define VALUE_MAX_BYTES 160
#define VALUE_LINE_MAX_BYTES 400
#define VALUE_DIGEST_SHOWN 12

/* Append len bytes of a text. */
void value_append_text(struct buf *into, const char *text, size_t len);

/* Append a string: a digest cut for the eye, all else as it is. */
void value_append_string(struct buf *into, const char *text);

/* Append a value of a field of an input ("" and NULL: any). No value is "none". */
void value_append(struct buf *into, enum key_input input, const char *field, const json_t *value);

/* Append the members of a thing as "mode 0644, owner root, sha256 1d8fa3c8ab49", but those of its name and those that say nothing. */
void value_append_thing(struct buf *into, enum key_input input, const json_t *thing);

#endif
