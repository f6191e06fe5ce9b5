#include "builder/disk/root.h"
#include "lib/buf.h"

#include <string.h>
#include <strings.h>

/* SOURCE: UAPI.2 Discoverable Partitions Specification; UEFI 2.10 table 5.7; grub manual (BIOS boot). */
static const char *const root_types[ARCH_COUNT] = {
	[ARCH_AMD64] = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
	[ARCH_ARM64] = "b921b045-1df0-41c3-af44-4c6f280d3fae",
};
#define TYPE_ESP "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
#define TYPE_XBOOTLDR "bc13c2ff-59e6-4262-a352-b275fd6f7172"
#define TYPE_SWAP "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"
#define TYPE_BIOS_BOOT "21686148-6449-6e6f-744e-656564454649"

enum { LISTING_MAX_BYTES = 1400 }; /* so that the message around it fits an error */

const char *disk_role_name(enum disk_role r)
{
	switch (r) {
	case DISK_ROLE_OTHER:
		break;
	case DISK_ROLE_ROOT:
		return "root";
	case DISK_ROLE_BOOT:
		return "boot";
	case DISK_ROLE_ESP:
		return "esp";
	case DISK_ROLE_BIOS_BOOT:
		return "bios-boot";
	case DISK_ROLE_SWAP:
		return "swap";
	}
	return "";
}

void disk_layout_release(struct disk_layout *l)
{
	free(l->parts);
	l->parts = NULL;
	l->n = 0;
}

static bool type_is(const struct disk_partition *p, const char *type)
{
	return strcmp(p->part.type, type) == 0;
}

/* The architecture whose root this partition is typed as; ARCH_COUNT for none. */
static enum arch root_type_arch(const struct disk_partition *p)
{
	for (size_t a = 0; a < ARRAY_SIZE(root_types); a++)
		if (type_is(p, root_types[a]))
			return (enum arch)a;
	return ARCH_COUNT;
}

static bool is_foreign_root(const struct disk_layout *l, const struct disk_partition *p)
{
	enum arch a = root_type_arch(p);

	return a != ARCH_COUNT && a != l->arch;
}

/* A root by its contents that the table does not contradict. */
static bool has_root_contents(const struct disk_layout *l, const struct disk_partition *p)
{
	return p->fs.is_root && p->fs.problem[0] == '\0' && !is_foreign_root(l, p);
}

/* A kind of filesystem that could hold a root and cannot be read here. */
static bool is_unsupported_fs(const struct disk_fs *fs)
{
	static const char *const types[] = { "xfs", "btrfs", "f2fs", "erofs", "squashfs", "luks", "lvm" };

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (strcmp(fs->type, types[i]) == 0)
			return true;
	return false;
}

static enum disk_role judge_role(const struct disk_layout *l, const struct disk_partition *p)
{
	if (type_is(p, TYPE_ESP) || type_is(p, "0xef"))
		return DISK_ROLE_ESP;
	if (type_is(p, TYPE_BIOS_BOOT))
		return DISK_ROLE_BIOS_BOOT;
	if (type_is(p, TYPE_SWAP) || strcmp(p->fs.type, "swap") == 0)
		return DISK_ROLE_SWAP;
	if (root_type_arch(p) == l->arch || has_root_contents(l, p))
		return DISK_ROLE_ROOT;
	if (type_is(p, TYPE_XBOOTLDR) ||
		(fstype_is_ext(&p->fs) && (strcasecmp(p->fs.label, "BOOT") == 0 || p->fs.has_kernels)))
		return DISK_ROLE_BOOT;
	return DISK_ROLE_OTHER;
}

static int look_at_partition(struct blockdev *dev, disk_probe_fn probe, void *probe_ctx, struct disk_partition *p,
	struct err *e)
{
	_cleanup_blockdev_ struct blockdev *slice = NULL;
	struct err problem = ERR_INIT;
	int r = blockdev_new_slice(dev, p->part.range, &slice, e);

	if (r < 0)
		return r;
	r = fstype_detect(slice, &p->fs, e);
	if (r < 0)
		return err_wrap(e, "partition %u", p->part.number);
	if (!probe || !fstype_is_ext(&p->fs))
		return 0;
	r = probe(probe_ctx, slice, &p->fs, &problem);
	if (r == -ENOMEM) {
		*e = problem;
		return r;
	}
	if (r < 0) {
		p->fs.is_root = false;
		(void)snprintf(p->fs.problem, sizeof(p->fs.problem), "%.250s", problem.message);
		err_sanitize(p->fs.problem, sizeof(p->fs.problem), problem.message, strlen(problem.message));
	}
	return 0;
}

int disk_layout_read(struct blockdev *dev, enum arch arch, disk_probe_fn probe, void *probe_ctx,
	struct disk_layout *ret, struct err *e)
{
	_cleanup_partition_table_ struct partition_table table = { .kind = PARTITION_TABLE_NONE };
	_cleanup_disk_layout_ struct disk_layout l = { .arch = arch, .probed = probe != NULL };
	int r = partition_table_read(dev, &table, e);

