/* Downloads against a real nginx, and against tests/download/server.py for what nginx cannot do: cut connections, wrong
 * lengths, answers that lie. Both listen on loopback, on ports of their own, and end with the test. */
#include "cache/fetch.h"
#include "cache/http_answer.h"
#include "lib/io.h"
#include "lib/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
/* after the others */
#include <cmocka.h>

enum { DATA_BYTES = 300000, BIG_BYTES = 3 << 20 };

struct servers {
	struct process nginx, python;
	unsigned nginx_port, tls_port, python_port;
};

static struct servers servers = { .nginx = PROCESS_INIT, .python = PROCESS_INIT };
static char workdir[256], cache[512];
static char *data, *other, *big; /* as server.py makes them; big is nginx's big.bin */
static struct digest data_sha256, data_sha512, other_sha256, big_sha256;

/* ---- servers ------------------------------------------------------------------------------------------------------- */

static unsigned free_port(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return 0;
	return ntohs(a.sin_port);
}

static bool can_connect(unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons((uint16_t)port) };
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

static void in_workdir(char *path, size_t size, const char *name)
{
	(void)snprintf(path, size, "%s/%s", workdir, name);
}

static int write_in_workdir(const char *name, const void *bytes, size_t len)
{
	struct err e = ERR_INIT;
	char path[512];

	in_workdir(path, sizeof(path), name);
	if (write_file_atomic_at(AT_FDCWD, path, bytes, len, 0644, &e) == 0)
		return 0;
	(void)fprintf(stderr, "%s\n", e.message);
	return -1;
}

static int run(const char *const *argv)
{
	struct process_options options = { .argv = argv, .working_dirfd = -1 };
	_cleanup_buf_ struct buf text = BUF_INIT(1 << 16);
	struct err e = ERR_INIT;
	int status = -1, r = process_run(&options, NULL, &text, 60000, &status, &e);

	if (r == 0 && status == 0)
		return 0;
	(void)fprintf(stderr, "`%s` failed: %s%s\n", argv[0], e.message, buf_str(&text));
	return -1;
}

