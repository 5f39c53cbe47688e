"""S5: a request that a client repeats under the same id is one operation, and gets the same answer."""

from __future__ import annotations

from typing import ClassVar

from olvm.journal.port import Batch
from olvm.model import messages as m
from olvm.model.records import OperationRecord
from sim.oracles.oracle import Oracle, Witness


class OneEffect(Oracle):
    ID: ClassVar[str] = "S5"
    PROMISE: ClassVar[str] = "a retried command (same id) has one effect and the same reply"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._request_by_client: dict[str, str] = {}
        self._operation_by_request: dict[str, str] = {}

    def asked(self, client: str, command: m.Command, request_id: str) -> None:
        del command
        if request_id:
            self._request_by_client[client] = request_id

    def answered(self, client: str, reply: m.AnyMessage) -> None:
        request = self._request_by_client.pop(client, "")
        if request and isinstance(reply, m.OperationView):
            self._hold(request, reply.id, f"the answer to {client}")

    def committed(self, silo: str, batch: Batch) -> None:
        if silo != "engine":
            return
        for row in batch.upserts.get(OperationRecord, {}).values():
            if isinstance(row, OperationRecord) and row.client_request_id:
                self._hold(row.client_request_id, row.id, "the engine's disk")

    def _hold(self, request: str, operation: str, where: str) -> None:
        known = self._operation_by_request.setdefault(request, operation)
        if known != operation:
            self.fail(f"request {request} has two operations: {known}, and {operation} by {where}")
