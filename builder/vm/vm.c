#include "builder/vm/vm.h"

#include "builder/vm/console.h"
#include "builder/vm/dialogue.h"
#include "builder/vm/qemu.h"
#include "builder/vm/qmp.h"
#include "builder/vm/watch.h"
#include "initrd/protocol.h" /* constants only: see records.h */
#include "lib/io.h"
#include "lib/process.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum {
	SAMPLE_MS = 1000,
	SAMPLE_EARLY_MS = 500, /* before the console's first byte */
	QUIT_MS = 2000,	       /* for QEMU to end after `quit` */
	CHUNK_BYTES = 65536,
	TB_SIZE_MAX_MIB = 2048,
	STDERR_MAX_BYTES = 8192
};

/* Descriptors' numbers in QEMU's process. */
enum { CHILD_KERNEL = 10, CHILD_INITRD, CHILD_DISK, CHILD_CONSOLE, CHILD_CHANNEL, CHILD_SERIAL, CHILD_MONITOR };

/* Why the machine ended, as QEMU's monitor said. */
enum shutdown { SHUTDOWN_NONE = 0, SHUTDOWN_POWEROFF, SHUTDOWN_RESET, SHUTDOWN_PANIC, SHUTDOWN_OTHER };

/* A byte stream from the guest that may turn out to be the channel. */
struct stream {
	struct run *run;
	enum vm_channel kind;
	int fd; /* owned; -1: none or ended */
	struct line_reader lines;
};

/* What a try is to be. */
struct attempt {
	bool kvm, sandbox;
	bool may_fall_back;		   /* another try follows when KVM does not get the guest to speak */
	const struct accel_options *accel; /* borrowed */
	const struct err *kvm_failure;	   /* borrowed: how KVM failed before this try; NULL: it was not tried */
};

/* One try: a QEMU process and all that belongs to it. */
struct run {
	const struct vm_config *config;
	const struct vm_hooks *hooks;
	struct vm_result *result;
	struct attempt attempt;

	struct process process;
	pid_t pid; /* kept for the messages and /proc after the process was reaped */
	struct stream port, serial;
	int console_fd, monitor_fd, stderr_fd; /* owned */
	int cancel_fd;			       /* lent */
	struct console console;
	struct dialogue dialogue;
	struct qmp qmp;
	struct watch watch;
	struct buf stderr_text;
	uint64_t start_ms, next_sample_ms;
	uint64_t record_bytes; /* taken so far */
	unsigned n_notes;

	uint64_t stats_id, registers_id; /* of the monitor's commands that are under way; 0: none */
	struct watch_sample sample;
	uint64_t disk_writes; /* as the last sample said */
	enum shutdown shutdown;
	bool host_full, host_io_error; /* QEMU stopped the machine for an error of the host's disk */
	bool internal_error;	       /* KVM stopped the machine */
	bool monitor_failed;	       /* protocol_error is about QEMU's monitor */
	bool ended;		       /* QEMU has; status is its */
	int status;
	enum watch_finding finding;
	bool cancelled;
	struct err protocol_error; /* code 0: none */
};

static const char *const outcome_names[] = {
	[VM_QEMU_FAILED] = "qemu-failed",
	[VM_PASSED] = "passed",
	[VM_STEP_FAILED] = "step-failed",
	[VM_PANIC] = "panic",
	[VM_POWEROFF_WITHOUT_VERDICT] = "poweroff-without-verdict",
	[VM_RESET] = "reset",
	[VM_STALLED] = "stalled",
	[VM_NO_START] = "no-start",
	[VM_NO_GREETING] = "no-greeting",
	[VM_PROTOCOL_ERROR] = "protocol-error",
	[VM_CANCELLED] = "cancelled",
};

static const char *const channel_names[] = {
	[VM_CHANNEL_NONE] = "none",
	[VM_CHANNEL_PORT] = "virtio-serial",
	[VM_CHANNEL_SERIAL] = "serial",
	[VM_CHANNEL_CONSOLE] = "console",
};

const char *vm_outcome_name(enum vm_outcome outcome)
{
	return outcome < ARRAY_SIZE(outcome_names) ? outcome_names[outcome] : "";
}

const char *vm_channel_name(enum vm_channel channel)
{
	return channel < ARRAY_SIZE(channel_names) ? channel_names[channel] : "";
}

static const char *accel_name(bool kvm)
{
	return kvm ? "KVM" : "TCG";
}

static void run_init(struct run *run, const struct vm_config *config, const struct vm_hooks *hooks,
	struct vm_result *result, const struct attempt *attempt)
{
	*run = (struct run){ .config = config,
		.hooks = hooks,
		.result = result,
		.attempt = *attempt,
		.process = PROCESS_INIT,
		.port = { .run = run, .kind = VM_CHANNEL_PORT, .fd = -1 },
		.serial = { .run = run, .kind = VM_CHANNEL_SERIAL, .fd = -1 },
		.console_fd = -1,
		.monitor_fd = -1,
		.stderr_fd = -1,
		.cancel_fd = hooks->cancel_fd };
	line_reader_init(&run->port.lines, RECORD_MAX_BYTES - 1);
	line_reader_init(&run->serial.lines, RECORD_MAX_BYTES - 1);
	console_init(&run->console, hooks->console_fd, VM_CONSOLE_MAX_BYTES);
	qmp_init(&run->qmp, -1);
	buf_init(&run->stderr_text, STDERR_MAX_BYTES);
}

