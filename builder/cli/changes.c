#include "builder/cli/changes.h"

#include <string.h>

enum { DIGEST_SHOWN = 12, CLEAN_MAX_BYTES = 9000 };

int changes_begin(struct changes *c, struct terminal *t, const struct options *o, struct err *e)
{
	*c = (struct changes){ .terminal = t, .array = o->json ? json_array() : NULL };
	return o->json && !c->array ? err_set(e, -ENOMEM, "out of memory") : 0;
}

/* A digest, shortened for people; any other text as it is. */
static const char *shown(const char *text, char short_text[static DIGEST_SHOWN + 8])
{
	size_t n = strspn(text, "0123456789abcdef");

	if (text[n] || (n != DIGEST_SHA256_HEX_SIZE - 1 && n != DIGEST_HEX_SIZE - 1))
		return text;
	(void)snprintf(short_text, DIGEST_SHOWN + 8, "%.*s…", DIGEST_SHOWN, text);
	return short_text;
}

/* A lock may be a stranger's: nothing of it reaches the terminal as it is. */
static const char *clean_text(char out[static CLEAN_MAX_BYTES], const char *text)
{
	return err_sanitize(out, CLEAN_MAX_BYTES, text, strlen(text));
}

static void print_change(enum arch arch, const struct lock_change *change)
{
	/* These have the name of something else, or of a package. */
	const char *what = change->kind == LOCK_CHANGE_TRUST   ? "trust in " :
			   change->kind == LOCK_CHANGE_KEYRING ? "keyring " :
								 "";
	char old_text[DIGEST_SHOWN + 8], new_text[DIGEST_SHOWN + 8], clean[3][CLEAN_MAX_BYTES];
	const char *was = clean_text(clean[0], shown(change->old_text, old_text));
	const char *is = clean_text(clean[1], shown(change->new_text, new_text));
	const char *name = clean_text(clean[2], change->name);

	if (!*was || !*is)
		(void)printf("%s %s%s %s %s\n", arch_name(arch), what, name, *was ? was : is, *was ? "(gone)" : "(new)");
	else
		(void)printf("%s %s%s %s -> %s\n", arch_name(arch), what, name, was, is);
}

static json_t *change_object(enum arch arch, const struct lock_change *change)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:o}", "arch", arch_name(arch), "kind", lock_change_kind_name(change->kind), "name",
		change->name, "old", *change->old_text ? json_string(change->old_text) : json_null(), "new",
		*change->new_text ? json_string(change->new_text) : json_null());
}

int changes_add(struct changes *c, enum arch arch, const struct lock_arch *was, const struct lock_arch *is, struct err *e)
{
	_cleanup_lock_changes_ struct lock_changes found = { 0 };
	int r = lock_diff(was, is, &found, e);

	if (r == 0 && found.n > 0)
		terminal_clear(c->terminal);
	for (size_t i = 0; r == 0 && i < found.n; i++) {
		if (!c->array)
			print_change(arch, &found.items[i]);
		else if (json_array_append_new(c->array, change_object(arch, &found.items[i])) < 0)
			r = err_set(e, -ENOMEM, "out of memory");
	}
	c->n += found.n;
	return r;
}

void changes_end(struct changes *c)
{
	if (!c->array)
		return;
	terminal_clear(c->terminal);
	(void)json_dumpf(c->array, stdout, JSON_COMPACT);
	(void)fputc('\n', stdout);
	json_decref(c->array);
	c->array = NULL;
}
