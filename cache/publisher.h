/* What publish, blob and keylock share: the publisher itself and the few steps that give bytes a name. Internal to
 * the writing side of cache/; others use cache/publish.h.
 *
 * Concurrency: everything but the counter is fixed after publisher_open(). */
#ifndef IMGBUILD_CACHE_PUBLISHER_H
#define IMGBUILD_CACHE_PUBLISHER_H

#include "cache/store.h"

#include <stdatomic.h>
#include <sys/types.h>

/* Which machine and which boot of it: a process id means something only within both. */
#define HOST_TAG_SIZE 20
struct host_tag {
	char text[HOST_TAG_SIZE]; /* "<8 hex of the machine>.<8 hex of the boot>" */
};

struct publisher {
	struct store store;
	struct host_tag host;
	int tmp_fd;	 /* tmp/ */
	int partial_fd;	 /* tmp/partial/ */
	int work_fd;	 /* tmp/<id>/ */
	int lock_fd;	 /* tmp/<id>.lock */
	char *work_name; /* <id> */
	atomic_uint counter;
};

/* Make a name that is fresh within the publisher's place: "<purpose>-<n>". NULL when out of memory. */
char *publisher_fresh_name(struct publisher *p, const char *purpose);

/* Give a finished file (0444, fsynced) its name in the cache. Never replaces a file of the same size; one of another
 * size is damaged and gives way. The old name is gone in either case. The folder is made when it is missing; syncing it
 * (and blobs/<algorithm> above it, when *ret_made) is the caller's. */
int publisher_place_file(struct publisher *p, int from_dirfd, const char *from, const char *to, uint64_t size_bytes,
	bool *ret_made, struct err *e);

/* Make a folder of the cache when it is missing. *ret_made: the folder above it is to be synced. */
int publisher_make_folder(struct publisher *p, const char *path, bool *ret_made, struct err *e);

/* fsync the folder `path` of the cache. Safe to call from several threads. */
int publisher_sync_folder(struct publisher *p, const char *path, struct err *e);

/* Is cancel_fd (-1: none) readable, waiting at most timeout_ms? Returns 0 or -ECANCELED with a message. */
int cancel_check(int cancel_fd, int timeout_ms, struct err *e);

/* Set an error of the host: err_set_errno() with its kind, and with what to do when there is no space. */
#define err_set_host(e, code, ...) err_add_host_advice(e, err_set_errno(e, code, __VA_ARGS__))
int err_add_host_advice(struct err *e, int code);

#endif
