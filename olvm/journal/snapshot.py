"""What SQL over two files needs: which tables a statement reads, and one table as a file for the other process."""

from __future__ import annotations

from pathlib import Path

import duckdb

from olvm.journal.hidden_tables import check_shown
from olvm.journal.read_only import syntax_tree, table_names
from olvm.model.table import QueryResult


class SqlParser:
    """Reads statements without running them. May be used from any thread."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:")

    def table_names(self, sql: str) -> set[str]:
        """Bare names of the tables that `sql` reads, lower case. Raises BadQuery where it does not parse."""
        cursor = self._connection.cursor()
        try:
            return {name.lower() for name in table_names(cursor, sql)}
        finally:
            cursor.close()

    def check_shown(self, sql: str, hidden: frozenset[str]) -> None:
        """Raises Denied or BadQuery where `sql` could read a table of these names, in lower case."""
        cursor = self._connection.cursor()
        try:
            check_shown(syntax_tree(cursor, sql), hidden)
        finally:
            cursor.close()


def write_parquet(table: QueryResult, path: Path) -> None:
    """A small table as a file that another process reads."""
    with duckdb.connect(":memory:") as con:
        columns = ", ".join(f'"{name}" {kind}' for name, kind in zip(table.columns, table.types, strict=True))
        con.execute(f"create table copied ({columns})")
        with con.appender("copied") as appender:
            appender.append_rows(table.rows)
        con.execute(f"copy copied to '{str(path).replace(chr(39), chr(39) * 2)}' (format parquet)")
