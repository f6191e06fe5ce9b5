#include "builder/debs.h"
#include "builder/fetch_list.h"
#include "builder/packages/deb.h"
#include "builder/packages/deb822.h"
#include "lib/pool.h"

#include <fcntl.h>
#include <string.h>

enum { DPKG_STATUS_MAX_BYTES = 64 << 20 };

void debs_release(struct debs *debs)
{
	for (size_t i = 0; i < debs->n; i++) {
		struct deb *deb = &debs->items[i];

		close_fdp(&deb->fd);
		close_fdp(&deb->repacked_fd);
		buf_release(&deb->control);
		free(deb->name);
		free(deb->version);
		free(deb->arch);
	}
	free(debs->items);
	pkg_ops_release(&debs->ops);
	*debs = (struct debs){ 0 };
}

int debs_fetch(const struct build_env *env, const struct prepared *p, const struct lock_package *packages, size_t n,
	struct err *e)
{
	_cleanup_fetch_list_ struct fetch_list list = { 0 };
	int r = fetch_list_add_packages(&list, env, p, packages, n, e);

	return r < 0 ? r : fetch_list_run(&list, env, e);
}

static int read_identity(struct deb *deb, struct err *e)
{
	_cleanup_free_ struct deb822_stanza *stanza = malloc(sizeof(*stanza));
	struct deb822_reader reader;
	int r;

	if (!stanza)
		return err_set(e, -ENOMEM, "out of memory");
	deb822_reader_init(&reader, buf_str(&deb->control), deb->control.len, "control");
	r = deb822_next(&reader, stanza, e);
	if (r < 0)
		return r;
	if (r == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "its control file is empty");
	deb->name = deb822_dup(deb822_get(stanza, "Package"));
	deb->version = deb822_dup(deb822_get(stanza, "Version"));
	deb->arch = deb822_dup(deb822_get(stanza, "Architecture"));
	if (!deb->name || !deb->version || !deb->arch)
		return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

/* Open the file and read its control data, which must be what was promised (each may be NULL). */
static int open_deb(struct deb *deb, const struct lock_package *promised, struct err *e)
{
	int r;

	buf_init(&deb->control, DEB_CONTROL_MAX_BYTES);
	r = deb_read_control(deb->fd, &deb->control, e);
	if (r == 0)
		r = deb_check_control(buf_str(&deb->control), deb->control.len, promised ? promised->name : NULL,
			promised ? promised->version : NULL, promised ? promised->arch : NULL, e);
	return r < 0 ? r : read_identity(deb, e);
}

static int open_locked_deb(const struct build_env *env, const struct lock_package *package, struct deb *deb, struct err *e)
{
	int r = store_open_blob(publisher_store(env->publisher), &package->sha256, &deb->fd, NULL, e);

	deb->sha256 = package->sha256;
	if (r == 0)
		r = open_deb(deb, package, e);
	return r < 0 ? err_wrap(e, "package %s %s", package->name, package->version) : 0;
}

static int open_local_deb(const struct prepared *p, const char *path, struct deb *deb, struct err *e)
{
	_cleanup_free_ char *slot = NULL;
	struct digest found;
	int r;

	if (asprintf(&slot, "deb:%s", path) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	r = prepared_open_local(p, slot, &deb->fd, e);
	if (r < 0)
		return r;
	deb->sha256 = plan_local_input_find(&p->locals, slot)->digest;
	r = digest_fd(DIGEST_SHA256, deb->fd, UINT64_MAX, &found, e);
	if (r == 0 && !digest_equal(&found, &deb->sha256))
		r = err_set_kind(e, ERR_KIND_INPUT, -EBUSY, "it was changed meanwhile; run again");
	if (r == 0)
		r = open_deb(deb, NULL, e);
	return r < 0 ? err_wrap(e, "`%s`", path) : 0;
}

/* What dpkg is told: the order follows from the base's status and the control texts alone. */
static int order_debs(const struct prepared *p, struct root *root, struct debs *debs, struct err *e)
{
	const struct lock_packages *locked = &p->lock.arch[p->arch].packages;
	_cleanup_free_ struct pkg_order_item *items = calloc(debs->n + 1, sizeof(*items));
	_cleanup_free_ struct pkg_order_removal *removals = calloc(locked->removals.n + 1, sizeof(*removals));
	_cleanup_buf_ struct buf status = BUF_INIT(DPKG_STATUS_MAX_BYTES);
	int r;

	if (!items || !removals)
		return err_set(e, -ENOMEM, "out of memory");
	r = ext4_read_file(root->fs, "/var/lib/dpkg/status", &status, e);
	if (r == -ENOENT)
		return err_set_kind(e, ERR_KIND_USAGE, r,
			"the base image has no /var/lib/dpkg/status, so packages cannot be installed into it; use files and "
			"a setup script");
	if (r < 0)
		return r;
	for (size_t i = 0; i < debs->n; i++)
		items[i] = (struct pkg_order_item){ .name = debs->items[i].name,
			.control = buf_str(&debs->items[i].control),
			.control_len = debs->items[i].control.len };
	for (size_t i = 0; i < locked->removals.n; i++)
		removals[i] = (struct pkg_order_removal){ .name = locked->removals.items[i],
			.purge = strv_contains(&p->plan->apt.remove, locked->removals.items[i]) };
	return pkg_order(arch_name(p->arch), buf_str(&status), status.len, items, debs->n, removals, locked->removals.n,
		&debs->ops, e);
}

int debs_get(const struct build_env *env, const struct prepared *p, struct root *root, struct debs *ret, struct err *e)
{
	const struct lock_packages *locked = &p->lock.arch[p->arch].packages;
	_cleanup_debs_ struct debs debs = { 0 };
	_cleanup_strv_ struct strv local = { 0 };
	int r;

	if (!lock_needs_packages(p->plan, p->arch)) {
		*ret = debs;
		return 0;
	}
	if (plan_debs(p->plan, p->arch, &local) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	r = debs_fetch(env, p, locked->items, locked->n, e);
	if (r < 0)
		return r;
	debs.items = calloc(locked->n + local.n + 1, sizeof(*debs.items));
	if (!debs.items)
		return err_set(e, -ENOMEM, "out of memory");
	debs.n = locked->n + local.n;
	for (size_t i = 0; i < debs.n; i++)
		debs.items[i] = (struct deb){ .fd = -1, .repacked_fd = -1 };
	for (size_t i = 0; r == 0 && i < locked->n; i++)
		r = open_locked_deb(env, &locked->items[i], &debs.items[i], e);
	for (size_t i = 0; r == 0 && i < local.n; i++)
		r = open_local_deb(p, local.items[i], &debs.items[locked->n + i], e);
	if (r == 0 && (debs.n > 0 || locked->removals.n > 0))
		r = order_debs(p, root, &debs, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	*ret = debs;
	debs = (struct debs){ 0 };
	return 0;
}

static int repack_one(void *ctx, size_t i, struct err *e)
{
	struct deb *deb = &((struct debs *)ctx)->items[i];
	int r = deb_repack_uncompressed(deb->fd, deb->repacked_fd, NULL, e);

	close_fdp(&deb->fd);
	return r < 0 ? err_wrap(e, "unpacking package %s %s", deb->name, deb->version) : 0;
}

int debs_repack(const struct build_env *env, struct debs *debs, struct err *e)
{
	for (size_t i = 0; i < debs->n; i++) {
		int r = publish_scratch_file(env->publisher, &debs->items[i].repacked_fd, e);

		if (r < 0)
			return r;
	}
	return pool_run(0, debs->n, repack_one, debs, e);
}
