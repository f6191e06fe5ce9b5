#include "builder/packages/keyring.h"
#include "builder/packages/deb822.h"
#include "builder/packages/sources.h"

#include <string.h>

enum { CRC24_INIT = 0xB704CE, CRC24_POLY = 0x1864CFB };

void apt_keyring_init(struct apt_keyring *k)
{
	*k = (struct apt_keyring){ 0 };
	buf_init(&k->packets, KEYRING_MAX_BYTES);
}

void apt_keyring_release(struct apt_keyring *k)
{
	buf_release(&k->packets);
	strv_release(&k->labels);
}

static uint32_t crc24(const void *bytes, size_t len)
{
	uint32_t crc = CRC24_INIT;

	for (const uint8_t *p = bytes; len--; p++) {
		crc ^= (uint32_t)*p << 16;
		for (int i = 0; i < 8; i++) {
			crc <<= 1;
			if (crc & 0x1000000)
				crc ^= CRC24_POLY;
		}
	}
	return crc & 0xFFFFFF;
}

static int base64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The bits of a base64 text that is fed line by line. */
struct base64 {
	uint32_t bits;
	unsigned n_bits, padding;
};

static int base64_feed(struct base64 *d, struct deb822_value line, struct buf *into)
{
	for (size_t i = 0; i < line.len; i++) {
		int v = base64_value(line.s[i]), r;

		if (line.s[i] == '=') {
			if (++d->padding > 2)
				return -EBADMSG;
			continue;
		}
		if (v < 0 || d->padding > 0)
			return -EBADMSG;
		d->bits = (d->bits << 6 | (uint32_t)v) & 0xFFFFFF;
		d->n_bits += 6;
		if (d->n_bits < 8)
			continue;
		d->n_bits -= 8;
		r = buf_append_char(into, (char)(d->bits >> d->n_bits & 0xFF));
		if (r < 0)
			return r;
	}
	return 0;
}

static bool starts_with(struct deb822_value v, const char *prefix)
{
	return v.len >= strlen(prefix) && memcmp(v.s, prefix, strlen(prefix)) == 0;
}

/* Decode one block, from behind its BEGIN line to its END line. */
static int decode_block(struct deb822_value *rest, struct buf *into, struct err *e)
{
	struct base64 data = { 0 };
	size_t start = into->len;
	struct deb822_value line;
	bool in_headers = true, has_crc = false;
	uint32_t crc = 0;

	while (deb822_line_next(rest, &line)) {
		line = deb822_trim(line);
		if (starts_with(line, "-----END PGP PUBLIC KEY BLOCK-----")) {
			if (into->len == start)
				return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "an armoured key without contents");
			if (has_crc && crc != crc24(into->data + start, into->len - start))
				return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "the armoured key's checksum does not match: "
					"it was damaged");
			return 0;
		}
		if (in_headers) {
			if (line.len == 0)
				in_headers = false;
			/* Without headers the empty line may be missing; a header has a colon, base64 has none. */
			if (line.len == 0 || memchr(line.s, ':', line.len))
				continue;
			in_headers = false;
		}
		if (line.len == 5 && line.s[0] == '=') {
			_cleanup_buf_ struct buf sum = BUF_INIT(8);
			struct base64 d = { 0 };

			line.s++;
			line.len--;
			if (base64_feed(&d, line, &sum) < 0 || sum.len != 3)
				return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "an armoured key's checksum is unreadable");
			crc = (uint32_t)(uint8_t)sum.data[0] << 16 | (uint32_t)(uint8_t)sum.data[1] << 8 | (uint8_t)sum.data[2];
			has_crc = true;
			continue;
		}
		if (line.len > 0 && has_crc)
			break;
		switch (base64_feed(&data, line, into)) {
		case 0:
			break;
		case -E2BIG:
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "keys of more than %d bytes", KEYRING_MAX_BYTES);
		case -ENOMEM:
			return err_set(e, -ENOMEM, "out of memory");
		default:
			return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "an armoured key has a line that is no base64");
		}
	}
	return err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "an armoured key without its END line");
}

