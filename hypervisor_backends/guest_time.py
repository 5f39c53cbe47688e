"""How long something lasts, and how much of it a guest may do in a time. The time is the caller's.

A host's clock may be stepped: back, and nothing may last longer for it; ahead, and something may end early.
"""

from __future__ import annotations

from olvm.model.limits import NS_PER_S


def is_over(since_ns: int, lasts_s: float, now_ns: int) -> bool:
    """A time in the future has been put there by a step of the clock, and is over too."""
    return not 0 <= now_ns - since_ns < lasts_s * NS_PER_S


class Allowance:
    """So much at once, and then so much a second; what was spent beyond is paid off before more is allowed."""

    def __init__(self, per_s: float, at_once: float) -> None:
        assert per_s > 0, per_s
        assert at_once >= 1, at_once
        self._per_s = per_s
        self._at_once = at_once
        self._left = at_once
        self._counted_ns = 0

    def has(self, now_ns: int) -> bool:
        """Whether one more is allowed."""
        if now_ns > self._counted_ns:
            gained = (now_ns - self._counted_ns) / NS_PER_S * self._per_s
            self._left = min(self._at_once, self._left + gained)
        self._counted_ns = now_ns
        return self._left >= 1

    def spend(self, count: float) -> None:
        self._left -= count
