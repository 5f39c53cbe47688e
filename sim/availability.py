"""How long highly available machines are away when a fault ends their life: the figure that administrators ask for.

Measured on the truth: from the moment the last copy stopped executing because of a fault until a later life of the
machine executes. Which machines are highly available is read from the disk.
"""

from __future__ import annotations

from typing import cast

from olvm.journal.port import Batch
from olvm.model.limits import NS_PER_S
from olvm.model.records import VmRecord
from sim.oracles.oracle import Witness

NORMAL_ENDS = frozenset({0, 4, 5, 6, 7})


class Restarts:
    """Listens like an oracle; judges nothing. `outages_s` are those that are over, in order of their end."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._available: dict[str, bool] = {}  # highly available machines, and whether they have a lease
        self._running: dict[str, set[str]] = {}
        self._lost_ns: dict[str, int] = {}
        self.outages_s: list[float] = []
        self.outages_with_lease_s: list[float] = []

    def committed(self, silo: str, batch: Batch) -> None:
        del silo
        rows = batch.upserts.get(VmRecord)
        if rows:
            for row in cast("dict[str, VmRecord]", rows).values():
                if row.high_availability:
                    self._available[row.id] = row.lease
                else:
                    self._available.pop(row.id, None)

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        del epoch
        self._running.setdefault(vm_id, set()).add(host)
        lost_ns = self._lost_ns.pop(vm_id, None)
        if lost_ns is not None and vm_id in self._available:
            outage_s = (self._witness.now_ns - lost_ns) / NS_PER_S
            self.outages_s.append(outage_s)
            if self._available[vm_id]:
                self.outages_with_lease_s.append(outage_s)

    def vcpus_stopped(self, host: str, vm_id: str, epoch: int) -> None:
        del epoch
        self._running.get(vm_id, set()).discard(host)

    def ended(self, host: str, vm_id: str, epoch: int, exit_reason: int) -> None:
        """Comes before the domain is taken off its host."""
        del host, epoch
        if exit_reason in NORMAL_ENDS:
            self._lost_ns.pop(vm_id, None)
            self._running.pop(vm_id, None)  # what is removed next was no loss

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        del epoch, footprint_bytes
        running = self._running.get(vm_id)
        if running is None:
            return
        running.discard(host)
        if not running:
            self._lost_ns.setdefault(vm_id, self._witness.now_ns)
            del self._running[vm_id]
