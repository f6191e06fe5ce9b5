#include "initrd/init/unithelper.h"
#include "initrd/init/util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define REAL_PROGRAM "/usr/bin/" UNITHELPER_NAME
#define PROGRAM_MAX_BYTES (256u << 10)
#define UNIT_MAX_BYTES (1u << 20)
#define LINKS_MAX 256
#define ALSO_DEPTH_MAX 16
#define PATH_SIZE 1024

/* The texts of the real program that this one was compared with, by size and FNV-1a. */
static const struct {
	size_t size_bytes;
	uint64_t hash;
	const char *of;
} known_programs[] = {
	{ 24358, 0x2b182edb5ee0c71fu, "init-system-helpers 1.65.2 to 1.69 (Debian 12 and 13)" },
};

/* A link that enables a unit: src points to dest. */
struct unit_link {
	char src[PATH_SIZE], dest[PATH_SIZE];
};

struct helper {
	bool user, quiet;
	const char *instance;    /* "system" or "user" */
	const char *enabled_dir; /* where the program remembers what it enabled, and masked */
	const char *masked_dir;
	struct unit_link links[LINKS_MAX];
	size_t n_links;
	char **argv;
};

/* Let the image's own program do it. Nothing was changed so far. */
__attribute__((noreturn)) static void hand_over(struct helper *h)
{
	(void)execv(REAL_PROGRAM, h->argv);
	(void)fprintf(stderr, "imgbuild: cannot execute " REAL_PROGRAM ": %s\n", strerror(errno));
	_exit(127);
}

static bool program_is_known(void)
{
	uint64_t hash = 14695981039346656037u;
	char *text;
	size_t len;

	if (read_alloc_at(AT_FDCWD, REAL_PROGRAM, PROGRAM_MAX_BYTES, &text, &len) < 0)
		return false;
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
	free(text);
	for (size_t i = 0; i < ARRAY_SIZE(known_programs); i++) {
		if (known_programs[i].size_bytes == len && known_programs[i].hash == hash)
			return true;
	}
	return false;
}

static bool is_link(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

static bool exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static bool is_regular(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The unit's file, as an absolute path. Returns false when there is none: what the real program does then is
 * its own affair. */
static bool find_unit(const struct helper *h, const char *unit, char *ret)
{
	static const char *const folders[] = { "/etc/systemd", "/lib/systemd", "/usr/lib/systemd" };

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		(void)snprintf(ret, PATH_SIZE, "%s/%s/%s", folders[i], h->instance, unit);
		if (is_regular(ret))
			return true;
	}
	return false;
}

static bool add_link(struct helper *h, const char *src, const char *dest)
{
	struct unit_link *link = &h->links[h->n_links];

	if (h->n_links == LINKS_MAX || strlen(src) >= sizeof(link->src) || strlen(dest) >= sizeof(link->dest))
		return false;
	(void)snprintf(link->src, sizeof(link->src), "%s", src);
	(void)snprintf(link->dest, sizeof(link->dest), "%s", dest);
	h->n_links++;
	return true;
}

/* The value of `line` when it sets `key`, else NULL. *ok becomes false for what is written unusually: another
 * case of letters, quotes, spaces around. */
static char *value_of(char *line, const char *key, bool *ok)
{
	char *p = line + strspn(line, " \t\r\f\v");
	size_t len = strlen(key);

	if (strncasecmp(p, key, len) != 0 || p[len] != '=' || p[len + 1] == '\0')
		return NULL;
	p += len + 1;
	if (strncmp(p - len - 1, key, len) != 0 || strpbrk(p, "\"'\\\r\f\v") || *p == ' ' || *p == '\t' ||
		p[strlen(p) - 1] == ' ' || p[strlen(p) - 1] == '\t')
		*ok = false;
	return p;
}

static bool collect_links(struct helper *h, const char *service_path, const char **visited, size_t n_visited);

/* Take one line of a unit's file into the closure. wants collects folders, ended by the target once the whole
 * file is read. */
static bool take_line(struct helper *h, const char *service_path, char *line, char (*wants)[PATH_SIZE],
	size_t *n_wants, char *wanted_target, const char **visited, size_t *n_visited)
{
	static const struct {
		const char *key, *suffix;
	} folders[] = { { "WantedBy", "wants" }, { "RequiredBy", "requires" } };
	const char *unit = base_name(service_path);
	char *value, *rest, path[PATH_SIZE];
	bool ok = true;

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		rest = value_of(line, folders[i].key, &ok);
		if (!ok)
			return false;
		while (rest && (value = strsep(&rest, " \t"))) {
			if (value[0] == '\0')
				continue;
			if (*n_wants == LINKS_MAX ||
				snprintf(wants[*n_wants], PATH_SIZE, "/etc/systemd/%s/%s.%s/", h->instance,
					value, folders[i].suffix) >= PATH_SIZE)
				return false;
			(*n_wants)++;
		}
	}
	rest = value_of(line, "Also", &ok);
	while (ok && rest && (value = strsep(&rest, " \t"))) {
		bool seen = value[0] == '\0' || strcmp(value, unit) == 0;

		for (size_t i = 0; i < *n_visited && !seen; i++)
			seen = strcmp(visited[i], value) == 0;
		if (seen)
			continue;
		if (*n_visited == ALSO_DEPTH_MAX || !find_unit(h, value, path))
			return false;
		visited[(*n_visited)++] = strdup(value);
		if (!visited[*n_visited - 1] || !collect_links(h, path, visited, *n_visited))
			return false;
	}
	value = value_of(line, "Alias", &ok);
	if (ok && value && strcmp(value, unit) != 0) {
		/* Several aliases in one line are a matter of their own in the real program. */
		if (strpbrk(value, " \t"))
			return false;
		(void)snprintf(path, sizeof(path), "/etc/systemd/%s/%s", h->instance, value);
		ok = add_link(h, path, service_path);
	}
	value = value_of(line, "DefaultInstance", &ok);
	if (ok && value) {
		const char *at = strstr(unit, "@.");

		if (at)
			(void)snprintf(wanted_target, PATH_SIZE, "%.*s%s%s", (int)(at - unit) + 1, unit,
				value, at + 1);
	}
	return ok;
}

