"""Real time for a backend: a `Scheduler` whose calls come on the owner's thread.

One thread sleeps until the next call is due and hands it to `post`. Decides nothing but the order.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Protocol, TypeAlias

from hypervisor_backends.protocol import Cancel, Scheduler
from olvm.model.limits import NS_PER_S

Post: TypeAlias = Callable[[Callable[[], None]], None]


class Timers(Scheduler, Protocol):
    """A `Scheduler` of somebody's own, let go of at the end."""

    def close(self) -> None: ...


SLEEP_S_MAX = 60.0  # the clock may be stepped while it sleeps


class RealTime:
    """`post` must be callable from any thread; `call_at` and the cancels belong to the owner's thread."""

    def __init__(self, name: str, post: Post, clock_ns: Callable[[], int]) -> None:
        self._post = post
        self._clock_ns = clock_ns
        self._woken = threading.Condition()
        self._queue: list[tuple[int, int]] = []
        self._calls: dict[int, Callable[[], None]] = {}  # changed on the owner's thread alone
        self._asked = 0
        self._closed = False
        threading.Thread(target=self._run, name=f"timers-{name}", daemon=True).start()

    def now_ns(self) -> int:
        return self._clock_ns()

    def call_at(self, due_ns: int, fn: Callable[[], None]) -> Cancel:
        self._asked += 1
        number = self._asked
        self._calls[number] = fn
        with self._woken:
            heapq.heappush(self._queue, (due_ns, number))
            if self._queue[0][1] == number:
                self._woken.notify()
        return lambda: self._calls.pop(number, None) and None

    @property
    def waiting_count(self) -> int:
        return len(self._calls)

    def close(self) -> None:
        """No call comes after it. Idempotent."""
        self._calls.clear()
        with self._woken:
            self._closed = True
            self._queue.clear()
            self._woken.notify()

    def _run(self) -> None:
        while True:
            with self._woken:
                wait_s = self._wait_s()
                while not self._closed and wait_s > 0:
                    self._woken.wait(wait_s)
                    wait_s = self._wait_s()
                if self._closed:
                    return
                _, number = heapq.heappop(self._queue)
            self._post(lambda number=number: self._call(number))  # type: ignore[misc]

    def _wait_s(self) -> float:
        if not self._queue:
            return SLEEP_S_MAX
        return min((self._queue[0][0] - self._clock_ns()) / NS_PER_S, SLEEP_S_MAX)

    def _call(self, number: int) -> None:
        fn = self._calls.pop(number, None)
        if fn is not None:
            fn()
