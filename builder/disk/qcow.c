#include "builder/disk/qcow.h"
#include "lib/io.h"
#include "lib/num.h"

#include <assert.h>
#include <libdeflate.h>
#include <pthread.h>
#include <zstd.h>

/* Section "Header" of qcow2.rst. All numbers are big-endian. */
enum {
	H_MAGIC = 0,
	H_VERSION = 4,
	H_BACKING_OFFSET = 8,
	H_BACKING_SIZE = 16,
	H_CLUSTER_BITS = 20,
	H_SIZE = 24,
	H_CRYPT_METHOD = 32,
	H_L1_SIZE = 36,
	H_L1_OFFSET = 40,
	H_N_SNAPSHOTS = 60,
	H_V2_BYTES = 72,
	H_INCOMPATIBLE = 72,
	H_HEADER_LENGTH = 100,
	H_V3_BYTES = 104,
	H_COMPRESSION = 104,
	H_READ_BYTES = 112
};

enum {
	INCOMPATIBLE_DIRTY = 0,
	INCOMPATIBLE_CORRUPT = 1,
	INCOMPATIBLE_DATA_FILE = 2,
	INCOMPATIBLE_COMPRESSION = 3,
	INCOMPATIBLE_EXTENDED_L2 = 4,
	INCOMPATIBLE_KNOWN = 5
};

enum {
	EXTENSION_END = 0,
	EXTENSION_FEATURE_NAMES = 0x6803F857,
	FEATURE_NAME_BYTES = 48, /* type, bit, 46 bytes of name */
	BACKING_NAME_MAX_BYTES = 1023
};

/* Section "Cluster mapping". */
#define L1_OFFSET_MASK 0x00FFFFFFFFFFFE00ULL
#define L2_OFFSET_MASK 0x00FFFFFFFFFFFE00ULL
#define ENTRY_COPIED (1ULL << 63)
#define ENTRY_COMPRESSED (1ULL << 62)
#define ENTRY_ZERO (1ULL << 0)

enum {
	SLICE_MAX_BYTES = 16 << 10, /* an L2 table is looked at in slices of this, or of a cluster */
	SUBCLUSTERS = 32,
	EXTENDED_L2_MIN_CLUSTER_BITS = 14,
	SECTOR_BYTES = 512,
	RUN_CLUSTERS = 64,   /* compressed clusters that one lookup returns at most */
	EXTENT_LOOKUPS = 256 /* slices that one next_extent looks at at most */
};

/* What one reading thread needs for compressed clusters. Kept for the next one that reads. */
struct qcow_context {
	struct qcow_context *next;
	struct libdeflate_decompressor *deflate;
	ZSTD_DCtx *zstd;
	uint8_t *packed; /* compressed bytes as read */
	size_t packed_capacity_bytes;
	uint8_t *cluster;	     /* one unpacked cluster, for reads of a part of it */
	uint64_t cluster_descriptor; /* whose; 0 none */
};

struct qcow_slot {
	uint64_t offset; /* of the slice in the file; 0 empty, for the header is there */
};

struct qcow {
	struct blockdev dev;
	int fd; /* lent */
	uint64_t file_bytes;
	unsigned cluster_bits;
	unsigned entry_bytes; /* 8, extended 16 */
	unsigned l2_bits;     /* log2 of the entries of one L2 table */
	struct qcow_info info;
	uint64_t *l1; /* offsets of L2 tables, 0 none */
	size_t l1_n;

	pthread_mutex_t lock; /* guards everything below */
	size_t slice_bytes, n_slots;
	struct qcow_slot *slots;
	uint8_t *slices;
	struct qcow_context *idle;
};

enum run_kind { RUN_ZERO, RUN_DATA, RUN_PACKED };

/* Some bytes of the guest that are had in one way. */
struct run {
	enum run_kind kind;
	uint64_t size_bytes;
	uint64_t host_offset;		/* RUN_DATA */
	size_t n_packed;		/* RUN_PACKED: that many clusters, the first perhaps entered in its middle */
	uint64_t packed[RUN_CLUSTERS];	/* their descriptors */
};

/* Where in an L2 table a guest offset is described. */
struct place {
	const uint8_t *entry;	/* NULL: there is no table */
	size_t n;		/* entries from there to the end of the slice */
	uint64_t entry_offset;	/* in the file, for messages */
	uint64_t skip_bytes;	/* no table: how far that goes */
};

static inline uint64_t cluster_size(const struct qcow *q)
{
	return 1ULL << q->cluster_bits;
}

