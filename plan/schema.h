/* The schema of a plan: tables that say for each key what it takes, where it goes and how it takes part in the key.
 *
 * One walker reads a TOML tree by these tables into a struct plan and reports what does not fit; the same tables are
 * listed by plan_schema_field(). Only plan.c calls this. */
#ifndef IMGBUILD_PLAN_SCHEMA_H
#define IMGBUILD_PLAN_SCHEMA_H

#include "plan/plan.h"
#include "plan/toml.h"

/* Fill *plan (zeroed but for its file, folder and allow_outside) from the document.
 * Returns 0, also when faults were found: they are in *faults, sorted by position; -ENOMEM. */
int schema_read(const struct toml_doc *doc, struct plan *plan, struct plan_faults *faults, struct err *e) _must_check_;

/* Add a fault (or notice) that stands at a line and column. Beyond PLAN_MAX_FAULTS it is dropped. Returns 0 or -ENOMEM. */
int plan_faults_add(struct plan_faults *f, bool notice, unsigned line, unsigned column, const char *message) _must_check_;

#endif
