"""The XML that libvirt starts a machine from.

Decides how each part of a spec becomes XML; single devices are `device_xml.py`, the element by which a machine is known
again is `domain_metadata.py`. Pure: the same spec and context give the same text, byte for byte, on every host. What
the host is and has comes in as the `XmlContext`; what it cannot give is refused with `BadInput`.

Rules:

1. Nobody sees the screen without a ticket: the password that a machine starts with expired long ago.
2. Channels name no path: libvirt chooses one on each host (two hosts may share their directories).
3. Whatever can be plugged later has its room from the start: slots for memory, ports for PCIe devices, CPUs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from xml.etree import ElementTree as ET

import msgspec

from hypervisor_backends.device_xml import (
    KIB,
    SEED_ALIAS,
    child,
    disk_element,
    disk_targets,
    nic_element,
    set_scsi_address,
)
from hypervisor_backends.domain_metadata import domain_uuid, metadata_element, new_metadata
from hypervisor_backends.protocol import DomainSpec
from olvm.model.errors import BadInput
from olvm.model.hardware import Hardware

GUEST_CHANNEL = "ovirt-guest-agent.0"
QEMU_AGENT_CHANNEL = "org.qemu.guest_agent.0"
# PCIe devices that can be plugged into a running machine. Each port costs firmware and guest a few milliseconds.
PCIE_PORTS_SPARE = 8
# Ports of what every machine has: SCSI controller, serial channels, balloon, RNG, USB, screen, and a bridge.
PCIE_PORTS_FIXED = 7
MEMORY_SLOTS = 16
BALLOON_PERIOD_S = 5
# The quota holds for each vCPU in each such period.
QUOTA_PERIOD_US = 100_000
# Nobody knows it and it is void since 1970; without any password QEMU would let everybody in.
VOID_PASSWORD = "no-entry"  # noqa: S105  (it opens nothing)
VOID_SINCE = "1970-01-01T00:00:01"
# libvirt's TCG keeps translated code in 1 GiB a machine if it is let.
_TCG_CACHE_MIB = 128
# What TCG is quick with (a Nehalem takes twice as long to boot) and what guests find a random source in.
TCG_CPU_MODEL = "EPYC"
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class XmlContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the host adds to a spec."""

    accelerator: Literal["kvm", "tcg"] = "tcg"
    arch: str = "x86_64"
    machine: str = "q35"
    emulator: str = ""  # empty: libvirt's own choice
    cpu_model: str = ""  # empty: host-model on KVM, TCG_CPU_MODEL otherwise
    lock_manager: str = ""
    lockspace: str = "area"
    lease_directory: str = ""
    lockspace_directory: str = ""  # in it; where sanlock has a file for each machine
    default_bridge: str = "br0"
    networks: tuple[str, ...] = ()  # libvirt's own; any other name of a network is a bridge's
    vnc_listen: str = "127.0.0.1"
    console_log_directory: str = ""  # empty: what the serial console says is not kept
    seed_path: str = ""  # of the cloud-init seed that was made for this machine
    layer_by_source: Mapping[str, str] = {}  # of disks with snapshots: the file that is written to now
    cgroups: bool = False  # whether CPU quotas are enforced


def domain_xml(vm_id: str, epoch: int, spec: DomainSpec, context: XmlContext, powered_on_ns: int = 0) -> str:
    """Raises `BadInput`. Sources of disks must be absolute paths by now (`libvirt_storage.prepare_disks`)."""
    hardware = spec.hardware
    root = ET.Element("domain", {"type": "kvm" if context.accelerator == "kvm" else "qemu"})
    child(root, "name", spec.name)
    child(root, "uuid", domain_uuid(vm_id))
    child(root, "metadata").append(metadata_element(new_metadata(vm_id, epoch, spec, powered_on_ns)))
    _memory(root, spec)
    _vcpus(root, spec, context)
    _boot(root, hardware, context)
    _features(root, hardware, context)
    _cpu(root, spec, context)
    child(root, "clock", offset="utc")
    child(root, "on_poweroff", "destroy")
    child(root, "on_reboot", "restart")
    child(root, "on_crash", "destroy")
    devices = child(root, "devices")
    if context.emulator:
        child(devices, "emulator", context.emulator)
    _controllers(devices, hardware, context)
    _disks(devices, hardware, context)
    for nic in hardware.nics:
        devices.append(nic_element(vm_id, nic, context.default_bridge, context.networks))
    _consoles(devices, vm_id, hardware, context)
    _small_devices(devices, hardware)
    _lease(devices, vm_id, spec, context)
    _check_texts(root, spec.name)
    return ET.tostring(root, encoding="unicode")


def _check_texts(root: ET.Element, name: str) -> None:
    """XML has no way to write some characters, not even escaped."""
    for element in root.iter():
        for text in (element.text or "", *element.attrib.values()):
            wrong = _NO_XML.search(text)
            if wrong:
                raise BadInput(
                    f"domain {name!r}: {text[:40]!r} holds the character {wrong.group()!r}, which XML has not"
                )


