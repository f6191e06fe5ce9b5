/* Which lines of two texts differ, as `diff -u` would show it: changed lines with a little around them.
 *
 * Lines are bytes up to and with a newline. The shortest edit script is found (Myers) as long as it has at most
 * TEXT_DIFF_MAX_EDITS edits; texts that differ more, or have more lines than TEXT_DIFF_MAX_LINES between what they begin and end with
 * in common, are said to differ in all of that. The result borrows from both texts. Time and memory are bounded by these limits.
 *
 * SOURCE: Myers, An O(ND) Difference Algorithm and Its Variations, 1986, section 4. */
#ifndef IMGBUILD_LIB_TEXT_DIFF_H
#define IMGBUILD_LIB_TEXT_DIFF_H

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>

#define TEXT_DIFF_MAX_EDITS 600
#define TEXT_DIFF_MAX_LINES 20000
#define TEXT_DIFF_CONTEXT_LINES 2

struct text_line {
	char mark;		       /* ' ' in both, '-' gone, '+' new */
	bool starts_hunk;	       /* between it and the line before it there is something that is not shown */
	size_t old_number, new_number; /* of this line, or of the one that would be next on a side that lacks it; from 1 */
	const char *text;	       /* len bytes, without the newline */
	size_t len;
	bool no_newline; /* it ends with the text */
};

struct text_diff {
	struct text_line *lines; /* none: the texts are equal */
	size_t n;
	bool cut; /* there are more than max_lines */
};

void text_diff_release(struct text_diff *d);
#define _cleanup_text_diff_ _cleanup_(text_diff_release)

/* Compare two texts.
 * max_lines  at most so many lines are returned, those of the start
 * ret        a zeroed struct
 * Returns 0 or -ENOMEM. */
int text_diff(const char *old_text, size_t old_len, const char *new_text, size_t new_len, size_t max_lines,
	struct text_diff *ret, struct err *e) _must_check_;

/* Count the lines of both sides in the hunk that starts at line i. */
void text_diff_hunk_size(const struct text_diff *d, size_t i, size_t *ret_old, size_t *ret_new);

#endif
