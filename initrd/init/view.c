#include "initrd/init/view.h"
#include "initrd/init/mount.h"
#include "initrd/init/unithelper.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define POLICY_NAME "policy-rc.d"
#define POLICY_TEXT "#!/bin/sh\nexit 101\n"

/* Open a folder of the image part by part, following no link: init must not be led out of the image. */
static int open_target_folder(const char *const *parts)
{
	int fd = open(TARGET_PATH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	for (; fd >= 0 && *parts; parts++) {
		int next = openat(fd, *parts, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		(void)close(fd);
		fd = next;
	}
	return fd;
}

/* The image's /usr/sbin where the image has dpkg, else -1. */
static int open_policy_folder(void)
{
	static const char *const dpkg_parts[] = { "var", "lib", "dpkg", NULL };
	static const char *const sbin_parts[] = { "usr", "sbin", NULL };
	int dpkg_fd = open_target_folder(dpkg_parts);

	if (dpkg_fd < 0)
		return -1;
	(void)close(dpkg_fd);
	return open_target_folder(sbin_parts);
}

static int make_policy(struct scaffold *s, struct fail *f)
{
	int folder_fd = open_policy_folder(), fd;
	struct stat st;
	int r = 0;

	if (folder_fd < 0)
		return 0;
	fd = openat(folder_fd, POLICY_NAME, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0755);
	if (fd >= 0) {
		s->made_policy = true;
		if (fchmod(fd, 0755) < 0 || write_all(fd, POLICY_TEXT, strlen(POLICY_TEXT)) < 0 ||
			fstat(fd, &st) < 0) {
			r = fail_set(f, errno == ENOSPC ? "enospc" : "mount",
				"cannot write the image's /usr/sbin/" POLICY_NAME);
		} else {
			s->policy_inode = st.st_ino;
			s->policy_mtime = st.st_mtim;
		}
		(void)close(fd);
	} else if (errno != EEXIST) {
		r = fail_set(f, errno == ENOSPC ? "enospc" : "mount",
			"cannot make the image's /usr/sbin/" POLICY_NAME ": %s", strerror(errno));
	}
	(void)close(folder_fd);
	return r;
}

/* Make the mount point TARGET/imgbuild/inputs unless it is there. */
static int make_inputs(struct scaffold *s, struct fail *f)
{
	static const char *const parts[] = { "imgbuild", "inputs", NULL };
	int fd;

	s->made_imgbuild = mkdir(TARGET_PATH "/imgbuild", 0755) == 0;
	fd = s->made_imgbuild || errno == EEXIST
		     ? open_target_folder((const char *const[]){ "imgbuild", NULL })
		     : -1;
	if (fd >= 0) {
		s->made_inputs = mkdirat(fd, "inputs", 0755) == 0;
		(void)close(fd);
		fd = open_target_folder(parts);
	}
	if (fd < 0)
		return fail_set(f, errno == ENOSPC ? "enospc" : "mount",
			"cannot make the mount point " INPUTS_PATH " in the image: %s", strerror(errno));
	(void)close(fd);
	return 0;
}

int scaffold_make(struct scaffold *s, bool with_inputs, struct fail *f)
{
	int r = make_policy(s, f);

	return r == 0 && with_inputs ? make_inputs(s, f) : r;
}

/* Remove our policy-rc.d, by whatever name: a diversion may have moved it aside. One that a package or a script
 * brought or wrote stays. */
static void remove_policy(const struct scaffold *s)
{
	int fd = open_policy_folder();
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	for (struct dirent *de; d && (de = readdir(d));) {
		struct stat st;

		if (strncmp(de->d_name, POLICY_NAME, strlen(POLICY_NAME)) == 0 &&
			fstatat(fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
			st.st_ino == s->policy_inode && st.st_mtim.tv_sec == s->policy_mtime.tv_sec &&
			st.st_mtim.tv_nsec == s->policy_mtime.tv_nsec)
			(void)unlinkat(fd, de->d_name, 0);
	}
	if (d)
		(void)closedir(d);
	else if (fd >= 0)
		(void)close(fd);
}

void scaffold_remove(const struct scaffold *s)
{
	int fd;

	/* Only what is still ours. */
	if (s->made_policy)
		remove_policy(s);
	if (s->made_inputs && (fd = open_target_folder((const char *const[]){ "imgbuild", NULL })) >= 0) {
		(void)unlinkat(fd, "inputs", AT_REMOVEDIR);
		(void)close(fd);
	}
	if (s->made_imgbuild)
		(void)rmdir(TARGET_PATH "/imgbuild");
}

static int try_mount(const char *source, const char *where, const char *type, unsigned long flags,
	const char *data, struct fail *f)
{
	struct stat st;

	if (lstat(where, &st) < 0 || !S_ISDIR(st.st_mode))
		return fail_set(f, "mount", "the image has no folder %s to mount a step's own over",
			where + strlen(TARGET_PATH));
	if (mount(source, where, type, flags, data) < 0)
		return fail_set(f, "mount", "cannot mount %s at the image's %s: %s", type ? type : source,
			where + strlen(TARGET_PATH), strerror(errno));
	return 0;
}

/* A read-only view of source at where. The flags of a bind mount count only when it is mounted again. */
static int bind_read_only(const char *source, const char *where, struct fail *f)
{
	if (mount(source, where, NULL, MS_BIND, NULL) < 0 ||
		mount(NULL, where, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NODEV | MS_NOSUID, NULL) < 0)
		return fail_set(
			f, "mount", "cannot show %s read-only at %s: %s", source, where, strerror(errno));
	return 0;
}

/* Fill the small /dev: what POSIX programs and maintainer scripts expect, and nothing that reaches the
 * machine. */
static int fill_dev(struct fail *f)
{
	static const struct {
		const char *name;
		unsigned major, minor;
	} nodes[] = {
		{ "null", 1, 3 },
		{ "zero", 1, 5 },
		{ "full", 1, 7 },
		{ "random", 1, 8 },
		{ "urandom", 1, 9 },
		{ "tty", 5, 0 },
	}; /* SOURCE: linux Documentation/admin-guide/devices.txt */
	static const char *const links[][2] = {
		{ "/proc/self/fd", TARGET_PATH "/dev/fd" },
		{ "/proc/self/fd/0", TARGET_PATH "/dev/stdin" },
		{ "/proc/self/fd/1", TARGET_PATH "/dev/stdout" },
		{ "/proc/self/fd/2", TARGET_PATH "/dev/stderr" },
		{ "pts/ptmx", TARGET_PATH "/dev/ptmx" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(nodes); i++) {
		char path[64];

		(void)snprintf(path, sizeof(path), TARGET_PATH "/dev/%s", nodes[i].name);
		if (mknod(path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) < 0 ||
			chmod(path, 0666) < 0)
			return fail_set(f, "mount", "cannot make the step's /dev/%s: %s", nodes[i].name,
				strerror(errno));
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		(void)symlink(links[i][0], links[i][1]);
	(void)mkdir(TARGET_PATH "/dev/pts", 0755);
	(void)mkdir(TARGET_PATH "/dev/shm", 01777);
	(void)chmod(TARGET_PATH "/dev/shm", 01777);
	/* A kernel without devpts still runs everything that wants no terminal. */
	(void)mount("devpts", TARGET_PATH "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		"newinstance,mode=0620,ptmxmode=0666,gid=5");
	return 0;
}

/* /proc as it is lets root reboot, load programs into the kernel's hands and change it; a container's /proc
 * does not. */
static int guard_proc(struct fail *f)
{
	static const char *const read_only[] = { "sys", "sysrq-trigger", "irq", "bus", "fs" };

	for (size_t i = 0; i < ARRAY_SIZE(read_only); i++) {
		char path[64];

		(void)snprintf(path, sizeof(path), TARGET_PATH "/proc/%s", read_only[i]);
		if (access(path, F_OK) == 0 && bind_read_only(path, path, f) < 0)
			return -1;
	}
	if (access(TARGET_PATH "/proc/kcore", F_OK) == 0)
		(void)mount(TARGET_PATH "/dev/null", TARGET_PATH "/proc/kcore", NULL, MS_BIND, NULL);
	return 0;
}

/* Programs that stand first in PATH. What they replace would start services or rebuild initramfs images,
 * which belong to the machine that is to run the image, not to the one that builds it. */
static int write_stubs(struct fail *f)
{
	static const struct {
		const char *name, *text;
	} stubs[] = {
		{ "update-initramfs",
			"#!/bin/sh\necho 'imgbuild: initramfs images are not rebuilt here'\nexit 0\n" },
		{ "invoke-rc.d", "#!/bin/sh\nexit 0\n" },
		{ "deb-systemd-invoke", "#!/bin/sh\nexit 0\n" },
		{ "start-stop-daemon",
			"#!/bin/sh\nfor a; do case $a in -T|--status) exit 3;; esac; done\nexit 0\n" },
		{ "service", "#!/bin/sh\ncase $2 in status) exit 3;; esac\nexit 0\n" },
		{ "runlevel", "#!/bin/sh\necho 'N 2'\n" },
		{ "initctl", "#!/bin/sh\ncase $1 in version) exit 1;; esac\nexit 0\n" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(stubs); i++) {
		char path[128];
		int fd;

		(void)snprintf(path, sizeof(path), TARGET_PATH STUBS_PATH "/%s", stubs[i].name);
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
		if (fd < 0 || fchmod(fd, 0755) < 0 || write_all(fd, stubs[i].text, strlen(stubs[i].text)) < 0)
			return fail_set(f, "mount", "cannot write the step's %s/%s: %s", STUBS_PATH,
				stubs[i].name, strerror(errno));
		(void)close(fd);
	}
	return 0;
}

/* Put this very program first in PATH under the name of the one it stands in for. */
static int show_unithelper(struct fail *f)
{
	const char *where = TARGET_PATH STUBS_PATH "/" UNITHELPER_NAME;
	int fd;

	if (access(TARGET_PATH "/usr/bin/" UNITHELPER_NAME, F_OK) < 0)
		return 0;
	fd = open(where, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	if (fd < 0)
		return fail_set(f, "mount", "cannot make %s: %s", where, strerror(errno));
	(void)close(fd);
	return bind_read_only("/init", where, f);
}

static bool target_has_dpkg(void)
{
	struct stat st;

	return stat(TARGET_PATH "/var/lib/dpkg", &st) == 0 && S_ISDIR(st.st_mode);
}

/* Show the payload at /run/imgbuild/initrd, its inputs covered, and the inputs where the setup script expects
 * them. */
static int show_payload(bool with_inputs, struct fail *f)
{
	(void)mkdir(TARGET_PATH "/run/lock", 01777);
	(void)chmod(TARGET_PATH "/run/lock", 01777);
	(void)mkdir(TARGET_PATH "/run/imgbuild", 0755);
	(void)mkdir(TARGET_PATH STUBS_PATH, 0755);
	(void)mkdir(TARGET_PATH PAYLOAD_PATH, 0755);
	if (bind_read_only("/imgbuild", TARGET_PATH PAYLOAD_PATH, f) < 0)
		return -1;
	if (access(INPUTS_PATH, F_OK) == 0 && mount("tmpfs", TARGET_PATH PAYLOAD_PATH "/inputs", "tmpfs",
						      MS_RDONLY | MS_NOSUID | MS_NODEV, "mode=0755") < 0)
		return fail_set(f, "mount", "cannot cover the inputs: %s", strerror(errno));
	if (with_inputs && bind_read_only(INPUTS_PATH, TARGET_PATH INPUTS_PATH, f) < 0)
		return -1;
	if (!target_has_dpkg())
		return 0;
	return write_stubs(f) < 0 ? -1 : show_unithelper(f);
}

/* Give up what lets root act on the machine instead of the image, for this process and all it will start. */
static int drop_capabilities(struct fail *f)
{
	static const unsigned dropped[] = { CAP_SYS_BOOT, CAP_SYS_MODULE, CAP_SYS_TIME, CAP_SYS_RAWIO };
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &header, data) < 0)
		return fail_set(f, "internal", "cannot read the step's capabilities: %s", strerror(errno));
	for (size_t i = 0; i < ARRAY_SIZE(dropped); i++) {
		uint32_t keep = ~(1u << (dropped[i] % 32));
		struct __user_cap_data_struct *word = &data[dropped[i] / 32];

		if (prctl(PR_CAPBSET_DROP, dropped[i], 0, 0, 0) < 0)
			return fail_set(
				f, "internal", "cannot drop capability %u: %s", dropped[i], strerror(errno));
		word->effective &= keep;
		word->permitted &= keep;
		word->inheritable &= keep;
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return fail_set(f, "internal", "cannot give up the step's capabilities: %s", strerror(errno));
	return 0;
}

int view_enter(bool with_inputs, struct view *ret, struct fail *f)
{
	const unsigned long quiet = MS_NOSUID | MS_NODEV;

	(void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
	if (mount(TARGET_PATH, BARE_PATH, NULL, MS_BIND, NULL) < 0)
		return fail_set(f, "mount", "cannot make the second view of the image: %s", strerror(errno));
	ret->bare_fd = open(BARE_PATH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ret->initrd_fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ret->bare_fd < 0 || ret->initrd_fd < 0)
		return fail_set(f, "mount", "cannot open the second view of the image: %s", strerror(errno));
	if (try_mount("proc", TARGET_PATH "/proc", "proc", quiet | MS_NOEXEC, "", f) < 0 ||
		try_mount("sysfs", TARGET_PATH "/sys", "sysfs", quiet | MS_NOEXEC | MS_RDONLY, "", f) < 0 ||
		try_mount("tmpfs", TARGET_PATH "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k",
			f) < 0 ||
		try_mount("tmpfs", TARGET_PATH "/run", "tmpfs", quiet, "mode=0755", f) < 0 ||
		try_mount("tmpfs", TARGET_PATH "/tmp", "tmpfs", quiet, "mode=1777", f) < 0)
		return -1;
	if (fill_dev(f) < 0 || guard_proc(f) < 0 || show_payload(with_inputs, f) < 0)
		return -1;

	/* The machine's own views go, in this namespace only; then the image becomes the root. pivot_root
	 * cannot leave the initrd's root, moving over it can. */
	(void)umount2("/dev", MNT_DETACH);
	(void)umount2("/sys", MNT_DETACH);
	(void)umount2("/proc", MNT_DETACH);
	if (chdir(TARGET_PATH) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
		chdir("/") < 0)
		return fail_set(f, "mount", "cannot make the image the root: %s", strerror(errno));
	return drop_capabilities(f);
}