static int make_certificate(void)
{
	char key[512], cert[512];
	const char *argv[] = { "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
		"-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert, NULL };

	in_workdir(key, sizeof(key), "key.pem");
	in_workdir(cert, sizeof(cert), "cert.pem");
	return run(argv);
}

static int write_nginx_config(void)
{
	_cleanup_buf_ struct buf b = BUF_INIT(1 << 16);
	const char *w = workdir;
	int r = buf_appendf(&b,
		"daemon off; master_process off; pid %s/nginx.pid; error_log %s/error.log;\n"
		"events { worker_connections 256; }\n"
		"http {\n"
		"  log_format plain '$status $uri $http_range $body_bytes_sent';\n"
		"  access_log %s/access.log plain;\n"
		"  client_body_temp_path %s/t1; proxy_temp_path %s/t2; fastcgi_temp_path %s/t3; uwsgi_temp_path %s/t4;"
		"  scgi_temp_path %s/t5;\n"
		"  default_type application/octet-stream;\n"
		"  server { listen 127.0.0.1:%u; root %s/www;\n"
		"    location /slow/ { alias %s/www/; limit_rate 1200k; }\n"
		"    location /forbidden { return 403; }\n"
		"    location /moved { return 301 /big.bin; } }\n"
		"  server { listen 127.0.0.1:%u ssl; root %s/www;\n"
		"    ssl_certificate %s/cert.pem; ssl_certificate_key %s/key.pem;\n"
		"    location /down { return 302 http://127.0.0.1:%u/big.bin; }\n"
		"    location /same { return 302 /big.bin; } }\n"
		"}\n",
		w, w, w, w, w, w, w, w, servers.nginx_port, w, w, servers.tls_port, w, w, w, servers.nginx_port);

	return r < 0 ? -1 : write_in_workdir("nginx.conf", b.data, b.len);
}

static int start_nginx(void)
{
	const char *argv[] = { access("/usr/sbin/nginx", X_OK) == 0 ? "/usr/sbin/nginx" : "nginx", "-p", workdir, "-c", NULL, NULL };
	struct process_options options = { .argv = argv, .working_dirfd = -1 };
	struct err e = ERR_INIT;
	char config[512];

	servers.nginx_port = free_port();
	servers.tls_port = free_port();
	in_workdir(config, sizeof(config), "nginx.conf");
	argv[4] = config;
	if (make_certificate() < 0 || write_nginx_config() < 0)
		return -1;
	if (process_start(&options, &servers.nginx, &e) < 0) {
		(void)fprintf(stderr, "nginx: %s\n", e.message);
		return -1;
	}
	for (uint64_t end = monotonic_ms() + 20000; monotonic_ms() < end;) {
		struct pollfd ended = { .fd = servers.nginx.pidfd, .events = POLLIN };

		if (can_connect(servers.nginx_port) && can_connect(servers.tls_port))
			return 0;
		if (poll(&ended, 1, 50) > 0)
			break;
	}
	(void)fprintf(stderr, "nginx does not listen; see its error.log\n");
	return -1;
}

static int start_python(void)
{
	const char *argv[] = { "python3", "tests/download/server.py", NULL };
	int out[2];
	struct process_fd fds[2];
	struct process_options options = { .argv = argv, .fds = fds, .n_fds = 2, .working_dirfd = -1 };
	struct err e = ERR_INIT;
	char line[32] = "";

	if (pipe2(out, O_CLOEXEC) < 0)
		return -1;
	fds[0] = (struct process_fd){ .fd = out[1], .child_fd = 1 };
	fds[1] = (struct process_fd){ .fd = 2, .child_fd = 2 };
	if (process_start(&options, &servers.python, &e) < 0) {
		(void)fprintf(stderr, "server.py: %s\n", e.message);
		return -1;
	}
	(void)close(out[1]);
	if (read(out[0], line, sizeof(line) - 1) <= 0 || sscanf(line, "%u", &servers.python_port) != 1)
		return -1;
	(void)close(out[0]);
	return 0;
}

static char *make_data(size_t len, bool reversed, unsigned factor)
{
	char *bytes = malloc(len);

	for (size_t i = 0; bytes && i < len; i++) {
		size_t at = reversed ? len - 1 - i : i;

		bytes[i] = (char)((at * factor + (at >> 8) * 13) & 0xFF);
	}
	return bytes;
}

static int setup_all(void **state)
{
	static const char *const proxies[] = { "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY",
		"NO_PROXY", "CURL_CA_BUNDLE", "SSL_CERT_FILE" };
	const char *tmp = getenv("TMPDIR");
	struct err e = ERR_INIT;
	char path[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(proxies); i++)
		(void)unsetenv(proxies[i]);
	(void)snprintf(workdir, sizeof(workdir), "%s/imgbuild-fetch.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(workdir))
		return -1;
	in_workdir(path, sizeof(path), "www");
	data = make_data(DATA_BYTES, false, 7);
	other = make_data(DATA_BYTES, true, 7);
	big = make_data(BIG_BYTES, false, 11);
	if (!data || !other || !big || mkdir(path, 0755) < 0 || write_in_workdir("www/big.bin", big, BIG_BYTES) < 0 ||
		write_in_workdir("www/index.html", "<html>hello</html>", 18) < 0 || write_in_workdir("www/empty", "", 0) < 0)
		return -1;
	if (digest_bytes(DIGEST_SHA256, data, DATA_BYTES, &data_sha256, &e) < 0 ||
		digest_bytes(DIGEST_SHA512, data, DATA_BYTES, &data_sha512, &e) < 0 ||
		digest_bytes(DIGEST_SHA256, other, DATA_BYTES, &other_sha256, &e) < 0 ||
		digest_bytes(DIGEST_SHA256, big, BIG_BYTES, &big_sha256, &e) < 0)
		return -1;
	return start_nginx() < 0 || start_python() < 0 ? -1 : 0;
}

static int teardown_all(void **state)
{
	(void)state;
	process_release(&servers.nginx);
	process_release(&servers.python);
	free(data);
	free(other);
	free(big);
	return remove_tree_at(AT_FDCWD, workdir);
}

/* A fresh cache for each test. */
static int setup_cache(void **state)
{
	(void)state;
	(void)snprintf(cache, sizeof(cache), "%s/cache", workdir);
	return remove_tree_at(AT_FDCWD, cache);
}

/* ---- asking -------------------------------------------------------------------------------------------------------- */

struct answer {
	int r;
	struct err e;
	struct fetch_result result;
};

#define QUICK                                                                                                \
	{                                                                                                    \
		.cancel_fd = -1, .retry_delay_ms = 4, .stall_timeout_s = 1, .connect_timeout_s = 5                  \
	}

static void answer_release(struct answer *a)
{
	fetch_results_release(&a->result, 1);
}
#define _cleanup_answer_ _cleanup_(answer_release)

static struct answer ask(const struct fetch_request *request, const struct fetch_options *options)
{
	_cleanup_publisher_ struct publisher *p = NULL;
	struct fetch_options quick = QUICK;
	struct answer a = { .e = ERR_INIT };

	assert_int_equal(publisher_open(cache, &p, &a.e), 0);
	a.r = fetch_all(p, request, 1, options ? options : &quick, &a.result, &a.e);
	return a;
}

static char *url_of(unsigned port, const char *path)
{
	char *url = NULL;

	assert_true(asprintf(&url, "http://127.0.0.1:%u%s", port, path) > 0);
	return url;
}

/* Fetch one path of server.py into the store. */
static struct answer ask_path(const char *path, const struct digest *sha256)
{
	_cleanup_free_ char *url = url_of(servers.python_port, path);
	const char *urls[] = { url };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 1 };

	if (sha256)
		q.sha256 = *sha256;
	return ask(&q, NULL);
}

static void assert_got(const struct answer *a, const struct digest *expected)
{
	_cleanup_store_ struct store s = STORE_INIT;
	struct err e = ERR_INIT;
	struct digest found;
	_cleanup_close_ int fd = -1;

	if (a->r < 0)
		fail_msg("%s (%s)", a->e.message, a->e.origin);
	assert_true(digest_equal(&a->result.sha256, expected));
	assert_int_equal(store_open(cache, &s, &e), 0);
	assert_int_equal(store_open_blob(&s, expected, &fd, NULL, &e), 0);
	assert_int_equal(digest_fd(DIGEST_SHA256, fd, UINT64_MAX, &found, &e), 0);
	assert_true(digest_equal(&found, expected));
}

static size_t count_blobs(void)
{
	_cleanup_closedir_ DIR *dir = NULL;
	struct dirent *entry;
	char path[600];
	size_t n = 0;

	(void)snprintf(path, sizeof(path), "%s/blobs/sha256", cache);
	dir = opendir(path);
	assert_non_null(dir);
	while ((entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	return n;
}

static void assert_refused(const struct answer *a, int code, const char *says)
{
	if (a->r != code || !strstr(a->e.message, says))
		fail_msg("%d: %s; expected %d: %s", a->r, a->r < 0 ? a->e.message : "no error", code, says);
	assert_int_equal(a->e.kind, ERR_KIND_INPUT);
	assert_non_null(strstr(a->e.message, "the thing"));
	assert_int_equal(count_blobs(), 0);
}

/* How often server.py was asked for a path. */
static unsigned times_asked(const char *path)
{
	_cleanup_buf_ struct buf b = BUF_INIT(100);
	struct fetch_options o = QUICK;
	struct err e = ERR_INIT;
	_cleanup_free_ char *url = NULL;
	unsigned n = 0;

	assert_true(asprintf(&url, "http://127.0.0.1:%u/count%s", servers.python_port, path) > 0);
	assert_int_equal(fetch_bytes(url, "the count", &o, &b, &e), 0);
	assert_int_equal(sscanf(buf_str(&b), "%u", &n), 1);
	return n;
}

/* ---- nginx --------------------------------------------------------------------------------------------------------- */

/* Find the line of nginx's log that has `needle`, up to a second after it answered. */
static bool log_has(const char *needle)
{
	for (int i = 0; i < 20; i++) {
		_cleanup_buf_ struct buf b = BUF_INIT(1 << 20);
		struct err e = ERR_INIT;
		char path[512];

		in_workdir(path, sizeof(path), "access.log");
		assert_int_equal(read_file_at(AT_FDCWD, path, false, &b, &e), 0);
		if (strstr(buf_str(&b), needle))
			return true;
		(void)poll(NULL, 0, 50);
	}
	return false;
}

static struct fetch_request big_request(const char *const *urls, size_t n, bool pinned)
{
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = n };

	if (pinned)
		q.sha256 = big_sha256;
	return q;
}

static void test_plain_download(void **state)
{
	_cleanup_free_ char *url = url_of(servers.nginx_port, "/moved");
	const char *urls[] = { url };
	struct fetch_request q = big_request(urls, 1, false);
	_cleanup_answer_ struct answer first = ask(&q, NULL), second = { .r = 0 };

	(void)state;
	assert_got(&first, &big_sha256);
	assert_int_equal(first.result.size_bytes, BIG_BYTES);
	assert_int_equal(first.result.transferred_bytes, BIG_BYTES);
	assert_non_null(strstr(first.result.url, "/big.bin")); /* where it was redirected to */
	assert_false(first.result.was_stored);
	q.sha256 = big_sha256;
	second = ask(&q, NULL);
	assert_got(&second, &big_sha256);
	assert_true(second.result.was_stored);
	assert_int_equal(second.result.transferred_bytes, 0);
}

/* kill -9 in the middle of a slow transfer; the next process fetches only the rest, which nginx's log proves. */
static void test_resume_after_kill(void **state)
{
	_cleanup_free_ char *slow = url_of(servers.nginx_port, "/slow/big.bin"), *fast = url_of(servers.nginx_port, "/big.bin");
	const char *urls[] = { slow };
	struct fetch_request q = big_request(urls, 1, true);
	_cleanup_answer_ struct answer a = { .r = 0 };
	char partial[1024], hex[DIGEST_HEX_SIZE], expected[128];
	struct stat st = { .st_size = 0 };
	uint64_t kept;
	int status;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)ask(&q, NULL);
		_exit(0);
	}
	(void)snprintf(partial, sizeof(partial), "%s/tmp/partial/sha256-%s", cache, digest_hex(&big_sha256, hex));
	for (int i = 0; i < 400 && !(stat(partial, &st) == 0 && st.st_size > 200000); i++)
		(void)poll(NULL, 0, 20);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status)); /* it was not done already */
	assert_int_equal(stat(partial, &st), 0);
	kept = (uint64_t)st.st_size;
	assert_true(kept > 200000 && kept < BIG_BYTES);
	urls[0] = fast; /* a mirror will do: the digest judges */
	a = ask(&q, NULL);
	assert_got(&a, &big_sha256);
	assert_int_equal(a.result.transferred_bytes, BIG_BYTES - kept);
	(void)snprintf(expected, sizeof(expected), "206 /big.bin bytes=%llu- %llu\n", (unsigned long long)kept,
		(unsigned long long)(BIG_BYTES - kept));
	assert_true(log_has(expected));
}

