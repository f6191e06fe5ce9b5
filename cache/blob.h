/* Blobs, writing side: bytes from outside, hashed while they come, published under their SHA-256.
 *
 *     blob_writer_new(p, &expected, &w, e);
 *     blob_writer_write(w, bytes, len, e);   // any number of times, from blob_writer_offset(w) on
 *     blob_writer_finish(w, &info, e);       // checks, publishes
 *     blob_writer_free(w);
 *
 * The SHA-256 is always computed and is the name; a SHA-512 is checked beside it when expected, and remembered as a
 * second way to find the blob. Wrong bytes never get a name. Holes of local files stay holes.
 *
 * Ownership: the writer borrows the publisher and copies the expectation.
 * Concurrency: a writer belongs to one thread at a time; see cache/publish.h for processes.
 * Cancel: cancel_fd (-1: none) is only polled, never read; when it is readable the answer is -ECANCELED. Use an eventfd or a
 * signalfd.
 * Errors: wrong bytes are -EBADMSG or -E2BIG with ERR_KIND_INPUT; the host's have ERR_KIND_HOST. */
#ifndef IMGBUILD_CACHE_BLOB_H
#define IMGBUILD_CACHE_BLOB_H

#include "lib/digest.h"
#include "lib/err.h"

#define BLOB_SIZE_UNKNOWN UINT64_MAX

struct publisher; /* cache/publish.h */

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
 * kept. After success, and after any other failure, the writer can only be freed. */
int blob_writer_finish(struct blob_writer *w, struct blob_info *ret, struct err *e) _must_check_;

/* The two halves of blob_writer_finish(), for many at once: judging each when its bytes are there, and publishing all
 * that were judged. Syncing takes most of the time, and side by side the filesystem does it in one go.
 * blob_writers_publish() returns the first error; which of the others were published is not said, and all of them can
 * only be freed. */
int blob_writer_judge(struct blob_writer *w, struct blob_info *ret, struct err *e) _must_check_;
int blob_writers_publish(struct blob_writer *const *writers, size_t n, struct err *e) _must_check_;

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

/* Read a blob that is in the store and compare it with its name. One that has other bytes is of no use and is removed, so that the
 * right ones can take the name. Returns 0 it is sound; -EBADMSG it was not, the message says where it was and both digests; -ENOENT
 * it is not here. */
int blob_confirm(struct publisher *p, const struct digest *sha256, struct err *e) _must_check_;

/* Put bytes that are in memory into the store. */
int publish_blob_bytes(struct publisher *p, const void *bytes, size_t len, const char *label, struct blob_info *ret,
	struct err *e) _must_check_;

#endif
