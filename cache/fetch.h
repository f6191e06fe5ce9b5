/* Downloads: many at once, each ending as a checked blob in the store or as a few bytes in memory.
 *
 * A request has candidate URLs (http, https, file:, or a plain path), tried in their order. What may pass (no
 * connection, a broken one, a stall, 408, 425, 429, 5xx, a short body) is tried again with growing pauses, going on where it
 * broke; what will not (403, 404, 410, a wrong digest, an HTML page) leads to the next candidate at once. When none is
 * left the message says for each what happened.
 *
 * What becomes a blob: with an expected digest only those bytes. Without one the server must have said how long the
 * answer is and have sent that much, and an HTML page is refused (log-in portals and error pages come with status 200).
 * What lies in the store already is read and judged likewise; a blob with other bytes than its name says is removed, which is a warning,
 * and fetched again.
 * Resuming: a range is asked for with If-Range where the server gave a validator; without one only when the expected
 * digest will judge the result. A server that sends the whole again makes us begin again. With an expected digest,
 * what came is kept in tmp/partial/ even if the process dies, and the next run goes on from there.
 * Redirects: at most FETCH_MAX_REDIRECTS, to http and https only, never from https to http.
 * Environment: http_proxy, https_proxy, all_proxy, no_proxy as libcurl reads them; CURL_CA_BUNDLE, else SSL_CERT_FILE
 * names the certificates to trust.
 * Secrets: user info and queries of URLs appear in no message, event or result (lib/url: url_redact).
 *
 * Mapping of mirrors is the caller's: it lists candidates. Relative paths are looked up from the working folder.
 * Requests, their strings and buffers are lent until the call returns. When a call fails, blobs that were finished stay
 * in the store, and buffers have either all bytes of their request or none.
 * Concurrency: a call runs in the calling thread, without further threads but those libcurl resolves names with. Do not
 * call it from two threads at once. progress may be NULL; events come from this thread: stage "download".
 * Cancel: cancel_fd (-1: none) is polled and never read; when it is readable, -ECANCELED soon after.
 * What cannot be had: without options->missing the first such request ends the call, no other is started, and those running are
 * ended. With it, and offline, the others go on, and one error at the end names all; with it they are listed there, too, in the
 * order of the requests. A server that stays silent through all attempts for one file is not waited for again.
 * Errors: -ENOENT every candidate says that it is not there (404, 410, no such file); -EBADMSG wrong bytes; -E2BIG
 * more than allowed; -ETIMEDOUT, -ECONNREFUSED, -EHOSTUNREACH, -EIO the network; -EACCES 401, 403 or 407;
 * -ENETUNREACH offline. These have ERR_KIND_INPUT; the host's own (-ENOSPC...) have ERR_KIND_HOST and end the call at once. */
#ifndef IMGBUILD_CACHE_FETCH_H
#define IMGBUILD_CACHE_FETCH_H

#include "cache/missing.h"
#include "cache/publish.h"
#include "lib/progress.h"
#include "lib/url.h"

#define FETCH_MAX_ACTIVE 16
#define FETCH_MAX_ACTIVE_PER_HOST 6
#define FETCH_MAX_REDIRECTS 10
#define FETCH_MAX_ATTEMPTS 5 /* of one candidate without real progress */
#define FETCH_MAX_BLOB_BYTES (UINT64_C(64) << 30)

struct fetch_request {
	const char *label;	 /* for people, "base image", "podman 4.3.1"; no secrets */
	const char *const *urls; /* candidates, best first; at least one */
	size_t n_urls;
	struct digest sha256; /* expected; algorithm DIGEST_NONE (a zeroed struct): unknown */
	struct digest sha512; /* likewise; both may be given */
	uint64_t size_bytes;  /* expected; 0: unknown (an empty file cannot be expected by size) */
	uint64_t about_bytes; /* its size as far as somebody remembers, for people: not demanded. 0: unknown */
	uint64_t max_bytes;   /* 0: FETCH_MAX_BLOB_BYTES, or into->max_bytes */
	struct buf *into;     /* NULL: a blob in the store; else the bytes are appended here and the store is not used */
	bool optional;	      /* not being there (as -ENOENT above) is no error: the result says missing */
	bool want_sha512;     /* compute it although none is expected */
	bool fresh;	      /* caches on the way are to ask the server again */
};

struct fetch_result {
	struct digest sha256; /* of a blob: its name. DIGEST_NONE when missing */
	struct digest sha512; /* DIGEST_NONE unless expected or wanted */
	uint64_t size_bytes;
	char *url;		    /* where the bytes came from after redirects, redacted; NULL when it was in the store */
	uint64_t transferred_bytes; /* over the network or from a local file; less than size_bytes when resumed */
	bool was_stored;	    /* it was in the store already, and its bytes were read and are right */
	bool missing;		    /* optional, and not there */
};

struct fetch_options {
	struct progress *progress;
	int cancel_fd;		      /* -1: none */
	bool offline;		      /* only the store and files of this machine */
	struct missing *missing;      /* not NULL: go on without what cannot be had, and list it here */
	unsigned retry_delay_ms;      /* the first pause; 0: 500. Each next one is twice as long, at most 60 times the first */
	unsigned max_attempts;	      /* 0: FETCH_MAX_ATTEMPTS */
	unsigned stall_timeout_s;     /* no byte for so long is a stall; 0: 30 */
	unsigned connect_timeout_s;   /* 0: 20 */
};

#define FETCH_OPTIONS_INIT                                                                                   \
	{                                                                                                    \
		.cancel_fd = -1                                                                              \
	}

/* Carry out all requests.
 * p            NULL only when every request has `into`
 * ret_results  n of them, written only on success; release with fetch_results_release(). May be NULL
 * Returns 0 when all are done. */
int fetch_all(struct publisher *p, const struct fetch_request *requests, size_t n, const struct fetch_options *options,
	struct fetch_result *ret_results, struct err *e) _must_check_;
void fetch_results_release(struct fetch_result *results, size_t n);

/* Fetch one URL into memory, up to into->max_bytes. Returns 0; -ENOENT it is not there; as fetch_all(). */
int fetch_bytes(const char *url, const char *label, const struct fetch_options *options, struct buf *into,
	struct err *e) _must_check_;

#endif
