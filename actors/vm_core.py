"""What all of a machine's decisions stand on: its record, its moves by the table, its operation, its voice.

It decides nothing about hosts or copies; `vm_starting.py`, `vm_running.py`, `vm_copies.py`, `vm_takeover.py` and
`vm_migration.py` do, each on top of the one before, and `vm.py` says which of them a message is for.
"""

from __future__ import annotations

from actors.behaviour import TimedRecord, Turn
from olvm.model import messages as m
from olvm.model.errors import Conflict
from olvm.model.records import Severity, VmRecord
from olvm.model.vm_states import NOT_RUNNING, VmStatus, VmTrigger, next_vm_status

LAUNCHING = frozenset({VmStatus.WAIT_FOR_LAUNCH, VmStatus.RESTORING_STATE})
# Held by this actor's deadline; PoweringUp is not: a guest without an agent may boot for ever.
BOUNDED = LAUNCHING | {VmStatus.POWERING_DOWN, VmStatus.REBOOT_IN_PROGRESS, VmStatus.SAVING_STATE}

# VDSM exit reasons.
EXIT_ERROR = 1
EXIT_START_FAILED = 3
EXIT_HANDED_OVER = 4
EXIT_SAVED = 5
EXIT_ADMIN = 6
EXIT_USER_SHUTDOWN = 7
EXIT_MIGRATION_FAILED = 8
EXIT_DOMAIN_MISSING = 9
EXIT_HOST_SHUTDOWN = 11
# No fault: success, handed over, saved, shut down by an administrator or from inside.
NORMAL_EXITS = frozenset({0, EXIT_HANDED_OVER, EXIT_SAVED, EXIT_ADMIN, EXIT_USER_SHUTDOWN})
# The end of a copy that surely never ran. An agent gives it to a target that it ended before the arrival, and tells
# an arrival before its end; an end that it does not know (9), or of a copy that ran (6), is none of these.
NEVER_RAN_EXITS = frozenset({EXIT_START_FAILED, EXIT_MIGRATION_FAILED})

# The operation id of what the cluster ordered with `PowerVm`: its end is told to the cluster, not to the engine.
POWER_ORDER = "power/"

Details = dict[str, str | int | float | bool | None]


