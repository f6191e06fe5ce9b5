#include "cache/http_answer.h"
#include "lib/num.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

void http_answer_init(struct http_answer *a)
{
	*a = (struct http_answer){ .length_bytes = HTTP_SIZE_UNKNOWN, .total_bytes = HTTP_SIZE_UNKNOWN };
}

/* Read decimal digits at *p up to `end`. Returns false without any, or when they do not fit. */
static bool read_number(const char **p, const char *end, uint64_t *ret)
{
	const char *s = *p;
	uint64_t v = 0;

	while (s < end && isdigit((unsigned char)*s)) {
		if (!checked_mul_u64(v, 10, &v) || !checked_add_u64(v, (uint64_t)(*s - '0'), &v))
			return false;
		s++;
	}
	if (s == *p)
		return false;
	*p = s;
	*ret = v;
	return true;
}

/* "HTTP/1.1 206 Partial Content", "HTTP/2 200". */
static bool read_status(const char *line, const char *end, unsigned *ret, bool *ret_is_http1)
{
	const char *p = line + 5;
	uint64_t status;

	if (end - line < 6 || strncasecmp(line, "HTTP/", 5) != 0)
		return false;
	*ret_is_http1 = *p == '1' || *p == '0';
	while (p < end && *p != ' ')
		p++;
	while (p < end && *p == ' ')
		p++;
	if (!read_number(&p, end, &status) || status < 100 || status > 999)
		return false;
	*ret = (unsigned)status;
	return true;
}

/* "bytes 100-199/1000", "bytes 100-199" with "/" and "*", or "bytes" with "*" and "/1000" (416). */
static void read_content_range(struct http_answer *a, const char *p, const char *end)
{
	uint64_t start, last, total = HTTP_SIZE_UNKNOWN;

	a->has_range = false; /* of two that contradict each other the last counts, whole */
	a->total_bytes = HTTP_SIZE_UNKNOWN;
	if (end - p < 6 || strncasecmp(p, "bytes ", 6) != 0)
		return;
	p += 6;
	if (end - p > 2 && p[0] == '*' && p[1] == '/') {
		p += 2;
		if (read_number(&p, end, &total) && p == end)
			a->total_bytes = total;
		return;
	}
	if (!read_number(&p, end, &start) || p == end || *p++ != '-' || !read_number(&p, end, &last) || last < start ||
		p == end || *p++ != '/')
		return;
	if (!(end - p == 1 && *p == '*') && (!read_number(&p, end, &total) || p != end || total <= last))
		return;
	a->has_range = true;
	a->range_start = start;
	a->total_bytes = total;
}

static void keep_validator(struct http_answer *a, const char *p, const char *end, bool is_etag)
{
	size_t len = (size_t)(end - p);

	if (len == 0 || len >= sizeof(a->validator) || (a->validator_is_etag && !is_etag))
		return;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)p[i] < 0x20 || (unsigned char)p[i] > 0x7E)
			return;
	if (is_etag && (len < 2 || p[0] != '"' || end[-1] != '"')) /* W/"..." is weak: not for ranges */
		return;
	memcpy(a->validator, p, len);
	a->validator[len] = '\0';
	a->validator_is_etag = is_etag;
}

static bool name_is(const char *line, size_t len, const char *name)
{
	return strlen(name) == len && strncasecmp(line, name, len) == 0;
}

static bool starts_with_nocase(const char *p, const char *end, const char *prefix)
{
	size_t n = strlen(prefix);

	return (size_t)(end - p) >= n && strncasecmp(p, prefix, n) == 0;
}

void http_answer_line(struct http_answer *a, const char *line, size_t len)
{
	const char *end = line + len, *colon, *p;
	uint64_t number;
	unsigned status;
	bool is_http1;
	size_t name_len;

	while (end > line && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if (read_status(line, end, &status, &is_http1)) {
		http_answer_init(a);
		a->status = status;
		a->is_delimited = !is_http1; /* HTTP/2 and 3 frame their bodies */
		return;
	}
	colon = memchr(line, ':', (size_t)(end - line));
	if (!colon)
		return;
	name_len = (size_t)(colon - line);
	for (p = colon + 1; p < end && (*p == ' ' || *p == '\t'); p++)
		;
	if (name_is(line, name_len, "content-length")) {
		if (read_number(&p, end, &number) && p == end) {
			a->length_bytes = number;
			a->is_delimited = true;
		}
	} else if (name_is(line, name_len, "transfer-encoding")) {
		if (starts_with_nocase(p, end, "chunked"))
			a->is_delimited = true;
	} else if (name_is(line, name_len, "content-range")) {
		read_content_range(a, p, end);
	} else if (name_is(line, name_len, "content-type")) {
		a->is_html = starts_with_nocase(p, end, "text/html") || starts_with_nocase(p, end, "application/xhtml+xml");
	} else if (name_is(line, name_len, "etag")) {
		keep_validator(a, p, end, true);
	} else if (name_is(line, name_len, "last-modified")) {
		keep_validator(a, p, end, false);
	} else if (name_is(line, name_len, "retry-after")) {
		if (read_number(&p, end, &number) && p == end)
			a->retry_after_s = number > HTTP_RETRY_AFTER_MAX_S ? HTTP_RETRY_AFTER_MAX_S : (unsigned)number;
	}
}

bool http_looks_like_html(const char *bytes, size_t len)
{
	static const char *const beginnings[] = { "<!doctype html", "<html" };
	const char *p = bytes, *end = bytes + len;

	if (len >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0)
		p += 3;
	while (p < end && isspace((unsigned char)*p))
		p++;
	for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++)
		if (starts_with_nocase(p, end, beginnings[i]))
			return true;
	return false;
}

bool http_status_may_pass(unsigned status)
{
	/* 425 Too Early; of 5xx, 501 (not implemented), 505 (version) and 511 (log in to the network first) will stay. */
	return status == 408 || status == 425 || status == 429 ||
		(status >= 500 && status <= 599 && status != 501 && status != 505 && status != 511);
}
