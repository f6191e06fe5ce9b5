#!/bin/bash
# Judge the package solver by apt: the same requests on the same base must give the same installs, versions and removals
# as `apt-get install -s --no-install-recommends`. TAP on stdout.
#
#   tests/solver-judge.sh [REQUEST…]      default: all lines of tests/solver-requests
#   tests/solver-judge.sh --some          each sixth of them, for a quick look
#
# The base is a dpkg status that apt itself is asked for: the essential and important packages and what a cloud image adds.
# The requests behind a line "@outdated" are judged on a second one: the same from the first day of the release, so that
# much of it has newer versions, with a mail server and more. Nothing is installed anywhere. `name-` in a request means: out
# with it. Give JUDGE_DIR to keep what was fetched and to use it again.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8
# shellcheck source=fixtures/lib.bash
. tests/fixtures/lib.bash
build=${BUILD:-build/debug}
need apt-get awk gpgv

if [ -n "${JUDGE_DIR:-}" ]; then
	mkdir -p "$JUDGE_DIR"
	dir=$(realpath "$JUDGE_DIR")
else
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
fi
root=$dir/root
cloud='systemd systemd-sysv systemd-timesyncd systemd-resolved udev dbus libpam-systemd apparmor cloud-init openssh-server
	sudo curl wget ca-certificates gnupg less vim man-db locales python3 initramfs-tools unattended-upgrades git tcpdump
	iproute2 netbase ifupdown isc-dhcp-client cron logrotate e2fsprogs kmod procps init apt-utils bash-completion'

more='exim4-daemon-light bsd-mailx rsyslog nfs-common postgresql-client openssl libssl-dev gcc perl python3-pip bind9-host
	mawk gawk nginx-light nodejs qemu-utils xserver-xorg-core'

setup() {
	local etc=$root/etc/apt
	find_debian_mirror
	mkdir -p "$etc"/{sources.list.d,preferences.d,trusted.gpg.d,apt.conf.d} "$root"/var/lib/{dpkg,apt/lists/partial} \
		"$root"/var/cache/apt/archives/partial "$root"/usr/share/keyrings "$dir/cache"
	cp /usr/share/keyrings/debian-archive-keyring.gpg "$root/usr/share/keyrings/"
	cp /usr/share/keyrings/debian-archive-keyring.gpg "$etc/trusted.gpg.d/debian.gpg"
	printf 'deb %s %s main\n' "$DEBIAN_MIRROR" bookworm "$DEBIAN_MIRROR" bookworm-updates \
		"$DEBIAN_SECURITY_MIRROR" bookworm-security "$DEBIAN_MIRROR" bookworm-backports >"$etc/sources.list"
	cat >"$dir/apt.conf" <<-END
		Dir "$root";
		Dir::State::status "$root/var/lib/dpkg/status";
		Dir::Etc::trustedparts "$etc/trusted.gpg.d";
		Dir::Log "$dir";
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; };
		APT::Sandbox::User "";
		Acquire::Check-Valid-Until "false";
		Acquire::Languages "none";
		Debug::NoLocking "true";
		APT::Install-Recommends "false";
		#clear APT::Update::Post-Invoke-Success;
		#clear APT::Update::Post-Invoke;
	END
	: >"$root/var/lib/dpkg/status"
	apt_get update -q >&2
	rm -f "$etc/preferences.d/first-day"
	# shellcheck disable=SC2046,SC2086  # words
	plan_base $(essential_packages) $cloud
	mv "$root/var/lib/dpkg/status" "$dir/status.current"
	: >"$root/var/lib/dpkg/status"
	printf 'Package: *\nPin: release n=%s\nPin-Priority: -1\n\n' bookworm-updates bookworm-security bookworm-backports \
		>"$etc/preferences.d/first-day"
	# shellcheck disable=SC2046,SC2086
	plan_base $(essential_packages) $cloud $more
	mv "$root/var/lib/dpkg/status" "$dir/status.outdated"
	rm "$etc/preferences.d/first-day"
}

