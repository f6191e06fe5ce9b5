#include "builder/ext4/ext4.h"

#include "builder/ext4/ext4_impl.h"
#include "lib/io.h"
#include "lib/num.h"

#include <assert.h>
#include <e2p/e2p.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

/* Fields of the superblock, offsets from its start. SOURCE: Linux Documentation/filesystems/ext4, "Super Block". */
enum {
	SB_OFFSET = 1024, /* from the start of the filesystem */
	SB_SIZE = 1024,
	SB_INODES_COUNT = 0x00,
	SB_BLOCKS_COUNT_LO = 0x04,
	SB_FIRST_DATA_BLOCK = 0x14,
	SB_LOG_BLOCK_SIZE = 0x18,
	SB_LOG_CLUSTER_SIZE = 0x1C,
	SB_BLOCKS_PER_GROUP = 0x20,
	SB_CLUSTERS_PER_GROUP = 0x24,
	SB_INODES_PER_GROUP = 0x28,
	SB_MAGIC = 0x38,
	SB_STATE = 0x3A,
	SB_REV_LEVEL = 0x4C,
	SB_FEATURE_COMPAT = 0x5C,
	SB_FEATURE_INCOMPAT = 0x60,
	SB_FEATURE_RO_COMPAT = 0x64,
	SB_UUID = 0x68,
	SB_VOLUME_NAME = 0x78,
	SB_LAST_ORPHAN = 0xE8,
	SB_BLOCKS_COUNT_HI = 0x150
};

#define LOG_BLOCK_SIZE_MAX 6 /* 64 KiB */
#define LOG_CLUSTER_RATIO_MAX 16 /* bigalloc: blocks in a cluster */
#define IO_CHUNK_BYTES (1u << 20)
#define INCOMPAT_READABLE                                                                                    \
	(EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_RECOVER | EXT2_FEATURE_INCOMPAT_META_BG |     \
		EXT3_FEATURE_INCOMPAT_EXTENTS | EXT4_FEATURE_INCOMPAT_64BIT | EXT4_FEATURE_INCOMPAT_MMP |     \
		EXT4_FEATURE_INCOMPAT_FLEX_BG | EXT4_FEATURE_INCOMPAT_EA_INODE |                              \
		EXT4_FEATURE_INCOMPAT_CSUM_SEED | EXT4_FEATURE_INCOMPAT_LARGEDIR |                            \
		EXT4_FEATURE_INCOMPAT_INLINE_DATA | EXT4_FEATURE_INCOMPAT_ENCRYPT |                           \
		EXT4_FEATURE_INCOMPAT_CASEFOLD)

struct ext4_file {
	struct ext4 *fs; /* borrowed */
	uint32_t number;
	struct ext2_inode_large inode;
	uint64_t size_bytes;
	ext2_extent_handle_t extents; /* NULL: not an extent file, or not opened yet */
	struct buf inline_data;	      /* of EXT4_INLINE_DATA_FL files */
	bool is_inline;
	uint8_t *pointers; /* the last two indirect blocks read, of a block-mapped file; see read_pointers() */
	uint64_t pointer_block[3];
};

/* ---- errors ---- */

int ext4_lib_error(struct ext4 *fs, errcode_t code, struct err *e, const char *fmt, ...)
{
	const struct error_table *t = &et_ext2_error_table;
	char what[512];
	const char *why;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (fs && fs->io_err.code < 0) {
		enum err_kind kind = e->kind;

		*e = fs->io_err;
		if (kind != ERR_KIND_UNSET)
			e->kind = kind;
		err_clear(&fs->io_err);
		return err_wrap(e, "%s", what);
	}
	if (code == EXT2_ET_NO_MEMORY || code == ENOMEM)
		return err_set(e, -ENOMEM, "%s: out of memory", what);
	/* error_message() would need com_err's process-wide list of tables; the table itself is at hand. */
	if (code >= t->base && code < t->base + (long)t->n_msgs)
		why = t->msgs[code - t->base];
	else
		why = code > 0 && code < 4096 ? strerror((int)code) : "an error without a name";
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: the filesystem is damaged: %s", what, why);
}

bool ext4_is_contents_error(int code)
{
	switch (-code) {
	case EMEDIUMTYPE:
	case EUCLEAN:
	case ENOTSUP:
	case EBADMSG:
	case ENOENT:
	case ENOTDIR:
	case ELOOP:
	case EISDIR:
	case EINVAL:
	case E2BIG:
	case ENAMETOOLONG:
		return true;
	default:
		return false;
	}
}

static int damaged(struct err *e, const char *fmt, ...) _printf_(2, 3);
static int damaged(struct err *e, const char *fmt, ...)
{
	char what[512];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the filesystem is damaged: %s", what);
}

/* ---- libext2fs' view of a block device ---- */

static struct ext4 *channel_fs(io_channel channel)
{
	return channel->private_data;
}

static const struct struct_io_manager dev_manager;

/* The manager's open() gets a name and nothing else, so the name is the address of our struct. */
static errcode_t dev_open(const char *name, int flags, io_channel *ret)
{
	io_channel channel;
	void *fs;

	if (flags & IO_FLAG_RW || sscanf(name, "%p", &fs) != 1)
		return EXT2_ET_BAD_DEVICE_NAME;
	channel = calloc(1, sizeof(*channel));
	if (!channel)
		return EXT2_ET_NO_MEMORY;
	channel->name = strdup(name);
	if (!channel->name) {
		free(channel);
		return EXT2_ET_NO_MEMORY;
	}
	channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel->manager = (io_manager)(uintptr_t)&dev_manager;
	channel->block_size = 1024;
	channel->refcount = 1;
	channel->private_data = fs;
	*ret = channel;
	return 0;
}

static errcode_t dev_close(io_channel channel)
{
	if (--channel->refcount > 0)
		return 0;
	free(channel->name);
	free(channel);
	return 0;
}

static errcode_t dev_set_blksize(io_channel channel, int block_size)
{
	if (block_size <= 0)
		return EXT2_ET_INVALID_ARGUMENT;
	channel->block_size = block_size;
	return 0;
}

/* A negative count is a number of bytes. */
static errcode_t dev_read_blk64(io_channel channel, unsigned long long block, int count, void *data)
{
	struct ext4 *fs = channel_fs(channel);
	uint64_t size = count < 0 ? (uint64_t) - (int64_t)count : (uint64_t)count * (uint64_t)channel->block_size;
	uint64_t offset;
	struct err e = ERR_INIT;

	if (!checked_mul_u64(block, (uint64_t)channel->block_size, &offset) ||
		!range_within(offset, size, fs->dev->size_bytes))
		return EXT2_ET_SHORT_READ;
	if (blockdev_read(fs->dev, data, (size_t)size, offset, &e) < 0) {
		fs->io_err = e;
		return EXT2_ET_SHORT_READ;
	}
	return 0;
}

static errcode_t dev_read_blk(io_channel channel, unsigned long block, int count, void *data)
{
	return dev_read_blk64(channel, block, count, data);
}

