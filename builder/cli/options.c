#include "builder/cli/options.h"
#include "lib/nearest.h"
#include "lib/url.h"

#include <string.h>

#define BIT(v) (1u << (v))
#define ALL_VERBS (BIT(VERB_COUNT) - 1)
#define BUILDING (BIT(VERB_BUILD) | BIT(VERB_LOCK) | BIT(VERB_VENDOR))
#define READS_PLAN (BUILDING | BIT(VERB_KEY) | BIT(VERB_WHY))

static const struct {
	const char *name, *arguments, *summary;
	const char *text; /* whole sentences for `imgbuild VERB --help`, lines of at most 78 columns */
	unsigned min_args, max_args;
} verbs[VERB_COUNT] = {
	[VERB_BUILD] = { "build", "PLAN", "build the image of a plan or find it; print the entry's path",
		"Print the path of the finished image of PLAN on standard output, building it\n"
		"first when the cache does not have it: download the inputs, take the root\n"
		"partition out of the base image, boot once in QEMU to install packages and run\n"
		"the setup, check the result, and keep it under the plan's key. What the lock\n"
		"beside the plan does not pin yet is resolved and written there.\n",
		1, 1 },
	[VERB_LOCK] = { "lock", "PLAN", "write or refresh the lock beside the plan, for all its architectures",
		"Resolve every input from outside that the lock does not answer (base, kernel,\n"
		"packages, files by URL) and write the lock, without booting anything. What the\n"
		"lock has stays as it is while it can. Print what changes, one line each.\n\n"
		"With --update, ask everything anew; with --update and names behind PLAN, only\n"
		"those and what must follow them: base, kernel, a package, files:/DESTINATION,\n"
		"inputs:NAME.\n",
		1, 1 },
	[VERB_KEY] = { "key", "PLAN", "print the key of a plan",
		"Print the SHA-256 that names the image of PLAN. Needs no network once a lock is\n"
		"there. With --json, print the canonical document that is hashed, so that the\n"
		"key can be computed by hand (see the manual's examples).\n",
		1, 1 },
	[VERB_WHY] = { "why", "PLAN [KEY]", "tell what differs between a plan and the nearest image in the cache",
		"Tell, input by input, what differs between PLAN and the nearest image of the same\n"
		"architecture in the cache, or the entry of KEY: packages with their versions,\n"
		"files, the changed lines of the setup script. Or that nothing does: it is a hit.\n"
		"Needs no network; what the lock does not answer is named, and the rest compared.\n"
		"KEY may be a unique prefix, also of a failed build. Exit status 0 in all of these\n"
		"cases; with --json, \"hit\" says which it is.\n",
		1, 2 },
	[VERB_INSPECT] = { "inspect", "FILE", "tell what a disk image is: format, partitions, root, distribution",
		"Tell the format of a disk image, its partitions and their filesystems, which\n"
		"one is the root and which distribution it holds.\n",
		1, 1 },
	[VERB_EXTRACT] = { "extract", "FILE", "write the root partition of a disk image as a sparse raw file",
		"Find the root partition of the disk image FILE and write it to OUT (-o) as a\n"
		"sparse raw file. OUT must not exist.\n",
		1, 1 },
	[VERB_CLONE] = { "clone", "KEY OUT", "make a writable copy of an image: reflink, sparse copy or qcow2 overlay",
		"Make OUT, a writable copy of the image of KEY, for one VM: a reflink where the\n"
		"filesystem can, else a sparse copy; a qcow2 overlay where OUT ends in .qcow2 or\n"
		"--as qcow2 asks for it. KEY may be a unique prefix. OUT must not exist.\n",
		2, 2 },
	[VERB_VENDOR] = { "vendor", "PLAN", "gather all files that the lock names in a folder, for builds without network",
		"Put every file that the lock of PLAN names (bases, kernels, packages, files by\n"
		"URL), for all its architectures, into DIR (-o), under sha256/DIGEST, downloading\n"
		"what the cache lacks; with SHA256SUMS and index.tsv, which says what each is. DIR\n"
		"may serve several plans: what it has is kept. `imgbuild build PLAN --offline\n"
		"--locked --blobs DIR` then builds from it, and so does --blobs URL where a web\n"
		"server has it. A lock that does not answer is written first, as by `build`.\n"
		"Local files of the plan are not gathered: they are in its checkout.\n",
		1, 1 },
	[VERB_LS] = { "ls", "", "list the entries of the cache",
		"List the finished images and the failed builds of the cache.\n", 0, 0 },
	[VERB_SHOW] = { "show", "KEY", "show an entry: what went in, what came out, how to boot it",
		"Show an entry of the cache readably: its inputs with their digests, its\n"
		"packages, and the command that boots it. KEY may be a unique prefix.\n",
		1, 1 },
	[VERB_HELP] = { "help", "[VERB]", "show this help, or that of one verb",
		"Show the help of the program or of one verb.\n", 0, 1 },
};

