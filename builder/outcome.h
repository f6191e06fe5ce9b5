/* What a boot left behind, judged and written down: the host's own reading of the image, and the manifest.
 *
 * The guest's word is not enough: after a passed verdict the host reads the image with its own ext4 code and holds it against
 * the plan. One thread; everything is borrowed. */
#ifndef IMGBUILD_BUILDER_OUTCOME_H
#define IMGBUILD_BUILDER_OUTCOME_H

#include "builder/assemble.h"
#include "builder/events.h"
#include "builder/installed.h"
#include "builder/manifest.h"
#include "builder/vm/vm.h"

/* All that the manifest tells of. What a failed build never got to is NULL or empty. */
struct outcome {
	const struct prepared *p;
	const struct root *root;
	const struct boot_kernel *kernel;
	const struct debs *debs;
	const struct assembled *assembled;
	const struct vm_result *vm;
	const struct strv *notes;	    /* of the guest */
	const struct events *events;	    /* for how long the stages took */
	const struct installed *installed;  /* in the finished image; NULL for a failed build */
	int image_fd;			    /* -1: none */
	uint32_t memory_mib;
	const struct err *failure;	    /* NULL: it passed */
};

/* Check the finished image: a clean filesystem of the promised size, every package of the lock whole and in its version,
 * nothing half-installed, removed packages gone. With a setup script, what differs from the lock is its doing and becomes a
 * note. `installed` is filled in. Returns 0, or -EBADMSG (kind guest) with what is wrong. */
int outcome_check_image(int image_fd, const struct prepared *p, const struct debs *debs, struct installed *installed,
	struct strv *notes, struct err *e) _must_check_;

/* Make the manifest's text. files_dirfd: the entry's folder, whose files but the image are digested as far as they are there. */
int outcome_write_manifest(const struct outcome *o, int files_dirfd, char **ret_text, size_t *ret_len, struct err *e)
	_must_check_;

#endif
