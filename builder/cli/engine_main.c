/* imgbuild-engine: everything that the front does not answer itself. It takes the same command line. */
#include "builder/build.h"
#include "builder/cli/cancel.h"
#include "builder/cli/changes.h"
#include "builder/cli/disks.h"
#include "builder/cli/report.h"
#include "builder/resolve.h"
#include "builder/update.h"
#include "builder/vendor.h"
#include "lib/io.h"
#include "lib/url.h"
#include "lib/version.h"
#include "plan/toml.h"

#include <jansson.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { OPEN_FILES_WANTED = 8192 };

/* What every verb has at hand. */
struct session {
	const struct options *o;
	struct terminal *terminal;
	struct events events;
	struct build_env env;
	struct publisher *publisher;
	struct missing missing; /* files that could not be had */
	char *cache_path;
};

static void session_release(struct session *s)
{
	build_env_release(&s->env);
	missing_release(&s->missing);
	publisher_close(s->publisher);
	free(s->cache_path);
}

/* A folder for unnamed scratch files, for verbs that do not need the cache. */
static const char *scratch_path(void)
{
	const char *path = getenv("TMPDIR");

	return path && *path ? path : "/var/tmp";
}

/* Open the cache for writing and read the options that decide how bytes are had. */
static int session_open(struct session *s, int cancel_fd, struct err *e)
{
	int r = store_default_path(s->o->cache, &s->cache_path, e);

	if (r == 0)
		r = publisher_open(s->cache_path, &s->publisher, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_HOST);
	events_init(&s->events, &s->terminal->sink);
	s->env = (struct build_env){ .publisher = s->publisher,
		.progress = &s->events.sink,
		.cancel_fd = cancel_fd,
		.offline = s->o->offline,
		.locked = s->o->locked,
		.missing = &s->missing,
		.must_write_lock = s->o->verb == VERB_LOCK,
		.accel = s->o->accel };
	r = build_env_set_blob_stores(&s->env, &s->o->blobs, getenv("IMGBUILD_BLOBS"), e);
	if (r == 0)
		r = build_env_set_retry_delay(&s->env, getenv("IMGBUILD_RETRY_DELAY_MS"), e);
	return r < 0 ? r : build_env_set_mirrors(&s->env, &s->o->mirrors, getenv("IMGBUILD_MIRROR"), e);
}

/* The last lines of the guest, and where everything is kept. */
static void report_failed_build(struct session *s, const struct built *built)
{
	if (built->tail[0]) {
		terminal_clear(s->terminal);
		(void)fprintf(stderr, "  the last lines of the guest:\n");
		for (const char *line = built->tail; *line;) {
			size_t len = strcspn(line, "\n");

			(void)fprintf(stderr, "    %.*s\n", (int)len, line);
			line += len + (line[len] == '\n');
		}
	}
	if (built->path)
		(void)fprintf(stderr, "  console, records and disk of the failed build: %s\n", built->path);
}

static int verb_build(struct session *s, struct err *e)
{
	_cleanup_prepared_ struct prepared p = { 0 };
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_built_ struct built built = { 0 };
	int r = prepared_load(s->o->args.items[0], s->o->arch, s->o->allow_outside, publisher_store(s->publisher),
		s->env.progress, &p, &faults, e);

	if (r < 0)
		return report_failure(s->terminal, &faults, e);
	r = build_image(&s->env, &s->events, &p, &built, e);
	if (r == 0)
		return report_entry(s->terminal, s->o, built.path, &p.key, built.hit);
	r = report_failure(s->terminal, NULL, e);
	report_failed_build(s, &built);
	return r;
}

/* The plan for each architecture that is meant, loaded. */
struct prepared_set {
	struct prepared items[ARCH_COUNT];
	size_t n;
};

static void prepared_set_release(struct prepared_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		prepared_release(&set->items[i]);
}

