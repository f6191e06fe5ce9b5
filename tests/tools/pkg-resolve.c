/* Resolve packages against a folder that stands for a base image's root, and print the set: for tests/solver-judge.sh
 * and for people who want to see what the solver does.
 *
 *   pkg-resolve ROOT [options] NAME...
 *     --arch A  --remove NAME  --deb FILE  --recommends  --kernel PACKAGE  --mirror ORIGIN=URL  --mirror-host
 *     --snapshot TIME  --ignore-dates  --cache DIR (keep metadata there; release files, too: for repeated runs)
 *     --uris (say where from)  --now SECONDS  --answer FILE (write the answer there)  --keep FILE (an answer of before, that stays)
 *
 * Prints "Inst NAME [OLD] (NEW ARCH)", "Remv NAME [OLD] REASON", "Kernel NAME (VERSION)". */
#include "builder/packages/packages.h"
#include "cache/fetch.h"
#include "lib/io.h"

#include <fcntl.h>
#include <getopt.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

struct transport {
	const char *cache;
};

static void show(struct progress *p, const struct progress_event *event)
{
	(void)p;
	if (event->kind == PROGRESS_NOTE || event->kind == PROGRESS_WARNING)
		(void)fprintf(stderr, "%s: %s\n", event->kind == PROGRESS_NOTE ? "note" : "warning", event->detail);
}

/* Where the answer to a get is kept between runs. */
static int cache_name(const struct transport *t, const struct pkg_get *get, char **ret)
{
	struct err e = ERR_INIT;
	struct digest d;
	char hex[DIGEST_HEX_SIZE];

	if (get->expected)
		d = *get->expected;
	else if (digest_bytes(DIGEST_SHA256, get->urls->items[0], strlen(get->urls->items[0]), &d, &e) < 0)
		return -1;
	return asprintf(ret, "%s/%s", t->cache, digest_hex(&d, hex));
}

static int fetch_one(const struct transport *t, struct pkg_get *get, struct err *e)
{
	struct fetch_options options = FETCH_OPTIONS_INIT;
	struct fetch_request request = { .label = get->label,
		.urls = (const char *const *)get->urls->items,
		.n_urls = get->urls->n,
		.size_bytes = get->expected_size_bytes,
		.into = &get->bytes,
		.optional = true };
	_cleanup_free_ char *name = NULL;
	struct fetch_result result = { 0 };
	int r;

	if (t->cache) {
		struct err ignored = ERR_INIT;

		if (cache_name(t, get, &name) < 0)
			return err_set(e, -ENOMEM, "out of memory");
		if (get->expected && (get->fd = open(name, O_RDONLY | O_CLOEXEC)) >= 0)
			return 0;
		if (!get->expected && read_file_at(AT_FDCWD, name, false, &get->bytes, &ignored) == 0)
			return 0;
	}
	if (get->expected)
		request.sha256 = *get->expected;
	r = fetch_all(NULL, &request, 1, &options, &result, e);
	if (r < 0)
		return get->status = r;
	get->status = result.missing ? -ENOENT : 0;
	if (t->cache && !result.missing)
		r = write_file_atomic_at(AT_FDCWD, name, buf_str(&get->bytes), get->bytes.len, 0644, e);
	fetch_results_release(&result, 1);
	return r;
}

static int fetch_many(void *ctx, struct pkg_get *gets, size_t n, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = fetch_one(ctx, &gets[i], e);
	return r;
}

static int add_deb(struct pkg_local_deb *deb, const char *path, struct err *e)
{
	struct stat st;

	deb->label = path;
	deb->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (deb->fd < 0 || fstat(deb->fd, &st) < 0)
		return err_set_errno(e, -errno, "cannot open `%s`", path);
	deb->size_bytes = (uint64_t)st.st_size;
	return digest_fd(DIGEST_SHA256, deb->fd, UINT64_MAX, &deb->sha256, e);
}

/* An answer as lines of "name version arch sha256 size filename archive suite", behind what was asked for. */
static int write_answer(const struct pkg_set *set, const struct strv *asked, const char *path)
{
	FILE *f = fopen(path, "we");
	char hex[DIGEST_HEX_SIZE];

	if (!f)
		return -errno;
	for (size_t i = 0; i < asked->n; i++)
		(void)fprintf(f, "asked %s\n", asked->items[i]);
	for (size_t i = 0; i < set->n_items; i++) {
		const struct pkg_item *x = &set->items[i];

		(void)fprintf(f, "%s %s %s %s %llu %s %s %s\n", x->name, x->version, x->arch, digest_hex(&x->sha256, hex),
			(unsigned long long)x->size_bytes, x->filename, x->archive, x->suite);
	}
	return fclose(f) == 0 ? 0 : -EIO;
}

/* Read such lines; `text` holds their words and lives as long as *ret. */
static int read_answer(const char *path, struct buf *text, struct pkg_kept **ret, size_t *ret_n, struct strv *ret_asked,
	struct err *e)
{
	char *save = NULL;
	int r = read_file_at(AT_FDCWD, path, true, text, e);

