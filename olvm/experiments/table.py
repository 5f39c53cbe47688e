"""A table of columns in memory, for Python, Arrow and DuckDB alike; no library beyond NumPy is needed to look at it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from olvm.experiments.database import cursor

Column = npt.NDArray[np.generic]
HTML_ROWS_MAX = 10


class Table:
    """Named columns of one length; nulls are masked (`numpy.ma`). `table["host"]` is a column, `len(table)` its rows.

    `to_pandas`, `to_polars` and the Arrow stream go through DuckDB; each needs the library that it names.
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = dict(columns)

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def keys(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def rows(self, first: int = 0, count: int | None = None) -> list[dict[str, Any]]:
        """Rows as dictionaries of plain values; None for null."""
        end = len(self) if count is None else min(len(self), first + count)
        lists = {name: column[first:end].tolist() for name, column in self._columns.items()}
        return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]

    def relation(self) -> Any:
        """A DuckDB relation in a connection of its own: `.df()`, `.pl()`, `.arrow()`, `.filter(…)`."""
        connection = cursor()
        connection.register("result", self._columns)
        return connection.table("result")

    def to_pandas(self) -> Any:
        return self.relation().df()

    def to_polars(self) -> Any:
        return self.relation().pl()

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        return self.relation().__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{escape(name)}</th>" for name in self._columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(value))}</td>" for value in row.values()) + "</tr>"
            for row in self.rows(0, HTML_ROWS_MAX)
        )
        return f"<table><tr>{head}</tr>{body}</table><p>{len(self):,} rows</p>"

    def __repr__(self) -> str:
        return f"Table({len(self):,} rows: {', '.join(self._columns)})"


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
