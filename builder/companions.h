/* What an entry keeps of the plan it was made from, so that one can look later what went in and what has changed since.
 *
 *     plan.toml      the plan, without the user info of its URLs (names, passwords and tokens before an "@")
 *     plan.lock      the lock
 *     key.txt        exactly the bytes that the key is the SHA-256 of: the epoch's line and the canonical document
 *     setup          the setup script, as it ran
 *     texts/<hex>    local sources of [files] that are small texts, under their own SHA-256; and the listings of local trees, of
 *                    which their digests are the SHA-256 (cache/filedigest.h)
 *
 * Not kept: the bytes of local [inputs] (only the setup script sees them; they may be secrets that are not in the image), and of files
 * that are large, no texts or in trees. None of this is in the image or in the key.
 *
 * Readers take nothing on trust, for a cache may have been written to by others: key.txt must have the entry's key as its
 * digest, a text that of the document. Everything opened is closed before return. One thread.
 * Limits: COMPANION_KEY_MAX_BYTES, COMPANION_TEXT_MAX_BYTES, COMPANION_LISTING_MAX_BYTES, COMPANION_TEXTS_MAX. */
#ifndef IMGBUILD_BUILDER_COMPANIONS_H
#define IMGBUILD_BUILDER_COMPANIONS_H

#include "builder/prepare.h"
#include "lib/buf.h"

#define COMPANION_PLAN "plan.toml"
#define COMPANION_LOCK "plan.lock"
#define COMPANION_KEY "key.txt"
#define COMPANION_SETUP "setup"
#define COMPANION_TEXTS "texts"

#define COMPANION_KEY_MAX_BYTES (16u << 20)
#define COMPANION_SETUP_MAX_BYTES (1u << 20)
#define COMPANION_TEXT_MAX_BYTES (64u << 10)
#define COMPANION_LISTING_MAX_BYTES (1u << 20)
#define COMPANION_TEXTS_MAX 200

/* Write setup and texts/ into the folder dirfd (lent). To be called before prepared_confirm_locals(), for it reads local files.
 * store  where digests of local files are remembered; NULL: nowhere */
int companions_write_texts(int dirfd, const struct prepared *p, const struct store *store, struct err *e) _must_check_;

/* Write plan.toml, plan.lock and key.txt. */
int companions_write_plan(int dirfd, const struct prepared *p, struct err *e) _must_check_;

/* Append the plan's text without the user info of its URLs. Where it is spelled so that it cannot be taken out of the text (escapes in
 * an authority), a comment that says so stands for the plan. Every other byte is as it was. */
int companions_redact_plan(const char *text, size_t len, struct buf *into, struct err *e) _must_check_;

/* What is read back of an entry. */
struct kept_key {
	json_t *document;
	int64_t epoch;
	size_t size_bytes; /* of the text it was read from */
};

void kept_key_release(struct kept_key *k);
#define _cleanup_kept_key_ _cleanup_(kept_key_release)

/* Read the key document of an entry: key.txt, or what its manifest says where an older version wrote it.
 * ret  a zeroed struct
 * Returns 0; -EBADMSG it is damaged, or is not what the entry's key is the digest of; -ENOENT; -E2BIG; -ENOMEM. */
int companions_read_key(const struct store_item *item, struct kept_key *ret, struct err *e) _must_check_;

/* Read the listing that the digest of a local tree of the plan is the SHA-256 of, as the tree is now. Returns 0; -E2BIG it is longer than the
 * buffer may be. */
int companions_list_tree(const struct prepared *p, const char *slot, const struct store *store, struct buf *into, struct err *e)
	_must_check_;

/* Append the `name` that an entry's plan has, unchecked text; nothing where there is none. Never fails. */
void companions_read_name(const char *entry_path, struct buf *into);

/* Read the text with this SHA-256 that the plan of an entry had, the setup script, the content of a file or the listing of a tree, into a
 * buffer, whose contents are replaced.
 * path    of the file in the image, or any other name; NULL: the setup script
 * Returns 0; -ENOENT the entry does not have it (any more). */
int companions_read_text(const char *entry_path, const char *path, const struct digest *sha256, struct buf *into,
	struct err *e) _must_check_;

#endif
