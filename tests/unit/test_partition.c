#include "builder/disk/partition.h"
#include "builder/disk/root.h"
#include "tests/unit/disk_helpers.h"

#include <jansson.h>
#include <strings.h>

static const char *data_dir;

/* ---- reading, judged by sfdisk ---- */

struct opened {
	int fd;
	struct blockdev *dev;
};

static void open_disk(struct opened *o, const char *name)
{
	struct err e = ERR_INIT;

	o->fd = open_in_test_dir(name, O_RDWR);
	assert_int_equal(blockdev_new_file(o->fd, &o->dev, &e), 0);
}

static void close_disk(struct opened *o)
{
	blockdev_free(o->dev);
	(void)close(o->fd);
}

static int read_disk(const char *name, struct partition_table *t, struct err *e)
{
	struct opened o;
	int r;

	err_clear(e);
	memset(t, 0, sizeof(*t));
	open_disk(&o, name);
	r = partition_table_read(o.dev, t, e);
	close_disk(&o);
	return r;
}

/* The table must be what `sfdisk --json` says, extended containers left out. */
static void assert_as_sfdisk(const char *name, const struct partition_table *t)
{
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 20);
	char script[256];
	json_t *all, *table, *parts, *part;
	size_t i, n = 0;

	if (t->sector_bytes == 4096)
		return; /* sfdisk cannot be told the sector size of a file */
	(void)snprintf(script, sizeof(script), "sfdisk --json %s 2>/dev/null", name);
	shell(&text, script);
	all = json_loads(buf_str(&text), 0, NULL);
	assert_non_null(all);
	table = json_object_get(all, "partitiontable");
	parts = json_object_get(table, "partitions");
	assert_string_equal(json_string_value(json_object_get(table, "label")),
		t->kind == PARTITION_TABLE_GPT ? "gpt" : "dos");
	json_array_foreach(parts, i, part) {
		const char *type = json_string_value(json_object_get(part, "type")),
			   *uuid = json_string_value(json_object_get(part, "uuid")),
			   *label = json_string_value(json_object_get(part, "name"));
		uint64_t start = (uint64_t)json_integer_value(json_object_get(part, "start")),
			 size = (uint64_t)json_integer_value(json_object_get(part, "size"));
		const struct partition *p = &t->parts[n];
		char number[16];

		if (t->kind == PARTITION_TABLE_MBR && (strcmp(type, "5") == 0 || strcmp(type, "f") == 0))
			continue;
		assert_true(n < t->n);
		(void)snprintf(number, sizeof(number), "%s%u", name, p->number);
		assert_string_equal(json_string_value(json_object_get(part, "node")), number);
		assert_int_equal(p->range.start_bytes, start * 512);
		assert_int_equal(p->range.size_bytes, size * 512);
		if (t->kind == PARTITION_TABLE_GPT) {
			assert_int_equal(strcasecmp(p->type, type), 0);
			assert_int_equal(strcasecmp(p->partuuid, uuid), 0);
			assert_string_equal(p->name, label ? label : "");
		} else {
			assert_int_equal(strtoul(p->type, NULL, 16), strtoul(type, NULL, 16));
		}
		n++;
	}
	assert_int_equal(n, t->n);
	json_decref(all);
}

#define ROOT_AMD64 "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
#define ROOT_ARM64 "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"
#define LINUX_DATA "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
#define ESP "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
#define BIOS_BOOT "21686148-6449-6E6F-744E-656564454649"
#define XBOOTLDR "BC13C2FF-59E6-4262-A352-B275FD6F7172"
#define SWAP "0657FD6D-A4AB-43C4-84E5-0933C84B4F4F"

/* Debian's order: the root is partition 1 and lies last. */
#define DEBIAN_TABLE                                                                                         \
	"label: gpt\\nfirst-lba: 34\\n"                                                                       \
	"1: start=20480, size=8192, type=" ROOT_AMD64 ", name=\\\"root \\xc3\\xa4\\\"\\n"                   \
	"14: start=2048, size=2048, type=" BIOS_BOOT "\\n"                                                   \
	"15: start=4096, size=8192, type=" ESP ", attrs=\\\"RequiredPartition GUID:63\\\"\\n"