/* Gather the links that enable the unit at service_path, those of the units that go with it first, as the
 * real program orders them. Returns false when this is for the real program. */
static bool collect_links(struct helper *h, const char *service_path, const char **visited, size_t n_visited)
{
	char(*wants)[PATH_SIZE] = calloc(LINKS_MAX, PATH_SIZE);
	const char *own_visited[ALSO_DEPTH_MAX] = { NULL };
	char wanted_target[PATH_SIZE], *text = NULL, *rest, *line;
	size_t n_wants = 0, len;
	bool ok = wants != NULL;

	/* What a unit's own Also= adds is known to the units beneath it, not to those above. */
	for (size_t i = 0; i < n_visited; i++)
		own_visited[i] = visited[i];
	(void)snprintf(wanted_target, sizeof(wanted_target), "%s", base_name(service_path));
	ok = ok && read_alloc_at(AT_FDCWD, service_path, UNIT_MAX_BYTES, &text, &len) == 0 &&
	     strlen(text) == len;
	for (rest = text; ok && (line = strsep(&rest, "\n"));)
		ok = take_line(
			h, service_path, line, wants, &n_wants, wanted_target, own_visited, &n_visited);
	for (size_t i = 0; ok && i < n_wants; i++) {
		char src[2 * PATH_SIZE];

		(void)snprintf(src, sizeof(src), "%s%s", wants[i], wanted_target);
		ok = add_link(h, src, service_path);
	}
	free(text);
	free(wants);
	return ok;
}

static void make_folders(const char *path)
{
	char copy[PATH_SIZE];

	(void)snprintf(copy, sizeof(copy), "%s", path);
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(copy, 0755);
		*slash = '/';
	}
}

static int complain(const char *doing, const char *path)
{
	(void)fprintf(stderr, UNITHELPER_NAME ": error: cannot %s %s: %s\n", doing, path, strerror(errno));
	return -1;
}

static void state_path(const struct helper *h, const char *unit, char *ret)
{
	(void)snprintf(ret, PATH_SIZE, "%s/%s.dsh-also", h->enabled_dir, base_name(unit));
}

