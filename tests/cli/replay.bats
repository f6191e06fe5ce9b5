#!/usr/bin/env bats
# A lock builds when its servers have moved on: files are sought by their digest. Everything is served on loopback; nothing boots.

load ../helper

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
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
	expect_stderr "error: cannot get files:/etc/motd \(sha256 $motd\): .$store/sha256/$motd.: there is no such file; .$url/motd.: .*404"
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
	expect_stderr 'plan\.lock. does not answer the plan for amd64 .*run .imgbuild lock .*plan\.toml. once without --offline'
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
	into_store "$www/images/base.qcow2"
	echo 'the next one' >>"$www/images/base.qcow2"
	moved=$(sha256sum <"$www/images/base.qcow2" | cut -d' ' -f1)
	run_imgbuild vendor "$plan" -o "$BATS_TEST_TMPDIR/out"
	expect_status 3
	expect_stderr "$url/images/base.qcow2.*expected $base, found $moved"
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
