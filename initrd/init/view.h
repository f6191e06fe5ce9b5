/* What a step sees of the world: the image as its root, a small /dev, fresh /proc, read-only /sys, /run and
 * /tmp in memory, the payload of the initrd read-only at /run/imgbuild/initrd, and in the setup step the
 * inputs at /imgbuild/inputs.
 *
 * scaffold_* runs in init, around the step, and changes the image: mount points and a policy-rc.d that keeps
 * services from starting are made and taken away again. view_* runs in the step's first process, in its own
 * mount namespace. */
#ifndef IMGBUILD_INIT_VIEW_H
#define IMGBUILD_INIT_VIEW_H

#include "initrd/init/util.h"

#include <sys/types.h>
#include <time.h>

#define STUBS_PATH "/run/imgbuild/bin"
#define PAYLOAD_PATH "/run/imgbuild/initrd"

/* What was put into the image for a step and must go again. */
struct scaffold {
	bool made_imgbuild, made_inputs;
	bool made_policy;
	ino_t policy_inode;
	struct timespec policy_mtime; /* an inode's number is given again, and a file can be written anew */
};

/* Make what a step needs in the image. with_inputs: the mount point of the inputs too. */
int scaffold_make(struct scaffold *s, bool with_inputs, struct fail *f);
/* Take it away again, as far as it is still what was made. */
void scaffold_remove(const struct scaffold *s);

/* The two roots that a step's first process keeps open (close-on-exec). */
struct view {
	int bare_fd;   /* the image without anything mounted over it: where files are written */
	int initrd_fd; /* the root of the initrd, writable */
};

/* Enter the view: mount, change root, and give up the capabilities that a step must not have. The caller is
 * in a mount namespace of its own. */
int view_enter(bool with_inputs, struct view *ret, struct fail *f);

#endif
