#include "builder/disk/partition.h"
#include "lib/io.h"
#include "lib/num.h"

#include <ctype.h>
#include <libdeflate.h>
#include <libfdisk.h>
#include <sys/mman.h>

enum {
	SECTOR_BYTES = 512,
	SECTOR_4K_BYTES = 4096,
	PARTITION_MAX_EXTENDED = 128 /* extended boot records followed */
};

/* The MBR: SOURCE UEFI 2.10 table 5.1; the extended ones have the same shape. */
enum {
	MBR_ENTRIES = 446,
	MBR_ENTRY_BYTES = 16,
	MBR_ENTRY_BOOT = 0,
	MBR_ENTRY_TYPE = 4,
	MBR_ENTRY_START = 8,
	MBR_ENTRY_SIZE = 12,
	MBR_SIGNATURE = 510,
	MBR_TYPE_PROTECTIVE = 0xEE
};

/* The GPT header: SOURCE UEFI 2.10 table 5.5. */
enum {
	GPT_HEADER_SIZE = 12,
	GPT_HEADER_CRC = 16,
	GPT_ENTRIES_LBA = 72,
	GPT_N_ENTRIES = 80,
	GPT_ENTRY_SIZE = 84,
	GPT_ENTRIES_CRC = 88,
	GPT_HEADER_MIN_BYTES = 92
};

const char *partition_table_kind_name(enum partition_table_kind k)
{
	switch (k) {
	case PARTITION_TABLE_NONE:
		break;
	case PARTITION_TABLE_MBR:
		return "mbr";
	case PARTITION_TABLE_GPT:
		return "gpt";
	}
	return "none";
}

void partition_table_release(struct partition_table *t)
{
	free(t->parts);
	t->parts = NULL;
	t->n = 0;
}

static void context_freep(struct fdisk_context **cxt)
{
	if (*cxt) {
		(void)fdisk_deassign_device(*cxt, 1);
		fdisk_unref_context(*cxt);
	}
}
#define _cleanup_context_ _cleanup_(context_freep)

static void table_freep(struct fdisk_table **t)
{
	fdisk_unref_table(*t);
}
#define _cleanup_table_ _cleanup_(table_freep)

/* ---- the memory file that libfdisk reads ---- */

/* Spoil GPT headers that promise a larger array of entries than was copied: libfdisk would allocate it. */
static void spoil_oversized_headers(uint8_t *bytes, size_t len)
{
	for (size_t at = 0; at + SECTOR_BYTES <= len; at += SECTOR_BYTES) {
		uint8_t *header = bytes + at;

		if (memcmp(header, "EFI PART", 8) == 0 &&
			(uint64_t)read_le32(header + GPT_N_ENTRIES) * read_le32(header + GPT_ENTRY_SIZE) > PARTITION_HEAD_BYTES)
			memset(header, 0, 8);
	}
}

static int copy_range(struct blockdev *dev, int memfd, uint64_t offset, size_t len, uint8_t *buf, struct err *e)
{
	int r = blockdev_read(dev, buf, len, offset, e);

	if (r < 0)
		return err_wrap(e, "reading the partition table");
	spoil_oversized_headers(buf, len);
	r = pwrite_full(memfd, buf, len, offset);
	if (r < 0)
		return err_set_errno(e, r, "cannot copy the partition table into memory");
	return 0;
}

/* True for the types that hold a chain of logical partitions. */
static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0F || type == 0x85;
}

/* Copy the extended boot records, which lie anywhere between the partitions. */
static int copy_extended(struct blockdev *dev, int memfd, const uint8_t *mbr, struct err *e)
{
	uint64_t base = 0, at;
	uint8_t record[SECTOR_BYTES];

	for (unsigned i = 0; i < 4; i++) {
		const uint8_t *entry = mbr + MBR_ENTRIES + i * MBR_ENTRY_BYTES;

		if (is_extended(entry[MBR_ENTRY_TYPE]))
			base = read_le32(entry + MBR_ENTRY_START);
	}
	at = base;
	for (unsigned n = 0; at != 0 && n < PARTITION_MAX_EXTENDED; n++) {
		const uint8_t *next = record + MBR_ENTRIES + MBR_ENTRY_BYTES;
		int r;

		if (!range_within(at * SECTOR_BYTES, SECTOR_BYTES, dev->size_bytes))
			return 0; /* libfdisk will find that the chain is broken */
		r = copy_range(dev, memfd, at * SECTOR_BYTES, SECTOR_BYTES, record, e);
		if (r < 0)
			return r;
		at = is_extended(next[MBR_ENTRY_TYPE]) ? base + read_le32(next + MBR_ENTRY_START) : 0;
	}
	return 0;
}

