#include "initrd/init/dpkg.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STATUS_FD 9
#define STATUS_FD_ARG "--status-fd=9"

/* What dpkg says on its status descriptor, for progress and for the failure's text. SOURCE: dpkg(1),
 * --status-fd. */
struct talk {
	struct step_context *step;
	unsigned *done; /* which counter "processing" or "installed" advances */
	unsigned total;
	const char *counted; /* "install: " (with upgrade), "configure: ", "remove: " */
	const char *activity;
	char last[256]; /* the package that was counted last */
	char errors[800];
	size_t errors_len;
};

static void add_error(struct talk *t, const char *package, const char *text)
{
	int n = snprintf(t->errors + t->errors_len, sizeof(t->errors) - t->errors_len, "%s%s: %s",
		t->errors_len ? "; " : "", package, text);

	if (n > 0)
		t->errors_len = t->errors_len + (size_t)n < sizeof(t->errors) ? t->errors_len + (size_t)n
									      : sizeof(t->errors) - 1;
}

/* "processing: STAGE: PACKAGE", "status: PACKAGE: STATUS", "status: PACKAGE : error : TEXT" (spaces as they
 * come). */
static void on_status(void *opaque, char *line)
{
	struct talk *t = opaque;

	if (strncmp(line, "processing: ", 12) == 0) {
		const char *stage = line + 12, *package = strstr(stage, ": ");
		bool counts = strncmp(stage, t->counted, strlen(t->counted)) == 0 ||
			      (strcmp(t->counted, "install: ") == 0 && strncmp(stage, "upgrade: ", 9) == 0) ||
			      (strcmp(t->counted, "remove: ") == 0 && strncmp(stage, "purge: ", 7) == 0);

		/* A purge says "remove" and then "purge" of the same package. */
		if (counts && package && strcmp(package + 2, t->last) != 0) {
			(void)snprintf(t->last, sizeof(t->last), "%s", package + 2);
			(*t->done)++;
			command_progress(t->step, *t->done, t->total, "%s %s", t->activity, package + 2);
		}
	} else if (strncmp(line, "status: ", 8) == 0) {
		char *package = line + 8, *rest = strstr(package, ": ");

		if (!rest)
			return;
		*rest = '\0';
		rest += 2;
		rest += strspn(rest, " ");
		while (rest > package && package[strlen(package) - 1] == ' ')
			package[strlen(package) - 1] = '\0';
		if (strncmp(rest, "error", 5) == 0) {
			const char *text = strchr(rest, ':');

			text = text ? text + 1 + strspn(text + 1, " ") : rest;
			add_error(t, package, text);
		}
	}
}

/* Run dpkg with fixed options, then `options`, then the operands. */
static int run_dpkg(struct step_context *s, struct talk *t, const char *const *options, char *const *operands,
	size_t n, struct fail *f)
{
	/* Conffiles: what the image has stays, what it lacks comes; nobody is asked. unsafe-io: the host
	 * syncs once, at the end. */
	static const char *const fixed[] = { "dpkg", STATUS_FD_ARG, "--force-confdef", "--force-confold",
		"--force-unsafe-io" };
	const char **argv = calloc(ARRAY_SIZE(fixed) + 4 + n + 1, sizeof(*argv));
	size_t argc = 0;
	int status;

	if (!argv)
		return fail_set(f, "internal", "no memory for dpkg's arguments");
	if (!command_exists("dpkg")) {
		free(argv);
		return fail_set(f, "exit", "the image has no dpkg, and the plan asks for packages");
	}
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		argv[argc++] = fixed[i];
	for (size_t i = 0; i < 4 && options[i]; i++)
		argv[argc++] = options[i];
	for (size_t i = 0; i < n; i++)
		argv[argc++] = operands[i];
	status = command_run(s, (char *const *)argv, STATUS_FD, on_status, t, f);
	free(argv);
	if (status < 0)
		return -1;
	if (status == 0)
		return 0;
	(void)fail_from_status(f, status, "dpkg");
	(void)snprintf(f->text, sizeof(f->text), "dpkg %s ended with %s %d%s%s", options[0],
		f->signal ? "signal" : "status", f->signal ? f->signal : f->exit, t->errors_len ? ": " : "",
		t->errors);
	return -1;
}

