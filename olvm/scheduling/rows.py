"""What a host table is asked and told in: a reservation, a host's row, and who wants to hear of changes."""

from __future__ import annotations

from typing import Protocol

import msgspec

from olvm.model.placement_needs import PlacementNeeds
from olvm.scheduling.resources import Claims


class Reservation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one VM holds on one host; `pending` until its load shows in the host's own reports."""

    vm_id: str
    host: str
    vcpus: int
    memory_bytes: int
    memory_need_bytes: int
    pending: bool
    high_availability: bool = False
    needs: PlacementNeeds | None = None
    claims: Claims | None = None  # None: it takes CPUs and memory alone


class Watcher(Protocol):
    """Keeps something that is derived from the rows of usable hosts."""

    def entered(self, slot: int) -> None:
        """The host has become usable; its row is whole."""

    def left(self, slot: int) -> None:
        """It is not usable any more, or it is about to change: its row is still as it was when last told."""

    def changed(self, slot: int) -> None:
        """A usable host's row has changed."""


class HostRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One host's columns at one instant; `memory_free_bytes` is schedulable, below zero when overdrawn."""

    name: str
    usable: bool
    cpus: int
    memory_bytes: int
    reserved_cpus: int
    pending_cpus: int
    reserved_memory_bytes: int
    memory_free_bytes: int
    vm_count: int
    cpu_load_percent: int
