/* Any bytes are a kernel or an error, whichever format they pretend to be. */
#include "kernels/kernel_image.h"
#include "lib/io.h"

#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_close_ int fd = memfd_create("kernel", MFD_CLOEXEC);
	struct kernel_image image;
	struct err e = ERR_INIT;
	int r;

	if (fd < 0 || pwrite_full(fd, data, size, 0) < 0)
		return 0;
	r = kernel_image_read(fd, &image, &e);
	if (r < 0) {
		if (r != e.code || e.message[0] == '\0')
			abort();
		return 0;
	}
	if (image.release[0] && !kernel_release_is_valid(image.release, strnlen(image.release, KERNEL_RELEASE_SIZE)))
		abort();
	if (kernel_image_require_bootable(&image, ARCH_AMD64, &e) == 0 && image.arch != ARCH_AMD64)
		abort();
	return 0;
}
