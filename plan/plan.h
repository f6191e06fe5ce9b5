/* The plan: the TOML file a person writes, as typed values.
 *
 * plan_load() reads and checks all of it and reports every fault at once, each with its line and column, what was
 * found, what is accepted and, for a name, the nearest known one. A struct plan that was returned is valid: no caller
 * checks again. What the plan does not say is filled in with the default here, so that nobody else needs to know one;
 * a value that depends on the host or on other inputs stays 0 or NULL, and its comment says who decides.
 *
 * A plan owns everything below it, and a descriptor of the folder it lies in, beneath which its local paths are
 * resolved. It is not changed after loading and may be read by several threads.
 *
 * Which field is part of the key is declared in the same table that drives the parsing (plan/schema.c) and can be
 * listed with plan_schema_field().
 *
 * Limits: the file is at most TOML_MAX_BYTES, at most PLAN_MAX_FAULTS faults are listed, names and lists as said below. */
#ifndef IMGBUILD_PLAN_PLAN_H
#define IMGBUILD_PLAN_PLAN_H

#include "lib/arch.h"
#include "lib/digest.h"
#include "lib/err.h"
#include "lib/num.h"
#include "lib/strv.h"
#include "plan/guest_path.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLAN_MAX_FAULTS 100
#define PLAN_DEFAULT_IMAGE_SIZE_BYTES GIB(10)
#define PLAN_DEFAULT_FILE_MODE 0644
#define PLAN_LABEL_MAX_BYTES 16 /* s_volume_name of the ext superblock */

/* Where bytes come from. Exactly one of url and path is set in a location that was given. */
struct plan_location {
	char *url;	      /* http:// or https://, as written: user info in it is a secret, see url_redact() */
	char *path;	      /* local, resolved with plan_open_beneath(); "file:" is already taken off */
	struct digest sha256; /* what the plan says the bytes are; algorithm DIGEST_NONE when it does not */
	struct digest sha512;
};

static inline bool plan_location_given(const struct plan_location *l)
{
	return l->url || l->path;
}

/* Which partition of the base is the root. */
enum plan_partition_by { PLAN_PARTITION_DISCOVER = 0, PLAN_PARTITION_NUMBER, PLAN_PARTITION_LABEL, PLAN_PARTITION_PARTUUID };

struct plan_partition {
	enum plan_partition_by by;
	unsigned number; /* from 1; for BY_NUMBER */
	char *value;	 /* the file system's label, or the partition's UUID in lower case; else NULL */
};

struct plan_base {
	struct plan_location location; /* not given: the plan has no image for this architecture */
	char *checksums_url;	       /* the publisher's checksum file, http(s)://, or NULL; never beside a digest of the plan's */
	char *checksums_key;	       /* local path of the certificate that must have signed it, or NULL */
	char *checksums_signature_url; /* where its detached signature is, or NULL: beside it, under the usual names */
	struct plan_partition partition;
};

enum plan_kernel_kind {
	PLAN_KERNEL_FROM_BASE = 0, /* the one in the base image; also when the plan names no kernel */
	PLAN_KERNEL_ARCHIVE,	   /* location (url or path) is an archive, member the kernel in it */
	PLAN_KERNEL_FILE,	   /* location (url or path) is the kernel itself */
	PLAN_KERNEL_PACKAGE	   /* package, from the package sources; unpacked, not installed */
};

struct plan_kernel {
	enum plan_kernel_kind kind;
	struct plan_location location; /* for ARCHIVE and FILE */
	char *member;		       /* for ARCHIVE: a normalized relative path */
	char *package;		       /* for PACKAGE */
	char *modules;		       /* for ARCHIVE and FILE: a local folder with the modules, or NULL */
	char *cmdline;		       /* appended when a VM is started, or NULL; not in the key */
};

struct plan_repository {
	char *uri;		/* http:// or https:// */
	char *suite;		/* "bookworm-backports", or with a final slash: a flat repository */
	struct strv components; /* empty exactly for a flat repository */
	char *key;		/* local path of its key; NULL only when apt.trusted has its uri: nobody signs it */
};

struct plan_apt {
	struct strv remove; /* packages that must not be in the image */
	bool recommends;    /* default false */
	char *snapshot;	    /* "20261101T000000Z", or NULL */
	struct strv debs;   /* local paths, for all architectures; see plan_debs() */
	struct strv trusted; /* http(s):// archives whose packages are taken without a signature, sorted; see plan_trusts() */
	bool ignore_valid_until; /* check_valid_until = false: package lists past their date are taken */
	struct plan_repository *repositories;
	size_t n_repositories;
};

struct plan_services {
	struct strv enable, disable, mask; /* units; names without a suffix have ".service" added */
};

enum plan_content_kind { PLAN_CONTENT_TEXT, PLAN_CONTENT_LOCATION };

