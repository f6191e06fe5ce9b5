/* toml-test's decoder protocol: TOML on stdin, tagged JSON on stdout; exit status 1 for text that is no TOML.
 *
 * SOURCE: github.com/toml-lang/toml-test, README, "JSON encoding". */
#include "lib/buf.h"
#include "lib/cleanup.h"
#include "lib/io.h"
#include "plan/toml.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static json_t *tagged(const char *type, const char *value, size_t len)
{
	return json_pack("{s:s, s:s%}", "type", type, "value", value, len);
}

static json_t *tagged_float(double real)
{
	char text[64];

	if (isnan(real))
		(void)snprintf(text, sizeof(text), "nan");
	else if (isinf(real))
		(void)snprintf(text, sizeof(text), real < 0 ? "-inf" : "inf");
	else
		(void)snprintf(text, sizeof(text), "%.17g", real);
	return tagged("float", text, strlen(text));
}

static json_t *tagged_datetime(const struct toml_value *v)
{
	const struct toml_datetime *d = &v->datetime;
	const char *type = v->type == TOML_OFFSET_DATETIME ? "datetime"
			   : v->type == TOML_LOCAL_DATETIME ? "datetime-local"
			   : v->type == TOML_LOCAL_DATE	    ? "date-local"
							    : "time-local";
	char text[128];
	size_t n = 0;

	if (v->type != TOML_LOCAL_TIME)
		n += (size_t)snprintf(text, sizeof(text), "%04u-%02u-%02u", d->year, d->month, d->day);
	if (v->type == TOML_OFFSET_DATETIME || v->type == TOML_LOCAL_DATETIME)
		text[n++] = 'T';
	if (v->type != TOML_LOCAL_DATE)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%02u:%02u:%02u", d->hour, d->minute, d->second);
	if (d->nanosecond)
		n += (size_t)snprintf(text + n, sizeof(text) - n, ".%09u", d->nanosecond);
	if (v->type == TOML_OFFSET_DATETIME && d->offset_minutes == 0)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "Z");
	else if (v->type == TOML_OFFSET_DATETIME)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%c%02d:%02d", d->offset_minutes < 0 ? '-' : '+',
			abs(d->offset_minutes) / 60, abs(d->offset_minutes) % 60);
	return tagged(type, text, n);
}

static json_t *to_json(const struct toml_value *v)
{
	char text[32];
	json_t *j;

	switch (v->type) {
	case TOML_STRING:
		return tagged("string", v->string.data, v->string.len);
	case TOML_INTEGER:
		(void)snprintf(text, sizeof(text), "%lld", (long long)v->integer);
		return tagged("integer", text, strlen(text));
	case TOML_FLOAT:
		return tagged_float(v->real);
	case TOML_BOOLEAN:
		return tagged("bool", v->boolean ? "true" : "false", v->boolean ? 4 : 5);
	case TOML_OFFSET_DATETIME:
	case TOML_LOCAL_DATETIME:
	case TOML_LOCAL_DATE:
	case TOML_LOCAL_TIME:
		return tagged_datetime(v);
	case TOML_ARRAY:
		j = json_array();
		for (size_t i = 0; i < v->array.n; i++)
			(void)json_array_append_new(j, to_json(v->array.items[i]));
		return j;
	case TOML_TABLE:
		j = json_object();
		for (size_t i = 0; i < v->table.n; i++)
			(void)json_object_setn_new(j, v->table.members[i].key.data, v->table.members[i].key.len,
				to_json(v->table.members[i].value));
		return j;
	}
	return NULL;
}

int main(void)
{
	_cleanup_buf_ struct buf text = BUF_INIT(TOML_MAX_BYTES + 1);
	_cleanup_toml_ struct toml_doc *doc = NULL;
	struct toml_position at = { 0, 0 };
	struct err e = ERR_INIT;
	json_t *j;
	int r;

	if (read_fd_to_end(STDIN_FILENO, &text) < 0) {
		fputs("toml-decode: cannot read standard input\n", stderr);
		return 2;
	}
	r = toml_parse(buf_str(&text), text.len, &doc, &at, &e);
	if (r < 0) {
		fprintf(stderr, "stdin:%u:%u: %s\n", at.line, at.column, e.message);
		return 1;
	}
	j = to_json(toml_root(doc));
	if (!j || json_dumpf(j, stdout, JSON_INDENT(2)) < 0 || putchar('\n') == EOF || fflush(stdout) == EOF) {
		fputs("toml-decode: cannot write the JSON\n", stderr);
		return 2;
	}
	json_decref(j);
	return 0;
}
