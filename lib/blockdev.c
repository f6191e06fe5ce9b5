#include "lib/blockdev.h"
#include "lib/io.h"
#include "lib/num.h"

#include <sys/stat.h>

struct file_dev {
	struct blockdev dev;
	int fd; /* lent */
};

struct slice_dev {
	struct blockdev dev;
	struct blockdev *parent; /* borrowed */
	uint64_t start_bytes;
};

int blockdev_read(struct blockdev *dev, void *buf, size_t len, uint64_t offset, struct err *e)
{
	if (!range_within(offset, len, dev->size_bytes))
		return err_set(e, -EINVAL, "a read of %zu bytes at offset %llu goes past the end of the device (%llu bytes)",
			len, (unsigned long long)offset, (unsigned long long)dev->size_bytes);
	return len == 0 ? 0 : dev->read(dev, buf, len, offset, e);
}

int blockdev_next_extent(struct blockdev *dev, uint64_t offset, enum extent_kind *ret_kind, uint64_t *ret_size_bytes,
	struct err *e)
{
	if (offset >= dev->size_bytes)
		return err_set(e, -EINVAL, "offset %llu is past the end of the device (%llu bytes)",
			(unsigned long long)offset, (unsigned long long)dev->size_bytes);
	if (!dev->next_extent) {
		*ret_kind = EXTENT_DATA;
		*ret_size_bytes = dev->size_bytes - offset;
		return 0;
	}
	return dev->next_extent(dev, offset, ret_kind, ret_size_bytes, e);
}

void blockdev_free(struct blockdev *dev)
{
	if (dev && dev->free)
		dev->free(dev);
}

static int file_read(struct blockdev *dev, void *buf, size_t len, uint64_t offset, struct err *e)
{
	ssize_t n = pread_full(((struct file_dev *)dev)->fd, buf, len, offset);

	if (n < 0)
		return err_set_errno(e, (int)n, "cannot read %zu bytes at offset %llu", len, (unsigned long long)offset);
	if ((size_t)n != len)
		return err_set(e, -ENODATA, "the file became shorter while it was read: no byte at offset %llu",
			(unsigned long long)(offset + (uint64_t)n));
	return 0;
}

static int file_next_extent(struct blockdev *dev, uint64_t offset, enum extent_kind *ret_kind,
	uint64_t *ret_size_bytes, struct err *e)
{
	int fd = ((struct file_dev *)dev)->fd;
	off_t data = lseek(fd, (off_t)offset, SEEK_DATA), end;

	(void)e;
	if (data < 0) {
		/* ENXIO: nothing but a hole is left. Anything else: no SEEK_DATA here, so all of it is data. */
		*ret_kind = errno == ENXIO ? EXTENT_ZERO : EXTENT_DATA;
		*ret_size_bytes = dev->size_bytes - offset;
		return 0;
	}
	if ((uint64_t)data > offset) {
		*ret_kind = EXTENT_ZERO;
		*ret_size_bytes = ((uint64_t)data < dev->size_bytes ? (uint64_t)data : dev->size_bytes) - offset;
		return 0;
	}
	end = lseek(fd, data, SEEK_HOLE);
	if (end <= data || (uint64_t)end > dev->size_bytes)
		end = (off_t)dev->size_bytes;
	*ret_kind = EXTENT_DATA;
	*ret_size_bytes = (uint64_t)end - offset;
	return 0;
}

static void plain_free(struct blockdev *dev)
{
	free(dev);
}

int blockdev_new_file(int fd, struct blockdev **ret, struct err *e)
{
	struct file_dev *f;
	off_t end = lseek(fd, 0, SEEK_END);

	if (end < 0)
		return err_set_errno(e, -errno, "cannot tell the size of the file");
	f = calloc(1, sizeof(*f));
	if (!f)
		return err_set(e, -ENOMEM, "out of memory");
	f->dev = (struct blockdev){
		.size_bytes = (uint64_t)end, .read = file_read, .next_extent = file_next_extent, .free = plain_free
	};
	f->fd = fd;
	*ret = &f->dev;
	return 0;
}

static int slice_read(struct blockdev *dev, void *buf, size_t len, uint64_t offset, struct err *e)
{
	struct slice_dev *s = (struct slice_dev *)dev;

	return blockdev_read(s->parent, buf, len, s->start_bytes + offset, e);
}

static int slice_next_extent(struct blockdev *dev, uint64_t offset, enum extent_kind *ret_kind,
	uint64_t *ret_size_bytes, struct err *e)
{
	struct slice_dev *s = (struct slice_dev *)dev;
	enum extent_kind kind;
	uint64_t size;
	int r = blockdev_next_extent(s->parent, s->start_bytes + offset, &kind, &size, e);

	if (r < 0)
		return r;
	*ret_kind = kind;
	*ret_size_bytes = size < dev->size_bytes - offset ? size : dev->size_bytes - offset;
	return 0;
}

int blockdev_new_slice(struct blockdev *parent, struct extent range, struct blockdev **ret, struct err *e)
{
	struct slice_dev *s;

	if (!range_within(range.start_bytes, range.size_bytes, parent->size_bytes))
		return err_set(e, -ERANGE, "bytes %llu to %llu are not all within the device of %llu bytes",
			(unsigned long long)range.start_bytes,
			(unsigned long long)(range.start_bytes + range.size_bytes),
			(unsigned long long)parent->size_bytes);
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(e, -ENOMEM, "out of memory");
	s->dev = (struct blockdev){ .size_bytes = range.size_bytes,
		.read = slice_read,
		.next_extent = slice_next_extent,
		.free = plain_free };
	s->parent = parent;
	s->start_bytes = range.start_bytes;
	*ret = &s->dev;
	return 0;
}
