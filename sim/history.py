"""History in a simulated world: the disk of the telemetry silo, what a life of that silo has in memory, and the feeds.

The actor, its port, the agents' spools and the engine's feeds are the product. What is not is the file:
`SimulatedHistory` stands for `olvm.history.store.HistoryStore`, and is as weak as that may be. What is buffered is lost
with the process. Some of it is put on the disk before anybody asks. A commit that fails may have worked.

It keeps reports as they came and rolls nothing up; no question is asked of it.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from random import Random
from typing import Literal, cast

from actors.event_feed import EventFeed
from actors.history_port import HistoryPort
from actors.operation_feed import OperationFeed
from actors.silo_ports import Records
from actors.wire import ENGINE_SILO, TELEMETRY_SILO, decode_envelope, decode_frame
from olvm.history.guest_rows import GuestFacts
from olvm.history.host_clocks import OddClock
from olvm.history.log_cursors import LogCursors
from olvm.history.reports import ReportWindows, Verdict
from olvm.history.rows import ConfigurationChange
from olvm.history.samples import decode_batch
from olvm.journal.port import Batch
from olvm.model import messages as m
from olvm.model.errors import JournalUnwritable
from olvm.model.records import EventRecord, OperationRecord
from olvm.model.table import QueryResult
from sim.clock import Timeline
from sim.hearing import Hearing
from sim.network import Link, stream
from sim.oracles.oracle import ReportName, report_name
from sim.plant import ProcessScheduler
from sim.processes import Process, Processes

# Of reports that come: after so many all that is buffered is committed unasked, and after as many those of one kind.
EARLY_PER_10K = 100
READ_S_MAX = 0.05  # a page that comes from the engine's file and not from its memory


class HistoryDisk:
    """What the file holds; it outlives its processes. `hearing` is told of all that comes to it."""

    def __init__(self, hearing: Hearing) -> None:
        self.reports: dict[ReportName, bytes] = {}
        self.events: dict[tuple[str, int], EventRecord] = {}
        self.operations: dict[str, OperationRecord] = {}
        self.guests: dict[str, GuestFacts] = {}
        self.cursors: dict[str, int] = {}
        self.is_broken = False
        self._hearing = hearing

    def write_reports(self, reports: dict[ReportName, bytes]) -> None:
        for name, payload in reports.items():
            self._hearing.report_stored(name, payload)
            self.reports[name] = payload

    def write_rows(self, rows: _Rows, cursors: dict[str, int]) -> None:
        """One transaction. What is known by its key is left as it is, as the tables of the file have it."""
        for key, event in rows.events.items():
            if key not in self.events:
                self._hearing.event_stored(key[0], event)
                self.events[key] = event
        for operation in rows.operations.values():
            if operation.id not in self.operations:
                self._hearing.operation_stored(operation)
                self.operations[operation.id] = operation
        self.guests |= rows.guests
        self.cursors = dict(cursors)


class _Rows:
    """All that is buffered and is no report."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, int], EventRecord] = {}
        self.operations: dict[str, OperationRecord] = {}
        self.guests: dict[str, GuestFacts] = {}


class SimulatedHistory:
    """Implements `olvm.history.port.History`: one life of it. `draw` gives a number below its argument."""

    clock_ahead_ns = 0
    is_behind = False

    def __init__(self, disk: HistoryDisk, draw: Callable[[int], int], marks: list[str]) -> None:
        self._disk = disk
        self._draw = draw
        self._marks = marks
        self._reports: dict[ReportName, bytes] = {}
        self._rows = _Rows()
        self._logs = LogCursors()
        self._logs.read(disk.cursors)
        self._has_failed = False
        self._windows = ReportWindows()
        for name in disk.reports:
            self._windows.judge(*name)

    @property
    def buffered_count(self) -> int:
        return len(self._reports)

    def add_samples(self, payload: bytes, now_ns: int | None = None) -> Verdict | Literal["expired"]:
        del now_ns
        batch = decode_batch(payload)
        name = report_name(batch)
        verdict = self._windows.judge(*name)
        if verdict == "repeated":
            self._marks.append("report_came_again")
        if verdict == "accepted":
            self._reports[name] = payload
            self._commit_early(batch.kind)
        return verdict

    def _commit_early(self, kind: str) -> None:
        """As when many wait, or those of one kind fill a row group."""
        drawn = self._draw(10_000)
        if drawn < EARLY_PER_10K:
            self.commit()
        elif drawn < 2 * EARLY_PER_10K:
            self._write({name: payload for name, payload in self._reports.items() if name[0] == kind})

    def add_guest_facts(self, facts: Iterable[GuestFacts]) -> None:
        for told in facts:
            known = self._rows.guests.get(told.vm_id) or self._disk.guests.get(told.vm_id)
            if known is None or told.told_ns >= known.told_ns:
                self._rows.guests[told.vm_id] = told

    def add_events(self, source: str, events: Iterable[EventRecord], *, first_kept_seq: int = 1) -> int:
        for event in self._logs.new_events(source, events, first_kept_seq, 1 << 30):
            self._rows.events[source, event.seq] = event
        return self._logs.taken[source]

    def add_operations(self, operations: Iterable[OperationRecord], log: str = "engine/operations") -> int:
        for operation in self._logs.new_operations(log, operations, 1 << 30):
            self._rows.operations[operation.id] = operation
        return self._logs.taken[log]

    def add_configuration(self, changes: Iterable[ConfigurationChange]) -> None:
        """What an event says of an object; the event itself is kept."""
        for _ in changes:
            pass

    def event_cursor(self, source: str) -> int:
        return self._logs.committed.get(source, 0)

    def commit(self) -> None:
        self._write(dict(self._reports))

    def _write(self, reports: dict[ReportName, bytes]) -> None:
        """One transaction, of these and of all that is no report, or `JournalUnwritable`."""
        if self._has_failed:  # the file is opened anew, and what it turns out to hold is not stored twice
            self._has_failed = False
            for name in self._reports.keys() & self._disk.reports.keys():
                del self._reports[name]
                reports.pop(name, None)
        is_broken = self._disk.is_broken
        if not is_broken or self._draw(2):
            self._disk.write_reports(reports)
            self._disk.write_rows(self._rows, self._logs.taken)
        if is_broken:
            self._has_failed = True
            self._marks.append("history_refused")
            raise JournalUnwritable("history cannot be written: its disk takes nothing; try again later")
        for name in reports:
            del self._reports[name]
        self._rows = _Rows()
        self._logs.commit()

    def maintain(self, now_ns: int, elapsed_ns: int | None = None) -> int:
        del now_ns, elapsed_ns
        self.commit()
        return 0

    def query(self, sql: str, parameters: tuple[object, ...] = ()) -> QueryResult:
        """Only the notices ask, of what nobody could believe: simulated agents tell nothing of the kind."""
        del sql, parameters
        return QueryResult(columns=[], types=[], rows=[])

    def take_dropped(self) -> tuple[int, int, int] | None:
        return None

    def take_odd_clocks(self) -> list[OddClock]:
        return []


