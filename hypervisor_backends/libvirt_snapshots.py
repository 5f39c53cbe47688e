"""Snapshots of running machines of libvirt: external layers above each disk, and the way back into one file.

The way back to what was then is `libvirt_revert.py`. Decides names of files, the order of steps, and what a half-done
step left behind. libvirt's own list of snapshots is not used: it would forbid migration, and is lost with the domain.
What there is stands beside the disks, in the record of `disk_layers.py`.

Rules:

1. All writable disks of the spec get a layer at one instant, or none does (libvirt's ATOMIC).
2. The record says what is about to happen before it happens. `settled_layers` makes it true again after a crash.
3. A layer's file is removed only when the machine does not write to it any more.
4. Whether there is a snapshot is not decided by libvirt's answer, for it may have been taken before the error: what the
   machine writes to then decides, and once the machine has ended the files of the layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from hypervisor_backends.device_xml import child, devices_of, source_of, text_of
from hypervisor_backends.disk_layers import (
    Layer,
    after_revert,
    read_layers,
    remove_file,
    revert_of,
    settle_pending,
    write_layers,
)
from hypervisor_backends.libvirt_errors import is_connection_lost, is_machine_over, is_missing
from hypervisor_backends.libvirt_task_context import (
    END_S_MAX,
    TaskContext,
    TaskRefused,
    bad_request_of,
    live_xml,
    metadata_of_domain,
    waited_for,
    who,
)
from hypervisor_backends.protocol import CommitSnapshot, CreateSnapshot, SnapshotInfo, SnapshotList
from hypervisor_backends.task_rules import MEMORY_SUFFIX, check_snapshot_name
from olvm.model.hardware import DiskSpec

log = logging.getLogger("olvm.libvirt")

BREAK_OFF_S_MAX = 2.0  # a machine that is to end does not wait longer for its snapshot

# Broken off before its end libvirt may want the locks of a machine that has them, and tells of that instead.
_BROKEN_OFF = frozenset({libvirt.VIR_ERR_OPERATION_ABORTED, libvirt.VIR_ERR_RESOURCE_BUSY})
_AGENT_ERRORS = frozenset(
    {
        libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
        libvirt.VIR_ERR_AGENT_UNSYNCED,
        getattr(libvirt, "VIR_ERR_AGENT_COMMAND_TIMEOUT", libvirt.VIR_ERR_AGENT_UNSYNCED),
        getattr(libvirt, "VIR_ERR_AGENT_COMMAND_FAILED", libvirt.VIR_ERR_AGENT_UNSYNCED),
    }
)


class WrittenDisk(msgspec.Struct, frozen=True, kw_only=True):
    """`root` is the file that the spec names, `active` the one that is written to now."""

    name: str
    target: str
    root: str
    active: str


# By name of the disk.
Disks: TypeAlias = dict[str, WrittenDisk]
Layers: TypeAlias = dict[str, tuple[Layer, ...]]


# ---------------------------------------------------------------- create


def create_snapshot(domain: libvirt.virDomain, request: CreateSnapshot, context: TaskContext) -> None:
    disks = written_disks(domain, context)
    layers = settled_layers(disks, context)
    what = f"snapshot {request.name} of {who(domain, context)} cannot be taken"
    _check_new(request, disks, layers, what, context)
    fresh = _new_layers(request, disks, context)
    for name, layer in fresh.items():
        write_layers(disks[name].root, (*layers[name], layer), context.settings.path_here)
    try:
        domain.snapshotCreateXML(_snapshot_xml(request, disks, fresh), _flags(request))
    except libvirt.libvirtError as error:
        has_ended = _has_ended(domain, error)
        if _was_taken(domain, request, disks, fresh, context, has_ended=has_ended):
            log.info("%s: it was, before libvirt met an error: %s", what, error)
            return
        if has_ended:
            raise TaskRefused("domain_ended", f"{what}: its machine has ended ({error})") from error
        if error.get_error_code() in _BROKEN_OFF:
            words = f"{what}: somebody broke it off, as whoever ends the machine does ({error})"
            raise TaskRefused("call_failed", words, can_retry=True) from error
        if request.quiesce and _is_of_agent(error):
            raise TaskRefused(
                "guest_refused", f"{what}: its file systems could not be frozen ({error})", can_retry=True
            ) from error
        raise
    try:
        settled_layers(written_disks(domain, context), context)
    except libvirt.libvirtError as error:
        if not is_machine_over(error):
            raise
        settle_pending(
            {disks[name].root: layer.path for name, layer in fresh.items()}, context.settings.path_here
        )


def _was_taken(
    domain: libvirt.virDomain,
    request: CreateSnapshot,
    disks: Disks,
    fresh: dict[str, Layer],
    context: TaskContext,
    *,
    has_ended: bool,
) -> bool:
    """Although libvirt's answer was an error; mends the records.

    Where the machine has ended, libvirt may not know any more what its QEMU wrote to. All files of the layers are made
    before the first of them is used, so if one is missing nothing was written to the others.
    """
    if has_ended:
        paths = {disks[name].root: layer.path for name, layer in fresh.items()}
        return settle_pending(paths, context.settings.path_here)
    settled = settled_layers(written_disks(domain, context), context)
    return all(any(layer.snapshot == request.name for layer in settled[name]) for name in fresh)


def _has_ended(domain: libvirt.virDomain, error: libvirt.libvirtError) -> bool:
    """libvirt may notice late that a QEMU is gone, and tell of its end in the words of whatever it was at."""
    try:
        return waited_for(lambda: not domain.isActive(), END_S_MAX if is_machine_over(error) else 0.0)
    except libvirt.libvirtError as gone:
        if is_missing(gone):
            return True
        raise


def break_off_snapshot(connection: libvirt.virConnect, uuid: str, is_over: Callable[[], bool]) -> None:
    """Let the snapshot that a machine takes come to an end before the machine does; returns in BREAK_OFF_S_MAX.

    A snapshot that notices the end of its QEMU has libvirt lock the disks once more for a process that is gone, and
    virtlockd keeps such a lock (docs/leases.md).
    """

    def has_come_back() -> bool:
        if is_over():
            return True
        with suppress(libvirt.libvirtError):  # it has not begun yet, or is over: the next look tells
            connection.lookupByUUIDString(uuid).abortJob()
        return False

    if not waited_for(has_come_back, BREAK_OFF_S_MAX):
        log.warning("domain %s is ended in the middle of a snapshot, which could not be broken off", uuid)


def _is_of_agent(error: libvirt.libvirtError) -> bool:
    return error.get_error_code() in _AGENT_ERRORS or "guest agent" in str(error).lower()


def _check_new(
    request: CreateSnapshot, disks: Disks, layers: Layers, what: str, context: TaskContext
) -> None:
    name = request.name
    bad_request_of(lambda: check_snapshot_name(name), what)
    if not disks:
        raise TaskRefused("bad_request", f"{what}: it has no disk that it could write to")
    if any(layer.snapshot == name for kept in layers.values() for layer in kept):
        raise TaskRefused(
            "exists", f"{what}: it has one of that name; commit that first, or take another name"
        )
    if request.with_memory and "memory_snapshot" not in context.features:
        raise TaskRefused("not_supported", f"{what} with memory: this host cannot do it")
    for disk in disks.values():
        path = layer_path(disk, name, context)
        if Path(context.settings.path_here(path)).exists():
            raise TaskRefused("exists", f"{what}: {path} is there already; take another name")


def layer_path(disk: WrittenDisk, snapshot: str, context: TaskContext) -> str:
    """Beside the disk; a layer of a block device is a file in the pool's directory."""
    if disk.root.startswith("/dev/"):
        directory = context.settings.pool_directory.rstrip("/")
        return f"{directory}/{disk.root.strip('/').replace('/', '-')}.{snapshot}"
    return f"{disk.root}.{snapshot}"


