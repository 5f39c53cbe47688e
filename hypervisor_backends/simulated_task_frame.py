"""What every task of a simulated host rests on: how one is refused, how long it takes, and the guest's part in it.

The tasks themselves are `simulated_devices.py` and `simulated_tasks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec

from hypervisor_backends.protocol import CallFailed, CallResult, FailureCode
from hypervisor_backends.simulated_domain import SimulatedDomain
from hypervisor_backends.simulated_host import SimulatedHost
from hypervisor_backends.simulated_machine import SUCCEEDED
from hypervisor_backends.simulated_storage import SimulatedStorage

# How long the task takes, and what is then done and answered.
Plan: TypeAlias = tuple[float, Callable[[], CallResult]]


class TaskRefused(Exception):
    """Ends a task with this answer; never leaves the simulated hypervisor."""

    def __init__(self, code: FailureCode, message: str, *, can_retry: bool = False) -> None:
        super().__init__(message)
        self.failure = CallFailed(code=code, message=message, can_retry=can_retry)


class TaskFrame:
    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self._config = host.config
        self.storage = SimulatedStorage(
            host.name,
            host.config.storage_bytes,
            self._disk_users,
            self._network_users,
            files_outside_pools=host.config.files_outside_pools,
        )

    def _soon(self, result: CallResult = SUCCEEDED) -> Plan:
        """All is done already, and it takes a moment to be told."""
        return self._config.task_time_s, lambda: result

    def _let_go(self, domain: SimulatedDomain, what: str, take: Callable[[], None]) -> Plan:
        """The guest must do its part: it does, or the time is up and all stays as it was."""
        willing = domain.run_ns is not None and domain.guest_since_ns is not None
        purpose = f"refuses_unplug_{domain.task_count}"
        if self._host.faults.use("guest_refuses_unplug", domain.vm_id, domain.spec.name) or self._host.chance(
            domain, purpose, self._config.guest_refuses_unplug_probability
        ):
            willing = False
        if not willing:
            failure = CallFailed(
                code="guest_refused",
                message=f"{what} of {self._who(domain)} stays: the guest did not let go of it; try again later",
                can_retry=True,
            )
            return self._config.unplug_timeout_s, lambda: failure

        def finish() -> CallResult:
            take()
            return SUCCEEDED

        return self._config.task_time_s, finish

    def _who(self, domain: SimulatedDomain) -> str:
        return f"domain {domain.spec.name} on host {self._host.name}"

    # ------------------------------------------------------------ what is there

    def _present(self, kind: str, name: str, domain: SimulatedDomain, names: Iterable[str]) -> None:
        known = sorted(names)
        if name not in known:
            have = ", ".join(known) or "none"
            raise TaskRefused("not_found", f"{self._who(domain)} has no {kind} {name}; it has {have}")

    def _change(self, domain: SimulatedDomain, **changes: object) -> None:
        hardware = msgspec.structs.replace(domain.spec.hardware, **changes)
        domain.spec = msgspec.structs.replace(domain.spec, hardware=hardware)

    def _disk_users(self, but: str = "") -> dict[str, str]:
        """Who has which path open, processes that libvirt lost track of included; `but` leaves a machine out."""
        there = {**self._host.lost_qemus, **self._host.domains}
        return {
            disk.source: domain.spec.name
            for vm_id, domain in sorted(there.items())
            if vm_id != but
            for disk in domain.spec.hardware.disks
            if disk.source
        }

    def _network_users(self) -> dict[str, str]:
        return {
            nic.network: domain.spec.name
            for _, domain in sorted(self._host.domains.items())
            for nic in domain.spec.hardware.nics
        }
