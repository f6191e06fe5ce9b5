/* All files that locks name, gathered in a folder from which their plans can be built without any network: a store of blobs for
 * --blobs, as a folder or served by any web server.
 *
 *     DIR/sha256/<hex>   the files
 *     DIR/SHA256SUMS     for `sha256sum -c`
 *     DIR/index.tsv      what each of them is, for people: sha256, size, architecture, name, version, where from
 *
 * Order: vendor_add() for each architecture, once its lock answers; vendor_fetch(), which gets into the cache what it lacks, and names all
 * that cannot be had; vendor_write(). Local inputs of a plan are not among the files: they are in its checkout.
 *
 * A folder may serve several plans: what is there and right stays, what is there and wrong is replaced (and said), what is there for
 * another plan is left alone and stays in both lists. Each file appears whole or not at all, and is a copy of its own (a reflink where the
 * filesystem can). Processes may write into one folder at the same time.
 * Ownership: a zeroed struct vendor is empty and valid; vendor_release(). One thread. */
#ifndef IMGBUILD_BUILDER_VENDOR_H
#define IMGBUILD_BUILDER_VENDOR_H

#include "builder/fetch_list.h"

struct vendor {
	struct fetch_list wanted;
	struct vendor_file *files; /* sorted by digest in the end */
	size_t n, capacity;
};

struct vendored {
	size_t n_files;	   /* of these plans, each digest once */
	size_t n_added, n_replaced;
	uint64_t size_bytes; /* of all n_files */
};

/* Add everything that the lock of p names; it must answer. */
int vendor_add(struct vendor *v, const struct build_env *env, const struct prepared *p, struct err *e) _must_check_;

/* Fetch into the cache what it lacks. */
int vendor_fetch(struct vendor *v, const struct build_env *env, struct err *e) _must_check_;

/* Write the files into the folder `dir` (made when it is missing), each checked. Returns 0; -EBADMSG a file of the cache is damaged; an
 * error of the host. */
int vendor_write(struct vendor *v, const struct build_env *env, const char *dir, struct vendored *ret, struct err *e)
	_must_check_;

void vendor_release(struct vendor *v);
#define _cleanup_vendor_ _cleanup_(vendor_release)

#endif