#define err_damaged(e, ...) err_set_kind((e), ERR_KIND_INPUT, -EBADMSG, __VA_ARGS__)

/* ---- the tables ---- */

/* Read exactly len bytes of the file, which must have them. */
static int read_file(struct qcow *q, void *buf, size_t len, uint64_t offset, const char *what, struct err *e)
{
	ssize_t n;

	if (!range_within(offset, len, q->file_bytes))
		return err_set_kind(e, ERR_KIND_INPUT, -ENODATA,
			"the qcow2 image is cut off or damaged: %s should be at offset %llu to %llu, the file ends at %llu",
			what, (unsigned long long)offset, (unsigned long long)(offset + len),
			(unsigned long long)q->file_bytes);
	n = pread_full(q->fd, buf, len, offset);
	if (n < 0)
		return err_set_errno(e, (int)n, "cannot read %s of the qcow2 image at offset %llu", what,
			(unsigned long long)offset);
	if ((size_t)n != len)
		return err_set_kind(e, ERR_KIND_INPUT, -ENODATA, "the qcow2 image became shorter while it was read");
	return 0;
}

/* Get the slice of an L2 table at `offset` of the file. The lock is held, and the result valid while it is. */
static int load_slice(struct qcow *q, uint64_t offset, const uint8_t **ret, struct err *e)
{
	/* Fibonacci hashing: tables lie at multiples of the cluster size, so that the low bits say nothing. */
	size_t at = (size_t)((offset / q->slice_bytes * 0x9E3779B97F4A7C15ULL) >> 40) % q->n_slots;
	uint8_t *slice = q->slices + at * q->slice_bytes;
	int r;

	if (q->slots[at].offset != offset) {
		q->slots[at].offset = 0;
		r = read_file(q, slice, q->slice_bytes, offset, "an L2 table", e);
		if (r < 0)
			return r;
		q->slots[at].offset = offset;
	}
	*ret = slice;
	return 0;
}

/* Find the L2 entry for a guest offset. The lock is held. */
static int find_entry(struct qcow *q, uint64_t guest, struct place *ret, struct err *e)
{
	unsigned table_bits = q->cluster_bits + q->l2_bits;
	uint64_t l1_index = guest >> table_bits, table, byte, in_slice;
	const uint8_t *slice;
	int r;

	assert(l1_index < q->l1_n);
	table = q->l1[l1_index];
	if (table == 0) {
		*ret = (struct place){ .skip_bytes = (1ULL << table_bits) - (guest & ((1ULL << table_bits) - 1)) };
		return 0;
	}
	byte = ((guest >> q->cluster_bits) & ((1ULL << q->l2_bits) - 1)) * q->entry_bytes;
	in_slice = byte % q->slice_bytes;
	r = load_slice(q, table + byte - in_slice, &slice, e);
	if (r < 0)
		return err_wrap(e, "for the guest's bytes at %llu (L1 entry %llu)", (unsigned long long)guest,
			(unsigned long long)l1_index);
	*ret = (struct place){ .entry = slice + in_slice,
		.n = (size_t)((q->slice_bytes - in_slice) / q->entry_bytes),
		.entry_offset = table + byte };
	return 0;
}

/* What an L2 entry says of the guest's bytes from `in_cluster` on, within that cluster. */
static int decode_entry(const struct qcow *q, const uint8_t *entry, uint64_t entry_offset, uint64_t in_cluster,
	enum run_kind *ret_kind, uint64_t *ret_host, uint64_t *ret_size, struct err *e)
{
	uint64_t descriptor = read_be64(entry), host = descriptor & L2_OFFSET_MASK, size = cluster_size(q);
	uint64_t known = L2_OFFSET_MASK | ENTRY_COPIED;
	uint32_t allocated, zero;
	unsigned first, sub, sub_bits;
	bool is_allocated, is_zero;

	if (descriptor & ENTRY_COMPRESSED) {
		*ret_kind = RUN_PACKED;
		*ret_host = descriptor;
		*ret_size = size - in_cluster;
		return 0;
	}
	if (!q->info.extended_l2)
		known |= ENTRY_ZERO;
	if (descriptor & ~known)
		return err_damaged(e,
			"the qcow2 image is damaged: the L2 entry at offset %llu (0x%016llx) has reserved bits set",
			(unsigned long long)entry_offset, (unsigned long long)descriptor);
	if (host & (size - 1))
		return err_damaged(e,
			"the qcow2 image is damaged: the L2 entry at offset %llu points to %llu, which is no multiple of "
			"the cluster size %llu",
			(unsigned long long)entry_offset, (unsigned long long)host, (unsigned long long)size);
	if (!q->info.extended_l2) {
		if ((descriptor & ENTRY_ZERO) && q->info.version < 3)
			return err_damaged(e,
				"the qcow2 image is damaged: the L2 entry at offset %llu is a zero cluster, which version 2 "
				"does not have",
				(unsigned long long)entry_offset);
		*ret_kind = host == 0 || (descriptor & ENTRY_ZERO) ? RUN_ZERO : RUN_DATA;
		*ret_host = host + in_cluster;
		*ret_size = size - in_cluster;
		return 0;
	}