class Histories:
    """The history of one world: gives each life of the telemetry silo its memory, and each engine its feeds."""

    def __init__(self, timeline: Timeline, processes: Processes, seed: int) -> None:
        self.hearing = Hearing()
        self.disk = HistoryDisk(self.hearing)
        self.now: SimulatedHistory | None = None
        self._timeline = timeline
        self._processes = processes
        self._drawn: Random = stream(seed, "history")
        # What the engine's file has of its two logs.
        self._events: list[EventRecord] = []
        self._ended: list[OperationRecord] = []
        self._ended_ids: set[str] = set()
        self._feeds: tuple[EventFeed, OperationFeed] | None = None

    def begin(self) -> None:
        """From now on what the engine commits and what passes the wire is heard: where there is a telemetry silo."""
        self._processes.committed.append(self._engine_committed)
        self._processes.overheard = self._overhear

    def plug(self, process: Process) -> None:
        """A new life of the telemetry silo."""
        if self.now is not None and self.now.buffered_count:
            self._processes.marks.append("history_lost_what_it_had_in_memory")
        self.now = SimulatedHistory(self.disk, self._drawn.randrange, self._processes.marks)
        process.silo.ports["history"] = HistoryPort(process.silo, self.now, process.clock.now_ns)

    def plug_engine(self, process: Process) -> None:
        clock = self._processes.clock_of(ENGINE_SILO)
        scheduler = ProcessScheduler(process, clock, self._timeline)
        drawn = stream(self._drawn.getrandbits(32), "reads")

        def submit(read: Callable[[], None]) -> None:
            self._timeline.after(READ_S_MAX * drawn.random(), lambda: scheduler.when_it_runs(read))

        self._feeds = (
            EventFeed(process.silo, submit, lambda after, most: self._events[after : after + most]),
            OperationFeed(process.silo, submit, self._ended_from),
        )

    def on_committed(self, saved: Records, events: list[EventRecord]) -> None:
        """What the gateway of an engine tells its feeds."""
        if self._feeds is not None:
            for record in cast("dict[str, OperationRecord]", saved.get(OperationRecord, {})).values():
                if record.finished_ns is not None:
                    self._feeds[1].committed(record)
            self._feeds[0].committed(events)

    # ------------------------------------------------------------------ what the engine's file has

    def _engine_committed(self, silo: str, batch: Batch) -> None:
        if silo != ENGINE_SILO:
            return
        for event in cast("dict[str, EventRecord]", batch.upserts.get(EventRecord, {})).values():
            self._events.append(event)
            if event.code == "samples_dropped":
                self._processes.marks.append("agent_dropped_samples")
        for row in cast("dict[str, OperationRecord]", batch.upserts.get(OperationRecord, {})).values():
            if row.finished_ns is not None and row.id not in self._ended_ids:
                self._ended_ids.add(row.id)
                bisect.insort(self._ended, row, key=_end_of)

    def _ended_from(self, from_ns: int, count_max: int) -> list[OperationRecord]:
        first = bisect.bisect_left(self._ended, (from_ns, ""), key=_end_of)
        return self._ended[first : first + count_max]

    # ------------------------------------------------------------------ what passes the wire

    def _overhear(self, link: Link, data: bytes) -> None:
        for told in decode_frame(data).volatile:
            envelope = decode_envelope(told)
            match envelope.message:
                case m.Samples(payload, incarnation, number) if link.to == TELEMETRY_SILO and number:
                    self.hearing.samples_sent(envelope.sender, incarnation, number, payload)
                case m.SamplesStored(incarnation, numbers):
                    self.hearing.samples_acknowledged(envelope.to, incarnation, numbers)


def _end_of(operation: OperationRecord) -> tuple[int, str]:
    return operation.finished_ns or 0, operation.id