static errcode_t dev_write_blk64(io_channel channel, unsigned long long block, int count, const void *data)
{
	(void)channel, (void)block, (void)count, (void)data;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t dev_write_blk(io_channel channel, unsigned long block, int count, const void *data)
{
	(void)channel, (void)block, (void)count, (void)data;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t dev_flush(io_channel channel)
{
	(void)channel;
	return 0;
}

/* libext2fs wants a pointer to something that is not const, and does not write through it. */
static const struct struct_io_manager dev_manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "imgbuild block device",
	.open = dev_open,
	.close = dev_close,
	.set_blksize = dev_set_blksize,
	.read_blk = dev_read_blk,
	.write_blk = dev_write_blk,
	.flush = dev_flush,
	.read_blk64 = dev_read_blk64,
	.write_blk64 = dev_write_blk64,
};

/* ---- superblock ---- */

/* Read len bytes at offset when the device has them; otherwise they are zero. */
static int read_or_zero(struct blockdev *dev, uint8_t *buf, size_t len, uint64_t offset, struct err *e)
{
	memset(buf, 0, len);
	return range_within(offset, len, dev->size_bytes) ? blockdev_read(dev, buf, len, offset, e) : 0;
}

/* Name a filesystem that is not ext, for the message; "no known filesystem" at worst. */
static int name_other_filesystem(struct blockdev *dev, const char **ret, struct err *e)
{
	uint8_t head[8], btrfs[8];
	int r = read_or_zero(dev, head, sizeof(head), 0, e);

	if (r == 0)
		r = read_or_zero(dev, btrfs, sizeof(btrfs), 0x10040, e);
	if (r < 0)
		return r;
	if (memcmp(head, "XFSB", 4) == 0)
		*ret = "an xfs filesystem";
	else if (memcmp(btrfs, "_BHRfS_M", 8) == 0)
		*ret = "a btrfs filesystem";
	else if (memcmp(head, "hsqs", 4) == 0)
		*ret = "a squashfs filesystem";
	else if (memcmp(head, "LUKS\xba\xbe", 6) == 0)
		*ret = "an encrypted (LUKS) volume";
	else if (memcmp(head, "QFI\xfb", 4) == 0)
		*ret = "a qcow2 image";
	else
		*ret = "no filesystem known here";
	return 0;
}

static void facts_from_superblock(const uint8_t *sb, struct ext4_facts *ret)
{
	const uint8_t *u = sb + SB_UUID;
	uint32_t incompat = read_le32(sb + SB_FEATURE_INCOMPAT), compat = read_le32(sb + SB_FEATURE_COMPAT),
		 ro_compat = read_le32(sb + SB_FEATURE_RO_COMPAT), log = read_le32(sb + SB_LOG_BLOCK_SIZE);
	uint16_t state = read_le16(sb + SB_STATE);
	const char *name = (const char *)sb + SB_VOLUME_NAME;

	if (read_le32(sb + SB_REV_LEVEL) == 0) /* revision 0 has no features */
		incompat = compat = ro_compat = 0;
	memset(ret, 0, sizeof(*ret));
	(void)err_sanitize(ret->label, sizeof(ret->label), name, strnlen(name, 16));
	(void)snprintf(ret->uuid, sizeof(ret->uuid),
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2], u[3], u[4],
		u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
	ret->block_size_bytes = log <= LOG_BLOCK_SIZE_MAX ? UINT32_C(1024) << log : 0;
	ret->blocks = read_le32(sb + SB_BLOCKS_COUNT_LO);
	if (incompat & EXT4_FEATURE_INCOMPAT_64BIT)
		ret->blocks |= (uint64_t)read_le32(sb + SB_BLOCKS_COUNT_HI) << 32;
	if (!checked_mul_u64(ret->blocks, ret->block_size_bytes, &ret->size_bytes))
		ret->size_bytes = UINT64_MAX;
	ret->inodes = read_le32(sb + SB_INODES_COUNT);
	ret->clean = (state & EXT2_VALID_FS) != 0;
	ret->has_errors = (state & EXT2_ERROR_FS) != 0;
	ret->has_journal = (compat & EXT3_FEATURE_COMPAT_HAS_JOURNAL) != 0;
	ret->needs_recovery = (incompat & EXT3_FEATURE_INCOMPAT_RECOVER) != 0;
	ret->has_metadata_csum = (ro_compat & EXT4_FEATURE_RO_COMPAT_METADATA_CSUM) != 0;
	ret->has_orphans = read_le32(sb + SB_LAST_ORPHAN) != 0 ||
		(ro_compat & EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT) != 0;
}

static int read_superblock(struct blockdev *dev, uint8_t sb[static SB_SIZE], struct err *e)
{
	const char *other;
	int r = read_or_zero(dev, sb, SB_SIZE, SB_OFFSET, e);

	if (r < 0)
		return err_wrap(e, "reading the superblock");
	if (read_le16(sb + SB_MAGIC) == EXT2_SUPER_MAGIC)
		return 0;
	r = name_other_filesystem(dev, &other, e);
	if (r < 0)
		return err_wrap(e, "looking for a filesystem");
	return err_set_kind(e, ERR_KIND_INPUT, -EMEDIUMTYPE,
		"there is no ext2, ext3 or ext4 filesystem but %s (%" PRIu64 " bytes)", other, dev->size_bytes);
}

int ext4_read_facts(struct blockdev *dev, struct ext4_facts *ret, struct err *e)
{
	uint8_t sb[SB_SIZE];
	int r = read_superblock(dev, sb, e);

	if (r < 0)
		return r;
	facts_from_superblock(sb, ret);
	return 0;
}

static int refuse_features(const uint8_t *sb, struct err *e)
{
	uint32_t incompat = read_le32(sb + SB_FEATURE_INCOMPAT);
	uint32_t lacking = read_le32(sb + SB_REV_LEVEL) == 0 ? 0 : incompat & ~(uint32_t)INCOMPAT_READABLE;
	char names[256] = "";

	if (lacking == 0)
		return 0;
	for (unsigned bit = 0; bit < 32; bit++) {
		char name[64];

		if (!(lacking & UINT32_C(1) << bit))
			continue;
		e2p_feature_to_string(E2P_FEATURE_INCOMPAT, 1u << bit, name, sizeof(name));
		(void)snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", names[0] ? ", " : "", name);
	}
	return err_set_kind(e, ERR_KIND_INPUT, -ENOTSUP, "the filesystem uses features that cannot be read here: %s", names);
}

/* Bound what libext2fs will allocate from these numbers, and what it would read outside of the device. */
static int judge_geometry(const struct blockdev *dev, const struct ext4_facts *facts, const uint8_t *sb, struct err *e)
{
	uint32_t per_group = read_le32(sb + SB_BLOCKS_PER_GROUP), inodes_per_group = read_le32(sb + SB_INODES_PER_GROUP);
	uint32_t first = read_le32(sb + SB_FIRST_DATA_BLOCK), clusters_per_group = read_le32(sb + SB_CLUSTERS_PER_GROUP);
	uint64_t groups;

	if (facts->block_size_bytes == 0)
		return damaged(e, "its block size is 1024 << %" PRIu32 " bytes, expected at most 65536",
			read_le32(sb + SB_LOG_BLOCK_SIZE));
	if (facts->blocks < 8 || first > 1 || first >= facts->blocks)
		return damaged(e, "it has %" PRIu64 " blocks of which the first is number %" PRIu32, facts->blocks, first);
	if (facts->size_bytes > dev->size_bytes)
		return damaged(e, "it has %" PRIu64 " bytes, but the device ends after %" PRIu64 ": the image is truncated",
			facts->size_bytes, dev->size_bytes);
	if (read_le32(sb + SB_FEATURE_RO_COMPAT) & EXT4_FEATURE_RO_COMPAT_BIGALLOC) {
		uint32_t log = read_le32(sb + SB_LOG_CLUSTER_SIZE) - read_le32(sb + SB_LOG_BLOCK_SIZE);

		if (log > LOG_CLUSTER_RATIO_MAX || (uint64_t)clusters_per_group << log != per_group)
			return damaged(e, "its clusters are 1 << %" PRIu32 " blocks, and %" PRIu32 " clusters make %" PRIu32
				" blocks", log, clusters_per_group, per_group);
	} else {
		clusters_per_group = per_group;
	}
	if (clusters_per_group < 8 || clusters_per_group > facts->block_size_bytes * 8)
		return damaged(e, "it has %" PRIu32 " blocks (or clusters) in a group, expected 8 to %" PRIu32,
			clusters_per_group, facts->block_size_bytes * 8);
	if (inodes_per_group < 1 || inodes_per_group > facts->block_size_bytes * 8)
		return damaged(e, "it has %" PRIu32 " inodes in a group, expected 1 to %" PRIu32, inodes_per_group,
			facts->block_size_bytes * 8);
	groups = (facts->blocks - first + per_group - 1) / per_group;
	if (groups > EXT4_GROUPS_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the filesystem has %" PRIu64 " block groups, at most %" PRIu32
			" are read here", groups, EXT4_GROUPS_MAX);
	if (facts->inodes != groups * inodes_per_group)
		return damaged(e, "it has %" PRIu32 " inodes, but %" PRIu64 " groups of %" PRIu32, facts->inodes, groups,
			inodes_per_group);
	return 0;
}

static bool is_data_block(const struct ext4 *fs, uint64_t block, uint64_t n)
{
	return block > fs->lib->super->s_first_data_block && range_within(block, n, fs->facts.blocks);
}

/* Besides what they mislead to, places outside make libext2fs print warnings of its own when it reads the bitmaps. */
static int verify_group_descriptors(struct ext4 *fs, struct err *e)
{
	bool has_csum = ext2fs_has_group_desc_csum(fs->lib);

	for (dgrp_t g = 0; g < fs->lib->group_desc_count; g++) {
		if (has_csum && !ext2fs_group_desc_csum_verify(fs->lib, g))
			return damaged(e, "the checksum of the descriptor of block group %u is wrong", g);
		if (!is_data_block(fs, ext2fs_block_bitmap_loc(fs->lib, g), 1) ||
			!is_data_block(fs, ext2fs_inode_bitmap_loc(fs->lib, g), 1) ||
			!is_data_block(fs, ext2fs_inode_table_loc(fs->lib, g), fs->lib->inode_blocks_per_group))
			return damaged(e, "the descriptor of block group %u speaks of blocks outside of the filesystem", g);
	}
	return 0;
}

int ext4_open(struct blockdev *dev, struct ext4 **ret, struct err *e)
{
	_cleanup_ext4_ struct ext4 *fs = calloc(1, sizeof(*fs));
	uint8_t sb[SB_SIZE];
	char name[32];
	errcode_t code;
	int r;

	if (!fs)
		return err_set(e, -ENOMEM, "out of memory");
	r = read_superblock(dev, sb, e);
	if (r < 0)
		return r;
	facts_from_superblock(sb, &fs->facts);
	fs->dev = dev;
	r = refuse_features(sb, e);
	if (r == 0)
		r = judge_geometry(dev, &fs->facts, sb, e);
	if (r < 0)
		return r;
	if (fs->facts.needs_recovery)
		return err_set_kind(e, ERR_KIND_INPUT, -EUCLEAN,
			"the filesystem was not unmounted: its journal holds changes that are not in it yet, so reading it would "
			"give stale files; replay the journal first (e2fsck -fy on a copy) or use an image that was shut down");
	(void)snprintf(name, sizeof(name), "%p", (void *)fs);
	code = ext2fs_open2(name, NULL, EXT2_FLAG_64BITS, 0, 0, (io_manager)(uintptr_t)&dev_manager, &fs->lib);
	if (code) {
		fs->lib = NULL;
		return ext4_lib_error(fs, code, e, "opening the filesystem");
	}
	r = verify_group_descriptors(fs, e);
	if (r < 0)
		return r;
	*ret = take_ptr(fs);
	return 0;
}

void ext4_free(struct ext4 *fs)
{
	if (!fs)
		return;
	if (fs->lib)
		ext2fs_free(fs->lib);
	free(fs);
}

const struct ext4_facts *ext4_facts(const struct ext4 *fs)
{
	return &fs->facts;
}

/* ---- inodes ---- */

int ext4_read_inode(struct ext4 *fs, uint32_t number, struct ext2_inode_large *ret, struct err *e)
{
	errcode_t code;

	if (number == 0 || number > fs->facts.inodes)
		return damaged(e, "inode number %" PRIu32 " is not between 1 and %" PRIu32, number, fs->facts.inodes);
	memset(ret, 0, sizeof(*ret));
	code = ext2fs_read_inode_full(fs->lib, number, (struct ext2_inode *)ret, sizeof(*ret));
	if (code)
		return ext4_lib_error(fs, code, e, "reading inode %" PRIu32, number);
	return 0;
}

static uint64_t inode_size_bytes(const struct ext2_inode_large *inode)
{
	return (uint64_t)inode->i_size_high << 32 | inode->i_size;
}

void ext4_stat_from_inode(uint32_t number, const struct ext2_inode_large *inode, struct ext4_stat *ret)
{
	uint32_t extra = 0;

	/* Bits 0 and 1 of the extra field are more seconds, the rest nanoseconds. It is there when i_extra_isize says so,
	 * counted from the end of the old 128 bytes. */
	if (inode->i_extra_isize >= offsetof(struct ext2_inode_large, i_mtime_extra) + 4 - 128)
		extra = inode->i_mtime_extra;
	*ret = (struct ext4_stat){
		.inode = number,
		.mode = inode->i_mode,
		.uid = (uint32_t)inode->i_uid | (uint32_t)inode->osd2.linux2.l_i_uid_high << 16,
		.gid = (uint32_t)inode->i_gid | (uint32_t)inode->osd2.linux2.l_i_gid_high << 16,
		.links = inode->i_links_count,
		.size_bytes = inode_size_bytes(inode),
		.mtime_seconds = (int64_t)(int32_t)inode->i_mtime + ((int64_t)(extra & 3) << 32),
		.mtime_nanoseconds = extra >> 2,
	};
	if (S_ISCHR(ret->mode) || S_ISBLK(ret->mode)) {
		uint32_t old = inode->i_block[0], new = inode->i_block[1];

		ret->size_bytes = 0;
		ret->rdev_major = old ? (old >> 8) & 0xFF : (new >> 8) & 0xFFF;
		ret->rdev_minor = old ? old & 0xFF : (new & 0xFF) | ((new >> 12) & 0xFFF00);
	}
}

/* ---- the blocks of a file ---- */

static int open_inline(struct ext4_file *f, struct err *e)
{
	size_t size = 0;
	errcode_t code = ext2fs_inline_data_size(f->fs->lib, f->number, &size);
	int r;

	if (code)
		return ext4_lib_error(f->fs, code, e, "reading the data inside inode %" PRIu32, f->number);
	if (size > EXT4_XATTR_MAX_BYTES)
		return damaged(e, "inode %" PRIu32 " claims %zu bytes of data inside itself", f->number, size);
	buf_init(&f->inline_data, EXT4_XATTR_MAX_BYTES);
	r = buf_reserve(&f->inline_data, size);
	if (r < 0)
		return err_set(e, r, "out of memory");
	code = ext2fs_inline_data_get(f->fs->lib, f->number, NULL, f->inline_data.data, &size);
	if (code)
		return ext4_lib_error(f->fs, code, e, "reading the data inside inode %" PRIu32, f->number);
	f->inline_data.len = size;
	f->is_inline = true;
	return 0;
}

static int open_extents(struct ext4_file *f, struct err *e)
{
	const uint8_t *header = (const uint8_t *)f->inode.i_block;
	errcode_t code;

	/* libext2fs allocates a block for each level that the header claims, up to 65535 of them. */
	if (ext2fs_le16_to_cpu(*(const uint16_t *)(const void *)(header + 6)) > EXT4_EXTENT_DEPTH_MAX)
		return damaged(e, "the extent tree of inode %" PRIu32 " is more than %d levels deep", f->number,
			EXT4_EXTENT_DEPTH_MAX);
	code = ext2fs_extent_open2(f->fs->lib, f->number, (struct ext2_inode *)&f->inode, &f->extents);
	if (code)
		return ext4_lib_error(f->fs, code, e, "reading the extents of inode %" PRIu32, f->number);
	return 0;
}

int ext4_open_data(struct ext4 *fs, uint32_t number, struct ext4_file **ret, struct err *e)
{
	_cleanup_ext4_file_ struct ext4_file *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_set(e, -ENOMEM, "out of memory");
	f->fs = fs;
	f->number = number;
	r = ext4_read_inode(fs, number, &f->inode, e);
	if (r < 0)
		return r;
	f->size_bytes = inode_size_bytes(&f->inode);
	if (f->size_bytes > INT64_MAX)
		return damaged(e, "inode %" PRIu32 " claims a size of %" PRIu64 " bytes", number, f->size_bytes);
	if (f->inode.i_flags & EXT4_ENCRYPT_FL)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOTSUP, "inode %" PRIu32 " is encrypted", number);
	if (f->inode.i_flags & EXT4_INLINE_DATA_FL)
		r = open_inline(f, e);
	else if (f->inode.i_flags & EXT4_EXTENTS_FL)
		r = open_extents(f, e);
	if (r < 0)
		return r;
	*ret = take_ptr(f);
	return 0;
}

