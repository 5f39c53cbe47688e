"""What history keeps besides samples: the records that callers hand over, and the row each becomes.

Decides, for each such table, its columns and what a repeated row does. Events and operations are the control
plane's own records (`olvm.model.records`); configuration and guest facts exist only here.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from olvm.model.records import EventRecord, OperationRecord


class ConfigurationChange(msgspec.Struct, kw_only=True, frozen=True):
    """One object as it is from `valid_from_ns` on; the change is named by kind, id and that time."""

    object_kind: str
    object_id: str
    name: str
    valid_from_ns: int
    cluster: str = ""
    host: str = ""
    status: str = ""
    spec: dict[str, Any] = {}
    removed: bool = False


class GuestFacts(msgspec.Struct, kw_only=True, frozen=True):
    """What the guest agent of one VM last told. All of it is the guest's word."""

    vm_id: str
    told_ns: int
    vm_name: str = ""
    host: str = ""
    guest_host_name: str = ""
    guest_fqdn: str = ""
    os_distribution: str = ""
    os_version: str = ""
    os_kernel: str = ""
    os_architecture: str = ""
    timezone: str = ""
    ip_addresses: list[str] = []
    logged_in_users: list[str] = []
    applications: list[str] = []
    agent_api_version: int | None = None
    details: dict[str, Any] = {}


class Column(NamedTuple):
    name: str
    sql_type: str
    comment: str


Row = tuple[Any, ...]


class RowTable(NamedTuple):
    """`key` is the primary key; `on_conflict` is what a row with a known key does."""

    name: str
    comment: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    on_conflict: str = "do nothing"

    def key_of(self, row: Row) -> Row:
        """The primary key of one row."""
        return tuple([row[position] for position in _positions(self)])

    @property
    def insert_sql(self) -> str:
        """One parameter per column, each a list: a fixed cost per statement, not per row."""
        names = ", ".join(column.name for column in self.columns)
        values = ", ".join(_unnested(column) for column in self.columns)
        key = ", ".join(self.key)
        return f"insert into {self.name} ({names}) select {values} on conflict ({key}) {self.on_conflict}"


@cache
def _positions(table: RowTable) -> tuple[int, ...]:
    names = [column.name for column in table.columns]
    return tuple(names.index(name) for name in table.key)


def _unnested(column: Column) -> str:
    if column.sql_type.startswith("TIMESTAMP"):
        return f"make_timestamp(unnest(${column.name}::BIGINT[]))"
    if column.sql_type == "JSON":
        return f"unnest(${column.name}::VARCHAR[])::JSON"
    return f"unnest(${column.name}::{column.sql_type.split()[0]}[])"


EVENTS: Final = RowTable(
    "events",
    "Audit log: what happened, once per event id.",
    ("event_id",),
    (
        Column("event_id", "VARCHAR NOT NULL", "Unique for ever; a repeated event is stored once."),
        Column("source", "VARCHAR NOT NULL", "The silo that recorded it."),
        Column("seq", "BIGINT NOT NULL", "Gap-free position in the log of its source."),
        Column("log_time", "TIMESTAMP NOT NULL", "When it happened by its source's clock, UTC."),
        Column("code", "VARCHAR NOT NULL", "Kind of event."),
        Column("severity", "VARCHAR NOT NULL", "NORMAL, WARNING, ERROR or ALERT."),
        Column("message", "VARCHAR NOT NULL", "For a person to read."),
        Column("vm_id", "VARCHAR", "The VM concerned."),
        Column("vm_name", "VARCHAR", "Its name at the time."),
        Column("host_name", "VARCHAR", "The host concerned."),
        Column("cluster_name", "VARCHAR", "The cluster concerned."),
        Column("operation_id", "VARCHAR", "The operation that caused it."),
        Column("correlation_id", "VARCHAR", "What the client called its request, where it said so."),
        Column("details", "JSON", "Further facts, by name."),
    ),
)

CONFIGURATION: Final = RowTable(
    "configuration_history",
    "Every version of every object: a row is valid until the next of the same object.",
    ("object_kind", "object_id", "valid_from"),
    (
        Column("object_kind", "VARCHAR NOT NULL", "vm, host or cluster."),
        Column("object_id", "VARCHAR NOT NULL", "Identity of the object."),
        Column("name", "VARCHAR", "Name in this version."),
        Column("cluster_name", "VARCHAR", "Cluster it belongs to."),
        Column("host_name", "VARCHAR", "Host it runs on."),
        Column("status", "VARCHAR", "Status at the start of this version."),
        Column("spec", "JSON", "The whole specification."),
        Column("removed", "BOOLEAN NOT NULL", "The object was removed at valid_from."),
        Column("valid_from", "TIMESTAMP NOT NULL", "Start of this version, UTC."),
    ),
)

