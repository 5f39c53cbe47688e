"""S4: a command that a client was told is accepted is on the engine's disk, after each crash and at the end."""

from __future__ import annotations

from typing import ClassVar

from olvm.model import messages as m
from olvm.model.record import Record
from olvm.model.records import OperationRecord
from sim.oracles.oracle import Oracle, Rows, Witness


class AcknowledgedStays(Oracle):
    ID: ClassVar[str] = "S4"
    PROMISE: ClassVar[str] = "an acknowledged command survives every crash of the failure model"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._client_by_operation: dict[str, str] = {}

    def answered(self, client: str, reply: m.AnyMessage) -> None:
        if isinstance(reply, m.OperationView):
            self._client_by_operation.setdefault(reply.id, client)

    def recovered(self, silo: str, records: dict[type[Record], Rows], next_event_seq: int) -> None:
        del next_event_seq
        if silo == "engine":
            self._hold_against(records.get(OperationRecord, {}))

    def settled(self) -> None:
        self._hold_against(self.witness.durable("engine", OperationRecord))

    def _hold_against(self, rows: Rows) -> None:
        for operation, client in self._client_by_operation.items():
            if operation not in rows:
                self.fail(
                    f"operation {operation} was acknowledged to {client} and is not on the engine's disk"
                )