static void run_release(struct run *run)
{
	process_release(&run->process);
	line_reader_release(&run->port.lines);
	line_reader_release(&run->serial.lines);
	close_fdp(&run->port.fd);
	close_fdp(&run->serial.fd);
	close_fdp(&run->console_fd);
	close_fdp(&run->monitor_fd);
	close_fdp(&run->stderr_fd);
	console_release(&run->console);
	qmp_release(&run->qmp);
	buf_release(&run->stderr_text);
}
#define _cleanup_run_ _cleanup_(run_release)

/* Half of the memory that QEMU would take for translated code by itself, twice of what it takes at most: many short
 * programs are run, and what is thrown out has to be translated again. It is only touched as it fills. */
static uint32_t translation_buffer_mib(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
	uint64_t mib;

	if (pages <= 0 || page_bytes <= 0)
		return 0;
	mib = (uint64_t)pages / 8 * (uint64_t)page_bytes >> 20;
	return mib > TB_SIZE_MAX_MIB ? TB_SIZE_MAX_MIB : (uint32_t)mib;
}

/* A connected pair: ours (non-blocking), and QEMU's. */
static int make_socket(int *ret_ours, int *ret_theirs, struct err *e)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return err_set_errno(e, -errno, "cannot make a socket for QEMU");
	*ret_ours = pair[0];
	*ret_theirs = pair[1];
	if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0)
		return err_set_errno(e, -errno, "cannot set up a socket for QEMU");
	return 0;
}

/* Start QEMU with everything it may touch. */
static int start_qemu(struct run *run, struct err *e)
{
	const struct vm_config *c = run->config;
	_cleanup_close_ int console = -1, channel = -1, serial = -1, monitor = -1, stderr_write = -1;
	_cleanup_buf_ struct buf cmdline = BUF_INIT(2 * QEMU_CMDLINE_MAX_BYTES);
	_cleanup_strv_ struct strv argv = { 0 };
	struct process_fd fds[9];
	struct process_options options = { .fds = fds, .working_dirfd = -1 };
	struct qemu_config qemu = { .arch = c->arch,
		.kvm = run->attempt.kvm,
		.program = c->qemu,
		.memory_mib = c->memory_mib,
		.cpus = c->cpus,
		.tb_size_mib = translation_buffer_mib(),
		.rtc_epoch = c->clock_epoch,
		.sandbox = run->attempt.sandbox,
		.kernel_fd = CHILD_KERNEL,
		.initrd_fd = c->initrd_fd >= 0 ? CHILD_INITRD : -1,
		.disk_fd = c->disk_fd >= 0 ? CHILD_DISK : -1,
		.channel_fd = CHILD_CHANNEL,
		.serial_fd = qemu_has_second_serial(c->arch) ? CHILD_SERIAL : -1,
		.console_fd = CHILD_CONSOLE,
		.monitor_fd = CHILD_MONITOR };
	int pair[2], r;

	r = qemu_guest_cmdline(c->arch, c->cmdline, &cmdline, e);
	if (r < 0)
		return r;
	qemu.cmdline = buf_str(&cmdline);
	r = qemu_argv(&qemu, &argv, e);
	if (r == 0)
		r = make_socket(&run->console_fd, &console, e);
	if (r == 0)
		r = make_socket(&run->port.fd, &channel, e);
	if (r == 0 && qemu.serial_fd >= 0)
		r = make_socket(&run->serial.fd, &serial, e);
	if (r == 0)
		r = make_socket(&run->monitor_fd, &monitor, e);
	if (r < 0)
		return r;
	qmp_init(&run->qmp, run->monitor_fd);
	if (pipe2(pair, O_CLOEXEC) < 0)
		return err_set_errno(e, -errno, "cannot make a pipe");
	run->stderr_fd = pair[0];
	stderr_write = pair[1];
	if (fcntl(run->stderr_fd, F_SETFL, O_NONBLOCK) < 0)
		return err_set_errno(e, -errno, "cannot set up a pipe");

	fds[options.n_fds++] = (struct process_fd){ stderr_write, STDOUT_FILENO };
	fds[options.n_fds++] = (struct process_fd){ stderr_write, STDERR_FILENO };
	fds[options.n_fds++] = (struct process_fd){ c->kernel_fd, CHILD_KERNEL };
	if (c->initrd_fd >= 0)
		fds[options.n_fds++] = (struct process_fd){ c->initrd_fd, CHILD_INITRD };
	if (c->disk_fd >= 0)
		fds[options.n_fds++] = (struct process_fd){ c->disk_fd, CHILD_DISK };
	fds[options.n_fds++] = (struct process_fd){ console, CHILD_CONSOLE };
	fds[options.n_fds++] = (struct process_fd){ channel, CHILD_CHANNEL };
	if (serial >= 0)
		fds[options.n_fds++] = (struct process_fd){ serial, CHILD_SERIAL };
	fds[options.n_fds++] = (struct process_fd){ monitor, CHILD_MONITOR };
	options.argv = (const char *const *)argv.items;
	r = process_start(&options, &run->process, e);
	/* A folder of PATH that may not be searched makes it -EACCES. */
	if (r == -ENOENT || (r == -EACCES && !strchr(argv.items[0], '/')))
		return err_set_kind(e, ERR_KIND_HOST, -ENOENT,
			"`%s` was not found, which runs the virtual machine; install it (Debian, Ubuntu: apt-get install %s)",
			argv.items[0], qemu_package(c->arch));
	run->pid = run->process.pid;
	return r;
}

