"""Pools of a libvirt host: directories that hold volumes.

Decides when a pool is the one that was asked for, and where new disks go. Nothing in a directory is ever removed here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from hypervisor_backends.device_xml import child, text_of
from hypervisor_backends.libvirt_task_context import TaskContext, TaskRefused, bad_request_of
from hypervisor_backends.measurements import PoolStatistics
from hypervisor_backends.protocol import CreatePool, DeletePool, PoolInfo, PoolList
from hypervisor_backends.task_rules import check_pool

log = logging.getLogger("olvm.libvirt.pools")

DEFAULT_POOL = "default"


def create_pool(connection: libvirt.virConnect, request: CreatePool, context: TaskContext) -> None:
    what = f"pool {request.name} cannot be made on host {context.host}"
    bad_request_of(lambda: check_pool(request), what)
    path = str(Path(request.path))
    for pool in connection.listAllStoragePools(0):
        same_name, same_path = pool.name() == request.name, path_of(pool) == path
        if same_name and same_path:
            _activate(pool)
            return
        if same_name or same_path:
            raise TaskRefused("exists", f"{what}: there is {pool.name()} at {path_of(pool)}; use that one")
    _make_pool(connection, request.name, path)


def _make_pool(connection: libvirt.virConnect, name: str, path: str) -> libvirt.virStoragePool:
    root = ET.Element("pool", {"type": "dir"})
    child(root, "name", name)
    child(child(root, "target"), "path", path)
    pool = connection.storagePoolDefineXML(text_of(root), 0)
    try:
        pool.build(0)
        pool.create(0)
        pool.setAutostart(1)
    except libvirt.libvirtError:
        pool.undefine()
        raise
    return pool


def _activate(pool: libvirt.virStoragePool) -> None:
    if not pool.isActive():
        pool.build(0)
        pool.create(0)


def delete_pool(connection: libvirt.virConnect, request: DeletePool, context: TaskContext) -> None:
    pool = pool_of(connection, request.name, context)
    if pool.isActive():
        pool.destroy()
    pool.undefine()


def list_pools(connection: libvirt.virConnect) -> PoolList:
    pools = sorted(connection.listAllStoragePools(0), key=lambda pool: pool.name())
    return PoolList(pools=tuple(_pool_info(pool) for pool in pools))


def _pool_info(pool: libvirt.virStoragePool) -> PoolInfo:
    if pool.isActive():
        pool.refresh(0)
    _, capacity, _, free = pool.info()
    return PoolInfo(name=pool.name(), path=path_of(pool), capacity_bytes=capacity, free_bytes=free)


def pool_statistics(connection: libvirt.virConnect) -> tuple[PoolStatistics, ...]:
    """The room of the active pools. One that cannot be read is left out: its room is unknown."""
    found = []
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        try:
            info = _pool_info(pool)
        except libvirt.libvirtError as error:
            log.info("the room of pool %s is not known: %s", pool.name(), error)
            continue
        found.append(
            PoolStatistics(name=info.name, capacity_bytes=info.capacity_bytes, free_bytes=info.free_bytes)
        )
    return tuple(sorted(found, key=lambda pool: pool.name))


def path_of(pool: libvirt.virStoragePool) -> str:
    return xml_of(pool).findtext("target/path", default="")


def xml_of(thing: libvirt.virStoragePool | libvirt.virStorageVol) -> ET.Element:
    return ET.fromstring(thing.XMLDesc(0))  # noqa: S314  (libvirt's own words)


def pool_of(connection: libvirt.virConnect, name: str, context: TaskContext) -> libvirt.virStoragePool:
    names = []
    for pool in connection.listAllStoragePools(0):
        if pool.name() == name:
            return pool
        names.append(pool.name())
    known = ", ".join(sorted(names)) or "none"
    raise TaskRefused("not_found", f"host {context.host} has no pool {name}; it has {known}")


def fresh_pool(connection: libvirt.virConnect, name: str, context: TaskContext) -> libvirt.virStoragePool:
    """Active, and aware of files that came to be without libvirt's doing, as layers of snapshots do."""
    pool = pool_of(connection, name, context)
    _activate(pool)
    pool.refresh(0)
    return pool


def first_pool(connection: libvirt.virConnect, context: TaskContext) -> libvirt.virStoragePool:
    """Where new disks go: the pool of the settings' directory, which is made where it is missing."""
    wanted = str(Path(context.settings.pool_directory))
    pools = {pool.name(): pool for pool in connection.listAllStoragePools(0)}
    for _, pool in sorted(pools.items()):
        if path_of(pool) == wanted:
            _activate(pool)
            return pool
    name = DEFAULT_POOL
    if name in pools:
        name = f"olvm-{Path(wanted).name}"
    return _make_pool(connection, name, wanted)
