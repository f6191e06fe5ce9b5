/* A file that a person asked for by name: it appears whole or not at all.
 *
 *     r = new_file_open(path, &f, e);       // refused when something has that name
 *     … write to f.fd …
 *     r = new_file_finish(&f, e);           // now it has its name
 *
 * Until it is finished it has no name where the filesystem can do so (O_TMPFILE), else one beside the final one that new_file_release()
 * removes. Nothing is replaced, whoever makes a file of that name meanwhile. Made with the user's umask; not synced to disk.
 * Errors: kind usage with -EEXIST, kind host for the rest. One thread. */
#ifndef IMGBUILD_LIB_NEWFILE_H
#define IMGBUILD_LIB_NEWFILE_H

#include "lib/err.h"

struct new_file {
	int fd;		  /* owned, for reading and writing; -1 after new_file_finish() */
	const char *path; /* borrowed from the caller */
	char *temporary;  /* its name until then; NULL: it has none */
};

#define NEW_FILE_INIT                                                                                        \
	{                                                                                                    \
		.fd = -1                                                                                     \
	}

/* Begin a file that shall be called path, which is borrowed until release. */
int new_file_open(const char *path, struct new_file *ret, struct err *e) _must_check_;

/* Close it and give it its name. */
int new_file_finish(struct new_file *f, struct err *e) _must_check_;

/* Drop what was not finished. Safe to call twice. */
void new_file_release(struct new_file *f);
#define _cleanup_new_file_ _cleanup_(new_file_release)

#endif
