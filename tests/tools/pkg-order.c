/* Print what dpkg would be told: pkg-order STATUS [-NAME | --NAME | DEB]...   (-NAME: remove, --NAME: purge)
 * One operation a line: "unpack a b c". */
#include "builder/packages/deb.h"
#include "builder/packages/order.h"
#include "lib/io.h"

#include <fcntl.h>
#include <string.h>

enum { MANY = 2048 };

int main(int argc, char **argv)
{
	static struct pkg_order_item items[MANY];
	static struct pkg_order_removal removals[MANY];
	static struct buf controls[MANY];
	_cleanup_pkg_ops_ struct pkg_ops ops = { 0 };
	_cleanup_buf_ struct buf status = BUF_INIT(64 << 20);
	size_t n_items = 0, n_removals = 0;
	struct err e = ERR_INIT;
	int r;

	if (argc < 2 || argc > MANY)
		return 2;
	r = read_file_at(AT_FDCWD, argv[1], true, &status, &e);
	for (int i = 2; i < argc && r == 0; i++) {
		_cleanup_close_ int fd = -1;

		if (argv[i][0] == '-') {
			bool purge = argv[i][1] == '-';

			removals[n_removals++] = (struct pkg_order_removal){ argv[i] + 1 + purge, purge };
			continue;
		}
		fd = open(argv[i], O_RDONLY | O_CLOEXEC);
		buf_init(&controls[n_items], DEB_CONTROL_MAX_BYTES);
		r = deb_read_control(fd, &controls[n_items], &e);
		items[n_items] = (struct pkg_order_item){ argv[i], buf_str(&controls[n_items]), controls[n_items].len };
		n_items++;
	}
	if (r == 0)
		r = pkg_order("amd64", buf_str(&status), status.len, items, n_items, removals, n_removals, &ops, &e);
	for (size_t i = 0; i < n_items; i++)
		buf_release(&controls[i]);
	if (r < 0) {
		(void)fprintf(stderr, "pkg-order: %s (%s)\n", e.message, e.origin);
		return err_exit_status(&e);
	}
	for (size_t i = 0; i < ops.n; i++) {
		(void)printf("%s", pkg_op_kind_name(ops.ops[i].kind));
		for (size_t k = 0; k < ops.ops[i].names.n; k++)
			(void)printf(" %s", ops.ops[i].names.items[k]);
		(void)printf("\n");
	}
	return 0;
}
