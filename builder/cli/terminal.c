#include "builder/cli/terminal.h"
#include "lib/buf.h"
#include "lib/io.h"
#include "lib/process.h"

#include <string.h>
#include <sys/ioctl.h>

enum { REDRAW_MS = 100, LOG_EVERY_MS = 30000, LINE_MAX_BYTES = 4096 };

char *format_bytes(char buf[static 32], uint64_t bytes)
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB" };
	double value = (double)bytes;
	size_t u = 0;

	while (value >= 999.5 && u + 1 < ARRAY_SIZE(units)) {
		value /= 1000;
		u++;
	}
	(void)snprintf(buf, 32, u == 0 || value >= 99.5 ? "%.0f %s" : "%.1f %s", value, units[u]);
	return buf;
}

char *format_ms(char buf[static 32], uint64_t ms)
{
	if (ms < 1000)
		(void)snprintf(buf, 32, "%u ms", (unsigned)ms);
	else if (ms < 60000)
		(void)snprintf(buf, 32, "%.1f s", (double)ms / 1000);
	else
		(void)snprintf(buf, 32, "%llu min %02llu s", (unsigned long long)(ms / 60000),
			(unsigned long long)(ms / 1000 % 60));
	return buf;
}

static unsigned terminal_columns(const struct terminal *t)
{
	struct winsize ws;

	return ioctl(t->fd, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 20 ? ws.ws_col : 80;
}

/* How much, how fast and how long yet, as far as it is known. */
static void describe_amount(const struct terminal_stage *s, uint64_t now, char *out, size_t out_size)
{
	char done[32], total[32], rate[32], left[32];
	uint64_t elapsed = now - s->begun_ms;
	double per_second = elapsed > 500 ? (double)s->done * 1000 / (double)elapsed : 0;
	size_t used;

	out[0] = '\0';
	if (s->unit == PROGRESS_ITEMS) {
		if (s->total > 0)
			(void)snprintf(out, out_size, "%llu of %llu", (unsigned long long)s->done,
				(unsigned long long)s->total);
		return;
	}
	if (s->done == 0)
		return;
	(void)snprintf(out, out_size, "%s%s%s", format_bytes(done, s->done), s->total ? " of " : "",
		s->total ? format_bytes(total, s->total) : "");
	used = strlen(out);
	if (per_second < 1)
		return;
	(void)snprintf(out + used, out_size - used, ", %s/s", format_bytes(rate, (uint64_t)per_second));
	used = strlen(out);
	if (s->total > s->done)
		(void)snprintf(out + used, out_size - used, ", %s left",
			format_ms(left, (uint64_t)((double)(s->total - s->done) / per_second * 1000)));
}

/* One line for a running stage, cut to the width of the terminal. */
static void format_running(const struct terminal *t, const struct terminal_stage *s, uint64_t now, char *out,
	size_t out_size)
{
	char amount[128], elapsed[32];
	unsigned columns = terminal_columns(t);

	describe_amount(s, now, amount, sizeof(amount));
	(void)snprintf(out, out_size, "  %-9s %s%s%s (%s)", s->name, amount, amount[0] && s->detail[0] ? "  " : "",
		s->detail, format_ms(elapsed, now - s->begun_ms));
	if (strlen(out) >= columns && columns < out_size) {
		size_t cut = columns - 1;

		while (cut > 0 && ((unsigned char)out[cut] & 0xC0) == 0x80) /* not inside a character */
			cut--;
		out[cut] = '\0';
	}
}

static void terminal_write(struct terminal *t, const char *text)
{
	/* stderr that cannot be written to is nobody's error: the result on stdout still counts. */
	(void)!write_full(t->fd, text, strlen(text));
}

void terminal_clear(struct terminal *t)
{
	char erase[64];

	if (t->drawn_lines == 0)
		return;
	(void)snprintf(erase, sizeof(erase), "\r\033[%uA\033[J", t->drawn_lines);
	terminal_write(t, erase);
	t->drawn_lines = 0;
}

static void terminal_draw(struct terminal *t, uint64_t now)
{
	terminal_clear(t);
	for (size_t i = 0; i < TERMINAL_MAX_STAGES; i++) {
		char line[512];

		if (!t->stages[i].name)
			continue;
		format_running(t, &t->stages[i], now, line, sizeof(line));
		terminal_write(t, line);
		terminal_write(t, "\n");
		t->drawn_lines++;
	}
	t->drawn_ms = now;
}

/* Write one line that stays, above the running ones. */
static void print_line(struct terminal *t, const char *color, const char *label, const char *text)
{
	char line[LINE_MAX_BYTES];

	terminal_clear(t);
	(void)snprintf(line, sizeof(line), "%s%s%s%s\n", t->color ? color : "", label, t->color ? "\033[0m" : "", text);
	terminal_write(t, line);
	if (t->redraw)
		terminal_draw(t, monotonic_ms());
}

void terminal_print_error(struct terminal *t, const char *message)
{
	for (size_t i = 0; i < TERMINAL_MAX_STAGES; i++)
		t->stages[i].name = NULL;
	print_line(t, "\033[1;31m", "imgbuild: error: ", message);
}

static struct terminal_stage *find_stage(struct terminal *t, const char *name)
{
	for (size_t i = 0; i < TERMINAL_MAX_STAGES; i++)
		if (t->stages[i].name && strcmp(t->stages[i].name, name) == 0)
			return &t->stages[i];
	return NULL;
}

static struct terminal_stage *add_stage(struct terminal *t, const char *name, uint64_t now)
{
	for (size_t i = 0; i < TERMINAL_MAX_STAGES; i++)
		if (!t->stages[i].name) {
			t->stages[i] = (struct terminal_stage){ .name = name, .begun_ms = now, .spoke_ms = now };
			return &t->stages[i];
		}
	return NULL;
}

static void end_stage(struct terminal *t, struct terminal_stage *s, const char *detail, uint64_t now)
{
	char text[512], elapsed[32];

	(void)snprintf(text, sizeof(text), "%-9s %s (%s)", s->name, detail[0] ? detail : s->detail,
		format_ms(elapsed, now - s->begun_ms));
	s->name = NULL;
	print_line(t, "\033[32m", "  ", text);
}

static void update_stage(struct terminal *t, struct terminal_stage *s, const struct progress_event *event, uint64_t now)
{
	s->done = event->done;
	s->total = event->total;
	s->unit = event->unit;
	if (event->detail[0])
		err_sanitize(s->detail, sizeof(s->detail), event->detail, strlen(event->detail));
	if (t->redraw && now - t->drawn_ms >= REDRAW_MS) {
		terminal_draw(t, now);
	} else if (!t->redraw && now - s->spoke_ms >= LOG_EVERY_MS) {
		char line[512];

		s->spoke_ms = now;
		format_running(t, s, now, line, sizeof(line));
		print_line(t, "", "", line);
	}
}

static void terminal_emit(struct progress *p, const struct progress_event *event)
{
	struct terminal *t = (struct terminal *)p;
	struct terminal_stage *s = event->stage ? find_stage(t, event->stage) : NULL;
	uint64_t now = monotonic_ms();

	if (event->kind == PROGRESS_WARNING)
		print_line(t, "\033[33m", "imgbuild: warning: ", event->detail);
	if (t->quiet)
		return;
	switch (event->kind) {
	case PROGRESS_BEGIN:
		if (!s)
			s = add_stage(t, event->stage, now);
		if (s)
			err_sanitize(s->detail, sizeof(s->detail), event->detail, strlen(event->detail));
		if (t->redraw)
			terminal_draw(t, now);
		break;
	case PROGRESS_UPDATE:
		if (s)
			update_stage(t, s, event, now);
		break;
	case PROGRESS_END:
		if (s)
			end_stage(t, s, event->detail, now);
		break;
	case PROGRESS_NOTE:
		print_line(t, "", "  ", event->detail);
		break;
	case PROGRESS_OUTPUT:
		if (t->verbose)
			print_line(t, "", "  | ", event->detail);
		break;
	case PROGRESS_WARNING:
		break;
	}
}

void terminal_init(struct terminal *t, int fd, bool quiet, bool verbose, bool no_color)
{
	const char *term = getenv("TERM"), *never = getenv("NO_COLOR");
	bool fancy = isatty(fd) && !no_color && !(never && *never) && term && strcmp(term, "dumb") != 0;

	*t = (struct terminal){ .sink = { .emit = terminal_emit },
		.fd = fd,
		.redraw = fancy,
		.color = fancy,
		.quiet = quiet,
		.verbose = verbose };
}
