"""What one transaction stores: taken out of the store's buffers, and put back where the disk refuses it.

Rule: between the two only the transaction knows of it, so that a thread may write it while the buffers fill again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import duckdb

from olvm.history import transaction
from olvm.history.columns import KeyedBatch
from olvm.history.guest_rows import GUEST_FACTS
from olvm.history.report_keys import NewKeys
from olvm.history.rollups import Due, hours_touched, write_due
from olvm.history.row_table import Row
from olvm.history.rows import ROW_TABLES

# By table; in each, by primary key: within one transaction each row of a table occurs once.
BufferedRows = dict[str, dict[tuple[Any, ...], Row]]


class Pending(NamedTuple):
    reports: Sequence[KeyedBatch]
    rows: BufferedRows
    event_seq: dict[str, int]  # of each source, the last that is stored with this
    keys: NewKeys


class Written(NamedTuple):
    clipped_count: int
    due: set[Due]  # hours that it has changed


def no_rows() -> BufferedRows:
    return {table.name: {} for table in ROW_TABLES}


def write(con: duckdb.DuckDBPyConnection, pending: Pending, known_due: Collection[Due]) -> Written:
    """One transaction; DuckDB's errors come through. `known_due`: hours that the file has as due already."""
    due = due_of(pending.reports)
    con.execute("begin")
    transaction.write_dictionaries(con, pending.keys)
    clipped_count = transaction.write_samples(con, pending.reports)
    write_due(con, due.difference(known_due))
    for table in ROW_TABLES:
        transaction.write_rows(con, table, list(pending.rows[table.name].values()))
    transaction.write_event_cursors(con, pending.event_seq)
    con.execute("commit")
    return Written(clipped_count, due)


def due_of(reports: Iterable[KeyedBatch]) -> set[Due]:
    """The hours that reports change."""
    times = {(keyed.batch.kind, keyed.batch.at_ns) for keyed in reports}
    return {due for kind, at_ns in times for due in hours_touched(kind, at_ns)}


def merged_rows(older: BufferedRows, newer: BufferedRows) -> BufferedRows:
    """Equal keys are equal rows, but of guest facts: there the one that was told last stays."""
    merged = {name: {**rows, **newer[name]} for name, rows in older.items()}
    facts = merged[GUEST_FACTS.name]
    for key, row in older[GUEST_FACTS.name].items():
        if row[1] > facts[key][1]:
            facts[key] = row
    return merged
