#include "initrd/init/mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#define EXT4_IOC_RESIZE_FS                                                                                   \
	_IOW('f', 16, uint64_t) /* SOURCE: linux fs/ext4/ext4.h; not in the exported headers */
#define ROOT_WAIT_MS 30000
#define UNMOUNT_WAIT_MS 30000 /* for a step's namespaces to go, on a slow machine */

int mount_kernel_filesystems(struct fail *f)
{
	static const struct {
		const char *type, *where, *data;
		unsigned long flags;
	} mounts[] = {
		{ "proc", "/proc", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
		{ "sysfs", "/sys", "", MS_NOSUID | MS_NODEV | MS_NOEXEC },
		{ "devtmpfs", "/dev", "mode=0755", MS_NOSUID },
	};
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		(void)mkdir(mounts[i].where, 0755);
		if (mount(mounts[i].type, mounts[i].where, mounts[i].type, mounts[i].flags, mounts[i].data) <
				0 &&
			errno != EBUSY)
			return fail_set(f, "mount", "cannot mount %s at %s: %s; the kernel may lack it",
				mounts[i].type, mounts[i].where, strerror(errno));
	}
	fd = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; fd >= 0 && i < 3; i++)
		(void)dup2(fd, i);
	if (fd > 2)
		(void)close(fd);
	return 0;
}

int wait_block_device(const char *path, unsigned wait_ms)
{
	uint64_t start = now_ms();
	struct stat st;

	while (stat(path, &st) < 0 || !S_ISBLK(st.st_mode)) {
		if (now_ms() - start >= wait_ms)
			return -ETIMEDOUT;
		sleep_ms(10);
	}
	return 0;
}

int mount_root(const char *device, const char *fstype, struct fail *f)
{
	/* Nothing is durable before the end, so the journal need not be written early; auto_da_alloc would
	 * make every renamed file of dpkg's a flush. A kernel that does not know these gets none. */
	const char *data = strcmp(fstype, "ext4") == 0 ? "noauto_da_alloc,commit=600" : "";
	unsigned long flags = MS_NODEV | MS_NOATIME;

	if (wait_block_device(device, ROOT_WAIT_MS) < 0)
		return fail_set(f, "mount",
			"the disk %s did not appear within %d s; a driver for it is missing in the kernel and among "
			"the modules",
			device, ROOT_WAIT_MS / 1000);
	if (mount(device, TARGET_PATH, fstype, flags, data) < 0 &&
		(errno != EINVAL || mount(device, TARGET_PATH, fstype, flags, "") < 0))
		return fail_set(f, "mount", "cannot mount %s as %s: %s", device, fstype, strerror(errno));
	return 0;
}

int mount_grow(const char *device, struct fail *f)
{
	int device_fd = open(device, O_RDONLY | O_CLOEXEC);
	int target_fd = open(TARGET_PATH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	uint64_t device_bytes = 0, blocks;
	struct statfs st;
	int r = 0;

	if (device_fd < 0 || target_fd < 0 || ioctl(device_fd, BLKGETSIZE64, &device_bytes) < 0 ||
		fstatfs(target_fd, &st) < 0) {
		r = fail_set(f, "mount", "cannot find the size of %s: %s", device, strerror(errno));
	} else {
		blocks = device_bytes / (uint64_t)st.f_bsize;
		/* A device that is no larger is fine: the kernel then has nothing to do. */
		if (ioctl(target_fd, EXT4_IOC_RESIZE_FS, &blocks) < 0 && errno != EINVAL)
			r = fail_set(f, "mount",
				"cannot grow the filesystem of %s to %llu blocks of %lu bytes: %s", device,
				(unsigned long long)blocks, (unsigned long)st.f_bsize, strerror(errno));
	}
	if (device_fd >= 0)
		(void)close(device_fd);
	if (target_fd >= 0)
		(void)close(target_fd);
	return r;
}

int mount_label(const char *label, bool *ret_late, struct fail *f)
{
	char text[FSLABEL_MAX] = "";
	int fd, r = 0;

	*ret_late = false;
	if (label[0] == '\0' || strlen(label) > EXT_LABEL_SIZE)
		return fail_set(f, "internal", "the label `%.40s` has %zu bytes, 1 to %d are possible", label,
			strlen(label), EXT_LABEL_SIZE);
	(void)snprintf(text, sizeof(text), "%s", label);
	fd = open(TARGET_PATH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, FS_IOC_SETFSLABEL, text) < 0) {
		if (errno == ENOTTY || errno == EOPNOTSUPP)
			*ret_late = true;
		else
			r = fail_set(f, "mount", "cannot give the filesystem the label `%s`: %s", label,
				strerror(errno));
	}
	if (fd >= 0)
		(void)close(fd);
	return r;
}