enum option_id {
	OPT_ARCH,
	OPT_CACHE,
	OPT_OUTPUT,
	OPT_ACCEL,
	OPT_AS,
	OPT_MIRROR,
	OPT_BLOBS,
	OPT_OFFLINE,
	OPT_LOCKED,
	OPT_CHECK,
	OPT_UPDATE,
	OPT_ALLOW_OUTSIDE,
	OPT_JSON,
	OPT_QUIET,
	OPT_VERBOSE,
	OPT_NO_COLOR,
	OPT_HELP,
	OPT_VERSION
};

static const struct {
	const char *name;
	char letter; /* 0: none */
	const char *argument;
	const char *help;
	unsigned for_verbs;
} option_table[] = {
	[OPT_ARCH] = { "arch", 0, "ARCH", "amd64 or arm64 (default: this machine's)",
		READS_PLAN | BIT(VERB_INSPECT) | BIT(VERB_EXTRACT) },
	[OPT_CACHE] = { "cache", 0, "DIR", "the cache (default: $IMGBUILD_CACHE, else ~/.cache/imgbuild)", ALL_VERBS },
	[OPT_OUTPUT] = { "output", 'o', "OUT", "the file to write; the folder that vendor fills", BIT(VERB_EXTRACT) | BIT(VERB_VENDOR) },
	[OPT_ACCEL] = { "accel", 0, "auto|kvm|tcg", "how QEMU runs the guest (default: auto)", BIT(VERB_BUILD) },
	[OPT_AS] = { "as", 0, "auto|reflink|copy|qcow2", "what kind of copy to make (default: auto)",
		BIT(VERB_CLONE) },
	[OPT_MIRROR] = { "mirror", 0, "ORIGIN=URL|host",
		"fetch what lies below ORIGIN from URL, or packages from this host's mirrors; may be repeated",
		BUILDING },
	[OPT_BLOBS] = { "blobs", 0, "URL|DIR",
		"seek files first by their digest, at URL/sha256/DIGEST or in a folder; may be repeated", BUILDING },
	[OPT_OFFLINE] = { "offline", 0, NULL, "use no network, only the cache and local folders; name all that is missing",
		BUILDING },
	[OPT_LOCKED] = { "locked", 0, NULL, "never change the lock; fail when it does not answer",
		BIT(VERB_BUILD) | BIT(VERB_KEY) | BIT(VERB_VENDOR) },
	[OPT_CHECK] = { "check", 0, NULL, "only say whether the lock is current (exit 2 when not)", BIT(VERB_LOCK) },
	[OPT_UPDATE] = { "update", 0, NULL, "ask everything anew, or only the inputs named behind PLAN", BIT(VERB_LOCK) },
	[OPT_ALLOW_OUTSIDE] = { "allow-outside", 0, NULL, "let the plan name files outside its own folder",
		READS_PLAN },
	[OPT_JSON] = { "json", 0, NULL, "print the result as JSON", ALL_VERBS },
	[OPT_QUIET] = { "quiet", 'q', NULL, "print nothing but the result, warnings and errors", ALL_VERBS },
	[OPT_VERBOSE] = { "verbose", 'v', NULL, "say more, the guest's output included", ALL_VERBS },
	[OPT_NO_COLOR] = { "no-color", 0, NULL, "no colours and no redrawn lines ($NO_COLOR does the same)", ALL_VERBS },
	[OPT_HELP] = { "help", 'h', NULL, "show help", ALL_VERBS },
	[OPT_VERSION] = { "version", 'V', NULL, "print the version and the epoch", ALL_VERBS },
};

