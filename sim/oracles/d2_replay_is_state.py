"""D2: each silo's tables are the fold of its journal."""

from __future__ import annotations

from typing import ClassVar

from sim.oracles.oracle import Oracle, OracleKind


class ReplayIsState(Oracle):
    ID: ClassVar[str] = "D2"
    KIND: ClassVar[OracleKind] = "determinism"
    PROMISE: ClassVar[str] = "replaying a silo's journal gives its tables"

    def settled(self) -> None:
        for silo in self.witness.silos():
            differences = self.witness.verify_journal(silo)
            if differences:
                self.fail(f"journal and tables of {silo} differ: {differences[0]} (of {len(differences)})")
