#include "builder/vm/tail.h"

#include "lib/err.h"

#include <string.h>

void tail_add(struct tail *t, const char *line, size_t len)
{
	err_sanitize(t->lines[t->n % TAIL_LINES], TAIL_LINE_MAX_BYTES, line, len);
	t->n++;
}

void tail_copy(const struct tail *t, char *text, size_t size)
{
	size_t kept = t->n < TAIL_LINES ? t->n : TAIL_LINES, first = t->n, used = 0;

	/* Back from the newest for as long as they fit. */
	while (kept > 0) {
		size_t len = strlen(t->lines[(first - 1) % TAIL_LINES]) + 1;

		if (used + len >= size)
			break;
		used += len;
		first--;
		kept--;
	}
	for (size_t i = first; i < t->n; i++) {
		const char *line = t->lines[i % TAIL_LINES];

		text = stpcpy(text, line);
		*text++ = '\n';
	}
	*text = '\0';
}

const char *tail_last(const struct tail *t)
{
	for (size_t i = 0; i < TAIL_LINES && i < t->n; i++) {
		const char *line = t->lines[(t->n - 1 - i) % TAIL_LINES];

		if (line[strspn(line, " \t")] != '\0')
			return line;
	}
	return "";
}
