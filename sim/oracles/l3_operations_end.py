"""L3: each accepted command comes to an end, and one that failed says why."""

from __future__ import annotations

from typing import ClassVar, cast

from olvm.model.records import OperationRecord
from sim.oracles.oracle import Oracle, OracleKind


class OperationsEnd(Oracle):
    ID: ClassVar[str] = "L3"
    KIND: ClassVar[OracleKind] = "liveness"
    PROMISE: ClassVar[str] = "each accepted command reaches an end, and a failed one names a reason"

    def settled(self) -> None:
        rows = cast("dict[str, OperationRecord]", self.witness.durable("engine", OperationRecord))
        for row in rows.values():
            if row.finished_ns is None:
                self.fail(f"operation {row.kind} of {row.target_name} ({row.id}) never ended: {row.reason}")
            if row.status == "failed" and not (row.reason and row.error_code):
                self.fail(f"operation {row.kind} of {row.target_name} ({row.id}) failed without a reason")
