#include "kernels/modules.h"

#include "kernels/kernel_image.h"
#include "lib/io.h"

#include <archive.h>
#include <archive_entry.h>
#include <libkmod.h>
#include <string.h>
#include <sys/mman.h>

#define BUILTIN_LIST_MAX_BYTES (16u << 20)
#define ALIASES_MAX 65536
#define MODINFO_FIELD_MAX 4096 /* fields of one module that are looked at */

const char *const modules_for_boot[] = { "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_console", "ext4", NULL };

/* One module file of the tree, before it is known to be needed. */
struct known {
	char name[MODULE_NAME_SIZE];
	const char *path; /* borrowed from the tree */
	enum { IDLE, VISITING, PLANNED } state;
};

struct alias {
	char name[MODULE_NAME_SIZE];
	struct known *of;
};

struct planner {
	struct module_tree *tree; /* borrowed */
	const char *release;
	struct known *known; /* sorted by name, then path */
	size_t n_known;
	struct strv builtin;	     /* normalised names, sorted */
	struct strv builtin_aliases; /* normalised, sorted */
	struct alias *aliases;	     /* of the crypto and lib modules; made when first needed */
	size_t n_aliases;
	bool aliases_known;
	unsigned depth;
	struct module_plan plan;
};

/* What the modinfo section of a module says. */
struct modinfo {
	struct strv depends, softdep_pre, softdep_post, aliases;
	char release[MODULE_NAME_SIZE];
};

static void modinfo_release(struct modinfo *m)
{
	strv_release(&m->depends);
	strv_release(&m->softdep_pre);
	strv_release(&m->softdep_post);
	strv_release(&m->aliases);
}

static void planner_release(struct planner *p)
{
	free(p->known);
	free(p->aliases);
	strv_release(&p->builtin);
	strv_release(&p->builtin_aliases);
	module_plan_release(&p->plan);
}

void module_plan_release(struct module_plan *p)
{
	for (size_t i = 0; i < p->n; i++) {
		free(p->items[i].path);
		close_fdp(&p->items[i].fd);
	}
	free(p->items);
	strv_release(&p->builtin);
	strv_release(&p->missing);
	*p = (struct module_plan){ 0 };
}

static int out_of_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "out of memory");
}

/* ---- names ---- */

/* Copy len bytes of a name with '-' turned into '_'. False when it does not fit or is empty. */
static bool normalise(const char *name, size_t len, char dst[static MODULE_NAME_SIZE])
{
	if (len == 0 || len >= MODULE_NAME_SIZE)
		return false;
	for (size_t i = 0; i < len; i++)
		dst[i] = name[i] == '-' ? '_' : name[i];
	dst[len] = '\0';
	return true;
}

/* The module's name from "kernel/fs/ext4/ext4.ko.xz"; false when the path is no module. */
static bool name_of_path(const char *path, char dst[static MODULE_NAME_SIZE])
{
	static const char *const endings[] = { ".ko", ".ko.xz", ".ko.zst", ".ko.gz" };
	const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
	size_t len = strlen(base);

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		size_t end = strlen(endings[i]);

		if (len > end && strcmp(base + len - end, endings[i]) == 0)
			return normalise(base, len - end, dst);
	}
	return false;
}

static int compare_known(const void *a, const void *b)
{
	const struct known *x = a, *y = b;
	int r = strcmp(x->name, y->name);

	return r ? r : strcmp(x->path, y->path);
}

static int know_files(struct planner *p, struct err *e)
{
	const struct strv *paths = module_tree_paths(p->tree);

	p->known = calloc(paths->n ? paths->n : 1, sizeof(*p->known));
	if (!p->known)
		return out_of_memory(e);
	for (size_t i = 0; i < paths->n; i++) {
		struct known *k = &p->known[p->n_known];

		if (!name_of_path(paths->items[i], k->name))
			continue;
		k->path = paths->items[i];
		p->n_known++;
	}
	qsort(p->known, p->n_known, sizeof(*p->known), compare_known);
	return 0;
}

