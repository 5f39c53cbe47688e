"""The durable records of each actor: what SQL sees, and what a silo recovers from.

Rule: one actor owns each record (named in its docstring) and alone changes it. `timers` holds the record's
deadlines as name -> due time, so that they are committed with the state they belong to and survive a restart.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from olvm.model.hardware import Hardware
from olvm.model.host_profile import HostProfile
from olvm.model.host_states import HostStatus
from olvm.model.limits import EVENTS_KEPT_MAX, OPERATIONS_KEPT_MAX
from olvm.model.placement_needs import PlacementNeeds
from olvm.model.policy_definition import PolicyDefinition
from olvm.model.record import Record
from olvm.model.user_records import USER_RECORDS
from olvm.model.vm_sizes import Resize
from olvm.model.vm_states import VmStatus

OperationStatus = Literal["accepted", "running", "succeeded", "failed"]
ClusterPower = Literal["running", "shutting_down", "shut_down", "starting"]
Severity = Literal["normal", "warning", "error", "alert"]


class EngineRecord(Record):
    """Owner: `engine`. One row."""

    TABLE: ClassVar[str] = "engine"
    KEY: ClassVar[str] = "id"

    id: str = "engine"
    epoch: int = 0  # counts starts of the engine; a command of an older epoch is refused
    accepted_count: int = 0
    succeeded_count: int = 0
    failed_count: int = 0
    host_epoch_removed: int = 0  # the highest of all hosts that were removed


class InventoryRecord(Record):
    """Owner: `engine`. The unique names: key is `<kind>/<name>`."""

    TABLE: ClassVar[str] = "inventory"
    KEY: ClassVar[str] = "key"

    key: str
    kind: str
    name: str
    id: str
    cluster: str | None = None
    address: str = ""


class OperationRecord(Record):
    """Owner: `engine`. One asked-for change, from acceptance to its end."""

    TABLE: ClassVar[str] = "operations"
    KEY: ClassVar[str] = "id"
    # Only what can still matter is read back into memory: open operations and the newest finished ones.
    RECOVER_ORDER: ClassVar[str] = "finished_ns is not null, created_ns desc"
    KEPT_BY: ClassVar[str] = "finished_ns"
    ROWS_KEPT_MAX: ClassVar[int] = OPERATIONS_KEPT_MAX

    id: str
    kind: str
    target_kind: str
    target_id: str
    target_name: str
    status: OperationStatus = "accepted"
    progress_percent: int = 0
    reason: str = ""
    error_code: str = ""
    client_request_id: str = ""
    created_ns: int = 0
    started_ns: int | None = None
    finished_ns: int | None = None
    result: str = ""  # JSON of what a task answered


class ClusterRecord(Record):
    """Owner: `cluster/<name>`."""

    TABLE: ClassVar[str] = "clusters"
    KEY: ClassVar[str] = "name"

    name: str
    policy: str = "none"
    policy_parameters: dict[str, float] = {}
    policy_definition: PolicyDefinition | None = None  # of a policy that a person composed
    memory_overcommit_percent: int = 100
    cpu_overcommit_percent: int = 0
    host_count: int = 0
    created_ns: int = 0
    migration_policy: str = "minimal_downtime"
    migration_bandwidth_mib_s: float = 0.0
    fencing: bool = True
    fencing_skip_if_lease_live: bool = True
    fencing_skip_if_connectivity_broken: bool = True
    fencing_connectivity_threshold_percent: int = 50
    ha_reservation: bool = False
    power: ClusterPower = "running"
    power_plan: list[str] = []  # ids of the machines that a start brings back, first one first
    operation_id: str | None = None  # the shutdown or start under way
    timers: dict[str, int] = {}
    # Of the machines in power_plan, by id: how to reach them once they hold no host, and who comes first.
    power_names: dict[str, str] = {}
    power_addresses: dict[str, str] = {}
    power_priorities: dict[str, int] = {}
    power_reasons: dict[str, str] = {}  # by name: why a machine did not do what was asked
    power_wave: int | None = None  # the priority whose machines are asked now
    power_timeout_s: float = 0.0
    ha_reservation_broken: bool = False
    # The host of the newest booking, written while the policy takes hosts in turn: a restart goes on from there.
    turn_host: str = ""


class AffinityGroupRecord(Record):
    """Owner: `cluster/<cluster>`. Key is `<cluster>/<name>`; members by id and by host name."""

    TABLE: ClassVar[str] = "affinity_groups"
    KEY: ClassVar[str] = "key"

    key: str
    name: str
    cluster: str
    vm_ids: list[str] = []
    vm_names: list[str] = []
    hosts: list[str] = []
    vms_rule: str = "disabled"
    vms_enforcing: bool = False
    hosts_rule: str = "disabled"
    hosts_enforcing: bool = False
    priority: float = 1.0
    broken: bool = False
    created_ns: int = 0


class ReservationRecord(Record):
    """Owner: `cluster/<cluster>`. Capacity held on a host for a machine, pending starts included.

    `vcpus` and `memory_bytes` are at least what that copy can have now, plugged CPUs and memory included.
    """

    TABLE: ClassVar[str] = "reservations"
    KEY: ClassVar[str] = "vm_id"

    vm_id: str
    vm_name: str
    vm_address: str
    cluster: str
    host: str
    epoch: int
    vcpus: int
    memory_bytes: int
    created_ns: int = 0
    priority: int = 50
    high_availability: bool = False
    leased: bool = False
    settled: bool = False  # seen running there: its load is in the host's own reports
    boot_id: str = ""  # of the host when it was chosen: asked twice, answered alike
    pinned_hosts: list[str] = []
    needs: PlacementNeeds | None = None


class CopyRecord(Record):
    """Owner: `cluster/<cluster>`. Capacity held for a copy that is not the machine, or not any more.

    A migration's target, a takeover's, or a source that has handed over and has not said its end. It stays until
    `ReleaseVm` names its epoch. Key is `<vm id>/<epoch>`.
    """

    TABLE: ClassVar[str] = "copies"
    KEY: ClassVar[str] = "key"

    key: str
    vm_id: str
    vm_name: str
    vm_address: str
    cluster: str
    host: str
    epoch: int
    vcpus: int
    memory_bytes: int
    kind: str = "migration"  # or takeover, or source: handed over, end not heard
    from_host: str = ""  # of a migration: whose outgoing slot it takes
    reason: str = ""
    created_ns: int = 0
    boot_id: str = ""
    migration_policy: str = ""
    bandwidth_mib_s: float = 0.0
    pinned_hosts: list[str] = []
    priority: int = 50
    high_availability: bool = False
    leased: bool = False
    needs: PlacementNeeds | None = None


class HostRecord(Record):
    """Owner: `host/<name>`. The engine's view of one host."""

    TABLE: ClassVar[str] = "hosts"
    KEY: ClassVar[str] = "name"

    name: str
    cluster: str
    status: HostStatus = HostStatus.INSTALLING
    status_reason: str = ""
    status_since_ns: int = 0
    cpus: int = 0
    memory_bytes: int = 0
    cpu_model: str = ""
    accelerator: str = ""  # of a real host: kvm or tcg, and why this one
    accelerator_reason: str = ""
    backend: str = "simulated"
    silo: str = ""
    backend_settings: dict[str, str | int | float | bool] = {}
    silent_from: str = ""  # the status in which it fell silent, to return to
    boot_id: str = ""
    host_epoch: int = 0  # of the agent: it grows with each start of the agent
    failed_starts: int = 0
    operation_id: str | None = None  # the activation, maintenance or power action that waits for this host
    created_ns: int = 0
    timers: dict[str, int] = {}
    features: list[str] = []
    problems: list[str] = []  # what made it NonOperational: names of olvm.model.host_problems
    fence_devices: list[dict[str, str | int | float | bool]] = []
    kdump: bool = False
    # The fence flow under way; `fence_step` empty: none. It is a saga: after a restart it goes on where it stands.
    fence_step: str = ""
    fence_seq: int = 0  # grows with each flow and each question asked in it; an answer of another is late
    fence_intent: str = ""  # what it is for: not_responding, restart, power_on, power_off
    fence_device: int = 0  # which of fence_devices, and which proxy, are tried now
    fence_attempts: int = 0
    fence_reason: str = ""  # why it waits or was given up
    fenced_boot_id: str = ""  # the newest boot that is proven over
    fence_proxy: str = (
        ""  # the agent that carried the last order to the device; it is asked for the status too
    )
    fence_round: int = 0  # of all proxies and devices
    fence_polls: int = 0  # answers of the device that said "still on"
    fence_failures: int = 0  # how often this flow was tried out; the wait grows with it
    fence_lied_boot_id: str = ""  # a boot that was proven over and answered after that; told once
    tasks: dict[str, str] = {}  # as of a machine
    profile: HostProfile | None = None  # what a person said of it
    learnt_profile: HostProfile | None = None  # what its hypervisor tells


