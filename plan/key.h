/* The key: the name of the image that a plan, its lock and its local files describe, for one architecture.
 *
 * key = SHA-256("imgbuild-epoch N\n" || canonical JSON of the key document). The document holds every input as a digest
 * and every setting that can show in the image, and nothing else: DESIGN's table of what is in and what is out. It
 * never depends on the order or the spelling in the plan, on URLs, local names, time, host, user or locale. Computing it
 * reads no file and no network. */
#ifndef IMGBUILD_PLAN_KEY_H
#define IMGBUILD_PLAN_KEY_H

#include "lib/arch.h"
#include "lib/digest.h"
#include "lib/err.h"
#include "plan/lock.h"
#include "plan/plan.h"

#include <jansson.h>

/* Compute the key.
 * locals        from plan_local_inputs() for the same architecture, digests filled in
 * ret_key       SHA-256
 * ret_document  the key document, a new reference for the caller; NULL when not wanted
 * Returns 0; -ENOKEY the lock does not answer one of the plan's questions: the message names which, lock_missing()
 * lists them, and the caller resolves and writes the lock, or reports under --locked; -EINVAL the plan has no image for
 * this architecture. */
int key_compute(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct digest *ret_key, json_t **ret_document, struct err *e) _must_check_;

/* Why a part of the document cannot be told. */
enum key_gap_reason {
	KEY_GAP_NOT_ASKED = 0, /* the lock has no such section */
	KEY_GAP_STALE,	       /* the section answers another question than the plan's */
	KEY_GAP_NEEDS_BASE     /* the question cannot even be asked while the base is not known */
};

/* A part that the lock does not answer. */
struct key_gap {
	char *slot; /* "base", "kernel", "packages", "files:/etc/x", "inputs:name" */
	enum key_gap_reason reason;
};

struct key_gaps {
	struct key_gap *items;
	size_t n;
};

void key_gaps_release(struct key_gaps *g);
#define _cleanup_key_gaps_ _cleanup_(key_gaps_release)

/* The reason in words, to stand behind a colon. */
const char *key_gap_text(enum key_gap_reason reason);

/* Make the key document as far as the lock answers; the rest is left out of it and listed: "base" leaves out base.sha256, "kernel"
 * kernel.sha256 and, where they come in packages, kernel.modules; "packages" packages and removals; a file or an input its digest.
 * ret_document  a new reference for the caller
 * ret_gaps      zeroed; released by the caller in every case; empty: it is the document of key_compute()
 * Returns 0; otherwise as key_compute(), but never -ENOKEY for an answer that is not there. */
int key_draft(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	json_t **ret_document, struct key_gaps *ret_gaps, struct err *e) _must_check_;

#endif
