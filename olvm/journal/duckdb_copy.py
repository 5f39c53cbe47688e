"""A journal that lives in memory, shown to SQL: the tables of a journal file in a DuckDB without a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from olvm.journal import migrations
from olvm.journal.duckdb_file import connect
from olvm.journal.read_only import ReadOnlyQueries
from olvm.journal.record_table import RecordTable, Row


def copied(
    tables: Sequence[RecordTable], journal_id: str, rows_by_table: Mapping[str, Sequence[Row]]
) -> ReadOnlyQueries:
    """Queries over a fresh copy of these rows; closing them frees it."""
    connection = connect(Path(":memory:"), fsync=False, threads=1, read_only=False)
    migrations.create_tables(connection, tables)
    migrations.write_identity(connection, migrations.Identity(journal_id, "in memory", 0))
    append_only = sorted(table.name for table in tables if table.is_append_only)
    migrations.write_meta(connection, "append_only", msgspec.json.encode(append_only).decode())
    columns = {
        "journal": migrations.TURN_COLUMNS,
        "outbox": migrations.OUTBOX_COLUMNS,
        "baseline": migrations.BASELINE_COLUMNS,
        **{table.name: table.column_names for table in tables},
    }
    for name, rows in rows_by_table.items():
        if rows:
            appender = connection.appender(name, columns=columns[name])
            appender.append_rows(rows)
            appender.flush()
    return ReadOnlyQueries(connection, owns_connection=True)