/* A file, or a tree of them, that the plan puts into the image. */
struct plan_file {
	struct guest_path destination;
	enum plan_content_kind kind;
	char *text; /* for TEXT: text_len bytes, then a NUL that is not counted; may hold NULs */
	size_t text_len;
	struct plan_location location; /* for LOCATION: a file or a folder when local, else a file */
	bool has_mode;		       /* else: PLAN_DEFAULT_FILE_MODE, or 0755 for a local file that is executable */
	unsigned mode;		       /* 0 to 07777. Of a folder: of the files in it */
	char *owner, *group;	       /* names or decimal numbers; default "root" */
};

/* Something that only the setup script sees, under /imgbuild/inputs/<name>. */
struct plan_input {
	char *name;
	struct plan_location location;
};

enum plan_password_kind {
	PLAN_PASSWORD_UNCHANGED = 0, /* the plan says nothing */
	PLAN_PASSWORD_LOCKED,
	PLAN_PASSWORD_EMPTY,
	PLAN_PASSWORD_HASH
};

struct plan_user {
	char *name;
	struct strv authorized_keys; /* lines of authorized_keys(5) */
	enum plan_password_kind password;
	char *password_hash; /* for HASH: crypt(5), "$id$…" */
};

struct plan_fstab {
	struct strv remove_patterns; /* a line that contains one of these goes */
	bool keep;		     /* default false: lines whose source is not in the image go too */
};

struct plan_setup {
	char *script; /* text_len bytes and a NUL, or NULL */
	size_t script_len;
	char *file; /* a local path instead, or NULL */
};

struct plan_image {
	uint64_t size_bytes; /* a multiple of 4096; default PLAN_DEFAULT_IMAGE_SIZE_BYTES */
	char *label;	     /* NULL: as in the base */
	char *hostname;	     /* NULL: as in the base */
};

struct plan_provision {
	uint64_t memory_bytes;	   /* 0: computed from what the guest must hold */
	unsigned cpus;		   /* 0: the builder decides */
	uint64_t stall_timeout_ms; /* 0: the builder decides by the accelerator */
};

struct plan {
	char *file;	    /* the path it was loaded from, for messages */
	char *text;	    /* the file's bytes, NUL-terminated */
	size_t text_len;
	int dirfd;	    /* of the folder it lies in */
	bool allow_outside; /* local paths may lead out of that folder */

	char *name; /* for people, or NULL; not in the key */
	struct plan_base base[ARCH_COUNT];
	struct plan_kernel kernel[ARCH_COUNT];
	struct strv packages;			  /* for all architectures, sorted, without repetitions */
	struct strv packages_of_arch[ARCH_COUNT]; /* more of them; see plan_packages() */
	struct plan_apt apt;
	struct plan_services services;
	struct plan_file *files; /* sorted by destination */
	size_t n_files;
	struct plan_input *inputs; /* sorted by name */
	size_t n_inputs;
	struct plan_user *users; /* sorted by name */
	size_t n_users;
	struct plan_fstab fstab;
	struct plan_setup setup;
	struct strv cleanup; /* absolute paths with * ? [ ] in any part, of what is removed at the end */
	struct plan_image image;
	struct plan_provision provision;
};

/* One thing to tell the person: a fault, or a notice about something accepted and ignored. Columns count characters
 * from 1; line 0 means the file as a whole. */
struct plan_fault {
	unsigned line, column;
	char *message;
};

struct plan_faults {
	char *file; /* as given to plan_load() */
	struct plan_fault *faults;
	size_t n_faults;
	struct plan_fault *notices;
	size_t n_notices;
};

void plan_faults_release(struct plan_faults *f);
#define _cleanup_plan_faults_ _cleanup_(plan_faults_release)

/* Load the plan `path`, relative to dirfd (AT_FDCWD is allowed).
 * allow_outside  local paths may leave the plan's folder (--allow-outside)
 * ret_faults     a zeroed struct; filled in on success too (notices); the caller releases it in every case
 * Returns 0; -EINVAL the plan is wrong: ret_faults lists how and *e tells the first one with "file:line:column:"; another
 * -errno when it cannot be read. Whether local files exist is not looked at here but in plan_local_inputs(). */
int plan_load(int dirfd, const char *path, bool allow_outside, struct plan **ret, struct plan_faults *ret_faults,
	struct err *e) _must_check_;

/* The same from (text, len), as if read from `path` in the folder dirfd (lent; a copy of it is kept). */
int plan_load_bytes(int dirfd, const char *path, const char *text, size_t len, bool allow_outside, struct plan **ret,
	struct plan_faults *ret_faults, struct err *e) _must_check_;

void plan_free(struct plan *p); /* NULL is fine */
static inline void plan_freep(struct plan **p)
{
	plan_free(*p);
}
#define _cleanup_plan_ _cleanup_(plan_freep)

