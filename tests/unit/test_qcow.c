#include "builder/disk/qcow.h"
#include "lib/pool.h"
#include "tests/unit/disk_helpers.h"

#include <libdeflate.h>

enum { CLUSTER_BITS = 12, CLUSTER = 1 << CLUSTER_BITS };

/* ---- an image made by hand ---- */

/* Text that compresses and tells its place. */
static void fill_text(uint8_t *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)('a' + (i / 16 + seed) % 26);
}

static uint64_t append_packed(struct hand_image *h, const uint8_t *cluster)
{
	struct libdeflate_compressor *c = libdeflate_alloc_compressor(9);
	uint8_t packed[2 * CLUSTER];
	unsigned bits = 62 - (CLUSTER_BITS - 8);
	size_t len = libdeflate_deflate_compress(c, cluster, CLUSTER, packed, sizeof(packed));
	uint64_t at;

	assert_true(len > 0);
	at = hand_image_append(h, packed, len, 1); /* the next one begins in the same sector */
	libdeflate_free_compressor(c);
	return 1ULL << 62 | (((at + len - 1) / 512 - at / 512) << bits) | at;
}

/* Clusters 0 data, 1 compressed, 2 compressed, 3 zero with an allocation, 4 none, 5 zero; the rest is not mapped. The
 * disk ends in cluster 6, which is data and cut short. */
static void make_hand_image(struct hand_image *h, uint8_t *expected)
{
	memset(expected, 0, 7 * CLUSTER);
	hand_image_init(h, 3, CLUSTER_BITS, 6 * CLUSTER + 512);
	fill_text(expected, CLUSTER, 1);
	fill_text(expected + CLUSTER, CLUSTER, 2);
	fill_text(expected + 2 * CLUSTER, CLUSTER, 3);
	fill_text(expected + 6 * CLUSTER, 512, 4);
	hand_image_map(h, 0, 1ULL << HAND_COPIED | hand_image_append(h, expected, CLUSTER, CLUSTER));
	hand_image_map(h, 3, 1ULL << HAND_COPIED | hand_image_append(h, expected, CLUSTER, CLUSTER) | 1);
	hand_image_map(h, 5, 1);
	hand_image_map(h, 6, 1ULL << HAND_COPIED | hand_image_append(h, expected + 6 * CLUSTER, 512, CLUSTER));
	hand_image_map(h, 1, append_packed(h, expected + CLUSTER));
	hand_image_map(h, 2, append_packed(h, expected + 2 * CLUSTER));
}

static int open_bytes(const struct hand_image *h, int *ret_fd, struct blockdev **ret, struct err *e)
{
	err_clear(e);
	*ret = NULL;
	*ret_fd = file_of(h->bytes, h->len);
	return qcow_open(*ret_fd, ret, e);
}

static void test_reads_what_was_made(void **state)
{
	_cleanup_hand_image_ struct hand_image h;
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	_cleanup_close_ int fd = -1;
	static uint8_t expected[7 * CLUSTER], got[7 * CLUSTER];
	struct err e = ERR_INIT;
	uint64_t random = 7;

	(void)state;
	make_hand_image(&h, expected);
	assert_int_equal(open_bytes(&h, &fd, &dev, &e), 0);
	assert_int_equal(dev->size_bytes, 6 * CLUSTER + 512);
	assert_int_equal(qcow_get_info(dev)->version, 3);
	assert_int_equal(qcow_get_info(dev)->cluster_size_bytes, CLUSTER);
	assert_int_equal(blockdev_read(dev, got, 6 * CLUSTER + 512, 0, &e), 0);
	assert_memory_equal(got, expected, 6 * CLUSTER + 512);
	/* Any part of it: across clusters, within one, one byte. */
	for (unsigned i = 0; i < 500; i++) {
		uint64_t start = next_random(&random) % dev->size_bytes;
		size_t len = (size_t)(next_random(&random) % (dev->size_bytes - start + 1));

		memset(got, 0xEE, sizeof(got));
		assert_int_equal(blockdev_read(dev, got, len, start, &e), 0);
		assert_memory_equal(got, expected + start, len);
		assert_true(got[len] == 0xEE);
	}
	assert_int_equal(blockdev_read(dev, got, 2, dev->size_bytes - 1, &e), -EINVAL);
}

