"""A table of rows that are inserted as they are: its columns, its key, and what a repeated row does.

Knows no table by name. Values that a guest or a peer chose are made storable here.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, NamedTuple

import msgspec


class Column(NamedTuple):
    name: str
    sql_type: str
    comment: str


Row = tuple[Any, ...]


class RowTable(NamedTuple):
    """`key` is the primary key; `on_conflict` is what a row with a known key does."""

    name: str
    comment: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    on_conflict: str = "do nothing"

    def key_of(self, row: Row) -> Row:
        """The primary key of one row."""
        return tuple([row[position] for position in _positions(self)])

    @property
    def insert_sql(self) -> str:
        """One parameter per column, each a list: a fixed cost per statement, not per row."""
        names = ", ".join(column.name for column in self.columns)
        values = ", ".join(_unnested(column) for column in self.columns)
        key = ", ".join(self.key)
        return f"insert into {self.name} ({names}) select {values} on conflict ({key}) {self.on_conflict}"


@cache
def _positions(table: RowTable) -> tuple[int, ...]:
    names = [column.name for column in table.columns]
    return tuple(names.index(name) for name in table.key)


def _unnested(column: Column) -> str:
    if column.sql_type.startswith("TIMESTAMP"):
        return f"make_timestamp(unnest(${column.name}::BIGINT[]))"
    if column.sql_type == "JSON":
        return f"unnest(${column.name}::VARCHAR[])::JSON"
    return f"unnest(${column.name}::{column.sql_type.split()[0]}[])"


def storable(row: Row) -> Row:
    """The row with texts that are valid Unicode: one that is not would fail every commit it is part of."""
    try:
        "".join([value for value in row if type(value) is str]).encode()
    except UnicodeEncodeError:
        return tuple(
            value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in row
        )
    return row


def microseconds(at_ns: int) -> int:
    """Microseconds, inside what a TIMESTAMP holds whatever a peer's clock says."""
    return min(max(at_ns, 0), 2**62) // 1000


def json_text(value: object) -> str:
    if not value:
        return "[]" if isinstance(value, list) else "{}"
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
