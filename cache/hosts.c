#include "cache/hosts.h"

#include <stdlib.h>
#include <string.h>

struct host {
	char *name;
	bool answered;
	unsigned silent_files; /* since it answered last */
	unsigned told; /* how many attempts without an answer were told */
	struct err why; /* code 0: nothing is known against it */
};

/* Find or add it; NULL when memory ran out, which costs only time. */
static struct host *find(struct hosts *h, const char *name)
{
	for (size_t i = 0; i < h->n; i++)
		if (strcmp(h->items[i].name, name) == 0)
			return &h->items[i];
	if (h->n == h->capacity) {
		size_t capacity = h->capacity ? 2 * h->capacity : 8;
		struct host *items = reallocarray(h->items, capacity, sizeof(*items));

		if (!items)
			return NULL;
		h->items = items;
		h->capacity = capacity;
	}
	h->items[h->n] = (struct host){ .name = strdup(name) };
	return h->items[h->n].name ? &h->items[h->n++] : NULL;
}

void hosts_answered(struct hosts *h, const char *name)
{
	struct host *host = find(h, name);

	if (!host)
		return;
	host->answered = true;
	host->silent_files = 0;
	err_clear(&host->why);
}

bool hosts_tell_silence(struct hosts *h, const char *name, unsigned n)
{
	struct host *host = find(h, name);

	if (!host || host->answered)
		return true;
	if (n <= host->told)
		return false;
	host->told = n;
	return true;
}

void hosts_stayed_silent(struct hosts *h, const char *name, const struct err *why)
{
	struct host *host = find(h, name);

	if (!host)
		return;
	host->silent_files++;
	if (!host->answered || host->silent_files >= HOSTS_SILENT_FILES_MAX)
		host->why = *why;
}

const struct err *hosts_given_up(const struct hosts *h, const char *name)
{
	for (size_t i = 0; i < h->n; i++)
		if (strcmp(h->items[i].name, name) == 0)
			return h->items[i].why.code ? &h->items[i].why : NULL;
	return NULL;
}

void hosts_release(struct hosts *h)
{
	for (size_t i = 0; i < h->n; i++)
		free(h->items[i].name);
	free(h->items);
	*h = (struct hosts){ 0 };
}
