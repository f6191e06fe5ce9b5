/* One request's transfers over HTTP: asking, taking what comes into the sink, and judging how it ended. Internal to
 * cache/fetch, which decides what is asked, when, and how often.
 *
 *     transfer_set_url(&t, url, e);          // a candidate
 *     transfer_begin(&t, multi, ...);        // libcurl works; callbacks fill the sink
 *     v = transfer_judge(&t, code);          // once libcurl has ended it
 *     transfer_end(&t, multi);               // then, or to abandon it
 *
 * What came stays in the sink from one attempt to the next, so that the next asks for the rest.
 * Ownership: the sink and strings are the transfer's; the request is lent. One thread. */
#ifndef IMGBUILD_CACHE_TRANSFER_H
#define IMGBUILD_CACHE_TRANSFER_H

#include "cache/http_answer.h"
#include "cache/sink.h"

#include <curl/curl.h>

#define TRANSFER_SNIFF_BYTES 64

/* How an attempt ended. */
enum verdict {
	VERDICT_DONE,
	VERDICT_AGAIN,	  /* what happened may pass */
	VERDICT_REDIRECT, /* transfer->url has the next address */
	VERDICT_NEXT,	  /* this candidate will not do */
	VERDICT_FATAL	  /* no candidate will: the host is in trouble, or we were interrupted */
};

struct transfer {
	const struct fetch_request *request;
	struct sink sink;
	char *url;  /* the address now tried, after redirects; NULL: none */
	char *host; /* of url */
	unsigned n_redirects;
	bool no_range;			     /* the server answers ranges wrongly */
	char validator[HTTP_VALIDATOR_SIZE]; /* of the bytes in the sink, for If-Range; "" none */
	uint64_t total_bytes;		     /* as far as known, for progress; 0: unknown */
	struct blob_info info;		     /* of the bytes, after VERDICT_DONE */
	struct err why;			     /* after any other verdict */

	/* One attempt. */
	CURL *easy;
	struct curl_slist *headers;
	char curl_text[CURL_ERROR_SIZE];
	struct http_answer answer; /* status 0: there was none */
	uint64_t start_offset;	   /* what the sink had before, asked for from there when > 0 and `asked_range` */
	bool asked_range;
	bool body_begun;
	uint64_t heard_ms; /* when the last byte came, or it began */
	uint64_t refused_bytes;
	char sniff[TRANSFER_SNIFF_BYTES];
	size_t sniff_len;
	bool broke_off; /* a callback ended the transfer: `why` and `why_verdict` say it */
	enum verdict why_verdict;
};

/* Take an address, of a candidate or of a redirect. -E2BIG, -EINVAL it is none. */
int transfer_set_url(struct transfer *t, const char *url, struct err *e) _must_check_;

/* Forget the address; its host is remembered until the next one. */
void transfer_forget_url(struct transfer *t);

/* Begin to fetch t->url. ca_file: NULL, or the certificates to trust. */
int transfer_begin(struct transfer *t, CURLM *multi, const struct fetch_options *options, const char *ca_file, struct err *e)
	_must_check_;

/* Note that nothing came for too long: the judgement will be VERDICT_AGAIN. */
void transfer_give_up_waiting(struct transfer *t, unsigned limit_s);

/* Say how the attempt went that libcurl ended with c. */
enum verdict transfer_judge(struct transfer *t, CURLcode c);

/* Judge what lies in the sink already, left by an earlier process. */
enum verdict transfer_judge_whole(struct transfer *t);

/* End the attempt, if there is one, and let go of what libcurl holds. */
void transfer_end(struct transfer *t, CURLM *multi);

void transfer_release(struct transfer *t, CURLM *multi);

#endif
