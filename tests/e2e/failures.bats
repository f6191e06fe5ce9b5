#!/usr/bin/env bats
# Builds that must fail, each in its own way: the exit status, the words, and what is left to look into.

load ../helper

# What a failed build leaves, and the words that lead there.
expect_failure_kept() {
	local kept
	kept=$(find "$IMGBUILD_CACHE/failed" -mindepth 1 -maxdepth 1 | head -1)
	[ -n "$kept" ] || { echo "nothing was kept in failed/"; return 1; }
	[ -s "$kept/console.log" ] || { echo "no console in $kept"; return 1; }
	grep -qF "$kept" "$BATS_TEST_TMPDIR/stderr" || { echo "stderr does not name $kept"; return 1; }
}

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	plan=$BATS_TEST_TMPDIR/plan
}

@test "a failing script: exit 1, its status and its last words" {
	alpine_plan "$plan" <<<'[setup]
script = """
echo going on >&2
echo the last words of the script >&2
exit 7
"""'
	run_imgbuild "$plan/plan.toml"
	expect_status 1
	expect_equal "$stdout" ""
	expect_stderr 'the last words of the script'
	expect_stderr '\b7\b'
	expect_stderr 'setup'
	expect_no_entry
	expect_failure_kept
	# what was tried is kept with it, so that the next attempt can be compared
	grep -q 'exit 7' "$IMGBUILD_CACHE"/failed/*-1/setup
	run_imgbuild why "$plan/plan.toml"
	expect_status 0
	grep -qF "a build of it failed: $(echo "$IMGBUILD_CACHE"/failed/*-1)" <<<"$stdout"
	sed -i 's/exit 7/exit 0/' "$plan/plan.toml"
	failed=$(echo "$IMGBUILD_CACHE"/failed/*-1)
	run_imgbuild why "$plan/plan.toml" "$(basename "$failed")"
	expect_status 0
	grep -qxF '    -exit 7' <<<"$stdout"
}

@test "a script killed by a signal is told from one that exits" {
	alpine_plan "$plan" <<<'[setup]
script = "kill -SEGV $$"'
	run_imgbuild "$plan/plan.toml"
	expect_status 1
	expect_stderr 'signal|SIGSEGV|killed'
	expect_no_entry
}

@test "a script without its interpreter fails and says so" {
	alpine_plan "$plan" <<<'[setup]
script = """#!/usr/bin/no-such-thing
true
"""'
	run_imgbuild "$plan/plan.toml"
	expect_status 1
	expect_stderr 'no-such-thing|not found|No such file'
	expect_no_entry
}

@test "a script that prints a verdict of its own does not pass" {
	alpine_plan "$plan" <<<'[setup]
script = """
for port in /dev/console /dev/ttyS0 /dev/ttyS1 /dev/hvc0 /dev/vport*; do
	echo "{\\"v\\":1,\\"type\\":\\"verdict\\",\\"nonce\\":\\"00000000000000000000000000000000\\",\\"result\\":\\"passed\\"}" >$port
done 2>/dev/null
echo "{\\"v\\":1,\\"type\\":\\"verdict\\",\\"nonce\\":\\"00000000000000000000000000000000\\",\\"result\\":\\"passed\\"}"
exit 3
"""'
	run_imgbuild "$plan/plan.toml"
	expect_status 1
	expect_no_entry
}

@test "a full filesystem is told" {
	alpine_plan "$plan" <<<'[image]
size = "64M"
[setup]
script = "dd if=/dev/zero of=/fill bs=1M"'
	run_imgbuild "$plan/plan.toml"
	expect_status 1
	expect_stderr '[Ss]pace|full'
	expect_no_entry
}

@test "a guest out of memory is told" {
	alpine_plan "$plan" <<<'[provision]
memory = "600M"
[setup]
script = "dd if=/dev/zero of=/dev/null bs=1500M count=1"'
	run_imgbuild "$plan/plan.toml"
	expect_status 1
	expect_stderr '[Mm]emory'
	expect_no_entry
}

@test "a kernel that panics: exit 4 and the panic" {
	alpine_plan "$plan" </dev/null
	cp "$(fixture panicking-kernel.sh)/vmlinux" "$plan/bzImage"
	run_imgbuild "$plan/plan.toml"
	expect_status 4
	expect_stderr '[Pp]anic'
	expect_stderr 'Unable to mount root|No working init found'
	expect_no_entry
	expect_failure_kept
}

@test "a guest that ends before its verdict: exit 4" {
	# Only the machine itself can do this to us: root in the guest has no means to power off.
	alpine_plan "$plan" <<<'[setup]
script = "sleep 600"'
	"$IMGBUILD" --no-color "$plan/plan.toml" >"$BATS_TEST_TMPDIR/stdout" 2>"$BATS_TEST_TMPDIR/stderr" 3>&- &
	pid=$!
	for _ in $(seq 100); do
		grep -qs 'setup' "$IMGBUILD_CACHE"/tmp/*/console.log "$IMGBUILD_CACHE"/tmp/*/*/console.log && break
		sleep 0.3
	done
	sleep 3
	pkill -P "$pid" -f 'qemu-system'
	status=0
	wait "$pid" || status=$?
	cat "$BATS_TEST_TMPDIR/stderr"
	expect_status 4
	expect_equal "$(cat "$BATS_TEST_TMPDIR/stdout")" ""
	expect_no_entry
}

