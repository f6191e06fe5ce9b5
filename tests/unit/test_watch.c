/* builder/vm/watch, dialogue, console, tail, qmp: the parts of a run that need no machine. */
#include "builder/vm/console.h"
#include "builder/vm/dialogue.h"
#include "builder/vm/qmp.h"
#include "builder/vm/watch.h"

#include "lib/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cmocka.h>

static const struct watch_limits limits = {
	.first_byte_ms = 10000, .stuck_ms = 4000, .hello_ms = 30000, .stall_ms = 5000, .busy_ms = 20000, .end_ms = 4000
};

/* Samples a second apart until something is found, at most 100. */
struct machine {
	struct watch watch;
	struct watch_sample sample;
	unsigned cpu_percent;
};

static struct machine machine(void)
{
	struct machine m = { .sample = { .now_ms = 1000 } };

	watch_init(&m.watch, &limits, 1000);
	return m;
}

static enum watch_finding second(struct machine *m)
{
	m->sample.now_ms += 1000;
	m->sample.cpu_ms += m->cpu_percent * 10;
	return watch_take(&m->watch, &m->sample);
}

static unsigned seconds_until(struct machine *m, enum watch_finding *ret)
{
	for (unsigned i = 1; i <= 100; i++) {
		*ret = second(m);
		if (*ret != WATCH_ALIVE)
			return i;
	}
	return 0;
}

static void test_silence_before_the_first_byte(void **state)
{
	struct machine m = machine();
	enum watch_finding f;

	(void)state;
	m.cpu_percent = 100;
	assert_int_equal(seconds_until(&m, &f), 10);
	assert_int_equal(f, WATCH_DEAD_NO_BYTE);

	/* A CPU that stays where it is is known sooner, one that moves is not. */
	m = machine();
	m.sample.has_cpu_state = true;
	m.sample.cpu_state = 0xfff0;
	assert_int_equal(seconds_until(&m, &f), 8);
	assert_int_equal(f, WATCH_DEAD_STUCK);
	m = machine();
	m.sample.has_cpu_state = true;
	for (int i = 0; i < 9; i++) {
		m.sample.cpu_state = (uint64_t)i / 4;
		assert_int_equal(second(&m), WATCH_ALIVE);
	}
}

static void test_boot_has_a_deadline(void **state)
{
	struct machine m = machine();
	unsigned n = 0;

	(void)state;
	do
		m.sample.console_bytes++;
	while (second(&m) == WATCH_ALIVE && ++n < 100);
	assert_int_equal(n, 29);
	assert_int_equal(m.watch.phase, WATCH_BOOTING);
}

/* imgbuild was stopped (^Z), and the machine with it or not: when it goes on, nothing has been read yet. */
static void test_time_that_nobody_saw_does_not_count(void **state)
{
	enum watch_finding f;

	(void)state;
	for (int phase = WATCH_NO_BYTE; phase <= WATCH_ENDING; phase++) {
		struct machine m = machine();

		if (phase > WATCH_NO_BYTE)
			m.sample.console_bytes = 1;
		assert_int_equal(second(&m), WATCH_ALIVE);
		watch_enter(&m.watch, (enum watch_phase)phase, m.sample.now_ms);
		m.watch.limits = (struct watch_limits){ 10000, 4000, 30000, 8000, 20000, 8000 };
		m.sample.now_ms += 3600 * 1000;
		assert_int_equal(second(&m), WATCH_ALIVE);
		assert_int_not_equal(seconds_until(&m, &f), 0);
	}
}