/* What was kept is already all of it: nginx says 416, and the digest says yes. */
static void test_resume_of_whole(void **state)
{
	_cleanup_free_ char *url = url_of(servers.nginx_port, "/big.bin");
	const char *urls[] = { url };
	struct fetch_request q = big_request(urls, 1, true);
	_cleanup_answer_ struct answer a = { .r = 0 }, b = { .r = 0 };
	struct publisher *p = NULL;
	struct err e = ERR_INIT;
	char name[256], hex[DIGEST_HEX_SIZE];

	(void)state;
	for (int known_size = 0; known_size < 2; known_size++) {
		struct answer *x = known_size ? &b : &a;

		assert_int_equal(setup_cache(NULL), 0);
		assert_int_equal(publisher_open(cache, &p, &e), 0);
		publisher_close(p);
		(void)snprintf(name, sizeof(name), "cache/tmp/partial/sha256-%s", digest_hex(&big_sha256, hex));
		assert_int_equal(write_in_workdir(name, big, BIG_BYTES), 0);
		q.size_bytes = known_size ? BIG_BYTES : 0;
		*x = ask(&q, NULL);
		assert_got(x, &big_sha256);
		assert_int_equal(x->result.transferred_bytes, 0);
	}
	assert_true(log_has("416 /big.bin bytes=3145728-"));
}

static void test_slow_bytes(void **state)
{
	_cleanup_free_ char *url = url_of(servers.nginx_port, "/slow/big.bin");
	const char *urls[] = { url };
	struct fetch_request q = big_request(urls, 1, false);
	struct fetch_options o = QUICK;
	_cleanup_answer_ struct answer a = { .r = 0 };

	(void)state;
	o.stall_timeout_s = 3;
	a = ask(&q, &o);
	assert_got(&a, &big_sha256); /* slow is no stall */
}