def vcpus_max_of(spec: DomainSpec) -> int:
    return max(spec.hardware.vcpus_max, spec.vcpus)


# ---------------------------------------------------------------- CPUs and memory


def _memory(root: ET.Element, spec: DomainSpec) -> None:
    hardware = spec.hardware
    kib = str(_kib(spec.memory_bytes))
    if hardware.memory_bytes_max > spec.memory_bytes:
        child(root, "maxMemory", str(_kib(hardware.memory_bytes_max)), slots=str(MEMORY_SLOTS), unit="KiB")
    child(root, "memory", kib, unit="KiB")
    child(root, "currentMemory", kib, unit="KiB")
    if hardware.huge_page_bytes:
        if spec.memory_bytes % hardware.huge_page_bytes:
            raise BadInput(
                f"domain {spec.name}: {spec.memory_bytes} bytes of memory are no multiple of its huge pages "
                f"of {hardware.huge_page_bytes} bytes"
            )
        pages = child(child(root, "memoryBacking"), "hugepages")
        child(pages, "page", size=str(hardware.huge_page_bytes // KIB), unit="KiB")


def _kib(size_bytes: int) -> int:
    return -(-size_bytes // KIB)


def _vcpus(root: ET.Element, spec: DomainSpec, context: XmlContext) -> None:
    child(root, "vcpu", str(vcpus_max_of(spec)), placement="static", current=str(spec.vcpus))
    percent = spec.hardware.cpu_quota_percent
    if not percent:
        return
    if not context.cgroups:
        raise BadInput(
            f"domain {spec.name} asks for a CPU quota of {percent} % and this host cannot enforce one; "
            "its libvirt needs the cpu controller of cgroups"
        )
    tune = child(root, "cputune")
    child(tune, "period", str(QUOTA_PERIOD_US))
    child(tune, "quota", str(quota_us(percent)))


def quota_us(percent: int) -> int:
    """libvirt's number for so many percent of one CPU; -1 is no limit."""
    return percent * QUOTA_PERIOD_US // 100 if percent else -1


def _cpu(root: ET.Element, spec: DomainSpec, context: XmlContext) -> None:
    is_kvm = context.accelerator == "kvm"
    model = spec.hardware.cpu_model or context.cpu_model or ("host-model" if is_kvm else TCG_CPU_MODEL)
    if model == "host-passthrough" and not is_kvm:
        raise BadInput(
            f"domain {spec.name} asks for CPU model host-passthrough, which needs KVM, and this host emulates; "
            'use "max" or a name of QEMU\'s'
        )
    if model in ("host-model", "host-passthrough"):
        cpu = child(root, "cpu", mode=model)
    elif model in ("max", "maximum"):
        cpu = child(root, "cpu", mode="maximum")
    else:
        cpu = child(root, "cpu", mode="custom", match="exact", check="none")
        child(cpu, "model", model, fallback="forbid")
    _numa(cpu, spec)


def _numa(cpu: ET.Element, spec: DomainSpec) -> None:
    """Memory can be plugged into nodes alone, so a machine with room for it has one at least."""
    hardware = spec.hardware
    nodes, vcpus = hardware.numa_nodes, vcpus_max_of(spec)
    if nodes == 1 and hardware.memory_bytes_max <= spec.memory_bytes:
        return
    if nodes > vcpus:
        raise BadInput(
            f"domain {spec.name} has {nodes} NUMA nodes and at most {vcpus} vCPUs; give each node one at least"
        )
    numa = child(cpu, "numa")
    unit_kib = max(hardware.huge_page_bytes // KIB, 1024)
    total_kib = _kib(spec.memory_bytes)
    part_kib = total_kib // nodes // unit_kib * unit_kib or total_kib // nodes
    for node in range(nodes):
        first, last = node * vcpus // nodes, (node + 1) * vcpus // nodes - 1
        kib = part_kib if node else total_kib - part_kib * (nodes - 1)
        cpus = str(first) if first == last else f"{first}-{last}"
        child(numa, "cell", id=str(node), cpus=cpus, memory=str(kib), unit="KiB")


# ---------------------------------------------------------------- firmware


def _boot(root: ET.Element, hardware: Hardware, context: XmlContext) -> None:
    uefi = hardware.firmware == "uefi"
    boot = child(root, "os", **({"firmware": "efi"} if uefi else {}))
    child(boot, "type", "hvm", arch=context.arch, machine=context.machine)
    if uefi:
        wanted = "yes" if hardware.secure_boot else "no"
        firmware = child(boot, "firmware")
        child(firmware, "feature", enabled=wanted, name="enrolled-keys")
        child(firmware, "feature", enabled=wanted, name="secure-boot")
    for name in ("kernel", "initrd", "cmdline"):
        if value := getattr(hardware, name):
            child(boot, name, value)


def _features(root: ET.Element, hardware: Hardware, context: XmlContext) -> None:
    features = child(root, "features")
    child(features, "acpi")
    child(features, "apic")
    if hardware.secure_boot:
        child(features, "smm", state="on")
    if context.accelerator == "tcg":
        child(child(features, "tcg"), "tb-cache", str(_TCG_CACHE_MIB), unit="MiB")


# ---------------------------------------------------------------- devices


def _controllers(devices: ET.Element, hardware: Hardware, context: XmlContext) -> None:
    if "q35" in context.machine:
        disks = sum(disk.bus == "virtio" for disk in hardware.disks)
        ports = disks + len(hardware.nics) + PCIE_PORTS_FIXED + PCIE_PORTS_SPARE
        child(devices, "controller", type="pci", index="0", model="pcie-root")
        for index in range(1, ports + 1):
            child(devices, "controller", type="pci", index=str(index), model="pcie-root-port")
    child(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    child(devices, "controller", type="virtio-serial", index="0")
    child(devices, "controller", type="usb", index="0", model="qemu-xhci" if hardware.vnc else "none")


def _disks(devices: ET.Element, hardware: Hardware, context: XmlContext) -> None:
    targets = disk_targets(hardware.disks)
    # Who boots a kernel directly needs no order; who does not tries disks and media as they are listed.
    for order, disk in enumerate(hardware.disks, start=1):
        if disk.source and not disk.source.startswith("/"):
            raise BadInput(f"disk {disk.name}: source {disk.source!r} must be an absolute path by now")
        if disk.device == "disk" and not disk.source:
            raise BadInput(f"disk {disk.name} has no source and nobody made one for it")
        source = context.layer_by_source.get(disk.source, disk.source)
        layer = disk if source == disk.source else msgspec.structs.replace(disk, format="qcow2")
        boot_order = 0 if hardware.kernel else order
        devices.append(disk_element(layer, targets[disk.name], source, boot_order=boot_order))
    if context.seed_path:
        devices.append(_seed(context.seed_path))


def _seed(path: str) -> ET.Element:
    """The cloud-init seed: a cdrom beyond the names and numbers that a disk can get."""
    element = ET.Element("disk", {"type": "file", "device": "cdrom"})
    child(element, "driver", name="qemu", type="raw")
    child(element, "source", file=path)
    child(element, "target", dev="sdzz", bus="scsi")
    child(element, "readonly")
    child(element, "alias", name=SEED_ALIAS)
    set_scsi_address(element, 99)
    return element


def _consoles(devices: ET.Element, vm_id: str, hardware: Hardware, context: XmlContext) -> None:
    if hardware.serial_console:
        serial = child(devices, "serial", type="pty")
        if context.console_log_directory:
            child(serial, "log", file=console_log_path(vm_id, context.console_log_directory), append="on")
        child(serial, "target", port="0")
        child(child(devices, "console", type="pty"), "target", type="serial", port="0")
    for name in (GUEST_CHANNEL, QEMU_AGENT_CHANNEL):
        child(child(devices, "channel", type="unix"), "target", type="virtio", name=name)
    if hardware.vnc:
        child(devices, "input", type="tablet", bus="usb")
        graphics = child(
            devices,
            "graphics",
            type="vnc",
            port="-1",
            autoport="yes",
            passwd=VOID_PASSWORD,
            passwdValidTo=VOID_SINCE,
        )
        child(graphics, "listen", type="address", address=context.vnc_listen)
        child(child(devices, "video"), "model", type="vga")


def console_log_path(vm_id: str, directory: str) -> str:
    """Where what the serial console says is kept on the host."""
    stem = vm_id if _FILE_NAME.fullmatch(vm_id) else domain_uuid(vm_id)
    return f"{directory.rstrip('/')}/{stem}.console.log"


def _small_devices(devices: ET.Element, hardware: Hardware) -> None:
    balloon = child(devices, "memballoon", model="virtio")
    child(balloon, "stats", period=str(BALLOON_PERIOD_S))
    if hardware.rng:
        child(child(devices, "rng", model="virtio"), "backend", "/dev/urandom", model="random")
    if hardware.tpm:
        tpm = child(devices, "tpm", model="tpm-crb")
        child(tpm, "backend", type="emulator", version="2.0")
    if hardware.watchdog != "none":
        # Every machine type has it; the one in q35's own chipset needs libvirt 9.1.
        child(devices, "watchdog", model="i6300esb", action=hardware.watchdog)
    child(devices, "panic", model="isa")


def _lease(devices: ET.Element, vm_id: str, spec: DomainSpec, context: XmlContext) -> None:
    """For virtlockd a lease is a name in a directory that it knows; for sanlock a file, and where in it."""
    if not spec.leased or not context.lock_manager:
        return
    lease = child(devices, "lease")
    child(lease, "lockspace", context.lockspace)
    child(lease, "key", domain_uuid(vm_id))
    path = context.lease_directory
    if context.lock_manager == "sanlock":
        path = f"{context.lockspace_directory}/{domain_uuid(vm_id)}"
    child(lease, "target", path=path)
