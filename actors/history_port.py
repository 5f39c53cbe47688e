"""The telemetry silo's way to the history file.

A disk that refuses costs nothing that history can ask for again and, past its bounds, samples, which it counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import msgspec

from actors.history_notices import HistoryNotices
from actors.runner import clock_ns
from actors.sampling import GuestFactsBatch
from actors.silo import Silo, deliver_result
from actors.telemetry import (
    Flush,
    ReadCursor,
    StoreEvents,
    StoreGuestFacts,
    StoreOperations,
    StoreSamples,
    operation_log,
)
from olvm.history.guest_rows import GuestFacts
from olvm.history.port import History
from olvm.history.reports import Verdict
from olvm.history.rows import ConfigurationChange
from olvm.model.errors import BadInput, OlvmError
from olvm.model.limits import NS_PER_S
from olvm.model.messages import CallEnded
from olvm.model.records import EventRecord, OperationRecord

log = logging.getLogger("olvm.history")

OPERATIONS = msgspec.msgpack.Decoder(list[OperationRecord])
EVENTS = msgspec.msgpack.Decoder(list[EventRecord])
MAINTAIN_PERIOD_NS = 300 * NS_PER_S


class HistoryPort:
    def __init__(self, silo: Silo, store: History, now_ns: Callable[[], int] = clock_ns) -> None:
        self._silo = silo
        self._store = store
        self._now_ns = now_ns
        self._maintained_ns = now_ns()
        self._notices = HistoryNotices(store, now_ns)

    def submit(self, caller: str, request: object, tag: str) -> None:
        try:
            value = self._carry_out(request)
        except OlvmError as error:
            log.error("history: %s", error)  # noqa: TRY400 - the sentence says it all
            answer = CallEnded(tag, False, error.message.encode(), error.code)
        else:
            if value is None:
                return  # nobody waits for it
            answer = CallEnded(tag, True, value)
        deliver_result(self._silo, caller, answer, "history")
        if isinstance(request, Flush):
            self._tell_notices(caller)

    def _carry_out(self, request: object) -> bytes | None:
        store = self._store
        match request:
            case StoreSamples():
                if self._add_samples(request.payload) == "late" and request.report is not None:
                    return msgspec.msgpack.encode(request.report)
            case StoreGuestFacts():
                store.add_guest_facts(guest_facts_of(request.payload))
            case StoreEvents():
                return self._store_events(request)
            case StoreOperations():
                operations = OPERATIONS.decode(request.payload)
                cursor = store.add_operations(operations, operation_log(request.source))
                return msgspec.msgpack.encode(cursor)
            case ReadCursor():
                return msgspec.msgpack.encode(store.event_cursor(request.source))
            case Flush():
                self._flush()
                return b""
            case _:
                raise AssertionError(f"history cannot carry out {request!r}")
        return None

    def _add_samples(self, payload: bytes) -> Verdict | Literal["expired", "refused"]:
        try:
            return self._store.add_samples(payload, self._now_ns())
        except BadInput as error:
            self._notices.refused(error.message)
            return "refused"

    def _flush(self) -> None:
        try:
            self._store.commit()
        except OlvmError as error:
            self._notices.failed("commit", "history_unwritable", error.message)
            raise
        self._notices.succeeded("commit")
        self._maintain_when_due()

    def _maintain_when_due(self) -> None:
        """A pass that fails is tried again; what was committed before it is on the disk all the same."""
        store, now_ns = self._store, self._now_ns()
        elapsed_ns = now_ns - self._maintained_ns
        if not (store.is_behind or elapsed_ns > MAINTAIN_PERIOD_NS):
            return
        self._maintained_ns = now_ns
        was_ahead = store.clock_ahead_ns > 0
        try:
            store.maintain(now_ns, elapsed_ns)
        except OlvmError as error:
            log.error("history: %s", error)  # noqa: TRY400 - the sentence says it all
            self._notices.failed("maintain", "history_not_maintained", error.message)
            return
        self._notices.succeeded("maintain")
        if store.clock_ahead_ns > 0 and not was_ahead:
            self._notices.clock_ahead(store.clock_ahead_ns // NS_PER_S)

    def _tell_notices(self, caller: str) -> None:
        for notice in self._notices.take():
            log.warning("history: %s", notice.message)
            told = CallEnded("notice", True, msgspec.msgpack.encode(notice))
            deliver_result(self._silo, caller, told, "history")

    def _store_events(self, request: StoreEvents) -> bytes:
        events = EVENTS.decode(request.payload)
        cursor = self._store.add_events(request.source, events, first_kept_seq=events[0].seq)
        self._store.add_configuration(
            change for event in events if (change := configuration_of(event)) is not None
        )
        return msgspec.msgpack.encode(cursor)


def configuration_of(event: EventRecord) -> ConfigurationChange | None:
    """The version of an object that an event tells of; None for events that change no configuration."""
    kind = event.details.get("kind")
    removed = event.code in ("vm_removed", "host_removed", "cluster_removed")
    if not isinstance(kind, str):
        if not removed:
            return None
        kind = event.code.removesuffix("_removed")
    names = {"vm": (event.vm_id, event.vm_name), "host": (event.host, event.host)}
    object_id, name = names.get(kind, (event.cluster, event.cluster))
    spec = {key: value for key, value in event.details.items() if key != "kind"}
    return ConfigurationChange(
        object_kind=kind,
        object_id=object_id,
        name=name,
        valid_from_ns=event.at_ns,
        cluster=event.cluster,
        host=event.host if kind == "vm" else "",
        status=event.code.removeprefix(f"{kind}_"),
        spec=spec,
        removed=removed,
    )


def guest_facts_of(payload: bytes) -> list[GuestFacts]:
    """What an agent of another version does not tell is empty, and what it tells beyond is among the details."""
    batch = msgspec.msgpack.decode(payload, type=GuestFactsBatch)
    found = []
    for guest in batch.guests:
        told: dict[str, object] = {
            ours: guest[name] for name, ours in _COLUMN_BY_FACT.items() if name in guest
        }
        told["details"] = {name: value for name, value in guest.items() if name not in _COLUMN_BY_FACT}
        found.append(msgspec.convert({**told, "host": batch.host}, GuestFacts))
    return found


# By the name in `measurements.GuestFacts`, the one in history.
_RENAMED = {
    "hostname": "guest_host_name",
    "fqdn": "guest_fqdn",
    "os_name": "os_distribution",
    "kernel": "os_kernel",
    "os_arch": "os_architecture",
    "ips": "ip_addresses",
    "users": "logged_in_users",
}
_COLUMN_BY_FACT = _RENAMED | {
    name: name for name in GuestFacts.__struct_fields__ if name not in ("host", "details", *_RENAMED.values())
}
