/* What is said between host and guest in one run, as a state machine: records in, answers and findings out. Pure but
 * for the nonce it is given.
 *
 * hello -> (greeting) -> steps, output, progress, notes in any number -> verdict -> (ack). A record before hello, a second
 * hello, a verdict whose nonce is not that of the greeting, and "passed" while a step has not ended or has failed are
 * errors of the guest's (-EBADMSG). After the verdict everything is ignored. */
#ifndef IMGBUILD_BUILDER_VM_DIALOGUE_H
#define IMGBUILD_BUILDER_VM_DIALOGUE_H

#include "builder/vm/records.h"
#include "builder/vm/vm.h"

#define DIALOGUE_NONCE_SIZE 33 /* NONCE_HEX_LEN and the NUL */

enum dialogue_state { DIALOGUE_BEFORE_HELLO = 0, DIALOGUE_GREETED, DIALOGUE_PASSED, DIALOGUE_FAILED };

struct dialogue {
	enum dialogue_state state;
	char nonce[DIALOGUE_NONCE_SIZE];
	struct vm_result *result; /* borrowed: steps, kernel_release and what failed are written into it */
	bool in_step;		  /* result->step is the one that runs */
	bool step_failed;	  /* one has ended badly */
	uint64_t step_began_ms;
	uint64_t n_records;
	unsigned n_steps; /* begun */
};

/* Begin, with a fresh random nonce. */
int dialogue_init(struct dialogue *d, struct vm_result *result, struct err *e) _must_check_;

/* Take a record that came at now_ms; what is to be sent to the guest is appended to *reply. Returns 0 or -EBADMSG. */
int dialogue_take(struct dialogue *d, const struct record *record, uint64_t now_ms, struct buf *reply, struct err *e)
	_must_check_;

static inline bool dialogue_has_verdict(const struct dialogue *d)
{
	return d->state == DIALOGUE_PASSED || d->state == DIALOGUE_FAILED;
}

#endif
