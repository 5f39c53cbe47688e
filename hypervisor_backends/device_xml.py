"""The XML of single devices: disks, network cards, memory; and how each is found again in a running domain's XML.

Decides how a device is named to libvirt. Every device that a spec names carries an alias of ours (`ua-disk-vda`), which
libvirt keeps for the domain's life, so a device is found by the name that its owner gave it whatever the guest calls
it. Text of users goes in as attributes and text of elements, never as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Literal
from xml.etree import ElementTree as ET

from hypervisor_backends.task_rules import check_bridge_name
from olvm.model.errors import BadInput
from olvm.model.hardware import DiskBus, DiskSpec, NicSpec

DeviceKind = Literal["disk", "nic", "mem"]

# The names of targets of each bus, as guests number them.
_TARGET_PREFIX: dict[DiskBus, str] = {"virtio": "vd", "scsi": "sd", "sata": "sd"}
_ALIAS_PREFIX = "ua-"
# No spec can name a device so: its names are small letters.
SEED_ALIAS = "ua-SEED"
# libvirt takes a space too, and the guest then sees a backslash before it.
_SERIAL = re.compile(r"[A-Za-z0-9_.+-]{1,20}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
KIB = 1024


def child(parent: ET.Element, tag: str, text: str = "", **attributes: str) -> ET.Element:
    """Attributes whose names are words of Python take an underscore at the end."""
    element = ET.SubElement(parent, tag, {name.rstrip("_"): value for name, value in attributes.items()})
    if text:
        element.text = text
    return element


def alias_of(kind: DeviceKind, name: str) -> str:
    return f"{_ALIAS_PREFIX}{kind}-{name}"


def name_of(kind: DeviceKind, device: ET.Element) -> str:
    """The name that a spec or a request gave to the device; empty where it was none of ours."""
    alias = device.find("alias")
    prefix = alias_of(kind, "")
    given = "" if alias is None else alias.get("name", "")
    return given.removeprefix(prefix) if given.startswith(prefix) else ""


_TAG_OF_KIND: dict[DeviceKind, str] = {"disk": "disk", "nic": "interface", "mem": "memory"}


def devices_of(root: ET.Element, kind: DeviceKind) -> dict[str, ET.Element]:
    """Our devices of a running domain's XML, by name."""
    found = {name_of(kind, device): device for device in root.findall(f"devices/{_TAG_OF_KIND[kind]}")}
    found.pop("", None)
    return found


# ---------------------------------------------------------------- disks


def disk_targets(disks: Iterable[DiskSpec], taken: Iterable[str] = ()) -> dict[str, str]:
    """A target of libvirt for each disk: its own name where that fits its bus, else the next free one."""
    used = set(taken)
    targets: dict[str, str] = {}
    todo: list[DiskSpec] = []
    for disk in disks:
        prefix = _TARGET_PREFIX[disk.bus]
        if re.fullmatch(prefix + "[a-z]|" + prefix + "[ab][a-z]", disk.name) and disk.name not in used:
            targets[disk.name] = disk.name
            used.add(disk.name)
        else:
            todo.append(disk)
    for disk in todo:
        target = next(name for name in _target_names(_TARGET_PREFIX[disk.bus]) if name not in used)
        targets[disk.name] = target
        used.add(target)
    return targets


def _target_names(prefix: str) -> Iterable[str]:
    yield from (prefix + letter for letter in _LETTERS)
    yield from (prefix + first + second for first in "ab" for second in _LETTERS)


def disk_element(disk: DiskSpec, target: str, source: str, *, boot_order: int = 0) -> ET.Element:
    """`source` is an absolute path, or empty for a cdrom without a medium.

    Errors of the storage pause the guest instead of reaching it: it goes on when the storage does.
    """
    check_serial(disk)
    is_block = source.startswith("/dev/")
    element = ET.Element("disk", {"type": "block" if is_block else "file", "device": disk.device})
    if disk.device == "cdrom":
        child(element, "driver", name="qemu", type="raw", error_policy="report")
    else:
        driver = child(element, "driver", name="qemu", type=disk.format, cache="none")
        if disk.read_only:
            driver.set("error_policy", "report")
        else:
            driver.attrib.update({"error_policy": "stop", "rerror_policy": "stop", "discard": "unmap"})
    set_source(element, source)
    child(element, "target", dev=target, bus=disk.bus)
    if disk.read_only or disk.device == "cdrom":
        child(element, "readonly")
    child(element, "serial", disk.serial or disk.name[:20])
    if boot_order:
        child(element, "boot", order=str(boot_order))
    child(element, "alias", name=alias_of("disk", disk.name))
    if disk.bus == "scsi":
        set_scsi_address(element, _number_of(target))
    return element


