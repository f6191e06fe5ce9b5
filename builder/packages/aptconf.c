#include "builder/packages/aptconf.h"
#include "builder/packages/sources.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

struct cursor {
	const char *p, *end;
};

static bool ahead(const struct cursor *c, const char *text)
{
	size_t len = strlen(text);

	return (size_t)(c->end - c->p) >= len && memcmp(c->p, text, len) == 0;
}

static void skip_line(struct cursor *c)
{
	while (c->p < c->end && *c->p != '\n')
		c->p++;
}

/* Skip blanks and comments. */
static void skip(struct cursor *c)
{
	while (c->p < c->end) {
		if (isspace((unsigned char)*c->p)) {
			c->p++;
		} else if (*c->p == '#' || ahead(c, "//")) {
			skip_line(c);
		} else if (ahead(c, "/*")) {
			const char *close = memmem(c->p, (size_t)(c->end - c->p), "*/", 2);

			c->p = close ? close + 2 : c->end;
		} else {
			return;
		}
	}
}

/* A word, or a string in quotes. Returns its bytes; *ret_len is 0 when there is none. */
static const char *word(struct cursor *c, size_t *ret_len)
{
	const char *start;

	skip(c);
	start = c->p;
	if (c->p < c->end && *c->p == '"') {
		const char *close = memchr(start + 1, '"', (size_t)(c->end - start - 1));

		c->p = close ? close + 1 : c->end;
		*ret_len = (size_t)((close ? close : c->end) - start - 1);
		return start + 1;
	}
	while (c->p < c->end && !isspace((unsigned char)*c->p) && !strchr("{};\"", *c->p))
		c->p++;
	*ret_len = (size_t)(c->p - start);
	return start;
}

int apt_config_find(const char *text, size_t len, const char *key, char **value, struct err *e)
{
	struct cursor c = { text, text + len };
	char path[APTCONF_KEY_MAX_BYTES] = "";
	size_t starts[APTCONF_DEPTH_MAX], depth = 0, path_len = 0;

	for (;;) {
		const char *name, *v;
		size_t name_len, v_len, before = path_len;

		skip(&c);
		if (c.p >= c.end)
			return 0;
		if (*c.p == ';') {
			c.p++;
			continue;
		}
		if (*c.p == '}') {
			c.p++;
			path_len = depth ? starts[--depth] : 0;
			continue;
		}
		if (*c.p == '{' || *c.p == '"') { /* a list's item, or braces without a name */
			if (*c.p == '{')
				return 0;
			(void)word(&c, &v_len);
			continue;
		}
		name = word(&c, &name_len);
		if (name_len == 0 || path_len + name_len + 3 > sizeof(path))
			return 0;
		path_len += (size_t)snprintf(path + path_len, sizeof(path) - path_len, "%s%.*s", path_len ? "::" : "",
			(int)name_len, name);
		skip(&c);
		if (c.p < c.end && *c.p == '{') {
			c.p++;
			if (depth == APTCONF_DEPTH_MAX)
				return 0;
			starts[depth++] = before;
			continue;
		}
		v = word(&c, &v_len);
		if (strncasecmp(path, key, path_len) == 0 && strlen(key) == path_len) {
			free(*value);
			*value = strndup(v, v_len);
			if (!*value)
				return err_set(e, -ENOMEM, "out of memory");
		}
		path_len = before;
	}
}

static int read_one(const struct pkg_host_fs *fs, const char *path, const char *key, char **value, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(APTCONF_FILE_MAX_BYTES);
	int r = fs->read_file(fs->ctx, path, &text, e);

	if (r == -ENOENT) {
		err_clear(e);
		return 0;
	}
	if (r < 0)
		return err_wrap(e, "reading apt's configuration `%s`", path);
	return apt_config_find(buf_str(&text), text.len, key, value, e);
}

int apt_config_read(const struct pkg_host_fs *fs, const char *key, char **ret_value, struct err *e)
{
	static const char dir[] = "/etc/apt/apt.conf.d";
	_cleanup_strv_ struct strv names = { 0 };
	_cleanup_free_ char *value = NULL;
	int r = fs->list_dir(fs->ctx, dir, &names, e);

	if (r < 0 && r != -ENOENT)
		return err_wrap(e, "listing `%s`", dir);
	if (r < 0)
		err_clear(e);
	strv_sort(&names);
	r = 0;
	for (size_t i = 0; i < names.n && r == 0; i++) {
		_cleanup_free_ char *path = NULL;
		const char *dot = strrchr(names.items[i], '.');

		if (!apt_part_name_valid(names.items[i]) || (dot && strcmp(dot, ".conf") != 0))
			continue;
		if (asprintf(&path, "%s/%s", dir, names.items[i]) < 0) {
			path = NULL;
			return err_set(e, -ENOMEM, "out of memory");
		}
		r = read_one(fs, path, key, &value, e);
	}
	if (r == 0)
		r = read_one(fs, "/etc/apt/apt.conf", key, &value, e);
	if (r < 0)
		return r;
	*ret_value = take_ptr(value);
	return 0;
}
