/* Ctrl-C and friends as a readable descriptor.
 *
 * The first SIGINT, SIGTERM or SIGHUP makes cancel_fd() readable, and whoever waits polls it and ends cleanly; the second one ends the
 * program at once (children die with it, see lib/process). SIGPIPE is ignored in this program, so that a closed stdout is an
 * error like others, and is back to default in every child. The only state that a signal handler forces to be global lives here. */
#ifndef IMGBUILD_BUILDER_CLI_CANCEL_H
#define IMGBUILD_BUILDER_CLI_CANCEL_H

#include "lib/err.h"

/* Install the handlers. *ret_fd is readable from the first signal on, stays so, and lives as long as the program. */
int cancel_install(int *ret_fd, struct err *e) _must_check_;

/* The signal that came first, or 0. */
int cancel_signal(void);

#endif
