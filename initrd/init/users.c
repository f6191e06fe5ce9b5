#include "initrd/init/users.h"
#include "initrd/init/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE_MAX_BYTES (8u << 20)
#define SECONDS_PER_DAY 86400

/* Find the line of `name` in a colon-separated database. Returns its start in text, or NULL. *ret_len is
 * without the newline. */
static char *find_line(char *text, const char *name, size_t *ret_len)
{
	size_t name_len = strlen(name);

	for (char *line = text; line && *line;) {
		char *end = strchrnul(line, '\n');

		if (strncmp(line, name, name_len) == 0 && line[name_len] == ':') {
			*ret_len = (size_t)(end - line);
			return line;
		}
		line = *end ? end + 1 : NULL;
	}
	return NULL;
}

/* Copy field `index` (from 0) of a line. Returns false when there is none or it does not fit. */
static bool copy_field(const char *line, size_t len, unsigned index, char *ret, size_t size)
{
	const char *end = line + len, *start = line, *colon;

	for (; index > 0; index--) {
		colon = memchr(start, ':', (size_t)(end - start));
		if (!colon)
			return false;
		start = colon + 1;
	}
	colon = memchr(start, ':', (size_t)(end - start));
	len = (size_t)((colon ? colon : end) - start);
	if (len >= size)
		return false;
	memcpy(ret, start, len);
	ret[len] = '\0';
	return true;
}

/* A number, or the id that field 2 of the database's line says. */
static int find_id(const char *database, const char *kind, const char *name, unsigned *ret, struct fail *f)
{
	char *end, *text = NULL, *line, field[32];
	size_t len;
	unsigned long id;
	int r;

	if (name[0] >= '0' && name[0] <= '9') {
		errno = 0;
		id = strtoul(name, &end, 10);
		if (*end == '\0' && errno == 0 && id < UINT32_MAX) {
			*ret = (unsigned)id;
			return 0;
		}
	}
	/* Without any database, root is still root. */
	r = read_alloc_at(AT_FDCWD, database, DATABASE_MAX_BYTES, &text, &len);
	line = r == 0 ? find_line(text, name, &len) : NULL;
	if (line && copy_field(line, len, 2, field, sizeof(field)) && field[0]) {
		*ret = (unsigned)strtoul(field, NULL, 10);
	} else if (strcmp(name, "root") == 0) {
		*ret = 0;
	} else {
		f->exit = 1;
		r = fail_set(f, "exit", "the image has no %s `%s` in %s", kind, name, database);
		free(text);
		return r;
	}
	free(text);
	return 0;
}

int users_find_owner(const char *owner, struct user_ids *ret, struct fail *f)
{
	const char *colon = strchr(owner, ':');
	char user[128];
	unsigned uid = 0, gid = 0;

	if (!colon || (size_t)(colon - owner) >= sizeof(user))
		return fail_set(f, "internal", "`%s` is no owner: user:group is wanted", owner);
	memcpy(user, owner, (size_t)(colon - owner));
	user[colon - owner] = '\0';
	if (find_id("/etc/passwd", "user", user, &uid, f) < 0 ||
		find_id("/etc/group", "group", colon + 1, &gid, f) < 0)
		return -1;
	*ret = (struct user_ids){ .uid = uid, .gid = gid };
	return 0;
}

struct password_change {
	const char *user, *password;
	int64_t days; /* since 1970, for a line that is new */
};

/* Write text with field 1 of the line at `line` replaced. */
static int replace_hash(const char *path, const char *text, const char *line, size_t line_len,
	const char *hash, struct fail *f)
{
	const char *start = memchr(line, ':', line_len), *end;
	struct stat st;
	char *changed;
	int r;

	start++;
	end = memchr(start, ':', line_len - (size_t)(start - line));
	if (!end || stat(path, &st) < 0)
		return fail_set(f, "exit", "`%s` of the image is damaged", path);
	if (asprintf(&changed, "%.*s%s%s", (int)(start - text), text, hash, end) < 0)
		return fail_set(f, "internal", "no memory for %s", path);
	r = files_replace(path, st.st_mode & 07777, st.st_uid, st.st_gid, -1, changed, strlen(changed), f);
	free(changed);
	return r;
}

