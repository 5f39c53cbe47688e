#!/bin/sh
# Installs the olvm guest agent, or takes it away: install.sh [--root DIR] [--console TERMINAL]... [uninstall]
# Beside this script lie olvm-guest-agent.pyz, olvm-guest-agent.service and olvm-console.conf
# (`python -m guest_agent.build DIR` puts them there). Run again, it changes nothing more.
# --root: a guest's file system mounted at DIR; nothing is started there. --console: hvc0, ttyS0, tty1, …
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root='' consoles='' action=install
while [ $# -gt 0 ]; do
  case $1 in
    --root) root=${2%/}; shift 2 ;;
    --console) consoles="$consoles $2"; shift 2 ;;
    uninstall) action=uninstall; shift ;;
    *) echo "install.sh: unknown word $1" >&2; exit 2 ;;
  esac
done
pam=$root/etc/pam.d/login
program=/usr/lib/olvm/olvm-guest-agent.pyz
pam_program=/usr/lib/olvm/olvm-pam
units=$root/etc/systemd/system
is_running() { [ -z "$root" ] && [ -d /run/systemd/system ]; }
unit_of() { case $1 in tty[0-9]*) echo "getty@$1.service" ;; *) echo "serial-getty@$1.service" ;; esac; }

if [ "$action" = uninstall ]; then
  if is_running; then
    systemctl stop olvm-guest-agent.service || true
    [ ! -e "$program" ] || /usr/bin/python3 -I -S "$program" uninstalled || true
  fi
  [ ! -f "$pam" ] || sed -i "\\#$pam_program#d" "$pam"
  rm -f "$units/olvm-guest-agent.service" "$units/multi-user.target.wants/olvm-guest-agent.service"
  rm -f "$units"/*getty@*.service.d/olvm-console.conf
  rmdir "$units"/*getty@*.service.d 2> /dev/null || true
  rm -rf "$root/usr/lib/olvm"
  if is_running; then systemctl daemon-reload; fi
  exit 0
fi

[ -x "$root/usr/bin/python3" ] || echo "install.sh: there is no $root/usr/bin/python3 yet; the agent needs it" >&2
mkdir -p "$root/usr/lib/olvm" "$units/multi-user.target.wants"
for event in before_migration after_migration before_hibernation after_hibernation; do
  mkdir -p "$root/etc/olvm-guest-agent/hooks.d/$event"
done
install -m 755 "$here/olvm-guest-agent.pyz" "$root$program"
printf '#!/bin/sh\nexec /usr/bin/python3 -I -S %s pam\n' "$program" > "$root$pam_program"
chmod 755 "$root$pam_program"
install -m 644 "$here/olvm-guest-agent.service" "$units/"
ln -sf ../olvm-guest-agent.service "$units/multi-user.target.wants/olvm-guest-agent.service"
for console in $consoles; do
  unit=$(unit_of "$console")
  mkdir -p "$units/$unit.d" "$units/getty.target.wants"
  install -m 644 "$here/olvm-console.conf" "$units/$unit.d/"
  ln -sf "/lib/systemd/system/${unit%%@*}@.service" "$units/getty.target.wants/$unit"
done
# Before all others: whoever comes with a token is not asked for a password.
if [ -f "$pam" ] && ! grep -q "$pam_program" "$pam"; then
  sed -i "1i auth sufficient pam_exec.so quiet $pam_program" "$pam"
fi
if is_running; then
  systemctl daemon-reload
  systemctl restart olvm-guest-agent.service
fi
