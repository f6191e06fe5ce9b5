#include "builder/vm/records.h"

#include "initrd/protocol.h" /* constants only: see records.h */

#include <string.h>

static const char *const reason_names[] = {
	[REASON_NONE] = "",
	[REASON_EXIT] = "exit",
	[REASON_SIGNAL] = "signal",
	[REASON_OOM] = "oom",
	[REASON_ENOSPC] = "enospc",
	[REASON_MOUNT] = "mount",
	[REASON_MODULE] = "module",
	[REASON_UNMOUNT] = "unmount",
	[REASON_INTERNAL] = "internal",
};

const char *record_reason_name(enum record_reason reason)
{
	return reason < ARRAY_SIZE(reason_names) ? reason_names[reason] : "";
}

int record_reason_parse(const char *name, enum record_reason *ret)
{
	for (size_t i = REASON_EXIT; i < ARRAY_SIZE(reason_names); i++)
		if (strcmp(reason_names[i], name) == 0) {
			*ret = (enum record_reason)i;
			return 0;
		}
	return -EINVAL;
}

void record_release(struct record *r)
{
	if (r->json)
		json_decref(r->json);
	*r = (struct record){ 0 };
}

bool record_json_within_depth(const char *s, size_t len, unsigned max)
{
	bool in_string = false;
	unsigned depth = 0;

	for (size_t i = 0; i < len; i++) {
		if (in_string) {
			if (s[i] == '\\')
				i++;
			else if (s[i] == '"')
				in_string = false;
		} else if (s[i] == '"') {
			in_string = true;
		} else if (s[i] == '{' || s[i] == '[') {
			if (++depth > max)
				return false;
		} else if ((s[i] == '}' || s[i] == ']') && depth > 0) {
			depth--;
		}
	}
	return true;
}

/* A string member. Absent: `*ret` is "" when it is optional. Only where the length is asked for may it have NULs: what steps
 * print can. */
static int get_string(const json_t *root, const char *name, bool required, size_t max_bytes, const char **ret,
	size_t *ret_len, struct err *e)
{
	const json_t *v = json_object_get(root, name);

	if (!v && !required) {
		*ret = "";
		if (ret_len)
			*ret_len = 0;
		return 0;
	}
	if (!json_is_string(v))
		return err_set(e, -EBADMSG, "`%s` is %s; a string was expected", name, v ? "no string" : "missing");
	if (json_string_length(v) > max_bytes)
		return err_set(e, -EBADMSG, "`%s` has %zu bytes; at most %zu are accepted", name, json_string_length(v),
			max_bytes);
	*ret = json_string_value(v);
	if (ret_len)
		*ret_len = json_string_length(v);
	else if (strlen(*ret) != json_string_length(v))
		return err_set(e, -EBADMSG, "`%s` has a NUL in it", name);
	return 0;
}

