"""Questions to history: one SQL statement that reads, with an end to its time and its answer.

Rules: only SELECT and EXPLAIN; inside a read-only transaction on a cursor of its own; what the file system
may show is settled when the store opens (`olvm.history.opening`). A question that fails is
`BadQuery`, one line.
"""

# Statements are built from names of our own tables and a quoted path; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import duckdb

from olvm.history.bounds import MEMORY_LOOK_S, QUERY_END_S, QUERY_ROWS_MAX, QUERY_TIMEOUT_S
from olvm.history.opening import QUESTIONS_MEMORY_MAX, QUESTIONS_SPILL_MAX, take_too_much
from olvm.model.answers import collect
from olvm.model.errors import BadInput, BadQuery
from olvm.model.table import QueryResult
from olvm.stopping import Stop

_EXPLAIN: Final = re.compile(r"\s*explain\s+(analyze\s+)?", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

Parameters = Sequence[Any] | Mapping[str, Any]


class RunningQuestions:
    """Those that the writer can end when it needs their memory. May be used from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._stops: dict[Stop, None] = {}  # in the order of their beginning

    @contextlib.contextmanager
    def running(self, stop: Stop) -> Iterator[None]:
        with self._changed:
            self._stops[stop] = None
        try:
            yield
        finally:
            with self._changed:
                self._stops.pop(stop, None)
                self._changed.notify_all()

    @contextlib.contextmanager
    def guarded(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Inside, what all of them hold is looked at, and past the bound the newest is stopped.

        `cursor` is the guard's own, and closed. Cost: a thread, and some milliseconds in each MEMORY_LOOK_S.
        """
        ended = threading.Event()

        def look() -> None:
            with contextlib.suppress(
                duckdb.Error
            ):  # the connection is given up: `end_all` stops its questions
                while not ended.wait(MEMORY_LOOK_S):
                    self._end_newest_if_much(cursor)

        guard = threading.Thread(target=look, name="question-guard", daemon=True)
        guard.start()
        try:
            yield
        finally:
            ended.set()
            guard.join()
            cursor.close()

    def _end_newest_if_much(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """While one that was stopped has not ended, no other is. All under the lock, or what is read might be past."""
        with self._changed:
            if not self._stops or any(stop.reason for stop in self._stops):
                return
            if take_too_much(cursor):
                next(reversed(self._stops)).stop(
                    f"questions took more than {QUESTIONS_MEMORY_MAX // 1000**2} MB of memory or "
                    f"{QUESTIONS_SPILL_MAX // 1000**2} MB of disk; narrow it, for example with where, or ask a copy "
                    "(`olvm history export`)"
                )

    def end_all(self, reason: str) -> bool:
        """Stop them, and wait until they have ended; False if one still runs after QUERY_END_S."""
        with self._changed:
            for stop in self._stops:
                stop.stop(reason)
            return self._changed.wait_for(lambda: not self._stops, QUERY_END_S)


def run_query(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Parameters = (),
    *,
    row_count_max: int = QUERY_ROWS_MAX,
    timeout_s: float = QUERY_TIMEOUT_S,
    stop: Stop | None = None,
) -> QueryResult:
    """Run one reading statement. The cursor is the question's own, and is closed by the caller.

    `stop` ends it from another thread. Raises `BadQuery`, also for one that was stopped or is too large.
    """
    stop = stop or Stop()
    try:
        with stop.watching(cursor.interrupt, timeout_s):
            _refuse_unless_reading(cursor, sql)
            cursor.execute("begin transaction read only")
            cursor.execute(sql, list(parameters) if not isinstance(parameters, Mapping) else dict(parameters))
            return collect(cursor, row_count_max)
    except duckdb.Error as error:
        why = f"the query was stopped: {stop.reason}" if stop.reason else _one_line(error)
        raise BadQuery(why) from error


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


def _one_line(error: duckdb.Error) -> str:
    return " ".join(str(error).split("\n\n")[0].split())[:500]
