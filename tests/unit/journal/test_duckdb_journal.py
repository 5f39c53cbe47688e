"""The file itself: who may open it, what older and newer releases find in it, and how it says no."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import duckdb
import msgspec
import pytest

from olvm.journal import duckdb_file, migrations
from olvm.journal.duckdb_journal import DuckDbJournal
from olvm.journal.port import Outgoing
from olvm.journal.replay import replay, verify
from olvm.model.errors import JournalCorrupt, JournalError, JournalLocked, JournalUnwritable
from olvm.model.record import Record
from tests.contracts.journal_world import RECORDS, ExitCode, Machine, Mood, batch


def opened(
    path: Path, record_types: Sequence[type[Record]] = RECORDS, *, read_only: bool = False
) -> DuckDbJournal:
    return DuckDbJournal.open(
        path, record_types, journal_id="j", now_ns=lambda: 5, fsync=False, read_only=read_only
    )


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A closed journal of two machines."""
    path = tmp_path / "silo.duckdb"
    journal = opened(path)
    journal.commit(batch(0, saved=[Machine(id="1", name="one"), Machine(id="2")]))
    journal.close()
    yield path
    assert not duckdb_file._held_paths, "a journal was left open"


def edit(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_file_opens_in_plain_duckdb_as_typed_tables(path: Path) -> None:
    with duckdb.connect(str(path), read_only=True) as connection:
        rows = connection.execute(
            "select name, mood, tags, timers ->> 'x' from machines order by id"
        ).fetchall()
        meta = dict(connection.execute("from meta").fetchall())
    assert rows == [("one", "Down", "[]", None), ("", "Down", "[]", None)]
    assert meta["schema_version"] == str(migrations.SCHEMA_VERSION)
    assert (meta["journal_id"], meta["created_at_ns"], meta["append_only"]) == ("j", "5", '["happenings"]')


def test_journal_opened_twice_in_one_process_is_locked(path: Path) -> None:
    journal = opened(path)
    with pytest.raises(JournalLocked, match="already open in this process"):
        opened(path.parent / "." / path.name)
    journal.close()
    opened(path).close()


def test_newer_file_is_refused_with_both_versions_and_left_alone(path: Path) -> None:
    edit(path, "update meta set value = '999' where key = 'schema_version'")
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(JournalError, match=r"schema version 999.*up to 1.*newer release"):
            opened(path, read_only=read_only)
    assert path.read_bytes() == before


def test_older_file_is_migrated_step_by_step_in_one_transaction(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("update machines set name = name || '+'")

    def fail(connection: duckdb.DuckDBPyConnection) -> None:
        add(connection)
        raise JournalError("step failed")

    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 3)
    monkeypatch.setitem(migrations.MIGRATIONS, 1, add)
    monkeypatch.setitem(migrations.MIGRATIONS, 2, fail)
    with pytest.raises(JournalError, match="step failed"):
        opened(path)
    monkeypatch.setitem(migrations.MIGRATIONS, 2, add)
    journal = opened(path)
    assert journal.query("select name from machines order by id").rows == [("one++",), ("++",)]
    assert journal.query("select value from meta where key = 'schema_version'").rows == [("3",)]
    journal.close()


class MachineOfNextRelease(Record):
    """Machine with fields added in its midst, and one dropped (`load`)."""

    TABLE: ClassVar[str] = "machines"
    KEY: ClassVar[str] = "id"

    id: str
    zone: str = "it's"
    name: str = ""
    mood: Mood = Mood.DOWN
    fallback_mood: Mood = Mood.UP
    exit_code: ExitCode | None = None
    weight: float = 1.5
    is_new: bool = True
    shares: int = -3
    parent: str | None = None
    labels: dict[str, int] = msgspec.field(default_factory=lambda: {"a": 1})
    kind: str = "server"


def test_added_fields_become_columns_with_their_defaults(path: Path) -> None:
    journal = opened(path, [MachineOfNextRelease])
    assert journal.recover().records[MachineOfNextRelease] == {
        "1": MachineOfNextRelease(id="1", name="one"),
        "2": MachineOfNextRelease(id="2"),
    }
    changed = MachineOfNextRelease(id="1", zone="b", labels={}, shares=4)
    journal.commit(batch(2, saved=[changed, MachineOfNextRelease(id="3")]))
    journal.close()
    journal = opened(path, [MachineOfNextRelease])
    assert journal.recover().records[MachineOfNextRelease]["1"] == changed
    assert verify(journal) == []
    journal.close()


def test_field_of_another_type_is_refused_with_both_types(path: Path) -> None:
    class Changed(Record):
        TABLE: ClassVar[str] = "machines"
        KEY: ClassVar[str] = "id"
        id: str
        memory_bytes: float = 0.0

    with pytest.raises(JournalError, match=r"machines\.memory_bytes is BIGINT and this release needs DOUBLE"):
        opened(path, [Changed])


@pytest.mark.parametrize("content", [b"hello", b"x" * 100_000])
def test_file_of_something_else_is_corrupt_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalCorrupt, match="left as it is"):
        opened(path)
    assert path.read_bytes() == content


