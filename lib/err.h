/* An error with its context, owned by the caller.
 *
 * Functions that can fail return 0 or a negative errno and take a `struct err *e` as their last argument. The
 * struct has a fixed size and allocates nothing, so that reporting an error cannot fail. Exactly one of three
 * things is done with an error: it is handled, wrapped with what was being done (err_wrap), or returned.
 *
 *     if (fd < 0)
 *             return err_set(e, -errno, "cannot open the base image `%s`", path);
 *     r = qcow_open(fd, &q, e);
 *     if (r < 0)
 *             return err_wrap(e, "reading the base image `%s`", path);
 *
 * A message says what was attempted, on which object, what was found, what was expected and what to do. It is
 * one line without a final full stop; control characters are replaced when it is set, since parts of it come
 * from strangers. `e` is never NULL. A struct err needs no release; initialise it with ERR_INIT or `= { 0 }`. */
#ifndef IMGBUILD_LIB_ERR_H
#define IMGBUILD_LIB_ERR_H

#include "lib/cleanup.h"

#include <stdbool.h>

#define ERR_MESSAGE_MAX_BYTES 2048

/* Whose fault it is, which decides the exit status of the program (DESIGN: exit). */
enum err_kind {
	ERR_KIND_UNSET = 0, /* nobody has said; see err_exit_status() */
	ERR_KIND_GUEST = 1, /* the guest said no: a package or the setup script failed */
	ERR_KIND_USAGE = 2, /* the command line or the plan is wrong */
	ERR_KIND_INPUT = 3, /* an input could not be had or did not match its digest or signature */
	ERR_KIND_HOST = 4,  /* no QEMU, no space, a VM that hung or died */
	ERR_KIND_DEFECT = 5 /* a defect of imgbuild */
};

struct err {
	int code;	    /* negative errno; 0 while nothing was set */
	enum err_kind kind; /* the first one said wins */
	char origin[48];    /* file:line where it was set */
	char message[ERR_MESSAGE_MAX_BYTES];
};

#define ERR_INIT                                                                                             \
	{                                                                                                    \
		.code = 0                                                                                    \
	}

/* Set the error and return its code, in one line. `code` is a negative errno. What was in *e is replaced, but for
 * its kind. `code` may use errno, which is read before anything else. A strerror text is not added: say in words
 * what is wrong, or use err_set_errno(). */
#define err_set(e, code, ...) err_negative(err_set_at((e), (code), __FILE__, __LINE__, __VA_ARGS__))

/* The same, and ": <strerror text>" is added to the message. */
#define err_set_errno(e, code, ...) err_negative(err_set_errno_at((e), (code), __FILE__, __LINE__, __VA_ARGS__))

/* Set the error together with its kind. */
#define err_set_kind(e, kind, code, ...)                                                                     \
	err_negative(err_set_kind_at((e), (kind), (code), __FILE__, __LINE__, __VA_ARGS__))

/* Tell the compiler that the code of an error is negative, or it warns of ret_* that were not written. */
static inline int err_negative(int code)
{
	if (code >= 0)
		__builtin_unreachable();
	return code;
}

/* What the macros above call. */
int err_set_at(struct err *e, int code, const char *file, int line, const char *fmt, ...) _printf_(5, 6);
int err_set_errno_at(struct err *e, int code, const char *file, int line, const char *fmt, ...) _printf_(5, 6);
int err_set_kind_at(struct err *e, enum err_kind kind, int code, const char *file, int line, const char *fmt, ...)
	_printf_(6, 7);

/* Put what was being done in front of the message ("reading x: <message>") and return the code. */
int err_wrap(struct err *e, const char *fmt, ...) _printf_(2, 3);

/* Say whose fault it is unless somebody closer to the cause already has. A host that is out of space, memory or descriptors (ENOSPC,
 * EDQUOT, EFBIG, ENOMEM, EROFS, EMFILE, ENFILE) stays the host's fault, whatever was being done. Returns e->code. */
int err_default_kind(struct err *e, enum err_kind kind);

/* Forget the error, its kind included. */
void err_clear(struct err *e);

/* The exit status for the program. Errors without a kind: those of a host in trouble (as above, and EIO, EACCES, EPERM) are 4, everything
 * else 5. */
int err_exit_status(const struct err *e);

/* Copy at most dst_size-1 bytes of src (len bytes), control characters and invalid UTF-8 replaced by '?', so that the
 * text can go to a terminal or a log. Always terminated. Returns dst. */
char *err_sanitize(char *dst, size_t dst_size, const char *src, size_t len);

#endif
