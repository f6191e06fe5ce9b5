#!/usr/bin/env bats
# A lock builds when its servers have moved on: files are sought by their digest. Everything is served on loopback; nothing boots.

load ../helper

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	p=$BATS_TEST_TMPDIR/p plan=$BATS_TEST_TMPDIR/p/plan.toml
	www=$BATS_TEST_TMPDIR/www store=$BATS_TEST_TMPDIR/store log=$BATS_TEST_TMPDIR/nginx/access.log
	mkdir -p "$p" "$www/images" "$www/kernels" "$store/sha256"
	cp "$(fixture alpine.sh)" "$www/images/base.qcow2"
	cp "$(fixture builtin-kernel.sh)/bzImage" "$www/kernels/bzImage"
	echo 'a file of the plan' >"$www/motd"
	chmod -R u+w "$www"
	base=$(sha256sum <"$www/images/base.qcow2" | cut -d' ' -f1)
	kernel=$(sha256sum <"$www/kernels/bzImage" | cut -d' ' -f1)
	motd=$(sha256sum <"$www/motd" | cut -d' ' -f1)
}

teardown() {
	"$TOP/tests/fixtures/nginx.sh" stop "$BATS_TEST_TMPDIR/nginx"
}

start_nginx() {
	url=$("$TOP/tests/fixtures/nginx.sh" start "$BATS_TEST_TMPDIR/nginx" "$www" "$@" 3>&-)
}

# A plan whose base, kernel and one file come from ORIGIN.
plan_from() { # ORIGIN
	printf '%s\n' '[base.amd64]' "url = \"$1/images/base.qcow2\"" '[kernel.amd64]' "url = \"$1/kernels/bzImage\"" \
		'[files."/etc/motd"]' "url = \"$1/motd\"" "sha256 = \"$motd\"" >"$plan"
}

# Put files into the store of blobs, each under its digest.
into_store() { # FILE…
	local file
	for file; do cp "$file" "$store/sha256/$(sha256sum <"$file" | cut -d' ' -f1)"; done
}

forget_everything() {
	chmod -R u+w "$IMGBUILD_CACHE"
	rm -rf "$IMGBUILD_CACHE"
}

asked() { grep -F "GET $1 " "$log"; }

@test "a mirror rule is good for a base, a kernel and a file, and the lock keeps the origin" {
	start_nginx
	plan_from https://images.example.org/of
	run_imgbuild lock "$plan" --mirror "https://images.example.org/of=$url"
	expect_status 0
	grep -q 'https://images.example.org/of/images/base.qcow2' "${plan%.toml}.lock"
	refute grep -qF "$url" "${plan%.toml}.lock"
	asked /images/base.qcow2
	asked /kernels/bzImage
	# The same by the environment, on a machine that has nothing yet.
	cp "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/lock"
	forget_everything
	rm "${plan%.toml}.lock"
	IMGBUILD_MIRROR="https://images.example.org/of=$url" run_imgbuild lock "$plan"
	expect_status 0
	cmp "$BATS_TEST_TMPDIR/lock" "${plan%.toml}.lock"
}

@test "a mirror that lacks a file: the next rule, then the origin" {
	start_nginx
	plan_from "$url"
	run_imgbuild lock "$plan" --mirror "$url=$url/none" --mirror "$url=$url/neither"
	expect_status 0
	asked /none/images/base.qcow2
	asked /neither/images/base.qcow2
	asked /images/base.qcow2
}

@test "--blobs: neither http nor a folder, or with a query: exit 2, and no password in the message" {
	plan_from http://127.0.0.1:9
	run_imgbuild lock "$plan" --blobs ftp://user:hunter2@example.org/x
	expect_status 2
	expect_stderr 'ftp://example.org/x'
	refute_stderr hunter2
	run_imgbuild lock "$plan" --blobs 'https://example.org/x?token=hunter2'
	expect_status 2
	refute_stderr hunter2
}
