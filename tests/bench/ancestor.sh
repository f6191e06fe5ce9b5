#!/bin/bash
# The pipeline of the ancestor, as its users ran it, for comparison: qemu-img convert, sfdisk, dd bs=512, e2fsck, resize2fs, debugfs for
# fstab, a busybox initrd with all packages through cpio and gzip, one boot that runs `dpkg -i`. As an ordinary user, under TCG.
#
#     ancestor.sh BASE.qcow2 DEBS-FOLDER KERNEL MODULES-FOLDER WORK-FOLDER [REMOVE…]
#
# MODULES-FOLDER holds the .ko files that the kernel needs for a virtio disk, named so that their order by name is the order to load
# them. REMOVE: packages to remove first, which plain dpkg -i cannot work out. Leaves WORK-FOLDER/rootfs.raw; the steps' times go to stderr.
set -euo pipefail
export LC_ALL=C.UTF-8 PATH="$PATH:/usr/sbin:/sbin"
base=$1 debs=$2 kernel=$3 modules=$4 work=$5
shift 5

mkdir -p "$work"
cd "$work"
began=$(date +%s.%N)
lap() {
	local now
	now=$(date +%s.%N)
	printf '%8.2f s  %s\n' "$(bc <<<"$now - $began")" "$1" >&2
	began=$now
}

qemu-img convert -O raw "$base" disk.raw
lap 'qemu-img convert'
read -r start sectors < <(sfdisk -J disk.raw | jq -r '.partitiontable.partitions[] | select(.node | endswith("1")) | "\(.start) \(.size)"')
dd if=disk.raw of=rootfs.raw bs=512 skip="$start" count="$sectors" status=none
rm disk.raw
lap 'dd bs=512'
truncate -s 10G rootfs.raw
e2fsck -f -y rootfs.raw >/dev/null 2>&1 || true
lap e2fsck
resize2fs rootfs.raw >/dev/null 2>&1
lap resize2fs
debugfs -R 'cat /etc/fstab' rootfs.raw 2>/dev/null | grep -v -e LABEL=BOOT -e LABEL=UEFI -e /boot/efi -e PARTUUID >fstab.new || true
printf 'rm /etc/fstab\nwrite fstab.new /etc/fstab\n' | debugfs -w rootfs.raw >/dev/null 2>&1
lap 'debugfs fstab'

mkdir -p initrd/bin initrd/debs initrd/modules initrd/newroot initrd/proc initrd/sys initrd/dev
cp /bin/busybox initrd/bin/busybox
cp "$debs"/*.deb initrd/debs/
cp "$modules"/*.ko initrd/modules/ 2>/dev/null || true
cat >initrd/init <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in /modules/*.ko; do insmod \$m; done
for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && break; sleep 0.2; done
mount /dev/vda /newroot
mkdir -p /newroot/tmp/debs
cp /debs/*.deb /newroot/tmp/debs/
mount -t proc proc /newroot/proc
mount -t sysfs sys /newroot/sys
mount --bind /dev /newroot/dev
printf '#!/bin/sh\nexit 101\n' >/newroot/usr/sbin/policy-rc.d
chmod 755 /newroot/usr/sbin/policy-rc.d
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive HOME=/root
ok=yes
${1:+chroot /newroot /usr/bin/dpkg --force-depends --remove $* || ok=no}
chroot /newroot /bin/sh -c 'dpkg -i /tmp/debs/*.deb' || chroot /newroot /usr/bin/dpkg --configure -a || ok=no
rm -rf /newroot/tmp/debs /newroot/usr/sbin/policy-rc.d
sync
umount /newroot/proc /newroot/sys /newroot/dev
umount /newroot
echo FCVM_SETUP_\$ok
echo o >/proc/sysrq-trigger
sleep 10
END
chmod 755 initrd/init
(cd initrd && find . | cpio --quiet -o -H newc | gzip) >initrd.gz
lap 'cpio | gzip'

qemu-system-x86_64 -nodefaults -no-reboot -display none -machine q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2G -serial file:serial.log \
	-kernel "$kernel" -initrd initrd.gz -append 'console=ttyS0 panic=-1 quiet' -drive file=rootfs.raw,format=raw,if=virtio
lap 'boot and dpkg -i'
grep -q FCVM_SETUP_yes serial.log || { tail -30 serial.log >&2; exit 1; }
