/* One provisioning boot: QEMU started, the guest greeted, its records taken, its verdict judged, QEMU ended.
 *
 * vm_run() returns when QEMU has ended and was reaped, whatever happened; it never waits for ever. Success is one thing
 * only: the record "passed" with the nonce of this run, which the guest sends after it has unmounted its disk. Every
 * other end has a name of its own (enum vm_outcome). The disk's descriptor is the caller's: QEMU writes to it with host caching
 * and without flushes, so that the caller syncs the result once.
 *
 * Which accelerator: accel.h. When KVM was a try and the guest did not get as far as init's hello (before which it does
 * not write to the disk), the run goes on with TCG; when TCG does get there, it was KVM, and that is remembered.
 *
 * Time: KVM and TCG have limits of their own (below). A guest is dead when for stall_timeout_ms (three times that
 * under TCG) it sent no record, wrote nothing to its console, did nothing with its disk and hardly used its CPUs. One
 * that is silent but busy gets VM_BUSY_FACTOR times as long.
 *
 * Memory is bounded whatever the guest sends: a line at most, the last lines for the error, and VM_CONSOLE_MAX_BYTES
 * in the console's file, after which it is cut with a note.
 *
 * Concurrency: one run per call; several at once in different processes are fine. The child is killed when the
 * calling *thread* ends (PR_SET_PDEATHSIG of lib/process), so call it from a thread that outlives the run: the main one. */
#ifndef IMGBUILD_BUILDER_VM_VM_H
#define IMGBUILD_BUILDER_VM_VM_H

#include "builder/vm/accel.h"
#include "builder/vm/records.h"
#include "lib/arch.h"
#include "lib/err.h"
#include "lib/progress.h"

#include <stdbool.h>
#include <stdint.h>

#define VM_CONSOLE_MAX_BYTES (16u << 20) /* in the console's file: a talkative dpkg run is some 100 KiB */
#define VM_RECORDS_MAX_BYTES (32u << 20) /* of records handed to on_record; then only steps and the verdict are */
#define VM_NOTES_MAX 200		 /* of the guest's, shown to the person */
#define VM_TAIL_MAX_BYTES 4096		 /* the last lines, sanitized */
#define VM_TAIL_MAX_LINES 24
#define VM_STEPS_MAX 64		 /* kept in the result */
#define VM_STEPS_LIMIT 1000	 /* a guest that begins more than these is not believed */
#define VM_STALL_DEFAULT_MS 120000
#define VM_TCG_FACTOR 3	  /* TCG gets this many times the stall time-out */
#define VM_BUSY_FACTOR 10 /* a busy but silent guest gets this many times as long as an idle one */
#define VM_PROGRESS_STAGE "boot"

struct vm_config {
	enum arch arch;
	enum accel_choice accel;
	const char *qemu;	  /* the program; NULL: qemu-system-<machine> from PATH */
	uint32_t memory_mib;
	uint32_t cpus;
	int kernel_fd;		  /* lent; a regular file or memfd that can be opened again by /proc/self/fd */
	int initrd_fd;		  /* the same; -1: none */
	int disk_fd;		  /* lent, O_RDWR, raw; -1: none */
	const char *cmdline;	  /* added to the provisioning kernel's command line; NULL: nothing */
	uint64_t clock_epoch;	  /* seconds since 1970 that the machine's clock shows at the start */
	uint32_t stall_timeout_ms; /* 0: VM_STALL_DEFAULT_MS; the plan's, before the factor for TCG */
	int (*try_kvm)(struct err *e); /* NULL; tests: see accel.h */
};

/* What the caller wants to hear. All may be absent. */
struct vm_hooks {
	struct progress *progress; /* stage VM_PROGRESS_STAGE; notes; NULL is fine */
	void *ctx;
	/* Each record the guest sent, nonce included in `record` but not in record_to_line(). at_ms: since the start of this
	 * run. */
	void (*on_record)(void *ctx, const struct record *record, uint64_t at_ms);
	int console_fd;		 /* lent: console bytes and step output are appended with write(2); -1: nowhere */
	int cancel_fd;		 /* lent: the run ends (-ECANCELED) when this becomes readable; -1: never */
	int memory_dirfd;	 /* lent: where accel.h remembers; -1: nowhere */
	const char *memory_path; /* its name, for what is said */
};

#define VM_HOOKS_INIT                                                                                        \
	{                                                                                                    \
		.console_fd = -1, .cancel_fd = -1, .memory_dirfd = -1                                        \
	}

enum vm_outcome {
	VM_QEMU_FAILED = 0,	     /* QEMU could not be started, or ended by itself with an error (stderr) */
	VM_PASSED,		     /* the only success */
	VM_STEP_FAILED,		     /* init's verdict: failed */
	VM_PANIC,		     /* the guest's kernel panicked */
	VM_POWEROFF_WITHOUT_VERDICT, /* the guest powered off */
	VM_RESET,		     /* the guest reset the machine, without a panic that was seen */
	VM_STALLED,		     /* alive once, then nothing happened any more */
	VM_NO_START,		     /* not one byte on the console */
	VM_NO_GREETING,		     /* the kernel spoke, init never did */
	VM_PROTOCOL_ERROR,	     /* init (or who posed as it) sent what is no record, a wrong nonce, a verdict too early */
	VM_CANCELLED
};

/* How init spoke to us. */
enum vm_channel { VM_CHANNEL_NONE = 0, VM_CHANNEL_PORT, VM_CHANNEL_SERIAL, VM_CHANNEL_CONSOLE };

struct vm_step {
	char name[RECORD_NAME_MAX_BYTES];
	uint64_t ms; /* as the host measured between its begin and its end */
	int exit_status, signal;
	bool ended;
};

/* Needs no release. */
struct vm_result {
	enum vm_outcome outcome;
	bool kvm;		 /* what the last try ran on */
	enum vm_channel channel;
	char kernel_release[128]; /* from hello; "" before */
	uint64_t boot_ms;	 /* start of QEMU to hello; 0 before */
	uint64_t total_ms;	 /* of the last try, start of QEMU to its end */
	bool console_cut;	 /* the console's file reached VM_CONSOLE_MAX_BYTES */
	bool records_cut;	 /* the records reached VM_RECORDS_MAX_BYTES */

	struct vm_step steps[VM_STEPS_MAX]; /* in order; more than these are not kept */
	size_t n_steps;

	/* VM_STEP_FAILED: what init said; else the step that was running, if any. */
	char step[RECORD_NAME_MAX_BYTES];
	enum record_reason reason;
	int exit_status, signal;
	char text[1024];

	/* Lines for people, sanitized, each with its newline: the last of the console and of the steps' output as they came,
	 * of the steps' output alone, and what QEMU wrote to stderr. */
	char tail[VM_TAIL_MAX_BYTES];
	char output_tail[VM_TAIL_MAX_BYTES];
	char qemu_stderr[2048];
};

/* Run one boot to its end. *ret is written in any case. Returns 0 only for VM_PASSED. Else: -EREMOTEIO the guest said no
 * (kind: guest); -ECANCELED; -ENOENT no QEMU, with the package that brings it; -EIO the machine died, -ETIMEDOUT it hung,
 * -EBADMSG it sent nonsense (kind: host); or an -errno of the host's. The message is one line; result->tail has the lines. */
int vm_run(const struct vm_config *config, const struct vm_hooks *hooks, struct vm_result *ret, struct err *e)
	_must_check_;

/* A word for the manifest and for --json: "passed", "step-failed", "panic", … */
const char *vm_outcome_name(enum vm_outcome outcome);
const char *vm_channel_name(enum vm_channel channel);

#endif
