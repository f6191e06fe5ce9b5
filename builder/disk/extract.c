#include "builder/disk/extract.h"
#include "lib/io.h"
#include "lib/num.h"
#include "lib/pool.h"

#include <pthread.h>
#include <sys/stat.h>

enum {
	CHUNK_MAX_BYTES = 1 << 20, /* large enough that writers seldom meet at the lock of the file */
	CHUNK_MIN_BYTES = 256 << 10
};

struct extraction {
	struct blockdev *dev; /* borrowed */
	int out_fd;	      /* lent */
	size_t chunk_bytes;

	pthread_mutex_t lock; /* guards everything below */
	uint64_t next;	      /* where nobody has looked yet */
	uint64_t extent_end;  /* up to here it is data; <= next: unknown */
	uint64_t done;
	bool failed;
	struct extract_stats stats;
	struct progress *progress;
};

/* Claim the next piece of data for one thread: at most a chunk, and never across a multiple of the chunk size, so that
 * compressed clusters are not cut. *ret_size is 0 at the end. */
static int claim(struct extraction *x, uint64_t *ret_offset, size_t *ret_size, struct err *e)
{
	uint64_t end;

	*ret_size = 0;
	while (x->next >= x->extent_end) {
		enum extent_kind kind;
		uint64_t size;
		int r;

		if (x->next >= x->dev->size_bytes)
			return 0;
		r = blockdev_next_extent(x->dev, x->next, &kind, &size, e);
		if (r < 0)
			return r;
		if (kind == EXTENT_DATA)
			x->extent_end = x->next + size;
		else
			x->next += size;
	}
	end = (x->next / x->chunk_bytes + 1) * x->chunk_bytes;
	if (end > x->extent_end)
		end = x->extent_end;
	*ret_offset = x->next;
	*ret_size = (size_t)(end - x->next);
	x->next = end;
	return 0;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	static const uint8_t zeros[16];
	size_t head = len < sizeof(zeros) ? len : sizeof(zeros);

	return memcmp(p, zeros, head) == 0 && memcmp(p, p + head, len - head) == 0;
}

/* Write what is not zero. Blocks are counted from the start of the device, so that holes are where blocks are. */
static int write_data(struct extraction *x, const uint8_t *buf, size_t len, uint64_t offset, uint64_t *ret_written,
	struct err *e)
{
	size_t at = 0, start = 0; /* [start, at) is to be written */

	*ret_written = 0;
	for (;;) {
		size_t block = EXTRACT_HOLE_BYTES - (size_t)((offset + at) % EXTRACT_HOLE_BYTES);
		bool end = at >= len;

		if (!end && block > len - at)
			block = len - at;
		if (!end && !is_zero(buf + at, block)) {
			at += block;
			continue;
		}
		if (at > start) {
			int r = pwrite_full(x->out_fd, buf + start, at - start, offset + start);

			if (r < 0)
				return err_set_errno(e, r, "cannot write %zu bytes at offset %llu of the extracted image",
					at - start, (unsigned long long)(offset + start)),
				       err_default_kind(e, ERR_KIND_HOST);
			*ret_written += at - start;
		}
		if (end)
			return 0;
		at += block;
		start = at;
	}
}

static int copy_chunks(struct extraction *x, struct err *e)
{
	_cleanup_free_ uint8_t *buf = malloc(x->chunk_bytes);
	uint64_t offset = 0, written;
	size_t size;
	int r;

	if (!buf)
		return err_set(e, -ENOMEM, "out of memory for a buffer of %zu bytes", x->chunk_bytes);
	for (;;) {
		(void)pthread_mutex_lock(&x->lock);
		r = x->failed ? -ECANCELED : claim(x, &offset, &size, e);
		(void)pthread_mutex_unlock(&x->lock);
		if (r == -ECANCELED)
			return 0; /* another thread has the error */
		if (r < 0)
			return err_wrap(e, "finding what is allocated");
		if (size == 0)
			return 0;
		r = blockdev_read(x->dev, buf, size, offset, e);
		if (r < 0)
			return err_wrap(e, "extracting %zu bytes at offset %llu", size, (unsigned long long)offset);
		r = write_data(x, buf, size, offset, &written, e);
		if (r < 0)
			return r;
		(void)pthread_mutex_lock(&x->lock);
		x->stats.read_bytes += size;
		x->stats.written_bytes += written;
		if (offset + size > x->done)
			x->done = offset + size;
		progress_update(x->progress, "extract", PROGRESS_BYTES, x->done, x->dev->size_bytes, "");
		(void)pthread_mutex_unlock(&x->lock);
	}
}

static int extract_worker(void *ctx, size_t i, struct err *e)
{
	struct extraction *x = ctx;
	int r = copy_chunks(x, e);

	(void)i;
	if (r < 0) {
		(void)pthread_mutex_lock(&x->lock);
		x->failed = true;
		(void)pthread_mutex_unlock(&x->lock);
	}
	return r;
}

int extract_to_file(struct blockdev *dev, int out_fd, unsigned n_threads, struct progress *progress,
	struct extract_stats *ret_stats, struct err *e)
{
	struct extraction x = { .dev = dev, .out_fd = out_fd, .progress = progress };
	struct stat st;
	int r;

	if (fstat(out_fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot look at the file to extract into");
	if (!S_ISREG(st.st_mode) || st.st_size != 0)
		return err_set(e, -EINVAL, "the file to extract into must be an empty regular file");
	if (ftruncate(out_fd, (off_t)dev->size_bytes) < 0)
		return err_set_errno(e, -errno, "cannot make the extracted image %llu bytes long",
			       (unsigned long long)dev->size_bytes),
		       err_default_kind(e, ERR_KIND_HOST);
	if (n_threads == 0)
		n_threads = pool_default_threads();
	x.chunk_bytes = EXTRACT_BUFFERS_BYTES / n_threads / CHUNK_MIN_BYTES * CHUNK_MIN_BYTES;
	if (x.chunk_bytes > CHUNK_MAX_BYTES)
		x.chunk_bytes = CHUNK_MAX_BYTES;
	if (x.chunk_bytes < CHUNK_MIN_BYTES)
		x.chunk_bytes = CHUNK_MIN_BYTES;
	(void)pthread_mutex_init(&x.lock, NULL);
	progress_begin(progress, "extract", "a partition of %llu MB", (unsigned long long)dev->size_bytes / 1000000);
	/* One item per thread: each takes chunks until there are no more. */
	r = pool_run(n_threads, n_threads, extract_worker, &x, e);
	(void)pthread_mutex_destroy(&x.lock);
	if (r < 0)
		return r;
	progress_end(progress, "extract", "%llu MB of data, the rest are holes",
		(unsigned long long)(x.stats.written_bytes + 999999) / 1000000);
	if (ret_stats)
		*ret_stats = x.stats;
	return 0;
}
