#include "builder/disk/inspect.h"
#include "tests/unit/disk_helpers.h"

#include <dirent.h>

static int open_source(const char *name, const struct disk_source_limits *limits, struct disk_source *s, int *ret_fd,
	struct err *e)
{
	_cleanup_close_ int dir = open(test_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	err_clear(e);
	*s = (struct disk_source)DISK_SOURCE_INIT;
	*ret_fd = open_in_test_dir(name, O_RDONLY);
	return disk_source_open(*ret_fd, dir, limits, NULL, s, e);
}

static void make_disk(void)
{
	shell(NULL, "[ -e disk.raw ] || { truncate -s 3M disk.raw; seq 1 100000 | head -c 300000 | dd of=disk.raw bs=1M seek=1 "
		    "conv=notrunc status=none; qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2; }");
}

static void assert_is_disk(struct disk_source *s)
{
	_cleanup_buf_ struct buf expected = BUF_INIT(4 << 20);
	_cleanup_free_ uint8_t *got = malloc(3 << 20);
	struct err e = ERR_INIT;

	slurp("disk.raw", &expected);
	assert_int_equal(s->dev->size_bytes, expected.len);
	assert_int_equal(blockdev_read(s->dev, got, expected.len, 0, &e), 0);
	assert_memory_equal(got, expected.data, expected.len);
}

static unsigned count_files(void)
{
	_cleanup_closedir_ DIR *dir = opendir(test_dir);
	unsigned n = 0;

	while (readdir(dir))
		n++;
	return n;
}

static void test_packings(void **state)
{
	static const struct {
		const char *make;
		enum disk_format format;
		enum disk_packing packing;
		bool in_tar;
		const char *member;
	} cases[] = {
		{ "cp disk.raw f", DISK_FORMAT_RAW, DISK_PACKING_NONE, false, "" },
		{ "cp disk.qcow2 f", DISK_FORMAT_QCOW2, DISK_PACKING_NONE, false, "" },
		{ "xz -1c disk.raw >f", DISK_FORMAT_RAW, DISK_PACKING_XZ, false, "" },
		{ "gzip -1c disk.qcow2 >f", DISK_FORMAT_QCOW2, DISK_PACKING_GZIP, false, "" },
		{ "zstd -q -1c disk.raw >f", DISK_FORMAT_RAW, DISK_PACKING_ZSTD, false, "" },
		{ "{ printf '\\x50\\x2a\\x4d\\x18\\x04\\0\\0\\0skip'; zstd -q -1c disk.raw; } >f", DISK_FORMAT_RAW,
			DISK_PACKING_ZSTD, false, "" },
		{ "tar -cJf f disk.raw", DISK_FORMAT_RAW, DISK_PACKING_XZ, true, "disk.raw" },
		{ "tar -cf f --format=pax ./disk.qcow2", DISK_FORMAT_QCOW2, DISK_PACKING_NONE, true, "./disk.qcow2" },
		{ "tar -czSf f disk.raw", DISK_FORMAT_RAW, DISK_PACKING_GZIP, true, "disk.raw" },
		{ "cp disk.raw debian-disk; tar -c --zstd -f f debian-disk", DISK_FORMAT_RAW, DISK_PACKING_ZSTD, true,
			"debian-disk" },
	};
	unsigned before;

	(void)state;
	make_disk();
	shell(NULL, "touch f debian-disk");
	before = count_files();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_disk_source_ struct disk_source s = DISK_SOURCE_INIT;
		_cleanup_close_ int fd = -1;
		struct err e = ERR_INIT;

		shell(NULL, cases[i].make);
		if (open_source("f", NULL, &s, &fd, &e) < 0)
			fail_msg("%s: %s", cases[i].make, e.message);
		assert_int_equal(s.format, cases[i].format);
		assert_int_equal(s.packing, cases[i].packing);
		assert_int_equal(s.in_tar, cases[i].in_tar);
		assert_string_equal(s.member, cases[i].member);
		assert_is_disk(&s);
		assert_int_equal(count_files(), before); /* the scratch file has no name */
		if (s.scratch_fd >= 0 && s.format == DISK_FORMAT_RAW) {
			struct stat st;

			assert_int_equal(fstat(s.scratch_fd, &st), 0);
			assert_true(st.st_blocks * 512 < 500000); /* zeros became holes */
		}
	}
}