int apt_armor_decode(const char *text, size_t len, struct buf *into, struct err *e)
{
	struct deb822_value rest = { text, len }, line;
	size_t blocks = 0;

	while (deb822_line_next(&rest, &line)) {
		int r;

		if (!starts_with(deb822_trim(line), "-----BEGIN PGP PUBLIC KEY BLOCK-----"))
			continue;
		r = decode_block(&rest, into, e);
		if (r < 0)
			return r;
		blocks++;
	}
	return blocks ? 0 : err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "there is no OpenPGP public key in it");
}

int apt_keyring_add(struct apt_keyring *k, const void *bytes, size_t len, const char *label, struct progress *progress,
	struct err *e)
{
	char hex[DIGEST_HEX_SIZE];
	size_t before = k->packets.len;
	struct digest d;
	int r;

	if (len == 0)
		return 0;
	if (len > 32 && memcmp((const char *)bytes + 8, "KBXf", 4) == 0) {
		progress_note(progress, "the keys in `%s` are left out: it is a keybox, which apt does not take either", label);
		return 0;
	}
	/* Every OpenPGP packet begins with a byte whose top bit is set; armour is ASCII. */
	if (*(const uint8_t *)bytes & 0x80)
		r = buf_append(&k->packets, bytes, len);
	else
		r = apt_armor_decode(bytes, len, &k->packets, e);
	if (r == -E2BIG)
		r = err_set_kind(e, ERR_KIND_INPUT, -EBADMSG, "keys of more than %d bytes", KEYRING_MAX_BYTES);
	if (r == -ENOMEM)
		r = err_set(e, -ENOMEM, "out of memory");
	if (r == 0)
		r = digest_bytes(DIGEST_SHA256, bytes, len, &d, e);
	if (r < 0) {
		k->packets.len = before;
		return err_wrap(e, "reading the keys in `%s`", label);
	}
	return strv_addf(&k->labels, "%s  %s", digest_hex(&d, hex), label) < 0 ? err_set(e, -ENOMEM, "out of memory") : 0;
}

int apt_keyring_add_file(struct apt_keyring *k, const struct pkg_host_fs *fs, const char *path,
	struct progress *progress, struct err *e)
{
	_cleanup_buf_ struct buf bytes = BUF_INIT(KEYRING_MAX_BYTES);
	int r = fs->read_file(fs->ctx, path, &bytes, e);

	if (r < 0)
		return r;
	return apt_keyring_add(k, buf_str(&bytes), bytes.len, path, progress, e);
}

static bool is_key_name(const char *name)
{
	const char *dot = strrchr(name, '.');

	return apt_part_name_valid(name) && dot && (strcmp(dot, ".gpg") == 0 || strcmp(dot, ".asc") == 0);
}

/* A file that is no keyring, or a link that leads nowhere, adds no key; apt only warns of it, too. */
static int add_if_usable(struct apt_keyring *k, const struct pkg_host_fs *fs, const char *path, struct progress *progress,
	struct err *e)
{
	int r = apt_keyring_add_file(k, fs, path, progress, e);

	if (r != -ENOENT && r != -EBADMSG)
		return r;
	if (r == -EBADMSG)
		progress_warning(progress, "left out: %s", e->message);
	err_clear(e);
	return 0;
}

int apt_keyring_add_trusted(struct apt_keyring *k, const struct pkg_host_fs *fs, struct progress *progress, struct err *e)
{
	static const char dir[] = "/etc/apt/trusted.gpg.d";
	_cleanup_strv_ struct strv names = { 0 };
	int r = add_if_usable(k, fs, "/etc/apt/trusted.gpg", progress, e);

	if (r < 0)
		return r;
	r = fs->list_dir(fs->ctx, dir, &names, e);
	if (r == -ENOENT) {
		err_clear(e);
		return 0;
	}
	if (r < 0)
		return err_wrap(e, "listing `%s`", dir);
	strv_sort(&names);
	for (size_t i = 0; i < names.n; i++) {
		_cleanup_free_ char *path = NULL;

		if (!is_key_name(names.items[i]))
			continue;
		if (asprintf(&path, "%s/%s", dir, names.items[i]) < 0) {
			path = NULL;
			return err_set(e, -ENOMEM, "out of memory");
		}
		r = add_if_usable(k, fs, path, progress, e);
		if (r < 0)
			return r;
	}
	return 0;
}
