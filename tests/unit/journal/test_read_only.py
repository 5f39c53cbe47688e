"""Queries beside the writer: what they may do, and how they fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import msgspec
import pytest

from olvm.journal.duckdb_file import connect
from olvm.journal.read_only import ReadOnlyQueries, table_names
from olvm.model.errors import BadQuery


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = connect(tmp_path / "q.duckdb", fsync=False, threads=1, read_only=False)
    connection.execute("create table vms as select range as id, 'vm-' || range as name from range(10)")
    yield connection
    connection.close()


@pytest.fixture
def queries(connection: duckdb.DuckDBPyConnection) -> ReadOnlyQueries:
    return ReadOnlyQueries(connection)


@pytest.mark.parametrize(
    "sql",
    [
        "select name from vms where id = 3",
        "from vms select name where id = 3",
        "with v as (from vms) select name from v where id = 3;",
        "-- a comment\nselect name from vms where id = 3 -- and one more",
    ],
)
def test_query_in_any_form_of_select_answers(queries: ReadOnlyQueries, sql: str) -> None:
    result = queries.run(sql)
    assert (result.columns, result.types, result.rows) == (["name"], ["VARCHAR"], [("vm-3",)])


@pytest.mark.parametrize(
    "sql",
    [
        "describe vms",
        "show tables",
        "summarize vms",
        "values (1)",
        "explain select 1",
        "explain analyze from vms",
    ],
)
def test_query_about_the_tables_answers(queries: ReadOnlyQueries, sql: str) -> None:
    assert queries.run(sql).rows


@pytest.mark.parametrize(
    "sql",
    [
        "insert into vms values (99, 'x')",
        "insert into vms values (99, 'x') returning id",
        "with x as (insert into vms values (99, 'x') returning id) select * from x",
        "update vms set name = ''",
        "delete from vms",
        "drop table vms",
        "create table t (a int)",
        "create temp table t (a int)",
        "attach ':memory:' as other",
        "copy vms to 'stolen.csv'",
        "set memory_limit = '10GB'",
        "pragma disable_optimizer",
        "checkpoint",
        "begin",
        "call pragma_version()",
        "explain analyze insert into vms values (99, 'x')",
        "explain analyze copy vms to 'stolen.csv'",
        "explain (analyze) delete from vms",
        "explain explain analyze delete from vms",
        "/* x */ explain analyze delete from vms",
        "select * from 'vms.parquet'",
        "select 1; delete from vms",
        "",
        "-- only a comment",
        "selec 1",
        "select * from missing",
        "select ? + ?",
        "select * from connection",
    ],
)
def test_query_that_does_not_only_read_is_refused_in_one_line(
    connection: duckdb.DuckDBPyConnection, queries: ReadOnlyQueries, sql: str
) -> None:
    with pytest.raises(BadQuery) as refusal:
        queries.run(sql)
    assert "\n" not in refusal.value.message
    assert connection.execute("select count(*), max(id) from vms").fetchone() == (10, 9)
    assert queries.run("select 1").rows == [(1,)]


def test_query_of_a_file_beside_the_journal_is_refused(queries: ReadOnlyQueries, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    for source in (f"read_text('{secret}')", f"read_csv('{secret}')", f"'{secret}'", f"glob('{tmp_path}/*')"):
        with pytest.raises(BadQuery, match="disabled by configuration"):
            queries.run(f"select * from {source}")


def test_query_with_parameters_answers(queries: ReadOnlyQueries) -> None:
    assert queries.run("select name from vms where id = ? or name = ?", [1, "vm-2"]).rows == [
        ("vm-1",),
        ("vm-2",),
    ]


def test_query_with_a_parameter_of_no_sql_type_is_refused(queries: ReadOnlyQueries) -> None:
    with pytest.raises(BadQuery):
        queries.run("select ?", [object()])


def test_query_over_the_row_limit_is_truncated_and_says_so(queries: ReadOnlyQueries) -> None:
    short, exact = queries.run("from vms", row_count_max=9), queries.run("from vms", row_count_max=10)
    assert (len(short), short.truncated) == (9, True)
    assert (len(exact), exact.truncated) == (10, False)


def test_query_over_its_time_is_interrupted(queries: ReadOnlyQueries) -> None:
    with pytest.raises(BadQuery, match=r"longer than 0\.1 s"):
        queries.run("select sum(a.range * b.range) from range(10000000) a, range(1000000) b", timeout_s=0.1)
    assert queries.run("select 1").rows == [(1,)]


def test_values_of_every_type_survive_json_and_msgpack(queries: ReadOnlyQueries) -> None:
    result = queries.run(
        "select 1.50::decimal(9,2) as a, sum(range) as b, (2::hugeint ** 100)::hugeint as c, "
        "timestamp '2026-01-02 03:04:05' as d, date '2026-01-02' as e, interval 90 seconds as f, "
        "[1.5::decimal(3,1), null] as g, {'x': date '2026-01-02'} as h, 'ab'::blob as i, "
        "uuid '00000000-0000-0000-0000-000000000001' as j, null as k, map {1: true} as l from range(3)"
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=type(result)) == result
    assert msgspec.json.encode(result)
    assert result.dicts()[0] == {
        "a": 1.5,
        "b": 3,
        "c": str(2**100),
        "d": "2026-01-02T03:04:05",
        "e": "2026-01-02",
        "f": 90.0,
        "g": [1.5, None],
        "h": {"x": "2026-01-02"},
        "i": b"ab",
        "j": "00000000-0000-0000-0000-000000000001",
        "k": None,
        "l": {"1": True},
    }


def test_queries_from_many_threads_beside_the_writer_see_whole_commits(
    connection: duckdb.DuckDBPyConnection, queries: ReadOnlyQueries
) -> None:
    connection.execute("create table pairs (a bigint)")
    seen: list[int] = []
    failures: list[Exception] = []

    def read() -> None:
        try:
            for _ in range(30):
                seen.append(int(str(queries.run("select count(*) from pairs").rows[0][0])))
        except Exception as error:  # noqa: BLE001 - handed to the main thread
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(40):
        connection.begin()
        connection.execute("insert into pairs values (?)", [n])
        connection.execute("insert into pairs values (?)", [n])
        connection.commit()
    for reader in readers:
        reader.join()
    assert failures == []
    assert len(seen) == 90
    assert all(count % 2 == 0 for count in seen)


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select 1", set()),
        ("from vms", {"vms"}),
        (
            "select * from vms v join main.samples s using (id) where exists (from other)",
            {"vms", "samples", "other"},
        ),
        ("with vms as (select 1), b as (from c) select * from vms, b", {"c"}),
        ("explain analyze select * from never_made", {"never_made"}),
        ("from a union all from b", {"a", "b"}),
    ],
)
def test_table_names_of_a_query_are_found_without_the_tables(
    connection: duckdb.DuckDBPyConnection, sql: str, names: set[str]
) -> None:
    assert table_names(connection, sql) == names


def test_table_names_of_no_query_is_a_bad_query(connection: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(BadQuery, match="syntax error"):
        table_names(connection, "selec * from vms")
