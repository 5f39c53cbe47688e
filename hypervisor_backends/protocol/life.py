"""The requests that begin, move and end a domain's life on one host.

Decides what may be asked of a domain as a whole, and when each request has succeeded. Must not know what it is made of
(`domain_tasks.py`) or that there are other hosts (`migration.py`).
"""

from __future__ import annotations

from hypervisor_backends.protocol.domains import DomainSpec
from hypervisor_backends.protocol.request import DomainRequest


class StartDomain(DomainRequest, frozen=True, kw_only=True):
    """Boot cold. Succeeds when the hypervisor process runs; the guest is heard of by `guest_up`.

    Memory saved by an earlier `SuspendDomain` on this host is discarded: the disks will have moved on.
    """

    epoch: int
    spec: DomainSpec


class RestoreDomain(DomainRequest, frozen=True, kw_only=True):
    """Continue from saved memory. Succeeds when the guest runs again; the saved memory is then gone."""

    epoch: int
    spec: DomainSpec


class ShutdownDomain(DomainRequest, frozen=True, kw_only=True):
    """Ask the guest to power off. Success means that the guest was asked; it may ignore it.

    Its agent is asked first. Where there is none, or where the guest still runs `acpi_after_s` later, the power button
    is pressed.
    """

    acpi_after_s: float = 30.0
    message: str = ""  # shown to who is logged on


class DestroyDomain(DomainRequest, frozen=True, kw_only=True):
    """End the domain now, whatever it does. Works on a domain whose monitor hangs."""


class RebootDomain(DomainRequest, frozen=True, kw_only=True):
    """Ask the guest to reboot. Success means that the guest was asked; it may ignore it."""


class ResetDomain(DomainRequest, frozen=True, kw_only=True):
    """Restart the guest as the reset button does."""


class SuspendDomain(DomainRequest, frozen=True, kw_only=True):
    """Save memory to disk and end the domain (hibernate). Succeeds when the memory is saved."""


class PauseDomain(DomainRequest, frozen=True, kw_only=True):
    """Stop the virtual CPUs."""


class ContinueDomain(DomainRequest, frozen=True, kw_only=True):
    """Let the virtual CPUs of a paused domain run again."""
