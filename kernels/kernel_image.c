#include "kernels/kernel_image.h"

#include "lib/io.h"
#include "lib/num.h"

#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

/* The x86 setup header. SOURCE: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". */
enum {
	X86_SETUP_SECTS = 0x1F1,
	X86_SYSSIZE = 0x1F4, /* in 16 bytes */
	X86_BOOT_FLAG = 0x1FE,
	X86_HEADER_MAGIC = 0x202,
	X86_VERSION = 0x206,
	X86_KERNEL_VERSION = 0x20E, /* offset of the text, less 0x200 */
	X86_LOADFLAGS = 0x211,
	X86_XLOADFLAGS = 0x236, /* from 2.12 on */
	X86_HEADER_END = 0x268,
	X86_BOOT_FLAG_VALUE = 0xAA55,
	X86_LOADED_HIGH = 1,
	X86_XLF_KERNEL_64 = 1
};

/* The arm64 Image header. SOURCE: Documentation/arm64/booting.rst. */
enum { ARM64_MAGIC = 56, ARM64_HEADER_END = 64 };
#define ARM64_MAGIC_VALUE UINT32_C(0x644D5241) /* "ARM\x64" */

/* EFI zboot. SOURCE: drivers/firmware/efi/libstub/zboot-header.S. */
enum { ZBOOT_MAGIC = 4, ZBOOT_COMPRESSION = 0x18 };

/* ELF-64. SOURCE: ELF-64 Object File Format 1.5, figures 2, 6. */
enum {
	ELF_CLASS = 4,
	ELF_DATA = 5,
	ELF_MACHINE = 18,
	ELF_PHOFF = 32,
	ELF_PHENTSIZE = 54,
	ELF_PHNUM = 56,
	ELF_HEADER_END = 64,
	PH_TYPE = 0,
	PH_OFFSET = 8,
	PH_FILESZ = 32,
	PH_SIZE = 56,
	PT_NOTE_VALUE = 4,
	NOTE_HEADER_SIZE = 12,
	EM_X86_64_VALUE = 62,
	EM_AARCH64_VALUE = 183,
	NOTE_XEN_PHYS32_ENTRY = 18 /* include/xen/interface/elfnote.h */
};

#define PROGRAM_HEADERS_MAX 128
#define NOTES_MAX_BYTES (1u << 20)
#define SCAN_CHUNK_BYTES (1u << 20)
#define BANNER "Linux version "

static int not_a_kernel(struct err *e, const char *what)
{
	return err_set_kind(e, ERR_KIND_INPUT, -ENOEXEC,
		"this is no Linux kernel but %s; expected a bzImage, a vmlinux or an arm64 Image", what);
}

/* Read len bytes; short files are an error that names the part. */
static int read_part(int fd, void *buf, size_t len, uint64_t offset, const char *what, struct err *e)
{
	ssize_t n = pread_full(fd, buf, len, offset);

	if (n < 0)
		return err_set_errno(e, (int)n, "cannot read %s", what);
	if ((size_t)n < len)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"the kernel is truncated: %s needs %zu bytes at offset %" PRIu64 ", %zd are there", what, len, offset, n);
	return 0;
}

static bool is_release_char(char c)
{
	return isalnum((unsigned char)c) || strchr("._+~-", c);
}