void ext4_file_free(struct ext4_file *f)
{
	if (!f)
		return;
	if (f->extents)
		ext2fs_extent_free(f->extents);
	buf_release(&f->inline_data);
	free(f->pointers);
	free(f);
}

/* A run that was read from the disk must lie between the first data block and the end of the filesystem. */
static int judge_run(const struct ext4_file *f, const struct ext4_run *run, struct err *e)
{
	if (run->physical != 0 &&
		(run->physical <= f->fs->lib->super->s_first_data_block ||
			!range_within(run->physical, run->n_blocks, f->fs->facts.blocks)))
		return damaged(e, "inode %" PRIu32 " keeps block %" PRIu64 " of its data in blocks %" PRIu64 " to %" PRIu64
			", the filesystem has %" PRIu64, f->number, run->logical, run->physical,
			run->physical + run->n_blocks - 1, f->fs->facts.blocks);
	return 0;
}

/* Stand on the extent, or index entry, after the current one. NEXT_LEAF would do, but after a goto it can lead back to
 * the first extent, since goto does not note which index entries it came through. */
static errcode_t next_of_any_level(ext2_extent_handle_t extents, struct ext2fs_extent *x)
{
	for (;;) {
		errcode_t code = ext2fs_extent_get(extents, EXT2_EXTENT_NEXT_SIB, x);

		if (code != EXT2_ET_EXTENT_NO_NEXT)
			return code;
		code = ext2fs_extent_get(extents, EXT2_EXTENT_UP, x);
		if (code)
			return code == EXT2_ET_EXTENT_NO_UP ? EXT2_ET_EXTENT_NO_NEXT : code;
	}
}

