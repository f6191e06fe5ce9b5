#include "builder/vm/dialogue.h"

#include "initrd/protocol.h" /* constants only: see records.h */

#include <string.h>
#include <sys/random.h>

_Static_assert(DIALOGUE_NONCE_SIZE == NONCE_HEX_LEN + 1, "the nonce of the protocol");

int dialogue_init(struct dialogue *d, struct vm_result *result, struct err *e)
{
	unsigned char random[NONCE_HEX_LEN / 2];

	*d = (struct dialogue){ .result = result };
	if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return err_set_errno(e, -errno, "cannot get random bytes");
	for (size_t i = 0; i < sizeof(random); i++)
		(void)snprintf(d->nonce + 2 * i, 3, "%02x", random[i]);
	return 0;
}

static int take_hello(struct dialogue *d, const struct record *r, struct buf *reply, struct err *e)
{
	if (buf_appendf(reply, "{\"v\":%d,\"type\":\"greeting\",\"nonce\":\"%s\"}\n", PROTOCOL_VERSION, d->nonce) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	err_sanitize(d->result->kernel_release, sizeof(d->result->kernel_release), r->release, strlen(r->release));
	d->state = DIALOGUE_GREETED;
	return 0;
}

static void take_step_begin(struct dialogue *d, const struct record *r, uint64_t now_ms)
{
	struct vm_result *result = d->result;

	err_sanitize(result->step, sizeof(result->step), r->step, strlen(r->step));
	d->in_step = true;
	d->step_began_ms = now_ms;
	if (result->n_steps < VM_STEPS_MAX) {
		struct vm_step *step = &result->steps[result->n_steps++];

		*step = (struct vm_step){ 0 };
		memcpy(step->name, result->step, sizeof(step->name));
	}
}

static int take_step_end(struct dialogue *d, const struct record *r, uint64_t now_ms, struct err *e)
{
	struct vm_result *result = d->result;
	char name[RECORD_NAME_MAX_BYTES];

	err_sanitize(name, sizeof(name), r->step, strlen(r->step));
	if (!d->in_step || strcmp(name, result->step) != 0)
		return err_set(e, -EBADMSG, "step `%s` ended, which had not begun", name);
	for (size_t i = result->n_steps; i-- > 0;) {
		struct vm_step *step = &result->steps[i];

		if (strcmp(step->name, name) != 0 || step->ended)
			continue;
		step->ended = true;
		step->exit_status = r->exit_status;
		step->signal = r->signal;
		step->ms = now_ms - d->step_began_ms;
		break;
	}
	d->in_step = false;
	if (r->exit_status != 0 || r->signal != 0)
		d->step_failed = true;
	else
		result->step[0] = '\0';
	return 0;
}

static int take_verdict(struct dialogue *d, const struct record *r, struct buf *reply, struct err *e)
{
	struct vm_result *result = d->result;

	if (strcmp(r->nonce, d->nonce) != 0)
		return err_set(e, -EBADMSG, "the guest's verdict carries a nonce that is not this run's");
	if (r->type == RECORD_PASSED && d->in_step)
		return err_set(e, -EBADMSG, "the guest said `passed` while its step `%s` had not ended", result->step);
	if (r->type == RECORD_PASSED && d->step_failed)
		return err_set(e, -EBADMSG, "the guest said `passed` although its step `%s` had failed", result->step);
	if (buf_appendf(reply, "{\"v\":%d,\"type\":\"ack\"}\n", PROTOCOL_VERSION) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	d->state = r->type == RECORD_PASSED ? DIALOGUE_PASSED : DIALOGUE_FAILED;
	if (r->type == RECORD_PASSED)
		return 0;
	err_sanitize(result->step, sizeof(result->step), r->step, strlen(r->step));
	err_sanitize(result->text, sizeof(result->text), r->text, r->text_len);
	result->reason = r->reason;
	result->exit_status = r->exit_status;
	result->signal = r->signal;
	return 0;
}

int dialogue_take(struct dialogue *d, const struct record *r, uint64_t now_ms, struct buf *reply, struct err *e)
{
	if (dialogue_has_verdict(d))
		return 0;
	d->n_records++;
	if (d->state == DIALOGUE_BEFORE_HELLO && r->type != RECORD_HELLO)
		return err_set(e, -EBADMSG, "the guest's first record is no hello");
	switch (r->type) {
	case RECORD_HELLO:
		if (d->state != DIALOGUE_BEFORE_HELLO)
			return err_set(e, -EBADMSG, "the guest said hello twice");
		return take_hello(d, r, reply, e);
	case RECORD_STEP_BEGIN:
		if (d->in_step)
			return err_set(e, -EBADMSG, "a step began while `%s` had not ended", d->result->step);
		if (++d->n_steps > VM_STEPS_LIMIT)
			return err_set(e, -EBADMSG, "more than %d steps began", VM_STEPS_LIMIT);
		take_step_begin(d, r, now_ms);
		return 0;
	case RECORD_STEP_END:
		return take_step_end(d, r, now_ms, e);
	case RECORD_PASSED:
	case RECORD_FAILED:
		return take_verdict(d, r, reply, e);
	case RECORD_OUTPUT:
	case RECORD_PROGRESS:
	case RECORD_NOTE:
	case RECORD_UNKNOWN:
		break;
	}
	return 0;
}
