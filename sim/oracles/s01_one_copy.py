"""S1: at any instant at most one host executes a machine's virtual CPUs, a live migration's hand-over included."""

from __future__ import annotations

from typing import ClassVar

from sim.oracles.oracle import Oracle, Witness


class OneCopy(Oracle):
    ID: ClassVar[str] = "S1"
    PROMISE: ClassVar[str] = "at most one host executes a machine's virtual CPUs at any instant"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._hosts_by_vm: dict[str, dict[str, int]] = {}

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        running = self._hosts_by_vm.setdefault(vm_id, {})
        running[host] = epoch
        if len(running) > 1:
            where = " and ".join(f"{name} (epoch {life})" for name, life in sorted(running.items()))
            self.fail(f"machine {vm_id} executes on {where}")

    def vcpus_stopped(self, host: str, vm_id: str, epoch: int) -> None:
        del epoch
        self._hosts_by_vm.get(vm_id, {}).pop(host, None)

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        del epoch, footprint_bytes
        self._hosts_by_vm.get(vm_id, {}).pop(host, None)
