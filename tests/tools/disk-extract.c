/* disk-extract FILE OUT [OFFSET SIZE]: a qcow2 or raw image, or a part of it, as a sparse raw file. For the judges of the
 * extraction, which want to compare every image, also those without a root. */
#include "builder/disk/extract.h"
#include "builder/disk/source.h"

#include <fcntl.h>
#include <inttypes.h>

static int extract(const char *in, const char *out, const char *offset, const char *size, struct err *e)
{
	_cleanup_close_ int fd = open(in, O_RDONLY | O_CLOEXEC), out_fd = -1, scratch = -1;
	_cleanup_disk_source_ struct disk_source src = DISK_SOURCE_INIT;
	_cleanup_blockdev_ struct blockdev *slice = NULL;
	struct extract_stats stats;
	int r;

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot open `%s`", in);
	scratch = open(getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = disk_source_open(fd, scratch, NULL, NULL, &src, e);
	if (r < 0)
		return r;
	if (offset) {
		r = blockdev_new_slice(src.dev,
			(struct extent){ strtoull(offset, NULL, 10), strtoull(size, NULL, 10) }, &slice, e);
		if (r < 0)
			return r;
	}
	out_fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (out_fd < 0)
		return err_set_errno(e, -errno, "cannot create `%s`", out);
	r = extract_to_file(slice ? slice : src.dev, out_fd, 0, NULL, &stats, e);
	if (r < 0)
		return r;
	(void)fprintf(stderr, "%" PRIu64 " bytes read, %" PRIu64 " written\n", stats.read_bytes, stats.written_bytes);
	return 0;
}

int main(int argc, char **argv)
{
	struct err e = ERR_INIT;

	if (argc != 3 && argc != 5) {
		(void)fprintf(stderr, "usage: disk-extract FILE OUT [OFFSET SIZE]\n");
		return 2;
	}
	if (extract(argv[1], argv[2], argc == 5 ? argv[3] : NULL, argc == 5 ? argv[4] : NULL, &e) < 0) {
		(void)fprintf(stderr, "disk-extract: %s\n", e.message);
		return 1;
	}
	return 0;
}