	if (r < 0)
		return r;
	l.kind = table.kind;
	l.sector_bytes = table.sector_bytes;
	l.from_backup = table.from_backup;
	memcpy(l.disk_id, table.disk_id, sizeof(l.disk_id));
	l.n = table.kind == PARTITION_TABLE_NONE ? 1 : table.n;
	l.parts = calloc(l.n ? l.n : 1, sizeof(*l.parts));
	if (!l.parts)
		return err_set(e, -ENOMEM, "out of memory");
	if (table.kind == PARTITION_TABLE_NONE)
		l.parts[0].part.range = (struct extent){ 0, dev->size_bytes };
	for (size_t i = 0; i < l.n; i++) {
		if (table.kind != PARTITION_TABLE_NONE)
			l.parts[i].part = table.parts[i];
		r = look_at_partition(dev, probe, probe_ctx, &l.parts[i], e);
		if (r < 0)
			return r;
		l.parts[i].role = judge_role(&l, &l.parts[i]);
	}
	*ret = l;
	l.parts = NULL;
	return 0;
}

/* ---- choosing ---- */

/* What a partition was found to be, for messages: "1: ext4 `cloudimg-rootfs`, 2.2 GiB, Ubuntu 24.04". */
static int describe(const struct disk_layout *l, const struct disk_partition *p, struct buf *b)
{
	const char *role = disk_role_name(p->role);
	int r;

	if (p->part.number)
		r = buf_appendf(b, "%u: ", p->part.number);
	else
		r = buf_append_str(b, "whole disk: ");
	if (r == 0)
		r = buf_append_str(b, p->fs.type[0] ? p->fs.type : "no known filesystem");
	if (r == 0 && p->fs.label[0])
		r = buf_appendf(b, " `%.40s`", p->fs.label);
	if (r == 0)
		r = buf_appendf(b, ", %llu MiB", (unsigned long long)(p->part.range.size_bytes >> 20));
	if (r == 0 && role[0])
		r = buf_appendf(b, ", %s", role);
	if (r == 0 && is_foreign_root(l, p))
		r = buf_appendf(b, ", typed as root for %s", arch_name(root_type_arch(p)));
	if (r == 0 && p->fs.os_name[0])
		r = buf_appendf(b, ", %.60s", p->fs.os_name);
	else if (r == 0 && l->probed && fstype_is_ext(&p->fs) && !p->fs.is_root && !p->fs.problem[0])
		r = buf_append_str(b, ", without os-release and /usr");
	if (r == 0 && p->fs.problem[0])
		r = buf_appendf(b, ", cannot be read (%.100s)", p->fs.problem);
	return r;
}

/* The list of all partitions; cut where it gets too long. */
static const char *listing(const struct disk_layout *l, struct buf *b)
{
	buf_reset(b);
	for (size_t i = 0; i < l->n; i++) {
		size_t before = b->len;

		if ((i > 0 && buf_append_str(b, "; ") < 0) || describe(l, &l->parts[i], b) < 0) {
			b->len = before; /* at its limit: say that there is more */
			if (b->data)
				b->data[before] = '\0';
			break;
		}
	}
	return b->len ? buf_str(b) : "no partitions";
}

static int err_unsupported(struct err *e, const struct disk_layout *l, const struct disk_partition *p, struct buf *b)
{
	return err_set_kind(e, ERR_KIND_INPUT, -EOPNOTSUPP,
		"the root partition (%u) holds %s, and only ext4 roots are supported: take an image whose root is ext4 (found: %s)",
		p->part.number, p->fs.type[0] ? p->fs.type : "no known filesystem", listing(l, b));
}

/* The chosen one must be something that can be read. */
static int accept(const struct disk_layout *l, size_t index, struct buf *b, size_t *ret_index, struct err *e)
{
	const struct disk_partition *p = &l->parts[index];

	if (!fstype_is_ext(&p->fs))
		return err_unsupported(e, l, p, b);
	if (p->fs.problem[0])
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the root partition (%u) cannot be read: %s", p->part.number,
			p->fs.problem);
	*ret_index = index;
	return 0;
}

static int select_one(const struct disk_layout *l, const char *selector, bool (*match)(const struct disk_partition *,
	const char *), const char *value, struct buf *b, size_t *ret_index, struct err *e)
{
	size_t found = l->n;

	for (size_t i = 0; i < l->n; i++) {
		if (!match(&l->parts[i], value))
			continue;
		if (found < l->n)
			return err_set_kind(e, ERR_KIND_USAGE, -ENOTUNIQ,
				"[base] partition `%s` matches partitions %u and %u (found: %s)", selector,
				l->parts[found].part.number, l->parts[i].part.number, listing(l, b));
		found = i;
	}
	if (found == l->n)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOENT, "[base] partition `%s` matches nothing on the disk (found: %s)",
			selector, listing(l, b));
	return accept(l, found, b, ret_index, e);
}

static bool match_label(const struct disk_partition *p, const char *label)
{
	return strcmp(p->fs.label, label) == 0;
}

static bool match_partuuid(const struct disk_partition *p, const char *uuid)
{
	return strcasecmp(p->part.partuuid, uuid) == 0;
}

