#include "cache/fetch.h"
#include "cache/hosts.h"
#include "cache/http_answer.h"
#include "cache/publisher.h"
#include "cache/sink.h"
#include "lib/num.h"
#include "lib/process.h"

#include <assert.h>
#include <curl/curl.h>
#include <string.h>
#include <sys/random.h>

enum {
	DEFAULT_RETRY_DELAY_MS = 500,
	DEFAULT_STALL_TIMEOUT_S = 30,
	DEFAULT_CONNECT_TIMEOUT_S = 20,
	RETRY_DELAY_MAX_FACTOR = 60,
	REAL_PROGRESS_BYTES = 64 * 1024, /* an attempt that brought as much does not count against the limit */
	ATTEMPTS_MAX_IN_ALL = 1000,	 /* but even so there is an end */
	SILENT_ATTEMPTS_MAX = 2,	 /* of a server that lets each attempt run into a time-out, while there are other candidates */
	SNIFF_BYTES = 64,
	REFUSED_BODY_MAX_BYTES = 64 * 1024, /* of error pages and redirects, read only to keep the connection */
	PROGRESS_INTERVAL_MS = 100,
	POLL_MAX_MS = 500,
	READY_MAX = 32 /* published together; each holds a descriptor */
};

/* How an attempt ended, when not well. */
enum verdict {
	VERDICT_DONE,
	VERDICT_AGAIN,	  /* what happened may pass */
	VERDICT_REDIRECT, /* job->url has the next address */
	VERDICT_NEXT,	  /* this candidate will not do */
	VERDICT_FATAL	  /* no candidate will: the host is in trouble, or we were interrupted */
};

enum job_state {
	JOB_WAITING, /* for its turn, or for its pause to end */
	JOB_RUNNING,
	JOB_READY, /* judged, to be published with others */
	JOB_DONE
};

struct job {
	const struct fetch_request *request;
	struct fetch_result result;
	enum job_state state;
	struct sink sink;

	size_t candidate;
	char *url;	/* the address now tried, after redirects */
	char *host;	/* of url */
	unsigned n_redirects;
	unsigned attempts;     /* of this candidate, since there was real progress */
	unsigned attempts_all; /* of this candidate */
	uint64_t not_before_ms;
	bool no_range;	       /* the server answers ranges wrongly */
	char validator[HTTP_VALIDATOR_SIZE]; /* of the bytes in the sink, for If-Range; "" none */
	struct strv tried;     /* what became of the candidates so far */
	bool all_absent;       /* each of them said that it is not there */
	int failure;	       /* why it cannot be had, when others go on without it */
	uint64_t total_bytes;  /* as far as known, for progress; 0: unknown */

	/* One attempt. */
	CURL *easy;
	struct curl_slist *headers;
	char curl_text[CURL_ERROR_SIZE];
	struct http_answer answer;
	uint64_t start_offset;	 /* what the sink had before, asked for from there when > 0 and `asked_range` */
	bool asked_range;
	bool body_begun;
	uint64_t heard_ms;	 /* when the last byte came, or it began */
	uint64_t refused_bytes;
	char sniff[SNIFF_BYTES];
	size_t sniff_len;
	bool broke_off;		 /* a callback ended the transfer: `why` and `why_verdict` say it */
	enum verdict why_verdict;
	struct err why;
};

struct fetcher {
	struct publisher *publisher;
	const struct fetch_options *options;
	CURLM *multi;
	struct job *jobs;
	size_t n_jobs, n_done, n_running, n_ready, n_failed;
	struct hosts hosts;
	bool announced; /* the stage was begun */
	uint64_t progress_at_ms;
	const char *ca_file;
};

/* ---- taking the answer ------------------------------------------------------------------------------------------- */

/* Note why this attempt ends; the first reason wins. */
static void break_off(struct job *job, enum verdict verdict)
{
	if (!job->broke_off)
		job->why_verdict = verdict;
	job->broke_off = true;
}

static enum verdict verdict_of_sink_error(const struct err *e)
{
	return e->kind == ERR_KIND_INPUT ? VERDICT_NEXT : VERDICT_FATAL;
}

static void refuse_html(struct job *job)
{
	if (job->broke_off)
		return;
	(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EBADMSG,
		"the server answered with an HTML page (a log-in portal, an error page or a list of files), not with the file; "
		"open the address in a browser, or pin the digest");
	break_off(job, VERDICT_NEXT);
}

/* The bytes to come are the beginning, or the place where we broke off? */
static int align_sink(struct job *job)
{
	if (job->answer.status == 206) {
		if (!job->asked_range || !job->answer.has_range || job->answer.range_start != job->start_offset) {
			job->no_range = true;
			(void)sink_restart(&job->sink, &job->why);
			(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EPROTO, "the server sent another part of the file than asked for");
			break_off(job, VERDICT_AGAIN);
			return -EPROTO;
		}
		return 0;
	}
	/* 200: all of it, because the server knows no ranges or the file is another one by now. */
	job->sniff_len = 0;
	if (sink_offset(&job->sink) > 0 && sink_restart(&job->sink, &job->why) < 0) {
		break_off(job, VERDICT_FATAL);
		return -EIO;
	}
	return 0;
}

