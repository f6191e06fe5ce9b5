/* Say in plain values what a partition holds, as far as ext2, ext3 and ext4 and the files in them can tell.
 *
 * Nothing is kept open. A filesystem that cannot be opened (dirty journal, unknown feature, damage) is still reported
 * with its label and UUID, and with the reason in words. Strings are printable (err_sanitize) and cut to their size.
 * Errors are the device's own; whatever a stranger wrote into the filesystem is an answer, not an error.
 * SOURCE: os-release(5). */
#ifndef IMGBUILD_BUILDER_EXT4_PROBE_H
#define IMGBUILD_BUILDER_EXT4_PROBE_H

#include "builder/ext4/ext4.h"

#define OS_RELEASE_MAX_BYTES (64u << 10)

struct os_release {
	char id[64];	       /* ID: "debian" */
	char version_id[64];   /* VERSION_ID: "12"; "" where the distro has none */
	char codename[64];     /* VERSION_CODENAME: "bookworm" */
	char pretty_name[128]; /* PRETTY_NAME */
};

struct ext4_probe {
	bool is_ext;
	bool readable;		 /* ext4_open() took it; otherwise `problem` says why not */
	int problem_code;	 /* the negative errno of ext4_open(), or of reading the files below; 0 without one */
	char problem[512];
	struct ext4_facts facts; /* when is_ext */
	bool has_os_release;	 /* /etc/os-release or /usr/lib/os-release */
	bool has_usr;		 /* a folder /usr */
	bool has_kernels;	 /* a vmlinuz* or vmlinux* in its top folder: a /boot of its own */
	struct os_release os;	 /* when has_os_release */
};

/* Read the text of an os-release file. Lines that are no assignment are passed over, as os-release(5) wants. */
void os_release_parse(const char *text, size_t len, struct os_release *ret);

/* Look at the filesystem that fills dev (borrowed). Returns 0 with is_ext false when there is none. */
int ext4_probe(struct blockdev *dev, struct ext4_probe *ret, struct err *e) _must_check_;

#endif
