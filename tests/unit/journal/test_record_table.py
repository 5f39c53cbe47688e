"""How records become rows and rows records."""

from __future__ import annotations

from typing import ClassVar

import duckdb
import pytest

from olvm.journal.record_table import INDEXED_KEYS_MAX, RecordTable, delete_parameters
from olvm.model.errors import JournalCorrupt
from olvm.model.limits import OPERATIONS_REMEMBERED_MAX
from olvm.model.record import Record
from olvm.model.records import ENGINE_RECORDS, HOST_SILO_RECORDS, VM_SILO_RECORDS
from tests.contracts.journal_world import Happening, Job, Machine


def stored(table: RecordTable, records: list[Record]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute(table.create_sql())
    appender = connection.appender(table.name, columns=table.column_names)
    appender.append_rows([table.encode(record) for record in records])
    appender.flush()
    return connection


def test_column_types_follow_the_fields() -> None:
    assert {column.name: column.sql_type for column in RecordTable(Machine).columns} == {
        "id": "VARCHAR",
        "name": "VARCHAR",
        "mood": "VARCHAR",
        "exit_code": "BIGINT",
        "kind": "VARCHAR",
        "memory_bytes": "BIGINT",
        "load": "DOUBLE",
        "ready": "BOOLEAN",
        "host": "VARCHAR",
        "order": "BIGINT",
        "tags": "JSON",
        "timers": "JSON",
        "details": "JSON",
    }


@pytest.mark.parametrize("kind", sorted({*ENGINE_RECORDS, *HOST_SILO_RECORDS, *VM_SILO_RECORDS}, key=str))
def test_every_record_of_the_product_has_a_table_that_duckdb_accepts(kind: type[Record]) -> None:
    table = RecordTable(kind)
    connection = stored(table, [])
    assert connection.execute(table.recover_sql()).fetchall() == []
    assert [row[0] for row in connection.execute(f"describe {table.name}").fetchall()] == table.column_names


def test_append_only_table_has_no_key_constraint() -> None:
    assert "primary key" not in RecordTable(Happening).create_sql()
    assert "primary key" in RecordTable(Machine).create_sql()


def test_recover_order_reads_all_open_rows_and_the_newest_others() -> None:
    table = RecordTable(Job)
    closed = [Job(id=f"c{n}", created_ns=n, finished_ns=1) for n in range(OPERATIONS_REMEMBERED_MAX + 10)]
    still_open = [Job(id=f"o{n}", created_ns=0) for n in range(5)]
    found = table.decode_all(stored(table, [*closed, *still_open]).execute(table.recover_sql()).fetchall())
    assert set(found) == {one.id for one in [*closed[10:], *still_open]}


@pytest.mark.parametrize("count", [1, INDEXED_KEYS_MAX, INDEXED_KEYS_MAX + 1, 500])
def test_delete_of_keys_removes_exactly_these(count: int) -> None:
    table = RecordTable(Machine)
    connection = stored(table, [Machine(id=str(n)) for n in range(501)])
    connection.execute(table.delete_sql(count), delete_parameters(str(n) for n in range(count)))
    assert connection.execute("select count(*), min(id::int) from machines").fetchone() == (
        501 - count,
        count,
    )


def test_key_deleted_and_added_in_one_transaction_while_a_reader_holds_the_old_row_is_replaced() -> None:
    table = RecordTable(Machine)
    connection = stored(table, [Machine(id=str(n)) for n in range(5000)])
    appender = connection.appender(table.name, columns=table.column_names)
    readers = []
    for memory_bytes in range(3):
        reader = connection.cursor()
        reader.execute("begin transaction read only")
        readers.append((reader, reader.execute("select sum(memory_bytes) from machines").fetchone()))
        connection.begin()
        for _ in range(2):
            connection.execute(table.delete_sql(2), delete_parameters(["1", "2"]))
            appender.append_rows(
                [table.encode(Machine(id=key, memory_bytes=memory_bytes)) for key in ("1", "2")]
            )
            appender.flush()
        connection.commit()
        connection.checkpoint()
    assert connection.execute("select count(*), sum(memory_bytes) from machines").fetchone() == (5000, 4)
    for reader, seen in readers:
        assert reader.execute("select sum(memory_bytes) from machines").fetchone() == seen
        reader.close()


def test_row_with_an_unknown_enum_value_is_corrupt_and_says_which() -> None:
    table = RecordTable(Machine)
    connection = stored(table, [Machine(id="m1")])
    connection.execute("update machines set mood = 'Sideways'")
    with pytest.raises(JournalCorrupt, match="'m1' of table machines"):
        table.decode_all(connection.execute(table.recover_sql()).fetchall())


def test_record_without_table_or_with_a_wrong_key_is_a_fault_of_the_programmer() -> None:
    class Nameless(Record):
        KEY: ClassVar[str] = "id"
        id: str

    class Keyless(Record):
        TABLE: ClassVar[str] = "keyless"
        KEY: ClassVar[str] = "missing"
        id: str

    with pytest.raises(AssertionError, match="names no TABLE"):
        RecordTable(Nameless)
    with pytest.raises(AssertionError, match="no field missing"):
        RecordTable(Keyless)


def test_record_of_one_field_is_a_row_of_one_value() -> None:
    class Single(Record):
        TABLE: ClassVar[str] = "singles"
        KEY: ClassVar[str] = "id"
        id: str

    assert RecordTable(Single).encode(Single(id="x")) == ("x",)
