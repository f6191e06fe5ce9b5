#!/usr/bin/env bats
# What happens to packages when the archive they come from moves on, breaks, or lies: an archive of our own, made of real
# Debian packages and signed with a throw-away key, served on loopback. Nothing boots.

load ../helper
load ../fixtures/archive

setup() {
	export IMGBUILD_CACHE=$BATS_TEST_TMPDIR/cache
	archive_new
	lock=${plan%.toml}.lock
	archive_add "$(archive_deb jq)" "$(archive_deb libjq1)" "$(archive_deb libonig5)" "$(archive_deb hello)"
}

teardown() { archive_stop; }

# Everything published, served and asked for: what a test changes comes after this.
ready() {
	archive_publish
	archive_base
	archive_plan "$@" </dev/null
	archive_start
}

lock() { run_imgbuild lock "${archive_mirror[@]}" "$plan"; }

# Build as far as the files are fetched: without QEMU nothing comes after that.
fetch() { PATH_FOR_IMGBUILD=/nonexistent run_imgbuild build "${archive_mirror[@]}" "$@" "$plan"; }

# Gather what the lock names.
gather() { run_imgbuild vendor "${archive_mirror[@]}" "$@" -o "$BATS_TEST_TMPDIR/gathered" "$plan"; }
expect_gathered() { # the real .debs of these packages
	local name
	for name; do
		cmp "$(archive_deb "$name")" "$BATS_TEST_TMPDIR/gathered/sha256/$(digest_of "$(archive_deb "$name")")" || return 1
	done
}

# The archive as two places know it: old has what was first published, new has what the point update brought.
point_update() {
	version=1.6-2.1+deb12u9
	archive_keep old
	archive_add "$(archive_repack "$(archive_deb jq)" $version)" "$(archive_repack "$(archive_deb libjq1)" $version)"
	ARCHIVE_DATE=${1:-now} archive_publish
	archive_keep new
}

digest_of() { sha256sum <"$1" | cut -d' ' -f1; }
refused() { # REGEX…: exit 3, each is said, and no lock was written
	local words
	expect_status 3 || return 1
	for words in "$@"; do expect_stderr "$words" || return 1; done
	[ ! -e "$lock" ] || { cat "$lock"; return 1; }
}

# ---- all is well -----------------------------------------------------------------------------------------------------

@test "a signed archive: what is asked for is locked with what it needs, and who vouched for it" {
	ready jq
	lock
	expect_status 0
	for name in jq libjq1 libonig5; do
		grep -qE "name = \"$name\".*uri = \"$archive_uri\".*suite = \"bookworm\".*release = \"$(digest_of "$archive_dir/Release")\"" "$lock"
	done
	refute grep -q '"hello"' "$lock"
	grep -q "$(digest_of "$archive_root/$(archive_pool_file jq)")" "$lock"
}

@test "the same by Release and Release.gpg" {
	export ARCHIVE_SIGNED=detached
	ready hello
	lock
	expect_status 0
	grep -q "release = \"$(digest_of "$archive_dir/Release")\"" "$lock"
}

# ---- the archive moves on ----------------------------------------------------------------------------------------------

@test "a point update between lock and build: the build fetches what the lock says and asks for no metadata" {
	ready jq
	lock
	expect_status 0
	point_update
	cp "$lock" "$BATS_TEST_TMPDIR/before"
	: >"$archive_dir/nginx/access.log"
	fetch
	cmp "$lock" "$BATS_TEST_TMPDIR/before"
	expect_equal "$(archive_asked '/dists/')" 0
	expect_equal "$(archive_asked 'jq_1\.6-2\.1\+deb12u9')" 0
	expect_equal "$(archive_asked 'pool/')" 3
	# It ended for want of QEMU, and for nothing else.
	expect_status 4
	expect_stderr 'qemu-system'
	archive_forget
	gather
	expect_status 0
	expect_gathered jq libjq1 libonig5
	cmp "$lock" "$BATS_TEST_TMPDIR/before"
	expect_equal "$(archive_asked '/dists/')" 0
	expect_equal "$(archive_asked 'pool/')" 3
}

