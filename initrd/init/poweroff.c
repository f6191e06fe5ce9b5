#include "initrd/init/poweroff.h"
#include "initrd/init/util.h"

#include <sys/reboot.h>
#include <unistd.h>

void power_off(void)
{
	/* Without a way to power off, the kernel halts for ever instead and never returns; a PC without ACPI
	 * has none. A reset ends the machine too, since QEMU runs with -no-reboot. */
#if defined(__x86_64__)
	bool can = access("/sys/firmware/acpi", F_OK) == 0;
#else
	bool can = true;
#endif

	if (can)
		(void)reboot(RB_POWER_OFF);
	(void)reboot(RB_AUTOBOOT);
	for (;;)
		(void)pause();
}
