/* The lock: the TOML file beside the plan that pins every input from outside by digest, per architecture.
 *
 * Order of calls: lock_load() (a missing file is an empty lock), plan_local_inputs() with digests filled in, then
 * lock_missing() says which sections do not answer the plan's questions. The builder resolves those, in the order base,
 * kernel, packages, sources, each time asking lock_question_*() for the digest of the question it answered and storing both
 * with lock_set_*(); then lock_write().
 *
 * A section answers when its `question` equals that of the plan: a digest over the part of the plan (and of the answers
 * before it) that the answer depends on (docs/decisions/lock-questions.md). The names of packages are not in the digest but
 * stand beside it in the clear (`asked`), so that two branches that each add one can be merged. What the plan itself pins by
 * SHA-256, and what is local, needs no section. Local digests and local paths never go into a lock; nor do user names, passwords and
 * tokens in URLs.
 *
 * A struct lock owns its strings. It is hostile input like any other file: every value is validated when it is read.
 * Limits: TOML_MAX_BYTES for the file, LOCK_MAX_PACKAGES per architecture. */
#ifndef IMGBUILD_PLAN_LOCK_H
#define IMGBUILD_PLAN_LOCK_H

#include "lib/arch.h"
#include "lib/buf.h"
#include "lib/digest.h"
#include "lib/err.h"
#include "lib/strv.h"
#include "plan/plan.h"

#include <stdbool.h>
#include <stdint.h>

#define LOCK_MAX_PACKAGES 8192

/* What stands behind a digest. */
enum lock_trust {
	LOCK_TRUST_PLAN = 0,  /* the plan gives a digest that was checked */
	LOCK_TRUST_SIGNATURE, /* a checksum file of the publisher, signed by a key of the plan */
	LOCK_TRUST_CHECKSUMS, /* a checksum file of the publisher, unsigned */
	LOCK_TRUST_FIRST_USE  /* nothing: it is what came on first use */
};

/* As the lock spells it: "plan", "signature", "checksums", "first-use". */
const char *lock_trust_name(enum lock_trust trust);

/* The publisher's checksum file that vouched for a file. */
struct lock_checksums {
	char *url;	      /* without user info; NULL: no such file was used */
	struct digest sha256; /* of the checksum file */
	char *signer;	      /* fingerprint of the primary key whose signature was checked, upper case; NULL: none was */
};

/* A file from a URL. */
struct lock_blob {
	struct digest question; /* SHA-256; DIGEST_NONE: the section is not there */
	char *url;		/* without user info; NULL when the bytes are local */
	uint64_t size_bytes;
	struct digest sha256;
	struct digest sha512; /* DIGEST_NONE: not known */
	enum lock_trust trust;
	struct lock_checksums checksums;
	char *resolved_url; /* hint: where redirects led, when that is another URL; NULL: not known, or not fit to be kept */
};

struct lock_package {
	char *name, *version, *arch;
	uint64_t size_bytes;
	struct digest sha256; /* of the .deb */
	char *file;	      /* hint: its name in the archive, "pool/main/…", or NULL */
	char *uri;	      /* hint: the archive's root, without user info, or NULL */
	char *suite;	      /* hint, or NULL */
	struct digest release; /* hint: SHA-256 of the Release file that vouched for it; DIGEST_NONE: not known */
	int64_t release_date;  /* hint: that file's Date, in seconds since 1970; 0: not known */
};

/* A key file of the base that vouched for the package lists. */
struct lock_keyring {
	char *path; /* in the base image */
	struct digest sha256;
};

struct lock_kernel {
	struct digest question; /* DIGEST_NONE: the section is not there */
	enum plan_kernel_kind kind;
	struct digest sha256; /* of the kernel's file itself, for all kinds */
	struct lock_blob archive; /* for ARCHIVE: the archive; for FILE from a URL: the file. Its question is unused */
	char *member;		  /* for ARCHIVE: the member, links followed; for FROM_BASE: the path in the base, or NULL */
	struct lock_package *packages; /* for PACKAGE: the one that holds the kernel first, then those with modules */
	size_t n_packages;
};

struct lock_packages {
	struct digest question; /* DIGEST_NONE: the section is not there */
	struct lock_package *items; /* sorted by name, architecture and version; local .debs are not among them */
	size_t n;
	struct strv asked;    /* the names that were asked for, sorted */
	struct strv removals; /* packages of the base that go, sorted */
	struct lock_keyring *keyrings; /* sorted by path */
	size_t n_keyrings;
};

/* A [files] or [inputs] source from a URL that the plan does not pin. */
struct lock_source {
	char *slot; /* "files:/etc/x", "inputs:selftests" */
	struct lock_blob blob;
};

struct lock_arch {
	struct lock_blob base;
	struct lock_kernel kernel;
	struct lock_packages packages;
	struct lock_source *sources; /* sorted by slot */
	size_t n_sources;
};

struct lock {
	struct lock_arch arch[ARCH_COUNT];
};

void lock_release(struct lock *l);
#define _cleanup_lock_ _cleanup_(lock_release)
void lock_package_release(struct lock_package *p);

/* Make the lock's name from the plan's: "x.toml" gives "x.lock", anything else has ".lock" added. malloc'ed; NULL when out
 * of memory. */
char *lock_path_for(const char *plan_path);

/* Load the lock `path`, relative to dirfd. A missing file gives an empty lock. *ret is a zeroed or released struct.
 * Returns 0; -EBADMSG not a valid lock (with file:line:column); another -errno when it cannot be read. */