const char *verb_name(enum verb v)
{
	return verbs[v].name;
}

void options_release(struct options *o)
{
	strv_release(&o->args);
	strv_release(&o->mirrors);
	strv_release(&o->blobs);
}

/* The index of `value` among n words; an error that lists them otherwise. */
static int parse_word(const char *option, const char *const *words, size_t n, const char *value, unsigned *ret,
	struct err *e)
{
	char list[128] = "";

	for (size_t i = 0; i < n; i++) {
		size_t used = strlen(list);

		if (strcmp(words[i], value) == 0) {
			*ret = (unsigned)i;
			return 0;
		}
		(void)snprintf(list + used, sizeof(list) - used, "%s%s", i ? ", " : "", words[i]);
	}
	return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "--%s is one of %s, not `%s`", option, list, value);
}

/* An address may hold a password. */
static int refuse_mirror(const char *value, struct err *e)
{
	_cleanup_free_ char *shown = url_redact(value);

	return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
		"--mirror is ORIGIN=URL (say http://archive.example.org/debian=http://10.0.0.1/debian) or `host`, not `%s`",
		shown ? shown : "");
}

static int apply_option(struct options *o, enum option_id id, const char *value, struct err *e)
{
	static const char *const accels[] = { "auto", "kvm", "tcg" };
	static const char *const copies[] = { "auto", "reflink", "copy", "qcow2" };
	unsigned word = 0;
	int r = 0;

	switch (id) {
	case OPT_ARCH:
		if (arch_parse(value, &o->arch) < 0)
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "--arch is amd64 or arm64, not `%s`", value);
		o->arch_given = true;
		break;
	case OPT_CACHE:
		o->cache = value;
		break;
	case OPT_OUTPUT:
		o->output = value;
		break;
	case OPT_ACCEL:
		r = parse_word("accel", accels, ARRAY_SIZE(accels), value, &word, e);
		o->accel = (enum accel_choice)word;
		break;
	case OPT_AS:
		r = parse_word("as", copies, ARRAY_SIZE(copies), value, &word, e);
		o->clone_as = (enum clone_mode)word;
		break;
	case OPT_MIRROR:
		if (strcmp(value, "host") != 0 && !strchr(value, '='))
			return refuse_mirror(value, e);
		if (strv_add(&o->mirrors, value) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		break;
	case OPT_BLOBS:
		if (strv_add(&o->blobs, value) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		break;
	case OPT_OFFLINE:
		o->offline = true;
		break;
	case OPT_LOCKED:
		o->locked = true;
		break;
	case OPT_CHECK:
		o->check = true;
		break;
	case OPT_UPDATE:
		o->update = true;
		break;
	case OPT_ALLOW_OUTSIDE:
		o->allow_outside = true;
		break;
	case OPT_JSON:
		o->json = true;
		break;
	case OPT_QUIET:
		o->quiet = true;
		break;
	case OPT_VERBOSE:
		o->verbose = true;
		break;
	case OPT_NO_COLOR:
		o->no_color = true;
		break;
	case OPT_HELP:
		o->help = true;
		break;
	case OPT_VERSION:
		o->version = true;
		break;
	}
	return r;
}

static int unknown_option(const char *arg, struct err *e)
{
	const char *names[ARRAY_SIZE(option_table)], *near;

	for (size_t i = 0; i < ARRAY_SIZE(option_table); i++)
		names[i] = option_table[i].name;
	near = nearest_name(names, ARRAY_SIZE(names), arg + strspn(arg, "-"));
	return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "unknown option `%s`%s%s%s; see imgbuild --help", arg,
		near ? ", did you mean --" : "", near ? near : "", near ? "?" : "");
}

