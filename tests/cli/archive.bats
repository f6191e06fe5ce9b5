#!/usr/bin/env bats
# What happens to packages when the archive they come from moves on, breaks, or lies: an archive of our own, made of real
# Debian packages and signed with a throw-away key, served on loopback. Nothing boots.

load ../helper
load ../fixtures/archive

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	archive_new
	archive_add "$(archive_deb jq)" "$(archive_deb libjq1)" "$(archive_deb libonig5)" "$(archive_deb hello)"
}

teardown() { archive_stop; }

# Everything published, served and asked for: what a test changes comes after this.
ready() {
	archive_publish
	archive_base
	archive_plan "$@" </dev/null
	archive_start
}

lock() { run_imgbuild lock "${archive_mirror[@]}" "$plan"; }

@test "a signed archive: what is asked for is locked with what it needs, and who vouched for it" {
	ready jq
	lock
	expect_status 0
	for name in jq libjq1 libonig5; do
		grep -qE "name = \"$name\".*uri = \"$archive_uri\".*suite = \"bookworm\"" "${plan%.toml}.lock"
	done
	refute grep -q '"hello"' "${plan%.toml}.lock"
	grep -q "$(sha256sum <"$archive_root/$(archive_pool_file jq)" | cut -d' ' -f1)" "${plan%.toml}.lock"
}
