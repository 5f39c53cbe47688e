"""The `telemetry` actor: what comes in goes to history, and events are pulled from the engine in order.

It decides nothing about content; the history file decides what is new and what is a repetition. Events are pulled,
not pushed: the cursor lives in the history file itself, so a crash on either side loses and repeats nothing. One
question for a log is under way at a time, and only its answer counts. What a former life of this actor asked for may
begin beyond the cursor, and would be a gap; and if each answer that comes once more brought another question, there
would be ever more of them. Samples are acknowledged to the agent that sent them once a flush has put them on the disk;
until then it keeps them. Those that history does not take, for they came too late, are not acknowledged.
"""

from __future__ import annotations

import msgspec

from actors.behaviour import TimedRecord, Turn
from olvm.model import messages as m
from olvm.model.limits import TURNS_PER_COMMIT_MAX
from olvm.model.records import Severity

HISTORY = "history"
EVENTS_PER_PULL_MAX = 5_000
OPERATIONS_PER_PULL_MAX = 5_000

# One batch of the engine has one time, so a page of operations reaches beyond the moment that it begins with.
assert OPERATIONS_PER_PULL_MAX > TURNS_PER_COMMIT_MAX


def operation_log(source: str) -> str:
    """The name that history keeps the cursor of a silo's operations by."""
    return f"{source}/operations"


class ReportId(msgspec.Struct, frozen=True):
    """Who waits for the acknowledgement of a report, and by which number."""

    sender: str
    incarnation: int
    number: int


class StoreSamples(msgspec.Struct, frozen=True):
    """Answered, with msgpack of `report`, only if the report came so late that history did not take it."""

    payload: bytes
    report: ReportId | None = None


class StoreGuestFacts(msgspec.Struct, frozen=True):
    payload: bytes


class StoreEvents(msgspec.Struct, frozen=True):
    """Answered with the new cursor, as msgpack of an int."""

    source: str
    payload: bytes


class StoreOperations(msgspec.Struct, frozen=True):
    """Answered with the new cursor, as msgpack of an int: the end of the newest operation, ns."""

    source: str
    payload: bytes


class ReadCursor(msgspec.Struct, frozen=True):
    """Answered with how far history holds the log of `source`, as msgpack of an int."""

    source: str


class Flush(msgspec.Struct, frozen=True):
    """Commit what is buffered; answered when that is done."""


class Notice(msgspec.Struct, frozen=True):
    """What history has to tell people: the answer `notice`, an event that the telemetry actor records."""

    code: str
    message: str
    severity: Severity = "warning"
    host: str = ""
    vm_id: str = ""
    vm_name: str = ""
    details: dict[str, str | int | float | bool | None] = {}


REPORT_ID = msgspec.msgpack.Decoder(ReportId)
NOTICE = msgspec.msgpack.Decoder(Notice)


class _Log:
    """A log of the engine: how far history has it, and the question for more that was not answered yet."""

    def __init__(self) -> None:
        self.cursor = -1
        self._asked: int | None = None

    def ask(self) -> int:
        self._asked = self.cursor
        return self.cursor

    def is_answered_by(self, asked: int) -> bool:
        """Whether this answers the question; once it is answered, nothing more does."""
        if asked != self._asked:
            return False
        self._asked = None
        return True