static void test_nginx_refusals(void **state)
{
	static const struct {
		const char *path;
		int code;
		const char *says;
	} cases[] = {
		{ "/nothing", -ENOENT, "404" },
		{ "/forbidden", -EACCES, "403" },
		{ "/index.html", -EBADMSG, "HTML" },
		{ "/", -EBADMSG, "HTML" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_free_ char *url = url_of(servers.nginx_port, cases[i].path);
		const char *urls[] = { url };
		struct fetch_request q = big_request(urls, 1, false);
		_cleanup_answer_ struct answer a = ask(&q, NULL);

		assert_refused(&a, cases[i].code, cases[i].says);
		assert_non_null(strstr(a.e.message, url));
	}
}

static void test_tls(void **state)
{
	_cleanup_free_ char *same = NULL, *down = NULL;
	const char *urls[1] = { NULL };
	struct fetch_request q = big_request(urls, 1, false);
	_cleanup_answer_ struct answer untrusted = { .r = 0 }, refused = { .r = 0 }, chain = { .r = 0 }, good = { .r = 0 };
	_cleanup_free_ char *from_http = NULL;
	char cert[512];

	(void)state;
	assert_true(asprintf(&same, "https://127.0.0.1:%u/same", servers.tls_port) > 0);
	assert_true(asprintf(&down, "https://127.0.0.1:%u/down", servers.tls_port) > 0);
	urls[0] = same;
	untrusted = ask(&q, NULL);
	assert_refused(&untrusted, -EKEYREJECTED, "certificate");
	in_workdir(cert, sizeof(cert), "cert.pem");
	assert_int_equal(setenv("SSL_CERT_FILE", cert, 1), 0);
	urls[0] = down;
	refused = ask(&q, NULL);
	assert_refused(&refused, -EPROTO, "from https to");
	/* Also when it all began with http. */
	assert_true(asprintf(&from_http, "http://127.0.0.1:%u/to/https:!!127.0.0.1:%u!down", servers.python_port,
			    servers.tls_port) > 0);
	urls[0] = from_http;
	chain = ask(&q, NULL);
	assert_refused(&chain, -EPROTO, "from https to");
	urls[0] = same;
	good = ask(&q, NULL);
	assert_got(&good, &big_sha256);
	assert_int_equal(unsetenv("SSL_CERT_FILE"), 0);
}

/* ---- a server that misbehaves --------------------------------------------------------------------------------------- */

static void test_broken_transfers_are_resumed(void **state)
{
	static const struct {
		const char *path;
		bool pinned;
		unsigned asked;
	} cases[] = {
		{ "/cut-resume/1", false, 2 },	/* If-Range */
		{ "/cut-resume/2", true, 2 },
		{ "/cut-pinned/1", true, 2 },	/* no validator: the digest allows it */
		{ "/cut-pinned/2", false, 2 },	/* no validator, no digest: from the beginning */
		{ "/cut-often/1", false, 5 },
		{ "/cut-norange/1", false, 2 },
		{ "/range-liar/1", true, 3 },
		{ "/range-liar/2", false, 3 },
		{ "/bad-rest/1", true, 3 },
		{ "/stall/1", true, 2 },
		{ "/busy/1", false, 3 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_answer_ struct answer a = { .r = 0 };

		assert_int_equal(setup_cache(NULL), 0);
		a = ask_path(cases[i].path, cases[i].pinned ? &data_sha256 : NULL);
		assert_got(&a, &data_sha256);
		if (times_asked(cases[i].path) != cases[i].asked)
			fail_msg("%s was asked for %u times, not %u", cases[i].path, times_asked(cases[i].path), cases[i].asked);
	}
}

/* The file changed while the connection was down: all of the new one, not half of each. */
static void test_changed_file(void **state)
{
	_cleanup_answer_ struct answer a = ask_path("/cut-changed/1", NULL);

	(void)state;
	assert_got(&a, &other_sha256);
}

static void test_refused_answers(void **state)
{
	static const struct {
		const char *path;
		bool pinned;
		int code;
		const char *says;
		unsigned asked;
	} cases[] = {
		{ "/status/404/1", true, -ENOENT, "404", 1 },
		{ "/status/410/1", true, -ENOENT, "410", 1 },
		{ "/status/403/1", true, -EACCES, "403", 1 },
		{ "/status/401/1", false, -EACCES, "401", 1 },
		{ "/status/204/1", false, -EIO, "204", 1 },
		{ "/status/501/1", false, -EIO, "501", 1 },
		{ "/down/1", true, -EIO, "503", 5 },
		{ "/status/429/1", true, -EBUSY, "429", 5 },
		{ "/status/408/1", true, -EIO, "408", 5 },
		{ "/good/refused", false, -EBADMSG, "wrong", 1 }, /* pinned to something else below */
		{ "/html/1", false, -EBADMSG, "HTML", 1 },
		{ "/html/2", true, -EBADMSG, "HTML", 1 },
		{ "/html-as-octets/1", false, -EBADMSG, "HTML", 1 },
		{ "/short/1", false, -EIO, "301000", 5 },
		{ "/chunked-cut/1", false, -EIO, "50000 bytes came", 5 },
		{ "/nolength/1", false, -EBADMSG, "pin the digest", 1 },
		{ "/closed/1", false, -EIO, "5 attempts", 5 },
		{ "/loop/1", false, -ELOOP, "redirects more than", 11 },
		{ "/to/file:!!!etc!passwd", false, -EPROTO, "not http", 1 },
		{ "/to/ftp:!!127.0.0.1!x", false, -EPROTO, "not http", 1 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool wrong = strcmp(cases[i].path, "/good/refused") == 0;
		_cleanup_answer_ struct answer a = { .r = 0 };

		assert_int_equal(setup_cache(NULL), 0);
		a = ask_path(cases[i].path, wrong ? &other_sha256 : cases[i].pinned ? &data_sha256 : NULL);
		assert_refused(&a, cases[i].code, cases[i].says);
		if (times_asked(cases[i].path) != cases[i].asked)
			fail_msg("%s was asked for %u times, not %u", cases[i].path, times_asked(cases[i].path), cases[i].asked);
	}
}

static void test_accepted_answers(void **state)
{
	static const char *const paths[] = { "/chunked/1", "/nolength/2", "/etag-weird/1" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		_cleanup_answer_ struct answer a = { .r = 0 };

		assert_int_equal(setup_cache(NULL), 0);
		/* Without a length only a digest can tell that it is whole. */
		a = ask_path(paths[i], i == 1 ? &data_sha256 : NULL);
		assert_got(&a, &data_sha256);
	}
}

static void test_sizes(void **state)
{
	_cleanup_free_ char *good = url_of(servers.python_port, "/good/sizes"),
			    *endless = url_of(servers.python_port, "/endless/1");
	const char *urls[] = { good };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 1 };

	(void)state;
	for (int i = 0; i < 4; i++) {
		_cleanup_answer_ struct answer a = { .r = 0 };

		q.size_bytes = i == 0 ? DATA_BYTES - 1 : 0;
		q.max_bytes = i == 1 || i == 3 ? DATA_BYTES - 1 : DATA_BYTES;
		urls[0] = i == 3 ? endless : good;
		a = ask(&q, NULL);
		if (i == 2)
			assert_got(&a, &data_sha256);
		else if (i == 0)
			assert_refused(&a, -EBADMSG, "299999");
		else if (i == 1)
			assert_refused(&a, -E2BIG, "299999");
		else
			assert_int_equal(a.r, -E2BIG);
	}
}

static void test_both_digests(void **state)
{
	_cleanup_free_ char *url = url_of(servers.python_port, "/good/both");
	const char *urls[] = { url };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 1, .sha512 = data_sha512 };
	_cleanup_answer_ struct answer a = ask(&q, NULL), stored = { .r = 0 }, both = { .r = 0 }, contradiction = { .r = 0 };

	(void)state;
	assert_got(&a, &data_sha256);
	assert_true(digest_equal(&a.result.sha512, &data_sha512));
	stored = ask(&q, NULL);
	assert_got(&stored, &data_sha256);
	assert_true(stored.result.was_stored);
	q.sha256 = data_sha256;
	both = ask(&q, NULL);
	assert_true(both.result.was_stored);
	assert_true(digest_equal(&both.result.sha512, &data_sha512));
	q.sha512.bytes[0] ^= 1;
	contradiction = ask(&q, NULL);
	assert_int_equal(contradiction.r, -EBADMSG);
	assert_int_equal(times_asked("/good/both"), 1);
}

/* Change one byte of a blob in the store; its size stays. */
static void damage_blob(const struct digest *sha256)
{
	char relative[STORE_BLOB_PATH_SIZE], path[1024];
	_cleanup_close_ int fd = -1;

	(void)snprintf(path, sizeof(path), "%s/%s", cache, store_blob_relative_path(sha256, relative));
	assert_int_equal(chmod(path, 0644), 0);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "\xff", 1, 0), 1);
}