/* After the lookup of `logical` failed: a hole up to the next extent, which the handle stands at, or just before. */
static int map_extent_hole(struct ext4_file *f, uint64_t logical, struct ext4_run *ret, struct err *e)
{
	struct ext2fs_extent x;
	errcode_t code = ext2fs_extent_get(f->extents, EXT2_EXTENT_CURRENT, &x);

	if (code == 0 && x.e_lblk <= logical)
		code = next_of_any_level(f->extents, &x);
	*ret = (struct ext4_run){ .logical = logical, .n_blocks = UINT64_MAX - logical };
	if (code == EXT2_ET_EXTENT_NO_NEXT || code == EXT2_ET_NO_CURRENT_NODE)
		return 0; /* the last one: a hole to the end */
	if (code)
		return ext4_lib_error(f->fs, code, e, "reading the extents of inode %" PRIu32, f->number);
	if (x.e_lblk <= logical)
		return damaged(e, "the extents of inode %" PRIu32 " are out of order at block %" PRIu64, f->number, logical);
	ret->n_blocks = x.e_lblk - logical;
	return 0;
}

static int map_extent(struct ext4_file *f, uint64_t logical, struct ext4_run *ret, struct err *e)
{
	struct ext2fs_extent x;
	errcode_t code = ext2fs_extent_goto(f->extents, logical);

	if (code == EXT2_ET_EXTENT_NOT_FOUND)
		return map_extent_hole(f, logical, ret, e);
	if (code == 0)
		code = ext2fs_extent_get(f->extents, EXT2_EXTENT_CURRENT, &x);
	if (code)
		return ext4_lib_error(f->fs, code, e, "reading the extents of inode %" PRIu32, f->number);
	if (logical < x.e_lblk || logical - x.e_lblk >= x.e_len)
		return damaged(e, "the extents of inode %" PRIu32 " contradict themselves at block %" PRIu64, f->number,
			logical);
	*ret = (struct ext4_run){ .logical = logical, .n_blocks = x.e_len - (logical - x.e_lblk) };
	if (x.e_flags & EXT2_EXTENT_FLAGS_UNINIT)
		return 0; /* allocated and never written: reads as zero */
	ret->physical = x.e_pblk + (logical - x.e_lblk);
	return ret->physical == 0 ? damaged(e, "inode %" PRIu32 " keeps data in block 0", f->number) : judge_run(f, ret, e);
}