/* Look at the head once the body begins. */
static void begin_body(struct job *job)
{
	const struct fetch_request *q = job->request;
	const struct http_answer *a = &job->answer;
	uint64_t total = HTTP_SIZE_UNKNOWN;
	bool pinned = sink_is_pinned(&job->sink);

	job->body_begun = true;
	if (align_sink(job) < 0)
		return;
	if (a->status == 206)
		total = a->total_bytes;
	else if (a->length_bytes != HTTP_SIZE_UNKNOWN)
		total = a->length_bytes;
	(void)snprintf(job->validator, sizeof(job->validator), "%s", a->validator);
	if (!pinned && a->is_html) {
		refuse_html(job);
		return;
	}
	if (total == HTTP_SIZE_UNKNOWN)
		return;
	if (q->size_bytes && total != q->size_bytes) {
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EBADMSG,
			"the server offers %llu bytes, but it should be %llu%s", (unsigned long long)total,
			(unsigned long long)q->size_bytes, a->is_html ? "; what it offers is an HTML page" : "");
		break_off(job, VERDICT_NEXT);
	} else if (total > job->sink.max_bytes) {
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -E2BIG, "the server offers %llu bytes, the limit is %llu",
			(unsigned long long)total, (unsigned long long)job->sink.max_bytes);
		break_off(job, VERDICT_NEXT);
	}
	job->total_bytes = total;
}

static void sniff(struct job *job, const char *bytes, size_t len)
{
	size_t room = SNIFF_BYTES - job->sniff_len, n = len < room ? len : room;

	memcpy(job->sniff + job->sniff_len, bytes, n);
	job->sniff_len += n;
	if (!sink_is_pinned(&job->sink) && http_looks_like_html(job->sniff, job->sniff_len))
		refuse_html(job);
}

/* CURLOPT_WRITEFUNCTION: any other value than size * n ends the transfer. */
static size_t on_body(char *bytes, size_t size, size_t n, void *userdata)
{
	struct job *job = userdata;
	size_t len = size * n; /* size is always 1 */

	job->heard_ms = monotonic_ms();
	if (job->answer.status != 200 && job->answer.status != 206) {
		job->refused_bytes += len;
		return job->refused_bytes > REFUSED_BODY_MAX_BYTES ? 0 : len;
	}
	if (!job->body_begun)
		begin_body(job);
	if (!job->broke_off && sink_offset(&job->sink) == job->sniff_len && job->sniff_len < SNIFF_BYTES)
		sniff(job, bytes, len);
	if (job->broke_off)
		return 0;
	if (sink_write(&job->sink, bytes, len, &job->why) < 0) {
		break_off(job, verdict_of_sink_error(&job->why));
		return 0;
	}
	return len;
}

/* CURLOPT_HEADERFUNCTION */
static size_t on_header(char *line, size_t size, size_t n, void *userdata)
{
	struct job *job = userdata;

	job->heard_ms = monotonic_ms();
	http_answer_line(&job->answer, line, size * n);
	return size * n;
}

/* ---- one attempt ------------------------------------------------------------------------------------------------- */

static void end_attempt(struct fetcher *f, struct job *job)
{
	if (job->easy) {
		(void)curl_multi_remove_handle(f->multi, job->easy);
		curl_easy_cleanup(job->easy);
		job->easy = NULL;
	}
	curl_slist_free_all(job->headers);
	job->headers = NULL;
	if (job->state == JOB_RUNNING) {
		job->state = JOB_WAITING;
		f->n_running--;
	}
}

static int set_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK ? 0 : -EINVAL;
#else
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS) == CURLE_OK ? 0 : -EINVAL;
#endif
}

static int add_header(struct job *job, CURL *easy, const char *line, struct err *e)
{
	struct curl_slist *headers = curl_slist_append(job->headers, line);

	if (!headers)
		return err_set(e, -ENOMEM, "out of memory");
	job->headers = headers;
	(void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, job->headers);
	return 0;
}

/* Ask for the rest when that is safe: the server can tell whether it is still the same file, or a digest will. */
static int ask_for_range(struct job *job, CURL *easy, struct err *e)
{
	char range[32], if_range[HTTP_VALIDATOR_SIZE + 16];

	job->start_offset = sink_offset(&job->sink);
	job->asked_range = job->start_offset > 0 && !job->no_range && (job->validator[0] || sink_is_pinned(&job->sink));
	if (!job->asked_range)
		return job->start_offset > 0 ? sink_restart(&job->sink, e) : 0;
	(void)snprintf(range, sizeof(range), "%llu-", (unsigned long long)job->start_offset);
	if (curl_easy_setopt(easy, CURLOPT_RANGE, range) != CURLE_OK)
		return err_set(e, -ENOMEM, "out of memory");
	if (job->validator[0]) {
		(void)snprintf(if_range, sizeof(if_range), "If-Range: %s", job->validator);
		return add_header(job, easy, if_range, e);
	}
	return 0;
}

