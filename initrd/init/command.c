#include "initrd/init/command.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

static const char *const path_folders[] = {
	STUBS_PATH,
	"/usr/local/sbin",
	"/usr/local/bin",
	"/usr/sbin",
	"/usr/bin",
	"/sbin",
	"/bin",
};

bool command_exists(const char *name)
{
	for (size_t i = 1; i < ARRAY_SIZE(path_folders); i++) {
		char path[256];

		(void)snprintf(path, sizeof(path), "%s/%s", path_folders[i], name);
		if (access(path, X_OK) == 0)
			return true;
	}
	return false;
}

bool command_payload_path(const char *path, char *ret, size_t size)
{
	static const char prefix[] = "/imgbuild/";

	if (strncmp(path, prefix, strlen(prefix)) != 0 || strstr(path, "/../"))
		return false;
	return snprintf(ret, size, PAYLOAD_PATH "/%s", path + strlen(prefix)) < (int)size;
}

int command_environment(struct step_context *s, struct fail *f)
{
	/* Answers are fixed: nobody is there to ask, and equal plans must give equal bytes (hash seeds, .pyc
	 * files). */
	static const char *const fixed[] = {
		"HOME=/root",
		"TERM=dumb",
		"LANG=C.UTF-8",
		"LC_ALL=C.UTF-8",
		"SHELL=/bin/sh",
		"USER=root",
		"LOGNAME=root",
		"DEBIAN_FRONTEND=noninteractive",
		"DEBCONF_NONINTERACTIVE_SEEN=true",
		"DEBCONF_NOWARNINGS=yes",
		"UCF_FORCE_CONFFOLD=1",
		"APT_LISTCHANGES_FRONTEND=none",
		"NEEDRESTART_SUSPEND=1",
		"SYSTEMD_OFFLINE=1",
		"PERL_HASH_SEED=0",
		"PYTHONHASHSEED=0",
	};
	char *path = NULL, *epoch = NULL, *inputs = NULL;
	size_t n = 0;

	s->environment = calloc(ARRAY_SIZE(fixed) + 4, sizeof(*s->environment));
	if (!s->environment || asprintf(&path, "PATH=%s", STUBS_PATH) < 0)
		return fail_set(f, "internal", "no memory for the step's environment");
	for (size_t i = 1; i < ARRAY_SIZE(path_folders); i++) {
		char *longer;

		if (asprintf(&longer, "%s:%s", path, path_folders[i]) < 0)
			return fail_set(f, "internal", "no memory for the step's environment");
		free(path);
		path = longer;
	}
	s->environment[n++] = path;
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		s->environment[n++] = (char *)(uintptr_t)fixed[i];
	if (s->clock_seconds >= 0) {
		if (asprintf(&epoch, "SOURCE_DATE_EPOCH=%lld", (long long)s->clock_seconds) < 0)
			return fail_set(f, "internal", "no memory for the step's environment");
		s->environment[n++] = epoch;
	}
	if (asprintf(&inputs, "IMGBUILD_INPUTS=%s", INPUTS_PATH) < 0)
		return fail_set(f, "internal", "no memory for the step's environment");
	s->environment[n++] = inputs;
	return 0;
}

