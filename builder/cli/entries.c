#include "builder/cli/entries.h"
#include "builder/cli/terminal.h"
#include "builder/cli/values.h"
#include "builder/manifest.h"
#include "builder/vm/accel.h"
#include "builder/vm/qemu.h"
#include "plan/json.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Bytes that the files of an entry take on the disk. */
static uint64_t entry_stored_bytes(const char *path)
{
	_cleanup_closedir_ DIR *dir = opendir(path);
	struct dirent *entry;
	uint64_t total = 0;
	struct stat st;

	while (dir && (entry = readdir(dir)))
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			total += (uint64_t)st.st_blocks * 512;
	return total;
}

/* A member as text that can go to a terminal: an entry may have been written by others. */
#define CLEAN_BYTES 256
#define CLEAN(object, name) clean_text((char[CLEAN_BYTES]){ 0 }, object, name)

static const char *clean_text(char buf[static CLEAN_BYTES], const json_t *object, const char *name)
{
	const char *text = manifest_text(object, name);

	return err_sanitize(buf, CLEAN_BYTES, text, strlen(text));
}

static const char *format_time(char out[static 32], int64_t published_ns)
{
	time_t seconds = (time_t)(published_ns / 1000000000);
	struct tm tm;

	if (!localtime_r(&seconds, &tm) || strftime(out, 32, "%Y-%m-%d %H:%M", &tm) == 0)
		(void)snprintf(out, 32, "?");
	return out;
}

/* What is known of one entry for a listing: a new object. An entry that cannot be read is listed with its error. */
static json_t *describe_item(const struct store_item *item)
{
	struct err ignored = ERR_INIT;
	json_t *manifest = NULL, *object;
	bool damaged = manifest_load(item->path, &manifest, &ignored) < 0;

	object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "key", item->name, "path", item->path, "state",
		damaged			      ? "damaged" :
		item->kind == STORE_FAILED ? "failed" :
						"ready",
		"name", manifest_text(manifest, "name"), "arch", manifest_text(manifest, "arch"), "stored_bytes",
		(json_int_t)entry_stored_bytes(item->path), "published", (json_int_t)(item->published_ns / 1000000000));
	json_decref(manifest);
	return object;
}

static void print_row(FILE *out, const struct store_item *item, const json_t *object)
{
	char size[32], when[32], clean[64];
	const char *name = manifest_text(object, "name");

	/* The key is cut for the eye; failed builds keep their number. */
	(void)fprintf(out, "%.16s%-4s %-7s %-6s %8s  %s  %s\n", item->name,
		item->kind == STORE_FAILED && strrchr(item->name, '-') ? strrchr(item->name, '-') : "",
		manifest_text(object, "state"), CLEAN(object, "arch"),
		format_bytes(size, (uint64_t)json_integer_value(json_object_get(object, "stored_bytes"))),
		format_time(when, item->published_ns), err_sanitize(clean, sizeof(clean), name, strlen(name)));
}

int entries_list(const struct store *store, bool json, FILE *out, struct err *e)
{
	static const enum store_kind kinds[] = { STORE_IMAGE, STORE_FAILED };
	json_t *array = json_array();
	int r = array ? 0 : err_set(e, -ENOMEM, "out of memory");

	for (size_t k = 0; r == 0 && k < ARRAY_SIZE(kinds); k++) {
		_cleanup_store_listing_ struct store_listing listing = { 0 };

		r = store_list(store, kinds[k], &listing, e);
		for (size_t i = 0; r == 0 && i < listing.n; i++) {
			json_t *object = describe_item(&listing.items[i]);

			if (!object || json_array_append_new(array, object) < 0)
				r = err_set(e, -ENOMEM, "out of memory");
			else if (!json)
				print_row(out, &listing.items[i], object);
		}
	}
	if (r == 0 && json) {
		(void)json_dumpf(array, out, JSON_INDENT(1) | JSON_ENSURE_ASCII);
		(void)fputc('\n', out);
	}
	json_decref(array);
	return r;
}

/* Print the strings of an array as indented lines under a heading, if there are any. */
static void print_lines(FILE *out, const char *heading, const json_t *array)
{
	size_t i;
	json_t *item;

	if (json_array_size(array) > 0)
		(void)fprintf(out, "%s\n", heading);
	json_array_foreach(array, i, item)
	{
		char clean[512];
		const char *text = json_string_value(item);

		if (text)
			(void)fprintf(out, "  %s\n", err_sanitize(clean, sizeof(clean), text, strlen(text)));
	}
}