static void test_extents_of_what_was_made(void **state)
{
	static const struct {
		uint64_t start, size;
		enum extent_kind kind;
	} expected[] = { { 0, 3 * CLUSTER, EXTENT_DATA }, { 3 * CLUSTER, 3 * CLUSTER, EXTENT_ZERO },
		{ 6 * CLUSTER, 512, EXTENT_DATA } };
	_cleanup_hand_image_ struct hand_image h;
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	_cleanup_close_ int fd = -1;
	uint8_t bytes[7 * CLUSTER];
	struct err e = ERR_INIT;

	(void)state;
	make_hand_image(&h, bytes);
	assert_int_equal(open_bytes(&h, &fd, &dev, &e), 0);
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		enum extent_kind kind;
		uint64_t size;

		assert_int_equal(blockdev_next_extent(dev, expected[i].start, &kind, &size, &e), 0);
		assert_int_equal(kind, expected[i].kind);
		assert_int_equal(size, expected[i].size);
		assert_int_equal(blockdev_next_extent(dev, expected[i].start + 100, &kind, &size, &e), 0);
		assert_int_equal(size, expected[i].size - 100);
	}
}

/* ---- what is refused, and with which words ---- */

static void test_refuses_headers(void **state)
{
	/* Where, how many bytes, what to put there, in which version; what must come of it. */
	static const struct {
		const char *why;
		unsigned version, at, width;
		uint64_t value;
		int code;
		const char *words;
	} cases[] = {
		{ "no magic", 3, 0, 4, 0x514649FC, -EBADMSG, "magic" },
		{ "version 1", 3, 4, 4, 1, -EOPNOTSUPP, "version 1" },
		{ "version 4", 3, 4, 4, 4, -EOPNOTSUPP, "version 4" },
		{ "clusters of 256 bytes", 3, 20, 4, 8, -EBADMSG, "2^8" },
		{ "clusters of 4 MiB", 3, 20, 4, 22, -EBADMSG, "2^22" },
		{ "AES", 2, 32, 4, 1, -EOPNOTSUPP, "encrypted (AES)" },
		{ "LUKS", 3, 32, 4, 2, -EOPNOTSUPP, "encrypted (LUKS)" },
		{ "another encryption", 3, 32, 4, 3, -EOPNOTSUPP, "encrypted" },
		{ "corrupt bit", 3, 72, 8, 1 << 1, -EBADMSG, "marked as corrupt" },
		{ "data file", 3, 72, 8, 1 << 2, -EOPNOTSUPP, "external data file" },
		{ "compression bit alone", 3, 72, 8, 1 << 3, -EBADMSG, "contradicts itself" },
		{ "extended L2 with small clusters", 3, 72, 8, 1 << 4, -EBADMSG, "16384" },
		{ "unknown bit 5", 3, 72, 8, 1 << 5, -EOPNOTSUPP, "feature bit 5" },
		{ "unknown bit 63", 3, 72, 8, 1ULL << 63, -EOPNOTSUPP, "feature bit 63" },
		{ "header too short for its version", 3, 100, 4, 96, -EBADMSG, "given as 96" },
		{ "header longer than a cluster", 3, 100, 4, 8192, -EBADMSG, "given as 8192" },
		{ "header length odd", 3, 100, 4, 107, -EBADMSG, "given as 107" },
		{ "virtual size past 2^63", 3, 24, 8, 1ULL << 63, -EBADMSG, "virtual size" },
		{ "virtual size past the L1 limit", 3, 24, 8, (1ULL << 43) + 1, -EFBIG, "at most 8796093022208" },
		{ "virtual size past the L1 table", 3, 24, 8, (512ULL << 21) + 1, -EBADMSG, "L1 table of 513 entries" },
		{ "L1 table empty", 3, 36, 4, 0, -EBADMSG, "it has 0" },
		{ "L1 table at 0", 3, 40, 8, 0, -EBADMSG, "L1 table is at offset 0" },
		{ "L1 table not aligned", 3, 40, 8, CLUSTER + 512, -EBADMSG, "L1 table is at offset 4608" },
		{ "L1 table past the end", 3, 40, 8, 1ULL << 40, -ENODATA, "L1 table" },
		{ "L1 table past 2^64", 3, 40, 8, ~(uint64_t)(CLUSTER - 1), -ENODATA, "L1 table" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_hand_image_ struct hand_image h;
		struct blockdev *dev;
		_cleanup_close_ int fd = -1;
		struct err e = ERR_INIT;
		int r;

		hand_image_init(&h, cases[i].version, CLUSTER_BITS, CLUSTER);
		if (cases[i].width == 8)
			write_be64(h.bytes + cases[i].at, cases[i].value);
		else
			write_be32(h.bytes + cases[i].at, (uint32_t)cases[i].value);
		r = open_bytes(&h, &fd, &dev, &e);
		if (r != cases[i].code)
			fail_msg("%s: got %d (%s)", cases[i].why, r, e.message);
		assert_says(&e, cases[i].words);
		assert_int_equal(e.kind, ERR_KIND_INPUT);
	}
}

static void test_refuses_compression_types(void **state)
{
	static const struct {
		uint8_t type;
		bool bit;
		int code;
	} cases[] = { { 0, false, 0 }, { 1, true, 0 }, { 1, false, -EBADMSG }, { 0, true, -EBADMSG },
		{ 2, true, -EOPNOTSUPP } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_hand_image_ struct hand_image h;
		_cleanup_blockdev_ struct blockdev *dev = NULL;
		_cleanup_close_ int fd = -1;
		struct err e = ERR_INIT;

		hand_image_init(&h, 3, CLUSTER_BITS, CLUSTER);
		write_be32(h.bytes + 100, 112);
		h.bytes[104] = cases[i].type;
		write_be64(h.bytes + 72, cases[i].bit ? 1 << 3 : 0);
		assert_int_equal(open_bytes(&h, &fd, &dev, &e), cases[i].code);
		if (cases[i].code == -EOPNOTSUPP)
			assert_says(&e, "compression type 2");
	}
}

static void test_names_unknown_features_and_backing_files(void **state)
{
	_cleanup_hand_image_ struct hand_image h;
	struct blockdev *dev;
	int fd;
	struct err e = ERR_INIT;

	(void)state;
	hand_image_init(&h, 3, CLUSTER_BITS, CLUSTER);
	write_be64(h.bytes + 72, 1 << 7);
	write_be32(h.bytes + 104, 0x12345678); /* an extension to be skipped, its length not a multiple of 8 */
	write_be32(h.bytes + 108, 3);
	write_be32(h.bytes + 120, 0x6803F857);
	write_be32(h.bytes + 124, 2 * 48);
	h.bytes[128 + 1] = 6;
	memcpy(h.bytes + 128 + 2, "not this", 8);
	h.bytes[176 + 1] = 7;
	memcpy(h.bytes + 176 + 2, "holograms\33[2J", 13);
	assert_int_equal(open_bytes(&h, &fd, &dev, &e), -EOPNOTSUPP);
	assert_says(&e, "feature bit 7 (holograms?[2J)");
	(void)close(fd);

	write_be64(h.bytes + 72, 0);
	write_be64(h.bytes + 8, 512);
	write_be32(h.bytes + 16, 10);
	memcpy(h.bytes + 512, "../base.im", 10);
	assert_int_equal(open_bytes(&h, &fd, &dev, &e), -EOPNOTSUPP);
	assert_says(&e, "backing file `../base.im`");
	(void)close(fd);

	write_be32(h.bytes + 16, 0x7FFFFFFF);
	assert_int_equal(open_bytes(&h, &fd, &dev, &e), -EOPNOTSUPP);
	assert_says(&e, "backing file");
	(void)close(fd);
}

static void test_accepts_what_a_reader_may(void **state)
{
	_cleanup_hand_image_ struct hand_image h;
	struct err e = ERR_INIT;

	(void)state;
	/* The dirty bit, unknown compatible and autoclear bits, snapshots, an unknown extension, virtual size 0. */
	for (unsigned i = 0; i < 2; i++) {
		_cleanup_blockdev_ struct blockdev *dev = NULL;
		_cleanup_close_ int fd = -1;

		hand_image_init(&h, 3, CLUSTER_BITS, i ? 0 : CLUSTER);
		write_be64(h.bytes + 72, 1);
		memset(h.bytes + 80, 0xFF, 16);
		write_be32(h.bytes + 60, 12345);
		write_be32(h.bytes + 104, 0x12345678);
		write_be32(h.bytes + 108, 0x7FFFFFFF);
		assert_int_equal(open_bytes(&h, &fd, &dev, &e), 0);
		assert_true(qcow_get_info(dev)->dirty);
		assert_int_equal(qcow_get_info(dev)->n_snapshots, 12345);
		if (i == 0)
			hand_image_release(&h);
	}
}

/* ---- tables that lie ---- */

static void test_refuses_tables(void **state)
{
	enum { L1_ENTRY = HAND_L1 * CLUSTER, L2_ENTRY = HAND_L2 * CLUSTER };
	static const struct {
		const char *why;
		uint32_t version;
		uint64_t at, value;
		int open_code, read_code;
		const char *words;
	} cases[] = {
		{ "L1 reserved bit", 3, L1_ENTRY, 1, -EBADMSG, 0, "L1 entry at offset 4096" },
		{ "L1 not aligned", 3, L1_ENTRY, 0x2200, -EBADMSG, 0, "L1 entry at offset 4096" },
		{ "L2 table past the end", 3, L1_ENTRY, 0x100000, 0, -ENODATA, "L2 table should be at offset 1048576" },
		{ "L2 table past the end, huge", 3, L1_ENTRY, 0x00FFFFFFFFFFF000, 0, -ENODATA, "L2 table" },
		{ "data not aligned", 3, L2_ENTRY, 0x3200, 0, -EBADMSG, "L2 entry at offset 8192 points to 12800" },
		{ "reserved bits 1..8", 3, L2_ENTRY, 0x3002, 0, -EBADMSG, "reserved bits" },
		{ "reserved bits 56..61", 3, L2_ENTRY, 1ULL << 56 | 0x3000, 0, -EBADMSG, "reserved bits" },
		{ "zero cluster in version 2", 2, L2_ENTRY, 1, 0, -EBADMSG, "zero cluster" },
		{ "data past the end", 3, L2_ENTRY, 0x1000000, 0, -ENODATA, "data cluster should be at offset 16777216" },
		{ "data past the end, huge", 3, L2_ENTRY, 0x00FFFFFFFFFFF000, 0, -ENODATA, "data cluster" },
		{ "compressed past the end", 3, L2_ENTRY, 1ULL << 62 | 0x1000000, 0, -ENODATA, "compressed cluster" },
		{ "compressed past the end, huge", 3, L2_ENTRY, ~0ULL, 0, -ENODATA, "compressed cluster" },
		{ "compressed, not deflate", 3, L2_ENTRY, 1ULL << 62 | 0x3000, 0, -EBADMSG, "zlib compressed cluster at offset 12288" },
		{ "compressed, reading the header", 3, L2_ENTRY, 1ULL << 62, 0, -EBADMSG, "does not unpack" },
	};
	uint8_t cluster[CLUSTER];

	(void)state;
	memset(cluster, 0xFF, sizeof(cluster));
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_hand_image_ struct hand_image h;
		_cleanup_blockdev_ struct blockdev *dev = NULL;
		_cleanup_close_ int fd = -1;
		struct err e = ERR_INIT;
		int r;

		hand_image_init(&h, cases[i].version, CLUSTER_BITS, CLUSTER);
		(void)hand_image_append(&h, cluster, CLUSTER, CLUSTER);
		write_be64(h.bytes + cases[i].at, cases[i].value);
		r = open_bytes(&h, &fd, &dev, &e);
		if (r == 0 && cases[i].open_code == 0)
			r = blockdev_read(dev, cluster, 512, 0, &e);
		if (r != (cases[i].open_code ? cases[i].open_code : cases[i].read_code))
			fail_msg("%s: got %d (%s)", cases[i].why, r, e.message);
		assert_says(&e, cases[i].words);
		assert_int_equal(e.kind, ERR_KIND_INPUT);
		memset(cluster, 0xFF, sizeof(cluster));
	}
}

