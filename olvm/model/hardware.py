"""What a machine is made of beyond CPUs and memory: disks, network cards, firmware and the like.

Pure values, shared by commands, records and hypervisor backends. A backend that cannot give something refuses the
start and says what; a simulated hypervisor takes disks and cards into its load model and ignores the rest.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

import msgspec

from olvm.model.errors import BadInput
from olvm.model.limits import DISKS_PER_VM_MAX, NICS_PER_VM_MAX, SEED_BYTES_MAX

DiskBus = Literal["virtio", "scsi", "sata"]
DiskFormat = Literal["qcow2", "raw"]
DiskDevice = Literal["disk", "cdrom"]
NicModel = Literal["virtio", "e1000e"]
Firmware = Literal["bios", "uefi"]
WatchdogAction = Literal["reset", "poweroff", "pause", "none"]

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
# A device's name is used in file names, in XML and as the guest's own: nothing that needs quoting in any of them.
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class DiskSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name` is what the guest calls it: vda, sda, … `source` is whatever the backend opens: an absolute path, or
    `pool/volume` in its own storage. Empty: the backend makes `<vm id>-<name>` of `size_bytes` in its first pool when
    the machine first starts, and nobody deletes it unasked.
    """

    name: str
    size_bytes: int = 0
    source: str = ""
    format: DiskFormat = "qcow2"
    bus: DiskBus = "virtio"
    device: DiskDevice = "disk"
    read_only: bool = False
    serial: str = ""  # as the guest sees it; empty: the name
    base: str = ""  # a volume or path that a disk which the backend makes starts as a copy-on-write of


class NicSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`network` names a bridge or a network of the host. An empty `mac`: one that is stable for the VM."""

    name: str
    network: str = ""
    mac: str = ""
    model: NicModel = "virtio"
    link_up: bool = True


class CloudInit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A NoCloud seed; `meta_data` empty: instance id and host name of the machine."""

    user_data: str = ""
    meta_data: str = ""
    network_config: str = ""


class Hardware(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults are those of a modern Linux guest: q35, virtio, RNG, serial console, VNC, no TPM."""

    disks: tuple[DiskSpec, ...] = ()
    nics: tuple[NicSpec, ...] = ()
    firmware: Firmware = "bios"
    secure_boot: bool = False  # of UEFI alone
    kernel: str = ""  # direct boot: absolute paths on the host
    initrd: str = ""
    cmdline: str = ""
    cpu_model: str = ""  # empty: the backend's; "host-passthrough", "host-model", or a name of QEMU's
    vcpus_max: int = 0  # room for hot-plug; 0: as many as it starts with
    memory_bytes_max: int = 0  # room for hot-plug; 0: none
    cpu_quota_percent: int = 0  # of one CPU, for each vCPU; 0: no limit
    numa_nodes: int = 1
    huge_page_bytes: int = 0  # 0: ordinary pages
    tpm: bool = False
    rng: bool = True
    watchdog: WatchdogAction = "none"
    serial_console: bool = True
    vnc: bool = True
    cloud_init: CloudInit | None = None

    def __post_init__(self) -> None:
        _check_named("disk", [disk.name for disk in self.disks], DISKS_PER_VM_MAX)
        _check_named("network card", [nic.name for nic in self.nics], NICS_PER_VM_MAX)
        for disk in self.disks:
            check_disk(disk)
        for nic in self.nics:
            check_nic(nic)
        _check_boot(self)
        _check_seed(self.cloud_init)
        if not 1 <= self.numa_nodes <= 64:
            raise BadInput(f"a machine has 1 to 64 NUMA nodes, got {self.numa_nodes}")
        if self.cpu_quota_percent < 0 or self.vcpus_max < 0 or self.memory_bytes_max < 0:
            raise BadInput("cpu_quota_percent, vcpus_max and memory_bytes_max must not be negative")
        if self.huge_page_bytes not in (0, 2 * 1024**2, 1024**3):
            raise BadInput(f"huge pages are 2 MiB or 1 GiB, got {self.huge_page_bytes} bytes")


def _check_named(what: str, names: list[str], count_max: int) -> None:
    if len(names) > count_max:
        raise BadInput(f"a machine has at most {count_max} {what}s, got {len(names)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"{what} {twice[0]} is named twice; give each its own name")
    for name in names:
        if not _NAME.fullmatch(name):
            raise BadInput(
                f"{what} name {name!r} is not usable: a small letter, then up to 31 of a-z, 0-9, _ and -"
            )


def check_disk(disk: DiskSpec) -> None:
    """Raises `BadInput`."""
    what = f"disk {disk.name}"
    _check_named("disk", [disk.name], 1)
    if disk.size_bytes < 0:
        raise BadInput(f"{what}: size_bytes must not be negative, got {disk.size_bytes}")
    if not disk.source and disk.device == "disk" and disk.size_bytes == 0 and not disk.base:
        raise BadInput(f"{what}: give a source, or size_bytes of a new one, or a base that it starts from")
    if disk.base and disk.source:
        raise BadInput(f"{what}: it has a source and a base; a disk that is there has no use for a base")
    if disk.device == "cdrom" and disk.bus == "virtio":
        raise BadInput(f"{what}: a cdrom needs bus scsi or sata, virtio has none")
    for field, text in (("source", disk.source), ("base", disk.base)):
        if ".." in text.split("/") or "\0" in text or "\n" in text:
            raise BadInput(f"{what}: {field} {text!r} is not a plain path or pool/volume")
    if len(disk.serial) > 20 or not disk.serial.isprintable():
        raise BadInput(f"{what}: serial has at most 20 printable characters, got {disk.serial!r}")


def check_nic(nic: NicSpec) -> None:
    """Raises `BadInput`."""
    _check_named("network card", [nic.name], 1)
    if nic.mac and (not _MAC.fullmatch(nic.mac) or int(nic.mac[:2], 16) & 1):
        raise BadInput(
            f"network card {nic.name}: mac {nic.mac!r} is no unicast address; write it as 52:54:00:12:34:56"
        )


def _check_boot(hardware: Hardware) -> None:
    if (hardware.initrd or hardware.cmdline) and not hardware.kernel:
        raise BadInput("initrd and cmdline go with a kernel; name one, or leave them out")
    for name in ("kernel", "initrd"):
        path: str = getattr(hardware, name)
        if path and not path.startswith("/"):
            raise BadInput(f"{name} must be an absolute path on the host, got {path!r}")
    if hardware.secure_boot and hardware.firmware != "uefi":
        raise BadInput("secure boot needs firmware uefi")


def _check_seed(seed: CloudInit | None) -> None:
    if seed is None:
        return
    for name in seed.__struct_fields__:
        size = len(getattr(seed, name).encode())
        if size > SEED_BYTES_MAX:
            raise BadInput(f"cloud-init {name} has {size} bytes; at most {SEED_BYTES_MAX} fit")


def hardware_from(fields: object) -> Hardware:
    """Build it from decoded JSON or TOML; an unknown or ill-typed field raises `BadInput`, which names it."""
    try:
        return msgspec.convert(fields, Hardware)
    except msgspec.ValidationError as error:
        raise BadInput(f"hardware: {error}; see olvm.model.hardware for the names") from error


def is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
