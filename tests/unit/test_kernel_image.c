/* Kernel images: Debian's real bzImage, and one of each other kind made here byte by byte from the specifications. */
#include "kernels/kernel_image.h"
#include "lib/io.h"
#include "lib/num.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
/* after the others */
#include <cmocka.h>

#include "tests/unit/kernel_fixture.h"

#define BANNER "Linux version 6.12.47-test+1 (builder@example.org) (gcc 12) #1 SMP\n"

static void put16(uint8_t *at, unsigned v)
{
	at[0] = (uint8_t)v;
	at[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *at, uint32_t v)
{
	put16(at, v & 0xFFFF);
	put16(at + 2, v >> 16);
}

static int file_of(const void *bytes, size_t len)
{
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite_full(fd, bytes, len, 0), 0);
	return fd;
}

static void expect_kernel(const void *bytes, size_t len, enum kernel_format format, enum arch arch, const char *release)
{
	_cleanup_close_ int fd = file_of(bytes, len);
	struct kernel_image image;
	struct err e = ERR_INIT;

	if (kernel_image_read(fd, &image, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(image.format, format);
	assert_int_equal(image.arch, arch);
	assert_string_equal(image.release, release);
	assert_int_equal(image.size_bytes, len);
}

static void expect_refused(const void *bytes, size_t len, int code, const char *words)
{
	_cleanup_close_ int fd = file_of(bytes, len);
	struct kernel_image image;
	struct err e = ERR_INIT;
	int r = kernel_image_read(fd, &image, &e);

	if (r != code || !strstr(e.message, words))
		fail_msg("got %d `%s`, expected %d `%s`", r, e.message, code, words);
	assert_int_equal(e.kind, ERR_KIND_INPUT);
}

/* A bzImage of 5 setup sectors and 64 KiB; the text of the version lies at 0x200 + 0x300. */
static void make_bzimage(uint8_t image[static 5 * 512 + 65536])
{
	memset(image, 0, 5 * 512 + 65536);
	image[0x1F1] = 4;
	put32(image + 0x1F4, 65536 / 16);
	put16(image + 0x1FE, 0xAA55);
	memcpy(image + 0x202, "HdrS", 4);
	put16(image + 0x206, 0x20F);
	put16(image + 0x20E, 0x300);
	image[0x211] = 1;
	put16(image + 0x236, 1);
	strcpy((char *)image + 0x500, "6.1.0-41-cloud-amd64 (debian-kernel@lists.debian.org) #1 SMP");
}

static void test_bzimage(void **state)
{
	static uint8_t image[5 * 512 + 65536];
	const size_t size = sizeof(image);

	(void)state;
	make_bzimage(image);
	expect_kernel(image, size, KERNEL_BZIMAGE, ARCH_AMD64, "6.1.0-41-cloud-amd64");
	expect_refused(image, size - 1, -EBADMSG, "truncated");
	put16(image + 0x20E, 0);
	expect_kernel(image, size, KERNEL_BZIMAGE, ARCH_AMD64, "");
	put16(image + 0x20E, 0xFFFF); /* past the setup code */
	expect_kernel(image, size, KERNEL_BZIMAGE, ARCH_AMD64, "");
	make_bzimage(image);
	strcpy((char *)image + 0x500, "../../etc hello");
	expect_kernel(image, size, KERNEL_BZIMAGE, ARCH_AMD64, "");
	memset(image + 0x500, '6', 65); /* one longer than a release can be */
	expect_kernel(image, size, KERNEL_BZIMAGE, ARCH_AMD64, "");
	image[0x500 + 64] = ' ';
	expect_kernel(image, size, KERNEL_BZIMAGE, ARCH_AMD64, "6666666666666666666666666666666666666666666666666666666666666666");
	put16(image + 0x236, 0);
	expect_refused(image, size, -ENOEXEC, "32-bit");
	make_bzimage(image);
	image[0x211] = 0;
	expect_refused(image, size, -ENOEXEC, "zImage");
}

/* An ELF file with one PT_NOTE of `note`, and the banner behind it. */
static size_t make_elf(uint8_t *out, unsigned machine, uint32_t note_type, const char *banner)
{
	memset(out, 0, 512);
	memcpy(out, "\177ELF\2\1\1", 7);
	put16(out + 16, 2);
	put16(out + 18, machine);
	put32(out + 32, 64); /* e_phoff */
	put16(out + 54, 56); /* e_phentsize */
	put16(out + 56, 2);  /* e_phnum */
	put32(out + 64, 1);  /* PT_LOAD */
	put32(out + 120, 4); /* PT_NOTE */
	put32(out + 120 + 8, 200);
	put32(out + 120 + 32, 64);
	/* another note first, whose sizes need rounding */
	put32(out + 200, 3);
	put32(out + 204, 5);
	put32(out + 208, 1);
	memcpy(out + 212, "GN\0", 3);
	put32(out + 224, 4);
	put32(out + 228, 4);
	put32(out + 232, note_type);
	memcpy(out + 236, "Xen", 4);
	put32(out + 240, 0x1000000);
	strcpy((char *)out + 300, "%s version %s (x)\nLinux version %s");
	strcpy((char *)out + 350, banner);
	return 512;
}

static void test_vmlinux(void **state)
{
	uint8_t elf[512];
	struct kernel_image image = { .format = KERNEL_ELF, .arch = ARCH_AMD64 };
	struct err e = ERR_INIT;
	size_t n;

	(void)state;
	n = make_elf(elf, 62, 18, BANNER);
	expect_kernel(elf, n, KERNEL_ELF_PVH, ARCH_AMD64, "6.12.47-test+1");
	n = make_elf(elf, 62, 17, BANNER);
	expect_kernel(elf, n, KERNEL_ELF, ARCH_AMD64, "6.12.47-test+1");
	n = make_elf(elf, 62, 18, "");
	expect_kernel(elf, n, KERNEL_ELF_PVH, ARCH_AMD64, "");
	n = make_elf(elf, 62, 17, "");
	expect_refused(elf, n, -ENOEXEC, "a program or a module");
	n = make_elf(elf, 183, 18, BANNER);
	expect_kernel(elf, n, KERNEL_ELF, ARCH_ARM64, "6.12.47-test+1");
	n = make_elf(elf, 3, 18, BANNER);
	expect_refused(elf, n, -ENOEXEC, "another machine");
	n = make_elf(elf, 62, 18, BANNER);
	elf[4] = 1;
	expect_refused(elf, n, -ENOEXEC, "not 64-bit");
	n = make_elf(elf, 62, 18, BANNER);
	put16(elf + 56, 129);
	expect_refused(elf, n, -EBADMSG, "program headers");
	n = make_elf(elf, 62, 18, BANNER);
	memset(elf + 32, 0xFF, 8);
	expect_refused(elf, n, -EBADMSG, "");
	n = make_elf(elf, 62, 18, BANNER);
	put32(elf + 120 + 32, 0x7FFFFFFF);
	expect_refused(elf, n, -EBADMSG, "notes");
	n = make_elf(elf, 62, 18, BANNER);
	put32(elf + 228, 0xFFFFFFFF); /* the note's own size */
	expect_kernel(elf, n, KERNEL_ELF, ARCH_AMD64, "6.12.47-test+1");

	assert_int_equal(kernel_image_require_bootable(&image, ARCH_AMD64, &e), -ENOEXEC);
	assert_non_null(strstr(e.message, "CONFIG_PVH"));
	image.format = KERNEL_ELF_PVH;
	assert_int_equal(kernel_image_require_bootable(&image, ARCH_AMD64, &e), 0);
	assert_int_equal(kernel_image_require_bootable(&image, ARCH_ARM64, &e), -ENOEXEC);
	assert_non_null(strstr(e.message, "arm64"));
}

/* The banner may lie across the pieces in which a file is read. */
static void test_release_at_every_place(void **state)
{
	static uint8_t big[3 << 20];

	(void)state;
	for (size_t at = (1 << 20) - 80; at < (1 << 20) + 4; at += 3) {
		(void)make_elf(big, 62, 18, "");
		memcpy(big + at, BANNER, sizeof(BANNER));
		expect_kernel(big, sizeof(big), KERNEL_ELF_PVH, ARCH_AMD64, "6.12.47-test+1");
		memset(big + at, 0, sizeof(BANNER));
	}
}

static void make_arm64(uint8_t out[static 4096])
{
	memset(out, 0, 4096);
	memcpy(out, "MZ", 2);
	memcpy(out + 56, "ARM\x64", 4);
	strcpy((char *)out + 2000, BANNER);
}

static void test_arm64(void **state)
{
	_cleanup_close_ int fd = -1;
	_cleanup_buf_ struct buf packed = BUF_INIT(1 << 20);
	struct kernel_image image;
	uint8_t out[4096];
	struct err e = ERR_INIT;
	char path[64], script[256];

	(void)state;
	make_arm64(out);
	expect_kernel(out, sizeof(out), KERNEL_ARM64_IMAGE, ARCH_ARM64, "6.12.47-test+1");
	fd = file_of(out, sizeof(out));
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
	(void)snprintf(script, sizeof(script), "gzip -c <%s", path);
	run_script("/", &packed, script);
	expect_kernel(packed.data, packed.len, KERNEL_ARM64_IMAGE_GZ, ARCH_ARM64, "6.12.47-test+1");
	expect_refused(packed.data, packed.len - 40, -EBADMSG, "");
	buf_reset(&packed);
	run_script("/", &packed, "seq 1 1000 | gzip -c");
	expect_refused(packed.data, packed.len, -ENOEXEC, "no arm64 Image");

	make_arm64(out);
	memcpy(out + 4, "zimg", 4);
	memcpy(out + 0x18, "gzip", 4);
	close_fdp(&fd);
	fd = file_of(out, sizeof(out));
	assert_int_equal(kernel_image_read(fd, &image, &e), 0);
	assert_int_equal(image.format, KERNEL_EFI_ZBOOT);
	assert_int_equal(kernel_image_require_bootable(&image, ARCH_ARM64, &e), -ENOEXEC);
	assert_non_null(strstr(e.message, "zboot"));
}

static void test_no_kernels(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		const char *words;
	} cases[] = {
		{ "", 0, "empty" }, { "!<arch>\ndebian-binary", 21, "Debian package" }, { "\x28\xb5\x2f\xfdxxxx", 8, "zstd" },
		{ "\xfd" "7zXZ\0", 6, "xz" }, { "<!DOCTYPE html><html>", 21, "web page" }, { "QFI\xfb\0\0\0\3", 8, "qcow2" },
		{ "hello", 5, "unknown" }, { "MZ", 2, "unknown" },
	};
	_cleanup_close_ int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct kernel_image image;
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		expect_refused(cases[i].bytes, cases[i].len, -ENOEXEC, cases[i].words);
	assert_int_equal(kernel_image_read(dir, &image, &e), -ENOEXEC);
}

static void test_limit(void **state)
{
	_cleanup_close_ int fd = memfd_create("huge", MFD_CLOEXEC);
	struct kernel_image image;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(ftruncate(fd, (off_t)KERNEL_IMAGE_MAX_BYTES), 0);
	assert_int_equal(kernel_image_read(fd, &image, &e), -ENOEXEC);
	assert_int_equal(ftruncate(fd, (off_t)KERNEL_IMAGE_MAX_BYTES + 1), 0);
	assert_int_equal(kernel_image_read(fd, &image, &e), -E2BIG);
}

static void test_releases(void **state)
{
	static const char *const good[] = { "6", "6.1.0-41-cloud-amd64", "6.12.47", "5.15.0_x~rc1+" },
				 *const bad[] = { "", "v6.1", "..", "6/1", "6 1", "6;1", "6\n" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(kernel_release_is_valid(good[i], strlen(good[i])));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(kernel_release_is_valid(bad[i], strlen(bad[i])));
}

static void test_debian_kernel(void **state)
{
	_cleanup_buf_ struct buf release = BUF_INIT(256);
	_cleanup_close_ int fd = -1;
	char fixture[512], path[1024];
	struct kernel_image image;
	struct err e = ERR_INIT;

	(void)state;
	kernel_fixture(fixture, sizeof(fixture));
	run_script(fixture, &release, "basename -z unpacked/lib/modules/*");
	(void)snprintf(path, sizeof(path), "%s/unpacked/boot/vmlinuz-%s", fixture, buf_str(&release));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(kernel_image_read(fd, &image, &e), 0);
	assert_int_equal(image.format, KERNEL_BZIMAGE);
	assert_string_equal(image.release, buf_str(&release));
	assert_int_equal(kernel_image_require_bootable(&image, ARCH_AMD64, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bzimage),
		cmocka_unit_test(test_vmlinux),
		cmocka_unit_test(test_release_at_every_place),
		cmocka_unit_test(test_arm64),
		cmocka_unit_test(test_no_kernels),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_releases),
		cmocka_unit_test(test_debian_kernel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
