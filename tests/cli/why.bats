#!/usr/bin/env bats
# Why is it another image: the document behind a key, and what differs between two of them. Entries are made through the store's
# publisher, without a boot.

load ../helper

entry_tool=$TOP/build/debug/tests/cache-entry
export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache

# A plan that needs no network: its base and kernel are files beside it.
local_plan() {
	mkdir -p "$1"
	echo base >"$1/base.img"
	echo kernel >"$1/vmlinuz"
	{
		printf 'name = "local"\n[base.amd64]\nurl = "base.img"\n[kernel.amd64]\nfile = "vmlinuz"\n'
		cat
	} >"$1/plan.toml"
}

@test "key --json is byte for byte what is hashed: sha256sum makes the key of it" {
	local_plan "$BATS_TEST_TMPDIR/p" <<-'END'
		[files."/etc/motd"]
		content = "\u20ac \u0001 \"quoted\"\n"
		[services]
		enable = ["b", "a"]
		[users.root]
		authorized_keys = ["ssh-ed25519 AAAA \u00e9 \U0001f600 \\ /"]
	END
	run_imgbuild key --arch amd64 "$BATS_TEST_TMPDIR/p/plan.toml"
	expect_status 0
	key=$stdout
	run_imgbuild key --arch amd64 --json "$BATS_TEST_TMPDIR/p/plan.toml"
	expect_status 0
	expect_equal "$(wc -l <"$BATS_TEST_TMPDIR/stdout")" 1
	jq -e .base.sha256 "$BATS_TEST_TMPDIR/stdout"
	epoch=$("$IMGBUILD" --version | sed 's/.*epoch //')
	expect_equal "$({ echo "imgbuild-epoch $epoch"; printf %s "$stdout"; } | sha256sum | cut -d' ' -f1)" "$key"
	# and it is what another program makes of the same value
	expect_equal "$(python3 -c 'import json, sys
print(json.dumps(json.load(sys.stdin), sort_keys=True, separators=(",", ":"), ensure_ascii=False))' <"$BATS_TEST_TMPDIR/stdout")" "$stdout"
}

# Publish an entry of the plan of this test, or of another; its path is left in $entry.
publish() { # [PLAN [ARCH [failed] [FILE=TEXT…]]]
	entry=$("$entry_tool" publish "$IMGBUILD_CACHE" "${1:-$plan}" "${2:-amd64}" "${@:3}")
	[ -d "$entry" ]
}
why() { run_imgbuild why --arch amd64 "$plan" "$@"; }
lock() { "$entry_tool" lock "$plan" amd64 "$@"; }
expect_line() { grep -qxF -- "$1" <<<"$stdout" || { echo "stdout has no line: $1"; return 1; }; }
# Every change in one line: input, name, field, old, new.
changes() { jq -r '.changes[] | [.input, .name, .field, (.old | tojson), (.new | tojson)] | join("|")' "$BATS_TEST_TMPDIR/stdout"; }

setup() {
	plan=$BATS_TEST_TMPDIR/p/plan.toml
}

# The plan that most tests change something in.
full_plan() {
	local_plan "$BATS_TEST_TMPDIR/p" <<-'END'
		[packages]
		all = ["podman", "crun", "strace"]
		[apt]
		remove = ["snapd"]
		debs = ["mytool.deb"]
		[services]
		enable = ["chrony"]
		[files."/etc/motd"]
		content = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n"
		[files."/etc/tool.conf"]
		source = "tool.conf"
		[files."/opt/tree"]
		source = "tree"
		[inputs.words]
		source = "words"
		[users.root]
		authorized_keys = ["ssh-ed25519 AAAA one"]
		password = "locked"
		[fstab]
		remove_patterns = ["LABEL=BOOT"]
		[setup]
		file = "setup.sh"
		[cleanup]
		remove_dirs = ["/usr/share/doc/*"]
		[image]
		size = "1G"
	END
	cd "$BATS_TEST_TMPDIR/p" || return 1
	printf 'a = 1\nb = 2\n' >tool.conf
	mkdir -p tree/sub
	echo x >tree/sub/x
	echo words >words
	echo deb >mytool.deb
	printf '#!/bin/sh\nset -eu\nuseradd tester\ncrun --version\n' >setup.sh
	lock podman=4.3.1 crun=1.8.1 strace=6.1 libc=2 -snapd
}

