/* builder/vm/vm: real boots under TCG, of a guest that misbehaves on purpose (tests/vm/guest.c), with Debian's cloud kernel
 * (the fixture kernel-deb). */
#include "builder/vm/vm.h"

#include "lib/io.h"
#include "lib/process.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

struct fixture {
	char dir[256]; /* a temporary folder */
	char kernel_dir[512];
	int kernel_fd;
	struct buf init; /* the guest program */
};

struct heard {
	struct progress progress;
	unsigned n_warnings, n_notes, n_records, n_output;
	char warning[1024], note[1024];
	struct buf lines; /* events */
};

/* Run a command; *out gets what it prints. */
static void run_command(const char *const *argv, struct buf *out)
{
	_cleanup_buf_ struct buf talk = BUF_INIT(1 << 20);
	struct process_options options = { .argv = argv, .working_dirfd = -1 };
	struct err e = ERR_INIT;
	int status = -1;

	if (process_run(&options, out, &talk, 300000, &status, &e) < 0)
		fail_msg("%s: %s", argv[0], e.message);
	if (status != 0)
		fail_msg("%s failed: %s", argv[0], buf_str(&talk));
}

/* The one file that a pattern beneath the kernel's folder names. */
static void find_file(const struct fixture *f, const char *pattern, char *path, size_t size)
{
	char full[700];
	glob_t g;

	(void)snprintf(full, sizeof(full), "%s/unpacked/%s", f->kernel_dir, pattern);
	if (glob(full, 0, NULL, &g) != 0)
		fail_msg("nothing is called %s", full);
	(void)snprintf(path, size, "%s", g.gl_pathv[0]);
	globfree(&g);
}

static int setup(void **state)
{
	const char *tmp = getenv("TMPDIR");
	struct fixture *f = calloc(1, sizeof(*f));
	_cleanup_buf_ struct buf out = BUF_INIT(sizeof(f->kernel_dir) - 1);
	char init[300], kernel[1024];
	struct err e = ERR_INIT;

	buf_init(&f->init, 8 << 20);
	(void)snprintf(f->dir, sizeof(f->dir), "%s/imgbuild-vm.XXXXXX", tmp ? tmp : "/tmp");
	assert_non_null(mkdtemp(f->dir));
	run_command((const char *const[]){ "tests/fixtures/kernel-deb.sh", NULL }, &out);
	(void)snprintf(f->kernel_dir, sizeof(f->kernel_dir), "%.*s", (int)strcspn(buf_str(&out), "\n"), buf_str(&out));
	(void)snprintf(init, sizeof(init), "%s/init", f->dir);
	run_command((const char *const[]){ "cc", "-static", "-Os", "-I.", "-o", init, "tests/vm/guest.c", NULL }, NULL);
	assert_int_equal(read_file_at(AT_FDCWD, init, false, &f->init, &e), 0);
	find_file(f, "boot/vmlinuz-*", kernel, sizeof(kernel));
	f->kernel_fd = open(kernel, O_RDONLY | O_CLOEXEC);
	assert_true(f->kernel_fd >= 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	(void)remove_tree_at(AT_FDCWD, f->dir);
	close_fdp(&f->kernel_fd);
	buf_release(&f->init);
	free(f);
	return 0;
}

static void add_member(struct archive *a, const char *name, mode_t mode, const void *bytes, size_t len)
{
	struct archive_entry *entry = archive_entry_new();

	archive_entry_set_pathname(entry, name);
	archive_entry_set_mode(entry, S_IFREG | mode);
	archive_entry_set_size(entry, (la_int64_t)len);
	assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
	assert_int_equal(archive_write_data(a, bytes, len), (la_ssize_t)len);
	archive_entry_free(entry);
}

/* An initrd with the guest program, the modules it needs for the port, and what it is to do. */
static int make_initrd(const struct fixture *f, const char *mode)
{
	static const char *const modules[] = { "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio",
		"virtio_pci", "virtio_console" };
	int fd = memfd_create("initrd", MFD_CLOEXEC);
	struct archive *a = archive_write_new();
	struct err e = ERR_INIT;

	assert_int_equal(archive_write_set_format_cpio_newc(a), ARCHIVE_OK);
	assert_int_equal(archive_write_open_fd(a, fd), ARCHIVE_OK);
	add_member(a, "init", 0755, f->init.data, f->init.len);
	add_member(a, "mode", 0644, mode, strlen(mode));
	for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
		_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);
		char path[1024], name[64], pattern[128];

		(void)snprintf(pattern, sizeof(pattern), "lib/modules/*/kernel/drivers/*/%s.ko", modules[i]);
		find_file(f, pattern, path, sizeof(path));
		(void)snprintf(name, sizeof(name), "%s.ko", modules[i]);
		if (read_file_at(AT_FDCWD, path, false, &b, &e) < 0)
			fail_msg("%s", e.message);
		add_member(a, name, 0644, b.data, b.len);
	}
	assert_int_equal(archive_write_close(a), ARCHIVE_OK);
	assert_int_equal(archive_write_free(a), ARCHIVE_OK);
	return fd;
}