static void test_refuses_extended_entries(void **state)
{
	enum { BITS = 14 };
	static const struct {
		uint64_t entry, bitmap;
		int code;
		const char *words;
	} cases[] = {
		{ 3 << BITS, 0x00000000FFFFFFFF, 0, NULL },
		{ 3 << BITS, 0x00000001FFFFFFFF, -EBADMSG, "both allocated and zero" },
		{ 0, 1, -EBADMSG, "no cluster" },
		{ 0, 0xFFFFFFFF00000000, 0, NULL },
		{ 3 << BITS | 1, 0, -EBADMSG, "reserved bits" },
	};
	static uint8_t cluster[1 << BITS];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_hand_image_ struct hand_image h;
		_cleanup_blockdev_ struct blockdev *dev = NULL;
		_cleanup_close_ int fd = -1;
		struct err e = ERR_INIT;

		hand_image_init(&h, 3, BITS, 1 << BITS);
		(void)hand_image_append(&h, cluster, 1 << BITS, 1 << BITS);
		write_be64(h.bytes + 72, 1 << 4);
		hand_image_map(&h, 0, cases[i].entry);
		hand_image_map(&h, 1, cases[i].bitmap);
		assert_int_equal(open_bytes(&h, &fd, &dev, &e), 0);
		assert_true(qcow_get_info(dev)->extended_l2);
		assert_int_equal(blockdev_read(dev, cluster, 1 << BITS, 0, &e), cases[i].code);
		assert_says(&e, cases[i].words);
	}
}