int dpkg_remove(struct step_context *s, char *const *packages, size_t n, bool purge, struct fail *f)
{
	/* What others depend on goes when the solver says so: it knows what comes in its place. */
	const char *options[] = { purge ? "--purge" : "--remove", "--force-depends", NULL };
	unsigned done = 0;
	struct talk t = {
		.step = s, .done = &done, .total = (unsigned)n, .counted = "remove: ", .activity = "removing"
	};

	return run_dpkg(s, &t, options, packages, n, f);
}

int dpkg_unpack(struct step_context *s, char *const *paths, size_t n, struct fail *f)
{
	const char *options[] = { "--unpack", NULL };
	struct talk t = {
		.step = s,
		.done = &s->unpack_done,
		.total = s->unpack_total,
		.counted = "install: ",
		.activity = "unpacking",
	};
	char **inside = calloc(n + 1, sizeof(*inside));
	int r = 0;

	if (!inside)
		return fail_set(f, "internal", "no memory for the names of packages");
	for (size_t i = 0; i < n && r == 0; i++) {
		inside[i] = malloc(512);
		if (!inside[i] || !command_payload_path(paths[i], inside[i], 512))
			r = fail_set(f, "internal", "`%s` is no path of the payload", paths[i]);
	}
	if (r == 0)
		r = run_dpkg(s, &t, options, inside, n, f);
	/* The packages lie in the guest's memory; what is unpacked need not any more. */
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			(void)unlinkat(s->view.initrd_fd, paths[i] + 1, 0);
		free(inside[i]);
	}
	free(inside);
	return r;
}

/* What dpkg-query says of packages that are not done, gathered as text. */
struct leftovers {
	char text[600];
	size_t len;
	unsigned n;
};

/* A line "xyz name": desired, status, error as letters. SOURCE: dpkg-query(1), db:Status-Abbrev. */
static void on_package(void *opaque, char *line)
{
	struct leftovers *l = opaque;
	int n;

	if (strlen(line) < 5 || (strchr("nci", line[1]) && line[2] == ' '))
		return;
	l->n++;
	n = snprintf(l->text + l->len, sizeof(l->text) - l->len, "%s%s (%.3s)", l->len ? ", " : "", line + 4,
		line);
	if (n > 0 && l->len + (size_t)n < sizeof(l->text))
		l->len += (size_t)n;
}

/* Prove that no package is half-installed, unpacked, half-configured or waiting for a trigger. */
static int check_done(struct step_context *s, struct fail *f)
{
	/* The format goes to stdout, so the shell hands it to the descriptor whose lines are read here. */
	char *argv[] = {
		(char *)(uintptr_t) "/bin/sh",
		(char *)(uintptr_t) "-c",
		(char *)(uintptr_t) "exec dpkg-query -W -f '${db:Status-Abbrev} ${binary:Package}\\n' >&9",
		NULL,
	};
	struct leftovers left = { .n = 0 };
	int status = command_run(s, argv, STATUS_FD, on_package, &left, f);

	if (status < 0)
		return -1;
	if (status != 0)
		return fail_from_status(f, status, "dpkg-query");
	if (left.n > 0) {
		f->exit = 1;
		return fail_set(f, "exit",
			"%u package(s) are not completely installed after dpkg --configure --pending: %s",
			left.n, left.text);
	}
	return 0;
}

int dpkg_configure(struct step_context *s, char *const *packages, size_t n, struct fail *f)
{
	const char *options[] = { "--configure", n == 0 ? "--pending" : NULL, NULL };
	struct talk t = {
		.step = s,
		.done = &s->configure_done,
		.total = s->unpack_total,
		.counted = "configure: ",
		.activity = "configuring",
	};
	int r = run_dpkg(s, &t, options, packages, n, f);

	return r == 0 && n == 0 ? check_done(s, f) : r;
}
