/* QEMU's argument vector, made from values: no process is started here, no file is opened, nothing is global.
 *
 * A provisioning run (struct qemu_config) gets everything it may touch as inherited descriptors, so that QEMU opens no
 * name of ours: the kernel and the initrd by /proc/self/fd/N (QEMU reads those two with fopen and mmap and knows no
 * other way), the disk by a descriptor set, the rest as connected sockets. The machine has no network, no display, no
 * default device and no firmware menu, does not reboot, and its clock starts at a given time and runs with the virtual CPU.
 *
 * An entry's boot (struct qemu_boot) is for people: the line that `imgbuild show` prints, with names of files, a
 * throw-away overlay and a console on the terminal.
 *
 * Units are in the names. Strings are borrowed for the call. The results belong to the caller.
 *
 * SOURCE: qemu(1) of QEMU 7.2; docs/interop/qmp-spec; Linux Documentation/admin-guide/kernel-parameters.txt;
 * Firecracker 1.x docs/getting-started.md (boot-source, drives, machine-config). */
#ifndef IMGBUILD_BUILDER_VM_QEMU_H
#define IMGBUILD_BUILDER_VM_QEMU_H

#include "lib/arch.h"
#include "lib/buf.h"
#include "lib/err.h"
#include "lib/strv.h"

#include <stdbool.h>
#include <stdint.h>

#define QEMU_MEMORY_MIN_MIB 64
#define QEMU_MEMORY_MAX_MIB (1024 * 1024)
#define QEMU_CPUS_MAX 64
#define QEMU_CMDLINE_MAX_BYTES 2047 /* COMMAND_LINE_SIZE of x86 and arm64 is 2048, with the NUL */
#define QEMU_DISK_SERIAL "imgbuild-root"

/* A provisioning run. Descriptors are the numbers that QEMU's process has; -1 where one is optional. */
struct qemu_config {
	enum arch arch;
	bool kvm;		 /* else TCG */
	const char *program;	 /* NULL: qemu-system-<machine> from PATH */
	uint32_t memory_mib;	 /* QEMU_MEMORY_MIN_MIB to QEMU_MEMORY_MAX_MIB */
	uint32_t cpus;		 /* 1 to QEMU_CPUS_MAX */
	uint32_t tb_size_mib;	 /* TCG: room for translated code; 0: QEMU's own choice */
	const char *cmdline;	 /* the kernel's, whole */
	uint64_t rtc_epoch;	 /* seconds since 1970 that the clock shows at the start; below 2^32 */
	bool sandbox;		 /* whether this QEMU was built with -sandbox */
	int kernel_fd;		 /* read-only is enough */
	int initrd_fd;		 /* -1: none */
	int disk_fd;		 /* raw, read-write; -1: none */
	int channel_fd;		 /* socket of the virtio-serial port CHANNEL_PORT_NAME */
	int serial_fd;		 /* socket of the second serial port; -1 or a machine with only one: none */
	int console_fd;		 /* socket of the first serial port */
	int monitor_fd;		 /* socket that speaks QMP */
};

/* Make the argument vector. `argv` is appended to and is NULL-terminated (argv->items). Returns 0; -EINVAL a value is out
 * of its range; -ENOMEM. */
int qemu_argv(const struct qemu_config *config, struct strv *argv, struct err *e) _must_check_;

/* Make the command line of a provisioning kernel: console, panic=-1 (a panic ends the run), what makes TCG faster, and
 * `more` (NULL: nothing) at the end. Longer than QEMU_CMDLINE_MAX_BYTES is -E2BIG. */
int qemu_guest_cmdline(enum arch arch, const char *more, struct buf *ret, struct err *e) _must_check_;

/* "qemu-system-x86_64", "qemu-system-aarch64"; and the Debian package that brings it. */
const char *qemu_program(enum arch arch);
const char *qemu_package(enum arch arch);

/* The first serial port, as Linux calls it: "ttyS0", "ttyAMA0". And whether the machine has a second one (/dev/ttyS1). */
const char *qemu_console_name(enum arch arch);
bool qemu_has_second_serial(enum arch arch);

/* A finished entry to be booted by a person, with names of files. */
struct qemu_boot {
	enum arch arch;
	const char *kernel;
	const char *initrd;   /* NULL: none */
	const char *image;    /* raw; written to only when `writable` */
	bool writable;	      /* false: changes go to a temporary overlay that ends with QEMU (snapshot=on) */
	const char *cmdline;  /* added to what is needed ("console=… root=/dev/vda rw"); NULL: nothing */
	uint32_t memory_mib;  /* 0: 1024 */
	uint32_t cpus;	      /* 0: 2 */
	bool force_tcg;	      /* false: KVM where it opens, else TCG */
	bool network;	      /* a user-mode network card; for the printed line false */
};

/* Make the argument vector that boots an entry with its console on stdin and stdout. */
int qemu_boot_argv(const struct qemu_boot *boot, struct strv *argv, struct err *e) _must_check_;

/* The same as a line for a shell, options on lines of their own ("\" at their ends). Names may hold anything but NUL. */
int qemu_boot_command(const struct qemu_boot *boot, struct buf *ret, struct err *e) _must_check_;

/* The same as a configuration for `firecracker --no-api --config-file`. Firecracker writes to `image`: it must be a
 * copy (imgbuild clone). Names that are not UTF-8 are -EILSEQ. */
int qemu_boot_firecracker(const struct qemu_boot *boot, struct buf *ret, struct err *e) _must_check_;

/* Append `s` quoted for a POSIX shell; what needs no quotes gets none. Returns 0, -E2BIG or -ENOMEM. */
int qemu_shell_quote(const char *s, struct buf *ret) _must_check_;

#endif
