#!/usr/bin/env bats
# Both architectures are locked from this host, twice, from empty caches, and the locks are the same byte for byte, whatever
# else is different: the time of day, the folder, the port of the mirror, the order.

load ../helper
load ../fixtures/archive

setup() {
	archive_new
	for arch in amd64 arm64; do
		archive_add "$(archive_deb jq $arch)" "$(archive_deb libjq1 $arch)" "$(archive_deb libonig5 $arch)"
	done
	archive_publish
	archive_base amd64
	archive_base arm64
	cp "$BATS_TEST_TMPDIR/p/base-arm64.ext4" "$archive_www/base-arm64.ext4"
	cp "$(fixture builtin-kernel.sh)/bzImage" "$archive_www/kernel"
	echo 'a file' >"$archive_www/file"
	ARCHIVE_PLAN_ARCHES='amd64 arm64' archive_plan jq </dev/null
	archive_start
	# Something from an address of each kind: a base, a kernel, a file, an input.
	sed -i "s,url = \"base-arm64.ext4\",url = \"http://files.example.org/base-arm64.ext4\",; 0,/file = \"bzImage\"/s,file = \"bzImage\",url = \"http://files.example.org/kernel\"," "$plan"
	printf '[files."/etc/file"]\nurl = "http://files.example.org/file"\n[inputs.file]\nurl = "http://files.example.org/file"\n' >>"$plan"
	lock=${plan%.toml}.lock
}

teardown() { archive_stop; }

# lock CACHE OPTION…: from that cache, through the server as it is reached now.
lock() {
	IMGBUILD_CACHE=$BATS_TEST_TMPDIR/$1 run_imgbuild lock "${archive_mirror[@]}" --mirror "http://files.example.org/=${archive_url%/debian}/" \
		"${@:2}" "$plan"
	expect_status 0
}

@test "amd64 and arm64, twice from empty caches: the same lock byte for byte" {
	lock one
	cat "$lock"
	for arch in amd64 arm64; do
		for section in base kernel packages; do
			[ "$arch $section" != 'amd64 base' ] || continue # local: nothing to lock
			[ "$arch $section" != 'arm64 kernel' ] || continue
			grep -qxF "[$arch.$section]" "$lock"
		done
		expect_equal "$(grep -cF "arch = \"$arch\"" "$lock")" 3
		grep -qF "$(sha256sum <"$(archive_deb libonig5 $arch)" | cut -d' ' -f1)" "$lock"
	done
	cp "$lock" "$BATS_TEST_TMPDIR/first"
	rm "$lock"
	# Later, elsewhere, by another server on another port, for another user.
	archive_stop
	archive_start
	mv "$BATS_TEST_TMPDIR/p" "$BATS_TEST_TMPDIR/elsewhere"
	plan=$BATS_TEST_TMPDIR/elsewhere/plan.toml
	lock=${plan%.toml}.lock
	sleep 1.1
	(umask 077 && export TZ=Pacific/Kiritimati LC_ALL=C HOME=/nonexistent && lock two)
	cmp "$BATS_TEST_TMPDIR/first" "$lock"
	# One after the other, the other one first.
	rm "$lock"
	lock three --arch arm64
	lock four --arch amd64
	cmp "$BATS_TEST_TMPDIR/first" "$lock"
	# Nothing of this machine, its time or its mirrors is in it.
	refute grep -nE "127\.0\.0\.1|$BATS_TEST_TMPDIR|$(hostname)" "$lock"
	# And once more, with the lock there, nothing changes.
	inode=$(stat -c %i "$lock")
	lock five
	expect_equal "$(stat -c %i "$lock")" "$inode"
}

@test "the optimised build writes the same lock and finds the same keys" {
	lock one
	cp "$lock" "$BATS_TEST_TMPDIR/first"
	for arch in amd64 arm64; do "$IMGBUILD" key --arch $arch "$plan"; done >"$BATS_TEST_TMPDIR/keys"
	rm "$lock"
	IMGBUILD=$TOP/build/release/imgbuild lock two
	cmp "$BATS_TEST_TMPDIR/first" "$lock"
	for arch in amd64 arm64; do "$TOP/build/release/imgbuild" key --arch $arch "$plan"; done | cmp - "$BATS_TEST_TMPDIR/keys"
	expect_equal "$(sort -u "$BATS_TEST_TMPDIR/keys" | wc -l)" 2
}
