#include "builder/packages/pins.h"
#include "builder/packages/deb822.h"
#include "builder/packages/sources.h"

#include <fnmatch.h>
#include <limits.h>
#include <regex.h>
#include <string.h>
#include <strings.h>

/* A name, a glob, or a regular expression between slashes. */
struct pattern {
	char *text;
	bool is_regex;
	regex_t regex;
};

enum pin_kind { PIN_RELEASE, PIN_VERSION, PIN_ORIGIN };

/* "a=stable": the field's letter, 0 for a bare word (archive, codename or version). */
struct condition {
	char field;
	struct pattern value;
};

enum { CONDITIONS_MAX = 8 };

struct apt_pin {
	bool general; /* Package: * */
	bool by_source; /* Package: src:NAME */
	struct pattern package;
	enum pin_kind kind;
	struct pattern value; /* of version and origin */
	struct condition conditions[CONDITIONS_MAX];
	size_t n_conditions;
	int priority;
};

static void pattern_release(struct pattern *p)
{
	if (p->is_regex)
		regfree(&p->regex);
	free(p->text);
	*p = (struct pattern){ 0 };
}

static void pin_release(struct apt_pin *p)
{
	pattern_release(&p->package);
	pattern_release(&p->value);
	for (size_t i = 0; i < p->n_conditions; i++)
		pattern_release(&p->conditions[i].value);
	*p = (struct apt_pin){ 0 };
}

void apt_pins_release(struct apt_pins *pins)
{
	for (size_t i = 0; i < pins->n; i++)
		pin_release(&pins->items[i]);
	free(pins->items);
	free(pins->target_release);
	*pins = (struct apt_pins){ 0 };
}

static int pattern_init(struct pattern *p, const char *text, size_t len, const char *where, struct err *e)
{
	size_t braces = 0;

	if (len == 0 || len > PIN_PATTERN_MAX_BYTES || memchr(text, '\0', len))
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: a pattern must have 1 to %d characters", where,
			PIN_PATTERN_MAX_BYTES);
	p->text = strndup(text, len);
	if (!p->text)
		return err_set(e, -ENOMEM, "out of memory");
	if (len < 2 || text[0] != '/' || text[len - 1] != '/')
		return 0;
	memmove(p->text, p->text + 1, len - 2);
	p->text[len - 2] = '\0';
	for (const char *c = p->text; *c; c++)
		braces += *c == '{';
	if (braces > 1 || regcomp(&p->regex, p->text, REG_EXTENDED | REG_ICASE | REG_NOSUB) != 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: `%s` is no usable regular expression", where, p->text);
	p->is_regex = true;
	return 0;
}

static bool pattern_matches(const struct pattern *p, const char *s)
{
	if (p->is_regex)
		return regexec(&p->regex, s, 0, NULL, 0) == 0;
	return strcasecmp(p->text, s) == 0 || fnmatch(p->text, s, FNM_CASEFOLD) == 0;
}

/* "a=stable, c=main" or one bare word. */
static int take_conditions(struct apt_pin *pin, struct deb822_value v, const char *where, struct err *e)
{
	while (v.len > 0) {
		const char *comma = memchr(v.s, ',', v.len);
		struct deb822_value one = { v.s, comma ? (size_t)(comma - v.s) : v.len };
		struct condition *c = &pin->conditions[pin->n_conditions];
		int r;

		v.s += one.len + (comma ? 1 : 0);
		v.len -= one.len + (comma ? 1 : 0);
		one = deb822_trim(one);
		if (one.len == 0)
			continue;
		if (pin->n_conditions == CONDITIONS_MAX)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: more than %d conditions", where, CONDITIONS_MAX);
		c->field = 0;
		if (one.len > 2 && one.s[1] == '=') {
			c->field = one.s[0];
			one.s += 2;
			one.len -= 2;
			if (!strchr("anolcvb", c->field))
				return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: `%c=` is none of a=, n=, o=, l=, c=, v=, b=",
					where, c->field);
		}
		if (one.len >= 2 && one.s[0] == '"' && one.s[one.len - 1] == '"') {
			one.s++;
			one.len -= 2;
		}
		pin->n_conditions++;
		r = pattern_init(&c->value, one.s, one.len, where, e);
		if (r < 0)
			return r;
	}
	return pin->n_conditions ? 0 : err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: `Pin: release` without a condition", where);
}

