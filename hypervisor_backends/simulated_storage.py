"""Pools, volumes and networks of a simulated host. They outlive its boots, as a disk does.

Decides what is there, what is in use and when the storage is full. Worse than a real one: a volume takes its whole size
at once, where real ones grow. Takes no time and knows no domain: `in_use` questions are put to whoever made this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from hypervisor_backends.measurements import PoolStatistics
from hypervisor_backends.protocol import (
    CallFailed,
    CallResult,
    CallSucceeded,
    CloneVolume,
    CreateNetwork,
    CreatePool,
    CreateVolume,
    DeleteNetwork,
    DeletePool,
    DeleteVolume,
    FailureCode,
    HostTask,
    ListNetworks,
    ListPools,
    ListVolumes,
    NetworkInfo,
    NetworkList,
    PoolInfo,
    PoolList,
    ResizeVolume,
    VolumeInfo,
    VolumeList,
)
from hypervisor_backends.task_rules import (
    check_growth,
    check_network,
    check_pool,
    check_volume_name,
    check_volume_size,
)
from olvm.model.errors import BadInput
from olvm.model.hardware import DiskSpec

DEFAULT_POOL = "default"
DEFAULT_POOL_PATH = "/var/lib/libvirt/images"
DEFAULT_BRIDGES = frozenset({"br0"})

# Of the paths that the domains of the host write to: by path, the domain's name. And of networks: their names.
Users: TypeAlias = Callable[[], dict[str, str]]


class StorageRefused(Exception):
    """Ends a task with this answer; never leaves the simulated hypervisor."""

    def __init__(self, code: FailureCode, message: str, *, can_retry: bool = False) -> None:
        super().__init__(message)
        self.failure = CallFailed(code=code, message=message, can_retry=can_retry)


class SimulatedStorage:
    def __init__(
        self,
        host: str,
        capacity_bytes: int,
        disk_users: Users,
        network_users: Users,
        *,
        files_outside_pools: bool = True,
    ) -> None:
        self._files_outside_pools = files_outside_pools
        self._host = host
        self._capacity_bytes = capacity_bytes
        self._disk_users = disk_users
        self._network_users = network_users
        self._path_by_pool: dict[str, str] = {}
        self._volumes: dict[str, VolumeInfo] = {}  # by path
        self._networks: dict[str, CreateNetwork] = {}

    def run(self, request: HostTask) -> CallResult:
        try:
            return CallSucceeded(value=self._run(request))
        except StorageRefused as refused:
            return refused.failure
        except BadInput as error:
            what = f"{type(request).__name__} on host {self._host}"
            return CallFailed(code="bad_request", message=f"{what}: {error.message}")

    def _run(self, request: HostTask) -> PoolList | VolumeList | NetworkList | None:
        match request:
            case CreatePool() | DeletePool() | ListPools():
                return self._run_pool(request)
            case CreateNetwork() | DeleteNetwork() | ListNetworks():
                return self._run_network(request)
            case CreateVolume():
                self._create(request)
            case CloneVolume():
                self._clone(request)
            case ResizeVolume():
                self._resize(request)
            case DeleteVolume():
                self._delete(request)
            case ListVolumes():
                self._pool_path(request.pool)
                volumes = [volume for volume in self._volumes.values() if volume.pool == request.pool]
                return VolumeList(volumes=tuple(sorted(volumes, key=lambda volume: volume.name)))
        return None

    # ------------------------------------------------------------ pools

    def _run_pool(self, request: CreatePool | DeletePool | ListPools) -> PoolList | None:
        if isinstance(request, ListPools):
            return PoolList(pools=tuple(self._pool_info(name) for name in sorted(self._path_by_pool)))
        if isinstance(request, DeletePool):
            self._pool_path(request.name)
            del self._path_by_pool[request.name]
            return None
        check_pool(request)
        path = request.path.rstrip("/") or "/"
        for name, other in self._path_by_pool.items():
            if (name == request.name) != (other == path):
                raise StorageRefused(
                    "exists",
                    f"pool {request.name} cannot be made on host {self._host}: there is {name} at {other}",
                )
        self._path_by_pool[request.name] = path
        return None

    def pools(self) -> tuple[PoolStatistics, ...]:
        """Their room, as statistics tell it."""
        free_bytes = self._free_bytes() if self._path_by_pool else 0
        return tuple(
            PoolStatistics(name=name, capacity_bytes=self._capacity_bytes, free_bytes=free_bytes)
            for name in sorted(self._path_by_pool)
        )

    def _pool_info(self, name: str) -> PoolInfo:
        return PoolInfo(
            name=name,
            path=self._path_by_pool[name],
            capacity_bytes=self._capacity_bytes,
            free_bytes=self._free_bytes(),
        )

    def _free_bytes(self) -> int:
        """All pools lie on one file system."""
        return self._capacity_bytes - sum(volume.size_bytes for volume in self._volumes.values())

    def _pool_path(self, name: str) -> str:
        if name not in self._path_by_pool:
            known = ", ".join(sorted(self._path_by_pool)) or "none"
            raise StorageRefused("not_found", f"host {self._host} has no pool {name}; it has {known}")
        return self._path_by_pool[name]

    # ------------------------------------------------------------ volumes

    def _create(self, request: CreateVolume) -> None:
        directory = self._pool_path(request.pool)
        what = f"volume {request.pool}/{request.name} cannot be made on host {self._host}"
        check_volume_name(request.name)
        path = f"{directory}/{request.name}"
        if path in self._volumes:
            raise StorageRefused("exists", f"{what}: it is there; take another name, or delete it first")
        size_bytes, base_path, base_bytes = request.size_bytes, "", 0
        if request.base:
            if request.format == "raw":
                raise BadInput("a raw volume has no base; use qcow2")
            base_path = self.resolved(request.base)
            base = self._volumes.get(base_path)
            if base is None:
                raise StorageRefused("not_found", f"{what}: its base {request.base} is not there")
            base_bytes = base.size_bytes
            size_bytes = size_bytes or base_bytes
        check_volume_size(size_bytes, base_bytes)
        self._take_room(size_bytes, what)
        self._volumes[path] = VolumeInfo(
            pool=request.pool,
            name=request.name,
            path=path,
            format=request.format,
            size_bytes=size_bytes,
            allocated_bytes=size_bytes,
            base=base_path,
        )

    def _take_room(self, more_bytes: int, what: str) -> None:
        free_bytes = self._free_bytes()
        if more_bytes > free_bytes:
            message = f"{what}: it takes {more_bytes} bytes and {free_bytes} are free; delete something first"
            raise StorageRefused("no_space", message, can_retry=True)

    def _clone(self, request: CloneVolume) -> None:
        source = self._volume(request.pool, request.source)
        what = f"volume {request.source} of pool {request.pool} cannot be cloned on host {self._host}"
        check_volume_name(request.name)
        path = f"{self._pool_path(request.pool)}/{request.name}"
        if path in self._volumes:
            raise StorageRefused("exists", f"{what}: {request.name} is there; take another name")
        writer = self._disk_users().get(source.path)
        if writer:
            raise StorageRefused(
                "in_use", f"{what}: domain {writer} writes to it; stop it first", can_retry=True
            )
        self._take_room(source.size_bytes, what)
        self._volumes[path] = msgspec.structs.replace(source, name=request.name, path=path, base="")

    def _resize(self, request: ResizeVolume) -> None:
        volume = self._volume(request.pool, request.name)
        what = f"volume {request.pool}/{request.name} on host {self._host} cannot grow"
        check_growth(request.size_bytes, volume.size_bytes)
        above = self._standing_on(volume.path)
        if above and request.size_bytes > volume.size_bytes:
            raise StorageRefused("in_use", f"{what}: {above} stands on it")
        self._take_room(request.size_bytes - volume.size_bytes, what)
        self._volumes[volume.path] = msgspec.structs.replace(
            volume, size_bytes=request.size_bytes, allocated_bytes=request.size_bytes
        )

    def _delete(self, request: DeleteVolume) -> None:
        volume = self._volume(request.pool, request.name)
        what = f"volume {request.pool}/{request.name} cannot be deleted on host {self._host}"
        user = self._disk_users().get(volume.path)
        if user:
            raise StorageRefused("in_use", f"{what}: domain {user} uses it; detach it first")
        above = self._standing_on(volume.path)
        if above:
            raise StorageRefused("in_use", f"{what}: {above} stands on it; delete that first")
        del self._volumes[volume.path]

    def _volume(self, pool: str, name: str) -> VolumeInfo:
        volume = self._volumes.get(f"{self._pool_path(pool)}/{name}")
        if volume is None:
            raise StorageRefused(
                "not_found", f"pool {pool} of host {self._host} has no volume {name}; list its volumes"
            )
        return volume

    def _standing_on(self, path: str) -> str:
        return next((f"{each.pool}/{each.name}" for each in self._volumes.values() if each.base == path), "")

    # ------------------------------------------------------------ disks of machines

    def resolved(self, source: str) -> str:
        """The absolute path of a path or `pool/volume`. Raises `StorageRefused`, `BadInput`."""
        if source.startswith("/"):
            return source
        pool, _, name = source.partition("/")
        if not name or "/" in name:
            raise BadInput(f"{source!r} is neither an absolute path nor pool/volume")
        return f"{self._pool_path(pool)}/{name}"

    def exists(self, path: str) -> bool:
        """What lies outside of all pools is there or not by the host's setting; no path at all is an empty drive."""
        if not path or path in self._volumes:
            return True
        directory, _, _ = path.rpartition("/")
        return self._files_outside_pools and directory not in self._path_by_pool.values()

    def disk_with_source(self, vm_id: str, disk: DiskSpec) -> DiskSpec:
        """One without a source is made in the first pool, unless it was made before. Raises as `resolved` does."""
        if disk.source:
            return msgspec.structs.replace(disk, source=self.resolved(disk.source))
        if disk.device == "cdrom":
            return disk
        pool = next(iter(sorted(self._path_by_pool)), DEFAULT_POOL)
        self._path_by_pool.setdefault(pool, DEFAULT_POOL_PATH)
        name = f"{vm_id}-{disk.name}"
        path = f"{self._path_by_pool[pool]}/{name}"
        if path not in self._volumes:
            self._create(
                CreateVolume(
                    pool=pool, name=name, size_bytes=disk.size_bytes, format=disk.format, base=disk.base
                )
            )
        return msgspec.structs.replace(disk, source=path, base="")

    # ------------------------------------------------------------ networks

    def has_network(self, name: str) -> bool:
        return not name or name in self._networks or name in DEFAULT_BRIDGES

    def _run_network(self, request: CreateNetwork | DeleteNetwork | ListNetworks) -> NetworkList | None:
        if isinstance(request, ListNetworks):
            networks = sorted(self._networks.values(), key=lambda network: network.name)
            return NetworkList(
                networks=tuple(
                    NetworkInfo(name=each.name, kind=each.kind, bridge=each.bridge, active=True)
                    for each in networks
                )
            )
        if isinstance(request, DeleteNetwork):
            self._delete_network(request)
            return None
        check_network(request)
        what = f"network {request.name} cannot be made on host {self._host}"
        if request.kind == "bridge" and request.bridge not in DEFAULT_BRIDGES:
            raise StorageRefused(
                "not_found", f"{what}: the host has no bridge {request.bridge}; make it first"
            )
        present = self._networks.get(request.name)
        if present is not None and present != request:
            raise StorageRefused("exists", f"{what}: there is another one of that name; delete it first")
        self._networks[request.name] = request
        return None

    def _delete_network(self, request: DeleteNetwork) -> None:
        if request.name not in self._networks:
            known = ", ".join(sorted(self._networks)) or "none"
            raise StorageRefused(
                "not_found", f"host {self._host} has no network {request.name}; it has {known}"
            )
        user = self._network_users().get(request.name)
        if user:
            message = f"network {request.name} cannot be deleted on host {self._host}: domain {user} is on it"
            raise StorageRefused("in_use", message)
        del self._networks[request.name]
