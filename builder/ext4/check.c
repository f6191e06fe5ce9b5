#include "builder/ext4/check.h"

#include "builder/ext4/ext4_impl.h"
#include "lib/num.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#define PATH_SHOWN_MAX_BYTES 400
#define STEPS_PER_BLOCK 4 /* of walking block lists, before a list is held to be made to take for ever */

struct folder {
	uint32_t inode;
	char *path; /* shortened; for messages */
};

struct checker {
	struct ext4 *fs;
	struct strv *faults;
	bool full; /* as many faults as are told */
	uint8_t *claimed;   /* a bit for each block */
	uint16_t *names;    /* how many names lead to each inode */
	uint16_t *subdirs;  /* how many folders each folder holds */
	struct folder *queue;
	size_t n_queue, next, capacity;
	uint64_t steps_left;
	struct ext4_counts counts;
};

static void checker_release(struct checker *c)
{
	for (size_t i = 0; i < c->n_queue; i++)
		free(c->queue[i].path);
	free(c->queue);
	free(c->claimed);
	free(c->names);
	free(c->subdirs);
	ext4_free(c->fs);
}

/* Note a fault. Returns 0 or -ENOMEM. */
static int fault(struct checker *c, struct err *e, const char *fmt, ...) _printf_(3, 4);
static int fault(struct checker *c, struct err *e, const char *fmt, ...)
{
	char text[1024], clean[1024];
	va_list ap;

	if (c->full)
		return 0;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	(void)err_sanitize(clean, sizeof(clean), text, strlen(text));
	if (c->faults->n + 1 >= EXT4_FAULTS_MAX) {
		c->full = true;
		(void)snprintf(clean, sizeof(clean), "and more of the kind");
	}
	return strv_add(c->faults, clean) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

/* Turn an error about the contents into a fault; errors of the device and the host stay errors. */
static int fault_of_error(struct checker *c, const char *what, struct err *e)
{
	struct err why = *e;

	if (!ext4_is_contents_error(why.code))
		return err_wrap(e, "%s", what);
	err_clear(e);
	return fault(c, e, "%s: %s", what, why.message);
}

/* ---- the superblock ---- */

static int check_superblock(struct checker *c, const struct ext4_facts *f, const struct ext4_expect *expect, struct err *e)
{
	/* Growing leaves out a last group that would be too small for its own tables. */
	uint64_t slack = (uint64_t)f->block_size_bytes * f->block_size_bytes * 8;
	int r = 0;

	if (f->needs_recovery)
		r = fault(c, e, "the journal holds changes that were not written back: the filesystem was not unmounted");
	if (r == 0 && !f->clean)
		r = fault(c, e, "the filesystem is not marked clean: it was not unmounted");
	if (r == 0 && f->has_errors)
		r = fault(c, e, "the kernel noted errors in the filesystem");
	if (r == 0 && f->has_orphans)
		r = fault(c, e, "deleted files wait to be cleaned up: the filesystem was not unmounted");
	if (r == 0 && expect->size_bytes &&
		(f->size_bytes > expect->size_bytes || expect->size_bytes - f->size_bytes > slack ||
			f->size_bytes < expect->size_bytes / 2))
		r = fault(c, e, "the filesystem has %" PRIu64 " bytes, expected %" PRIu64, f->size_bytes, expect->size_bytes);
	if (r == 0 && expect->label && strcmp(f->label, expect->label) != 0)
		r = fault(c, e, "the filesystem's label is `%s`, expected `%s`", f->label, expect->label);
	return r;
}

static int check_groups(struct checker *c, struct err *e)
{
	ext2_filsys lib = c->fs->lib;
	uint64_t clusters = 0, inodes = 0;
	int r = 0;

	for (dgrp_t g = 0; g < lib->group_desc_count; g++) {
		clusters += ext2fs_bg_free_blocks_count(lib, g);
		inodes += ext2fs_bg_free_inodes_count(lib, g);
	}
	c->counts.free_blocks = ext2fs_free_blocks_count(lib->super);
	c->counts.free_inodes = lib->super->s_free_inodes_count;
	if (c->counts.free_blocks != EXT2FS_C2B(lib, clusters))
		r = fault(c, e, "the superblock counts %" PRIu64 " free blocks, the groups %" PRIu64, c->counts.free_blocks,
			(uint64_t)EXT2FS_C2B(lib, clusters));
	if (r == 0 && c->counts.free_inodes != inodes)
		r = fault(c, e, "the superblock counts %" PRIu64 " free inodes, the groups %" PRIu64, c->counts.free_inodes, inodes);
	return r;
}

/* ---- the tree ---- */

static int queue_folder(struct checker *c, uint32_t inode, const char *parent, const char *name, struct err *e)
{
	struct folder *f;

	if (c->n_queue == c->capacity) {
		size_t capacity = c->capacity ? 2 * c->capacity : 64;

		f = realloc(c->queue, capacity * sizeof(*f));
		if (!f)
			return err_set(e, -ENOMEM, "out of memory");
		c->queue = f;
		c->capacity = capacity;
	}
	f = &c->queue[c->n_queue];
	f->inode = inode;
	if (strlen(parent) > PATH_SHOWN_MAX_BYTES)
		f->path = strdup(parent);
	else if (asprintf(&f->path, "%s%s/", parent, name) < 0)
		f->path = NULL;
	if (!f->path)
		return err_set(e, -ENOMEM, "out of memory");
	c->n_queue++;
	return 0;
}

/* Claim the blocks of one run. Returns 1 when a fault was noted, and the rest of the file is not worth looking at. */
static int claim_run(struct checker *c, const char *path, const struct ext4_run *run, uint64_t n, struct err *e)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t block = run->physical + i;
		uint8_t bit = (uint8_t)(1u << (block % 8));
		int r = 0;

		if (!ext2fs_test_block_bitmap2(c->fs->lib->block_map, block))
			r = fault(c, e, "`%s` lies in block %" PRIu64 ", which is marked free", path, block);
		else if (c->claimed[block / 8] & bit && !ext2fs_has_feature_shared_blocks(c->fs->lib->super))
			r = fault(c, e, "`%s` lies in block %" PRIu64 ", which belongs to another file too", path, block);
		else {
			c->claimed[block / 8] |= bit;
			continue;
		}
		return r < 0 ? r : 1;
	}
	return 0;
}

