#include "builder/vm/qemu.h"

#include "initrd/protocol.h" /* constants only: see records.h */

#include <jansson.h>
#include <string.h>
#include <time.h>

/* What differs between the machines that can be built for. */
struct machine {
	const char *program;
	const char *package;
	const char *type;	  /* of -machine, with its properties */
	const char *console;	  /* Linux's name of the first serial port */
	const char *tcg_cpu;	  /* max is faster by a sixth than older models, for what it lets programs do */
	const char *early;	  /* kernel parameter that makes it speak from its first moment */
	bool second_serial;
	const char *firecracker_console;
};

/* vmport and smm only slow a boot down. arm64's gic-version follows the accelerator (max: what it offers). */
static const struct machine machines[ARCH_COUNT] = {
	[ARCH_AMD64] = { .program = "qemu-system-x86_64",
		.package = "qemu-system-x86",
		.type = "q35,vmport=off,smm=off",
		.console = "ttyS0",
		.tcg_cpu = "max,la57=off", /* four levels of page tables to walk instead of five */
		.early = "earlyprintk=ttyS0,115200",
		.second_serial = true,
		.firecracker_console = "ttyS0" },
	[ARCH_ARM64] = { .program = "qemu-system-aarch64",
		.package = "qemu-system-arm",
		.type = "virt,gic-version=max",
		.console = "ttyAMA0",
		.tcg_cpu = "max,pauth-impdef=on", /* else every call of a kernel function computes QARMA5 in software */
		.early = "earlycon",
		.second_serial = false,
		.firecracker_console = "ttyS0" },
};

const char *qemu_program(enum arch arch)
{
	return machines[arch].program;
}

const char *qemu_package(enum arch arch)
{
	return machines[arch].package;
}

const char *qemu_console_name(enum arch arch)
{
	return machines[arch].console;
}

bool qemu_has_second_serial(enum arch arch)
{
	return machines[arch].second_serial;
}

static int add_all(struct strv *argv, const char *const *items, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = strv_add(argv, items[i]);
	return r;
}

#define ADD_ALL(argv, ...)                                                                                   \
	add_all((argv), (const char *const[]){ __VA_ARGS__ }, ARRAY_SIZE(((const char *const[]){ __VA_ARGS__ })))

/* Append an option and its formatted value. */
static int add_option(struct strv *argv, const char *option, const char *fmt, ...) _printf_(3, 4);
static int add_option(struct strv *argv, const char *option, const char *fmt, ...)
{
	char text[4096];
	va_list ap;
	int n, r;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(text))
		return -E2BIG;
	r = strv_add(argv, option);
	return r < 0 ? r : strv_add(argv, text);
}

static int check_config(const struct qemu_config *c, struct err *e)
{
	if (c->arch >= ARCH_COUNT)
		return err_set_kind(e, ERR_KIND_DEFECT, -EINVAL, "no machine is known for architecture %d", (int)c->arch);
	if (c->memory_mib < QEMU_MEMORY_MIN_MIB || c->memory_mib > QEMU_MEMORY_MAX_MIB)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"the virtual machine's memory is %u MiB; it can be %d to %d MiB ([provision] memory)", c->memory_mib,
			QEMU_MEMORY_MIN_MIB, QEMU_MEMORY_MAX_MIB);
	if (c->cpus < 1 || c->cpus > QEMU_CPUS_MAX)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"the virtual machine has %u CPUs; it can have 1 to %d ([provision] cpus)", c->cpus, QEMU_CPUS_MAX);
	if (strlen(c->cmdline) > QEMU_CMDLINE_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_USAGE, -E2BIG,
			"the kernel's command line has %zu bytes; a kernel takes %d", strlen(c->cmdline),
			QEMU_CMDLINE_MAX_BYTES);
	if (c->rtc_epoch > UINT32_MAX)
		return err_set_kind(e, ERR_KIND_DEFECT, -EINVAL, "the machine's clock cannot start at %llu",
			(unsigned long long)c->rtc_epoch);
	if (c->kernel_fd < 0 || c->channel_fd < 0 || c->console_fd < 0 || c->monitor_fd < 0)
		return err_set_kind(e, ERR_KIND_DEFECT, -EINVAL, "a descriptor is missing for QEMU");
	return 0;
}

