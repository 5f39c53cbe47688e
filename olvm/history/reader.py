"""Questions to history: one SQL statement that reads, with an end to its time and its answer.

Rules: only SELECT and EXPLAIN; inside a read-only transaction on a cursor of its own; what the file system
may show is settled when the store opens (`olvm.history.opening`). A question that fails is
`BadQuery`, one line.
"""

# Statements are built from names of our own tables and a quoted path; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

import datetime as dt
import decimal
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb

from olvm.history.bounds import QUERY_ROWS_MAX, QUERY_TIMEOUT_S
from olvm.model.errors import BadInput, BadQuery
from olvm.model.table import QueryResult

_EXPLAIN: Final = re.compile(r"\s*explain\s+(analyze\s+)?", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

_PLAIN_TYPES: Final = frozenset(
    ("BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "FLOAT", "DOUBLE", "VARCHAR", "JSON")
)

Parameters = Sequence[Any] | Mapping[str, Any]


def run_query(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Parameters = (),
    *,
    row_count_max: int = QUERY_ROWS_MAX,
    timeout_s: float = QUERY_TIMEOUT_S,
) -> QueryResult:
    """Run one reading statement. The cursor is the question's own, and is closed by the caller."""
    _refuse_unless_reading(cursor, sql)
    expired = threading.Event()

    def interrupt() -> None:
        expired.set()
        cursor.interrupt()

    timer = threading.Timer(timeout_s, interrupt)
    timer.daemon = True
    timer.start()
    try:
        cursor.execute("begin transaction read only")
        cursor.execute(sql, list(parameters) if not isinstance(parameters, Mapping) else dict(parameters))
        description = cursor.description or []
        rows = cursor.fetchmany(row_count_max + 1)
    except duckdb.Error as error:
        if expired.is_set():
            raise BadQuery(
                f"query took longer than {timeout_s:g} s; narrow it, for example by history_datetime"
            ) from error
        raise BadQuery(_one_line(error)) from error
    finally:
        timer.cancel()
    types = [str(column[1]) for column in description]
    return QueryResult(
        columns=[column[0] for column in description],
        types=types,
        rows=_plain_rows(rows[:row_count_max], types),
        truncated=len(rows) > row_count_max,
    )


def show_snapshots(
    cursor: duckdb.DuckDBPyConnection, snapshots: Mapping[str, str], snapshot_directory: Path
) -> None:
    """Give this cursor a view over each Parquet file, by name; they end with the cursor."""
    for name, file in snapshots.items():
        if not _NAME.fullmatch(name):
            raise BadInput(f"snapshot name {name!r} is not a plain SQL name; use letters, digits and _")
        path = Path(file).resolve()
        if not path.is_relative_to(snapshot_directory):
            raise BadInput(f"snapshot {name} at {file} is outside {snapshot_directory}; write it there")
        literal = str(path).replace("'", "''")
        try:
            cursor.execute(
                f"create or replace temp view \"{name}\" as select * from read_parquet('{literal}')"
            )
        except duckdb.Error as error:
            raise BadInput(f"snapshot {name} at {file} cannot be read: {_one_line(error)}") from error


def _refuse_unless_reading(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = _statements(cursor, sql)
    if len(statements) != 1:
        raise BadQuery(f"query holds {len(statements)} statements; send exactly one")
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains, so that has to be reading too.
        explain = _EXPLAIN.match(statements[0].query)
        explained = _statements(cursor, statements[0].query[explain.end() :]) if explain else []
        kind = explained[0].type if len(explained) == 1 else kind
    if kind != duckdb.StatementType.SELECT:
        raise BadQuery(f"query is a {statements[0].type.name} statement; history answers SELECT only")


def _statements(cursor: duckdb.DuckDBPyConnection, sql: str) -> list[duckdb.Statement]:
    try:
        return cursor.extract_statements(sql)
    except duckdb.Error as error:
        raise BadQuery(_one_line(error)) from error


def _plain_rows(rows: list[tuple[object, ...]], types: list[str]) -> list[tuple[object, ...]]:
    """The rows as `QueryResult` promises them; columns of plain types are not looked at."""
    if all(name in _PLAIN_TYPES for name in types):
        return rows
    return [tuple(_plain(value) for value in row) for row in rows]


def _plain(value: object) -> object:
    match value:
        case bool() | float() | str() | bytes() | None:
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else str(value)
        case decimal.Decimal():
            return float(value)
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case list() | tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case _:
            return str(value)


def _one_line(error: duckdb.Error) -> str:
    return " ".join(str(error).split("\n\n")[0].split())[:500]
