"""From an older history.duckdb to today's, step by step. Decides what each step changes; nothing is lost by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from olvm.history.guest_rows import GUEST_FACTS, SINCE_VERSION_2, SINCE_VERSION_7, VIEWS
from olvm.history.kinds import KINDS
from olvm.history.row_table import Column
from olvm.history.rows import OPERATIONS
from olvm.history.schema import (
    SCHEMA_VERSION,
    comment_statement,
    rollup_statements,
    sample_table_columns,
    sample_table_comment,
    table_statements,
    view_statements,
)


def migration_statements(version: int) -> list[str]:
    """What makes a file of this version one of `SCHEMA_VERSION`, in order and in one transaction."""
    statements = []
    for step in range(version, SCHEMA_VERSION):
        statements += _STEPS[step]()
    if statements:
        raised = f"update meta set value = '{SCHEMA_VERSION}' where key = 'schema_version'"  # noqa: S608 - our own number
        statements += [*view_statements(), raised]  # views are of the tables as they are in the end
    return statements


def _guests_in_columns() -> list[str]:
    """Before, most of what a guest said was not kept."""
    statements = _guest_columns(SINCE_VERSION_2)
    for view in VIEWS:
        statements += view.creation_statements
    return statements


def _guest_columns(columns: Sequence[Column]) -> list[str]:
    statements = []
    for column in columns:
        statements.append(f"alter table {GUEST_FACTS.name} add column {column.name} {column.sql_type}")
        statements.append(comment_statement(GUEST_FACTS.name, column.name, column.comment))
    return statements


def _rollups() -> list[str]:
    """Before, there were samples of hosts and VMs, and no hours or days. What is held of samples is rolled up."""
    statements = _samples_and_rollups()
    statements.append(
        "insert into rollups_due select distinct 'hourly', kind, date_trunc('hour', history_datetime)"
        " from sample_reports on conflict do nothing"
    )
    return statements


def _more_figures() -> list[str]:
    """Before, there were fewer figures of hosts and VMs, and none of NUMA nodes and storage pools."""
    return _samples_and_rollups()


def _requests_of_operations() -> list[str]:
    """Before, operations did not name their request."""
    column = OPERATIONS.columns[-1]
    return [
        f"alter table {OPERATIONS.name} add column if not exists {column.name} {column.sql_type}",
        comment_statement(OPERATIONS.name, column.name, column.comment),
    ]


def _clipped_by_machine() -> list[str]:
    """Before, what was clipped was counted in one number."""
    return rollup_statements(completed=True)


def _cores_and_refusals() -> list[str]:
    """Before, the load of single cores was not kept, nor how many values of a guest were refused."""
    return [*_samples_and_rollups(), *_guest_columns(SINCE_VERSION_7)]


def _samples_and_rollups() -> list[str]:
    """Each table as it is today, made or completed."""
    statements = []
    for kind in KINDS:
        comment, columns = sample_table_comment(kind), sample_table_columns(kind)
        statements += table_statements(kind.table, comment, columns, completed=True)
    return statements + rollup_statements(completed=True)


_STEPS: Final[dict[int, Callable[[], list[str]]]] = {
    1: _guests_in_columns,
    2: _rollups,
    3: _more_figures,
    4: _requests_of_operations,
    5: _clipped_by_machine,
    6: _cores_and_refusals,
}
assert sorted(_STEPS) == list(range(1, SCHEMA_VERSION)), "each version has one step to the next"
