"""What a machine lacks to be a host, and the one command that mends each.

Looks and changes nothing. Works without libvirt's Python binding and without root: what cannot be seen without rights
is said to be so. `missing` is what no host can be without; everything else is a `warning` with what it costs.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from hypervisor_backends import host_hardware_check as hardware
from hypervisor_backends.fence_options import agents_in
from hypervisor_backends.host_lock_check import lock_manager
from hypervisor_backends.host_view import Finding, HostView, State, this_machine
from hypervisor_backends.libvirt_settings import LockManager

__all__ = ["CheckOptions", "Finding", "HostView", "check_host", "is_fit", "this_machine"]

LIBVIRT_PORTS = {16514: "TLS", 16509: "TCP"}
MIGRATION_PORTS = range(49152, 49216)  # of libvirt's QEMU driver
CONNECT = (
    "import libvirt, sys; libvirt.registerErrorHandler(lambda *_: None, None)\n"
    "try: print(libvirt.open(sys.argv[1]).getLibVersion())\n"
    "except libvirt.libvirtError as error: sys.exit(str(error))\n"
)
LOCAL_MOUNTS = frozenset({"ext4", "ext3", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "vfat"})


class CheckOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The same as the settings of the host will be."""

    uri: str = "qemu:///system"
    bridge: str = "br0"
    lease_directory: str = ""
    lock_manager: LockManager = ""
    lockspace: str = "area"


def check_host(options: CheckOptions, view: HostView | None = None) -> list[Finding]:
    """In the order in which they are best mended. Cost: seconds; a guest is run, and libvirt is asked."""
    seen = this_machine() if view is None else view
    return [
        *packages(seen),
        *libvirt_binding(seen),
        *libvirt_answers(seen, options.uri),
        *hardware.kvm(seen),
        *hardware.tap_devices(seen),
        *bridge(seen, options.bridge),
        *migration_ports(seen),
        *lease_directory(seen, options.lease_directory),
        *lock_manager(seen, options.lock_manager, options.lease_directory, options.lockspace),
        *rights(seen),
        *hardware.watchdog(seen),
        *fence_agents(seen),
        *hardware.time_synchronization(seen),
        *hardware.cgroups(seen),
        *hardware.locked_memory(seen),
        *hardware.huge_pages(seen),
        *hardware.iommu(seen),
    ]


def is_fit(findings: Sequence[Finding]) -> bool:
    return all(finding.state != "missing" for finding in findings)


# ---------------------------------------------------------------- programs

# What is looked for (any of the programs), the packages of Debian and of Red Hat, what lacks without it.
PACKAGES: tuple[tuple[str, tuple[str, ...], str, str, State, str], ...] = (
    (
        "libvirt",
        ("virtqemud", "libvirtd"),
        "libvirt-daemon-system libvirt-clients",
        "libvirt-daemon-kvm libvirt-client",
        "missing",
        "nothing drives QEMU",
    ),
    (
        "qemu",
        ("qemu-system-x86_64", "qemu-kvm", "qemu-system-aarch64"),
        "qemu-system-x86",
        "qemu-kvm",
        "missing",
        "nothing runs machines",
    ),
    ("qemu-img", ("qemu-img",), "qemu-utils", "qemu-img", "missing", "no disk can be made"),
    ("ip", ("ip",), "iproute2", "iproute", "missing", "no network can be made"),
    (
        "dnsmasq",
        ("dnsmasq",),
        "dnsmasq-base",
        "dnsmasq",
        "warning",
        "isolated networks have no addresses to give",
    ),
    ("swtpm", ("swtpm",), "swtpm swtpm-tools", "swtpm swtpm-tools", "warning", "machines have no TPM"),
)
FIRMWARE = ("/usr/share/OVMF", "/usr/share/edk2/ovmf", "/usr/share/qemu/firmware")


def packages(view: HostView) -> list[Finding]:
    findings = []
    for what, programs, debian, rhel, state, lacks in PACKAGES:
        found = view.program(*programs)
        if found:
            findings.append(Finding(what=what, state="ok", says=f"{found} is there"))
        else:
            says = f"{' or '.join(programs)} is not installed: {lacks}"
            findings.append(Finding(what=what, state=state, says=says, mend=view.install(debian, rhel)))
    if any(view.has(place) for place in FIRMWARE):
        findings.append(Finding(what="uefi", state="ok", says="machines can have UEFI"))
    else:
        mend = view.install("ovmf", "edk2-ovmf")
        findings.append(
            Finding(what="uefi", state="warning", says="there is no UEFI for machines", mend=mend)
        )
    return findings


