"""Tables that only grow lose their oldest rows at compaction, and the journal still equals the tables."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from olvm.journal.duckdb_journal import DuckDbJournal
from olvm.journal.memory_disk import MemoryDisk
from olvm.journal.memory_journal import MemoryJournal
from olvm.journal.port import Batch, Turn
from olvm.journal.replay import verify
from olvm.model.records import EventRecord, OperationRecord


class KeptOperation(OperationRecord):
    TABLE: ClassVar[str] = "operations"
    ROWS_KEPT_MAX: ClassVar[int] = 30


class KeptEvent(EventRecord):
    TABLE: ClassVar[str] = "events"
    ROWS_KEPT_MAX: ClassVar[int] = 30


def _batch(
    seq: int,
    is_open: bool,
    kinds: tuple[type[OperationRecord], type[EventRecord]] = (KeptOperation, KeptEvent),
) -> Batch:
    batch = Batch()
    operation = kinds[0](
        id=f"op-{seq:04}",
        kind="start_vm",
        target_kind="vm",
        target_id="v",
        target_name="v",
        created_ns=seq,
        finished_ns=None if is_open else seq,
    )
    changes = [("operations", operation.id, operation)]
    batch.save(operation)
    batch.save(kinds[1](id=f"e-{seq}", seq=seq, at_ns=seq, code="c", severity="normal", message="m"))
    batch.turns.append(Turn(seq, seq, "engine", "Submit", "", "", b"\xc0", msgspec.msgpack.encode(changes)))
    return batch


@pytest.mark.parametrize("open_seq", [3, 90])
def test_compaction_beyond_the_bound_keeps_the_newest_and_the_open(tmp_path: Path, open_seq: int) -> None:
    journal = DuckDbJournal.open(
        tmp_path / "engine.duckdb",
        [KeptOperation, KeptEvent],
        journal_id="j",
        now_ns=lambda: 0,
        fsync=False,
        journal_rows_max=20,
    )
    for seq in range(1, 101):
        journal.commit(_batch(seq, is_open=seq == open_seq))
        journal.maintain()
    kept = {str(row[0]) for row in journal.query("select id from operations").rows}
    events = [row[0] for row in journal.query("select seq from events order by seq").rows]
    assert f"op-{open_seq:04}" in kept
    assert "op-0100" in kept
    assert "op-0001" not in kept
    assert 30 <= len(kept) <= 52
    assert events == list(range(int(str(events[0])), 101))
    assert len(events) <= 52
    assert verify(journal) == []
    journal.close()


@pytest.mark.parametrize("open_seq", [3, 90])
def test_compaction_in_memory_keeps_the_newest_and_the_open(open_seq: int) -> None:
    disk = MemoryDisk()
    journal = MemoryJournal(
        [OperationRecord, EventRecord], journal_id="j", disk=disk, journal_rows_max=20, rows_kept_max=30
    )
    for seq in range(1, 101):
        journal.commit(_batch(seq, is_open=seq == open_seq, kinds=(OperationRecord, EventRecord)))
        journal.maintain()
    kept = set(journal.recover().records[OperationRecord])
    events = [row[0] for row in journal.query("select seq from events order by seq").rows]
    assert {f"op-{open_seq:04}", "op-0100"} <= kept
    assert "op-0001" not in kept
    assert 30 <= len(kept) <= 52
    assert events == list(range(int(str(events[0])), 101))
    assert len(events) <= 52
    assert journal.recover().next_event_seq == 101
    assert verify(journal) == []
    assert len(disk) < 20