static void send_message(struct step_context *s, const struct message *m)
{
	while (send(s->control_fd, m, sizeof(*m), MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

void command_note(struct step_context *s, const char *fmt, ...)
{
	struct message m = { .kind = MESSAGE_NOTE };
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(m.fail.text, sizeof(m.fail.text), fmt, ap);
	va_end(ap);
	send_message(s, &m);
}

void command_progress(struct step_context *s, unsigned done, unsigned total, const char *fmt, ...)
{
	struct message m = { .kind = MESSAGE_PROGRESS, .done = done, .total = total };
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(m.fail.text, sizeof(m.fail.text), fmt, ap);
	va_end(ap);
	send_message(s, &m);
}

/* In the child: signals as a program expects them, and the OOM killer no longer kept off. */
static void reset_child(void)
{
	sigset_t none;
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)!write(fd, "0", 1);
		(void)close(fd);
	}
	(void)signal(SIGCHLD, SIG_DFL);
	(void)signal(SIGPIPE, SIG_DFL);
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setsid();
	(void)umask(022);
}

/* Compose the path of the program that `name` means; the name itself where no folder of PATH has it. */
static void find_program(const char *name, char *ret, size_t size)
{
	for (size_t i = 0; !strchr(name, '/') && i < ARRAY_SIZE(path_folders); i++) {
		(void)snprintf(ret, size, "%s/%s", path_folders[i], name);
		if (access(ret, X_OK) == 0)
			return;
	}
	(void)snprintf(ret, size, "%s", name);
}

/* Hand whole lines of what is in buf to on_line. Returns what is left over. */
static size_t give_lines(char *buf, size_t len, void (*on_line)(void *, char *), void *opaque)
{
	char *start = buf, *end;

	while ((end = memchr(start, '\n', len - (size_t)(start - buf)))) {
		*end = '\0';
		on_line(opaque, start);
		start = end + 1;
	}
	len -= (size_t)(start - buf);
	memmove(buf, start, len);
	return len == LINE_MAX_BYTES ? 0 : len; /* a line that long is no line of dpkg's */
}

/* Wait for pid, reaping every orphan that comes to us meanwhile (this process may be the first of its PID
 * namespace), and read lines from line_fd. What pid's own children hold open is not waited for. */
static int wait_child(pid_t pid, int line_fd, void (*on_line)(void *, char *), void *opaque)
{
	char buf[LINE_MAX_BYTES];
	size_t len = 0;
	sigset_t blocked, old;
	int status = 0;
	bool ended = false;

	(void)sigemptyset(&blocked);
	(void)sigaddset(&blocked, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &blocked, &old);
	for (;;) {
		struct pollfd pfd = { .fd = line_fd, .events = POLLIN };
		static const struct timespec at_once = { 0 };
		pid_t got;
		int child_status;

		while ((got = waitpid(-1, &child_status, WNOHANG)) > 0) {
			if (got == pid) {
				status = child_status;
				ended = true;
			}
		}
		if (ended && line_fd < 0)
			break;
		/* SIGCHLD is let in only while waiting here, so none is missed between the look above and the
		 * wait. */
		if (ppoll(&pfd, line_fd >= 0 ? 1 : 0, ended ? &at_once : NULL, &old) > 0) {
			ssize_t n = read(line_fd, buf + len, sizeof(buf) - len);

			if (n > 0)
				len = give_lines(buf, len + (size_t)n, on_line, opaque);
			else if (n == 0 || errno != EINTR)
				line_fd = -1;
		} else if (ended) {
			break;
		}
	}
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	return status;
}

static void on_sigchld(int number)
{
	(void)number;
}

static void catch_sigchld(void)
{
	struct sigaction sa = { .sa_handler = on_sigchld };

	(void)sigaction(SIGCHLD, &sa, NULL);
}

int command_run(struct step_context *s, char *const *argv, int line_fd_number,
	void (*on_line)(void *, char *), void *opaque, struct fail *f)
{
	int line_pipe[2] = { -1, -1 }, error_pipe[2] = { -1, -1 };
	char program[4096];
	int exec_errno = 0, status;
	pid_t pid;

	if ((line_fd_number >= 0 && pipe2(line_pipe, O_CLOEXEC) < 0) || pipe2(error_pipe, O_CLOEXEC) < 0)
		return fail_set(f, "internal", "cannot make a pipe for `%s`: %s", argv[0], strerror(errno));
	catch_sigchld();
	pid = fork();
	if (pid < 0)
		return fail_set(f, "internal", "cannot start `%s`: %s", argv[0], strerror(errno));
	if (pid == 0) {
		int null_fd = open("/dev/null", O_RDONLY);
		/* The error pipe may lie where the line's descriptor must go. */
		int error_fd = fcntl(error_pipe[1], F_DUPFD_CLOEXEC, 100);

		reset_child();
		(void)dup2(s->output_fd, 1);
		(void)dup2(s->output_fd, 2);
		if (null_fd != 0) {
			(void)dup2(null_fd, 0);
			(void)close(null_fd);
		}
		if (line_fd_number >= 0) {
			if (line_pipe[1] == line_fd_number)
				(void)fcntl(line_pipe[1], F_SETFD, 0);
			else
				(void)dup2(line_pipe[1], line_fd_number);
		}
		(void)chdir("/");
		find_program(argv[0], program, sizeof(program));
		(void)execve(program, argv, s->environment);
		exec_errno = errno;
		(void)write_all(error_fd, &exec_errno, sizeof(exec_errno));
		_exit(127);
	}
	(void)close(error_pipe[1]);
	if (line_pipe[1] >= 0)
		(void)close(line_pipe[1]);
	if (read(error_pipe[0], &exec_errno, sizeof(exec_errno)) != (ssize_t)sizeof(exec_errno))
		exec_errno = 0;
	(void)close(error_pipe[0]);
	status = wait_child(pid, line_pipe[0], on_line, opaque);
	if (line_pipe[0] >= 0)
		(void)close(line_pipe[0]);
	if (exec_errno) {
		f->exit = exec_errno == ENOENT ? 127 : 126;
		return fail_set(f, "exit", "cannot execute `%s`: %s%s", argv[0], strerror(exec_errno),
			exec_errno == ENOENT && strchr(argv[0], '/') && access(argv[0], F_OK) == 0
				? "; the interpreter of its first line is not in the image"
				: "");
	}
	return status;
}

int command_must(struct step_context *s, char *const *argv, struct fail *f)
{
	int status = command_run(s, argv, -1, NULL, NULL, f);

	if (status < 0)
		return -1;
	return status == 0 ? 0 : fail_from_status(f, status, argv[0]);
}

int command_in_bare(struct step_context *s, int (*function)(struct step_context *, void *, struct fail *),
	void *opaque, struct fail *f)
{
	struct fail *shared =
		mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status, r = 0;
	pid_t pid;

	if (shared == MAP_FAILED)
		return fail_set(f, "internal", "no memory for a child");
	catch_sigchld();
	pid = fork();
	if (pid < 0) {
		(void)munmap(shared, sizeof(*shared));
		return fail_set(f, "internal", "cannot fork: %s", strerror(errno));
	}
	if (pid == 0) {
		reset_child();
		if (fchdir(s->view.bare_fd) < 0 || chroot(".") < 0)
			(void)fail_set(shared, "internal", "cannot enter the image: %s", strerror(errno));
		else
			(void)function(s, opaque, shared);
		_exit(shared->reason[0] ? 1 : 0);
	}
	status = wait_child(pid, -1, NULL, NULL);
	if (shared->reason[0] && !f->reason[0]) {
		*f = *shared;
		r = -1;
	} else if (status != 0) {
		r = fail_from_status(f, status, "the process that changes files");
	}
	(void)munmap(shared, sizeof(*shared));
	return r;
}