static void on_progress(struct progress *p, const struct progress_event *event)
{
	struct heard *h = (struct heard *)p;

	if (event->kind == PROGRESS_NOTE) {
		h->n_notes++;
		(void)snprintf(h->note, sizeof(h->note), "%s", event->detail);
	}
	if (event->kind == PROGRESS_WARNING) {
		h->n_warnings++;
		(void)snprintf(h->warning, sizeof(h->warning), "%s", event->detail);
	}
}

static void on_record(void *ctx, const struct record *r, uint64_t at_ms)
{
	struct heard *h = ctx;

	(void)at_ms;
	h->n_records++;
	h->n_output += r->type == RECORD_OUTPUT;
	if (h->lines.len < 65536)
		assert_int_equal(record_to_line(r, &h->lines), 0);
}

/* What a run is to be, beside its guest. */
struct trial {
	const char *mode;
	const char *qemu;
	enum accel_choice accel;
	uint32_t stall_ms;
	int cancel_fd;
	int memory_dirfd;
};

struct outcome {
	struct vm_result result;
	struct err e;
	int r;
	struct heard heard;
	struct buf log;
};

static void outcome_release(struct outcome *o)
{
	buf_release(&o->heard.lines);
	buf_release(&o->log);
}

static int kvm_opens(struct err *e)
{
	(void)e;
	return 0;
}

static void run_trial(const struct fixture *f, const struct trial *t, struct outcome *o)
{
	_cleanup_close_ int initrd_fd = make_initrd(f, t->mode);
	_cleanup_close_ int log_fd = memfd_create("console", MFD_CLOEXEC);
	_cleanup_close_ int disk_fd = memfd_create("disk", MFD_CLOEXEC);
	struct vm_config config = { .arch = ARCH_AMD64,
		.accel = t->accel,
		.qemu = t->qemu,
		.memory_mib = 256,
		.cpus = 1,
		.kernel_fd = f->kernel_fd,
		.initrd_fd = initrd_fd,
		.disk_fd = disk_fd,
		.clock_epoch = 1700000000,
		.stall_timeout_ms = t->stall_ms,
		.try_kvm = kvm_opens };
	struct vm_hooks hooks = VM_HOOKS_INIT;

	*o = (struct outcome){ .heard = { .progress = { on_progress } } };
	buf_init(&o->heard.lines, 1 << 20);
	buf_init(&o->log, 2 * VM_CONSOLE_MAX_BYTES);
	assert_int_equal(ftruncate(disk_fd, 1 << 20), 0);
	hooks.progress = &o->heard.progress;
	hooks.ctx = &o->heard;
	hooks.on_record = on_record;
	hooks.console_fd = log_fd;
	hooks.cancel_fd = t->cancel_fd ? t->cancel_fd : -1;
	hooks.memory_dirfd = t->memory_dirfd ? t->memory_dirfd : -1;
	hooks.memory_path = "the-cache";
	o->r = vm_run(&config, &hooks, &o->result, &o->e);
	assert_int_equal(lseek(log_fd, 0, SEEK_SET), 0);
	assert_int_equal(read_fd_to_end(log_fd, &o->log), 0);
	if (getenv("VERBOSE"))
		fprintf(stderr, "--- %s: %s (%d: %s)\n    channel %s, hello after %llu ms, end after %llu ms\n%s%s\n", t->mode,
			vm_outcome_name(o->result.outcome), o->r, o->e.message, vm_channel_name(o->result.channel),
			(unsigned long long)o->result.boot_ms, (unsigned long long)o->result.total_ms, o->result.tail,
			o->result.qemu_stderr);
	/* The nonce is in no file: a verdict that was heard must not be in the log with it. */
	assert_null(strstr(buf_str(&o->log), "\"nonce\""));
	assert_null(strstr(buf_str(&o->heard.lines), "\"nonce\""));
}

