"""The timer of a simulated host that ends leased domains when nobody prolongs it.

Decides only whether it is armed. It stands for the hardware or kernel watchdog of a real host: its agent can
neither stop it nor be too slow for it.
"""

from __future__ import annotations

from collections.abc import Callable

from hypervisor_backends.protocol import Cancel, Scheduler


class Watchdog:
    """`expire` is called once each time that an armed deadline passes."""

    def __init__(self, scheduler: Scheduler, expire: Callable[[], None]) -> None:
        self._scheduler = scheduler
        self._expire = expire
        self._deadline_ns: int | None = None  # None: expired
        self._timer: Cancel | None = None

    def arm(self, deadline_ns: int) -> None:
        """A deadline that is past, or earlier than the present one, changes nothing."""
        armed = self.is_armed()
        if deadline_ns <= self._scheduler.now_ns():
            return
        if armed and self._deadline_ns is not None and deadline_ns <= self._deadline_ns:
            return
        self._deadline_ns = deadline_ns
        # A waiting timer finds out by itself that its time was put off: a renewal costs none.
        if self._timer is None:
            self._timer = self._scheduler.call_at(deadline_ns, self._on_timer)

    def is_armed(self) -> bool:
        """Looks at the clock: a deadline that passed is expired here, if its timer is late."""
        if self._deadline_ns is None:
            return False
        if self._scheduler.now_ns() < self._deadline_ns:
            return True
        self._deadline_ns = None
        self._expire()
        return False

    def reset(self) -> None:
        """As after a boot: expired, and nobody is told."""
        self._deadline_ns = None
        if self._timer is not None:
            self._timer()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self.is_armed() and self._deadline_ns is not None:
            self._timer = self._scheduler.call_at(self._deadline_ns, self._on_timer)