def _new_layers(request: CreateSnapshot, disks: Disks, context: TaskContext) -> dict[str, Layer]:
    first = next(iter(disks.values()))
    created_ns, memory_path = context.now_ns(), ""
    if request.with_memory:
        memory_path = layer_path(first, request.name, context) + MEMORY_SUFFIX
    return {
        name: Layer(
            snapshot=request.name,
            created_ns=created_ns,
            path=layer_path(disk, request.name, context),
            beneath=disk.active,
            disks=tuple(disks),
            memory_path=memory_path,
        )
        for name, disk in disks.items()
    }


def _snapshot_xml(request: CreateSnapshot, disks: Disks, fresh: dict[str, Layer]) -> str:
    root = ET.Element("domainsnapshot")
    child(root, "name", request.name)
    memory_path = next(iter(fresh.values())).memory_path
    if memory_path:
        child(root, "memory", snapshot="external", file=memory_path)
    else:
        child(root, "memory", snapshot="no")
    elements = child(root, "disks")
    for name, layer in fresh.items():
        element = child(elements, "disk", name=disks[name].target, snapshot="external", type="file")
        child(element, "driver", type="qcow2")
        child(element, "source", file=layer.path)
    return text_of(root)


def _flags(request: CreateSnapshot) -> int:
    flags = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    if request.with_memory:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE
    else:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    if request.quiesce:
        flags |= libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE
    return int(flags)


# ---------------------------------------------------------------- list


def list_snapshots(domain: libvirt.virDomain, context: TaskContext) -> SnapshotList:
    layers = settled_layers(written_disks(domain, context), context)
    by_name = {layer.snapshot: layer for kept in layers.values() for layer in kept}
    infos = [
        SnapshotInfo(
            name=layer.snapshot,
            created_ns=layer.created_ns,
            with_memory=bool(layer.memory_path),
            disks=layer.disks,
        )
        for layer in by_name.values()
    ]
    return SnapshotList(snapshots=tuple(sorted(infos, key=lambda info: (info.created_ns, info.name))))


# ---------------------------------------------------------------- commit


