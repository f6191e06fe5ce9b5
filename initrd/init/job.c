#include "initrd/init/job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define JOB_FILE_MAX_BYTES (16u << 20)

/* Which verbs there are, and how many fields each takes. */
static const struct verb_rule {
	const char *name;
	size_t min, max;
} rules[] = {
	[VERB_CLOCK] = { "clock", 1, 1 },
	[VERB_MODULE] = { "module", 2, 2 },
	[VERB_ROOT] = { "root", 2, 2 },
	[VERB_GROW] = { "grow", 0, 0 },
	[VERB_LABEL] = { "label", 1, 1 },
	[VERB_STEP] = { "step", 2, 2 },
	[VERB_DPKG_REMOVE] = { "dpkg-remove", 1, SIZE_MAX },
	[VERB_DPKG_PURGE] = { "dpkg-purge", 1, SIZE_MAX },
	[VERB_DPKG_UNPACK] = { "dpkg-unpack", 1, SIZE_MAX },
	[VERB_DPKG_CONFIGURE] = { "dpkg-configure", 0, SIZE_MAX },
	[VERB_TREE] = { "tree", 2, 2 },
	[VERB_FILE] = { "file", 4, 4 },
	[VERB_DEPMOD] = { "depmod", 1, 1 },
	[VERB_ENABLE] = { "enable", 1, SIZE_MAX },
	[VERB_DISABLE] = { "disable", 1, SIZE_MAX },
	[VERB_MASK] = { "mask", 1, SIZE_MAX },
	[VERB_PASSWORD] = { "password", 2, 2 },
	[VERB_AUTHORIZED_KEYS] = { "authorized-keys", 2, 2 },
	[VERB_RUN] = { "run", 1, 1 },
	[VERB_REMOVE] = { "remove", 1, 1 },
	[VERB_FORGET_IDENTITY] = { "forget-identity", 0, 0 },
	[VERB_BOOT] = { "boot", 0, 0 },
};

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* Decode a field in place. Returns false when it is not well encoded. */
static bool decode_field(char *field)
{
	char *to = field;

	if (strcmp(field, "%") == 0) {
		field[0] = '\0';
		return true;
	}
	if (field[0] == '\0')
		return false;
	for (const char *from = field; *from; from++) {
		if (*from != '%') {
			*to++ = *from;
			continue;
		}
		int high = hex_value(from[1]), low = high < 0 ? -1 : hex_value(from[2]);

		if (low < 0 || high * 16 + low == 0)
			return false;
		*to++ = (char)(high * 16 + low);
		from += 2;
	}
	*to = '\0';
	return true;
}

/* Read one line into a verb. */
static int read_verb(char *line, size_t number, struct verb *ret, struct fail *f)
{
	size_t n = 0, kind;
	char *name = strsep(&line, " ");

	for (kind = 0; kind < ARRAY_SIZE(rules); kind++) {
		if (strcmp(rules[kind].name, name) == 0)
			break;
	}
	if (kind == ARRAY_SIZE(rules))
		return fail_set(f, "internal",
			"line %zu of the job has the unknown verb `%.40s`; host and guest are of different versions",
			number, name);
	for (const char *p = line; p; p = strchr(p, ' '), p = p ? p + 1 : NULL)
		n++;
	if (n < rules[kind].min || n > rules[kind].max)
		return fail_set(f, "internal", "line %zu of the job: `%s` has %zu fields", number, name, n);
	*ret = (struct verb){ .kind = (enum verb_kind)kind, .name = name, .n = n };
	ret->fields = calloc(n + 1, sizeof(*ret->fields));
	if (!ret->fields)
		return fail_set(f, "internal", "no memory for the job");
	for (size_t i = 0; i < n; i++) {
		ret->fields[i] = strsep(&line, " ");
		if (!decode_field(ret->fields[i]))
			return fail_set(f, "internal",
				"line %zu of the job: field %zu of `%s` is not well encoded", number, i + 1,
				name);
	}
	return 0;
}

int job_read(const char *path, struct job *ret, struct fail *f)
{
	char *data, *line;
	size_t len, number = 1, n_lines = 0;
	int r = read_alloc_at(AT_FDCWD, path, JOB_FILE_MAX_BYTES, &data, &len);
	struct job job = { 0 };

	if (r < 0)
		return fail_set(
			f, "internal", "cannot read the job `%s` of the initrd: %s", path, strerror(-r));
	for (size_t i = 0; i < len; i++)
		n_lines += data[i] == '\n';
	job.verbs = calloc(n_lines + 1, sizeof(*job.verbs));
	if (!job.verbs)
		return fail_set(f, "internal", "no memory for the job");
	line = strsep(&data, "\n");
	if (strcmp(line, JOB_MAGIC) != 0)
		return fail_set(f, "internal", "the job begins with `%.40s`, not with `%s`", line, JOB_MAGIC);
	while ((line = strsep(&data, "\n"))) {
		number++;
		if (line[0] == '\0' && !data)
			break;
		if (read_verb(line, number, &job.verbs[job.n], f) < 0)
			return -1;
		job.n++;
	}
	*ret = job;
	return 0;
}
