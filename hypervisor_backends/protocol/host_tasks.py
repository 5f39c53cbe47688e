"""Tasks of a host: its pools, volumes and networks; with what each answers.

Decides what may be done to what machines stand on, and when it is refused for their sake. Must not know which domain
uses what beyond that, or what a data center calls a storage domain.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from hypervisor_backends.protocol.request import Request
from olvm.model.hardware import DiskFormat


class CreatePool(Request, frozen=True, kw_only=True):
    """A directory that holds volumes. Asked again with the same path: no error."""

    name: str
    path: str


class DeletePool(Request, frozen=True, kw_only=True):
    """Forget the pool; its volumes stay where they are."""

    name: str


class ListPools(Request, frozen=True, kw_only=True):
    """Answered with `PoolList`."""


class PoolInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: str
    capacity_bytes: int
    free_bytes: int


class PoolList(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    pools: tuple[PoolInfo, ...]


class CreateVolume(Request, frozen=True, kw_only=True):
    """An empty volume, or with `base` a copy-on-write child of another one (`pool/volume` or a path)."""

    pool: str
    name: str
    size_bytes: int
    format: DiskFormat = "qcow2"
    base: str = ""


class CloneVolume(Request, frozen=True, kw_only=True):
    """A full, independent copy of volume `source` of the same pool."""

    pool: str
    name: str
    source: str


class ResizeVolume(Request, frozen=True, kw_only=True):
    """Make it larger; smaller is refused, as data would be lost. A running machine's disk grows in the guest too."""

    pool: str
    name: str
    size_bytes: int


class DeleteVolume(Request, frozen=True, kw_only=True):
    """Refused (`in_use`) while a domain of this host uses it, or another volume stands on it."""

    pool: str
    name: str


class ListVolumes(Request, frozen=True, kw_only=True):
    """Answered with `VolumeList`."""

    pool: str


class VolumeInfo(msgspec.Struct, frozen=True, kw_only=True):
    pool: str
    name: str
    path: str
    format: str
    size_bytes: int  # as a guest sees it
    allocated_bytes: int
    base: str = ""


class VolumeList(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    volumes: tuple[VolumeInfo, ...]


NetworkKind = Literal["bridge", "isolated", "nat"]


class CreateNetwork(Request, frozen=True, kw_only=True):
    """`bridge`: machines join the host's bridge of that name. `isolated`, `nat`: libvirt makes the bridge.

    `address`: the host's own in it, as in 192.168.100.1/24, with DHCP for the rest; empty: none.
    """

    name: str
    kind: NetworkKind
    bridge: str = ""
    address: str = ""


class DeleteNetwork(Request, frozen=True, kw_only=True):
    """Refused (`in_use`) while a domain of this host is on it."""

    name: str


class ListNetworks(Request, frozen=True, kw_only=True):
    """Answered with `NetworkList`."""


class NetworkInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    bridge: str
    active: bool


class NetworkList(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    networks: tuple[NetworkInfo, ...]


# What concerns the host's storage and networks.
HostTask: TypeAlias = (
    CreatePool
    | DeletePool
    | ListPools
    | CreateVolume
    | CloneVolume
    | ResizeVolume
    | DeleteVolume
    | ListVolumes
    | CreateNetwork
    | DeleteNetwork
    | ListNetworks
)
