/* What every stage of a build may use: the cache, progress, the way to be cancelled, and how the person wants bytes to be had.
 *
 * The command layer fills it in and owns it; stages borrow it. Nothing in it is part of the key. */
#ifndef IMGBUILD_BUILDER_ENV_H
#define IMGBUILD_BUILDER_ENV_H

#include "builder/candidates.h"
#include "builder/vm/accel.h"
#include "cache/fetch.h"
#include "cache/publish.h"
#include "lib/progress.h"

#include <stdbool.h>

struct build_env {
	struct publisher *publisher; /* borrowed */
	struct progress *progress;   /* borrowed; NULL is fine */
	int cancel_fd;		     /* lent; readable: end soon */
	bool offline, locked;
	bool must_write_lock; /* the lock is what was asked for: one that cannot be written is an error, not a warning */
	enum accel_choice accel;
	struct pkg_mirror *mirrors; /* owned, their strings too: --mirror ORIGIN=URL */
	size_t n_mirrors;
	bool host_mirror; /* --mirror host */
	unsigned retry_delay_ms; /* the first pause before what may pass is tried again; 0: as each part thinks fit */
	struct strv blob_stores; /* owned: --blobs URL|DIR */
	struct missing *missing; /* borrowed: files that could not be had are listed here, too; NULL is fine */
};

/* Read the --mirror arguments ("ORIGIN=URL" or "host") into env, and after them those of `more`, which is
 * $IMGBUILD_MIRROR: the same, separated by blanks; NULL: none. Returns 0, or -EINVAL (kind usage). */
int build_env_set_mirrors(struct build_env *env, const struct strv *arguments, const char *more, struct err *e) _must_check_;

/* Read the --blobs arguments into env, and after them those of `more`, which is $IMGBUILD_BLOBS, separated by blanks; NULL: none.
 * Returns 0, or -EINVAL (kind usage): neither http, https, file: nor a path. */
int build_env_set_blob_stores(struct build_env *env, const struct strv *arguments, const char *more, struct err *e)
	_must_check_;

/* What env says about where files come from; borrowed from it. The host's mirrors and the plan's repositories are the caller's. */
struct candidate_rules build_env_candidate_rules(const struct build_env *env);

/* Read $IMGBUILD_RETRY_DELAY_MS (NULL or "": not set) into env. Returns 0, or -EINVAL (kind usage). */
int build_env_set_retry_delay(struct build_env *env, const char *text, struct err *e) _must_check_;

/* Free what env owns. */
void build_env_release(struct build_env *env);
#define _cleanup_build_env_ _cleanup_(build_env_release)

/* -ECANCELED, with words, when cancelling was asked for; 0 otherwise. For the seams between stages. */
int build_env_check_cancel(const struct build_env *env, struct err *e) _must_check_;

/* Options for downloads, filled in from env. */
struct fetch_options build_env_fetch_options(const struct build_env *env);

/* Give the result r of fetching pinned files, with what to do where they are not what was pinned. Returns r. */
int fetch_advise(int r, struct err *e);

/* Warn that a file of which nothing is known beforehand came from a mirror, not from its own address. */
void fetch_tell_stand_in(const struct build_env *env, const char *label, const char *url, const struct fetch_result *result);

/* Fetch one file that is no package into the store. Returns 0 with what it is in *ret, whose url is where the file's own address
 * led: NULL when it led nowhere else, or another place was asked, too. It is freed by fetch_results_release(ret, 1). */
int fetch_one(const struct build_env *env, const struct wanted_file *file, struct fetch_result *ret, struct err *e)
	_must_check_;

#endif
