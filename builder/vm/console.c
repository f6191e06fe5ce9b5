#include "builder/vm/console.h"

#include "initrd/protocol.h" /* constants only: see records.h */
#include "lib/io.h"

#include <stdarg.h>
#include <string.h>

enum { CONSOLE_LINE_MAX_BYTES = RECORD_MAX_BYTES + sizeof(CONSOLE_FRAME_PREFIX) };

enum {
	CAUSE_BEFORE_LINES = 8,
	OOPS_LINES = 120 /* an oops and its panic are not farther apart */
};

static const char panic_words[] = "Kernel panic - not syncing";

void console_init(struct console *c, int log_fd, uint64_t max_bytes)
{
	*c = (struct console){ .log_fd = log_fd, .max_bytes = max_bytes };
	line_reader_init(&c->lines, CONSOLE_LINE_MAX_BYTES);
	line_reader_init(&c->output_lines, CONSOLE_LINE_MAX_BYTES);
}

void console_release(struct console *c)
{
	line_reader_release(&c->lines);
	line_reader_release(&c->output_lines);
}

static void log_line(struct console *c, const char *line, size_t len)
{
	static const char cut_note[] = "[imgbuild: the console's file is cut here, it has reached its limit]\n";
	char clean[CONSOLE_LINE_MAX_BYTES + 2];
	size_t n;

	if (c->log_fd < 0 || c->cut)
		return;
	err_sanitize(clean, sizeof(clean) - 1, line, len);
	n = strlen(clean);
	clean[n++] = '\n';
	if (c->logged_bytes + n > c->max_bytes) {
		c->cut = true;
		(void)!write_full(c->log_fd, cut_note, sizeof(cut_note) - 1);
		return;
	}
	if (write_full(c->log_fd, clean, n) < 0)
		c->cut = true;
	else
		c->logged_bytes += n;
}

/* Where an oops begins in a line, or NULL. */
static const char *find_oops(const char *line, size_t len)
{
	static const char *const words[] = { "BUG: ", "kernel BUG at ", "Unable to handle kernel ", "Internal error: ",
		"general protection fault", "invalid opcode: ", "divide error: ", "stack segment: ", "Oops" };

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		const char *at = memmem(line, len, words[i], strlen(words[i]));

		if (at)
			return at;
	}
	return NULL;
}

static bool oops_is_recent(const struct console *c)
{
	return c->oops[0] && c->all.n - c->cause_line < OOPS_LINES;
}

/* Begin to keep what is around the next line. */
static void begin_cause(struct console *c)
{
	size_t kept = c->all.n < CAUSE_BEFORE_LINES ? c->all.n : CAUSE_BEFORE_LINES;

	c->cause = (struct tail){ 0 };
	c->cause_line = c->all.n;
	for (size_t i = c->all.n - kept; i < c->all.n; i++) {
		const char *line = c->all.lines[i % TAIL_LINES];

		tail_add(&c->cause, line, strlen(line));
	}
}

/* A kernel that panics says why in a line or two, before or after that word. */
static void follow_trouble(struct console *c, const char *line, size_t len)
{
	const char *panic = memmem(line, len, panic_words, strlen(panic_words)), *oops = find_oops(line, len);
	bool keep = c->cause.n > 0 && c->cause.n < TAIL_LINES - 1;

	if (panic && !c->panicked) {
		size_t used;

		if (!oops_is_recent(c)) {
			c->oops[0] = '\0';
			begin_cause(c);
		}
		c->panicked = keep = true;
		err_sanitize(c->panic, sizeof(c->panic), panic, len - (size_t)(panic - line));
		used = strlen(c->panic);
		if (c->oops[0])
			(void)snprintf(c->panic + used, sizeof(c->panic) - used, " (%s)", c->oops);
	} else if (oops && !c->panicked && !oops_is_recent(c)) {
		err_sanitize(c->oops, sizeof(c->oops), oops, len - (size_t)(oops - line));
		begin_cause(c);
		keep = true;
	}
	if (keep)
		tail_add(&c->cause, line, len);
}

static void take_text_line(struct console *c, const char *line, size_t len)
{
	follow_trouble(c, line, len);
	log_line(c, line, len);
	tail_add(&c->all, line, len);
}

struct console_feed {
	struct console *console;
	line_fn on_frame;
	void *ctx;
};

static int take_console_line(void *ctx, const char *line, size_t len, bool truncated, struct err *e)
{
	struct console_feed *f = ctx;
	size_t frame_len = 0;
	const char *frame = record_in_console_line(line, len, &frame_len);

	if (frame)
		return f->on_frame(f->ctx, frame, frame_len, truncated, e);
	take_text_line(f->console, line, len);
	return 0;
}

int console_feed(struct console *c, const char *bytes, size_t len, line_fn on_frame, void *ctx, struct err *e)
{
	struct console_feed f = { .console = c, .on_frame = on_frame, .ctx = ctx };

	c->seen_bytes += len;
	return line_reader_feed(&c->lines, bytes, len, take_console_line, &f, e);
}

static int take_output_line(void *ctx, const char *line, size_t len, bool truncated, struct err *e)
{
	struct console *c = ctx;

	(void)truncated;
	(void)e;
	log_line(c, line, len);
	tail_add(&c->all, line, len);
	tail_add(&c->output, line, len);
	return 0;
}

int console_output(struct console *c, const char *text, size_t len, struct err *e)
{
	return line_reader_feed(&c->output_lines, text, len, take_output_line, c, e);
}

void console_mark(struct console *c, const char *fmt, ...)
{
	char line[256];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	log_line(c, line, strlen(line));
	tail_add(&c->all, line, strlen(line));
}

void console_finish(struct console *c)
{
	struct err ignored = ERR_INIT;

	/* A half line of the console may be half a framed record with the nonce in it: that one goes nowhere. */
	if (c->lines.pending.len > 0 && !c->lines.skipping) {
		size_t len;

		if (!record_in_console_line(buf_str(&c->lines.pending), c->lines.pending.len, &len))
			take_text_line(c, buf_str(&c->lines.pending), c->lines.pending.len);
		buf_reset(&c->lines.pending);
	}
	if (c->output_lines.pending.len > 0 && !c->output_lines.skipping)
		(void)!line_reader_feed(&c->output_lines, "\n", 1, take_output_line, c, &ignored);
}
