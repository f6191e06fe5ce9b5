#include "initrd/initrd.h"
#include "initrd/cpio.h"
#include "initrd/protocol.h"
#include "lib/num.h"

#include <string.h>
#include <sys/stat.h>

extern const char init_blob_amd64[], init_blob_amd64_end[], init_blob_arm64[], init_blob_arm64_end[];

struct initrd {
	struct cpio *cpio;
	unsigned n_payloads;
	unsigned n_modules;
};

/* The guest's program for an architecture, as it was linked in. */
static int find_init(enum arch arch, const char **ret_bytes, size_t *ret_len, struct err *e)
{
	const char *start = arch == ARCH_ARM64 ? init_blob_arm64 : init_blob_amd64;
	const char *end = arch == ARCH_ARM64 ? init_blob_arm64_end : init_blob_amd64_end;

	if (start == end)
		return err_set_kind(e, ERR_KIND_HOST, -ENOSYS,
			"this imgbuild has no init for %s guests: it was built without a cross compiler; install gcc-%s-linux-gnu "
			"and build it again",
			arch_name(arch), arch == ARCH_ARM64 ? "aarch64" : "x86-64");
	*ret_bytes = start;
	*ret_len = (size_t)(end - start);
	return 0;
}

int initrd_new(int out_fd, enum arch arch, struct initrd **ret, struct err *e)
{
	/* /bare and /target are where init mounts the image; /dev/console is opened by the kernel before init
	 * mounts /dev. */
	static const char *const dirs[] = { "/dev", "/proc", "/sys", "/target", "/bare", "/imgbuild",
		INPUTS_PATH };
	_cleanup_(initrd_freep) struct initrd *rd = calloc(1, sizeof(*rd));
	const char *init_bytes = NULL;
	size_t init_len = 0;
	int r;

	if (!rd)
		return err_set(e, -ENOMEM, "no memory for the initrd");
	r = find_init(arch, &init_bytes, &init_len, e);
	if (r == 0)
		r = cpio_new(out_fd, &rd->cpio, e);
	for (size_t i = 0; i < ARRAY_SIZE(dirs) && r == 0; i++)
		r = cpio_add_dir(rd->cpio, dirs[i], 0755, e);
	if (r == 0)
		r = cpio_add_chardev(rd->cpio, "/dev/console", 0600, 5, 1, e);
	if (r == 0)
		r = cpio_add_bytes(rd->cpio, "/init", 0755, init_bytes, init_len, e);
	if (r < 0)
		return err_wrap(e, "beginning the initrd");
	*ret = take_ptr(rd);
	return 0;
}

/* Compose a payload's name. The number makes it unique, the label readable: bytes of it that need encoding
 * become '_'. */
static void payload_path(
	struct initrd *rd, const char *folder, const char *label, char ret[static INITRD_PATH_SIZE])
{
	char tail[64];
	size_t n = 0;

	for (const char *p = label; *p && n < sizeof(tail) - 1; p++) {
		bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
			     (*p >= '0' && *p <= '9') || *p == '.' || *p == '-' || *p == '_';

		tail[n++] = (char)(plain ? *p : '_');
	}
	tail[n] = '\0';
	(void)snprintf(ret, INITRD_PATH_SIZE, "/imgbuild/%s/%04u-%s", folder, rd->n_payloads++, tail);
}

int initrd_add_module(
	struct initrd *rd, struct job *job, const char *name, const void *bytes, size_t len, struct err *e)
{
	char path[INITRD_PATH_SIZE];
	int r;

	if (snprintf(path, sizeof(path), "/imgbuild/modules/%03u-%s.ko", rd->n_modules++, name) >=
		(int)sizeof(path))
		return err_set(e, -ENAMETOOLONG, "the module name `%.64s…` is too long", name);
	r = cpio_add_bytes(rd->cpio, path, 0644, bytes, len, e);
	return r < 0 ? r : job_add(job, e, "module", name, path, NULL);
}

/* "/imgbuild/<folder>/<name>", where name has one part. */
static int one_part_path(
	const char *folder, const char *name, char ret[static INITRD_PATH_SIZE], struct err *e)
{
	if (name[0] == '\0' || strchr(name, '/'))
		return err_set(e, -EINVAL, "`%s` is not a plain name for %s of the initrd", name, folder);
	if (snprintf(ret, INITRD_PATH_SIZE, "%s/%s", folder, name) >= INITRD_PATH_SIZE)
		return err_set(
			e, -ENAMETOOLONG, "the name `%.64s…` is too long for %s of the initrd", name, folder);
	return 0;
}

int initrd_add_deb(struct initrd *rd, const char *file_name, int deb_fd,
	char ret_path[static INITRD_PATH_SIZE], struct err *e)
{
	char path[INITRD_PATH_SIZE];
	int r = one_part_path("/imgbuild/debs", file_name, path, e);

	if (r == 0)
		r = cpio_add_fd(rd->cpio, path, 0644, deb_fd, e);
	if (r < 0)
		return err_wrap(e, "adding the package `%s` to the initrd", file_name);
	memcpy(ret_path, path, INITRD_PATH_SIZE);
	return 0;
}

