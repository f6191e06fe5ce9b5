#include "plan/plan.h"
#include "lib/io.h"
#include "lib/beneath.h"
#include "plan/schema.h"
#include "plan/toml.h"

#include <fcntl.h>
#include <string.h>

void plan_faults_release(struct plan_faults *f)
{
	for (size_t i = 0; i < f->n_faults; i++)
		free(f->faults[i].message);
	for (size_t i = 0; i < f->n_notices; i++)
		free(f->notices[i].message);
	free(f->faults);
	free(f->notices);
	free(f->file);
	*f = (struct plan_faults){ 0 };
}

int plan_faults_add(struct plan_faults *f, bool notice, unsigned line, unsigned column, const char *message)
{
	struct plan_fault **list = notice ? &f->notices : &f->faults;
	size_t *n = notice ? &f->n_notices : &f->n_faults;
	struct plan_fault *grown;
	char *copy;

	if (*n >= PLAN_MAX_FAULTS)
		return 0;
	copy = strdup(message);
	grown = copy ? reallocarray(*list, *n + 1, sizeof(**list)) : NULL;
	if (!grown) {
		free(copy);
		return -ENOMEM;
	}
	*list = grown;
	grown[(*n)++] = (struct plan_fault){ .line = line, .column = column, .message = copy };
	return 0;
}

static void location_release(struct plan_location *l)
{
	free(l->url);
	free(l->path);
}

static void repository_release(struct plan_repository *r)
{
	free(r->uri);
	free(r->suite);
	strv_release(&r->components);
	free(r->key);
}

static void file_release(struct plan_file *f)
{
	guest_path_release(&f->destination);
	free(f->text);
	location_release(&f->location);
	free(f->owner);
	free(f->group);
}

static void user_release(struct plan_user *u)
{
	free(u->name);
	strv_release(&u->authorized_keys);
	free(u->password_hash);
}

static void release_of_arch(struct plan *p, enum arch a)
{
	location_release(&p->base[a].location);
	free(p->base[a].checksums_url);
	free(p->base[a].checksums_key);
	free(p->base[a].checksums_signature_url);
	free(p->base[a].partition.value);
	location_release(&p->kernel[a].location);
	free(p->kernel[a].member);
	free(p->kernel[a].package);
	free(p->kernel[a].modules);
	free(p->kernel[a].cmdline);
	strv_release(&p->packages_of_arch[a]);
}

static void release_lists(struct plan *p)
{
	for (size_t i = 0; i < p->apt.n_repositories; i++)
		repository_release(&p->apt.repositories[i]);
	free(p->apt.repositories);
	for (size_t i = 0; i < p->n_files; i++)
		file_release(&p->files[i]);
	free(p->files);
	for (size_t i = 0; i < p->n_inputs; i++) {
		free(p->inputs[i].name);
		location_release(&p->inputs[i].location);
	}
	free(p->inputs);
	for (size_t i = 0; i < p->n_users; i++)
		user_release(&p->users[i]);
	free(p->users);
}

void plan_free(struct plan *p)
{
	if (!p)
		return;
	free(p->file);
	free(p->text);
	close_fdp(&p->dirfd);
	free(p->name);
	for (unsigned a = 0; a < ARCH_COUNT; a++)
		release_of_arch(p, (enum arch)a);
	strv_release(&p->packages);
	strv_release(&p->apt.remove);
	free(p->apt.snapshot);
	strv_release(&p->apt.debs);
	strv_release(&p->apt.trusted);
	strv_release(&p->services.enable);
	strv_release(&p->services.disable);
	strv_release(&p->services.mask);
	release_lists(p);
	strv_release(&p->fstab.remove_patterns);
	free(p->setup.script);
	free(p->setup.file);
	strv_release(&p->cleanup);
	free(p->image.label);
	free(p->image.hostname);
	free(p);
}

/* Make a plan with nothing in it but its text and its folder. */
static int new_plan(int dirfd, const char *path, const char *text, size_t len, bool allow_outside, struct plan **ret,
	struct err *e)
{
	_cleanup_plan_ struct plan *p = calloc(1, sizeof(*p));

	if (!p)
		return err_set(e, -ENOMEM, "out of memory");
	p->dirfd = -1;
	p->allow_outside = allow_outside;
	p->file = strdup(path);
	p->text = malloc(len + 1);
	if (!p->file || !p->text)
		return err_set(e, -ENOMEM, "out of memory");
	if (len > 0)
		memcpy(p->text, text, len);
	p->text[len] = '\0';
	p->text_len = len;
	p->dirfd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->dirfd < 0)
		return err_set_errno(e, -errno, "cannot open the folder of the plan `%s`", path);
	*ret = take_ptr(p);
	return 0;
}

/* Sum up in *e what ret_faults says in full. */
static int fail_with_faults(const struct plan_faults *f, struct err *e)
{
	const struct plan_fault *first = &f->faults[0];

	if (f->n_faults == 1)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "%s:%u:%u: %s", f->file, first->line, first->column,
			first->message);
	return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "%s:%u:%u: %s (and %zu more)", f->file, first->line, first->column,
		first->message, f->n_faults - 1);
}

int plan_load_bytes(int dirfd, const char *path, const char *text, size_t len, bool allow_outside, struct plan **ret,
	struct plan_faults *ret_faults, struct err *e)
{
	_cleanup_plan_ struct plan *p = NULL;
	_cleanup_toml_ struct toml_doc *doc = NULL;
	struct toml_position at = { 0, 0 };
	struct err syntax = ERR_INIT;
	int r;