bool kernel_release_is_valid(const char *text, size_t len)
{
	if (len == 0 || len >= KERNEL_RELEASE_SIZE || !isdigit((unsigned char)text[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (text[i] == '\0' || !is_release_char(text[i]))
			return false;
	return true;
}

/* Take a release from the beginning of text, where it ends with a space, a line or the text. False: there is none. */
static bool take_release(const char *text, size_t len, char ret[static KERNEL_RELEASE_SIZE])
{
	size_t n = 0;

	while (n < len && text[n] != '\0' && is_release_char(text[n]))
		n++;
	if (!kernel_release_is_valid(text, n))
		return false;
	if (n < len && text[n] != ' ' && text[n] != '\0' && text[n] != '\n')
		return false;
	memcpy(ret, text, n);
	ret[n] = '\0';
	return true;
}

/* Look for the banner in a piece of the kernel. linux_proc_banner is "%s version %s (…", so that a match that is
 * followed by a digit is the real one. One so near the end of the piece that its release may go on is left for the
 * next piece, unless this is the last. */
static bool find_release(const uint8_t *data, size_t len, bool last, char ret[static KERNEL_RELEASE_SIZE])
{
	const size_t banner_len = sizeof(BANNER) - 1;
	const uint8_t *at = data;

	while ((at = memmem(at, len - (size_t)(at - data), BANNER, banner_len))) {
		at += banner_len;
		if (!last && len - (size_t)(at - data) < KERNEL_RELEASE_SIZE)
			return false;
		if (take_release((const char *)at, len - (size_t)(at - data), ret))
			return true;
	}
	return false;
}

/* What both kinds of reading have in common: n more bytes of the kernel at buf; 0 at the end. */
typedef ssize_t (*more_fn)(void *ctx, uint8_t *buf, size_t len);

/* Scan for the release, at most KERNEL_IMAGE_MAX_BYTES. Pieces overlap, so that a banner across two of them counts. */
static int scan_release(more_fn more, void *ctx, char ret[static KERNEL_RELEASE_SIZE], struct err *e)
{
	const size_t overlap = sizeof(BANNER) + KERNEL_RELEASE_SIZE;
	_cleanup_free_ uint8_t *chunk = malloc(overlap + SCAN_CHUNK_BYTES);
	size_t kept = 0;

	if (!chunk)
		return err_set(e, -ENOMEM, "out of memory");
	ret[0] = '\0';
	for (uint64_t total = 0; total < KERNEL_IMAGE_MAX_BYTES;) {
		ssize_t n = more(ctx, chunk + kept, SCAN_CHUNK_BYTES);
		size_t have;

		if (n < 0)
			return err_set_kind(e, ERR_KIND_INPUT, (int)n, "cannot read the kernel to look for its release");
		total += (uint64_t)n;
		have = kept + (size_t)n;
		if (find_release(chunk, have, n == 0, ret) || n == 0)
			break;
		kept = have < overlap ? have : overlap;
		memmove(chunk, chunk + have - kept, kept);
	}
	return 0;
}

struct fd_reader {
	int fd;
	uint64_t offset;
};

static ssize_t fd_more(void *ctx, uint8_t *buf, size_t len)
{
	struct fd_reader *r = ctx;
	ssize_t n = pread_full(r->fd, buf, len, r->offset);

	if (n > 0)
		r->offset += (uint64_t)n;
	return n;
}

/* ---- bzImage ---- */

static int read_bzimage(int fd, const uint8_t *h, struct kernel_image *ret, struct err *e)
{
	uint64_t setup_bytes = ((h[X86_SETUP_SECTS] ? h[X86_SETUP_SECTS] : 4) + UINT64_C(1)) * 512;
	uint64_t need = setup_bytes + (uint64_t)read_le32(h + X86_SYSSIZE) * 16;
	unsigned version = read_le16(h + X86_VERSION), text_at = read_le16(h + X86_KERNEL_VERSION);

	if (version < 0x20C || !(read_le16(h + X86_XLOADFLAGS) & X86_XLF_KERNEL_64))
		return not_a_kernel(e, "a 32-bit x86 kernel (its header does not offer the 64-bit entry)");
	if (!(h[X86_LOADFLAGS] & X86_LOADED_HIGH))
		return not_a_kernel(e, "a zImage, which is loaded low");
	if (ret->size_bytes < need)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"the kernel is truncated: its header speaks of %" PRIu64 " bytes, the file has %" PRIu64, need,
			ret->size_bytes);
	ret->format = KERNEL_BZIMAGE;
	ret->arch = ARCH_AMD64;
	if (text_at != 0 && text_at + 0x200u < setup_bytes) {
		char text[KERNEL_RELEASE_SIZE + 1] = "";
		ssize_t n = pread_full(fd, text, sizeof(text) - 1, text_at + 0x200u);

		if (n > 0 && !take_release(text, (size_t)n, ret->release))
			ret->release[0] = '\0';
	}
	return 0;
}

/* ---- vmlinux ---- */

/* Whether one PT_NOTE segment has the PVH entry. */
static bool notes_have_pvh(const uint8_t *notes, size_t len)
{
	size_t at = 0;

	while (len - at >= NOTE_HEADER_SIZE) {
		uint32_t name_size = read_le32(notes + at), desc_size = read_le32(notes + at + 4),
			 type = read_le32(notes + at + 8);
		uint64_t name_end = NOTE_HEADER_SIZE + round_up_u64(name_size, 4),
			 end = name_end + round_up_u64(desc_size, 4);

		if (!range_within(at, name_end + desc_size, len))
			return false;
		if (type == NOTE_XEN_PHYS32_ENTRY && name_size == 4 && desc_size >= 4 &&
			memcmp(notes + at + NOTE_HEADER_SIZE, "Xen", 4) == 0)
			return true;
		if (!range_within(at, end, len))
			return false;
		at += (size_t)end;
	}
	return false;
}

static int find_pvh(int fd, const uint8_t *h, uint64_t size_bytes, bool *ret, struct err *e)
{
	uint64_t table = read_le64(h + ELF_PHOFF);
	unsigned n = read_le16(h + ELF_PHNUM);

	*ret = false;
	if (n > PROGRAM_HEADERS_MAX || (n > 0 && read_le16(h + ELF_PHENTSIZE) != PH_SIZE))
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the vmlinux has %u program headers of %u bytes, expected at "
			"most %d of %d", n, read_le16(h + ELF_PHENTSIZE), PROGRAM_HEADERS_MAX, PH_SIZE);
	for (unsigned i = 0; i < n && !*ret; i++) {
		_cleanup_free_ uint8_t *notes = NULL;
		uint8_t ph[PH_SIZE];
		uint64_t at, offset, len;
		int r;

		if (!checked_add_u64(table, (uint64_t)i * PH_SIZE, &at) || !range_within(at, PH_SIZE, size_bytes))
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the vmlinux has its program headers past its end");
		r = read_part(fd, ph, sizeof(ph), at, "a program header", e);
		if (r < 0)
			return r;
		if (read_le32(ph + PH_TYPE) != PT_NOTE_VALUE)
			continue;
		offset = read_le64(ph + PH_OFFSET);
		len = read_le64(ph + PH_FILESZ);
		if (len > NOTES_MAX_BYTES || !range_within(offset, len, size_bytes))
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the vmlinux has notes of %" PRIu64 " bytes at offset %"
				PRIu64 ", the file has %" PRIu64, len, offset, size_bytes);
		notes = malloc(len ? (size_t)len : 1);
		if (!notes)
			return err_set(e, -ENOMEM, "out of memory");
		r = read_part(fd, notes, (size_t)len, offset, "the notes", e);
		if (r < 0)
			return r;
		*ret = notes_have_pvh(notes, (size_t)len);
	}
	return 0;
}

