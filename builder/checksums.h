/* A publisher's list of checksums: SHA256SUMS, SHA512SUMS, CHECKSUM.
 *
 * Lines are those of GNU coreutils ("hex  name", "hex *name", also with one blank and with blanks before it), BSD
 * ("SHA512 (name) = hex") and OpenSSL ("SHA2-512(name)= hex"), mixed as they come. A leading backslash says that the name is escaped
 * (\\, \n, \r). A carriage return before the newline is dropped. Everything else (comments, blank lines, the armour of a
 * clear-signed file, digests of other algorithms) is passed over, as sha256sum -c does; without any line of the above it is no list.
 * In GNU's form the algorithm is told by the number of digits. A wrong guess (SHA3-256) only makes the download fail.
 *
 * Whether a signature was checked is the caller's to know: with a signed list, what gpgv put out must be given and
 * nothing else. Pure; allocates nothing but the name.
 * Limits: CHECKSUMS_MAX_BYTES, CHECKSUMS_MAX_LINE_BYTES. Errors have ERR_KIND_INPUT.
 * SOURCE: GNU coreutils manual, "cksum output modes" and "md5sum invocation"; md5(1) of FreeBSD; openssl-dgst(1). */
#ifndef IMGBUILD_BUILDER_CHECKSUMS_H
#define IMGBUILD_BUILDER_CHECKSUMS_H

#include "lib/digest.h"
#include "lib/err.h"

enum { CHECKSUMS_MAX_BYTES = 4 << 20, CHECKSUMS_MAX_LINE_BYTES = 8192 };

struct checksums_entry {
	struct digest sha256, sha512; /* at least one; the other may be DIGEST_NONE */
};

/* Find what the list (text, len) says of the file `name` (or path, "x86_64/disk.img"), which it may call "./name", too.
 * label  what to call the list in messages
 * Returns 0; -ENOENT it does not list that file, or only with weaker digests; -ENOTUNIQ it lists the file with two digests of one
 * algorithm; -EBADMSG it is no list of checksums, or is over a limit. */
int checksums_find(const char *text, size_t len, const char *name, const char *label, struct checksums_entry *ret,
	struct err *e) _must_check_;

/* The name that a list has for the file of a URL: the last part of its path, percent-decoded. malloc'ed.
 * Returns 0; -EINVAL the path has none (ends in a slash), or it decodes to what is no file name. */
int checksums_name_of_url(const char *url, char **ret, struct err *e) _must_check_;

/* The path that a list at list_url has for the file of a URL in a folder beneath its own ("x86_64/disk.img"), percent-decoded. malloc'ed.
 * Returns 0; -ENOENT (no error is set) the file lies elsewhere, or in the list's own folder; -ENOMEM. */
int checksums_path_beneath(const char *url, const char *list_url, char **ret) _must_check_;

#endif
