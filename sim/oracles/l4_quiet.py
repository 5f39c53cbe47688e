"""L4: at rest nothing durable is said any more: three intervals in a row without one message that needs an answer."""

from __future__ import annotations

from typing import ClassVar

from olvm.journal.port import Batch
from olvm.model.limits import NS_PER_S
from sim.oracles.oracle import Oracle, OracleKind, Witness

INTERVAL_S = 20
INTERVALS = 3


class Quiet(Oracle):
    ID: ClassVar[str] = "L4"
    KIND: ClassVar[OracleKind] = "liveness"
    PROMISE: ClassVar[str] = "at rest there are no effects but heartbeats and reports"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._last: tuple[int, str] = (0, "nothing")

    def committed(self, silo: str, batch: Batch) -> None:
        if batch.outgoing:
            what = batch.turns[-1].kind if batch.turns else "?"
            self._last = (
                self.witness.now_ns,
                f"{silo} wrote to {batch.outgoing[-1].destination} after {what}",
            )

    def settled(self) -> None:
        at_ns, what = self._last
        quiet_s = (self.witness.now_ns - at_ns) / NS_PER_S
        if quiet_s < INTERVAL_S * INTERVALS:
            self.fail(f"not quiet: {what} {quiet_s:.1f} s ago")
        for silo in self.witness.silos():
            waiting = self.witness.outgoing_count(silo)
            if waiting:
                self.fail(f"{waiting} messages of {silo} were never acknowledged")