static int read_elf(int fd, const uint8_t *h, struct kernel_image *ret, struct err *e)
{
	struct fd_reader reader = { .fd = fd };
	unsigned machine = read_le16(h + ELF_MACHINE);
	bool pvh = false;
	int r;

	if (h[ELF_CLASS] != 2 || h[ELF_DATA] != 1)
		return not_a_kernel(e, "an ELF file that is not 64-bit little-endian");
	if (machine != EM_X86_64_VALUE && machine != EM_AARCH64_VALUE)
		return not_a_kernel(e, "an ELF file for another machine than x86-64 and AArch64");
	r = find_pvh(fd, h, ret->size_bytes, &pvh, e);
	if (r == 0)
		r = scan_release(fd_more, &reader, ret->release, e);
	if (r < 0)
		return r;
	if (!pvh && ret->release[0] == '\0')
		return not_a_kernel(e, "an ELF file without the text `" BANNER "`: a program or a module");
	ret->arch = machine == EM_X86_64_VALUE ? ARCH_AMD64 : ARCH_ARM64;
	ret->format = pvh && ret->arch == ARCH_AMD64 ? KERNEL_ELF_PVH : KERNEL_ELF;
	return 0;
}

/* ---- arm64 ---- */

static int read_arm64(int fd, struct kernel_image *ret, struct err *e)
{
	struct fd_reader reader = { .fd = fd };

	ret->format = KERNEL_ARM64_IMAGE;
	ret->arch = ARCH_ARM64;
	return scan_release(fd_more, &reader, ret->release, e);
}

