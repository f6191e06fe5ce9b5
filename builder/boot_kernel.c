#include "builder/boot_kernel.h"
#include "builder/debs.h"
#include "lib/io.h"

#include <fcntl.h>

enum { KERNEL_PACKAGES_MAX = 16 };

void boot_kernel_release(struct boot_kernel *k)
{
	free(k->archive.resolved_url);
	module_plan_release(&k->boot_modules);
	kernel_release(&k->kernel);
	*k = (struct boot_kernel)BOOT_KERNEL_INIT;
}

int boot_module_read(const struct module_file *m, struct buf *into, struct err *e)
{
	ssize_t n;
	int r;

	if (m->size_bytes > MODULE_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the kernel module %s is too large", m->name);
	r = buf_reserve(into, (size_t)m->size_bytes);
	if (r < 0)
		return err_set_errno(e, r, "cannot hold the kernel module %s", m->name);
	n = pread_full(m->fd, into->data + into->len, (size_t)m->size_bytes, 0);
	if (n != (ssize_t)m->size_bytes)
		return err_set_errno(e, n < 0 ? (int)n : -EIO, "cannot read the kernel module %s", m->name);
	into->len += (size_t)n;
	into->data[into->len] = '\0';
	return 0;
}

/* Open the file behind a location: the local one, or the blob of its URL, which is fetched. */
static int open_file(const struct build_env *env, const struct prepared *p, const char *slot,
	const struct lock_kernel *pinned, int *ret_fd, struct lock_blob *ret_blob, struct err *e)
{
	const struct plan_location *location = &p->plan->kernel[p->arch].location;
	struct wanted_file wanted = wanted_location("kernel", location, &pinned->archive);
	struct fetch_result result = { 0 };
	int r;

	if (location->path)
		return prepared_open_local(p, slot, ret_fd, e);
	r = fetch_one(env, &wanted, &result, e);
	if (r < 0)
		return r;
	*ret_blob = (struct lock_blob){ .url = location->url,
		.resolved_url = take_ptr(result.url),
		.size_bytes = result.size_bytes,
		.sha256 = result.sha256,
		.sha512 = result.sha512,
		.trust = location->sha256.algorithm != DIGEST_NONE || location->sha512.algorithm != DIGEST_NONE ?
				 LOCK_TRUST_PLAN :
				 LOCK_TRUST_FIRST_USE };
	r = store_open_blob(publisher_store(env->publisher), &result.sha256, ret_fd, NULL, e);
	fetch_results_release(&result, 1);
	return r;
}

/* A kernel that is a file, or a member of one; the modules beside it are local. */
static int get_from_file(const struct build_env *env, const struct prepared *p, const struct lock_kernel *pinned,
	const struct temp_folder *folder, struct boot_kernel *ret, struct err *e)
{
	const struct plan_kernel *kernel = &p->plan->kernel[p->arch];
	bool archive = kernel->kind == PLAN_KERNEL_ARCHIVE;
	_cleanup_close_ int fd = -1, modules_dirfd = -1;
	int r = open_file(env, p, archive ? "kernel-archive" : "kernel", pinned, &fd, &ret->archive, e);

	if (r == 0 && kernel->modules)
		r = prepared_open_local(p, "modules", &modules_dirfd, e);
	if (r < 0)
		return r;
	if (archive)
		return kernel_open_archive(fd, kernel->member, modules_dirfd, p->arch, folder->fd, &ret->kernel, e);
	return kernel_open_file(fd, modules_dirfd, p->arch, &ret->kernel, e);
}

static int get_from_packages(const struct build_env *env, const struct prepared *p, const struct lock_kernel *pinned,
	const struct temp_folder *folder, struct boot_kernel *ret, struct err *e)
{
	int fds[KERNEL_PACKAGES_MAX];
	size_t n = 0;
	int r;

	if (pinned->n_packages > KERNEL_PACKAGES_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the kernel comes in %zu packages, at most %d are taken",
			pinned->n_packages, KERNEL_PACKAGES_MAX);
	r = debs_fetch(env, p, pinned->packages, pinned->n_packages, e);
	for (; r == 0 && n < pinned->n_packages; n += r == 0)
		r = store_open_blob(publisher_store(env->publisher), &pinned->packages[n].sha256, &fds[n], NULL, e);
	if (r == 0)
		r = kernel_open_debs(fds, n, p->arch, folder->fd, &ret->kernel, e);
	while (n > 0)
		close_fdp(&fds[--n]);
	return r;
}

static int get_kernel(const struct build_env *env, const struct prepared *p, const struct root *root,
	const struct lock_kernel *pinned, const struct temp_folder *folder, struct boot_kernel *ret, struct err *e)
{
	switch (p->plan->kernel[p->arch].kind) {
	case PLAN_KERNEL_FROM_BASE:
		return kernel_open_base(root->fs, root->boot_fs, p->arch, folder->fd, &ret->kernel, e);
	case PLAN_KERNEL_PACKAGE:
		return get_from_packages(env, p, pinned, folder, ret, e);
	case PLAN_KERNEL_ARCHIVE:
	case PLAN_KERNEL_FILE:
		break;
	}
	return get_from_file(env, p, pinned, folder, ret, e);
}

int boot_kernel_get(const struct build_env *env, const struct prepared *p, const struct root *root,
	const struct lock_kernel *pinned, const struct temp_folder *folder, struct boot_kernel *ret, struct err *e)
{
	_cleanup_boot_kernel_ struct boot_kernel k = BOOT_KERNEL_INIT;
	char found[DIGEST_HEX_SIZE], expected[DIGEST_HEX_SIZE];
	int r = get_kernel(env, p, root, pinned, folder, &k, e);

	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	if (pinned->sha256.algorithm != DIGEST_NONE && !digest_equal(&pinned->sha256, &k.kernel.sha256))
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"the kernel has the SHA-256 %s, but the lock says %s; if the new one is meant, remove the kernel's "
			"section from `%s` and run again",
			digest_hex(&k.kernel.sha256, found), digest_hex(&pinned->sha256, expected), p->lock_path);
	if (k.kernel.modules)
		r = modules_plan(k.kernel.modules, k.kernel.release, modules_for_boot, &k.boot_modules, e);
	if (r < 0)
		return err_wrap(e, "the kernel's modules");
	*ret = k;
	k = (struct boot_kernel)BOOT_KERNEL_INIT;
	return 0;
}
