#include "builder/packages/order.h"
#include "builder/packages/universe.h"

#include <string.h>

/* The state of one package that goes in. */
struct going_in {
	uint32_t version;
	bool unpacked, configured;
	bool tried;	 /* while a configure run is put together: it is needed by the item that is looked at */
	bool in_run;	 /* and: it will be in that run */
};

struct ordering {
	struct pkg_universe u;
	struct apt_pins no_pins;
	const struct pkg_order_item *items;
	struct going_in *in;
	size_t n;
	uint32_t n_names;
	size_t *item_of;  /* by name: index of the item, or SIZE_MAX */
	bool *goes_out;	  /* by name */
	struct pkg_ops ops;
};

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

void pkg_ops_release(struct pkg_ops *ops)
{
	for (size_t i = 0; i < ops->n; i++) {
		strv_release(&ops->ops[i].names);
		free(ops->ops[i].items);
	}
	free(ops->ops);
	*ops = (struct pkg_ops){ 0 };
}

const char *pkg_op_kind_name(enum pkg_op_kind kind)
{
	static const char *const names[] = { "remove", "purge", "unpack", "configure", "configure-pending" };

	return names[kind];
}

static void ordering_release(struct ordering *o)
{
	pkg_universe_release(&o->u);
	free(o->in);
	free(o->item_of);
	free(o->goes_out);
	pkg_ops_release(&o->ops);
}

/* Append an operation; the pointer holds until the next one is appended. */
static struct pkg_op *append_op(struct ordering *o, enum pkg_op_kind kind)
{
	struct pkg_op *ops = reallocarray(o->ops.ops, o->ops.n + 1, sizeof(*ops));

	if (!ops)
		return NULL;
	o->ops.ops = ops;
	ops[o->ops.n] = (struct pkg_op){ .kind = kind };
	return &ops[o->ops.n++];
}

static const char *item_name(const struct ordering *o, size_t i)
{
	return o->u.names[o->u.versions[o->in[i].version].name].text;
}

static int op_add_item(struct ordering *o, struct pkg_op *op, size_t i, struct err *e)
{
	size_t *items = reallocarray(op->items, op->n_items + 1, sizeof(*items));

	if (!items)
		return out_of_memory(e);
	op->items = items;
	items[op->n_items++] = i;
	return strv_add(&op->names, item_name(o, i)) < 0 ? out_of_memory(e) : 0;
}

