#include "initrd/init/step.h"
#include "initrd/init/command.h"
#include "initrd/init/dpkg.h"
#include "initrd/init/files.h"
#include "initrd/init/json.h"
#include "initrd/init/mount.h"
#include "initrd/init/services.h"
#include "initrd/init/users.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SETUP_STEP "setup"
#define WATCH_INTERVAL_MS 200
/* A filesystem is full when less than this is free beyond what ext4 keeps for itself: 2 % of its blocks, at
 * most 4096. SOURCE: linux fs/ext4/super.c, ext4_calculate_resv_clusters. */
#define FULL_BELOW_BYTES (256u << 10)
#define EXT4_KEPT_SHARE 50
#define EXT4_KEPT_BLOCKS 4096
#define ENOSPC_TEXT "No space left on device"

/* --- inside: the step's first process --- */

/* Execute a script of the payload. */
static int run_script(struct step_context *s, const char *src, struct fail *f)
{
	char path[512], magic[4] = "";
	char *argv[] = { path, NULL, NULL };
	int fd, status;

	if (!command_payload_path(src, path, sizeof(path)))
		return fail_set(f, "internal", "`%s` is no path of the payload", src);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail_set(f, "internal", "cannot open the script `%s`: %s", src, strerror(errno));
	(void)!read(fd, magic, sizeof(magic));
	(void)close(fd);
	if (memcmp(magic, "#!", 2) != 0 && memcmp(magic, "\177ELF", 4) != 0) {
		argv[0] = (char *)(uintptr_t) "/bin/sh";
		argv[1] = path;
	}
	status = command_run(s, argv, -1, NULL, NULL, f);
	if (status < 0)
		return -1;
	return status == 0 ? 0 : fail_from_status(f, status, "the script");
}

static int run_depmod(struct step_context *s, char *release, struct fail *f)
{
	char *argv[] = { (char *)(uintptr_t) "depmod", (char *)(uintptr_t) "-a", release, NULL };

	if (!command_exists("depmod")) {
		command_note(s,
			"the image has no depmod: the module indexes of %s were not written, modprobe will not find them",
			release);
		return 0;
	}
	return command_must(s, argv, f);
}

static int run_verb(struct step_context *s, const struct verb *v, struct fail *f)
{
	switch (v->kind) {
	case VERB_DPKG_REMOVE:
		return dpkg_remove(s, v->fields, v->n, false, f);
	case VERB_DPKG_PURGE:
		return dpkg_remove(s, v->fields, v->n, true, f);
	case VERB_DPKG_UNPACK:
		return dpkg_unpack(s, v->fields, v->n, f);
	case VERB_DPKG_CONFIGURE:
		return dpkg_configure(s, v->fields, v->n, f);
	case VERB_TREE:
		return files_put_tree(s, v->fields[0], v->fields[1], f);
	case VERB_FILE:
		return files_put(s, v->fields[0], v->fields[1], v->fields[2], v->fields[3], f);
	case VERB_DEPMOD:
		return run_depmod(s, v->fields[0], f);
	case VERB_ENABLE:
		return services_change(s, SERVICE_ENABLE, v->fields, v->n, f);
	case VERB_DISABLE:
		return services_change(s, SERVICE_DISABLE, v->fields, v->n, f);
	case VERB_MASK:
		return services_change(s, SERVICE_MASK, v->fields, v->n, f);
	case VERB_PASSWORD:
		return users_set_password(s, v->fields[0], v->fields[1], f);
	case VERB_AUTHORIZED_KEYS:
		return users_put_keys(s, v->fields[0], v->fields[1], f);
	case VERB_RUN:
		return run_script(s, v->fields[0], f);
	case VERB_REMOVE:
		return files_remove(s, v->fields[0], f);
	case VERB_FORGET_IDENTITY:
		return files_forget_identity(s, f);
	default:
		return fail_set(f, "internal", "`%s` cannot be part of a step", v->name);
	}
}

