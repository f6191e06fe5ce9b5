/* Changes to the image's files. All of them happen in a child whose root is the bare image, so that a link in
 * the image cannot lead out of it, and nothing lands in what a step mounts over it. */
#ifndef IMGBUILD_INIT_FILES_H
#define IMGBUILD_INIT_FILES_H

#include "initrd/init/command.h"

/* Write src of the initrd to dest. mode: octal text; owner: "user:group". */
int files_put(struct step_context *s, const char *dest, const char *mode, const char *owner, const char *src,
	struct fail *f);

/* Copy the folder src of the initrd into dest, adding to what is there. */
int files_put_tree(struct step_context *s, const char *dest, const char *src, struct fail *f);

/* Remove what the absolute pattern matches, recursively. */
int files_remove(struct step_context *s, const char *pattern, struct fail *f);

/* Empty /etc/machine-id, remove seeds of random numbers, and empty or remove what differs from one build to
 * the next. */
int files_forget_identity(struct step_context *s, struct fail *f);

/* In such a child: make the folders above path (0755), and write a file by a temporary name and rename. */
int files_make_parents(const char *path, struct fail *f);
int files_replace(const char *path, mode_t mode, uid_t uid, gid_t gid, int src_fd, const char *bytes,
	size_t len, struct fail *f);

#endif
