#include "cache/transfer.h"
#include "lib/process.h"

#include <string.h>

enum {
	DEFAULT_CONNECT_TIMEOUT_S = 20,
	REFUSED_BODY_MAX_BYTES = 64 * 1024 /* of error pages and redirects, read only to keep the connection */
};

/* ---- taking the answer ------------------------------------------------------------------------------------------- */

/* Note why this attempt ends; the first reason wins. */
static void break_off(struct transfer *t, enum verdict verdict)
{
	if (!t->broke_off)
		t->why_verdict = verdict;
	t->broke_off = true;
}

static enum verdict verdict_of_sink_error(const struct err *e)
{
	return e->kind == ERR_KIND_INPUT ? VERDICT_NEXT : VERDICT_FATAL;
}

static void refuse_html(struct transfer *t)
{
	if (t->broke_off)
		return;
	(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EBADMSG,
		"the server answered with an HTML page (a log-in portal, an error page or a list of files), not with the file; "
		"open the address in a browser, or pin the digest");
	break_off(t, VERDICT_NEXT);
}

/* The bytes to come are the beginning, or the place where we broke off? */
static int align_sink(struct transfer *t)
{
	if (t->answer.status == 206) {
		if (!t->asked_range || !t->answer.has_range || t->answer.range_start != t->start_offset) {
			t->no_range = true;
			(void)sink_restart(&t->sink, &t->why);
			(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EPROTO, "the server sent another part of the file than asked for");
			break_off(t, VERDICT_AGAIN);
			return -EPROTO;
		}
		return 0;
	}
	/* 200: all of it, because the server knows no ranges or the file is another one by now. */
	t->sniff_len = 0;
	if (sink_offset(&t->sink) > 0 && sink_restart(&t->sink, &t->why) < 0) {
		break_off(t, VERDICT_FATAL);
		return -EIO;
	}
	return 0;
}

/* Look at the head once the body begins. */
static void begin_body(struct transfer *t)
{
	const struct fetch_request *q = t->request;
	const struct http_answer *a = &t->answer;
	uint64_t total = HTTP_SIZE_UNKNOWN;
	bool pinned = sink_is_pinned(&t->sink);

	t->body_begun = true;
	if (align_sink(t) < 0)
		return;
	if (a->status == 206)
		total = a->total_bytes;
	else if (a->length_bytes != HTTP_SIZE_UNKNOWN)
		total = a->length_bytes;
	(void)snprintf(t->validator, sizeof(t->validator), "%s", a->validator);
	if (!pinned && a->is_html) {
		refuse_html(t);
		return;
	}
	if (total == HTTP_SIZE_UNKNOWN)
		return;
	if (q->size_bytes && total != q->size_bytes) {
		(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EBADMSG,
			"the server offers %llu bytes, but it should be %llu%s", (unsigned long long)total,
			(unsigned long long)q->size_bytes, a->is_html ? "; what it offers is an HTML page" : "");
		break_off(t, VERDICT_NEXT);
	} else if (total > t->sink.max_bytes) {
		(void)err_set_kind(&t->why, ERR_KIND_INPUT, -E2BIG, "the server offers %llu bytes, the limit is %llu",
			(unsigned long long)total, (unsigned long long)t->sink.max_bytes);
		break_off(t, VERDICT_NEXT);
	}
	t->total_bytes = total;
}

static void sniff(struct transfer *t, const char *bytes, size_t len)
{
	size_t room = TRANSFER_SNIFF_BYTES - t->sniff_len, n = len < room ? len : room;

	memcpy(t->sniff + t->sniff_len, bytes, n);
	t->sniff_len += n;
	if (!sink_is_pinned(&t->sink) && http_looks_like_html(t->sniff, t->sniff_len))
		refuse_html(t);
}

