"""What every journal promises: the suite of the port `olvm.journal.port.Journal`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from olvm.journal.duckdb_journal import DuckDbJournal
from olvm.journal.memory_disk import MemoryDisk
from olvm.journal.memory_journal import MemoryJournal
from olvm.journal.port import Batch, Journal, Outgoing, Recovered
from olvm.journal.replay import replay, verify
from olvm.model.errors import BadQuery, JournalError
from olvm.model.record import Record
from tests.contracts.journal_world import RECORDS, ExitCode, Happening, Job, Machine, Mood, batch, turn

ROWS_MAX = 10


class Place:
    """Where one implementation keeps a journal: opened again, it is the same journal."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.path = directory / "silo.duckdb"
        self.disk = MemoryDisk()
        self.open_journal: Journal | None = None

    def open(self, journal_id: str = "first") -> Journal:
        self.close()
        if self.kind == "memory":
            self.open_journal = MemoryJournal(
                RECORDS, journal_id=journal_id, disk=self.disk, journal_rows_max=ROWS_MAX
            )
        else:
            self.open_journal = DuckDbJournal.open(
                self.path,
                RECORDS,
                journal_id=journal_id,
                now_ns=lambda: 0,
                fsync=False,
                journal_rows_max=ROWS_MAX,
                outbox_garbage_max=3,
            )
        return self.open_journal

    def close(self) -> None:
        if self.open_journal is not None:
            self.open_journal.close()
            self.open_journal = None


@pytest.fixture(params=["duckdb", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """At the end every journal must agree with its own tables."""
    place = Place(request.param, tmp_path)
    yield place
    if place.open_journal is not None:
        assert verify(place.open_journal) == []
        place.close()


FULL = Machine(
    id="1",
    name="web 'quoted' \N{SNOWMAN}",
    mood=Mood.UP,
    exit_code=ExitCode.CRASHED,
    kind="desktop",
    memory_bytes=2**63 - 1,
    load=0.1,
    ready=True,
    host="h1",
    order=-3,
    tags=["a", "b"],
    timers={"start": 2**62},
    details={"x": None, "y": 1.5, "z": False},
)


def test_new_journal_recovers_empty(place: Place) -> None:
    assert place.open("abc").recover() == Recovered(
        records={kind: {} for kind in RECORDS},
        outgoing=[],
        next_turn_seq=1,
        next_event_seq=1,
        acknowledged={},
        journal_id="abc",
    )


def test_record_with_every_kind_of_field_comes_back_equal(place: Place) -> None:
    place.open().commit(batch(0, saved=[FULL, Machine(id="2")]))
    records = place.open().recover().records[Machine]
    assert records == {"1": FULL, "2": Machine(id="2")}
    assert type(records["1"]) is Machine
    assert isinstance(records["1"].mood, Mood)
    assert isinstance(records["1"].exit_code, ExitCode)


def test_recovered_records_are_copies(place: Place) -> None:
    journal = place.open()
    mutable = Machine(id="1", tags=["a"])
    journal.commit(batch(0, saved=[mutable]))
    mutable.tags.append("b")
    first = journal.recover().records[Machine]["1"]
    first.tags.append("c")  # type: ignore[attr-defined]
    assert journal.recover().records[Machine] == {"1": Machine(id="1", tags=["a"])}


def test_journal_id_of_an_existing_journal_stays(place: Place) -> None:
    place.open("first").commit(batch(0, saved=[Machine(id="1")]))
    assert place.open("second").recover().journal_id == "first"


def test_saved_again_in_a_later_batch_replaces(place: Place) -> None:
    journal = place.open()
    for count in range(5):
        journal.commit(batch(count, saved=[Machine(id="1", memory_bytes=count)]))
    assert journal.query("select id, memory_bytes from machines").rows == [("1", 4)]


def test_erased_and_saved_again_in_one_batch_is_saved(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, saved=[Machine(id="1")]))
    both = Batch()
    both.erase(Machine, "1")
    both.save(Machine(id="1", name="again"))
    both.turns.append(turn(2, [("machines", "1", None), ("machines", "1", Machine(id="1", name="again"))]))
    journal.commit(both)
    assert place.open().recover().records[Machine] == {"1": Machine(id="1", name="again")}


def test_erased_record_is_gone_and_can_come_back(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, saved=[Machine(id="1"), Machine(id="2")]))
    journal.commit(batch(2, erased=[(Machine, "1"), (Machine, "never there")]))
    assert list(journal.recover().records[Machine]) == ["2"]
    journal.commit(batch(4, saved=[Machine(id="1", name="back")]))
    assert place.open().recover().records[Machine]["1"] == Machine(id="1", name="back")