/* Find the option that `arg` is. Returns its index or -1; *ret_value is what stands behind a '=', or NULL. */
static int find_option(const char *arg, const char **ret_value)
{
	*ret_value = NULL;
	for (size_t k = 0; k < ARRAY_SIZE(option_table); k++) {
		size_t len = strlen(option_table[k].name);

		if (option_table[k].letter && arg[1] == option_table[k].letter && arg[2] == '\0')
			return (int)k;
		if (strncmp(arg, "--", 2) == 0 && strncmp(arg + 2, option_table[k].name, len) == 0 &&
			(arg[2 + len] == '\0' || arg[2 + len] == '=')) {
			*ret_value = arg[2 + len] ? arg + 2 + len + 1 : NULL;
			return (int)k;
		}
	}
	return -1;
}

/* Take the first argument as the verb where it is one; a lone file name is a plan to build. */
static int settle_verb(struct options *o, struct err *e)
{
	char *first = o->args.n > 0 ? o->args.items[0] : NULL;
	const char *names[VERB_COUNT], *near;

	o->verb = first ? VERB_BUILD : VERB_HELP;
	if (!first) {
		if (!o->version && !o->help)
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
				"nothing to do: `imgbuild PLAN` builds a plan; see imgbuild --help");
		return 0;
	}
	for (unsigned v = 0; v < VERB_COUNT; v++) {
		names[v] = verbs[v].name;
		if (strcmp(first, verbs[v].name) == 0) {
			o->verb = (enum verb)v;
			free(first);
			memmove(o->args.items, o->args.items + 1, o->args.n * sizeof(*o->args.items));
			o->args.n--;
			return 0;
		}
	}
	/* Not a verb: a plan has a dot or a slash in its name, or exists. Anything else is most likely a typo. */
	near = nearest_name(names, VERB_COUNT, first);
	if (!strpbrk(first, "./") && access(first, F_OK) < 0)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "`%s` is neither a verb nor a file%s%s%s; see imgbuild --help",
			first, near ? ", did you mean `" : "", near ? near : "", near ? "`?" : "");
	return 0;
}

/* Refuse options that the verb does not know and a wrong number of arguments. */
static int check_usage(const struct options *o, unsigned given, struct err *e)
{
	const char *verb = verbs[o->verb].name;

	for (size_t k = 0; k < ARRAY_SIZE(option_table); k++)
		if (given & 1u << k && !(option_table[k].for_verbs & BIT(o->verb)))
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
				"--%s has no meaning for `imgbuild %s`; see imgbuild %s --help", option_table[k].name, verb,
				verb);
	if (o->update && (o->check || o->args.n == 0))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, o->check ?
			"--update changes the lock and --check does not: give one of them" :
			"usage: imgbuild lock PLAN --update [NAME...]");
	if (o->update && o->args.n > 1 && !strpbrk(o->args.items[0], "./") && access(o->args.items[0], F_OK) < 0)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"`%s` is no file: the plan comes first, the names behind it: imgbuild lock PLAN --update %s", o->args.items[0],
			o->args.items[0]);
	if (o->verb == VERB_LOCK && !o->update && o->args.n > 1)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"`%s` behind the plan names an input to update: imgbuild lock %s --update %s", o->args.items[1],
			o->args.items[0], o->args.items[1]);
	if (o->args.n < verbs[o->verb].min_args || (o->args.n > verbs[o->verb].max_args && !o->update))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "usage: imgbuild %s %s; %zu argument%s given", verb,
			verbs[o->verb].arguments, o->args.n, o->args.n == 1 ? " was" : "s were");
	return 0;
}