/* The block of pointers at `block`, borrowed until the next call for the same level. One block per level is kept. */
static int read_pointers(struct ext4_file *f, unsigned level, uint64_t block, const uint8_t **ret, struct err *e)
{
	uint32_t size = f->fs->facts.block_size_bytes;
	uint8_t *at;
	errcode_t code;

	if (!f->pointers) {
		f->pointers = malloc(3 * (size_t)size);
		if (!f->pointers)
			return err_set(e, -ENOMEM, "out of memory");
	}
	at = f->pointers + (size_t)level * size;
	*ret = at;
	if (f->pointer_block[level] == block)
		return 0;
	f->pointer_block[level] = 0;
	code = io_channel_read_blk64(f->fs->lib->io, block, 1, at);
	if (code)
		return ext4_lib_error(f->fs, code, e, "reading the block list of inode %" PRIu32, f->number);
	f->pointer_block[level] = block;
	return 0;
}

/* Count how many of the pointers from `i` on continue the first: consecutive blocks, or zeros. */
static uint64_t count_run(const uint8_t *pointers, uint64_t i, uint64_t n, uint32_t first)
{
	uint64_t run = 1;

	while (i + run < n && read_le32(pointers + 4 * (i + run)) == (first ? first + (uint32_t)run : 0))
		run++;
	return run;
}

/* Ext2's way: 12 direct pointers, then trees of one, two and three levels. */
static int map_pointers(struct ext4_file *f, uint64_t logical, struct ext4_run *ret, struct err *e)
{
	uint64_t per_block = f->fs->facts.block_size_bytes / 4, left = logical, span = 1, n = EXT2_NDIR_BLOCKS, i;
	const uint8_t *pointers = (const uint8_t *)f->inode.i_block;
	unsigned levels = 0;
	uint32_t block;

	*ret = (struct ext4_run){ .logical = logical };
	if (left < EXT2_NDIR_BLOCKS) {
		i = left;
	} else {
		left -= EXT2_NDIR_BLOCKS;
		for (levels = 1, span = per_block; levels <= 3 && left >= span; levels++) {
			left -= span;
			span *= per_block;
		}
		if (levels > 3) {
			ret->n_blocks = UINT64_MAX - logical;
			return 0;
		}
		i = EXT2_NDIR_BLOCKS + levels - 1;
		n = i + 1;
	}
	for (unsigned level = 0;; level++) {
		struct ext4_run run = { .logical = logical, .n_blocks = 1 };
		int r;

		block = read_le32(pointers + 4 * i);
		if (level == levels) {
			ret->n_blocks = count_run(pointers, i, n, block);
			ret->physical = block;
			return judge_run(f, ret, e);
		}
		if (block == 0) { /* all below it is a hole */
			ret->n_blocks = span - left;
			return 0;
		}
		run.physical = block;
		r = judge_run(f, &run, e);
		if (r == 0)
			r = read_pointers(f, level, block, &pointers, e);
		if (r < 0)
			return r;
		span /= per_block;
		i = left / span;
		left %= span;
		n = per_block;
	}
}

int ext4_map(struct ext4_file *f, uint64_t logical, struct ext4_run *ret, struct err *e)
{
	if (f->is_inline) {
		*ret = (struct ext4_run){ .logical = logical, .n_blocks = UINT64_MAX - logical };
		return 0;
	}
	return f->extents ? map_extent(f, logical, ret, e) : map_pointers(f, logical, ret, e);
}

