/* A plan with all that its key needs: loaded, its lock beside it, its local files digested.
 *
 * This is the part of a build that the front and the engine share: it reads and computes, uses no network and writes
 * nothing but the memo of local digests. Order: prepared_load(), then prepared->key_error says whether the key is known;
 * when the lock does not answer (-ENOKEY) the engine resolves what is missing and calls prepared_compute_key() again.
 *
 * A struct prepared owns everything in it. One thread. */
#ifndef IMGBUILD_BUILDER_PREPARE_H
#define IMGBUILD_BUILDER_PREPARE_H

#include "cache/filedigest.h"
#include "cache/store.h"
#include "lib/progress.h"
#include "plan/key.h"

struct prepared {
	enum arch arch;
	bool read_only; /* set before loading: write nothing at all, not even the memo of local digests */
	struct plan *plan;
	char *lock_path; /* relative to the working folder, as the plan's name */
	struct lock lock;
	struct digest forgotten_kernel, forgotten_packages; /* the questions that update_forget() took from the lock */
	struct plan_local_inputs locals; /* with digests */
	struct digest key;		 /* valid when key_error is 0 */
	json_t *document;		 /* the canonical key document; NULL without a key */
	int key_error;			 /* 0, or -ENOKEY: the lock does not answer; key_reason says what */
	char key_reason[ERR_MESSAGE_MAX_BYTES];
};

/* Load the plan at `path` and compute its key as far as the lock answers.
 * store          where digests of local files are remembered; NULL: nowhere
 * progress       gets the plan's notices (-> NOTE); NULL is fine
 * ret            zeroed, but for read_only; released by the caller in every case
 * ret_faults     zeroed; released by the caller: with -EINVAL it may hold more faults than the one in *e
 * Returns 0, also when key_error is -ENOKEY; -EINVAL the plan is wrong; another -errno (kind usage or input). */
int prepared_load(const char *path, enum arch arch, bool allow_outside, const struct store *store,
	struct progress *progress, struct prepared *ret, struct plan_faults *ret_faults, struct err *e) _must_check_;

/* Compute the key again, after the lock in *p has changed. Same results as above. */
int prepared_compute_key(struct prepared *p, struct err *e) _must_check_;

/* Hold the local inputs (but for the base) against the digests in *p, after they were read. Returns 0; -EBUSY one was
 * changed since; -EBADMSG it is not what the plan says. */
int prepared_confirm_locals(const struct prepared *p, const struct store *store, struct err *e) _must_check_;

void prepared_release(struct prepared *p);
#define _cleanup_prepared_ _cleanup_(prepared_release)

/* Open a local input of the plan, by its slot ("base", "files:/etc/x"): -ENOENT when the plan has none of that name. */
int prepared_open_local(const struct prepared *p, const char *slot, int *ret_fd, struct err *e) _must_check_;

#endif
