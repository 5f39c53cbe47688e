"""Plugging into and out of a running machine of libvirt: CPUs, memory, disks, media, network cards, quotas.

Decides when a device is there already, when a guest has refused, and which requests could never be met. A device is
gone when it is gone from the live XML: libvirt's answer to a detach only says that the guest was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from hypervisor_backends.device_xml import (
    KIB,
    DeviceKind,
    attributes_of,
    devices_of,
    disk_element,
    disk_targets,
    memory_element,
    network_of,
    nic_element,
    set_link,
    set_source,
    source_of,
    text_of,
)
from hypervisor_backends.domain_xml import QUOTA_PERIOD_US, quota_us
from hypervisor_backends.libvirt_networks import network_names
from hypervisor_backends.libvirt_storage import disk_with_source, resolved
from hypervisor_backends.libvirt_task_context import (
    TaskContext,
    TaskRefused,
    bad_request_of,
    live_xml,
    remember,
    waited_for,
    who,
)
from hypervisor_backends.protocol import (
    AttachDisk,
    AttachNic,
    ChangeMedium,
    DetachDisk,
    DetachNic,
    DomainSpec,
    PlugMemory,
    SetBalloon,
    SetCpuQuota,
    SetNicLink,
    SetVcpus,
    UnplugMemory,
)
from hypervisor_backends.task_rules import check_balloon, check_plugged_memory, check_quota, check_vcpus
from olvm.model.hardware import DiskSpec, NicSpec, check_disk, check_nic
from olvm.model.limits import DISKS_PER_VM_MAX, NICS_PER_VM_MAX

_LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE

_KIND_NAMES: dict[DeviceKind, str] = {"disk": "disk", "nic": "network card", "mem": "memory device"}


# ---------------------------------------------------------------- CPUs


def set_vcpus(domain: libvirt.virDomain, request: SetVcpus, context: TaskContext) -> None:
    count_max = domain.vcpusFlags(_LIVE | libvirt.VIR_DOMAIN_VCPU_MAXIMUM)
    count = domain.vcpusFlags(_LIVE)
    what = f"{who(domain, context)} cannot have {request.vcpus} vCPUs"
    bad_request_of(lambda: check_vcpus(request.vcpus, count_max), what)
    if request.vcpus < count and "hot_unplug_vcpu" not in context.features:
        raise TaskRefused("not_supported", f"{what}: it has {count}, and this host cannot unplug; restart it")
    if request.vcpus == count:
        return
    domain.setVcpusFlags(request.vcpus, _LIVE)
    if not waited_for(lambda: bool(domain.vcpusFlags(_LIVE) == request.vcpus), context.guest_wait_s):
        raise TaskRefused("guest_refused", f"{what}: the guest did not let go of a CPU", can_retry=True)
    remember(domain, context, lambda spec: msgspec.structs.replace(spec, vcpus=request.vcpus))


def set_cpu_quota(domain: libvirt.virDomain, request: SetCpuQuota, context: TaskContext) -> None:
    bad_request_of(lambda: check_quota(request), f"the CPU quota of {who(domain, context)}")
    limits = {"vcpu_period": QUOTA_PERIOD_US, "vcpu_quota": quota_us(request.percent)}
    domain.setSchedulerParametersFlags(limits, _LIVE)
    _remember_hardware(domain, context, cpu_quota_percent=request.percent)


# ---------------------------------------------------------------- memory


def set_balloon(domain: libvirt.virDomain, request: SetBalloon, context: TaskContext) -> None:
    # The first number of info() counts plugged memory too: all that the guest could be given back.
    size_max = domain.info()[1] * KIB
    bad_request_of(lambda: check_balloon(request, size_max), f"the balloon of {who(domain, context)}")
    domain.setMemoryFlags(request.memory_bytes // KIB, _LIVE)


def plug_memory(domain: libvirt.virDomain, request: PlugMemory, context: TaskContext) -> None:
    root = live_xml(domain)
    what = f"memory device {request.name} of {request.size_bytes} bytes cannot be plugged into {who(domain, context)}"
    present = devices_of(root, "mem").get(request.name)
    if present is not None:
        _same_memory(present, request, what)
        return
    room = root.findtext("maxMemory")
    if room is None:
        raise TaskRefused("bad_request", f"{what}: it has no room; start it with a larger memory_bytes_max")
    free_bytes = (int(room) - int(root.findtext("memory", default="0"))) * KIB
    nodes = len(root.findall("cpu/numa/cell"))
    bad_request_of(lambda: check_plugged_memory(request, free_bytes, nodes), what)
    element = memory_element(request.name, request.size_bytes, request.node)
    domain.attachDeviceFlags(text_of(element), _LIVE)


def _same_memory(present: ET.Element, request: PlugMemory, what: str) -> None:
    size_bytes = int(present.findtext("target/size", default="0")) * KIB
    node = int(present.findtext("target/node", default="0"))
    if (size_bytes, node) != (request.size_bytes, request.node):
        raise TaskRefused(
            "exists", f"{what}: it has one of that name, of {size_bytes} bytes; take another name"
        )


def unplug_memory(domain: libvirt.virDomain, request: UnplugMemory, context: TaskContext) -> None:
    _detach(domain, "mem", request.name, context)


# ---------------------------------------------------------------- disks


def attach_disk(domain: libvirt.virDomain, request: AttachDisk, context: TaskContext) -> None:
    disk = request.disk
    bad_request_of(lambda: check_disk(disk))
    root = live_xml(domain)
    present = devices_of(root, "disk")
    what = f"disk {disk.name} cannot be attached to {who(domain, context)}"
    if disk.bus == "sata":
        raise TaskRefused("bad_request", f"{what}: a sata disk cannot be plugged; use bus virtio or scsi")
    if disk.name in present:
        wanted = resolved(domain.connect(), disk.source, context) if disk.source else ""
        if wanted and wanted != source_of(present[disk.name]):
            raise TaskRefused("exists", f"{what}: it has a disk of that name; take another name")
        return
    if len(root.findall("devices/disk")) >= DISKS_PER_VM_MAX:
        raise TaskRefused("bad_request", f"{what}: {DISKS_PER_VM_MAX} disks are the most that it can have")
    disk = disk_with_source(domain.connect(), request.vm_id, disk, context)
    taken = [target.get("dev", "") for target in root.findall("devices/disk/target")]
    target = disk_targets([disk], taken)[disk.name]
    xml = bad_request_of(lambda: text_of(disk_element(disk, target, disk.source)))
    try:
        domain.attachDeviceFlags(xml, _LIVE)
    except libvirt.libvirtError as error:
        raise _attach_refusal(error, what) or error from error
    kept = disk
    _change_disks(domain, context, lambda disks: (*disks, kept))


def _attach_refusal(error: libvirt.libvirtError, what: str) -> TaskRefused | None:
    text = str(error.get_error_message() or error)
    if 'get "write" lock' in text or 'get shared "write" lock' in text or "resource busy" in text:
        return TaskRefused("in_use", f"{what}: another machine has it open ({text})", can_retry=True)
    if "No such file" in text or "Cannot access storage file" in text:
        return TaskRefused("not_found", f"{what}: {text}; create it first")
    if "No more available PCI slots" in text or "no more" in text.lower():
        return TaskRefused("bad_request", f"{what}: all its ports are taken; detach something, or restart it")
    return None


def detach_disk(domain: libvirt.virDomain, request: DetachDisk, context: TaskContext) -> None:
    _detach(domain, "disk", request.name, context)
    _change_disks(domain, context, lambda disks: tuple(one for one in disks if one.name != request.name))


def change_medium(domain: libvirt.virDomain, request: ChangeMedium, context: TaskContext) -> None:
    disk = _present(domain, "disk", request.name, context)
    what = f"the medium of {request.name} of {who(domain, context)} cannot be changed"
    if disk.get("device") != "cdrom":
        raise TaskRefused("bad_request", f"{what}: it is a disk; detach it and attach another one")
    source = resolved(domain.connect(), request.source, context) if request.source else ""
    if source == source_of(disk):
        return
    set_source(disk, source)
    try:
        domain.updateDeviceFlags(text_of(disk), _LIVE)
    except libvirt.libvirtError as error:
        text = str(error.get_error_message() or error)
        if "locked" in text or "is not open" in text:
            raise TaskRefused(
                "guest_refused", f"{what}: the guest holds its tray ({text})", can_retry=True
            ) from error
        raise _attach_refusal(error, what) or error from error
    _change_disks(
        domain,
        context,
        lambda disks: tuple(
            msgspec.structs.replace(one, source=source) if one.name == request.name else one for one in disks
        ),
    )


# ---------------------------------------------------------------- network cards


def attach_nic(domain: libvirt.virDomain, request: AttachNic, context: TaskContext) -> None:
    nic = request.nic
    bad_request_of(lambda: check_nic(nic))
    what = f"network card {nic.name} cannot be attached to {who(domain, context)}"
    networks = network_names(domain.connect())
    element = bad_request_of(
        lambda: nic_element(request.vm_id, nic, context.xml.default_bridge, networks), what
    )
    cards = devices_of(live_xml(domain), "nic")
    present = cards.get(nic.name)
    if present is not None:
        if (network_of(present), _mac(present)) != (network_of(element), _mac(element)):
            raise TaskRefused("exists", f"{what}: it has a card of that name; take another name")
        return
    if len(cards) >= NICS_PER_VM_MAX:
        raise TaskRefused("bad_request", f"{what}: {NICS_PER_VM_MAX} cards are the most that it can have")
    if any(_mac(other) == _mac(element) for other in cards.values()):
        raise TaskRefused("in_use", f"{what}: another card of it has the address {_mac(element)}")
    try:
        domain.attachDeviceFlags(text_of(element), _LIVE)
    except libvirt.libvirtError as error:
        text = str(error.get_error_message() or error)
        if "No such device" in text or "Cannot get interface MTU" in text:
            raise TaskRefused(
                "not_found", f"{what}: the host has no network or bridge {network_of(element)}; make it first"
            ) from error
        raise _attach_refusal(error, what) or error from error
    _change_nics(domain, context, lambda nics: (*nics, nic))


def _mac(nic: ET.Element) -> str:
    return attributes_of(nic.find("mac")).get("address", "")


def detach_nic(domain: libvirt.virDomain, request: DetachNic, context: TaskContext) -> None:
    _detach(domain, "nic", request.name, context)
    _change_nics(domain, context, lambda nics: tuple(one for one in nics if one.name != request.name))


def set_nic_link(domain: libvirt.virDomain, request: SetNicLink, context: TaskContext) -> None:
    nic = _present(domain, "nic", request.name, context)
    set_link(nic, is_up=request.up)
    domain.updateDeviceFlags(text_of(nic), _LIVE)
    _change_nics(
        domain,
        context,
        lambda nics: tuple(
            msgspec.structs.replace(one, link_up=request.up) if one.name == request.name else one
            for one in nics
        ),
    )


# ---------------------------------------------------------------- what they share


def _present(domain: libvirt.virDomain, kind: DeviceKind, name: str, context: TaskContext) -> ET.Element:
    found = devices_of(live_xml(domain), kind)
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise TaskRefused(
            "not_found", f"{who(domain, context)} has no {_KIND_NAMES[kind]} {name}; it has {known}"
        )
    return found[name]


def _detach(domain: libvirt.virDomain, kind: DeviceKind, name: str, context: TaskContext) -> None:
    """Ask the guest, and look until the device is gone or the guest has had its time."""
    device = _present(domain, kind, name, context)
    what = f"{_KIND_NAMES[kind]} {name} of {who(domain, context)}"
    try:
        domain.detachDeviceFlags(text_of(device), _LIVE)
    except libvirt.libvirtError as error:
        text = str(error.get_error_message() or error)
        if "rejected by the guest" in text:
            raise TaskRefused(
                "guest_refused", f"{what} stays: the guest refused to let go of it ({text})", can_retry=True
            ) from error
        # Asked before, and the guest still thinks about it: wait on.
        if "already in the process of unplug" not in text:
            raise
    gone = waited_for(lambda: name not in devices_of(live_xml(domain), kind), context.guest_wait_s)
    if not gone:
        raise TaskRefused(
            "guest_refused",
            f"{what} stays: the guest did not let go of it within {context.guest_wait_s:g} s; "
            "unmount or offline it in the guest and try again",
            can_retry=True,
        )


def _remember_hardware(domain: libvirt.virDomain, context: TaskContext, **changes: object) -> None:
    def change(spec: DomainSpec) -> DomainSpec:
        return msgspec.structs.replace(spec, hardware=msgspec.structs.replace(spec.hardware, **changes))

    remember(domain, context, change)


def _change_disks(
    domain: libvirt.virDomain,
    context: TaskContext,
    change: Callable[[tuple[DiskSpec, ...]], tuple[DiskSpec, ...]],
) -> None:
    def changed(spec: DomainSpec) -> DomainSpec:
        hardware = msgspec.structs.replace(spec.hardware, disks=change(spec.hardware.disks))
        return msgspec.structs.replace(spec, hardware=hardware)

    remember(domain, context, changed)


def _change_nics(
    domain: libvirt.virDomain,
    context: TaskContext,
    change: Callable[[tuple[NicSpec, ...]], tuple[NicSpec, ...]],
) -> None:
    def changed(spec: DomainSpec) -> DomainSpec:
        hardware = msgspec.structs.replace(spec.hardware, nics=change(spec.hardware.nics))
        return msgspec.structs.replace(spec, hardware=hardware)

    remember(domain, context, changed)
