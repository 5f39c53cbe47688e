"""Who has failed to log on how often, and from when it may try again.

Rules:
1. An attempt is charged as a failure before it is checked, so that many at once are not all free.
2. Names that no user has are counted alike: what is refused sounds the same for all.
3. What is remembered is bounded; the names that failed longest ago go first. A restart of the engine forgets all.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from olvm.model.limits import (
    LOGON_FAILURES_FREE,
    LOGON_FAILURES_REMEMBERED_MAX,
    LOGON_WAIT_S_MAX,
    LOGON_WAIT_S_MIN,
)

DOUBLINGS_MAX = 30  # past the longest wait by far: the shift stays small whatever the count


class Failures(NamedTuple):
    in_row: int
    free_at_s: float


NONE = Failures(0, 0.0)


class BackOff:
    """Not for two threads at once. Times are of a clock that never goes back."""

    def __init__(self) -> None:
        self._failures_by_name: OrderedDict[str, Failures] = OrderedDict()

    def wait_s(self, name: str, now_s: float) -> float:
        """How long this name must wait; 0: it may try."""
        return max(0.0, self._failures_by_name.get(name, NONE).free_at_s - now_s)

    def charge(self, name: str, now_s: float) -> int:
        """Count a failure that is not one yet; how many there are in a row now."""
        count = self._failures_by_name.get(name, NONE).in_row + 1
        self._failures_by_name[name] = Failures(count, now_s + _wait_after_s(count))
        self._failures_by_name.move_to_end(name)
        while len(self._failures_by_name) > LOGON_FAILURES_REMEMBERED_MAX:
            self._failures_by_name.popitem(last=False)
        return count

    def clear(self, name: str) -> None:
        """It was let in."""
        self._failures_by_name.pop(name, None)

    def take_back(self, name: str, now_s: float) -> None:
        """The attempt that was charged last could not be checked: it counts neither way."""
        count = self._failures_by_name.get(name, NONE).in_row - 1
        if count < 1:
            self.clear(name)
        else:
            self._failures_by_name[name] = Failures(count, now_s)


def _wait_after_s(count: int) -> float:
    if count < LOGON_FAILURES_FREE:
        return 0.0
    doublings = min(count - LOGON_FAILURES_FREE, DOUBLINGS_MAX)
    return min(LOGON_WAIT_S_MAX, LOGON_WAIT_S_MIN * (1 << doublings))
