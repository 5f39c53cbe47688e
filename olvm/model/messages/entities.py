"""Between the engine and its entities, and between machine, host and cluster."""

from __future__ import annotations

from typing import Literal

from olvm.model.host_profile import HostProfile
from olvm.model.messages.agents import DomainState
from olvm.model.messages.client import (
    AddHost,
    ClusterCommand,
    ConsoleTicket,
    CreateCluster,
    CreateVm,
    HostTask,
    HostVerb,
    Refusal,
    RemoveAffinityGroup,
    SetAffinityGroup,
    UpdateCluster,
    UpdateVm,
    VmTask,
    VmVerb,
)
from olvm.model.messages.message import Message
from olvm.model.placement_needs import PlacementNeeds

# Why a machine leaves its host. A person's own order is "asked".
MoveReason = Literal["asked", "maintenance", "balancing", "affinity", "host_error"]
# What a machine's second copy is for: the same life elsewhere, or a new life where the old one's fate is unknown.
CopyKind = Literal["migration", "takeover"]


class StartCluster(Message, frozen=True):
    """First message of a new cluster's life."""

    operation_id: str
    command: CreateCluster


class ChangeCluster(Message, frozen=True):
    operation_id: str
    command: UpdateCluster


class EndCluster(Message, frozen=True):
    operation_id: str


class CommandCluster(Message, frozen=True):
    operation_id: str
    command: ClusterCommand


class ChangeAffinity(Message, frozen=True):
    """The engine has checked the names; `vm_ids` are those of `command.vms`, in that order."""

    operation_id: str
    command: SetAffinityGroup | RemoveAffinityGroup
    vm_ids: list[str] = []


class RegisterHost(Message, frozen=True):
    operation_id: str
    command: AddHost


class CommandHost(Message, frozen=True):
    operation_id: str
    action: HostVerb
    timeout_s: float | None = None


class TaskHost(Message, frozen=True):
    operation_id: str
    command: HostTask


class TaskVm(Message, frozen=True):
    operation_id: str
    command: VmTask


class AskConsole(Message, frozen=True):
    """Told, never kept: the ticket that comes back is a password. `reply_to` is a client."""

    reply_to: str
    valid_s: int = 120


class PassOn(Message, frozen=True):
    """To the engine, whose silo has the door to clients: give this to the client `reply_to`. Told, never kept."""

    reply_to: str
    body: ConsoleTicket | Refusal


class RegisterVm(Message, frozen=True):
    operation_id: str
    vm_id: str
    command: CreateVm


class ChangeVm(Message, frozen=True):
    operation_id: str
    command: UpdateVm


class CommandVm(Message, frozen=True):
    operation_id: str
    verb: VmVerb
    timeout_s: float | None = None
    to_host: str | None = None


class OperationProgressed(Message, frozen=True):
    operation_id: str
    progress_percent: int
    reason: str = ""


class OperationEnded(Message, frozen=True):
    operation_id: str
    succeeded: bool
    reason: str = ""
    error_code: str = ""
    result: str = ""


class EntityRemoved(Message, frozen=True):
    """Tells the engine that a name is free again. `host_epoch`: of a host, the newest that was heard of."""

    kind: str
    name: str
    host_epoch: int = 0


class VmChanged(Message, frozen=True):
    """A machine outside the engine's silo tells its state, so that `vms` in engine.duckdb holds every machine."""

    row: bytes  # msgpack of VmRecord; empty: removed
    vm_id: str


# ---------------------------------------------------------------- machine and cluster


class PlaceVm(Message, frozen=True):
    """Ask for a host, and capacity on it, for a machine that runs nowhere."""

    vm_id: str
    vm_name: str
    epoch: int
    vcpus: int
    memory_bytes: int
    pinned_hosts: list[str] = []
    excluded_hosts: list[str] = []
    high_availability: bool = False
    priority: int = 50
    ha_restart: bool = False  # nobody asked: it is started again, and waits behind those of higher priority
    leased: bool = False
    needs: PlacementNeeds | None = None


class VmPlaced(Message, frozen=True):
    epoch: int
    host: str
    agent: str
    boot_id: str = ""


class VmNotPlaced(Message, frozen=True):
    """`deferred`: not refused; a machine of higher priority comes first, ask again in a few seconds."""

    epoch: int
    reason: str
    deferred: bool = False


class PlaceCopy(Message, frozen=True):
    """Ask for a second host while the machine keeps its capacity on `current_host`.

    `epoch` is that of the copy. `to_host` empty: the cluster chooses. Asked again with the same epoch: same answer.
    """

    vm_id: str
    vm_name: str
    epoch: int
    kind: CopyKind
    current_host: str
    vcpus: int
    memory_bytes: int
    reason: MoveReason = "asked"
    to_host: str = ""
    pinned_hosts: list[str] = []
    excluded_hosts: list[str] = []
    high_availability: bool = False
    priority: int = 50
    leased: bool = False
    migration_policy: str = ""  # the machine's own; empty: the cluster's
    needs: PlacementNeeds | None = None


class CopyPlaced(Message, frozen=True):
    """`migration_policy` and `bandwidth_mib_s` are what a migration goes by; empty and 0 for a takeover."""

    epoch: int
    host: str
    agent: str
    boot_id: str
    migration_policy: str = ""
    bandwidth_mib_s: float = 0.0


