/* The content-addressed store, reading side: where the cache is and what lies in it.
 *
 *     blobs/sha256/ab/ab12...   bytes from outside, under their own SHA-256
 *     blobs/sha512/cd/cd34...   a symbolic link that says which SHA-256 has that SHA-512; read, never followed
 *     images/<key>/  failed/<key>-<n>/  roots/<base sha256>-<partition>/  stages/<prefix key>/
 *     state/<name>              small things worth remembering (digests of local files); losing one costs only time
 *     tmp/  locks/              see cache/publish.h
 *
 * A folder is an entry when it has a regular file manifest.json, and only then: whatever else lies there does not
 * exist for a reader. Nothing here writes: a cache that does not exist yet is an empty one, and a cache on a read-only
 * filesystem serves hits. Needs libcrypto only, so that the front program can link it.
 *
 * Ownership: a struct store owns one descriptor and its path. Returned strings are malloc'ed, the caller frees them.
 * Concurrency: a struct store does not change after store_open(); any number of threads may use it, and any number of
 * processes may read, publish and remove meanwhile: what was found may be gone when it is opened.
 * Errors: -ENOENT for what is not there, always with a message that says what was looked for. */
#ifndef IMGBUILD_CACHE_STORE_H
#define IMGBUILD_CACHE_STORE_H

#include "lib/buf.h"
#include "lib/digest.h"
#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>

#define STORE_NAME_MAX_BYTES 200	 /* of a folder below images/, roots/... */
#define STORE_LISTING_MAX_ITEMS 1000000	 /* more than this is no cache of ours */
#define STORE_STATE_MAX_BYTES (8u << 20) /* of one file in state/ */
#define STORE_MANIFEST "manifest.json"

struct store {
	char *path;  /* absolute, without a slash at the end */
	int root_fd; /* -1: the folder does not exist yet */
};

#define STORE_INIT                                                                                           \
	{                                                                                                    \
		.path = NULL, .root_fd = -1                                                                  \
	}

/* The kinds of folders that are published whole. */
enum store_kind { STORE_IMAGE, STORE_FAILED, STORE_ROOT, STORE_STAGE };

/* An entry that was found. */
struct store_item {
	enum store_kind kind;
	char *name; /* the folder's name */
	char *path; /* absolute */
	struct digest key; /* images, stages: the key; failed: that of the build; roots: the base's digest */
	unsigned number;   /* failed: which attempt, from 1; roots: the partition; else 0 */
	int64_t published_ns; /* when the manifest was written, nanoseconds since 1970 */
};

struct store_listing {
	struct store_item *items;
	size_t n;
};

/* Name the cache folder: `option` (--cache) unless NULL, else $IMGBUILD_CACHE, else $XDG_CACHE_HOME/imgbuild when that
 * is absolute, else ~/.cache/imgbuild ($HOME, or the user database). Empty variables count as unset. *ret is absolute.
 * Returns 0; -ENOENT when there is no home either. */
int store_default_path(const char *option, char **ret, struct err *e) _must_check_;

/* Open the store in the folder `path` (relative ones from the working folder). A folder that does not exist is an
 * empty store. Returns 0; -ENOTDIR it is something else; another -errno. */
int store_open(const char *path, struct store *ret, struct err *e) _must_check_;

/* Close it. Twice is fine. */
void store_release(struct store *s);
#define _cleanup_store_ _cleanup_(store_release)

/* Find a blob by its SHA-256 or its SHA-512. Each ret_* may be NULL.
 * ret_sha256  the name it is stored under
 * Returns 0; -ENOENT it is not here. */
int store_find_blob(const struct store *s, const struct digest *digest, struct digest *ret_sha256,
	uint64_t *ret_size_bytes, struct err *e) _must_check_;

/* Open a blob (SHA-256 or SHA-512) read-only; the caller closes *ret_fd. ret_size_bytes may be NULL.
 * Returns 0; -ENOENT it is not here. */
int store_open_blob(const struct store *s, const struct digest *digest, int *ret_fd, uint64_t *ret_size_bytes,
	struct err *e) _must_check_;

/* The absolute path of a blob that is here, for programs that want a name (SHA-256 or SHA-512). Returns 0; -ENOENT. */
int store_blob_path(const struct store *s, const struct digest *digest, char **ret_path, struct err *e) _must_check_;

/* Find the finished entry of a key: the hit. *ret_path is the absolute path of images/<key>.
 * Returns 0; -ENOENT there is none. Costs one path look-up, whatever the cache holds. */
int store_find_entry(const struct store *s, const struct digest *key, char **ret_path, struct err *e) _must_check_;

/* Find the root that was taken out of partition `partition` (0: a disk without a table) of a base (its SHA-256).
 * Returns 0; -ENOENT. */
int store_find_root(const struct store *s, const struct digest *base_sha256, unsigned partition, char **ret_path,
	struct err *e) _must_check_;

/* Find a kept stage by its prefix key. Returns 0; -ENOENT. */
int store_find_stage(const struct store *s, const struct digest *prefix_key, char **ret_path, struct err *e)
	_must_check_;

/* List all entries of one kind, by name; failed builds by key and number. A cache without any gives n = 0. */
int store_list(const struct store *s, enum store_kind kind, struct store_listing *ret, struct err *e) _must_check_;
void store_listing_release(struct store_listing *l);
#define _cleanup_store_listing_ _cleanup_(store_listing_release)

void store_item_release(struct store_item *item);
#define _cleanup_store_item_ _cleanup_(store_item_release)

/* Find the entry that `prefix` means: hexadecimal digits (either case), at least one, at most a whole key.
 * or_failed   when no image has it, look among failed builds too ("<key prefix>" means the newest attempt of that
 *             key, "<key>-<n>" that attempt)
 * Returns 0; -EINVAL it is no prefix of a key; -ENOENT nothing has it; -ENOTUNIQ several have, the message names them. */
int store_resolve_prefix(const struct store *s, const char *prefix, bool or_failed, struct store_item *ret,
	struct err *e) _must_check_;

/* Append the small remembered file state/<name> to *into. Returns 0; -ENOENT; -E2BIG. */
int store_read_state(const struct store *s, const char *name, struct buf *into, struct err *e) _must_check_;

/* Where things lie, for cache/publish: "images", "failed", "roots", "stages". */
const char *store_kind_folder(enum store_kind kind);

/* "blobs/<algorithm>/ab/ab12..." relative to the store's root. Returns path. */
#define STORE_BLOB_PATH_SIZE (sizeof("blobs/sha512/ab/") + DIGEST_HEX_SIZE)
char *store_blob_relative_path(const struct digest *digest, char path[static STORE_BLOB_PATH_SIZE]);

/* The folder name of a root, "<base sha256>-<partition>". Returns name. */
char *store_root_name(const struct digest *base_sha256, unsigned partition, char name[static STORE_NAME_MAX_BYTES]);

#endif