/* What stands behind "Pin:". */
static int take_pin(struct apt_pin *pin, struct deb822_value v, const char *where, struct err *e)
{
	size_t word = 0;
	struct deb822_value kind, rest;

	while (word < v.len && v.s[word] != ' ' && v.s[word] != '\t')
		word++;
	kind = (struct deb822_value){ v.s, word };
	rest = deb822_trim((struct deb822_value){ v.s + word, v.len - word });
	if (deb822_is(kind, "release")) {
		pin->kind = PIN_RELEASE;
		return take_conditions(pin, rest, where, e);
	}
	if (deb822_is(kind, "version"))
		pin->kind = PIN_VERSION;
	else if (deb822_is(kind, "origin"))
		pin->kind = PIN_ORIGIN;
	else
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: Pin is release, version or origin", where);
	if (rest.len >= 2 && rest.s[0] == '"' && rest.s[rest.len - 1] == '"') {
		rest.s++;
		rest.len -= 2;
	}
	/* origin "": this machine's own packages; no list has that site. */
	if (pin->kind == PIN_ORIGIN && rest.len == 0)
		return pattern_init(&pin->value, "(local)", 7, where, e);
	return pattern_init(&pin->value, rest.s, rest.len, where, e);
}

static int parse_priority(struct deb822_value v, int *ret)
{
	_cleanup_free_ char *text = deb822_dup(v);
	char *end;
	long n;

	if (!text)
		return -ENOMEM;
	errno = 0;
	n = strtol(text, &end, 10);
	if (errno || end == text || *end || n < SHRT_MIN || n > SHRT_MAX || n == 0)
		return -EINVAL;
	*ret = (int)n;
	return 0;
}

static int add_pin(struct apt_pins *pins, const struct deb822_stanza *st, const char *package, int priority, const char *where,
	struct err *e)
{
	struct apt_pin *items = reallocarray(pins->items, pins->n + 1, sizeof(*items));
	struct apt_pin *pin;
	int r = 0;

	if (!items)
		return err_set(e, -ENOMEM, "out of memory");
	pins->items = items;
	pin = &items[pins->n];
	*pin = (struct apt_pin){ .priority = priority };
	if (strcmp(package, "*") == 0) {
		pin->general = true;
	} else {
		size_t len;

		if (strncmp(package, "src:", 4) == 0) {
			pin->by_source = true;
			package += 4;
		}
		len = package[0] == '/' ? strlen(package) : strcspn(package, ":");
		r = pattern_init(&pin->package, package, len, where, e);
	}
	if (r == 0)
		r = take_pin(pin, deb822_get(st, "Pin"), where, e);
	if (r < 0) {
		pin_release(pin);
		return r;
	}
	pins->n++;
	return 0;
}

int apt_pins_parse(const char *text, size_t len, const char *label, struct apt_pins *ret, struct err *e)
{
	struct deb822_reader reader;
	struct deb822_stanza st;
	int r;

	deb822_reader_init(&reader, text, len, label);
	while ((r = deb822_next(&reader, &st, e)) > 0) {
		struct deb822_value package = deb822_get(&st, "Package"), pin = deb822_get(&st, "Pin");
		_cleanup_strv_ struct strv words = { 0 };
		char where[512];
		int priority;

		(void)snprintf(where, sizeof(where), "%s:%u", label, st.line);
		if (!package.s && !pin.s)
			continue; /* an Explanation that stands alone */
		if (!package.s || !pin.s)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: a record needs Package and Pin", where);
		if (parse_priority(deb822_get(&st, "Pin-Priority"), &priority) < 0)
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG,
				"%s: Pin-Priority must be a whole number other than 0, within %d and %d", where, SHRT_MIN, SHRT_MAX);
		if (deb822_words(package, false, &words) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		for (size_t i = 0; i < words.n; i++) {
			if (ret->n == PINS_MAX)
				return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: more than %d records", where, PINS_MAX);
			r = add_pin(ret, &st, words.items[i], priority, where, e);
			if (r < 0)
				return r;
		}
	}
	return r;
}