static int configure(struct fetcher *f, struct job *job, CURL *easy, struct err *e)
{
	const struct fetch_options *o = f->options;
	CURLcode c = curl_easy_setopt(easy, CURLOPT_URL, job->url);

	/* Proxies come from the environment by libcurl's own default. */
	if (c == CURLE_OK && f->ca_file)
		c = curl_easy_setopt(easy, CURLOPT_CAINFO, f->ca_file);
	if (c == CURLE_OK)
		c = curl_easy_setopt(easy, CURLOPT_USERAGENT, "imgbuild");
	if (c != CURLE_OK || set_protocols(easy) < 0)
		return err_set(e, -EINVAL, "libcurl refuses to be set up: %s", curl_easy_strerror(c));
	(void)curl_easy_setopt(easy, CURLOPT_PRIVATE, job);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, job);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERDATA, job);
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, job->curl_text);
	(void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L); /* libcurl cannot forbid https -> http in a chain */
	(void)curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 128L * 1024);
	(void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT,
		(long)(o->connect_timeout_s ? o->connect_timeout_s : DEFAULT_CONNECT_TIMEOUT_S));
	if (job->request->fresh && add_header(job, easy, "Cache-Control: no-cache", e) < 0)
		return -ENOMEM;
	return ask_for_range(job, easy, e);
}

/* Start the transfer of job->url. */
static int begin_attempt(struct fetcher *f, struct job *job, struct err *e)
{
	CURLMcode c;
	int r;

	job->easy = curl_easy_init();
	if (!job->easy)
		return err_set(e, -ENOMEM, "libcurl cannot make a transfer");
	http_answer_init(&job->answer);
	err_clear(&job->why);
	job->curl_text[0] = '\0';
	job->broke_off = job->body_begun = false;
	job->refused_bytes = 0;
	job->heard_ms = monotonic_ms();
	if (sink_offset(&job->sink) == 0)
		job->sniff_len = 0;
	r = configure(f, job, job->easy, e);
	if (r < 0) {
		end_attempt(f, job);
		return r;
	}
	c = curl_multi_add_handle(f->multi, job->easy);
	if (c != CURLM_OK) {
		end_attempt(f, job);
		return err_set(e, -ENOMEM, "libcurl cannot start a transfer: %s", curl_multi_strerror(c));
	}
	job->state = JOB_RUNNING;
	f->n_running++;
	return 0;
}

/* ---- judging an attempt ------------------------------------------------------------------------------------------ */

static int code_of(CURLcode c)
{
	switch (c) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return -EHOSTUNREACH;
	case CURLE_COULDNT_CONNECT:
		return -ECONNREFUSED;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_PEER_FAILED_VERIFICATION:
		return -EKEYREJECTED;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	default:
		return -EIO;
	}
}

static bool may_pass(CURLcode c)
{
	switch (c) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
	case CURLE_OPERATION_TIMEDOUT:
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_HTTP2:
	case CURLE_HTTP2_STREAM:
	case CURLE_SSL_CONNECT_ERROR:
		return true;
	default:
		return false;
	}
}

/* libcurl ended the transfer. */
static enum verdict judge_curl(struct job *job, CURLcode c)
{
	/* libcurl's own text names hosts and numbers. Should it ever quote an address, do without it. */
	bool usable = job->curl_text[0] && !strpbrk(job->curl_text, "@?");
	const char *text = usable ? job->curl_text : curl_easy_strerror(c);
	char got[128] = "";

	if (job->total_bytes > 0 && job->body_begun)
		(void)snprintf(got, sizeof(got), " (%llu of %llu bytes came)", (unsigned long long)sink_offset(&job->sink),
			(unsigned long long)job->total_bytes);
	else if (job->body_begun)
		(void)snprintf(got, sizeof(got), " (%llu bytes came)", (unsigned long long)sink_offset(&job->sink));
	(void)err_set_kind(&job->why, ERR_KIND_INPUT, code_of(c), "%s%s%s", text, got,
		c == CURLE_PEER_FAILED_VERIFICATION ? "; CURL_CA_BUNDLE or SSL_CERT_FILE may name the certificates to trust" : "");
	if (c == CURLE_OUT_OF_MEMORY)
		return VERDICT_FATAL;
	return may_pass(c) ? VERDICT_AGAIN : VERDICT_NEXT;
}

static enum verdict judge_status(struct job *job)
{
	unsigned status = job->answer.status;
	const char *text = "";
	int code = -EIO;

	if (status == 404 || status == 410)
		code = -ENOENT, text = status == 404 ? " (not found)" : " (gone)";
	else if (status == 401 || status == 403)
		code = -EACCES, text = status == 401 ? " (it wants a log-in)" : " (forbidden)";
	else if (status == 407)
		code = -EACCES, text = " (the proxy wants a log-in)";
	else if (status == 429)
		code = -EBUSY, text = " (too many requests)";
	(void)err_set_kind(&job->why, ERR_KIND_INPUT, code, "the server answered with status %u%s", status, text);
	return http_status_may_pass(status) ? VERDICT_AGAIN : VERDICT_NEXT;
}

static bool is_redirect(unsigned status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static int set_url(struct job *job, const char *url, struct err *e)
{
	_cleanup_free_ char *host = NULL;
	char *copy;
	int r;

	if (strlen(url) >= URL_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the address is longer than %d bytes", URL_MAX_BYTES);
	if (url_kind(url) == URL_HTTP || url_kind(url) == URL_HTTPS) {
		r = url_authority(url, &host, e);
		if (r < 0)
			return r;
	}
	copy = strdup(url);
	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	free(job->url);
	free(job->host);
	job->url = copy;
	job->host = take_ptr(host);
	return 0;
}

static enum verdict judge_redirect(struct job *job)
{
	char *target = NULL;
	_cleanup_free_ char *shown = NULL;
	enum url_kind from = url_kind(job->url), to;

	(void)curl_easy_getinfo(job->easy, CURLINFO_REDIRECT_URL, &target);
	if (!target) {
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EPROTO, "the server redirects (status %u) without saying where to",
			job->answer.status);
		return VERDICT_NEXT;
	}
	shown = url_redact(target);
	to = url_kind(target);
	if (to != URL_HTTPS && to != URL_HTTP) {
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EPROTO, "the server redirects to `%s`, which is not http or https",
			shown ? shown : "");
		return VERDICT_NEXT;
	}
	if (from == URL_HTTPS && to == URL_HTTP) {
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EPROTO,
			"the server redirects from https to `%s`, which anybody on the way could change", shown ? shown : "");
		return VERDICT_NEXT;
	}
	if (++job->n_redirects > FETCH_MAX_REDIRECTS) {
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -ELOOP, "the server redirects more than %d times",
			FETCH_MAX_REDIRECTS);
		return VERDICT_NEXT;
	}
	return set_url(job, target, &job->why) < 0 ? VERDICT_NEXT : VERDICT_REDIRECT;
}

