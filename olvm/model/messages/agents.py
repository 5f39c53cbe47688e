"""Between the engine's actors and the agents of hosts."""

from __future__ import annotations

from typing import Literal

import msgspec

from olvm.model.hardware import Hardware
from olvm.model.host_profile import HostProfile
from olvm.model.messages.client import Arguments, Settings
from olvm.model.messages.message import Message
from olvm.model.vm_states import VmStatus


class DomainState(msgspec.Struct, frozen=True, array_like=True):
    """One machine as its host sees it."""

    vm_id: str
    vm_address: str
    epoch: int
    status: VmStatus
    exit_reason: int | None = None
    exit_message: str = ""
    pause_code: str = ""  # EIO, ENOSPC, EPERM, EOTHER, NOERR, POSTCOPY, POSTMIGRATE; empty unless Paused


class StartAgent(Message, frozen=True):
    """Create the agent of a host, or tell an existing one that its host is (still) registered."""

    host: str
    cluster: str
    backend: str
    backend_settings: Settings
    cpus: int
    memory_bytes: int
    host_epoch_min: int = (
        0  # the newest that the engine has heard of, also of removed hosts: it goes on above
    )


class StopAgent(Message, frozen=True):
    host: str


class RestartAgent(Message, frozen=True):
    """To `agents@<silo>`: forget what the agent holds in memory and open its host again (soft fence)."""

    host: str


class AgentReady(Message, frozen=True):
    """Capabilities: the answer to StartAgent and the first word of every new agent epoch, when it is whole again."""

    host: str
    host_epoch: int
    boot_id: str
    cpus: int
    memory_bytes: int
    cpu_model: str = ""
    features: list[str] = []
    problems: list[str] = []  # see Heartbeat
    accelerator: str = ""  # kvm or tcg, of a real host, and why
    accelerator_reason: str = ""
    profile: HostProfile | None = None


class AgentRecovering(Message, frozen=True):
    """The agent has started and is not whole yet: alive, not to be believed (VDSM's error 99).

    `host_epoch` is that of the start before; when it is whole, AgentReady has a higher one.
    """

    host: str
    host_epoch: int = 0


class AgentFailed(Message, frozen=True):
    host: str
    reason: str


class Heartbeat(Message, frozen=True):
    """`problems`: what makes the host non-operational, as `olvm.model.host_problems` names it; empty: nothing."""

    host: str
    host_epoch: int
    boot_id: str
    problems: list[str] = []


class HostReport(Message, frozen=True):
    """Everything that runs on a host, each report_period_s."""

    host: str
    host_epoch: int
    seq: int
    cpu_load_percent: float
    domains: list[DomainState]
    swap_used_percent: int = 0


class KdumpSeen(Message, frozen=True):
    """The host's kernel has crashed and writes its dump: nothing runs there any more. Repeated each 5 s.

    `boot_id` names the boot that crashed, where the message knows it; a message of an earlier boot is late.
    """

    host: str
    boot_id: str = ""


class CreateDomain(Message, frozen=True):
    """Start a machine. Refused (`other_boot`) if the host has been booted since the engine chose it.

    With a lease the agent first takes it, and waits as long as another host may still hold it; `lease_held` if one
    does.
    """

    vm_id: str
    vm_address: str
    epoch: int
    name: str
    vcpus: int
    memory_bytes: int
    restore: bool = False
    boot_id: str = ""  # empty: any
    leased: bool = False
    resume_behavior: str = "auto_resume"
    hardware: Hardware | None = None


class TaskDomain(Message, frozen=True):
    """Carry a task out on a copy of that epoch; answered with TaskEnded."""

    vm_id: str
    epoch: int
    operation_id: str
    verb: str
    arguments: Arguments = {}


class AskTask(Message, frozen=True):
    """Is that task still wanted? Asked by a host before it begins what must not come late."""

    operation_id: str


class TaskWanted(Message, frozen=True):
    """Not `wanted`: it has ended meanwhile, and whoever waited was told."""

    operation_id: str
    wanted: bool


class TaskOfHost(Message, frozen=True):
    """Carry a task out on the host itself; answered with TaskEnded."""

    host: str
    operation_id: str
    verb: str
    arguments: Arguments = {}


class TaskEnded(Message, frozen=True):
    """`outcome_known` False: it may have been done. `result` is JSON."""

    host: str
    operation_id: str
    succeeded: bool
    reason: str = ""
    code: str = ""
    outcome_known: bool = True
    result: str = ""


class MeasureDomain(Message, frozen=True):
    """How large is the copy of that epoch? Answered once nothing that changes it is under way on the host.

    Sent, so that it comes after the `TaskDomain` of the same operation, wherever that is.
    """

    vm_id: str
    epoch: int
    operation_id: str


class DomainMeasured(Message, frozen=True):
    """`memory_bytes` includes what was plugged."""

    host: str
    epoch: int
    operation_id: str
    vcpus: int
    memory_bytes: int


class OpenConsole(Message, frozen=True):
    """Told, never kept. The answer goes straight to `reply_to` as ConsoleTicket or Refusal."""

    vm_id: str
    epoch: int
    reply_to: str
    valid_s: int


class GuestTold(Message, frozen=True):
    """What the guest of a copy says of itself: JSON of `GuestFacts`. Said again now and then."""

    host: str
    epoch: int
    facts: bytes


