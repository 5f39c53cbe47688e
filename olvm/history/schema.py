"""The tables and views of history.duckdb, with a comment on every column.

Decides names and types; versions are counted here and nowhere else. Samples are stored narrow: identities and
texts are integer keys into `vm_names` and `texts`. The views `statistics_*` put the names back and are the
face that does not change; they carry the names of oVirt's data warehouse.
"""

# Statements are built from names of our own tables; values are parameters.
# ruff: noqa: S608

from __future__ import annotations

from typing import Final

from olvm.history.guest_rows import VIEWS
from olvm.history.row_table import RowTable
from olvm.history.rows import ROW_TABLES
from olvm.history.samples import HOST_KIND, VM_KIND, SampleKind

SCHEMA_VERSION: Final = 2

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


def creation_statements() -> list[str]:
    """Everything that an empty file needs, in order."""
    statements = list(_FIXED_STATEMENTS)
    for table in ROW_TABLES:
        statements += _row_table(table)
    for kind in (HOST_KIND, VM_KIND):
        statements += _sample_table(kind)
    statements += [_host_view(), _vm_view(), _configuration_view()]
    for view in VIEWS:
        statements += view.creation_statements
    statements.append(f"insert into meta values ('schema_version', '{SCHEMA_VERSION}')")
    return statements


def _row_table(table: RowTable) -> list[str]:
    columns = ", ".join(f"{column.name} {column.sql_type}" for column in table.columns)
    key = ", ".join(table.key)
    return [
        f"create table {table.name} ({columns}, primary key ({key}))",
        f"comment on table {table.name} is {_quoted(table.comment)}",
        *(comment_statement(table.name, column.name, column.comment) for column in table.columns),
    ]


def _sample_table(kind: SampleKind) -> list[str]:
    columns = [("history_datetime", "TIMESTAMP NOT NULL", _TIME_COMMENT)]
    if kind is VM_KIND:
        columns.append(("vm_key", "INTEGER NOT NULL", "The VM, see vm_names."))
    columns.append(("host_key", "INTEGER NOT NULL", "The host that took the sample, see texts."))
    columns += [(f"{name}_key", "INTEGER", f"{comment} See texts.") for name, comment in kind.texts]
    columns += [
        (column.name, "FLOAT" if column.code == "f" else "BIGINT", column.comment) for column in kind.columns
    ]
    return [
        f"create table {kind.table} ({', '.join(f'{name} {sql_type}' for name, sql_type, _ in columns)})",
        f"comment on table {kind.table} is 'One row per {kind.name} and sample; read it through its view.'",
        *(comment_statement(kind.table, name, comment) for name, _, comment in columns),
    ]


def _vm_view() -> str:
    texts, joins = _texts_of(VM_KIND)
    return (
        "create view statistics_vms_resources_usage_samples as select s.history_datetime, v.vm_id, v.vm_name,"
        f" h.text as currently_running_on_host, {texts}, {_numbers_of(VM_KIND)} from vm_samples s"
        f" left join vm_names v on v.vm_key = s.vm_key left join texts h on h.text_key = s.host_key {joins}"
    )


def _host_view() -> str:
    texts, joins = _texts_of(HOST_KIND)
    return (
        "create view statistics_hosts_resources_usage_samples as select s.history_datetime,"
        f" h.text as host_name, {texts}, {_numbers_of(HOST_KIND)} from host_samples s"
        f" left join texts h on h.text_key = s.host_key {joins}"
    )


def _configuration_view() -> str:
    return (
        "create view configuration_history_versions as select *, lead(valid_from) over"
        " (partition by object_kind, object_id order by valid_from) as valid_until from configuration_history"
    )


def _texts_of(kind: SampleKind) -> tuple[str, str]:
    names = ", ".join(f"t_{name}.text as {name}" for name, _ in kind.texts)
    joins = " ".join(
        f"left join texts t_{name} on t_{name}.text_key = s.{name}_key" for name, _ in kind.texts
    )
    return names, joins


def _numbers_of(kind: SampleKind) -> str:
    return ", ".join(f"s.{column.name}" for column in kind.columns)


def comment_statement(table: str, column: str, comment: str) -> str:
    return f"comment on column {table}.{column} is {_quoted(comment)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
