#include "initrd/init/boot.h"
#include "initrd/init/mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROOT_WAIT_MS 30000

/* What the command line says about the root. */
struct boot_options {
	char root[256], fstype[32], flags[512], init[256];
	bool read_write;
	unsigned wait_ms;
};

static void take_option(struct boot_options *o, const char *word)
{
	static const struct {
		const char *key;
		size_t offset, size;
	} keys[] = {
		{ "root=", offsetof(struct boot_options, root), sizeof(o->root) },
		{ "rootfstype=", offsetof(struct boot_options, fstype), sizeof(o->fstype) },
		{ "rootflags=", offsetof(struct boot_options, flags), sizeof(o->flags) },
		{ "init=", offsetof(struct boot_options, init), sizeof(o->init) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		size_t len = strlen(keys[i].key);

		if (strncmp(word, keys[i].key, len) == 0)
			(void)snprintf((char *)o + keys[i].offset, keys[i].size, "%s", word + len);
	}
	/* These speak of the initrd's own root, and say nothing about the disk. */
	if (strcmp(o->fstype, "ramfs") == 0 || strcmp(o->fstype, "tmpfs") == 0)
		o->fstype[0] = '\0';
	if (strcmp(word, "rw") == 0)
		o->read_write = true;
	else if (strcmp(word, "ro") == 0)
		o->read_write = false;
	else if (strcmp(word, "rootwait") == 0)
		o->wait_ms = UINT32_MAX;
}

/* Read /proc/cmdline into options; double quotes group, as the kernel has it. */
static int read_options(struct boot_options *o, struct fail *f)
{
	static char line[8192];
	char word[1024];
	size_t n = 0;
	bool quoted = false;

	*o = (struct boot_options){ .wait_ms = ROOT_WAIT_MS };
	if (read_text_at(AT_FDCWD, "/proc/cmdline", line, sizeof(line)) < 0)
		return fail_set(f, "internal", "cannot read the kernel's command line");
	for (const char *p = line;; p++) {
		if (*p == '"') {
			quoted = !quoted;
		} else if (*p == '\0' || (!quoted && (*p == ' ' || *p == '\n' || *p == '\t'))) {
			word[n] = '\0';
			if (strcmp(word, "--") == 0)
				break;
			take_option(o, word);
			n = 0;
			if (*p == '\0')
				break;
		} else if (n < sizeof(word) - 1) {
			word[n++] = *p;
		}
	}
	return 0;
}

/* Whether the ext filesystem on `device` has this UUID (lower case text) or label. */
static bool superblock_matches(const char *device, const char *uuid, const char *label)
{
	unsigned char super[EXT_SUPER_SIZE];
	char text[40];
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	const unsigned char *u = super + EXT_UUID_OFFSET;
	ssize_t n;

	if (fd < 0)
		return false;
	n = pread(fd, super, sizeof(super), EXT_SUPER_START);
	(void)close(fd);
	if (n != (ssize_t)sizeof(super) || super[EXT_MAGIC_OFFSET] != 0x53 ||
		super[EXT_MAGIC_OFFSET + 1] != 0xef)
		return false;
	if (label)
		return strlen(label) <= EXT_LABEL_SIZE &&
		       strncmp((const char *)super + EXT_LABEL_OFFSET, label, EXT_LABEL_SIZE) == 0;
	(void)snprintf(text, sizeof(text),
		"%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2],
		u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
	return strcasecmp(text, uuid) == 0;
}

/* Look once for the device that root= means. */
static bool find_root(const char *root, char *ret, size_t size)
{
	const char *uuid = strncmp(root, "UUID=", 5) == 0 ? root + 5 : NULL;
	const char *label = strncmp(root, "LABEL=", 6) == 0 ? root + 6 : NULL;
	bool found = false;
	DIR *d;

	if (!uuid && !label) {
		(void)snprintf(ret, size, "%s", root);
		return wait_block_device(ret, 0) == 0;
	}
	d = opendir("/sys/class/block");
	for (struct dirent *de; d && !found && (de = readdir(d));) {
		if (de->d_name[0] == '.')
			continue;
		(void)snprintf(ret, size, "/dev/%.200s", de->d_name);
		found = superblock_matches(ret, uuid, label);
	}
	if (d)
		(void)closedir(d);
	return found;
}

/* Split rootflags into what mount(2) takes as flags and what the filesystem reads. */
static unsigned long split_flags(char *text, char *ret_data, size_t size)
{
	static const struct {
		const char *name;
		unsigned long flag;
	} known[] = {
		{ "noatime", MS_NOATIME },
		{ "relatime", MS_RELATIME },
		{ "nodiratime", MS_NODIRATIME },
		{ "sync", MS_SYNCHRONOUS },
		{ "nosuid", MS_NOSUID },
		{ "nodev", MS_NODEV },
		{ "noexec", MS_NOEXEC },
		{ "ro", MS_RDONLY },
		{ "rw", 0 },
		{ "defaults", 0 },
	};
	unsigned long flags = 0;
	struct text data;

	text_init(&data, ret_data, size);
	for (char *word; (word = strsep(&text, ","));) {
		size_t i = 0;

		while (i < ARRAY_SIZE(known) && strcmp(known[i].name, word) != 0)
			i++;
		if (i < ARRAY_SIZE(known))
			flags |= known[i].flag;
		else if (word[0])
			text_addf(&data, "%s%s", data.len ? "," : "", word);
	}
	return flags;
}

static int mount_boot_root(struct boot_options *o, struct fail *f)
{
	static const char *const usual[] = { "ext4", "xfs", "btrfs" };
	uint64_t start = now_ms(), said = start;
	char device[256], data[512];
	unsigned long flags = split_flags(o->flags, data, sizeof(data)) | (o->read_write ? 0 : MS_RDONLY);
	int error = ENODEV;

	if (o->root[0] == '\0')
		return fail_set(f, "mount",
			"the kernel's command line has no root=; give root=/dev/vda, root=UUID=… or root=LABEL=…");
	if (o->root[0] != '/' && strncmp(o->root, "UUID=", 5) != 0 && strncmp(o->root, "LABEL=", 6) != 0)
		return fail_set(f, "mount",
			"root=%s is of a kind that this initrd does not know; give root=/dev/…, UUID=… or LABEL=…",
			o->root);
	while (!find_root(o->root, device, sizeof(device))) {
		if (now_ms() - start >= o->wait_ms)
			return fail_set(f, "mount",
				"root=%s did not appear within %u s: no such disk, or a driver for it is missing",
				o->root, o->wait_ms / 1000);
		if (now_ms() - said >= 5000) {
			said = now_ms();
			say("waiting for root=%s", o->root);
		}
		sleep_ms(20);
	}
	for (size_t i = 0; i < ARRAY_SIZE(usual); i++) {
		const char *fstype = o->fstype[0] ? o->fstype : usual[i];

		if (mount(device, TARGET_PATH, fstype, flags, data) == 0)
			return 0;
		if (i == 0 || errno != ENODEV)
			error = i == 0 ? errno : error;
		if (o->fstype[0])
			break;
	}
	return fail_set(f, "mount", "cannot mount root=%s (%s) as %s: %s", o->root, device,
		o->fstype[0] ? o->fstype : usual[0], strerror(error));
}

/* Free the initrd's memory: everything on the root's own filesystem. */
static void remove_beneath(int fd, dev_t device)
{
	DIR *d = fdopendir(fd);

	for (struct dirent *de; d && (de = readdir(d));) {
		struct stat st;

		if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0 ||
			fstatat(dirfd(d), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != device)
			continue;
		if (S_ISDIR(st.st_mode)) {
			int child =
				openat(dirfd(d), de->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

			if (child >= 0)
				remove_beneath(child, device);
			(void)unlinkat(dirfd(d), de->d_name, AT_REMOVEDIR);
		} else {
			(void)unlinkat(dirfd(d), de->d_name, 0);
		}
	}
	if (d)
		(void)closedir(d);
}

static int enter_root(struct fail *f)
{
	static const char *const moved[] = { "/dev", "/proc", "/sys" };
	struct stat st;
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(moved); i++) {
		char where[64];

		(void)snprintf(where, sizeof(where), TARGET_PATH "%s", moved[i]);
		if (mount(moved[i], where, NULL, MS_MOVE, NULL) < 0)
			return fail_set(
				f, "mount", "cannot move %s into the root: %s", moved[i], strerror(errno));
	}
	fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (chdir(TARGET_PATH) < 0)
		return fail_set(f, "mount", "cannot enter the root: %s", strerror(errno));
	if (fd >= 0 && fstat(fd, &st) == 0)
		remove_beneath(fd, st.st_dev);
	if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return fail_set(
			f, "mount", "cannot make the mounted filesystem the root: %s", strerror(errno));
	return 0;
}

int boot_root(char *const *argv, struct fail *f)
{
	static const char *const usual[] = { "/sbin/init", "/etc/init", "/bin/init",
		"/bin/sh" }; /* as the kernel tries them */
	struct boot_options o;
	char program[256];
	char **arguments;
	size_t argc = 0;

	if (read_options(&o, f) < 0 || mount_boot_root(&o, f) < 0 || enter_root(f) < 0)
		return -1;
	while (argv[argc])
		argc++;
	arguments = calloc(argc + 2, sizeof(*arguments));
	if (!arguments)
		return fail_set(f, "internal", "no memory for init's arguments");
	for (size_t i = 1; i < argc; i++)
		arguments[i] = argv[i];
	arguments[0] = program;
	for (size_t i = 0; i < ARRAY_SIZE(usual); i++) {
		(void)snprintf(program, sizeof(program), "%s", o.init[0] ? o.init : usual[i]);
		(void)execv(program, arguments);
		if (o.init[0] || errno != ENOENT)
			break;
	}
	return fail_set(f, "exit", "cannot execute `%s` of the root: %s", program, strerror(errno));
}
