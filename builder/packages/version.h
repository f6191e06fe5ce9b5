/* Debian version numbers: [epoch:]upstream[-revision], and their order.
 *
 * Pure functions on C strings, safe on any text; strings that are no versions compare by the same rules.
 * SOURCE: Debian policy 5.6.12. */
#ifndef IMGBUILD_BUILDER_PACKAGES_VERSION_H
#define IMGBUILD_BUILDER_PACKAGES_VERSION_H

#include <stdbool.h>
#include <stddef.h>

enum deb_version_op { DEB_VERSION_ANY = 0, DEB_VERSION_LT, DEB_VERSION_LE, DEB_VERSION_EQ, DEB_VERSION_GE, DEB_VERSION_GT };

/* Compare two versions. Returns a number below, equal to or above 0. */
int deb_version_compare(const char *a, const char *b);

/* Say whether "version op wanted" holds; with DEB_VERSION_ANY it always does. */
bool deb_version_satisfies(const char *version, enum deb_version_op op, const char *wanted);

/* How dependencies write the operator: "<<", "<=", "=", ">=", ">>"; "" for ANY. */
const char *deb_version_op_name(enum deb_version_op op);

/* Say whether (s, len) can be a version: begins with a digit, has only the characters versions have. */
bool deb_version_valid(const char *s, size_t len);

#endif
