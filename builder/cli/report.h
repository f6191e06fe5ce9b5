/* What the two programs say at their end: faults of a plan, the error, the exit status. */
#ifndef IMGBUILD_BUILDER_CLI_REPORT_H
#define IMGBUILD_BUILDER_CLI_REPORT_H

#include "builder/cli/options.h"
#include "builder/cli/terminal.h"
#include "cache/missing.h"
#include "plan/plan.h"

/* Print every fault of the plan, one a line, or the error alone when there are none; returns the exit status. `faults` may be
 * NULL. */
int report_failure(struct terminal *t, const struct plan_faults *faults, const struct err *e);

/* Print the files that could not be had, behind the error that names them: with their digests and what became of each place where they
 * were sought. Of more than REPORT_MISSING_WHOLE only the first few have the latter, unless --verbose asks for all. With --json
 * {"error", "missing"} on stdout. */
#define REPORT_MISSING_WHOLE 20
void report_missing(struct terminal *t, const struct options *o, const struct missing *missing, const struct err *e);

/* Print the found or built entry on stdout: its path, or with --json {"path", "key", "hit"}. Returns the exit status:
 * a stdout that cannot be written to is 4. */
int report_entry(struct terminal *t, const struct options *o, const char *path, const struct digest *key, bool hit);

/* Flush stdout and say so when that fails (a full disk, a closed pipe). Returns the exit status. */
int report_flush(struct terminal *t);

#endif