uint64_t ext4_file_size_bytes(const struct ext4_file *f)
{
	return f->size_bytes;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

int ext4_file_next_extent(struct ext4_file *f, uint64_t offset, enum extent_kind *ret_kind, uint64_t *ret_size_bytes,
	struct err *e)
{
	uint64_t size = f->fs->facts.block_size_bytes, in_block = offset % size, run_bytes;
	struct ext4_run run;
	int r;

	assert(offset < f->size_bytes);
	if (f->is_inline) {
		*ret_kind = offset < f->inline_data.len ? EXTENT_DATA : EXTENT_ZERO;
		*ret_size_bytes = offset < f->inline_data.len ? min_u64(f->inline_data.len, f->size_bytes) - offset
							      : f->size_bytes - offset;
		return 0;
	}
	r = ext4_map(f, offset / size, &run, e);
	if (r < 0)
		return r;
	if (!checked_mul_u64(run.n_blocks, size, &run_bytes))
		run_bytes = UINT64_MAX;
	*ret_kind = run.physical ? EXTENT_DATA : EXTENT_ZERO;
	*ret_size_bytes = min_u64(run_bytes - in_block, f->size_bytes - offset);
	return 0;
}

/* Read within one run; *ret_len gets how much that was, at least 1. */
static int read_run(struct ext4_file *f, void *buf, size_t len, uint64_t offset, size_t *ret_len, struct err *e)
{
	uint64_t size = f->fs->facts.block_size_bytes, in_block = offset % size, run_bytes, n;
	struct ext4_run run;
	int r;

	if (f->is_inline) {
		n = offset < f->inline_data.len ? min_u64(len, f->inline_data.len - offset) : 0;
		if (n > 0)
			memcpy(buf, f->inline_data.data + offset, (size_t)n);
		memset((uint8_t *)buf + n, 0, len - (size_t)n);
		*ret_len = len;
		return 0;
	}
	r = ext4_map(f, offset / size, &run, e);
	if (r < 0)
		return r;
	if (!checked_mul_u64(run.n_blocks, size, &run_bytes))
		run_bytes = UINT64_MAX;
	n = min_u64(len, run_bytes - in_block);
	if (run.physical == 0) {
		memset(buf, 0, (size_t)n);
	} else {
		r = blockdev_read(f->fs->dev, buf, (size_t)n, run.physical * size + in_block, e);
		if (r < 0)
			return err_wrap(e, "reading inode %" PRIu32, f->number);
	}
	*ret_len = (size_t)n;
	return 0;
}

int ext4_file_read(struct ext4_file *f, void *buf, size_t len, uint64_t offset, size_t *ret_len, struct err *e)
{
	size_t done = 0;

	if (offset >= f->size_bytes)
		len = 0;
	else
		len = (size_t)min_u64(len, f->size_bytes - offset);
	while (done < len) {
		size_t n = 0;
		int r = read_run(f, (uint8_t *)buf + done, len - done, offset + done, &n, e);

		if (r < 0)
			return r;
		done += n;
	}
	*ret_len = len;
	return 0;
}

/* ---- folders ---- */

void ext4_dir_release(struct ext4_dir *dir)
{
	for (size_t i = 0; i < dir->n; i++)
		free(dir->items[i].name);
	free(dir->items);
	*dir = (struct ext4_dir){ 0 };
}

/* What a walk over a folder's raw entries calls. Returns 0 to go on, 1 to stop, or an error. */
typedef int (*entry_fn)(void *ctx, uint32_t inode, const char *name, size_t name_len, struct err *e);

/* Walk the entries in one piece of folder data. */
static int walk_entries(struct ext4 *fs, uint32_t dir, const uint8_t *data, size_t len, entry_fn fn, void *ctx,
	struct err *e)
{
	for (size_t at = 0; at + EXT2_DIR_ENTRY_HEADER_LEN <= len;) {
		uint32_t inode = read_le32(data + at);
		unsigned rec_len = read_le16(data + at + 4), name_len = data[at + 6];
		const char *name = (const char *)data + at + EXT2_DIR_ENTRY_HEADER_LEN;
		int r;

		/* 16 bits do not hold 64 KiB; SOURCE: ext4_rec_len_from_disk(). */
		if (fs->facts.block_size_bytes >= 65536 && (rec_len == 0 || rec_len == 65535))
			rec_len = 65536;
		if (rec_len < EXT2_DIR_ENTRY_HEADER_LEN || rec_len % 4 != 0 || rec_len > len - at ||
			name_len > rec_len - EXT2_DIR_ENTRY_HEADER_LEN)
			return damaged(e, "an entry of the folder that is inode %" PRIu32 " is %u bytes long with a name of %u",
				dir, rec_len, name_len);
		if (inode != 0 && name_len > 0 && !(name_len == 1 && name[0] == '.') &&
			!(name_len == 2 && name[0] == '.' && name[1] == '.')) {
			if (memchr(name, '/', name_len) || memchr(name, '\0', name_len))
				return damaged(e, "the folder that is inode %" PRIu32 " has a name with a slash or a NUL in it",
					dir);
			r = fn(ctx, inode, name, name_len, e);
			if (r != 0)
				return r;
		}
		at += rec_len;
	}
	return 0;
}

/* Walk the folder block by block through ext2fs_read_dir_block4(), which checks the checksums. ext2fs_dir_iterate()
 * would follow every pointer of a hostile block list, whatever the folder's size says. */
static int walk_dir_blocks(struct ext4_file *f, entry_fn fn, void *ctx, struct err *e)
{
	uint32_t size = f->fs->facts.block_size_bytes;
	uint64_t n_blocks = f->size_bytes / size, logical = 0;
	_cleanup_free_ uint8_t *block = malloc(size);

	if (!block)
		return err_set(e, -ENOMEM, "out of memory");
	while (logical < n_blocks) {
		struct ext4_run run;
		int r = ext4_map(f, logical, &run, e);

		if (r < 0)
			return r;
		for (uint64_t i = 0; run.physical != 0 && i < run.n_blocks && logical + i < n_blocks; i++) {
			errcode_t code = ext2fs_read_dir_block4(f->fs->lib, run.physical + i, block, 0, f->number);

			if (code)
				return ext4_lib_error(f->fs, code, e, "reading the folder that is inode %" PRIu32, f->number);
			r = walk_entries(f->fs, f->number, block, size, fn, ctx, e);
			if (r != 0)
				return r;
		}
		logical = run.n_blocks < n_blocks - logical ? logical + run.n_blocks : n_blocks;
	}
	return 0;
}

/* A small folder inside its inode: the parent's number, entries up to the 60th byte, more entries in an attribute.
 * SOURCE: Linux Documentation/filesystems/ext4, "Inline Directories". */
static int walk_inline_dir(struct ext4_file *f, entry_fn fn, void *ctx, struct err *e)
{
	const uint8_t *data = (const uint8_t *)f->inline_data.data;
	size_t len = f->inline_data.len, first = len < EXT4_MIN_INLINE_DATA_SIZE ? len : EXT4_MIN_INLINE_DATA_SIZE;
	int r;

	if (len < 4)
		return damaged(e, "the folder inside inode %" PRIu32 " has only %zu bytes", f->number, len);
	r = walk_entries(f->fs, f->number, data + 4, first - 4, fn, ctx, e);
	return r != 0 ? r : walk_entries(f->fs, f->number, data + first, len - first, fn, ctx, e);
}

/* Call fn for each entry but `.` and `..`. Returns what stopped it, or 0. */
static int walk_dir(struct ext4 *fs, uint32_t dir, entry_fn fn, void *ctx, struct err *e)
{
	_cleanup_ext4_file_ struct ext4_file *f = NULL;
	int r = ext4_open_data(fs, dir, &f, e);

	if (r < 0)
		return r;
	if (!S_ISDIR(f->inode.i_mode))
		return err_set(e, -ENOTDIR, "inode %" PRIu32 " is not a folder", dir);
	if (f->size_bytes > EXT4_DIR_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the folder that is inode %" PRIu32 " has %" PRIu64
			" bytes, at most %" PRIu64 " are read", dir, f->size_bytes, EXT4_DIR_MAX_BYTES);
	return f->is_inline ? walk_inline_dir(f, fn, ctx, e) : walk_dir_blocks(f, fn, ctx, e);
}

struct find {
	const char *name;
	size_t name_len;
	uint32_t inode;
};

static int find_entry(void *ctx, uint32_t inode, const char *name, size_t name_len, struct err *e)
{
	struct find *find = ctx;

	(void)e;
	if (name_len != find->name_len || memcmp(name, find->name, name_len) != 0)
		return 0;
	find->inode = inode;
	return 1;
}

struct listing {
	struct ext4 *fs;
	struct ext4_dir dir;
	size_t capacity;
	uint32_t number;
};

static int list_entry(void *ctx, uint32_t inode, const char *name, size_t name_len, struct err *e)
{
	struct listing *l = ctx;
	struct ext2_inode_large raw;
	struct ext4_dirent *items;
	int r;

	if (l->dir.n >= EXT4_DIR_ENTRIES_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the folder that is inode %" PRIu32
			" has more than %u names", l->number, EXT4_DIR_ENTRIES_MAX);
	r = ext4_read_inode(l->fs, inode, &raw, e);
	if (r < 0)
		return err_wrap(e, "looking at `%.*s`", (int)name_len, name);
	if (l->dir.n == l->capacity) {
		size_t capacity = l->capacity ? 2 * l->capacity : 16;

		items = realloc(l->dir.items, capacity * sizeof(*items));
		if (!items)
			return err_set(e, -ENOMEM, "out of memory");
		l->dir.items = items;
		l->capacity = capacity;
	}
	items = &l->dir.items[l->dir.n];
	items->name = strndup(name, name_len);
	if (!items->name)
		return err_set(e, -ENOMEM, "out of memory");
	ext4_stat_from_inode(inode, &raw, &items->st);
	l->dir.n++;
	return 0;
}

static int compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct ext4_dirent *)a)->name, ((const struct ext4_dirent *)b)->name);
}

