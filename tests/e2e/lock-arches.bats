#!/usr/bin/env bats
# amd64 and arm64 locked from this host against Debian's real metadata, twice from empty caches: the same lock byte for byte.

load ../helper
load ../fixtures/archive

setup_file() {
	find_mirrors
	printf '%s\n' "${mirror_options[@]}" >"$BATS_FILE_TMPDIR/mirrors"
}

teardown() { archive_stop; }

@test "amd64 and arm64 with Debian 12's packages, twice from empty caches: the same lock" {
	mapfile -t mirror_options <"$BATS_FILE_TMPDIR/mirrors"
	archive_new
	for arch in amd64 arm64; do
		# The names that the Debian base of the tests knows its archives by.
		archive_base $arch 'deb http://mirror.example.org/debian bookworm main' 'deb http://mirror.example.org/debian bookworm-updates main' \
			'deb http://mirror.example.org/debian-security bookworm-security main'
		cp /usr/share/keyrings/debian-archive-keyring.gpg "$archive_dir/base-$arch/etc/apt/trusted.gpg.d/"
		archive_base_pack $arch
	done
	cp "$(fixture builtin-kernel.sh)/bzImage" "$BATS_TEST_TMPDIR/p/bzImage"
	cat >"$plan" <<-'END'
		[base.amd64]
		url = "base-amd64.ext4"
		[base.arm64]
		url = "base-arm64.ext4"
		[kernel.amd64]
		file = "bzImage"
		[kernel.arm64]
		package = "linux-image-cloud-arm64"
		[packages]
		asked = ["podman", "crun", "chrony", "nfs-common"]
	END
	for time in first second; do
		IMGBUILD_CACHE=$BATS_TEST_TMPDIR/$time run_imgbuild lock "${mirror_options[@]}" "$plan"
		expect_status 0
		mv "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/$time.lock"
	done
	cmp "$BATS_TEST_TMPDIR/first.lock" "$BATS_TEST_TMPDIR/second.lock"
	for arch in amd64 arm64; do
		[ "$(grep -c "arch = \"$arch\"" "$BATS_TEST_TMPDIR/first.lock")" -gt 40 ]
		grep -qE "name = \"podman\", version = \"[^\"]+\", arch = \"$arch\"" "$BATS_TEST_TMPDIR/first.lock"
	done
	grep -q 'linux-image-[0-9].*-cloud-arm64' "$BATS_TEST_TMPDIR/first.lock"
}