class CommandDomain(Message, frozen=True):
    vm_id: str
    epoch: int
    verb: Literal["shutdown", "destroy", "reboot", "reset", "save", "pause", "continue"]


class PrepareIncoming(Message, frozen=True):
    """Get ready to take a machine over by live migration; answered with IncomingReady or DomainRefused("incoming").

    The copy has an epoch of its own, above its source's; its DomainRecord is MigratingTo until it arrives.
    """

    vm_id: str
    vm_address: str
    epoch: int
    name: str
    vcpus: int
    memory_bytes: int
    source_host: str
    boot_id: str = ""
    leased: bool = False
    resume_behavior: str = "auto_resume"
    hardware: Hardware | None = None


class IncomingReady(Message, frozen=True):
    host: str
    epoch: int
    uri: str


class MigrateDomain(Message, frozen=True):
    """To the source: copy the machine to `uri`. The agent keeps to the policy's schedule by itself.

    Ends in a Down report with exit reason 4 (handed over), in MigrationFailed (it still runs here), or in a Paused
    report with POSTMIGRATE (all was sent and the other side's word is missing: it runs here only if told to).
    """

    vm_id: str
    epoch: int
    to_host: str
    to_epoch: int
    uri: str
    policy: str
    bandwidth_mib_s: float


class CancelMigration(Message, frozen=True):
    """Too late is no error: then the machine is handed over.

    With `to_epoch` the source also promises, with `MigrationFailed`, that it will not begin this attempt any more: the
    order to do so may still be on its way.
    """

    vm_id: str
    epoch: int
    to_epoch: int = 0


class MigrationProgressed(Message, frozen=True):
    """Told by the source each monitor period."""

    host: str
    epoch: int
    to_epoch: int
    progress_percent: int
    data_total_bytes: int
    data_processed_bytes: int
    data_remaining_bytes: int
    memory_iteration: int
    downtime_ms: int  # allowed now
    post_copy: bool = False


class MigrationFailed(Message, frozen=True):
    """The machine still runs on its source; what is left of the copy is the engine's to end."""

    host: str
    epoch: int
    to_epoch: int
    reason: str
    code: str = ""


class ForgetDomain(Message, frozen=True):
    """Acknowledges a Down report; only then does the agent drop the entry."""

    vm_id: str
    epoch: int


class QueryDomain(Message, frozen=True):
    """Asks for a definite answer on a machine of unknown state. The answer is a DomainReported."""

    vm_id: str
    vm_address: str
    epoch: int


class DomainReported(Message, frozen=True):
    """A change on a host, or one line of a full report."""

    host: str
    agent: str
    host_epoch: int
    seq: int
    domain: DomainState
    absent: bool = False  # the agent has no such machine and the hypervisor was asked


class FlushReports(Message, frozen=True):
    """An agent to itself: tell what changed in this batch."""


class DomainMissing(Message, frozen=True):
    """A full report does not name a machine that should be there. Says nothing about whether it runs.

    `epoch` is that of the copy that was reserved there: the machine's own, or that of a copy on its way.
    """

    host: str
    host_epoch: int
    seq: int
    epoch: int = 0


class DomainRefused(Message, frozen=True):
    """The agent did not carry out a command.

    Codes of its own: absent, stale_epoch, older_copy, other_boot, lease_held (another host keeps renewing),
    lease_unreachable (the storage of leases does not answer), not_supported; others are the hypervisor's.
    """

    host: str
    epoch: int
    verb: str
    reason: str
    code: str = ""


class HostLost(Message, frozen=True):
    """The host of this machine does not answer. `again`: as in `HostUnresponsive`."""

    host: str
    reason: str
    again: bool = False


class HostConfirmedDead(Message, frozen=True):
    """Whatever ran on `host` before its boot `boot_id` ended is gone for certain."""

    host: str
    boot_id: str
    reason: str


# ---------------------------------------------------------------- fencing, through a proxy's agent


class FenceHost(Message, frozen=True):
    """Told, not sent: a late one must not strike a host that has come back. `seq` is of the host's fence flow.

    An order to switch is given twice: the agent answers the first with FenceReady, and obeys the second, which
    carries that question's `host_epoch` and `asked_ns`, if it comes soon on the agent's own clock.
    """

    host: str
    seq: int
    action: Literal["on", "off", "status"]
    device: Settings
    host_epoch: int = 0
    asked_ns: int = 0


class FenceReady(Message, frozen=True):
    """A proxy asks whether an order to switch still holds: it may have lain in front of an agent that stood still.

    `host_epoch` and `asked_ns` are the proxy's own, and mean something to nobody else.
    """

    host: str
    seq: int
    action: Literal["on", "off"]
    host_epoch: int
    asked_ns: int


class FenceResult(Message, frozen=True):
    """`power` is what the device says now; only a status of "off" proves anything."""

    host: str
    seq: int
    action: str
    ok: bool
    power: Literal["on", "off", "unknown"] = "unknown"
    reason: str = ""


class CheckHostLease(Message, frozen=True):
    """Ask a proxy whether the host still renews its lease on shared storage."""

    host: str
    seq: int


class HostLeaseChecked(Message, frozen=True):
    """`dead`: not renewed for the whole expiry on the proxy's clock; its leased machines are stopped."""

    host: str
    seq: int
    verdict: Literal["live", "dead", "unknown"]
    reason: str = ""
