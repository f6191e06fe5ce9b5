/* As much JSON as the channel needs: strings out, flat objects in. SOURCE: RFC 8259. */
#ifndef IMGBUILD_INIT_JSON_H
#define IMGBUILD_INIT_JSON_H

#include "initrd/init/util.h"

/* Append (bytes, len) as a JSON string with its quotes. Bytes that are no UTF-8 become U+FFFD. */
void json_add_string(struct text *t, const char *bytes, size_t len);

/* Find member `key` of the flat object in `line`. Nested values are stepped over. A string is decoded into
 * out (\u escapes beyond ASCII become '?'), anything else is copied as written. Returns 0; -ENOENT no such
 * member; -EBADMSG not an object. */
int json_get(const char *line, const char *key, char *out, size_t out_size);

/* How many of the last bytes of (bytes, len) are the beginning of a UTF-8 sequence that is not complete: 0
 * to 3. */
size_t utf8_incomplete_tail(const char *bytes, size_t len);

#endif
