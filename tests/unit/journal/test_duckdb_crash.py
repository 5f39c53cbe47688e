"""Processes that die, disks that fill and files that someone else holds: DuckDB for real."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from olvm.journal.duckdb_journal import DuckDbJournal
from olvm.journal.replay import verify
from olvm.model.errors import JournalLocked
from tests.contracts.journal_world import RECORDS, Machine

WRITER = Path(__file__).with_name("journal_writer.py")
ROOT = WRITER.parents[3]


def start_writer(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WRITER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def reopened(path: Path) -> DuckDbJournal:
    return DuckDbJournal.open(path, RECORDS, journal_id="other", now_ns=lambda: 0)


def test_killed_writer_leaves_every_acknowledged_batch_and_no_part_of_another(tmp_path: Path) -> None:
    path = tmp_path / "silo.duckdb"
    draw = random.Random(7)
    for seed in range(6):
        with start_writer("endless", str(path), str(seed)) as writer:
            assert writer.stdout is not None
            for _ in range(draw.randint(5, 40)):
                writer.stdout.readline()
            writer.kill()
            told = [int(line) for line in writer.stdout.read().split() if line.isdigit()]
        journal = reopened(path)
        recovered = journal.recover()
        last_seq = recovered.next_turn_seq - 1
        assert last_seq >= max(told, default=1)
        # The message, the row and the turns of the last batch came together.
        assert recovered.outgoing[-1].payload == str(last_seq).encode()
        marker = recovered.records[Machine]["last"]
        assert isinstance(marker, Machine)
        newest = max(one.memory_bytes for key, one in recovered.records[Machine].items() if key != "last")  # type: ignore[attr-defined]
        assert marker.memory_bytes >= newest
        assert recovered.next_event_seq == recovered.outgoing[-1].seq + 1
        assert len(recovered.outgoing) == min(5, recovered.outgoing[-1].seq)
        assert verify(journal) == []
        journal.close()
        assert verify(path) == []


def test_full_disk_refuses_batches_whole_and_the_journal_goes_on_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "silo.duckdb"
    with start_writer("full", str(path)) as writer:
        assert writer.stdout is not None
        lines = writer.stdout.read().splitlines()
    refused, told_seq, in_file = map(int, lines[0].split())
    assert refused > 0
    assert told_seq == in_file == 21 - refused
    assert "refused" in lines[1]
    assert int(lines[2]) == told_seq + 4
    journal = reopened(path)
    machines = journal.recover().records[Machine]
    assert {"before", "small0", "small1", "small2", "after"} < set(machines)
    assert len(machines) == told_seq + 4
    assert verify(journal) == []
    journal.close()


def test_file_of_another_process_is_locked_and_the_error_names_it(tmp_path: Path) -> None:
    path = tmp_path / "silo.duckdb"
    with start_writer("hold", str(path)) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        pid = writer.stdout.readline().strip()
        with pytest.raises(JournalLocked, match=f"process {pid}"):
            reopened(path)
        writer.stdin.close()
    journal = reopened(path)
    assert journal.recover().journal_id == "w"
    journal.close()