def test_duckdb_file_of_someone_else_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "sales.duckdb"
    edit(path, "create table sales (a int)")
    with pytest.raises(JournalCorrupt, match="no journal of olvm"):
        opened(path)
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("show tables").fetchall() == [("sales",)]


def test_block_with_a_wrong_checksum_is_corrupt(path: Path) -> None:
    edit(path, "insert into outbox select 'd', range, repeat('x', 100)::blob from range(20000)", "checkpoint")
    content = bytearray(path.read_bytes())
    for position in range(20_000, len(content), 50_000):
        content[position] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(JournalCorrupt):
        opened(path).recover()


def test_torn_tail_of_the_log_is_cut_and_the_rest_recovered(tmp_path: Path) -> None:
    path, copy = tmp_path / "silo.duckdb", tmp_path / "copy.duckdb"
    journal = opened(path)
    for n in range(3):
        journal.commit(batch(n, saved=[Machine(id=str(n))], outgoing=[Outgoing("d", n + 1, b"x")]))
    log = path.with_name(path.name + ".wal").read_bytes()
    copy.write_bytes(path.read_bytes())
    copy.with_name(copy.name + ".wal").write_bytes(log[:-7])
    journal.close()
    journal = opened(copy)
    recovered = journal.recover()
    assert list(recovered.records[Machine]) == ["0", "1"]
    assert [one.seq for one in recovered.outgoing] == [1, 2]
    assert verify(journal) == []
    journal.close()


def test_missing_directory_is_unwritable(tmp_path: Path) -> None:
    with pytest.raises(JournalUnwritable, match="no directory"):
        opened(tmp_path / "missing" / "silo.duckdb")


def test_directory_in_place_of_the_file_is_an_error_of_the_journal(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        opened(tmp_path)


def test_failed_opening_gives_the_file_free(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"broken")
    with pytest.raises(JournalCorrupt):
        opened(path)
    path.write_bytes(content)
    opened(path).close()


def test_read_only_journal_answers_and_refuses_to_write(path: Path) -> None:
    journal = opened(path, read_only=True)
    assert journal.query("select count(*) from machines").rows == [(2,)]
    assert sorted(journal.recover().records[Machine]) == ["1", "2"]
    assert not journal.maintain()
    with pytest.raises(JournalUnwritable, match="read-only"):
        journal.commit(batch(2, saved=[Machine(id="3")]))
    journal.close()


def test_replay_and_verify_work_on_a_closed_file(path: Path) -> None:
    assert sorted(replay(path)["machines"]) == ["1", "2"]
    assert verify(path) == []
    edit(path, "update machines set name = 'forged' where id = '2'", "delete from journal where seq = 1")
    assert verify(path) == [
        "machines '1': in the table, not in the journal",
        "machines '2'.name: journal '', table 'forged'",
    ]


def test_gap_in_the_journal_is_reported(path: Path) -> None:
    edit(path, "update journal set seq = 9 where seq = 2")
    assert "journal: 2 rows in a range of 9 sequence numbers" in verify(path)


def test_checkpoint_is_taken_when_the_log_is_long(tmp_path: Path) -> None:
    journal = DuckDbJournal.open(
        tmp_path / "s.duckdb", RECORDS, journal_id="j", now_ns=lambda: 0, checkpoint_wal_bytes=50_000
    )
    journal.maintain()
    log = tmp_path / "s.duckdb.wal"
    assert not journal.maintain()
    while not log.exists() or log.stat().st_size < 50_000:
        seq = journal.position().seq
        journal.commit(batch(seq, saved=[Machine(id=f"{seq}-{n}") for n in range(50)]))
    assert journal.maintain()
    assert not log.exists() or log.stat().st_size < 1_000
    assert not journal.maintain()
    journal.close()


def test_batch_that_the_tables_refuse_leaves_nothing_to_the_next_one(path: Path) -> None:
    journal = opened(path)
    # Columns end at 63 bits; the row before the bad one is buffered already when the bad one is found.
    refused = batch(
        2, saved=[Machine(id="1", name="lost"), Machine(id="3"), Machine(id="4", memory_bytes=2**63)]
    )
    refused.outgoing.append(Outgoing("d", 1, b"lost"))
    with pytest.raises(JournalError, match="refused a statement"):
        journal.commit(refused)
    assert journal.position().seq == 2
    assert journal.query("select id, name from machines order by id").rows == [("1", "one"), ("2", "")]
    journal.commit(batch(2, saved=[Machine(id="1", name="kept"), Machine(id="5")]))
    recovered = journal.recover()
    assert {key: one.name for key, one in recovered.records[Machine].items()} == {  # type: ignore[attr-defined]
        "1": "kept",
        "2": "",
        "5": "",
    }
    assert recovered.outgoing == []
    assert verify(journal) == []
    journal.close()


def test_commit_after_the_instance_was_lost_reopens_the_file(path: Path) -> None:
    journal = opened(path)
    journal._drop_connection()
    with pytest.raises(JournalError, match="not open"):
        journal.query("select 1")
    journal.commit(batch(2, saved=[Machine(id="3")]))
    assert journal.query("select count(*) from machines").rows == [(3,)]
    assert verify(journal) == []
    journal.close()
