#include "lib/arch.h"
#include "lib/cleanup.h"

#include <string.h>

static const struct {
	const char *name, *machine;
} arches[ARCH_COUNT] = {
	[ARCH_AMD64] = { "amd64", "x86_64" },
	[ARCH_ARM64] = { "arm64", "aarch64" },
};

const char *arch_name(enum arch a)
{
	return arches[a].name;
}

const char *arch_machine(enum arch a)
{
	return arches[a].machine;
}

int arch_parse(const char *s, enum arch *ret)
{
	for (unsigned a = 0; a < ARCH_COUNT; a++)
		if (strcmp(s, arches[a].name) == 0 || strcmp(s, arches[a].machine) == 0) {
			*ret = (enum arch)a;
			return 0;
		}
	return -EINVAL;
}

enum arch arch_native(void)
{
#if defined(__aarch64__)
	return ARCH_ARM64;
#else
	return ARCH_AMD64;
#endif
}