/* The sink has all that came: is it right? */
static enum verdict judge_bytes(struct job *job)
{
	const struct fetch_request *q = job->request;
	struct blob_info info;
	uint64_t taken = sink_offset(&job->sink);
	bool resumed = job->asked_range && job->answer.status == 206;

	if (q->size_bytes && taken < q->size_bytes && !job->answer.is_html) {
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EIO, "the answer ended after %llu of %llu bytes",
			(unsigned long long)taken, (unsigned long long)q->size_bytes);
		return VERDICT_AGAIN;
	}
	if (!sink_is_pinned(&job->sink) && !q->into && !job->answer.is_delimited && taken != q->size_bytes) {
		(void)sink_restart(&job->sink, &job->why);
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EBADMSG, "the server did not say how long the file is, so that a "
			"broken transfer (%llu bytes came) cannot be told from a whole one; pin the digest",
			(unsigned long long)taken);
		return VERDICT_NEXT;
	}
	if (sink_judge(&job->sink, &info, &job->why) < 0) {
		if (verdict_of_sink_error(&job->why) == VERDICT_FATAL)
			return VERDICT_FATAL;
		job->validator[0] = '\0';
		if (http_looks_like_html(job->sniff, job->sniff_len) || job->answer.is_html)
			(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EBADMSG,
				"the server answered with an HTML page (%llu bytes), not with the file", (unsigned long long)taken);
		/* The beginning may be damaged, or of another file; or the end is missing and nobody can tell. */
		return resumed || !job->answer.is_delimited ? VERDICT_AGAIN : VERDICT_NEXT;
	}
	job->result.sha256 = info.sha256;
	job->result.sha512 = info.sha512;
	job->result.size_bytes = info.size_bytes;
	return VERDICT_DONE;
}

/* "Range not satisfiable": nothing is missing, or what we have is no beginning of that file. */
static enum verdict judge_range_refused(struct job *job)
{
	uint64_t taken = sink_offset(&job->sink);

	if (job->asked_range && taken > 0 && taken == job->answer.total_bytes) {
		enum verdict v = judge_bytes(job);

		if (v == VERDICT_DONE || v == VERDICT_FATAL)
			return v;
	}
	job->no_range = true;
	if (sink_restart(&job->sink, &job->why) < 0)
		return VERDICT_FATAL;
	(void)err_set_kind(&job->why, ERR_KIND_INPUT, -EPROTO, "the server refuses to go on at byte %llu",
		(unsigned long long)taken);
	return job->asked_range ? VERDICT_AGAIN : VERDICT_NEXT;
}

static enum verdict judge_attempt(struct job *job, CURLcode c)
{
	unsigned status = job->answer.status;

	if (job->broke_off)
		return job->why_verdict;
	if (status == 416)
		return judge_range_refused(job);
	if (is_redirect(status) && (c == CURLE_OK || job->refused_bytes > 0))
		return judge_redirect(job);
	if (status >= 400 && (c == CURLE_OK || job->refused_bytes > 0))
		return judge_status(job);
	if (c != CURLE_OK)
		return judge_curl(job, c);
	if (status != 200 && status != 206)
		return judge_status(job);
	if (!job->body_begun) {
		begin_body(job);
		if (job->broke_off)
			return job->why_verdict;
	}
	return judge_bytes(job);
}

/* ---- what follows from it ----------------------------------------------------------------------------------------- */

static unsigned max_attempts(const struct fetcher *f, const struct job *job)
{
	unsigned most = f->options->max_attempts ? f->options->max_attempts : FETCH_MAX_ATTEMPTS;
	bool silent = job->answer.status == 0 && job->why.code == -ETIMEDOUT;

	return silent && most > SILENT_ATTEMPTS_MAX && job->candidate + 1 < job->request->n_urls ? SILENT_ATTEMPTS_MAX : most;
}

/* Twice as long each time, and not in step with others that lost the same server. */
static uint64_t pause_ms(const struct fetcher *f, const struct job *job)
{
	uint64_t base = f->options->retry_delay_ms ? f->options->retry_delay_ms : DEFAULT_RETRY_DELAY_MS;
	uint64_t longest = base * RETRY_DELAY_MAX_FACTOR, pause = longest, asked;
	uint32_t jitter = 0;

	if (job->attempts >= 1 && job->attempts <= 6)
		pause = base << (job->attempts - 1);
	else if (job->attempts == 0)
		pause = base;
	if (pause > longest)
		pause = longest;
	if (getrandom(&jitter, sizeof(jitter), GRND_NONBLOCK) < 0)
		jitter = 0;
	pause = pause / 2 + pause * (jitter % 1024) / 2048;
	asked = (uint64_t)job->answer.retry_after_s * 1000;
	if (asked > 2 * longest)
		asked = 2 * longest;
	return asked > pause ? asked : pause;
}

