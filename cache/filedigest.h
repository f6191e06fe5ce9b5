/* Digests of local files and trees, remembered so that an unchanged file is not read again.
 *
 * A memo maps (device, inode, size, mtime, ctime) of a file to its SHA-256. It is state/file-digests in the cache, and
 * state/file-digests-sha512 for the files of which a SHA-512 was asked for; a missing, damaged or foreign one is an empty one. Racy timestamps: a file that was changed less than
 * FILEDIGEST_RACY_NS before it was read (or while it was) could be changed again without its timestamps showing it,
 * so its digest is used now and not remembered (git's index has the same care). The memo keeps at most
 * FILEDIGEST_MEMO_MAX_ITEMS, those used last.
 *
 *     filedigest_memo_load(store, &m, e);   // store may be NULL: nothing is remembered
 *     filedigest_file_at(m, plan_dirfd, "files/x", &digest, &size, e);
 *     filedigest_memo_save(m, e);           // a read-only cache is no reason to fail: ignore or note the error
 *
 * The digest of a tree covers, for every path beneath it in bytewise order: type (file, folder, symbolic link), whether a file
 * is executable (portable_mode(), docs/decisions/tree-modes.md), SHA-256 and size of files, target of links. Not covered: the
 * name of the tree, owners, other permissions, times, extended attributes, hard links as such. Who copies a tree into an image must
 * keep to the same facts (files and folders with portable_mode()). Devices, sockets and FIFOs are refused.
 *
 * Paths: with dirfd >= 0 the path is relative and is resolved beneath dirfd (RESOLVE_BENEATH or the same by hand): a
 * name or a link that leads out of it is -EXDEV. With AT_FDCWD there is no such limit (--allow-outside). Links inside
 * a tree are never followed.
 *
 * Concurrency: one memo belongs to one thread. Two processes that save: the last one wins, which costs only time.
 * Errors: -ENOENT, -EXDEV, -EINVAL (a kind of file that has no digest), -E2BIG (limits), -EBUSY (it was changed while
 * it was read). ERR_KIND_USAGE where the plan's author can help it. Needs libcrypto only. */
#ifndef IMGBUILD_CACHE_FILEDIGEST_H
#define IMGBUILD_CACHE_FILEDIGEST_H

#include "cache/store.h"

#define FILEDIGEST_RACY_NS 2000000000ull /* the coarsest timestamps in use are those of FAT: 2 s */
#define FILEDIGEST_MEMO_MAX_ITEMS 100000u
#define FILEDIGEST_TREE_HEAD "imgbuild tree 1\n"
#define FILEDIGEST_TREE_MAX_ITEMS 500000u
#define FILEDIGEST_TREE_MAX_DEPTH 128u
#define FILEDIGEST_TREE_MAX_PATH_BYTES (64u << 20) /* of all paths and link targets together */

struct filedigest_memo; /* opaque */

struct filedigest_tree_info {
	struct digest digest;	    /* SHA-256 */
	uint64_t n_files, n_folders, n_links;
	uint64_t file_bytes; /* sum of the sizes of the files */
};

/* Load the memo of a store; NULL gives one that is never saved. Only running out of memory is an error. */
int filedigest_memo_load(const struct store *s, struct filedigest_memo **ret, struct err *e) _must_check_;

/* Write the memo back if it learned something. Needs a cache that exists or can be made. */
int filedigest_memo_save(struct filedigest_memo *m, struct err *e) _must_check_;

void filedigest_memo_free(struct filedigest_memo *m);
static inline void filedigest_memo_freep(struct filedigest_memo **m)
{
	filedigest_memo_free(*m);
}
#define _cleanup_filedigest_memo_ _cleanup_(filedigest_memo_freep)

/* How many files were read, and how many were known, since the memo was loaded. For --verbose and tests. */
void filedigest_memo_counts(const struct filedigest_memo *m, uint64_t *ret_read, uint64_t *ret_known);

/* The SHA-256 of an opened regular file (lent; its offset is not used). memo may be NULL; ret_size_bytes too. */
int filedigest_fd(struct filedigest_memo *m, int fd, const char *label, struct digest *ret, uint64_t *ret_size_bytes,
	struct err *e) _must_check_;

/* Hold an opened regular file against a SHA-512. That it was read and had that SHA-512 is remembered likewise.
 * Returns 0; -EBADMSG (kind input) it has another one: the message names both. */
int filedigest_confirm_sha512(struct filedigest_memo *m, int fd, const char *label, const struct digest *sha512, struct err *e)
	_must_check_;

/* The SHA-256 of a regular file. */
int filedigest_file_at(struct filedigest_memo *m, int dirfd, const char *path, struct digest *ret,
	uint64_t *ret_size_bytes, struct err *e) _must_check_;

/* The digest of a folder and all that is beneath it. */
int filedigest_tree_at(struct filedigest_memo *m, int dirfd, const char *path, struct filedigest_tree_info *ret,
	struct err *e) _must_check_;

/* The same, with the listing that the digest is the SHA-256 of: the line FILEDIGEST_TREE_HEAD, then for each path, in bytewise order,
 * "f MODE SIZE SHA256 PATH\0", "d MODE PATH\0" or "l PATH\0TARGET\0".
 * listing  it is appended here; when it would be longer than the buffer's maximum, the buffer is emptied. NULL: not wanted */
int filedigest_list_tree_at(struct filedigest_memo *m, int dirfd, const char *path, struct buf *listing,
	struct filedigest_tree_info *ret, struct err *e) _must_check_;

/* Open a file or folder with the rule for paths above: flags as for openat(2), O_CLOEXEC and O_NOCTTY are added.
 * Returns 0 with *ret_fd, which the caller closes. */
int filedigest_open_at(int dirfd, const char *path, int flags, int *ret_fd, struct err *e) _must_check_;

/* Append the memo's file form to *into, and read it back from bytes that strangers may have written: anything that is
 * not exactly what filedigest_memo_encode() makes is -EBADMSG, and the memo stays empty. For the fuzzer. */
int filedigest_memo_encode(const struct filedigest_memo *m, struct buf *into) _must_check_;
int filedigest_memo_decode(struct filedigest_memo *m, const void *bytes, size_t len) _must_check_;

#endif
