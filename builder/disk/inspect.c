#include "builder/disk/inspect.h"

#include <string.h>

void disk_report_release(struct disk_report *r)
{
	disk_layout_release(&r->layout);
}

static int count_allocated(struct blockdev *dev, uint64_t *ret, struct err *e)
{
	uint64_t n = 0;

	for (uint64_t at = 0; at < dev->size_bytes;) {
		enum extent_kind kind;
		uint64_t size;
		int r = blockdev_next_extent(dev, at, &kind, &size, e);

		if (r < 0)
			return r;
		if (kind == EXTENT_DATA)
			n += size;
		at += size;
	}
	*ret = n;
	return 0;
}

int disk_inspect(const struct disk_source *src, enum arch arch, const char *selector, disk_probe_fn probe,
	void *probe_ctx, struct disk_report *ret, struct err *e)
{
	struct disk_report report = {
		.format = src->format,
		.packing = src->packing,
		.in_tar = src->in_tar,
		.file_bytes = src->file_bytes,
		.virtual_bytes = src->dev->size_bytes,
	};
	int r = count_allocated(src->dev, &report.allocated_bytes, e);

	if (r < 0)
		return r;
	memcpy(report.member, src->member, sizeof(report.member));
	if (src->format == DISK_FORMAT_QCOW2) {
		report.has_qcow = true;
		report.qcow = *qcow_get_info(src->dev);
	}
	r = disk_layout_read(src->dev, arch, probe, probe_ctx, &report.layout, e);
	if (r < 0)
		return r;
	report.has_root = disk_find_root(&report.layout, selector, &report.root_index, &report.root_error) == 0;
	report.has_boot = disk_find_boot(&report.layout, report.has_root ? report.root_index : report.layout.n,
				  &report.boot_index) == 0;
	*ret = report;
	return 0;
}