static void expect(const struct fixture *f, const char *mode, enum vm_outcome outcome, int r, const char *words)
{
	struct outcome o;

	run_trial(f, &(struct trial){ .mode = mode, .accel = ACCEL_TCG, .stall_ms = 1500 }, &o);
	assert_string_equal(vm_outcome_name(o.result.outcome), vm_outcome_name(outcome));
	assert_int_equal(o.r, r);
	if (!strstr(o.e.message, words))
		fail_msg("`%s` is not in: %s", words, o.e.message);
	if (r != 0)
		assert_int_equal(err_exit_status(&o.e), outcome == VM_STEP_FAILED ? 1 : 4);
	outcome_release(&o);
}

static void test_passes_by_each_channel(void **state)
{
	static const struct {
		const char *mode;
		enum vm_channel channel;
	} ways[] = { { "port pass", VM_CHANNEL_PORT },
		{ "serial pass", VM_CHANNEL_SERIAL },
		{ "console pass", VM_CHANNEL_CONSOLE } };

	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		struct outcome o;

		run_trial(*state, &(struct trial){ .mode = ways[i].mode, .accel = ACCEL_TCG, .stall_ms = 20000 }, &o);
		assert_string_equal(o.e.message, "");
		assert_int_equal(o.r, 0);
		assert_int_equal(o.result.outcome, VM_PASSED);
		assert_int_equal(o.result.channel, ways[i].channel);
		assert_string_equal(o.result.kernel_release, "test");
		assert_int_equal(o.result.n_steps, 1);
		assert_string_equal(o.result.steps[0].name, "setup");
		assert_true(o.result.steps[0].ended);
		assert_true(o.result.boot_ms > 0 && o.result.boot_ms < o.result.total_ms);
		assert_int_equal(o.heard.n_output, 2);
		assert_non_null(strstr(buf_str(&o.log), "test guest is up\n"));
		assert_non_null(strstr(buf_str(&o.log), "first line\nsecond line\n"));
		assert_string_equal(o.result.output_tail, "first line\nsecond line\n");
		assert_non_null(strstr(buf_str(&o.heard.lines), "\"result\":\"passed\""));
		outcome_release(&o);
	}
}

static void test_names_every_other_end(void **state)
{
	expect(*state, "serial fail", VM_STEP_FAILED, -EREMOTEIO, "(exit status 7): it broke; its last line: second line");
	expect(*state, "serial poweroff", VM_POWEROFF_WITHOUT_VERDICT, -EIO, "powered off");
	expect(*state, "serial exit", VM_PANIC, -EIO, "Attempted to kill init");
	expect(*state, "serial eat", VM_PANIC, -EIO, "ran out of its 256 MiB of memory (step: setup); raise `memory`");
	expect(*state, "serial reset", VM_RESET, -EIO, "reset");
	expect(*state, "serial mute", VM_NO_GREETING, -ETIMEDOUT, "stalled");
	expect(*state, "serial hang", VM_STALLED, -ETIMEDOUT, "step: setup");
}

