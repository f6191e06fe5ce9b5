#include "cache/fetch.h"
#include "cache/hosts.h"
#include "cache/publisher.h"
#include "cache/transfer.h"
#include "lib/num.h"
#include "lib/process.h"

#include <assert.h>
#include <string.h>
#include <sys/random.h>

enum {
	DEFAULT_RETRY_DELAY_MS = 500,
	DEFAULT_STALL_TIMEOUT_S = 30,
	RETRY_DELAY_MAX_FACTOR = 60,
	REAL_PROGRESS_BYTES = 64 * 1024, /* an attempt that brought as much does not count against the limit */
	ATTEMPTS_MAX_IN_ALL = 1000,	 /* but even so there is an end */
	SILENT_ATTEMPTS_MAX = 2,	 /* of a server that lets each attempt run into a time-out, while there are other candidates */
	PROGRESS_INTERVAL_MS = 100,
	POLL_MAX_MS = 500,
	READY_MAX = 32 /* published together; each holds a descriptor */
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
	struct transfer transfer;

	size_t candidate;
	unsigned attempts;     /* of this candidate, since there was real progress */
	unsigned attempts_all; /* of this candidate */
	uint64_t not_before_ms;
	struct strv tried; /* what became of the candidates so far */
	bool all_absent;   /* each of them said that it is not there */
	int failure;	   /* why it cannot be had, when others go on without it */
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

/* ---- what follows from an attempt ----------------------------------------------------------------------------------------- */

static unsigned max_attempts(const struct fetcher *f, const struct job *job)
{
	unsigned most = f->options->max_attempts ? f->options->max_attempts : FETCH_MAX_ATTEMPTS;
	bool silent = job->transfer.answer.status == 0 && job->transfer.why.code == -ETIMEDOUT;

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
	asked = (uint64_t)job->transfer.answer.retry_after_s * 1000;
	if (asked > 2 * longest)
		asked = 2 * longest;
	return asked > pause ? asked : pause;
}

/* Write down why a candidate did not do. */
static int note_tried(struct fetcher *f, struct job *job, const char *url, struct err *e)
{
	_cleanup_free_ char *shown = url_redact(url);
	char attempts[48] = "";

	if (job->transfer.why.code != -ENOENT)
		job->all_absent = false;
	if (job->attempts_all > 1)
		(void)snprintf(attempts, sizeof(attempts), " (%u attempts)", job->attempts_all);
	if (!shown || strv_addf(&job->tried, "`%s`: %s%s", shown, job->transfer.why.message, attempts) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	/* Wrong bytes are told even if the right ones are found elsewhere: somebody changed a file, or its server lies. */
	if (job->transfer.why.code == -EBADMSG && job->candidate + 1 < job->request->n_urls)
		progress_warning(f->options->progress, "%s: `%s`: %s; it is sought elsewhere", job->request->label, shown,
			job->transfer.why.message);
	return 0;
}

static int job_done(struct fetcher *f, struct job *job)
{
	assert(job->state != JOB_DONE);
	sink_release(&job->transfer.sink);
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
	job->failure = job->all_absent ? -ENOENT : job->transfer.why.code;
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
	job->transfer.n_redirects = job->attempts = job->attempts_all = 0;
	job->transfer.no_range = false;
	job->not_before_ms = 0;
	job->transfer.validator[0] = '\0';
	transfer_forget_url(&job->transfer);
	if (job->candidate == job->request->n_urls)
		return job_failed(f, job, e);
	if (!sink_is_pinned(&job->transfer.sink))
		return sink_restart(&job->transfer.sink, e);
	return 0;
}

/* All attempts for one file ended without an answer. A server that is sending another file meanwhile is not silent but busy. */
static void note_silence(struct fetcher *f, const struct job *silent)
{
	for (size_t i = 0; i < f->n_jobs; i++) {
		const struct job *job = &f->jobs[i];

		if (job->state == JOB_RUNNING && job->transfer.answer.status != 0 &&
			strcmp(job->transfer.host, silent->transfer.host) == 0)
			return;
	}
	hosts_stayed_silent(&f->hosts, silent->transfer.host, &silent->transfer.why);
}

static int try_again(struct fetcher *f, struct job *job, struct err *e)
{
	uint64_t taken = sink_offset(&job->transfer.sink), before = job->transfer.start_offset;
	uint64_t brought = taken > before ? taken - before : 0;
	bool resumable = !job->transfer.no_range && (sink_is_pinned(&job->transfer.sink) || job->transfer.validator[0]);

	job->attempts++;
	job->attempts_all++;
	if (brought >= REAL_PROGRESS_BYTES && resumable)
		job->attempts = 0;
	if (job->attempts >= max_attempts(f, job) || job->attempts_all >= ATTEMPTS_MAX_IN_ALL) {
		if (job->transfer.answer.status == 0)
			note_silence(f, job);
		return next_candidate(f, job, e);
	}
	job->not_before_ms = monotonic_ms() + pause_ms(f, job);
	if (job->transfer.answer.status != 0 || hosts_tell_silence(&f->hosts, job->transfer.host, job->attempts_all))
		progress_note(f->options->progress, "%s: %s; trying again", job->request->label, job->transfer.why.message);
	/* From the candidate's own address: a redirect may lead elsewhere the next time. */
	job->transfer.n_redirects = 0;
	transfer_forget_url(&job->transfer);
	return 0;
}

/* The bytes are right. A buffer is done; a blob waits for others to be published with. */
static int finish_job(struct fetcher *f, struct job *job, const char *url, uint64_t transferred)
{
	job->result.sha256 = job->transfer.info.sha256;
	job->result.sha512 = job->transfer.info.sha512;
	job->result.size_bytes = job->transfer.info.size_bytes;
	job->result.url = url_redact(url);
	job->result.transferred_bytes += transferred;
	if (!job->transfer.sink.writer)
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
			writers[n++] = f->jobs[i].transfer.sink.writer;
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

static int begin_attempt(struct fetcher *f, struct job *job, struct err *e)
{
	int r = transfer_begin(&job->transfer, f->multi, f->options, f->ca_file, e);

	if (r < 0)
		return r;
	(void)curl_easy_setopt(job->transfer.easy, CURLOPT_PRIVATE, job);
	job->state = JOB_RUNNING;
	f->n_running++;
	return 0;
}

static void end_attempt(struct fetcher *f, struct job *job)
{
	transfer_end(&job->transfer, f->multi);
	if (job->state == JOB_RUNNING) {
		job->state = JOB_WAITING;
		f->n_running--;
	}
}

/* A transfer ended with c. */
static int attempt_ended(struct fetcher *f, struct job *job, CURLcode c, struct err *e)
{
	enum verdict v = transfer_judge(&job->transfer, c);
	curl_off_t received = 0;

	(void)curl_easy_getinfo(job->transfer.easy, CURLINFO_SIZE_DOWNLOAD_T, &received);
	if (job->transfer.body_begun && received > 0)
		job->result.transferred_bytes += (uint64_t)received;
	if (job->transfer.answer.status != 0)
		hosts_answered(&f->hosts, job->transfer.host);
	end_attempt(f, job);
	switch (v) {
	case VERDICT_DONE:
		return finish_job(f, job, job->transfer.url, 0);
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
	*e = job->transfer.why;
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

		if (job->state != JOB_RUNNING || now < job->transfer.heard_ms + (uint64_t)limit_s * 1000)
			continue;
		*ret_any = true;
		transfer_give_up_waiting(&job->transfer, limit_s);
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
	int r = url_local_path(url, &path, &job->transfer.why);

	if (r == 0)
		r = sink_take_file(&job->transfer.sink, path, f->options->cancel_fd, &job->transfer.info, &job->transfer.why);
	if (r < 0) {
		bool fatal = job->transfer.why.kind == ERR_KIND_HOST || r == -ECANCELED || r == -ENOMEM;

		if (!fatal)
			return next_candidate(f, job, e);
		*e = job->transfer.why;
		return err_wrap(e, "copying %s", job->request->label);
	}
	return finish_job(f, job, url, job->transfer.info.size_bytes);
}

/* Everything is there already, left by a process that died just before the end? */
static int finish_without_network(struct fetcher *f, struct job *job, const char *url, struct err *e)
{
	const struct fetch_request *q = job->request;

	if (!q->size_bytes || sink_offset(&job->transfer.sink) != q->size_bytes)
		return 0;
	switch (transfer_judge_whole(&job->transfer)) {
	case VERDICT_DONE:
		return finish_job(f, job, url, 0);
	case VERDICT_FATAL:
		*e = job->transfer.why;
		return err_wrap(e, "downloading %s", q->label);
	default:
		return 0; /* the sink is at its beginning again */
	}
}

static size_t running_on_host(const struct fetcher *f, const char *host)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n_jobs; i++)
		if (f->jobs[i].state == JOB_RUNNING && f->jobs[i].transfer.host && strcmp(f->jobs[i].transfer.host, host) == 0)
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
		(void)err_set_kind(&job->transfer.why, ERR_KIND_USAGE, -EINVAL, "only http, https, file and plain paths can be fetched");
		return next_candidate(f, job, e);
	}
	if (f->options->offline) {
		(void)err_set_kind(&job->transfer.why, ERR_KIND_INPUT, -ENETUNREACH, "not asked, because of --offline");
		return next_candidate(f, job, e);
	}
	if (!job->transfer.url && transfer_set_url(&job->transfer, url, &job->transfer.why) < 0)
		return next_candidate(f, job, e);
	silent = hosts_given_up(&f->hosts, job->transfer.host);
	if (silent) {
		(void)err_set_kind(&job->transfer.why, ERR_KIND_INPUT, silent->code,
			"not asked, since the server did not answer for another file (%s)", silent->message);
		job->attempts_all = 0;
		return next_candidate(f, job, e);
	}
	if (running_on_host(f, job->transfer.host) >= FETCH_MAX_ACTIVE_PER_HOST)
		return 0;
	r = sink_open(&job->transfer.sink, e);
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
		if (job->state == JOB_DONE || job->state == JOB_READY || (job->state == JOB_WAITING && !job->transfer.url))
			*ret_wait_ms = 0;
	}
	return 0;
}

