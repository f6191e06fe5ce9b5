#include "builder/outcome.h"
#include "builder/companions.h"
#include "builder/ext4/check.h"
#include "lib/version.h"
#include "plan/epoch.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* Hold the packages of the image against what the lock promised. */
static int check_packages(const struct prepared *p, const struct debs *debs, const struct installed *installed,
	struct strv *differences)
{
	const struct strv *removals = &p->lock.arch[p->arch].packages.removals;
	int r = 0;

	for (size_t i = 0; r == 0 && i < debs->n; i++) {
		const struct deb *deb = &debs->items[i];
		const struct installed_package *found = installed_find(installed, deb->name, deb->arch);

		if (!found)
			r = strv_addf(differences, "%s %s is not installed", deb->name, deb->version);
		else if (strcmp(found->version, deb->version) != 0)
			r = strv_addf(differences, "%s is installed in version %s instead of %s", deb->name, found->version,
				deb->version);
	}
	for (size_t i = 0; r == 0 && debs->ops.n > 0 && i < removals->n; i++)
		if (installed_find(installed, removals->items[i], NULL))
			r = strv_addf(differences, "%s was to be removed and is installed", removals->items[i]);
	return r;
}

static int check_whole(const struct installed *installed, struct err *e)
{
	for (size_t i = 0; i < installed->n; i++)
		if (!installed->items[i].whole)
			return err_set_kind(e, ERR_KIND_GUEST, -EBADMSG, "package %s %s is left in the state \"%s\"",
				installed->items[i].name, installed->items[i].version, installed->items[i].state);
	return 0;
}

/* A clean filesystem of the promised size. */
static int check_filesystem(struct blockdev *dev, const struct plan_image *image, struct err *e)
{
	struct ext4_expect expect = { .size_bytes = image->size_bytes, .label = image->label };
	_cleanup_strv_ struct strv faults = { 0 };
	int r = ext4_check(dev, &expect, &faults, NULL, e);

	if (r == 0 && faults.n > 0)
		r = err_set(e, -EBADMSG, "%s%s", faults.items[0], faults.n > 1 ? ", and more" : "");
	return r;
}

int outcome_check_image(int image_fd, const struct prepared *p, const struct debs *debs, struct installed *installed,
	struct strv *notes, struct err *e)
{
	_cleanup_strv_ struct strv differences = { 0 };
	_cleanup_blockdev_ struct blockdev *dev = NULL;
	_cleanup_ext4_ struct ext4 *fs = NULL;
	int r = blockdev_new_file(image_fd, &dev, e);

	if (r == 0)
		r = check_filesystem(dev, &p->plan->image, e);
	if (r == 0)
		r = ext4_open(dev, &fs, e);
	if (r == 0)
		r = installed_read(fs, installed, e);
	if (r < 0) {
		e->kind = ERR_KIND_GUEST;
		return err_wrap(e, "the guest says it passed, but its image is not right");
	}
	r = debs->n > 0 ? check_whole(installed, e) : 0;
	if (r == 0 && check_packages(p, debs, installed, &differences) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r < 0 || differences.n == 0)
		return r;
	if (p->plan->setup.script || p->plan->setup.file)
		return strv_extend(notes, &differences) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
	return err_set_kind(e, ERR_KIND_GUEST, -EBADMSG, "the guest says it passed, but %s%s", differences.items[0],
		differences.n > 1 ? ", and more" : "");
}

static json_t *describe_installed_by_plan(const struct debs *debs)
{
	json_t *array = json_array();

	for (size_t i = 0; debs && array && i < debs->n; i++) {
		const struct deb *deb = &debs->items[i];
		char hex[DIGEST_HEX_SIZE];

		(void)json_array_append_new(array, json_pack("{s:s, s:s, s:s, s:s}", "name", deb->name, "version", deb->version,
							   "arch", deb->arch, "sha256", digest_hex(&deb->sha256, hex)));
	}
	return array;
}