@test "packages gone from the pool: all of them named at once, with where they were sought" {
	ready jq
	lock
	point_update
	archive_unpool jq '*deb12u3'
	archive_unpool libjq1 '*deb12u3'
	fetch
	expect_status 3
	expect_stderr 'jq.*404'
	for name in jq libjq1; do
		expect_stderr "/${name}_"
		expect_stderr "$(digest_of "$(archive_deb $name)")"
	done
	refute_stderr 'libonig5_'
	expect_no_entry
}

@test "packages gone from the pool are found by digest in a store of blobs" {
	ready jq
	lock
	archive_unpool jq
	archive_unpool libjq1
	mkdir -p "$archive_www/store/sha256"
	for name in jq libjq1; do cp "$(archive_deb $name)" "$archive_www/store/sha256/$(digest_of "$(archive_deb $name)")"; done
	gather --blobs "$archive_url/store"
	expect_status 0
	expect_gathered jq libjq1 libonig5
}

# ---- a mirror in the middle of its update ------------------------------------------------------------------------------

when_asked() { # COUNT REGEX: wait until the server was asked so often, ten seconds at most
	for _ in $(seq 200); do
		[ "$(archive_asked "$2")" -lt "$1" ] || return 0
		sleep 0.05
	done
	echo "nobody asked $1 times for $2"
}

mid_sync() { # what the mirror shows: KEPT-NAME FILE…
	export ARCHIVE_BY_HASH=no
	ready jq
	point_update
	archive_restore "$@"
}

expect_named_mid_sync() {
	refused "main/binary-amd64/Packages" "\`$archive_url/debian\` is in the middle of an update" 'asked 4 times' '--mirror'
	# Each time the release file and the list, and the later times past what caches have.
	expect_equal "$(archive_asked 'InRelease')" 4
	expect_equal "$(archive_asked 'main/binary-amd64/Packages')" 4
}

@test "InRelease is new and Packages old: asked again with pauses, then the mirror is named" {
	mid_sync old main
	lock
	expect_named_mid_sync
}

@test "InRelease is old and Packages new: the same" {
	mid_sync old InRelease
	lock
	expect_named_mid_sync
}

@test "the list that the release file names is not there yet: the same" {
	mid_sync new main
	rm "$archive_root"/dists/bookworm/main/binary-amd64/Packages*
	lock
	expect_named_mid_sync
	expect_stderr 'is not there, though the release file names it'
}

@test "a mirror that becomes consistent meanwhile is waited for" {
	mid_sync old main
	export IMGBUILD_RETRY_DELAY_MS=400
	(
		when_asked 2 InRelease
		archive_restore new main
	) 3>&- &
	lock
	wait
	expect_status 0
	expect_stderr 'may be in the middle of an update: once more in 0\.4 s'
	expect_stderr 'is still in the middle of an update: once more in 1\.2 s'
	grep -q "name = \"jq\", version = \"$version\"" "$lock"
}

@test "who waits for a mirror can be interrupted" {
	mid_sync old main
	IMGBUILD_RETRY_DELAY_MS=30000 "$IMGBUILD" --no-color lock "${archive_mirror[@]}" "$plan" 2>"$BATS_TEST_TMPDIR/stderr" 3>&- &
	pid=$!
	for _ in $(seq 100); do
		grep -q 'once more in 30 s' "$BATS_TEST_TMPDIR/stderr" && break
		sleep 0.1
	done
	kill -TERM "$pid"
	SECONDS=0 status=0
	wait "$pid" || status=$?
	cat "$BATS_TEST_TMPDIR/stderr"
	expect_status 143
	[ "$SECONDS" -lt 10 ]
	[ ! -e "$lock" ]
}

@test "Release is new and Release.gpg old: asked once more, which helps or not" {
	export ARCHIVE_SIGNED=detached IMGBUILD_RETRY_DELAY_MS=400
	mid_sync old Release.gpg
	lock
	refused 'is bad: the file was changed after it was signed' "$archive_url/debian/dists/bookworm/Release"
	expect_equal "$(archive_asked 'Release\.gpg')" 2
	: >"$archive_dir/nginx/access.log"
	(
		when_asked 1 'Release\.gpg'
		archive_restore new Release.gpg
	) 3>&- &
	lock
	wait
	expect_status 0
	grep -q "version = \"$version\"" "$lock"
}