/* The file of that name; of several (updates/ over kernel/, as depmod's default search order has it) updates/ wins, else
 * the first path. */
static struct known *find_known(struct planner *p, const char *name)
{
	struct known *first = NULL;
	size_t low = 0, high = p->n_known;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (strcmp(p->known[mid].name, name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	for (size_t i = low; i < p->n_known && strcmp(p->known[i].name, name) == 0; i++) {
		if (!first)
			first = &p->known[i];
		if (strncmp(p->known[i].path, "updates/", 8) == 0)
			return &p->known[i];
	}
	return first;
}

static bool sorted_contains(const struct strv *v, const char *s)
{
	size_t low = 0, high = v->n;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int r = strcmp(v->items[mid], s);

		if (r == 0)
			return true;
		if (r < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return false;
}

/* ---- what is built in ---- */

static int read_if_there(struct planner *p, const char *path, struct buf *into, struct err *e)
{
	return module_tree_has(p->tree, path) ? module_tree_read(p->tree, path, into, e) : 0;
}

/* modules.builtin: a path a line. */
static int know_builtin(struct planner *p, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(BUILTIN_LIST_MAX_BYTES);
	char *save = NULL;
	int r = read_if_there(p, "modules.builtin", &text, e);

	if (r < 0)
		return r;
	for (char *line = text.len ? strtok_r(text.data, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		char name[MODULE_NAME_SIZE];

		if (name_of_path(line, name) && strv_add(&p->builtin, name) < 0)
			return out_of_memory(e);
	}
	strv_sort(&p->builtin);
	return 0;
}

/* modules.builtin.modinfo: "name.key=value", each ended by a NUL. */
static int know_builtin_aliases(struct planner *p, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(BUILTIN_LIST_MAX_BYTES);
	int r = read_if_there(p, "modules.builtin.modinfo", &text, e);

	if (r < 0)
		return r;
	for (size_t at = 0; at < text.len;) {
		const char *field = text.data + at, *dot = strchr(field, '.');
		char name[MODULE_NAME_SIZE];

		at += strlen(field) + 1;
		if (dot && strncmp(dot, ".alias=", 7) == 0 && normalise(dot + 7, strlen(dot + 7), name) &&
			strv_add(&p->builtin_aliases, name) < 0)
			return out_of_memory(e);
	}
	strv_sort(&p->builtin_aliases);
	return 0;
}

/* ---- one module ---- */

/* Unpack stored bytes into a memfd; the limit holds whatever the compressed file claims. */
static int unpack(const struct buf *stored, const char *path, int *ret_fd, uint64_t *ret_size, struct err *e)
{
	_cleanup_close_ int fd = memfd_create("module", MFD_CLOEXEC);
	_cleanup_free_ char *chunk = malloc(1 << 20);
	struct archive *a = archive_read_new();
	struct archive_entry *entry;
	uint64_t size = 0;
	ssize_t n = 0;
	int r = 0;

	if (fd < 0)
		r = err_set_errno(e, -errno, "cannot make a file in memory");
	else if (!a || !chunk)
		r = out_of_memory(e);
	else if (archive_read_support_filter_gzip(a) != ARCHIVE_OK || archive_read_support_filter_xz(a) != ARCHIVE_OK ||
		archive_read_support_filter_zstd(a) != ARCHIVE_OK || archive_read_support_format_raw(a) != ARCHIVE_OK ||
		archive_read_open_memory(a, stored->data, stored->len) != ARCHIVE_OK ||
		archive_read_next_header(a, &entry) != ARCHIVE_OK)
		r = err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "cannot unpack the module `%s`: %s", path, archive_error_string(a));
	while (r == 0 && (n = archive_read_data(a, chunk, 1 << 20)) > 0) {
		size += (uint64_t)n;
		if (size > MODULE_MAX_BYTES)
			r = err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the module `%s` unpacks to more than %u bytes", path,
				MODULE_MAX_BYTES);
		else
			r = write_full(fd, chunk, (size_t)n);
		if (r < 0 && r != -E2BIG)
			r = err_set_errno(e, r, "cannot unpack the module `%s`", path);
	}
	if (r == 0 && n < 0)
		r = err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "cannot unpack the module `%s`: %s", path, archive_error_string(a));
	if (a)
		(void)archive_read_free(a);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	*ret_size = size;
	return 0;
}

/* Split a list of names at any of the separators. */
static int add_names(const char *list, const char *separators, struct strv *into)
{
	for (const char *at = list; *at;) {
		char name[MODULE_NAME_SIZE];
		size_t len = strcspn(at, separators);

		if (normalise(at, len, name) && strv_add(into, name) < 0)
			return -ENOMEM;
		at += len;
		at += strspn(at, separators);
	}
	return 0;
}

/* "pre: a b post: c" */
static int add_softdep(const char *value, struct modinfo *m)
{
	struct strv *into = NULL;

	for (const char *at = value + strspn(value, " \t"); *at;) {
		size_t len = strcspn(at, " \t");
		char name[MODULE_NAME_SIZE];

		if (len == 4 && strncmp(at, "pre:", 4) == 0)
			into = &m->softdep_pre;
		else if (len == 5 && strncmp(at, "post:", 5) == 0)
			into = &m->softdep_post;
		else if (into && normalise(at, len, name) && strv_add(into, name) < 0)
			return -ENOMEM;
		at += len;
		at += strspn(at, " \t");
	}
	return 0;
}

static int take_field(const char *key, const char *value, struct modinfo *m)
{
	char name[MODULE_NAME_SIZE];

	if (strcmp(key, "depends") == 0)
		return add_names(value, ", ", &m->depends);
	if (strcmp(key, "softdep") == 0)
		return add_softdep(value, m);
	if (strcmp(key, "alias") == 0)
		return normalise(value, strlen(value), name) ? strv_add(&m->aliases, name) : 0;
	if (strcmp(key, "vermagic") == 0)
		(void)snprintf(m->release, sizeof(m->release), "%.*s", (int)strcspn(value, " "), value);
	return 0;
}

/* Read the fields of the module in fd. A context of its own for each: libkmod keeps modules by name, and the name of
 * a descriptor says nothing. No configuration of the host is read. */
static int read_modinfo(int fd, const char *path, struct modinfo *ret, struct err *e)
{
	static const char *const no_config[] = { NULL };
	char proc[64];
	struct kmod_ctx *ctx = kmod_new("/nonexistent", (const char **)(uintptr_t)no_config);
	struct kmod_module *mod = NULL;
	struct kmod_list *list = NULL, *at;
	unsigned n = 0;
	int r;

	if (!ctx)
		return out_of_memory(e);
	kmod_set_log_priority(ctx, 0); /* it would print */
	(void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	r = kmod_module_new_from_path(ctx, proc, &mod);
	if (r >= 0)
		r = kmod_module_get_info(mod, &list);
	if (r < 0) {
		r = r == -ENOMEM ? out_of_memory(e)
				 : err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
					   "the module `%s` cannot be read: %s; it is not an ELF file with a .modinfo section, or damaged",
					   path, strerror(-r));
	} else {
		r = 0;
		kmod_list_foreach(at, list) {
			if (r == 0 && n++ < MODINFO_FIELD_MAX)
				r = take_field(kmod_module_info_get_key(at), kmod_module_info_get_value(at), ret);
		}
		if (r < 0)
			r = out_of_memory(e);
	}
	kmod_module_info_free_list(list);
	if (mod)
		(void)kmod_module_unref(mod);
	(void)kmod_unref(ctx);
	return r;
}

static int load_file(struct module_tree *tree, const char *path, int *ret_fd, uint64_t *ret_size, struct modinfo *info,
	struct err *e)
{
	_cleanup_buf_ struct buf stored = BUF_INIT(MODULE_FILE_MAX_BYTES);
	_cleanup_close_ int fd = -1;
	int r = module_tree_read(tree, path, &stored, e);

