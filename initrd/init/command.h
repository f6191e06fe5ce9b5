/* Running one program inside a step, and what a step's verbs share. */
#ifndef IMGBUILD_INIT_COMMAND_H
#define IMGBUILD_INIT_COMMAND_H

#include "initrd/init/util.h"
#include "initrd/init/view.h"

/* A message from the step's first process to init. Fixed size, over a SOCK_SEQPACKET pair. */
enum message_kind { MESSAGE_PROGRESS = 1, MESSAGE_NOTE, MESSAGE_FAIL };

struct message {
	uint32_t kind;
	uint32_t done, total;
	struct fail fail; /* MESSAGE_FAIL: the failure; else only its text is used */
};

/* The state of the step's first process. */
struct step_context {
	const char *name;
	int control_fd; /* messages to init */
	int output_fd;  /* what programs write to stdout and stderr */
	struct view view;
	char hostname[65];
	int64_t clock_seconds;                              /* -1: not set by the job */
	unsigned unpack_total, unpack_done, configure_done; /* packages of the whole step, for the progress */
	char **environment;
};

/* Build the environment of the step's programs. */
int command_environment(struct step_context *s, struct fail *f);

/* Run argv to its end. Each line it writes to the descriptor line_fd_number (in the child; -1: none) is given
 * to on_line. The lines are text without their newline. Returns the wait status, or -1 when it could not be
 * started (described in f). */
int command_run(struct step_context *s, char *const *argv, int line_fd_number,
	void (*on_line)(void *, char *), void *opaque, struct fail *f);

/* Run argv and make a failure of a status other than 0. */
int command_must(struct step_context *s, char *const *argv, struct fail *f);

/* Run f(opaque) in a child that has the bare image as its root (s->view.bare_fd), for changes to files. f
 * returns 0 or -1 with the failure. */
int command_in_bare(struct step_context *s, int (*function)(struct step_context *, void *, struct fail *),
	void *opaque, struct fail *f);

/* Whether the image has the program `name` in one of PATH's folders. */
bool command_exists(const char *name);

/* The place, as the step sees it, of PATH of the initrd (both begin with /imgbuild/). Returns false when it
 * is no such path. */
bool command_payload_path(const char *path, char *ret, size_t size);

/* Send a note to the host. */
void command_note(struct step_context *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Send a progress record; total is 0 while unknown. */
void command_progress(struct step_context *s, unsigned done, unsigned total, const char *fmt, ...)
	PRINTF_LIKE(4, 5);

#endif
