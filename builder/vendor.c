#include "builder/vendor.h"
#include "lib/io.h"
#include "lib/newfile.h"
#include "lib/url.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

enum { INDEX_MAX_BYTES = 64 << 20, TRIES_MAX = 5 };

static const char index_head[] = "# sha256\tsize\tarchitecture\tname\tversion\tfrom\n";

struct vendor_file {
	struct digest sha256;
	uint64_t size_bytes;
	char *arch, *name, *version, *from;
};

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

static void file_release(struct vendor_file *file)
{
	free(file->arch);
	free(file->name);
	free(file->version);
	free(file->from);
}

void vendor_release(struct vendor *v)
{
	fetch_list_release(&v->wanted);
	for (size_t i = 0; i < v->n; i++)
		file_release(&v->files[i]);
	free(v->files);
	*v = (struct vendor){ .files = NULL };
}

/* ---- what there is to gather ---------------------------------------------------------------------------------------- */

/* Remember what a file is, for the index. `from` is taken over; NULL: out of memory. */
static int add_file(struct vendor *v, const struct digest *sha256, const char *arch, const char *name, const char *version,
	char *from, struct err *e)
{
	struct vendor_file file = {
		.sha256 = *sha256, .arch = strdup(arch), .name = strdup(name), .version = strdup(version), .from = from
	};

	if (v->n == v->capacity) {
		size_t capacity = v->capacity ? 2 * v->capacity : 64;
		struct vendor_file *files = reallocarray(v->files, capacity, sizeof(*files));

		if (files) {
			v->files = files;
			v->capacity = capacity;
		}
	}
	if (v->n == v->capacity || !file.arch || !file.name || !file.version || !file.from) {
		file_release(&file);
		return out_of_memory(e);
	}
	v->files[v->n++] = file;
	return 0;
}

static int add_location(struct vendor *v, enum arch arch, const char *name, const struct plan_location *location,
	const struct lock_blob *answer, struct err *e)
{
	struct wanted_file file = wanted_location(name, location, answer);

	if (!location->url)
		return 0;
	if (file.sha256.algorithm == DIGEST_NONE)
		return err_set_kind(e, ERR_KIND_DEFECT, -ENOKEY, "the lock answers, but has no SHA-256 of the %s", name);
	return add_file(v, &file.sha256, arch_name(arch), name, "", url_redact(location->url), e);
}

static int add_packages(struct vendor *v, const struct lock_package *packages, size_t n, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++) {
		const struct lock_package *p = &packages[i];
		_cleanup_free_ char *archive = p->uri ? url_redact(p->uri) : strdup("");
		char *from = NULL;

		if (!archive || asprintf(&from, "%s/%s", archive, p->file ? p->file : "") < 0)
			from = NULL;
		r = add_file(v, &p->sha256, p->arch, p->name, p->version, from, e);
	}
	return r;
}

static int add_sources(struct vendor *v, const struct prepared *p, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < plan_count_sources(p->plan); i++) {
		const struct plan_location *location;
		_cleanup_free_ char *slot = NULL;

		r = plan_source(p->plan, i, &location, &slot);
		if (r < 0)
			return err_set(e, r, "out of memory");
		if (r > 0)
			r = add_location(v, p->arch, slot, location, lock_source_find(&p->lock, p->plan, p->arch, slot), e);
	}
	return r;
}

int vendor_add(struct vendor *v, const struct build_env *env, const struct prepared *p, struct err *e)
{
	const struct lock_arch *locked = &p->lock.arch[p->arch];
	const struct plan_kernel *kernel = &p->plan->kernel[p->arch];
	int r = fetch_list_add_plan(&v->wanted, env, p, false, e);

	if (r == 0)
		r = add_location(v, p->arch, "base image", &p->plan->base[p->arch].location, &locked->base, e);
	if (r == 0 && (kernel->kind == PLAN_KERNEL_ARCHIVE || kernel->kind == PLAN_KERNEL_FILE))
		r = add_location(v, p->arch, "kernel", &kernel->location, &locked->kernel.archive, e);
	if (r == 0 && kernel->kind == PLAN_KERNEL_PACKAGE)
		r = add_packages(v, locked->kernel.packages, locked->kernel.n_packages, e);
	if (r == 0 && lock_needs_packages(p->plan, p->arch))
		r = add_packages(v, locked->packages.items, locked->packages.n, e);
	return r < 0 ? r : add_sources(v, p, e);
}

int vendor_fetch(struct vendor *v, const struct build_env *env, struct err *e)
{
	return fetch_list_run(&v->wanted, env, e);
}

static int compare_files(const void *a, const void *b)
{
	const struct vendor_file *x = a, *y = b;
	int order = memcmp(x->sha256.bytes, y->sha256.bytes, digest_size_bytes(DIGEST_SHA256));

	if (order == 0)
		order = strcmp(x->name, y->name);
	return order ? order : strcmp(x->arch, y->arch);
}

