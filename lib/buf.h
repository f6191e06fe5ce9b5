/* A growable byte buffer that always knows its maximum.
 *
 * buf_init(&b, max) does not allocate; buf_release() frees and may be called twice. The bytes are followed by a NUL
 * that is not counted, so that text can be used as a C string. Growing past `max_bytes` is -E2BIG, for then the input
 * is hostile or a limit is wrong; running out of memory is -ENOMEM. A failed append leaves the contents as they were. */
#ifndef IMGBUILD_LIB_BUF_H
#define IMGBUILD_LIB_BUF_H

#include "lib/cleanup.h"

#include <stdbool.h>
#include <stddef.h>

struct buf {
	char *data; /* NULL while empty and never grown; see buf_str() */
	size_t len;
	size_t capacity_bytes;
	size_t max_bytes;
};

#define BUF_INIT(max)                                                                                        \
	{                                                                                                    \
		.max_bytes = (max)                                                                           \
	}

void buf_init(struct buf *b, size_t max_bytes);
void buf_release(struct buf *b);
#define _cleanup_buf_ _cleanup_(buf_release)

/* Make room for `more` bytes beyond len. Returns 0, -E2BIG or -ENOMEM. */
int buf_reserve(struct buf *b, size_t more) _must_check_;

/* Append bytes, a string, one byte, or formatted text. Return 0, -E2BIG or -ENOMEM. */
int buf_append(struct buf *b, const void *bytes, size_t len) _must_check_;
int buf_append_str(struct buf *b, const char *s) _must_check_;
int buf_append_char(struct buf *b, char c) _must_check_;
int buf_appendf(struct buf *b, const char *fmt, ...) _printf_(2, 3) _must_check_;

/* Forget the contents, keep the memory. */
void buf_reset(struct buf *b);

/* Remove n bytes from the front; n <= len. */
void buf_consume(struct buf *b, size_t n);

/* The contents as a C string; "" while nothing was ever appended. Borrowed until the next change. */
const char *buf_str(const struct buf *b);

/* Whether two hold the same bytes. */
bool buf_equal(const struct buf *a, const struct buf *b);

/* Take the memory out (malloc'ed, NUL-terminated, the caller frees); the buffer is empty afterwards. NULL only when
 * memory for the empty string could not be had. *ret_len may be NULL. */
char *buf_take(struct buf *b, size_t *ret_len);

#endif
