#include "builder/disk/extract.h"
#include "builder/disk/qcow.h"
#include "tests/unit/disk_helpers.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

/* A device whose contents follow from the offset: blocks of 4096 bytes, by the letters of a repeating pattern: D data, Z
 * data that is zero, H a hole. */
struct pattern_dev {
	struct blockdev dev;
	const char *pattern;
	size_t n;
	uint64_t fail_at; /* a read that covers this offset fails; UINT64_MAX none */
	pthread_mutex_t lock;
	uint64_t read_bytes;
};

enum { BLOCK = 4096 };

static char block_kind(const struct pattern_dev *d, uint64_t offset)
{
	return d->pattern[offset / BLOCK % d->n];
}

static uint8_t byte_at(const struct pattern_dev *d, uint64_t offset)
{
	return block_kind(d, offset) == 'D' ? (uint8_t)(1 + offset % 251 + offset / BLOCK % 3) : 0;
}

static int pattern_read(struct blockdev *dev, void *buf, size_t len, uint64_t offset, struct err *e)
{
	struct pattern_dev *d = (struct pattern_dev *)dev;

	if (d->fail_at >= offset && d->fail_at < offset + len)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "cluster 42 is damaged");
	for (size_t i = 0; i < len; i++) {
		/* Holes must not be asked for: that is what makes it fast. */
		assert_true(block_kind(d, offset + i) != 'H');
		((uint8_t *)buf)[i] = byte_at(d, offset + i);
	}
	(void)pthread_mutex_lock(&d->lock);
	d->read_bytes += len;
	(void)pthread_mutex_unlock(&d->lock);
	return 0;
}

static int pattern_next_extent(struct blockdev *dev, uint64_t offset, enum extent_kind *ret_kind,
	uint64_t *ret_size_bytes, struct err *e)
{
	struct pattern_dev *d = (struct pattern_dev *)dev;
	bool hole = block_kind(d, offset) == 'H';
	uint64_t end = offset;

	(void)e;
	while (end < dev->size_bytes && (block_kind(d, end) == 'H') == hole)
		end = (end / BLOCK + 1) * BLOCK;
	*ret_kind = hole ? EXTENT_ZERO : EXTENT_DATA;
	*ret_size_bytes = (end < dev->size_bytes ? end : dev->size_bytes) - offset;
	return 0;
}

static struct pattern_dev pattern_dev(const char *pattern, uint64_t size_bytes)
{
	return (struct pattern_dev){ .dev = { .size_bytes = size_bytes, .read = pattern_read, .next_extent = pattern_next_extent },
		.pattern = pattern,
		.n = strlen(pattern),
		.fail_at = UINT64_MAX,
		.lock = PTHREAD_MUTEX_INITIALIZER };
}

