/* The progress sink for a person: stderr, never stdout.
 *
 * On a terminal each running stage is one line, redrawn at most ten times a second: what, how much of how much, the rate and
 * the time left. Elsewhere (a log, CI) a stage is one line when it ends, and one every half minute while it lasts.
 * Notes and warnings are lines of their own. With `quiet` only warnings are shown, with `verbose` every line of output too. Details are sanitized by whoever
 * emits them (lib/progress). One thread at a time. */
#ifndef IMGBUILD_BUILDER_CLI_TERMINAL_H
#define IMGBUILD_BUILDER_CLI_TERMINAL_H

#include "lib/progress.h"

#include <stdbool.h>

enum { TERMINAL_MAX_STAGES = 4 };

struct terminal_stage {
	const char *name; /* NULL: free */
	char detail[160];
	uint64_t begun_ms, spoke_ms;
	uint64_t done, total;
	enum progress_unit unit;
};

struct terminal {
	struct progress sink; /* first: hand &t->sink to whoever reports */
	int fd;		      /* lent */
	bool redraw, color, quiet, verbose;
	unsigned drawn_lines; /* how many lines of running stages stand on the screen */
	uint64_t drawn_ms;
	struct terminal_stage stages[TERMINAL_MAX_STAGES];
};

/* Prepare a sink that writes to fd (lent, usually stderr). Whether it redraws and uses colours is found out: fd is a
 * terminal, TERM is not "dumb", neither no_color nor $NO_COLOR. */
void terminal_init(struct terminal *t, int fd, bool quiet, bool verbose, bool no_color);

/* Take the running lines off the screen, so that something else can be printed. */
void terminal_clear(struct terminal *t);

/* Write "imgbuild: error: MESSAGE" and the like as one line of its own. */
void terminal_print_error(struct terminal *t, const char *message);

/* Format a number of bytes as people read it: "34.6 MB". Returns buf. */
char *format_bytes(char buf[static 32], uint64_t bytes);

/* Format a duration: "850 ms", "12.3 s", "2 min 05 s". Returns buf. */
char *format_ms(char buf[static 32], uint64_t ms);

#endif
