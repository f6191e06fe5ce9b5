/* Which servers answer, within one call of cache/fetch: where one stayed silent through all attempts for one file, the other files do
 * not wait for it again, which with hundreds of them would take hours. A server that has answered before is given up when
 * HOSTS_SILENT_FILES_MAX files in a row got nothing out of it.
 *
 * A zeroed struct hosts is empty and valid. One thread. Internal to cache/fetch. */
#ifndef IMGBUILD_CACHE_HOSTS_H
#define IMGBUILD_CACHE_HOSTS_H

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>

#define HOSTS_SILENT_FILES_MAX 3

struct host; /* opaque */

struct hosts {
	struct host *items;
	size_t n, capacity;
};

/* It sent the head of an answer, whatever it says. */
void hosts_answered(struct hosts *h, const char *name);

/* An attempt, the nth for a file, ended without an answer: is this to be told? Once for each n, and not for each file. */
bool hosts_tell_silence(struct hosts *h, const char *name, unsigned n);

/* All attempts for one file ended without an answer; `why` is copied. */
void hosts_stayed_silent(struct hosts *h, const char *name, const struct err *why);

/* Is it given up? Then why, borrowed; else NULL. */
const struct err *hosts_given_up(const struct hosts *h, const char *name);

void hosts_release(struct hosts *h);

#endif
