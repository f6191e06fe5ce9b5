/* Drives the image's own dpkg. */
#ifndef IMGBUILD_INIT_DPKG_H
#define IMGBUILD_INIT_DPKG_H

#include "initrd/init/command.h"

/* Remove or purge packages, whatever depends on them. */
int dpkg_remove(struct step_context *s, char *const *packages, size_t n, bool purge, struct fail *f);
/* Unpack packages of the initrd, and free their memory. */
int dpkg_unpack(struct step_context *s, char *const *paths, size_t n, struct fail *f);

/* Configure the packages, or without any: all, and then prove that nothing is left half-done. */
int dpkg_configure(struct step_context *s, char *const *packages, size_t n, struct fail *f);

#endif
