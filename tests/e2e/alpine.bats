#!/usr/bin/env bats
# Whole builds on the smallest base there is: Alpine, no package manager of ours, an all-in-one kernel.

load ../helper

plan=$BATS_FILE_TMPDIR/plan

# The passing build that most tests here look at, and its entry.
build_once() {
	mkdir -p "$BATS_FILE_TMPDIR"
	alpine_plan "$plan" <<-'END'
		[files."/etc/motd"]
		content = "hello from the plan\n"
		mode = "0640"
		owner = "root:adm"
		[files."/opt/tree"]
		source = "tree"
		[inputs.words]
		source = "words.txt"
		[users.root]
		password = "empty"
		authorized_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEFAKE test"]
		[setup]
		script = """
		#!/bin/sh
		set -eu
		cat /imgbuild/inputs/words >/etc/words
		id -u >/etc/setup-ran-as
		ls /sys/class/net >/etc/setup-nets
		ls /dev >/etc/setup-dev
		mkdir -p /var/junk/a/b
		"""
		[cleanup]
		remove_dirs = ["/var/junk/*"]
		[image]
		size = "256M"
		hostname = "quick"
	END
	mkdir -p "$plan/tree/sub"
	echo one >"$plan/tree/one"
	echo two >"$plan/tree/sub/two"
	ln -sf one "$plan/tree/link"
	echo 'some words' >"$plan/words.txt"
}

setup_file() {
	plan=$BATS_FILE_TMPDIR/plan
	build_once
	"$IMGBUILD" --no-color "$plan/plan.toml" >"$BATS_FILE_TMPDIR/entry" 2>"$BATS_FILE_TMPDIR/build.log" ||
		{ cat "$BATS_FILE_TMPDIR/build.log" >&2; return 1; }
}

setup() {
	entry=$(cat "$BATS_FILE_TMPDIR/entry")
}

@test "the build prints the entry's path and nothing else, and the entry is whole" {
	expect_equal "$(wc -l <"$BATS_FILE_TMPDIR/entry")" 1
	expect_entry "$entry"
}

@test "the entry keeps what went in: the bytes that its key is the digest of, the script, small texts" {
	expect_equal "$(sha256sum <"$entry/key.txt" | cut -d' ' -f1)" "$(basename "$entry")"
	expect_equal "$(sed 1d "$entry/key.txt")" "$("$IMGBUILD" key --json "$plan/plan.toml")"
	grep -q 'cat /imgbuild/inputs/words' "$entry/setup"
	expect_equal "$(sha256sum <"$entry/setup" | cut -d' ' -f1)" "$(jq -r .inputs.setup "$entry/manifest.json")"
	# the tree's listing is kept; what only the setup script sees is not
	tree=$(jq -r '.inputs.files[] | select(.path == "/opt/tree").tree' "$entry/manifest.json")
	expect_equal "$(ls "$entry/texts")" "$tree"
	expect_equal "$(sha256sum <"$entry/texts/$tree" | cut -d' ' -f1)" "$tree"
	refute grep -rq 'some words' "$entry/texts" "$entry/setup" "$entry/key.txt"
	for file in kernel plan.toml plan.lock key.txt setup; do
		expect_equal "$(jq -r --arg f "$file" '.files[$f].sha256' "$entry/manifest.json")" "$(sha256sum <"$entry/$file" | cut -d' ' -f1)"
	done
}

@test "why: it is a hit; and after a change, what differs from this entry" {
	run_imgbuild why "$plan/plan.toml"
	expect_status 0
	expect_equal "$stdout" "nothing: it is a hit
$entry"
	sed 's/id -u/id -un/' "$plan/plan.toml" >"$plan/changed.toml"
	run_imgbuild why "$plan/changed.toml" "$(basename "$entry")"
	expect_status 0
	grep -qxF '    -id -u >/etc/setup-ran-as' <<<"$stdout"
	grep -qxF '    +id -un >/etc/setup-ran-as' <<<"$stdout"
	expect_equal "$(grep -cE '^[a-z]+  ' <<<"$stdout")" 1
}

@test "an ordinary user built it, without capabilities" {
	[ "$(id -u)" != 0 ] || { echo "the tests run as root: use tests/as-user"; return 1; }
	expect_equal "$(grep CapEff /proc/self/status | tr -d '\t ')" CapEff:0000000000000000
}

@test "files of the plan are in the image, with mode and owner" {
	expect_equal "$(image_cat "$entry" /etc/motd)" "hello from the plan"
	image_stat "$entry" /etc/motd | grep -E 'Mode: +0640'
	image_stat "$entry" /etc/motd | grep -E 'Group: +4 '
	expect_equal "$(image_cat "$entry" /opt/tree/sub/two)" two
	image_stat "$entry" /opt/tree/link | grep -E 'Fast link dest: "one"'
	expect_equal "$(image_cat "$entry" /etc/hostname)" quick
}

