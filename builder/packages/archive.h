/* One suite of one archive: who named it, whose signature it needs, where to fetch it, and its release file once judged.
 *
 * pkg_archive_take_release() is the only way from fetched bytes to a release that is believed: signature, suite, Date,
 * Valid-Until and, against what an older lock knew, that it does not go back in time. The archives that the plan lists
 * as trusted are the exception: nothing of theirs is verified, and release.sha256 stays DIGEST_NONE to say so.
 *
 * Ownership: struct pkg_archive owns what it holds; a zeroed one may be released.
 * Errors: those of release.h; -EPERM a source says trusted=yes and the plan does not; -EBADMSG the release of another suite.
 * Pure apart from gpgv. */
#ifndef IMGBUILD_BUILDER_PACKAGES_ARCHIVE_H
#define IMGBUILD_BUILDER_PACKAGES_ARCHIVE_H

#include "builder/packages/release.h"
#include "builder/packages/sources.h"

enum { ARCHIVE_LABEL_BYTES = 512 };

struct pkg_archive {
	struct apt_source source;    /* where it was named, and with which keys */
	struct apt_keyring keyring;
	struct strv fingerprints;    /* only these keys */
	char *archive;		     /* its name: no user information */
	char *named;		     /* what its source stands for; `archive` but for a snapshot */
	char *site;		     /* its host */
	struct strv places;	     /* where to fetch from: mirrors, then itself */
	size_t place;		     /* the one in use; all of a suite's metadata comes from one place */
	bool of_request;	     /* the plan adds it: its key is the plan's */
	bool trusted;		     /* the plan takes it although nobody vouches for it */
	const char *dates_ignored_by; /* what says not to look at Valid-Until; "": nobody needs to be told; NULL: it counts */
	struct apt_release release;
};

/* Take over a source of the base (what it owned is moved) or a repository that the plan adds. host_mirrors are lent. */
int pkg_archive_init_source(struct pkg_archive *a, const struct pkg_request *request, struct apt_source *source,
	const struct strv *host_mirrors, struct err *e) _must_check_;
int pkg_archive_init_repository(struct pkg_archive *a, const struct pkg_request *request,
	const struct pkg_repository *repository, const struct strv *host_mirrors, struct err *e) _must_check_;

/* Free what it owns. */
void pkg_archive_release(struct pkg_archive *a);

/* Say whether it is a flat repository: no components, the suite is a folder. */
bool pkg_archive_is_flat(const struct pkg_archive *a);

/* Say whether that URI is its, as its source has it or stands for. User information and slashes at the end do not matter. */
bool pkg_archive_is_named(const struct pkg_archive *a, const char *uri);

/* Write "`archive` suite", for messages. Returns text. */
const char *pkg_archive_describe(const struct pkg_archive *a, char text[static ARCHIVE_LABEL_BYTES]);

/* Append the URL of a file of the suite at the place in use. */
int pkg_archive_add_url(const struct pkg_archive *a, const char *file, struct strv *ret, struct err *e) _must_check_;

/* Judge a release file that was fetched and make it the archive's.
 * text, signature  as for apt_release_verify(); signature NULL: clear-signed, or anything when the archive is trusted
 * from             where it came from, for messages; NULL: not known */
int pkg_archive_take_release(struct pkg_archive *a, const struct pkg_request *request, const struct buf *text,
	const struct buf *signature, const char *from, struct err *e) _must_check_;

/* A trusted archive without a release file: make an empty one the archive's. */
int pkg_archive_take_no_release(struct pkg_archive *a, struct err *e) _must_check_;

#endif