static int read_file(const struct pkg_host_fs *fs, const char *path, struct apt_pins *ret, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(PINS_FILE_MAX_BYTES);
	int r = fs->read_file(fs->ctx, path, &text, e);

	if (r == -ENOENT) {
		err_clear(e);
		return 0;
	}
	if (r < 0)
		return err_wrap(e, "reading the preferences `%s`", path);
	return apt_pins_parse(buf_str(&text), text.len, path, ret, e);
}

int apt_pins_read(const struct pkg_host_fs *fs, struct apt_pins *ret, struct err *e)
{
	static const char dir[] = "/etc/apt/preferences.d";
	_cleanup_strv_ struct strv names = { 0 };
	int r = read_file(fs, "/etc/apt/preferences", ret, e);

	if (r < 0)
		return r;
	r = fs->list_dir(fs->ctx, dir, &names, e);
	if (r == -ENOENT) {
		err_clear(e);
		return 0;
	}
	if (r < 0)
		return err_wrap(e, "listing `%s`", dir);
	strv_sort(&names);
	for (size_t i = 0; i < names.n && r == 0; i++) {
		_cleanup_free_ char *path = NULL;
		const char *dot = strrchr(names.items[i], '.');

		if (!apt_part_name_valid(names.items[i]) || (dot && strcmp(dot, ".pref") != 0))
			continue;
		if (asprintf(&path, "%s/%s", dir, names.items[i]) < 0) {
			path = NULL;
			return err_set(e, -ENOMEM, "out of memory");
		}
		r = read_file(fs, path, ret, e);
	}
	return r;
}

static bool condition_matches(const struct condition *c, const struct apt_origin *o)
{
	switch (c->field) {
	case 'a':
		return pattern_matches(&c->value, o->archive);
	case 'n':
		return pattern_matches(&c->value, o->codename);
	case 'o':
		return pattern_matches(&c->value, o->origin);
	case 'l':
		return pattern_matches(&c->value, o->label);
	case 'c':
		return pattern_matches(&c->value, o->component);
	case 'v':
		return pattern_matches(&c->value, o->version);
	case 'b':
		return pattern_matches(&c->value, o->arch);
	default:
		return pattern_matches(&c->value, o->archive) || pattern_matches(&c->value, o->codename) ||
		       pattern_matches(&c->value, o->version);
	}
}

/* Whether the pin speaks of versions from this list (version pins speak of all lists). */
static bool pin_matches_origin(const struct apt_pin *pin, const struct apt_origin *o)
{
	if (pin->kind == PIN_ORIGIN)
		return pattern_matches(&pin->value, o->site);
	for (size_t i = 0; i < pin->n_conditions; i++)
		if (!condition_matches(&pin->conditions[i], o))
			return false;
	return true;
}

int apt_pins_origin_priority(const struct apt_pins *pins, const struct apt_origin *o)
{
	for (size_t i = 0; i < pins->n; i++)
		if (pins->items[i].general && pins->items[i].kind != PIN_VERSION && pin_matches_origin(&pins->items[i], o))
			return pins->items[i].priority;
	if (pins->target_release && (strcmp(pins->target_release, o->archive) == 0 ||
		strcmp(pins->target_release, o->codename) == 0 || fnmatch(pins->target_release, o->version, 0) == 0))
		return PIN_TARGET_RELEASE;
	if (o->not_automatic)
		return o->but_automatic_upgrades ? PIN_INSTALLED : PIN_NOT_AUTOMATIC;
	return PIN_DEFAULT;
}

int apt_pins_version_priority(const struct apt_pins *pins, const struct apt_origin *o, const char *name,
	const char *source, const char *version, int fallback)
{
	for (size_t i = 0; i < pins->n; i++) {
		const struct apt_pin *pin = &pins->items[i];

		if (pin->general || !pattern_matches(&pin->package, pin->by_source ? source : name))
			continue;
		if (pin->kind == PIN_VERSION ? pattern_matches(&pin->value, version) : pin_matches_origin(pin, o))
			return pin->priority;
	}
	return fallback;
}