@test "the setup script ran as root, saw the inputs, and had no network card and no disk" {
	expect_equal "$(image_cat "$entry" /etc/words)" "some words"
	expect_equal "$(image_cat "$entry" /etc/setup-ran-as)" 0
	expect_equal "$(image_cat "$entry" /etc/setup-nets)" lo
	run image_cat "$entry" /etc/setup-dev
	refute grep -E '^(vd|vport|hvc)' <<<"$output"
}

@test "no trace of the build stays: inputs, scripts, cleaned folders" {
	run image_stat "$entry" /imgbuild
	refute grep -q Inode <<<"$output"
	run image_stat "$entry" /var/junk/a
	refute grep -q Inode <<<"$output"
	image_stat "$entry" /etc/hostname | grep -q Inode
}

@test "the filesystem has the size that the plan asks for" {
	run dumpe2fs -h "$entry/rootfs.ext4"
	blocks=$(sed -n 's/^Block count: *//p' <<<"$output")
	size=$(sed -n 's/^Block size: *//p' <<<"$output")
	expect_equal "$((blocks * size))" "$((256 << 20))"
	expect_equal "$(stat -c %s "$entry/rootfs.ext4")" "$((256 << 20))"
}

@test "fstab lines whose source is not in the image are gone" {
	run image_cat "$entry" /etc/fstab
	refute grep -E '^[^#].*(BOOT|UEFI|cdrom|usbdisk)' <<<"$output"
}

@test "the manifest names every input with its digest" {
	manifest=$entry/manifest.json
	expect_equal "$(jq -r .base.sha256 "$manifest")" "$(sha256sum <"$plan/base.qcow2" | cut -d' ' -f1)"
	expect_equal "$(jq -r .base.trust "$manifest")" local
	expect_equal "$(jq -r .files.kernel.sha256 "$manifest")" "$(sha256sum <"$entry/kernel" | cut -d' ' -f1)"
	cmp "$plan/bzImage" "$entry/kernel"
	jq -e '.build.stages | map(.name) | index("extract") and index("pack") and index("boot")' "$manifest"
	chunk=$(jq -r .image.chunk_bytes "$manifest")
	expect_equal "$(jq -r '.image.chunks[0]' "$manifest")" \
		"$(head -c "$chunk" "$entry/rootfs.ext4" | sha256sum | cut -d' ' -f1)"
}

@test "the image boots" {
	run boot_entry "$entry" --shell -- 'cat /etc/motd' 'hostname -F /etc/hostname; hostname'
	echo "$output"
	grep -x 'hello from the plan' <<<"$output"
	grep -x quick <<<"$output"
}

@test "again: the same path, at once, without QEMU" {
	PATH_FOR_IMGBUILD=/nowhere run_imgbuild "$plan/plan.toml"
	expect_status 0
	expect_equal "$stdout" "$entry"
}

@test "the key command agrees, and so does the folder's name" {
	run_imgbuild key "$plan/plan.toml"
	expect_status 0
	expect_equal "$stdout" "$(basename "$entry")"
}

@test "comments, order and the name are not in the key; a changed file is" {
	cp -r "$plan" "$BATS_TEST_TMPDIR/other"
	sed -i 's/^name = .*/# a comment\nname = "another"/' "$BATS_TEST_TMPDIR/other/plan.toml"
	run_imgbuild key "$BATS_TEST_TMPDIR/other/plan.toml"
	expect_equal "$stdout" "$(basename "$entry")"
	echo more >>"$BATS_TEST_TMPDIR/other/words.txt"
	run_imgbuild key "$BATS_TEST_TMPDIR/other/plan.toml"
	expect_status 0
	[ "$stdout" != "$(basename "$entry")" ]
}

@test "ls and show know the entry; a prefix of the key will do" {
	key=$(basename "$entry")
	run_imgbuild ls
	expect_status 0
	grep -q "${key:0:12}" <<<"$stdout"
	run_imgbuild show "${key:0:8}"
	expect_status 0
	grep -q qemu-system <<<"$stdout"
	run_imgbuild show --json "$key"
	jq -e . <<<"$stdout"
}

