"""Tasks of one domain: its size, devices, snapshots and screen, and words to its guest; with what each answers.

Decides what may be changed in a domain, or asked of it, without moving it from one status to another. Must not know
the storage and networks behind its devices: those are the host's (`host_tasks.py`).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from hypervisor_backends.protocol.request import DomainRequest
from olvm.model.hardware import DiskSpec, NicSpec


class SetVcpus(DomainRequest, frozen=True, kw_only=True):
    """Plug or unplug CPUs; at most the hardware's `vcpus_max`. Unplugging needs `hot_unplug_vcpu`."""

    vcpus: int


class SetBalloon(DomainRequest, frozen=True, kw_only=True):
    """Ask the guest to keep to so much memory; success means that it was asked."""

    memory_bytes: int


class PlugMemory(DomainRequest, frozen=True, kw_only=True):
    """Add a memory device. Asked again with the same name: no second one."""

    name: str
    size_bytes: int
    node: int = 0


class UnplugMemory(DomainRequest, frozen=True, kw_only=True):
    """Take a device back; the guest may refuse (`guest_refused`), and then it stays."""

    name: str


class AttachDisk(DomainRequest, frozen=True, kw_only=True):
    disk: DiskSpec


class DetachDisk(DomainRequest, frozen=True, kw_only=True):
    """Succeeds when the guest has let go of it; `guest_refused` if it does not in time. The data stay."""

    name: str


class ChangeMedium(DomainRequest, frozen=True, kw_only=True):
    """Put another medium into a cdrom; an empty source takes it out."""

    name: str
    source: str = ""


class AttachNic(DomainRequest, frozen=True, kw_only=True):
    nic: NicSpec


class DetachNic(DomainRequest, frozen=True, kw_only=True):
    name: str


class SetNicLink(DomainRequest, frozen=True, kw_only=True):
    """Plug the cable in, or out."""

    name: str
    up: bool


class SetCpuQuota(DomainRequest, frozen=True, kw_only=True):
    """Percent of one CPU for each vCPU; 0: no limit."""

    percent: int


class CreateSnapshot(DomainRequest, frozen=True, kw_only=True):
    """Freeze the state of all writable disks, and of memory if asked; the guest goes on. Names are the domain's own.

    `quiesce`: the guest's file systems are frozen meanwhile; `guest_refused` without an agent that can.
    """

    name: str
    with_memory: bool = False
    quiesce: bool = False


class CommitSnapshot(DomainRequest, frozen=True, kw_only=True):
    """Write what came since the snapshot back into what was frozen, and forget the snapshot. The guest runs on.

    Only the newest one can be committed. Succeeds when the disks are what they were before it was taken.
    """

    name: str


class RevertSnapshot(DomainRequest, frozen=True, kw_only=True):
    """Back to what the disks held when the snapshot was taken; the snapshot stays. What was written since is lost.

    The machine is stopped as by a loss of power and runs again in the same life: `rebooted`, and it boots; with
    `with_memory` it goes on where it was then, `guest_up` at once. Disks that came later are left as they are; CPUs
    and memory that were plugged stay. Snapshots that were taken later are lost too, which `discard_later` must allow
    (`in_use`). All disks are reverted or none is. A failure changes nothing, unless the machine was stopped and does
    not run again: then its life ends with `crashed`.
    """

    name: str
    with_memory: bool = False
    discard_later: bool = False


class ListSnapshots(DomainRequest, frozen=True, kw_only=True):
    """Answered with `SnapshotList`, oldest first."""


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    created_ns: int
    with_memory: bool
    disks: tuple[str, ...]  # names of the disks that it froze


class SnapshotList(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    snapshots: tuple[SnapshotInfo, ...]


class SetConsoleTicket(DomainRequest, frozen=True, kw_only=True):
    """Let whoever knows `password` see the screen for `valid_s` seconds. Answered with `ConsoleAddress`.

    An earlier ticket is void at once; who is connected stays connected.
    """

    password: str
    valid_s: int = 120


class ConsoleAddress(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    kind: Literal["vnc"]
    host: str
    port: int
    expires_ns: int


class CallGuest(DomainRequest, frozen=True, kw_only=True):
    """Say something to the guest's own agent, in the words of `guest_agent.protocol`; answered with `GuestAnswer`.

    Messages that the protocol gives no answer to are answered, empty, when they are written. Else `timeout_s` is how
    long the guest may take (`guest_silent`).
    """

    message: str
    arguments: dict[str, str | int | float | bool] = {}
    timeout_s: float = 10.0


class GuestAnswer(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    arguments: dict[str, str | int | float | bool] = {}


class FreezeGuest(DomainRequest, frozen=True, kw_only=True):
    """Stop the guest's file systems in a consistent state; it cannot write until `ThawGuest`."""


class ThawGuest(DomainRequest, frozen=True, kw_only=True):
    pass


# What changes or asks about one domain without moving it from one status to another.
DomainTask: TypeAlias = (
    SetVcpus
    | SetBalloon
    | PlugMemory
    | UnplugMemory
    | AttachDisk
    | DetachDisk
    | ChangeMedium
    | AttachNic
    | DetachNic
    | SetNicLink
    | SetCpuQuota
    | CreateSnapshot
    | CommitSnapshot
    | RevertSnapshot
    | ListSnapshots
    | SetConsoleTicket
    | CallGuest
    | FreezeGuest
    | ThawGuest
)