int initrd_add_bytes(struct initrd *rd, const char *label, mode_t mode, const void *bytes, size_t len,
	char ret_path[static INITRD_PATH_SIZE], struct err *e)
{
	payload_path(rd, "payload", label, ret_path);
	return cpio_add_bytes(rd->cpio, ret_path, mode, bytes, len, e);
}

int initrd_add_fd(struct initrd *rd, const char *label, mode_t mode, int fd,
	char ret_path[static INITRD_PATH_SIZE], struct err *e)
{
	int r;

	payload_path(rd, "payload", label, ret_path);
	r = cpio_add_fd(rd->cpio, ret_path, mode, fd, e);
	return r < 0 ? err_wrap(e, "adding `%s` to the initrd", label) : 0;
}

int initrd_add_tree(struct initrd *rd, const char *label, int dirfd, char ret_path[static INITRD_PATH_SIZE],
	struct err *e)
{
	int r;

	payload_path(rd, "trees", label, ret_path);
	r = cpio_add_tree(rd->cpio, ret_path, dirfd, e);
	return r < 0 ? err_wrap(e, "adding the folder `%s` to the initrd", label) : 0;
}

int initrd_add_input(struct initrd *rd, const char *name, int fd, struct err *e)
{
	char path[INITRD_PATH_SIZE];
	struct stat st;
	int r = one_part_path(INPUTS_PATH, name, path, e);

	if (r == 0 && fstat(fd, &st) < 0)
		r = err_set_errno(e, -errno, "cannot stat it");
	if (r == 0)
		r = S_ISDIR(st.st_mode)
			    ? cpio_add_tree(rd->cpio, path, fd, e)
			    : cpio_add_fd(rd->cpio, path, st.st_mode & S_IXUSR ? 0755 : 0644, fd, e);
	return r < 0 ? err_wrap(e, "adding the input `%s` to the initrd", name) : 0;
}

int initrd_finish(struct initrd *rd, const struct job *job, struct initrd_size *ret, struct err *e)
{
	struct initrd_size size = { 0 };
	const char *text = job_text(job);
	int r = cpio_add_bytes(rd->cpio, JOB_PATH, 0644, text, strlen(text), e);

	if (r == 0)
		r = cpio_finish(rd->cpio, &size.archive_bytes, &size.content_bytes, e);
	if (r < 0)
		return err_wrap(e, "ending the initrd");
	if (ret)
		*ret = size;
	return 0;
}

void initrd_free(struct initrd *rd)
{
	if (!rd)
		return;
	cpio_free(rd->cpio);
	free(rd);
}

int initrd_write_entry(
	int out_fd, enum arch arch, const struct initrd_module *modules, size_t n, struct err *e)
{
	_cleanup_(initrd_freep) struct initrd *rd = NULL;
	_cleanup_job_ struct job job;
	int r;

	job_init(&job);
	r = initrd_new(out_fd, arch, &rd, e);
	for (size_t i = 0; i < n && r == 0; i++)
		r = initrd_add_module(rd, &job, modules[i].name, modules[i].bytes, modules[i].size_bytes, e);
	if (r == 0)
		r = job_add(&job, e, "boot", NULL);
	if (r == 0)
		r = initrd_finish(rd, &job, NULL, e);
	return r < 0 ? err_wrap(e, "writing the entry's initrd") : 0;
}

enum {
	KERNEL_MIB = 128,   /* text, page tables, slab, QEMU's own holes; struct pages come on top, a 64th */
	LEAST_SET_MIB = 32, /* below this not even init and a shell run */
	WORKING_SET_MIB = 384, /* dpkg's database, perl and compilers of caches in maintainer scripts, some
				  page cache */
	GUEST_STEP_MIB = 64,   /* sizes that people and QEMU like */
};

uint64_t initrd_guest_memory_mib(const struct initrd_size *size)
{
	/* Limits against overflow: nothing near 2^63 bytes comes out of cpio_finish. */
	uint64_t archive_mib = (size->archive_bytes >> 20) + 1;
	uint64_t content_mib = (size->content_bytes >> 20) + 1;
	uint64_t unpacking = archive_mib + content_mib;
	uint64_t running = content_mib + WORKING_SET_MIB;
	uint64_t need = (unpacking > running ? unpacking : running) + KERNEL_MIB;

	return round_up_u64(need + need / 64, GUEST_STEP_MIB);
}

int initrd_choose_memory(const struct initrd_size *size, uint64_t plan_mib, uint64_t default_mib,
	uint64_t *ret_mib, struct err *e)
{
	uint64_t need = initrd_guest_memory_mib(size);
	uint64_t least =
		(size->archive_bytes >> 20) + (size->content_bytes >> 20) + KERNEL_MIB + LEAST_SET_MIB;

	/* What the plan says counts as long as the guest can start; whether its steps fit, they show. */
	if (plan_mib > 0 && plan_mib < least)
		return err_set_kind(e, ERR_KIND_USAGE, -E2BIG,
			"[provision] memory is %llu MiB, but the guest must hold %llu MiB of packages, files and modules and should "
			"have %llu MiB; raise it, or leave it out to have it computed",
			(unsigned long long)plan_mib, (unsigned long long)(size->content_bytes >> 20),
			(unsigned long long)need);
	*ret_mib = plan_mib > 0 ? plan_mib : need > default_mib ? need : default_mib;
	return 0;
}
