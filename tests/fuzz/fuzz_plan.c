/* Any bytes as a plan: no crash, faults exactly when it is refused, and a plan that loads has a key or says what its lock
 * lacks. */
#include "lib/cleanup.h"
#include "plan/key.h"

#include <assert.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What digesting the local files would give. Whether they exist is not asked: this opens nothing. */
static void try_key(const struct plan *p, enum arch arch)
{
	const struct plan_local_inputs none = { 0 };
	const struct lock lock = { 0 };
	struct err e = ERR_INIT;
	struct digest key;
	unsigned sections;
	int r = key_compute(p, &lock, arch, &none, &key, NULL, &e);

	assert(r == 0 || r == -ENOKEY || r == -EINVAL);
	assert(r == 0 || e.message[0]);
	e = (struct err)ERR_INIT;
	r = lock_missing(p, &lock, arch, &none, &sections, &e);
	assert(r == 0 || r == -EINVAL);
	if (r == 0) {
		_cleanup_strv_ struct strv reasons = { 0 };

		r = lock_explain(p, &lock, arch, &none, &reasons, &e);
		assert(r == 0 && (reasons.n > 0) == (sections != 0));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	_cleanup_plan_ struct plan *p = NULL;
	struct plan_schema_field field;
	struct err e = ERR_INIT;
	int r = plan_load_bytes(AT_FDCWD, "fuzz.toml", (const char *)data, size, size % 2 == 0, &p, &faults, &e);

	assert((r == -EINVAL) == (faults.n_faults > 0));
	assert((r == 0) == (p != NULL));
	for (size_t i = 0; i < faults.n_faults; i++)
		assert(faults.faults[i].message[0]);
	if (p) {
		assert(plan_schema_field(0, &field));
		for (unsigned a = 0; a < ARCH_COUNT; a++)
			try_key(p, (enum arch)a);
	}
	return 0;
}
