/* Relations between packages, as Depends, Conflicts, Provides and the like write them.
 *
 * "a (>= 1) | b:any, c" becomes a flat list; the alternatives of one group are neighbours. Names and versions point
 * into the text. Limits: RELATIONS_MAX of one field. Errors: -EBADMSG with what was found.
 * SOURCE: Debian policy 7.1. */
#ifndef IMGBUILD_BUILDER_PACKAGES_RELATION_H
#define IMGBUILD_BUILDER_PACKAGES_RELATION_H

#include "builder/packages/version.h"
#include "lib/err.h"

enum { RELATIONS_MAX = 16384, RELATION_NAME_MAX_BYTES = 256 };

struct deb_relation {
	const char *name;
	size_t name_len;
	const char *qualifier; /* "any" of "name:any"; NULL: none */
	size_t qualifier_len;
	enum deb_version_op op;
	const char *version; /* NULL with DEB_VERSION_ANY */
	size_t version_len;
	bool or_next; /* the next one is an alternative to this one */
};

struct deb_relations {
	struct deb_relation *items;
	size_t n, capacity;
};

/* Append the relations of (text, len) to *list, which may hold some already and keeps its memory for reuse. */
int deb_relations_parse(const char *text, size_t len, struct deb_relations *list, struct err *e) _must_check_;

/* Free the list. A zeroed struct is empty and valid. */
void deb_relations_release(struct deb_relations *list);
#define _cleanup_relations_ _cleanup_(deb_relations_release)

/* Say whether (s, len) can be the name of a package. */
bool deb_package_name_valid(const char *s, size_t len);

#endif
