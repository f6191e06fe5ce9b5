#!/usr/bin/env bats
# What moves when a lock is resolved again: only what must, or what is named, or with --update everything. The archive is our own,
# as in archive.bats. Nothing boots.

load ../helper
load ../fixtures/archive

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	archive_new
	archive_add "$(archive_deb jq)" "$(archive_deb libjq1)" "$(archive_deb libonig5)" "$(archive_deb hello)" "$(archive_deb tree)"
	lock_file=${plan%.toml}.lock
	jq_old=$(dpkg-deb -f "$(archive_deb jq)" Version)
	jq_new=${jq_old}+new1
	onig_old=$(dpkg-deb -f "$(archive_deb libonig5)" Version)
	onig_new=${onig_old}+new1
	hello_old=$(dpkg-deb -f "$(archive_deb hello)" Version)
	hello_new=${hello_old}+new1
}

teardown() { archive_stop; }

ready() {
	archive_publish
	archive_base
	archive_plan "$@" </dev/null
	archive_start
}

lock() { run_imgbuild lock "${archive_mirror[@]}" "$plan" "$@"; }

locked() { # PACKAGES…: lock them in the archive as it is
	ready "$@"
	lock
	expect_status 0
	cp "$lock_file" "$BATS_TEST_TMPDIR/before.lock"
}

# The archive moves on: jq with its library, libonig5, hello. jq and libjq1 need exactly one another.
point_release() {
	archive_add "$(archive_repack "$(archive_deb jq)" "$jq_new")" "$(archive_repack "$(archive_deb libjq1)" "$jq_new")" \
		"$(archive_repack "$(archive_deb libonig5)" "$onig_new")" "$(archive_repack "$(archive_deb hello)" "$hello_new")"
	archive_publish
}

# One byte of each package list of an architecture is another than the Release says.
tamper_lists() {
	local lists
	mapfile -t lists < <(cd "$archive_root" && find "dists/bookworm/main/binary-$1" -type f)
	archive_tamper "${lists[@]}"
}

# The lines of the lock that changed, without those that both have.
changed_lines() { diff "$BATS_TEST_TMPDIR/before.lock" "$lock_file" | grep '^[<>]' | sort; }
expect_same_lock() { cmp "$BATS_TEST_TMPDIR/before.lock" "$lock_file"; }
package_line() { grep "name = \"$2\"" "$1"; }

@test "a first lock prints what it has, as new; once more it prints nothing" {
	ready jq
	lock
	expect_status 0
	expect_equal "$stdout" "amd64 jq $jq_old (new)
amd64 libjq1 $jq_old (new)
amd64 libonig5 $onig_old (new)
amd64 keyring /etc/apt/trusted.gpg.d/archive.gpg $(sha256sum <"$archive_dir/archive.gpg" | cut -c1-12)… (new)"
	cp "$lock_file" "$BATS_TEST_TMPDIR/before.lock"
	lock
	expect_status 0
	expect_equal "$stdout" ""
	expect_stderr 'nothing changed'
	expect_same_lock
}

@test "a point update: lock alone changes nothing, --update moves everything and prints old and new" {
	locked jq hello
	point_release
	lock
	expect_status 0
	expect_equal "$stdout" ""
	expect_same_lock
	lock --update
	expect_status 0
	expect_equal "$stdout" "amd64 hello $hello_old -> $hello_new
amd64 jq $jq_old -> $jq_new
amd64 libjq1 $jq_old -> $jq_new
amd64 libonig5 $onig_old -> $onig_new"
	# And so much of the lock changed.
	expect_equal "$(changed_lines | wc -l)" 8
	cp "$lock_file" "$BATS_TEST_TMPDIR/before.lock"
	lock --update
	expect_status 0
	expect_equal "$stdout" ""
	expect_stderr 'nothing changed'
	expect_same_lock
}

@test "--update NAME moves that one only" {
	locked jq hello
	point_release
	lock --update libonig5
	expect_status 0
	expect_equal "$stdout" "amd64 libonig5 $onig_old -> $onig_new"
	expect_equal "$(changed_lines | grep -c 'name = "libonig5"')" 2
	expect_equal "$(changed_lines | wc -l)" 2
}

