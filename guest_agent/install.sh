#!/bin/sh
# Installs the olvm guest agent, or takes it away: install.sh [--root DIR] [--console TERMINAL] [uninstall]
# Beside this script lie olvm-guest-agent.pyz and the units. Run again, it changes nothing more.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root= console= action=install
while [ $# -gt 0 ]; do
  case $1 in
    --root) root=$2; shift 2;;
    --console) console=$2; shift 2;;
    uninstall) action=uninstall; shift;;
    *) echo "install.sh: unknown word $1" >&2; exit 2;;
  esac
done
pam=$root/etc/pam.d/login
line='auth sufficient pam_exec.so quiet /usr/lib/olvm/olvm-pam'
units=$root/etc/systemd/system
port='dev-virtio\x2dports-ovirt\x2dguest\x2dagent.0.device'

if [ "$action" = uninstall ]; then
  [ ! -f "$pam" ] || sed -i '\#/usr/lib/olvm/olvm-pam#d' "$pam"
  rm -f "$units/olvm-guest-agent.service" "$units/olvm-console@.service" "$units/$port.wants/olvm-guest-agent.service" \
    "$units"/multi-user.target.wants/olvm-console@*.service
  rm -rf "$root/usr/lib/olvm"
  exit 0
fi

mkdir -p "$root/usr/lib/olvm" "$units/$port.wants" "$units/multi-user.target.wants" "$root/etc/olvm-guest-agent/hooks.d"
cp "$here/olvm-guest-agent.pyz" "$root/usr/lib/olvm/"
printf '#!/bin/sh\nexec /usr/bin/python3 -I -S /usr/lib/olvm/olvm-guest-agent.pyz pam\n' > "$root/usr/lib/olvm/olvm-pam"
chmod 755 "$root/usr/lib/olvm/olvm-pam" "$root/usr/lib/olvm/olvm-guest-agent.pyz"
cp "$here/olvm-guest-agent.service" "$here/olvm-console@.service" "$units/"
ln -sf ../olvm-guest-agent.service "$units/$port.wants/olvm-guest-agent.service"
[ -z "$console" ] || ln -sf "../olvm-console@.service" "$units/multi-user.target.wants/olvm-console@$console.service"
# First of all, or the password would be asked for before.
if [ -f "$pam" ] && ! grep -q /usr/lib/olvm/olvm-pam "$pam"; then sed -i "1i $line" "$pam"; fi
[ -n "$root" ] || ! command -v systemctl > /dev/null || systemctl daemon-reload
