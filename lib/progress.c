#include "lib/progress.h"
#include "lib/err.h"

#include <stdarg.h>
#include <string.h>

static _printf_(4, 0) void emit_text(
	struct progress *p, enum progress_event_kind kind, const char *stage, const char *fmt, va_list ap)
{
	char raw[1024], clean[1024];
	int n;

	if (!p)
		return;
	n = vsnprintf(raw, sizeof(raw), fmt, ap);
	err_sanitize(clean, sizeof(clean), raw, n < 0 ? 0 : strlen(raw));
	p->emit(p, &(struct progress_event){ .kind = kind, .stage = stage, .detail = clean });
}

void progress_begin(struct progress *p, const char *stage, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit_text(p, PROGRESS_BEGIN, stage, fmt, ap);
	va_end(ap);
}

void progress_update(struct progress *p, const char *stage, enum progress_unit unit, uint64_t done, uint64_t total,
	const char *detail)
{
	if (p)
		p->emit(p, &(struct progress_event){ .kind = PROGRESS_UPDATE,
				   .stage = stage,
				   .detail = detail ? detail : "",
				   .done = done,
				   .total = total,
				   .unit = unit });
}

void progress_end(struct progress *p, const char *stage, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit_text(p, PROGRESS_END, stage, fmt, ap);
	va_end(ap);
}

void progress_note(struct progress *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit_text(p, PROGRESS_NOTE, NULL, fmt, ap);
	va_end(ap);
}

void progress_warning(struct progress *p, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	emit_text(p, PROGRESS_WARNING, NULL, fmt, ap);
	va_end(ap);
}

void progress_output(struct progress *p, const char *line, size_t len)
{
	char clean[1024];

	if (p)
		p->emit(p, &(struct progress_event){ .kind = PROGRESS_OUTPUT,
				   .detail = err_sanitize(clean, sizeof(clean), line, len) });
}
