#!/bin/bash
# Judge the extraction by qemu-img: for every readable qcow2 of the test data, and for images made with every cluster
# size, compression, version, preallocation and table format that qemu-img offers, with snapshots, zero clusters, discards
# and odd sizes, our copy of the disk and of its partition must equal `qemu-img convert` and the partition's bytes.
# Also: images packed as distributions pack them, and those that must be refused.
#
#     tests/extract-judge.sh [DISK-EXTRACT]      speaks TAP; the program is build/debug/tests/disk-extract by default
# shellcheck disable=SC2016  # backquotes are what messages quote names with
set -uo pipefail
export LC_ALL=C.UTF-8
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
top=$(cd "$(dirname "$0")/.." && pwd)
extract=$(realpath "${1:-$top/${BUILD:-build/debug}/tests/disk-extract}")
data=${IMGBUILD_TEST_DATA:-$top/../shared/data}
data=$(realpath "$data")
for tool in "$extract" qemu-img qemu-io sfdisk xz gzip zstd tar cmp; do
	command -v "$tool" >/dev/null || { echo "Bail out! $tool is missing"; exit 1; }
done
[ -d "$data/qcow2" ] || { echo "Bail out! no test data in $data"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work" || exit 1
export TMPDIR=$work

number=0 failed=0
ok() { number=$((number + 1)); echo "ok $number - $1"; }
not_ok() {
	number=$((number + 1))
	failed=$((failed + 1))
	echo "not ok $number - $1"
	[ ! -s messages ] || sed 's/^/# /' messages
}

# same A B: cmp; for huge sparse files qemu-img compare, which does not read the holes.
same() {
	if [ "$(stat -c %s "$1")" -lt 1000000000 ]; then
		cmp "$1" "$2"
	else
		[ "$(stat -c %s "$1")" = "$(stat -c %s "$2")" ] && qemu-img compare -f raw -F raw "$1" "$2"
	fi
}

# judge NAME FILE [START SIZE]: our copy of FILE, and of SIZE bytes from START in it, against qemu-img's.
judge() {
	local name=$1 file=$2
	rm -f ours theirs part expected messages
	if ! qemu-img convert -O raw "$file" theirs 2>messages; then not_ok "$name: qemu-img cannot read it"; return; fi
	if ! "$extract" "$file" ours 2>messages; then not_ok "$name"; return; fi
	if ! same ours theirs >messages 2>&1; then not_ok "$name: differs from qemu-img's"; return; fi
	if [ $# -gt 2 ]; then
		tail -c +$(($3 + 1)) theirs | head -c "$4" >expected
		if ! "$extract" "$file" part "$3" "$4" 2>messages; then not_ok "$name: partition"; return; fi
		if ! cmp part expected >messages 2>&1; then not_ok "$name: the partition differs"; return; fi
	fi
	ok "$name"
}

# refused NAME FILE WORDS: the extraction must fail with a message that contains WORDS.
refused() {
	if "$extract" "$2" ours 2>messages; then
		not_ok "$1: was not refused"
	elif grep -qF -- "$3" messages; then
		ok "$1"
	else
		not_ok "$1: expected a message with \`$3\`"
	fi
}

# ---- the test data ----
for file in "$data"/qcow2/*.qcow2; do
	name=$(basename "$file")
	case $name in
	cdi-cirros-snapshot1.qcow2) refused "$name is refused for its backing file" "$file" 'backing file `cirros.raw`' ;;
	*) judge "$name" "$file" ;;
	esac
done

# ---- one disk, in every way that qemu-img can store it ----
# Text, noise and zeros in pieces of odd sizes; the partition starts and ends off every cluster boundary; the size of the
# disk is no multiple of a cluster.
START=$((63 * 512)) SIZE=$((9 * 1048576 + 512 * 5))
truncate -s $((10 * 1048576 + 512 * 77)) disk.raw
offset=0 i=0
while [ $offset -lt $((10 * 1048576)) ]; do
	i=$((i + 1))
	len=$(((i * 7919 % 90 + 3) * 1024))
	case $((i % 4)) in
	0) ;;
	1) openssl enc -aes-128-ctr -K "$(printf %032x $i)" -iv 0 -nosalt -in /dev/zero 2>/dev/null | head -c $len |
		dd of=disk.raw bs=64k seek=$offset oflag=seek_bytes conv=notrunc status=none ;;
	*) seq -f "line %g of piece $i" 1 100000 | head -c $len |
		dd of=disk.raw bs=64k seek=$offset oflag=seek_bytes conv=notrunc status=none ;;
	esac 2>/dev/null
	offset=$((offset + len))
done
printf 'label: dos\nstart=63, size=%d, type=83\n' $((SIZE / 512)) | sfdisk -q disk.raw || not_ok 'sfdisk'
judge 'raw' disk.raw $START $SIZE

# make NAME OPTIONS [CONVERT-OPTION…]: convert disk.raw with these and judge.
make_and_judge() {
	local name=$1 options=$2
	shift 2
	rm -f image
	if ! qemu-img convert "$@" -O qcow2 -o "$options" disk.raw image 2>messages; then
		not_ok "$name: qemu-img could not make it"
		return
	fi
	judge "$name" image $START $SIZE
}

for cluster in 512 1k 2k 4k 8k 16k 32k 64k 128k 256k 512k 1M 2M; do
	for compat in 0.10 1.1; do
		make_and_judge "version $compat, clusters of $cluster" "compat=$compat,cluster_size=$cluster"
		make_and_judge "version $compat, clusters of $cluster, zlib" "compat=$compat,cluster_size=$cluster" -c
	done
	make_and_judge "clusters of $cluster, zstd" "compression_type=zstd,cluster_size=$cluster" -c
	make_and_judge "clusters of $cluster, preallocated tables" "preallocation=metadata,cluster_size=$cluster"
	case $cluster in
	512 | 1k | 2k | 4k | 8k) ;; # extended L2 entries need 16 KiB
	*)
		make_and_judge "clusters of $cluster, extended L2" "extended_l2=on,cluster_size=$cluster"
		make_and_judge "clusters of $cluster, extended L2, zlib" "extended_l2=on,cluster_size=$cluster" -c
		make_and_judge "clusters of $cluster, extended L2, zstd" \
			"extended_l2=on,compression_type=zstd,cluster_size=$cluster" -c
		make_and_judge "clusters of $cluster, extended L2, preallocated tables" \
			"extended_l2=on,preallocation=metadata,cluster_size=$cluster"
		;;
	esac
done
for preallocation in falloc full; do
	make_and_judge "preallocation $preallocation" "preallocation=$preallocation"
	make_and_judge "preallocation $preallocation, version 2" "preallocation=$preallocation,compat=0.10"
done
for bits in 1 2 4 8 32 64; do
	make_and_judge "reference counts of $bits bits" "refcount_bits=$bits"
done
make_and_judge 'lazy reference counts' 'lazy_refcounts=on'
make_and_judge 'written out of order by several coroutines' 'cluster_size=4k' -W -m 16

# ---- images with a history ----
for options in cluster_size=64k cluster_size=4k,compat=0.10 cluster_size=64k,extended_l2=on \
	cluster_size=2M,compression_type=zstd; do
	rm -f image
	qemu-img convert -c -O qcow2 -o "$options" disk.raw image
	qemu-img snapshot -c before image
	qemu-io -f qcow2 -c 'write -P 0xa5 70000 300000' -c 'write -P 0x5a 5242880 1048576' image >/dev/null
	qemu-img snapshot -c between image
	qemu-io -f qcow2 -c 'write -P 0x11 4194304 2621440' -c 'write -z 1048576 262144' -c 'write -z 3000320 8192' \
		-c 'discard 6291456 2097152' -c 'write -P 7 9437184 512' -c 'write -P 9 10485760 39424' image >/dev/null
	qemu-io -f qcow2 -c 'write -c -P 0x42 8388608 2M' image >/dev/null
	judge "$options: two snapshots, overwritten, zeroed, discarded, compressed later" image $START $SIZE
	qemu-img snapshot -a before image
	judge "$options: back to the first snapshot" image $START $SIZE
done

# Only subclusters written, in an empty image; and sizes around one cluster.
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k image 3M
qemu-io -f qcow2 -c 'write -P 1 4096 4096' -c 'write -P 2 16384 8192' -c 'write -z 20480 4096' -c 'write -P 3 1052672 69632' \
	-c 'write -z 1114112 1000' image >/dev/null
judge 'a few subclusters of an empty image' image
for size in 512 65024 65536 66048 1; do
	rm -f image
	qemu-img create -q -f qcow2 image $size
	judge "an empty image of $size bytes" image
done
# A bigger virtual disk than any table slice: data at far ends.
qemu-img create -q -f qcow2 image 40G
qemu-io -f qcow2 -c 'write -P 1 0 64k' -c 'write -P 2 20G 64k' -c 'write -P 3 42949606400 64k' image >/dev/null
rm -f ours
if "$extract" image ours 2>messages && qemu-img compare -f qcow2 -F raw image ours >messages 2>&1 &&
	[ "$(du -k ours | cut -f1)" -lt 1024 ]; then
	ok 'data at the far ends of 40 GiB stays sparse'
else
	not_ok 'data at the far ends of 40 GiB stays sparse'
fi

# ---- packed as distributions pack them ----
# judge_packed NAME FILE: what comes out must be the disk.
judge_packed() {
	rm -f ours
	if "$extract" "$2" ours 2>messages && cmp ours disk.raw >messages 2>&1; then ok "$1"; else not_ok "$1"; fi
}
cp disk.raw disk.img
qemu-img convert -c -O qcow2 disk.raw disk.qcow2
for inner in disk.raw disk.qcow2; do
	xz -1 -k -f "$inner" && judge_packed "$inner in .xz" $inner.xz
	gzip -1 -k -f "$inner" && judge_packed "$inner in .gz" $inner.gz
	zstd -q -1 -k -f "$inner" && judge_packed "$inner in .zst" $inner.zst
	tar -cJf t.tar.xz $inner && judge_packed "$inner in .tar.xz" t.tar.xz
	tar -czSf t.tar.gz --sparse-version=1.0 $inner && judge_packed "$inner in a sparse .tar.gz" t.tar.gz
	tar --zstd -cf t.tar.zst --format=ustar $inner && judge_packed "$inner in .tar.zst" t.tar.zst
	tar -cf t.tar ./$inner && judge_packed "$inner in .tar" t.tar
done
cat disk.raw.gz <(head -c 1000000 /dev/zero | gzip) >two.gz
cat disk.raw <(head -c 1000000 /dev/zero) >two.raw
rm -f ours
if "$extract" two.gz ours 2>messages && cmp ours two.raw >messages 2>&1; then ok 'two members of .gz'; else not_ok 'two members of .gz'; fi
xz --block-size=1MiB -T2 -1 -k -f disk.raw && judge_packed 'an .xz of several blocks' disk.raw.xz
echo hello >README
tar -cJf t.tar.xz README disk.raw && judge_packed 'the disk beside a README' t.tar.xz
mv disk.img root-of-something
tar -cJf t.tar.xz root-of-something && judge_packed 'the only file, whatever its name' t.tar.xz
tar -cJf t.tar.xz disk.raw disk.qcow2
refused 'two disks in an archive' t.tar.xz 'more than one disk image'
tar -cJf t.tar.xz README root-of-something
refused 'no disk in an archive' t.tar.xz 'holds no disk image'
xz -1 -k -f disk.raw
xz -1 -c disk.raw.xz >twice
refused 'packed twice' twice 'packed twice'
for packed in disk.raw.xz disk.raw.gz disk.raw.zst t.tar.gz; do
	head -c $(($(stat -c %s $packed) * 2 / 3)) "$packed" >part.cut
	refused "$packed cut off" part.cut 'damaged or cut off'
done

# ---- refused by name ----
for format in vmdk vdi vhdx qed parallels qcow; do
	rm -f image
	qemu-img convert -O $format disk.raw image 2>messages || not_ok "qemu-img makes no $format"
	case $format in
	qcow) refused "$format" image 'version 1' ;;
	parallels) refused "$format" image 'Parallels' ;;
	*) refused "$format" image "${format^^}" ;;
	esac
done
for subformat in dynamic fixed; do
	qemu-img convert -O vpc -o subformat=$subformat,force_size=on disk.raw image 2>messages
	refused "vhd, $subformat" image 'VHD'
done
qemu-img create -q -f qcow2 -F raw -b disk.raw image
refused 'a backing file' image 'backing file `disk.raw`'
qemu-img create -q -f qcow2 -o data_file=data.raw image 1M
refused 'an external data file' image 'external data file'
# (LUKS is refused in tests/unit/test_qcow.c: making one measures the processor, which fails on a busy machine.)
qemu-img create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=aes,encrypt.key-secret=s image 1M
refused 'encryption' image 'encrypted (AES)'

echo "1..$number"
[ $failed = 0 ]
