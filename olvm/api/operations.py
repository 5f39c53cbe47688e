"""Operations and events of a data center: what was asked for, and what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from olvm.api.operation import Operation
from olvm.api.tables import Table
from olvm.model import client_protocol as p
from olvm.model.messages import OperationView
from olvm.model.records import OperationRecord

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

FOLLOW_WAIT_S = 20.0


class Operations(Table[OperationRecord]):
    record = OperationRecord
    free_text = "target_name"

    def _order(self) -> str:
        return "created_ns desc"

    def row(self, operation_id: str) -> OperationRecord:
        return self._one("operation", operation_id, "id")

    def list(self, where: str = "", limit: int = 1000) -> list[OperationRecord]:
        """Newest first."""
        return self.rows(where, limit)

    def wait(self, operation_id: str, timeout: float | None = None) -> OperationView:
        """Wait for an operation that any process began; raises what it failed with, or `WaitTimeout`."""
        return self.follow(operation_id).wait(timeout).view

    def follow(self, operation_id: str) -> Operation:
        """The operation that any process began, to be waited for here; `NotFound` when there is none."""
        accepted = self._dc._link.ask(p.Watch(operation_id))
        return Operation(self._dc._client, accepted, f"operation {operation_id}").accepted()


class Events:
    """The stream of committed events."""

    def __init__(self, dc: DataCenter, sleep: Callable[[float], None] = time.sleep) -> None:
        self._dc = dc
        self._sleep = sleep

    def read(self, after: int, *, follow: bool, page_rows: int) -> Iterator[dict[str, Any]]:
        cursor = after
        while True:
            wait_s = FOLLOW_WAIT_S if follow else 0.0
            page: p.EventPage = self._dc.ask(p.Events(cursor, page_rows, wait_s), "events", wait_s + 60)
            yield from page.events
            if not page.events and not follow:
                return
            cursor = page.cursor
