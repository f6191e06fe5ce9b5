#include "builder/build.h"
#include "builder/companions.h"
#include "builder/fetch_list.h"
#include "builder/outcome.h"
#include "builder/resolve.h"
#include "lib/io.h"
#include "lib/process.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

enum { DEFAULT_MEMORY_MIB = 2048, DEFAULT_CPUS = 2, NOTES_MAX = 1000, OUTPUT_LINE_MAX_BYTES = 1000 };

void built_release(struct built *b)
{
	free(b->path);
	*b = (struct built){ 0 };
}

/* A build under way: everything its stages made so far, released in one place. */
struct building {
	const struct build_env *env;
	struct events *events;
	struct prepared *p;
	struct temp_folder folder;  /* becomes the entry, or the failed build */
	struct temp_folder workshop; /* the kernel's parts; never published */
	struct root root;
	struct boot_kernel kernel;
	struct debs debs;
	struct assembled assembled;
	struct installed installed;
	struct strv notes;
	struct vm_result vm;
	struct line_reader output; /* of the steps, cut into lines */
	uint32_t memory_mib;
	int disk_fd, kernel_fd, console_fd, events_fd;
};

static void building_release(struct building *b)
{
	installed_release(&b->installed);
	assembled_release(&b->assembled);
	debs_release(&b->debs);
	boot_kernel_release(&b->kernel);
	root_release(&b->root);
	strv_release(&b->notes);
	line_reader_release(&b->output);
	close_fdp(&b->disk_fd);
	close_fdp(&b->kernel_fd);
	close_fdp(&b->console_fd);
	close_fdp(&b->events_fd);
	temp_folder_release(&b->workshop);
	temp_folder_release(&b->folder);
}

static int create_in(const struct temp_folder *folder, const char *name, int flags, int *ret_fd, struct err *e)
{
	int fd = openat(folder->fd, name, flags | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot create `%s/%s`", folder->path, name);
	*ret_fd = fd;
	return 0;
}

/* Copy a file into the folder under a name: a reflink where the filesystem can. */
static int copy_in(const struct temp_folder *folder, const char *name, int src_fd, int *ret_fd, struct err *e)
{
	_cleanup_close_ int fd = -1;
	int r = create_in(folder, name, O_RDWR, &fd, e);

	if (r == 0)
		r = copy_file_sparse(src_fd, fd, NULL, e);
	if (r < 0)
		return err_wrap(e, "`%s/%s`", folder->path, name);
	if (ret_fd)
		*ret_fd = take_fd(&fd);
	return 0;
}

/* The disk of the boot: a copy of the root, as large as the image is to be. */
static int make_disk(struct building *b, struct err *e)
{
	uint64_t size = b->p->plan->image.size_bytes;
	int r;

	if (size < b->root.dev->size_bytes)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"[image] size is %llu MiB, but the root partition of the base has %llu MiB: make the image at least "
			"that large",
			(unsigned long long)(size >> 20), (unsigned long long)((b->root.dev->size_bytes + MIB(1) - 1) >> 20));
	r = copy_in(&b->folder, ROOT_IMAGE, b->root.fd, &b->disk_fd, e);
	if (r == 0 && ftruncate(b->disk_fd, (off_t)size) < 0)
		r = err_set_errno(e, -errno, "cannot make the image %llu bytes large", (unsigned long long)size);
	return r;
}

/* Everything from outside, in one go, so that all that is missing is named at once. */
static int fetch_inputs(const struct building *b, const struct digest *base, struct err *e)
{
	_cleanup_fetch_list_ struct fetch_list list = { 0 };
	bool has_root = root_is_cached(publisher_store(b->env->publisher), b->p, base);
	int r = fetch_list_add_plan(&list, b->env, b->p, has_root, e);

	return r < 0 ? r : fetch_list_run(&list, b->env, e);
}

