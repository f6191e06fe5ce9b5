/* The files of one /lib/modules/RELEASE: in a folder of the host, or in an ext filesystem.
 *
 * A tree knows the sorted relative paths of its regular files ("kernel/fs/ext4/ext4.ko.xz", "modules.builtin") and reads one
 * of them into memory. Links (`build`, `source`) and whatever else is no regular file are not in it. A folder is held
 * by a descriptor of the tree's own; a filesystem is borrowed and must outlive the tree. One tree belongs to one thread.
 *
 * Errors: -ENOENT the folder or the file is not there; -E2BIG a limit; those of reading. Wrong bytes are
 * ERR_KIND_INPUT. */
#ifndef IMGBUILD_KERNELS_MODULE_TREE_H
#define IMGBUILD_KERNELS_MODULE_TREE_H

#include "builder/ext4/ext4.h"
#include "lib/buf.h"
#include "lib/digest.h"
#include "lib/strv.h"

#define MODULE_TREE_FILES_MAX (1u << 16)
#define MODULE_TREE_DEPTH_MAX 32
#define MODULE_FILE_MAX_BYTES (256u << 20) /* one file as it is stored */

struct module_tree; /* opaque */

/* Open the modules in the folder dirfd (lent; the tree keeps a descriptor of its own). The folder is that of one release
 * (it holds `kernel`, modules.order or modules.builtin), or one into which modules were installed: lib/modules/RELEASE or
 * usr/lib/modules/RELEASE beneath it, or RELEASE itself beneath it.
 * release  which one to take; "" or NULL: the only one there
 * Returns 0; -ENOENT none of that release (the message lists what is there); -ENOTUNIQ several and no release given. */
int module_tree_open_dir(int dirfd, const char *release, struct module_tree **ret, struct err *e) _must_check_;

/* Open the modules in folder `path` of fs (borrowed). -ENOENT: it is not there. */
int module_tree_open_ext4(struct ext4 *fs, const char *path, struct module_tree **ret, struct err *e) _must_check_;

void module_tree_free(struct module_tree *t); /* NULL is fine */
static inline void module_tree_freep(struct module_tree **t)
{
	module_tree_free(*t);
}
#define _cleanup_module_tree_ _cleanup_(module_tree_freep)

/* The sorted paths; borrowed. */
const struct strv *module_tree_paths(const struct module_tree *t);

/* Whether the tree has that very path. */
bool module_tree_has(const struct module_tree *t, const char *path);

/* The folder's descriptor, for adding it to an initrd; -1 when the modules are in a filesystem. Borrowed. */
int module_tree_dirfd(const struct module_tree *t);

/* Append the bytes of one file, as they are stored, to *into. */
int module_tree_read(struct module_tree *t, const char *path, struct buf *into, struct err *e) _must_check_;

/* Digest of all paths and contents: SHA-256 over "<path>\0<sha256 hex>\n" of each file in order. */
int module_tree_digest(struct module_tree *t, struct digest *ret, struct err *e) _must_check_;

#endif