static void test_refusals(void **state)
{
	static const struct {
		const char *make;
		int code;
		const char *words;
	} cases[] = {
		{ ": >f", -EBADMSG, "is empty" },
		{ ": | xz -c >f", -EBADMSG, "is empty" },
		{ "printf 'KDMV' >f", -EOPNOTSUPP, "VMDK" },
		{ "printf '# Disk DescriptorFile\\nversion=1' >f", -EOPNOTSUPP, "VMDK" },
		{ "printf 'conectixxxx' >f", -EOPNOTSUPP, "VHD" },
		{ "{ head -c 100000 /dev/zero; printf conectix; head -c 504 /dev/zero; } >f", -EOPNOTSUPP, "VHD" },
		{ "printf 'vhdxfile' >f", -EOPNOTSUPP, "VHDX" },
		{ "{ head -c 64 /dev/zero; printf '\\x7f\\x10\\xda\\xbe'; } >f", -EOPNOTSUPP, "VDI" },
		{ "printf 'QED\\0' >f", -EOPNOTSUPP, "QED" },
		{ "printf 'LUKS\\xba\\xbe' >f", -EOPNOTSUPP, "encrypted" },
		{ "{ head -c 32769 /dev/zero; printf CD001; head -c 9000 /dev/zero; } >f", -EOPNOTSUPP, "ISO 9660" },
		{ "printf 'BZh91AY' >f", -EOPNOTSUPP, "bzip2" },
		{ "printf 'PK\\3\\4' >f", -EOPNOTSUPP, "zip" },
		{ "printf '\\n <!DOCTYPE html><html>' >f", -EOPNOTSUPP, "a web page" },
		{ "printf '<html><head>' >f", -EOPNOTSUPP, "a web page" },
		{ "printf '<?xml version' >f", -EOPNOTSUPP, "a web page" },
		{ "cp /bin/true f", -EOPNOTSUPP, "ELF" },
		{ "printf 'QFI\\xfb\\0\\0\\0\\1' | cat - <(head -c 200 /dev/zero) >f", -EOPNOTSUPP, "version 1" },
		{ "xz -1c disk.raw | gzip -1c >f", -EOPNOTSUPP, "packed twice" },
		{ "tar -c disk.raw | xz -1 | xz -1 >f", -EOPNOTSUPP, "packed twice" },
		{ "tar -cf f disk.raw disk.qcow2", -ENOTUNIQ, "`disk.raw` and `disk.qcow2`" },
		{ "echo a >a; echo b >b; tar -czf f a b", -ENOENT, "holds no disk image" },
		{ "ln -sf /etc/passwd l.raw; tar -czf f l.raw", -ENOENT, "holds no disk image" },
		{ "xz -1c disk.raw | head -c 9000 >f", -EBADMSG, "damaged or cut off" },
		{ "gzip -1c disk.raw | head -c 9000 >f", -EBADMSG, "damaged or cut off" },
		{ "zstd -q -1c disk.raw | head -c 9000 >f", -EBADMSG, "damaged or cut off" },
		{ "tar -cz disk.raw | head -c 9000 >f", -EBADMSG, "damaged or cut off" },
		{ "{ xz -1c disk.raw | head -c 5000; head -c 9000 /dev/urandom; } >f", -EBADMSG, "damaged or cut off" },
	};

	(void)state;
	make_disk();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_disk_source_ struct disk_source s = DISK_SOURCE_INIT;
		_cleanup_close_ int fd = -1;
		char script[512];
		struct err e = ERR_INIT;
		int r;

		(void)snprintf(script, sizeof(script), "rm -f f; %s", cases[i].make);
		shell(NULL, script);
		r = open_source("f", NULL, &s, &fd, &e);
		if (r != cases[i].code)
			fail_msg("%s: got %d (%s)", cases[i].make, r, e.message);
		assert_says(&e, cases[i].words);
		assert_int_equal(e.kind, ERR_KIND_INPUT);
	}
}

