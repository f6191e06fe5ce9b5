#include "kernels/kernel_archive.h"

#include "kernels/archive.h"

#include <ctype.h>
#include <string.h>

#define NEAR_NAMES_MAX 8

struct name {
	char *path;
	char *target; /* of links; else NULL */
	enum member_type type;
};

struct search {
	const char *wanted;
	int out_fd;
	uint64_t max_bytes;
	bool collect; /* remember names while searching */
	struct name *names;
	size_t n_names, capacity;
	size_t name_bytes;
};

static void search_release(struct search *s)
{
	for (size_t i = 0; i < s->n_names; i++) {
		free(s->names[i].path);
		free(s->names[i].target);
	}
	free(s->names);
	s->names = NULL;
	s->n_names = 0;
}

static int remember(struct search *s, const struct member *m, struct err *e)
{
	struct name *n;

	s->name_bytes += strlen(m->name) + (m->target ? strlen(m->target) : 0) + sizeof(*n);
	if (s->name_bytes > KERNEL_ARCHIVE_NAMES_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "the names in the archive take more than %u bytes",
			KERNEL_ARCHIVE_NAMES_MAX_BYTES);
	if (s->n_names == s->capacity) {
		size_t capacity = s->capacity ? 2 * s->capacity : 256;

		n = realloc(s->names, capacity * sizeof(*n));
		if (!n)
			return err_set(e, -ENOMEM, "out of memory");
		s->names = n;
		s->capacity = capacity;
	}
	n = &s->names[s->n_names];
	*n = (struct name){ .type = m->type, .path = strdup(m->name), .target = m->target ? strdup(m->target) : NULL };
	s->n_names++;
	return !n->path || (m->target && !n->target) ? err_set(e, -ENOMEM, "out of memory") : 0;
}

static int visit(void *ctx, const struct member *m, struct err *e)
{
	struct search *s = ctx;
	int r;

	if (m->type == MEMBER_FILE && strcmp(m->name, s->wanted) == 0) {
		r = member_copy(m, s->out_fd, s->max_bytes, e);
		return r < 0 ? r : 1;
	}
	return s->collect ? remember(s, m, e) : 0;
}

static const struct name *find_name(const struct search *s, const char *path)
{
	for (size_t i = 0; i < s->n_names; i++)
		if (strcmp(s->names[i].path, path) == 0)
			return &s->names[i];
	return NULL;
}

/* Put `target` in place of the first `prefix_len` bytes of path, which are the link, and resolve `.` and `..`. */
static int replace_link(const char *path, size_t prefix_len, const struct name *link, char dst[static ARCHIVE_NAME_MAX_BYTES],
	struct err *e)
{
	char parts[3 * ARCHIVE_NAME_MAX_BYTES + 4];
	size_t parent_len = 0, n = 0;

	/* A hard link's target counts from the archive's root, as does an absolute symbolic link. */
	if (link->type == MEMBER_SYMLINK && link->target[0] != '/')
		for (size_t i = 0; i < prefix_len; i++)
			if (path[i] == '/')
				parent_len = i;
	if (strlen(link->target) >= ARCHIVE_NAME_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -ENAMETOOLONG, "the link `%s` in the archive is too long", link->path);
	(void)snprintf(parts, sizeof(parts), "%.*s/%s%s", (int)parent_len, path, link->target, path + prefix_len);
	for (char *p = parts, *part; (part = strsep(&p, "/"));) {
		size_t len = strlen(part);

		if (len == 0 || strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") == 0) {
			if (n == 0)
				return err_set_kind(e, ERR_KIND_INPUT, -EXDEV, "the link `%s` leads out of the archive, to `%s`",
					link->path, link->target);
			while (n > 0 && dst[n - 1] != '/')
				n--;
			n -= n > 0;
			continue;
		}
		if (n + len + 2 > ARCHIVE_NAME_MAX_BYTES)
			return err_set_kind(e, ERR_KIND_INPUT, -ENAMETOOLONG, "the link `%s` in the archive leads to too long a name",
				link->path);
		if (n > 0)
			dst[n++] = '/';
		memcpy(dst + n, part, len);
		n += len;
	}
	dst[n] = '\0';
	return 0;
}

/* Follow one link of path, the first from the left. Returns 1 when there was one, 0 when not. */
static int follow_one(const struct search *s, char path[static ARCHIVE_NAME_MAX_BYTES], struct err *e)
{
	for (size_t len = 1;; len++) {
		char prefix[ARCHIVE_NAME_MAX_BYTES], next[ARCHIVE_NAME_MAX_BYTES];
		const struct name *found;
		int r;

		len += strcspn(path + len, "/");
		memcpy(prefix, path, len);
		prefix[len] = '\0';
		found = find_name(s, prefix);
		if (found && found->target) {
			r = replace_link(path, len, found, next, e);
			if (r < 0)
				return r;
			memcpy(path, next, sizeof(next));
			return 1;
		}
		if (path[len] == '\0')
			return 0;
	}
}

