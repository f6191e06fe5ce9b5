/* The root partition of a base image, taken out once and kept in the cache under roots/.
 *
 * A struct root holds the raw filesystem image read-only, its ext4 reader, and, where the kernels lie in a partition of their
 * own, that one too. It is found by the base's digest and the plan's selector; the base is only looked at when the cache
 * has no such root. Whatever was read is checked against the base's digest: a local file that changes meanwhile is noticed.
 *
 * Ownership: root_release() frees everything. Errors are those of builder/disk and builder/ext4. One thread. */
#ifndef IMGBUILD_BUILDER_ROOT_H
#define IMGBUILD_BUILDER_ROOT_H

#include "builder/env.h"
#include "builder/disk/root.h"
#include "builder/ext4/ext4.h"
#include "builder/prepare.h"

#define ROOT_IMAGE "rootfs.ext4"
#define ROOT_BOOT_IMAGE "boot.ext4"

struct root {
	char *path; /* of the published folder */
	struct digest base_sha256;
	unsigned partition;	 /* its number; 0: the disk has no table */
	char distribution[128];	 /* "Debian GNU/Linux 12 (bookworm)"; "" unknown */
	int fd, boot_fd;	 /* the images, read-only; boot_fd -1: /boot is in the root */
	struct blockdev *dev, *boot_dev;
	struct ext4 *fs, *boot_fs; /* boot_fs NULL: none */
};

#define ROOT_INIT                                                                                            \
	{                                                                                                    \
		.fd = -1, .boot_fd = -1                                                                      \
	}

/* Get the root of the plan's base image, fetching and extracting as needed. base_sha256 is what lock_base_digest() said. */
int root_get(const struct build_env *env, const struct prepared *p, const struct digest *base_sha256, struct root *ret,
	struct err *e) _must_check_;

/* Whether the cache has that root already, so that the base itself need not be fetched. For a plan that pins its base by SHA-512 alone
 * also whether the store knows that it is of that base: else the base is fetched and judged as if there were no root. */
bool root_is_cached(const struct store *store, const struct prepared *p, const struct digest *base_sha256);

void root_release(struct root *r);
#define _cleanup_root_ _cleanup_(root_release)

/* builder/disk's probe, by builder/ext4: what an ext filesystem holds. ctx is not used. */
int root_probe(void *ctx, struct blockdev *part, struct disk_fs *fs, struct err *e);

/* The root's filesystem as builder/packages wants it. Borrows fs. */
struct pkg_host_fs root_host_fs(struct ext4 *fs);

/* The plan's selector in builder/disk's form ("3", "LABEL=…", "PARTUUID=…"), or "" to discover. Returns buf. */
char *root_selector(const struct plan_partition *partition, char buf[static 320]);

#endif
