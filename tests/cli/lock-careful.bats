#!/usr/bin/env bats
# What `imgbuild lock` says and writes is true, keeps secrets, and stays on its own ground.

load ../helper

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	mkdir mirror
	echo text >mirror/f.txt
	cp mirror/f.txt mirror/g.txt
	cat >plan.toml <<-'END'
		[base.amd64]
		url = "base.img"
		[kernel.amd64]
		file = "bzImage"
		[files."/etc/f"]
		url = "http://files.example.org/x/f.txt"
	END
	echo base >base.img
	echo kernel >bzImage
	mirror=http://files.example.org/x=$BATS_TEST_TMPDIR/mirror
}

@test "a first use names the mirror that the bytes came from" {
	run_imgbuild lock plan.toml --mirror "$mirror"
	expect_status 0
	expect_stderr "no digest of it is known yet, and what came is .*mirror/f.txt, in place of http://files.example.org/x/f.txt"
	expect_stderr 'first use of the files:/etc/f: nothing vouches for it but that it is what came for http://files.example.org/x/f.txt now'
	# With a digest it does not matter where they came from.
	sed -i "\$a sha256 = \"$(sha256sum <mirror/f.txt | cut -d' ' -f1)\"" plan.toml
	rm -r cache plan.lock
	run_imgbuild vendor plan.toml -o blobs --mirror "$mirror"
	expect_status 0
	refute_stderr 'in place of|first use'
}

@test "a lock that is written anew is not called unchanged" {
	run_imgbuild lock plan.toml --mirror "$mirror"
	run_imgbuild lock plan.toml --mirror "$mirror"
	expect_status 0
	expect_stderr 'nothing changed in `plan.lock`'
	sed -i 's/f\.txt/g.txt/' plan.toml
	before=$(cat plan.lock)
	run_imgbuild lock plan.toml --mirror "$mirror"
	expect_status 0
	refute test "$(cat plan.lock)" = "$before"
	expect_stderr '`plan.lock` was written anew: it answers what the plan asks now; no input changed'
	refute_stderr 'nothing changed'
}

@test "a lock that is a symbolic link is written where it leads" {
	mkdir locks
	: >locks/real.lock
	printf 'version = 2\n' >locks/real.lock
	ln -s locks/real.lock plan.lock
	run_imgbuild lock plan.toml --mirror "$mirror"
	expect_status 0
	expect_equal "$(readlink plan.lock)" locks/real.lock
	grep -q 'files:/etc/f' locks/real.lock
	run_imgbuild lock --check plan.toml
	expect_status 0
	rm locks/real.lock
	run_imgbuild lock plan.toml --mirror "$mirror"
	refute test "$status" = 0
	expect_stderr 'the lock `plan.lock` is a symbolic link that leads nowhere'
	[ -L plan.lock ]
}

@test "nothing of a stranger's lock reaches the terminal as it is" {
	run_imgbuild lock plan.toml --mirror "$mirror"
	cp plan.lock good.lock
	{
		cat good.lock
		printf '\n[[amd64.sources]]\nslot = "files:/x\\u009B31mRED"\nquestion = "%064d"\nsize = 6\nsha256 = "%064d"\ntrust = "first-use"\n' 1 2
	} >plan.lock
	run_imgbuild lock plan.toml --mirror "$mirror"
	expect_status 2
	expect_stderr 'plan.lock:[0-9]*:[0-9]*: slot: '
	refute grep -qP '\xc2\x9b' stdout stderr
	# Directions are letters to a TOML reader, and no more than that to the eye.
	{
		cat good.lock
		printf '\n[[amd64.sources]]\nslot = "files:/x\\u202Eevil"\nquestion = "%064d"\nsize = 6\nsha256 = "%064d"\ntrust = "first-use"\n' 1 2
	} >plan.lock
	run_imgbuild lock plan.toml --mirror "$mirror"
	refute grep -qP '\xe2\x80\xae' stdout stderr
}

@test "passwords in mistyped options are not printed" {
	run_imgbuild lock plan.toml --mirror http://user:SECRET@mirror.example.org/x
	expect_status 2
	expect_stderr 'mirror.example.org'
	IMGBUILD_MIRROR='=http://user:SECRET@mirror.example.org/x' run_imgbuild lock plan.toml
	expect_status 2
	expect_stderr 'expected ORIGIN=URL or host'
	run_imgbuild vendor plan.toml -o http://user:SECRET@blobs.example.org/x --mirror "$mirror"
	expect_status 2
	expect_stderr 'a folder of this machine, not an address'
	refute test -e http:
	refute grep -rq SECRET stdout stderr cache
}
