/* From a plan and its inputs at hand to the initrd of the provisioning boot: the job, and all that it names.
 *
 * The order of the image's making is decided here: packages, the kernel's modules, users, files, fstab and host name, services,
 * the setup script, clean-up. Equal inputs give equal bytes. One thread. */
#ifndef IMGBUILD_BUILDER_ASSEMBLE_H
#define IMGBUILD_BUILDER_ASSEMBLE_H

#include "builder/boot_kernel.h"
#include "builder/debs.h"
#include "initrd/initrd.h"

/* The clock of the guest during every provisioning boot: 2026-01-01T00:00:00Z. A fixed time, so that no host's gets into an image;
 * which one does not matter, and changing it bumps the epoch. */
#define ASSEMBLE_CLOCK_EPOCH INT64_C(1767225600)

struct assembled {
	int fd;			 /* the initrd, a regular file */
	struct initrd_size size;
	int64_t clock_epoch;	 /* what the job sets the clock to */
	struct strv fstab_dropped;
};

#define ASSEMBLED_INIT                                                                                       \
	{                                                                                                    \
		.fd = -1                                                                                     \
	}

/* Write the initrd into a scratch file. debs must be repacked. */
int assemble(const struct build_env *env, const struct prepared *p, struct root *root, const struct boot_kernel *kernel,
	const struct debs *debs, struct assembled *ret, struct err *e) _must_check_;

void assembled_release(struct assembled *a);
#define _cleanup_assembled_ _cleanup_(assembled_release)

#endif
