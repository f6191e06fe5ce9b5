#include "builder/disk/fstype.h"
#include "lib/num.h"

#include <string.h>

enum {
	HEAD_BYTES = 72 << 10, /* btrfs has its superblock at 64 KiB */
	FAT_LABEL_BYTES = 11
};

/* ext2/3/4: SOURCE linux Documentation/filesystems/ext4/super.rst. The superblock is at 1024. */
enum {
	EXT_SUPER = 1024,
	EXT_MAGIC = EXT_SUPER + 0x38,
	EXT_COMPAT = EXT_SUPER + 0x5C,
	EXT_INCOMPAT = EXT_SUPER + 0x60,
	EXT_RO_COMPAT = EXT_SUPER + 0x64,
	EXT_UUID = EXT_SUPER + 0x68,
	EXT_LABEL = EXT_SUPER + 0x78,
	EXT_LABEL_BYTES = 16
};
#define EXT_COMPAT_HAS_JOURNAL 0x4u
#define EXT_INCOMPAT_JOURNAL_DEV 0x8u
#define EXT_EXT3_INCOMPAT 0x16u	  /* filetype, recover, meta_bg: what ext3 knew */
#define EXT_EXT3_RO_COMPAT 0x7u	  /* sparse_super, large_file, btree_dir */

