/* The memo of digests, as somebody else may have written it. An even first byte: the rest gets the checksum that it
 * needs to be looked at; else the bytes come as they are. What is accepted must come out again as it was. */
#include "cache/filedigest.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *m = NULL;
	_cleanup_buf_ struct buf in = BUF_INIT(STORE_STATE_MAX_BYTES), out = BUF_INIT(STORE_STATE_MAX_BYTES);
	struct err e = ERR_INIT;
	struct digest sum;

	if (size == 0 || size > STORE_STATE_MAX_BYTES - 64 || filedigest_memo_load(NULL, &m, &e) < 0)
		return 0;
	if (buf_append(&in, data + 1, size - 1) < 0)
		return 0;
	if (!(data[0] & 1) && (digest_bytes(DIGEST_SHA256, buf_str(&in), in.len, &sum, &e) < 0 ||
				      buf_append(&in, sum.bytes, 32) < 0))
		return 0;
	if (filedigest_memo_decode(m, buf_str(&in), in.len) < 0)
		return 0;
	if (filedigest_memo_encode(m, &out) < 0 || out.len != in.len || memcmp(out.data, in.data, in.len) != 0)
		__builtin_trap();
	return 0;
}
