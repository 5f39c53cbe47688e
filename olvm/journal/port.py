"""What a silo needs of its journal, and nothing of how it is kept.

Rules that every implementation holds (tests/contracts/test_journal.py):

1. `commit` is all or nothing. When it returns, the batch survives a crash; when it raises
   `JournalUnwritable`, nothing of the batch is there and the journal can be used again.
2. What `recover` returns is the fold of the committed batches, in order: no more, no less.
3. The records in the tables equal the fold of the after-images in the journal, also after compaction
   (`olvm.journal.replay.verify`). Append-only records stand outside this rule: nothing is rebuilt from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from olvm.model.record import Record, key_of
from olvm.model.table import QueryResult

if TYPE_CHECKING:
    from olvm.stopping import Stop  # which knows threads, as no behaviour may

# One element of the list in `Turn.changes`: table, key, the record as a mapping, or None where it was erased.
Change = tuple[str, str, dict[str, object] | None]


class Turn(NamedTuple):
    """One journal row: one handled message.

    `seq` grows by one from turn to turn and starts at `Recovered.next_turn_seq`. `message` is the handled
    message in msgpack; `changes` is a msgpack list of `Change`: after-images, nil where the record was
    erased.
    """

    seq: int
    at_ns: int
    actor: str
    kind: str
    message_id: str
    cause_id: str
    message: bytes
    changes: bytes


class Outgoing(NamedTuple):
    """A message that waits, durably, until another silo acknowledges it. `seq` grows within a destination."""

    destination: str
    seq: int
    payload: bytes


class Batch:
    """What one commit writes. A key stands in `upserts` or in `erasures`, never in both.

    `acknowledged` maps a destination to the highest sequence that it has confirmed: outgoing messages up to
    it are not recovered any more.
    """

    __slots__ = ("acknowledged", "erasures", "outgoing", "turns", "upserts")

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.upserts: dict[type[Record], dict[str, Record]] = {}
        self.erasures: dict[type[Record], set[str]] = {}
        self.outgoing: list[Outgoing] = []
        self.acknowledged: dict[str, int] = {}

    def save(self, record: Record) -> None:
        """Write `record`; a later save or erasure of the same key in this batch wins."""
        key = key_of(record)
        self.upserts.setdefault(type(record), {})[key] = record
        if type(record) in self.erasures:
            self.erasures[type(record)].discard(key)

    def erase(self, record_type: type[Record], key: str) -> None:
        """Remove the record; one that does not exist is no error."""
        self.erasures.setdefault(record_type, set()).add(key)
        if record_type in self.upserts:
            self.upserts[record_type].pop(key, None)

    def __bool__(self) -> bool:
        return bool(self.turns or self.upserts or self.erasures or self.outgoing or self.acknowledged)


class Recovered(msgspec.Struct, kw_only=True):
    """A silo's memory as the last commit left it.

    `records` has an entry for every record type, sorted by key; append-only types are empty, and types with a
    `RECOVER_ORDER` hold what is open and the newest of the rest. `outgoing` is sorted by destination and
    sequence. The next free sequence of a destination follows the highest in `outgoing` and `acknowledged`.
    `next_event_seq` follows the highest `seq` of the append-only records.
    """

    records: dict[type[Record], dict[str, Record]]
    outgoing: list[Outgoing]
    next_turn_seq: int
    last_at_ns: int = 0  # when the newest turn in the journal was, by its silo's clock
    next_event_seq: int = 1
    acknowledged: dict[str, int]
    journal_id: str


class Position(msgspec.Struct, kw_only=True, frozen=True):
    """How far the journal has come. `seq` is 0 before the first turn; `file_bytes` counts the write-ahead
    log.
    """

    seq: int
    journal_rows: int
    file_bytes: int


class Journal(Protocol):
    """One silo's durable memory. Only `query` may be called from another thread than the writer's."""

    def recover(self) -> Recovered:
        """Read the state that a restarted silo begins with."""

    def commit(self, batch: Batch) -> None:
        """Make `batch` durable. Raises JournalUnwritable (full disk, I/O error) with nothing of it
        applied.
        """

    def maintain(self) -> bool:
        """Checkpoint and compact when due; call between batches. True when something was done."""

    def query(
        self,
        sql: str,
        params: Sequence[object] = (),
        *,
        row_count_max: int = ...,
        timeout_s: float = ...,
        stop: Stop | None = None,
    ) -> QueryResult:
        """Run one reading statement on the last committed state. Raises BadQuery, also when `stop` ends it."""

    def position(self) -> Position:
        """The last committed turn and the size of the file."""

    def close(self) -> None:
        """Let go of the file. Closing twice is no error."""


def assert_batch_fits(batch: Batch, last_seq: int, record_types: Sequence[type[Record]]) -> None:
    """The programmer's faults that would corrupt a journal silently: found before the first write."""
    for offset, turn in enumerate(batch.turns, start=1):
        assert turn.seq == last_seq + offset, f"turn {turn.seq} does not follow {last_seq + offset - 1}"
    for record_type, erased in batch.erasures.items():
        assert record_type in record_types, f"{record_type.__name__} is no record of this journal"
        assert erased.isdisjoint(batch.upserts.get(record_type, ())), f"{record_type.TABLE}: saved and erased"
    for record_type, records in batch.upserts.items():
        assert record_type in record_types, f"{record_type.__name__} is no record of this journal"
        for key, record in records.items():
            assert key == getattr(record, record_type.KEY), f"{record_type.TABLE}: {key} holds another record"
