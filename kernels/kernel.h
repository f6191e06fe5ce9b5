/* A kernel, wherever it came from: the image as a file, what it is, and its modules.
 *
 * The four ways of a plan's [kernel] give the same value:
 *
 *     kernel_open_file()     a file, with a folder of modules or without
 *     kernel_open_archive()  a member of an archive, likewise
 *     kernel_open_debs()     packages: unpacked, not installed
 *     kernel_open_base()     the one in the base image
 *
 * Then modules_plan(kernel.modules, …) gives what to load. Release with kernel_release(). Everything is written into
 * work_dirfd, a lent, fresh folder of the caller's. A kernel that QEMU cannot boot as a guest of `arch` is refused (see
 * kernels/kernel_image.h). Errors: those of the files named above; the kind is set. One thread.
 *
 * What stands for the modules in a key is the packages' digests or that of the local folder; module_tree_digest() gives one
 * of the tree for who needs it, at the price of reading all of it.
 *
 * modules of kernel_open_base() borrow the root filesystem. Where modules_in_image is false, the modules have to be put
 * into the image: module_tree_dirfd(kernel.modules) is the folder to copy to /lib/modules/<release>. */
#ifndef IMGBUILD_KERNELS_KERNEL_H
#define IMGBUILD_KERNELS_KERNEL_H

#include "builder/ext4/ext4.h"
#include "kernels/kernel_image.h"
#include "kernels/module_tree.h"
#include "lib/digest.h"

struct kernel {
	struct kernel_image image;	   /* format, arch, size */
	char release[KERNEL_RELEASE_SIZE]; /* the image's; else that of its name or modules; "" when nothing tells */
	int fd;				   /* owned: the kernel's file, read-only */
	struct digest sha256;		   /* of that file */
	char *origin;			   /* for people and the lock: the member, or the path in the base, or "" */
	struct module_tree *modules;	   /* owned; NULL: none */
	bool modules_in_image;		   /* they are the base image's own */
};

#define KERNEL_INIT                                                                                          \
	{                                                                                                    \
		.fd = -1                                                                                     \
	}

/* The kernel is the regular file fd (lent); modules_dirfd (lent) is a folder as module_tree_open_dir() takes it, -1: none. */
int kernel_open_file(int fd, int modules_dirfd, enum arch arch, struct kernel *ret, struct err *e) _must_check_;

/* The kernel is `member` of the tar archive archive_fd (lent). modules_dirfd as above. */
int kernel_open_archive(int archive_fd, const char *member, int modules_dirfd, enum arch arch, int work_dirfd,
	struct kernel *ret, struct err *e) _must_check_;

/* The kernel is in one of the n Debian packages deb_fds (lent), modules in any of them.
 * -ENOENT: only meta packages; follow their Depends. */
int kernel_open_debs(const int *deb_fds, size_t n, enum arch arch, int work_dirfd, struct kernel *ret, struct err *e)
	_must_check_;

/* The kernel is the base image's own. root (borrowed while *ret lives) has the modules; boot (borrowed) is its boot
 * filesystem, NULL: none. */
int kernel_open_base(struct ext4 *root, struct ext4 *boot, enum arch arch, int work_dirfd, struct kernel *ret, struct err *e)
	_must_check_;

void kernel_release(struct kernel *k); /* safe to call twice */
#define _cleanup_kernel_ _cleanup_(kernel_release)

#endif
