#include "plan/plan.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

void plan_local_inputs_release(struct plan_local_inputs *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->items[i].slot);
		free(l->items[i].path);
	}
	free(l->items);
	*l = (struct plan_local_inputs){ 0 };
}

size_t plan_count_sources(const struct plan *p)
{
	return p->n_files + p->n_inputs;
}

int plan_source(const struct plan *p, size_t i, const struct plan_location **ret, char **ret_slot)
{
	bool is_file = i < p->n_files;
	char *slot;

	if (is_file && p->files[i].kind != PLAN_CONTENT_LOCATION)
		return 0;
	if (asprintf(&slot, "%s:%s", is_file ? "files" : "inputs",
		    is_file ? p->files[i].destination.text : p->inputs[i - p->n_files].name) < 0)
		return -ENOMEM;
	*ret = is_file ? &p->files[i].location : &p->inputs[i - p->n_files].location;
	*ret_slot = slot;
	return 1;
}

const struct plan_location *plan_source_find(const struct plan *p, const char *slot)
{
	if (strncmp(slot, "files:", 6) == 0)
		for (size_t i = 0; i < p->n_files; i++)
			if (p->files[i].kind == PLAN_CONTENT_LOCATION && strcmp(p->files[i].destination.text, slot + 6) == 0)
				return &p->files[i].location;
	if (strncmp(slot, "inputs:", 7) == 0)
		for (size_t i = 0; i < p->n_inputs; i++)
			if (strcmp(p->inputs[i].name, slot + 7) == 0)
				return &p->inputs[i].location;
	return NULL;
}

/* What may stand at a path. */
enum wanted { WANT_FILE, WANT_TREE, WANT_EITHER };

static int look_at(const struct plan *p, struct plan_local_input *input, enum wanted wanted, struct err *e)
{
	_cleanup_close_ int fd = plan_open_beneath(p, input->path, O_PATH, e);
	struct stat st;

	if (fd < 0) {
		(void)err_default_kind(e, ERR_KIND_INPUT);
		return e->code;
	}
	if (fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot stat `%s`, named in the plan `%s`", input->path, p->file);
	input->is_tree = S_ISDIR(st.st_mode);
	input->executable = S_ISREG(st.st_mode) && (st.st_mode & S_IXUSR);
	if ((S_ISREG(st.st_mode) && wanted != WANT_TREE) || (input->is_tree && wanted != WANT_FILE))
		return 0;
	return err_set_kind(e, ERR_KIND_INPUT, S_ISREG(st.st_mode) ? -ENOTDIR : input->is_tree ? -EISDIR : -EINVAL,
		"`%s`, named in the plan `%s`, is %s, expected %s", input->path, p->file,
		S_ISREG(st.st_mode) ? "a file"
		: input->is_tree    ? "a folder"
				    : "neither a file nor a folder",
		wanted == WANT_FILE   ? "a file"
		: wanted == WANT_TREE ? "a folder"
				      : "a file or a folder");
}

/* List one path. The slot is `prefix` and, after a colon, `name`. */
static int add(const struct plan *p, struct plan_local_inputs *l, enum plan_input_kind kind, const char *prefix,
	const char *name, const char *path, enum wanted wanted, struct err *e)
{
	struct plan_local_input *grown = reallocarray(l->items, l->n + 1, sizeof(*l->items));
	struct plan_local_input *input;

	if (!grown)
		return err_set(e, -ENOMEM, "out of memory");
	l->items = grown;
	input = &l->items[l->n];
	*input = (struct plan_local_input){ .kind = kind, .path = strdup(path) };
	if (asprintf(&input->slot, "%s%s%s", prefix, *name ? ":" : "", name) < 0)
		input->slot = NULL;
	l->n++;
	if (!input->path || !input->slot)
		return err_set(e, -ENOMEM, "out of memory");
	return look_at(p, input, wanted, e);
}

/* List a location if it is local, with the digests it must have. */
static int add_location(const struct plan *p, struct plan_local_inputs *l, enum plan_input_kind kind, const char *prefix,
	const char *name, const struct plan_location *location, enum wanted wanted, struct err *e)
{
	int r;

	if (!location->path)
		return 0;
	r = add(p, l, kind, prefix, name, location->path, wanted, e);
	if (r < 0)
		return r;
	l->items[l->n - 1].sha256 = location->sha256;
	l->items[l->n - 1].sha512 = location->sha512;
	return 0;
}

static int add_apt(const struct plan *p, enum arch arch, struct plan_local_inputs *l, struct err *e)
{
	_cleanup_strv_ struct strv debs = { 0 };
	int r = plan_debs(p, arch, &debs);

	if (r < 0)
		return err_set(e, r, "out of memory");
	for (size_t i = 0; r == 0 && i < debs.n; i++)
		r = add(p, l, PLAN_INPUT_DEB, "deb", debs.items[i], debs.items[i], WANT_FILE, e);
	for (size_t i = 0; r == 0 && i < p->apt.n_repositories; i++) {
		const char *key = p->apt.repositories[i].key;
		bool known = false;

		/* Several repositories may have one key. */
		for (size_t k = 0; key && k < i; k++)
			known = known || (p->apt.repositories[k].key && strcmp(p->apt.repositories[k].key, key) == 0);
		if (key && !known)
			r = add(p, l, PLAN_INPUT_REPOSITORY_KEY, "key", key, key, WANT_FILE, e);
	}
	return r;
}

int plan_local_inputs(const struct plan *p, enum arch arch, struct plan_local_inputs *ret, struct err *e)
{
	const struct plan_kernel *kernel = &p->kernel[arch];
	bool archive = kernel->kind == PLAN_KERNEL_ARCHIVE;
	int r = add_location(p, ret, PLAN_INPUT_BASE, "base", "", &p->base[arch].location, WANT_FILE, e);

	if (r == 0 && p->base[arch].checksums_key)
		r = add(p, ret, PLAN_INPUT_CHECKSUMS_KEY, "checksums-key", "", p->base[arch].checksums_key, WANT_FILE, e);
	if (r == 0)
		r = add_location(p, ret, archive ? PLAN_INPUT_KERNEL_ARCHIVE : PLAN_INPUT_KERNEL,
			archive ? "kernel-archive" : "kernel", "", &kernel->location, WANT_FILE, e);
	if (r == 0 && kernel->modules)
		r = add(p, ret, PLAN_INPUT_MODULES, "modules", "", kernel->modules, WANT_TREE, e);
	if (r == 0)
		r = add_apt(p, arch, ret, e);
	for (size_t i = 0; r == 0 && i < p->n_files; i++)
		r = add_location(p, ret, PLAN_INPUT_FILE, "files", p->files[i].destination.text, &p->files[i].location,
			WANT_EITHER, e);
	for (size_t i = 0; r == 0 && i < p->n_inputs; i++)
		r = add_location(p, ret, PLAN_INPUT_INPUT, "inputs", p->inputs[i].name, &p->inputs[i].location, WANT_EITHER,
			e);
	if (r == 0 && p->setup.file)
		r = add(p, ret, PLAN_INPUT_SCRIPT, "setup", "", p->setup.file, WANT_FILE, e);
	if (r < 0)
		plan_local_inputs_release(ret);
	return r;
}

const struct plan_local_input *plan_local_input_find(const struct plan_local_inputs *l, const char *slot)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->items[i].slot, slot) == 0)
			return &l->items[i];
	return NULL;
}
