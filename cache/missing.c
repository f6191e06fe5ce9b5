#include "cache/missing.h"

#include <stdlib.h>
#include <string.h>

enum { LIST_MAX_BYTES = 1500 }; /* of an error's 2048, so that what wraps it still fits */

void missing_release(struct missing *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->items[i].label);
		strv_release(&m->items[i].tried);
	}
	free(m->items);
	*m = (struct missing){ 0 };
}

int missing_add(struct missing *m, const struct missing_file *file, struct strv *tried, struct err *e)
{
	size_t label_len = strlen(file->label);
	_cleanup_free_ char *label = malloc(label_len + 1);

	if (m->n == m->capacity) {
		size_t capacity = m->capacity ? 2 * m->capacity : 16;
		struct missing_file *items = reallocarray(m->items, capacity, sizeof(*items));

		if (!items)
			return err_set(e, -ENOMEM, "out of memory");
		m->items = items;
		m->capacity = capacity;
	}
	if (!label)
		return err_set(e, -ENOMEM, "out of memory");
	(void)err_sanitize(label, label_len + 1, file->label, label_len);
	m->items[m->n] = *file;
	m->items[m->n].label = take_ptr(label);
	m->items[m->n].tried = *tried;
	m->n++;
	*tried = (struct strv){ 0 };
	return 0;
}

int missing_describe(const struct missing_file *file, struct buf *into)
{
	const struct digest *d = file->sha256.algorithm != DIGEST_NONE ? &file->sha256 : &file->sha512;
	char hex[DIGEST_HEX_SIZE];
	int r = buf_append_str(into, file->label);

	if (r == 0 && d->algorithm != DIGEST_NONE)
		r = buf_appendf(into, " (%s %s", digest_algorithm_name(d->algorithm), digest_hex(d, hex));
	if (r == 0 && d->algorithm != DIGEST_NONE && file->size_bytes)
		r = buf_appendf(into, ", %llu bytes", (unsigned long long)file->size_bytes);
	return r == 0 && d->algorithm != DIGEST_NONE ? buf_append_str(into, ")") : r;
}

static const char *advice_for(int code)
{
	switch (-code) {
	case ENOENT:
		return "; check the address, or give another with --mirror or --blobs";
	case EHOSTUNREACH:
	case ECONNREFUSED:
	case ETIMEDOUT:
		return "; check the network and the proxy settings (http_proxy, https_proxy, no_proxy)";
	default:
		return "";
	}
}

static int code_of(const struct missing *m)
{
	int code = -ENOENT;

	for (size_t i = 0; i < m->n; i++) {
		if (m->items[i].code == -ENETUNREACH)
			return -ENETUNREACH;
		if (code == -ENOENT)
			code = m->items[i].code;
	}
	return code;
}

/* One file, with the places where it was sought. A list that grows too long is cut; the last places matter least. */
static int error_of_one(const struct missing_file *file, int code, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(LIST_MAX_BYTES);
	int r = missing_describe(file, &text);
	char more[40] = "";
	size_t told = 0;

	while (r == 0 && told < file->tried.n &&
		buf_appendf(&text, "%s%s", told ? "; " : ": ", file->tried.items[told]) == 0)
		told++;
	if (told < file->tried.n)
		(void)snprintf(more, sizeof(more), "; and %zu more", file->tried.n - told);
	if (code == -ENETUNREACH)
		return err_set_kind(e, ERR_KIND_INPUT, code, "--offline, and this is not in the cache: %s%s; run once without --offline",
			buf_str(&text), more);
	return err_set_kind(e, ERR_KIND_INPUT, code, "cannot get %s%s%s", buf_str(&text), more, advice_for(code));
}

int missing_error(const struct missing *m, size_t of, struct err *e)
{
	_cleanup_buf_ struct buf names = BUF_INIT(LIST_MAX_BYTES);
	int code = code_of(m);
	char more[40] = "";
	size_t shown = 0;

	if (m->n == 1)
		return error_of_one(&m->items[0], code, e);
	while (shown < m->n && buf_appendf(&names, "%s%s", shown ? ", " : "", m->items[shown].label) == 0)
		shown++;
	if (shown < m->n)
		(void)snprintf(more, sizeof(more), ", and %zu more", m->n - shown);
	if (code == -ENETUNREACH)
		return err_set_kind(e, ERR_KIND_INPUT, code,
			"--offline, and %zu of %zu files are not in the cache: %s%s; run once without --offline", m->n, of,
			buf_str(&names), more);
	return err_set_kind(e, ERR_KIND_INPUT, code, "cannot get %zu of %zu files: %s%s%s", m->n, of, buf_str(&names), more,
		advice_for(code));
}