	/* Section "Extended L2 Entries": bit x is the allocation of subcluster x, bit 32+x that it reads as zeros. */
	allocated = read_be32(entry + 12);
	zero = read_be32(entry + 8);
	if (allocated & zero)
		return err_damaged(e,
			"the qcow2 image is damaged: the extended L2 entry at offset %llu has subclusters that are both "
			"allocated and zero",
			(unsigned long long)entry_offset);
	if (host == 0 && allocated)
		return err_damaged(e,
			"the qcow2 image is damaged: the extended L2 entry at offset %llu has allocated subclusters "
			"and no cluster",
			(unsigned long long)entry_offset);
	sub_bits = q->cluster_bits - 5;
	first = (unsigned)(in_cluster >> sub_bits);
	is_allocated = allocated >> first & 1;
	for (sub = first + 1; sub < SUBCLUSTERS; sub++) {
		is_zero = !(allocated >> sub & 1);
		if (is_zero == is_allocated)
			break;
	}
	*ret_kind = is_allocated ? RUN_DATA : RUN_ZERO;
	*ret_host = host + in_cluster;
	*ret_size = ((uint64_t)sub << sub_bits) - in_cluster;
	return 0;
}

/* Describe the guest's bytes from `guest` on: one run, at most max_bytes long, that ends with the slice at the latest.
 * With want_packed false the descriptors of compressed clusters are not collected. The lock is held. */
static int find_run(struct qcow *q, uint64_t guest, uint64_t max_bytes, bool want_packed, struct run *ret, struct err *e)
{
	uint64_t in_cluster = guest & (cluster_size(q) - 1);
	struct place place = { .entry = NULL };
	int r = find_entry(q, guest, &place, e);

	if (r < 0)
		return r;
	ret->size_bytes = 0;
	ret->n_packed = 0;
	if (!place.entry) {
		ret->kind = RUN_ZERO;
		ret->size_bytes = place.skip_bytes < max_bytes ? place.skip_bytes : max_bytes;
		return 0;
	}
	for (size_t i = 0; i < place.n && ret->size_bytes < max_bytes;) {
		enum run_kind kind = RUN_ZERO;
		uint64_t host = 0, size = 0;

		r = decode_entry(q, place.entry + i * q->entry_bytes, place.entry_offset + i * q->entry_bytes, in_cluster,
			&kind, &host, &size, e);
		if (r < 0) {
			if (ret->size_bytes > 0)
				break; /* what is good goes first; the next lookup will say the same */
			return r;
		}
		if (ret->size_bytes == 0) {
			ret->kind = kind;
			ret->host_offset = host;
		} else if (kind != ret->kind || (kind == RUN_DATA && host != ret->host_offset + ret->size_bytes))
			break;
		if (kind == RUN_PACKED && want_packed) {
			if (ret->n_packed == RUN_CLUSTERS)
				break;
			ret->packed[ret->n_packed++] = host;
		}
		ret->size_bytes += size;
		in_cluster += size;
		if (in_cluster == cluster_size(q)) {
			in_cluster = 0;
			i++;
		}
	}
	err_clear(e);
	if (ret->size_bytes > max_bytes)
		ret->size_bytes = max_bytes;
	return 0;
}

/* ---- compressed clusters ---- */

static void context_free(struct qcow_context *c)
{
	if (!c)
		return;
	libdeflate_free_decompressor(c->deflate);
	(void)ZSTD_freeDCtx(c->zstd);
	free(c->packed);
	free(c->cluster);
	free(c);
}

static struct qcow_context *context_take(struct qcow *q)
{
	struct qcow_context *c;

	(void)pthread_mutex_lock(&q->lock);
	c = q->idle;
	if (c)
		q->idle = c->next;
	(void)pthread_mutex_unlock(&q->lock);
	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	if (q->info.compression == QCOW_COMPRESSION_ZSTD)
		c->zstd = ZSTD_createDCtx();
	else
		c->deflate = libdeflate_alloc_decompressor();
	if (!c->zstd && !c->deflate) {
		context_free(c);
		return NULL;
	}
	return c;
}

