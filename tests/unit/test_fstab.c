#include "builder/fstab.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void check(const char *in, const char *pattern, bool keep, const char *expected, size_t n_dropped)
{
	_cleanup_buf_ struct buf out = BUF_INIT(65536);
	_cleanup_strv_ struct strv dropped = { 0 }, patterns = { 0 };
	struct err e = ERR_INIT;

	if (pattern)
		assert_int_equal(strv_add(&patterns, pattern), 0);
	assert_int_equal(fstab_rewrite(in, strlen(in), &patterns, keep, &out, &dropped, &e), 0);
	assert_string_equal(buf_str(&out), expected);
	assert_int_equal(dropped.n, n_dropped);
}

static void test_cloud_image(void **state)
{
	(void)state;
	/* As Debian's and Ubuntu's images have it. */
	check("PARTUUID=1f2e-01 / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n"
	      "PARTUUID=1f2e-0f /boot/efi vfat defaults 0 0\n",
		NULL, false, "/dev/root\t/\text4\trw,discard,errors=remount-ro,x-systemd.growfs\t0 0\n", 1);
	check("LABEL=cloudimg-rootfs\t/\t ext4\tdiscard,commit=30\t0 1\nLABEL=BOOT\t/boot\text4\tdefaults\t0 2\n"
	      "LABEL=UEFI\t/boot/efi\tvfat\tumask=0077\t0 1\n",
		NULL, false, "/dev/root\t/\text4\tdiscard,commit=30\t0 0\n", 2);
}

static void test_what_stays(void **state)
{
	const char *same = "# a comment about LABEL=BOOT\n\ntmpfs /tmp tmpfs size=1G 0 0\nserver:/x /mnt nfs ro 0 0\n"
			   "/swapfile none swap sw 0 0\n/srv/a /srv/b none bind 0 0\nnone /x overlay lowerdir=/a 0 0\n";

	(void)state;
	check(same, NULL, false, same, 0);
}

static void test_swap_and_devices_go(void **state)
{
	(void)state;
	check("/dev/vdb none swap sw 0 0\nUUID=ab none swap sw 0 0\n/dev/sr0 /media iso9660 noauto 0 0\n"
	      "zram0 none swap sw 0 0\n",
		NULL, false, "", 4);
}

static void test_keep_and_patterns(void **state)
{
	(void)state;
	check("UUID=ab / ext4 defaults 0 1\nLABEL=UEFI /boot/efi vfat defaults 0 1\n", NULL, true,
		"UUID=ab / ext4 defaults 0 1\nLABEL=UEFI /boot/efi vfat defaults 0 1\n", 0);
	check("UUID=ab / ext4 defaults 0 1\nLABEL=UEFI /boot/efi vfat defaults 0 1\n", "LABEL=UEFI", true,
		"UUID=ab / ext4 defaults 0 1\n", 1);
	check("tmpfs /tmp tmpfs defaults 0 0", "/tmp", false, "", 1);
}

static void test_odd_lines(void **state)
{
	(void)state;
	/* Too few fields to be judged: left alone. No newline at the end: given one. */
	check("x\ny z\nUUID=1 /", NULL, false, "x\ny z\nUUID=1 /\n", 0);
	check("UUID=1 / ext4", NULL, false, "/dev/root\t/\text4\tdefaults\t0 0\n", 0);
	check("", NULL, false, "", 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cloud_image),
		cmocka_unit_test(test_what_stays),
		cmocka_unit_test(test_swap_and_devices_go),
		cmocka_unit_test(test_keep_and_patterns),
		cmocka_unit_test(test_odd_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
