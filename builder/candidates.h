/* Where the bytes of a file may be had: the addresses to be tried, best first.
 *
 *     each blob store          STORE/sha256/<hex>
 *     mirrors                  what each rule (--mirror ORIGIN=URL) makes of the addresses below; the host's own (--mirror host)
 *     its own address          the plan's, or the archive's and the name in it, with the plan's user info for that archive
 *     where that led           when it was locked
 *     snapshots                of the archive 6 and 24 hours after the release that vouched for the file, each behind its mirrors
 *
 * A person who names a store or a mirror wants it asked before the origin, which may be slow to say that it is gone. Only an
 * expected SHA-256 makes it safe to ask places that the plan does not name: without one, stores, what the lock hints at and snapshots
 * are left out. Every address may hold user info: show it through url_redact() only.
 *
 * Pure functions; everything is lent. Errors: -ENOMEM; -ENOENT (kind usage) nothing says where the file is. */
#ifndef IMGBUILD_BUILDER_CANDIDATES_H
#define IMGBUILD_BUILDER_CANDIDATES_H

#include "builder/packages/packages.h"
#include "plan/lock.h"

/* A file to be fetched, and what is known of it. */
struct wanted_file {
	const char *label;
	const char *url;      /* its own address; NULL: it is a package */
	const char *resolved; /* where `url` led when it was locked; NULL: not known, or nowhere else */
	const char *archive;  /* a package: the root of its archive, as the lock has it */
	const char *file;     /* a package: its name in the archive */
	int64_t release_date; /* a package: of the release that vouched for it, seconds since 1970; 0: not known */
	struct digest sha256, sha512; /* DIGEST_NONE: unknown */
	uint64_t size_bytes;	      /* 0: unknown; demanded like the digests */
	uint64_t about_bytes;	      /* its size as the lock has it, said where it cannot be had; 0: unknown */
};

/* Where the person and the plan let files come from. */
struct candidate_rules {
	const struct strv *blob_stores; /* URLs and folders; NULL: none */
	const struct pkg_mirror *mirrors;
	size_t n_mirrors;
	const struct strv *host_mirrors; /* archives that this host's apt uses; NULL: not asked for */
	const struct plan_repository *repositories;
	size_t n_repositories;
};

/* Describe a location of the plan that is a URL, with the lock's answer for it where there is one (NULL, or one without a digest: there
 * is none). The plan's own digests come first. */
struct wanted_file wanted_location(const char *label, const struct plan_location *location, const struct lock_blob *answer);

/* Describe a package of the lock; the label is the caller's. */
struct wanted_file wanted_package(const char *label, const struct lock_package *package);

/* Append the addresses of a file, without repetitions, best first; at least one. */
int candidates_list(const struct wanted_file *file, const struct candidate_rules *rules, struct strv *ret, struct err *e)
	_must_check_;

#endif