static void test_damaged_blob_is_no_answer(void **state)
{
	_cleanup_free_ char *url = url_of(servers.python_port, "/good/damaged");
	const char *urls[] = { url };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 1, .sha512 = data_sha512 };
	_cleanup_answer_ struct answer a = ask(&q, NULL), healed = { .r = 0 }, offline = { .r = 0 };
	struct fetch_options o = QUICK;
	char hex[DIGEST_HEX_SIZE];

	(void)state;
	assert_got(&a, &data_sha256);
	/* Found by its SHA-512, and by its own name. */
	for (int i = 0; i < 2; i++) {
		damage_blob(&data_sha256);
		answer_release(&healed);
		healed = ask(&q, NULL);
		assert_got(&healed, &data_sha256);
		assert_false(healed.result.was_stored);
		q.sha256 = data_sha256;
		q.sha512 = (struct digest){ 0 };
	}
	damage_blob(&data_sha256);
	o.offline = true;
	offline = ask(&q, &o);
	assert_int_equal(offline.r, -ENETUNREACH);
	assert_int_equal(offline.e.kind, ERR_KIND_INPUT);
	assert_non_null(strstr(offline.e.message, "the cache is damaged"));
	assert_non_null(strstr(offline.e.message, digest_hex(&data_sha256, hex)));
	assert_int_equal(times_asked("/good/damaged"), 3);
}

static void test_candidates(void **state)
{
	_cleanup_free_ char *absent = url_of(servers.python_port, "/status/404/c"), *wrong = url_of(servers.nginx_port, "/big.bin"),
			    *half = url_of(servers.python_port, "/short/c"), *good = url_of(servers.python_port, "/good/c"),
			    *nobody = url_of(free_port(), "/x");
	const char *urls[] = { absent, "/no/such/file", wrong, nobody, half, good };
	char right[512];
	const char *then_local[] = { NULL, right };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 6, .sha256 = data_sha256 };
	_cleanup_answer_ struct answer a = ask(&q, NULL), missing = { .r = 0 }, refused = { .r = 0 };

	(void)state;
	assert_got(&a, &data_sha256);
	/* A file of this machine after wrong bytes, and after half of the right ones, that came over the network. */
	assert_int_equal(write_in_workdir("right", data, DATA_BYTES), 0);
	in_workdir(right, sizeof(right), "right");
	for (size_t i = 2; i < 5; i += 2) {
		_cleanup_answer_ struct answer local = { .r = 0 };

		assert_int_equal(setup_cache(NULL), 0);
		q.urls = then_local;
		q.n_urls = 2;
		then_local[0] = urls[i];
		local = ask(&q, NULL);
		assert_got(&local, &data_sha256);
	}
	q.urls = urls;
	assert_int_equal(setup_cache(NULL), 0);
	q.n_urls = 2;
	q.optional = true;
	missing = ask(&q, NULL);
	assert_int_equal(missing.r, 0);
	assert_true(missing.result.missing);
	q.n_urls = 3; /* one of them is there, but wrong: that is not "missing" */
	refused = ask(&q, NULL);
	assert_refused(&refused, -EBADMSG, "404");
	assert_non_null(strstr(refused.e.message, "/no/such/file"));
	assert_non_null(strstr(refused.e.message, "wrong sha256"));
}

static void test_secrets_stay_secret(void **state)
{
	_cleanup_free_ char *url = NULL, *good = NULL;
	const char *urls[1] = { NULL };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 1 };
	_cleanup_answer_ struct answer a = { .r = 0 }, b = { .r = 0 }, off = { .r = 0 };
	struct fetch_options o = QUICK;

	(void)state;
	assert_true(asprintf(&url, "http://user:hunter2@127.0.0.1:%u/status/404/s?token=hush", servers.python_port) > 0);
	assert_true(asprintf(&good, "http://user:hunter2@127.0.0.1:%u/good/s?token=hush", servers.python_port) > 0);
	urls[0] = url;
	a = ask(&q, NULL);
	assert_refused(&a, -ENOENT, "/status/404/s?...");
	assert_null(strstr(a.e.message, "hunter2"));
	assert_null(strstr(a.e.message, "hush"));
	urls[0] = good;
	o.offline = true;
	off = ask(&q, &o);
	assert_refused(&off, -ENETUNREACH, "--offline");
	assert_null(strstr(off.e.message, "hunter2"));
	b = ask(&q, NULL);
	assert_got(&b, &data_sha256);
	assert_null(strstr(b.result.url, "hunter2"));
	assert_null(strstr(b.result.url, "hush"));
}

