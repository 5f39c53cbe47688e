"""L5: no effect without a cause: each start has its command or its fault, and nothing wanders once faults stop.

End states can be right while the way there was wrong: a machine started twice, or moved in a circle.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, cast

from olvm.journal.port import Batch
from olvm.model.records import OperationRecord, VmRecord
from olvm.model.vm_states import NOT_RUNNING
from sim.oracles.oracle import Oracle, OracleKind, Witness

STARTS = frozenset({"StartDomain", "RestoreDomain"})
MIGRATED = 4
NORMAL_ENDS = frozenset({0, 5, 6, 7})
MOVES_AT_REST_MAX = (
    4  # off a host that failed, by the balancer, by an affinity group, and back from maintenance
)


class EffectEconomy(Oracle):
    ID: ClassVar[str] = "L5"
    KIND: ClassVar[OracleKind] = "liveness"
    PROMISE: ClassVar[str] = (
        "starts, stops and migrations of a machine are those asked for, plus what faults cost"
    )

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._asked: Counter[str] = Counter()
        self._asked_of_all = 0
        self._known_operations: set[str] = set()
        self._spent: Counter[str] = Counter()
        self._life: dict[str, int] = {}  # the newest epoch that was started, or has arrived and executed
        self._ended_well: dict[str, int] = {}  # the newest epoch that ended as somebody wished
        self._moves: Counter[str] = Counter()
        self._is_healed = False

    def committed(self, silo: str, batch: Batch) -> None:
        for vm in cast("dict[str, VmRecord]", batch.upserts.get(VmRecord, {})).values():
            # Known to be over as somebody wished: from here on a start needs a command. An end that nobody could
            # hear of (its agent was away) is rightly taken for a fault.
            if vm.status in NOT_RUNNING and vm.exit_reason in NORMAL_ENDS and (vm.silo or "engine") == silo:
                self._ended_well[vm.id] = max(vm.epoch, self._ended_well.get(vm.id, 0))
        if silo != "engine":
            return
        for row in cast("dict[str, OperationRecord]", batch.upserts.get(OperationRecord, {})).values():
            if row.id in self._known_operations:
                continue
            self._known_operations.add(row.id)
            if row.kind in ("start_vm", "resume_vm"):
                self._asked[row.target_id] += 1
            elif row.kind == "start_cluster":
                self._asked_of_all += 1

    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None:
        if request not in STARTS or epoch <= self._life.get(vm_id, 0):
            return
        before = self._life.get(vm_id, 0)
        self._life[vm_id] = epoch
        if before == 0 or self._ended_well.get(vm_id, 0) >= before:
            self._spent[vm_id] += 1
            allowed = self._asked[vm_id] + self._asked_of_all
            if self._spent[vm_id] > allowed:
                self.fail(
                    f"machine {vm_id} was started on {host} (epoch {epoch}) after it had ended as asked: "
                    f"{self._spent[vm_id]} such starts for {allowed} commands"
                )

    def ended(self, host: str, vm_id: str, epoch: int, exit_reason: int) -> None:
        """An attempt that fails is tried again for as long as its reason lasts; only arrivals count."""
        del host, epoch
        if exit_reason == MIGRATED and self._is_healed:
            self._moves[vm_id] += 1
            if self._moves[vm_id] > MOVES_AT_REST_MAX:
                self.fail(f"machine {vm_id} was migrated {self._moves[vm_id]} times since the faults stopped")

    def healed(self) -> None:
        self._is_healed = True
