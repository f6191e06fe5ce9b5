#include "initrd/init/channel.h"
#include "initrd/init/json.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>

#define VIRTIO_ID_CONSOLE "0x0003" /* SOURCE: virtio 1.1 section 5.3 */
#define WAIT_WITHOUT_DEVICE_MS 300

/* Whether the machine has a virtio console device at all: without one, waiting for its port is in vain. */
static bool have_virtio_console(void)
{
	DIR *d = opendir("/sys/bus/virtio/devices");
	bool found = false;

	for (struct dirent *de; d && !found && (de = readdir(d));) {
		char path[300], id[32];

		(void)snprintf(path, sizeof(path), "%s/device", de->d_name);
		if (read_text_at(dirfd(d), path, id, sizeof(id)) > 0)
			found = strncmp(id, VIRTIO_ID_CONSOLE, strlen(VIRTIO_ID_CONSOLE)) == 0;
	}
	if (d)
		(void)closedir(d);
	return found;
}

/* Look for the port by its name once. Returns an open descriptor or -1. */
static int open_virtio_port(char *ret_path, size_t size)
{
	DIR *d = opendir("/sys/class/virtio-ports");
	int fd = -1;

	for (struct dirent *de; d && fd < 0 && (de = readdir(d));) {
		char path[300], name[128];

		(void)snprintf(path, sizeof(path), "%s/name", de->d_name);
		if (read_text_at(dirfd(d), path, name, sizeof(name)) <= 0)
			continue;
		name[strcspn(name, "\n")] = '\0';
		if (strcmp(name, CHANNEL_PORT_NAME) != 0)
			continue;
		(void)snprintf(ret_path, size, "/dev/%.200s", de->d_name);
		fd = open(ret_path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	}
	if (d)
		(void)closedir(d);
	return fd;
}

/* A serial line as a plain byte pipe. Returns false when there is no hardware behind the name. */
static bool make_raw(int fd)
{
	struct termios t;

	if (tcgetattr(fd, &t) < 0)
		return false;
	cfmakeraw(&t);
	t.c_cflag |= CLOCAL | CREAD;
	(void)cfsetspeed(&t, B115200);
	return tcsetattr(fd, TCSANOW, &t) == 0;
}

int channel_open(struct channel *c)
{
	char path[300] = "";
	uint64_t start = now_ms();
	unsigned wait_ms = have_virtio_console() ? CHANNEL_WAIT_MS : WAIT_WITHOUT_DEVICE_MS;

	c->fd = open_virtio_port(path, sizeof(path));
	while (c->fd < 0 && now_ms() - start < wait_ms) {
		sleep_ms(10);
		c->fd = open_virtio_port(path, sizeof(path));
	}
	if (c->fd < 0) {
		(void)snprintf(path, sizeof(path), "/dev/ttyS1");
		c->fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		if (c->fd >= 0 && !make_raw(c->fd)) {
			(void)close(c->fd);
			c->fd = -1;
		}
	}
	if (c->fd < 0) {
		(void)snprintf(path, sizeof(path), "/dev/console");
		c->fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		c->framed = true;
		if (c->fd >= 0) {
			(void)make_raw(c->fd);
			(void)klogctl(8, NULL,
				1); /* SYSLOG_ACTION_CONSOLE_LEVEL: only emergencies between the records */
		}
	}
	if (c->fd < 0) {
		say("there is no channel: no virtio port `%s`, no /dev/ttyS1, no console", CHANNEL_PORT_NAME);
		return -1;
	}
	say("the channel is %s", path);
	return 0;
}

/* Send one record, its newline included here. A channel that fails is given up: the host sees the silence. */
static void send_record(struct channel *c, const struct text *record)
{
	char line[sizeof(CONSOLE_FRAME_PREFIX) + RECORD_MAX_BYTES];
	struct text t;
	int r;

	if (c->fd < 0)
		return;
	text_init(&t, line, sizeof(line));
	if (c->framed)
		text_addf(&t, "\n%s", CONSOLE_FRAME_PREFIX);
	text_add(&t, record->data, record->len);
	text_add(&t, "\n", 1);
	if (record->overflow || record->len + 1 > RECORD_MAX_BYTES || t.overflow) {
		say("a record was too long and was left out");
		return;
	}
	r = write_all(c->fd, t.data, t.len);
	if (r < 0) {
		say("cannot write to the channel: %s", strerror(-r));
		(void)close(c->fd);
		c->fd = -1;
	}
}

static void begin_record(struct text *t, char *buf, size_t size, const char *type)
{
	text_init(t, buf, size);
	text_addf(t, "{\"v\":%d,\"type\":\"%s\"", PROTOCOL_VERSION, type);
}

static void add_member(struct text *t, const char *key, const char *value, size_t len)
{
	text_addf(t, ",\"%s\":", key);
	json_add_string(t, value, len);
}

/* Read one line into line (RECORD_MAX_BYTES + 1 bytes), waiting until the deadline. Returns 0; -ETIMEDOUT,
 * -E2BIG, -errno. */
static int read_line(struct channel *c, char *line, uint64_t deadline_ms)
{
	for (;;) {
		char *end = memchr(c->in, '\n', c->in_len);
		struct pollfd pfd = { .fd = c->fd, .events = POLLIN };
		uint64_t now = now_ms();
		ssize_t n;

		if (end) {
			size_t len = (size_t)(end - c->in);

			memcpy(line, c->in, len);
			line[len] = '\0';
			c->in_len -= len + 1;
			memmove(c->in, end + 1, c->in_len);
			return 0;
		}
		if (c->in_len == RECORD_MAX_BYTES)
			return -E2BIG;
		if (c->fd < 0)
			return -EIO;
		if (now >= deadline_ms)
			return -ETIMEDOUT;
		if (poll(&pfd, 1, (int)(deadline_ms - now)) <= 0)
			continue;
		n = read(c->fd, c->in + c->in_len, RECORD_MAX_BYTES - c->in_len);
		if (n > 0)
			c->in_len += (size_t)n;
		else if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		else
			sleep_ms(20); /* a port whose other end is not connected reads as its end, over and
					 over */
	}
}

/* Wait for a record of a type. Others are ignored, as the protocol says. */
static int wait_record(struct channel *c, const char *type, char *line, unsigned wait_ms)
{
	uint64_t deadline = now_ms() + wait_ms;
	char value[64];

	for (;;) {
		int r = read_line(c, line, deadline);

		if (r < 0)
			return r;
		if (json_get(line, "type", value, sizeof(value)) == 0 && strcmp(value, type) == 0)
			return 0;
	}
}

static uint64_t memory_kib(void)
{
	char info[8192];
	const char *at;

	if (read_text_at(AT_FDCWD, "/proc/meminfo", info, sizeof(info)) < 0)
		return 0;
	at = strstr(info, "MemTotal:");
	return at ? strtoull(at + strlen("MemTotal:"), NULL, 10) : 0;
}

int channel_greet(struct channel *c)
{
	static char line[RECORD_MAX_BYTES + 1];
	char record[1024], version[16];
	struct utsname u;
	struct text t;
	int r;

	(void)uname(&u);
	begin_record(&t, record, sizeof(record), "hello");
	add_member(&t, "release", u.release, strlen(u.release));
	add_member(&t, "machine", u.machine, strlen(u.machine));
	text_addf(&t, ",\"mem_kib\":%llu}", (unsigned long long)memory_kib());
	send_record(c, &t);
	r = wait_record(c, "greeting", line, GREETING_WAIT_MS);
	if (r < 0) {
		say("no greeting came from the host: %s", strerror(-r));
		return -1;
	}
	if (json_get(line, "v", version, sizeof(version)) < 0 ||
		strtol(version, NULL, 10) != PROTOCOL_VERSION ||
		json_get(line, "nonce", c->nonce, sizeof(c->nonce)) < 0 ||
		strlen(c->nonce) != NONCE_HEX_LEN) {
		say("the host's greeting is not of version %d with a nonce of %d digits", PROTOCOL_VERSION,
			NONCE_HEX_LEN);
		explicit_bzero(c->nonce, sizeof(c->nonce));
		return -1;
	}
	explicit_bzero(line, sizeof(line));
	return 0;
}

void channel_step_begin(struct channel *c, const char *name, const char *title)
{
	char record[2048];
	struct text t;

	begin_record(&t, record, sizeof(record), "step");
	add_member(&t, "name", name, strnlen(name, 64));
	add_member(&t, "title", title, strnlen(title, 200));
	text_addf(&t, ",\"state\":\"begin\"}");
	send_record(c, &t);
}

void channel_output(struct channel *c, const char *step, const char *bytes, size_t len)
{
	char record[RECORD_MAX_BYTES];
	struct text t;

	begin_record(&t, record, sizeof(record), "output");
	add_member(&t, "step", step, strnlen(step, 64));
	add_member(&t, "data", bytes, len);
	text_addf(&t, "}");
	send_record(c, &t);
}

void channel_progress(struct channel *c, const char *step, unsigned done, unsigned total, const char *what)
{
	char record[2048];
	struct text t;

	begin_record(&t, record, sizeof(record), "progress");
	add_member(&t, "step", step, strnlen(step, 64));
	text_addf(&t, ",\"done\":%u,\"total\":%u", done, total);
	add_member(&t, "what", what, strnlen(what, 200));
	text_addf(&t, "}");
	send_record(c, &t);
}

void channel_step_end(struct channel *c, const char *name, int exit, int signal, uint64_t duration_ms)
{
	char record[1024];
	struct text t;

	begin_record(&t, record, sizeof(record), "step");
	add_member(&t, "name", name, strnlen(name, 64));
	text_addf(&t, ",\"state\":\"end\",\"exit\":%d,\"signal\":%d,\"ms\":%llu}", exit, signal,
		(unsigned long long)duration_ms);
	send_record(c, &t);
}

void channel_note(struct channel *c, const char *note)
{
	char record[RECORD_MAX_BYTES];
	struct text t;

	begin_record(&t, record, sizeof(record), "note");
	add_member(&t, "text", note, strnlen(note, VERDICT_TEXT_MAX_BYTES));
	text_addf(&t, "}");
	send_record(c, &t);
}

void channel_verdict(struct channel *c, const char *step, const struct fail *f)
{
	char record[RECORD_MAX_BYTES];
	struct text t;

	begin_record(&t, record, sizeof(record), "verdict");
	add_member(&t, "nonce", c->nonce, strlen(c->nonce));
	if (f->reason[0]) {
		text_addf(&t, ",\"result\":\"failed\"");
		add_member(&t, "step", step, strnlen(step, 64));
		add_member(&t, "reason", f->reason, strlen(f->reason));
		text_addf(&t, ",\"exit\":%d,\"signal\":%d", f->exit, f->signal);
		add_member(&t, "text", f->text, strlen(f->text));
	} else {
		text_addf(&t, ",\"result\":\"passed\"");
	}
	text_addf(&t, "}");
	send_record(c, &t);
	say("verdict: %s%s%s", f->reason[0] ? f->reason : "passed", f->reason[0] ? ": " : "", f->text);
}

bool channel_wait_ack(struct channel *c)
{
	static char line[RECORD_MAX_BYTES + 1];

	return wait_record(c, "ack", line, ACK_WAIT_MS) == 0;
}

void channel_forget(struct channel *c)
{
	if (c->fd >= 0)
		(void)close(c->fd);
	c->fd = -1;
	explicit_bzero(c->nonce, sizeof(c->nonce));
	explicit_bzero(c->in, sizeof(c->in));
}