/* Were one table named for every part of a huge disk, walking it would not end. */
static void test_refuses_shared_tables(void **state)
{
	_cleanup_hand_image_ struct hand_image h;
	struct blockdev *dev;
	_cleanup_close_ int fd = -1;
	struct err e = ERR_INIT;

	(void)state;
	hand_image_init(&h, 3, CLUSTER_BITS, 512ULL << 21);
	for (unsigned i = 0; i < 512; i++)
		write_be64(h.bytes + HAND_L1 * CLUSTER + 8 * i, HAND_L2 * CLUSTER);
	assert_int_equal(open_bytes(&h, &fd, &dev, &e), -EBADMSG);
	assert_says(&e, "names 512 L2 tables");
}

static void test_l1_limit(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	/* The largest L1 table there may be: 32 MiB, in a sparse file. */
	for (unsigned past = 0; past < 2; past++) {
		_cleanup_hand_image_ struct hand_image h;
		_cleanup_blockdev_ struct blockdev *dev = NULL;
		_cleanup_close_ int fd = -1;
		uint8_t byte;

		hand_image_init(&h, 3, CLUSTER_BITS, (1ULL << 43) + past);
		write_be32(h.bytes + 36, 0xFFFFFFFF);
		write_be64(h.bytes + HAND_L1 * CLUSTER, 0);
		fd = file_of(h.bytes, CLUSTER);
		assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0);
		assert_int_equal(qcow_open(fd, &dev, &e), past ? -EFBIG : 0);
		if (!past)
			assert_int_equal(blockdev_read(dev, &byte, 1, (1ULL << 43) - 1, &e), 0);
	}
}

