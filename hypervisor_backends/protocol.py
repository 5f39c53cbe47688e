"""The port between a host agent and a hypervisor: requests, results, events, and the two protocols.

Decides what may be asked of a hypervisor and what each answer means. Must not know actors, journals or which
implementation answers. What is measured (statistics, guest facts) stands in `measurements.py`.

Rules that every implementation keeps, and that `tests/contracts/test_hypervisor_backend.py` checks:

1. `done` is called at most once per request. An implementation that cannot know the end says so in time with
   `CallFailed(outcome_known=False)`; only a lost host or a planted fault leaves a call without any answer.
2. `done` and the listener may be called before `submit` returns, and may themselves submit.
3. A domain is known by `vm_id`; `epoch` names one life of it. A start of the same pair is repeated without
   harm; the same `vm_id` with another epoch is refused while the first one exists.
4. Each life that had a `started` event ends with exactly one of `shut_down`, `stopped` and `crashed`, unless
   the host itself is lost: then nobody is told, and `boot_id` differs afterwards.
5. What a backend cannot do is missing from `Capabilities.features`; asking for it gives `not_supported`.
6. A request that already holds (pausing a paused domain) succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Literal, Protocol, TypeAlias

import msgspec

from hypervisor_backends.measurements import DomainStatistics, HostStatistics
from olvm.model.errors import BadInput
from olvm.model.hardware import DiskFormat, DiskSpec, Hardware, NicSpec

Feature = Literal[
    "graceful_shutdown",
    "reboot",
    "reset",
    "suspend",
    "pause",
    "guest_facts",
    "migration",
    "managed_migration",  # driven by the source's agent through connections to both hosts
    "storage_copy",  # live migration of disks that are not shared
    "post_copy",
    "watchdog",
    "hot_plug_vcpu",
    "hot_unplug_vcpu",
    "hot_plug_memory",
    "hot_unplug_memory",
    "hot_plug_disk",
    "hot_plug_nic",
    "balloon",
    "cpu_quota",
    "snapshot",
    "memory_snapshot",
    "console_ticket",
    "storage",
    "networks",
    "cloud_init",
    "guest_channel",  # olvm's or oVirt's guest agent can be spoken to
    "guest_agent",  # QEMU's own can
    "tpm",
    "uefi",
]

# The values of `VmStatus` that a hypervisor knows; a domain that is not listed is not there.
DomainStatus = Literal[
    "wait_for_launch",
    "powering_up",
    "up",
    "paused",
    "powering_down",
    "reboot_in_progress",
    "saving_state",
    "restoring_state",
    "migrating_from",  # the source; its vCPUs run until the switch-over
    "migrating_to",  # waits for the machine to arrive; its vCPUs do not run
]

# VmPauseStatus, and POSTMIGRATE: all was sent and the target's word is missing. Nobody may continue it but a caller
# that knows that the target never ran; the domain never continues by itself.
PauseCode = Literal["NONE", "NOERR", "EIO", "ENOSPC", "EPERM", "EOTHER", "POSTCOPY", "POSTMIGRATE"]


class ExitReason(IntEnum):
    """VDSM `vmexitreason.py`, its numbers."""

    SUCCESS = 0
    GENERIC_ERROR = 1
    LOST_QEMU = 2
    LIBVIRT_START_FAILED = 3
    MIGRATION_SUCCEEDED = 4
    SAVE_STATE_SUCCEEDED = 5
    ADMIN_SHUTDOWN = 6
    USER_SHUTDOWN = 7
    MIGRATION_FAILED = 8
    LIBVIRT_DOMAIN_MISSING = 9
    DESTROYED_ON_STARTUP = 10
    HOST_SHUTDOWN = 11
    POSTCOPY_MIGRATION_FAILED = 12
    DESTROYED_ON_REBOOT = 13
    DESTROYED_ON_PAUSE_TIMEOUT = 14


# ---------------------------------------------------------------- what a domain is made of


class DomainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is started; `name` must be unique among the domains of one host."""

    name: str
    vcpus: int
    memory_bytes: int
    hardware: Hardware = Hardware()
    guest_os: str = "linux"
    leased: bool = False  # stopped by the host's watchdog, see ArmWatchdog

    def __post_init__(self) -> None:
        if self.vcpus < 1 or self.memory_bytes < 1:
            raise BadInput(
                f"domain {self.name} needs at least one vCPU and some memory, "
                f"got vcpus={self.vcpus} and memory_bytes={self.memory_bytes}"
            )