/* A redirect to the same server keeps the log-in; to another one it does not. */
static void test_login_stays_with_its_server(void **state)
{
	_cleanup_free_ char *same = NULL, *elsewhere = NULL;
	_cleanup_buf_ struct buf a = BUF_INIT(1000), b = BUF_INIT(1000);
	struct fetch_options o = QUICK;
	struct err e = ERR_INIT;
	unsigned port = servers.python_port;

	(void)state;
	assert_true(asprintf(&same, "http://user:hunter2@127.0.0.1:%u/to/!auth!x", port) > 0);
	assert_true(asprintf(&elsewhere, "http://user:hunter2@127.0.0.1:%u/to/http:!!localhost:%u!auth!x", port, port) > 0);
	assert_int_equal(fetch_bytes(same, "x", &o, &a, &e), 0);
	assert_string_equal(buf_str(&a), "Basic dXNlcjpodW50ZXIy for /auth/x");
	if (fetch_bytes(elsewhere, "x", &o, &b, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(buf_str(&b), "none for /auth/x");
}

static void test_local_files(void **state)
{
	_cleanup_free_ char *file_url = NULL;
	char path[512];
	const char *urls[] = { path };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 1, .want_sha512 = true };
	struct fetch_options o = QUICK;
	_cleanup_answer_ struct answer a = { .r = 0 }, b = { .r = 0 }, folder = { .r = 0 };

	(void)state;
	o.offline = true; /* local files need no network */
	assert_int_equal(write_in_workdir("a file", data, DATA_BYTES), 0);
	in_workdir(path, sizeof(path), "a file");
	a = ask(&q, &o);
	assert_got(&a, &data_sha256);
	assert_true(digest_equal(&a.result.sha512, &data_sha512));
	assert_int_equal(setup_cache(NULL), 0);
	assert_true(asprintf(&file_url, "file://%s/a%%20file", workdir) > 0);
	urls[0] = file_url;
	b = ask(&q, &o);
	assert_got(&b, &data_sha256);
	assert_int_equal(setup_cache(NULL), 0);
	urls[0] = workdir;
	folder = ask(&q, &o);
	assert_refused(&folder, -EINVAL, "not a regular file");
}

static void test_offline_lists_all(void **state)
{
	_cleanup_publisher_ struct publisher *p = NULL;
	const char *one[] = { "http://example.org/one" }, *two[] = { "https://example.org/two" };
	struct fetch_request q[] = { { .label = "first", .urls = one, .n_urls = 1 }, { .label = "second", .urls = two, .n_urls = 1 },
		{ .label = "third", .urls = one, .n_urls = 1 } };
	struct fetch_result results[3];
	struct fetch_options o = QUICK;
	struct blob_info info;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(publisher_open(cache, &p, &e), 0);
	assert_int_equal(publish_blob_bytes(p, "x", 1, "x", &info, &e), 0);
	q[2].sha256 = info.sha256;
	o.offline = true;
	assert_int_equal(fetch_all(p, q, 3, &o, results, &e), -ENETUNREACH);
	assert_non_null(strstr(e.message, "2 of 3 files are not in the cache: first, second;"));
	assert_null(strstr(e.message, "third"));
	assert_int_equal(fetch_all(p, &q[2], 1, &o, results, &e), 0);
}

/* Everything that cannot be had is listed at the end, and what can be had is there by then. */
static void test_missing_is_listed(void **state)
{
	_cleanup_free_ char *absent = url_of(servers.python_port, "/status/404/m"), *good = url_of(servers.python_port, "/good/m"),
			    *wrong = url_of(servers.nginx_port, "/big.bin");
	const char *nowhere[] = { "/no/such/folder/x", absent }, *changed[] = { wrong }, *here[] = { good };
	struct fetch_request q[] = {
		{ .label = "gone", .urls = nowhere, .n_urls = 2, .sha256 = other_sha256, .size_bytes = DATA_BYTES },
		{ .label = "good", .urls = here, .n_urls = 1, .sha256 = data_sha256 },
		{ .label = "other", .urls = changed, .n_urls = 1, .sha256 = other_sha256, .about_bytes = 7 },
	};
	_cleanup_missing_ struct missing missing = { 0 };
	_cleanup_publisher_ struct publisher *p = NULL;
	char hex[DIGEST_HEX_SIZE];
	struct fetch_options o = QUICK;
	struct err e = ERR_INIT;

	(void)state;
	o.missing = &missing;
	assert_int_equal(publisher_open(cache, &p, &e), 0);
	assert_int_equal(fetch_all(p, q, 3, &o, NULL, &e), -EBADMSG);
	assert_int_equal(e.kind, ERR_KIND_INPUT);
	assert_non_null(strstr(e.message, "2 of 3 files: gone, other"));
	assert_int_equal(missing.n, 2);
	assert_string_equal(missing.items[0].label, "gone");
	assert_int_equal(missing.items[0].size_bytes, DATA_BYTES);
	assert_int_equal(missing.items[0].code, -ENOENT);
	assert_int_equal(missing.items[0].tried.n, 2);
	assert_non_null(strstr(missing.items[0].tried.items[0], "/no/such/folder/x"));
	assert_non_null(strstr(missing.items[0].tried.items[1], "404"));
	assert_true(digest_equal(&missing.items[1].sha256, &other_sha256));
	assert_int_equal(missing.items[1].size_bytes, 7);
	assert_non_null(strstr(missing.items[1].tried.items[0], digest_hex(&big_sha256, hex)));
	assert_int_equal(count_blobs(), 1);
	/* One alone is told whole. */
	missing_release(&missing);
	assert_int_equal(fetch_all(p, q, 2, &o, NULL, &e), -ENOENT);
	assert_non_null(strstr(e.message, digest_hex(&other_sha256, hex)));
	assert_non_null(strstr(e.message, "/no/such/folder/x"));
}

struct note_count {
	struct progress sink;
	size_t n;
};

static void count_note(struct progress *p, const struct progress_event *event)
{
	((struct note_count *)p)->n += event->kind == PROGRESS_NOTE;
}

/* A server that never answers is waited for once, not for each of hundreds of files. */
static void test_silent_server_is_given_up(void **state)
{
	enum { N = 300 };
	_cleanup_free_ char *nobody = url_of(free_port(), "/x");
	const char *urls[] = { nobody };
	static struct fetch_request q[N];
	static char labels[N][8];
	_cleanup_missing_ struct missing missing = { 0 };
	_cleanup_publisher_ struct publisher *p = NULL;
	struct fetch_options o = QUICK;
	struct note_count notes = { .sink = { .emit = count_note } };
	size_t not_asked = 0;
	struct err e = ERR_INIT;

	(void)state;
	o.missing = &missing;
	o.retry_delay_ms = 40;
	o.progress = &notes.sink;
	assert_int_equal(publisher_open(cache, &p, &e), 0);
	for (size_t i = 0; i < N; i++) {
		(void)snprintf(labels[i], sizeof(labels[i]), "n%zu", i);
		q[i] = (struct fetch_request){ .label = labels[i], .urls = urls, .n_urls = 1, .sha256 = data_sha256 };
	}
	assert_int_equal(fetch_all(p, q, N, &o, NULL, &e), -ECONNREFUSED);
	assert_int_equal(missing.n, N);
	for (size_t i = 0; i < N; i++)
		not_asked += strstr(missing.items[i].tried.items[0], "not asked, since") != NULL;
	assert_in_range(not_asked, N / 2, N - 1);
	assert_int_equal(notes.n, 4); /* "trying again", once for each of the five attempts but the last */
	assert_non_null(strstr(e.message, "300 of 300 files: n0, n1, "));
	assert_non_null(strstr(e.message, " more; check the network"));
}

static void test_bytes(void **state)
{
	_cleanup_free_ char *good = url_of(servers.python_port, "/good/b"), *absent = url_of(servers.python_port, "/status/404/b"),
			    *broken = url_of(servers.python_port, "/cut-resume/b");
	_cleanup_buf_ struct buf b = BUF_INIT(DATA_BYTES + 5), small = BUF_INIT(DATA_BYTES - 1), more = BUF_INIT(1 << 20);
	const char *urls[] = { good };
	struct fetch_options o = QUICK;
	struct fetch_request q = { .label = "x", .urls = urls, .n_urls = 1, .into = &more, .sha256 = other_sha256 };
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(buf_append_str(&b, "hello"), 0);
	assert_int_equal(fetch_bytes(good, "x", &o, &b, &e), 0);
	assert_int_equal(b.len, DATA_BYTES + 5);
	assert_memory_equal(b.data, "hello", 5);
	assert_memory_equal(b.data + 5, data, DATA_BYTES);
	assert_int_equal(fetch_bytes(good, "x", &o, &small, &e), -E2BIG);
	assert_int_equal(small.len, 0);
	assert_int_equal(fetch_bytes(absent, "x", &o, &small, &e), -ENOENT);
	/* A wrong digest leaves the buffer as it was. */
	assert_int_equal(buf_append_str(&more, "kept"), 0);
	assert_int_equal(fetch_all(NULL, &q, 1, &o, NULL, &e), -EBADMSG);
	assert_string_equal(buf_str(&more), "kept");
	buf_reset(&more);
	assert_int_equal(fetch_bytes(broken, "x", &o, &more, &e), 0);
	assert_int_equal(more.len, DATA_BYTES);
	assert_memory_equal(more.data, data, DATA_BYTES);
}

static void test_cancel(void **state)
{
	_cleanup_free_ char *url = url_of(servers.python_port, "/stall/cancel");
	const char *urls[] = { url };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 1 };
	_cleanup_close_ int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct itimerspec in = { .it_value = { .tv_nsec = 300000000 } };
	struct fetch_options o = QUICK;
	uint64_t start = monotonic_ms();
	_cleanup_answer_ struct answer a = { .r = 0 };

	(void)state;
	o.cancel_fd = timer;
	o.stall_timeout_s = 20;
	assert_int_equal(timerfd_settime(timer, 0, &in, NULL), 0);
	a = ask(&q, &o);
	assert_int_equal(a.r, -ECANCELED);
	assert_true(monotonic_ms() - start < 5000);
}