static void test_refuses_short_files(void **state)
{
	_cleanup_hand_image_ struct hand_image h;
	struct err e = ERR_INIT;
	size_t whole;

	(void)state;
	hand_image_init(&h, 3, CLUSTER_BITS, CLUSTER);
	whole = h.len;
	for (h.len = 0; h.len < 200; h.len++) {
		struct blockdev *dev;
		_cleanup_close_ int fd = -1;

		assert_true(open_bytes(&h, &fd, &dev, &e) < 0);
	}
	assert_true(whole > 200);
}

/* ---- damaged images: an error or what qemu-img reads ---- */

/* Read all of an image in pieces. Returns 0 with the contents, or the first error. */
static int read_all(const uint8_t *bytes, size_t len, struct buf *into, struct err *e)
{
	_cleanup_close_ int fd = file_of(bytes, len);
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	int r = qcow_open(fd, &dev, e);

	buf_reset(into);
	if (r < 0)
		return r;
	if (dev->size_bytes > 4 << 20)
		return -EFBIG;
	for (uint64_t at = 0; at < dev->size_bytes;) {
		static uint8_t piece[100000];
		enum extent_kind kind;
		uint64_t size;

		r = blockdev_next_extent(dev, at, &kind, &size, e);
		if (r < 0)
			return r;
		assert_true(size > 0 && size <= dev->size_bytes - at);
		if (size > sizeof(piece))
			size = sizeof(piece);
		r = blockdev_read(dev, piece, (size_t)size, at, e);
		if (r < 0)
			return r;
		if (kind == EXTENT_ZERO)
			assert_true(piece[0] == 0 && memcmp(piece, piece + 1, (size_t)size - 1) == 0);
		assert_int_equal(buf_append(into, piece, (size_t)size), 0);
		at += size;
	}
	return 0;
}

