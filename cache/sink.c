#include "cache/sink.h"
#include "cache/publisher.h"
#include "lib/io.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

void sink_init(struct sink *s, struct publisher *p, const struct fetch_request *request)
{
	uint64_t most = FETCH_MAX_BLOB_BYTES;

	*s = (struct sink){ .publisher = request->into ? NULL : p, .request = request };
	if (request->into) {
		s->into_start = request->into->len;
		most = request->into->max_bytes - request->into->len;
	}
	s->max_bytes = request->max_bytes && request->max_bytes < most ? request->max_bytes : most;
	if (!request->into && request->max_bytes)
		s->max_bytes = request->max_bytes;
}

bool sink_is_pinned(const struct sink *s)
{
	return s->request->sha256.algorithm != DIGEST_NONE || s->request->sha512.algorithm != DIGEST_NONE;
}

static struct blob_expectation expectation_of(const struct sink *s)
{
	const struct fetch_request *q = s->request;

	return (struct blob_expectation){
		.label = q->label,
		.sha256 = q->sha256,
		.sha512 = q->sha512,
		.size_bytes = q->size_bytes ? q->size_bytes : BLOB_SIZE_UNKNOWN,
		.max_bytes = s->max_bytes,
		.want_sha512 = q->want_sha512,
		.keep_partial = true,
	};
}

int sink_open(struct sink *s, struct err *e)
{
	struct blob_expectation expected = expectation_of(s);

	if (s->is_open)
		return 0;
	if (!s->request->into) {
		int r = blob_writer_new(s->publisher, &expected, &s->writer, e);

		if (r < 0)
			return r;
	}
	s->is_open = true;
	return 0;
}

uint64_t sink_offset(const struct sink *s)
{
	if (s->request->into)
		return s->request->into->len - s->into_start;
	return s->writer ? blob_writer_offset(s->writer) : 0;
}

static void truncate_buffer(struct sink *s)
{
	struct buf *b = s->request->into;

	if (b->len > s->into_start) {
		b->len = s->into_start;
		b->data[b->len] = '\0';
	}
}

int sink_restart(struct sink *s, struct err *e)
{
	if (s->request->into) {
		truncate_buffer(s);
		return 0;
	}
	return s->writer ? blob_writer_restart(s->writer, e) : 0;
}

static int too_large(const struct sink *s, struct err *e)
{
	return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "%s is larger than the limit of %llu bytes", s->request->label,
		(unsigned long long)s->max_bytes);
}

int sink_write(struct sink *s, const void *bytes, size_t len, struct err *e)
{
	struct buf *b = s->request->into;
	int r;

	if (!b)
		return blob_writer_write(s->writer, bytes, len, e);
	if (len > s->max_bytes - sink_offset(s))
		return too_large(s, e);
	r = buf_append(b, bytes, len);
	if (r == -E2BIG)
		return too_large(s, e);
	return r < 0 ? err_set(e, r, "out of memory for %s", s->request->label) : 0;
}

/* Compute and compare one digest of the bytes in a buffer. */
static int judge_digest(const struct sink *s, const struct digest *expected, enum digest_algorithm algorithm,
	struct digest *ret, struct err *e)
{
	char want[DIGEST_HEX_SIZE], have[DIGEST_HEX_SIZE];
	const char *bytes = buf_str(s->request->into) + s->into_start;
	int r = digest_bytes(algorithm, bytes, (size_t)sink_offset(s), ret, e);

	if (r < 0 || expected->algorithm == DIGEST_NONE || digest_equal(expected, ret))
		return r;
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s has the wrong %s: expected %s, found %s (%llu bytes)",
		s->request->label, digest_algorithm_name(algorithm), digest_hex(expected, want), digest_hex(ret, have),
		(unsigned long long)sink_offset(s));
}

static int judge_buffer(struct sink *s, struct blob_info *ret, struct err *e)
{
	const struct fetch_request *q = s->request;
	struct blob_info info = { .size_bytes = sink_offset(s) };
	int r = judge_digest(s, &q->sha256, DIGEST_SHA256, &info.sha256, e);

	if (r == 0 && (q->sha512.algorithm != DIGEST_NONE || q->want_sha512))
		r = judge_digest(s, &q->sha512, DIGEST_SHA512, &info.sha512, e);
	if (r == 0 && q->size_bytes && q->size_bytes != info.size_bytes)
		r = err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s has the wrong size: expected %llu bytes, found %llu", q->label,
			(unsigned long long)q->size_bytes, (unsigned long long)info.size_bytes);
	if (r == 0)
		*ret = info;
	return r;
}

int sink_judge(struct sink *s, struct blob_info *ret, struct err *e)
{
	int r;

	if (s->writer)
		return blob_writer_judge(s->writer, ret, e);
	r = judge_buffer(s, ret, e);
	if (r < 0)
		truncate_buffer(s);
	else
		s->is_open = false; /* the bytes stay */
	return r;
}

int sink_take_file(struct sink *s, const char *path, int cancel_fd, struct blob_info *ret, struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct blob_expectation expected = expectation_of(s);
	struct stat st;
	int r;

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "there is no such file");
	if (fd < 0 || fstat(fd, &st) < 0) {
		(void)err_set_errno(e, -errno, "cannot open the file");
		return err_default_kind(e, ERR_KIND_INPUT);
	}
	if (!S_ISREG(st.st_mode))
		return err_set_kind(e, ERR_KIND_INPUT, -EINVAL, "it is not a regular file");
	if (!s->request->into) {
		/* What another candidate brought is not part of this file; it may still serve the next one. */
		blob_writer_free(s->writer);
		s->writer = NULL;
		s->is_open = false;
		return publish_blob_from_fd(s->publisher, fd, &expected, cancel_fd, ret, e);
	}
	if (st.st_size < 0 || (uint64_t)st.st_size > s->max_bytes)
		return too_large(s, e);
	s->is_open = true;
	r = read_fd_to_end(fd, s->request->into);
	if (r == -E2BIG)
		r = too_large(s, e);
	else if (r < 0)
		(void)err_set_errno(e, r, "cannot read the file");
	if (r < 0)
		truncate_buffer(s);
	return r < 0 ? r : sink_judge(s, ret, e);
}

void sink_release(struct sink *s)
{
	blob_writer_free(s->writer);
	s->writer = NULL;
	if (s->is_open && s->request->into)
		truncate_buffer(s);
	s->is_open = false;
}