@test "with by-hash an archive may be updated under our hands" {
	ready jq
	point_update
	archive_restore old InRelease
	cp -a "$archive_dir"/kept-old/main/binary-amd64/by-hash "$archive_root/dists/bookworm/main/binary-amd64/"
	lock
	expect_status 0
	refute_stderr 'middle of an update'
	grep -q 'name = "jq", version = "1.6-2.1+deb12u3"' "$lock"
}

@test "caches on the way are passed by from the second time on" {
	mid_sync old main
	archive_stop
	archive_key again # archive_stop ended the agent
	printf 'log_format asked "$request [$http_cache_control]";\n' >"$BATS_TEST_TMPDIR/http"
	printf 'add_header X-Cache "$http_cache_control"; if ($http_cache_control = no-cache) { rewrite ^/debian/(.*)$ /fresh/$1; }\n' \
		>"$BATS_TEST_TMPDIR/snippet"
	cp -a "$archive_root" "$archive_www/fresh"
	rm -rf "$archive_www/fresh/dists/bookworm"
	cp -a "$archive_dir/kept-new" "$archive_www/fresh/dists/bookworm"
	archive_start "$BATS_TEST_TMPDIR/snippet"
	lock
	expect_status 0
	grep -q "version = \"$version\"" "$lock"
}

# ---- dates -------------------------------------------------------------------------------------------------------------

@test "an expired release: the date, how long ago, by whose clock, and what to do" {
	export ARCHIVE_DATE='-30 days' ARCHIVE_VALID_UNTIL='-20 days -1 hour'
	ready hello
	lock
	refused "$archive_uri\` bookworm \\(from \`$archive_url/debian/dists/bookworm/InRelease\`\\)" \
		"was valid until $(date -u -d '-20 days -1 hour' +%F) [0-9:]+ UTC, which is 20 days ago" \
		"clock of this machine \\($(date -u +%F) [0-9:]+ UTC\\)" 'another mirror' '\[apt\] snapshot' 'check_valid_until = false'
}

@test "an expired release is taken when the plan says so, and that is said" {
	export ARCHIVE_DATE='-30 days' ARCHIVE_VALID_UNTIL='-20 days -1 hour'
	ready hello
	printf '[apt]\ncheck_valid_until = false\n' >>"$plan"
	lock
	expect_status 0
	expect_stderr 'was valid until .* which is 20 days ago .* taken all the same because of \[apt\] check_valid_until = false'
	grep -q '"hello"' "$lock"
}

@test "an expired release of a snapshot is what was asked for" {
	export ARCHIVE_DATE='-30 days' ARCHIVE_VALID_UNTIL='-20 days'
	ready hello
	archive_snapshot 20261101T000000Z
	printf '[apt]\nsnapshot = "20261101T000000Z"\n' >>"$plan"
	lock
	expect_status 0
	refute_stderr 'valid until'
	grep -q 'uri = "https://snapshot.debian.org/archive/debian/20261101T000000Z"' "$lock"
}

@test "a release dated in the future: it is probably this machine's clock, and both times are named" {
	export ARCHIVE_DATE='+4 days +1 hour'
	ready hello
	lock
	refused "is dated $(date -u -d '+4 days +1 hour' +%F) [0-9:]+ UTC, which is 4 days ahead" \
		"clock of this machine \\($(date -u +%F) [0-9:]+ UTC\\)" 'that clock is probably wrong'
	# Not looking at Valid-Until does not make the clock right.
	printf '[apt]\ncheck_valid_until = false\n' >>"$plan"
	lock
	refused 'that clock is probably wrong'
}

# ---- signatures --------------------------------------------------------------------------------------------------------

@test "signed by a key that the base does not have" {
	archive_key stranger
	export ARCHIVE_KEY=stranger
	ready hello
	lock
	refused "/etc/apt/sources.list:1: no good signature on the release file of \`$archive_uri\` bookworm" \
		"$archive_url/debian/dists/bookworm/InRelease" "not among those trusted for it" "$(archive_fingerprint stranger | tail -c 17)"
}

@test "signed by a key that the base has but Signed-By does not name" {
	archive_key other
	export ARCHIVE_KEY=other
	ready hello
	cp "$archive_dir/other.gpg" "$archive_dir/base-amd64/etc/apt/trusted.gpg.d/"
	echo "deb [signed-by=$(archive_fingerprint)] $archive_uri bookworm main" >"$archive_dir/base-amd64/etc/apt/sources.list"
	archive_base_pack
	lock
	refused 'not one of those that Signed-By allows'
}

