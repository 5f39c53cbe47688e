"""The host's watchdog as the libvirt backend uses it: who is guarded, when leased machines may begin, who was ended.

Decides the order: a machine is guarded before anything of it is started, and let go of when it is surely gone. The
watchdog itself is a process of its own (`host_watchdog.py`); its marks lie in memory, so all but its start is quick.
Owner's thread, except for `open`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from hypervisor_backends.host_watchdog import HostWatchdog
from hypervisor_backends.libvirt_book import Life
from hypervisor_backends.libvirt_host import LibvirtHost
from hypervisor_backends.protocol import CallFailed, CallSucceeded, Done

log = logging.getLogger("olvm.libvirt")

ARM_BUDGET_S = 30.0
_SUCCEEDED = CallSucceeded()


class LeaseGuard:
    """Without a watchdog nothing leased begins here, and the feature is not declared."""

    def __init__(self, host: LibvirtHost) -> None:
        self._host = host
        self.watchdog: HostWatchdog | None = None
        self._is_failing = False  # as it was logged last

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
        """Answered with `lease_expired` when the watchdog is not armed afterwards, whatever the reason."""
        watchdog = self.watchdog
        assert watchdog is not None, "the feature was not declared"
        if watchdog.runs():
            self._answer(watchdog, _arm(watchdog, deadline_ns), done)
            return

        def end(result: object) -> None:
            self._answer(watchdog, result, done)
            self._host.outbox.drain()

        # Its process was killed: a new one is started, which takes a moment.
        self._host.workers.run(lambda: _arm(watchdog, deadline_ns), ARM_BUDGET_S, end)

    def _answer(self, watchdog: HostWatchdog, result: object, done: Done) -> None:
        failure = None if result is True else self._failure(watchdog, result)
        if failure is not None and not self._is_failing:
            log.warning("%s", failure.message)
        self._is_failing = failure is not None
        self._host.answer(done, failure or _SUCCEEDED)

    def _failure(self, watchdog: HostWatchdog, result: object) -> CallFailed:
        what = f"ArmWatchdog on host {self._host.name}"
        if result is False:
            words = (
                f"{what}: {watchdog.problem or 'it was not armed in time; it is armed with the next renewal'}"
            )
        else:
            words = self._host.failure(result, what).message
        return CallFailed(code="lease_expired", message=words, can_retry=True)

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


def _arm(watchdog: HostWatchdog, deadline_ns: int) -> bool | OSError:
    """Its files are on a small file system, which may be full."""
    try:
        return watchdog.arm(deadline_ns)
    except OSError as error:
        return error