/* CPU time of QEMU's process so far; 0 where it cannot be read. */
static uint64_t process_cpu_ms(pid_t pid)
{
	_cleanup_buf_ struct buf b = BUF_INIT(4096);
	struct err ignored = ERR_INIT;
	unsigned long long user = 0, system = 0;
	long ticks = sysconf(_SC_CLK_TCK);
	const char *after;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (ticks <= 0 || read_file_at(AT_FDCWD, path, false, &b, &ignored) < 0)
		return 0;
	after = strrchr(buf_str(&b), ')'); /* the name may hold anything */
	if (!after || sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) != 2)
		return 0;
	return (user + system) * 1000 / (unsigned long long)ticks;
}

/* The sum of what the disks did, from query-blockstats; and of that, what changes a disk. */
static uint64_t disk_operations(const json_t *data, uint64_t *ret_writes)
{
	uint64_t sum = 0, writes = 0;
	size_t i;
	json_t *device;

	json_array_foreach(data, i, device) {
		const json_t *stats = json_object_get(device, "stats");

		sum += (uint64_t)json_integer_value(json_object_get(stats, "rd_operations")) +
		       (uint64_t)json_integer_value(json_object_get(stats, "flush_operations"));
		writes += (uint64_t)json_integer_value(json_object_get(stats, "wr_operations")) +
			  (uint64_t)json_integer_value(json_object_get(stats, "unmap_operations"));
	}
	sum += writes;
	*ret_writes = writes;
	return sum;
}

/* A digest of all registers as `info registers` prints them (FNV-1a, 64 bits): a CPU that copies or counts stays at one
 * instruction too, but not with the same registers. */
static uint64_t cpu_state(const char *text)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (const char *p = text; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
	return hash;
}

static void take_shutdown(struct run *run, const json_t *data)
{
	const char *reason = json_string_value(json_object_get(data, "reason"));

	if (!reason)
		reason = "";
	if (strcmp(reason, "guest-shutdown") == 0)
		run->shutdown = SHUTDOWN_POWEROFF;
	else if (strcmp(reason, "guest-reset") == 0)
		run->shutdown = SHUTDOWN_RESET;
	else if (strcmp(reason, "guest-panic") == 0)
		run->shutdown = SHUTDOWN_PANIC;
	else
		run->shutdown = SHUTDOWN_OTHER;
}

static void take_monitor_message(void *ctx, const struct qmp_message *m)
{
	struct run *run = ctx;

	if (m->kind == QMP_EVENT && strcmp(m->name, "SHUTDOWN") == 0) {
		take_shutdown(run, m->data);
	} else if (m->kind == QMP_EVENT && strcmp(m->name, "BLOCK_IO_ERROR") == 0) {
		run->host_io_error = true;
		run->host_full = json_is_true(json_object_get(m->data, "nospace"));
	} else if (m->kind == QMP_EVENT && strcmp(m->name, "STOP") == 0) {
		run->internal_error = !run->host_io_error && run->shutdown == SHUTDOWN_NONE;
	} else if (m->id != 0 && m->id == run->stats_id) {
		run->stats_id = 0;
		if (m->kind == QMP_RETURN)
			run->sample.disk_operations = disk_operations(m->data, &run->disk_writes);
	} else if (m->id != 0 && m->id == run->registers_id) {
		run->registers_id = 0;
		run->sample.has_cpu_state = m->kind == QMP_RETURN && json_is_string(m->data);
		if (run->sample.has_cpu_state)
			run->sample.cpu_state = cpu_state(json_string_value(m->data));
	}
}

/* Tell the person what the guest does. */
static void report(struct run *run, const struct record *r)
{
	struct progress *p = run->hooks->progress;
	char text[200], clean[200];

	switch (r->type) {
	case RECORD_STEP_BEGIN:
		(void)snprintf(text, sizeof(text), "%s", r->text[0] ? r->text : r->step);
		progress_update(p, VM_PROGRESS_STAGE, PROGRESS_ITEMS, 0, 0,
			err_sanitize(clean, sizeof(clean), text, strlen(text)));
		break;
	case RECORD_PROGRESS:
		(void)snprintf(text, sizeof(text), "%s%s%s", r->step, r->text[0] ? ": " : "", r->text);
		progress_update(p, VM_PROGRESS_STAGE, PROGRESS_ITEMS, r->done, r->total,
			err_sanitize(clean, sizeof(clean), text, strlen(text)));
		break;
	case RECORD_NOTE:
		if (run->n_notes++ < VM_NOTES_MAX)
			progress_note(p, "%s", r->text);
		break;
	default:
		break;
	}
}

