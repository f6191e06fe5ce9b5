#include "lib/strv.h"

#include <stdarg.h>
#include <string.h>

void strv_release(struct strv *v)
{
	for (size_t i = 0; i < v->n; i++)
		free(v->items[i]);
	free(v->items);
	*v = (struct strv){ 0 };
}

int strv_add_take(struct strv *v, char *s)
{
	if (v->n + 2 > v->capacity) {
		size_t capacity = v->capacity ? v->capacity * 2 : 8;
		char **items = reallocarray(v->items, capacity, sizeof(*items));

		if (!items) {
			free(s);
			return -ENOMEM;
		}
		v->items = items;
		v->capacity = capacity;
	}
	v->items[v->n++] = s;
	v->items[v->n] = NULL;
	return 0;
}

int strv_add_len(struct strv *v, const char *s, size_t len)
{
	char *copy = strndup(s, len);

	return copy ? strv_add_take(v, copy) : -ENOMEM;
}

int strv_add(struct strv *v, const char *s)
{
	return strv_add_len(v, s, strlen(s));
}

int strv_addf(struct strv *v, const char *fmt, ...)
{
	char *s = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	return n < 0 ? -ENOMEM : strv_add_take(v, s);
}

int strv_extend(struct strv *v, const struct strv *from)
{
	for (size_t i = 0; i < from->n; i++) {
		int r = strv_add(v, from->items[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

bool strv_contains(const struct strv *v, const char *s)
{
	for (size_t i = 0; i < v->n; i++)
		if (strcmp(v->items[i], s) == 0)
			return true;
	return false;
}

static int compare_items(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void strv_sort(struct strv *v)
{
	if (v->n > 1)
		qsort(v->items, v->n, sizeof(*v->items), compare_items);
}

void strv_uniq(struct strv *v)
{
	size_t kept = 0;

	for (size_t i = 0; i < v->n; i++) {
		if (kept > 0 && strcmp(v->items[kept - 1], v->items[i]) == 0)
			free(v->items[i]);
		else
			v->items[kept++] = v->items[i];
	}
	v->n = kept;
	if (v->items)
		v->items[kept] = NULL;
}