class CopyNotPlaced(Message, frozen=True):
    """`deferred`: migration slots are taken; the cluster says `SlotFree`, and asking again in 10 s is right too."""

    epoch: int
    reason: str
    deferred: bool = False


class SlotFree(Message, frozen=True):
    """A machine that was deferred may ask again now."""


class PromoteCopy(Message, frozen=True):
    """The copy is the machine now: its reservation becomes the machine's, the old one waits for `ReleaseVm`."""

    vm_id: str
    epoch: int  # of the copy
    old_host: str
    old_epoch: int


class ResizeVm(Message, frozen=True):
    """Hold so much for the copy of that epoch from now on.

    With an `operation_id` room for more is asked for, and `VmResized` is the answer; without one it is what the copy
    has, and nothing is asked.
    """

    vm_id: str
    epoch: int
    vcpus: int
    memory_bytes: int
    operation_id: str = ""


class VmResized(Message, frozen=True):
    """`refusal` empty: it is reserved. Else nothing has changed, and this says which host lacks what."""

    epoch: int
    operation_id: str
    refusal: str = ""


class ReleaseVm(Message, frozen=True):
    """No capacity is needed any more on `host` for the copy of that epoch; an empty host means wherever it is.

    `failed_start` counts against the host.
    """

    vm_id: str
    host: str
    epoch: int
    failed_start: bool = False


class MoveVm(Message, frozen=True):
    """Leave `from_host`; to `to_host` if one is named. Ignored by a machine that is not there."""

    from_host: str
    reason: MoveReason
    to_host: str = ""


class StayVm(Message, frozen=True):
    """The reason to leave `from_host` is gone: give up a move that nobody asked for and that copies nothing yet."""

    from_host: str


class VmMoveRefused(Message, frozen=True):
    """Why a machine that was told to move does not, now. It is told again at the next occasion."""

    vm_id: str
    vm_name: str
    host: str
    reason: str


class PowerVm(Message, frozen=True):
    """The cluster shuts down or starts all machines: as a command, without an operation of the machine's own."""

    verb: Literal["shutdown", "stop", "start"]


class VmPowered(Message, frozen=True):
    """The answer to `PowerVm` when its end is known; `down`: the machine holds no host; `verb`: of the order."""

    vm_id: str
    vm_name: str
    down: bool
    reason: str = ""
    verb: str = ""


class ExplainFor(Message, frozen=True):
    """The engine passes a client's question on; the answer goes straight to `reply_to`."""

    reply_to: str


class ExplainForVm(Message, frozen=True):
    reply_to: str
    request: PlaceVm


# ---------------------------------------------------------------- host and cluster


class HostJoined(Message, frozen=True):
    host: str
    cpus: int
    memory_bytes: int
    agent: str
    usable: bool
    boot_id: str = ""
    cpu_model: str = ""
    features: list[str] = []
    has_power_management: bool = False
    profile: HostProfile | None = None


class HostUsable(Message, frozen=True):
    """Each change of a host's status; `usable`: it is Up."""

    host: str
    usable: bool
    reason: str = ""
    status: str = ""


class HostLeft(Message, frozen=True):
    host: str


class HostSilent(Message, frozen=True):
    """The host has not answered for `lease_takeover_after_s`; told on to its leased, highly available machines."""

    host: str
    reason: str


class HostUnresponsive(Message, frozen=True):
    """The host stopped answering: its machines are of unknown state from now on.

    `again`: it still does not. A machine may have been heard from there meanwhile by a word that the host's own did
    not follow.
    """

    host: str
    reason: str
    again: bool = False


class HostFenced(Message, frozen=True):
    """Proof that whatever ran on the host before boot `boot_id` ended is gone. Told on as `HostConfirmedDead`."""

    host: str
    boot_id: str  # the boot that is over
    reason: str


class HostReported(Message, frozen=True):
    """A full report, passed on by the host after its order was checked."""

    host: str
    agent: str
    host_epoch: int
    seq: int
    cpu_load_percent: float
    domains: list[DomainState]
    swap_used_percent: int = 0


class HostStartFailed(Message, frozen=True):
    host: str
    vm_name: str
    reason: str


class DrainHost(Message, frozen=True):
    """Move every machine off the host, a few at a time; asked again while it lasts. `AskEmpty` says how it goes."""

    host: str
    reason: MoveReason


class StopDrain(Message, frozen=True):
    host: str


class AskEmpty(Message, frozen=True):
    """A host that wants maintenance asks which machines it still holds."""

    host: str


class HostOccupancy(Message, frozen=True):
    """Also told unasked when the last machine has left. `reason_by_vm`: why a machine does not move."""

    host: str
    vm_names: list[str]
    reason_by_vm: dict[str, str] = {}


class AskFencing(Message, frozen=True):
    """May this host be fenced now, and through whom? Asked anew before each step, so that a storm is seen."""

    host: str
    seq: int  # of the host's fence flow; answers carry it


class FencingAdvice(Message, frozen=True):
    """`proxies`: agents of hosts that are Up, best first."""

    host: str
    seq: int
    allowed: bool
    reason: str = ""
    proxies: list[str] = []
    check_lease: bool = True  # the cluster's policy: skip if the storage lease is live