@test "not signed at all" {
	export ARCHIVE_UNSIGNED=yes
	ready hello
	lock
	refused "\`$archive_uri\` bookworm is not signed: .*$archive_url/debian has no InRelease and no Release.gpg" '\[apt\] trusted'
}

@test "an InRelease without a signature in it is not signed" {
	ready hello
	cp "$archive_dir/Release" "$archive_root/dists/bookworm/InRelease"
	lock
	refused 'there is no signature'
}

@test "signed by a key that has expired since" {
	archive_key short seconds=2
	export ARCHIVE_KEY=short
	ready hello
	cp "$archive_dir/short.gpg" "$archive_dir/base-amd64/etc/apt/trusted.gpg.d/"
	archive_base_pack
	sleep 3
	lock
	refused 'its key has expired' 'newer base image'
}

@test "a release changed after it was signed, inline and detached" {
	ready hello
	sed -i 's/^Components: main/Components: mine/' "$archive_root/dists/bookworm/InRelease"
	lock
	refused "the signature of the release file of \`$archive_uri\` bookworm \\(from \`$archive_url.*InRelease\`\\) is bad" 'changed after it was signed'
	rm "$archive_root/dists/bookworm/InRelease"
	sed -i 's/^Components: main/Components: mine/' "$archive_root/dists/bookworm/Release"
	lock
	refused 'is bad' 'changed after it was signed'
}

@test "text around the signed one is not read" {
	ready hello
	printf '%s\n' 'Origin: Evil' "$(cat "$archive_root/dists/bookworm/InRelease")" 'Origin: Evil' >"$BATS_TEST_TMPDIR/wrapped"
	cp "$BATS_TEST_TMPDIR/wrapped" "$archive_root/dists/bookworm/InRelease"
	lock
	if [ "$status" = 0 ]; then
		grep -q "release = \"$(digest_of "$archive_dir/Release")\"" "$lock"
	else
		refused 'release file'
	fi
}

@test "the release of another suite, signed well" {
	export ARCHIVE_ORIGIN=Debian
	ARCHIVE_SUITE=trixie archive_publish
	ready hello
	cp "$archive_root/dists/trixie/InRelease" "$archive_root/dists/bookworm/InRelease"
	lock
	refused "is of suite \`trixie\`, codename \`trixie\`, and not of \`bookworm\`"
}

@test "with sqv alone the detached signature is judged; with neither nothing is believed" {
	mkdir "$BATS_TEST_TMPDIR/bin"
	ln -s "$(command -v sqv)" "$BATS_TEST_TMPDIR/bin/sqv"
	export PATH_FOR_IMGBUILD=$BATS_TEST_TMPDIR/bin
	ready hello
	cp "$archive_root/dists/bookworm/Release" "$BATS_TEST_TMPDIR/good"
	sed -i 's/^Components: main/Components: mine/' "$archive_root/dists/bookworm/Release"
	lock
	refused 'no good signature on the release file'
	cp "$BATS_TEST_TMPDIR/good" "$archive_root/dists/bookworm/Release"
	lock
	expect_status 0
	grep -q "release = \"$(digest_of "$archive_dir/Release")\"" "$lock"
	rm "$lock" "$BATS_TEST_TMPDIR/bin/sqv"
	lock
	expect_status 4
	expect_stderr 'gpgv is not installed here.*package `gpgv`'
	[ ! -e "$lock" ]
}

# ---- bytes -------------------------------------------------------------------------------------------------------------

@test "a changed package list: both digests, and where it came from" {
	export ARCHIVE_BY_HASH=no
	ready hello
	good=$(digest_of "$archive_root/dists/bookworm/main/binary-amd64/Packages.xz")
	archive_tamper dists/bookworm/main/binary-amd64/Packages.xz
	bad=$(digest_of "$archive_root/dists/bookworm/main/binary-amd64/Packages.xz")
	lock
	refused "$good" "$bad" "$archive_url/debian/dists/bookworm/main/binary-amd64/Packages.xz" "$archive_uri"
}

