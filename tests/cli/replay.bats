#!/usr/bin/env bats
# A lock builds when its servers have moved on: files are sought by their digest. Everything is served on loopback; nothing boots.

load ../helper
# shellcheck source=../fixtures/archive.bash
source "$TOP/tests/fixtures/archive.bash"

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache IMGBUILD_RETRY_DELAY_MS=20
	# What is not on loopback is asked of a proxy that nobody runs: the origins and snapshot.debian.org are really out of reach.
	export http_proxy=http://127.0.0.1:9 https_proxy=http://127.0.0.1:9 no_proxy=127.0.0.1 NO_PROXY=127.0.0.1
	p=$BATS_TEST_TMPDIR/p plan=$BATS_TEST_TMPDIR/p/plan.toml
	www=$BATS_TEST_TMPDIR/www store=$BATS_TEST_TMPDIR/store log=$BATS_TEST_TMPDIR/nginx/access.log
	mkdir -p "$p" "$www/images" "$www/kernels" "$store/sha256"
	cp "$(fixture alpine.sh)" "$www/images/base.qcow2"
	cp "$(fixture builtin-kernel.sh)/bzImage" "$www/kernels/bzImage"
	echo 'a file of the plan' >"$www/motd"
	chmod -R u+w "$www"
	base=$(sha256sum <"$www/images/base.qcow2" | cut -d' ' -f1)
	kernel=$(sha256sum <"$www/kernels/bzImage" | cut -d' ' -f1)
	motd=$(sha256sum <"$www/motd" | cut -d' ' -f1)
}

teardown() {
	archive_stop
	"$TOP/tests/fixtures/nginx.sh" stop "$BATS_TEST_TMPDIR/nginx"
}

start_nginx() {
	url=$("$TOP/tests/fixtures/nginx.sh" start "$BATS_TEST_TMPDIR/nginx" "$www" 3>&-)
}

# A plan whose base, kernel and one file come from ORIGIN.
plan_from() { # ORIGIN
	printf '%s\n' '[base.amd64]' "url = \"$1/images/base.qcow2\"" '[kernel.amd64]' "url = \"$1/kernels/bzImage\"" \
		'[files."/etc/motd"]' "url = \"$1/motd\"" "sha256 = \"$motd\"" >"$plan"
}

# Put files into the store of blobs, each under its digest.
into_store() { # FILE…
	local file
	for file; do cp "$file" "$store/sha256/$(sha256sum <"$file" | cut -d' ' -f1)"; done
}

forget_everything() {
	chmod -R u+w "$IMGBUILD_CACHE"
	rm -rf "$IMGBUILD_CACHE"
}

asked() { grep -F "GET $1 " "$log"; }

@test "a mirror rule is good for a base, a kernel and a file, and the lock keeps the origin" {
	start_nginx
	plan_from https://images.example.org/of
	run_imgbuild lock "$plan" --mirror "https://images.example.org/of=$url"
	expect_status 0
	grep -q 'https://images.example.org/of/images/base.qcow2' "${plan%.toml}.lock"
	refute grep -qF "$url" "${plan%.toml}.lock"
	asked /images/base.qcow2
	asked /kernels/bzImage
	# The same by the environment, on a machine that has nothing yet.
	cp "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/lock"
	forget_everything
	rm "${plan%.toml}.lock"
	IMGBUILD_MIRROR="https://images.example.org/of=$url" run_imgbuild lock "$plan"
	expect_status 0
	cmp "$BATS_TEST_TMPDIR/lock" "${plan%.toml}.lock"
}

@test "a mirror that lacks a file: the next rule, then the origin" {
	start_nginx
	plan_from "$url"
	run_imgbuild lock "$plan" --mirror "$url=$url/none" --mirror "$url=$url/neither"
	expect_status 0
	asked /none/images/base.qcow2
	asked /neither/images/base.qcow2
	asked /images/base.qcow2
}

@test "--blobs: neither http nor a folder, or with a query: exit 2, and no password in the message" {
	plan_from http://127.0.0.1:9
	run_imgbuild lock "$plan" --blobs ftp://user:hunter2@example.org/x
	expect_status 2
	expect_stderr 'ftp://example.org/x'
	refute_stderr hunter2
	run_imgbuild lock "$plan" --blobs 'https://example.org/x?token=hunter2'
	expect_status 2
	refute_stderr hunter2
}

