/* What the guest's program shares: the description of a failure, bounded text, whole writes. No allocation
 * that is not checked, no state. */
#ifndef IMGBUILD_INIT_UTIL_H
#define IMGBUILD_INIT_UTIL_H

#include "initrd/protocol.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Why something failed, as the verdict says it. Fixed size: it crosses the socket from a step to init as it
 * is. */
struct fail {
	char reason[16]; /* one of protocol.h's REASON; "" while nothing failed */
	int exit;
	int signal;
	char text[VERDICT_TEXT_MAX_BYTES];
};

/* Describe a failure unless one is described already; always returns -1. */
int fail_set(struct fail *f, const char *reason, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* Text in a fixed buffer; what does not fit is left out and `overflow` says so. Always NUL-terminated. */
struct text {
	char *data;
	size_t size;
	size_t len;
	bool overflow;
};

/* Begin an empty text in data. */
void text_init(struct text *t, char *data, size_t size);
/* Append bytes, all or nothing. */
void text_add(struct text *t, const char *s, size_t len);
/* Append formatted text, all or nothing. */
void text_addf(struct text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* One line on the console: for the person who looks at the log of a boot that went wrong. */
void say(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* Write all of it, waiting where the descriptor would block. Returns 0 or -errno. */
int write_all(int fd, const void *bytes, size_t len);

/* Read a small file of the kernel's or the image's into buf as a string. Returns its length or -errno; -E2BIG
 * when it does not fit. */
ssize_t read_text_at(int dirfd, const char *path, char *buf, size_t size);

/* Read a whole regular file, at most max bytes, into memory that the caller frees, NUL-terminated. Returns 0
 * or -errno. */
int read_alloc_at(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len);

/* The monotonic clock. */
uint64_t now_ms(void);

/* Wait, whatever signals come. */
void sleep_ms(unsigned ms);

/* The wait status of a child in words, into the failure: reason "exit" or "signal". Returns -1. */
int fail_from_status(struct fail *f, int status, const char *what);

#endif