/* Ask qemu-img what a damaged image contains. False: it refuses to say. */
static bool qemu_reads(const uint8_t *bytes, size_t len, struct buf *into)
{
	_cleanup_close_ int fd = open_in_test_dir("damaged", O_WRONLY | O_CREAT | O_TRUNC);
	struct stat st;

	assert_int_equal(pwrite_full(fd, bytes, len, 0), 0);
	shell(NULL, "rm -f raw; timeout 10 qemu-img convert -f qcow2 -O raw damaged raw 2>/dev/null || rm -f raw; touch raw");
	{
		_cleanup_close_ int raw = open_in_test_dir("raw", O_RDONLY);

		assert_int_equal(fstat(raw, &st), 0);
	}
	if (st.st_size == 0)
		return false;
	slurp("raw", into);
	return true;
}

static void test_damaged_images(void **state)
{
	static const char *const options[] = { "cluster_size=4k", "cluster_size=16k,extended_l2=on",
		"cluster_size=4k,compression_type=zstd", "cluster_size=512,compat=0.10" };
	enum { SEEDS = 1200, MAX_JUDGED = 24 };

	(void)state;
	shell(NULL, "seq 1 60000 | head -c 200000 >plain; truncate -s 300k plain; head -c 90000 /dev/urandom >>plain");
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		_cleanup_buf_ struct buf image = BUF_INIT(4 << 20), got = BUF_INIT(4 << 20), theirs = BUF_INIT(4 << 20),
			good = BUF_INIT(4 << 20);
		char script[512];
		unsigned refused = 0, same = 0, judged = 0;
		uint64_t random = 1000 + i;
		struct err e = ERR_INIT;

		(void)snprintf(script, sizeof(script),
			"qemu-img convert %s -f raw -O qcow2 -o %s plain image; qemu-img convert -O raw image plain.raw",
			i == 1 ? "" : "-c", options[i]);
		shell(NULL, script);
		slurp("image", &image);
		slurp("plain.raw", &good);
		assert_int_equal(read_all((uint8_t *)image.data, image.len, &got, &e), 0);
		assert_int_equal(got.len, good.len);
		assert_memory_equal(got.data, good.data, good.len);
		for (unsigned seed = 0; seed < SEEDS; seed++) {
			_cleanup_free_ uint8_t *copy = malloc(image.len);
			unsigned flips = 1 + (unsigned)(next_random(&random) % 3);

			assert_non_null(copy);
			memcpy(copy, image.data, image.len);
			/* The header, then the first clusters, where qemu-img puts its tables. */
			for (unsigned f = 0; f < flips; f++) {
				size_t reach = next_random(&random) % 3 == 0 ? 112 : image.len < 40000 ? image.len : 40000;

				copy[next_random(&random) % reach] ^= (uint8_t)(1u << next_random(&random) % 8);
			}
			err_clear(&e);
			if (read_all(copy, image.len, &got, &e) < 0) {
				refused++;
				continue;
			}
			if (got.len == good.len && memcmp(got.data, good.data, good.len) == 0) {
				same++;
				continue;
			}
			/* Something else than before: then it must be what the bytes say now. */
			if (judged++ < MAX_JUDGED && qemu_reads(copy, image.len, &theirs) &&
				(theirs.len < got.len / 512 * 512 || memcmp(got.data, theirs.data, got.len / 512 * 512) != 0))
				fail_msg("%s, seed %u: our contents differ from qemu-img's", options[i], seed);
		}
		assert_true(refused > SEEDS / 10 && same > SEEDS / 10 && (judged > 0 || i != 1));
	}
}