@test "a hit: nothing differs, and the entry's path" {
	full_plan
	publish
	why
	expect_status 0
	expect_equal "$stdout" "nothing: it is a hit
$entry"
	expect_equal "$stderr" ""
	why --json
	expect_equal "$(jq -c '[.hit, .path, .key, .changes, .entry]' <<<"$stdout")" "[true,\"$entry\",\"$(basename "$entry")\",[],null]"
	# with the entry itself named, too
	why "$(basename "$entry" | cut -c1-10)"
	expect_line "nothing: it is a hit"
}

@test "an empty cache, and none at all: nothing to compare with is an answer" {
	full_plan
	why
	expect_status 0
	expect_line "there is no amd64 image in the cache to compare with"
	why --json
	expect_equal "$(jq -c '[.hit, .entry, .entries]' <<<"$stdout")" "[false,null,0]"
	[ ! -e "$IMGBUILD_CACHE" ]
	# an image of another architecture is none to compare with
	sed 's/amd64/arm64/g' "$plan" >"$BATS_TEST_TMPDIR/p/arm.toml"
	sed -i '/packages/,/debs/d' "$BATS_TEST_TMPDIR/p/arm.toml"
	publish "$BATS_TEST_TMPDIR/p/arm.toml" arm64
	why
	expect_line "there is no amd64 image in the cache to compare with"
}

