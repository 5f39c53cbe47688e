"""What a simulated hypervisor tells whoever watches the truth: each change of what really runs, as it happens.

This is not part of the port: no agent hears it. A simulator's oracles do.
"""

from __future__ import annotations

from typing import Protocol

from hypervisor_backends.protocol import DomainStatus, ExitReason


class HypervisorObserver(Protocol):
    """Called synchronously; must not call back. `footprint_bytes` is what the domain takes from its host."""

    def domain_added(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None: ...

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        """Also when the host loses its power."""

    def domain_resized(self, host: str, vm_id: str, epoch: int, more_bytes: int) -> None:
        """Memory was plugged, or below zero: taken out. A domain that is removed takes along what it has then."""

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        """From now on this copy executes."""

    def vcpus_stopped(self, host: str, vm_id: str, epoch: int) -> None:
        """From now on it does not: paused, saved, handed over or gone."""

    def status_changed(self, host: str, vm_id: str, epoch: int, status: DomainStatus) -> None: ...

    def ended(self, host: str, vm_id: str, epoch: int, exit_reason: ExitReason) -> None:
        """A life ended for this reason; nobody is told of lives lost with their host's power."""

    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None:
        """A request that takes effect on a domain was admitted: StartDomain, DestroyDomain, MigrateDomain …"""

    def power_changed(self, host: str, is_on: bool, boot_id: str) -> None: ...
