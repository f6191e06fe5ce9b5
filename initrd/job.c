#include "initrd/job.h"
#include "initrd/protocol.h"

#include <stdarg.h>
#include <string.h>

void job_init(struct job *job)
{
	buf_init(&job->text, JOB_MAX_BYTES);
}

void job_release(struct job *job)
{
	buf_release(&job->text);
}

/* Append one field with everything that is not printable ASCII, and space and '%', as %XX. */
static int append_field(struct buf *b, const char *field)
{
	int r = buf_append_char(b, ' ');

	if (r == 0 && field[0] == '\0')
		return buf_append_char(b, '%');
	for (const char *p = field; *p && r == 0; p++) {
		unsigned char c = (unsigned char)*p;

		if (c > ' ' && c < 0x7f && c != '%')
			r = buf_append_char(b, *p);
		else
			r = buf_appendf(b, "%%%02X", c);
	}
	return r;
}

int job_add_fields(struct job *job, const char *verb, const char *const *fields, size_t n, struct err *e)
{
	int r = 0;

	if (job->text.len == 0)
		r = buf_append_str(&job->text, JOB_MAGIC "\n");
	if (r == 0)
		r = buf_append_str(&job->text, verb);
	for (size_t i = 0; i < n && r == 0; i++)
		r = append_field(&job->text, fields[i]);
	if (r == 0)
		r = buf_append_char(&job->text, '\n');
	if (r == -E2BIG)
		return err_set_kind(e, ERR_KIND_USAGE, r,
			"the guest's job grows past %u bytes at `%s`; the plan asks for too much",
			JOB_MAX_BYTES, verb);
	if (r < 0)
		return err_set(e, r, "no memory for the guest's job");
	return 0;
}

int job_add(struct job *job, struct err *e, const char *verb, ...)
{
	const char *fields[8];
	size_t n = 0;
	va_list ap;

	va_start(ap, verb);
	for (const char *field; (field = va_arg(ap, const char *)) != NULL; n++) {
		if (n == ARRAY_SIZE(fields)) {
			va_end(ap);
			return err_set_kind(
				e, ERR_KIND_DEFECT, -E2BIG, "`%s` was given more than %zu fields", verb, n);
		}
		fields[n] = field;
	}
	va_end(ap);
	return job_add_fields(job, verb, fields, n, e);
}

int job_add_list(struct job *job, const char *verb, const struct strv *fields, struct err *e)
{
	return job_add_fields(job, verb, (const char *const *)fields->items, fields->n, e);
}

int job_add_clock(struct job *job, int64_t seconds, struct err *e)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%lld", (long long)seconds);
	return job_add(job, e, "clock", text, NULL);
}

int job_add_file(
	struct job *job, const char *dest, unsigned mode, const char *owner, const char *src, struct err *e)
{
	char octal[16];

	(void)snprintf(octal, sizeof(octal), "%04o", mode & 07777);
	return job_add(job, e, "file", dest, octal, owner, src, NULL);
}

const char *job_text(const struct job *job)
{
	return job->text.len ? buf_str(&job->text) : JOB_MAGIC "\n";
}