static json_t *describe_packages(const struct installed *installed)
{
	json_t *array = json_array();

	for (size_t i = 0; installed && array && i < installed->n; i++)
		(void)json_array_append_new(array,
			json_pack("{s:s, s:s, s:s}", "name", installed->items[i].name, "version",
				installed->items[i].version, "arch", installed->items[i].arch));
	return array;
}

static json_t *describe_strings(const struct strv *strings)
{
	json_t *array = json_array();

	for (size_t i = 0; strings && array && i < strings->n; i++) {
		char clean[4096];

		(void)json_array_append_new(array,
			json_string(err_sanitize(clean, sizeof(clean), strings->items[i], strlen(strings->items[i]))));
	}
	return array;
}

static json_t *describe_checksums(const struct lock_checksums *checksums)
{
	char hex[DIGEST_HEX_SIZE];

	return checksums->url ? json_pack("{s:s, s:s, s:s*}", "url", checksums->url, "sha256", digest_hex(&checksums->sha256, hex),
					 "signer", checksums->signer) :
				NULL;
}

static json_t *describe_base(const struct outcome *o)
{
	const struct plan_location *location = &o->p->plan->base[o->p->arch].location;
	const struct lock_blob *locked = &o->p->lock.arch[o->p->arch].base;
	/* What the lock tells of the base counts only when it speaks of these bytes: it may be an older plan's. */
	bool is_locked = location->url && digest_equal(&locked->sha256, &o->root->base_sha256);
	bool is_pinned = location->sha256.algorithm != DIGEST_NONE || location->sha512.algorithm != DIGEST_NONE;
	char hex[DIGEST_HEX_SIZE];

	return json_pack("{s:s, s:i, s:s, s:s*, s:s, s:o*}", "sha256", digest_hex(&o->root->base_sha256, hex), "partition",
		(int)o->root->partition, "distribution", o->root->distribution, "url", is_locked ? locked->url : NULL, "trust",
		is_pinned ? lock_trust_name(LOCK_TRUST_PLAN) : is_locked ? lock_trust_name(locked->trust) : "local", "checksums",
		is_locked ? describe_checksums(&locked->checksums) : NULL);
}

static json_t *describe_kernel(const struct kernel *kernel)
{
	char hex[DIGEST_HEX_SIZE];

	return json_pack("{s:s, s:s, s:s}", "release", kernel->release, "format",
		kernel_format_name(kernel->image.format), "sha256", digest_hex(&kernel->sha256, hex));
}

static json_t *describe_build(const struct vm_result *vm, const struct events *events)
{
	json_t *steps = json_array(), *stages = json_array();

	for (size_t i = 0; steps && i < vm->n_steps; i++)
		(void)json_array_append_new(steps, json_pack("{s:s, s:I}", "name", vm->steps[i].name, "ms",
							   (json_int_t)vm->steps[i].ms));
	for (size_t i = 0; stages && i < events->n_stages; i++)
		if (events->stages[i].ended)
			(void)json_array_append_new(stages, json_pack("{s:s, s:I}", "name", events->stages[i].name, "ms",
								    (json_int_t)events->stages[i].ms));
	return json_pack("{s:s, s:s, s:I, s:I, s:o, s:o}", "accelerator", vm->kvm ? "kvm" : "tcg", "channel",
		vm_channel_name(vm->channel), "boot_ms", (json_int_t)vm->boot_ms, "total_ms", (json_int_t)vm->total_ms,
		"steps", steps, "stages", stages);
}

static json_t *describe_failure(const struct outcome *o)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:i}", "message", o->failure->message, "outcome",
		vm_outcome_name(o->vm->outcome), "step", o->vm->step, "reason", record_reason_name(o->vm->reason), "exit",
		o->vm->exit_status, "signal", o->vm->signal);
}

/* Add size and digest of a file, if it is there. */
static int describe_file(int dirfd, const char *name, json_t *files, struct err *e)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char hex[DIGEST_HEX_SIZE];
	struct digest digest;
	struct stat st;
	int r;

	if (fd < 0)
		return 0;
	r = fstat(fd, &st) < 0 ? err_set_errno(e, -errno, "cannot stat `%s`", name) :
				  digest_fd(DIGEST_SHA256, fd, UINT64_MAX, &digest, e);
	if (r == 0)
		(void)json_object_set_new(files, name,
			json_pack("{s:I, s:s}", "size_bytes", (json_int_t)st.st_size, "sha256", digest_hex(&digest, hex)));
	return r;
}

