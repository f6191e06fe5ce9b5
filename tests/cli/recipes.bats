#!/usr/bin/env bats
# The plans that we ship have no fault.

load ../helper

@test "every recipe and the plan at the top are read without a fault" {
	for recipe in "$TOP"/recipes/*.toml "$TOP"/rootfs-plan.toml; do
		cp "$recipe" "$BATS_TEST_TMPDIR/plan.toml"
		chmod u+w "$BATS_TEST_TMPDIR/plan.toml"
		for arch in amd64 arm64; do
			run_imgbuild key --arch "$arch" "$BATS_TEST_TMPDIR/plan.toml"
			refute_stderr 'plan\.toml:[0-9]+:[0-9]+: '
		done
	done
}

@test "the plan of the README is one" {
	sed -n '/^```toml/,/^```/p' "$TOP/README.md" | grep -v '^```' | sed 's/^sha512.*//' >"$BATS_TEST_TMPDIR/plan.toml"
	run_imgbuild key "$BATS_TEST_TMPDIR/plan.toml"
	refute_stderr 'plan\.toml:[0-9]+:[0-9]+: '
	expect_stderr 'imgbuild lock'
}
