/* Files that could not be had, with what a person needs to get them from elsewhere: name, digest, size, and what became of every
 * place where each was sought. Texts are for people and free of secrets (lib/url: url_redact).
 *
 * A zeroed struct missing is empty and valid. It owns its strings. One thread. */
#ifndef IMGBUILD_CACHE_MISSING_H
#define IMGBUILD_CACHE_MISSING_H

#include "lib/buf.h"
#include "lib/digest.h"
#include "lib/err.h"
#include "lib/strv.h"

#include <stdint.h>

struct missing_file {
	char *label;
	struct digest sha256, sha512; /* DIGEST_NONE: not known */
	uint64_t size_bytes;	      /* 0: not known */
	struct strv tried;	      /* "`URL`: what it said", in the order they were asked */
	int code;		      /* why the last one failed; -ENOENT: none of them has it */
};

struct missing {
	struct missing_file *items;
	size_t n, capacity;
};

/* Append a file: the label is copied, control characters replaced, `tried` is taken over and is empty afterwards. Returns 0 or -ENOMEM. */
int missing_add(struct missing *m, const struct missing_file *file, struct strv *tried, struct err *e) _must_check_;

/* Make one error (kind input) of all of them, at least one.
 * of  how many files were asked for
 * Returns -ENETUNREACH when one was not sought because of --offline; -ENOENT when nothing has any of them; else the code of the first
 * that failed otherwise. Of one file the message tells what was tried, of several the names: as many as fit, and it counts the rest. */
int missing_error(const struct missing *m, size_t of, struct err *e);

/* Append "LABEL (sha256 <hex>, 123 bytes)". Returns 0, or -E2BIG, -ENOMEM as buf_append(). */
int missing_describe(const struct missing_file *file, struct buf *into) _must_check_;

void missing_release(struct missing *m);
#define _cleanup_missing_ _cleanup_(missing_release)

#endif