static void test_idle_busy_and_signs(void **state)
{
	struct machine m = machine();
	enum watch_finding f;

	(void)state;
	watch_enter(&m.watch, WATCH_RUNNING, 1000);
	assert_int_equal(seconds_until(&m, &f), 5);
	assert_int_equal(f, WATCH_DEAD_IDLE);

	m = machine();
	watch_enter(&m.watch, WATCH_RUNNING, 1000);
	m.cpu_percent = WATCH_BUSY_PERCENT;
	assert_int_equal(seconds_until(&m, &f), 20);
	assert_int_equal(f, WATCH_DEAD_BUSY);

	m = machine();
	watch_enter(&m.watch, WATCH_RUNNING, 1000);
	m.cpu_percent = WATCH_BUSY_PERCENT - 1;
	assert_int_equal(seconds_until(&m, &f), 5);

	for (int which = 0; which < 3; which++) {
		m = machine();
		watch_enter(&m.watch, WATCH_RUNNING, 1000);
		for (int i = 0; i < 90; i++) {
			if (i % 4 == 0) {
				m.sample.console_bytes += which == 0;
				m.sample.records += which == 1;
				m.sample.disk_operations += which == 2;
			}
			assert_int_equal(second(&m), WATCH_ALIVE);
		}
	}
}

static void test_end_has_a_deadline(void **state)
{
	struct machine m = machine();
	unsigned n = 0;

	(void)state;
	watch_enter(&m.watch, WATCH_ENDING, 1000);
	watch_enter(&m.watch, WATCH_RUNNING, 1000); /* no way back */
	do
		m.sample.console_bytes++;
	while (second(&m) == WATCH_ALIVE && ++n < 100);
	assert_int_equal(n, 3);
}

static void test_limits_know_the_accelerator(void **state)
{
	struct watch_limits kvm = watch_limits_for(true, false, 1000), tcg = watch_limits_for(false, false, 1000),
			    attempt = watch_limits_for(true, true, 1000);

	(void)state;
	assert_int_equal(kvm.stall_ms, 1000);
	assert_int_equal(tcg.stall_ms, 3000);
	assert_int_equal(kvm.busy_ms, 10000);
	assert_true(attempt.hello_ms < kvm.hello_ms && attempt.first_byte_ms < kvm.first_byte_ms);
	assert_true(attempt.first_byte_ms >= 25000); /* nested KVM */
}

/* Feed records to a dialogue; NONCE stands for this run's. Returns what the last one did. */
static int talk(struct dialogue *d, struct buf *reply, struct err *e, ...)
{
	const char *text;
	int r = 0;
	va_list ap;

	va_start(ap, e);
	while (r == 0 && (text = va_arg(ap, const char *))) {
		char line[1024];
		const char *at = strstr(text, "NONCE");
		struct record record = { 0 };

		if (at)
			(void)snprintf(line, sizeof(line), "{\"v\":1,%.*s%s%s}", (int)(at - text), text, d->nonce, at + 5);
		else
			(void)snprintf(line, sizeof(line), "{\"v\":1,%s}", text);
		if (record_parse(line, strlen(line), &record, e) < 0)
			fail_msg("%s", e->message);
		r = dialogue_take(d, &record, 1000, reply, e);
		record_release(&record);
	}
	va_end(ap);
	return r;
}

#define HELLO "\"type\":\"hello\",\"release\":\"r\""
#define BEGIN(s) "\"type\":\"step\",\"name\":\"" s "\",\"state\":\"begin\""
#define END(s, n) "\"type\":\"step\",\"name\":\"" s "\",\"state\":\"end\",\"exit\":" #n
#define PASSED "\"type\":\"verdict\",\"nonce\":\"NONCE\",\"result\":\"passed\""
#define FAILED                                                                                               \
	"\"type\":\"verdict\",\"nonce\":\"NONCE\",\"result\":\"failed\",\"step\":\"b\",\"reason\":\"signal\",\"exit\":0," \
	"\"signal\":9,\"text\":\"t\""

static void converse(int expected, const char *words, const char *a, const char *b, const char *c, const char *d4,
	const char *f, enum dialogue_state end)
{
	_cleanup_buf_ struct buf reply = BUF_INIT(4096);
	struct vm_result *result = calloc(1, sizeof(*result));
	struct err e = ERR_INIT;
	struct dialogue d;

	assert_int_equal(dialogue_init(&d, result, &e), 0);
	assert_int_equal(talk(&d, &reply, &e, a, b, c, d4, f, NULL), expected);
	assert_non_null(strstr(e.message, words));
	assert_int_equal(d.state, end);
	assert_true((strstr(buf_str(&reply), "\"ack\"") != NULL) == dialogue_has_verdict(&d));
	assert_true((strstr(buf_str(&reply), d.nonce) != NULL) == (end != DIALOGUE_BEFORE_HELLO));
	free(result);
}

