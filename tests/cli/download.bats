#!/usr/bin/env bats
# A base served on loopback by servers that misbehave. `lock` downloads what it pins, and nothing boots.

load ../helper

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	plan=$BATS_TEST_TMPDIR/p/plan.toml
	mkdir -p "$BATS_TEST_TMPDIR/p" "$BATS_TEST_TMPDIR/www"
	cp "$(fixture alpine.sh)" "$BATS_TEST_TMPDIR/www/base.qcow2"
	cp "$(fixture builtin-kernel.sh)/bzImage" "$BATS_TEST_TMPDIR/p/bzImage"
	digest=$(sha256sum <"$BATS_TEST_TMPDIR/www/base.qcow2" | cut -d' ' -f1)
	log=$BATS_TEST_TMPDIR/log
}

teardown() {
	[ -z "${faulty_in:-}" ] || exec {faulty_in}>&-
	"$TOP/tests/fixtures/nginx.sh" stop "$BATS_TEST_TMPDIR/nginx"
}

start_faulty() {
	coproc FAULTY { exec "$TOP/tests/fixtures/faulty-server" "$BATS_TEST_TMPDIR/www" "$log" 3>&-; }
	faulty_in=${FAULTY[1]}
	read -r url <&"${FAULTY[0]}"
}

start_nginx() {
	url=$("$TOP/tests/fixtures/nginx.sh" start "$BATS_TEST_TMPDIR/nginx" "$BATS_TEST_TMPDIR/www" "$@" 3>&-)
}

plan_with() { # URL [LINE]
	printf '[base.amd64]\nurl = "%s"\n%s\n[kernel.amd64]\nfile = "bzImage"\n' "$1" "${2:-}" >"$plan"
}

expect_blob() {
	[ -f "$IMGBUILD_CACHE/blobs/sha256/${digest:0:2}/$digest" ] || { find "$IMGBUILD_CACHE" -type f; return 1; }
	expect_equal "$(sha256sum <"$IMGBUILD_CACHE/blobs/sha256/${digest:0:2}/$digest" | cut -d' ' -f1)" "$digest"
}
expect_no_blob() {
	run find "$IMGBUILD_CACHE/blobs" -type f
	expect_equal "$output" ""
}

@test "a good download is pinned and stored under its digest" {
	start_nginx
	plan_with "$url/base.qcow2"
	run_imgbuild lock "$plan"
	expect_status 0
	grep -q "$digest" "${plan%.toml}.lock"
	expect_blob
	# The second time nothing is asked for.
	: >"$BATS_TEST_TMPDIR/nginx/access.log"
	run_imgbuild lock "$plan"
	expect_status 0
	refute grep -q base.qcow2 "$BATS_TEST_TMPDIR/nginx/access.log"
}

@test "every first use is said: the base's, the kernel's, a file's" {
	cp "$BATS_TEST_TMPDIR/p/bzImage" "$BATS_TEST_TMPDIR/www/bzImage"
	start_nginx
	printf '[base.amd64]\nurl = "%s/base.qcow2"\n[kernel.amd64]\nurl = "%s/bzImage"\n[files."/k"]\nurl = "%s/bzImage"\n' \
		"$url" "$url" "$url" >"$plan"
	run_imgbuild lock "$plan"
	expect_status 0
	for what in 'base image' kernel 'files:/k'; do
		expect_stderr "first use of the $what"
	done
}

@test "a connection that breaks off is taken up where it broke" {
	start_faulty
	plan_with "$url/cut-once/base.qcow2"
	run_imgbuild lock "$plan"
	expect_status 0
	expect_blob
	cat "$log"
	grep -q '/cut-once/base.qcow2 bytes=[1-9]' "$log"
}

