/* A key document held against an entry of the cache: against one that is named, or against the nearest.
 *
 * The nearest is the finished image of the same architecture with the fewest differing inputs, of equals the newest. At
 * most COMPARISON_MAX_ENTRIES are looked into: the newest, and where there are more, those first whose plan has the same `name`,
 * which is looked up for the COMPARISON_MAX_NAMED newest. The search ends before that when an entry differs in one input only, for none
 * can be nearer, or when COMPARISON_MAX_BYTES of documents were read. An entry that cannot be read is passed over and counted.
 *
 * Reads only; needs nothing but libcrypto and jansson. A struct comparison owns everything in it. One thread. */
#ifndef IMGBUILD_BUILDER_COMPARISON_H
#define IMGBUILD_BUILDER_COMPARISON_H

#include "builder/companions.h"
#include "plan/key_diff.h"

#define COMPARISON_MAX_ENTRIES 200
#define COMPARISON_MAX_NAMED 2000
#define COMPARISON_MAX_BYTES (16u << 20)

struct comparison {
	struct store_item item;	    /* the entry; its name is NULL when there is none to compare with */
	struct kept_key old_key;    /* its document */
	struct key_changes changes; /* from it to the plan */
	size_t n_inputs;	    /* that differ */
	size_t n_entries;	    /* finished images in the cache */
	size_t n_read;		    /* of them were looked into */
	bool gave_up;		    /* because of a limit: a nearer one may be among the others */
	size_t n_damaged;	    /* of those could not be read */
	char damage[512];	    /* how the first of them is damaged */
};

void comparison_release(struct comparison *c);
#define _cleanup_comparison_ _cleanup_(comparison_release)

/* Compare with one entry. `item` is taken over, and emptied, on success.
 * now, gaps  as key_diff() takes them
 * ret        a zeroed struct, released by the caller in every case */
int comparison_with(struct store_item *item, const struct key_side *now, const struct key_gaps *gaps, struct comparison *ret,
	struct err *e) _must_check_;

/* Compare with the nearest entry.
 * name  of the plan, or NULL
 * Returns 0, also when there is none. */
int comparison_nearest(const struct store *store, const struct key_side *now, const struct key_gaps *gaps, const char *name,
	struct comparison *ret, struct err *e) _must_check_;

#endif