static const char *base_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* How near a name is to what was asked for; 0: not at all. */
static unsigned nearness(const char *name, const char *wanted)
{
	const char *base = base_of(name), *wanted_base = base_of(wanted);
	size_t same = 0;

	if (strcmp(base, wanted_base) == 0)
		return 1000;
	while (base[same] && base[same] == wanted_base[same])
		same++;
	if (same >= 4)
		return (unsigned)(same > 900 ? 900 : same);
	if (strncmp(base, "vmlinu", 6) == 0 || strcmp(base, "bzImage") == 0 || strcmp(base, "Image") == 0)
		return 3;
	return 0;
}

static int no_such_member(const struct search *s, const char *asked, const char *resolved, struct err *e)
{
	_cleanup_buf_ struct buf list = BUF_INIT(1024);
	size_t best[NEAR_NAMES_MAX], n = 0;

	/* The nearest names, the best first, by insertion; an equal one found later stays behind. */
	for (size_t i = 0; i < s->n_names; i++) {
		unsigned score = s->names[i].type == MEMBER_DIR ? 0 : nearness(s->names[i].path, asked);
		size_t at = n;

		if (score == 0)
			continue;
		while (at > 0 && nearness(s->names[best[at - 1]].path, asked) < score)
			at--;
		if (at == NEAR_NAMES_MAX)
			continue;
		if (n < NEAR_NAMES_MAX)
			n++;
		memmove(best + at + 1, best + at, (n - at - 1) * sizeof(best[0]));
		best[at] = i;
	}
	for (size_t i = 0; i < n; i++)
		if (buf_appendf(&list, "%s`%s`", i ? ", " : "", s->names[best[i]].path) < 0)
			break; /* the list is long enough */
	return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "the archive has no member `%s`%s%s%s%s%s", asked,
		strcmp(asked, resolved) ? " (links lead to `" : "", strcmp(asked, resolved) ? resolved : "",
		strcmp(asked, resolved) ? "`)" : "", n ? "; near it are " : ", nor a name like it", buf_str(&list));
}

static int resolve(const struct search *s, const char *asked, char path[static ARCHIVE_NAME_MAX_BYTES], struct err *e)
{
	const struct name *found;
	int r = 1;

	for (unsigned i = 0; r > 0; i++) {
		if (i > KERNEL_ARCHIVE_LINKS_MAX)
			return err_set_kind(e, ERR_KIND_INPUT, -ELOOP, "`%s` leads through more than %d links of the archive", asked,
				KERNEL_ARCHIVE_LINKS_MAX);
		r = follow_one(s, path, e);
	}
	if (r < 0)
		return r;
	found = find_name(s, path);
	if (!found)
		return no_such_member(s, asked, path, e);
	if (found->type == MEMBER_DIR)
		return err_set_kind(e, ERR_KIND_INPUT, -EISDIR, "`%s` is a folder in the archive; name the kernel in it", path);
	if (found->type != MEMBER_FILE)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOEXEC, "`%s` is neither a file nor a link in the archive", path);
	return 0;
}

int kernel_archive_extract(int archive_fd, const char *member, int out_fd, uint64_t max_bytes, struct buf *ret_resolved,
	struct err *e)
{
	_cleanup_(search_release) struct search s = { .out_fd = out_fd, .max_bytes = max_bytes, .collect = true };
	char asked[ARCHIVE_NAME_MAX_BYTES], path[ARCHIVE_NAME_MAX_BYTES];
	int r = member_clean_name(member, asked);

	if (r < 0)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s` cannot be the name of a member of an archive", member);
	s.wanted = asked;
	r = archive_walk_tar(archive_fd, visit, &s, NULL, e);
	if (r < 0)
		return r;
	memcpy(path, asked, sizeof(path));
	if (r == 0) {
		r = resolve(&s, asked, path, e);
		if (r < 0)
			return r;
		s.wanted = path;
		s.collect = false;
		r = archive_walk_tar(archive_fd, visit, &s, NULL, e);
		if (r < 0)
			return r;
		if (r == 0)
			return err_set(e, -EBADMSG, "`%s` was in the archive and is no more: it changed while it was read", path);
	}
	if (ret_resolved) {
		buf_reset(ret_resolved);
		r = buf_append_str(ret_resolved, path);
		if (r < 0)
			return err_set(e, r, "no room for the name of the member");
	}
	return 0;
}
