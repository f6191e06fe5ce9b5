/* A list of strings that it owns. Order is the caller's. A zeroed struct strv is empty and valid. */
#ifndef IMGBUILD_LIB_STRV_H
#define IMGBUILD_LIB_STRV_H

#include "lib/cleanup.h"

#include <stdbool.h>
#include <stddef.h>

struct strv {
	char **items; /* always followed by a NULL once something was added, so it serves as an argv */
	size_t n;
	size_t capacity;
};

void strv_release(struct strv *v);
#define _cleanup_strv_ _cleanup_(strv_release)

/* Append a copy of s, of len bytes at s, or of formatted text. Return 0 or -ENOMEM. */
int strv_add(struct strv *v, const char *s) _must_check_;
int strv_add_len(struct strv *v, const char *s, size_t len) _must_check_;
int strv_addf(struct strv *v, const char *fmt, ...) _printf_(2, 3) _must_check_;

/* Append s itself (malloc'ed); it is freed when adding fails. Returns 0 or -ENOMEM. */
int strv_add_take(struct strv *v, char *s) _must_check_;

/* Append copies of all of `from`. Returns 0 or -ENOMEM. */
int strv_extend(struct strv *v, const struct strv *from) _must_check_;

/* Whether one of the strings equals s. */
bool strv_contains(const struct strv *v, const char *s);

/* Sort bytewise (LC_ALL=C order), and drop repetitions of sorted neighbours. */
void strv_sort(struct strv *v);
void strv_uniq(struct strv *v);

#endif
