#!/usr/bin/env bats
# The main job: Debian packages on a base in the shape of the cloud images, with Debian's own modular kernel, as an ordinary user. The plan is
# the demo's recipe. One cold build under TCG; everything else looks at its result.

load ../helper

setup_file() {
	plan=$BATS_FILE_TMPDIR/plan
	mkdir -p "$plan"
	cp --reflink=auto "$(fixture debian-base.sh)/base.qcow2" "$plan/base.qcow2"
	cp "$TOP/recipes/debian-demo.toml" "$plan/plan.toml"
	find_mirrors
	"$IMGBUILD" --no-color "${mirror_options[@]}" "$plan/plan.toml" >"$BATS_FILE_TMPDIR/entry" 2>"$BATS_FILE_TMPDIR/build.log" ||
		{ tail -50 "$BATS_FILE_TMPDIR/build.log" >&2; return 1; }
}

setup() {
	plan=$BATS_FILE_TMPDIR/plan
	entry=$(cat "$BATS_FILE_TMPDIR/entry")
}

wanted="podman crun fuse-overlayfs skopeo uidmap fuse3 haveged chrony rsync nfs-common iptables strace netcat-openbsd"

@test "the entry is whole and clean" {
	expect_entry "$entry"
}

@test "the hit needs neither network nor mirror" {
	run_imgbuild --offline "$plan/plan.toml"
	expect_status 0
	expect_equal "$stdout" "$entry"
}

@test "the lock pins every package by digest" {
	[ -s "$plan/plan.lock" ]
	for package in $wanted; do
		grep -q "$package" "$plan/plan.lock" || { echo "$package is not in the lock"; return 1; }
	done
	expect_equal "$(jq '[.installed[] | select(.sha256 | test("^[0-9a-f]{64}$") | not)] | length' "$entry/manifest.json")" 0
}

@test "what was asked for is installed, what conflicts or was unwanted is gone" {
	for package in $wanted; do
		jq -e --arg p "$package" '.packages[] | select(.name == $p)' "$entry/manifest.json" >/dev/null ||
			{ echo "$package is not installed"; return 1; }
	done
	for package in systemd-timesyncd cloud-init unattended-upgrades; do
		refute jq -e --arg p "$package" '.packages[] | select(.name == $p)' "$entry/manifest.json" || return 1
		jq -e --arg p "$package" '.removed | index($p)' "$entry/manifest.json" >/dev/null || return 1
	done
}

@test "nothing came from backports" {
	refute grep -E '~bpo' <<<"$(jq -r '.installed[].version' "$entry/manifest.json")"
}

@test "services are enabled and disabled as asked" {
	image_stat "$entry" /etc/systemd/system/multi-user.target.wants/systemd-networkd.service | grep -q Inode
	run image_stat "$entry" /etc/systemd/system/multi-user.target.wants/ssh.service
	refute grep -q Inode <<<"$output"
	image_stat "$entry" /etc/systemd/system/systemd-networkd-wait-online.service | grep -q '/dev/null'
}

@test "fstab has only the root, neutral" {
	run image_cat "$entry" /etc/fstab
	echo "$output"
	refute grep -E '^[^#]*(/boot/efi|LABEL=BOOT|PARTUUID)' <<<"$output"
	expect_equal "$(jq '.fstab_dropped | length' "$entry/manifest.json")" 2
}

@test "no initramfs was built, nothing asked, identity is not baked in" {
	run debugfs -R 'ls -p /boot' "$entry/rootfs.ext4"
	refute grep -q 'initrd.img' <<<"$output"
	expect_equal "$(image_cat "$entry" /etc/machine-id | tr -d '\n' | sed 's/^uninitialized$//')" ""
	run image_stat "$entry" /usr/sbin/policy-rc.d
	refute grep -q Inode <<<"$output"
}

@test "inside: dpkg is content and agrees with the manifest" {
	run boot_entry "$entry" --shell -- 'dpkg --audit' "dpkg-query -W -f '\${db:Status-Abbrev} \${Package} \${Version} \${Architecture}\n'" \
		'modprobe -n virtio_net && echo modules-found'
	echo "$output" | tail -5
	expect_equal "$status" 0
	grep -qx modules-found <<<"$output"
	grep '^ii ' <<<"$output" | sed 's/^ii *//' | sort >"$BATS_TEST_TMPDIR/inside"
	jq -r '.packages[] | "\(.name) \(.version) \(.arch)"' "$entry/manifest.json" | sort >"$BATS_TEST_TMPDIR/manifest"
	diff "$BATS_TEST_TMPDIR/inside" "$BATS_TEST_TMPDIR/manifest"
	[ "$(wc -l <"$BATS_TEST_TMPDIR/inside")" -gt 200 ]
}

@test "inside: it boots to a login, everything runs, no mount failed" {
	run boot_entry "$entry" -- 'cat /etc/os-release' 'systemctl is-system-running --wait' 'systemctl --failed --no-legend --no-pager' \
		'cat /etc/demo-versions' 'id tester' 'hostname' 'lsmod | grep -c ^virtio'
	echo "$output"
	grep -q 'VERSION_CODENAME=bookworm' <<<"$output"
	grep -qx running <<<"$output"
	grep -q '^crun version' <<<"$output"
	grep -qx demo <<<"$output"
	expect_equal "$status" 0
}