static int read_zboot(const uint8_t *h, size_t len, struct kernel_image *ret)
{
	/* The header does not tell the machine; the PE header it points to does. The kernel it holds is compressed. */
	uint32_t pe = read_le32(h + 0x3C);

	ret->format = KERNEL_EFI_ZBOOT;
	ret->arch = ARCH_ARM64;
	if (range_within(pe, 6, len) && memcmp(h + pe, "PE\0\0", 4) == 0 && read_le16(h + pe + 4) == 0x8664)
		ret->arch = ARCH_AMD64;
	return 0;
}

static ssize_t archive_more(void *ctx, uint8_t *buf, size_t len)
{
	ssize_t n = archive_read_data(ctx, buf, len);

	return n < 0 ? -EBADMSG : n;
}

struct gz_input {
	struct fd_reader reader;
	uint8_t chunk[65536];
};

static ssize_t gz_read(struct archive *a, void *ctx, const void **ret)
{
	struct gz_input *in = ctx;
	ssize_t n = fd_more(&in->reader, in->chunk, sizeof(in->chunk));

	if (n < 0)
		archive_set_error(a, (int)-n, "read");
	*ret = in->chunk;
	return n < 0 ? ARCHIVE_FATAL : n;
}

/* Open the gzip stream in fd as one raw member. */
static int open_gzip(struct archive *a, struct gz_input *in, struct err *e)
{
	struct archive_entry *entry;

	if (archive_read_support_filter_gzip(a) != ARCHIVE_OK || archive_read_support_format_raw(a) != ARCHIVE_OK ||
		archive_read_open(a, in, NULL, gz_read, NULL) != ARCHIVE_OK ||
		archive_read_next_header(a, &entry) != ARCHIVE_OK)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "cannot unpack the gzip'ed file: %s", archive_error_string(a));
	return 0;
}

static int read_gzip(int fd, struct kernel_image *ret, struct err *e)
{
	_cleanup_free_ struct gz_input *in = calloc(1, sizeof(*in));
	struct archive *a = archive_read_new();
	uint8_t head[ARM64_HEADER_END];
	int r = 0;

	if (in)
		in->reader.fd = fd;
	if (!a || !in)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = open_gzip(a, in, e);
	if (r == 0 && (archive_read_data(a, head, sizeof(head)) != (ssize_t)sizeof(head) ||
			      read_le32(head + ARM64_MAGIC) != ARM64_MAGIC_VALUE))
		r = not_a_kernel(e, "a gzip'ed file that holds no arm64 Image; an archive needs the plan's `path` to name the "
				    "member in it");
	if (r == 0)
		r = scan_release(archive_more, a, ret->release, e);
	if (a)
		(void)archive_read_free(a);
	if (r < 0)
		return r;
	ret->format = KERNEL_ARM64_IMAGE_GZ;
	ret->arch = ARCH_ARM64;
	return 0;
}

/* ---- telling apart ---- */

static const struct {
	const char *magic;
	size_t len;
	const char *name;
} others[] = {
	{ "!<arch>\n", 8, "a Debian package or another ar archive" },
	{ "\x28\xb5\x2f\xfd", 4, "a zstd-compressed file (an archive needs the plan's `path` to name the member in it)" },
	{ "\xfd" "7zXZ", 5, "an xz-compressed file (an archive needs the plan's `path` to name the member in it)" },
	{ "\xed\xab\xee\xdb", 4, "an rpm package" },
	{ "<!DOCTYPE", 9, "a web page: the server answered with an error or a login" },
	{ "<html", 5, "a web page: the server answered with an error or a login" },
	{ "QFI\xfb", 4, "a qcow2 disk image" },
	{ "PK\x03\x04", 4, "a zip archive" },
};

