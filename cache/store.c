#include "cache/store.h"
#include "lib/io.h"

#include <assert.h>
#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

/* ---- where the cache is ---------------------------------------------------------------------------------------- */

static const char *environment(const char *name)
{
	const char *value = secure_getenv(name);

	return value && value[0] ? value : NULL;
}

/* Make a path absolute without asking whether it exists. */
static int make_absolute(const char *path, char **ret, struct err *e)
{
	_cleanup_free_ char *cwd = NULL, *absolute = NULL;
	size_t len;

	if (path[0] != '/') {
		cwd = getcwd(NULL, 0);
		if (!cwd)
			return err_set_errno(e, -errno, "cannot tell the working folder");
	}
	if (asprintf(&absolute, "%s%s%s", cwd ? cwd : "", cwd ? "/" : "", path) < 0) {
		absolute = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	for (len = strlen(absolute); len > 1 && absolute[len - 1] == '/'; len--)
		absolute[len - 1] = '\0';
	*ret = take_ptr(absolute);
	return 0;
}

static int home_folder(char **ret, struct err *e)
{
	const char *home = environment("HOME");
	struct passwd pw, *found = NULL;
	char scratch[4096];

	if (!home || home[0] != '/') {
		if (getpwuid_r(getuid(), &pw, scratch, sizeof(scratch), &found) != 0 || !found ||
			found->pw_dir[0] != '/')
			return err_set_kind(e, ERR_KIND_HOST, -ENOENT,
				"cannot tell where the cache is: $HOME is not set and user %u has no home; "
				"give --cache DIR or set IMGBUILD_CACHE", (unsigned)getuid());
		home = found->pw_dir;
	}
	*ret = strdup(home);
	return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int store_default_path(const char *option, char **ret, struct err *e)
{
	const char *given = option ? option : environment("IMGBUILD_CACHE"), *xdg;
	_cleanup_free_ char *home = NULL, *path = NULL;
	int r;

	if (given && !given[0])
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL, "--cache needs the name of a folder");
	if (given)
		return make_absolute(given, ret, e);
	xdg = environment("XDG_CACHE_HOME");
	if (xdg && xdg[0] == '/') { /* the XDG specification: relative ones are to be ignored */
		r = asprintf(&path, "%s/imgbuild", xdg);
	} else {
		r = home_folder(&home, e);
		if (r < 0)
			return r;
		r = asprintf(&path, "%s/.cache/imgbuild", home);
	}
	if (r < 0) {
		path = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	return make_absolute(path, ret, e);
}

int store_open(const char *path, struct store *ret, struct err *e)
{
	_cleanup_store_ struct store s = STORE_INIT;
	int r = make_absolute(path, &s.path, e);

	if (r < 0)
		return r;
	s.root_fd = open(s.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s.root_fd < 0 && errno == ENOTDIR)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOTDIR, "the cache `%s` is not a folder", s.path);
	if (s.root_fd < 0 && errno != ENOENT) {
		r = err_set_errno(e, -errno, "cannot open the cache folder `%s`", s.path);
		(void)err_default_kind(e, ERR_KIND_HOST);
		return r;
	}
	*ret = s;
	s = (struct store)STORE_INIT;
	return 0;
}

void store_release(struct store *s)
{
	close_fdp(&s->root_fd);
	free(s->path);
	s->path = NULL;
}

/* ---- names ----------------------------------------------------------------------------------------------------- */

const char *store_kind_folder(enum store_kind kind)
{
	switch (kind) {
	case STORE_IMAGE:
		return "images";
	case STORE_FAILED:
		return "failed";
	case STORE_ROOT:
		return "roots";
	case STORE_STAGE:
		return "stages";
	}
	assert(0);
	return "";
}

char *store_blob_relative_path(const struct digest *digest, char path[static STORE_BLOB_PATH_SIZE])
{
	char hex[DIGEST_HEX_SIZE];

	assert(digest->algorithm != DIGEST_NONE);
	(void)digest_hex(digest, hex);
	(void)snprintf(path, STORE_BLOB_PATH_SIZE, "blobs/%s/%.2s/%s", digest_algorithm_name(digest->algorithm), hex, hex);
	return path;
}

char *store_root_name(const struct digest *base_sha256, unsigned partition, char name[static STORE_NAME_MAX_BYTES])
{
	char hex[DIGEST_HEX_SIZE];

	(void)snprintf(name, STORE_NAME_MAX_BYTES, "%s-%u", digest_hex(base_sha256, hex), partition);
	return name;
}

static int absolute_path(const struct store *s, const char *folder, const char *name, char **ret, struct err *e)
{
	char *path = NULL;

	if (asprintf(&path, "%s/%s%s%s", s->path, folder, name ? "/" : "", name ? name : "") < 0)
		return err_set(e, -ENOMEM, "out of memory");
	*ret = path;
	return 0;
}

/* ---- blobs ----------------------------------------------------------------------------------------------------- */

/* Read which SHA-256 has this SHA-512: the last part of the link's target. The link is never followed. */
static int read_sha512_link(const struct store *s, const struct digest *sha512, struct digest *ret)
{
	char path[STORE_BLOB_PATH_SIZE], target[STORE_BLOB_PATH_SIZE];
	const char *hex;
	ssize_t n = readlinkat(s->root_fd, store_blob_relative_path(sha512, path), target, sizeof(target) - 1);

	if (n < 0)
		return -errno;
	target[n] = '\0';
	hex = strrchr(target, '/');
	return hex && digest_parse_hex(DIGEST_SHA256, hex + 1, ret) == 0 ? 0 : -ENOENT;
}

static int blob_absent(const struct store *s, const struct digest *digest, struct err *e)
{
	char hex[DIGEST_HEX_SIZE];

	return err_set_kind(e, ERR_KIND_INPUT, -ENOENT, "the cache `%s` has no blob with %s %s", s->path,
		digest_algorithm_name(digest->algorithm), digest_hex(digest, hex));
}

/* The SHA-256 under which a digest would be stored. */
static int blob_name(const struct store *s, const struct digest *digest, struct digest *ret, struct err *e)
{
	if (s->root_fd < 0 || digest->algorithm == DIGEST_NONE)
		return blob_absent(s, digest, e);
	*ret = *digest;
	if (digest->algorithm == DIGEST_SHA512 && read_sha512_link(s, digest, ret) < 0)
		return blob_absent(s, digest, e);
	return 0;
}

int store_find_blob(const struct store *s, const struct digest *digest, struct digest *ret_sha256,
	uint64_t *ret_size_bytes, struct err *e)
{
	char path[STORE_BLOB_PATH_SIZE];
	struct digest sha256;
	struct stat st;
	int r = blob_name(s, digest, &sha256, e);

	if (r < 0)
		return r;
	if (fstatat(s->root_fd, store_blob_relative_path(&sha256, path), &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return blob_absent(s, digest, e);
		return err_set_errno(e, -errno, "cannot look at the blob `%s/%s`", s->path, path);
	}
	if (!S_ISREG(st.st_mode))
		return blob_absent(s, digest, e);
	if (ret_sha256)
		*ret_sha256 = sha256;
	if (ret_size_bytes)
		*ret_size_bytes = (uint64_t)st.st_size;
	return 0;
}

int store_open_blob(const struct store *s, const struct digest *digest, int *ret_fd, uint64_t *ret_size_bytes,
	struct err *e)
{
	char path[STORE_BLOB_PATH_SIZE];
	_cleanup_close_ int fd = -1;
	struct digest sha256;
	struct stat st;
	int r = blob_name(s, digest, &sha256, e);

	if (r < 0)
		return r;
	fd = openat(s->root_fd, store_blob_relative_path(&sha256, path), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP))
		return blob_absent(s, digest, e);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot open the blob `%s/%s`", s->path, path);
	if (!S_ISREG(st.st_mode))
		return blob_absent(s, digest, e);
	*ret_fd = take_fd(&fd);
	if (ret_size_bytes)
		*ret_size_bytes = (uint64_t)st.st_size;
	return 0;
}

int store_blob_path(const struct store *s, const struct digest *digest, char **ret_path, struct err *e)
{
	char path[STORE_BLOB_PATH_SIZE];
	struct digest sha256;
	int r = store_find_blob(s, digest, &sha256, NULL, e);

	return r < 0 ? r : absolute_path(s, store_blob_relative_path(&sha256, path), NULL, ret_path, e);
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

/* Is <folder>/<name> an entry? Returns 1, 0 or -errno. ret_published_ns may be NULL. */
static int is_entry(const struct store *s, const char *folder, const char *name, int64_t *ret_published_ns)
{
	char path[32 + STORE_NAME_MAX_BYTES + sizeof("/" STORE_MANIFEST)];
	struct stat st;

	if (s->root_fd < 0)
		return 0;
	(void)snprintf(path, sizeof(path), "%s/%s/" STORE_MANIFEST, folder, name);
	if (fstatat(s->root_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
	if (!S_ISREG(st.st_mode))
		return 0;
	if (ret_published_ns)
		*ret_published_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
	return 1;
}

static int find_folder(const struct store *s, enum store_kind kind, const char *name, char **ret_path, struct err *e)
{
	const char *folder = store_kind_folder(kind);
	int r = is_entry(s, folder, name, NULL);

	if (r < 0) {
		(void)err_set_errno(e, r, "cannot look for `%s/%s/%s`", s->path, folder, name);
		return err_default_kind(e, ERR_KIND_HOST);
	}
	if (r == 0)
		return err_set(e, -ENOENT, "the cache `%s` has no %s/%s", s->path, folder, name);
	return absolute_path(s, folder, name, ret_path, e);
}

int store_find_entry(const struct store *s, const struct digest *key, char **ret_path, struct err *e)
{
	char hex[DIGEST_HEX_SIZE];

	return find_folder(s, STORE_IMAGE, digest_hex(key, hex), ret_path, e);
}

int store_find_stage(const struct store *s, const struct digest *prefix_key, char **ret_path, struct err *e)
{
	char hex[DIGEST_HEX_SIZE];

	return find_folder(s, STORE_STAGE, digest_hex(prefix_key, hex), ret_path, e);
}

int store_find_root(const struct store *s, const struct digest *base_sha256, unsigned partition, char **ret_path,
	struct err *e)
{
	char name[STORE_NAME_MAX_BYTES];

	return find_folder(s, STORE_ROOT, store_root_name(base_sha256, partition, name), ret_path, e);
}

void store_item_release(struct store_item *item)
{
	free(item->name);
	free(item->path);
	*item = (struct store_item){ .name = NULL };
}

void store_listing_release(struct store_listing *l)
{
	for (size_t i = 0; i < l->n; i++)
		store_item_release(&l->items[i]);
	free(l->items);
	*l = (struct store_listing){ .items = NULL };
}

/* Read "<sha256>" or "<sha256>-<number>", as the kind wants it. */
static bool parse_name(enum store_kind kind, const char *name, struct digest *ret_key, unsigned *ret_number)
{
	char hex[DIGEST_SHA256_HEX_SIZE];
	const char *p = name + DIGEST_SHA256_HEX_SIZE - 1;
	unsigned number = 0;
	bool numbered = kind == STORE_FAILED || kind == STORE_ROOT;

	if (strnlen(name, STORE_NAME_MAX_BYTES) < sizeof(hex) - 1)
		return false;
	(void)snprintf(hex, sizeof(hex), "%s", name);
	for (const char *c = hex; *c; c++)
		if (isupper((unsigned char)*c)) /* we write lower case; another form would be a second name */
			return false;
	if (digest_parse_hex(DIGEST_SHA256, hex, ret_key) < 0)
		return false;
	if (!numbered)
		return *p == '\0';
	if (*p++ != '-' || !isdigit((unsigned char)*p) || strlen(p) > 6)
		return false;
	for (; isdigit((unsigned char)*p); p++)
		number = number * 10 + (unsigned)(*p - '0');
	*ret_number = number;
	return *p == '\0';
}

static int add_item(const struct store *s, enum store_kind kind, const char *name, struct store_listing *list,
	size_t *capacity, struct err *e)
{
	struct store_item item = { .kind = kind };
	int r;

	if (!parse_name(kind, name, &item.key, &item.number))
		return 0;
	r = is_entry(s, store_kind_folder(kind), name, &item.published_ns);
	if (r <= 0)
		return r == 0 ? 0 : err_set_errno(e, r, "cannot look at `%s/%s/%s`", s->path, store_kind_folder(kind), name);
	if (list->n >= STORE_LISTING_MAX_ITEMS)
		return err_set(e, -E2BIG, "`%s/%s` has more than %d folders", s->path, store_kind_folder(kind),
			STORE_LISTING_MAX_ITEMS);
	if (list->n == *capacity) {
		size_t more = *capacity ? 2 * *capacity : 16;
		struct store_item *items = reallocarray(list->items, more, sizeof(*items));

		if (!items)
			return err_set(e, -ENOMEM, "out of memory");
		list->items = items;
		*capacity = more;
	}
	r = absolute_path(s, store_kind_folder(kind), name, &item.path, e);
	if (r < 0)
		return r;
	item.name = strdup(name);
	if (!item.name) {
		store_item_release(&item);
		return err_set(e, -ENOMEM, "out of memory");
	}
	list->items[list->n++] = item;
	return 0;
}

static int compare_items(const void *a, const void *b)
{
	const struct store_item *x = a, *y = b;
	int r = memcmp(x->key.bytes, y->key.bytes, 32);

	if (r != 0)
		return r;
	return (x->number > y->number) - (x->number < y->number);
}

int store_list(const struct store *s, enum store_kind kind, struct store_listing *ret, struct err *e)
{
	_cleanup_store_listing_ struct store_listing list = { .items = NULL };
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	size_t capacity = 0;
	int fd, r;

	if (s->root_fd < 0)
		goto done;
	fd = openat(s->root_fd, store_kind_folder(kind), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		goto done;
	if (fd < 0)
		return err_set_errno(e, -errno, "cannot open `%s/%s`", s->path, store_kind_folder(kind));
	dir = fdopendir(fd);
	if (!dir) {
		r = err_set_errno(e, -errno, "cannot list `%s/%s`", s->path, store_kind_folder(kind));
		(void)close(fd);
		return r;
	}
	while (errno = 0, (entry = readdir(dir))) {
		r = add_item(s, kind, entry->d_name, &list, &capacity, e);
		if (r < 0)
			return r;
	}
	if (errno != 0)
		return err_set_errno(e, -errno, "cannot list `%s/%s`", s->path, store_kind_folder(kind));
	if (list.n > 1)
		qsort(list.items, list.n, sizeof(*list.items), compare_items);
done:
	*ret = list;
	list = (struct store_listing){ .items = NULL };
	return 0;
}

/* ---- prefixes -------------------------------------------------------------------------------------------------- */

/* "ab12" or, with or_failed, "ab12-3". Writes the hexadecimal part in lower case. */
static bool parse_prefix(const char *prefix, bool or_failed, char hex[static DIGEST_SHA256_HEX_SIZE],
	unsigned *ret_number)
{
	size_t n = 0;
	unsigned number = 0;
	const char *p;

	for (; isxdigit((unsigned char)prefix[n]); n++) {
		if (n + 1 >= DIGEST_SHA256_HEX_SIZE)
			return false;
		hex[n] = (char)tolower((unsigned char)prefix[n]);
	}
	hex[n] = '\0';
	if (n == 0)
		return false;
	p = prefix + n;
	if (*p == '-' && or_failed) {
		p++;
		if (!isdigit((unsigned char)*p) || strlen(p) > 6)
			return false;
		for (; isdigit((unsigned char)*p); p++)
			number = number * 10 + (unsigned)(*p - '0');
		if (number == 0)
			return false;
	}
	*ret_number = number;
	return *p == '\0';
}

/* Of the items with this prefix, take the one that is meant. 0: *ret_match is its index; else -ENOENT, -ENOTUNIQ. */
static int choose(const struct store_listing *list, const char *hex, unsigned number, size_t *ret_match, struct err *e)
{
	size_t len = strlen(hex), match = SIZE_MAX, shown = 0;
	struct buf names = BUF_INIT(1024);
	bool ambiguous = false;
	int r = 0;

	for (size_t i = 0; i < list->n; i++) {
		const struct store_item *item = &list->items[i];
		bool same_key;

		if (strncmp(item->name, hex, len) != 0 || (number && item->number != number))
			continue;
		/* Sorted by key and number: the last of a key is its newest attempt. */
		same_key = match != SIZE_MAX && digest_equal(&list->items[match].key, &item->key);
		if (match != SIZE_MAX && !same_key)
			ambiguous = true;
		if (!same_key && r == 0 && shown++ < 8)
			r = buf_appendf(&names, "%s%s", shown > 1 ? ", " : "", item->name);
		match = i;
	}
	if (r == 0 && shown > 8)
		r = buf_appendf(&names, " and %zu more", shown - 8);
	if (ambiguous)
		r = err_set_kind(e, ERR_KIND_USAGE, -ENOTUNIQ, "`%s` is the beginning of several keys: %s; give more digits",
			hex, r < 0 ? "(out of memory)" : buf_str(&names));
	else if (match == SIZE_MAX)
		r = err_set_kind(e, ERR_KIND_USAGE, -ENOENT, "no key begins with `%s`", hex);
	else
		r = 0;
	buf_release(&names);
	if (r == 0)
		*ret_match = match;
	return r;
}

static int resolve_in(const struct store *s, enum store_kind kind, const char *hex, unsigned number,
	struct store_item *ret, struct err *e)
{
	_cleanup_store_listing_ struct store_listing list = { .items = NULL };
	size_t match = 0;
	int r = store_list(s, kind, &list, e);

	if (r == 0)
		r = choose(&list, hex, number, &match, e);
	if (r < 0)
		return r;
	*ret = list.items[match];
	list.items[match] = (struct store_item){ .name = NULL };
	return 0;
}

int store_resolve_prefix(const struct store *s, const char *prefix, bool or_failed, struct store_item *ret,
	struct err *e)
{
	char hex[DIGEST_SHA256_HEX_SIZE];
	unsigned number = 0;
	int r = -ENOENT;

	if (!parse_prefix(prefix, or_failed, hex, &number))
		return err_set_kind(e, ERR_KIND_USAGE, -EINVAL,
			"`%s` is no key: a key is 64 hexadecimal digits, and its first few are enough", prefix);
	if (number == 0)
		r = resolve_in(s, STORE_IMAGE, hex, 0, ret, e);
	if (r == -ENOENT && or_failed)
		r = resolve_in(s, STORE_FAILED, hex, number, ret, e);
	if (r == -ENOENT)
		return err_set_kind(e, ERR_KIND_USAGE, -ENOENT, "the cache `%s` has no %s whose key begins with `%s`; "
			"`imgbuild ls` lists what is there", s->path, or_failed ? "image and no failed build" : "image", prefix);
	return r;
}

/* ---- state ----------------------------------------------------------------------------------------------------- */

int store_read_state(const struct store *s, const char *name, struct buf *into, struct err *e)
{
	char path[sizeof("state/") + STORE_NAME_MAX_BYTES];

	if (s->root_fd < 0)
		return err_set(e, -ENOENT, "the cache `%s` does not exist yet", s->path);
	(void)snprintf(path, sizeof(path), "state/%s", name);
	return read_file_at(s->root_fd, path, false, into, e);
}