int lock_load(int dirfd, const char *path, struct lock *ret, struct err *e) _must_check_;

/* The same from (text, len). */
int lock_load_bytes(const char *path, const char *text, size_t len, struct lock *ret, struct err *e) _must_check_;

/* Write the sections of one architecture into the lock file, atomically, keeping what the file says about others at that
 * moment; another process may write those of another at the same time. Equal contents give equal bytes, and a file that would not change is not touched. */
int lock_write(int dirfd, const char *path, const struct lock *l, enum arch arch, struct err *e) _must_check_;

/* Append the text of the whole lock, as lock_write() writes it. */
int lock_format(const struct lock *l, struct buf *into, struct err *e) _must_check_;

/* Find the base's SHA-256: from the local inputs, the plan, or the lock when it answers the plan's question.
 * Returns 0, or -ENOKEY: not known yet. */
int lock_base_digest(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct digest *ret, struct err *e) _must_check_;

/* Compute the digest of the plan's question for one section. Those of the kernel and the packages need the base's digest
 * (-ENOKEY without). For `sources`, slot names the one that is asked for. */
int lock_question_base(const struct plan *p, enum arch arch, const struct plan_local_inputs *locals, struct digest *ret,
	struct err *e) _must_check_;
int lock_question_kernel(const struct plan *p, const struct lock *l, enum arch arch,
	const struct plan_local_inputs *locals, struct digest *ret, struct err *e) _must_check_;
int lock_question_packages(const struct plan *p, const struct lock *l, enum arch arch,
	const struct plan_local_inputs *locals, struct digest *ret, struct err *e) _must_check_;
int lock_question_source(const struct plan *p, const char *slot, struct digest *ret, struct err *e) _must_check_;

/* The sections, as bits. */
enum lock_section {
	LOCK_SECTION_BASE = 1 << 0,
	LOCK_SECTION_KERNEL = 1 << 1,
	LOCK_SECTION_PACKAGES = 1 << 2,
	LOCK_SECTION_SOURCES = 1 << 3
};

/* Say which sections must still be resolved: those that the plan needs and that are missing or answer another question.
 * While the base's digest is unknown, the kernel and packages that need it count as missing.
 * Returns 0 with *ret_sections a set of enum lock_section; empty: the lock answers all. */
int lock_missing(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	unsigned *ret_sections, struct err *e) _must_check_;

/* Hold the packages section against the plan: it answers when its question is the plan's and the names that were asked for are
 * the plan's. Returns 0; -ENOKEY it does not, and *e says what the plan asks beyond it. */
int lock_check_packages(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct err *e) _must_check_;

/* Append a line for everything that the plan asks and the lock does not answer: "packages: the plan asks for "fuse3", which the lock
 * does not answer", "base: …", "kernel: …", "files:/etc/x: …". URLs in it are redacted. Nothing is appended when lock_missing() finds
 * nothing missing. */
int lock_explain(const struct plan *p, const struct lock *l, enum arch arch, const struct plan_local_inputs *locals,
	struct strv *ret, struct err *e) _must_check_;

/* Does the plan ask for anything of the package manager on this architecture? Without, the packages section is not
 * needed and reads as "nothing". */
bool lock_needs_packages(const struct plan *p, enum arch arch);

/* The answer for the kernel; an empty one when the plan's kernel needs none, being local or pinned by the plan: what the lock then
 * holds answers an older plan. Like the section itself it is an answer only where lock_missing() says so. */
const struct lock_kernel *lock_kernel_find(const struct lock *l, const struct plan *p, enum arch arch);

/* Store an answer: copies of what is given, user info taken off URLs, lists sorted; `question` and the packages' `asked` are
 * set to what the plan asks now, and the base must have its answer first. What is given is not changed and may have an
 * empty question. Keyrings that are files of the plan are left out: what is local is never locked.
 * A package that the section already has, in the same version with the same bytes, keeps its hints and with them its line, as long
 * as any package comes from that archive: what is updated shows in a difference, and nothing else. */
int lock_set_base(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals,
	const struct lock_blob *base, struct err *e) _must_check_;
int lock_set_kernel(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals,
	const struct lock_kernel *kernel, struct err *e) _must_check_;
int lock_set_packages(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals,
	const struct lock_packages *packages, struct err *e) _must_check_;
int lock_set_source(struct lock *l, const struct plan *p, enum arch arch, const char *slot, const struct lock_blob *blob,
	struct err *e) _must_check_;

/* Drop what answers nothing that the plan asks: sections it has no use for, answers to older questions, and everything of an
 * architecture that it does not describe. For a lock that was just resolved for `arch`: what is missing is not looked for here.
 * Returns 1 when something went, 0 when nothing did, or a negative errno. */
int lock_prune(struct lock *l, const struct plan *p, enum arch arch, const struct plan_local_inputs *locals, struct err *e)
	_must_check_;

/* Whether the lock's base and its kernel are of the SHA-512 that the plan gives, where it gives that alone. The question says which file
 * was meant, not that the SHA-256 beside it belongs to it: a section that fails here answers nothing. */
bool lock_base_is_of_plan(const struct plan *p, const struct lock *l, enum arch arch);
bool lock_kernel_is_of_plan(const struct plan *p, const struct lock *l, enum arch arch);

/* Find the answer for a [files] or [inputs] slot that is still an answer to the plan's question; NULL when none. */
const struct lock_blob *lock_source_find(const struct lock *l, const struct plan *p, enum arch arch, const char *slot);

#endif
