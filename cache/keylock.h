/* Locks on keys, so that two processes do not do the same work twice.
 *
 * A flock on locks/<key>, a file that is never deleted and holds the process id of whoever has the lock. Correctness
 * never rests on it: where the filesystem cannot lock, or locks only within one machine, work is done twice and
 * publishing sorts it out. After a lock was taken, look for the result again: the former holder may have made it.
 *
 * Concurrency: a lock belongs to the process (children that exec do not keep it); it ends with its scope or process.
 * Cancel: cancel_fd (-1: none) is only polled, never read; when it is readable the answer is -ECANCELED. */
#ifndef IMGBUILD_CACHE_KEYLOCK_H
#define IMGBUILD_CACHE_KEYLOCK_H

#include "lib/digest.h"
#include "lib/err.h"

#include <sys/types.h>

struct publisher; /* cache/publish.h */

struct publish_lock {
	int fd; /* -1: none, or this filesystem has no locks */
};

#define PUBLISH_LOCK_INIT                                                                                    \
	{                                                                                                    \
		.fd = -1                                                                                     \
	}

/* Called when waiting begins and about every second from then on. holder: the process that has the lock, 0 when it
 * did not say (or runs on another machine). Return < 0 to give up with that error. */
typedef int (*publish_wait_fn)(void *ctx, pid_t holder, uint64_t waited_ms);

/* Take the lock of a key (flock on locks/<key>, never deleted) and write our process id into it.
 * timeout_ms  0: do not wait; -1: for as long as it takes
 * on_wait     may be NULL
 * Returns 0 (also, with fd -1, where the filesystem cannot lock); -EWOULDBLOCK somebody else has it after timeout_ms,
 * the message says who; -ECANCELED. */
int publish_lock_key(struct publisher *p, const struct digest *key, int timeout_ms, int cancel_fd,
	publish_wait_fn on_wait, void *ctx, struct publish_lock *ret, struct err *e) _must_check_;
void publish_lock_release(struct publish_lock *l);
#define _cleanup_publish_lock_ _cleanup_(publish_lock_release)

#endif
