/* A release file on its whole way: unwrapped where nobody's signature matters, read, held against suite, clock and past, its
 * files looked up. The first byte chooses: that, or what gpgv says of it on its status descriptor. */
#include "builder/packages/archive.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take(const char *text, size_t size)
{
	char uri[] = "http://archive.example.org/debian", suite[] = "bookworm", where[] = "sources.list:1";
	struct pkg_archive a = { .archive = uri, .source = { .uri = uri, .suite = suite, .where = where }, .trusted = true };
	struct pkg_known_release known = { .uri = uri, .suite = suite, .date = 1747475342 };
	struct pkg_request request = { .now = 1747475342, .known_releases = &known, .n_known_releases = 1 };
	_cleanup_buf_ struct buf file = BUF_INIT(RELEASE_MAX_BYTES);
	struct err e = ERR_INIT;
	struct digest d;
	uint64_t n;

	if (buf_append(&file, text, size) < 0)
		return;
	if (pkg_archive_take_release(&a, &request, &file, NULL, NULL, &e) == 0) {
		if (!a.release.suite || !a.release.architectures || a.release.sha256.algorithm != DIGEST_NONE)
			abort();
		if (apt_release_find(&a.release, "main/binary-amd64/Packages.xz", &d, &n) == 0 && d.algorithm != DIGEST_SHA256)
			abort();
		(void)!apt_release_check_not_older(&a.release, known.date, "x", &e);
	}
	apt_release_release(&a.release);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char fingerprint[] = "4CB50190207B4758A3F73A796ED0E7B82643E131!", *items[] = { fingerprint };
	const struct strv only = { .items = items, .n = 1 }, any = { 0 };
	_cleanup_strv_ struct strv signers = { 0 };
	struct err e = ERR_INIT;

	if (size < 1)
		return 0;
	if (data[0] % 2 == 0)
		take((const char *)data + 1, size - 1);
	else if (apt_release_judge_status((const char *)data + 1, size - 1, data[0] % 4 == 1 ? &any : &only, "x", &signers, &e) == 0 &&
		signers.n == 0)
		abort(); /* believed without anybody's signature */
	return 0;
}