def set_scsi_address(disk: ET.Element, number: int) -> None:
    """All on one controller: libvirt would add another one, and take a PCIe port, for every seven disks."""
    child(disk, "address", type="drive", controller="0", bus="0", target=str(number), unit="0")


def _number_of(target: str) -> int:
    """0 for sda, 25 for sdz, 26 for sdaa."""
    number = 0
    for letter in target[2:]:
        number = number * 26 + _LETTERS.index(letter) + 1
    return number - 1


def check_serial(disk: DiskSpec) -> None:
    if disk.serial and not _SERIAL.fullmatch(disk.serial):
        raise BadInput(
            f"disk {disk.name}: serial {disk.serial!r} is not usable; write it with letters, digits, _ . + and -"
        )


def set_source(disk: ET.Element, source: str) -> None:
    """Give a disk or cdrom another source, or none, in place."""
    is_block = source.startswith("/dev/")
    disk.set("type", "block" if is_block else "file")
    for old in [*disk.findall("source"), *disk.findall("backingStore")]:
        disk.remove(old)
    if source:
        at = [each.tag for each in disk].index("driver") + 1 if disk.find("driver") is not None else 0
        disk.insert(at, ET.Element("source", {"dev" if is_block else "file": source}))


def source_of(disk: ET.Element) -> str:
    """The path that a disk writes to now; empty where it has no medium or is no path."""
    source = disk.find("source")
    return "" if source is None else source.get("file") or source.get("dev") or ""


def sources_of(root: ET.Element) -> dict[str, str]:
    """Every path that the disks of a domain stand on, backing files included; by path, the disk's target."""
    used: dict[str, str] = {}
    for disk in root.findall("devices/disk"):
        target = disk.find("target")
        name = "" if target is None else target.get("dev", "")
        for element in [disk, *disk.iter("backingStore")]:
            if path := source_of(element):
                used.setdefault(path, name)
    return used


# ---------------------------------------------------------------- network cards


def mac_of(vm_id: str, nic: NicSpec) -> str:
    """Its own, or one that stays the same for this machine and card wherever it runs."""
    if nic.mac:
        return nic.mac
    digest = blake2b(f"{vm_id}/{nic.name}".encode(), digest_size=3).digest()
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in digest)


def nic_element(vm_id: str, nic: NicSpec, default_bridge: str, networks: Iterable[str]) -> ET.Element:
    """`networks`: the names of libvirt's own; any other name is that of a bridge. Raises `BadInput`."""
    wanted = nic.network or default_bridge
    is_network = wanted in set(networks)
    if not is_network:
        check_bridge_name(wanted)
    element = ET.Element("interface", {"type": "network" if is_network else "bridge"})
    child(element, "mac", address=mac_of(vm_id, nic))
    child(element, "source", **({"network": wanted} if is_network else {"bridge": wanted}))
    child(element, "model", type=nic.model)
    if not nic.link_up:
        child(element, "link", state="down")
    child(element, "alias", name=alias_of("nic", nic.name))
    return element


def set_link(nic: ET.Element, *, is_up: bool) -> None:
    link = nic.find("link")
    if link is None:
        link = child(nic, "link")
    link.set("state", "up" if is_up else "down")


def network_of(nic: ET.Element) -> str:
    source = nic.find("source")
    return "" if source is None else source.get("network") or source.get("bridge") or ""


# ---------------------------------------------------------------- memory


def memory_element(name: str, size_bytes: int, node: int) -> ET.Element:
    element = ET.Element("memory", {"model": "dimm"})
    target = child(element, "target")
    child(target, "size", str(size_bytes // KIB), unit="KiB")
    child(target, "node", str(node))
    child(element, "alias", name=alias_of("mem", name))
    return element


def text_of(element: ET.Element) -> str:
    return ET.tostring(element, encoding="unicode")


def attributes_of(element: ET.Element | None) -> Mapping[str, str]:
    return {} if element is None else element.attrib