@test "every input that differs is named, with what it was and what it is" {
	full_plan
	publish
	sed -i -e 's/three/THREE/' -e 's/remove = \["snapd"\]/remove = ["snapd", "nano"]/' -e 's/enable = .*/disable = ["chrony"]\nmask = ["x.timer"]/' \
		-e 's/AAAA one/AAAA two/' -e 's/"locked"/"empty"/' -e 's/LABEL=BOOT/LABEL=UEFI/' -e 's/share\/doc/share\/man/' -e 's/1G/2G/' \
		-e 's/source = "tool.conf"/source = "tool.conf"\nmode = "0600"\nowner = "daemon:adm"/' "$plan"
	cd "$BATS_TEST_TMPDIR/p"
	printf 'a = 1\nb = 3\n' >tool.conf
	echo y >tree/sub/x
	chmod +x words
	echo deb2 >mytool.deb
	echo base2 >base.img
	echo kernel2 >vmlinuz
	sed -i 's/tester/tester2/' setup.sh
	lock podman=4.3.2 crun=1.8.1=rebuilt libc=2 tmux=3.3 -snapd -nano
	why
	expect_status 0
	while read -r line; do
		expect_line "$line"
	done <<-END
		base     sha256 $(echo base | sha256sum | cut -c1-12) -> $(echo base2 | sha256sum | cut -c1-12)
		kernel   sha256 $(echo kernel | sha256sum | cut -c1-12) -> $(echo kernel2 | sha256sum | cut -c1-12)
		package  podman 4.3.1 -> 4.3.2
		package  crun: sha256 $(printf 1.8.1 | sha256sum | cut -c1-12) -> $(printf rebuilt | sha256sum | cut -c1-12) (another package of the same version)
		package  strace 6.1 (gone)
		package  tmux 3.3 (new)
		removal  nano (new)
		deb      $(echo deb2 | sha256sum | cut -c1-12) mytool.deb (new)
		deb      $(echo deb | sha256sum | cut -c1-12) (gone)
		file     /etc/motd: content $(printf 'one\ntwo\nthree\nfour\nfive\nsix\nseven\n' | sha256sum | cut -c1-12) -> $(printf 'one\ntwo\nTHREE\nfour\nfive\nsix\nseven\n' | sha256sum | cut -c1-12)
		file     /etc/tool.conf: group root -> adm
		file     /etc/tool.conf: mode 0644 -> 0600
		file     /etc/tool.conf: owner root -> daemon
		input    words: executable none -> true
		user     root: authorized_keys ssh-ed25519 AAAA one (gone)
		user     root: authorized_keys ssh-ed25519 AAAA two (new)
		user     root: password locked -> empty
		service  chrony.service: enable -> disable
		service  x.timer: none -> mask
		fstab    remove_patterns LABEL=BOOT (gone)
		fstab    remove_patterns LABEL=UEFI (new)
		cleanup  /usr/share/doc/* (gone)
		cleanup  /usr/share/man/* (new)
		image    size 1024 MiB -> 2048 MiB
	END
	grep -qE '^file     /opt/tree: content the folder [0-9a-f]{12} -> the folder [0-9a-f]{12}$' <<<"$stdout"
	grep -qE '^setup    [0-9a-f]{12} -> [0-9a-f]{12}$' <<<"$stdout"
	refute grep -q 'libc' <<<"$stdout"
	# and nothing else: as many changes as there are, two header lines, three texts
	expect_equal "$(grep -cE '^[a-z]+ +' <<<"$stdout")" "$((27 + 1))"
}

@test "changed lines are shown where both texts are at hand: in the plan, in a file, in a script, by URL" {
	full_plan
	publish
	sed -i 's/three/THREE/' "$plan"
	cd "$BATS_TEST_TMPDIR/p"
	printf 'a = 1\nb = 3\n' >tool.conf
	printf '#!/bin/sh\nset -eu\nuseradd tester\npasswd -d tester\ncrun --version' >setup.sh
	lock podman=4.3.1 crun=1.8.1 strace=6.1 libc=2 -snapd
	why
	expect_status 0
	sed -n '/^file/,$p' <<<"$stdout" >"$BATS_TEST_TMPDIR/got"
	sed -i 's/[0-9a-f]\{12\}/X/g' "$BATS_TEST_TMPDIR/got"
	diff "$BATS_TEST_TMPDIR/got" - <<-'END'
		file     /etc/motd: content X -> X
		    @@ -1,5 +1,5 @@
		     one
		     two
		    -three
		    +THREE
		     four
		     five
		file     /etc/tool.conf: content X -> X
		    @@ -1,2 +1,2 @@
		     a = 1
		    -b = 2
		    +b = 3
		setup    X -> X
		    @@ -2,3 +2,4 @@
		     set -eu
		     useradd tester
		    -crun --version
		    +passwd -d tester
		    +crun --version
		    \ no newline at the end
	END
	why --json
	expect_equal "$(jq -c '.changes[] | select(.input == "setup") | .lines' <<<"$stdout")" \
		'["@@ -2,3 +2,4 @@"," set -eu"," useradd tester","-crun --version","+passwd -d tester","+crun --version","\\ no newline at the end"]'
	# Without the entry's copies only the digests are left.
	chmod u+w "$entry" && rm -rf "$entry/setup" "$entry/texts" "$entry/plan.toml"
	why
	expect_status 0
	refute grep -q '@@' <<<"$stdout"
	grep -q '^setup ' <<<"$stdout"
}

@test "lines of a file by URL are shown where the cache has both, and they are what they claim to be" {
	blob() { # TEXT: put it into the store, print its digest
		local hex
		hex=$(printf %s "$1" | sha256sum | cut -d' ' -f1)
		mkdir -p "$IMGBUILD_CACHE/blobs/sha256/${hex:0:2}"
		printf %s "$1" >"$IMGBUILD_CACHE/blobs/sha256/${hex:0:2}/$hex"
		echo "$hex"
	}
	one=$(blob $'a\nb\n')
	two=$(blob $'a\nc\n')
	local_plan "$BATS_TEST_TMPDIR/p" <<<"[files.\"/etc/x\"]
url = \"https://example.org/x\"
sha256 = \"$one\""
	publish
	sed -i "s/$one/$two/" "$plan"
	why
	expect_line "    -b"
	expect_line "    +c"
	printf 'a\nlies\n' >"$IMGBUILD_CACHE/blobs/sha256/${one:0:2}/$one"
	why
	expect_status 0
	refute grep -qE 'lies|@@' <<<"$stdout"
	rm "$IMGBUILD_CACHE/blobs/sha256/${one:0:2}/$one"
	why
	expect_line "file     /etc/x: content ${one:0:12} -> ${two:0:12}"
	refute grep -q '@@' <<<"$stdout"
}

@test "of a folder the paths that differ are shown" {
	full_plan
	printf '[inputs.more]\nsource = "more"\n' >>"$plan"
	cp -r tree more
	ln -s x tree/link
	mkdir tree/empty
	lock podman=4.3.1 crun=1.8.1 strace=6.1 libc=2 -snapd
	publish
	# the listing is what its digest says it is
	for file in "$entry"/texts/*; do
		expect_equal "$(sha256sum <"$file" | cut -d' ' -f1)" "$(basename "$file")"
	done
	echo longer >tree/sub/x
	ln -sf elsewhere tree/link
	rmdir tree/empty
	printf 'a\033[1m\n' >"$(printf 'tree/e\033[2Jvil')"
	chmod +x more/sub/x
	why
	expect_status 0
	sed -n '/\/opt\/tree/,$p' <<<"$stdout" | sed 's/[0-9a-f]\{12\}/X/g' >"$BATS_TEST_TMPDIR/got"
	diff "$BATS_TEST_TMPDIR/got" - <<-'END'
		file     /opt/tree: content the folder X -> the folder X
		    -empty/: mode 0755
		    -link -> x
		    +e?[2Jvil: 6 bytes, mode 0644, X
		    +link -> elsewhere
		    -sub/x: 2 bytes, mode 0644, X
		    +sub/x: 7 bytes, mode 0644, X
		input    more: content the folder X -> the folder X
		    -sub/x: 2 bytes, mode 0644, X
		    +sub/x: 2 bytes, mode 0755, X
	END
	# a listing that lies is none
	for file in "$entry"/texts/*; do
		rm -f "$file"
		printf 'imgbuild tree 1\nf 0644 1 aaaa lies\0' >"$file"
	done
	why
	expect_status 0
	refute grep -qE 'lies|sub/x' <<<"$stdout"
}

@test "a text that is not the one whose digest is in the key is not shown" {
	full_plan
	publish "$plan" amd64 setup=lies plan.toml='[files."/etc/motd"]
content = "lies"'
	sed -i 's/three/THREE/' "$plan"
	echo true >"$BATS_TEST_TMPDIR/p/setup.sh"
	lock podman=4.3.1 crun=1.8.1 strace=6.1 libc=2 -snapd
	why
	expect_status 0
	refute grep -qE '@@|lies' <<<"$stdout"
}

@test "what the lock does not answer is named, and the rest is compared all the same" {
	full_plan
	publish
	sed -i -e 's/"strace"/"strace", "tmux"/' -e 's/1G/2G/' "$plan"
	cat >>"$plan" <<-'END'
		[files."/etc/url"]
		url = "https://example.org/x"
	END
	why
	expect_status 0
	grep -q '^the key is not known' <<<"$stdout"
	grep -qE '^not known: packages: .*"tmux"' <<<"$stdout"
	expect_line "not known: files:/etc/url: the lock has no answer"
	expect_line "image    size 1024 MiB -> 2048 MiB"
	expect_line "file     /etc/url (new)"
	refute grep -qE '^package|^removal' <<<"$stdout"
	why --json
	expect_equal "$(jq -c '[.key, .hit, [.unanswered[].slot]]' <<<"$stdout")" '[null,false,["packages","files:/etc/url"]]'
	# A base that is not known: what depends on it is not known either.
	sed -i 's/url = "base.img"/url = "https:\/\/example.org\/base"/' "$plan"
	why
	expect_line "not known: base: the lock has no answer"
	expect_line "not known: packages: it depends on the base image, which the lock does not answer"
	expect_line "image    size 1024 MiB -> 2048 MiB"
	refute grep -qE '^base' <<<"$stdout"
}

@test "base and kernel are told by what the locks call them, not only by digest" {
	mkdir -p "$BATS_TEST_TMPDIR/p"
	printf '[base.amd64]\nurl = "https://example.org/debian-1.qcow2"\n[kernel.amd64]\npackage = "linux-image-cloud-amd64"\n' >"$plan"
	lock @base=https://example.org/debian-1.qcow2 one @kernel=linux-image-6.1.0-40-cloud-amd64 6.1.153-1
	publish
	sed -i 's/debian-1/debian-2/' "$plan"
	lock @base=https://example.org/debian-2.qcow2 two @kernel=linux-image-6.1.0-41-cloud-amd64 6.1.158-1
	why
	expect_status 0
	digest() { printf %s "$1" | sha256sum | cut -c1-12; }
	expect_line "base     sha256 $(digest one) -> $(digest two) (https://example.org/debian-1.qcow2 -> https://example.org/debian-2.qcow2)"
	expect_line "kernel   modules $(digest 6.1.153-1) -> $(digest 6.1.158-1)"
	expect_line "kernel   sha256 $(digest 6.1.153-1) -> $(digest 6.1.158-1) (linux-image-6.1.0-40-cloud-amd64 6.1.153-1 -> linux-image-6.1.0-41-cloud-amd64 6.1.158-1)"
	why --json
	expect_equal "$(jq -r '.changes[] | select(.input == "base") | .remark' <<<"$stdout")" \
		"https://example.org/debian-1.qcow2 -> https://example.org/debian-2.qcow2"
	# the same URL with other bytes; and a kernel out of an archive
	printf '[base.amd64]\nurl = "https://example.org/debian-2.qcow2"\n[kernel.amd64]\nurl = "https://example.org/k"\npath = "boot/vmlinux"\n' >"$plan"
	lock @base=https://example.org/debian-2.qcow2 three @member=boot/vmlinux bytes
	why
	grep -qF -- "-> $(digest three) (https://example.org/debian-1.qcow2 -> https://example.org/debian-2.qcow2)" <<<"$stdout"
	expect_line "kernel   sha256 $(digest 6.1.153-1) -> $(digest bytes) (linux-image-6.1.0-40-cloud-amd64 6.1.153-1 -> boot/vmlinux)"
	# a lock in the entry that cannot be read costs the remark, no more
	chmod u+w "$entry/plan.lock" && echo '<<<<<<<' >"$entry/plan.lock"
	why
	expect_status 0
	expect_line "kernel   sha256 $(digest 6.1.153-1) -> $(digest bytes) (now boot/vmlinux)"
}

@test "the nearest: fewest differing inputs, of equals the newest; not the name, and no failed build" {
	full_plan
	publish
	near=$entry
	sed -i 's/1G/3G/' "$plan"
	publish "$plan" amd64 failed
	sed -e 's/3G/2G/' -e 's/"snapd"/"snapd"/' -e 's/enable/mask/' "$plan" >"$BATS_TEST_TMPDIR/p/far.toml"
	cp "$BATS_TEST_TMPDIR/p/plan.lock" "$BATS_TEST_TMPDIR/p/far.lock"
	publish "$BATS_TEST_TMPDIR/p/far.toml"
	far=$entry
	why --json
	expect_equal "$(jq -r .entry.path <<<"$stdout")" "$near"
	expect_equal "$(jq -c '[.inputs, .entries]' <<<"$stdout")" '[1,2]'
	# the failed build of this very key is told of
	expect_equal "$(jq -r .failed <<<"$stdout")" "$(echo "$IMGBUILD_CACHE"/failed/*)"
	why
	expect_line "a build of it failed: $(echo "$IMGBUILD_CACHE"/failed/*)"
	# two as near: the newest
	sed 's/3G/4G/' "$plan" >"$BATS_TEST_TMPDIR/p/other.toml"
	cp "$BATS_TEST_TMPDIR/p/plan.lock" "$BATS_TEST_TMPDIR/p/other.lock"
	publish "$BATS_TEST_TMPDIR/p/other.toml"
	touch -d '1 hour ago' "$near/manifest.json"
	why --json
	expect_equal "$(jq -r .entry.path <<<"$stdout")" "$entry"
	touch -d '2 hours ago' "$entry/manifest.json"
	why --json
	expect_equal "$(jq -r .entry.path <<<"$stdout")" "$near"
	# the one that is named
	why --json "$(basename "$far" | cut -c1-12)"
	expect_equal "$(jq -r .entry.path <<<"$stdout")" "$far"
	expect_equal "$(changes)" 'service|chrony.service||["mask"]|["enable"]
image||size|2147483648|3221225472'
}

@test "a failed build, or an entry of another architecture, can be named" {
	full_plan
	publish "$plan" amd64 failed
	failed=$(basename "$entry")
	sed -i 's/1G/2G/' "$plan"
	why "$failed"
	expect_status 0
	expect_line "image    size 1024 MiB -> 2048 MiB"
	grep -qF "${failed:0:16} (failed)" <<<"$stdout"
	why --json "${failed:0:9}"
	expect_equal "$(jq -r '.entry.state' <<<"$stdout")" failed
	sed 's/amd64/arm64/g' "$plan" | sed '/packages/,/debs/d' >"$BATS_TEST_TMPDIR/p/arm.toml"
	publish "$BATS_TEST_TMPDIR/p/arm.toml" arm64
	why "$(basename "$entry")"
	expect_status 0
	expect_line "arch     arm64 -> amd64"
	why 0123456
	expect_status 2
	why xyz
	expect_status 2
}

@test "an entry that an older version wrote, without key.txt" {
	full_plan
	publish "$plan" amd64 key.txt=
	[ ! -e "$entry/key.txt" ]
	sed -i 's/1G/2G/' "$plan"
	why
	expect_status 0
	expect_line "image    size 1024 MiB -> 2048 MiB"
}

@test "a damaged entry is passed over and said; named, it is an error" {
	full_plan
	for text in '' '{' '[]' '{"version":1}' '{"version":99}' '{"version":1,"epoch":2,"inputs":{"arch":"amd64"}}' \
		"$(head -c 300000 /dev/zero | tr '\0' '[')"; do
		rm -rf "$IMGBUILD_CACHE"
		publish
		rm -f "$entry/key.txt" "$entry/manifest.json"
		printf %s "$text" >"$entry/manifest.json"
		sed 's/1G/2G/' "$plan" >"$BATS_TEST_TMPDIR/p/new.toml"
		cp "$BATS_TEST_TMPDIR/p/plan.lock" "$BATS_TEST_TMPDIR/p/new.lock"
		run_imgbuild why --arch amd64 "$BATS_TEST_TMPDIR/p/new.toml"
		expect_status 0
		expect_line "there is no amd64 image in the cache to compare with"
		expect_stderr '1 of the entries cannot be read'
		run_imgbuild why --arch amd64 "$BATS_TEST_TMPDIR/p/new.toml" "$(basename "$entry")"
		expect_status 4
		expect_equal "$stdout" ""
	done
	# a key.txt that lies, one that is a link, one that is a pipe
	for way in lie link pipe huge; do
		rm -rf "$IMGBUILD_CACHE"
		publish
		cp -f "$entry/key.txt" "$BATS_TEST_TMPDIR/key"
		rm -f "$entry/key.txt"
		case $way in
		lie) sed 's/amd64/arm64/' "$BATS_TEST_TMPDIR/key" >"$entry/key.txt" ;;
		link) ln -s "$BATS_TEST_TMPDIR/key" "$entry/key.txt" ;;
		pipe) mkfifo "$entry/key.txt" ;;
		huge) truncate -s 1T "$entry/key.txt" ;;
		esac
		run_imgbuild why --arch amd64 "$BATS_TEST_TMPDIR/p/new.toml"
		expect_status 0
		expect_stderr '1 of the entries cannot be read'
	done
}

@test "control characters of a plan or an entry do not reach the terminal" {
	full_plan
	printf '[files."/etc/evil"]\ncontent = "a\\u001b[31mred\\u0007\\u009b2J\\r\\n"\n' >>"$plan"
	publish "$plan" amd64 plan.toml="$(sed 's/^name = .*/name = "n\\u001b[2Jx\\u009b\\u007f"/' "$plan")"
	sed -i -e 's/\[31mred/[32mgreen/' -e 's/AAAA one/AAAA \\u009b1m/' "$plan"
	# Where a line is asked for, it is one without them.
	why
	expect_status 2
	expect_stderr 'authorized_keys: found "ssh-ed25519 AAAA'
	refute grep -qP '\xc2[\x80-\x9f]' "$BATS_TEST_TMPDIR/stderr"
	sed -i 's/AAAA \\u009b1m/AAAA two/' "$plan"
	why
	expect_status 0
	expect_line "    +a?[32mgreen???2J?" || expect_line "    +a?[32mgreen????2J?"
	refute grep -qP '[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]' "$BATS_TEST_TMPDIR/stdout"
	why --json
	expect_status 0
	refute grep -qP '[\x00-\x08\x0b-\x1f\x7f-\xff]' "$BATS_TEST_TMPDIR/stdout"
	jq -e . "$BATS_TEST_TMPDIR/stdout"
}