static void put_uuid(char *dst, size_t dst_size, const uint8_t *u)
{
	static const uint8_t zero[16];

	if (memcmp(u, zero, sizeof(zero)) != 0)
		(void)snprintf(dst, dst_size, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0],
			u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

static void put_label(struct disk_fs *fs, const uint8_t *label, size_t max)
{
	size_t len = strnlen((const char *)label, max);

	while (len > 0 && label[len - 1] == ' ') /* FAT pads with spaces */
		len--;
	(void)err_sanitize(fs->label, sizeof(fs->label), (const char *)label, len);
}

static void put_type(struct disk_fs *fs, const char *type)
{
	(void)snprintf(fs->type, sizeof(fs->type), "%s", type);
}

static bool has(const uint8_t *b, size_t len, size_t at, const char *magic, size_t magic_len)
{
	return at + magic_len <= len && memcmp(b + at, magic, magic_len) == 0;
}

static bool detect_ext(const uint8_t *b, size_t len, struct disk_fs *fs)
{
	uint32_t compat, incompat, ro_compat;

	if (len < EXT_SUPER + 1024 || read_le16(b + EXT_MAGIC) != 0xEF53)
		return false;
	compat = read_le32(b + EXT_COMPAT);
	incompat = read_le32(b + EXT_INCOMPAT);
	ro_compat = read_le32(b + EXT_RO_COMPAT);
	if (incompat & EXT_INCOMPAT_JOURNAL_DEV)
		put_type(fs, "jbd"); /* an external journal: no filesystem */
	else if ((incompat & ~EXT_EXT3_INCOMPAT) || (ro_compat & ~EXT_EXT3_RO_COMPAT))
		put_type(fs, "ext4");
	else
		put_type(fs, compat & EXT_COMPAT_HAS_JOURNAL ? "ext3" : "ext2");
	put_label(fs, b + EXT_LABEL, EXT_LABEL_BYTES);
	put_uuid(fs->uuid, sizeof(fs->uuid), b + EXT_UUID);
	return true;
}

/* FAT: SOURCE Microsoft FAT specification 1.03, the BIOS parameter block. */
static bool detect_vfat(const uint8_t *b, size_t len, struct disk_fs *fs)
{
	size_t tail;
	uint16_t sector;

	if (len < 512 || b[510] != 0x55 || b[511] != 0xAA || (b[0] != 0xEB && b[0] != 0xE9))
		return false;
	sector = read_le16(b + 11);
	if (sector < 512 || sector > 4096 || (sector & (sector - 1)) || b[13] == 0 || (b[13] & (b[13] - 1)) || b[16] == 0)
		return false;
	if (has(b, len, 82, "FAT32   ", 8))
		tail = 67;
	else if (has(b, len, 54, "FAT12   ", 8) || has(b, len, 54, "FAT16   ", 8) || has(b, len, 54, "FAT     ", 8))
		tail = 39;
	else
		return false;
	put_type(fs, "vfat");
	(void)snprintf(fs->uuid, sizeof(fs->uuid), "%02x%02x-%02x%02x", b[tail + 3], b[tail + 2], b[tail + 1], b[tail]);
	if (!has(b, len, tail + 4, "NO NAME    ", FAT_LABEL_BYTES))
		put_label(fs, b + tail + 4, FAT_LABEL_BYTES);
	return true;
}

/* The signature of swap is at the end of its first page, whose size is that of the machine that made it. */
static bool detect_swap(const uint8_t *b, size_t len, struct disk_fs *fs)
{
	static const size_t pages[] = { 4096, 8192, 16384, 65536 };

	for (size_t i = 0; i < ARRAY_SIZE(pages); i++) {
		if (!has(b, len, pages[i] - 10, "SWAPSPACE2", 10) && !has(b, len, pages[i] - 10, "SWAP-SPACE", 10))
			continue;
		put_type(fs, "swap");
		put_uuid(fs->uuid, sizeof(fs->uuid), b + 1024 + 12);
		put_label(fs, b + 1024 + 28, 16);
		return true;
	}
	return false;
}

static void detect(const uint8_t *b, size_t len, struct disk_fs *fs)
{
	if (has(b, len, 0, "LUKS\xba\xbe", 6)) {
		put_type(fs, "luks");
	} else if (has(b, len, 0, "XFSB", 4) && len >= 512) { /* SOURCE: XFS algorithms and data structures, sb */
		put_type(fs, "xfs");
		put_uuid(fs->uuid, sizeof(fs->uuid), b + 32);
		put_label(fs, b + 108, 12);
	} else if (has(b, len, 65536 + 64, "_BHRfS_M", 8) && len >= 65536 + 4096) { /* SOURCE: btrfs super block */
		put_type(fs, "btrfs");
		put_uuid(fs->uuid, sizeof(fs->uuid), b + 65536 + 32);
		put_label(fs, b + 65536 + 299, 256);
	} else if (has(b, len, 0, "hsqs", 4)) {
		put_type(fs, "squashfs");
	} else if (len >= 1028 && read_le32(b + 1024) == 0xE0F5E1E2) {
		put_type(fs, "erofs");
		put_uuid(fs->uuid, sizeof(fs->uuid), b + 1024 + 48);
	} else if (len >= 1028 && read_le32(b + 1024) == 0xF2F52010) {
		put_type(fs, "f2fs");
	} else if (has(b, len, 3, "NTFS    ", 8)) {
		put_type(fs, "ntfs");
	} else if (has(b, len, 512 + 24, "LVM2 001", 8) || has(b, len, 24, "LVM2 001", 8)) {
		put_type(fs, "lvm");
	} else if (has(b, len, 32769, "CD001", 5)) {
		put_type(fs, "iso9660");
	} else if (!detect_ext(b, len, fs) && !detect_vfat(b, len, fs)) {
		(void)detect_swap(b, len, fs);
	}
}

int fstype_detect(struct blockdev *part, struct disk_fs *ret, struct err *e)
{
	size_t len = part->size_bytes < HEAD_BYTES ? (size_t)part->size_bytes : HEAD_BYTES;
	_cleanup_free_ uint8_t *head = calloc(1, HEAD_BYTES);
	int r;

	if (!head)
		return err_set(e, -ENOMEM, "out of memory");
	r = blockdev_read(part, head, len, 0, e);
	if (r < 0)
		return err_wrap(e, "looking for a filesystem");
	memset(ret, 0, sizeof(*ret));
	detect(head, len, ret);
	return 0;
}

bool fstype_is_ext(const struct disk_fs *fs)
{
	return strncmp(fs->type, "ext", 3) == 0;
}