static void make_debian_disk(const char *name)
{
	char script[1024];

	(void)snprintf(script, sizeof(script), "rm -f %s; truncate -s 32M %s; printf \"" DEBIAN_TABLE "\" | sfdisk -q %s", name,
		name, name);
	shell(NULL, script);
}

static void test_gpt(void **state)
{
	_cleanup_partition_table_ struct partition_table t;
	struct err e = ERR_INIT;

	(void)state;
	make_debian_disk("d");
	if (read_disk("d", &t, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(t.kind, PARTITION_TABLE_GPT);
	assert_int_equal(t.sector_bytes, 512);
	assert_false(t.from_backup);
	assert_int_equal(t.n, 3);
	assert_int_equal(t.parts[0].number, 1);
	assert_int_equal(t.parts[1].number, 14);
	assert_int_equal(t.parts[2].number, 15);
	assert_string_equal(t.parts[0].name, "root \xc3\xa4");
	assert_true(t.parts[2].attrs == (1ULL | 1ULL << 63));
	assert_int_equal(strlen(t.disk_id), 36);
	assert_as_sfdisk("d", &t);
}

static void test_gpt_damaged(void **state)
{
	static const struct {
		const char *why, *damage;
		int code;
		bool from_backup;
	} cases[] = {
		{ "primary header", "printf X | dd of=d bs=1 seek=520 conv=notrunc", 0, true },
		{ "primary entries", "printf X | dd of=d bs=1 seek=1100 conv=notrunc", 0, true },
		{ "primary wiped", "dd if=/dev/zero of=d bs=512 seek=1 count=33 conv=notrunc", 0, true },
		{ "backup wiped", "dd if=/dev/zero of=d bs=512 seek=65503 count=33 conv=notrunc", 0, false },
		{ "disk grown", "truncate -s 40M d", 0, false },
		{ "both wiped", "dd if=/dev/zero of=d bs=512 seek=1 count=33 conv=notrunc; truncate -s 31M d; truncate -s 32M d",
			-EBADMSG, false },
		{ "cut off", "truncate -s 16M d", -EBADMSG, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_partition_table_ struct partition_table t;
		char script[512];
		struct err e = ERR_INIT;
		int r;

		make_debian_disk("d");
		(void)snprintf(script, sizeof(script), "{ %s; } 2>/dev/null", cases[i].damage);
		shell(NULL, script);
		r = read_disk("d", &t, &e);
		if (r != cases[i].code)
			fail_msg("%s: got %d (%s)", cases[i].why, r, e.message);
		if (r < 0) {
			assert_int_equal(e.kind, ERR_KIND_INPUT);
			continue;
		}
		if (t.from_backup != cases[i].from_backup)
			fail_msg("%s: from_backup is %d", cases[i].why, t.from_backup);
		assert_int_equal(t.n, 3);
		assert_int_equal(t.parts[0].range.start_bytes, 20480 * 512);
	}
}

/* CRC-32 of the header, for tables that lie with a right checksum. */
static uint32_t crc32(const uint8_t *p, size_t len)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (unsigned k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
	}
	return ~crc;
}

static void put_le32(uint8_t *p, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* Headers with right checksums that promise gigabytes of entries: an error, without the memory. */
static void test_gpt_oversized(void **state)
{
	static const struct {
		uint32_t n, size;
	} cases[] = { { 0xFFFFFFFF, 128 }, { 0x01000000, 128 }, { 128, 0xFFFFFFFF }, { 0, 128 }, { 128, 0 }, { 8193, 128 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_partition_table_ struct partition_table t;
		struct err e = ERR_INIT;
		uint8_t header[512];

		make_debian_disk("d");
		{
			_cleanup_close_ int fd = open_in_test_dir("d", O_RDWR);

			for (unsigned backup = 0; backup < 2; backup++) {
				uint64_t at = backup ? (32 << 20) - 512 : 512;

				assert_int_equal(pread_full(fd, header, 512, at), 512);
				put_le32(header + 80, cases[i].n);
				put_le32(header + 84, cases[i].size);
				put_le32(header + 16, 0);
				put_le32(header + 16, crc32(header, 92));
				assert_int_equal(pwrite_full(fd, header, 512, at), 0);
			}
		}
		assert_int_equal(read_disk("d", &t, &e), -EBADMSG);
	}
}

/* A table whose sectors are 4096 bytes, made by others; then with its primary header spoilt. */
static void test_4096_byte_sectors(void **state)
{
	char script[512];

	(void)state;
	for (unsigned spoilt = 0; spoilt < 2; spoilt++) {
		_cleanup_partition_table_ struct partition_table t;
		struct err e = ERR_INIT;

		(void)snprintf(script, sizeof(script), "rm -f big; cat %s/disk/gptman-disk2-4096.img >big; %s", data_dir,
			spoilt ? "printf X | dd of=big bs=1 seek=4104 conv=notrunc status=none" : "");
		shell(NULL, script);
		if (read_disk("big", &t, &e) < 0)
			fail_msg("%s", e.message);
		assert_int_equal(t.kind, PARTITION_TABLE_GPT);
		assert_int_equal(t.sector_bytes, 4096);
		assert_int_equal(t.from_backup, spoilt);
		assert_true(t.n > 0);
		for (size_t i = 0; i < t.n; i++)
			assert_true(t.parts[i].range.start_bytes % 4096 == 0);
	}
}

static void test_images_of_others(void **state)
{
	static const struct {
		const char *name;
		enum partition_table_kind kind;
	} cases[] = { { "gptman-disk1-512.img", PARTITION_TABLE_GPT }, { "ul-pt-gpt.img.xz", PARTITION_TABLE_GPT },
		{ "ul-pt-dos+bsd.img.xz", PARTITION_TABLE_MBR }, { "mender_test.sdimg", PARTITION_TABLE_MBR } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_partition_table_ struct partition_table t;
		char script[512];
		struct err e = ERR_INIT;

		(void)snprintf(script, sizeof(script), "case %s in *.xz) xz -dc %s/disk/%s >o ;; *) cp %s/disk/%s o ;; esac; chmod 600 o",
			cases[i].name, data_dir, cases[i].name, data_dir, cases[i].name);
		shell(NULL, script);
		if (read_disk("o", &t, &e) < 0) {
			/* Cut to a few sectors by whoever made it: then sfdisk does not take it either. */
			print_message("%s: %s\n", cases[i].name, e.message);
			assert_int_equal(e.code, -EBADMSG);
			continue;
		}
		assert_int_equal(t.kind, cases[i].kind);
		assert_as_sfdisk("o", &t);
	}
}

static void test_mbr_with_logical_partitions(void **state)
{
	_cleanup_partition_table_ struct partition_table t;
	struct err e = ERR_INIT;

	(void)state;
	shell(NULL, "rm -f m; truncate -s 64M m; printf 'label: dos\\nlabel-id: 0xcafe1234\\nstart=2048,size=4096,type=83,bootable\\n"
		    "start=8192,size=90000,type=5\\nstart=10240,size=4096,type=83\\nstart=20480,size=8192,type=82\\n"
		    "start=40960,size=8192,type=83\\n' | sfdisk -q m");
	if (read_disk("m", &t, &e) < 0)
		fail_msg("%s", e.message);
	assert_int_equal(t.kind, PARTITION_TABLE_MBR);
	assert_int_equal(t.n, 4);
	assert_string_equal(t.disk_id, "cafe1234");
	assert_int_equal(t.parts[0].attrs, 0x80);
	assert_string_equal(t.parts[0].type, "0x83");
	assert_string_equal(t.parts[0].partuuid, "cafe1234-01");
	assert_int_equal(t.parts[1].number, 5);
	assert_int_equal(t.parts[3].number, 7);
	assert_string_equal(t.parts[3].partuuid, "cafe1234-07");
	assert_as_sfdisk("m", &t);

	/* A chain of records that leads back to itself ends. */
	{
		_cleanup_partition_table_ struct partition_table loop;
		_cleanup_close_ int fd = open_in_test_dir("m", O_RDWR);
		uint8_t zero[4] = { 0 };

		assert_int_equal(pwrite_full(fd, zero, 4, 8192 * 512 + 446 + 16 + 8), 0);
		(void)read_disk("m", &loop, &e);
	}
}

static void test_no_table(void **state)
{
	static const char *const makes[] = {
		"truncate -s 8M n",
		"truncate -s 8M n; mke2fs -q -t ext4 n",
		"truncate -s 8M n; mkfs.vfat n >/dev/null",
		"truncate -s 100 n",
		": >n",
		"truncate -s 8M n; printf '\\x55\\xaa' | dd of=n bs=1 seek=510 conv=notrunc status=none",
		"head -c 1M /dev/zero | tr '\\0' '\\377' >n; printf '\\x55\\xaa' | dd of=n bs=1 seek=510 conv=notrunc status=none",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(makes); i++) {
		_cleanup_partition_table_ struct partition_table t;
		char script[512];
		struct err e = ERR_INIT;

		(void)snprintf(script, sizeof(script), "rm -f n; %s", makes[i]);
		shell(NULL, script);
		assert_int_equal(read_disk("n", &t, &e), 0);
		assert_int_equal(t.kind, PARTITION_TABLE_NONE);
		assert_int_equal(t.n, 0);
	}
}

static void test_random_damage(void **state)
{
	static const char *const disks[] = { "d", "m" };

	(void)state;
	make_debian_disk("d");
	shell(NULL, "rm -f m; truncate -s 32M m; printf 'label: dos\\nstart=1,size=4096,type=83\\nstart=8192,size=40000,type=5\\n"
		    "start=8193,size=4096,type=83\\nstart=20480,size=8192,type=82\\n' | sfdisk -q m");
	for (size_t i = 0; i < ARRAY_SIZE(disks); i++) {
		struct opened o;
		uint64_t random = 99 + i;
		unsigned good = 0, bad = 0;

		open_disk(&o, disks[i]);
		for (unsigned seed = 0; seed < 150; seed++) {
			_cleanup_partition_table_ struct partition_table t = { .n = 0 };
			uint64_t where[4] = { 0 };
			uint8_t old[4];
			struct err e = ERR_INIT;

			for (unsigned f = 0; f < 4; f++) {
				uint64_t reach = f == 0 ? 512 : f == 1 ? 1024 : 34 * 512;
				uint8_t flipped;

				where[f] = next_random(&random) % reach;
				if (i == 1)
					where[f] = f % 2 ? 8192 * 512 + 446 + where[f] % 66 : 446 + where[f] % 66;
				assert_int_equal(pread_full(o.fd, &old[f], 1, where[f]), 1);
				flipped = (uint8_t)(old[f] ^ 1u << next_random(&random) % 8);
				assert_int_equal(pwrite_full(o.fd, &flipped, 1, where[f]), 0);
			}
			if (partition_table_read(o.dev, &t, &e) < 0)
				bad++;
			else
				good++;
			for (size_t p = 0; p < t.n; p++)
				assert_true(range_within(t.parts[p].range.start_bytes, t.parts[p].range.size_bytes, o.dev->size_bytes));
			for (unsigned f = 4; f-- > 0;)
				assert_int_equal(pwrite_full(o.fd, &old[f], 1, where[f]), 0);
		}
		assert_true(good > 0 && bad + good == 150);
		close_disk(&o);
	}
}

/* ---- the root ---- */

/* What the fake probe finds: by the label of the filesystem. */
static int fake_probe(void *ctx, struct blockdev *part, struct disk_fs *fs, struct err *e)
{
	(void)part;
	if (ctx && strcmp(ctx, "no memory") == 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (strcmp(fs->label, "broken") == 0)
		return err_set(e, -EBADMSG, "block group 3 has a bad checksum");
	fs->is_root = strncmp(fs->label, "root", 4) == 0;
	fs->has_kernels = strncmp(fs->label, "BOOT", 4) == 0 || strcmp(fs->label, "kernels") == 0;
	if (fs->is_root)
		(void)snprintf(fs->os_name, sizeof(fs->os_name), "Testix 1");
	return 0;
}

/* The partitions of a disk to be made: type and what to put in. */
struct plan_part {
	const char *type, *make;
};

#define ONCE(name, command) "[ -e " name " ] || { truncate -s 8M " name "; " command "; }; cp --sparse=always " name " p"
#define EXT4(label) ONCE("ext4-" label, "mke2fs -q -t ext4 -L " label " ext4-" label)
#define EMPTY ":"
#define VFAT ONCE("vfat", "mkfs.vfat vfat >/dev/null")
/* mkfs.xfs and mkfs.btrfs want hundreds of megabytes; a magic number is what tells them. */
#define XFS "printf XFSB | dd of=p conv=notrunc status=none"
#define BTRFS "printf _BHRfS_M | dd of=p bs=1 seek=65600 conv=notrunc status=none"

enum { PART_MIB = 8, MAX_PARTS = 5 };

static void make_disk(const struct plan_part *parts)
{
	_cleanup_buf_ struct buf script = BUF_INIT(1 << 16);
	int r = buf_append_str(&script, "rm -f r; truncate -s 64M r; { printf 'label: gpt\\n'");

	for (size_t i = 0; i < MAX_PARTS && parts[i].type && r == 0; i++)
		r = buf_appendf(&script, "; printf 'start=%zu,size=%d,type=%s,uuid=00000000-0000-0000-0000-0000000000A%zu\\n'",
			(1 + i * PART_MIB) * 2048, PART_MIB * 2048, parts[i].type, i + 1);
	if (r == 0)
		r = buf_append_str(&script, "; } | sfdisk -q r");
	for (size_t i = 0; i < MAX_PARTS && parts[i].type && r == 0; i++)
		r = buf_appendf(&script, "; rm -f p; truncate -s %dM p; %s; dd if=p of=r bs=1M seek=%zu conv=notrunc,sparse status=none",
			PART_MIB, parts[i].make, 1 + i * PART_MIB);
	assert_int_equal(r, 0);
	shell(NULL, buf_str(&script));
}

static int layout_of(const char *name, enum arch arch, bool probed, struct disk_layout *l, struct err *e)
{
	struct opened o;
	int r;

	err_clear(e);
	memset(l, 0, sizeof(*l));
	open_disk(&o, name);
	r = disk_layout_read(o.dev, arch, probed ? fake_probe : NULL, NULL, l, e);
	close_disk(&o);
	return r;
}

static void test_root(void **state)
{
	static const struct {
		const char *why;
		struct plan_part parts[MAX_PARTS];
		const char *selector;
		int code;
		unsigned root, boot; /* numbers; 0 none */
		const char *words;
	} cases[] = {
		{ "Debian: by type", { { ESP, VFAT }, { BIOS_BOOT, EMPTY }, { ROOT_AMD64, EXT4("root") } }, NULL, 0, 3, 0, NULL },
		{ "Ubuntu: by contents, BOOT beside it",
			{ { LINUX_DATA, EXT4("root") }, { LINUX_DATA, EXT4("BOOT") }, { ESP, VFAT } }, NULL, 0, 1, 2, NULL },
		{ "BOOT before the root", { { XBOOTLDR, EXT4("kernels") }, { LINUX_DATA, EXT4("root") } }, NULL, 0, 2, 1, NULL },
		{ "kernels without a name", { { LINUX_DATA, EXT4("kernels") }, { LINUX_DATA, EXT4("root") } }, NULL, 0, 2, 1, NULL },
		{ "two by contents", { { LINUX_DATA, EXT4("root") }, { LINUX_DATA, EXT4("root2") } }, NULL, -ENOTUNIQ, 0, 0,
			"more than one partition can be the root for amd64" },
		{ "two by contents, the type decides", { { LINUX_DATA, EXT4("root") }, { ROOT_AMD64, EXT4("root2") } }, NULL, 0, 2, 0,
			NULL },
		{ "two by type", { { ROOT_AMD64, EXT4("root") }, { ROOT_AMD64, EXT4("root2") } }, NULL, -ENOTUNIQ, 0, 0,
			"1: ext4 `root`, 8 MiB, root, Testix 1; 2: ext4 `root2`" },
		{ "two by type, one empty", { { ROOT_AMD64, EXT4("data") }, { ROOT_AMD64, EXT4("root2") } }, NULL, 0, 2, 0, NULL },
		{ "typed, but not a root", { { ROOT_AMD64, EXT4("data") } }, NULL, -ENOENT, 0, 0, "without os-release and /usr" },
		{ "typed for another architecture", { { ROOT_ARM64, EXT4("root") } }, NULL, -ENOENT, 0, 0, "typed as root for arm64" },
		{ "both architectures", { { ROOT_ARM64, EXT4("root") }, { ROOT_AMD64, EXT4("root") } }, NULL, 0, 2, 0, NULL },
		{ "nothing", { { LINUX_DATA, EXT4("data") }, { ESP, VFAT }, { SWAP, EMPTY } }, NULL, -ENOENT, 0, 0,
			"2: vfat, 8 MiB, esp; 3: no known filesystem, 8 MiB, swap" },
		{ "xfs by type", { { LINUX_DATA, EXT4("BOOT") }, { ROOT_AMD64, XFS } }, NULL, -EOPNOTSUPP, 0, 1, "(2) holds xfs" },
		{ "Fedora: btrfs beside a /boot", { { ESP, VFAT }, { LINUX_DATA, EXT4("BOOT") }, { LINUX_DATA, BTRFS } }, NULL,
			-EOPNOTSUPP, 0, 2, "(3) holds btrfs" },
		{ "an xfs of data beside the root", { { LINUX_DATA, XFS }, { LINUX_DATA, EXT4("root") } }, NULL, 0, 2, 0, NULL },
		{ "xfs by type beside another root", { { ROOT_AMD64, XFS }, { LINUX_DATA, EXT4("root") } }, NULL, -EOPNOTSUPP, 0, 0,
			"(1) holds xfs" },
		{ "typed and broken beside another root", { { ROOT_AMD64, EXT4("broken") }, { LINUX_DATA, EXT4("root") } }, NULL,
			-EBADMSG, 0, 0, "block group 3" },
		{ "only a broken one", { { LINUX_DATA, EXT4("broken") } }, NULL, -EBADMSG, 0, 0, "(1) cannot be read: block group 3" },
		{ "a broken one of data", { { LINUX_DATA, EXT4("broken") }, { LINUX_DATA, EXT4("root") } }, NULL, 0, 2, 0, NULL },
		{ "number", { { LINUX_DATA, EXT4("root") }, { LINUX_DATA, EXT4("root2") } }, "2", 0, 2, 0, NULL },
		{ "number of none", { { LINUX_DATA, EXT4("root") } }, "2", -ENOENT, 0, 0, "`2` matches nothing" },
		{ "number 0", { { LINUX_DATA, EXT4("root") } }, "0", -EINVAL, 0, 0, "neither a number" },
		{ "label", { { LINUX_DATA, EXT4("root") }, { LINUX_DATA, EXT4("root2") } }, "LABEL=root2", 0, 2, 0, NULL },
		{ "label of two", { { LINUX_DATA, EXT4("root") }, { LINUX_DATA, EXT4("root") } }, "LABEL=root", -ENOTUNIQ, 0, 0,
			"matches partitions 1 and 2" },
		{ "label of an xfs", { { LINUX_DATA, EXT4("root") }, { LINUX_DATA, XFS } }, "2", -EOPNOTSUPP, 0, 0, "(2) holds xfs" },
		{ "not a root, but asked for", { { LINUX_DATA, EXT4("root") }, { LINUX_DATA, EXT4("data") } }, "LABEL=data", 0, 2, 0,
			NULL },
		{ "PARTUUID", { { LINUX_DATA, EXT4("root") }, { LINUX_DATA, EXT4("root2") } },
			"PARTUUID=00000000-0000-0000-0000-0000000000a2", 0, 2, 0, NULL },
		{ "PARTUUID of none", { { LINUX_DATA, EXT4("root") } }, "PARTUUID=1", -ENOENT, 0, 0, "matches nothing" },
		{ "another kind", { { LINUX_DATA, EXT4("root") } }, "UUID=1", -EINVAL, 0, 0, "neither a number" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_disk_layout_ struct disk_layout l;
		struct err e = ERR_INIT;
		size_t index = 999, boot = 999;
		int r;

		make_disk(cases[i].parts);
		if (layout_of("r", ARCH_AMD64, true, &l, &e) < 0)
			fail_msg("%s: %s", cases[i].why, e.message);
		r = disk_find_root(&l, cases[i].selector, &index, &e);
		if (r != cases[i].code)
			fail_msg("%s: got %d (%s)", cases[i].why, r, e.message);
		assert_says(&e, cases[i].words);
		if (r == 0 && l.parts[index].part.number != cases[i].root)
			fail_msg("%s: chose partition %u", cases[i].why, l.parts[index].part.number);
		if (r < 0)
			assert_int_equal(e.kind, cases[i].selector && r != -EOPNOTSUPP ? ERR_KIND_USAGE : ERR_KIND_INPUT);
		r = disk_find_boot(&l, index, &boot);
		if ((r == 0 ? l.parts[boot].part.number : 0) != cases[i].boot)
			fail_msg("%s: boot is %u", cases[i].why, r == 0 ? l.parts[boot].part.number : 0);
	}
}

static void test_root_without_probe_or_table(void **state)
{
	static const struct plan_part typed[MAX_PARTS] = { { ESP, VFAT }, { ROOT_AMD64, EXT4("x") } },
				      untyped[MAX_PARTS] = { { LINUX_DATA, EXT4("x") } };
	struct err e = ERR_INIT;
	size_t index = 9;

	(void)state;
	{
		_cleanup_disk_layout_ struct disk_layout l;

		make_disk(typed);
		assert_int_equal(layout_of("r", ARCH_AMD64, false, &l, &e), 0);
		assert_int_equal(disk_find_root(&l, NULL, &index, &e), 0);
		assert_int_equal(index, 1);
	}
	{
		_cleanup_disk_layout_ struct disk_layout l;

		assert_int_equal(layout_of("r", ARCH_ARM64, false, &l, &e), 0);
		assert_int_equal(disk_find_root(&l, NULL, &index, &e), -ENOENT);
	}
	{
		_cleanup_disk_layout_ struct disk_layout l;

		make_disk(untyped);
		assert_int_equal(layout_of("r", ARCH_AMD64, false, &l, &e), 0);
		assert_int_equal(disk_find_root(&l, "", &index, &e), -ENOENT);
	}
	{
		_cleanup_disk_layout_ struct disk_layout l;

		shell(NULL, "rm -f w; truncate -s 8M w; mke2fs -q -t ext4 -L root w");
		assert_int_equal(layout_of("w", ARCH_AMD64, true, &l, &e), 0);
		assert_int_equal(l.kind, PARTITION_TABLE_NONE);
		assert_int_equal(disk_find_root(&l, NULL, &index, &e), 0);
		assert_int_equal(l.parts[index].part.number, 0);
		assert_int_equal(l.parts[index].part.range.size_bytes, 8 << 20);
		assert_int_equal(disk_find_root(&l, "1", &index, &e), -ENOENT);
		assert_int_equal(disk_find_root(&l, "LABEL=root", &index, &e), 0);
	}
	{
		struct disk_layout l;
		struct opened o;

		open_disk(&o, "w");
		assert_int_equal(disk_layout_read(o.dev, ARCH_AMD64, fake_probe, (void *)(uintptr_t) "no memory", &l, &e), -ENOMEM);
		close_disk(&o);
	}
}

/* A list of more partitions than a message holds is cut, not refused. */
static void test_long_listing(void **state)
{
	_cleanup_disk_layout_ struct disk_layout l;
	struct err e = ERR_INIT;
	size_t index;

	(void)state;
	shell(NULL, "rm -f many; truncate -s 300M many; { echo 'label: gpt'; for i in $(seq 128); do "
		    "echo \"start=$((2048 + i * 2048)),size=1024,type=" LINUX_DATA "\"; done; } | sfdisk -q many");
	assert_int_equal(layout_of("many", ARCH_AMD64, true, &l, &e), 0);
	assert_int_equal(l.n, 128);
	assert_int_equal(disk_find_root(&l, NULL, &index, &e), -ENOENT);
	assert_says(&e, "20: no known filesystem");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gpt),
		cmocka_unit_test(test_gpt_damaged),
		cmocka_unit_test(test_gpt_oversized),
		cmocka_unit_test(test_4096_byte_sectors),
		cmocka_unit_test(test_images_of_others),
		cmocka_unit_test(test_mbr_with_logical_partitions),
		cmocka_unit_test(test_no_table),
		cmocka_unit_test(test_random_damage),
		cmocka_unit_test(test_root),
		cmocka_unit_test(test_root_without_probe_or_table),
		cmocka_unit_test(test_long_listing),
	};
	_cleanup_free_ char *data = realpath(getenv("IMGBUILD_TEST_DATA") ? getenv("IMGBUILD_TEST_DATA") : "../shared/data", NULL);

	if (!data) {
		print_error("the test data is missing: set IMGBUILD_TEST_DATA\n");
		return 1;
	}
	data_dir = data;
	return cmocka_run_group_tests(tests, make_test_dir, remove_test_dir);
}