/* Write down why a candidate did not do. */
static int note_tried(struct fetcher *f, struct job *job, const char *url, struct err *e)
{
	_cleanup_free_ char *shown = url_redact(url);
	char attempts[48] = "";

	if (job->why.code != -ENOENT)
		job->all_absent = false;
	if (job->attempts_all > 1)
		(void)snprintf(attempts, sizeof(attempts), " (%u attempts)", job->attempts_all);
	if (!shown || strv_addf(&job->tried, "`%s`: %s%s", shown, job->why.message, attempts) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	/* Wrong bytes are told even if the right ones are found elsewhere: somebody changed a file, or its server lies. */
	if (job->why.code == -EBADMSG && job->candidate + 1 < job->request->n_urls)
		progress_warning(f->options->progress, "%s: `%s`: %s; it is sought elsewhere", job->request->label, shown,
			job->why.message);
	return 0;
}

static int job_done(struct fetcher *f, struct job *job)
{
	assert(job->state != JOB_DONE);
	sink_release(&job->sink);
	job->state = JOB_DONE;
	f->n_done++;
	return 0;
}

/* One error of all that cannot be had. */
static int name_missing(struct fetcher *f, struct err *e)
{
	_cleanup_missing_ struct missing own = { 0 };
	struct missing *missing = f->options->missing ? f->options->missing : &own;
	int r = 0;

	for (size_t i = 0; r == 0 && i < f->n_jobs; i++) {
		const struct fetch_request *q = f->jobs[i].request;
		struct missing_file file = { .label = (char *)(uintptr_t)q->label,
			.sha256 = q->sha256,
			.sha512 = q->sha512,
			.size_bytes = q->size_bytes ? q->size_bytes : q->about_bytes,
			.code = f->jobs[i].failure };

		if (f->jobs[i].failure)
			r = missing_add(missing, &file, &f->jobs[i].tried, e);
	}
	return r < 0 ? r : missing_error(missing, f->n_jobs, e);
}

/* Do the others go on without a file that cannot be had? */
static bool goes_on(const struct fetcher *f)
{
	return f->options->missing || f->options->offline;
}

/* No candidate is left. */
static int job_failed(struct fetcher *f, struct job *job, struct err *e)
{
	if (job->request->optional && job->all_absent) {
		job->result.missing = true;
		return job_done(f, job);
	}
	job->failure = job->all_absent ? -ENOENT : job->why.code;
	f->n_failed++;
	(void)job_done(f, job);
	return goes_on(f) ? 0 : name_missing(f, e);
}

/* Go on to the next candidate; bytes that a digest will judge may come from several. */
static int next_candidate(struct fetcher *f, struct job *job, struct err *e)
{
	int r = note_tried(f, job, job->request->urls[job->candidate], e);

	if (r < 0)
		return r;
	job->candidate++;
	job->n_redirects = job->attempts = job->attempts_all = 0;
	job->no_range = false;
	job->not_before_ms = 0;
	job->validator[0] = '\0';
	free(take_ptr(job->url));
	if (job->candidate == job->request->n_urls)
		return job_failed(f, job, e);
	if (!sink_is_pinned(&job->sink))
		return sink_restart(&job->sink, e);
	return 0;
}

static int try_again(struct fetcher *f, struct job *job, struct err *e)
{
	uint64_t taken = sink_offset(&job->sink), brought = taken > job->start_offset ? taken - job->start_offset : 0;
	bool resumable = !job->no_range && (sink_is_pinned(&job->sink) || job->validator[0]);

	job->attempts++;
	job->attempts_all++;
	if (brought >= REAL_PROGRESS_BYTES && resumable)
		job->attempts = 0;
	if (job->attempts >= max_attempts(f, job) || job->attempts_all >= ATTEMPTS_MAX_IN_ALL) {
		if (job->answer.status == 0)
			hosts_stayed_silent(&f->hosts, job->host, &job->why);
		return next_candidate(f, job, e);
	}
	job->not_before_ms = monotonic_ms() + pause_ms(f, job);
	if (job->answer.status != 0 || hosts_tell_silence(&f->hosts, job->host, job->attempts_all))
		progress_note(f->options->progress, "%s: %s; trying again", job->request->label, job->why.message);
	/* From the candidate's own address: a redirect may lead elsewhere the next time. */
	job->n_redirects = 0;
	free(take_ptr(job->url));
	return 0;
}

/* The bytes are right. A buffer is done; a blob waits for others to be published with. */
static int finish_job(struct fetcher *f, struct job *job, const char *url, uint64_t transferred)
{
	job->result.url = url_redact(url);
	job->result.transferred_bytes += transferred;
	if (!job->sink.writer)
		return job_done(f, job);
	job->state = JOB_READY;
	f->n_ready++;
	return 0;
}

static int publish_ready(struct fetcher *f, struct err *e)
{
	struct blob_writer *writers[READY_MAX];
	size_t n = 0;
	int r;

	for (size_t i = 0; i < f->n_jobs && n < READY_MAX; i++)
		if (f->jobs[i].state == JOB_READY)
			writers[n++] = f->jobs[i].sink.writer;
	if (n == 0)
		return 0;
	r = blob_writers_publish(writers, n, e);
	if (r < 0)
		return err_wrap(e, "keeping what was downloaded");
	for (size_t i = 0; i < f->n_jobs && n > 0; i++) {
		if (f->jobs[i].state != JOB_READY)
			continue;
		(void)job_done(f, &f->jobs[i]);
		f->n_ready--;
		n--;
	}
	return 0;
}

/* A transfer ended with c. */
static int attempt_ended(struct fetcher *f, struct job *job, CURLcode c, struct err *e)
{
	enum verdict v = judge_attempt(job, c);
	curl_off_t received = 0;

	(void)curl_easy_getinfo(job->easy, CURLINFO_SIZE_DOWNLOAD_T, &received);
	if (job->body_begun && received > 0)
		job->result.transferred_bytes += (uint64_t)received;
	if (job->answer.status != 0)
		hosts_answered(&f->hosts, job->host);
	end_attempt(f, job);
	switch (v) {
	case VERDICT_DONE:
		return finish_job(f, job, job->url, 0);
	case VERDICT_REDIRECT:
		return 0; /* waits with its new address and no pause */
	case VERDICT_AGAIN:
		return try_again(f, job, e);
	case VERDICT_NEXT:
		job->attempts_all++;
		return next_candidate(f, job, e);
	case VERDICT_FATAL:
		break;
	}
	*e = job->why;
	return err_wrap(e, "downloading %s", job->request->label);
}

/* End the transfers that have been silent for too long. (libcurl's own low-speed limit averages over seconds, and so finds
 * out late.) */
static int end_stalled(struct fetcher *f, bool *ret_any, struct err *e)
{
	unsigned limit_s = f->options->stall_timeout_s ? f->options->stall_timeout_s : DEFAULT_STALL_TIMEOUT_S;
	uint64_t now = monotonic_ms();

	for (size_t i = 0; i < f->n_jobs; i++) {
		struct job *job = &f->jobs[i];
		int r;

		if (job->state != JOB_RUNNING || now < job->heard_ms + (uint64_t)limit_s * 1000)
			continue;
		*ret_any = true;
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -ETIMEDOUT, "not a byte came for %u s (%llu bytes came before)", limit_s,
			(unsigned long long)sink_offset(&job->sink));
		break_off(job, VERDICT_AGAIN);
		r = attempt_ended(f, job, CURLE_OPERATION_TIMEDOUT, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- starting jobs ------------------------------------------------------------------------------------------------ */

/* A candidate of this machine: no waiting, no second attempt. */
static int take_local(struct fetcher *f, struct job *job, const char *url, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	struct blob_info info;
	int r = url_local_path(url, &path, &job->why);

	if (r == 0)
		r = sink_take_file(&job->sink, path, f->options->cancel_fd, &info, &job->why);
	if (r < 0) {
		bool fatal = job->why.kind == ERR_KIND_HOST || r == -ECANCELED || r == -ENOMEM;

		if (!fatal)
			return next_candidate(f, job, e);
		*e = job->why;
		return err_wrap(e, "copying %s", job->request->label);
	}
	job->result.sha256 = info.sha256;
	job->result.sha512 = info.sha512;
	job->result.size_bytes = info.size_bytes;
	return finish_job(f, job, url, info.size_bytes);
}

/* Everything is there already, left by a process that died just before the end? */
static int finish_without_network(struct fetcher *f, struct job *job, const char *url, struct err *e)
{
	const struct fetch_request *q = job->request;

	if (!q->size_bytes || sink_offset(&job->sink) != q->size_bytes)
		return 0;
	http_answer_init(&job->answer);
	job->asked_range = false;
	job->sniff_len = 0;
	switch (judge_bytes(job)) {
	case VERDICT_DONE:
		return finish_job(f, job, url, 0);
	case VERDICT_FATAL:
		*e = job->why;
		return err_wrap(e, "downloading %s", q->label);
	default:
		return 0; /* the sink is at its beginning again */
	}
}

static size_t running_on_host(const struct fetcher *f, const char *host)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n_jobs; i++)
		if (f->jobs[i].state == JOB_RUNNING && f->jobs[i].host && strcmp(f->jobs[i].host, host) == 0)
			n++;
	return n;
}

static void announce(struct fetcher *f)
{
	size_t left = f->n_jobs - f->n_done;
	const char *first = "";

	if (f->announced)
		return;
	for (size_t i = f->n_jobs; i > 0; i--)
		if (f->jobs[i - 1].state != JOB_DONE)
			first = f->jobs[i - 1].request->label;
	f->announced = true;
	if (left > 1)
		progress_begin(f->options->progress, "download", "%s and %zu more", first, left - 1);
	else
		progress_begin(f->options->progress, "download", "%s", first);
}

/* Start what this waiting job is to do next, if it may. */
static int start_job(struct fetcher *f, struct job *job, struct err *e)
{
	const char *url = job->request->urls[job->candidate];
	enum url_kind kind = url_kind(url);
	const struct err *silent;
	int r;

	announce(f);
	if (kind == URL_PATH || kind == URL_FILE)
		return take_local(f, job, url, e);
	if (kind == URL_OTHER) {
		(void)err_set_kind(&job->why, ERR_KIND_USAGE, -EINVAL, "only http, https, file and plain paths can be fetched");
		return next_candidate(f, job, e);
	}
	if (f->options->offline) {
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, -ENETUNREACH, "not asked, because of --offline");
		return next_candidate(f, job, e);
	}
	if (!job->url && set_url(job, url, &job->why) < 0)
		return next_candidate(f, job, e);
	silent = hosts_given_up(&f->hosts, job->host);
	if (silent) {
		(void)err_set_kind(&job->why, ERR_KIND_INPUT, silent->code, "not asked, since the server did not answer for another file (%s)",
			silent->message);
		job->attempts_all = 0;
		return next_candidate(f, job, e);
	}
	if (running_on_host(f, job->host) >= FETCH_MAX_ACTIVE_PER_HOST)
		return 0;
	r = sink_open(&job->sink, e);
	if (r == 0)
		r = finish_without_network(f, job, url, e);
	if (r < 0 || job->state != JOB_WAITING)
		return r;
	return begin_attempt(f, job, e);
}

