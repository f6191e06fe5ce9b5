#!/usr/bin/env bats
# A year later: the servers are gone, and all that is left is the plan, its lock and the blobs. One build to get there and one from the blobs
# alone, on the Debian base with the all-in-one kernel.

load ../helper

setup_file() {
	plan=$BATS_FILE_TMPDIR/plan
	mkdir -p "$plan" "$BATS_FILE_TMPDIR/www"
	cp --reflink=auto "$(fixture debian-base.sh)/base.qcow2" "$BATS_FILE_TMPDIR/www/base.qcow2"
	cp "$(fixture builtin-kernel.sh)/bzImage" "$BATS_FILE_TMPDIR/www/bzImage"
	echo 'from afar' >"$BATS_FILE_TMPDIR/www/motd"
	url=$("$TOP/tests/fixtures/nginx.sh" start "$BATS_FILE_TMPDIR/nginx" "$BATS_FILE_TMPDIR/www" 3>&-)
	cat >"$plan/plan.toml" <<-END
		[base.amd64]
		url = "$url/base.qcow2"
		[kernel.amd64]
		url = "$url/bzImage"
		[packages]
		some = ["jq", "tree"]
		[files."/etc/motd"]
		url = "$url/motd"
		[image]
		size = "4G"
	END
	find_mirrors
	build "${mirror_options[@]}" || { tail -50 "$BATS_FILE_TMPDIR/build.log" >&2; failed=yes; }
	"$TOP/tests/fixtures/nginx.sh" stop "$BATS_FILE_TMPDIR/nginx"
	[ -z "${failed:-}" ]
	rm -rf "$BATS_FILE_TMPDIR/www"
	entry=$(cat "$BATS_FILE_TMPDIR/entry")
	mkdir "$BATS_FILE_TMPDIR/first"
	cp "$entry/manifest.json" "$plan/plan.lock" "$BATS_FILE_TMPDIR/first/"
	dpkg_status "$entry" >"$BATS_FILE_TMPDIR/first/status"
	only_blobs
}

build() {
	"$IMGBUILD" --no-color "$@" "$BATS_FILE_TMPDIR/plan/plan.toml" >"$BATS_FILE_TMPDIR/entry" 2>"$BATS_FILE_TMPDIR/build.log"
}

dpkg_status() { image_cat "$1" /var/lib/dpkg/status; }

only_blobs() {
	chmod -R u+w "$IMGBUILD_CACHE"
	find "$IMGBUILD_CACHE" -mindepth 1 -maxdepth 1 ! -name blobs -exec rm -rf {} +
	[ "$(ls -A "$IMGBUILD_CACHE")" = blobs ]
}

@test "from the blobs alone, with nothing contacted: the same key, the same packages" {
	first=$BATS_FILE_TMPDIR/first
	calls=$BATS_TEST_TMPDIR/calls
	# seccomp-bpf: QEMU does not stop at each system call. A leak checker cannot do its work beside strace.
	ASAN_OPTIONS=detect_leaks=0 strace -f -qq --seccomp-bpf -e trace=socket,connect,sendto,sendmsg,sendmmsg -o "$calls" \
		"$IMGBUILD" --no-color build --offline --locked "$BATS_FILE_TMPDIR/plan/plan.toml" \
		>"$BATS_FILE_TMPDIR/entry" 2>"$BATS_FILE_TMPDIR/build.log" || { tail -50 "$BATS_FILE_TMPDIR/build.log"; false; }
	entry=$(cat "$BATS_FILE_TMPDIR/entry")
	run grep -E 'AF_INET|AF_NETLINK.*ROUTE|connect\(' "$calls"
	echo "$output"
	expect_equal "$output" ""
	expect_equal "$(basename "$entry")" "$(jq -r .key "$first/manifest.json")"
	expect_entry "$entry"
	dpkg_status "$entry" >"$BATS_TEST_TMPDIR/status"
	[ "$(grep -c '^Package: ' "$BATS_TEST_TMPDIR/status")" -gt 100 ]
	grep -qx 'Package: jq' "$BATS_TEST_TMPDIR/status"
	diff "$first/status" "$BATS_TEST_TMPDIR/status"
	diff <(jq -S .installed "$first/manifest.json") <(jq -S .installed "$entry/manifest.json")
	cmp "$BATS_FILE_TMPDIR/plan/plan.lock" "$first/plan.lock"
	expect_equal "$(image_cat "$entry" /etc/motd)" 'from afar'
}

@test "from vendored files and an empty cache, as far as the boot: everything is at hand" {
	run_imgbuild vendor --offline --locked "$BATS_FILE_TMPDIR/plan/plan.toml" -o "$BATS_TEST_TMPDIR/blobs"
	expect_status 0
	(cd "$BATS_TEST_TMPDIR/blobs" && sha256sum -c --quiet SHA256SUMS)
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	PATH_FOR_IMGBUILD=/nonexistent run_imgbuild build --offline --locked --blobs "$BATS_TEST_TMPDIR/blobs" "$BATS_FILE_TMPDIR/plan/plan.toml"
	# All was fetched and packed; the one thing that this machine lacks is QEMU.
	expect_status 4
	expect_stderr qemu-system
	rm -rf "$BATS_TEST_TMPDIR/blobs"
}
