#include "builder/fstab.h"

#include <string.h>

enum { FIELD_SOURCE, FIELD_TARGET, FIELD_TYPE, FIELD_OPTIONS, FIELD_COUNT };

/* One field of a line, within the text. */
struct field {
	const char *start;
	size_t len;
};

static bool field_is(const struct field *f, const char *s)
{
	return f->len == strlen(s) && memcmp(f->start, s, f->len) == 0;
}

static bool field_starts(const struct field *f, const char *s)
{
	return f->len >= strlen(s) && memcmp(f->start, s, strlen(s)) == 0;
}

/* Split a line at blanks. Returns how many of the first four fields it has. */
static size_t split_fields(const char *line, size_t len, struct field fields[static FIELD_COUNT])
{
	size_t n = 0, i = 0;

	while (n < FIELD_COUNT) {
		while (i < len && (line[i] == ' ' || line[i] == '\t'))
			i++;
		if (i == len)
			break;
		fields[n].start = line + i;
		while (i < len && line[i] != ' ' && line[i] != '\t')
			i++;
		fields[n].len = (size_t)(line + i - fields[n].start);
		n++;
	}
	return n;
}

/* Whether the thing a line mounts can only be a partition or disk that the image does not have. */
static bool source_is_elsewhere(const struct field *source, const struct field *type)
{
	static const char *const tags[] = { "LABEL=", "UUID=", "PARTUUID=", "PARTLABEL=", "ID=", "\"LABEL=", "\"UUID=" };
	static const char *const pseudo[] = { "/dev/fuse", "/dev/shm", "/dev/pts", "/dev/hugepages", "/dev/mqueue" };

	for (size_t i = 0; i < ARRAY_SIZE(tags); i++)
		if (field_starts(source, tags[i]))
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(pseudo); i++)
		if (field_is(source, pseudo[i]))
			return false;
	if (field_starts(source, "/dev/"))
		return true;
	return field_is(type, "swap") && !field_starts(source, "/");
}

static bool has_pattern(const char *line, size_t len, const struct strv *patterns)
{
	for (size_t i = 0; i < patterns->n; i++)
		if (memmem(line, len, patterns->items[i], strlen(patterns->items[i])))
			return true;
	return false;
}

enum verdict { LINE_KEEP, LINE_DROP, LINE_ROOT };

static enum verdict judge_line(const char *line, size_t len, const struct strv *patterns, bool keep,
	struct field fields[static FIELD_COUNT])
{
	size_t n = split_fields(line, len, fields);

	if (n == 0 || fields[FIELD_SOURCE].start[0] == '#')
		return LINE_KEEP;
	if (has_pattern(line, len, patterns))
		return LINE_DROP;
	if (keep || n < FIELD_OPTIONS)
		return LINE_KEEP;
	if (field_is(&fields[FIELD_TARGET], "/"))
		return LINE_ROOT;
	return source_is_elsewhere(&fields[FIELD_SOURCE], &fields[FIELD_TYPE]) ? LINE_DROP : LINE_KEEP;
}

/* The root's line: the type and the options stay, the source is neutral, nothing is dumped or checked by name. */
static int append_root(const struct field *fields, size_t n, struct buf *ret)
{
	static const struct field defaults = { "defaults", 8 };
	const struct field *options = n > FIELD_OPTIONS ? &fields[FIELD_OPTIONS] : &defaults;

	return buf_appendf(ret, "/dev/root\t/\t%.*s\t%.*s\t0 0\n", (int)fields[FIELD_TYPE].len, fields[FIELD_TYPE].start,
		(int)options->len, options->start);
}

int fstab_rewrite(const char *text, size_t len, const struct strv *patterns, bool keep, struct buf *ret,
	struct strv *ret_dropped, struct err *e)
{
	const char *end = text + len;
	int r = 0;

	if (len > FSTAB_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_INPUT, -E2BIG, "/etc/fstab of the base has %zu bytes, at most %u are read", len,
			FSTAB_MAX_BYTES);
	for (const char *line = text; r == 0 && line < end;) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));
		size_t line_len = (size_t)((newline ? newline : end) - line);
		struct field fields[FIELD_COUNT];

		switch (judge_line(line, line_len, patterns, keep, fields)) {
		case LINE_KEEP:
			r = buf_append(ret, line, line_len);
			if (r == 0)
				r = buf_append_char(ret, '\n');
			break;
		case LINE_DROP:
			r = strv_add_len(ret_dropped, line, line_len);
			break;
		case LINE_ROOT:
			r = append_root(fields, split_fields(line, line_len, fields), ret);
			break;
		}
		line += line_len + 1;
	}
	return r < 0 ? err_set_errno(e, r, "cannot rewrite /etc/fstab") : 0;
}
