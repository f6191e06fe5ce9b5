#include "builder/vouch.h"
#include "builder/checksums.h"
#include "builder/packages/release.h"
#include "lib/io.h"

#include <string.h>

enum { OPTIONAL_MAX_ATTEMPTS = 2, OPTIONAL_TIMEOUT_S = 10 };

void vouch_release(struct vouch *v)
{
	free(v->checksums.url);
	free(v->checksums.signer);
	free(v->doubt);
	*v = (struct vouch){ 0 };
}

bool vouch_equal(const struct vouch *a, const struct vouch *b)
{
	return digest_equal(&a->sha256, &b->sha256) && digest_equal(&a->sha512, &b->sha512);
}

/* ---- lists and signatures ------------------------------------------------------------------------------------------- */

/* Append where the bytes of a URL may be had: the mirrors' rules hold for lists and signatures, too. */
static int add_places(const struct build_env *env, const char *url, struct strv *places, struct err *e)
{
	struct candidate_rules rules = build_env_candidate_rules(env);
	struct wanted_file wanted = { .url = url };

	return candidates_list(&wanted, &rules, places, e);
}

/* Fetch the first of these places that has it into memory. */
static int fetch_small(const struct build_env *env, const char *label, const struct strv *places, bool optional, struct buf *into,
	bool *ret_missing, struct err *e)
{
	struct fetch_options options = build_env_fetch_options(env);
	struct fetch_request request = { .label = label,
		.urls = (const char *const *)places->items,
		.n_urls = places->n,
		.into = into,
		.optional = optional };
	struct fetch_result result = { 0 };
	int r;

	/* Nobody waits for what nobody promised, nor wants to see that it was asked for. */
	if (optional) {
		options.max_attempts = OPTIONAL_MAX_ATTEMPTS;
		options.stall_timeout_s = OPTIONAL_TIMEOUT_S;
		options.connect_timeout_s = OPTIONAL_TIMEOUT_S;
		options.progress = NULL;
	}
	r = fetch_all(NULL, &request, 1, &options, &result, e);
	if (r < 0)
		return err_default_kind(e, ERR_KIND_INPUT);
	*ret_missing = result.missing;
	fetch_results_release(&result, 1);
	return 0;
}

static bool is_clear_signed(const struct buf *text)
{
	static const char begin[] = "-----BEGIN PGP SIGNED MESSAGE-----";

	return text->len >= strlen(begin) && memcmp(text->data, begin, strlen(begin)) == 0;
}