/* Start what may be started now. *ret_wait_ms: until when nothing else will. */
static int start_jobs(struct fetcher *f, int *ret_wait_ms, struct err *e)
{
	uint64_t now = monotonic_ms();

	*ret_wait_ms = POLL_MAX_MS;
	for (size_t i = 0; i < f->n_jobs; i++) {
		struct job *job = &f->jobs[i];
		int r;

		if (job->state != JOB_WAITING)
			continue;
		if (job->not_before_ms > now) {
			uint64_t wait = job->not_before_ms - now;

			if (wait < (uint64_t)*ret_wait_ms)
				*ret_wait_ms = (int)wait;
			continue;
		}
		if (f->n_running >= FETCH_MAX_ACTIVE)
			continue;
		r = start_job(f, job, e);
		if (r < 0)
			return r;
		/* It went on to its next candidate, or was a local file: do not wait for the network before looking again. */
		if (job->state == JOB_DONE || job->state == JOB_READY || (job->state == JOB_WAITING && !job->url))
			*ret_wait_ms = 0;
	}
	return 0;
}

/* ---- before and around --------------------------------------------------------------------------------------------- */

static int compute_sha512(const struct store *s, const struct digest *sha256, struct digest *ret, struct err *e)
{
	_cleanup_close_ int fd = -1;
	int r = store_open_blob(s, sha256, &fd, NULL, e);

	return r < 0 ? r : digest_fd(DIGEST_SHA512, fd, UINT64_MAX, ret, e);
}

