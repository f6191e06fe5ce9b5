#include "kernels/kernel_base.h"

#include "kernels/kernel_image.h"

#include <string.h>
#include <sys/stat.h>

int kernel_base_compare(const char *a, const char *b)
{
	return strverscmp(a, b);
}

/* Keep the release of a name when it can be one; Alpine's vmlinuz-virt has none. */
static void keep_release(const char *text, struct kernel_base *ret)
{
	ret->release[0] = '\0';
	if (text && kernel_release_is_valid(text, strlen(text)))
		(void)snprintf(ret->release, sizeof(ret->release), "%s", text);
}

static bool ends_with(const char *s, const char *end)
{
	size_t len = strlen(s), end_len = strlen(end);

	return len >= end_len && strcmp(s + len - end_len, end) == 0;
}

/* The release in a kernel's file name, or NULL when the name is none's. */
static const char *release_of_name(const char *name)
{
	static const char *const prefixes[] = { "vmlinuz-", "vmlinux-", "Image-" };
	static const char *const not_these[] = { ".old", ".bak", ".dpkg-tmp", ".dpkg-new", "~", ".hmac" };

	for (size_t i = 0; i < ARRAY_SIZE(not_these); i++)
		if (ends_with(name, not_these[i]))
			return NULL;
	if (strstr(name, "rescue"))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
		size_t len = strlen(prefixes[i]);

		if (strncmp(name, prefixes[i], len) == 0 && name[len])
			return name + len;
	}
	return NULL;
}

/* The newest kernel in one folder. Returns 1 when there is one. */
static int find_newest(struct ext4 *fs, const char *folder, struct kernel_base *ret, struct err *e)
{
	_cleanup_ext4_dir_ struct ext4_dir dir = { 0 };
	const char *newest = NULL;
	int r = ext4_list_dir(fs, folder, &dir, e);

	if (r == -ENOENT || r == -ENOTDIR) {
		err_clear(e);
		return 0;
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < dir.n; i++) {
		const char *release = release_of_name(dir.items[i].name);

		if (release && S_ISREG(dir.items[i].st.mode) &&
			(!newest || kernel_base_compare(release, release_of_name(newest)) > 0))
			newest = dir.items[i].name;
	}
	if (!newest)
		return 0;
	(void)snprintf(ret->path, sizeof(ret->path), "%s/%s", strcmp(folder, "/") ? folder : "", newest);
	keep_release(release_of_name(newest), ret);
	return 1;
}

/* A plain name or a link that leads to a file. Its target's name tells the release. Returns 1 when it is there. */
static int find_plain(struct ext4 *fs, const char *path, struct kernel_base *ret, struct err *e)
{
	_cleanup_buf_ struct buf target = BUF_INIT(EXT4_PATH_MAX_BYTES);
	struct ext4_stat st;
	const char *slash;
	int r = ext4_stat(fs, path, &st, e);

	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP || (r == 0 && !S_ISREG(st.mode))) {
		err_clear(e);
		return 0;
	}
	if (r < 0)
		return r;
	(void)snprintf(ret->path, sizeof(ret->path), "%s", path);
	keep_release(NULL, ret);
	r = ext4_read_link(fs, path, &target, e);
	if (r == -EINVAL) { /* a file */
		err_clear(e);
		return 1;
	}
	if (r < 0)
		return r;
	slash = strrchr(buf_str(&target), '/');
	keep_release(release_of_name(slash ? slash + 1 : buf_str(&target)), ret);
	return 1;
}

/* Where some distributions keep the kernel beside its modules. Returns 1 when there is one. */
static int find_among_modules(struct ext4 *root, struct kernel_base *ret, struct err *e)
{
	_cleanup_ext4_dir_ struct ext4_dir dir = { 0 };
	const char *newest = NULL;
	int r = ext4_list_dir(root, "/usr/lib/modules", &dir, e);

	if (r == -ENOENT || r == -ENOTDIR) {
		err_clear(e);
		return 0;
	}
	for (size_t i = 0; r == 0 && i < dir.n; i++) {
		struct kernel_base found = { 0 };
		char path[KERNEL_BASE_PATH_SIZE];
		const char *name = dir.items[i].name;

		if (strlen(name) >= sizeof(ret->release) || (newest && kernel_base_compare(name, newest) < 0))
			continue;
		(void)snprintf(path, sizeof(path), "/usr/lib/modules/%s/vmlinuz", name);
		r = find_plain(root, path, &found, e);
		if (r <= 0)
			continue;
		r = 0;
		newest = name;
		*ret = found;
		keep_release(name, ret);
	}
	return r < 0 ? r : newest != NULL;
}

int kernel_base_find(struct ext4 *root, struct ext4 *boot, struct kernel_base *ret, struct err *e)
{
	static const char *const folders[] = { "/", "/boot" };
	static const char *const plain[] = { "/boot/vmlinuz", "/boot/vmlinux", "/boot/Image", "/vmlinuz", "/vmlinux", "/Image" };
	struct kernel_base found = { 0 };
	int r = 0;

	/* A boot filesystem is mounted over the root's /boot and hides what lies there. */
	if (boot) {
		for (size_t i = 0; r == 0 && i < ARRAY_SIZE(folders); i++)
			r = find_newest(boot, folders[i], &found, e);
		for (size_t i = 0; r == 0 && i < ARRAY_SIZE(plain); i++)
			r = find_plain(boot, plain[i], &found, e);
		found.in_boot = r > 0;
	}
	if (r == 0)
		r = find_newest(root, "/boot", &found, e);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(plain); i++)
		r = find_plain(root, plain[i], &found, e);
	if (r == 0)
		r = find_among_modules(root, &found, e);
	if (r < 0)
		return err_wrap(e, "looking for the base image's kernel");
	if (r == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -ENOENT,
			"the base image has no kernel: no vmlinuz-* in /boot%s, no /vmlinuz, none in /usr/lib/modules; name one in the "
			"plan's [kernel]", boot ? " or in its boot filesystem" : "");
	*ret = found;
	return 0;
}
