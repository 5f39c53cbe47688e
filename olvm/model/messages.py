"""Every message between actors, and what a client may ask.

Commands are imperative, events past tense, replies nouns. Messages are values: frozen, and encoded as msgpack
arrays, so a field may only be appended, with a default.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from olvm.model.vm_states import VmStatus


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Base of all messages; the tag is the class name."""


# ---------------------------------------------------------------- what a client asks of the engine


class CreateCluster(Message, frozen=True):
    name: str
    policy: str = "none"
    policy_parameters: dict[str, float] = {}
    memory_overcommit_percent: int = 100
    cpu_overcommit_percent: int = 0


class UpdateCluster(Message, frozen=True):
    name: str
    policy: str | None = None
    policy_parameters: dict[str, float] | None = None
    memory_overcommit_percent: int | None = None
    cpu_overcommit_percent: int | None = None


class RemoveCluster(Message, frozen=True):
    name: str


class AddHost(Message, frozen=True):
    """`silo` names the host silo that the runtime prepared for the agent; cpus and memory are a simulated host's."""

    name: str
    cluster: str
    cpus: int
    memory_bytes: int
    silo: str = ""
    backend: str = "simulated"
    backend_settings: dict[str, str | int | float | bool] = {}
    dedicated: bool = False  # a silo (process) of its own


class HostCommand(Message, frozen=True):
    host: str
    action: Literal["activate", "maintenance", "remove"]


class CreateVm(Message, frozen=True):
    name: str
    cluster: str
    vcpus: int
    memory_bytes: int
    high_availability: bool = False
    pinned_hosts: list[str] = []
    description: str = ""
    silo: str = ""
    dedicated: bool = False  # a silo (process) of its own


class UpdateVm(Message, frozen=True):
    vm: str
    vcpus: int | None = None
    memory_bytes: int | None = None
    high_availability: bool | None = None
    description: str | None = None


VmVerb = Literal["start", "shutdown", "stop", "reboot", "reset", "suspend", "resume", "migrate", "remove"]


class VmCommand(Message, frozen=True):
    """`vm` is a name or an id."""

    vm: str
    verb: VmVerb
    timeout_s: float | None = None
    to_host: str | None = None


Command = (
    CreateCluster | UpdateCluster | RemoveCluster | AddHost | HostCommand | CreateVm | UpdateVm | VmCommand
)


class Submit(Message, frozen=True):
    """Accept a command as a durable operation. A repeated `client_request_id` gets the first one's operation."""

    command: Command
    client_request_id: str = ""


class LookUpOperation(Message, frozen=True):
    operation_id: str


class ExplainPlacement(Message, frozen=True):
    """Why each host would or would not take the machine now. Changes nothing."""

    vm: str


# ---------------------------------------------------------------- replies to a client


class OperationView(Message, frozen=True):
    id: str
    kind: str
    target_kind: str
    target_id: str
    target_name: str
    status: str
    progress_percent: int = 0
    reason: str = ""
    error_code: str = ""
    created_ns: int = 0
    started_ns: int | None = None
    finished_ns: int | None = None


class Refusal(Message, frozen=True):
    """The command was not accepted and nothing changed."""

    code: str
    reason: str


class HostVerdict(Message, frozen=True):
    host: str
    accepted: bool
    rejected_by: str = ""
    reason: str = ""
    score: float = 0.0
    chosen: bool = False


class PlacementExplanation(Message, frozen=True):
    vm: str
    policy: str
    summary: str
    hosts: list[HostVerdict] = []


# ---------------------------------------------------------------- engine to its entities, and back


class StartCluster(Message, frozen=True):
    """First message of a new cluster's life."""

    operation_id: str
    command: CreateCluster


class ChangeCluster(Message, frozen=True):
    operation_id: str
    command: UpdateCluster


class EndCluster(Message, frozen=True):
    operation_id: str


class RegisterHost(Message, frozen=True):
    operation_id: str
    command: AddHost


class CommandHost(Message, frozen=True):
    operation_id: str
    action: Literal["activate", "maintenance", "remove"]


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


class EntityRemoved(Message, frozen=True):
    """Tells the engine that a name is free again."""

    kind: str
    name: str


class VmChanged(Message, frozen=True):
    """A machine outside the engine's silo tells its state, so that `vms` in engine.duckdb holds every machine."""

    row: bytes  # msgpack of VmRecord; empty: removed
    vm_id: str


# ---------------------------------------------------------------- machine and cluster


class PlaceVm(Message, frozen=True):
    vm_id: str
    vm_name: str
    epoch: int
    vcpus: int
    memory_bytes: int
    pinned_hosts: list[str] = []
    excluded_hosts: list[str] = []
    high_availability: bool = False


class VmPlaced(Message, frozen=True):
    epoch: int
    host: str
    agent: str


class VmNotPlaced(Message, frozen=True):
    epoch: int
    reason: str


class ReleaseVm(Message, frozen=True):
    """The machine no longer needs its capacity on `host`; `failed_start` counts against the host."""

    vm_id: str
    host: str
    epoch: int
    failed_start: bool = False


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


class HostUsable(Message, frozen=True):
    host: str
    usable: bool
    reason: str = ""


class HostLeft(Message, frozen=True):
    host: str


class HostUnresponsive(Message, frozen=True):
    """The host stopped answering: its machines are of unknown state from now on."""

    host: str
    reason: str


