#include "builder/cli/report.h"

#include <jansson.h>
#include <string.h>

int report_failure(struct terminal *t, const struct plan_faults *faults, const struct err *e)
{
	if (!faults || faults->n_faults == 0) {
		terminal_print_error(t, e->message);
		return err_exit_status(e);
	}
	for (size_t i = 0; i < faults->n_faults; i++) {
		const struct plan_fault *f = &faults->faults[i];
		char line[ERR_MESSAGE_MAX_BYTES];

		(void)snprintf(line, sizeof(line), "%s:%u:%u: %s", faults->file, f->line, f->column, f->message);
		terminal_print_error(t, line);
	}
	return err_exit_status(e);
}

enum { MISSING_EXAMPLES = 3, PLACES_IN_MESSAGE = 3 };

static json_t *missing_to_json(const struct missing_file *file)
{
	const struct digest *d = file->sha256.algorithm != DIGEST_NONE ? &file->sha256 : &file->sha512;
	json_t *object = json_pack("{s:s, s:[]}", "name", file->label, "tried"), *tried = json_object_get(object, "tried");
	char hex[DIGEST_HEX_SIZE];

	for (size_t i = 0; i < file->tried.n; i++)
		(void)json_array_append_new(tried, json_string(file->tried.items[i]));
	if (d->algorithm != DIGEST_NONE)
		(void)json_object_set_new(object, digest_algorithm_name(d->algorithm), json_string(digest_hex(d, hex)));
	if (file->size_bytes)
		(void)json_object_set_new(object, "size", json_integer((json_int_t)file->size_bytes));
	return object;
}

void report_missing(struct terminal *t, const struct options *o, const struct missing *missing, const struct err *e)
{
	size_t whole = !o->verbose && missing->n > REPORT_MISSING_WHOLE ? MISSING_EXAMPLES : missing->n;

	if (missing->n == 0)
		return;
	if (o->json) {
		json_t *object = json_pack("{s:s, s:[]}", "error", e->message, "missing");

		for (size_t i = 0; i < missing->n; i++)
			(void)json_array_append_new(json_object_get(object, "missing"), missing_to_json(&missing->items[i]));
		(void)json_dumpf(object, stdout, JSON_COMPACT);
		(void)fputc('\n', stdout);
		json_decref(object);
		(void)fflush(stdout);
	}
	/* The error has told all about a single one, unless it was sought in many places. */
	if (missing->n == 1 && missing->items[0].tried.n <= PLACES_IN_MESSAGE && !o->verbose)
		return;
	terminal_clear(t);
	for (size_t i = 0; i < missing->n; i++) {
		_cleanup_buf_ struct buf line = BUF_INIT(1 << 16);

		(void)!missing_describe(&missing->items[i], &line);
		(void)fprintf(stderr, "  %s\n", buf_str(&line));
		for (size_t k = 0; i < whole && k < missing->items[i].tried.n; k++)
			(void)fprintf(stderr, "    %s\n", missing->items[i].tried.items[k]);
	}
	if (whole < missing->n)
		(void)fprintf(stderr, "  where else they were sought, of all %zu: --verbose or --json\n", missing->n);
}

int report_flush(struct terminal *t)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	terminal_print_error(t, "cannot write the result to standard output");
	return ERR_KIND_HOST;
}

int report_entry(struct terminal *t, const struct options *o, const char *path, const struct digest *key, bool hit)
{
	char hex[DIGEST_HEX_SIZE];

	terminal_clear(t);
	if (o->json) {
		json_t *object = json_pack("{s:s, s:s, s:b}", "path", path, "key", digest_hex(key, hex), "hit", hit);

		(void)json_dumpf(object, stdout, JSON_COMPACT);
		(void)fputc('\n', stdout);
		json_decref(object);
	} else {
		(void)puts(path);
	}
	return report_flush(t);
}
