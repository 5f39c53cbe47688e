"""What a libvirt host has, and what can be asked of it.

Decides the accelerator (KVM where a guest truly runs, TCG otherwise, or what the settings say), and which features of
tasks are declared: what a backend cannot do is declared here, not discovered later. Runs on a worker thread; blocks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from hypervisor_backends.domain_xml import XmlContext
from hypervisor_backends.kvm_probe import kvm_verdict
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.libvirt_task_context import TaskContext
from hypervisor_backends.protocol import Capabilities, Feature, HugePages, NumaNode

# In the order in which the protocol names them, so that two hosts of one kind say the same.
FEATURE_ORDER: tuple[Feature, ...] = get_args(Feature)
KVM_DEVICE = "/dev/kvm"


class Accelerated(msgspec.Struct, frozen=True, kw_only=True):
    accelerator: str  # kvm, tcg, or empty: neither (libvirt's test driver)
    reason: str


def capabilities_of(
    connection: libvirt.virConnect, settings: LibvirtSettings, features: Iterable[Feature] = ()
) -> Capabilities:
    """`features`: what the backend can do beside the tasks. `boot_id` and `problems` are left to it.

    Raises `libvirtError`, `OSError`.
    """
    root = ET.fromstring(connection.getCapabilities())  # noqa: S314  (libvirt's own words)
    _, _, cpus, _, _, sockets, cores, threads = connection.getInfo()
    chosen = accelerator_of(connection, root, settings)
    can = {*features, *task_features(connection, chosen.accelerator, settings)}
    return Capabilities(
        cpus=cpus,
        memory_bytes=_memory_bytes(connection),
        cpu_model=root.findtext("host/cpu/model", default=""),
        numa_nodes=_numa_nodes(root),
        hypervisor=connection.getType(),
        hypervisor_version=_version(connection),
        features=tuple(word for word in FEATURE_ORDER if word in can),
        accelerator=chosen.accelerator,
        accelerator_reason=chosen.reason,
        cpu_sockets=sockets,
        cpu_cores_per_socket=cores,
        cpu_threads_per_core=threads,
        huge_pages=_huge_pages(connection, root),
        emulated_machines=_machines(root),
    )


def xml_context(settings: LibvirtSettings, capabilities: Capabilities) -> XmlContext:
    """What is the same for every machine of the host; `prepare_start` adds what is of one machine."""
    return XmlContext(
        accelerator="kvm" if capabilities.accelerator == "kvm" else "tcg",
        machine=settings.machine,
        emulator=settings.emulator,
        cpu_model=settings.cpu_model,
        lock_manager=settings.lock_manager,
        lockspace=settings.lockspace,
        lease_directory=settings.lease_directory,
        default_bridge=settings.bridge,
        vnc_listen=settings.vnc_listen,
        console_log_directory=settings.console_log_directory,
        cgroups="cpu_quota" in capabilities.features,
    )


def task_context(
    host: str,
    settings: LibvirtSettings,
    capabilities: Capabilities,
    now_ns: Callable[[], int] = time.time_ns,
) -> TaskContext:
    return TaskContext(
        host=host,
        settings=settings,
        xml=xml_context(settings, capabilities),
        features=frozenset(capabilities.features),
        now_ns=now_ns,
        guest_wait_s=min(20.0, settings.call_timeout_s / 2),
    )


# ---------------------------------------------------------------- the accelerator


def accelerator_of(
    connection: libvirt.virConnect, capabilities: ET.Element, settings: LibvirtSettings
) -> Accelerated:
    if connection.getType() != "QEMU":
        return Accelerated(accelerator="", reason=f"{connection.getType()} is no QEMU")
    if settings.accelerator != "auto":
        return Accelerated(accelerator=settings.accelerator, reason="said by the host's setting accelerator")
    if not any(domain.get("type") == "kvm" for domain in capabilities.iterfind("guest/arch/domain")):
        return Accelerated(accelerator="tcg", reason="libvirt offers no KVM")
    if not os.access(settings.path_here(KVM_DEVICE), os.R_OK | os.W_OK):
        return Accelerated(accelerator="tcg", reason=f"{KVM_DEVICE} is not there, or not for this user")
    runs, why = kvm_verdict(settings.path_here(settings.emulator) if settings.emulator else "")
    if runs:
        return Accelerated(accelerator="kvm", reason=f"KVM works: {why}")
    return Accelerated(accelerator="tcg", reason=f"KVM is offered and does not work: {why}")


# ---------------------------------------------------------------- features


def task_features(
    connection: libvirt.virConnect, accelerator: str, settings: LibvirtSettings
) -> set[Feature]:
    if connection.getType() == "QEMU":
        return _features_of_qemu(connection, accelerator, settings)
    # libvirt's test driver keeps pools, volumes and networks in memory; devices cannot be plugged.
    return set()


def _features_of_qemu(
    connection: libvirt.virConnect, accelerator: str, settings: LibvirtSettings
) -> set[Feature]:
    can: set[Feature] = {
        "hot_plug_vcpu",
        "hot_plug_memory",
        "hot_unplug_memory",
        "hot_plug_disk",
        "hot_plug_nic",
        "balloon",
        "snapshot",
        "memory_snapshot",
        "revert_snapshot",
        "console_ticket",
        "storage",
        "networks",
        "guest_agent",
    }
    if accelerator == "kvm":
        # QEMU's TCG never hears that the guest let go of a CPU, and may crash at the next plug.
        can.add("hot_unplug_vcpu")
    if has_cpu_controller(settings):
        can.add("cpu_quota")
    if _has_pycdlib():
        can.add("cloud_init")
    can |= _features_of_firmware(connection, accelerator, settings)
    return can


def has_cpu_controller(settings: LibvirtSettings) -> bool:
    """Whether libvirt can limit CPU time: version 1 of cgroups mounts the controller, version 2 lists it."""
    base = Path(settings.path_here("/sys/fs/cgroup"))
    if (base / "cpu" / "cpu.shares").exists():
        return (base / "cpu" / "cpu.cfs_quota_us").exists() or any((base / "cpu").glob("*/cpu.cfs_quota_us"))
    controllers = base / "cgroup.controllers"
    return controllers.is_file() and "cpu" in controllers.read_text().split()


def _has_pycdlib() -> bool:
    from importlib.util import find_spec

    return find_spec("pycdlib") is not None


def _features_of_firmware(
    connection: libvirt.virConnect, accelerator: str, settings: LibvirtSettings
) -> set[Feature]:
    kind = "kvm" if accelerator == "kvm" else "qemu"
    text = connection.getDomainCapabilities(settings.emulator or None, "x86_64", settings.machine, kind, 0)
    root = ET.fromstring(text)  # noqa: S314  (libvirt's own words)
    can: set[Feature] = set()
    if any(value.text == "efi" for value in root.iterfind("os/enum[@name='firmware']/value")):
        can.add("uefi")
    models = {value.text for value in root.iterfind("devices/tpm/enum[@name='model']/value")}
    backends = {value.text for value in root.iterfind("devices/tpm/enum[@name='backendModel']/value")}
    # libvirt lists what QEMU could do; the emulator itself is a program of its own.
    swtpm = [settings.path_here(f"{directory}/swtpm") for directory in ("/usr/bin", "/usr/local/bin")]
    if "tpm-crb" in models and "emulator" in backends and any(map(os.path.exists, swtpm)):
        can.add("tpm")
    return can


# ---------------------------------------------------------------- what the host is


def _memory_bytes(connection: libvirt.virConnect) -> int:
    """As the kernel counts it now: getInfo() and the NUMA nodes leave out what was plugged into a virtual host."""
    if connection.getType() != "QEMU":
        return int(connection.getInfo()[1]) * 1024**2
    statistics = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0)
    return int(statistics["total"]) * 1024


def _version(connection: libvirt.virConnect) -> str:
    """As in "7.2.22, libvirt 9.0.0"."""
    own, libvirt_own = connection.getVersion(), connection.getLibVersion()
    return f"{_dotted(own)}, libvirt {_dotted(libvirt_own)}"


def _dotted(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _numa_nodes(capabilities: ET.Element) -> tuple[NumaNode, ...]:
    return tuple(
        NumaNode(
            index=int(cell.get("id", "0")),
            cpus=len(cell.findall("cpus/cpu")),
            memory_bytes=int(cell.findtext("memory", default="0")) * 1024,
        )
        for cell in capabilities.iterfind("host/topology/cells/cell")
    )


def _huge_pages(connection: libvirt.virConnect, capabilities: ET.Element) -> tuple[HugePages, ...]:
    """Over all nodes; sizes of which the host has none reserved are left out, and so are ordinary pages."""
    ordinary_kib = os.sysconf("SC_PAGESIZE") // 1024
    total_by_kib: dict[int, int] = {}
    for pages in capabilities.iterfind("host/topology/cells/cell/pages"):
        kib = int(pages.get("size", "0"))
        if kib != ordinary_kib:
            total_by_kib[kib] = total_by_kib.get(kib, 0) + int(pages.text or "0")
    cells = [int(cell.get("id", "0")) for cell in capabilities.iterfind("host/topology/cells/cell")]
    found = []
    for kib, total in sorted(total_by_kib.items()):
        if not total:
            continue
        free = sum(connection.getFreePages([kib], cell, 1, 0).get(cell, {}).get(kib, 0) for cell in cells)
        found.append(HugePages(size_bytes=kib * 1024, total=total, free=free))
    return tuple(found)


def _machines(capabilities: ET.Element) -> tuple[str, ...]:
    names = {
        machine.text or ""
        for arch in capabilities.iterfind("guest/arch[@name='x86_64']")
        for machine in arch.iterfind("machine")
    }
    return tuple(sorted(names - {""}))
