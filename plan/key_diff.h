/* What differs between two key documents, input by input: the answer to "why is it another image?".
 *
 * Pure: two documents in, a sorted list of changes out. Either may come from a stranger or from another version of this
 * program. Nothing is missed: the list is empty exactly when the documents and the epochs are equal. What this version
 * does not know, and what is not of the form it expects, is compared as JSON and listed under its name (KEY_INPUT_OTHER, or the
 * input with an empty field).
 *
 * A change owns its strings and holds references to values of the documents, which must not be changed afterwards. */
#ifndef IMGBUILD_PLAN_KEY_DIFF_H
#define IMGBUILD_PLAN_KEY_DIFF_H

#include "lib/err.h"
#include "plan/key.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum key_input {
	KEY_INPUT_EPOCH = 0,
	KEY_INPUT_ARCH,
	KEY_INPUT_BASE,	   /* fields sha256, partition */
	KEY_INPUT_KERNEL,  /* fields sha256, modules */
	KEY_INPUT_PACKAGE, /* name "podman", or "libc6:i386" of a foreign architecture; field version, else arch, else sha256 */
	KEY_INPUT_REMOVAL, /* name of the package; field purge */
	KEY_INPUT_DEB,	   /* name: the SHA-256 of a local package */
	KEY_INPUT_FILE,	   /* name: the path; fields content, mode, owner, group */
	KEY_INPUT_INPUT,   /* name; fields content, executable */
	KEY_INPUT_USER,	   /* name; fields authorized_keys (one key a change), password */
	KEY_INPUT_SERVICE, /* name: the unit; the values are arrays of "enable", "disable", "mask" */
	KEY_INPUT_FSTAB,   /* fields remove_patterns (one a change), keep */
	KEY_INPUT_CLEANUP, /* name: the pattern */
	KEY_INPUT_SETUP,   /* the digest of the script, or null */
	KEY_INPUT_IMAGE,   /* fields size, label, hostname */
	KEY_INPUT_OTHER	   /* name: the path of an unknown member, "a.b.c" */
};
#define KEY_INPUT_COUNT (KEY_INPUT_OTHER + 1)

struct key_change {
	enum key_input input;
	char *name;	   /* which one; "" where there is only one, or when all of them were compared as a whole */
	char *field;	   /* what of it; "" when it is there on one side only, or is not of the expected form */
	json_t *old_value; /* NULL: not there. The content of a file is its digest, or {"tree": digest} */
	json_t *new_value;
};

/* Sorted by input, name and field, and of one field what is gone before what is new. */
struct key_changes {
	struct key_change *items;
	size_t n, capacity;
};

void key_changes_release(struct key_changes *c);
#define _cleanup_key_changes_ _cleanup_(key_changes_release)

/* One side: a document (borrowed) and the epoch it is hashed with. */
struct key_side {
	const json_t *document;
	int64_t epoch;
};

/* List what differs.
 * gaps  parts that the new document lacks because they are not known (key_draft()): they are no difference. NULL: none
 * ret   a zeroed or released struct, released by the caller in every case
 * Returns 0 or -ENOMEM. */
int key_diff(const struct key_side *old_side, const struct key_side *new_side, const struct key_gaps *gaps,
	struct key_changes *ret, struct err *e) _must_check_;

/* The word for an input: "package". */
const char *key_input_name(enum key_input input);

/* Count the inputs that differ, each once however many of its fields do. */
size_t key_changes_count_inputs(const struct key_changes *c);

#endif
