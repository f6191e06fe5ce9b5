#include "builder/packages/release.h"
#include "builder/packages/deb822.h"
#include "lib/io.h"
#include "lib/process.h"

#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <time.h>

enum {
	GPGV_TIMEOUT_MS = 60000,
	STATUS_MAX_BYTES = 1 << 20,
	DATE_TOLERANCE_SECONDS = 3600, /* clocks differ */
	STATUS_CHILD_FD = 3,
	KEYRING_CHILD_FD = 4,
	SIGNED_CHILD_FD = 5,
	SIGNATURE_CHILD_FD = 6,
};

void apt_release_init(struct apt_release *r)
{
	*r = (struct apt_release){ 0 };
	buf_init(&r->text, RELEASE_MAX_BYTES);
}

void apt_release_release(struct apt_release *r)
{
	buf_release(&r->text);
	strv_release(&r->signers);
	free(r->origin);
	free(r->label);
	free(r->suite);
	free(r->codename);
	free(r->version);
	free(r->architectures);
	*r = (struct apt_release){ 0 };
}

/* An anonymous file with these bytes, for a child that wants a name or an offset of its own. */
static int memory_file(const char *name, const void *bytes, size_t len, int *ret_fd, struct err *e)
{
	_cleanup_close_ int fd = memfd_create(name, MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot make a file in memory");
	r = write_full(fd, bytes, len);
	if (r < 0)
		return err_set_errno(e, r, "cannot write to a file in memory");
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_set_errno(e, -errno, "cannot rewind a file in memory");
	*ret_fd = take_fd(&fd);
	return 0;
}

static const char *date_text(int64_t t, char text[static 32])
{
	struct tm tm;
	time_t time = (time_t)t;

	if (!gmtime_r(&time, &tm) || strftime(text, 32, "%Y-%m-%d %H:%M UTC", &tm) == 0)
		(void)snprintf(text, 32, "?");
	return text;
}

/* What is known of one signature while the status lines about it go by. */
struct signature {
	bool good;
	bool counted;
};

struct judgement {
	struct signature current;
	bool bad, expired_key, revoked_key, expired, not_listed, weak, unusable_key;
	int64_t unusable_at; /* when that signature was made */
	char missing_key[48]; /* of the last ERRSIG or NO_PUBKEY */
};

static bool fingerprint_wanted(const struct strv *wanted, const char *key, const char *primary)
{
	if (wanted->n == 0)
		return true;
	for (size_t i = 0; i < wanted->n; i++) {
		size_t len = strlen(wanted->items[i]);
		bool exact = len > 0 && wanted->items[i][len - 1] == '!';

		if (exact)
			len--;
		if (strlen(key) == len && strncasecmp(key, wanted->items[i], len) == 0)
			return true;
		if (!exact && strlen(primary) == len && strncasecmp(primary, wanted->items[i], len) == 0)
			return true;
	}
	return false;
}

/* VALIDSIG fingerprint date timestamp expire version reserved pubkey-algorithm hash-algorithm class primary */
static int take_validsig(struct judgement *j, const struct strv *words, const struct strv *wanted, struct strv *signers)
{
	const char *key, *primary, *hash;

	if (!j->current.good || words->n < 10)
		return 0;
	key = words->items[1];
	hash = words->items[8];
	primary = words->n > 10 ? words->items[10] : key;
	/* RFC 9580 9.5: 1 MD5, 2 SHA-1, 3 RIPEMD-160 */
	if (strcmp(hash, "1") == 0 || strcmp(hash, "2") == 0 || strcmp(hash, "3") == 0) {
		j->weak = true;
		return 0;
	}
	if (!fingerprint_wanted(wanted, key, primary)) {
		j->not_listed = true;
		return 0;
	}
	return strv_contains(signers, primary) ? 0 : strv_add(signers, primary);
}

/* ERRSIG keyid pubkey-algorithm hash-algorithm class time rc. With a key that is not there rc is 9; with one that was made in the
 * future, as gpgv sees it, 6. */
static void take_errsig(struct judgement *j, const struct strv *words)
{
	enum { RC_BAD_PUBLIC_KEY = 6 };

	if (words->n < 7 || strtol(words->items[6], NULL, 10) != RC_BAD_PUBLIC_KEY)
		return;
	j->unusable_key = true;
	j->unusable_at = (int64_t)strtoul(words->items[5], NULL, 10);
}

static int take_status_line(struct judgement *j, struct deb822_value line, const struct strv *wanted,
	struct strv *signers)
{
	static const char prefix[] = "[GNUPG:] ";
	_cleanup_strv_ struct strv words = { 0 };
	const char *word;

	if (line.len < strlen(prefix) || memcmp(line.s, prefix, strlen(prefix)) != 0)
		return 0;
	line.s += strlen(prefix);
	line.len -= strlen(prefix);
	if (deb822_words(line, false, &words) < 0)
		return -ENOMEM;
	if (words.n == 0)
		return 0;
	word = words.items[0];
	if (strcmp(word, "NEWSIG") == 0)
		j->current = (struct signature){ 0 };
	else if (strcmp(word, "GOODSIG") == 0)
		j->current.good = true;
	else if (strcmp(word, "VALIDSIG") == 0)
		return take_validsig(j, &words, wanted, signers);
	else if (strcmp(word, "BADSIG") == 0)
		j->bad = true;
	else if (strcmp(word, "EXPKEYSIG") == 0)
		j->expired_key = true, j->current.good = false;
	else if (strcmp(word, "REVKEYSIG") == 0)
		j->revoked_key = true, j->current.good = false;
	else if (strcmp(word, "EXPSIG") == 0)
		j->expired = true, j->current.good = false;
	if (strcmp(word, "ERRSIG") == 0)
		take_errsig(j, &words);
	if ((strcmp(word, "NO_PUBKEY") == 0 || strcmp(word, "ERRSIG") == 0) && words.n > 1)
		(void)err_sanitize(j->missing_key, sizeof(j->missing_key), words.items[1], strlen(words.items[1]));
	return 0;
}

int apt_release_judge_status(const char *status, size_t len, const struct strv *fingerprints, const char *label,
	struct strv *ret_signers, struct err *e)
{
	struct deb822_value rest = { status, len }, line;
	_cleanup_strv_ struct strv signers = { 0 };
	struct judgement j = { 0 };

	while (deb822_line_next(&rest, &line))
		if (take_status_line(&j, line, fingerprints, &signers) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	if (j.bad)
		return err_set_kind(e, ERR_KIND_INPUT, -EKEYREJECTED,
			"the signature of %s is bad: the file was changed after it was signed, on the mirror or on the way; use another mirror "
			"(--mirror)", label);
	if (signers.n == 0 && j.unusable_key) {
		char made[32];

		return err_set_kind(e, ERR_KIND_INPUT, -EKEYREJECTED,
			"no good signature on %s: its key %s cannot be used: it is damaged, or younger than the clock of this machine says it "
			"is now; when the signature's date (%s) is ahead of that clock, set the clock", label, j.missing_key,
			date_text(j.unusable_at, made));
	}
	if (signers.n == 0) {
		const char *why = j.not_listed ? "its key is not one of those that Signed-By allows" :
			j.expired_key	       ? "its key has expired by the clock of this machine (a newer base image, or the source's Signed-By, brings one that has not)" :
			j.revoked_key	       ? "its key was revoked" :
			j.expired	       ? "the signature has expired" :
			j.weak		       ? "it uses MD5, SHA-1 or RIPEMD-160" :
			j.missing_key[0]       ? "its key is not among those trusted for it" :
						 "there is no signature";

		return err_set_kind(e, ERR_KIND_INPUT, -EKEYREJECTED, "no good signature on %s: %s%s%s%s", label, why,
			j.missing_key[0] ? " (key " : "", j.missing_key, j.missing_key[0] ? ")" : "");
	}
	strv_sort(&signers);
	strv_release(ret_signers);
	*ret_signers = signers;
	signers = (struct strv){ 0 };
	return 0;
}

/* Run gpgv: what it puts out goes to *text, its status lines to *status. How it exits says nothing (2 with one known
 * key of three). */
static int run_gpgv(int keyring_fd, int signed_fd, int signature_fd, struct buf *text, struct buf *status, struct err *e)
{
	static const char *const inline_argv[] = { "gpgv", "--quiet", "--status-fd", "3", "--keyring", "/dev/fd/4", "--output",
		"-", "/dev/fd/5", NULL };
	static const char *const detached_argv[] = { "gpgv", "--quiet", "--status-fd", "3", "--keyring", "/dev/fd/4",
		"/dev/fd/6", "/dev/fd/5", NULL };
	_cleanup_close_ int status_fd = memfd_create("gpgv-status", MFD_CLOEXEC);
	struct process_fd fds[] = { { status_fd, STATUS_CHILD_FD }, { keyring_fd, KEYRING_CHILD_FD },
		{ signed_fd, SIGNED_CHILD_FD }, { signature_fd, SIGNATURE_CHILD_FD } };
	struct process_options options = { .argv = signature_fd >= 0 ? detached_argv : inline_argv,
		.fds = fds,
		.n_fds = signature_fd >= 0 ? 4 : 3,
		.working_dirfd = -1 };
	int r, ignored;

	if (status_fd < 0)
		return err_set_errno(e, -errno, "cannot make a file in memory");
	r = process_run(&options, signature_fd >= 0 ? NULL : text, NULL, GPGV_TIMEOUT_MS, &ignored, e);
	if (r == -ENOENT)
		return err_set_kind(e, ERR_KIND_HOST, r, "gpgv is not installed here; it verifies the signatures of package "
			"repositories (Debian and Ubuntu: package `gpgv`; `sqv` will do, too)");
	if (r < 0)
		return err_wrap(e, "running gpgv");
	if (lseek(status_fd, 0, SEEK_SET) < 0)
		return err_set_errno(e, -errno, "cannot rewind a file in memory");
	r = read_fd_to_end(status_fd, status);
	return r < 0 ? err_set_errno(e, r, "cannot read what gpgv says") : 0;
}

/* Run sqv on a detached signature: it ends well when one signature is good by its policy (which refuses MD5 and SHA-1), and
 * prints the fingerprints of those keys. */
static int run_sqv(int keyring_fd, int signed_fd, int signature_fd, const struct strv *fingerprints, const char *label,
	struct strv *ret_signers, struct err *e)
{
	static const char *const argv[] = { "sqv", "--keyring", "/dev/fd/4", "/dev/fd/6", "/dev/fd/5", NULL };
	const struct process_fd fds[] = { { keyring_fd, KEYRING_CHILD_FD }, { signed_fd, SIGNED_CHILD_FD },
		{ signature_fd, SIGNATURE_CHILD_FD } };
	const struct process_options options = { .argv = argv, .fds = fds, .n_fds = ARRAY_SIZE(fds), .working_dirfd = -1 };
	_cleanup_buf_ struct buf out = BUF_INIT(STATUS_MAX_BYTES);
	_cleanup_strv_ struct strv found = { 0 }, signers = { 0 };
	int status, r = process_run(&options, &out, NULL, GPGV_TIMEOUT_MS, &status, e);

	if (r < 0)
		return r;
	if (status == 0 && deb822_words((struct deb822_value){ buf_str(&out), out.len }, false, &found) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	for (size_t i = 0; i < found.n; i++)
		if (fingerprint_wanted(fingerprints, found.items[i], found.items[i]) && strv_add(&signers, found.items[i]) < 0)
			return err_set(e, -ENOMEM, "out of memory");
	if (signers.n == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EKEYREJECTED, "no good signature on %s by %s (says sqv)", label,
			found.n ? "a key that Signed-By allows" : "a key trusted for it");
	strv_sort(&signers);
	strv_uniq(&signers);
	strv_release(ret_signers);
	*ret_signers = signers;
	signers = (struct strv){ 0 };
	return 0;
}

/* gpgv's judgement, or sqv's where only that is there. *text gets what gpgv put out of a clear-signed file. */
static int judge(int keyring_fd, int signed_fd, int signature_fd, const struct strv *fingerprints, const char *label,
	struct buf *text, struct strv *ret_signers, struct err *e)
{
	_cleanup_buf_ struct buf status = BUF_INIT(STATUS_MAX_BYTES);
	struct err no_sqv = ERR_INIT;
	int r = run_gpgv(keyring_fd, signed_fd, signature_fd, text, &status, e);

	if (r == 0)
		return apt_release_judge_status(buf_str(&status), status.len, fingerprints, label, ret_signers, e);
	if (r != -ENOENT || signature_fd < 0)
		return r;
	r = run_sqv(keyring_fd, signed_fd, signature_fd, fingerprints, label, ret_signers, &no_sqv);
	if (r == -ENOENT)
		return r; /* the message is gpgv's */
	*e = no_sqv;
	return r;
}

/* Hand the text over to the release, leaving an empty one. */
static void give_text(struct apt_release *r, struct buf *text)
{
	buf_release(&r->text);
	r->text = *text;
	buf_init(text, 0);
}

int apt_release_verify(const struct buf *signed_text, const struct buf *signature, const struct apt_keyring *keyring,
	const struct strv *fingerprints, const char *label, struct apt_release *ret, struct err *e)
{
	_cleanup_close_ int keyring_fd = -1, signed_fd = -1, signature_fd = -1;
	_cleanup_buf_ struct buf text = BUF_INIT(RELEASE_MAX_BYTES);
	int r;

	if (keyring->packets.len == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EKEYREJECTED, "there is no key to verify %s with", label);
	r = memory_file("keyring", keyring->packets.data, keyring->packets.len, &keyring_fd, e);
	if (r == 0)
		r = memory_file("signed", buf_str(signed_text), signed_text->len, &signed_fd, e);
	if (r == 0 && signature)
		r = memory_file("signature", buf_str(signature), signature->len, &signature_fd, e);
	if (r == 0)
		r = judge(keyring_fd, signed_fd, signature_fd, fingerprints, label, &text, &ret->signers, e);
	if (r < 0)
		return r == -EKEYREJECTED ? r : err_wrap(e, "verifying %s", label);
	if (signature && buf_append(&text, buf_str(signed_text), signed_text->len) < 0)
		return err_set(e, -ENOMEM, "out of memory");
	if (text.len == 0)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s is empty", label);
	r = digest_bytes(DIGEST_SHA256, text.data, text.len, &ret->sha256, e);
	if (r < 0)
		return r;
	give_text(ret, &text);
	return 0;
}

/* The inside of a clear-signed text: after the empty line that ends its headers, up to the signature, dashes taken off.
 * SOURCE: RFC 9580 section 7. */
static int unwrap_clear_signed(struct deb822_value rest, struct buf *into, const char *label, struct err *e)
{
	static const char end[] = "-----BEGIN PGP SIGNATURE-----";
	struct deb822_value line;
	bool inside = false;

	while (deb822_line_next(&rest, &line)) {
		if (!inside) {
			inside = line.len == 0;
			continue;
		}
		if (line.len == strlen(end) && memcmp(line.s, end, line.len) == 0)
			return 0;
		if (line.len >= 2 && line.s[0] == '-' && line.s[1] == ' ') {
			line.s += 2;
			line.len -= 2;
		}
		if (buf_append(into, line.s, line.len) < 0 || buf_append_char(into, '\n') < 0)
			return err_set(e, -ENOMEM, "out of memory");
	}
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s begins as a clear-signed text and has no signature at its end", label);
}

int apt_release_take_unsigned(const struct buf *file, const char *label, struct apt_release *ret, struct err *e)
{
	static const char begin[] = "-----BEGIN PGP SIGNED MESSAGE-----";
	_cleanup_buf_ struct buf text = BUF_INIT(RELEASE_MAX_BYTES);
	int r = 0;

	if (file->len >= strlen(begin) && memcmp(buf_str(file), begin, strlen(begin)) == 0)
		r = unwrap_clear_signed((struct deb822_value){ buf_str(file), file->len }, &text, label, e);
	else if (buf_append(&text, buf_str(file), file->len) < 0)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r < 0)
		return r;
	give_text(ret, &text);
	return 0;
}

int apt_release_parse_date(const char *text, size_t len, int64_t *ret)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char copy[64], month[4], zone[8] = "";
	struct tm tm = { 0 };
	const char *found;
	int n;

	if (len >= sizeof(copy) || memchr(text, '\0', len))
		return -EINVAL;
	memcpy(copy, text, len);
	copy[len] = '\0';
	n = sscanf(copy, "%*3[A-Za-z], %2d %3[A-Za-z] %4d %2d:%2d:%2d %7s", &tm.tm_mday, month, &tm.tm_year, &tm.tm_hour,
		&tm.tm_min, &tm.tm_sec, zone);
	if (n != 7 || (strcmp(zone, "UTC") != 0 && strcmp(zone, "GMT") != 0 && strcmp(zone, "Z") != 0 &&
		strcmp(zone, "+0000") != 0))
		return -EINVAL;
	found = strlen(month) == 3 ? strstr(months, month) : NULL;
	if (!found || (found - months) % 3 != 0 || tm.tm_year < 1970 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour < 0 ||
		tm.tm_hour > 23 || tm.tm_min < 0 || tm.tm_min > 59 || tm.tm_sec < 0 || tm.tm_sec > 60)
		return -EINVAL;
	tm.tm_mon = (int)(found - months) / 3;
	tm.tm_year -= 1900;
	*ret = timegm(&tm);
	return 0;
}

static int take_date(const struct deb822_stanza *st, const char *field, const char *label, int64_t *ret, struct err *e)
{
	struct deb822_value v = deb822_get(st, field);
	char shown[64];

	*ret = 0;
	if (!v.s || apt_release_parse_date(v.s, v.len, ret) == 0)
		return 0;
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s: its %s `%s` is no date in UTC", label, field,
		err_sanitize(shown, sizeof(shown), v.s, v.len));
}