	if (r == 0 && stored.len == 0)
		r = err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the module `%s` is empty", path);
	if (r == 0)
		r = unpack(&stored, path, &fd, ret_size, e);
	if (r == 0)
		r = read_modinfo(fd, path, info, e);
	if (r == 0)
		*ret_fd = take_fd(&fd);
	return r;
}

/* ---- the order ---- */

static int visit(struct planner *p, const char *name, bool soft, struct err *e);

static int note(struct strv *list, const char *name, struct err *e)
{
	return strv_contains(list, name) || strv_add(list, name) == 0 ? 0 : out_of_memory(e);
}

static int append(struct planner *p, const struct known *k, int *fd, uint64_t size, struct err *e)
{
	struct module_plan *plan = &p->plan;
	struct module_file *items;

	if (plan->n >= MODULES_PLAN_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "more than %d modules would have to be loaded", MODULES_PLAN_MAX);
	items = realloc(plan->items, (plan->n + 1) * sizeof(*items));
	if (!items)
		return out_of_memory(e);
	plan->items = items;
	items += plan->n;
	*items = (struct module_file){ .path = strdup(k->path), .fd = -1, .size_bytes = size };
	if (!items->path)
		return out_of_memory(e);
	memcpy(items->name, k->name, sizeof(items->name));
	items->fd = take_fd(fd);
	plan->n++;
	return 0;
}

static int visit_all(struct planner *p, const struct strv *names, bool soft, struct err *e)
{
	for (size_t i = 0; i < names->n; i++) {
		int r = visit(p, names->items[i], soft, e);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Plan one file after what it needs. A circle of dependencies is cut where it closes: the kernel knows none, and a
 * soft one may well point back. */
static int visit_file(struct planner *p, struct known *k, struct err *e)
{
	_cleanup_(modinfo_release) struct modinfo info = { 0 };
	_cleanup_close_ int fd = -1;
	uint64_t size = 0;
	int r;

	if (k->state != IDLE)
		return 0;
	if (p->depth >= MODULES_DEPTH_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the modules depend on each other in a chain of more than %d, at `%s`",
			MODULES_DEPTH_MAX, k->path);
	k->state = VISITING;
	p->depth++;
	r = load_file(p->tree, k->path, &fd, &size, &info, e);
	if (r < 0)
		return r;
	if (p->release && p->release[0] && info.release[0] && strcmp(info.release, p->release) != 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the module `%s` was built for kernel %s, the kernel is %s",
			k->path, info.release, p->release);
	r = visit_all(p, &info.softdep_pre, true, e);
	if (r == 0)
		r = visit_all(p, &info.depends, false, e);
	if (r == 0)
		r = append(p, k, &fd, size, e);
	k->state = PLANNED;
	if (r == 0)
		r = visit_all(p, &info.softdep_post, true, e);
	p->depth--;
	return r;
}

static int know_alias(struct planner *p, struct known *k, const char *name, struct err *e)
{
	struct alias *aliases;

	if (p->n_aliases >= ALIASES_MAX)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the crypto modules have more than %d aliases", ALIASES_MAX);
	if ((p->n_aliases & (p->n_aliases - 1)) == 0) { /* full at each power of two */
		aliases = realloc(p->aliases, (p->n_aliases ? 2 * p->n_aliases : 1) * sizeof(*aliases));
		if (!aliases)
			return out_of_memory(e);
		p->aliases = aliases;
	}
	p->aliases[p->n_aliases].of = k;
	memcpy(p->aliases[p->n_aliases].name, name, strlen(name) + 1);
	p->n_aliases++;
	return 0;
}

/* Read what the crypto and lib modules are also called. All others go by their name where a dependency names them. */
static int know_aliases(struct planner *p, struct err *e)
{
	for (size_t i = 0; i < p->n_known && !p->aliases_known; i++) {
		_cleanup_(modinfo_release) struct modinfo info = { 0 };
		_cleanup_close_ int fd = -1;
		uint64_t size;
		int r;

		if (!strstr(p->known[i].path, "/crypto/") && strncmp(p->known[i].path, "kernel/lib/", 11) != 0)
			continue;
		r = load_file(p->tree, p->known[i].path, &fd, &size, &info, e);
		for (size_t j = 0; r == 0 && j < info.aliases.n; j++)
			r = know_alias(p, &p->known[i], info.aliases.items[j], e);
		if (r < 0)
			return r;
	}
	p->aliases_known = true;
	return 0;
}

static bool is_generic(const char *name)
{
	size_t len = strlen(name);

	return len > 8 && strcmp(name + len - 8, "_generic") == 0;
}

/* Find a module that offers the alias, or the alias of the crypto API for it: the portable one before the others, since one
 * for special instructions does not load on a processor without them. NULL: none. */
static struct known *find_alias(const struct planner *p, const char *name, const char *crypto)
{
	struct known *found = NULL;

	for (size_t i = 0; i < p->n_aliases; i++) {
		struct known *k = p->aliases[i].of;

		if ((strcmp(p->aliases[i].name, name) == 0 || strcmp(p->aliases[i].name, crypto) == 0) &&
			(!found || (is_generic(k->name) && !is_generic(found->name))))
			found = k;
	}
	return found;
}

/* Plan a module by name. Soft: it may go by an alias, and nobody minds when it is missing. */
static int visit(struct planner *p, const char *name, bool soft, struct err *e)
{
	char crypto[MODULE_NAME_SIZE + 8];
	struct known *k = find_known(p, name);
	int r;

	if (k)
		return visit_file(p, k, e);
	(void)snprintf(crypto, sizeof(crypto), "crypto_%s", name);
	if (sorted_contains(&p->builtin, name) || sorted_contains(&p->builtin_aliases, name) ||
		(soft && sorted_contains(&p->builtin_aliases, crypto)))
		return note(&p->plan.builtin, name, e);
	if (soft) {
		r = know_aliases(p, e);
		if (r < 0)
			return r;
		k = find_alias(p, name, crypto);
		if (k)
			return visit_file(p, k, e);
	}
	return note(&p->plan.missing, name, e);
}

int modules_plan(struct module_tree *tree, const char *release, const char *const *wanted, struct module_plan *ret,
	struct err *e)
{
	_cleanup_(planner_release) struct planner p = { .tree = tree, .release = release };
	int r = know_files(&p, e);

	if (r == 0)
		r = know_builtin(&p, e);
	if (r == 0)
		r = know_builtin_aliases(&p, e);
	for (size_t i = 0; r == 0 && wanted[i]; i++) {
		char name[MODULE_NAME_SIZE];

		if (!normalise(wanted[i], strlen(wanted[i]), name))
			return err_set(e, -EINVAL, "`%s` cannot be the name of a module", wanted[i]);
		r = visit(&p, name, false, e);
	}
	if (r < 0)
		return r;
	strv_sort(&p.plan.builtin);
	strv_sort(&p.plan.missing);
	*ret = p.plan;
	p.plan = (struct module_plan){ 0 };
	return 0;
}

int modules_release(struct module_tree *tree, char *ret, size_t ret_size, struct err *e)
{
	const struct strv *paths = module_tree_paths(tree);

	for (size_t i = 0; i < paths->n; i++) {
		_cleanup_(modinfo_release) struct modinfo info = { 0 };
		_cleanup_close_ int fd = -1;
		char name[MODULE_NAME_SIZE];
		uint64_t size;
		int r;

		if (!name_of_path(paths->items[i], name))
			continue;
		r = load_file(tree, paths->items[i], &fd, &size, &info, e);
		if (r < 0)
			return r;
		if (!kernel_release_is_valid(info.release, strlen(info.release)) || strlen(info.release) >= ret_size)
			break;
		(void)snprintf(ret, ret_size, "%s", info.release);
		return 0;
	}
	return err_set(e, -ENOENT, "no module tells which kernel it was built for");
}
