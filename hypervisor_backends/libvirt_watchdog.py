"""The host's watchdog as the libvirt backend uses it: who is guarded, when leased machines may begin, who was ended.

Decides the order: a machine is guarded before anything of it is started, and let go of when it is surely gone. The
watchdog itself is a process of its own (`host_watchdog.py`); its marks lie in memory, so all but its start is quick.
Owner's thread, except for `open`.
"""

from __future__ import annotations

from pathlib import Path

from hypervisor_backends.host_watchdog import HostWatchdog
from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.libvirt_host import LibvirtHost
from hypervisor_backends.protocol import CallFailed, CallSucceeded, Done

ARM_BUDGET_S = 30.0
_SUCCEEDED = CallSucceeded()


class LeaseGuard:
    """Without a watchdog nothing leased begins here, and the feature is not declared."""

    def __init__(self, host: LibvirtHost) -> None:
        self._host = host
        self.watchdog: HostWatchdog | None = None

    def open(self) -> None:
        """On a worker, before the first connect is over: finds the process of a predecessor, or starts one."""
        if self.watchdog is None:
            settings = self._host.settings
            self.watchdog = HostWatchdog(
                self._host.name,
                Path(settings.watchdog_directory),
                self._host.timers.now_ns,
                root=settings.root,
            )

    def may_begin(self) -> bool:
        return self.watchdog is not None and self.watchdog.armed()

    def arm(self, deadline_ns: int, done: Done) -> None:
        watchdog = self.watchdog
        assert watchdog is not None, "the feature was not declared"
        if watchdog.runs():
            watchdog.arm(deadline_ns)
            self._host.answer(done, _SUCCEEDED)
            return

        def end(result: object) -> None:
            is_armed = isinstance(result, bool)
            self._host.answer(done, _SUCCEEDED if is_armed else self._failure(result))
            self._host.outbox.drain()

        # Its process was killed: a new one is started, which takes a moment.
        self._host.workers.run(lambda: watchdog.arm(deadline_ns), ARM_BUDGET_S, end)

    def _failure(self, result: object) -> CallFailed:
        return self._host.failure(result, f"ArmWatchdog on host {self._host.name}")

    def guard(self, life: Life) -> None:
        """Also lets go of a machine that is not leased any more: an old mark would end it."""
        if self.watchdog is None:
            return
        if life.leased:
            self.watchdog.guard(life.vm_id)
        else:
            self.watchdog.release(life.vm_id)

    def release(self, life: Life) -> None:
        if self.watchdog is not None and life.leased:
            self.watchdog.release(life.vm_id)

    def has_killed(self, life: Life) -> bool:
        return self.watchdog is not None and life.leased and self.watchdog.has_killed(life.vm_id)
