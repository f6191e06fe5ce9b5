#include "initrd/init/util.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int fail_set(struct fail *f, const char *reason, const char *fmt, ...)
{
	va_list ap;

	if (f->reason[0])
		return -1;
	(void)snprintf(f->reason, sizeof(f->reason), "%s", reason);
	va_start(ap, fmt);
	(void)vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	return -1;
}

int fail_from_status(struct fail *f, int status, const char *what)
{
	if (f->reason[0])
		return -1;
	if (WIFSIGNALED(status)) {
		f->signal = WTERMSIG(status);
		return fail_set(
			f, "signal", "%s was ended by signal %d (%s)", what, f->signal, strsignal(f->signal));
	}
	f->exit = WEXITSTATUS(status);
	return fail_set(f, "exit", "%s ended with status %d", what, f->exit);
}

void text_init(struct text *t, char *data, size_t size)
{
	*t = (struct text){ .data = data, .size = size };
	data[0] = '\0';
}

void text_add(struct text *t, const char *s, size_t len)
{
	if (len > t->size - 1 - t->len) {
		t->overflow = true;
		return;
	}
	memcpy(t->data + t->len, s, len);
	t->len += len;
	t->data[t->len] = '\0';
}

void text_addf(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->data + t->len, t->size - t->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= t->size - t->len) {
		t->data[t->len] = '\0';
		t->overflow = true;
		return;
	}
	t->len += (size_t)n;
}

void say(const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	size_t len;
	int n;

	n = snprintf(line, sizeof(line), "imgbuild-init: ");
	va_start(ap, fmt);
	(void)vsnprintf(line + n, sizeof(line) - (size_t)n - 1, fmt, ap);
	va_end(ap);
	len = strlen(line);
	line[len++] = '\n';
	(void)write_all(STDERR_FILENO, line, len);
}

int write_all(int fd, const void *bytes, size_t len)
{
	const char *p = bytes;

	while (len > 0) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			struct pollfd pfd = { .fd = fd, .events = POLLOUT };

			(void)poll(&pfd, 1, 1000);
			continue;
		}
		if (n < 0)
			return -errno;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

ssize_t read_text_at(int dirfd, const char *path, char *buf, size_t size)
{
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, buf + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			n = -errno;
			(void)close(fd);
			return n;
		}
		if (n == 0)
			break;
		len += (size_t)n;
		if (len == size) {
			(void)close(fd);
			return -E2BIG;
		}
	}
	(void)close(fd);
	buf[len] = '\0';
	return (ssize_t)len;
}

int read_alloc_at(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len)
{
	int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *data = NULL;
	ssize_t n = 0;
	int r = 0;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (!S_ISREG(st.st_mode))
		r = -EINVAL;
	else if ((uint64_t)st.st_size > max)
		r = -E2BIG;
	else if (!(data = malloc((size_t)st.st_size + 1)))
		r = -ENOMEM;
	size_t len = 0;
	while (r == 0 && len < (size_t)st.st_size &&
		(n = read(fd, data + len, (size_t)st.st_size - len)) != 0) {
		if (n < 0 && errno != EINTR)
			r = -errno;
		else if (n > 0)
			len += (size_t)n;
	}
	(void)close(fd);
	if (r < 0) {
		free(data);
		return r;
	}
	data[len] = '\0';
	*ret = data;
	*ret_len = len;
	return 0;
}

uint64_t now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void sleep_ms(unsigned ms)
{
	struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}
