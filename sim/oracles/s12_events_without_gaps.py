"""S12: the engine's event log has no gap, no repetition and no rewriting, across all its crashes."""

from __future__ import annotations

from typing import ClassVar, cast

from olvm.journal.port import Batch
from olvm.model.record import Record
from olvm.model.records import EventRecord
from sim.oracles.oracle import Oracle, Rows, Witness


class EventsWithoutGaps(Oracle):
    ID: ClassVar[str] = "S12"
    PROMISE: ClassVar[str] = (
        "events are numbered without gaps, each number once, and can be read on from any number"
    )

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._last_seq = 0

    def committed(self, silo: str, batch: Batch) -> None:
        rows = batch.upserts.get(EventRecord)
        if silo != "engine" or not rows:
            return
        for row in cast("dict[str, EventRecord]", rows).values():
            if row.seq != self._last_seq + 1:
                self.fail(f"event {row.seq} ({row.code}) follows event {self._last_seq}")
            self._last_seq = row.seq

    def recovered(self, silo: str, records: dict[type[Record], Rows], next_event_seq: int) -> None:
        del records
        if silo == "engine" and next_event_seq != self._last_seq + 1:
            self.fail(
                f"after a restart the next event is {next_event_seq}, the last one was {self._last_seq}"
            )
