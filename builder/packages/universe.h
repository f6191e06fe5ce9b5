/* All packages that are known: the lists of the repositories, the local .debs and what is installed in the base.
 *
 * A name is a number from pkg_universe_name(), a version a number from adding it; both stay valid for the life of the universe
 * while pointers into its arrays do not survive additions. Names are of one architecture (and "all"): foreign ones are
 * not looked at. Texts live in an arena, relations are parsed when first asked for.
 *
 * Order of calls: init; add all lists in the order of the sources; add the status; pkg_universe_finish(); then ask.
 * Ownership: the universe owns all of it; pkg_universe_release() frees. Concurrency: none.
 * Limits: UNIVERSE_VERSIONS_MAX, UNIVERSE_TEXT_MAX_BYTES in all, PACKAGES_TEXT_MAX_BYTES for one list.
 * SOURCE: Debian policy chapters 5 and 7, deb-control(5), dpkg(1). */
#ifndef IMGBUILD_BUILDER_PACKAGES_UNIVERSE_H
#define IMGBUILD_BUILDER_PACKAGES_UNIVERSE_H

#include "builder/packages/deb822.h"
#include "builder/packages/pins.h"
#include "builder/packages/version.h"
#include "lib/arch.h"
#include "lib/digest.h"

#define UNIVERSE_NONE UINT32_MAX

enum {
	UNIVERSE_VERSIONS_MAX = 1 << 20,
	UNIVERSE_LISTS_MAX = 1024,
};
#define UNIVERSE_TEXT_MAX_BYTES ((size_t)512 << 20)
#define PACKAGES_TEXT_MAX_BYTES ((uint64_t)1 << 30)

enum pkg_dep_kind {
	PKG_DEP_PRE_DEPENDS = 0,
	PKG_DEP_DEPENDS,
	PKG_DEP_RECOMMENDS,
	PKG_DEP_CONFLICTS,
	PKG_DEP_BREAKS,
};

/* One alternative: a name, perhaps with a version. */
struct pkg_alternative {
	uint32_t name;
	uint8_t op;	     /* enum deb_version_op */
	bool any;	     /* name:any */
	bool impossible;     /* name:OTHERARCH */
	const char *version; /* NULL with DEB_VERSION_ANY */
};

/* One dependency: a group of alternatives. */
struct pkg_dep {
	enum pkg_dep_kind kind;
	uint32_t first, n; /* in struct pkg_relations' alternatives */
};

struct pkg_relations {
	struct pkg_dep *deps;
	size_t n_deps;
	struct pkg_alternative *alternatives;
	size_t n_alternatives;
};

enum pkg_multi_arch { PKG_MULTI_ARCH_NO = 0, PKG_MULTI_ARCH_SAME, PKG_MULTI_ARCH_FOREIGN, PKG_MULTI_ARCH_ALLOWED };

struct pkg_version {
	uint32_t name;
	uint32_t next; /* of the same name, newest first once finished; UNIVERSE_NONE */
	const char *version;
	const char *source, *source_version; /* never NULL */
	const char *pre_depends, *depends, *recommends, *conflicts, *breaks, *provides; /* texts or NULL */
	const char *filename;	 /* NULL for installed ones; "" where it follows from the rest: pkg_universe_filename() */
	uint64_t size_bytes;
	uint8_t sha256[32];
	int32_t list;		 /* index of the list; PKG_LIST_INSTALLED */
	int16_t priority;	 /* apt's pin */
	bool all;		 /* Architecture: all */
	bool installed;		 /* it is the installed one (also when a list has it too) */
	bool provides_indexed;	 /* what it provides was entered with the names */
	bool essential, important, protected, hold;
	uint8_t multi_arch;	 /* enum pkg_multi_arch */
	uint8_t standing;	 /* Priority: 0 required .. 4 extra */
	struct pkg_relations *relations; /* once parsed */
};

enum { PKG_LIST_INSTALLED = -1 };

/* A version that provides a name. */
struct pkg_provider {
	uint32_t version;     /* index */
	const char *provided; /* "foo (= 1.2)": 1.2; NULL without */
};

struct pkg_name {
	const char *text;
	uint32_t first;	    /* newest version, or UNIVERSE_NONE */
	uint32_t installed; /* version, or UNIVERSE_NONE */
	uint32_t candidate; /* version, or UNIVERSE_NONE */
	struct pkg_provider *providers; /* not counting versions of that name */
	uint32_t n_providers, capacity;
};

