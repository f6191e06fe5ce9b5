/* Inserting kernel modules. */
#ifndef IMGBUILD_INIT_MODULE_H
#define IMGBUILD_INIT_MODULE_H

#include "initrd/init/util.h"

/* Insert the module at path. One that is there already is fine, and so is one that finds no hardware of its
 * kind. */
int module_insert(const char *name, const char *path, struct fail *f);

#endif