static int load_items(struct ordering *o, struct err *e)
{
	struct digest none = { 0 };

	for (size_t i = 0; i < o->n; i++) {
		struct deb822_reader reader;
		struct deb822_stanza stanza;
		int r;

		deb822_reader_init(&reader, o->items[i].control, o->items[i].control_len, o->items[i].name);
		r = deb822_next(&reader, &stanza, e);
		if (r == 0)
			r = err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the control text of `%s` is empty", o->items[i].name);
		if (r > 0)
			r = pkg_universe_add_local(&o->u, &stanza, (int32_t)i, "", 0, &none, o->items[i].name,
				&o->in[i].version, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Fill the tables by name. After this, names that are added have no versions. */
static int index_names(struct ordering *o, const struct pkg_order_removal *removals, size_t n_removals, struct err *e)
{
	for (size_t i = 0; i < o->n; i++) {
		if (pkg_universe_set_candidate(&o->u, o->in[i].version, e) < 0)
			return e->code;
	}
	o->n_names = o->u.n_names;
	o->item_of = calloc(o->n_names ? o->n_names : 1, sizeof(*o->item_of));
	o->goes_out = calloc(o->n_names ? o->n_names : 1, sizeof(*o->goes_out));
	if (!o->item_of || !o->goes_out)
		return out_of_memory(e);
	memset(o->item_of, 0xff, o->n_names * sizeof(*o->item_of));
	for (size_t i = 0; i < o->n; i++) {
		uint32_t name = o->u.versions[o->in[i].version].name;

		if (o->item_of[name] != SIZE_MAX)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "`%s` is to go in twice", o->u.names[name].text);
		o->item_of[name] = i;
	}
	for (size_t i = 0; i < n_removals; i++) {
		uint32_t name = pkg_universe_find(&o->u, removals[i].name, strlen(removals[i].name));

		if (name != UNIVERSE_NONE && name < o->n_names && o->item_of[name] == SIZE_MAX)
			o->goes_out[name] = true;
	}
	return 0;
}

/* What serves an alternative at this moment of the run. */
enum service {
	SERVICE_NONE,
	SERVICE_NOT_UNPACKED, /* an item that is yet to be unpacked would */
	SERVICE_UNPACKED,     /* an item that is unpacked and not configured would */
	SERVICE_CONFIGURED,
};

/* How the package of this name serves an alternative. With `before` an item that was unpacked over a configured version
 * serves when both do, which policy 7.2 allows for Pre-Depends. */
static enum service name_serves(const struct ordering *o, uint32_t name, const struct pkg_alternative *a, bool before)
{
	uint32_t installed = o->u.names[name].installed;
	bool old_serves = installed != UNIVERSE_NONE && pkg_universe_satisfies(&o->u, installed, a);
	const struct going_in *in;
	bool new_serves;

	if (name >= o->n_names || o->item_of[name] == SIZE_MAX)
		return old_serves && !(name < o->n_names && o->goes_out[name]) ? SERVICE_CONFIGURED : SERVICE_NONE;
	in = &o->in[o->item_of[name]];
	new_serves = pkg_universe_satisfies(&o->u, in->version, a);
	if (!in->unpacked)
		return old_serves ? SERVICE_CONFIGURED : new_serves ? SERVICE_NOT_UNPACKED : SERVICE_NONE;
	if (!new_serves)
		return SERVICE_NONE;
	return in->configured || (before && old_serves) ? SERVICE_CONFIGURED : SERVICE_UNPACKED;
}

/* The best service for an alternative, and by which name. */
static enum service alternative_served(const struct ordering *o, const struct pkg_alternative *a, bool before,
	uint32_t *ret_name)
{
	enum service best = name_serves(o, a->name, a, before);
	const struct pkg_name *name = &o->u.names[a->name];

	*ret_name = a->name;
	for (uint32_t i = 0; i < name->n_providers; i++) {
		uint32_t owner = o->u.versions[name->providers[i].version].name;
		enum service s = name_serves(o, owner, a, before);

		if (s > best) {
			best = s;
			*ret_name = owner;
		}
	}
	return best;
}

static enum service dep_served(const struct ordering *o, const struct pkg_relations *r, const struct pkg_dep *d, bool before,
	uint32_t *ret_name)
{
	enum service best = SERVICE_NONE;

	for (uint32_t i = 0; i < d->n; i++) {
		uint32_t name;
		enum service s = alternative_served(o, &r->alternatives[d->first + i], before, &name);

		if (i == 0 || s > best) {
			best = s;
			*ret_name = name;
		}
	}
	return best;
}

static bool hits(const struct ordering *o, const struct pkg_relations *r, uint32_t version)
{
	for (size_t i = 0; i < r->n_deps; i++)
		if (r->deps[i].kind >= PKG_DEP_CONFLICTS &&
			pkg_universe_satisfies(&o->u, version, &r->alternatives[r->deps[i].first]))
			return true;
	return false;
}

/* Whether item k, which replaces a version in the base, must be unpacked before item i: the old one and i exclude one
 * another. Returns 1, 0 or negative. */
static int must_precede(struct ordering *o, size_t k, size_t i, struct err *e)
{
	uint32_t old = o->u.names[o->u.versions[o->in[k].version].name].installed;
	const struct pkg_relations *mine, *theirs;

	if (k == i || o->in[k].unpacked || old == UNIVERSE_NONE)
		return 0;
	mine = pkg_universe_relations(&o->u, o->in[i].version, e);
	theirs = mine ? pkg_universe_relations(&o->u, old, e) : NULL;
	if (!mine || !theirs)
		return e->code;
	return hits(o, mine, old) || hits(o, theirs, o->in[i].version);
}

/* Whether an item can be unpacked now. Returns 1, 0 or negative. */
static int can_unpack(struct ordering *o, size_t i, bool heed_conflicts, struct err *e)
{
	const struct pkg_relations *r = pkg_universe_relations(&o->u, o->in[i].version, e);
	uint32_t ignored;

	if (!r)
		return e->code;
	for (size_t d = 0; d < r->n_deps; d++)
		if (r->deps[d].kind == PKG_DEP_PRE_DEPENDS && dep_served(o, r, &r->deps[d], true, &ignored) != SERVICE_CONFIGURED)
			return 0;
	for (size_t k = 0; k < o->n && heed_conflicts; k++) {
		int m = must_precede(o, k, i, e);

		if (m != 0)
			return m < 0 ? m : 0;
	}
	return 1;
}

/* Unpack all that can be unpacked now, in one run. Returns how many. */
static int unpack_batch(struct ordering *o, bool heed_conflicts, struct err *e)
{
	struct pkg_op *op = NULL;
	int count = 0, before;

	do {
		before = count;
		for (size_t i = 0; i < o->n; i++) {
			int r = o->in[i].unpacked ? 0 : can_unpack(o, i, heed_conflicts, e);

			if (r < 0)
				return r;
			if (r == 0)
				continue;
			if (!op)
				op = append_op(o, PKG_OP_UNPACK);
			if (!op)
				return out_of_memory(e);
			if (op_add_item(o, op, i, e) < 0)
				return e->code;
			o->in[i].unpacked = true;
			count++;
			if (!heed_conflicts)
				return count; /* one is enough to go on by the rules again */
		}
	} while (count > before);
	return count;
}

/* Gather what must be configured so that item i can be. Returns 1; 0 when something it needs is not unpacked yet. */
static int gather_closure(struct ordering *o, size_t i, struct err *e)
{
	const struct pkg_relations *r;

	if (o->in[i].tried || o->in[i].in_run || o->in[i].configured)
		return 1;
	o->in[i].tried = true;
	r = pkg_universe_relations(&o->u, o->in[i].version, e);
	if (!r)
		return e->code;
	for (size_t d = 0; d < r->n_deps; d++) {
		uint32_t name;
		enum service s;
		int k;

		if (r->deps[d].kind > PKG_DEP_DEPENDS)
			continue;
		s = dep_served(o, r, &r->deps[d], false, &name);
		if (s == SERVICE_NOT_UNPACKED)
			return 0;
		if (s != SERVICE_UNPACKED)
			continue; /* configured; or served by nothing at all, which the solver let pass for the base's sake */
		k = gather_closure(o, o->item_of[name], e);
		if (k <= 0)
			return k;
	}
	return 1;
}

/* Gather what keeps an item from being unpacked and can be configured now. Returns 1 when that is something. */
static int gather_for(struct ordering *o, size_t i, struct err *e)
{
	const struct pkg_relations *r = pkg_universe_relations(&o->u, o->in[i].version, e);
	bool any = false;
	int g = 1;

	if (!r)
		return e->code;
	for (size_t d = 0; d < r->n_deps && g > 0; d++) {
		uint32_t name;

		if (r->deps[d].kind != PKG_DEP_PRE_DEPENDS || dep_served(o, r, &r->deps[d], true, &name) != SERVICE_UNPACKED)
			continue;
		g = gather_closure(o, o->item_of[name], e);
		any = true;
	}
	for (size_t k = 0; k < o->n; k++) {
		o->in[k].in_run |= o->in[k].tried && g > 0;
		o->in[k].tried = false;
	}
	return g < 0 ? g : any && g > 0;
}

/* Configure, in one run, what keeps items from being unpacked. Returns 1 when a run was added, 0 when none can be. */
static int configure_blockers(struct ordering *o, struct err *e)
{
	struct pkg_op *op = NULL;

	for (size_t i = 0; i < o->n; i++) {
		int r = o->in[i].unpacked ? 0 : gather_for(o, i, e);

		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < o->n; i++) {
		if (!o->in[i].in_run)
			continue;
		if (!op)
			op = append_op(o, PKG_OP_CONFIGURE);
		if (!op)
			return out_of_memory(e);
		if (op_add_item(o, op, i, e) < 0)
			return e->code;
		o->in[i].configured = true;
		o->in[i].in_run = false;
	}
	return op != NULL;
}

static int loop_error(const struct ordering *o, struct err *e)
{
	_cleanup_buf_ struct buf names = BUF_INIT(1024);

	for (size_t i = 0; i < o->n; i++)
		if (!o->in[i].unpacked && buf_appendf(&names, "%s`%s`", names.len ? ", " : "", item_name(o, i)) < 0)
			break;
	return err_set_kind(e, ERR_KIND_INPUT, -ELOOP,
		"the Pre-Depends of these packages cannot be met in any order: %s", buf_str(&names));
}

static int order_unpacking(struct ordering *o, struct err *e)
{
	size_t left = o->n;

	while (left > 0) {
		int r = unpack_batch(o, true, e);

		if (r < 0)
			return r;
		left -= (size_t)r;
		if (left == 0)
			break;
		r = configure_blockers(o, e);
		if (r < 0)
			return r;
		if (r > 0)
			continue;
		/* Old versions that exclude each other's successors: dpkg deconfigures what is broken meanwhile. */
		r = unpack_batch(o, false, e);
		if (r < 0)
			return r;
		if (r == 0)
			return loop_error(o, e);
		left -= (size_t)r;
	}
	return 0;
}

/* Whether something in the list of removals, not yet placed, depends on this name. */
static int is_needed_by_rest(struct ordering *o, uint32_t name, const uint32_t *rest, size_t n_rest, struct err *e)
{
	for (size_t i = 0; i < n_rest; i++) {
		uint32_t installed = o->u.names[rest[i]].installed;
		const struct pkg_relations *r;

		if (rest[i] == name || installed == UNIVERSE_NONE)
			continue;
		r = pkg_universe_relations(&o->u, installed, e);
		if (!r)
			return e->code;
		for (size_t d = 0; d < r->n_deps; d++)
			for (uint32_t k = 0; k < r->deps[d].n && r->deps[d].kind <= PKG_DEP_DEPENDS; k++)
				if (r->alternatives[r->deps[d].first + k].name == name)
					return 1;
	}
	return 0;
}

/* One run for the removals of a kind: dependents before what they depend on. */
static int order_removals(struct ordering *o, const struct pkg_order_removal *removals, size_t n_removals, bool purge,
	struct err *e)
{
	_cleanup_free_ uint32_t *rest = calloc(n_removals ? n_removals : 1, sizeof(*rest));
	struct pkg_op *op;
	size_t n = 0;

	if (!rest)
		return out_of_memory(e);
	for (size_t i = 0; i < n_removals; i++) {
		uint32_t name = pkg_universe_find(&o->u, removals[i].name, strlen(removals[i].name));

		if (removals[i].purge == purge && name != UNIVERSE_NONE && name < o->n_names && o->goes_out[name])
			rest[n++] = name;
	}
	if (n == 0)
		return 0;
	op = append_op(o, purge ? PKG_OP_PURGE : PKG_OP_REMOVE);
	if (!op)
		return out_of_memory(e);
	while (n > 0) {
		size_t pick = 0;

		for (size_t i = 0; i < n; i++) {
			int r = is_needed_by_rest(o, rest[i], rest, n, e);

			if (r < 0)
				return r;
			pick = i;
			if (r == 0)
				break;
			pick = 0; /* a circle: begin anywhere */
		}
		if (strv_add(&op->names, o->u.names[rest[pick]].text) < 0)
			return out_of_memory(e);
		memmove(&rest[pick], &rest[pick + 1], (n - pick - 1) * sizeof(*rest));
		n--;
	}
	return 0;
}

int pkg_order(const char *arch, const void *status, size_t status_len, const struct pkg_order_item *items, size_t n_items,
	const struct pkg_order_removal *removals, size_t n_removals, struct pkg_ops *ret, struct err *e)
{
	_cleanup_(ordering_release) struct ordering o = { .items = items, .n = n_items };
	enum arch parsed;
	int r;

	if (arch_parse(arch, &parsed) < 0)
		return err_set(e, -EINVAL, "`%s` is no architecture that is known", arch);
	pkg_universe_init(&o.u, parsed, &o.no_pins);
	o.in = calloc(n_items ? n_items : 1, sizeof(*o.in));
	if (!o.in)
		return out_of_memory(e);
	r = load_items(&o, e);
	if (r == 0)
		r = pkg_universe_add_status(&o.u, status, status_len, "/var/lib/dpkg/status", e);
	if (r == 0)
		r = pkg_universe_finish(&o.u, e);
	if (r == 0)
		r = index_names(&o, removals, n_removals, e);
	/* Conflicts first: what goes out for something that comes in must be gone when that is unpacked. */
	if (r == 0)
		r = order_removals(&o, removals, n_removals, false, e);
	if (r == 0)
		r = order_removals(&o, removals, n_removals, true, e);
	if (r == 0)
		r = order_unpacking(&o, e);
	if (r < 0)
		return r;
	if (!append_op(&o, PKG_OP_CONFIGURE_PENDING))
		return out_of_memory(e);
	*ret = o.ops;
	o.ops = (struct pkg_ops){ 0 };
	return 0;
}
