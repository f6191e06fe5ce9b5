/* What dpkg says is installed in a root filesystem, read from its status file. Pure reading; one thread.
 * SOURCE: Debian policy 3 and deb822(5); dpkg's lib/dpkg/parse.c for "Status". */
#ifndef IMGBUILD_BUILDER_INSTALLED_H
#define IMGBUILD_BUILDER_INSTALLED_H

#include "builder/ext4/ext4.h"

#include <stdbool.h>

struct installed_package {
	char *name, *version, *arch;
	bool whole; /* "install ok installed"; else half-way in some manner */
	char *state; /* the last word of its Status: "installed", "unpacked", "half-configured" … */
};

struct installed {
	struct installed_package *items; /* sorted by name, then architecture; removed ones are left out */
	size_t n;
	bool has_dpkg; /* there is a status file at all */
};

/* Read /var/lib/dpkg/status of a filesystem. None there: an empty list with has_dpkg false. */
int installed_read(struct ext4 *fs, struct installed *ret, struct err *e) _must_check_;

/* Find a package by its name; arch NULL: of any architecture. NULL: not installed, not even half. Borrowed. */
const struct installed_package *installed_find(const struct installed *list, const char *name, const char *arch);

void installed_release(struct installed *list);
#define _cleanup_installed_ _cleanup_(installed_release)

#endif