class Stray(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A copy that is not the machine, or not any more, and whose end was ordered or must come and is not heard yet.

    It cannot run: it waited for a source that runs on, it has handed over, or it needs a lease that it does not get.
    Except where `may_run`: a takeover whose new host fell silent; that one nobody has ended. `seen_*` marks the newest
    report believed of it.
    """

    host: str
    agent: str
    epoch: int
    boot_id: str = ""
    seen_host_epoch: int = 0
    seen_seq: int = 0
    may_run: bool = False
    end_ordered: bool = False  # it may run all the same, until the order reaches its host
    vcpus: int = 0  # as it was begun; 0: a row of an older version, which knew one size of a machine
    memory_bytes: int = 0


class VmRecord(Record):
    """Owner: `vm/<id>`. In the engine's file this is also where `select … from vms` reads.

    `host` is set exactly while a reservation for this machine exists (rule 6: every transient state has an owner).
    `vcpus` and `memory_bytes` are what its next start gets; a task that plugs or unplugs sets them too.
    """

    TABLE: ClassVar[str] = "vms"
    KEY: ClassVar[str] = "id"

    id: str
    name: str
    cluster: str
    vcpus: int
    memory_bytes: int
    status: VmStatus = VmStatus.DOWN
    status_reason: str = ""
    status_since_ns: int = 0
    host: str | None = None
    agent: str | None = None  # address of the agent that commands go to
    high_availability: bool = False
    pinned_hosts: list[str] = []
    epoch: int = 0  # grows with each attempt to start: authority over the running copy
    exit_reason: int | None = None
    exit_message: str = ""
    operation_id: str | None = None
    operation_kind: str = ""
    tried_hosts: list[str] = []
    seen_host_epoch: int = 0  # the newest report believed, with the last change of state
    seen_seq: int = 0
    description: str = ""
    silo: str = ""
    created_ns: int = 0
    started_ns: int | None = None
    timers: dict[str, int] = {}
    priority: int = 50  # 1 to 100
    lease: bool = False
    resume_behavior: str = "auto_resume"
    migration_policy: str = ""
    migratable: bool = True
    pause_code: str = ""
    boot_id: str = ""  # of the host at the placement: what `HostConfirmedDead` is held against
    epoch_issued: int = 0  # the highest epoch given to any copy; `epoch` is that of the machine itself
    ha_attempts: int = 0
    # The second copy: a migration's target or a takeover. `copy_phase` empty: there is none.
    copy_phase: str = ""  # placing, preparing, copying, settling (outcome unknown), starting (a takeover)
    copy_kind: str = ""
    copy_reason: str = ""
    copy_to_host: str = ""  # the host that was named for it, if one was
    copy_host: str = ""
    copy_agent: str = ""
    copy_boot_id: str = ""
    copy_epoch: int = 0
    copy_policy: str = ""
    copy_bandwidth_mib_s: float = 0.0
    copy_cancelled: bool = False
    # What is known of the two sides while the outcome is open; empty: not heard since.
    copy_source_word: str = ""  # as actors/vm_settling.py names them
    copy_target_word: str = ""
    copy_tried_hosts: list[str] = []
    copy_seen_host_epoch: int = 0  # as seen_host_epoch and seen_seq, of the copy: its host counts on its own
    copy_seen_seq: int = 0
    copy_begun_ns: int = 0
    copy_data_bytes: int = 0  # what the source last told of the migration
    copy_downtime_ms: int = 0
    copy_vcpus: int = 0  # what is reserved for it, and what its host is told; 0: as the machine
    copy_memory_bytes: int = 0
    strays: tuple[Stray, ...] = ()
    # Of the copy that runs, or of the memory that is saved; 0 while it is down.
    now_vcpus: int = 0
    now_memory_bytes: int = 0  # what was plugged included
    plugged_memory: dict[str, int] = {}  # bytes of each memory device, by name
    resize: Resize | None = None  # a change of size whose end is not known; its room is reserved
    hardware: Hardware | None = None
    needs: PlacementNeeds | None = None
    tasks: dict[
        str, str
    ] = {}  # those whose end is awaited: verb by operation; each has a timer `task/<operation>`
    # What its guest said last; nothing here is to be trusted. All of it stands in history's `guest_facts`.
    guest_hostname: str = ""
    guest_fqdn: str = ""
    guest_os: str = ""
    guest_kernel: str = ""
    guest_boot_id: str = ""
    guest_ips: list[str] = []
    guest_users: list[str] = []
    guest_session: str = ""
    guest_agents: list[str] = []  # who speaks for it
    guest_sources: dict[str, str] = {}  # which of them said what, by field
    guest_applications: int = 0  # how many there are; their names stand in history
    guest_told_ns: int = 0


class EventRecord(Record):
    """Owner: the silo that recorded it. Append-only; `seq` is gap-free within a file."""

    TABLE: ClassVar[str] = "events"
    KEY: ClassVar[str] = "id"
    APPEND_ONLY: ClassVar[bool] = True
    KEPT_BY: ClassVar[str] = "seq"
    ROWS_KEPT_MAX: ClassVar[int] = EVENTS_KEPT_MAX

    id: str
    seq: int
    at_ns: int
    code: str
    severity: Severity
    message: str
    vm_id: str = ""
    vm_name: str = ""
    host: str = ""
    cluster: str = ""
    operation_id: str = ""
    details: dict[str, str | int | float | bool | None] = {}


class AgentRecord(Record):
    """Owner: `agent/<host>`."""

    TABLE: ClassVar[str] = "agents"
    KEY: ClassVar[str] = "host"

    host: str
    cluster: str
    backend: str = "simulated"
    backend_settings: dict[str, str | int | float | bool] = {}
    cpus: int = 0
    memory_bytes: int = 0
    host_epoch: int = 0
    boot_id: str = ""


class DomainRecord(Record):
    """Owner: `agent/<host>`. A machine that this host runs, or that went down and was not yet acknowledged.

    The row stays after the acknowledgement (`forgotten`) because `epoch` is the highest that the agent has seen:
    rule 4 needs it for ever.
    """

    TABLE: ClassVar[str] = "domains"
    KEY: ClassVar[str] = "key"

    key: str  # <host>/<vm id>
    host: str
    vm_id: str
    vm_address: str
    name: str
    epoch: int
    status: VmStatus
    vcpus: int = 0
    memory_bytes: int = 0
    exit_reason: int | None = None
    exit_message: str = ""
    # The call whose answer is awaited; "given_up": what waits here for its machine waits for the engine's word.
    pending: str = ""
    forgotten: bool = False
    leased: bool = False
    lease_taken: bool = False  # this host is named in the machine's lease, as far as the agent knows
    resume_behavior: str = "auto_resume"
    pause_code: str = ""
    paused_since_ns: int = 0
    # Of a migration's source: the schedule it keeps to, and how far it came.
    to_host: str = ""
    to_epoch: int = 0
    to_uri: str = ""
    policy: str = ""
    bandwidth_mib_s: float = 0.0
    schedule_step: int = 0
    from_host: str = ""  # of a migration's target
    boot_id: str = ""  # of the host when it was given this copy; another boot has ended it
    hardware: Hardware | None = None


class PeerRecord(Record):
    """Owner: the silo. How far the two ordered channels to and from another silo have come."""

    TABLE: ClassVar[str] = "peers"
    KEY: ClassVar[str] = "silo"

    silo: str
    incarnation: str = ""  # of the peer's journal; another one means that its disk was lost
    received_seq: int = 0
    retired: list[str] = []  # its earlier journals: their frames come too late


ENGINE_RECORDS: tuple[type[Record], ...] = (
    EngineRecord,
    InventoryRecord,
    OperationRecord,
    ClusterRecord,
    ReservationRecord,
    CopyRecord,
    AffinityGroupRecord,
    HostRecord,
    VmRecord,
    EventRecord,
    PeerRecord,
    *USER_RECORDS,
)
VM_SILO_RECORDS: tuple[type[Record], ...] = (VmRecord, PeerRecord)
HOST_SILO_RECORDS: tuple[type[Record], ...] = (AgentRecord, DomainRecord, PeerRecord)
