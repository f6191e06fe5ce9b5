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
 * Concurrency: publisher and temp_folder functions may be called from several threads; one blob_writer or temp_folder
 * belongs to one thread at a time. Any number of processes may publish into one cache. Correctness never rests on a
 * lock, except that tmp/<id>/ of a live process is not swept.
 * Cancel: functions that wait take a cancel_fd (-1: none); when it becomes readable they return -ECANCELED. It is only
 * polled, never read. Use an eventfd or a signalfd.
 * Errors: -ENOSPC and -EDQUOT say how much was wanted and where; those of the host have ERR_KIND_HOST, wrong bytes
 * have ERR_KIND_INPUT. Needs libcrypto only. */
#ifndef IMGBUILD_CACHE_PUBLISH_H
#define IMGBUILD_CACHE_PUBLISH_H

#include "cache/store.h"

#include <sys/types.h>

#define PUBLISH_FOREIGN_LITTER_AGE_S (24 * 60 * 60)
#define PUBLISH_PARTIAL_AGE_S (7 * 24 * 60 * 60)
#define PUBLISH_FOLDER_MAX_FILES 10000 /* in one published folder, sub-folders included */
#define PUBLISH_FOLDER_MAX_DEPTH 16
#define BLOB_SIZE_UNKNOWN UINT64_MAX

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

/* Publish a failed build as failed/<key>-<n>, n being the first free number from 1. Files stay writable by nobody. */
int publish_failed(struct temp_folder *t, const struct digest *key, const void *manifest, size_t manifest_len,
	char **ret_path, struct err *e) _must_check_;

/* What is known beforehand about bytes that are to become a blob. */
struct blob_expectation {
	const char *label;    /* for messages: "the base image `https://...`", already redacted */
	struct digest sha256; /* algorithm DIGEST_NONE: unknown */
	struct digest sha512; /* likewise */
	uint64_t size_bytes;  /* BLOB_SIZE_UNKNOWN */
	uint64_t max_bytes;   /* more is -E2BIG; UINT64_MAX: no limit */
	bool want_sha512;     /* compute it although none is expected */
	bool keep_partial;    /* with an expected digest: keep what came so far when the writer is freed unfinished (or
			       * the process dies), and go on from it the next time */
};

#define BLOB_EXPECTATION_INIT                                                                                \
	{                                                                                                    \
		.size_bytes = BLOB_SIZE_UNKNOWN, .max_bytes = UINT64_MAX                                     \
	}

/* What a blob turned out to be. */
struct blob_info {
	struct digest sha256;
	struct digest sha512; /* DIGEST_NONE unless expected or wanted */
	uint64_t size_bytes;
};

struct blob_writer; /* opaque */

/* Begin a blob. The expectation is copied, its label too. With keep_partial, bytes of an earlier try may be there
 * already: see blob_writer_offset(). */
int blob_writer_new(struct publisher *p, const struct blob_expectation *expected, struct blob_writer **ret,
	struct err *e) _must_check_;

/* The number of bytes taken so far: where a resumed transfer goes on. */
uint64_t blob_writer_offset(const struct blob_writer *w);

/* Forget all bytes taken so far and begin at 0 again. */
int blob_writer_restart(struct blob_writer *w, struct err *e) _must_check_;

/* Take the next bytes. Returns 0; -E2BIG more than expected or allowed; -ENOSPC... */
int blob_writer_write(struct blob_writer *w, const void *bytes, size_t len, struct err *e) _must_check_;

/* Check size and digests and publish under the SHA-256. Wrong bytes are -EBADMSG (ERR_KIND_INPUT), the message names
 * what was expected and what came; nothing is published, and the writer is at 0 again. A blob that is there already is
 * kept. On success the writer can only be freed. */
int blob_writer_finish(struct blob_writer *w, struct blob_info *ret, struct err *e) _must_check_;

/* NULL is fine. */
void blob_writer_free(struct blob_writer *w);
static inline void blob_writer_freep(struct blob_writer **w)
{
	blob_writer_free(*w);
}

/* Copy a file of this machine into the store: fd from offset 0 to its end (reflinked where the filesystem can).
 * fd is lent and its offset is not used. Checks as blob_writer_finish(). */
int publish_blob_from_fd(struct publisher *p, int fd, const struct blob_expectation *expected, int cancel_fd,
	struct blob_info *ret, struct err *e) _must_check_;

/* Put bytes that are in memory into the store. */
int publish_blob_bytes(struct publisher *p, const void *bytes, size_t len, const char *label, struct blob_info *ret,
	struct err *e) _must_check_;

/* Write or replace the small file state/<name>, atomically. At most STORE_STATE_MAX_BYTES. */
int publish_state(struct publisher *p, const char *name, const void *bytes, size_t len, struct err *e) _must_check_;

/* Remove one published folder: moved to tmp/ first, so that no reader sees half of it. Missing is fine. */
int publish_remove(struct publisher *p, enum store_kind kind, const char *name, struct err *e) _must_check_;

/* A lock on a name, so that two processes do not do the same work twice. Released with its scope or its process. */
struct publish_lock {
	int fd; /* -1: none, or this filesystem has no locks */
};

#define PUBLISH_LOCK_INIT                                                                                    \
	{                                                                                                    \
		.fd = -1                                                                                     \
	}

/* Called when waiting begins and about every second from then on. holder: the process that has the lock, 0 when it
 * did not say (or runs on another machine). Return < 0 to give up with that error. */
typedef int (*publish_wait_fn)(void *ctx, pid_t holder, uint64_t waited_ms);

/* Take the lock of a key (flock on locks/<key>, never deleted) and write our process id into it.
 * timeout_ms  0: do not wait; -1: for as long as it takes
 * on_wait     may be NULL
 * Returns 0 (also, with fd -1, where the filesystem cannot lock); -EWOULDBLOCK somebody else has it after timeout_ms,
 * the message says who; -ECANCELED. */
int publish_lock_key(struct publisher *p, const struct digest *key, int timeout_ms, int cancel_fd,
	publish_wait_fn on_wait, void *ctx, struct publish_lock *ret, struct err *e) _must_check_;
void publish_lock_release(struct publish_lock *l);
#define _cleanup_publish_lock_ _cleanup_(publish_lock_release)

#endif