static void print_packages(FILE *out, const json_t *manifest)
{
	const json_t *installed = json_object_get(manifest, "installed");
	size_t i;
	json_t *item;

	(void)fprintf(out, "packages     %zu in the image, %zu by the plan\n",
		json_array_size(json_object_get(manifest, "packages")), json_array_size(installed));
	json_array_foreach(installed, i, item)
		(void)fprintf(out, "  %-32s %-24s %-6s %.12s\n", CLEAN(item, "name"),
			CLEAN(item, "version"), CLEAN(item, "arch"), CLEAN(item, "sha256"));
	print_lines(out, "removed", json_object_get(manifest, "removed"));
}

/* What else went in, in the words of `why`: all that differs from nothing. Base, kernel and packages have lines of their own. */
static int print_inputs(FILE *out, const json_t *manifest, struct err *e)
{
	_cleanup_json_ json_t *nothing = json_object();
	const struct key_side before = { .document = nothing }, after = { .document = json_object_get(manifest, "inputs") };
	_cleanup_key_changes_ struct key_changes changes = { 0 };
	int r = json_is_object(after.document) ? key_diff(&before, &after, NULL, &changes, e) : 0;

	for (size_t i = 0; r == 0 && i < changes.n; i++) {
		const struct key_change *c = &changes.items[i];
		_cleanup_buf_ struct buf line = BUF_INIT(1 << 16), value = BUF_INIT(1 << 16);

		/* An empty list of them is compared as a whole. */
		if (c->input < KEY_INPUT_FILE || c->input == KEY_INPUT_OTHER || !c->new_value || json_is_null(c->new_value) ||
			(!c->name[0] && !c->field[0] && c->input != KEY_INPUT_SETUP) || json_is_false(c->new_value) || (json_is_array(c->new_value) && json_array_size(c->new_value) == 0))
			continue;
		value_append_string(&line, c->name);
		if (!json_is_true(c->new_value) && json_is_object(c->new_value) && !c->field[0])
			value_append_thing(&value, c->input, c->new_value);
		else if (!json_is_true(c->new_value) || c->field[0])
			value_append(&value, c->input, c->field, c->new_value);
		if (c->field[0]) {
			(void)!buf_append_str(&line, line.len ? ": " : "");
			value_append_string(&line, c->field);
		}
		(void)fprintf(out, "%-12s %s%s%s\n", key_input_name(c->input), buf_str(&line),
			line.len == 0 || value.len == 0 ? "" : c->field[0] ? " " : ": ", buf_str(&value));
	}
	return r;
}

static void print_build(FILE *out, const json_t *build)
{
	const json_t *steps = json_object_get(build, "steps");
	char text[32];
	size_t i;
	json_t *item;

	if (!build)
		return;
	(void)fprintf(out, "built        with %s in %s, of which the guest\n", CLEAN(build, "accelerator"),
		format_ms(text, (uint64_t)json_integer_value(json_object_get(build, "total_ms"))));
	(void)fprintf(out, "  %-16s %s\n", "started in",
		format_ms(text, (uint64_t)json_integer_value(json_object_get(build, "boot_ms"))));
	json_array_foreach(steps, i, item)
		(void)fprintf(out, "  %-16s %s\n", CLEAN(item, "name"),
			format_ms(text, (uint64_t)json_integer_value(json_object_get(item, "ms"))));
}