@test "--update NAME takes along what must follow, in either direction" {
	locked jq hello
	point_release
	for name in jq libjq1; do
		cp "$BATS_TEST_TMPDIR/before.lock" "$lock_file"
		lock --update "$name"
		expect_status 0
		expect_equal "$stdout" "amd64 jq $jq_old -> $jq_new
amd64 libjq1 $jq_old -> $jq_new"
		expect_equal "$(changed_lines | wc -l)" 4
		expect_stderr 'moves from .* needs'
	done
}

@test "several names, before and behind the option" {
	locked jq hello
	point_release
	run_imgbuild lock "${archive_mirror[@]}" --update "$plan" hello libonig5
	expect_status 0
	expect_equal "$stdout" "amd64 hello $hello_old -> $hello_new
amd64 libonig5 $onig_old -> $onig_new"
}

@test "a package more in the plan changes its own lines only, though the archive moved on" {
	locked jq
	point_release
	archive_plan jq hello </dev/null
	lock
	expect_status 0
	expect_equal "$stdout" "amd64 hello $hello_new (new)"
	changed_lines
	expect_equal "$(changed_lines | grep -c '^<')" 0
	expect_equal "$(changed_lines | grep -c '^>.*name = "hello"')" 1
	expect_equal "$(changed_lines | grep -vc '"hello"')" 0
	# What the archive has replaced is known by its .deb, and its line is the old one.
	for name in jq libjq1 libonig5; do
		expect_equal "$(package_line "$lock_file" "$name")" "$(package_line "$BATS_TEST_TMPDIR/before.lock" "$name")"
	done
	# The same lock as it would be had the package been asked for at once.
	lock
	expect_equal "$stdout" ""
}

@test "a package less: its lines go, and those of what nothing needs any more" {
	locked jq hello
	point_release
	archive_plan hello </dev/null
	lock
	expect_status 0
	expect_equal "$stdout" "amd64 jq $jq_old (gone)
amd64 libjq1 $jq_old (gone)
amd64 libonig5 $onig_old (gone)"
}

@test "a new package that needs newer ones makes those move, and says why" {
	locked jq
	point_release
	archive_add "$(archive_repack "$(archive_deb hello)" "$hello_new" "Depends: libonig5 (>= $onig_new)")"
	archive_publish
	archive_plan jq hello </dev/null
	lock
	expect_status 0
	expect_equal "$stdout" "amd64 hello $hello_new (new)
amd64 libonig5 $onig_old -> $onig_new"
	expect_stderr "\`libonig5\` moves from .* to .*: \`hello\` .* needs \`libonig5 \(>= "
}

@test "what can be had nowhere any more moves, and says so" {
	locked jq
	point_release
	archive_unpool libonig5 "$onig_old"
	archive_plan jq tree </dev/null
	lock
	expect_status 0
	expect_equal "$(grep -v tree <<<"$stdout")" "amd64 libonig5 $onig_old -> $onig_new"
	expect_stderr 'libonig5.*moves.*can be had nowhere'
}

@test "a blob store has what the archive lost" {
	locked jq
	mkdir -p "$BATS_TEST_TMPDIR/blobs/sha256"
	cp "$(archive_deb libonig5)" "$BATS_TEST_TMPDIR/blobs/sha256/$(sha256sum <"$(archive_deb libonig5)" | cut -d' ' -f1)"
	point_release
	archive_unpool libonig5 "$onig_old"
	archive_plan jq tree </dev/null
	lock --blobs "$BATS_TEST_TMPDIR/blobs"
	expect_status 0
	expect_equal "$stdout" "amd64 tree $(dpkg-deb -f "$(archive_deb tree)" Version) (new)"
}

@test "what the base had stays the base's" {
	local less_new
	ready less
	lock
	expect_status 0
	refute grep -q 'name = "less"' "$lock_file"
	less_new=999-1
	mkdir -p "$archive_dir/less/DEBIAN"
	printf '%s\n' 'Package: less' "Version: $less_new" 'Architecture: amd64' 'Maintainer: n <n@example.org>' \
		'Description: x' >"$archive_dir/less/DEBIAN/control"
	dpkg-deb --root-owner-group -b "$archive_dir/less" "$archive_dir/less.deb"
	archive_add "$archive_dir/less.deb"
	archive_publish
	archive_plan less tree </dev/null
	lock
	expect_status 0
	refute grep -q 'name = "less"' "$lock_file"
	lock --update less
	expect_status 0
	expect_equal "$stdout" "amd64 less $less_new (new)"
}

