#!/bin/bash
# Judge by apt what is kept of an earlier answer: packages are chosen on the first day of the release, then, with that answer
# kept, today, alone and with another request. TAP on stdout.
#
#   tests/keep-judge.sh [STEP]      each STEP-th pair of the lines of tests/solver/requests (default: 12)
#
# Asked for the same, the answer must be the same, though hundreds of packages have newer versions. Asked for more, apt must accept
# exactly the set that comes out (each package in its version; nothing else changes), and no more may leave the base than
# without an earlier answer. Base, data and JUDGE_DIR are those of tests/solver-judge.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8
step=${1:-12}
build=${BUILD:-build/debug}
if [ -z "${JUDGE_DIR:-}" ]; then
	JUDGE_DIR=$(mktemp -d)
	trap 'rm -rf "$JUDGE_DIR"' EXIT
fi
export JUDGE_DIR
tests/solver-judge.sh --suite bookworm --prepare >&2
dir=$(realpath "$JUDGE_DIR")/bookworm
root=$dir/outdated
mapfile -t mirrors <"$dir/mirrors"

first_day() {
	printf 'Package: *\nPin: release n=%s\nPin-Priority: -1\n\n' bookworm-updates bookworm-security bookworm-backports \
		>"$root/etc/apt/preferences.d/first-day"
}
today() { rm -f "$root/etc/apt/preferences.d/first-day"; }
resolve() { "$build/tests/pkg-resolve" "$root" --arch amd64 --cache "$dir/cache" --ignore-dates "${mirrors[@]}" "$@"; }
# Name, version and what happens, sorted.
plain() { awk '/^Inst /{gsub(/\[[^]]*\] /, ""); gsub(/[()]/, ""); print "Inst", $2, $3} /^Remv /{print "Remv", $2}' | sort -u; }
count() { grep -c "^$1" "$2" || true; }

number=0
failed=0
verdict() { # WHAT STATUS DETAIL…
	number=$((number + 1))
	if [ "$2" = 0 ]; then
		echo "ok $number - $1"
	else
		failed=$((failed + 1))
		echo "not ok $number - $1"
		sed 's/^/# /' "${@:3}"
	fi
}

mapfile -t requests < <(grep -vE '^[#@![]|=|-( |$)|\+|^$' tests/solver/requests)
for ((i = 0; i + 1 < ${#requests[@]}; i += step)); do
	read -ra first <<<"${requests[i]}"
	read -ra more <<<"${requests[i + 1]}"
	first_day
	resolve --answer "$dir/earlier" "${first[@]}" 2>"$dir/why" | plain >"$dir/earlier.plain" || true
	today
	resolve --keep "$dir/earlier" "${first[@]}" 2>"$dir/why" | plain >"$dir/same.plain" || true
	status=0
	diff "$dir/earlier.plain" "$dir/same.plain" >"$dir/difference" || status=1
	verdict "${first[*]}: the same again ($(count Inst "$dir/earlier.plain") in)" $status "$dir/difference" "$dir/why"

	status=0
	resolve --keep "$dir/earlier" "${first[@]}" "${more[@]}" >"$dir/ours.text" 2>"$dir/why" || status=1
	plain <"$dir/ours.text" >"$dir/ours"
	# What cannot be had freely need not be had now.
	resolve "${first[@]}" "${more[@]}" >"$dir/freely.text" 2>/dev/null || continue
	plain <"$dir/freely.text" >"$dir/freely"
	mapfile -t exact < <(awk '/^Inst/{print $2 "=" $3} /^Remv/{print $2 "-"}' "$dir/ours")
	APT_CONFIG=$root/apt.conf apt-get install -s -y --allow-downgrades "${exact[@]}" 2>"$dir/apt.why" | plain >"$dir/theirs" || true
	diff "$dir/theirs" "$dir/ours" >"$dir/difference" || status=1
	comm -23 <(grep ^Remv "$dir/ours") <(grep ^Remv "$dir/freely") | sed 's/$/ though not without an earlier answer/' >>"$dir/difference"
	[ ! -s "$dir/difference" ] || status=1
	verdict "${first[*]} + ${more[*]} ($(comm -12 "$dir/earlier.plain" "$dir/ours" | grep -c ^Inst || true) of $(count Inst \
		"$dir/earlier.plain") kept, $(count Inst "$dir/ours") in, $(count Remv "$dir/ours") out)" $status \
		"$dir/difference" "$dir/why" "$dir/apt.why"
done
echo "1..$number"
exit $((failed > 0))
