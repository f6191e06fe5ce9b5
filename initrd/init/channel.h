/* The channel to the host: finding it, the greeting, the records, the acknowledgement. See initrd/protocol.h.
 */
#ifndef IMGBUILD_INIT_CHANNEL_H
#define IMGBUILD_INIT_CHANNEL_H

#include "initrd/init/util.h"

struct channel {
	int fd;      /* -1: none */
	bool framed; /* records share the console and carry a prefix */
	char nonce[NONCE_HEX_LEN + 1];
	char in[RECORD_MAX_BYTES + 1]; /* what was read and is not yet a whole line */
	size_t in_len;
};

/* Find and open the channel, and say on the console which one it is. Returns 0 or -1 (no channel: nothing can
 * be reported). */
int channel_open(struct channel *c);

/* Say hello and wait for the greeting. Returns 0 or -1. */
int channel_greet(struct channel *c);

/* Send one record each. Nothing is reported back: a channel that fails is given up, and the host sees the
 * silence. */
void channel_step_begin(struct channel *c, const char *name, const char *title);
/* len <= OUTPUT_DATA_MAX_BYTES. */
void channel_output(struct channel *c, const char *step, const char *bytes, size_t len);
/* total: 0 while unknown. */
void channel_progress(struct channel *c, const char *step, unsigned done, unsigned total, const char *what);
/* The step's exit status and signal are those of its failure. */
void channel_step_end(struct channel *c, const char *name, int exit, int signal, uint64_t duration_ms);
/* For the person and the manifest. */
void channel_note(struct channel *c, const char *text);

/* Report the end: passed where f->reason is empty. `step` is "" outside any step. */
void channel_verdict(struct channel *c, const char *step, const struct fail *f);

/* Wait for the acknowledgement for at most ACK_WAIT_MS. Returns whether it came. */
bool channel_wait_ack(struct channel *c);

/* In a child: close the channel and forget the nonce, so that nothing a step runs can have them. */
void channel_forget(struct channel *c);

#endif