static uint64_t allocated_bytes(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void test_patterns(void **state)
{
	static const struct {
		const char *pattern;
		uint64_t size;
	} cases[] = { { "D", 1 }, { "D", 5 << 20 }, { "H", 5 << 20 }, { "Z", 5 << 20 }, { "DZ", (3 << 20) + 1 },
		{ "DDHHZZDHZ", (7 << 20) + 4095 }, { "HHHHHHHHHHHHHHHHHHHHHHD", 9 << 20 }, { "ZD", 0 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (unsigned threads = 1; threads <= 5; threads += 2) {
			struct pattern_dev d = pattern_dev(cases[i].pattern, cases[i].size);
			_cleanup_close_ int fd = open_in_test_dir("out", O_RDWR | O_CREAT | O_TRUNC);
			struct extract_stats stats;
			struct stat st;
			struct err e = ERR_INIT;
			uint64_t data = 0, nonzero = 0;

			if (extract_to_file(&d.dev, fd, threads, NULL, &stats, &e) < 0)
				fail_msg("%s", e.message);
			assert_int_equal(fstat(fd, &st), 0);
			assert_int_equal(st.st_size, cases[i].size);
			for (uint64_t at = 0; at < cases[i].size; at += BLOCK) {
				size_t len = cases[i].size - at < BLOCK ? (size_t)(cases[i].size - at) : BLOCK;
				uint8_t got[BLOCK];
				char kind = block_kind(&d, at);

				data += kind == 'H' ? 0 : len;
				nonzero += kind == 'D' ? len : 0;
				assert_int_equal(pread_full(fd, got, len, at), len);
				for (size_t k = 0; k < len; k++)
					if (got[k] != byte_at(&d, at + k))
						fail_msg("%s: wrong byte at %llu", cases[i].pattern, (unsigned long long)(at + k));
			}
			assert_int_equal(stats.read_bytes, data);
			assert_int_equal(d.read_bytes, data);
			assert_int_equal(stats.written_bytes, nonzero);
			assert_true(allocated_bytes(fd) <= round_up_u64(nonzero, BLOCK) + 64 * 1024);
		}
	}
}

static void test_slice_off_the_grid(void **state)
{
	struct pattern_dev d = pattern_dev("DDZZHHD", 8 << 20);
	_cleanup_blockdev_ struct blockdev *slice = NULL;
	_cleanup_close_ int fd = open_in_test_dir("out", O_RDWR | O_CREAT | O_TRUNC);
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(blockdev_new_slice(&d.dev, (struct extent){ 63 * 512, (5 << 20) + 512 }, &slice, &e), 0);
	assert_int_equal(extract_to_file(slice, fd, 3, NULL, NULL, &e), 0);
	for (uint64_t at = 0; at < (5 << 20) + 512; at += 61) {
		uint8_t got;

		assert_int_equal(pread_full(fd, &got, 1, at), 1);
		assert_int_equal(got, byte_at(&d, 63 * 512 + at));
	}
}

static void test_errors(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	/* A damaged cluster: the reader's own words, wherever it is and with whatever threads. */
	for (uint64_t at = 0; at < 6 << 20; at += (1 << 20) + 4096) {
		struct pattern_dev d = pattern_dev("D", 6 << 20);
		_cleanup_close_ int fd = open_in_test_dir("out", O_RDWR | O_CREAT | O_TRUNC);

		d.fail_at = at;
		err_clear(&e);
		assert_int_equal(extract_to_file(&d.dev, fd, 3, NULL, NULL, &e), -EBADMSG);
		assert_says(&e, "cluster 42 is damaged");
		assert_int_equal(e.kind, ERR_KIND_INPUT);
	}
	{
		struct pattern_dev d = pattern_dev("D", 6 << 20);
		_cleanup_close_ int full = open_in_test_dir("full", O_RDWR | O_CREAT | O_TRUNC);
		struct rlimit old, limit;
		void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);

		assert_int_equal(pwrite_full(full, "x", 1, 0), 0);
		err_clear(&e);
		assert_int_equal(extract_to_file(&d.dev, full, 1, NULL, NULL, &e), -EINVAL);
		assert_says(&e, "empty regular file");

		/* The file may not grow that far: making it long says so before anything is read. */
		assert_int_equal(ftruncate(full, 0), 0);
		assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
		limit = old;
		limit.rlim_cur = 1 << 20;
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		err_clear(&e);
		assert_int_equal(extract_to_file(&d.dev, full, 2, NULL, NULL, &e), -EFBIG);
		assert_int_equal(e.kind, ERR_KIND_HOST);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		(void)signal(SIGXFSZ, handler);
	}
	{
		/* A device is no place for holes. */
		struct pattern_dev d = pattern_dev("D", 0);
		_cleanup_close_ int device = open("/dev/full", O_WRONLY | O_CLOEXEC);

		err_clear(&e);
		assert_int_equal(extract_to_file(&d.dev, device, 1, NULL, NULL, &e), -EINVAL);
	}
}

/* A disk full of data where there is no room: each thread's error is one error with the host's kind. */
static void test_no_space(void **state)
{
	struct pattern_dev d = pattern_dev("D", 64 << 20);
	_cleanup_close_ int fd = memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct err e = ERR_INIT;
	int r;

	(void)state;
	/* A seal against writing stands for the full filesystem: the size is set first, the writes fail. */
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
	r = extract_to_file(&d.dev, fd, 3, NULL, NULL, &e);
	assert_int_equal(r, -EPERM);
	assert_says(&e, "cannot write");
	assert_int_equal(e.kind, ERR_KIND_HOST);
}

struct watcher {
	struct progress progress;
	unsigned begun, ended, updates;
	uint64_t last;
};

static void watch(struct progress *p, const struct progress_event *event)
{
	struct watcher *w = (struct watcher *)p;

	assert_string_equal(event->stage, "extract");
	w->begun += event->kind == PROGRESS_BEGIN;
	w->ended += event->kind == PROGRESS_END;
	if (event->kind == PROGRESS_UPDATE) {
		assert_true(event->done >= w->last && event->done <= event->total);
		assert_int_equal(event->total, 9 << 20);
		w->last = event->done;
		w->updates++;
	}
}

static void test_progress(void **state)
{
	struct pattern_dev d = pattern_dev("DH", 9 << 20);
	_cleanup_close_ int fd = open_in_test_dir("out", O_RDWR | O_CREAT | O_TRUNC);
	struct watcher w = { .progress = { watch } };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(extract_to_file(&d.dev, fd, 4, &w.progress, NULL, &e), 0);
	assert_int_equal(w.begun, 1);
	assert_int_equal(w.ended, 1);
	assert_true(w.updates > 0 && w.last > 8 << 20);
}

/* An image that says it is huge costs neither time nor memory. */
static void test_huge_and_empty(void **state)
{
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	_cleanup_close_ int in = -1, out = open_in_test_dir("out", O_RDWR | O_CREAT | O_TRUNC);
	struct extract_stats stats;
	struct err e = ERR_INIT;

	(void)state;
	shell(NULL, "qemu-img create -q -f qcow2 -o cluster_size=4k image 7T");
	in = open_in_test_dir("image", O_RDONLY);
	assert_int_equal(qcow_open(in, &dev, &e), 0);
	if (extract_to_file(dev, out, 0, NULL, &stats, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(stats.read_bytes, 0);
	assert_true(allocated_bytes(out) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_slice_off_the_grid),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_no_space),
		cmocka_unit_test(test_progress),
		cmocka_unit_test(test_huge_and_empty),
	};

	return cmocka_run_group_tests(tests, make_test_dir, remove_test_dir);
}
