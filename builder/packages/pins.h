/* Which version of a package apt would take: /etc/apt/preferences and the release files' own wishes.
 *
 * Priorities are those of apt_preferences(5): 500 by default, 100 for what is installed and for NotAutomatic with
 * ButAutomaticUpgrades, 1 for NotAutomatic, 990 for the default release, or what a preferences file says.
 * Ownership: struct apt_pins owns what it holds; a zeroed one is empty and valid. Limits: PINS_MAX records; a pattern
 * PIN_PATTERN_MAX_BYTES; a regular expression may have one repetition in braces, since more can need any memory.
 * SOURCE: apt_preferences(5). */
#ifndef IMGBUILD_BUILDER_PACKAGES_PINS_H
#define IMGBUILD_BUILDER_PACKAGES_PINS_H

#include "builder/packages/packages.h"

enum { PINS_MAX = 4096, PIN_PATTERN_MAX_BYTES = 256, PINS_FILE_MAX_BYTES = 1 << 20 };

enum { PIN_DEFAULT = 500, PIN_INSTALLED = 100, PIN_NOT_AUTOMATIC = 1, PIN_TARGET_RELEASE = 990, PIN_DOWNGRADE = 1000 };

/* What is known of the list that a version comes from. Strings are borrowed, never NULL. */
struct apt_origin {
	const char *archive, *codename, *origin, *label, *version, *component, *site, *arch;
	bool not_automatic, but_automatic_upgrades;
};

struct apt_pin; /* opaque */

struct apt_pins {
	struct apt_pin *items;
	size_t n;
	char *target_release; /* APT::Default-Release, or NULL */
};

/* Append the records of a preferences file. */
int apt_pins_parse(const char *text, size_t len, const char *label, struct apt_pins *ret, struct err *e) _must_check_;

/* Read preferences and preferences.d of a system. */
int apt_pins_read(const struct pkg_host_fs *fs, struct apt_pins *ret, struct err *e) _must_check_;

/* The priority of a whole list. */
int apt_pins_origin_priority(const struct apt_pins *pins, const struct apt_origin *origin);

/* The priority of one version in a list whose own priority is `fallback`. */
int apt_pins_version_priority(const struct apt_pins *pins, const struct apt_origin *origin, const char *name,
	const char *source, const char *version, int fallback);

void apt_pins_release(struct apt_pins *pins);
#define _cleanup_pins_ _cleanup_(apt_pins_release)

#endif
