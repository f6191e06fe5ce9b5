/* Plans with their local files and locks, for the tests of lock and key. Header only: each test program has its own.
 *
 * The folder holds empty files and trees of fixed names. The digest of a local input is that of its path's text up to an
 * `@`, so that "tool" and "tool@moved" are the same bytes under two names, and "tool" and "tool2" different ones. */
#ifndef IMGBUILD_TESTS_PLAN_FIXTURE_H
#define IMGBUILD_TESTS_PLAN_FIXTURE_H

#include "lib/cleanup.h"
#include "lib/io.h"
#include "plan/key.h"
#include "plan/lock.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct fixture {
	char path[256];
	int fd;
};

/* A plan with its local inputs digested and a lock that answers it. */
struct answered {
	struct plan *plan;
	struct plan_local_inputs locals;
	struct lock lock;
};

static inline void answered_release(struct answered *a)
{
	plan_local_inputs_release(&a->locals);
	lock_release(&a->lock);
	plan_free(a->plan);
}
#define _cleanup_answered_ _cleanup_(answered_release)

static inline int fixture_make(void **state)
{
	static const char *const files[] = { "a.img", "a2.img", "a.img@moved", "k", "k2", "k@moved", "kata.tar", "x_1_amd64.deb",
		"y.deb", "y.deb@moved", "x_1_arm64.deb", "key.asc", "key2.asc", "key.asc@moved", "tool", "tool2", "tool@moved",
		"setup.sh", "setup2.sh" };
	static const char *const trees[] = { "modules", "modules2", "modules@moved", "tree", "tree2" };
	const char *tmp = getenv("TMPDIR");
	struct fixture *f = calloc(1, sizeof(*f));

	(void)snprintf(f->path, sizeof(f->path), "%s/lock-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(f->path))
		return -1;
	f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		_cleanup_close_ int fd = openat(f->fd, files[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0644);

		if (fd < 0)
			return -1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(trees); i++)
		if (mkdirat(f->fd, trees[i], 0755) < 0)
			return -1;
	*state = f;
	return 0;
}

static inline int fixture_remove(void **state)
{
	struct fixture *f = *state;

	(void)remove_tree_at(AT_FDCWD, f->path);
	close_fdp(&f->fd);
	free(f);
	return 0;
}

static inline struct digest digest_of_text(const char *s, size_t len)
{
	struct err e = ERR_INIT;
	struct digest d;

	assert_int_equal(digest_bytes(DIGEST_SHA256, s, len, &d, &e), 0);
	return d;
}

/* Load a plan and digest its local inputs; the lock stays empty. */
static inline void fixture_load(const struct fixture *f, const char *text, enum arch arch, struct answered *ret)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	struct err e = ERR_INIT;

	*ret = (struct answered){ 0 };
	if (plan_load_bytes(f->fd, "p.toml", text, strlen(text), false, &ret->plan, &faults, &e) < 0)
		fail_msg("%s", e.message);
	if (plan_local_inputs(ret->plan, arch, &ret->locals, &e) < 0)
		fail_msg("%s", e.message);
	for (size_t i = 0; i < ret->locals.n; i++) {
		struct plan_local_input *input = &ret->locals.items[i];

		input->digest = digest_of_text(input->path, strcspn(input->path, "@"));
	}
}

/* Store answers to whatever the plan asks. Another `flavour` gives other answers. */
static inline void fixture_answer(struct answered *a, enum arch arch, const char *flavour)
{
	struct lock_blob blob = { .url = (char *)(uintptr_t) "https://me:secret@example.org/b?token=t",
		.size_bytes = 5,
		.sha256 = digest_of_text(flavour, strlen(flavour)),
		.trust = LOCK_TRUST_FIRST_USE };
	struct lock_package packages[] = {
		{ .name = (char *)(uintptr_t) "zlib1g", .version = (char *)(uintptr_t) "1:1.2-3+b1", .arch = (char *)(uintptr_t) "amd64",
			.size_bytes = 7, .sha256 = blob.sha256, .file = (char *)(uintptr_t) "pool/z/zlib.deb",
			.uri = (char *)(uintptr_t) "https://u:p@example.org/debian", .suite = (char *)(uintptr_t) "bookworm",
			.release = blob.sha256, .release_date = 1795162605 },
		{ .name = (char *)(uintptr_t) "adduser", .version = (char *)(uintptr_t) "3.1~x", .arch = (char *)(uintptr_t) "all",
			.sha256 = blob.sha256 },
	};
	struct lock_kernel kernel = { .kind = a->plan->kernel[arch].kind,
		.sha256 = blob.sha256,
		.archive = blob,
		.packages = packages,
		.n_packages = 1 };
	char *removed[] = { (char *)(uintptr_t) "systemd-timesyncd", NULL };
	struct lock_keyring keyrings[] = {
		{ .path = (char *)(uintptr_t) "/usr/share/keyrings/b.gpg", .sha256 = blob.sha256 },
		{ .path = (char *)(uintptr_t) "key.asc", .sha256 = blob.sha256 },
		{ .path = (char *)(uintptr_t) "/etc/apt/trusted.gpg.d/a.gpg", .sha256 = blob.sha256 },
	};
	const struct lock_packages answer = { .items = packages,
		.n = ARRAY_SIZE(packages),
		.removals = { .items = removed, .n = 1, .capacity = 2 },
		.keyrings = keyrings,
		.n_keyrings = ARRAY_SIZE(keyrings) };
	struct lock_blob base = blob;
	struct err e = ERR_INIT;
	unsigned sections;

	/* Answers are of the files that the plan pins. */
	base.sha512 = a->plan->base[arch].location.sha512;
	kernel.archive.sha512 = a->plan->kernel[arch].location.sha512;
	if (lock_set_base(&a->lock, a->plan, arch, &a->locals, &base, &e) < 0 ||
		lock_set_kernel(&a->lock, a->plan, arch, &a->locals, &kernel, &e) < 0 ||
		lock_set_packages(&a->lock, a->plan, arch, &a->locals, &answer, &e) < 0)
		fail_msg("%s", e.message);
	for (size_t i = 0; i < a->plan->n_files; i++) {
		_cleanup_free_ char *slot = NULL;

		if (!a->plan->files[i].location.url)
			continue;
		assert_true(asprintf(&slot, "files:%s", a->plan->files[i].destination.text) > 0);
		if (lock_set_source(&a->lock, a->plan, arch, slot, &blob, &e) < 0)
			fail_msg("%s", e.message);
	}
	for (size_t i = 0; i < a->plan->n_inputs; i++) {
		_cleanup_free_ char *slot = NULL;

		if (!a->plan->inputs[i].location.url)
			continue;
		assert_true(asprintf(&slot, "inputs:%s", a->plan->inputs[i].name) > 0);
		if (lock_set_source(&a->lock, a->plan, arch, slot, &blob, &e) < 0)
			fail_msg("%s", e.message);
	}
	assert_int_equal(lock_missing(a->plan, &a->lock, arch, &a->locals, &sections, &e), 0);
	assert_int_equal(sections, 0);
}

#endif
