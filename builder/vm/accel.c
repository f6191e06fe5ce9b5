#include "builder/vm/accel.h"

#include "lib/buf.h"
#include "lib/io.h"

#include <fcntl.h>
#include <jansson.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>

enum {
	MEMORY_MAX_BYTES = 4096,
	BOOT_ID_SIZE = 64
};

static const char *const choice_names[] = { [ACCEL_AUTO] = "auto", [ACCEL_KVM] = "kvm", [ACCEL_TCG] = "tcg" };

int accel_parse(const char *s, enum accel_choice *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(choice_names); i++)
		if (strcmp(choice_names[i], s) == 0) {
			*ret = (enum accel_choice)i;
			return 0;
		}
	return -EINVAL;
}

const char *accel_choice_name(enum accel_choice c)
{
	return c < ARRAY_SIZE(choice_names) ? choice_names[c] : "";
}

static int64_t current_time(const struct accel_options *o)
{
	return o->now ? o->now : (int64_t)time(NULL);
}

static const char *folder_name(const struct accel_options *o)
{
	return o->memory_path ? o->memory_path : "the cache folder";
}

/* The id of this boot of the host's kernel; "" where it cannot be read. */
static void read_boot_id(const struct accel_options *o, char id[static BOOT_ID_SIZE])
{
	_cleanup_buf_ struct buf b = BUF_INIT(BOOT_ID_SIZE - 1);
	struct err ignored = ERR_INIT;

	id[0] = '\0';
	if (!o->boot_id && read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", false, &b, &ignored) < 0)
		return;
	err_sanitize(id, BOOT_ID_SIZE, o->boot_id ? o->boot_id : buf_str(&b),
		strcspn(o->boot_id ? o->boot_id : buf_str(&b), "\n"));
}

void accel_describe_forgetting(const struct accel_options *o, char *text, size_t size)
{
	size_t used = strnlen(text, size);

	if (used >= size)
		return;
	if (o->memory_dirfd < 0)
		(void)snprintf(text + used, size - used, "say --accel tcg to skip the try");
	else
		(void)snprintf(text + used, size - used, "to try KVM again before, delete %s/%s or say --accel kvm",
			folder_name(o), ACCEL_MEMORY_FILE);
}

/* The remembered failure, if there is one that still counts. Returns true with its reason and age. */
static bool recall(const struct accel_options *o, char *reason, size_t reason_size, int64_t *ret_age_seconds)
{
	_cleanup_buf_ struct buf b = BUF_INIT(MEMORY_MAX_BYTES);
	struct err ignored = ERR_INIT;
	char boot_id[BOOT_ID_SIZE];
	const json_t *v, *at, *id, *why;
	bool counts = false;
	json_t *root;

	if (o->memory_dirfd < 0 || read_file_at(o->memory_dirfd, ACCEL_MEMORY_FILE, false, &b, &ignored) < 0)
		return false;
	root = json_loadb(buf_str(&b), b.len, JSON_REJECT_DUPLICATES, NULL);
	v = json_object_get(root, "v");
	at = json_object_get(root, "at");
	id = json_object_get(root, "boot_id");
	why = json_object_get(root, "reason");
	read_boot_id(o, boot_id);
	if (json_is_integer(v) && json_integer_value(v) == 1 && json_is_integer(at) && json_is_string(id) &&
		json_is_string(why) && strcmp(json_string_value(id), boot_id) == 0) {
		int64_t now = current_time(o), then = json_integer_value(at);

		if (then >= 0 && then <= now && now - then < ACCEL_MEMORY_SECONDS) {
			counts = true;
			*ret_age_seconds = now - then;
			err_sanitize(reason, reason_size, json_string_value(why), json_string_length(why));
		}
	}
	json_decref(root);
	return counts;
}

int accel_remember(const struct accel_options *o, const char *reason, struct err *e)
{
	char boot_id[BOOT_ID_SIZE], clean[512];
	_cleanup_free_ char *text = NULL;
	json_t *root;

	if (o->memory_dirfd < 0)
		return 0;
	read_boot_id(o, boot_id);
	err_sanitize(clean, sizeof(clean), reason, strlen(reason));
	root = json_pack("{s:i, s:s, s:I, s:s, s:s}", "v", 1, "boot_id", boot_id, "at", (json_int_t)current_time(o),
		"reason", clean, "help",
		"imgbuild tried KVM and the guest did not run; delete this file to let it try again");
	if (root)
		text = json_dumps(root, JSON_INDENT(2));
	json_decref(root);
	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	return write_file_atomic_at(o->memory_dirfd, ACCEL_MEMORY_FILE, text, strlen(text), 0644, e);
}

void accel_forget(const struct accel_options *o)
{
	if (o->memory_dirfd >= 0)
		(void)unlinkat(o->memory_dirfd, ACCEL_MEMORY_FILE, 0);
}

/* Look at the device itself: it opens, and it is KVM. */
static int try_device(struct err *e)
{
	static const char path[] = "/dev/kvm";
	_cleanup_close_ int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	int version;

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot open %s", path);
	version = ioctl(fd, KVM_GET_API_VERSION, 0);
	if (version != KVM_API_VERSION)
		return err_set(e, -ENODEV, "%s does not speak KVM's API version %d", path, KVM_API_VERSION);
	return 0;
}

static int choose_forced(const struct accel_options *o, struct err *e)
{
	int r;

	if (o->arch != arch_native())
		return err_set_kind(e, ERR_KIND_HOST, -ENODEV,
			"--accel kvm cannot run %s: this host is %s; say --accel tcg or auto", arch_name(o->arch),
			arch_name(arch_native()));
	r = o->try_kvm ? o->try_kvm(e) : try_device(e);
	if (r < 0) {
		e->kind = ERR_KIND_HOST;
		return err_wrap(e, "--accel kvm was asked for%s",
			r == -EACCES ? " (join the group `kvm`, or say --accel auto)" : "");
	}
	return 0;
}

int accel_choose(const struct accel_options *o, struct accel_decision *ret, struct err *e)
{
	struct accel_decision d = { 0 };
	struct err why = ERR_INIT;
	int64_t age_seconds = 0;
	char reason[256];
	int r;

	if (o->choice == ACCEL_KVM) {
		r = choose_forced(o, e);
		if (r < 0)
			return r;
		d.kvm = true;
	} else if (o->choice == ACCEL_AUTO && o->arch == arch_native()) {
		if ((o->try_kvm ? o->try_kvm(&why) : try_device(&why)) < 0) {
			(void)snprintf(d.note, sizeof(d.note), "no KVM (%.200s): going on with TCG, which is slower", why.message);
		} else if (recall(o, reason, sizeof(reason), &age_seconds)) {
			int n = snprintf(d.note, sizeof(d.note), "KVM did not work %lld minutes ago (%s): going on with TCG; ",
				(long long)(age_seconds / 60), reason);

			if (n > 0 && (size_t)n < sizeof(d.note))
				accel_describe_forgetting(o, d.note, sizeof(d.note));
		} else {
			d.kvm = true;
			d.may_fall_back = true;
		}
	}
	*ret = d;
	return 0;
}
