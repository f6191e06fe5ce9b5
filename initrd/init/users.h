/* The image's users: passwd, group and shadow read and changed as text. Host name services do not exist in
 * this static program. */
#ifndef IMGBUILD_INIT_USERS_H
#define IMGBUILD_INIT_USERS_H

#include "initrd/init/command.h"

struct user_ids {
	uid_t uid;
	gid_t gid;
};

/* In a child with the bare image as root: read "user:group", names or numbers. */
int users_find_owner(const char *owner, struct user_ids *ret, struct fail *f);

/* password: "locked" (no password matches; keys still do), "empty", or a crypt(5) hash. */
int users_set_password(struct step_context *s, const char *user, const char *password, struct fail *f);

/* Replace the user's ~/.ssh/authorized_keys by src of the initrd. */
int users_put_keys(struct step_context *s, const char *user, const char *src, struct fail *f);

#endif