static int take_text(const struct deb822_stanza *st, const char *field, char **ret, struct err *e)
{
	free(*ret);
	*ret = deb822_dup(deb822_get(st, field));
	return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

int apt_release_parse(struct apt_release *r, const char *label, struct err *e)
{
	const struct {
		const char *field;
		char **to;
	} texts[] = { { "Origin", &r->origin }, { "Label", &r->label }, { "Suite", &r->suite }, { "Codename", &r->codename },
		{ "Version", &r->version }, { "Architectures", &r->architectures } };
	struct deb822_reader reader;
	struct deb822_stanza st;
	int n;

	deb822_reader_init(&reader, buf_str(&r->text), r->text.len, label);
	n = deb822_next(&reader, &st, e);
	if (n < 0)
		return n;
	if (n == 0 || !deb822_get(&st, "SHA256").s)
		return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "%s is no release file: it has no SHA256 section", label);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (take_text(&st, texts[i].field, texts[i].to, e) < 0)
			return -ENOMEM;
	if (take_date(&st, "Date", label, &r->date, e) < 0 || take_date(&st, "Valid-Until", label, &r->valid_until, e) < 0)
		return -EBADMSG;
	r->not_automatic = deb822_is(deb822_get(&st, "NotAutomatic"), "yes");
	r->but_automatic_upgrades = deb822_is(deb822_get(&st, "ButAutomaticUpgrades"), "yes");
	r->by_hash = deb822_is(deb822_get(&st, "Acquire-By-Hash"), "yes");
	r->packages_without_all = deb822_is(deb822_get(&st, "No-Support-for-Architecture-all"), "Packages");
	return 0;
}

