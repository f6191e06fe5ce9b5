/* Where an archive's bytes come from: snapshots and mirrors.
 *
 * The base image names an archive; a snapshot replaces it by the archive of that day; a mirror changes only where it
 * is fetched. Pure functions. Errors: -EINVAL (ERR_KIND_USAGE) a snapshot that is no time; -ENOMEM.
 * SOURCE: https://snapshot.debian.org, https://snapshot.ubuntu.com */
#ifndef IMGBUILD_BUILDER_PACKAGES_PLACE_H
#define IMGBUILD_BUILDER_PACKAGES_PLACE_H

#include "builder/packages/packages.h"

/* Check that a snapshot is written as 20261101T000000Z. */
int pkg_snapshot_check(const char *snapshot, struct err *e) _must_check_;

/* The archive as it was: a new string in *ret, or NULL there when this archive has no snapshots that are known. */
int pkg_snapshot_place(const char *uri, const char *snapshot, char **ret, struct err *e) _must_check_;

/* Append where `rule` takes `uri` from; nothing when that does not lie beneath the rule's origin. `uri` may be any URL, of a file
 * too. http: and https: are not told apart. */
int pkg_mirror_apply(const char *uri, const struct pkg_mirror *rule, struct strv *ret, struct err *e) _must_check_;

/* Append those of the host's mirrors that are of an archive of the same name as `uri`. */
int pkg_host_mirrors_of(const char *uri, const struct strv *host_mirrors, struct strv *ret, struct err *e) _must_check_;

/* Append where to fetch `uri`: what the first matching rule says, else the host's mirrors of an archive of that name
 * (host_mirrors may be NULL), else itself. http: and https: are not told apart. */
int pkg_mirror_places(const char *uri, const struct pkg_mirror *rules, size_t n_rules, const struct strv *host_mirrors,
	struct strv *ret, struct err *e) _must_check_;

/* The part of a URI that says which archive it is: its last path component ("debian"); "" when it has no path. */
const char *pkg_archive_name(const char *uri, size_t *ret_len);

#endif