@test "an unknown name: exit 2, the nearest one, and nothing was asked of anybody" {
	locked jq
	point_release
	: >"$archive_dir/nginx/access.log"
	lock --update libonig6 tree kernle
	expect_status 2
	expect_equal "$stdout" ""
	expect_stderr 'libonig6.*did you mean `libonig5`'
	expect_stderr '`tree`'
	expect_stderr 'kernle.*did you mean `kernel`'
	expect_equal "$(archive_asked '.*')" 0
	expect_same_lock
}

@test "names without --update, and --update with what does not go with it: exit 2" {
	locked jq
	lock jq
	expect_status 2
	expect_stderr 'imgbuild lock .* --update jq'
	lock --update --check
	expect_status 2
	expect_stderr '--check'
	lock --update --locked
	expect_status 2
	expect_stderr '--locked'
	run_imgbuild build --update "$plan"
	expect_status 2
	run_imgbuild lock --update
	expect_status 2
	expect_same_lock
}

@test "--json: an array, empty when nothing changed" {
	locked jq
	lock --json
	expect_status 0
	expect_equal "$stdout" '[]'
	point_release
	archive_plan jq hello </dev/null
	lock --json --update libonig5
	expect_status 0
	expect_equal "$(jq -cS 'map(select(.kind == "package"))' <<<"$stdout")" "$(jq -ncS --arg h "$hello_new" --arg o "$onig_old" --arg n "$onig_new" \
		'[{arch: "amd64", kind: "package", name: "hello", old: null, new: $h},
		{arch: "amd64", kind: "package", name: "libonig5", old: $o, new: $n}]')"
	expect_equal "$(jq length <<<"$stdout")" 2
}

@test "an update that fails leaves the lock as it was" {
	locked jq hello
	point_release
	tamper_lists amd64
	for names in '' libonig5; do
		# shellcheck disable=SC2086  # none or one
		lock --update $names
		expect_status 3
		expect_equal "$stdout" ""
		expect_same_lock
	done
}

@test "two architectures: one that fails leaves its own answers, --arch limits to one" {
	archive_add "$(archive_deb hello arm64)"
	archive_publish
	archive_base
	archive_base arm64
	ARCHIVE_PLAN_ARCHES='amd64 arm64' archive_plan hello </dev/null
	archive_start
	lock
	expect_status 0
	cp "$lock_file" "$BATS_TEST_TMPDIR/before.lock"
	archive_add "$(archive_repack "$(archive_deb hello)" "$hello_new")" "$(archive_repack "$(archive_deb hello arm64)" "$hello_new")"
	archive_publish
	tamper_lists arm64
	lock --update
	expect_status 3
	expect_equal "$stdout" "amd64 hello $hello_old -> $hello_new"
	expect_equal "$(changed_lines | wc -l)" 2
	cp "$BATS_TEST_TMPDIR/before.lock" "$lock_file"
	archive_publish
	lock --update --arch arm64
	expect_status 0
	expect_equal "$stdout" "arm64 hello $hello_old -> $hello_new"
	lock --update
	expect_status 0
	expect_equal "$stdout" "amd64 hello $hello_old -> $hello_new"
}

# The plan's base from a URL that moves, and a file from one.
moving_plan() {
	archive_publish
	archive_base
	mv "$BATS_TEST_TMPDIR/p/base-amd64.ext4" "$archive_www/base.ext4"
	echo one >"$archive_www/file"
	archive_start
	archive_plan "$@" <<-END
		[files."/etc/motd"]
		url = "$archive_url/file"
	END
	sed -i "s|^url = \"base-amd64.ext4\"|url = \"$archive_url/base.ext4\"|" "$plan"
	lock
	expect_status 0
	cp "$lock_file" "$BATS_TEST_TMPDIR/before.lock"
}