/* Check that the plan describes an image for this architecture. Returns 0, or -EINVAL with what it does describe. */
int plan_require_arch(const struct plan *p, enum arch arch, struct err *e) _must_check_;

/* Append the packages asked for on this architecture to a zeroed list, sorted and without repetitions. */
int plan_packages(const struct plan *p, enum arch arch, struct strv *ret) _must_check_;

/* Append the local .debs for this architecture, sorted: all of [apt] debs but those whose file name ends in the name of
 * another architecture ("_arm64.deb"). */
int plan_debs(const struct plan *p, enum arch arch, struct strv *ret) _must_check_;

/* [files] and [inputs] as one row, for those who want the bytes behind them: plan_source() gives the i-th of plan_count_sources().
 * ret_slot  its name in locks and messages ("files:/etc/x", "inputs:selftests"), malloc'ed
 * Returns 1 with where its bytes are; 0 when the plan itself holds them, nothing is written; -ENOMEM. */
size_t plan_count_sources(const struct plan *p);
int plan_source(const struct plan *p, size_t i, const struct plan_location **ret, char **ret_slot) _must_check_;

/* Find the location behind a slot; NULL when the plan has none of that name. */
const struct plan_location *plan_source_find(const struct plan *p, const char *slot);

/* Does [apt] trusted name this archive? A final slash and user info do not matter. */
bool plan_trusts(const struct plan *p, const char *uri);

/* Open a local path of the plan (lib/beneath.h), never through anything that leads out of the plan's folder: "..", absolute names,
 * symbolic links (those that stay inside are followed), /proc links. With allow_outside it is a plain openat().
 * flags as for open(2) without O_CREAT; O_CLOEXEC and O_NOCTTY are added.
 * Returns the descriptor, which the caller closes; -EXDEV the path leads outside; -ENOENT and so on as open(2). */
int plan_open_beneath(const struct plan *p, const char *path, int flags, struct err *e) _must_check_;

/* What a local file or tree is for. */
enum plan_input_kind {
	PLAN_INPUT_BASE,
	PLAN_INPUT_CHECKSUMS_KEY, /* of the base's checksum file */
	PLAN_INPUT_KERNEL,	   /* the kernel itself */
	PLAN_INPUT_KERNEL_ARCHIVE, /* the archive it is a member of */
	PLAN_INPUT_MODULES,
	PLAN_INPUT_DEB,
	PLAN_INPUT_REPOSITORY_KEY,
	PLAN_INPUT_FILE,  /* [files] source */
	PLAN_INPUT_INPUT, /* [inputs] source */
	PLAN_INPUT_SCRIPT /* [setup] file */
};

struct plan_local_input {
	enum plan_input_kind kind;
	char *slot;	       /* unique within the list: "base", "checksums-key", "kernel", "kernel-archive", "modules", "setup",
				  "deb:<path>", "key:<path>", "files:<destination>", "inputs:<name>" */
	char *path;	       /* as plan_open_beneath() takes it */
	bool is_tree;	       /* a folder */
	bool executable;       /* a file that its owner may execute */
	struct digest sha256, sha512; /* what the plan says it must be, DIGEST_NONE when nothing: the caller compares */
	struct digest digest;  /* SHA-256 of the file, or of the tree in whatever canonical form; the caller fills it in */
};

struct plan_local_inputs {
	struct plan_local_input *items;
	size_t n;
};

void plan_local_inputs_release(struct plan_local_inputs *l);
#define _cleanup_plan_local_inputs_ _cleanup_(plan_local_inputs_release)

/* List every local file and tree that an image of this architecture depends on.
 * ret  a zeroed struct; its digests are empty and are the caller's to fill in before it goes to lock_ and key_ functions
 * Returns 0; -ENOENT and so on when one is not there or is neither a file nor a folder where that is asked for;
 * -EXDEV when one lies outside the plan's folder. */
int plan_local_inputs(const struct plan *p, enum arch arch, struct plan_local_inputs *ret, struct err *e) _must_check_;

/* Find by slot; NULL when there is none. */
const struct plan_local_input *plan_local_input_find(const struct plan_local_inputs *l, const char *slot);

/* How a field of the schema takes part in the key. */
enum plan_key_role {
	PLAN_KEY_OUT,	   /* not at all */
	PLAN_KEY_IN,	   /* its value, or the digest of what it names */
	PLAN_KEY_BY_ANSWER /* it is part of a question whose answer, in the lock, is in the key */
};

struct plan_schema_field {
	char path[64]; /* "image.size", "base.ARCH.url", "files.*.mode", "apt.repository[].uri" */
	enum plan_key_role role;
};

/* Give the i-th leaf of the schema. Returns false when i is past the last one. */
bool plan_schema_field(size_t i, struct plan_schema_field *ret);

#endif