# ---------------------------------------------------------------- requests


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """Base of all requests; the tag is the class name."""


class DomainRequest(Request, frozen=True, kw_only=True):
    """Base of the requests about one domain."""

    vm_id: str


class StartDomain(DomainRequest, frozen=True, kw_only=True):
    """Boot cold. Succeeds when the hypervisor process runs; the guest is heard of by `guest_up`.

    Memory saved by an earlier `SuspendDomain` on this host is discarded: the disks will have moved on.
    """

    epoch: int
    spec: DomainSpec


class RestoreDomain(DomainRequest, frozen=True, kw_only=True):
    """Continue from saved memory. Succeeds when the guest runs again; the saved memory is then gone."""

    epoch: int
    spec: DomainSpec


class ShutdownDomain(DomainRequest, frozen=True, kw_only=True):
    """Ask the guest to power off. Success means that the guest was asked; it may ignore it.

    Its agent is asked first. Where there is none, or where the guest still runs `acpi_after_s` later, the power button
    is pressed.
    """

    acpi_after_s: float = 30.0
    message: str = ""  # shown to who is logged on


class DestroyDomain(DomainRequest, frozen=True, kw_only=True):
    """End the domain now, whatever it does. Works on a domain whose monitor hangs."""


class RebootDomain(DomainRequest, frozen=True, kw_only=True):
    """Ask the guest to reboot. Success means that the guest was asked; it may ignore it."""


class ResetDomain(DomainRequest, frozen=True, kw_only=True):
    """Restart the guest as the reset button does."""


class SuspendDomain(DomainRequest, frozen=True, kw_only=True):
    """Save memory to disk and end the domain (hibernate). Succeeds when the memory is saved."""


class PauseDomain(DomainRequest, frozen=True, kw_only=True):
    """Stop the virtual CPUs."""


class ContinueDomain(DomainRequest, frozen=True, kw_only=True):
    """Let the virtual CPUs of a paused domain run again."""


class PrepareIncoming(DomainRequest, frozen=True, kw_only=True):
    """Make room for a machine that will arrive by live migration; answered with `IncomingAddress`.

    The domain is there as `migrating_to`, with an epoch of its own. It ends by itself (`stopped`, MIGRATION_FAILED,
    no `started` before) when its source gives up or when nothing is heard from it for the backend's time.
    """

    epoch: int
    spec: DomainSpec


class MigrateDomain(DomainRequest, frozen=True, kw_only=True):
    """Send a running or paused domain to the address that a `PrepareIncoming` gave. Answered when it is over:

    * `CallSucceeded`: handed over. The source life ends with `stopped`, MIGRATION_SUCCEEDED; on the target a new
      life (vm_id, `to_epoch`) begins with `started`, and `guest_up` if the guest's agent was heard at the source.
      The value, if there is one, is a last `MigrationStatistics`: 100 %, with `expected_downtime_ms` as measured.
    * `CallFailed("migration_failed" or "migration_cancelled")`: the domain goes on at the source as before.
    * `CallFailed(outcome_known=False)`: all was sent and the target did not confirm. The source is `paused` with
      POSTMIGRATE until `ContinueDomain` (only if the target surely never ran) or `DestroyDomain`. After post-copy
      the target surely ran, and `ContinueDomain` is refused.

    A paused domain arrives paused, with its pause code. From the switch-over on, all but `DestroyDomain` is refused.

    At no instant do the vCPUs of both copies run.
    """

    epoch: int
    to_uri: str
    to_epoch: int
    bandwidth_bytes_per_s: float  # at most; 0: as much as there is
    downtime_ms: int
    auto_converge: bool = True
    post_copy: bool = False  # may be switched to post-copy later, by StartPostCopy
    copy_storage: bool = False  # its disks are not shared: copy them too
    managed: bool = False  # not from host to host by themselves (peer to peer) but driven from here


class ChangeMigration(DomainRequest, frozen=True, kw_only=True):
    """Allow another downtime to the migration under way."""

    downtime_ms: int


class StartPostCopy(DomainRequest, frozen=True, kw_only=True):
    """Let the target run now and fetch memory from the source on demand.

    The source is `paused` with POSTCOPY. There is no way back: a failure loses the machine on both sides
    (POSTCOPY_MIGRATION_FAILED).
    """


