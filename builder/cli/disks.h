/* The verbs about disk images: `inspect` and `extract`. One thread. */
#ifndef IMGBUILD_BUILDER_CLI_DISKS_H
#define IMGBUILD_BUILDER_CLI_DISKS_H

#include "lib/arch.h"
#include "lib/err.h"
#include "lib/progress.h"

#include <stdbool.h>
#include <stdio.h>

/* Tell what the disk image `path` is, readably or as JSON. scratch_path: a folder for unpacking packed images. */
int disks_inspect(const char *path, enum arch arch, bool json, const char *scratch_path, struct progress *progress,
	FILE *out, struct err *e) _must_check_;

/* Write the root partition of the disk image `path` to the new file `out_path`. With json, describe it on `out`. */
int disks_extract(const char *path, const char *out_path, enum arch arch, bool json, const char *scratch_path,
	struct progress *progress, FILE *out, struct err *e) _must_check_;

#endif
