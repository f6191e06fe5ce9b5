/* Reads the job of initrd/protocol.h: verbs with decoded fields. Everything is checked before anything runs.
 */
#ifndef IMGBUILD_INIT_JOB_H
#define IMGBUILD_INIT_JOB_H

#include "initrd/init/util.h"

enum verb_kind {
	VERB_CLOCK,
	VERB_MODULE,
	VERB_ROOT,
	VERB_GROW,
	VERB_LABEL,
	VERB_STEP,
	VERB_DPKG_REMOVE,
	VERB_DPKG_PURGE,
	VERB_DPKG_UNPACK,
	VERB_DPKG_CONFIGURE,
	VERB_TREE,
	VERB_FILE,
	VERB_DEPMOD,
	VERB_ENABLE,
	VERB_DISABLE,
	VERB_MASK,
	VERB_PASSWORD,
	VERB_AUTHORIZED_KEYS,
	VERB_RUN,
	VERB_REMOVE,
	VERB_FORGET_IDENTITY,
	VERB_BOOT,
};

struct verb {
	enum verb_kind kind;
	const char *name; /* as written, for messages */
	char **fields;    /* decoded, followed by NULL, so that they serve as the tail of an argv */
	size_t n;
};

struct job {
	struct verb *verbs;
	size_t n;
};

/* Read the job at path of the initrd. It lives as long as the program. Returns 0, or -1 with the failure. */
int job_read(const char *path, struct job *ret, struct fail *f);

#endif
