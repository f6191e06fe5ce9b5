/* OpenPGP keys as apt finds them, in the binary form that gpgv reads.
 *
 * gpgv knows no ASCII armour, so armoured keys are decoded here (their CRC-24 is checked where there is one); nothing
 * else of OpenPGP is interpreted. A keybox file is left out with a note, as apt does.
 * Ownership: struct apt_keyring owns what it holds; a zeroed one must be passed to apt_keyring_init() first.
 * Limits: KEYRING_MAX_BYTES in all. Errors: -EBADMSG armour that does not decode.
 * SOURCE: RFC 9580 section 6; apt-secure(8). */
#ifndef IMGBUILD_BUILDER_PACKAGES_KEYRING_H
#define IMGBUILD_BUILDER_PACKAGES_KEYRING_H

#include "builder/packages/packages.h"

enum { KEYRING_MAX_BYTES = 4 << 20 };

struct apt_keyring {
	struct buf packets;   /* the certificates, one behind the other */
	struct strv labels;   /* "sha256  label" of each file */
};

void apt_keyring_init(struct apt_keyring *k);
void apt_keyring_release(struct apt_keyring *k);
#define _cleanup_keyring_ _cleanup_(apt_keyring_release)

/* Append a file's keys, armoured or binary. */
int apt_keyring_add(struct apt_keyring *k, const void *bytes, size_t len, const char *label, struct progress *progress,
	struct err *e) _must_check_;

/* Append the keys of a file of the base image. -ENOENT when it is not there. */
int apt_keyring_add_file(struct apt_keyring *k, const struct pkg_host_fs *fs, const char *path,
	struct progress *progress, struct err *e) _must_check_;

/* Append what apt trusts by default: trusted.gpg and trusted.gpg.d. None at all is fine here. */
int apt_keyring_add_trusted(struct apt_keyring *k, const struct pkg_host_fs *fs, struct progress *progress,
	struct err *e) _must_check_;

/* Decode all armoured blocks of a text. Exposed for tests and fuzzing. */
int apt_armor_decode(const char *text, size_t len, struct buf *into, struct err *e) _must_check_;

#endif
