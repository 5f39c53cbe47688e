#!/bin/busybox sh
# The first process of the laboratory's small guest: modules, devices, network, both agents, a console.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
# What QEMU's agent calls to switch off: shutdown -h -P|-r|-H +0 "…". All of its words count.
cat > /sbin/shutdown <<'S'
#!/bin/sh
case " $* " in *" -r "*) exec reboot -f;; *" -H "*) exec halt -f;; *) exec poweroff -f;; esac
S
chmod +x /sbin/shutdown
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/virtio-ports /run /tmp
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
ln -sfn /run /var/run
touch /run/utmp
for module in /modules/*.ko; do insmod "$module" || echo "cannot load $module"; done
for port in /sys/class/virtio-ports/*; do
  [ ! -e "$port/name" ] || ln -sf "../${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done
word() { for w in $(cat /proc/cmdline); do case $w in "$1"=*) echo "${w#*=}"; return;; esac; done; }
name=$(word olvm.name); hostname "${name:-tiny}"
ip link set lo up
# CPUs that wait since the boot (kernel.py says why), and what is plugged in later: a distribution's udev rules bring
# that into use too.
bring_in() {
  for file in /sys/devices/system/cpu/cpu*/online; do [ ! -e "$file" ] || [ "$(cat "$file")" = 1 ] || echo 1 > "$file"; done
  for file in /sys/devices/system/memory/memory*/state; do [ "$(cat "$file")" = online ] || echo online > "$file" 2>/dev/null; done
}
bring_in
(while sleep 1; do bring_in; done) &
[ ! -c /dev/input/event0 ] || acpid -l /run/acpid.log
for card in /sys/class/net/eth*; do
  [ -e "$card" ] || continue
  card=${card##*/}
  ip link set "$card" up
  [ -n "$(word ip4)" ] || udhcpc -b -q -i "$card" -s /usr/share/udhcpc/default.script -t 3 -T 1 > /dev/null 2>&1 &
done
[ -z "$(word ip4)" ] || ip addr add "$(word ip4)" dev eth0
[ ! -e /dev/virtio-ports/org.qemu.guest_agent.0 ] ||
  qemu-ga -d -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run -f /run/qga.pid -l /run/qga.log
if [ -e /olvm-guest-agent.pyz ] && [ "$(word olvm.agent)" != off ]; then
  (while :; do python3 -I -S /olvm-guest-agent.pyz > /run/olvm-agent.log 2>&1; sleep 1; done) &
fi
echo "GUEST-READY up=$(cut -d' ' -f1 /proc/uptime)"
(n=0; while :; do n=$((n + 1)); echo "TICK $n up=$(cut -d' ' -f1 /proc/uptime)"; sleep 1; done) > /run/ticks &
while :; do setsid cttyhack sh; sleep 1; done