class CancelMigration(DomainRequest, frozen=True, kw_only=True):
    """Give the migration up. `wrong_state` when there is none, or when it is past the switch-over or post-copy."""


class GetMigrationStatistics(DomainRequest, frozen=True, kw_only=True):
    """Answered with `MigrationStatistics`; `wrong_state` when no migration is under way."""


class ArmWatchdog(Request, frozen=True, kw_only=True):
    """Until `deadline_ns` of the host's own monotonic clock this host may run its leased domains.

    When that moment passes without a later deadline, the host ends all domains whose spec says `leased`, at once and
    by itself, whatever its agent does: `crashed`, GENERIC_ERROR, "its lease expired". A leased domain can be started,
    and an incoming one can begin to run, only while the watchdog is armed; else `lease_expired`. An earlier deadline
    than the present one changes nothing. A host boots with the watchdog expired. A watchdog that is not armed
    afterwards answers `lease_expired`.
    """

    deadline_ns: int


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


class ListSnapshots(DomainRequest, frozen=True, kw_only=True):
    """Answered with `SnapshotList`, oldest first."""


class SetConsoleTicket(DomainRequest, frozen=True, kw_only=True):
    """Let whoever knows `password` see the screen for `valid_s` seconds. Answered with `ConsoleAddress`.

    An earlier ticket is void at once; who is connected stays connected.
    """

    password: str
    valid_s: int = 120


class CallGuest(DomainRequest, frozen=True, kw_only=True):
    """Say something to the guest's own agent, in the words of `guest_agent.protocol`; answered with `GuestAnswer`.

    Messages that the protocol gives no answer to are answered, empty, when they are written. Else `timeout_s` is how
    long the guest may take (`guest_silent`).
    """

    message: str
    arguments: dict[str, str | int | float | bool] = {}
    timeout_s: float = 10.0


class FreezeGuest(DomainRequest, frozen=True, kw_only=True):
    """Stop the guest's file systems in a consistent state; it cannot write until `ThawGuest`."""


class ThawGuest(DomainRequest, frozen=True, kw_only=True):
    pass


class CreatePool(Request, frozen=True, kw_only=True):
    """A directory that holds volumes. Asked again with the same path: no error."""

    name: str
    path: str


class DeletePool(Request, frozen=True, kw_only=True):
    """Forget the pool; its volumes stay where they are."""

    name: str


class ListPools(Request, frozen=True, kw_only=True):
    """Answered with `PoolList`."""


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


class ListDomains(Request, frozen=True, kw_only=True):
    """Answered with a `DomainList`."""


class GetCapabilities(Request, frozen=True, kw_only=True):
    """Answered with `Capabilities`."""


class BulkStatistics(Request, frozen=True, kw_only=True):
    """Answered with a `StatisticsReport`."""


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
    | ListSnapshots
    | SetConsoleTicket
    | CallGuest
    | FreezeGuest
    | ThawGuest
)

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

HypervisorRequest: TypeAlias = (
    StartDomain
    | RestoreDomain
    | ShutdownDomain
    | DestroyDomain
    | RebootDomain
    | ResetDomain
    | SuspendDomain
    | PauseDomain
    | ContinueDomain
    | PrepareIncoming
    | MigrateDomain
    | ChangeMigration
    | StartPostCopy
    | CancelMigration
    | GetMigrationStatistics
    | ArmWatchdog
    | ListDomains
    | GetCapabilities
    | BulkStatistics
    | DomainTask
    | HostTask
)

