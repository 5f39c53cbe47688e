"""S14: what history says that it has is on its disk, as it was sent; so an agent may forget it."""

from __future__ import annotations

from typing import ClassVar

from olvm.history.samples import decode_batch
from sim.oracles.oracle import Oracle, ReportName, Witness, report_name


class HistoryKeeps(Oracle):
    ID: ClassVar[str] = "S14"
    PROMISE: ClassVar[str] = "a report of samples that history acknowledges is on its disk, as it was sent"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        # By agent: its newest incarnation, and what it sent under each number. An older one has nothing to forget.
        self._sent: dict[str, tuple[int, dict[int, tuple[ReportName, bytes]]]] = {}

    def samples_sent(self, agent: str, incarnation: int, number: int, payload: bytes) -> None:
        known = self._sent.get(agent)
        if known is None or incarnation > known[0]:
            known = self._sent[agent] = incarnation, {}
        if incarnation == known[0] and number not in known[1]:
            known[1][number] = report_name(decode_batch(payload)), payload

    def samples_acknowledged(self, agent: str, incarnation: int, numbers: list[int]) -> None:
        newest, sent = self._sent.get(agent, (0, {}))
        if incarnation != newest:
            return
        for number in numbers:
            name, payload = sent.pop(number, (None, b""))
            if name is None:
                continue  # acknowledged before
            stored = self.witness.stored_report(name)
            if stored is None:
                self.fail(f"report {name} of {agent} was acknowledged and is not in history")
            if stored != payload:
                self.fail(f"history has another report under the name {name} than {agent} sent")
