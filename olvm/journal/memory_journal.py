"""The journal as a model: the same promises as `DuckDbJournal` over a disk in memory that can fail.

A commit is one frame on a `MemoryDisk`, and recovery reads nothing but that disk, so that what the simulator
takes away (torn and lost tails, I/O errors, a full disk) is really gone. Pure: no clock, no draw, no file.
DuckDB is loaded only when someone asks with SQL.

One difference: `RECOVER_ORDER` is SQL, so here every row is recovered and not only the newest.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, cast

import msgspec

from olvm.journal.memory_disk import DiskFault, MemoryDisk
from olvm.journal.port import Batch, Outgoing, Position, Recovered, Turn, assert_batch_fits
from olvm.journal.record_table import RecordTable
from olvm.journal.replay import final_images
from olvm.model.errors import JournalCorrupt, JournalError, JournalUnwritable
from olvm.model.limits import SQL_ROWS_MAX
from olvm.model.record import Record
from olvm.model.table import QueryResult

if TYPE_CHECKING:
    from olvm.journal.read_only import ReadOnlyQueries
    from olvm.stopping import Stop

JOURNAL_ROWS_MAX: Final = 20_000

_Rows = dict[str, dict[str, bytes]]


class _Frame(msgspec.Struct, array_like=True):
    """One batch as it lies on the disk; records in msgpack, by table and key."""

    turns: list[Turn]
    upserts: _Rows
    erasures: dict[str, list[str]]
    outgoing: list[Outgoing]
    acknowledged: dict[str, int]


class _Image(msgspec.Struct, array_like=True):
    """Everything up to one point: the first frame of every disk.

    `baseline` is the rows as the turns before `turns[0]` left them; `outgoing` is what nobody acknowledged
    yet, by destination and in order.
    """

    journal_id: str
    last_seq: int = 0
    rows: _Rows = {}
    baseline: _Rows = {}
    turns: list[Turn] = []
    outgoing: dict[str, list[Outgoing]] = {}
    acknowledged: dict[str, int] = {}

    def apply(self, frame: _Frame) -> None:
        self.turns += frame.turns
        self.last_seq += len(frame.turns)
        for table, keys in frame.erasures.items():
            for key in keys:
                self.rows.setdefault(table, {}).pop(key, None)
        for table, records in frame.upserts.items():
            self.rows.setdefault(table, {}).update(records)
        for one in frame.outgoing:
            self.outgoing.setdefault(one.destination, []).append(one)
        for destination, seq in frame.acknowledged.items():
            self.acknowledged[destination] = max(seq, self.acknowledged.get(destination, 0))
        for destination in frame.acknowledged:
            self._drop_acknowledged(destination)

    def _drop_acknowledged(self, destination: str) -> None:
        waiting = self.outgoing.get(destination)
        if waiting is None:
            return
        acked_seq = self.acknowledged[destination]
        first = next((index for index, one in enumerate(waiting) if one.seq > acked_seq), len(waiting))
        del waiting[:first]
        if not waiting:
            del self.outgoing[destination]

    def copy(self) -> _Image:
        """One that may be changed without changing this one."""
        return _Image(
            self.journal_id,
            self.last_seq,
            {table: dict(records) for table, records in self.rows.items()},
            {table: dict(records) for table, records in self.baseline.items()},
            list(self.turns),
            {destination: list(waiting) for destination, waiting in self.outgoing.items()},
            dict(self.acknowledged),
        )

    def fold(self, count: int, skipped: frozenset[str]) -> None:
        """Move the oldest `count` turns into the baseline."""
        folded, self.turns = self.turns[:count], self.turns[count:]
        for (table, key), record in final_images((turn.changes for turn in folded), skipped).items():
            if record is None:
                self.baseline.setdefault(table, {}).pop(key, None)
            else:
                self.baseline.setdefault(table, {})[key] = record

    def drop_oldest(self, table: RecordTable, rows_kept_max: int) -> None:
        """As `compaction.drop_oldest`: erase the oldest rows of a table that only grows; open ones stay."""
        rows = self.rows.get(table.name, {})
        if len(rows) <= rows_kept_max:
            return
        order = table.record_type.KEPT_BY
        decode = msgspec.msgpack.Decoder(table.record_type).decode
        values = [(getattr(decode(row), order), key) for key, row in rows.items()]
        ended = sorted((value, key) for value, key in values if value is not None)
        for _, key in ended[: max(0, len(ended) - rows_kept_max)]:
            del rows[key]
            self.baseline.get(table.name, {}).pop(key, None)


class MemoryJournal:
    """Implements `olvm.journal.port.Journal`.

    Pass the `disk` of an earlier journal to recover from it; it keeps that journal's id. `rows_kept_max` bounds
    the tables that only grow more tightly than their records do.
    """

    def __init__(
        self,
        record_types: Sequence[type[Record]],
        *,
        journal_id: str,
        disk: MemoryDisk | None = None,
        journal_rows_max: int = JOURNAL_ROWS_MAX,
        rows_kept_max: int | None = None,
    ) -> None:
        assert journal_rows_max >= 2
        # A row is dropped only when its last image is in the baseline: see compaction.drop_oldest.
        assert rows_kept_max is None or rows_kept_max >= journal_rows_max
        self.disk = disk if disk is not None else MemoryDisk()
        self._types = list(record_types)
        self._tables = [_table_of(one) for one in record_types]
        self._append_only = frozenset(table.name for table in self._tables if table.is_append_only)
        self._encode = msgspec.msgpack.Encoder().encode
        self._rows_max = journal_rows_max
        self._rows_kept_max = rows_kept_max
        self._is_closed = False
        # Guards the image against queries of other threads; the writer alone changes it.
        self._lock = threading.Lock()
        self._queries: ReadOnlyQueries | None = None
        if not len(self.disk):
            self._replace_disk(_Image(journal_id))
        self._image = self._read_disk()

    # ------------------------------------------------------------------ the port

    def differences(self) -> list[str]:
        """What `olvm.journal.replay.verify` would say, without SQL: rule 3 of the port, on this journal's image."""
        image = self._image.copy()
        first_seq = image.turns[0].seq if image.turns else image.last_seq + 1
        found = []
        if image.turns and image.turns[-1].seq - first_seq + 1 != len(image.turns):
            found.append(f"journal: {len(image.turns)} rows from {first_seq} to {image.turns[-1].seq}")
        image.fold(len(image.turns), self._append_only)
        decode = msgspec.msgpack.decode
        for table in (one.name for one in self._tables if one.name not in self._append_only):
            expected, stored = image.baseline.get(table, {}), image.rows.get(table, {})
            for key in sorted(expected.keys() | stored.keys()):
                if key not in stored or key not in expected:
                    where = "journal" if key in expected else "table"
                    found.append(f"{table} {key!r}: only in the {where}")
                elif expected[key] != stored[key] and decode(expected[key]) != decode(stored[key]):
                    found.append(
                        f"{table} {key!r}: journal {decode(expected[key])}, table {decode(stored[key])}"
                    )
        return found

    def recover(self) -> Recovered:
        self._check_open()
        with self._lock:
            self._image = image = self._read_disk()
            self._forget_queries()
        return Recovered(
            records={table.record_type: self._decoded(table) for table in self._tables},
            outgoing=[one for _, waiting in sorted(image.outgoing.items()) for one in waiting],
            next_turn_seq=image.last_seq + 1,
            last_at_ns=image.turns[-1].at_ns if image.turns else 0,
            next_event_seq=1 + max([0, *map(self._last_event_seq, self._tables)]),
            acknowledged=dict(image.acknowledged),
            journal_id=image.journal_id,
        )

    def records(self, record_type: type[Record]) -> dict[str, Record]:
        """One table as this journal has it now, by key; empty for one that is only ever added to."""
        return self._decoded(_table_of(record_type))

    def _decoded(self, table: RecordTable) -> dict[str, Record]:
        rows = {} if table.is_append_only else self._image.rows.get(table.name, {})
        decode = _decoder_of(table.record_type).decode
        return {key: decode(rows[key]) for key in sorted(rows)}

    def commit(self, batch: Batch) -> None:
        self._check_open()
        assert_batch_fits(batch, self._image.last_seq, self._types)
        encode = self._encode
        frame = _Frame(
            turns=list(batch.turns),
            upserts={
                kind.TABLE: {key: encode(record) for key, record in records.items()}
                for kind, records in batch.upserts.items()
            },
            erasures={kind.TABLE: sorted(keys) for kind, keys in batch.erasures.items()},
            outgoing=list(batch.outgoing),
            acknowledged=dict(batch.acknowledged),
        )
        try:
            self.disk.write(encode(frame))
        except DiskFault as error:
            raise _unwritable(error) from error
        try:
            self.disk.sync()
        except DiskFault as error:
            self.disk.take_back()
            raise _unwritable(error) from error
        with self._lock:
            self._image.apply(frame)
            self._forget_queries()

    def maintain(self) -> bool:
        """Fold the older half of a full journal into the baseline: one new frame in place of all."""
        self._check_open()
        if len(self._image.turns) <= self._rows_max:
            return False
        with self._lock:
            image = self._image.copy()  # the disk may refuse what it becomes
            image.fold(len(image.turns) - self._rows_max // 2, self._append_only)
            for table in self._tables:
                kept_max = table.record_type.ROWS_KEPT_MAX
                if kept_max:
                    image.drop_oldest(table, min(kept_max, self._rows_kept_max or kept_max))
            self._replace_disk(image)
            self._image = image
            self._forget_queries()
        return True

    def query(
        self,
        sql: str,
        params: Sequence[object] = (),
        *,
        row_count_max: int = SQL_ROWS_MAX,
        timeout_s: float = 60.0,
        stop: Stop | None = None,
    ) -> QueryResult:
        """Answer from a copy in DuckDB, made anew for the first query after a commit."""
        self._check_open()
        with self._lock:
            if self._queries is None:
                self._queries = self._copy_to_duckdb()
            return self._queries.run(sql, params, row_count_max=row_count_max, timeout_s=timeout_s, stop=stop)

    def position(self) -> Position:
        image = self._image
        return Position(seq=image.last_seq, journal_rows=len(image.turns), file_bytes=self.disk.used_bytes)

    def close(self) -> None:
        self._is_closed = True
        with self._lock:
            self._forget_queries()

    # ------------------------------------------------------------------ the disk

    def _check_open(self) -> None:
        if self._is_closed:
            raise JournalError("the journal in memory is closed; make another one on its disk")

    def _replace_disk(self, image: _Image) -> None:
        try:
            self.disk.replace(self._encode(image))
        except DiskFault as error:
            raise _unwritable(error) from error

    def _read_disk(self) -> _Image:
        """What the disk holds. Frames that were read before are not read again: nobody has changed them."""
        disk = self.disk
        known_count, image = disk.reading()
        payloads = disk.payloads(known_count)
        if payloads and payloads[-1] is None and len(disk) > 1:
            disk.cut_last()
            payloads.pop()
        whole = [payload for payload in payloads if payload is not None]
        if len(whole) < len(payloads) or not len(disk):
            damaged = known_count + payloads.index(None) if payloads else 0
            raise JournalCorrupt(
                f"the journal in memory is damaged in frame {damaged} of {len(disk)}; wipe its disk"
            )
        if image is None:
            image = _IMAGE.decode(whole.pop(0))
        for payload in whole:
            image.apply(_FRAME.decode(payload))
        disk.keep_reading(len(disk), image)
        return cast("_Image", image.copy())

    # ------------------------------------------------------------------ reading

    def _last_event_seq(self, table: RecordTable) -> int:
        if not table.is_append_only or "seq" not in table.column_names:
            return 0
        return max((_SEQ.decode(row).seq for row in self._image.rows.get(table.name, {}).values()), default=0)

    def _forget_queries(self) -> None:
        if self._queries is not None:
            self._queries.close()
            self._queries = None

    def _copy_to_duckdb(self) -> ReadOnlyQueries:
        from olvm.journal.duckdb_copy import copied

        image = self._image
        rows = {
            table.name: [
                table.encode(_decoder_of(table.record_type).decode(row))
                for row in image.rows.get(table.name, {}).values()
            ]
            for table in self._tables
        }
        baseline = [
            (table, key, row) for table, records in image.baseline.items() for key, row in records.items()
        ]
        system: dict[str, list[tuple[object, ...]]] = {
            "journal": [tuple(turn) for turn in image.turns],
            "outbox": [tuple(one) for waiting in image.outgoing.values() for one in waiting],
            "baseline": [tuple(one) for one in baseline],
        }
        return copied(self._tables, image.journal_id, {**rows, **system})


class _OnlySeq(msgspec.Struct):
    seq: int


_IMAGE = msgspec.msgpack.Decoder(_Image)
_FRAME = msgspec.msgpack.Decoder(_Frame)
_SEQ = msgspec.msgpack.Decoder(_OnlySeq)
# Of a type of record there is one table and one decoder, however many journals there are.
_table_of = cache(RecordTable)


@cache
def _decoder_of(record_type: type[Record]) -> msgspec.msgpack.Decoder[Record]:
    return msgspec.msgpack.Decoder(record_type)


def _unwritable(error: DiskFault) -> JournalUnwritable:
    return JournalUnwritable(f"the journal in memory cannot be written: {error}; clear the fault of its disk")
