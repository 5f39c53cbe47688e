"""What a client may ask of the engine, and what it hears."""

from __future__ import annotations

from typing import Literal

from olvm.model.hardware import Hardware
from olvm.model.host_profile import HostProfile
from olvm.model.messages.message import Message
from olvm.model.messages.users import ChangeUser, CreateUser, LogUserOn, RemoveUser, SetVerifier
from olvm.model.placement_needs import PlacementNeeds
from olvm.model.policy_definition import PolicyDefinition

Settings = dict[str, str | int | float | bool]
Arguments = dict[str, str | int | float | bool]
ResumeBehavior = Literal["auto_resume", "leave_paused", "kill"]
Rule = Literal["disabled", "positive", "negative"]


class CreateCluster(Message, frozen=True):
    name: str
    policy: str = "none"
    policy_parameters: dict[str, float] = {}
    memory_overcommit_percent: int = 100
    cpu_overcommit_percent: int = 0
    migration_policy: str = "minimal_downtime"
    migration_bandwidth_mib_s: float = 0.0  # of one host, both directions each; 0: the configuration's
    fencing: bool = True
    fencing_skip_if_lease_live: bool = True
    fencing_skip_if_connectivity_broken: bool = True
    fencing_connectivity_threshold_percent: int = 50
    ha_reservation: bool = False
    policy_definition: PolicyDefinition | None = None  # of a policy of that name that a person composed


class UpdateCluster(Message, frozen=True):
    name: str
    policy: str | None = None
    policy_parameters: dict[str, float] | None = None
    memory_overcommit_percent: int | None = None
    cpu_overcommit_percent: int | None = None
    migration_policy: str | None = None
    migration_bandwidth_mib_s: float | None = None
    fencing: bool | None = None
    fencing_skip_if_lease_live: bool | None = None
    fencing_skip_if_connectivity_broken: bool | None = None
    fencing_connectivity_threshold_percent: int | None = None
    ha_reservation: bool | None = None
    policy_definition: PolicyDefinition | None = None


class RemoveCluster(Message, frozen=True):
    name: str


class ClusterCommand(Message, frozen=True):
    """Shut all machines of a cluster down in order and put its hosts into maintenance; or the way back."""

    name: str
    verb: Literal["shutdown", "start"]
    timeout_s: float | None = None


class SetAffinityGroup(Message, frozen=True):
    """Create or replace a group. `vms` and `hosts` are names; a rule that enforces is a filter, else a weight."""

    name: str
    cluster: str
    vms: list[str] = []
    hosts: list[str] = []
    vms_rule: Rule = "disabled"
    vms_enforcing: bool = False
    hosts_rule: Rule = "disabled"
    hosts_enforcing: bool = False
    priority: float = 1.0


class RemoveAffinityGroup(Message, frozen=True):
    name: str
    cluster: str


class AddHost(Message, frozen=True):
    """`silo` names the host silo that the runtime prepared for the agent; cpus and memory are a simulated host's."""

    name: str
    cluster: str
    cpus: int
    memory_bytes: int
    silo: str = ""
    backend: str = "simulated"
    backend_settings: Settings = {}
    dedicated: bool = False  # a silo (process) of its own
    fence_devices: list[Settings] = []  # each has a "type"; tried in order; none: no power management
    kdump: bool = False  # its kernel tells when it writes a crash dump
    profile: HostProfile | None = None  # what a person says of it; goes before what its hypervisor tells


HostVerb = Literal[
    "activate",
    "maintenance",
    "cancel_maintenance",
    "remove",
    "confirm_rebooted",
    "restart",
    "power_on",
    "power_off",
]


class HostCommand(Message, frozen=True):
    """`timeout_s`: of a maintenance, how long machines may take to leave."""

    host: str
    action: HostVerb
    timeout_s: float | None = None


