"""Rows that SQL gave, in the form that a script wants them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from olvm.model.table import QueryResult


class Result:
    """A table in memory. Iterating gives rows as tuples."""

    def __init__(self, table: QueryResult) -> None:
        self._table = table
        self.columns = table.columns
        self.types = table.types
        self.truncated = table.truncated

    def rows(self) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._table.rows]

    def dicts(self) -> list[dict[str, Any]]:
        return self._table.dicts()

    def one(self) -> Any:
        """The single value of a single row."""
        ((value,),) = self.rows()
        return value

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows())

    def __len__(self) -> int:
        return len(self._table.rows)

    def _relation(self) -> Any:
        """The rows in a DuckDB of this process, so that frames and Arrow come from one place."""
        import duckdb

        con = duckdb.connect(":memory:")
        names = distinct(self.columns)
        columns = ", ".join(f"{_quoted(name)} {kind}" for name, kind in zip(names, self.types, strict=True))
        con.execute(f"create table answer ({columns})")
        appender = con.appender("answer")
        appender.append_rows(self.rows())
        appender.flush()
        return con.table("answer")

    def df(self) -> Any:
        """A pandas DataFrame (pandas must be installed)."""
        return self._relation().df()

    def arrow(self) -> Any:
        """A pyarrow Table (pyarrow must be installed); `__arrow_c_stream__` needs nothing."""
        return self._relation().to_arrow_table()

    def pl(self) -> Any:
        """A polars DataFrame (polars must be installed)."""
        import importlib

        return importlib.import_module("polars").DataFrame(self._relation())

    def write_parquet(self, path: str | Path) -> None:
        """The rows as a Parquet file, with the types that SQL gave; an existing file is written over."""
        self._relation().write_parquet(str(path))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._relation().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return self._text(20)

    def __str__(self) -> str:
        return self._text(100)

    def _text(self, row_count_max: int) -> str:
        shown = [
            tuple("" if value is None else str(value) for value in row) for row in self.rows()[:row_count_max]
        ]
        widths = [
            max([len(name), *(len(row[index]) for row in shown)]) for index, name in enumerate(self.columns)
        ]
        lines = [
            "  ".join(name.ljust(width) for name, width in zip(self.columns, widths, strict=True)).rstrip()
        ]
        lines += [
            "  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip()
            for row in shown
        ]
        if len(self) > row_count_max:
            lines.append(f"… {len(self)} rows in all")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>"
            + "".join(f"<td>{escape('' if value is None else str(value))}</td>" for value in row)
            + "</tr>"
            for row in self.rows()[:200]
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def distinct(columns: Sequence[str]) -> list[str]:
    """The names, each once: SQL may give two columns one name, and none of them may be lost."""
    taken = set(columns)
    names: list[str] = []
    for column in columns:
        name, count = column, 1
        while name in names:
            count += 1
            name = f"{column}_{count}"
            if name in taken:  # SQL has a column of that name itself
                name = column
        names.append(name)
    return names


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
