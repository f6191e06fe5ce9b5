/* In which order dpkg is told to do things.
 *
 * From the base's dpkg status, the control texts of the .debs and the removals, pkg_order() computes a short list
 * of dpkg runs: as few and as large as possible, since each costs seconds in an emulated guest. It needs no network and no
 * solver, so it serves sets that come from a lock as well.
 *
 * How each operation is to be run, by init (with the options common to all runs, --force-confdef --force-confold
 * --force-unsafe-io --auto-deconfigure):
 *   PKG_OP_REMOVE             dpkg --force-depends --force-remove-protected --remove NAMES
 *   PKG_OP_PURGE              the same with --purge
 *   PKG_OP_UNPACK             dpkg --unpack FILES, in the order given
 *   PKG_OP_CONFIGURE          dpkg --configure NAMES
 *   PKG_OP_CONFIGURE_PENDING  dpkg --configure --pending; always the last
 * --force-depends on removals: what depended on the removed package is served by one that comes in later in the run; that
 * the end is whole is checked after it (dpkg --audit, and the host's reading of the status file).
 *
 * What holds of the list: every item is unpacked exactly once; when it is, its Pre-Depends are configured (or were
 * before, and both versions satisfy them); what it conflicts with was removed, or replaced by the version that goes in.
 * A cycle through Pre-Depends cannot be ordered and is -ELOOP with its members named.
 *
 * Ownership: texts are borrowed for the call; struct pkg_ops owns what it holds. SOURCE: Debian policy 6.6 and 7.2. */
#ifndef IMGBUILD_BUILDER_PACKAGES_ORDER_H
#define IMGBUILD_BUILDER_PACKAGES_ORDER_H

#include "lib/err.h"
#include "lib/strv.h"

#include <stdbool.h>

enum pkg_op_kind { PKG_OP_REMOVE = 0, PKG_OP_PURGE, PKG_OP_UNPACK, PKG_OP_CONFIGURE, PKG_OP_CONFIGURE_PENDING };

struct pkg_op {
	enum pkg_op_kind kind;
	struct strv names;	/* REMOVE, PURGE, CONFIGURE: names for dpkg's command line; UNPACK: for people */
	size_t *items;		/* UNPACK, CONFIGURE: indices into the caller's array, n_items of them; else NULL */
	size_t n_items;
};

struct pkg_ops {
	struct pkg_op *ops;
	size_t n;
};

/* One .deb that goes in. */
struct pkg_order_item {
	const char *name;	/* for messages */
	const char *control;	/* the text of its control file (deb_read_control) */
	size_t control_len;
};

/* One package that goes out. */
struct pkg_order_removal {
	const char *name;
	bool purge;
};

/* Compute the list.
 * status       the base's /var/lib/dpkg/status, status_len bytes; may be empty
 * arch         Debian's name of the base's architecture
 * ret          written only on success; to be released with pkg_ops_release()
 * Returns 0; -EBADMSG a text does not parse; -ELOOP; -ENOMEM. */
int pkg_order(const char *arch, const void *status, size_t status_len, const struct pkg_order_item *items, size_t n_items,
	const struct pkg_order_removal *removals, size_t n_removals, struct pkg_ops *ret, struct err *e) _must_check_;

/* Free what the list owns and empty it; may be called twice. */
void pkg_ops_release(struct pkg_ops *ops);
#define _cleanup_pkg_ops_ _cleanup_(pkg_ops_release)

/* The dpkg verb for an operation: "remove", "purge", "unpack", "configure", "configure-pending". */
const char *pkg_op_kind_name(enum pkg_op_kind kind);

#endif