_FACT_COLUMNS: Final = (
    Column("vm_id", "VARCHAR NOT NULL", "Identity of the VM."),
    Column("told_at", "TIMESTAMP NOT NULL", "When the agent told, UTC."),
    Column("vm_name", "VARCHAR", "Name of the VM in the engine."),
    Column("host_name", "VARCHAR", "Host that heard it."),
    Column("guest_host_name", "VARCHAR", "Host name inside the guest."),
    Column("guest_fqdn", "VARCHAR", "Fully qualified name inside the guest."),
    Column("os_distribution", "VARCHAR", "Operating system."),
    Column("os_version", "VARCHAR", "Its version."),
    Column("os_kernel", "VARCHAR", "Its kernel."),
    Column("os_architecture", "VARCHAR", "Its architecture."),
    Column("timezone", "VARCHAR", "Time zone of the guest."),
    Column("ip_addresses", "JSON", "List of addresses."),
    Column("logged_in_users", "JSON", "List of user names."),
    Column("applications", "JSON", "List of installed applications, name-version."),
    Column("agent_api_version", "INTEGER", "Version that the guest agent speaks."),
    Column("details", "JSON", "Everything else, by name."),
)

GUEST_FACTS: Final = RowTable(
    "guest_facts",
    "The latest word of each VM's guest agent.",
    ("vm_id",),
    _FACT_COLUMNS,
    "do update set "
    + ", ".join(f"{column.name} = excluded.{column.name}" for column in _FACT_COLUMNS[1:])
    + " where excluded.told_at >= guest_facts.told_at",
)

OPERATIONS: Final = RowTable(
    "operations_history",
    "Operations that have ended.",
    ("operation_id",),
    (
        Column("operation_id", "VARCHAR NOT NULL", "Identity of the operation."),
        Column("kind", "VARCHAR NOT NULL", "What was asked for."),
        Column("target_kind", "VARCHAR", "vm, host or cluster."),
        Column("target_id", "VARCHAR", "Identity of what it changed."),
        Column("target_name", "VARCHAR", "Its name at the time."),
        Column("status", "VARCHAR NOT NULL", "succeeded or failed."),
        Column("reason", "VARCHAR", "Why it failed, for a person."),
        Column("error_code", "VARCHAR", "Why it failed, for a program."),
        Column("created_at", "TIMESTAMP", "When it was accepted, UTC."),
        Column("started_at", "TIMESTAMP", "When work began, UTC."),
        Column("finished_at", "TIMESTAMP NOT NULL", "When it ended, UTC."),
    ),
)

ROW_TABLES: Final = (EVENTS, CONFIGURATION, GUEST_FACTS, OPERATIONS)


def event_row(source: str, event: EventRecord) -> Row:
    """The row of `EVENTS`; an event that its silo gave no id is named by its place in the log."""
    return (
        event.id or f"{source}/{event.seq}",
        source,
        event.seq,
        _us(event.at_ns),
        event.code,
        event.severity.upper(),
        event.message,
        event.vm_id or None,
        event.vm_name or None,
        event.host or None,
        event.cluster or None,
        event.operation_id or None,
        _text_or_none(event.details.get("correlation_id")),
        _json(event.details),
    )


def configuration_row(change: ConfigurationChange) -> Row:
    """The row of `CONFIGURATION`."""
    return (
        change.object_kind,
        change.object_id,
        change.name,
        change.cluster or None,
        change.host or None,
        change.status or None,
        _json(change.spec),
        change.removed,
        _us(change.valid_from_ns),
    )


def guest_facts_row(facts: GuestFacts) -> Row:
    """The row of `GUEST_FACTS`."""
    return (
        facts.vm_id,
        _us(facts.told_ns),
        facts.vm_name or None,
        facts.host or None,
        facts.guest_host_name or None,
        facts.guest_fqdn or None,
        facts.os_distribution or None,
        facts.os_version or None,
        facts.os_kernel or None,
        facts.os_architecture or None,
        facts.timezone or None,
        _json(facts.ip_addresses),
        _json(facts.logged_in_users),
        _json(facts.applications),
        facts.agent_api_version,
        _json(facts.details),
    )


def operation_row(operation: OperationRecord) -> Row:
    """The row of `OPERATIONS`; only an operation that has ended has one."""
    assert operation.finished_ns is not None, f"operation {operation.id} has not ended"
    return (
        operation.id,
        operation.kind,
        operation.target_kind,
        operation.target_id,
        operation.target_name,
        operation.status,
        operation.reason or None,
        operation.error_code or None,
        _us(operation.created_ns),
        None if operation.started_ns is None else _us(operation.started_ns),
        _us(operation.finished_ns),
    )


def storable(row: Row) -> Row:
    """The row with texts that are valid Unicode: one that is not would fail every commit it is part of."""
    try:
        "".join([value for value in row if type(value) is str]).encode()
    except UnicodeEncodeError:
        return tuple(
            value.encode("utf-8", "replace").decode() if isinstance(value, str) else value for value in row
        )
    return row


def _us(at_ns: int) -> int:
    """Microseconds, inside what a TIMESTAMP holds whatever a peer's clock says."""
    return min(max(at_ns, 0), 2**62) // 1000


def _json(value: object) -> str:
    if not value:
        return "[]" if isinstance(value, list) else "{}"
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
