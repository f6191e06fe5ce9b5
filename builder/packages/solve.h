/* The search for a set that holds together, by libsolv, where the marking pass alone did not find one; and the words for why
 * there is none.
 *
 * Only what can matter is given to libsolv: what is installed, and the candidates that can be reached from the requests. It
 * prefers what the pass proposes. Of libsolv only its core is used: libsolvext would bring librpm, sqlite and lua along.
 * SOURCE: libsolv's doc/libsolv-bindings.txt, 0.7. */
#ifndef IMGBUILD_BUILDER_PACKAGES_SOLVE_H
#define IMGBUILD_BUILDER_PACKAGES_SOLVE_H

#include "builder/packages/marks.h"

/* Replace the targets of m by a solution that is as close to them as can be.
 * Returns 0; -EUNATCH there is none, with the reasons in the message and the targets unchanged. */
int pkg_solve(struct pkg_marks *m, struct err *e) _must_check_;

#endif
