/* What the tests of builder/disk share: files from bytes, a shell in a folder of its own, a qcow2 image made by hand. */
#ifndef IMGBUILD_TESTS_UNIT_DISK_HELPERS_H
#define IMGBUILD_TESTS_UNIT_DISK_HELPERS_H

#include "lib/blockdev.h"
#include "lib/buf.h"
#include "lib/io.h"
#include "lib/num.h"
#include "lib/process.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
/* after the others */
#include <cmocka.h>

#define TEST_PATH "PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"

static char test_dir[256];

static int make_test_dir(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	(void)snprintf(test_dir, sizeof(test_dir), "%s/imgbuild-disk.XXXXXX", tmp ? tmp : "/tmp");
	return mkdtemp(test_dir) ? 0 : -1;
}

static int remove_test_dir(void **state)
{
	(void)state;
	return remove_tree_at(AT_FDCWD, test_dir);
}

/* Run a script in the test's folder; it must succeed. Its output goes to *out, which may be NULL. */
__attribute__((unused)) static void shell(struct buf *out, const char *script)
{
	const char *argv[] = { "/bin/bash", "-euc", script, NULL };
	const char *env[] = { TEST_PATH, "LC_ALL=C.UTF-8", NULL };
	_cleanup_close_ int dir = open(test_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct process_options options = { .argv = argv, .env = env, .working_dirfd = dir };
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20), ignored = BUF_INIT(16 << 20);
	struct err e = ERR_INIT;
	int status = -1, r = process_run(&options, out ? out : &ignored, &text, 60000, &status, &e);

	if (r < 0 || status != 0)
		fail_msg("`%s` failed: %s%s", script, e.message, buf_str(&text));
}

/* Open a file of the test's folder. */
__attribute__((unused)) static int open_in_test_dir(const char *name, int flags)
{
	_cleanup_close_ int dir = open(test_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd;

	/* A new file, not a truncated one: ext4 flushes those to the disk when they are closed. */
	if (flags & O_TRUNC)
		(void)unlinkat(dir, name, 0);
	fd = openat(dir, name, flags | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	return fd;
}

/* A memory file with these bytes. */
__attribute__((unused)) static int file_of(const void *bytes, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite_full(fd, bytes, len, 0), 0);
	return fd;
}

/* All of a file of the test's folder. */
__attribute__((unused)) static void slurp(const char *name, struct buf *into)
{
	_cleanup_close_ int fd = open_in_test_dir(name, O_RDONLY);

	buf_reset(into);
	assert_int_equal(read_fd_to_end(fd, into), 0);
}

/* The message must have these words; NULL: none are asked for. */
__attribute__((unused)) static void assert_says(const struct err *e, const char *words)
{
	if (words && !strstr(e->message, words))
		fail_msg("expected a message with `%s`, got: %s", words, e->message);
}

static inline void write_be32(void *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		((uint8_t *)p)[i] = (uint8_t)(v >> (24 - 8 * i));
}

static inline void write_be64(void *p, uint64_t v)
{
	write_be32(p, (uint32_t)(v >> 32));
	write_be32((uint8_t *)p + 4, (uint32_t)v);
}

/* Numbers that are the same on every run: xorshift64*. */
static inline uint64_t next_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545F4914F6CDD1DULL;
}

/* A qcow2 image in memory: the header, the L1 table and one L2 table in a cluster each, data behind them. */
struct hand_image {
	uint8_t *bytes;
	size_t len, capacity;
	size_t cluster;
};

enum { HAND_L1 = 1, HAND_L2 = 2, HAND_DATA = 3 /* clusters */, HAND_COPIED = 63 };

__attribute__((unused)) static void hand_image_init(struct hand_image *h, uint32_t version, unsigned cluster_bits,
	uint64_t size_bytes)
{
	h->cluster = (size_t)1 << cluster_bits;
	h->capacity = 64 * h->cluster;
	h->len = HAND_DATA * h->cluster;
	h->bytes = calloc(1, h->capacity);
	assert_non_null(h->bytes);
	memcpy(h->bytes, "QFI\xfb", 4);
	write_be32(h->bytes + 4, version);
	write_be32(h->bytes + 20, cluster_bits);
	write_be64(h->bytes + 24, size_bytes);
	write_be32(h->bytes + 36, (uint32_t)(h->cluster / 8));
	write_be64(h->bytes + 40, HAND_L1 * h->cluster);
	if (version >= 3) {
		write_be32(h->bytes + 96, 4);
		write_be32(h->bytes + 100, 104);
	}
	write_be64(h->bytes + HAND_L1 * h->cluster, 1ULL << 63 | HAND_L2 * h->cluster);
}

__attribute__((unused)) static void hand_image_release(struct hand_image *h)
{
	free(h->bytes);
}
#define _cleanup_hand_image_ _cleanup_(hand_image_release)

/* Append bytes, the end rounded up to `align`. Returns where they are. */
__attribute__((unused)) static uint64_t hand_image_append(struct hand_image *h, const void *bytes, size_t len, size_t align)
{
	uint64_t at = h->len;

	assert_true(at + len + align <= h->capacity);
	memcpy(h->bytes + at, bytes, len);
	h->len = (size_t)round_up_u64(at + len, align);
	return at;
}

/* Set L2 entry i. */
__attribute__((unused)) static void hand_image_map(struct hand_image *h, size_t i, uint64_t entry)
{
	write_be64(h->bytes + HAND_L2 * h->cluster + 8 * i, entry);
}

#endif
