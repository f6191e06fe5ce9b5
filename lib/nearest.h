/* The nearest of some names to one that was mistyped, for error messages. */
#ifndef IMGBUILD_LIB_NEAREST_H
#define IMGBUILD_LIB_NEAREST_H

#include <stddef.h>

/* Find the name that takes the fewest edits (insertion, deletion, replacement, swap of neighbours) to become `word`, if
 * that is at most a third of the word's length, and at least one. Returns it (borrowed from `names`), or NULL. Words
 * longer than 64 bytes have no nearest name. */
const char *nearest_name(const char *const *names, size_t n, const char *word);

#endif
