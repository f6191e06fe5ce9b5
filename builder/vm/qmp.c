#include "builder/vm/qmp.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

void qmp_init(struct qmp *q, int fd)
{
	*q = (struct qmp){ .fd = fd };
	line_reader_init(&q->in, QMP_MESSAGE_MAX_BYTES);
	buf_init(&q->out, QMP_OUT_MAX_BYTES);
	(void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void qmp_release(struct qmp *q)
{
	line_reader_release(&q->in);
	buf_release(&q->out);
}

bool qmp_wants_write(const struct qmp *q)
{
	return q->out.len > 0 && !q->closed;
}

int qmp_flush(struct qmp *q)
{
	while (qmp_wants_write(q)) {
		ssize_t n = send(q->fd, q->out.data, q->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0) {
			q->closed = true;
			return -EPIPE;
		}
		buf_consume(&q->out, (size_t)n);
	}
	return 0;
}

/* Queue a command, ready or not. */
static int queue_command(struct qmp *q, const char *command, json_t *arguments, uint64_t *ret_id)
{
	_cleanup_free_ char *text = NULL;
	json_t *message = json_pack("{s:s, s:I}", "execute", command, "id", (json_int_t)(q->last_id + 1));
	int r;

	if (message && arguments)
		(void)json_object_set_new(message, "arguments", arguments);
	else
		json_decref(arguments);
	if (message)
		text = json_dumps(message, JSON_COMPACT);
	json_decref(message);
	if (!text)
		return -ENOMEM;
	r = buf_appendf(&q->out, "%s\n", text);
	if (r < 0)
		return r;
	q->last_id++;
	if (ret_id)
		*ret_id = q->last_id;
	return qmp_flush(q);
}

int qmp_send(struct qmp *q, const char *command, json_t *arguments, uint64_t *ret_id)
{
	if (q->closed || !q->ready) {
		json_decref(arguments);
		return q->closed ? -EPIPE : -EAGAIN;
	}
	return queue_command(q, command, arguments, ret_id);
}

/* What a message is for while lines are taken. */
struct receiving {
	struct qmp *q;
	qmp_fn fn;
	void *ctx;
};

static uint64_t message_id(const json_t *root)
{
	const json_t *id = json_object_get(root, "id");

	return json_is_integer(id) && json_integer_value(id) > 0 ? (uint64_t)json_integer_value(id) : 0;
}

static void take_object(struct receiving *rx, const json_t *root)
{
	const json_t *event = json_object_get(root, "event"), *error = json_object_get(root, "error");
	struct qmp_message m = { .id = message_id(root), .data = json_object_get(root, "return") };

	if (json_object_get(root, "QMP")) {
		(void)queue_command(rx->q, "qmp_capabilities", NULL, NULL);
		return;
	}
	if (m.data) {
		/* The first answer is that to qmp_capabilities. */
		if (!rx->q->ready) {
			rx->q->ready = true;
			return;
		}
		m.kind = QMP_RETURN;
		m.name = "";
	} else if (json_is_string(event)) {
		m.kind = QMP_EVENT;
		m.name = json_string_value(event);
		m.data = json_object_get(root, "data");
	} else if (error) {
		const json_t *desc = json_object_get(error, "desc");

		m.kind = QMP_ERROR;
		m.name = json_is_string(desc) ? json_string_value(desc) : "";
	} else {
		return;
	}
	rx->fn(rx->ctx, &m);
}

static int take_line(void *ctx, const char *line, size_t len, bool truncated, struct err *e)
{
	struct receiving *rx = ctx;
	json_error_t json_error;
	json_t *root;

	if (truncated)
		return err_set(e, -EBADMSG, "QEMU's monitor sent a message of more than %d bytes", QMP_MESSAGE_MAX_BYTES);
	if (!record_json_within_depth(line, len, QMP_DEPTH_MAX))
		return err_set(e, -EBADMSG, "QEMU's monitor sent a message nested deeper than %d levels", QMP_DEPTH_MAX);
	root = json_loadb(line, len, 0, &json_error);
	if (!root)
		return err_set(e, -EBADMSG, "QEMU's monitor sent what is no JSON: %s", json_error.text);
	if (json_is_object(root))
		take_object(rx, root);
	json_decref(root);
	return 0;
}

int qmp_receive(struct qmp *q, qmp_fn fn, void *ctx, struct err *e)
{
	struct receiving rx = { .q = q, .fn = fn, .ctx = ctx };
	char chunk[16384];

	while (!q->closed) {
		ssize_t n = recv(q->fd, chunk, sizeof(chunk), MSG_DONTWAIT);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0) {
			q->closed = true;
			return 0;
		}
		r = line_reader_feed(&q->in, chunk, (size_t)n, take_line, &rx, e);
		if (r < 0)
			return r;
	}
	return 0;
}
