/* From names of packages to the exact set of .deb files and removals that apt would choose on a base image.
 *
 * pkg_resolve() reads the base image through a seam (struct pkg_host_fs): its apt sources, keyrings, preferences and
 * dpkg status; fetches and verifies repository metadata through another (struct pkg_transport); and answers with a
 * struct pkg_set in a fixed order. It fetches no .deb: the caller does, by the item's digest. What comes out depends on the
 * bytes of the base, of the signed metadata and of the request alone, not on time, host or mirror.
 *
 * Trust: metadata counts only as far as gpgv vouches for it with keys of the base image (or of the request's
 * repositories), and not when it is older than what is known; of archives in `trusted` nothing is verified, which is said. Signed digests lead from the release file to the package lists and from those to each .deb.
 *
 * Ownership: a request is borrowed for the call and everything in it is lent. struct pkg_set owns all it holds:
 * initialise it with { 0 }, release it with pkg_set_release(). Strings of a set are never NULL unless said here.
 *
 * Errors: -ENOENT a package does not exist; -EBADMSG metadata does not parse or does not match its digest;
 * -EKEYREJECTED a signature is missing, bad or by an unknown key; -ESTALE a release file is out of date; -EUNATCH no
 * solution; -EPERM a solution that would break the base (init, Essential) or a source that may not be used;
 * what the seams return otherwise. The kind says whose fault it is: a name that does not exist is the plan's
 * (ERR_KIND_USAGE), metadata is input.
 *
 * Concurrency: none inside but the children gpgv; two calls at a time share nothing.
 *
 * Limits: see the enum in each module. The table of 66 000 packages needs about 35 MB while solving.
 * SOURCE: apt-get(8), sources.list(5), apt_preferences(5), apt-secure(8); Debian policy chapters 5 and 7;
 * https://wiki.debian.org/DebianRepository/Format */
#ifndef IMGBUILD_BUILDER_PACKAGES_PACKAGES_H
#define IMGBUILD_BUILDER_PACKAGES_PACKAGES_H

#include "lib/arch.h"
#include "lib/buf.h"
#include "lib/digest.h"
#include "lib/err.h"
#include "lib/progress.h"
#include "lib/strv.h"

#include <stdbool.h>
#include <stdint.h>

/* The filesystem of the base image. Paths are absolute, symbolic links are followed within the image. Both return 0, or
 * -ENOENT (also -ENOTDIR) when there is no such thing, which is no failure here; any other -errno is. */
struct pkg_host_fs {
	void *ctx;
	int (*read_file)(void *ctx, const char *path, struct buf *into, struct err *e);
	int (*list_dir)(void *ctx, const char *path, struct strv *ret_names, struct err *e); /* without . and .. */
};

/* One small file to fetch into memory. */
struct pkg_get {
	const char *label;		/* lent: what it is, for people */
	const struct strv *urls;	/* lent: to be tried in this order; http, https or file */
	const struct digest *expected;	/* lent, or NULL when not known: lets the transport answer from a cache. It is
					 * checked again here, so a transport may ignore it */
	uint64_t expected_size_bytes;	/* 0: not known */
	struct buf bytes;		/* the answer; initialised by the caller with the maximum; released by the caller */
	int fd;				/* -1. A transport that has the answer as a regular file may give a descriptor of it
					 * here instead (it is closed by the caller): a large list need not be in memory */
	bool fresh;			/* an older copy in a cache on the way will not do */
	int status;			/* out: 0, or -ENOENT: no URL has it. When fetching fails: why this one failed, or 0 */
	char *from;			/* out: where the bytes came from, without user information; NULL: from a cache, or not
					 * known. Freed by the caller */
};

/* How metadata is fetched. Returns 0 with each get's status set; negative when something else than "not there"
 * kept a file from being had, with the error naming the URL (without user information). */
struct pkg_transport {
	void *ctx;
	int (*fetch_many)(void *ctx, struct pkg_get *gets, size_t n, struct err *e);
	int (*pause)(void *ctx, unsigned pause_ms, struct err *e); /* 0, or -ECANCELED; NULL: there is no waiting */
};

/* A repository that the plan adds. */
struct pkg_repository {
	const char *uri;
	const char *suite;		/* ends in '/' for a flat repository, which has no components */
	const struct strv *components;
	const char *key_label;		/* for messages: the key's path in the plan */
	const void *key;		/* OpenPGP certificates, binary or ASCII armoured; NULL only when `trusted` has the URI */
	size_t key_len;
};

/* A .deb of the plan. */
struct pkg_local_deb {
	const char *label;		/* for messages: its path in the plan */
	int fd;				/* lent, regular file, read with pread */
	struct digest sha256;
	uint64_t size_bytes;
};

/* Fetch from `url` what lies beneath `origin`: bytes come from elsewhere, nothing else changes. */
struct pkg_mirror {
	const char *origin;		/* "http://deb.example.org/debian": matches whole path components */
	const char *url;
};

/* A release file that was believed before: an older one of the same suite is not believed after it. */
struct pkg_known_release {
	const char *uri;		/* the archive, as the lock has it */
	const char *suite;
	int64_t date;			/* of the newest one, seconds since 1970; 0: not known */
};

/* A package of an earlier answer. */
struct pkg_kept {
	const char *name, *version, *arch;
	uint64_t size_bytes;
	struct digest sha256;
	const char *filename, *archive, *suite; /* as in struct pkg_item, or NULL: not known */
	struct digest release_sha256;		/* likewise, or DIGEST_NONE */
	int64_t release_date;			/* likewise; 0: not known */
	bool keys_may_differ;			/* the request's repositories may have had other keys then */
};