/* Sort them and keep one of each digest. */
static void settle_files(struct vendor *v)
{
	size_t kept = 0;

	if (v->n > 0)
		qsort(v->files, v->n, sizeof(*v->files), compare_files);
	for (size_t i = 0; i < v->n; i++) {
		if (kept > 0 && digest_equal(&v->files[kept - 1].sha256, &v->files[i].sha256))
			file_release(&v->files[i]);
		else
			v->files[kept++] = v->files[i];
	}
	v->n = kept;
}

/* ---- the files ------------------------------------------------------------------------------------------------------ */

/* What lies at `path`: *ret_right says whether it is the file. -ENOENT: nothing. What is no file with these bytes is removed, and said. */
static int look_at(const struct build_env *env, const char *path, const struct vendor_file *file, bool *ret_right,
	struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	char found[DIGEST_HEX_SIZE] = "";
	struct digest digest;
	struct stat st;
	int r;

	*ret_right = false;
	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0 && errno != ELOOP && errno != ENXIO)
		return err_set_errno(e, -errno, "cannot open `%s`", path);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
		r = digest_fd(DIGEST_SHA256, fd, UINT64_MAX, &digest, e);
		if (r < 0)
			return err_wrap(e, "`%s`", path);
		*ret_right = digest_equal(&digest, &file->sha256);
		(void)digest_hex(&digest, found);
	}
	if (*ret_right)
		return 0;
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set_errno(e, -errno, "cannot remove `%s`, which is not what its name says", path);
	progress_warning(env->progress, "`%s` (%s %s) %s%s; it is replaced", path, file->name, file->version,
		found[0] ? "has the SHA-256 " : "is no regular file", found);
	return 0;
}

/* Copy a blob of the cache to `path`, where nothing is. -EEXIST: somebody else made it meanwhile. */
static int copy_blob(const struct build_env *env, const char *path, const struct vendor_file *file, struct err *e)
{
	_cleanup_new_file_ struct new_file copy = NEW_FILE_INIT;
	const struct store *store = publisher_store(env->publisher);
	_cleanup_free_ char *blob = NULL;
	_cleanup_close_ int fd = -1;
	char expected[DIGEST_HEX_SIZE], found[DIGEST_HEX_SIZE];
	struct digest digest;
	int r = store_open_blob(store, &file->sha256, &fd, NULL, e);

	if (r == 0)
		r = new_file_open(path, &copy, e);
	if (r == 0)
		r = copy_file_sparse(fd, copy.fd, NULL, e);
	if (r == 0)
		r = digest_fd(DIGEST_SHA256, copy.fd, UINT64_MAX, &digest, e);
	if (r < 0)
		return r;
	if (!digest_equal(&digest, &file->sha256)) {
		r = store_blob_path(store, &file->sha256, &blob, e);
		return r < 0 ? r :
			       err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
				       "the cache is damaged: `%s` (%s %s) has the SHA-256 %s, not %s; remove it and run again", blob,
				       file->name, file->version, digest_hex(&digest, found), digest_hex(&file->sha256, expected));
	}
	return new_file_finish(&copy, e);
}

static int write_one(const struct build_env *env, const char *dir, struct vendor_file *file, struct vendored *stats,
	struct err *e)
{
	_cleanup_free_ char *path = NULL;
	char hex[DIGEST_HEX_SIZE];
	bool replaced = false, right;
	int r;

	if (asprintf(&path, "%s/sha256/%s", dir, digest_hex(&file->sha256, hex)) < 0) {
		path = NULL;
		return out_of_memory(e);
	}
	r = store_find_blob(publisher_store(env->publisher), &file->sha256, NULL, &file->size_bytes, e);
	if (r < 0)
		return r;
	/* A file that another process makes at the same time is looked at like one that was there. */
	for (unsigned i = 0; i < TRIES_MAX; i++) {
		err_clear(e);
		r = look_at(env, path, file, &right, e);
		if ((r < 0 && r != -ENOENT) || (r == 0 && right))
			break;
		replaced = replaced || r == 0;
		r = copy_blob(env, path, file, e);
		if (r == 0 && replaced)
			stats->n_replaced++;
		else if (r == 0)
			stats->n_added++;
		if (r != -EEXIST)
			break;
	}
	if (r < 0)
		return err_default_kind(e, ERR_KIND_HOST);
	stats->n_files++;
	stats->size_bytes += file->size_bytes;
	return 0;
}

/* ---- the lists ------------------------------------------------------------------------------------------------------ */

/* The names of the files in DIR/sha256, sorted; what is no digest is not ours. */
static int list_names(const char *dir, struct strv *ret, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_closedir_ DIR *d = NULL;
	struct dirent *entry;

	if (asprintf(&path, "%s/sha256", dir) < 0) {
		path = NULL;
		return out_of_memory(e);
	}
	d = opendir(path);
	if (!d)
		return err_set_errno(e, -errno, "cannot list `%s`", path);
	for (errno = 0; (entry = readdir(d)); errno = 0) {
		struct digest ignored;

		if (strlen(entry->d_name) == DIGEST_SHA256_HEX_SIZE - 1 &&
			digest_parse_hex(DIGEST_SHA256, entry->d_name, &ignored) == 0 && strv_add(ret, entry->d_name) < 0)
			return out_of_memory(e);
	}
	if (errno)
		return err_set_errno(e, -errno, "cannot list `%s`", path);
	strv_sort(ret);
	return 0;
}

