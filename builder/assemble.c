#include "builder/assemble.h"
#include "builder/fstab.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

void assembled_release(struct assembled *a)
{
	close_fdp(&a->fd);
	strv_release(&a->fstab_dropped);
}

/* What the parts of the job share while it is put together. */
struct assembly {
	const struct build_env *env;
	const struct prepared *p;
	struct root *root;
	struct initrd *rd;
	struct job job;
	struct assembled *result;
};

static int begin_step(struct assembly *a, const char *name, const char *title, struct err *e)
{
	return job_add(&a->job, e, "step", name, title, NULL);
}

static int add_boot_module(struct assembly *a, const struct module_file *m, struct err *e)
{
	_cleanup_buf_ struct buf bytes = BUF_INIT(MODULE_MAX_BYTES);
	int r = boot_module_read(m, &bytes, e);

	return r < 0 ? r : initrd_add_module(a->rd, &a->job, m->name, buf_str(&bytes), bytes.len, e);
}

static int add_boot(struct assembly *a, const struct boot_kernel *kernel, struct err *e)
{
	int r = job_add_clock(&a->job, a->result->clock_epoch, e);

	for (size_t i = 0; r == 0 && i < kernel->boot_modules.n; i++)
		r = add_boot_module(a, &kernel->boot_modules.items[i], e);
	if (r == 0)
		r = job_add(&a->job, e, "root", "/dev/vda", "ext4", NULL);
	if (r == 0)
		r = job_add(&a->job, e, "grow", NULL);
	if (r == 0 && a->p->plan->image.label)
		r = job_add(&a->job, e, "label", a->p->plan->image.label, NULL);
	return r;
}