struct pkg_universe {
	enum arch arch;
	const struct apt_pins *pins;
	struct pkg_name *names;
	uint32_t n_names, names_capacity;
	struct pkg_version *versions;
	uint32_t n_versions, versions_capacity;
	uint32_t *hash;
	uint32_t hash_size;
	struct arena_block *blocks;
	size_t text_bytes;
};

/* Make an empty universe of that architecture; pins is lent. Free what it owns with pkg_universe_release(). */
void pkg_universe_init(struct pkg_universe *u, enum arch arch, const struct apt_pins *pins);
void pkg_universe_release(struct pkg_universe *u);
#define _cleanup_universe_ _cleanup_(pkg_universe_release)

/* Add a package list.
 * fd        lent: the list as fetched, compressed (gz, xz, zst, bz2, lz4) or not; read from its offset on
 * list      the caller's number for it
 * origin    for the pins
 * ret_n     how many packages it has for this architecture; may be NULL */
int pkg_universe_add_list_fd(struct pkg_universe *u, int fd, int32_t list, const struct apt_origin *origin,
	const char *label, size_t *ret_n, struct err *e) _must_check_;

/* The same of a list in memory. */
int pkg_universe_add_list(struct pkg_universe *u, const void *text, size_t len, int32_t list,
	const struct apt_origin *origin, const char *label, size_t *ret_n, struct err *e) _must_check_;

/* Write where a version's file lies in the archive; component is that of its list. Returns 0, or -ENAMETOOLONG. */
int pkg_universe_filename(const struct pkg_universe *u, uint32_t version, const char *component, char *text, size_t size);

/* Add one package from its control text: a local .deb, which wins over every list. */
int pkg_universe_add_local(struct pkg_universe *u, const struct deb822_stanza *control, int32_t list,
	const char *filename, uint64_t size_bytes, const struct digest *sha256, const char *label, uint32_t *ret_version,
	struct err *e) _must_check_;

/* Add one package that no list has any more, likewise: it is nobody's candidate until pkg_universe_set_candidate() says so. */
int pkg_universe_add_superseded(struct pkg_universe *u, const struct deb822_stanza *control, int32_t list,
	const char *filename, uint64_t size_bytes, const struct digest *sha256, const char *label, uint32_t *ret_version,
	struct err *e) _must_check_;

/* Find that very file in a list. UNIVERSE_NONE: no list has it. */
uint32_t pkg_universe_find_file(const struct pkg_universe *u, uint32_t name, const char *version, const struct digest *sha256);

/* Add what is installed, from dpkg's status. */
int pkg_universe_add_status(struct pkg_universe *u, const char *text, size_t len, const char *label, struct err *e)
	_must_check_;

/* Sort versions, choose candidates, index what is provided. */
int pkg_universe_finish(struct pkg_universe *u, struct err *e) _must_check_;

/* Take this version as the candidate of its name, whatever the pins say. */
int pkg_universe_set_candidate(struct pkg_universe *u, uint32_t version, struct err *e) _must_check_;

/* The number of a name; it is added when it was not known. UNIVERSE_NONE when memory ran out. */
uint32_t pkg_universe_name(struct pkg_universe *u, const char *name, size_t len);

/* The number of a name that is known, else UNIVERSE_NONE. */
uint32_t pkg_universe_find(const struct pkg_universe *u, const char *name, size_t len);

/* The relations of a version, parsed now if need be; NULL with *e set when they do not parse. */
const struct pkg_relations *pkg_universe_relations(struct pkg_universe *u, uint32_t version, struct err *e);

/* Say whether a version satisfies an alternative, by its name or by what it provides. */
bool pkg_universe_satisfies(const struct pkg_universe *u, uint32_t version, const struct pkg_alternative *a);

/* "name (>= 1)" for messages. Returns text. */
char *pkg_alternative_text(const struct pkg_universe *u, const struct pkg_alternative *a, char *text, size_t size);

/* Append up to max names that look like `name`, nearest first. */
int pkg_universe_nearest(const struct pkg_universe *u, const char *name, size_t max, struct strv *ret) _must_check_;

#endif
