#include "plan/lock_diff.h"
#include "plan/lock_internal.h"

#include <string.h>

void lock_changes_release(struct lock_changes *c)
{
	for (size_t i = 0; i < c->n; i++) {
		free(c->items[i].name);
		free(c->items[i].old_text);
		free(c->items[i].new_text);
	}
	free(c->items);
	*c = (struct lock_changes){ 0 };
}

const char *lock_change_kind_name(enum lock_change_kind kind)
{
	static const char *const names[] = { [LOCK_CHANGE_BASE] = "base",
		[LOCK_CHANGE_KERNEL] = "kernel",
		[LOCK_CHANGE_PACKAGE] = "package",
		[LOCK_CHANGE_REMOVAL] = "removal",
		[LOCK_CHANGE_SOURCE] = "source",
		[LOCK_CHANGE_KEYRING] = "keyring",
		[LOCK_CHANGE_TRUST] = "trust" };

	return names[kind];
}

/* Note a change; equal texts are none. */
static int note(struct lock_changes *c, enum lock_change_kind kind, const char *name, const char *was, const char *is)
{
	struct lock_change *grown;

	if (strcmp(was, is) == 0)
		return 0;
	grown = reallocarray(c->items, c->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	c->items = grown;
	grown += c->n++;
	*grown = (struct lock_change){ .kind = kind, .name = strdup(name), .old_text = strdup(was), .new_text = strdup(is) };
	return grown->name && grown->old_text && grown->new_text ? 0 : -ENOMEM;
}

/* A digest's text; "" for none. */
static const char *hex_of(const struct digest *d, char hex[static DIGEST_HEX_SIZE])
{
	hex[0] = '\0';
	return d->algorithm == DIGEST_NONE ? hex : digest_hex(d, hex);
}

static int note_digests(struct lock_changes *c, enum lock_change_kind kind, const char *name, const struct digest *was,
	const struct digest *is)
{
	char a[DIGEST_HEX_SIZE], b[DIGEST_HEX_SIZE];

	return note(c, kind, name, hex_of(was, a), hex_of(is, b));
}

/* A file from a URL: its bytes, and what stands behind them where both are there. */
static int compare_blobs(struct lock_changes *c, enum lock_change_kind kind, const char *name, const struct lock_blob *was,
	const struct lock_blob *is)
{
	int r = note_digests(c, kind, name, &was->sha256, &is->sha256);

	if (r == 0 && was->sha256.algorithm != DIGEST_NONE && is->sha256.algorithm != DIGEST_NONE)
		r = note(c, LOCK_CHANGE_TRUST, name, lock_trust_name(was->trust), lock_trust_name(is->trust));
	return r;
}

/* --- packages --- */

enum { VERSION_TEXT_BYTES = 1024 };

/* A version; with its bytes when `fully`, for two that have the same. */
static const char *version_text(const struct lock_package *p, bool fully, char text[static VERSION_TEXT_BYTES])
{
	char hex[DIGEST_HEX_SIZE];

	text[0] = '\0';
	if (p && fully)
		(void)snprintf(text, VERSION_TEXT_BYTES, "%s (%s, sha256 %s)", p->version, p->arch, digest_hex(&p->sha256, hex));
	else if (p)
		(void)snprintf(text, VERSION_TEXT_BYTES, "%s", p->version);
	return text;
}

static int note_packages(struct lock_changes *c, enum lock_change_kind kind, const struct lock_package *was,
	const struct lock_package *is)
{
	bool fully = was && is && strcmp(was->version, is->version) == 0;
	char a[VERSION_TEXT_BYTES], b[VERSION_TEXT_BYTES];

	return note(c, kind, was ? was->name : is->name, version_text(was, fully, a), version_text(is, fully, b));
}

/* How many packages from `items` on have the name of the first. */
static size_t same_name(const struct lock_package *items, size_t n)
{
	size_t k = 1;

	while (k < n && strcmp(items[k].name, items[0].name) == 0)
		k++;
	return k;
}

/* Compare two sorted lists. Packages of one name are paired in their order: nearly always there is one. */
static int compare_packages(struct lock_changes *c, enum lock_change_kind kind, const struct lock_package *was, size_t n_was,
	const struct lock_package *is, size_t n_is)
{
	size_t x = 0, y = 0;
	int r = 0;

	while (r == 0 && (x < n_was || y < n_is)) {
		int order = x == n_was ? 1 : y == n_is ? -1 : strcmp(was[x].name, is[y].name);
		size_t a = order <= 0 ? same_name(&was[x], n_was - x) : 0, b = order >= 0 ? same_name(&is[y], n_is - y) : 0;

		for (size_t i = 0; r == 0 && (i < a || i < b); i++)
			r = note_packages(c, kind, i < a ? &was[x + i] : NULL, i < b ? &is[y + i] : NULL);
		x += a;
		y += b;
	}
	return r;
}

/* --- the kernel --- */

/* A kernel in words: the package it is from, else its digest. */
static const char *kernel_text(const struct lock_kernel *k, bool digest, char text[static VERSION_TEXT_BYTES])
{
	char hex[DIGEST_HEX_SIZE];

	text[0] = '\0';
	if (k->question.algorithm == DIGEST_NONE)
		return text;
	if (k->n_packages > 0 && !digest)
		(void)snprintf(text, VERSION_TEXT_BYTES, "%s %s", k->packages[0].name, k->packages[0].version);
	else
		(void)snprintf(text, VERSION_TEXT_BYTES, "%s", hex_of(&k->sha256, hex));
	return text;
}

/* The packages of a kernel behind the first, in an order that can be compared. They are lent. */
static struct lock_package *further_packages(const struct lock_kernel *k, size_t *ret_n)
{
	size_t n = k->n_packages > 0 ? k->n_packages - 1 : 0;
	struct lock_package *copy = calloc(n + 1, sizeof(*copy));

	if (copy && n > 0)
		memcpy(copy, k->packages + 1, n * sizeof(*copy));
	if (copy)
		lock_packages_sort(copy, n);
	*ret_n = n;
	return copy;
}

static int compare_kernels(struct lock_changes *c, const struct lock_kernel *was, const struct lock_kernel *is)
{
	size_t n_was, n_is;
	_cleanup_free_ struct lock_package *more_was = further_packages(was, &n_was), *more_is = further_packages(is, &n_is);
	char a[VERSION_TEXT_BYTES], b[VERSION_TEXT_BYTES];
	bool same = strcmp(kernel_text(was, false, a), kernel_text(is, false, b)) == 0;
	int r;

	if (!more_was || !more_is)
		return -ENOMEM;
	r = note(c, LOCK_CHANGE_KERNEL, "kernel", kernel_text(was, same, a), kernel_text(is, same, b));
	if (r == 0)
		r = compare_packages(c, LOCK_CHANGE_KERNEL, more_was, n_was, more_is, n_is);
	if (r == 0 && was->archive.sha256.algorithm != DIGEST_NONE && is->archive.sha256.algorithm != DIGEST_NONE)
		r = note(c, LOCK_CHANGE_TRUST, "kernel", lock_trust_name(was->archive.trust), lock_trust_name(is->archive.trust));
	return r;
}

/* --- lists of names --- */

static int compare_removals(struct lock_changes *c, const struct strv *was, const struct strv *is)
{
	size_t i = 0, k = 0;
	int r = 0;

	while (r == 0 && (i < was->n || k < is->n)) {
		int order = i == was->n ? 1 : k == is->n ? -1 : strcmp(was->items[i], is->items[k]);

		r = order == 0 ? 0 : note(c, LOCK_CHANGE_REMOVAL, order < 0 ? was->items[i] : is->items[k], order < 0 ? "removed" : "",
						order < 0 ? "" : "removed");
		i += order <= 0;
		k += order >= 0;
	}
	return r;
}

static int compare_keyrings(struct lock_changes *c, const struct lock_packages *was, const struct lock_packages *is)
{
	static const struct digest none = { 0 };
	size_t i = 0, k = 0;
	int r = 0;

	while (r == 0 && (i < was->n_keyrings || k < is->n_keyrings)) {
		const struct lock_keyring *a = i < was->n_keyrings ? &was->keyrings[i] : NULL;
		const struct lock_keyring *b = k < is->n_keyrings ? &is->keyrings[k] : NULL;
		int order = !a ? 1 : !b ? -1 : strcmp(a->path, b->path);

		r = note_digests(c, LOCK_CHANGE_KEYRING, order <= 0 ? a->path : b->path, order <= 0 ? &a->sha256 : &none,
			order >= 0 ? &b->sha256 : &none);
		i += order <= 0;
		k += order >= 0;
	}
	return r;
}

static int compare_sources(struct lock_changes *c, const struct lock_arch *was, const struct lock_arch *is)
{
	static const struct lock_blob none = { 0 };
	size_t i = 0, k = 0;
	int r = 0;

	while (r == 0 && (i < was->n_sources || k < is->n_sources)) {
		const struct lock_source *a = i < was->n_sources ? &was->sources[i] : NULL;
		const struct lock_source *b = k < is->n_sources ? &is->sources[k] : NULL;
		int order = !a ? 1 : !b ? -1 : strcmp(a->slot, b->slot);

		r = compare_blobs(c, LOCK_CHANGE_SOURCE, order <= 0 ? a->slot : b->slot, order <= 0 ? &a->blob : &none,
			order >= 0 ? &b->blob : &none);
		i += order <= 0;
		k += order >= 0;
	}
	return r;
}

static int compare_changes(const void *a, const void *b)
{
	const struct lock_change *x = a, *y = b;
	bool x_first = x->kind == LOCK_CHANGE_KERNEL && strcmp(x->name, "kernel") == 0;
	bool y_first = y->kind == LOCK_CHANGE_KERNEL && strcmp(y->name, "kernel") == 0;
	int c;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	/* The kernel itself before what comes with it. */
	if (x_first != y_first)
		return x_first ? -1 : 1;
	c = strcmp(x->name, y->name);
	if (c == 0)
		c = strcmp(x->old_text, y->old_text);
	return c ? c : strcmp(x->new_text, y->new_text);
}

int lock_diff(const struct lock_arch *was, const struct lock_arch *is, struct lock_changes *ret, struct err *e)
{
	int r = compare_blobs(ret, LOCK_CHANGE_BASE, "base", &was->base, &is->base);

	if (r == 0)
		r = compare_kernels(ret, &was->kernel, &is->kernel);
	if (r == 0)
		r = compare_packages(ret, LOCK_CHANGE_PACKAGE, was->packages.items, was->packages.n, is->packages.items, is->packages.n);
	if (r == 0)
		r = compare_removals(ret, &was->packages.removals, &is->packages.removals);
	if (r == 0)
		r = compare_sources(ret, was, is);
	if (r == 0)
		r = compare_keyrings(ret, &was->packages, &is->packages);
	if (r < 0)
		return err_set(e, r, "out of memory");
	if (ret->n > 0)
		qsort(ret->items, ret->n, sizeof(*ret->items), compare_changes);
	return 0;
}