int ext4_list_inode(struct ext4 *fs, uint32_t inode, struct ext4_dir *ret, struct err *e)
{
	struct listing l = { .fs = fs, .number = inode };
	int r = walk_dir(fs, inode, list_entry, &l, e);

	if (r < 0) {
		ext4_dir_release(&l.dir);
		return r;
	}
	if (l.dir.n > 0)
		qsort(l.dir.items, l.dir.n, sizeof(*l.dir.items), compare_entries);
	*ret = l.dir;
	return 0;
}

/* ---- paths ---- */

/* Append the target of a link whose inode is already read. */
static int read_link_inode(struct ext4 *fs, uint32_t number, const struct ext2_inode_large *inode, struct buf *into,
	struct err *e)
{
	_cleanup_ext4_file_ struct ext4_file *f = NULL;
	char target[EXT4_PATH_MAX_BYTES];
	uint64_t size = inode_size_bytes(inode);
	size_t len = (size_t)size;
	int r;

	if (size == 0 || size >= sizeof(target))
		return damaged(e, "the symbolic link that is inode %" PRIu32 " has %" PRIu64 " bytes", number, size);
	if (inode->i_flags & EXT4_ENCRYPT_FL)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOTSUP, "inode %" PRIu32 " is encrypted", number);
	if (size < sizeof(inode->i_block) && !(inode->i_flags & (EXT4_INLINE_DATA_FL | EXT4_EXTENTS_FL))) {
		memcpy(target, inode->i_block, len); /* short ones lie where the block list would be */
	} else {
		r = ext4_open_data(fs, number, &f, e);
		if (r == 0)
			r = ext4_file_read(f, target, len, 0, &len, e);
		if (r < 0)
			return r;
	}
	if (memchr(target, '\0', len))
		return damaged(e, "the target of the symbolic link that is inode %" PRIu32 " has a NUL in it", number);
	r = buf_append(into, target, len);
	return r < 0 ? err_set(e, r, "the target of a symbolic link has %zu bytes, at most %zu may be read", len,
			       into->max_bytes)
		     : 0;
}

/* The folders from the root down to where a path has led so far, so that `..` needs no entry on the disk. */
struct place {
	uint32_t above[EXT4_PATH_DEPTH_MAX];
	unsigned depth;
	uint32_t inode;
	struct ext2_inode_large raw;
};

static int step_into(struct ext4 *fs, struct place *at, const char *name, size_t len, const char *path, struct err *e)
{
	struct find find = { .name = name, .name_len = len };
	int r;

	if (!S_ISDIR(at->raw.i_mode))
		return err_set(e, -ENOTDIR, "`%s`: what comes before `%.*s` is not a folder in the filesystem", path, (int)len,
			name);
	if (len == 1 && name[0] == '.')
		return 0;
	if (len == 2 && name[0] == '.' && name[1] == '.') {
		if (at->depth == 0)
			return 0;
		at->inode = at->above[--at->depth];
		return ext4_read_inode(fs, at->inode, &at->raw, e);
	}
	if (at->depth == EXT4_PATH_DEPTH_MAX)
		return err_set(e, -ENAMETOOLONG, "`%s` leads more than %d folders deep", path, EXT4_PATH_DEPTH_MAX);
	r = walk_dir(fs, at->inode, find_entry, &find, e);
	if (r < 0)
		return err_wrap(e, "looking up `%s`", path);
	if (r == 0)
		return err_set(e, -ENOENT, "there is no `%s` in the filesystem", path);
	at->above[at->depth++] = at->inode;
	at->inode = find.inode;
	r = ext4_read_inode(fs, at->inode, &at->raw, e);
	return r < 0 ? err_wrap(e, "looking up `%s`", path) : 0;
}

/* Go back from the link `at` stands on to its folder (or the root), and put its target before what is left. */
static int follow_link(struct ext4 *fs, struct place *at, const char *rest, struct buf *ret_path, const char *path,
	struct err *e)
{
	_cleanup_buf_ struct buf next = BUF_INIT(EXT4_PATH_MAX_BYTES);
	int r = read_link_inode(fs, at->inode, &at->raw, &next, e);

	if (r < 0)
		return err_wrap(e, "following `%s`", path);
	r = buf_append_char(&next, '/');
	if (r == 0)
		r = buf_append_str(&next, rest);
	if (r < 0)
		return err_set(e, r == -E2BIG ? -ENAMETOOLONG : r, "`%s` leads to a path of more than %d bytes", path,
			EXT4_PATH_MAX_BYTES);
	at->inode = at->above[--at->depth];
	if (next.data[0] == '/') {
		at->depth = 0;
		at->inode = EXT2_ROOT_INO;
	}
	buf_release(ret_path);
	*ret_path = next;
	next = (struct buf)BUF_INIT(0);
	return ext4_read_inode(fs, at->inode, &at->raw, e);
}

/* Find the inode that a path names. */
static int resolve(struct ext4 *fs, const char *path, bool follow_last, uint32_t *ret_inode,
	struct ext2_inode_large *ret_raw, struct err *e)
{
	_cleanup_buf_ struct buf todo = BUF_INIT(EXT4_PATH_MAX_BYTES);
	struct place at = { .inode = EXT2_ROOT_INO };
	unsigned n_links = 0;
	size_t pos = 0;
	int r = buf_append_str(&todo, path);

	if (r < 0)
		return err_set(e, r == -E2BIG ? -ENAMETOOLONG : r, "a path of more than %d bytes", EXT4_PATH_MAX_BYTES);
	r = ext4_read_inode(fs, at.inode, &at.raw, e);
	if (r < 0)
		return r;
	if (!S_ISDIR(at.raw.i_mode))
		return damaged(e, "its root is not a folder");
	for (;;) {
		const char *name, *rest;
		size_t len;

		pos += strspn(buf_str(&todo) + pos, "/");
		name = buf_str(&todo) + pos;
		len = strcspn(name, "/");
		if (len == 0)
			break;
		rest = name + len + strspn(name + len, "/");
		r = step_into(fs, &at, name, len, path, e);
		if (r < 0)
			return r;
		pos += len;
		if (!S_ISLNK(at.raw.i_mode) || (*rest == '\0' && !follow_last))
			continue;
		if (++n_links > EXT4_SYMLINKS_MAX)
			return err_set(e, -ELOOP, "`%s` leads through more than %d symbolic links", path, EXT4_SYMLINKS_MAX);
		r = follow_link(fs, &at, rest, &todo, path, e);
		if (r < 0)
			return r;
		pos = 0;
	}
	*ret_inode = at.inode;
	*ret_raw = at.raw;
	return 0;
}

static int stat_path(struct ext4 *fs, const char *path, bool follow, struct ext4_stat *ret, struct err *e)
{
	struct ext2_inode_large raw;
	uint32_t inode;
	int r = resolve(fs, path, follow, &inode, &raw, e);

	if (r < 0)
		return r;
	ext4_stat_from_inode(inode, &raw, ret);
	return 0;
}