/* The image's own name for the machine, so that what is made from it is the same in every build. */
static void set_hostname(void)
{
	char name[256] = "";

	if (read_text_at(AT_FDCWD, "/etc/hostname", name, sizeof(name)) < 0)
		name[0] = '\0';
	name[strcspn(name, " \t\r\n")] = '\0';
	if (name[0] == '\0' || strlen(name) > 64)
		(void)snprintf(name, sizeof(name), "localhost");
	(void)sethostname(name, strlen(name));
}

/* How many packages the step unpacks. */
static unsigned count_unpacks(const struct verb *first, size_t n)
{
	size_t total = 0;

	for (size_t i = 0; i < n; i++) {
		if (first[i].kind == VERB_DPKG_UNPACK)
			total += first[i].n;
	}
	return (unsigned)total;
}

static void write_oom_score(const char *score)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		(void)write_all(fd, score, strlen(score));
		(void)close(fd);
	}
}

/* The life of the step's first process. Its exit status is 0 only when every verb passed. */
static int step_inside(const char *name, const struct verb *first, size_t n, int64_t clock_seconds,
	int control_fd, int output_fd)
{
	struct step_context s = {
		.name = name, .control_fd = control_fd, .output_fd = output_fd, .clock_seconds = clock_seconds
	};
	struct message m = { .kind = MESSAGE_FAIL };
	int r, null_fd;

	/* Not the console: what a script writes to this process's descriptors is output, like its own. */
	(void)dup2(output_fd, STDOUT_FILENO);
	(void)dup2(output_fd, STDERR_FILENO);
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null_fd >= 0) {
		(void)dup2(null_fd, STDIN_FILENO);
		(void)close(null_fd);
	}
	(void)setsid();
	write_oom_score("-900"); /* a step's reporter should outlive what it reports on */
	r = view_enter(strcmp(name, SETUP_STEP) == 0 && access(INPUTS_PATH, F_OK) == 0, &s.view, &m.fail);
	if (r == 0) {
		set_hostname();
		s.unpack_total = count_unpacks(first, n);
		r = command_environment(&s, &m.fail);
	}
	for (size_t i = 0; i < n && r == 0; i++)
		r = run_verb(&s, &first[i], &m.fail);
	if (r < 0)
		(void)send(control_fd, &m, sizeof(m), MSG_NOSIGNAL);
	return r < 0 ? 1 : 0;
}

/* --- outside: init --- */

/* What init keeps while it watches a step. */
struct watch {
	struct channel *channel;
	const char *name;
	int control_fd, output_fd;
	char pending[OUTPUT_DATA_MAX_BYTES]; /* output not yet sent */
	size_t n_pending;
	size_t enospc_matched; /* how much of ENOSPC_TEXT the output's end matches */
	bool said_enospc;
	bool was_full; /* the image's filesystem, at some moment */
	struct fail *fail;
};

/* Count what the kernel has killed for memory so far. */
static uint64_t count_oom_kills(void)
{
	static char stat[65536];
	const char *at;

	if (read_text_at(AT_FDCWD, "/proc/vmstat", stat, sizeof(stat)) < 0)
		return 0;
	at = strstr(stat, "\noom_kill ");
	return at ? strtoull(at + strlen("\noom_kill "), NULL, 10) : 0;
}

static void look_at_space(struct watch *w)
{
	struct statfs st;

	if (statfs(TARGET_PATH, &st) == 0) {
		uint64_t share = (uint64_t)st.f_blocks / EXT4_KEPT_SHARE;
		uint64_t kept = (share < EXT4_KEPT_BLOCKS ? share : EXT4_KEPT_BLOCKS) * (uint64_t)st.f_bsize;

		/* No inode left is no space either. */
		if ((uint64_t)st.f_bfree * (uint64_t)st.f_bsize < kept + FULL_BELOW_BYTES ||
			(st.f_files > 0 && st.f_ffree == 0))
			w->was_full = true;
	}
}

/* Send what is pending: up to the last newline where there is one, unless all of it must go. */
static void flush_output(struct watch *w, bool all)
{
	size_t n = w->n_pending;

	if (!all) {
		const char *newline = memrchr(w->pending, '\n', n);

		if (newline)
			n = (size_t)(newline - w->pending) + 1;
		else if (n == sizeof(w->pending))
			n -= utf8_incomplete_tail(w->pending, n);
		else
			return;
	}
	if (n == 0)
		return;
	channel_output(w->channel, w->name, w->pending, n);
	w->n_pending -= n;
	memmove(w->pending, w->pending + n, w->n_pending);
}