/* KVM failed and TCG got the guest to speak: so it was KVM, and is remembered. */
static void remember_kvm_failure(const struct run *run)
{
	const struct attempt *a = &run->attempt;
	struct err not_written = ERR_INIT;
	char forgetting[400] = "";

	accel_describe_forgetting(a->accel, forgetting, sizeof(forgetting));
	if (accel_remember(a->accel, a->kvm_failure->message, &not_written) < 0)
		progress_warning(run->hooks->progress, "cannot remember that KVM does not work: %s", not_written.message);
	else if (a->accel->memory_dirfd >= 0)
		progress_note(run->hooks->progress, "that KVM does not work is remembered for a day; %s", forgetting);
}

/* Marks in the console's file and what else a record that was accepted brings. */
static int follow_record(struct run *run, const struct record *r, uint64_t now_ms, struct err *e)
{
	struct vm_result *result = run->result;

	if (r->type == RECORD_HELLO) {
		result->boot_ms = now_ms - run->start_ms;
		watch_enter(&run->watch, WATCH_RUNNING, now_ms);
		if (run->attempt.kvm_failure)
			remember_kvm_failure(run);
	} else if (r->type == RECORD_STEP_BEGIN) {
		console_mark(&run->console, "[imgbuild: step %s begins]", r->step);
	} else if (r->type == RECORD_STEP_END) {
		console_mark(&run->console, "[imgbuild: step %s ended: exit status %d, signal %d]", r->step,
			r->exit_status, r->signal);
	} else if (r->type == RECORD_OUTPUT) {
		return console_output(&run->console, r->text, r->text_len, e);
	} else if (r->type == RECORD_NOTE) {
		console_mark(&run->console, "[imgbuild: %s]", r->text);
	} else if (r->type == RECORD_PASSED || r->type == RECORD_FAILED) {
		console_mark(&run->console, "[imgbuild: verdict: %s]", r->type == RECORD_PASSED ? "passed" : "failed");
		watch_enter(&run->watch, WATCH_ENDING, now_ms);
	}
	return 0;
}

static int channel_fd(const struct run *run, enum vm_channel kind)
{
	return kind == VM_CHANNEL_PORT ? run->port.fd : kind == VM_CHANNEL_SERIAL ? run->serial.fd : run->console_fd;
}

/* Send to the guest. The few bytes that go this way fit into any socket's buffer. */
static int send_reply(struct run *run, enum vm_channel kind, const struct buf *reply, struct err *e)
{
	ssize_t n;

	if (reply->len == 0)
		return 0;
	n = send(channel_fd(run, kind), reply->data, reply->len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n >= 0 && (size_t)n == reply->len)
		return 0;
	if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
		return 0; /* QEMU is ending, which says more than this */
	return err_set(e, -EIO, "the guest does not read what it is sent");
}

/* Of these a guest may send any number; the others are few (dialogue.h). */
static bool may_be_left_out(enum record_type type)
{
	return type == RECORD_OUTPUT || type == RECORD_PROGRESS || type == RECORD_NOTE || type == RECORD_UNKNOWN;
}

/* A line came by one of the three ways. The first hello decides which of them is the channel. */
static int take_record_line(struct run *run, enum vm_channel kind, const char *line, size_t len, bool truncated,
	struct err *e)
{
	_cleanup_record_ struct record record = { 0 };
	_cleanup_buf_ struct buf reply = BUF_INIT(512);
	struct vm_result *result = run->result;
	uint64_t now_ms = monotonic_ms();
	int r;

	if (dialogue_has_verdict(&run->dialogue))
		return 0;
	if (result->channel != VM_CHANNEL_NONE && result->channel != kind)
		return 0;
	/* Who probes a serial port leaves bytes on it, and a console carries anyone's text: there hello decides. */
	if (result->channel == VM_CHANNEL_NONE && kind != VM_CHANNEL_PORT && line[0] != '{')
		return 0;
	if (truncated)
		return err_set(e, -EBADMSG, "the guest sent a record of more than %d bytes", RECORD_MAX_BYTES);
	r = record_parse(line, len, &record, e);
	if (r < 0)
		return r;
	r = dialogue_take(&run->dialogue, &record, now_ms, &reply, e);
	if (r < 0)
		return r;
	result->channel = kind;
	run->sample.records = run->dialogue.n_records;
	r = follow_record(run, &record, now_ms, e);
	if (r == 0)
		r = send_reply(run, kind, &reply, e);
	if (r < 0)
		return r;
	run->record_bytes += len;
	if (run->record_bytes > VM_RECORDS_MAX_BYTES && may_be_left_out(record.type)) {
		result->records_cut = true;
		return 0;
	}
	report(run, &record);
	if (run->hooks->on_record)
		run->hooks->on_record(run->hooks->ctx, &record, now_ms - run->start_ms);
	return 0;
}

static int take_stream_line(void *ctx, const char *line, size_t len, bool truncated, struct err *e)
{
	struct stream *s = ctx;

	return take_record_line(s->run, s->kind, line, len, truncated, e);
}

static int take_console_frame(void *ctx, const char *line, size_t len, bool truncated, struct err *e)
{
	return take_record_line(ctx, VM_CHANNEL_CONSOLE, line, len, truncated, e);
}

/* Read once from a socket or pipe. Returns the number of bytes; 0: nothing now; -1: ended, and the descriptor was closed. */
static ssize_t read_some(int *fd, char *chunk, size_t size)
{
	ssize_t n = read(*fd, chunk, size);

	if (n > 0)
		return n;
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	close_fdp(fd);
	return -1;
}

