/* The key follows the bytes on the disk: every local file and tree is changed by one bit, one name, one link, with its times set
 * back, and loaded as the program does, with a cache that remembers what the files were. */
#include "builder/prepare.h"
#include "plan_fixture.h"

#include <sys/xattr.h>
#include <time.h>

/* Everything that can be local, in three plans: a kernel is a file or in an archive, a base local or vouched for by a local key. */
static const char rest[] =
	"[packages]\na = [\"podman\"]\n[apt]\ndebs = [\"debs/x_1_amd64.deb\", \"debs/y.deb\"]\n"
	"[[apt.repository]]\nuri = \"https://example.org/d\"\nsuite = \"stable\"\ncomponents = [\"main\"]\nkey = \"key.asc\"\n"
	"[files.\"/etc/tool\"]\nsource = \"tool\"\n[files.\"/etc/tree\"]\nsource = \"tree\"\n"
	"[inputs.words]\nsource = \"words\"\n[inputs.tests]\nsource = \"tests\"\n[setup]\nfile = \"setup.sh\"\n";
static const char *const heads[] = {
	"[base.amd64]\nurl = \"base.img\"\n[kernel.amd64]\nfile = \"kernel\"\nmodules = \"modules\"\n",
	"[base.amd64]\nurl = \"file:base.img\"\n[kernel.amd64]\nurl = \"kernel.tar\"\npath = \"vmlinux\"\n",
	("[base.amd64]\nurl = \"https://example.org/b\"\nchecksums = \"https://example.org/SHA256SUMS\"\nchecksums_key = \"key.asc\"\n"
	 "[kernel.amd64]\nfrom = \"base\"\n"),
};

struct place {
	char path[256];
	int fd;
	struct store store;
};

static void put(int dirfd, const char *name, const char *text)
{
	_cleanup_close_ int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write_full(fd, text, strlen(text)), 0);
}