/* Load it for the architecture of --arch, else for every one that the plan describes. */
static int load_all(struct session *s, struct prepared_set *ret, struct plan_faults *faults, struct err *e)
{
	const char *path = s->o->args.items[0];

	for (unsigned a = 0; a < ARCH_COUNT; a++) {
		_cleanup_plan_faults_ struct plan_faults said_below = { 0 };
		_cleanup_plan_ struct plan *plan = NULL;
		struct err ignored = ERR_INIT;
		int r;

		if (s->o->arch_given && a != s->o->arch)
			continue;
		if (!s->o->arch_given && plan_load(AT_FDCWD, path, s->o->allow_outside, &plan, &said_below, &ignored) == 0 &&
			plan_require_arch(plan, (enum arch)a, &ignored) < 0)
			continue;
		plan_faults_release(faults);
		r = prepared_load(path, (enum arch)a, s->o->allow_outside, publisher_store(s->publisher), s->env.progress,
			&ret->items[ret->n++], faults, e);
		if (r < 0)
			return r;
	}
	return ret->n > 0 ? 0 : err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s` has no [base.ARCH] for any architecture", path);
}

/* Drop from the lock what the plan no longer asks, of architectures that it does not have, too. */
static int prune_lock(struct prepared *p, struct err *e)
{
	int r = lock_prune(&p->lock, p->plan, p->arch, &p->locals, e);
	bool pruned = r > 0;

	for (unsigned a = 0; r >= 0 && pruned && a < ARCH_COUNT; a++)
		if (a == p->arch || !plan_location_given(&p->plan->base[a].location))
			r = lock_write(AT_FDCWD, p->lock_path, &p->lock, (enum arch)a, e);
	return r < 0 ? err_default_kind(e, ERR_KIND_HOST) : 0;
}

/* One architecture of `lock`: make the lock answer, and print what changed. */
static int lock_one(struct session *s, struct prepared *p, const struct strv *names, struct changes *changes, struct err *e)
{
	_cleanup_lock_ struct lock was = { 0 };
	char hex[DIGEST_HEX_SIZE];
	int r = lock_load(AT_FDCWD, p->lock_path, &was, e);

	if (r < 0)
		return err_default_kind(e, ERR_KIND_USAGE);
	if (names)
		r = resolve_update(&s->env, p, names, e);
	else if (p->key_error)
		r = resolve_lock(&s->env, p, e);
	if (r == 0)
		r = prune_lock(p, e);
	if (r == 0)
		r = changes_add(changes, p->arch, &was.arch[p->arch], &p->lock.arch[p->arch], e);
	if (r == 0)
		progress_note(s->env.progress, "%s: %s", arch_name(p->arch), digest_hex(&p->key, hex));
	return r;
}

/* The names behind the plan, which --update is about; NULL without it. */
static int update_names(const struct options *o, struct strv *names, const struct strv **ret, struct err *e)
{
	*ret = o->update ? names : NULL;
	for (size_t i = 1; i < o->args.n; i++)
		if (strv_add(names, o->args.items[i]) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	return 0;
}

/* The bytes of the lock; nothing when there is none yet. */
static void read_lock_text(const char *path, struct buf *into)
{
	struct err ignored = ERR_INIT;

	if (read_file_at(AT_FDCWD, path, true, into, &ignored) < 0)
		buf_reset(into);
}

static int verb_lock(struct session *s, struct err *e)
{
	_cleanup_(prepared_set_release) struct prepared_set set = { 0 };
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_strv_ struct strv names = { 0 };
	const struct strv *update = NULL;
	_cleanup_buf_ struct buf before = BUF_INIT(TOML_MAX_BYTES), after = BUF_INIT(TOML_MAX_BYTES);
	struct changes changes = { 0 };
	int r = load_all(s, &set, &faults, e);

	if (r == 0)
		r = update_names(s->o, &names, &update, e);
	if (r == 0 && update)
		r = update_check_names(set.items, set.n, update, e);
	if (r < 0)
		return report_failure(s->terminal, &faults, e);
	r = changes_begin(&changes, s->terminal, s->o, e);
	read_lock_text(set.items[0].lock_path, &before);
	for (size_t i = 0; r == 0 && i < set.n; i++)
		r = lock_one(s, &set.items[i], update, &changes, e);
	read_lock_text(set.items[0].lock_path, &after);
	if (r == 0 && changes.n == 0)
		progress_note(s->env.progress, buf_equal(&before, &after) ? "nothing changed in `%s`" :
			"`%s` was written anew: it answers what the plan asks now; no input changed", set.items[0].lock_path);
	changes_end(&changes);
	if (r < 0)
		return report_failure(s->terminal, NULL, e);
	return report_flush(s->terminal);
}

static int vendor_one(struct session *s, enum arch arch, struct vendor *v, struct plan_faults *faults, struct err *e)
{
	_cleanup_prepared_ struct prepared p = { 0 };
	int r = prepared_load(s->o->args.items[0], arch, s->o->allow_outside, publisher_store(s->publisher), s->env.progress, &p,
		faults, e);

	if (r == 0 && p.key_error)
		r = resolve_lock(&s->env, &p, e);
	return r < 0 ? r : vendor_add(v, &s->env, &p, e);
}

static int verb_vendor(struct session *s, struct err *e)
{
	const char *plan_path = s->o->args.items[0], *dir = s->o->output;
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_vendor_ struct vendor v = { .files = NULL };
	_cleanup_plan_ struct plan *plan = NULL;
	struct vendored done = { .n_files = 0 };
	int r = 0;

	if (!dir)
		r = err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "where to? imgbuild vendor %s -o DIR", plan_path);
	if (r == 0 && url_kind(dir) != URL_PATH) {
		_cleanup_free_ char *shown = url_redact(dir);

		r = err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "-o is a folder of this machine, not an address: `%s`", shown ? shown : "");
	}
	/* What the folder has already need not come from afar when the cache is empty. */
	if (r == 0 && strv_add(&s->env.blob_stores, dir) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = plan_load(AT_FDCWD, plan_path, s->o->allow_outside, &plan, &faults, e);
	if (r == 0 && s->o->arch_given)
		r = plan_require_arch(plan, s->o->arch, e);
	for (unsigned a = 0; r == 0 && a < ARCH_COUNT; a++) {
		struct err none = ERR_INIT;

		if (s->o->arch_given ? a != s->o->arch : plan_require_arch(plan, (enum arch)a, &none) < 0)
			continue;
		plan_faults_release(&faults);
		r = vendor_one(s, (enum arch)a, &v, &faults, e);
	}
	if (r == 0)
		r = vendor_fetch(&v, &s->env, e);
	if (r == 0)
		r = vendor_write(&v, &s->env, dir, &done, e);
	if (r < 0) {
		(void)err_default_kind(e, ERR_KIND_INPUT);
		return report_failure(s->terminal, &faults, e);
	}
	terminal_clear(s->terminal);
	if (s->o->json) {
		json_t *object = json_pack("{s:s, s:I, s:I, s:I, s:I}", "dir", dir, "files", (json_int_t)done.n_files, "bytes",
			(json_int_t)done.size_bytes, "added", (json_int_t)done.n_added, "replaced", (json_int_t)done.n_replaced);

		(void)json_dumpf(object, stdout, JSON_COMPACT);
		(void)fputc('\n', stdout);
		json_decref(object);
	} else {
		(void)puts(dir);
	}
	return report_flush(s->terminal);
}

static int verb_clone(struct session *s, struct err *e)
{
	_cleanup_store_item_ struct store_item item = { 0 };
	_cleanup_store_ struct store store = STORE_INIT;
	_cleanup_free_ char *image = NULL;
	const char *out = s->o->args.items[1], *how = "";
	int r = store_default_path(s->o->cache, &s->cache_path, e);

	if (r == 0)
		r = store_open(s->cache_path, &store, e);
	if (r == 0) {
		r = store_resolve_prefix(&store, s->o->args.items[0], false, &item, e);
		(void)(r < 0 ? err_default_kind(e, ERR_KIND_USAGE) : 0);
	}
	if (r == 0 && asprintf(&image, "%s/rootfs.ext4", item.path) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = clone_image(image, out, s->o->clone_as, &how, e);
	if (r < 0)
		return report_failure(s->terminal, NULL, e);
	if (s->o->json) {
		json_t *object = json_pack("{s:s, s:s, s:s}", "path", out, "how", how, "key", item.name);

		(void)json_dumpf(object, stdout, JSON_COMPACT);
		(void)fputc('\n', stdout);
		json_decref(object);
	}
	return report_flush(s->terminal);
}

static int verb_disks(struct session *s, struct err *e)
{
	const struct options *o = s->o;
	struct progress *progress = &s->terminal->sink;
	int r;

	if (o->verb == VERB_EXTRACT && !o->output)
		r = err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "where to? imgbuild extract %s -o OUT", o->args.items[0]);
	else if (o->verb == VERB_EXTRACT)
		r = disks_extract(o->args.items[0], o->output, o->arch, o->json, scratch_path(), progress, stdout, e);
	else
		r = disks_inspect(o->args.items[0], o->arch, o->json, scratch_path(), progress, stdout, e);
	terminal_clear(s->terminal);
	return r < 0 ? report_failure(s->terminal, NULL, e) : report_flush(s->terminal);
}

static int run_verb(const struct options *o, struct terminal *t)
{
	_cleanup_(session_release) struct session s = { .o = o, .terminal = t };
	struct err e = ERR_INIT;
	int cancel_fd = -1, r;

	if (o->verb == VERB_CLONE)
		return verb_clone(&s, &e);
	if (o->verb == VERB_INSPECT || o->verb == VERB_EXTRACT)
		return verb_disks(&s, &e);
	r = cancel_install(&cancel_fd, &e);
	if (r == 0)
		r = session_open(&s, cancel_fd, &e);
	if (r < 0)
		return report_failure(t, NULL, &e);
	r = o->verb == VERB_LOCK ? verb_lock(&s, &e) : o->verb == VERB_VENDOR ? verb_vendor(&s, &e) : verb_build(&s, &e);
	if (r != 0)
		report_missing(t, o, &s.missing, &e);
	return cancel_signal() && r != 0 ? 128 + cancel_signal() : r;
}

/* Each package to be installed is two open files for a while; the usual soft limit would end at some four hundred. */
static void raise_open_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < OPEN_FILES_WANTED && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max < OPEN_FILES_WANTED ? limit.rlim_max : OPEN_FILES_WANTED;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

int main(int argc, char **argv)
{
	struct terminal t;
	struct options o;
	struct err e = ERR_INIT;
	int r = options_parse(argc, argv, &o, &e);

	/* libarchive needs a UTF-8 locale for names that are not ASCII; nothing that is written depends on the user's. */
	(void)setlocale(LC_CTYPE, "C.UTF-8");
	(void)umask(022);
	raise_open_files();
	/* A file beyond ulimit -f is an error like a full disk (-EFBIG), not the end of the program, for every verb. */
	(void)signal(SIGXFSZ, SIG_IGN);
	terminal_init(&t, STDERR_FILENO, o.quiet, o.verbose, o.no_color);
	if (r < 0) {
		r = report_failure(&t, NULL, &e);
	} else if (o.help || o.version) {
		if (o.help)
			options_print_help(stdout, o.verb);
		else
			(void)puts("imgbuild " IMGBUILD_VERSION);
		r = report_flush(&t);
	} else {
		r = run_verb(&o, &t);
	}
	options_release(&o);
	return r;
}
