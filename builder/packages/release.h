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

enum { RELEASE_MAX_BYTES = 4 << 20, RELEASE_SIGNATURE_MAX_BYTES = 256 << 10 };

struct apt_release {
	struct buf text;	/* what was signed */
	struct digest sha256;	/* of text */
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

/* Compare Date and Valid-Until with the clock. */
int apt_release_check_time(const struct apt_release *r, int64_t now, const char *label, struct err *e) _must_check_;

/* Read "Sat, 10 May 2025 09:32:44 UTC". Returns 0 or -EINVAL. */
int apt_release_parse_date(const char *text, size_t len, int64_t *ret);

#endif
