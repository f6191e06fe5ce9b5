# shellcheck shell=bash
# What the .bats files share: `load ../helper` (or source it).
#
# Each file has a folder of its own, $BATS_FILE_TMPDIR, with a cache in it; each test has $BATS_TEST_TMPDIR for its plan. run_imgbuild
# runs the program under test with that cache and leaves $status, $stdout, $stderr.

TOP=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
export TOP LC_ALL=C.UTF-8 PATH="$PATH:/usr/sbin:/sbin"
export IMGBUILD=${IMGBUILD:-$TOP/build/debug/imgbuild}
export IMGBUILD_TEST_DATA=${IMGBUILD_TEST_DATA:-$TOP/../shared/data}
export IMGBUILD_CACHE=${E2E_CACHE:-$BATS_FILE_TMPDIR/cache}
export no_proxy='*' NO_PROXY='*'

unset IMGBUILD_MIRROR IMGBUILD_BLOBS

fixture() { "$TOP/tests/fixtures/$1" "${@:2}" 2>/dev/null; }

# Run the program, with $PATH_FOR_IMGBUILD where that is set; its exit status, stdout and stderr are left in variables and shown when the test fails.
run_imgbuild() {
	status=0
	PATH=${PATH_FOR_IMGBUILD:-$PATH} "$IMGBUILD" --no-color "$@" >"$BATS_TEST_TMPDIR/stdout" 2>"$BATS_TEST_TMPDIR/stderr" || status=$?
	stdout=$(cat "$BATS_TEST_TMPDIR/stdout")
	stderr=$(cat "$BATS_TEST_TMPDIR/stderr")
	printf '%s\n' "+ imgbuild $*" "status $status" "stdout: $stdout" "stderr: $stderr"
	export status stdout stderr
}

# The last line must be true for a test to pass, so say what is expected in words that fail with a reason.
expect_status() {
	[ "$status" = "$1" ] || { echo "expected exit status $1, got $status"; return 1; }
}
expect_stderr() { # the extended regular expression is found in stderr
	grep -qE -- "$1" "$BATS_TEST_TMPDIR/stderr" || { echo "stderr has nothing like: $1"; return 1; }
}
# A command must fail. (`! command` fails no test unless it stands last.)
refute() {
	if "$@"; then echo "should not have succeeded: $*"; return 1; fi
}
refute_stderr() {
	if grep -E -- "$1" "$BATS_TEST_TMPDIR/stderr"; then echo "stderr should not have: $1"; return 1; fi
}
expect_equal() {
	[ "$1" = "$2" ] || { printf 'expected: %s\ngot:      %s\n' "$2" "$1"; return 1; }
}

# Give a blob of the cache other bytes of the same size; $bad is their digest.
damage_blob() { # FILE
	chmod u+w "$1"
	printf 'not these' | dd of="$1" bs=1 seek=100 conv=notrunc status=none
	bad=$(sha256sum <"$1" | cut -d' ' -f1)
	export bad
}

# Nothing finished may be visible after a failure.
expect_no_entry() {
	local found
	found=$(find "$IMGBUILD_CACHE/images" -mindepth 1 -maxdepth 1 2>/dev/null || true)
	[ -z "$found" ] || { echo "there is an entry: $found"; return 1; }
}

# An entry as DESIGN has it, its image clean to e2fsck.
expect_entry() {
	local entry=$1 file
	for file in manifest.json rootfs.ext4 kernel initrd plan.toml plan.lock key.txt console.log events.jsonl; do
		[ -s "$entry/$file" ] || { echo "$entry/$file is missing or empty"; return 1; }
		expect_equal "$file $(stat -c %a "$entry/$file")" "$file 444" || return 1
	done
	jq -e . "$entry/manifest.json" >/dev/null || return 1
	jq -es . "$entry/events.jsonl" >/dev/null || return 1
	e2fsck -fn "$entry/rootfs.ext4" || { echo "e2fsck is not content"; return 1; }
	expect_equal "$(basename "$entry")" "$(jq -r .key "$entry/manifest.json")"
}

# A file of an image, read by debugfs.
image_cat() { debugfs -R "cat \"$2\"" "$1/rootfs.ext4" 2>/dev/null; }
image_stat() { debugfs -R "stat \"$2\"" "$1/rootfs.ext4" 2>/dev/null; }

# Boot an entry (tests/boot: an overlay, never the file itself) and run commands in it.
boot_entry() { # ENTRY OPTION… -- COMMAND…
	local entry=$1 options=()
	shift
	while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
	[ $# = 0 ] || shift
	"$TOP/tests/boot" --quiet --timeout 240 --initrd "$entry/initrd" "${options[@]}" "$entry/rootfs.ext4" "$entry/kernel" "$@"
}

# Where the packages of the Debian base come from: this host's own mirrors where it is a Debian, else those that the base was made from.
# Sets the array mirror_options.
find_mirrors() {
	local base
	# shellcheck disable=SC2034  # the .bats files use it
	mirror_options=(--mirror host)
	# shellcheck disable=SC2016  # apt's placeholder
	if ! apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -qE '/debian/?$'; then
		base=$(fixture debian-base.sh)
		# shellcheck disable=SC2034
		mirror_options=(--mirror "http://mirror.example.org/debian=$(sed -n 1p "$base/mirrors")"
			--mirror "http://mirror.example.org/debian-security=$(sed -n 2p "$base/mirrors")")
	fi
}

# The plan of the quick builds: Alpine, the all-in-one kernel, and what stdin says.
alpine_plan() { # FOLDER [DISK]
	mkdir -p "$1"
	cp "$(fixture builtin-kernel.sh)/bzImage" "$1/bzImage"
	cp "${2:-$(fixture alpine.sh zlib)}" "$1/base.qcow2"
	chmod u+w "$1"/*
	{
		printf 'name = "quick"\n[base.amd64]\nurl = "base.qcow2"\n[kernel.amd64]\nfile = "bzImage"\n'
		cat
	} >"$1/plan.toml"
}

# The processes of this test run that are a program of that name, by their numbers. Another run on this machine has another HOME.
pids_of() {
	local pid
	for pid in $(pgrep -u "$(id -u)" -x "$1"); do
		grep -qzFx "HOME=$HOME" "/proc/$pid/environ" 2>/dev/null && echo "$pid"
	done
	true
}
