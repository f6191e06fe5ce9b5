/* Any bytes are a filesystem or an error: open, probe, check, and walk over what can be reached, reading files, links
 * and attributes. The input is what stands at the beginning of a device; behind it are zeros, so that small inputs
 * can describe filesystems. Time and memory must stay bounded whatever the numbers in it say. */
#include "builder/ext4/check.h"
#include "builder/ext4/ext4.h"
#include "builder/ext4/probe.h"

#include <string.h>
#include <sys/stat.h>

#define DEVICE_BYTES (UINT64_C(1) << 20)

struct memory_dev {
	struct blockdev dev;
	const uint8_t *data;
	size_t size;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int memory_read(struct blockdev *dev, void *buf, size_t len, uint64_t offset, struct err *e)
{
	struct memory_dev *m = (struct memory_dev *)dev;
	size_t n = offset < m->size ? m->size - (size_t)offset : 0;

	(void)e;
	if (n > len)
		n = len;
	if (n > 0)
		memcpy(buf, m->data + offset, n);
	memset((uint8_t *)buf + n, 0, len - n);
	return 0;
}

static void read_file(struct ext4 *fs, uint32_t inode)
{
	_cleanup_ext4_file_ struct ext4_file *f = NULL;
	struct err e = ERR_INIT;
	char chunk[4096];
	size_t n = 1;
	int r = ext4_open_inode(fs, inode, &f, &e);

	for (unsigned i = 0; r == 0 && n > 0 && i < 16; i++) {
		r = ext4_file_read(f, chunk, sizeof(chunk), (uint64_t)i * sizeof(chunk), &n, &e);
		if (r == 0 && n > sizeof(chunk))
			abort();
	}
}

static void walk(struct ext4 *fs, uint32_t inode, const char *prefix, unsigned depth, unsigned *left)
{
	_cleanup_ext4_dir_ struct ext4_dir dir = { 0 };
	struct err e = ERR_INIT;

	if (ext4_list_inode(fs, inode, &dir, &e) < 0)
		return;
	for (size_t i = 0; i < dir.n && *left > 0; i++) {
		_cleanup_buf_ struct buf value = BUF_INIT(65536);
		char path[1024];

		if (strlen(dir.items[i].name) == 0 || strchr(dir.items[i].name, '/'))
			abort();
		(*left)--;
		if (S_ISREG(dir.items[i].st.mode))
			read_file(fs, dir.items[i].st.inode);
		(void)snprintf(path, sizeof(path), "%s/%s", prefix, dir.items[i].name);
		(void)!ext4_read_link(fs, path, &value, &e);
		(void)!ext4_read_file(fs, path, &value, &e);
		(void)!ext4_get_xattr(fs, path, "user.small", &value, &e);
		if (S_ISDIR(dir.items[i].st.mode) && depth < 4)
			walk(fs, dir.items[i].st.inode, path, depth + 1, left);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct memory_dev m = { .dev = { .size_bytes = size > DEVICE_BYTES ? size : DEVICE_BYTES, .read = memory_read },
		.data = data,
		.size = size };
	_cleanup_ext4_ struct ext4 *fs = NULL;
	_cleanup_strv_ struct strv faults = { 0 };
	const struct ext4_expect any = { 0 };
	struct ext4_probe probe;
	struct err e = ERR_INIT;
	unsigned left = 200;

	if (ext4_probe(&m.dev, &probe, &e) < 0 || ext4_check(&m.dev, &any, &faults, NULL, &e) < 0)
		abort(); /* a device of memory has no errors of its own */
	if (ext4_open(&m.dev, &fs, &e) < 0)
		return 0;
	walk(fs, 2, "", 0, &left);
	return 0;
}