apt_get() { APT_CONFIG=$dir/apt.conf apt-get "$@"; }
# shellcheck disable=SC2016  # apt's placeholder
lists() { APT_CONFIG=$dir/apt.conf apt-get indextargets --format '$(FILENAME)' 'Created-By: Packages' "$@"; }
all_packages() { lists "$@" | while read -r f; do /usr/lib/apt/apt-helper cat-file "$f"; echo; done; }
essential_packages() {
	all_packages 'Codename: bookworm' | awk '/^Package: /{p=$2} /^Priority: (required|important)/{print p} /^Essential: yes/{print p}' | sort -u
}

# What apt would install of these on nothing, as a status file.
plan_base() {
	apt_get install -s -y "$@" 2>/dev/null | awk '/^Inst /{gsub(/[()]/, ""); print $2 "=" $3}' >"$dir/base" || true
	[ -s "$dir/base" ] || die "apt gives no base"
	all_packages | awk -v base="$dir/base" '
		BEGIN { RS = ""; FS = "\n"; while ((getline line < base) > 0) { n = split(line, l, "\n"); for (i = 1; i <= n; i++) want[l[i]] = 1 } }
		{ p = v = ""; for (i = 1; i <= NF; i++) { if ($i ~ /^Package: /) p = substr($i, 10); if ($i ~ /^Version: /) v = substr($i, 10) }
		  key = p "=" v
		  if (key in want) { delete want[key]; print "Status: install ok installed"
		    for (i = 1; i <= NF; i++) if ($i !~ /^(Filename|Size|MD5sum|SHA256|Description-md5):/) print $i
		    print "" } }' >"$dir/status.new"
	mv "$dir/status.new" "$root/var/lib/dpkg/status"
}

# Name, version and what happens, sorted; `-` for no version.
ours() {
	local names=() removals=() word
	for word in "$@"; do
		case $word in *-) removals+=(--remove "${word%-}") ;; *) names+=("$word") ;; esac
	done
	"$build/tests/pkg-resolve" "$root" --arch amd64 --cache "$dir/cache" --ignore-dates "${removals[@]}" "${names[@]}" 2>"$dir/ours.err" |
		awk '/^Inst /{gsub(/\[[^]]*\] /, ""); gsub(/[()]/, ""); print "Inst", $2, $3} /^Remv /{print "Remv", $2}' | sort -u
}
theirs() {
	apt_get install -s -y "$@" 2>"$dir/theirs.err" |
		awk '/^Inst /{gsub(/\[[^]]*\] /, ""); gsub(/[()]/, ""); print "Inst", $2, $3} /^Remv /{print "Remv", $2}' | sort -u
}

[ -e "$dir/status.outdated" ] || setup
cp "$dir/status.current" "$root/var/lib/dpkg/status"
if [ "${1:-}" = --some ]; then
	mapfile -t requests < <(grep -v '^#' tests/solver-requests | awk 'NR % 6 == 1 || /^@/')
elif [ $# = 0 ]; then
	mapfile -t requests < <(grep -v '^#' tests/solver-requests)
else
	requests=("$@")
fi
n=0
failed=0
base=
for request in "${requests[@]}"; do
	if [ "$request" = @outdated ]; then
		cp "$dir/status.outdated" "$root/var/lib/dpkg/status"
		base=' on the outdated base'
		continue
	fi
	n=$((n + 1))
	# shellcheck disable=SC2086  # a request is words
	ours $request >"$dir/ours" || true
	# shellcheck disable=SC2086
	theirs $request >"$dir/theirs" || true
	if cmp -s "$dir/ours" "$dir/theirs"; then
		echo "ok $n - $request$base ($(grep -c ^Inst "$dir/ours" || true) in, $(grep -c ^Remv "$dir/ours" || true) out)"
	else
		failed=$((failed + 1))
		echo "not ok $n - $request$base"
		diff -u --label apt --label imgbuild "$dir/theirs" "$dir/ours" | sed 's/^/# /' || true
		sed 's/^/# imgbuild: /' "$dir/ours.err"
		grep '^E:' "$dir/theirs.err" | sed 's/^/# apt: /' || true
	fi
done
echo "1..$n"
exit $((failed > 0))
