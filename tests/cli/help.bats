#!/usr/bin/env bats
# --help, the manual page and the completion say the same, and usage errors are helpful.

load ../helper

verbs() { "$IMGBUILD" --help | sed -nE 's/^  (imgbuild )?(\[?[a-z]+\]?) .*/\2/p' | tr -d '[]' | grep -xE 'build|lock|key|why|inspect|extract|clone|ls|show|verify|gc|pin|unpin|export|import|shell|vendor|help' | sort -u; }
options() { "$IMGBUILD" --help | grep -oE '(^|[ ,])--[a-z][a-z-]+' | tr -d ' ,' | sort -u; }

@test "--help goes to stdout and ends with 0" {
	run_imgbuild --help
	expect_status 0
	expect_equal "$stderr" ""
	grep -q imgbuild <<<"$stdout"
	[ "$(verbs | wc -l)" -ge 8 ]
	[ "$(options | wc -l)" -ge 10 ]
}

@test "every verb has help of its own" {
	for verb in $(verbs); do
		run_imgbuild help "$verb"
		expect_status 0
		grep -q "$verb" <<<"$stdout"
		[ "$verb" = help ] || { run_imgbuild "$verb" --help && expect_status 0; }
	done
}

@test "the manual has every verb and option of --help, and no other" {
	manual=$BATS_TEST_TMPDIR/manual
	sed -nE 's/^\.It (.*)/\1/p' "$TOP/docs/imgbuild.1" >"$manual"
	grep -oE 'Fl -[a-z][a-z-]+' "$manual" | sed 's/^Fl /-/' | sort -u >"$BATS_TEST_TMPDIR/manual.options"
	options >"$BATS_TEST_TMPDIR/help.options"
	diff "$BATS_TEST_TMPDIR/help.options" "$BATS_TEST_TMPDIR/manual.options"
	sed -nE 's/^Cm ([a-z]+).*/\1/p' "$manual" | sort -u >"$BATS_TEST_TMPDIR/manual.verbs"
	verbs >"$BATS_TEST_TMPDIR/help.verbs"
	diff "$BATS_TEST_TMPDIR/help.verbs" "$BATS_TEST_TMPDIR/manual.verbs"
}

@test "the completion has every verb and option of --help, and no other" {
	completion=$(tr '\n\t' '  ' <"$TOP/docs/completions/imgbuild.bash")
	sed -E "s/.*local options='([^']*)'.*/\1/" <<<"$completion" | tr -s ' ' '\n' | sort -u >"$BATS_TEST_TMPDIR/options"
	diff <(options) "$BATS_TEST_TMPDIR/options"
	sed -E "s/.*local verbs='([^']*)'.*/\1/" <<<"$completion" | tr -s ' ' '\n' | sort -u >"$BATS_TEST_TMPDIR/verbs"
	diff <(verbs) "$BATS_TEST_TMPDIR/verbs"
}

@test "the completion completes" {
	# shellcheck source=../../docs/completions/imgbuild.bash
	source "$TOP/docs/completions/imgbuild.bash"
	COMP_WORDS=(imgbuild --acc) COMP_CWORD=1
	_imgbuild
	expect_equal "${COMPREPLY[*]}" --accel
	COMP_WORDS=(imgbuild build --accel t) COMP_CWORD=3
	_imgbuild
	expect_equal "${COMPREPLY[*]}" tcg
}

@test "--version" {
	run_imgbuild --version
	expect_status 0
	grep -qE '^imgbuild [0-9]+\.[0-9]+' <<<"$stdout"
}

@test "nothing, an unknown verb, an unknown option, a missing argument: exit 2, and what was meant" {
	run_imgbuild
	expect_status 2
	expect_stderr 'imgbuild --help'
	run_imgbuild shw abc
	expect_status 2
	expect_stderr 'show'
	run_imgbuild --acel tcg build plan.toml
	expect_status 2
	expect_stderr '--accel'
	run_imgbuild build
	expect_status 2
	run_imgbuild build --accel
	expect_status 2
	run_imgbuild build --accel fast plan.toml
	expect_status 2
	expect_stderr 'auto, kvm, tcg'
	expect_equal "$stdout" ""
}

@test "a plan that is not there: exit 2 and its name" {
	run_imgbuild "$BATS_TEST_TMPDIR/none.toml"
	expect_status 2
	expect_stderr 'none\.toml'
}

@test "a closed or full stdout is an error" {
	status=0
	"$IMGBUILD" --help >/dev/full 2>"$BATS_TEST_TMPDIR/stderr" || status=$?
	expect_status 4
}

@test "an unknown key, and a prefix too short to be one" {
	run_imgbuild show 0123456789ab
	expect_status 2
	run_imgbuild clone zz "$BATS_TEST_TMPDIR/out"
	[ "$status" != 0 ]
	[ ! -e "$BATS_TEST_TMPDIR/out" ]
}

@test "ls of a cache that is not there yet is empty and fine" {
	run_imgbuild ls --cache "$BATS_TEST_TMPDIR/none"
	expect_status 0
	expect_equal "$stdout" ""
	run_imgbuild ls --json --cache "$BATS_TEST_TMPDIR/none"
	expect_status 0
	expect_equal "$(jq length <<<"$stdout")" 0
}