	ret_faults->file = strdup(path);
	if (!ret_faults->file)
		return err_set(e, -ENOMEM, "out of memory");
	r = toml_parse(text, len, &doc, &at, &syntax);
	if (r == -EBADMSG || r == -E2BIG) {
		if (plan_faults_add(ret_faults, false, at.line, at.column, syntax.message) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		return fail_with_faults(ret_faults, e);
	}
	if (r < 0) {
		*e = syntax;
		return r;
	}
	r = new_plan(dirfd, path, text, len, allow_outside, &p, e);
	if (r == 0)
		r = schema_read(doc, p, ret_faults, e);
	if (r < 0)
		return r;
	if (ret_faults->n_faults > 0)
		return fail_with_faults(ret_faults, e);
	*ret = take_ptr(p);
	return 0;
}

int plan_load(int dirfd, const char *path, bool allow_outside, struct plan **ret, struct plan_faults *ret_faults,
	struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(TOML_MAX_BYTES);
	_cleanup_free_ char *folder = strdup(path);
	_cleanup_close_ int folder_fd = -1;
	char *slash;
	int r;

	if (!folder)
		return err_set(e, -ENOMEM, "out of memory");
	r = read_file_at(dirfd, path, true, &text, e);
	if (r < 0) {
		(void)err_wrap(e, "reading the plan");
		return err_default_kind(e, ERR_KIND_USAGE);
	}
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder ? 1 : 0] = '\0';
	folder_fd = openat(dirfd, slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder_fd < 0)
		return err_set_errno(e, -errno, "cannot open the folder of the plan `%s`", path);
	return plan_load_bytes(folder_fd, path, buf_str(&text), text.len, allow_outside, ret, ret_faults, e);
}

int plan_require_arch(const struct plan *p, enum arch arch, struct err *e)
{
	char has[64] = "";

	if (plan_location_given(&p->base[arch].location))
		return 0;
	for (unsigned a = 0; a < ARCH_COUNT; a++)
		if (plan_location_given(&p->base[a].location))
			(void)snprintf(has, sizeof(has), "%s", arch_name((enum arch)a));
	return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
		"the plan `%s` describes no image for %s, only for %s: add [base.%s] with a url, or choose --arch %s", p->file,
		arch_name(arch), has, arch_name(arch), has);
}

int plan_packages(const struct plan *p, enum arch arch, struct strv *ret)
{
	int r = strv_extend(ret, &p->packages);

	if (r == 0)
		r = strv_extend(ret, &p->packages_of_arch[arch]);
	strv_sort(ret);
	strv_uniq(ret);
	return r;
}

/* Does the file name end in "_<other architecture>.deb"? */
static bool deb_is_for_another(const char *path, enum arch arch)
{
	size_t n = strlen(path);

	for (unsigned a = 0; a < ARCH_COUNT; a++) {
		char suffix[32];
		size_t m = (size_t)snprintf(suffix, sizeof(suffix), "_%s.deb", arch_name((enum arch)a));

		if (a != (unsigned)arch && n > m && strcmp(path + n - m, suffix) == 0)
			return true;
	}
	return false;
}

int plan_debs(const struct plan *p, enum arch arch, struct strv *ret)
{
	for (size_t i = 0; i < p->apt.debs.n; i++)
		if (!deb_is_for_another(p->apt.debs.items[i], arch) && strv_add(ret, p->apt.debs.items[i]) < 0)
			return -ENOMEM;
	return 0;
}

/* Where an archive's URI begins behind its user info, and how long it is without final slashes. */
static const char *archive_of(const char *uri, size_t *ret_scheme_len, size_t *ret_len)
{
	const char *host = strstr(uri, "://"), *start;
	size_t n;

	host = host ? host + 3 : uri;
	*ret_scheme_len = (size_t)(host - uri);
	start = host;
	for (const char *c = host; *c && *c != '/' && *c != '?' && *c != '#'; c++)
		if (*c == '@')
			start = c + 1;
	n = strlen(start);
	while (n > 0 && start[n - 1] == '/')
		n--;
	*ret_len = n;
	return start;
}

bool plan_trusts(const struct plan *p, const char *uri)
{
	size_t scheme, n;
	const char *start = archive_of(uri, &scheme, &n);

	for (size_t i = 0; i < p->apt.trusted.n; i++) {
		const char *other = p->apt.trusted.items[i];
		size_t other_scheme, other_n;
		const char *other_start = archive_of(other, &other_scheme, &other_n);

		if (scheme == other_scheme && memcmp(uri, other, scheme) == 0 && n == other_n && memcmp(start, other_start, n) == 0)
			return true;
	}
	return false;
}

int plan_open_beneath(const struct plan *p, const char *path, int flags, struct err *e)
{
	int fd;

	if (p->allow_outside) {
		fd = openat(p->dirfd, path, flags | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			fd = -errno;
	} else {
		fd = beneath_open(p->dirfd, path, flags, false);
	}
	if (fd == -EXDEV)
		return err_set_kind(e, ERR_KIND_USAGE, fd,
			"`%s` leads outside the folder of the plan `%s`: move it beneath, or permit it with --allow-outside", path,
			p->file);
	if (fd < 0)
		return err_set_errno(e, fd, "cannot open `%s`, named in the plan `%s`", path, p->file);
	return fd;
}
