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
