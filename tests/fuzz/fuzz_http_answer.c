/* The head of an HTTP answer and the beginning of its body, line by line as libcurl hands them over. */
#include "cache/http_answer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *p = (const char *)data, *end = p + size;
	struct http_answer a;

	http_answer_init(&a);
	while (p < end) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		size_t len = newline ? (size_t)(newline - p) + 1 : (size_t)(end - p);

		http_answer_line(&a, p, len);
		p += len;
	}
	if (a.has_range && a.total_bytes != HTTP_SIZE_UNKNOWN && a.range_start >= a.total_bytes)
		__builtin_trap();
	if (strlen(a.validator) >= HTTP_VALIDATOR_SIZE || a.retry_after_s > HTTP_RETRY_AFTER_MAX_S)
		__builtin_trap();
	(void)http_looks_like_html((const char *)data, size);
	(void)http_status_may_pass(a.status);
	return 0;
}
