#include "cache/keylock.h"
#include "cache/publisher.h"
#include "lib/io.h"
#include "lib/process.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>

enum { LOCK_POLL_MS = 100, LOCK_TELL_MS = 1000, HOLDER_TEXT_BYTES = 64 };

/* Who has it: "<pid> <machine.boot>\n". A pid of another machine or boot means nothing here: 0. */
static pid_t read_holder(const struct publisher *p, int fd)
{
	char text[HOLDER_TEXT_BYTES], tag[HOLDER_TEXT_BYTES];
	ssize_t n = pread_full(fd, text, sizeof(text) - 1, 0);
	int pid = 0;

	if (n <= 0)
		return 0;
	text[n] = '\0';
	if (sscanf(text, "%9d %63s", &pid, tag) != 2 || pid <= 0 || strcmp(tag, p->host.text) != 0)
		return 0;
	return pid;
}

static void write_holder(const struct publisher *p, int fd)
{
	char text[HOLDER_TEXT_BYTES];
	int n = snprintf(text, sizeof(text), "%d %s\n", (int)getpid(), p->host.text);

	/* For people only: a full disk must not keep us from working. */
	if (ftruncate(fd, 0) == 0)
		(void)!pwrite(fd, text, (size_t)n, 0);
}

static int busy(const struct digest *key, pid_t holder, struct err *e)
{
	char hex[DIGEST_HEX_SIZE], who[48] = "another process";

	if (holder > 0)
		(void)snprintf(who, sizeof(who), "process %d", (int)holder);
	return err_set_kind(e, ERR_KIND_HOST, -EWOULDBLOCK, "%s is building %s just now; wait for it, or end it and try again",
		who, digest_hex(key, hex));
}

/* Try until it is ours, the time is over, on_wait() gives up, or cancel_fd is readable. Returns 1 where there are no
 * locks. */
static int wait_for(struct publisher *p, int fd, const struct digest *key, int timeout_ms, int cancel_fd,
	publish_wait_fn on_wait, void *ctx, struct err *e)
{
	uint64_t start = monotonic_ms(), tell_at = 0;

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		uint64_t waited = monotonic_ms() - start;
		pid_t holder;
		int r;

		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return 1; /* ENOLCK, ENOSYS, ...: no locks here */
		holder = read_holder(p, fd);
		if (timeout_ms >= 0 && waited >= (uint64_t)timeout_ms)
			return busy(key, holder, e);
		if (on_wait && waited >= tell_at) {
			r = on_wait(ctx, holder, waited);
			if (r < 0) {
				(void)busy(key, holder, e);
				e->code = r;
				return r;
			}
			tell_at = waited + LOCK_TELL_MS;
		}
		r = cancel_check(cancel_fd, LOCK_POLL_MS, e);
		if (r < 0)
			return r;
	}
	return 0;
}

int publish_lock_key(struct publisher *p, const struct digest *key, int timeout_ms, int cancel_fd,
	publish_wait_fn on_wait, void *ctx, struct publish_lock *ret, struct err *e)
{
	char hex[DIGEST_HEX_SIZE], path[sizeof("locks/") + DIGEST_HEX_SIZE];
	_cleanup_close_ int fd = -1;
	int r;

	(void)snprintf(path, sizeof(path), "locks/%s", digest_hex(key, hex));
	fd = openat(p->store.root_fd, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
	if (fd < 0)
		return err_set_host(e, -errno, "cannot open the lock `%s/%s`", p->store.path, path);
	r = wait_for(p, fd, key, timeout_ms, cancel_fd, on_wait, ctx, e);
	if (r > 0) {
		ret->fd = -1;
		return 0;
	}
	if (r < 0)
		return r;
	write_holder(p, fd);
	ret->fd = take_fd(&fd);
	return 0;
}

void publish_lock_release(struct publish_lock *l)
{
	int saved = errno;

	if (l->fd >= 0)
		(void)!ftruncate(l->fd, 0);
	close_fdp(&l->fd);
	errno = saved;
}
