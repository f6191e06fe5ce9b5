#include "builder/prepare.h"

#include <fcntl.h>
#include <string.h>

void prepared_release(struct prepared *p)
{
	json_decref(p->document);
	plan_local_inputs_release(&p->locals);
	lock_release(&p->lock);
	plan_free(p->plan);
	free(p->lock_path);
	*p = (struct prepared){ 0 };
}

/* Fill in the digest of one local file or tree, and hold it against what the plan says it must be. */
static int digest_local(const struct plan *plan, struct filedigest_memo *memo, struct plan_local_input *input,
	struct err *e)
{
	_cleanup_close_ int fd = plan_open_beneath(plan, input->path, O_RDONLY | O_NONBLOCK, e);
	char expected[DIGEST_HEX_SIZE], found[DIGEST_HEX_SIZE];
	int r;

	if (fd < 0)
		return fd;
	if (input->is_tree) {
		struct filedigest_tree_info info;

		r = filedigest_tree_at(memo, fd, ".", &info, e);
		if (r == 0)
			input->digest = info.digest;
	} else {
		r = filedigest_fd(memo, fd, input->path, &input->digest, NULL, e);
	}
	if (r < 0)
		return err_wrap(e, "`%s`", input->path);
	if (input->sha256.algorithm != DIGEST_NONE && !digest_equal(&input->sha256, &input->digest))
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
			"`%s` has the SHA-256 %s, but the plan says %s: change the plan if the new file is meant",
			input->path, digest_hex(&input->digest, found), digest_hex(&input->sha256, expected));
	return input->sha512.algorithm == DIGEST_NONE ? 0 :
		filedigest_confirm_sha512(memo, fd, input->path, &input->sha512, e);
}

static int digest_locals(struct prepared *p, const struct store *store, struct err *e)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *memo = NULL;
	struct err ignored = ERR_INIT;
	int r = plan_local_inputs(p->plan, p->arch, &p->locals, e);

	if (r < 0 || p->locals.n == 0)
		return r;
	r = filedigest_memo_load(store, &memo, e);
	for (size_t i = 0; r == 0 && i < p->locals.n; i++)
		r = digest_local(p->plan, memo, &p->locals.items[i], e);
	/* A cache that cannot be written to costs time the next time, nothing else. */
	if (r == 0 && !p->read_only)
		(void)!filedigest_memo_save(memo, &ignored);
	return r;
}

int prepared_confirm_locals(const struct prepared *p, const struct store *store, struct err *e)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *memo = NULL;
	struct plan_local_inputs now = { 0 };
	int r = plan_local_inputs(p->plan, p->arch, &now, e);

	if (r == 0)
		r = filedigest_memo_load(store, &memo, e);
	for (size_t i = 0; r == 0 && i < now.n; i++) {
		const struct plan_local_input *was = plan_local_input_find(&p->locals, now.items[i].slot);

		/* The base is confirmed where its root is taken out, and not read when the cache has that. */
		if (now.items[i].kind == PLAN_INPUT_BASE)
			continue;
		r = digest_local(p->plan, memo, &now.items[i], e);
		if (r == 0 && (!was || !digest_equal(&was->digest, &now.items[i].digest) || was->is_tree != now.items[i].is_tree ||
				      was->executable != now.items[i].executable))
			r = err_set_kind(e, ERR_KIND_INPUT, -EBUSY, "`%s` was changed while it was read; run again",
				now.items[i].path);
	}
	plan_local_inputs_release(&now);
	return r;
}

int prepared_compute_key(struct prepared *p, struct err *e)
{
	struct err key_err = ERR_INIT;
	int r;

	json_decref(p->document);
	p->document = NULL;
	r = key_compute(p->plan, &p->lock, p->arch, &p->locals, &p->key, &p->document, &key_err);
	p->key_error = r;
	if (r == -ENOKEY) {
		(void)snprintf(p->key_reason, sizeof(p->key_reason), "%.*s", (int)sizeof(p->key_reason) - 1,
			key_err.message);
		return 0;
	}
	if (r < 0)
		*e = key_err;
	return r;
}

int prepared_load(const char *path, enum arch arch, bool allow_outside, const struct store *store,
	struct progress *progress, struct prepared *ret, struct plan_faults *ret_faults, struct err *e)
{
	int r = plan_load(AT_FDCWD, path, allow_outside, &ret->plan, ret_faults, e);

	ret->arch = arch;
	if (r < 0)
		return err_default_kind(e, ERR_KIND_USAGE);
	for (size_t i = 0; i < ret_faults->n_notices; i++)
		progress_note(progress, "%s:%u: %s", path, ret_faults->notices[i].line, ret_faults->notices[i].message);
	r = plan_require_arch(ret->plan, arch, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_USAGE);
	ret->lock_path = lock_path_for(path);
	if (!ret->lock_path)
		return err_set(e, -ENOMEM, "out of memory");
	r = lock_load(AT_FDCWD, ret->lock_path, &ret->lock, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_USAGE);
	r = digest_locals(ret, store, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_USAGE);
	return prepared_compute_key(ret, e);
}

int prepared_open_local(const struct prepared *p, const char *slot, int *ret_fd, struct err *e)
{
	const struct plan_local_input *input = plan_local_input_find(&p->locals, slot);
	int fd;

	if (!input)
		return err_set(e, -ENOENT, "the plan has no local input `%s`", slot);
	/* O_NONBLOCK: a FIFO that has come to stand there must not wait for its writer. */
	fd = plan_open_beneath(p->plan, input->path, O_RDONLY | O_NONBLOCK, e);
	if (fd < 0)
		return fd;
	*ret_fd = fd;
	return 0;
}