static void test_believes_nothing_wrong(void **state)
{
	expect(*state, "serial nonce", VM_PROTOCOL_ERROR, -EBADMSG, "nonce");
	expect(*state, "serial not-json", VM_PROTOCOL_ERROR, -EBADMSG, "no JSON");
	expect(*state, "port huge", VM_PROTOCOL_ERROR, -EBADMSG, "more than 16384 bytes");
}

static void test_ends_a_guest_that_lingers_after_its_verdict(void **state)
{
	struct outcome o;

	/* The verdict stands: what is on the disk was unmounted before it. */
	run_trial(*state, &(struct trial){ .mode = "serial linger", .accel = ACCEL_TCG, .stall_ms = 700 }, &o);
	assert_int_equal(o.result.outcome, VM_PASSED);
	assert_int_equal(o.r, 0);
	outcome_release(&o);
}

static void test_bounds_a_flood(void **state)
{
	struct outcome o;

	run_trial(*state, &(struct trial){ .mode = "port flood", .accel = ACCEL_TCG, .stall_ms = 20000 }, &o);
	assert_string_equal(o.e.message, "");
	assert_int_equal(o.result.outcome, VM_PASSED);
	assert_int_equal(o.heard.n_output, 2002);
	assert_null(strchr(buf_str(&o.log), '\033'));
	assert_true(strlen(o.result.tail) < VM_TAIL_MAX_BYTES);
	outcome_release(&o);
}

/* A QEMU whose KVM does not work, as a script around the real one: `when_kvm` is run when it is asked for KVM. */
static void make_qemu(const struct fixture *f, const char *name, const char *when_kvm, char *path, size_t size)
{
	char script[1024];
	struct err e = ERR_INIT;

	(void)snprintf(path, size, "%s/%s", f->dir, name);
	(void)snprintf(script, sizeof(script),
		"#!/bin/bash\nargs=() kvm=\nfor a in \"$@\"; do case $a in kvm) a=tcg kvm=1;; host) a=max;; esac; "
		"args+=(\"$a\"); done\n[ -z \"$kvm\" ] || { %s; }\nexec qemu-system-x86_64 \"${args[@]}\"\n",
		when_kvm);
	if (write_file_atomic_at(AT_FDCWD, path, script, strlen(script), 0755, &e) < 0)
		fail_msg("%s", e.message);
}

