"""S13: epochs and sequence marks on the disks never decrease, whatever is killed in between."""

from __future__ import annotations

from typing import ClassVar

from olvm.journal.port import Batch
from olvm.model.record import Record, key_of
from olvm.model.records import AgentRecord, DomainRecord, EngineRecord, HostRecord, VmRecord
from sim.oracles.oracle import Oracle, Rows, Witness

# Per record: the fields that only grow.
GROWING: dict[type[Record], tuple[str, ...]] = {
    EngineRecord: ("epoch", "accepted_count"),
    HostRecord: ("host_epoch", "fence_seq"),
    VmRecord: ("epoch", "epoch_issued"),
    AgentRecord: ("host_epoch",),
    DomainRecord: ("epoch",),
}
# Per record: marks that grow as one, the first of them first.
GROWING_TOGETHER: dict[type[Record], tuple[str, ...]] = {
    VmRecord: ("epoch", "seen_host_epoch", "seen_seq"),
}


class EpochsNeverFall(Oracle):
    ID: ClassVar[str] = "S13"
    PROMISE: ClassVar[str] = "epochs and versions never decrease, restarts included"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._seen: dict[tuple[str, str, str], tuple[int, ...]] = {}

    def committed(self, silo: str, batch: Batch) -> None:
        for kind, fields in GROWING.items():
            for row in batch.upserts.get(kind, {}).values():
                self._hold(silo, kind, row, fields)
            for key in batch.erasures.get(kind, ()):
                self._seen.pop((silo, kind.TABLE, key), None)
                self._seen.pop((silo, f"{kind.TABLE} marks", key), None)

    def recovered(self, silo: str, records: dict[type[Record], Rows], next_event_seq: int) -> None:
        del next_event_seq
        for kind, fields in GROWING.items():
            for row in records.get(kind, {}).values():
                self._hold(silo, kind, row, fields)

    def power_changed(self, host: str, is_on: bool, boot_id: str) -> None:
        """An agent's disk may be lost with the host's power; the world says so by `forget`."""
        del host, is_on, boot_id

    def forget(self, silo: str) -> None:
        for key in [key for key in self._seen if key[0] == silo]:
            del self._seen[key]

    def _hold(self, silo: str, kind: type[Record], row: Record, fields: tuple[str, ...]) -> None:
        key = (silo, kind.TABLE, key_of(row))
        values = tuple(getattr(row, field) for field in fields)
        before = self._seen.get(key)
        if before is not None and any(now < then for now, then in zip(values, before, strict=True)):
            self.fail(f"{kind.TABLE} {key[2]} of {silo}: {', '.join(fields)} fell from {before} to {values}")
        self._seen[key] = values
        self._hold_together(silo, kind, row)

    def _hold_together(self, silo: str, kind: type[Record], row: Record) -> None:
        fields = GROWING_TOGETHER.get(kind, ())
        if not fields or (isinstance(row, VmRecord) and (row.silo or "engine") != silo):
            return
        key = (silo, f"{kind.TABLE} marks", key_of(row))
        values = tuple(getattr(row, field) for field in fields)
        before = self._seen.get(key, ())
        if values < before:
            self.fail(f"{kind.TABLE} {key[2]} of {silo}: {', '.join(fields)} fell from {before} to {values}")
        self._seen[key] = values