/* The initrd that boots the entry: init and the modules that its root and its console need. */
static int write_entry_initrd(struct building *b, struct err *e)
{
	const struct module_plan *modules = &b->kernel.boot_modules;
	struct initrd_module *entries = calloc(modules->n + 1, sizeof(*entries));
	struct buf *bytes = calloc(modules->n + 1, sizeof(*bytes));
	_cleanup_close_ int fd = -1;
	int r = entries && bytes ? create_in(&b->folder, "initrd", O_RDWR, &fd, e) : err_set(e, -ENOMEM, "out of memory");

	for (size_t i = 0; r == 0 && i < modules->n; i++) {
		buf_init(&bytes[i], MODULE_MAX_BYTES);
		r = boot_module_read(&modules->items[i], &bytes[i], e);
		entries[i] = (struct initrd_module){ modules->items[i].name, buf_str(&bytes[i]), bytes[i].len };
	}
	if (r == 0)
		r = initrd_write_entry(fd, b->p->arch, entries, modules->n, e);
	for (size_t i = 0; bytes && i < modules->n; i++)
		buf_release(&bytes[i]);
	free(bytes);
	free(entries);
	return r;
}

/* What was packed must be what the key is the digest of: a local file may have changed between its digest and its reading. From here
 * on nothing local is read. */
static int confirm_inputs(struct building *b, struct err *e)
{
	const struct prepared *p = b->p;
	const char *expected = manifest_text(json_object_get(p->document, "kernel"), "sha256");
	char hex[DIGEST_HEX_SIZE];
	struct digest kernel;
	int r = prepared_confirm_locals(p, publisher_store(b->env->publisher), e);

	if (r == 0)
		r = digest_fd(DIGEST_SHA256, b->kernel_fd, UINT64_MAX, &kernel, e);
	if (r < 0)
		return r;
	(void)digest_hex(&kernel, hex);
	if (digest_equal(&kernel, &b->kernel.kernel.sha256) && strcmp(hex, expected) == 0)
		return 0;
	return err_set_kind(e, ERR_KIND_INPUT, -EBUSY,
		"the kernel has the SHA-256 %s, but the key is that of %s: it was changed while it was read; run again", hex,
		expected);
}

/* Everything that the boot needs, at hand. */
static int gather(struct building *b, struct err *e)
{
	const struct build_env *env = b->env;
	const struct prepared *p = b->p;
	uint64_t memory_mib;
	struct digest base;
	int r = lock_base_digest(p->plan, &p->lock, p->arch, &p->locals, &base, e);

	if (r == 0)
		r = fetch_inputs(b, &base, e);
	if (r == 0)
		r = root_get(env, p, &base, &b->root, e);
	if (r == 0)
		r = temp_folder_new(env->publisher, "workshop", &b->workshop, e);
	if (r == 0)
		r = boot_kernel_get(env, p, &b->root, lock_kernel_find(&p->lock, p->plan, p->arch), &b->workshop, &b->kernel, e);
	if (r == 0)
		r = debs_get(env, p, &b->root, &b->debs, e);
	if (r == 0)
		r = build_env_check_cancel(env, e);
	if (r < 0)
		return r;
	progress_begin(env->progress, "pack", "%zu packages and the setup into the initrd", b->debs.n);
	r = debs_repack(env, &b->debs, e);
	if (r == 0)
		r = build_env_check_cancel(env, e);
	if (r == 0)
		r = assemble(env, p, &b->root, &b->kernel, &b->debs, &b->assembled, e);
	if (r == 0)
		r = initrd_choose_memory(&b->assembled.size, p->plan->provision.memory_bytes >> 20, DEFAULT_MEMORY_MIB,
			&memory_mib, e);
	if (r == 0)
		r = make_disk(b, e);
	if (r == 0)
		r = copy_in(&b->folder, "kernel", b->kernel.kernel.fd, &b->kernel_fd, e);
	if (r == 0)
		r = write_entry_initrd(b, e);
	if (r == 0)
		r = companions_write_texts(b->folder.fd, p, publisher_store(env->publisher), e);
	if (r == 0)
		r = confirm_inputs(b, e);
	if (r < 0)
		return r;
	b->memory_mib = (uint32_t)memory_mib;
	progress_end(env->progress, "pack", "%zu packages, an initrd of %llu MB", b->debs.n,
		(unsigned long long)(b->assembled.size.archive_bytes / 1000000));
	return build_env_check_cancel(env, e);
}

