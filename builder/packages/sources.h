/* The package sources of a Debian or Ubuntu system: sources.list and sources.list.d, one-line and deb822.
 *
 * Each entry is one URI with one suite, in the order apt reads them. Sources for other architectures only, disabled ones,
 * deb-src and cdrom: are left out. What may not be used is refused by name, with file and line: mirror: over the network,
 * and methods other than http, https and mirror+file. trusted=yes is noted, and judged by who knows the plan.
 *
 * Ownership: struct apt_sources owns what it holds. Limits: SOURCES_MAX entries, SOURCES_FILE_MAX_BYTES per file.
 * SOURCE: sources.list(5), apt-transport-mirror(1). */
#ifndef IMGBUILD_BUILDER_PACKAGES_SOURCES_H
#define IMGBUILD_BUILDER_PACKAGES_SOURCES_H

#include "builder/packages/packages.h"

enum { SOURCES_MAX = 256, SOURCES_FILE_MAX_BYTES = 1 << 20 };

struct apt_source {
	char *uri;		 /* as written, without a trailing slash */
	char *suite;		 /* ends in '/' for a flat repository */
	struct strv components;	 /* empty exactly for a flat repository */
	struct strv signed_by;	 /* absolute paths of keyrings and fingerprints (upper case, '!' kept) */
	char *inline_key;	 /* the text of a Signed-By that is a key, or NULL */
	bool check_valid_until;
	bool trusted;		 /* it says that nothing of it is to be verified */
	char *where;		 /* "/etc/apt/sources.list:3" */
};

struct apt_sources {
	struct apt_source *items;
	size_t n;
	bool lenient; /* set by the caller: leave out what would be refused (for reading where the host's mirrors are) */
};

/* Append what a one-line file says. label is its path, for messages. */
int apt_sources_parse_list(const char *text, size_t len, const char *label, enum arch arch, struct apt_sources *ret,
	struct progress *progress, struct err *e) _must_check_;

/* Append what a deb822 file (.sources) says. */
int apt_sources_parse_deb822(const char *text, size_t len, const char *label, enum arch arch, struct apt_sources *ret,
	struct progress *progress, struct err *e) _must_check_;

/* Read all of a system's sources, in apt's order. A system without any gives an empty list. */
int apt_sources_read(const struct pkg_host_fs *fs, enum arch arch, struct apt_sources *ret, struct progress *progress,
	struct err *e) _must_check_;

/* The places behind a source's URI: itself, or the lines of the file that a mirror+file: URI names. The first one
 * is the archive's name. */
int apt_source_places(const struct pkg_host_fs *fs, const struct apt_source *source, enum arch arch, struct strv *ret,
	struct err *e) _must_check_;

void apt_sources_release(struct apt_sources *sources);
#define _cleanup_apt_sources_ _cleanup_(apt_sources_release)

/* Say whether apt would read a file of this name in a .d folder: letters, digits, '_', '-', '.' only. */
bool apt_part_name_valid(const char *name);

#endif
