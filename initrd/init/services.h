/* Enabling, disabling and masking services in the image, by its own systemctl (offline) or OpenRC's
 * rc-update. */
#ifndef IMGBUILD_INIT_SERVICES_H
#define IMGBUILD_INIT_SERVICES_H

#include "initrd/init/command.h"

enum service_change { SERVICE_ENABLE, SERVICE_DISABLE, SERVICE_MASK };

/* Change the units one by one; the first that cannot be changed is the failure. One that is not there can be
 * disabled. */
int services_change(
	struct step_context *s, enum service_change change, char *const *units, size_t n, struct fail *f);

#endif