static int read_stream(struct stream *s, struct err *e)
{
	char chunk[CHUNK_BYTES];
	ssize_t n = read_some(&s->fd, chunk, sizeof(chunk));

	return n > 0 ? line_reader_feed(&s->lines, chunk, (size_t)n, take_stream_line, s, e) : 0;
}

static int read_console(struct run *run, struct err *e)
{
	char chunk[CHUNK_BYTES];
	ssize_t n = read_some(&run->console_fd, chunk, sizeof(chunk));
	int r;

	if (n <= 0)
		return 0;
	r = console_feed(&run->console, chunk, (size_t)n, take_console_frame, run, e);
	run->sample.console_bytes = run->console.seen_bytes;
	return r;
}

/* QEMU's own words: the beginning of them is what explains. */
static void read_stderr(struct run *run)
{
	char chunk[4096];
	ssize_t n = read_some(&run->stderr_fd, chunk, sizeof(chunk));
	size_t room = run->stderr_text.max_bytes - run->stderr_text.len;

	if (n > 0 && room > 0)
		(void)!buf_append(&run->stderr_text, chunk, (size_t)n < room ? (size_t)n : room);
}

/* Take a sample, judge it, and ask the monitor for what the next one needs. */
static void watch_machine(struct run *run, uint64_t now_ms)
{
	run->sample.now_ms = now_ms;
	run->sample.cpu_ms = process_cpu_ms(run->pid);
	run->finding = watch_take(&run->watch, &run->sample);
	run->sample.has_cpu_state = false;
	if (run->stats_id == 0)
		(void)!qmp_send(&run->qmp, "query-blockstats", NULL, &run->stats_id);
	/* Only where it decides something: a CPU that stays where it is. */
	if (run->watch.phase == WATCH_NO_BYTE && run->registers_id == 0)
		(void)!qmp_send(&run->qmp, "human-monitor-command", json_pack("{s:s}", "command-line", "info registers"),
			&run->registers_id);
	run->next_sample_ms = now_ms + (run->watch.phase == WATCH_NO_BYTE ? SAMPLE_EARLY_MS : SAMPLE_MS);
}

enum { POLL_CONSOLE, POLL_PORT, POLL_SERIAL, POLL_MONITOR, POLL_STDERR, POLL_PROCESS, POLL_CANCEL, N_POLL };

/* Handle what is readable. Returns 0, or a negative errno when the guest or the monitor sent nonsense. */
static int handle_readable(struct run *run, const struct pollfd *p, struct err *e)
{
	int r = 0;

	if (p[POLL_STDERR].revents)
		read_stderr(run);
	if (p[POLL_MONITOR].revents) {
		r = qmp_receive(&run->qmp, take_monitor_message, run, e);
		run->monitor_failed = r < 0;
		(void)qmp_flush(&run->qmp);
		if (run->qmp.closed)
			close_fdp(&run->monitor_fd);
	}
	if (r == 0 && p[POLL_CONSOLE].revents)
		r = read_console(run, e);
	if (r == 0 && p[POLL_PORT].revents)
		r = read_stream(&run->port, e);
	if (r == 0 && p[POLL_SERIAL].revents)
		r = read_stream(&run->serial, e);
	return r;
}

static void fill_poll(const struct run *run, struct pollfd p[static N_POLL])
{
	p[POLL_CONSOLE] = (struct pollfd){ .fd = run->console_fd, .events = POLLIN };
	p[POLL_PORT] = (struct pollfd){ .fd = run->port.fd, .events = POLLIN };
	p[POLL_SERIAL] = (struct pollfd){ .fd = run->serial.fd, .events = POLLIN };
	p[POLL_MONITOR] = (struct pollfd){ .fd = run->monitor_fd,
		.events = (short)(qmp_wants_write(&run->qmp) ? POLLIN | POLLOUT : POLLIN) };
	p[POLL_STDERR] = (struct pollfd){ .fd = run->stderr_fd, .events = POLLIN };
	p[POLL_PROCESS] = (struct pollfd){ .fd = run->process.pidfd, .events = POLLIN };
	p[POLL_CANCEL] = (struct pollfd){ .fd = run->cancel_fd, .events = POLLIN };
}

/* Turn the loop until QEMU has ended, the machine is found dead, the guest sends nonsense, or someone cancels. */
static int loop(struct run *run, struct err *e)
{
	for (;;) {
		struct pollfd p[N_POLL];
		uint64_t now_ms = monotonic_ms();
		int r;

		if (now_ms >= run->next_sample_ms) {
			watch_machine(run, now_ms);
			if (run->finding != WATCH_ALIVE)
				return 0;
		}
		if (run->host_io_error || run->internal_error)
			return 0;
		fill_poll(run, p);
		if (poll(p, N_POLL, (int)(run->next_sample_ms - now_ms)) < 0) {
			if (errno == EINTR)
				continue;
			return err_set_errno(e, -errno, "cannot wait for QEMU");
		}
		if (p[POLL_CANCEL].revents & POLLIN) {
			run->cancelled = true;
			return 0;
		}
		if (p[POLL_CANCEL].revents)
			run->cancel_fd = -1; /* nobody can cancel any more, which is no cancelling */
		r = handle_readable(run, p, &run->protocol_error);
		if (r < 0)
			return 0;
		/* Read to the end before the end is looked at: the verdict may be in the last bytes. */
		if ((p[POLL_PROCESS].revents & POLLIN) && !p[POLL_CONSOLE].revents && !p[POLL_PORT].revents &&
			!p[POLL_SERIAL].revents && !p[POLL_MONITOR].revents && !p[POLL_STDERR].revents) {
			run->ended = true;
			return 0;
		}
	}
}

