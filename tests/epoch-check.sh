#!/bin/sh
# Hold the epoch against the sources that decide an image's bytes: tests/epoch-check.sh [--bless [--same-bytes]]
#
# tests/golden/epoch.txt has the epoch and a digest over those sources. When they changed and plan/epoch.h did not, this
# fails: either the same plan now gives other bytes, then bump IMGBUILD_EPOCH and --bless; or it does not (a comment, an
# error message), then --bless --same-bytes says so, in a commit whose body tells how that was seen.
set -eu
cd "$(dirname "$0")/.."
golden=tests/golden/epoch.txt

# What goes into the guest, what runs there, and what writes the image afterwards.
sources() {
	for f in initrd/protocol.h initrd/*.c initrd/*.h initrd/init/*.c initrd/init/*.h builder/assemble.c builder/fstab.c \
		builder/ext4/canonical*.c builder/ext4/write*.c; do
		[ ! -f "$f" ] || echo "$f"
	done | LC_ALL=C sort -u
}

epoch=$(sed -n 's/^#define IMGBUILD_EPOCH \([0-9][0-9]*\)$/\1/p' plan/epoch.h)
[ -n "$epoch" ] || {
	echo "epoch-check: plan/epoch.h defines no IMGBUILD_EPOCH" >&2
	exit 1
}
# The names are part of it: a file that is moved or added counts.
digest=$(sources | while read -r f; do sha256sum "$f"; done | sha256sum | cut -d ' ' -f 1)
now="$epoch $digest"
old=$(cat "$golden" 2>/dev/null || true)

if [ "$now" = "$old" ]; then
	echo "epoch $epoch: the sources are those it was given for"
	exit 0
fi
if [ "${1:-}" = --bless ]; then
	if [ -n "$old" ] && [ "${old%% *}" = "$epoch" ] && [ "${2:-}" != --same-bytes ]; then
		echo "epoch-check: the epoch is still $epoch: bump it in plan/epoch.h, or say --same-bytes" >&2
		exit 1
	fi
	mkdir -p "${golden%/*}"
	echo "$now" >"$golden"
	echo "epoch $epoch: blessed"
	exit 0
fi
if [ -z "$old" ]; then
	echo "epoch-check: $golden is missing: make it with tests/epoch-check.sh --bless" >&2
elif [ "${old%% *}" = "$epoch" ]; then
	echo "epoch-check: sources that decide an image's bytes changed and IMGBUILD_EPOCH ($epoch) did not" >&2
	echo "  other bytes: bump it in plan/epoch.h, then tests/epoch-check.sh --bless" >&2
	echo "  same bytes:  tests/epoch-check.sh --bless --same-bytes" >&2
else
	echo "epoch-check: the epoch is $epoch now, $golden knows ${old%% *}: run tests/epoch-check.sh --bless" >&2
fi
exit 1