static void context_give(struct qcow *q, struct qcow_context *c)
{
	(void)pthread_mutex_lock(&q->lock);
	c->next = q->idle;
	q->idle = c;
	(void)pthread_mutex_unlock(&q->lock);
}

/* Where the bytes of a compressed cluster are (section "Compressed Clusters Descriptor"). The count of sectors is a
 * promise of the writer's; what is longer than any sensible stream is not read. */
static void packed_range(const struct qcow *q, uint64_t descriptor, uint64_t *ret_start, uint64_t *ret_end)
{
	unsigned bits = 62 - (q->cluster_bits - 8);
	uint64_t start = descriptor & ((1ULL << bits) - 1);
	uint64_t sectors = ((descriptor & (ENTRY_COMPRESSED - 1)) >> bits) + 1;
	uint64_t end = (start & ~(uint64_t)(SECTOR_BYTES - 1)) + sectors * SECTOR_BYTES;
	uint64_t longest = start + cluster_size(q) + cluster_size(q) / 64 + SECTOR_BYTES;

	*ret_start = start;
	*ret_end = end < longest ? end : longest;
}

/* Unpack one cluster. */
static bool unpack(const struct qcow *q, struct qcow_context *c, const uint8_t *in, size_t in_len, uint8_t *out)
{
	size_t done = 0, want = (size_t)cluster_size(q);

	if (q->info.compression == QCOW_COMPRESSION_ZLIB)
		return libdeflate_deflate_decompress(c->deflate, in, in_len, out, want, NULL) == LIBDEFLATE_SUCCESS;
	while (done < want) {
		/* What follows the frame is padding up to the sector, and must not be taken for another frame. */
		size_t frame = ZSTD_findFrameCompressedSize(in, in_len), n;

		if (ZSTD_isError(frame))
			return false;
		n = ZSTD_decompressDCtx(c->zstd, out + done, want - done, in, frame);
		if (ZSTD_isError(n))
			return false;
		in += frame;
		in_len -= frame;
		done += n;
	}
	return true;
}

static int err_unpack(const struct qcow *q, uint64_t guest, uint64_t start, uint64_t end, struct err *e)
{
	if (end > round_up_u64(q->file_bytes, SECTOR_BYTES))
		return err_set_kind(e, ERR_KIND_INPUT, -ENODATA,
			"the qcow2 image is cut off or damaged: a compressed cluster should be at offset %llu to %llu, the "
			"file ends at %llu",
			(unsigned long long)start, (unsigned long long)end, (unsigned long long)q->file_bytes);
	return err_damaged(e,
		"the qcow2 image is damaged: the %s compressed cluster at offset %llu (guest offset %llu) does not unpack "
		"to %llu bytes",
		q->info.compression == QCOW_COMPRESSION_ZSTD ? "zstd" : "zlib", (unsigned long long)start,
		(unsigned long long)guest, (unsigned long long)cluster_size(q));
}

/* Read [start, end) into c->packed; what lies past the end of the file is zeros (the last sector may be cut short). */
static int read_packed(struct qcow *q, struct qcow_context *c, uint64_t start, uint64_t end, struct err *e)
{
	size_t len = (size_t)(end - start), have = 0;

	if (len > c->packed_capacity_bytes) {
		free(c->packed);
		c->packed_capacity_bytes = 0;
		c->packed = malloc(len);
		if (!c->packed)
			return err_set(e, -ENOMEM, "out of memory for %zu bytes of compressed clusters", len);
		c->packed_capacity_bytes = len;
	}
	if (start < q->file_bytes) {
		ssize_t n;

		have = len < q->file_bytes - start ? len : (size_t)(q->file_bytes - start);
		n = pread_full(q->fd, c->packed, have, start);
		if (n < 0)
			return err_set_errno(e, (int)n, "cannot read compressed clusters of the qcow2 image at offset %llu",
				(unsigned long long)start);
		have = (size_t)n;
	}
	memset(c->packed + have, 0, len - have);
	return 0;
}

/* How many of the clusters from packed[0] on lie together well enough to be read in one go, and where. */
static size_t gather(const struct qcow *q, const uint64_t *packed, size_t n, uint64_t *ret_start, uint64_t *ret_end)
{
	uint64_t lo, hi, useful;
	size_t i;

	packed_range(q, packed[0], &lo, &hi);
	useful = hi - lo;
	for (i = 1; i < n; i++) {
		uint64_t start, end, new_lo, new_hi;

		packed_range(q, packed[i], &start, &end);
		new_lo = start < lo ? start : lo;
		new_hi = end > hi ? end : hi;
		useful += end - start;
		if (new_hi - new_lo > QCOW_SPAN_BYTES || new_hi - new_lo > 2 * useful)
			break;
		lo = new_lo;
		hi = new_hi;
	}
	*ret_start = lo;
	*ret_end = hi;
	return i;
}

