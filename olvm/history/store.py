"""HistoryStore: the one writer of history.duckdb.

Decides what is buffered, when it is committed, what a repeated message does and what a full disk costs. It
knows no actor and no clock: time comes with the data, and `maintain` is told the hour.

Rules:
1. What `commit` has returned for is on disk. What is not stays buffered and is tried again by the next commit; after a
   fault the file is opened anew and what it turns out to hold is not stored twice.
2. Buffers are bounded. Past the bound the oldest samples go, and are counted; events are to be sent again.
3. A report is counted once (`olvm.history.reports`), an event is stored once, by id.
4. Events of one source are taken in sequence, without a gap.
5. One thread writes. `query` may be called from others.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import duckdb

from olvm.history import archive, transaction, upkeep
from olvm.history.bounds import (
    LOG_FOLDED_BYTES,
    NS_PER_S,
    QUERY_ROWS_MAX,
    QUERY_TIMEOUT_S,
    ROWS_BUFFERED_MAX,
    ROWS_PER_COMMIT,
    SAMPLES_BUFFERED_MAX,
    SAMPLES_KEPT_S,
    SAMPLES_PER_COMMIT,
    TEXTS_MAX,
)
from olvm.history.columns import KeyedBatch
from olvm.history.counters import HistoryCounters
from olvm.history.export import export, sync_tree
from olvm.history.guest_rows import GUEST_FACTS, GuestFacts, guest_facts_row
from olvm.history.host_clocks import HostClocks, OddClock
from olvm.history.log_cursors import LogCursors
from olvm.history.opening import bound_question, connect, typed_error
from olvm.history.reader import Parameters, RunningQuestions, run_query, show_snapshots
from olvm.history.report_buffer import ReportBuffer
from olvm.history.report_keys import ReportKeys
from olvm.history.reports import ReportWindows, Verdict
from olvm.history.rollups import Due, due_of, read_due, write_due
from olvm.history.row_table import Row, RowTable, storable
from olvm.history.rows import (
    CONFIGURATION,
    EVENTS,
    OPERATIONS,
    ROW_TABLES,
    ConfigurationChange,
    configuration_row,
    event_row,
    operation_row,
)
from olvm.history.samples import decode_batch
from olvm.model.client_protocol import Exported, ExportHistory
from olvm.model.errors import BadQuery, JournalLocked, JournalUnwritable
from olvm.model.records import EventRecord, OperationRecord
from olvm.model.table import QueryResult
from olvm.stopping import Stop

# DuckDB shares one instance between connections of a process, so its lock does not tell two stores apart.
_paths_open: set[Path] = set()


class HistoryStore:
    """See the module. Use `open`."""

    def __init__(
        self, path: Path, snapshot_directory: Path, *, thread_count: int, samples_kept_s: float
    ) -> None:
        self.path = path
        self.counters = HistoryCounters()
        self._snapshot_directory = snapshot_directory
        self._thread_count = thread_count
        self._samples_kept_ns = int(samples_kept_s * NS_PER_S)
        self._archive_directory = archive.archive_directory(path)
        self._con: duckdb.DuckDBPyConnection | None = None
        self._questions = RunningQuestions()
        self.clock_ahead_ns = 0  # in the last pass of `maintain`: of the time that erasing goes by
        self.is_behind = False  # the last pass of `maintain` has left work that can be done now
        self._due: set[Due] = set()  # hours to be rolled up, as the file has them
        self._horizon_ns = 0  # samples older than this were erased
        self._first_open_ns = 0  # a report from before it is not judged
        self._windows = ReportWindows()
        self._keys = ReportKeys()
        self._clocks = HostClocks()
        self._reports = ReportBuffer()
        self._next_try_sample_count = SAMPLES_PER_COMMIT
        # Keyed by primary key: within one commit each row of a table occurs once.
        self._rows: dict[str, dict[tuple[Any, ...], Row]] = {table.name: {} for table in ROW_TABLES}
        self._next_try_row_count = ROWS_PER_COMMIT
        self._dropped: tuple[int, int, int] | None = None
        self._logs = LogCursors()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        snapshot_directory: str | os.PathLike[str] | None = None,
        thread_count: int = 1,
        samples_kept_s: float = SAMPLES_KEPT_S,
    ) -> Self:
        """Open or create the file.

        Args:
            snapshot_directory: the only place that a question may read files from; the file's own by default.

        Raises:
            JournalLocked, JournalCorrupt, JournalUnwritable, or JournalError for a newer schema.
        """
        file = Path(path).resolve()
        if file in _paths_open:
            raise JournalLocked(
                f"history file {file} cannot be opened: this process ({os.getpid()}) has it open"
            )
        directory = Path(snapshot_directory).resolve() if snapshot_directory is not None else file.parent
        store = cls(file, directory, thread_count=thread_count, samples_kept_s=samples_kept_s)
        store._connect()
        _paths_open.add(file)
        return store

    # ------------------------------------------------------------ writing

    def add_samples(self, payload: bytes, now_ns: int | None = None) -> Verdict | Literal["expired"]:
        """Buffer one encoded report, and commit when enough are buffered: all, or those that fill row groups.

        `now_ns`: history's own time, for `take_odd_clocks`; None: hosts' times are not looked at.

        Raises `BadInput` for bytes that are no report (nothing is kept of it), `JournalUnwritable` if the
        commit failed (the report is buffered).
        """
        batch = decode_batch(payload)
        if batch.at_ns < self._first_open_ns:
            self.counters.expired_report_count += 1
            if now_ns is not None:
                self._clocks.note_expired(batch.host, now_ns - batch.at_ns)
            return "expired"
        keyed = self._keys.keyed(batch)
        self.counters.refused_text_count = self._keys.texts.refused_count
        verdict = self._windows.judge(batch.kind, batch.host, batch.host_epoch, batch.seq)
        if verdict == "repeated":
            self.counters.repeated_report_count += 1
        elif verdict == "late":
            self.counters.late_report_count += 1
        else:
            if now_ns is not None:
                self._clocks.note_ahead(batch.host, batch.at_ns - now_ns)
            may_fill = self._reports.add(keyed)
            if self._reports.row_count > SAMPLES_BUFFERED_MAX:
                self._drop_oldest_samples()
            if self._reports.row_count >= self._next_try_sample_count:
                self.commit()
            elif may_fill and self._next_try_sample_count == SAMPLES_PER_COMMIT:  # no commit has failed
                self._commit_filling(self._con or self._connect())
        return verdict

    def add_events(self, source: str, events: Iterable[EventRecord], *, first_kept_seq: int = 1) -> int:
        """Buffer events of one source in sequence; what was taken before, or comes after a gap, is left out.

        Args:
            first_kept_seq: the source has erased everything before it, so a gap up to there is no fault.

        Returns:
            The sequence number taken so far: ask the source for what follows it. After a restart ask for what
            follows `event_cursor`.
        """
        rows = self._rows[EVENTS.name]
        for event in self._logs.new_events(source, events, first_kept_seq, ROWS_BUFFERED_MAX - len(rows)):
            row = storable(event_row(source, event))
            rows.setdefault(EVENTS.key_of(row), row)
        self._commit_if_many_rows()
        return self._logs.taken[source]

    def event_cursor(self, source: str) -> int:
        """The last sequence number of this source that is on disk; 0 if none."""
        return self._logs.committed.get(source, 0)

    def add_configuration(self, changes: Iterable[ConfigurationChange]) -> None:
        """Buffer versions of objects; one that is known, by object and `valid_from_ns`, is stored once."""
        self._buffer(CONFIGURATION, map(configuration_row, changes))

    def add_guest_facts(self, facts: Iterable[GuestFacts]) -> None:
        """Buffer what guests told; for each VM the newest by `told_ns` is kept."""
        newest_by_vm_id: dict[str, GuestFacts] = {}
        for told in facts:
            known = newest_by_vm_id.setdefault(told.vm_id, told)
            if told.told_ns >= known.told_ns:
                newest_by_vm_id[told.vm_id] = told
        buffered = self._rows[GUEST_FACTS.name]
        for row in map(storable, map(guest_facts_row, newest_by_vm_id.values())):
            waiting = buffered.get(row[:1])
            if waiting is None or row[1] >= waiting[1]:
                buffered[row[:1]] = row
        self._buffer(GUEST_FACTS, ())

    def add_operations(self, operations: Iterable[OperationRecord], log: str = "engine/operations") -> int:
        """Buffer operations that have ended, in the order of their ends; each is stored once.

        Returns the end of the newest taken so far of this log, ns: ask for what ended then or later. After a
        restart ask from `event_cursor`.
        """
        rows = self._rows[OPERATIONS.name]
        for operation in self._logs.new_operations(log, operations, ROWS_BUFFERED_MAX - len(rows)):
            row = storable(operation_row(operation))
            rows.setdefault(OPERATIONS.key_of(row), row)
        self._commit_if_many_rows()
        return self._logs.taken[log]

    def take_odd_clocks(self) -> list[OddClock]:
        """Hosts whose reports had times that cannot be, since this was asked last."""
        return self._clocks.take()

    def take_dropped(self) -> tuple[int, int, int] | None:
        """Sample rows dropped since this was asked last, and the times of the oldest and newest, ns."""
        dropped, self._dropped = self._dropped, None
        return dropped

    def commit(self) -> None:
        """Put everything buffered on disk: reports that fill row groups in a transaction of their own, then the rest.

        Raises `JournalUnwritable`, or another `JournalError`: then what is not on disk is still buffered.
        """
        if self._is_pending():
            con = self._con or self._connect()
            self._commit_filling(con)
            if self._is_pending():
                self._commit(con, list(self._reports))
        self._reports.pouring.clear()

    def _is_pending(self) -> bool:
        are_rows = any(self._rows.values())
        return bool(self._reports) or are_rows or self._logs.are_ahead

    def _commit_filling(self, con: duckdb.DuckDBPyConnection) -> None:
        filling = self._reports.filling()
        if filling:
            self._commit(con, filling)

    def _commit(self, con: duckdb.DuckDBPyConnection, reports: Sequence[KeyedBatch]) -> None:
        """One transaction: these reports, and everything buffered that is no sample."""
        try:
            con.execute("begin")
            transaction.write_dictionaries(con, self._keys.texts, self._keys.vms)
            clipped_count = transaction.write_samples(con, reports)
            due = due_of((keyed.batch.kind, keyed.batch.at_ns) for keyed in reports)
            write_due(con, due - self._due)
            for table in ROW_TABLES:
                transaction.write_rows(con, table, list(self._rows[table.name].values()))
            transaction.write_event_cursors(con, self._logs.taken)
            con.execute("commit")
        except duckdb.Error as error:
            self._give_up_connection()
            raise typed_error(error, self.path, "written") from error
        self._keys.committed()
        self._due |= due
        self._reports.remove(reports)
        self._next_try_sample_count = SAMPLES_PER_COMMIT
        self.counters.commit_count += 1
        self.counters.sample_count += sum(keyed.batch.row_count for keyed in reports)
        self.counters.clipped_value_count += clipped_count
        for rows in self._rows.values():
            rows.clear()
        self._next_try_row_count = ROWS_PER_COMMIT
        self._logs.commit()

    def maintain(self, now_ns: int, elapsed_ns: int | None = None) -> int:
        """Commit, roll up, move and erase what is past its time, fold a long log into the file.

        One bounded pass (`olvm.history.upkeep`): run it every few minutes, and sooner while `is_behind`. While reports
        pour in so that they fill row groups, the others go on waiting, and so do the hours that they change.

        Args:
            elapsed_ns: what has passed since the last pass, by a clock that cannot leap. Erasing then follows a clock
                that is ahead no faster than `ERASING_PACE_MAX`; without it `now_ns` is believed.

        Returns the number of sample rows erased.
        """
        if not self._reports.pouring or len(self._keys.texts) > TEXTS_MAX // 2:
            self.commit()
        con = self._con or self._connect()
        waiting = due_of((keyed.batch.kind, keyed.batch.at_ns) for keyed in self._reports)
        try:
            clock = upkeep.UpkeepClock(now_ns, elapsed_ns)
            done = upkeep.run_pass(
                con, self._archive_directory, clock, self._samples_kept_ns, self._horizon_ns, waiting
            )
            self.clock_ahead_ns = done.clock_ahead_ns
            self.counters.distrusted_clock_count += done.clock_ahead_ns > 0
            self._horizon_ns, self.is_behind = done.horizon_ns, done.is_behind
            self._first_open_ns = upkeep.first_open_ns(done.horizon_ns)
            self.counters.rolled_up_count += done.rolled_up_count
            self._due = set(read_due(con, "hourly"))
            if len(self._keys.texts) > TEXTS_MAX // 2:
                self._keys.forget_all_texts_but(transaction.erase_unused_texts(con))
            if self._log_bytes() >= LOG_FOLDED_BYTES:
                con.execute("checkpoint")
        except (duckdb.Error, OSError) as error:
            self._give_up_connection()
            raise typed_error(error, self.path, "maintained") from error
        return done.erased_count

    # ------------------------------------------------------------ reading

    def query(
        self,
        sql: str,
        parameters: Parameters = (),
        snapshots: Mapping[str, str] | None = None,
        *,
        row_count_max: int = QUERY_ROWS_MAX,
        timeout_s: float = QUERY_TIMEOUT_S,
        stop: Stop | None = None,
    ) -> QueryResult:
        """Answer one SELECT over committed history, joined with Parquet snapshots by name.

        Args:
            snapshots: view name -> Parquet file inside the snapshot directory, for this question only.
            stop: ends it from another thread; a commit that fails does, for want of memory may be why.

        Raises `BadQuery`, `BadInput` for a snapshot, `JournalUnwritable` while the file is out of reach.
        """
        stop = stop or Stop()
        with self._asking(stop) as cursor, self._questions.guarded(cursor.cursor()):
            show_snapshots(cursor, snapshots or {}, self._snapshot_directory)
            return run_query(
                cursor, sql, parameters, row_count_max=row_count_max, timeout_s=timeout_s, stop=stop
            )

    def export(self, ask: ExportHistory, directory: Path, stop: Stop) -> Exported:
        """A copy of what is committed, into an empty directory below the snapshot directory.

        Raises `BadQuery` when it was stopped, `JournalUnwritable` for a full disk.
        """
        try:
            with self._asking(stop) as cursor:
                rows = export(cursor, ask, directory, stop)
            return Exported(str(directory), rows, sync_tree(directory))
        except (duckdb.Error, OSError) as error:
            if stop.reason:
                raise BadQuery(f"the export of history was stopped: {stop.reason}") from error
            raise typed_error(error, directory, "written") from error

    def close(self) -> None:
        """Commit and close; closed even if the commit fails, with what it raised."""
        try:
            self.commit()
        finally:
            _paths_open.discard(self.path)
            self._drop_connection("history is being closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ inside

    @contextlib.contextmanager
    def _asking(self, stop: Stop) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of a question's own, in its thread. The writer can end it, and then waits for that."""
        with self._questions.running(stop):
            con = self._con  # read last: who takes it away does so first, and then ends the questions
            if con is None:
                raise JournalUnwritable(
                    f"history file {self.path} is out of reach since a fault; try again later"
                )
            with contextlib.closing(con.cursor()) as cursor:
                bound_question(cursor)
                yield cursor

    def _drop_connection(self, why: str) -> None:
        """DuckDB refuses to close a connection beside which a question runs, so those end first."""
        con, self._con = self._con, None
        if self._questions.end_all(why) and con is not None:
            con.close()  # else the last question's end closes it

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Open the file, learn what it holds, and forget what of our buffers it holds already."""
        directories = (self._snapshot_directory, self._archive_directory)
        con = connect(self.path, directories, thread_count=self._thread_count)
        try:
            archive.remove_leavings(con, self._archive_directory)
            self.counters.missing_file_count = archive.show_archive(con, self._archive_directory)
            self._due = set(read_due(con, "hourly"))
            transaction.read_dictionaries(con, self._keys.texts, self._keys.vms)
            cursors = transaction.read_event_cursors(con)
            self._horizon_ns = transaction.read_horizon_ns(con)
            self._first_open_ns = upkeep.first_open_ns(self._horizon_ns)
            if len(self._windows) == 0:
                for kind, host, epoch, seq in transaction.read_newest_reports(con):
                    self._windows.judge(kind, host, epoch, seq)
            if self._reports:
                self._forget_stored_reports(con)
        except (duckdb.Error, OSError) as error:
            con.close()
            raise typed_error(error, self.path, "read") from error
        self._logs.read(cursors)
        self._con = con
        return con

    def _forget_stored_reports(self, con: duckdb.DuckDBPyConnection) -> None:
        """A commit that failed may have reached the disk all the same; its reports tell."""
        stored = transaction.read_reports_since(con, min(keyed.batch.at_ns for keyed in self._reports))
        self._reports.remove([keyed for keyed in self._reports if _report_name(keyed) in stored])

    def _give_up_connection(self) -> None:
        """After a fault: DuckDB may have shut the instance down, so the next commit opens the file anew."""
        self.counters.failed_commit_count += 1
        self._next_try_sample_count = self._reports.row_count + SAMPLES_PER_COMMIT
        self._next_try_row_count = self._row_count() + ROWS_PER_COMMIT
        self._drop_connection("history could not be written beside it; narrow it and try again")

    def _log_bytes(self) -> int:
        log = self.path.with_name(f"{self.path.name}.wal")
        return log.stat().st_size if log.exists() else 0

    def _drop_oldest_samples(self) -> None:
        while self._reports.row_count > SAMPLES_BUFFERED_MAX:
            batch = self._reports.drop_oldest().batch
            self.counters.dropped_sample_count += batch.row_count
            count, from_ns, to_ns = self._dropped or (0, batch.at_ns, batch.at_ns)
            self._dropped = count + batch.row_count, min(from_ns, batch.at_ns), max(to_ns, batch.at_ns)

    def _buffer(self, table: RowTable, rows: Iterable[Row]) -> None:
        buffered = self._rows[table.name]
        for row in map(storable, rows):
            buffered.setdefault(table.key_of(row), row)
        while len(buffered) > ROWS_BUFFERED_MAX:
            del buffered[next(iter(buffered))]
            self.counters.dropped_row_count += 1
        self._commit_if_many_rows()

    def _row_count(self) -> int:
        return sum(map(len, self._rows.values()))

    def _commit_if_many_rows(self) -> None:
        if self._row_count() < self._next_try_row_count:
            return
        if self._reports.pouring:
            self._commit(self._con or self._connect(), self._reports.filling())
        else:
            self.commit()


def _report_name(keyed: KeyedBatch) -> transaction.ReportName:
    batch = keyed.batch
    return batch.kind, keyed.host_key, batch.host_epoch, batch.seq
