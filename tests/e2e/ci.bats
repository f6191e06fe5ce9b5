#!/usr/bin/env bats
# The workflow that people copy, run step by step out of its file, with stand-ins for GitHub's actions.

load ../helper

workflow=$TOP/recipes/ci/github.yml

setup_file() {
	mkdir -p "$BATS_FILE_TMPDIR/www" "$BATS_FILE_TMPDIR/bin"
	project=$BATS_FILE_TMPDIR/project
	alpine_plan "$project" <<-'END'
		[files."/etc/motd"]
		content = "one\n"
		[image]
		size = "1G"
	END
	mv "$project/base.qcow2" "$BATS_FILE_TMPDIR/www"
	url=$("$TOP/tests/fixtures/nginx.sh" start "$BATS_FILE_TMPDIR/nginx" "$BATS_FILE_TMPDIR/www" 3>&-)
	sed "s,\"base.qcow2\",\"$url/base.qcow2\"," "$project/plan.toml" >"$project/rootfs-plan.toml"
	rm "$project/plan.toml"
	# The lock is made at somebody's desk and committed.
	"$IMGBUILD" --cache "$BATS_FILE_TMPDIR/desk" lock "$project/rootfs-plan.toml"
	printf '#!/bin/sh\nexit 0\n' >"$BATS_FILE_TMPDIR/bin/sudo"
	chmod +x "$BATS_FILE_TMPDIR/bin/sudo"
}

teardown_file() { "$TOP/tests/fixtures/nginx.sh" stop "$BATS_FILE_TMPDIR/nginx"; }

setup() {
	job=$BATS_FILE_TMPDIR/jobs
	access=$BATS_FILE_TMPDIR/nginx/access.log
	mkdir -p "$job"
}

run_job() { # NAME [OPTION…]: in a workspace of its own, with $BATS_FILE_TMPDIR/project and the caches of all jobs
	local name=$1 status=0
	shift
	PATH=$BATS_FILE_TMPDIR/bin:$(dirname "$IMGBUILD"):$PATH "$TOP/tests/fixtures/actions-job" "$workflow" \
		"${PROJECT:-$BATS_FILE_TMPDIR/project}" "$job/$name" "$BATS_FILE_TMPDIR/caches" \
		--replace "Install imgbuild=true" "$@" >"$job/$name.log" 2>&1 3>&- || status=$?
	return $status
}
show_job() { cat "$job/$1.log" "$job/$1/steps.tsv"; }
steps() { # NAME STATE: the steps that ended so
	awk -F'\t' -v state="$2" '$2 == state { printf "%s%s", n++ ? ", " : "", $1 }' "$job/$1/steps.tsv"
}
output() { jq -r ".$2.$3" "$job/$1/outputs.json"; }

@test "two jobs at a time that both miss: both build the same key, one is saved, both succeed" {
	run_job a --meet Restore=2 &
	a=$!
	run_job b --meet Restore=2 &
	b=$!
	wait "$a" || { show_job a; false; }
	wait "$b" || { show_job b; false; }
	for name in a b; do
		show_job "$name"
		expect_equal "$(steps $name skipped)" "Unpack and verify"
		expect_equal "$(steps $name failed)" ""
		expect_entry "$(output $name build entry)"
	done
	expect_equal "$(output a key key)" "$(output b key key)"
	# It was a first use, at the desk: here it was held to the lock.
	refute grep -q 'first use' "$job/a.log" "$job/b.log"
	expect_equal "$(jq -r .base.trust "$(output a build entry)/manifest.json")" first-use
	# The checkout is as it was.
	diff -r "$BATS_FILE_TMPDIR/project" "$job/a/workspace"
	for file in kernel initrd plan.toml plan.lock; do
		cmp "$(output a build entry)/$file" "$(output b build entry)/$file"
	done
	expect_equal "$(cat "$job"/[ab].log | grep -c '^Cache saved with key: imgbuild-')" 1
	expect_equal "$(cat "$job"/[ab].log | grep -c '^Failed to save: Unable to reserve cache')" 1
}

@test "the next job restores it: nothing is built, fetched, packed or saved, and the entry is the one that was built" {
	[ -d "$job/a" ] || run_job a
	: >"$access"
	printf '#!/bin/sh\necho "QEMU was started" >&2\nexit 1\n' >"$BATS_FILE_TMPDIR/bin/qemu-system-x86_64"
	chmod +x "$BATS_FILE_TMPDIR/bin/qemu-system-x86_64"
	run_job c || { show_job c; false; }
	rm "$BATS_FILE_TMPDIR/bin/qemu-system-x86_64"
	show_job c
	expect_equal "$(steps c skipped)" "Allow KVM, Pack, Save"
	expect_equal "$(output c key key)" "$(output a key key)"
	expect_equal "$(wc -c <"$access")" 0
	cache=$job/c/home/.cache/imgbuild
	expect_equal "$(find "$cache/blobs" "$cache/roots" -type f 2>/dev/null)" ""
	saved=$(basename "$(grep -l '^Cache saved' "$job"/[ab].log)" .log)
	entry=$(output c build entry) built=$(output "$saved" build entry)
	expect_equal "$entry" "$cache/images/$(output c key key)"
	expect_entry "$entry"
	diff -r "$built" "$entry"
	# Neither the cached file nor the restored image has the holes in it.
	[ "$(stat -c %s "$job/c/home/image.tar.zst")" -lt $((64 << 20)) ]
	expect_equal "$(stat -c %s "$entry/rootfs.ext4")" $((1 << 30))
	[ "$(stat -c %b "$entry/rootfs.ext4")" -le $(($(stat -c %b "$built/rootfs.ext4") + 2048)) ]
	# It is an entry like any other: listed, shown, and found by its plan without network.
	run_imgbuild --cache "$cache" ls
	grep "$(output c key key | cut -c1-16)" "$BATS_TEST_TMPDIR/stdout"
	run_imgbuild --cache "$cache" show "$(output c key key)"
	expect_status 0
	run_imgbuild --cache "$cache" --offline --locked "$job/c/workspace/rootfs-plan.toml"
	expect_equal "$(cat "$BATS_TEST_TMPDIR/stdout")" "$entry"
}