@test "a base and a file at URLs that moved on: --update finds out, and packages stay when only they are named" {
	moving_plan jq
	short() { sha256sum <"$1" | cut -c1-12; }
	old_base=$(short "$archive_www/base.ext4")
	old_file=$(short "$archive_www/file")
	lock --update
	expect_status 0
	expect_equal "$stdout" ""
	expect_same_lock
	echo more >"$archive_dir/base-amd64/etc/more"
	archive_base_pack
	mv "$BATS_TEST_TMPDIR/p/base-amd64.ext4" "$archive_www/base.ext4"
	echo another one >"$archive_www/file"
	point_release
	lock
	expect_status 0
	expect_equal "$stdout" ""
	lock --update base
	expect_status 0
	expect_equal "$stdout" "amd64 base $old_base… -> $(short "$archive_www/base.ext4")…"
	refute grep -q "$jq_new" "$lock_file"
	lock --update files:/etc/motd
	expect_status 0
	expect_equal "$stdout" "amd64 files:/etc/motd $old_file… -> $(short "$archive_www/file")…"
	cp "$BATS_TEST_TMPDIR/before.lock" "$lock_file"
	lock --update
	expect_status 0
	expect_equal "$(wc -l <<<"$stdout")" 5
}

@test "what is local cannot be updated, which is said" {
	locked jq
	lock --update base kernel
	expect_status 0
	expect_equal "$stdout" ""
	expect_stderr '`base` is local or pinned'
	expect_stderr '`kernel` is local or pinned'
	expect_same_lock
}

# kernel_again VERSION RELEASE: Debian's cloud kernel and its meta package as another version and another release, in the archive. The
# bytes of the kernel itself are the same: packing them anew would take longer than all the rest.
kernel_again() {
	local work=$archive_dir/kernel-$1 name=linux-image-$2-cloud-amd64 from
	from=$(fixture kernel-deb.sh)
	mkdir -p "$work/control" "$work/meta/DEBIAN"
	(cd "$work" && ar x "$from/kernel.deb")
	dpkg-deb -e "$from/kernel.deb" "$work/control"
	sed -i "s/^Package: .*/Package: $name/; s/^Version: .*/Version: $1/" "$work/control/control"
	rm "$work"/control.tar.*
	tar -C "$work/control" --owner=0 --group=0 --mtime=@0 -czf "$work/control.tar.gz" .
	(cd "$work" && ar rcD "$work/kernel.deb" debian-binary control.tar.gz data.tar.*)
	printf '%s\n' 'Package: linux-image-cloud-amd64' "Version: $1" 'Architecture: amd64' 'Maintainer: n <n@example.org>' \
		"Depends: $name (= $1)" 'Description: x' >"$work/meta/DEBIAN/control"
	dpkg-deb --root-owner-group -b "$work/meta" "$work/meta.deb"
	archive_add "$work/kernel.deb" "$work/meta.deb"
	archive_publish
}

@test "a kernel from a package stays when its section is asked again, and moves when it is named" {
	kernel_again 6.1.1-1 6.1.0-1
	ready hello
	sed -i 's/^file = "bzImage"/package = "linux-image-cloud-amd64"/' "$plan"
	lock
	expect_status 0
	grep -q '^amd64 kernel linux-image-6.1.0-1-cloud-amd64 6.1.1-1 (new)' <<<"$stdout"
	cp "$lock_file" "$BATS_TEST_TMPDIR/before.lock"
	kernel_again 6.1.2-1 6.1.0-2
	archive_remove linux-image-6.1.0-1-cloud-amd64
	archive_publish
	# Another base: kernel and packages are asked again, and stay.
	echo more >"$archive_dir/base-amd64/etc/more"
	archive_base_pack
	lock
	expect_status 0
	expect_equal "$stdout" ""
	refute expect_same_lock
	# Nor with the name of something else.
	lock --update hello
	expect_status 0
	expect_equal "$stdout" ""
	# Its own name, or "kernel".
	lock --update linux-image-cloud-amd64
	expect_status 0
	expect_equal "$stdout" "amd64 kernel linux-image-6.1.0-1-cloud-amd64 6.1.1-1 -> linux-image-6.1.0-2-cloud-amd64 6.1.2-1"
}
