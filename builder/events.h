/* events.jsonl: what happened during a build, one JSON object a line, kept beside its result.
 *
 * An events sink is a progress sink, so that what the person sees and what the file says come from the same calls; the guest's
 * records are added as they arrive. Each line has "ms" (since the sink was made; monotonic) and "event". Updates of a stage
 * are thinned to one a second. The file is bounded: after EVENTS_MAX_BYTES one last line says so. Errors of writing are kept
 * and told by events_finish(). */
#ifndef IMGBUILD_BUILDER_EVENTS_H
#define IMGBUILD_BUILDER_EVENTS_H

#include "lib/err.h"
#include "lib/progress.h"

#include <stdbool.h>

#define EVENTS_MAX_BYTES (16u << 20)
#define EVENTS_STAGES_MAX 32

/* How long a stage took, for the manifest. */
struct events_stage {
	const char *name; /* a constant of whoever reports */
	uint64_t begun_ms, ms;
	bool ended;
};

struct events {
	struct progress sink;	/* first: hand &ev->sink to whoever reports */
	struct progress *next;	/* borrowed: gets every event too; may be NULL */
	int fd;			/* lent; -1: nothing is written */
	uint64_t begun_ms, written_bytes, last_update_ms;
	int failure;		/* the first -errno of writing, or 0 */
	struct events_stage stages[EVENTS_STAGES_MAX]; /* in the order they began; more than these are not kept */
	size_t n_stages;
};

/* Prepare a sink that passes every event on to `next`. Until events_open() nothing is written. */
void events_init(struct events *ev, struct progress *next);

/* From now on write to fd (lent, opened for appending). */
void events_open(struct events *ev, int fd);

/* Write one record of the guest's, a JSON object without a newline (len bytes, checked by builder/vm). */
void events_add_record(struct events *ev, const char *json, size_t len);

/* Say whether everything could be written, and forget the descriptor. */
int events_finish(struct events *ev, struct err *e) _must_check_;

#endif
