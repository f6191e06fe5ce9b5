#include "builder/events.h"
#include "lib/io.h"
#include "lib/process.h"

#include <jansson.h>
#include <string.h>

static void write_line(struct events *ev, const char *line, size_t len)
{
	static const char full[] = "{\"event\":\"full\",\"detail\":\"events beyond this point were not kept\"}\n";
	int r;

	if (ev->fd < 0 || ev->failure || ev->written_bytes >= EVENTS_MAX_BYTES)
		return;
	r = write_full(ev->fd, line, len);
	if (r == 0)
		r = write_full(ev->fd, "\n", 1);
	ev->written_bytes += len + 1;
	if (r == 0 && ev->written_bytes >= EVENTS_MAX_BYTES)
		r = write_full(ev->fd, full, sizeof(full) - 1);
	if (r < 0)
		ev->failure = r;
}

static void write_object(struct events *ev, json_t *object)
{
	char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;

	if (line)
		write_line(ev, line, strlen(line));
	else if (!ev->failure)
		ev->failure = -ENOMEM;
	free(line);
	json_decref(object);
}

static void note_stage(struct events *ev, const struct progress_event *event, uint64_t now)
{
	if (event->kind == PROGRESS_BEGIN && ev->n_stages < EVENTS_STAGES_MAX)
		ev->stages[ev->n_stages++] = (struct events_stage){ .name = event->stage, .begun_ms = now };
	for (size_t i = ev->n_stages; event->kind == PROGRESS_END && i > 0; i--) {
		struct events_stage *stage = &ev->stages[i - 1];

		if (strcmp(stage->name, event->stage) == 0 && !stage->ended) {
			stage->ended = true;
			stage->ms = now - stage->begun_ms;
			return;
		}
	}
}

static void events_emit(struct progress *p, const struct progress_event *event)
{
	static const char *const names[] = { "begin", "update", "end", "note", "warning" };
	struct events *ev = (struct events *)p;
	uint64_t now = monotonic_ms();
	json_t *object;

	if (ev->next)
		ev->next->emit(ev->next, event);
	note_stage(ev, event, now);
	/* Output stands in the guest's records already. */
	if (ev->fd < 0 || event->kind == PROGRESS_OUTPUT)
		return;
	if (event->kind == PROGRESS_UPDATE) {
		if (now - ev->last_update_ms < 1000)
			return;
		ev->last_update_ms = now;
	}
	object = json_pack("{s:I, s:s, s:s*, s:s}", "ms", (json_int_t)(now - ev->begun_ms), "event", names[event->kind],
		"stage", event->stage, "detail", event->detail);
	if (object && event->kind == PROGRESS_UPDATE)
		(void)json_object_update_new(object, json_pack("{s:I, s:I, s:s}", "done", (json_int_t)event->done, "total",
								 (json_int_t)event->total, "unit",
								 event->unit == PROGRESS_BYTES ? "bytes" : "items"));
	write_object(ev, object);
}

void events_init(struct events *ev, struct progress *next)
{
	*ev = (struct events){
		.sink = { .emit = events_emit }, .next = next, .fd = -1, .begun_ms = monotonic_ms()
	};
}

void events_open(struct events *ev, int fd)
{
	ev->fd = fd;
}

void events_add_record(struct events *ev, const char *json, size_t len)
{
	json_t *record = json_loadb(json, len, JSON_ALLOW_NUL, NULL);

	if (ev->fd >= 0 && record)
		write_object(ev, json_pack("{s:I, s:s, s:O}", "ms", (json_int_t)(monotonic_ms() - ev->begun_ms), "event",
					 "guest", "record", record));
	json_decref(record);
}

int events_finish(struct events *ev, struct err *e)
{
	ev->fd = -1;
	if (ev->failure)
		return err_set_errno(e, ev->failure, "cannot write events.jsonl");
	return 0;
}