def commit_snapshot(
    domain: libvirt.virDomain, request: CommitSnapshot, context: TaskContext, timeout_s: float
) -> None:
    """A commit that was broken off goes on where it stood when it is asked for again."""
    disks = written_disks(domain, context)
    layers = settled_layers(disks, context)
    what = f"snapshot {request.name} of {who(domain, context)} cannot be committed"
    having = [name for name, kept in layers.items() if any(each.snapshot == request.name for each in kept)]
    if not having:
        known = ", ".join(sorted({each.snapshot for kept in layers.values() for each in kept})) or "none"
        raise TaskRefused("not_found", f"{what}: there is none of that name; it has {known}")
    for name in having:
        newest = layers[name][-1].snapshot
        if newest != request.name:
            raise TaskRefused("in_use", f"{what}: {newest} stands on it; commit that one first")
    memory_path = layers[having[0]][-1].memory_path
    for name in having:
        _commit_disk(domain, disks[name], layers[name], context, timeout_s)
    if memory_path:
        remove_file(memory_path, context.settings.path_here)


def _commit_disk(
    domain: libvirt.virDomain,
    disk: WrittenDisk,
    layers: tuple[Layer, ...],
    context: TaskContext,
    timeout_s: float,
) -> None:
    layer = layers[-1]
    what = f"snapshot {layer.snapshot} of disk {disk.name} of {who(domain, context)}"
    if mirror_of(domain, disk.name) is None:
        flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
        domain.blockCommit(disk.target, None, None, 0, flags)
    if not waited_for(lambda: mirror_of(domain, disk.name) in ("yes", None), timeout_s):
        domain.blockJobAbort(disk.target, 0)
        raise TaskRefused(
            "call_failed",
            f"{what} was not written back within {timeout_s:g} s and stays; try again when the guest writes less",
            can_retry=True,
        )
    if mirror_of(domain, disk.name) is None:
        if not domain.isActive():
            raise TaskRefused("domain_ended", f"{what} stays: its machine has ended")
        raise TaskRefused(
            "call_failed",
            f"{what} could not be written back and stays; is there room where {layer.beneath} lies?",
            can_retry=True,
        )
    here = context.settings.path_here
    write_layers(disk.root, (*layers[:-1], msgspec.structs.replace(layer, state="pivoting")), here)
    try:
        domain.blockJobAbort(disk.target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    except libvirt.libvirtError as error:
        if is_machine_over(error):
            words = f"{what} may have been done as its machine ended: its next start finds out, or says what to compare"
            raise TaskRefused("domain_ended", words, outcome_known=False) from error
        if not is_connection_lost(error):
            write_layers(disk.root, layers, here)  # nothing was led back
        raise
    # In this order: a layer that is still there while its record says `pivoting` is what makes a start stop and ask.
    remove_file(layer.path, here)
    write_layers(disk.root, layers[:-1], here)


def mirror_of(domain: libvirt.virDomain, name: str) -> str | None:
    """How far the commit of this disk is: "yes" when all is copied, "" before; None: there is none."""
    mirror = devices_of(live_xml(domain), "disk")[name].find("mirror")
    return None if mirror is None else mirror.get("ready", "")


# ---------------------------------------------------------------- what is there


def written_disks(domain: libvirt.virDomain, context: TaskContext) -> Disks:
    """The disks of the spec that the machine may write to, in the spec's order."""
    spec = metadata_of_domain(domain, context).spec
    present = devices_of(live_xml(domain), "disk")
    found: Disks = {}
    for disk in spec.hardware.disks:
        element = present.get(disk.name)
        if element is None or not _is_written(disk):
            continue
        target = element.find("target")
        assert target is not None, f"disk {disk.name} of {domain.name()} has no target"
        found[disk.name] = WrittenDisk(
            name=disk.name, target=target.get("dev", ""), root=disk.source, active=source_of(element)
        )
    return found


def _is_written(disk: DiskSpec) -> bool:
    return disk.device == "disk" and not disk.read_only and bool(disk.source)


def settled_layers(disks: Disks, context: TaskContext) -> Layers:
    """The layers of each disk, true to where the running machine writes, and the records mended to say so."""
    return {name: _settled_disk(disk, context) for name, disk in disks.items()}


def _settled_disk(disk: WrittenDisk, context: TaskContext) -> tuple[Layer, ...]:
    here = context.settings.path_here
    layers = read_layers(disk.root, here)
    fresh = revert_of(layers)
    if fresh is not None:
        layers, needless = after_revert(layers, happened=fresh.path == disk.active)
        write_layers(disk.root, layers, here)
        for path in needless:
            remove_file(path, here)
    settled: list[Layer] = []
    for layer in layers:
        is_beneath = any(later.beneath == layer.path and later.state == "kept" for later in layers)
        if layer.path == disk.active or is_beneath or layer.state == "kept":
            settled.append(msgspec.structs.replace(layer, state="kept"))
        else:  # never written to, or written back: nobody needs its file
            remove_file(layer.path, here)
            _forget_memory(layer, here)
    if tuple(settled) != layers:
        write_layers(disk.root, tuple(settled), here)
    return tuple(settled)


def _forget_memory(layer: Layer, here: object) -> None:
    assert callable(here)
    if layer.memory_path and layer.state == "pending":
        remove_file(layer.memory_path, here)