/* A number of 0 to max; absent is 0 when it is optional. */
static int get_number(const json_t *root, const char *name, bool required, uint64_t max, uint64_t *ret, struct err *e)
{
	const json_t *v = json_object_get(root, name);

	if (!v && !required) {
		*ret = 0;
		return 0;
	}
	if (!json_is_integer(v))
		return err_set(e, -EBADMSG, "`%s` is %s; a whole number was expected", name, v ? "none" : "missing");
	if (json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
		return err_set(e, -EBADMSG, "`%s` is %lld; 0 to %llu was expected", name, (long long)json_integer_value(v),
			(unsigned long long)max);
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

static int get_step_name(const json_t *root, const char *name, bool required, struct record *r, struct err *e)
{
	return get_string(root, name, required, RECORD_NAME_MAX_BYTES - 1, &r->step, NULL, e);
}

static int get_text(const json_t *root, const char *name, bool required, struct record *r, struct err *e)
{
	return get_string(root, name, required, RECORD_TEXT_MAX_BYTES, &r->text, &r->text_len, e);
}

/* The exit status and the signal of a step. */
static int get_end(const json_t *root, struct record *r, struct err *e)
{
	uint64_t exit_status = 0, signal = 0;
	int n = get_number(root, "exit", true, 255, &exit_status, e);

	if (n == 0)
		n = get_number(root, "signal", false, 64, &signal, e);
	r->exit_status = (int)exit_status;
	r->signal = (int)signal;
	return n;
}

static int parse_hello(struct record *r, struct err *e)
{
	int n = get_string(r->json, "release", true, 127, &r->release, NULL, e);

	r->type = RECORD_HELLO;
	if (n == 0)
		n = get_string(r->json, "machine", false, 64, &r->machine, NULL, e);
	if (n == 0)
		n = get_number(r->json, "mem_kib", false, INT64_MAX, &r->mem_kib, e);
	return n;
}

static int parse_step(struct record *r, struct err *e)
{
	const char *state = NULL;
	int n = get_step_name(r->json, "name", true, r, e);

	if (n == 0)
		n = get_string(r->json, "state", true, 16, &state, NULL, e);
	if (n < 0)
		return n;
	if (strcmp(state, "begin") == 0) {
		r->type = RECORD_STEP_BEGIN;
		return get_text(r->json, "title", false, r, e);
	}
	if (strcmp(state, "end") != 0)
		return err_set(e, -EBADMSG, "`state` is `%s`; begin or end was expected", state);
	r->type = RECORD_STEP_END;
	n = get_end(r->json, r, e);
	return n < 0 ? n : get_number(r->json, "ms", false, INT64_MAX, &r->ms, e);
}

static int parse_output(struct record *r, struct err *e)
{
	int n = get_step_name(r->json, "step", false, r, e);

	r->type = RECORD_OUTPUT;
	return n < 0 ? n : get_text(r->json, "data", true, r, e);
}

static int parse_progress(struct record *r, struct err *e)
{
	int n = get_step_name(r->json, "step", true, r, e);

	r->type = RECORD_PROGRESS;
	if (n == 0)
		n = get_number(r->json, "done", true, INT64_MAX, &r->done, e);
	if (n == 0)
		n = get_number(r->json, "total", false, INT64_MAX, &r->total, e);
	return n < 0 ? n : get_text(r->json, "what", false, r, e);
}

static int parse_note(struct record *r, struct err *e)
{
	r->type = RECORD_NOTE;
	return get_text(r->json, "text", true, r, e);
}

static int parse_verdict(struct record *r, struct err *e)
{
	const char *result = NULL, *reason = NULL;
	int n = get_string(r->json, "nonce", true, 2 * NONCE_HEX_LEN, &r->nonce, NULL, e);

	if (n == 0)
		n = get_string(r->json, "result", true, 16, &result, NULL, e);
	if (n < 0)
		return n;
	if (strcmp(result, "passed") == 0) {
		r->type = RECORD_PASSED;
		return 0;
	}
	if (strcmp(result, "failed") != 0)
		return err_set(e, -EBADMSG, "`result` is `%s`; passed or failed was expected", result);
	r->type = RECORD_FAILED;
	n = get_step_name(r->json, "step", false, r, e);
	if (n == 0)
		n = get_string(r->json, "reason", true, 16, &reason, NULL, e);
	if (n == 0 && record_reason_parse(reason, &r->reason) < 0)
		n = err_set(e, -EBADMSG, "`reason` is `%s`, which is none of the protocol's", reason);
	if (n == 0)
		n = get_end(r->json, r, e);
	return n < 0 ? n : get_text(r->json, "text", false, r, e);
}

static const struct {
	const char *type;
	int (*parse)(struct record *r, struct err *e);
} record_types[] = {
	{ "hello", parse_hello },
	{ "step", parse_step },
	{ "output", parse_output },
	{ "progress", parse_progress },
	{ "note", parse_note },
	{ "verdict", parse_verdict },
};

int record_parse(const char *line, size_t len, struct record *ret, struct err *e)
{
	_cleanup_record_ struct record r = { 0 };
	json_error_t json_error;
	const char *type = NULL;
	uint64_t version = 0;
	int n;

	if (len + 1 > RECORD_MAX_BYTES)
		return err_set(e, -EBADMSG, "a record has %zu bytes; at most %d are accepted", len + 1, RECORD_MAX_BYTES);
	if (!record_json_within_depth(line, len, RECORD_DEPTH_MAX))
		return err_set(e, -EBADMSG, "a record nests deeper than %d levels", RECORD_DEPTH_MAX);
	r.json = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &json_error);
	if (!r.json)
		return err_set(e, -EBADMSG, "a record is no JSON: %s at byte %d", json_error.text, json_error.position);
	if (!json_is_object(r.json))
		return err_set(e, -EBADMSG, "a record is no JSON object");
	n = get_number(r.json, "v", true, INT64_MAX, &version, e);
	if (n < 0)
		return err_wrap(e, "a record");
	if (version != PROTOCOL_VERSION)
		return err_set(e, -EBADMSG, "a record has protocol version %llu; this imgbuild speaks version %d",
			(unsigned long long)version, PROTOCOL_VERSION);
	n = get_string(r.json, "type", true, 64, &type, NULL, e);
	if (n < 0)
		return err_wrap(e, "a record");
	for (size_t i = 0; i < ARRAY_SIZE(record_types); i++) {
		if (strcmp(record_types[i].type, type) != 0)
			continue;
		n = record_types[i].parse(&r, e);
		if (n < 0)
			return err_wrap(e, "a record of type %s", type);
	}
	*ret = r;
	r = (struct record){ 0 };
	return 0;
}

int record_to_line(const struct record *r, struct buf *ret)
{
	_cleanup_free_ char *text = NULL;
	json_t *copy = json_copy(r->json);
	int n;

	if (!copy)
		return -ENOMEM;
	(void)json_object_del(copy, "nonce");
	text = json_dumps(copy, JSON_COMPACT);
	json_decref(copy);
	if (!text)
		return -ENOMEM;
	n = buf_append_str(ret, text);
	return n < 0 ? n : buf_append_char(ret, '\n');
}

void line_reader_init(struct line_reader *r, size_t line_max_bytes)
{
	*r = (struct line_reader){ 0 };
	buf_init(&r->pending, line_max_bytes);
}

void line_reader_release(struct line_reader *r)
{
	buf_release(&r->pending);
}

/* Hand the pending line over and begin a new one. */
static int finish_line(struct line_reader *r, line_fn fn, void *ctx, bool truncated, struct err *e)
{
	size_t len = r->pending.len;
	int n = 0;

	while (len > 0 && r->pending.data[len - 1] == '\r')
		len--;
	if (len > 0)
		n = fn(ctx, buf_str(&r->pending), len, truncated, e);
	buf_reset(&r->pending);
	return n;
}

int line_reader_feed(struct line_reader *r, const char *bytes, size_t len, line_fn fn, void *ctx, struct err *e)
{
	while (len > 0) {
		const char *newline = memchr(bytes, '\n', len);
		size_t part = newline ? (size_t)(newline - bytes) : len;
		size_t room = r->pending.max_bytes - r->pending.len;
		size_t taken = part < room ? part : room;
		int n;

		if (!r->skipping && taken > 0 && buf_append(&r->pending, bytes, taken) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		if (!r->skipping && part > room) {
			r->skipping = true;
			n = finish_line(r, fn, ctx, true, e);
			if (n < 0)
				return n;
		}
		if (newline) {
			n = r->skipping ? 0 : finish_line(r, fn, ctx, false, e);
			r->skipping = false;
			if (n < 0)
				return n;
			part++;
		}
		bytes += part;
		len -= part;
	}
	return 0;
}

const char *record_in_console_line(const char *line, size_t len, size_t *ret_len)
{
	size_t prefix = strlen(CONSOLE_FRAME_PREFIX);

	if (len < prefix || memcmp(line, CONSOLE_FRAME_PREFIX, prefix) != 0)
		return NULL;
	*ret_len = len - prefix;
	return line + prefix;
}