/* End QEMU, if it has not: by the monitor when its guest has done its part, else at once. */
static int end_qemu(struct run *run, struct err *e)
{
	struct err ignored = ERR_INIT;

	if (run->ended)
		return process_wait(&run->process, -1, &run->status, e);
	if (dialogue_has_verdict(&run->dialogue) && qmp_send(&run->qmp, "quit", NULL, NULL) == 0)
		(void)!process_wait(&run->process, QUIT_MS, &run->status, &ignored);
	process_release(&run->process);
	return 0;
}

static enum vm_outcome judge(const struct run *run)
{
	if (run->dialogue.state == DIALOGUE_PASSED && !run->host_io_error)
		return VM_PASSED;
	if (run->dialogue.state == DIALOGUE_FAILED && !run->host_io_error)
		return VM_STEP_FAILED;
	if (run->cancelled)
		return VM_CANCELLED;
	if (run->host_io_error || run->internal_error)
		return VM_QEMU_FAILED;
	if (run->protocol_error.code != 0)
		return VM_PROTOCOL_ERROR;
	if (run->console.panicked || run->shutdown == SHUTDOWN_PANIC)
		return VM_PANIC;
	switch (run->finding) {
	case WATCH_DEAD_NO_BYTE:
	case WATCH_DEAD_STUCK:
		return VM_NO_START;
	case WATCH_DEAD_NO_HELLO:
		return VM_NO_GREETING;
	case WATCH_DEAD_IDLE:
	case WATCH_DEAD_BUSY:
		return run->result->channel == VM_CHANNEL_NONE ? VM_NO_GREETING : VM_STALLED;
	case WATCH_DEAD_NOT_ENDING:
	case WATCH_ALIVE:
		break;
	}
	if (run->shutdown == SHUTDOWN_POWEROFF)
		return VM_POWEROFF_WITHOUT_VERDICT;
	if (run->shutdown == SHUTDOWN_RESET)
		return VM_RESET;
	return VM_QEMU_FAILED;
}

/* One line of QEMU's stderr, for a message: the first that is no mere warning, if there is one. */
static void telling_stderr_line(const struct run *run, char *line, size_t size)
{
	const char *text = buf_str(&run->stderr_text);

	line[0] = '\0';
	while (*text) {
		size_t len = strcspn(text, "\n");
		bool warning = memmem(text, len, "warning:", strlen("warning:")) != NULL;

		if (!warning || !line[0])
			err_sanitize(line, size, text, len);
		if (!warning)
			return;
		text += len + (text[len] == '\n');
	}
}

static int describe_qemu_failure(const struct run *run, struct err *e)
{
	const char *program = run->config->qemu ? run->config->qemu : qemu_program(run->config->arch);
	char line[400];

	telling_stderr_line(run, line, sizeof(line));
	if (run->host_full)
		return err_set_kind(e, ERR_KIND_HOST, -ENOSPC,
			"the host's disk filled up while the virtual machine wrote to its image; make room in the cache's "
			"filesystem and run again");
	if (run->host_io_error)
		return err_set_kind(e, ERR_KIND_HOST, -EIO,
			"the host could not read or write the virtual machine's disk; see the host's kernel log");
	if (run->internal_error)
		return err_set_kind(e, ERR_KIND_HOST, -EIO, "%s stopped the virtual machine (%s); try --accel %s",
			accel_name(run->attempt.kvm), line[0] ? line : "QEMU says no reason", run->attempt.kvm ? "tcg" : "kvm");
	if (WIFSIGNALED(run->status))
		return err_set_kind(e, ERR_KIND_HOST, -EIO, "`%s` was ended by signal %d (%s)%s%s", program,
			WTERMSIG(run->status), strsignal(WTERMSIG(run->status)), line[0] ? ": " : "", line);
	return err_set_kind(e, ERR_KIND_HOST, -EIO, "`%s` ended by itself with status %d: %s", program,
		WEXITSTATUS(run->status), line[0] ? line : "it said nothing");
}

