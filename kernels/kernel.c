#include "kernels/kernel.h"

#include "kernels/archive.h"
#include "kernels/kernel_archive.h"
#include "kernels/kernel_base.h"
#include "kernels/kernel_deb.h"
#include "kernels/modules.h"

#include <fcntl.h>
#include <string.h>

#define FILE_NAME "vmlinuz"

void kernel_release(struct kernel *k)
{
	close_fdp(&k->fd);
	free(k->origin);
	k->origin = NULL;
	module_tree_free(k->modules);
	k->modules = NULL;
}

/* Make the empty file for the kernel; open for reading and writing. */
static int make_file(int work_dirfd, int *ret, struct err *e)
{
	int fd = openat(work_dirfd, FILE_NAME, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot make a file for the kernel");
	*ret = fd;
	return 0;
}

/* Fill in what the file tells; takes k->fd as it is. `named` is the release of the file's name, or "". */
static int identify(struct kernel *k, const char *origin, const char *named, enum arch arch, struct err *e)
{
	int r = kernel_image_read(k->fd, &k->image, e);

	if (r == 0)
		r = kernel_image_require_bootable(&k->image, arch, e);
	if (r == 0)
		r = digest_fd(DIGEST_SHA256, k->fd, UINT64_MAX, &k->sha256, e);
	if (r < 0)
		return origin[0] ? err_wrap(e, "the kernel `%s`", origin) : r;
	k->origin = strdup(origin);
	if (!k->origin)
		return err_set(e, -ENOMEM, "out of memory");
	(void)snprintf(k->release, sizeof(k->release), "%s", k->image.release[0] ? k->image.release : named);
	return 0;
}

/* Take the folder of modules, and the release from it where the image does not tell. */
static int take_modules(struct kernel *k, int dirfd, struct err *e)
{
	int r;

	if (dirfd < 0)
		return 0;
	r = module_tree_open_dir(dirfd, k->release, &k->modules, e);
	if (r < 0)
		return r;
	if (k->release[0] == '\0') {
		r = modules_release(k->modules, k->release, sizeof(k->release), e);
		if (r == -ENOENT)
			err_clear(e);
		else if (r < 0)
			return r;
	}
	return 0;
}

static int finish(int r, struct kernel *k, struct kernel *ret)
{
	if (r < 0)
		return r;
	*ret = *k;
	*k = (struct kernel)KERNEL_INIT;
	return 0;
}

int kernel_open_file(int fd, int modules_dirfd, enum arch arch, struct kernel *ret, struct err *e)
{
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	int r;

	k.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (k.fd < 0)
		return err_set_errno(e, -errno, "cannot keep the kernel's file open");
	r = identify(&k, "", "", arch, e);
	if (r == 0)
		r = take_modules(&k, modules_dirfd, e);
	return finish(r, &k, ret);
}

int kernel_open_archive(int archive_fd, const char *member, int modules_dirfd, enum arch arch, int work_dirfd,
	struct kernel *ret, struct err *e)
{
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_buf_ struct buf name = BUF_INIT(ARCHIVE_NAME_MAX_BYTES);
	int r = make_file(work_dirfd, &k.fd, e);

	if (r == 0)
		r = kernel_archive_extract(archive_fd, member, k.fd, KERNEL_IMAGE_MAX_BYTES, &name, e);
	if (r == 0)
		r = identify(&k, buf_str(&name), "", arch, e);
	if (r == 0)
		r = take_modules(&k, modules_dirfd, e);
	return finish(r, &k, ret);
}

int kernel_open_debs(const int *deb_fds, size_t n, enum arch arch, int work_dirfd, struct kernel *ret, struct err *e)
{
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	_cleanup_close_ int modules_dirfd = -1;
	struct kernel_deb deb;
	int r = kernel_deb_unpack(deb_fds, n, work_dirfd, &deb, e);

	if (r < 0)
		return r;
	k.fd = openat(work_dirfd, KERNEL_DEB_NAME, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (k.fd < 0)
		return err_set_errno(e, -errno, "cannot open the kernel that was unpacked");
	r = identify(&k, "", deb.release, arch, e);
	if (r < 0)
		return err_wrap(e, "the kernel %s of the package", deb.release);
	/* The folder in the image is named after the package's idea of the release, which udev and modprobe compare with the
	 * kernel's own. */
	if (deb.has_modules && strcmp(k.release, deb.release) != 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the package holds modules of %s, its kernel calls itself %s",
			deb.release, k.release);
	if (deb.has_modules) {
		modules_dirfd = openat(work_dirfd, KERNEL_DEB_MODULES, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (modules_dirfd < 0)
			return err_set_errno(e, -errno, "cannot open the modules that were unpacked");
		r = take_modules(&k, modules_dirfd, e);
	}
	return finish(r, &k, ret);
}

/* Modules of the base image: none is fine, for a kernel can have all built in. */
static int take_base_modules(struct kernel *k, struct ext4 *root, struct err *e)
{
	char path[KERNEL_RELEASE_SIZE + sizeof("/lib/modules/")];
	int r;

	if (k->release[0] == '\0')
		return 0;
	(void)snprintf(path, sizeof(path), "/lib/modules/%s", k->release);
	r = module_tree_open_ext4(root, path, &k->modules, e);
	if (r == -ENOENT) {
		err_clear(e);
		return 0;
	}
	k->modules_in_image = r == 0;
	return r;
}

int kernel_open_base(struct ext4 *root, struct ext4 *boot, enum arch arch, int work_dirfd, struct kernel *ret, struct err *e)
{
	_cleanup_kernel_ struct kernel k = KERNEL_INIT;
	struct kernel_base base;
	int r = kernel_base_find(root, boot, &base, e);

	if (r == 0)
		r = make_file(work_dirfd, &k.fd, e);
	if (r == 0)
		r = ext4_copy_file(base.in_boot ? boot : root, base.path, k.fd, KERNEL_IMAGE_MAX_BYTES, NULL, e);
	if (r == 0)
		r = identify(&k, base.path, base.release, arch, e);
	if (r == 0)
		r = take_base_modules(&k, root, e);
	return finish(r, &k, ret);
}