/* The first run tries KVM, remembers, and goes on; the second does not try. */
static void expect_fall_back(const struct fixture *f, const char *name, const char *when_kvm, const char *words)
{
	char path[300], memory[300];
	struct trial t = { .mode = "serial pass", .qemu = path, .accel = ACCEL_AUTO, .stall_ms = 20000 };
	_cleanup_close_ int memory_dirfd = -1;
	struct outcome o;

	make_qemu(f, name, when_kvm, path, sizeof(path));
	(void)snprintf(memory, sizeof(memory), "%s/memory-%s", f->dir, name);
	assert_int_equal(mkdir(memory, 0755), 0);
	memory_dirfd = open(memory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	t.memory_dirfd = memory_dirfd;

	run_trial(f, &t, &o);
	assert_string_equal(o.e.message, "");
	assert_int_equal(o.result.outcome, VM_PASSED);
	assert_false(o.result.kvm);
	assert_int_equal(o.heard.n_warnings, 1);
	assert_int_equal(o.heard.n_notes, 1);
	assert_non_null(strstr(o.heard.note, "the-cache/" ACCEL_MEMORY_FILE));
	if (!strstr(o.heard.warning, words))
		fail_msg("not what was expected: %s", o.heard.warning);
	outcome_release(&o);

	run_trial(f, &t, &o);
	assert_int_equal(o.result.outcome, VM_PASSED);
	assert_int_equal(o.heard.n_warnings, 0);
	assert_int_equal(o.heard.n_notes, 1);
	outcome_release(&o);

	/* Forced, there is no other way. */
	t.accel = ACCEL_KVM;
	run_trial(f, &t, &o);
	assert_true(o.r < 0);
	assert_true(o.result.kvm);
	assert_int_equal(err_exit_status(&o.e), 4);
	assert_int_equal(o.heard.n_warnings, 0);
	outcome_release(&o);
}

static void test_goes_on_with_tcg_when_qemu_dies_of_kvm(void **state)
{
	expect_fall_back(*state, "dies", "echo 'failed to set MSR 0x10a to 0x69' >&2; kill -ABRT $$", "failed to set MSR");
}

static void test_goes_on_with_tcg_when_the_cpu_does_not_move(void **state)
{
	expect_fall_back(*state, "stuck", "args+=(-S)", "does not move");
}

static void test_does_without_a_sandbox_that_qemu_lacks(void **state)
{
	char path[300];
	struct trial t = { .mode = "serial pass", .qemu = path, .accel = ACCEL_TCG, .stall_ms = 20000 };
	struct outcome o;

	make_qemu(*state, "plain",
		":; }; case \"$*\" in *-sandbox*) echo 'qemu: -sandbox support is not enabled in this QEMU binary' >&2; exit 1;; "
		"esac; { :",
		path, sizeof(path));
	run_trial(*state, &t, &o);
	assert_string_equal(o.e.message, "");
	assert_int_equal(o.result.outcome, VM_PASSED);
	outcome_release(&o);
}

static void test_ends_on_cancel(void **state)
{
	_cleanup_close_ int read_fd = -1, write_fd = -1;
	struct outcome o;
	int pair[2];

	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	read_fd = pair[0];
	write_fd = pair[1];
	assert_int_equal(write(write_fd, "x", 1), 1);
	run_trial(*state, &(struct trial){ .mode = "serial pass", .accel = ACCEL_TCG, .cancel_fd = read_fd }, &o);
	assert_int_equal(o.result.outcome, VM_CANCELLED);
	assert_int_equal(o.r, -ECANCELED);
	outcome_release(&o);
}

static void test_names_the_package_of_a_missing_qemu(void **state)
{
	struct outcome o;

	run_trial(*state, &(struct trial){ .mode = "serial pass", .accel = ACCEL_TCG, .qemu = "no-such-qemu" }, &o);
	assert_int_equal(o.r, -ENOENT);
	assert_non_null(strstr(o.e.message, "apt-get install qemu-system-x86"));
	assert_int_equal(err_exit_status(&o.e), 4);
	outcome_release(&o);
	run_trial(*state, &(struct trial){ .mode = "serial pass", .accel = ACCEL_TCG, .qemu = "false" }, &o);
	assert_int_equal(o.result.outcome, VM_QEMU_FAILED);
	assert_non_null(strstr(o.e.message, "status 1"));
	outcome_release(&o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_passes_by_each_channel),
		cmocka_unit_test(test_names_every_other_end),
		cmocka_unit_test(test_believes_nothing_wrong),
		cmocka_unit_test(test_ends_a_guest_that_lingers_after_its_verdict),
		cmocka_unit_test(test_bounds_a_flood),
		cmocka_unit_test(test_goes_on_with_tcg_when_qemu_dies_of_kvm),
		cmocka_unit_test(test_goes_on_with_tcg_when_the_cpu_does_not_move),
		cmocka_unit_test(test_does_without_a_sandbox_that_qemu_lacks),
		cmocka_unit_test(test_ends_on_cancel),
		cmocka_unit_test(test_names_the_package_of_a_missing_qemu),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