class HostReported(Message, frozen=True):
    """A full report, passed on by the host after its order was checked."""

    host: str
    agent: str
    host_epoch: int
    seq: int
    cpu_load_percent: float
    domains: list[DomainState]


class HostStartFailed(Message, frozen=True):
    host: str
    vm_name: str
    reason: str


class AskEmpty(Message, frozen=True):
    """A host that wants maintenance asks which machines it still holds."""

    host: str


class HostOccupancy(Message, frozen=True):
    host: str
    vm_names: list[str]


# ---------------------------------------------------------------- engine and agent


class DomainState(msgspec.Struct, frozen=True, array_like=True):
    """One machine as its host sees it."""

    vm_id: str
    vm_address: str
    epoch: int
    status: VmStatus
    exit_reason: int | None = None
    exit_message: str = ""


class StartAgent(Message, frozen=True):
    """Create the agent of a host, or tell an existing one that its host is (still) registered."""

    host: str
    cluster: str
    backend: str
    backend_settings: dict[str, str | int | float | bool]
    cpus: int
    memory_bytes: int
    host_epoch_min: int = 0  # an agent that lost its journal goes on above what the engine has seen


class StopAgent(Message, frozen=True):
    host: str


class AgentReady(Message, frozen=True):
    """Capabilities: the answer to StartAgent and the first word of every new agent epoch."""

    host: str
    host_epoch: int
    boot_id: str
    cpus: int
    memory_bytes: int
    cpu_model: str = ""


class AgentFailed(Message, frozen=True):
    host: str
    reason: str


class Heartbeat(Message, frozen=True):
    host: str
    host_epoch: int
    boot_id: str


class HostReport(Message, frozen=True):
    """Everything that runs on a host, each report_period_s."""

    host: str
    host_epoch: int
    seq: int
    cpu_load_percent: float
    domains: list[DomainState]


class CreateDomain(Message, frozen=True):
    vm_id: str
    vm_address: str
    epoch: int
    name: str
    vcpus: int
    memory_bytes: int
    restore: bool = False


class CommandDomain(Message, frozen=True):
    vm_id: str
    epoch: int
    verb: Literal["shutdown", "destroy", "reboot", "reset", "save", "pause", "continue"]


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
    """A full report does not name a machine that should be there. Says nothing about whether it runs."""

    host: str
    host_epoch: int
    seq: int


class DomainRefused(Message, frozen=True):
    """The agent did not carry out a command."""

    host: str
    epoch: int
    verb: str
    reason: str
    code: str = ""


class HostLost(Message, frozen=True):
    """The host of this machine does not answer."""

    host: str
    reason: str


# ---------------------------------------------------------------- the silo itself


class TimerFired(Message, frozen=True):
    name: str


class Recovered(Message, frozen=True):
    """The silo has been started (again); the first message that every actor gets, before any other."""

    first_start: bool = False


class CallEnded(Message, frozen=True):
    """The answer of a port (hypervisor, history) to `turn.call`."""

    tag: str
    ok: bool
    value: bytes = b""
    code: str = ""
    outcome_known: bool = True


class DomainHappened(Message, frozen=True):
    """An event of the hypervisor that nobody asked for."""

    vm_id: str
    epoch: int
    kind: str
    exit_reason: int | None = None
    message: str = ""


# ---------------------------------------------------------------- telemetry


class Samples(Message, frozen=True):
    """One encoded columnar batch, see olvm.history."""

    payload: bytes


class GuestFactsTold(Message, frozen=True):
    payload: bytes


class EventsTold(Message, frozen=True):
    """Committed events of a silo, in order."""

    source: str
    payload: bytes


class EventTold(Message, frozen=True):
    """An event recorded in another silo; the engine's silo numbers and keeps all of them."""

    row: bytes  # msgpack of EventRecord


class PullEvents(Message, frozen=True):
    """The telemetry actor asks the engine's silo for committed events after its cursor."""

    after_seq: int
    row_count_max: int


AnyMessage = (
    CreateCluster
    | UpdateCluster
    | RemoveCluster
    | AddHost
    | HostCommand
    | CreateVm
    | UpdateVm
    | VmCommand
    | Submit
    | LookUpOperation
    | ExplainPlacement
    | OperationView
    | Refusal
    | PlacementExplanation
    | StartCluster
    | ChangeCluster
    | EndCluster
    | RegisterHost
    | CommandHost
    | RegisterVm
    | ChangeVm
    | CommandVm
    | OperationProgressed
    | OperationEnded
    | EntityRemoved
    | VmChanged
    | PlaceVm
    | VmPlaced
    | VmNotPlaced
    | ReleaseVm
    | ExplainFor
    | ExplainForVm
    | HostJoined
    | HostUsable
    | HostLeft
    | HostUnresponsive
    | HostReported
    | HostStartFailed
    | AskEmpty
    | HostOccupancy
    | StartAgent
    | StopAgent
    | AgentReady
    | AgentFailed
    | Heartbeat
    | HostReport
    | CreateDomain
    | CommandDomain
    | ForgetDomain
    | QueryDomain
    | DomainReported
    | FlushReports
    | DomainMissing
    | DomainRefused
    | HostLost
    | TimerFired
    | Recovered
    | CallEnded
    | DomainHappened
    | Samples
    | GuestFactsTold
    | EventsTold
    | EventTold
    | PullEvents
)
