/* What stands behind a file from a URL: a digest of the plan's, a publisher's list of checksums, or nothing but its first use.
 *
 * For the base image vouch_find() looks before anything large is downloaded: a digest in the plan ends the search; [base.ARCH]
 * checksums names a list that must be there and must have the image, signed by checksums_key where the plan gives one (no good
 * signature is an error, and then only what gpgv put out is read); without it SHA512SUMS, SHA256SUMS and CHECKSUM are looked for
 * beside the image, and the first one that lists it counts. What is said of a file, and of a first use so that nobody misses it,
 * is in one place here, too.
 *
 * Ownership: a struct vouch owns its strings; vouch_release(). Errors are those of cache/fetch.h and builder/checksums.h;
 * -EKEYREJECTED the signature. Limits: CHECKSUMS_MAX_BYTES, RELEASE_SIGNATURE_MAX_BYTES, KEYRING_MAX_BYTES. One thread. */
#ifndef IMGBUILD_BUILDER_VOUCH_H
#define IMGBUILD_BUILDER_VOUCH_H

#include "builder/env.h"
#include "builder/prepare.h"

struct vouch {
	struct digest sha256, sha512; /* what the file must be; both DIGEST_NONE: nothing vouches for it */
	enum lock_trust trust;
	struct lock_checksums checksums; /* the list that says so; its url NULL: none */
	char *doubt;			 /* why a list beside the image could not be asked for; NULL: nothing of that kind */
};

void vouch_release(struct vouch *v);
#define _cleanup_vouch_ _cleanup_(vouch_release)

/* Find out what vouches for the plan's base image, which is at a URL. ret is a zeroed struct. */
int vouch_find(const struct build_env *env, const struct prepared *p, struct vouch *ret, struct err *e) _must_check_;

/* Whether both say the same of the file. */
bool vouch_equal(const struct vouch *a, const struct vouch *b);

/* Tell the person what vouches for `what` ("base image"); a first use as a warning with the way to pin it.
 * url    where it came from
 * table  where a digest can be written in the plan ("base.amd64"); lock_path: where it is recorded */
void vouch_say(struct progress *progress, enum lock_trust trust, const struct lock_checksums *checksums, const char *what,
	const char *url, const char *table, const char *lock_path, const struct digest *sha256);

#endif