def test_batch_of_many_keys_replaces_and_erases(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, saved=[Machine(id=f"{n:03}") for n in range(100)]))
    changed = [Machine(id=f"{n:03}", ready=True) for n in range(50)]
    journal.commit(batch(100, saved=changed, erased=[(Machine, f"{n:03}") for n in range(50, 100)]))
    assert journal.query("select count(*), bool_and(ready) from machines").rows == [(50, True)]


def test_turns_are_rows_of_the_journal(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, saved=[Machine(id="1")]))
    result = journal.query("select * exclude (changes) from journal")
    assert result.dicts() == [
        {
            "seq": 1,
            "at_ns": 1000,
            "actor": "vm/1",
            "kind": "Poke",
            "message_id": "m1",
            "cause_id": "c1",
            "message": b"\x80",
        }
    ]


def test_turn_out_of_sequence_is_refused_and_changes_nothing(place: Place) -> None:
    journal = place.open()
    with pytest.raises(AssertionError, match="does not follow"):
        journal.commit(batch(1, saved=[Machine(id="1")]))
    assert journal.position().seq == 0
    assert journal.recover().records[Machine] == {}


def test_record_of_an_unknown_type_is_refused(place: Place) -> None:
    class Stranger(Record):
        TABLE = "strangers"
        KEY = "id"
        id: str

    with pytest.raises(AssertionError, match="no record of this journal"):
        place.open().commit(batch(0, saved=[Stranger(id="1")]))


def test_empty_batch_is_no_error(place: Place) -> None:
    journal = place.open()
    journal.commit(Batch())
    assert journal.position().seq == 0


def test_unacknowledged_messages_are_recovered_in_order(place: Place) -> None:
    journal = place.open()
    journal.commit(
        batch(0, outgoing=[Outgoing("b", 1, b"x"), Outgoing("a", 1, b"y"), Outgoing("a", 2, b"z")])
    )
    journal.commit(batch(0, acknowledged={"a": 1}))
    recovered = place.open().recover()
    assert recovered.outgoing == [Outgoing("a", 2, b"z"), Outgoing("b", 1, b"x")]
    assert recovered.acknowledged == {"a": 1}


def test_acknowledgement_repeated_or_late_moves_nothing_back(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, outgoing=[Outgoing("a", n, b"x") for n in range(1, 4)]))
    for seq in (2, 2, 1):
        journal.commit(batch(0, acknowledged={"a": seq}))
    recovered = place.open().recover()
    assert recovered.outgoing == [Outgoing("a", 3, b"x")]
    assert recovered.acknowledged == {"a": 2}


def test_garbage_of_the_outbox_is_dropped_and_the_acknowledgement_stays(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, outgoing=[Outgoing("a", n, b"x") for n in range(1, 8)]))
    journal.commit(batch(0, acknowledged={"a": 6}))
    journal.maintain()
    assert journal.query("select seq from outbox where payload is not null").rows == [(7,)]
    recovered = place.open().recover()
    assert recovered.outgoing == [Outgoing("a", 7, b"x")]
    assert recovered.acknowledged == {"a": 6}


def test_append_only_records_are_kept_but_not_recovered(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, saved=[Happening(id="s-1", seq=1), Happening(id="s-2", seq=2, text="boom")]))
    recovered = place.open().recover()
    assert recovered.records[Happening] == {}
    assert recovered.next_event_seq == 3
    assert place.open_journal is not None
    assert place.open_journal.query("select text from happenings order by seq").rows == [("",), ("boom",)]


def test_append_only_record_erased_is_gone(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, saved=[Happening(id="s-1", seq=1), Happening(id="s-2", seq=2)]))
    old = Batch()
    old.erase(Happening, "s-1")
    journal.commit(old)
    assert journal.query("select id from happenings").rows == [("s-2",)]
    assert journal.recover().next_event_seq == 3


def test_recover_twice_gives_the_same(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, saved=[FULL, Job(id="j")], outgoing=[Outgoing("a", 1, b"x")]))
    assert journal.recover() == journal.recover()


def test_compacted_journal_is_bounded_and_replays_to_its_tables(place: Place) -> None:
    journal = place.open()
    for count in range(40):
        changed = [Machine(id=str(count % 7), memory_bytes=count)]
        erased = [(Machine, str((count + 3) % 7))] if count % 4 == 0 else []
        seq = journal.position().seq
        journal.commit(batch(seq, saved=changed, erased=erased))
        journal.maintain()
        assert ROWS_MAX // 2 <= journal.position().journal_rows <= ROWS_MAX or count < ROWS_MAX
        assert verify(journal) == []
    before = journal.recover()
    assert before.next_turn_seq == 51
    assert place.open().recover() == before
    assert place.open_journal is not None
    assert set(replay(place.open_journal)["machines"]) == set(before.records[Machine])