/* Size and digest of each file that is booted, and of what is kept of the plan. */
static int describe_files(int dirfd, json_t **ret, struct err *e)
{
	static const char *const names[] = { "kernel", "initrd", COMPANION_PLAN, COMPANION_LOCK, COMPANION_KEY, COMPANION_SETUP };
	int texts_fd = openat(dirfd, COMPANION_TEXTS, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_closedir_ DIR *texts = texts_fd < 0 ? NULL : fdopendir(texts_fd);
	json_t *object = json_object();
	struct dirent *entry;
	int r = 0;

	if (!texts)
		close_fdp(&texts_fd);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(names); i++)
		r = describe_file(dirfd, names[i], object, e);
	while (r == 0 && texts && (entry = readdir(texts))) {
		char name[sizeof(COMPANION_TEXTS "/") + sizeof(entry->d_name)];

		(void)snprintf(name, sizeof(name), COMPANION_TEXTS "/%s", entry->d_name);
		if (entry->d_name[0] != '.')
			r = describe_file(dirfd, name, object, e);
	}
	if (r < 0)
		json_decref(object);
	else
		*ret = object;
	return r;
}

static int describe_image(int fd, json_t **ret, struct err *e)
{
	json_t *chunks = NULL;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot stat the image");
	r = manifest_digest_chunks(fd, &chunks, e);
	if (r == 0)
		*ret = json_pack("{s:s, s:I, s:I, s:I, s:o}", "file", "rootfs.ext4", "size_bytes", (json_int_t)st.st_size,
			"stored_bytes", (json_int_t)st.st_blocks * 512, "chunk_bytes", (json_int_t)MANIFEST_CHUNK_BYTES,
			"chunks", chunks);
	return r;
}

int outcome_write_manifest(const struct outcome *o, int files_dirfd, char **ret_text, size_t *ret_len, struct err *e)
{
	const struct prepared *p = o->p;
	const char *cmdline = p->plan->kernel[p->arch].cmdline;
	bool has_packages = lock_needs_packages(p->plan, p->arch);
	json_t *manifest, *files = NULL, *image = NULL;
	char hex[DIGEST_HEX_SIZE];
	int r = describe_files(files_dirfd, &files, e);

	if (r == 0 && !o->failure)
		r = describe_image(o->image_fd, &image, e);
	if (r < 0) {
		json_decref(files);
		return r;
	}
	manifest = json_pack("{s:i, s:s, s:i, s:s, s:s?, s:s, s:O, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:s, s:I}, s:o}",
		"version", MANIFEST_VERSION, "key", digest_hex(&p->key, hex), "epoch", IMGBUILD_EPOCH, "arch",
		arch_name(p->arch), "name", p->plan->name, "imgbuild", IMGBUILD_VERSION, "inputs", p->document, "base",
		describe_base(o), "kernel", describe_kernel(&o->kernel->kernel), "installed", describe_installed_by_plan(o->debs),
		"removed", describe_strings(has_packages ? &p->lock.arch[p->arch].packages.removals : NULL), "packages",
		describe_packages(o->installed), "fstab_dropped", describe_strings(&o->assembled->fstab_dropped), "notes",
		describe_strings(o->notes), "files", files, "boot", "cmdline", cmdline ? cmdline : "", "memory_mib",
		(json_int_t)o->memory_mib, "build", describe_build(o->vm, o->events));
	if (manifest && image)
		(void)json_object_set_new(manifest, "image", image);
	if (manifest && o->failure)
		(void)json_object_set_new(manifest, "failure", describe_failure(o));
	*ret_text = manifest ? manifest_format(manifest, ret_len) : NULL;
	json_decref(manifest);
	return *ret_text ? 0 : err_set(e, -ENOMEM, "out of memory for the manifest");
}