static void test_dialogue(void **state)
{
	(void)state;
	converse(0, "", HELLO, BEGIN("a"), END("a", 0), PASSED, NULL, DIALOGUE_PASSED);
	converse(0, "", HELLO, PASSED, HELLO, "\"type\":\"new\"", NULL, DIALOGUE_PASSED);
	converse(0, "", HELLO, BEGIN("b"), END("b", 1), FAILED, NULL, DIALOGUE_FAILED);
	converse(0, "", HELLO, BEGIN("b"), FAILED, NULL, NULL, DIALOGUE_FAILED);
	converse(-EBADMSG, "no hello", PASSED, NULL, NULL, NULL, NULL, DIALOGUE_BEFORE_HELLO);
	converse(-EBADMSG, "twice", HELLO, HELLO, NULL, NULL, NULL, DIALOGUE_GREETED);
	converse(-EBADMSG, "had failed", HELLO, BEGIN("a"), END("a", 1), PASSED, NULL, DIALOGUE_GREETED);
	converse(-EBADMSG, "had not ended", HELLO, BEGIN("a"), PASSED, NULL, NULL, DIALOGUE_GREETED);
	converse(-EBADMSG, "had not ended", HELLO, BEGIN("a"), BEGIN("b"), NULL, NULL, DIALOGUE_GREETED);
	converse(-EBADMSG, "had not begun", HELLO, BEGIN("a"), END("b", 0), NULL, NULL, DIALOGUE_GREETED);
	converse(-EBADMSG, "nonce", HELLO, "\"type\":\"verdict\",\"nonce\":\"\",\"result\":\"passed\"", NULL, NULL, NULL,
		DIALOGUE_GREETED);
}

static void test_dialogue_keeps_what_failed(void **state)
{
	_cleanup_buf_ struct buf reply = BUF_INIT(4096);
	struct vm_result *result = calloc(1, sizeof(*result));
	struct err e = ERR_INIT;
	struct dialogue a, b;

	(void)state;
	assert_int_equal(dialogue_init(&a, result, &e), 0);
	assert_int_equal(dialogue_init(&b, result, &e), 0);
	assert_string_not_equal(a.nonce, b.nonce);
	assert_int_equal(talk(&a, &reply, &e, HELLO, NULL), 0);
	for (int i = 0; i < VM_STEPS_MAX + 5; i++)
		assert_int_equal(talk(&a, &reply, &e, BEGIN("a"), END("a", 0), NULL), 0);
	assert_int_equal(result->n_steps, VM_STEPS_MAX);
	assert_string_equal(result->step, "");
	for (int i = VM_STEPS_MAX + 5; i < VM_STEPS_LIMIT; i++)
		assert_int_equal(talk(&a, &reply, &e, BEGIN("a"), END("a", 0), NULL), 0);
	assert_int_equal(talk(&a, &reply, &e, BEGIN("a"), NULL), -EBADMSG);
	assert_int_equal(talk(&a, &reply, &e, FAILED, NULL), 0);
	assert_string_equal(result->step, "b");
	assert_int_equal(result->reason, REASON_SIGNAL);
	assert_int_equal(result->signal, 9);
	assert_string_equal(result->text, "t");
	free(result);
}