static int describe_step_failure(const struct run *run, struct err *e)
{
	const struct vm_result *r = run->result;
	const char *last = tail_last(&run->console.output);
	const char *step = r->step[0] ? r->step : "(before the first)";
	char text[sizeof(r->text) + TAIL_LINE_MAX_BYTES + 32];

	(void)snprintf(text, sizeof(text), "%s%s%s", r->text, last[0] ? "; its last line: " : "", last);
	switch (r->reason) {
	case REASON_EXIT:
	case REASON_NONE:
		return err_set_kind(e, ERR_KIND_GUEST, -EREMOTEIO, "step `%s` failed in the guest (exit status %d): %s", step,
			r->exit_status, text);
	case REASON_SIGNAL:
		return err_set_kind(e, ERR_KIND_GUEST, -EREMOTEIO, "step `%s` was killed in the guest by signal %d (%s): %s",
			step, r->signal, strsignal(r->signal), text);
	case REASON_OOM:
		return err_set_kind(e, ERR_KIND_GUEST, -EREMOTEIO,
			"step `%s` ran out of memory in the guest, which has %u MiB; raise `memory` in [provision]: %s", step,
			run->config->memory_mib, text);
	case REASON_ENOSPC:
		return err_set_kind(e, ERR_KIND_GUEST, -EREMOTEIO,
			"step `%s` filled the image's filesystem; raise `size` in [image]: %s", step, text);
	case REASON_MOUNT:
	case REASON_MODULE:
	case REASON_UNMOUNT:
	case REASON_INTERNAL:
		break;
	}
	return err_set_kind(e, ERR_KIND_HOST, -EREMOTEIO, "the guest could not do its work (%s, in step `%s`): %s",
		record_reason_name(r->reason), step, text);
}

static int describe_silence(const struct run *run, struct err *e)
{
	const struct watch_limits *l = &run->watch.limits;
	const char *last = tail_last(&run->console.all);
	const char *step = run->result->step[0] ? run->result->step : "none";

	switch (run->finding) {
	case WATCH_DEAD_STUCK:
		return err_set_kind(e, ERR_KIND_HOST, -ETIMEDOUT,
			"the guest does not run under %s: its CPU does not move and nothing came on its console (is the "
			"kernel one for %s?)",
			accel_name(run->attempt.kvm), arch_machine(run->config->arch));
	case WATCH_DEAD_NO_BYTE:
		return err_set_kind(e, ERR_KIND_HOST, -ETIMEDOUT,
			"the guest does not run under %s: not one byte came on its console in %llu s (is the kernel one for %s "
			"with a serial console?)",
			accel_name(run->attempt.kvm), (unsigned long long)l->first_byte_ms / 1000, arch_machine(run->config->arch));
	case WATCH_DEAD_NO_HELLO:
		return err_set_kind(e, ERR_KIND_HOST, -ETIMEDOUT,
			"the guest's kernel started, but its init said nothing in %llu s under %s; last line: %s",
			(unsigned long long)l->hello_ms / 1000, accel_name(run->attempt.kvm), last);
	case WATCH_DEAD_BUSY:
		return err_set_kind(e, ERR_KIND_HOST, -ETIMEDOUT,
			"the guest was busy under %s for %llu s without a word, a byte on its console or a disk access (step: "
			"%s); if that is right, raise `stall_timeout` in [provision]; last line: %s",
			accel_name(run->attempt.kvm), (unsigned long long)l->busy_ms / 1000, step, last);
	default:
		return err_set_kind(e, ERR_KIND_HOST, -ETIMEDOUT,
			"the guest stalled: nothing happened in it for %llu s under %s (step: %s); if it only waits for something, "
			"raise `stall_timeout` in [provision]; last line: %s",
			(unsigned long long)l->stall_ms / 1000, accel_name(run->attempt.kvm), step, last);
	}
}

/* A kernel that has nothing left to kill panics for memory. SOURCE: Linux mm/oom_kill.c. */
static int describe_panic(const struct run *run, const char *step, struct err *e)
{
	const char *words = run->console.panic[0] ? run->console.panic : tail_last(&run->console.all);

	if (strstr(words, "deadlocked on memory") || strstr(words, "ut of memory"))
		return err_set_kind(e, ERR_KIND_HOST, -EIO,
			"the guest's kernel ran out of its %u MiB of memory (step: %s); raise `memory` in [provision]: %s",
			run->config->memory_mib, step, words);
	return err_set_kind(e, ERR_KIND_HOST, -EIO, "the guest's kernel panicked (step: %s): %s", step, words);
}

/* Put the outcome into words. Returns 0 for VM_PASSED only. */
static int describe(struct run *run, struct err *e)
{
	const char *last = tail_last(&run->console.all);
	const char *step = run->result->step[0] ? run->result->step : "none";

	switch (run->result->outcome) {
	case VM_PASSED:
		return 0;
	case VM_STEP_FAILED:
		return describe_step_failure(run, e);
	case VM_QEMU_FAILED:
		return describe_qemu_failure(run, e);
	case VM_CANCELLED:
		return err_set(e, -ECANCELED, "the virtual machine was ended: interrupted");
	case VM_PANIC:
		return describe_panic(run, step, e);
	case VM_POWEROFF_WITHOUT_VERDICT:
		return err_set_kind(e, ERR_KIND_HOST, -EIO,
			"the guest powered off without saying that it had finished (step: %s); last line: %s", step, last);
	case VM_RESET:
		return err_set_kind(e, ERR_KIND_HOST, -EIO,
			"the guest reset the machine without saying that it had finished (step: %s); last line: %s", step,
			last[0] ? last : "none: its kernel did not get as far as its console");
	case VM_PROTOCOL_ERROR:
		*e = run->protocol_error;
		(void)err_default_kind(e, ERR_KIND_HOST);
		return err_wrap(e, "what %s says cannot be believed (step: %s)",
			run->monitor_failed ? "QEMU's monitor" : "the guest", step);
	case VM_STALLED:
	case VM_NO_START:
	case VM_NO_GREETING:
		break;
	}
	return describe_silence(run, e);
}