int ext4_stat(struct ext4 *fs, const char *path, struct ext4_stat *ret, struct err *e)
{
	return stat_path(fs, path, true, ret, e);
}

int ext4_lstat(struct ext4 *fs, const char *path, struct ext4_stat *ret, struct err *e)
{
	return stat_path(fs, path, false, ret, e);
}

int ext4_list_dir(struct ext4 *fs, const char *path, struct ext4_dir *ret, struct err *e)
{
	struct ext4_stat st;
	int r = ext4_stat(fs, path, &st, e);

	if (r < 0)
		return r;
	if (!S_ISDIR(st.mode))
		return err_set(e, -ENOTDIR, "`%s` is not a folder in the filesystem", path);
	r = ext4_list_inode(fs, st.inode, ret, e);
	return r < 0 ? err_wrap(e, "listing `%s`", path) : 0;
}

int ext4_read_link(struct ext4 *fs, const char *path, struct buf *into, struct err *e)
{
	struct ext2_inode_large raw;
	uint32_t inode;
	int r = resolve(fs, path, false, &inode, &raw, e);

	if (r < 0)
		return r;
	if (!S_ISLNK(raw.i_mode))
		return err_set(e, -EINVAL, "`%s` is not a symbolic link in the filesystem", path);
	r = read_link_inode(fs, inode, &raw, into, e);
	return r < 0 ? err_wrap(e, "reading the link `%s`", path) : 0;
}

int ext4_get_xattr(struct ext4 *fs, const char *path, const char *name, struct buf *into, struct err *e)
{
	struct ext2_xattr_handle *handle = NULL;
	struct ext4_stat st;
	void *value = NULL;
	size_t len = 0;
	errcode_t code;
	int r = ext4_lstat(fs, path, &st, e);

	if (r < 0)
		return r;
	code = ext2fs_xattrs_open(fs->lib, st.inode, &handle);
	if (code)
		return ext4_lib_error(fs, code, e, "reading the attributes of `%s`", path);
	code = ext2fs_xattrs_read(handle);
	if (code == 0)
		code = ext2fs_xattr_get(handle, name, &value, &len);
	if (code == EXT2_ET_EA_KEY_NOT_FOUND)
		r = err_set(e, -ENODATA, "`%s` has no attribute `%s`", path, name);
	else if (code)
		r = ext4_lib_error(fs, code, e, "reading the attribute `%s` of `%s`", name, path);
	else if (len > EXT4_XATTR_MAX_BYTES)
		r = damaged(e, "the attribute `%s` of `%s` has %zu bytes", name, path, len);
	else
		r = buf_append(into, value, len);
	if (r == -E2BIG && code == 0)
		r = err_set(e, r, "the attribute `%s` of `%s` has %zu bytes, at most %zu may be read", name, path, len,
			into->max_bytes);
	if (value)
		ext2fs_free_mem(&value);
	(void)ext2fs_xattrs_close(&handle);
	return r;
}

/* ---- files ---- */

int ext4_open_inode(struct ext4 *fs, uint32_t inode, struct ext4_file **ret, struct err *e)
{
	_cleanup_ext4_file_ struct ext4_file *f = NULL;
	int r = ext4_open_data(fs, inode, &f, e);

	if (r < 0)
		return r;
	if (!S_ISREG(f->inode.i_mode))
		return err_set(e, S_ISDIR(f->inode.i_mode) ? -EISDIR : -EINVAL, "inode %" PRIu32 " is not a regular file",
			inode);
	*ret = take_ptr(f);
	return 0;
}

int ext4_open_file(struct ext4 *fs, const char *path, struct ext4_file **ret, struct err *e)
{
	struct ext4_stat st;
	int r = ext4_stat(fs, path, &st, e);

	if (r < 0)
		return r;
	if (!S_ISREG(st.mode))
		return err_set(e, S_ISDIR(st.mode) ? -EISDIR : -EINVAL, "`%s` is not a regular file in the filesystem", path);
	r = ext4_open_inode(fs, st.inode, ret, e);
	return r < 0 ? err_wrap(e, "opening `%s`", path) : 0;
}

int ext4_read_file(struct ext4 *fs, const char *path, struct buf *into, struct err *e)
{
	_cleanup_ext4_file_ struct ext4_file *f = NULL;
	size_t before = into->len, n;
	int r = ext4_open_file(fs, path, &f, e);

	if (r < 0)
		return r;
	/* Room first for all of it: a file with a hole in it can claim terabytes. */
	r = f->size_bytes > into->max_bytes ? -E2BIG : buf_reserve(into, (size_t)f->size_bytes);
	if (r < 0)
		return err_set(e, r, "`%s` has %" PRIu64 " bytes, at most %zu may be read", path, f->size_bytes,
			into->max_bytes - before);
	r = ext4_file_read(f, into->data + before, (size_t)f->size_bytes, 0, &n, e);
	if (r < 0) {
		into->data[before] = '\0';
		return err_wrap(e, "reading `%s`", path);
	}
	into->len = before + n;
	into->data[into->len] = '\0';
	return 0;
}

static int copy_out(struct ext4_file *f, int dst_fd, struct err *e)
{
	_cleanup_free_ uint8_t *chunk = malloc(IO_CHUNK_BYTES);
	uint64_t offset = 0;
	int r;

	if (!chunk)
		return err_set(e, -ENOMEM, "out of memory");
	while (offset < f->size_bytes) {
		enum extent_kind kind;
		uint64_t run;
		size_t n = 0;

		r = ext4_file_next_extent(f, offset, &kind, &run, e);
		if (r < 0)
			return r;
		if (kind == EXTENT_DATA) {
			run = min_u64(run, IO_CHUNK_BYTES);
			r = ext4_file_read(f, chunk, (size_t)run, offset, &n, e);
			if (r < 0)
				return r;
			r = pwrite_full(dst_fd, chunk, n, offset);
			if (r < 0)
				return err_set_errno(e, r, "writing the copy");
		}
		offset += run;
	}
	if (ftruncate(dst_fd, (off_t)f->size_bytes) < 0)
		return err_set_errno(e, -errno, "setting the size of the copy to %" PRIu64 " bytes", f->size_bytes);
	return 0;
}

int ext4_copy_file(struct ext4 *fs, const char *path, int dst_fd, uint64_t max_bytes, uint64_t *ret_size_bytes,
	struct err *e)
{
	_cleanup_ext4_file_ struct ext4_file *f = NULL;
	int r = ext4_open_file(fs, path, &f, e);

	if (r < 0)
		return r;
	if (f->size_bytes > max_bytes)
		return err_set(e, -E2BIG, "`%s` has %" PRIu64 " bytes, at most %" PRIu64 " may be read", path, f->size_bytes,
			max_bytes);
	r = copy_out(f, dst_fd, e);
	if (r < 0)
		return err_wrap(e, "copying `%s` out of the filesystem", path);
	if (ret_size_bytes)
		*ret_size_bytes = f->size_bytes;
	return 0;
}