int apt_release_parse_nothing(struct apt_release *r, struct err *e)
{
	char **const texts[] = { &r->origin, &r->label, &r->suite, &r->codename, &r->version, &r->architectures };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		free(*texts[i]);
		*texts[i] = strdup("");
		if (!*texts[i])
			return err_set(e, -ENOMEM, "out of memory");
	}
	return 0;
}

/* "hash size path" */
static bool line_is_of(struct deb822_value line, const char *path, struct digest *ret, uint64_t *ret_size)
{
	char hex[DIGEST_SHA256_HEX_SIZE], name[1024];
	unsigned long long size;
	char copy[1200];

	line = deb822_trim(line);
	if (line.len >= sizeof(copy) || line.len <= strlen(path) ||
		memcmp(line.s + line.len - strlen(path), path, strlen(path)) != 0)
		return false;
	memcpy(copy, line.s, line.len);
	copy[line.len] = '\0';
	if (sscanf(copy, "%64s %19llu %1023s", hex, &size, name) != 3 || strcmp(name, path) != 0)
		return false;
	if (digest_parse_hex(DIGEST_SHA256, hex, ret) < 0)
		return false;
	*ret_size = size;
	return true;
}

int apt_release_find(const struct apt_release *r, const char *path, struct digest *ret, uint64_t *ret_size_bytes)
{
	struct deb822_value section, line;
	struct deb822_reader reader;
	struct deb822_stanza st;
	struct err ignored = ERR_INIT;

	deb822_reader_init(&reader, buf_str(&r->text), r->text.len, "");
	if (deb822_next(&reader, &st, &ignored) <= 0)
		return -ENOENT;
	section = deb822_get(&st, "SHA256");
	while (deb822_line_next(&section, &line))
		if (line_is_of(line, path, ret, ret_size_bytes))
			return 0;
	return -ENOENT;
}

