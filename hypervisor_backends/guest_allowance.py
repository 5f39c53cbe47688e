"""How much of something a guest may do: so much at once, and then so much a second. Time comes from the caller."""

from __future__ import annotations

from olvm.model.limits import NS_PER_S


class Allowance:
    """What was spent beyond it is paid off before anything more is allowed."""

    def __init__(self, per_s: float, at_once: float) -> None:
        assert per_s > 0, per_s
        assert at_once >= 1, at_once
        self._per_s = per_s
        self._at_once = at_once
        self._left = at_once
        self._counted_ns = 0

    def has(self, now_ns: int) -> bool:
        """Whether one more is allowed. A clock that goes back gives nothing."""
        if now_ns > self._counted_ns:
            gained = (now_ns - self._counted_ns) / NS_PER_S * self._per_s
            self._left = min(self._at_once, self._left + gained)
        self._counted_ns = now_ns
        return self._left >= 1

    def spend(self, count: float) -> None:
        self._left -= count
