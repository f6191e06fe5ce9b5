#include "builder/cli/disks.h"
#include "builder/cli/terminal.h"
#include "builder/disk/extract.h"
#include "builder/disk/inspect.h"
#include "builder/root.h"
#include "lib/newfile.h"

#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

/* A disk image, opened. */
struct opened_disk {
	int fd, scratch_dirfd;
	struct disk_source source;
};

static void opened_disk_release(struct opened_disk *d)
{
	disk_source_release(&d->source);
	close_fdp(&d->scratch_dirfd);
	close_fdp(&d->fd);
}

static int open_disk(const char *path, const char *scratch_path, struct progress *progress, struct opened_disk *ret,
	struct err *e)
{
	struct stat st;
	int r;

	ret->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (ret->fd < 0) {
		r = err_set_errno(e, -errno, "cannot open `%s`", path);
		e->kind = ERR_KIND_INPUT;
		return r;
	}
	if (fstat(ret->fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot stat `%s`", path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s` is neither a file nor a block device", path);
	ret->scratch_dirfd = open(scratch_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = disk_source_open(ret->fd, ret->scratch_dirfd, NULL, progress, &ret->source, e);
	return r < 0 ? err_wrap(e, "`%s`", path) : 0;
}

static json_t *partition_json(const struct disk_partition *p, bool is_root)
{
	return json_pack("{s:i, s:I, s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "number", (int)p->part.number,
		"start_bytes", (json_int_t)p->part.range.start_bytes, "size_bytes", (json_int_t)p->part.range.size_bytes,
		"type", p->part.type, "partuuid", p->part.partuuid, "name", p->part.name, "filesystem", p->fs.type, "label",
		p->fs.label, "uuid", p->fs.uuid, "distribution", p->fs.os_name, "problem", p->fs.problem, "role",
		disk_role_name(p->role), "root", is_root);
}

static json_t *report_json(const struct disk_report *report)
{
	const struct disk_layout *layout = &report->layout;
	json_t *partitions = json_array(), *object;

	for (size_t i = 0; partitions && i < layout->n; i++)
		(void)json_array_append_new(partitions,
			partition_json(&layout->parts[i], report->has_root && i == report->root_index));
	object = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:i, s:b, s:o}", "format",
		disk_format_name(report->format), "packing", disk_packing_name(report->packing), "member", report->member,
		"file_bytes", (json_int_t)report->file_bytes, "virtual_bytes", (json_int_t)report->virtual_bytes,
		"allocated_bytes", (json_int_t)report->allocated_bytes, "table", partition_table_kind_name(layout->kind),
		"sector_bytes", (int)layout->sector_bytes, "table_from_backup", layout->from_backup, "partitions", partitions);
	if (object && report->has_root)
		(void)json_object_set_new(object, "root",
			json_integer((json_int_t)layout->parts[report->root_index].part.number));
	if (object && !report->has_root)
		(void)json_object_set_new(object, "root_error", json_string(report->root_error.message));
	return object;
}

static void print_partition(FILE *out, const struct disk_partition *p, bool is_root)
{
	char size[32];

	(void)fprintf(out, "%c %3u  %9s  %-8s %-16.16s %-9s %s\n", is_root ? '*' : ' ', p->part.number,
		format_bytes(size, p->part.range.size_bytes), p->fs.type[0] ? p->fs.type : "-",
		p->fs.label[0] ? p->fs.label : "-", disk_role_name(p->role), p->fs.problem[0] ? p->fs.problem : p->fs.os_name);
}

