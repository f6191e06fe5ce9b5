#include "lib/text_diff.h"

#include <stdint.h>
#include <string.h>

struct line {
	const char *text;
	size_t len; /* with its newline */
	uint32_t hash;
};

struct lines {
	struct line *items;
	size_t n;
};

void text_diff_release(struct text_diff *d)
{
	free(d->lines);
	*d = (struct text_diff){ 0 };
}

static void lines_release(struct lines *l)
{
	free(l->items);
}

static int split(const char *text, size_t len, struct lines *ret)
{
	size_t n = 0, i = 0;

	for (size_t at = 0; at < len; n++) {
		const char *newline = memchr(text + at, '\n', len - at);

		at = newline ? (size_t)(newline - text) + 1 : len;
	}
	ret->items = calloc(n + 1, sizeof(*ret->items));
	if (!ret->items)
		return -ENOMEM;
	for (size_t at = 0; at < len; i++) {
		const char *newline = memchr(text + at, '\n', len - at);
		size_t end = newline ? (size_t)(newline - text) + 1 : len;
		uint32_t hash = 2166136261u; /* FNV-1a, to tell most lines apart at once */

		for (size_t k = at; k < end; k++)
			hash = (hash ^ (unsigned char)text[k]) * 16777619u;
		ret->items[i] = (struct line){ text + at, end - at, hash };
		at = end;
	}
	ret->n = n;
	return 0;
}

static bool same(const struct line *a, const struct line *b)
{
	return a->hash == b->hash && a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
}

/* An edit script: which lines of each side are changed. */
struct script {
	bool *gone, *new; /* per line of the old and of the new text */
};

static void script_release(struct script *s)
{
	free(s->gone);
	free(s->new);
}

/* The furthest x on each diagonal k after d edits, for all d: row d has d+1 places, for k = -d, -d+2, ..., d. */
static size_t row(size_t d)
{
	return d * (d + 1) / 2;
}

/* Where an edit path on diagonal k comes from: with one line more gone, or one line more new. */
static bool comes_from_above(const int *before, size_t d, size_t i)
{
	/* i counts diagonals from -d: the neighbours k-1 and k+1 are i-1 and i in the row before. */
	return i == 0 || (i < d && before[i - 1] < before[i]);
}

/* Find the shortest script between (a, n) and (b, m), and mark what it changes. Returns 0; -ERANGE it has too many edits; -ENOMEM. */
static int find_script(const struct line *a, size_t n, const struct line *b, size_t m, bool *gone, bool *new)
{
	_cleanup_free_ int *trace = calloc(row(TEXT_DIFF_MAX_EDITS + 1), sizeof(*trace));
	size_t d, i = 0;
	bool found = false;

	if (!trace)
		return -ENOMEM;
	for (d = 0; d <= TEXT_DIFF_MAX_EDITS && !found; d++) {
		const int *before = d > 0 ? trace + row(d - 1) : NULL;
		int *now = trace + row(d);

		for (i = 0; i <= d; i++) {
			int k = 2 * (int)i - (int)d, x = 0, y;

			if (d > 0)
				x = comes_from_above(before, d, i) ? before[i] : before[i - 1] + 1;
			y = x - k;
			while (x >= 0 && y >= 0 && x < (int)n && y < (int)m && same(&a[x], &b[y]))
				x++, y++;
			now[i] = x;
			if (x >= (int)n && y >= (int)m) {
				found = true;
				break;
			}
		}
	}
	if (!found)
		return -ERANGE;
	for (d--; d > 0; d--) {
		const int *before = trace + row(d - 1);
		int k = 2 * (int)i - (int)d;

		if (comes_from_above(before, d, i)) {
			/* A line of b came in: from diagonal k+1, at y = x - (k+1). */
			new[before[i] - (k + 1)] = true;
		} else {
			gone[before[i - 1]] = true;
			i--;
		}
	}
	return 0;
}

static int mark_changes(const struct lines *a, const struct lines *b, struct script *s)
{
	size_t start = 0, end = 0, n, m;
	int r;

	while (start < a->n && start < b->n && same(&a->items[start], &b->items[start]))
		start++;
	while (end < a->n - start && end < b->n - start && same(&a->items[a->n - 1 - end], &b->items[b->n - 1 - end]))
		end++;
	n = a->n - start - end;
	m = b->n - start - end;
	r = n <= TEXT_DIFF_MAX_LINES && m <= TEXT_DIFF_MAX_LINES ?
		    find_script(a->items + start, n, b->items + start, m, s->gone + start, s->new + start) :
		    -ERANGE;
	if (r != -ERANGE)
		return r;
	for (size_t i = 0; i < n; i++)
		s->gone[start + i] = true;
	for (size_t i = 0; i < m; i++)
		s->new[start + i] = true;
	return 0;
}