/* Make a memory file of the disk's size that has the parts of it where tables are. */
static int copy_tables(struct blockdev *dev, uint8_t *head, int *ret_memfd, struct err *e)
{
	size_t len = dev->size_bytes < PARTITION_HEAD_BYTES ? (size_t)dev->size_bytes : PARTITION_HEAD_BYTES;
	_cleanup_free_ uint8_t *tail = malloc(PARTITION_HEAD_BYTES);
	_cleanup_close_ int memfd = memfd_create("partition-table", MFD_CLOEXEC);
	int r;

	if (!tail)
		return err_set(e, -ENOMEM, "out of memory");
	if (memfd < 0 || ftruncate(memfd, (off_t)dev->size_bytes) < 0)
		return err_set_errno(e, -errno, "cannot make a memory file of %llu bytes for the partition table",
			(unsigned long long)dev->size_bytes);
	r = copy_range(dev, memfd, dev->size_bytes - len, len, tail, e);
	if (r == 0)
		r = copy_range(dev, memfd, 0, len, head, e);
	if (r == 0 && len >= SECTOR_BYTES)
		r = copy_extended(dev, memfd, head, e);
	if (r < 0)
		return r;
	*ret_memfd = take_fd(&memfd);
	return 0;
}

/* ---- what the first sectors say ---- */

struct mbr_facts {
	bool plausible;	 /* a table, not just a boot sector that ends in 55 AA */
	bool protective; /* has the entry that stands for a GPT */
};

static struct mbr_facts look_at_mbr(const uint8_t *mbr, uint64_t disk_bytes)
{
	struct mbr_facts f = { false, false };
	unsigned used = 0;

	if (disk_bytes < SECTOR_BYTES || mbr[MBR_SIGNATURE] != 0x55 || mbr[MBR_SIGNATURE + 1] != 0xAA)
		return f;
	for (unsigned i = 0; i < 4; i++) {
		const uint8_t *entry = mbr + MBR_ENTRIES + i * MBR_ENTRY_BYTES;

		if (entry[MBR_ENTRY_TYPE] == MBR_TYPE_PROTECTIVE)
			f.protective = true;
		if (entry[MBR_ENTRY_BOOT] != 0 && entry[MBR_ENTRY_BOOT] != 0x80)
			return f;
		if (entry[MBR_ENTRY_TYPE] == 0 || read_le32(entry + MBR_ENTRY_SIZE) == 0)
			continue;
		if ((uint64_t)read_le32(entry + MBR_ENTRY_START) * SECTOR_BYTES >= disk_bytes)
			return f;
		used++;
	}
	f.plausible = used > 0;
	return f;
}

/* Whether the primary GPT header and its entries are sound; when not and there is a table, it is the backup's. */
static bool primary_gpt_is_sound(const uint8_t *head, size_t len, unsigned sector_bytes)
{
	uint8_t header[SECTOR_BYTES];
	uint32_t header_size;
	uint64_t start, size;

	if (len < 2 * sector_bytes)
		return false;
	memcpy(header, head + sector_bytes, sizeof(header));
	header_size = read_le32(header + GPT_HEADER_SIZE);
	if (memcmp(header, "EFI PART", 8) != 0 || header_size < GPT_HEADER_MIN_BYTES || header_size > sizeof(header))
		return false;
	memset(header + GPT_HEADER_CRC, 0, 4);
	if (libdeflate_crc32(0, header, header_size) != read_le32(head + sector_bytes + GPT_HEADER_CRC))
		return false;
	size = (uint64_t)read_le32(header + GPT_N_ENTRIES) * read_le32(header + GPT_ENTRY_SIZE);
	return checked_mul_u64(read_le64(header + GPT_ENTRIES_LBA), sector_bytes, &start) && range_within(start, size, len) &&
	       libdeflate_crc32(0, head + start, (size_t)size) == read_le32(header + GPT_ENTRIES_CRC);
}

/* ---- from libfdisk's table to ours ---- */

static void copy_lower(char *dst, size_t dst_size, const char *src)
{
	(void)err_sanitize(dst, dst_size, src ? src : "", src ? strlen(src) : 0);
	for (char *p = dst; *p; p++)
		*p = (char)tolower((unsigned char)*p);
}