/* ---- before and around --------------------------------------------------------------------------------------------- */

/* What lies in the store is judged like a download: bytes that changed since are no answer. Returns 1 sound; 0 it is to be fetched,
 * which was said. */
static int confirm_stored(struct fetcher *f, struct job *job, const struct digest *sha256, struct err *e)
{
	struct err damage = ERR_INIT;
	int r = blob_confirm(f->publisher, sha256, &damage);

	if (r == 0)
		return 1;
	if (r == -ENOENT)
		return 0;
	if (r != -EBADMSG) {
		*e = damage;
		return r;
	}
	progress_warning(f->options->progress, "%s: %s, and is sought elsewhere", job->request->label, damage.message);
	return strv_add(&job->tried, damage.message) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

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
	struct digest sha256, sha512 = { 0 };
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
	r = confirm_stored(f, job, &sha256, e);
	if (r <= 0)
		return r;
	if (q->sha512.algorithm != DIGEST_NONE || q->want_sha512) {
		r = compute_sha512(s, &sha256, &sha512, e);
		if (r < 0)
			return r;
		if (q->sha512.algorithm != DIGEST_NONE && !digest_equal(&q->sha512, &sha512)) {
			if (by->algorithm == DIGEST_SHA512)
				return 0; /* the link is wrong; publishing the right bytes replaces it */
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
				"%s: no bytes can have both the sha256 and the sha512 that are given for it; one of them is wrong",
				q->label);
		}
	}
	job->result.sha256 = sha256;
	job->result.sha512 = sha512;
	job->result.size_bytes = size_bytes;
	job->result.was_stored = true;
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
		uint64_t size = job->request->size_bytes ? job->request->size_bytes : job->transfer.total_bytes;

		if (job->result.was_stored || job->result.missing || job->failure)
			continue;
		if (size == 0)
			size = job->request->about_bytes;
		if (job->state >= JOB_READY)
			size = job->result.size_bytes;
		done += job->state >= JOB_READY ? job->result.size_bytes : sink_offset(&job->transfer.sink);
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

		transfer_release(&job->transfer, f->multi);
		strv_release(&job->tried);
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
		job->request = job->transfer.request = &requests[i];
		job->all_absent = true;
		sink_init(&job->transfer.sink, f->publisher, &requests[i]);
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