@test "passwords in URLs are not in the entry's copy of the plan" {
	local_plan "$BATS_TEST_TMPDIR/p" <<-'END'
		[files."/etc/url"]
		url = "https://user:hunter2@example.org/x"
		sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		[[apt.repository]]
		uri = "https://hunter3@example.org/debian"
		suite = "stable"
		components = ["main"]
		[apt]
		trusted = ["https://example.org/debian"]
	END
	publish
	refute grep -r hunter "$entry"
	grep -q 'https://example.org/x' "$entry/plan.toml"
	# and it is still a plan of the same key
	cp "$entry/plan.toml" "$BATS_TEST_TMPDIR/p/kept.toml"
	run_imgbuild key --arch amd64 "$BATS_TEST_TMPDIR/p/kept.toml"
	expect_equal "$stdout" "$(basename "$entry")"
}

@test "of very many entries the newest of the plan's name are looked into, and that is said" {
	full_plan
	publish
	sed -i -e 's/1G/2G/' -e 's/"locked"/"empty"/' "$plan"
	near=$entry
	touch -d '1 day ago' "$near/manifest.json"
	for i in $(seq 250); do
		cp -r "$near" "$IMGBUILD_CACHE/images/$(printf %064x "$i")"
	done
	for copy in "$IMGBUILD_CACHE"/images/0000*; do
		chmod u+w "$copy/plan.toml"
		sed -i 's/^name = .*/name = "another"/' "$copy/plan.toml"
	done
	why --json
	expect_status 0
	expect_equal "$(jq -c '[.entries, .entry.path]' <<<"$stdout")" "[251,\"$near\"]"
	expect_stderr 'of 251 images in the cache 200 were looked into'
}

