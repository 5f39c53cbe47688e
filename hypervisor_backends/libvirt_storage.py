"""Volumes of a libvirt host, and the disks that a machine is started with.

Decides names, formats and what may not be deleted. Volumes live in pools that are directories. A path or `pool/volume`
of a spec becomes an absolute path here; a disk without a source gets a volume of its own, once, and keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import msgspec

from hypervisor_backends.device_xml import child, source_of, sources_of, text_of
from hypervisor_backends.disk_layers import read_layers
from hypervisor_backends.libvirt_pools import first_pool, fresh_pool, path_of, pool_of, xml_of
from hypervisor_backends.libvirt_task_context import TaskContext, TaskRefused, bad_request_of, live_xml
from hypervisor_backends.protocol import (
    CloneVolume,
    CreateVolume,
    DeleteVolume,
    ListVolumes,
    ResizeVolume,
    VolumeInfo,
    VolumeList,
)
from hypervisor_backends.task_rules import (
    LAYERS_SUFFIX,
    check_growth,
    check_volume_name,
    check_volume_size,
)
from olvm.model.hardware import DiskFormat, DiskSpec

# ---------------------------------------------------------------- volumes


def create_volume(connection: libvirt.virConnect, request: CreateVolume, context: TaskContext) -> None:
    pool = fresh_pool(connection, request.pool, context)
    what = f"volume {request.pool}/{request.name} cannot be made on host {context.host}"
    bad_request_of(lambda: check_volume_name(request.name), what)
    if _volume_or_none(pool, request.name) is not None:
        raise TaskRefused("exists", f"{what}: it is there; take another name, or delete it first")
    _make_volume(connection, pool, request, context)


def _make_volume(
    connection: libvirt.virConnect, pool: libvirt.virStoragePool, request: CreateVolume, context: TaskContext
) -> libvirt.virStorageVol:
    what = f"volume {request.pool}/{request.name} cannot be made on host {context.host}"
    size_bytes, base = request.size_bytes, None
    if request.base:
        if request.format == "raw":
            raise TaskRefused("bad_request", f"{what}: a raw volume has no base; use qcow2")
        base = _base_of(connection, request.base, context, what)
        size_bytes = size_bytes or base.size_bytes
    base_bytes = 0 if base is None else base.size_bytes
    bad_request_of(lambda: check_volume_size(size_bytes, base_bytes), what)
    xml = _volume_xml(request.name, size_bytes, request.format, base)
    try:
        return pool.createXML(xml, 0)
    except libvirt.libvirtError as error:
        if "too large" not in str(error):
            raise
        raise TaskRefused("bad_request", f"{what}: {size_bytes} bytes are more than it can have") from error


def make_layer(connection: libvirt.virConnect, path: str, beneath: tuple[str, str], size_bytes: int) -> None:
    """An empty layer at `path` upon a file or device, whose path and format `beneath` says."""
    base = _Base(path=beneath[0], format=beneath[1], size_bytes=size_bytes)
    xml = _volume_xml(Path(path).name, size_bytes, "qcow2", base)
    directory = str(Path(path).parent)
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        if path_of(pool) == directory:
            pool.refresh(0)
            pool.createXML(xml, 0)
            return
    made = _pool_at(connection, directory, Path(path).name)
    try:
        made.createXML(xml, 0)
    finally:
        made.destroy()


class _Base(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    format: str
    size_bytes: int


def _volume_xml(name: str, size_bytes: int, format_: DiskFormat | str, base: _Base | None) -> str:
    root = ET.Element("volume")
    child(root, "name", name)
    child(root, "capacity", str(size_bytes), unit="bytes")
    child(root, "allocation", "0", unit="bytes")
    target = child(root, "target")
    child(target, "format", type=format_)
    if format_ == "qcow2":
        child(target, "compat", "1.1")  # libvirt's default is of 2010
    if base is not None:
        backing = child(root, "backingStore")
        child(backing, "path", base.path)
        child(backing, "format", type=base.format)
    return text_of(root)


def _base_of(connection: libvirt.virConnect, name: str, context: TaskContext, what: str) -> _Base:
    path = resolved(connection, name, context)
    volume = _volume_at(connection, path)
    if volume is None:
        pool = _transient_pool(connection, path, context, what)
        try:
            volume = _volume_or_none(pool, Path(path).name)
            if volume is None:
                raise TaskRefused("not_found", f"{what}: its base {name} is not there")
            return _as_base(volume)
        finally:
            pool.destroy()
    return _as_base(volume)


def _as_base(volume: libvirt.virStorageVol) -> _Base:
    format_ = _format_of(volume)
    return _Base(path=volume.path(), format=format_, size_bytes=volume.info()[1])


def _format_of(volume: libvirt.virStorageVol) -> str:
    element = xml_of(volume).find("target/format")
    return "raw" if element is None else element.get("type", "raw")


def _transient_pool(
    connection: libvirt.virConnect, path: str, context: TaskContext, what: str
) -> libvirt.virStoragePool:
    """libvirt looks into a file that is in no pool only through one; this one is gone right after."""
    if not Path(context.settings.path_here(path)).is_file():
        raise TaskRefused("not_found", f"{what}: {path} is not there")
    return _pool_at(connection, str(Path(path).parent), Path(path).name)


def _pool_at(connection: libvirt.virConnect, directory: str, name: str) -> libvirt.virStoragePool:
    root = ET.Element("pool", {"type": "dir"})
    child(root, "name", f"olvm-look-{name}")
    child(child(root, "target"), "path", directory)
    return connection.storagePoolCreateXML(text_of(root), 0)


def clone_volume(connection: libvirt.virConnect, request: CloneVolume, context: TaskContext) -> None:
    pool = fresh_pool(connection, request.pool, context)
    what = f"volume {request.source} of pool {request.pool} cannot be cloned on host {context.host}"
    bad_request_of(lambda: check_volume_name(request.name), what)
    source = _volume(pool, request.source, context)
    if _volume_or_none(pool, request.name) is not None:
        raise TaskRefused("exists", f"{what}: {request.name} is there; take another name")
    writer = _writer_of(connection, source.path())
    if writer:
        raise TaskRefused(
            "in_use",
            f"{what}: domain {writer} writes to it; stop it, or take a snapshot first",
            can_retry=True,
        )
    xml = _volume_xml(request.name, source.info()[1], _format_of(source), None)
    pool.createXMLFrom(xml, source, 0)


def resize_volume(connection: libvirt.virConnect, request: ResizeVolume, context: TaskContext) -> None:
    pool = fresh_pool(connection, request.pool, context)
    volume = _volume(pool, request.name, context)
    size_bytes, path = volume.info()[1], volume.path()
    what = f"volume {request.pool}/{request.name} on host {context.host}"
    bad_request_of(lambda: check_growth(request.size_bytes, size_bytes), what)
    if request.size_bytes == size_bytes:
        return
    above = _standing_on(connection, path)
    if above:
        raise TaskRefused("in_use", f"{what} cannot grow: {above} stands on it; commit or delete that first")
    for domain, root in _domains(connection):
        used = sources_of(root)
        if path not in used:
            continue
        top = {source_of(disk) for disk in root.findall("devices/disk")}
        if path not in top:
            raise TaskRefused("in_use", f"{what} cannot grow: a snapshot of {domain.name()} stands on it")
        if domain.isActive():
            domain.blockResize(used[path], request.size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
            return
    try:
        volume.resize(request.size_bytes, 0)
    except libvirt.libvirtError as error:
        if 'get "write" lock' not in str(error):
            raise
        raise TaskRefused(
            "in_use", f"{what} cannot grow from here: another host has it open", can_retry=True
        ) from error


def delete_volume(connection: libvirt.virConnect, request: DeleteVolume, context: TaskContext) -> None:
    pool = fresh_pool(connection, request.pool, context)
    volume = _volume(pool, request.name, context)
    path = volume.path()
    what = f"volume {request.pool}/{request.name} cannot be deleted on host {context.host}"
    for domain, root in _domains(connection):
        if path in sources_of(root):
            raise TaskRefused("in_use", f"{what}: domain {domain.name()} uses it; detach it first")
    above = _standing_on(connection, path)
    if above:
        raise TaskRefused("in_use", f"{what}: {above} stands on it; delete that first")
    owner = _disk_layered_by(path, context)
    if owner:
        raise TaskRefused(
            "in_use", f"{what}: it is a snapshot's layer of {owner}; commit the snapshot instead"
        )
    volume.delete(0)


def list_volumes(connection: libvirt.virConnect, request: ListVolumes, context: TaskContext) -> VolumeList:
    pool = fresh_pool(connection, request.pool, context)
    volumes = sorted(pool.listAllVolumes(0), key=lambda volume: volume.name())
    return VolumeList(
        volumes=tuple(
            _volume_info(request.pool, volume)
            for volume in volumes
            if not volume.name().endswith(LAYERS_SUFFIX)
        )
    )


def _volume_info(pool: str, volume: libvirt.virStorageVol) -> VolumeInfo:
    root = xml_of(volume)
    _, size_bytes, allocated_bytes = volume.info()
    format_ = root.find("target/format")
    return VolumeInfo(
        pool=pool,
        name=volume.name(),
        path=volume.path(),
        format="raw" if format_ is None else format_.get("type", "raw"),
        size_bytes=size_bytes,
        allocated_bytes=allocated_bytes,
        base=root.findtext("backingStore/path", default=""),
    )


def _volume_or_none(pool: libvirt.virStoragePool, name: str) -> libvirt.virStorageVol | None:
    return next((volume for volume in pool.listAllVolumes(0) if volume.name() == name), None)


def _volume(pool: libvirt.virStoragePool, name: str, context: TaskContext) -> libvirt.virStorageVol:
    volume = _volume_or_none(pool, name)
    if volume is None:
        raise TaskRefused(
            "not_found", f"pool {pool.name()} of host {context.host} has no volume {name}; list its volumes"
        )
    return volume


def _volume_at(connection: libvirt.virConnect, path: str) -> libvirt.virStorageVol | None:
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        if path_of(pool) == str(Path(path).parent):
            pool.refresh(0)
            return _volume_or_none(pool, Path(path).name)
    return None


def _domains(connection: libvirt.virConnect) -> Iterator[tuple[libvirt.virDomain, ET.Element]]:
    """One that ends while we look uses nothing any more."""
    for domain in connection.listAllDomains(0):
        try:
            yield domain, live_xml(domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise


def _writer_of(connection: libvirt.virConnect, path: str) -> str:
    for domain, root in _domains(connection):
        for disk in root.findall("devices/disk"):
            if domain.isActive() and source_of(disk) == path and disk.find("readonly") is None:
                return str(domain.name())
    return ""


def _standing_on(connection: libvirt.virConnect, path: str) -> str:
    """A volume of any pool that has this one as its base; empty: none."""
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        for volume in pool.listAllVolumes(0):
            if xml_of(volume).findtext("backingStore/path") == path:
                return f"{pool.name()}/{volume.name()}"
    return ""


def _disk_layered_by(path: str, context: TaskContext) -> str:
    """The disk of which this file is a snapshot's layer; empty: it is none."""
    here = context.settings.path_here
    for record in Path(here(str(Path(path).parent))).glob(f"*{LAYERS_SUFFIX}"):
        disk = str(Path(path).parent / record.name.removesuffix(LAYERS_SUFFIX))
        if any(layer.path == path for layer in read_layers(disk, here)):
            return disk
    return ""