/* Read a run of compressed clusters. */
static int read_run_packed(struct qcow *q, struct qcow_context *c, const struct run *run, uint8_t *buf, uint64_t guest,
	struct err *e)
{
	uint64_t left = run->size_bytes;

	for (size_t i = 0; i < run->n_packed && left > 0;) {
		uint64_t span_start = 0, span_end = 0;
		size_t n = gather(q, run->packed + i, run->n_packed - i, &span_start, &span_end);
		bool have_span = false;

		for (size_t end = i + n; i < end && left > 0; i++) {
			uint64_t in_cluster = guest & (cluster_size(q) - 1), take = cluster_size(q) - in_cluster, lo, hi;
			bool whole;
			int r;

			if (take > left)
				take = left;
			whole = take == cluster_size(q);
			if (!whole && !c->cluster) {
				c->cluster = malloc(cluster_size(q));
				if (!c->cluster)
					return err_set(e, -ENOMEM, "out of memory for a cluster of %llu bytes",
						(unsigned long long)cluster_size(q));
			}
			/* The descriptor is where the bytes are, so equal descriptors mean equal clusters. */
			if (whole || c->cluster_descriptor != run->packed[i]) {
				if (!have_span) {
					r = read_packed(q, c, span_start, span_end, e);
					if (r < 0)
						return r;
					have_span = true;
				}
				packed_range(q, run->packed[i], &lo, &hi);
				if (!whole)
					c->cluster_descriptor = 0;
				if (!unpack(q, c, c->packed + (lo - span_start), (size_t)(hi - lo),
					    whole ? buf : c->cluster))
					return err_unpack(q, guest, lo, hi, e);
				if (!whole)
					c->cluster_descriptor = run->packed[i];
			}
			if (!whole)
				memcpy(buf, c->cluster + in_cluster, (size_t)take);
			buf += take;
			guest += take;
			left -= take;
		}
	}
	return 0;
}

/* ---- the block device ---- */

static int qcow_read(struct blockdev *dev, void *buf, size_t len, uint64_t offset, struct err *e)
{
	struct qcow *q = (struct qcow *)dev;
	uint8_t *out = buf;

	while (len > 0) {
		struct qcow_context *c;
		struct run run;
		int r;

		(void)pthread_mutex_lock(&q->lock);
		r = find_run(q, offset, len, true, &run, e);
		(void)pthread_mutex_unlock(&q->lock);
		if (r < 0)
			return r;
		switch (run.kind) {
		case RUN_ZERO:
			memset(out, 0, (size_t)run.size_bytes);
			break;
		case RUN_DATA:
			r = read_file(q, out, (size_t)run.size_bytes, run.host_offset, "a data cluster", e);
			break;
		case RUN_PACKED:
			c = context_take(q);
			if (!c)
				return err_set(e, -ENOMEM, "out of memory for a decompressor");
			r = read_run_packed(q, c, &run, out, offset, e);
			context_give(q, c);
			break;
		}
		if (r < 0)
			return r;
		out += run.size_bytes;
		offset += run.size_bytes;
		len -= (size_t)run.size_bytes;
	}
	return 0;
}

static int qcow_next_extent(struct blockdev *dev, uint64_t offset, enum extent_kind *ret_kind,
	uint64_t *ret_size_bytes, struct err *e)
{
	struct qcow *q = (struct qcow *)dev;
	uint64_t size = 0;
	bool is_zero = false;
	int r = 0;

	(void)pthread_mutex_lock(&q->lock);
	for (unsigned i = 0; i < EXTENT_LOOKUPS && offset + size < dev->size_bytes; i++) {
		struct run run;

		r = find_run(q, offset + size, dev->size_bytes - offset - size, false, &run, e);
		if (r < 0)
			break;
		if (i == 0)
			is_zero = run.kind == RUN_ZERO;
		else if (is_zero != (run.kind == RUN_ZERO))
			break;
		size += run.size_bytes;
	}
	(void)pthread_mutex_unlock(&q->lock);
	if (size == 0)
		return r;
	err_clear(e); /* damage behind a good extent is for the next call */
	*ret_kind = is_zero ? EXTENT_ZERO : EXTENT_DATA;
	*ret_size_bytes = size;
	return 0;
}

