"""What an oracle is: it hears what really happens, and raises `Violation` the moment a promise is broken.

Hooks are methods with agreed names; an oracle has those that it needs, and the board calls no others, so that what
nobody listens to costs nothing. They come from these places, none of them an actor's mind:

* the simulated hypervisors (`domain_added`, `vcpus_started`, … of `HypervisorObserver`, and `minute`),
* the disks: what a silo has made durable (`committed`, `recovered`),
* the clients: what they asked and what they were answered (`asked`, `answered`),
* where history is simulated, its disk (`report_stored`, …) and its wire (`samples_sent`, `samples_acknowledged`).

`healed` is called when the faults stop, `settled` at the end. Hooks must be cheap and must not change anything.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NoReturn, Protocol

from olvm.history.samples import SampleBatch
from olvm.journal.port import Batch
from olvm.model import messages as m
from olvm.model.config import Config
from olvm.model.limits import NS_PER_S
from olvm.model.record import Record
from olvm.model.records import EventRecord, OperationRecord

OracleKind = Literal["safety", "liveness", "determinism"]
Rows = dict[str, Record]
# Of samples: kind, host, host epoch, number.
ReportName = tuple[str, str, int, int]


def report_name(batch: SampleBatch) -> ReportName:
    return batch.kind, batch.host, batch.host_epoch, batch.seq


class Violation(Exception):
    """A promise is broken. `oracle` is its id ("S1"); the sentence names who, what and when."""

    def __init__(self, oracle: str, kind: OracleKind, at_ns: int, sentence: str) -> None:
        super().__init__(f"{oracle} at {at_ns / NS_PER_S:.3f} s: {sentence}")
        self.oracle = oracle
        self.kind = kind
        self.at_ns = at_ns
        self.sentence = sentence


class Witness(Protocol):
    """What an oracle may look at besides its hooks: the truth of the simulated world."""

    @property
    def now_ns(self) -> int: ...

    @property
    def config(self) -> Config: ...

    @property
    def hosts(self) -> list[str]:
        """Every simulated host, powered or not, in order of name."""

    def is_powered(self, host: str) -> bool: ...

    def boot_id(self, host: str) -> str: ...

    def capacity_bytes(self, host: str) -> int: ...

    def domains(self, host: str) -> list[tuple[str, int, str]]:
        """(vm id, epoch, status) of every domain on the host's hypervisor, now."""

    def size_by_vm_id(self, host: str) -> dict[str, tuple[int, int]]:
        """vCPUs and bytes of memory of every domain on the host's hypervisor, now, with what was plugged."""

    def snapshots_by_vm_id(self) -> dict[str, list[str]]:
        """The names of those that lie beside the disks of machines, oldest first."""

    def silos(self) -> list[str]:
        """Those whose process runs."""

    def durable(self, silo: str, kind: type[Record]) -> Rows:
        """The rows of one table on the silo's disk. Costs a read of the disk: for the end of a run."""

    def outgoing_count(self, silo: str) -> int:
        """Durable messages that wait on the silo's disk."""

    @property
    def has_history(self) -> bool:
        """Whether this world has a telemetry silo."""

    def stored_report(self, name: ReportName) -> bytes | None:
        """What history's disk has under this name."""

    def verify_journal(self, silo: str) -> list[str]:
        """How the silo's tables differ from the fold of its journal."""


class Oracle:
    """Base: an id, the promise in one sentence, and the way to say that it is broken."""

    ID: ClassVar[str] = ""
    KIND: ClassVar[OracleKind] = "safety"
    PROMISE: ClassVar[str] = ""

    def __init__(self, witness: Witness) -> None:
        self.witness = witness

    def fail(self, sentence: str) -> NoReturn:
        raise Violation(self.ID, self.KIND, self.witness.now_ns, sentence)


class Hooks(Protocol):
    """Every hook with its signature. No oracle has them all."""

    def domain_added(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None: ...
    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None: ...
    def domain_resized(self, host: str, vm_id: str, epoch: int, more_bytes: int) -> None: ...
    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None: ...
    def vcpus_stopped(self, host: str, vm_id: str, epoch: int) -> None: ...
    def status_changed(self, host: str, vm_id: str, epoch: int, status: str) -> None: ...
    def ended(self, host: str, vm_id: str, epoch: int, exit_reason: int) -> None: ...
    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None: ...
    def power_changed(self, host: str, is_on: bool, boot_id: str) -> None: ...

    def committed(self, silo: str, batch: Batch) -> None:
        """`batch` is durable on the silo's disk."""

    def recovered(self, silo: str, records: dict[type[Record], Rows], next_event_seq: int) -> None:
        """A process has started from the silo's disk and holds these."""

    def asked(self, client: str, command: m.Command, request_id: str) -> None: ...
    def answered(self, client: str, reply: m.AnyMessage) -> None: ...

    def report_stored(self, name: ReportName, payload: bytes) -> None:
        """History's disk is about to have this report of samples."""

    def event_stored(self, source: str, event: EventRecord) -> None: ...
    def operation_stored(self, operation: OperationRecord) -> None: ...

    def samples_sent(self, agent: str, incarnation: int, number: int, payload: bytes) -> None:
        """A numbered report arrives at the telemetry silo, perhaps not for the first time."""

    def samples_acknowledged(self, agent: str, incarnation: int, numbers: list[int]) -> None:
        """History's word that it has these arrives where the agent runs, or ran."""

    def minute(self) -> None:
        """A minute of true time has passed."""

    def healed(self) -> None: ...
    def settled(self) -> None: ...


HOOKS: tuple[str, ...] = tuple(name for name in vars(Hooks) if not name.startswith("_"))
