"""From a database's cursor to a `QueryResult`, in bounded memory and without holding up other threads.

Rows are fetched in small parts: one part is one call into the database, during which no other Python thread runs.
"""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from olvm.model.errors import BadQuery
from olvm.model.limits import SQL_ANSWER_BYTES_MAX, SQL_PART_BYTES, SQL_PART_ROWS_MAX
from olvm.model.table import QueryResult

# What a value costs in Python beside its content: the object, and its place in the row.
VALUE_BYTES: Final = 40

# Columns of these types hold values that need no look; all others are converted value by value.
_PLAIN_TYPES: Final = frozenset(
    {"VARCHAR", "JSON", "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT"}
    | {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE"}
)


class Cursor(Protocol):
    """What is needed of DuckDB's."""

    @property
    def description(self) -> Any: ...

    def fetchmany(self, size: int, /) -> list[tuple[Any, ...]]: ...


def collect(cursor: Cursor, row_count_max: int) -> QueryResult:
    """The answer that `cursor` holds after `execute`; rows past `row_count_max` are cut off, and `truncated` says so.

    Raises:
        BadQuery: it would take more than SQL_ANSWER_BYTES_MAX of memory.
    """
    described = cursor.description or ()
    columns = [column[0] for column in described]
    types = [str(column[1]) for column in described]
    odd = [index for index, kind in enumerate(types) if kind not in _PLAIN_TYPES]
    rows: list[tuple[object, ...]] = []
    cost, part_rows = 0, 1
    while len(rows) <= row_count_max:
        part = cursor.fetchmany(min(part_rows, row_count_max + 1 - len(rows)))
        if not part:
            break
        if odd:
            part = [_with_plain(row, odd) for row in part]
        part_cost = len(msgspec.msgpack.encode(part)) + VALUE_BYTES * len(part) * max(1, len(columns))
        cost += part_cost
        if cost > SQL_ANSWER_BYTES_MAX:
            raise BadQuery(
                f"the answer takes more than {SQL_ANSWER_BYTES_MAX >> 20} MiB of memory after {len(rows)} rows; "
                "select fewer columns or rows, or take a copy with `olvm history export`"
            )
        rows += part
        fitting = SQL_PART_BYTES * len(part) // part_cost
        part_rows = max(1, min(2 * part_rows, fitting, SQL_PART_ROWS_MAX))
    return QueryResult(
        columns=columns, types=types, rows=rows[:row_count_max], truncated=len(rows) > row_count_max
    )


def _with_plain(row: Sequence[object], indexes: list[int]) -> tuple[object, ...]:
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