def test_table_that_differs_from_the_journal_is_reported(place: Place) -> None:
    journal = place.open()
    unsaid = batch(0, saved=[Machine(id="1"), Machine(id="2")])
    unsaid.save(Machine(id="1", name="other"))
    unsaid.save(Machine(id="3"))
    unsaid.upserts[Machine].pop("2")
    journal.commit(unsaid)
    assert verify(journal) == [
        "machines '2': in the journal, not in the table",
        "machines '3': in the table, not in the journal",
        "machines '1'.name: journal '', table 'other'",
    ]
    place.close()


def test_position_counts_turns_rows_and_bytes(place: Place) -> None:
    journal = place.open()
    empty = journal.position()
    journal.commit(batch(0, saved=[Machine(id=str(n)) for n in range(6)]))
    position = journal.position()
    assert (position.seq, position.journal_rows) == (6, 6)
    assert position.file_bytes > empty.file_bytes


def test_closed_journal_says_so_and_closes_again(place: Place) -> None:
    journal = place.open()
    journal.close()
    journal.close()
    for call in (journal.recover, lambda: journal.commit(batch(0)), lambda: journal.query("select 1")):
        with pytest.raises(JournalError, match=r"closed|not open"):
            call()
    place.open_journal = None


def test_query_that_writes_is_refused(place: Place) -> None:
    journal = place.open()
    journal.commit(batch(0, saved=[Machine(id="1")]))
    with pytest.raises(BadQuery, match="only reads, this is DELETE"):
        journal.query("delete from machines")
    assert journal.query("select count(*) from machines").rows == [(1,)]


# ---------------------------------------------------------------------------------------- any history

keys = st.sampled_from(["a", "b", "c"])
steps = st.lists(
    st.tuples(
        st.dictionaries(keys, st.integers(min_value=-(2**63), max_value=2**63 - 1)),
        st.sets(keys),
        st.integers(min_value=0, max_value=2),
        st.booleans(),
    ),
    max_size=8,
)


class Model:
    """The fold that every journal must agree with, in the plainest words."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.waiting: list[Outgoing] = []
        self.acknowledged: dict[str, int] = {}
        self.sent = 0
        self.seq = 0

    def step(self, saved: dict[str, int], erased: set[str], message_count: int, acknowledge: bool) -> Batch:
        saves = [Machine(id=key, memory_bytes=value) for key, value in sorted(saved.items())]
        erases = sorted(erased - set(saved))
        messages = [Outgoing("d", self.sent + n + 1, b"m") for n in range(message_count)]
        acks = {"d": self.sent} if acknowledge and self.sent else {}
        result = batch(
            self.seq,
            saved=saves,
            erased=[(Machine, key) for key in erases],
            outgoing=messages,
            acknowledged=acks,
        )
        self.machines = {key: one for key, one in self.machines.items() if key not in erases}
        self.machines |= {one.id: one for one in saves}
        self.acknowledged |= acks
        self.waiting = [one for one in self.waiting + messages if one.seq > self.acknowledged.get("d", 0)]
        self.sent += message_count
        self.seq += len(result.turns)
        return result

    def check(self, journal: Journal) -> None:
        recovered = journal.recover()
        assert recovered.records[Machine] == dict(sorted(self.machines.items()))
        assert recovered.outgoing == self.waiting
        assert recovered.acknowledged == self.acknowledged
        assert recovered.next_turn_seq == self.seq + 1
        assert verify(journal) == []


def run_history(
    open_journal: Callable[[], Journal], history: list[tuple[dict[str, int], set[str], int, bool]]
) -> None:
    journal, model = open_journal(), Model()
    for saved, erased, message_count, acknowledge in history:
        journal.commit(model.step(saved, erased, message_count, acknowledge))
        journal.maintain()
    journal.close()
    journal = open_journal()
    model.check(journal)
    journal.close()


# The histories are the same as the prefixes of longer ones: each is committed, closed, and recovered.
@settings(max_examples=60, deadline=None)
@given(history=steps)
def test_memory_journal_any_history_recovers_to_its_fold(
    history: list[tuple[dict[str, int], set[str], int, bool]],
) -> None:
    disk = MemoryDisk()
    run_history(lambda: MemoryJournal(RECORDS, journal_id="x", disk=disk, journal_rows_max=4), history)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=steps)
def test_duckdb_journal_any_history_recovers_to_its_fold(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[dict[str, int], set[str], int, bool]]
) -> None:
    path = tmp_path_factory.mktemp("history") / "silo.duckdb"

    def open_journal() -> Journal:
        return DuckDbJournal.open(
            path,
            RECORDS,
            journal_id="x",
            now_ns=lambda: 0,
            fsync=False,
            journal_rows_max=4,
            checkpoint_wal_bytes=2_000,
            outbox_garbage_max=2,
        )

    run_history(open_journal, history)
