"""Which statements bring a batch's rows into the tables, and that every way leaves the same rows."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olvm.journal import row_writer
from olvm.journal.record_table import RecordTable
from olvm.journal.row_writer import RowWriter
from tests.contracts.journal_world import ExitCode, Happening, Machine, Mood

TABLE = RecordTable(Machine)


class Statements:
    """The connection, and the first word of each statement that a writer had it execute."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(":memory:")
        self.connection.execute(TABLE.create_sql())
        self.connection.execute(RecordTable(Happening).create_sql())
        self.words: list[str] = []

    def execute(self, sql: str, parameters: object = None) -> duckdb.DuckDBPyConnection:
        self.words.append(sql.split(maxsplit=1)[0])
        return self.connection.execute(sql, parameters)

    def appender(self, table: str, *, columns: list[str]) -> duckdb.Appender:
        return self.connection.appender(table, columns=columns)

    def written(self) -> list[str]:
        words, self.words = self.words, []
        return words

    def machines(self) -> dict[str, Machine]:
        columns = ", ".join(f'"{name}"' for name in TABLE.column_names)
        rows = self.connection.execute(f"select {columns} from machines order by id").fetchall()
        return TABLE.decode_all(rows)  # type: ignore[return-value]


@pytest.fixture
def statements() -> Iterator[Statements]:
    statements = Statements()
    yield statements
    statements.connection.close()


def writer_on(statements: Statements) -> RowWriter:
    return RowWriter(statements)  # type: ignore[arg-type]


def write(writer: RowWriter, *machines: Machine, erased: tuple[str, ...] = ()) -> None:
    writer.write(TABLE, {one.id: TABLE.encode(one) for one in machines}, erased)


def test_known_row_is_updated_in_what_differs_and_a_row_that_does_not_is_not_written(
    statements: Statements,
) -> None:
    writer = writer_on(statements)
    write(writer, Machine(id="1", tags=["a"]))
    assert statements.written() == ["delete"]
    write(writer, Machine(id="1", tags=["a", "b"], mood=Mood.UP, exit_code=ExitCode.CRASHED))
    assert statements.written() == ["update"]
    write(writer, Machine(id="1", tags=["a", "b"], mood=Mood.UP, exit_code=ExitCode.CRASHED))
    assert statements.written() == []
    assert statements.machines() == {
        "1": Machine(id="1", tags=["a", "b"], mood=Mood.UP, exit_code=ExitCode.CRASHED)
    }


def test_many_rows_and_rows_beside_an_unknown_one_are_appended(statements: Statements) -> None:
    writer = writer_on(statements)
    many = [Machine(id=str(number)) for number in range(5)]
    write(writer, *many)
    write(writer, *(Machine(id=one.id, load=1.0) for one in many))
    write(writer, Machine(id="0", load=2.0), Machine(id="new"))
    assert statements.written() == ["delete"] * 3
    write(writer, Machine(id="0", load=3.0))
    assert statements.written() == ["update"]
    assert {key: one.load for key, one in statements.machines().items()} == {
        "0": 3.0, "1": 1.0, "2": 1.0, "3": 1.0, "4": 1.0, "new": 0.0
    }  # fmt: skip


def test_erased_row_is_known_no_more(statements: Statements) -> None:
    writer = writer_on(statements)
    write(writer, Machine(id="1"), Machine(id="2"))
    write(writer, Machine(id="2", load=1.0), erased=("1",))
    assert statements.written() == ["delete", "delete", "update"]
    write(writer, Machine(id="1", load=2.0))
    assert statements.written() == ["delete"]
    assert statements.machines() == {"1": Machine(id="1", load=2.0), "2": Machine(id="2", load=1.0)}


def test_row_that_somebody_else_erased_is_written_whole_once_that_is_said(statements: Statements) -> None:
    writer = writer_on(statements)
    write(writer, Machine(id="1", name="one"))
    statements.connection.execute("delete from machines")
    with pytest.raises(AssertionError, match=r"'1': 0 rows updated"):
        write(writer, Machine(id="1", name="one", load=1.0))
    writer.forget_rows()
    write(writer, Machine(id="1", name="one", load=1.0))
    assert statements.machines() == {"1": Machine(id="1", name="one", load=1.0)}


def test_rows_known_are_bounded_and_the_longest_untouched_go_first(
    statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_writer, "ROWS_KNOWN_MAX", 2)
    writer = writer_on(statements)
    for key in ("1", "2"):
        write(writer, Machine(id=key))
    write(writer, Machine(id="1", load=1.0))
    write(writer, Machine(id="3"))
    statements.written()
    write(writer, Machine(id="1", load=2.0))
    write(writer, Machine(id="2", load=2.0))
    assert statements.written() == ["update", "delete"]


def test_append_only_rows_are_appended_and_erased_by_key(statements: Statements) -> None:
    table, writer = RecordTable(Happening), writer_on(statements)
    writer.write(table, {"a": ("a", 1, "x"), "b": ("b", 2, "y")}, ())
    assert statements.written() == []
    writer.write(table, {"c": ("c", 3, "z")}, ("a",))
    assert statements.written() == ["delete"]
    assert statements.connection.execute("select id from happenings order by id").fetchall() == [
        ("b",),
        ("c",),
    ]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
machines = st.builds(
    Machine,
    id=st.sampled_from("abcd"),
    name=texts,
    mood=st.sampled_from(Mood),
    exit_code=st.none() | st.sampled_from(ExitCode),
    kind=st.sampled_from(["server", "desktop"]),
    memory_bytes=st.integers(-(2**63), 2**63 - 1),
    load=st.floats(allow_nan=False),
    ready=st.booleans(),
    host=st.none() | texts,
    order=st.none() | st.integers(-(2**63), 2**63 - 1),
    tags=st.lists(texts, max_size=2),
    details=st.none() | st.dictionaries(texts, st.none() | texts | st.booleans(), max_size=2),
)
batches = st.tuples(
    st.dictionaries(st.sampled_from("abcd"), machines, max_size=3),
    st.sets(st.sampled_from("abcd"), max_size=1),
)


@settings(max_examples=40, deadline=None)
@given(history=st.lists(batches, max_size=8), forgets_after=st.integers(0, 8))
def test_any_history_leaves_the_rows_that_were_written_last(
    history: list[tuple[dict[str, Machine], set[str]]], forgets_after: int
) -> None:
    statements, expected = Statements(), dict[str, Machine]()
    writer = writer_on(statements)
    for number, (saved, erased) in enumerate(history):
        for key, one in saved.items():
            one.id = key
        write(writer, *saved.values(), erased=tuple(erased - set(saved)))
        expected = {key: one for key, one in expected.items() if key not in erased} | saved
        assert statements.machines() == expected
        if number == forgets_after:
            writer.forget_rows()
    statements.connection.close()