/* Replace the state file by text. */
static int write_state(const char *path, const char *text)
{
	char temporary[PATH_SIZE + 8];
	int fd, r = 0;

	make_folders(path);
	(void)snprintf(temporary, sizeof(temporary), "%s.tmp", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return complain("write", path);
	if (fchmod(fd, 0644) < 0 || write_all(fd, text, strlen(text)) < 0)
		r = complain("write", path);
	(void)close(fd);
	if (r == 0 && rename(temporary, path) < 0)
		r = complain("write", path);
	return r;
}

/* Make sure that the state file has the line. */
static int record_link(const char *path, const char *src)
{
	char *text = NULL, *longer, line[PATH_SIZE + 2];
	size_t len, line_len;
	int r;

	(void)snprintf(line, sizeof(line), "%s\n", src);
	line_len = strlen(line);
	if (read_alloc_at(AT_FDCWD, path, UNIT_MAX_BYTES, &text, &len) < 0)
		return write_state(path, line);
	for (const char *p = text; p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
		if (strncmp(p, line, line_len) == 0) {
			free(text);
			return 0;
		}
	}
	if (asprintf(&longer, "%s%s", text, line) < 0) {
		free(text);
		return -1;
	}
	r = write_state(path, longer);
	free(longer);
	free(text);
	return r;
}

static int touch(const char *path)
{
	int fd;

	make_folders(path);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0)
		return complain("make", path);
	(void)close(fd);
	return 0;
}

/* Where the program remembers that it made the link at src. */
static void marker_path(const struct helper *h, const char *folder, const char *src, char *ret)
{
	char prefix[64];

	(void)snprintf(prefix, sizeof(prefix), "/etc/systemd/%s/", h->instance);
	(void)snprintf(ret, PATH_SIZE, "%s/%s", folder,
		strncmp(src, prefix, strlen(prefix)) == 0 ? src + strlen(prefix) : src);
}

static int make_links(struct helper *h, const char *unit, bool create)
{
	char state[PATH_SIZE], marker[PATH_SIZE];

	state_path(h, unit, state);
	for (size_t i = 0; i < h->n_links; i++) {
		const struct unit_link *link = &h->links[i];

		if (record_link(state, link->src) < 0)
			return -1;
		marker_path(h, h->enabled_dir, link->src, marker);
		if (exists(marker))
			continue;
		if (create && !is_link(link->src)) {
			make_folders(link->src);
			if (symlink(link->dest, link->src) < 0)
				return complain("link", link->src);
		}
		if (touch(marker) < 0)
			return -1;
	}
	return 0;
}

/* Enable by the image's presets. */
static int run_preset(const struct helper *h, const char *unit)
{
	char *argv[] = { (char *)(uintptr_t) "systemctl", (char *)(uintptr_t) "--root=/",
		(char *)(uintptr_t)(h->user ? "--global" : "--system"),
		(char *)(uintptr_t) "--preset-mode=enable-only", (char *)(uintptr_t) "preset",
		(char *)(uintptr_t)unit, NULL };
	pid_t pid = fork();
	int status = -1;

	if (pid == 0) {
		(void)execvp(argv[0], argv);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0)
		(void)fprintf(stderr, UNITHELPER_NAME ": error: systemctl preset failed on %s\n", unit);
	return status == 0 ? 0 : -1;
}

static int enable_unit(struct helper *h, const char *unit)
{
	bool has_systemctl = access("/bin/systemctl", X_OK) == 0 || access("/usr/bin/systemctl", X_OK) == 0;
	bool create = !has_systemctl;
	char state[PATH_SIZE];

	state_path(h, unit, state);
	if (has_systemctl && is_regular(state)) {
		for (size_t i = 0; i < h->n_links && !create; i++)
			create = is_link(h->links[i].src);
	} else if (has_systemctl && run_preset(h, unit) < 0) {
		return -1;
	}
	return make_links(h, unit, create);
}

/* Whether every link of the state file is there; a missing file counts as that. */
static bool was_enabled(const struct helper *h, const char *unit)
{
	char state[PATH_SIZE], *text, *rest, *line;
	bool all = true;
	size_t len;

	state_path(h, unit, state);
	if (read_alloc_at(AT_FDCWD, state, UNIT_MAX_BYTES, &text, &len) < 0)
		return true;
	for (rest = text; all && (line = strsep(&rest, "\n"));)
		all = line[0] == '\0' || is_link(line);
	free(text);
	return all;
}

