#!/usr/bin/env bats
# Ubuntu's partition layout: the root is not the first partition on the disk, and the kernel, modular, is the base's own, on a BOOT partition.

load ../helper

setup_file() {
	plan=$BATS_FILE_TMPDIR/plan
	mkdir -p "$plan"
	cp "$(fixture ubuntu-layout.sh)/base.qcow2" "$plan/base.qcow2"
	cat >"$plan/plan.toml" <<-'END'
		[base.amd64]
		url = "base.qcow2"
		[kernel.amd64]
		from = "base"
		[users.root]
		password = "empty"
		[setup]
		script = "uname -r >/etc/built-with"
		[image]
		size = "1G"
	END
	"$IMGBUILD" --no-color "$plan/plan.toml" >"$BATS_FILE_TMPDIR/entry" 2>"$BATS_FILE_TMPDIR/build.log" ||
		{ cat "$BATS_FILE_TMPDIR/build.log" >&2; return 1; }
}

setup() {
	entry=$(cat "$BATS_FILE_TMPDIR/entry")
	kernel=$(fixture kernel-deb.sh)/unpacked
	release=$(basename "$kernel"/lib/modules/*)
}

@test "the kernel of the BOOT partition was found and used" {
	expect_entry "$entry"
	cmp "$kernel/boot/vmlinuz-$release" "$entry/kernel"
	expect_equal "$(image_cat "$entry" /etc/built-with)" "$release"
	expect_equal "$(jq -r .kernel.release "$entry/manifest.json")" "$release"
}

@test "the root is the right partition, and its fstab has lost BOOT and UEFI" {
	image_cat "$entry" /etc/os-release | grep -q Alpine
	run image_cat "$entry" /etc/fstab
	refute grep -E '^[^#]*(BOOT|UEFI)' <<<"$output"
	expect_equal "$(jq '.fstab_dropped | length' "$entry/manifest.json")" 2
}

@test "inspect tells the partitions and the root" {
	run_imgbuild inspect "$BATS_FILE_TMPDIR/plan/base.qcow2"
	expect_status 0
	grep -q BOOT <<<"$stdout"
	run_imgbuild inspect --json "$BATS_FILE_TMPDIR/plan/base.qcow2"
	jq -e . <<<"$stdout"
}

@test "with the entry's initrd the modular kernel boots, and modprobe finds its modules" {
	run boot_entry "$entry" --shell -- 'uname -r' 'modprobe -D virtio_net && echo found' 'modprobe virtio_net && lsmod | grep -c virtio_net'
	echo "$output"
	expect_equal "$status" 0
	grep -qx "$release" <<<"$output"
	grep -qx found <<<"$output"
}

@test "extract gives the partition's bytes" {
	"$IMGBUILD" extract "$BATS_FILE_TMPDIR/plan/base.qcow2" -o "$BATS_TEST_TMPDIR/root.raw"
	qemu-img convert -O raw "$BATS_FILE_TMPDIR/plan/base.qcow2" "$BATS_TEST_TMPDIR/disk.raw"
	start=$(jq '.partitiontable.partitions[] | select(.node | endswith("1")) | .start' \
		"$(fixture ubuntu-layout.sh)/layout.json" | head -1)
	size=$(jq '.partitiontable.partitions[] | select(.node | endswith("1")) | .size' \
		"$(fixture ubuntu-layout.sh)/layout.json" | head -1)
	cmp "$BATS_TEST_TMPDIR/root.raw" <(dd if="$BATS_TEST_TMPDIR/disk.raw" bs=512 skip="$start" count="$size" status=none)
}
