"""The tables and views of history.duckdb, with a comment on every column.

Decides names and types; versions are counted here and nowhere else. Samples are stored narrow: identities and
texts are integer keys into `vm_names` and `texts`. The views `statistics_*` put the names back and are the
face that does not change; they carry the names of oVirt's data warehouse.
"""

# Statements are built from names of our own tables; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from olvm.history.clipped import CREATION_STATEMENTS as CLIPPED_STATEMENTS
from olvm.history.guest_rows import VIEWS
from olvm.history.kinds import KINDS, SampleKind
from olvm.history.own_views import OWN_VIEWS
from olvm.history.rollups import ROLLUP_TABLES, rollup_columns, rollup_table
from olvm.history.row_table import Column, RowTable
from olvm.history.rows import ROW_TABLES
from olvm.history.views import STATISTICS_VIEWS, HistoryView

SCHEMA_VERSION: Final = 7

_TIME_COMMENT: Final = "When the sample was taken by the host's clock, UTC."

_FIXED_STATEMENTS: Final = (
    "create table meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)",
    "comment on table meta is 'Facts about this file: schema_version, samples_erased_before_ns.'",
    "create table texts (text_key INTEGER NOT NULL, text VARCHAR NOT NULL)",
    "comment on table texts is 'Dictionary of the texts in samples: hosts, statuses, addresses, users.'",
    "create table vm_names (vm_key INTEGER NOT NULL, vm_id VARCHAR NOT NULL, vm_name VARCHAR NOT NULL)",
    "comment on table vm_names is 'Dictionary of the VMs in samples, with the newest name.'",
    "create table sample_reports (kind VARCHAR NOT NULL, host_key INTEGER NOT NULL,"
    " host_epoch BIGINT NOT NULL, seq BIGINT NOT NULL, history_datetime TIMESTAMP NOT NULL,"
    " row_count INTEGER NOT NULL)",
    "comment on table sample_reports is 'One row per report stored: a repeated one is known by it.'",
    "create table event_sources (source VARCHAR PRIMARY KEY, last_seq BIGINT NOT NULL)",
    "comment on table event_sources is 'How far the log of each source has been read.'",
)

# Of version 3, with the hourly and daily tables.
_BOOKKEEPING_STATEMENTS: Final = (
    "create table if not exists rollups_due (grain VARCHAR, kind VARCHAR, bucket TIMESTAMP,"
    " primary key (grain, kind, bucket))",
    "comment on table rollups_due is 'Hours and days whose roll-up is to be made, or made again.'",
    "create table if not exists devices (kind VARCHAR, object_key INTEGER, device_key INTEGER, size BIGINT,"
    " first_seen TIMESTAMP, last_seen TIMESTAMP, primary key (kind, object_key, device_key))",
    "comment on table devices is 'Disks and interfaces that were ever reported, of VMs and hosts.'",
    "create table if not exists archive_files (kind VARCHAR, bucket TIMESTAMP, file VARCHAR NOT NULL,"
    " row_count BIGINT NOT NULL, primary key (kind, bucket))",
    "comment on table archive_files is 'Days of hourly rows that moved to Parquet, in the directory beside this file.'",
)


def creation_statements() -> list[str]:
    """Everything that an empty file needs, in order."""
    statements = list(_FIXED_STATEMENTS)
    for table in ROW_TABLES:
        statements += _row_table(table)
    for kind in KINDS:
        statements += table_statements(kind.table, sample_table_comment(kind), sample_table_columns(kind))
    statements += rollup_statements()
    statements.append(_configuration_view())
    for view in VIEWS:
        statements += view.creation_statements
    statements += view_statements()
    statements.append(f"insert into meta values ('schema_version', '{SCHEMA_VERSION}')")
    return statements


def rollup_statements(*, completed: bool = False) -> list[str]:
    """Tables of hours and days, and what keeps account of them; those that exist are left alone, or completed."""
    statements = [*_BOOKKEEPING_STATEMENTS, *CLIPPED_STATEMENTS]
    for kind, grain in ROLLUP_TABLES:
        comment = f"{grain} roll-up of {kind.table}; read it through its view."
        name, columns = rollup_table(kind, grain), rollup_columns(kind, grain)
        statements += table_statements(name, comment, columns, completed=completed)
    return statements


def view_statements() -> list[str]:
    """All documented views, over tables alone; what has moved to Parquet is shown by `archive`."""
    statements = []
    for view in (*STATISTICS_VIEWS, *OWN_VIEWS):
        statements += one_view_statements(view)
    return statements


def one_view_statements(view: HistoryView, moved: str | None = None) -> list[str]:
    """The view with its comments; `moved` is a SELECT of rows that belong to it and are not in its tables."""
    select = view.select if moved is None else f"{view.select} union all by name {moved}"
    return [
        f"create or replace view {view.name} as {select}",
        f"comment on view {view.name} is {quoted(view.comment)}",
        *(comment_statement(view.name, column.name, column.comment) for column in view.columns),
    ]


def table_statements(
    name: str, comment: str, columns: Sequence[Column], *, completed: bool = False
) -> list[str]:
    """The table with these columns; one that exists is left alone, or `completed` with those that it has not."""
    definitions = ", ".join(f"{column.name} {column.sql_type}" for column in columns)
    added = [
        f"alter table {name} add column if not exists {column.name} {column.sql_type}"
        for column in columns
        if completed and "NOT NULL" not in column.sql_type
    ]
    return [
        f"create table if not exists {name} ({definitions})",
        *added,
        f"comment on table {name} is {quoted(comment)}",
        *(comment_statement(name, column.name, column.comment) for column in columns),
    ]


def _row_table(table: RowTable) -> list[str]:
    columns = ", ".join(f"{column.name} {column.sql_type}" for column in table.columns)
    key = ", ".join(table.key)
    return [
        f"create table {table.name} ({columns}, primary key ({key}))",
        f"comment on table {table.name} is {quoted(table.comment)}",
        *(comment_statement(table.name, column.name, column.comment) for column in table.columns),
    ]


def sample_table_columns(kind: SampleKind) -> list[Column]:
    columns = [Column("history_datetime", "TIMESTAMP NOT NULL", _TIME_COMMENT)]
    if kind.has_vm:
        columns.append(Column("vm_key", "INTEGER NOT NULL", "The VM, see vm_names."))
    columns.append(Column("host_key", "INTEGER NOT NULL", "The host that took the sample, see texts."))
    columns += [Column(f"{name}_key", "INTEGER", f"{comment} See texts.") for name, comment in kind.texts]
    columns += [
        Column(column.name, "FLOAT" if column.code == "f" else "BIGINT", column.comment)
        for column in kind.columns
    ]
    return columns


def sample_table_comment(kind: SampleKind) -> str:
    return f"One row per {kind.name} and sample; read it through its view."


def _configuration_view() -> str:
    return (
        "create view configuration_history_versions as select *, lead(valid_from) over"
        " (partition by object_kind, object_id order by valid_from) as valid_until from configuration_history"
    )


def comment_statement(table: str, column: str, comment: str) -> str:
    return f"comment on column {table}.{column} is {quoted(comment)}"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