@test "a server that ignores Range, or whose file has changed meanwhile, does not spoil the bytes" {
	start_faulty
	plan_with "$url/no-range/base.qcow2" "sha256 = \"$digest\""
	run_imgbuild lock "$plan"
	expect_status 0
	plan_with "$url/changed/base.qcow2"
	run_imgbuild lock "$plan"
	# It is all of the one or all of the other, never a mixture.
	for blob in "$IMGBUILD_CACHE"/blobs/sha256/*/*; do
		sum=$(sha256sum <"$blob" | cut -d' ' -f1)
		zeros=$(head -c "$(stat -c %s "$BATS_TEST_TMPDIR/www/base.qcow2")" /dev/zero | sha256sum | cut -d' ' -f1)
		[ "$sum" = "$digest" ] || [ "$sum" = "$zeros" ]
	done
}

@test "busy for a moment: tried again" {
	start_faulty
	plan_with "$url/busy-twice/base.qcow2"
	run_imgbuild lock "$plan"
	expect_status 0
	expect_blob
	expect_equal "$(grep -c busy-twice/base.qcow2 "$log")" 3
}

@test "404: exit 3 at once, no second try, no blob" {
	start_nginx
	plan_with "$url/none.qcow2"
	run_imgbuild lock "$plan"
	expect_status 3
	expect_stderr '404'
	expect_equal "$(grep -c none.qcow2 "$BATS_TEST_TMPDIR/nginx/access.log")" 1
	expect_no_blob
	[ ! -e "${plan%.toml}.lock" ]
}

@test "a page instead of an image, with status 200: exit 3, no blob" {
	printf 'location = /login.qcow2 { default_type text/html; return 200 "<!DOCTYPE html><html><body>Please log in</body></html>"; }\n' \
		>"$BATS_TEST_TMPDIR/snippet"
	start_nginx "$BATS_TEST_TMPDIR/snippet"
	plan_with "$url/login.qcow2"
	run_imgbuild lock "$plan"
	expect_status 3
	expect_stderr '[Hh][Tt][Mm][Ll]'
	expect_no_blob
}

@test "more bytes promised than come, or fewer: exit 3, no blob" {
	start_faulty
	plan_with "$url/claims-more/base.qcow2"
	run_imgbuild lock "$plan"
	expect_status 3
	expect_no_blob
	plan_with "$url/claims-less/base.qcow2" "sha256 = \"$digest\""
	run_imgbuild build --offline "$plan"
	run_imgbuild build "$plan"
	expect_status 3
	expect_no_blob
}

@test "other bytes than the plan's digest: exit 3, both digests, no blob" {
	start_nginx
	wrong=$(printf '%064d' 7)
	plan_with "$url/base.qcow2" "sha256 = \"$wrong\""
	run_imgbuild build "$plan"
	expect_status 3
	expect_stderr "$wrong"
	expect_stderr "$digest"
	expect_no_blob
}

@test "slow bytes are waited for" {
	printf 'location = /slow.qcow2 { limit_rate 1500k; alias %s/www/base.qcow2; }\n' "$BATS_TEST_TMPDIR" >"$BATS_TEST_TMPDIR/snippet"
	start_nginx "$BATS_TEST_TMPDIR/snippet"
	plan_with "$url/slow.qcow2"
	run_imgbuild lock "$plan"
	expect_status 0
	expect_blob
}

@test "killed while downloading: nothing but litter, and the next run succeeds" {
	printf 'location = /slow.qcow2 { limit_rate 500k; alias %s/www/base.qcow2; }\n' "$BATS_TEST_TMPDIR" >"$BATS_TEST_TMPDIR/snippet"
	start_nginx "$BATS_TEST_TMPDIR/snippet"
	plan_with "$url/slow.qcow2"
	"$IMGBUILD" --no-color lock "$plan" 3>&- &
	pid=$!
	sleep 2
	kill -9 "$pid"
	wait "$pid" || true
	expect_no_blob
	[ ! -e "${plan%.toml}.lock" ]
	plan_with "$url/base.qcow2"
	run_imgbuild lock "$plan"
	expect_status 0
	expect_blob
}

@test "no server at all, and --offline: exit 3 and the address" {
	plan_with "http://127.0.0.1:9/base.qcow2"
	run_imgbuild lock "$plan"
	expect_status 3
	expect_stderr '127\.0\.0\.1:9'
	run_imgbuild lock --offline "$plan"
	expect_status 3
	expect_stderr 'offline'
}

@test "secrets of an address are in no lock and no message" {
	start_nginx
	plan_with "${url/http:\/\//http://user:hunter2@}/base.qcow2?token=hunter2"
	run_imgbuild lock "$plan"
	expect_status 0
	refute grep -rq hunter2 "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/stderr" "$IMGBUILD_CACHE"
}

@test "a redirect to a file of this machine is not followed" {
	printf 'location = /r.qcow2 { return 302 file:///etc/passwd; }\n' >"$BATS_TEST_TMPDIR/snippet"
	start_nginx "$BATS_TEST_TMPDIR/snippet"
	plan_with "$url/r.qcow2"
	run_imgbuild lock "$plan"
	expect_status 3
	expect_no_blob
}