static int update_state(struct helper *h, const char *unit)
{
	static char text[LINKS_MAX * (PATH_SIZE + 1)];
	char state[PATH_SIZE];
	struct text t;

	text_init(&t, text, sizeof(text));
	for (size_t i = 0; i < h->n_links; i++)
		text_addf(&t, "%s\n", h->links[i].src);
	state_path(h, unit, state);
	return write_state(state, text);
}

/* Remove a folder and those in it, as far as they are empty. */
static void remove_empty_folders(const char *path)
{
	DIR *d = opendir(path);

	for (struct dirent *de; d && (de = readdir(d));) {
		char child[PATH_SIZE];

		if (de->d_name[0] == '.' ||
			snprintf(child, sizeof(child), "%s/%s", path, de->d_name) >= (int)sizeof(child))
			continue;
		if (!is_link(child))
			remove_empty_folders(child);
	}
	if (d) {
		(void)closedir(d);
		(void)rmdir(path);
	}
}

static int unmask_unit(const struct helper *h, const char *unit)
{
	char mask[PATH_SIZE], marker[PATH_SIZE], target[32];
	ssize_t n;

	(void)snprintf(mask, sizeof(mask), "/etc/systemd/%s/%s", h->instance, base_name(unit));
	marker_path(h, h->masked_dir, mask, marker);
	n = exists(mask) ? readlink(mask, target, sizeof(target)) : -1;
	if (n == (ssize_t)strlen("/dev/null") && memcmp(target, "/dev/null", (size_t)n) == 0 &&
		exists(marker)) {
		if (unlink(mask) < 0)
			return complain("remove", mask);
		(void)unlink(marker);
	}
	remove_empty_folders("/var/lib/systemd/deb-systemd-helper-masked");
	remove_empty_folders("/var/lib/systemd/deb-systemd-user-helper-masked");
	return 0;
}

/* Whether the unit brings others along, whose links would go with its own. The file is mostly gone by now. */
static bool brings_others(const struct helper *h, const char *unit)
{
	char path[PATH_SIZE], *text, *rest, *line;
	bool brings = false;
	size_t len;

	if (!find_unit(h, unit, path) || read_alloc_at(AT_FDCWD, path, UNIT_MAX_BYTES, &text, &len) < 0)
		return false;
	for (rest = text; !brings && (line = strsep(&rest, "\n"));)
		brings = strncasecmp(line + strspn(line, " \t\r\f\v"), "Also=", 5) == 0;
	free(text);
	return brings;
}

/* Remove the folders in a folder, as far as they are empty; the folder itself stays. */
static void remove_empty_subfolders(const char *path)
{
	DIR *d = opendir(path);

	for (struct dirent *de; d && (de = readdir(d));) {
		char child[PATH_SIZE];

		if (de->d_name[0] != '.' &&
			snprintf(child, sizeof(child), "%s/%s", path, de->d_name) < (int)sizeof(child) &&
			!is_link(child))
			remove_empty_folders(child);
	}
	if (d)
		(void)closedir(d);
}

/* Remove the links that were made for the unit; with `purge`, forget that they ever were. */
static int disable_unit(const struct helper *h, const char *unit, bool purge)
{
	char state[PATH_SIZE], marker[PATH_SIZE], *text = NULL, *rest, *line;
	size_t len;

	state_path(h, unit, state);
	if (read_alloc_at(AT_FDCWD, state, UNIT_MAX_BYTES, &text, &len) < 0)
		text = NULL;
	if (purge)
		(void)unlink(state);
	for (rest = text; (line = strsep(&rest, "\n"));) {
		if (line[0] == '\0')
			continue;
		if (purge || is_link(line)) {
			marker_path(h, h->enabled_dir, line, marker);
			(void)unlink(marker);
		}
		if (is_link(line) && unlink(line) < 0)
			(void)complain("remove", line);
	}
	free(text);
	remove_empty_folders("/var/lib/systemd/deb-systemd-helper-enabled");
	remove_empty_folders("/var/lib/systemd/deb-systemd-user-helper-enabled");
	remove_empty_subfolders("/etc/systemd/system");
	remove_empty_subfolders("/etc/systemd/user");
	return 0;
}

