#!/bin/busybox sh
# The first process of the laboratory's Debian guest, until its disk is there: then that disk's own is.
/bin/busybox mkdir -p /proc /sys /dev /disk
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do /bin/busybox insmod "$module" || echo "cannot load $module"; done
# CPUs that wait since the boot: kernel.py says why.
for file in /sys/devices/system/cpu/cpu*/online; do
  [ ! -e "$file" ] || [ "$(/bin/busybox cat "$file")" = 1 ] || echo 1 > "$file"
done
n=0
until [ -b /dev/vda ] || [ $n -ge 100 ]; do n=$((n + 1)); /bin/busybox usleep 50000; done
# A fixed address, as in ip4=10.99.7.50/24: no daemon is needed for it.
for word in $(/bin/busybox cat /proc/cmdline); do
  case $word in ip4=*)
    /bin/busybox ip addr add "${word#ip4=}" dev eth0
    /bin/busybox ip link set eth0 up;;
  esac
done
/bin/busybox ip link set lo up
/bin/busybox mount -t ext4 -o noatime /dev/vda /disk || { echo "the disk cannot be mounted"; exec /bin/busybox sh; }
/bin/busybox mount --move /dev /disk/dev
/bin/busybox mount --move /sys /disk/sys
/bin/busybox mount --move /proc /disk/proc
exec /bin/busybox switch_root /disk /sbin/init
