"""The snapshots of simulated machines, beside the disks that they belong to: on one storage for hosts that share it.

A port and its plain version; `shared_plant.py` has one for hosts of several processes. They outlive lives of machines
and boots of hosts. Who may change them is decided elsewhere: only the host where a machine runs does.
"""

from __future__ import annotations

from typing import Protocol

from hypervisor_backends.protocol import SnapshotInfo
from olvm.model.hardware import Hardware


class TakenSnapshot(SnapshotInfo, frozen=True, kw_only=True):
    """What a snapshot says of itself, and which machine its memory fits; `hardware` without a seed."""

    vcpus: int
    memory_bytes: int
    hardware: Hardware


class SnapshotStore(Protocol):
    """Both raise `OSError` when the storage does not answer; nothing was changed then."""

    def of(self, vm_id: str) -> tuple[TakenSnapshot, ...]:
        """Of a machine, oldest first; empty: it has none."""

    def keep(self, vm_id: str, snapshots: tuple[TakenSnapshot, ...]) -> None:
        """Those it has from now on."""


class MemorySnapshots:
    """Of hosts of one process; or of one host alone, whose disks nobody else has."""

    def __init__(self) -> None:
        self._by_vm_id: dict[str, tuple[TakenSnapshot, ...]] = {}

    def of(self, vm_id: str) -> tuple[TakenSnapshot, ...]:
        return self._by_vm_id.get(vm_id, ())

    def names_by_vm_id(self) -> dict[str, list[str]]:
        return {vm_id: [one.name for one in kept] for vm_id, kept in self._by_vm_id.items()}

    def keep(self, vm_id: str, snapshots: tuple[TakenSnapshot, ...]) -> None:
        if snapshots:
            self._by_vm_id[vm_id] = snapshots
        else:
            self._by_vm_id.pop(vm_id, None)
