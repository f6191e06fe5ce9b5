/* A minimal client of QEMU's monitor (QMP), over a connected socket, that never blocks.
 *
 * qmp_init(), then whenever the socket is readable qmp_receive(), which calls back for each message. The
 * greeting is answered here; qmp_ready() says when commands may be sent. A command is sent with qmp_send(), and its answer
 * is known by its id. What cannot be written at once waits in a bounded buffer until qmp_flush().
 *
 * The peer is QEMU, in which a guest may have found a hole: messages longer than QMP_MESSAGE_MAX_BYTES, deeper than
 * QMP_DEPTH_MAX or not JSON are an error (-EBADMSG), and nothing else of them is believed than what vm.c asks for.
 *
 * SOURCE: QEMU docs/interop/qmp-spec.rst. */
#ifndef IMGBUILD_BUILDER_VM_QMP_H
#define IMGBUILD_BUILDER_VM_QMP_H

#include "builder/vm/records.h"
#include "lib/buf.h"
#include "lib/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define QMP_MESSAGE_MAX_BYTES (128 * 1024)
#define QMP_DEPTH_MAX 32
#define QMP_OUT_MAX_BYTES 16384

struct qmp {
	int fd; /* lent, non-blocking */
	struct line_reader in;
	struct buf out;
	uint64_t last_id;
	bool ready; /* capabilities are negotiated */
	bool closed;
};

enum qmp_kind { QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_message {
	enum qmp_kind kind;
	uint64_t id;	   /* RETURN, ERROR: of the command; 0: none */
	const char *name;  /* EVENT: its name; ERROR: its description */
	const json_t *data; /* RETURN: the value; EVENT: its data or NULL; borrowed for the call */
};

typedef void (*qmp_fn)(void *ctx, const struct qmp_message *message);

/* Begin. fd is lent, is made non-blocking, and must outlive the client. */
void qmp_init(struct qmp *q, int fd);
void qmp_release(struct qmp *q);

/* Send a command; `arguments` is stolen (NULL: none). Returns 0 with *ret_id (may be NULL); -EAGAIN not ready yet;
 * -EPIPE the monitor is gone; -E2BIG too much is waiting. */
int qmp_send(struct qmp *q, const char *command, json_t *arguments, uint64_t *ret_id) _must_check_;

/* Take what the socket has, and call back for each answer and event. Returns 0 (q->closed when the other side has
 * closed), or -EBADMSG. */
int qmp_receive(struct qmp *q, qmp_fn fn, void *ctx, struct err *e) _must_check_;

/* Write what waits. Returns 0 or -EPIPE. */
int qmp_flush(struct qmp *q);

/* Whether something waits to be written (poll for POLLOUT). */
bool qmp_wants_write(const struct qmp *q);

#endif