/* Whether KVM is known not to work here, so that the printed line must not ask for it. */
static bool kvm_is_broken(const struct store *store, enum arch arch)
{
	_cleanup_close_ int state = store->root_fd < 0 ? -1 : openat(store->root_fd, "state", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct accel_options options = { .arch = arch, .memory_dirfd = state };
	struct accel_decision decision;
	struct err ignored = ERR_INIT;

	return accel_choose(&options, &decision, &ignored) == 0 && !decision.kvm;
}

/* The line that boots the entry, throwing changes away. */
static int print_boot_command(const struct store *store, FILE *out, const char *path, const json_t *manifest, struct err *e)
{
	_cleanup_buf_ struct buf line = BUF_INIT(65536);
	_cleanup_free_ char *kernel = NULL, *initrd = NULL, *image = NULL;
	const char *cmdline = manifest_text(json_object_get(manifest, "boot"), "cmdline");
	struct qemu_boot boot = { .cmdline = cmdline[0] ? cmdline : NULL };
	int r = arch_parse(manifest_text(manifest, "arch"), &boot.arch);

	if (r < 0)
		return err_set(e, r, "the manifest of `%s` names no architecture", path);
	if (asprintf(&kernel, "%s/kernel", path) < 0 || asprintf(&initrd, "%s/initrd", path) < 0 ||
		asprintf(&image, "%s/rootfs.ext4", path) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	boot.force_tcg = kvm_is_broken(store, boot.arch);
	boot.kernel = kernel;
	boot.initrd = initrd;
	boot.image = image;
	r = qemu_boot_command(&boot, &line, e);
	if (r < 0)
		return r;
	(void)fprintf(out, "boot it (changes are thrown away; C-a x ends it)\n%s\n", buf_str(&line));
	return 0;
}

static void print_failure(FILE *out, const json_t *failure)
{
	char clean[2048];
	const char *message = manifest_text(failure, "message");

	if (!failure)
		return;
	(void)fprintf(out, "failed       %s\n", err_sanitize(clean, sizeof(clean), message, strlen(message)));
}

/* What stood behind the base. An entry of an older imgbuild does not say. */
static void print_trust(FILE *out, const json_t *base)
{
	const json_t *checksums = json_object_get(base, "checksums");
	const char *trust = manifest_text(base, "trust"), *signer = manifest_text(checksums, "signer");
	char url[2048];

	if (!trust[0])
		return;
	(void)fprintf(out, "  vouched for by %s", strcmp(trust, "plan") == 0 ? "the plan's digest" :
		strcmp(trust, "local") == 0 ? "nobody: a local file" :
		strcmp(trust, "first-use") == 0 ? "nobody: first use, pinned by the lock" : "");
	if (checksums)
		(void)fprintf(out, "%s", err_sanitize(url, sizeof(url), manifest_text(checksums, "url"),
			strlen(manifest_text(checksums, "url"))));
	(void)fprintf(out, "%s%s\n", signer[0] ? ", signed by " : checksums ? ", unsigned" : "", CLEAN(checksums, "signer"));
}

static int print_entry(const struct store *store, FILE *out, const struct store_item *item, const json_t *manifest, struct err *e)
{
	const json_t *base = json_object_get(manifest, "base"), *kernel = json_object_get(manifest, "kernel");
	const json_t *image = json_object_get(manifest, "image");
	char size[32], stored[32], when[32];
	int r;

	(void)fprintf(out, "key          %s\n", item->name);
	(void)fprintf(out, "name         %s\n", CLEAN(manifest, "name"));
	(void)fprintf(out, "path         %s\n", item->path);
	(void)fprintf(out, "published    %s\n", format_time(when, item->published_ns));
	print_failure(out, json_object_get(manifest, "failure"));
	(void)fprintf(out, "base         %s (%s), partition %lld of %s\n", CLEAN(base, "distribution"),
		CLEAN(manifest, "arch"), (long long)json_integer_value(json_object_get(base, "partition")),
		CLEAN(base, "sha256"));
	print_trust(out, base);
	(void)fprintf(out, "kernel       %s (%s) %s\n", CLEAN(kernel, "release"), CLEAN(kernel, "format"),
		CLEAN(kernel, "sha256"));
	if (image)
		(void)fprintf(out, "image        %s, %s stored, %zu chunks of 4 MiB\n",
			format_bytes(size, (uint64_t)json_integer_value(json_object_get(image, "size_bytes"))),
			format_bytes(stored, (uint64_t)json_integer_value(json_object_get(image, "stored_bytes"))),
			json_array_size(json_object_get(image, "chunks")));
	print_packages(out, manifest);
	r = print_inputs(out, manifest, e);
	if (r < 0)
		return r;
	print_lines(out, "dropped from /etc/fstab", json_object_get(manifest, "fstab_dropped"));
	print_lines(out, "notes", json_object_get(manifest, "notes"));
	print_build(out, json_object_get(manifest, "build"));
	return item->kind == STORE_FAILED ? 0 : print_boot_command(store, out, item->path, manifest, e);
}

int entries_show(const struct store *store, const char *prefix, bool json, FILE *out, struct err *e)
{
	_cleanup_store_item_ struct store_item item = { 0 };
	json_t *manifest = NULL;
	int r = store_resolve_prefix(store, prefix, true, &item, e);

	if (r < 0)
		return err_default_kind(e, ERR_KIND_USAGE);
	r = manifest_load(item.path, &manifest, e);
	if (r < 0)
		return r;
	if (json) {
		(void)json_object_set_new(manifest, "path", json_string(item.path));
		(void)json_dumpf(manifest, out, JSON_INDENT(1) | JSON_SORT_KEYS | JSON_ENSURE_ASCII);
		(void)fputc('\n', out);
	} else {
		r = print_entry(store, out, &item, manifest, e);
	}
	json_decref(manifest);
	return r;
}