static int check_blocks(struct checker *c, const char *path, uint32_t inode, struct err *e)
{
	_cleanup_ext4_file_ struct ext4_file *f = NULL;
	uint64_t block_size = c->fs->facts.block_size_bytes, n_blocks, logical = 0;
	int r = ext4_open_data(c->fs, inode, &f, e);

	if (r == -ENOTSUP) { /* encrypted */
		err_clear(e);
		return 0;
	}
	if (r < 0)
		return fault_of_error(c, path, e);
	n_blocks = ext4_file_size_bytes(f) / block_size + (ext4_file_size_bytes(f) % block_size != 0);
	while (logical < n_blocks) {
		struct ext4_run run;
		uint64_t n;

		if (c->steps_left == 0)
			return fault(c, e, "`%s` has a block list that leads on and on", path);
		c->steps_left--;
		r = ext4_map(f, logical, &run, e);
		if (r < 0)
			return fault_of_error(c, path, e);
		n = run.n_blocks < n_blocks - logical ? run.n_blocks : n_blocks - logical;
		r = run.physical ? claim_run(c, path, &run, n, e) : 0;
		if (r != 0)
			return r < 0 ? r : 0;
		logical += n;
	}
	return 0;
}

static int count_up(uint16_t *counter)
{
	*counter = *counter == UINT16_MAX ? UINT16_MAX : (uint16_t)(*counter + 1);
	return *counter;
}

/* Look at an inode when the first name leads to it. */
static int check_inode(struct checker *c, const char *path, const struct ext4_stat *st, struct err *e)
{
	bool has_data = S_ISREG(st->mode) || S_ISDIR(st->mode);

	if (S_ISREG(st->mode)) {
		c->counts.files++;
		c->counts.file_bytes += st->size_bytes;
	} else if (S_ISDIR(st->mode)) {
		c->counts.folders++;
	} else if (S_ISLNK(st->mode)) {
		c->counts.links++;
	} else if (S_ISCHR(st->mode) || S_ISBLK(st->mode) || S_ISFIFO(st->mode) || S_ISSOCK(st->mode)) {
		c->counts.others++;
	} else {
		return fault(c, e, "`%s` is of no known type (mode %o)", path, (unsigned)st->mode);
	}
	if (!ext2fs_test_inode_bitmap2(c->fs->lib->inode_map, st->inode))
		return fault(c, e, "`%s` is inode %" PRIu32 ", which is marked free", path, st->inode);
	if (st->links == 0)
		return fault(c, e, "`%s` is inode %" PRIu32 ", which says that nothing leads to it", path, st->inode);
	return has_data ? check_blocks(c, path, st->inode, e) : 0;
}

