/* All that `imgbuild inspect` shows of a disk image, as one value.
 *
 * Ownership: disk_report_release() frees. A disk on which no root can be chosen is a report like any other; the reason
 * is in root_error. Errors: those of disk_layout_read(). Concurrency: one thread. */
#ifndef IMGBUILD_BUILDER_DISK_INSPECT_H
#define IMGBUILD_BUILDER_DISK_INSPECT_H

#include "builder/disk/qcow.h"
#include "builder/disk/root.h"
#include "builder/disk/source.h"

struct disk_report {
	enum disk_format format;
	enum disk_packing packing;
	bool in_tar;
	char member[256]; /* the archive member; "" none */
	uint64_t file_bytes;
	uint64_t virtual_bytes;
	uint64_t allocated_bytes;   /* of the virtual disk, as the format knows it */
	bool has_qcow;		    /* qcow is filled in */
	struct qcow_info qcow;
	struct disk_layout layout;  /* owned */
	bool has_root, has_boot;    /* the indices are valid */
	size_t root_index, boot_index; /* into layout.parts */
	struct err root_error;	    /* why there is no root; code 0 when there is one */
};

/* Describe an opened disk image. `src` is borrowed; arch, selector and probe as in root.h. */
int disk_inspect(const struct disk_source *src, enum arch arch, const char *selector, disk_probe_fn probe,
	void *probe_ctx, struct disk_report *ret, struct err *e) _must_check_;

void disk_report_release(struct disk_report *r);
#define _cleanup_disk_report_ _cleanup_(disk_report_release)

#endif