/* "20 days": the largest unit that fits, rounded down. */
static const char *span_text(int64_t seconds, char text[static 32])
{
	static const struct {
		int64_t seconds;
		const char *name;
	} units[] = { { 365 * 86400, "year" }, { 86400, "day" }, { 3600, "hour" }, { 60, "minute" }, { 1, "second" } };
	size_t i = 0;

	while (i + 1 < ARRAY_SIZE(units) && seconds < units[i].seconds)
		i++;
	seconds /= units[i].seconds;
	(void)snprintf(text, 32, "%lld %s%s", (long long)seconds, units[i].name, seconds == 1 ? "" : "s");
	return text;
}

int apt_release_check_date(const struct apt_release *r, int64_t now, const char *label, struct err *e)
{
	char a[32], b[32], c[32];

	if (r->date <= now + DATE_TOLERANCE_SECONDS)
		return 0;
	return err_set_kind(e, ERR_KIND_INPUT, -ESTALE,
		"%s is dated %s, which is %s ahead of the clock of this machine (%s): that clock is probably wrong, set it; if it is "
		"right, the archive's is not", label, date_text(r->date, a), span_text(r->date - now, b), date_text(now, c));
}

bool apt_release_has_expired(const struct apt_release *r, int64_t now, char text[static RELEASE_EXPIRY_BYTES])
{
	char a[32], b[32], c[32];

	if (!r->valid_until || r->valid_until >= now)
		return false;
	(void)snprintf(text, RELEASE_EXPIRY_BYTES, "was valid until %s, which is %s ago by the clock of this machine (%s)",
		date_text(r->valid_until, a), span_text(now - r->valid_until, b), date_text(now, c));
	return true;
}

int apt_release_check_not_older(const struct apt_release *r, int64_t known, const char *label, struct err *e)
{
	char a[32], b[32];

	if (!known || r->date >= known)
		return 0;
	return err_set_kind(e, ERR_KIND_INPUT, -ESTALE,
		"%s is dated %s, but the lock has packages by one of %s: this mirror lags behind, or somebody replays old metadata "
		"to bring back old packages; use another mirror (--mirror), or, if going back is meant, remove the packages' section "
		"from the lock", label, r->date ? date_text(r->date, a) : "(not at all)", date_text(known, b));
}