# A request that is not named here must work on every backend.
FEATURE_BY_REQUEST: dict[type[Request], Feature] = {
    ShutdownDomain: "graceful_shutdown",
    RebootDomain: "reboot",
    ResetDomain: "reset",
    SuspendDomain: "suspend",
    RestoreDomain: "suspend",
    PauseDomain: "pause",
    ContinueDomain: "pause",
    PrepareIncoming: "migration",
    MigrateDomain: "migration",
    ChangeMigration: "migration",
    CancelMigration: "migration",
    GetMigrationStatistics: "migration",
    StartPostCopy: "post_copy",
    ArmWatchdog: "watchdog",
    SetVcpus: "hot_plug_vcpu",
    SetBalloon: "balloon",
    PlugMemory: "hot_plug_memory",
    UnplugMemory: "hot_unplug_memory",
    AttachDisk: "hot_plug_disk",
    DetachDisk: "hot_plug_disk",
    ChangeMedium: "hot_plug_disk",
    AttachNic: "hot_plug_nic",
    DetachNic: "hot_plug_nic",
    SetNicLink: "hot_plug_nic",
    SetCpuQuota: "cpu_quota",
    CreateSnapshot: "snapshot",
    CommitSnapshot: "snapshot",
    ListSnapshots: "snapshot",
    SetConsoleTicket: "console_ticket",
    CallGuest: "guest_channel",
    FreezeGuest: "guest_agent",
    ThawGuest: "guest_agent",
    CreatePool: "storage",
    DeletePool: "storage",
    ListPools: "storage",
    CreateVolume: "storage",
    CloneVolume: "storage",
    ResizeVolume: "storage",
    DeleteVolume: "storage",
    ListVolumes: "storage",
    CreateNetwork: "networks",
    DeleteNetwork: "networks",
    ListNetworks: "networks",
}


# ---------------------------------------------------------------- answers