# ---------------------------------------------------------------- the disks of a machine


def resolved(connection: libvirt.virConnect, source: str, context: TaskContext) -> str:
    """The absolute path of a path or `pool/volume`."""
    if source.startswith("/"):
        return source
    pool_name, _, name = source.partition("/")
    if not name or "/" in name:
        raise TaskRefused("bad_request", f"{source!r} is neither an absolute path nor pool/volume")
    pool = pool_of(connection, pool_name, context)
    return f"{path_of(pool).rstrip('/')}/{name}"


def disk_with_source(
    connection: libvirt.virConnect, vm_id: str, disk: DiskSpec, context: TaskContext
) -> DiskSpec:
    """The disk with an absolute path; one that has none is made in the first pool, unless it was made before."""
    if disk.source:
        return msgspec.structs.replace(disk, source=resolved(connection, disk.source, context))
    if disk.device == "cdrom":
        return disk
    pool = first_pool(connection, context)
    pool.refresh(0)
    name = f"{vm_id}-{disk.name}"
    bad_request_of(lambda: check_volume_name(name), f"disk {disk.name} cannot be made on host {context.host}")
    volume = _volume_or_none(pool, name)
    if volume is None:
        request = CreateVolume(
            pool=pool.name(), name=name, size_bytes=disk.size_bytes, format=disk.format, base=disk.base
        )
        volume = _make_volume(connection, pool, request, context)
    return msgspec.structs.replace(disk, source=volume.path(), base="")
