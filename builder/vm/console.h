/* What the guest shows: its console's bytes and its steps' output, into one bounded file, and the last lines kept.
 *
 * Console bytes are cut into lines. A line that carries a framed record is handed on and is not written anywhere (the verdict holds
 * the nonce); every other one goes into the file and the tail, control characters replaced. Step output comes out of
 * records and is treated the same. A kernel panic is recognised by the kernel's own words on the console, never in step
 * output. Around it, and around the oops that led to it, a tail of its own is kept: what follows is registers and a call trace,
 * which would push the cause out. After `max_bytes` the file is cut with one line that says so; trouble with writing to it ends
 * the writing, not the run.
 *
 * Ownership: log_fd is lent. console_release() frees the line buffers.
 * SOURCE: Linux kernel/panic.c ("Kernel panic - not syncing: "), arch/x86/mm/fault.c, arch/x86/kernel/traps.c,
 * arch/arm64/mm/fault.c, lib/bug.c (the first words of an oops). */
#ifndef IMGBUILD_BUILDER_VM_CONSOLE_H
#define IMGBUILD_BUILDER_VM_CONSOLE_H

#include "builder/vm/records.h"
#include "builder/vm/tail.h"

struct console {
	int log_fd; /* -1: none */
	uint64_t max_bytes;
	uint64_t logged_bytes;
	bool cut;	    /* reached max_bytes, or could not be written */
	uint64_t seen_bytes; /* of the console itself */
	bool panicked;
	char panic[256];    /* the panic's words, and the oops's before it, sanitized */
	char oops[160];	    /* the first words of the last oops, sanitized */
	size_t cause_line;  /* how many lines `all` had had when `cause` was begun */
	struct tail all;    /* console and output */
	struct tail output; /* output alone */
	struct tail cause;  /* the lines around the last oops or the panic; empty without */
	struct line_reader lines, output_lines;
};

/* Begin; log_fd is lent (-1: no file). console_release() frees the line buffers and may be called twice. */
void console_init(struct console *c, int log_fd, uint64_t max_bytes);
void console_release(struct console *c);

/* Take bytes of the console; `on_frame` is called for each framed record (truncated: it was too long). */
int console_feed(struct console *c, const char *bytes, size_t len, line_fn on_frame, void *ctx, struct err *e)
	_must_check_;

/* Take output of a step. */
int console_output(struct console *c, const char *text, size_t len, struct err *e) _must_check_;

/* Write a line of our own into the file and the tail, such as where a step begins. */
void console_mark(struct console *c, const char *fmt, ...) _printf_(2, 3);

/* The stream has ended: what is left of lines without a newline is taken as lines. */
void console_finish(struct console *c);

#endif
