"""S7: when all is quiet, what is reserved is what runs: no reservation without a machine there, and no copies.

Also in size: whatever was plugged and unplugged meanwhile, and however that ended.
"""

from __future__ import annotations

from typing import ClassVar, cast

from olvm.model.records import CopyRecord, ReservationRecord
from sim.oracles.oracle import Oracle


class LedgerIsActual(Oracle):
    ID: ClassVar[str] = "S7"
    PROMISE: ClassVar[str] = (
        "at rest the reservations are exactly the machines that run, where they run and as large as they are"
    )

    def settled(self) -> None:
        witness = self.witness
        actual = {vm_id: (host, epoch) for host in witness.hosts for vm_id, epoch, _ in witness.domains(host)}
        rows = cast("dict[str, ReservationRecord]", witness.durable("engine", ReservationRecord))
        held = {row.vm_id: (row.host, row.epoch) for row in rows.values()}
        for vm_id in sorted(held.keys() | actual.keys()):
            if held.get(vm_id) != actual.get(vm_id):
                self.fail(
                    f"machine {vm_id} is reserved on {held.get(vm_id)} and truly on {actual.get(vm_id)} (host, epoch)"
                )
        size_by_host = {host: witness.size_by_vm_id(host) for host in witness.hosts}
        for row in rows.values():
            size = size_by_host[row.host][row.vm_id]
            if (row.vcpus, row.memory_bytes) != size:
                self.fail(
                    f"machine {row.vm_name} is reserved on {row.host} with {row.vcpus} vCPUs and {row.memory_bytes} "
                    f"bytes and truly has {size} there"
                )
        copies = witness.durable("engine", CopyRecord)
        if copies:
            self.fail(f"capacity is held for copies that nobody makes: {', '.join(sorted(copies))}")
