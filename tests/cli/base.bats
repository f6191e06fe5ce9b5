#!/usr/bin/env bats
# What stands behind a base image without a digest in the plan: a publisher's list, its signature, or a first use that is said. The
# image is served on loopback; `lock` downloads and pins, nothing boots, and any bytes will do.

load ../helper

setup_file() {
	export GNUPGHOME=$BATS_FILE_TMPDIR/gnupg
	mkdir -m 700 "$GNUPGHOME"
	for name in publisher stranger; do
		gpg --batch --quiet --passphrase '' --quick-gen-key "$name" ed25519 sign never 3>&-
		gpg --batch --armor --export "$name" >"$BATS_FILE_TMPDIR/$name.asc"
	done
}

teardown_file() { gpgconf --kill all; }

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	www=$BATS_TEST_TMPDIR/www
	plan=$BATS_TEST_TMPDIR/p/plan.toml
	lock=${plan%.toml}.lock
	access=$BATS_TEST_TMPDIR/nginx/access.log
	mkdir -p "$BATS_TEST_TMPDIR/p/keys" "$www/current"
	cp "$BATS_FILE_TMPDIR"/*.asc "$BATS_TEST_TMPDIR/p/keys"
	echo kernel >"$BATS_TEST_TMPDIR/p/bzImage"
	new_image one
	fingerprint=$(gpg --batch --with-colons --list-keys publisher | awk -F: '/^fpr/ { print $10; exit }')
}

teardown() {
	"$TOP/tests/fixtures/nginx.sh" stop "$BATS_TEST_TMPDIR/nginx"
	[ -z "${TURNING_PID:-}" ] || kill "$TURNING_PID"
}

new_image() { # WORDS: what the server has under current/base.qcow2 from now on
	printf '%s\n' "$*" >"$www/current/base.qcow2"
	sha256=$(sha256sum <"$www/current/base.qcow2" | cut -d' ' -f1)
	sha512=$(sha512sum <"$www/current/base.qcow2" | cut -d' ' -f1)
}
list() { # 256|512 [OPTION]: as publishers make them
	(cd "$www/current" && "sha$1sum" ${2:+"$2"} base.qcow2 >"SHA$1SUMS")
}
start_nginx() {
	url=$("$TOP/tests/fixtures/nginx.sh" start "$BATS_TEST_TMPDIR/nginx" "$www" "$@" 3>&-)
}
start_none() { url=http://127.0.0.1:9; }
plan_with() { # [LINE…]: of [base.amd64]
	{
		printf '[base.amd64]\nurl = "%s/current/base.qcow2"\n' "$url"
		[ $# = 0 ] || printf '%s\n' "$@"
		printf '[kernel.amd64]\nfile = "bzImage"\n'
	} >"$plan"
}
sign() { gpg --batch --quiet --yes -u "$@" 3>&-; }
forget_requests() { : >"$access"; }
expect_locked() { # WORD…: on a line of the lock each
	local word
	for word in "$@"; do
		grep -qF -- "$word" "$lock" || { echo "the lock has no $word:"; cat "$lock"; return 1; }
	done
}
expect_refused() { # nothing is recorded, and nothing of it is kept
	expect_status 3
	[ ! -e "$lock" ] || { cat "$lock"; return 1; }
	run find "$IMGBUILD_CACHE/blobs" -type f
	expect_equal "$output" ""
}

@test "first use: said so that nobody misses it, recorded, with the line that pins it; then never again" {
	start_nginx
	plan_with
	run_imgbuild --quiet lock "$plan"
	expect_status 0
	expect_stderr "warning: first use of the base image: nothing vouches for it but that it is what came for $url/current/base.qcow2"
	expect_stderr "\`$lock\` records"
	expect_stderr "under \[base\.amd64\]: sha256 = \"$sha256\""
	expect_locked 'trust = "first-use"' "$sha256" "$sha512"
	run_imgbuild lock "$plan"
	expect_status 0
	refute_stderr 'first use'
	# The line that was said is one that the plan takes, and leaves nothing to be said.
	plan_with "$(grep -o 'sha256 = "[0-9a-f]*"' "$BATS_TEST_TMPDIR/stderr" || echo "sha256 = \"$sha256\"")"
	rm "$lock"
	run_imgbuild lock "$plan"
	expect_status 0
	refute_stderr 'first use|warning'
}

@test "a first use is said by a build and by an unlocked key, too; --locked makes none" {
	start_nginx
	plan_with
	run_imgbuild build --locked "$plan"
	expect_status 2
	refute grep -q base.qcow2 "$access"
	[ ! -e "$lock" ]
	run_imgbuild build "$plan"
	expect_stderr 'warning: first use of the base image'
}

@test "a list beside the image is found and must have the image as it is" {
	start_nginx
	plan_with
	for algorithm in 512 256; do
		rm -rf "$IMGBUILD_CACHE" "$lock" "$www"/current/SHA*
		list $algorithm
		run_imgbuild lock "$plan"
		expect_status 0
		refute_stderr 'first use'
		expect_stderr "the one that $url/current/SHA${algorithm}SUMS lists"
		expect_locked 'trust = "checksums"' "$sha256" "$url/current/SHA${algorithm}SUMS" \
			"$(sha256sum <"$www/current/SHA${algorithm}SUMS" | cut -d' ' -f1)"
	done
	rm -rf "$IMGBUILD_CACHE" "$lock" "$www"/current/SHA*
	(cd "$www/current" && printf '# base.qcow2: 4 bytes\r\nSHA256 (base.qcow2) = %s\r\n' "$sha256" >CHECKSUM)
	run_imgbuild lock "$plan"
	expect_status 0
	expect_locked 'trust = "checksums"' "$url/current/CHECKSUM"
}

@test "another image than its list says: exit 3, both digests, both addresses, nothing kept" {
	start_nginx
	plan_with
	for algorithm in 512 256; do
		rm -f "$www"/current/SHA*
		new_image one
		list $algorithm
		listed=$([ $algorithm = 512 ] && echo "$sha512" || echo "$sha256")
		new_image tampered
		run_imgbuild lock "$plan"
		expect_refused
		expect_stderr "$listed"
		expect_stderr "$([ $algorithm = 512 ] && echo "$sha512" || echo "$sha256")"
		expect_stderr "$url/current/base.qcow2"
		expect_stderr "$url/current/SHA${algorithm}SUMS"
	done
}

@test "a list that contradicts itself is refused; one without the image, or that is none, is no list" {
	start_nginx
	plan_with
	printf '%s  base.qcow2\n%064d *base.qcow2\n' "$sha256" 7 >"$www/current/SHA256SUMS"
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr 'two digests'
	for text in "$(printf '%064d  other.qcow2' 7)" '<html>nothing here</html>' ''; do
		rm -rf "$lock" "$IMGBUILD_CACHE"
		printf '%s\n' "$text" >"$www/current/SHA256SUMS"
		run_imgbuild lock "$plan"
		expect_status 0
		expect_stderr 'first use of the base image'
		expect_locked 'trust = "first-use"'
	done
}

@test "a server that forbids, or does not answer for, lists that nobody promised" {
	printf 'location ~ SUMS$ { return 403; }\nlocation ~ CHECKSUM$ { return 500; }\n' >"$BATS_TEST_TMPDIR/snippet"
	start_nginx "$BATS_TEST_TMPDIR/snippet"
	plan_with
	run_imgbuild lock "$plan"
	expect_status 0
	expect_stderr 'warning: cannot tell whether the publisher lists checksums: .*500'
	expect_stderr 'first use of the base image'
}

@test "a server that is not there is said once" {
	start_none
	plan_with
	run_imgbuild lock "$plan"
	expect_refused
	refute_stderr 'warning'
	expect_stderr 'error: the base image: .*127\.0\.0\.1:9'
}

@test "a list that is too large is none, and an error where the plan names it" {
	start_nginx
	{ printf '%s  base.qcow2\n' "$sha256"; yes | head -c $((4 << 20)); } >"$www/current/SHA256SUMS"
	plan_with
	run_imgbuild lock "$plan"
	expect_status 0
	expect_stderr 'warning: cannot tell whether the publisher lists checksums'
	expect_stderr 'first use'
	rm -rf "$lock" "$IMGBUILD_CACHE"
	plan_with "checksums = \"$url/current/SHA256SUMS\""
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr 'SHA256SUMS.*the limit is'
}

@test "a list that the plan names must be there and have the image" {
	start_nginx
	plan_with "checksums = \"$url/lists/SUMS\""
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr "$url/lists/SUMS"
	mkdir "$www/lists"
	printf '%064d  other.qcow2\n' 7 >"$www/lists/SUMS"
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr "$url/lists/SUMS does not list .base.qcow2., but 1 other"
	refute grep -q 'current/base.qcow2' "$access"
	# A list of a whole tree has its paths.
	(cd "$www" && sha256sum current/base.qcow2 >SUMS)
	plan_with "checksums = \"$url/SUMS\""
	run_imgbuild lock "$plan"
	expect_status 0
	expect_locked 'trust = "checksums"' "$url/SUMS"
	rm "$lock"
	plan_with "checksums = \"$url/lists/SUMS\""
	(cd "$www/current" && sha512sum --tag base.qcow2 >../lists/SUMS)
	run_imgbuild lock "$plan"
	expect_status 0
	expect_locked 'trust = "checksums"' "$url/lists/SUMS"
	new_image two
	rm "$lock"
	rm -rf "$IMGBUILD_CACHE"
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr "$sha512"
	expect_stderr "$url/current/base.qcow2"
	expect_stderr "$url/lists/SUMS"
}

@test "a signed list: detached under the usual names or a given one, or clear-signed" {
	start_nginx
	list 512
	for suffix in gpg sign; do
		rm -rf "$lock" "$IMGBUILD_CACHE" "$www"/current/SHA512SUMS.*
		sign publisher --detach-sign --output "$www/current/SHA512SUMS.$suffix" "$www/current/SHA512SUMS"
		plan_with "checksums = \"$url/current/SHA512SUMS\"" 'checksums_key = "keys/publisher.asc"'
		run_imgbuild lock "$plan"
		expect_status 0
		expect_stderr "which $fingerprint signed"
		expect_locked 'trust = "signature"' "$fingerprint" "$url/current/SHA512SUMS"
	done
	rm -rf "$lock" "$IMGBUILD_CACHE" "$www"/current/SHA512SUMS.*
	sign publisher --armor --detach-sign --output "$www/s.asc" "$www/current/SHA512SUMS"
	plan_with "checksums = \"$url/current/SHA512SUMS\"" 'checksums_key = "keys/publisher.asc"' "checksums_signature = \"$url/s.asc\""
	run_imgbuild lock "$plan"
	expect_status 0
	expect_locked 'trust = "signature"' "$fingerprint"
	rm -rf "$lock" "$IMGBUILD_CACHE"
	(cd "$www/current" && sha256sum --tag base.qcow2 | sign publisher --clearsign --output CHECKSUM)
	plan_with "checksums = \"$url/current/CHECKSUM\"" 'checksums_key = "keys/publisher.asc"'
	run_imgbuild lock "$plan"
	expect_status 0
	expect_locked 'trust = "signature"' "$fingerprint"
}

@test "no good signature by the plan's key: exit 3, and not even the image is asked for" {
	start_nginx
	list 512
	plan_with "checksums = \"$url/current/SHA512SUMS\"" 'checksums_key = "keys/publisher.asc"'
	# none
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr 'SHA512SUMS\.gpg'
	expect_stderr 'SHA512SUMS\.sign'
	# by another key
	sign stranger --detach-sign --output "$www/current/SHA512SUMS.sign" "$www/current/SHA512SUMS"
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr 'keys/publisher\.asc.*no good signature'
	# of another text
	sign publisher --detach-sign --output "$www/current/SHA512SUMS.sign" "$www/current/SHA512SUMS"
	printf '\n' >>"$www/current/SHA512SUMS"
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr 'signature .* is bad'
	# nobody here who could tell
	PATH_FOR_IMGBUILD=/nowhere run_imgbuild lock "$plan"
	expect_status 4
	expect_stderr gpgv
	[ ! -e "$lock" ]
	# no signature at all
	echo nothing >"$www/current/SHA512SUMS.sign"
	run_imgbuild lock "$plan"
	expect_refused
	refute grep -q 'base.qcow2' "$access"
}

@test "where sqv stands for gpgv: detached signatures, and no others" {
	start_nginx
	list 512
	mkdir "$BATS_TEST_TMPDIR/bin"
	ln -s "$(command -v sqv)" "$BATS_TEST_TMPDIR/bin"
	sign publisher --detach-sign --output "$www/current/SHA512SUMS.sign" "$www/current/SHA512SUMS"
	plan_with "checksums = \"$url/current/SHA512SUMS\"" 'checksums_key = "keys/publisher.asc"'
	PATH_FOR_IMGBUILD=$BATS_TEST_TMPDIR/bin run_imgbuild lock "$plan"
	expect_status 0
	expect_locked 'trust = "signature"' "signer = \"$fingerprint\""
	run_imgbuild lock --check "$plan"
	expect_status 0
	plan_with "checksums = \"$url/current/SHA512SUMS\"" 'checksums_key = "keys/stranger.asc"'
	PATH_FOR_IMGBUILD=$BATS_TEST_TMPDIR/bin run_imgbuild lock "$plan"
	expect_status 3
	(cd "$www/current" && sha256sum base.qcow2 | sign publisher --clearsign >CHECKSUM)
	plan_with "checksums = \"$url/current/CHECKSUM\"" 'checksums_key = "keys/publisher.asc"'
	PATH_FOR_IMGBUILD=$BATS_TEST_TMPDIR/bin run_imgbuild lock "$plan"
	expect_status 4
	expect_stderr gpgv
}

@test "offline: what is not here is named, and no first use is made" {
	start_nginx
	plan_with
	run_imgbuild lock --offline "$plan"
	expect_refused
	expect_stderr 'offline'
	plan_with "checksums = \"$url/current/SHA512SUMS\""
	run_imgbuild lock --offline "$plan"
	expect_refused
	expect_stderr "SHA512SUMS.*offline|offline.*SHA512SUMS"
	expect_equal "$(wc -l <"$access")" 0
}

expect_key() { # KEY [LINE…]: the key of the plan with these lines, after its lock was made
	local key=$1
	shift
	plan_with "$@"
	run_imgbuild lock "$plan"
	expect_status 0
	expect_equal "$("$IMGBUILD" key --locked "$plan")" "$key"
}

@test "who vouches is no part of the key" {
	start_nginx
	plan_with
	run_imgbuild lock "$plan"
	key=$("$IMGBUILD" key --locked "$plan")
	list 512
	sign publisher --detach-sign --output "$www/current/SHA512SUMS.sign" "$www/current/SHA512SUMS"
	expect_key "$key" "sha256 = \"$sha256\""
	expect_key "$key" "sha512 = \"$sha512\""
	expect_key "$key" "checksums = \"$url/current/SHA512SUMS\""
	expect_key "$key" "checksums = \"$url/current/SHA512SUMS\"" 'checksums_key = "keys/publisher.asc"'
	expect_locked 'trust = "signature"'
}

@test "of a clear-signed list nothing counts but what was signed" {
	start_nginx
	plan_with "checksums = \"$url/current/CHECKSUM\"" 'checksums_key = "keys/publisher.asc"'
	printf '%064d  other.qcow2\n' 7 | sign publisher --clearsign --output "$BATS_TEST_TMPDIR/signed"
	for where in before after; do
		{
			[ $where = after ] || printf -- '-----BEGIN PGP SIGNED MESSAGE-----\n%s  base.qcow2\n' "$sha256"
			cat "$BATS_TEST_TMPDIR/signed"
			[ $where = before ] || printf '%s  base.qcow2\n' "$sha256"
		} >"$www/current/CHECKSUM"
		run_imgbuild lock "$plan"
		expect_refused
	done
	# changed within
	sed 's/other\.qcow2/base.qcow2/' "$BATS_TEST_TMPDIR/signed" >"$www/current/CHECKSUM"
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr 'is bad'
	# by another key
	(cd "$www/current" && sha256sum base.qcow2 | sign stranger --clearsign >CHECKSUM)
	run_imgbuild lock "$plan"
	expect_refused
	expect_stderr 'no good signature'
}

@test "an image that the store has already is not fetched again, listed by SHA-256 or by SHA-512" {
	start_nginx
	plan_with
	for algorithm in 256 512; do
		rm -f "$www"/current/SHA*
		list $algorithm
		run_imgbuild lock "$plan"
		expect_status 0
		forget_requests
		rm "$lock"
		run_imgbuild lock "$plan"
		expect_status 0
		expect_locked "$sha256"
		refute grep -q 'current/base.qcow2' "$access"
		expect_equal "$(grep -c ' 200 ' "$access")" 1
	done
}

@test "an image that the lock knows by its SHA-256 alone is recognised in a list of SHA-512" {
	start_nginx
	plan_with
	run_imgbuild lock "$plan"
	expect_status 0
	# The store knows a blob by its SHA-512 from having been asked for it; the cache of another machine may not.
	rm -rf "$IMGBUILD_CACHE/blobs/sha512"
	list 512
	plan_with "checksums = \"$url/current/SHA512SUMS\""
	forget_requests
	run_imgbuild lock "$plan"
	expect_status 0
	expect_locked "$sha256" 'trust = "checksums"'
	refute grep -q 'current/base.qcow2' "$access"
	new_image two
	list 512
	rm -rf "$IMGBUILD_CACHE/blobs/sha512"
	plan_with
	run_imgbuild lock "$plan"
	expect_status 0
	expect_locked "$sha256"
}

@test "a moved image under a lock is never taken: exit 3 with both digests" {
	start_nginx
	plan_with
	list 512
	run_imgbuild lock "$plan"
	expect_status 0
	old=$sha256
	cp "$lock" "$BATS_TEST_TMPDIR/lock"
	new_image two
	list 512
	rm -rf "$IMGBUILD_CACHE"
	for options in --locked ''; do
		# shellcheck disable=SC2086  # none or one
		run_imgbuild build $options "$plan"
		expect_status 3
		expect_stderr "$old"
		expect_stderr "$sha256"
		expect_equal "$(find "$IMGBUILD_CACHE/blobs" -type f | wc -l)" 0
		cmp "$lock" "$BATS_TEST_TMPDIR/lock"
	done
}

# Serve $www, with the file `old` as the first answer for SHA512SUMS.
start_turning() {
	coproc TURNING { exec python3 -u -c '
import http.server, os, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    lists = 0
    def do_GET(self):
        if self.path.endswith("SHA512SUMS"):
            Handler.lists += 1
            self.path = "/old" if Handler.lists == 1 else self.path
        super().do_GET()
    def log_message(self, *words): pass
os.chdir(sys.argv[1])
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print("http://127.0.0.1:%d" % server.server_port)
server.serve_forever()' "$www" 3>&-; }
	read -r url <&"${TURNING[0]}"
}

@test "lock --update base moves it, and one that has not moved costs one small request" {
	start_nginx
	plan_with
	list 512
	run_imgbuild lock "$plan"
	expect_status 0
	old=$sha256 key=$("$IMGBUILD" key --locked "$plan")
	for what in base ''; do
		# The cache of another machine may not know the blob by its SHA-512.
		rm -rf "$IMGBUILD_CACHE/blobs/sha512"
		forget_requests
		# shellcheck disable=SC2086  # one name or none
		run_imgbuild lock --update "$plan" $what
		expect_status 0
		refute grep -q 'current/base.qcow2' "$access"
		expect_equal "$(grep -c 'GET' "$access")" 1
		expect_equal "$(cat "$BATS_TEST_TMPDIR/stdout")" ""
	done
	new_image two
	list 512
	run_imgbuild lock --update "$plan" base
	expect_status 0
	grep -qE "^amd64 base ${old:0:4}.* -> ${sha256:0:4}" "$BATS_TEST_TMPDIR/stdout"
	expect_locked "$sha256" 'trust = "checksums"'
	refute grep -q "$old" "$lock"
	refute [ "$("$IMGBUILD" key --locked "$plan")" = "$key" ]
	# An update that does not come to a good end leaves the lock as it was.
	cp "$lock" "$BATS_TEST_TMPDIR/lock"
	new_image three
	list 512
	new_image tampered
	run_imgbuild lock --update "$plan" base
	expect_status 3
	cmp "$lock" "$BATS_TEST_TMPDIR/lock"
}

@test "image and list that the publisher is just replacing: looked at twice" {
	list 512
	mv "$www/current/SHA512SUMS" "$www/old"
	new_image two
	list 512
	start_turning
	plan_with
	run_imgbuild lock "$plan"
	expect_status 0
	expect_stderr 'has changed meanwhile'
	expect_locked "$sha256" 'trust = "checksums"'
}

@test "where redirects led is kept as a hint, without secrets" {
	printf 'location = /current/base.qcow2 { return 302 /dated/base.qcow2; }\n' >"$BATS_TEST_TMPDIR/snippet"
	mkdir "$www/dated"
	mv "$www/current/base.qcow2" "$www/dated"
	start_nginx "$BATS_TEST_TMPDIR/snippet"
	plan_with
	run_imgbuild lock "$plan"
	expect_status 0
	expect_locked "resolved = \"$url/dated/base.qcow2\""
	# It stays while the image does, which a list tells without fetching it.
	mv "$www/dated/base.qcow2" "$www/current"
	list 512
	mv "$www/current/base.qcow2" "$www/dated"
	run_imgbuild lock --update "$plan" base
	expect_status 0
	expect_locked "resolved = \"$url/dated/base.qcow2\"" 'trust = "checksums"'
	rm -rf "$lock" "$IMGBUILD_CACHE"
	run_imgbuild --mirror "$url/current=$url/dated" lock "$plan"
	expect_status 0
	refute grep -q resolved "$lock"
}

@test "where redirects led is kept for kernels and files, too" {
	cat >"$BATS_TEST_TMPDIR/snippet" <<-'END'
		location /latest/ {
			if (-f $document_root/gone) { return 404; }
			rewrite ^/latest/(.*) /dated/$1 redirect;
		}
	END
	mkdir "$www/dated"
	cp "$(fixture builtin-kernel.sh)/bzImage" "$www/dated"
	echo hello >"$www/dated/motd"
	start_nginx "$BATS_TEST_TMPDIR/snippet"
	printf '[base.amd64]\nurl = "%s/current/base.qcow2"\n[kernel.amd64]\nurl = "%s/latest/bzImage"\n[files."/etc/motd"]\nurl = "%s/latest/motd"\n' \
		"$url" "$url" "$url" >"$plan"
	run_imgbuild lock "$plan"
	expect_status 0
	expect_locked "resolved = \"$url/dated/bzImage\"" "resolved = \"$url/dated/motd\""
	# That is where they are when the address that moves has them no more.
	touch "$www/gone"
	rm -rf "$IMGBUILD_CACHE"
	run_imgbuild vendor "$plan" -o "$BATS_TEST_TMPDIR/blobs"
	expect_status 0
	[ -s "$BATS_TEST_TMPDIR/blobs/sha256/$(sha256sum <"$www/dated/bzImage" | cut -d' ' -f1)" ]
}

@test "a digest in the plan: nothing is looked for; a wrong one is exit 3 with both" {
	start_nginx
	list 512
	for line in "sha256 = \"$sha256\"" "sha512 = \"$sha512\""; do
		rm -rf "$lock" "$IMGBUILD_CACHE"
		plan_with "$line"
		forget_requests
		run_imgbuild lock "$plan"
		expect_status 0
		refute grep -qE 'SUMS|CHECKSUM' "$access"
		refute_stderr 'first use'
	done
	expect_locked 'trust = "plan"' "$sha512" "$sha256"
	wrong=$(printf '%0128d' 7)
	rm -rf "$lock" "$IMGBUILD_CACHE"
	plan_with "sha512 = \"$wrong\""
	run_imgbuild build "$plan"
	expect_refused
	expect_stderr "$wrong"
	expect_stderr "$sha512"
}

@test "a local image with a SHA-512 is held to it at every step" {
	cp "$www/current/base.qcow2" "$BATS_TEST_TMPDIR/p"
	printf '[base.amd64]\nurl = "base.qcow2"\nsha512 = "%s"\n[kernel.amd64]\nfile = "bzImage"\n' "$sha512" >"$plan"
	run_imgbuild key "$plan"
	expect_status 0
	echo tampered >"$BATS_TEST_TMPDIR/p/base.qcow2"
	for verb in key lock build; do
		run_imgbuild $verb "$plan"
		expect_status 3
		expect_stderr "$sha512"
		expect_stderr "$(sha512sum <"$BATS_TEST_TMPDIR/p/base.qcow2" | cut -d' ' -f1)"
	done
}

@test "secrets in addresses are in no lock and no message" {
	start_nginx
	list 256
	url=${url/http:\/\//http://user:hunter2@}
	plan_with
	run_imgbuild lock "$plan"
	expect_status 0
	refute grep -rq hunter2 "$lock" "$BATS_TEST_TMPDIR/stderr" "$IMGBUILD_CACHE"
	rm -rf "$lock" "$IMGBUILD_CACHE" "$www"/current/SHA256SUMS
	plan_with "checksums = \"$url/none?token=hunter2\""
	run_imgbuild lock "$plan"
	expect_refused
	refute grep -rq hunter2 "$BATS_TEST_TMPDIR/stderr" "$IMGBUILD_CACHE"
	plan_with
	new_image three
	run_imgbuild lock "$plan"
	expect_status 0
	expect_stderr 'first use'
	refute grep -rq hunter2 "$lock" "$BATS_TEST_TMPDIR/stderr" "$IMGBUILD_CACHE"
}

@test "show says what stood behind the base of an entry" {
	key=$(printf '%064d' 7)
	mkdir -p "$IMGBUILD_CACHE/images/$key"
	while IFS='|' read -r base words; do
		printf '{"version": 1, "arch": "amd64", "base": %s}' "$base" >"$IMGBUILD_CACHE/images/$key/manifest.json"
		run_imgbuild show "$key"
		expect_status 0
		grep -xF "  vouched for by $words" "$BATS_TEST_TMPDIR/stdout"
	done <<-'END'
		{"trust": "plan"}|the plan's digest
		{"trust": "local"}|nobody: a local file
		{"trust": "first-use"}|nobody: first use, pinned by the lock
		{"trust": "checksums", "checksums": {"url": "http://x.org/SUMS"}}|http://x.org/SUMS, unsigned
		{"trust": "signature", "checksums": {"url": "http://x.org/SUMS", "signer": "ABCD"}}|http://x.org/SUMS, signed by ABCD
	END
	printf '{"version": 1, "arch": "amd64", "base": {}}' >"$IMGBUILD_CACHE/images/$key/manifest.json"
	run_imgbuild show "$key"
	expect_status 0
	refute grep -q 'vouched' "$BATS_TEST_TMPDIR/stdout"
}