/* Is the blob here already? Then the job is done. */
static int look_in_store(struct fetcher *f, struct job *job, struct err *e)
{
	const struct fetch_request *q = job->request;
	const struct digest *by = q->sha256.algorithm != DIGEST_NONE ? &q->sha256 : &q->sha512;
	const struct store *s;
	struct err absent = ERR_INIT;
	struct digest sha256;
	uint64_t size_bytes = 0;
	int r;

	if (q->into || by->algorithm == DIGEST_NONE)
		return 0;
	s = publisher_store(f->publisher);
	r = store_find_blob(s, by, &sha256, &size_bytes, &absent);
	if (r == -ENOENT || (r == 0 && q->size_bytes && size_bytes != q->size_bytes))
		return 0; /* of another size: damaged, or the request is wrong; the download will show */
	if (r < 0) {
		*e = absent;
		return r;
	}
	job->result.sha256 = sha256;
	job->result.size_bytes = size_bytes;
	job->result.was_stored = true;
	if (by->algorithm == DIGEST_SHA512) {
		job->result.sha512 = *by;
	} else if (q->sha512.algorithm != DIGEST_NONE || q->want_sha512) {
		r = compute_sha512(s, &sha256, &job->result.sha512, e);
		if (r < 0)
			return r;
		if (q->sha512.algorithm != DIGEST_NONE && !digest_equal(&q->sha512, &job->result.sha512))
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
				"%s: no bytes can have both the sha256 and the sha512 that are given for it; one of them is wrong",
				q->label);
	}
	return job_done(f, job);
}

static void report(struct fetcher *f, bool at_once)
{
	uint64_t now = monotonic_ms(), done = 0, total = 0;
	bool total_known = true;
	char detail[64] = "";

	if (!f->options->progress || !f->announced || (!at_once && now - f->progress_at_ms < PROGRESS_INTERVAL_MS))
		return;
	f->progress_at_ms = now;
	for (size_t i = 0; i < f->n_jobs; i++) {
		const struct job *job = &f->jobs[i];
		uint64_t size = job->request->size_bytes ? job->request->size_bytes : job->total_bytes;

		if (job->result.was_stored || job->result.missing || job->failure)
			continue;
		if (size == 0)
			size = job->request->about_bytes;
		if (job->state >= JOB_READY)
			size = job->result.size_bytes;
		done += job->state >= JOB_READY ? job->result.size_bytes : sink_offset(&job->sink);
		if (size == 0)
			total_known = false;
		total += size;
	}
	if (f->n_jobs > 1)
		(void)snprintf(detail, sizeof(detail), "%zu of %zu files", f->n_done + f->n_ready, f->n_jobs);
	progress_update(f->options->progress, "download", PROGRESS_BYTES, done, total_known ? total : 0, detail);
}

