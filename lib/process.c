#include "lib/io.h"
#include "lib/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

enum {
	CHILD_FD_MAX = 99
};

uint64_t monotonic_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* What poll(2) should wait: -1 without a time-out, else the milliseconds until the deadline. */
static int time_left_ms(int timeout_ms, uint64_t deadline)
{
	uint64_t now = monotonic_ms();

	if (timeout_ms < 0)
		return -1;
	return now >= deadline ? 0 : (int)(deadline - now);
}

/* The environment a child gets when the caller names none. */
static int default_environment(struct strv *env)
{
	static const char *const kept[] = { "PATH", "HOME", "TMPDIR" };
	int r = strv_add(env, "LC_ALL=C.UTF-8");

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(kept); i++) {
		const char *value = getenv(kept[i]);

		if (value)
			r = strv_addf(env, "%s=%s", kept[i], value);
	}
	return r;
}

/* Whether any folder of PATH has the program. execvp says EACCES for folders that may not be searched, where people mean
 * "not there". */
static bool is_in_path(const char *program)
{
	const char *path = getenv("PATH");

	while (path && *path) {
		size_t len = strcspn(path, ":");
		char candidate[4096];

		if (snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)len, path, program) < (int)sizeof(candidate) &&
			access(candidate, F_OK) == 0)
			return true;
		path += len + (path[len] == ':');
	}
	return false;
}

/* Where the child keeps descriptors while it puts them into their places: above all of them, and above the places. */
static int parking_fd(const struct process_options *o, int null_fd, int status_fd)
{
	int highest = CHILD_FD_MAX;

	highest = null_fd > highest ? null_fd : highest;
	highest = status_fd > highest ? status_fd : highest;
	highest = o->working_dirfd > highest ? o->working_dirfd : highest;
	for (size_t i = 0; i < o->n_fds; i++)
		highest = o->fds[i].fd > highest ? o->fds[i].fd : highest;
	return highest + 1;
}

/* In the child, between fork and exec: only async-signal-safe calls, no allocation. Never returns. */
_Noreturn static void child_exec(const struct process_options *o, const char *const *env, int null_fd, int status_fd,
	pid_t parent)
{
	static const uint64_t default_action[8];
	sigset_t none;
	int failure, parked = parking_fd(o, null_fd, status_fd);

	/* By the system call, since libc hides the two signals it uses itself, which a caller may have left ignored. All
	 * zero is SIG_DFL without flags; the kernel's struct is smaller than this on every architecture. */
	for (int sig = 1; sig < NSIG; sig++)
		(void)syscall(SYS_rt_sigaction, sig, default_action, NULL, (size_t)(NSIG / 8));
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127);
	/* Ctrl-C goes to the terminal's foreground group: it is for us, who end the child ourselves and know why. */
	(void)setpgid(0, 0);

	/* Two passes, since one descriptor's new place may be another's old one. */
	if (dup3(status_fd, parked, O_CLOEXEC) < 0)
		goto fail;
	status_fd = parked++;
	if (dup3(null_fd, parked, O_CLOEXEC) < 0)
		goto fail;
	null_fd = parked++;
	if (o->working_dirfd >= 0 && fchdir(o->working_dirfd) < 0) /* before that descriptor is closed below */
		goto fail;
	for (size_t i = 0; i < o->n_fds; i++)
		if (dup3(o->fds[i].fd, parked + (int)i, O_CLOEXEC) < 0)
			goto fail;
	for (int fd = 0; fd < 3; fd++)
		if (dup2(null_fd, fd) < 0)
			goto fail;
	if (syscall(SYS_close_range, 3U, (unsigned)status_fd - 1, 0U) < 0)
		for (int fd = 3; fd < status_fd; fd++)
			(void)close(fd);
	for (size_t i = 0; i < o->n_fds; i++)
		if (dup2(parked + (int)i, o->fds[i].child_fd) < 0)
			goto fail;
	(void)syscall(SYS_close_range, (unsigned)status_fd, ~0U, 1U << 2 /* CLOSE_RANGE_CLOEXEC */);
	(void)execvpe(o->argv[0], (char *const *)o->argv, (char *const *)env);
fail:
	failure = errno;
	(void)!write(status_fd, &failure, sizeof(failure));
	_exit(127);
}