static int convert_partition(struct fdisk_context *cxt, struct fdisk_partition *pa, const struct partition_table *t,
	uint64_t disk_bytes, struct partition *ret, struct err *e)
{
	struct fdisk_parttype *type = fdisk_partition_get_type(pa);
	uint64_t start = fdisk_partition_get_start(pa), size = fdisk_partition_get_size(pa);
	const char *name = fdisk_partition_get_name(pa);

	*ret = (struct partition){ .number = (unsigned)fdisk_partition_get_partno(pa) + 1 };
	if (!checked_mul_u64(start, t->sector_bytes, &ret->range.start_bytes) ||
		!checked_mul_u64(size, t->sector_bytes, &ret->range.size_bytes) ||
		!range_within(ret->range.start_bytes, ret->range.size_bytes, disk_bytes))
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"the partition table is damaged or the disk image cut off: partition %u starts at sector %llu and has "
			"%llu sectors, the disk has %llu",
			ret->number, (unsigned long long)start, (unsigned long long)size,
			(unsigned long long)(disk_bytes / t->sector_bytes));
	if (t->kind == PARTITION_TABLE_GPT) {
		copy_lower(ret->partuuid, sizeof(ret->partuuid), fdisk_partition_get_uuid(pa));
		copy_lower(ret->type, sizeof(ret->type), type ? fdisk_parttype_get_string(type) : NULL);
		(void)err_sanitize(ret->name, sizeof(ret->name), name ? name : "", name ? strlen(name) : 0);
		if (fdisk_gpt_get_partition_attrs(cxt, fdisk_partition_get_partno(pa), &ret->attrs) < 0)
			ret->attrs = 0;
	} else {
		(void)snprintf(ret->type, sizeof(ret->type), "0x%02x", type ? fdisk_parttype_get_code(type) : 0);
		ret->attrs = fdisk_partition_is_bootable(pa) ? 0x80 : 0;
		/* What Linux calls it, as in root=PARTUUID=. */
		if (t->disk_id[0])
			(void)snprintf(ret->partuuid, sizeof(ret->partuuid), "%.8s-%02x", t->disk_id, ret->number);
	}
	return 0;
}

static int compare_number(const void *a, const void *b)
{
	unsigned x = ((const struct partition *)a)->number, y = ((const struct partition *)b)->number;

	return x < y ? -1 : x > y;
}

static int compare_start(const void *a, const void *b)
{
	uint64_t x = ((const struct partition *)a)->range.start_bytes, y = ((const struct partition *)b)->range.start_bytes;

	return x < y ? -1 : x > y;
}

/* In a GPT they may not overlap; who wrote one that does meant something else. (In an MBR it is done on purpose.) */
static int check_overlap(struct partition_table *t, struct err *e)
{
	qsort(t->parts, t->n, sizeof(*t->parts), compare_start);
	for (size_t i = 1; i < t->n; i++) {
		const struct partition *a = &t->parts[i - 1], *b = &t->parts[i];

		if (a->range.start_bytes + a->range.size_bytes > b->range.start_bytes)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
				"the partition table is damaged: partitions %u and %u overlap", a->number, b->number);
	}
	return 0;
}

static int convert_table(struct fdisk_context *cxt, uint64_t disk_bytes, struct partition_table *t, struct err *e)
{
	_cleanup_table_ struct fdisk_table *table = NULL;
	struct fdisk_iter *iter;
	struct fdisk_partition *pa = NULL;
	_cleanup_free_ char *id = NULL;
	int r = fdisk_get_partitions(cxt, &table);

	if (r < 0)
		return err_set_kind(e, ERR_KIND_INPUT, r == -ENOMEM ? r : -EBADMSG, "the partition table cannot be read");
	if (fdisk_table_get_nents(table) > PARTITION_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the disk has %zu partitions, at most %d are supported",
			fdisk_table_get_nents(table), PARTITION_MAX);
	if (fdisk_get_disklabel_id(cxt, &id) == 0 && id)
		copy_lower(t->disk_id, sizeof(t->disk_id), strncmp(id, "0x", 2) == 0 ? id + 2 : id);
	t->parts = calloc(PARTITION_MAX, sizeof(*t->parts));
	iter = fdisk_new_iter(FDISK_ITER_FORWARD);
	if (!t->parts || !iter) {
		fdisk_free_iter(iter);
		return err_set(e, -ENOMEM, "out of memory");
	}
	for (r = 0; r == 0 && fdisk_table_next_partition(table, iter, &pa) == 0;) {
		if (fdisk_partition_is_container(pa) || !fdisk_partition_has_partno(pa) ||
			!fdisk_partition_has_start(pa) || !fdisk_partition_has_size(pa) ||
			fdisk_partition_get_size(pa) == 0)
			continue;
		r = convert_partition(cxt, pa, t, disk_bytes, &t->parts[t->n], e);
		if (r == 0)
			t->n++;
	}
	fdisk_free_iter(iter);
	if (r == 0 && t->kind == PARTITION_TABLE_GPT)
		r = check_overlap(t, e);
	qsort(t->parts, t->n, sizeof(*t->parts), compare_number);
	return r;
}