static int add_package_op(struct assembly *a, const struct pkg_op *op, const char (*paths)[INITRD_PATH_SIZE], struct err *e)
{
	static const char *const verbs[] = { [PKG_OP_REMOVE] = "dpkg-remove",
		[PKG_OP_PURGE] = "dpkg-purge",
		[PKG_OP_UNPACK] = "dpkg-unpack",
		[PKG_OP_CONFIGURE] = "dpkg-configure",
		[PKG_OP_CONFIGURE_PENDING] = "dpkg-configure" };
	_cleanup_strv_ struct strv files = { 0 };

	if (op->kind == PKG_OP_CONFIGURE_PENDING)
		return job_add(&a->job, e, verbs[op->kind], NULL);
	if (op->kind != PKG_OP_UNPACK)
		return job_add_list(&a->job, verbs[op->kind], &op->names, e);
	for (size_t i = 0; i < op->n_items; i++)
		if (strv_add(&files, paths[op->items[i]]) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	return job_add_list(&a->job, verbs[op->kind], &files, e);
}

static int add_packages(struct assembly *a, const struct debs *debs, struct err *e)
{
	_cleanup_free_ char(*paths)[INITRD_PATH_SIZE] = calloc(debs->n + 1, sizeof(*paths));
	char title[64];
	int r;

	if (!paths)
		return err_set(e, -ENOMEM, "out of memory");
	if (debs->ops.n == 0)
		return 0;
	(void)snprintf(title, sizeof(title), "installing %zu packages", debs->n);
	r = begin_step(a, "packages", title, e);
	for (size_t i = 0; r == 0 && i < debs->n; i++) {
		const struct deb *deb = &debs->items[i];
		_cleanup_free_ char *name = NULL;

		if (asprintf(&name, "%s_%s.deb", deb->name, deb->arch) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		r = initrd_add_deb(a->rd, name, deb->repacked_fd, paths[i], e);
	}
	for (size_t i = 0; r == 0 && i < debs->ops.n; i++)
		r = add_package_op(a, &debs->ops.ops[i], (const char(*)[INITRD_PATH_SIZE])paths, e);
	return r;
}

/* The kernel's modules with their indexes, so that udev finds drivers whichever kernel is booted with this image's. */
static int add_modules(struct assembly *a, const struct kernel *kernel, struct err *e)
{
	char path[INITRD_PATH_SIZE], destination[256];
	int r;

	if (!kernel->modules || kernel->modules_in_image)
		return 0;
	(void)snprintf(destination, sizeof(destination), "/lib/modules/%s", kernel->release);
	r = begin_step(a, "modules", "installing kernel modules", e);
	if (r == 0)
		r = initrd_add_tree(a->rd, "modules", module_tree_dirfd(kernel->modules), path, e);
	if (r == 0)
		r = job_add(&a->job, e, "tree", destination, path, NULL);
	if (r == 0)
		r = job_add(&a->job, e, "depmod", kernel->release, NULL);
	return r;
}

static int add_users(struct assembly *a, struct err *e)
{
	static const char *const kinds[] = { [PLAN_PASSWORD_LOCKED] = "locked", [PLAN_PASSWORD_EMPTY] = "empty" };
	const struct plan *plan = a->p->plan;
	int r = plan->n_users == 0 ? 0 : begin_step(a, "users", "setting up users", e);

	for (size_t i = 0; r == 0 && i < plan->n_users; i++) {
		const struct plan_user *user = &plan->users[i];
		_cleanup_buf_ struct buf keys = BUF_INIT(1 << 20);
		char path[INITRD_PATH_SIZE];

		if (user->password != PLAN_PASSWORD_UNCHANGED)
			r = job_add(&a->job, e, "password", user->name,
				user->password == PLAN_PASSWORD_HASH ? user->password_hash : kinds[user->password], NULL);
		for (size_t k = 0; r == 0 && k < user->authorized_keys.n; k++)
			if (buf_appendf(&keys, "%s\n", user->authorized_keys.items[k]) < 0)
				r = err_set(e, -E2BIG, "too many authorized keys for `%s`", user->name);
		if (r < 0 || user->authorized_keys.n == 0)
			continue;
		r = initrd_add_bytes(a->rd, user->name, 0644, buf_str(&keys), keys.len, path, e);
		if (r == 0)
			r = job_add(&a->job, e, "authorized-keys", user->name, path, NULL);
	}
	return r;
}

/* Open what a location of [files] or [inputs] names: the local file or folder, or the blob of its URL. */
static int open_location(struct assembly *a, const char *slot, const struct plan_location *location, int *ret_fd,
	struct err *e)
{
	const struct lock_blob *answer = lock_source_find(&a->p->lock, a->p->plan, a->p->arch, slot);
	struct fetch_result result = { 0 };
	struct wanted_file wanted = wanted_location(slot, location, answer);
	int r;

	if (location->path)
		return prepared_open_local(a->p, slot, ret_fd, e);
	r = fetch_one(a->env, &wanted, &result, e);
	if (r < 0)
		return err_wrap(e, "[%s]", slot);
	r = store_open_blob(publisher_store(a->env->publisher), &result.sha256, ret_fd, NULL, e);
	fetch_results_release(&result, 1);
	return r;
}

static int add_file(struct assembly *a, const struct plan_file *file, struct err *e)
{
	const char *destination = file->destination.text;
	_cleanup_free_ char *slot = NULL, *owner = NULL;
	_cleanup_close_ int fd = -1;
	char path[INITRD_PATH_SIZE];
	unsigned mode = file->has_mode ? file->mode : PLAN_DEFAULT_FILE_MODE;
	struct stat st;
	int r;

	if (asprintf(&slot, "files:%s", destination) < 0 || asprintf(&owner, "%s:%s", file->owner, file->group) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (file->kind == PLAN_CONTENT_TEXT) {
		r = initrd_add_bytes(a->rd, destination, 0644, file->text, file->text_len, path, e);
		return r < 0 ? r : job_add_file(&a->job, destination, mode, owner, path, e);
	}
	r = open_location(a, slot, &file->location, &fd, e);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot stat what [%s] names", slot);
	if (S_ISDIR(st.st_mode)) {
		if (file->has_mode || strcmp(owner, "root:root") != 0)
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
				"[%s] is a folder: its files are 0755 where they are executable, else 0644, and belong to root, "
				"so it takes no mode and no owner; change them in the setup script, or name a file alone",
				slot);
		r = initrd_add_tree(a->rd, destination, fd, path, e);
		return r < 0 ? r : job_add(&a->job, e, "tree", destination, path, NULL);
	}
	if (!file->has_mode && file->location.path && st.st_mode & S_IXUSR)
		mode = 0755;
	r = initrd_add_fd(a->rd, destination, 0644, fd, path, e);
	return r < 0 ? r : job_add_file(&a->job, destination, mode, owner, path, e);
}

/* /etc/fstab rewritten, where the base has one and it changes. */
static int add_fstab(struct assembly *a, struct err *e)
{
	_cleanup_buf_ struct buf old = BUF_INIT(FSTAB_MAX_BYTES), new = BUF_INIT(2 * FSTAB_MAX_BYTES);
	const struct plan_fstab *fstab = &a->p->plan->fstab;
	char path[INITRD_PATH_SIZE];
	int r = ext4_read_file(a->root->fs, "/etc/fstab", &old, e);

	if (r == -ENOENT) {
		err_clear(e);
		return 0;
	}
	if (r == 0)
		r = fstab_rewrite(buf_str(&old), old.len, &fstab->remove_patterns, fstab->keep, &new,
			&a->result->fstab_dropped, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	if (old.len == new.len && memcmp(buf_str(&old), buf_str(&new), old.len) == 0)
		return 0;
	for (size_t i = 0; i < a->result->fstab_dropped.n; i++)
		progress_note(a->env->progress, "dropped from /etc/fstab: %s", a->result->fstab_dropped.items[i]);
	r = initrd_add_bytes(a->rd, "fstab", 0644, buf_str(&new), new.len, path, e);
	return r < 0 ? r : job_add_file(&a->job, "/etc/fstab", 0644, "root:root", path, e);
}

static int add_hostname(struct assembly *a, struct err *e)
{
	const char *hostname = a->p->plan->image.hostname;
	_cleanup_free_ char *line = NULL;
	char path[INITRD_PATH_SIZE];
	int r;

	if (!hostname)
		return 0;
	if (asprintf(&line, "%s\n", hostname) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	r = initrd_add_bytes(a->rd, "hostname", 0644, line, strlen(line), path, e);
	return r < 0 ? r : job_add_file(&a->job, "/etc/hostname", 0644, "root:root", path, e);
}

static int add_files(struct assembly *a, struct err *e)
{
	const struct plan *plan = a->p->plan;
	int r = begin_step(a, "files", "writing files", e);

	/* Before the plan's own files: one that is /etc/fstab has the last word. */
	if (r == 0)
		r = add_fstab(a, e);
	for (size_t i = 0; r == 0 && i < plan->n_files; i++)
		r = add_file(a, &plan->files[i], e);
	return r < 0 ? r : add_hostname(a, e);
}

static int add_services(struct assembly *a, struct err *e)
{
	const struct plan_services *services = &a->p->plan->services;
	int r;

	if (services->enable.n + services->disable.n + services->mask.n == 0)
		return 0;
	r = begin_step(a, "services", "enabling and disabling services", e);
	if (r == 0 && services->disable.n > 0)
		r = job_add_list(&a->job, "disable", &services->disable, e);
	if (r == 0 && services->mask.n > 0)
		r = job_add_list(&a->job, "mask", &services->mask, e);
	if (r == 0 && services->enable.n > 0)
		r = job_add_list(&a->job, "enable", &services->enable, e);
	return r;
}

static int add_setup(struct assembly *a, struct err *e)
{
	const struct plan *plan = a->p->plan;
	_cleanup_close_ int fd = -1;
	char path[INITRD_PATH_SIZE];
	int r = 0;

	for (size_t i = 0; r == 0 && i < plan->n_inputs; i++) {
		_cleanup_close_ int input_fd = -1;
		_cleanup_free_ char *slot = NULL;

		if (asprintf(&slot, "inputs:%s", plan->inputs[i].name) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		r = open_location(a, slot, &plan->inputs[i].location, &input_fd, e);
		if (r == 0)
			r = initrd_add_input(a->rd, plan->inputs[i].name, input_fd, e);
	}
	if (r < 0 || (!plan->setup.script && !plan->setup.file))
		return r;
	r = begin_step(a, "setup", "running the setup script", e);
	if (r == 0 && plan->setup.file)
		r = prepared_open_local(a->p, "setup", &fd, e);
	if (r < 0)
		return r;
	r = fd >= 0 ? initrd_add_fd(a->rd, "setup", 0755, fd, path, e) :
		      initrd_add_bytes(a->rd, "setup", 0755, plan->setup.script, plan->setup.script_len, path, e);
	return r < 0 ? r : job_add(&a->job, e, "run", path, NULL);
}

static int add_cleanup(struct assembly *a, struct err *e)
{
	const struct strv *patterns = &a->p->plan->cleanup;
	int r = begin_step(a, "cleanup", "cleaning up", e);

	for (size_t i = 0; r == 0 && i < patterns->n; i++)
		r = job_add(&a->job, e, "remove", patterns->items[i], NULL);
	return r < 0 ? r : job_add(&a->job, e, "forget-identity", NULL);
}

int assemble(const struct build_env *env, const struct prepared *p, struct root *root, const struct boot_kernel *kernel,
	const struct debs *debs, struct assembled *ret, struct err *e)
{
	_cleanup_assembled_ struct assembled result = ASSEMBLED_INIT;
	_cleanup_(initrd_freep) struct initrd *rd = NULL;
	struct assembly a = { .env = env, .p = p, .root = root, .result = &result };
	int r = publish_scratch_file(env->publisher, &result.fd, e);

	result.clock_epoch = ASSEMBLE_CLOCK_EPOCH;
	if (r == 0)
		r = initrd_new(result.fd, p->arch, &rd, e);
	if (r < 0)
		return r;
	a.rd = rd;
	job_init(&a.job);
	r = add_boot(&a, kernel, e);
	if (r == 0)
		r = add_packages(&a, debs, e);
	if (r == 0)
		r = add_modules(&a, &kernel->kernel, e);
	if (r == 0)
		r = add_users(&a, e);
	if (r == 0)
		r = add_files(&a, e);
	if (r == 0)
		r = add_services(&a, e);
	if (r == 0)
		r = add_setup(&a, e);
	if (r == 0)
		r = add_cleanup(&a, e);
	if (r == 0)
		r = initrd_finish(rd, &a.job, &result.size, e);
	job_release(&a.job);
	if (r < 0)
		return r;
	*ret = result;
	result = (struct assembled)ASSEMBLED_INIT;
	return 0;
}