static void test_limits(void **state)
{
	/* disk.raw has 3 MiB, of which 74 blocks are not zero: 300000 bytes, rounded up to the block. */
	static const struct {
		const char *make;
		struct disk_source_limits limits;
		int code;
	} cases[] = {
		{ "xz -1c disk.raw >f", { 3 << 20, 1 << 30 }, 0 },
		{ "xz -1c disk.raw >f", { (3 << 20) - 1, 1 << 30 }, -EFBIG },
		{ "tar -cJf f disk.raw", { (3 << 20) - 1, 1 << 30 }, -EFBIG },
		{ "xz -1c disk.raw >f", { 1 << 30, 74 * 4096 }, 0 },
		{ "xz -1c disk.raw >f", { 1 << 30, 73 * 4096 }, -EFBIG },
		{ "truncate -s 20G sparse.raw; tar -czSf f sparse.raw; rm sparse.raw", { 3 << 20, 1 << 30 }, -EFBIG },
	};

	(void)state;
	make_disk();
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_disk_source_ struct disk_source s = DISK_SOURCE_INIT;
		_cleanup_close_ int fd = -1;
		struct err e = ERR_INIT;
		int r;

		shell(NULL, cases[i].make);
		r = open_source("f", &cases[i].limits, &s, &fd, &e);
		if (r != cases[i].code)
			fail_msg("%zu: %s: got %d (%s)", i, cases[i].make, r, e.message);
	}
	{
		struct disk_source s = DISK_SOURCE_INIT;
		struct err e = ERR_INIT;
		_cleanup_close_ int fd = -1;

		shell(NULL, "xz -1c disk.raw >f");
		fd = open_in_test_dir("f", O_RDONLY);
		assert_int_equal(disk_source_open(fd, -1, NULL, NULL, &s, &e), -EOPNOTSUPP);
	}
}

/* A folder that cannot be written to is the host's fault, and said so. */
static void test_no_scratch(void **state)
{
	_cleanup_close_ int proc = open("/proc/self", O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
	struct disk_source s = DISK_SOURCE_INIT;
	struct err e = ERR_INIT;

	(void)state;
	make_disk();
	shell(NULL, "xz -1c disk.raw >f");
	fd = open_in_test_dir("f", O_RDONLY);
	assert_true(disk_source_open(fd, proc, NULL, NULL, &s, &e) < 0);
	assert_says(&e, "scratch file");
	assert_int_equal(e.kind, ERR_KIND_HOST);
}

/* ---- what a partition holds ---- */

static void test_filesystem_types(void **state)
{
	static const struct {
		const char *make, *type, *label, *uuid;
	} cases[] = {
		{ "mke2fs -q -t ext4 -L some-label -U 01234567-89ab-cdef-0123-456789abcdef f 8M", "ext4", "some-label",
			"01234567-89ab-cdef-0123-456789abcdef" },
		{ "mke2fs -q -t ext3 f 8M", "ext3", "", NULL },
		{ "mke2fs -q -t ext2 -L sixteen-letters! f 8M", "ext2", "sixteen-letters!", NULL },
		{ "mke2fs -q -O journal_dev f 8M", "jbd", "", NULL },
		{ "truncate -s 8M f; mkfs.vfat -n EFI -i 1234abcd f", "vfat", "EFI", "1234-abcd" },
		{ "truncate -s 64M f; mkfs.vfat -F 32 f", "vfat", "", NULL },
		{ "truncate -s 8M f; mkswap -L sw -U 01234567-89ab-cdef-0123-456789abcdef f", "swap", "sw",
			"01234567-89ab-cdef-0123-456789abcdef" },
		{ "truncate -s 8M f", "", "", "" },
		{ "truncate -s 100 f", "", "", "" },
		{ ": >f", "", "", "" },
		{ "cp \"$DATA/ext/sif-root.squashfs\" f", "squashfs", "", "" },
		{ "cp \"$DATA/ext/sif-root.ext3\" f", "ext2", "", NULL }, /* it has no journal */
	};
	char *data = realpath(getenv("IMGBUILD_TEST_DATA") ? getenv("IMGBUILD_TEST_DATA") : "../shared/data", NULL);

	(void)state;
	assert_non_null(data);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_blockdev_ struct blockdev *dev = NULL;
		_cleanup_close_ int fd = -1;
		char script[1024];
		struct disk_fs fs;
		struct err e = ERR_INIT;

		(void)snprintf(script, sizeof(script), "DATA=%s; rm -f f; %s", data, cases[i].make);
		shell(NULL, script);
		fd = open_in_test_dir("f", O_RDONLY);
		assert_int_equal(blockdev_new_file(fd, &dev, &e), 0);
		assert_int_equal(fstype_detect(dev, &fs, &e), 0);
		assert_string_equal(fs.type, cases[i].type);
		assert_string_equal(fs.label, cases[i].label);
		if (cases[i].uuid)
			assert_string_equal(fs.uuid, cases[i].uuid);
		assert_int_equal(fstype_is_ext(&fs), strncmp(cases[i].type, "ext", 3) == 0);
		assert_false(fs.is_root);
	}
	free(data);
}