static void qcow_free(struct blockdev *dev)
{
	struct qcow *q = (struct qcow *)dev;

	while (q->idle) {
		struct qcow_context *c = q->idle;

		q->idle = c->next;
		context_free(c);
	}
	(void)pthread_mutex_destroy(&q->lock);
	free(q->slices);
	free(q->slots);
	free(q->l1);
	free(q);
}

/* ---- opening ---- */

static int err_refused(struct err *e, const char *what, const char *advice)
{
	return err_set_kind(e, ERR_KIND_INPUT, -EOPNOTSUPP, "the qcow2 image %s, which is not supported: %s", what, advice);
}

/* The name that the image itself gives to an incompatible feature (section "Feature name table"), or "". */
static void feature_name(struct qcow *q, uint64_t extensions_offset, unsigned bit, char *ret, size_t ret_size)
{
	uint64_t offset = extensions_offset;
	struct err ignored = ERR_INIT;

	ret[0] = '\0';
	for (unsigned i = 0; i < QCOW_MAX_EXTENSIONS; i++) {
		uint8_t head[8], name[FEATURE_NAME_BYTES];
		uint32_t type, len;

		if (read_file(q, head, sizeof(head), offset, "a header extension", &ignored) < 0)
			return;
		type = read_be32(head);
		len = read_be32(head + 4);
		if (type == EXTENSION_END || len > cluster_size(q))
			return;
		offset += sizeof(head);
		for (uint32_t at = 0; type == EXTENSION_FEATURE_NAMES && at + sizeof(name) <= len; at += sizeof(name)) {
			if (read_file(q, name, sizeof(name), offset + at, "a feature name", &ignored) < 0)
				return;
			if (name[0] == 0 && name[1] == bit) {
				(void)err_sanitize(ret, ret_size, (const char *)name + 2,
					strnlen((const char *)name + 2, sizeof(name) - 2));
				return;
			}
		}
		offset += round_up_u64(len, 8);
	}
}

static int check_features(struct qcow *q, const uint8_t *header, uint32_t header_length, struct err *e)
{
	uint64_t bits = read_be64(header + H_INCOMPATIBLE);
	bool has_type = bits >> INCOMPATIBLE_COMPRESSION & 1;
	uint8_t type = header_length > H_COMPRESSION ? header[H_COMPRESSION] : 0;

	if (bits >> INCOMPATIBLE_KNOWN) {
		unsigned bit = (unsigned)__builtin_ctzll(bits >> INCOMPATIBLE_KNOWN) + INCOMPATIBLE_KNOWN;
		char name[FEATURE_NAME_BYTES];

		feature_name(q, header_length, bit, name, sizeof(name));
		return err_set_kind(e, ERR_KIND_INPUT, -EOPNOTSUPP,
			"the qcow2 image uses the incompatible feature bit %u%s%s%s, which is not known here: convert it "
			"with `qemu-img convert -O qcow2`",
			bit, name[0] ? " (" : "", name, name[0] ? ")" : "");
	}
	if (bits >> INCOMPATIBLE_CORRUPT & 1)
		return err_damaged(e,
			"the qcow2 image is marked as corrupt by the program that wrote it: get it again, or repair it with "
			"`qemu-img check -r all`");
	if (bits >> INCOMPATIBLE_DATA_FILE & 1)
		return err_refused(e, "keeps its data in an external data file",
			"put both into one with `qemu-img convert -O qcow2`");
	/* Both directions are required by the format: programs that ignore the field must be kept away by the bit. */
	if (has_type != (type != QCOW_COMPRESSION_ZLIB))
		return err_damaged(e, "the qcow2 header contradicts itself: compression type %u with its feature bit %s",
			type, has_type ? "set" : "clear");
	if (type > QCOW_COMPRESSION_ZSTD)
		return err_set_kind(e, ERR_KIND_INPUT, -EOPNOTSUPP,
			"the qcow2 image uses compression type %u, only 0 (zlib) and 1 (zstd) are supported: convert it with "
			"`qemu-img convert -O qcow2`",
			type);
	q->info.compression = (enum qcow_compression)type;
	q->info.extended_l2 = bits >> INCOMPATIBLE_EXTENDED_L2 & 1;
	q->info.dirty = bits >> INCOMPATIBLE_DIRTY & 1;
	if (q->info.extended_l2 && q->cluster_bits < EXTENDED_L2_MIN_CLUSTER_BITS)
		return err_damaged(e,
			"the qcow2 header contradicts itself: extended L2 entries with clusters of %llu bytes, at least 16384 "
			"are needed",
			(unsigned long long)cluster_size(q));
	return 0;
}