/* ---- several threads ---- */

struct shared_reading {
	struct blockdev *dev;
	const struct buf *expected;
};

static int read_shared(void *ctx, size_t i, struct err *e)
{
	struct shared_reading *s = ctx;
	uint64_t random = i + 1;
	_cleanup_free_ uint8_t *buf = malloc(200000);

	if (!buf)
		return err_set(e, -ENOMEM, "out of memory");
	for (unsigned n = 0; n < 60; n++) {
		uint64_t start = next_random(&random) % s->dev->size_bytes;
		size_t len = (size_t)(next_random(&random) % 200000);
		int r;

		if (len > s->dev->size_bytes - start)
			len = (size_t)(s->dev->size_bytes - start);
		r = blockdev_read(s->dev, buf, len, start, e);
		if (r < 0)
			return r;
		if (memcmp(buf, s->expected->data + start, len) != 0)
			return err_set(e, -EBADMSG, "wrong bytes at %llu", (unsigned long long)start);
	}
	return 0;
}

static void test_several_threads(void **state)
{
	_cleanup_buf_ struct buf expected = BUF_INIT(4 << 20);
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	_cleanup_close_ int fd = -1;
	struct shared_reading s;
	struct err e = ERR_INIT;

	(void)state;
	shell(NULL, "seq 1 400000 | head -c 2000000 >plain; qemu-img convert -c -f raw -O qcow2 -o cluster_size=8k plain image; "
		    "qemu-img convert -O raw image plain.raw");
	slurp("plain.raw", &expected);
	fd = open_in_test_dir("image", O_RDONLY);
	assert_int_equal(qcow_open(fd, &dev, &e), 0);
	s = (struct shared_reading){ .dev = dev, .expected = &expected };
	if (pool_run(4, 16, read_shared, &s, &e) < 0)
		fail_msg("%s", e.message);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reads_what_was_made),
		cmocka_unit_test(test_extents_of_what_was_made),
		cmocka_unit_test(test_refuses_headers),
		cmocka_unit_test(test_refuses_compression_types),
		cmocka_unit_test(test_names_unknown_features_and_backing_files),
		cmocka_unit_test(test_accepts_what_a_reader_may),
		cmocka_unit_test(test_refuses_tables),
		cmocka_unit_test(test_refuses_extended_entries),
		cmocka_unit_test(test_refuses_shared_tables),
		cmocka_unit_test(test_l1_limit),
		cmocka_unit_test(test_refuses_short_files),
		cmocka_unit_test(test_damaged_images),
		cmocka_unit_test(test_several_threads),
	};

	return cmocka_run_group_tests(tests, make_test_dir, remove_test_dir);
}
