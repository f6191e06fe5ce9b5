/* The architectures that an image can have, and their names in each world. */
#ifndef IMGBUILD_LIB_ARCH_H
#define IMGBUILD_LIB_ARCH_H

enum arch { ARCH_AMD64 = 0, ARCH_ARM64, ARCH_COUNT };

/* Debian's name, used in plans and locks: "amd64", "arm64". */
const char *arch_name(enum arch a);

/* The kernel's and QEMU's name: "x86_64", "aarch64". */
const char *arch_machine(enum arch a);

/* Read either name. Returns 0, or -EINVAL with *ret untouched. */
int arch_parse(const char *s, enum arch *ret);

/* The architecture this program was built for. */
enum arch arch_native(void);

#endif
