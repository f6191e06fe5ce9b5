/* Whether a virtual machine is alive, told from samples; pure: the time is a parameter.
 *
 * A sign of life is a record, a byte on the console, or a disk operation. A machine whose process uses at least
 * WATCH_BUSY_PERCENT of one CPU between two samples is busy. It is dead when it gave no sign and was not busy for
 * stall_ms, or when it was busy without a sign for busy_ms. Before its kernel has said a word the limit is first_byte_ms,
 * or stuck_ms when the registers of its virtual CPU stay as they are over WATCH_STUCK_SAMPLES samples: kernels that run
 * do not, and none sleeps before its console. Before init's hello it is hello_ms since the start, whatever the signs.
 * After the verdict was acknowledged, end_ms.
 *
 * Time counts only while someone looks: of a gap between two samples, WATCH_GAP_MS. Who stopped imgbuild, or gave it no CPU, has
 * not found the guest dead. */
#ifndef IMGBUILD_BUILDER_VM_WATCH_H
#define IMGBUILD_BUILDER_VM_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WATCH_STUCK_SAMPLES 8
/* An idle guest was seen at 1 to 5, a busy one on a host with six times too much to do at 15 and more. The time that threads
 * wait for a CPU tells nothing: on such a host that of an idle guest, which wakes for each tick, is as long. */
#define WATCH_BUSY_PERCENT 12
#define WATCH_GAP_MS 5000 /* the most that can pass unseen between two samples */

enum watch_phase { WATCH_NO_BYTE = 0, WATCH_BOOTING, WATCH_RUNNING, WATCH_ENDING };

enum watch_finding {
	WATCH_ALIVE = 0,
	WATCH_DEAD_NO_BYTE, /* nothing on the console in time */
	WATCH_DEAD_STUCK,   /* nothing on the console, and the CPU stays where it is */
	WATCH_DEAD_NO_HELLO,
	WATCH_DEAD_IDLE, /* no sign, not busy */
	WATCH_DEAD_BUSY, /* no sign, busy for too long */
	WATCH_DEAD_NOT_ENDING
};

struct watch_limits {
	uint64_t first_byte_ms, stuck_ms, hello_ms, stall_ms, busy_ms, end_ms;
};

struct watch_sample {
	uint64_t now_ms;
	uint64_t console_bytes, records, disk_operations; /* so far; each only grows */
	uint64_t cpu_ms;     /* CPU time of QEMU's process so far */
	uint64_t cpu_state; /* digest of the registers of the virtual CPU that boots, when has_cpu_state */
	bool has_cpu_state;
};

struct watch {
	struct watch_limits limits;
	enum watch_phase phase;
	uint64_t start_ms, phase_ms;	 /* when the run and the phase began */
	uint64_t sign_ms, alive_ms;	 /* the last sign of life, and the last time it had one or was busy */
	struct watch_sample last;
	uint64_t stuck_since_ms;
	unsigned n_stuck;
};

/* Limits for an accelerator. impatient: another one can be tried when this does not get the guest to say hello.
 * stall_ms: as the plan says it, before the factor for TCG. */
struct watch_limits watch_limits_for(bool kvm, bool impatient, uint64_t stall_ms);

/* Begin at now_ms, before the first byte. */
void watch_init(struct watch *w, const struct watch_limits *limits, uint64_t now_ms);

/* Go on to a later phase; going back is ignored. */
void watch_enter(struct watch *w, enum watch_phase phase, uint64_t now_ms);

/* Take a sample and judge. */
enum watch_finding watch_take(struct watch *w, const struct watch_sample *sample);

#endif
