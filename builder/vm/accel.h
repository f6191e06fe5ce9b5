/* Whether the virtual machine runs on KVM or on TCG, and the memory of a KVM that does not work.
 *
 * `auto` takes KVM when the guest is of the host's architecture, /dev/kvm opens for reading and writing and speaks API
 * version 12, and no failure is remembered. That is no proof: the guest has to speak. vm_run() watches for it, goes on
 * with TCG when it does not, and calls accel_remember() when TCG gets it to speak, after which `auto` means TCG for ACCEL_MEMORY_SECONDS, or until the machine is booted
 * again (the kernel's boot id is part of the memory). The memory is one small file in a folder of the caller's; forgetting is
 * deleting it, or a successful run with `--accel kvm`, which does not look at it.
 *
 * A memory that cannot be read, is damaged, or is from the future counts as none. */
#ifndef IMGBUILD_BUILDER_VM_ACCEL_H
#define IMGBUILD_BUILDER_VM_ACCEL_H

#include "lib/arch.h"
#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>

#define ACCEL_MEMORY_FILE "kvm-does-not-work.json"
#define ACCEL_MEMORY_SECONDS (24 * 60 * 60)

enum accel_choice { ACCEL_AUTO = 0, ACCEL_KVM, ACCEL_TCG };

struct accel_options {
	enum accel_choice choice;
	enum arch arch;		 /* the guest's */
	int memory_dirfd;	 /* lent; where ACCEL_MEMORY_FILE is; -1: nothing is remembered */
	const char *memory_path; /* that folder's name, for what is said to people; NULL: "the cache folder" */
	/* NULL: look at /dev/kvm; tests give another. Returns 0, or -errno with the reason. */
	int (*try_kvm)(struct err *e);
	const char *boot_id;	 /* NULL: the kernel's (tests give others) */
	int64_t now;		 /* seconds since 1970; 0: the clock (tests give others) */
};

struct accel_decision {
	bool kvm;	    /* else TCG */
	bool may_fall_back; /* KVM is a try: when the guest does not start, go on with TCG */
	char note[640];	    /* one line for the person where it is not what they may expect; "" otherwise */
};

/* Read "auto", "kvm" or "tcg". Returns 0, or -EINVAL with *ret untouched. */
int accel_parse(const char *s, enum accel_choice *ret);
const char *accel_choice_name(enum accel_choice c);

/* Decide. Returns 0; with ACCEL_KVM: -ENODEV, -EACCES or another -errno when KVM cannot be had (kind: host). */
int accel_choose(const struct accel_options *options, struct accel_decision *ret, struct err *e) _must_check_;

/* Remember that KVM was tried and did not work, for the reason given (one line). Returns 0, or -errno: nothing is
 * lost but time. */
int accel_remember(const struct accel_options *options, const char *reason, struct err *e);

/* Forget it; nothing to forget is fine. */
void accel_forget(const struct accel_options *options);

/* Append to text[size] how the person makes imgbuild try KVM again ("delete … or say --accel kvm"). */
void accel_describe_forgetting(const struct accel_options *options, char *text, size_t size);

#endif
