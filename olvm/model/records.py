"""The durable records of each actor: what SQL sees, and what a silo recovers from.

Rule: one actor owns each record (named in its docstring) and alone changes it. `timers` holds the record's
deadlines as name -> due time, so that they are committed with the state they belong to and survive a restart.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from olvm.model.host_states import HostStatus
from olvm.model.limits import EVENTS_KEPT_MAX, OPERATIONS_KEPT_MAX
from olvm.model.record import Record
from olvm.model.vm_states import VmStatus

OperationStatus = Literal["accepted", "running", "succeeded", "failed"]
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


class ClusterRecord(Record):
    """Owner: `cluster/<name>`."""

    TABLE: ClassVar[str] = "clusters"
    KEY: ClassVar[str] = "name"

    name: str
    policy: str = "none"
    policy_parameters: dict[str, float] = {}
    memory_overcommit_percent: int = 100
    cpu_overcommit_percent: int = 0
    host_count: int = 0
    created_ns: int = 0


class ReservationRecord(Record):
    """Owner: `cluster/<cluster>`. Capacity held on a host for a machine, pending starts included."""

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
    backend: str = "simulated"
    silo: str = ""
    backend_settings: dict[str, str | int | float | bool] = {}
    silent_from: str = ""  # the status in which it fell silent, to return to
    boot_id: str = ""
    host_epoch: int = 0  # of the agent: it grows with each start of the agent
    failed_starts: int = 0
    operation_id: str | None = None  # the activation or maintenance that waits for this host
    created_ns: int = 0
    timers: dict[str, int] = {}


class VmRecord(Record):
    """Owner: `vm/<id>`. In the engine's file this is also where `select … from vms` reads.

    `host` is set exactly while a reservation for this machine exists (rule 6: every transient state has an owner).
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
    pending: str = ""  # the hypervisor call whose answer is awaited
    forgotten: bool = False


class PeerRecord(Record):
    """Owner: the silo. How far the two ordered channels to and from another silo have come."""

    TABLE: ClassVar[str] = "peers"
    KEY: ClassVar[str] = "silo"

    silo: str
    incarnation: str = ""  # of the peer's journal; another one means that its disk was lost
    received_seq: int = 0


ENGINE_RECORDS: tuple[type[Record], ...] = (
    EngineRecord,
    InventoryRecord,
    OperationRecord,
    ClusterRecord,
    ReservationRecord,
    HostRecord,
    VmRecord,
    EventRecord,
    PeerRecord,
)
VM_SILO_RECORDS: tuple[type[Record], ...] = (VmRecord, PeerRecord)
HOST_SILO_RECORDS: tuple[type[Record], ...] = (AgentRecord, DomainRecord, PeerRecord)
