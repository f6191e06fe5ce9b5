/* Find the kernel that the base image itself would boot: in /boot of its root, or in a boot filesystem of its own.
 *
 * The newest vmlinuz-* (or vmlinux-*, Image-*) by version wins, as boot loaders sort them; rescue kernels, *.old and *.bak do
 * not count. Without one: /boot/vmlinuz, /vmlinuz (links are followed within each filesystem), and
 * /usr/lib/modules/RELEASE/vmlinuz. Modules are those of /lib/modules/RELEASE of the root. Filesystems are borrowed.
 * Errors: -ENOENT no kernel (the message says where it was looked for); those of builder/ext4. Kind ERR_KIND_INPUT. */
#ifndef IMGBUILD_KERNELS_KERNEL_BASE_H
#define IMGBUILD_KERNELS_KERNEL_BASE_H

#include "builder/ext4/ext4.h"

#define KERNEL_BASE_PATH_SIZE 512

struct kernel_base {
	bool in_boot;			  /* in the boot filesystem, not in the root */
	char path[KERNEL_BASE_PATH_SIZE]; /* there: "/boot/vmlinuz-6.1.0-41-cloud-amd64" */
	char release[65];		  /* from the name; "" when the name has none */
};

/* Find the kernel. root is borrowed; boot too, NULL: there is no such filesystem. */
int kernel_base_find(struct ext4 *root, struct ext4 *boot, struct kernel_base *ret, struct err *e) _must_check_;

/* Compare two kernel file names or releases by version, as `sort -V` would: below, at or above zero. */
int kernel_base_compare(const char *a, const char *b);

#endif
