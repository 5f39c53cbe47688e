"""S15: history has everything once, and the engine's logs as the engine's journal has them."""

from __future__ import annotations

from typing import ClassVar, cast

from olvm.journal.port import Batch
from olvm.model.records import EventRecord, OperationRecord
from sim.oracles.oracle import Oracle, ReportName, Witness


class HistoryOnce(Oracle):
    ID: ClassVar[str] = "S15"
    PROMISE: ClassVar[str] = (
        "history has each report, event and operation once; events in sequence, and as the engine committed them"
    )

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._reports: set[ReportName] = set()
        self._events: dict[int, EventRecord] = {}  # committed by the engine and not yet in history
        self._ended: set[str] = set()
        self._last_seq = 0

    def committed(self, silo: str, batch: Batch) -> None:
        if silo != "engine" or not self.witness.has_history:
            return
        for event in cast("dict[str, EventRecord]", batch.upserts.get(EventRecord, {})).values():
            self._events[event.seq] = event
        for row in cast("dict[str, OperationRecord]", batch.upserts.get(OperationRecord, {})).values():
            if row.finished_ns is not None:
                self._ended.add(row.id)

    def report_stored(self, name: ReportName, payload: bytes) -> None:
        del payload
        if name in self._reports:
            self.fail(f"history stores report {name} a second time")
        self._reports.add(name)

    def event_stored(self, source: str, event: EventRecord) -> None:
        if event.seq != self._last_seq + 1:
            self.fail(f"history stores event {event.seq} of {source} after event {self._last_seq}")
        self._last_seq = event.seq
        if self._events.pop(event.seq, None) != event:
            self.fail(f"event {event.seq} ({event.code}) is not as the engine committed it")

    def operation_stored(self, operation: OperationRecord) -> None:
        if operation.id not in self._ended:
            self.fail(f"history stores operation {operation.id}, whose end the engine has not committed")
