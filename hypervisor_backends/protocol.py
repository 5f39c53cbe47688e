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

Feature = Literal[
    "graceful_shutdown",
    "reboot",
    "reset",
    "suspend",
    "pause",
    "guest_facts",
    "migration",
    "post_copy",
    "watchdog",
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


class DiskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """`source` is whatever the backend opens: a path, or a name in its own storage."""

    name: str
    size_bytes: int
    source: str = ""


class NicSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An empty `mac` lets the backend choose one that is stable for the VM."""

    name: str
    network: str = ""
    mac: str = ""


class DomainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is started; `name` must be unique among the domains of one host."""

    name: str
    vcpus: int
    memory_bytes: int
    disks: tuple[DiskSpec, ...] = ()
    nics: tuple[NicSpec, ...] = ()
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
    """Ask the guest to power off. Success means that the guest was asked; it may ignore it."""


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
    than the present one changes nothing. A host boots with the watchdog expired.
    """

    deadline_ns: int


class ListDomains(Request, frozen=True, kw_only=True):
    """Answered with a `DomainList`."""


class GetCapabilities(Request, frozen=True, kw_only=True):
    """Answered with `Capabilities`."""


class BulkStatistics(Request, frozen=True, kw_only=True):
    """Answered with a `StatisticsReport`."""


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
}


# ---------------------------------------------------------------- answers


class NumaNode(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    cpus: int
    memory_bytes: int


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
]


class CallSucceeded(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", tag=True):
    value: Capabilities | DomainList | StatisticsReport | IncomingAddress | MigrationStatistics | None = None


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
]

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
