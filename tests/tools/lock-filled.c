/* Writes a lock of made answers beside a plan: lock-filled PLAN ARCH PACKAGES [NAME…]
 *
 * For what must be measured or compared with a lock of a certain size, and for plans that ask of an archive what no
 * archive here has. Every section that the plan asks for is answered, the packages by PACKAGES names that look like Debian's, and
 * by the NAMEs, each of which is always the same package. */
#include "builder/prepare.h"
#include "lib/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static struct digest digest_of(const char *kind, unsigned i)
{
	struct err e = ERR_INIT;
	struct digest d = { 0 };
	char text[64];
	int n = snprintf(text, sizeof(text), "%s %u", kind, i);

	(void)!digest_bytes(DIGEST_SHA256, text, (size_t)n, &d, &e);
	return d;
}

/* The strings are kept until the program ends. */
static char *text(const char *fmt, unsigned i)
{
	char *s;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	return asprintf(&s, fmt, i) < 0 ? NULL : s;
#pragma GCC diagnostic pop
}

static int answer_slots(struct prepared *p, const struct lock_blob *blob, struct err *e)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < p->plan->n_files; i++) {
		_cleanup_free_ char *slot = NULL;

		if (!p->plan->files[i].location.url)
			continue;
		if (asprintf(&slot, "files:%s", p->plan->files[i].destination.text) < 0)
			return -ENOMEM;
		r = lock_set_source(&p->lock, p->plan, p->arch, slot, blob, e);
	}
	for (size_t i = 0; r == 0 && i < p->plan->n_inputs; i++) {
		_cleanup_free_ char *slot = NULL;

		if (!p->plan->inputs[i].location.url)
			continue;
		if (asprintf(&slot, "inputs:%s", p->plan->inputs[i].name) < 0)
			return -ENOMEM;
		r = lock_set_source(&p->lock, p->plan, p->arch, slot, blob, e);
	}
	return r;
}

static int fill(struct prepared *p, unsigned numbered, char **names, unsigned n_names, struct err *e)
{
	unsigned n = numbered + n_names;
	static char url[] = "https://example.org/file", uri[] = "https://example.org/debian", suite[] = "bookworm";
	_cleanup_free_ struct lock_package *packages = calloc(n + 1, sizeof(*packages));
	struct lock_blob blob = { .url = url, .size_bytes = 1, .sha256 = digest_of("blob", 0), .trust = LOCK_TRUST_FIRST_USE };
	struct lock_kernel kernel = { .kind = p->plan->kernel[p->arch].kind, .sha256 = digest_of("kernel", 0), .archive = blob };
	const struct lock_packages answer = { .items = packages, .n = n };
	unsigned missing;
	int r = lock_missing(p->plan, &p->lock, p->arch, &p->locals, &missing, e);

	for (unsigned i = 0; i < n; i++)
		packages[i] = (struct lock_package){
			.name = i < numbered ? text("libpackage-of-debian%u", i) : strdup(names[i - numbered]),
			.version = text("1:2.%u-3+deb12u1", i < numbered ? i : 0),
			.arch = p->arch == ARCH_AMD64 ? text("amd64", i) : text("arm64", i),
			.size_bytes = 100000 + (i < numbered ? i : 0),
			.sha256 = i < numbered ? digest_of("package", i) : digest_of(names[i - numbered], 0),
			.file = text("pool/main/libp/libpackage-of-debian/libpackage-of-debian%u_2-3+deb12u1.deb", i < numbered ? i : 0),
			.uri = uri,
			.suite = suite,
			.release = digest_of("release", i < numbered ? i % 3 : 0),
			.release_date = 1795162605,
		};
	kernel.packages = packages;
	kernel.n_packages = n > 0 ? 1 : 0;
	if (r == 0 && (missing & LOCK_SECTION_BASE))
		r = lock_set_base(&p->lock, p->plan, p->arch, &p->locals, &blob, e);
	if (r == 0)
		r = lock_missing(p->plan, &p->lock, p->arch, &p->locals, &missing, e);
	if (r == 0 && (missing & LOCK_SECTION_KERNEL))
		r = lock_set_kernel(&p->lock, p->plan, p->arch, &p->locals, &kernel, e);
	if (r == 0 && lock_needs_packages(p->plan, p->arch))
		r = lock_set_packages(&p->lock, p->plan, p->arch, &p->locals, &answer, e);
	if (r == 0)
		r = answer_slots(p, &blob, e);
	if (r == 0)
		r = lock_write(AT_FDCWD, p->lock_path, &p->lock, p->arch, e);
	for (unsigned i = 0; i < n; i++) {
		free(packages[i].name);
		free(packages[i].version);
		free(packages[i].arch);
		free(packages[i].file);
	}
	return r;
}

int main(int argc, char **argv)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_prepared_ struct prepared p = { 0 };
	struct err e = ERR_INIT;
	int r;

	if (argc < 4) {
		(void)fprintf(stderr, "usage: lock-filled PLAN amd64|arm64 PACKAGES [NAME…]\n");
		return 2;
	}
	r = prepared_load(argv[1], strcmp(argv[2], "arm64") == 0 ? ARCH_ARM64 : ARCH_AMD64, false, NULL, NULL, &p, &faults, &e);
	if (r == 0)
		r = fill(&p, (unsigned)strtoul(argv[3], NULL, 10), argv + 4, (unsigned)(argc - 4), &e);
	if (r < 0)
		(void)fprintf(stderr, "lock-filled: %s\n", e.message);
	return r < 0;
}
