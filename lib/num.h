/* Arithmetic on numbers that strangers chose, and reading of fixed-endian fields.
 *
 * The checked helpers return true when the result fits, like git's `unsigned_add_overflows` turned round; *ret is
 * written only then. The readers take any alignment. */
#ifndef IMGBUILD_LIB_NUM_H
#define IMGBUILD_LIB_NUM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

static inline bool checked_add_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t r;

	if (__builtin_add_overflow(a, b, &r))
		return false;
	*ret = r;
	return true;
}

static inline bool checked_mul_u64(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t r;

	if (__builtin_mul_overflow(a, b, &r))
		return false;
	*ret = r;
	return true;
}

/* True when [start, start+size) lies within [0, limit). */
static inline bool range_within(uint64_t start, uint64_t size, uint64_t limit)
{
	return start <= limit && size <= limit - start;
}

/* Round up to a multiple of a power of two; the caller knows that it fits. */
static inline uint64_t round_up_u64(uint64_t v, uint64_t pow2)
{
	return (v + pow2 - 1) & ~(pow2 - 1);
}

static inline uint16_t read_le16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t read_le32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t read_le64(const void *p)
{
	return (uint64_t)read_le32(p) | (uint64_t)read_le32((const uint8_t *)p + 4) << 32;
}

static inline uint16_t read_be16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] << 8 | b[1]);
}

static inline uint32_t read_be32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | (uint32_t)b[3];
}

static inline uint64_t read_be64(const void *p)
{
	return (uint64_t)read_be32(p) << 32 | (uint64_t)read_be32((const uint8_t *)p + 4);
}

#endif