enum action { WAS_ENABLED, DEBIAN_INSTALLED, UPDATE_STATE, ENABLE, UNMASK, DISABLE, PURGE, N_ACTIONS };

/* Do one action for one unit. Returns 0 or -1; *rc becomes 0 where the answer to a question is yes. */
static int act(struct helper *h, enum action action, const char *unit, int *rc)
{
	char path[PATH_SIZE];
	bool yes;

	switch (action) {
	case WAS_ENABLED:
		yes = was_enabled(h, unit);
		if (!h->quiet)
			(void)fprintf(stderr, yes ? "enabled\n" : "disabled\n");
		*rc = yes ? 0 : *rc;
		return 0;
	case DEBIAN_INSTALLED:
		state_path(h, unit, path);
		*rc = is_regular(path) ? 0 : *rc;
		return 0;
	case UPDATE_STATE:
		return update_state(h, unit);
	case ENABLE:
		return enable_unit(h, unit);
	case DISABLE:
	case PURGE:
		return disable_unit(h, unit, action == PURGE);
	default:
		return unmask_unit(h, unit);
	}
}

/* Read the options and the action. Returns false where the call has anything that the plain ones of
 * maintainer scripts do not. */
static bool read_call(struct helper *h, int argc, char **argv, enum action *ret_action, int *ret_first)
{
	static const char *const names[] = { "was-enabled", "debian-installed", "update-state", "enable",
		"unmask", "disable", "purge" };
	int i = 1, action = 0;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--quiet") == 0)
			h->quiet = true;
		else if (strcmp(argv[i], "--user") == 0)
			h->user = true;
		else if (strcmp(argv[i], "--system") == 0)
			h->user = false;
		else
			return false;
	}
	while (i < argc && action < N_ACTIONS && strcmp(argv[i], names[action]) != 0)
		action++;
	if (i + 1 >= argc || action == N_ACTIONS)
		return false;
	for (int k = i + 1; k < argc; k++) {
		if (argv[k][0] == '-' || strchr(argv[k], '/') || strlen(argv[k]) > 255)
			return false;
	}
	*ret_action = (enum action)action;
	*ret_first = i + 1;
	return true;
}

/* An environment in which the real program would do something else. */
static bool environment_is_plain(void)
{
	static const char *const odd[] = { "DPKG_ROOT", "_DEB_SYSTEMD_HELPER_DEBUG",
		"_DEB_SYSTEMD_HELPER_PURGE" };
	const char *package = getenv("DPKG_MAINTSCRIPT_PACKAGE");

	for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
		const char *value = getenv(odd[i]);

		if (value && value[0])
			return false;
	}
	return package && package[0] && strcmp(package, "0") != 0 && access("/run/systemd/system", F_OK) < 0;
}

int unithelper_main(int argc, char **argv)
{
	static struct helper h; /* large, and the process has one */
	enum action action = N_ACTIONS;
	int first = 0, rc = 0;
	char path[PATH_SIZE];

	h.argv = argv;
	if (!environment_is_plain() || !read_call(&h, argc, argv, &action, &first) || !program_is_known())
		hand_over(&h);
	h.instance = h.user ? "user" : "system";
	h.enabled_dir = h.user ? "/var/lib/systemd/deb-systemd-user-helper-enabled"
			       : "/var/lib/systemd/deb-systemd-helper-enabled";
	h.masked_dir = h.user ? "/var/lib/systemd/deb-systemd-user-helper-masked"
			      : "/var/lib/systemd/deb-systemd-helper-masked";
	rc = action == WAS_ENABLED || action == DEBIAN_INSTALLED ? 1 : 0;
	/* Handed over before anything was changed, or not at all. */
	if ((action == UPDATE_STATE || action == ENABLE) &&
		(argc - first > 1 || !find_unit(&h, argv[first], path) || !collect_links(&h, path, NULL, 0)))
		hand_over(&h);
	for (int i = first; i < argc; i++) {
		if ((action == DISABLE || action == PURGE) && brings_others(&h, argv[i]))
			hand_over(&h);
	}
	for (int i = first; i < argc; i++) {
		if (act(&h, action, argv[i], &rc) < 0)
			return 1;
	}
	return rc;
}