class VmCore:
    # Tens of thousands live in one silo: what can be derived from the record is not kept beside it.
    __slots__ = ("copy_seen", "record", "seen")

    def __init__(self, record: VmRecord) -> None:
        self.record = record
        # The newest reports believed, of the machine and of its second copy. The record gets them in turns that
        # save it, or the journal, which holds what a turn saved, and the table, which is written at the end of the
        # batch, would differ.
        self.seen = (record.seen_host_epoch, record.seen_seq)
        self.copy_seen = (record.copy_seen_host_epoch, record.copy_seen_seq)

    @property
    def address(self) -> str:
        return f"vm/{self.record.id}"

    @property
    def full_address(self) -> str:
        """As other silos write to it."""
        return f"{self.address}@{self.record.silo}" if self.record.silo else self.address

    @property
    def cluster(self) -> str:
        return f"cluster/{self.record.cluster}"

    def timed_record(self) -> TimedRecord | None:
        return self.record

    # ------------------------------------------------------------------ status

    def _move(self, trigger: VmTrigger, turn: Turn, reason: str = "") -> None:
        record = self.record
        record.status = next_vm_status(record.status, trigger)
        record.status_reason = reason
        record.status_since_ns = turn.now_ns
        if record.status is not VmStatus.PAUSED:
            record.pause_code = ""
        turn.save(record)

    def _say(
        self, code: str, text: str, turn: Turn, severity: Severity = "normal", details: Details | None = None
    ) -> None:
        record = self.record
        operation_id = record.operation_id or ""
        turn.record(
            code,
            f"machine {record.name} {text}",
            severity,
            vm_id=record.id,
            vm_name=record.name,
            host=record.host or "",
            cluster=record.cluster,
            operation_id="" if operation_id.startswith(POWER_ORDER) else operation_id,
            details=details,
        )

    def _say_configured(self, code: str, text: str, operation_id: str, turn: Turn) -> None:
        record = self.record
        details: Details = {
            "kind": "vm",
            "vcpus": record.vcpus,
            "memory_bytes": record.memory_bytes,
            "high_availability": record.high_availability,
            "priority": record.priority,
            "lease": record.lease,
        }
        turn.record(
            code,
            f"machine {record.name} {text}",
            vm_id=record.id,
            vm_name=record.name,
            cluster=record.cluster,
            operation_id=operation_id,
            details=details,
        )

    def _issue_epoch(self) -> int:
        """An epoch that no copy of this machine has had; rows of older versions know `epoch` alone."""
        record = self.record
        record.epoch_issued = max(record.epoch, record.epoch_issued) + 1
        return record.epoch_issued

    # ------------------------------------------------------------------ its operation

    def _begin(self, message: m.CommandVm, deadline_s: float, turn: Turn) -> None:
        record = self.record
        if record.operation_id is not None:
            self._finish(turn, False, f"gave way to {message.verb}", Conflict.code)
        record.operation_id = message.operation_id
        record.operation_kind = message.verb
        turn.set_timer(record, "deadline", deadline_s)

    def _finish(self, turn: Turn, succeeded: bool, reason: str = "", code: str = "") -> None:
        record = self.record
        turn.cancel_timer(record, "deadline")
        if record.operation_id is not None:
            self._answer(record.operation_id, turn, succeeded, reason, code)
            record.operation_id = None
            record.operation_kind = ""
            turn.save(record)

    def _answer(
        self, operation_id: str, turn: Turn, succeeded: bool, reason: str = "", code: str = ""
    ) -> None:
        record = self.record
        if operation_id.startswith(POWER_ORDER):
            down = record.host is None and record.status in NOT_RUNNING
            verb = operation_id.removeprefix(POWER_ORDER)
            turn.send(self.cluster, m.VmPowered(record.id, record.name, down, reason, verb))
        else:
            turn.send("engine", m.OperationEnded(operation_id, succeeded, reason, code))

    def _progress(self, percent: int, reason: str, turn: Turn) -> None:
        operation_id = self.record.operation_id
        if operation_id is not None and not operation_id.startswith(POWER_ORDER):
            turn.send("engine", m.OperationProgressed(operation_id, percent, reason))

    # ------------------------------------------------------------------ its host

    def _tell_agent(self, verb: str, turn: Turn) -> None:
        record = self.record
        assert record.agent is not None, f"{self.address} is {record.status} without a host"
        turn.send(record.agent, m.CommandDomain(record.id, record.epoch, verb))  # type: ignore[arg-type]

    def _ask_host(self, turn: Turn) -> None:
        record = self.record
        if record.agent is not None:
            turn.tell(record.agent, m.QueryDomain(record.id, self.full_address, record.epoch))

    def _query(self, turn: Turn) -> None:
        """Ask now, and again until there is a definite answer."""
        self._ask_host(turn)
        turn.wake("query", turn.config.query_period_s)

    def _release(self, turn: Turn, *, failed_start: bool = False) -> None:
        record = self.record
        turn.send(self.cluster, m.ReleaseVm(record.id, record.host or "", record.epoch, failed_start))

    def _bound(self, turn: Turn) -> None:
        """A deadline for a transient status that no operation asked for, or whose operation has ended."""
        record = self.record
        if record.status in BOUNDED and "deadline" not in record.timers:
            turn.set_timer(record, "deadline", turn.config.reboot_timeout_s)

    def _is_news(self, host_epoch: int, seq: int, turn: Turn) -> bool:
        """Whether a report is newer than what is believed; then it is the newest."""
        if (host_epoch, seq) <= self.seen:
            turn.sometimes("report_out_of_order")
            return False
        self.seen = (host_epoch, seq)
        return True
