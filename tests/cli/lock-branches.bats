#!/usr/bin/env bats
# Two branches whose locks imgbuild itself wrote, on different days of an archive: what git merges answers the merged plan, and where
# git cannot, either side and one `imgbuild lock` do. The archive is our own, as in archive.bats. Nothing boots.

load ../helper
load ../fixtures/archive

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache HOME=$BATS_TEST_TMPDIR GIT_CONFIG_NOSYSTEM=1
	export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
	archive_new
	archive_add "$(archive_deb jq)" "$(archive_deb libjq1)" "$(archive_deb libonig5)" "$(archive_deb hello)" "$(archive_deb tree)"
	archive_publish
	archive_base
	printf 'one = [\n"jq",\n]\n' | archive_plan
	archive_start
	cd "${plan%/*}" || return
	git init -q -b main .
	lock
	git add plan.toml plan.lock
	git commit -qm base
}

teardown() { archive_stop; }

lock() {
	run_imgbuild lock "${archive_mirror[@]}" plan.toml
	expect_status 0
}

branch() { # NAME PACKAGE: a branch off main that asks for one more, behind jq or before it
	git checkout -qb "$1" main
	if [[ $2 < jq ]]; then sed -i "s/^\"jq\",/\"$2\",\n&/" plan.toml; else sed -i "s/^\"jq\",/&\n\"$2\",/" plan.toml; fi
	lock
	git commit -qam "$1"
}

point_release() { # of all that the archive has
	local name deb
	for name in jq libjq1 libonig5 hello tree; do
		deb=$(archive_deb "$name")
		archive_add "$(archive_repack "$deb" "$(dpkg-deb -f "$deb" Version)+new1")"
	done
	archive_publish
}

version_of() { sed -n "s/.*{ name = \"$1\", version = \"\([^\"]*\)\".*/\1/p" plan.lock; }

@test "branches locked before and after a point release merge, and keep what each has" {
	branch a hello
	point_release
	branch b tree
	expect_equal "$(git diff --numstat main b -- plan.lock | cut -f1,2)" "$(printf '2\t0')"
	git merge -q --no-edit a
	archive_stop
	run_imgbuild lock --check plan.toml
	expect_status 0
	run_imgbuild key --locked plan.toml
	expect_status 0
	expect_equal "$(version_of jq)" "$(dpkg-deb -f "$(archive_deb jq)" Version)"
	expect_equal "$(version_of hello)" "$(dpkg-deb -f "$(archive_deb hello)" Version)"
	expect_equal "$(version_of tree)" "$(dpkg-deb -f "$(archive_deb tree)" Version)+new1"
	# Nothing is left to be resolved.
	run_imgbuild lock --offline plan.toml
	expect_status 0
	expect_equal "$stdout" ""
}

@test "after a conflict either side and one lock give what a merge would have" {
	branch a libjq1
	branch b libonig5
	refute git merge -q --no-edit a
	git checkout -q --ours plan.toml
	sed -i 's/^"libonig5",/"libjq1",\n&/' plan.toml
	run_imgbuild lock "${archive_mirror[@]}" plan.toml
	expect_status 2
	expect_stderr 'plan.lock:[0-9]+:1: found a conflict that git marked'
	for side in ours theirs; do
		git checkout -q "--$side" plan.lock
		lock
		cp plan.lock "$side.lock"
	done
	cmp ours.lock theirs.lock
	run_imgbuild lock --check plan.toml
	expect_status 0
}

@test "one branch updates, the other adds" {
	branch a hello
	point_release
	git checkout -qb b main
	run_imgbuild lock "${archive_mirror[@]}" plan.toml --update libonig5
	expect_status 0
	git commit -qam b
	git merge -q --no-edit a
	run_imgbuild key --locked plan.toml
	expect_status 0
	expect_equal "$(version_of libonig5)" "$(dpkg-deb -f "$(archive_deb libonig5)" Version)+new1"
	expect_equal "$(version_of hello)" "$(dpkg-deb -f "$(archive_deb hello)" Version)"
}

@test "a Release of the archive that brings nothing new changes no line" {
	cp plan.lock before.lock
	ARCHIVE_DATE='+1 hour' archive_publish
	run_imgbuild lock "${archive_mirror[@]}" plan.toml --update
	expect_status 0
	expect_equal "$stdout" ""
	cmp before.lock plan.lock
}
