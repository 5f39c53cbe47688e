#!/bin/bash
# The first process of a laboratory host, in mount, uts, ipc, pid, network and cgroup namespaces of its own.
# It makes the host's directories its own, starts libvirt's daemons and waits to be killed: that is the power failure.
# Arguments: NAME UUID ADDRESS DIRECTORY; everything else is in DIRECTORY/settings.
set -eu
name=$1 uuid=$2 address=$3 directory=$4
. "$directory/settings"
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin

# Into cgroups of its own first: what it is in when it gets a cgroup namespace is the root of that.
if [ -n "$CGROUPS" ] && [ -z "${in_cgroups:-}" ]; then
  for hierarchy in $CGROUPS; do
    parent=/sys/fs/cgroup/${hierarchy#v2}
    mkdir -p "$parent/$CGROUP"
    if [ "$hierarchy" = cpuset ]; then
      for file in cpuset.cpus cpuset.mems; do cat "$parent/$file" > "$parent/$CGROUP/$file"; done
    fi
    echo $$ > "$parent/$CGROUP/cgroup.procs"
  done
  in_cgroups=1 exec unshare -C bash "$0" "$@"
fi

hostname "$name"
mount --make-rprivate /
mount -t proc proc /proc

first_boot() {
  mkdir -p "$directory"/{etc-libvirt,var-lib-libvirt,var-log-libvirt/qemu,var-cache-libvirt,run,tmp}
  # The distribution's own configuration; nothing of the machines, storage, secrets and hooks that this computer has.
  cp -a /etc/libvirt/. "$directory/etc-libvirt/"
  rm -rf "$directory"/etc-libvirt/qemu/*.xml "$directory"/etc-libvirt/qemu/autostart \
    "$directory"/etc-libvirt/qemu/networks "$directory"/etc-libvirt/{storage,secrets,hooks,nwfilter-binding}
  mkdir -p "$directory"/var-lib-libvirt/{qemu,images,boot,network,dnsmasq,filesystems,swtpm,lockd/files}
  cat > "$directory/etc-libvirt/libvirtd.conf" <<CONF
host_uuid = "$uuid"
listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
tcp_port = "16509"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
keepalive_interval = 5
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
CONF
  cat > "$directory/etc-libvirt/qemu.conf" <<CONF
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
namespaces = [ ]
stdio_handler = "logd"
vnc_listen = "0.0.0.0"
migration_address = "0.0.0.0"
migration_host = "$address"
keepalive_interval = 5
CONF
  if [ -n "$LOCK_MANAGER" ]; then
    echo "lock_manager = \"$LOCK_MANAGER\"" >> "$directory/etc-libvirt/qemu.conf"
    # auto_disk_leases must be 1, or virtlockd never registers the lockspace.
    # require_lease_for_disks is 1 unless it is said: no machine without a lease would start.
    printf 'auto_disk_leases = 0\nrequire_lease_for_disks = 0\nuser = "root"\ngroup = "root"\n' \
      > "$directory/etc-libvirt/qemu-sanlock.conf"
    printf 'auto_disk_leases = 1\nfile_lockspace_dir = "%s"\n' "$LOCKSPACE" > "$directory/etc-libvirt/qemu-lockd.conf"
  fi
  printf '127.0.0.1 localhost\n%s\n' "$ALL_HOSTS" > "$directory/hosts"
  touch "$directory/was-booted"
}
[ -e "$directory/was-booted" ] || first_boot

# What a reboot loses.
rm -rf "$directory"/run/* "$directory"/tmp/*
mkdir -p "$directory"/run/libvirt "$directory"/run/lock "$directory"/dev
chmod 1777 "$directory/tmp"

# A /dev without kvm. Where the machine's own cannot run a guest, libvirt would offer it all the same, and would ask
# QEMU for its capabilities anew at every start (84 s for one machine).
dev=$directory/dev
mount -t tmpfs -o mode=755 tmpfs "$dev"
mkdir -p "$dev"/net "$dev"/pts "$dev"/shm
for node in null zero full random urandom tty net/tun fuse; do [ ! -e "/dev/$node" ] || cp -a "/dev/$node" "$dev/$node"; done
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$dev/pts"
ln -s pts/ptmx "$dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$dev/shm"
mkdir -p "$dev/hugepages"
mount -t hugetlbfs hugetlbfs "$dev/hugepages" || echo "this kernel has no huge pages"
ln -s /proc/self/fd "$dev/fd"
for stream in "stdin 0" "stdout 1" "stderr 2"; do ln -s "/proc/self/fd/${stream#* }" "$dev/${stream% *}"; done
mount --move "$dev" /dev

# One of the host's own directories in place of this computer's. The laboratory itself stays in sight.
cover() {
  case "$LAB/" in "$2"/*) mkdir -p "$1${LAB#"$2"}"; mount --rbind "$LAB" "$1${LAB#"$2"}";; esac
  mount --rbind "$1" "$2"
}
cover "$directory/etc-libvirt" /etc/libvirt
cover "$directory/var-lib-libvirt" /var/lib/libvirt
cover "$directory/var-log-libvirt" /var/log/libvirt
cover "$directory/var-cache-libvirt" /var/cache/libvirt
cover "$directory/run" /run
cover "$directory/tmp" /tmp
mount --bind "$directory/hosts" /etc/hosts
# The power switch's fence agent, as if a package had brought it.
mount -t overlay -o "lowerdir=$FENCE_AGENTS:/usr/sbin" overlay /usr/sbin || echo "no fence agent in /usr/sbin"
# This namespace's network cards; a computer that forbids it shows its own.
mount -t sysfs sysfs /sys 2>/dev/null || true
if [ "$CGROUPS" = v2 ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  # Controllers are given to children of a group that holds no process.
  mkdir -p /sys/fs/cgroup/init
  echo $$ > /sys/fs/cgroup/init/cgroup.procs
  for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control || true
  done
elif [ -n "$CGROUPS" ]; then
  mount -t tmpfs cgroup /sys/fs/cgroup
  for controller in $CGROUPS; do
    mkdir -p "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
  done
fi

ip link set lo up
virtlogd -d
[ "$LOCK_MANAGER" != lockd ] || virtlockd -d
if [ "$LOCK_MANAGER" = sanlock ]; then
  # No watchdog device, no log on this computer. By its name a host that was booted anew is known, and does not wait.
  mkdir -p /run/sanlock
  LD_PRELOAD=$SANLOCK_LIMITS sanlock daemon -w 0 -U root -G root -L -1 -S -1 -e "$name"
  # It listens a little after it has gone into the background. Joining takes 3 s, and libvirt does not wait for it.
  { until sanlock client status > /run/sanlock/started; do sleep 0.1; done
    sanlock client add_lockspace -s "$SANLOCK_LOCKSPACE" -o 1; } &
fi
libvirtd -l -d
[ ! -x "$directory/boot" ] || "$directory/boot" > "$directory/boot.log" 2>&1 &
echo ready > /run/ready
trap 'exit 0' TERM
while :; do sleep 3600 & wait $! || true; done