static void print_report(FILE *out, const char *path, const struct disk_report *report)
{
	const struct disk_layout *layout = &report->layout;
	char file[32], virtual[32], allocated[32];

	(void)fprintf(out, "file         %s, %s\n", path, format_bytes(file, report->file_bytes));
	(void)fprintf(out, "format       %s%s%s%s%s\n", disk_format_name(report->format),
		report->packing != DISK_PACKING_NONE ? " in " : "", disk_packing_name(report->packing),
		report->in_tar ? " tar, member " : "", report->member);
	(void)fprintf(out, "disk         %s, %s of it allocated\n", format_bytes(virtual, report->virtual_bytes),
		format_bytes(allocated, report->allocated_bytes));
	(void)fprintf(out, "table        %s", partition_table_kind_name(layout->kind));
	if (layout->sector_bytes > 0)
		(void)fprintf(out, ", sectors of %u bytes%s", layout->sector_bytes,
			layout->from_backup ? ", from the backup header" : "");
	(void)fprintf(out, "\n\n");
	(void)fprintf(out, "  nr.       size  fs       label            role      holds\n");
	for (size_t i = 0; i < layout->n; i++)
		print_partition(out, &layout->parts[i], report->has_root && i == report->root_index);
	if (!report->has_root)
		(void)fprintf(out, "\nno root: %s\n", report->root_error.message);
}

int disks_inspect(const char *path, enum arch arch, bool json, const char *scratch_path, struct progress *progress,
	FILE *out, struct err *e)
{
	_cleanup_(opened_disk_release) struct opened_disk disk = { -1, -1, DISK_SOURCE_INIT };
	_cleanup_disk_report_ struct disk_report report = { 0 };
	int r = open_disk(path, scratch_path, progress, &disk, e);

	if (r == 0)
		r = disk_inspect(&disk.source, arch, NULL, root_probe, NULL, &report, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	if (json) {
		json_t *object = report_json(&report);

		(void)json_dumpf(object, out, JSON_INDENT(1));
		(void)fputc('\n', out);
		json_decref(object);
	} else {
		print_report(out, path, &report);
	}
	return 0;
}

/* Copy the chosen partition into a new file, which appears when it is whole. */
static int extract_part(struct blockdev *dev, const struct disk_partition *part, const char *out_path,
	struct progress *progress, struct extract_stats *ret_stats, struct err *e)
{
	_cleanup_blockdev_ struct blockdev *slice = NULL;
	_cleanup_new_file_ struct new_file file = NEW_FILE_INIT;
	int r = blockdev_new_slice(dev, part->part.range, &slice, e);

	if (r == 0)
		r = new_file_open(out_path, &file, e);
	if (r == 0)
		r = extract_to_file(slice, file.fd, 0, progress, ret_stats, e);
	return r < 0 ? r : new_file_finish(&file, e);
}

int disks_extract(const char *path, const char *out_path, enum arch arch, bool json, const char *scratch_path,
	struct progress *progress, FILE *out, struct err *e)
{
	_cleanup_(opened_disk_release) struct opened_disk disk = { -1, -1, DISK_SOURCE_INIT };
	_cleanup_disk_layout_ struct disk_layout layout = { 0 };
	struct extract_stats stats = { 0 };
	const struct disk_partition *part;
	size_t root;
	int r = open_disk(path, scratch_path, progress, &disk, e);

	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	r = disk_layout_read(disk.source.dev, arch, root_probe, NULL, &layout, e);
	if (r == 0)
		r = disk_find_root(&layout, NULL, &root, e);
	if (r < 0) {
		(void)err_wrap(e, "`%s`", path);
		return err_default_kind(e, ERR_KIND_INPUT);
	}
	part = &layout.parts[root];
	r = extract_part(disk.source.dev, part, out_path, progress, &stats, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	progress_note(progress, "partition %u: %s", part->part.number, part->fs.os_name);
	if (json) {
		json_t *object = partition_json(part, true);

		(void)json_object_set_new(object, "path", json_string(out_path));
		(void)json_object_set_new(object, "written_bytes", json_integer((json_int_t)stats.written_bytes));
		(void)json_dumpf(object, out, JSON_INDENT(1));
		(void)fputc('\n', out);
		json_decref(object);
	}
	return 0;
}
