"""What Debian must bring for real hosts on this machine, in one list, and how it is brought."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import sysconfig
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType

from olvm.lab.commands import run
from olvm.model.errors import BadInput, OlvmError

# By what is looked for, the package that has it: programs by name, files by path.
PACKAGE_BY_FILE: dict[str, str] = {
    "libvirtd": "libvirt-daemon-system",
    "virtlockd": "libvirt-daemon-system",
    "sanlock": "sanlock",
    "/usr/lib/libvirt/libvirt_sanlock_helper": "libvirt-sanlock",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "ip": "iproute2",
    "dnsmasq": "dnsmasq-base",
    "iptables": "iptables",
    "busybox": "busybox-static",
    "bindfs": "bindfs",
    "mke2fs": "e2fsprogs",
    "nsenter": "util-linux",
    "/usr/share/OVMF/OVMF_CODE_4M.fd": "ovmf",
    "swtpm": "swtpm",
    "swtpm_setup": "swtpm-tools",
    "mmdebstrap": "mmdebstrap",
    "fence_redfish": "fence-agents",
    "gcc": "gcc",
    "pkg-config": "pkg-config",
    "/usr/include/libvirt/libvirt.h": "libvirt-dev",
    # libvirt-python is compiled; a Python that is not Debian's has brought its own.
    f"{sysconfig.get_path('include')}/Python.h": "python3-dev",
}
POLICY = Path("/usr/sbin/policy-rc.d")
INSTALL_TIMEOUT_S = 900.0
DEVICES = {
    "/dev/net/tun": "give this container the device, or load the module tun",
    "/dev/fuse": "give this container the device, or load the module fuse",
}
MEMORY_MIB_MIN = 2048
# In namespaces of its own: nothing of it is left.
PROBE = (
    "mount --make-rprivate / && mount -t tmpfs probe /mnt && ip link add probe type bridge "
    "&& ip link add probe0 type veth peer name probe1"
)


def missing() -> list[str]:
    """Packages whose files are not here, sorted."""
    lacking = {package for file, package in PACKAGE_BY_FILE.items() if not _is_there(file)}
    return sorted(lacking)


def lacking() -> list[str]:
    """Why no laboratory can be made here: sentences, each with what to do; empty when it can."""
    if os.geteuid() != 0:
        return ["hosts are made of namespaces, which only root may make here; run it as root"]
    if packages := missing():
        return [f"Debian packages are missing: {' '.join(packages)}; run make apt-libvirt"]
    found = [
        f"{device} is missing; {advice}" for device, advice in DEVICES.items() if not Path(device).exists()
    ]
    if (free_mib := _available_mib()) < MEMORY_MIB_MIN:
        found.append(
            f"{free_mib} MiB of memory are available and machines need {MEMORY_MIB_MIN}; stop something"
        )
    try:
        run(["unshare", "-muipn", "--fork", "sh", "-c", PROBE])
    except OlvmError as error:
        found.append(
            f"namespaces are refused ({error}); give this container the right to make them (CAP_SYS_ADMIN)"
        )
    return found


def _available_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def _is_there(file: str) -> bool:
    if file.startswith("/"):
        return Path(file).exists()
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return shutil.which(file, path=path) is not None


def install() -> None:
    """Bring what is missing, by apt. No daemon is started: a laboratory starts its own.

    Raises:
        BadInput: not root, or no apt; the message names the packages.
        OlvmError: apt failed.
    """
    packages = missing()
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BadInput(f"root and apt-get are needed to install {', '.join(packages)}; install them yourself")
    with _no_daemons():
        _apt("update", "-qq")
        _apt("install", "-y", "-qq", "--no-install-recommends", *packages)
    if still := missing():
        raise OlvmError(
            f"apt installed without an error, and these are missing all the same: {', '.join(still)}"
        )


def _apt(*words: str) -> None:
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run([*environment, "apt-get", *words], timeout_s=INSTALL_TIMEOUT_S)


def _no_daemons() -> AbstractContextManager[object]:
    """Debian's packages start their daemons unless this file says no. One that is there already is left alone."""
    return nullcontext() if POLICY.exists() else _Policy()


class _Policy:
    def __enter__(self) -> None:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(POLICY.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        POLICY.unlink(missing_ok=True)


def main() -> int:
    try:
        install()
    except OlvmError as error:
        print(error, file=sys.stderr)  # noqa: T201 - this is its whole face
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
