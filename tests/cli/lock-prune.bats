#!/usr/bin/env bats
# What the plan no longer asks leaves the lock with the next `imgbuild lock`, and shows in its difference.

load ../helper

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	cat >plan.toml <<-'END'
		[base.amd64]
		url = "https://example.org/file"
		[base.arm64]
		url = "base.img"
		[kernel.amd64]
		file = "bzImage"
		[kernel.arm64]
		file = "bzImage"
		[packages]
		one = ["podman"]
		[files."/etc/x"]
		url = "https://example.org/file"
	END
	echo base >base.img
	echo kernel >bzImage
	"$TOP/build/debug/tests/lock-filled" plan.toml amd64 3
	"$TOP/build/debug/tests/lock-filled" plan.toml arm64 3
}

sections() { grep '^\[' plan.lock | tr '\n' ' '; }

@test "a lock that answers is not touched" {
	before=$(stat -c '%i %Z' plan.lock)
	run_imgbuild lock --offline plan.toml
	expect_status 0
	expect_equal "$(stat -c '%i %Z' plan.lock)" "$before"
}

@test "files and packages that left the plan leave the lock" {
	sed -i '/^\[files/,$d' plan.toml
	run_imgbuild lock --offline plan.toml
	expect_status 0
	expect_equal "$(sections)" "[amd64.base] [amd64.packages] [arm64.packages] "
	sed -i '/^one/d' plan.toml
	run_imgbuild lock --offline plan.toml
	expect_status 0
	expect_equal "$(sections)" "[amd64.base] "
}

@test "an architecture that left the plan leaves the lock, even when only the other is locked" {
	sed -i '/^\[base.arm64\]/,+1d; /^\[kernel.arm64\]/,+1d' plan.toml
	run_imgbuild lock --offline --arch amd64 plan.toml
	expect_status 0
	expect_equal "$(sections)" "[amd64.base] [amd64.packages] [[amd64.sources]] "
}

@test "a build and --check leave the lock alone" {
	sed -i '/^\[files/,$d' plan.toml
	before=$(sha256sum plan.lock)
	run_imgbuild lock --check plan.toml
	expect_status 0
	run_imgbuild key plan.toml
	expect_status 0
	expect_equal "$(sha256sum plan.lock)" "$before"
}
