#!/bin/sh
# Fetch Debian's cloud kernel for the tests that boot, once, into the folder given:
#   tests/vm/kernel.sh DIR      leaves DIR/vmlinuz and DIR/modules/*.ko
# By apt from whatever mirror the machine has, since its signature chain is apt's; no root is needed.
set -eu
dir=${1:?usage: kernel.sh DIR}
[ -e "$dir/complete" ] && exit 0
mkdir -p "$dir"
tmp=$(mktemp -d "$dir/.tmp.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
meta=linux-image-cloud-amd64
package=$(apt-cache depends "$meta" | sed -n 's/^  Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$package" ] || { echo "kernel.sh: apt knows no $meta; apt-get update?" >&2; exit 1; }
(cd "$tmp" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2)
dpkg-deb -x "$tmp"/*.deb "$tmp/x"
mkdir -p "$dir/modules"
cp "$tmp"/x/boot/vmlinuz-* "$dir/vmlinuz"
find "$tmp/x" -name 'virtio*.ko*' -exec cp {} "$dir/modules/" \;
chmod 644 "$dir/vmlinuz"
: >"$dir/complete"