static bool match_number(const struct disk_partition *p, const char *number)
{
	char own[16];

	(void)snprintf(own, sizeof(own), "%u", p->part.number);
	return p->part.number > 0 && strcmp(own, number) == 0;
}

static int find_selected(const struct disk_layout *l, const char *selector, struct buf *b, size_t *ret_index, struct err *e)
{
	if (strncmp(selector, "LABEL=", 6) == 0 && selector[6])
		return select_one(l, selector, match_label, selector + 6, b, ret_index, e);
	if (strncmp(selector, "PARTUUID=", 9) == 0 && selector[9])
		return select_one(l, selector, match_partuuid, selector + 9, b, ret_index, e);
	if (selector[0] >= '1' && selector[0] <= '9' && strspn(selector, "0123456789") == strlen(selector))
		return select_one(l, selector, match_number, selector, b, ret_index, e);
	return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
		"[base] partition `%s` is neither a number from 1, nor LABEL=…, nor PARTUUID=…", selector);
}

/* Count the partitions for which `match` holds; *ret_first is the first of them. */
static size_t count_matching(const struct disk_layout *l, bool (*match)(const struct disk_layout *,
	const struct disk_partition *), size_t *ret_first)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		if (!match(l, &l->parts[i]))
			continue;
		if (n++ == 0)
			*ret_first = i;
	}
	return n;
}

static bool is_typed(const struct disk_layout *l, const struct disk_partition *p)
{
	return root_type_arch(p) == l->arch;
}

static bool is_typed_with_contents(const struct disk_layout *l, const struct disk_partition *p)
{
	return is_typed(l, p) && (has_root_contents(l, p) || (!l->probed && fstype_is_ext(&p->fs)));
}

/* Typed as the root, and it cannot be told from its contents that it is none. */
static bool is_typed_unreadable(const struct disk_layout *l, const struct disk_partition *p)
{
	return is_typed(l, p) && (is_unsupported_fs(&p->fs) || p->fs.problem[0]);
}

static bool is_unsupported(const struct disk_layout *l, const struct disk_partition *p)
{
	(void)l;
	return is_unsupported_fs(&p->fs);
}

static bool is_broken_ext(const struct disk_layout *l, const struct disk_partition *p)
{
	(void)l;
	return fstype_is_ext(&p->fs) && p->fs.problem[0];
}

static int err_several(struct err *e, const struct disk_layout *l, struct buf *b)
{
	return err_set_kind(e, ERR_KIND_INPUT, -ENOTUNIQ,
		"more than one partition can be the root for %s: say which with [base] partition (found: %s)",
		arch_name(l->arch), listing(l, b));
}

static int discover(const struct disk_layout *l, struct buf *b, size_t *ret_index, struct err *e)
{
	size_t index = 0, n;

	n = count_matching(l, is_typed_with_contents, &index);
	if (n > 1)
		return err_several(e, l, b);
	if (n == 1)
		return accept(l, index, b, ret_index, e);
	/* The table names a root that cannot be looked into: another partition would be the wrong one. */
	if (count_matching(l, is_typed_unreadable, &index) > 0)
		return accept(l, index, b, ret_index, e);
	n = count_matching(l, has_root_contents, &index);
	if (n > 1)
		return err_several(e, l, b);
	if (n == 1)
		return accept(l, index, b, ret_index, e);
	/* Nothing is a root. What comes nearest is what the message is about. */
	if (count_matching(l, is_unsupported, &index) > 0)
		return err_unsupported(e, l, &l->parts[index], b);
	if (count_matching(l, is_broken_ext, &index) > 0)
		return accept(l, index, b, ret_index, e);
	return err_set_kind(e, ERR_KIND_INPUT, -ENOENT,
		"no partition of the disk is a root for %s, that is an ext4 filesystem with os-release and /usr: say which it "
		"is with [base] partition, or take another image (found: %s)",
		arch_name(l->arch), listing(l, b));
}

int disk_find_root(const struct disk_layout *l, const char *selector, size_t *ret_index, struct err *e)
{
	_cleanup_buf_ struct buf b = BUF_INIT(LISTING_MAX_BYTES);

	return selector && selector[0] ? find_selected(l, selector, &b, ret_index, e) : discover(l, &b, ret_index, e);
}

int disk_find_boot(const struct disk_layout *l, size_t root_index, size_t *ret_index)
{
	size_t found = l->n;

	/* The type says it best, then kernels seen inside, then the label. */
	for (size_t i = 0; i < l->n; i++) {
		const struct disk_partition *p = &l->parts[i];

		if (i == root_index || p->role != DISK_ROLE_BOOT || !fstype_is_ext(&p->fs) || p->fs.problem[0])
			continue;
		if (type_is(p, TYPE_XBOOTLDR)) {
			*ret_index = i;
			return 0;
		}
		if (found == l->n || (p->fs.has_kernels && !l->parts[found].fs.has_kernels))
			found = i;
	}
	if (found == l->n)
		return -ENOENT;
	*ret_index = found;
	return 0;
}