int process_start(const struct process_options *options, struct process *ret, struct err *e)
{
	_cleanup_close_ int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	_cleanup_close_ int status_read = -1, status_write = -1;
	_cleanup_strv_ struct strv default_env = { 0 };
	_cleanup_process_ struct process p = PROCESS_INIT;
	struct process_options o = *options;
	int pipe_fds[2], failure = 0;
	pid_t parent = getpid();
	ssize_t n;

	if (null_fd < 0)
		return err_set_errno(e, -errno, "cannot open /dev/null");
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return err_set_errno(e, -errno, "cannot make a pipe");
	status_read = pipe_fds[0];
	status_write = pipe_fds[1];
	if (!o.env && default_environment(&default_env) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < o.n_fds; i++)
		if (o.fds[i].child_fd < 0 || o.fds[i].child_fd > CHILD_FD_MAX)
			return err_set(e, -EINVAL, "descriptor %d is no place for a child's", o.fds[i].child_fd);

	p.pid = fork();
	if (p.pid < 0) {
		p.pid = 0;
		return err_set_errno(e, -errno, "cannot start `%s`", o.argv[0]);
	}
	if (p.pid == 0)
		child_exec(&o, o.env ? o.env : (const char *const *)default_env.items, null_fd, status_write, parent);

	close_fdp(&status_write);
	n = read_full(status_read, &failure, sizeof(failure));
	if (n == (ssize_t)sizeof(failure) && failure == EACCES && !strchr(o.argv[0], '/') && !is_in_path(o.argv[0]))
		failure = ENOENT;
	if (n == (ssize_t)sizeof(failure))
		return err_set_errno(e, -failure, "cannot run `%s`", o.argv[0]);
	p.pidfd = (int)syscall(SYS_pidfd_open, p.pid, 0U);
	if (p.pidfd < 0)
		return err_set_errno(e, -errno, "cannot watch the process of `%s`", o.argv[0]);
	(void)fcntl(p.pidfd, F_SETFD, FD_CLOEXEC);
	*ret = p;
	p = (struct process)PROCESS_INIT;
	return 0;
}

int process_wait(struct process *p, int timeout_ms, int *ret_status, struct err *e)
{
	uint64_t deadline = monotonic_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms);

	for (;;) {
		struct pollfd pfd = { .fd = p->pidfd, .events = POLLIN };
		int n = poll(&pfd, 1, time_left_ms(timeout_ms, deadline));

		if (n < 0 && errno != EINTR)
			return err_set_errno(e, -errno, "cannot wait for a child process");
		if (n > 0)
			break;
		if (n == 0)
			return err_set(e, -ETIMEDOUT, "the child process did not end within %d ms", timeout_ms);
	}
	while (waitpid(p->pid, ret_status, 0) < 0)
		if (errno != EINTR)
			return err_set_errno(e, -errno, "cannot reap a child process");
	p->pid = 0;
	close_fdp(&p->pidfd);
	return 0;
}

void process_release(struct process *p)
{
	int saved = errno;

	if (p->pid > 0) {
		(void)kill(p->pid, SIGKILL);
		while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
			;
		p->pid = 0;
	}
	close_fdp(&p->pidfd);
	errno = saved;
}

/* Move what is there from one pipe into a buffer (NULL: away). Returns 1 at the end of the pipe, else 0 or -errno. */
static int drain_pipe(int fd, struct buf *into)
{
	char chunk[16384];
	ssize_t n = read(fd, chunk, sizeof(chunk));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -errno;
	if (n == 0)
		return 1;
	return into ? buf_append(into, chunk, (size_t)n) : 0;
}

int process_run(const struct process_options *options, struct buf *out, struct buf *err_out, int timeout_ms,
	int *ret_status, struct err *e)
{
	_cleanup_process_ struct process p = PROCESS_INIT;
	_cleanup_close_ int out_read = -1, out_write = -1, err_read = -1, err_write = -1;
	_cleanup_free_ struct process_fd *fds = calloc(options->n_fds + 2, sizeof(*fds));
	struct process_options o = *options;
	uint64_t deadline = monotonic_ms() + (uint64_t)(timeout_ms < 0 ? 0 : timeout_ms);
	int pair[2], r;

	if (!fds)
		return err_set(e, -ENOMEM, "out of memory");
	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_set_errno(e, -errno, "cannot make a pipe");
	out_read = pair[0];
	out_write = pair[1];
	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_set_errno(e, -errno, "cannot make a pipe");
	err_read = pair[0];
	err_write = pair[1];
	if (options->n_fds > 0)
		memcpy(fds, options->fds, options->n_fds * sizeof(*fds));
	fds[options->n_fds] = (struct process_fd){ out_write, STDOUT_FILENO };
	fds[options->n_fds + 1] = (struct process_fd){ err_write, STDERR_FILENO };
	o.fds = fds;
	o.n_fds = options->n_fds + 2;
	r = process_start(&o, &p, e);
	if (r < 0)
		return r;
	close_fdp(&out_write);
	close_fdp(&err_write);

	while (out_read >= 0 || err_read >= 0) {
		struct pollfd pfds[] = { { .fd = out_read, .events = POLLIN }, { .fd = err_read, .events = POLLIN } };
		int n = poll(pfds, 2, time_left_ms(timeout_ms, deadline));

		if (n < 0 && errno != EINTR)
			return err_set_errno(e, -errno, "cannot read from `%s`", o.argv[0]);
		if (n == 0)
			return err_set(e, -ETIMEDOUT, "`%s` did not end within %d ms and was killed", o.argv[0],
				timeout_ms);
		for (int i = 0; n > 0 && i < 2; i++) {
			if (!pfds[i].revents)
				continue;
			r = drain_pipe(pfds[i].fd, i == 0 ? out : err_out);
			if (r == -E2BIG)
				return err_set(e, r, "`%s` wrote more than could be meant", o.argv[0]);
			if (r < 0)
				return err_set_errno(e, r, "cannot read from `%s`", o.argv[0]);
			if (r == 1)
				close_fdp(i == 0 ? &out_read : &err_read);
		}
	}
	return process_wait(&p, time_left_ms(timeout_ms, deadline), ret_status, e);
}
