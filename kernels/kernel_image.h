/* Tell kernel images apart by their content, and say whether QEMU's -kernel can boot one.
 *
 * kernel_image_read() identifies; kernel_image_require_bootable() refuses, by name and with advice, what cannot be
 * booted: a vmlinux without the PVH note (QEMU has no other way into a bare ELF kernel, and wrapping it in a boot
 * loader of ours would boot something else than was given), a vmlinux for arm64, an EFI zboot image, a 32-bit kernel,
 * a kernel for another architecture.
 *
 * The descriptor is lent and read with pread. Nothing is kept. Errors: -EBADMSG truncated or self-contradicting;
 * -ENOEXEC no kernel (what it is instead is named where known) or one that cannot be booted; -E2BIG over the limit;
 * kind ERR_KIND_INPUT. SOURCE: Linux Documentation/arch/x86/boot.rst (2.15), arch/x86/pvh,
 * Documentation/arm64/booting.rst, drivers/firmware/efi/libstub/zboot-header.S; ELF-64 Object File Format 1.5. */
#ifndef IMGBUILD_KERNELS_KERNEL_IMAGE_H
#define IMGBUILD_KERNELS_KERNEL_IMAGE_H

#include "lib/arch.h"
#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNEL_IMAGE_MAX_BYTES (UINT64_C(2) << 30) /* a vmlinux with debug information is about 1 GiB */
#define KERNEL_RELEASE_SIZE 65			   /* as utsname's, with the NUL */

enum kernel_format {
	KERNEL_BZIMAGE,	      /* x86 boot protocol */
	KERNEL_ELF_PVH,	      /* vmlinux with XEN_ELFNOTE_PHYS32_ENTRY */
	KERNEL_ELF,	      /* vmlinux without */
	KERNEL_ARM64_IMAGE,   /* flat Image */
	KERNEL_ARM64_IMAGE_GZ, /* the same, gzip'ed: QEMU unpacks it */
	KERNEL_EFI_ZBOOT      /* a compressed kernel behind an EFI application */
};

struct kernel_image {
	enum kernel_format format;
	enum arch arch;
	uint64_t size_bytes;		   /* of the file */
	char release[KERNEL_RELEASE_SIZE]; /* "6.1.0-41-cloud-amd64"; "" when the image does not tell */
};

/* "bzimage", "elf-pvh", "elf", "arm64-image", "arm64-image-gz", "efi-zboot": for manifests. */
const char *kernel_format_name(enum kernel_format format);

/* Whether len bytes can be a kernel's release: 1 to 64 letters, digits and `. _ + ~ -`, a digit first. It becomes the name of a
 * folder and an argument, so nothing else is one. */
bool kernel_release_is_valid(const char *text, size_t len);

/* Identify the kernel in the regular file fd (lent, pread only). Returns 0 or the errors above. */
int kernel_image_read(int fd, struct kernel_image *ret, struct err *e) _must_check_;

/* Refuse what QEMU cannot boot as a guest of `arch` with -kernel. Returns 0 or -ENOEXEC. */
int kernel_image_require_bootable(const struct kernel_image *image, enum arch arch, struct err *e) _must_check_;

#endif
