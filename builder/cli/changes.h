/* Changes of a lock, printed: a line each on stdout, or with --json one array in the end.
 *
 *     amd64 podman 4.3.1+ds1-8 -> 4.3.1+ds1-8+deb12u1
 *     amd64 base 3fe2a1b09c77… -> 9ab10c2d4e5f…
 *     amd64 jq 1.6-2.1 (new)
 */
#ifndef IMGBUILD_BUILDER_CLI_CHANGES_H
#define IMGBUILD_BUILDER_CLI_CHANGES_H

#include "builder/cli/options.h"
#include "builder/cli/terminal.h"
#include "plan/lock_diff.h"

#include <jansson.h>

struct changes {
	struct terminal *terminal; /* borrowed */
	json_t *array;		   /* NULL: lines are printed at once */
	size_t n;		   /* so far */
};

/* Begin; with o->json they are gathered. Returns 0 or -ENOMEM. */
int changes_begin(struct changes *c, struct terminal *t, const struct options *o, struct err *e) _must_check_;

/* Print, or gather, what differs between two answers for one architecture. */
int changes_add(struct changes *c, enum arch arch, const struct lock_arch *was, const struct lock_arch *is, struct err *e)
	_must_check_;

/* Print the array, where it is one, and free what is owned. */
void changes_end(struct changes *c);

#endif
