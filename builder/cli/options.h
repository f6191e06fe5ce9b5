/* The command line as a value.
 *
 * One table of verbs and one of options say what is accepted, and the help texts are made from them, so that the two
 * cannot drift apart. Options may stand anywhere; "--" ends them. Without a verb the first argument is a plan and the
 * verb is `build`. A struct options borrows its strings from argv and owns only the lists. */
#ifndef IMGBUILD_BUILDER_CLI_OPTIONS_H
#define IMGBUILD_BUILDER_CLI_OPTIONS_H

#include "builder/clone.h"
#include "builder/vm/accel.h"
#include "lib/arch.h"
#include "lib/err.h"
#include "lib/strv.h"

#include <stdbool.h>

enum verb {
	VERB_BUILD,
	VERB_LOCK,
	VERB_KEY,
	VERB_WHY,
	VERB_INSPECT,
	VERB_EXTRACT,
	VERB_CLONE,
	VERB_VENDOR,
	VERB_LS,
	VERB_SHOW,
	VERB_HELP,
	VERB_COUNT
};


struct options {
	enum verb verb;
	struct strv args; /* what is neither verb nor option */
	enum arch arch;	  /* --arch, else the architecture of this machine */
	bool arch_given;
	const char *cache;  /* --cache DIR or NULL */
	const char *output; /* -o OUT or NULL */
	enum accel_choice accel;
	enum clone_mode clone_as;
	struct strv mirrors; /* "ORIGIN=URL" or "host", as given */
	struct strv blobs;   /* "URL" or "DIR", as given */
	bool offline, locked, check, update, allow_outside;
	bool json, quiet, verbose, no_color;
	bool help, version;
};

void options_release(struct options *o);

/* Read argv. Returns 0, or -EINVAL with a message that names the argument and the nearest accepted one
 * (ERR_KIND_USAGE). *ret is valid in both cases and is released by the caller. */
int options_parse(int argc, char **argv, struct options *ret, struct err *e) _must_check_;

/* The name of a verb as it is typed. */
const char *verb_name(enum verb v);

/* Write the help of one verb to `f`, or of the whole program for VERB_HELP. */
void options_print_help(FILE *f, enum verb v);

#endif
