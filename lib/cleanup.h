/* Scope-bound cleanup and explicit transfer of ownership.
 *
 * A resource is declared with _cleanup_(f) and initialised where it is declared (fd = -1, p = NULL). It leaves
 * its scope only through take_fd() or take_ptr(), which disarm the cleanup. A cleanup never changes errno and
 * never reports: the first error wins. */
#ifndef IMGBUILD_LIB_CLEANUP_H
#define IMGBUILD_LIB_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _must_check_ __attribute__((warn_unused_result))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))

/* Close *fd unless it is negative, and set it to -1. EINTR is not retried: on Linux the number is gone. */
static inline void close_fdp(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
	errno = saved;
}

/* Free *(void **)p. */
static inline void freep(void *p)
{
	int saved = errno;

	free(*(void **)p);
	errno = saved;
}

static inline void fclosep(FILE **f)
{
	int saved = errno;

	if (*f)
		(void)fclose(*f);
	errno = saved;
}

static inline void closedirp(DIR **d)
{
	int saved = errno;

	if (*d)
		(void)closedir(*d);
	errno = saved;
}

#define _cleanup_close_ _cleanup_(close_fdp)
#define _cleanup_free_ _cleanup_(freep)
#define _cleanup_fclose_ _cleanup_(fclosep)
#define _cleanup_closedir_ _cleanup_(closedirp)

/* Take the descriptor out of *fd, leaving -1 there: the caller's scope no longer closes it. */
static inline int take_fd(int *fd)
{
	int r = *fd;

	*fd = -1;
	return r;
}

/* Take the pointer out of the variable p, leaving NULL there. */
#define take_ptr(p)                                                                                          \
	({                                                                                                   \
		__typeof__(p) *take_slot_ = &(p);                                                            \
		__typeof__(p) take_value_ = *take_slot_;                                                     \
		*take_slot_ = NULL;                                                                          \
		take_value_;                                                                                 \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
