"""A silo's own time: its process's clock, or one that goes ahead of it.

Rule: it never goes back. Deadlines on the disk were set by the clock that was, and a computer's clock may have been set
back while the silo was down. Must not know what is due.
"""

from __future__ import annotations

from collections.abc import Callable


class SiloClock:
    __slots__ = ("_ahead_ns", "_process_ns")

    def __init__(self, process_ns: Callable[[], int]) -> None:
        self._process_ns = process_ns
        self._ahead_ns = 0

    def now_ns(self) -> int:
        return self._process_ns() + self._ahead_ns

    def keep_ahead_of(self, last_at_ns: int) -> None:
        """`last_at_ns` was read from this silo's clock, perhaps in an earlier life: it is not later than now."""
        self._ahead_ns = max(self._ahead_ns, last_at_ns - self._process_ns())

    def to_process_ns(self, time_ns: int) -> int:
        """What the process's clock shows at that time of the silo."""
        return time_ns - self._ahead_ns
