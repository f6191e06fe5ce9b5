#include "initrd/init/json.h"

#include <errno.h>
#include <string.h>

/* The length of the valid UTF-8 sequence at p, or 0. SOURCE: RFC 3629 section 4. */
static size_t utf8_length(const unsigned char *p, size_t len)
{
	size_t n = p[0] < 0x80                    ? 1
		   : p[0] >= 0xc2 && p[0] <= 0xdf ? 2
		   : (p[0] & 0xf0) == 0xe0        ? 3
		   : p[0] >= 0xf0 && p[0] <= 0xf4 ? 4
						  : 0;

	if (n == 0 || n > len)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
		(p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return n;
}

size_t utf8_incomplete_tail(const char *bytes, size_t len)
{
	for (size_t back = 1; back <= 3 && back <= len; back++) {
		unsigned char c = (unsigned char)bytes[len - back];

		if ((c & 0xc0) == 0x80)
			continue;
		size_t want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;

		return want > back ? back : 0;
	}
	return 0;
}

void json_add_string(struct text *t, const char *bytes, size_t len)
{
	const unsigned char *p = (const unsigned char *)bytes;

	text_add(t, "\"", 1);
	while (len > 0) {
		size_t n = utf8_length(p, len);

		if (n == 0) {
			text_add(t, "\xef\xbf\xbd", 3);
			n = 1;
		} else if (*p == '"' || *p == '\\') {
			char escaped[2] = { '\\', (char)*p };

			text_add(t, escaped, 2);
		} else if (*p == '\n') {
			text_add(t, "\\n", 2);
		} else if (*p == '\t') {
			text_add(t, "\\t", 2);
		} else if (*p == '\r') {
			text_add(t, "\\r", 2);
		} else if (*p < 0x20 || *p == 0x7f) {
			text_addf(t, "\\u%04x", *p);
		} else {
			text_add(t, (const char *)p, n);
		}
		p += n;
		len -= n;
	}
	text_add(t, "\"", 1);
}

static const char *skip_space(const char *p)
{
	return p + strspn(p, " \t\r\n");
}

/* Step over the string at p (its opening quote), decoding it into *out where that is not NULL. NULL when it
 * does not end. */
static const char *read_string(const char *p, struct text *out)
{
	for (p++; *p && *p != '"'; p++) {
		char c = *p;

		if (c == '\\') {
			static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
			const char *at;

			p++;
			if (*p == 'u') {
				if (strspn(p + 1, "0123456789abcdefABCDEF") < 4)
					return NULL;
				unsigned v = 0;

				for (int i = 1; i <= 4; i++) {
					char d = p[i];

					v = v * 16 + (unsigned)(d <= '9' ? d - '0' : (d | 0x20) - 'a' + 10);
				}
				c = v > 0 && v < 0x80 ? (char)v : '?';
				p += 4;
			} else if (*p && (at = strchr(from, *p))) {
				c = to[at - from];
			} else {
				return NULL;
			}
		}
		if (out)
			text_add(out, &c, 1);
	}
	return *p == '"' ? p + 1 : NULL;
}

/* Step over any value at p; NULL when it is none. Depth is not followed by recursion: brackets are counted.
 */
static const char *skip_value(const char *p)
{
	unsigned depth = 0;

	do {
		p = skip_space(p);
		if (*p == '"') {
			p = read_string(p, NULL);
			if (!p)
				return NULL;
		} else if (*p == '{' || *p == '[') {
			depth++;
			p++;
		} else if (*p == '}' || *p == ']') {
			if (depth == 0)
				return NULL;
			depth--;
			p++;
		} else if (depth > 0 && (*p == ',' || *p == ':')) {
			p++;
		} else {
			size_t n = strcspn(p, ",:{}[]\" \t\r\n");

			if (n == 0)
				return NULL;
			p += n;
		}
	} while (depth > 0);
	return p;
}

int json_get(const char *line, const char *key, char *out, size_t out_size)
{
	const char *p = skip_space(line);
	int r = -ENOENT;

	if (*p != '{')
		return -EBADMSG;
	p = skip_space(p + 1);
	while (*p != '}') {
		char name[64];
		struct text name_text, value;
		const char *start;

		text_init(&name_text, name, sizeof(name));
		if (*p != '"' || !(p = read_string(p, &name_text)))
			return -EBADMSG;
		p = skip_space(p);
		if (*p != ':')
			return -EBADMSG;
		start = skip_space(p + 1);
		p = skip_value(start);
		if (!p)
			return -EBADMSG;
		if (!name_text.overflow && strcmp(name, key) == 0) {
			text_init(&value, out, out_size);
			if (*start == '"')
				(void)read_string(start, &value);
			else
				text_add(&value, start, (size_t)(p - start));
			r = value.overflow ? -EBADMSG : 0;
		}
		p = skip_space(p);
		if (*p == ',')
			p = skip_space(p + 1);
		else if (*p != '}')
			return -EBADMSG;
	}
	return *skip_space(p + 1) == '\0' ? r : -EBADMSG;
}
