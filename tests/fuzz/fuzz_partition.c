/* Partition discovery: the input is the first and the last bytes of a disk, with nothing in between. The first byte says
 * how large the disk is. The root is looked for too, with a probe that takes every ext filesystem for a root. */
#include "builder/disk/root.h"
#include "lib/num.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_disk {
	struct blockdev dev;
	const uint8_t *data;
	size_t head, tail;
};

/* Copy what of [from, from + size) lies within the read. */
static void put(uint8_t *out, size_t len, uint64_t offset, const uint8_t *bytes, size_t size, uint64_t from)
{
	uint64_t lo = from > offset ? from : offset, hi = from + size < offset + len ? from + size : offset + len;

	if (lo < hi)
		memcpy(out + (lo - offset), bytes + (lo - from), (size_t)(hi - lo));
}

static int fuzz_read(struct blockdev *dev, void *buf, size_t len, uint64_t offset, struct err *e)
{
	struct fuzz_disk *d = (struct fuzz_disk *)dev;

	(void)e;
	memset(buf, 0, len);
	put(buf, len, offset, d->data, d->head, 0);
	put(buf, len, offset, d->data + d->head, d->tail, dev->size_bytes - d->tail);
	return 0;
}

static int fuzz_probe(void *ctx, struct blockdev *part, struct disk_fs *fs, struct err *e)
{
	(void)ctx;
	(void)part;
	(void)e;
	fs->is_root = true;
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint64_t sizes[] = { 0, 64 << 10, 1 << 20, 3 << 20, GIB(2), GIB(4096) };
	_cleanup_disk_layout_ struct disk_layout l = { .parts = NULL };
	struct fuzz_disk d = { .dev = { .read = fuzz_read } };
	struct err e = ERR_INIT;
	size_t index;

	if (size < 1)
		return 0;
	d.data = data + 1;
	d.tail = (size - 1) / 4;
	d.head = size - 1 - d.tail;
	d.dev.size_bytes = sizes[data[0] % ARRAY_SIZE(sizes)];
	if (d.dev.size_bytes < size - 1)
		d.dev.size_bytes = size - 1;
	if (disk_layout_read(&d.dev, ARCH_AMD64, fuzz_probe, NULL, &l, &e) < 0)
		return 0;
	for (size_t i = 0; i < l.n; i++)
		if (!range_within(l.parts[i].part.range.start_bytes, l.parts[i].part.range.size_bytes, d.dev.size_bytes))
			abort();
	if (disk_find_root(&l, NULL, &index, &e) == 0 && index >= l.n)
		abort();
	if (disk_find_boot(&l, l.n, &index) == 0 && index >= l.n)
		abort();
	return 0;
}