def libvirt_binding(view: HostView) -> list[Finding]:
    what = "libvirt_python"
    if find_spec("libvirt") is not None:
        return [Finding(what=what, state="ok", says=f"libvirt-python is there for {sys.executable}")]
    says = f"libvirt-python is missing for {sys.executable}: the host's agent cannot speak to libvirt"
    headers = view.install(
        "libvirt-dev pkg-config gcc python3-dev", "libvirt-devel pkgconf gcc python3-devel"
    )
    pip = f"{sys.executable} -m pip install 'libvirt-python>=9'"
    return [Finding(what=what, state="missing", says=says, mend=f"{headers} && {pip}" if headers else pip)]


def libvirt_answers(view: HostView, uri: str) -> list[Finding]:
    """Asked in another process: a libvirt that hangs must not hang the check."""
    what = "libvirt_answers"
    if find_spec("libvirt") is not None:
        code, said = view.run([sys.executable, "-c", CONNECT, uri])
    elif virsh := view.program("virsh"):
        code, said = view.run([virsh, "-q", "-c", uri, "version"])
    else:
        says = f"whether {uri} answers cannot be asked: neither libvirt-python nor virsh is here"
        return [Finding(what=what, state="missing", says=says)]
    if code == 0:
        return [Finding(what=what, state="ok", says=f"{uri} answers")]
    last = said.splitlines()[-1] if said else "it says nothing"
    denied = re.search(r"permission denied|authentication|access denied", said, re.IGNORECASE)
    if denied and view.user_id != 0:
        says = f"{uri} does not let user {view.user} in ({last}); log in anew after the command"
        mend = view.as_root(f"usermod -aG libvirt {view.user}")
    else:
        says = f"{uri} does not answer: {last}"
        service = "virtqemud.socket" if view.family == "rhel" else "libvirtd"
        mend = view.as_root(f"systemctl enable --now {service}") if view.has("/run/systemd/system") else ""
        mend = mend or (view.as_root("libvirtd -d") if view.program("libvirtd") else "")
    return [Finding(what=what, state="missing", says=says, mend=mend if ":///" in uri else "")]


def fence_agents(view: HostView) -> list[Finding]:
    """Of whichever host: this one may have to switch off another."""
    what = "fence_agents"
    agents = agents_in(view.path("/usr/sbin"))
    if not agents:
        says = "there are no fence agents; no other host can be switched off through this one"
        return [
            Finding(
                what=what, state="warning", says=says, mend=view.install("fence-agents", "fence-agents-all")
            )
        ]
    if "fence_ipmilan" in agents and not view.program("ipmitool"):
        says = "ipmitool is missing: fence_ipmilan and what is built on it (iLO, iDRAC, IMM) cannot work"
        return [Finding(what=what, state="warning", says=says, mend=view.install("ipmitool", "ipmitool"))]
    return [Finding(what=what, state="ok", says=f"{len(agents)} fence agents are there")]


# ---------------------------------------------------------------- network


def bridge(view: HostView, name: str) -> list[Finding]:
    if view.has(f"/sys/class/net/{name}/bridge"):
        return [Finding(what="bridge", state="ok", says=f"bridge {name} is there")]
    if view.has(f"/sys/class/net/{name}"):
        says = f"{name} is a network card and no bridge; name a bridge by the host's setting bridge"
        return [Finding(what="bridge", state="warning", says=says)]
    says = f"there is no bridge {name}; machines that name no network cannot start (setting bridge names another one)"
    if view.program("nmcli"):
        mend = f"nmcli connection add type bridge ifname {name} con-name {name}"
    else:
        mend = f"ip link add {name} type bridge && ip link set {name} up"
    return [Finding(what="bridge", state="warning", says=says, mend=view.as_root(mend))]


def migration_ports(view: HostView) -> list[Finding]:
    """Whether libvirt of other hosts finds this one, and data finds a port; of the firewall, that there is one."""
    findings = []
    listening = _listening(view)
    open_ways = [word for port, word in LIBVIRT_PORTS.items() if port in listening]
    if open_ways:
        findings.append(
            Finding(what="migration", state="ok", says=f"libvirt listens for other hosts ({open_ways[0]})")
        )
    else:
        says = "libvirt does not listen on 16514 (TLS) or 16509; machines migrate here only over qemu+ssh"
        socket_unit = "virtproxyd-tls.socket" if view.family == "rhel" else "libvirtd-tls.socket"
        mend = (
            view.as_root(f"systemctl enable --now {socket_unit}") if view.has("/run/systemd/system") else ""
        )
        findings.append(Finding(what="migration", state="warning", says=says, mend=mend))
    if taken := sorted(listening & set(MIGRATION_PORTS)):
        says = f"ports {taken[0]} and up, which migrations use, are taken by others ({len(taken)} of 64)"
        findings.append(Finding(what="migration_ports", state="warning", says=says))
    return [*findings, *_firewall(view)]


