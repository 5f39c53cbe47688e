"""S8: a machine whose record says that it does not run executes nowhere.

That is what an old, rewound or incomplete report, or a silence that is taken for an end, would break.
"""

from __future__ import annotations

from typing import ClassVar, cast

from olvm.journal.port import Batch
from olvm.model.records import VmRecord
from olvm.model.vm_states import NOT_RUNNING
from sim.oracles.oracle import Oracle, Witness


class DownIsDown(Oracle):
    ID: ClassVar[str] = "S8"
    PROMISE: ClassVar[str] = (
        "old reports change nothing, and absence from a report never means down by itself"
    )

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._hosts_by_vm: dict[str, dict[str, int]] = {}

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        self._hosts_by_vm.setdefault(vm_id, {})[host] = epoch

    def vcpus_stopped(self, host: str, vm_id: str, epoch: int) -> None:
        del epoch
        self._hosts_by_vm.get(vm_id, {}).pop(host, None)

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        del footprint_bytes
        self.vcpus_stopped(host, vm_id, epoch)

    def committed(self, silo: str, batch: Batch) -> None:
        rows = batch.upserts.get(VmRecord)
        if not rows:
            return
        for row in cast("dict[str, VmRecord]", rows).values():
            # A machine of another silo is mirrored in the engine's file, a moment late: its own file counts.
            if row.status in NOT_RUNNING and (row.silo or "engine") == silo and self._hosts_by_vm.get(row.id):
                where = ", ".join(sorted(self._hosts_by_vm[row.id]))
                self.fail(
                    f"machine {row.name} ({row.id}) is {row.status.value} by its record and runs on {where}"
                )
