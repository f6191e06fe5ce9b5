/* The store, writing side: every write into the cache goes through here.
 *
 * A publisher is made once (publisher_open: creates the folders, removes what dead processes left in tmp/) and gives
 * temporary places on the cache's own filesystem. What is finished there is published: every file fsynced and 0444,
 * the name taken by a rename (or link) that replaces nothing, the folder fsynced. manifest.json is written last. What
 * is there already wins, and is what the caller gets. kill -9 at any instant leaves the old state or the new one, and
 * litter in tmp/ only, which the next publisher removes.
 *
 *     publisher_open(path, &p, e);
 *     publish_lock_key(p, &key, ...);        // only saves work
 *     store_find_entry(publisher_store(p), &key, ...);  // again: somebody may have built it while we waited
 *     temp_folder_new(p, "build", &t, e);    // write rootfs.ext4 ... with openat(t.fd, ...)
 *     publish_folder(&t, STORE_IMAGE, name, manifest, manifest_len, &path, &existed, e);
 *
 * Litter: each publisher owns tmp/<id>/ and holds a flock on tmp/<id>.lock. A lock file that can be locked belongs to
 * nobody alive, and both are removed. Those of another machine or boot (flock may be local on a shared filesystem)
 * are left alone for PUBLISH_FOREIGN_LITTER_AGE_S. tmp/partial/ keeps broken downloads that can be resumed, for
 * PUBLISH_PARTIAL_AGE_S.
 *
 * Concurrency: one publisher may be used from several threads; one blob_writer or temp_folder belongs to one thread at
 * a time. Any number of processes may publish into one cache. Correctness never rests on a
 * lock, except that tmp/<id>/ of a live process is not swept.
 * Errors: -ENOSPC and -EDQUOT say how much was wanted and where; those of the host have ERR_KIND_HOST, wrong bytes
 * have ERR_KIND_INPUT. Needs libcrypto only. See cache/blob.h for single files, cache/keylock.h for the locks. */
#ifndef IMGBUILD_CACHE_PUBLISH_H
#define IMGBUILD_CACHE_PUBLISH_H

#include "cache/blob.h"
#include "cache/keylock.h"
#include "cache/store.h"

#define PUBLISH_FOREIGN_LITTER_AGE_S (24 * 60 * 60)
#define PUBLISH_PARTIAL_AGE_S (7 * 24 * 60 * 60)
#define PUBLISH_FOLDER_MAX_FILES 10000 /* in one published folder, sub-folders included */
#define PUBLISH_FOLDER_MAX_DEPTH 16

struct publisher; /* opaque */

/* Open the store at `path` for writing: make what is missing of its folders, sweep tmp/, take a place there.
 * Returns 0; -EROFS, -EACCES, -ENOSPC... with ERR_KIND_HOST. The publisher must outlive all that was made from it. */
int publisher_open(const char *path, struct publisher **ret, struct err *e) _must_check_;

/* Remove the publisher's temporary place with whatever is left in it, and close the store. NULL is fine. */
void publisher_close(struct publisher *p);
static inline void publisher_closep(struct publisher **p)
{
	publisher_close(*p);
}
#define _cleanup_publisher_ _cleanup_(publisher_closep)

/* Borrow the reading side. It lives as long as the publisher. */
const struct store *publisher_store(const struct publisher *p);

/* A temporary folder or file on the cache's filesystem. Release removes it unless it was published. */
struct temp_folder {
	struct publisher *publisher; /* borrowed */
	int fd;			     /* the folder; -1: none */
	char *name;		     /* within the publisher's place */
	char *path;		     /* absolute, for programs that want a name */
};

#define TEMP_FOLDER_INIT                                                                                     \
	{                                                                                                    \
		.fd = -1                                                                                     \
	}

/* Make an empty temporary folder (mode 0700 until published). `purpose` is [a-z-]+, to be recognised in tmp/. */
int temp_folder_new(struct publisher *p, const char *purpose, struct temp_folder *ret, struct err *e) _must_check_;
void temp_folder_release(struct temp_folder *t);
#define _cleanup_temp_folder_ _cleanup_(temp_folder_release)

/* Make an empty temporary file that has no name to be found by (or one in the publisher's place, already removed):
 * scratch space that vanishes with its descriptor. Read-write; the caller closes *ret_fd. */
int publish_scratch_file(struct publisher *p, int *ret_fd, struct err *e) _must_check_;

/* Publish a temporary folder as <kind>/<name> with its manifest. Regular files and folders only; each file is fsynced
 * and made 0444, folders are 0755; a manifest.json that is in the folder already is an error.
 * t            empty afterwards in every case of success; unchanged enough to be tried again on failure
 * name         [0-9a-z.-]+, see store_root_name(); for STORE_FAILED see publish_failed()
 * manifest     (manifest, manifest_len) becomes manifest.json
 * ret_path     absolute path of the published folder; the caller frees it
 * ret_existed  an entry of that name was there already; it was kept and ours thrown away. May be NULL
 * Returns 0; -EINVAL a wrong name or a file that cannot be published; another -errno with nothing visible changed. */
int publish_folder(struct temp_folder *t, enum store_kind kind, const char *name, const void *manifest,
	size_t manifest_len, char **ret_path, bool *ret_existed, struct err *e) _must_check_;

/* Publish under images/<key>: publish_folder() with the name made from the key. */
int publish_entry(struct temp_folder *t, const struct digest *key, const void *manifest, size_t manifest_len,
	char **ret_path, bool *ret_existed, struct err *e) _must_check_;

/* Publish a failed build as failed/<key>-<n>, n being one more than the highest there is, from 1. */
int publish_failed(struct temp_folder *t, const struct digest *key, const void *manifest, size_t manifest_len,
	char **ret_path, struct err *e) _must_check_;

/* Write or replace the small file state/<name>, atomically. At most STORE_STATE_MAX_BYTES. */
int publish_state(struct publisher *p, const char *name, const void *bytes, size_t len, struct err *e) _must_check_;

/* Remove one published folder: moved to tmp/ first, so that no reader sees half of it. Missing is fine. */
int publish_remove(struct publisher *p, enum store_kind kind, const char *name, struct err *e) _must_check_;

#endif
