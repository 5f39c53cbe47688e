"""S3: a hypervisor never begins a life of a lower epoch than it has begun for that machine before, and no life runs on
once a later one has run: its memory is older than what the guest has written since.

The agent keeps the highest epoch durably; a restart of it must not make it forget. A host whose agent's disk is
lost has lost its power too (failure model), and begins anew.
"""

from __future__ import annotations

from typing import ClassVar

from sim.oracles.oracle import Oracle, Witness

BEGINNINGS = frozenset({"StartDomain", "RestoreDomain", "PrepareIncoming"})


class EpochsObeyed(Oracle):
    ID: ClassVar[str] = "S3"
    PROMISE: ClassVar[str] = "a command of an older epoch than a host has seen for a machine has no effect"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._highest: dict[tuple[str, str], int] = {}
        self._executed: dict[str, int] = {}  # the highest epoch of each machine that has run, wherever

    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None:
        if request not in BEGINNINGS:
            return
        seen = self._highest.get((host, vm_id), 0)
        if epoch < seen:
            self.fail(
                f"{request} of machine {vm_id} with epoch {epoch} took effect on {host} after epoch {seen}"
            )
        self._highest[host, vm_id] = epoch

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        seen = self._executed.get(vm_id, 0)
        if epoch < seen:
            self.fail(f"machine {vm_id} runs on {host} with epoch {epoch} after epoch {seen} has run")
        self._executed[vm_id] = epoch
