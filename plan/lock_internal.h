/* What the parts of the lock share: copying and freeing its parts. Only lock*.c include this. */
#ifndef IMGBUILD_PLAN_LOCK_INTERNAL_H
#define IMGBUILD_PLAN_LOCK_INTERNAL_H

#include "plan/lock.h"

void lock_blob_release(struct lock_blob *b);
void lock_kernel_release(struct lock_kernel *k);
void lock_packages_release(struct lock_packages *p);
void lock_arch_release(struct lock_arch *a);

/* Sort packages by name, architecture and version. */
void lock_packages_sort(struct lock_package *items, size_t n);

/* Append the text of a lock whose architectures are given one by one. */
int lock_format_archs(const struct lock_arch *const archs[static ARCH_COUNT], struct buf *into, struct err *e);

/* Find what a slot names in the plan; NULL when there is no such [files] or [inputs] entry. */
const struct plan_location *lock_slot_location(const struct plan *p, const char *slot);

#endif