/* One try, from start to end. Returns 0 when there is an outcome, which is then in run->result. */
static int run_once(struct run *run, struct err *e)
{
	struct watch_limits limits;
	int r = dialogue_init(&run->dialogue, run->result, e);

	if (r < 0)
		return r;
	limits = watch_limits_for(run->attempt.kvm, run->attempt.may_fall_back,
		run->config->stall_timeout_ms ? run->config->stall_timeout_ms : VM_STALL_DEFAULT_MS);
	run->start_ms = monotonic_ms();
	run->next_sample_ms = run->start_ms + SAMPLE_EARLY_MS;
	watch_init(&run->watch, &limits, run->start_ms);
	run->result->kvm = run->attempt.kvm;
	r = start_qemu(run, e);
	if (r == 0)
		r = loop(run, e);
	if (r == 0)
		r = end_qemu(run, e);
	if (r < 0)
		return r;
	console_finish(&run->console);
	run->result->outcome = judge(run);
	run->result->total_ms = monotonic_ms() - run->start_ms;
	run->result->console_cut = run->console.cut;
	tail_copy(run->result->outcome == VM_PANIC && run->console.panicked ? &run->console.cause : &run->console.all,
		run->result->tail, sizeof(run->result->tail));
	tail_copy(&run->console.output, run->result->output_tail, sizeof(run->result->output_tail));
	return 0;
}

/* Whether another try can begin where this one did: init mounts the disk after its hello, and none was heard. */
static bool untouched(const struct run *run)
{
	return run->result->channel == VM_CHANNEL_NONE && run->disk_writes == 0 && !run->cancelled && !run->host_io_error;
}

static bool lacks_sandbox(const struct run *run)
{
	return run->attempt.sandbox && untouched(run) && strstr(buf_str(&run->stderr_text), "sandbox");
}

/* Keep QEMU's words as lines. */
static void keep_stderr(const struct run *run)
{
	const char *text = buf_str(&run->stderr_text);
	struct tail t = { 0 };

	while (*text && t.n < TAIL_LINES) {
		size_t len = strcspn(text, "\n");

		tail_add(&t, text, len);
		text += len + (text[len] == '\n');
	}
	tail_copy(&t, run->result->qemu_stderr, sizeof(run->result->qemu_stderr));
}

/* Whether it may be KVM's fault that the guest did not get as far as its hello. A panic and a power-off are the guest's
 * own doing. */
static bool kvm_may_be_why(const struct run *run)
{
	switch (run->result->outcome) {
	case VM_QEMU_FAILED:
	case VM_NO_START:
	case VM_NO_GREETING:
	case VM_RESET:
		return true;
	default:
		return false;
	}
}

/* Judge a try that has ended badly. Returns true when another one is to be made, which *next then says. */
static bool wants_another_try(const struct run *run, const struct err *why, struct attempt *next,
	struct err *kvm_failure)
{
	if (run->result->outcome == VM_QEMU_FAILED && lacks_sandbox(run)) {
		next->sandbox = false;
		return true;
	}
	if (run->attempt.kvm && run->attempt.may_fall_back && untouched(run) && kvm_may_be_why(run)) {
		*kvm_failure = *why;
		next->kvm = next->may_fall_back = false;
		next->kvm_failure = kvm_failure;
		progress_warning(run->hooks->progress, "KVM does not work here (%.600s): going on with TCG, which is slower",
			why->message);
		return true;
	}
	return false;
}

int vm_run(const struct vm_config *config, const struct vm_hooks *hooks, struct vm_result *ret, struct err *e)
{
	struct accel_options accel = { .choice = config->accel,
		.arch = config->arch,
		.memory_dirfd = hooks->memory_dirfd,
		.memory_path = hooks->memory_path,
		.try_kvm = config->try_kvm };
	struct attempt attempt = { .sandbox = true, .accel = &accel };
	struct err kvm_failure = ERR_INIT;
	struct accel_decision decision;
	bool again;
	int r;

	*ret = (struct vm_result){ 0 };
	r = accel_choose(&accel, &decision, e);
	if (r < 0)
		return r;
	if (decision.note[0])
		progress_note(hooks->progress, "%s", decision.note);
	attempt.kvm = decision.kvm;
	attempt.may_fall_back = decision.may_fall_back;
	do {
		_cleanup_run_ struct run run;

		*ret = (struct vm_result){ 0 };
		run_init(&run, config, hooks, ret, &attempt);
		progress_begin(hooks->progress, VM_PROGRESS_STAGE, "%s with %s, %u MiB, %u CPUs", arch_machine(config->arch),
			accel_name(attempt.kvm), config->memory_mib, config->cpus);
		r = run_once(&run, e);
		keep_stderr(&run);
		again = false;
		if (r == 0) {
			r = describe(&run, e);
			again = r < 0 && wants_another_try(&run, e, &attempt, &kvm_failure);
		}
		if (again)
			err_clear(e);
		progress_end(hooks->progress, VM_PROGRESS_STAGE, "%s", again ? "not started" : vm_outcome_name(ret->outcome));
	} while (again);
	if (r == 0 && ret->kvm)
		accel_forget(&accel);
	return r;
}
