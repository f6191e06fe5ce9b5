#include "builder/disk/overlay.h"
#include "lib/io.h"

#include <string.h>

/* The file's layout, in clusters: header, refcount table, refcount block, level 1 table (as many as it needs). */
enum {
	CLUSTER_BITS = 16,
	CLUSTER_BYTES = 1 << CLUSTER_BITS,
	HEADER_BYTES = 112, /* version 3 with the compression type and its padding */
	REFTABLE_CLUSTER = 1,
	REFBLOCK_CLUSTER = 2,
	L1_CLUSTER = 3,
	BACKING_NAME_MAX_BYTES = 1023,
	EXTENSION_BACKING_FORMAT = (int)0xE2792ACA,
};

/* Offsets in the header. */
enum {
	H_MAGIC = 0,
	H_VERSION = 4,
	H_BACKING_OFFSET = 8,
	H_BACKING_SIZE = 16,
	H_CLUSTER_BITS = 20,
	H_SIZE = 24,
	H_L1_SIZE = 36,
	H_L1_OFFSET = 40,
	H_REFTABLE_OFFSET = 48,
	H_REFTABLE_CLUSTERS = 56,
	H_REFCOUNT_ORDER = 96,
	H_LENGTH = 100,
};

static void put_be32(uint8_t *at, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void put_be64(uint8_t *at, uint64_t v)
{
	put_be32(at, (uint32_t)(v >> 32));
	put_be32(at + 4, (uint32_t)v);
}

int overlay_write(int out_fd, const char *backing, uint64_t size_bytes, struct err *e)
{
	const uint64_t bytes_per_l1_entry = (uint64_t)CLUSTER_BYTES * (CLUSTER_BYTES / 8);
	size_t name_len = strlen(backing), total;
	uint64_t l1_entries, l1_clusters;
	_cleanup_free_ uint8_t *file = NULL;
	uint8_t *p;
	int r;

	if (name_len > BACKING_NAME_MAX_BYTES)
		return err_set(e, -ENAMETOOLONG, "the image's path has %zu bytes, qcow2 can hold %d: use --as copy", name_len,
			BACKING_NAME_MAX_BYTES);
	if (size_bytes == 0 || size_bytes > OVERLAY_MAX_SIZE_BYTES)
		return err_set(e, -EFBIG, "an image of %llu bytes is too large for an overlay", (unsigned long long)size_bytes);
	size_bytes = (size_bytes + 511) & ~UINT64_C(511);
	l1_entries = (size_bytes + bytes_per_l1_entry - 1) / bytes_per_l1_entry;
	l1_clusters = (l1_entries * 8 + CLUSTER_BYTES - 1) / CLUSTER_BYTES;
	total = (size_t)(L1_CLUSTER + l1_clusters) * CLUSTER_BYTES;
	file = calloc(1, total);
	if (!file)
		return err_set(e, -ENOMEM, "out of memory");

	memcpy(file + H_MAGIC, "QFI\xfb", 4);
	put_be32(file + H_VERSION, 3);
	put_be32(file + H_CLUSTER_BITS, CLUSTER_BITS);
	put_be64(file + H_SIZE, size_bytes);
	put_be32(file + H_L1_SIZE, (uint32_t)l1_entries);
	put_be64(file + H_L1_OFFSET, (uint64_t)L1_CLUSTER * CLUSTER_BYTES);
	put_be64(file + H_REFTABLE_OFFSET, (uint64_t)REFTABLE_CLUSTER * CLUSTER_BYTES);
	put_be32(file + H_REFTABLE_CLUSTERS, 1);
	put_be32(file + H_REFCOUNT_ORDER, 4);
	put_be32(file + H_LENGTH, HEADER_BYTES);
	p = file + HEADER_BYTES;
	put_be32(p, (uint32_t)EXTENSION_BACKING_FORMAT);
	put_be32(p + 4, 3);
	memcpy(p + 8, "raw", 3);
	p += 16 + 8; /* the padded extension, then the empty one that ends the list */
	put_be64(file + H_BACKING_OFFSET, (uint64_t)(p - file));
	put_be32(file + H_BACKING_SIZE, (uint32_t)name_len);
	memcpy(p, backing, name_len);

	put_be64(file + (size_t)REFTABLE_CLUSTER * CLUSTER_BYTES, (uint64_t)REFBLOCK_CLUSTER * CLUSTER_BYTES);
	for (size_t i = 0; i < L1_CLUSTER + l1_clusters; i++)
		file[(size_t)REFBLOCK_CLUSTER * CLUSTER_BYTES + 2 * i + 1] = 1;
	r = pwrite_full(out_fd, file, total, 0);
	return r < 0 ? err_set_errno(e, r, "cannot write the overlay") : 0;
}
