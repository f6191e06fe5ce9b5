/* The end of the machine. */
#ifndef IMGBUILD_INIT_POWEROFF_H
#define IMGBUILD_INIT_POWEROFF_H

/* Power off; does not return. */
__attribute__((noreturn)) void power_off(void);

#endif