static void look_for_enospc(struct watch *w, const char *bytes, size_t len)
{
	static const char text[] = ENOSPC_TEXT;

	for (size_t i = 0; i < len && !w->said_enospc; i++) {
		w->enospc_matched =
			bytes[i] == text[w->enospc_matched] ? w->enospc_matched + 1 : bytes[i] == text[0];
		w->said_enospc = w->enospc_matched == strlen(text);
	}
}

/* Take what the step's programs wrote. Returns false at the end, or when there is nothing more for now. */
static bool take_output(struct watch *w)
{
	ssize_t n = read(w->output_fd, w->pending + w->n_pending, sizeof(w->pending) - w->n_pending);

	if (n <= 0)
		return n < 0 && errno == EINTR;
	look_for_enospc(w, w->pending + w->n_pending, (size_t)n);
	w->n_pending += (size_t)n;
	if (w->n_pending == sizeof(w->pending))
		flush_output(w, false);
	return true;
}

/* Take one message of the step's first process. Returns whether there was one. */
static bool take_message(struct watch *w)
{
	struct message m;
	ssize_t n = recv(w->control_fd, &m, sizeof(m), MSG_DONTWAIT);

	if (n != (ssize_t)sizeof(m))
		return n > 0;
	m.fail.text[sizeof(m.fail.text) - 1] = '\0';
	m.fail.reason[sizeof(m.fail.reason) - 1] = '\0';
	if (m.kind == MESSAGE_PROGRESS)
		channel_progress(w->channel, w->name, m.done, m.total, m.fail.text);
	else if (m.kind == MESSAGE_NOTE)
		channel_note(w->channel, m.fail.text);
	else if (m.kind == MESSAGE_FAIL && !w->fail->reason[0])
		*w->fail = m.fail;
	return true;
}

static void on_sigchld(int number)
{
	(void)number;
}

/* Watch until pid ends; orphans are reaped on the way. Returns its wait status. */
static int watch_step(struct watch *w, pid_t pid)
{
	struct sigaction sa = { .sa_handler = on_sigchld };
	sigset_t blocked, old;
	int status = 0;
	bool ended = false;

	(void)sigaction(SIGCHLD, &sa, NULL);
	(void)sigemptyset(&blocked);
	(void)sigaddset(&blocked, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &blocked, &old);
	while (!ended) {
		static const struct timespec interval = { .tv_nsec = WATCH_INTERVAL_MS * 1000000L };
		struct pollfd pfds[] = {
			{ .fd = w->output_fd, .events = POLLIN },
			{ .fd = w->control_fd, .events = POLLIN },
		};
		int child_status;
		pid_t got;

		while ((got = waitpid(-1, &child_status, WNOHANG)) > 0) {
			if (got == pid) {
				status = child_status;
				ended = true;
			}
		}
		if (ended)
			break;
		look_at_space(w);
		if (ppoll(pfds, ARRAY_SIZE(pfds), &interval, &old) <= 0) {
			flush_output(w, true);
			continue;
		}
		if (pfds[0].revents && !take_output(w) && (pfds[0].revents & POLLHUP))
			w->output_fd = -1;
		while (pfds[1].revents && take_message(w))
			;
		if (pfds[1].revents & POLLHUP)
			w->control_fd = -1;
		flush_output(w, false);
	}
	(void)sigprocmask(SIG_SETMASK, &old, NULL);
	return status;
}

/* End whatever the step left: with a PID namespace there is nothing left by now, without one this is what
 * ends it. init is the only process besides, and a signal to all spares the sender. */
