/* Stands in for Debian's deb-systemd-helper while packages are configured.
 *
 * Maintainer scripts call that Perl program four times for each unit; under an emulated CPU each call costs a
 * second, and that is most of what configuring takes. The same changes to the same files are made here in
 * milliseconds. Only for a text of the program that is known and was compared with this one (tests/init/run,
 * unit_helper), and only for calls without oddities: everything else is handed to the image's own program,
 * which is always right. SOURCE: deb-systemd-helper(1p) and its observed behaviour. */
#ifndef IMGBUILD_INIT_UNITHELPER_H
#define IMGBUILD_INIT_UNITHELPER_H

#define UNITHELPER_NAME "deb-systemd-helper"

/* The program's main function; returns the exit status, or executes the image's own program. */
int unithelper_main(int argc, char **argv);

#endif
