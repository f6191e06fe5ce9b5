/* Make entries of a cache without booting anything, through the builder's own writers and the store's publisher:
 *
 *     cache-entry publish CACHE PLAN ARCH [failed] [FILE=TEXT…]   an entry (or failed build) of the plan's key; further files go in, or in
 *                                                          the place of those that are written. Prints its path
 *     cache-entry lock PLAN ARCH [@base=URL TEXT] [@kernel=NAME VERSION | @member=NAME TEXT] [NAME=VERSION[=TEXT]…] [-NAME…]
 *                                                          a lock that answers what the plan asks: the base and the kernel with TEXT for
 *                                                          its bytes, these packages, and those removed */
#include "builder/companions.h"
#include "builder/manifest.h"
#include "cache/publish.h"
#include "lib/io.h"
#include "plan/epoch.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int fail(const struct err *e)
{
	(void)fprintf(stderr, "cache-entry: %s\n", e->message);
	return 1;
}

static int load(const char *plan, const char *arch_name_given, struct prepared *p, struct err *e)
{
	struct plan_faults faults = { 0 };
	enum arch arch;
	int r = arch_parse(arch_name_given, &arch);

	r = r < 0 ? err_set(e, r, "no architecture: %s", arch_name_given) : prepared_load(plan, arch, false, NULL, NULL, p, &faults, e);
	plan_faults_release(&faults);
	return r;
}

static int publish(const char *cache, const char *plan, const char *arch, char **more, struct err *e)
{
	_cleanup_publisher_ struct publisher *publisher = NULL;
	_cleanup_temp_folder_ struct temp_folder folder = TEMP_FOLDER_INIT;
	_cleanup_prepared_ struct prepared p = { 0 };
	_cleanup_free_ char *path = NULL, *manifest = NULL;
	bool failed = *more && strcmp(*more, "failed") == 0;
	char hex[DIGEST_HEX_SIZE];
	json_t *object;
	size_t len = 0;
	int r = load(plan, arch, &p, e);

	if (r == 0 && p.key_error)
		r = err_set(e, -ENOKEY, "%s", p.key_reason);
	if (r == 0)
		r = publisher_open(cache, &publisher, e);
	if (r == 0)
		r = temp_folder_new(publisher, "test", &folder, e);
	if (r == 0)
		r = companions_write_texts(folder.fd, &p, NULL, e);
	if (r == 0)
		r = companions_write_plan(folder.fd, &p, e);
	if (r < 0)
		return r;
	object = json_pack("{s:i, s:s, s:i, s:s, s:s?, s:O, s:[]}", "version", MANIFEST_VERSION, "key", digest_hex(&p.key, hex), "epoch",
		IMGBUILD_EPOCH, "arch", arch, "name", p.plan->name, "inputs", p.document, "installed");
	manifest = manifest_format(object, &len);
	json_decref(object);
	for (more += failed; r == 0 && *more; more++) {
		char *text = strchr(*more, '=');

		*text++ = '\0';
		if (strcmp(*more, STORE_MANIFEST) == 0) {
			free(manifest);
			manifest = strdup(text);
			len = strlen(text);
			continue;
		}
		(void)unlinkat(folder.fd, *more, 0);
		if (*text)
			r = write_file_atomic_at(folder.fd, *more, text, strlen(text), 0644, e);
	}
	if (r == 0)
		r = failed ? publish_failed(&folder, &p.key, manifest, len, &path, e) :
			     publish_entry(&folder, &p.key, manifest, len, &path, NULL, e);
	if (r == 0)
		(void)puts(path);
	return r;
}

static int digest_text(const char *text, struct digest *ret, struct err *e)
{
	return digest_bytes(DIGEST_SHA256, text, strlen(text), ret, e);
}

/* Answer for the base or the kernel: what is behind the "@", and the argument after it. */
static int answer(struct prepared *p, char *what, char *text, struct err *e)
{
	char *value = strchr(what, '=');
	struct lock_blob blob = { .url = (char *)(uintptr_t) "https://example.org/archive.tar", .size_bytes = 5, .trust = LOCK_TRUST_FIRST_USE };
	struct lock_package package = { .version = text, .arch = (char *)(uintptr_t)arch_name(p->arch) };
	struct lock_kernel kernel = { .kind = p->plan->kernel[p->arch].kind, .packages = &package };
	int r = digest_text(text, &blob.sha256, e);

	*value++ = '\0';
	kernel.archive = blob;
	kernel.sha256 = package.sha256 = blob.sha256;
	package.name = value;
	kernel.n_packages = strcmp(what, "@kernel") == 0;
	kernel.member = value;
	if (r < 0 || strcmp(what, "@base") != 0)
		return r < 0 ? r : lock_set_kernel(&p->lock, p->plan, p->arch, &p->locals, &kernel, e);
	blob.url = value;
	return lock_set_base(&p->lock, p->plan, p->arch, &p->locals, &blob, e);
}

static int write_lock(const char *plan, const char *arch, char **more, struct err *e)
{
	_cleanup_prepared_ struct prepared p = { 0 };
	struct lock_package items[64] = { { .name = NULL } };
	struct lock_packages packages = { .items = items };
	int r = load(plan, arch, &p, e);

	for (; r == 0 && *more && packages.n < ARRAY_SIZE(items); more++) {
		struct lock_package *item = &items[packages.n];
		char *version = strchr(*more, '='), *bytes;

		if (**more == '@') {
			r = answer(&p, more[0], more[1], e);
			more++;
			continue;
		}
		if (**more == '-') {
			r = strv_add(&packages.removals, *more + 1);
			continue;
		}
		*version++ = '\0';
		bytes = strchr(version, '=');
		if (bytes)
			*bytes++ = '\0';
		*item = (struct lock_package){ .name = *more, .version = version, .arch = (char *)(uintptr_t)arch };
		bytes = bytes ? bytes : version;
		r = digest_bytes(DIGEST_SHA256, bytes, strlen(bytes), &item->sha256, e);
		packages.n++;
	}
	if (r == 0 && lock_needs_packages(p.plan, p.arch))
		r = lock_set_packages(&p.lock, p.plan, p.arch, &p.locals, &packages, e);
	if (r == 0)
		r = lock_write(AT_FDCWD, p.lock_path, &p.lock, p.arch, e);
	strv_release(&packages.removals);
	return r;
}

int main(int argc, char **argv)
{
	struct err e = ERR_INIT;
	int r = -1;

	if (argc >= 5 && strcmp(argv[1], "publish") == 0)
		r = publish(argv[2], argv[3], argv[4], argv + 5, &e);
	else if (argc >= 4 && strcmp(argv[1], "lock") == 0)
		r = write_lock(argv[2], argv[3], argv + 4, &e);
	else
		(void)err_set(&e, -EINVAL, "usage: cache-entry publish CACHE PLAN ARCH … | lock PLAN ARCH …");
	return r < 0 ? fail(&e) : 0;
}