static void test_tail(void **state)
{
	struct tail t = { 0 };
	char text[4096], line[32], small[20];

	(void)state;
	assert_string_equal(tail_last(&t), "");
	tail_copy(&t, text, sizeof(text));
	assert_string_equal(text, "");
	for (int i = 0; i < 100; i++) {
		int n = snprintf(line, sizeof(line), "line %d\033", i);

		tail_add(&t, line, (size_t)n);
	}
	tail_add(&t, "  ", 2);
	assert_string_equal(tail_last(&t), "line 99?");
	tail_copy(&t, text, sizeof(text));
	assert_int_equal(strncmp(text, "line 77?\n", 9), 0);
	tail_copy(&t, small, sizeof(small));
	assert_string_equal(small, "line 99?\n  \n");
}

static int no_frame(void *ctx, const char *line, size_t len, bool truncated, struct err *e)
{
	unsigned *n = ctx;

	(void)line;
	(void)len;
	(void)truncated;
	(void)e;
	(*n)++;
	return 0;
}

static void feed_lines(struct console *c, const char *first, unsigned n)
{
	struct err e = ERR_INIT;
	unsigned frames = 0;

	assert_int_equal(console_feed(c, first, strlen(first), no_frame, &frames, &e), 0);
	for (unsigned i = 0; i < n; i++) {
		char line[32];

		(void)snprintf(line, sizeof(line), "[ 2.0] R%u: 0\n", i);
		assert_int_equal(console_feed(c, line, strlen(line), no_frame, &frames, &e), 0);
	}
}

/* The lines that say why a kernel panicked are kept, however long its register dump is. */
static void test_cause_of_panic(void)
{
	char text[VM_TAIL_MAX_BYTES];
	struct console c;

	console_init(&c, -1, 1000);
	feed_lines(&c, "[ 1.0] BUG: workqueue lockup\n", 200);
	feed_lines(&c, "[ 1.9] the module x was loaded\n[ 2.0] BUG: kernel NULL pointer dereference, address: 0\n", 60);
	feed_lines(&c, "[ 2.1] Oops: 0002 [#1]\n[ 2.1] Kernel panic - not syncing: Fatal exception\n", 60);
	assert_true(c.panicked);
	assert_string_equal(c.panic,
		"Kernel panic - not syncing: Fatal exception (BUG: kernel NULL pointer dereference, address: 0)");
	tail_copy(&c.cause, text, sizeof(text));
	assert_non_null(strstr(text, "the module x"));
	assert_non_null(strstr(text, "NULL pointer dereference, address: 0\n[ 2.0] R0: 0\n"));
	assert_non_null(strstr(text, "not syncing"));
	assert_null(strstr(text, "lockup"));
	console_release(&c);

	console_init(&c, -1, 1000);
	feed_lines(&c, "[ 1.0] BUG: workqueue lockup\n", 200);
	feed_lines(&c, "init: cannot mount\n[ 2.0] Kernel panic - not syncing: Attempted to kill init!\n", 60);
	assert_string_equal(c.panic, "Kernel panic - not syncing: Attempted to kill init!");
	tail_copy(&c.cause, text, sizeof(text));
	assert_non_null(strstr(text, "init: cannot mount\n[ 2.0] Kernel panic"));
	console_release(&c);
}

static void test_console(void **state)
{
	static const char text[] = "hello\r\n@imgbuild@ {\"nonce\":1}\n[ 1.0] Kernel panic - not syncing: VFS\nhalf";
	_cleanup_close_ int fd = memfd_create("console", MFD_CLOEXEC);
	_cleanup_buf_ struct buf log = BUF_INIT(65536);
	struct console c;
	struct err e = ERR_INIT;
	unsigned frames = 0;

	(void)state;
	console_init(&c, fd, 1000);
	assert_int_equal(console_feed(&c, text, strlen(text), no_frame, &frames, &e), 0);
	assert_int_equal(frames, 1);
	assert_true(c.panicked);
	assert_string_equal(c.panic, "Kernel panic - not syncing: VFS");
	console_finish(&c);
	for (int i = 0; i < 100; i++)
		assert_int_equal(console_output(&c, "0123456789 0123456789\n", 22, &e), 0);
	assert_true(c.cut);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	assert_int_equal(read_fd_to_end(fd, &log), 0);
	assert_int_equal(strncmp(buf_str(&log), "hello\n[ 1.0] Kernel panic - not syncing: VFS\nhalf\n0123", 54), 0);
	assert_null(strstr(buf_str(&log), "nonce"));
	assert_true(log.len < 1000 + 100);
	assert_non_null(strstr(buf_str(&log), "is cut here"));
	console_release(&c);

	test_cause_of_panic();

	/* What a step prints is no panic of the kernel's. */
	console_init(&c, -1, 1000);
	assert_int_equal(console_output(&c, "Kernel panic - not syncing: no\n", 31, &e), 0);
	assert_false(c.panicked);
	console_release(&c);
}

