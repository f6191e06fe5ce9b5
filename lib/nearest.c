#include "lib/nearest.h"

#include <string.h>

enum { NEAREST_MAX_BYTES = 64 };

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	unsigned m = a < b ? a : b;

	return m < c ? m : c;
}

/* Optimal string alignment distance, with three rows. */
static unsigned edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned rows[3][NEAREST_MAX_BYTES + 1];

	for (size_t j = 0; j <= b_len; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_len; i++) {
		unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b_len; j++) {
			unsigned cost = a[i - 1] != b[j - 1];

			row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + cost);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && above2[j - 2] + 1 < row[j])
				row[j] = above2[j - 2] + 1;
		}
	}
	return rows[a_len % 3][b_len];
}

const char *nearest_name(const char *const *names, size_t n, const char *word)
{
	size_t len = strlen(word);
	unsigned best = (unsigned)(len / 3 > 0 ? len / 3 : 1) + 1;
	const char *found = NULL;

	if (len > NEAREST_MAX_BYTES)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t name_len = strlen(names[i]);
		unsigned d;

		if (name_len > NEAREST_MAX_BYTES)
			continue;
		d = edit_distance(names[i], name_len, word, len);
		if (d < best) {
			best = d;
			found = names[i];
		}
	}
	return found;
}