/* An earlier answer, to be changed only as far as the request makes it necessary (keep.h says how). */
struct pkg_keep {
	const struct pkg_kept *items;
	size_t n_items;
	const struct strv *asked;	/* the names that were asked for; those that gave no item are kept as the base has them; NULL: none */
	const struct strv *removals;	/* what was taken out of the base; NULL: nothing */
	const struct pkg_kept *kernel_items; /* the kernel first; n_kernel_items 0: it is not kept */
	size_t n_kernel_items;

	/* Open the .debs of packages that no list has any more: fds[i], which the callee sets and the caller closes, is that of
	 * items[i], with that SHA-256, or stays -1 where it can be had nowhere. NULL: none can be had. */
	int (*open_debs)(void *ctx, const struct pkg_kept *const *items, size_t n, int *fds, struct err *e);
	void *ctx;
};

struct pkg_request {
	enum arch arch;
	struct pkg_host_fs fs;
	struct pkg_transport transport;

	const struct strv *install;	/* "name", "name=version", "name:arch"; NULL: none */
	const struct strv *remove;	/* names to purge; not installed is fine; NULL: none */
	bool recommends;
	const char *kernel_package;	/* also find this kernel, to be unpacked and not installed; NULL: none */

	const struct pkg_local_deb *debs;
	size_t n_debs;
	const struct pkg_repository *repositories;
	size_t n_repositories;

	const struct pkg_keep *keep;	/* NULL: there is no earlier answer */

	const struct pkg_mirror *mirrors;
	size_t n_mirrors;
	const struct pkg_host_fs *host_apt; /* --mirror host: the host's own filesystem (its /etc/apt); NULL: not asked */

	const char *snapshot;		/* "20261101T000000Z": take the archives as they were; NULL: now */
	int64_t now;			/* seconds since 1970, for Valid-Until and Date */
	bool ignore_valid_until;	/* a mirror known to be old; a snapshot implies it */
	const struct strv *trusted;	/* URIs of archives whose packages are taken although nobody vouches for them: what
					 * the plan's [apt] trusted lists; NULL: none */
	const struct pkg_known_release *known_releases; /* from an older answer; a snapshot is another archive */
	size_t n_known_releases;
	unsigned retry_delay_ms;	/* the first pause before a mirror is asked again that is being updated; 0: 1000 */
	struct progress *progress;	/* NULL is fine */
};

/* One .deb to be had. */
struct pkg_item {
	char *name, *version, *arch;	/* arch: "amd64", "arm64", "all" */
	char *replaces_version;		/* the version in the base that it replaces, or NULL */
	uint64_t size_bytes;
	struct digest sha256;
	char *filename;			/* below the archive: "pool/main/..."; for a local deb its label */
	char *archive;			/* the archive as the base names it, no user information; "" for a local deb */
	char *suite;			/* "bookworm-updates"; "" for a local deb */
	struct digest release_sha256;	/* of the release file that vouches for it; DIGEST_NONE: a local deb, or nobody does */
	int64_t release_date;		/* that file's Date, seconds since 1970; 0 for a local deb */
	struct strv uris;		/* where to fetch it, in this order; may hold user information; empty for a local deb */
	long local_deb;			/* index in the request's debs, or -1 */
	bool requested;			/* named in the plan, not only needed by something */
};

enum pkg_removal_reason {
	PKG_REMOVAL_ASKED = 0,	/* the plan says so: purged */
	PKG_REMOVAL_CONFLICT,	/* something that goes in conflicts with it */
	PKG_REMOVAL_DEPENDS	/* it needs something that goes out */
};

struct pkg_removal {
	char *name, *version, *arch;
	enum pkg_removal_reason reason;
	char *because;			/* the package behind it, "" when asked */
};

/* A release file that was believed. */
struct pkg_release_used {
	char *archive, *suite;
	struct digest sha256;		/* of the signed text; DIGEST_NONE: the plan trusts it unsigned */
	struct strv signers;		/* fingerprints of the primary keys whose signatures are good */
	int64_t date;			/* seconds since 1970 */
};

/* A key file that was used. */
struct pkg_keyring {
	char *path;			/* in the base image, or the key's path in the plan */
	struct digest sha256;
};

struct pkg_set {
	struct pkg_item *items;		/* ordered by name, then architecture */
	size_t n_items;
	struct pkg_removal *removals;	/* ordered likewise */
	size_t n_removals;
	struct pkg_item *kernel_items;	/* the kernel first, then packages with its modules */
	size_t n_kernel_items;
	struct pkg_release_used *releases;
	size_t n_releases;
	struct pkg_keyring *keyrings;	/* sorted by path, each once */
	size_t n_keyrings;
};

/* Choose what to install and to remove, as `apt-get install --no-install-recommends` would on that base, but for what is kept of
 * an earlier answer: where no list has it any more, an item has that answer's filename, archive, suite and release.
 * ret  written only on success; to be released with pkg_set_release().
 * Returns 0 or a negative errno as listed above. */
int pkg_resolve(const struct pkg_request *request, struct pkg_set *ret, struct err *e) _must_check_;

/* Free what a set owns and empty it; may be called twice. */
void pkg_set_release(struct pkg_set *set);
#define _cleanup_pkg_set_ _cleanup_(pkg_set_release)

/* Free what one item owns and empty it. */
void pkg_item_release(struct pkg_item *item);

/* A pkg_host_fs over a folder of this machine: for `--mirror host` (root_fd of "/") and for tests. root_fd is lent and
 * must outlive it. Symbolic links are followed beneath the folder only (openat2, RESOLVE_IN_ROOT). */
struct pkg_host_fs pkg_host_fs_folder(const int *root_fd);

#endif
