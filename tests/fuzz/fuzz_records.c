/* The guest channel's records: a stream of any bytes through the line reader, the parser and the dialogue, as the port, and
 * through the console's way. A first byte chooses the size of the pieces in which the stream comes. */
#include "builder/vm/console.h"
#include "builder/vm/dialogue.h"

#include "initrd/protocol.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
	struct dialogue dialogue;
	struct console *console;
};

static int take(void *ctx, const char *line, size_t len, bool truncated, struct err *e)
{
	_cleanup_record_ struct record record = { 0 };
	_cleanup_buf_ struct buf reply = BUF_INIT(1024), text = BUF_INIT(8 * RECORD_MAX_BYTES);
	struct err ignored = ERR_INIT;
	struct fuzz *f = ctx;

	(void)e;
	if (truncated || record_parse(line, len, &record, &ignored) < 0)
		return 0;
	/* What goes into files has no nonce, and so is no verdict any more. */
	if (record_to_line(&record, &text) == 0 && record.nonce && text.len < RECORD_MAX_BYTES) {
		struct record again = { 0 };

		if (record_parse(buf_str(&text), text.len - 1, &again, &ignored) == 0)
			abort();
	}
	/* Let a verdict be right, so that what follows one is reached. */
	if (record.nonce && strcmp(record.nonce, "right") == 0)
		record.nonce = f->dialogue.nonce;
	if (dialogue_take(&f->dialogue, &record, 1, &reply, &ignored) == 0 && record.type == RECORD_OUTPUT)
		(void)!console_output(f->console, record.text, record.text_len, &ignored);
	if (f->dialogue.result->n_steps > VM_STEPS_MAX)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vm_result *result = calloc(1, sizeof(*result));
	struct err e = ERR_INIT;
	struct line_reader reader;
	struct console console;
	struct fuzz f = { .console = &console };
	size_t piece;

	if (size < 1 || !result || dialogue_init(&f.dialogue, result, &e) < 0) {
		free(result);
		return 0;
	}
	piece = data[0] ? data[0] : 65536;
	console_init(&console, -1, 65536);
	line_reader_init(&reader, RECORD_MAX_BYTES - 1);
	for (size_t at = 1; at < size; at += piece) {
		size_t n = size - at < piece ? size - at : piece;

		if (line_reader_feed(&reader, (const char *)data + at, n, take, &f, &e) < 0 ||
			console_feed(&console, (const char *)data + at, n, take, &f, &e) < 0)
			break;
	}
	console_finish(&console);
	tail_copy(&console.all, result->tail, sizeof(result->tail));
	line_reader_release(&reader);
	console_release(&console);
	free(result);
	return 0;
}
