/* SHA-256 and SHA-512 digests (FIPS 180-4), by OpenSSL's EVP.
 *
 * A digest is a type of its own, never a char *. Its text form is lower-case hexadecimal; reading accepts upper case
 * too. A hasher is made, fed and finished; finishing resets nothing: release it afterwards. */
#ifndef IMGBUILD_LIB_DIGEST_H
#define IMGBUILD_LIB_DIGEST_H

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum digest_algorithm { DIGEST_NONE = 0, DIGEST_SHA256, DIGEST_SHA512 };

#define DIGEST_MAX_BYTES 64
#define DIGEST_HEX_SIZE (2 * DIGEST_MAX_BYTES + 1) /* with the NUL */
#define DIGEST_SHA256_HEX_SIZE 65

struct digest {
	enum digest_algorithm algorithm;
	uint8_t bytes[DIGEST_MAX_BYTES]; /* the first digest_size_bytes() of them */
};

struct hasher; /* opaque */

/* The size and the lower-case name ("sha256", "sha512") of an algorithm; 0 and "none" for DIGEST_NONE. */
size_t digest_size_bytes(enum digest_algorithm algorithm);
const char *digest_algorithm_name(enum digest_algorithm algorithm);

/* Read exactly the right number of hexadecimal digits. Returns 0, or -EINVAL with *ret untouched. */
int digest_parse_hex(enum digest_algorithm algorithm, const char *hex, struct digest *ret) _must_check_;

/* Write the hexadecimal form with its NUL and return hex, so that it can stand in an argument list. */
char *digest_hex(const struct digest *d, char hex[static DIGEST_HEX_SIZE]);

/* Whether both are of the same algorithm and have the same bytes. */
bool digest_equal(const struct digest *a, const struct digest *b);

/* Hash (bytes, len) in one go. */
int digest_bytes(enum digest_algorithm algorithm, const void *bytes, size_t len, struct digest *ret, struct err *e);

/* Hash size_bytes bytes of fd from offset 0 with pread, or to the end of the file when size_bytes is UINT64_MAX.
 * fd is lent and its offset is not used. */
int digest_fd(enum digest_algorithm algorithm, int fd, uint64_t size_bytes, struct digest *ret, struct err *e);

/* Make a hasher, feed it (bytes, len), and take its digest, once. */
int hasher_new(enum digest_algorithm algorithm, struct hasher **ret, struct err *e);
int hasher_update(struct hasher *h, const void *bytes, size_t len, struct err *e);
int hasher_finish(struct hasher *h, struct digest *ret, struct err *e);
void hasher_free(struct hasher *h); /* NULL is fine */
static inline void hasher_freep(struct hasher **h)
{
	hasher_free(*h);
}

#endif