/* What is put together line by line, with what is around the changes. */
struct writer {
	const struct lines *a, *b;
	struct text_diff *out;
	size_t max_lines, capacity;
	bool skipped;
};

static int write_line(struct writer *w, char mark, size_t x, size_t y)
{
	const struct line *line = mark == '+' ? &w->b->items[y] : &w->a->items[x];
	bool newline = line->len > 0 && line->text[line->len - 1] == '\n';

	if (w->out->n >= w->max_lines) {
		w->out->cut = true;
		return 0;
	}
	if (w->out->n == w->capacity) {
		size_t more = w->capacity ? 2 * w->capacity : 32;
		struct text_line *lines = reallocarray(w->out->lines, more, sizeof(*lines));

		if (!lines)
			return -ENOMEM;
		w->out->lines = lines;
		w->capacity = more;
	}
	w->out->lines[w->out->n] = (struct text_line){ .mark = mark,
		.starts_hunk = w->skipped || w->out->n == 0,
		.old_number = x + 1,
		.new_number = y + 1,
		.text = line->text,
		.len = line->len - newline,
		.no_newline = !newline };
	w->out->n++;
	w->skipped = false;
	return 0;
}

/* A run of lines that are the same: those next to a change are shown. Returns its length. */
static size_t write_same(struct writer *w, const struct script *s, size_t x, size_t y, int *r)
{
	size_t run = 0, head, tail;

	while (x + run < w->a->n && y + run < w->b->n && !s->gone[x + run] && !s->new[y + run])
		run++;
	head = x == 0 && y == 0 ? 0 : TEXT_DIFF_CONTEXT_LINES;
	tail = x + run == w->a->n && y + run == w->b->n ? 0 : TEXT_DIFF_CONTEXT_LINES;
	for (size_t i = 0; *r == 0 && i < run; i++) {
		if (i < head || run - i <= tail)
			*r = write_line(w, ' ', x + i, y + i);
		else
			w->skipped = true;
	}
	return run;
}

static int write_changes(struct writer *w, const struct script *s)
{
	size_t x = 0, y = 0;
	int r = 0;

	while (r == 0 && (x < w->a->n || y < w->b->n)) {
		if (x < w->a->n && s->gone[x]) {
			r = write_line(w, '-', x++, y);
		} else if (y < w->b->n && s->new[y]) {
			r = write_line(w, '+', x, y++);
		} else {
			size_t run = write_same(w, s, x, y, &r);

			x += run;
			y += run;
		}
	}
	return r;
}

int text_diff(const char *old_text, size_t old_len, const char *new_text, size_t new_len, size_t max_lines,
	struct text_diff *ret, struct err *e)
{
	_cleanup_(lines_release) struct lines a = { 0 }, b = { 0 };
	_cleanup_(script_release) struct script s = { 0 };
	struct writer w = { .a = &a, .b = &b, .out = ret, .max_lines = max_lines };
	int r = split(old_text, old_len, &a);

	if (r == 0)
		r = split(new_text, new_len, &b);
	if (r == 0) {
		s.gone = calloc(a.n + 1, sizeof(*s.gone));
		s.new = calloc(b.n + 1, sizeof(*s.new));
		r = s.gone && s.new ? mark_changes(&a, &b, &s) : -ENOMEM;
	}
	if (r == 0)
		r = write_changes(&w, &s);
	if (r < 0) {
		text_diff_release(ret);
		return err_set(e, r, "out of memory for the lines that differ");
	}
	return 0;
}

void text_diff_hunk_size(const struct text_diff *d, size_t i, size_t *ret_old, size_t *ret_new)
{
	size_t olds = 0, news = 0;

	for (size_t k = i; k < d->n && (k == i || !d->lines[k].starts_hunk); k++) {
		olds += d->lines[k].mark != '+';
		news += d->lines[k].mark != '-';
	}
	*ret_old = olds;
	*ret_new = news;
}