@test "vendor gathers all that the lock names, once, and sha256sum agrees" {
	start_nginx
	plan_from "$url"
	run_imgbuild vendor "$plan" -o "$BATS_TEST_TMPDIR/v/blobs"
	expect_status 0
	expect_equal "$stdout" "$BATS_TEST_TMPDIR/v/blobs"
	cd "$BATS_TEST_TMPDIR/v/blobs"
	expect_equal "$(ls)" "$(printf 'SHA256SUMS\nindex.tsv\nsha256')"
	expect_equal "$(ls sha256)" "$(printf '%s\n' "$base" "$kernel" "$motd" | sort)"
	sha256sum -c SHA256SUMS
	expect_equal "$(wc -l <SHA256SUMS)" 3
	grep -E "^$base	[0-9]+	amd64	base image		$url/images/base.qcow2$" index.tsv
	grep -E "^$motd	$(stat -c %s "$www/motd")	amd64	files:/etc/motd		" index.tsv
	# They are files of their own, and not links into the cache.
	expect_equal "$(stat -c %h "sha256/$base")" 1
	# A second time: nothing is asked for, nothing changes.
	before=$(stat -c '%n %i %y' sha256/*)
	: >"$log"
	run_imgbuild vendor "$plan" -o . --json
	expect_status 0
	expect_equal "$(jq -c '[.files, .added, .replaced]' <<<"$stdout")" '[3,0,0]'
	expect_equal "$(stat -c '%n %i %y' sha256/*)" "$before"
	expect_equal "$(wc -l <"$log")" 0
}

@test "vendor: several plans share a folder; what is wrong in it is said and replaced" {
	start_nginx
	plan_from "$url"
	run_imgbuild vendor "$plan" -o "$store"
	expect_status 0
	echo 'another file' >"$www/motd"
	other=$(sha256sum <"$www/motd" | cut -d' ' -f1)
	mkdir "$BATS_TEST_TMPDIR/q"
	sed "s/$motd/$other/" "$plan" >"$BATS_TEST_TMPDIR/q/plan.toml"
	cp "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/q/"
	echo spoilt >"$store/sha256/$kernel"
	ln -sf /etc/passwd "$store/sha256/$base"
	run_imgbuild vendor "$BATS_TEST_TMPDIR/q/plan.toml" -o "$store" --json
	expect_status 0
	expect_equal "$(jq -c '[.files, .added, .replaced]' <<<"$stdout")" '[3,1,2]'
	expect_stderr "$kernel.*has the SHA-256 $(echo spoilt | sha256sum | cut -d' ' -f1).*replaced"
	expect_stderr "$base.*no regular file.*replaced"
	(cd "$store" && sha256sum -c SHA256SUMS)
	expect_equal "$(wc -l <"$store/SHA256SUMS")" 4
	expect_equal "$(cut -f1 "$store/index.tsv" | grep -c "^[0-9a-f]*$")" 4
	grep "^$motd" "$store/index.tsv"
	grep "^$other" "$store/index.tsv"
}

@test "vendor: a damaged file of the cache is not handed on" {
	start_nginx
	plan_from "$url"
	run_imgbuild lock "$plan"
	expect_status 0
	blob=$IMGBUILD_CACHE/blobs/sha256/${kernel:0:2}/$kernel
	damage_blob "$blob"
	run_imgbuild vendor --offline "$plan" -o "$store"
	expect_status 3
	expect_stderr "cache is damaged: .$blob. had the SHA-256 $bad, not $kernel"
	[ ! -e "$store/sha256/$kernel" ]
	[ ! -e "$store/SHA256SUMS" ]
	# Where the right bytes are, they take its place.
	run_imgbuild vendor "$plan" -o "$store"
	expect_status 0
	expect_equal "$(sha256sum <"$store/sha256/$kernel" | cut -d' ' -f1)" "$kernel"
}

@test "build: a base that was changed in the cache is not taken, but fetched again" {
	start_nginx
	plan_from "$url"
	run_imgbuild lock "$plan"
	expect_status 0
	# Whatever was taken out of it is not there.
	chmod -R u+w "$IMGBUILD_CACHE/roots"
	rm -rf "$IMGBUILD_CACHE/roots"
	blob=$IMGBUILD_CACHE/blobs/sha256/${base:0:2}/$base
	damage_blob "$blob"
	PATH_FOR_IMGBUILD=/nonexistent run_imgbuild build --offline "$plan"
	expect_status 3
	expect_stderr "cache is damaged: .$blob. had the SHA-256 $bad, not $base"
	[ -z "$(ls "$IMGBUILD_CACHE/roots")" ]
	# By the right copy of somebody else.
	into_store "$www/images/base.qcow2" "$www/motd"
	install -m 644 "$www/images/base.qcow2" "$blob"
	damage_blob "$blob"
	PATH_FOR_IMGBUILD=/nonexistent run_imgbuild build --offline --blobs "$store" "$plan"
	expect_status 4
	expect_stderr 'qemu-system'
	expect_stderr "warning.*cache is damaged: .$blob. had the SHA-256 $bad, not $base"
	cmp "$www/images/base.qcow2" "$blob"
}

@test "build: a root in the cache is not taken for that of a base which the plan pins by SHA-512" {
	# The root of another base, which is of use to another plan.
	cp "$www/images/base.qcow2" "$www/images/other.qcow2"
	printf '%512s' '' >>"$www/images/other.qcow2"
	other=$(sha256sum <"$www/images/other.qcow2" | cut -d' ' -f1)
	start_nginx
	plan_from "$url"
	sed -i 's|base.qcow2|other.qcow2|' "$plan"
	PATH_FOR_IMGBUILD=/nonexistent run_imgbuild build "$plan"
	expect_status 4
	ls -d "$IMGBUILD_CACHE/roots/$other"-*
	rm "${plan%.toml}.lock"
	plan_from "$url"
	sed -i "/base.qcow2/a sha512 = \"$(sha512sum <"$www/images/base.qcow2" | cut -d' ' -f1)\"" "$plan"
	PATH_FOR_IMGBUILD=/nonexistent run_imgbuild build "$plan"
	expect_status 4
	expect_stderr 'qemu-system'
	# Its own root is taken from there, without the image being asked for again.
	PATH_FOR_IMGBUILD=/nonexistent run_imgbuild build --offline --locked "$plan"
	expect_status 4
	refute_stderr extract
	cp "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/lock"
	sed -i "s/$base/$other/" "${plan%.toml}.lock"
	for blob in there gone; do
		PATH_FOR_IMGBUILD=/nonexistent run_imgbuild build --offline --locked "$plan"
		expect_status 3
		expect_stderr 'base image'
		refute_stderr 'qemu-system'
		rm -f "$IMGBUILD_CACHE/blobs/sha256/${other:0:2}/$other"
	done
	# Nor with an answer that is of another SHA-512 by its own words.
	sed "s/$base/$other/; /^sha512/s/\"./\"g/; /^sha512/s/g/$(printf %x $((0x$(sed -n 's/^sha512 = "\(.\).*/\1/p' "$BATS_TEST_TMPDIR/lock") ^ 1)))/" \
		"$BATS_TEST_TMPDIR/lock" >"${plan%.toml}.lock"
	PATH_FOR_IMGBUILD=/nonexistent run_imgbuild build --offline --locked "$plan"
	expect_status 2
	refute_stderr 'qemu-system'
}

@test "vendor: several at a time into one folder" {
	start_nginx
	plan_from "$url"
	run_imgbuild lock "$plan"
	expect_status 0
	for i in 1 2 3 4; do
		echo "file $i" >"$www/motd"
		mkdir "$BATS_TEST_TMPDIR/p$i"
		sed "s/$motd/$(sha256sum <"$www/motd" | cut -d' ' -f1)/; s|/motd\"$|/motd$i\"|" "$plan" >"$BATS_TEST_TMPDIR/p$i/plan.toml"
		mv "$www/motd" "$www/motd$i"
		cp "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/p$i/"
	done
	for i in 1 2 3 4; do
		"$IMGBUILD" --no-color vendor --locked --cache "$BATS_TEST_TMPDIR/cache$i" "$BATS_TEST_TMPDIR/p$i/plan.toml" -o "$store" \
			2>"$BATS_TEST_TMPDIR/said$i" 3>&- &
		pids[i]=$!
	done
	for i in 1 2 3 4; do
		wait "${pids[i]}" || { cat "$BATS_TEST_TMPDIR/said$i"; false; }
	done
	(cd "$store" && sha256sum -c SHA256SUMS)
	expect_equal "$(wc -l <"$store/SHA256SUMS")" 6
	expect_equal "$(find "$store" -type f -printf '%f\n' | grep -vxE 'SHA256SUMS|index.tsv|[0-9a-f]{64}')" ""
	expect_equal "$(grep -vc '^#' "$store/index.tsv")" 6
}

@test "vendor --locked never makes a lock; without -o it says what is missing" {
	start_nginx
	plan_from "$url"
	run_imgbuild vendor --locked "$plan" -o "$store"
	expect_status 2
	[ ! -e "${plan%.toml}.lock" ]
	expect_equal "$(ls "$store/sha256")" ""
	run_imgbuild vendor "$plan"
	expect_status 2
	expect_stderr '-o DIR'
}

@test "vendored files alone, by folder and by a web server, fill an empty cache; nothing else is asked" {
	start_nginx
	plan_from "$url"
	run_imgbuild vendor "$plan" -o "$www/blobs"
	expect_status 0
	key=$("$IMGBUILD" key "$plan")
	forget_everything
	mv "$www/images" "$www/kernels" "$www/motd" "$BATS_TEST_TMPDIR"
	run_imgbuild vendor --locked --offline --blobs "$www/blobs" "$plan" -o "$BATS_TEST_TMPDIR/again"
	expect_status 0
	diff -r "$www/blobs" "$BATS_TEST_TMPDIR/again"
	forget_everything
	: >"$log"
	IMGBUILD_BLOBS="$BATS_TEST_TMPDIR/no/such $url/blobs/" run_imgbuild vendor --locked "$plan" -o "$BATS_TEST_TMPDIR/third"
	expect_status 0
	diff -r "$www/blobs" "$BATS_TEST_TMPDIR/third"
	expect_equal "$(sed -E 's/.*"GET ([^ ]*) .*" ([0-9]+) .*/\1 \2/' "$log" | sort)" \
		"$(printf '/blobs/sha256/%s 200\n' "$base" "$kernel" "$motd" | sort)"
	expect_equal "$("$IMGBUILD" key "$plan")" "$key"
}

@test "a store of blobs without a file costs one silent 404; one with wrong bytes is named, with both digests" {
	start_nginx
	plan_from "$url"
	run_imgbuild lock "$plan"
	expect_status 0
	forget_everything
	mkdir -p "$www/empty" "$www/wrong/sha256"
	echo 'not the base' >"$www/wrong/sha256/$base"
	found=$(sha256sum <"$www/wrong/sha256/$base" | cut -d' ' -f1)
	run_imgbuild vendor --locked "$plan" --blobs "$url/empty" --blobs "$url/wrong" -o "$store"
	expect_status 0
	expect_stderr "base image.*$url/wrong/sha256/$base.*expected $base, found $found.*sought elsewhere"
	refute_stderr /empty/
	expect_equal "$(grep -c /empty/ "$log")" 3
	# A folder with wrong bytes likewise; the cache never gets them.
	forget_everything
	rm -rf "$store"
	run_imgbuild vendor --locked "$plan" --blobs "$www/wrong" -o "$store"
	expect_status 0
	expect_stderr "$www/wrong/sha256/$base.*found $found"
	[ ! -e "$IMGBUILD_CACHE/blobs/sha256/${found:0:2}/$found" ]
	(cd "$store" && sha256sum -c SHA256SUMS)
}

@test "all that is missing is named at once, with digest, size and places; exit 3, and nothing is built" {
	start_nginx
	plan_from "$url"
	run_imgbuild lock "$plan"
	expect_status 0
	forget_everything
	rm -rf "$www/images" "$www/motd"
	size=$(stat -c %s "$(fixture alpine.sh)")
	run_imgbuild build --locked "$plan" --blobs "$store" --accel tcg
	expect_status 3
	expect_stderr 'error: cannot get 2 of 3 files: base image, files:/etc/motd'
	expect_stderr "  base image \(sha256 $base, $size bytes\)"
	expect_stderr "    .$store/sha256/$base.: there is no such file"
	expect_stderr "    .$url/images/base.qcow2.: the server answered with status 404"
	expect_stderr "  files:/etc/motd \(sha256 $motd\)"
	expect_no_entry
	expect_equal "$(ls "$IMGBUILD_CACHE/failed" 2>/dev/null)" ""
	# What could be had is there; the rest, put into the store, is all it takes.
	[ -f "$IMGBUILD_CACHE/blobs/sha256/${kernel:0:2}/$kernel" ]
	run_imgbuild build --locked "$plan" --blobs "$store" --json
	expect_status 3
	expect_equal "$(jq -c '[.missing[] | [.name, .sha256, .size, (.tried | length)]]' <<<"$stdout")" \
		"[[\"base image\",\"$base\",$size,2],[\"files:/etc/motd\",\"$motd\",null,2]]"
	into_store "$(fixture alpine.sh)"
	run_imgbuild vendor --locked "$plan" --blobs "$store" -o "$BATS_TEST_TMPDIR/out"
	expect_status 3
	expect_stderr "error: cannot get files:/etc/motd \(sha256 $motd\): .$store/sha256/$motd.: there is no such file; .*; .$url/motd.: .*404"
}

@test "--offline lists the same, and no system call leads out" {
	start_nginx
	plan_from "$url"
	run_imgbuild lock "$plan"
	expect_status 0
	forget_everything
	: >"$log"
	status=0
	# A leak checker cannot do its work beside strace.
	ASAN_OPTIONS=detect_leaks=0 strace -f -qq -e trace=connect,sendto,sendmsg,sendmmsg -o "$BATS_TEST_TMPDIR/calls" \
		"$IMGBUILD" --no-color build --offline --locked "$plan" --blobs "$url" --blobs "$store" 2>"$BATS_TEST_TMPDIR/stderr" || status=$?
	cat "$BATS_TEST_TMPDIR/stderr" "$BATS_TEST_TMPDIR/calls"
	expect_status 3
	expect_stderr 'error: --offline, and 3 of 3 files are not in the cache: base image, kernel, files:/etc/motd'
	expect_stderr "  kernel \(sha256 $kernel, $(stat -c %s "$www/kernels/bzImage") bytes\)"
	expect_stderr "$url/sha256/$kernel.: not asked, because of --offline"
	refute grep -E 'connect|send' "$BATS_TEST_TMPDIR/calls"
	expect_equal "$(wc -l <"$log")" 0
	expect_no_entry
}

@test "--offline and a lock that does not answer: it is the lock that must be made" {
	plan_from http://127.0.0.1:9
	run_imgbuild build --offline "$plan"
	expect_status 3
	expect_stderr 'the lock does not answer what the plan .* asks for amd64: .*run .imgbuild lock .*plan\.toml. once without --offline'
	run_imgbuild build --offline --locked "$plan"
	expect_status 2
	expect_stderr '--locked'
}

@test "a moved current never slips in: both digests and the address, then by digest or not at all" {
	start_nginx
	plan_from "$url"
	run_imgbuild lock "$plan"
	expect_status 0
	cp "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/lock"
	forget_everything
	into_store "$www/images/base.qcow2" "$www/motd"
	echo 'the next one' >>"$www/images/base.qcow2"
	moved=$(sha256sum <"$www/images/base.qcow2" | cut -d' ' -f1)
	run_imgbuild vendor "$plan" -o "$BATS_TEST_TMPDIR/out"
	expect_status 3
	expect_stderr "$url/images/base.qcow2.*expected $base, found $moved.*--mirror or --blobs.*lock PLAN --update"
	[ ! -e "$IMGBUILD_CACHE/blobs/sha256/${moved:0:2}/$moved" ]
	# With a store of blobs behind a mirror's rule, after the wrong one.
	run_imgbuild vendor "$plan" --mirror "$url/images=$url/images" --mirror "$url/images/base.qcow2=file:$store/sha256/$base" \
		-o "$BATS_TEST_TMPDIR/out"
	expect_status 0
	expect_stderr "$url/images/base.qcow2.*expected $base, found $moved.*sought elsewhere"
	[ -f "$BATS_TEST_TMPDIR/out/sha256/$base" ]
	cmp "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/lock"
	# --offline build without the store would want it, too.
	forget_everything
	run_imgbuild build --offline --locked "$plan"
	expect_status 3
	expect_stderr "base image.*$base"
}

# ---- packages -----------------------------------------------------------------------------------------------------------

# shellcheck disable=SC2119  # archive_new where it is
# An archive of a few real packages that are locked, and whose snapshot of a moment later is kept as snapshot.debian.org does it: every other
# time leads by a redirect to the last run before it.
lock_packages() { # PACKAGE…
	archive_new
	archive_add "$(archive_deb jq)" "$(archive_deb libjq1)" "$(archive_deb libonig5)" "$(archive_deb hello)"
	archive_publish
	archive_base
	archive_plan "$@" </dev/null
	cat >"$BATS_TEST_TMPDIR/snippet" <<-'END'
		location ^~ /snapshot/archive/debian/20260801T000000Z/ { }
		location ~ ^/snapshot/archive/debian/2[0-9]+T[0-9]+Z/ {
			rewrite ^/snapshot/archive/debian/[^/]+/(.*)$ /snapshot/archive/debian/20260801T000000Z/$1 redirect;
		}
	END
	archive_start "$BATS_TEST_TMPDIR/snippet"
	run_imgbuild lock "${archive_mirror[@]}" "$plan"
	expect_status 0
	archive_snapshot 20260801T000000Z
	: >"$archive_dir/nginx/access.log"
}

# The digest of a package in the archive.
digest_of() { sha256sum <"$archive_root/$(archive_pool_file "$1")" | cut -d' ' -f1; }

@test "packages that their archive has dropped come from the snapshot of their day, over its redirect" {
	ARCHIVE_DATE='2026-07-31 20:15:00' lock_packages jq
	jq=$(digest_of jq)
	archive_unpool jq
	archive_unpool libonig5
	run_imgbuild vendor --locked "${archive_mirror[@]}" "$plan" -o "$store"
	expect_status 0
	(cd "$store" && sha256sum -c SHA256SUMS)
	[ -f "$store/sha256/$jq" ]
	grep -P "^$jq\t[0-9]+\tamd64\tjq\t1\.6-[^\t]*\thttp://archive.example.org/debian/pool/main/j/jq/jq_[^\t]*_amd64.deb$" \
		"$store/index.tsv"
	# 6 hours after the release; no more was needed, and what the archive still has came from there.
	expect_equal "$(archive_asked 'snapshot/archive/debian/20260801T021500Z/pool/main/j/jq/.* 302 ')" 1
	expect_equal "$(archive_asked 'snapshot/archive/debian/20260801T000000Z/pool/main/j/jq/.* 200 ')" 1
	expect_equal "$(archive_asked 'snapshot/.*libjq1')" 0
	expect_equal "$(archive_asked 20260801T201500Z)" 0
}

@test "other bytes under a package's name: said, and sought elsewhere" {
	lock_packages hello
	hello=$(digest_of hello)
	archive_tamper "$(archive_pool_file hello)"
	run_imgbuild vendor --locked "${archive_mirror[@]}" "$plan" -o "$store"
	expect_status 0
	expect_stderr "hello .*$archive_url/debian/pool/main/h/hello/.*expected $hello, found $(digest_of hello).*sought elsewhere"
	(cd "$store" && sha256sum -c SHA256SUMS)
}

@test "packages that nothing has any more are listed together, with every place that was asked" {
	lock_packages jq hello
	jq=$(digest_of jq)
	archive_unpool jq
	archive_unpool hello
	rm -rf "$archive_www/snapshot"
	run_imgbuild build --locked "${archive_mirror[@]}" --blobs "$store" "$plan"
	expect_status 3
	expect_stderr 'error: cannot get 2 of 4 files: hello 2\.[^ ]*, jq 1\.6[^ ]*;'
	expect_stderr "  jq 1\\.6[^ ]* \\(sha256 $jq, [0-9]+ bytes\\)"
	for place in "$store/sha256/$jq" "$archive_url/debian/pool/main/j/jq" "http://archive.example.org/debian/pool/main/j/jq" \
		"$archive_url/snapshot/archive/debian/2[0-9T]*Z/pool/main/j/jq" "https://snapshot.debian.org/archive/debian/2[0-9T]*Z/pool/main/j/jq"; do
		expect_stderr "    .$place"
	done
	expect_no_entry
	expect_equal "$(ls "$IMGBUILD_CACHE/failed" 2>/dev/null)" ""
}

@test "dozens of missing files: each is named, what was asked for a few, and all of it with --verbose and --json" {
	# shellcheck disable=SC2119
	archive_new
	mkdir -p "$BATS_TEST_TMPDIR/tree/DEBIAN"
	for i in $(seq 30); do
		printf 'Package: many%s\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: x\n' "$i" \
			>"$BATS_TEST_TMPDIR/tree/DEBIAN/control"
		dpkg-deb --root-owner-group -b "$BATS_TEST_TMPDIR/tree" "$BATS_TEST_TMPDIR/many$i.deb" >/dev/null
		archive_add "$BATS_TEST_TMPDIR/many$i.deb"
	done
	archive_publish
	archive_base
	# shellcheck disable=SC2046  # one word a package
	archive_plan $(printf 'many%s ' $(seq 30)) </dev/null
	archive_start
	run_imgbuild lock "${archive_mirror[@]}" "$plan"
	expect_status 0
	archive_unpool 'many*'
	run_imgbuild vendor --locked --offline --blobs "$store" "$plan" -o "$BATS_TEST_TMPDIR/out"
	expect_status 3
	expect_equal "$(grep -cE '^  many[0-9]+ 1 \(sha256 [0-9a-f]{64}, [0-9]+ bytes\)$' "$BATS_TEST_TMPDIR/stderr")" 30
	expect_equal "$(grep -cF "    \`$store/sha256/" "$BATS_TEST_TMPDIR/stderr")" 3
	expect_stderr '  where else they were sought, of all 30: --verbose or --json'
	run_imgbuild vendor --locked --offline --verbose --json --blobs "$store" "$plan" -o "$BATS_TEST_TMPDIR/out"
	expect_status 3
	expect_equal "$(grep -cF "    \`$store/sha256/" "$BATS_TEST_TMPDIR/stderr")" 30
	expect_equal "$(jq '[.missing[] | select(.sha256 and .size and (.tried | length) > 1)] | length' <<<"$stdout")" 30
}

@test "[apt] snapshot pins the package lists themselves" {
	lock_packages hello
	old=$(dpkg-deb -f "$archive_root/$(archive_pool_file hello)" Version)
	archive_add "$(archive_repack "$(archive_deb hello)" 99.0-1)"
	archive_publish
	archive_plan hello <<<$'[apt]\nsnapshot = "20260915T120000Z"'
	run_imgbuild lock "${archive_mirror[@]}" "$plan"
	expect_status 0
	grep -F "version = \"$old\"" "${plan%.toml}.lock"
	grep -F 'https://snapshot.debian.org/archive/debian/20260915T120000Z' "${plan%.toml}.lock"
	refute grep -F "$archive_url" "${plan%.toml}.lock"
	[ "$(archive_asked 'snapshot/archive/debian/20260915T120000Z/dists/bookworm/InRelease.* 302 ')" -ge 1 ]
	expect_equal "$(archive_asked '/debian/dists/')" 0
	# Building from that lock asks the same snapshot, and no other.
	forget_everything
	: >"$archive_dir/nginx/access.log"
	run_imgbuild vendor --locked "${archive_mirror[@]}" "$plan" -o "$store"
	expect_status 0
	expect_equal "$(archive_asked 20260915T120000Z)" 1
	expect_equal "$(archive_asked ' 404 ')" 0
	# Without it, the archive is as it is now.
	archive_plan hello </dev/null
	rm "${plan%.toml}.lock"
	run_imgbuild lock "${archive_mirror[@]}" "$plan"
	expect_status 0
	grep -F 'version = "99.0-1"' "${plan%.toml}.lock"
}

@test "--offline makes a lock, too, where all that it takes is on this machine" {
	lock_packages hello
	cp "${plan%.toml}.lock" "$BATS_TEST_TMPDIR/lock"
	rm "${plan%.toml}.lock"
	forget_everything
	archive_stop
	run_imgbuild lock --offline --mirror "$archive_uri=file:$archive_root" "$plan"
	expect_status 0
	cmp "$BATS_TEST_TMPDIR/lock" "${plan%.toml}.lock"
	run_imgbuild vendor --offline --locked --mirror "$archive_uri=$archive_root" "$plan" -o "$store"
	expect_status 0
	(cd "$store" && sha256sum -c SHA256SUMS)
	# Without the mirror it takes the network, and what is said first is what to do.
	rm "${plan%.toml}.lock"
	forget_everything
	run_imgbuild build --offline "$plan"
	expect_status 3
	expect_stderr 'the lock does not answer what the plan .* asks for amd64: .*once without --offline'
}

@test "vendor: both architectures of a plan, or the one that is asked for" {
	# shellcheck disable=SC2119
	archive_new
	mkdir -p "$BATS_TEST_TMPDIR/tree/DEBIAN"
	printf '%s\n' 'Package: everywhere' 'Version: 1' 'Architecture: all' 'Maintainer: T <t@example.org>' 'Description: x' \
		>"$BATS_TEST_TMPDIR/tree/DEBIAN/control"
	dpkg-deb --root-owner-group -b "$BATS_TEST_TMPDIR/tree" "$BATS_TEST_TMPDIR/everywhere.deb" >/dev/null
	archive_add "$(archive_deb hello)" "$(archive_deb hello arm64)" "$BATS_TEST_TMPDIR/everywhere.deb"
	archive_publish
	archive_base amd64
	archive_base arm64
	ARCHIVE_PLAN_ARCHES='amd64 arm64' archive_plan hello everywhere </dev/null
	archive_start
	run_imgbuild vendor "${archive_mirror[@]}" "$plan" -o "$store" --arch arm64
	echo "$stdout"
	expect_status 0
	expect_equal "$(cut -f 3,4 "$store/index.tsv" | tail -n +2 | sort)" $'all\teverywhere\narm64\thello'
	run_imgbuild vendor "${archive_mirror[@]}" "$plan" -o "$store"
	expect_status 0
	expect_equal "$(cut -f 3,4 "$store/index.tsv" | tail -n +2 | sort)" $'all\teverywhere\namd64\thello\narm64\thello'
	(cd "$store" && sha256sum -c SHA256SUMS)
	# What both have is fetched once; and what the folder has is not fetched for an empty cache.
	expect_equal "$(archive_asked '/everywhere_1_all.deb')" 1
	forget_everything
	: >"$archive_dir/nginx/access.log"
	run_imgbuild vendor --locked "${archive_mirror[@]}" "$plan" -o "$store" --json
	expect_status 0
	expect_equal "$(jq -c '[.files, .added]' <<<"$stdout")" '[3,0]'
	expect_equal "$(archive_asked '')" 0
	# From nothing: once, too.
	forget_everything
	rm -rf "$store"
	run_imgbuild vendor --locked "${archive_mirror[@]}" "$plan" -o "$store"
	expect_status 0
	expect_equal "$(archive_asked '/everywhere_1_all.deb')" 1
	run_imgbuild vendor "${archive_mirror[@]}" "$plan" -o "$store" --arch riscv64
	expect_status 2
}

@test "a repository's password comes from the plan, and is in no lock, list, message or cache" {
	# shellcheck disable=SC2119
	archive_new
	archive_add "$(archive_deb hello)"
	archive_publish
	archive_base amd64 '# none of its own'
	printf 'me:%s\n' "$(openssl passwd -apr1 hunter2)" >"$BATS_TEST_TMPDIR/passwords"
	chmod 644 "$BATS_TEST_TMPDIR/passwords"
	printf 'location /private/ { alias %s/; auth_basic x; auth_basic_user_file %s; }\n' "$archive_root" "$BATS_TEST_TMPDIR/passwords" \
		>"$BATS_TEST_TMPDIR/snippet"
	archive_start "$BATS_TEST_TMPDIR/snippet"
	cp "$archive_dir/archive.asc" "$p/key.asc"
	archive_plan hello <<-END
		[[apt.repository]]
		uri = "${archive_url/\/\//\/\/me:hunter2@}/private"
		suite = "bookworm"
		components = ["main"]
		key = "key.asc"
	END
	run_imgbuild lock "$plan"
	expect_status 0
	cp "$BATS_TEST_TMPDIR/stderr" "$BATS_TEST_TMPDIR/said"
	forget_everything
	run_imgbuild vendor --locked "$plan" -o "$store"
	expect_status 0
	expect_equal "$(archive_asked '/private/pool/main/h/hello/.* 200 ')" 1
	cat "$BATS_TEST_TMPDIR/stderr" >>"$BATS_TEST_TMPDIR/said"
	forget_everything
	archive_unpool hello
	run_imgbuild vendor --locked --verbose "$plan" -o "$BATS_TEST_TMPDIR/none"
	expect_status 3
	expect_stderr "$archive_url/private/pool/main/h/hello/.*404"
	cat "$BATS_TEST_TMPDIR/stderr" >>"$BATS_TEST_TMPDIR/said"
	run_imgbuild vendor --locked --json "$plan" -o "$BATS_TEST_TMPDIR/none"
	expect_status 3
	printf '%s\n' "$stdout" >>"$BATS_TEST_TMPDIR/said"
	refute grep -r hunter2 "$BATS_TEST_TMPDIR/said" "${plan%.toml}.lock" "$store" "$IMGBUILD_CACHE"
}
