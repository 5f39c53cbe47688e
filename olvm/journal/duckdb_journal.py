"""The journal as one DuckDB file with one writer: group commit through kept appenders.

Rules:
- One transaction a batch, whose rows `row_writer` brings into the tables.
- An acknowledgement is a row without payload, appended with the messages; the messages that it makes garbage
  are deleted in bulk by `maintain`.
- After a failed commit the file is asked what it holds: nothing is assumed of a connection that had an error.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import duckdb

from olvm.journal import duckdb_file, migrations
from olvm.journal.compaction import TURNS_PER_FOLD_MAX, drop_acknowledged, drop_oldest, fold_turns
from olvm.journal.port import Batch, Outgoing, Position, Recovered, assert_batch_fits
from olvm.journal.read_only import TIMEOUT_S, ReadOnlyQueries, one_line
from olvm.journal.record_table import RecordTable, Row, quoted
from olvm.journal.row_writer import RowWriter
from olvm.model.errors import JournalCorrupt, JournalError, JournalUnwritable
from olvm.model.limits import SQL_ROWS_MAX
from olvm.model.record import Record
from olvm.model.table import QueryResult
from olvm.stopping import Stop

JOURNAL_ROWS_MAX: Final = 1_000_000

# A log of this size is replayed in about 0.2 s at the next start; writing it into the file takes about as
# long.
CHECKPOINT_WAL_BYTES: Final = 32 * 1024 * 1024

# Acknowledged messages that may lie in the outbox before they are deleted.
OUTBOX_GARBAGE_MAX: Final = 20_000

ROWS_PER_FETCH: Final = 2_000

_MARKS: Final = "select destination, max(seq) from outbox where payload is null group by destination"
_GARBAGE: Final = f"""
    with marks (destination, acknowledged) as ({_MARKS})
    select count(*) from outbox join marks using (destination) where seq <= acknowledged
