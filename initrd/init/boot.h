/* The verb `boot`: become the init of the root that the kernel's command line names. */
#ifndef IMGBUILD_INIT_BOOT_H
#define IMGBUILD_INIT_BOOT_H

#include "initrd/init/util.h"

/* Mount root=, make it the root and execute its init with the arguments that the kernel gave us. Returns only
 * on failure, with the failure. */
int boot_root(char *const *argv, struct fail *f);

#endif
