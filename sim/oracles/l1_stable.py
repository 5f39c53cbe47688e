"""L1: with the faults gone and nothing asked, every host that has power is in service, and everything stays so."""

from __future__ import annotations

from typing import ClassVar, cast

from olvm.journal.port import Batch
from olvm.model.host_states import HostStatus
from olvm.model.limits import NS_PER_S
from olvm.model.records import HostRecord, VmRecord
from olvm.model.vm_states import VmStatus
from sim.oracles.oracle import Oracle, OracleKind, Witness

AT_REST = frozenset(
    {HostStatus.UP, HostStatus.MAINTENANCE, HostStatus.DOWN, HostStatus.ERROR, HostStatus.INSTALL_FAILED}
)
HALF_MIGRATED = frozenset({"POSTMIGRATE", "POSTCOPY"})
STILL_FOR_S = 60


class Stable(Oracle):
    ID: ClassVar[str] = "L1"
    KIND: ClassVar[OracleKind] = "liveness"
    PROMISE: ClassVar[str] = (
        "faults off and nothing asked: what is wanted becomes so within the bound, and stays so"
    )

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._status: dict[str, str] = {}
        self._last_change: tuple[int, str] = (0, "")

    def committed(self, silo: str, batch: Batch) -> None:
        for row in cast("dict[str, VmRecord]", batch.upserts.get(VmRecord, {})).values():
            if (row.silo or "engine") == silo:
                self._note(f"machine {row.name}", row.status.value)
        for host in cast("dict[str, HostRecord]", batch.upserts.get(HostRecord, {})).values():
            self._note(f"host {host.name}", host.status.value)

    def _note(self, who: str, status: str) -> None:
        if self._status.get(who) != status:
            self._status[who] = status
            self._last_change = (self.witness.now_ns, f"{who} became {status}")

    def settled(self) -> None:
        hosts = cast("dict[str, HostRecord]", self.witness.durable("engine", HostRecord))
        for name, host in sorted(hosts.items()):
            if host.status not in AT_REST:
                self.fail(f"host {name} is still {host.status.value}: {host.status_reason}")
            if host.status is HostStatus.DOWN and self.witness.is_powered(name):
                self.fail(f"host {name} has power and answers, and is still down")
        vms = cast("dict[str, VmRecord]", self.witness.durable("engine", VmRecord))
        for row in vms.values():
            if row.status in (VmStatus.UNKNOWN, VmStatus.NOT_RESPONDING):
                self.fail(f"machine {row.name} is still {row.status.value}: {row.status_reason}")
            if row.pause_code in HALF_MIGRATED:
                self.fail(f"machine {row.name} is left paused by a migration ({row.pause_code})")
        at_ns, what = self._last_change
        if self.witness.now_ns - at_ns < STILL_FOR_S * NS_PER_S:
            self.fail(f"not at rest: {what} {(self.witness.now_ns - at_ns) / NS_PER_S:.1f} s ago")
