/* Writes the job that the guest's init runs: lines of verbs with encoded fields, as initrd/protocol.h says.
 *
 * job_init, then one job_add* for each verb in the order of the boot, then job_text. Fields are arbitrary
 * bytes without NUL; they are encoded here. The text is owned by the struct; job_release may be called twice.
 * Errors: -E2BIG past JOB_MAX_BYTES, -ENOMEM. One struct belongs to one thread. */
#ifndef IMGBUILD_INITRD_JOB_H
#define IMGBUILD_INITRD_JOB_H

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/strv.h"

#include <stddef.h>
#include <stdint.h>

#define JOB_MAX_BYTES (16u << 20)

struct job {
	struct buf text;
};

void job_init(struct job *job);
void job_release(struct job *job);
#define _cleanup_job_ _cleanup_(job_release)

/* Add a verb with n fields. `verb` is one of protocol.h's. */
int job_add_fields(
	struct job *job, const char *verb, const char *const *fields, size_t n, struct err *e) _must_check_;

/* Add a verb with the fields that follow, ended by NULL: job_add(&job, &e, "root", "/dev/vda", "ext4", NULL).
 */
int job_add(struct job *job, struct err *e, const char *verb, ...) __attribute__((sentinel)) _must_check_;

/* Add a verb whose fields are a list: packages, units, paths. An empty list is a verb without fields. */
int job_add_list(struct job *job, const char *verb, const struct strv *fields, struct err *e) _must_check_;

/* Add `clock`: the seconds since 1970 that the guest's clock starts at. */
int job_add_clock(struct job *job, int64_t seconds, struct err *e) _must_check_;

/* Add `file`: src of the initrd becomes dest in the image, with permission bits mode and owner "user:group".
 */
int job_add_file(struct job *job, const char *dest, unsigned mode, const char *owner, const char *src,
	struct err *e) _must_check_;

/* The job as text, magic line first; borrowed until the next change. */
const char *job_text(const struct job *job);

#endif
