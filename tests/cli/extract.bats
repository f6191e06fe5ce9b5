#!/usr/bin/env bats
# `extract` and `inspect` against qemu-img and sfdisk: the bytes must be the same for every kind of image that qemu-img makes.

load ../helper

setup_file() {
	qemu-img convert -O raw "$(fixture alpine.sh)" "$BATS_FILE_TMPDIR/disk.raw"
	sfdisk --json "$BATS_FILE_TMPDIR/disk.raw" >"$BATS_FILE_TMPDIR/layout.json"
	start=$(jq '.partitiontable.partitions[0].start' "$BATS_FILE_TMPDIR/layout.json")
	size=$(jq '.partitiontable.partitions[0].size' "$BATS_FILE_TMPDIR/layout.json")
	dd if="$BATS_FILE_TMPDIR/disk.raw" of="$BATS_FILE_TMPDIR/root.raw" bs=512 skip="$start" count="$size" conv=sparse status=none
}

same_root() { # IMAGE
	rm -f "$BATS_TEST_TMPDIR/out"
	"$IMGBUILD" --no-color extract "$1" -o "$BATS_TEST_TMPDIR/out" || return 1
	cmp "$BATS_TEST_TMPDIR/out" "$BATS_FILE_TMPDIR/root.raw" || { echo "extract of $1 gives other bytes"; return 1; }
}

@test "the ready-made disks, zlib and zstd" {
	same_root "$(fixture alpine.sh zlib)"
	same_root "$(fixture alpine.sh zstd)"
}

@test "every cluster size, with and without compression" {
	for cluster in 512 4k 64k 512k 2M; do
		for compress in '' -c; do
			# shellcheck disable=SC2086  # the option or nothing
			qemu-img convert $compress -O qcow2 -o cluster_size=$cluster "$BATS_FILE_TMPDIR/disk.raw" "$BATS_TEST_TMPDIR/d.qcow2"
			same_root "$BATS_TEST_TMPDIR/d.qcow2"
		done
	done
}

@test "versions and options of the format" {
	for options in compat=0.10 compat=1.1,lazy_refcounts=on compat=1.1,extended_l2=on,cluster_size=64k compat=1.1,refcount_bits=64 \
		compression_type=zstd,cluster_size=16k preallocation=metadata; do
		qemu-img convert -O qcow2 -o "$options" "$BATS_FILE_TMPDIR/disk.raw" "$BATS_TEST_TMPDIR/d.qcow2"
		same_root "$BATS_TEST_TMPDIR/d.qcow2"
	done
}

@test "raw, and raw packed as distributions ship it" {
	same_root "$BATS_FILE_TMPDIR/disk.raw"
	cp --sparse=always "$BATS_FILE_TMPDIR/disk.raw" "$BATS_TEST_TMPDIR/disk.raw"
	(cd "$BATS_TEST_TMPDIR" && xz -1 -k disk.raw && gzip -1 -k disk.raw && zstd -q -1 disk.raw && tar -cJf disk.tar.xz disk.raw)
	for packed in disk.raw.xz disk.raw.gz disk.raw.zst disk.tar.xz; do
		same_root "$BATS_TEST_TMPDIR/$packed"
	done
}

@test "a backing file, an empty disk, a damaged one: refused, nothing written" {
	for file in cdi-cirros-snapshot1 cdi-invalid-large-json vman-empty; do
		run_imgbuild extract "$IMGBUILD_TEST_DATA/qcow2/$file.qcow2" -o "$BATS_TEST_TMPDIR/none"
		expect_status 3
		[ ! -e "$BATS_TEST_TMPDIR/none" ]
		expect_stderr "$file"
	done
}

@test "OUT is never overwritten" {
	echo mine >"$BATS_TEST_TMPDIR/out"
	run_imgbuild extract "$(fixture alpine.sh)" -o "$BATS_TEST_TMPDIR/out"
	[ "$status" != 0 ]
	expect_equal "$(cat "$BATS_TEST_TMPDIR/out")" mine
}

@test "OUT appears whole or not at all: no room for it" {
	mkdir "$BATS_TEST_TMPDIR/room"
	status=0
	(ulimit -f 70000 && "$IMGBUILD" extract "$(fixture alpine.sh)" -o "$BATS_TEST_TMPDIR/room/out" 2>"$BATS_TEST_TMPDIR/full") || status=$?
	expect_equal "$status" 0
	rm "$BATS_TEST_TMPDIR/room/out"
	(ulimit -f 30000 && "$IMGBUILD" extract "$(fixture alpine.sh)" -o "$BATS_TEST_TMPDIR/room/out" 2>"$BATS_TEST_TMPDIR/full") || status=$?
	cat "$BATS_TEST_TMPDIR/full"
	expect_equal "$status" 4
	expect_equal "$(ls -A "$BATS_TEST_TMPDIR/room")" ""
}

@test "inspect agrees with sfdisk" {
	run_imgbuild inspect --json "$(fixture alpine.sh)"
	expect_status 0
	jq . <<<"$stdout"
	for value in $(jq -r '.partitiontable.partitions[] | .uuid | ascii_downcase' "$BATS_FILE_TMPDIR/layout.json"); do
		grep -qi "$value" <<<"$stdout" || { echo "$value is not told"; return 1; }
	done
	grep -qi alpine <<<"$stdout"
}