/* Deal with the transfers that ended. *ret_any: there were some, so that others may be started. */
static int collect_ended(struct fetcher *f, bool *ret_any, struct err *e)
{
	CURLMsg *message;
	int left;

	*ret_any = false;
	while ((message = curl_multi_info_read(f->multi, &left))) {
		void *private = NULL;
		int r;

		if (message->msg != CURLMSG_DONE)
			continue;
		*ret_any = true;
		(void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
		r = attempt_ended(f, private, message->data.result, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int run(struct fetcher *f, struct err *e)
{
	struct curl_waitfd cancel = { .fd = f->options->cancel_fd, .events = CURL_WAIT_POLLIN };
	unsigned n_cancel = f->options->cancel_fd >= 0;

	while (f->n_done < f->n_jobs) {
		int wait_ms, still_running;
		bool any = false;
		CURLMcode c;
		int r = start_jobs(f, &wait_ms, e);

		if (r < 0)
			return r;
		c = curl_multi_perform(f->multi, &still_running);
		if (c != CURLM_OK)
			return err_set(e, -EIO, "libcurl failed: %s", curl_multi_strerror(c));
		r = collect_ended(f, &any, e);
		if (r == 0)
			r = end_stalled(f, &any, e);
		if (r == 0)
			r = cancel_check(f->options->cancel_fd, 0, e);
		if (r < 0)
			return r;
		report(f, false);
		if (f->n_ready >= READY_MAX || (f->n_ready > 0 && f->n_ready + f->n_done == f->n_jobs)) {
			r = publish_ready(f, e);
			if (r < 0)
				return r;
			continue;
		}
		if (any || wait_ms == 0)
			continue;
		c = curl_multi_poll(f->multi, &cancel, n_cancel, wait_ms, NULL);
		if (c != CURLM_OK)
			return err_set(e, -EIO, "libcurl cannot wait: %s", curl_multi_strerror(c));
	}
	return 0;
}

static void fetcher_release(struct fetcher *f)
{
	for (size_t i = 0; i < f->n_jobs && f->jobs; i++) {
		struct job *job = &f->jobs[i];

		end_attempt(f, job);
		sink_release(&job->sink);
		strv_release(&job->tried);
		free(job->url);
		free(job->host);
		free(job->result.url);
	}
	free(f->jobs);
	hosts_release(&f->hosts);
	if (f->multi)
		(void)curl_multi_cleanup(f->multi);
}

static int prepare(struct fetcher *f, const struct fetch_request *requests, size_t n, struct err *e)
{
	f->jobs = calloc(n ? n : 1, sizeof(*f->jobs));
	if (!f->jobs)
		return err_set(e, -ENOMEM, "out of memory");
	f->n_jobs = n;
	for (size_t i = 0; i < n; i++) {
		struct job *job = &f->jobs[i];

		assert(requests[i].n_urls > 0 && requests[i].label);
		assert(requests[i].into || f->publisher);
		job->request = &requests[i];
		job->all_absent = true;
		sink_init(&job->sink, f->publisher, &requests[i]);
	}
	for (size_t i = 0; i < n; i++) {
		int r = look_in_store(f, &f->jobs[i], e);

		if (r < 0)
			return r;
	}
	return 0;
}

static int open_multi(struct fetcher *f, struct err *e)
{
	const char *ca = secure_getenv("CURL_CA_BUNDLE");

	if (!ca || !ca[0])
		ca = secure_getenv("SSL_CERT_FILE");
	f->ca_file = ca && ca[0] ? ca : NULL;
	f->multi = curl_multi_init();
	if (!f->multi)
		return err_set(e, -ENOMEM, "libcurl cannot be started");
	/* As many kept connections as transfers, or every second file pays for a new one. */
	(void)curl_multi_setopt(f->multi, CURLMOPT_MAXCONNECTS, (long)FETCH_MAX_ACTIVE);
	return 0;
}

static void hand_over(struct fetcher *f, struct fetch_result *ret_results)
{
	for (size_t i = 0; i < f->n_jobs && ret_results; i++) {
		ret_results[i] = f->jobs[i].result;
		f->jobs[i].result.url = NULL;
	}
}

int fetch_all(struct publisher *p, const struct fetch_request *requests, size_t n, const struct fetch_options *options,
	struct fetch_result *ret_results, struct err *e)
{
	struct fetcher f = { .publisher = p, .options = options };
	int r = prepare(&f, requests, n, e);

	if (r < 0 || f.n_done == n) { /* everything is here: do not even wake libcurl */
		if (r == 0)
			hand_over(&f, ret_results);
		fetcher_release(&f);
		return r;
	}
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		fetcher_release(&f);
		return err_set(e, -ENOMEM, "libcurl cannot be started");
	}
	r = open_multi(&f, e);
	if (r == 0)
		r = run(&f, e);
	if (r == 0 && f.n_failed > 0)
		r = name_missing(&f, e);
	if (r == 0) {
		report(&f, true);
		if (f.announced)
			progress_end(options->progress, "download", "%zu %s", n, n == 1 ? "file" : "files");
		hand_over(&f, ret_results);
	}
	fetcher_release(&f);
	curl_global_cleanup();
	return r;
}

void fetch_results_release(struct fetch_result *results, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(results[i].url);
		results[i].url = NULL;
	}
}

int fetch_bytes(const char *url, const char *label, const struct fetch_options *options, struct buf *into, struct err *e)
{
	struct fetch_request request = { .label = label, .urls = &url, .n_urls = 1, .into = into };

	return fetch_all(NULL, &request, 1, options, NULL, e);
}
