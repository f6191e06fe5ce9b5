#include "builder/root.h"
#include "builder/disk/extract.h"
#include "builder/disk/source.h"
#include "builder/ext4/check.h"
#include "builder/ext4/probe.h"
#include "builder/manifest.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

void root_release(struct root *r)
{
	ext4_free(r->boot_fs);
	ext4_free(r->fs);
	blockdev_free(r->boot_dev);
	blockdev_free(r->dev);
	close_fdp(&r->boot_fd);
	close_fdp(&r->fd);
	free(r->path);
	*r = (struct root)ROOT_INIT;
}

int root_probe(void *ctx, struct blockdev *part, struct disk_fs *fs, struct err *e)
{
	struct ext4_probe probe;
	int r = ext4_probe(part, &probe, e);

	(void)ctx;
	if (r < 0)
		return r;
	if (!probe.readable)
		return err_set_kind(e, ERR_KIND_INPUT, probe.problem_code < 0 ? probe.problem_code : -EBADMSG, "%s",
			probe.problem);
	fs->is_root = probe.has_os_release && probe.has_usr;
	fs->has_kernels = probe.has_kernels;
	(void)snprintf(fs->os_name, sizeof(fs->os_name), "%.*s", (int)sizeof(fs->os_name) - 1, probe.os.pretty_name);
	return 0;
}

char *root_selector(const struct plan_partition *partition, char buf[static 320])
{
	buf[0] = '\0';
	switch (partition->by) {
	case PLAN_PARTITION_NUMBER:
		(void)snprintf(buf, 320, "%u", partition->number);
		break;
	case PLAN_PARTITION_LABEL:
		(void)snprintf(buf, 320, "LABEL=%.300s", partition->value);
		break;
	case PLAN_PARTITION_PARTUUID:
		(void)snprintf(buf, 320, "PARTUUID=%.300s", partition->value);
		break;
	case PLAN_PARTITION_DISCOVER:
		break;
	}
	return buf;
}

static int host_read_file(void *ctx, const char *path, struct buf *into, struct err *e)
{
	return ext4_read_file(ctx, path, into, e);
}

static int host_list_dir(void *ctx, const char *path, struct strv *ret_names, struct err *e)
{
	_cleanup_ext4_dir_ struct ext4_dir dir = { 0 };
	int r = ext4_list_dir(ctx, path, &dir, e);

	for (size_t i = 0; r == 0 && i < dir.n; i++)
		if (strv_add(ret_names, dir.items[i].name) < 0)
			r = err_set(e, -ENOMEM, "out of memory");
	return r;
}

struct pkg_host_fs root_host_fs(struct ext4 *fs)
{
	return (struct pkg_host_fs){ .ctx = fs, .read_file = host_read_file, .list_dir = host_list_dir };
}

/* Open the base image's file: the local one, or its blob, fetched when it is not here. */
static int open_base(const struct build_env *env, const struct prepared *p, const struct digest *base_sha256, int *ret_fd,
	struct err *e)
{
	const struct plan_base *base = &p->plan->base[p->arch];
	struct fetch_result result = { 0 };
	struct wanted_file wanted = wanted_location("base image", &base->location, &p->lock.arch[p->arch].base);
	int r;

	if (base->location.path)
		return prepared_open_local(p, "base", ret_fd, e);
	wanted.sha256 = *base_sha256;
	r = fetch_one(env, &wanted, &result, e);
	if (r < 0)
		return err_wrap(e, "the base image");
	fetch_results_release(&result, 1);
	return store_open_blob(publisher_store(env->publisher), base_sha256, ret_fd, NULL, e);
}

/* Write one partition into a file of the folder. */
static int extract_partition(const struct build_env *env, struct blockdev *disk, const struct disk_partition *part,
	int dirfd, const char *name, struct err *e)
{
	_cleanup_blockdev_ struct blockdev *slice = NULL;
	_cleanup_close_ int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct extract_stats stats;
	int r;

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot create `%s`", name);
	r = blockdev_new_slice(disk, part->part.range, &slice, e);
	if (r == 0)
		r = extract_to_file(slice, fd, 0, env->progress, &stats, e);
	if (r == 0 && close(take_fd(&fd)) < 0)
		r = err_set_errno(e, -errno, "cannot write `%s`", name);
	return r < 0 ? err_wrap(e, "taking out partition %u", part->part.number) : 0;
}

