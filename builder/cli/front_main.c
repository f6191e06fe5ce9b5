/* imgbuild: the front. It answers a hit, `key`, `lock --check`, `ls`, `show` and `help` itself, linked to libcrypto and jansson only, since loading
 * what the engine needs costs more than a whole hit may. For everything else it becomes the engine. */
#include "builder/cli/check.h"
#include "builder/cli/entries.h"
#include "builder/cli/report.h"
#include "builder/cli/why.h"
#include "builder/prepare.h"
#include "lib/version.h"
#include "plan/canonical.h"
#include "plan/epoch.h"

#include <string.h>

#ifndef ENGINE_LIBEXEC
#define ENGINE_LIBEXEC "../libexec/imgbuild/imgbuild-engine" /* relative to the folder of this program, when installed */
#endif

/* Become the engine, which lies beside this program in a build folder, else where it was installed. */
static int exec_engine(char **argv, struct terminal *t)
{
	static const char *const places[] = { "imgbuild-engine", ENGINE_LIBEXEC };
	char self[4096], path[4096 + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	struct err e = ERR_INIT;
	char *slash;

	if (n > 0) {
		self[n] = '\0';
		slash = strrchr(self, '/');
		for (size_t i = 0; slash && i < ARRAY_SIZE(places); i++) {
			(void)snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - self), self, places[i]);
			(void)execv(path, argv);
			if (errno != ENOENT && errno != ENOTDIR)
				break;
		}
	}
	(void)err_set_errno(&e, -errno, "cannot run imgbuild-engine, which belongs beside this program or in ../libexec/imgbuild");
	(void)err_default_kind(&e, ERR_KIND_HOST);
	return report_failure(t, NULL, &e);
}

static int open_cache(const struct options *o, struct store *ret, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	int r = store_default_path(o->cache, &path, e);

	return r < 0 ? r : store_open(path, ret, e);
}

/* The key, or the document it is the digest of: exactly the hashed bytes, and a newline. */
static int print_key(const struct options *o, const struct prepared *p, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(CANONICAL_MAX_BYTES);
	char hex[DIGEST_HEX_SIZE];
	int r;

	if (!o->json) {
		(void)puts(digest_hex(&p->key, hex));
		return 0;
	}
	r = canonical_append(p->document, &text, e);
	if (r == 0)
		(void)puts(buf_str(&text));
	return r;
}

enum { TO_ENGINE = -1 };

/* `build`, `key` and `why`: answered here when lock and cache know. The store may be NULL for `key`. Returns the exit status, or TO_ENGINE. */
static int from_plan(const struct options *o, const struct store *store, struct terminal *t)
{
	_cleanup_prepared_ struct prepared p = { 0 };
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_free_ char *path = NULL;
	struct err e = ERR_INIT;
	/* Notices about the plan are the engine's to print when it has the last word; a hit is silent. */
	int r = prepared_load(o->args.items[0], o->arch, o->allow_outside, store, NULL, &p, &faults, &e);

	if (r < 0)
		return report_failure(t, &faults, &e);
	if (o->verb == VERB_WHY) {
		r = why_print(&p, store, o->args.n > 1 ? o->args.items[1] : NULL, o->json, &t->sink, stdout, &e);
		return r < 0 ? report_failure(t, NULL, &e) : report_flush(t);
	}
	if (o->verb == VERB_KEY && p.key_error == -ENOKEY) {
		(void)err_set_kind(&e, ERR_KIND_USAGE, -ENOKEY, "%s: write the lock with `imgbuild lock %s`", p.key_reason,
			o->args.items[0]);
		return report_failure(t, NULL, &e);
	}
	if (o->verb == VERB_KEY) {
		r = print_key(o, &p, &e);
		return r < 0 ? report_failure(t, NULL, &e) : report_flush(t);
	}
	if (p.key_error == -ENOKEY || store_find_entry(store, &p.key, &path, &e) < 0)
		return TO_ENGINE;
	return report_entry(t, o, path, &p.key, true);
}

static int read_entries(const struct options *o, const struct store *store, struct terminal *t)
{
	struct err e = ERR_INIT;
	int r = o->verb == VERB_LS ? entries_list(store, o->json, stdout, &e) :
				     entries_show(store, o->args.items[0], o->json, stdout, &e);

	return r < 0 ? report_failure(t, NULL, &e) : report_flush(t);
}

/* `help VERB`, `VERB --help`, `--help`. */
static int print_help(const struct options *o, struct terminal *t)
{
	enum verb v = o->help ? o->verb : VERB_HELP;
	struct err e = ERR_INIT;

	if (o->verb == VERB_HELP && o->args.n > 0) {
		for (v = VERB_BUILD; v < VERB_COUNT; v = (enum verb)(v + 1))
			if (strcmp(verb_name(v), o->args.items[0]) == 0)
				break;
		if (v == VERB_COUNT) {
			(void)err_set_kind(&e, ERR_KIND_USAGE, -EINVAL, "there is no verb `%s`; see imgbuild --help",
				o->args.items[0]);
			return report_failure(t, NULL, &e);
		}
	}
	options_print_help(stdout, v);
	return report_flush(t);
}

static int answer(const struct options *o, struct terminal *t)
{
	_cleanup_store_ struct store store = STORE_INIT;
	struct err e = ERR_INIT;

	if (o->version) {
		(void)printf("imgbuild %s, epoch %d\n", IMGBUILD_VERSION, IMGBUILD_EPOCH);
		return report_flush(t);
	}
	if (o->help || o->verb == VERB_HELP)
		return print_help(o, t);
	switch (o->verb) {
	case VERB_BUILD:
	case VERB_KEY:
	case VERB_WHY:
	case VERB_LS:
	case VERB_SHOW:
		break;
	case VERB_LOCK:
		if (!o->check)
			return TO_ENGINE;
		break;
	default:
		return TO_ENGINE;
	}
	if (open_cache(o, &store, &e) < 0) {
		/* A key needs no cache: one that cannot be opened only means that local files are read again. */
		if (o->verb == VERB_KEY)
			return from_plan(o, NULL, t);
		if (o->verb == VERB_LOCK)
			return check_lock(o, NULL, t);
		(void)err_default_kind(&e, ERR_KIND_HOST);
		return report_failure(t, NULL, &e);
	}
	if (o->verb == VERB_LOCK)
		return check_lock(o, &store, t);
	return o->verb != VERB_LS && o->verb != VERB_SHOW ? from_plan(o, &store, t) : read_entries(o, &store, t);
}

int main(int argc, char **argv)
{
	struct terminal t;
	struct options o;
	struct err e = ERR_INIT;
	int r = options_parse(argc, argv, &o, &e);

	terminal_init(&t, STDERR_FILENO, o.quiet, o.verbose, o.no_color);
	r = r < 0 ? report_failure(&t, NULL, &e) : answer(&o, &t);
	options_release(&o);
	return r == TO_ENGINE ? exec_engine(argv, &t) : r;
}