"""  # noqa: S608 - our own words
_WAITING: Final = (
    "select destination, seq, payload from outbox where payload is not null order by destination, seq"
)


class DuckDbJournal:
    """Implements `olvm.journal.port.Journal`. Made by `open`."""

    def __init__(self, path: Path, tables: Sequence[RecordTable], *, settings: dict[str, int | bool]) -> None:
        self.path = path
        self._wal_path = path.with_name(path.name + ".wal")
        self._table_by_type = {table.record_type: table for table in tables}
        self._append_only = frozenset(table.name for table in tables if table.is_append_only)
        self._fsync = bool(settings["fsync"])
        self._threads = int(settings["threads"])
        self._is_read_only = bool(settings["read_only"])
        self._rows_max = int(settings["journal_rows_max"])
        self._checkpoint_wal_bytes = int(settings["checkpoint_wal_bytes"])
        self._garbage_max = int(settings["outbox_garbage_max"])
        self._journal_id = ""
        self._last_seq = 0
        self._rows = 0
        self._is_folding = False
        self._acknowledged: dict[str, int] = {}
        self._garbage = 0
        # None while the file is closed: after `close`, or after an error that only a fresh start can clear.
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._row_writer: RowWriter | None = None
        self._queries: ReadOnlyQueries | None = None
        self._token: str | None = duckdb_file.hold(path)

    @classmethod
    def open(
        cls,
        path: Path | str,
        record_types: Sequence[type[Record]],
        *,
        journal_id: str,
        now_ns: Callable[[], int],
        fsync: bool = True,
        threads: int = 1,
        read_only: bool = False,
        journal_rows_max: int = JOURNAL_ROWS_MAX,
        checkpoint_wal_bytes: int = CHECKPOINT_WAL_BYTES,
        outbox_garbage_max: int = OUTBOX_GARBAGE_MAX,
    ) -> DuckDbJournal:
        """Open or create the file. `journal_id` names a new one; an existing one keeps its own.

        Raises:
            JournalLocked, JournalCorrupt, JournalUnwritable; JournalError for a file of a newer release.
        """
        assert journal_rows_max >= 2
        settings: dict[str, int | bool] = {
            "fsync": fsync,
            "threads": threads,
            "read_only": read_only,
            "journal_rows_max": journal_rows_max,
            "checkpoint_wal_bytes": checkpoint_wal_bytes,
            "outbox_garbage_max": outbox_garbage_max,
        }
        journal = cls(Path(path), [RecordTable(one) for one in record_types], settings=settings)
        try:
            journal._connect(migrations.Identity(journal_id, _olvm_version(), now_ns()))
        except BaseException:
            journal.close()
            raise
        return journal

    # ------------------------------------------------------------------ opening

    def _connect(self, identity: migrations.Identity) -> None:
        connection = duckdb_file.connect(
            self.path, fsync=self._fsync, threads=self._threads, read_only=self._is_read_only
        )
        try:
            if self._is_read_only:
                migrations.check_version(connection, str(self.path))
                self._journal_id = migrations.read_meta(connection)["journal_id"]
            else:
                tables = list(self._table_by_type.values())
                self._journal_id = migrations.open_schema(connection, str(self.path), tables, identity)
            self._read_position(connection)
        except duckdb.Error as error:
            connection.close()
            raise self._explained(error) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._row_writer = RowWriter(connection)
        self._queries = ReadOnlyQueries(connection)

    def _read_position(self, connection: duckdb.DuckDBPyConnection) -> None:
        row = connection.execute("select coalesce(max(seq), 0), count(*) from journal").fetchone()
        assert row is not None
        self._last_seq, self._rows = row
        self._acknowledged = dict(connection.execute(_MARKS).fetchall())
        garbage = connection.execute(_GARBAGE).fetchone()
        assert garbage is not None
        self._garbage = garbage[0]

    def _drop_connection(self) -> None:
        for resource in (self._row_writer, self._queries, self._connection):
            if resource is not None:
                # What cannot be closed cleanly is what we are here to get rid of.
                with contextlib.suppress(duckdb.Error):
                    resource.close()
        self._row_writer = None
        self._queries = None
        self._connection = None

    def _writer(self) -> duckdb.DuckDBPyConnection:
        """The connection, reopened where an earlier error cost us the last one."""
        if self._connection is None:
            if self._token is None:
                raise JournalError(f"journal {self.path} is closed; open it again")
            told_seq = self._last_seq
            self._connect(migrations.Identity(self._journal_id, _olvm_version(), 0))
            if self._last_seq != told_seq:
                raise JournalError(
                    f"journal {self.path} holds turn {self._last_seq} after a failed commit, and {told_seq} "
                    "was told; recover the silo from it"
                )
        assert self._connection is not None
        return self._connection

    # ------------------------------------------------------------------ the port

    def recover(self) -> Recovered:
        connection = self._writer()
        shared: dict[str, str] = {}
        try:
            records = {
                record_type: {}
                if table.is_append_only
                else table.decode_all(_rows_of(connection.execute(table.recover_sql())), shared)
                for record_type, table in self._table_by_type.items()
            }
            waiting = connection.execute(_WAITING).fetchall()
            newest = connection.execute("select at_ns from journal order by seq desc limit 1").fetchone()
            next_event_seq = 1 + max(
                [0, *(self._last_event_seq(connection, name) for name in self._append_only)]
            )
        except duckdb.Error as error:
            raise self._explained(error) from error
        acknowledged = dict(self._acknowledged)
        return Recovered(
            records=records,
            outgoing=[Outgoing(*row) for row in waiting if row[1] > acknowledged.get(row[0], 0)],
            next_turn_seq=self._last_seq + 1,
            last_at_ns=0 if newest is None else int(newest[0]),
            next_event_seq=next_event_seq,
            acknowledged=acknowledged,
            journal_id=self._journal_id,
        )

    def commit(self, batch: Batch) -> None:
        if self._is_read_only:
            raise JournalUnwritable(f"journal {self.path} was opened read-only; open it for writing")
        connection = self._writer()
        assert_batch_fits(batch, self._last_seq, list(self._table_by_type))
        news = {
            destination: seq
            for destination, seq in batch.acknowledged.items()
            if seq > self._acknowledged.get(destination, 0)
        }
        # Encoded before the transaction: a record that is no row is the programmer's fault, and touches
        # nothing.
        rows = {
            record_type: self._encoded(self._table_by_type[record_type], records)
            for record_type, records in batch.upserts.items()
        }
        writer = self._row_writer
        assert writer is not None
        try:
            connection.begin()
            writer.append("journal", migrations.TURN_COLUMNS, batch.turns)
            writer.append(
                "outbox",
                migrations.OUTBOX_COLUMNS,
                [*batch.outgoing, *((*one, None) for one in news.items())],
            )
            for record_type in {**batch.upserts, **batch.erasures}:
                table = self._table_by_type[record_type]
                writer.write(table, rows.get(record_type, {}), batch.erasures.get(record_type, ()))
            connection.commit()
        except duckdb.Error as error:
            self._settle_failed_commit(batch, error)
        except BaseException:
            # Interrupted at an unknown point: the next call starts from what the file says.
            self._drop_connection()
            raise
        self._count(batch, news)

    def maintain(self) -> bool:
        if self._is_read_only:
            return False
        connection = self._writer()
        is_fold_due = self._rows > self._rows_max // 2 if self._is_folding else self._rows > self._rows_max
        is_log_long = self._wal_bytes() >= self._checkpoint_wal_bytes
        is_garbage_due = self._garbage > self._garbage_max
        try:
            if is_garbage_due:
                drop_acknowledged(connection, self._acknowledged)
                self._garbage = 0
            if is_fold_due:
                self._fold(connection)
            if is_log_long:
                connection.checkpoint()
        except duckdb.Error as error:
            self._drop_connection()
            raise self._explained(error) from error
        return is_garbage_due or is_fold_due or is_log_long

    def query(
        self,
        sql: str,
        params: Sequence[object] = (),
        *,
        row_count_max: int = SQL_ROWS_MAX,
        timeout_s: float = TIMEOUT_S,
        stop: Stop | None = None,
    ) -> QueryResult:
        queries = self._queries
        if queries is None:
            raise JournalError(f"journal {self.path} is not open; open it again, or commit to reopen it")
        return queries.run(sql, params, row_count_max=row_count_max, timeout_s=timeout_s, stop=stop)

    def position(self) -> Position:
        return Position(
            seq=self._last_seq, journal_rows=self._rows, file_bytes=_size(self.path) + self._wal_bytes()
        )

    def close(self) -> None:
        self._drop_connection()
        token, self._token = self._token, None
        if token is not None:
            duckdb_file.release(token)

    # ------------------------------------------------------------------ writing

    @staticmethod
    def _encoded(table: RecordTable, records: Mapping[str, Record]) -> dict[str, Row]:
        return {key: table.encode(record) for key, record in records.items()}

    def _settle_failed_commit(self, batch: Batch, error: duckdb.Error) -> None:
        """Raise what is to be told of a commit that failed; return where the file says that it succeeded."""
        connection, writer = self._connection, self._row_writer
        assert connection is not None
        assert writer is not None
        writer.close()
        self._row_writer = RowWriter(connection)
        try:
            with contextlib.suppress(duckdb.TransactionException):
                connection.rollback()
            found = connection.execute("select coalesce(max(seq), 0) from journal").fetchone()
        except duckdb.Error:
            found = None
        if found != (self._last_seq,):
            # The instance is unusable, so the log decides: an error after the last byte was written is a
            # success.
            told_seq = self._last_seq
            self._drop_connection()
            with contextlib.suppress(JournalError):
                self._connect(migrations.Identity(self._journal_id, _olvm_version(), 0))
            if batch.turns and self._connection is not None and self._last_seq == batch.turns[-1].seq:
                self._last_seq, self._rows = told_seq, self._rows - len(batch.turns)
                return
        raise self._explained(error) from error

    def _count(self, batch: Batch, news: dict[str, int]) -> None:
        self._last_seq += len(batch.turns)
        self._rows += len(batch.turns)
        for destination, seq in news.items():
            # One for the mark; sequences have no gaps, so the step is the number of messages set free.
            self._garbage += 1 + seq - self._acknowledged.get(destination, 0)
            self._acknowledged[destination] = seq

    def _fold(self, connection: duckdb.DuckDBPyConnection) -> None:
        excess = self._rows - self._rows_max // 2
        count = min(excess, TURNS_PER_FOLD_MAX)
        fold_turns(connection, self._last_seq - self._rows + count, self._append_only)
        self._rows -= count
        self._is_folding = count < excess
        for record_type in self._table_by_type:
            if record_type.ROWS_KEPT_MAX and not self._is_folding:
                drop_oldest(connection, record_type, max(record_type.ROWS_KEPT_MAX, self._rows_max))
                assert self._row_writer is not None
                self._row_writer.forget_rows()

    # ------------------------------------------------------------------ small questions

    def _last_event_seq(self, connection: duckdb.DuckDBPyConnection, table: str) -> int:
        columns = next(one.column_names for one in self._table_by_type.values() if one.name == table)
        if "seq" not in columns:
            return 0
        row = connection.execute(f"select coalesce(max(seq), 0) from {quoted(table)}").fetchone()  # noqa: S608 - own
        assert row is not None
        return int(row[0])

    def _wal_bytes(self) -> int:
        return _size(self._wal_path)

    def _explained(self, error: duckdb.Error) -> JournalError:
        text = one_line(error)
        if "Corrupt" in text or "checksum" in text or isinstance(error, duckdb.SerializationException):
            return JournalCorrupt(f"journal {self.path} is damaged: {text}; restore it from a backup")
        if isinstance(error, duckdb.OperationalError | duckdb.FatalException | duckdb.InternalError):
            return JournalUnwritable(
                f"journal {self.path} cannot be written: {text}; free space on its file system, then try "
                "again"
            )
        return JournalError(
            f"journal {self.path} refused a statement: {text}; this is a fault of olvm, report it"
        )


def _rows_of(answer: duckdb.DuckDBPyConnection) -> Iterator[Row]:
    """Rows in portions, so that a large table is never held twice."""
    while rows := answer.fetchmany(ROWS_PER_FETCH):
        yield from rows


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _olvm_version() -> str:
    try:
        return importlib.metadata.version("olvm")
    except importlib.metadata.PackageNotFoundError:
        return "unpackaged"
