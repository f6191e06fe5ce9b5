/* apt's own configuration: apt.conf and apt.conf.d, for the few settings that matter here.
 *
 * Values are strings; lists, #include and #clear are skipped. Limits: APTCONF_DEPTH_MAX of braces, file and key sizes.
 * A file that does not parse ends where it stops making sense, as nothing security depends on.
 * SOURCE: apt.conf(5). */
#ifndef IMGBUILD_BUILDER_PACKAGES_APTCONF_H
#define IMGBUILD_BUILDER_PACKAGES_APTCONF_H

#include "builder/packages/packages.h"

enum { APTCONF_DEPTH_MAX = 16, APTCONF_KEY_MAX_BYTES = 512, APTCONF_FILE_MAX_BYTES = 1 << 20 };

/* Find the last value of a setting ("Acquire::Check-Valid-Until"; case does not matter) in a text: *value is replaced by
 * a copy that the caller frees. */
int apt_config_find(const char *text, size_t len, const char *key, char **value, struct err *e) _must_check_;

/* The same over all files of a system. *ret_value is NULL when it is not set. */
int apt_config_read(const struct pkg_host_fs *fs, const char *key, char **ret_value, struct err *e) _must_check_;

#endif
