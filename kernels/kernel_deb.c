#include "kernels/kernel_deb.h"

#include "kernels/archive.h"
#include "kernels/kernel_image.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

struct unpacking {
	int work_dirfd;	 /* lent */
	int modules_dirfd; /* owned; -1 before the first file */
	bool has_kernel;
	struct kernel_deb out;
	char modules_release[65]; /* "" before the first file */
};

/* The part after `prefix`, with an optional usr/ before it; NULL when the name does not begin so. */
static const char *after(const char *name, const char *prefix)
{
	size_t len = strlen(prefix);

	if (strncmp(name, "usr/", 4) == 0)
		name += 4;
	return strncmp(name, prefix, len) == 0 ? name + len : NULL;
}

/* Copy a release of len bytes; false when it cannot be one. */
static bool take_release(const char *text, size_t len, char dst[static 65])
{
	if (!kernel_release_is_valid(text, len))
		return false;
	memcpy(dst, text, len);
	dst[len] = '\0';
	return true;
}

/* The release in the name of a kernel: boot/vmlinuz-R, or lib/modules/R/vmlinuz, with or without usr/. */
static bool is_kernel(const struct member *m, char release[static 65])
{
	const char *rest = after(m->name, "boot/vmlinuz-"), *slash;

	if (m->type != MEMBER_FILE)
		return false;
	if (rest && !strchr(rest, '/'))
		return take_release(rest, strlen(rest), release);
	rest = after(m->name, "boot/vmlinux-"); /* some architectures; also Kata's packages */
	if (rest && !strchr(rest, '/'))
		return take_release(rest, strlen(rest), release);
	rest = after(m->name, "lib/modules/");
	slash = rest ? strchr(rest, '/') : NULL;
	return slash && strcmp(slash, "/vmlinuz") == 0 && take_release(rest, (size_t)(slash - rest), release);
}

static int unpack_kernel(struct unpacking *u, const struct member *m, const char *release, struct err *e)
{
	_cleanup_close_ int fd = -1;

	if (u->has_kernel) {
		if (strcmp(u->out.release, release) == 0)
			return 0; /* the same one in a second place */
		return err_set_kind(e, ERR_KIND_INPUT, -ENOTUNIQ, "the packages hold kernels of two releases: %s and %s",
			u->out.release, release);
	}
	fd = openat(u->work_dirfd, KERNEL_DEB_NAME, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_set_errno(e, -errno, "cannot make a file for the kernel");
	memcpy(u->out.release, release, sizeof(u->out.release));
	u->has_kernel = true;
	return member_copy(m, fd, KERNEL_IMAGE_MAX_BYTES, e);
}

/* Open the folder that `path` (clean: no `..`, no doubled slashes) lies in, making what is missing; *ret_base gets its last
 * part. Nothing in the tree is a link, since only files and folders are ever made there. */
static int open_parent(int top_fd, const char *path, int *ret_fd, const char **ret_base, struct err *e)
{
	_cleanup_close_ int at = openat(top_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *slash;

	if (at < 0)
		return err_set_errno(e, -errno, "cannot open the folder for modules");
	while ((slash = strchr(path, '/'))) {
		char part[256];
		int next;

		if ((size_t)(slash - path) >= sizeof(part))
			return err_set_kind(e, ERR_KIND_INPUT, -ENAMETOOLONG, "a name of a folder of modules is too long");
		memcpy(part, path, (size_t)(slash - path));
		part[slash - path] = '\0';
		if (mkdirat(at, part, 0755) < 0 && errno != EEXIST)
			return err_set_errno(e, -errno, "cannot make the folder `%s` for modules", part);
		next = openat(at, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			return err_set_errno(e, -errno, "cannot open the folder `%s` for modules", part);
		(void)close(at);
		at = next;
		path = slash + 1;
	}
	*ret_fd = take_fd(&at);
	*ret_base = path;
	return 0;
}

static int open_modules(struct unpacking *u, const char *release, struct err *e)
{
	memcpy(u->modules_release, release, sizeof(u->modules_release));
	if (mkdirat(u->work_dirfd, KERNEL_DEB_MODULES, 0755) < 0)
		return err_set_errno(e, -errno, "cannot make a folder for the modules");
	u->modules_dirfd = openat(u->work_dirfd, KERNEL_DEB_MODULES, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return u->modules_dirfd < 0 ? err_set_errno(e, -errno, "cannot open the folder for the modules") : 0;
}

static int unpack_module(struct unpacking *u, const struct member *m, const char *path, struct err *e)
{
	_cleanup_close_ int dir = -1, fd = -1;
	const char *base = NULL;
	int r;

	if (u->out.n_files >= KERNEL_DEB_MODULES_MAX ||
		m->size_bytes > KERNEL_DEB_MODULES_MAX_BYTES - u->out.modules_bytes)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the modules are more than %d files or %" PRIu64 " bytes",
			KERNEL_DEB_MODULES_MAX, KERNEL_DEB_MODULES_MAX_BYTES);
	r = open_parent(u->modules_dirfd, path, &dir, &base, e);
	if (r < 0)
		return r;
	fd = openat(dir, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 && errno == EEXIST)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the module `%s` is there twice", path);
	if (fd < 0)
		return err_set_errno(e, -errno, "cannot make a file for the module `%s`", path);
	r = member_copy(m, fd, KERNEL_DEB_MODULES_MAX_BYTES, e);
	if (r < 0)
		return r;
	/* The modules go into an image: whatever the umask, the bits are these. */
	if (fchmod(fd, 0644) < 0)
		return err_set_errno(e, -errno, "cannot set the mode of the module `%s`", path);
	u->out.n_files++;
	u->out.modules_bytes += m->size_bytes;
	u->out.has_modules = true;
	return 0;
}

static int visit(void *ctx, const struct member *m, struct err *e)
{
	struct unpacking *u = ctx;
	const char *rest, *slash;
	char release[65];
	int r;

	if (is_kernel(m, release))
		return unpack_kernel(u, m, release, e);
	rest = after(m->name, "lib/modules/");
	slash = rest ? strchr(rest, '/') : NULL;
	if (!slash || slash[1] == '\0' || m->type != MEMBER_FILE || !take_release(rest, (size_t)(slash - rest), release))
		return 0;
	if (u->modules_dirfd >= 0 && strcmp(u->modules_release, release) != 0)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOTUNIQ, "the packages hold modules of two releases: %s and %s",
			u->modules_release, release);
	r = u->modules_dirfd < 0 ? open_modules(u, release, e) : 0;
	return r < 0 ? r : unpack_module(u, m, slash + 1, e);
}

int kernel_deb_unpack(const int *deb_fds, size_t n, int work_dirfd, struct kernel_deb *ret, struct err *e)
{
	_cleanup_close_ int modules_dirfd = -1;
	struct unpacking u = { .work_dirfd = work_dirfd, .modules_dirfd = -1 };
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = archive_walk_deb(deb_fds[i], visit, &u, NULL, e);
	modules_dirfd = u.modules_dirfd; /* closed when this scope ends */
	if (r < 0)
		return err_wrap(e, "unpacking the kernel's packages");
	if (!u.has_kernel)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "the package holds no kernel (no /boot/vmlinuz-…): a meta package, "
			"whose Depends lead to the kernel's own");
	if (u.out.has_modules && strcmp(u.modules_release, u.out.release) != 0)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOTUNIQ, "the packages hold kernel %s but modules of %s", u.out.release,
			u.modules_release);
	*ret = u.out;
	return 0;
}
