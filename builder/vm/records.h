/* The records that the guest's init sends: lines found in a stream, and lines turned into values.
 *
 * The guest is a stranger. A line is at most RECORD_MAX_BYTES long with its newline, is UTF-8 JSON (RFC 8259) without a
 * repeated name, nested at most RECORD_DEPTH_MAX deep, an object with "v":PROTOCOL_VERSION and a string "type". A type
 * that is not known is RECORD_UNKNOWN and no error, members that are not known are ignored; a known type whose members
 * are missing, of another kind, out of range or too long is an error (-EBADMSG).
 *
 * Ownership: a struct record owns its JSON and lends its strings until record_release(). A reader owns one line's memory.
 *
 * SOURCE: initrd/protocol.h, which is the contract with the guest. (It lies on a higher level than this folder; it is a
 * header of constants that includes nothing, and the only one that may be included from here.) */
#ifndef IMGBUILD_BUILDER_VM_RECORDS_H
#define IMGBUILD_BUILDER_VM_RECORDS_H

#include "lib/buf.h"
#include "lib/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define RECORD_DEPTH_MAX 4	/* a record is flat; a little room for what may come */
#define RECORD_NAME_MAX_BYTES 64 /* of a step's name */
#define RECORD_TEXT_MAX_BYTES 8192

enum record_type {
	RECORD_UNKNOWN = 0,
	RECORD_HELLO,
	RECORD_STEP_BEGIN,
	RECORD_STEP_END,
	RECORD_OUTPUT,
	RECORD_PROGRESS,
	RECORD_NOTE,
	RECORD_PASSED, /* verdict */
	RECORD_FAILED  /* verdict */
};

/* Why a step failed, as init says. */
enum record_reason {
	REASON_NONE = 0,
	REASON_EXIT,
	REASON_SIGNAL,
	REASON_OOM,
	REASON_ENOSPC,
	REASON_MOUNT,
	REASON_MODULE,
	REASON_UNMOUNT,
	REASON_INTERNAL
};

struct record {
	enum record_type type;
	const char *step;    /* STEP_*, OUTPUT, PROGRESS, FAILED ("" where it was in no step); else NULL */
	const char *text;    /* STEP_BEGIN: title; OUTPUT: data; PROGRESS: what; NOTE, FAILED: text; else NULL */
	size_t text_len;     /* of text, which may hold any character but NUL */
	const char *nonce;   /* verdicts: as sent, to be compared */
	const char *release; /* HELLO: the kernel's */
	const char *machine; /* HELLO: as uname says */
	uint64_t mem_kib;    /* HELLO */
	uint64_t done, total; /* PROGRESS; total 0: unknown */
	uint64_t ms;	     /* STEP_END: how long it took; 0: not said */
	int exit_status;     /* STEP_END, FAILED: 0 to 255 */
	int signal;	     /* STEP_END, FAILED: 0 to 64 */
	enum record_reason reason; /* FAILED */
	json_t *json;	     /* owned */
};

/* Turn one line (without its newline) into a record. Returns 0; -EBADMSG it is no record, with what is wrong. *ret is
 * written only on success. */
int record_parse(const char *line, size_t len, struct record *ret, struct err *e) _must_check_;
void record_release(struct record *r);
#define _cleanup_record_ _cleanup_(record_release)

/* Append the record as one line of JSON with its newline, without the nonce, which belongs into no file; control
 * characters are escaped. */
int record_to_line(const struct record *r, struct buf *ret) _must_check_;

/* Say whether JSON text nests at most `max` levels, before a parser that recurses sees it. Text that is no JSON gets
 * some answer. */
bool record_json_within_depth(const char *s, size_t len, unsigned max);

/* The words of the protocol: "exit", "oom", …; and the way back (-EINVAL). */
const char *record_reason_name(enum record_reason reason);
int record_reason_parse(const char *name, enum record_reason *ret);

/* Finds lines in a stream of bytes, with bounded memory. */
struct line_reader {
	struct buf pending;
	bool skipping; /* inside a line that was too long */
};

/* Begin; lines are cut at line_max_bytes, newline not counted. line_reader_release() may be called twice. */
void line_reader_init(struct line_reader *r, size_t line_max_bytes);
void line_reader_release(struct line_reader *r);

/* Called for each line, without its newline and a carriage return before it; empty lines are left out. `truncated`: the
 * line was longer than the reader's maximum, and this is its beginning. A negative return ends the feeding. */
typedef int (*line_fn)(void *ctx, const char *line, size_t len, bool truncated, struct err *e);

/* Take bytes of the stream. Returns 0, what `fn` returned, or -ENOMEM. */
int line_reader_feed(struct line_reader *r, const char *bytes, size_t len, line_fn fn, void *ctx, struct err *e)
	_must_check_;

/* The part of a console line that is a framed record (after CONSOLE_FRAME_PREFIX), or NULL. */
const char *record_in_console_line(const char *line, size_t len, size_t *ret_len);

#endif
