/* Where the bytes of one download go: a blob in the store, or a buffer. Both can go back to their beginning, and both
 * judge at the end. Internal to cache/fetch.
 *
 * Ownership: a sink borrows the publisher, the request and its buffer. Concurrency: one thread. */
#ifndef IMGBUILD_CACHE_SINK_H
#define IMGBUILD_CACHE_SINK_H

#include "cache/fetch.h"

struct sink {
	struct publisher *publisher;	     /* borrowed; NULL for a buffer */
	const struct fetch_request *request; /* borrowed */
	struct blob_writer *writer;	     /* a blob, once opened */
	size_t into_start;		     /* a buffer: what it held before */
	uint64_t max_bytes;
	bool is_open;
};

/* Prepare a sink for a request; nothing is opened yet. p: NULL for a buffer. */
void sink_init(struct sink *s, struct publisher *p, const struct fetch_request *request);

/* Make it ready to take bytes, unless it is already. What an earlier process left of a blob counts as taken. */
int sink_open(struct sink *s, struct err *e);

/* The number of bytes taken. */
uint64_t sink_offset(const struct sink *s);

/* Forget what was taken and begin at 0 again. */
int sink_restart(struct sink *s, struct err *e);

/* Take the next bytes. -E2BIG more than the request allows. */
int sink_write(struct sink *s, const void *bytes, size_t len, struct err *e);

/* Judge size and digests. Wrong bytes: -EBADMSG and the sink is at its beginning again. A blob is to be published
 * afterwards, by its writer; a buffer is done. */
int sink_judge(struct sink *s, struct blob_info *ret, struct err *e);

/* Take the whole of a local file instead. -ENOENT it is not there. */
int sink_take_file(struct sink *s, const char *path, int cancel_fd, struct blob_info *ret, struct err *e);

/* Let go of it. What a buffer took without being judged is removed from it. */
void sink_release(struct sink *s);

/* Is there a digest that will judge the bytes? */
bool sink_is_pinned(const struct sink *s);

#endif
