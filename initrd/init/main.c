/* Process 1 of the guest that builds an image, and of an entry's initrd. It runs the job of initrd/protocol.h
 * from top to bottom, reports, and powers off. Whatever goes wrong once the channel is open ends in a failed
 * verdict after a real unmount. */
#include "initrd/init/boot.h"
#include "initrd/init/channel.h"
#include "initrd/init/job.h"
#include "initrd/init/module.h"
#include "initrd/init/mount.h"
#include "initrd/init/poweroff.h"
#include "initrd/init/step.h"
#include "initrd/init/unithelper.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

/* Where the job stands. */
struct progress {
	const char *device; /* of the mounted root, or NULL */
	const char *step;   /* the step that runs or failed; "" outside any */
	int64_t clock_seconds;
	const char *late_label; /* what must be written after the unmount, or NULL */
};

static int set_clock(const char *seconds, struct progress *p, struct fail *f)
{
	char *end;
	struct timeval tv = { .tv_sec = strtoll(seconds, &end, 10) };

	if (*end || seconds[0] == '\0' || settimeofday(&tv, NULL) < 0)
		return fail_set(f, "internal", "cannot set the clock to `%s`", seconds);
	p->clock_seconds = tv.tv_sec;
	return 0;
}

/* Programs expect 127.0.0.1. A kernel without network is fine. */
static void raise_loopback(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

	if (fd >= 0) {
		(void)ioctl(fd, SIOCSIFFLAGS, &ifr);
		(void)close(fd);
	}
}

/* The verbs before the first that needs the channel. *ret_i: the index of that one. */
static int run_before_channel(const struct job *job, size_t *ret_i, struct progress *p, struct fail *f)
{
	size_t i = 0;
	int r = 0;

	for (; i < job->n && r == 0; i++) {
		const struct verb *v = &job->verbs[i];

		if (v->kind == VERB_CLOCK)
			r = set_clock(v->fields[0], p, f);
		else if (v->kind == VERB_MODULE)
			r = module_insert(v->fields[0], v->fields[1], f);
		else
			break;
	}
	*ret_i = i;
	return r;
}

/* The rest of the job. */
static int run_verbs(const struct job *job, size_t i, struct channel *c, struct progress *p, struct fail *f)
{
	int r = 0;

	while (i < job->n && r == 0) {
		const struct verb *v = &job->verbs[i++];
		size_t first = i;
		bool late = false;

		switch (v->kind) {
		case VERB_CLOCK:
			r = set_clock(v->fields[0], p, f);
			break;
		case VERB_MODULE:
			r = module_insert(v->fields[0], v->fields[1], f);
			break;
		case VERB_ROOT:
			r = mount_root(v->fields[0], v->fields[1], f);
			p->device = r == 0 ? v->fields[0] : p->device;
			break;
		case VERB_GROW:
			r = p->device ? mount_grow(p->device, f)
				      : fail_set(f, "internal", "`grow` comes before `root`");
			break;
		case VERB_LABEL:
			r = p->device ? mount_label(v->fields[0], &late, f)
				      : fail_set(f, "internal", "`label` comes before `root`");
			p->late_label = r == 0 && late ? v->fields[0] : NULL;
			break;
		case VERB_STEP:
			while (i < job->n && job->verbs[i].kind != VERB_STEP)
				i++;
			p->step = v->fields[0];
			r = p->device ? step_run(c, v, &job->verbs[first], i - first, p->clock_seconds, f)
				      : fail_set(f, "internal", "`step` comes before `root`");
			if (r == 0)
				p->step = "";
			break;
		default:
			r = fail_set(f, "internal", "`%s` stands outside any step", v->name);
			break;
		}
	}
	return r;
}

/* Boot an entry: modules, then its root. */
static void run_boot(const struct job *job, char *const *argv)
{
	struct progress p = { .step = "" };
	struct fail f = { .exit = 0 };
	char panic[32] = "";
	size_t i;

	if (run_before_channel(job, &i, &p, &f) == 0)
		(void)boot_root(argv, &f);
	say("cannot boot: %s", f.text);
	/* The command line's panic= says what is wanted of a machine that cannot go on; without it, it ends
	 * here. */
	if (read_text_at(AT_FDCWD, "/proc/sys/kernel/panic", panic, sizeof(panic)) > 0 &&
		strtol(panic, NULL, 10) != 0)
		exit(1);
	power_off();
}

static void run_job(const struct job *job)
{
	static struct channel channel; /* large, and there is one */
	struct progress p = { .step = "", .clock_seconds = -1 };
	struct fail f = { .exit = 0 }, unmount_fail = { .exit = 0 };
	size_t i;
	int r;

	raise_loopback();
	r = run_before_channel(job, &i, &p, &f);
	if (r < 0)
		say("%s", f.text);
	if (channel_open(&channel) < 0 || channel_greet(&channel) < 0)
		power_off();
	if (r == 0)
		r = run_verbs(job, i, &channel, &p, &f);
	if (p.device && mount_release_root(p.device, &unmount_fail) < 0 && r == 0)
		f = unmount_fail;
	if (p.late_label && !f.reason[0])
		(void)mount_write_label(p.device, p.late_label, &f);
	channel_verdict(&channel, p.step, &f);
	if (!channel_wait_ack(&channel))
		say("the host did not acknowledge the verdict");
	power_off();
}

int main(int argc, char **argv)
{
	struct fail f = { .exit = 0 };
	struct job job;

	const char *slash = strrchr(argv[0], '/');

	/* A step shows this program to maintainer scripts under another name. */
	if (strcmp(slash ? slash + 1 : argv[0], UNITHELPER_NAME) == 0)
		return unithelper_main(argc, argv);
	if (getpid() != 1)
		return 2; /* not for people */
	(void)signal(SIGPIPE, SIG_IGN);
	(void)umask(022);
	if (mount_kernel_filesystems(&f) < 0 || job_read(JOB_PATH, &job, &f) < 0) {
		say("%s", f.text);
		return 1; /* the kernel panics: there is nobody to tell it to but the console */
	}
	if (job.n > 0 && job.verbs[job.n - 1].kind == VERB_BOOT)
		run_boot(&job, argv);
	else
		run_job(&job);
	return 1;
}
