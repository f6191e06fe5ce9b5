#!/usr/bin/env bats
# What is wrong with a plan is said all at once, with its place, and nothing is touched.

load ../helper

setup() {
	plan=$BATS_TEST_TMPDIR/p/plan.toml
	mkdir -p "$BATS_TEST_TMPDIR/p"
}

@test "all faults at once, each with file, line, column and the nearest name" {
	cat >"$plan" <<-'END'
		nme = "x"
		[base.amd64]
		url = "base.qcow2"
		sha512 = "zz"
		[image]
		size = "ten"
		labl = "x"
		[services]
		enabel = []
		[files."etc/relative"]
		content = "x"
		[provision]
		cpus = "two"
	END
	run_imgbuild "$plan"
	expect_status 2
	expect_equal "$stdout" ""
	for line in 1 4 6 7 9 10 13; do
		expect_stderr "plan\.toml:$line:[0-9]+: "
	done
	expect_stderr '`?name`?'
	expect_stderr 'label'
	expect_stderr 'enable'
}

@test "TOML that is none: one fault, with its place" {
	printf '[base.amd64]\nurl = "unterminated\n' >"$plan"
	run_imgbuild "$plan"
	expect_status 2
	expect_stderr 'plan\.toml:2:[0-9]+: '
}

@test "a plan cannot name what lies outside its folder" {
	echo secret >"$BATS_TEST_TMPDIR/secret"
	for source in ../secret "$BATS_TEST_TMPDIR/secret" /etc/shadow; do
		printf '[base.amd64]\nurl = "base.qcow2"\n[kernel.amd64]\nfile = "k"\n[files."/x"]\nsource = "%s"\n' "$source" >"$plan"
		: >"$BATS_TEST_TMPDIR/p/k"
		: >"$BATS_TEST_TMPDIR/p/base.qcow2"
		run_imgbuild key "$plan"
		expect_status 2
		expect_stderr 'allow-outside'
	done
}

@test "nor by a symbolic link" {
	echo secret >"$BATS_TEST_TMPDIR/secret"
	ln -s ../secret "$BATS_TEST_TMPDIR/p/link"
	printf '[base.amd64]\nurl = "base.qcow2"\n[kernel.amd64]\nfile = "k"\n[files."/x"]\nsource = "link"\n' >"$plan"
	: >"$BATS_TEST_TMPDIR/p/k"
	: >"$BATS_TEST_TMPDIR/p/base.qcow2"
	run_imgbuild key "$plan"
	[ "$status" = 2 ] || [ "$status" = 3 ]
	run_imgbuild key --allow-outside "$plan"
	expect_status 0
}

@test "the ancestor's plans load as they are, and what is ignored is said once" {
	for file in "$IMGBUILD_TEST_DATA"/plans/*.toml; do
		cp "$file" "$plan"
		chmod u+w "$plan"
		run_imgbuild lock --offline "$plan"
		# Offline it cannot go on, but the plan itself has no fault.
		expect_status 3
		refute_stderr 'plan\.toml:[0-9]+:[0-9]+: .*(unknown|expected)'
	done
}

@test "key needs a lock for what is not local, and says how to get one" {
	printf '[base.amd64]\nurl = "http://192.0.2.1/base.qcow2"\n[kernel.amd64]\nfrom = "base"\n' >"$plan"
	run_imgbuild key "$plan"
	expect_status 2
	expect_stderr 'imgbuild lock'
}

@test "lock that cannot write the lock fails" {
	alpine_plan "$BATS_TEST_TMPDIR/p" </dev/null
	tar -C "$BATS_TEST_TMPDIR/p" -cf "$BATS_TEST_TMPDIR/p/k.tar" bzImage
	sed -i 's/^file = .*/url = "k.tar"\npath = "bzImage"/' "$plan"
	chmod 555 "$BATS_TEST_TMPDIR/p"
	run_imgbuild lock "$plan"
	chmod 755 "$BATS_TEST_TMPDIR/p"
	expect_status 4
	expect_stderr 'lock.*Permission denied'
	run_imgbuild lock "$plan"
	expect_status 0
	[ -s "${plan%.toml}.lock" ]
}

@test "--locked never makes a first use" {
	cp "$(fixture alpine.sh)" "$BATS_TEST_TMPDIR/p/base.qcow2"
	cp "$(fixture builtin-kernel.sh)/bzImage" "$BATS_TEST_TMPDIR/p/bzImage"
	url=$("$TOP/tests/fixtures/nginx.sh" start "$BATS_TEST_TMPDIR/nginx" "$BATS_TEST_TMPDIR/p")
	printf '[base.amd64]\nurl = "%s/base.qcow2"\n[kernel.amd64]\nfile = "bzImage"\n' "$url" >"$plan"
	run_imgbuild --locked "$plan"
	"$TOP/tests/fixtures/nginx.sh" stop "$BATS_TEST_TMPDIR/nginx"
	[ "$status" = 2 ] || [ "$status" = 3 ]
	[ ! -e "${plan%.toml}.lock" ]
	refute grep -q GET "$BATS_TEST_TMPDIR/nginx/access.log"
}

@test "a mirror comes from the environment too, and a wrong one is an error of use" {
	printf '[base.amd64]\nurl = "http://example.org/none.qcow2"\n' >"$BATS_TEST_TMPDIR/p/plan.toml"
	IMGBUILD_MIRROR='host nonsense' run_imgbuild --offline "$BATS_TEST_TMPDIR/p/plan.toml"
	expect_status 2
	expect_stderr 'nonsense.*ORIGIN=URL'
	IMGBUILD_MIRROR='host http://a.example.org/debian=http://b.example.org/debian' \
		run_imgbuild --offline "$BATS_TEST_TMPDIR/p/plan.toml"
	expect_status 3
}
