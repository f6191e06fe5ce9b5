/* What the parts of the lock share: copying and freeing its parts. Only lock*.c include this. */
#ifndef IMGBUILD_PLAN_LOCK_INTERNAL_H
#define IMGBUILD_PLAN_LOCK_INTERNAL_H

#include "plan/lock.h"

#define LOCK_MAX_HINT_BYTES 4096
#define LOCK_MAX_KEYRINGS 256
#define LOCK_DATE_MAX INT64_C(253402300799) /* 9999-12-31T23:59:59Z */

void lock_blob_release(struct lock_blob *b);
void lock_kernel_release(struct lock_kernel *k);
void lock_packages_release(struct lock_packages *p);
void lock_arch_release(struct lock_arch *a);

/* Has it no section at all? */
bool lock_arch_is_empty(const struct lock_arch *a);

/* Sort packages by name, architecture and version. */
void lock_packages_sort(struct lock_package *items, size_t n);

/* Sort keyrings by path. */
void lock_keyrings_sort(struct lock_keyring *items, size_t n);

/* Append the text of a lock whose architectures are given one by one. */
int lock_format_archs(const struct lock_arch *const archs[static ARCH_COUNT], struct buf *into, struct err *e);

/* Does the plan's base, its kernel, or one of its [files] and [inputs] need the lock: is it neither local nor pinned by SHA-256? */
bool lock_needs_base(const struct plan *p, enum arch arch);
bool lock_needs_kernel(const struct plan *p, enum arch arch);
bool lock_needs_location(const struct plan_location *l);

#endif
