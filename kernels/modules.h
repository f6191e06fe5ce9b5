/* Find the kernel modules that a boot needs, with all they depend on, uncompressed and in load order.
 *
 * A package ships no modules.dep, so the dependencies come from the .ko files themselves: the `depends=` that modpost
 * computed from the symbols, and `softdep=`, read by libkmod from each file after it was unpacked (.xz, .zst, .gz). A name
 * that no file has is looked for among what is built in (modules.builtin), then, for soft dependencies, among the aliases
 * of built-in modules (modules.builtin.modinfo) and of the crypto and lib modules ("crc32c" is one of crc32c_generic).
 * What is nowhere is `missing`: either it is built into a kernel that has no list of what is, or the kernel lacks it.
 * The caller leaves that to the boot, which fails with a plain message when a disk or a port does not come.
 *
 * Names are normalised as the kernel does: '-' is '_'. The answer depends on the tree and on the order of `wanted`
 * alone. Errors: -EBADMSG a module is no ELF file or damaged, or belongs to another kernel; -E2BIG a limit; kind
 * ERR_KIND_INPUT. One call belongs to one thread. SOURCE: Linux Documentation/kbuild/modules.rst; modprobe.d(5). */
#ifndef IMGBUILD_KERNELS_MODULES_H
#define IMGBUILD_KERNELS_MODULES_H

#include "kernels/module_tree.h"

#define MODULE_MAX_BYTES (256u << 20) /* one module, unpacked */
#define MODULES_PLAN_MAX 256	      /* modules in an answer; each holds a descriptor */
#define MODULES_DEPTH_MAX 64	      /* of a chain of dependencies */
#define MODULE_NAME_SIZE 128

struct module_file {
	char name[MODULE_NAME_SIZE]; /* normalised: "virtio_pci" */
	char *path;		     /* in the tree, as it is stored */
	int fd;			     /* owned: a memfd with the uncompressed .ko */
	uint64_t size_bytes;
};

struct module_plan {
	struct module_file *items; /* in load order */
	size_t n;
	struct strv builtin; /* of the wanted and needed: built in; sorted */
	struct strv missing; /* of the wanted and needed: nowhere to be found; sorted */
};

/* What a guest needs to see its disk and its port, for modules_plan(): the ext4 root on virtio (PCI, or MMIO as Firecracker
 * and microvm have it). NULL-terminated. */
extern const char *const modules_for_boot[];

/* Find `wanted` (NULL-terminated) and what they depend on.
 * release  of the kernel: modules of another are -EBADMSG; "" or NULL: not compared
 * Returns 0; release *ret with module_plan_release(). */
int modules_plan(struct module_tree *tree, const char *release, const char *const *wanted, struct module_plan *ret,
	struct err *e) _must_check_;

/* The release that the modules were built for, of the first module of the tree: "6.1.0-41-cloud-amd64".
 * -ENOENT: there is no module, or it does not tell. */
int modules_release(struct module_tree *tree, char *ret, size_t ret_size, struct err *e) _must_check_;

void module_plan_release(struct module_plan *p);
#define _cleanup_module_plan_ _cleanup_(module_plan_release)

#endif
