"""True time, what is due in it, and how each host and process sees it.

There is one queue for everything that happens. An entry is `(due, number, action, a, b)`: ties go to what was put
in first, so that a run depends on nothing but its inputs. Time is whole nanoseconds.

Rules:
1. True time never goes back; an entry for the past is due now.
2. A host's clock is `offset + true time x (1 + drift)` and never goes back; nothing inside a host knows true time.
3. A process's clock is its host's clock and a step that it met when it started. It does not step while it lives.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, TypeAlias

from olvm.model.limits import NS_PER_S

Action: TypeAlias = Callable[[Any, Any], None]
_push = heapq.heappush
START_NS = 1_000 * NS_PER_S
FOR_EVER_NS = 1 << 62


class Timeline:
    """The queue and true time. Implements the `Scheduler` of backends for who needs no clock of its own."""

    __slots__ = ("_count", "event_count", "heap", "time_ns")

    def __init__(self) -> None:
        self.time_ns = START_NS
        self.event_count = 0
        self.heap: list[tuple[int, int, Action, Any, Any]] = []
        self._count = 0

    def now_ns(self) -> int:
        return self.time_ns

    def put(self, due_ns: int, action: Action, a: Any = None, b: Any = None) -> None:
        """Call `action(a, b)` at `due_ns`. It cannot be taken back: the action must know whether it is still wanted."""
        self._count += 1
        heapq.heappush(
            self.heap, (due_ns if due_ns > self.time_ns else self.time_ns, self._count, action, a, b)
        )

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Callable[[], None]:
        handle = [fn]
        self.put(due_ns, _call, handle)
        return handle.clear

    def after(self, seconds: float, fn: Callable[[], None]) -> None:
        self.put(self.time_ns + int(seconds * NS_PER_S), _call, [fn])

    def run_to(self, end_ns: int) -> None:
        """Let everything happen up to and including `end_ns`."""
        heap, pop, count = self.heap, heapq.heappop, 0
        while heap and heap[0][0] <= end_ns:
            due_ns, _, action, a, b = pop(heap)
            self.time_ns = due_ns
            count += 1
            action(a, b)
        self.event_count += count
        self.time_ns = max(self.time_ns, end_ns)

    def step(self, end_ns: int) -> bool:
        """The next single event up to `end_ns`; false if there is none, and time stands at `end_ns`."""
        if not self.heap or self.heap[0][0] > end_ns:
            self.time_ns = max(self.time_ns, end_ns)
            return False
        self.time_ns, _, action, a, b = heapq.heappop(self.heap)
        self.event_count += 1
        action(a, b)
        return True


def _call(handle: list[Callable[[], None]], _: None) -> None:
    if handle:
        handle[0]()


class HostClock:
    """One computer's clock. Implements the `Scheduler` of everything that runs there."""

    __slots__ = ("_timeline", "drift_ppm", "offset_ns")

    def __init__(self, timeline: Timeline, *, drift_ppm: int = 0, offset_ns: int = 0) -> None:
        assert abs(drift_ppm) < 500_000, f"a clock that drifts by {drift_ppm} ppm is none"
        self._timeline = timeline
        self.drift_ppm = drift_ppm
        self.offset_ns = offset_ns

    def now_ns(self) -> int:
        time_ns = self._timeline.time_ns
        if self.drift_ppm:
            time_ns += (time_ns - START_NS) * self.drift_ppm // 1_000_000
        return time_ns + self.offset_ns

    def true_ns(self, local_ns: int) -> int:
        """The first instant of true time at which this clock shows `local_ns` or more."""
        time_ns = local_ns - self.offset_ns
        if self.drift_ppm:
            elapsed_ns = time_ns - START_NS
            time_ns = START_NS - (-elapsed_ns * 1_000_000 // (1_000_000 + self.drift_ppm))
        return time_ns

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Callable[[], None]:
        return self._timeline.call_at(self.true_ns(due_ns), fn)


class ProcessClock:
    """The clock of one life of a process. What it scheduled is forgotten when that life ends."""

    __slots__ = ("_alive", "_host", "step_ns")

    def __init__(self, host: HostClock, step_ns: int = 0) -> None:
        self._host = host
        self.step_ns = step_ns
        self._alive = True

    def now_ns(self) -> int:
        return self._host.now_ns() + self.step_ns

    def is_true(self) -> bool:
        """Whether it shows true time, now and always: then nobody needs to ask it."""
        return not (self.step_ns or self._host.drift_ppm or self._host.offset_ns)

    def true_ns(self, local_ns: int) -> int:
        return self._host.true_ns(local_ns - self.step_ns)

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            if self._alive:
                fn()

        return self._host.call_at(due_ns - self.step_ns, run)

    def end(self) -> None:
        self._alive = False