/* CURLOPT_WRITEFUNCTION: any other value than size * n ends the transfer. */
static size_t on_body(char *bytes, size_t size, size_t n, void *userdata)
{
	struct transfer *t = userdata;
	size_t len = size * n; /* size is always 1 */

	t->heard_ms = monotonic_ms();
	if (t->answer.status != 200 && t->answer.status != 206) {
		t->refused_bytes += len;
		return t->refused_bytes > REFUSED_BODY_MAX_BYTES ? 0 : len;
	}
	if (!t->body_begun)
		begin_body(t);
	if (!t->broke_off && sink_offset(&t->sink) == t->sniff_len && t->sniff_len < TRANSFER_SNIFF_BYTES)
		sniff(t, bytes, len);
	if (t->broke_off)
		return 0;
	if (sink_write(&t->sink, bytes, len, &t->why) < 0) {
		break_off(t, verdict_of_sink_error(&t->why));
		return 0;
	}
	return len;
}

/* CURLOPT_HEADERFUNCTION */
static size_t on_header(char *line, size_t size, size_t n, void *userdata)
{
	struct transfer *t = userdata;

	t->heard_ms = monotonic_ms();
	http_answer_line(&t->answer, line, size * n);
	return size * n;
}

/* ---- one attempt ------------------------------------------------------------------------------------------------- */

void transfer_end(struct transfer *t, CURLM *multi)
{
	if (t->easy) {
		(void)curl_multi_remove_handle(multi, t->easy);
		curl_easy_cleanup(t->easy);
		t->easy = NULL;
	}
	curl_slist_free_all(t->headers);
	t->headers = NULL;
}

static int set_protocols(CURL *easy)
{
#if LIBCURL_VERSION_NUM >= 0x075500
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK ? 0 : -EINVAL;
#else
	return curl_easy_setopt(easy, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS) == CURLE_OK ? 0 : -EINVAL;
#endif
}

static int add_header(struct transfer *t, CURL *easy, const char *line, struct err *e)
{
	struct curl_slist *headers = curl_slist_append(t->headers, line);

	if (!headers)
		return err_set(e, -ENOMEM, "out of memory");
	t->headers = headers;
	(void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->headers);
	return 0;
}

/* Ask for the rest when that is safe: the server can tell whether it is still the same file, or a digest will. */
static int ask_for_range(struct transfer *t, CURL *easy, struct err *e)
{
	char range[32], if_range[HTTP_VALIDATOR_SIZE + 16];

	t->start_offset = sink_offset(&t->sink);
	t->asked_range = t->start_offset > 0 && !t->no_range && (t->validator[0] || sink_is_pinned(&t->sink));
	if (!t->asked_range)
		return t->start_offset > 0 ? sink_restart(&t->sink, e) : 0;
	(void)snprintf(range, sizeof(range), "%llu-", (unsigned long long)t->start_offset);
	if (curl_easy_setopt(easy, CURLOPT_RANGE, range) != CURLE_OK)
		return err_set(e, -ENOMEM, "out of memory");
	if (t->validator[0]) {
		(void)snprintf(if_range, sizeof(if_range), "If-Range: %s", t->validator);
		return add_header(t, easy, if_range, e);
	}
	return 0;
}

static int configure(struct transfer *t, const struct fetch_options *o, const char *ca_file, CURL *easy, struct err *e)
{
	CURLcode c = curl_easy_setopt(easy, CURLOPT_URL, t->url);

	/* Proxies come from the environment by libcurl's own default. */
	if (c == CURLE_OK && ca_file)
		c = curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
	if (c == CURLE_OK)
		c = curl_easy_setopt(easy, CURLOPT_USERAGENT, "imgbuild");
	if (c != CURLE_OK || set_protocols(easy) < 0)
		return err_set(e, -EINVAL, "libcurl refuses to be set up: %s", curl_easy_strerror(c));
	(void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->curl_text);
	(void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L); /* libcurl cannot forbid https -> http in a chain */
	(void)curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 128L * 1024);
	(void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT,
		(long)(o->connect_timeout_s ? o->connect_timeout_s : DEFAULT_CONNECT_TIMEOUT_S));
	if (t->request->fresh && add_header(t, easy, "Cache-Control: no-cache", e) < 0)
		return -ENOMEM;
	return ask_for_range(t, easy, e);
}

