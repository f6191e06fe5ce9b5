/* Composes an initrd from lines on stdin, with the engine's own code, for the tests that boot init.
 *
 *     mkinitrd ARCH OUT        fields are separated by tabs:
 *       module NAME FILE | deb FILE | payload LABEL MODE FILE | tree LABEL FOLDER | input NAME PATH | entry
 *       VERB FIELD…            a verb of the job; a field "@LABEL" becomes the path of that payload, tree or
 * deb
 *
 * Prints the size of the archive and of its contents. Exit 1 with a message on any failure. */
#include "initrd/initrd.h"
#include "lib/buf.h"
#include "lib/io.h"
#include "lib/strv.h"

#include <fcntl.h>
#include <string.h>

#define LINE_SIZE 65536
#define LABELS_MAX 512

struct label {
	char name[128];
	char path[INITRD_PATH_SIZE];
};

struct state {
	struct initrd *rd;
	struct job job;
	struct label labels[LABELS_MAX];
	size_t n_labels;
};

static int open_or_fail(const char *path, struct err *e)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? err_set_errno(e, -errno, "cannot open `%s`", path) : fd;
}

static int add_verb(struct state *s, char **fields, size_t n, struct err *e)
{
	for (size_t i = 1; i < n; i++) {
		for (size_t k = 0; fields[i][0] == '@' && k < s->n_labels; k++) {
			if (strcmp(s->labels[k].name, fields[i] + 1) == 0)
				fields[i] = s->labels[k].path;
		}
	}
	return job_add_fields(&s->job, fields[0], (const char *const *)fields + 1, n - 1, e);
}

static int do_line(struct state *s, char **fields, size_t n, struct err *e)
{
	struct label *label = &s->labels[s->n_labels];
	_cleanup_close_ int fd = -1;
	const char *what = fields[0];

	if (s->n_labels == LABELS_MAX)
		return err_set(e, -E2BIG, "more than %d labels", LABELS_MAX);
	if (strcmp(what, "module") == 0 && n == 3) {
		_cleanup_buf_ struct buf bytes = BUF_INIT(64u << 20);
		int r = read_file_at(AT_FDCWD, fields[2], true, &bytes, e);

		return r < 0 ? r : initrd_add_module(s->rd, &s->job, fields[1], bytes.data, bytes.len, e);
	}
	if (strcmp(what, "deb") == 0 && n == 2) {
		const char *slash = strrchr(fields[1], '/');
		const char *base = slash ? slash + 1 : fields[1];

		fd = open_or_fail(fields[1], e);
		(void)snprintf(label->name, sizeof(label->name), "%s", base);
		s->n_labels++;
		return fd < 0 ? fd : initrd_add_deb(s->rd, base, fd, label->path, e);
	}
	if (strcmp(what, "payload") == 0 && n == 4) {
		fd = open_or_fail(fields[3], e);
		(void)snprintf(label->name, sizeof(label->name), "%s", fields[1]);
		s->n_labels++;
		return fd < 0 ? fd
			      : initrd_add_fd(s->rd, fields[1], (mode_t)strtoul(fields[2], NULL, 8), fd,
					label->path, e);
	}
	if (strcmp(what, "tree") == 0 && n == 3 && fields[1][0] != '/') {
		fd = open_or_fail(fields[2], e);
		(void)snprintf(label->name, sizeof(label->name), "%s", fields[1]);
		s->n_labels++;
		return fd < 0 ? fd : initrd_add_tree(s->rd, fields[1], fd, label->path, e);
	}
	if (strcmp(what, "input") == 0 && n == 3) {
		fd = open_or_fail(fields[2], e);
		return fd < 0 ? fd : initrd_add_input(s->rd, fields[1], fd, e);
	}
	return add_verb(s, fields, n, e);
}

static int compose(const char *arch_text, const char *out, struct err *e)
{
	static char line[LINE_SIZE];
	static struct state s;
	struct initrd_size size = { 0 };
	enum arch arch;
	_cleanup_close_ int fd = -1;
	int r;

	if (arch_parse(arch_text, &arch) < 0)
		return err_set(e, -EINVAL, "`%s` is no architecture", arch_text);
	fd = open(out, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return err_set_errno(e, -errno, "cannot make `%s`", out);
	job_init(&s.job);
	r = initrd_new(fd, arch, &s.rd, e);
	while (r == 0 && fgets(line, sizeof(line), stdin)) {
		char *fields[256], *rest = line;
		size_t n = 0;

		line[strcspn(line, "\n")] = '\0';
		while (n < ARRAY_SIZE(fields) && (fields[n] = strsep(&rest, "\t")))
			n++;
		r = do_line(&s, fields, n, e);
	}
	if (r == 0)
		r = initrd_finish(s.rd, &s.job, &size, e);
	initrd_free(s.rd);
	job_release(&s.job);
	if (r == 0)
		printf("%llu %llu\n", (unsigned long long)size.archive_bytes,
			(unsigned long long)size.content_bytes);
	return r;
}

int main(int argc, char **argv)
{
	struct err e = ERR_INIT;

	if (argc != 3) {
		fprintf(stderr, "usage: mkinitrd ARCH OUT <lines\n");
		return 2;
	}
	if (compose(argv[1], argv[2], &e) < 0) {
		fprintf(stderr, "mkinitrd: %s\n", e.message);
		return 1;
	}
	return 0;
}