/* Let libfdisk look at the memory file with one sector size. *ret_kind is what it finds. */
static int open_context(int memfd, unsigned sector_bytes, struct fdisk_context **ret, enum partition_table_kind *ret_kind,
	struct err *e)
{
	_cleanup_context_ struct fdisk_context *cxt = fdisk_new_context();
	int r;

	if (!cxt)
		return err_set(e, -ENOMEM, "out of memory");
	(void)fdisk_disable_dialogs(cxt, 1);
	(void)fdisk_save_user_sector_size(cxt, sector_bytes, sector_bytes);
	r = fdisk_assign_device_by_fd(cxt, memfd, "disk image", 1);
	if (r < 0)
		return err_set_errno(e, r, "libfdisk cannot read the partition table");
	*ret_kind = fdisk_is_labeltype(cxt, FDISK_DISKLABEL_GPT)   ? PARTITION_TABLE_GPT
		    : fdisk_is_labeltype(cxt, FDISK_DISKLABEL_DOS) ? PARTITION_TABLE_MBR
								   : PARTITION_TABLE_NONE;
	*ret = take_ptr(cxt);
	return 0;
}

static int read_table(int memfd, const uint8_t *head, size_t len, uint64_t disk_bytes, struct partition_table *t,
	struct err *e)
{
	static const unsigned sizes[] = { SECTOR_BYTES, SECTOR_4K_BYTES };
	struct mbr_facts mbr = look_at_mbr(head, disk_bytes);
	int r;

	/* A GPT of either sector size first; only then may the MBR mean what it says. */
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_context_ struct fdisk_context *cxt = NULL;
		enum partition_table_kind kind = PARTITION_TABLE_NONE;

		if (disk_bytes < 4 * (uint64_t)sizes[i])
			continue;
		r = open_context(memfd, sizes[i], &cxt, &kind, e);
		if (r < 0)
			return r;
		if (kind == PARTITION_TABLE_GPT) {
			t->kind = kind;
			t->sector_bytes = sizes[i];
			t->from_backup = !primary_gpt_is_sound(head, len, sizes[i]);
			return convert_table(cxt, disk_bytes, t, e);
		}
	}
	if (mbr.protective)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"the disk has a protective MBR, but neither the primary nor the backup GPT header is usable: it is "
			"damaged or cut off");
	if (mbr.plausible) {
		_cleanup_context_ struct fdisk_context *cxt = NULL;
		enum partition_table_kind kind = PARTITION_TABLE_NONE;

		r = open_context(memfd, SECTOR_BYTES, &cxt, &kind, e);
		if (r < 0)
			return r;
		if (kind == PARTITION_TABLE_MBR) {
			t->kind = kind;
			t->sector_bytes = SECTOR_BYTES;
			return convert_table(cxt, disk_bytes, t, e);
		}
	}
	return 0;
}

int partition_table_read(struct blockdev *dev, struct partition_table *ret, struct err *e)
{
	_cleanup_partition_table_ struct partition_table t = { .kind = PARTITION_TABLE_NONE };
	_cleanup_free_ uint8_t *head = calloc(1, PARTITION_HEAD_BYTES);
	_cleanup_close_ int memfd = -1;
	int r;

	if (!head)
		return err_set(e, -ENOMEM, "out of memory");
	if (dev->size_bytes >= SECTOR_BYTES) {
		r = copy_tables(dev, head, &memfd, e);
		if (r == 0)
			r = read_table(memfd, head, PARTITION_HEAD_BYTES, dev->size_bytes, &t, e);
		if (r < 0)
			return r;
	}
	*ret = t;
	t.parts = NULL;
	return 0;
}