/* What a local file held while it was read must be what its digest was made of. */
static int confirm_local(const struct prepared *p, int fd, const struct digest *base_sha256, struct err *e)
{
	const struct plan_location *location = &p->plan->base[p->arch].location;
	struct digest found;
	int r = digest_fd(DIGEST_SHA256, fd, UINT64_MAX, &found, e);

	if (r < 0)
		return r;
	if (!digest_equal(&found, base_sha256))
		return err_set_kind(e, ERR_KIND_INPUT, -EBUSY, "`%s` was changed while it was read; run again", location->path);
	if (location->sha512.algorithm == DIGEST_NONE)
		return 0;
	r = digest_fd(DIGEST_SHA512, fd, UINT64_MAX, &found, e);
	if (r == 0 && !digest_equal(&found, &location->sha512))
		r = err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "`%s` does not have the SHA-512 that the plan says", location->path);
	return r;
}

/* Refuse a damaged root now: after a boot the same faults would be taken for the guest's. */
static int check_root(int dirfd, struct err *e)
{
	const struct ext4_expect anything = { 0 };
	_cleanup_close_ int fd = openat(dirfd, ROOT_IMAGE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_strv_ struct strv faults = { 0 };
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	int r;

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot open `%s`", ROOT_IMAGE);
	r = blockdev_new_file(fd, &dev, e);
	if (r == 0)
		r = ext4_check(dev, &anything, &faults, NULL, e);
	if (r == 0 && faults.n > 0)
		r = err_set_kind(e, ERR_KIND_INPUT, -EUCLEAN,
			"the root filesystem of the base image is damaged: %s%s; take another image, or one that e2fsck -f has repaired",
			faults.items[0], faults.n > 1 ? ", and more" : "");
	return r;
}

static char *root_manifest(const struct disk_layout *layout, size_t root, bool has_boot, const char *selector,
	enum arch arch, size_t *ret_len)
{
	const struct disk_partition *part = &layout->parts[root];
	json_t *manifest = json_pack("{s:i, s:i, s:s, s:s, s:s, s:s, s:b}", "version", MANIFEST_VERSION, "partition",
		(int)part->part.number, "selector", selector, "arch", arch_name(arch), "filesystem", part->fs.type,
		"distribution", part->fs.os_name, "boot", has_boot);
	char *text = manifest ? manifest_format(manifest, ret_len) : NULL;

	json_decref(manifest);
	return text;
}

/* Take the root, and the boot partition where there is one, out of the base and publish both. */
static int extract_root(const struct build_env *env, const struct prepared *p, const struct digest *base_sha256,
	const char *selector, char **ret_path, struct err *e)
{
	_cleanup_temp_folder_ struct temp_folder folder = TEMP_FOLDER_INIT;
	_cleanup_disk_source_ struct disk_source source = DISK_SOURCE_INIT;
	_cleanup_disk_layout_ struct disk_layout layout = { 0 };
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *manifest = NULL;
	char name[STORE_NAME_MAX_BYTES];
	size_t root = 0, boot = 0, len;
	bool has_boot;
	int r = open_base(env, p, base_sha256, &fd, e);

	if (r == 0)
		r = temp_folder_new(env->publisher, "root", &folder, e);
	if (r < 0)
		return r;
	r = disk_source_open(fd, folder.fd, NULL, env->progress, &source, e);
	if (r == 0)
		r = disk_layout_read(source.dev, p->arch, root_probe, NULL, &layout, e);
	if (r == 0)
		r = disk_find_root(&layout, selector, &root, e);
	if (r < 0)
		return err_wrap(e, "base image");
	r = extract_partition(env, source.dev, &layout.parts[root], folder.fd, ROOT_IMAGE, e);
	has_boot = disk_find_boot(&layout, root, &boot) == 0 && fstype_is_ext(&layout.parts[boot].fs);
	if (r == 0 && has_boot)
		r = extract_partition(env, source.dev, &layout.parts[boot], folder.fd, ROOT_BOOT_IMAGE, e);
	if (r == 0)
		r = check_root(folder.fd, e);
	if (r == 0 && p->plan->base[p->arch].location.path)
		r = confirm_local(p, fd, base_sha256, e);
	if (r < 0)
		return r;
	manifest = root_manifest(&layout, root, has_boot, selector, p->arch, &len);
	if (!manifest)
		return err_set(e, -ENOMEM, "out of memory");
	r = publish_folder(&folder, STORE_ROOT, store_root_name(base_sha256, layout.parts[root].part.number, name), manifest,
		len, ret_path, NULL, e);
	if (r == 0)
		progress_note(env->progress, "the root is partition %u: %s", layout.parts[root].part.number,
			layout.parts[root].fs.os_name);
	return r;
}

/* Find a root of this base that was taken out for the same selector. Returns 0 with the path, or -ENOENT. */
static int find_root(const struct store *store, const struct digest *base_sha256, const char *selector, enum arch arch,
	char **ret_path, struct err *e)
{
	_cleanup_store_listing_ struct store_listing listing = { 0 };
	int r = store_list(store, STORE_ROOT, &listing, e);

	for (size_t i = 0; r == 0 && i < listing.n; i++) {
		struct err ignored = ERR_INIT;
		json_t *manifest = NULL;
		bool match;

		if (!digest_equal(&listing.items[i].key, base_sha256) ||
			manifest_load(listing.items[i].path, &manifest, &ignored) < 0)
			continue;
		match = strcmp(manifest_text(manifest, "selector"), selector) == 0 &&
			strcmp(manifest_text(manifest, "arch"), arch_name(arch)) == 0;
		json_decref(manifest);
		if (match) {
			*ret_path = take_ptr(listing.items[i].path);
			return 0;
		}
	}
	return r < 0 ? r : -ENOENT;
}

/* Whether these are the bytes that the plan pins. A SHA-256 in the plan is base_sha256 itself, and local files were read; but for a
 * plan with a SHA-512 alone only the lock says which SHA-256 that is, and a root that was taken out long ago is not judged again. */
static bool is_pinned_base(const struct store *store, const struct prepared *p, const struct digest *base_sha256)
{
	const struct plan_location *location = &p->plan->base[p->arch].location;
	_cleanup_close_ int fd = -1;
	struct err ignored = ERR_INIT;
	struct digest found;

	if (!location->url || location->sha256.algorithm != DIGEST_NONE || location->sha512.algorithm == DIGEST_NONE)
		return true;
	if (store_find_blob(store, &location->sha512, &found, NULL, &ignored) == 0)
		return digest_equal(&found, base_sha256);
	return store_open_blob(store, base_sha256, &fd, NULL, &ignored) == 0 &&
		digest_fd(DIGEST_SHA512, fd, UINT64_MAX, &found, &ignored) == 0 && digest_equal(&found, &location->sha512);
}

/* Find the root in the cache that may stand for the plan's base. Returns as find_root(). */
static int find_root_of_plan(const struct store *store, const struct prepared *p, const struct digest *base_sha256,
	const char *selector, char **ret, struct err *e)
{
	if (!is_pinned_base(store, p, base_sha256))
		return -ENOENT;
	return find_root(store, base_sha256, selector, p->arch, ret, e);
}

bool root_is_cached(const struct store *store, const struct prepared *p, const struct digest *base_sha256)
{
	_cleanup_free_ char *path = NULL;
	struct err ignored = ERR_INIT;
	char selector[320];

	root_selector(&p->plan->base[p->arch].partition, selector);
	return find_root_of_plan(store, p, base_sha256, selector, &path, &ignored) == 0;
}

static int open_image(const char *path, const char *name, int *ret_fd, struct blockdev **ret_dev, struct ext4 **ret_fs,
	struct err *e)
{
	_cleanup_close_ int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r;

	if (dirfd < 0)
		return err_set_errno(e, -errno, "cannot open `%s`", path);
	*ret_fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (*ret_fd < 0)
		return err_set_errno(e, -errno, "cannot open `%s/%s`", path, name);
	r = blockdev_new_file(*ret_fd, ret_dev, e);
	if (r == 0)
		r = ext4_open(*ret_dev, ret_fs, e);
	return r < 0 ? err_wrap(e, "`%s/%s`", path, name) : 0;
}

int root_get(const struct build_env *env, const struct prepared *p, const struct digest *base_sha256, struct root *ret,
	struct err *e)
{
	_cleanup_root_ struct root root = ROOT_INIT;
	char selector[320];
	json_t *manifest = NULL;
	bool has_boot;
	int r;

	root_selector(&p->plan->base[p->arch].partition, selector);
	r = find_root_of_plan(publisher_store(env->publisher), p, base_sha256, selector, &root.path, e);
	if (r == -ENOENT)
		r = extract_root(env, p, base_sha256, selector, &root.path, e);
	if (r == 0)
		r = manifest_load(root.path, &manifest, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	root.base_sha256 = *base_sha256;
	root.partition = (unsigned)json_integer_value(json_object_get(manifest, "partition"));
	(void)snprintf(root.distribution, sizeof(root.distribution), "%s", manifest_text(manifest, "distribution"));
	has_boot = json_is_true(json_object_get(manifest, "boot"));
	json_decref(manifest);
	r = open_image(root.path, ROOT_IMAGE, &root.fd, &root.dev, &root.fs, e);
	if (r == 0 && has_boot)
		r = open_image(root.path, ROOT_BOOT_IMAGE, &root.boot_fd, &root.boot_dev, &root.boot_fs, e);
	if (r < 0)
		return r;
	*ret = root;
	root = (struct root)ROOT_INIT;
	return 0;
}