/* A cache that is full is the host's trouble, and no other candidate is tried. */
static void test_no_room(void **state)
{
	_cleanup_free_ char *url = url_of(servers.python_port, "/good/room");
	const char *urls[] = { url, url };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 2 };
	struct rlimit limit, small;
	_cleanup_answer_ struct answer a = { .r = 0 };

	(void)state;
	(void)signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	small = (struct rlimit){ .rlim_cur = 100000, .rlim_max = limit.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	a = ask(&q, NULL);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(a.r, -EFBIG);
	assert_int_equal(a.e.kind, ERR_KIND_HOST);
	assert_int_equal(times_asked("/good/room"), 1);
	assert_int_equal(count_blobs(), 0);
}

/* Two processes that want the same bytes at the same time do not write into one file. */
static void test_two_processes_one_blob(void **state)
{
	_cleanup_free_ char *url = url_of(servers.nginx_port, "/slow/big.bin");
	const char *urls[] = { url };
	struct fetch_request q = big_request(urls, 1, true);
	pid_t pids[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		pids[i] = fork();
		assert_true(pids[i] >= 0);
		if (pids[i] == 0) {
			struct answer a = ask(&q, NULL);

			if (a.r < 0)
				(void)fprintf(stderr, "%s\n", a.e.message);
			_exit(a.r < 0);
		}
	}
	for (int i = 0; i < 2; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	assert_int_equal(count_blobs(), 1);
}

struct log {
	struct progress progress;
	unsigned n_begun, n_ended;
	uint64_t done, total;
	bool went_back;
};

static void log_event(struct progress *p, const struct progress_event *event)
{
	struct log *log = (struct log *)p;

	log->n_begun += event->kind == PROGRESS_BEGIN;
	log->n_ended += event->kind == PROGRESS_END;
	if (event->kind != PROGRESS_UPDATE)
		return;
	log->went_back |= event->done < log->done;
	log->done = event->done;
	log->total = event->total;
}

static void test_many_at_once(void **state)
{
	enum { N = 40 };
	_cleanup_publisher_ struct publisher *p = NULL;
	_cleanup_buf_ struct buf most = BUF_INIT(100);
	_cleanup_free_ char *most_url = url_of(servers.python_port, "/most/1");
	struct log log = { .progress = { .emit = log_event } };
	char *urls[N];
	struct fetch_request q[N];
	struct fetch_result results[N];
	struct fetch_options o = QUICK;
	struct err e = ERR_INIT;
	unsigned n = 0;

	(void)state;
	assert_int_equal(publisher_open(cache, &p, &e), 0);
	for (int i = 0; i < N; i++) {
		char path[64];

		(void)snprintf(path, sizeof(path), "/concurrent/%d", i);
		urls[i] = url_of(servers.python_port, path);
		q[i] = (struct fetch_request){ .label = "a file", .urls = (const char *const *)&urls[i], .n_urls = 1 };
		assert_int_equal(digest_bytes(DIGEST_SHA256, path, strlen(path), &q[i].sha256, &e), 0);
	}
	o.progress = &log.progress;
	if (fetch_all(p, q, N, &o, results, &e) < 0)
		fail_msg("%s", e.message);
	for (int i = 0; i < N; i++)
		assert_true(digest_equal(&results[i].sha256, &q[i].sha256));
	fetch_results_release(results, N);
	assert_int_equal(fetch_bytes(most_url, "x", &o, &most, &e), 0);
	assert_int_equal(sscanf(buf_str(&most), "%u", &n), 1);
	assert_true(n > 1 && n <= FETCH_MAX_ACTIVE_PER_HOST);
	assert_int_equal(log.n_begun, 2);
	assert_int_equal(log.n_ended, 2);
	assert_false(log.went_back && log.total == 0);
	for (int i = 0; i < N; i++)
		free(urls[i]);
}

static void test_proxy_from_environment(void **state)
{
	_cleanup_free_ char *proxy = url_of(servers.python_port, "");
	const char *urls[] = { "http://imgbuild.invalid/thing" };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 1 };
	_cleanup_answer_ struct answer without = ask(&q, NULL), with = { .r = 0 };

	(void)state;
	assert_refused(&without, -EHOSTUNREACH, "check the network");
	assert_int_equal(setenv("http_proxy", proxy, 1), 0);
	with = ask(&q, NULL);
	assert_int_equal(unsetenv("http_proxy"), 0);
	assert_got(&with, &data_sha256);
}

