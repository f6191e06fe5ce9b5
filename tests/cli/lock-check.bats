#!/usr/bin/env bats
# `lock --check` says precisely what the plan asks and the lock does not answer; it needs no network and writes nothing.

load ../helper

setup() {
	plan=$BATS_TEST_TMPDIR/plan/plan.toml
	mkdir "$BATS_TEST_TMPDIR/plan"
	cat >"$plan" <<-'END'
		[base.amd64]
		url = "https://example.org/file"
		[base.arm64]
		url = "base.img"
		[kernel.amd64]
		package = "linux-image-amd64"
		[kernel.arm64]
		file = "bzImage"
		[packages]
		one = ["podman", "crun"]
		[packages.arm64]
		two = ["grub-efi-arm64"]
		[files."/etc/x"]
		url = "https://example.org/file"
	END
	echo base >"$BATS_TEST_TMPDIR/plan/base.img"
	echo kernel >"$BATS_TEST_TMPDIR/plan/bzImage"
	"$TOP/build/debug/tests/lock-filled" "$plan" amd64 5
	"$TOP/build/debug/tests/lock-filled" "$plan" arm64 5
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
}

check() { # STATUS: and nothing may have been written
	local before after
	before=$(find "$BATS_TEST_TMPDIR/plan" -printf '%p %i %s %T@ %C@\n' | sort)
	run_imgbuild lock --check "${@:2}" "$plan"
	after=$(find "$BATS_TEST_TMPDIR/plan" -printf '%p %i %s %T@ %C@\n' | sort)
	expect_status "$1" && expect_equal "$after" "$before" && expect_equal "$stdout" "" || return 1
	[ ! -e "$IMGBUILD_CACHE" ] || { echo "it wrote into the cache"; return 1; }
}

@test "a lock that answers is silent" {
	check 0
	expect_equal "$stderr" ""
	check 0 --arch arm64
}

@test "names that are asked for and those that are no longer are named, for each architecture" {
	sed -i 's/"crun"/"fuse3"/; s/"grub-efi-arm64"/"u-boot"/' "$plan"
	check 2
	expect_stderr '^imgbuild: warning: amd64: packages: the plan asks for "fuse3", which the lock does not answer; the plan no longer asks for "crun"$'
	expect_stderr 'arm64: packages: the plan asks for "fuse3", "u-boot", which the lock does not answer; the plan no longer asks for "crun", "grub-efi-arm64"$'
	expect_stderr 'error: the lock does not answer .*plan.toml.: run .imgbuild lock'
	check 2 --arch amd64
	refute_stderr 'arm64'
}

@test "as JSON" {
	run_imgbuild lock --check --json "$plan"
	expect_status 0
	expect_equal "$stdout" "[]"
	sed -i 's/"crun"/"fuse3"/' "$plan"
	run_imgbuild lock --check --json --arch amd64 "$plan"
	expect_status 2
	expect_equal "$(jq -c . <<<"$stdout")" \
		'[{"arch":"amd64","reason":"packages: the plan asks for \"fuse3\", which the lock does not answer; the plan no longer asks for \"crun\""}]'
}

@test "every section that is stale is named, with why" {
	sed -i 's/linux-image-amd64/linux-image-cloud-amd64/; s,^\[files,[apt]\nrecommends = true\n&,' "$plan"
	sed -i '$s,example.org/file,example.org/other,' "$plan"
	check 2
	expect_stderr 'amd64: kernel: the plan asks for "linux-image-cloud-amd64"'
	expect_stderr 'amd64: packages: what they are chosen from has changed: .*recommends'
	expect_stderr 'amd64: files:/etc/x: the plan names https://example.org/other, the lock has https://example.org/file$'
	refute_stderr 'amd64: base'
	expect_stderr 'arm64: packages: what they are chosen from'
	refute_stderr 'arm64: kernel'
}

@test "another base leaves the kernel and the packages open, too" {
	sed -i '0,/example.org.file/s,example.org/file,u:secret@example.org/next?token=secret,' "$plan"
	check 2 --arch amd64
	expect_stderr 'amd64: base: the plan names https://example.org/next\?\.\.\., the lock has https://example.org/file$'
	expect_stderr 'amd64: kernel: it depends on the base image, which the lock does not answer$'
	expect_stderr 'amd64: packages: it depends on the base image, which the lock does not answer$'
	refute_stderr 'secret'
}

@test "without a lock everything is open" {
	rm "${plan%.toml}.lock"
	check 2
	expect_stderr 'amd64: base: the lock has no answer'
	expect_stderr 'arm64: packages: the plan asks for "crun", "grub-efi-arm64", "podman", which the lock does not answer$'
}

@test "a build with --locked and key say the same" {
	sed -i 's/"crun"/"fuse3"/' "$plan"
	run_imgbuild key --arch amd64 "$plan"
	expect_status 2
	expect_stderr 'the plan asks for "fuse3", which the lock does not answer; the plan no longer asks for "crun"'
	run_imgbuild --locked --arch arm64 "$plan"
	expect_status 2
	expect_stderr 'plan.lock. must answer, since --locked forbids to change it, but .*the plan asks for "fuse3", which the lock does not answer'
}

@test "a plan that is wrong and an architecture that it does not have are its own errors" {
	sed -i '/arm64/,+1d' "$plan"
	check 2 --arch arm64
	expect_stderr 'describes no image for arm64'
	sed -i 's/^url/uri/' "$plan"
	check 2
	expect_stderr 'plan.toml:2:1: .*unknown key .uri.'
}

@test "a lock of the version before says what to do" {
	sed -i 's/^version = 2/version = 1/' "${plan%.toml}.lock"
	check 2
	expect_stderr 'plan.lock:3:11: found version 1, expected 2: an older imgbuild wrote it; remove the file, and .imgbuild lock PLAN. writes it anew'
}