static int on_output_line(void *ctx, const char *line, size_t len, bool truncated, struct err *e)
{
	struct building *b = ctx;

	(void)truncated;
	(void)e;
	progress_output(b->env->progress, line, len);
	return 0;
}

static void on_record(void *ctx, const struct record *record, uint64_t at_ms)
{
	struct building *b = ctx;
	_cleanup_buf_ struct buf line = BUF_INIT(1 << 17);
	struct err ignored = ERR_INIT;

	(void)at_ms;
	if (record->type == RECORD_NOTE && b->notes.n < NOTES_MAX)
		(void)!strv_add(&b->notes, record->text);
	if (record->type == RECORD_OUTPUT)
		(void)!line_reader_feed(&b->output, record->text, record->text_len, on_output_line, b, &ignored);
	if (record_to_line(record, &line) == 0 && line.len > 0)
		events_add_record(b->events, buf_str(&line), line.len - 1);
}

static int boot_guest(struct building *b, struct err *e)
{
	const struct build_env *env = b->env;
	const struct plan *plan = b->p->plan;
	_cleanup_close_ int memory_dirfd = -1;
	struct vm_config config = { .arch = b->p->arch,
		.accel = env->accel,
		.memory_mib = b->memory_mib,
		.cpus = plan->provision.cpus ? plan->provision.cpus : DEFAULT_CPUS,
		.kernel_fd = b->kernel_fd,
		.initrd_fd = b->assembled.fd,
		.disk_fd = b->disk_fd,
		.cmdline = plan->kernel[b->p->arch].cmdline,
		.clock_epoch = (uint64_t)b->assembled.clock_epoch,
		.stall_timeout_ms = (uint32_t)plan->provision.stall_timeout_ms };
	struct vm_hooks hooks = VM_HOOKS_INIT;
	_cleanup_free_ char *memory_path = NULL;

	if (asprintf(&memory_path, "%s/state", publisher_store(env->publisher)->path) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	memory_dirfd = open(memory_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	hooks.progress = env->progress;
	hooks.ctx = b;
	hooks.on_record = on_record;
	hooks.console_fd = b->console_fd;
	hooks.cancel_fd = env->cancel_fd;
	hooks.memory_dirfd = memory_dirfd;
	hooks.memory_path = memory_path;
	return vm_run(&config, &hooks, &b->vm, e);
}

static struct outcome outcome_of(const struct building *b, const struct err *failure)
{
	return (struct outcome){ .p = b->p,
		.root = &b->root,
		.kernel = &b->kernel,
		.debs = &b->debs,
		.assembled = &b->assembled,
		.vm = &b->vm,
		.notes = &b->notes,
		.events = b->events,
		.installed = failure ? NULL : &b->installed,
		.image_fd = b->disk_fd,
		.memory_mib = b->memory_mib,
		.failure = failure };
}

/* Check what the guest left, and publish it as the entry. */
static int publish_image(struct building *b, char **ret_path, struct err *e)
{
	struct progress *progress = b->env->progress;
	_cleanup_free_ char *manifest = NULL;
	struct outcome outcome = outcome_of(b, NULL);
	size_t len;
	int r;

	progress_begin(progress, "check", "the image");
	r = outcome_check_image(b->disk_fd, b->p, &b->debs, &b->installed, &b->notes, e);
	if (r == 0)
		r = companions_write_plan(b->folder.fd, b->p, e);
	if (r == 0)
		r = outcome_write_manifest(&outcome, b->folder.fd, &manifest, &len, e);
	if (r == 0)
		r = build_env_check_cancel(b->env, e);
	if (r < 0)
		return r;
	progress_end(progress, "check", "the image is whole");
	progress_begin(progress, "publish", "syncing to disk");
	r = events_finish(b->events, e);
	if (r == 0)
		r = publish_entry(&b->folder, &b->p->key, manifest, len, ret_path, NULL, e);
	if (r == 0)
		progress_end(progress, "publish", "%s", *ret_path);
	return r;
}

/* Keep what a failed boot left, to be looked into. Failing at that changes nothing about the failure. */
static void publish_failure(struct building *b, const struct err *failure, char **ret_path)
{
	_cleanup_free_ char *manifest = NULL;
	struct outcome outcome = outcome_of(b, failure);
	struct err e = ERR_INIT;
	size_t len;

	(void)!events_finish(b->events, &e);
	err_clear(&e);
	(void)!companions_write_plan(b->folder.fd, b->p, &e);
	err_clear(&e);
	if (outcome_write_manifest(&outcome, b->folder.fd, &manifest, &len, &e) < 0 ||
		publish_failed(&b->folder, &b->p->key, manifest, len, ret_path, &e) < 0)
		progress_warning(b->env->progress, "the failed build could not be kept: %s", e.message);
}

static int run_build(struct building *b, struct built *ret, struct err *e)
{
	int r = temp_folder_new(b->env->publisher, "build", &b->folder, e);

	if (r == 0)
		r = create_in(&b->folder, "console.log", O_WRONLY | O_APPEND, &b->console_fd, e);
	if (r == 0)
		r = create_in(&b->folder, "events.jsonl", O_WRONLY | O_APPEND, &b->events_fd, e);
	if (r < 0)
		return r;
	events_open(b->events, b->events_fd);
	line_reader_init(&b->output, OUTPUT_LINE_MAX_BYTES);
	r = gather(b, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	r = boot_guest(b, e);
	if (r == 0)
		r = publish_image(b, &ret->path, e);
	if (r < 0 && r != -ECANCELED) {
		/* Where a step failed, what it wrote says more than the console does. */
		(void)snprintf(ret->tail, sizeof(ret->tail), "%s",
			b->vm.outcome == VM_STEP_FAILED && b->vm.output_tail[0] ? b->vm.output_tail : b->vm.tail);
		/* Where QEMU never got to a guest, there is nothing to look into, and its error says it all. */
		if (b->vm.outcome != VM_QEMU_FAILED || b->vm.tail[0])
			publish_failure(b, e, &ret->path);
	}
	return r;
}

struct waiting {
	struct progress *progress;
	bool said;
};

static int on_wait(void *ctx, pid_t holder, uint64_t waited_ms)
{
	struct waiting *w = ctx;
	char what[64];

	if (!w->said)
		progress_begin(w->progress, "wait", "process %d builds this image already", (int)holder);
	w->said = true;
	(void)snprintf(what, sizeof(what), "for process %d, which builds this image", (int)holder);
	progress_update(w->progress, "wait", PROGRESS_ITEMS, waited_ms / 1000, 0, what);
	return 0;
}

int build_image(const struct build_env *env, struct events *events, struct prepared *p, struct built *ret, struct err *e)
{
	_cleanup_(building_release) struct building b = { .env = env,
		.events = events,
		.p = p,
		.folder = TEMP_FOLDER_INIT,
		.workshop = TEMP_FOLDER_INIT,
		.root = ROOT_INIT,
		.kernel = BOOT_KERNEL_INIT,
		.assembled = ASSEMBLED_INIT,
		.disk_fd = -1,
		.kernel_fd = -1,
		.console_fd = -1,
		.events_fd = -1 };
	_cleanup_publish_lock_ struct publish_lock lock = PUBLISH_LOCK_INIT;
	struct waiting waiting = { .progress = env->progress };
	int r = p->key_error ? resolve_lock(env, p, e) : 0;

	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	r = publish_lock_key(env->publisher, &p->key, -1, env->cancel_fd, on_wait, &waiting, &lock, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_HOST);
	if (waiting.said)
		progress_end(env->progress, "wait", "the other build has ended");
	r = store_find_entry(publisher_store(env->publisher), &p->key, &ret->path, e);
	if (r == 0) {
		ret->hit = true;
		return 0;
	}
	if (r != -ENOENT)
		return err_default_kind(e, ERR_KIND_HOST);
	err_clear(e);
	return run_build(&b, ret, e);
}
