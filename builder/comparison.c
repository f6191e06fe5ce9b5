#include "builder/comparison.h"

#include <string.h>

void comparison_release(struct comparison *c)
{
	store_item_release(&c->item);
	kept_key_release(&c->old_key);
	key_changes_release(&c->changes);
	*c = (struct comparison){ 0 };
}

int comparison_with(struct store_item *item, const struct key_side *now, const struct key_gaps *gaps, struct comparison *ret,
	struct err *e)
{
	_cleanup_key_changes_ struct key_changes changes = { 0 };
	_cleanup_kept_key_ struct kept_key old_key = { 0 };
	struct key_side was;
	int r = companions_read_key(item, &old_key, e);

	if (r < 0)
		return r;
	was = (struct key_side){ .document = old_key.document, .epoch = old_key.epoch };
	r = key_diff(&was, now, gaps, &changes, e);
	if (r < 0)
		return r;
	store_item_release(&ret->item);
	kept_key_release(&ret->old_key);
	key_changes_release(&ret->changes);
	ret->n_inputs = key_changes_count_inputs(&changes);
	ret->item = *item;
	ret->old_key = old_key;
	ret->changes = changes;
	*item = (struct store_item){ .name = NULL };
	old_key = (struct kept_key){ 0 };
	changes = (struct key_changes){ 0 };
	return 0;
}

/* An entry to look into, with what decides when its turn comes. */
struct candidate {
	struct store_item *item;
	bool same_name;
};

static int compare_candidates(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	if (x->same_name != y->same_name)
		return x->same_name ? -1 : 1;
	if (x->item->published_ns != y->item->published_ns)
		return x->item->published_ns > y->item->published_ns ? -1 : 1;
	return strcmp(x->item->name, y->item->name);
}

static void mark_same_name(struct candidate *candidates, size_t n, const char *name)
{
	_cleanup_buf_ struct buf found = BUF_INIT(1 << 16);

	for (size_t i = 0; i < n; i++) {
		buf_reset(&found);
		companions_read_name(candidates[i].item->path, &found);
		candidates[i].same_name = strcmp(buf_str(&found), name) == 0;
	}
}

/* Take the candidate if it is nearer than what was found so far. One that cannot be read is counted. */
static int try_candidate(struct store_item *item, const struct key_side *now, const struct key_gaps *gaps, struct comparison *best,
	size_t *read_bytes, struct err *e)
{
	const json_t *arch = json_object_get(now->document, "arch"), *its_arch;
	_cleanup_comparison_ struct comparison this = { 0 };
	int r = comparison_with(item, now, gaps, &this, e);

	if (r == -ENOMEM)
		return r;
	/* One that was removed meanwhile is not damaged. */
	if (r < 0) {
		if (r != -ENOENT && best->n_damaged++ == 0)
			(void)snprintf(best->damage, sizeof(best->damage), "%.*s", (int)sizeof(best->damage) - 1, e->message);
		err_clear(e);
		return 0;
	}
	*read_bytes += this.old_key.size_bytes;
	its_arch = json_object_get(this.old_key.document, "arch");
	if (!json_equal(its_arch, arch) || (best->item.name && best->n_inputs < this.n_inputs) ||
		(best->item.name && best->n_inputs == this.n_inputs && best->item.published_ns >= this.item.published_ns))
		return 0;
	store_item_release(&best->item);
	kept_key_release(&best->old_key);
	key_changes_release(&best->changes);
	best->item = this.item;
	best->old_key = this.old_key;
	best->changes = this.changes;
	best->n_inputs = this.n_inputs;
	this = (struct comparison){ 0 };
	return 0;
}

int comparison_nearest(const struct store *store, const struct key_side *now, const struct key_gaps *gaps, const char *name,
	struct comparison *ret, struct err *e)
{
	_cleanup_store_listing_ struct store_listing listing = { 0 };
	_cleanup_free_ struct candidate *candidates = NULL;
	/* Another key differs in something; what is not known may be all of it. */
	size_t nearest_possible = gaps && gaps->n > 0 ? 0 : 1, read_bytes = 0;
	int r = store_list(store, STORE_IMAGE, &listing, e);

	if (r < 0)
		return r;
	candidates = calloc(listing.n + 1, sizeof(*candidates));
	if (!candidates)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < listing.n; i++)
		candidates[i].item = &listing.items[i];
	qsort(candidates, listing.n, sizeof(*candidates), compare_candidates);
	if (listing.n > COMPARISON_MAX_ENTRIES && name) {
		mark_same_name(candidates, listing.n < COMPARISON_MAX_NAMED ? listing.n : COMPARISON_MAX_NAMED, name);
		qsort(candidates, listing.n, sizeof(*candidates), compare_candidates);
	}
	ret->n_entries = listing.n;
	for (size_t i = 0; r == 0 && i < listing.n; i++) {
		ret->gave_up = i >= COMPARISON_MAX_ENTRIES || read_bytes > COMPARISON_MAX_BYTES;
		if (ret->gave_up || (ret->item.name && ret->n_inputs <= nearest_possible))
			break;
		ret->n_read++;
		r = try_candidate(candidates[i].item, now, gaps, ret, &read_bytes, e);
	}
	return r;
}