static int set_password_in_bare(struct step_context *s, void *opaque, struct fail *f)
{
	const struct password_change *p = opaque;
	/* '*' matches no password but, unlike '!', does not lock the account: keys still open it (shadow(5),
	 * sshd(8)). */
	const char *hash = strcmp(p->password, "locked") == 0  ? "*"
			   : strcmp(p->password, "empty") == 0 ? ""
							       : p->password;
	char *passwd = NULL, *shadow = NULL, *line, *longer = NULL;
	struct stat st;
	size_t len, file_len;
	int r;

	(void)s;
	f->exit = 1;
	if (strpbrk(hash, ":\n"))
		return fail_set(f, "exit", "the password of `%s` is no crypt(5) hash", p->user);
	if (read_alloc_at(AT_FDCWD, "/etc/passwd", DATABASE_MAX_BYTES, &passwd, &file_len) < 0 ||
		!(line = find_line(passwd, p->user, &len)))
		return fail_set(f, "exit", "the image has no user `%s` in /etc/passwd", p->user);
	r = read_alloc_at(AT_FDCWD, "/etc/shadow", DATABASE_MAX_BYTES, &shadow, &file_len);
	if (r == -ENOENT) {
		r = replace_hash("/etc/passwd", passwd, line, len, hash, f);
	} else if (r < 0 || stat("/etc/shadow", &st) < 0) {
		r = fail_set(f, "exit", "cannot read the image's /etc/shadow: %s", strerror(-r));
	} else if ((line = find_line(shadow, p->user, &len))) {
		r = replace_hash("/etc/shadow", shadow, line, len, hash, f);
	} else if (asprintf(&longer, "%s%s%s:%s:%lld:0:99999:7:::\n", shadow,
			   file_len > 0 && shadow[file_len - 1] != '\n' ? "\n" : "", p->user, hash,
			   (long long)p->days) < 0) {
		r = fail_set(f, "internal", "no memory for /etc/shadow");
	} else {
		r = files_replace("/etc/shadow", st.st_mode & 07777, st.st_uid, st.st_gid, -1, longer,
			strlen(longer), f);
		free(longer);
	}
	free(passwd);
	free(shadow);
	return r;
}

int users_set_password(struct step_context *s, const char *user, const char *password, struct fail *f)
{
	struct password_change p = { user, password,
		s->clock_seconds >= 0 ? s->clock_seconds / SECONDS_PER_DAY : 0 };

	return command_in_bare(s, set_password_in_bare, &p, f);
}

struct keys_change {
	const char *user, *src;
};

static int put_keys_in_bare(struct step_context *s, void *opaque, struct fail *f)
{
	const struct keys_change *k = opaque;
	char *passwd = NULL, *line, home[1024], path[1200], uid_text[32], gid_text[32];
	size_t len;
	uid_t uid;
	gid_t gid;
	int src_fd;

	f->exit = 1;
	if (read_alloc_at(AT_FDCWD, "/etc/passwd", DATABASE_MAX_BYTES, &passwd, &len) < 0 ||
		!(line = find_line(passwd, k->user, &len)))
		return fail_set(f, "exit", "the image has no user `%s` in /etc/passwd", k->user);
	if (!copy_field(line, len, 2, uid_text, sizeof(uid_text)) ||
		!copy_field(line, len, 3, gid_text, sizeof(gid_text)) ||
		!copy_field(line, len, 5, home, sizeof(home)) || home[0] != '/')
		return fail_set(f, "exit", "the user `%s` of the image has no home folder", k->user);
	free(passwd);
	uid = (uid_t)strtoul(uid_text, NULL, 10);
	gid = (gid_t)strtoul(gid_text, NULL, 10);
	if (files_make_parents(home, f) < 0)
		return -1;
	if (mkdir(home, 0700) == 0 && chown(home, uid, gid) < 0)
		return fail_set(f, "exit", "cannot make the home folder `%s`: %s", home, strerror(errno));
	(void)snprintf(path, sizeof(path), "%s/.ssh", home);
	if ((mkdir(path, 0700) < 0 && errno != EEXIST) || chown(path, uid, gid) < 0 || chmod(path, 0700) < 0)
		return fail_set(f, errno == ENOSPC ? "enospc" : "exit", "cannot make the folder `%s`: %s",
			path, strerror(errno));
	(void)snprintf(path, sizeof(path), "%s/.ssh/authorized_keys", home);
	src_fd = k->src[0] == '/' ? openat(s->view.initrd_fd, k->src + 1, O_RDONLY | O_CLOEXEC) : -1;
	if (src_fd < 0)
		return fail_set(f, "internal", "cannot open `%s` of the initrd", k->src);
	return files_replace(path, 0600, uid, gid, src_fd, NULL, 0, f);
}

int users_put_keys(struct step_context *s, const char *user, const char *src, struct fail *f)
{
	struct keys_change k = { user, src };

	return command_in_bare(s, put_keys_in_bare, &k, f);
}
