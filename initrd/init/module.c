#include "initrd/init/module.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int module_insert(const char *name, const char *path, struct fail *f)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), error = 0;

	if (fd < 0)
		return fail_set(f, "module", "cannot open the module %s at `%s` of the initrd: %s", name,
			path, strerror(errno));
	if (syscall(SYS_finit_module, fd, "", 0) < 0)
		error = errno;
	(void)close(fd);
	if (error == 0 || error == EEXIST)
		return 0;
	if (error == ENODEV) {
		say("the module %s found nothing to drive", name);
		return 0;
	}
	return fail_set(f, "module", "cannot insert the module %s: %s%s", name, strerror(error),
		error == ENOENT    ? " (a module that it needs is missing or comes later)"
		: error == ENOEXEC ? " (it is for another kernel)"
				   : "");
}