static void put_tree(int dirfd, const char *top)
{
	_cleanup_close_ int fd = -1;

	assert_int_equal(mkdirat(dirfd, top, 0755), 0);
	fd = openat(dirfd, top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(mkdirat(fd, "sub", 0755), 0);
	put(fd, "one", "bytes 1");
	put(fd, "sub/two", "bytes 2");
	put(fd, "sub/three", "bytes 3");
	assert_int_equal(symlinkat("sub/two", fd, "link"), 0);
}

static int make_place(void **state)
{
	static const char *const files[] = { "base.img", "kernel", "kernel.tar", "debs/x_1_amd64.deb", "debs/y.deb", "key.asc", "tool",
		"words", "setup.sh" };
	const char *tmp = getenv("TMPDIR");
	struct timespec pause = { .tv_sec = FILEDIGEST_RACY_NS / 1000000000, .tv_nsec = 50000000 };
	struct place *p = calloc(1, sizeof(*p));
	struct err e = ERR_INIT;
	char cache[300];

	(void)snprintf(p->path, sizeof(p->path), "%s/key-files-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(p->path))
		return -1;
	p->fd = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(p->fd, "debs", 0755), 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		put(p->fd, files[i], files[i]);
	put_tree(p->fd, "modules");
	put_tree(p->fd, "tree");
	put_tree(p->fd, "tests");
	/* So that the first load remembers every digest, and the changes are made behind its back. */
	(void)nanosleep(&pause, NULL);
	(void)snprintf(cache, sizeof(cache), "%s/cache", p->path);
	p->store = (struct store)STORE_INIT;
	/* It must be there when it is opened, or nothing is remembered. */
	assert_int_equal(mkdirat(p->fd, "cache", 0755), 0);
	if (store_open(cache, &p->store, &e) < 0)
		return -1;
	*state = p;
	return 0;
}

static int remove_place(void **state)
{
	struct place *p = *state;

	store_release(&p->store);
	(void)remove_tree_at(AT_FDCWD, p->path);
	close_fdp(&p->fd);
	free(p);
	return 0;
}

static void write_plan(const struct place *p, const char *head)
{
	char text[4096];

	assert_true(snprintf(text, sizeof(text), "%s%s", head, rest) < (int)sizeof(text));
	put(p->fd, "plan.toml", text);
	(void)unlinkat(p->fd, "plan.lock", 0);
}

static void load(const struct place *p, struct prepared *ret)
{
	_cleanup_plan_faults_ struct plan_faults faults = { 0 };
	struct err e = ERR_INIT;
	char path[300];

	(void)snprintf(path, sizeof(path), "%s/plan.toml", p->path);
	if (prepared_load(path, ARCH_AMD64, false, &p->store, NULL, ret, &faults, &e) < 0)
		fail_msg("%s", e.message);
}

/* Answer all questions as fixture_answer() does. */
static void answer(struct prepared *p)
{
	struct answered a = { .plan = p->plan, .locals = p->locals, .lock = p->lock };
	struct err e = ERR_INIT;

	fixture_answer(&a, ARCH_AMD64, "one");
	p->lock = a.lock;
	assert_int_equal(prepared_compute_key(p, &e), 0);
	assert_int_equal(p->key_error, 0);
}

/* Write a lock that answers the plan as it stands, and give the key. */
static struct digest begin(const struct place *p, const char *head)
{
	_cleanup_prepared_ struct prepared prepared = { 0 };
	struct err e = ERR_INIT;

	write_plan(p, head);
	load(p, &prepared);
	answer(&prepared);
	assert_int_equal(lock_write(p->fd, "plan.lock", &prepared.lock, ARCH_AMD64, &e), 0);
	return prepared.key;
}

/* What a change may do to the key. */
enum effect { NOTHING, ANOTHER_KEY, ANOTHER_QUESTION };

static void expect(const struct place *p, const struct digest *key, enum effect effect, const char *what, const char *path)
{
	_cleanup_prepared_ struct prepared now = { 0 };
	bool same;

	load(p, &now);
	same = now.key_error == 0 && digest_equal(key, &now.key);
	if (same != (effect == NOTHING))
		fail_msg("%s of `%s` %s the key", what, path, same ? "left" : "changed");
	if (effect == ANOTHER_QUESTION && now.key_error != -ENOKEY)
		fail_msg("%s of `%s` asked no other question", what, path);
	answer(&now);
	if (digest_equal(key, &now.key) != (effect != ANOTHER_KEY))
		fail_msg("%s of `%s`: the same answers give %s key", what, path, effect == ANOTHER_KEY ? "the same" : "another");
}

static enum effect effect_of(enum plan_input_kind kind)
{
	return kind == PLAN_INPUT_CHECKSUMS_KEY || kind == PLAN_INPUT_KERNEL_ARCHIVE || kind == PLAN_INPUT_REPOSITORY_KEY
		       ? ANOTHER_QUESTION
		       : ANOTHER_KEY;
}

static void restore_times(const struct place *p, const char *path, const struct stat *st)
{
	const struct timespec times[2] = { st->st_atim, st->st_mtim };

	assert_int_equal(utimensat(p->fd, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

/* Every bit of a file, one by one, its length and times kept. */
static void flip_bits(const struct place *p, const struct digest *key, const char *path, enum effect effect)
{
	_cleanup_close_ int fd = openat(p->fd, path, O_RDWR | O_CLOEXEC);
	struct stat st;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	for (off_t i = 0; i < st.st_size; i++) {
		unsigned char was, now;

		assert_int_equal(pread(fd, &was, 1, i), 1);
		now = (unsigned char)(was ^ (1u << (i % 8)));
		assert_int_equal(pwrite(fd, &now, 1, i), 1);
		restore_times(p, path, &st);
		expect(p, key, effect, "a bit", path);
		assert_int_equal(pwrite(fd, &was, 1, i), 1);
		restore_times(p, path, &st);
	}
	assert_int_equal(ftruncate(fd, st.st_size + 1), 0);
	restore_times(p, path, &st);
	expect(p, key, effect, "a byte at the end", path);
	assert_int_equal(ftruncate(fd, st.st_size), 0);
	expect(p, key, NOTHING, "what is as it was", path);
}

static void try_modes(const struct place *p, const struct digest *key, const char *path, enum effect when_executable)
{
	static const mode_t alike[] = { 0600, 0640, 0664, 0666, 0444, 0655 };

	for (size_t i = 0; i < ARRAY_SIZE(alike); i++) {
		assert_int_equal(fchmodat(p->fd, path, alike[i], 0), 0);
		expect(p, key, NOTHING, "the readers and writers", path);
	}
	assert_int_equal(fchmodat(p->fd, path, 0755, 0), 0);
	expect(p, key, when_executable, "being executable", path);
	assert_int_equal(fchmodat(p->fd, path, 0644, 0), 0);
}

/* What the name, the times and the links of a file are does not matter, for its bytes are the input. */
static void try_other_inode(const struct place *p, const struct digest *key, const char *path)
{
	_cleanup_close_ int fd = openat(p->fd, path, O_RDONLY | O_CLOEXEC);
	char elsewhere[] = "elsewhere", target[300];
	struct timespec times[2] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
	size_t depth = 0;

	assert_int_equal(utimensat(p->fd, path, times, 0), 0);
	expect(p, key, NOTHING, "the time", path);
	assert_int_equal(linkat(p->fd, path, p->fd, "another-name", 0), 0);
	expect(p, key, NOTHING, "another name", path);
	assert_int_equal(unlinkat(p->fd, "another-name", 0), 0);
	/* Where the filesystem has such attributes. */
	(void)fsetxattr(fd, "user.imgbuild", "x", 1, 0);
	expect(p, key, NOTHING, "an attribute", path);
	assert_int_equal(renameat(p->fd, path, p->fd, elsewhere), 0);
	for (const char *c = path; *c; c++)
		depth += *c == '/';
	(void)snprintf(target, sizeof(target), "%s%s", depth ? "../" : "", elsewhere);
	assert_int_equal(symlinkat(target, p->fd, path), 0);
	expect(p, key, NOTHING, "being a link to it", path);
	assert_int_equal(renameat(p->fd, elsewhere, p->fd, path), 0);
}

/* How many digests the cache remembers: what the tests here change behind its back. */
static void expect_remembered(const struct place *p)
{
	_cleanup_filedigest_memo_ struct filedigest_memo *memo = NULL;
	struct err e = ERR_INIT;
	struct digest digest;
	uint64_t n_read, n_known;

	assert_int_equal(filedigest_memo_load(&p->store, &memo, &e), 0);
	assert_int_equal(filedigest_file_at(memo, p->fd, "setup.sh", &digest, NULL, &e), 0);
	filedigest_memo_counts(memo, &n_read, &n_known);
	assert_int_equal(n_read, 0);
	assert_int_equal(n_known, 1);
}

static void every_local_file_is_its_bytes(void **state)
{
	const struct place *p = *state;
	bool seen[PLAN_INPUT_SCRIPT + 1] = { false };

	for (size_t h = 0; h < ARRAY_SIZE(heads); h++) {
		struct digest key = begin(p, heads[h]);
		_cleanup_prepared_ struct prepared all = { 0 };

		load(p, &all);
		assert_true(all.key_error == 0 && digest_equal(&key, &all.key));
		if (h == 0)
			expect_remembered(p);
		for (size_t i = 0; i < all.locals.n; i++) {
			const struct plan_local_input *input = &all.locals.items[i];
			enum effect effect = effect_of(input->kind);

			seen[input->kind] = true;
			if (input->is_tree)
				continue;
			flip_bits(p, &key, input->path, effect);
			try_modes(p, &key, input->path,
				input->kind == PLAN_INPUT_FILE || input->kind == PLAN_INPUT_INPUT ? ANOTHER_KEY : NOTHING);
			try_other_inode(p, &key, input->path);
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
		if (!seen[i])
			fail_msg("no plan here has a local input of the kind %zu", i);
}

/* One change of a tree, made beneath it and taken back. */
struct tree_change {
	const char *what;
	enum effect effect;
	void (*make)(int fd);
	void (*undo)(int fd);
};

static void move(int fd, const char *from, const char *to)
{
	assert_int_equal(renameat(fd, from, fd, to), 0);
}

static void rename_file(int fd) { move(fd, "one", "onf"); }
static void rename_file_back(int fd) { move(fd, "onf", "one"); }
static void rename_folder(int fd) { move(fd, "sub", "suc"); }
static void rename_folder_back(int fd) { move(fd, "suc", "sub"); }
static void rename_link(int fd) { move(fd, "link", "linl"); }
static void rename_link_back(int fd) { move(fd, "linl", "link"); }
static void move_file(int fd) { move(fd, "sub/two", "two"); }
static void move_file_back(int fd) { move(fd, "two", "sub/two"); }

static void swap_files(int fd)
{
	move(fd, "sub/two", "x");
	move(fd, "sub/three", "sub/two");
	move(fd, "x", "sub/three");
}

static void link_to(int fd, const char *target)
{
	assert_int_equal(unlinkat(fd, "link", 0), 0);
	assert_int_equal(symlinkat(target, fd, "link"), 0);
}

static void other_target(int fd) { link_to(fd, "sub/twp"); }
static void same_bytes_by_another_target(int fd) { link_to(fd, "./sub/two"); }
static void first_target(int fd) { link_to(fd, "sub/two"); }

static void file_for_link(int fd)
{
	assert_int_equal(unlinkat(fd, "link", 0), 0);
	put(fd, "link", "bytes 2");
}

static void text_of_link(int fd)
{
	assert_int_equal(unlinkat(fd, "link", 0), 0);
	put(fd, "link", "sub/two");
}

static void add_file(int fd) { put(fd, "sub/new", ""); }
static void remove_file(int fd) { assert_int_equal(unlinkat(fd, "sub/new", 0), 0); }
static void add_folder(int fd) { assert_int_equal(mkdirat(fd, "sub/new", 0755), 0); }
static void remove_folder(int fd) { assert_int_equal(unlinkat(fd, "sub/new", AT_REMOVEDIR), 0); }
static void take_file(int fd) { assert_int_equal(unlinkat(fd, "one", 0), 0); }
static void give_file(int fd) { put(fd, "one", "bytes 1"); }
static void make_executable(int fd) { assert_int_equal(fchmodat(fd, "sub/two", 0755, 0), 0); }
static void make_plain(int fd) { assert_int_equal(fchmodat(fd, "sub/two", 0644, 0), 0); }
static void other_byte(int fd) { put(fd, "sub/two", "bytes 9"); }
static void first_byte(int fd) { put(fd, "sub/two", "bytes 2"); }

static void other_umask(int fd)
{
	assert_int_equal(fchmodat(fd, "sub/two", 0600, 0), 0);
	assert_int_equal(fchmodat(fd, "sub", 0700, 0), 0);
	assert_int_equal(fchmod(fd, 02775), 0);
}

static void first_umask(int fd)
{
	assert_int_equal(fchmodat(fd, "sub/two", 0644, 0), 0);
	assert_int_equal(fchmodat(fd, "sub", 0755, 0), 0);
	assert_int_equal(fchmod(fd, 0755), 0);
}

static void older(int fd)
{
	struct timespec times[2] = { { .tv_sec = 7 }, { .tv_sec = 7 } };

	assert_int_equal(utimensat(fd, "sub/two", times, 0), 0);
	assert_int_equal(utimensat(fd, "sub", times, 0), 0);
	assert_int_equal(utimensat(fd, "link", times, AT_SYMLINK_NOFOLLOW), 0);
}

static void nothing(int fd) { (void)fd; }

static void add_copy(int fd) { put(fd, "sub/new", "bytes 2"); }

static void made_anew(int fd)
{
	/* The folder gets its entries in another order. */
	assert_int_equal(unlinkat(fd, "one", 0), 0);
	assert_int_equal(unlinkat(fd, "sub/two", 0), 0);
	assert_int_equal(unlinkat(fd, "link", 0), 0);
	assert_int_equal(symlinkat("sub/two", fd, "link"), 0);
	put(fd, "sub/two", "bytes 2");
	put(fd, "one", "bytes 1");
}

static const struct tree_change changes[] = {
	{ "the name of a file", ANOTHER_KEY, rename_file, rename_file_back },
	{ "the name of a folder", ANOTHER_KEY, rename_folder, rename_folder_back },
	{ "the name of a link", ANOTHER_KEY, rename_link, rename_link_back },
	{ "the folder of a file", ANOTHER_KEY, move_file, move_file_back },
	{ "which of two files is which", ANOTHER_KEY, swap_files, swap_files },
	{ "the target of a link", ANOTHER_KEY, other_target, first_target },
	{ "the spelling of a target", ANOTHER_KEY, same_bytes_by_another_target, first_target },
	{ "a file instead of a link to it", ANOTHER_KEY, file_for_link, first_target },
	{ "a file with a target's text", ANOTHER_KEY, text_of_link, first_target },
	{ "an empty file more", ANOTHER_KEY, add_file, remove_file },
	{ "an empty folder more", ANOTHER_KEY, add_folder, remove_folder },
	{ "a copy of a file more", ANOTHER_KEY, add_copy, remove_file },
	{ "a file less", ANOTHER_KEY, take_file, give_file },
	{ "an executable file", ANOTHER_KEY, make_executable, make_plain },
	{ "a byte of a file", ANOTHER_KEY, other_byte, first_byte },
	{ "the umask", NOTHING, other_umask, first_umask },
	{ "the times", NOTHING, older, nothing },
	{ "the order of making", NOTHING, made_anew, nothing },
};

static void every_local_tree_is_its_contents(void **state)
{
	static const char *const trees[] = { "modules", "tree", "tests" };
	const struct place *p = *state;
	struct digest key = begin(p, heads[0]);

	for (size_t t = 0; t < ARRAY_SIZE(trees); t++) {
		_cleanup_close_ int fd = openat(p->fd, trees[t], O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
			changes[i].make(fd);
			expect(p, &key, changes[i].effect, changes[i].what, trees[t]);
			changes[i].undo(fd);
			expect(p, &key, NOTHING, "what is as it was", trees[t]);
		}
		/* Whether the folder itself is one or a link to one. */
		assert_int_equal(renameat(p->fd, trees[t], p->fd, "elsewhere"), 0);
		assert_int_equal(symlinkat("elsewhere", p->fd, trees[t]), 0);
		expect(p, &key, NOTHING, "being a link to it", trees[t]);
		assert_int_equal(unlinkat(p->fd, trees[t], 0), 0);
		assert_int_equal(renameat(p->fd, "elsewhere", p->fd, trees[t]), 0);
	}
}

/* A tree and a file of the same bytes, or the same tree for another purpose, are not the same image. */
static void what_the_bytes_are_for_counts(void **state)
{
	const struct place *p = *state;
	struct digest key = begin(p, heads[0]);

	assert_int_equal(unlinkat(p->fd, "words", 0), 0);
	put_tree(p->fd, "words");
	expect(p, &key, ANOTHER_KEY, "a folder instead of a file", "words");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_local_file_is_its_bytes, make_place, remove_place),
		cmocka_unit_test_setup_teardown(every_local_tree_is_its_contents, make_place, remove_place),
		cmocka_unit_test_setup_teardown(what_the_bytes_are_for_counts, make_place, remove_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
