"""Questions to a DuckDB file that its writer holds: one statement, read-only, bounded in rows and time.

Rules: a statement runs only if it parses as one SELECT (which DESCRIBE, SHOW, SUMMARIZE, FROM and VALUES are)
or an EXPLAIN of one; it runs in a read-only transaction on a cursor of its own; what goes wrong with it is
`BadQuery`, in one line. The file system is closed by `enable_external_access=false` of the connection, not
here.
"""

from __future__ import annotations

import datetime as dt
import decimal
import re
import threading
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import duckdb
import msgspec

from olvm.model.errors import BadQuery, JournalError
from olvm.model.limits import SQL_ROWS_MAX
from olvm.model.table import QueryResult

TIMEOUT_S: Final = 60.0

_EXPLAIN: Final = re.compile(r"explain\s+(?:analyze\b\s*)?(?:\([^)]*\)\s*)?", re.IGNORECASE)
# Columns of these types hold values that need no look; all others are converted value by value.
_PLAIN_TYPES: Final = frozenset(
    {"VARCHAR", "JSON", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT"}
    | {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE"}
)


class ReadOnlyQueries:
    """Runs queries from any thread beside the writer of `connection`.

    Keeps a cursor of its own to make cursors from, so that it never waits for a statement of the writer. With
    `owns_connection` the connection is closed with it.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, owns_connection: bool = False) -> None:
        self._owned = connection if owns_connection else None
        self._root = connection.cursor()
        self._making = threading.Lock()

    def run(
        self,
        sql: str,
        params: Sequence[object] = (),
        *,
        row_count_max: int = SQL_ROWS_MAX,
        timeout_s: float = TIMEOUT_S,
    ) -> QueryResult:
        """Answer one statement; rows beyond `row_count_max` are cut off and `truncated` says so.

        Raises:
            BadQuery: not one reading statement, an error in it, or slower than `timeout_s`.
        """
        cursor = self._cursor()
        deadline = _Deadline(cursor, timeout_s)
        try:
            statement = _reading_statement(cursor, sql)
            cursor.execute("begin transaction read only")
            cursor.execute(statement, list(params))
            columns = [_ResultColumn(one[0], str(one[1])) for one in cursor.description or ()]
            rows = cursor.fetchmany(row_count_max + 1)
        except duckdb.FatalException as error:
            raise JournalError(f"the file cannot be read any more: {one_line(error)}; reopen it") from error
        except (duckdb.Error, TypeError, OverflowError) as error:
            raise BadQuery(deadline.explain(error)) from error
        finally:
            deadline.cancel()
            # Closing the cursor ends its transaction: nothing of the query outlives it.
            cursor.close()
        return _result(columns, rows, row_count_max)

    def close(self) -> None:
        with self._making:
            self._root.close()
            if self._owned is not None:
                self._owned.close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._making:
            try:
                return self._root.cursor()
            except duckdb.Error as error:
                raise JournalError(f"the file is closed: {one_line(error)}; reopen it") from error


class _ResultColumn(NamedTuple):
    name: str
    sql_type: str


class _Deadline:
    """Interrupts a cursor when its time is over, and knows that it did."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, timeout_s: float) -> None:
        self._cursor = cursor
        self._timeout_s = timeout_s
        self._is_over = False
        self._timer = threading.Timer(timeout_s, self._interrupt)
        self._timer.daemon = True
        self._timer.start()

    def _interrupt(self) -> None:
        self._is_over = True
        self._cursor.interrupt()

    def explain(self, error: Exception) -> str:
        if self._is_over:
            return f"query stopped after {self._timeout_s:g} s; narrow it with where or limit"
        return one_line(error)

    def cancel(self) -> None:
        self._timer.cancel()
        self._timer.join()


def one_line(error: BaseException) -> str:
    """The first paragraph of an error of DuckDB: without the drawing of the statement, and without line
    breaks.
    """
    return " ".join(str(error).split("\n\nLINE ")[0].split())


def table_names(connection: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """The tables that `sql` reads, by bare name; they need not exist. Raises BadQuery where it does not
    parse.
    """
    tables: set[str] = set()
    common: set[str] = set()
    _collect(syntax_tree(connection, sql), tables, common)
    return tables - common


def syntax_tree(connection: duckdb.DuckDBPyConnection, sql: str) -> object:
    """What DuckDB understands of one reading statement, as decoded JSON. Raises BadQuery where it does not parse."""
    try:
        statement = _reading_statement(connection, sql)
        answer = connection.execute("select json_serialize_sql(?)", [_explained(statement.query)]).fetchone()
    except duckdb.Error as error:
        raise BadQuery(one_line(error)) from error
    assert answer is not None
    tree: object = msgspec.json.decode(answer[0])
    return tree


def _collect(node: object, tables: set[str], common: set[str]) -> None:
    if isinstance(node, list):
        for one in node:
            _collect(one, tables, common)
    elif isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            tables.add(node["table_name"])
        ctes = node.get("cte_map")
        if isinstance(ctes, dict):
            common.update(one["key"] for one in ctes["map"])
        for value in node.values():
            _collect(value, tables, common)


def _explained(sql: str) -> str:
    return _EXPLAIN.sub("", sql.strip(), count=1) if _EXPLAIN.match(sql.strip()) else sql


def _reading_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise BadQuery(f"a query is one statement, this text holds {len(statements)}; send them one by one")
    statement = statements[0]
    kind = statement.type
    if kind == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains. A form that is not recognised here stays refused.
        inner = connection.extract_statements(_explained(statement.query))
        kind = inner[0].type if len(inner) == 1 else kind
    if kind != duckdb.StatementType.SELECT:
        raise BadQuery(
            f"a query only reads, this is {statement.type.name}; use select, describe, show or explain"
        )
    return statement


def _result(columns: list[_ResultColumn], rows: list[tuple[object, ...]], row_count_max: int) -> QueryResult:
    shown = rows[:row_count_max]
    odd = [index for index, column in enumerate(columns) if column.sql_type not in _PLAIN_TYPES]
    if odd:
        shown = [_with_plain(row, odd) for row in shown]
    return QueryResult(
        columns=[column.name for column in columns],
        types=[column.sql_type for column in columns],
        rows=shown,
        truncated=len(rows) > row_count_max,
    )


def _with_plain(row: tuple[object, ...], indexes: list[int]) -> tuple[object, ...]:
    values = list(row)
    for index in indexes:
        values[index] = _plain(values[index])
    return tuple(values)


_CONVERT_BY_TYPE: Final[dict[type, Callable[..., object]]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    str: lambda value: value,
    bytes: lambda value: value,
    float: lambda value: value,
    int: lambda value: value if -(2**63) <= value < 2**64 else str(value),
    decimal.Decimal: float,
    bytearray: bytes,
    memoryview: bytes,
    dt.timedelta: dt.timedelta.total_seconds,
    dt.datetime: dt.datetime.isoformat,
    dt.date: dt.date.isoformat,
    dt.time: dt.time.isoformat,
    list: lambda value: [_plain(one) for one in value],
    tuple: lambda value: [_plain(one) for one in value],
    dict: lambda value: {str(key): _plain(one) for key, one in value.items()},
}


def _plain(value: object) -> object:
    """A value that JSON and msgpack know."""
    return _CONVERT_BY_TYPE.get(type(value), str)(value)