class CreateVm(Message, frozen=True):
    """`lease` None: a highly available machine has one. `resume_behavior` empty: kill with a lease, else auto."""

    name: str
    cluster: str
    vcpus: int
    memory_bytes: int
    high_availability: bool = False
    pinned_hosts: list[str] = []
    description: str = ""
    silo: str = ""
    dedicated: bool = False  # a silo (process) of its own
    priority: int = 50  # 1 to 100; who comes back first
    lease: bool | None = None
    resume_behavior: ResumeBehavior | Literal[""] = ""
    migration_policy: str = ""  # empty: the cluster's
    migratable: bool = True
    hardware: Hardware | None = None  # None: what the backend gives by itself
    needs: PlacementNeeds | None = None  # what it asks of its host beyond CPUs and memory


class UpdateVm(Message, frozen=True):
    vm: str
    vcpus: int | None = None
    memory_bytes: int | None = None
    high_availability: bool | None = None
    description: str | None = None
    priority: int | None = None
    lease: bool | None = None
    resume_behavior: ResumeBehavior | None = None
    migration_policy: str | None = None
    migratable: bool | None = None
    hardware: Hardware | None = None  # for the next start
    needs: PlacementNeeds | None = None


VmVerb = Literal[
    "start",
    "shutdown",
    "stop",
    "reboot",
    "reset",
    "suspend",
    "resume",
    "migrate",
    "cancel_migration",
    "remove",
]


class VmCommand(Message, frozen=True):
    """`vm` is a name or an id."""

    vm: str
    verb: VmVerb
    timeout_s: float | None = None
    to_host: str | None = None


class VmTask(Message, frozen=True):
    """Something done to a machine, or said to its guest, that changes none of its statuses.

    `verb` and `arguments` are those of `olvm.model.vm_tasks`. One of a machine that is down changes its hardware.
    """

    vm: str
    verb: str
    arguments: Arguments = {}
    timeout_s: float | None = None


class HostTask(Message, frozen=True):
    """Something done to the storage or the networks of a host; `verb` as in `olvm.model.host_tasks`."""

    host: str
    verb: str
    arguments: Arguments = {}
    timeout_s: float | None = None


Command = (
    CreateCluster
    | UpdateCluster
    | RemoveCluster
    | ClusterCommand
    | SetAffinityGroup
    | RemoveAffinityGroup
    | AddHost
    | HostCommand
    | CreateVm
    | UpdateVm
    | VmCommand
    | VmTask
    | HostTask
    | CreateUser
    | ChangeUser
    | RemoveUser
)
# What the gateway alone may submit, once it has seen a password.
TrustedCommand = SetVerifier | LogUserOn


class Submit(Message, frozen=True):
    """Accept a command as a durable operation. A repeated `client_request_id` gets the first one's operation."""

    command: Command | TrustedCommand
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
    result: str = ""  # JSON of what a task answered


class Refusal(Message, frozen=True):
    """The command was not accepted and nothing changed."""

    code: str
    reason: str


class ConsoleTicket(Message, frozen=True):
    """`ticket` is a password: it is good for one look, and is kept nowhere."""

    kind: str
    host: str
    port: int
    ticket: str
    expires_ns: int

    def __repr__(self) -> str:
        return f"ConsoleTicket({self.kind}, {self.host}, {self.port}, …)"


class ShowConsole(Message, frozen=True):
    """Ask for a ticket to a machine's screen. Answered with ConsoleTicket or Refusal; nothing of it is kept."""

    vm: str
    valid_s: int = 120


class HostVerdict(Message, frozen=True):
    host: str
    accepted: bool
    rejected_by: str = ""
    reason: str = ""
    score: float = 0.0
    chosen: bool = False
    weights: dict[str, int] = {}  # by unit, lower is better; empty where nothing was to be weighed
    ranks: dict[str, int] = {}  # by unit, higher is better


class PlacementExplanation(Message, frozen=True):
    vm: str
    policy: str
    summary: str
    hosts: list[HostVerdict] = []
    factors: dict[str, int] = {}  # of the policy's weights
    selector: str = ""