@test "clone gives a writable copy and leaves the entry alone" {
	before=$(sha256sum <"$entry/rootfs.ext4")
	run_imgbuild clone "$(basename "$entry")" "$BATS_TEST_TMPDIR/copy.ext4"
	expect_status 0
	cmp "$entry/rootfs.ext4" "$BATS_TEST_TMPDIR/copy.ext4"
	echo x | dd of="$BATS_TEST_TMPDIR/copy.ext4" conv=notrunc status=none
	run_imgbuild clone "$(basename "$entry")" "$BATS_TEST_TMPDIR/copy.qcow2" --as qcow2
	expect_status 0
	qemu-img compare -f raw -F qcow2 "$entry/rootfs.ext4" "$BATS_TEST_TMPDIR/copy.qcow2"
	expect_equal "$(sha256sum <"$entry/rootfs.ext4")" "$before"
	run_imgbuild clone "$(basename "$entry")" "$BATS_TEST_TMPDIR/copy.ext4"
	[ "$status" != 0 ]
}

@test "zstd clusters, and a kernel as ELF file: the same contents" {
	alpine_plan "$BATS_TEST_TMPDIR/p" "$(fixture alpine.sh zstd)" </dev/null
	cp "$(fixture builtin-kernel.sh)/vmlinux" "$BATS_TEST_TMPDIR/p/bzImage"
	run_imgbuild "$BATS_TEST_TMPDIR/p/plan.toml"
	expect_status 0
	expect_entry "$stdout"
	expect_equal "$(image_cat "$stdout" /etc/os-release)" "$(image_cat "$entry" /etc/os-release)"
}

@test "what the lock says of an older kernel does not count, and the plan's own fstab has the last word" {
	dir=$BATS_TEST_TMPDIR/p
	alpine_plan "$dir" </dev/null
	mv "$dir/plan.toml" "$dir/file.toml"
	tar -C "$dir" -czf "$dir/k.tar.gz" bzImage
	printf '[base.amd64]\nurl = "base.qcow2"\n[kernel.amd64]\nurl = "k.tar.gz"\npath = "bzImage"\n' >"$dir/plan.toml"
	run_imgbuild lock "$dir/plan.toml"
	expect_status 0
	grep -q archive "$dir/plan.lock"
	{ cat "$dir/file.toml" && printf '[files."/etc/fstab"]\ncontent = "# mine\\n"\n'; } >"$dir/plan.toml"
	cp "$(fixture builtin-kernel.sh)/vmlinux" "$dir/bzImage"
	run_imgbuild "$dir/plan.toml"
	expect_status 0
	cmp "$dir/bzImage" "$stdout/kernel"
	expect_equal "$(image_cat "$stdout" /etc/fstab)" "# mine"
}

@test "two at once boot once and give the same path" {
	alpine_plan "$BATS_TEST_TMPDIR/p" <<<'[setup]
script = "sleep 3; echo twice >/etc/twice"'
	"$IMGBUILD" --no-color "$BATS_TEST_TMPDIR/p/plan.toml" >"$BATS_TEST_TMPDIR/a" 2>"$BATS_TEST_TMPDIR/a.err" 3>&- &
	first=$!
	"$IMGBUILD" --no-color "$BATS_TEST_TMPDIR/p/plan.toml" >"$BATS_TEST_TMPDIR/b" 2>"$BATS_TEST_TMPDIR/b.err" 3>&- &
	second=$!
	wait "$first" && wait "$second" || { cat "$BATS_TEST_TMPDIR"/*.err; return 1; }
	expect_equal "$(cat "$BATS_TEST_TMPDIR/a")" "$(cat "$BATS_TEST_TMPDIR/b")"
	# One of the two says that it waits.
	cat "$BATS_TEST_TMPDIR"/*.err
	grep -qi 'wait' "$BATS_TEST_TMPDIR"/*.err
}

@test "killed in the middle: nothing half-done is visible, and the next run succeeds" {
	alpine_plan "$BATS_TEST_TMPDIR/p" <<<'[setup]
script = "sleep 4; echo survived >/etc/survived"'
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	"$IMGBUILD" --no-color "$BATS_TEST_TMPDIR/p/plan.toml" >"$BATS_TEST_TMPDIR/a" 2>"$BATS_TEST_TMPDIR/a.err" 3>&- &
	pid=$!
	sleep 4
	kill -9 "$pid"
	wait "$pid" || true
	expect_no_entry
	run_imgbuild "$BATS_TEST_TMPDIR/p/plan.toml"
	expect_status 0
	expect_equal "$(image_cat "$stdout" /etc/survived)" survived
}

@test "interrupted: exit 130, no entry, no QEMU left" {
	alpine_plan "$BATS_TEST_TMPDIR/p" <<<'[setup]
script = "sleep 1000"'
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	status=0
	timeout --foreground --preserve-status -s INT -k 20 6 "$IMGBUILD" --no-color "$BATS_TEST_TMPDIR/p/plan.toml" 3>&- ||
		status=$?
	expect_equal "$status" 130
	expect_no_entry
	sleep 1
	expect_equal "$(pids_of qemu-system-x86)" ""
}
