"""The way back to a snapshot, as a worker goes it: fresh layers, the end of QEMU, a new QEMU upon them.

libvirt 9.0 cannot revert external snapshots, so the layers are ours to change. Decides the order of steps, and who may
say that a revert has happened. Must not know lives and statuses: those are `libvirt_reverts.py`.

Rules:

1. Until QEMU is ended, nothing that it uses is touched: a fresh empty layer of each disk is made beside, and the record
   says what it is for (`reverting`). Whatever fails until then leaves the machine as it was.
2. A revert has happened once a QEMU runs from the fresh layers. Only then are the records settled and the old layers
   removed. A crash in between is settled by who comes next (`disk_layers.py`): all disks are new, or all are old.
3. QEMU is killed and not asked: an agent that dies right then leaves a machine that has crashed, which is what its
   successor tells, and what makes a highly available one start again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from hypervisor_backends.device_xml import devices_of, set_source, text_of
from hypervisor_backends.disk_layers import (
    Layer,
    Unsettled,
    read_layers,
    settle_revert,
    size_of,
    write_layers,
)
from hypervisor_backends.domain_metadata import metadata_of, with_epoch
from hypervisor_backends.domain_xml import VOID_PASSWORD, VOID_SINCE
from hypervisor_backends.libvirt_errors import is_connection_lost
from hypervisor_backends.libvirt_lifecycle import (
    Launched,
    define,
    end_orphan,
    forget,
    launch,
    launched_of,
    lookup,
)
from hypervisor_backends.libvirt_processes import end_qemu
from hypervisor_backends.libvirt_snapshots import (
    Disks,
    Layers,
    layer_path,
    mirror_of,
    settled_layers,
    written_disks,
)
from hypervisor_backends.libvirt_storage import make_layer
from hypervisor_backends.libvirt_task_context import (
    END_S_MAX,
    TaskContext,
    TaskRefused,
    live_xml,
    metadata_of_domain,
    waited_for,
    who,
)
from hypervisor_backends.protocol import CallFailed, RevertSnapshot
from olvm.model.errors import OlvmError, OperationFailed

log = logging.getLogger("olvm.libvirt")

FRESH_TRIES_MAX = 1000  # names of layers

# From where each disk will write, by the path that the spec names, the XML that the machine boots from.
MakeXml: TypeAlias = Callable[[Mapping[str, str]], str]


class Reverted(msgspec.Struct, frozen=True, kw_only=True):
    launched: Launched


class Stopped(OlvmError):
    """QEMU was ended and none came in its place; the message says how the disks are."""

    code = "stopped"


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    disks: Disks  # all that it may write to
    fresh: dict[str, Layer]  # of those that are reverted, by name

    def sources(self) -> dict[str, str]:
        """Where each disk will write, by the path that the spec names."""
        return {
            disk.root: self.fresh[name].path if name in self.fresh else disk.active
            for name, disk in self.disks.items()
        }


def revert(
    connection: libvirt.virConnect,
    uuid: str,
    request: RevertSnapshot,
    make_xml: MakeXml,
    powered_on_ns: int,
    context: TaskContext,
) -> Reverted | CallFailed:
    """`CallFailed`, `libvirtError` and `OSError` while the machine is as it was; `Stopped` when it is down.

    Of a libvirt that was lost on the way nothing is known: its error goes up as it is.
    """
    domain = lookup(connection, uuid)
    try:
        plan = _prepare(connection, domain, request, context)
    except TaskRefused as refused:
        return refused.failure
    try:
        xml = _xml(connection, domain, request, plan, make_xml, powered_on_ns)
        _end_qemu(domain, uuid, context)
    except TaskRefused as refused:
        settled_layers(plan.disks, context)
        return refused.failure
    except (libvirt.libvirtError, OSError, OlvmError):
        settled_layers(plan.disks, context)
        raise
    return _run_again(connection, uuid, xml, plan, request, context)


# ---------------------------------------------------------------- before


def _prepare(
    connection: libvirt.virConnect, domain: libvirt.virDomain, request: RevertSnapshot, context: TaskContext
) -> _Plan:
    disks = written_disks(domain, context)
    layers = settled_layers(disks, context)
    what = f"{who(domain, context)} cannot be reverted to snapshot {request.name}"
    old = _layers_of(request.name, layers, what)
    _check(domain, request, old, layers, what)
    if request.with_memory:
        _check_hardware(connection, domain, next(iter(old.values())).memory_path, what, context)
    fresh = {name: _fresh_layer(disks, name, old, context) for name in old}
    siblings = {disks[name].root: layer.path for name, layer in fresh.items()}
    plan = _Plan(
        disks=disks,
        fresh={name: msgspec.structs.replace(layer, siblings=siblings) for name, layer in fresh.items()},
    )
    try:
        _make_fresh(connection, domain, plan, layers, context)
    except (libvirt.libvirtError, OSError):
        settled_layers(disks, context)
        raise
    return plan


def _layers_of(snapshot: str, layers: Layers, what: str) -> dict[str, Layer]:
    """The layer of each disk that the snapshot has frozen, by name of the disk."""
    old = {name: layer for name, kept in layers.items() for layer in kept if layer.snapshot == snapshot}
    if not old:
        known = ", ".join(sorted({each.snapshot for kept in layers.values() for each in kept})) or "none"
        raise TaskRefused("not_found", f"{what}: there is none of that name; it has {known}")
    frozen = next(iter(old.values())).disks
    missing = [name for name in frozen if name not in old]
    if missing:
        raise TaskRefused(
            "wrong_state",
            f"{what}: its disk {missing[0]} is not attached, or a commit of the snapshot was broken off; attach that "
            "disk, or commit the snapshot",
        )
    return old


def _check(
    domain: libvirt.virDomain, request: RevertSnapshot, old: dict[str, Layer], layers: Layers, what: str
) -> None:
    later = [
        layer.snapshot
        for name in old
        for layer in layers[name]
        if layers[name].index(layer) > layers[name].index(old[name])
    ]
    if later and not request.discard_later:
        names = ", ".join(dict.fromkeys(later))
        raise TaskRefused(
            "in_use",
            f"{what}: {names} was taken later and would be lost; commit it first, or ask again with discard_later",
        )
    apart = [
        name for name in layers if name not in old and any(each.snapshot in later for each in layers[name])
    ]
    if apart:
        raise TaskRefused(
            "in_use",
            f"{what}: {later[-1]} is also of disk {apart[0]}, which came later and stays as it is; commit {later[-1]} "
            "first",
        )
    if request.with_memory and not next(iter(old.values())).memory_path:
        raise TaskRefused(
            "bad_request", f"{what} with its memory: it was taken without; ask again without with_memory"
        )
    busy = [name for name in old if mirror_of(domain, name) is not None]
    if busy:
        raise TaskRefused(
            "in_use", f"{what}: a commit of disk {busy[0]} was broken off; commit that snapshot first"
        )


def _check_hardware(
    connection: libvirt.virConnect,
    domain: libvirt.virDomain,
    memory_path: str,
    what: str,
    context: TaskContext,
) -> None:
    """Memory fits the machine that it was taken from, and no other."""
    here = context.settings.path_here(memory_path)
    if not Path(here).is_file():
        raise TaskRefused("not_found", f"{what} with its memory: {memory_path} is not there; bring it back")
    then = ET.fromstring(connection.saveImageGetXMLDesc(memory_path, 0))  # noqa: S314  (libvirt's own words)
    now = live_xml(domain)
    kept = metadata_of(text_of(then))
    if kept is None:
        raise TaskRefused("bad_request", f"{what} with its memory: {memory_path} is of no machine of olvm")
    have = metadata_of_domain(domain, context)
    changed = [
        field
        for field in kept.spec.hardware.__struct_fields__
        if getattr(kept.spec.hardware, field) != getattr(have.spec.hardware, field)
    ]
    if _size_of(then) != _size_of(now):
        changed.append("CPUs or memory")
    if changed:
        raise TaskRefused(
            "wrong_state",
            f"{what} with its memory: its {', '.join(changed)} changed since; change that back, or ask again without "
            "with_memory",
        )


def _size_of(root: ET.Element) -> tuple[str, str]:
    vcpu = root.find("vcpu")
    vcpus = "" if vcpu is None else vcpu.get("current") or vcpu.text or ""
    return vcpus, root.findtext("memory", default="")


def _fresh_layer(disks: Disks, name: str, old: dict[str, Layer], context: TaskContext) -> Layer:
    stem = layer_path(disks[name], old[name].snapshot, context)
    here = context.settings.path_here
    paths = (f"{stem}.revert-{number}" for number in range(1, FRESH_TRIES_MAX))
    path = next((path for path in paths if not Path(here(path)).exists()), "")
    if not path:
        raise TaskRefused(
            "exists", f"{stem}.revert-1 and those after it are all there; remove what is not used"
        )
    return msgspec.structs.replace(old[name], path=path, state="reverting", fresh_bytes=0)


def _make_fresh(
    connection: libvirt.virConnect,
    domain: libvirt.virDomain,
    plan: _Plan,
    layers: Layers,
    context: TaskContext,
) -> None:
    here = context.settings.path_here
    spec = metadata_of_domain(domain, context).spec
    format_by_name = {disk.name: disk.format for disk in spec.hardware.disks}
    for name, layer in plan.fresh.items():
        write_layers(plan.disks[name].root, (*layers[name], layer), here)
    for name, layer in plan.fresh.items():
        disk = plan.disks[name]
        format_ = format_by_name[name] if layer.beneath == disk.root else "qcow2"
        size_bytes = domain.blockInfo(disk.target)[0]
        make_layer(connection, layer.path, (layer.beneath, format_), size_bytes)
        made = msgspec.structs.replace(layer, fresh_bytes=size_of(layer.path, here))
        write_layers(disk.root, (*layers[name], made), here)


# ---------------------------------------------------------------- the machine


def _xml(
    connection: libvirt.virConnect,
    domain: libvirt.virDomain,
    request: RevertSnapshot,
    plan: _Plan,
    make_xml: MakeXml,
    powered_on_ns: int,
) -> str:
    """What the machine runs from afterwards."""
    if not request.with_memory:
        return make_xml(plan.sources())
    have = metadata_of(domain.XMLDesc(0))
    assert have is not None, "it was asked for a moment ago"
    memory_path = next(iter(plan.fresh.values())).memory_path
    flags = libvirt.VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    saved = with_epoch(connection.saveImageGetXMLDesc(memory_path, flags), have.epoch, powered_on_ns)
    root = ET.fromstring(saved)  # noqa: S314  (libvirt's own words)
    devices = devices_of(root, "disk")
    for name, disk in plan.disks.items():
        element = devices[name]
        set_source(element, plan.sources()[disk.root])
        driver = element.find("driver")
        if driver is not None and name in plan.fresh:
            driver.set("type", "qcow2")
    for graphics in root.findall("devices/graphics"):
        if graphics.get("type") == "vnc":  # a ticket of then opens nothing
            graphics.set("passwd", VOID_PASSWORD)
            graphics.set("passwdValidTo", VOID_SINCE)
    return text_of(root)


def _end_qemu(domain: libvirt.virDomain, uuid: str, context: TaskContext) -> None:
    if not domain.isActive():
        raise TaskRefused(
            "domain_ended", f"{who(domain, context)} ended meanwhile; its disks are as they were"
        )
    ended = end_qemu(context.settings.root, uuid)
    if not ended or not waited_for(lambda: not domain.isActive(), END_S_MAX):
        raise OperationFailed(
            f"{who(domain, context)} was killed to be reverted, and its QEMU does not go; its disks are as they were: "
            "destroy it"
        )


def _run_again(
    connection: libvirt.virConnect,
    uuid: str,
    xml: str,
    plan: _Plan,
    request: RevertSnapshot,
    context: TaskContext,
) -> Reverted:
    memory_path = next(iter(plan.fresh.values())).memory_path if request.with_memory else ""
    try:
        launched = (
            _restore(connection, uuid, xml, memory_path, context)
            if memory_path
            else launch(connection, uuid, xml, context.settings)
        )
    except (libvirt.libvirtError, OSError, OlvmError) as error:
        raise _stopped(plan, request, context, error) or error from error
    try:
        settled_layers(written_disks(lookup(connection, uuid), context), context)
    except (libvirt.libvirtError, OSError, TaskRefused) as error:
        # It runs from the fresh layers, so it has happened; the next task of its snapshots settles the records.
        log.warning("the records of domain %s are not settled after its revert: %s", uuid, error)
    return Reverted(launched=launched)


def _restore(
    connection: libvirt.virConnect, uuid: str, xml: str, memory_path: str, context: TaskContext
) -> Launched:
    """Like a restore of saved memory, but that the file stays and is not changed."""
    define(connection, uuid, xml)
    end_orphan(connection, uuid, context.settings)
    try:
        connection.restoreFlags(memory_path, xml, libvirt.VIR_DOMAIN_SAVE_RUNNING)
    except libvirt.libvirtError as error:
        if not is_connection_lost(error):
            forget(connection, uuid)
        raise
    return launched_of(lookup(connection, uuid))


def _stopped(plan: _Plan, request: RevertSnapshot, context: TaskContext, error: Exception) -> Stopped | None:
    """None where nobody can tell yet whether it runs: libvirt was lost, and the records stay as they are."""
    if isinstance(error, libvirt.libvirtError) and is_connection_lost(error):
        return None
    how = "its disks are as they were before"
    here = context.settings.path_here
    try:
        for name in plan.fresh:
            settle_revert(plan.disks[name].root, here)
    except (OSError, Unsettled) as unsettled:
        how = f"how its disks are is found out at its next start ({unsettled})"
    else:
        changed = [
            name
            for name, layer in plan.fresh.items()
            if any(kept.path == layer.path for kept in read_layers(plan.disks[name].root, here))
        ]
        if changed:  # it ran for a moment
            how = "its disks are those of the snapshot"
    return Stopped(
        f"it was stopped to be reverted to snapshot {request.name} and does not run again ({error}); {how}: start it"
    )