@test "a changed package: both digests and the address, and nothing of it is kept" {
	ready hello
	lock
	expect_status 0
	file=$(archive_pool_file hello)
	good=$(digest_of "$archive_root/$file")
	archive_tamper "$file"
	bad=$(digest_of "$archive_root/$file")
	fetch
	expect_status 3
	for words in "$good" "$bad" "$archive_url/debian/$file"; do expect_stderr "$words"; done
	[ ! -e "$IMGBUILD_CACHE/blobs/sha256/${bad:0:2}/$bad" ]
	expect_no_entry
}

@test "a package that was changed in the cache is not used, but fetched again" {
	ready hello
	lock
	expect_status 0
	gather
	expect_status 0
	good=$(digest_of "$(archive_deb hello)")
	blob=$IMGBUILD_CACHE/blobs/sha256/${good:0:2}/$good
	# Nowhere to be had: named, with both digests, and nothing is built of it.
	damage_blob "$blob"
	fetch --offline
	expect_status 3
	expect_stderr "cache is damaged: .$blob. had the SHA-256 $bad, not $good"
	[ ! -e "$blob" ]
	expect_no_entry
	# To be had elsewhere: it takes its place.
	fetch --offline --blobs "$BATS_TEST_TMPDIR/gathered"
	expect_status 4
	damage_blob "$blob"
	fetch --offline --blobs "$BATS_TEST_TMPDIR/gathered"
	expect_status 4
	expect_stderr 'qemu-system'
	expect_stderr "warning.*cache is damaged: .$blob. had the SHA-256 $bad, not $good"
	expect_equal "$(digest_of "$blob")" "$good"
}

# ---- back in time ------------------------------------------------------------------------------------------------------

@test "a downgrade by an older release, signed well, is refused by what the lock knows" {
	export ARCHIVE_DATE='-2 days'
	ready jq
	point_update '-1 day'
	lock
	expect_status 0
	cp "$lock" "$BATS_TEST_TMPDIR/before"
	archive_restore old InRelease Release Release.gpg main
	archive_plan jq hello </dev/null
	lock
	expect_status 3
	expect_stderr "is dated $(date -u -d '-2 days' +%F) [0-9:]+ UTC, but the lock has packages by one of $(date -u -d '-1 day' +%F) "
	expect_stderr "$archive_url/debian/dists/bookworm/InRelease"
	expect_stderr 'remove the packages. section'
	cmp "$lock" "$BATS_TEST_TMPDIR/before"
	# Asking for what is newest does not mean going back, either.
	run_imgbuild lock --update "${archive_mirror[@]}" "$plan"
	expect_status 3
	expect_stderr 'but the lock has packages by one of'
	cmp "$lock" "$BATS_TEST_TMPDIR/before"
	# Without the section going back is meant.
	sed -i '/^\[amd64.packages\]/,$d' "$lock"
	lock
	expect_status 0
	grep -q 'name = "jq", version = "1.6-2.1+deb12u3"' "$lock"
}

@test "what the lock knows of one architecture holds for one that the plan gains" {
	export ARCHIVE_DATE='-2 days'
	archive_add "$(archive_deb hello arm64)"
	ready hello
	point_update '-1 day'
	lock
	expect_status 0
	cp "$lock" "$BATS_TEST_TMPDIR/before"
	archive_restore old InRelease Release Release.gpg main
	archive_base arm64
	ARCHIVE_PLAN_ARCHES='amd64 arm64' archive_plan hello </dev/null
	lock
	expect_status 3
	expect_stderr "is dated $(date -u -d '-2 days' +%F) [0-9:]+ UTC, but the lock has packages by one of $(date -u -d '-1 day' +%F) "
	refute grep -q 'name = "hello".*arch = "arm64"' "$lock"
	archive_restore new InRelease Release Release.gpg main
	lock
	expect_status 0
	grep -q 'name = "hello".*arch = "arm64"' "$lock"
}

@test "a snapshot may be older than what the lock knows" {
	export ARCHIVE_DATE='-2 days'
	ready jq
	archive_snapshot 20261101T000000Z
	point_update '-1 day'
	lock
	expect_status 0
	printf '[apt]\nsnapshot = "20261101T000000Z"\n' >>"$plan"
	lock
	expect_status 0
	grep -q 'name = "jq", version = "1.6-2.1+deb12u3"' "$lock"
}

# ---- what nobody vouches for -------------------------------------------------------------------------------------------

untrusted_ready() {
	archive_publish
	archive_base amd64 "deb [trusted=yes] $archive_uri bookworm main"
	archive_plan hello </dev/null
	archive_start
}