static const char *name_other(const uint8_t *head, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(others); i++)
		if (len >= others[i].len && memcmp(head, others[i].magic, others[i].len) == 0)
			return others[i].name;
	return len == 0 ? "an empty file" : "something unknown";
}

int kernel_image_read(int fd, struct kernel_image *ret, struct err *e)
{
	struct kernel_image image = { 0 };
	uint8_t head[1024] = { 0 };
	struct stat st;
	ssize_t n;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot look at the kernel");
	if (!S_ISREG(st.st_mode))
		return err_set_kind(e, ERR_KIND_INPUT, -ENOEXEC, "the kernel is not a regular file");
	if ((uint64_t)st.st_size > KERNEL_IMAGE_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the kernel has %" PRIu64 " bytes, at most %" PRIu64 " are read",
			(uint64_t)st.st_size, KERNEL_IMAGE_MAX_BYTES);
	image.size_bytes = (uint64_t)st.st_size;
	n = pread_full(fd, head, sizeof(head), 0);
	if (n < 0)
		return err_set_errno(e, (int)n, "cannot read the kernel");

	if (n >= X86_HEADER_END && memcmp(head + X86_HEADER_MAGIC, "HdrS", 4) == 0 &&
		read_le16(head + X86_BOOT_FLAG) == X86_BOOT_FLAG_VALUE)
		r = read_bzimage(fd, head, &image, e);
	else if (n >= ELF_HEADER_END && memcmp(head, "\177ELF", 4) == 0)
		r = read_elf(fd, head, &image, e);
	else if (n >= ARM64_HEADER_END && memcmp(head, "MZ", 2) == 0 && memcmp(head + ZBOOT_MAGIC, "zimg", 4) == 0)
		r = read_zboot(head, (size_t)n, &image);
	else if (n >= ARM64_HEADER_END && read_le32(head + ARM64_MAGIC) == ARM64_MAGIC_VALUE)
		r = read_arm64(fd, &image, e);
	else if (n >= 2 && head[0] == 0x1F && head[1] == 0x8B)
		r = read_gzip(fd, &image, e);
	else
		r = not_a_kernel(e, name_other(head, (size_t)n));
	if (r == 0)
		*ret = image;
	return r;
}

const char *kernel_format_name(enum kernel_format format)
{
	static const char *const names[] = { [KERNEL_BZIMAGE] = "bzimage", [KERNEL_ELF_PVH] = "elf-pvh", [KERNEL_ELF] = "elf",
		[KERNEL_ARM64_IMAGE] = "arm64-image", [KERNEL_ARM64_IMAGE_GZ] = "arm64-image-gz",
		[KERNEL_EFI_ZBOOT] = "efi-zboot" };

	return names[format];
}

int kernel_image_require_bootable(const struct kernel_image *image, enum arch arch, struct err *e)
{
	if (image->arch != arch)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOEXEC, "the kernel is for %s (%s), the image for %s",
			arch_name(image->arch), kernel_format_name(image->format), arch_name(arch));
	if (image->format == KERNEL_EFI_ZBOOT)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOEXEC,
			"the kernel is an EFI zboot image, which only firmware can start; give the Image it was made from "
			"(arch/arm64/boot/Image)");
	if (image->format == KERNEL_ELF && image->arch == ARCH_ARM64)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOEXEC,
			"the kernel is a vmlinux for arm64, which cannot be booted; give the Image next to it (arch/arm64/boot/Image)");
	if (image->format == KERNEL_ELF)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOEXEC,
			"the kernel is a vmlinux without the PVH note, which QEMU cannot enter; give the bzImage "
			"(arch/x86/boot/bzImage), or build the kernel with CONFIG_PVH=y");
	return 0;
}
