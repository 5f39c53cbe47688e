"""What history keeps besides samples: the records that callers hand over, and the row each becomes.

Decides, for each such table, its columns and what a repeated row does. Events and operations are the control
plane's own records (`olvm.model.records`); configuration exists only here, and what guests tell is in `guest_rows`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from olvm.history.guest_rows import GUEST_FACTS
from olvm.history.row_table import Column, Row, RowTable, json_text, microseconds, text_or_none
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
        Column("request_id", "VARCHAR", "What the client called its request, where it said so."),
    ),
)

ROW_TABLES: Final = (EVENTS, CONFIGURATION, GUEST_FACTS, OPERATIONS)


def event_row(source: str, event: EventRecord) -> Row:
    """The row of `EVENTS`; an event that its silo gave no id is named by its place in the log."""
    return (
        event.id or f"{source}/{event.seq}",
        source,
        event.seq,
        microseconds(event.at_ns),
        event.code,
        event.severity.upper(),
        event.message,
        event.vm_id or None,
        event.vm_name or None,
        event.host or None,
        event.cluster or None,
        event.operation_id or None,
        text_or_none(event.details.get("correlation_id")),
        json_text(event.details),
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
        json_text(change.spec),
        change.removed,
        microseconds(change.valid_from_ns),
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
        microseconds(operation.created_ns),
        None if operation.started_ns is None else microseconds(operation.started_ns),
        microseconds(operation.finished_ns),
        operation.client_request_id or None,
    )
