#include "lib/err.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

/* Length of the valid UTF-8 sequence at s (at most len bytes), or 0. Overlong forms and surrogates are invalid. */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
	size_t n;
	uint32_t c;

	if (s[0] < 0x80)
		return 1;
	if (s[0] >= 0xC2 && s[0] <= 0xDF)
		n = 2, c = s[0] & 0x1Fu;
	else if (s[0] >= 0xE0 && s[0] <= 0xEF)
		n = 3, c = s[0] & 0x0Fu;
	else if (s[0] >= 0xF0 && s[0] <= 0xF4)
		n = 4, c = s[0] & 0x07u;
	else
		return 0;
	if (n > len)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xC0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3Fu);
	}
	if ((n == 3 && c < 0x800) || (n == 4 && (c < 0x10000 || c > 0x10FFFF)) || (c >= 0xD800 && c <= 0xDFFF))
		return 0;
	if (c >= 0x80 && c < 0xA0) /* C1 controls: some terminals obey them */
		return 0;
	return n;
}

char *err_sanitize(char *dst, size_t dst_size, const char *src, size_t len)
{
	size_t o = 0;

	assert(dst_size > 0);
	for (size_t i = 0; i < len;) {
		size_t n = utf8_sequence((const unsigned char *)src + i, len - i);

		if (o + (n ? n : 1) >= dst_size)
			break;
		if (n == 0 || (n == 1 && ((unsigned char)src[i] < 0x20 || src[i] == 0x7F))) {
			dst[o++] = n && (src[i] == '\n' || src[i] == '\t') ? ' ' : '?';
			i++;
		} else {
			memcpy(dst + o, src + i, n);
			o += n;
			i += n;
		}
	}
	dst[o] = '\0';
	return dst;
}

static _printf_(5, 0) void err_fill(struct err *e, int code, const char *file, int line, const char *fmt, va_list ap)
{
	char raw[ERR_MESSAGE_MAX_BYTES];
	int n;

	assert(code < 0);
	/* A message may quote the one it replaces, so it is written aside first. */
	n = vsnprintf(raw, sizeof(raw), fmt, ap);
	if (n < 0)
		n = 0;
	if ((size_t)n >= sizeof(raw))
		n = sizeof(raw) - 1;
	e->code = code;
	err_sanitize(e->message, sizeof(e->message), raw, (size_t)n);
	(void)snprintf(e->origin, sizeof(e->origin), "%s:%d", file, line);
}

int err_set_at(struct err *e, int code, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_fill(e, code, file, line, fmt, ap);
	va_end(ap);
	return code;
}

int err_set_errno_at(struct err *e, int code, const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	size_t used;

	va_start(ap, fmt);
	err_fill(e, code, file, line, fmt, ap);
	va_end(ap);
	used = strlen(e->message);
	(void)snprintf(e->message + used, sizeof(e->message) - used, ": %s", strerror(-code));
	return code;
}

int err_set_kind_at(struct err *e, enum err_kind kind, int code, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_fill(e, code, file, line, fmt, ap);
	va_end(ap);
	e->kind = kind;
	return code;
}

int err_wrap(struct err *e, const char *fmt, ...)
{
	char outer[ERR_MESSAGE_MAX_BYTES], both[2 * ERR_MESSAGE_MAX_BYTES];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(outer, sizeof(outer), fmt, ap);
	va_end(ap);
	if (n < 0)
		outer[0] = '\0';
	n = snprintf(both, sizeof(both), "%s: %s", outer, e->message);
	err_sanitize(e->message, sizeof(e->message), both, n > 0 ? strnlen(both, sizeof(both)) : 0);
	assert(e->code < 0);
	return e->code;
}

/* Codes that tell of the host's state, never of an input's. EIO, EACCES and EPERM can be either. */
static bool is_host_in_trouble(int code)
{
	switch (-code) {
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
	case ENOMEM:
	case EROFS:
	case EMFILE:
	case ENFILE:
		return true;
	default:
		return false;
	}
}

int err_default_kind(struct err *e, enum err_kind kind)
{
	if (e->kind == ERR_KIND_UNSET)
		e->kind = is_host_in_trouble(e->code) ? ERR_KIND_HOST : kind;
	return e->code;
}

void err_clear(struct err *e)
{
	e->code = 0;
	e->kind = ERR_KIND_UNSET;
	e->origin[0] = '\0';
	e->message[0] = '\0';
}

int err_exit_status(const struct err *e)
{
	if (e->kind != ERR_KIND_UNSET)
		return (int)e->kind;
	if (is_host_in_trouble(e->code) || e->code == -EIO || e->code == -EACCES || e->code == -EPERM)
		return ERR_KIND_HOST;
	return ERR_KIND_DEFECT;
}
