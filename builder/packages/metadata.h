/* The repositories' metadata: which there are, their release files fetched and verified, their package lists read.
 *
 * pkg_metadata_load() takes the sources of the base and the repositories of the request, fetches all release files at
 * once, has them verified, and fetches and checks the package lists they vouch for. Each list goes into the universe and
 * is forgotten. All metadata of a suite comes from one place. Where a list does not match its release file, or is not
 * there, the place may be in the middle of an update: everything is fetched again after growing pauses, a few times, past the
 * caches on the way; then the archive's next place has its turn (each mirror, and the archive itself), and what is said in the
 * end names all of them. A place that cannot be reached, or has no release file, is left for the next one at once; one
 * that gives a release file which cannot be believed is an error at once.
 *
 * Ownership: struct pkg_metadata owns what it holds. */
#ifndef IMGBUILD_BUILDER_PACKAGES_METADATA_H
#define IMGBUILD_BUILDER_PACKAGES_METADATA_H

#include "builder/packages/archive.h"
#include "builder/packages/universe.h"

enum { LIST_MAX_BYTES = 256 << 20, BASE_FILE_MAX_BYTES = 64 << 20 };

/* One package list. */
struct pkg_list {
	size_t archive;	 /* index */
	char *component; /* "" for a flat repository */
};

struct pkg_metadata {
	struct pkg_archive *archives;
	size_t n_archives;
	struct pkg_list *lists;
	size_t n_lists;
};

/* Find the archives: sources, keys, places. Nothing is fetched. */
int pkg_metadata_init(struct pkg_metadata *m, const struct pkg_request *request, struct err *e) _must_check_;
void pkg_metadata_release(struct pkg_metadata *m);
#define _cleanup_metadata_ _cleanup_(pkg_metadata_release)

/* Fetch, verify, and fill an empty universe with all lists, whose numbers are indices into m->lists. */
int pkg_metadata_load(struct pkg_metadata *m, const struct pkg_request *request, const struct apt_pins *pins,
	struct pkg_universe *u, struct err *e) _must_check_;

/* Append where a system's own apt fetches from, for --mirror host: fs is that system's. */
int pkg_host_mirrors(const struct pkg_host_fs *fs, enum arch arch, struct strv *ret, struct err *e) _must_check_;

#endif
