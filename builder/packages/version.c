#include "builder/packages/version.h"

#include <ctype.h>
#include <string.h>

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* '~' sorts before the end, the end before letters, letters before all else. */
static int order_of(char c)
{
	if (is_digit(c) || c == '\0')
		return 0;
	if (c == '~')
		return -1;
	if (isalpha((unsigned char)c))
		return (unsigned char)c;
	return (unsigned char)c + 256;
}

/* Compare runs of non-digits by order_of() and runs of digits as numbers, in turn. */
static int compare_part(const char *a, const char *a_end, const char *b, const char *b_end)
{
	while (a < a_end || b < b_end) {
		int first_difference = 0;

		while ((a < a_end && !is_digit(*a)) || (b < b_end && !is_digit(*b))) {
			int oa = a < a_end ? order_of(*a) : 0, ob = b < b_end ? order_of(*b) : 0;

			if (oa != ob)
				return oa - ob;
			a++;
			b++;
		}
		while (a < a_end && *a == '0')
			a++;
		while (b < b_end && *b == '0')
			b++;
		while (a < a_end && b < b_end && is_digit(*a) && is_digit(*b)) {
			if (!first_difference)
				first_difference = *a - *b;
			a++;
			b++;
		}
		if (a < a_end && is_digit(*a))
			return 1;
		if (b < b_end && is_digit(*b))
			return -1;
		if (first_difference)
			return first_difference;
	}
	return 0;
}

/* Split off the epoch (as text: "0" when there is none) and the revision (empty when there is none, which equals "0"). */
struct split_version {
	const char *epoch, *epoch_end, *upstream, *upstream_end, *revision, *revision_end;
};

static struct split_version split(const char *v)
{
	const char *end = v + strlen(v), *colon = strchr(v, ':'), *dash;
	struct split_version s = { .epoch = "0" };

	s.epoch_end = s.epoch + 1;
	if (colon) {
		s.epoch = v;
		s.epoch_end = colon;
		v = colon + 1;
	}
	dash = strrchr(v, '-');
	s.upstream = v;
	s.upstream_end = dash ? dash : end;
	s.revision = dash ? dash + 1 : end;
	s.revision_end = end;
	return s;
}

int deb_version_compare(const char *a, const char *b)
{
	struct split_version sa = split(a), sb = split(b);
	int r = compare_part(sa.epoch, sa.epoch_end, sb.epoch, sb.epoch_end);

	if (r == 0)
		r = compare_part(sa.upstream, sa.upstream_end, sb.upstream, sb.upstream_end);
	if (r == 0)
		r = compare_part(sa.revision, sa.revision_end, sb.revision, sb.revision_end);
	return r;
}

bool deb_version_satisfies(const char *version, enum deb_version_op op, const char *wanted)
{
	int c = op == DEB_VERSION_ANY ? 0 : deb_version_compare(version, wanted);

	switch (op) {
	case DEB_VERSION_ANY:
		return true;
	case DEB_VERSION_LT:
		return c < 0;
	case DEB_VERSION_LE:
		return c <= 0;
	case DEB_VERSION_EQ:
		return c == 0;
	case DEB_VERSION_GE:
		return c >= 0;
	case DEB_VERSION_GT:
		return c > 0;
	}
	return false;
}

const char *deb_version_op_name(enum deb_version_op op)
{
	static const char *const names[] = { "", "<<", "<=", "=", ">=", ">>" };

	return names[op];
}

bool deb_version_valid(const char *s, size_t len)
{
	if (len == 0 || len > 256 || !is_digit(s[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)s[i]) && !memchr(".+-~:", s[i], 5))
			return false;
	return true;
}
