"""S6: what the domains of a host take of its memory is within what it has, machines on their way included.

What was plugged into a machine counts from the moment that its hypervisor gives it.
"""

from __future__ import annotations

from typing import ClassVar, cast

from olvm.model.records import CopyRecord, ReservationRecord
from sim.oracles.oracle import Oracle, Witness


class WithinCapacity(Oracle):
    ID: ClassVar[str] = "S6"
    PROMISE: ClassVar[str] = "the machines of a host, starting and migrating ones included, fit into it"

    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self._used_bytes: dict[str, int] = {}

    def domain_added(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        self._take(host, footprint_bytes, f"{vm_id} (epoch {epoch}) came")

    def domain_resized(self, host: str, vm_id: str, epoch: int, more_bytes: int) -> None:
        self._take(host, more_bytes, f"{vm_id} (epoch {epoch}) was given {more_bytes} bytes")
        if more_bytes > 0:
            self._check_row(host, vm_id, epoch)

    def _check_row(self, host: str, vm_id: str, epoch: int) -> None:
        """Room is reserved before it is taken, and durably."""
        witness = self.witness
        _, has_bytes = witness.size_by_vm_id(host)[vm_id]
        for kind in (ReservationRecord, CopyRecord):
            rows = cast("dict[str, ReservationRecord | CopyRecord]", witness.durable("engine", kind))
            for row in rows.values():
                if (row.vm_id, row.epoch) == (vm_id, epoch) and row.memory_bytes >= has_bytes:
                    return
        self.fail(
            f"{vm_id} (epoch {epoch}) has {has_bytes} bytes on {host}, and so much is not reserved for it"
        )

    def _take(self, host: str, more_bytes: int, since: str) -> None:
        used = self._used_bytes[host] = self._used_bytes.get(host, 0) + more_bytes
        capacity = self.witness.capacity_bytes(host)
        if more_bytes > 0 and used > capacity:
            self.fail(f"host {host} holds {used} of {capacity} bytes since {since}")

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        del vm_id, epoch
        self._used_bytes[host] = self._used_bytes.get(host, 0) - footprint_bytes

    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None:
        """The engine promised room: a start or a plug that is refused for lack of it is a broken promise."""
        if request == "Refused:out_of_memory":
            self.fail(
                f"host {host} had no room for {vm_id} (epoch {epoch}), which the engine had reserved there"
            )