static int compare_names(const void *key, const void *item)
{
	return strcmp(key, *(char *const *)item);
}

static bool is_listed(const struct strv *sorted, const char *name)
{
	return sorted->n > 0 && bsearch(name, sorted->items, sorted->n, sizeof(*sorted->items), compare_names);
}

/* The lines of the index: ours, and those that it has about other files that are there. */
static int index_lines(const struct vendor *v, const char *old, const struct strv *names, struct strv *ret, struct err *e)
{
	_cleanup_strv_ struct strv ours = { 0 };
	char hex[DIGEST_HEX_SIZE];

	for (size_t i = 0; i < v->n; i++) {
		const struct vendor_file *f = &v->files[i];

		if (strv_add(&ours, digest_hex(&f->sha256, hex)) < 0 ||
			strv_addf(ret, "%s\t%llu\t%s\t%s\t%s\t%s", hex, (unsigned long long)f->size_bytes, f->arch, f->name, f->version,
				f->from) < 0)
			return out_of_memory(e);
	}
	for (const char *line = old; *line;) {
		size_t len = strcspn(line, "\n");

		(void)snprintf(hex, sizeof(hex), "%.*s", (int)strcspn(line, "\t\n"), line);
		if (is_listed(names, hex) && !is_listed(&ours, hex) && strv_add_len(ret, line, len) < 0)
			return out_of_memory(e);
		line += len + (line[len] == '\n');
	}
	strv_sort(ret);
	strv_uniq(ret);
	return 0;
}

/* What the index says so far; one that cannot be read is made anew. */
static int read_index(int dirfd, struct buf *ret, struct err *e)
{
	int r = read_file_at(dirfd, "index.tsv", false, ret, e);

	if (r == -ENOMEM)
		return r;
	err_clear(e);
	return 0;
}

static int write_lists(const struct vendor *v, const char *dir, struct err *e)
{
	_cleanup_close_ int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_buf_ struct buf old = BUF_INIT(INDEX_MAX_BYTES), sums = BUF_INIT(INDEX_MAX_BYTES), index = BUF_INIT(INDEX_MAX_BYTES);
	_cleanup_strv_ struct strv names = { 0 }, lines = { 0 };
	int r;

	if (dirfd < 0)
		return err_set_errno(e, -errno, "cannot open `%s`", dir);
	/* Two that add to one folder write the lists one after the other; the later one sees all files. Where folders cannot be locked, the
	 * next run puts the lists right. */
	(void)flock(dirfd, LOCK_EX);
	r = list_names(dir, &names, e);
	if (r == 0)
		r = read_index(dirfd, &old, e);
	if (r == 0)
		r = index_lines(v, buf_str(&old), &names, &lines, e);
	for (size_t i = 0; r == 0 && i < names.n; i++)
		r = buf_appendf(&sums, "%s  sha256/%s\n", names.items[i], names.items[i]);
	if (r == 0)
		r = buf_append_str(&index, index_head);
	for (size_t i = 0; r == 0 && i < lines.n; i++)
		r = buf_appendf(&index, "%s\n", lines.items[i]);
	if (r < 0)
		return e->code ? r : err_set(e, r, "the lists of `%s` grow too long", dir);
	r = write_file_atomic_at(dirfd, "SHA256SUMS", buf_str(&sums), sums.len, 0644, e);
	return r < 0 ? r : write_file_atomic_at(dirfd, "index.tsv", buf_str(&index), index.len, 0644, e);
}

int vendor_write(struct vendor *v, const struct build_env *env, const char *dir, struct vendored *ret, struct err *e)
{
	_cleanup_free_ char *folder = NULL;
	struct vendored stats = { .n_files = 0 };
	int r;

	if (asprintf(&folder, "%s/sha256", dir) < 0) {
		folder = NULL;
		return out_of_memory(e);
	}
	settle_files(v);
	progress_begin(env->progress, "vendor", "%zu files into %s", v->n, dir);
	r = mkdir_parents_at(AT_FDCWD, folder, e);
	for (size_t i = 0; r == 0 && i < v->n; i++) {
		progress_update(env->progress, "vendor", PROGRESS_ITEMS, i, v->n, v->files[i].name);
		r = write_one(env, dir, &v->files[i], &stats, e);
		if (r == 0)
			r = build_env_check_cancel(env, e);
	}
	if (r == 0)
		r = write_lists(v, dir, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_HOST);
	progress_end(env->progress, "vendor", "%zu files, %zu of them new, %zu replaced", stats.n_files, stats.n_added,
		stats.n_replaced);
	*ret = stats;
	return 0;
}
