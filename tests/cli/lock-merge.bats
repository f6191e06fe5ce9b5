#!/usr/bin/env bats
# Two branches that each ask for one more package: git merges plan and lock, and what it cannot merge is said with the way out.
# No network: `imgbuild lock` is played by lock-filled, which writes what it would.

load ../helper

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache HOME=$BATS_TEST_TMPDIR GIT_CONFIG_NOSYSTEM=1
	export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org
	mkdir "$BATS_TEST_TMPDIR/repo"
	cd "$BATS_TEST_TMPDIR/repo" || return
	git init -q -b main .
	cat >plan.toml <<-'END'
		[base.amd64]
		url = "https://example.org/file"
		[kernel.amd64]
		package = "linux-image-amd64"
		[packages]
		one = [
			"chrony",
			"curl",
			"libarchive-tools",
			"openssh-server",
			"podman",
		]
	END
	relock
	git add .
	git commit -qm base
}

# Write the lock that the plan would have: 40 packages that come along, and those that it names.
relock() {
	local names
	mapfile -t names < <(sed -n 's/^"\(.*\)",$/\1/p' plan.toml)
	"$TOP/build/debug/tests/lock-filled" plan.toml amd64 40 "${names[@]}"
	! grep -q arm64 plan.toml || "$TOP/build/debug/tests/lock-filled" plan.toml arm64 40 "${names[@]}"
}

# A branch off main that asks for a package behind another.
branch() { # NAME PACKAGE BEHIND
	git checkout -qb "$1" main
	sed -i "s/^\"$3\",\$/&\n\"$2\",/" plan.toml
	relock
	git commit -qam "$1"
}

@test "one more package is two more lines of the lock, and no other" {
	branch a crun chrony
	expect_equal "$(git diff --numstat main a -- plan.lock)" "$(printf '2\t0\tplan.lock')"
	git diff -U0 main a -- plan.lock | grep -x '+	"crun",'
	git diff -U0 main a -- plan.lock | grep '^+	{ name = "crun", version = '
}

@test "two branches that each ask for one more merge without a conflict, and the lock answers offline" {
	branch a crun chrony
	branch b nftables libarchive-tools
	git merge -q --no-edit a
	run_imgbuild lock --check plan.toml
	expect_status 0
	run_imgbuild key plan.toml
	expect_status 0
	key=$stdout
	# It is the lock that would have been written for both, to the byte.
	cp plan.lock merged.lock
	relock
	cmp plan.lock merged.lock
	rm plan.lock
	relock
	cmp plan.lock merged.lock
	run_imgbuild key plan.toml
	expect_equal "$stdout" "$key"
}

@test "with two architectures, whose sections are nearly the same text" {
	printf '[base.arm64]\nurl = "https://example.org/arm64"\n[kernel.arm64]\npackage = "linux-image-arm64"\n' >>plan.toml
	relock
	git commit -qam both
	branch a crun chrony
	branch b nftables libarchive-tools
	git checkout -q -b c main
	sed -i '/"podman"/d' plan.toml
	rm plan.lock
	relock
	git commit -qam c
	git merge -q --no-edit a
	git merge -q --no-edit b
	run_imgbuild lock --check plan.toml
	expect_status 0
	mv plan.lock merged.lock
	relock
	cmp plan.lock merged.lock
}

@test "one branch removes a package, the other adds one" {
	branch a crun chrony
	git checkout -qb b main
	sed -i '/openssh-server/d' plan.toml
	rm plan.lock
	relock
	git commit -qam b
	git merge -q --no-edit a
	run_imgbuild key plan.toml
	expect_status 0
	refute grep -q openssh plan.lock
	grep -q crun plan.lock
}

# Two packages side by side in the list: git cannot tell their order.
conflict() {
	branch a passt openssh-server
	branch b perl openssh-server
	refute git merge -q --no-edit a
	git checkout -q --ours plan.toml
	sed -i 's/^"perl",$/"passt",\n&/' plan.toml
}

@test "a conflict is said with its line and the way out, by every verb that reads the lock" {
	conflict
	line=$(grep -n '^<<<<<<<' plan.lock | head -1 | cut -d: -f1)
	for words in "key" "lock --check" "lock --offline" "--locked"; do
		# shellcheck disable=SC2086
		run_imgbuild $words plan.toml
		expect_status 2
		expect_stderr "^imgbuild: error: plan.lock:$line:1: found a conflict that git marked: what is left of a merge; take either side \(.git checkout --ours plan.lock., or .--theirs.\), then run .imgbuild lock PLAN., which adds what the other side asked for\$"
	done
	# Nothing was written over it.
	grep -q '^<<<<<<<' plan.lock
}

@test "the way out is one: either side is a lock, and names what it lacks" {
	conflict
	git checkout -q --ours plan.lock
	run_imgbuild lock --check plan.toml
	expect_status 2
	expect_stderr 'packages: the plan asks for "passt", which the lock does not answer$'
	git checkout -q --theirs plan.lock
	run_imgbuild lock --check plan.toml
	expect_status 2
	expect_stderr 'packages: the plan asks for "perl", which the lock does not answer$'
	relock
	run_imgbuild lock --check plan.toml
	expect_status 0
}

@test "a dependency that both sides brought in two versions is found" {
	sed -i '/name = "libpackage-of-debian9"/{h;s/version = "[^"]*"/version = "1:9.9"/;H;x}' plan.lock
	run_imgbuild key plan.toml
	expect_status 2
	expect_stderr 'plan.lock:[0-9]+:2: found the package libpackage-of-debian9 for amd64 again, version 1:9.9 here and 1:2.9-3\+deb12u1 in line [0-9]+: what is left of a merge; take either side'
}

@test "a lock whose line ends were converted is the same lock" {
	run_imgbuild key plan.toml
	key=$stdout
	sed -i 's/$/\r/' plan.lock
	run_imgbuild key plan.toml
	expect_status 0
	expect_equal "$stdout" "$key"
	run_imgbuild lock --check plan.toml
	expect_status 0
}

@test "a lock that a merge left half is refused with advice" {
	head -c 3000 plan.lock >half
	mv half plan.lock
	run_imgbuild key plan.toml
	expect_status 2
	expect_stderr 'plan.lock:[0-9]+:[0-9]+: .*; remove the file, and .imgbuild lock PLAN. writes it anew'
}
