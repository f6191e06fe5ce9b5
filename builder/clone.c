#include "builder/clone.h"
#include "builder/disk/overlay.h"
#include "lib/io.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static int fill_clone(int image_fd, const char *image, int out_fd, enum clone_mode mode, const char **ret_how,
	struct err *e)
{
	bool reflinked = false;
	struct stat st;
	int r;

	if (mode == CLONE_QCOW2) {
		if (fstat(image_fd, &st) < 0)
			return err_set_errno(e, -errno, "cannot stat `%s`", image);
		*ret_how = "qcow2";
		return overlay_write(out_fd, image, (uint64_t)st.st_size, e);
	}
	if (mode == CLONE_REFLINK) {
		*ret_how = "reflink";
		return ioctl(out_fd, FICLONE, image_fd) == 0 ?
			       0 :
			       err_set_kind(e, ERR_KIND_HOST, -EOPNOTSUPP,
				       "this filesystem cannot share blocks between files (or not with the cache): use --as copy "
				       "or --as qcow2");
	}
	r = copy_file_sparse(image_fd, out_fd, &reflinked, e);
	*ret_how = reflinked ? "reflink" : "copy";
	return r;
}

int clone_image(const char *image, const char *out, enum clone_mode mode, const char **ret_how, struct err *e)
{
	_cleanup_close_ int image_fd = open(image, O_RDONLY | O_CLOEXEC);
	_cleanup_close_ int out_fd = -1;
	size_t len = strlen(out);
	int r;

	if (image_fd < 0)
		return err_set_errno(e, -errno, "cannot open `%s`", image);
	if (mode == CLONE_AUTO && len > 6 && strcmp(out + len - 6, ".qcow2") == 0)
		mode = CLONE_QCOW2;
	out_fd = open(out, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (out_fd < 0)
		return err_set_kind(e, errno == EEXIST ? ERR_KIND_USAGE : ERR_KIND_HOST, -errno,
			errno == EEXIST ? "`%s` exists already; choose another name or remove it" : "cannot create `%s`", out);
	r = fill_clone(image_fd, image, out_fd, mode, ret_how, e);
	if (r == 0 && close(take_fd(&out_fd)) < 0)
		r = err_set_errno(e, -errno, "cannot write");
	if (r < 0) {
		(void)unlink(out);
		(void)err_default_kind(e, ERR_KIND_HOST);
		return err_wrap(e, "`%s`", out);
	}
	return 0;
}
