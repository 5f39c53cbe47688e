"""Every task of a libvirt host by name: which module carries it out, how long it may take, and what a refusal says.

Decides the way from a request to its answer. Runs on worker threads and blocks; what libvirt itself says goes up as
`libvirtError`, for `libvirt_errors.failure_of` is the one place where that is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, assert_never

import libvirt
import libvirt_qemu
import msgspec

from hypervisor_backends import libvirt_devices as devices
from hypervisor_backends import libvirt_networks as networks
from hypervisor_backends import libvirt_pools as pools
from hypervisor_backends import libvirt_snapshots as snapshots
from hypervisor_backends import libvirt_storage as storage
from hypervisor_backends import protocol as p
from hypervisor_backends.disk_layers import Unsettled, read_layers, revert_of, writable_path
from hypervisor_backends.domain_metadata import domain_uuid
from hypervisor_backends.domain_xml import XmlContext
from hypervisor_backends.libvirt_console import set_console_ticket
from hypervisor_backends.libvirt_seeds import write_seed
from hypervisor_backends.libvirt_settings import LibvirtSettings
from hypervisor_backends.libvirt_task_context import TaskContext, TaskRefused, who

# Tasks that copy as much as a disk or the machine's memory holds.
_LONG = (p.CommitSnapshot, p.CloneVolume, p.CreateSnapshot, p.RevertSnapshot)


def task_budget_s(request: p.DomainTask | p.HostTask, settings: LibvirtSettings) -> float:
    """How long the task may take before its worker is taken to hang."""
    return settings.migration_timeout_s if isinstance(request, _LONG) else settings.call_timeout_s


# What plugs, unplugs or sets something, and answers nothing but that it did.
_DEVICE_TASKS: dict[type[p.DomainRequest], Callable[[libvirt.virDomain, Any, TaskContext], None]] = {
    p.SetVcpus: devices.set_vcpus,
    p.SetBalloon: devices.set_balloon,
    p.PlugMemory: devices.plug_memory,
    p.UnplugMemory: devices.unplug_memory,
    p.AttachDisk: devices.attach_disk,
    p.DetachDisk: devices.detach_disk,
    p.ChangeMedium: devices.change_medium,
    p.AttachNic: devices.attach_nic,
    p.DetachNic: devices.detach_nic,
    p.SetNicLink: devices.set_nic_link,
    p.SetCpuQuota: devices.set_cpu_quota,
}


def run_domain_task(domain: libvirt.virDomain, request: p.DomainTask, context: TaskContext) -> p.CallResult:
    """Raises `libvirtError`, `OSError`."""
    try:
        device_task = _DEVICE_TASKS.get(type(request))
        if device_task is None:
            return p.CallSucceeded(value=_other_task(domain, request, context))
        device_task(domain, request, context)
    except TaskRefused as refused:
        return refused.failure
    return p.CallSucceeded()


def _other_task(
    domain: libvirt.virDomain, request: p.DomainTask, context: TaskContext
) -> p.SnapshotList | p.ConsoleAddress | None:
    match request:
        case p.CreateSnapshot():
            snapshots.create_snapshot(domain, request, context)
        case p.CommitSnapshot():
            # What is left of the budget is for the other steps.
            timeout_s = task_budget_s(request, context.settings) * 0.9
            snapshots.commit_snapshot(domain, request, context, timeout_s)
        case p.ListSnapshots():
            return snapshots.list_snapshots(domain, context)
        case p.SetConsoleTicket():
            return set_console_ticket(domain, request, context)
        case p.FreezeGuest():
            _freeze(domain)
        case p.ThawGuest():
            domain.fsThaw()
        case _:
            raise AssertionError(f"{type(request).__name__} is no task of libvirt's")
    return None


def _freeze(domain: libvirt.virDomain) -> None:
    """A frozen guest refuses to be frozen again, and that is what was asked for."""
    try:
        domain.fsFreeze()
    except libvirt.libvirtError:
        if not _is_frozen(domain):
            raise


def _is_frozen(domain: libvirt.virDomain) -> bool:
    asked = json.dumps({"execute": "guest-fsfreeze-status"})
    answer = json.loads(libvirt_qemu.qemuAgentCommand(domain, asked, 5, 0))
    return bool(answer.get("return") == "frozen")


def run_host_task(connection: libvirt.virConnect, request: p.HostTask, context: TaskContext) -> p.CallResult:
    """Raises `libvirtError`, `OSError`."""
    try:
        return p.CallSucceeded(value=_host_task(connection, request, context))
    except TaskRefused as refused:
        return refused.failure


def _host_task(
    connection: libvirt.virConnect, request: p.HostTask, context: TaskContext
) -> p.PoolList | p.VolumeList | p.NetworkList | None:
    match request:
        case p.CreatePool():
            pools.create_pool(connection, request, context)
        case p.DeletePool():
            pools.delete_pool(connection, request, context)
        case p.ListPools():
            return pools.list_pools(connection)
        case p.CreateVolume():
            storage.create_volume(connection, request, context)
        case p.CloneVolume():
            storage.clone_volume(connection, request, context)
        case p.ResizeVolume():
            storage.resize_volume(connection, request, context)
        case p.DeleteVolume():
            storage.delete_volume(connection, request, context)
        case p.ListVolumes():
            return storage.list_volumes(connection, request, context)
        case p.CreateNetwork():
            networks.create_network(connection, request, context)
        case p.DeleteNetwork():
            networks.delete_network(connection, request, context)
        case p.ListNetworks():
            return networks.list_networks(connection)
        case _:
            assert_never(request)
    return None


# ---------------------------------------------------------------- before a start


class PreparedStart(msgspec.Struct, frozen=True, kw_only=True):
    """What `domain_xml` is to be given: the spec with the paths of its disks, and the context of this machine."""

    spec: p.DomainSpec
    xml: XmlContext


def prepare_start(
    connection: libvirt.virConnect,
    vm_id: str,
    spec: p.DomainSpec,
    context: TaskContext,
    layer_by_source: Mapping[str, str] | None = None,
    *,
    arrives: bool = False,
) -> PreparedStart | p.CallFailed:
    """Make what a start needs and has not: disks, the cloud-init seed, the file of its lease. Repeated: no harm.

    For a cold start; for the target of a migration, which `arrives`, for its source writes to the disks still; and for
    a revert, whose `layer_by_source` says where the machine will write. Raises `libvirtError`, `OSError`, `OlvmError`.
    """
    what = f"domain {spec.name} ({vm_id}) cannot start on host {context.host}"
    try:
        prepared = prepare_disks(connection, vm_id, spec, context)
        if arrives:
            _check_settled(prepared, context)
        layers = _layers(prepared, context) if layer_by_source is None else layer_by_source
    except TaskRefused as refused:
        return refused.failure
    except Unsettled as unsettled:
        return p.CallFailed(code="in_use", message=f"{what}: {unsettled}")
    xml = msgspec.structs.replace(
        context.xml,
        networks=networks.network_names(connection),
        layer_by_source=layers,
        seed_path=write_seed(vm_id, spec, context.host, context.settings),
    )
    if spec.hardware.serial_console and context.xml.console_log_directory:
        here = context.settings.path_here(context.xml.console_log_directory)
        Path(here).mkdir(parents=True, exist_ok=True)
    if spec.leased and context.settings.lock_manager == "lockd":
        _make_lease_file(vm_id, context)
    return PreparedStart(spec=prepared, xml=xml)


def prepare_disks(
    connection: libvirt.virConnect, vm_id: str, spec: p.DomainSpec, context: TaskContext
) -> p.DomainSpec:
    """The spec with an absolute path for every disk; raises `TaskRefused`."""
    disks = tuple(storage.disk_with_source(connection, vm_id, disk, context) for disk in spec.hardware.disks)
    return msgspec.structs.replace(spec, hardware=msgspec.structs.replace(spec.hardware, disks=disks))


def _layers(spec: p.DomainSpec, context: TaskContext) -> dict[str, str]:
    here = context.settings.path_here
    return {
        disk.source: layer
        for disk in spec.hardware.disks
        if disk.device == "disk" and (layer := writable_path(disk.source, here)) != disk.source
    }


def _check_settled(spec: p.DomainSpec, context: TaskContext) -> None:
    """While a machine runs, its host alone can tell whether a revert has happened. Raises `Unsettled`, `OSError`."""
    for disk in spec.hardware.disks:
        fresh = revert_of(read_layers(disk.source, context.settings.path_here)) if disk.source else None
        if fresh is not None:
            raise Unsettled(
                f"disk {disk.source} may have been reverted to snapshot {fresh.snapshot}, which only the host that "
                "runs it can tell; list its snapshots there (list_snapshots), then try again"
            )


def _make_lease_file(vm_id: str, context: TaskContext) -> None:
    """virtlockd locks a file that must be there."""
    settings = context.settings
    directory = Path(settings.path_here(f"{settings.lease_directory.rstrip('/')}/{settings.lockspace}"))
    directory.mkdir(parents=True, exist_ok=True)
    os.close(os.open(directory / domain_uuid(vm_id), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


__all__ = [
    "PreparedStart",
    "TaskContext",
    "TaskRefused",
    "prepare_disks",
    "prepare_start",
    "run_domain_task",
    "run_host_task",
    "task_budget_s",
    "who",
]
