/* builder/vm/qemu: argument vectors as text. */
#include "builder/vm/qemu.h"

#include "lib/process.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

static struct qemu_config config(void)
{
	return (struct qemu_config){ .arch = ARCH_AMD64,
		.memory_mib = 2048,
		.cpus = 2,
		.tb_size_mib = 1024,
		.cmdline = "console=ttyS0 a,b c",
		.rtc_epoch = 1700000000,
		.sandbox = true,
		.kernel_fd = 10,
		.initrd_fd = 11,
		.disk_fd = 12,
		.console_fd = 13,
		.channel_fd = 14,
		.serial_fd = 15,
		.monitor_fd = 16 };
}

/* The vector as one text, words separated by a line end. */
static char *joined(const struct strv *v)
{
	struct buf b = BUF_INIT(65536);

	for (size_t i = 0; i < v->n; i++)
		assert_int_equal(buf_appendf(&b, "%s\n", v->items[i]), 0);
	return buf_take(&b, NULL);
}

static char *argv_text(const struct qemu_config *c)
{
	_cleanup_strv_ struct strv v = { 0 };
	struct err e = ERR_INIT;

	if (qemu_argv(c, &v, &e) < 0)
		fail_msg("%s", e.message);
	assert_null(v.items[v.n]);
	return joined(&v);
}

static void has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("`%s` is not in\n%s", part, text);
}

static void lacks(const char *text, const char *part)
{
	if (strstr(text, part))
		fail_msg("`%s` is in\n%s", part, text);
}

static void test_provisioning_machine(void **state)
{
	struct qemu_config c = config();
	_cleanup_free_ char *text = argv_text(&c);

	(void)state;
	assert_int_equal(strncmp(text, "qemu-system-x86_64\n", 19), 0);
	has(text, "-nodefaults\n-no-user-config\n-no-reboot\n-display\nnone\n");
	has(text, "-sandbox\non,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny\n");
	has(text, "-machine\nq35,");
	has(text, "-accel\ntcg,tb-size=1024\n-cpu\nmax,la57=off\n-m\n2048\n-smp\n2\n");
	has(text, "-rtc\nbase=2023-11-14T22:13:20,clock=vm\n");
	has(text, "-kernel\n/proc/self/fd/10\n-initrd\n/proc/self/fd/11\n-append\nconsole=ttyS0 a,b c\n");
	has(text, "-add-fd\nfd=12,set=1\n");
	has(text, "filename=/dev/fdset/1,");
	has(text, "cache.no-flush=on");
	has(text, "-device\nvirtio-blk-pci,drive=disk,");
	has(text, "socket,id=console,fd=13\n-serial\nchardev:console\n-chardev\nsocket,id=serial,fd=15\n-serial\nchardev:serial\n");
	has(text, "virtserialport,chardev=channel,name=org.imgbuild.channel.0\n");
	has(text, "-chardev\nsocket,id=monitor,fd=16\n-mon\nchardev=monitor,mode=control\n");
	lacks(text, "-net");
	lacks(text, "-nic");
}

static void test_what_can_differ(void **state)
{
	struct qemu_config c = config();
	char *text;

	(void)state;
	c.kvm = true;
	c.sandbox = false;
	c.program = "/opt/qemu";
	c.disk_fd = c.initrd_fd = c.serial_fd = -1;
	text = argv_text(&c);
	assert_int_equal(strncmp(text, "/opt/qemu\n", 10), 0);
	has(text, "-accel\nkvm\n-cpu\nhost\n");
	lacks(text, "sandbox");
	lacks(text, "-initrd");
	lacks(text, "fdset");
	lacks(text, "id=serial");
	free(text);

	c = config();
	c.arch = ARCH_ARM64;
	c.tb_size_mib = 0;
	text = argv_text(&c);
	assert_int_equal(strncmp(text, "qemu-system-aarch64\n", 20), 0);
	has(text, "-machine\nvirt,gic-version=max\n-accel\ntcg\n-cpu\nmax,pauth-impdef=on\n");
	lacks(text, "id=serial"); /* virt has one serial port */
	free(text);
}

static void refused(struct qemu_config c, const char *words, int code, int status)
{
	_cleanup_strv_ struct strv v = { 0 };
	struct err e = ERR_INIT;

	assert_int_equal(qemu_argv(&c, &v, &e), code);
	if (!strstr(e.message, words))
		fail_msg("`%s` is not in `%s`", words, e.message);
	assert_int_equal(err_exit_status(&e), status);
}

static void test_ranges(void **state)
{
	struct qemu_config c = config();
	char cmdline[QEMU_CMDLINE_MAX_BYTES + 2];

	(void)state;
	c.memory_mib = QEMU_MEMORY_MIN_MIB - 1;
	refused(c, "memory is 63 MiB", -EINVAL, 2);
	c.memory_mib = QEMU_MEMORY_MAX_MIB + 1;
	refused(c, "[provision] memory", -EINVAL, 2);
	c = config();
	c.cpus = 0;
	refused(c, "0 CPUs", -EINVAL, 2);
	c.cpus = QEMU_CPUS_MAX + 1;
	refused(c, "65 CPUs", -EINVAL, 2);
	c = config();
	memset(cmdline, 'x', sizeof(cmdline));
	cmdline[QEMU_CMDLINE_MAX_BYTES] = '\0';
	c.cmdline = cmdline;
	free(argv_text(&c));
	cmdline[QEMU_CMDLINE_MAX_BYTES] = 'x';
	cmdline[QEMU_CMDLINE_MAX_BYTES + 1] = '\0';
	refused(c, "2048 bytes", -E2BIG, 2);
	c = config();
	c.monitor_fd = -1;
	refused(c, "descriptor", -EINVAL, 5);
}

