"""A copy of history as of one moment, for a DuckDB that is nobody's but the reader's.

Rules:
1. One transaction reads all tables, so that they agree; the writer goes on beside it.
2. What a view reads from files beside history.duckdb is in the copy as a table of the view's name, so that the copy
   needs no file but its own.
3. The copy is made in a directory that nobody else knows; who wants it whole takes it from there when it is done.
"""

# Statements are built from names that DuckDB itself lists, and quoted paths.
# ruff: noqa: S608

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import duckdb

from olvm.model.client_protocol import ExportHistory
from olvm.model.limits import NS_PER_S
from olvm.stopping import Stop

# A table or view with one of these columns is cut to the time that was asked for; all others are copied whole.
TIME_COLUMNS: Final = ("history_datetime", "log_time")
DUCKDB_FILE: Final = "history.duckdb"
WHAT: Final = "the export of history"
OPENING_FILE: Final = "open.sql"


class _Part(NamedTuple):
    """A table of the copy. `sql` creates it; empty for a view that becomes a table."""

    name: str
    sql: str
    condition: str


def export(
    cursor: duckdb.DuckDBPyConnection, ask: ExportHistory, directory: Path, stop: Stop
) -> dict[str, int]:
    """Write the copy into the existing, empty `directory`; the rows of each table.

    Lets DuckDB's errors and the system's through; what is in `directory` then is no copy. Cost: reads and writes all of
    history once.
    """
    catalog = _value(cursor, "select current_database()")
    if ask.format == "duckdb":
        return _export_duckdb(cursor, catalog, ask, directory, stop)
    with stop.watching(cursor.interrupt, ask.timeout_s):
        return _export_parquet(cursor, catalog, ask, directory, stop)


def _export_duckdb(
    cursor: duckdb.DuckDBPyConnection, catalog: str, ask: ExportHistory, directory: Path, stop: Stop
) -> dict[str, int]:
    alias = _name(f"copy {directory.name}")
    cursor.execute(f"attach {_text(str(directory / DUCKDB_FILE))} as {alias}")
    try:
        with stop.watching(cursor.interrupt, ask.timeout_s):
            return _fill_duckdb(cursor, catalog, ask, alias, stop)
    except BaseException:
        # Nothing interrupts any more, or the file would stay attached.
        with contextlib.suppress(duckdb.TransactionException):  # none was begun, or its commit failed
            cursor.execute("rollback")
        raise
    finally:
        cursor.execute(f"detach {alias}")


def _fill_duckdb(
    cursor: duckdb.DuckDBPyConnection, catalog: str, ask: ExportHistory, alias: str, stop: Stop
) -> dict[str, int]:
    cursor.execute("begin")
    cursor.execute(f"copy from database {_name(catalog)} to {alias} (schema)")
    rows = {}
    for part in _parts(cursor, catalog, ask):
        stop.check(WHAT)
        target = f"{alias}.main.{_name(part.name)}"
        if part.sql:
            statement = f"insert into {target} select * from {_name(part.name)}{part.condition}"
        else:
            cursor.execute(f"drop view {target}")
            statement = f"create table {target} as select * from {_name(part.name)}{part.condition}"
        cursor.execute(statement)
        rows[part.name] = int(_value(cursor, f"select count(*) from {target}"))
    cursor.execute("commit")
    return rows


def _export_parquet(
    cursor: duckdb.DuckDBPyConnection, catalog: str, ask: ExportHistory, directory: Path, stop: Stop
) -> dict[str, int]:
    cursor.execute("begin transaction read only")
    rows = {}
    opening = ["-- In this directory: duckdb -init open.sql"]
    parts = list(_parts(cursor, catalog, ask))
    for part in parts:
        stop.check(WHAT)
        file = f"{part.name}.parquet"
        cursor.execute(
            f"copy (select * from {_name(part.name)}{part.condition}) to {_text(str(directory / file))}"
            " (format parquet, compression zstd)"
        )
        rows[part.name] = int((cursor.fetchone() or (0,))[0])
        opening.append(f"create view {_name(part.name)} as select * from read_parquet({_text(file)});")
    opening += _views_in_order(cursor, catalog, parts)
    (directory / OPENING_FILE).write_text("\n".join(opening) + "\n")
    return rows


def _parts(cursor: duckdb.DuckDBPyConnection, catalog: str, ask: ExportHistory) -> Iterator[_Part]:
    found = cursor.execute(
        "select table_name, sql from duckdb_tables() where database_name = $1 and not internal order by table_name",
        [catalog],
    ).fetchall()
    for name, sql in [*found, *((view, "") for view, sql in _views(cursor, catalog) if _reads_files(sql))]:
        yield _Part(name, sql, _condition(cursor, catalog, name, ask))


def _views(cursor: duckdb.DuckDBPyConnection, catalog: str) -> list[tuple[str, str]]:
    return cursor.execute(
        "select view_name, sql from duckdb_views() where database_name = $1 and not internal order by view_name",
        [catalog],
    ).fetchall()


def _reads_files(sql: str) -> bool:
    return "read_parquet(" in sql


def _condition(cursor: duckdb.DuckDBPyConnection, catalog: str, table: str, ask: ExportHistory) -> str:
    columns = cursor.execute(
        "select column_name from duckdb_columns() where database_name = $1 and table_name = $2",
        [catalog, table],
    ).fetchall()
    column = next((name for name in TIME_COLUMNS if (name,) in columns), None)
    if column is None:
        return ""
    bounds = [
        f"{column} {sign} make_timestamp({at_ns * 1_000_000 // NS_PER_S})"
        for sign, at_ns in ((">=", ask.from_ns), ("<", ask.to_ns))
        if at_ns is not None
    ]
    return f" where {' and '.join(bounds)}" if bounds else ""


def _views_in_order(cursor: duckdb.DuckDBPyConnection, catalog: str, parts: list[_Part]) -> list[str]:
    """Statements that make the views, each after those that it reads: tried out on empty tables."""
    waiting = [sql for _, sql in _views(cursor, catalog) if not _reads_files(sql)]
    ordered: list[str] = []
    with duckdb.connect() as trial:
        for part in parts:
            trial.execute(
                part.sql or f"create table {_name(part.name)} ({_columns(cursor, catalog, part.name)})"
            )
        while waiting:
            failed: list[str] = []
            reason: duckdb.Error | None = None
            for sql in waiting:
                try:
                    trial.execute(sql)
                    ordered.append(sql)
                except duckdb.CatalogException as error:
                    failed.append(sql)
                    reason = error
            if len(failed) == len(waiting) and reason is not None:
                raise reason
            waiting = failed
    return ordered


def _columns(cursor: duckdb.DuckDBPyConnection, catalog: str, table: str) -> str:
    found = cursor.execute(
        "select column_name, data_type from duckdb_columns() where database_name = $1 and table_name = $2"
        " order by column_index",
        [catalog, table],
    ).fetchall()
    return ", ".join(f"{_name(name)} {kind}" for name, kind in found)


def sync_tree(directory: Path) -> int:
    """Have the system write everything in `directory` to its disk; the bytes that it holds."""
    byte_count = 0
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            byte_count += os.fstat(descriptor).st_size if path != directory else 0
        finally:
            os.close(descriptor)
    return byte_count


def _value(cursor: duckdb.DuckDBPyConnection, sql: str) -> str:
    (value,) = cursor.execute(sql).fetchone() or ("",)
    return str(value)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