@test "show tells what went in, in the same words, and nothing of it reaches the terminal as it is" {
	full_plan
	publish
	run_imgbuild show "$(basename "$entry")"
	for line in 'file         /etc/tool.conf: group root, mode 0644, owner root, sha256 fe9c2dadb34b' 'user         root: authorized_keys ssh-ed25519 AAAA one, password locked' \
		'service      chrony.service: enable' 'fstab        remove_patterns LABEL=BOOT' 'cleanup      /usr/share/doc/*' 'setup        8994117a5dc7'; do
		expect_line "$line"
	done
	grep -qE '^input        words: sha256 [0-9a-f]{12}$' <<<"$stdout"
	evil='\u001b[2J\u009b1m\u007f'
	for member in '"name":"X"' '"arch":"X"' '"base":{"distribution":"X","trust":"X"}' '"kernel":{"release":"X","format":"X"}' \
		'"installed":[{"name":"X","version":"X","arch":"X"}]' '"inputs":{"files":[{"path":"X","X":"X"}],"services":{"X":["X"]},"image":{"X":"X"}}' \
		'"build":{"accelerator":"X","steps":[{"name":"X"}]}' '"failure":{"message":"X"}' '"notes":["X"]'; do
		rm -rf "$IMGBUILD_CACHE"
		publish "$plan" amd64 manifest.json="{\"version\":1,${member//X/$evil}}"
		for option in --no-color --json; do
			run_imgbuild show "$option" "$(basename "$entry")"
			refute grep -qP '[\x00-\x08\x0b-\x1f]|\xc2[\x80-\x9f]' "$BATS_TEST_TMPDIR/stdout"
			run_imgbuild ls "$option"
			expect_status 0
			refute grep -qP '[\x00-\x08\x0b-\x1f]|\xc2[\x80-\x9f]' "$BATS_TEST_TMPDIR/stdout"
		done
	done
}

@test "stdout that is full is an error; the verb's usage" {
	full_plan
	status=0
	"$IMGBUILD" why --arch amd64 "$plan" >/dev/full 2>"$BATS_TEST_TMPDIR/stderr" || status=$?
	expect_status 4
	run_imgbuild why
	expect_status 2
	run_imgbuild why a b c
	expect_status 2
	run_imgbuild why --offline "$plan"
	expect_status 2
}