static void end_all_others(void)
{
	(void)kill(-1, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
}

/* fork in new namespaces: PID and IPC where the kernel has them, mount always. */
static pid_t fork_into_namespaces(struct channel *c)
{
	static const unsigned long tries[] = { CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC,
		CLONE_NEWNS | CLONE_NEWPID, CLONE_NEWNS };
	static bool noted; /* the kernel does not change; say it once */
	pid_t pid = -1;

	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		pid = (pid_t)syscall(SYS_clone, tries[i] | SIGCHLD, NULL, NULL, NULL, NULL);
		if (pid > 0 && i > 0 && !noted) {
			noted = true;
			channel_note(c,
				i == 1 ? "the kernel has no IPC namespaces: steps share them"
				       : "the kernel has no PID namespaces: what a step leaves behind is killed after it");
		}
		if (pid >= 0 || errno != EINVAL)
			break;
	}
	return pid;
}

/* Tell running out of memory and out of space apart from other failures. */
static void refine_failure(const struct watch *w, uint64_t oom_kills, struct fail *f)
{
	char text[VERDICT_TEXT_MAX_BYTES];

	(void)snprintf(text, sizeof(text), "%s", f->text);
	if (oom_kills > 0) {
		/* Also when every verb passed: a script may have ignored it, and the image would depend on
		 * the memory, which is not in the key. */
		(void)snprintf(f->reason, sizeof(f->reason), "oom");
		(void)snprintf(f->text, sizeof(f->text),
			"the guest ran out of memory and the kernel killed %llu process(es)%s%.1000s",
			(unsigned long long)oom_kills, text[0] ? "; " : "", text);
	} else if (f->reason[0] && (w->was_full || w->said_enospc) &&
		   (strcmp(f->reason, "exit") == 0 || strcmp(f->reason, "signal") == 0 ||
			   strcmp(f->reason, "internal") == 0)) {
		(void)snprintf(f->reason, sizeof(f->reason), "enospc");
		(void)snprintf(f->text, sizeof(f->text), "%.1000s; %s", text,
			w->was_full ? "the image's filesystem was full"
				    : "a program said that no space was left (/tmp and /run are in memory)");
	}
}

int step_run(struct channel *c, const struct verb *step, const struct verb *first, size_t n,
	int64_t clock_seconds, struct fail *f)
{
	const char *name = step->fields[0];
	struct watch w = { .channel = c, .name = name, .control_fd = -1, .output_fd = -1, .fail = f };
	struct scaffold scaffold = { 0 };
	int control[2], output[2], control_fd, output_fd, status = 0;
	uint64_t start = now_ms(), ooms = count_oom_kills();
	bool with_inputs;
	pid_t pid;

	channel_step_begin(c, name, step->fields[1]);
	say("step %s", name);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0 ||
		pipe2(output, O_CLOEXEC) < 0)
		return fail_set(f, "internal", "cannot make the step's pipes: %s", strerror(errno));
	with_inputs = strcmp(name, SETUP_STEP) == 0 && access(INPUTS_PATH, F_OK) == 0;
	if (scaffold_make(&scaffold, with_inputs, f) == 0) {
		pid = fork_into_namespaces(c);
		if (pid == 0) {
			channel_forget(c);
			(void)close(control[0]);
			(void)close(output[0]);
			_exit(step_inside(name, first, n, clock_seconds, control[1], output[1]));
		}
		(void)close(control[1]);
		(void)close(output[1]);
		control_fd = w.control_fd = control[0];
		output_fd = w.output_fd = output[0];
		(void)fcntl(output_fd, F_SETFL, O_NONBLOCK);
		if (pid < 0) {
			(void)fail_set(f, "internal", "cannot start the step: %s", strerror(errno));
		} else {
			status = watch_step(&w, pid);
			end_all_others();
			w.control_fd = control_fd;
			w.output_fd = output_fd;
			while (take_output(&w))
				;
			while (take_message(&w))
				;
			flush_output(&w, true);
			look_at_space(&w);
			if (status != 0)
				(void)fail_from_status(f, status, "the step's first process");
		}
		(void)close(control_fd);
		(void)close(output_fd);
	}
	scaffold_remove(&scaffold);
	refine_failure(&w, count_oom_kills() - ooms, f);
	channel_step_end(c, name, f->exit, f->signal, now_ms() - start);
	return f->reason[0] ? -1 : 0;
}
