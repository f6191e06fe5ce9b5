#include "builder/cli/cancel.h"

#include <fcntl.h>
#include <signal.h>

/* A handler has no other way to reach its state. */
static volatile sig_atomic_t first_signal;
static volatile sig_atomic_t pipe_write_fd = -1;

static void on_signal(int sig)
{
	int saved = errno;

	if (first_signal)
		_exit(128 + sig);
	first_signal = sig;
	(void)!write((int)pipe_write_fd, "", 1);
	errno = saved;
}

int cancel_install(int *ret_fd, struct err *e)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = on_signal };
	int fds[2];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return err_set_errno(e, -errno, "cannot make a pipe");
	pipe_write_fd = fds[1];
	(void)sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
		struct sigaction old;

		/* nohup and the like: what the caller ignores stays ignored. */
		if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
			continue;
		if (sigaction(signals[i], &action, NULL) < 0)
			return err_set_errno(e, -errno, "cannot catch signal %d", signals[i]);
	}
	(void)signal(SIGPIPE, SIG_IGN);
	*ret_fd = fds[0];
	return 0;
}

int cancel_signal(void)
{
	return first_signal;
}
