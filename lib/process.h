/* Child processes: an argv, an explicit environment, explicit descriptors; never a shell.
 *
 * In the child SIGPIPE and the other signals are back to default and unblocked, stdin is /dev/null unless given, every
 * descriptor that was not handed over is closed, it has a process group of its own (Ctrl-C reaches only the parent), and
 * it is killed when the calling thread's process dies (PR_SET_PDEATHSIG). A struct process whose child was not reaped kills (SIGKILL) and reaps it in process_release(),
 * so that no child outlives its scope. */
#ifndef IMGBUILD_LIB_PROCESS_H
#define IMGBUILD_LIB_PROCESS_H

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/strv.h"

#include <stdint.h>
#include <sys/types.h>

struct process {
	pid_t pid;  /* 0: none */
	int pidfd;  /* readable (POLLIN) once the child has ended; -1: none */
};

#define PROCESS_INIT                                                                                         \
	{                                                                                                    \
		.pid = 0, .pidfd = -1                                                                        \
	}

struct process_fd {
	int fd;	      /* lent: the parent's descriptor */
	int child_fd; /* its number in the child, 0 to 99; 0 to 2 replace stdin, stdout and stderr */
};

struct process_options {
	const char *const *argv;	 /* NULL-terminated; argv[0] is searched in PATH unless it has a slash */
	const char *const *env;		 /* NULL-terminated "K=V"; NULL: only PATH, HOME, TMPDIR and LC_ALL=C.UTF-8 */
	const struct process_fd *fds;	 /* what the child gets; stdout and stderr are /dev/null unless given */
	size_t n_fds;
	int working_dirfd; /* lent; -1: as the parent */
};

/* Start a child. Returns 0; -ENOENT the program was not found; another -errno. An exec that fails is reported here,
 * not as an exit status. */
int process_start(const struct process_options *options, struct process *ret, struct err *e) _must_check_;

/* Wait until the child ends or timeout_ms pass (-1: for ever). Returns 0 with *ret_status as from waitpid(2), or
 * -ETIMEDOUT with the child still running. */
int process_wait(struct process *p, int timeout_ms, int *ret_status, struct err *e) _must_check_;

/* Kill the child if it still runs, and reap it. Safe to call twice. */
void process_release(struct process *p);
#define _cleanup_process_ _cleanup_(process_release)

/* Run a child to its end and collect what it writes to stdout and stderr (either may be NULL: thrown away; more than
 * a buffer's maximum is -E2BIG). Other descriptors come from `options`. The child is killed after timeout_ms
 * (-ETIMEDOUT). Returns 0 with *ret_status as from waitpid(2): a child that fails is the caller's to judge. */
int process_run(const struct process_options *options, struct buf *out, struct buf *err_out, int timeout_ms,
	int *ret_status, struct err *e) _must_check_;

/* Monotonic clock in milliseconds, for deadlines. */
uint64_t monotonic_ms(void);

#endif
