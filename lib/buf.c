#include "lib/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

void buf_init(struct buf *b, size_t max_bytes)
{
	*b = (struct buf)BUF_INIT(max_bytes);
}

void buf_release(struct buf *b)
{
	free(b->data);
	b->data = NULL;
	b->len = 0;
	b->capacity_bytes = 0;
}

int buf_reserve(struct buf *b, size_t more)
{
	size_t need, capacity;
	char *data;

	if (more > b->max_bytes || b->len > b->max_bytes - more)
		return -E2BIG;
	need = b->len + more + 1;
	if (need <= b->capacity_bytes)
		return 0;
	/* At least doubled, so that n appends copy O(n) bytes; need never passes max_bytes + 1. */
	capacity = b->capacity_bytes <= b->max_bytes / 2 ? 2 * b->capacity_bytes : b->max_bytes + 1;
	if (capacity < 64)
		capacity = 64;
	if (capacity < need)
		capacity = need;
	data = realloc(b->data, capacity);
	if (!data)
		return -ENOMEM;
	b->data = data;
	b->data[b->len] = '\0';
	b->capacity_bytes = capacity;
	return 0;
}

int buf_append(struct buf *b, const void *bytes, size_t len)
{
	int r = buf_reserve(b, len);

	if (r < 0)
		return r;
	if (len > 0)
		memcpy(b->data + b->len, bytes, len);
	b->len += len;
	b->data[b->len] = '\0';
	return 0;
}

int buf_append_str(struct buf *b, const char *s)
{
	return buf_append(b, s, strlen(s));
}

int buf_append_char(struct buf *b, char c)
{
	return buf_append(b, &c, 1);
}

int buf_appendf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	int n, r;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return -EINVAL;
	r = buf_reserve(b, (size_t)n);
	if (r < 0)
		return r;
	va_start(ap, fmt);
	(void)vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
	return 0;
}

void buf_reset(struct buf *b)
{
	b->len = 0;
	if (b->data)
		b->data[0] = '\0';
}

void buf_consume(struct buf *b, size_t n)
{
	assert(n <= b->len);
	if (n == 0)
		return;
	memmove(b->data, b->data + n, b->len - n + 1);
	b->len -= n;
}

const char *buf_str(const struct buf *b)
{
	return b->data ? b->data : "";
}

bool buf_equal(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

char *buf_take(struct buf *b, size_t *ret_len)
{
	char *data;

	if (!b->data && buf_reserve(b, 0) < 0)
		return NULL;
	data = b->data;
	if (ret_len)
		*ret_len = b->len;
	b->data = NULL;
	b->len = 0;
	b->capacity_bytes = 0;
	return data;
}
