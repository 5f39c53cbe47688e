"""The answer to a query, as it crosses processes: names, SQL types and rows of plain values.

Rule: every value survives JSON and msgpack (`bytes` in JSON as base64), so that the same answer reaches a
notebook, the command line and another process.
"""

from __future__ import annotations

import msgspec


class QueryResult(msgspec.Struct, kw_only=True):
    """Rows of one `select`.

    `types` are SQL's own names (`BIGINT`, `VARCHAR`); decimals come as float, times as ISO 8601 text,
    integers beyond 64 bits as text. `truncated` says that the query had more rows than were asked for.
    """

    columns: list[str]
    types: list[str]
    rows: list[tuple[object, ...]]
    truncated: bool = False

    def dicts(self) -> list[dict[str, object]]:
        """One mapping a row; of two columns with one name the later stays."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)