@test "a change of the plan is another key: the old image is not restored in its place" {
	[ -d "$job/a" ] || run_job a
	cp -r "$BATS_FILE_TMPDIR/project" "$BATS_TEST_TMPDIR/project"
	sed -i 's/one/two/' "$BATS_TEST_TMPDIR/project/rootfs-plan.toml"
	PROJECT=$BATS_TEST_TMPDIR/project run_job d || { show_job d; false; }
	show_job d
	expect_equal "$(steps d skipped)" "Unpack and verify"
	refute [ "$(output d key key)" = "$(output a key key)" ]
	run image_cat "$(output d build entry)" /etc/motd
	expect_equal "$output" two
}

@test "a lock that does not answer the plan ends the job before anything is fetched" {
	cp -r "$BATS_FILE_TMPDIR/project" "$BATS_TEST_TMPDIR/project"
	sed -i 's,/base.qcow2,/another.qcow2,' "$BATS_TEST_TMPDIR/project/rootfs-plan.toml"
	: >"$access"
	if PROJECT=$BATS_TEST_TMPDIR/project run_job e; then show_job e; false; fi
	show_job e
	expect_equal "$(steps e failed)" Key
	grep -q 'imgbuild lock rootfs-plan.toml' "$job/e.log"
	expect_equal "$(wc -c <"$access")" 0
}

@test "a cached image that is not the one that was built ends the job" {
	[ -d "$job/a" ] || run_job a
	cp -r "$BATS_FILE_TMPDIR/caches" "$BATS_TEST_TMPDIR/caches"
	for what in rootfs.ext4 initrd; do
		for archive in "$BATS_TEST_TMPDIR"/caches/*/cache.tzst; do
			# As the action does it: ../home/image.tar.zst, from the workspace.
			mkdir -p "$BATS_TEST_TMPDIR/x/workspace" "$BATS_TEST_TMPDIR/x/home" "$BATS_TEST_TMPDIR/x/entry"
			tar --zstd -P -xf "$archive" -C "$BATS_TEST_TMPDIR/x/workspace"
			tar --zstd -xf "$BATS_TEST_TMPDIR/x/home/image.tar.zst" -C "$BATS_TEST_TMPDIR/x/entry"
			key=$(ls "$BATS_TEST_TMPDIR/x/entry")
			chmod u+w "$BATS_TEST_TMPDIR/x/entry/$key/$what"
			printf x | dd of="$BATS_TEST_TMPDIR/x/entry/$key/$what" conv=notrunc bs=1 seek=5000 status=none
			tar --sparse --zstd -cf "$BATS_TEST_TMPDIR/x/home/image.tar.zst" -C "$BATS_TEST_TMPDIR/x/entry" "$key"
			tar --zstd -P -cf "$BATS_FILE_TMPDIR/caches/$(basename "$(dirname "$archive")")/cache.tzst" \
				-C "$BATS_TEST_TMPDIR/x/workspace" ../home/image.tar.zst
			rm -rf "$BATS_TEST_TMPDIR/x"
		done
		if run_job "f-$what"; then show_job "f-$what"; false; fi
		show_job "f-$what"
		expect_equal "$(steps "f-$what" failed)" "Unpack and verify"
		grep -q 'the cached image is not the one that was built' "$job/f-$what.log"
	done
	rm -rf "$BATS_FILE_TMPDIR/caches"
	mv "$BATS_TEST_TMPDIR/caches" "$BATS_FILE_TMPDIR/caches"
}

@test "the workflow pins its actions, restores no other key, and installs what imgbuild needs" {
	refute grep -nE '^[^#]*restore-keys' "$workflow"
	uses=$(grep 'uses:' "$workflow")
	refute grep -vE 'uses: actions/[a-z/]+@v[0-9]+$' <<<"$uses"
	while read -r name; do
		grep -qwF "$name" "$workflow" || { echo "the workflow does not install $name"; false; }
	done < <(sed -n '/^# building/,/^# unit/p' "$TOP/tests/deps/packages" | sed -n 's/^\([a-z][a-z0-9-]*\).*/\1/p' | grep -v ca-certificates)
}