int transfer_begin(struct transfer *t, CURLM *multi, const struct fetch_options *options, const char *ca_file, struct err *e)
{
	CURLMcode c;
	int r;

	t->easy = curl_easy_init();
	if (!t->easy)
		return err_set(e, -ENOMEM, "libcurl cannot make a transfer");
	http_answer_init(&t->answer);
	err_clear(&t->why);
	t->curl_text[0] = '\0';
	t->broke_off = t->body_begun = false;
	t->refused_bytes = 0;
	t->heard_ms = monotonic_ms();
	if (sink_offset(&t->sink) == 0)
		t->sniff_len = 0;
	r = configure(t, options, ca_file, t->easy, e);
	if (r < 0) {
		transfer_end(t, multi);
		return r;
	}
	c = curl_multi_add_handle(multi, t->easy);
	if (c != CURLM_OK) {
		transfer_end(t, multi);
		return err_set(e, -ENOMEM, "libcurl cannot start a transfer: %s", curl_multi_strerror(c));
	}
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
static enum verdict judge_curl(struct transfer *t, CURLcode c)
{
	/* libcurl's own text names hosts and numbers. Should it ever quote an address, do without it. */
	bool usable = t->curl_text[0] && !strpbrk(t->curl_text, "@?");
	const char *text = usable ? t->curl_text : curl_easy_strerror(c);
	char got[128] = "";

	if (t->total_bytes > 0 && t->body_begun)
		(void)snprintf(got, sizeof(got), " (%llu of %llu bytes came)", (unsigned long long)sink_offset(&t->sink),
			(unsigned long long)t->total_bytes);
	else if (t->body_begun)
		(void)snprintf(got, sizeof(got), " (%llu bytes came)", (unsigned long long)sink_offset(&t->sink));
	(void)err_set_kind(&t->why, ERR_KIND_INPUT, code_of(c), "%s%s%s", text, got,
		c == CURLE_PEER_FAILED_VERIFICATION ? "; CURL_CA_BUNDLE or SSL_CERT_FILE may name the certificates to trust" : "");
	if (c == CURLE_OUT_OF_MEMORY)
		return VERDICT_FATAL;
	return may_pass(c) ? VERDICT_AGAIN : VERDICT_NEXT;
}

static enum verdict judge_status(struct transfer *t)
{
	unsigned status = t->answer.status;
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
	(void)err_set_kind(&t->why, ERR_KIND_INPUT, code, "the server answered with status %u%s", status, text);
	return http_status_may_pass(status) ? VERDICT_AGAIN : VERDICT_NEXT;
}

static bool is_redirect(unsigned status)
{
	return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

int transfer_set_url(struct transfer *t, const char *url, struct err *e)
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
	free(t->url);
	free(t->host);
	t->url = copy;
	t->host = take_ptr(host);
	return 0;
}

static enum verdict judge_redirect(struct transfer *t)
{
	char *target = NULL;
	_cleanup_free_ char *shown = NULL;
	enum url_kind from = url_kind(t->url), to;

	(void)curl_easy_getinfo(t->easy, CURLINFO_REDIRECT_URL, &target);
	if (!target) {
		(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EPROTO, "the server redirects (status %u) without saying where to",
			t->answer.status);
		return VERDICT_NEXT;
	}
	shown = url_redact(target);
	to = url_kind(target);
	if (to != URL_HTTPS && to != URL_HTTP) {
		(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EPROTO, "the server redirects to `%s`, which is not http or https",
			shown ? shown : "");
		return VERDICT_NEXT;
	}
	if (from == URL_HTTPS && to == URL_HTTP) {
		(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EPROTO,
			"the server redirects from https to `%s`, which anybody on the way could change", shown ? shown : "");
		return VERDICT_NEXT;
	}
	if (++t->n_redirects > FETCH_MAX_REDIRECTS) {
		(void)err_set_kind(&t->why, ERR_KIND_INPUT, -ELOOP, "the server redirects more than %d times",
			FETCH_MAX_REDIRECTS);
		return VERDICT_NEXT;
	}
	return transfer_set_url(t, target, &t->why) < 0 ? VERDICT_NEXT : VERDICT_REDIRECT;
}

/* The sink has all that came: is it right? */
static enum verdict judge_bytes(struct transfer *t)
{
	const struct fetch_request *q = t->request;
	uint64_t taken = sink_offset(&t->sink);
	bool resumed = t->asked_range && t->answer.status == 206;

	if (q->size_bytes && taken < q->size_bytes && !t->answer.is_html) {
		(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EIO, "the answer ended after %llu of %llu bytes",
			(unsigned long long)taken, (unsigned long long)q->size_bytes);
		return VERDICT_AGAIN;
	}
	if (!sink_is_pinned(&t->sink) && !q->into && !t->answer.is_delimited && taken != q->size_bytes) {
		(void)sink_restart(&t->sink, &t->why);
		(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EBADMSG, "the server did not say how long the file is, so that a "
			"broken transfer (%llu bytes came) cannot be told from a whole one; pin the digest",
			(unsigned long long)taken);
		return VERDICT_NEXT;
	}
	if (sink_judge(&t->sink, &t->info, &t->why) < 0) {
		if (verdict_of_sink_error(&t->why) == VERDICT_FATAL)
			return VERDICT_FATAL;
		t->validator[0] = '\0';
		if (http_looks_like_html(t->sniff, t->sniff_len) || t->answer.is_html)
			(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EBADMSG,
				"the server answered with an HTML page (%llu bytes), not with the file", (unsigned long long)taken);
		/* The beginning may be damaged, or of another file; or the end is missing and nobody can tell. */
		return resumed || !t->answer.is_delimited ? VERDICT_AGAIN : VERDICT_NEXT;
	}
	return VERDICT_DONE;
}

/* "Range not satisfiable": nothing is missing, or what we have is no beginning of that file. */
static enum verdict judge_range_refused(struct transfer *t)
{
	uint64_t taken = sink_offset(&t->sink);

	if (t->asked_range && taken > 0 && taken == t->answer.total_bytes) {
		enum verdict v = judge_bytes(t);

		if (v == VERDICT_DONE || v == VERDICT_FATAL)
			return v;
	}
	t->no_range = true;
	if (sink_restart(&t->sink, &t->why) < 0)
		return VERDICT_FATAL;
	(void)err_set_kind(&t->why, ERR_KIND_INPUT, -EPROTO, "the server refuses to go on at byte %llu",
		(unsigned long long)taken);
	return t->asked_range ? VERDICT_AGAIN : VERDICT_NEXT;
}

enum verdict transfer_judge(struct transfer *t, CURLcode c)
{
	unsigned status = t->answer.status;

	if (t->broke_off)
		return t->why_verdict;
	if (status == 416)
		return judge_range_refused(t);
	if (is_redirect(status) && (c == CURLE_OK || t->refused_bytes > 0))
		return judge_redirect(t);
	if (status >= 400 && (c == CURLE_OK || t->refused_bytes > 0))
		return judge_status(t);
	if (c != CURLE_OK)
		return judge_curl(t, c);
	if (status != 200 && status != 206)
		return judge_status(t);
	if (!t->body_begun) {
		begin_body(t);
		if (t->broke_off)
			return t->why_verdict;
	}
	return judge_bytes(t);
}

enum verdict transfer_judge_whole(struct transfer *t)
{
	http_answer_init(&t->answer);
	t->asked_range = false;
	t->sniff_len = 0;
	return judge_bytes(t);
}

void transfer_give_up_waiting(struct transfer *t, unsigned limit_s)
{
	(void)err_set_kind(&t->why, ERR_KIND_INPUT, -ETIMEDOUT, "not a byte came for %u s (%llu bytes came before)", limit_s,
		(unsigned long long)sink_offset(&t->sink));
	break_off(t, VERDICT_AGAIN);
}

void transfer_forget_url(struct transfer *t)
{
	free(take_ptr(t->url));
}

void transfer_release(struct transfer *t, CURLM *multi)
{
	transfer_end(t, multi);
	sink_release(&t->sink);
	free(t->url);
	free(t->host);
}