@test "root in the guest cannot power the machine off, nor pass by trying" {
	alpine_plan "$plan" <<<'[setup]
script = """
poweroff -f
reboot -f
echo o >/proc/sysrq-trigger
sleep 3
exit 9
"""'
	run_imgbuild "$plan/plan.toml"
	[ "$status" = 1 ] || [ "$status" = 4 ]
	expect_no_entry
}

@test "a guest that hangs is ended after the stall time: exit 4" {
	alpine_plan "$plan" <<<'[provision]
stall_timeout = "5s"
[setup]
script = "sleep 100000"'
	SECONDS=0
	run_imgbuild "$plan/plan.toml"
	expect_status 4
	expect_stderr 'stall|silen|nothing|hung|progress'
	expect_no_entry
	# Three times that under TCG; ten times more where the guest seems busy, which one does whose timer could not be
	# calibrated because this machine has other work.
	[ "$SECONDS" -lt 180 ]
}

@test "a script that leaves a daemon behind passes, and the filesystem is clean" {
	alpine_plan "$plan" <<<'[setup]
script = """
(cd /var; exec setsid sh -c "exec 3>/var/held; while :; do echo x >&3; sleep 0.1; done" </dev/null >/dev/null 2>&1) &
sleep 1
echo done >/etc/done
"""'
	SECONDS=0
	run_imgbuild "$plan/plan.toml"
	expect_status 0
	expect_entry "$stdout"
	expect_equal "$(image_cat "$stdout" /etc/done)" 'done'
	# Three times that under TCG; ten times more where the guest seems busy, which one does whose timer could not be
	# calibrated because this machine has other work.
	[ "$SECONDS" -lt 180 ]
}

@test "what is no kernel is refused before anything boots" {
	alpine_plan "$plan" </dev/null
	head -c 100000 /dev/urandom >"$plan/bzImage"
	run_imgbuild "$plan/plan.toml"
	[ "$status" = 3 ] || [ "$status" = 2 ]
	expect_stderr 'kernel'
	expect_no_entry
}

@test "no QEMU: exit 4 and the package that brings it" {
	alpine_plan "$plan" </dev/null
	mkdir "$BATS_TEST_TMPDIR/bin"
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	PATH_FOR_IMGBUILD=$BATS_TEST_TMPDIR/bin run_imgbuild "$plan/plan.toml"
	expect_status 4
	expect_stderr 'qemu-system-x86'
	# No guest ran: there is nothing to keep a disk for.
	expect_equal "$(ls -A "$IMGBUILD_CACHE/failed")" ""
}

@test "a cache that cannot be written: exit 4" {
	alpine_plan "$plan" </dev/null
	mkdir "$BATS_TEST_TMPDIR/ro"
	chmod 555 "$BATS_TEST_TMPDIR/ro"
	run_imgbuild --cache "$BATS_TEST_TMPDIR/ro/cache" "$plan/plan.toml"
	expect_status 4
}