	if (r < 0 || text->len == 0)
		return r;
	for (char *line = strtok_r(text->data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct pkg_kept *more = reallocarray(*ret, *ret_n + 1, sizeof(*more)), *one;
		char *words[8] = { 0 }, *rest = NULL;
		size_t n = 0;

		for (char *word = strtok_r(line, " ", &rest); word && n < ARRAY_SIZE(words); word = strtok_r(NULL, " ", &rest))
			words[n++] = word;
		if (!more || (n == 2 && strv_add(ret_asked, words[1]) < 0))
			return err_set(e, -ENOMEM, "out of memory");
		*ret = more;
		if (n == 2)
			continue;
		one = &more[*ret_n];
		*one = (struct pkg_kept){ .name = words[0], .version = words[1], .arch = words[2], .filename = words[5],
			.archive = words[6], .suite = words[7] };
		if (n != ARRAY_SIZE(words) || digest_parse_hex(DIGEST_SHA256, words[3], &one->sha256) < 0)
			return err_set(e, -EINVAL, "`%s` is no answer that --answer wrote", path);
		one->size_bytes = strtoull(words[4], NULL, 10);
		(*ret_n)++;
	}
	return 0;
}

static void print_set(const struct pkg_set *set, bool uris)
{
	static const char *const reasons[] = { "asked", "conflict", "depends" };

	for (size_t i = 0; i < set->n_items; i++) {
		const struct pkg_item *x = &set->items[i];

		(void)printf("Inst %s%s%s%s (%s %s)\n", x->name, x->replaces_version ? " [" : "",
			x->replaces_version ? x->replaces_version : "", x->replaces_version ? "]" : "", x->version, x->arch);
		for (size_t k = 0; uris && k < x->uris.n; k++)
			(void)printf("  %s\n", x->uris.items[k]);
	}
	for (size_t i = 0; i < set->n_removals; i++)
		(void)printf("Remv %s [%s] %s %s\n", set->removals[i].name, set->removals[i].version,
			reasons[set->removals[i].reason], set->removals[i].because);
	for (size_t i = 0; i < set->n_kernel_items; i++)
		(void)printf("Kernel %s (%s)\n", set->kernel_items[i].name, set->kernel_items[i].version);
}

enum { MANY = 64 };

int main(int argc, char **argv)
{
	static const struct option longs[] = { { "arch", 1, NULL, 'a' }, { "remove", 1, NULL, 'r' }, { "deb", 1, NULL, 'd' },
		{ "recommends", 0, NULL, 'R' }, { "kernel", 1, NULL, 'k' }, { "mirror", 1, NULL, 'm' },
		{ "mirror-host", 0, NULL, 'h' }, { "snapshot", 1, NULL, 's' }, { "ignore-dates", 0, NULL, 'i' },
		{ "cache", 1, NULL, 'c' }, { "uris", 0, NULL, 'u' }, { "now", 1, NULL, 'n' },
		{ "answer", 1, NULL, 'A' }, { "keep", 1, NULL, 'K' }, { 0 } };
	_cleanup_strv_ struct strv install = { 0 }, removals = { 0 };
	_cleanup_pkg_set_ struct pkg_set set = { 0 };
	struct progress progress = { .emit = show };
	struct pkg_mirror mirrors[MANY];
	struct pkg_local_deb debs[MANY];
	struct transport transport = { 0 };
	_cleanup_close_ int root_fd = -1, host_fd = -1;
	struct pkg_host_fs host;
	struct pkg_request q = { .arch = arch_native(), .mirrors = mirrors, .debs = debs, .progress = &progress,
		.install = &install, .remove = &removals, .now = time(NULL) };
	struct err e = ERR_INIT;
	_cleanup_buf_ struct buf kept_text = BUF_INIT(16 << 20);
	_cleanup_strv_ struct strv asked = { 0 };
	struct pkg_keep keep = { .n_items = 0 };
	_cleanup_free_ struct pkg_kept *kept = NULL;
	const char *answer = NULL;
	bool uris = false;
	int opt, r = 0;

	while (r == 0 && (opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		char *equals;

		switch (opt) {
		case 'a':
			r = arch_parse(optarg, &q.arch);
			break;
		case 'r':
			r = strv_add(&removals, optarg);
			break;
		case 'd':
			r = q.n_debs < MANY ? add_deb(&debs[q.n_debs++], optarg, &e) : -E2BIG;
			break;
		case 'R':
			q.recommends = true;
			break;
		case 'k':
			q.kernel_package = optarg;
			break;
		case 'm':
			equals = strchr(optarg, '=');
			if (!equals || q.n_mirrors == MANY)
				return 2;
			*equals = '\0';
			mirrors[q.n_mirrors++] = (struct pkg_mirror){ optarg, equals + 1 };
			break;
		case 'h':
			host_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
			host = pkg_host_fs_folder(&host_fd);
			q.host_apt = &host;
			break;
		case 's':
			q.snapshot = optarg;
			break;
		case 'i':
			q.ignore_valid_until = true;
			break;
		case 'c':
			transport.cache = optarg;
			break;
		case 'u':
			uris = true;
			break;
		case 'n':
			q.now = atoll(optarg);
			break;
		case 'A':
			answer = optarg;
			break;
		case 'K':
			r = read_answer(optarg, &kept_text, &kept, &keep.n_items, &asked, &e);
			keep.asked = &asked;
			keep.items = kept;
			q.keep = &keep;
			break;
		default:
			return 2;
		}
	}
	if (r == 0 && optind >= argc)
		return 2;
	if (r == 0) {
		root_fd = open(argv[optind], O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (root_fd < 0)
			r = err_set_errno(&e, -errno, "cannot open `%s`", argv[optind]);
	}
	for (int i = optind + 1; i < argc && r == 0; i++)
		r = strv_add(&install, argv[i]);
	q.fs = pkg_host_fs_folder(&root_fd);
	q.transport = (struct pkg_transport){ .ctx = &transport, .fetch_many = fetch_many };
	if (r == 0)
		r = pkg_resolve(&q, &set, &e);
	for (size_t i = 0; i < q.n_debs; i++)
		if (debs[i].fd >= 0)
			(void)close(debs[i].fd);
	if (r < 0) {
		(void)fprintf(stderr, "pkg-resolve: %s (%s)\n", e.message, e.origin);
		return err_exit_status(&e);
	}
	print_set(&set, uris);
	return answer && write_answer(&set, &install, answer) < 0 ? 4 : 0;
}
