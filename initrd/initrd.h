/* Composes the initrd of a provisioning boot, and the one that an entry is booted with.
 *
 * Order of calls: initrd_new (writes init and its folders), then initrd_add_* in any order, then
 * initrd_finish with the job; initrd_free at any time. Nothing is held in memory but names: everything is
 * streamed to the output descriptor.
 *
 *     initrd_new(fd, ARCH_AMD64, &rd, e);
 *     initrd_add_module(rd, &job, "virtio_blk", bytes, len, e);     also adds `module` to the job
 *     initrd_add_deb(rd, "podman_4.3_amd64.deb", deb_fd, path, e);  path goes into `dpkg-unpack`
 *     initrd_finish(rd, &job, &size, e);
 *
 * Names inside are those of initrd/protocol.h. The same calls give the same bytes. Descriptors are lent.
 * Errors: those of cpio.h; -ENOSYS when this program was built without a compiler for the guest's
 * architecture. One struct belongs to one thread. SOURCE: initrd/protocol.h; linux
 * Documentation/filesystems/ramfs-rootfs-initramfs.rst. */
#ifndef IMGBUILD_INITRD_INITRD_H
#define IMGBUILD_INITRD_INITRD_H

#include "initrd/job.h"
#include "lib/arch.h"
#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define INITRD_PATH_SIZE 512 /* of the path of one payload in the initrd, with the NUL */

struct initrd;

/* How large an initrd became. */
struct initrd_size {
	uint64_t archive_bytes; /* the file */
	uint64_t content_bytes; /* what its unpacked tree takes in the guest's memory at most */
};

/* Begin an initrd for a guest of `arch` on out_fd (lent, written from its offset on). -ENOSYS: no init for
 * arch in this program. */
int initrd_new(int out_fd, enum arch arch, struct initrd **ret, struct err *e) _must_check_;

/* Add a kernel module ((bytes, len) of an uncompressed .ko) and a `module` verb to the job; call it in load
 * order. */
int initrd_add_module(struct initrd *rd, struct job *job, const char *name, const void *bytes, size_t len,
	struct err *e) _must_check_;

/* Add a .deb under its file name, of deb_fd from its start. *ret_path: its name in the initrd, for
 * `dpkg-unpack`. */
int initrd_add_deb(struct initrd *rd, const char *file_name, int deb_fd,
	char ret_path[static INITRD_PATH_SIZE], struct err *e) _must_check_;

/* Add a payload of (bytes, len) or of a file or folder for `file`, `tree`, `authorized-keys` (mode 0644) or
 * `run` (mode 0755); `label` only makes the name readable and need not be unique. *ret_path: its name in the
 * initrd. */
int initrd_add_bytes(struct initrd *rd, const char *label, mode_t mode, const void *bytes, size_t len,
	char ret_path[static INITRD_PATH_SIZE], struct err *e) _must_check_;
int initrd_add_fd(struct initrd *rd, const char *label, mode_t mode, int fd,
	char ret_path[static INITRD_PATH_SIZE], struct err *e) _must_check_;
int initrd_add_tree(struct initrd *rd, const char *label, int dirfd, char ret_path[static INITRD_PATH_SIZE],
	struct err *e) _must_check_;

/* Add an input of the setup script, a file or a folder, visible there as /imgbuild/inputs/<name>. name has
 * one part. A file has the mode 0755 when its owner may execute it, else 0644. */
int initrd_add_input(struct initrd *rd, const char *name, int fd, struct err *e) _must_check_;

/* Write the job and end the initrd. *ret may be NULL. */
int initrd_finish(
	struct initrd *rd, const struct job *job, struct initrd_size *ret, struct err *e) _must_check_;

void initrd_free(struct initrd *rd); /* NULL is fine */
static inline void initrd_freep(struct initrd **rd)
{
	initrd_free(*rd);
}

/* One module of an entry's initrd. */
struct initrd_module {
	const char *name;
	const void *bytes; /* an uncompressed .ko */
	size_t size_bytes;
};

/* Write the initrd that an entry is booted with: init, the modules in load order, and the verb `boot`. */
int initrd_write_entry(int out_fd, enum arch arch, const struct initrd_module *modules, size_t n,
	struct err *e) _must_check_;

/* The memory in MiB that a guest with this initrd needs: the file and its unpacked tree lie side by side
 * while the kernel unpacks, and afterwards the tree and the steps' working set do; the larger of the two, and
 * what the kernel itself takes. */
uint64_t initrd_guest_memory_mib(const struct initrd_size *size);

/* Decide on the guest's memory. plan_mib is what the plan says, 0 where it says nothing. *ret_mib: plan_mib,
 * or where that is 0 the larger of default_mib and what is needed. -E2BIG (a usage error): the plan's memory
 * cannot even hold the initrd while it is unpacked; the message says how much there should be. */
int initrd_choose_memory(const struct initrd_size *size, uint64_t plan_mib, uint64_t default_mib,
	uint64_t *ret_mib, struct err *e) _must_check_;

#endif
