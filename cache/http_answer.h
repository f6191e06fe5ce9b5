/* The head of an HTTP answer, as far as a download needs it: status, how long the body is, which part of the file it
 * is, how to recognise the same file later, when to come back.
 *
 * Lines come one by one, as libcurl hands them over; a status line begins a new answer (a redirect, a "100 Continue").
 * What is malformed counts as absent. Pure; the struct is a value without allocations. No networking library needed.
 *
 * SOURCE: RFC 9110 sections 8.3, 8.6, 8.8, 10.2.3, 14.4; RFC 9112 section 6. */
#ifndef IMGBUILD_CACHE_HTTP_ANSWER_H
#define IMGBUILD_CACHE_HTTP_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_VALIDATOR_SIZE 256
#define HTTP_RETRY_AFTER_MAX_S 3600u
#define HTTP_SIZE_UNKNOWN UINT64_MAX

struct http_answer {
	unsigned status;	     /* 0: none came yet */
	bool is_delimited;	     /* the end of the body can be told from a broken connection */
	bool is_html;		     /* Content-Type: text/html or application/xhtml+xml */
	bool has_range;		     /* a usable Content-Range came */
	uint64_t length_bytes;	     /* of the body; HTTP_SIZE_UNKNOWN */
	uint64_t range_start;	     /* has_range: offset of the body's first byte in the file */
	uint64_t total_bytes;	     /* has_range or 416: size of the whole file; HTTP_SIZE_UNKNOWN */
	unsigned retry_after_s;	     /* 0: not said; dates are not read */
	char validator[HTTP_VALIDATOR_SIZE]; /* a strong ETag, else Last-Modified, for If-Range; "" none */
	bool validator_is_etag;
};

/* Set it to what is known before the first line: nothing. */
void http_answer_init(struct http_answer *a);

/* Take one line of the head, with or without its line end. */
void http_answer_line(struct http_answer *a, const char *line, size_t len);

/* Does a body begin like an HTML page? (bytes, len): the first bytes; 64 are enough. */
bool http_looks_like_html(const char *bytes, size_t len);

/* May this status pass, so that trying again makes sense? */
bool http_status_may_pass(unsigned status);

#endif