/* ---- all of it ---- */

static int probe_label(void *ctx, struct blockdev *part, struct disk_fs *fs, struct err *e)
{
	(void)ctx;
	(void)part;
	(void)e;
	fs->is_root = strcmp(fs->label, "root") == 0;
	return 0;
}

static void test_inspect(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	shell(NULL, "truncate -s 32M i.raw; printf 'label: gpt\\nstart=4096,size=32768,type=0FC63DAF-8483-4772-8E79-3D69D8477DE4\\n"
		    "start=40960,size=16384,type=BC13C2FF-59E6-4262-A352-B275FD6F7172\\n' | sfdisk -q i.raw;"
		    "truncate -s 16M p; mke2fs -q -t ext4 -L root p; dd if=p of=i.raw bs=1M seek=2 conv=notrunc,sparse status=none;"
		    "rm p; truncate -s 8M p; mke2fs -q -t ext4 -L BOOT p; dd if=p of=i.raw bs=1M seek=20 conv=notrunc,sparse "
		    "status=none; qemu-img convert -c -f raw -O qcow2 i.raw i.qcow2");
	{
		_cleanup_disk_report_ struct disk_report r;
		_cleanup_disk_source_ struct disk_source s;
		_cleanup_close_ int fd = -1;

		assert_int_equal(open_source("i.qcow2", NULL, &s, &fd, &e), 0);
		if (disk_inspect(&s, ARCH_AMD64, NULL, probe_label, NULL, &r, &e) < 0)
			fail_msg("%s", e.message);
		assert_int_equal(r.format, DISK_FORMAT_QCOW2);
		assert_int_equal(r.virtual_bytes, 32 << 20);
		assert_true(r.allocated_bytes > 0 && r.allocated_bytes < 8 << 20);
		assert_true(r.file_bytes > 0 && r.file_bytes < 1 << 20);
		assert_true(r.has_qcow && r.qcow.cluster_size_bytes == 65536);
		assert_int_equal(r.layout.n, 2);
		assert_true(r.has_root && r.has_boot && r.root_index == 0 && r.boot_index == 1);
		assert_int_equal(r.layout.parts[0].role, DISK_ROLE_ROOT);
		assert_string_equal(disk_role_name(r.layout.parts[1].role), "boot");
		assert_int_equal(r.layout.parts[0].part.range.start_bytes, 2 << 20);
	}
	{
		_cleanup_disk_report_ struct disk_report r;
		_cleanup_disk_source_ struct disk_source s;
		_cleanup_close_ int fd = -1;

		/* No root is a report too. */
		assert_int_equal(open_source("i.raw", NULL, &s, &fd, &e), 0);
		assert_int_equal(disk_inspect(&s, ARCH_ARM64, "7", probe_label, NULL, &r, &e), 0);
		assert_false(r.has_root);
		assert_false(r.has_qcow);
		assert_int_equal(r.root_error.code, -ENOENT);
		assert_says(&r.root_error, "`7` matches nothing");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_packings),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_no_scratch),
		cmocka_unit_test(test_filesystem_types),
		cmocka_unit_test(test_inspect),
	};

	return cmocka_run_group_tests(tests, make_test_dir, remove_test_dir);
}