/* Append the places of a URL with a suffix behind its path. */
static int add_suffixed(const struct build_env *env, const char *url, const char *suffix, struct strv *places, struct err *e)
{
	size_t len = strcspn(url, "?#");
	_cleanup_free_ char *longer = NULL;

	if (asprintf(&longer, "%.*s%s%s", (int)len, url, suffix, url + len) < 0) {
		longer = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	return add_places(env, longer, places, e);
}

static int fetch_signature(const struct build_env *env, const struct plan_base *base, struct buf *into, struct err *e)
{
	_cleanup_strv_ struct strv places = { 0 };
	bool missing;
	int r;

	if (base->checksums_signature_url) {
		r = add_places(env, base->checksums_signature_url, &places, e);
	} else {
		r = add_suffixed(env, base->checksums_url, ".gpg", &places, e);
		if (r == 0)
			r = add_suffixed(env, base->checksums_url, ".sign", &places, e);
	}
	if (r == 0)
		r = fetch_small(env, "signature of the checksums", &places, false, into, &missing, e);
	return r < 0 ? err_wrap(e, "the plan gives a key for the checksums") : 0;
}

static int read_key(const struct prepared *p, const char *path, struct progress *progress, struct apt_keyring *into, struct err *e)
{
	_cleanup_buf_ struct buf bytes = BUF_INIT(KEYRING_MAX_BYTES);
	_cleanup_close_ int fd = -1;
	int r = prepared_open_local(p, "checksums-key", &fd, e);

	if (r == 0) {
		r = read_fd_to_end(fd, &bytes);
		if (r < 0)
			(void)err_set_errno(e, r, "cannot read the key `%s`", path);
	}
	if (r == 0)
		r = apt_keyring_add(into, buf_str(&bytes), bytes.len, path, progress, e);
	return r < 0 ? err_default_kind(e, ERR_KIND_USAGE) : 0;
}

/* Hold the list against the plan's key, and leave in *text only what was signed. */
static int verify_list(const struct build_env *env, const struct prepared *p, const char *label, struct buf *text,
	char **ret_signer, struct err *e)
{
	const struct plan_base *base = &p->plan->base[p->arch];
	_cleanup_keyring_ struct apt_keyring keyring = { 0 };
	_cleanup_release_ struct apt_release verified = { 0 };
	_cleanup_buf_ struct buf signature = BUF_INIT(RELEASE_SIGNATURE_MAX_BYTES);
	const struct strv any = { 0 };
	bool is_inline = is_clear_signed(text) && !base->checksums_signature_url;
	int r;

	apt_keyring_init(&keyring);
	apt_release_init(&verified);
	r = read_key(p, base->checksums_key, env->progress, &keyring, e);
	if (r == 0 && !is_inline)
		r = fetch_signature(env, base, &signature, e);
	if (r == 0)
		r = apt_release_verify(text, is_inline ? NULL : &signature, &keyring, &any, label, &verified, e);
	if (r == -EKEYREJECTED)
		(void)err_wrap(e, "the key `%s` of the plan does not vouch for the base image", base->checksums_key);
	if (r < 0)
		return r;
	*ret_signer = strdup(verified.signers.items[0]);
	if (!*ret_signer)
		return err_set(e, -ENOMEM, "out of memory");
	buf_release(text);
	*text = verified.text;
	buf_init(&verified.text, 0);
	return 0;
}

/* Find the image by its path from the list's folder, where it lies deeper, and by its name alone. */
static int find_in_list(const struct prepared *p, const char *list_url, const char *name, const char *label, const struct buf *text,
	struct checksums_entry *ret, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	int r = checksums_path_beneath(p->plan->base[p->arch].location.url, list_url, &path);

	if (r == -ENOMEM)
		return err_set(e, r, "out of memory");
	if (r == 0)
		r = checksums_find(buf_str(text), text->len, path, label, ret, e);
	if (r != -ENOENT)
		return r;
	err_clear(e);
	return checksums_find(buf_str(text), text->len, name, label, ret, e);
}

/* Find the image in the list as it came from url, after its signature was checked where that is asked for. */
static int read_list(const struct build_env *env, const struct prepared *p, const char *url, const char *name, bool verify,
	struct buf *text, struct vouch *ret, struct err *e)
{
	_cleanup_vouch_ struct vouch found = { .trust = verify ? LOCK_TRUST_SIGNATURE : LOCK_TRUST_CHECKSUMS };
	_cleanup_free_ char *shown = url_redact(url), *label = NULL;
	struct checksums_entry entry;
	int r;

	if (!shown || asprintf(&label, "the list of checksums %s", shown) < 0) {
		label = NULL;
		return err_set(e, -ENOMEM, "out of memory");
	}
	r = digest_bytes(DIGEST_SHA256, buf_str(text), text->len, &found.checksums.sha256, e);
	if (r == 0 && verify)
		r = verify_list(env, p, label, text, &found.checksums.signer, e);
	if (r == 0)
		r = find_in_list(p, url, name, label, text, &entry, e);
	if (r < 0)
		return r;
	found.sha256 = entry.sha256;
	found.sha512 = entry.sha512;
	found.checksums.url = take_ptr(shown);
	*ret = found;
	found = (struct vouch){ 0 };
	return 0;
}

/* ---- where they are -------------------------------------------------------------------------------------------------- */

/* The list that the plan names: it must be there, be signed where there is a key, and have the image. */
static int find_named(const struct build_env *env, const struct prepared *p, const char *name, struct vouch *ret, struct err *e)
{
	const struct plan_base *base = &p->plan->base[p->arch];
	_cleanup_buf_ struct buf text = BUF_INIT(CHECKSUMS_MAX_BYTES);
	_cleanup_strv_ struct strv places = { 0 };
	bool missing;
	int r = add_places(env, base->checksums_url, &places, e);

	if (r == 0)
		r = fetch_small(env, "checksums", &places, false, &text, &missing, e);
	return r < 0 ? r : read_list(env, p, base->checksums_url, name, base->checksums_key != NULL, &text, ret, e);
}

/* Whether a list that nobody promised is just not there, or is something else. */
static bool is_absent(const struct err *e)
{
	return e->code == -ENOENT || e->code == -EACCES || e->code == -EBADMSG;
}

enum look { LOOK_FOUND, LOOK_ABSENT, LOOK_UNKNOWN };

/* One list beside the image: it has the image, it does not or there is none, or the server would not say. */
static int look_beside(const struct build_env *env, const struct prepared *p, const char *url, const char *name,
	struct vouch *ret, enum look *ret_look, struct err *e)
{
	_cleanup_buf_ struct buf text = BUF_INIT(CHECKSUMS_MAX_BYTES);
	_cleanup_strv_ struct strv places = { 0 };
	struct err why = ERR_INIT;
	bool missing = false;
	int r = add_places(env, url, &places, &why);

	if (r == 0)
		r = fetch_small(env, "checksums", &places, true, &text, &missing, &why);
	if (r == 0 && !missing)
		r = read_list(env, p, url, name, false, &text, ret, &why);
	*ret_look = missing || (r < 0 && is_absent(&why)) ? LOOK_ABSENT : r == 0 ? LOOK_FOUND : LOOK_UNKNOWN;
	if (*ret_look != LOOK_UNKNOWN)
		return 0;
	if (r == -ECANCELED || r == -ENOTUNIQ || why.kind != ERR_KIND_INPUT) {
		*e = why;
		return r;
	}
	free(ret->doubt);
	ret->doubt = strdup(why.message);
	return ret->doubt ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* The lists that publishers put beside their images: those of Debian and Ubuntu, and of the Red Hat family. A server in trouble is
 * not asked for the next one. */
static int find_beside(const struct build_env *env, const struct prepared *p, const char *name, struct vouch *ret, struct err *e)
{
	static const char *const lists[] = { "SHA512SUMS", "SHA256SUMS", "CHECKSUM" };
	const char *image_url = p->plan->base[p->arch].location.url;
	size_t len = strcspn(image_url, "?#");
	enum look look = LOOK_ABSENT;
	int r = 0;

	while (len > 0 && image_url[len - 1] != '/')
		len--;
	for (size_t i = 0; r == 0 && look == LOOK_ABSENT && i < ARRAY_SIZE(lists); i++) {
		_cleanup_free_ char *url = NULL;

		if (asprintf(&url, "%.*s%s", (int)len, image_url, lists[i]) < 0) {
			url = NULL;
			return err_set(e, -ENOMEM, "out of memory");
		}
		r = look_beside(env, p, url, name, ret, &look, e);
	}
	if (r == 0 && look != LOOK_FOUND)
		ret->trust = LOCK_TRUST_FIRST_USE;
	return r;
}

int vouch_find(const struct build_env *env, const struct prepared *p, struct vouch *ret, struct err *e)
{
	const struct plan_base *base = &p->plan->base[p->arch];
	const struct plan_location *location = &base->location;
	_cleanup_free_ char *name = NULL;
	struct err no_name = ERR_INIT;
	int r;

	if (location->sha256.algorithm != DIGEST_NONE || location->sha512.algorithm != DIGEST_NONE) {
		*ret = (struct vouch){ .sha256 = location->sha256, .sha512 = location->sha512, .trust = LOCK_TRUST_PLAN };
		return 0;
	}
	r = checksums_name_of_url(location->url, &name, &no_name);
	if (r == 0 && base->checksums_url)
		return find_named(env, p, name, ret, e);
	if (r == 0 && !env->offline)
		return find_beside(env, p, name, ret, e);
	if (r < 0 && (r != -EINVAL || base->checksums_url)) {
		*e = no_name;
		return r;
	}
	ret->trust = LOCK_TRUST_FIRST_USE;
	return 0;
}

/* ---- words ------------------------------------------------------------------------------------------------------------ */

void vouch_say(struct progress *progress, enum lock_trust trust, const struct lock_checksums *checksums, const char *what,
	const char *url, const char *table, const char *lock_path, const struct digest *sha256)
{
	_cleanup_free_ char *shown = url_redact(url);
	char hex[DIGEST_HEX_SIZE];

	switch (trust) {
	case LOCK_TRUST_PLAN:
		break;
	case LOCK_TRUST_SIGNATURE:
		progress_note(progress, "the %s is the one that %s lists, which %s signed", what, checksums->url, checksums->signer);
		break;
	case LOCK_TRUST_CHECKSUMS:
		progress_note(progress, "the %s is the one that %s lists (no signature of it was checked)", what, checksums->url);
		break;
	case LOCK_TRUST_FIRST_USE:
		progress_warning(progress, "first use of the %s: nothing vouches for it but that it is what came for %s now; `%s` records its "
			"SHA-256 and holds every later build to it", what, shown ? shown : "it", lock_path);
		progress_warning(progress, "if it is the right one, pin it in the plan under [%s]: sha256 = \"%s\"", table,
			digest_hex(sha256, hex));
		break;
	}
}
