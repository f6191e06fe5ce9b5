#include "plan/guest_path.h"

#include <string.h>

int guest_path_check(const char *s, size_t len, struct err *e)
{
	char shown[128];

	(void)err_sanitize(shown, sizeof(shown), s, len);
	if (len == 0 || s[0] != '/')
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "found `%s`, expected an absolute path", shown);
	if (len > GUEST_PATH_MAX_BYTES)
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "found a path of %zu bytes, expected at most %d", len,
			GUEST_PATH_MAX_BYTES);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 0x7f)
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "found `%s` with a control character, expected none",
				shown);
	for (size_t i = 1; len > 1 && i <= len;) {
		const char *slash = memchr(s + i, '/', len - i);
		size_t n = slash ? (size_t)(slash - (s + i)) : len - i;

		if (n == 0)
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
				"found `%s`, expected a path without `//` and without a slash at its end", shown);
		if ((n == 1 && s[i] == '.') || (n == 2 && s[i] == '.' && s[i + 1] == '.'))
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "found `%s`, expected a path without `.` and `..` parts",
				shown);
		if (n > GUEST_PATH_PART_MAX_BYTES)
			return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "found a name of %zu bytes in `%s`, expected at most %d",
				n, shown, GUEST_PATH_PART_MAX_BYTES);
		i += n + 1;
	}
	return 0;
}

int guest_path_parse(const char *s, size_t len, struct guest_path *ret, struct err *e)
{
	int r = guest_path_check(s, len, e);
	char *copy;

	if (r < 0)
		return r;
	copy = strndup(s, len);
	if (!copy)
		return err_set(e, -ENOMEM, "out of memory");
	ret->text = copy;
	return 0;
}

void guest_path_release(struct guest_path *p)
{
	freep(&p->text);
}
