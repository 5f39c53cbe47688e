"""What is really so: which copies of which machines run where, told by the hypervisors themselves.

Oracles read this and never an actor's belief. It is kept up to date by each change as it happens, so that nobody
has to look through all hosts. It judges nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from hypervisor_backends.protocol import DomainStatus, ExitReason

HOOKS = (
    "domain_added",
    "domain_removed",
    "domain_resized",
    "vcpus_started",
    "vcpus_stopped",
    "status_changed",
    "ended",
    "called",
    "power_changed",
)


class Copy(NamedTuple):
    """One copy of a machine on one host."""

    host: str
    epoch: int


class Truth:
    """Implements `HypervisorObserver` for all hosts. Who watches is told after it is recorded here."""

    def __init__(self) -> None:
        # By machine: its copies, and which of them execute. A machine without copies has no entry.
        self.copies: dict[str, dict[Copy, DomainStatus]] = {}
        self.executing: dict[str, set[Copy]] = {}
        self.epoch_by_vm_id_by_host: dict[str, dict[str, int]] = {}
        self.footprint_bytes_by_host: dict[str, int] = {}
        self.boot_id_by_host: dict[str, str] = {}  # of hosts that are on
        self.counts: Counter[str] = Counter()
        self._listeners: dict[str, list[Callable[..., None]]] = {name: [] for name in HOOKS}

    def watch(self, observer: Any) -> None:
        """Tell `observer` what happens, by those of the hooks that it has."""
        for name in HOOKS:
            listener = getattr(observer, name, None)
            if listener is not None:
                self._listeners[name].append(listener)

    # ------------------------------------------------------------------ what hypervisors tell

    def domain_added(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        self.copies.setdefault(vm_id, {})[Copy(host, epoch)] = "wait_for_launch"
        self.epoch_by_vm_id_by_host.setdefault(host, {})[vm_id] = epoch
        self.footprint_bytes_by_host[host] = self.footprint_bytes_by_host.get(host, 0) + footprint_bytes
        self.counts["domain_added"] += 1
        for listener in self._listeners["domain_added"]:
            listener(host, vm_id, epoch, footprint_bytes)

    def domain_removed(self, host: str, vm_id: str, epoch: int, footprint_bytes: int) -> None:
        copies = self.copies[vm_id]
        del copies[Copy(host, epoch)]
        if not copies:
            del self.copies[vm_id]
        self._stop(host, vm_id, epoch)
        del self.epoch_by_vm_id_by_host[host][vm_id]
        self.footprint_bytes_by_host[host] -= footprint_bytes
        for listener in self._listeners["domain_removed"]:
            listener(host, vm_id, epoch, footprint_bytes)

    def domain_resized(self, host: str, vm_id: str, epoch: int, more_bytes: int) -> None:
        self.footprint_bytes_by_host[host] += more_bytes
        self.counts["domain_resized"] += 1
        for listener in self._listeners["domain_resized"]:
            listener(host, vm_id, epoch, more_bytes)

    def vcpus_started(self, host: str, vm_id: str, epoch: int) -> None:
        self.executing.setdefault(vm_id, set()).add(Copy(host, epoch))
        self.counts["vcpus_started"] += 1
        for listener in self._listeners["vcpus_started"]:
            listener(host, vm_id, epoch)

    def vcpus_stopped(self, host: str, vm_id: str, epoch: int) -> None:
        self._stop(host, vm_id, epoch)
        for listener in self._listeners["vcpus_stopped"]:
            listener(host, vm_id, epoch)

    def _stop(self, host: str, vm_id: str, epoch: int) -> None:
        running = self.executing.get(vm_id)
        if running is not None:
            running.discard(Copy(host, epoch))
            if not running:
                del self.executing[vm_id]

    def status_changed(self, host: str, vm_id: str, epoch: int, status: DomainStatus) -> None:
        copy = Copy(host, epoch)
        if copy in self.copies.get(vm_id, {}):
            self.copies[vm_id][copy] = status
        for listener in self._listeners["status_changed"]:
            listener(host, vm_id, epoch, status)

    def ended(self, host: str, vm_id: str, epoch: int, exit_reason: ExitReason) -> None:
        self.counts["ended"] += 1
        for listener in self._listeners["ended"]:
            listener(host, vm_id, epoch, exit_reason)

    def called(self, host: str, request: str, vm_id: str, epoch: int) -> None:
        self.counts[request] += 1
        for listener in self._listeners["called"]:
            listener(host, request, vm_id, epoch)

    def power_changed(self, host: str, is_on: bool, boot_id: str) -> None:
        if is_on:
            self.boot_id_by_host[host] = boot_id
        else:
            self.boot_id_by_host.pop(host, None)
        for listener in self._listeners["power_changed"]:
            listener(host, is_on, boot_id)

    # ------------------------------------------------------------------ questions

    def hosts_of(self, vm_id: str) -> list[str]:
        """Where copies of the machine are, sorted."""
        return sorted(copy.host for copy in self.copies.get(vm_id, ()))

    def executing_count(self, vm_id: str) -> int:
        return len(self.executing.get(vm_id, ()))
