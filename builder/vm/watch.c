#include "builder/vm/watch.h"

#include "builder/vm/vm.h"

/* Nested KVM was seen to need 20 s where bare KVM needs one (FIELD: CubeSandbox#94); TCG needs 2 s here, and ten
 * times that on a busy machine. A KVM that emulates every instruction was seen to speak early and to be nowhere after two
 * minutes: it is not worth waiting for when TCG can be had. */
struct watch_limits watch_limits_for(bool kvm, bool impatient, uint64_t stall_ms)
{
	uint64_t factor = kvm ? 1 : VM_TCG_FACTOR;

	return (struct watch_limits){
		.first_byte_ms = impatient ? 30000 : factor * 40000,
		.stuck_ms = factor * 4000,
		.hello_ms = impatient ? 45000 : factor * 180000,
		.stall_ms = factor * stall_ms,
		.busy_ms = VM_BUSY_FACTOR * factor * stall_ms,
		.end_ms = factor * (stall_ms < 15000 ? stall_ms : 15000),
	};
}

void watch_init(struct watch *w, const struct watch_limits *limits, uint64_t now_ms)
{
	*w = (struct watch){ .limits = *limits,
		.start_ms = now_ms,
		.phase_ms = now_ms,
		.sign_ms = now_ms,
		.alive_ms = now_ms,
		.last = { .now_ms = now_ms } };
}

void watch_enter(struct watch *w, enum watch_phase phase, uint64_t now_ms)
{
	if (phase <= w->phase)
		return;
	w->phase = phase;
	w->phase_ms = w->sign_ms = w->alive_ms = now_ms;
}

/* Leave time out that passed unseen. */
static void skip_time(struct watch *w, uint64_t skipped_ms)
{
	w->start_ms += skipped_ms;
	w->phase_ms += skipped_ms;
	w->sign_ms += skipped_ms;
	w->alive_ms += skipped_ms;
	w->n_stuck = 0;
	w->last.has_cpu_state = false;
}

static void note_cpu_state(struct watch *w, const struct watch_sample *s)
{
	if (!s->has_cpu_state)
		return;
	if (!w->last.has_cpu_state || s->cpu_state != w->last.cpu_state) {
		w->n_stuck = 0;
		w->stuck_since_ms = s->now_ms;
	}
	w->n_stuck++;
}

enum watch_finding watch_take(struct watch *w, const struct watch_sample *s)
{
	uint64_t elapsed_ms = s->now_ms - w->last.now_ms;
	bool busy;

	if (elapsed_ms > WATCH_GAP_MS)
		skip_time(w, elapsed_ms - WATCH_GAP_MS);
	if (s->console_bytes > w->last.console_bytes || s->records > w->last.records ||
		s->disk_operations > w->last.disk_operations)
		w->sign_ms = w->alive_ms = s->now_ms;
	busy = elapsed_ms > 0 && s->cpu_ms > w->last.cpu_ms &&
	       (s->cpu_ms - w->last.cpu_ms) * 100 >= elapsed_ms * WATCH_BUSY_PERCENT;
	if (busy)
		w->alive_ms = s->now_ms;
	note_cpu_state(w, s);
	w->last = *s;

	if (w->phase == WATCH_NO_BYTE && s->console_bytes > 0)
		watch_enter(w, WATCH_BOOTING, s->now_ms);
	if (w->phase == WATCH_NO_BYTE && w->n_stuck >= WATCH_STUCK_SAMPLES &&
		s->now_ms - w->stuck_since_ms >= w->limits.stuck_ms)
		return WATCH_DEAD_STUCK;
	if (w->phase == WATCH_NO_BYTE)
		return s->now_ms - w->start_ms >= w->limits.first_byte_ms ? WATCH_DEAD_NO_BYTE : WATCH_ALIVE;
	if (w->phase == WATCH_ENDING)
		return s->now_ms - w->phase_ms >= w->limits.end_ms ? WATCH_DEAD_NOT_ENDING : WATCH_ALIVE;
	if (w->phase == WATCH_BOOTING && s->now_ms - w->start_ms >= w->limits.hello_ms)
		return WATCH_DEAD_NO_HELLO;
	if (s->now_ms - w->alive_ms >= w->limits.stall_ms)
		return WATCH_DEAD_IDLE;
	if (s->now_ms - w->sign_ms >= w->limits.busy_ms)
		return WATCH_DEAD_BUSY;
	return WATCH_ALIVE;
}
