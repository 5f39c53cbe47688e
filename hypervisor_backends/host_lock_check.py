"""What a machine lacks for the lock manager that its host's setting `lock_manager` names. See `host_check.py`.

A leased machine does not start on a host whose lock manager is not ready; with sanlock no machine with a disk does
until `require_lease_for_disks` is 0. So all of it is `missing` and not a warning: it was asked for.
"""

from __future__ import annotations

import re
from itertools import pairwise

from hypervisor_backends.host_view import Finding, HostView
from hypervisor_backends.libvirt_settings import LibvirtSettings, LockManager, sanlock_escaped
from hypervisor_backends.sanlock_program import own_id_in

QEMU_CONF = "/etc/libvirt/qemu.conf"
SANLOCK_CONF = "/etc/libvirt/qemu-sanlock.conf"
DRIVER_PLACES = ("/usr/lib", "/usr/lib64")
DRIVER = "libvirt/lock-driver/sanlock.so"
# Without a lockspace of libvirt's own: olvm names the leases, and machines without one start too.
SANLOCK_NEEDS = {"auto_disk_leases": "0", "require_lease_for_disks": "0"}
_DEFAULTS = {"auto_disk_leases": "0", "require_lease_for_disks": "1"}


def lock_manager(view: HostView, name: LockManager, lease_directory: str, lockspace: str) -> list[Finding]:
    """Raises `BadInput`: a lock manager without a lease directory, or a name that no lockspace can have."""
    if not name:
        return []
    settings = LibvirtSettings(lock_manager=name, lease_directory=lease_directory, lockspace=lockspace)
    if name == "lockd":
        return [_qemu_conf(view, name)]
    return [
        _sanlock_packages(view),
        _qemu_conf(view, name),
        _sanlock_conf(view),
        *_sanlock_daemon(view, settings),
    ]


def _qemu_conf(view: HostView, name: LockManager) -> Finding:
    what = "lock_manager"
    has = _setting(view.text(QEMU_CONF), "lock_manager")
    if has == name:
        return Finding(what=what, state="ok", says=f"libvirt asks {name} before a leased machine starts")
    says = f"lock_manager is {has or 'not set'} in {QEMU_CONF}: leased machines do not start under {name}"
    command = f'echo "lock_manager = \\"{name}\\"" >> {QEMU_CONF}{_restart(view)}'
    return Finding(what=what, state="missing", says=says, mend=view.as_root(command))


def _sanlock_packages(view: HostView) -> Finding:
    what = "sanlock"
    mend = view.install("sanlock libvirt-sanlock", "sanlock libvirt-lock-sanlock")
    if not view.program("sanlock"):
        says = "the program sanlock is not installed: no lease can be made"
        return Finding(what=what, state="missing", says=says, mend=mend)
    patterns = [(view.path(place), name) for place in DRIVER_PLACES for name in (DRIVER, f"*/{DRIVER}")]
    if not any(list(place.glob(name)) for place, name in patterns):
        says = "libvirt's lock driver for sanlock is not installed: libvirt does not start with it"
        return Finding(what=what, state="missing", says=says, mend=mend)
    return Finding(what=what, state="ok", says="sanlock and libvirt's driver for it are there")


def _sanlock_conf(view: HostView) -> Finding:
    what = "sanlock_conf"
    text = view.text(SANLOCK_CONF)
    wrong = {
        key: value for key, value in SANLOCK_NEEDS.items() if (_setting(text, key) or _DEFAULTS[key]) != value
    }
    if not wrong:
        return Finding(what=what, state="ok", says="machines without a lease start beside those with one")
    named = " and ".join(f"{key} = {value}" for key, value in wrong.items())
    says = f"{SANLOCK_CONF} must say {named}, or no machine with a disk starts without a lease"
    lines = "".join(f"{key} = {value}\\n" for key, value in wrong.items())
    mend = view.as_root(f'printf "{lines}" >> {SANLOCK_CONF}{_restart(view)}')
    return Finding(what=what, state="missing", says=says, mend=mend)


def _sanlock_daemon(view: HostView, settings: LibvirtSettings) -> list[Finding]:
    """Whether it runs, and has joined the lockspace."""
    program = view.program("sanlock")
    if not program:
        return []
    code, said = view.run([program, "client", "gets"])
    if code != 0:
        says = (
            f"the daemon of sanlock does not answer ({said.splitlines()[-1] if said else 'it says nothing'})"
        )
        mend = view.as_root("systemctl enable --now sanlock") if view.has("/run/systemd/system") else ""
        return [Finding(what="sanlock_daemon", state="missing", says=says, mend=mend)]
    running = Finding(what="sanlock_daemon", state="ok", says="the daemon of sanlock answers")
    return [running, *_watchdog(view), _lockspace(view, settings, said)]


def _watchdog(view: HostView) -> list[Finding]:
    """Debian's package starts the daemon without."""
    words = view.text(f"/proc/{view.text('/run/sanlock/sanlock.pid')}/cmdline").split("\0")
    if ("-w", "0") not in pairwise(words):
        return []
    says = (
        "sanlock runs without a watchdog (-w 0): machines run on where its daemon was killed, and start elsewhere as "
        "well; give this machine a /dev/watchdog, start wdmd, and take -w 0 out of /etc/default/sanlock"
    )
    return [Finding(what="sanlock_watchdog", state="warning", says=says)]


def _lockspace(view: HostView, settings: LibvirtSettings, joined: str) -> Finding:
    what = "sanlock_lockspace"
    path = settings.sanlock_lockspace_path
    named = f"{settings.lockspace}:{{}}:{sanlock_escaped(path)}:0"
    if not view.has(path):
        says = (
            f"the lockspace {settings.lockspace} is not there ({path}); make it once for all hosts, and never again: "
            "the command takes every lease away"
        )
        make = f"mkdir -p {settings.lockspace_directory} && touch {path} && chown sanlock:sanlock {path}"
        mend = f"{make} && chmod 660 {path} && sanlock direct init -s {named.format(0)}"
        return Finding(what=what, state="missing", says=says, mend=view.as_root(mend))
    if own_id_in(joined, settings) is not None:
        return Finding(what=what, state="ok", says=f"this host is in the lockspace {settings.lockspace}")
    says = (
        f"this host has not joined the lockspace {settings.lockspace}: leased machines do not start; put a number for "
        "HOST_ID, 1 to 2000, that no other host has, and let it be done at each boot (docs/leases.md)"
    )
    mend = view.as_root(f"sanlock client add_lockspace -s {named.format('HOST_ID')}")
    return Finding(what=what, state="missing", says=says, mend=mend)


def _setting(text: str, key: str) -> str:
    """The last one counts for libvirt; empty: it is not set."""
    found = re.findall(rf'^\s*{key}\s*=\s*"?([^"\s#]*)"?', text, re.MULTILINE)
    return found[-1] if found else ""


def _restart(view: HostView) -> str:
    if not view.has("/run/systemd/system"):
        return ""
    return f" && systemctl restart {'virtqemud' if view.family == 'rhel' else 'libvirtd'}"
