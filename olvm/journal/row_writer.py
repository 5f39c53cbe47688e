"""How the rows of a batch reach the tables of one connection, in the fewest and cheapest statements.

Rules:
- New rows, and rows whose last version is not known here, are one `delete` of their keys and one append to a kept
  appender, at every number: the fastest way for many, and `executemany` would cost 0.6 ms a row.
- A few rows whose last version is known are updated, and only in the columns that differ. An append costs each column
  that the table has, an update those that it names: one row of 75 columns takes 4.8 ms the one way and 1.3 the other,
  one of 6 columns 1.5 and 1.0 (docs/decisions/0033). A row that does not differ is not written.
- What is known is what this connection has written: after a failed commit a new writer begins knowing nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import duckdb

from olvm.journal.record_table import RecordTable, Row, delete_parameters

# Each keeps about 2 KB: its values, of which texts of JSON are nobody else's.
ROWS_KNOWN_MAX: Final = 2_000

# So many columns' worth of an append pays for one update more than the first.
_COLUMNS_PER_UPDATE: Final = 20


class RowWriter:
    """Writes within the transaction that its caller has begun on `connection`.

    After an error it may hold rows that nobody wants any more: `close` it, and make another.
    """

    __slots__ = ("_appenders", "_connection", "_known")

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._appenders: dict[str, duckdb.Appender] = {}
        # The longest untouched first. An OrderedDict, for a dict from which the first is taken slows down.
        self._known: OrderedDict[tuple[str, str], Row] = OrderedDict()

    def append(self, table: str, columns: list[str], rows: Sequence[Row]) -> None:
        if not rows:
            return
        appender = self._appenders.get(table)
        if appender is None:
            appender = self._appenders[table] = self._connection.appender(table, columns=columns)
        appender.append_rows(rows)
        appender.flush()

    def write(self, table: RecordTable, rows: Mapping[str, Row], erased: Iterable[str]) -> None:
        """Make `rows`, by key, the versions that the table holds, and erase the keys of `erased`."""
        gone = {*erased}
        differing = None if table.is_append_only else self._differences(table, rows)
        if differing is None and not table.is_append_only:
            gone.update(rows)
        if gone:
            self._connection.execute(table.delete_sql(len(gone)), delete_parameters(sorted(gone)))
        if differing is None:
            self.append(table.name, table.column_names, list(rows.values()))
        else:
            for key, columns in differing.items():
                self._update(table, key, columns, rows[key])
        if not table.is_append_only:
            self._know(table.name, rows, gone)

    def forget_rows(self) -> None:
        """Rows were erased by someone else."""
        self._known.clear()

    def close(self) -> None:
        # A row that was refused leaves those before it in the appender: they must not come with the next batch.
        for appender in self._appenders.values():
            appender.clear()
        self._appenders.clear()
        self._known.clear()

    def _differences(self, table: RecordTable, rows: Mapping[str, Row]) -> dict[str, list[int]] | None:
        """The columns, by index, in which each row differs from its known version; None where an append is cheaper."""
        updates_max = 1 + len(table.columns) // _COLUMNS_PER_UPDATE
        differing: dict[str, list[int]] = {}
        for key, row in rows.items():
            known = self._known.get((table.name, key))
            if known is None:
                return None
            columns = [index for index, value in enumerate(row) if value != known[index]]
            if columns:
                differing[key] = columns
            if len(differing) > updates_max:
                return None
        return differing

    def _update(self, table: RecordTable, key: str, columns: list[int], row: Row) -> None:
        values = [*(row[index] for index in columns), key]
        told = self._connection.execute(table.update_sql(columns), values).fetchone()
        count = told[0] if told else 0
        assert count == 1, f"{table.name} {key!r}: {count} rows updated, where one is known"

    def _know(self, table: str, rows: Mapping[str, Row], gone: Iterable[str]) -> None:
        known = self._known
        for key in (*gone, *rows):
            known.pop((table, key), None)
        for key, row in rows.items():
            known[table, key] = row
        while len(known) > ROWS_KNOWN_MAX:
            known.popitem(last=False)