/* The machine itself: nothing but what is asked for, and as little of the host as can be. */
static int add_machine(const struct qemu_config *c, struct strv *argv)
{
	const struct machine *m = &machines[c->arch];
	time_t epoch = (time_t)c->rtc_epoch;
	char date[32];
	struct tm tm;
	int r;

	if (!gmtime_r(&epoch, &tm) || strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm) == 0)
		return -EINVAL;
	r = ADD_ALL(argv, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none");
	if (r == 0 && c->sandbox)
		r = add_option(argv, "-sandbox",
			"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	if (r == 0)
		r = add_option(argv, "-name", "imgbuild");
	if (r == 0)
		r = add_option(argv, "-machine", "%s", m->type);
	if (r == 0 && c->kvm)
		r = add_option(argv, "-accel", "kvm");
	if (r == 0 && !c->kvm && c->tb_size_mib > 0)
		r = add_option(argv, "-accel", "tcg,tb-size=%u", c->tb_size_mib);
	if (r == 0 && !c->kvm && c->tb_size_mib == 0)
		r = add_option(argv, "-accel", "tcg");
	if (r == 0)
		r = add_option(argv, "-cpu", "%s", c->kvm ? "host" : m->tcg_cpu);
	if (r == 0)
		r = add_option(argv, "-m", "%u", c->memory_mib);
	if (r == 0)
		r = add_option(argv, "-smp", "%u", c->cpus);
	if (r == 0)
		r = add_option(argv, "-rtc", "base=%s,clock=vm", date);
	return r;
}

static int add_boot_files(const struct qemu_config *c, struct strv *argv)
{
	int r = add_option(argv, "-kernel", "/proc/self/fd/%d", c->kernel_fd);

	if (r == 0 && c->initrd_fd >= 0)
		r = add_option(argv, "-initrd", "/proc/self/fd/%d", c->initrd_fd);
	if (r == 0)
		r = add_option(argv, "-append", "%s", c->cmdline);
	return r;
}

/* The disk, through a descriptor set. no-flush: the guest's flushes cost much and protect nothing here, for a run that
 * is interrupted is thrown away as a whole. Discards make holes, which keep the result sparse. */
static int add_disk(const struct qemu_config *c, struct strv *argv)
{
	int r;

	if (c->disk_fd < 0)
		return 0;
	r = add_option(argv, "-add-fd", "fd=%d,set=1", c->disk_fd);
	if (r == 0)
		r = add_option(argv, "-blockdev",
			"driver=file,node-name=disk-file,filename=/dev/fdset/1,locking=off,auto-read-only=off,"
			"cache.direct=off,cache.no-flush=on,discard=unmap");
	if (r == 0)
		r = add_option(argv, "-blockdev",
			"driver=raw,node-name=disk,file=disk-file,cache.direct=off,cache.no-flush=on,discard=unmap");
	if (r == 0)
		r = add_option(argv, "-device", "virtio-blk-pci,drive=disk,serial=%s", QEMU_DISK_SERIAL);
	return r;
}

static int add_socket(struct strv *argv, const char *id, int fd)
{
	return add_option(argv, "-chardev", "socket,id=%s,fd=%d", id, fd);
}

static int add_channels(const struct qemu_config *c, struct strv *argv)
{
	int r = add_socket(argv, "console", c->console_fd);

	if (r == 0)
		r = add_option(argv, "-serial", "chardev:console");
	if (r == 0 && c->serial_fd >= 0 && machines[c->arch].second_serial) {
		r = add_socket(argv, "serial", c->serial_fd);
		if (r == 0)
			r = add_option(argv, "-serial", "chardev:serial");
	}
	if (r == 0)
		r = add_socket(argv, "channel", c->channel_fd);
	if (r == 0)
		r = add_option(argv, "-device", "virtio-serial-pci,max_ports=2");
	if (r == 0)
		r = add_option(argv, "-device", "virtserialport,chardev=channel,name=%s", CHANNEL_PORT_NAME);
	if (r == 0)
		r = add_socket(argv, "monitor", c->monitor_fd);
	if (r == 0)
		r = add_option(argv, "-mon", "chardev=monitor,mode=control");
	return r;
}

int qemu_argv(const struct qemu_config *config, struct strv *argv, struct err *e)
{
	int r = check_config(config, e);

	if (r < 0)
		return r;
	r = strv_add(argv, config->program ? config->program : machines[config->arch].program);
	if (r == 0)
		r = add_machine(config, argv);
	if (r == 0)
		r = add_boot_files(config, argv);
	if (r == 0)
		r = add_disk(config, argv);
	if (r == 0)
		r = add_channels(config, argv);
	return r < 0 ? err_set_errno(e, r, "cannot put QEMU's command line together") : 0;
}

/* loglevel=6 keeps what can explain a failure and leaves out some 300 lines of a normal boot; the early console
 * makes the first byte come at once, by which a guest that runs is told from one that does not. panic=-1 resets at
 * once, which -no-reboot turns into QEMU's end. Without rootfstype=ramfs the initrd may fill only half of the memory. The rest makes a guest under TCG a sixth faster, and no mitigations
 * are needed inside a machine that lives for one build. */
static const char guest_cmdline[] =
	"rootfstype=ramfs panic=-1 oops=panic loglevel=6 mitigations=off init_on_alloc=0 audit=0 apparmor=0 random.trust_cpu=on";

/* No watchdog of clock sources, and no wait for a timer that is known to work. */
static const char guest_cmdline_amd64[] = " tsc=reliable no_timer_check";

int qemu_guest_cmdline(enum arch arch, const char *more, struct buf *ret, struct err *e)
{
	const struct machine *m = &machines[arch];
	size_t before = ret->len;
	int r = buf_appendf(ret, "console=%s %s %s%s%s%s", m->console, m->early, guest_cmdline,
		arch == ARCH_AMD64 ? guest_cmdline_amd64 : "", more && more[0] ? " " : "", more ? more : "");

	if (r == -ENOMEM)
		return err_set(e, r, "out of memory");
	if (r < 0 || ret->len - before > QEMU_CMDLINE_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_USAGE, -E2BIG, "the kernel's command line is longer than a kernel takes (%d bytes)",
			QEMU_CMDLINE_MAX_BYTES);
	return 0;
}

/* In the value of a QEMU option a comma is written twice. */
static int append_escaped_value(struct buf *b, const char *value)
{
	int r = 0;

	for (const char *p = value; *p && r == 0; p++) {
		r = buf_append_char(b, *p);
		if (r == 0 && *p == ',')
			r = buf_append_char(b, ',');
	}
	return r;
}

static int append_boot_cmdline(const struct qemu_boot *boot, const char *console, const char *more, struct buf *ret)
{
	return buf_appendf(ret, "console=%s root=/dev/vda rw%s%s%s", console, more,
		boot->cmdline && boot->cmdline[0] ? " " : "", boot->cmdline ? boot->cmdline : "");
}

int qemu_boot_argv(const struct qemu_boot *boot, struct strv *argv, struct err *e)
{
	const struct machine *m = &machines[boot->arch];
	_cleanup_buf_ struct buf drive = BUF_INIT(3 * 4096), cmdline = BUF_INIT(16384);
	int r;

	r = append_boot_cmdline(boot, m->console, "", &cmdline);
	if (r == 0)
		r = buf_append_str(&drive, "file=");
	if (r == 0)
		r = append_escaped_value(&drive, boot->image);
	if (r == 0)
		r = buf_appendf(&drive, ",format=raw,if=virtio%s", boot->writable ? "" : ",snapshot=on");
	if (r == 0)
		r = strv_add(argv, m->program);
	if (r == 0)
		r = add_option(argv, "-machine", "%s", boot->arch == ARCH_AMD64 ? "q35" : "virt");
	if (r == 0 && !boot->force_tcg && boot->arch == arch_native())
		r = add_option(argv, "-accel", "kvm");
	if (r == 0)
		r = add_option(argv, "-accel", "tcg");
	if (r == 0)
		r = add_option(argv, "-cpu", "max");
	if (r == 0)
		r = add_option(argv, "-m", "%u", boot->memory_mib ? boot->memory_mib : 1024);
	if (r == 0)
		r = add_option(argv, "-smp", "%u", boot->cpus ? boot->cpus : 2);
	if (r == 0)
		r = ADD_ALL(argv, "-kernel", boot->kernel);
	if (r == 0 && boot->initrd)
		r = ADD_ALL(argv, "-initrd", boot->initrd);
	if (r == 0)
		r = ADD_ALL(argv, "-append", buf_str(&cmdline), "-drive", buf_str(&drive));
	if (r == 0)
		r = boot->network ? add_option(argv, "-nic", "user,model=virtio-net-pci") : add_option(argv, "-nic", "none");
	if (r == 0)
		r = ADD_ALL(argv, "-nographic", "-no-reboot");
	return r < 0 ? err_set_errno(e, r, "cannot put QEMU's command line together") : 0;
}

/* True for an option that takes the next word as its value. */
static bool takes_value(const struct strv *argv, size_t i)
{
	return argv->items[i][0] == '-' && i + 1 < argv->n && argv->items[i + 1][0] != '-';
}

int qemu_boot_command(const struct qemu_boot *boot, struct buf *ret, struct err *e)
{
	_cleanup_strv_ struct strv argv = { 0 };
	int r = qemu_boot_argv(boot, &argv, e);

	if (r < 0)
		return r;
	r = qemu_shell_quote(argv.items[0], ret);
	for (size_t i = 1; i < argv.n && r == 0; i++) {
		bool own_line = strcmp(argv.items[i], "-machine") == 0 || strcmp(argv.items[i], "-kernel") == 0 ||
				strcmp(argv.items[i], "-initrd") == 0 || strcmp(argv.items[i], "-append") == 0 ||
				strcmp(argv.items[i], "-drive") == 0 || strcmp(argv.items[i], "-nic") == 0;

		r = buf_append_str(ret, own_line && i > 1 ? " \\\n    " : " ");
		if (r == 0)
			r = qemu_shell_quote(argv.items[i], ret);
		if (r == 0 && takes_value(&argv, i)) {
			r = buf_append_char(ret, ' ');
			if (r == 0)
				r = qemu_shell_quote(argv.items[++i], ret);
		}
	}
	if (r == 0)
		r = buf_append_char(ret, '\n');
	return r < 0 ? err_set_errno(e, r, "cannot put QEMU's command line together") : 0;
}

int qemu_boot_firecracker(const struct qemu_boot *boot, struct buf *ret, struct err *e)
{
	_cleanup_buf_ struct buf cmdline = BUF_INIT(16384);
	_cleanup_free_ char *text = NULL;
	json_t *root, *boot_source;
	int r;

	r = append_boot_cmdline(boot, machines[boot->arch].firecracker_console, " reboot=k panic=1", &cmdline);
	if (r < 0)
		return err_set_errno(e, r, "cannot put Firecracker's configuration together");
	boot_source = json_pack("{s:s, s:s}", "kernel_image_path", boot->kernel, "boot_args", buf_str(&cmdline));
	if (boot_source && boot->initrd)
		(void)json_object_set_new(boot_source, "initrd_path", json_string(boot->initrd));
	root = json_pack("{s:o, s:[{s:s, s:s, s:b, s:b}], s:{s:i, s:i}}", "boot-source", boot_source, "drives", "drive_id",
		"rootfs", "path_on_host", boot->image, "is_root_device", 0, "is_read_only", 0, "machine-config",
		"vcpu_count", (int)(boot->cpus ? boot->cpus : 2), "mem_size_mib",
		(int)(boot->memory_mib ? boot->memory_mib : 1024));
	if (root)
		text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	if (!text)
		return err_set(e, -EILSEQ,
			"cannot write Firecracker's configuration as JSON: a file's name is not UTF-8");
	r = buf_appendf(ret, "%s\n", text);
	return r < 0 ? err_set_errno(e, r, "cannot put Firecracker's configuration together") : 0;
}

int qemu_shell_quote(const char *s, struct buf *ret)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./=:,@%+";
	int r;

	if (s[0] && strspn(s, plain) == strlen(s))
		return buf_append_str(ret, s);
	r = buf_append_char(ret, '\'');
	for (const char *p = s; *p && r == 0; p++)
		r = *p == '\'' ? buf_append_str(ret, "'\\''") : buf_append_char(ret, *p);
	return r < 0 ? r : buf_append_char(ret, '\'');
}