static void test_guest_cmdline(void **state)
{
	_cleanup_buf_ struct buf b = BUF_INIT(8192), arm = BUF_INIT(8192), longer = BUF_INIT(8192);
	struct err e = ERR_INIT;
	char more[2048];

	(void)state;
	assert_int_equal(qemu_guest_cmdline(ARCH_AMD64, "mine=1", &b, &e), 0);
	has(buf_str(&b), "console=ttyS0 earlyprintk=ttyS0,115200 rootfstype=ramfs panic=-1 ");
	assert_string_equal(buf_str(&b) + b.len - 7, " mine=1");
	assert_int_equal(qemu_guest_cmdline(ARCH_ARM64, NULL, &arm, &e), 0);
	has(buf_str(&arm), "console=ttyAMA0 earlycon rootfstype=ramfs panic=-1 ");
	assert_true(arm.data[arm.len - 1] != ' ');
	memset(more, 'x', sizeof(more));
	more[sizeof(more) - 1] = '\0';
	assert_int_equal(qemu_guest_cmdline(ARCH_AMD64, more, &longer, &e), -E2BIG);
}

static struct qemu_boot nasty_boot(void)
{
	return (struct qemu_boot){ .arch = ARCH_AMD64,
		.kernel = "/tmp/it's here/kernel",
		.initrd = "-initrd of $HOME",
		.image = "/a,b/root fs.ext4",
		.cmdline = "quiet \"x\"" };
}

/* A shell reads the printed line as the vector it was made from. */
static void test_printed_line_is_the_vector(void **state)
{
	struct qemu_boot boot = nasty_boot();
	_cleanup_buf_ struct buf line = BUF_INIT(65536), script = BUF_INIT(65536), out = BUF_INIT(65536);
	_cleanup_strv_ struct strv v = { 0 };
	_cleanup_free_ char *text = NULL;
	struct process_options options = { .working_dirfd = -1 };
	struct err e = ERR_INIT;
	int status = -1;

	(void)state;
	assert_int_equal(qemu_boot_argv(&boot, &v, &e), 0);
	assert_int_equal(qemu_boot_command(&boot, &line, &e), 0);
	text = joined(&v);
	has(text, "-drive\nfile=/a,,b/root fs.ext4,format=raw,if=virtio,snapshot=on\n");
	has(text, "-append\nconsole=ttyS0 root=/dev/vda rw quiet \"x\"\n");
	assert_int_equal(buf_appendf(&script, "set -- %sprintf '%%s\\n' \"$@\"", buf_str(&line)), 0);
	options.argv = (const char *const[]){ "sh", "-c", buf_str(&script), NULL };
	assert_int_equal(process_run(&options, &out, NULL, 10000, &status, &e), 0);
	assert_string_equal(buf_str(&out), text);
}

static void test_boot_choices(void **state)
{
	struct qemu_boot boot = { .arch = ARCH_ARM64, .kernel = "k", .image = "i", .writable = true, .memory_mib = 77, .cpus = 3,
		.network = true };
	_cleanup_strv_ struct strv v = { 0 };
	_cleanup_free_ char *text = NULL;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(qemu_boot_argv(&boot, &v, &e), 0);
	text = joined(&v);
	has(text, "qemu-system-aarch64\n-machine\nvirt\n");
	has(text, "-m\n77\n-smp\n3\n");
	has(text, "console=ttyAMA0 root=/dev/vda rw\n");
	has(text, "-nic\nuser,");
	lacks(text, "snapshot");
	lacks(text, "-initrd");
}

static void test_firecracker(void **state)
{
	struct qemu_boot boot = nasty_boot();
	_cleanup_buf_ struct buf b = BUF_INIT(65536);
	struct err e = ERR_INIT;
	json_t *root;

	(void)state;
	assert_int_equal(qemu_boot_firecracker(&boot, &b, &e), 0);
	root = json_loads(buf_str(&b), 0, NULL);
	assert_non_null(root);
	assert_string_equal(json_string_value(json_object_get(json_object_get(root, "boot-source"), "kernel_image_path")),
		boot.kernel);
	assert_string_equal(json_string_value(json_object_get(json_object_get(root, "boot-source"), "initrd_path")),
		boot.initrd);
	assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(root, "drives"), 0),
				    "path_on_host")),
		boot.image);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "machine-config"), "mem_size_mib")), 1024);
	json_decref(root);
	boot.image = "\xff";
	assert_int_equal(qemu_boot_firecracker(&boot, &b, &e), -EILSEQ);
}

static void test_shell_quote(void **state)
{
	static const char *const words[][2] = { { "plain-1.0_x/y=z,k:@", "plain-1.0_x/y=z,k:@" }, { "", "''" }, { "a b", "'a b'" },
		{ "it's", "'it'\\''s'" }, { "$x`y`", "'$x`y`'" }, { "~", "'~'" }, { "a\nb", "'a\nb'" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		_cleanup_buf_ struct buf b = BUF_INIT(64);

		assert_int_equal(qemu_shell_quote(words[i][0], &b), 0);
		assert_string_equal(buf_str(&b), words[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_provisioning_machine),
		cmocka_unit_test(test_what_can_differ),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_guest_cmdline),
		cmocka_unit_test(test_printed_line_is_the_vector),
		cmocka_unit_test(test_boot_choices),
		cmocka_unit_test(test_firecracker),
		cmocka_unit_test(test_shell_quote),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
