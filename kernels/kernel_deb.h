/* Take the kernel and its modules out of Debian packages without installing them.
 *
 * Debian ships both in one linux-image-…; Ubuntu has linux-image-… with the kernel and linux-modules-… (and -extra-…) with
 * the modules: all of them are given together. A meta package (linux-image-cloud-amd64) holds neither; -ENOENT tells the
 * caller to follow its Depends.
 *
 * Written into work_dirfd (lent, the caller's own folder, where none of these names is yet): `vmlinuz`, and `modules/` with
 * what lies in lib/modules/RELEASE (or usr/lib/modules/RELEASE) of the packages: files and folders only, modes 0644 and
 * 0755, no links. Names with `..` are passed over. A failed call may leave a part there.
 *
 * Errors: -ENOENT none of the packages holds a kernel; -ENOTUNIQ they hold kernels of several releases; -E2BIG a limit; those
 * of kernels/archive.h. Kind ERR_KIND_INPUT. SOURCE: deb(5). */
#ifndef IMGBUILD_KERNELS_KERNEL_DEB_H
#define IMGBUILD_KERNELS_KERNEL_DEB_H

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNEL_DEB_MODULES_MAX 65536			     /* files under lib/modules */
#define KERNEL_DEB_MODULES_MAX_BYTES (UINT64_C(4) << 30) /* all of them together */
#define KERNEL_DEB_NAME "vmlinuz"
#define KERNEL_DEB_MODULES "modules"

struct kernel_deb {
	char release[65];   /* from the kernel's name: boot/vmlinuz-RELEASE */
	bool has_modules;   /* modules/ was made and holds at least one file */
	size_t n_files;	    /* in it */
	uint64_t modules_bytes;
};

/* Unpack the kernel and modules of the n packages in deb_fds (lent, pread only) into work_dirfd. */
int kernel_deb_unpack(const int *deb_fds, size_t n, int work_dirfd, struct kernel_deb *ret, struct err *e) _must_check_;

#endif