static int refuse_backing_file(struct qcow *q, const uint8_t *header, struct err *e)
{
	uint64_t offset = read_be64(header + H_BACKING_OFFSET);
	uint32_t size = read_be32(header + H_BACKING_SIZE);
	char raw[BACKING_NAME_MAX_BYTES], name[2 * BACKING_NAME_MAX_BYTES + 1];
	struct err ignored = ERR_INIT;

	if (offset == 0 || size == 0)
		return 0;
	if (size > sizeof(raw) || read_file(q, raw, size, offset, "the backing file's name", &ignored) < 0)
		(void)snprintf(name, sizeof(name), "?");
	else
		(void)err_sanitize(name, sizeof(name), raw, size);
	return err_set_kind(e, ERR_KIND_INPUT, -EOPNOTSUPP,
		"the qcow2 image is an overlay over the backing file `%s`, which is not supported: put both into one with "
		"`qemu-img convert -O qcow2`",
		name);
}

static int check_header(struct qcow *q, const uint8_t *header, size_t header_len, struct err *e)
{
	uint32_t version, bits, crypt, header_length;
	int r;

	if (header_len < H_V2_BYTES || !qcow_detect(header, header_len))
		return err_damaged(e, "this is no qcow2 image: %s",
			header_len < H_V2_BYTES ? "it is shorter than a header" : "the magic number is missing");
	version = read_be32(header + H_VERSION);
	if (version == 1)
		return err_refused(e, "is of version 1 (qcow)", "convert it with `qemu-img convert -O qcow2`");
	if (version != 2 && version != 3)
		return err_set_kind(e, ERR_KIND_INPUT, -EOPNOTSUPP,
			"the qcow2 image is of version %u, only 2 and 3 are supported", version);
	q->info.version = version;
	bits = read_be32(header + H_CLUSTER_BITS);
	if (bits < QCOW_MIN_CLUSTER_BITS || bits > QCOW_MAX_CLUSTER_BITS)
		return err_damaged(e, "the qcow2 header is damaged: clusters of 2^%u bytes, 2^%d to 2^%d are possible", bits,
			QCOW_MIN_CLUSTER_BITS, QCOW_MAX_CLUSTER_BITS);
	q->cluster_bits = bits;
	q->info.cluster_size_bytes = cluster_size(q);
	q->info.n_snapshots = read_be32(header + H_N_SNAPSHOTS);
	if (version >= 3) {
		header_length = header_len >= H_V3_BYTES ? read_be32(header + H_HEADER_LENGTH) : 0;
		if (header_length < H_V3_BYTES || header_length > cluster_size(q) || header_length % 8 != 0)
			return err_damaged(e,
				"the qcow2 header is damaged: its own length is given as %u bytes, expected are %d to the "
				"cluster size, in steps of 8",
				header_length, H_V3_BYTES);
		r = check_features(q, header, header_length, e);
		if (r < 0)
			return r;
	}
	crypt = read_be32(header + H_CRYPT_METHOD);
	if (crypt != 0)
		return err_refused(e,
			crypt == 1 ? "is encrypted (AES)" : crypt == 2 ? "is encrypted (LUKS)" : "is encrypted",
			"decrypt it with `qemu-img convert`");
	return refuse_backing_file(q, header, e);
}

