/* Any bytes as a lock: no crash, and what is read is written in a form that reads as the same. */
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "plan/lock_diff.h"
#include "plan/toml.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_buf_ struct buf once = BUF_INIT(4 * TOML_MAX_BYTES), twice = BUF_INIT(4 * TOML_MAX_BYTES);
	_cleanup_lock_ struct lock first = { 0 }, second = { 0 };
	struct err e = ERR_INIT;
	int r = lock_load_bytes("fuzz.lock", (const char *)data, size, &first, &e);

	if (r < 0) {
		assert(r == -EBADMSG && e.message[0]);
		return 0;
	}
	r = lock_format(&first, &once, &e);
	assert(r == 0);
	r = lock_load_bytes("again.lock", buf_str(&once), once.len, &second, &e);
	assert(r == 0);
	r = lock_format(&second, &twice, &e);
	assert(r == 0 && once.len == twice.len && memcmp(buf_str(&once), buf_str(&twice), once.len) == 0);
	for (unsigned a = 0; a < ARCH_COUNT; a++) {
		_cleanup_lock_changes_ struct lock_changes none = { 0 }, some = { 0 };

		r = lock_diff(&first.arch[a], &second.arch[a], &none, &e);
		assert(r == 0 && none.n == 0);
		r = lock_diff(&first.arch[a], &second.arch[(a + 1) % ARCH_COUNT], &some, &e);
		assert(r == 0);
	}
	return 0;
}