struct monitor {
	char seen[512];
};

static void on_message(void *ctx, const struct qmp_message *m)
{
	struct monitor *mon = ctx;
	size_t used = strlen(mon->seen);

	(void)snprintf(mon->seen + used, sizeof(mon->seen) - used, "%d:%llu:%s|", (int)m->kind, (unsigned long long)m->id,
		m->name);
}

static void test_qmp(void **state)
{
	static const char greeting[] = "{\"QMP\":{\"version\":{}}}\r\n";
	static const char answers[] = "{\"return\":{},\"id\":1}\r\n{\"event\":\"RESUME\",\"timestamp\":{}}\n"
				      "{\"return\":[1],\"id\":2}\n{\"error\":{\"class\":\"x\",\"desc\":\"no\"},\"id\":3}\n{}\n";
	_cleanup_close_ int ours = -1, theirs = -1;
	struct monitor mon = { "" };
	struct err e = ERR_INIT;
	uint64_t id = 0;
	char sent[512];
	struct qmp q;
	int pair[2];
	ssize_t n;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ours = pair[0];
	theirs = pair[1];
	qmp_init(&q, ours);
	assert_int_equal(qmp_send(&q, "quit", json_object(), NULL), -EAGAIN);
	assert_int_equal(write_full(theirs, greeting, strlen(greeting)), 0);
	assert_int_equal(qmp_receive(&q, on_message, &mon, &e), 0);
	assert_false(q.ready);
	assert_int_equal(write_full(theirs, answers, strlen(answers)), 0);
	assert_int_equal(qmp_receive(&q, on_message, &mon, &e), 0);
	assert_true(q.ready);
	assert_string_equal(mon.seen, "2:0:RESUME|0:2:|1:3:no|");
	assert_int_equal(qmp_send(&q, "human-monitor-command", json_pack("{s:s}", "command-line", "info"), &id), 0);
	assert_int_equal(id, 2);
	n = recv(theirs, sent, sizeof(sent) - 1, 0);
	assert_true(n > 0);
	sent[n] = '\0';
	assert_string_equal(sent, "{\"execute\":\"qmp_capabilities\",\"id\":1}\n{\"execute\":\"human-monitor-command\",\"id\":2,"
				  "\"arguments\":{\"command-line\":\"info\"}}\n");
	assert_int_equal(write_full(theirs, "nonsense\n", 9), 0);
	assert_int_equal(qmp_receive(&q, on_message, &mon, &e), -EBADMSG);
	close_fdp(&theirs);
	assert_int_equal(qmp_receive(&q, on_message, &mon, &e), 0);
	assert_true(q.closed);
	assert_int_equal(qmp_send(&q, "quit", NULL, NULL), -EPIPE);
	qmp_release(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_silence_before_the_first_byte),
		cmocka_unit_test(test_boot_has_a_deadline),
		cmocka_unit_test(test_time_that_nobody_saw_does_not_count),
		cmocka_unit_test(test_idle_busy_and_signs),
		cmocka_unit_test(test_end_has_a_deadline),
		cmocka_unit_test(test_limits_know_the_accelerator),
		cmocka_unit_test(test_dialogue),
		cmocka_unit_test(test_dialogue_keeps_what_failed),
		cmocka_unit_test(test_tail),
		cmocka_unit_test(test_console),
		cmocka_unit_test(test_qmp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