static int load_l1(struct qcow *q, uint64_t offset, uint32_t entries, struct err *e)
{
	unsigned table_bits = q->cluster_bits + q->l2_bits;
	uint64_t tables = 0, need = q->dev.size_bytes == 0 ? 0 : ((q->dev.size_bytes - 1) >> table_bits) + 1;
	int r;

	if (need * sizeof(uint64_t) > QCOW_MAX_L1_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -EFBIG,
			"the qcow2 image claims a virtual size of %llu bytes: with clusters of %llu bytes at most %llu are "
			"supported",
			(unsigned long long)q->dev.size_bytes, (unsigned long long)cluster_size(q),
			(unsigned long long)(QCOW_MAX_L1_BYTES / sizeof(uint64_t)) << table_bits);
	if (need > entries)
		return err_damaged(e,
			"the qcow2 header is damaged: a virtual size of %llu bytes needs an L1 table of %llu entries, it has %u",
			(unsigned long long)q->dev.size_bytes, (unsigned long long)need, entries);
	if (need == 0)
		return 0;
	if (offset == 0 || offset & (cluster_size(q) - 1))
		return err_damaged(e,
			"the qcow2 header is damaged: the L1 table is at offset %llu, expected is a multiple of the cluster "
			"size %llu",
			(unsigned long long)offset, (unsigned long long)cluster_size(q));
	if (!range_within(offset, need * sizeof(uint64_t), q->file_bytes))
		return err_set_kind(e, ERR_KIND_INPUT, -ENODATA,
			"the qcow2 image is cut off or damaged: the L1 table should be at offset %llu to %llu, the file ends "
			"at %llu",
			(unsigned long long)offset, (unsigned long long)(offset + need * sizeof(uint64_t)),
			(unsigned long long)q->file_bytes);
	q->l1 = calloc((size_t)need, sizeof(*q->l1));
	if (!q->l1)
		return err_set(e, -ENOMEM, "out of memory for an L1 table of %llu entries", (unsigned long long)need);
	r = read_file(q, q->l1, (size_t)need * sizeof(*q->l1), offset, "the L1 table", e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < need; i++) {
		uint64_t entry = read_be64(&q->l1[i]);

		if ((entry & ~(L1_OFFSET_MASK | ENTRY_COPIED)) || (entry & L1_OFFSET_MASK & (cluster_size(q) - 1)))
			return err_damaged(e,
				"the qcow2 image is damaged: the L1 entry at offset %llu (0x%016llx) has reserved bits set or "
				"points to no multiple of the cluster size %llu",
				(unsigned long long)(offset + i * sizeof(uint64_t)), (unsigned long long)entry,
				(unsigned long long)cluster_size(q));
		q->l1[i] = entry & L1_OFFSET_MASK;
		tables += q->l1[i] != 0;
	}
	/* Each table is used once. Were one used for all of a huge disk, walking it would never end. */
	if (tables > q->file_bytes / cluster_size(q))
		return err_damaged(e,
			"the qcow2 image is damaged: its L1 table at offset %llu names %llu L2 tables, the file has room for "
			"%llu",
			(unsigned long long)offset, (unsigned long long)tables,
			(unsigned long long)(q->file_bytes / cluster_size(q)));
	q->l1_n = (size_t)need;
	return 0;
}

bool qcow_detect(const void *head, size_t len)
{
	return len >= 4 && memcmp(head, "QFI\xfb", 4) == 0;
}

int qcow_open(int fd, struct blockdev **ret, struct err *e)
{
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	uint8_t header[H_READ_BYTES] = { 0 };
	struct qcow *q;
	off_t end = lseek(fd, 0, SEEK_END);
	ssize_t n;
	int r;

	if (end < 0)
		return err_set_errno(e, -errno, "cannot tell the size of the qcow2 image");
	q = calloc(1, sizeof(*q));
	if (!q)
		return err_set(e, -ENOMEM, "out of memory");
	dev = &q->dev;
	(void)pthread_mutex_init(&q->lock, NULL);
	q->dev = (struct blockdev){ .read = qcow_read, .next_extent = qcow_next_extent, .free = qcow_free };
	q->fd = fd;
	q->file_bytes = (uint64_t)end;
	n = pread_full(fd, header, sizeof(header), 0);
	if (n < 0)
		return err_set_errno(e, (int)n, "cannot read the header of the qcow2 image");
	r = check_header(q, header, (size_t)n, e);
	if (r < 0)
		return r;

	q->dev.size_bytes = read_be64(header + H_SIZE);
	if (q->dev.size_bytes > INT64_MAX)
		return err_damaged(e, "the qcow2 header is damaged: a virtual size of %llu bytes",
			(unsigned long long)q->dev.size_bytes);
	q->entry_bytes = q->info.extended_l2 ? 16 : 8;
	q->l2_bits = q->cluster_bits - (q->info.extended_l2 ? 4 : 3);
	r = load_l1(q, read_be64(header + H_L1_OFFSET), read_be32(header + H_L1_SIZE), e);
	if (r < 0)
		return r;

	q->slice_bytes = cluster_size(q) < SLICE_MAX_BYTES ? (size_t)cluster_size(q) : SLICE_MAX_BYTES;
	q->n_slots = QCOW_TABLE_CACHE_BYTES / q->slice_bytes;
	q->slots = calloc(q->n_slots, sizeof(*q->slots));
	q->slices = malloc(QCOW_TABLE_CACHE_BYTES);
	if (!q->slots || !q->slices)
		return err_set(e, -ENOMEM, "out of memory for the cache of L2 tables");
	*ret = take_ptr(dev);
	return 0;
}

const struct qcow_info *qcow_get_info(const struct blockdev *dev)
{
	assert(dev->read == qcow_read);
	return &((const struct qcow *)(const void *)dev)->info;
}