class Telemetry:
    address = "telemetry"

    def __init__(self) -> None:
        self.events = _Log()
        self.operations = _Log()
        # By agent and its incarnation: numbers of reports that history was given, and those that the flush under way
        # was asked for after.
        self.unacknowledged: dict[tuple[str, int], dict[int, None]] = {}
        self.flushing: dict[tuple[str, int], dict[int, None]] = {}

    def timed_record(self) -> TimedRecord | None:
        return None

    def handle(self, message: m.AnyMessage, turn: Turn) -> None:
        match message:
            case m.Samples():
                report = None
                if message.number:
                    report = ReportId(turn.sender, message.incarnation, message.number)
                    sender = report.sender, report.incarnation
                    self.unacknowledged.setdefault(sender, {})[report.number] = None
                turn.call(HISTORY, StoreSamples(message.payload, report), "samples")
            case m.GuestFactsTold():
                turn.call(HISTORY, StoreGuestFacts(message.payload), "facts")
            case m.EventsTold():
                if self.events.is_answered_by(message.after_seq):
                    self._take(StoreEvents(message.source, message.payload), "events", "pull", turn)
            case m.OperationsTold():
                if self.operations.is_answered_by(message.from_ns):
                    request = StoreOperations(message.source, message.payload)
                    self._take(request, "operations", "pull_operations", turn)
            case m.CallEnded():
                self._on_call_ended(message, turn)
            case m.TimerFired():
                self._on_timer(message.name, turn)
            case m.Recovered():
                turn.call(HISTORY, ReadCursor("engine"), "cursor")
                turn.call(HISTORY, ReadCursor(operation_log("engine")), "operations_cursor")
                turn.wake("flush", turn.config.history_flush_period_s)
            case _:
                raise AssertionError(f"telemetry cannot handle {type(message).__name__}")

    def _take(self, page: StoreEvents | StoreOperations, tag: str, timer: str, turn: Turn) -> None:
        """A page that is empty is asked for again later."""
        if page.payload:
            turn.call(HISTORY, page, tag)
        else:
            turn.wake(timer, turn.config.events_pull_period_s)

    def _on_timer(self, name: str, turn: Turn) -> None:
        match name:
            case "pull":
                self._pull(turn)
            case "pull_operations":
                self._pull_operations(turn)
            case "flush":
                self._begin_flush(turn)
                turn.wake("flush", turn.config.history_flush_period_s)
            case _:
                raise AssertionError(f"telemetry has no timer {name}")

    def _on_call_ended(self, message: m.CallEnded, turn: Turn) -> None:
        if message.tag in ("cursor", "events") and message.ok:
            self.events.cursor = msgspec.msgpack.decode(message.value, type=int)
            self._pull(turn)
        elif message.tag in ("cursor", "events"):
            turn.wake("pull", turn.config.events_pull_period_s)
        elif message.tag in ("operations_cursor", "operations"):
            self._on_operations(message, turn)
        elif message.tag == "samples" and message.ok:
            self._came_too_late(REPORT_ID.decode(message.value))
        elif message.tag == "notice":
            notice = NOTICE.decode(message.value)
            turn.record(
                notice.code,
                notice.message,
                notice.severity,
                host=notice.host,
                vm_id=notice.vm_id,
                vm_name=notice.vm_name,
                details=notice.details,
            )
        elif message.tag == "flush" and message.ok:
            flushed, self.flushing = self.flushing, {}
            for (sender, incarnation), numbers in flushed.items():
                if numbers:
                    turn.tell(sender, m.SamplesStored(incarnation, list(numbers)))

    def _came_too_late(self, report: ReportId) -> None:
        """It is not on the disk: its agent, which has sent many since, has dropped it and tells of that."""
        for numbers_by_sender in (self.unacknowledged, self.flushing):
            numbers_by_sender.get((report.sender, report.incarnation), {}).pop(report.number, None)

    def _on_operations(self, message: m.CallEnded, turn: Turn) -> None:
        """A page that history knew already is the end of what there is."""
        log = self.operations
        cursor = msgspec.msgpack.decode(message.value, type=int) if message.ok else log.cursor
        if cursor == log.cursor:
            turn.wake("pull_operations", turn.config.events_pull_period_s)
        else:
            log.cursor = cursor
            self._pull_operations(turn)

    def _pull_operations(self, turn: Turn) -> None:
        turn.tell("operations@engine", m.PullOperations(self.operations.ask(), OPERATIONS_PER_PULL_MAX))
        turn.wake("pull_operations", 10 * turn.config.events_pull_period_s)  # as in `_pull`

    def _begin_flush(self, turn: Turn) -> None:
        """What an earlier flush that failed was to acknowledge, this one does."""
        for sender, numbers in self.unacknowledged.items():
            self.flushing.setdefault(sender, {}).update(numbers)
        self.unacknowledged = {}
        turn.call(HISTORY, Flush(), "flush")

    def _pull(self, turn: Turn) -> None:
        turn.tell("events@engine", m.PullEvents(self.events.ask(), EVENTS_PER_PULL_MAX))
        # If the question or its answer is lost, ask again; an answer in between moves this timer.
        turn.wake("pull", 10 * turn.config.events_pull_period_s)
