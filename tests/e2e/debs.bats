#!/usr/bin/env bats
# Local packages that are difficult on purpose, on the Debian base with the all-in-one kernel.

load ../helper

# deb NAME VERSION CONTROL-LINES POSTINST CONFFILE: makes debs/NAME_VERSION_all.deb.
deb() {
	local tree=$BATS_TEST_TMPDIR/tree name=$1 version=$2
	rm -rf "$tree"
	mkdir -p "$tree/DEBIAN" "$tree/usr/share/$name" "$plan/debs"
	printf 'Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Tests <tests@example.org>\nDescription: for a test\n%s' \
		"$name" "$version" "${3:+$3
}" >"$tree/DEBIAN/control"
	echo "$version" >"$tree/usr/share/$name/version"
	if [ -n "${4:-}" ]; then
		printf '#!/bin/sh\nset -e\n%s\n' "$4" >"$tree/DEBIAN/postinst"
		chmod 755 "$tree/DEBIAN/postinst"
	fi
	if [ -n "${5:-}" ]; then
		mkdir -p "$tree/etc"
		echo "from the package" >"$tree/etc/$5"
		echo "/etc/$5" >"$tree/DEBIAN/conffiles"
	fi
	dpkg-deb --root-owner-group -b "$tree" "$plan/debs/${name}_${version}_all.deb" >/dev/null
}

write_plan() {
	cp --reflink=auto "$(fixture debian-base.sh)/base.qcow2" "$plan/base.qcow2"
	cp "$(fixture builtin-kernel.sh)/bzImage" "$plan/bzImage"
	{
		printf '[base.amd64]\nurl = "base.qcow2"\n[kernel.amd64]\nfile = "bzImage"\n[image]\nsize = "4G"\n[apt]\ndebs = ['
		(cd "$plan" && printf '"%s", ' debs/*.deb)
		printf ']\n'
		cat
	} >"$plan/plan.toml"
}

setup() {
	plan=$BATS_TEST_TMPDIR/plan
	mkdir -p "$plan"
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	find_mirrors
}

@test "a chain of Pre-Depends, a replaced package and a conffile that the image has already" {
	deb chain-a 1.0 'Pre-Depends: chain-b (>= 1.0)' 'test -f /usr/share/chain-b/configured'
	deb chain-b 1.0 'Pre-Depends: chain-c' 'test -f /usr/share/chain-c/configured; : >/usr/share/chain-b/configured'
	deb chain-c 1.0 '' ': >/usr/share/chain-c/configured'
	# It takes the place of an installed package, as chrony does of systemd-timesyncd.
	deb my-timesync 1.0 'Provides: time-daemon
Conflicts: time-daemon
Replaces: time-daemon'
	deb asks 1.0 '' '' issue.test
	write_plan <<-'END'
		[files."/etc/issue.test"]
		content = "from the plan\n"
	END
	run_imgbuild "${mirror_options[@]}" "$plan/plan.toml"
	expect_status 0
	expect_entry "$stdout"
	for package in chain-a chain-b chain-c my-timesync asks; do
		jq -e --arg p "$package" '.packages[] | select(.name == $p and .version == "1.0")' "$stdout/manifest.json" >/dev/null
	done
	jq -e '.removed | index("systemd-timesyncd")' "$stdout/manifest.json"
	expect_equal "$(image_cat "$stdout" /etc/issue.test)" "from the plan"
	run boot_entry "$stdout" --shell -- 'dpkg --audit; dpkg -l | grep -c ^ii'
	expect_equal "$status" 0
}

@test "a package whose script fails: exit 1, the package, its last words" {
	deb good 1.0
	deb bad-one 2.0 '' 'echo the last words of bad-one; exit 33'
	write_plan </dev/null
	run_imgbuild "${mirror_options[@]}" "$plan/plan.toml"
	expect_status 1
	expect_equal "$stdout" ""
	expect_stderr 'bad-one'
	expect_stderr 'the last words of bad-one'
	expect_no_entry
}

@test "a package that starts a service and leaves a daemon: neither stays" {
	deb starter 1.0 '' 'invoke-rc.d ssh start || true
(setsid sleep 10000 </dev/null >/dev/null 2>&1 &)
deb-systemd-invoke start ssh.service || true'
	write_plan </dev/null
	run_imgbuild "${mirror_options[@]}" "$plan/plan.toml"
	expect_status 0
	expect_entry "$stdout"
}

@test "a dependency that nobody has: exit 2 or 3, and which" {
	deb lonely 1.0 'Depends: nobody-has-this (>= 3)'
	write_plan </dev/null
	run_imgbuild "${mirror_options[@]}" "$plan/plan.toml"
	[ "$status" = 2 ] || [ "$status" = 3 ]
	expect_stderr 'lonely'
	expect_stderr 'nobody-has-this'
	expect_no_entry
}
