#include "builder/ext4/probe.h"

#include "builder/ext4/ext4_impl.h"

#include <string.h>
#include <sys/stat.h>

/* Undo the shell's quoting: '...', "..." with backslashes, or bare. Only what os-release(5) allows; the value ends with
 * the line. */
static size_t unquote(const char *s, size_t len, char *dst, size_t dst_size)
{
	char quote = '\0';
	size_t n = 0;

	for (size_t i = 0; i < len && n < dst_size; i++) {
		if (quote == '\0' && (s[i] == '"' || s[i] == '\''))
			quote = s[i];
		else if (quote != '\0' && s[i] == quote)
			quote = '\0';
		else if (s[i] == '\\' && quote != '\'' && i + 1 < len)
			dst[n++] = s[++i];
		else if (quote == '\0' && (s[i] == ' ' || s[i] == '\t' || s[i] == '\r'))
			break;
		else
			dst[n++] = s[i];
	}
	return n;
}

void os_release_parse(const char *text, size_t len, struct os_release *ret)
{
	const struct {
		const char *key;
		char *dst;
		size_t size;
	} fields[] = {
		{ "ID", ret->id, sizeof(ret->id) },
		{ "VERSION_ID", ret->version_id, sizeof(ret->version_id) },
		{ "VERSION_CODENAME", ret->codename, sizeof(ret->codename) },
		{ "PRETTY_NAME", ret->pretty_name, sizeof(ret->pretty_name) },
	};

	memset(ret, 0, sizeof(*ret));
	for (size_t at = 0; at < len;) {
		const char *line = text + at, *end = memchr(line, '\n', len - at);
		size_t line_len = end ? (size_t)(end - line) : len - at;

		at += line_len + 1;
		for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
			size_t key_len = strlen(fields[i].key), n;
			char value[128];

			if (line_len <= key_len || memcmp(line, fields[i].key, key_len) != 0 || line[key_len] != '=')
				continue;
			n = unquote(line + key_len + 1, line_len - key_len - 1, value, sizeof(value));
			(void)err_sanitize(fields[i].dst, fields[i].size, value, n);
		}
	}
}

static void note_problem(struct ext4_probe *p, const struct err *e)
{
	if (p->problem_code != 0)
		return;
	p->problem_code = e->code;
	(void)snprintf(p->problem, sizeof(p->problem), "%.*s", (int)sizeof(p->problem) - 1, e->message);
}

static int probe_os_release(struct ext4 *fs, struct ext4_probe *p, struct err *e)
{
	static const char *const paths[] = { "/etc/os-release", "/usr/lib/os-release" };

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		_cleanup_buf_ struct buf text = BUF_INIT(OS_RELEASE_MAX_BYTES);
		int r = ext4_read_file(fs, paths[i], &text, e);

		if (r == 0) {
			p->has_os_release = true;
			os_release_parse(buf_str(&text), text.len, &p->os);
			return 0;
		}
		if (!ext4_is_contents_error(r))
			return r;
		if (r != -ENOENT && r != -ENOTDIR)
			note_problem(p, e);
	}
	return 0;
}

static int probe_folders(struct ext4 *fs, struct ext4_probe *p, struct err *e)
{
	_cleanup_ext4_dir_ struct ext4_dir top = { 0 };
	struct ext4_stat st;
	int r = ext4_stat(fs, "/usr", &st, e);

	if (r == 0)
		p->has_usr = S_ISDIR(st.mode);
	else if (!ext4_is_contents_error(r))
		return r;
	r = ext4_list_dir(fs, "/", &top, e);
	if (r < 0) {
		if (!ext4_is_contents_error(r))
			return r;
		note_problem(p, e);
		return 0;
	}
	/* A link there leads into /boot on Debian's root; only a file of its own makes this a boot filesystem. */
	for (size_t i = 0; i < top.n; i++)
		if (S_ISREG(top.items[i].st.mode) &&
			(strncmp(top.items[i].name, "vmlinuz", 7) == 0 || strncmp(top.items[i].name, "vmlinux", 7) == 0))
			p->has_kernels = true;
	return 0;
}

int ext4_probe(struct blockdev *dev, struct ext4_probe *ret, struct err *e)
{
	_cleanup_ext4_ struct ext4 *fs = NULL;
	struct ext4_probe p = { 0 };
	struct err why = ERR_INIT;
	int r = ext4_read_facts(dev, &p.facts, &why);

	if (r == 0) {
		p.is_ext = true;
		r = ext4_open(dev, &fs, &why);
	}
	if (r == 0) {
		p.readable = true;
		r = probe_os_release(fs, &p, &why);
	}
	if (r == 0)
		r = probe_folders(fs, &p, &why);
	if (r < 0 && !ext4_is_contents_error(r)) {
		*e = why;
		return r;
	}
	if (r < 0)
		note_problem(&p, &why);
	*ret = p;
	return 0;
}
