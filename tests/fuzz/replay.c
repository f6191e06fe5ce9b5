/* Run a fuzz target over files: the corpus, as a regression test, without libFuzzer.
 *
 *     replay_NAME PATH…      each PATH a file, or a folder whose files are run in name order, subfolders too
 *
 * Prints how many inputs were run. A crash or a sanitizer's finding ends the program, after the name of the input went
 * to stderr; so does a path that cannot be read. SOURCE: the interface is libFuzzer's. */
#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input that is being run, for the message after a crash. */
static const char *current_path;

static void name_the_input(void)
{
	if (current_path)
		dprintf(2, "replay: the input was %s\n", current_path);
}

/* There when a sanitizer is linked in. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

/* Run one file through the target. The bytes lie at the end of their allocation, so that reading past them is seen. */
static void run_file(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ uint8_t *data = NULL;
	struct stat st;
	size_t size = 0;

	if (fd < 0 || fstat(fd, &st) < 0) {
		fprintf(stderr, "replay: cannot open %s: %s\n", path, strerror(errno));
		exit(1);
	}
	data = malloc(st.st_size > 0 ? (size_t)st.st_size : 1);
	while (data && size < (size_t)st.st_size) {
		ssize_t n = read(fd, data + size, (size_t)st.st_size - size);

		if (n <= 0)
			break;
		size += (size_t)n;
	}
	if (!data || size != (size_t)st.st_size) {
		fprintf(stderr, "replay: cannot read all of %s\n", path);
		exit(1);
	}
	current_path = path;
	(void)LLVMFuzzerTestOneInput(data, size);
	current_path = NULL;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
	return strcmp((*a)->fts_name, (*b)->fts_name);
}

int main(int argc, char **argv)
{
	unsigned long n = 0;
	FTSENT *entry;
	FTS *tree;

	if (argc < 2) {
		fprintf(stderr, "usage: %s FILE-OR-FOLDER...\n", argv[0]);
		return 2;
	}
	if (__sanitizer_set_death_callback)
		__sanitizer_set_death_callback(name_the_input);
	tree = fts_open(argv + 1, FTS_LOGICAL | FTS_NOCHDIR, by_name);
	if (!tree) {
		fprintf(stderr, "replay: %s\n", strerror(errno));
		return 1;
	}
	while ((entry = fts_read(tree))) {
		if (entry->fts_info == FTS_NS || entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR) {
			fprintf(stderr, "replay: cannot read %s: %s\n", entry->fts_path, strerror(entry->fts_errno));
			return 1;
		}
		if (entry->fts_info != FTS_F)
			continue;
		run_file(entry->fts_path);
		n++;
	}
	(void)fts_close(tree);
	printf("%lu inputs\n", n);
	return 0;
}
