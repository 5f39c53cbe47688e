"""S2: a machine is started on a host only when no other host holds a life of it that could still run.

A migration's source that stands still when its target has executed has handed over: it is no life any more. That it
never runs again, with a memory that is older than the disks, is S3's affair.
"""

from __future__ import annotations

from typing import ClassVar

from sim.oracles.oracle import Oracle, Witness

STARTS = frozenset({"StartDomain", "RestoreDomain"})


class ProofBeforeRestart(Oracle):
    ID: ClassVar[str] = "S2"
    PROMISE: ClassVar[str] = (
        "a machine starts elsewhere only after its old host was fenced, said that it is gone, or stopped it "
        "because its lease expired"
    )

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        # A life counts once its CPUs have run: before that it may be thrown away by whoever ordered it.
        self._lived: dict[str, dict[str, int]] = {}

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        lived = self._lived.setdefault(vm_id, {})
        for other in [name for name, life in lived.items() if life < epoch]:
            del lived[other]
        lived[host] = epoch

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        del epoch, footprint_bytes
        self._lived.get(vm_id, {}).pop(host, None)

    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None:
        if request not in STARTS:
            return
        others = {name: life for name, life in self._lived.get(vm_id, {}).items() if name != host}
        if others:
            where = ", ".join(f"{name} (epoch {life})" for name, life in sorted(others.items()))
            self.fail(
                f"machine {vm_id} was started on {host} (epoch {epoch}) while a life of it is on {where}"
            )