def _firewall(view: HostView) -> list[Finding]:
    first, last = MIGRATION_PORTS[0], MIGRATION_PORTS[-1]
    says = f"a firewall runs; see that it lets ports 16514 and {first} to {last} through from other hosts"
    if view.has("/run/firewalld") or view.has("/var/run/firewalld.pid"):
        ports = f"--add-port=16514/tcp --add-port={first}-{last}/tcp"
        mend = view.as_root(f"firewall-cmd --permanent {ports} && firewall-cmd --reload")
        return [Finding(what="firewall", state="warning", says=says, mend=mend)]
    if "ENABLED=yes" in view.text("/etc/ufw/ufw.conf"):
        mend = view.as_root(f"ufw allow 16514/tcp && ufw allow {first}:{last}/tcp")
        return [Finding(what="firewall", state="warning", says=says, mend=mend)]
    return []


def _listening(view: HostView) -> set[int]:
    """TCP ports with a listener, as the kernel's tables say."""
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in view.text(f"/proc/net/{name}").splitlines()[1:]
    ]
    return {int(words[1].rpartition(":")[2], 16) for words in lines if len(words) > 3 and words[3] == "0A"}


# ---------------------------------------------------------------- leases and rights


def lease_directory(view: HostView, directory: str) -> list[Finding]:
    what = "lease_directory"
    if not directory:
        says = (
            "no shared directory of leases was named (--lease-directory): machines that are highly available start "
            "elsewhere only after a fence device has answered"
        )
        return [Finding(what=what, state="warning", says=says)]
    path = view.path(directory)
    if not path.is_dir():
        says = f"{directory} is no directory here; mount the shared storage there"
        return [Finding(what=what, state="missing", says=says, mend=view.as_root(f"mkdir -p {directory}"))]
    kind, options = _mount_of(view, directory)
    if "nolock" in options or "local_lock=all" in options or "local_lock=posix" in options:
        says = f"{directory} is mounted without locks that other hosts see (nolock); mount it as NFS 4"
        return [Finding(what=what, state="missing", says=says)]
    if problem := _cannot_lock(path):
        says = f"{directory} is not fit for leases: {problem}"
        return [Finding(what=what, state="missing", says=says)]
    if kind in LOCAL_MOUNTS:
        says = f"{directory} is on {kind}, which this machine has for itself; hosts must share it"
        return [Finding(what=what, state="warning", says=says)]
    return [Finding(what=what, state="ok", says=f"{directory} ({kind}) can be locked and written")]


def _mount_of(view: HostView, directory: str) -> tuple[str, frozenset[str]]:
    """The file system and the options of the mount that holds it: the longest that fits, and the last of those."""
    found, length = ("", frozenset[str]()), -1
    for line in view.text("/proc/mounts").splitlines():
        _, point, kind, options, *_ = [*line.split(), "", "", "", ""]
        point = point.replace("\\040", " ")
        if Path(directory).is_relative_to(point or "/-") and len(point) >= length:
            found, length = (kind, frozenset(options.split(","))), len(point)
    return found


def _cannot_lock(path: Path) -> str:
    """Why a lease could not be written there; a file is made, locked twice, synced and removed."""
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix="host-check.") as file:
            wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, wanted)
            file.write(b"olvm")
            file.flush()
            os.fsync(file.fileno())
            with open(file.name, "rb+") as other:
                try:
                    fcntl.fcntl(other, fcntl.F_OFD_SETLK, wanted)
                except BlockingIOError:
                    return ""
                return "its locks keep nobody out"
    except OSError as error:
        return f"it cannot be written or locked ({error.strerror})"


def rights(view: HostView) -> list[Finding]:
    if view.user_id == 0:
        return [Finding(what="rights", state="ok", says="the agent would run as root")]
    says = (
        f"an agent of user {view.user} cannot end a QEMU of another user: leased machines do not start here; "
        "run the node as root"
    )
    return [
        Finding(
            what="rights", state="warning", says=says, mend=f"sudo {sys.executable} -m olvm.cli host check"
        )
    ]