/* CRC-32C without the inversion at the end, as ext4 has it. SOURCE: linux fs/ext4/super.c,
 * ext4_superblock_csum. */
static uint32_t crc32c(const unsigned char *p, size_t len)
{
	uint32_t crc = UINT32_MAX;

	for (; len > 0; len--, p++) {
		crc ^= *p;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ ((crc & 1) ? 0x82f63b78u : 0);
	}
	return crc;
}

int mount_write_label(const char *device, const char *label, struct fail *f)
{
	unsigned char super[EXT_SUPER_SIZE];
	int fd = open(device, O_RDWR | O_EXCL | O_CLOEXEC);
	bool ok = fd >= 0 && pread(fd, super, sizeof(super), EXT_SUPER_START) == (ssize_t)sizeof(super);

	if (ok) {
		memset(super + EXT_LABEL_OFFSET, 0, EXT_LABEL_SIZE);
		memcpy(super + EXT_LABEL_OFFSET, label, strnlen(label, EXT_LABEL_SIZE));
		if (super[EXT_RO_COMPAT_OFFSET + 1] & EXT_METADATA_CSUM_IN_BYTE_1) {
			uint32_t crc = crc32c(super, EXT_CHECKSUM_OFFSET);

			for (int i = 0; i < 4; i++)
				super[EXT_CHECKSUM_OFFSET + i] = (unsigned char)(crc >> 8 * i);
		}
		ok = pwrite(fd, super, sizeof(super), EXT_SUPER_START) == (ssize_t)sizeof(super) &&
		     fsync(fd) == 0;
	}
	if (!ok)
		(void)fail_set(
			f, "mount", "cannot write the label `%s` to %s: %s", label, device, strerror(errno));
	if (fd >= 0)
		(void)close(fd);
	return ok ? 0 : -1;
}

/* Say which processes there still are; only kernel threads should be. */
static void list_processes(char *text, size_t size)
{
	DIR *d = opendir("/proc");
	struct text t;

	text_init(&t, text, size);
	for (struct dirent *de; d && (de = readdir(d));) {
		char path[300], comm[64], link[8];
		long pid = strtol(de->d_name, NULL, 10);

		(void)snprintf(path, sizeof(path), "%s/exe", de->d_name);
		if (pid <= 1 || readlinkat(dirfd(d), path, link, sizeof(link)) < 0)
			continue;
		(void)snprintf(path, sizeof(path), "%s/comm", de->d_name);
		if (read_text_at(dirfd(d), path, comm, sizeof(comm)) <= 0)
			continue;
		comm[strcspn(comm, "\n")] = '\0';
		text_addf(&t, "%s%s (%ld)", t.len ? ", " : "", comm, pid);
	}
	if (d)
		(void)closedir(d);
	if (t.len == 0)
		text_addf(&t, "no process, so the kernel itself");
}

int mount_release_root(const char *device, struct fail *f)
{
	uint64_t start;
	char who[512];
	int fd;

	sync(); /* which takes as long as the host's disk does, as the unmount itself may: neither is waiting */
	start = now_ms();
	while (umount2(TARGET_PATH, UMOUNT_NOFOLLOW) < 0) {
		if (errno != EBUSY || now_ms() - start > UNMOUNT_WAIT_MS) {
			int error = errno;

			list_processes(who, sizeof(who));
			return fail_set(f, "unmount", "cannot unmount the image: %s; still there: %s",
				strerror(error), who);
		}
		sleep_ms(20);
	}
	start = now_ms();
	/* The mount is gone here, but another namespace may still hold the filesystem; only its end frees the
	 * device. */
	while ((fd = open(device, O_RDWR | O_EXCL | O_CLOEXEC)) < 0) {
		if (errno != EBUSY || now_ms() - start > UNMOUNT_WAIT_MS) {
			int error = errno;

			list_processes(who, sizeof(who));
			return fail_set(f, "unmount",
				"the image's filesystem is still in use after it was unmounted: %s; still there: %s",
				strerror(error), who);
		}
		sleep_ms(20);
	}
	if (fsync(fd) < 0)
		(void)fail_set(f, "unmount", "cannot write the image to its disk: %s", strerror(errno));
	(void)close(fd);
	return f->reason[0] ? -1 : 0;
}