static int check_entry(struct checker *c, const struct folder *parent, const struct ext4_dirent *entry, struct err *e)
{
	char path[2 * PATH_SHOWN_MAX_BYTES];
	uint32_t inode = entry->st.inode;
	int names = count_up(&c->names[inode]), r = 0;

	(void)snprintf(path, sizeof(path), "%s%s", parent->path, entry->name);
	if (names == 1)
		r = check_inode(c, path, &entry->st, e);
	if (r < 0 || !S_ISDIR(entry->st.mode))
		return r;
	if (names > 1 || inode == EXT2_ROOT_INO)
		return fault(c, e, "the folder `%s` (inode %" PRIu32 ") has another name too", path, inode);
	(void)count_up(&c->subdirs[parent->inode]);
	return queue_folder(c, inode, parent->path, entry->name, e);
}

static int check_folder(struct checker *c, const struct folder *folder, struct err *e)
{
	_cleanup_ext4_dir_ struct ext4_dir dir = { 0 };
	int r = ext4_list_inode(c->fs, folder->inode, &dir, e);

	if (r < 0)
		return r == -ENOTSUP ? (err_clear(e), 0) : fault_of_error(c, folder->path, e);
	for (size_t i = 0; r == 0 && i < dir.n && !c->full; i++)
		r = check_entry(c, folder, &dir.items[i], e);
	return r;
}

/* Link counts can only be judged at the end. A folder of more than 65000 folders says 1. */
static int check_links(struct checker *c, struct err *e)
{
	int r = 0;

	for (uint32_t i = EXT2_ROOT_INO; r == 0 && !c->full && i <= c->fs->facts.inodes; i++) {
		struct ext2_inode_large raw;
		uint32_t want;

		if (c->names[i] == 0)
			continue;
		r = ext4_read_inode(c->fs, i, &raw, e);
		if (r < 0)
			return fault_of_error(c, "link counts", e);
		want = S_ISDIR(raw.i_mode) ? UINT32_C(2) + c->subdirs[i] : c->names[i];
		if (raw.i_links_count != want && !(S_ISDIR(raw.i_mode) && raw.i_links_count == 1 && want > 64999))
			r = fault(c, e, "inode %" PRIu32 " counts %u links, %" PRIu32 " lead to it", i, raw.i_links_count, want);
	}
	return r;
}

static int check_tree(struct checker *c, struct err *e)
{
	const struct ext4_facts *f = &c->fs->facts;
	errcode_t code;
	int r;

	if (f->blocks > EXT4_CHECK_BLOCKS_MAX || f->inodes > EXT4_CHECK_INODES_MAX)
		return fault(c, e, "the filesystem is too large to be checked: %" PRIu64 " blocks, %" PRIu32 " inodes", f->blocks,
			f->inodes);
	code = ext2fs_read_bitmaps(c->fs->lib);
	if (code) {
		(void)ext4_lib_error(c->fs, code, e, "reading the bitmaps");
		return fault_of_error(c, "bitmaps", e);
	}
	c->claimed = calloc((size_t)(f->blocks / 8 + 1), 1);
	c->names = calloc((size_t)f->inodes + 1, sizeof(*c->names));
	c->subdirs = calloc((size_t)f->inodes + 1, sizeof(*c->subdirs));
	if (!c->claimed || !c->names || !c->subdirs)
		return err_set(e, -ENOMEM, "out of memory");
	c->steps_left = f->blocks * STEPS_PER_BLOCK + f->inodes;
	c->names[EXT2_ROOT_INO] = 1;
	c->counts.folders = 1;
	r = queue_folder(c, EXT2_ROOT_INO, "/", "", e);
	if (r == 0)
		c->queue[0].path[1] = '\0'; /* "/", not "//" */
	if (r == 0)
		r = check_blocks(c, "/", EXT2_ROOT_INO, e);
	for (; r == 0 && c->next < c->n_queue && !c->full; c->next++) {
		struct folder folder = c->queue[c->next]; /* the queue moves as it grows */

		r = check_folder(c, &folder, e);
	}
	return r < 0 ? r : check_links(c, e);
}

int ext4_check(struct blockdev *dev, const struct ext4_expect *expect, struct strv *faults, struct ext4_counts *ret_counts,
	struct err *e)
{
	_cleanup_(checker_release) struct checker c = { .faults = faults };
	struct ext4_facts facts;
	int r = ext4_read_facts(dev, &facts, e);

	if (r < 0)
		return fault_of_error(&c, "the image", e);
	r = check_superblock(&c, &facts, expect, e);
	if (r < 0 || facts.needs_recovery)
		return r;
	r = ext4_open(dev, &c.fs, e);
	if (r < 0)
		return fault_of_error(&c, "the image", e);
	r = check_groups(&c, e);
	if (r == 0)
		r = check_tree(&c, e);
	if (r < 0)
		return r;
	if (ret_counts)
		*ret_counts = c.counts;
	return 0;
}