@test "trusted=yes in the base's sources needs the plan's word" {
	untrusted_ready
	lock
	refused "/etc/apt/sources.list:1: .*\`$archive_uri\`.*nobody vouches for" 'trusted=yes' "\\[apt\\] trusted = \\[\"$archive_uri\"\\]"
	# The word for another archive is none for this one.
	printf '[apt]\ntrusted = ["http://archive.example.org/other"]\n' >>"$plan"
	lock
	refused 'trusted=yes'
}

expect_taken_unsigned() {
	expect_status 0
	expect_equal "$(grep -c "nobody vouches for the packages of \`$archive_uri\` bookworm" "$BATS_TEST_TMPDIR/stderr")" 1
	grep -E 'name = "hello"' "$lock" | grep -q "sha256 = \"$(digest_of "$(archive_deb hello)")\""
	refute grep -qE 'name = "hello".*(release|date) =' "$lock"
}

@test "with the plan's word an unsigned archive is taken, said once, and the lock shows it; --locked never does so" {
	export ARCHIVE_UNSIGNED=yes
	untrusted_ready
	printf '[apt]\ntrusted = ["%s/"]\n' "$archive_uri" >>"$plan"
	PATH_FOR_IMGBUILD=/nonexistent run_imgbuild --locked "${archive_mirror[@]}" "$plan"
	expect_status 2
	[ ! -e "$lock" ]
	expect_equal "$(archive_asked .)" 0
	lock
	expect_taken_unsigned
	# The second time the lock answers: nothing is asked or said.
	: >"$archive_dir/nginx/access.log"
	lock
	expect_status 0
	refute_stderr 'nobody vouches'
	expect_equal "$(archive_asked .)" 0
	# What the lock pins is what is taken, unsigned or not.
	archive_tamper "$(archive_pool_file hello)"
	fetch --locked
	expect_status 3
	expect_stderr "$(digest_of "$(archive_deb hello)")"
}

@test "the same of an archive signed by nobody that is known, and of one without any release file" {
	archive_key stranger
	export ARCHIVE_KEY=stranger ARCHIVE_SIGNED=inline
	untrusted_ready
	printf '[apt]\ntrusted = ["%s"]\n' "$archive_uri" >>"$plan"
	lock
	expect_taken_unsigned
	rm "$lock" "$archive_root"/dists/bookworm/InRelease
	lock
	expect_taken_unsigned
}

@test "a word for an archive that nobody names is a slip, and said" {
	ready hello
	printf '[apt]\ntrusted = ["http://user:hunter2@archive.example.org/debain"]\n' >>"$plan"
	lock
	expect_status 0
	expect_stderr 'trusted has `.*archive\.example\.org/debain`, but neither'
	refute_stderr 'hunter2|nobody vouches'
	grep -qE 'name = "hello".*release = ' "$lock"
}

@test "a repository of the plan needs a key or the plan's word" {
	ready hello
	archive_base amd64 '# none'
	printf '[[apt.repository]]\nuri = "%s"\nsuite = "bookworm"\ncomponents = ["main"]\n' "$archive_uri" >>"$plan"
	lock
	expect_status 2
	expect_stderr 'key'
	sed -i 's/^\[\[apt/[apt]\ntrusted = ["http:\/\/archive.example.org\/debian"]\n&/' "$plan"
	lock
	expect_taken_unsigned
	sed -i '/^trusted/d' "$plan"
	cp "$archive_dir/archive.asc" "${plan%/*}/key.asc"
	echo 'key = "key.asc"' >>"$plan"
	lock
	expect_status 0
	grep -q "name = \"hello\".*release = \"$(digest_of "$archive_dir/Release")\"" "$lock"
}

@test "what was taken unsigned does not stay in the lock when the plan's word is taken back" {
	untrusted_ready
	archive_base amd64 "deb $archive_uri bookworm main"
	printf '[apt]\ntrusted = ["%s"]\n' "$archive_uri" >>"$plan"
	lock
	expect_taken_unsigned
	# Signed by now, and with another version: the unsigned one is in no list any more, but its file still is in the pool.
	archive_add "$(archive_repack "$(archive_deb hello)" 2.10-3+deb12u1)"
	archive_publish
	sed -i '/^\[apt\]/,$d' "$plan"
	lock
	expect_status 0
	expect_stderr '`hello` moves from 2\.10-3 to 2\.10-3\+deb12u1: .*nobody vouched for it'
	grep -q "name = \"hello\", version = \"2.10-3+deb12u1\".*release = \"$(digest_of "$archive_dir/Release")\"" "$lock"
}

@test "what was signed stays in the lock when no list has it any more" {
	ready hello
	lock
	expect_status 0
	archive_add "$(archive_repack "$(archive_deb hello)" 2.10-3+deb12u1)" "$(archive_deb tree)"
	archive_publish
	archive_plan hello tree </dev/null
	lock
	expect_status 0
	grep -q 'name = "hello", version = "2.10-3"' "$lock"
	grep -q 'name = "tree"' "$lock"
}

# A repository of the plan, with its key; the base names no archive.
repository_ready() { # PACKAGES…
	archive_publish
	archive_base amd64 '# none'
	rm "$archive_dir"/base-amd64/etc/apt/trusted.gpg.d/*
	archive_base_pack
	cp "$archive_dir/archive.asc" "${plan%/*}/key.asc"
	repository_plan "$@"
	archive_start
	lock
	expect_status 0
}
repository_plan() {
	archive_plan "$@" <<-END
		[[apt.repository]]
		uri = "$archive_uri"
		suite = "bookworm"
		components = ["main"]
		key = "key.asc"
	END
}

@test "what only a key vouched for that the plan has replaced does not stay; what the new one vouches for does" {
	archive_key fresh
	repository_ready hello jq
	archive_add "$(archive_repack "$(archive_deb hello)" 2.10-3+fixed)"
	ARCHIVE_KEY=fresh archive_publish
	cp "$archive_dir/fresh.asc" "${plan%/*}/key.asc"
	lock
	expect_status 0
	expect_equal "$stdout" 'amd64 hello 2.10-3 -> 2.10-3+fixed'
	expect_stderr '`hello` moves from 2\.10-3 to 2\.10-3\+fixed: .*the key of its repository may be another since'
}

@test "with the same key, what a repository of the plan has replaced stays until it is named" {
	local jq_old
	jq_old=$(dpkg-deb -f "$(archive_deb jq)" Version)
	repository_ready hello jq
	archive_add "$(archive_repack "$(archive_deb hello)" 2.10-3+fixed)" "$(archive_deb tree)" \
		"$(archive_repack "$(archive_deb jq)" "$jq_old+new" 'Depends: libjq1')"
	archive_publish
	repository_plan hello jq tree
	lock
	expect_status 0
	expect_equal "$(grep -v tree <<<"$stdout")" ''
	grep -q 'name = "hello", version = "2.10-3"' "$lock"
	run_imgbuild lock "${archive_mirror[@]}" "$plan" --update jq
	expect_status 0
	expect_equal "$stdout" "amd64 jq $jq_old -> $jq_old+new"
	refute_stderr 'another since'
}

# ---- mirrors -----------------------------------------------------------------------------------------------------------

@test "a mirror that is down or empty is passed over for the archive itself" {
	ready hello
	# The archive's own place is this server; the mirror is a port that nobody listens on, then an empty folder.
	archive_base amd64 "deb $archive_url/debian bookworm main"
	for mirror in http://127.0.0.1:9/debian "$archive_url/empty"; do
		rm -f "$lock"
		run_imgbuild lock --mirror "$archive_url/debian=$mirror" "$plan"
		expect_status 0
		expect_stderr "going on with \`$archive_url/debian\`"
		grep -q '"hello"' "$lock"
		archive_forget
	done
}

@test "when all places fail, the error names each of them" {
	ready hello
	rm -r "$archive_root/dists/bookworm/InRelease" "$archive_root"/dists/bookworm/Release*
	lock
	refused "has neither InRelease nor Release at $archive_url/debian" 'and then.*archive\.example\.org'
	# Of several suites on a mirror that is down, too, with its address and what it said.
	archive_base amd64 "deb $archive_uri bookworm main" "deb $archive_uri trixie main"
	run_imgbuild lock --mirror "$archive_uri=http://127.0.0.1:9/debian" "$plan"
	refused '2 files of package archives cannot be had; the first: .*`http://127.0.0.1:9/debian/dists/[a-z]*/InRelease`: .*Failed to connect.*; and then: .*archive\.example\.org'
}
