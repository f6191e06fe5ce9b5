#include "builder/clone.h"
#include "builder/disk/overlay.h"
#include "lib/io.h"
#include "lib/newfile.h"

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
	_cleanup_new_file_ struct new_file file = NEW_FILE_INIT;
	size_t len = strlen(out);
	int r;

	if (image_fd < 0)
		return err_set_kind(e, ERR_KIND_HOST, -errno, "cannot open `%s`: %s; the entry is damaged", image, strerror(errno));
	if (mode == CLONE_AUTO && len > 6 && strcmp(out + len - 6, ".qcow2") == 0)
		mode = CLONE_QCOW2;
	r = new_file_open(out, &file, e);
	if (r < 0)
		return r;
	r = fill_clone(image_fd, image, file.fd, mode, ret_how, e);
	if (r < 0) {
		(void)err_default_kind(e, ERR_KIND_HOST);
		return err_wrap(e, "`%s`", out);
	}
	return new_file_finish(&file, e);
}
