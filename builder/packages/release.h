/* A repository's release file: its signature, what it says, and the digests it vouches for.
 *
 * apt_release_verify() has gpgv judge the signature and keeps only the text that gpgv put out; nothing else of
 * a signed file is ever parsed. At least one good signature by a given key is demanded (VALIDSIG after GOODSIG on the status
 * descriptor, with SHA-224 or better), and no bad one; further signatures by unknown keys do not matter.
 *
 * Where there is no gpgv, sqv does, for detached signatures only: -ENOENT with ERR_KIND_HOST for a clear-signed file
 * asks the caller to come with Release and Release.gpg instead.
 *
 * Ownership: struct apt_release owns what it holds; release with apt_release_release().
 * Errors: -EKEYREJECTED the signature; -EBADMSG the text; -ESTALE its dates; -ENOENT (ERR_KIND_HOST) neither gpgv nor sqv here.
 * SOURCE: https://wiki.debian.org/DebianRepository/Format; GnuPG doc/DETAILS, "Format of the --status-fd output". */
#ifndef IMGBUILD_BUILDER_PACKAGES_RELEASE_H
#define IMGBUILD_BUILDER_PACKAGES_RELEASE_H

#include "builder/packages/keyring.h"

enum { RELEASE_MAX_BYTES = 4 << 20, RELEASE_SIGNATURE_MAX_BYTES = 256 << 10, RELEASE_EXPIRY_BYTES = 160 };

struct apt_release {
	struct buf text;	/* what was signed */
	struct digest sha256;	/* of text; DIGEST_NONE: nobody vouches for it */
	struct strv signers;	/* fingerprints of primary keys */
	char *origin, *label, *suite, *codename, *version; /* "" when not said */
	char *architectures;	/* as written, blank-separated */
	int64_t date, valid_until; /* seconds since 1970; 0: not said */
	bool not_automatic, but_automatic_upgrades, by_hash;
	bool packages_without_all; /* "No-Support-for-Architecture-all: Packages": they are in each architecture's list */
};

/* Make an empty one, and free what one owns. */
void apt_release_init(struct apt_release *r);
void apt_release_release(struct apt_release *r);
#define _cleanup_release_ _cleanup_(apt_release_release)

/* Verify a release file.
 * signed_text   InRelease (clear-signed), or Release when `signature` is given
 * signature     the detached signature Release.gpg, or NULL
 * fingerprints  only these keys count (with a '!' at the end: only that very subkey); empty: all of the keyring
 * label         what to call it in messages
 * ret           text, sha256 and signers are filled in on success; initialised by the caller */
int apt_release_verify(const struct buf *signed_text, const struct buf *signature, const struct apt_keyring *keyring,
	const struct strv *fingerprints, const char *label, struct apt_release *ret, struct err *e) _must_check_;

/* Judge what gpgv wrote to its status descriptor. Exposed for tests. */
int apt_release_judge_status(const char *status, size_t len, const struct strv *fingerprints, const char *label,
	struct strv *ret_signers, struct err *e) _must_check_;

/* Read the fields of r->text. */
int apt_release_parse(struct apt_release *r, const char *label, struct err *e) _must_check_;

/* Find a file by its path in the SHA256 section. Returns 0 or -ENOENT (no error is set). */
int apt_release_find(const struct apt_release *r, const char *path, struct digest *ret, uint64_t *ret_size_bytes);

/* Take the text of a release file whose signature, if it has one, does not matter: plain, or the inside of a clear-signed one.
 * sha256 and signers stay empty. -EBADMSG it begins as a clear-signed one and does not go on so. */
int apt_release_take_unsigned(const struct buf *file, const char *label, struct apt_release *ret, struct err *e) _must_check_;

/* Fill in the fields of an archive that has no release file: all empty. */
int apt_release_parse_nothing(struct apt_release *r, struct err *e) _must_check_;

/* Check that it does not come from the future. -ESTALE with both times: one of the clocks is wrong. */
int apt_release_check_date(const struct apt_release *r, int64_t now, const char *label, struct err *e) _must_check_;

/* Say whether its Valid-Until has passed, and in `text` since when and by which clock ("was valid until …"). */
bool apt_release_has_expired(const struct apt_release *r, int64_t now, char text[static RELEASE_EXPIRY_BYTES]);

/* Check that it is not older than one that was believed before. known: that one's Date; 0: none. -ESTALE */
int apt_release_check_not_older(const struct apt_release *r, int64_t known, const char *label, struct err *e) _must_check_;

/* Read "Sat, 10 May 2025 09:32:44 UTC". Returns 0 or -EINVAL. */
int apt_release_parse_date(const char *text, size_t len, int64_t *ret);

#endif
