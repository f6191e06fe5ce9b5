#include "builder/manifest.h"
#include "lib/io.h"
#include "lib/num.h"
#include "lib/pool.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

int manifest_load(const char *path, json_t **ret, struct err *e)
{
	_cleanup_close_ int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_buf_ struct buf text = BUF_INIT(MANIFEST_MAX_BYTES);
	json_error_t json_err;
	json_t *manifest;
	int r;

	if (dirfd < 0)
		return err_set_errno(e, -errno, "cannot open the entry `%s`", path);
	r = read_file_at(dirfd, STORE_MANIFEST, false, &text, e);
	if (r < 0)
		return err_wrap(e, "entry `%s`", path);
	manifest = json_loadb(buf_str(&text), text.len, JSON_REJECT_DUPLICATES, &json_err);
	if (!manifest)
		return err_set_kind(e, ERR_KIND_HOST, -EBADMSG, "`%s/" STORE_MANIFEST "` line %d: %s; the entry is damaged, remove it",
			path, json_err.line, json_err.text);
	if (!json_is_object(manifest) || json_integer_value(json_object_get(manifest, "version")) != MANIFEST_VERSION) {
		json_decref(manifest);
		return err_set_kind(e, ERR_KIND_HOST, -EBADMSG,
			"`%s/" STORE_MANIFEST "` is not a manifest of version %d; another imgbuild wrote it", path,
			MANIFEST_VERSION);
	}
	*ret = manifest;
	return 0;
}

char *manifest_format(const json_t *manifest, size_t *ret_len)
{
	char *text = json_dumps(manifest, JSON_INDENT(1) | JSON_SORT_KEYS), *longer;
	size_t len;

	if (!text)
		return NULL;
	len = strlen(text);
	longer = realloc(text, len + 2);
	if (!longer) {
		free(text);
		return NULL;
	}
	memcpy(longer + len, "\n", 2);
	*ret_len = len + 1;
	return longer;
}

struct chunk_job {
	int fd;
	uint64_t size_bytes;
	struct digest *digests;
	struct digest zero; /* of a whole chunk of zeros */
};

/* Whether [offset, offset+size) lies in a hole. A filesystem that cannot tell has no holes. */
static bool is_hole(int fd, uint64_t offset, uint64_t size)
{
	off_t data = lseek(fd, (off_t)offset, SEEK_DATA);

	return data < 0 ? errno == ENXIO : (uint64_t)data >= offset + size;
}

static int digest_chunk(void *ctx, size_t i, struct err *e)
{
	struct chunk_job *job = ctx;
	uint64_t offset = (uint64_t)i * MANIFEST_CHUNK_BYTES;
	size_t size = job->size_bytes - offset < MANIFEST_CHUNK_BYTES ? (size_t)(job->size_bytes - offset) :
									 MANIFEST_CHUNK_BYTES;
	_cleanup_free_ char *chunk = NULL;
	ssize_t n;

	if (size == MANIFEST_CHUNK_BYTES && is_hole(job->fd, offset, size)) {
		job->digests[i] = job->zero;
		return 0;
	}
	chunk = malloc(size);
	if (!chunk)
		return err_set(e, -ENOMEM, "out of memory");
	n = pread_full(job->fd, chunk, size, offset);
	if (n != (ssize_t)size)
		return err_set_errno(e, n < 0 ? (int)n : -EIO, "cannot read the image at offset %llu",
			(unsigned long long)offset);
	return digest_bytes(DIGEST_SHA256, chunk, size, &job->digests[i], e);
}

int manifest_digest_chunks(int fd, json_t **ret_chunks, struct err *e)
{
	struct chunk_job job = { .fd = fd };
	_cleanup_free_ char *zeros = calloc(1, MANIFEST_CHUNK_BYTES);
	_cleanup_free_ struct digest *digests = NULL;
	struct stat st;
	json_t *chunks;
	size_t n;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot stat the image");
	job.size_bytes = (uint64_t)st.st_size;
	n = (size_t)((job.size_bytes + MANIFEST_CHUNK_BYTES - 1) / MANIFEST_CHUNK_BYTES);
	digests = job.digests = calloc(n ? n : 1, sizeof(*digests));
	if (!digests || !zeros)
		return err_set(e, -ENOMEM, "out of memory for %zu digests", n);
	r = digest_bytes(DIGEST_SHA256, zeros, MANIFEST_CHUNK_BYTES, &job.zero, e);
	if (r == 0)
		r = pool_run(0, n, digest_chunk, &job, e);
	if (r < 0)
		return r;
	chunks = json_array();
	for (size_t i = 0; chunks && i < n; i++) {
		char hex[DIGEST_HEX_SIZE];

		if (json_array_append_new(chunks, json_string(digest_hex(&digests[i], hex))) < 0) {
			json_decref(chunks);
			chunks = NULL;
		}
	}
	if (!chunks)
		return err_set(e, -ENOMEM, "out of memory for %zu digests", n);
	*ret_chunks = chunks;
	return 0;
}

const char *manifest_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text ? text : "";
}
