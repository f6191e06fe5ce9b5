/* Runs one step of the job: a process tree of its own, in namespaces where the kernel has them, watched from
 * outside. When it returns, nothing the step started is left. */
#ifndef IMGBUILD_INIT_STEP_H
#define IMGBUILD_INIT_STEP_H

#include "initrd/init/channel.h"
#include "initrd/init/job.h"

/* Run the verbs [first, first + n) as the step that `step` names. clock_seconds: what `clock` said, or -1.
 * Returns 0, or -1 with the failure; begin, output, progress, notes and end went to the channel. */
int step_run(struct channel *c, const struct verb *step, const struct verb *first, size_t n,
	int64_t clock_seconds, struct fail *f);

#endif
