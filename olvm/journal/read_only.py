"""Questions to a DuckDB file that its writer holds: one statement, read-only, bounded in rows and time.

Rules: a statement runs only if it parses as one SELECT (which DESCRIBE, SHOW, SUMMARIZE, FROM and VALUES are)
or an EXPLAIN of one; it runs in a read-only transaction on a cursor of its own; what goes wrong with it is
`BadQuery`, in one line. The file system is closed by `enable_external_access=false` of the connection, not
here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Final

import duckdb
import msgspec

from olvm.model.answers import collect
from olvm.model.errors import BadQuery, JournalError
from olvm.model.limits import SQL_ROWS_MAX
from olvm.model.table import QueryResult
from olvm.stopping import Stop

TIMEOUT_S: Final = 60.0

_EXPLAIN: Final = re.compile(r"explain\s+(?:analyze\b\s*)?(?:\([^)]*\)\s*)?", re.IGNORECASE)


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
        stop: Stop | None = None,
    ) -> QueryResult:
        """Answer one statement; rows beyond `row_count_max` are cut off and `truncated` says so.

        `stop` ends it from another thread.

        Raises:
            BadQuery: not one reading statement, an error in it, stopped, slower than `timeout_s`, or too large.
        """
        stop = stop or Stop()
        cursor = self._cursor()
        try:
            with stop.watching(cursor.interrupt, timeout_s):
                statement = _reading_statement(cursor, sql)
                cursor.execute("begin transaction read only")
                cursor.execute(statement, list(params))
                return collect(cursor, row_count_max)
        except duckdb.FatalException as error:
            raise JournalError(f"the file cannot be read any more: {one_line(error)}; reopen it") from error
        except (duckdb.Error, TypeError, OverflowError) as error:
            why = f"the query was stopped: {stop.reason}" if stop.reason else one_line(error)
            raise BadQuery(why) from error
        finally:
            # Closing the cursor ends its transaction: nothing of the query outlives it.
            cursor.close()

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