int options_parse(int argc, char **argv, struct options *ret, struct err *e)
{
	unsigned given = 0;
	bool only_args = false;
	int r;

	*ret = (struct options){ .arch = arch_native() };
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *value;
		int id;

		if (only_args || arg[0] != '-' || arg[1] == '\0') {
			if (strv_add(&ret->args, arg) < 0)
				return err_set(e, -ENOMEM, "out of memory");
			continue;
		}
		if (strcmp(arg, "--") == 0) {
			only_args = true;
			continue;
		}
		id = find_option(arg, &value);
		if (id < 0)
			return unknown_option(arg, e);
		if (option_table[id].argument && !value) {
			if (i + 1 >= argc)
				return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "--%s needs an argument: --%s %s",
					option_table[id].name, option_table[id].name, option_table[id].argument);
			value = argv[++i];
		} else if (!option_table[id].argument && value) {
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "--%s takes no argument, found `%s`",
				option_table[id].name, value);
		}
		r = apply_option(ret, (enum option_id)id, value, e);
		if (r < 0)
			return r;
		given |= 1u << id;
	}
	r = settle_verb(ret, e);
	if (r < 0 || ret->help || ret->version)
		return r;
	return check_usage(ret, given, e);
}

static void print_options(FILE *f, unsigned for_verbs)
{
	for (size_t k = 0; k < ARRAY_SIZE(option_table); k++) {
		char left[64], letter[8] = "    ";

		if (!(option_table[k].for_verbs & for_verbs))
			continue;
		if (option_table[k].letter)
			(void)snprintf(letter, sizeof(letter), "-%c, ", option_table[k].letter);
		(void)snprintf(left, sizeof(left), "%s--%s%s%s", letter, option_table[k].name,
			option_table[k].argument ? " " : "", option_table[k].argument ? option_table[k].argument : "");
		if (strlen(left) > 28)
			(void)fprintf(f, "  %s\n  %-28s  %s\n", left, "", option_table[k].help);
		else
			(void)fprintf(f, "  %-28s  %s\n", left, option_table[k].help);
	}
}

void options_print_help(FILE *f, enum verb v)
{
	if (v != VERB_HELP) {
		(void)fprintf(f, "Usage: imgbuild %s [OPTION]... %s\n\n%s\nOptions:\n", verbs[v].name,
			verbs[v].arguments, verbs[v].text);
		print_options(f, BIT(v));
		return;
	}
	(void)fprintf(f, "Usage: imgbuild [OPTION]... PLAN\n       imgbuild VERB [OPTION]... [ARGUMENT]...\n\n"
			 "Turn a plan into a disk image for test VMs, once; the next run with the same plan\n"
			 "prints the same path in milliseconds.\n\nVerbs:\n");
	for (unsigned i = 0; i < VERB_COUNT; i++)
		(void)fprintf(f, "  %-8s %-10s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].summary);
	(void)fprintf(f, "\nOptions:\n");
	print_options(f, ALL_VERBS);
	(void)fprintf(f, "\nEnvironment: IMGBUILD_CACHE, IMGBUILD_MIRROR and IMGBUILD_BLOBS (arguments of --mirror and\n"
			 "--blobs, separated by blanks), IMGBUILD_RETRY_DELAY_MS, http_proxy, https_proxy, no_proxy,\nNO_COLOR.\n");
	(void)fprintf(f, "\nExit status: 0 done; 1 the guest said no; 2 the command line or the plan is wrong;\n"
			 "3 an input could not be had or did not match; 4 the host (no QEMU, no space, a VM that\n"
			 "hung or died); 5 a defect of imgbuild; 130 and 143 interrupted.\n\n"
			 "`imgbuild VERB --help` says more; so does `man imgbuild`.\n");
}
