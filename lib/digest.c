#include "lib/digest.h"
#include "lib/io.h"

#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

struct hasher {
	EVP_MD_CTX *ctx;
	enum digest_algorithm algorithm;
};

size_t digest_size_bytes(enum digest_algorithm algorithm)
{
	switch (algorithm) {
	case DIGEST_SHA256:
		return 32;
	case DIGEST_SHA512:
		return 64;
	case DIGEST_NONE:
		break;
	}
	return 0;
}

const char *digest_algorithm_name(enum digest_algorithm algorithm)
{
	switch (algorithm) {
	case DIGEST_SHA256:
		return "sha256";
	case DIGEST_SHA512:
		return "sha512";
	case DIGEST_NONE:
		break;
	}
	return "none";
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int digest_parse_hex(enum digest_algorithm algorithm, const char *hex, struct digest *ret)
{
	struct digest d = { .algorithm = algorithm };
	size_t size = digest_size_bytes(algorithm);

	if (size == 0 || strlen(hex) != 2 * size)
		return -EINVAL;
	for (size_t i = 0; i < size; i++) {
		int hi = hex_digit(hex[2 * i]), lo = hex_digit(hex[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return -EINVAL;
		d.bytes[i] = (uint8_t)(hi << 4 | lo);
	}
	*ret = d;
	return 0;
}

char *digest_hex(const struct digest *d, char hex[static DIGEST_HEX_SIZE])
{
	static const char digits[] = "0123456789abcdef";
	size_t size = digest_size_bytes(d->algorithm);

	for (size_t i = 0; i < size; i++) {
		hex[2 * i] = digits[d->bytes[i] >> 4];
		hex[2 * i + 1] = digits[d->bytes[i] & 15];
	}
	hex[2 * size] = '\0';
	return hex;
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
	return a->algorithm == b->algorithm && memcmp(a->bytes, b->bytes, digest_size_bytes(a->algorithm)) == 0;
}

int hasher_new(enum digest_algorithm algorithm, struct hasher **ret, struct err *e)
{
	const EVP_MD *md = algorithm == DIGEST_SHA512 ? EVP_sha512() : EVP_sha256();
	struct hasher *h = calloc(1, sizeof(*h));

	if (!h)
		return err_set(e, -ENOMEM, "out of memory for a hash");
	h->algorithm = algorithm;
	h->ctx = EVP_MD_CTX_new();
	if (!h->ctx || EVP_DigestInit_ex(h->ctx, md, NULL) != 1) {
		hasher_free(h);
		return err_set(e, -ENOMEM, "libcrypto cannot start a %s", digest_algorithm_name(algorithm));
	}
	*ret = h;
	return 0;
}

int hasher_update(struct hasher *h, const void *bytes, size_t len, struct err *e)
{
	if (EVP_DigestUpdate(h->ctx, bytes, len) != 1)
		return err_set(e, -EIO, "libcrypto failed while hashing");
	return 0;
}

int hasher_finish(struct hasher *h, struct digest *ret, struct err *e)
{
	struct digest d = { .algorithm = h->algorithm };

	if (EVP_DigestFinal_ex(h->ctx, d.bytes, NULL) != 1)
		return err_set(e, -EIO, "libcrypto failed while finishing a hash");
	*ret = d;
	return 0;
}

void hasher_free(struct hasher *h)
{
	if (!h)
		return;
	EVP_MD_CTX_free(h->ctx);
	free(h);
}

int digest_bytes(enum digest_algorithm algorithm, const void *bytes, size_t len, struct digest *ret, struct err *e)
{
	_cleanup_(hasher_freep) struct hasher *h = NULL;
	int r = hasher_new(algorithm, &h, e);

	if (r == 0)
		r = hasher_update(h, bytes, len, e);
	return r < 0 ? r : hasher_finish(h, ret, e);
}

int digest_fd(enum digest_algorithm algorithm, int fd, uint64_t size_bytes, struct digest *ret, struct err *e)
{
	enum { CHUNK_BYTES = 256 * 1024 };
	_cleanup_(hasher_freep) struct hasher *h = NULL;
	_cleanup_free_ char *chunk = malloc(CHUNK_BYTES);
	uint64_t offset = 0;
	int r;

	if (!chunk)
		return err_set(e, -ENOMEM, "out of memory for a hash");
	r = hasher_new(algorithm, &h, e);
	if (r < 0)
		return r;
	while (offset < size_bytes) {
		size_t want = size_bytes - offset < CHUNK_BYTES ? (size_t)(size_bytes - offset) : CHUNK_BYTES;
		ssize_t n = pread_full(fd, chunk, want, offset);

		if (n < 0)
			return err_set_errno(e, (int)n, "cannot read at offset %llu to hash it",
				(unsigned long long)offset);
		if (n == 0)
			break;
		r = hasher_update(h, chunk, (size_t)n, e);
		if (r < 0)
			return r;
		offset += (uint64_t)n;
	}
	if (size_bytes != UINT64_MAX && offset != size_bytes)
		return err_set(e, -ENODATA, "the file ends at byte %llu, %llu were expected", (unsigned long long)offset,
			(unsigned long long)size_bytes);
	return hasher_finish(h, ret, e);
}