static void test_nobody_listens(void **state)
{
	_cleanup_free_ char *url = url_of(free_port(), "/x");
	const char *urls[] = { url };
	struct fetch_request q = { .label = "the thing", .urls = urls, .n_urls = 1 };
	_cleanup_answer_ struct answer a = ask(&q, NULL);

	(void)state;
	assert_refused(&a, -ECONNREFUSED, "5 attempts");
}

/* ---- the head of an answer, without any network ---------------------------------------------------------------------- */

static struct http_answer head(const char *const *lines)
{
	struct http_answer a;

	http_answer_init(&a);
	for (; *lines; lines++)
		http_answer_line(&a, *lines, strlen(*lines));
	return a;
}

static void test_http_answer(void **state)
{
	struct http_answer a;

	(void)state;
	a = head((const char *const[]){ "HTTP/1.1 302 Found\r\n", "Content-Length: 5\r\n", "HTTP/1.1 206 Partial\r\n",
		"content-range:  bytes 100-199/1000 \r\n", "ETag: W/\"weak\"", "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT", NULL });
	assert_int_equal(a.status, 206);
	assert_int_equal(a.length_bytes, HTTP_SIZE_UNKNOWN);
	assert_true(a.has_range && a.range_start == 100 && a.total_bytes == 1000);
	assert_false(a.is_delimited);
	assert_string_equal(a.validator, "Mon, 01 Jan 2024 00:00:00 GMT");
	a = head((const char *const[]){ "HTTP/2 200", "etag: \"x\"", "last-modified: y", "content-type: Text/HTML; charset=x", NULL });
	assert_true(a.is_delimited && a.is_html);
	assert_string_equal(a.validator, "\"x\"");
	a = head((const char *const[]){ "HTTP/1.1 416 No", "Content-Range: bytes */77", "Retry-After: 99999999", NULL });
	assert_int_equal(a.total_bytes, 77);
	assert_false(a.has_range);
	assert_int_equal(a.retry_after_s, HTTP_RETRY_AFTER_MAX_S);
	a = head((const char *const[]){ "HTTP/1.1 206 x", "Content-Range: bytes 5-1/10", NULL });
	assert_false(a.has_range);
	a = head((const char *const[]){ "HTTP/1.1 206 x", "Content-Range: bytes 5-10/10", NULL });
	assert_false(a.has_range);
	a = head((const char *const[]){ "HTTP/1.1 206 x", "Content-Range: bytes 5-9/*", NULL });
	assert_true(a.has_range && a.total_bytes == HTTP_SIZE_UNKNOWN);
	a = head((const char *const[]){ "HTTP/1.1 200 x", "Content-Length: 99999999999999999999999", NULL });
	assert_int_equal(a.length_bytes, HTTP_SIZE_UNKNOWN);
	a = head((const char *const[]){ "HTTP/1.1 200 x", "Content-Length: -1", "ETag: \"a\nb\"", ":", "", NULL });
	assert_int_equal(a.length_bytes, HTTP_SIZE_UNKNOWN);
	assert_string_equal(a.validator, "");
	assert_true(http_looks_like_html("\xEF\xBB\xBF \n<!docTYPE HTML PUBLIC", 25));
	assert_true(http_looks_like_html("<html lang=en>", 14));
	assert_false(http_looks_like_html("<htm", 4));
	assert_false(http_looks_like_html("<?xml version", 13));
	assert_true(http_status_may_pass(503) && http_status_may_pass(429));
	assert_false(http_status_may_pass(404) || http_status_may_pass(501) || http_status_may_pass(200));
}

#define TEST(f) cmocka_unit_test_setup(f, setup_cache)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_http_answer),
		TEST(test_plain_download),
		TEST(test_resume_after_kill),
		TEST(test_resume_of_whole),
		TEST(test_slow_bytes),
		TEST(test_nginx_refusals),
		TEST(test_tls),
		TEST(test_broken_transfers_are_resumed),
		TEST(test_changed_file),
		TEST(test_refused_answers),
		TEST(test_accepted_answers),
		TEST(test_sizes),
		TEST(test_both_digests),
		TEST(test_damaged_blob_is_no_answer),
		TEST(test_candidates),
		TEST(test_secrets_stay_secret),
		TEST(test_login_stays_with_its_server),
		TEST(test_local_files),
		TEST(test_offline_lists_all),
		TEST(test_missing_is_listed),
		TEST(test_silent_server_is_given_up),
		TEST(test_bytes),
		TEST(test_cancel),
		TEST(test_no_room),
		TEST(test_two_processes_one_blob),
		TEST(test_many_at_once),
		TEST(test_proxy_from_environment),
		TEST(test_nobody_listens),
	};

	return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
