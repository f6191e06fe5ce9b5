#include "builder/cli/check.h"
#include "builder/cli/report.h"
#include "builder/prepare.h"
#include "plan/json.h"

#include <fcntl.h>

/* One architecture. found: an array for what is said, or NULL. Returns 0, 1 when its lock does not answer, or -errno. */
static int check_arch(const struct options *o, enum arch arch, const struct store *store, struct terminal *t, json_t *found,
	struct plan_faults *faults, struct err *e)
{
	_cleanup_prepared_ struct prepared p = { .read_only = true };
	_cleanup_strv_ struct strv reasons = { 0 };
	int r = prepared_load(o->args.items[0], arch, o->allow_outside, store, NULL, &p, faults, e);

	if (r < 0 || !p.key_error)
		return r;
	r = lock_explain(p.plan, &p.lock, arch, &p.locals, &reasons, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < reasons.n; i++) {
		progress_warning(&t->sink, "%s: %s", arch_name(arch), reasons.items[i]);
		if (found && json_array_append_new(found, json_pack("{s:s, s:s}", "arch", arch_name(arch), "reason",
							 reasons.items[i])) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 1;
}

int check_lock(const struct options *o, const struct store *store, struct terminal *t)
{
	const char *path = o->args.items[0];
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_plan_ struct plan *plan = NULL;
	_cleanup_json_ json_t *found = o->json ? json_array() : NULL;
	struct err e = ERR_INIT;
	bool stale = false;
	int r = plan_load(AT_FDCWD, path, o->allow_outside, &plan, &faults, &e);

	if (r == 0 && o->arch_given)
		r = plan_require_arch(plan, o->arch, &e);
	for (unsigned a = 0; r >= 0 && a < ARCH_COUNT; a++) {
		if (o->arch_given ? a != o->arch : !plan_location_given(&plan->base[a].location))
			continue;
		plan_faults_release(&faults);
		r = check_arch(o, (enum arch)a, store, t, found, &faults, &e);
		stale = stale || r > 0;
	}
	if (r >= 0 && found) {
		(void)json_dumpf(found, stdout, JSON_COMPACT);
		(void)fputc('\n', stdout);
	}
	if (r >= 0 && !stale)
		return report_flush(t);
	if (r >= 0)
		(void)err_set_kind(&e, ERR_KIND_USAGE, -ENOKEY, "the lock does not answer `%s`: run `imgbuild lock %s`", path, path);
	(void)err_default_kind(&e, ERR_KIND_USAGE);
	return report_failure(t, &faults, &e);
}
