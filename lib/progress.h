/* Reporting of long work: stages with a beginning, an amount done, and an end; and notes for the person.
 *
 * Code below the command layer says what happens and never prints. The command layer makes a sink that draws lines
 * on a terminal, writes events.jsonl, or both. A NULL sink is fine everywhere and costs nothing. Calls may come from
 * one thread at a time. */
#ifndef IMGBUILD_LIB_PROGRESS_H
#define IMGBUILD_LIB_PROGRESS_H

#include "lib/cleanup.h"

#include <stddef.h>
#include <stdint.h>

enum progress_unit { PROGRESS_BYTES, PROGRESS_ITEMS };

enum progress_event_kind {
	PROGRESS_BEGIN,	 /* stage, detail: what is worked on */
	PROGRESS_UPDATE, /* stage, detail, done, total (0: unknown), unit */
	PROGRESS_END,	 /* stage, detail: the result in a few words, or "" */
	PROGRESS_NOTE,	 /* detail: one line that the person should see (a removal, a fall-back) */
	PROGRESS_WARNING, /* detail: one line that the person must see */
	PROGRESS_OUTPUT	 /* detail: one line that something wrote, for who asked for all of it */
};

struct progress_event {
	enum progress_event_kind kind;
	const char *stage;  /* a short constant: "download", "extract", "solve", "pack", "boot"; NULL for notes */
	const char *detail; /* text for people, already free of secrets; never NULL */
	uint64_t done, total;
	enum progress_unit unit;
};

struct progress {
	void (*emit)(struct progress *p, const struct progress_event *event);
};

/* Say that a stage begins, how far it is and that it ended; tell the person something; warn. `stage` is one of the short
 * constants above, `p` may be NULL. */
void progress_begin(struct progress *p, const char *stage, const char *fmt, ...) _printf_(3, 4);
void progress_update(struct progress *p, const char *stage, enum progress_unit unit, uint64_t done, uint64_t total,
	const char *detail);
void progress_end(struct progress *p, const char *stage, const char *fmt, ...) _printf_(3, 4);
void progress_note(struct progress *p, const char *fmt, ...) _printf_(2, 3);
void progress_warning(struct progress *p, const char *fmt, ...) _printf_(2, 3);

/* One line of output, (line, len) without its newline; sanitized here. */
void progress_output(struct progress *p, const char *line, size_t len);

#endif