class NumaNode(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    cpus: int
    memory_bytes: int


class HugePages(msgspec.Struct, frozen=True, kw_only=True):
    size_bytes: int
    total: int
    free: int


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """What a host has. `cpus` counts logical CPUs; `boot_id` differs after each boot of the host."""

    cpus: int
    memory_bytes: int
    cpu_model: str = ""
    numa_nodes: tuple[NumaNode, ...] = ()
    hypervisor: str = ""
    hypervisor_version: str = ""
    features: tuple[Feature, ...] = ()
    boot_id: str = ""
    problems: tuple[str, ...] = ()  # what makes the host unfit now, by `olvm.model.host_problems`
    accelerator: str = ""  # kvm, tcg, or empty where there is no such thing
    accelerator_reason: str = ""  # why this one: what was probed, or that it was said
    cpu_sockets: int = 0  # 0: not known
    cpu_cores_per_socket: int = 0
    cpu_threads_per_core: int = 0
    huge_pages: tuple[HugePages, ...] = ()
    emulated_machines: tuple[str, ...] = ()
    tsc_frequency_hz: int = 0  # of the time stamp counter; 0: not known
    tsc_scaling: bool = False  # a guest can be given another frequency


class DomainState(msgspec.Struct, frozen=True, kw_only=True):
    """One domain as its hypervisor sees it now."""

    vm_id: str
    epoch: int
    name: str
    status: DomainStatus
    vcpus: int
    memory_bytes: int
    pause_code: PauseCode = "NONE"
    monitor_responds: bool = True
    started_ns: int | None = None  # None until the hypervisor process runs
    leased: bool = False
    # As it is now, with what was plugged; None: the backend does not say. It may lack the cloud-init seed.
    hardware: Hardware | None = None
    size_known: bool = (
        True  # False: of a change of its CPUs or memory it is not known yet whether it was done
    )


class DomainList(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    domains: tuple[DomainState, ...]


class StatisticsReport(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    host: HostStatistics
    domains: tuple[DomainStatistics, ...]


class IncomingAddress(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    uri: str


class MigrationStatistics(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """As QEMU tells it; `expected_downtime_ms` at the present dirty rate and bandwidth."""

    progress_percent: int
    data_total_bytes: int
    data_processed_bytes: int
    data_remaining_bytes: int
    memory_iteration: int
    dirty_bytes_per_s: float
    bandwidth_bytes_per_s: float
    downtime_ms: int  # allowed
    expected_downtime_ms: int
    post_copy: bool = False


class SnapshotInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    created_ns: int
    with_memory: bool
    disks: tuple[str, ...]  # names of the disks that it froze


class SnapshotList(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    snapshots: tuple[SnapshotInfo, ...]


class ConsoleAddress(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    kind: Literal["vnc"]
    host: str
    port: int
    expires_ns: int


class GuestAnswer(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    arguments: dict[str, str | int | float | bool] = {}


class PoolInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: str
    capacity_bytes: int
    free_bytes: int


class PoolList(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    pools: tuple[PoolInfo, ...]


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


class NetworkInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    bridge: str
    active: bool


class NetworkList(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    networks: tuple[NetworkInfo, ...]


FailureCode = Literal[
    "unknown_domain",  # no such domain on this host
    "duplicate_domain",  # the vm_id with another epoch, or the name, exists here
    "wrong_state",  # refused in the domain's present state
    "out_of_memory",
    "out_of_cpus",
    "no_saved_memory",  # nothing to restore from
    "start_failed",
    "call_failed",  # the hypervisor reported an error of its own
    "domain_ended",  # the domain ended while the call was under way
    "timed_out",  # no answer within the call's time; the outcome is not known
    "monitor_hung",  # this domain's monitor does not answer; the outcome is not known
    "not_supported",  # missing from Capabilities.features
    "host_down",
    "closed",  # the backend was closed
    "migration_failed",  # the domain goes on at the source
    "migration_cancelled",  # as asked; the domain goes on at the source
    "lease_expired",  # the host's watchdog is not armed
    "lease_held",  # the host's lock manager says that another host has the domain's lease
    "bad_request",  # can never succeed as it stands: the message says why
    "not_found",  # no such disk, card, snapshot, pool, volume or network
    "exists",  # the name is taken by something else
    "in_use",
    "no_space",
    "guest_refused",  # the guest would not do its part
    "guest_silent",  # the guest's agent does not answer
]


class CallSucceeded(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    value: (
        Capabilities
        | DomainList
        | StatisticsReport
        | IncomingAddress
        | MigrationStatistics
        | SnapshotList
        | ConsoleAddress
        | GuestAnswer
        | PoolList
        | VolumeList
        | NetworkList
        | None
    ) = None


class CallFailed(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """`can_retry`: the call may succeed later on this host. Without `outcome_known`, it may have worked."""

    code: FailureCode
    message: str
    can_retry: bool = False
    outcome_known: bool = True


CallResult: TypeAlias = CallSucceeded | CallFailed

DomainEventKind = Literal[
    "started",  # the hypervisor process runs
    "guest_up",  # the guest's agent was heard for the first time since the boot or restore
    "rebooted",  # the guest went through a reset
    "paused",
    "continued",
    "shut_down",  # ended: the guest powered off
    "stopped",  # ended: by the hypervisor, on request
    "crashed",  # ended: lost
    "guest_event",  # its agent spoke: `message` is GUEST_FACTS, or a word of its sessions, as "session-logon alice"
]

GUEST_FACTS = "facts"  # the message of a guest_event that says: the guest told something new
TERMINAL_EVENTS: frozenset[DomainEventKind] = frozenset({"shut_down", "stopped", "crashed"})


class DomainEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    """Something happened that no call's answer tells. `exit_reason` is set on the terminal kinds alone."""

    vm_id: str
    epoch: int
    kind: DomainEventKind
    at_ns: int
    exit_reason: ExitReason | None = None
    pause_code: PauseCode = "NONE"
    message: str = ""


# ---------------------------------------------------------------- the protocols

Done: TypeAlias = Callable[[CallResult], None]
Listener: TypeAlias = Callable[[DomainEvent], None]
Cancel: TypeAlias = Callable[[], None]


class Scheduler(Protocol):
    """Time, as a backend sees it: virtual in the simulator, real (perhaps scaled) elsewhere."""

    def now_ns(self) -> int:
        """Never goes back."""

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Cancel:
        """Call `fn` once when it is `due_ns`, never from inside `call_at`.

        The returned function takes the call back; after it returned, `fn` is not called. It may be called
        again, and after `fn` ran, without effect.
        """


class HypervisorBackend(Protocol):
    """One host's hypervisor. Called from one thread; calls back on that thread."""

    @property
    def capabilities(self) -> Capabilities:
        """What the host has and can do now; cheap."""

    def submit(self, request: HypervisorRequest, done: Done) -> None:
        """Begin `request`; see the module's rules on `done`. Does not block and does not raise."""

    def set_listener(self, listener: Listener | None) -> None:
        """Replace the receiver of domain events. What happens without one is not kept: list and compare."""

    def statistics(self) -> tuple[HostStatistics, list[DomainStatistics]]:
        """One sample of the host and of every domain whose process runs, in `vm_id` order.

        Bounded: a domain that does not answer is reported with `monitor_response=-1`, not waited for.
        """

    def domains(self) -> list[DomainState]:
        """Every domain on this host, launching ones included, in `vm_id` order."""

    def close(self) -> None:
        """Let go of timers and connections; domains of a real hypervisor go on. Idempotent.

        Calls under way are not answered, later ones get `closed`.
        """
