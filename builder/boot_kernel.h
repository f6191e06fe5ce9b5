/* The kernel of a plan, obtained: its file, its modules, and what of them the guest needs before it can mount its root.
 *
 * Where it comes from is the plan's choice (an archive's member, a file, a package, the base); what comes out is one value.
 * Its parts lie in a temporary folder that the caller lends. When the lock pins the kernel, what was obtained is held against
 * it. Ownership: boot_kernel_release(). One thread. */
#ifndef IMGBUILD_BUILDER_BOOT_KERNEL_H
#define IMGBUILD_BUILDER_BOOT_KERNEL_H

#include "builder/root.h"
#include "kernels/kernel.h"
#include "kernels/modules.h"

struct boot_kernel {
	struct kernel kernel;
	struct module_plan boot_modules; /* what init has to load, in order */
	struct lock_blob archive;	 /* of the file that was fetched for it; url borrowed from the plan, resolved_url owned; else empty */
};

#define BOOT_KERNEL_INIT                                                                                     \
	{                                                                                                    \
		.kernel = KERNEL_INIT                                                                        \
	}

/* Obtain the kernel.
 * root    the base's root; needed for kernels from the base (borrowed while *ret lives) and for none else
 * pinned  the lock's answer, or while resolving what is known of it so far (its packages): digests that are set are demanded
 * folder  lent: where packages and archives are unpacked
 * Returns 0; -EBADMSG it is not what the lock says; or what fetching and unpacking gave. */
int boot_kernel_get(const struct build_env *env, const struct prepared *p, const struct root *root,
	const struct lock_kernel *pinned, const struct temp_folder *folder, struct boot_kernel *ret, struct err *e)
	_must_check_;

/* Append the uncompressed bytes of one of boot_modules to *into. */
int boot_module_read(const struct module_file *m, struct buf *into, struct err *e) _must_check_;

void boot_kernel_release(struct boot_kernel *k);
#define _cleanup_boot_kernel_ _cleanup_(boot_kernel_release)

#endif
